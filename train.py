"""Fine-tunes MSF-SER, evaluates it on the test part and saves a folder that `AutoModel` loads.

    msfser train configs/probe.yaml
    msfser train configs/finetune.yaml --data my_corpus/metadata.csv --label_range 1 7 --output_dir outputs/mine
    msfser train configs/probe.yaml --do_predict
    accelerate launch --multi_gpu --num_processes 2 train.py configs/msp_podcast.yaml --data my_corpora/MSP-PODCAST

`python train.py` is the same as `msfser train`. The YAML file and the options that override it set data and training
([`RunSettings`]), the model ([`ModelSettings`]) and transformers' `TrainingArguments`. Run the same command
again to resume an interrupted run from its last checkpoint; its settings are stored in `run.yaml`. A finished run is
not trained again: `--overwrite` does so, and replaces the old folder when the new one is whole.

With `--do_predict` nothing is trained: the model in `output_dir` predicts the test part of the data, which needs no
labels then, and writes `predictions.csv` there, on the scale of the corpus; beside the folds of a cross-validation
`test_predictions.csv`.
"""

import dataclasses
import logging
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import datasets
from accelerate import PartialState
from transformers import TrainingArguments, set_seed
from transformers.utils import logging as transformers_logging

from msfser.cli.errors import cli_errors
from msfser.cli.outputs import refuse_existing
from msfser.corpora.messages import counted
from msfser.corpora.splits import warn_of_shared_texts
from msfser.evaluation.results import Row, as_table, ccc_rows
from msfser.training.checkpoints import disk_errors
from msfser.training.data_identity import identity_of, identity_of_texts, inputs_of
from msfser.training.folds import PREDICTIONS_FILE, TEST_PREDICTIONS_FILE, FoldFiles, make_folds
from msfser.training.labels import warn_of_unrated
from msfser.training.processes import closed_process_group, decided_by_one
from msfser.training.run_folder import FOLDS_FOLDER, Start, finish_run, start_run, write_results
from msfser.training.settings import (
    RunSettings,
    Settings,
    parse_settings,
    read_data,
    read_unit_rows,
)

# Slow imports are deferred until settings and data have been validated.
if TYPE_CHECKING:
    from transformers import EvalPrediction, Trainer

    from msfser.intervals_msfser import MsfSerIntervals

logger = logging.getLogger("msfser.train")

METRIC = str(Path(__file__).parent / "metrics" / "ccc")


def main(argv: Sequence[str]) -> None:
    """Runs the command.

    Raises:
        SystemExit: The run cannot go on because of a setting, the data, an encoder, the loss, or the disk. The message
            says which of them, and what to do.
    """
    settings = parse_settings(argv)
    run, _, training, _ = settings
    _configure_logging(training)
    set_seed(training.seed)
    resume = "run the same command again to resume from its last checkpoint"
    with cli_errors("train", resume), closed_process_group():
        if training.do_predict:
            predict(run, training, Path(training.output_dir or ""))
        elif run.cross_validate is not None:
            cross_validate(settings)
        else:
            train(settings)


def train(settings: Settings) -> None:
    """Data, model, trainer, evaluation, saved folder.

    Raises:
        ValueError, OSError, ImportError: The errors that [`main`] turns into `SystemExit`.
        FloatingPointError: The loss is not finite.
    """
    run, switches, training, _ = settings

    # Data
    with training.main_process_first(desc="reading the corpus", local=False):
        parts = read_data(run, needed=("train", "validation", "test"))
    start = _start(settings, parts, inputs_of(switches))
    if start.results is not None:
        return
    for name, part in parts.items():
        logger.info("%s: %s", name, counted(len(part), "utterance"))
    warn_of_unrated(parts["train"])
    if switches.semantics:
        from msfser.training.features import warn_of_absent_texts

        warn_of_absent_texts(run.data, parts["train"], switches.semantics)
        warn_of_shared_texts(run.data, parts)

    # Model
    from msfser.training.initialization import build_model
    from msfser.training.steps import (
        add_intervals,
        encode,
        make_trainer,
        predictions_of,
        save_model,
        with_row_names,
    )

    _fetch_encoders(settings)
    model, processor = build_model(run, switches)

    # Trainer: what it refuses, it refuses before the frozen encoders run.
    trainer = make_trainer(run, training, model, processor, parts["train"], parts["validation"], score)
    encoded = encode(parts, trainer, run)
    trainer.eval_dataset = encoded["validation"]
    trainer.train_dataset = with_row_names(encoded["train"], "train", parts["train"])
    with disk_errors(start.destination):
        trainer.train(resume_from_checkpoint=start.checkpoint)

        # Evaluation and saved folder
        save_model(trainer)
        left_out = predictions_of(trainer, encoded["validation"])
        intervals = add_intervals(trainer, run, left_out, parts["train"])
        tests = [name for name in encoded if name not in ("train", "validation")]
        rows = [row for name in tests for row in evaluate_inputs(trainer, encoded[name], name, intervals)]
        _finish(training, start, rows)


