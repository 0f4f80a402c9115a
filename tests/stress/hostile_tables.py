"""Tables that nobody should send: each must give rows or a `ValueError` with a sentence, as hostile audio must.

cd tests && python -m stress.hostile_tables 17 18
"""

import csv
import io
import json
import os
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import soundfile
from tiny import noise

from msfser import LABELS
from msfser.corpora.table import SourceRows, open_table, read_table
from msfser.sharding.sharded_table import recording_of

from . import isolated

# What a table may add to the address space of the process that reads it.
MOST_BYTES = 1_000_000_000
CLIPS = 8

# Instead of a label.
NUMBERS = (
    "",
    " ",
    "five",
    "0,5",
    "0.5.1",
    "1e999",
    "-1e999",
    "nan",
    "inf",
    "0x10",
    "½",
    "\u0660.\u0665",
    "1_0",
    "=1/2",
    "--1",
)
# Instead of a path.
PATHS = (
    *("", "/etc/hostname", "../secret.wav", "0.wav/../../secret.wav", "./0.wav", "0.wav\0", "\ud800.wav", "a" * 5000),
    *("link.wav", "loop.wav", "/dev/zero", "file:///etc/hostname", "https://localhost/a.wav", "~", "$HOME/a.wav", "."),
    *("=HYPERLINK(1)", "0.wav;rm -rf", "CON", "0.WAV", " 0.wav", "0.wav\n", "\\\\server\\0.wav", "C:\\0.wav"),
)
TEXTS = (
    "",
    "\0",
    "a" * 200_000,
    "\u202e",
    "\ud83d",
    "<script>",
    "{{1}}",
    '"',
    '""',
    "\r",
    "\r\n",
    "é" * 3000,
    "\ufeff",
)
WORDS = (
    *("[", "[[", "{}", "1", '"a"', "[1]", "[{}]", '[{"word": 1}]', '[{"word": "a", "start": -1, "end": 0}]'),
    *('[{"word": "a", "start": 2, "end": 1}]', '[{"word": "a", "start": NaN, "end": 1}]', "[" * 5000),
    *('[{"word": "a", "start": 0, "end": 1e999}]', '[{"word": null, "start": 0, "end": 1}]', "null", "[null]"),
)


def _rows(draw: np.random.Generator) -> list[dict[str, Any]]:
    rows = []
    for clip in range(CLIPS):
        row: dict[str, Any] = {"audio": f"{clip}.wav", "transcript": f"text {clip}", "speaker": str(clip)}
        row |= {name: round(float(draw.random()), 3) for name in LABELS}
        rows.append(row | {"split": ("train", "validation", "test", "train")[clip % 4]})
    return rows


def _text_of(rows: list[dict[str, Any]]) -> str:
    file = io.StringIO()
    table = csv.DictWriter(file, list(dict.fromkeys(name for row in rows for name in row)))
    table.writeheader()
    table.writerows(rows)
    return file.getvalue()


def _spoilt(draw: np.random.Generator) -> list[dict[str, Any]]:
    """Rows with some wrong values."""
    rows = _rows(draw)
    for _ in range(int(draw.integers(1, 4))):
        row = rows[draw.integers(len(rows))]
        column = str(
            draw.choice(["audio", "transcript", "valence", "dominance", "speaker", "split", "words", "extra"])
        )
        values = {"audio": PATHS, "valence": NUMBERS, "dominance": NUMBERS, "words": WORDS}.get(column, TEXTS)
        row[column] = values[draw.integers(len(values))]
    return rows


# Each writes a table into a folder and returns its path.


def _spoilt_csv(draw: np.random.Generator, folder: Path) -> Path:
    text = _text_of(_spoilt(draw)).encode("utf-8", "surrogatepass")
    return _file(folder / "metadata.csv", text)


def _spoilt_json(draw: np.random.Generator, folder: Path) -> Path:
    rows = _spoilt(draw)
    for _ in range(int(draw.integers(3))):
        odd = (None, True, 1, -1, 2**70, 1e400, [], {}, [[]], {"a": {"b": 1}}, "x", [1, "a"])
        column = str(draw.choice(["audio", "transcript", "arousal", "speaker", "split", "words", "extra"]))
        rows[draw.integers(len(rows))][column] = odd[draw.integers(len(odd))]
    lines = [json.dumps(row) for row in rows]
    if draw.random() < 0.3:
        ends = ("", "[" * 20_000, "{", "null", "[]", '"text"', '{"audio": "0.wav"} x', '{"a": 1, "a": 2}', "\0")
        lines.insert(int(draw.integers(len(lines))), ends[draw.integers(len(ends))])
    return _file(folder / "metadata.jsonl", "\n".join(lines).encode())


