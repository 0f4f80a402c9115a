"""Mutants against their tests: each in a forked child of a process that has the libraries, but no file of ours."""

import importlib
import math
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from .faults import Mutant

LIBRARIES = (
    *("torch", "numpy", "soundfile", "soxr", "yaml", "scipy.stats", "pandas", "pyarrow", "hypothesis", "pytest"),
    *("accelerate", "datasets", "transformers.pipelines", "transformers.trainer", "tokenizers", "safetensors.torch"),
    *(f"transformers.models.{name}.modeling_{name}" for name in ("whisper", "wav2vec2", "wavlm", "bert", "roberta")),
)
MEMORY = 8 * 2**30  # bytes that a child may allocate


@dataclass(frozen=True)
class Outcome:
    """How the tests of a mutant ended: `killed`, `timeout` or `survived`, and the test that failed."""

    ended: str
    test: str = ""
    seconds: float = 0.0


def copy_tree(root: Path, folder: Path) -> Path:
    """A copy of the checkout, as the package `msfser` in a folder."""
    ignored = shutil.ignore_patterns(".*", "__pycache__", "*.egg-info", "build", "dist", "data", "outputs", "shared")
    return Path(shutil.copytree(root, folder / "msfser", ignore=ignored))


def prepare(trees) -> None:
    """Makes this process the parent of children that run tests in the next of the copies (a queue)."""
    global _tree
    _tree = trees.get()
    os.chdir(_tree)
    paths = [str(_tree.parent), str(_tree / "tests")]
    sys.path[:0] = paths
    tempfile.tempdir = str(_tree.parent / "tmp")  # goes with the copy
    Path(tempfile.tempdir).mkdir()
    os.environ |= {"PYTHONPATH": os.pathsep.join(paths), "TMPDIR": tempfile.tempdir, "OMP_NUM_THREADS": "1"}
    os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
    sys.dont_write_bytecode = True
    importlib.import_module("conftest")  # sets the caches of the libraries, which read them when they are imported
    for name in LIBRARIES:
        importlib.import_module(name)
    del sys.modules["conftest"]
    if loaded := [name for name in sys.modules if name.partition(".")[0] == "msfser"]:
        raise RuntimeError(f"{loaded} are imported already: no mutant of them would be tried.")


def try_mutant(mutant: Mutant, tests: Sequence[str], limit: float) -> Outcome:
    """Runs the tests until one fails, on a copy of the source with the fault; a hanging mutant is ended."""
    path = _tree / mutant.file
    source = path.read_bytes()
    for compiled in (path.parent / "__pycache__").glob(f"{path.stem}.*.pyc"):
        compiled.unlink()
    path.write_bytes(mutant.applied(source))
    try:
        return run_tests(tests, limit)
    finally:
        path.write_bytes(source)


def run_tests(tests: Sequence[str], limit: float, stop: bool = True) -> Outcome:
    """Runs tests in a forked child; with `stop=False` `Outcome.test` names all that fail, one a line.

    The limit is in seconds of processor time, so that a busy machine ends no mutant that does not hang; one that waits
    forever is ended after three times as long.
    """
    failed = _tree.parent / "failed.txt"
    failed.write_text("")
    start = time.monotonic()
    child = os.fork()
    if child == 0:
        try:
            _run_in_child(tests, failed, math.ceil(limit), stop)
        finally:
            os._exit(70)
    status = None
    while status is None and time.monotonic() - start < 3 * limit:
        done, code = os.waitpid(child, os.WNOHANG)
        status = code if done else None
        time.sleep(0.02)
    if status is None:
        os.killpg(child, signal.SIGKILL)
        os.waitpid(child, 0)
    hangs = status is None or (os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGXCPU)
    ended = "timeout" if hangs else "survived" if status == 0 else "killed"
    return Outcome(ended, failed.read_text().strip(), time.monotonic() - start)


def _run_in_child(tests: Sequence[str], failed: Path, seconds: int, stop: bool) -> None:
    import pytest

    os.setsid()
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 10))
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
    output = os.open(_tree.parent / "output.txt", os.O_CREAT | os.O_TRUNC | os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(output, stream)
    order = {test: i for i, test in enumerate(tests)}

    class Chosen:
        """Runs the tests in their order, and notes those that fail."""

        @pytest.hookimpl(trylast=True)
        def pytest_collection_modifyitems(self, items):
            items[:] = sorted((item for item in items if item.nodeid in order), key=lambda item: order[item.nodeid])

        def pytest_runtest_logreport(self, report):
            if report.failed:
                with open(failed, "a") as file:
                    file.write(f"{report.nodeid}\n")

    files = list(dict.fromkeys(str(_tree / "tests" / test.partition("::")[0]) for test in tests))
    options = ["-c", str(_tree / "pyproject.toml"), f"--rootdir={_tree / 'tests'}", "-q", "--tb=short"]
    code = pytest.main([*options, *(["-x"] if stop else []), "-p", "no:cacheprovider", *files], plugins=[Chosen()])
    os._exit(int(code))
