"""Fine-tunes MSF-SER, evaluates it on the test part and saves a folder that `AutoModel` loads.

    msfser train configs/probe.yaml
    msfser train configs/probe.yaml --data my/metadata.csv --label_range 1 7 --output_dir outputs/mine
    msfser train configs/probe.yaml --do_predict
    accelerate launch --multi_gpu --num_processes 2 train.py configs/msp_podcast.yaml --data my/MSP-PODCAST

`python train.py` is the same as `msfser train`. The YAML file and the options that override it set data and training
([`RunSettings`]), the model ([`ModelSettings`]) and transformers' `TrainingArguments`. Run the same command
again to resume an interrupted run from its last checkpoint; its settings are stored in `run.yaml`. A finished run is
not trained again: `--overwrite` does so, and replaces the old folder when the new one is whole.

With `--do_predict` nothing is trained: the model in `output_dir` predicts the test part of the data, which needs no
labels then, and writes `predictions.csv` there, on the scale of the corpus.
"""

import json
import logging
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from accelerate import PartialState
from accelerate.utils import broadcast_object_list
from transformers import EarlyStoppingCallback, TrainingArguments, set_seed
from transformers.utils import logging as transformers_logging

from msfser.cli.errors import cli_errors
from msfser.cli.outputs import refuse_existing, write_text
from msfser.configuration_msfser import LABELS
from msfser.evaluation.results import as_table, rows_of
from msfser.training.checkpoints import disk_errors
from msfser.training.data_identity import identity_of, inputs_of
from msfser.training.run_folder import RESULTS_FILE, Start, finish_run, start_run
from msfser.training.settings import (
    RunSettings,
    Settings,
    build_model,
    parse_settings,
    read_data,
    unrated_dimensions,
)

# Slow imports are deferred until settings and data have been validated.
if TYPE_CHECKING:
    import datasets
    from transformers import EvalPrediction, Trainer

logger = logging.getLogger("msfser.train")

METRIC = str(Path(__file__).parent / "metrics" / "ccc")

_Decision = TypeVar("_Decision")


def main(argv: Sequence[str]) -> None:
    """Runs the command.

    Raises:
        SystemExit: A setting, the data, an encoder, the loss or the disk stops the run; the sentence says which.
    """
    settings = parse_settings(argv)
    run, _, training, _ = settings
    _configure_logging(training)
    set_seed(training.seed)
    with cli_errors("train", resume="run the same command again to resume from its last checkpoint"):
        if training.do_predict:
            predict(run, training, Path(training.output_dir or ""))
        else:
            train(settings)


def train(settings: Settings) -> None:
    """Data, model, trainer, evaluation, saved folder.

    Raises:
        ValueError, OSError, ImportError: As [`main`] ends with.
        FloatingPointError: The loss is not finite.
    """
    run, switches, training, resolved = settings
    folder = Path(training.output_dir or "")

    # Data
    with training.main_process_first(desc="reading the corpus", local=False):
        parts = read_data(run, needed=("train", "validation", "test"))
    with disk_errors(folder):
        start: Start = _decided_by_one(
            lambda: start_run(folder, resolved, identity_of(parts, inputs_of(switches)), training, run.overwrite),
            training,
        )
    if start.results is not None:
        logger.info("%s holds this run, which is finished; --overwrite trains it anew", folder)
        _show(start.results)
        return
    training.output_dir = str(start.folder)
    if training.world_size > 1:
        logger.info("%d processes", training.world_size)
    for name, part in parts.items():
        logger.info("%s: %d utterances", name, len(part))
    if switches.semantics:
        from msfser.corpora.splits import warn_of_absent_texts, warn_of_shared_texts

        warn_of_absent_texts(run.data, parts["train"], switches.semantics)
        warn_of_shared_texts(run.data, parts)

    # Model
    from msfser.hub.encoders import ensure_encoders
    from msfser.training.features import FeatureCollator, check_inputs, encode_parts
    from msfser.training.trainer import MsfSerTrainer

    files = [(audio or {}).get("path") for audio in parts["train"]["audio"]]
    with training.main_process_first(desc="fetching the encoders", local=True):
        ensure_encoders([run.audio_encoder, run.text_encoder])
    model, processor = build_model(run, switches)
    model.config.unrated = unrated_dimensions(parts["train"])

    # Trainer: what it refuses, it refuses before the frozen encoders run.
    stopping = [EarlyStoppingCallback(run.early_stopping_patience)] if run.early_stopping_patience else []
    try:
        trainer = MsfSerTrainer(
            model=model,
            args=training,
            train_dataset=parts["train"],
            eval_dataset=parts["validation"],
            data_collator=FeatureCollator(processor),
            processing_class=processor,
            compute_metrics=score,
            callbacks=stopping,
            encoder_learning_rate=run.encoder_learning_rate,
            mixing_lr_scale=run.mixing_lr_scale,
            batch_seconds=run.batch_seconds,
            train_collator=FeatureCollator(processor, run.crop, training.seed),
        )
    except RuntimeError as error:  # such as a package of report_to that is missing
        raise ImportError(str(error)) from error
    with training.main_process_first(desc="running the frozen encoders", local=False):
        model.to(training.device)  # type: ignore[arg-type]  # its decorator hides the signature
        parts = encode_parts(parts, model, processor, run.cache_gigabytes)
    for name, part in parts.items():
        check_inputs(part, f"{run.data}, {name}")
    trainer.eval_dataset = parts["validation"]
    trainer.train_dataset = parts["train"].add_column(
        "row", [f"row {i} of train" + (f" ({file})" if file else "") for i, file in enumerate(files, start=1)]
    )
    with disk_errors(folder):
        trainer.train(resume_from_checkpoint=start.checkpoint)

        # Evaluation
        trainer.save_model(training.output_dir)
        tests = [name for name in parts if name not in ("train", "validation")]
        rows = [row for name in tests for row in evaluate_inputs(trainer, parts[name], name)]

        # Saved folder
        if trainer.is_world_process_zero():
            write_text(start.folder / RESULTS_FILE, json.dumps(rows, indent=1) + "\n")
            finish_run(start.folder, folder)
            _show(rows)
            logger.info("saved: %s", folder)


