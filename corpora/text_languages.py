"""Leaves out words in languages that the text encoder of a model does not read, where a table states the language."""

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from .schema import UNKNOWN
from .shards import annotation_settings

logger = logging.getLogger(__name__)

LANGUAGE = "language"
# What is in the language of the speech; a description is in that of its writer.
WORDS: tuple[str, ...] = ("transcript", "emphasis", "words")


def annotated_language(source: str) -> str | None:
    """Return the language that `annotate` was told of a folder of shards; `None` for any other source."""
    return ((annotation_settings(source) or {}).get("transcript") or {}).get(LANGUAGE)


def stated_language(value: Any) -> str | None:
    """Return what a cell of the column `language` states; `None` if it is blank or says that it is not known."""
    text = "" if value is None else str(value).strip()
    return None if text.lower() in ("", *UNKNOWN) else text


def unread_languages(
    table: pa.Table, text_languages: Sequence[str], otherwise: str | None, row: Callable[[int], str] | None = None
) -> np.ndarray:
    """Return the language of each row whose words are not read.

    Args:
        table: Its column `language` states the languages, if there is one.
        text_languages: The codes of those that are read.
        otherwise: The language of rows that state none; `None` if it is not known.
        row: What messages call a row; without it, an unknown language is nobody's concern here.

    Returns:
        `(rows,)`, codes; "" where the words are read, as they are where nobody states the language.

    Raises:
        ValueError: A language is unknown; the sentence names the row.
    """
    from ..languages_msfser import language_code, why_not_read  # slow, and few tables need it

    values = table[LANGUAGE].to_pylist() if LANGUAGE in table.column_names else [None] * len(table)
    codes: dict[str | None, str] = {}
    found = []
    for index, value in enumerate(values):
        language = stated_language(value) or otherwise
        if language not in codes:
            try:
                is_read = why_not_read(language, text_languages) is None
            except ValueError as error:
                if row is None:
                    found.append("")
                    continue
                reason = str(error).removesuffix(".")
                raise ValueError(f"{row(index)}: {reason}, or rename the column {LANGUAGE!r}.") from error
            codes[language] = "" if is_read else str(language_code(language))
        found.append(codes[language])
    return np.array(found, dtype=object)


def without_unread_words(source: str, table: pa.Table, unread: np.ndarray, text_languages: Sequence[str]) -> pa.Table:
    """Return the rows without words in languages that are not read, with one warning that counts them.

    Args:
        source: What messages call the whole.
        table: Columns of the schema, or some of them.
        unread: As [`unread_languages`] gives them.
        text_languages: The codes of those that are read.
    """
    names = [name for name in WORDS if name in table.column_names]
    has_words = np.logical_or.reduce([table[name].is_valid().to_numpy() for name in names], initial=False)
    left_out = Counter(unread[has_words & (unread != "")].tolist())
    if not left_out:
        return table
    logger.warning(
        "%s: left out the words of %d rows in %s, because the model reads only %s; they are kept where no language is "
        "stated, or by a model that was trained with --text_languages none",
        *(source, left_out.total(), ", ".join(sorted(left_out)), ", ".join(text_languages)),
    )
    for name in names:
        kept = pc.if_else(pa.array(unread != "", pa.bool_()), pa.scalar(None, table[name].type), table[name])
        table = table.set_column(table.column_names.index(name), name, kept)
    return table
