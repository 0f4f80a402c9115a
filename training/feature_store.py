"""Tensors on disk, found by what they were computed from: outputs of frozen encoders in earlier runs.

A store is a folder. Each key (an encoder with everything it depends on) has a folder in it, with pieces: safetensors
files of some hundred tensors, named by the content of their recording or text, which are read by memory map.

- *A kill* loses at most the piece that is being written: a piece is written under another name, then renamed. A torn
  piece is shorter than its header says; it is removed, and its tensors count as missing.
- *Several runs* share a store. One at a time computes the tensors of a key; the others wait, then find them.
- *The limit* is kept by removing the pieces that were not used for the longest time. A living run holds a lock on a
  file in `runs` that is named by its start; what was used since the oldest of these starts stays.
"""

import hashlib
import logging
import os
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from filelock import FileLock, Timeout
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

logger = logging.getLogger(__name__)

_PIECE_BYTES = 64 * 2**20
_PIECE_ITEMS = 256

# The lock of this process in each store, held until the process ends.
_runs_of_process: dict[Path, FileLock] = {}


class FeatureStore:
    """A folder of pieces.

    Args:
        folder: It is made where it is not there.
        limit: Bytes that all its pieces may have.
    """

    def __init__(self, folder: Path, limit: float):
        self.folder, self.limit = folder, limit
        self._runs = folder / "runs"
        self._runs.mkdir(parents=True, exist_ok=True)
        self._lock = FileLock(folder / "store.lock")
        if folder not in _runs_of_process:
            run_lock = FileLock(self._runs / f"{time.time_ns()}-{uuid.uuid4().hex}.lock")
            with self._lock:  # else another run could take it for one that is dead, before it is locked
                run_lock.acquire()
            _runs_of_process[folder] = run_lock
        self._run = Path(_runs_of_process[folder].lock_file)

    def find(self, key: str, wanted: Iterable[str]) -> dict[str, str]:
        """Which of the wanted tensors are there: name to address, for [`load`]. Their pieces count as used now."""
        wanted = set(wanted)
        addresses: dict[str, str] = {}
        used: set[Path] = set()
        with self._lock:
            for path in sorted((self.folder / key).glob("*.safetensors")):
                try:
                    with safe_open(path, "pt") as piece:
                        names = wanted.intersection(piece.keys())
                except SafetensorError:
                    logger.warning("%s is torn and is computed again", path)
                    path.unlink()
                    continue
                addresses |= {name: _address(path, name) for name in names}
                if names:
                    used.add(path)
            for path in used:
                _use(path)
        return addresses

    @contextmanager
    def making(self, key: str) -> Iterator[None]:
        """While one process makes tensors of a key, others that want to wait."""
        folder = self.folder / key
        folder.mkdir(exist_ok=True)
        lock = FileLock(folder / "making.lock")
        try:
            lock.acquire(blocking=False)
        except Timeout:
            logger.info("another run is making these features: waiting for it")
            lock.acquire()
        try:
            # Only the holder of the lock writes, so that these are of processes that were killed.
            for unfinished in folder.glob("*.tmp"):
                unfinished.unlink()
            yield
        finally:
            lock.release()

    def reserve(self, size: int) -> bool:
        """Makes room for so many more bytes, where what living runs use allows it.

        Returns:
            Whether there is room. Where there is not, nothing was removed.
        """
        with self._lock:
            since, reserved = self._living()
            sizes = {path: path.stat() for path in self.folder.rglob("*.safetensors")}
            excess = sum(stat.st_size for stat in sizes.values()) + reserved + size - self.limit
            idle = sorted((s.st_mtime_ns, path, s.st_size) for path, s in sizes.items() if s.st_mtime_ns < since)
            if sum(size for _, _, size in idle) < excess:
                return False
            for _, path, freed in idle:
                if excess <= 0:
                    break
                with suppress(PermissionError):  # Windows keeps what is mapped
                    path.unlink()
                    excess -= freed
            self._note_reserved(size)
            return True

    def add(self, key: str, batches: Iterable[Mapping[str, np.ndarray]], reserved: int) -> dict[str, str]:
        """Writes batches of tensors in pieces as they come; a piece ends with a batch.

        Args:
            key: Their folder; its `making` is held.
            batches: Name to tensor.
            reserved: The bytes that were reserved for all of them.

        Returns:
            Name to address.

        Raises:
            OSError: A piece cannot be written.
        """
        addresses: dict[str, str] = {}
        piece: dict[str, np.ndarray] = {}
        for batch in batches:
            piece |= batch
            size = sum(tensor.nbytes for tensor in piece.values())
            if len(piece) >= _PIECE_ITEMS or size >= _PIECE_BYTES:
                addresses |= self._write(key, piece)
                reserved = max(0, reserved - size)
                self._note_reserved(reserved)
                piece = {}
        if piece:
            addresses |= self._write(key, piece)
        self._note_reserved(0)
        return addresses

    def hashes_of_files(self, paths: Iterable[str]) -> dict[str, str]:
        """Path to content hash. A file of the same path, size and time of change is not read again."""
        memo_file = self.folder / "recordings.parquet"
        memo, fresh = _read_memo(memo_file), {}
        hashes = {}
        for path in dict.fromkeys(paths):
            stat = os.stat(path)
            known = memo.get(path)
            if known is None or known[:2] != (stat.st_size, stat.st_mtime_ns):
                with open(path, "rb") as file:
                    known = (stat.st_size, stat.st_mtime_ns, content_hash(file.read()))
                fresh[path] = known
            hashes[path] = known[2]
        if fresh:
            with self._lock:
                _write_memo(memo_file, _read_memo(memo_file) | fresh)
        return hashes

    def _write(self, key: str, piece: Mapping[str, np.ndarray]) -> dict[str, str]:
        path = self.folder / key / f"{uuid.uuid4().hex}.safetensors"
        unfinished = path.with_suffix(".tmp")
        try:
            # Of a view it would write the memory as it is.
            save_file({name: np.ascontiguousarray(tensor) for name, tensor in piece.items()}, unfinished)
            _sync(unfinished)
        except (OSError, SafetensorError) as error:
            unfinished.unlink(missing_ok=True)
            raise OSError(
                f"{self.folder} cannot be written ({error}): make room there, or lower cache_gigabytes."
            ) from error
        _use(unfinished)
        os.replace(unfinished, path)
        return {name: _address(path, name) for name in piece}

    def _living(self) -> tuple[int, int]:
        """The start of the oldest living run (nanoseconds), and the bytes that the other ones have reserved."""
        starts, reserved = [_start(self._run)], 0
        for run in self._runs.glob("*.lock"):
            if run == self._run:
                continue
            lock, note = FileLock(run), run.with_suffix(".reserved")
            try:
                lock.acquire(blocking=False)
            except Timeout:
                starts.append(_start(run))
                with suppress(FileNotFoundError, ValueError):  # not written yet
                    reserved += int(note.read_text())
            else:
                lock.release()
                run.unlink(missing_ok=True)
                note.unlink(missing_ok=True)
        return min(starts), reserved

    def _note_reserved(self, size: int) -> None:
        self._run.with_suffix(".reserved").write_text(str(size))


