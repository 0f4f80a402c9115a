"""The paper's figures on MSP-Podcast, and what was stated beforehand about ours."""

import re
from collections.abc import Sequence

from .results import Row

# Mean CCC of the rows of `msfser ablate` on the development part of MSP-Podcast 1.12, one run each (arXiv 2510.05749).
PAPER: dict[str, float] = {
    "audio": 0.659,
    "gs_film": 0.672,
    "les_film": 0.671,
    "es_film": 0.670,
    "attention_film": 0.674,
    "gate_film": 0.681,
    "gate_concat": 0.681,
    "full": 0.692,
}
# A row agrees with the paper if its mean over these seeds is this close. The order of rows is no criterion: they
# differ by .001 to .02.
BAND, SEEDS = 0.01, (0, 1, 2)


def beside_paper(rows: Sequence[Row]) -> str:
    """The mean CCC of an ablation beside the paper's, one row on a line; "" without a row of the paper.

    Without the seeds that were stated no verdict is given, and the first line says so.

    Args:
        rows: Of `msfser ablate`, among them `ROW/mean` and `ROW/seedN/mean`.
    """
    found = {name: row["value"] for name in PAPER for row in rows if row["name"] == f"{name}/mean"}
    if not found:
        return ""
    names = (re.fullmatch(r"full/seed(\d+)/mean", row["name"]) for row in rows)
    seeds = sorted(int(name[1]) for name in names if name)
    is_stated = seeds == [*SEEDS]
    stated = f"the band of {BAND:g} was stated beforehand for the mean over seeds {_listed(SEEDS)}"
    end = f": {stated}" if is_stated else f", without a verdict: {stated}, and this is over {_listed(seeds)}"
    lines = [f"Mean CCC of the development part beside the paper's{end}."]
    for name, value in found.items():
        verdict = "  within the band" if abs(value - PAPER[name]) <= BAND else "  outside the band"
        lines.append(f"  {name:15} {value:.3f}  paper {PAPER[name]:.3f}{verdict if is_stated else ''}")
    return "\n".join(lines)


def _listed(seeds: Sequence[int]) -> str:
    return ", ".join(map(str, seeds))
