"""Results files: JSON lists of rows `{"name", "value", "low", "high", "command"}`, one row a line.

`low` and `high` are the ends of an interval, or null; the value of a CCC that is not defined is null, too. Rows may
have more keys, such as the machine of a timing.
"""

import json
import os
import textwrap
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..cli.outputs import write_text
from ..configuration_msfser import LABELS

if TYPE_CHECKING:
    from .intervals import Interval

RESULTS = Path(__file__).parents[1] / "benchmarks" / "results"

# The start of the names of rows about a cross-validation, and about one of its folds.
CROSS_VALIDATED, FOLD = "cross_validation/", "fold/"
# The start of the names of rows about the intervals around the numbers.
INTERVALS = "intervals/"

Row = dict[str, Any]

# Options whose value is a path, also of what is no longer there.
_PATHS = ("--data", "--output", "--output_dir", "--results")


def row(name: str, value: float, low: float | None = None, high: float | None = None) -> Row:
    """A row without its command; what is NaN is null."""
    numbers = {"value": value, "low": low, "high": high}
    return {"name": name} | {
        key: None if number is None or np.isnan(number) else float(number) for key, number in numbers.items()
    }


def rows_of(names: Iterable[str], found: "Interval") -> list[Row]:
    """A row for each name from an interval whose parts are arrays; none where the value is NaN."""
    return [row(name, *ends) for name, *ends in zip(names, *found, strict=True) if not np.isnan(ends[0])]


def ccc_rows(
    name: str, predicted: np.ndarray, given: np.ndarray, units: int | Sequence[np.ndarray], resampled: str
) -> list[Row]:
    """Rows `NAME/DIMENSION` and `NAME/mean`: CCC with its 95 % interval, none of a dimension that is not rated.

    Args:
        name: Their common start.
        predicted: `(utterances, 3)`.
        given: The labels, `(utterances, 3)`.
        units: What the interval resamples, as in [`resampled_units`].
        resampled: What it is called.
    """
    from ..training.labels import rated_labels
    from .intervals import ccc_interval

    is_rated = ~np.isnan(rated_labels(given)).all(0)
    return [
        row(f"{name}/{dimension}", *ends) | {"resampled": resampled}
        for dimension, *ends in zip((*LABELS, "mean"), *ccc_interval(predicted, given, units), strict=True)
        if dimension == "mean" or is_rated[LABELS.index(dimension)]
    ]


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


def with_ends(row: Row, digits: int = 3) -> str:
    """The value of a row for a reader, "-" if it is not defined, and the interval if there is one."""
    if row["value"] is None:
        return "-"
    ends = "" if row["low"] is None else f" ({row['low']:.{digits}f}..{row['high']:.{digits}f})"
    return f"{row['value']:.{digits}f}{ends}"


def as_text(rows: Sequence[Row]) -> str:
    """The rows for the terminal, one a line."""
    return "\n".join(f"{row['name']:48s} {with_ends(row)}" for row in rows)


def scored(rows: Sequence[Row]) -> list[Row]:
    """The rows of a run with the scores `PART/INPUTS/DIMENSION` of a whole part, or of all folds."""
    return [row for row in rows if not row["name"].startswith((FOLD, INTERVALS))]


def of_test(rows: Sequence[Row]) -> list[Row]:
    """The scores of the test part, or of all folds, without those of further test parts and of each corpus."""
    return [row for row in scored(rows) if row["name"].startswith(("test/", CROSS_VALIDATED))]


def as_table(rows: Sequence[Row]) -> str:
    """The results of a run as text: a line for each set of inputs, what the intervals resample, and any folds."""
    lines = [f"{'inputs':20}" + "".join(f"{name:>24}" for name in (*LABELS, "mean"))]
    cells: dict[str, dict[str, str]] = {}
    for row in scored(rows):
        part, inputs, dimension = row["name"].split("/")
        group = inputs if part in ("test", CROSS_VALIDATED.rstrip("/")) else f"{part}/{inputs}"
        cells.setdefault(group, {})[dimension] = with_ends(row)
    for group, of_group in cells.items():
        lines.append(f"{group:20}" + "".join(f"{of_group.get(name, '-'):>24}" for name in (*LABELS, "mean")))
    has_ends = any(row["low"] is not None for row in scored(rows))
    lines.append(f"intervals over {resampled(rows)}" if has_ends else "no intervals: too few utterances or speakers")
    lines += _interval_lines(rows)
    folds = [row for row in rows if row["name"].startswith(FOLD)]
    if folds:
        means = ", ".join(f"{row['name'].split('/', 1)[1].rsplit('/', 1)[0]} {with_ends(row)}" for row in folds)
        lines += textwrap.wrap(f"mean CCC within each fold: {means}", 108)
    return "\n".join(lines)


def _interval_lines(rows: Sequence[Row]) -> list[str]:
    """What the rows say of the intervals around the numbers, a line for each part."""
    found = {row["name"].removeprefix(INTERVALS): row for row in rows if row["name"].startswith(INTERVALS)}
    lines = []
    for part in dict.fromkeys(name.rsplit("/", 2)[0] for name in found):
        shown = [
            f"{label} {with_ends(share)}, width {found[f'{part}/{label}/width']['value']:.3f}"
            for label in LABELS
            if (share := found.get(f"{part}/{label}/coverage")) is not None
        ]
        lines.append(f"90 % intervals contain the label ({part}): {'; '.join(shown)}")
    return lines


def resampled(rows: Sequence[Row]) -> str:
    """What the intervals of a run's rows resample, such as "24 speakers"; runs of older versions do not say it."""
    return " or ".join(dict.fromkeys(row.get("resampled", "utterances") for row in scored(rows)))


def without_paths(argv: Sequence[str]) -> list[str]:
    """The arguments of a command without the paths of one machine: FOLDER replaces data, outputs, and other paths.

    A single word is kept, as a folder may have the name of a choice, and the name of a model on the Hub.
    """
    shown, option = [], ""
    for word in argv:
        start, value = "", word
        if word.startswith("--"):
            option, joint, value = word.partition("=")
            start = option + joint
        is_path = bool(value) and (option in _PATHS or (bool(os.path.dirname(value)) and os.path.exists(value)))
        shown.append(f"{start}FOLDER" if is_path else word)
    return shown
