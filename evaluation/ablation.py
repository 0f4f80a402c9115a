"""The paper's ablation on any corpus: each row is trained anew over several seeds and compared with the full model.

    msfser ablate configs/probe.yaml --num_train_epochs 10
    msfser ablate configs/probe.yaml --name mine --data my/metadata.csv --label_range 1 7
    msfser ablate configs/msp_podcast.yaml --data FOLDER --part validation
    msfser ablate configs/iemocap.yaml --data FOLDER --folds 1 2 3 4 5

Options that it does not know itself go to `train.py`. The settings file is the full model; a row that would change
nothing in it is left out, as is one whose model would get no input from some item of the corpus. The rows are those of
the paper (its "gate, concatenation" is read as all three texts), one for each input that is taken away, a control in
which the emphasized words are as many neighboring words from anywhere, and the switches that the paper does not
compare.

It prints what the runs will cost before it starts. A run that is finished is not repeated, and one that was killed
goes on. Several processes that are given the same command share the runs. To measure changed code or another settings
file of the same name, remove `outputs/ablation/NAME` first.

`benchmarks/results/ablation_NAME.json` gets for each row the CCC (`ROW/DIMENSION`), how far it lies above the full
model (`ROW_minus_full/DIMENSION`), each a mean over the seeds with its 95 % bootstrap interval, and the CCC of each
seed. Speakers and seeds are drawn anew together, the same ones for all rows, so that the differences are paired. With
folds, the items of all folds are scored together. `assets/ablation_NAME.svg` shows the differences.
"""

import argparse
import dataclasses
import logging
import shlex
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import datasets
import numpy as np
import pandas as pd
import torch
from filelock import FileLock, Timeout

from ..configuration_msfser import LABELS
from ..emphasis_msfser import random_segment
from ..loss_msfser import concordance
from ..train import MsfSerTrainer, build, encode, inputs_of, parse_settings
from ..train import main as train
from ..training.features import COLUMNS, FeatureCollator, has_input, keep_inputs
from .plots import intervals
from .predictions import predict_part, read_parts, results_of
from .results import ABLATION, RESULTS, write

logger = logging.getLogger(__name__)

ASSETS = Path(__file__).parents[1] / "assets"
FULL, RANDOM_WINDOW = "full", "random_window"

ROWS: dict[str, tuple[str, ...]] = {
    FULL: (),
    "audio": ("--semantics",),
    "gs_film": ("--semantics", "gs", "--cross_fusion", "film"),
    "les_film": ("--semantics", "les", "--cross_fusion", "film"),
    "es_film": ("--semantics", "es", "--cross_fusion", "film"),
    "attention_film": ("--semantics", "les", "gs", "--intra_fusion", "attention", "--cross_fusion", "film"),
    "gate_film": ("--semantics", "les", "gs", "--intra_fusion", "gate", "--cross_fusion", "film"),
    "gate_concat": ("--semantics", "les", "gs", "es", "--intra_fusion", "gate", "--cross_fusion", "concat"),
    "no_les": ("--semantics", "gs", "es"),
    RANDOM_WINDOW: (),
    "no_gs": ("--semantics", "les", "es"),
    "no_es": ("--semantics", "les", "gs"),
    "no_audio": ("--audio", "false"),
    "last_layer": ("--audio_states", "last"),
    "weighted_layers": ("--audio_states", "weighted"),
    "static_routing": ("--routing", "static"),
    "input_routing": ("--routing", "input"),
    "pooled_film": ("--film_position", "pooled"),
    "frames_film": ("--film_position", "frames"),
    "no_text_dropout": ("--text_dropout", "0"),
}

_DRAWS = 1000
_TIMED_STEPS = 8


