"""What frozen encoders answer, computed once and kept on disk: a corpus with features in place of sound and texts.

The features lie in the cache of `datasets` as memory-mapped Arrow files. Their name is a hash of the encoders'
weights, of how sound and texts are prepared, and of the recordings and texts themselves: a change of any of them makes
new ones, and a second run with other fusion settings finds them.
"""

import hashlib
import io
import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import soundfile
import torch
from transformers import BatchFeature

from ..modeling_msfser import MsfSerModel
from ..processing_msfser import TEXTS, MsfSerCollator, MsfSerProcessor, labels_of
from .schema import audio_source

logger = logging.getLogger(__name__)

_BATCH = 8


def add_lengths(dataset: datasets.Dataset) -> datasets.Dataset:
    """Adds `length`, the seconds of sound from the file's header (0 without sound), for length-grouped batches."""
    lengths = [_seconds(audio) for audio in dataset["audio"]]
    return dataset.add_column("length", lengths)


def cache_features(dataset: datasets.Dataset, model: MsfSerModel, processor: MsfSerProcessor) -> datasets.Dataset:
    """Runs the frozen encoders of a model over a corpus, or finds what an earlier run left.

    Args:
        dataset: Rows of the schema.
        model: Its frozen encoders are run; a part that is trained is left to the training loop.
        processor: Prepares sound and texts, as in training and use.

    Returns:
        The same rows with `audio_states`, `audio_shape` and `les_embedding`, `gs_embedding`, `es_embedding` as far as
        the model has these inputs and their encoder is frozen. The original columns stay.
    """
    config = model.config
    with_audio = config.audio and config.freeze_audio == "all"
    prefixes = config.semantics if config.freeze_text else []
    texts = {name: prefix for name, prefix in TEXTS.items() if prefix in prefixes}
    if not with_audio and not texts:
        return dataset
    key = _key(dataset, model, processor, with_audio, texts)
    folder = Path(datasets.config.HF_DATASETS_CACHE) / "msfser_features"
    folder.mkdir(parents=True, exist_ok=True)
    features = datasets.Features(dataset.features)
    if with_audio:
        features["audio_states"] = datasets.Value("large_binary")
        features["audio_shape"] = datasets.List(datasets.Value("int32"))
    for prefix in texts.values():
        features[f"{prefix}_embedding"] = datasets.Value("large_binary")
    model.eval()
    return dataset.map(
        lambda rows: _encode(rows, model, processor, with_audio, texts),
        batched=True,
        batch_size=_BATCH,
        writer_batch_size=_BATCH,
        features=features,
        cache_file_name=str(folder / f"{key}.arrow"),
        new_fingerprint=key,
        desc="Frozen encoders",
    )


class FeatureCollator:
    """Batches of a corpus with cached features; what is not cached goes through the processor.

    Args:
        processor: For the inputs whose encoder is trained.
    """

    def __init__(self, processor: MsfSerProcessor):
        self.processor = processor

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> BatchFeature:
        """Rows to the arguments of [`MsfSerModel.forward`]."""
        cached: dict[str, torch.Tensor] = {}
        done = set()
        if "audio_states" in rows[0]:
            done.add("audio")
            cached |= _padded_states(rows)
        for name, prefix in TEXTS.items():
            if f"{prefix}_embedding" in rows[0]:
                done.add(name)
                cached |= _stacked_embeddings(rows, prefix)
        left = [{k: v for k, v in row.items() if k not in done} for row in rows]
        batch = BatchFeature(cached)
        if any(row.get(name) is not None for row in left for name in ("audio", *TEXTS)):
            batch.update(MsfSerCollator(self.processor)(left))
        labels = labels_of(rows)
        if labels is not None:
            batch["labels"] = labels
        return batch


