"""The tool of `make mutants`: what it changes, and how it tells faults that a test notices from others."""

import ast
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import yaml

from mutants.__main__ import GROUPS, drawn, earlier_killers, files_of, read_log, rows_of
from mutants.faults import faults_of
from mutants.recording import ROOT
from mutants.running import Outcome

TOY = '''"""A toy."""

import logging

logger = logging.getLogger(__name__)
STEP = 1


def sum_down(n: int = 3, negative: bool = False) -> int:
    """Sum of n, n - 1, ... 1."""
    if not isinstance(n, int):
        raise TypeError(f"n is {n}: " + "give a number.")
    total = 0
    while n > 0:
        total = total + n
        n -= STEP
    logger.info("done")
    return -total if negative else total


def never(value):
    return value[2:]
'''
TEST = """import pytest
from msfser.toy import sum_down


@pytest.fixture(scope="module")
def made():
    return sum_down(2)


def test_first(made):
    assert made > 0


def test_sum(made):
    assert made == 3


def test_fails():
    assert sum_down(3) == 7


def test_import():
    from msfser import toy
    toy.logger.info(sum_down(1))
"""
SCRIPT = """
import json, queue, sys
from pathlib import Path
from mutants import running
from mutants.__main__ import record
from mutants.faults import faults_of

folder = Path(sys.argv[1])
tree = folder / "msfser"
recording = record(tree, folder / "recording", 1, [""])
running.LIBRARIES = ("pytest", "hypothesis", "numpy", "scipy.stats")
trees = queue.Queue()
trees.put(tree)
running.prepare(trees)
found = {}
for mutant in faults_of("toy.py", (tree / "toy.py").read_bytes()):
    tests = recording.tests_of("toy.py", mutant.line, 60)
    if f"{mutant.before} -> {mutant.after}" in sys.argv[2:]:
        outcome = running.try_mutant(mutant, tests, 4) if tests else None
        found[f"{mutant.before} -> {mutant.after}"] = outcome and (outcome.ended, outcome.test)
by_line = {line: sorted(tests) for line, tests in recording.lines["toy.py"].items()}
print(json.dumps([found, by_line, running.run_tests(["test_toy.py::test_fails", *tests], 60, False).test]))
"""


def test_faults_of_a_toy():
    found = {(mutant.kind, mutant.before, mutant.after) for mutant in faults_of("toy.py", TOY.encode())}
    expected = {
        ("constant", "1", "0"),
        ("constant", "3", "2"),
        ("constant", "False", "True"),
        ("not removed", "not isinstance(n, int)", "(isinstance(n, int))"),
        ("branch", "not isinstance(n, int)", "False"),
        ("statement deleted", 'raise TypeError(f"n is {n}: " + "give a number.")', "pass"),
        ("comparison", "n > 0", "(n >= 0)"),
        ("comparison", "n > 0", "(n <= 0)"),
        ("operator", "total + n", "(total - n)"),
        ("operator", "n -= STEP", "n += STEP"),
        ("statement deleted", "n -= STEP", "pass"),
        ("operator", "-total", "(total)"),
        ("branch", "negative", "True"),
        ("return", "value[2:]", "None"),
        ("slice", "2", "(2 + 1)"),
    }
    assert expected <= found
    assert not [before for _, before, _ in found if "toy" in before or "done" in before or before == "int"]


def test_every_drawn_mutant_is_python_and_differs():
    for patterns in GROUPS.values():
        for file in files_of(ROOT, patterns)[::8]:
            source = (ROOT / file).read_bytes()
            for mutant in drawn(faults_of(file, source), 5, seed=0):
                assert ast.dump(ast.parse(mutant.applied(source))) != ast.dump(ast.parse(source)), mutant


def test_the_same_seed_draws_the_same_mutants():
    mutants = faults_of("toy.py", TOY.encode())
    assert drawn(mutants, 5, seed=1) == drawn(mutants, 5, seed=1) != drawn(mutants, 5, seed=2)
    assert drawn(mutants, 10_000, seed=0) == mutants


