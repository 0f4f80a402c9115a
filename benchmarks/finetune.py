"""Learning curves of fine-tuning: from a starter that has not seen the corpus, against from scratch.

    python -m msfser.benchmarks.finetune --data FOLDER

FOLDER has the corpora of `evaluation/leave_corpora_out.yaml` with weak labels from -1 to 1. For each of two corpora a
starter is fitted to the others (`starter/fit.py`). Its fine-tuning with the settings of
`configs/finetune.yaml`, as `msfser train` does it, is compared with the training of the same model with random weights
above the encoders (`scratch`), on the same clips, drawn from the training speakers. The test speakers are fixed.
`scratch` has its own settings of the same grid. Both read what the default pipeline makes of the sound, not the
transcripts of the corpora. The settings were chosen on other clips:

    python -m msfser.benchmarks.finetune --data FOLDER --choose

prints the mean CCC of each setting on EmoDB, and on one half of the *training* speakers of the two corpora, after
training on the other half. From scratch, 40 epochs were the best on EmoDB; from the starter, 20 and 40 epochs differed
by .01, up or down by corpus, and the shorter training was taken. Of `text_dropout` 0 and 0.9, 0 was
better from scratch on the training speakers of RAVDESS, by .01; `finetune_words.py` says what was chosen otherwise.

Writes `benchmarks/results/finetune.json`: `CORPUS/SYSTEM/CLIPS` is the mean CCC, the mean over the draws, with its
interval over test speakers and draws; 0 clips are the starter as it is. `gain/CORPUS/CLIPS` is the paired difference,
starter minus scratch. `seconds/500` is the time of `msfser train` on 500 clips of 4 s of noise after the encoders ran,
and `seconds/500_with_encoders` with them. Draws the curves into `assets/finetune.svg`.
"""

import copy
import dataclasses
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from time import perf_counter
from typing import Any

import datasets
import numpy as np
import pandas as pd
import soundfile
from tqdm import tqdm

from ..audio_msfser import SAMPLING_RATE, load_audio
from ..cli.errors import cli_errors
from ..cli.outputs import write_text
from ..configuration_msfser import LABELS
from ..description_msfser import MeasuredDescriber
from ..evaluation.held_out import mean_ccc
from ..evaluation.intervals import clusters, interval
from ..evaluation.leave_out import Protocol, read_corpora, read_protocol
from ..evaluation.plots import Ends, curves
from ..evaluation.results import RESULTS, Row, read, row
from ..hub.encoders import ensure_encoders
from ..modeling_msfser import MsfSerModel
from ..processing_msfser import MsfSerProcessor
from ..starter.assemble import AUDIO_ENCODER, TEXT_ENCODER, starter_processor
from ..starter.fit import fit_numbers, fitted_to
from ..starter.material import read_sentences
from ..train import main as train
from ..training.initialization import build_model
from ..training.settings import Settings, parse_settings, read_unit_rows
from ..training.steps import encode, fold_trainer
from .command import parser_of, record, show_errors_alone
from .starter import FITS, recognized_words

SETTINGS = Path(__file__).parents[1] / "configs" / "finetune.yaml"
PLOT = Path(__file__).parents[1] / "assets" / "finetune.svg"
# How many speakers of each corpus are tested on; the others have at least 800 clips.
CORPORA = {"ravdess": 10, "nemo": 5}
# Where settings are chosen: another corpus with this many test speakers, and the training speakers of those above.
CHOSEN_ON = {"emodb": 5, **CORPORA}
TITLES = {"ravdess": "RAVDESS", "nemo": "nEMO"}
# Draws of each number of clips.
DRAWS = {12: 10, 50: 10, 200: 5, 800: 3}
TUNING_DRAWS = {12: 5, 50: 5, 200: 3, 800: 1}
# Clips of the test speakers that are predicted: enough for an interval over speakers.
TESTED = 300
STARTER, SCRATCH = "starter", "scratch"
GRID: list[dict[str, float]] = [
    *({"learning_rate": rate, "num_train_epochs": epochs} for rate, epochs in product((5e-4, 1e-3, 2e-3), (20, 40))),
    *({"text_dropout": share} for share in (0.0, 0.5, 0.7, 0.9)),
]
# What was chosen from scratch; the choice from the starter is in the settings file.
FROM_SCRATCH: Mapping[str, float] = {"learning_rate": 1e-3, "num_train_epochs": 40, "text_dropout": 0.0}


