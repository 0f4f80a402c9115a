"""Outputs of frozen encoders, computed once and kept on disk: a corpus with features in place of sound and texts.

The features are in the folder `msfser_features` of the cache of `datasets`, in pieces that are read by memory map
([`FeatureStore`]). Their key is the encoder (its weights and config, the settings that prepare sound and texts,
versions) and the content of each recording and text, wherever its file is: of a corpus that has grown only the new
items are encoded, and of a run with other fusion settings none. With all states of Whisper tiny.en they take about
0.2 MB for each second of sound; the least recently used ones are removed to keep within a limit.
"""

import inspect
import json
import logging
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import datasets
import numpy as np
import torch
import transformers
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..audio_msfser import SAMPLING_RATE, load_audio, open_sound
from ..configuration_msfser import TENSOR_NAMES
from ..corpora.schema import audio_source
from ..gradients_msfser import is_trained
from ..modeling_msfser import MsfSerModel
from ..processing_msfser import MsfSerProcessor
from .augmentation import Distortion, nothing
from .data_identity import inputs_of
from .feature_jobs import Job, features_of, open_store
from .feature_store import FeatureStore, content_hash, fingerprint, load

logger = logging.getLogger(__name__)

# Raise this when code changes that decodes, prepares, distorts or encodes sound or texts: all features are then
# computed again. Changes of other code keep them.
FEATURES_VERSION = 3

# How many items an encoder is given at a time.
_MOST = {"audio": 32, "text": 64}

# The speed of speech: about 150 words a minute.
_CHARACTERS_PER_SECOND = 15.0

# The columns of each input: the input itself, or the addresses of its features.
COLUMNS = {
    "audio": ("audio", "audio_states"),
    "transcript": ("transcript", "gs_embedding"),
    "emphasis": ("emphasis", "les_embedding"),
    "description": ("description", "es_embedding"),
}


def add_lengths(dataset: datasets.Dataset) -> datasets.Dataset:
    """Adds `length` in seconds, for batches of similar length.

    It is the duration in the file's header; of a row without sound, the time that saying its longest text needs.
    """
    texts: list[list[str | None]] = [dataset[name][:] for name in TENSOR_NAMES if name in dataset.column_names]
    lengths = []
    for row, audio in enumerate(dataset["audio"]):
        spoken = max((len(column[row] or "") for column in texts), default=0) / _CHARACTERS_PER_SECOND
        lengths.append(spoken if audio is None else _seconds(audio))
    return dataset.add_column("length", lengths)


def keep_inputs(dataset: datasets.Dataset, inputs: Sequence[str]) -> datasets.Dataset:
    """The corpus with only some of its inputs, as themselves or as features.

    Args:
        dataset: Rows of the schema, with or without cached features.
        inputs: Among `audio`, `transcript`, `emphasis` and `description`.
    """
    removed = [column for name, columns in COLUMNS.items() if name not in inputs for column in columns]
    return dataset.remove_columns([column for column in removed if column in dataset.column_names])


def known_inputs(dataset: datasets.Dataset) -> list[str]:
    """The inputs that at least one row has, in the order sound, transcript, emphasis, description."""
    return [name for name in COLUMNS if has_input(keep_inputs(dataset, [name])).any()]


def known_texts(dataset: datasets.Dataset) -> list[str]:
    """The texts that at least one row has; the sound is not looked at."""
    return known_inputs(keep_inputs(dataset, [*TENSOR_NAMES]))


def warn_of_absent_texts(name: str, part: datasets.Dataset, semantics: Sequence[str]) -> None:
    """Warns where a model reads a text that no training row has."""
    known = known_texts(part)
    absent = [text for text, tensor in TENSOR_NAMES.items() if tensor in semantics and text not in known]
    if len(absent) == len(semantics):
        logger.warning(
            "%s: the training rows have no texts: the model is trained on the sound alone, and reads the sound alone "
            "afterwards; msfser annotate adds the texts that it can read",
            name,
        )
        return
    for text in absent:
        logger.warning(
            "%s: no training row has the text %r, which the model can read: msfser annotate adds it", name, text
        )


def has_input(dataset: datasets.Dataset) -> np.ndarray:
    """Which rows have at least one input, `(rows,)` bool."""
    columns = [column for of_input in COLUMNS.values() for column in of_input]
    there = np.zeros(len(dataset), dtype=bool)
    for column in set(columns).intersection(dataset.column_names):
        there |= np.array([value is not None for value in dataset[column]], dtype=bool)
    return there


def check_inputs(part: datasets.Dataset, name: str) -> None:
    """Checks that each row has at least one input.

    Raises:
        ValueError: A row has none; the sentence names it.
    """
    if len(missing := np.flatnonzero(~has_input(part))):
        raise ValueError(f"{name}: row {missing[0] + 1} has none of the model's inputs ({len(missing)} such).")


