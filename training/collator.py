"""Batches of a corpus whose frozen encoders may have run before ([`cache_features`])."""

import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from transformers import BatchFeature

from ..configuration_msfser import TENSOR_NAMES
from ..corpora.schema import audio_source
from ..processing_msfser import MsfSerProcessor, labels_of
from .crops import Crop, padded
from .feature_store import load


class FeatureCollator:
    """Batches of a corpus with cached features; what is not cached goes through the processor.

    Args:
        processor: For the inputs whose encoder is trained.
        crop: Of cached states in training; without it the clips are whole.
        seed: Of the crops. They depend on it and on the clips of the batch alone, in any process and after a restart.
    """

    def __init__(self, processor: MsfSerProcessor, crop: Crop | None = None, seed: int = 0):
        self.processor, self.crop, self.seed = processor, crop, seed

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> BatchFeature:
        """Rows to the arguments of [`MsfSerModel.forward`]; if the rows have names (`row`), these too, as `rows`."""
        batch = BatchFeature()
        if "audio_states" in rows[0]:
            batch.update(padded(self._states([row["audio_states"] for row in rows])))
        for prefix in TENSOR_NAMES.values():
            if f"{prefix}_embedding" in rows[0]:
                batch.update(_stacked_embeddings(rows, prefix))
        sounds = [audio_source(row.get("audio")) for row in rows]
        if any(sound is not None for sound in sounds):
            batch.update(self.processor.feature_extractor(sounds, return_tensors="pt", warn_if_cut=False))
        for name in TENSOR_NAMES:
            batch.update(self.processor.tokens(name, [row.get(name) for row in rows]))
        labels = labels_of(rows)
        if labels is not None:
            batch["labels"] = labels
        if "row" in rows[0]:
            batch["rows"] = [row["row"] for row in rows]
        return batch

    def _states(self, addresses: Sequence[str | None]) -> list[torch.Tensor | None]:
        clips = [None if address is None else load(address) for address in addresses]
        if self.crop is None:
            return clips
        contents = "".join((address or "").rpartition("#")[2] for address in addresses)
        draw = np.random.default_rng([self.seed, zlib.crc32(contents.encode())])
        return [None if clip is None else self.crop.of(clip, draw) for clip in clips]


def _stacked_embeddings(rows: Sequence[Mapping[str, Any]], prefix: str) -> dict[str, torch.Tensor]:
    """`PREFIX_embedding` `(batch, text width)` and `PREFIX_attention_mask` `(batch, 1)`."""
    column = f"{prefix}_embedding"
    items = [None if row[column] is None else load(row[column]) for row in rows]
    known = next((item for item in items if item is not None), None)
    if known is None:
        return {}
    vectors = torch.stack([torch.zeros_like(known) if item is None else item for item in items])
    present = torch.tensor([[item is not None] for item in items], dtype=torch.long)
    return {column: vectors, f"{prefix}_attention_mask": present}