@dataclass
class Corpus:
    """A corpus with the outputs of its frozen encoders.

    Args:
        settings: Those of fine-tuning.
        items: Its clips.
        speakers: Of each clip.
        drawn_from: Indices of the clips that may be trained on.
        tested: Indices of those that are predicted.
    """

    settings: Settings
    items: datasets.Dataset
    speakers: np.ndarray
    drawn_from: np.ndarray
    tested: np.ndarray


def starter_without(corpus: str, data: Path, folder: Path) -> None:
    """Fits a starter to the other corpora of the protocol, and saves it."""
    protocol = read_protocol()
    others = [name for name in protocol.trained if name != corpus]
    clips = read_corpora(data, Protocol(protocol.table, others, (), protocol.label_range, protocol.emotions))
    fitted = fitted_to(clips, read_sentences([data]))
    fit_numbers(fitted).save_pretrained(folder)
    starter_processor(fitted.norms).save_pretrained(folder)


def with_default_texts(
    rows: datasets.Dataset, words: Mapping[str, Sequence[str | None]], norms: Mapping[str, Any]
) -> datasets.Dataset:
    """The rows with the texts that the default pipeline makes of their sound, in place of those of the corpus.

    Args:
        rows: In the schema.
        words: By `les` and `gs` what was recognized in each row.
        norms: Of the descriptions.
    """
    describer = MeasuredDescriber(norms)
    descriptions = [describer([load_audio(audio["path"])], [None])[0] for audio in rows["audio"]]
    texts = {
        "transcript": words["gs"],
        "emphasis": words["les"],
        "description": descriptions,
        "words": [None] * len(rows),
    }
    for name, column in texts.items():
        rows = rows.remove_columns(name).add_column(name, list(column), feature=rows.features[name])
    return rows


def read_corpus(name: str, data: Path, starter: Path, test_speakers: int, output: Path) -> Corpus:
    """Reads a corpus and runs the frozen encoders of a starter over it.

    Args:
        name: Of the corpus.
        data: The folder of the corpora.
        starter: The folder of the model to start from.
        test_speakers: How many speakers are tested on; they are drawn with seed 0.
        output: Where recognized words are kept.
    """
    protocol = read_protocol()
    options = ["--data", data / name / protocol.table, "--label_range", *protocol.label_range]
    options += ["--init_from", starter, "--cross_validate", "speaker", "--output_dir", starter.with_suffix(".run")]
    settings = parse_settings([str(SETTINGS), *map(str, options)])
    rows = read_unit_rows(settings.run)
    words = recognized_words([audio["path"] for audio in rows["audio"]], output)
    annotation: Any = MsfSerProcessor.from_pretrained(starter).annotation
    rows = with_default_texts(rows, words, annotation["description"]["norms"])
    return encoded_corpus(settings, rows, test_speakers)


def encoded_corpus(settings: Settings, rows: datasets.Dataset, test_speakers: int) -> Corpus:
    """Runs the frozen encoders of the model to start from over the rows of a corpus, and divides its speakers.

    Args:
        settings: Of fine-tuning.
        rows: In the schema, with the speaker as `unit`.
        test_speakers: How many speakers are tested on; they are drawn with seed 0.
    """
    items = encode(datasets.DatasetDict(all=rows), fold_trainer(settings, rows), settings.run)["all"]
    speakers = np.array(items["unit"])
    draw = np.random.default_rng(0)
    held = draw.permutation(sorted(set(speakers)))[:test_speakers]
    tested = draw.permutation(np.flatnonzero(np.isin(speakers, held)))[:TESTED]
    return Corpus(settings, items, speakers, np.flatnonzero(~np.isin(speakers, held)), tested)


def divided(corpus: Corpus, held: Sequence[str]) -> Corpus:
    """The clips that may be trained on, divided again: those of some speakers are tested on."""
    is_held = np.isin(corpus.speakers[corpus.drawn_from], held)
    tested = np.random.default_rng(0).permutation(corpus.drawn_from[is_held])[:TESTED]
    return dataclasses.replace(corpus, drawn_from=corpus.drawn_from[~is_held], tested=tested)


def predictions(corpus: Corpus, count: int, draws: int, setting: Mapping[str, Any], is_new: bool) -> np.ndarray:
    """What models that are trained on draws of a number of clips predict for the tested ones, `(draws, tested, 3)`.

    Args:
        corpus: With its settings.
        count: Clips of a draw; 0 trains nothing.
        draws: How many.
        setting: Settings that replace those of the corpus.
        is_new: Whether the weights above the encoders are random at first.
    """
    tested = {"all": corpus.items.select(corpus.tested)}
    return predictions_of(tested, corpus, count, draws, setting, is_new)["all"]


