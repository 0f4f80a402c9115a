"""Predictions for every row of a table, in shards, so that a killed run can be resumed."""

import json
import queue
import threading
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pyarrow as pa

from ..audio_msfser import SAMPLING_RATE, load_audio
from ..corpora.table import SourceRows
from ..pipeline_msfser import MsfSerPipeline
from ..sharding.sharded_table import ShardedTable, hashed, recording_of

# Recordings that are decoded ahead of the model.
_AHEAD = 16
_TEXTS = ("transcript", "emphasis", "description", "words", "language")


class Stopwatch:
    """Seconds spent in the parts of a run, by their names; parts in other threads overlap with the rest."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)

    @contextmanager
    def measure(self, part: str) -> Iterator[None]:
        """Adds the time of what runs inside."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[part] += time.perf_counter() - start


class TimedPipeline(MsfSerPipeline):
    """The pipeline, with the seconds of its parts in `stopwatch`."""

    stopwatch: Stopwatch

    def __init__(self, *args: Any, **kwargs: Any):
        self.stopwatch = Stopwatch()
        super().__init__(*args, **kwargs)

    def _transcribe_segments(self, *args: Any) -> Any:
        with self.stopwatch.measure("recognizer"):
            return super()._transcribe_segments(*args)

    def _score(self, *args: Any) -> Any:
        with self.stopwatch.measure("model and its texts"):
            return super()._score(*args)


class ShardedPrediction(ShardedTable):
    """The pipeline's result for each row, as JSON, or why there is none.

    Args:
        source: The rows; texts that they have are given to the pipeline.
        settings: What the results depend on besides the rows: the model and the options of the pipeline.
        pipeline: With the model.
        options: Of the pipeline.
        output: The folder of the shards.
    """

    command = "predict"
    steps = ("result",)
    made = {"result": pa.string(), "error": pa.string()}  # noqa: RUF012
    rows_per_shard = 16
    # Raised when the same settings give other results.
    version = 1

    def __init__(
        self,
        source: SourceRows,
        settings: Mapping[str, Any],
        pipeline: TimedPipeline,
        options: Mapping[str, Any],
        output: Path,
    ):
        super().__init__(source, settings, output)
        self.pipeline = pipeline
        self.options = options
        names = [name for name in _TEXTS if name in source.table.column_names]
        self._given = source.table.select(names)

    def step_keys(self, rows: range) -> dict[str, str]:
        """See [`ShardedTable.step_keys`]."""
        given = self._given.slice(rows.start, len(rows)).to_pydict()
        return {"result": hashed(self.version, self.settings, [self.identity(row) for row in rows], given)}

    def check(self, shards: Sequence[int]) -> None:
        """Keeps what is predicted.

        Raises:
            ValueError: Some shards were made with other settings, or for other recordings.
        """
        if any(self.stored_keys(number) for number in shards):
            raise ValueError(
                f"{self.output} holds what an interrupted run predicted for other recordings or with other options: "
                "run the same command as before, or start over with --overwrite."
            )

    def make_rows(
        self, rows: range, stale: Sequence[str], stored: Sequence[Mapping[str, Any]] | None
    ) -> list[dict[str, Any]]:
        """See [`ShardedTable.make_rows`]."""
        # Recordings of similar length share batches.
        order = sorted(rows, key=self._size)
        results = self.pipeline(ahead(self._decoded(row) for row in order), errors="return", **self.options)
        made: dict[int, dict[str, Any]] = {}
        for row, result in zip(order, results, strict=True):
            is_error = isinstance(result, dict) and set(result) == {"error"}
            error = " ".join(result["error"].split()) if is_error else None
            if error and self.source.files is not None and self.source.files[row]:
                error = error.replace(self.source.files[row], str(self.table["audio"][row].as_py()))
            made[row] = {"result": None if is_error else json.dumps(result), "error": error}
            self._advance(1)
        return [made[row] for row in rows]

    def _decoded(self, row: int) -> dict[str, Any]:
        """A row as the pipeline reads it: decoded if it needs one window, else to be read by blocks."""
        (texts,) = self._given.slice(row, 1).to_pylist()
        given = {name: text for name, text in texts.items() if text}
        # Where there is no such file, the pipeline's error says so.
        source: Any = recording_of(self.source, row) or str(self.table["audio"][row].as_py())
        longest = self.pipeline.processor.feature_extractor.max_seconds
        if self.options.get("channel") is None:
            with suppress(ValueError, OSError), self.pipeline.stopwatch.measure("reading"):
                sound = load_audio(source, max_seconds=longest + 0.1)
                if len(sound) <= longest * SAMPLING_RATE:
                    source = {"array": sound, "sampling_rate": SAMPLING_RATE}
        return {"audio": source, **given}


def ahead(items: Iterable[Any], count: int = _AHEAD) -> Iterator[Any]:
    """The same items, of which a thread makes some before they are asked for."""
    made: queue.Queue[Any] = queue.Queue(count)
    is_left = threading.Event()

    def put(entry: tuple[str, Any]) -> bool:
        while not is_left.is_set():
            with suppress(queue.Full):
                made.put(entry, timeout=0.1)
                return True
        return False

    def make() -> None:
        try:
            for item in items:
                if not put(("item", item)):
                    return
            put(("end", None))
        except BaseException as error:
            put(("error", error))

    threading.Thread(target=make, daemon=True).start()
    try:
        while True:
            kind, value = made.get()
            if kind == "end":
                return
            if kind == "error":
                raise value
            yield value
    finally:
        is_left.set()
