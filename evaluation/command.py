"""The command of a benchmark, as it stands beside its figures."""

import os
import shlex
from collections.abc import Sequence

_PATHS = ("--data", "--output_dir")


def shown_command(module: str, argv: Sequence[str]) -> str:
    """The command without the paths of one machine.

    Args:
        module: Of `msfser.benchmarks`.
        argv: Its options. FOLDER takes the place of data, of outputs and of whatever else is a path here; the name of
            a model on the Hub stays.
    """
    shown, option = [], ""
    for word in argv:
        start, value = "", word
        if word.startswith("--"):
            option, joint, value = word.partition("=")
            start = option + joint
        is_path = bool(value) and (option in _PATHS or os.path.exists(value))
        shown.append(f"{start}FOLDER" if is_path else word)
    return shlex.join(["python", "-m", f"msfser.benchmarks.{module}", *shown])
