"""Results files and the README tables that are made from them.

    python -m msfser.evaluation.results

rewrites every block `<!-- results: NAME -->` ... `<!-- end -->` of README.md and of the starter's card. A results
file is a list of rows `{"name", "value", "low", "high", "command"}`; `low` and `high` may be null.
"""

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from ..configuration_msfser import LABELS

RESULTS = Path(__file__).parents[1] / "benchmarks" / "results"
README = Path(__file__).parents[1] / "README.md"
# What holds blocks of results.
PAGES = (README, README.parent / "starter" / "README.md")
_BLOCK = re.compile(r"(<!-- results: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)

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
    """The rows of the ablation on the probe corpus that the corpus was designed for."""
    rows = read(RESULTS / "ablation_probe.json")
    lines = ["| test CCC | " + " | ".join((*LABELS, "mean")) + " |", "|---|---|---|---|---|"]
    for name in ("full", "no_les", "random_window", "no_gs", "no_es", "no_audio"):
        cells = [rows[f"{name}/{dimension}"] for dimension in (*LABELS, "mean")]
        lines.append(f"| {ABLATION[name]} | " + " | ".join(map(_cell, cells)) + " |")
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
    """What the offline recognizer hears: words, times, and whether there is speech."""
    rows = read(RESULTS / "recognition.json")
    shown = {
        "plain/wer": ("word error rate, read speech", 100, " %"),
        "validation/stressed_words": ("stressed words of the probe's development part heard right", 100, " %"),
        "plain/median_time_error": ("median error of word times, recognized", 1000, " ms"),
        "plain/aligned_median_time_error_attention": ("the same, text given, Whisper's attention", 1000, " ms"),
        "plain/aligned_median_time_error_sphinx": ("the same, text given, PocketSphinx", 1000, " ms"),
        "one_pass/wer": ("word error rate from the pass of a speech encoder that is the same Whisper", 100, " %"),
        "one_pass/median_time_error": ("median error of its word times", 1000, " ms"),
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
    names = {"true_times": "LEMF on true word times", "recognized": "all from sound: transcript, word times, LEMF"}
    lines = ["| test CCC, valence | | below the corpus's own texts |", "|---|---|---|"]
    for name, words in names.items():
        lost = rows[f"{name}/lost_valence"]["value"]
        lines.append(f"| {words} | {_cell(rows[f'{name}/valence'])} | {lost:.2f} |")
    return "\n".join(lines) + "\n"


def emobank_table() -> str:
    """The text branch alone on sentences that people have rated."""
    rows = read(RESULTS / "emobank.json")
    shown = {
        "tuned": "text branch, encoder tuned",
        "frozen": "text branch, encoder frozen",
        "ridge_rescaled": "ridge on the same embeddings, spread restored",
        "ridge": "ridge on the same embeddings",
        "human": "raters of the reader's feeling against raters of the writer's",
    }
    lines = ["| test CCC | " + " | ".join((*LABELS, "mean")) + " |", "|---|---|---|---|---|"]
    for name, words in shown.items():
        if f"{name}/mean" not in rows:
            continue
        cells = [rows[f"{name}/{dimension}"] for dimension in (*LABELS, "mean")]
        lines.append(f"| {words} | " + " | ".join(map(_cell, cells)) + " |")
    return "\n".join(lines) + "\n"


def stress_table() -> str:
    """Hostile input and faults, in counts; a part that was not tried has no line."""
    rows = {name: row["value"] for name, row in read(RESULTS / "stress.json").items()}
    lines = {
        "audio/inputs": "**Sound:** {audio/inputs:,.0f} hostile files, arrays, paths and addresses, each heard in "
        "four ways, none with more than {audio/megabytes:.0f} MB of memory: {audio/crashes:.0f} crashes, hangs or "
        "errors that are no sentence. {audio/refused:,.0f} were refused in every way, the others gave numbers. The "
        "slowest took {audio/slowest_seconds:.1f} s of a core.",
        "tables/inputs": "**Tables:** {tables/inputs:,.0f} hostile tables and folders, none with more than "
        "{tables/megabytes:.0f} MB: {tables/crashes:.0f} crashes, errors that are no sentence, or files named "
        "outside the folder.",
        "kills/injected": "**Kills:** {kills/injected:.0f} times kill -9 at random moments of training and "
        "annotation: {kills/results_lost:.0f} results lost. Given again, the commands ended with the weights, scores "
        "and shards of undisturbed runs, bit by bit.",
        "faults/injected": "**Other faults:** {faults/injected:.0f} full disks, damaged checkpoints and dead "
        "processes: {faults/results_lost:.0f} results lost, {faults/said:.0f} said in a sentence.",
        "space/clients": "**Demo page:** {space/clients:.0f} clients for {space/minutes:g} minutes: "
        "{space/answers:,.0f} answers, {space/wrong_answers:.0f} wrong; {space/broken_off:,.0f} requests that were "
        "slow or broke off, {space/oversize:.0f} files that were too large, {space/turned_away:,.0f} requests that a "
        "full queue turned away, {space/failed:.0f} that failed. Memory grew by {space/memory_growth:.0%}, "
        "{space/files_left:.0f} files were left, and {space/leaks:.0f} ways were found to read what is not one's own.",
    }
    # Not str.format: it takes a slash for a part of the name.
    shown = (
        re.sub(r"{([\w/]+):([^}]+)}", lambda m: format(rows[m[1]], m[2]), text)
        for name, text in lines.items()
        if name in rows
    )
    return "".join(f"- {line}\n" for line in shown)


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


_PEERS = {
    "ours_full": "ours, with texts made from sound",
    "ours_audio": "ours, sound alone",
    "asp": "last layer, attentive statistics pooling",
    "last_layer": "last layer, mean, linear head",
    "egemaps_svr": "eGeMAPS functionals, SVR",
    "text": "texts alone",
}


def peers_table() -> str:
    """What else there is, on the same clips, against weak labels."""
    rows = read(RESULTS / "peers_weak.json")
    columns = (*LABELS, "mean")
    lines = [
        "| **weak** labels, CCC | " + " | ".join(columns) + " | strong > normal | at one level | happy > angry, sad |",
        "|---" * 8 + "|",
    ]
    for name, words in _PEERS.items():
        if f"{name}/mean" not in rows:
            continue
        prefix = "" if name == "ours_audio" else f"{name}/"
        orders = [rows.get(f"{prefix}order/{check}") for check in ("arousal_raw", "arousal_leveled", "valence")]
        cells = [_cell(rows[f"{name}/{dimension}"]) for dimension in columns]
        lines.append(f"| {words} | " + " | ".join([*cells, *map(_share, orders)]) + " |")
    meter = [rows[f"level/order/{check}"] for check in ("arousal_raw", "arousal_leveled")]
    lines.append("| a level meter | - | - | - | - | " + " | ".join(map(_share, meter)) + " | - |")
    said = {
        "full_minus_audio": "With texts minus sound alone",
        "audio_minus_egemaps_svr": "sound alone minus eGeMAPS",
        "audio_minus_last_layer": "minus the linear head",
        "audio_minus_asp": "minus attentive pooling of the last layer",
    }
    paired = [
        f"{words} {rows[name]['value']:+.3f} ({rows[name]['low']:+.3f}..{rows[name]['high']:+.3f})"
        for name, words in said.items()
        if name in rows
    ]
    lines += ["", f"Differences of the mean, paired: {'; '.join(paired)}."]
    return "\n".join(lines) + "\n"


def cross_table() -> str:
    """One corpus of acted speech from the other."""
    rows = read(RESULTS / "peers_weak.json")
    names = {"emodb": "RAVDESS to EmoDB", "ravdess": "EmoDB to RAVDESS"}
    lines = ["| **weak** labels, mean CCC | " + " | ".join(names.values()) + " |", "|---|---|---|"]
    for system, words in _PEERS.items():
        if system == "text":  # fixed sentences of another language
            continue
        if all(f"cross/{corpus}/{system}/mean" in rows for corpus in names):
            cells = [
                f"{_cell(rows[f'cross/{corpus}/{system}/mean'])}, "
                f"{rows[f'cross/{corpus}/{system}/lost']['value']:.2f} less than within"
                for corpus in names
            ]
            lines.append(f"| {words} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def peers_probe_table() -> str:
    """The same systems on the probe corpus, with its own texts."""
    rows = read(RESULTS / "peers_probe.json")
    columns = (*LABELS, "mean")
    lines = ["| probe corpus, test CCC | " + " | ".join(columns) + " |", "|---" * 5 + "|"]
    for name, words in (_PEERS | {"ours_full": "ours, with the corpus's texts"}).items():
        if f"{name}/mean" in rows:
            lines.append(f"| {words} | " + " | ".join(_cell(rows[f"{name}/{column}"]) for column in columns) + " |")
    return "\n".join(lines) + "\n"


def starter_table() -> str:
    """The starter's recipe on speakers that it has not heard, and what leaves its numbers alone."""
    rows = read(RESULTS / "starter.json")
    value = {name: row["value"] for name, row in rows.items()}
    lines = ["| **weak** labels | valence | arousal | dominance | mean |", "|---|---|---|---|---|"]
    cells = [_cell(rows[f"held_out/{dimension}"]) for dimension in (*LABELS, "mean")]
    lines.append("| CCC | " + " | ".join(cells) + " |")
    neutral = [f"{value[f'neutral/{dimension}']:.2f}" for dimension in LABELS]
    lines.append("| mean over neutral clips (0.5 is neutral) | " + " | ".join(neutral) + " | |")
    checks = {
        "order/arousal_raw": ("stronger takes above normal ones in arousal (all at one level)", _share),
        "order/arousal_emotions": ("anger and happiness above sadness and calm in arousal", _share),
        "order/valence": ("happiness above anger and sadness in valence", _share),
        "noise/arousal_r": ("arousal with noise at 10 dB against clean, correlation", _cell),
        "band/arousal_r": ("arousal through a telephone's band against clean, correlation", _cell),
        "crop/arousal_r": ("arousal of 2 s against the whole clip, correlation", _cell),
        "gain/max_shift": ("largest shift by a gain of 12 dB either way", _plain),
        "silence/distance_from_neutral": ("silence, distance from 0.5", _plain),
        "no_speech/median_distance_from_neutral": ("noise, hum and clicks it has not heard, median distance", _plain),
        "no_speech/distance_from_neutral": ("the same, largest distance", _plain),
    }
    lines += ["", "| check | |", "|---|---|"]
    for name, (words, shown) in checks.items():
        lines.append(f"| {words} | {shown(rows[name])} |")
    return "\n".join(lines) + "\n"


def speed_table() -> str:
    """How much faster than the stock path, and how much each part gives."""
    rows = read(RESULTS / "speed.json")
    shown = {
        "whisper_3s/ratio": ("Whisper tiny.en on clips of 3 s, against 30 s for each", "x"),
        "whisper_10s/ratio": ("the same on clips of 10 s", "x"),
        "wavlm_inference/ratio": ("WavLM-Large, clips of 3 to 11 s in random order, against padded batches of 4", "x"),
        "wavlm_inference/gain_linear": ("- of it by oneDNN's matrix products", "x"),
        "wavlm_inference/gain_one_by_one": ("- by running clips one by one, without padding", "x"),
        "wavlm_inference/gain_attention": ("- by fused attention", "x"),
        "wavlm_inference/gain_front_end": ("- by the front end in pieces", "x"),
        "wavlm_inference/floor": ("the floor: its matrix products alone, without padding", "x"),
        "wavlm_int8/ratio": ("the same with 8-bit layers, against the stock model in float32", "x"),
        "wavlm_int8/gain": ("- against ours in float32", "x"),
        "wavlm_int8/ccc": ("- CCC of its predictions with those in float32, random encoders", ""),
        "whisper_int8/ccc": ("CCC of 8 bits with float32, Whisper tiny.en and MiniLM", ""),
        "train_step/ratio": ("training at the paper's size, an epoch over these clips", "x"),
        "train_step/gain_cached_texts": ("- of it by encoding the texts once", "x"),
        "train_memory/ratio": ("its peak memory, ours by stock", ""),
        "overhead/share": ("what is no encoder, share of a training step", "%"),
        "cached_epoch/ratio": ("frozen encoders of the paper's size, first epoch against one of a second run", "x"),
        "cached_epoch/ratio_small": ("the same with Whisper tiny.en and MiniLM", "x"),
        "pipeline/ratio": ("Whisper tiny.en in the pipeline, 8 at once, against batches in the given order", "x"),
        "compiled/ratio": ("`model.compile(dynamic=True)` with Whisper tiny.en, against ours without", "x"),
    }
    lines = ["| | | `python -m msfser.benchmarks.speed ...` |", "|---|---|---|"]
    for name, (words, unit) in shown.items():
        if name not in rows:
            continue
        options = str(rows[name]["command"]).partition("speed ")[2]
        scale, digits = (100, 1) if unit == "%" else (1, 3 if "ccc" in name else 2)
        value, low, high = (f"{scale * rows[name][key]:.{digits}f}" for key in ("value", "low", "high"))
        unit = " %" if unit == "%" else unit
        interval = f" ({low}..{high})" if low != high else ""
        lines.append(f"| {words} | {value}{unit}{interval} | `{options}` |")
    products = rows["wavlm_inference/ratio"]["value"] / rows["wavlm_inference/floor"]["value"]
    row = next(iter(rows.values()))
    machine = f"{row['processor']}, {row['threads']} threads, torch {row['torch']}, transformers {row['transformers']}"
    share = f"Of our inference with WavLM-Large {100 * products:.0f} % is matrix products."
    return "\n".join(lines) + f"\n\n{machine}. {share}\n"


def _share(row: dict[str, object] | None) -> str:
    return "-" if row is None else f"{100 * row['value']:.0f} %"


def _plain(row: dict[str, object]) -> str:
    return f"{row['value']:.3f}"


def _cell(row: dict[str, object]) -> str:
    return f"{row['value']:.2f} ({row['low']:.2f}..{row['high']:.2f})"


TABLES: dict[str, Callable[[], str]] = {
    "peers": peers_table,
    "peers_probe": peers_probe_table,
    "cross": cross_table,
    "starter": starter_table,
    "probe": probe_table,
    "ablation": ablation_table,
    "recognition": recognition_table,
    "emphasis": emphasis_table,
    "annotated": annotated_table,
    "emobank": emobank_table,
    "serving": serving_table,
    "speed": speed_table,
    "stress": stress_table,
}


def rendered(text: str) -> str:
    """A page with its results blocks made anew."""
    return _BLOCK.sub(lambda match: match[1] + TABLES[match[2]]() + match[3], text)


if __name__ == "__main__":
    for page in PAGES:
        page.write_text(rendered(page.read_text(encoding="utf-8")), encoding="utf-8")
