"""Tables and paragraphs of the documentation that are made from the results files.

    python -m msfser.benchmarks.tables

rewrites every block `<!-- results: NAME -->` ... `<!-- end -->` of the project's Markdown pages. A block is data: an
entry of `BLOCKS`, in `benchmarks/blocks/`. In its texts `{KEY:FORMAT}` is the row KEY of the results file, shown by an
entry of `FORMATS` or, where there is no such entry, its value by a format of Python.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from ..evaluation.results import RESULTS, Row, read
from .blocks import BLOCKS
from .blocks.schema import Shown, Table

ROOT = Path(__file__).parents[1]

_BLOCK = re.compile(r"(<!-- results: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)
_FIELD = re.compile(r"{([\w/-]+):([^}]+)}")


def _interval(text: str, scale: float = 1.0, unit: str = "", always: bool = True) -> Callable[[Row], str]:
    """Value, unit and ends; with `always=False` no ends that are equal."""

    def shown(row: Row) -> str:
        value, low, high = (format(scale * row[key], text) for key in ("value", "low", "high"))
        return f"{value}{unit} ({low}..{high})" if always or low != high else f"{value}{unit}"

    return shown


FORMATS: dict[str, Callable[[Row], str]] = {
    "ccc": _interval(".2f"),
    "ccc3": _interval(".3f"),
    "difference": _interval("+.3f"),
    "share": lambda row: f"{100 * row['value']:.0f}%",
    "share1": lambda row: f"{100 * row['value']:.1f}%",
    "rate": _interval(".3g", 100, "%"),
    "rate1": _interval(".1f", 100, "%"),
    "ms": _interval(".3g", 1000, " ms"),
    "hours": _interval(".1f"),
    "times": _interval(".2f", unit="x", always=False),
    "settings": lambda row: str(row["settings"]),
    "fits": lambda row: str(row["fits_to_choose"]),
    "options": lambda row: f"`{row['command'].partition('speed ')[2]}`",
    "machine": lambda row: (
        f"{row['processor']}, {row['threads']} threads, torch {row['torch']}, transformers {row['transformers']}"
    ),
}


def pages() -> list[Path]:
    """The Markdown pages of the project that have blocks."""
    found = [*ROOT.glob("*.md"), *ROOT.glob("*/*.md"), *ROOT.glob("starter/*/*.md"), *ROOT.glob("docs/*/**/*.md")]
    return sorted(page for page in found if _BLOCK.search(page.read_text(encoding="utf-8")))


def render(name: str) -> str:
    """The Markdown of a block.

    Raises:
        KeyError: There is no such block.
    """
    block = BLOCKS[name]
    rows = read(RESULTS / f"{block.source}.json")
    lines: list[str] = []
    for part in block.parts:
        if isinstance(part, Table):
            lines += _table(part, rows)
        elif isinstance(part, Shown):
            lines += ["", _shown_differences(part, rows)]
        elif _is_complete([part], rows):
            lines.append(_filled(part, rows))
    return "\n".join(lines) + "\n"


def rendered(text: str) -> str:
    """A page with its blocks made from the results."""
    return _BLOCK.sub(lambda match: match[1] + render(match[2]) + match[3], text)


def _table(table: Table, rows: Mapping[str, Row]) -> list[str]:
    lines = [_line(table.head), "|" + "---|" * len(table.head)]
    for words, given in table.rows.items():
        cells = [cell.replace("*", given) for cell in table.cells] if isinstance(given, str) else given
        if any(_is_complete([cell], rows) for cell in cells if cell):
            lines.append(_line([words, *(_filled(c, rows) if _is_complete([c], rows) else "-" for c in cells)]))
    return lines if len(lines) > 2 else []


def _shown_differences(part: Shown, rows: Mapping[str, Row]) -> str:
    found = {words: rows[name] for words, name in part.rows.items() if name in rows}
    differ = {words: row for words, row in found.items() if row["low"] > 0 or row["high"] < 0}
    listed = ", ".join(f"{words} {FORMATS['difference'](row)}" for words, row in differ.items())
    return f"{part.start} {listed}." if differ else part.otherwise


def _line(cells: Sequence[str]) -> str:
    return "|" + "".join(f" {cell} |" if cell else " |" for cell in cells)


def _is_complete(texts: Sequence[str], rows: Mapping[str, Row]) -> bool:
    return all(match[1] in rows for text in texts for match in _FIELD.finditer(text))


def _filled(text: str, rows: Mapping[str, Row]) -> str:
    def shown(match: re.Match[str]) -> str:
        row, how = rows[match[1]], match[2]
        return FORMATS[how](row) if how in FORMATS else format(row["value"], how)

    return _FIELD.sub(shown, text)


def main() -> None:
    """Rewrites the blocks of all pages."""
    for page in pages():
        page.write_text(rendered(page.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
