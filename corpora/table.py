"""Reads a table of recordings (CSV, JSON, Parquet, a saved dataset or one of the Hub) into the schema of `schema.py`.

The readers of corpora with a layout of their own hand their rows to `read_rows`, which checks them in the same way.

Rows are counted from 1 in messages; the header of a CSV file is not counted.
"""

import contextlib
import csv
import hashlib
import json
import logging
import math
import os
import re
import stat
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import datasets
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet
from huggingface_hub.constants import HF_HUB_CACHE

from ..configuration_msfser import LABELS
from ..processing_msfser import from_scale
from .schema import ALIASES, FEATURES, SPLIT_ALIASES, SPLITS

logger = logging.getLogger(__name__)

SHARES: dict[str, float] = {"train": 0.70, "validation": 0.15, "test": 0.15}
FOLDER_TABLES: tuple[str, ...] = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
# A folder of shards: `data/part-00000.parquet` and so on, and beside `data` a file that names their audio folder.
SHARDS, SHARDS_NOTE = "data/part-*.parquet", "annotation.json"

# A value that a message shows may be a whole book.
_LONGEST_MESSAGE = 800

_HUB_NAME = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
_SCHEMA = FEATURES.arrow_schema.remove_metadata()
_WORDS = _SCHEMA.field("words").type


@contextlib.contextmanager
def _short_messages() -> Iterator[None]:
    """Errors with the beginning and the end of a message that is too long to be read."""
    try:
        yield
    except ValueError as error:
        message = str(error)
        if len(message) <= _LONGEST_MESSAGE:
            raise
        half = _LONGEST_MESSAGE // 2
        raise ValueError(f"{message[:half]} ... {message[-half:]}") from error


@_short_messages()
def read_table(
    source: str | os.PathLike[str],
    *,
    label_range: tuple[float, float] = (0.0, 1.0),
    columns: Mapping[str, str] | None = None,
    audio_folder: str | os.PathLike[str] | None = None,
    split_seed: int = 0,
    allow_speaker_overlap: bool = False,
    require_labels: bool = True,
) -> datasets.DatasetDict:
    """Read a corpus from one table.

    The parts come from the keys of a saved or Hub dataset, or from a column `split` with the values `train`,
    `validation` (also `dev`, `development`) and `test`. A source without either, or with nothing but `train`, is split
    here by speakers, about 70/15/15 by utterances. Where there is a test but no validation part, the speakers of
    validation are taken from train, about 15 % of its utterances. Other parts are returned as they are, so that a
    source without a test part gives a result without one.

    Audio is neither opened nor decoded; files are only looked up.

    Args:
        source: A `.csv`, `.jsonl`, `.json` or `.parquet` file, a folder that holds `metadata.csv`, `metadata.jsonl` or
            `metadata.parquet`, a folder of shards `data/part-00000.parquet`, `data/part-00001.parquet`, ..., a folder
            written by `save_to_disk`, or the string `owner/name` of a dataset on the Hub. The shards are one table
            in the order of their names; their rows with an `error` are left out, with one warning.
        label_range: Lowest and highest value of the labels in the source; they are scaled to 0..1 by it.
        columns: Source column per name of the schema (and `split`), for tables with other column names.
        audio_folder: The data folder: relative audio paths start here and no path may lead out of it. By default
            the folder of the table, for shards the `audio_folder` in the `annotation.json` beside `data`, or the
            caches of `datasets` and the Hub for a Hub dataset.
        split_seed: Seed of the speaker draw where parts are made here. The draw does not depend on the row order.
        allow_speaker_overlap: Accept speakers that occur in more than one of the given parts.
        require_labels: Demand all three labels in every row; otherwise they may be absent or blank, and are null.

    Returns:
        Non-empty parts with the features `schema.FEATURES`, in the order train, validation, test.

    Raises:
        ValueError: The source, a column, a row or the parts are not as described; one sentence with the remedy.
    """
    low, high = label_range = tuple(float(bound) for bound in label_range)
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise ValueError(f"label_range is {label_range!r}; give two finite numbers, the lower one first.")
    columns = _checked_columns(columns)
    name = os.fspath(source)
    opened = _open(name, isinstance(source, str), audio_folder)
    return _read_opened(opened, name, columns, label_range, split_seed, allow_speaker_overlap, require_labels)


