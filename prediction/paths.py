"""Names on the command line of `msfser predict`; checking them imports nothing slow."""

import glob
import os
from pathlib import Path

SUFFIXES = (".csv", ".jsonl", ".parquet")


def matches(name: str) -> list[str]:
    """The files and folders that a name or a pattern such as `calls/*.wav` stands for, in alphabetical order.

    Raises:
        ValueError: There is none.
    """
    if os.path.exists(name):
        return [name]
    if "://" in name:
        raise ValueError(f"{name!r} is an address: download it first; only the pipeline in Python fetches addresses.")
    if not glob.has_magic(name):
        raise ValueError(f"there is no file or folder {name!r}.")
    if not (paths := sorted(glob.glob(name, recursive=True))):
        raise ValueError(f"no file matches the pattern {name!r}.")
    return paths


def suffix_of(output: Path) -> str:
    """The format of an output, by its name.

    Raises:
        ValueError: It is none of `SUFFIXES`.
    """
    if (suffix := output.suffix.lower()) not in SUFFIXES:
        raise ValueError(f"the output {str(output)!r} is none of {', '.join(SUFFIXES)}: name such a file with -o.")
    return suffix
