"""Columns that are made for every row of a table, in shards, so that a killed run can be resumed.

[`ShardedTable`] is the engine of `annotate` and `predict`: which shards there are, what each depends on, and how each
is written whole or not at all.
"""

import abc
import contextlib
import functools
import hashlib
import json
import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
from tqdm import tqdm

from ..audio_msfser import SAMPLING_RATE, load_audio
from ..cli.interrupts import raise_if_interrupted
from ..cli.outputs import make_folder
from ..corpora.audio_folder import left_out_message
from ..corpora.messages import counted
from ..corpora.schema import audio_source
from ..corpora.shards import SHARDS_NOTE
from ..corpora.table import SourceRows
from .output_folder import (
    audio_folder_of,
    begun,
    check_output,
    check_rows,
    is_of_source,
    leftovers,
    only_run,
    remove_results,
    shard_keys,
    write_whole,
)

logger = logging.getLogger(__name__)

# Sound that is in memory at once, unless a single recording is longer.
SECONDS_PER_BATCH = 60.0


class ShardedTable(abc.ABC):
    """The rows of a table and columns made for them, in the shards `OUTPUT/data/part-00000.parquet` and so on.

    The columns are made in steps. A shard records a hash of all that each step depends on, so that another run makes
    only what is missing or depends on something else. The result does not depend on the number of processes.

    Attributes:
        command: The name of the command, on the progress bar.
        steps: Names of the steps.
        made: Type of each column that is made, `error` among them; a column of the source with this name is dropped.
        given: Columns among `made` that the steps read from the source.
        keeps_source: Whether the shards keep the columns of the source and embedded recordings; if not, they have the
            names of the recordings only.
        retries_errors: Whether the next run makes the rows with an `error` again, which may be readable by then.
        remedy: What messages advise where the folder holds the results of something else.
        rows_per_shard: What a killed run makes again at most, for each process.

    Args:
        source: The rows.
        settings: What the steps depend on besides the rows; the note beside the shards records it.
        output: The folder for `data` and the note.
        folder: Where the names in `source.left_out` start.
    """

    command: str
    steps: tuple[str, ...]
    made: Mapping[str, pa.DataType]
    given: tuple[str, ...] = ()
    keeps_source = True
    retries_errors = False
    remedy = "name another folder, or remove it"
    rows_per_shard = 64

    def __init__(self, source: SourceRows, settings: Mapping[str, Any], output: Path, folder: Path = Path()):
        self.source = source
        self.settings = settings
        self.output = output
        kept = source.table.column_names if self.keeps_source else ["audio"]
        self.table = source.table.select([name for name in kept if name not in self.made])
        self._bounds = [*self.starts(), len(self.table)]
        self.count = len(self._bounds) - 1
        own = output.resolve()
        self.left_out = {name: why for name, why in source.left_out.items() if (folder / name).resolve() != own}
        self._keys: dict[int, dict[str, str]] = {}
        self._table_keys: dict[int, str] = {}
        self._advance: Callable[[int], object] = lambda rows: None

    def starts(self) -> list[int]:
        """The number of the first row of each shard."""
        return [*range(0, len(self.table), self.rows_per_shard)]

    @abc.abstractmethod
    def step_keys(self, rows: range) -> dict[str, str]:
        """A hash for each step of all that it depends on, for the rows of one shard."""

    @abc.abstractmethod
    def make_rows(
        self, rows: range, stale: Sequence[str], stored: Sequence[Mapping[str, Any]] | None
    ) -> list[dict[str, Any]]:
        """Makes the columns `made` of one shard, by row.

        Args:
            rows: The numbers of its rows; the progress bar has to advance by all of them.
            stale: The steps to be run; none where only rows with an `error` are made again.
            stored: The columns as they are in the shard; `None` where every step is stale.
        """

    def check(self, shards: Sequence[int], surplus: Sequence[Path]) -> None:  # noqa: B027 (not every subclass checks)
        """Raises a `ValueError` for rows or results that this run cannot use, before anything is made or removed.

        Args:
            shards: Those that will be made.
            surplus: Those of rows that the source no longer has, which will be removed.
        """

    @contextlib.contextmanager
    def prepared(self, data: Path, overwrite: bool = False) -> Iterator[None]:
        """Makes the output folder, notes what will be in it, and keeps other runs out of it.

        A run that is refused leaves the folder as it was.

        Args:
            data: Where the source was read from.
            overwrite: Whether to remove what a run of another source or with other settings left.

        Raises:
            ValueError: The folder holds what this run would overwrite, another run writes there, or [`check`] refuses.
            OSError: The folder cannot be made.
        """
        check_output(self.output, self.source, data, self.remedy, overwrite)
        table = self.source.table
        ours = [name for name in self.made if name in table.column_names and name not in self.given]
        replaced = [name for name in ours if table[name].null_count < len(table)]
        if self.keeps_source and replaced:
            logger.warning(
                f"the table's columns {', '.join(replaced)} are not passed on: {self.command} writes its own."
            )
        is_new = not self.output.exists()
        make_folder(self.output)
        try:
            with only_run(self.output):
                # Another run may just have ended.
                check_output(self.output, self.source, data, self.remedy, overwrite)
                if overwrite:
                    self._remove_others()
                self._clear()
                try:
                    yield
                finally:
                    for number in range(self.count):
                        begun(self.shard(number)).unlink(missing_ok=True)
        finally:
            if is_new:
                with contextlib.suppress(OSError):  # a run that is refused leaves it empty
                    self.output.rmdir()

    def _remove_others(self) -> None:
        """Removes what runs of another source or with other settings left."""
        try:
            is_ours = is_of_source(self.output, self.source)
        except ValueError:  # the note is damaged
            is_ours = False
        if not is_ours:
            remove_results(self.output)
            return
        outdated = [self.shard(number) for number in range(self.count) if self.is_outdated(number)]
        for path in (*outdated, *leftovers(self.output, {*map(self.shard, range(self.count))})):
            path.unlink(missing_ok=True)

    def _clear(self) -> None:
        """Removes what a killed run or a shorter table left, unless the shards are those of other rows."""
        shards = [self.shard(number) for number in range(self.count)]
        left = leftovers(self.output, {*shards})
        surplus = [path for path in left if path.suffix == ".parquet"]
        present = [*filter(Path.is_file, shards), *surplus]
        stored = [self.stored_keys(number) for number in range(self.count)]
        tables = [self.table_key(number) for number in range(self.count)]
        if present and (surplus or [keys.get("table") for keys in stored] != tables):
            check_rows(present, self.source, self.remedy)
        self.check([number for number in range(self.count) if stored[number] != self.keys(number)], surplus)
        if surplus or not (self.output / SHARDS_NOTE).is_file():
            self._write_note(complete=False)
        (self.output / "data").mkdir(exist_ok=True)
        for path in left:
            path.unlink(missing_ok=True)

    def run(self, quiet: bool) -> None:
        """Makes the shards that no other process has begun; `quiet` hides the progress bar, which counts those too."""
        stale = [number for number in range(self.count) if self.stored_keys(number) != self.keys(number)]
        if not quiet and (outdated := sum(map(self.is_outdated, stale))):
            logger.info(
                f"{outdated} of {self.count} shards were made with other settings or data: they are made anew."
            )
        if stale:
            self._write_note(complete=False)
        unmade = [number for number in range(self.count) if number in stale or self._is_retried(number)]
        done = len(self.table) - sum(len(self.rows(number)) for number in unmade)
        with tqdm(total=len(self.table), initial=done, desc=self.command, unit="clip", disable=quiet) as bar:
            self._advance = bar.update
            for number in unmade:
                raise_if_interrupted()
                if self._begin(number):
                    self.make_shard(number)
                else:
                    self._advance(len(self.rows(number)))

    def _begin(self, number: int) -> bool:
        """Marks a shard as begun by this process; false if another process of this run did so before."""
        try:
            begun(self.shard(number)).touch(exist_ok=False)
        except FileExistsError:
            return False
        return True

    def check_made(self) -> None:
        """Checks that all shards are those of this run.

        Raises:
            ValueError: One is missing, or was made by something else meanwhile.
        """
        for number in range(self.count):
            if self.stored_keys(number) != self.keys(number):
                raise ValueError(f"{self.shard(number)} was changed during the run: run the same command again.")

    def finish(self) -> None:
        """Notes that all shards are there, and logs what is in them."""
        self._write_note(complete=True)
        made_here = [name for name in self.steps if name in self.made]
        shards = [self.shard(number) for number in range(self.count)]
        made = pa.concat_tables([pyarrow.parquet.read_table(shard, columns=[*made_here, "error"]) for shard in shards])
        found = ", ".join(f"{len(made) - made[name].null_count} with {name}" for name in made_here)
        logger.info(f"{len(made)} clips in {self.output}: {found}.")
        if self.left_out:
            logger.warning(left_out_message(self.left_out))
        if errors := {row: error for row, error in enumerate(made["error"].to_pylist()) if error is not None}:
            row, error = next(iter(errors.items()))
            count = counted(len(errors), "row")
            logger.warning(f"{count} cannot be used; the first is {self.source.row(row)}: {error}")

    def rows(self, number: int) -> range:
        """The numbers of a shard's rows."""
        return range(self._bounds[number], self._bounds[number + 1])

    def shard(self, number: int) -> Path:
        """The path of a shard."""
        return self.output / "data" / f"part-{number:05d}.parquet"

    def stored_keys(self, number: int) -> dict[str, str]:
        """The keys with which a shard was made; none if it is missing or not whole."""
        return shard_keys(self.shard(number)) or {}

    def is_outdated(self, number: int) -> bool:
        """Whether a shard is there that depends on something else; another process may just have made it."""
        stored = self.stored_keys(number)
        return bool(stored) and stored != self.keys(number)

    def table_key(self, number: int) -> str:
        """A key of the columns that are passed on, and of the names of embedded recordings."""
        if number not in self._table_keys:
            rows = self.rows(number)
            kept = self.table.slice(rows.start, len(rows)).to_pylist()
            names = [] if self.source.embedded is None else self._names[rows.start : rows.stop]
            self._table_keys[number] = hashed(self.table.schema.to_string(), kept, names)
        return self._table_keys[number]

    @functools.cached_property
    def _names(self) -> list[str | None]:
        return self.source.recording_names()

    def name(self, row: int) -> str:
        """What messages call a recording: its path as it is written, or the name with which it is embedded."""
        return self.table["audio"][row].as_py() or self._names[row] or f"row {row + 1}"

    def no_recording(self, row: int) -> ValueError:
        """The error of a row that cannot be used, or whose recording is missing."""
        return ValueError(self.source.errors.get(row, f"there is no file {self.name(row)!r}."))

    def keys(self, number: int) -> dict[str, str]:
        """A key for each step, and that of the table.

        They are computed once, before the recordings are decoded: the next run decodes one that changes meanwhile.
        """
        if number not in self._keys:
            self._keys[number] = {"table": self.table_key(number), **self.step_keys(self.rows(number))}
        return self._keys[number]

    def _is_retried(self, number: int) -> bool:
        """Whether a finished shard has rows that are made again."""
        if not self.retries_errors:
            return False
        errors = pyarrow.parquet.read_table(self.shard(number), columns=["error"])["error"]
        return errors.null_count < len(errors)

    def make_shard(self, number: int) -> None:
        """Makes a shard; the steps whose keys have not changed are taken from the one that is there."""
        rows, keys, stored_keys = self.rows(number), self.keys(number), self.stored_keys(number)
        stale = [step for step in self.steps if stored_keys.get(step) != keys[step]]
        stored = None
        if len(stale) < len(self.steps):
            stored = pyarrow.parquet.read_table(self.shard(number), columns=list(self.made)).to_pylist()
        if stored is None or stale or (self.retries_errors and any(_errors(stored))):
            made = self.make_rows(rows, stale, stored)
        else:
            made = stored
            self._advance(len(rows))
        if stored is not None and keys == stored_keys and _errors(made) == _errors(stored):
            return
        table = self.table.slice(rows.start, len(rows))
        if self.source.embedded is not None:
            recordings = pa.array(self._names[rows.start : rows.stop], pa.string())
            if self.keeps_source:
                recordings = self.source.embedded.select(rows).with_format("arrow")[:]["audio"]
            table = table.set_column(table.column_names.index("audio"), "audio", recordings)
        for name, kind in self.made.items():
            table = table.append_column(name, pa.array([row[name] for row in made], kind))
        table = table.replace_schema_metadata({"msfser": json.dumps(keys)})
        try:
            write_whole(self.shard(number), lambda file: pyarrow.parquet.write_table(table, file))
        except pa.ArrowNotImplementedError as error:
            raise ValueError(f"the table cannot be written as Parquet: {error}") from error

    def _write_note(self, complete: bool) -> None:
        note = {
            "source": self.source.origin,
            "audio_folder": audio_folder_of(self.source),
            "rows": len(self.table),
            "complete": complete,
            **({"left_out": self.left_out} if self.left_out else {}),
            "settings": self.settings,
        }
        path, content = self.output / SHARDS_NOTE, json.dumps(note, indent=1).encode() + b"\n"
        if not path.is_file() or path.read_bytes() != content:
            write_whole(path, lambda file: file.write(content))

    def decoded(self, rows: Sequence[int], errors: dict[int, str]) -> Iterator[dict[int, np.ndarray]]:
        """Decodes recordings in batches of at most `SECONDS_PER_BATCH`, short ones first.

        The progress bar advances by each batch once it is used.

        Args:
            rows: The numbers of the rows.
            errors: Why a recording cannot be read, by row, is added to it.

        Yields:
            Samples `(samples,)` at 16 kHz by row.
        """
        batch: dict[int, np.ndarray] = {}
        seconds = 0.0
        for row in sorted(rows, key=self._size):
            try:
                recording = recording_of(self.source, row)
                if recording == "":
                    raise self.no_recording(row)
                sound = load_audio(recording)
            except (ValueError, OSError) as error:
                errors[row] = " ".join(str(error).split())
                self._advance(1)
                continue
            length = len(sound) / SAMPLING_RATE
            if batch and seconds + length > SECONDS_PER_BATCH:
                yield batch
                self._advance(len(batch))
                batch, seconds = {}, 0.0
            batch[row] = sound
            seconds += length
        if batch:
            yield batch
            self._advance(len(batch))

    def identity(self, row: int) -> list[Any]:
        """What tells whether a recording is the same as before."""
        recording = recording_of(self.source, row)
        if isinstance(recording, bytes):
            return [hashlib.sha256(recording).hexdigest()]
        try:
            found = os.stat(recording)
        except OSError:
            return [self.source.errors.get(row, recording)]
        return [recording, found.st_size, found.st_mtime_ns]

    def _size(self, row: int) -> int:
        """Bytes of a recording; those of one format grow with its length."""
        recording = recording_of(self.source, row)
        if isinstance(recording, bytes):
            return len(recording)
        return os.path.getsize(recording) if os.path.exists(recording) else 0


def recording_of(source: SourceRows, row: int) -> bytes | str:
    """The encoded recording of a row, or its path; empty where there is no such file, or the row cannot be used.

    Of several corpora, some may embed their recordings while others name files.
    """
    if row in source.errors:
        return ""
    if source.files is not None:
        return source.files[row]
    assert source.embedded is not None
    recording = audio_source(source.embedded[row]["audio"])
    return "" if recording is None else recording


def _errors(made: Sequence[Mapping[str, Any]]) -> list[str | None]:
    return [row["error"] for row in made]


def hashed(*parts: Any) -> str:
    """A hash of values that JSON or `str` can write."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:32]