def encode_parts(
    parts: datasets.DatasetDict, model: MsfSerModel, processor: MsfSerProcessor, gigabytes: float
) -> datasets.DatasetDict:
    """The parts with the seconds of each row as `length`, and with cached features ([`cache_features`])."""
    # Together: what does not fit the cache is left out of it for all of them.
    rows = datasets.concatenate_datasets([add_lengths(part) for part in parts.values()])
    rows = cache_features(rows, model, processor, gigabytes)
    ends = np.cumsum([len(part) for part in parts.values()])
    return datasets.DatasetDict(
        {name: rows.select(range(end - len(part), end)) for (name, part), end in zip(parts.items(), ends, strict=True)}
    )


def cache_features(
    dataset: datasets.Dataset, model: MsfSerModel, processor: MsfSerProcessor, gigabytes: float = 50.0
) -> datasets.Dataset:
    """Runs the frozen encoders of a model over a corpus, except for items that are in the cache.

    Args:
        dataset: Rows of the schema, all that are used together.
        model: Its frozen encoders are run; a trained one is left to the training loop.
        processor: Prepares sound and texts, as in training and use.
        gigabytes: Disk space (1e9 bytes) for all features of all runs. An encoder whose outputs do not fit is left to
            the training loop too, with a warning; with 0 all encoders are.

    Returns:
        The rows with the inputs that the model has; `audio_states`, and `les_embedding`, `gs_embedding` and
        `es_embedding`, replace the sound and the texts whose frozen encoder was run, as addresses that
        [`FeatureCollator`] reads.

    Raises:
        OSError: The features cannot be written.
    """
    config = model.config
    inputs = inputs_of(config)
    dataset = keep_inputs(dataset, inputs)
    texts = [name for name in inputs if name != "audio"]
    # Texts first: they need little.
    frozen = {"text": texts} if texts and not is_trained(model.text_encoder) else {}
    if config.audio and not is_trained(model.audio_encoder):
        frozen["audio"] = ["audio"]
    if not frozen or not gigabytes:
        return dataset
    store = open_store(gigabytes)
    model.eval()
    for kind, columns in frozen.items():
        key = encoder_key(kind, model, processor)
        items = _Items(kind, dataset, columns, store, processor)
        encode = _encode_audio if kind == "audio" else _encode_text
        addresses = features_of(
            Job(
                key=key if kind == "text" else _half(key),
                kind=kind,
                sizes={digest: items.size(digest) for digest in items},
                most=_MOST[kind],
                encode=lambda names, items=items, encode=encode: encode(  # type: ignore[misc]
                    [items[name] for name in names], model, processor
                ),
            ),
            store,
        )
        if addresses is None:
            continue
        for column, hashes in items.hashes.items():
            found = [None if name is None else addresses[name] for name in hashes]
            dataset = dataset.remove_columns([column]).add_column(
                COLUMNS[column][1], found, feature=datasets.Value("string")
            )
    return dataset


def encode_sounds(
    name: str,
    sounds: Sequence[str | np.ndarray],
    model: MsfSerModel,
    processor: MsfSerProcessor,
    distortion: Distortion = nothing,
    gigabytes: float = 50.0,
) -> list[torch.Tensor]:
    """Runs a frozen speech encoder over sounds, one by one, except for those that are in the cache.

    Args:
        name: Seeds the random draws of the distortion, together with the content of each sound.
        sounds: Paths of recordings, or samples at 16 kHz.
        model: Its speech encoder is run.
        processor: Prepares the sound.
        distortion: Applied to each sound first.
        gigabytes: As in [`cache_features`].

    Returns:
        The states of each sound, `(states, frames, size)` in half precision, as views of memory-mapped files.

    Raises:
        OSError: The features do not fit the cache or cannot be written.
    """
    store = open_store(gigabytes)
    of_files = store.hashes_of_files(sound for sound in sounds if isinstance(sound, str))
    hashes = [of_files[sound] if isinstance(sound, str) else content_hash(sound.tobytes()) for sound in sounds]
    sound_of = dict(zip(hashes, sounds, strict=True))

    def encode(items: Sequence[str]) -> list[np.ndarray]:
        (digest,) = items
        sound = sound_of[digest]
        samples = load_audio(sound) if isinstance(sound, str) else sound
        samples = distortion(samples, np.random.default_rng([*bytes.fromhex(digest), *name.encode()]))
        with torch.inference_mode():
            inputs = processor.feature_extractor(samples, SAMPLING_RATE, return_tensors="pt", warn_if_cut=False)
            return [_in_half(model.encode_audio(**inputs.to(model.device))[0][0])]

    model.eval()
    key = fingerprint(encoder_key("audio", model, processor), name, inspect.getsource(distortion))[:32]
    # One clip at a time leaves cores idle.
    job = Job(key, "audio", dict.fromkeys(sound_of, 1.0), most=1, encode=encode, threads=os.cpu_count() or 1)
    addresses = features_of(job, store)
    if addresses is None:
        raise OSError(f"The features of {len(sounds)} sounds need more than {gigabytes:g} GB: raise cache_gigabytes.")
    return [load(addresses[digest]) for digest in hashes]


