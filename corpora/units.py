"""The units of cross-validation: what is left out together, such as the recordings of one speaker."""

import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import datasets
import numpy as np
import pyarrow.compute as pc

from .audio_paths import real_path_finder
from .columns import text_column
from .duplicates import check_duplicate_contents, check_duplicate_files
from .label_ranges import LabelRange
from .registry import CORPORA, read_corpus, ready_data
from .schema import SCHEMA
from .sources import Part, read_csv
from .table import POOLED, open_table, read_table

logger = logging.getLogger(__name__)

_SPEAKER, _SESSION = "speaker", "session"


def read_units(
    corpus: str,
    data: str,
    grouping: str,
    *,
    label_range: LabelRange = (0.0, 1.0),
    columns: Mapping[str, str] | None = None,
    audio_folder: str | os.PathLike[str] | None = None,
    group_file: str | os.PathLike[str] | None = None,
    speaker_from: str | None = None,
    text_languages: Sequence[str] = (),
) -> datasets.Dataset:
    """Read all rows of a corpus, whatever parts it has, with the unit of each.

    Args:
        corpus: A key of `CORPORA`.
        data: As in `read_corpus`.
        grouping: What a unit is: `speaker`, `session` where the corpus has sessions, or a column of the table.
        label_range: As in `read_table`, like the next two.
        columns: Source column per name of the schema.
        audio_folder: Where relative audio paths start.
        group_file: A CSV table with the columns `unit` and `group`: units with the same group become one unit.
        speaker_from: As in `read_table`, like `text_languages`.
        text_languages: Codes of languages.

    Returns:
        Rows of the schema in the order of the table, and `unit`, a string.

    Raises:
        ValueError: The corpus, the grouping or the group file is not as described, a row has no unit, or a recording
            is in more than one unit; one sentence.
    """
    if corpus == "table":
        source = ready_data(corpus, data)
        rows, units, names = _of_table(
            source, grouping, label_range, columns, audio_folder, speaker_from, text_languages
        )
    else:
        rows, units, names = _of_corpus(corpus, data, grouping)
    if missing := [name for name, unit in zip(names, units, strict=True) if unit is None]:
        raise ValueError(
            f"{data}: {missing[0]} has no {grouping} ({len(missing)} such); fill in the column {grouping!r}, remove "
            "these rows, or cross-validate over another column."
        )
    if group_file is not None:
        units = _grouped(units, Path(group_file))
    # Sessions are a partition by the corpus's owners; who speaks decides here what is left out together.
    _check_duplicates(data, rows, np.array(units, dtype=object), corpus != "table" and grouping == _SESSION)
    return rows.add_column("unit", units, feature=datasets.Value("string"))


def _of_table(
    source: str,
    grouping: str,
    label_range: LabelRange,
    columns: Mapping[str, str] | None,
    audio_folder: str | os.PathLike[str] | None,
    speaker_from: str | None,
    text_languages: Sequence[str],
) -> tuple[datasets.Dataset, list[str | None], list[str]]:
    """The rows of a table, the unit of each, and what messages call each."""
    rows = read_table(
        source,
        label_range=label_range,
        columns=columns,
        audio_folder=audio_folder,
        pooled=True,
        speaker_from=speaker_from,
        text_languages=text_languages,
    )[POOLED]
    opened = open_table(source, columns=columns, audio_folder=audio_folder)
    free = [name for name in opened.table.column_names if name == _SPEAKER or name not in SCHEMA.names]
    is_in_names = grouping == _SPEAKER and speaker_from is not None
    if not is_in_names and grouping not in free:
        raise ValueError(
            f"{source}: there is no column {grouping!r} to cross-validate over; there are {', '.join(free)}."
        )
    if "split" in opened.table.column_names and grouping != "split":
        logger.info("%s: its parts are pooled for cross-validation", source)
    of_table = Part("", opened.table, None, source)
    named = rows[_SPEAKER] if is_in_names else pc.utf8_trim_whitespace(text_column(of_table, grouping)).to_pylist()
    units = list(named)
    return rows, units, [opened.row(index) for index in range(len(units))]


def _of_corpus(corpus: str, data: str, grouping: str) -> tuple[datasets.Dataset, list[str | None], list[str]]:
    """As [`_of_table`], of a corpus in its owners' layout."""
    entry = CORPORA[corpus]
    rows = read_corpus(corpus, data, fold=1 if entry.folds else None, pooled=True)[POOLED]  # all folds have the same
    known = [_SPEAKER] if entry.session_of is None else [_SPEAKER, _SESSION]
    if grouping not in known:
        raise ValueError(f"the corpus {corpus} can be cross-validated over {' or '.join(known)}, not {grouping}.")
    logger.info("%s: its parts are pooled for cross-validation", data)
    units = list(rows[_SPEAKER])
    if grouping == _SESSION and entry.session_of is not None:
        units = [None if speaker is None else entry.session_of(speaker) for speaker in units]
    return rows, units, [f"row {number}" for number in range(1, len(units) + 1)]


def _grouped(units: list[str | None], path: Path) -> list[str | None]:
    """The group of each unit; a unit that the file does not name is in the group of its name."""
    if not path.is_file():
        raise ValueError(f"--group_file is {str(path)!r}, which is no file; give a CSV table with unit,group.")
    table = read_csv(path).to_pandas()
    if not {"unit", "group"} <= set(table):
        raise ValueError(f"{path}: a group file has the columns unit and group; there are {', '.join(table)}.")
    pairs = table[["unit", "group"]].apply(lambda column: column.str.strip()).drop_duplicates()
    if (blank := (pairs == "").any(axis=1)).any():
        raise ValueError(f"{path}: row {blank.idxmax() + 1} has no unit or no group; fill it in or remove it.")
    if (repeated := pairs["unit"].duplicated()).any():
        raise ValueError(f"{path}: the unit {pairs['unit'][repeated.idxmax()]!r} is in two groups; keep one.")
    group_of = dict(zip(pairs["unit"], pairs["group"], strict=True))
    if unknown := sorted(group_of.keys() - set(units)):
        raise ValueError(
            f"{path}: the data have no unit {unknown[0]!r}; write units as they are, such as {min(map(str, units))!r}."
        )
    return [group_of.get(str(unit), unit) for unit in units]


def _check_duplicates(name: str, rows: datasets.Dataset, units: np.ndarray, official: bool) -> None:
    sounds = rows.select_columns(["audio"])
    audio = sounds.with_format("arrow")[:]["audio"]
    files = pc.struct_field(audio, "path").to_pylist()
    if pc.any(pc.struct_field(audio, "bytes").is_valid()).as_py():
        check_duplicate_contents(name, sounds, units, official, kind="unit")
    elif None not in files:
        real_path = real_path_finder()
        check_duplicate_files(name, files, [*map(real_path, files)], units, official, kind="unit")
