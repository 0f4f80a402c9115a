"""The intervals of the starter's recipe: how often they contain the label, and how wide they are.

    python -m msfser.benchmarks.intervals --data FOLDER
    python -m msfser.benchmarks.intervals --probe outputs/probe

FOLDER holds RAVDESS (speech), EmoDB, nEMO, emotiontts_kr and GoEmotions; the labels of voices are **weak**. The level
is 0.9. Rows:

- `coverage/DIMENSION`, `coverage/CORPUS`, `coverage/CORPUS/DIMENSION`: held-out speakers. Groups of speakers are
  predicted by the cross-fits that the starter's intervals are made of (`starter/fit.py`); the intervals of each group
  are calibrated on the others.
- `width/DIMENSION`: the mean width of these intervals, and `width_ratio`: over dimensions, relative to intervals of
  constant width, calibrated alike; `constant_coverage` is the share that those contain.
- `width_error_spearman`: the rank correlation of width and absolute error, mean over dimensions.
- `reject_quarter`: by how much the mean absolute error falls if the quarter with the widest intervals is left out.
- `left_out/CORPUS/coverage`, `.../width`: a corpus that the recipe was not fitted to, from sound alone; calibrated on
  the held-out speakers of the corpora that it was fitted to, by cross-fits without the left-out corpus.
  `open/left_out/...` is the same of the recipe of `starter-open`.
- `coverage/probe`, `probe_width/DIMENSION`: the test part of a run on the probe corpus, calibrated on its validation
  part as `msfser train` does.

Coverage has intervals over speakers. Fits have seed 0 and are kept in the output folders.
"""

import logging
from collections.abc import Sequence
from pathlib import Path

import datasets
import numpy as np
import pandas as pd
from scipy import stats

from ..cli.errors import cli_errors
from ..configuration_msfser import LABELS
from ..evaluation.coverage import ends_of, ends_of_folds
from ..evaluation.held_out import HeldOut
from ..evaluation.intervals import clusters, interval, share_interval
from ..evaluation.leave_out import (
    engine_of_open_starter,
    make_systems,
    open_engine,
    read_corpora,
    read_protocol,
)
from ..evaluation.predictions import predict_part
from ..evaluation.results import Row, row, rows_of
from ..hub.encoders import ensure_encoders
from ..intervals_msfser import INTERVAL_LEVEL, MsfSerIntervals
from ..starter.assemble import AUDIO_ENCODER, STARTER, STARTERS, TEXT_ENCODER
from ..starter.fit import FITS, cross_fits, fitted_to
from ..starter.material import read_sentences, voices_of
from ..training.calibration import calibrated, constant_width
from .command import parser_of, record

_SYSTEM = "starter"


def held_out_rows(
    numbers: np.ndarray, labels: np.ndarray, groups: np.ndarray, speakers: np.ndarray, corpora: np.ndarray
) -> list[Row]:
    """Coverage and width where each group of speakers is calibrated on the others.

    Args:
        numbers: `(clips, 3)`, each by a model without its group.
        labels: `(clips, 3)`.
        groups: `(clips,)`.
        speakers: `(clips,)`.
        corpora: `(clips,)`.

    Raises:
        ValueError: There are too few speakers.
    """
    ends_at = ends_of_folds(numbers, labels, speakers.tolist(), groups.tolist())
    if ends_at is None:
        raise ValueError("the groups have too few speakers for intervals: give more corpora.")
    low, high = ends_at(INTERVAL_LEVEL)
    constant = np.empty(labels.shape)
    for group in np.unique(groups):
        constant[groups == group] = constant_width(numbers[groups != group], labels[groups != group])
    hits, width, errors = (low <= labels) & (labels <= high), high - low, np.abs(labels - numbers)
    constant_widths = np.clip(numbers + constant, 0, 1) - np.clip(numbers - constant, 0, 1)
    units = clusters(speakers)
    rows = [row(f"coverage/{name}", *share_interval(hits[:, d], units)) for d, name in enumerate(LABELS)]
    rows += [row("constant_coverage", *share_interval((errors <= constant).mean(1), units))]
    for name in dict.fromkeys(corpora):
        of_corpus = [unit for unit in units if corpora[unit[0]] == name]
        rows.append(row(f"coverage/{name}", *share_interval(hits.mean(1), of_corpus)))
        for d, label in enumerate(LABELS):
            rows.append(row(f"coverage/{name}/{label}", *share_interval(hits[:, d], of_corpus)))
    rows += rows_of([f"width/{name}" for name in LABELS], interval(lambda items: width[items].mean(0), units))
    rows.append(
        row("width_ratio", *interval(lambda items: width[items].mean() / constant_widths[items].mean(), units))
    )

    def agreement(items: np.ndarray) -> float:
        pairs = zip(width[items].T, errors[items].T, strict=True)
        return float(np.mean([stats.spearmanr(*pair).statistic for pair in pairs]))

    def saved(items: np.ndarray) -> float:
        kept = width[items] <= np.quantile(width[items], 0.75, axis=0)
        return float(errors[items].mean() - errors[items][kept].mean())

    rows.append(row("width_error_spearman", *interval(agreement, units, correlation=True)))
    rows.append(row("reject_quarter", *interval(saved, units)))
    return rows


