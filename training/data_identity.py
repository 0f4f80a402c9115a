"""Whether the data of a run are still those that it was started with.

A run keeps, for each part of its corpus, the number of rows and a hash of each column that it uses; and, for its
card, which inputs the training rows had, and how texts were made. Of a recording
the size and three samples of its bytes are hashed, so that a corpus of many hours takes seconds, and one that was
copied elsewhere is the same. A finished run also keeps a hash of its weights (`run_folder.py`).
"""

import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import datasets

from ..cli.outputs import write_text
from ..configuration_msfser import LABELS, TENSOR_NAMES
from ..corpora.schema import audio_source
from ..corpora.shards import annotation_settings

DATA_FILE = "data.json"
# Beside the parts: the model that the run started from, if it is a folder, the texts, and the scored weights.
INITIAL, TEXTS, WEIGHTS = "init_from", "training_texts", "weights"
_ROWS = "rows"
_SAMPLE = 4096  # bytes
_BATCH = 1000

Identity = Mapping[str, Mapping[str, Any]]


class HasInputs(Protocol):
    """What says which inputs a model has."""

    audio: Any
    semantics: Any


def inputs_of(switches: "HasInputs") -> list[str]:
    """The inputs of a model, among `audio`, `transcript`, `emphasis` and `description`.

    Args:
        switches: Its config or [`ModelSettings`].
    """
    texts = [name for name, prefix in TENSOR_NAMES.items() if prefix in switches.semantics]
    return [*(["audio"] if switches.audio else []), *texts]


def identity_of(parts: Mapping[str, datasets.Dataset], inputs: Sequence[str]) -> Identity:
    """The identity of the data of a run.

    Args:
        parts: Rows of the schema, by part.
        inputs: Those that the run uses, among `audio`, `transcript`, `emphasis` and `description`.

    Returns:
        For each part `rows`, their number, and a hash for each dimension and each input.

    Raises:
        OSError: A recording cannot be read.
    """
    return {
        name: {_ROWS: len(part)} | {column: _hash_of(column, part[column][:]) for column in (*LABELS, *inputs)}
        for name, part in parts.items()
    }


def identity_of_texts(train: datasets.Dataset, inputs: Sequence[str], sources: Iterable[str]) -> Identity:
    """Which inputs the rows of a training part have, and how the texts were made that the data lacked.

    Args:
        train: Rows of the schema.
        inputs: Columns that the run uses; those that are no inputs of a model are ignored.
        sources: The data, as they were given.

    Returns:
        `training_texts`, with `rows`; in `present`, for each input, the number of rows that have it; and in
        `annotations`, for each source, the settings of `msfser annotate`, `None` where it was not annotated.

    Raises:
        ValueError: The note beside annotated data cannot be read.
    """
    present = {name: 0 for name in ("audio", *TENSOR_NAMES) if name in inputs}
    for batch in train.select_columns([*present]).with_format("arrow").iter(_BATCH):
        for name in present:
            present[name] += len(batch) - batch.column(name).null_count
    annotations = [annotation_settings(source) for source in sources]
    return {TEXTS: {_ROWS: len(train), "present": present, "annotations": annotations}}


def differences(old: Identity, new: Identity) -> str:
    """What differs between the parts that both have, `part: 24 -> 23 rows; part: valence, audio`; empty if nothing.

    What is noted for the card follows from the parts, and the weights are no data.
    """
    found = []
    for name in (old.keys() & new.keys()) - {TEXTS, WEIGHTS}:
        before, now = old[name], new[name]
        if before[_ROWS] != now[_ROWS]:
            found.append(f"{name}: {before[_ROWS]} -> {now[_ROWS]} rows")
        elif changed := [column for column in now if before.get(column) != now[column]]:
            found.append(f"{name}: {', '.join(changed)}")
    return "; ".join(sorted(found))


def write_identity(folder: Path, identity: Identity) -> None:
    """Writes the identity of the data into the folder of a run."""
    write_text(folder / DATA_FILE, json.dumps(identity, indent=1) + "\n")


def read_identity(folder: Path) -> Identity:
    """The identity of the data of a run; empty if the run has none, because an older version started it.

    Raises:
        ValueError: It cannot be read.
    """
    path = folder / DATA_FILE
    if not path.is_file():
        return {}
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not what msfser train writes: train again.") from error


def check_identity(folder: Path, parts: Mapping[str, datasets.Dataset], inputs: Sequence[str]) -> None:
    """Checks that parts of a corpus are still those of a run.

    Raises:
        ValueError: They differ; the sentence says in what.
    """
    if changed := differences(read_identity(folder), identity_of(parts, inputs)):
        raise ValueError(f"the data have changed since the run in {folder} ({changed}): restore them, or train again.")


def _hash_of(column: str, values: Iterable[Any]) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for value in values:
        digest.update(_content(audio_source(value)) if column == "audio" else repr(value).encode())
        digest.update(b"\0")
    return digest.hexdigest()


def _content(recording: str | bytes | None) -> bytes:
    """The size of a recording and samples of its bytes, from the start, the middle and the end."""
    if recording is None:
        return b""
    if isinstance(recording, bytes):
        starts = _starts(len(recording))
        return b"".join([str(len(recording)).encode(), *(recording[at : at + _SAMPLE] for at in starts)])
    with open(recording, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        found = [str(size).encode()]
        for at in _starts(size):
            file.seek(at)
            found.append(file.read(_SAMPLE))
    return b"".join(found)


def _starts(size: int) -> tuple[int, ...]:
    return (0,) if size <= _SAMPLE else (0, (size - _SAMPLE) // 2, size - _SAMPLE)
