"""Results files and the README tables that are made from them.

    python -m msfser.benchmarks.results

rewrites every block `<!-- results: NAME -->` ... `<!-- end -->` of README.md. A results file is a list of rows
`{"name", "value", "low", "high", "command"}`; `low` and `high` may be null.
"""

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path

from ..configuration_msfser import LABELS

RESULTS = Path(__file__).parent / "results"
README = Path(__file__).parents[1] / "README.md"
_BLOCK = re.compile(r"(<!-- results: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)

VARIANTS = {
    "full": "everything on",
    "no_les": "without the emphasised words (LES)",
    "no_gs": "without the transcript (GS)",
    "no_es": "without the description (ES)",
    "no_audio": "without the sound",
}


def read(path: Path) -> dict[str, dict[str, object]]:
    """The rows of a results file by name."""
    return {row["name"]: row for row in json.loads(path.read_text(encoding="utf-8"))}


def write(path: Path, rows: Sequence[dict[str, object]]) -> None:
    """Writes a results file, a row a line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("[\n" + ",\n".join(json.dumps(row) for row in rows) + "\n]\n", encoding="utf-8")


def probe_table() -> str:
    """The ablation on the probe corpus: means over the seeds, with the lowest and highest seed."""
    rows = read(RESULTS / "probe.json")
    lines = ["| test CCC | " + " | ".join((*LABELS, "mean")) + " |", "|---|---|---|---|---|"]
    for name, words in VARIANTS.items():
        cells = [rows[f"{name}/{dimension}"] for dimension in (*LABELS, "mean")]
        shown = [f"{cell['value']:.2f} ({cell['low']:.2f}..{cell['high']:.2f})" for cell in cells]
        lines.append(f"| {words} | " + " | ".join(shown) + " |")
    return "\n".join(lines) + "\n"


def recognition_table() -> str:
    """How many of the stressed words the offline recogniser hears."""
    rows = read(RESULTS / "probe_recognition.json")
    row = rows["validation/stressed_words"]
    return (
        f"Whisper tiny.en hears {100 * row['value']:.0f} % of the stressed words of the development part right "
        f"({100 * row['low']:.0f}..{100 * row['high']:.0f} %).\n"
    )


TABLES: dict[str, Callable[[], str]] = {"probe": probe_table, "recognition": recognition_table}


def rendered(text: str) -> str:
    """A README with its results blocks made anew."""
    return _BLOCK.sub(lambda match: match[1] + TABLES[match[2]]() + match[3], text)


if __name__ == "__main__":
    README.write_text(rendered(README.read_text(encoding="utf-8")), encoding="utf-8")
