"""Tables and texts as data."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ...configuration_msfser import LABELS

DIMENSIONS = (*LABELS, "mean")
CCC = tuple(f"{{*/{dimension}:ccc}}" for dimension in DIMENSIONS)


@dataclass(frozen=True)
class Table:
    """A table.

    Args:
        head: Titles of the columns.
        rows: By the words of its first cell either the other cells, or the name that replaces `*` in `cells`. A row
            whose figures are all missing is left out, and a single missing figure is "-".
        cells: The cells of the rows that are a name.
    """

    head: Sequence[str]
    rows: Mapping[str, str | Sequence[str]]
    cells: Sequence[str] = ()


@dataclass(frozen=True)
class Shown:
    """A sentence that lists the differences that are shown: their intervals do not contain 0.

    Args:
        start: Of the sentence.
        rows: By words for a difference its row; rows that are missing are left out.
        otherwise: The sentence if none is shown.
    """

    start: str
    rows: Mapping[str, str]
    otherwise: str


@dataclass(frozen=True)
class Block:
    """What one results file is shown as: tables, and texts, which are left out where a figure is missing."""

    source: str
    parts: Sequence[Table | Shown | str]
