"""Reads a table of recordings into the schema of `schema.py`.

The readers of corpora with another layout pass their rows to `read_rows`, which checks them in the same way.
"""

import dataclasses
import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ..configuration_msfser import LABELS
from .audio_paths import audio_paths, locate
from .columns import (
    check_unique,
    label_column,
    match_columns,
    speaker_column,
    speakers_of_names,
    text_column,
    with_points,
    word_column,
)
from .duplicates import check_duplicate_contents, check_duplicate_files
from .label_ranges import LabelRange, Range, ranges_of
from .messages import reason, short_messages
from .schema import SCHEMA, SPLITS, make_dataset
from .sources import Part, Source, open_source, source_of
from .splits import SPLIT_BY, SplitNames, assign_splits
from .text_languages import annotated_language, unread_languages, without_unread_words

logger = logging.getLogger(__name__)

# The one part of a table that is read without its parts.
POOLED = "all"


class SourceRows(NamedTuple):
    """A source whose rows keep all their columns.

    Args:
        table: The rows, without the recordings. Columns that the schema has are called as there, texts are cleaned and
            `words` are of the schema's type; the others are as they are. `split` is the part's name where the source
            has parts. `audio` is the path as it is written, and null where the recording is embedded.
        files: The absolute path of each recording, "" where there is no such file; `None` where they are embedded.
        embedded: The recordings, `{"bytes", "path"}`; `None` where they are files.
        audio_folder: Where relative paths start.
        origin: The absolute path or the Hub name of what was read, which tells sources apart.
        row_names: What messages call each row; by default its number from 1.
        left_out: Where the source is a folder, the files in it that are no rows, each with the reason.
        errors: Why rows cannot be used, by the number of the row from 0.
    """

    table: pa.Table
    files: list[str] | None
    embedded: datasets.Dataset | None
    audio_folder: Path
    origin: str
    row_names: Sequence[str] | None = None
    left_out: dict[str, str] = {}  # noqa: RUF012 - nobody changes it
    errors: dict[int, str] = {}  # noqa: RUF012 - nobody changes it

    def row(self, index: int) -> str:
        """Return what messages call a row."""
        return f"row {index + 1}" if self.row_names is None else self.row_names[index]

    def recording_names(self) -> list[str | None]:
        """Return the path of each recording as it is written, or the name with which it is embedded."""
        if self.embedded is None:
            return self.table["audio"].to_pylist()
        return pc.struct_field(self.embedded.with_format("arrow")[:]["audio"], "path").to_pylist()


@dataclasses.dataclass(frozen=True)
class _Reading:
    """How the rows of a source are read; the fields are arguments of `read_table`."""

    label_range: LabelRange
    columns: Mapping[str, str] = dataclasses.field(default_factory=dict)
    split_seed: int = 0
    allow_speaker_overlap: bool = False
    require_labels: bool = True
    speaker_from: str | None = None
    split_by: str = SPLIT_BY[0]
    test: Sequence[str] = ()
    pooled: bool = False
    text_languages: Sequence[str] = ()


