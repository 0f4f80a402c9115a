"""Predictions for every row of a table, in shards, so that a killed run can be resumed."""

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from ..corpora.table import SourceRows
from ..corpora.text_languages import LANGUAGE, stated_language
from ..inputs_msfser import FailedInput
from ..sharding.output_folder import remove_results
from ..sharding.sharded_table import ShardedTable, hashed, recording_of
from .timed_pipeline import TimedPipeline

_TEXTS = ("transcript", "emphasis", "description", "words", LANGUAGE)


class ShardedPrediction(ShardedTable):
    """The pipeline's result for each row, as JSON, or why there is none.

    Args:
        source: The rows; texts that they have are given to the pipeline. Names in `left_out` start at the working
            folder.
        settings: What the results depend on besides the rows: the model and the options of the pipeline.
        pipeline: With the model.
        options: Of the pipeline.
        output: The folder of the shards.
    """

    command = "predict"
    steps = ("result",)
    made = {"result": pa.string(), "error": pa.string()}  # noqa: RUF012
    keeps_source = False
    remedy = "run the same command as before, or start over with --overwrite"
    # Many rows in a shard share batches better; small last shards let several processes end at about the same time. A
    # shard has at most this share of the rows that are left, but not fewer rows than the fewest.
    rows_per_shard, fewest_rows_per_shard, share_of_rest = 64, 8, 1 / 3
    # Of recordings, unless a single one is larger: an hour of MP3, or 17 minutes of WAV at 16 kHz.
    bytes_per_shard = 32_000_000
    # Raised when the same settings give other results.
    version = 8

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

    @contextlib.contextmanager
    def prepared(self, data: Path, overwrite: bool = False) -> Iterator[None]:
        """See [`ShardedTable.prepared`]; at the end, a folder without results is removed."""
        try:
            with super().prepared(data, overwrite):
                try:
                    yield
                finally:
                    if not any(self.output.glob("data/*.parquet")):
                        remove_results(self.output)
        finally:
            with contextlib.suppress(OSError):  # it is not empty: another run's, or something else is in it
                self.output.rmdir()

    def starts(self) -> list[int]:
        """See [`ShardedTable.starts`]; long recordings, and the last ones, are in shards of fewer rows."""
        found: list[int] = []
        size = most = 0
        for row in range(len(self.table)):
            own = self._size(row)
            if not found or row - found[-1] == most or size + own > self.bytes_per_shard:
                found.append(row)
                size = 0
                of_rest = int((len(self.table) - row) * self.share_of_rest)
                most = min(max(of_rest, self.fewest_rows_per_shard), self.rows_per_shard)
            size += own
        return found

    def step_keys(self, rows: range) -> dict[str, str]:
        """See [`ShardedTable.step_keys`]."""
        given = self._given.slice(rows.start, len(rows)).to_pydict()
        return {"result": hashed(self.version, self.settings, [self.identity(row) for row in rows], given)}

    def check(self, shards: Sequence[int], surplus: Sequence[Path]) -> None:
        """Keeps what is predicted.

        Raises:
            ValueError: Some shards were made with other settings, or for other recordings.
        """
        if surplus or any(map(self.is_outdated, shards)):
            raise ValueError(
                f"{self.output} holds what an interrupted run predicted for other recordings, with other options, or "
                f"by another version of msfser: {self.remedy}."
            )

    def make_rows(
        self, rows: range, stale: Sequence[str], stored: Sequence[Mapping[str, Any]] | None
    ) -> list[dict[str, Any]]:
        """See [`ShardedTable.make_rows`]."""
        # Recordings of similar length share batches.
        order = sorted(rows, key=self._size)
        made: dict[int, dict[str, Any]] = {}
        with self.pipeline.stopwatch.measure("other"):
            results = self.pipeline((self._item(row) for row in order), errors="return", **self.options)
            for row, result in zip(order, results, strict=True):
                for failed in [result] if isinstance(result, dict) else result:
                    if "error" in failed:
                        failed["error"] = self._shown(failed["error"], row)
                is_error = isinstance(result, dict) and "error" in result
                error = result["error"] if is_error else None
                made[row] = {"result": None if is_error else json.dumps(result), "error": error}
                self._advance(1)
        return [made[row] for row in rows]

    def _shown(self, error: str, row: int) -> str:
        """An error on one line, with the path of its recording as it was given."""
        error = " ".join(error.split())
        recording = recording_of(self.source, row)
        return error.replace(recording, self.name(row)) if isinstance(recording, str) and recording else error

    def make_shard(self, number: int) -> None:
        """See [`ShardedTable.make_shard`]."""
        with self.pipeline.stopwatch.measure("write"):
            super().make_shard(number)

    def _item(self, row: int) -> dict[str, Any] | FailedInput:
        """A row as the pipeline reads it."""
        (texts,) = self._given.slice(row, 1).to_pylist()
        if (recording := recording_of(self.source, row)) == "":
            return FailedInput(self.no_recording(row))
        if LANGUAGE in texts:
            texts[LANGUAGE] = stated_language(texts[LANGUAGE])
        return {"audio": recording, **{name: text for name, text in texts.items() if text}}
