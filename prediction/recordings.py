"""Which recordings the arguments of `msfser predict` name: files, folders, patterns, or one table."""

import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import pyarrow as pa

from ..corpora.audio_folder import left_out_message, name_as_text, scan_folder, why_no_text
from ..corpora.registry import CORPORA, read_source
from ..corpora.sources import TABLE_SUFFIXES, holds_table
from ..corpora.table import SourceRows
from .paths import matches


def find_recordings(
    names: Sequence[str],
    columns: Mapping[str, str] | None = None,
    audio_folder: str | None = None,
    corpus: str = "table",
    parts: Sequence[str] = (),
    outputs: Iterable[Path] = (),
) -> SourceRows:
    """Finds recordings, in the order in which they are named; a file that is named twice is one recording.

    Args:
        names: Files, folders (with the folders in them) and patterns such as `calls/*.wav`; or one table, or a folder
            with a table.
        columns: Columns of the table that have other names, as in `read_table`.
        audio_folder: Where relative paths of the table start.
        corpus: The reader of a named corpus, whose folder is the one name.
        parts: Only these parts of the named corpus.
        outputs: As in [`matches`].

    Returns:
        The rows; `audio` is the path as it was given, and names in `left_out` start at the working folder. Rows of a
        table that cannot be used are among them, with the reasons in `errors`.

    Raises:
        ValueError: Something is not there, is no recording, or a table is not alone or has no row that can be used.
    """
    if corpus != "table":
        if corpus not in CORPORA:
            raise ValueError(f"--corpus cannot be {corpus!r}: give one of {', '.join(CORPORA)}.")
        if len(names) > 1:
            raise ValueError(
                f"--corpus {corpus} needs one folder, and there are {len(names)}: name that of the corpus."
            )
        return read_source(corpus, names[0], columns=columns, audio_folder=audio_folder, parts=parts)
    if parts:
        raise ValueError("--test belongs to a named corpus: name it with --corpus, or leave --test out.")
    if len(names) == 1 and (_is_table(names[0]) or (os.path.isdir(names[0]) and holds_table(names[0]))):
        source = read_source("table", names[0], columns=columns, audio_folder=audio_folder, with_errors=True)
        return source._replace(left_out=_from_here(names[0], source.left_out))
    if columns or audio_folder:
        raise ValueError("--columns and --audio_folder belong to a table: leave them out, or name one table.")
    found: dict[str, str] = {}  # absolute path to the path as given
    left_out: dict[str, str] = {}
    for name in names:
        for path in matches(name, outputs):
            if os.path.isdir(path):
                contents = scan_folder(path)
                for file in contents.recordings:
                    found.setdefault(file, os.path.join(path, os.path.relpath(file, os.path.abspath(path))))
                left_out |= _from_here(path, contents.left_out)
            elif _is_table(path):
                raise ValueError(
                    f"{path} is a table: name it alone, and predict the other recordings in a second run."
                )
            elif why := why_no_text(path):
                left_out[name_as_text(path)] = why
            else:
                found.setdefault(os.path.abspath(path), path)
    if not found:
        others = f" ({left_out_message(left_out).removesuffix('.')})" if left_out else ""
        raise ValueError(f"there is no recording in {', '.join(names)}{others}: name files, folders or one table.")
    table = pa.table({"audio": pa.array(found.values(), pa.string())})
    return SourceRows(table, list(found), None, Path.cwd(), _origin(names), list(found.values()), left_out)


def refuse_to_replace(outputs: Iterable[Path], names: Sequence[str], corpus: str, source: SourceRows) -> None:
    """Refuses outputs that are in the place of what a folder is read from.

    Args:
        outputs: Files that are to be written.
        names: As in [`find_recordings`], like `corpus`.
        corpus: The reader.
        source: What was found.

    Raises:
        ValueError: An output is the table of the folder, or one of the files of a dataset or a named corpus.
    """
    folder = Path(names[0]).resolve()
    if not folder.is_dir() or (corpus == "table" and not (len(names) == 1 and holds_table(folder))):
        return
    table = Path(source.origin)
    for output in outputs:
        place = output.resolve()
        is_read = place == table if table.is_file() else place.is_file() and folder in place.parents
        if is_read:
            raise ValueError(
                f"{output} belongs to {names[0]}, which is read, and would be replaced: give another name."
            )


def _from_here(folder: str, names: Mapping[str, str]) -> dict[str, str]:
    return {os.path.join(folder, name): why for name, why in names.items()}


def _origin(names: Sequence[str]) -> str:
    """A short text that tells what was named from anything else; names can be very many."""
    given = list(dict.fromkeys(os.path.abspath(name) for name in names))
    if len(given) == 1:
        return given[0]
    digest = hashlib.sha256(os.fsencode("\0".join(given))).hexdigest()[:16]
    return f"{given[0]} and {len(given) - 1} more ({digest})"


def _is_table(name: str) -> bool:
    return os.path.isfile(name) and os.path.splitext(name)[1].lower() in TABLE_SUFFIXES
