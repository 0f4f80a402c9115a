"""Fine-tunes MSF-SER, evaluates it on the test part and saves a folder that `AutoModel` loads.

    python train.py configs/probe.yaml
    python train.py configs/probe.yaml --do_predict
    python train.py configs/probe.yaml --data my/metadata.csv --label_range 1 7 --output_dir outputs/mine
    accelerate launch --multi_gpu --num_processes 2 train.py configs/msp_podcast.yaml --data my/MSP-PODCAST

Settings come from the YAML file and are overridden on the command line: those of a run (`RunSettings` below), the
switches of the model (`MsfSerConfig`) and those of transformers' `TrainingArguments`. An unknown one is an error. A
killed run goes on from its last checkpoint when the same command is given again.

With `--do_predict` nothing is trained: the model in `output_dir` predicts the test part of the data, which needs no
labels then, and writes `predictions.csv` there.
"""

import argparse
import contextlib
import csv
import dataclasses
import errno
import functools
import json
import logging
import os
import shlex
import shutil
import sys
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import datasets
import evaluate
import numpy as np
import torch
import transformers
import yaml
from accelerate.utils import gather_object
from safetensors import SafetensorError, safe_open
from torch.utils.data import DataLoader
from transformers import (
    EarlyStoppingCallback,
    EvalPrediction,
    HfArgumentParser,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
    set_seed,
)
from transformers.trainer_pt_utils import LengthGroupedSampler
from transformers.trainer_utils import PredictionOutput, SaveStrategy, seed_worker

from msfser import LABELS, MsfSerCollator, MsfSerConfig, MsfSerModel, MsfSerProcessor
from msfser.configuration_msfser import TENSOR_NAMES
from msfser.corpora.emobank import read_emobank
from msfser.corpora.iemocap import read_iemocap
from msfser.corpora.msp_podcast import read_msp_podcast
from msfser.corpora.probe.corpus import make_probe
from msfser.corpora.table import annotation_settings, read_table
from msfser.training.batches import SecondsBatchSampler, batches_in_order
from msfser.training.features import FeatureCollator, add_lengths, cache_features, has_input, keep_inputs, known_inputs

logger = logging.getLogger("msfser.train")

# In the folder of an unfinished run: what it was started with.
RUN_NOTE = "run.json"

METRIC = str(Path(__file__).parent / "metrics" / "ccc")

# The rows of the test-set table: what each may use.
INPUTS = (("audio",), ("audio", "transcript"), ("audio", "transcript", "emphasis", "description"))


@dataclass
class RunSettings:
    """What is trained on what."""

    data: str = field(
        default="probe",
        metadata={
            "help": "'probe' (made on this machine), a table, a folder with metadata.csv, or a Hub dataset; of a "
            "named corpus its folder."
        },
    )
    corpus: Literal["table", "msp_podcast", "iemocap", "emobank"] = field(
        default="table",
        metadata={"help": "How to read the data: as a table, or as the owners of a corpus lay it out."},
    )
    fold: int | None = field(default=None, metadata={"help": "Of iemocap: the session to test on, 1 to 5."})
    label_range: list[float] = field(
        default_factory=lambda: [0.0, 1.0], metadata={"help": "Ends of the corpus's label scale, such as 1 7."}
    )
    audio_folder: str | None = field(
        default=None, metadata={"help": "The folder with the recordings; the table's own by default."}
    )
    columns: list[str] = field(
        default_factory=list, metadata={"help": "Columns with names of their own, as schema=source: speaker=actor."}
    )
    allow_speaker_overlap: bool = field(
        default=False, metadata={"help": "Accept speakers that are in more than one part of the corpus."}
    )
    audio_encoder: str = field(
        default="openai/whisper-tiny.en", metadata={"help": "Pretrained speech encoder: Hub name or folder."}
    )
    text_encoder: str = field(
        default="sentence-transformers/all-MiniLM-L6-v2",
        metadata={"help": "Pretrained text encoder: Hub name or folder."},
    )
    max_seconds: float = field(default=12.0, metadata={"help": "Longer recordings are cut here."})
    encoder_learning_rate: float = field(
        default=1e-5, metadata={"help": "Peak learning rate of the encoders; learning_rate is that of the rest."}
    )
    early_stopping_patience: int = field(
        default=0, metadata={"help": "Stop after so many epochs without a better development CCC; 0 never stops."}
    )
    batch_seconds: float = field(
        default=0.0,
        metadata={
            "help": "Seconds of sound in a batch with its padding, at most per_device_train_batch_size (in evaluation "
            "per_device_eval_batch_size) items of similar length; 0 leaves the batches to train_sampling_strategy."
        },
    )
    cache_gigabytes: float = field(
        default=50.0,
        metadata={"help": "Disk space for what frozen encoders make, of all runs; 0 runs them in the training loop."},
    )


