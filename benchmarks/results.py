"""Results files and the README tables that are made from them.

    python -m msfser.benchmarks.results

rewrites every block `<!-- results: NAME -->` ... `<!-- end -->` of README.md. A results file is a list of rows
`{"name", "value", "low", "high", "command"}`; `low` and `high` may be null.
"""

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

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

# The rows of the ablation, in the order of the paper's table; behind it those that the paper does not have.
ABLATION = {
    "full": "everything on",
    "audio": "sound alone",
    "gs_film": "sound, transcript; FiLM",
    "les_film": "sound, stressed words; FiLM",
    "es_film": "sound, description; FiLM",
    "attention_film": "sound, both by attention; FiLM",
    "gate_film": "sound, both by gate; FiLM",
    "gate_concat": "everything on, concatenated",
    "no_les": "without the stressed words (LES)",
    "random_window": "random words for the stressed ones",
    "no_gs": "without the transcript (GS)",
    "no_es": "without the description (ES)",
    "no_audio": "without the sound",
    "last_layer": "last layer of the speech encoder",
    "weighted_layers": "weighted layers of the speech encoder",
    "static_routing": "experts' shares are constants",
    "input_routing": "experts' shares depend on the input",
    "pooled_film": "FiLM on the pooled sound",
    "frames_film": "FiLM on each frame",
    "no_text_dropout": "without text dropout",
}


def read(path: Path) -> dict[str, dict[str, object]]:
    """The rows of a results file by name."""
    return {row["name"]: row for row in json.loads(path.read_text(encoding="utf-8"))}


def write(path: Path, rows: Sequence[dict[str, object]]) -> None:
    """Writes a results file, a row a line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("[\n" + ",\n".join(json.dumps(row) for row in rows) + "\n]\n", encoding="utf-8")


def merge(path: Path, rows: Sequence[dict[str, object]]) -> None:
    """Writes rows into a results file; rows of other names stay."""
    kept = read(path) if path.exists() else {}
    write(path, list((kept | {str(row["name"]): row for row in rows}).values()))


def bootstrap(measure: Callable[[np.ndarray], float], items: int, draws: int = 1000) -> dict[str, float]:
    """A measure over all items with its 95 % bootstrap interval.

    Args:
        measure: Takes indices of items, some of them drawn more than once.
        items: How many there are.
        draws: How often they are drawn anew.

    Returns:
        `value`, `low` and `high`.
    """
    generator = np.random.default_rng(0)
    drawn = [measure(generator.integers(items, size=items)) for _ in range(draws)]
    low, high = np.nanquantile(drawn, [0.025, 0.975]).tolist()
    return {"value": measure(np.arange(items)), "low": low, "high": high}


def spearman(x: np.ndarray, y: np.ndarray) -> float:
    """Spearman's rank correlation, NaN where one of the two is constant."""
    ranks = [_ranks(values) for values in (x, y)]
    if min(rank.std() for rank in ranks) == 0:
        return float("nan")
    return float(np.corrcoef(*ranks)[0, 1])


def _ranks(values: np.ndarray) -> np.ndarray:
    """Ranks from 1, equal values sharing their mean rank."""
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (counts.cumsum() - (counts - 1) / 2)[places]


def probe_table() -> str:
    """The ablation on the probe corpus: means over the seeds, with the lowest and highest seed."""
    rows = read(RESULTS / "probe.json")
    lines = ["| test CCC | " + " | ".join((*LABELS, "mean")) + " |", "|---|---|---|---|---|"]
    for name, words in VARIANTS.items():
        cells = [rows[f"{name}/{dimension}"] for dimension in (*LABELS, "mean")]
        lines.append(f"| {words} | " + " | ".join(map(_cell, cells)) + " |")
    return "\n".join(lines) + "\n"


def ablation_table() -> str:
    """All rows of the ablation on the probe corpus, against the full model."""
    rows = read(RESULTS / "ablation_probe.json")
    lines = ["| CCC minus that of everything on | " + " | ".join((*LABELS, "mean")) + " |", "|---|---|---|---|---|"]
    for name, words in ABLATION.items():
        if f"{name}_minus_full/mean" in rows:
            cells = [rows[f"{name}_minus_full/{dimension}"] for dimension in (*LABELS, "mean")]
            shown = [f"{c['value']:+.3f} ({c['low']:+.3f}..{c['high']:+.3f})" for c in cells]
            lines.append(f"| {words} | " + " | ".join(shown) + " |")
    return "\n".join(lines) + "\n"


