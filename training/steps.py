"""The steps that a single training run and cross-validation share."""

import copy
import dataclasses
import logging
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

import datasets
import numpy as np
import pandas as pd
from transformers import EarlyStoppingCallback, EvalPrediction, TrainingArguments, set_seed
from transformers.trainer_utils import SaveStrategy

from ..configuration_msfser import LABELS
from ..emphasis_msfser import EMPHASIS
from ..intervals_msfser import MsfSerIntervals, set_intervals
from ..modeling_msfser import MsfSerModel
from ..processing_msfser import MsfSerProcessor
from .adapters import merged, with_adapters
from .calibration import calibrated, scale_of, too_few
from .collator import FeatureCollator
from .features import check_inputs, encode_parts, known_texts
from .initialization import build_model
from .labels import GIVEN, numbers_and_labels, unrated_dimensions
from .settings import RunSettings, Settings, corpus_title
from .trainer import EpochLines, MsfSerTrainer

logger = logging.getLogger("msfser.train")


def encode(parts: datasets.DatasetDict, trainer: MsfSerTrainer, run: RunSettings) -> datasets.DatasetDict:
    """The parts with the outputs of the trainer's frozen encoders in place of sound and texts.

    Raises:
        ValueError: A row has none of the model's inputs.
        OSError: The features cannot be written.
    """
    model: Any = trainer.model
    processor: Any = trainer.processing_class
    with trainer.args.main_process_first(desc="running the frozen encoders", local=False):
        encoded = encode_parts(parts, model.to(trainer.args.device), processor, run.cache_gigabytes)
    for name, part in encoded.items():
        check_inputs(part, f"{run.data}, {name}")
    return encoded


def with_row_names(items: datasets.Dataset, name: str, rows: datasets.Dataset) -> datasets.Dataset:
    """Items to train on with their names as `row`, which the trainer gives where a loss is not finite.

    Args:
        items: With the outputs of the frozen encoders.
        name: That of the part.
        rows: The same rows with their sound.
    """
    files = [(audio or {}).get("path") for audio in rows["audio"]]
    names = [f"row {i} of {name}" + (f" ({file})" if file else "") for i, file in enumerate(files, start=1)]
    return items.add_column("row", names)