# The model's own switches are settings too; the encoders' configs come with the encoders.
ModelSettings = dataclasses.make_dataclass(
    "ModelSettings",
    [
        (f.name, f.type, field(default=f.default))
        for f in dataclasses.fields(MsfSerConfig)
        if f.name in MsfSerConfig.__annotations__ and f.name not in ("audio_config", "text_config")
    ],
)


# What the script decides itself: given from outside, they would be ignored.
RESERVED_ARGUMENTS = (
    *("do_train", "do_eval", "resume_from_checkpoint", "metric_for_best_model", "greater_is_better"),
    *("remove_unused_columns", "length_column_name", "restore_callback_states_from_checkpoint"),
)


# What the reader of a named corpus knows itself.
TABLE_ONLY = ("label_range", "audio_folder", "columns", "allow_speaker_overlap")


class MsfSerTrainer(Trainer):
    """`Trainer` with batches by seconds and a learning rate of its own for the encoders.

    It scores every item of a part, in batches of similar length, and predicts in the order of the rows. The parts
    have the seconds of each row as `length`. Where the collator gives the names of a batch's rows as `rows`, a loss
    that is not finite ends the training with them.
    """

    def __init__(self, *args, encoder_learning_rate: float, batch_seconds: float = 0.0, **kwargs):
        super().__init__(*args, **kwargs)
        self.encoder_learning_rate = encoder_learning_rate
        self.batch_seconds = batch_seconds

    def get_train_dataloader(self) -> DataLoader:
        """The training part, in batches by seconds where the run asks for them."""
        if not self.batch_seconds:
            return super().get_train_dataloader()
        args = self.args
        sampler = SecondsBatchSampler(
            self._input_seconds(self.train_dataset),
            self.batch_seconds,
            most=self._train_batch_size,
            seed=args.seed if args.data_seed is None else args.data_seed,
            processes=args.world_size,
            drop_last=args.dataloader_drop_last,
        )
        logger.info("padding: %.1f %% of the batches (%d batches)", 100 * sampler.padding(), len(sampler))
        self._tell_epochs_to(sampler)
        return self._loader(self.train_dataset, sampler)

    def _get_train_sampler(self, *args, **kwargs) -> torch.utils.data.Sampler | None:
        sampler = super()._get_train_sampler(*args, **kwargs)
        is_resumed_within_epochs = self.args.save_strategy == SaveStrategy.STEPS
        if isinstance(sampler, LengthGroupedSampler) and (self.args.world_size > 1 or is_resumed_within_epochs):
            sampler = _SeededLengthGroups(
                sampler, self.args.seed if self.args.data_seed is None else self.args.data_seed
            )
            self._tell_epochs_to(sampler)
        return sampler

    def _tell_epochs_to(self, sampler: torch.utils.data.Sampler) -> None:
        # Within an epoch that is resumed, neither transformers nor accelerate tells it to the sampler of a process.
        self.pop_callback(SetEpochCallback)
        self.add_callback(SetEpochCallback(sampler))

    def get_eval_dataloader(self, eval_dataset: datasets.Dataset | None = None) -> DataLoader:
        """The development part, to its last item, long items first."""
        eval_dataset = self.eval_dataset if eval_dataset is None else eval_dataset
        return self._evaluation_loader(eval_dataset.select(_long_first(eval_dataset)), super().get_eval_dataloader)

    def get_test_dataloader(self, test_dataset: datasets.Dataset) -> DataLoader:
        """The test part, to its last item, in the order of its rows."""
        return self._evaluation_loader(test_dataset, super().get_test_dataloader)

    def _evaluation_loader(
        self, part: datasets.Dataset, by_count: Callable[[datasets.Dataset], DataLoader]
    ) -> DataLoader:
        """All rows in order; in batches by seconds where the run asks for them, but of several processes by count."""
        if self.batch_seconds and self.args.world_size == 1:
            batches = batches_in_order(self._input_seconds(part), self.batch_seconds, self.args.eval_batch_size)
            return self._loader(part, [batch.tolist() for batch in batches])
        with _in_order_to_the_last(self.args):
            return by_count(part)

    def _input_seconds(self, part: datasets.Dataset) -> np.ndarray:
        return np.minimum(part["length"][:], self.processing_class.feature_extractor.max_seconds)

    def _loader(self, part: datasets.Dataset, batches: Iterable[list[int]]) -> DataLoader:
        """The given batches, as the settings of the run want them loaded."""
        args = self.args
        loader = DataLoader(
            part,
            batch_sampler=batches,
            collate_fn=self.data_collator,
            num_workers=args.dataloader_num_workers,
            pin_memory=args.dataloader_pin_memory,
            persistent_workers=args.dataloader_persistent_workers,
            multiprocessing_context=args.dataloader_multiprocessing_context,
            in_order=args.dataloader_in_order,
            prefetch_factor=args.dataloader_prefetch_factor,
            worker_init_fn=functools.partial(
                seed_worker, num_workers=args.dataloader_num_workers, rank=args.process_index
            ),
        )
        # The batches are even already, and older versions of accelerate even out only batches of one size.
        even_batches, self.accelerator.even_batches = self.accelerator.even_batches, False
        try:
            return self.accelerator.prepare(loader)
        finally:
            self.accelerator.even_batches = even_batches

    def predict(self, test_dataset: datasets.Dataset, *args, **kwargs) -> PredictionOutput:
        """As in `Trainer`, in batches of similar length; the results are in the order of the rows."""
        order = _long_first(test_dataset)
        output = super().predict(test_dataset.select(order), *args, **kwargs)
        rows = np.argsort(order)
        labels = None if output.label_ids is None else output.label_ids[rows]
        return output._replace(predictions=output.predictions[rows], label_ids=labels)

    def training_step(self, model: torch.nn.Module, inputs: dict[str, Any], *args, **kwargs) -> torch.Tensor:
        """As in `Trainer`, up to the first loss that is not finite.

        Raises:
            SystemExit: The loss is not finite; the sentence names the rows. The weights are as before this step.
        """
        rows = inputs.pop("rows", None)
        loss = super().training_step(model, inputs, *args, **kwargs)
        if rows is not None and not torch.isfinite(loss):
            raise SystemExit(self._reason_for_no_loss(model, inputs, rows))
        return loss

    def _reason_for_no_loss(self, model: torch.nn.Module, inputs: dict[str, Any], rows: Sequence[str]) -> str:
        inputs = self._prepare_inputs(dict(inputs))
        labels = inputs.pop("labels")
        model.eval()
        with torch.no_grad():
            wrong = ~(torch.isfinite(model(**inputs).logits) & torch.isfinite(labels)).all(1)
        # The loss is of the batches of all processes.
        wrong_rows = gather_object([row for row, is_wrong in zip(rows, wrong.tolist(), strict=True) if is_wrong])
        of_batch = gather_object(list(rows))
        at = f"train.py: error: at step {self.state.global_step + 1} the loss is not finite: "
        if not all(torch.isfinite(weight).all() for weight in model.parameters()):
            why = "the weights are no longer finite; lower the learning rate, or clip with max_grad_norm."
        elif 0 < len(wrong_rows) < len(of_batch):
            why = f"no finite number comes of {_shown(wrong_rows)}; correct or remove what is named."
        else:
            why = (
                f"no row of the batch gives a finite number ({_shown(of_batch)}); look at these, and at the settings."
            )
        return f"{at}{why} The last checkpoint is from before."

    def create_optimizer(self, model: torch.nn.Module | None = None) -> torch.optim.Optimizer:
        """AdamW over four groups: encoder or fusion, with or without weight decay."""
        if self.optimizer is None:
            trained = self.model if model is None else model
            decayed = set(self.get_decay_parameter_names(trained))
            groups: dict[tuple[bool, bool], list] = {}
            for name, parameter in trained.named_parameters():
                if parameter.requires_grad:
                    is_encoder = "audio_encoder." in name or "text_encoder." in name
                    groups.setdefault((is_encoder, name in decayed), []).append(parameter)
            optimizer_class, options = self.get_optimizer_cls_and_kwargs(self.args, trained)
            self.optimizer = optimizer_class(
                [
                    {
                        "params": parameters,
                        "lr": self.encoder_learning_rate if is_encoder else self.args.learning_rate,
                        "weight_decay": self.args.weight_decay if is_decayed else 0.0,
                    }
                    for (is_encoder, is_decayed), parameters in groups.items()
                ],
                **options,
            )
        return self.optimizer


