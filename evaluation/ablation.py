"""The paper's ablation on any corpus: each row is trained over several seeds and compared with the full model.

    msfser ablate configs/probe.yaml --num_train_epochs 10
    msfser ablate configs/probe.yaml --name mine --data my_corpus/metadata.csv --label_range 1 7
    msfser ablate configs/msp_podcast.yaml --data FOLDER --part validation
    msfser ablate configs/iemocap.yaml --data FOLDER --folds 1 2 3 4 5

Options that the command does not know go to `msfser train`. The settings file is the full model. A row that would
change nothing in it is left out, and so is a row whose model would have no input for some item of the corpus. In the
control `random_window` the emphasized words are as many neighboring words from a random position
(`training/random_emphasis.py`).

A finished run is not repeated, and a killed run is resumed. Processes that are given the same command share the runs.
To measure changed code or another settings file of the same name, remove `outputs/ablation/NAME` first.

The results are `results.json` and `differences.svg` in that folder; `make probe` publishes those of the probe corpus.
Intervals are over speakers and seeds (`evaluation/intervals.py`); differences are paired. With folds, the items of all
folds are scored together.
"""

import argparse
import dataclasses
import logging
import re
import shlex
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import datasets
import numpy as np
import pandas as pd
from filelock import FileLock, Timeout

from ..cli.errors import cli_errors
from ..cli.outputs import make_folder, whole_file, write_text
from ..configuration_msfser import LABELS
from ..hub.encoders import ensure_encoders
from ..train import main as train
from ..training.collator import FeatureCollator
from ..training.data_identity import inputs_of
from ..training.features import COLUMNS, encode_parts, has_input, keep_inputs
from ..training.initialization import build_model
from ..training.labels import rated_labels
from ..training.settings import Settings, parse_settings, read_data, read_run
from ..training.trainer import MsfSerTrainer
from .intervals import Interval, clusters, concordance_of_rated, interval
from .paper import beside_paper
from .plots import NOT_RATED, intervals
from .predictions import predict_part
from .results import Row, row, rows_of, with_ends, write

logger = logging.getLogger(__name__)

RESULTS_FILE, PLOT_FILE = "results.json", "differences.svg"
FULL, RANDOM_WINDOW = "full", "random_window"
DIMENSIONS = (*LABELS, "mean")


class Variant(NamedTuple):
    """A row of the ablation: its title, and the settings in which it differs from the full model."""

    title: str
    settings: Mapping[str, Any] = {}


def _with_texts(*texts: str, cross_fusion: str = "film", **more: str) -> dict[str, Any]:
    return {"semantics": list(texts), "cross_fusion": cross_fusion, **more}


# In the order of the paper's table, whose "gate, concatenation" is read as all three texts; below it the rows that the
# paper does not have.
ROWS: dict[str, Variant] = {
    FULL: Variant("full model"),
    "audio": Variant("audio only", {"semantics": []}),
    "gs_film": Variant("audio, transcript; FiLM", _with_texts("gs")),
    "les_film": Variant("audio, emphasized words; FiLM", _with_texts("les")),
    "es_film": Variant("audio, description; FiLM", _with_texts("es")),
    "attention_film": Variant("audio, both by attention; FiLM", _with_texts("les", "gs", intra_fusion="attention")),
    "gate_film": Variant("audio, both by gate; FiLM", _with_texts("les", "gs", intra_fusion="gate")),
    "gate_concat": Variant(
        "full model, concatenation", _with_texts("les", "gs", "es", cross_fusion="concat", intra_fusion="gate")
    ),
    "no_les": Variant("without emphasized words (LES)", {"semantics": ["gs", "es"]}),
    RANDOM_WINDOW: Variant("random words for the emphasized ones"),
    "no_gs": Variant("without transcript (GS)", {"semantics": ["les", "es"]}),
    "no_es": Variant("without description (ES)", {"semantics": ["les", "gs"]}),
    "no_audio": Variant("without audio", {"audio": False}),
    "last_layer": Variant("last layer of the speech encoder", {"audio_states": "last"}),
    "weighted_layers": Variant("weighted layers of the speech encoder", {"audio_states": "weighted"}),
    "static_routing": Variant("weights of the experts are constants", {"routing": "static"}),
    "input_routing": Variant("weights of the experts depend on the input", {"routing": "input"}),
    "pooled_film": Variant("FiLM on the pooled audio", {"film_position": "pooled"}),
    "frames_film": Variant("FiLM on each frame", {"film_position": "frames"}),
    "no_text_dropout": Variant("without text dropout", {"text_dropout": 0.0}),
}