def test_a_mutant_is_killed_survives_or_hangs(tmp_path):
    tree = tmp_path / "msfser"
    (tree / "tests").mkdir(parents=True)
    (tree / "__init__.py").touch()
    (tree / "toy.py").write_text(TOY)
    (tree / "tests" / "test_toy.py").write_text(TEST)
    (tree / "tests" / "conftest.py").touch()
    (tree / "pyproject.toml").write_text("[tool.pytest.ini_options]\naddopts = ['--import-mode=importlib']\n")
    shutil.copytree(Path(__file__).parent, tree / "tests" / "mutants", ignore=shutil.ignore_patterns("__pycache__"))
    tried = ["total + n -> (total - n)", "negative -> True", "n > 0 -> (n >= 0)", "1 -> 0"]
    command = [sys.executable, "-c", SCRIPT, str(tmp_path), *tried, "value[2:] -> None", "False -> True"]
    done = subprocess.run(command, cwd=tree / "tests", capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    found, tests, failing = json.loads(done.stdout.splitlines()[-1])
    ended = {name: outcome and outcome[0] for name, outcome in found.items()}
    assert ended == {
        "total + n -> (total - n)": "killed",
        "negative -> True": "killed",
        "n > 0 -> (n >= 0)": "survived",
        "1 -> 0": "timeout",  # STEP, a line that is executed at import, has the tests of the file
        "value[2:] -> None": "survived",
        "False -> True": "killed",
    }
    assert found["total + n -> (total - n)"][1].startswith("test_toy.py::test_")
    every = ["test_toy.py::test_first", "test_toy.py::test_import", "test_toy.py::test_sum"]
    assert tests["15"] == every  # of the shared fixture, too, and without the one that fails
    assert failing == "test_toy.py::test_fails"
    assert (tree / "toy.py").read_text() == TOY


def test_the_last_killer_is_known_and_survivors_and_timeouts_have_none(tmp_path):
    mutants = faults_of("toy.py", TOY.encode())[:3]
    runs = [
        [Outcome("killed", "a.py::test_a"), Outcome("survived"), Outcome("timeout", "a.py::test_a")],
        [Outcome("killed", "b.py::test_b\nb.py::test_c"), Outcome("killed", "b.py::test_d")],
    ]
    for i, found in enumerate(runs):
        log = tmp_path / f"{9 - i}.jsonl"  # the later one is not the last by name
        entries = [{"mutant": vars(m), "outcome": vars(o)} for m, o in zip(mutants, found, strict=False)]
        log.write_text("".join(json.dumps(entry) + "\n" for entry in entries))
        os.utime(log, (i, i))
        assert read_log(log) == dict(zip(mutants, found, strict=False))
    killers = earlier_killers(tmp_path.glob("*.jsonl"))
    assert killers == {mutants[0].key: "b.py::test_b", mutants[1].key: "b.py::test_d"}
    assert read_log(tmp_path / "none.jsonl") == {}


def test_the_share_of_killed_mutants_leaves_out_those_that_change_nothing():
    mutants = faults_of("toy.py", TOY.encode())[:11]
    found = {mutant: Outcome("killed" if i < 8 else "survived") for i, mutant in enumerate(mutants)}
    rows = {row["name"]: row for row in rows_of("hub", found, {mutants[10].key})}
    assert rows["hub/killed"]["value"] == 0.8
    assert (round(rows["hub/killed"]["low"], 3), round(rows["hub/killed"]["high"], 3)) == (0.444, 0.975)
    counts = [rows[f"hub/{name}"]["value"] for name in ("mutants", "equivalent", "survived")]
    assert counts == [11, 1, 2]


def test_every_listed_mutant_exists_and_has_a_reason():
    listed = yaml.safe_load(Path(__file__).with_name("equivalent.yaml").read_text())
    existing = {m.key for file in {e["file"] for e in listed} for m in faults_of(file, (ROOT / file).read_bytes())}
    for entry in listed:
        assert entry["kind"] and entry["reason"]
        assert (entry["file"], entry["text"], entry["before"], entry["after"]) in existing, entry