@contextlib.contextmanager
def cli_errors() -> Iterator[None]:
    """What reading the corpus and finding the encoders say of wrong input is enough; a traceback buries it."""
    try:
        yield
    except (ValueError, OSError) as error:
        raise SystemExit(f"train.py: error: {error}") from error


# What libraries say of a disk without room where they do not pass its error on.
_NO_ROOM = ("No space left", "File too large", "quota", "PytorchStreamWriter", "inline_container")


@contextlib.contextmanager
def _full_disk_as_sentence(folder: Path) -> Iterator[None]:
    """What was written before stays: the same command goes on from there."""
    try:
        yield
    except (OSError, SafetensorError, RuntimeError) as error:
        if getattr(error, "errno", None) not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG) and not any(
            words in str(error) for words in _NO_ROOM
        ):
            raise
        raise SystemExit(
            f"train.py: error: {folder} cannot be written ({str(error).splitlines()[0]}): make room, then give the "
            "same command again; it goes on from the last whole checkpoint."
        ) from error


class _NamedRows:
    """A collator that also gives the names of the rows, the column `row`, where they have names."""

    def __init__(self, collator: FeatureCollator):
        self.collator = collator

    def __call__(self, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
        batch = self.collator(rows)
        if "row" in rows[0]:
            batch["rows"] = [row["row"] for row in rows]
        return batch


def _name_rows(part: datasets.Dataset, files: Sequence[str | None]) -> datasets.Dataset:
    return part.add_column(
        "row", [f"row {i} of train" + (f" ({file})" if file else "") for i, file in enumerate(files, start=1)]
    )


def _shown(names: Sequence[str], most: int = 8) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


class _SeededLengthGroups(LengthGroupedSampler):
    """The same order in each process, and in an epoch that is resumed.

    The library draws it from the state of all random numbers. That differs between processes once they have drawn
    dropout for batches of different lengths, and an epoch that is resumed begins with another.
    """

    def __init__(self, sampler: LengthGroupedSampler, seed: int):
        super().__init__(sampler.batch_size, lengths=sampler.lengths)
        self.seed = seed
        self.set_epoch(0)

    def set_epoch(self, epoch: int) -> None:
        self.generator = torch.Generator().manual_seed(self.seed + epoch)


class SetEpochCallback(TrainerCallback):
    """Tells a sampler the epoch."""

    def __init__(self, sampler: SecondsBatchSampler | _SeededLengthGroups):
        self.sampler = sampler

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        self.sampler.set_epoch(int(state.epoch or 0))


@contextlib.contextmanager
def _in_order_to_the_last(training: TrainingArguments) -> Iterator[None]:
    """What training wants of its batches (`dataloader_drop_last`, random order) is not meant for evaluation."""
    kept = training.dataloader_drop_last, training.train_sampling_strategy
    training.dataloader_drop_last, training.train_sampling_strategy = False, "sequential"
    try:
        yield
    finally:
        training.dataloader_drop_last, training.train_sampling_strategy = kept


def _long_first(part: datasets.Dataset) -> np.ndarray:
    return np.argsort(-np.asarray(part["length"][:]), kind="stable")


def parse_settings(argv: Sequence[str]) -> tuple[RunSettings, MsfSerConfig, TrainingArguments]:
    """The settings of a run from its YAML file and what follows it on the command line.

    Args:
        argv: `[YAML file, --name value, ...]`.

    Returns:
        The run, the model's switches (with the paper's encoders in place of the named ones) and the training.

    Raises:
        SystemExit: A setting is unknown or wrong; the sentence says which.
    """
    parser = HfArgumentParser(
        [RunSettings, ModelSettings, TrainingArguments],
        usage="train.py SETTINGS.yaml [--name value ...]",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("config", help="YAML file with settings, such as configs/probe.yaml.")
    for action in parser._actions:
        if action.dest in ("semantics", "columns"):
            action.nargs = "*"  # none is a choice too
    known = {action.dest for action in parser._actions} - {"config", "help"}
    settings = {}
    if argv and argv[0].startswith("-") and not {"-h", "--help"}.intersection(argv):
        parser.error(f"the first argument is {argv[0]!r}; give the settings file first, such as configs/probe.yaml")
    if argv and not argv[0].startswith("-"):
        if not Path(argv[0]).is_file():
            parser.error(
                f"there is no settings file {argv[0]!r}; the first argument is one, such as configs/probe.yaml"
            )
        settings = yaml.safe_load(Path(argv[0]).read_text(encoding="utf-8")) or {}
        if unknown := sorted(set(settings) - known):
            parser.error(f"{argv[0]} has unknown settings: {', '.join(unknown)}")
        parser.set_defaults(**settings)
    options = (word[2:].partition("=")[0] for word in argv if word.startswith("--"))
    given = {*settings, *(option.replace("-", "_") for option in options)}
    if decided := sorted(given.intersection(RESERVED_ARGUMENTS)):
        parser.error(f"{', '.join(decided)}: the script decides this itself")
    if not given & {"bf16", "fp16", "use_cpu", "do_predict"}:
        # A device with bfloat16 trains with it unless the settings say otherwise.
        parser.set_defaults(bf16=torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False))
    try:
        run, switches, training, _ = parser.parse_args_into_dataclasses(args=list(argv))
        config = MsfSerConfig(**dataclasses.asdict(switches))
    except ValueError as error:
        parser.error(str(error))
    if run.corpus != "table" and (refused := sorted(given.intersection(TABLE_ONLY))):
        parser.error(
            f"{', '.join(refused)}: the corpus {run.corpus} decides this; leave it out, or give --corpus table"
        )
    if run.corpus == "iemocap" and run.fold is None:
        parser.error("the corpus iemocap takes a fold, the session to test on: --fold 1 (to 5)")
    if run.corpus != "iemocap" and run.fold is not None:
        parser.error(f"fold belongs to the corpus iemocap, not to {run.corpus}; leave it out")
    if not isinstance(run.label_range, list) or len(run.label_range) != 2:
        parser.error(f"label_range takes two numbers, not {run.label_range}")
    if wrong := [pair for pair in run.columns if "=" not in pair]:
        parser.error(f"columns takes pairs such as speaker=actor, not {', '.join(wrong)}")
    for name in ("batch_seconds", "cache_gigabytes"):
        if not getattr(run, name) >= 0:
            parser.error(f"{name} cannot be {getattr(run, name)}; 0 switches it off")
    if training.n_gpu > 1:
        parser.error("for several GPUs: accelerate launch --multi_gpu --num_processes N train.py ...")
    if training.per_device_train_batch_size * training.world_size < 2:
        parser.error("CCC needs at least two items in a batch, and accumulation does not add to it")
    training.remove_unused_columns = False
    training.metric_for_best_model, training.greater_is_better = "ccc_mean", True
    training.length_column_name = "length"
    training.restore_callback_states_from_checkpoint = True
    return run, config, training


def read_data(run: RunSettings, require_labels: bool = True) -> datasets.DatasetDict:
    """The parts of the run's corpus in the schema."""
    if run.corpus == "msp_podcast":
        return read_msp_podcast(run.data)
    if run.corpus == "iemocap":
        return read_iemocap(run.data, fold=run.fold)
    if run.corpus == "emobank":
        return read_emobank(run.data)
    return read_table(
        make_probe("data/probe") if run.data == "probe" else run.data,
        label_range=tuple(run.label_range),
        columns=dict(pair.split("=", 1) for pair in run.columns),
        audio_folder=run.audio_folder,
        allow_speaker_overlap=run.allow_speaker_overlap,
        require_labels=require_labels,
    )


def build(run: RunSettings, config: MsfSerConfig) -> tuple[MsfSerModel, MsfSerProcessor]:
    """Model on the run's pretrained encoders, and its processor."""
    names = [f.name for f in dataclasses.fields(ModelSettings)]
    model = MsfSerModel.from_encoders(
        run.audio_encoder if config.audio else None,
        run.text_encoder if config.semantics else None,
        **{name: getattr(config, name) for name in names},
    )
    processor = MsfSerProcessor.from_encoders(
        run.audio_encoder,
        run.text_encoder,
        annotation=annotation_settings(run.data),
        max_seconds=run.max_seconds,
    )
    return model, processor


def inputs_of(config: MsfSerConfig) -> list[str]:
    """The inputs that a model reads, among `audio`, `transcript`, `emphasis` and `description`."""
    texts = [name for name, prefix in TENSOR_NAMES.items() if prefix in config.semantics]
    return [*(["audio"] if config.audio else []), *texts]


def encode(
    parts: datasets.DatasetDict, model: MsfSerModel, processor: MsfSerProcessor, gigabytes: float
) -> datasets.DatasetDict:
    """The parts with the seconds of each row, and with the outputs of the frozen encoders ([`cache_features`])."""
    # Together: what does not fit the cache is left out of it for all of them.
    rows = datasets.concatenate_datasets([add_lengths(part) for part in parts.values()])
    rows = cache_features(rows, model, processor, gigabytes)
    ends = np.cumsum([len(part) for part in parts.values()])
    return datasets.DatasetDict(
        {name: rows.select(range(end - len(part), end)) for (name, part), end in zip(parts.items(), ends, strict=True)}
    )


def score(prediction: EvalPrediction | PredictionOutput, n_resamples: int = 0) -> dict[str, float]:
    """The metric over a whole part of the corpus, with bootstrap intervals where resamples are asked for."""
    return evaluate.load(METRIC, keep_in_memory=True).compute(
        predictions=prediction.predictions, references=prediction.label_ids, n_resamples=n_resamples
    )


def main(argv: Sequence[str]) -> None:
    """One run: data, model, training, test-set table, folder."""
    run, config, training = parse_settings(argv)
    logging.basicConfig(format="%(asctime)s %(name)s: %(message)s", datefmt="%H:%M:%S", level=logging.INFO)
    if not training.should_log:
        logging.disable(logging.INFO)
        logging.getLogger("msfser.training.features").setLevel(logging.ERROR)  # one process warns for all
        datasets.disable_progress_bars()
    transformers.utils.logging.set_verbosity_warning()
    set_seed(training.seed)
    folder = Path(training.output_dir)
    if training.do_predict:
        predict(run, training)
        return
    with _full_disk_as_sentence(folder):
        train(run, config, training, folder, argv)


def train(
    run: RunSettings, config: MsfSerConfig, training: TrainingArguments, folder: Path, argv: Sequence[str]
) -> None:
    """Trains, evaluates on the test part and saves.

    Raises:
        SystemExit: An input, a setting, the loss or the disk stops the run; the sentence says which.
    """
    with training.main_process_first(desc="looking for an unfinished run", local=False):
        checkpoint = find_checkpoint(folder, argv, training)

    with training.main_process_first(desc="making the corpus", local=False), cli_errors():
        parts = read_data(run)
    if training.world_size > 1:
        logger.info("%d processes", training.world_size)
    for name in ("train", "validation", "test"):
        if name not in parts:
            raise SystemExit(f"{run.data} has no {name} part: add a column 'split', or leave it out to have one made.")
        logger.info("%s: %d utterances", name, len(parts[name]))

    with cli_errors():
        model, processor = build(run, config)
    files = [(audio or {}).get("path") for audio in parts["train"]["audio"]]
    with training.main_process_first(desc="running the frozen encoders", local=False), cli_errors():
        model.to(training.device)
        parts = encode(datasets.DatasetDict(parts), model, processor, run.cache_gigabytes)
    for name, part in parts.items():
        if len(empty := np.flatnonzero(~has_input(part))):
            raise SystemExit(
                f"{run.data}: row {empty[0] + 1} of {name} has none of the model's inputs ({len(empty)} such)."
            )

    callbacks = [EarlyStoppingCallback(run.early_stopping_patience)] if run.early_stopping_patience else []
    trainer = MsfSerTrainer(
        model=model,
        args=training,
        train_dataset=_name_rows(parts["train"], files),
        eval_dataset=parts["validation"],
        data_collator=_NamedRows(FeatureCollator(processor)),
        processing_class=processor,
        compute_metrics=score,
        callbacks=callbacks,
        encoder_learning_rate=run.encoder_learning_rate,
        batch_seconds=run.batch_seconds,
    )
    trainer.train(resume_from_checkpoint=checkpoint)

    trainer.save_model(training.output_dir)
    rows = evaluate_inputs(trainer, parts["test"], shlex.join(["python", "train.py", *argv]))
    if trainer.is_world_process_zero():
        (folder / "results.json").write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
        for unfinished in folder.glob("checkpoint-*"):
            shutil.rmtree(unfinished)
        # Of use to a run, not to those who load the folder: it is safetensors, JSON and code.
        for name in (RUN_NOTE, "training_args.bin"):
            (folder / name).unlink(missing_ok=True)
        logger.info("test set, CCC with 95 %% bootstrap interval:\n%s", as_table(rows))
        logger.info("saved: %s", folder)


def predict(run: RunSettings, training: TrainingArguments) -> None:
    """Predicts the test part with the model in `output_dir` and writes `predictions.csv` there.

    Its rows are those of the test part in order: `file`, and `valence`, `arousal`, `dominance` in 0..1.

    Raises:
        SystemExit: There is no model, no test part, or a row without any of the model's inputs.
    """
    folder = Path(training.output_dir)
    if not (folder / "config.json").is_file():
        raise SystemExit(f"{folder} holds no trained model: train it first, or name its folder with --output_dir.")
    with training.main_process_first(desc="making the corpus", local=False), cli_errors():
        parts = read_data(run, require_labels=False)
    if "test" not in parts:
        raise SystemExit(f"{run.data} has no test part: add a column 'split', or leave it out to have one made.")
    with cli_errors():
        model, processor = MsfSerModel.from_pretrained(folder), MsfSerProcessor.from_pretrained(folder)
        test = add_lengths(parts["test"].remove_columns(list(LABELS)))
    test = keep_inputs(test, inputs_of(model.config))
    if len(empty := np.flatnonzero(~has_input(test))):
        raise SystemExit(f"{run.data}: row {empty[0] + 1} of test has none of the model's inputs ({len(empty)} such).")
    training.eval_strategy, training.load_best_model_at_end = "no", False
    trainer = MsfSerTrainer(
        model=model,
        args=training,
        data_collator=MsfSerCollator(processor),
        processing_class=processor,
        encoder_learning_rate=run.encoder_learning_rate,
        batch_seconds=run.batch_seconds,
    )
    with cli_errors():
        predictions = trainer.predict(test).predictions
    if trainer.is_world_process_zero():
        files = [(audio or {}).get("path") for audio in parts["test"]["audio"]]
        with open(folder / "predictions.csv", "w", newline="", encoding="utf-8") as file:
            table = csv.writer(file)
            table.writerow(["file", *LABELS])
            for name, values in zip(files, predictions.tolist(), strict=True):
                table.writerow([name, *(f"{value:.6f}" for value in values)])
        logger.info("saved: %s", folder / "predictions.csv")


def find_checkpoint(folder: Path, argv: Sequence[str], training: TrainingArguments) -> str | None:
    """The last whole checkpoint of the same run, if it was killed.

    Args:
        folder: The run's.
        argv: Its command; with the text of its settings file it tells runs apart.
        training: Where it says so, the run is noted in the folder, and the results of an earlier one are cleared.

    Raises:
        SystemExit: The folder holds an unfinished run with other settings.
    """
    own = {"argv": list(argv), "settings": Path(argv[0]).read_text(encoding="utf-8")}
    note = folder / RUN_NOTE
    checkpoints = sorted(folder.glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]), reverse=True)
    if checkpoints:
        begun = json.loads(note.read_text(encoding="utf-8")) if note.is_file() else {"argv": ["unknown"]}
        if begun != own:
            what = "its settings file has changed" if begun["argv"] == own["argv"] else shlex.join(begun["argv"])
            raise SystemExit(
                f"{folder} holds an unfinished run with other settings ({what}): give those to go on, or take another "
                "--output_dir, or remove the folder."
            )
    if training.should_save:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "results.json").unlink(missing_ok=True)
        fresh = note.with_suffix(".tmp")
        fresh.write_text(json.dumps(own), encoding="utf-8")
        os.replace(fresh, note)
    for checkpoint in checkpoints:
        damage = _damage(checkpoint, training)
        if damage is None:
            logger.info("going on from %s", checkpoint)
            return str(checkpoint)
        if training.should_log:
            logger.warning("%s is passed over: %s", checkpoint, damage)
    if checkpoints and training.should_log:
        logger.warning("%s holds no whole checkpoint: training starts anew", folder)
    return None


