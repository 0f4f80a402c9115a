"""What frozen encoders answer, computed once and kept on disk: a corpus with features in place of sound and texts.

The features lie in the cache of `datasets` as memory-mapped Arrow files. Their name is a hash of the encoders'
weights, of the code and settings that prepare sound and texts, and of the recordings and texts themselves: a change of
any of them makes new ones, and a second run with other fusion settings finds them. They take disk space, with all
states of Whisper tiny.en about 0.4 MB for each second of sound; remove the folder `msfser_features` to be rid of them.
"""

import functools
import hashlib
import io
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import soundfile
import torch
import transformers
from transformers import BatchFeature, PreTrainedModel

from ..modeling_msfser import MsfSerModel
from ..processing_msfser import TEXTS, MsfSerProcessor, labels_of
from .schema import audio_source

_BATCH = 8
_BYTES = datasets.Value("large_binary")

# The columns that carry each input: itself, or what a frozen encoder made of it.
COLUMNS = {
    "audio": ("audio", "audio_shape", "audio_states"),
    "transcript": ("transcript", "gs_embedding"),
    "emphasis": ("emphasis", "les_embedding"),
    "description": ("description", "es_embedding"),
}


def add_lengths(dataset: datasets.Dataset) -> datasets.Dataset:
    """Adds `length`, the seconds of sound from the file's header (0 without sound), for length-grouped batches."""
    lengths = [_seconds(audio) for audio in dataset["audio"]]
    return dataset.add_column("length", lengths)


def keep_inputs(dataset: datasets.Dataset, inputs: Sequence[str]) -> datasets.Dataset:
    """The corpus with only some of its inputs, in whichever form they are there.

    Args:
        dataset: Rows of the schema, with or without cached features.
        inputs: Among `audio`, `transcript`, `emphasis` and `description`.
    """
    withheld = [column for name, columns in COLUMNS.items() if name not in inputs for column in columns]
    return dataset.remove_columns([column for column in withheld if column in dataset.column_names])


def known_inputs(dataset: datasets.Dataset) -> list[str]:
    """The inputs that at least one row has, in the order sound, transcript, emphasis, description."""
    return [name for name in COLUMNS if has_input(keep_inputs(dataset, [name])).any()]


def has_input(dataset: datasets.Dataset) -> np.ndarray:
    """Which rows have at least one of the inputs that are there, `(rows,)` bool."""
    # Of the cached sound the shape will do: the states are large.
    columns = [c for of_input in COLUMNS.values() for c in of_input if c != "audio_states"]
    there = np.zeros(len(dataset), dtype=bool)
    for column in set(columns).intersection(dataset.column_names):
        there |= np.array([value is not None for value in dataset[column]], dtype=bool)
    return there


def cache_features(dataset: datasets.Dataset, model: MsfSerModel, processor: MsfSerProcessor) -> datasets.Dataset:
    """Runs the frozen encoders of a model over a corpus, or finds what an earlier run left.

    Args:
        dataset: Rows of the schema.
        model: Its frozen encoders are run; a part that is trained is left to the training loop.
        processor: Prepares sound and texts, as in training and use.

    Returns:
        The rows with the inputs that the model has; `audio_states` and `audio_shape`, and `les_embedding`,
        `gs_embedding` and `es_embedding`, stand in place of the sound and the texts whose encoder is frozen.
    """
    config = model.config
    active = {name: prefix for name, prefix in TEXTS.items() if prefix in config.semantics}
    dataset = keep_inputs(dataset, [*(["audio"] if config.audio else []), *active])
    frozen = ["audio"] if config.audio and config.freeze_audio == "all" else []
    frozen += list(active) if config.freeze_text else []
    model.eval()
    hashes = {name: _encoder_hash(getattr(model, f"{name}_encoder")) for name in {_kind(name) for name in frozen}}
    features = [
        _features_of(name, dataset.select_columns([name]), model, processor, hashes[_kind(name)]) for name in frozen
    ]
    return datasets.concatenate_datasets([dataset.remove_columns(frozen), *features], axis=1)


class FeatureCollator:
    """Batches of a corpus with cached features; what is not cached goes through the processor.

    Args:
        processor: For the inputs whose encoder is trained.
    """

    def __init__(self, processor: MsfSerProcessor):
        self.processor = processor

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> BatchFeature:
        """Rows to the arguments of [`MsfSerModel.forward`]."""
        batch = BatchFeature()
        if "audio_states" in rows[0]:
            batch.update(_padded_states(rows))
        for prefix in TEXTS.values():
            if f"{prefix}_embedding" in rows[0]:
                batch.update(_stacked_embeddings(rows, prefix))
        sounds = [audio_source(row.get("audio")) for row in rows]
        if any(sound is not None for sound in sounds):
            batch.update(self.processor.feature_extractor(sounds, return_tensors="pt"))
        for name in TEXTS:
            batch.update(self.processor.tokens(name, [row.get(name) for row in rows]))
        labels = labels_of(rows)
        if labels is not None:
            batch["labels"] = labels
        return batch


