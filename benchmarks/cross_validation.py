"""Cross-validation over speakers: the default settings of `train.py` against the regressor on the same folds.

    python -m msfser.benchmarks.cross_validation --data FOLDER

FOLDER has `ravdess/metadata_weak.csv` and `emodb/metadata_weak.csv` with weak labels from -1 to 1; of EmoDB four
emotions are used. `train` is `msfser train configs/probe.yaml --cross_validate speaker`, scored with all inputs that
the table has: sound and transcripts. `regressor` is the layer-mix regressor of `evaluation/regressor.py`. Each speaker
is predicted by models that were trained on the others, with each of the seeds. Writes
`benchmarks/results/crossval.json`: `CORPUS/SYSTEM/DIMENSION`, `CORPUS/SYSTEM/mean` and the paired difference
`CORPUS/train_minus_regressor` of the mean CCC, each the mean over the seeds with its interval over speakers and seeds.
With `--whole_clips`, `whole_clips` is `train` on every frame of whole clips in place of random crops.

Start the command in the project's folder. What is finished is kept in the output folder.
"""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from ..cli.errors import cli_errors
from ..cli.outputs import whole_file
from ..configuration_msfser import LABELS
from ..evaluation.baselines import regressor_system
from ..evaluation.held_out import HeldOut, leave_groups_out
from ..evaluation.intervals import clusters, interval
from ..evaluation.leave_out import Protocol, read_corpora, read_protocol
from ..evaluation.regressor import pooled_clips, regressor_encoder
from ..evaluation.results import Row, row, rows_of
from ..hub.encoders import ensure_encoders
from ..loss_msfser import concordance
from ..starter.assemble import AUDIO_ENCODER, TEXT_ENCODER
from ..train import main as train
from ..training.feature_store import fingerprint
from ..training.folds import PREDICTIONS_FILE, read_predictions
from .command import parser_of, record

CORPORA = ("ravdess", "emodb")
# Of the system `whole_clips`.
_WHOLE = ("--crop_seconds", 0, "--frame_stride", 1)
SETTINGS = Path(__file__).parents[1] / "configs" / "probe.yaml"


def of_train(
    name: str,
    clips: pd.DataFrame,
    data: Path,
    protocol: Protocol,
    seed: int,
    output: Path,
    settings: Sequence[object] = (),
) -> np.ndarray:
    """The predictions of `train.py --cross_validate speaker` for each clip, `(clips, 3)`.

    Args:
        name: Of the corpus.
        clips: As [`read_corpora`] gives them.
        data: The folder with the corpora.
        protocol: How they are read.
        seed: Of the training.
        output: Where the folds are kept.
        settings: More options of `msfser train`.
    """
    source = pd.read_csv(data / name / protocol.table, dtype=str, keep_default_na=False)
    table = output / f"{name}.csv"
    with whole_file(table) as unfinished:
        source[source["file_name"].isin(clips["file"])].to_csv(unfinished, index=False)
    folder = output / f"{name}_{seed}"
    options = ["--data", table, "--audio_folder", (data / name).resolve(), "--label_range", *protocol.label_range]
    options += ["--cross_validate", "speaker", "--seed", seed, "--output_dir", folder, *settings]
    train([str(SETTINGS), *map(str, options)])
    found = read_predictions(folder / PREDICTIONS_FILE)
    found = found[found["inputs"] == found["inputs"].iloc[-1]]
    if [Path(file).name for file in found["file"]] != [Path(file).name for file in clips["file"]]:
        raise ValueError(f"{folder / PREDICTIONS_FILE} has the predictions of other clips: remove {folder}.")
    return found[[*LABELS]].to_numpy()


def trained(
    name: str, clips: pd.DataFrame, protocol: Protocol, arguments: Any, settings: Sequence[object] = ()
) -> np.ndarray:
    """[`of_train`] with each seed of the command, `(seeds, clips, 3)`."""
    output = arguments.output_dir / "whole_clips" if settings else arguments.output_dir
    output.mkdir(parents=True, exist_ok=True)
    seeds = (of_train(name, clips, arguments.data, protocol, seed, output, settings) for seed in arguments.seeds)
    return np.stack([*seeds])