def predictions_of(
    tested: Mapping[str, datasets.Dataset],
    corpus: Corpus,
    count: int,
    draws: int,
    setting: Mapping[str, Any],
    is_new: bool = False,
) -> dict[str, np.ndarray]:
    """As [`predictions`], for several tested parts, by the names of these."""
    settings = with_setting(corpus.settings, setting)
    found: dict[str, list[Any]] = {name: [] for name in tested}
    start, processor = build_model(settings.run, settings.model)
    for seed in range(draws):
        drawn = np.random.default_rng([count, seed]).permutation(corpus.drawn_from)[:count]
        settings.training.seed = seed

        def initial() -> tuple[MsfSerModel, MsfSerProcessor]:
            return (untrained(start) if is_new else copy.deepcopy(start)), processor

        trainer = fold_trainer(settings, corpus.items.select(drawn if count else [0, 1]), initial=initial)
        if count:
            trainer.train()
        for name, part in tested.items():
            found[name].append(trainer.predict(part).predictions)
    return {name: np.stack(values) for name, values in found.items()}


def with_setting(settings: Settings, setting: Mapping[str, Any]) -> Settings:
    """The settings with some of the model's or of the library's replaced."""
    training, of_model = copy.copy(settings.training), {}
    for name, value in setting.items():
        if hasattr(settings.model, name):
            of_model[name] = value
        else:
            setattr(training, name, value)
    return settings._replace(training=training, model=dataclasses.replace(settings.model, **of_model))


def untrained(model: MsfSerModel) -> MsfSerModel:
    """A model with the same encoders, and random weights above them."""
    config: Any = copy.deepcopy(model.config)
    fresh = MsfSerModel(config)
    for name in ("audio_encoder", "text_encoder"):
        if hasattr(fresh, name):
            getattr(fresh, name).load_state_dict(getattr(model, name).state_dict())
    return fresh.eval()


def ccc_of_draws(predicted: np.ndarray, given: np.ndarray) -> float:
    """The mean CCC over dimensions and draws of predictions `(draws, clips, 3)` for labels `(clips, 3)`."""
    return float(np.mean([mean_ccc(of_draw, given) for of_draw in predicted]))


def rows_of_curve(
    name: str, found: Mapping[tuple[str, int], np.ndarray], given: np.ndarray, speakers: Sequence[str]
) -> list[Row]:
    """The rows of a corpus.

    Args:
        name: Of the corpus.
        found: By system and number of clips, the predictions `(draws, clips, 3)`.
        given: The labels, `(clips, 3)`.
        speakers: Of each clip.
    """
    units = clusters(speakers)
    rows = [ccc_row(f"{name}/{system}/{count}", values, given, units) for (system, count), values in found.items()]
    for count in sorted({count for _, count in found} - {0}):
        pair = found[STARTER, count], found[SCRATCH, count]
        rows.append(difference_row(f"gain/{name}/{count}", *pair, given, units))
    return rows


def ccc_row(name: str, predicted: np.ndarray, given: np.ndarray, units: Sequence[np.ndarray]) -> Row:
    """The mean CCC of predictions `(draws, clips, 3)` for labels `(clips, 3)`, over units and draws."""

    def ccc(items: np.ndarray, draws: np.ndarray) -> float:
        return ccc_of_draws(predicted[draws][:, items], given[items])

    return row(name, *interval(ccc, units, seeds=len(predicted), correlation=True))


def difference_row(
    name: str, ours: np.ndarray, others: np.ndarray, given: np.ndarray, units: Sequence[np.ndarray]
) -> Row:
    """The paired difference of the mean CCC of two predictions, as in [`ccc_row`]."""

    def difference(items: np.ndarray, draws: np.ndarray) -> float:
        ccc, other = (ccc_of_draws(values[draws][:, items], given[items]) for values in (ours, others))
        return ccc - other

    return row(name, *interval(difference, units, seeds=len(ours)))


def learning_curve(name: str, corpus: Corpus) -> list[Row]:
    """The rows of a corpus: both systems with each number of clips, and their differences."""
    found = {(STARTER, 0): predictions(corpus, 0, 1, {}, is_new=False)}
    for count, draws in tqdm(DRAWS.items(), desc=name):
        found[STARTER, count] = predictions(corpus, count, draws, {}, is_new=False)
        found[SCRATCH, count] = predictions(corpus, count, draws, FROM_SCRATCH, is_new=True)
    return rows_of_curve(name, found, labels_of(corpus), corpus.speakers[corpus.tested].tolist())