@short_messages()
def read_table(
    source: str | os.PathLike[str] | datasets.Dataset | datasets.DatasetDict,
    *,
    label_range: LabelRange = (0.0, 1.0),
    columns: Mapping[str, str] | None = None,
    audio_folder: str | os.PathLike[str] | None = None,
    split_seed: int = 0,
    allow_speaker_overlap: bool = False,
    require_labels: bool = True,
    speaker_from: str | None = None,
    split_by: str = SPLIT_BY[0],
    test: Sequence[str] = (),
    pooled: bool = False,
    text_languages: Sequence[str] = (),
) -> datasets.DatasetDict:
    """Read a corpus from one table.

    The parts come from the keys of a saved or Hub dataset, or from a column `split`. A source without either, or with
    nothing but `train`, is split by speakers, about 70/15/15 by utterances. Where there is a test but no validation
    part, about 15 % of train become validation. Audio is not decoded; files of equal size are compared.

    Args:
        source: A `.csv`, `.jsonl`, `.json` or `.parquet` file, a folder with such a file named `metadata`, a folder of
            shards `data/part-00000.parquet` and so on, a folder written by `save_to_disk`, or the string `owner/name`
            of a dataset on the Hub; or a `Dataset` or `DatasetDict` of `datasets`, whose recordings are not decoded
            even if their column would. Rows of shards with an `error` are left out, with one warning.
        label_range: Lowest and highest value of the labels in the source; they are scaled to 0..1 by it. Where the
            scales differ, or one dimension is not rated: the range of each of the two or three dimensions, such as
            `{"valence": (-1, 1), "arousal": (0, 1)}`; the third is null.
        columns: Source column per name of the schema (and `split`), for tables with other column names.
        audio_folder: The data folder: relative audio paths start here and no path may lead out of it. By default
            the folder of the table, for shards the `audio_folder` in the `annotation.json` beside `data`, the
            caches of `datasets` and the Hub for a Hub dataset, or these and the working folder for a dataset in
            memory.
        split_seed: Seed of the speaker draw where parts are made here. The draw does not depend on the row order.
        allow_speaker_overlap: Accept speakers that occur in more than one of the given parts.
        require_labels: Demand the labels in every row; otherwise they may be absent or blank, and are null.
        speaker_from: A regular expression that finds the speaker in the path of each recording: its group `speaker`,
            or else its first group, or else all of it. It goes before a column.
        split_by: What parts that are made here are made by: `speaker`, or `file` where speakers are not known.
        test: Names of the test parts in the source: the first becomes `test`, the others keep their names, and other
            test parts are left out. The validation part can be one of them.
        pooled: Ignore the parts: all rows, in their order, are one part, `all`. There is no `test` to choose then.
        text_languages: Codes of the languages that the model reads: the words of rows whose column `language` states
            another one, or for which `annotate` was told another one, are null, with one warning. None is any.

    Returns:
        Non-empty parts with the features `schema.FEATURES`, in the order train, validation, test, further test parts.

    Raises:
        ValueError: The source, a column, a row or the parts are not as described; one sentence with the remedy.
    """
    if split_by not in SPLIT_BY:
        raise ValueError(f"--split_by cannot be {split_by!r}; give {' or '.join(SPLIT_BY)}.")
    if pooled and test:
        raise ValueError("--test chooses a part, and all rows are read as one part; leave --test out.")
    ranges_of(label_range)
    reading = _Reading(
        label_range,
        columns or {},
        split_seed,
        allow_speaker_overlap,
        require_labels,
        speaker_from,
        split_by,
        test,
        pooled,
        text_languages,
    )
    return _read(open_source(source, audio_folder), reading)


@short_messages()
def read_rows(
    table: pa.Table,
    source: str,
    *,
    row_names: Sequence[str],
    audio_folders: Sequence[Path],
    label_range: tuple[float, float],
    allow_speaker_overlap: bool,
    require_labels: bool = True,
    split_by: str = SPLIT_BY[0],
    test: Sequence[str] = (),
) -> datasets.DatasetDict:
    """Check the rows that a reader made and bring them into the schema, as `read_table` does with those of a table.

    Args:
        table: Columns with the schema's names, all three labels among them, and `split`.
        source: What messages call the whole.
        row_names: What messages call each row.
        audio_folders: Relative audio paths start at the first; no path may lead out of all of them. Empty for a
            corpus of text, whose table has no `audio`.
        label_range: As in `read_table`, like the result and the errors.
        allow_speaker_overlap: As in `read_table`.
        require_labels: As in `read_table`.
        split_by: As in `read_table`.
        test: As in `read_table`.
    """
    opened = source_of({"": table}, source, tuple(audio_folders), row_names, official=True)
    return _read(
        opened,
        _Reading(
            label_range,
            allow_speaker_overlap=allow_speaker_overlap,
            require_labels=require_labels,
            split_by=split_by,
            test=test,
        ),
    )


@short_messages()
def read_annotated(
    folder: Path,
    allow_speaker_overlap: bool = False,
    require_labels: bool = True,
    split_by: str = SPLIT_BY[0],
    test: Sequence[str] = (),
    only: Sequence[str] = (),
    with_errors: bool = False,
    pooled: bool = False,
) -> datasets.DatasetDict:
    """Read what `annotate` made of a corpus in its owners' layout, as `read_table` does, with its labels as they are.

    Recordings of equal content under several names are kept in the parts of the corpus, which are not drawn anew.

    Args:
        folder: What `annotate` made.
        allow_speaker_overlap: As in `read_table`, like the next three.
        require_labels: Demand the labels in every row.
        split_by: What parts are made by where the corpus has none.
        test: Names of the test parts.
        only: Read only the rows whose `split` is one of these; by default all.
        with_errors: Keep the rows that have an `error`.
        pooled: As in `read_table`.
    """
    opened = open_source(folder, with_errors=with_errors)
    parts = [dataclasses.replace(part, official=True) for part in opened.parts]
    if only:
        wanted = pa.array(only, pa.string())
        parts = [part.select(np.flatnonzero(pc.is_in(part.table["split"], wanted).to_numpy())) for part in parts]
    opened = dataclasses.replace(opened, parts=parts)
    return _read(
        opened,
        _Reading(
            (0.0, 1.0),
            allow_speaker_overlap=allow_speaker_overlap,
            require_labels=require_labels,
            split_by=split_by,
            test=test,
            pooled=pooled,
        ),
    )


