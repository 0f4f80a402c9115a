"""What the readers of corpora in the layout of their owners share: the report of what is missing, and texts."""

import re
from collections.abc import Sequence
from pathlib import Path

_BRACKETED = re.compile(r"\[[^\]]*\]")


def lacking(names: Sequence[str], total: int, what: str) -> list[str]:
    """An entry of a report of what is missing, or none where nothing is.

    Args:
        names: What is missing.
        total: How many there should be.
        what: Their kind, in the plural.

    Returns:
        At most one entry, with the count and the first three names.
    """
    if not names:
        return []
    return [f"{len(names)} of {total} {what}, such as {', '.join(map(repr, names[:3]))}"]


def require_whole(corpus: str, folder: Path, missing: Sequence[str]) -> None:
    """Refuses a tree with gaps.

    Args:
        corpus: Its name.
        folder: Its root.
        missing: Entries of the report.

    Raises:
        ValueError: Something is missing; the one sentence lists all of it.
    """
    if missing:
        raise ValueError(
            f"{folder}: this copy of {corpus} is not whole; missing are {'; '.join(missing)}; copy it again as its "
            "owners distribute it."
        )


def file_names(folder: Path) -> set[str]:
    """The names of what a folder holds, without hidden files such as the `._*` that some systems add."""
    return {path.name for path in folder.iterdir() if not path.name.startswith(".")}


def read_text(path: Path) -> str:
    """The text of a file in UTF-8, or in Windows-1252 as older corpora have it."""
    content = path.read_bytes()
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return content.decode("cp1252", errors="replace")


def spoken_text(text: str) -> str:
    """A transcript on one line, without marks in brackets such as `[LAUGHTER]`; "" where nothing is said."""
    return " ".join(_BRACKETED.sub(" ", text).split())


def as_written(words: Sequence[dict], transcript: str) -> list[dict]:
    """Aligned words in the spelling of the transcript, if it has as many words.

    Args:
        words: `{"word", "start", "end"}` in the spelling of an aligner's dictionary.
        transcript: What is said; parts without a letter or digit are no words.

    Returns:
        The same times with the transcript's words, punctuation included, or else with the given words in lower case.
    """
    written = [word for word in transcript.split() if any(map(str.isalnum, word))]
    if len(written) != len(words):
        written = [word["word"].lower() for word in words]
    return [word | {"word": text} for word, text in zip(words, written, strict=True)]
