"""Brings the columns of a source into the schema: which column is which, and texts, labels, word times and splits."""

import difflib
import json
from collections import Counter
from collections.abc import Collection, Iterable, Mapping

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from .schema import ALIASES, SCHEMA, SPLIT_ALIASES, SPLITS
from .sources import Part

COLUMNS: tuple[str, ...] = (*SCHEMA.names, "split")
WORDS: pa.DataType = SCHEMA.field("words").type

_DECIMAL_COMMA = r"^\s*([+-]?(\d+(,\d*)?|,\d+))?\s*$"
_NOT_ARROW = (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError, UnicodeEncodeError, OverflowError)


def match_columns(
    part: Part,
    columns: Mapping[str, str],
    required: Iterable[str],
    optional: Collection[str] = (),
    elsewhere: Collection[str] = (),
) -> dict[str, str]:
    """Find the source column of each name of `COLUMNS`, where there is one: that of `columns`, or of its name.

    Args:
        part: The table.
        columns: Source column per name of the schema.
        required: Names that must be there.
        optional: Names that may be missing even if `columns` has them.
        elsewhere: Columns of the other parts of the source: where one of them is mapped that this part does not have,
            this part goes by its own names.

    Raises:
        ValueError: A required column is missing, one occurs more than once, several could be meant, or `columns` names
            one that the schema does not have.
    """
    if unknown := sorted(columns.keys() - {*COLUMNS}):
        raise ValueError(
            f"--columns names {unknown}, which the schema does not have; it has {[*COLUMNS]}: write NAME=COLUMN, such "
            "as --columns valence=val."
        )
    present = part.table.column_names
    found: dict[str, str] = {}
    missing: dict[str, str] = {}
    for name in COLUMNS:
        mapped = columns.get(name)
        is_mapped = mapped is not None and (mapped in present or mapped not in elsewhere)
        candidates = [mapped] if mapped is not None and is_mapped else [name, *ALIASES.get(name, ())]
        hits = [candidate for candidate in candidates if candidate in present]
        if len(hits) > 1 and hits[0] != name:
            raise ValueError(
                f"{part.label}: the columns {hits} could all be {name!r}; choose one, such as --columns "
                f"{name}={hits[0]}."
            )
        if hits:
            found[name] = hits[0]
        elif name in required or (is_mapped and name not in optional):
            missing[name] = " or ".join(map(repr, candidates))
    check_unique(part, found.values())
    if missing:
        name = next(iter(missing))
        free = [column for column in present if column not in found.values()]
        near = [column for column in free if column and name.startswith(column.lower())]
        near += difflib.get_close_matches(name, free, 1)
        raise ValueError(
            f"{part.label}: missing columns {', '.join(missing.values())}; there are {present}; rename them, or map "
            f"them, such as --columns {name}={(near or ['COLUMN'])[0]}."
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
    values, (low, high) = with_points(part, column), label_range
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
        ends = f" (its values are {np.nanmin(numbers):g} to {np.nanmax(numbers):g})"
        raise ValueError(
            f"{part.row(index)}: {column} is {values[index].as_py()!r}, outside the label_range {low:g} to {high:g}; "
            f"correct it{'' if part.official else f', or give the range of this table by --label_range{ends}'}."
        )
    from ..processing_msfser import from_scale  # slow, and tables without labels do not need it

    scaled = np.clip(from_scale(numbers, low, high), 0.0, 1.0).astype(np.float32)
    return pa.array(scaled, from_pandas=True)


def with_points(part: Part, column: str) -> pa.ChunkedArray:
    """Return a column with decimal points where all its numbers have none, and the table may have decimal commas."""
    values = part.table[column]
    if b"decimal" not in (part.table.schema.metadata or {}) or not pa.types.is_string(values.type):
        return values
    has_commas = pc.any(pc.match_substring(values, ",")).as_py()
    if not has_commas or not pc.all(pc.match_substring_regex(values, _DECIMAL_COMMA)).as_py():
        return values
    return pc.replace_substring(values, ",", ".")


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


def split_column(part: Part, column: str | None) -> tuple[pa.Array, dict[str, str]]:
    """Return the canonical split of each row: from a column, or else from the name of the part; null without both.

    Returns:
        The splits, and the canonical one of each name that is written.
    """
    count = len(part.table)
    if column is None and not part.name:
        return pa.nulls(count, pa.string()), {}
    names = pa.repeat(part.name, count) if column is None else text_column(part, column)
    given = names.to_pandas().astype(object)
    known = {**{split: split for split in SPLITS}, **SPLIT_ALIASES}
    written = given.str.strip().str.lower()
    canonical = written.map(known)
    if canonical.isna().any():
        index = int(canonical.isna().to_numpy().argmax())
        value = "blank" if pd.isna(given.iloc[index]) else repr(given.iloc[index])
        raise ValueError(
            f"{part.row(index)}: the split is {value}, which is none of {', '.join(known)}; write one of these."
        )
    return pa.array(canonical, pa.string()), {name: known[name] for name in written.unique()}


def check_split_names(name: str, written: Mapping[str, str]) -> None:
    """Refuse two names of one split: in some corpora, `eval` is the test part.

    Args:
        name: Of the source.
        written: The canonical split of each name.
    """
    for split in SPLITS:
        names = sorted(other for other, canonical in written.items() if canonical == split)
        if len(names) > 1:
            raise ValueError(
                f"{name}: the splits {' and '.join(map(repr, names))} would both be {split}; name them "
                f"{', '.join(SPLITS)}."
            )
