"""Brings the columns of a source into the schema: which column is which, and texts, labels, word times and splits."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from ..processing_msfser import from_scale
from .schema import ALIASES, SCHEMA, SPLIT_ALIASES, SPLITS
from .sources import Part

COLUMNS: tuple[str, ...] = (*SCHEMA.names, "split")
WORDS: pa.DataType = SCHEMA.field("words").type

_NOT_ARROW = (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError, UnicodeEncodeError, OverflowError)


def match_columns(part: Part, columns: Mapping[str, str], required: Iterable[str]) -> dict[str, str]:
    """Find the source column of each name of `COLUMNS`, where there is one: that of `columns`, or of its name.

    Raises:
        ValueError: A required column is missing, one occurs more than once, several could be meant, or `columns` names
            one that the schema does not have.
    """
    if unknown := sorted(columns.keys() - {*COLUMNS}):
        raise ValueError(f"columns names {unknown}, which the schema does not have; it has {[*COLUMNS]}.")
    present = part.table.column_names
    found, missing = {}, []
    for name in COLUMNS:
        candidates = [columns[name]] if name in columns else [name, *ALIASES.get(name, ())]
        hits = [candidate for candidate in candidates if candidate in present]
        if len(hits) > 1 and hits[0] != name:
            raise ValueError(
                f"{part.label}: the columns {hits} could all be {name!r}; choose by columns={{{name!r}: ...}}."
            )
        if hits:
            found[name] = hits[0]
        elif name in columns or name in required:
            missing.append(" or ".join(map(repr, candidates)))
    check_unique(part, found.values())
    if missing:
        raise ValueError(
            f"{part.label}: missing columns {', '.join(missing)}; there are {present}; rename them or map them by "
            "columns."
        )
    return found


def check_unique(part: Part, columns: Iterable[str]) -> None:
    """Refuse columns of which the table has several."""
    counts = Counter(part.table.column_names)
    if repeated := [column for column in columns if counts[column] > 1]:
        raise ValueError(f"{part.label}: the column {repeated[0]!r} occurs more than once; rename or remove one.")


def text_column(part: Part, column: str, values: pa.ChunkedArray | None = None) -> pa.ChunkedArray:
    """Return a column, or the values made of it, as text; blank cells become null."""
    values = part.table[column] if values is None else values
    try:
        if pa.types.is_nested(values.type) or pa.types.is_binary(values.type):
            raise pa.ArrowInvalid(f"{values.type} is not text")
        values = values.cast(pa.string())
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise ValueError(f"{part.label}: the column {column!r} holds no text ({error}); write it as text.") from error
    blank = pc.equal(pc.utf8_trim_whitespace(values), "")
    return pc.if_else(blank, pa.scalar(None, pa.string()), values)


def label_column(part: Part, column: str, label_range: tuple[float, ...], required: bool) -> pa.Array:
    """Return a column of labels, scaled from the range to 0..1 in float32."""
    values, (low, high) = part.table[column], label_range
    kind = values.type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        blank = pc.fill_null(pc.equal(pc.utf8_trim_whitespace(values), ""), True).to_numpy()
        numbers = pd.to_numeric(values.to_pandas(), errors="coerce").to_numpy(np.float64, na_value=np.nan)
    else:
        try:
            if pa.types.is_nested(kind) or pa.types.is_boolean(kind) or pa.types.is_binary(kind):
                raise pa.ArrowInvalid(f"{kind} is not a number")
            numbers = values.cast(pa.float64(), safe=False).to_numpy()
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            raise ValueError(
                f"{part.label}: the column {column!r} holds {kind}, not numbers; write numbers."
            ) from error
        blank = np.isnan(numbers)
    unknown = np.isnan(numbers) if required else np.isnan(numbers) & ~blank
    if unknown.any():
        index = int(unknown.argmax())
        remedy = "give a number or remove the row" if required else "give a number or leave it blank"
        raise ValueError(f"{part.row(index)}: {column} is {values[index].as_py()!r}, not a number; {remedy}.")
    # Means over raters that were stored in float32 may miss the bounds by rounding.
    slack = 1e-6 * (high - low)
    outside = (numbers < low - slack) | (numbers > high + slack)
    if outside.any():
        index = int(outside.argmax())
        raise ValueError(
            f"{part.row(index)}: {column} is {values[index].as_py()!r}, outside the label_range {low:g} to {high:g}; "
            "correct it, or give the range of this table as label_range."
        )
    scaled = np.clip(from_scale(numbers, low, high), 0.0, 1.0).astype(np.float32)
    return pa.array(scaled, from_pandas=True)


def word_column(part: Part, column: str) -> pa.Array:
    """Return word times: lists of `{"word", "start", "end"}` in seconds, or JSON text of such lists."""
    values = part.table[column]
    if values.type == WORDS:
        words = values.combine_chunks()
    else:
        words = pa.array([_words(part, column, *item) for item in enumerate(values.to_pylist())], WORDS)
    flat = words.flatten()
    word, start, end = flat.flatten()
    is_blank = word.is_null().to_numpy(zero_copy_only=False)
    start, end = start.to_numpy(zero_copy_only=False), end.to_numpy(zero_copy_only=False)
    wrong = is_blank | ~(np.isfinite(start) & np.isfinite(end) & (start >= 0) & (start <= end))
    if wrong.any():
        at = int(wrong.argmax())
        raise ValueError(
            f"{part.row(pc.list_parent_indices(words)[at].as_py())}: {flat[at].as_py()} in {column!r} needs a word, "
            "and times in seconds with 0 <= start <= end."
        )
    return words


def _words(part: Part, column: str, index: int, value: object) -> object:
    """Return a cell of words, decoded where it is JSON text."""
    if isinstance(value, str):
        try:
            value = json.loads(value) if value.strip() else None
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{part.row(index)}: the text in {column!r} is not JSON ({error}).") from error
    try:
        # By itself, a list of pairs would be accepted as a word; beside a word it is not.
        pa.array([[{"word": "a", "start": 0.0, "end": 0.0}], value], WORDS)
    except _NOT_ARROW:
        raise ValueError(
            f"{part.row(index)}: {column!r} is not a list of {{'word', 'start', 'end'}} with times in seconds."
        ) from None
    return value


def split_column(part: Part, column: str | None) -> pa.Array:
    """Return the canonical split of each row: from a column, or else from the name of the part; null without both."""
    count = len(part.table)
    if column is None and not part.name:
        return pa.nulls(count, pa.string())
    names = pa.repeat(part.name, count) if column is None else text_column(part, column)
    given = names.to_pandas().astype(object)
    known = {**{split: split for split in SPLITS}, **SPLIT_ALIASES}
    canonical = given.str.strip().str.lower().map(known)
    if canonical.isna().any():
        index = int(canonical.isna().to_numpy().argmax())
        value = "blank" if pd.isna(given.iloc[index]) else repr(given.iloc[index])
        raise ValueError(
            f"{part.row(index)}: the split is {value}, which is none of {', '.join(known)}; write one of these."
        )
    return pa.array(canonical, pa.string())