@_short_messages()
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
        label_range: Lowest and highest value of the labels; they are scaled to 0..1 by it.
        allow_speaker_overlap: Accept speakers that occur in more than one part.

    Returns:
        Non-empty parts with the features `schema.FEATURES`, in the order train, validation, test.

    Raises:
        ValueError: A row is not as described; one sentence with the remedy.
    """
    opened = _Opened({"": table}, None, tuple(audio_folders), row_names)
    return _read_opened(opened, source, {}, label_range, 0, allow_speaker_overlap, True)


class SourceRows(NamedTuple):
    """A source whose rows keep all their columns.

    Args:
        table: The rows, without the recordings. Columns that the schema has are called as there, texts are cleaned and
            `words` are of the schema's type; the others are as they are. `split` is the part's name where the source
            has parts. `audio` is the path as it is written, and null where the recording is embedded.
        files: The absolute path of each recording, "" where there is no such file; `None` where they are embedded.
        embedded: The recordings, `{"bytes", "path"}`; `None` where they are files.
        audio_folder: Where relative paths start.
    """

    table: pa.Table
    files: list[str] | None
    embedded: datasets.Dataset | None
    audio_folder: Path


@_short_messages()
def open_table(
    source: str | os.PathLike[str],
    *,
    columns: Mapping[str, str] | None = None,
    audio_folder: str | os.PathLike[str] | None = None,
) -> SourceRows:
    """Open a table to be completed: no labels are needed, nothing is scaled or split, and other columns stay.

    Args:
        source: As in `read_table`.
        columns: As in `read_table`.
        audio_folder: As in `read_table`.

    Raises:
        ValueError: The source or a column is not as described, an audio path leads out of its folder, or no audio file
            is there; one sentence with the remedy.
    """
    columns = _checked_columns(columns)
    name = os.fspath(source)
    opened = _open(name, isinstance(source, str), audio_folder)
    tables, files, embedded = [], [], []
    for key, content in opened.tables.items():
        if content.num_rows == 0:
            continue
        rows = _Rows(content, name, key if len(opened.tables) > 1 else None, opened.row_names)
        if repeated := [c for c, count in Counter(content.column_names).items() if count > 1]:
            raise ValueError(f"{rows.place}: the column {repeated[0]!r} occurs more than once; rename or remove one.")
        found = _match_columns(content.column_names, columns, False, rows.place)
        paths = _audio_names(rows, found["audio"])
        if paths is None:
            part = opened.datasets[key].select_columns([found["audio"]]).rename_columns({found["audio"]: "audio"})
            embedded.append(part.cast_column("audio", FEATURES["audio"]))
            made = {"audio": pa.nulls(content.num_rows, pa.string())}
        else:
            files += _locate(rows, paths, opened.folders, missing_ok=True)[0]
            made = {"audio": pa.array(paths, pa.string())}
        for column, original in found.items():
            if column == "words":
                made[column] = _words(rows, original)
            elif column in LABELS:
                made[column] = content[original]
            elif column != "audio":
                made[column] = _text(rows, original, content[original])
        kept = [c for c in content.column_names if c not in found.values() and c not in made]
        made |= {column: content[column] for column in kept}
        if key and (len(opened.tables) > 1 or "split" not in found):
            made["split"] = pa.repeat(key, content.num_rows)
        tables.append(pa.table(made))
    if not tables:
        raise ValueError(f"{name}: the table has no rows; give at least one utterance.")
    if embedded and files:
        raise ValueError(f"{name}: some parts embed their audio and others name files; make them alike.")
    try:
        table = pa.concat_tables(tables, promote_options="permissive")
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise ValueError(f"{name}: the columns of its parts differ ({_reason(error)}); make them alike.") from error
    if embedded:
        return SourceRows(table, None, datasets.concatenate_datasets(embedded), opened.folders[0])
    if not any(files):
        raise ValueError(
            f"{name}: none of the {len(files)} audio files is there, such as {table['audio'][0].as_py()!r}; name "
            "their folder as audio_folder."
        )
    return SourceRows(table, files, None, opened.folders[0].absolute())


class _Opened(NamedTuple):
    """A source as it is: tables per part ("" if there are no parts), their datasets, and the allowed audio folders.

    Where the rows of the only table have names, messages use them in place of the row's number.
    """

    tables: dict[str, pa.Table]
    datasets: dict[str, datasets.Dataset] | None
    folders: tuple[Path, ...]
    row_names: Sequence[str] | None = None


def _read_opened(
    opened: _Opened,
    name: str,
    columns: Mapping[str, str],
    label_range: tuple[float, float],
    split_seed: int,
    allow_speaker_overlap: bool,
    require_labels: bool,
) -> datasets.DatasetDict:
    tables, keys, audio = [], [], []
    for key, table in opened.tables.items():
        if table.num_rows == 0:
            continue
        rows = _Rows(table, name, key if len(opened.tables) > 1 else None, opened.row_names)
        found = _match_columns(table.column_names, columns, require_labels, rows.place, audio=bool(opened.folders))
        if len(opened.tables) > 1:
            found.pop("split", None)
        table, files = _convert(rows, found, key, opened.folders, label_range, require_labels)
        tables.append(table)
        if files is None:
            part = opened.datasets[key].select_columns([found["audio"]]).rename_columns({found["audio"]: "audio"})
            audio.append(part.cast_column("audio", FEATURES["audio"]))
        else:
            keys.append(files)
    if not tables:
        raise ValueError(f"{name}: the table has no rows; give at least one utterance.")
    if audio and keys:
        raise ValueError(f"{name}: some parts embed their audio and others name files; make them alike.")

    table = pa.concat_tables(tables)
    splits = _assign_splits(name, table["split"], table["speaker"], split_seed, allow_speaker_overlap)
    light = table.drop_columns(["split"])
    if keys:
        _check_duplicates(name, np.concatenate(keys), splits)
        result = datasets.Dataset(light, info=datasets.DatasetInfo(features=FEATURES.copy()))
    else:
        recordings = datasets.concatenate_datasets(audio)
        _check_duplicates(name, _content_keys(recordings, splits), splits)
        light = light.drop_columns(["audio"])
        features = datasets.Features({column: FEATURES[column] for column in light.column_names})
        result = datasets.concatenate_datasets(
            [recordings, datasets.Dataset(light, info=datasets.DatasetInfo(features=features))], axis=1
        )
    present = [split for split in SPLITS if (splits == split).any()]
    return datasets.DatasetDict({split: result.select(np.flatnonzero(splits == split)) for split in present})


class _Rows(NamedTuple):
    """One table of a source, and the words that name its rows in messages."""

    table: pa.Table
    source: str
    part: str | None
    names: Sequence[str] | None

    @property
    def place(self) -> str:
        return self.source if self.part is None else f"{self.source}, part {self.part!r}"

    def row(self, index: int) -> str:
        name = f"row {int(index) + 1}" if self.names is None else self.names[int(index)]
        return f"{self.place}, {name}"


def _checked_columns(columns: Mapping[str, str] | None) -> dict[str, str]:
    columns = dict(columns or {})
    if unknown := sorted(columns.keys() - {*_SCHEMA.names, "split"}):
        raise ValueError(
            f"columns names {unknown}, which the schema does not have; it has {[*_SCHEMA.names, 'split']}."
        )
    return columns


def _reason(error: Exception) -> str:
    """Return the message of an error of a library on one line and without its full stop."""
    return " ".join(str(error).split()).rstrip(".")


def holds_table(folder: str | os.PathLike[str]) -> bool:
    """Whether a folder is a source: a saved dataset, or one with a table or shards in it."""
    path = Path(folder)
    names = (*FOLDER_TABLES, "dataset_dict.json", "state.json")
    return any((path / name).is_file() for name in names) or any(path.glob(SHARDS))


def annotation_settings(source: str | os.PathLike[str]) -> dict[str, object] | None:
    """How the texts of a folder of shards were made; `None` for any other source.

    Raises:
        ValueError: The note beside the shards cannot be read.
    """
    note = Path(source) / SHARDS_NOTE
    return _read_note(note).get("settings") if note.is_file() else None


def _open(name: str, may_be_hub: bool, audio_folder: str | os.PathLike[str] | None) -> _Opened:
    opened = _open_source(name, may_be_hub)
    if audio_folder is None:
        return opened
    if not Path(audio_folder).is_dir():
        raise ValueError(f"{name}: the audio folder {os.fspath(audio_folder)!r} is not a folder.")
    return opened._replace(folders=(Path(audio_folder),))


def _open_source(name: str, may_be_hub: bool) -> _Opened:
    path = Path(name)
    if path.is_dir():
        if (path / "dataset_dict.json").is_file() or (path / "state.json").is_file():
            try:
                saved = datasets.load_from_disk(path)
            except (OSError, ValueError, TypeError, LookupError, AttributeError) as error:
                raise ValueError(
                    f"{name}: the saved dataset cannot be read ({_reason(error)}); save it again."
                ) from error
            return _from_datasets(saved if isinstance(saved, datasets.DatasetDict) else {"": saved}, (path,))
        held = [file for file in FOLDER_TABLES if (path / file).is_file()]
        shards = sorted(path.glob(SHARDS))
        held += [SHARDS] if shards else []
        if len(held) != 1:
            raise ValueError(
                f"{name}: the folder holds {' and '.join(held) or 'none of ' + ', '.join((*FOLDER_TABLES, SHARDS))}"
                f"{'; name the one to read.' if held else ' and is no saved dataset; name a table file.'}"
            )
        if shards:
            return _open_shards(path, shards)
        path /= held[0]
    elif not path.is_file():
        if path.exists():
            raise ValueError(f"{name}: this is neither a file nor a folder.")
        if may_be_hub and _HUB_NAME.fullmatch(name) and path.suffix.lower() not in _READERS:
            return _open_hub(name)
        raise ValueError(
            f"{name}: there is no such file or folder; give one that exists, or a Hub dataset as owner/name."
        )
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise ValueError(f"{path}: tables of type {path.suffix!r} are not read; give one of {', '.join(_READERS)}.")
    content = reader(path)
    if isinstance(content, datasets.Dataset):
        return _from_datasets({"": content}, (path.parent,))
    return _Opened({"": content}, None, (path.parent,))


def _open_shards(folder: Path, shards: Sequence[Path]) -> _Opened:
    """Open shards as one table, without the rows that have an `error`."""
    folders = (_noted_audio_folder(folder),)
    numbers = {shard.stem.removeprefix("part-") for shard in shards}
    if gaps := [f"part-{n:05d}.parquet" for n in range(len(shards)) if f"{n:05d}" not in numbers]:
        raise ValueError(
            f"{folder}: {len(gaps)} shard(s) are not there, such as {gaps[0]!r}; finish writing or copying them."
        )
    names, left_out = [], []
    for shard in shards:
        for row, (audio, error) in enumerate(_shard_errors(shard), start=1):
            name = f"{shard.name}, row {row}"
            if error is None:
                names.append(name)
            else:
                left_out.append(f"{name}, {audio!r} ({error})")
    if left_out:
        logger.warning(
            "%s: left out %d of %d rows whose recording could not be read; the first is %s",
            *(folder, len(left_out), len(left_out) + len(names), left_out[0]),
        )
    content = _read_parquet(*shards, rows=pc.field("error").is_null() if left_out else None)
    if isinstance(content, pa.Table):
        opened = _Opened({"": content}, None, folders, names)
    else:
        opened = _from_datasets({"": content}, folders)._replace(row_names=names)
    table = opened.tables[""]
    if "split" in table.column_names and table["split"].null_count == len(table):
        # What was annotated had no parts.
        opened.tables[""] = table.drop_columns("split")
    return opened


def _shard_errors(shard: Path) -> list[tuple[str | None, str | None]]:
    """Return of each row the audio path, and the error where the recording could not be read."""
    try:
        file = pyarrow.parquet.ParquetFile(shard)
        types = {field.name: field.type for field in file.schema_arrow}
        if "error" not in types:
            return [(None, None)] * file.metadata.num_rows
        # Of embedded recordings the name will do.
        nested = pa.types.is_struct(types.get("audio", pa.null()))
        rows = file.read(columns=["error", "audio.path" if nested else "audio"]).to_pylist()
    except (OSError, ValueError) as error:
        raise ValueError(f"{shard}: this is not a readable Parquet file ({_reason(error)}).") from error
    return [((row.get("audio") or {}).get("path") if nested else row.get("audio"), row["error"]) for row in rows]


def _noted_audio_folder(folder: Path) -> Path:
    """Return where the relative audio paths of shards start."""
    note = folder / SHARDS_NOTE
    if not note.is_file():
        return folder
    content = _read_note(note)
    if content.get("complete") is False:
        raise ValueError(f"{folder}: annotating it is not finished; give the same annotate command again.")
    noted = content.get("audio_folder")
    if noted is not None and not (isinstance(noted, str) and os.path.isabs(noted)):
        raise ValueError(f"{note}: audio_folder is {noted!r}, which is no absolute path; write the shards again.")
    return folder if noted is None else Path(noted)


def _read_note(note: Path) -> dict[str, object]:
    try:
        content = json.loads(note.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{note}: this is not a JSON object ({_reason(error)}); write the shards again.") from error
    if not isinstance(content, dict):
        raise ValueError(f"{note}: this is not a JSON object; write the shards again.")
    return content


def _open_hub(name: str) -> _Opened:
    # Datasets 5 runs no code of a dataset; there is no switch to pass.
    try:
        loaded = datasets.load_dataset(name)
    except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
        raise ValueError(
            f"{name}: there is no such file or folder, and as a Hub dataset it cannot be loaded ({_reason(error)})."
        ) from error
    return _from_datasets(loaded, (Path(datasets.config.HF_DATASETS_CACHE), Path(HF_HUB_CACHE)))


def _from_datasets(parts: Mapping[str, datasets.Dataset], folders: tuple[Path, ...]) -> _Opened:
    # The arrow format neither decodes nor copies: the columns stay memory-mapped.
    tables = {str(key): part.with_format("arrow")[:] for key, part in parts.items()}
    return _Opened(tables, {str(key): part.with_format(None) for key, part in parts.items()}, folders)


def read_csv(path: Path) -> pa.Table:
    """Read a CSV file with all its cells as text, none of them null.

    Raises:
        ValueError: It is empty or no CSV file in UTF-8; one sentence.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            header = next(csv.reader(file), [])
        if not header:
            raise ValueError(f"{path}: the file is empty; it needs a header and at least one row.")
        return pyarrow.csv.read_csv(
            path,
            parse_options=pyarrow.csv.ParseOptions(newlines_in_values=True),
            convert_options=pyarrow.csv.ConvertOptions(
                column_types=dict.fromkeys(header, pa.string()), strings_can_be_null=False
            ),
        )
    except (OSError, UnicodeDecodeError, csv.Error, pa.ArrowInvalid) as error:
        raise ValueError(f"{path}: this is not a readable CSV file in UTF-8 ({_reason(error)}).") from error


