"""The table of predictions, as CSV, JSON lines or Parquet."""

import itertools
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, BinaryIO

import pandas as pd
import pyarrow as pa
import pyarrow.parquet

from ..configuration_msfser import LABELS
from ..corpora.label_ranges import LabelRange, ranges_of
from ..intervals_msfser import percentiles_of
from ..processing_msfser import to_scale

# The ends of the intervals by dimension.
ENDS = {name: (f"{name}_low", f"{name}_high") for name in LABELS}
_PERCENTILES = {name: f"{name}_percentile" for name in LABELS}
COLUMNS = (
    *("file", "duration", "speech_seconds", *LABELS, *(end for ends in ENDS.values() for end in ends)),
    *(*_PERCENTILES.values(), "percentiles_of", "transcript", "emphasis", "description", "warnings", "error"),
)
# Further columns where a recording may have several rows.
_OF_SEVERAL = ("channel", "start", "end")
# Rows of a table that are in memory at once.
_ROWS_AT_ONCE = 10_000
_TEXTS = ("file", "percentiles_of", "transcript", "emphasis", "description", "error")
_NUMBERS = ("start", "end", "duration", "speech_seconds", *LABELS, *(end for ends in ENDS.values() for end in ends))
_WHOLE_NUMBERS = ("channel", *_PERCENTILES.values())


def rows_of_result(
    file: str,
    result: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None,
    error: str | None,
    label_range: LabelRange = (0.0, 1.0),
    course: bool = False,
    max_width: float | None = None,
    unrated: Sequence[str] = (),
    scale: Mapping[str, Any] | None = None,
) -> Iterator[dict[str, Any]]:
    """The rows of one recording: one, or one for each channel, or with `course` one for each window.

    Args:
        file: Its path as it was given.
        result: Of the pipeline; a list with one result, or error, for each channel; `None` where there is an error.
        error: Why there is no result.
        label_range: The scale of the three numbers, or that of each; one without a range is in 0..1.
        course: Whether each window is a row, with its `start` and `end` in seconds, its seconds of speech, and its
            warnings after those of the recording.
        max_width: The three numbers are left out, with the reason among the warnings, where an interval is wider than
            this on their scale, or where there is none.
        unrated: Dimensions without labels in training, whose intervals are as wide as the scale and do not count.
        scale: `config.scale` of the model, by which numbers of speech have a percentile among the predictions of the
            model's corpus; `None` where it has none.
    """
    if result is None:
        yield {**dict.fromkeys(COLUMNS), "file": file, "error": error}
        return
    scales = dict.fromkeys(LABELS, (0.0, 1.0)) | ranges_of(label_range)
    for of_channel in [result] if isinstance(result, Mapping) else result:
        whole = {name: of_channel.get(name) for name in COLUMNS} | {"file": file}
        if "channel" in of_channel:
            whole["channel"] = of_channel["channel"]
        if whole["error"] is not None:
            yield whole
            continue
        windows: Sequence[Mapping[str, Any]] = [{}]
        if course:
            windows = of_channel.get("course") or [{"start": 0.0, "end": of_channel["duration"]}]
        for window in windows:
            row = {**whole, **{name: value for name, value in window.items() if name in (*COLUMNS, "start", "end")}}
            row["warnings"] = [*dict.fromkeys([*(whole["warnings"] or ()), *window.get("warnings", ())])]
            intervals = window.get("intervals", of_channel.get("intervals"))
            has_speech = window.get("has_speech", of_channel.get("has_speech"))
            row |= _percentiles(row, scale if has_speech else None)
            row |= {name: to_scale(row[name], *scales[name]) for name in LABELS}
            if intervals is not None:
                for name, ends in ENDS.items():
                    row |= zip(ends, (to_scale(end, *scales[name]) for end in intervals[name]), strict=True)
            reason = None if max_width is None else _too_wide(row, max_width, unrated)
            if reason is not None:
                left_out = dict.fromkeys((*LABELS, *_PERCENTILES.values(), "percentiles_of"))
                row |= left_out | {"warnings": [*row["warnings"], reason]}
            yield row


def _percentiles(numbers: Mapping[str, Any], scale: Mapping[str, Any] | None) -> dict[str, Any]:
    """The columns of the percentiles of three numbers in 0..1."""
    found = percentiles_of({name: numbers[name] for name in LABELS}, scale) or {}
    columns: dict[str, Any] = {column: found.get(name, {}).get("predictions") for name, column in _PERCENTILES.items()}
    return columns | {"percentiles_of": None if scale is None else scale["of"]}


def _too_wide(row: Mapping[str, Any], max_width: float, unrated: Sequence[str]) -> str | None:
    """Why the numbers of a row are left out; `None` if they are not."""
    if row[ENDS[LABELS[0]][0]] is None:
        return "The numbers are left out: they have no interval."
    widths = {name: row[high] - row[low] for name, (low, high) in ENDS.items() if name not in unrated}
    widest = max(widths, key=lambda name: widths[name])
    if widths[widest] <= max_width:
        return None
    return f"The numbers are left out: the interval of {widest} is {widths[widest]:.3g} wide."


def write_table(rows: Iterable[Mapping[str, Any]], suffix: str, file: BinaryIO) -> None:
    """Writes rows, some at a time; in CSV, warnings are one text with semicolons."""
    left, start = iter(rows), list[Mapping[str, Any]]()
    for row in left:
        start.append(row)
        if row["error"] is None:  # it has all columns
            break
    names = ["file", *(name for name in _OF_SEVERAL if any(name in row for row in start)), *COLUMNS[1:]]
    rows = itertools.chain(start, left)
    if suffix == ".jsonl":
        for row in rows:
            of_row = {name: row.get(name) for name in names}
            file.write(json.dumps(of_row, ensure_ascii=False).encode() + b"\n")
        return
    tables = _tables(iter(rows), names)
    if suffix == ".parquet":
        _write_parquet(tables, file)
        return
    for number, table in enumerate(tables):
        table["warnings"] = ["; ".join(warnings or ()) for warnings in table["warnings"]]
        table.round(6).to_csv(file, index=False, header=number == 0)


def _tables(rows: Iterator[Mapping[str, Any]], names: Sequence[str]) -> Iterator[pd.DataFrame]:
    """Tables of at most `_ROWS_AT_ONCE` rows, whose columns have the same types in all of them."""
    types = (
        dict.fromkeys(_NUMBERS, "float64") | dict.fromkeys(_TEXTS, "string") | dict.fromkeys(_WHOLE_NUMBERS, "Int64")
    )
    while batch := [*itertools.islice(rows, _ROWS_AT_ONCE)]:
        table = pd.DataFrame([{name: row.get(name) for name in names} for row in batch], columns=[*names])
        yield table.astype({name: kind for name, kind in types.items() if name in names})


def _write_parquet(tables: Iterator[pd.DataFrame], file: BinaryIO) -> None:
    first = next(tables)
    schema = pa.Schema.from_pandas(first, preserve_index=False)
    # None of the first rows may have a warning.
    schema = schema.set(schema.get_field_index("warnings"), pa.field("warnings", pa.list_(pa.string())))
    with pyarrow.parquet.ParquetWriter(file, schema) as writer:
        for table in itertools.chain([first], tables):
            writer.write_table(pa.Table.from_pandas(table, schema, preserve_index=False))
