"""What frozen encoders answer, computed once and kept on disk: a corpus with features in place of sound and texts.

The features lie in the folder `msfser_features` in the cache of `datasets`, in pieces that are read by memory map
([`FeatureStore`]). They are found by the encoder (its weights, the code and settings that prepare sound and texts,
versions) and by the content of each recording and text, wherever it lies: a corpus that has grown makes what is new,
and a run with other fusion settings nothing. With all states of Whisper tiny.en they take about 0.4 MB for each second
of sound; the least recently used ones are removed to keep within a limit.
"""

import hashlib
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
import transformers
from datasets.utils import tqdm
from transformers import BatchFeature, PreTrainedModel

from ..audio_msfser import open_sound
from ..configuration_msfser import TENSOR_NAMES
from ..corpora.schema import audio_source
from ..modeling_msfser import MsfSerModel
from ..processing_msfser import MsfSerProcessor, labels_of
from .batches import batches_by_size
from .feature_store import FeatureStore, content_hash, load, size_of

logger = logging.getLogger(__name__)

# What an encoder is given at a time: seconds of sound with padding, or characters.
_BUDGET = {"audio": 96.0, "text": 16_384.0}
_MOST = {"audio": 32, "text": 64}

# As people speak: about 150 words a minute.
_CHARACTERS_PER_SECOND = 15.0

# The columns that carry each input: itself, or the addresses of what a frozen encoder made of it.
COLUMNS = {
    "audio": ("audio", "audio_states"),
    "transcript": ("transcript", "gs_embedding"),
    "emphasis": ("emphasis", "les_embedding"),
    "description": ("description", "es_embedding"),
}


def add_lengths(dataset: datasets.Dataset) -> datasets.Dataset:
    """Adds `length` in seconds, for batches of similar length.

    It is what the file's header says; of a row without sound, what it takes to speak its longest text.
    """
    texts = [dataset[name][:] for name in TENSOR_NAMES if name in dataset.column_names]
    lengths = []
    for row, audio in enumerate(dataset["audio"]):
        spoken = max((len(column[row] or "") for column in texts), default=0) / _CHARACTERS_PER_SECOND
        lengths.append(spoken if audio is None else _seconds(audio))
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
    columns = [column for of_input in COLUMNS.values() for column in of_input]
    there = np.zeros(len(dataset), dtype=bool)
    for column in set(columns).intersection(dataset.column_names):
        there |= np.array([value is not None for value in dataset[column]], dtype=bool)
    return there


def cache_features(
    dataset: datasets.Dataset, model: MsfSerModel, processor: MsfSerProcessor, gigabytes: float = 50.0
) -> datasets.Dataset:
    """Runs the frozen encoders of a model over a corpus, as far as earlier runs have not.

    Args:
        dataset: Rows of the schema, all that are used together.
        model: Its frozen encoders are run; a part that is trained is left to the training loop.
        processor: Prepares sound and texts, as in training and use.
        gigabytes: Disk space (1e9 bytes) for all features of all runs. An encoder whose outputs do not fit is left to
            the training loop too, with a warning; 0 leaves it all encoders.

    Returns:
        The rows with the inputs that the model has; `audio_states`, and `les_embedding`, `gs_embedding` and
        `es_embedding`, stand in place of the sound and the texts whose frozen encoder was run, as addresses that
        [`FeatureCollator`] reads.

    Raises:
        OSError: The features cannot be written.
    """
    config = model.config
    active = {name: prefix for name, prefix in TENSOR_NAMES.items() if prefix in config.semantics}
    dataset = keep_inputs(dataset, [*(["audio"] if config.audio else []), *active])
    # Texts first: they need little.
    frozen = {"text": list(active)} if active and config.freeze_text else {}
    if config.audio and config.freeze_audio == "all":
        frozen["audio"] = ["audio"]
    if not frozen or not gigabytes:
        return dataset
    store = FeatureStore(Path(datasets.config.HF_DATASETS_CACHE) / "msfser_features", gigabytes * 1e9)
    model.eval()
    for kind, columns in frozen.items():
        items = _Items(kind, dataset, columns, store, processor)
        addresses = _make_features(items, model, processor, store)
        if addresses is None:
            continue
        for column, hashes in items.hashes.items():
            found = [None if name is None else addresses[name] for name in hashes]
            dataset = dataset.remove_columns([column]).add_column(
                COLUMNS[column][1], found, feature=datasets.Value("string")
            )
    return dataset


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
        for prefix in TENSOR_NAMES.values():
            if f"{prefix}_embedding" in rows[0]:
                batch.update(_stacked_embeddings(rows, prefix))
        sounds = [audio_source(row.get("audio")) for row in rows]
        if any(sound is not None for sound in sounds):
            batch.update(self.processor.feature_extractor(sounds, return_tensors="pt"))
        for name in TENSOR_NAMES:
            batch.update(self.processor.tokens(name, [row.get(name) for row in rows]))
        labels = labels_of(rows)
        if labels is not None:
            batch["labels"] = labels
        return batch