def _spoilt_parquet(draw: np.random.Generator, folder: Path) -> Path:
    table = pa.Table.from_pylist(_rows(draw))
    odd = (
        pa.nulls(CLIPS),
        pa.array([True] * CLIPS),
        pa.array(range(CLIPS), pa.int8()),
        pa.array([b"\xff\xfe"] * CLIPS, pa.binary()),
        pa.array(["a"] * CLIPS).dictionary_encode(),
        pa.array(["0.5"] * CLIPS, pa.large_string()),
        pa.array([[1.0]] * CLIPS),
        pa.array([{"bytes": None, "path": "../secret.wav"}] * CLIPS),
        pa.array([{"bytes": "text", "path": None}] * CLIPS),
        pa.array([{"bytes": b"no sound", "path": None}] * CLIPS),
        pa.array([[("a", 1)]] * CLIPS, pa.map_(pa.string(), pa.int64())),
        pa.array([0] * CLIPS, pa.timestamp("s")),
        pa.array([1] * CLIPS, pa.decimal128(5, 2)),
        pa.array([0.5] * CLIPS, pa.float16()),
        pa.array([1e300] * CLIPS),
        pa.array([2**63] * CLIPS, pa.uint64()),
    )
    for _ in range(int(draw.integers(1, 3))):
        column = str(draw.choice(["audio", "transcript", "arousal", "speaker", "split", "words", "extra"]))
        if column in table.column_names:
            table = table.drop_columns(column)
        table = table.append_column(column, odd[draw.integers(len(odd))])
    pq.write_table(table, folder / "metadata.parquet")
    return folder / "metadata.parquet"


def _damaged(draw: np.random.Generator, folder: Path) -> Path:
    """Any of the three with damaged bytes."""
    kind = str(draw.choice(["csv", "jsonl", "parquet"]))
    rows, path = _rows(draw), folder / f"metadata.{kind}"
    if kind == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
        data = bytearray(path.read_bytes())
    else:
        text = _text_of(rows) if kind == "csv" else "\n".join(map(json.dumps, rows))
        data = bytearray(text.encode(str(draw.choice(["utf-8", "utf-8", "utf-16", "utf-32", "utf-8-sig"]))))
    damage = int(draw.integers(4))
    if damage == 0:
        data = data[: int(draw.integers(len(data)))]
    elif damage == 1:
        for index in draw.integers(len(data), size=int(draw.integers(1, 9))):
            data[index] ^= 1 << int(draw.integers(8))
    elif damage == 2:
        index = int(draw.integers(len(data)))
        data[index:index] = draw.bytes(int(draw.integers(1, 50)))
    else:
        index = int(draw.integers(len(data)))
        data[index:index] = bytes(data[index : index + 30]) * int(draw.integers(1, 500))
    return _file(path, bytes(data))


def _csv_bomb(draw: np.random.Generator, folder: Path) -> Path:
    text = _text_of(_rows(draw))
    head, _, rest = text.partition("\n")
    bombs: tuple[Callable[[], str], ...] = (
        lambda: text + '"' + "x" * 20_000_000,
        lambda: text + ",".join(["x" * 100_000] * 200),
        lambda: head.rstrip() + "," + ",".join(f"c{i}" for i in range(30_000)) + "\r\n" + rest,
        lambda: head.rstrip() + ',"' + "y" * 3_000_000 + '"\r\n' + rest,
        lambda: text + ("," * 100_000 + "\r\n") * 20,
        lambda: text + '"' * 1_000_001,
        lambda: text + "\r\n" * 1_000_000,
        lambda: head + "\n" + rest * 2_000,
        lambda: text.replace("text 3", "z" * 900_000),
        lambda: "audio," * 5_000 + "audio\r\n",
        lambda: head + "\n",
        lambda: "\0" * 1_000_000,
        lambda: text.replace(",", ";"),
        lambda: text.replace(",", "\t"),
    )
    return _file(folder / "metadata.csv", bombs[draw.integers(len(bombs))]().encode())