def _read_json(path: Path) -> pa.Table:
    try:
        text = path.read_text(encoding="utf-8-sig")
        if text.lstrip().startswith("["):
            records = json.loads(text)
        else:
            records = []
            for number, line in enumerate(text.split("\n"), start=1):
                if line.strip():
                    try:
                        records.append(json.loads(line))
                    except (ValueError, RecursionError) as error:
                        raise ValueError(f"line {number}: {error}") from error
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{path}: this is neither a JSON list nor one JSON object a line ({error}).") from error
    for index, record in enumerate(records):
        if not isinstance(record, dict):
            raise ValueError(f"{path}, row {index + 1}: this is not a JSON object; write one object for each row.")
    names = dict.fromkeys(key for record in records for key in record)
    try:
        return pa.table({key: _json_column([record.get(key) for record in records]) for key in names})
    except UnicodeEncodeError as error:
        raise ValueError(f"{path}: some text holds half of a character ({_reason(error)}); correct it.") from error


def _json_column(values: list) -> pa.Array:
    try:
        return pa.array(values)
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError, OverflowError):
        # Mixed types: as text, so that the check of the column can name the row and show the value.
        return pa.array([v if v is None or isinstance(v, str) else json.dumps(v) for v in values], pa.string())


def _read_parquet(*paths: Path, rows: pc.Expression | None = None) -> pa.Table | datasets.Dataset:
    try:
        for path in paths:
            schema = pyarrow.parquet.read_schema(path)
            if any(pa.types.is_struct(f.type) and f.type.get_field_index("bytes") >= 0 for f in schema):
                # Embedded recordings may exceed the memory; datasets maps them from its cache.
                return datasets.Dataset.from_parquet(
                    [str(path) for path in paths], filters=rows, features=_common_features(paths)
                )
        tables = []
        for path in paths:
            table = pyarrow.parquet.ParquetFile(path).read()
            tables.append(table if rows is None else table.filter(rows))
        # A file in which a column is all null may have no type for it.
        return pa.concat_tables(tables, promote_options="permissive")
    except (
        OSError,
        ValueError,
        TypeError,
        LookupError,
        NotImplementedError,
        datasets.exceptions.DatasetsError,
    ) as error:
        raise ValueError(f"{path}: this is not a readable Parquet file ({_reason(error)}).") from error