@torch.no_grad()
def _encode(
    rows: Mapping[str, list], model: MsfSerModel, processor: MsfSerProcessor, with_audio: bool, texts: dict[str, str]
) -> dict[str, list]:
    out: dict[str, list] = {}
    if with_audio:
        sounds = [audio_source(audio) for audio in rows["audio"]]
        out["audio_states"], out["audio_shape"] = [None] * len(sounds), [None] * len(sounds)
        if any(sound is not None for sound in sounds):
            inputs = processor.feature_extractor(sounds, return_tensors="pt").to(model.device)
            states, mask = model.encode_audio(**inputs)
            for i, length in enumerate(mask.sum(1).tolist()):
                if length:
                    item = states[i, :, :length].cpu().numpy()
                    out["audio_states"][i], out["audio_shape"][i] = item.tobytes(), list(item.shape)
    for name, prefix in texts.items():
        column = f"{prefix}_embedding"
        out[column] = [None] * len(rows[name])
        here = [i for i, text in enumerate(rows[name]) if text]
        if here:
            tokens = processor(**{name: [rows[name][i] for i in here]}).to(model.device)
            vectors = model.encode_text(tokens[f"{prefix}_input_ids"], tokens[f"{prefix}_attention_mask"])
            for i, vector in zip(here, vectors.cpu().numpy(), strict=True):
                out[column][i] = vector.tobytes()
    return out


def _padded_states(rows: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
    """`audio_states` `(batch, states, frames, size)` and `attention_mask` `(batch, frames)`."""
    items = [
        None
        if row["audio_states"] is None
        else np.frombuffer(row["audio_states"], np.float32).reshape(row["audio_shape"])
        for row in rows
    ]
    known = [item for item in items if item is not None]
    if not known:
        return {}
    n_states, _, size = known[0].shape
    frames = max(item.shape[1] for item in known)
    states = torch.zeros(len(rows), n_states, frames, size)
    mask = torch.zeros(len(rows), frames, dtype=torch.long)
    for i, item in enumerate(items):
        if item is not None:
            states[i, :, : item.shape[1]] = torch.tensor(item)
            mask[i, : item.shape[1]] = 1
    return {"audio_states": states, "attention_mask": mask}


def _stacked_embeddings(rows: Sequence[Mapping[str, Any]], prefix: str) -> dict[str, torch.Tensor]:
    """`PREFIX_embedding` `(batch, text width)` and `PREFIX_attention_mask` `(batch, 1)`."""
    column = f"{prefix}_embedding"
    items = [None if row[column] is None else np.frombuffer(row[column], np.float32) for row in rows]
    size = next((len(item) for item in items if item is not None), None)
    if size is None:
        return {}
    vectors = np.stack([np.zeros(size, np.float32) if item is None else item for item in items])
    present = torch.tensor([[item is not None] for item in items], dtype=torch.long)
    return {column: torch.from_numpy(vectors), f"{prefix}_attention_mask": present}


def _key(
    dataset: datasets.Dataset,
    model: MsfSerModel,
    processor: MsfSerProcessor,
    with_audio: bool,
    texts: dict[str, str],
) -> str:
    """Hash of everything that the features depend on, and of the columns that are carried along."""
    digest = hashlib.sha256(f"{torch.__version__} {model.config.audio_states}".encode())
    encoders = ([model.audio_encoder] if with_audio else []) + ([model.text_encoder] if texts else [])
    for encoder in encoders:
        for name, tensor in encoder.state_dict().items():
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy())
    digest.update(processor.feature_extractor.to_json_string().encode() if with_audio else b"")
    digest.update(processor.tokenizer.backend_tokenizer.to_str().encode() if texts else b"")
    for row in dataset:
        audio = row.pop("audio") if with_audio else None
        source = audio_source(audio)
        if isinstance(source, str):
            found = os.stat(source)
            digest.update(f"{source} {found.st_size} {found.st_mtime_ns}".encode())
        elif source is not None:
            digest.update(source)
        digest.update(repr(sorted(row.items(), key=lambda item: item[0])).encode())
    return digest.hexdigest()[:32]


def _seconds(audio: Mapping[str, Any] | None) -> float:
    source = audio_source(audio)
    if source is None:
        return 0.0
    return soundfile.info(io.BytesIO(source) if isinstance(source, bytes) else source).duration