def _kind(name: str) -> str:
    """Which encoder reads an input: `audio` or `text`."""
    return "audio" if name == "audio" else "text"


def _features_of(
    name: str, column: datasets.Dataset, model: MsfSerModel, processor: MsfSerProcessor, encoder_hash: str
) -> datasets.Dataset:
    """The features of one input, from the cache or made now."""
    key = _key(name, column, model, processor, encoder_hash)
    folder = Path(datasets.config.HF_DATASETS_CACHE) / "msfser_features"
    folder.mkdir(parents=True, exist_ok=True)
    if name == "audio":
        encode = functools.partial(_encode_audio, model=model, processor=processor)
        features = {"audio_shape": datasets.List(datasets.Value("int32")), "audio_states": _BYTES}
    else:
        encode = functools.partial(_encode_text, name=name, model=model, processor=processor)
        features = {f"{TEXTS[name]}_embedding": _BYTES}
    return column.map(
        lambda rows: encode(rows[name]),
        batched=True,
        batch_size=_BATCH,
        writer_batch_size=_BATCH,
        features=datasets.Features(features),
        remove_columns=[name],
        cache_file_name=str(folder / f"{key}.arrow"),
        new_fingerprint=key,
        desc=f"Frozen encoder: {name}",
    )


@torch.no_grad()
def _encode_audio(
    column: Sequence[Mapping[str, Any] | None], model: MsfSerModel, processor: MsfSerProcessor
) -> dict[str, list]:
    shapes: list = [None] * len(column)
    states: list = [None] * len(column)
    here = [i for i, audio in enumerate(column) if audio is not None]
    if here:
        sounds = [audio_source(column[i]) for i in here]
        inputs = processor.feature_extractor(sounds, return_tensors="pt").to(model.device)
        encoded, mask = model.encode_audio(**inputs)
        for row, (i, length) in enumerate(zip(here, mask.sum(1).tolist(), strict=True)):
            item = encoded[row, :, :length].cpu().numpy()
            shapes[i], states[i] = list(item.shape), item.tobytes()
    return {"audio_shape": shapes, "audio_states": states}


@torch.no_grad()
def _encode_text(
    column: Sequence[str | None], name: str, model: MsfSerModel, processor: MsfSerProcessor
) -> dict[str, list]:
    prefix = TEXTS[name]
    vectors: list = [None] * len(column)
    here = [i for i, text in enumerate(column) if text]
    if here:
        tokens = processor.tokens(name, [column[i] for i in here]).to(model.device)
        encoded = model.encode_text(tokens[f"{prefix}_input_ids"], tokens[f"{prefix}_attention_mask"])
        for i, vector in zip(here, encoded.cpu().numpy(), strict=True):
            vectors[i] = vector.tobytes()
    return {f"{prefix}_embedding": vectors}


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


def _encoder_hash(encoder: PreTrainedModel) -> str:
    digest = hashlib.sha256(encoder.config.to_json_string().encode())
    for weight, tensor in encoder.state_dict().items():
        digest.update(weight.encode())
        digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy())
    return digest.hexdigest()


def _key(
    name: str, column: datasets.Dataset, model: MsfSerModel, processor: MsfSerProcessor, encoder_hash: str
) -> str:
    """Hash of everything that the features of one input depend on, the code among it."""
    if name == "audio":
        preparation = processor.feature_extractor.to_json_string()
    else:
        tokenizer = processor.tokenizer
        normalizer = getattr(getattr(tokenizer, "backend_tokenizer", None), "normalizer", None)
        preparation = f"{processor.max_tokens} {normalizer!r} {sorted(tokenizer.get_vocab().items())}"
    versions = f"{torch.__version__} {transformers.__version__}"
    digest = hashlib.sha256(f"{name} {model.config.audio_states} {versions} {encoder_hash} {preparation}".encode())
    for path in (*sorted(Path(__file__).parents[1].glob("*_msfser.py")), Path(__file__)):
        digest.update(path.read_bytes())
    for value in column[name]:
        source = audio_source(value) if name == "audio" else value
        if name == "audio" and isinstance(source, str):
            found = os.stat(source)
            source = f"{source} {found.st_size} {found.st_mtime_ns}"
        digest.update(repr(source).encode())
    return digest.hexdigest()[:32]


def _seconds(audio: Mapping[str, Any] | None) -> float:
    source = audio_source(audio)
    if source is None:
        return 0.0
    try:
        return soundfile.info(io.BytesIO(source) if isinstance(source, bytes) else source).duration
    except (soundfile.LibsndfileError, RuntimeError) as error:
        raise ValueError(f"{audio['path']!r} cannot be decoded ({error}): leave it out, or convert it.") from error