def load(address: str) -> torch.Tensor:
    """The tensor at an address, as a view of the memory-mapped piece: it must not be written to.

    Raises:
        FileNotFoundError: The piece was removed while a run used it.
    """
    path, _, name = address.rpartition("#")
    try:
        return _piece(path).get_tensor(name)
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"{path} was removed while this run used it: run the same command again, and it is computed again."
        ) from error


def size_of(addresses: Iterable[str]) -> int:
    """Bytes of the pieces in which the addresses are."""
    return sum(os.path.getsize(path) for path in {address.rpartition("#")[0] for address in addresses})


def fingerprint(*parts: object) -> str:
    """SHA-256 of some values: files, bytes, arrays and tensors by content, others by their `repr`."""
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, Path):
            part = part.read_bytes()
        elif isinstance(part, torch.Tensor):
            part = part.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
        elif isinstance(part, np.ndarray):
            part = np.ascontiguousarray(part).tobytes()
        elif not isinstance(part, bytes):
            part = repr(part).encode()
        digest.update(hashlib.sha256(part).digest())
    return digest.hexdigest()


def content_hash(content: bytes) -> str:
    """A short name for a content."""
    return hashlib.sha256(content).hexdigest()[:32]


@cache
def _piece(path: str) -> safe_open:
    return safe_open(path, "pt")


def _address(path: Path, name: str) -> str:
    return f"{path}#{name}"


def _start(run: Path) -> int:
    return int(run.name.partition("-")[0])


def _use(path: Path) -> None:
    # By the clock that names the runs, which the file system's may lag behind.
    now = time.time_ns()
    os.utime(path, ns=(now, now))


def _sync(path: Path) -> None:
    with open(path, "rb+") as file:
        os.fsync(file.fileno())


def _read_memo(path: Path) -> dict[str, tuple[int, int, str]]:
    try:
        table = pq.read_table(path).to_pydict()
    except (FileNotFoundError, pa.ArrowInvalid):
        return {}
    return {name: (size, changed, digest) for name, size, changed, digest in zip(*table.values(), strict=True)}


def _write_memo(path: Path, memo: Mapping[str, tuple[int, int, str]]) -> None:
    columns = zip(*((name, *known) for name, known in memo.items()), strict=True)
    table = pa.table(dict(zip(("path", "size", "changed", "hash"), map(list, columns), strict=True)))
    unfinished = path.with_name(f"{uuid.uuid4().hex}.tmp")
    pq.write_table(table, unfinished)
    os.replace(unfinished, path)