# Beside the differences to the full model.
PAIRS = (("gate_film", "attention_film"),)

_TIMED_STEPS = 8

# Options of `msfser train` that the ablation decides itself.
_OURS = {
    "--fold": "name the folds with --folds, such as --folds 1",
    "--seed": "name the seeds with --seeds, such as --seeds 0",
    "--output_dir": "the runs are in outputs/ablation/NAME, give --name",
    "--overwrite": "to train anew remove outputs/ablation/NAME, or give another --name",
    "--do_predict": "the ablation trains and predicts",
    "--random_emphasis": "the row random_window trains with it",
}


def as_options(settings: Mapping[str, Any]) -> list[str]:
    """Settings as options of `msfser train`; an empty list is the word `none`."""
    options = []
    for name, value in settings.items():
        values = (value or ["none"]) if isinstance(value, list) else [value]
        options += [f"--{name}", *(str(each).lower() if isinstance(each, bool) else str(each) for each in values)]
    return options


@dataclass(frozen=True)
class Run:
    """One training of one row."""

    row: str  # its name among `ROWS`
    seed: int
    fold: int | None
    settings: tuple[str, ...]  # settings file and options of `msfser train`, the same for all rows
    folder: Path  # of the ablation
    part: str  # of the corpus, the one that is predicted

    @property
    def output(self) -> Path:
        """The folder of the run."""
        return self.folder / "_".join(str(part) for part in (self.row, self.seed, self.fold) if part is not None)

    @property
    def predictions(self) -> Path:
        """The file with the predictions for each item of the part."""
        return self.output / f"{self.part}_predictions.csv"

    def argv(self) -> list[str]:
        """The arguments of `msfser train`."""
        others: dict[str, Any] = {} if self.fold is None else {"fold": self.fold}
        others |= {"random_emphasis": self.seed} if self.row == RANDOM_WINDOW else {}
        others |= {"seed": self.seed, "output_dir": self.output}
        return [*self.settings, *as_options({**ROWS[self.row].settings, **others})]

    def is_finished(self) -> bool:
        """Whether the run is trained and its items are predicted.

        Raises:
            ValueError: The folder holds a run with other settings.
        """
        if not (self.output / "results.json").is_file():
            return False
        if read_run(self.output).resolved() != _settings(self.argv()).resolved:
            raise ValueError(
                f"{self.output} holds a run with other settings: remove {self.folder}, or give another --name."
            )
        return self.predictions.is_file()

    def finish(self) -> None:
        """Trains the run and predicts its items, unless that is done."""
        if self.is_finished():
            return
        if not (self.output / "results.json").is_file():
            logger.info("row %s, seed %d%s", self.row, self.seed, "" if self.fold is None else f", fold {self.fold}")
            train(self.argv())
        table = predict_part(self.output, self.part).table
        with whole_file(self.predictions) as unfinished:
            table.to_csv(unfinished, index_label="item")


def _settings(argv: Sequence[str]) -> Settings:
    """As [`parse_settings`], with errors that name this command and its option for folds."""
    try:
        return parse_settings(argv, "ablate")
    except SystemExit as error:
        if not isinstance(error.code, str):
            raise
        raise SystemExit(re.sub(r"--fold\b", "--folds", error.code)) from None


def rows_that_differ(settings: Sequence[str], names: Sequence[str]) -> list[str]:
    """The rows among `names` that change something in the settings, and the full model.

    Raises:
        ValueError: There is no such row.
    """
    if unknown := sorted(set(names) - set(ROWS)):
        raise ValueError(f"There is no row {', '.join(unknown)}; there are {', '.join(ROWS)}.")
    full = _settings(settings).model

    def differs(name: str) -> bool:
        if name == RANDOM_WINDOW:
            return "les" in full.semantics
        if name == "audio" and not full.audio:
            return False  # no input would be left
        return _settings([*settings, *as_options(ROWS[name].settings)]).model != full

    return [name for name in ROWS if name == FULL or (name in names and differs(name))]


