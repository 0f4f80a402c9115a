"""`make mutants`: the share of small faults in the source that a test notices.

    cd tests && python -m mutants [--sample 150] [--seed 0] [--files loss_msfser.py ...]

Draws mutants of the Hub files, and as many of `corpora/`, `training/` and `annotation/`, and runs each against the
tests that execute its line, the fastest first. Writes to `benchmarks/results/mutants.json` and prints the survivors;
with `--files` it tries all mutants of these files. With `--files` or `--tests` it writes nothing. `--work` keeps what
it has recorded: the same command goes on after an interruption, as long as no file has changed; after a change
all is tried again, each mutant first with the test that killed it before.
"""

import argparse
import dataclasses
import hashlib
import json
import multiprocessing
import os
import random
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import yaml

from .faults import Mutant, read_faults
from .recording import ROOT, Recording, read_recording
from .running import Outcome, copy_tree, prepare, run_tests, try_mutant

EQUIVALENT = Path(__file__).with_name("equivalent.yaml")
GROUPS = {"hub": ["*_msfser.py"], "rest": ["corpora/**/*.py", "training/*.py", "annotation/*.py"]}
LEFT_OUT = ("test_packaging.py", "benchmarks", "docs", "mutants", "space", "stress")  # of tests/: slow, or of no group
MOST_SECONDS = 20.0  # of tests for one mutant, as recorded


def files_of(root: Path, patterns: Iterable[str]) -> list[str]:
    return sorted(path.relative_to(root).as_posix() for pattern in patterns for path in root.glob(pattern))


def drawn(mutants: Sequence[Mutant], count: int, seed: int) -> list[Mutant]:
    """A sample of the mutants, in their order; all if there are fewer."""
    chosen = random.Random(seed).sample(range(len(mutants)), min(count, len(mutants)))
    return [mutants[i] for i in sorted(chosen)]


def record(tree: Path, folder: Path, jobs: int, tests: Sequence[str]) -> Recording:
    """Runs the suite on a copy of the source, unless it has been recorded already."""
    if not (folder / "done").exists():
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "root").write_text(str(tree))
        paths = os.pathsep.join([str(tree.parent), str(tree / "tests")])
        settings = {"PYTHONPATH": paths, "MUTANTS_RECORDING": str(folder), "OMP_NUM_THREADS": "1"}
        options = ["-c", "pyproject.toml", f"--rootdir={tree / 'tests'}", "-q", "-n", str(jobs), "--dist=loadfile"]
        options += ["-p", "mutants.recording", "-m", "not slow and not stress", *(f"tests/{test}" for test in tests)]
        options += [f"--ignore=tests/{name}" for name in LEFT_OUT]
        # A parallel run of tests, in which this may be called, has its own workers.
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
        subprocess.run([sys.executable, "-m", "pytest", *options], cwd=tree, env=inherited | settings)
        (folder / "done").touch()
    return read_recording(folder)


def read_log(log: Path) -> dict[Mutant, Outcome]:
    entries = map(json.loads, log.read_text().splitlines()) if log.exists() else ()
    return {Mutant(**entry["mutant"]): Outcome(**entry["outcome"]) for entry in entries}


def earlier_killers(logs: Iterable[Path]) -> dict[tuple, str]:
    """By mutant, the test that killed it in an earlier run, of other files: it is the first that is tried."""
    found = {}
    for log in sorted(logs, key=os.path.getmtime):
        killed = {mutant: outcome for mutant, outcome in read_log(log).items() if outcome.ended == "killed"}
        found |= {mutant.key: outcome.test.split("\n")[0] for mutant, outcome in killed.items()}
    return found


def outcomes(mutants: Sequence[Mutant], recording: Recording, trees: Sequence[Path], log: Path) -> dict:
    """Tries all mutants; those in the log are not tried again, and an earlier killer is tried first."""
    known, killers = read_log(log), earlier_killers(log.parents[1].glob(f"*/{log.name}"))
    context = multiprocessing.get_context("spawn")
    queue = context.Manager().Queue()
    for tree in trees:
        queue.put(tree)
    unreliable: set[str] = set()
    with ProcessPoolExecutor(len(trees), context, prepare, (queue,)) as pool:
        while waiting := [mutant for mutant in mutants if mutant not in known]:
            running = {}
            for mutant in waiting:
                tests = recording.tests_of(mutant.file, mutant.line, MOST_SECONDS)
                if (killer := killers.get(mutant.key)) in recording.seconds:
                    tests = [killer, *(test for test in tests if test != killer)]
                tests = [test for test in tests if test not in unreliable]
                limit = 30 + 3 * sum(recording.seconds[test] for test in tests)
                running[mutant] = pool.submit(try_mutant, mutant, tests, limit) if tests else None
            for mutant, future in running.items():
                known[mutant] = future.result() if future else Outcome("survived", "no test executes it")
                entry = {"mutant": dataclasses.asdict(mutant), "outcome": dataclasses.asdict(known[mutant])}
                with open(log, "a") as file:
                    file.write(json.dumps(entry) + "\n")
                print(f"{known[mutant].ended:8} {known[mutant].seconds:5.1f} s  {shown(mutant)}", flush=True)
            # A test that fails without a fault, too, has killed nothing.
            failed = {outcome.test for outcome in known.values() if outcome.ended == "killed" and outcome.test}
            failing = pool.submit(run_tests, sorted(failed), 3_600.0, False).result() if failed else Outcome("")
            unreliable |= set(failing.test.splitlines())
            known = {mutant: outcome for mutant, outcome in known.items() if outcome.test not in unreliable}
    if unreliable:
        print(f"failed without a fault, and left out: {', '.join(sorted(unreliable))}")
    return {mutant: known[mutant] for mutant in mutants}