def _common_features(paths: Sequence[Path]) -> datasets.Features | None:
    """Return the columns of files of which some may have no type for a column, or `None` for a single file."""
    if len(paths) == 1:
        return None
    schemas = [pyarrow.parquet.read_schema(path).remove_metadata() for path in paths]
    return datasets.Features.from_arrow_schema(pa.unify_schemas(schemas, promote_options="permissive"))


_READERS: dict[str, Callable[[Path], pa.Table | datasets.Dataset]] = {
    ".csv": read_csv,
    ".jsonl": _read_json,
    ".json": _read_json,
    ".parquet": _read_parquet,
}


def _match_columns(
    present: Sequence[str], columns: Mapping[str, str], labels: bool, place: str, audio: bool = True
) -> dict[str, str]:
    """Find the source column of each name of the schema (and `split`), so far as there is one.

    The labels and the audio must be there where they are asked for.
    """
    found, missing = {}, []
    for name in (*_SCHEMA.names, "split"):
        candidates = [columns[name]] if name in columns else [name, *ALIASES.get(name, ())]
        hits = [candidate for candidate in candidates if candidate in present]
        if len(hits) > 1 and hits[0] != name:
            raise ValueError(
                f"{place}: the columns {hits} could all be {name!r}; choose by columns={{{name!r}: ...}}."
            )
        if hits:
            if list(present).count(hits[0]) > 1:
                raise ValueError(f"{place}: the column {hits[0]!r} occurs more than once; rename or remove one.")
            found[name] = hits[0]
        elif name in columns or (audio and name == "audio") or (labels and name in LABELS):
            missing.append(" or ".join(map(repr, candidates)))
    if missing:
        raise ValueError(
            f"{place}: missing columns {', '.join(missing)}; there are {list(present)}; rename them or map them by "
            "columns."
        )
    return found