def recognition_table() -> str:
    """What the offline recogniser hears: words, times, and whether there is speech."""
    rows = read(RESULTS / "recognition.json")
    shown = {
        "plain/wer": ("word error rate, read speech", 100, " %"),
        "validation/stressed_words": ("stressed words of the probe's development part heard right", 100, " %"),
        "plain/median_time_error": ("median error of word times, recognised", 1000, " ms"),
        "plain/aligned_median_time_error_attention": ("the same, text given, Whisper's attention", 1000, " ms"),
        "plain/aligned_median_time_error_sphinx": ("the same, text given, PocketSphinx", 1000, " ms"),
        "speech/false_reject": ("English speech taken for no speech", 100, " %"),
        "nonspeech/false_accept": ("sounds without speech taken for speech", 100, " %"),
        "speech/false_reject_unstated": ("English left out where no language is stated", 100, " %"),
        "foreign/false_accept_unstated": ("German taken for English where no language is stated", 100, " %"),
    }
    lines = ["| Whisper tiny.en | |", "|---|---|"]
    for name, (words, scale, unit) in shown.items():
        if name in rows:
            value, low, high = (scale * rows[name][key] for key in ("value", "low", "high"))
            lines.append(f"| {words} | {value:.3g}{unit} ({low:.3g}..{high:.3g}) |")
    return "\n".join(lines) + "\n"


def emphasis_table() -> str:
    """Whether LEMF finds the stressed words of real speech."""
    rows = read(RESULTS / "emphasis.json")
    shown = {
        "lemf": "LEMF, settings chosen on other speakers",
        "peak": "LEMF, `peak`",
        "paper": "LEMF, `paper`",
        "pitch_peak": "pitch alone, as `peak` reads it",
        "pitch": "pitch alone",
        "energy": "energy alone",
        "duration": "duration alone",
        "identity": "the same word's stress among other speakers (no sound)",
        "random": "random",
    }
    lines = ["| | top word | beyond the text |", "|---|---|---|"]
    for name, words in shown.items():
        cells = [rows.get(f"{name}/{measure}") for measure in ("top1", "remainder")]
        lines.append(f"| {words} | " + " | ".join(_cell(cell) if cell else "-" for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def annotated_table() -> str:
    """What is lost when the probe corpus has the texts that `annotate` made."""
    rows = read(RESULTS / "probe_annotated.json")
    names = {"true_times": "LEMF on true word times", "recognised": "all from sound: transcript, word times, LEMF"}
    lines = ["| test CCC, valence | | below the corpus's own texts |", "|---|---|---|"]
    for name, words in names.items():
        lost = rows[f"{name}/lost_valence"]["value"]
        lines.append(f"| {words} | {_cell(rows[f'{name}/valence'])} | {lost:.2f} |")
    return "\n".join(lines) + "\n"


def serving_table() -> str:
    """Long recordings and many users."""
    rows = {name: row["value"] for name, row in read(RESULTS / "serving.json").items()}
    course = (
        f"An hour of sound needs {rows['long/peak_memory_ratio']:.2f} times the memory of two minutes. Of the changes "
        f"of voice put into it, {100 * rows['long/changes_within_one_hop']:.0f} % stand in the course within one step "
        f"of the window (median {rows['long/median_change_error_hops']:.2f}, the worst "
        f"{rows['long/change_error_hops']:.2f}); where the sentences change too, "
        f"{100 * rows['long/varied_changes_within_one_hop']:.0f} % (the worst "
        f"{rows['long/varied_change_error_hops']:.1f})."
    )
    users = (
        f"Ten users at once on the demo page, 100 requests: {rows['space/wrong_answers']:.0f} wrong answers, memory "
        f"grew by {100 * rows['space/memory_growth']:.0f} %."
    )
    agreement = (
        "Page, pipeline, `train.py --do_predict` and plain `AutoModel` differ by at most "
        f"{rows['agreement/max_difference']:.0e} on the same clip."
    )
    return f"- {course}\n- {users}\n- {agreement}\n"


def _cell(row: dict[str, object]) -> str:
    return f"{row['value']:.2f} ({row['low']:.2f}..{row['high']:.2f})"


TABLES: dict[str, Callable[[], str]] = {
    "probe": probe_table,
    "ablation": ablation_table,
    "recognition": recognition_table,
    "emphasis": emphasis_table,
    "annotated": annotated_table,
    "serving": serving_table,
}


def rendered(text: str) -> str:
    """A README with its results blocks made anew."""
    return _BLOCK.sub(lambda match: match[1] + TABLES[match[2]]() + match[3], text)


if __name__ == "__main__":
    README.write_text(rendered(README.read_text(encoding="utf-8")), encoding="utf-8")
