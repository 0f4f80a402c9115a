"""Batches of the speech encoder's cached states: of whole clips, or of random crops with some of their frames.

Neighboring frames of a frozen encoder are much alike, and attentive pooling makes one vector of them all: a training
step on some 30 frames of a clip takes a fraction of the time. Evaluation always uses whole clips.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

# Of all speech encoders here.
FRAMES_PER_SECOND = 50


class Crop(NamedTuple):
    """Which frames of a clip a training step uses.

    Args:
        frames: Length of the random crop; 0 for the whole clip.
        stride: Of the crop every so many-th frame, from a random one on.
    """

    frames: int
    stride: int = 1

    def of(self, states: torch.Tensor, draw: np.random.Generator) -> torch.Tensor:
        """`(states, frames, size)` -> `(states, fewer frames, size)`, as a view."""
        frames = self.frames or states.shape[1]
        spare = states.shape[1] - frames
        start = int(draw.integers(spare + 1)) if spare > 0 else 0
        # A clip or a crop that is shorter than the stride keeps a frame.
        offset = int(draw.integers(min(self.stride, frames, states.shape[1])))
        return states[:, start + offset : start + frames : self.stride]


def padded(clips: Sequence[torch.Tensor | None]) -> dict[str, torch.Tensor]:
    """States of some clips as arguments of the model, in their precision.

    Args:
        clips: `(states, frames, size)` of each; `None` is a clip without sound.

    Returns:
        `audio_states` `(batch, states, frames, size)` and `attention_mask` `(batch, frames)`; nothing without sound.
    """
    known = next((clip for clip in clips if clip is not None), None)
    if known is None:
        return {}
    lengths = [0 if clip is None else clip.shape[1] for clip in clips]
    states = known.new_empty(len(clips), len(known), max(lengths), known.shape[2])
    for row, (clip, length) in enumerate(zip(clips, lengths, strict=True)):
        if clip is not None:
            states[row, :, :length] = clip
        states[row, :, length:] = 0
    mask = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    return {"audio_states": states, "attention_mask": mask.long()}