def _convert(
    rows: _Rows,
    found: Mapping[str, str],
    part: str,
    folders: tuple[Path, ...],
    label_range: tuple[float, float],
    require_labels: bool,
) -> tuple[pa.Table, np.ndarray | None]:
    """Check the rows and bring them into the schema, with a column `split` of canonical names (or nulls) besides.

    The split is that of the column, where one is found, or else the part of the source that the table is.

    Returns:
        The table, and of each row a key that only rows with the same recording share, such as the real path of its
        file; no keys where the source embeds the recordings.
    """
    count = rows.table.num_rows
    if "audio" not in found:
        audio, keys = pa.nulls(count, _SCHEMA.field("audio").type), np.arange(count)
    elif (paths := _audio_names(rows, found["audio"])) is None:
        audio, keys = pa.nulls(count, _SCHEMA.field("audio").type), None
    else:
        files, keys = _locate(rows, paths, folders)
        audio = pa.StructArray.from_arrays(
            [pa.nulls(count, pa.binary()), pa.array(files, pa.string())], fields=list(_SCHEMA.field("audio").type)
        )
    made = {"audio": audio}
    for name in _SCHEMA.names[1:]:
        if name not in found:
            made[name] = pa.nulls(count, _SCHEMA.field(name).type)
        elif name in LABELS:
            made[name] = _labels(rows, found[name], label_range, require_labels)
        elif name == "words":
            made[name] = _words(rows, found[name])
        else:
            made[name] = _text(rows, found[name], rows.table[found[name]])
    if "split" in found:
        splits = _split_names(rows, _text(rows, found["split"], rows.table[found["split"]]))
    elif part:
        splits = _split_names(rows, pa.repeat(part, count))
    else:
        splits = pa.nulls(count, pa.string())
    return pa.table(made, schema=_SCHEMA).append_column("split", splits), keys


