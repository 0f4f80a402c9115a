"""The paper's figures on MSP-Podcast, and what was stated beforehand about ours."""

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
# A row agrees with the paper if its mean over three seeds is this close. The order of rows is no criterion: they
# differ by .001 to .02.
BAND = 0.01


def beside_paper(rows: Sequence[Row]) -> str:
    """The mean CCC of an ablation beside the paper's, one row on a line; "" without a row of the paper.

    Args:
        rows: Of `msfser ablate`, among them `ROW/mean`.
    """
    found = {name: row["value"] for name in PAPER for row in rows if row["name"] == f"{name}/mean"}
    if not found:
        return ""
    lines = [f"Mean CCC of the development part beside the paper's, with the band of {BAND:g} stated beforehand:"]
    for name, value in found.items():
        agrees = "within" if abs(value - PAPER[name]) <= BAND else "outside"
        lines.append(f"  {name:15} {value:.3f}  paper {PAPER[name]:.3f}  {agrees} the band")
    return "\n".join(lines)