def shown(mutant: Mutant) -> str:
    return f"{mutant.file}:{mutant.line} {mutant.kind}: {mutant.text} | {mutant.before!r} -> {mutant.after!r}"


def rows_of(group: str, found: dict[Mutant, Outcome], equivalent: set) -> list[dict]:
    """The share of killed mutants with its exact interval, without those that change nothing."""
    from msfser.evaluation.intervals import share_interval

    counted = {mutant: outcome for mutant, outcome in found.items() if mutant.key not in equivalent}
    killed = sum(outcome.ended != "survived" for outcome in counted.values())
    ends = share_interval([outcome.ended != "survived" for outcome in counted.values()])._asdict()
    counts = {"mutants": len(found), "equivalent": len(found) - len(counted), "survived": len(counted) - killed}
    plain = [{"name": f"{group}/{name}", "value": float(n), "low": None, "high": None} for name, n in counts.items()]
    return [{"name": f"{group}/killed", **ends}, *plain]


def fingerprint(tree: Path, tests: Sequence[str]) -> str:
    """Of all source and test files, and of what is run of them."""
    digest = hashlib.sha256(repr(tests).encode())
    for path in sorted(tree.rglob("*.py")):
        digest.update(f"{path.relative_to(tree)}\0".encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def main() -> None:
    """Records, draws, tries, prints and writes."""
    parser = argparse.ArgumentParser(prog="python -m mutants", description=__doc__.splitlines()[0])
    parser.add_argument("--sample", type=int, default=150, help="mutants of each of the two groups")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--files", nargs="+", help="all mutants of these files in place of the sample")
    parser.add_argument("--tests", nargs="+", default=[""], help="files or folders of tests/ in place of all")
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("--work", type=Path, default=Path("../outputs/mutants"), help="what an interrupted run keeps")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="msfser-mutants-") as temporary:
        trees = [copy_tree(ROOT, Path(temporary, str(i))) for i in range(chosen.jobs)]
        work = chosen.work.resolve() / fingerprint(trees[0], chosen.tests)
        recording = record(trees[0], work / "recording", chosen.jobs, chosen.tests)
        groups = {"files": chosen.files} if chosen.files else {n: files_of(ROOT, p) for n, p in GROUPS.items()}
        every = {name: read_faults(ROOT, files) for name, files in groups.items()}
        if not chosen.files:
            every = {name: drawn(mutants, chosen.sample, chosen.seed) for name, mutants in every.items()}
        listed = yaml.safe_load(EQUIVALENT.read_text()) or []
        equivalent = {(entry["file"], entry["text"], entry["before"], entry["after"]) for entry in listed}
        everything = [mutant for mutants in every.values() for mutant in mutants]
        found = outcomes(everything, recording, trees, work / "outcomes.jsonl")
    rows = []
    for name, mutants in every.items():
        rows += rows_of(name, {mutant: found[mutant] for mutant in mutants}, equivalent)
    print("\nsurvivors:")
    for mutant, outcome in found.items():
        if outcome.ended == "survived" and mutant.key not in equivalent:
            print(f"{shown(mutant)}{f'  ({outcome.test})' if outcome.test else ''}")
    # Not at the top: the processes that try the mutants import this file, but no file of ours.
    from msfser.evaluation.results import RESULTS, as_text, merge

    print(f"\n{as_text(rows)}")
    if not chosen.files and chosen.tests == parser.get_default("tests"):
        options = ["--sample", str(chosen.sample), "--seed", str(chosen.seed)]
        command = shlex.join(["python", "-m", "mutants", *options])  # in tests/
        merge(RESULTS / "mutants.json", [row | {"command": command} for row in rows])


if __name__ == "__main__":
    main()