def _damage(checkpoint: Path, training: TrainingArguments) -> str | None:
    """Why a run cannot go on from a checkpoint; `None` if it can.

    A file of torch is read against its checksums; safetensors have none, of them the length is compared.
    """
    try:
        state = json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))
        best = state["best_model_checkpoint"]
    except (OSError, ValueError, KeyError, TypeError):
        return "it was not written to its end"
    kinds = {kind: sorted(checkpoint.glob(kind)) for kind in ("optimizer*", "scheduler.pt", "rng_state*.pth")}
    # With save_only_model there is none of them.
    if any(kinds.values()) and (absent := [kind for kind, files in kinds.items() if not files]):
        return f"{absent[0]} is not there"
    ranks = [checkpoint / f"rng_state_{rank}.pth" for rank in range(training.world_size)]
    if ranks[0].is_file() and (absent := [file.name for file in ranks if not file.is_file()]):
        return f"{absent[0]} is not there"
    for file in (*checkpoint.glob("*.pt"), *checkpoint.glob("*.pth")):
        try:
            with zipfile.ZipFile(file) as archive:
                if archive.testzip() is not None:
                    return f"{file.name} is damaged"
        except (OSError, zipfile.BadZipFile):
            return f"{file.name} is damaged"
    if (damage := _damage_of_weights(checkpoint)) or not (best and training.load_best_model_at_end):
        return damage
    damage = _damage_of_weights(checkpoint.parent / Path(best).name)
    return damage and f"of the best so far, {Path(best).name}, {damage}"


