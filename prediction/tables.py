"""The table of predictions, as CSV, JSON lines or Parquet."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, BinaryIO

import pandas as pd

from ..configuration_msfser import LABELS
from ..processing_msfser import to_scale

COLUMNS = (
    *("file", "duration", "speech_seconds", *LABELS),
    *("transcript", "emphasis", "description", "warnings", "error"),
)


def rows_of_result(
    file: str,
    result: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None,
    error: str | None,
    label_range: tuple[float, float] = (0.0, 1.0),
    course: bool = False,
) -> Iterator[dict[str, Any]]:
    """The rows of one recording: one, or one for each channel, or with `course` one for each window.

    Args:
        file: Its path as it was given.
        result: Of the pipeline; a list with one result for each channel; `None` where there is an error.
        error: Why there is no result.
        label_range: The scale of the three numbers.
        course: Whether each window is a row, with its `start` and `end` in seconds.
    """
    if result is None:
        yield {**dict.fromkeys(COLUMNS), "file": file, "error": error}
        return
    for of_channel in [result] if isinstance(result, Mapping) else result:
        whole = {name: of_channel.get(name) for name in COLUMNS} | {"file": file}
        if "channel" in of_channel:
            whole["channel"] = of_channel["channel"]
        windows: Sequence[Mapping[str, Any]] = [{}]
        if course:
            windows = of_channel.get("course") or [{"start": 0.0, "end": of_channel["duration"]}]
        for window in windows:
            row = {**whole, **window}
            yield row | {name: to_scale(row[name], *label_range) for name in LABELS}


def write_table(rows: Sequence[Mapping[str, Any]], suffix: str, file: BinaryIO) -> None:
    """Writes rows; in CSV, warnings are one text with semicolons."""
    extra = [name for name in ("channel", "start", "end") if any(name in row for row in rows)]
    names = ["file", *extra, *COLUMNS[1:]]
    if suffix == ".jsonl":
        for row in rows:
            of_row = {name: row.get(name) for name in names}
            file.write(json.dumps(of_row, ensure_ascii=False).encode() + b"\n")
        return
    table = pd.DataFrame([{name: row.get(name) for name in names} for row in rows], columns=names)
    if "channel" in table:
        table["channel"] = table["channel"].astype("Int64")
    if suffix == ".parquet":
        texts = ("file", "transcript", "emphasis", "description", "error")
        table = table.astype(
            dict.fromkeys(texts, "string") | dict.fromkeys(("duration", "speech_seconds", *LABELS), "float64")
        )
        table.to_parquet(file, index=False)
        return
    table["warnings"] = ["; ".join(warnings or ()) for warnings in table["warnings"]]
    table.round(6).to_csv(file, index=False)