def _folder(draw: np.random.Generator, folder: Path) -> Path:
    """A folder that is more or less than a table."""
    kind = int(draw.integers(9))
    target = folder / "corpus"
    target.mkdir()
    if kind == 0:  # two tables
        _file(target / "metadata.csv", b"audio\n")
        _file(target / "metadata.jsonl", b"{}")
    elif kind == 1:  # a dataset with code, which nothing may run
        _file(target / "corpus.py", f"open({str(folder / 'ran')!r}, 'w')".encode())
        _file(target / "dataset_infos.json", b"{}")
    elif kind == 2:  # and with a table too
        _file(target / "corpus.py", f"open({str(folder / 'ran')!r}, 'w')".encode())
        shutil.copy(_spoilt_csv(draw, folder), target / "metadata.csv")
    elif kind == 3:  # a saved dataset whose description is false
        datasets.Dataset.from_list(_rows(draw)).save_to_disk(target)
        names = ("state.json", "dataset_info.json")
        _file(target / str(draw.choice(names)), (b"", b"[]", b"{}", b"null", b'{"_data_files": 1}')[draw.integers(5)])
    elif kind == 4:  # a saved dataset that names a file outside
        datasets.Dataset.from_list(_rows(draw)).save_to_disk(target)
        state = json.loads((target / "state.json").read_text())
        state["_data_files"] = [{"filename": "../../secret.arrow"}]
        _file(target / "state.json", json.dumps(state).encode())
    elif kind == 5:  # shards that note a wrong folder
        (target / "data").mkdir()
        pq.write_table(pa.Table.from_pylist(_rows(draw)), target / "data" / "part-00000.parquet")
        notes = (b"", b"[]", b'{"audio_folder": 1}', b'{"audio_folder": "../.."}', b'{"audio_folder": "/nowhere"}')
        _file(target / "annotation.json", notes[draw.integers(len(notes))])
    elif kind == 6:  # a table that is a link, a device or a folder
        table = target / "metadata.csv"
        (lambda: table.symlink_to("/dev/zero"), lambda: os.mkfifo(table), table.mkdir)[draw.integers(3)]()
    elif kind == 7:  # one recording in two parts, by name and by content
        rows = _rows(draw)
        rows[0]["audio"] = ("1.wav", "../0.wav", "same.wav")[draw.integers(3)]
        shutil.copy(folder / "1.wav", folder / "same.wav")
        _file(folder / "metadata.csv", _text_of(rows).encode())
        return folder
    else:  # an archive that unpacks to outside
        return _file(folder / "metadata.zip", b"PK\x03\x04" + draw.bytes(100))
    return target


def _file(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


KINDS = (_spoilt_csv, _spoilt_json, _spoilt_parquet, _damaged, _spoilt_csv, _folder, _spoilt_json, _damaged)


def table(number: int, folder: Path) -> tuple[str, Path]:
    """Writes the table with a number: what it is, and where."""
    draw = np.random.default_rng([11, number])
    for clip in range(CLIPS):
        soundfile.write(folder / f"{clip}.wav", noise(0.01, clip), 16_000)
    shutil.copy(folder / "0.wav", folder.parent / "secret.wav")
    (folder / "link.wav").symlink_to(folder.parent / "secret.wav")
    (folder / "loop.wav").symlink_to(folder / "loop.wav")
    make = _csv_bomb if number % 16 == 15 else KINDS[number % len(KINDS)]
    return make.__name__.strip("_"), make(draw, folder)


def _open_for_predict(path: Path) -> SourceRows:
    return open_table(path, with_errors=True)


def read(number: int, folder: Path) -> isolated.Outcome:
    """Reads the table with a number as training, `annotate`, and `predict` do."""
    folder /= f"{number}"
    folder.mkdir()
    datasets.config.HF_DATASETS_CACHE = folder.parent.parent / "cache"
    name, path = table(number, folder)
    defect, given, seconds = "", set(), 0.0
    for way in (read_table, open_table, _open_for_predict):
        start = time.process_time()
        try:
            result = way(path)
            given.add("result")
            files = (
                [recording_of(result, row) for row in range(len(result.table))]
                if isinstance(result, SourceRows)
                else [audio["path"] for part in result.values() for audio in part["audio"]]
            )
            named = [file for file in files if isinstance(file, str) and file]
            if outside := [file for file in named if not os.path.realpath(file).startswith(f"{folder}/")]:
                defect = f"{way.__name__}: it names {outside[0]}"
        except ValueError as error:
            given.add("refused")
            if not isolated.is_sentence(error):
                defect = f"{way.__name__}: {type(error).__name__} without a sentence: {str(error)[:300]!r}"
        except Exception as error:
            defect = f"{way.__name__}: {type(error).__name__}: {str(error)[:300]}"
        seconds = max(seconds, time.process_time() - start)
    if (folder / "ran").exists():
        defect = "code of a dataset ran"
    shutil.rmtree(folder)
    return isolated.Outcome(number, name, "/".join(sorted(given)), seconds, defect)


if __name__ == "__main__":
    isolated.answer(read, MOST_BYTES, *map(int, sys.argv[1:3]))