@short_messages()
def open_table(
    source: str | os.PathLike[str] | datasets.Dataset | datasets.DatasetDict,
    *,
    columns: Mapping[str, str] | None = None,
    audio_folder: str | os.PathLike[str] | None = None,
    with_errors: bool = False,
) -> SourceRows:
    """Open a table to be completed: no labels are needed, nothing is scaled or split, and other columns are kept.

    The arguments are those of `read_table`; `with_errors` keeps the rows of shards that have an `error`, and rows with
    a cell that cannot be used, with the reason in `SourceRows.errors`.

    Raises:
        ValueError: The source or a column is not as described, or no row can be used; or, unless `with_errors`, an
            audio path leads out of its folder, or another cell cannot be used; one sentence with the remedy.
    """
    opened = open_source(source, audio_folder, with_errors)
    tables: list[pa.Table] = []
    files: list[str] = []
    embedded: list[datasets.Dataset] = []
    errors: dict[int, str] = {}
    elsewhere = {column for part in opened.parts for column in part.table.column_names}
    for part in opened.parts:
        check_unique(part, part.table.column_names)
        found = match_columns(part, columns or {}, ("audio",), elsewhere=elsewhere)
        of_part: dict[int, str] | None = {} if with_errors else None
        paths = audio_paths(part, found["audio"], of_part)
        if paths is None:
            embedded.append(part.recordings(found["audio"]))
        else:
            files += locate(part, paths, opened.audio_folders, missing_ok=True, errors=of_part)[0]
        made = {"audio": pa.nulls(len(part.table), pa.string()) if paths is None else pa.array(paths, pa.string())}
        made |= {
            name: _column(part, name, column, errors=of_part) for name, column in found.items() if name != "audio"
        }
        errors |= {sum(map(len, tables)) + index: why for index, why in (of_part or {}).items()}
        others = [name for name in part.table.column_names if name not in found.values() and name not in made]
        made |= {name: part.table[name] for name in others}
        if part.name and (opened.has_parts or "split" not in found):
            made["split"] = pa.repeat(part.name, len(part.table))
        tables.append(pa.table(made))
    _check_alike(opened, files, embedded)
    try:
        table = pa.concat_tables(tables, promote_options="permissive")
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise ValueError(
            f"{opened.name}: the columns of its parts differ ({reason(error)}); make them alike."
        ) from error
    row_names = opened.parts[0].row_names if len(opened.parts) == 1 else None
    recordings = datasets.concatenate_datasets(embedded) if embedded else None
    folder = opened.audio_folders[0] if embedded else opened.audio_folders[0].absolute()
    source = SourceRows(table, None if embedded else files, recordings, folder, opened.origin, row_names, {}, errors)
    missing = [row for row, file in enumerate(files) if not file]
    if len({*errors, *missing}) < len(table):
        return source
    if errors:
        first = min(errors)
        raise ValueError(f"{opened.name}, {source.row(first)}: {errors[first]}")
    raise ValueError(
        f"{opened.name}: none of the {len(files)} audio files is there, such as {table['audio'][0].as_py()!r}; name "
        "their folder by --audio_folder."
    )


def _check_alike(source: Source, files: Sequence[object], embedded: Sequence[object]) -> None:
    if len(files) and len(embedded):
        raise ValueError(f"{source.name}: some parts embed their audio and others name files; make them alike.")


