"""Small models on frozen encoders, fitted to some clips of a corpus and evaluated on the others, many times over.

`train.py` trains one model; a comparison with each speaker held out needs hundreds. Here the outputs of the frozen
encoders are in memory ([`encode_sounds`]) and training uses short crops of them, so that a model takes well under a
minute. The loop is that of `train.py`, [`MsfSerTrainer`].
"""

import contextlib
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, Sampler
from transformers import TrainingArguments

from ..configuration_msfser import SEMANTICS
from ..loss_msfser import ccc_loss
from ..modeling_msfser import MsfSerModel
from .crops import Crop, padded
from .sentences import Sentences, SentenceShares
from .trainer import EpochLines, MsfSerTrainer


@dataclass(frozen=True)
class Recipe:
    """How a model is fitted.

    Args:
        ranking_loss_weight: Weight of the pairwise ranking loss; that of the CCC loss is 1.
        ranking_scale: The difference in arousal of a matched pair that counts as clear.
        mixing_lr_scale: Learning rate of the weights of layers and experts, as a multiple of `learning_rate`.
        weight_decay: Of matrices, in AdamW.
        epochs: Over the clips.
        batch_size: Clips in a step.
        learning_rate: The peak; it rises over a tenth of the steps and then falls to zero.
        crop_frames: Training uses a random crop of this many frames (20 ms each) of a clip,
        frame_stride: and of the crop every so many-th frame.
        sentences: How many rows of a batch get sentences, if there are any.
    """

    ranking_loss_weight: float
    ranking_scale: float = 0.05
    mixing_lr_scale: float = 1.0
    weight_decay: float = 0.01
    epochs: int = 10
    batch_size: int = 32
    learning_rate: float = 2e-3
    crop_frames: int = 120
    frame_stride: int = 2
    sentences: SentenceShares = field(default_factory=SentenceShares)


@dataclass
class Clips(Dataset):
    """A corpus in memory.

    Args:
        labels: `(clips, 3)` in 0..1.
        speakers: `(clips,)`, names.
        states: By kind, such as "as_recorded" and "one_level", the speech encoder's states of each clip,
            `(states, frames, size)` in half precision.
        sampling_weights: The share of each kind in training; the shares sum to 1.
        texts: By `les`, `gs`, `es` the text encoder's vectors `(clips, width)`, NaN where the text is missing.
        stronger: `(clips,)`, the index of the clip with the same words and emotion at a stronger intensity; -1 where
            there is none.
        text_dropout: By `les`, `gs`, `es` the share of these texts that is dropped in training, besides the model's
            `text_dropout`.
        sentences: Labeled sentences that are trained on, too; they take the place of the clips' own words.
        neutral: `(clips,)` bool, which clips may be given any sentence.
    """

    labels: np.ndarray
    speakers: np.ndarray
    states: Mapping[str, Sequence[torch.Tensor]]
    sampling_weights: Mapping[str, float]
    texts: Mapping[str, torch.Tensor]
    stronger: np.ndarray
    text_dropout: Mapping[str, float] = field(default_factory=dict)
    sentences: Sentences | None = None
    neutral: np.ndarray = field(default_factory=lambda: np.zeros(0, bool))

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> int:
        return index


class MeanHead(nn.Module):
    """Mean of the last layer's frames and one linear layer: the usual audio-only model on the Hub."""

    def __init__(self, size: int):
        super().__init__()
        self.out = nn.Linear(size, 3)

    def forward(self, audio_states: torch.Tensor, attention_mask: torch.Tensor, **_: torch.Tensor) -> torch.Tensor:
        """`(batch, states, frames, size)` and mask `(batch, frames)` -> `(batch, 3)` in 0..1."""
        mask = attention_mask[..., None].float()
        return self.out((audio_states[:, -1] * mask).sum(1) / mask.sum(1)).sigmoid()


def fit(new: Callable[[], nn.Module], clips: Clips, items: np.ndarray, seed: int, recipe: Recipe) -> nn.Module:
    """Trains on some clips with the CCC loss, and with the ranking loss of matched pairs if there are any.

    Args:
        new: Makes an `MsfSerModel` with frozen encoders, or another head of the same inputs.
        clips: The corpus.
        items: Indices of the clips to train on.
        seed: Of the initial weights and the batches.
        recipe: How.

    Returns:
        The model, in evaluation mode.
    """
    torch.manual_seed(seed)
    model = new()
    random_state = torch.get_rng_state()
    with tempfile.TemporaryDirectory() as folder, _without_encoders(model):
        trainer = _ClipsTrainer(model, clips, items, seed, recipe, folder)
        torch.set_rng_state(random_state)  # a trainer seeds it
        trainer.train()
    return model.eval()