def _text(rows: _Rows, column: str, values: pa.ChunkedArray) -> pa.ChunkedArray:
    """Turn the values of a column into text; blank cells become null."""
    try:
        if pa.types.is_nested(values.type) or pa.types.is_binary(values.type):
            raise pa.ArrowInvalid(f"{values.type} is not text")
        values = values.cast(pa.string())
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise ValueError(f"{rows.place}: the column {column!r} holds no text ({error}); write it as text.") from error
    blank = pc.equal(pc.utf8_trim_whitespace(values), "")
    return pc.if_else(blank, pa.scalar(None, pa.string()), values)


def _labels(rows: _Rows, column: str, label_range: tuple[float, float], required: bool) -> pa.Array:
    """Read a column of labels, scaled from the range to 0..1 in float32."""
    values, (low, high) = rows.table[column], label_range
    if pa.types.is_string(values.type) or pa.types.is_large_string(values.type):
        blank = pc.fill_null(pc.equal(pc.utf8_trim_whitespace(values), ""), True).to_numpy()
        numbers = pd.to_numeric(values.to_pandas(), errors="coerce").to_numpy(np.float64, na_value=np.nan)
    elif pa.types.is_nested(values.type) or pa.types.is_boolean(values.type) or pa.types.is_binary(values.type):
        raise ValueError(f"{rows.place}: the column {column!r} holds {values.type}, not numbers; write numbers.")
    else:
        try:
            numbers = values.cast(pa.float64(), safe=False).to_numpy()
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            raise ValueError(
                f"{rows.place}: the column {column!r} holds {values.type}, not numbers; write numbers."
            ) from error
        blank = np.isnan(numbers)
    unknown = np.isnan(numbers) if required else np.isnan(numbers) & ~blank
    if unknown.any():
        index = int(unknown.argmax())
        remedy = "give a number or remove the row" if required else "give a number or leave it blank"
        raise ValueError(f"{rows.row(index)}: {column} is {values[index].as_py()!r}, not a number; {remedy}.")
    # Means over raters that were stored in float32 may miss the bounds by rounding.
    slack = 1e-6 * (high - low)
    outside = (numbers < low - slack) | (numbers > high + slack)
    if outside.any():
        index = int(outside.argmax())
        raise ValueError(
            f"{rows.row(index)}: {column} is {values[index].as_py()!r}, outside the label_range {low:g} to {high:g}; "
            "correct it, or give the range of this table as label_range."
        )
    scaled = np.clip(from_scale(numbers, low, high), 0.0, 1.0).astype(np.float32)
    return pa.array(scaled, from_pandas=True)


def _words(rows: _Rows, column: str) -> pa.ChunkedArray:
    """Read word times: lists of `{"word", "start", "end"}` in seconds, or JSON text of such lists."""
    values = rows.table[column]
    if values.type != _WORDS:
        made = []
        for index, value in enumerate(values.to_pylist()):
            try:
                made.append(_parse_words(value))
            except (ValueError, RecursionError) as error:
                raise ValueError(f"{rows.row(index)}: the text in {column!r} is not JSON ({error}).") from error
        try:
            values = pa.chunked_array([pa.array(made, _WORDS)])
        except (pa.ArrowInvalid, pa.ArrowTypeError, UnicodeEncodeError, OverflowError):
            index = next(i for i, value in enumerate(made) if not _fits_words(value))
            raise ValueError(
                f"{rows.row(index)}: {column!r} is not a list of {{'word', 'start', 'end'}} with times in seconds."
            ) from None
    offset = 0
    for chunk in values.chunks:
        flat, parents = chunk.flatten(), pc.list_parent_indices(chunk).to_numpy()
        word, start, end = flat.flatten()
        start, end = start.to_numpy(zero_copy_only=False), end.to_numpy(zero_copy_only=False)
        bad = word.is_null().to_numpy(zero_copy_only=False) | ~(
            np.isfinite(start) & np.isfinite(end) & (start >= 0) & (start <= end)
        )
        if bad.any():
            at = int(bad.argmax())
            raise ValueError(
                f"{rows.row(offset + parents[at])}: {flat[at].as_py()} in {column!r} needs a word, and times in "
                "seconds with 0 <= start <= end."
            )
        offset += len(chunk)
    return values


