"""Recordings that are in more than one part, under one name or several: a model would be tested on what it learned."""

import hashlib
import logging
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import datasets
import numpy as np
import pandas as pd
import pyarrow.compute as pc

from .messages import counted_are

logger = logging.getLogger(__name__)

# Of recordings of equal size, so many bytes from the middle and the end are compared before the whole.
_SAMPLE = 4096
_THREADS = 16


def check_duplicate_files(
    name: str, files: Sequence[str], real: Sequence[str], splits: np.ndarray, official: bool, kind: str = "split"
) -> None:
    """Refuse files that are in more than one split; where sizes agree, by their content.

    Args:
        name: Of the source.
        files: The path of each row.
        real: Its real path, which rows with the same file share.
        splits: The split of each row.
        official: The parts are those of the corpus's owners: equal content under several names is only a warning.
        kind: What messages call a split, where it is another part of the data.

    Raises:
        ValueError: A recording is in more than one split; the sentence names the rows.
    """
    paths = np.asarray(real, dtype=object)
    refuse_shared(name, pd.factorize(paths)[0], list(files), splits, kind)
    with ThreadPoolExecutor(_THREADS) as pool:  # on a network disk, each look-up is waiting
        sizes = np.array(list(pool.map(os.path.getsize, paths)))
        keys = _keys_by_looks(sizes, splits, lambda i: _sample_of_file(paths[i]), lambda i: _hash_file(paths[i]), pool)
    refuse_shared(name, keys, list(files), splits, kind, warn_only=official)


def check_duplicate_contents(
    name: str, recordings: datasets.Dataset, splits: np.ndarray, official: bool, kind: str = "split"
) -> None:
    """Refuse recordings of a column `audio`, embedded or files, by their content: see [`check_duplicate_files`]."""
    keys, shown = content_keys(recordings, splits)
    refuse_shared(name, keys, shown, splits, kind, warn_only=official)


def content_keys(recordings: datasets.Dataset, splits: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """Compare recordings of a column `audio`, embedded or files, by their content.

    Args:
        recordings: The rows.
        splits: The split of each.

    Returns:
        A number for each recording, which those in other splits have if and only if they are equal; and what messages
        call each recording.
    """
    audio = recordings.with_format("arrow")[:]["audio"]
    content = pc.struct_field(audio, "bytes")
    has_names = audio.type.get_field_index("path") >= 0
    names: list[Any] = pc.struct_field(audio, "path").to_pylist() if has_names else [None] * len(audio)
    embedded = content.is_valid().to_numpy()

    def sample(index: int) -> bytes:
        if not embedded[index]:
            return _sample_of_file(names[index])
        buffer = content[index].as_buffer()
        middle, end = max(0, buffer.size // 2 - _SAMPLE), max(0, buffer.size - _SAMPLE)
        return buffer.slice(middle, min(_SAMPLE, buffer.size)).to_pybytes() + buffer.slice(end).to_pybytes()

    def digest(index: int) -> bytes:
        return hashlib.sha256(content[index].as_buffer()).digest() if embedded[index] else _hash_file(names[index])

    sizes = pc.fill_null(pc.binary_length(content), 0).to_numpy().astype(np.int64)
    with ThreadPoolExecutor(_THREADS) as pool:
        files = np.flatnonzero(~embedded)
        sizes[files] = list(pool.map(lambda i: os.path.getsize(names[i]), files))
        keys = _keys_by_looks(sizes, splits, sample, digest, pool)
    shown = [
        (f"recording {i}" + (f", {path}" if path else "")) if inside else path
        for i, (path, inside) in enumerate(zip(names, embedded, strict=True), start=1)
    ]
    return keys, shown


def _keys_by_looks(
    sizes: np.ndarray,
    splits: np.ndarray,
    sample: Callable[[int], bytes],
    digest: Callable[[int], bytes],
    pool: ThreadPoolExecutor,
) -> np.ndarray:
    """Return a number for each recording that only equal ones share; most are told apart without being read."""
    keys = np.unique(sizes, return_inverse=True)[1]
    for look in (sample, digest):
        shared = _in_several_splits(keys, splits)
        rows = np.flatnonzero(shared)
        found = list(pool.map(lambda i: (keys[i], look(int(i))), rows))  # noqa: B023 - used within the loop
        keys = np.arange(len(sizes)) + len(sizes)
        keys[rows] = pd.factorize(pd.Series(found, dtype=object))[0]
    return keys


def _in_several_splits(keys: np.ndarray, splits: np.ndarray) -> np.ndarray:
    """Whether the key of each row occurs in more than one split."""
    return (pd.Series(splits).groupby(keys).transform("nunique") > 1).to_numpy()


def refuse_shared(
    name: str, keys: np.ndarray, shown: Sequence[str], splits: np.ndarray, kind: str = "split", warn_only: bool = False
) -> None:
    """Refuse recordings in more than one split.

    Args:
        name: Of the source.
        keys: As in [`content_keys`], like `shown`.
        shown: What messages call each recording.
        splits: The split of each.
        kind: As in [`check_duplicate_files`].
        warn_only: Only warn.

    Raises:
        ValueError: There are such recordings; the sentence names them.
    """
    rows = np.flatnonzero(_in_several_splits(keys, splits))
    if not len(rows):
        return
    # Of the first such recording, the first row of each split.
    firsts = {splits[i]: shown[i] for i in reversed(rows[keys[rows] == keys[rows[0]]])}
    copies = ", ".join(f"{firsts[split]!r} ({split})" for split in dict.fromkeys(splits[rows]) if split in firsts)
    found = counted_are(len(np.unique(keys[rows])), "recording")
    message = f"{name}: {found} in more than one {kind}, such as {copies}"
    if not warn_only:
        grouped = ", or name units that belong together in --group_file" if kind == "unit" else ""
        raise ValueError(f"{message}; keep each recording in one {kind}{grouped}.")
    logger.warning("%s: the parts are those of the corpus's owners and stay as they are", message)


def _sample_of_file(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            file.seek(max(0, size // 2 - _SAMPLE))
            middle = file.read(_SAMPLE)
            file.seek(max(0, size - _SAMPLE))
            return middle + file.read(_SAMPLE)
    except OSError:  # training or annotation says why it cannot be read
        return os.fsencode(path)


def _hash_file(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").digest()
    except OSError:
        return os.fsencode(path)