def encode_texts(
    texts: Sequence[str | None], model: MsfSerModel, processor: MsfSerProcessor, gigabytes: float = 50.0
) -> torch.Tensor:
    """Runs a frozen text encoder over texts, except for those that are in the cache.

    Args:
        texts: `None` or empty is an absent text.
        model: Its text encoder is run.
        processor: Prepares the texts.
        gigabytes: As in [`cache_features`].

    Returns:
        `(texts, text width)`, NaN where there is none.

    Raises:
        OSError: The features do not fit the cache or cannot be written.
    """
    known = {content_hash(text.encode()): text for text in texts if text}
    job = Job(
        key=encoder_key("text", model.eval(), processor),
        kind="text",
        sizes={digest: float(len(text)) for digest, text in known.items()},
        most=_MOST["text"],
        encode=lambda digests: _encode_text([known[digest] for digest in digests], model, processor),
    )
    addresses = features_of(job, open_store(gigabytes)) if known else {}
    if addresses is None:
        raise OSError(f"The features of {len(known)} texts need more than {gigabytes:g} GB: raise cache_gigabytes.")
    vectors = torch.full((len(texts), model.text_encoder.config.hidden_size), float("nan"))
    for row, text in enumerate(texts):
        if text:
            vectors[row] = load(addresses[content_hash(text.encode())])
    return vectors


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
        self._rows = {
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
        return len(self._rows)

    def __iter__(self) -> Iterator[str]:
        return iter(self._rows)

    def __getitem__(self, digest: str) -> Any:
        """The row's recording, or its text."""
        name, row = self._rows[digest]
        return self._columns[name][row][name]

    def size(self, digest: str) -> float:
        """Seconds of a recording, or characters of a text."""
        return self._seconds[self._rows[digest][1]] if self.kind == "audio" else len(self[digest])

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


@torch.no_grad()
def _encode_audio(
    sounds: Sequence[Mapping[str, Any]], model: MsfSerModel, processor: MsfSerProcessor
) -> list[np.ndarray]:
    """`(states, frames, size)` of each."""
    inputs = processor.feature_extractor(
        [audio_source(sound) for sound in sounds], return_tensors="pt", warn_if_cut=False
    )
    states, mask = model.encode_audio(**inputs.to(model.device))
    return [_in_half(item[:, :frames]) for item, frames in zip(states, mask.sum(1).tolist(), strict=True)]


def _in_half(states: torch.Tensor) -> np.ndarray:
    """The states in half precision, which some encoders' largest values exceed."""
    most = torch.finfo(torch.half).max
    return states.clamp(-most, most).half().cpu().numpy()


def _half(key: str) -> str:
    return fingerprint(key, "half precision")[:32]


@torch.no_grad()
def _encode_text(texts: Sequence[str], model: MsfSerModel, processor: MsfSerProcessor) -> list[np.ndarray]:
    """`(text width,)` of each."""
    name, prefix = next(iter(TENSOR_NAMES.items()))  # all kinds of text are encoded alike
    tokens = processor.tokens(name, texts).to(model.device)
    return list(model.encode_text(tokens[f"{prefix}_input_ids"], tokens[f"{prefix}_attention_mask"]).cpu().numpy())


def encoder_key(kind: str, model: MsfSerModel, processor: MsfSerProcessor) -> str:
    """Hash of everything but its item that a feature depends on; of the code, [`FEATURES_VERSION`]."""
    encoder: PreTrainedModel = getattr(model, f"{kind}_encoder")
    if kind == "audio":
        preparation = (model.config.audio_states, processor.feature_extractor.to_json_string())
    else:
        preparation = (processor.max_tokens, _tokenizer_settings(processor.tokenizer))
    return fingerprint(
        *(FEATURES_VERSION, torch.__version__, transformers.__version__, kind, *preparation),
        *(model.config.fast_encoders, encoder.config.to_json_string()),
        *(part for name, weight in encoder.state_dict().items() for part in (name, weight)),
    )[:32]


def _tokenizer_settings(tokenizer: PreTrainedTokenizerBase) -> str:
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return repr(sorted(tokenizer.get_vocab().items()))
    settings = json.loads(backend.to_str())
    # These are of the last call.
    return json.dumps({name: value for name, value in settings.items() if name not in ("padding", "truncation")})


def _seconds(audio: Mapping[str, Any] | None) -> float:
    source = audio_source(audio)
    if audio is None or source is None:
        return 0.0
    try:
        with open_sound(source) as sound:
            return sound.frames / sound.samplerate
    except ValueError as error:
        raise ValueError(f"the recording {audio['path']!r} cannot be used: {error}") from error