class _Items:
    """The different recordings, or the different texts, of a corpus, by the hash of their content.

    Args:
        kind: `audio` or `text`.
        dataset: Rows of the schema.
        columns: Those of this kind.
        store: It remembers the hashes of files.
        processor: Knows how much of a recording is used.
    """

    def __init__(
        self,
        kind: str,
        dataset: datasets.Dataset,
        columns: Sequence[str],
        store: FeatureStore,
        processor: MsfSerProcessor,
    ):
        self.kind = kind
        self._columns = {name: dataset.select_columns([name]) for name in columns}
        # Column to the hash of each row, None where it has nothing.
        self.hashes = {name: self._hashes_of(dataset[name], store) for name in columns}
        self._places = {
            digest: (name, row)
            for name, hashes in self.hashes.items()
            for row, digest in enumerate(hashes)
            if digest is not None
        }
        self._seconds: Sequence[float] = ()
        if kind == "audio":
            extractor = processor.feature_extractor
            lengths = dataset["length"] if "length" in dataset.column_names else map(_seconds, dataset["audio"])
            self._seconds = np.clip(list(lengths), extractor.min_seconds, extractor.max_seconds)

    def __len__(self) -> int:
        return len(self._places)

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __getitem__(self, digest: str) -> Any:
        """The row's recording, or its text."""
        name, row = self._places[digest]
        return self._columns[name][row][name]

    def size(self, digest: str) -> float:
        """What it takes to encode: seconds, or characters."""
        return self._seconds[self._places[digest][1]] if self.kind == "audio" else len(self[digest])

    def _hashes_of(self, column: Iterable[Any], store: FeatureStore) -> list[str | None]:
        if self.kind == "text":
            return [content_hash(text.encode()) if text else None for text in column]
        paths: dict[int, str] = {}
        hashes: list[str | None] = []
        for row, audio in enumerate(column):
            source = audio_source(audio)
            hashes.append(content_hash(source) if isinstance(source, bytes) else None)
            if isinstance(source, str):
                paths[row] = source
        of_files = store.hashes_of_files(paths.values())
        for row, path in paths.items():
            hashes[row] = of_files[path]
        return hashes


def _make_features(
    items: _Items, model: MsfSerModel, processor: MsfSerProcessor, store: FeatureStore
) -> dict[str, str] | None:
    """Hash to address of what the encoder makes of each item; `None` where there is no room for it."""
    key = _key(items.kind, model, processor)
    found = store.find(key, items)
    if len(found) < len(items):
        with store.making(key):
            found = store.find(key, items)
            missing = sorted(digest for digest in items if digest not in found)
            if missing:
                return _encode_missing(key, missing, found, items, model, processor, store)
    kept = size_of(found.values())
    if not store.reserve(0) and kept > store.limit:
        return _no_room(items.kind, kept, store)
    return found


def _encode_missing(
    key: str,
    missing: Sequence[str],
    found: dict[str, str],
    items: _Items,
    model: MsfSerModel,
    processor: MsfSerProcessor,
    store: FeatureStore,
) -> dict[str, str] | None:
    kind = items.kind
    sizes = [items.size(digest) for digest in missing]
    batches = batches_by_size(sizes, _BUDGET[kind], _MOST[kind])

    def encoded(batch: np.ndarray) -> dict[str, np.ndarray]:
        names = [missing[i] for i in batch]
        encode = _encode_audio if kind == "audio" else _encode_text
        return dict(zip(names, encode([items[name] for name in names], model, processor), strict=True))

    # The first batch tells how large the rest will be: by its seconds, and texts are all alike.
    first = encoded(batches[0])
    measure = sizes if kind == "audio" else [1.0] * len(sizes)
    share = sum(measure[i] for i in batches[0]) / sum(measure)
    need = int(sum(tensor.nbytes for tensor in first.values()) / share)
    if not store.reserve(need):
        return _no_room(kind, need + size_of(found.values()), store)
    logger.info("frozen %s encoder: %d of %d items are new", kind, len(missing), len(missing) + len(found))

    def all_encoded() -> Iterator[dict[str, np.ndarray]]:
        with tqdm(total=len(missing), desc=f"Frozen encoder: {kind}") as bar:
            for batch in batches:
                yield first if batch is batches[0] else encoded(batch)
                bar.update(len(batch))

    return found | store.add(key, all_encoded(), need)


