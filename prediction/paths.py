"""Names on the command line of `msfser predict`; checking them imports nothing slow."""

import glob
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

SUFFIXES = (".csv", ".jsonl", ".parquet")


def parts_of(output: Path) -> Path:
    """The folder in which predictions are kept until the table is whole."""
    return output.with_name(f"{output.name}.parts")


def without_parts(paths: Sequence[str], outputs: Iterable[Path]) -> list[str]:
    """Paths without what an interrupted run keeps, which a pattern finds beside recordings.

    If there is nothing else, it was meant, and is kept to be refused.
    """
    parts = tuple(os.path.join(os.path.realpath(parts_of(output)), "") for output in outputs)
    return [path for path in paths if not os.path.join(os.path.realpath(path), "").startswith(parts)] or [*paths]


def matches(name: str, outputs: Iterable[Path] = ()) -> list[str]:
    """The files and folders that a name or a pattern such as `calls/*.wav` stands for, in alphabetical order.

    Args:
        name: As it was given.
        outputs: Files that are to be written; a pattern does not stand for what was kept of them.

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
    return without_parts(paths, outputs)


def suffix_of(output: Path) -> str:
    """The format of an output, by its name.

    Raises:
        ValueError: It is none of `SUFFIXES`.
    """
    if (suffix := output.suffix.lower()) not in SUFFIXES:
        raise ValueError(f"the output {str(output)!r} is none of {', '.join(SUFFIXES)}: name such a file with -o.")
    return suffix