def _decided_by_one(decide: "Callable[[], _Decision]", training: TrainingArguments) -> "_Decision":
    """What the main process decides, in all processes; they share its errors too."""
    found: list[Any] = [None]
    if training.process_index == 0:
        try:
            found = [decide()]
        except (ValueError, OSError) as error:
            found = [error]
    (decision,) = broadcast_object_list(found)
    if isinstance(decision, Exception):
        raise decision
    return decision


def _show(rows: Sequence[dict[str, Any]]) -> None:
    logger.info("test set, CCC with 95 %% interval:\n%s", as_table(rows))


def predict(run: RunSettings, training: TrainingArguments, folder: Path) -> None:
    """Predicts the test part with the model in a folder and writes `predictions.csv` there, as `msfser predict` does.

    Its rows are those of the test part in order, on the scale of the corpus. Texts that the corpus lacks are not made.

    Raises:
        OSError: There is no model, or there are predictions already.
        ValueError: There is no test part, or no recording in it.
    """
    if not (folder / "config.json").is_file():
        raise OSError(f"{folder} contains no trained model: train one first, or pass its folder with --output_dir.")
    from msfser.corpora.registry import CORPORA
    from msfser.hub.loading import load_named
    from msfser.prediction.corpus_part import recordings_of_part
    from msfser.prediction.predicting import open_prediction, predict_table
    from msfser.prediction.sharded_prediction import ShardedPrediction

    output = folder / "predictions.csv"
    refuse_existing(output, run.overwrite)
    batch_size = training.per_device_eval_batch_size
    options: dict[str, Any] = {"batch_size": batch_size, "recognizer": None, "describer": None}

    def open_work() -> ShardedPrediction:
        named = load_named(str(folder))
        return open_prediction(recordings_of_part(run, "test"), named, options, str(training.device), output)

    ranges = CORPORA[run.corpus].label_range or run.ranges
    scale = (0.0, 1.0) if isinstance(ranges, Mapping) else ranges  # one for all three numbers
    predict_table(PartialState(), open_work, Path(run.data), output, scale, overwrite=run.overwrite)


def score(prediction: "EvalPrediction") -> dict[str, float]:
    """The metric over a whole part of the corpus, without intervals."""
    import evaluate

    return evaluate.load(METRIC, keep_in_memory=True).compute(
        predictions=prediction.predictions, references=prediction.label_ids, n_resamples=0
    )


def evaluate_inputs(trainer: "Trainer", test: "datasets.Dataset", name: str = "test") -> list[dict[str, Any]]:
    """Scores a test part with fewer and with more of the inputs.

    Returns:
        Rows `{"name": "NAME/INPUTS/DIMENSION", "value", "low", "high", "resampled"}`: CCC with its 95 % interval over
        speakers where they are known; none of a dimension that is not rated.
    """
    from msfser.evaluation.input_sets import input_sets
    from msfser.evaluation.intervals import ccc_interval, resampled_units

    rows: list[dict[str, Any]] = []
    for inputs, part in input_sets(test):
        found: Any = trainer.predict(part)
        units, resampled = resampled_units(part["speaker"])
        ends = ccc_interval(found.predictions, found.label_ids, units)
        names = [f"{name}/{inputs}/{dimension}" for dimension in (*LABELS, "mean")]
        rows += [row | {"resampled": resampled} for row in rows_of(names, ends)]
    return rows


def _configure_logging(training: TrainingArguments) -> None:
    """Only the main process logs; libraries log warnings and errors only."""
    logging.basicConfig(format="%(asctime)s %(name)s: %(message)s", datefmt="%H:%M:%S", level=logging.INFO)
    transformers_logging.set_verbosity_warning()
    transformers_logging.disable_progress_bar()
    if not training.should_log:
        import datasets

        logging.disable(logging.INFO)
        logging.getLogger("msfser.training.features").setLevel(logging.ERROR)
        datasets.disable_progress_bars()


if __name__ == "__main__":
    main(sys.argv[1:])