def rows_with_inputs(settings: Sequence[str], names: Sequence[str]) -> list[str]:
    """The rows among `names` whose model has an input for every item of the corpus, and the full model.

    A row that is left out is logged: its training would end with an error.
    """
    parts = read_data(_settings(settings).run).values()
    present = {name: np.concatenate([has_input(keep_inputs(part, [name])) for part in parts]) for name in COLUMNS}
    kept = []
    for name in names:
        inputs = inputs_of(_settings([*settings, *as_options(ROWS[name].settings)]).model)
        lacking = np.count_nonzero(~np.any([present[of_model] for of_model in inputs], axis=0))
        if lacking and name != FULL:
            logger.warning("row %s is left out: items of the corpus have none of its inputs (%d such)", name, lacking)
        else:
            kept.append(name)
    return kept


def seconds_of_a_run(settings: Sequence[str]) -> float:
    """The expected seconds of one run here, from a start, a few steps and a few evaluated items of the full model.

    The outputs of frozen encoders, computed once for all runs, are not counted.
    """
    run, switches, training, _ = _settings(settings)
    parts = read_data(run)
    batch = training.per_device_train_batch_size * training.world_size * training.gradient_accumulation_steps
    steps = training.max_steps if training.max_steps > 0 else training.num_train_epochs * len(parts["train"]) / batch
    evaluated = training.num_train_epochs * len(parts.get("validation", ())) + 3 * len(parts.get("test", ()))
    few = datasets.DatasetDict(train=parts["train"].select(range(min(len(parts["train"]), 2 * batch))))
    training.max_steps, training.eval_strategy, training.load_best_model_at_end = _TIMED_STEPS, "no", False
    training.save_strategy, training.disable_tqdm = "no", True
    start = time.perf_counter()
    model, processor = build_model(run, switches)
    started = time.perf_counter() - start
    items = encode_parts(few, model, processor, run.cache_gigabytes)["train"]
    with tempfile.TemporaryDirectory() as folder:
        training.output_dir = folder
        trainer = MsfSerTrainer(
            model=model,
            args=training,
            train_dataset=items,
            data_collator=FeatureCollator(processor),
            processing_class=processor,
            encoder_learning_rate=run.encoder_learning_rate,
            batch_seconds=run.batch_seconds,
            train_collator=FeatureCollator(processor, run.crop, training.seed),
        )
        trained = trainer.train().metrics["train_runtime"] / _TIMED_STEPS
        predicted = (trainer.predict(items).metrics or {})["test_runtime"] / len(items)
    return started + steps * trained + evaluated * predicted