def make_trainer(
    run: RunSettings,
    training: TrainingArguments,
    model: MsfSerModel,
    processor: MsfSerProcessor,
    train: datasets.Dataset,
    validation: datasets.Dataset | None = None,
    score: Callable[[EvalPrediction], dict[str, float]] | None = None,
) -> MsfSerTrainer:
    """The trainer of a run or of a fold.

    Args:
        run: Learning rates of the encoders and of mixing weights, batches, crops, early stopping.
        training: The arguments of the library; the size of the batch may be lowered in them.
        model: On any device; its config is told which dimensions the training rows do not rate. With `lora_rank` the
            trainer's is another one, with adapters.
        processor: The model's; its annotation is told which texts the training rows do not have.
        train: Rows of the schema, also before the frozen encoders ran.
        validation: Rows by which the epoch is chosen.
        score: The metric of that.

    Raises:
        ValueError: A setting is refused.
        ImportError: A package that a setting needs is missing.
    """
    model.config.unrated = unrated_dimensions(train)
    processor.annotation = _as_trained(processor.annotation, known_texts(train))
    stopping = [EarlyStoppingCallback(run.early_stopping_patience)] if run.early_stopping_patience else []
    try:
        return MsfSerTrainer(
            model=with_adapters(model, run.lora_rank) if run.lora_rank else model,
            args=training,
            train_dataset=train,
            eval_dataset=validation,
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


def _as_trained(annotation: Mapping[str, Any] | None, texts: Collection[str]) -> dict[str, Any] | None:
    """How the pipeline makes texts: not those of a kind that the model was trained without.

    Args:
        annotation: That of the processor.
        texts: Those that the training rows have.
    """
    has_words = "transcript" in texts or "emphasis" in texts
    if annotation is None:
        if has_words:
            return None
        annotation = {"emphasis": dataclasses.asdict(EMPHASIS["peak"]), "description": {"describer": "none"}}
    kept = dict(annotation)
    if not has_words:
        kept["transcript"] = {"recognizer": "none", "language": kept.get("transcript", {}).get("language")}
    if "description" not in texts:
        kept["description"] = {"describer": "none"}
    return kept


def save_model(trainer: MsfSerTrainer) -> None:
    """Saves the trained model into the folder of the run; adapters are merged into its encoders first.

    Raises:
        OSError: The folder cannot be written.
    """
    trainer.model = merged(trainer.model)
    trainer.save_model(trainer.args.output_dir)


def predictions_of(trainer: MsfSerTrainer, items: datasets.Dataset) -> pd.DataFrame:
    """The `speaker` of each item, predictions and labels, with all inputs; in all processes."""
    found: Any = trainer.predict(items)
    columns = dict(zip(LABELS, found.predictions.T, strict=True)) | dict(zip(GIVEN, found.label_ids.T, strict=True))
    return pd.DataFrame({"speaker": items["speaker"], **columns})


def add_intervals(
    trainer: MsfSerTrainer, run: RunSettings, predictions: pd.DataFrame, rows: datasets.Dataset
) -> MsfSerIntervals | None:
    """Fits intervals and `config.scale` to predictions, and saves the model of the run anew with them.

    Args:
        trainer: Its model was saved, and is left as it is.
        run: The settings.
        predictions: The three numbers and the `speaker` of items that the model was not fitted to; with several
            models, the `fold` that theirs left out.
        rows: Rows of the schema, all that the model was fitted to.

    Returns:
        The intervals; `None`, with a log of the reason, without settings or speakers for them.

    Raises:
        OSError: The folder cannot be written.
    """
    if not run.intervals:
        return None
    intervals = _fitted_intervals(predictions, rows)
    if trainer.args.process_index == 0:
        folder = str(trainer.args.output_dir)
        model = MsfSerModel.from_pretrained(folder)
        set_intervals(model, intervals)
        labels = np.array([rows[label] for label in LABELS], float).T
        model.config.scale = scale_of(labels, predictions[[*LABELS]].to_numpy(np.float64), corpus_title(run))
        model.save_pretrained(folder)
    return intervals


def _fitted_intervals(predictions: pd.DataFrame, rows: datasets.Dataset) -> MsfSerIntervals | None:
    """Intervals from the predictions for speakers that no model was fitted to; `None` with a log of the reason."""
    speakers = _names(predictions["speaker"])
    folds: np.ndarray | None = None
    where = ""
    if unknown := speakers.count(""):
        logger.info("no intervals: they need all speakers to be known, and %d utterances name none", unknown)
        return None
    if "fold" in predictions:
        folds = pd.factorize(predictions["fold"])[0]
        if len({*zip(speakers, folds, strict=True)}) > len(set(speakers)):
            logger.info("no intervals: they need folds that have no speaker in common")
            return None
    else:  # a validation part, which may share speakers with the training part
        trained = _names(rows["speaker"])
        if unknown := trained.count(""):
            logger.warning("%d training utterances name no speaker: intervals may be of speakers seen there", unknown)
        is_new = ~np.isin(speakers, sorted(set(trained)))
        if not is_new.all():
            shown = np.count_nonzero(~is_new), len(speakers)
            logger.info("intervals: %d of %d validation utterances are of training speakers and do not count", *shown)
        predictions, speakers = predictions[is_new], np.array(speakers)[is_new].tolist()
        where = "in the validation part, where training speakers do not count"
    numbers, given = numbers_and_labels(predictions)
    if words := too_few(given, speakers, unrated_dimensions(rows), where):
        logger.info(words)
        return None
    return calibrated(numbers, given, speakers, folds)


def _names(speakers: Iterable[Any]) -> list[str]:
    """The names of speakers, "" for those that are not known: `None`, and what pandas makes of it."""
    return ["" if pd.isna(speaker) else str(speaker) for speaker in speakers]


def fold_trainer(
    settings: Settings,
    train: datasets.Dataset,
    is_final: bool = False,
    initial: Callable[[], tuple[MsfSerModel, MsfSerProcessor]] | None = None,
) -> MsfSerTrainer:
    """A trainer without a validation part, whose model has the same first weights for each fold.

    Args:
        settings: Those of the run.
        train: Rows of the schema, also before the frozen encoders ran.
        is_final: Whether it trains the final model, which has checkpoints and shows its epochs.
        initial: Makes the model and its processor; by default those of the settings.

    Raises:
        ValueError, ImportError: As [`make_trainer`] does.
    """
    set_seed(settings.training.seed)
    model, processor = build_model(settings.run, settings.model) if initial is None else initial()
    training = copy.copy(settings.training)
    training.eval_strategy, training.load_best_model_at_end = "no", False
    if not is_final:
        training.save_strategy = SaveStrategy.NO
    elif training.save_strategy == SaveStrategy.BEST:
        training.save_strategy = SaveStrategy.EPOCH
    trainer = make_trainer(settings.run, training, model, processor, train)
    if not is_final:
        trainer.remove_callback(EpochLines)
    return trainer
