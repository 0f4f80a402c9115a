"""Small models on frozen encoders, fitted to some clips of a corpus and tried on the others, many times over.

`train.py` trains one model well; a table of peers with each speaker held out wants hundreds of them. Here the outputs
of the frozen encoders lie in memory, training hears short stretches of them, and a model takes well under a minute.
"""

import hashlib
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn
from tqdm import tqdm

from ..audio_msfser import SAMPLING_RATE, load_audio
from ..loss_msfser import ccc_loss
from ..modeling_msfser import MsfSerModel
from ..processing_msfser import MsfSerProcessor
from . import augmentation
from .augmentation import Distortion, nothing

# What shares out layers and experts: a few numbers behind a softmax, which need long steps to leave an even share.
_SHARES = ("layer_mix.scores", "routing.table")


@dataclass(frozen=True)
class Recipe:
    """How a model is fitted.

    Args:
        ranking_loss_weight: What the order of matched takes weighs beside CCC.
        ranking_scale: The difference in arousal of matched takes that counts as clear.
        mixing_lr_scale: How many times faster the shares of layers and experts learn.
        weight_decay: Of matrices, in AdamW.
        epochs: Over the clips.
        batch: Clips in a step.
        learning_rate: The highest; it rises over a tenth of the steps and then falls to nothing.
        stretch: Training hears a stretch of so many frames (20 ms each) of a clip,
        stride: and of it one of so many.
    """

    ranking_loss_weight: float
    ranking_scale: float = 0.05
    mixing_lr_scale: float = 1.0
    weight_decay: float = 0.01
    epochs: int = 10
    batch: int = 32
    learning_rate: float = 2e-3
    stretch: int = 120
    stride: int = 2


@dataclass
class Clips:
    """A corpus in memory.

    Args:
        labels: `(clips, 3)` in 0..1.
        speakers: `(clips,)`, names.
        states: By kind, such as "as_recorded" and "one_level", the speech encoder's states of each clip,
            `(states, frames, size)` in half precision.
        heard: How often training hears each kind; the shares sum to 1.
        texts: By `les`, `gs`, `es` the text encoder's vectors `(clips, width)`, NaN where the text is absent.
        stronger: `(clips,)`, the index of the take of the same words and emotion in which the actor was to show more
            of it; -1 where there is none.
        withheld: By `les`, `gs`, `es` the share of these texts that training does not show, besides the model's own
            dropout.
    """

    labels: np.ndarray
    speakers: np.ndarray
    states: Mapping[str, Sequence[torch.Tensor]]
    heard: Mapping[str, float]
    texts: Mapping[str, torch.Tensor]
    stronger: np.ndarray
    withheld: Mapping[str, float] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.labels)


def fingerprint(*parts: object) -> str:
    """The SHA-256 of some values: files by content, arrays and tensors by what they hold, others by how they print."""
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, Path):
            part = part.read_bytes()
        elif isinstance(part, (np.ndarray, torch.Tensor)):
            part = np.ascontiguousarray(part).tobytes()
        elif not isinstance(part, bytes):
            part = repr(part).encode()
        digest.update(hashlib.sha256(part).digest())
    return digest.hexdigest()


def encoded(
    path: Path,
    sounds: Sequence[str | np.ndarray],
    model: MsfSerModel,
    processor: MsfSerProcessor,
    distortion: Distortion = nothing,
) -> Sequence[torch.Tensor]:
    """What a frozen speech encoder makes of each sound, as the model in use gets it.

    Args:
        path: The file that keeps it. What it holds is not made again, unless it is of other sounds, another encoder,
            other settings of the processor, or another distortion; the draws of the distortion depend on its name.
        sounds: Paths of recordings, or samples at 16 kHz.
        model: Its speech encoder is run.
        processor: It prepares the sound.
        distortion: What happens to the sound before.

    Returns:
        The states of each, `(states, frames, size)` in half precision.
    """
    made_of = fingerprint(
        *(Path(sound) if isinstance(sound, str) else sound for sound in sounds),
        *model.audio_encoder.state_dict().values(),
        processor.feature_extractor.to_json_string(),
        *map(inspect.getsource, (augmentation, distortion)),
    )
    with FileLock(f"{path}.lock"):
        if not _is_of(path, made_of):
            model.eval()
            states = {}
            for place, sound in enumerate(tqdm(sounds, desc=path.stem)):
                samples = load_audio(sound) if isinstance(sound, str) else sound
                samples = distortion(samples, np.random.default_rng([place, *path.stem.encode()]))
                with torch.inference_mode():
                    inputs = processor.feature_extractor(
                        samples, SAMPLING_RATE, return_tensors="pt", warn_if_cut=False
                    )
                    states[str(place)] = model.encode_audio(**inputs)[0][0].half().contiguous()
            unfinished = path.with_suffix(".part")
            save_file(states, unfinished, {"of": made_of})
            unfinished.rename(path)
    with safe_open(path, "pt") as file:
        return [file.get_tensor(str(place)) for place in range(len(sounds))]


