"""The folder that a sharded command writes to: whose it is, and that only one run at a time writes there."""

import contextlib
import json
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.compute
import pyarrow.parquet
from filelock import FileLock, Timeout

from ..cli.outputs import UNFINISHED, whole_file
from ..configuration_msfser import LABELS
from ..corpora.shards import SHARDS_NOTE, read_note
from ..corpora.table import SourceRows

_SHARD = re.compile(r"part-\d{5,}\.parquet")
_BEGUN = ".begun"
_UNFINISHED = re.compile(
    rf"\.(part-\d{{5,}}\.parquet({_BEGUN}|\.\d+{re.escape(UNFINISHED)})"
    rf"|{re.escape(SHARDS_NOTE)}\.\d+{re.escape(UNFINISHED)})"
)


def shard_keys(shard: Path) -> dict[str, str] | None:
    """The keys with which a shard was made.

    Returns:
        None if it is not there or not whole, and an empty dictionary if something else wrote it.
    """
    try:
        metadata = pyarrow.parquet.read_schema(shard).metadata or {}
    except (OSError, ValueError):
        return None if not shard.is_file() or _is_damaged(shard) else {}
    try:
        keys = json.loads(metadata[b"msfser"])
    except (ValueError, KeyError):
        return {}
    return keys if isinstance(keys, dict) else {}


def _is_damaged(shard: Path) -> bool:
    """Whether a file that cannot be read was once Parquet, or is empty."""
    with shard.open("rb") as file:
        return file.read(4) in (b"", b"PAR1")


def begun(shard: Path) -> Path:
    """The mark of a shard that one of the processes of a run has begun; the next run removes it."""
    return shard.parent.parent / f".{shard.name}{_BEGUN}"


def check_output(output: Path, source: SourceRows, data: Path, remedy: str, overwrite: bool = False) -> None:
    """Refuses a folder in which a run would overwrite what it did not make.

    Args:
        output: The folder, which may be missing.
        source: What is to be written there.
        data: Where the source was read from.
        remedy: What the message says of the results of another source, such as "name another folder".
        overwrite: Whether the results of another source may be replaced.

    Raises:
        ValueError: The folder holds the input, other files, shards of something else, or those of another source.
    """
    resolved = output.resolve()
    if data.exists() and resolved in (data.resolve(), *data.resolve().parents):
        raise ValueError(f"the output {str(output)!r} contains the input: name another folder.")
    if not resolved.is_dir():
        return
    if not (output / SHARDS_NOTE).is_file():
        # A killed run may have left an unfinished note and nothing else.
        if not all(path.name.startswith((SHARDS_NOTE, f".{SHARDS_NOTE}")) for path in resolved.iterdir()):
            raise ValueError(f"the output {str(output)!r} contains other files: name an empty or a new folder.")
        return
    if not overwrite and not is_of_source(output, source):
        raise _of_another_source(output, remedy)
    for shard in sorted((output / "data").glob("part-*.parquet")):
        if not _SHARD.fullmatch(shard.name) or shard_keys(shard) == {}:
            raise ValueError(
                f"{str(shard)!r} was not written by this command and would be replaced: move it, or name another "
                "folder."
            )


def is_of_source(output: Path, source: SourceRows) -> bool:
    """Whether the note in a folder says that its results are those of a source."""
    note = read_note(output)
    noted, given = note.get("audio_folder"), audio_folder_of(source)
    is_same_folder = noted == given or bool(noted and given and os.path.realpath(noted) == os.path.realpath(given))
    return note.get("source") == source.origin and is_same_folder


def _of_another_source(output: Path, remedy: str) -> ValueError:
    note = read_note(output)
    made_of = " with the recordings in ".join(
        repr(note[name]) for name in ("source", "audio_folder") if note.get(name)
    )
    return ValueError(
        f"the output {str(output)!r} contains the results of another source{made_of and f', {made_of}'}: {remedy}."
    )


