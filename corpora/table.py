"""Reads a table of recordings into the schema of `schema.py`.

The readers of corpora with another layout pass their rows to `read_rows`, which checks them in the same way.
"""

import dataclasses
import math
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
    check_split_names,
    check_unique,
    label_column,
    match_columns,
    split_column,
    text_column,
    with_points,
    word_column,
)
from .duplicates import check_duplicate_contents, check_duplicate_files
from .messages import reason, short_messages
from .schema import SCHEMA, SPLITS, make_dataset
from .sources import Part, Source, open_source, source_of
from .splits import assign_splits

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
    """

    table: pa.Table
    files: list[str] | None
    embedded: datasets.Dataset | None
    audio_folder: Path
    origin: str
    row_names: Sequence[str] | None = None
    left_out: dict[str, str] = {}  # noqa: RUF012 - nobody changes it

    def row(self, index: int) -> str:
        """Return what messages call a row."""
        return f"row {index + 1}" if self.row_names is None else self.row_names[index]

    def recording_names(self) -> list[str | None]:
        """Return the path of each recording as it is written, or the name with which it is embedded."""
        if self.embedded is None:
            return self.table["audio"].to_pylist()
        return pc.struct_field(self.embedded.with_format("arrow")[:]["audio"], "path").to_pylist()


@short_messages()
def read_table(
    source: str | os.PathLike[str] | datasets.Dataset | datasets.DatasetDict,
    *,
    label_range: tuple[float, float] = (0.0, 1.0),
    columns: Mapping[str, str] | None = None,
    audio_folder: str | os.PathLike[str] | None = None,
    split_seed: int = 0,
    allow_speaker_overlap: bool = False,
    require_labels: bool = True,
    pooled: bool = False,
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
        label_range: Lowest and highest value of the labels in the source; they are scaled to 0..1 by it.
        columns: Source column per name of the schema (and `split`), for tables with other column names.
        audio_folder: The data folder: relative audio paths start here and no path may lead out of it. By default
            the folder of the table, for shards the `audio_folder` in the `annotation.json` beside `data`, the
            caches of `datasets` and the Hub for a Hub dataset, or these and the working folder for a dataset in
            memory.
        split_seed: Seed of the speaker draw where parts are made here. The draw does not depend on the row order.
        allow_speaker_overlap: Accept speakers that occur in more than one of the given parts.
        require_labels: Demand all three labels in every row; otherwise they may be absent or blank, and are null.
        pooled: Ignore the parts: all rows, in their order, are one part, `all`.

    Returns:
        Non-empty parts with the features `schema.FEATURES`, in the order train, validation, test.

    Raises:
        ValueError: The source, a column, a row or the parts are not as described; one sentence with the remedy.
    """
    bounds = tuple(map(float, label_range))
    if len(bounds) != 2 or not all(map(math.isfinite, bounds)) or bounds[0] >= bounds[1]:
        shown = " ".join(f"{bound:g}" for bound in bounds)
        raise ValueError(
            f"--label_range is {shown}; give two finite numbers, the lower one first, such as --label_range 1 7."
        )
    opened = open_source(source, audio_folder)
    return _read(opened, columns or {}, bounds, split_seed, allow_speaker_overlap, require_labels, pooled)