@dataclass(frozen=True)
class Run:
    """One training of one row.

    Args:
        row: Its name among `ROWS`.
        seed: Of the training.
        fold: Of the corpus; `None` where it has none.
        settings: Settings file and options of `train.py`, those of all rows.
        folder: Of the ablation.
        part: The part of the corpus that is predicted.
    """

    row: str
    seed: int
    fold: int | None
    settings: tuple[str, ...]
    folder: Path
    part: str

    @property
    def output(self) -> Path:
        """The folder of the run."""
        return self.folder / "_".join(str(part) for part in (self.row, self.seed, self.fold) if part is not None)

    @property
    def predictions(self) -> Path:
        """The file with what the run answers for each item."""
        return self.output / f"{self.part}_predictions.csv"

    def argv(self) -> list[str]:
        """The command of the run behind `train.py`."""
        data = self._fold()
        if self.row == RANDOM_WINDOW:
            # Its paths are absolute, and the corpus's own reader has decided about labels and speakers.
            data = ["--corpus", "table", "--data", str(self._windows()), "--audio_folder", "/", "--columns"]
            data += ["--label_range", "0", "1", "--allow_speaker_overlap", "true"]
        return [*self.settings, *ROWS[self.row], *data, "--seed", str(self.seed), "--output_dir", str(self.output)]

    def is_finished(self) -> bool:
        """Whether there is nothing to do.

        Raises:
            SystemExit: The folder holds a run of another command.
        """
        if not (self.output / "results.json").is_file():
            return False
        found, own = results_of(self.output)[0]["command"], shlex.join(["python", "train.py", *self.argv()])
        if found != own:
            raise SystemExit(f"{self.output} holds another run ({found}): remove {self.folder}, or give --name.")
        return self.predictions.is_file()

    def finish(self) -> None:
        """Trains the run and predicts its items, as far as that is not done."""
        if self.is_finished():
            return
        if not (self.output / "results.json").is_file():
            logger.info("row %s, seed %d%s", self.row, self.seed, "" if self.fold is None else f", fold {self.fold}")
            if self.row == RANDOM_WINDOW and not self._windows().is_file():
                self._write_windows()
            train(self.argv())
        table = predict_part(self.output, self.part).table
        unfinished = self.predictions.with_suffix(".part")
        table.to_csv(unfinished, index_label="item")
        unfinished.rename(self.predictions)

    def _fold(self) -> list[str]:
        return [] if self.fold is None else ["--fold", str(self.fold)]

    def _windows(self) -> Path:
        """The corpus with random windows."""
        return self.output.with_suffix(".parquet")

    def _write_windows(self) -> None:
        parts = random_windows(read_parts(parse_settings([*self.settings, *self._fold()])[0]), self.seed)
        rows = [part.add_column("split", [name] * len(part)) for name, part in parts.items()]
        unfinished = self._windows().with_suffix(".part")
        datasets.concatenate_datasets(rows).to_parquet(unfinished)
        unfinished.rename(self._windows())


def random_windows(parts: datasets.DatasetDict, seed: int) -> datasets.DatasetDict:
    """The corpus with as many neighboring words from anywhere in place of the emphasized words of each row.

    Args:
        parts: In the schema. The words are those with times, else those of the transcript; a row that has neither, or
            no emphasized words, has none afterwards.
        seed: With the order of the rows it decides where the windows lie.
    """
    made = {}
    for number, (name, part) in enumerate(parts.items()):
        generator = np.random.default_rng([seed, number])
        texts = []
        for row in part.select_columns(["transcript", "emphasis", "words"]):
            words = [word["word"] for word in row["words"] or ()] or (row["transcript"] or "").split()
            drawn = random_segment(words, len((row["emphasis"] or "").split()), generator)
            texts.append(drawn if row["emphasis"] else None)
        made[name] = part.remove_columns("emphasis").add_column("emphasis", texts, feature=datasets.Value("string"))
    return datasets.DatasetDict(made)