def _is_of(path: Path, made_of: str) -> bool:
    if not path.is_file():
        return False
    with safe_open(path, "pt") as file:
        return (file.metadata() or {}).get("of") == made_of


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
    """Trains on some clips with the loss of `train.py`, and the order of matched takes in arousal where there are any.

    Args:
        new: Makes an `MsfSerModel` with frozen encoders, or another head of the same inputs.
        clips: The corpus.
        items: Indices of the clips to train on.
        seed: Of the initial weights and the batches.
        recipe: How.

    Returns:
        The model, in evaluation mode.
    """
    draw = np.random.default_rng(seed)
    torch.manual_seed(seed)
    model = new()
    trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    shares = [parameter for name, parameter in trained.items() if name.endswith(_SHARES)]
    rest = [parameter for name, parameter in trained.items() if not name.endswith(_SHARES)]
    rate = recipe.learning_rate
    groups = [
        {"params": [p for p in rest if p.dim() > 1], "lr": rate, "weight_decay": recipe.weight_decay},
        {"params": [p for p in rest if p.dim() <= 1], "lr": rate, "weight_decay": 0.0},
        {"params": shares, "lr": recipe.mixing_lr_scale * rate, "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, fused=True)
    steps = recipe.epochs * (len(items) // recipe.batch)
    highest = [group["lr"] for group in groups]
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, highest, total_steps=steps, pct_start=0.1)
    model.train()
    for _ in range(recipe.epochs):
        order = _pairs_together(items, clips.stronger, draw)
        for start in range(0, len(order) - recipe.batch + 1, recipe.batch):
            chosen = order[start : start + recipe.batch]
            with torch.autocast("cpu", torch.bfloat16):
                logits = _answer(model, _heard(clips, chosen, recipe, draw)).float()
            loss = ccc_loss(logits, torch.as_tensor(clips.labels[chosen]))
            loss = loss + recipe.ranking_loss_weight * _ranking_loss(logits, clips, chosen, recipe.ranking_scale)
            loss.backward()
            nn.utils.clip_grad_norm_(trained.values(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
            schedule.step()
    return model.eval()


@torch.inference_mode()
def predict(model: nn.Module, clips: Clips, items: np.ndarray, kind: str) -> np.ndarray:
    """What a fitted model answers, `(items, 3)`, for whole clips of one kind."""
    answers = np.empty((len(items), 3), np.float32)
    if kind in clips.states:
        places = np.argsort([clips.states[kind][i].shape[1] for i in items], kind="stable")
    else:
        places = np.arange(len(items))
    for start in range(0, len(items), 64):
        some = places[start : start + 64]
        answers[some] = _answer(model, _whole(clips, items[some], kind)).numpy()
    return answers


def _answer(model: nn.Module, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
    return model(**batch).logits if isinstance(model, MsfSerModel) else model(**batch)


def _pairs_together(items: np.ndarray, stronger: np.ndarray, draw: np.random.Generator) -> np.ndarray:
    """The items in random order, matched takes side by side, so that most of them share a batch."""
    there = set(items.tolist())
    pairs = {i: int(stronger[i]) for i in items.tolist() if stronger[i] in there}
    second = set(pairs.values())
    units = [[i, pairs[i]] if i in pairs else [i] for i in items.tolist() if i not in second]
    return np.array([i for unit in draw.permutation(len(units)) for i in units[unit]])


def _ranking_loss(logits: torch.Tensor, clips: Clips, chosen: np.ndarray, scale: float) -> torch.Tensor | float:
    """`mean softplus((arousal(normal) - arousal(strong)) / scale)` over the matched takes of a batch."""
    places = {int(item): place for place, item in enumerate(chosen)}
    pairs = [(place, places[clips.stronger[item]]) for item, place in places.items() if clips.stronger[item] in places]
    if not pairs:
        return 0.0
    normal, strong = torch.tensor(pairs).T
    difference = logits[normal, 1] - logits[strong, 1]
    return nn.functional.softplus(difference / scale).mean()


def _whole(clips: Clips, chosen: np.ndarray, kind: str) -> dict[str, torch.Tensor]:
    """The inputs of some clips, whole and of one kind."""
    return _batch(clips, chosen, [clips.states[kind][item] for item in chosen] if clips.states else [])


def _heard(clips: Clips, chosen: np.ndarray, recipe: Recipe, draw: np.random.Generator) -> dict[str, torch.Tensor]:
    """The inputs of some clips in training: short stretches of any kind, and not every text."""
    states = []
    if clips.states:
        # Matched takes are of one kind, so that their order is one of the voice where there is no level.
        units = [max(int(item), int(clips.stronger[item])) for item in chosen]
        kinds = draw.choice(list(clips.heard), size=len(clips), p=list(clips.heard.values()))
        for item, unit in zip(chosen, units, strict=True):
            states.append(_stretch(clips.states[kinds[unit]][item], recipe, draw))
    batch = _batch(clips, chosen, states)
    for name in clips.texts:
        shown = draw.random(len(chosen)) >= clips.withheld.get(name, 0.0)
        batch[f"{name}_attention_mask"] *= torch.as_tensor(shown)[:, None]
    return batch


def _batch(clips: Clips, chosen: np.ndarray, states: Sequence[torch.Tensor]) -> dict[str, torch.Tensor]:
    batch: dict[str, torch.Tensor] = {}
    if states:
        longest = max(of_clip.shape[1] for of_clip in states)
        padded = torch.zeros(len(states), states[0].shape[0], longest, states[0].shape[2])
        mask = torch.zeros(len(states), longest, dtype=torch.long)
        for row, of_clip in enumerate(states):
            padded[row, :, : of_clip.shape[1]] = of_clip
            mask[row, : of_clip.shape[1]] = 1
        batch = {"audio_states": padded, "attention_mask": mask}
    for name, vectors in clips.texts.items():
        there = ~vectors[chosen].isnan().any(1)
        batch[f"{name}_embedding"] = vectors[chosen].nan_to_num()
        batch[f"{name}_attention_mask"] = there[:, None].long()
    return batch


def _stretch(states: torch.Tensor, recipe: Recipe, draw: np.random.Generator) -> torch.Tensor:
    """Some frames of a random stretch: `(states, frames, size)` -> `(states, fewer frames, size)`."""
    spare = states.shape[1] - recipe.stretch
    start = int(draw.integers(spare + 1)) if spare > 0 else 0
    return states[:, start + int(draw.integers(recipe.stride)) : start + recipe.stretch : recipe.stride]
