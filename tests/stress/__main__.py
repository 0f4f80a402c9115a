"""`make stress`: hostile input and faults in large numbers, with a summary of counts.

    cd tests && python -m stress [--minutes 30] [--inputs 5000] [--tables 2000] [--kills 20] [--seed 0]
    cd tests && python -m stress --only kills --kills 20

Writes to `benchmarks/results/stress.json`, and ends with an error if anything was lost.
"""

import argparse
import os
import shlex
import sys
from collections.abc import Callable

import tiny  # noqa: F401 - separate caches, and no network

from msfser.evaluation.results import RESULTS, merge

from . import faults, hostile_audio, hostile_tables, isolated, space

PARTS = ("audio", "tables", "kills", "faults", "space")


def inputs(name: str, module: str, count: int, most_bytes: int) -> tuple[dict[str, float], int]:
    """Runs a number of inputs of one kind."""
    outcomes = isolated.run(module, 0, count)
    wrong = [outcome for outcome in outcomes if outcome.defect]
    for outcome in wrong:
        print(f"DEFECT {name} {outcome.number} ({outcome.name}): {outcome.defect}")
    refused = sum(outcome.given == "refused" for outcome in outcomes)
    slowest = max(outcome.seconds for outcome in outcomes)
    print(f"{name}: {len(outcomes)} inputs, {refused} refused in every way, {len(wrong)} defects")
    print(f"{name}: the slowest took {slowest:.2f} s; the bound of memory was {most_bytes / 1e6:.0f} MB")
    figures = {
        "inputs": len(outcomes),
        "crashes": len(wrong),
        "refused": refused,
        "slowest_seconds": slowest,
        "megabytes": most_bytes / 1e6,
    }
    return {f"{name}/{key}": value for key, value in figures.items()}, len(wrong)


def killed(kills: int, seed: int) -> tuple[dict[str, float], int]:
    """Kills training and annotation, and gives wrong commands for their folders."""
    counts = faults.main(kills, seed, ["kills"])
    for name, count in counts.items():
        print(
            f"{name}: {count.injected} kills, {count.lost} results lost; {count.guarded} commands that may change "
            f"nothing, {count.overwritten} changed something, {count.answered} ended with a sentence"
        )
    total = sum(counts.values(), faults.Counts())
    figures = {"kills/injected": total.injected, "kills/results_lost": total.lost}
    figures |= {"guards/commands": total.guarded, "guards/overwritten": total.overwritten}
    figures["guards/reported"] = total.answered
    return figures, total.lost + total.overwritten + total.guarded - total.answered


def injected() -> tuple[dict[str, float], int]:
    """Injects all other faults."""
    counts = faults.main(0, 0, ["others"])
    for name, count in counts.items():
        print(f"{name}: {count.injected} faults injected, {count.lost} results lost, {count.said} said so")
    total = sum(counts.values(), faults.Counts())
    figures = {"faults/injected": total.injected, "faults/results_lost": total.lost, "faults/reported": total.said}
    return figures, total.lost + total.injected - total.said


def visited(minutes: float) -> tuple[dict[str, float], int]:
    """Puts the demo page under load."""
    load = space.load(minutes)
    for line in (*load.failed[:20], *load.leaks):
        print(f"DEFECT space: {line}")
    print(
        f"space: {load.clients} clients for {minutes:g} minutes, {load.answers} answers, {load.wrong} wrong, "
        f"{load.turned_away} turned away, {load.broken_off} slow or broken off, {load.oversize} too large, "
        f"{len(load.failed)} failed, memory grew by {load.growth:.1%}, {load.files_left} files left"
    )
    figures = {
        "clients": load.clients,
        "minutes": minutes,
        "answers": load.answers,
        "wrong_answers": load.wrong,
        "rejected": load.turned_away,
        "aborted": load.broken_off,
        "oversize": load.oversize,
        "failed": len(load.failed),
        "memory_growth": load.growth,
        "files_left": load.files_left,
        "leaks": len(load.leaks),
    }
    wrong = load.wrong + load.files_left + len(load.leaks) + len(load.failed)
    return {f"space/{key}": value for key, value in figures.items()}, wrong


def main() -> None:
    """Runs the parts that are asked for, prints and writes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=30.0, help="of load on the demo page")
    parser.add_argument("--inputs", type=int, default=5_000, help="hostile sounds")
    parser.add_argument("--tables", type=int, default=2_000, help="hostile tables")
    parser.add_argument("--kills", type=int, default=20, help="of training and annotation together, at least")
    parser.add_argument("--seed", type=int, default=0, help="of the moments of the kills")
    parser.add_argument("--only", nargs="+", choices=PARTS, help="parts; all if none")
    chosen = parser.parse_args()
    parts: dict[str, Callable[[], tuple[dict[str, float], int]]] = {
        "audio": lambda: inputs("audio", "stress.hostile_audio", chosen.inputs, hostile_audio.MOST_BYTES),
        "tables": lambda: inputs("tables", "stress.hostile_tables", chosen.tables, hostile_tables.MOST_BYTES),
        "kills": lambda: killed(chosen.kills, chosen.seed),
        "faults": injected,
        "space": lambda: visited(chosen.minutes),
    }
    wrong = 0
    for name, part in parts.items():
        if chosen.only and name not in chosen.only:
            continue
        figures, defects = part()
        wrong += defects
        rows = [{"name": key, "value": value, "low": None, "high": None} for key, value in figures.items()]
        command = shlex.join(["python", "-m", "stress", *sys.argv[1:]])  # in tests/
        merge(RESULTS / "stress.json", [row | {"command": command} for row in rows])
    print(f"defects: {wrong}", flush=True)
    sys.stdout.flush()
    # Threads of gradio's clients read a stream without a limit.
    os._exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
