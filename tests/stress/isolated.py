"""Many inputs in a separate process with a memory limit: an input that kills it is noted, and the others are run."""

import json
import os
import queue
import resource
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, TextIO

TESTS = Path(__file__).parents[1]
# Processor time for one input in one way.
MOST_SECONDS = 5.0
# Wall-clock time for one input and for the start: other processes may use the processor meanwhile.
_PATIENCE, _START_PATIENCE = 600.0, 1200.0


class Outcome(NamedTuple):
    """The outcome of one input.

    Args:
        number: Number of the input.
        name: Description of the input.
        given: "result", "refused", or both in different ways.
        seconds: Processor time in the slowest way.
        defect: What is wrong with the outcome; "" if nothing is.
    """

    number: int
    name: str
    given: str
    seconds: float = 0.0
    defect: str = ""


def run(module: str, first: int, last: int) -> list[Outcome]:
    """The outcomes of the inputs `first` to `last` (excluded) in processes `python -m MODULE FIRST LAST`."""
    outcomes: list[Outcome] = []
    while first < last:
        ended = _one_process(module, first, last, outcomes)
        first = outcomes[-1].number + 1 if outcomes and outcomes[-1].number >= first else first
        if first < last:
            outcomes.append(Outcome(first, "not known", "crash", defect=ended))
            first += 1
    return outcomes


def _one_process(module: str, first: int, last: int, outcomes: list[Outcome]) -> str:
    command = [sys.executable, "-X", "faulthandler", "-m", module, str(first), str(last)]
    with tempfile.TemporaryFile("w+") as errors:
        # Threads that wait for each other would count as processor time, especially on a busy machine.
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        process = subprocess.Popen(
            command, cwd=TESTS, env=environment, stdout=subprocess.PIPE, stderr=errors, text=True
        )
        lines: queue.Queue = queue.Queue()
        threading.Thread(target=_pass_on, args=(process.stdout, lines), daemon=True).start()
        patience = _START_PATIENCE
        try:
            while (line := lines.get(timeout=patience)) is not None:
                outcomes.append(Outcome(**json.loads(line)))
                patience = _PATIENCE
        except queue.Empty:
            process.kill()
            return f"it hung for {_PATIENCE:.0f} s"
        finally:
            process.wait()
        errors.seek(0)
        return f"the process ended with {process.returncode}: {errors.read()[-2000:]}"


def _pass_on(source: TextIO, lines: queue.Queue) -> None:
    for line in source:
        lines.put(line)
    lines.put(None)


def answer(try_one: Callable[[int, Path], Outcome], most_bytes: int, first: int, last: int) -> None:
    """In the process: tries the inputs one after another and writes a line for each."""
    # Decoders print to the standard output themselves.
    lines = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    with tempfile.TemporaryDirectory() as folder:
        inner = Path(folder) / "inner"
        inner.mkdir()
        for number in range(first, last):
            resource.setrlimit(resource.RLIMIT_AS, (_address_space() + most_bytes, resource.RLIM_INFINITY))
            outcome = try_one(number, inner)
            if outcome.seconds > MOST_SECONDS and not outcome.defect:
                outcome = outcome._replace(defect=f"it took {outcome.seconds:.1f} s")
            print(json.dumps(outcome._asdict()), file=lines, flush=True)
            for file in inner.iterdir():
                if file.name.startswith(str(number)):
                    file.unlink()


def _address_space() -> int:
    return int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")


def is_sentence(error: BaseException) -> bool:
    """Whether the message of an error is one short sentence that ends with a full stop."""
    message = str(error)
    return message.endswith(".") and "\n" not in message and 10 < len(message) < 1000 and " at 0x" not in message
