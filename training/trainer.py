"""The training loop: transformers' `Trainer` with the batches, learning rates and messages of this project."""

import contextlib
import functools
import logging
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import datasets
import numpy as np
import torch
from accelerate.utils import gather_object
from torch.utils.data import DataLoader
from transformers import (
    EarlyStoppingCallback,
    PrinterCallback,
    ProgressCallback,
    Trainer,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)
from transformers.trainer_pt_utils import LengthGroupedSampler
from transformers.trainer_utils import PredictionOutput, SaveStrategy, has_length, seed_worker

from ..cli.interrupts import raise_if_interrupted
from ..configuration_msfser import LABELS
from ..corpora.messages import counted_are
from .batches import batches_in_order
from .samplers import SecondsBatchSampler, SeededLengthGroups, SetEpochCallback

logger = logging.getLogger("msfser.train")

# The weights of layers and experts: a few numbers behind a softmax, which need long steps to leave equal weights.
# peft inserts names of its own.
_MIXING = re.compile(r"\b(layer_mix|routing)\.([\w.]+\.)?(scores|table)$")


class EpochLines(ProgressCallback):
    """The library's progress bar, and a line per evaluation with loss and CCC; at the end, which epoch is kept.

    The best mean CCC so far is shown where its epoch is the one that is kept (`load_best_model_at_end`).
    """

    def __init__(self, shows_bar: bool = True):
        super().__init__()
        self.shows_bar = shows_bar
        self.losses: list[float] = []

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Starts the bar."""
        if self.shows_bar:
            super().on_train_begin(args, state, control, **kwargs)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Moves the bar."""
        if self.training_bar is not None:
            super().on_step_end(args, state, control, **kwargs)

    def on_prediction_step(self, args: TrainingArguments, *rest: Any, **kwargs: Any) -> None:
        """Shows a bar for `do_predict` alone; evaluation takes less time than an epoch."""
        if self.shows_bar and args.do_predict:
            super().on_prediction_step(args, *rest, **kwargs)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        """Keeps the loss; without evaluations it is the line."""
        if logs and "loss" in logs:
            self.losses.append(logs["loss"])
            if args.eval_strategy == "no":
                self._show(args, state, "")

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        metrics: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        """Shows the line."""
        if metrics and "eval_ccc_mean" in metrics:
            named = {name: metrics.get(f"eval_ccc_{name}") for name in (*LABELS, "mean")}
            scores = " ".join(f"{name} {ccc:.3f}" for name, ccc in named.items() if ccc is not None)
            best = ""
            if args.load_best_model_at_end:
                before = -1.0 if state.best_metric is None else state.best_metric
                best = f"  best {max(metrics['eval_ccc_mean'], before):.3f}"
            self._show(args, state, f"  CCC {scores}{best}")

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Ends the bar, and says which epoch is kept."""
        if self.training_bar is not None:
            super().on_train_end(args, state, control, **kwargs)
        step = state.best_global_step if args.load_best_model_at_end else None
        kept, which = (state.global_step, "last") if step is None else (step, "best")
        if state.is_world_process_zero and state.global_step:
            epoch = (state.epoch or 0) * kept / state.global_step
            print(f"kept: step {kept}" if args.max_steps > 0 else f"kept: epoch {epoch:.4g}", f"({which})", flush=True)

    def _show(self, args: TrainingArguments, state: TrainerState, scores: str) -> None:
        loss = f"{np.mean(self.losses):.3f}" if self.losses else "-"
        self.losses = []
        if not state.is_world_process_zero:
            return
        if args.max_steps > 0:
            done = f"step {state.global_step}/{state.max_steps}"
        else:
            done = f"epoch {state.epoch or 0:.4g}/{args.num_train_epochs:.4g}"
        line = f"{done}  loss {loss}{scores}"
        if self.training_bar is not None:
            self.training_bar.write(line)
        else:
            print(line, flush=True)


class MsfSerTrainer(Trainer):
    """`Trainer` with batches by seconds and a separate learning rate for the encoders.

    It scores every item of a part, in batches of similar length, and predicts in the order of the rows. That needs
    `datasets.Dataset` with the seconds of each row as `length`; others, also iterable ones, are scored in their order.
    Training needs two rows in a batch: if there are fewer rows than a batch needs, the batch is made smaller, and a
    last batch of one row is left out of the epoch; both are logged. Where the collator gives the names of a batch's
    rows as `rows`, a loss that is not finite ends the training and names them. It shows one line per evaluation
    ([`EpochLines`]).

    Args:
        *args: As in `Trainer`.
        encoder_learning_rate: Peak learning rate of the encoders; that of everything else is `learning_rate`.
        mixing_lr_scale: Learning rate of the weights of layers and experts, as a multiple of `learning_rate`.
        batch_seconds: Seconds of sound in a batch; 0 leaves the batches to `Trainer`.
        train_collator: Makes the batches of training, if it is another than `data_collator`.
        **kwargs: As in `Trainer`.

    Raises:
        ValueError: A batch of all processes has one row, or the optimizer does not accept its options.
        ImportError: The optimizer's package is not installed.
    """

    def __init__(
        self,
        *args: Any,
        encoder_learning_rate: float,
        mixing_lr_scale: float = 1.0,
        batch_seconds: float = 0.0,
        train_collator: Callable[[Any], Any] | None = None,
        **kwargs: Any,
    ):
        super().__init__(*args, **kwargs)
        if self.train_dataset is not None:
            # What it refuses, it refuses before the first batch is made.
            self._check_optimizer()
            _check_batches(self.args, self.train_dataset, batch_seconds)
            self._train_batch_size = self.args.train_batch_size
        for kind in (ProgressCallback, PrinterCallback):
            self.remove_callback(kind)
        self.add_callback(EpochLines(shows_bar=not self.args.disable_tqdm))
        self.encoder_learning_rate, self.mixing_lr_scale = encoder_learning_rate, mixing_lr_scale
        self.batch_seconds = batch_seconds
        self.train_collator = train_collator or self.data_collator

    def get_train_dataloader(self) -> DataLoader:
        """The training part, in batches by seconds if `batch_seconds` is set."""
        of_evaluation, self.data_collator = self.data_collator, self.train_collator
        try:
            return self._train_loader() if self.batch_seconds else super().get_train_dataloader()
        finally:
            self.data_collator = of_evaluation

    def _train_loader(self) -> DataLoader:
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

    def _get_train_sampler(self, *args: Any, **kwargs: Any) -> torch.utils.data.Sampler | None:
        sampler = super()._get_train_sampler(*args, **kwargs)
        is_resumed_within_epochs = self.args.save_strategy == SaveStrategy.STEPS
        if isinstance(sampler, LengthGroupedSampler) and (self.args.world_size > 1 or is_resumed_within_epochs):
            sampler = SeededLengthGroups(
                sampler, self.args.seed if self.args.data_seed is None else self.args.data_seed
            )
            self._tell_epochs_to(sampler)
        return sampler

    def _tell_epochs_to(self, sampler: Any) -> None:
        # Within an epoch that is resumed, neither transformers nor accelerate tells it to the sampler of a process.
        self.pop_callback(SetEpochCallback)
        self.add_callback(SetEpochCallback(sampler))

    def get_eval_dataloader(self, eval_dataset: Any = None) -> DataLoader:
        """The development part, to its last item, long items first."""
        parts: Any = self.eval_dataset
        part = parts if eval_dataset is None else eval_dataset
        if isinstance(part, str):
            part = parts[part]
        if _has_lengths(part):
            part = part.select(_long_first(part))
        return self._evaluation_loader(part, super().get_eval_dataloader)

    def get_test_dataloader(self, test_dataset: Any) -> DataLoader:
        """The test part, to its last item, in the order of its rows."""
        return self._evaluation_loader(test_dataset, super().get_test_dataloader)

    def _evaluation_loader(self, part: Any, by_count: Callable[[Any], DataLoader]) -> DataLoader:
        """All rows in order, in batches by seconds if `batch_seconds` is set; several processes count items."""
        if self.batch_seconds and self.args.world_size == 1 and _has_lengths(part):
            batches = batches_in_order(self._input_seconds(part), self.batch_seconds, self.args.eval_batch_size)
            return self._loader(part, [batch.tolist() for batch in batches])
        with _in_order_to_the_last(self.args):
            return by_count(part)

    def _input_seconds(self, part: Any) -> list[float]:
        if not _has_lengths(part):
            raise ValueError(
                "batch_seconds needs a datasets.Dataset with the seconds of each row as `length`: add it with "
                "msfser.training.features.add_lengths."
            )
        processor: Any = self.processing_class
        return np.minimum(part["length"][:], processor.feature_extractor.max_seconds).tolist()

    def _loader(self, part: datasets.Dataset, batches: Iterable[list[int]]) -> DataLoader:
        """A loader of the given batches with the settings of the run."""
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

    def predict(self, test_dataset: Any, *args: Any, **kwargs: Any) -> PredictionOutput:
        """As in `Trainer`, in batches of similar length; the results are in the order of the rows."""
        if not _has_lengths(test_dataset):
            return super().predict(test_dataset, *args, **kwargs)
        order = _long_first(test_dataset)
        output = super().predict(test_dataset.select(order), *args, **kwargs)
        rows = np.argsort(order)
        labels = None if output.label_ids is None else output.label_ids[rows]
        return output._replace(predictions=output.predictions[rows], label_ids=labels)

    def _run_epoch(self, *args: Any, **kwargs: Any) -> None:
        # A checkpoint can be the last one of its run, which was killed after it: the library would go on training.
        is_stopped_early = any(
            callback.early_stopping_patience_counter >= callback.early_stopping_patience
            for callback in self.callback_handler.callbacks
            if isinstance(callback, EarlyStoppingCallback)
        )
        if is_stopped_early or self.state.global_step >= self.state.max_steps:
            self.control.should_training_stop = True
        else:
            super()._run_epoch(*args, **kwargs)

    def training_step(self, model: torch.nn.Module, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> torch.Tensor:
        """As in `Trainer`, up to the first loss that is not finite.

        Raises:
            FloatingPointError: The loss is not finite; the sentence names the rows. The weights are as before the
                step.
            KeyboardInterrupt: Ctrl-C was pressed, and nothing has reacted to it.
        """
        raise_if_interrupted()
        rows = inputs.pop("rows", None)
        loss = super().training_step(model, inputs, *args, **kwargs)
        if rows is not None and not torch.isfinite(loss):
            raise FloatingPointError(self._reason_for_no_loss(model, inputs, rows))
        return loss

    def _reason_for_no_loss(self, model: torch.nn.Module, inputs: dict[str, Any], rows: Sequence[str]) -> str:
        inputs = self._prepare_inputs(dict(inputs))
        labels = inputs.pop("labels")
        model.eval()
        with torch.no_grad():
            wrong = ~(torch.isfinite(model(**inputs, return_dict=True).logits) & torch.isfinite(labels)).all(1)
        # The loss is of the batches of all processes.
        wrong_rows = gather_object([row for row, is_wrong in zip(rows, wrong.tolist(), strict=True) if is_wrong])
        of_batch = gather_object(list(rows))
        at = f"at step {self.state.global_step + 1} the loss is not finite: "
        if not all(torch.isfinite(weight).all() for weight in model.parameters()):
            why = "the weights are no longer finite; lower the learning rate, or clip with max_grad_norm."
        elif 0 < len(wrong_rows) < len(of_batch):
            why = f"the output is not finite for {_shown(wrong_rows)}; correct or remove these rows."
        else:
            why = (
                f"the output is not finite for any row of the batch ({_shown(of_batch)}); check them and the settings."
            )
        return f"{at}{why} The last checkpoint is from before."

    def _check_optimizer(self) -> None:
        model: Any = self.model
        optimizer_class, options = self.get_optimizer_cls_and_kwargs(self.args, model)
        optimizer_class([torch.nn.Parameter(torch.zeros(1))], **options)

    def create_optimizer(self, model: torch.nn.Module | None = None) -> torch.optim.Optimizer:
        """AdamW in groups: mixing weights, encoders or the rest; all but the first with and without weight decay."""
        if self.optimizer is None:
            trained: Any = self.model if model is None else model
            decayed = set(self.get_decay_parameter_names(trained))
            rates = {
                "mixing": self.mixing_lr_scale * self.args.learning_rate,
                "encoder": self.encoder_learning_rate,
                "rest": self.args.learning_rate,
            }
            groups: dict[tuple[str, bool], list] = {}
            for name, parameter in trained.named_parameters():
                if parameter.requires_grad:
                    is_encoder = "audio_encoder." in name or "text_encoder." in name
                    kind = "mixing" if _MIXING.search(name) else "encoder" if is_encoder else "rest"
                    groups.setdefault((kind, name in decayed and kind != "mixing"), []).append(parameter)
            optimizer_class, options = self.get_optimizer_cls_and_kwargs(self.args, trained)
            self.optimizer = optimizer_class(
                [
                    {
                        "params": parameters,
                        "lr": rates[kind],
                        "weight_decay": self.args.weight_decay if is_decayed else 0.0,
                    }
                    for (kind, is_decayed), parameters in groups.items()
                ],
                **options,
            )
        return self.optimizer

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        """Not counted: the library's estimate goes over all modules in every step, and knows no cached features."""
        return 0


