"""Labeled sentences without sound, and how a batch of clips gets them.

Acted corpora have a few fixed, neutral sentences; sentences with an emotion have no voice. A model of both learns from
three kinds of rows: a clip, alone or with a neutral sentence, has the clip's label; a neutral clip with any sentence
has the sentence's; and so has a sentence alone. Where both carry an emotion there is no label, and no such row.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from .feature_store import fingerprint


@dataclass(frozen=True)
class Sentences:
    """Sentences by the vectors of the frozen text encoder.

    Args:
        labels: `(sentences, 3)` in 0..1.
        texts: By `gs` and `les` the vectors `(sentences, width)`.
    """

    labels: np.ndarray
    texts: Mapping[str, torch.Tensor]

    @cached_property
    def neutral(self) -> np.ndarray:
        """The indices of those whose label is the center of each scale."""
        return np.flatnonzero((self.labels == 0.5).all(1))

    @cached_property
    def identity(self) -> str:
        """A hash of labels and vectors."""
        return fingerprint(self.labels, *(part for of_text in sorted(self.texts.items()) for part in of_text))

    def inputs(self, chosen: np.ndarray, les_dropout: float, draw: np.random.Generator) -> dict[str, torch.Tensor]:
        """The model's inputs of some sentences, `-1` for none; LES is dropped at random."""
        made: dict[str, torch.Tensor] = {}
        for name, vectors in self.texts.items():
            present = chosen >= 0
            if name == "les":
                present = present & (draw.random(len(chosen)) >= les_dropout)
            made[f"{name}_embedding"] = vectors[np.maximum(chosen, 0)]
            made[f"{name}_attention_mask"] = torch.as_tensor(present)[:, None].long()
        return made


@dataclass(frozen=True)
class SentenceShares:
    """How many rows of a batch get sentences.

    Args:
        neutral: The share of clips that get a neutral sentence.
        spoken: Neutral clips with any sentence, in addition to the clips of a batch.
        alone: Sentences without a clip, in addition.
        les_dropout: The share of sentences whose emphasized words are dropped.
        weight: Of the CCC loss of the labels of sentences; that of the voices is 1.
    """

    neutral: float = 0.5
    spoken: int = 16
    alone: int = 32
    les_dropout: float = 0.3
    weight: float = 0.5