@contextlib.contextmanager
def _without_encoders(model: nn.Module) -> Iterator[None]:
    """Leaves out the frozen encoders, which nothing uses, from what each step does to all modules and parameters."""
    modules = dict(model._modules)
    for name in ("audio_encoder", "text_encoder"):
        model._modules.pop(name, None)
    try:
        yield
    finally:
        model._modules.update(modules)
        for name in modules:  # in the old order
            model._modules[name] = model._modules.pop(name)


class _ClipsTrainer(MsfSerTrainer):
    """The trainer of one fit: in memory, with bfloat16 autocast on a CPU, without checkpoints and messages."""

    def __init__(self, model: nn.Module, clips: Clips, items: np.ndarray, seed: int, recipe: Recipe, folder: str):
        draw = np.random.default_rng(seed)
        self.clips, self.recipe = clips, recipe
        self.batches = _PairedBatches(items, clips.stronger, recipe.batch_size, draw)
        neutral = np.intersect1d(items, np.flatnonzero(clips.neutral))
        super().__init__(
            model,
            TrainingArguments(
                folder,
                num_train_epochs=recipe.epochs,
                per_device_train_batch_size=recipe.batch_size,
                learning_rate=recipe.learning_rate,
                weight_decay=recipe.weight_decay,
                max_grad_norm=1.0,
                seed=seed,
                use_cpu=True,
                dataloader_pin_memory=False,
                remove_unused_columns=False,
                report_to="none",
                logging_strategy="no",
                save_strategy="no",
                disable_tqdm=True,
            ),
            train_dataset=clips,
            data_collator=lambda chosen: _training_batch(clips, np.array(chosen), neutral, recipe, draw),
            encoder_learning_rate=recipe.learning_rate,
            mixing_lr_scale=recipe.mixing_lr_scale,
        )
        self.remove_callback(EpochLines)

    def get_train_dataloader(self) -> DataLoader:
        """Random batches, matched pairs together."""
        # With its own generator it leaves the random numbers of the model alone.
        return DataLoader(
            self.clips, batch_sampler=self.batches, collate_fn=self.data_collator, generator=torch.Generator()
        )

    def create_scheduler(
        self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None
    ) -> torch.optim.lr_scheduler.LRScheduler:
        """One cycle: up over a tenth of the steps, then down to zero."""
        optimizer = optimizer or self.optimizer
        assert optimizer is not None
        rates = [group["lr"] for group in optimizer.param_groups]
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rates, num_training_steps, pct_start=0.1)
        self.lr_scheduler = schedule  # type: ignore[assignment]  # the library names one kind of several
        return schedule

    def compute_loss(self, model: nn.Module, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> torch.Tensor:
        """CCC loss and weighted ranking loss; the CCC of the labels of voices and that of the labels of sentences."""
        labels, pairs, alone = inputs.pop("labels"), inputs.pop("pairs"), inputs.pop("alone", None)
        of_sentences = inputs.pop("sentence_labels", None)
        with torch.autocast("cpu", torch.bfloat16):
            logits = _logits(model, inputs).float()
            others = None if alone is None else torch.cat([logits[len(labels) :], _logits(model, alone).float()])
        logits = logits[: len(labels)]
        loss = ccc_loss(logits, labels)
        if others is not None:
            loss = loss + self.recipe.sentences.weight * ccc_loss(others, of_sentences)
        return loss + self.recipe.ranking_loss_weight * _ranking_loss(logits, pairs, self.recipe.ranking_scale)


class _PairedBatches(Sampler[list[int]]):
    """Random batches, matched pairs side by side, so that most of them share a batch; the rest is left out."""

    def __init__(self, items: np.ndarray, stronger: np.ndarray, batch_size: int, draw: np.random.Generator):
        self.batch_size, self.draw = batch_size, draw
        present, listed = set(items.tolist()), items.tolist()
        normal_of: dict[int, list[int]] = {}
        for item in listed:
            if stronger[item] in present:
                normal_of.setdefault(int(stronger[item]), []).append(item)
        # A strong clip may be that of several normal ones; it is in an epoch once.
        units = {normal[0]: [*normal, strong] for strong, normal in normal_of.items()}
        rest = {item for unit in units.values() for item in unit[1:]}
        self.units = [units.get(item, [item]) for item in listed if item not in rest]
        self.size = len(items) // batch_size

    def __len__(self) -> int:
        return self.size

    def __iter__(self) -> Iterator[list[int]]:
        order = [i for unit in self.draw.permutation(len(self.units)) for i in self.units[unit]]
        for start in range(0, self.size * self.batch_size, self.batch_size):
            yield order[start : start + self.batch_size]


@torch.inference_mode()
def predict(
    model: nn.Module, clips: Clips, items: np.ndarray, kind: str, texts: Sequence[str] = SEMANTICS
) -> np.ndarray:
    """What a fitted model predicts, `(items, 3)`, for whole clips of one kind and some of their texts."""
    predictions = np.empty((len(items), 3), np.float32)
    if kind in clips.states:
        order = np.argsort([clips.states[kind][i].shape[1] for i in items], kind="stable")
    else:
        order = np.arange(len(items))
    for start in range(0, len(items), 64):
        some = order[start : start + 64]
        states = [clips.states[kind][item] for item in items[some]] if clips.states else []
        predictions[some] = _logits(model, _batch(clips, items[some], states, texts)).numpy()
    return predictions


def _logits(model: nn.Module, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
    return model(**batch, return_dict=True).logits if isinstance(model, MsfSerModel) else model(**batch)


def _ranking_loss(logits: torch.Tensor, pairs: torch.Tensor, scale: float) -> torch.Tensor | float:
    """`mean softplus((arousal(normal) - arousal(strong)) / scale)` over pairs `(pairs, 2)` of rows of a batch."""
    if not len(pairs):
        return 0.0
    normal, strong = pairs.T
    difference = logits[normal, 1] - logits[strong, 1]
    return nn.functional.softplus(difference / scale).mean()


def _training_batch(
    clips: Clips, chosen: np.ndarray, neutral: np.ndarray, recipe: Recipe, draw: np.random.Generator
) -> dict[str, Any]:
    """Inputs of some clips for training: crops of a random kind, and text dropout; with `labels` and `pairs`.

    With sentences there are more rows, of neutral clips, the inputs of sentences `alone`, and `sentence_labels` for
    both.
    """
    paired = chosen
    if clips.sentences is not None and len(neutral):
        chosen = np.concatenate([chosen, draw.choice(neutral, recipe.sentences.spoken)])
    batch: dict[str, Any] = _batch(clips, chosen, _crops(clips, chosen, recipe, draw), [*clips.texts])
    for name in clips.texts:
        kept = draw.random(len(chosen)) >= clips.text_dropout.get(name, 0.0)
        batch[f"{name}_attention_mask"] *= torch.as_tensor(kept)[:, None]
    if clips.sentences is not None:
        _add_sentences(batch, len(paired), len(chosen), clips.sentences, recipe.sentences, draw)
    rows = {int(item): row for row, item in enumerate(paired)}
    pairs = [(row, rows[clips.stronger[item]]) for item, row in rows.items() if clips.stronger[item] in rows]
    batch["pairs"] = torch.tensor(pairs, dtype=torch.long).reshape(-1, 2)
    batch["labels"] = torch.as_tensor(clips.labels[paired])
    return batch


def _crops(clips: Clips, chosen: np.ndarray, recipe: Recipe, draw: np.random.Generator) -> list[torch.Tensor]:
    if not clips.states:
        return []
    # A matched pair is of one kind, so that its order is one of the voice where levels are equal.
    stronger = clips.stronger[chosen]
    units = np.where(stronger >= 0, stronger, chosen)
    weights = clips.sampling_weights
    kinds = draw.choice(list(weights), size=len(clips), p=list(weights.values()))
    crop = Crop(recipe.crop_frames, recipe.frame_stride)
    return [crop.of(clips.states[kinds[unit]][item], draw) for item, unit in zip(chosen, units, strict=True)]


def _add_sentences(
    batch: dict[str, Any],
    count: int,
    rows: int,
    sentences: Sentences,
    shares: SentenceShares,
    draw: np.random.Generator,
) -> None:
    """Gives the first `count` of the rows neutral sentences, the others any, and adds sentences `alone`."""
    said = np.full(rows, -1)
    said[:count] = np.where(draw.random(count) < shares.neutral, draw.choice(sentences.neutral, count), -1)
    said[count:] = draw.integers(len(sentences.labels), size=rows - count)
    alone = draw.integers(len(sentences.labels), size=shares.alone)
    # What else the model reads is absent, by masks of zeros: one frame of sound, one token.
    one = {"audio_states": batch["audio_states"][:1, :, :1], "attention_mask": batch["attention_mask"][:1, :1]}
    one = {name: torch.zeros_like(tensor[:1]) for name, tensor in (batch | one).items()}
    absent = {name: tensor.expand(shares.alone, *tensor.shape[1:]) for name, tensor in one.items()}
    batch |= sentences.inputs(said, shares.les_dropout, draw)
    batch["alone"] = absent | sentences.inputs(alone, shares.les_dropout, draw)
    batch["sentence_labels"] = torch.as_tensor(sentences.labels[np.append(said[count:], alone)])


def _batch(
    clips: Clips, chosen: np.ndarray, states: Sequence[torch.Tensor], texts: Sequence[str]
) -> dict[str, torch.Tensor]:
    batch = padded(states)
    for name in (name for name in clips.texts if name in texts):
        vectors = clips.texts[name][chosen]
        there = ~vectors.isnan().any(1)
        batch[f"{name}_embedding"] = vectors.nan_to_num()
        batch[f"{name}_attention_mask"] = there[:, None].long()
    return batch