def of_regressor(clips: pd.DataFrame, labels: np.ndarray, seeds: Sequence[int], folder: Path) -> np.ndarray:
    """The predictions of the regressor on the same folds, `(seeds, clips, 3)`."""
    ensure_encoders([AUDIO_ENCODER, TEXT_ENCODER])
    paths = clips["path"].tolist()
    system = regressor_system(pooled_clips(paths, *regressor_encoder()), labels)
    data = fingerprint(*map(Path, paths), labels, clips["speaker"].tolist())
    engine = HeldOut(labels, leave_groups_out(clips["speaker"].tolist()), data, folder)
    engine.run([system], seeds)
    return next(iter(engine.gathered([system], seeds)[system.name].values()))


def rows_of_systems(
    corpus: str, predictions: Mapping[str, np.ndarray], labels: np.ndarray, speakers: Sequence[str]
) -> list[Row]:
    """The CCC of each system, and how much higher that of `train` is, with intervals over speakers and seeds.

    Args:
        corpus: The start of the names.
        predictions: Of `train` and other systems, `(seeds, clips, 3)`.
        labels: `(clips, 3)`.
        speakers: Of each clip.
    """
    given = torch.as_tensor(labels, dtype=torch.float64)
    units = clusters(speakers)

    def ccc(system: str, items: np.ndarray, seeds: np.ndarray) -> np.ndarray:
        """CCC of each dimension and their mean, `(4,)`, mean over the seeds."""
        found = [concordance(torch.as_tensor(predictions[system][s, items]).double(), given[items]) for s in seeds]
        means = torch.stack(found).mean(0)
        return torch.cat([means, means.mean(-1, keepdim=True)]).numpy()

    count = len(next(iter(predictions.values())))
    rows: list[Row] = []
    for system in predictions:
        names = [f"{corpus}/{system}/{name}" for name in (*LABELS, "mean")]
        found = interval(
            lambda items, seeds, system=system: ccc(system, items, seeds),  # type: ignore[misc]
            units,
            seeds=count,
            correlation=True,
        )
        rows += rows_of(names, found)
    for other in predictions:
        if other != "train":
            difference = interval(
                lambda items, seeds, other=other: ccc("train", items, seeds)[-1] - ccc(other, items, seeds)[-1],  # type: ignore[misc]
                units,
                seeds=count,
            )
            rows.append(row(f"{corpus}/train_minus_{other}", *difference))
    return rows


def main(argv: Sequence[str] | None = None) -> None:
    """Trains what is missing, prints and writes the results."""
    parser = parser_of("cross_validation", __doc__)
    parser.add_argument("--data", type=Path, required=True, help="the folder with the corpora")
    parser.add_argument("--corpora", nargs="+", choices=CORPORA, default=[*CORPORA], help="ravdess emodb")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="0 1 2")
    parser.add_argument("--whole_clips", action="store_true", help="also train on whole clips, which takes long")
    parser.add_argument("--output_dir", type=Path, default=Path("outputs/benchmarks/cross_validation"))
    arguments = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    rows: list[Row] = []
    with cli_errors("cross_validation", resume="run the same command again; finished folds are kept"):
        protocol = read_protocol()
        for name in arguments.corpora:
            one = Protocol(protocol.table, (name,), (), protocol.label_range, protocol.emotions, protocol.same_speaker)
            clips = read_corpora(arguments.data, one)
            labels = clips[[*LABELS]].to_numpy(np.float64)
            regressor = of_regressor(clips, labels, arguments.seeds, arguments.output_dir / "regressor")
            predictions = {"train": trained(name, clips, protocol, arguments), "regressor": regressor}
            if arguments.whole_clips:
                predictions["whole_clips"] = trained(name, clips, protocol, arguments, _WHOLE)
            rows += rows_of_systems(name, predictions, labels, clips["speaker"].tolist())
    record("crossval", rows, "cross_validation", argv)


if __name__ == "__main__":
    main()