def _read(source: Source, reading: _Reading) -> datasets.DatasetDict:
    tables: list[pa.Table] = []
    files: list[str] = []
    real: list[str] = []
    embedded: list[datasets.Dataset] = []
    splits_of_parts: list[np.ndarray] = []
    ranges, names = ranges_of(reading.label_range), SplitNames(reading.test)
    required = [*(["audio"] if source.audio_folders else []), *(ranges if reading.require_labels else [])]
    # What is predicted needs neither labels nor speakers, even if the settings of the training name their columns.
    optional = () if reading.require_labels else (*LABELS, "speaker")
    elsewhere = {column for part in source.parts for column in part.table.column_names}
    written: dict[str, str] = {}
    unread: list[np.ndarray] = []
    otherwise = annotated_language(source.origin) if reading.text_languages and source.origin else None
    for whole in source.parts:
        found = match_columns(whole, reading.columns, required, optional, elsewhere)
        if source.has_parts:
            found.pop("split", None)
        column = found.pop("split", None)
        if reading.pooled:
            splits = np.full(len(whole.table), POOLED, dtype=object)
        else:
            splits, of_part = names.of(whole, column)
            written |= of_part
        part, splits = _kept(whole, splits)
        if not len(splits):
            continue
        splits_of_parts.append(splits)
        made = {name: pa.nulls(len(part.table), SCHEMA.field(name).type) for name in SCHEMA.names}
        paths = audio_paths(part, found["audio"]) if "audio" in found else None
        if "audio" in found and paths is None:
            embedded.append(part.recordings(found["audio"]))
        elif paths is not None:
            located, real_paths = locate(part, paths, source.audio_folders)
            files += located
            real += real_paths.tolist()
            fields = list(SCHEMA.field("audio").type)
            made["audio"] = pa.StructArray.from_arrays(
                [pa.nulls(len(part.table), pa.binary()), pa.array(located, pa.string())], fields=fields
            )
        for name, column in found.items():
            if name != "audio" and (name not in LABELS or name in ranges):
                made[name] = _column(part, name, column, ranges.get(name), reading.require_labels)
        if reading.speaker_from is not None:
            made["speaker"] = speakers_of_names(part, _recording_names(part, paths, found), reading.speaker_from)
        tables.append(pa.table(made, schema=SCHEMA))
        if reading.text_languages:
            unread.append(unread_languages(part.table, reading.text_languages, otherwise, part.row))
    _check_alike(source, files, embedded)
    if not reading.pooled:
        names.check(source.name, written)
    if reading.require_labels and (unrated := [name for name in LABELS if name not in ranges]):
        logger.info("%s: %s is not rated; nothing is learned or scored of it", source.name, unrated[0])

    if not tables:
        raise ValueError(f"{source.name}: all rows are of other test parts than {', '.join(reading.test)}.")
    table = pa.concat_tables(tables)
    if unread:
        table = without_unread_words(source.name, table, np.concatenate(unread), reading.text_languages)
    given = np.concatenate(splits_of_parts)
    # Parts that are drawn here are not those of the owners.
    official = source.parts[0].official and any(split is not None for split in given)
    by_file = reading.split_by == "file"
    keys = (real or [f"row {index}" for index in range(len(table))]) if by_file else None
    splits = given
    if not reading.pooled:
        splits = assign_splits(
            source.name, given, table["speaker"], reading.split_seed, reading.allow_speaker_overlap, keys, official
        )
    if embedded:
        recordings = datasets.concatenate_datasets(embedded)
        check_duplicate_contents(source.name, recordings, splits, official)
        result = datasets.concatenate_datasets([recordings, make_dataset(table.drop_columns(["audio"]))], axis=1)
    else:
        result = make_dataset(table)
        if files:
            check_duplicate_files(source.name, files, real, splits, official)
    present = [split for split in (*SPLITS, POOLED, *dict.fromkeys(names.keys.values())) if (splits == split).any()]
    parts = {split: result.select(np.flatnonzero(splits == split)) for split in present}
    return names.with_tests(datasets.DatasetDict(parts))


def _kept(part: Part, splits: np.ndarray) -> tuple[Part, np.ndarray]:
    """Return a part without the rows that are in no split that is read, and the splits of the others."""
    is_kept = splits != ""
    return (part, splits) if is_kept.all() else (part.select(np.flatnonzero(is_kept)), splits[is_kept])


def _recording_names(part: Part, paths: np.ndarray | None, found: Mapping[str, str]) -> Sequence[str | None]:
    """Return the path of each recording as it is written, or the name with which it is embedded."""
    if paths is not None:
        return list(paths)
    if "audio" not in found:
        raise ValueError(f"{part.label}: --speaker_from needs recordings, and there are none; leave it out.")
    audio = part.recordings(found["audio"]).with_format("arrow")[:]["audio"]
    return pc.struct_field(audio, "path").to_pylist()


def _column(
    part: Part,
    name: str,
    column: str,
    label_range: Range | None = None,
    require_labels: bool = False,
    errors: dict[int, str] | None = None,
) -> pa.Array | pa.ChunkedArray:
    """Return a column other than `audio` in the type of the schema; labels as they are, unless a range is given."""
    if name in LABELS:
        if label_range is None:
            return with_points(part, column)
        return label_column(part, column, label_range, require_labels)
    if name == "speaker":
        return speaker_column(part, column)
    return word_column(part, column, errors) if name == "words" else text_column(part, column)