def rows_that_differ(settings: Sequence[str], names: Sequence[str]) -> list[str]:
    """The rows among `names` that change something in the settings, and the full model.

    Raises:
        SystemExit: There is no such row.
    """
    if unknown := sorted(set(names) - set(ROWS)):
        raise SystemExit(f"There is no row {', '.join(unknown)}; there are {', '.join(ROWS)}.")
    full = parse_settings(settings)[1]

    def differs(name: str) -> bool:
        if name == RANDOM_WINDOW:
            return "les" in full.semantics
        if name == "audio" and not full.audio:
            return False  # nothing would be left
        return parse_settings([*settings, *ROWS[name]])[1].to_dict() != full.to_dict()

    return [name for name in ROWS if name == FULL or (name in names and differs(name))]


def rows_with_inputs(settings: Sequence[str], names: Sequence[str]) -> list[str]:
    """The rows among `names` whose model gets an input from every item of the corpus, and the full model.

    A row that is left out is logged: its training would end with an error.
    """
    parts = read_parts(parse_settings(settings)[0]).values()
    there = {name: np.concatenate([has_input(keep_inputs(part, [name])) for part in parts]) for name in COLUMNS}
    kept = []
    for name in names:
        inputs = inputs_of(parse_settings([*settings, *ROWS[name]])[1])
        lacking = np.count_nonzero(~np.any([there[of_model] for of_model in inputs], axis=0))
        if lacking and name != FULL:
            logger.warning("row %s is left out: items of the corpus have none of its inputs (%d such)", name, lacking)
        else:
            kept.append(name)
    return kept


def seconds_of_a_run(settings: Sequence[str]) -> float:
    """What one run will take here, from a start, a few steps and a few evaluated items of the full model.

    What frozen encoders make once for all runs is not counted.
    """
    run, config, training = parse_settings(settings)
    parts = read_parts(run)
    batch = training.per_device_train_batch_size * training.world_size * training.gradient_accumulation_steps
    steps = training.max_steps if training.max_steps > 0 else training.num_train_epochs * len(parts["train"]) / batch
    evaluated = training.num_train_epochs * len(parts.get("validation", ())) + 3 * len(parts.get("test", ()))
    few = datasets.DatasetDict(train=parts["train"].select(range(min(len(parts["train"]), 2 * batch))))
    training.max_steps, training.eval_strategy, training.load_best_model_at_end = _TIMED_STEPS, "no", False
    training.save_strategy, training.disable_tqdm = "no", True
    start = time.perf_counter()
    model, processor = build(run, config)
    started = time.perf_counter() - start
    items = encode(few, model, processor, run.cache_gigabytes)["train"]
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
        )
        trained = trainer.train().metrics["train_runtime"] / _TIMED_STEPS
        predicted = trainer.predict(items).metrics["test_runtime"] / len(items)
    return started + steps * trained + evaluated * predicted


