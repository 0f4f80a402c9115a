"""A small regressor on pooled states of a frozen speech encoder: the baseline that a model has to exceed.

A clip is brought to one level, cut at 12 s, and run through Whisper tiny.en at its own length; every hidden state is
reduced to its mean and its standard deviation over the frames ([`pooled`]). [`LayerMixRegressor`] takes a softmax mix
of the layer-normalized states, projects it, and predicts each dimension with a head of its own. It sees neither texts
nor the order of the frames, and is fitted in seconds.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import nn

from ..audio_msfser import SAMPLING_RATE
from ..configuration_msfser import LABELS
from ..loss_msfser import ccc_loss
from ..modeling_msfser import MsfSerModel
from ..processing_msfser import MsfSerProcessor
from ..starter.assemble import AUDIO_ENCODER, TEXT_ENCODER, new_starter
from ..training.features import encode_sounds

_SECONDS, _LEVEL = 12, 0.05

_STEPS, _BATCH_SIZE, _WEIGHT_DECAY = 1500, 64, 0.05
# The mix is a few numbers behind a softmax, which need long steps to leave equal weights.
_LEARNING_RATE, _MIXING_SCALE = 1e-3, 20.0


class LayerMixRegressor(nn.Module):
    """Pooled states `(clips, states, 2 * size)` to valence, arousal, dominance `(clips, 3)` in 0..1.

    Args:
        states: Hidden states of the encoder.
        features: Of each state, `2 * size`.
        width: Of the hidden layers.
        dropout: In training.
    """

    def __init__(self, states: int, features: int, width: int = 128, dropout: float = 0.3):
        super().__init__()
        self.mix = nn.Parameter(torch.zeros(states))
        self.trunk = nn.Sequential(
            *(nn.LayerNorm(features), nn.Linear(features, width)),
            *(nn.Linear(width, width), nn.LayerNorm(width), nn.GELU(), nn.Dropout(dropout)),
        )
        self.heads = nn.ModuleList(
            nn.Sequential(
                *(nn.Linear(width, width), nn.GELU(), nn.LayerNorm(width), nn.Dropout(dropout)), nn.Linear(width, 1)
            )
            for _ in LABELS
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """`(clips, states, 2 * size)` -> `(clips, 3)`."""
        normed = nn.functional.layer_norm(x, x.shape[-1:])
        hidden = self.trunk(torch.einsum("s,csf->cf", self.mix.softmax(0), normed))
        return torch.cat([head(hidden) for head in self.heads], dim=1).sigmoid()


def pooled(states: torch.Tensor) -> torch.Tensor:
    """Mean and standard deviation (1/N) over the frames: `(states, frames, size)` -> `(states, 2 * size)`."""
    deviation, mean = torch.std_mean(states.float(), dim=1, correction=0)
    return torch.cat([mean, deviation], dim=1)


def at_one_level(samples: np.ndarray, draw: np.random.Generator) -> np.ndarray:
    """The first 12 s, with a root mean square of .05 of full scale; draws nothing."""
    cut = samples[: _SECONDS * SAMPLING_RATE]
    return (cut / (np.sqrt(np.square(cut).mean()) + 1e-6) * _LEVEL).astype(np.float32)


def pooled_clips(sounds: Sequence[str | np.ndarray], model: MsfSerModel, processor: MsfSerProcessor) -> torch.Tensor:
    """[`pooled`] states of recordings or of samples at 16 kHz, `(clips, states, 2 * size)`.

    Args:
        sounds: As for [`encode_sounds`], which keeps the states in its cache.
        model: Its frozen speech encoder is run.
        processor: It leaves levels alone.
    """
    return torch.stack(
        [pooled(states) for states in encode_sounds("one_level", sounds, model, processor, at_one_level)]
    )


def regressor_encoder() -> tuple[MsfSerModel, MsfSerProcessor]:
    """Whisper tiny.en and a processor that leaves levels alone, for [`pooled_clips`].

    The last state is that of the last layer, before the encoder's final normalization: the norms of the frames differ,
    and their deviation says something.
    """
    model = new_starter()
    model.audio_encoder.layer_norm = nn.Identity()
    return model, MsfSerProcessor.from_encoders(AUDIO_ENCODER, TEXT_ENCODER, max_seconds=float(_SECONDS))


def fit_regressor(
    x: torch.Tensor,
    y: torch.Tensor,
    seed: int,
    *,
    new: Callable[[int, int], nn.Module] = LayerMixRegressor,
    steps: int = _STEPS,
    learning_rate: float = _LEARNING_RATE,
) -> nn.Module:
    """Fits a regressor with the CCC loss, on random batches of clips.

    The learning rate rises and falls in one cycle; that of the mix is 20 times the rest.

    Args:
        x: `(clips, states, 2 * size)`.
        y: Labels `(clips, 3)` in 0..1.
        seed: Of the initial weights and the batches.
        new: Makes the regressor, from the number of states and the features of each.
        steps: Batches.
        learning_rate: The peak.

    Returns:
        The regressor, in evaluation mode.
    """
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = new(*x.shape[1:])
        mixing = [weight for name, weight in model.named_parameters() if name == "mix"]
        rest = [weight for name, weight in model.named_parameters() if name != "mix"]
        rates = [_MIXING_SCALE * learning_rate, learning_rate] if mixing else [learning_rate]
        groups = [{"params": weights} for weights in (mixing, rest) if weights]
        optimizer = torch.optim.AdamW(groups, lr=learning_rate, weight_decay=_WEIGHT_DECAY, fused=True)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rates, total_steps=steps)
        for _ in range(steps):
            some = torch.randint(len(x), (_BATCH_SIZE,))
            optimizer.zero_grad()
            ccc_loss(model(x[some]), y[some]).backward()
            optimizer.step()
            schedule.step()
    return model.eval()


@torch.inference_mode()
def predict_pooled(model: nn.Module, x: torch.Tensor) -> np.ndarray:
    """The predictions of a fitted regressor, `(clips, 3)`."""
    return model(x).numpy()
