"""Opens the sources of a table: CSV, JSON, Parquet, a saved dataset, a folder of shards, or a dataset of the Hub."""

import csv
import dataclasses
import itertools
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet
from huggingface_hub.constants import HF_HUB_CACHE

from .messages import reason, shortened
from .schema import ALIASES, DISTRIBUTED, FEATURES, SCHEMA, SPLIT_ALIASES, SPLITS
from .shards import SHARDS, noted_audio_folder, valid_rows

FOLDER_TABLES: tuple[str, ...] = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
SAVED_DATASETS: tuple[str, ...] = ("dataset_dict.json", "state.json")

TABLE_SUFFIXES: tuple[str, ...] = (".csv", ".tsv", ".jsonl", ".json", ".parquet")

_DELIMITERS = (",", ";", "\t", "|")
# Shards as the Hub has them: the part, the number, and how many there are; older ones end with a hash.
_HUB_SHARD = re.compile(r"(.+)-(\d{5})-of-(\d{5})(?:-[0-9a-f]+)?\.parquet")
_HUB_SHARDS = "PART-00000-of-00001.parquet"
_HUB_NAME = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")


@dataclasses.dataclass(frozen=True)
class Part:
    """One table of a source, which has several where it is a dataset with parts.

    Attributes:
        name: Of the part; "" where the source has none.
        table: At least one row.
        dataset: The same rows, where the source is a dataset; its recordings may be embedded.
        label: What messages call the part.
        row_names: What messages call each row; by default its number from 1.
        official: Whether a reader made the rows from a corpus in its owners' layout.
        chosen: Which rows of the source these are; by default all of them.
    """

    name: str
    table: pa.Table
    dataset: datasets.Dataset | None
    label: str
    row_names: Sequence[str] | None = None
    official: bool = False
    chosen: np.ndarray | None = None

    def row(self, index: int) -> str:
        """Return what messages call a row."""
        number = int(index if self.chosen is None else self.chosen[index])
        name = f"row {number + 1}" if self.row_names is None else self.row_names[number]
        return f"{self.label}, {name}"

    def refuse(self, index: int, why: str, errors: dict[int, str] | None) -> None:
        """Keep why a row cannot be used in `errors`, of which the first reason stays, or raise it where there is none.

        Raises:
            ValueError: Nobody keeps the errors; the sentence names the row.
        """
        if errors is None:
            raise ValueError(f"{self.row(index)}: {why}")
        errors.setdefault(index, shortened(why))

    def select(self, rows: np.ndarray) -> "Part":
        """Return the part with some of its rows, which keep what messages call them."""
        dataset = None if self.dataset is None else self.dataset.with_format(None).select(rows)
        return dataclasses.replace(self, table=self.table.take(rows), dataset=dataset, chosen=rows)

    def recordings(self, column: str) -> datasets.Dataset:
        """Return the embedded recordings of a column as the only column, `audio`."""
        assert self.dataset is not None  # only datasets embed recordings
        recordings = self.dataset.with_format(None).select_columns([column]).rename_columns({column: "audio"})
        return recordings.cast_column("audio", FEATURES["audio"])


@dataclasses.dataclass(frozen=True)
class Source:
    """An open source.

    Attributes:
        name: What messages call it.
        parts: Those with rows, at least one.
        has_parts: Whether the source has several parts, empty ones included, so that their names are the splits.
        audio_folders: Relative audio paths start at the first; no path may lead out of all of them. Empty for a
            corpus of text.
        origin: The absolute path or the Hub name of what was read; "" where a reader made the rows.
    """

    name: str
    parts: list[Part]
    has_parts: bool
    audio_folders: tuple[Path, ...]
    origin: str = ""


def open_source(
    source: "str | os.PathLike[str] | datasets.Dataset | datasets.DatasetDict",
    audio_folder: str | os.PathLike[str] | None = None,
    with_errors: bool = False,
) -> Source:
    """Open a source as described in `read_table`; `with_errors` keeps the rows of shards that have an `error`.

    Raises:
        ValueError: It cannot be read or has no rows; one sentence with the remedy.
    """
    is_named = isinstance(source, str | os.PathLike)
    opened = _open_named(source, with_errors) if is_named else _open_dataset(source)
    if audio_folder is None:
        return opened
    if not Path(audio_folder).is_dir():
        found = "a file" if os.path.exists(audio_folder) else "not there"
        raise ValueError(
            f"{opened.name}: --audio_folder is {os.fspath(audio_folder)!r}, which is {found}; name a folder."
        )
    return dataclasses.replace(opened, audio_folders=(Path(audio_folder),))