def _damage_of_weights(checkpoint: Path) -> str | None:
    """What is wrong with the weights; `None` if nothing is."""
    files = sorted(checkpoint.glob("*.safetensors"))
    if not files and not any(checkpoint.glob("pytorch_model*")):
        return "the weights are not there"
    for file in files:
        try:
            with safe_open(file, "pt"):
                pass
        except (OSError, SafetensorError):
            return f"{file.name} is damaged"
    return None


def evaluate_inputs(trainer: Trainer, test: datasets.Dataset, command: str) -> list[dict[str, object]]:
    """Scores the test part with fewer and with more of the inputs.

    Returns:
        Rows `{"name": "test/INPUTS/DIMENSION", "value", "low", "high", "command"}`.
    """
    active = known_inputs(test)
    rows, seen = [], []
    for inputs in INPUTS:
        used = [name for name in active if name in inputs]
        if not used or used in seen:
            continue
        seen.append(used)
        label = "all" if len(used) > 2 else "+".join(used)
        part = keep_inputs(test, used)
        scores = score(trainer.predict(part.select(np.flatnonzero(has_input(part)))), n_resamples=1000)
        rows += [
            {
                "name": f"test/{label}/{dimension}",
                "value": scores[f"ccc_{dimension}"],
                "low": scores[f"ccc_{dimension}_low"],
                "high": scores[f"ccc_{dimension}_high"],
                "command": command,
            }
            for dimension in (*LABELS, "mean")
        ]
    return rows


def as_table(rows: list[dict[str, object]]) -> str:
    """The rows as text, a line for each set of inputs."""
    lines = [f"{'inputs':20}" + "".join(f"{name:>22}" for name in (*LABELS, "mean"))]
    for start in range(0, len(rows), len(LABELS) + 1):
        group = rows[start : start + len(LABELS) + 1]
        cells = [f"{row['value']:.3f} ({row['low']:.3f}..{row['high']:.3f})" for row in group]
        lines.append(f"{group[0]['name'].split('/')[1]:20}" + "".join(f"{cell:>22}" for cell in cells))
    return "\n".join(lines)


if __name__ == "__main__":
    main(sys.argv[1:])