def compare(predictions: dict[str, dict[int, pd.DataFrame]]) -> list[dict[str, object]]:
    """Scores rows on the items that all of them predict, against the row `full`.

    Args:
        predictions: For each row a table for each seed, the same ones; `item` tells the items apart, and `speaker`
            may be missing.

    Returns:
        Rows `{"name", "value", "low", "high"}`: `ROW/DIMENSION`, `ROW_minus_full/DIMENSION`, `ROW/seedN/DIMENSION`
        without interval, and the numbers `items` and `speakers`.

    Raises:
        ValueError: The labels of an item differ between runs.
    """
    seeds = list(predictions[FULL])
    tables = {name: [of_seeds[seed].set_index("item") for seed in seeds] for name, of_seeds in predictions.items()}
    first = tables[FULL][0]
    common = first.index
    for of_seeds in tables.values():
        for table in of_seeds:
            common = common.intersection(table.index, sort=False)
    first = first.loc[common]
    columns = [f"{label}_label" for label in LABELS]
    for name, of_seeds in tables.items():
        for table in of_seeds:
            if not np.allclose(table.loc[common, columns], first[columns], atol=1e-6):
                raise ValueError(f"The runs of {name} were trained on other labels: remove their folder.")
    values = [np.stack([table.loc[common, [*LABELS]] for table in of_seeds], axis=1) for of_seeds in tables.values()]
    predicted = torch.from_numpy(np.stack(values, axis=1))  # (items, rows, seeds, 3)
    given = torch.tensor(first[columns].to_numpy(float))[:, None, None].expand_as(predicted)

    def scores(items: np.ndarray | slice) -> torch.Tensor:
        """`(rows, seeds, 4)`, the mean of the dimensions behind them."""
        ccc = concordance(predicted[items], given[items])
        return torch.cat([ccc, ccc.mean(-1, keepdim=True)], dim=-1)

    speakers = first["speaker"].where(first["speaker"].notna(), [f"\0{item}" for item in common])
    members = [np.flatnonzero(speakers == speaker) for speaker in speakers.unique()]
    generator = np.random.default_rng(0)
    drawn = []
    for _ in range(_DRAWS):
        items = np.concatenate([members[i] for i in generator.integers(len(members), size=len(members))])
        drawn.append(scores(items)[:, generator.integers(len(seeds), size=len(seeds))].mean(1))
    draws, each = torch.stack(drawn), scores(slice(None))  # (draws, rows, 4), (rows, seeds, 4)
    full = list(tables).index(FULL)

    rows: list[dict[str, object]] = [
        {"name": name, "value": count, "low": None, "high": None}
        for name, count in (("items", len(common)), ("speakers", len(members)))
    ]
    for index, name in enumerate(tables):
        measures = {name: (each[index], draws[:, index])}
        if index != full:
            measures[f"{name}_minus_full"] = (each[index] - each[full], draws[:, index] - draws[:, full])
        for measure, (of_seeds, of_draws) in measures.items():
            ends = of_draws.quantile(torch.tensor([0.025, 0.975], dtype=of_draws.dtype), dim=0)
            for column, dimension in enumerate((*LABELS, "mean")):
                value, low, high = of_seeds[:, column].mean().item(), *ends[:, column].tolist()
                rows.append({"name": f"{measure}/{dimension}", "value": value, "low": low, "high": high})
        for (place, seed), (column, dimension) in product(enumerate(seeds), enumerate((*LABELS, "mean"))):
            value = each[index, place, column].item()
            rows.append({"name": f"{name}/seed{seed}/{dimension}", "value": value, "low": None, "high": None})
    return rows


def as_table(rows: Sequence[dict[str, object]]) -> str:
    """The rows as text: CCC, and below it the difference to the full model."""
    by_name = {str(row["name"]): row for row in rows}
    lines = [f"{'':38}" + "".join(f"{name:>26}" for name in (*LABELS, "mean"))]
    for name in ABLATION:
        for measure, words in ((name, ABLATION[name]), (f"{name}_minus_full", "   minus full")):
            if f"{measure}/mean" in by_name:
                cells = [by_name[f"{measure}/{dimension}"] for dimension in (*LABELS, "mean")]
                shown = [f"{cell['value']:.3f} ({cell['low']:.3f}..{cell['high']:.3f})" for cell in cells]
                lines.append(f"{words:38}" + "".join(f"{cell:>26}" for cell in shown))
    return "\n".join(lines)


def plot(rows: Sequence[dict[str, object]]) -> str:
    """The differences to the full model as SVG."""
    by_name = {row["name"]: (row["value"], row["low"], row["high"]) for row in rows}
    shown = {
        words: [by_name[f"{name}_minus_full/{dimension}"] for dimension in (*LABELS, "mean")]
        for name, words in ABLATION.items()
        if f"{name}_minus_full/mean" in by_name
    }
    return intervals(shown, [f"{dimension}, CCC minus full" for dimension in (*LABELS, "mean")], reference=0.0)