def _open_dataset(source: object) -> Source:
    """Open a dataset in memory.

    Its files are in the working folder or in the caches, unless it was made in this process: one that was loaded may
    come from somebody else, and may not name any file of this machine.
    """
    if isinstance(source, datasets.IterableDataset | datasets.IterableDatasetDict):
        raise ValueError(
            f"the source is an {type(source).__name__}, whose rows cannot be counted: train on it with MsfSerCollator "
            "and Trainer, or load it without streaming."
        )
    folders: tuple[Path, ...] = (Path(), Path(datasets.config.HF_DATASETS_CACHE), Path(HF_HUB_CACHE))
    parts = {_part_of(source): source} if isinstance(source, datasets.Dataset) else source
    if isinstance(parts, dict):
        if all(part.info.builder_name is None for part in parts.values()):
            folders = (*folders, Path(Path.cwd().anchor))
        return source_of(parts, "the dataset", folders)
    raise ValueError(
        f"the source is a {type(source).__name__}; give a path, the name of a dataset on the Hub, or a Dataset or "
        "DatasetDict of datasets."
    )


def _part_of(dataset: datasets.Dataset) -> str:
    """The part that a dataset was loaded as, which is not drawn anew: `load_dataset(..., split="test")`."""
    name = str(dataset.split or "").lower()
    return name if name in (*SPLITS, *SPLIT_ALIASES) else ""


def _open_named(source: str | os.PathLike[str], with_errors: bool) -> Source:
    name, path = os.fspath(source), Path(source)
    if path.is_dir():
        opened = _open_folder(name, path, with_errors)
    elif path.is_file():
        opened = _open_file(name, path)
    elif path.exists():
        raise ValueError(f"{name}: this is neither a file nor a folder.")
    elif isinstance(source, str) and _HUB_NAME.fullmatch(name) and path.suffix.lower() not in _READERS:
        opened = _open_hub(name)
    else:
        raise ValueError(
            f"{name}: there is no such file or folder; give one that exists, or a Hub dataset as owner/name."
        )
    return dataclasses.replace(opened, origin=opened.origin or os.path.realpath(path))


def source_of(
    content: Mapping[str, pa.Table | datasets.Dataset],
    name: str,
    audio_folders: tuple[Path, ...],
    row_names: Sequence[str] | None = None,
    official: bool = False,
) -> Source:
    """Make a source of tables or datasets by part."""
    parts = []
    for key, rows in content.items():
        # The arrow format neither decodes nor copies: the columns stay memory-mapped.
        table = rows if isinstance(rows, pa.Table) else rows.with_format("arrow")[:]
        label = f"{name}, part {str(key)!r}" if len(content) > 1 else name
        dataset = None if isinstance(rows, pa.Table) else rows
        if table.num_rows:
            parts.append(Part(str(key), table, dataset, label, row_names, official))
    if not parts:
        raise ValueError(f"{name}: the table has no rows; give at least one utterance.")
    return Source(name, parts, len(content) > 1, audio_folders)


def holds_table(folder: str | os.PathLike[str]) -> bool:
    """Whether a folder is a source: a saved dataset, or one with a table or shards in it."""
    path = Path(folder)
    named = any((path / name).is_file() for name in (*FOLDER_TABLES, *SAVED_DATASETS))
    return named or any(path.glob(SHARDS)) or bool(_hub_shards(path))


def _open_folder(name: str, folder: Path, with_errors: bool) -> Source:
    if any((folder / file).is_file() for file in SAVED_DATASETS):
        try:
            saved = datasets.load_from_disk(folder)
        except (OSError, ValueError, TypeError, LookupError, AttributeError) as error:
            raise ValueError(f"{name}: the saved dataset cannot be read ({reason(error)}); save it again.") from error
        parts = saved if isinstance(saved, datasets.DatasetDict) else {_part_of(saved): saved}
        return source_of(parts, name, (folder,))
    found = [table for table in FOLDER_TABLES if (folder / table).is_file()]
    shards = sorted(folder.glob(SHARDS))
    found += [SHARDS] if shards else []
    of_hub = _hub_shards(folder)
    found += [_HUB_SHARDS] if of_hub else []
    if not any(folder.iterdir()):
        raise ValueError(f"{name}: the folder is empty; name a table file, or a folder with one.")
    if not found:
        tables = ", ".join((*FOLDER_TABLES, SHARDS, _HUB_SHARDS))
        raise ValueError(f"{name}: the folder holds none of {tables} and is no saved dataset; name a table file.")
    if len(found) > 1:
        raise ValueError(f"{name}: the folder holds {' and '.join(found)}; name the one to read.")
    if of_hub:
        return source_of({part: _read_parquet(*paths) for part, paths in of_hub.items()}, name, (folder,))
    return _open_shards(name, folder, shards, with_errors) if shards else _open_file(name, folder / found[0])