def _parse_words(value: object) -> object:
    if not isinstance(value, str):
        return value
    return json.loads(value) if value.strip() else None


def _fits_words(value: object) -> bool:
    try:
        # Alone, a list of pairs would pass for a word; beside a word it does not.
        pa.array([[{"word": "a", "start": 0.0, "end": 0.0}], value], _WORDS)
    except (pa.ArrowInvalid, pa.ArrowTypeError, UnicodeEncodeError, OverflowError):
        return False
    return True


def _split_names(rows: _Rows, names: pa.Array | pa.ChunkedArray) -> pa.Array:
    """Bring the names of the parts into their canonical form."""
    given = names.to_pandas().astype(object)
    known = {**{split: split for split in SPLITS}, **SPLIT_ALIASES}
    canonical = given.str.strip().str.lower().map(known)
    if canonical.isna().any():
        index = int(canonical.isna().to_numpy().argmax())
        value = "blank" if pd.isna(given.iloc[index]) else repr(given.iloc[index])
        raise ValueError(
            f"{rows.row(index)}: the split is {value}, which is none of {', '.join(known)}; write one of these."
        )
    return pa.array(canonical, pa.string())


def _audio_names(rows: _Rows, column: str) -> np.ndarray | None:
    """Return the audio paths as they are written, or `None` where every row embeds its recording."""
    values = rows.table[column]
    if pa.types.is_struct(values.type) and {"bytes", "path"} & {field.name for field in values.type}:
        fields = {field.name: pc.struct_field(values, field.name) for field in values.type}
        if "bytes" in fields:
            content = fields["bytes"]
            embedded = pc.is_valid(content).to_numpy()
            if embedded.any() and not (pa.types.is_binary(content.type) or pa.types.is_large_binary(content.type)):
                raise ValueError(
                    f"{rows.place}: the recordings in {column!r} are {content.type}; write bytes or paths."
                )
            if embedded.all():
                return None
            if embedded.any():
                raise ValueError(
                    f"{rows.row((~embedded).argmax())}: {column!r} embeds no recording while other rows do; embed all "
                    "or none."
                )
        values = fields.get("path", pa.chunked_array([pa.nulls(len(values), pa.string())]))
    paths = _text(rows, column, values)
    blank = paths.is_null().to_numpy()
    if blank.any():
        raise ValueError(
            f"{rows.row(blank.argmax())}: {column!r} is blank; name the audio file of each row or remove the row."
        )
    return paths.to_numpy(zero_copy_only=False)


def _locate(
    rows: _Rows, names: np.ndarray, folders: tuple[Path, ...], missing_ok: bool = False
) -> tuple[list[str], np.ndarray]:
    """Find the audio files, all of which must lie in the data folder after symbolic links are followed.

    Returns:
        The absolute path of each row, and its real path, which tells whether two rows name the same file. Both are ""
        for files that are missing, if they may be.
    """
    base = os.path.abspath(folders[0])
    roots = tuple(os.path.join(os.path.realpath(folder), "") for folder in folders)
    real_path = real_path_finder()
    files = [os.path.join(base, name) for name in names]
    real = [real_path(file) for file in files]
    outside = [index for index, file in enumerate(real) if file and not file.startswith(roots)]
    if outside:
        raise ValueError(
            f"{rows.row(outside[0])}: the audio path {names[outside[0]]!r} leads out of the data folder "
            f"{os.fspath(folders[0])!r} ({len(outside)} such rows); move the files into it, or name their folder as "
            "audio_folder."
        )
    missing = [index for index, file in enumerate(real) if not file]
    if missing_ok:
        files = [file if real[index] else "" for index, file in enumerate(files)]
    elif missing:
        raise ValueError(
            f"{rows.row(missing[0])}: {len(missing)} of {len(names)} audio files are not there, such as "
            f"{', '.join(repr(str(names[index])) for index in missing[:3])}; add them to "
            f"{os.fspath(folders[0])!r}, or name their folder as audio_folder."
        )
    return files, np.array(real, dtype=object)