def cross_validate(settings: Settings) -> None:
    """Data, a model and its predictions for each fold, scores, and a model of everything if asked.

    Raises:
        ValueError, OSError, ImportError, FloatingPointError: As [`train`] does.
    """
    run, switches, training, _ = settings

    # Data
    with training.main_process_first(desc="reading the corpus", local=False):
        rows = read_unit_rows(run)
    folds = make_folds(rows["unit"], run.folds)
    start = _start(settings, {"all": rows}, [*inputs_of(switches), "unit"])
    if start.results is not None:
        return
    logger.info(
        "%d utterances, %d folds; no part is left to choose an epoch by: the last is kept", len(rows), len(folds)
    )
    warn_of_unrated(rows)
    if switches.semantics:
        from msfser.training.features import warn_of_absent_texts

        warn_of_absent_texts(run.data, rows, switches.semantics)
        warn_of_shared_texts(run.data, {"train": rows.select(folds[0].rest), "test": rows.select(folds[0].rows)})

    # Frozen encoders, once for all folds
    from msfser.evaluation.cross_validated import predict_left_out, rows_of_folds
    from msfser.evaluation.input_sets import input_sets
    from msfser.training.steps import add_intervals, encode, fold_trainer, save_model, with_row_names

    _fetch_encoders(settings)
    trainer = fold_trainer(settings, rows)  # what it refuses, it refuses before they run
    items = encode(datasets.DatasetDict(all=rows), trainer, run)["all"]
    sets = dict(input_sets(items.add_column("index", range(len(items)))))
    items = with_row_names(items, "all", rows)

    # Folds
    transformers_logging.set_verbosity_error()  # or each model repeats the warnings about its encoders
    kept = FoldFiles(start.folder, folds, rows)
    with disk_errors(start.destination):
        for fold in decided_by_one(kept.unfinished, training):
            rest = counted(len(fold.rest), "utterance")
            logger.info("fold %s: %s to train on, %d left out", fold.name, rest, len(fold.rows))
            trainer = fold_trainer(settings, items.select(fold.rest))
            trainer.train()
            predictions = predict_left_out(trainer, sets, fold.rows, kept.about)
            if training.process_index == 0:
                kept.write(fold, predictions)

        # Final model
        table = decided_by_one(lambda: kept.gather(list(sets)), training)
        if run.final_model:
            trainer = fold_trainer(settings, items, is_final=True)
            trainer.train(resume_from_checkpoint=start.checkpoint)
            save_model(trainer)
            add_intervals(trainer, run, table[table["inputs"] == list(sets)[-1]], rows)

        # Scores
        _finish(training, start, decided_by_one(lambda: rows_of_folds(table, run), training))


def _start(settings: Settings, parts: Mapping[str, datasets.Dataset], inputs: Sequence[str]) -> Start:
    """The start of the run in its folder, where the trainer then writes; a finished run shows its results."""
    run, _, training, resolved = settings
    from msfser.training.initialization import identity_of_initial

    folder = Path(training.output_dir or "")

    def start_in_folder() -> Start:
        train = parts["train" if "train" in parts else "all"]
        texts = identity_of_texts(train, inputs, [run.data, *run.more_data])
        identity = {**identity_of(parts, inputs), **texts, **identity_of_initial(run)}
        return start_run(folder, resolved, identity, training, run.overwrite)

    with disk_errors(folder):
        start: Start = decided_by_one(start_in_folder, training)
    if start.results is not None:
        logger.info("%s holds this run, which is finished; --overwrite trains it anew", folder)
        _show(start.results)
    elif training.world_size > 1:
        logger.info("%d processes", training.world_size)
    training.output_dir = str(start.folder)
    return start


def _fetch_encoders(settings: Settings) -> None:
    """Prepares the encoders of a new model; a trained one brings its own."""
    run = settings.run
    if run.init_from:
        from msfser.hub.loading import find_named
        from msfser.training.initialization import license_of, warn_of_training_data

        found = find_named(run.init_from)
        if settings.training.process_index == 0:
            scored = "test" if run.cross_validate is None else "all"
            warn_of_training_data(run.init_from, found.source, found.config, run, scored)
        if (license := license_of(found)) is not None:
            logger.info("%s This also applies to any model trained from them.", license.sentence)
        return
    from msfser.hub.encoders import ensure_encoders

    with settings.training.main_process_first(desc="fetching the encoders", local=True):
        ensure_encoders([run.audio_encoder, run.text_encoder])