def _hub_shards(folder: Path) -> dict[str, list[Path]]:
    """Return the shards of each part of a dataset that was downloaded from the Hub, in its folder or in `data`.

    Raises:
        ValueError: Some of a part are not there, or there are those of two downloads.
    """
    parts: dict[str, list[Path]] = {}
    places: dict[str, list[tuple[int, int]]] = {}
    for path in sorted((*folder.glob("*-of-*.parquet"), *folder.glob("data/*-of-*.parquet"))):
        if match := _HUB_SHARD.fullmatch(path.name):
            parts.setdefault(match[1], []).append(path)
            places.setdefault(match[1], []).append((int(match[2]), int(match[3])))
    for part, found in places.items():
        counts = {count for _, count in found}
        if len(counts) > 1 or len({*found}) < len(found):
            names = " and ".join(repr(os.path.relpath(path, folder)) for path in (parts[part][0], parts[part][-1]))
            raise ValueError(f"{folder}: {names} are shards of two downloads of {part!r}; keep those of one.")
        if len(found) != max(counts):
            raise ValueError(
                f"{folder}: {len(found)} of {max(counts)} shards of {part!r} are there; copy the others too."
            )
    return parts


def _open_file(name: str, path: Path) -> Source:
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise ValueError(f"{path}: tables of type {path.suffix!r} are not read; give one of {', '.join(_READERS)}.")
    if path.stat().st_size == 0:
        raise ValueError(f"{path}: the file is empty; it needs at least one row.")
    opened = source_of(
        {"": reader(path)}, name, (path.parent,), row_names=_LINES.get(path.suffix.lower(), _no_lines)(path)
    )
    return dataclasses.replace(opened, origin=os.path.realpath(path))


def _open_shards(name: str, folder: Path, shards: Sequence[Path], with_errors: bool) -> Source:
    """Open shards as one table, by default without the rows that have an `error`."""
    audio_folder = noted_audio_folder(folder)
    row_names, leaves_out = None, False
    if not with_errors:
        row_names, leaves_out = valid_rows(folder, shards)
    content = _read_parquet(*shards, rows=pc.field("error").is_null() if leaves_out else None)
    table = content if isinstance(content, pa.Table) else content.data
    if "split" in table.column_names and table.column("split").null_count == len(table):
        # The annotated table had no parts.
        content = content.drop_columns("split") if isinstance(content, pa.Table) else content.remove_columns("split")
    return source_of({"": content}, name, (audio_folder,), row_names)


def _open_hub(name: str) -> Source:
    # Datasets 5 runs no code of a dataset; there is no switch to pass.
    try:
        loaded = datasets.load_dataset(name)
    except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
        raise ValueError(
            f"{name}: there is no such file or folder, and as a Hub dataset it cannot be loaded ({reason(error)})."
        ) from error
    opened = source_of(loaded, name, (Path(datasets.config.HF_DATASETS_CACHE), Path(HF_HUB_CACHE)))
    return dataclasses.replace(opened, origin=name)


def read_csv(path: Path) -> pa.Table:
    """Read a CSV file with all its cells as text, none of them null.

    Cells are separated by commas, semicolons, tabs or bars, which the header tells. The metadata of the schema has
    `decimal` where numbers may have a decimal comma.

    Raises:
        ValueError: It is empty or no CSV file in UTF-8; one sentence.
    """
    try:
        header, delimiter = _header(path)
        if not header:
            raise ValueError(f"{path}: the file is empty; it needs a header and at least one row.")
        table = pyarrow.csv.read_csv(
            path,
            parse_options=pyarrow.csv.ParseOptions(delimiter=delimiter, newlines_in_values=True),
            convert_options=pyarrow.csv.ConvertOptions(
                column_types=dict.fromkeys(header, pa.string()), strings_can_be_null=False
            ),
        )
    except (OSError, UnicodeDecodeError, csv.Error, pa.ArrowInvalid) as error:
        raise ValueError(
            f"{path}: this is not a readable CSV file in UTF-8 ({reason(error)}); save it again, as CSV in UTF-8."
        ) from error
    return table if delimiter == "," else table.replace_schema_metadata({"decimal": ","})


def _header(path: Path) -> tuple[list[str], str]:
    """Return the header of a CSV file, and the delimiter that gives most names of the schema, or else most names."""
    headers = {}
    for delimiter in _DELIMITERS:
        with path.open(newline="", encoding="utf-8-sig") as file:
            headers[delimiter] = next(csv.reader(file, delimiter=delimiter), [])
    aliases = (alias for table in (ALIASES, DISTRIBUTED) for names in table.values() for alias in names)
    known = {*SCHEMA.names, *aliases}
    best = max(_DELIMITERS, key=lambda delimiter: (len(known & {*headers[delimiter]}), len(headers[delimiter])))
    return headers[best], best