@short_messages()
def read_rows(
    table: pa.Table,
    source: str,
    *,
    row_names: Sequence[str],
    audio_folders: Sequence[Path],
    label_range: tuple[float, float],
    allow_speaker_overlap: bool,
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
    """
    opened = source_of({"": table}, source, tuple(audio_folders), row_names, official=True)
    return _read(opened, {}, label_range, 0, allow_speaker_overlap, require_labels=True)


@short_messages()
def read_annotated(folder: Path, allow_speaker_overlap: bool = False) -> datasets.DatasetDict:
    """Read what `annotate` made of a corpus in its owners' layout, as `read_table` does, with its labels as they are.

    Recordings of equal content under several names are kept, as in the corpus itself.
    """
    opened = open_source(folder)
    parts = [dataclasses.replace(part, official=True) for part in opened.parts]
    opened = dataclasses.replace(opened, parts=parts)
    return _read(opened, {}, (0.0, 1.0), 0, allow_speaker_overlap, require_labels=True)


@short_messages()
def open_table(
    source: str | os.PathLike[str] | datasets.Dataset | datasets.DatasetDict,
    *,
    columns: Mapping[str, str] | None = None,
    audio_folder: str | os.PathLike[str] | None = None,
    with_errors: bool = False,
) -> SourceRows:
    """Open a table to be completed: no labels are needed, nothing is scaled or split, and other columns are kept.

    The arguments are those of `read_table`; `with_errors` keeps the rows of shards that have an `error`.

    Raises:
        ValueError: The source or a column is not as described, an audio path leads out of its folder, or no audio file
            is there; one sentence with the remedy.
    """
    opened = open_source(source, audio_folder, with_errors)
    tables: list[pa.Table] = []
    files: list[str] = []
    embedded: list[datasets.Dataset] = []
    elsewhere = {column for part in opened.parts for column in part.table.column_names}
    for part in opened.parts:
        check_unique(part, part.table.column_names)
        found = match_columns(part, columns or {}, ("audio",), elsewhere=elsewhere)
        paths = audio_paths(part, found["audio"])
        if paths is None:
            embedded.append(part.recordings(found["audio"]))
        else:
            files += locate(part, paths, opened.audio_folders, missing_ok=True)[0]
        made = {"audio": pa.nulls(len(part.table), pa.string()) if paths is None else pa.array(paths, pa.string())}
        made |= {name: _column(part, name, column) for name, column in found.items() if name != "audio"}
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
    if embedded:
        recordings = datasets.concatenate_datasets(embedded)
        return SourceRows(table, None, recordings, opened.audio_folders[0], opened.origin, row_names)
    if not any(files):
        raise ValueError(
            f"{opened.name}: none of the {len(files)} audio files is there, such as {table['audio'][0].as_py()!r}; "
            "name their folder by --audio_folder."
        )
    return SourceRows(table, files, None, opened.audio_folders[0].absolute(), opened.origin, row_names)


def _check_alike(source: Source, files: Sequence[object], embedded: Sequence[object]) -> None:
    if len(files) and len(embedded):
        raise ValueError(f"{source.name}: some parts embed their audio and others name files; make them alike.")


def _read(
    source: Source,
    columns: Mapping[str, str],
    label_range: tuple[float, ...],
    split_seed: int,
    allow_speaker_overlap: bool,
    require_labels: bool,
    pooled: bool = False,
) -> datasets.DatasetDict:
    tables: list[pa.Table] = []
    files: list[str] = []
    real: list[str] = []
    embedded: list[datasets.Dataset] = []
    required = [*(["audio"] if source.audio_folders else []), *(LABELS if require_labels else [])]
    # What is predicted needs neither labels nor speakers, even if the settings of the training name their columns.
    optional = () if require_labels else (*LABELS, "speaker")
    elsewhere = {column for part in source.parts for column in part.table.column_names}
    written: dict[str, str] = {}
    for part in source.parts:
        found = match_columns(part, columns, required, optional, elsewhere)
        if source.has_parts:
            found.pop("split", None)
        count = len(part.table)
        made = {name: pa.nulls(count, SCHEMA.field(name).type) for name in SCHEMA.names}
        paths = audio_paths(part, found["audio"]) if "audio" in found else None
        if "audio" in found and paths is None:
            embedded.append(part.recordings(found["audio"]))
        elif paths is not None:
            located, real_paths = locate(part, paths, source.audio_folders)
            files += located
            real += real_paths.tolist()
            fields = list(SCHEMA.field("audio").type)
            made["audio"] = pa.StructArray.from_arrays(
                [pa.nulls(count, pa.binary()), pa.array(located)], fields=fields
            )
        for name, column in found.items():
            if name not in ("audio", "split"):
                made[name] = _column(part, name, column, label_range, require_labels)
        if pooled:
            splits_of_part = pa.repeat(POOLED, count)
        else:
            splits_of_part, names = split_column(part, found.get("split"))
            written |= names
        tables.append(pa.table(made, schema=SCHEMA).append_column("split", splits_of_part))
    _check_alike(source, files, embedded)
    check_split_names(source.name, written)

    table = pa.concat_tables(tables)
    if pooled:
        splits = np.full(len(table), POOLED, dtype=object)
    else:
        splits = assign_splits(source.name, table["split"], table["speaker"], split_seed, allow_speaker_overlap)
    table = table.drop_columns(["split"])
    official = source.parts[0].official
    if embedded:
        recordings = datasets.concatenate_datasets(embedded)
        check_duplicate_contents(source.name, recordings, splits, official)
        result = datasets.concatenate_datasets([recordings, make_dataset(table.drop_columns(["audio"]))], axis=1)
    else:
        result = make_dataset(table)
        if files:
            check_duplicate_files(source.name, files, real, splits, official)
    present = [split for split in (*SPLITS, POOLED) if (splits == split).any()]
    return datasets.DatasetDict({split: result.select(np.flatnonzero(splits == split)) for split in present})


def _column(
    part: Part, name: str, column: str, label_range: tuple[float, ...] | None = None, require_labels: bool = False
) -> pa.Array | pa.ChunkedArray:
    """Return a column other than `audio` in the type of the schema; labels as they are, unless a range is given."""
    if name in LABELS:
        if label_range is None:
            return with_points(part, column)
        return label_column(part, column, label_range, require_labels)
    return word_column(part, column) if name == "words" else text_column(part, column)
