"""What commands write: a file is there whole or not at all, and nothing is replaced unasked."""

import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path

# The end of the names of files that are being written. A killed command leaves one behind.
UNFINISHED = ".unfinished"
_UNFINISHED_NAME = re.compile(rf"\.(?P<name>.+)\.\w+{re.escape(UNFINISHED)}")


def refuse_existing(path: Path, overwrite: bool, leftover: Path | None = None) -> None:
    """Checks that an output file may be written.

    Args:
        path: The file that the user named.
        overwrite: Whether the user wants to replace it.
        leftover: The folder in which an interrupted run keeps what belongs to the file.

    Raises:
        OSError: The file exists and is not to be replaced, or the name is that of a folder.
    """
    if path.is_dir():
        raise IsADirectoryError(f"{str(path)!r} is a folder: give the name of the output file.")
    if path.exists() and not overwrite:
        if leftover is not None and leftover.is_dir():
            raise FileExistsError(
                f"{path} exists, and so does {leftover} of an interrupted run: give another name, or go on with "
                f"--overwrite, which replaces {path}."
            )
        raise FileExistsError(f"{path} exists: give another name, or replace it with --overwrite.")


def make_folder(folder: Path) -> None:
    """Makes the folder of an output, and those above it.

    Raises:
        OSError: It cannot be made; the sentence names the remedy.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OSError(
            f"the output {str(folder)!r} cannot be made ({error.strerror or error}): name another folder."
        ) from error


def named_by_user(path: str) -> Path:
    """The output that a file, or the folder of a file, is the unfinished form of; other paths as they are."""
    parts = Path(path).parts
    for index, part in enumerate(parts):
        if found := _UNFINISHED_NAME.fullmatch(part):
            return Path(*parts[:index], found["name"])
    return Path(path)


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Gives the name of a file to write beside `path`, which it replaces at the end of the block.

    After an error, or if the process is killed, `path` is as it was before.

    Raises:
        OSError: The file cannot be written.
    """
    make_folder(path.parent)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}{UNFINISHED}")
    try:
        yield unfinished
        with open(unfinished, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Writes a text file whole or not at all."""
    with whole_file(path) as unfinished:
        unfinished.write_text(text, encoding="utf-8")