def compare(predictions: dict[str, dict[int, pd.DataFrame]]) -> list[Row]:
    """Scores rows on the items that all of them predict, against the row `full`.

    Args:
        predictions: For each row a table for each seed, the same seeds; `item` identifies the items, and `speaker`
            may be missing.

    Returns:
        Rows of results without their command: the CCC `ROW/DIMENSION`, its difference to the full model
        `ROW_minus_full/DIMENSION`, and the differences of `PAIRS` named likewise, all means over the seeds;
        `ROW/seedN/DIMENSION` without interval; and the counts `items` and `speakers`. Items that are not rated in a
        dimension do not count in it; a dimension without a rated item has no rows, and is not in the mean.

    Raises:
        ValueError: The labels of an item differ between runs.
    """
    seeds, names = list(predictions[FULL]), list(predictions)
    tables = {name: [of_seeds[seed].set_index("item") for seed in seeds] for name, of_seeds in predictions.items()}
    first = tables[FULL][0]
    common = first.index
    for table in (table for of_seeds in tables.values() for table in of_seeds):
        common = common.intersection(table.index, sort=False)
    first, columns = first.loc[common], [f"{label}_label" for label in LABELS]
    labels = rated_labels(first[columns].to_numpy(float))
    for name, of_seeds in tables.items():
        others = [rated_labels(table.loc[common, columns].to_numpy(float)) for table in of_seeds]
        if not all(np.allclose(other, labels, atol=1e-6, equal_nan=True) for other in others):
            raise ValueError(f"The runs of {name} were trained on other labels: remove their folder.")
    rated = [label for label, of_label in zip(LABELS, labels.T, strict=True) if not np.isnan(of_label).all()]
    dimensions = [*rated, "mean"]
    values = [np.stack([table.loc[common, rated] for table in of_seeds], axis=1) for of_seeds in tables.values()]
    predicted = np.stack(values, axis=1)  # (items, rows, seeds, rated dimensions)
    given = labels[:, None, None, [LABELS.index(label) for label in rated]]

    def scores(items: np.ndarray | slice) -> np.ndarray:
        """CCC, `(rows, seeds, dimensions)`."""
        of_items = predicted[items]
        return concordance_of_rated(of_items, np.broadcast_to(given[items], of_items.shape))

    def measure(items: np.ndarray, used_seeds: np.ndarray) -> np.ndarray:
        """CCC, `(rows, dimensions)`."""
        return scores(items)[:, used_seeds].mean(1)

    pairs = [(name, FULL) for name in names if name != FULL]
    pairs += [pair for pair in PAIRS if set(pair) <= set(names)]
    minuends, subtrahends = ([names.index(pair[end]) for pair in pairs] for end in (0, 1))

    def differences(items: np.ndarray, used_seeds: np.ndarray) -> np.ndarray:
        """`(pairs, dimensions)`."""
        ccc = measure(items, used_seeds)
        return ccc[minuends] - ccc[subtrahends]

    # Each item without a speaker is a unit.
    speakers = clusters(first["speaker"].where(first["speaker"].notna(), [f"\0{item}" for item in common]))
    found = interval(measure, speakers, seeds=len(seeds), correlation=True)
    rows = [row("items", len(common)), row("speakers", len(speakers))]
    for name, of_seeds, *ends in zip(names, scores(slice(None)), *found, strict=True):
        rows += rows_of([f"{name}/{dimension}" for dimension in dimensions], Interval(*ends))
        for seed, of_seed in zip(seeds, of_seeds, strict=True):
            scored = zip(dimensions, of_seed, strict=True)
            rows += [row(f"{name}/seed{seed}/{dimension}", ccc) for dimension, ccc in scored if not np.isnan(ccc)]
    for (name, other), *ends in zip(pairs, *interval(differences, speakers, seeds=len(seeds)), strict=True):
        rows += rows_of([f"{name}_minus_{other}/{dimension}" for dimension in dimensions], Interval(*ends))
    return rows


def as_table(rows: Sequence[Row]) -> str:
    """The rows as text: CCC, and below it the differences."""
    cells = {row["name"]: with_ends(row) for row in rows}
    dimensions = [dimension for dimension in DIMENSIONS if f"{FULL}/{dimension}" in cells]
    shown = {
        title: [cells.get(f"{measure}/{dimension}", "-") for dimension in dimensions]
        for name, variant in ROWS.items()
        for measure, title in (
            (name, variant.title),
            *((f"{name}_minus_{other}", f"   minus {other}: {name}") for other in (FULL, *dict(PAIRS).values())),
        )
        if f"{measure}/mean" in cells
    }
    return pd.DataFrame.from_dict(shown, orient="index", columns=dimensions).to_string()


def plot(rows: Sequence[Row]) -> str:
    """The differences to the full model as SVG."""
    ends = {row["name"]: (row["value"], row["low"], row["high"]) for row in rows}
    dimensions = [dimension for dimension in DIMENSIONS if f"{FULL}/{dimension}" in ends]
    shown = {
        variant.title: [ends.get(f"{name}_minus_full/{dimension}", NOT_RATED) for dimension in dimensions]
        for name, variant in ROWS.items()
        if f"{name}_minus_full/mean" in ends
    }
    return intervals(shown, [f"{dimension}, CCC minus full" for dimension in dimensions], reference=0.0)


def summarize(runs: Sequence[Run], command: str) -> list[Row]:
    """Scores every row that is finished over the seeds that the full model has finished."""
    found: dict[str, dict[int, list[pd.DataFrame]]] = {}
    for run in runs:
        if run.predictions.is_file():
            table = pd.read_csv(run.predictions, dtype={"speaker": str})
            table["item"] = [f"{run.fold} {item}" for item in table["item"]]
            found.setdefault(run.row, {}).setdefault(run.seed, []).append(table)
    folds = len({run.fold for run in runs})
    whole = {
        name: {seed: pd.concat(tables) for seed, tables in of_seeds.items() if len(tables) == folds}
        for name, of_seeds in found.items()
    }
    complete = {name: of_seeds for name, of_seeds in whole.items() if set(whole[FULL]) <= set(of_seeds)}
    return [row | {"command": command} for row in compare(complete)]


