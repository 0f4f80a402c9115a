"""What the readers of corpora in their owners' layout share: the report of missing files, texts and word times."""

import logging
import os
import re
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from .sources import read_csv

logger = logging.getLogger(__name__)

_BRACKETED = re.compile(r"\[[^\]]*\]")


def existing_folder(folder: str | os.PathLike[str], content: str) -> Path:
    """Return the path of a folder, or raise a `ValueError` that asks for the one that holds `content`."""
    if not os.path.isdir(folder):
        raise ValueError(f"{os.fspath(folder)}: there is no such folder; name the one that holds {content}.")
    return Path(folder)


def lacking(names: Sequence[str], total: int, what: str) -> list[str]:
    """Return at most one entry of a report: the number of missing things, of how many, and the first three names."""
    return [f"{len(names)} of {total} {what}, such as {', '.join(map(repr, names[:3]))}"] if names else []


def require_whole(corpus: str, folder: Path, missing: Sequence[str]) -> None:
    """Raise a `ValueError` that lists the entries of the report, if there are any."""
    if missing:
        raise ValueError(
            f"{folder}: this copy of {corpus} is not whole; missing are {'; '.join(missing)}; copy it again as its "
            "owners distribute it."
        )


def read_labels(
    folder: Path, name: str, columns: Sequence[str], split: str, splits: Collection[str]
) -> tuple[pa.Table | None, list[str]]:
    """Read a CSV file of labels that must have the columns, and rows of all the splits in the column `split`.

    Returns:
        All rows, `None` where the file or a column is missing; and the entries of the report.
    """
    if not (folder / name).is_file():
        return None, [f"the file {name}"]
    rows = read_csv(folder / name)
    if absent := [column for column in columns if column not in rows.column_names]:
        return None, [f"the columns {', '.join(absent)} of {name}"]
    present = set(pc.unique(rows[split]).to_pylist())
    return rows, [f"the rows of {part} in {name}" for part in splits if part not in present]


def file_names(folder: Path) -> set[str]:
    """Return the names in a folder, without hidden files such as the `._*` that some systems add."""
    return {name for name in os.listdir(folder) if not name.startswith(".")}


def read_text(path: Path) -> str:
    """Return the text of a file in UTF-8, or in Windows-1252 as older corpora have it."""
    content = path.read_bytes()
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return content.decode("cp1252", errors="replace")


def spoken_text(text: str, marks: re.Pattern[str] = _BRACKETED) -> str:
    """Return a transcript on one line, without marks such as `[LAUGHTER]`; "" where nothing is said."""
    return " ".join(marks.sub(" ", text).split())


def as_written(words: Sequence[dict[str, Any]], transcript: str) -> list[dict[str, Any]]:
    """Return aligned words `{"word", "start", "end"}` in the spelling of the transcript, punctuation included.

    Where the transcript has another number of words, they stay as the aligner spells them, in lower case. Parts of the
    transcript without a letter or digit are no words.
    """
    written = [word for word in transcript.split() if any(map(str.isalnum, word))]
    if len(written) != len(words):
        written = [word["word"].lower() for word in words]
    return [word | {"word": text} for word, text in zip(words, written, strict=True)]


def warn_of_missing_times(folder: Path, words: Sequence[object]) -> None:
    """Warn of utterances whose words have no times."""
    if count := words.count(None):
        logger.warning("%s: %d of %d utterances have no word times", folder, count, len(words))