class _Lines(Sequence[str]):
    """What messages call the rows of a text file: the lines where they start, counted from 1 with the header.

    The file is read again where a message is made.
    """

    def __init__(self, path: Path, starts: Callable[[Path], Iterator[int]]):
        self.path, self.starts = path, starts

    def __len__(self) -> int:
        return sum(1 for _ in self.starts(self.path))

    def __getitem__(self, index: Any) -> Any:
        try:
            return f"line {next(itertools.islice(self.starts(self.path), int(index), None))}"
        except (OSError, ValueError, csv.Error, StopIteration):
            return f"row {int(index) + 1}"


def _csv_starts(path: Path) -> Iterator[int]:
    _, delimiter = _header(path)
    with path.open(newline="", encoding="utf-8-sig") as file:
        rows = csv.reader(file, delimiter=delimiter)
        next(rows)
        before = rows.line_num
        for row in rows:
            if row:
                yield before + 1
            before = rows.line_num


def _json_starts(path: Path) -> Iterator[int]:
    text = path.read_text(encoding="utf-8-sig")
    if not text.lstrip().startswith("["):
        yield from (number for number, line in enumerate(text.split("\n"), start=1) if line.strip())


def _read_json(path: Path) -> pa.Table:
    records: list[Any] = []
    at = ""
    try:
        text = path.read_text(encoding="utf-8-sig")
        if text.lstrip().startswith("["):
            records = json.loads(text)
        else:
            for number, line in enumerate(text.split("\n"), start=1):
                if line.strip():
                    at = f"line {number}: "
                    records.append(json.loads(line))
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(
            f"{path}: this is neither a JSON list nor one JSON object a line ({at}{reason(error)}); write it again."
        ) from error
    for index, record in enumerate(records):
        if not isinstance(record, dict):
            row = _Lines(path, _json_starts)[index]
            raise ValueError(f"{path}, {row}: this is not a JSON object; write one object for each row.")
    names = dict.fromkeys(key for record in records for key in record)
    try:
        return pa.table({key: _json_column([record.get(key) for record in records]) for key in names})
    except UnicodeEncodeError as error:
        raise ValueError(f"{path}: some text holds half of a character ({reason(error)}); correct it.") from error


def _json_column(values: list[object]) -> pa.Array:
    try:
        return pa.array(values)
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError, OverflowError):
        # Mixed types: as text, so that the check of the column can name the row and show the value.
        return pa.array([v if v is None or isinstance(v, str) else json.dumps(v) for v in values], pa.string())


def _read_parquet(*paths: Path, rows: pc.Expression | None = None) -> pa.Table | datasets.Dataset:
    """Read files as one table whose columns may be without a type in some of them, where all cells are null."""
    path = paths[0]
    try:
        schemas = []
        for path in paths:
            schemas.append(pyarrow.parquet.read_schema(path))
        if any(pa.types.is_struct(f.type) and f.type.get_field_index("bytes") >= 0 for s in schemas for f in s):
            # Embedded recordings may exceed the memory; datasets maps them from its cache.
            features = None
            if len(paths) > 1:
                schema = pa.unify_schemas([s.remove_metadata() for s in schemas], promote_options="permissive")
                features = datasets.Features.from_arrow_schema(schema)
            return datasets.Dataset.from_parquet([str(path) for path in paths], filters=rows, features=features)
        tables = []
        for path in paths:
            table = pyarrow.parquet.ParquetFile(path).read()
            tables.append(table if rows is None else table.filter(rows))
        return pa.concat_tables(tables, promote_options="permissive")
    except (
        *(OSError, ValueError, TypeError, LookupError, NotImplementedError),
        datasets.exceptions.DatasetsError,
    ) as error:
        raise ValueError(f"{path}: this is not a readable Parquet file ({reason(error)}); write it again.") from error


def _no_lines(path: Path) -> None:
    """Rows without lines have numbers."""


_LINES: dict[str, Callable[[Path], Sequence[str] | None]] = {
    ".csv": lambda path: _Lines(path, _csv_starts),
    ".tsv": lambda path: _Lines(path, _csv_starts),
    ".jsonl": lambda path: _Lines(path, _json_starts),
    ".json": lambda path: _Lines(path, _json_starts),
}
_READERS: dict[str, Callable[[Path], pa.Table | datasets.Dataset]] = {
    ".csv": read_csv,
    ".tsv": read_csv,
    ".jsonl": _read_json,
    ".json": _read_json,
    ".parquet": _read_parquet,
}
