"""Results files: JSON lists of rows `{"name", "value", "low", "high", "command"}`, one row a line.

`low` and `high` are the ends of an interval, or null. Rows may have more keys, such as the machine of a timing.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..cli.outputs import write_text
from ..configuration_msfser import LABELS

if TYPE_CHECKING:
    from .intervals import Interval

RESULTS = Path(__file__).parents[1] / "benchmarks" / "results"

Row = dict[str, Any]


def row(name: str, value: float, low: float | None = None, high: float | None = None) -> Row:
    """A row without its command; ends that are NaN are null."""
    low, high = (None if end is None or np.isnan(end) else float(end) for end in (low, high))
    return {"name": name, "value": float(value), "low": low, "high": high}


def rows_of(names: Iterable[str], found: "Interval") -> list[Row]:
    """A row for each name from an interval whose parts are arrays; none where the value is NaN."""
    return [row(name, *ends) for name, *ends in zip(names, *found, strict=True) if not np.isnan(ends[0])]


def read(path: Path) -> dict[str, Row]:
    """The rows of a results file by name."""
    return {row["name"]: row for row in json.loads(path.read_text(encoding="utf-8"))}


def write(path: Path, rows: Sequence[Row]) -> None:
    """Writes a results file."""
    write_text(path, "[\n" + ",\n".join(json.dumps(row) for row in rows) + "\n]\n")


def merge(path: Path, rows: Sequence[Row]) -> None:
    """Writes rows into a results file; rows with other names are kept."""
    kept = read(path) if path.exists() else {}
    write(path, list((kept | {row["name"]: row for row in rows}).values()))


def with_ends(row: Row) -> str:
    """The value of a row for the terminal, and the interval if there is one."""
    ends = "" if row["low"] is None else f" ({row['low']:.3f}..{row['high']:.3f})"
    return f"{row['value']:.3f}{ends}"


def as_text(rows: Sequence[Row]) -> str:
    """The rows for the terminal, one a line."""
    return "\n".join(f"{row['name']:48s} {with_ends(row)}" for row in rows)


def as_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The test-set rows of a run as text, a line for each set of inputs, and what the intervals resample."""
    lines = [f"{'inputs':20}" + "".join(f"{name:>22}" for name in (*LABELS, "mean"))]
    cells: dict[str, dict[str, str]] = {}
    for row in rows:
        group, dimension = row["name"].removeprefix("test/").rsplit("/", 1)
        cells.setdefault(group, {})[dimension] = f"{row['value']:.3f} ({row['low']:.3f}..{row['high']:.3f})"
    for group, of_group in cells.items():
        lines.append(f"{group:20}" + "".join(f"{of_group.get(name, '-'):>22}" for name in (*LABELS, "mean")))
    lines.append(f"intervals over {resampled(rows)}")
    return "\n".join(lines)


def resampled(rows: Sequence[Mapping[str, Any]]) -> str:
    """What the intervals of a run's rows resample, such as "24 speakers"; runs of older versions do not say it."""
    return " or ".join(dict.fromkeys(row.get("resampled", "utterances") for row in rows))