def _no_room(kind: str, need: float, store: FeatureStore) -> None:
    logger.warning(
        "The frozen %s encoder runs in the training loop: its outputs need about %.1f GB on disk, and "
        "cache_gigabytes=%g leaves less. Raise cache_gigabytes to run it only once.",
        kind,
        need / 1e9,
        store.limit / 1e9,
    )


@torch.no_grad()
def _encode_audio(
    sounds: Sequence[Mapping[str, Any]], model: MsfSerModel, processor: MsfSerProcessor
) -> list[np.ndarray]:
    """`(states, frames, size)` of each."""
    inputs = processor.feature_extractor([audio_source(sound) for sound in sounds], return_tensors="pt")
    states, mask = model.encode_audio(**inputs.to(model.device))
    return [item[:, :frames].cpu().numpy() for item, frames in zip(states, mask.sum(1).tolist(), strict=True)]


@torch.no_grad()
def _encode_text(texts: Sequence[str], model: MsfSerModel, processor: MsfSerProcessor) -> list[np.ndarray]:
    """`(text width,)` of each."""
    name, prefix = next(iter(TENSOR_NAMES.items()))  # all kinds of text are encoded alike
    tokens = processor.tokens(name, texts).to(model.device)
    return list(model.encode_text(tokens[f"{prefix}_input_ids"], tokens[f"{prefix}_attention_mask"]).cpu().numpy())


def _padded_states(rows: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
    """`audio_states` `(batch, states, frames, size)` and `attention_mask` `(batch, frames)`."""
    items = [None if row["audio_states"] is None else load(row["audio_states"]) for row in rows]
    known = [item for item in items if item is not None]
    if not known:
        return {}
    n_states, _, size = known[0].shape
    frames = max(item.shape[1] for item in known)
    states = torch.zeros(len(rows), n_states, frames, size)
    mask = torch.zeros(len(rows), frames, dtype=torch.long)
    for i, item in enumerate(items):
        if item is not None:
            states[i, :, : item.shape[1]] = item
            mask[i, : item.shape[1]] = 1
    return {"audio_states": states, "attention_mask": mask}


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


def _encoder_hash(encoder: PreTrainedModel) -> str:
    digest = hashlib.sha256(encoder.config.to_json_string().encode())
    for weight, tensor in encoder.state_dict().items():
        digest.update(weight.encode())
        digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy())
    return digest.hexdigest()


def _key(kind: str, model: MsfSerModel, processor: MsfSerProcessor) -> str:
    """Hash of everything but its item that a feature depends on, the code among it."""
    if kind == "audio":
        preparation = f"{model.config.audio_states} {processor.feature_extractor.to_json_string()}"
    else:
        tokenizer = processor.tokenizer
        normalizer = getattr(getattr(tokenizer, "backend_tokenizer", None), "normalizer", None)
        preparation = f"{processor.max_tokens} {normalizer!r} {sorted(tokenizer.get_vocab().items())}"
    encoder_hash = f"{_encoder_hash(getattr(model, f'{kind}_encoder'))} {model.config.fast_encoders}"
    versions = f"{torch.__version__} {transformers.__version__}"
    digest = hashlib.sha256(f"{kind} {versions} {encoder_hash} {preparation}".encode())
    for path in (*sorted(Path(__file__).parents[1].glob("*_msfser.py")), Path(__file__)):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:32]


def _seconds(audio: Mapping[str, Any] | None) -> float:
    source = audio_source(audio)
    if source is None:
        return 0.0
    try:
        with open_sound(source) as sound:
            return sound.frames / sound.samplerate
    except ValueError as error:
        raise ValueError(f"the recording {audio['path']!r} cannot be used: {error}") from error