def left_out_rows(data: Path, folder: Path, cross_fits_folder: Path, voices: pd.DataFrame) -> list[Row]:
    """Coverage on each corpus by the recipe fitted to the others, with intervals calibrated on these alone.

    Args:
        data: The folder with the corpora.
        folder: Where fits that leave corpora out are kept.
        cross_fits_folder: Where cross-fits are kept.
        voices: Of all corpora that are trained on.
    """
    protocol, sentences = read_protocol(), read_sentences([data])
    clips = read_corpora(data, protocol)
    (system,) = make_systems([_SYSTEM], clips, protocol.trained, folder, data / (protocol.sentences or ""))

    def calibrated_on(corpora: Sequence[str]) -> MsfSerIntervals:
        here = voices[voices["corpus"].isin(corpora)].reset_index(drop=True)
        numbers, groups = cross_fits(fitted_to(here, sentences), cross_fits_folder)
        return calibrated(numbers, here[[*LABELS]].to_numpy(np.float64), here["speaker"].tolist(), groups)

    def numbers_of(engine: HeldOut) -> np.ndarray:
        engine.run([system], [0])
        (found,) = engine.gathered([system], [0])[system.name].values()
        return np.asarray(found[0])

    def rows_of_corpus(name: str, numbers: np.ndarray, intervals: MsfSerIntervals) -> list[Row]:
        here = (clips["corpus"] == name).to_numpy()
        low, high = ends_of(intervals, numbers[here])
        truth = clips.loc[here, [*LABELS]].to_numpy()
        hits = ((low <= truth) & (truth <= high)).mean(1)
        return [
            row(f"left_out/{name}/coverage", *share_interval(hits, clusters(clips["speaker"][here]))),
            row(f"left_out/{name}/width", float((high - low).mean())),
        ]

    rows, numbers = [], numbers_of(open_engine(clips, protocol, folder))
    for name in dict.fromkeys(clips["corpus"]):
        rows += rows_of_corpus(name, numbers, calibrated_on([other for other in protocol.trained if other != name]))
    numbers, intervals = numbers_of(engine_of_open_starter(clips, protocol, folder)), calibrated_on(protocol.open)
    for name in dict.fromkeys(clips["corpus"]):
        if name not in protocol.open:
            rows += [found | {"name": f"open/{found['name']}"} for found in rows_of_corpus(name, numbers, intervals)]
    return rows


def acted_rows(data: Path, cross_fits_folder: Path, leave_out_folder: Path) -> list[Row]:
    """The rows of held-out speakers and of left-out corpora."""
    voices = voices_of(STARTERS[STARTER], data)
    numbers, groups = cross_fits(fitted_to(voices, read_sentences([data])), cross_fits_folder)
    labels = voices[[*LABELS]].to_numpy(np.float64)
    rows = held_out_rows(numbers, labels, groups, voices["speaker"].to_numpy(), voices["corpus"].to_numpy())
    return rows + left_out_rows(data, leave_out_folder, cross_fits_folder, voices)


def probe_rows(folder: Path) -> list[Row]:
    """Coverage on the test part of a run, whose validation part calibrates."""
    given = [f"{name}_label" for name in LABELS]
    calibration, test = (predict_part(folder, part).table for part in ("validation", "test"))
    numbers, labels = calibration[[*LABELS]].to_numpy(), calibration[given].to_numpy()
    intervals = calibrated(numbers, labels, calibration["speaker"].tolist())
    low, high = ends_of(intervals, test[[*LABELS]].to_numpy())
    hits = ((low <= test[given].to_numpy()) & (test[given].to_numpy() <= high)).mean(1)
    widths = [row(f"probe_width/{name}", width) for name, width in zip(LABELS, (high - low).mean(0), strict=True)]
    return [row("coverage/probe", *share_interval(hits, clusters(test["speaker"]))), *widths]


def main(argv: Sequence[str] | None = None) -> None:
    """Fits what is missing, prints and writes the results."""
    parser = parser_of("intervals", __doc__)
    parser.add_argument("--data", type=Path, help="the folder with the corpora")
    parser.add_argument("--probe", type=Path, help="a finished run on the probe corpus")
    parser.add_argument("--output_dir", type=Path, default=FITS, help="where cross-fits are kept (%(default)s)")
    parser.add_argument(
        "--leave_out_dir", type=Path, default=Path("outputs/leave_out"), help="of msfser evaluate (%(default)s)"
    )
    arguments = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    datasets.disable_progress_bars()
    with cli_errors("intervals", resume="run the same command again; finished fits are kept"):
        ensure_encoders([AUDIO_ENCODER, TEXT_ENCODER])
        rows = []
        if arguments.data:
            rows += acted_rows(arguments.data, arguments.output_dir, arguments.leave_out_dir)
        if arguments.probe:
            rows += probe_rows(arguments.probe)
    record("intervals", rows, "intervals", argv)


if __name__ == "__main__":
    main()
