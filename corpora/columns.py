"""Brings the columns of a source into the schema: texts, labels, speakers and word times."""

import difflib
import json
import logging
import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from ..configuration_msfser import LABELS
from .label_ranges import half_step
from .schema import ALIASES, DISTRIBUTED, SCHEMA, UNKNOWN
from .sources import Part

logger = logging.getLogger(__name__)

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
        further = () if mapped is not None and is_mapped else DISTRIBUTED.get(name, ())
        hits = [candidate for candidate in (*candidates, *further) if candidate in present]
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
        two = ""
        if len(missing) == 1 and name in LABELS and name not in columns and not part.official:
            others = " ".join(f"{label}=0:1" for label in LABELS if label != name)
            two = f"two dimensions are enough if you give only their ranges, such as --label_range {others}; else "
        raise ValueError(
            f"{part.label}: missing columns {', '.join(missing.values())}; there are {present}; {two}rename them, or "
            f"map them, such as --columns {name}={(near or ['COLUMN'])[0]}."
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


def speaker_column(part: Part, column: str) -> pa.ChunkedArray:
    """Return a column of trimmed speakers; "Unknown" and "NA" are no speakers, and a number such as "30.0" is "30"."""
    return _known_speakers(text_column(part, column))


def _known_speakers(speakers: pa.ChunkedArray) -> pa.ChunkedArray:
    speakers = pc.utf8_trim_whitespace(speakers)
    is_known = pc.invert(pc.is_in(pc.utf8_lower(speakers), pa.array(UNKNOWN)))
    known = pc.if_else(is_known, speakers, pa.scalar(None, pa.string()))
    return pc.replace_substring_regex(known, r"^(\d+)\.0+$", r"\1")


def speakers_of_names(part: Part, names: Sequence[str | None], pattern: str) -> pa.ChunkedArray:
    """Return the speaker that the path of each recording names, as [`speaker_column`] does that of a column.

    Args:
        part: The table.
        names: The paths as they are written.
        pattern: A regular expression that is searched in each; its group `speaker`, or else its first group, or else
            all of it is the speaker.

    Raises:
        ValueError: It is no regular expression, or a path does not have it.
    """
    try:
        search = re.compile(pattern)
    except re.error as error:
        raise ValueError(f"--speaker_from {pattern!r} is no regular expression ({error}); correct it.") from None
    group: str | int = "speaker" if "speaker" in search.groupindex else min(search.groups, 1)
    speakers = []
    for index, name in enumerate(names):
        match = search.search(name or "")
        if match is None or not (match[group] or "").strip():
            raise ValueError(
                f"{part.row(index)}: --speaker_from {pattern!r} finds no speaker in {name!r}; correct it, or name the "
                "speakers in a column."
            )
        speakers.append(match[group])
    return _known_speakers(pa.chunked_array([speakers], pa.string()))


def label_column(part: Part, column: str, label_range: tuple[float, float], required: bool) -> pa.Array:
    """Return a column of labels, scaled from the range to 0..1 in float32.

    Means of ratings up to half a step outside a scale of whole numbers are moved to its end, with one warning that
    counts them.
    """
    values, (low, high) = with_points(part, column), label_range
    numbers, blank = _numbers(part, column, values)
    unknown = np.isnan(numbers) if required else np.isnan(numbers) & ~blank
    if unknown.any():
        index = int(unknown.argmax())
        remedy = "give a number or remove the row" if required else "give a number or leave it blank"
        value = values[index].as_py()
        shown = "blank" if value is None or not str(value).strip() else f"{value!r}, not a number"
        raise ValueError(f"{part.row(index)}: {column} is {shown}; {remedy}.")
    # Means over raters that were stored in float32 may miss the bounds by rounding.
    slack = 1e-6 * (high - low)
    step = 0.0 if part.official else half_step(low, high)
    beyond = np.maximum(low - numbers, numbers - high)
    outside = beyond > step + slack
    if outside.any():
        index = int(outside.argmax())
        ends = f" (its values are {np.nanmin(numbers):g} to {np.nanmax(numbers):g})"
        raise ValueError(
            f"{part.row(index)}: {column} is {values[index].as_py()!r}, outside the label_range {low:g} to {high:g}; "
            f"correct it{'' if part.official else f', or give the range of this table by --label_range{ends}'}."
        )
    if moved := int((beyond > slack).sum()):
        logger.warning(
            "%s: %d of %d values of %s are up to half a step outside %g to %g and were moved to its end",
            *(part.label, moved, len(numbers), column, low, high),
        )
    from ..processing_msfser import from_scale  # slow, and tables without labels do not need it

    scaled = np.clip(from_scale(numbers, low, high), 0.0, 1.0).astype(np.float32)
    return pa.array(scaled, from_pandas=True)


def _numbers(part: Part, column: str, values: pa.ChunkedArray) -> tuple[np.ndarray, np.ndarray]:
    """Return a column as numbers, NaN where it has none, and which cells are blank."""
    kind = values.type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        text = pc.utf8_lower(pc.utf8_trim_whitespace(values))
        blank = pc.fill_null(pc.is_in(text, pa.array(["", *UNKNOWN]).cast(kind)), True).to_numpy()
        numbers = pd.to_numeric(values.to_pandas(), errors="coerce").to_numpy(np.float64, na_value=np.nan)
        return numbers, blank
    try:
        if pa.types.is_nested(kind) or pa.types.is_boolean(kind) or pa.types.is_binary(kind):
            raise pa.ArrowInvalid(f"{kind} is not a number")
        numbers = values.cast(pa.float64(), safe=False).to_numpy()
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise ValueError(f"{part.label}: the column {column!r} holds {kind}, not numbers; write numbers.") from error
    return numbers, np.isnan(numbers)


def with_points(part: Part, column: str) -> pa.ChunkedArray:
    """Return a column with decimal points where all its numbers have none, and the table may have decimal commas."""
    values = part.table[column]
    if b"decimal" not in (part.table.schema.metadata or {}) or not pa.types.is_string(values.type):
        return values
    has_commas = pc.any(pc.match_substring(values, ",")).as_py()
    if not has_commas or not pc.all(pc.match_substring_regex(values, _DECIMAL_COMMA)).as_py():
        return values
    return pc.replace_substring(values, ",", ".")


def word_column(part: Part, column: str, errors: dict[int, str] | None = None) -> pa.Array:
    """Return word times: lists of `{"word", "start", "end"}` in seconds, or JSON text of such lists.

    Args:
        part: The table.
        column: Of the words.
        errors: As in [`Part.refuse`], for cells with anything else.

    Raises:
        ValueError: A cell holds anything else, and there is no `errors`.
    """
    values = part.table[column]
    if values.type == WORDS:
        words = values.combine_chunks()
    else:
        cells = []
        for index, value in enumerate(values.to_pylist()):
            try:
                cells.append(_words(column, value))
            except ValueError as error:
                part.refuse(index, str(error), errors)
                cells.append(None)
        words = pa.array(cells, WORDS)
    flat = words.flatten()
    word, start, end = flat.flatten()
    is_blank = word.is_null().to_numpy(zero_copy_only=False)
    start, end = start.to_numpy(zero_copy_only=False), end.to_numpy(zero_copy_only=False)
    wrong = is_blank | ~(np.isfinite(start) & np.isfinite(end) & (start >= 0) & (start <= end))
    rows = pc.list_parent_indices(words)
    for at in np.flatnonzero(wrong):
        why = f"{flat[at].as_py()} in {column!r} needs a word, and times in seconds with 0 <= start <= end."
        part.refuse(rows[at].as_py(), why, errors)
    return words


def _words(column: str, value: object) -> object:
    """Return a cell of words, decoded where it is JSON text."""
    if isinstance(value, str):
        try:
            value = json.loads(value) if value.strip() else None
        except (ValueError, RecursionError) as error:
            raise ValueError(f"the text in {column!r} is not JSON ({error}).") from error
    try:
        # By itself, a list of pairs would be accepted as a word; beside a word it is not.
        pa.array([[{"word": "a", "start": 0.0, "end": 0.0}], value], WORDS)
    except _NOT_ARROW:
        raise ValueError(f"{column!r} is not a list of {{'word', 'start', 'end'}} with times in seconds.") from None
    return value
