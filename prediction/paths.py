"""Names on the command line of `msfser predict`; checking them imports nothing slow."""

import glob
import os
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

SUFFIXES = (".csv", ".jsonl", ".parquet")


def parts_of(output: Path) -> Path:
    """The folder in which predictions are kept until the table is whole."""
    return output.with_name(f"{output.name}.parts")


def written_for(outputs: Iterable[Path]) -> frozenset[str]:
    """The real paths of what a command writes, also of what an interrupted one left."""
    return frozenset(os.path.realpath(path) for output in outputs for path in (output, parts_of(output)))


def others(paths: Sequence[str], written: Collection[str]) -> list[str]:
    """Paths without those that the command writes, which a pattern of the shell or of ours finds beside recordings.

    If there is nothing else, they were meant, and are kept to be refused.
    """
    return [path for path in paths if os.path.realpath(path) not in written] or [*paths]


def matches(name: str, written: Collection[str] = ()) -> list[str]:
    """The files and folders that a name or a pattern such as `calls/*.wav` stands for, in alphabetical order.

    Args:
        name: As it was given.
        written: Real paths that a pattern does not stand for, as in [`others`].

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
    return others(paths, written)


def suffix_of(output: Path) -> str:
    """The format of an output, by its name.

    Raises:
        ValueError: It is none of `SUFFIXES`.
    """
    if (suffix := output.suffix.lower()) not in SUFFIXES:
        raise ValueError(f"the output {str(output)!r} is none of {', '.join(SUFFIXES)}: name such a file with -o.")
    return suffix