def _finish(training: TrainingArguments, start: Start, rows: list[Row]) -> None:
    """Writes the results, which make the run a finished one."""
    if training.process_index == 0:
        write_results(start.folder, rows)
        finish_run(start.folder, start.destination)
        _show(rows)
        logger.info("saved: %s", start.destination)


def _show(rows: list[Row]) -> None:
    part = "test set" if rows[0]["name"].startswith("test/") else "cross-validation"
    logger.info("%s, CCC with 95 %% interval:\n%s", part, as_table(rows))


def predict(run: RunSettings, training: TrainingArguments, folder: Path) -> None:
    """Predicts the test part with the model in a folder and writes `predictions.csv` there, as `msfser predict` does.

    Its rows are those of the test part in order, on the scale of the corpus. Texts that the corpus lacks are not made.
    In the folder of a cross-validation it is called `test_predictions.csv`.

    Raises:
        OSError: There is no model, or there are predictions already.
        ValueError: There is no test part, or no recording in it.
    """
    if not (folder / "config.json").is_file():
        raise OSError(f"{folder} contains no trained model: train one first, or pass its folder with --output_dir.")
    from msfser.hub.loading import load_named
    from msfser.prediction.corpus_part import recordings_of_part, scale_of_labels
    from msfser.prediction.paths import parts_of
    from msfser.prediction.predicting import open_prediction, predict_table
    from msfser.prediction.sharded_prediction import ShardedPrediction

    # Those of its folds are the results of a cross-validation, whose final model predicts here.
    is_cross_validation = (folder / FOLDS_FOLDER).is_dir()
    output = folder / (TEST_PREDICTIONS_FILE if is_cross_validation else PREDICTIONS_FILE)
    refuse_existing(output, run.overwrite, parts_of(output))
    batch_size = training.per_device_eval_batch_size
    options: dict[str, Any] = {"batch_size": batch_size, "recognizer": None, "describer": None}

    def open_work() -> ShardedPrediction:
        named = load_named(str(folder))
        of_model = dataclasses.replace(run, text_languages=named.processor.text_languages or [])
        return open_prediction(recordings_of_part(of_model, "test"), named, options, str(training.device), output)

    scale = scale_of_labels(run)
    predict_table(PartialState(), open_work, Path(run.data), output, scale, overwrite=run.overwrite)


def score(prediction: "EvalPrediction") -> dict[str, float]:
    """The metric over a whole part of the corpus, without intervals."""
    import evaluate

    return evaluate.load(METRIC, keep_in_memory=True).compute(
        predictions=prediction.predictions, references=prediction.label_ids, n_resamples=0
    )


def evaluate_inputs(
    trainer: "Trainer", test: datasets.Dataset, name: str = "test", intervals: "MsfSerIntervals | None" = None
) -> list[Row]:
    """Scores a test part with fewer and with more of the inputs.

    Returns:
        Rows `{"name": "NAME/INPUTS/DIMENSION", "value", "low", "high", "resampled"}`: CCC with its 95 % interval over
        speakers where they are known; none of a dimension that is not rated. With intervals around the numbers also
        `intervals/NAME/DIMENSION/coverage` and `.../width`, with all inputs.
    """
    from msfser.evaluation.coverage import coverage_rows, ends_of
    from msfser.evaluation.input_sets import input_sets
    from msfser.evaluation.intervals import resampled_units

    rows: list[Row] = []
    for inputs, part in input_sets(test):
        found: Any = trainer.predict(part)
        units, resampled = resampled_units(part["speaker"])
        rows += ccc_rows(f"{name}/{inputs}", found.predictions, found.label_ids, units, resampled)
    if intervals is not None:
        rows += coverage_rows(name, partial(ends_of, intervals, found.predictions), found.label_ids, units)
    return rows


def _configure_logging(training: TrainingArguments) -> None:
    """Only the main process logs; libraries log warnings and errors only."""
    logging.basicConfig(format="%(asctime)s %(name)s: %(message)s", datefmt="%H:%M:%S", level=logging.INFO)
    transformers_logging.set_verbosity_warning()
    transformers_logging.disable_progress_bar()
    if not training.should_log:
        logging.disable(logging.INFO)
        logging.getLogger("msfser.training.features").setLevel(logging.ERROR)
        datasets.disable_progress_bars()


if __name__ == "__main__":
    main(sys.argv[1:])
