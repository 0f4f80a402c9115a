"""Which tests execute which lines, and how long they take: a plugin of pytest, and what is read of it later.

Used as `MUTANTS_RECORDING=FOLDER python -m pytest -p mutants.recording -n 2`.
"""

import json
import os
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import coverage
import pytest

ROOT = Path(__file__).parents[2]

_folder = os.environ.get("MUTANTS_RECORDING")
_worker = os.environ.get("PYTEST_XDIST_WORKER", "")
_lines = None
_tests: dict[str, dict] = {}
_context = ""

if _folder and _worker:
    _lines = coverage.Coverage(
        data_file=f"{_folder}/{_worker}.lines", source=[str(ROOT)], omit=[f"{ROOT}/tests/*"], config_file=False
    )
    _lines.start()


def _switch(context: str) -> str:
    global _context
    before, _context = _context, context
    if _lines is not None:
        _lines.switch_context(context)
    return before


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item, nextitem):
    shared = [d[-1] for d in item._fixtureinfo.name2fixturedefs.values() if d[-1].scope != "function"]
    entry = {"seconds": 0.0, "passed": True, "fixtures": list(map(_named, shared))}
    _tests[item.nodeid] = entry
    start = time.perf_counter()
    _switch(item.nodeid)
    try:
        return (yield)
    finally:
        _switch("")
        entry["seconds"] = time.perf_counter() - start


@pytest.hookimpl(wrapper=True)
def pytest_fixture_setup(fixturedef, request):
    """What a shared fixture executes belongs to all tests that use it, not to the first alone."""
    if fixturedef.scope == "function":
        return (yield)
    before = _switch(_named(fixturedef))
    try:
        return (yield)
    finally:
        _switch(before)


def _named(fixturedef) -> str:
    return f"fixture {fixturedef.baseid}::{fixturedef.argname}"


def pytest_runtest_logreport(report):
    if report.nodeid in _tests and report.outcome != "passed":
        _tests[report.nodeid]["passed"] = False


def pytest_sessionfinish():
    if _lines is not None:
        _lines.stop()
        _lines.save()
        Path(_folder, f"{_worker}.json").write_text(json.dumps(_tests))


@dataclass(frozen=True)
class Recording:
    """The passed tests with their seconds, and which of them execute each line of each file."""

    seconds: dict[str, float]
    lines: dict[str, dict[int, set[str]]]

    def tests_of(self, file: str, line: int, most_seconds: float) -> list[str]:
        """The tests of a line, those of the file behind them; the fastest first, no more than a time.

        A line that is executed at import, such as a constant, has those of its file.
        """
        of_lines = self.lines.get(file, {})
        of_file = set().union(*of_lines.values())
        of_line = of_lines.get(line, set())
        total, chosen = 0.0, []
        for test in sorted(of_file, key=lambda test: (test not in of_line, self.seconds[test])):
            total += self.seconds[test]
            if total > most_seconds and chosen:
                break
            chosen.append(test)
        return chosen


def read_recording(folder: Path) -> Recording:
    root = (folder / "root").read_text()  # of the copy that was recorded, which is gone if a run goes on
    tests: dict[str, dict] = {}
    for path in folder.glob("*.json"):
        tests |= json.loads(path.read_text())
    of_context = defaultdict(set)
    for name, test in tests.items():
        if test["passed"]:
            for context in (name, *test["fixtures"]):
                of_context[context].add(name)
    lines: dict[str, dict[int, set[str]]] = defaultdict(lambda: defaultdict(set))
    for path in folder.glob("*.lines"):
        data = coverage.CoverageData(str(path))
        data.read()
        for file in data.measured_files():
            for line, contexts in data.contexts_by_lineno(file).items():
                lines[os.path.relpath(file, root)][line].update(*(of_context[context] for context in contexts))
    return Recording({name: test["seconds"] for name, test in tests.items() if test["passed"]}, lines)