@contextlib.contextmanager
def _in_order_to_the_last(training: TrainingArguments) -> Iterator[None]:
    """Evaluation without what `dataloader_drop_last` and `train_sampling_strategy` set for training."""
    kept = training.dataloader_drop_last, training.train_sampling_strategy
    training.dataloader_drop_last, training.train_sampling_strategy = False, "sequential"
    try:
        yield
    finally:
        training.dataloader_drop_last, training.train_sampling_strategy = kept


def _check_batches(training: TrainingArguments, rows: Any, batch_seconds: float) -> None:
    """Makes every batch of an epoch one of at least two rows; of batches by seconds, their sampler does so.

    Raises:
        ValueError: There are too few rows, or `per_device_train_batch_size` is 1.
    """
    processes = training.world_size
    batch = training.train_batch_size * processes
    if batch < 2:
        raise ValueError(
            "CCC needs at least two items in a batch: raise per_device_train_batch_size; gradient accumulation does "
            "not enlarge this batch."
        )
    if not has_length(rows):
        return
    count = len(rows)
    if count < max(2, processes):
        fewer = f", or start at most {count} processes" if count > 1 else ""
        raise ValueError(
            f"{counted_are(count, 'training row')} too few, because CCC needs two in a batch, and each process one: "
            f"add training rows{fewer}."
        )
    if count < batch and training.dataloader_drop_last:
        training.per_device_train_batch_size = count // processes
        logger.info("%d training rows are fewer than a batch of %d, which is lowered to them", count, batch)
    elif not batch_seconds and processes == 1 and count % batch == 1 and not training.dataloader_drop_last:
        training.dataloader_drop_last = True
        logger.info("the last batch of an epoch would have one row; it is left out (dataloader_drop_last)")


def _has_lengths(part: Any) -> bool:
    return isinstance(part, datasets.Dataset) and "length" in part.column_names


def _long_first(part: datasets.Dataset) -> np.ndarray:
    return np.argsort(-np.asarray(part["length"][:]), kind="stable")


def _shown(names: Sequence[str], most: int = 8) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