def main(argv: Sequence[str]) -> None:
    """Trains what is missing, prints and writes the results; ends with a sentence if that is not possible."""
    parser = argparse.ArgumentParser(
        prog="msfser ablate",
        usage="msfser ablate [SETTINGS.yaml] [OPTIONS] [OPTIONS OF msfser train]",
        description="Train variants of a model over several seeds and compare them with the full model.",
        epilog=f"Rows: {', '.join(ROWS)}.",
        allow_abbrev=False,
    )
    parser.add_argument("config", metavar="SETTINGS.yaml", help="the full model; by default configs/probe.yaml")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], metavar="N", help="0 1 2 by default")
    parser.add_argument("--rows", nargs="+", default=list(ROWS), metavar="ROW", help="see below; all by default")
    parser.add_argument("--folds", type=int, nargs="+", default=[None], metavar="N", help="such as 1 2 3 4 5")
    parser.add_argument("--part", choices=("validation", "test"), default="test", help="what is scored (test)")
    parser.add_argument("--name", help="name of the results; by default that of the settings file")
    without_config = not argv or (argv[0].startswith("-") and argv[0] not in ("-h", "--help"))
    arguments, options = parser.parse_known_args(["configs/probe.yaml", *argv] if without_config else argv)
    for option, words in _OURS.items():
        if any(given.partition("=")[0].replace("-", "_") == option.replace("-", "_") for given in options):
            parser.error(f"{option} is an option of msfser train; {words}")
    with cli_errors("ablate", resume="run the same command again to continue"):
        _ablate(arguments, options, shlex.join(["msfser", "ablate", *argv]))


def _ablate(arguments: argparse.Namespace, options: Sequence[str], command: str) -> None:
    name = arguments.name or Path(arguments.config).stem
    folder, settings = Path("outputs/ablation") / name, (arguments.config, *options)
    first = arguments.folds[0]  # each fold has all items
    of_first_fold = [*settings, *as_options({} if first is None else {"fold": first})]
    rows = rows_that_differ(of_first_fold, arguments.rows)
    order = [(row, seed, fold) for seed in arguments.seeds for row in rows for fold in arguments.folds]
    runs = [Run(row, seed, fold, settings, folder, arguments.part) for row, seed, fold in order]
    data_settings = _settings(of_first_fold).run
    if not all(run.is_finished() for run in runs):
        kept = rows_with_inputs(of_first_fold, rows)
        runs = [run for run in runs if run.row in kept]
    if missing := [run for run in runs if not run.is_finished()]:
        data = _settings(of_first_fold).run
        ensure_encoders([data.audio_encoder, data.text_encoder])
        seconds = seconds_of_a_run(of_first_fold)
        print(
            f"{len(missing)} of {len(runs)} runs are missing. One of the full model takes about {seconds:.0f} s here, "
            f"so all of them take about {len(missing) * seconds / 3600:.1f} hours.",
            flush=True,
        )
    make_folder(folder)
    # The runs of other processes are waited for at the end.
    for patience in (0, -1):
        for run in missing:
            try:
                with FileLock(f"{run.output}.lock", timeout=patience):
                    run.finish()
            except Timeout:
                logger.info("%s is being trained by another process", run.output)
    every_row = [dataclasses.replace(run, row=row) for run in runs if run.row == FULL for row in ROWS]
    results = summarize(every_row, command)
    write(folder / RESULTS_FILE, results)
    if len({run.row for run in every_row if run.predictions.is_file()}) > 1:
        write_text(folder / PLOT_FILE, plot(results))
    print(f"{as_table(results)}\nsaved: {folder / RESULTS_FILE}")
    of_development = arguments.part == "validation" or data_settings.test[:1] == ["Development"]
    if data_settings.corpus == "msp_podcast" and of_development and (beside := beside_paper(results)):
        print(beside)
