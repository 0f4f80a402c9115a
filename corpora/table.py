"""Reads a table of recordings (CSV, JSON, Parquet, a saved dataset or one of the Hub) into the schema of `schema.py`.

Rows are counted from 1 in messages; the header of a CSV file is not counted.
"""

import csv
import hashlib
import json
import logging
import math
import os
import re
import stat
from collections.abc import Callable, Mapping, Sequence
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

_HUB_NAME = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
_SCHEMA = FEATURES.arrow_schema.remove_metadata()
_WORDS = _SCHEMA.field("words").type


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
            `metadata.parquet`, a folder written by `save_to_disk`, or the string `owner/name` of a dataset
            on the Hub.
        label_range: Lowest and highest value of the labels in the source; they are scaled to 0..1 by it.
        columns: Source column per name of the schema (and `split`), for tables with other column names.
        audio_folder: The data folder: relative audio paths start here and no path may lead out of it. By default
            the folder of the table, or the caches of `datasets` and the Hub for a Hub dataset.
        split_seed: Seed of the speaker draw where parts are made here. The draw does not depend on the row order.
        allow_speaker_overlap: Accept speakers that occur in more than one of the given parts.
        require_labels: Demand all three labels in every row; otherwise they may be absent or blank, and are null.

    Returns:
        Non-empty parts with the features `schema.FEATURES`, in the order train, validation, test.

    Raises:
        ValueError: The source, a column, a row or the parts are not as described; one sentence with the remedy.
    """
    low, high = (float(bound) for bound in label_range)
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise ValueError(f"label_range is {label_range!r}; give two finite numbers, the lower one first.")
    columns = dict(columns or {})
    if unknown := sorted(columns.keys() - {*_SCHEMA.names, "split"}):
        raise ValueError(
            f"columns names {unknown}, which the schema does not have; it has {[*_SCHEMA.names, 'split']}."
        )
    name = os.fspath(source)
    opened = _open(name, isinstance(source, str))
    folders = opened.folders
    if audio_folder is not None:
        folders = (Path(audio_folder),)
        if not folders[0].is_dir():
            raise ValueError(f"{name}: the audio folder {os.fspath(audio_folder)!r} is not a folder.")

    tables, keys, audio = [], [], []
    for key, table in opened.tables.items():
        if table.num_rows == 0:
            continue
        rows = _Rows(table, name, key if len(opened.tables) > 1 else None)
        found = _match_columns(table.column_names, columns, require_labels, rows.place)
        if len(opened.tables) > 1:
            found.pop("split", None)
        table, files = _convert(rows, found, key, folders, (low, high), require_labels)
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


class _Opened(NamedTuple):
    """A source as it is: tables per part ("" if there are no parts), their datasets, and the allowed audio folders."""

    tables: dict[str, pa.Table]
    datasets: dict[str, datasets.Dataset] | None
    folders: tuple[Path, ...]


class _Rows(NamedTuple):
    """One table of a source, and the words that name its rows in messages."""

    table: pa.Table
    source: str
    part: str | None

    @property
    def place(self) -> str:
        return self.source if self.part is None else f"{self.source}, part {self.part!r}"

    def row(self, index: int) -> str:
        return f"{self.place}, row {int(index) + 1}"


def _reason(error: Exception) -> str:
    """Return the message of an error of a library on one line and without its full stop."""
    return " ".join(str(error).split()).rstrip(".")


def _open(name: str, may_be_hub: bool) -> _Opened:
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
        if len(held) != 1:
            raise ValueError(
                f"{name}: the folder holds {' and '.join(held) or 'none of ' + ', '.join(FOLDER_TABLES)}"
                f"{'; name the one to read.' if held else ' and is no saved dataset; name a table file.'}"
            )
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


def _read_csv(path: Path) -> pa.Table:
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


def _read_parquet(path: Path) -> pa.Table | datasets.Dataset:
    try:
        file = pyarrow.parquet.ParquetFile(path)
        if any(pa.types.is_struct(f.type) and f.type.get_field_index("bytes") >= 0 for f in file.schema_arrow):
            # Embedded recordings may exceed the memory; datasets maps them from its cache.
            return datasets.Dataset.from_parquet(str(path))
        return file.read()
    except (
        OSError,
        ValueError,
        TypeError,
        LookupError,
        NotImplementedError,
        datasets.exceptions.DatasetsError,
    ) as error:
        raise ValueError(f"{path}: this is not a readable Parquet file ({_reason(error)}).") from error


_READERS: dict[str, Callable[[Path], pa.Table | datasets.Dataset]] = {
    ".csv": _read_csv,
    ".jsonl": _read_json,
    ".json": _read_json,
    ".parquet": _read_parquet,
}


def _match_columns(present: Sequence[str], columns: Mapping[str, str], labels: bool, place: str) -> dict[str, str]:
    """Find the source column of each name of the schema (and `split`), so far as there is one."""
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
        elif name in columns or name == "audio" or (labels and name in LABELS):
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
        The table, and the real path of each audio file, or `None` where the source embeds the recordings.
    """
    count = rows.table.num_rows
    paths = _audio_names(rows, found["audio"])
    if paths is None:
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
        pa.array([value], _WORDS)
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


def _locate(rows: _Rows, names: np.ndarray, folders: tuple[Path, ...]) -> tuple[list[str], np.ndarray]:
    """Find the audio files, all of which must lie in the data folder after symbolic links are followed.

    Returns:
        The absolute path of each row, and its real path, which tells whether two rows name the same file.
    """
    base = os.path.abspath(folders[0])
    roots = tuple(os.path.join(os.path.realpath(folder), "") for folder in folders)
    real_path = _real_path_finder()
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
    if missing:
        raise ValueError(
            f"{rows.row(missing[0])}: {len(missing)} of {len(names)} audio files are not there, such as "
            f"{', '.join(repr(str(names[index])) for index in missing[:3])}; add them to "
            f"{os.fspath(folders[0])!r}, or name their folder as audio_folder."
        )
    return files, np.array(real, dtype=object)


def _real_path_finder() -> Callable[[str], str]:
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