def labels_of(corpus: Corpus) -> np.ndarray:
    """The labels of the tested clips, `(tested, 3)`."""
    table = corpus.items.select(corpus.tested)
    return np.stack([np.asarray(table[name], np.float64) for name in LABELS], axis=1)


def choose(name: str, corpus: Corpus) -> None:
    """Prints the mean CCC of each setting of the grid; of a corpus that is reported, on training speakers alone."""
    reported = name in CORPORA
    tuning = divided(corpus, np.unique(corpus.speakers[corpus.drawn_from])[::2].tolist()) if reported else corpus
    given = labels_of(tuning)
    counts = [count for count in DRAWS if count <= len(tuning.drawn_from)]
    print(f"{name:10} {'setting':50}", *(f"{count:>6}" for count in counts), "  mean", flush=True)
    for system, setting in product((STARTER, SCRATCH), GRID):
        base = FROM_SCRATCH if system == SCRATCH else {}
        found = [
            ccc_of_draws(
                predictions(tuning, count, TUNING_DRAWS[count], {**base, **setting}, system == SCRATCH), given
            )
            for count in counts
        ]
        cells = " ".join(f"{value:6.3f}" for value in [*found, float(np.mean(found))])
        print(f"{system:10} {setting!s:50} {cells}", flush=True)


def seconds_of_training(count: int = 500) -> list[Row]:
    """The time of `msfser train` on some clips of 4 s of noise, with and without that of the encoders."""
    draw = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for clip in range(count):
            soundfile.write(folder / f"{clip}.wav", 0.1 * draw.standard_normal(4 * SAMPLING_RATE), SAMPLING_RATE)
        table = pd.DataFrame(draw.random((count, len(LABELS))), columns=[*LABELS])
        table["audio"] = [f"{clip}.wav" for clip in range(count)]
        table["speaker"] = [f"s{clip % 20}" for clip in range(count)]
        table.to_csv(folder / "clips.csv", index=False)
        cache, datasets.config.HF_DATASETS_CACHE = datasets.config.HF_DATASETS_CACHE, folder / "cache"
        try:
            seconds = []
            for run in ("first", "second"):  # the second one finds the outputs of the encoders
                start = perf_counter()
                train([str(SETTINGS), "--data", str(folder / "clips.csv"), "--output_dir", str(folder / run)])
                seconds.append(perf_counter() - start)
        finally:
            datasets.config.HF_DATASETS_CACHE = cache
    return [row(f"seconds/{count}", seconds[1]), row(f"seconds/{count}_with_encoders", seconds[0])]


def draw_plot() -> None:
    """Draws the curves of the results file."""
    rows = read(RESULTS / "finetune.json")
    panels = {
        TITLES[name]: {
            words: {count: _ends(rows[f"{name}/{system}/{count}"]) for count in DRAWS}
            for system, words in ((STARTER, "from the starter"), (SCRATCH, "from scratch"))
        }
        for name in CORPORA
    }
    write_text(PLOT, curves(panels, "training clips", "mean CCC"))


def _ends(found: Row) -> Ends:
    return found["value"], found["low"], found["high"]


def main(argv: Sequence[str] | None = None) -> None:
    """Fits the starters, trains from them and from scratch, and writes the results."""
    parser = parser_of("finetune", __doc__)
    parser.add_argument("--data", type=Path, required=True, help="the folder with the corpora")
    parser.add_argument("--output_dir", type=Path, default=FITS, help="where recognized words are kept")
    parser.add_argument("--choose", action="store_true", help="try the settings of the grid, and write nothing")
    arguments = parser.parse_args(argv)
    arguments.output_dir.mkdir(parents=True, exist_ok=True)
    show_errors_alone()
    with cli_errors("finetune"), tempfile.TemporaryDirectory() as folder:
        ensure_encoders([AUDIO_ENCODER, TEXT_ENCODER])
        for name, test_speakers in (CHOSEN_ON if arguments.choose else CORPORA).items():
            starter = Path(folder) / name
            starter_without(name, arguments.data, starter)
            corpus = read_corpus(name, arguments.data, starter, test_speakers, arguments.output_dir)
            if arguments.choose:
                choose(name, corpus)
            else:
                record("finetune", learning_curve(name, corpus), "finetune", argv)
        if not arguments.choose:
            record("finetune", seconds_of_training(), "finetune", argv)
            draw_plot()


if __name__ == "__main__":
    main()