def real_path_finder() -> Callable[[str], str]:
    """Make a function from a path to its real path, or "" where no regular file is there.

    Folders are resolved once each: resolving every component of every path takes minutes on a network disk.
    """
    folders: dict[str, str] = {}

    def real_path(file: str) -> str:
        folder, name = os.path.split(file)
        try:
            if folder not in folders:
                folders[folder] = os.path.realpath(folder)
            path = os.path.join(folders[folder], name)
            mode = os.lstat(path).st_mode
            if stat.S_ISLNK(mode):
                path = os.path.realpath(path)
                mode = os.stat(path).st_mode
        except (OSError, ValueError):
            return ""
        return path if stat.S_ISREG(mode) else ""

    return real_path


def _assign_splits(
    name: str, given: pa.ChunkedArray, speakers: pa.ChunkedArray, seed: int, allow_overlap: bool
) -> np.ndarray:
    """Return the part of each row, as given or made here from the speakers."""
    splits = given.to_pandas().to_numpy(dtype=object, na_value=None)
    people = speakers.to_pandas().to_numpy(dtype=object, na_value=None)
    present = {split for split in splits if split is not None}
    if present <= {"train"}:
        splits = _draw(name, people, SHARES, seed, "there is no split column (or only 'train' in it)")
        counts = {split: int((splits == split).sum()) for split in SHARES}
        logger.info("%s: no split is given; made one by speakers: %s utterances", name, counts)
        return splits
    if "train" in present and "validation" not in present:
        train = splits == "train"
        share = SHARES["validation"]
        shares = {"train": 1.0 - share, "validation": share}
        splits[train] = _draw(name, people[train], shares, seed, "there is no validation part")
        taken = sorted(set(people[splits == "validation"]))
        logger.warning("%s: no validation part is given; took speakers from train for it: %s", name, ", ".join(taken))
    if not allow_overlap:
        if unknown := sum(person is None for person in people):
            logger.warning("%s: %d rows name no speaker: whether parts share speakers was not checked", name, unknown)
        frame = pd.DataFrame({"speaker": people, "split": splits}).dropna()
        parts = frame.groupby("speaker")["split"].nunique()
        if shared := sorted(parts.index[parts > 1]):
            raise ValueError(
                f"{name}: {len(shared)} speaker(s) are in more than one split, such as "
                f"{', '.join(map(repr, shared[:3]))}; keep each in one split, or accept it by allow_speaker_overlap."
            )
    return splits


def _draw(name: str, people: np.ndarray, shares: Mapping[str, float], seed: int, reason: str) -> np.ndarray:
    """Deal whole speakers to the parts, so that the parts have about their shares of the utterances."""
    unknown = np.array([person is None for person in people])
    if unknown.any():
        raise ValueError(
            f"{name}: {reason}, and {int(unknown.sum())} rows have no speaker to split by; add a column 'split' with "
            f"{', '.join(SPLITS)}, or a column 'speaker'."
        )
    counts = pd.Series(people, dtype=object).value_counts().sort_index()
    if len(counts) < len(shares):
        raise ValueError(
            f"{name}: {reason}, and {len(counts)} speaker(s) cannot be divided among {', '.join(shares)}; add "
            f"speakers, or a column 'split' with {', '.join(SPLITS)}."
        )
    shuffled = counts.iloc[np.random.default_rng(seed).permutation(len(counts))]
    # Speakers too large for the smallest part come first, while a part with room for them is left.
    limit = min(shares.values()) * len(people)
    order = sorted(shuffled.items(), key=lambda item: -item[1] if item[1] > limit else 0)
    room = {split: share * len(people) for split, share in shares.items()}
    part_of: dict[str, str] = {}
    for dealt, (person, count) in enumerate(order):
        empty = [split for split in shares if split not in part_of.values()]
        choice = empty if len(empty) == len(order) - dealt else list(shares)
        part = max(choice, key=room.__getitem__)
        part_of[person] = part
        room[part] -= count
    return pd.Series(people, dtype=object).map(part_of).to_numpy(dtype=object)


def _content_keys(recordings: datasets.Dataset, splits: np.ndarray) -> np.ndarray:
    """Return keys that are equal for equal recordings; contents are read only where lengths agree across splits."""
    content = pc.struct_field(recordings.with_format("arrow")[:]["audio"], "bytes")
    lengths = pc.binary_length(content).to_numpy()
    shared = pd.Series(splits).groupby(lengths).transform("nunique").to_numpy() > 1
    keys = np.array([f"recording {index + 1}" for index in range(len(lengths))], dtype=object)
    first: dict[bytes, str] = {}
    for index in np.flatnonzero(shared):
        digest = hashlib.sha256(content[int(index)].as_buffer()).digest()
        keys[index] = first.setdefault(digest, keys[index])
    return keys


def _check_duplicates(name: str, keys: np.ndarray, splits: np.ndarray) -> None:
    parts = pd.Series(splits).groupby(keys).nunique()
    if repeated := sorted(parts.index[parts > 1]):
        raise ValueError(
            f"{name}: {len(repeated)} recording(s) are in more than one split, such as "
            f"{', '.join(map(repr, repeated[:3]))}; keep each recording in one split."
        )