def check_rows(shards: list[Path], source: SourceRows, remedy: str) -> None:
    """Refuses shards whose recordings or labels are no longer in the source, although it was read from the same path.

    Args:
        shards: All that are there.
        source: The rows.
        remedy: As in [`check_output`].

    Raises:
        ValueError: None of the recordings is in the source, or a column of labels is not.
    """
    whole = [shard for shard in shards if shard_keys(shard)]
    if not whole:
        return
    names = pyarrow.parquet.read_schema(whole[0]).names
    kept = [name for name in ("audio", *LABELS) if name in names]
    before = pa.concat_tables(
        [_without_bytes(pyarrow.parquet.ParquetFile(shard).read(_columns(shard, kept))) for shard in whole],
        promote_options="permissive",
    )
    now = source.table
    folder = whole[0].parent.parent
    for name in kept[1:]:
        had = before[name].null_count < len(before)
        if had and (name not in now.column_names or now[name].null_count == len(now)):
            raise ValueError(
                f"the output {str(folder)!r} contains labels of {name}, which {source.origin} no longer has: {remedy}."
            )
    old = set(before["audio"].to_pylist()) - {None}
    new = set(source.recording_names()) - {None}
    if old and new and not old & new:
        raise ValueError(
            f"the output {str(folder)!r} contains the results of other recordings, such as {min(old)!r}, which "
            f"{source.origin} no longer has: {remedy}."
        )


def _columns(shard: Path, names: list[str]) -> list[str]:
    """Columns to be read: of embedded recordings only their names."""
    schema = pyarrow.parquet.read_schema(shard)
    present = [name for name in names if name in schema.names]
    return [
        "audio.path" if name == "audio" and pa.types.is_struct(schema.field(name).type) else name for name in present
    ]


def _without_bytes(table: pa.Table) -> pa.Table:
    if not pa.types.is_struct(table["audio"].type):
        return table
    paths = pa.compute.struct_field(table["audio"], "path")
    return table.set_column(table.column_names.index("audio"), "audio", paths)


def leftovers(output: Path, known: set[Path]) -> list[Path]:
    """Shards of rows that the source no longer has, and files that a killed run did not finish."""
    data = output / "data"
    inside = list(data.iterdir()) if data.is_dir() else []
    unfinished = [path for path in (*output.iterdir(), *inside) if _UNFINISHED.fullmatch(path.name)]
    return [*unfinished, *(path for path in inside if _SHARD.fullmatch(path.name) and path not in known)]


def remove_results(output: Path) -> None:
    """Removes what runs wrote into a folder, and nothing else; the lock stays with the run that holds it."""
    for path in leftovers(output, set()):
        path.unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # something else is in it, or it is not there
        (output / "data").rmdir()
    (output / SHARDS_NOTE).unlink(missing_ok=True)


def audio_folder_of(source: SourceRows) -> str | None:
    """The folder of the recordings as it is noted; `None` where they are embedded."""
    return None if source.files is None else str(source.audio_folder)


@contextlib.contextmanager
def only_run(output: Path) -> Iterator[None]:
    """Keeps other runs out of an existing folder; the lock of a killed run is released with it.

    Raises:
        ValueError: Another run writes there.
    """
    lock = FileLock(output / f"{SHARDS_NOTE}.lock", blocking=False)
    try:
        lock.acquire()
    except Timeout as error:
        raise ValueError(
            f"another run is writing to {str(output)!r}: wait for its end, or name another folder."
        ) from error
    try:
        yield
    finally:
        with contextlib.suppress(OSError):  # Windows removes no open file
            os.unlink(lock.lock_file)
        lock.release()


def write_whole(path: Path, write: Callable[[BinaryIO], Any]) -> None:
    """Writes a file whole or not at all.

    Raises:
        OSError: It cannot be written; the sentence says how to go on.
    """
    try:
        with whole_file(path) as unfinished, open(unfinished, "wb") as file:
            write(file)
    except OSError as error:
        raise OSError(
            f"{path} cannot be written ({error.strerror or error}): once it can, run the same command again; finished "
            "shards are kept."
        ) from error