def summarize(runs: Sequence[Run], command: str) -> list[dict[str, object]]:
    """Scores every row that is finished over the seeds that the full model has finished."""
    found: dict[str, dict[int, list[pd.DataFrame]]] = {}
    for run in runs:
        if run.predictions.is_file():
            table = pd.read_csv(run.predictions, dtype={"speaker": str})
            table["item"] = [f"{run.fold} {item}" for item in table["item"]]
            found.setdefault(run.row, {}).setdefault(run.seed, []).append(table)
    folds = len({run.fold for run in runs})
    whole = {
        row: {seed: pd.concat(tables) for seed, tables in of_seeds.items() if len(tables) == folds}
        for row, of_seeds in found.items()
    }
    complete = {row: of_seeds for row, of_seeds in whole.items() if set(whole[FULL]) <= set(of_seeds)}
    return [row | {"command": command} for row in compare(complete)]


def main(argv: Sequence[str]) -> None:
    """Runs what is missing, prints and writes the results."""
    parser = argparse.ArgumentParser(
        usage="msfser ablate [SETTINGS.yaml] [--name value ...]",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("config", help="Settings of the full model; configs/probe.yaml by default.")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--rows", nargs="+", default=list(ROWS), metavar="ROW", help=f"Among {', '.join(ROWS)}.")
    parser.add_argument("--folds", type=int, nargs="+", default=[None], help="Folds of the corpus, such as 1 2 3 4 5.")
    parser.add_argument("--part", choices=("validation", "test"), default="test", help="What is scored.")
    parser.add_argument("--name", help="Of the results; that of the settings file by default.")
    given = argv if argv and not argv[0].startswith("-") else ["configs/probe.yaml", *argv]
    arguments, options = parser.parse_known_args(given)
    if any(option.partition("=")[0] == "--fold" for option in options):
        parser.error("--fold is an option of train.py; name the folds with --folds, such as --folds 1")
    command = shlex.join(["python", "-m", "msfser.benchmarks.ablation", *argv])
    name = arguments.name or Path(arguments.config).stem
    folder, settings = Path("outputs/ablation") / name, (arguments.config, *options)
    first_fold = [] if arguments.folds[0] is None else ["--fold", str(arguments.folds[0])]
    rows = rows_that_differ([*settings, *first_fold], arguments.rows)
    order = [(row, seed, fold) for seed in arguments.seeds for row in rows for fold in arguments.folds]
    runs = [Run(row, seed, fold, settings, folder, arguments.part) for row, seed, fold in order]
    if not all(run.is_finished() for run in runs):
        # Each fold has all items.
        kept = rows_with_inputs([*settings, *first_fold], rows)
        runs = [run for run in runs if run.row in kept]
    if missing := [run for run in runs if not run.is_finished()]:
        seconds = seconds_of_a_run([*settings, *first_fold])
        print(
            f"{len(missing)} of {len(runs)} runs are missing. One of the full model takes about {seconds:.0f} s here, "
            f"so that they take about {len(missing) * seconds / 3600:.1f} hours.",
            flush=True,
        )
    folder.mkdir(parents=True, exist_ok=True)
    # Runs that other processes have in hand are waited for at the end.
    for patience in (0, -1):
        for run in missing:
            try:
                with FileLock(f"{run.output}.lock", timeout=patience):
                    run.finish()
            except Timeout:
                logger.info("%s is in the hands of another process", run.output)
    everything = [dataclasses.replace(run, row=row) for run in runs if run.row == FULL for row in ROWS]
    results = summarize(everything, command)
    write(RESULTS / f"ablation_{name}.json", results)
    if len({run.row for run in everything if run.predictions.is_file()}) > 1:
        (ASSETS / f"ablation_{name}.svg").write_text(plot(results), encoding="utf-8")
    print(as_table(results))


if __name__ == "__main__":
    main(sys.argv[1:])
