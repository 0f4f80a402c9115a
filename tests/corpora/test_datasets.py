"""Datasets of the library `datasets` as sources: saved or in memory, with a column of sound that is decoded or not."""

import datasets
import numpy as np
import pandas as pd
import pytest
from test_table import fails, flat, make_rows, source_fails, wav_bytes, with_splits, write_jsonl

from msfser.corpora.schema import FEATURES
from msfser.corpora.table import open_table, read_table


@pytest.fixture
def rows(tmp_path):
    return with_splits(make_rows(tmp_path))


def with_bytes(rows):
    return [row | {"audio": {"bytes": wav_bytes(k / 32), "path": f"{k}.wav"}} for k, row in enumerate(rows)]


@pytest.mark.parametrize("decode", [True, False])
@pytest.mark.parametrize("change", ["as it is", "shuffled", "formatted", "transformed"])
def test_a_dataset_in_memory(rows, decode, change):
    """Its decoder is not asked: the recordings stay as they are encoded."""
    rows = with_bytes(rows)
    source = datasets.Dataset.from_list(rows).cast_column("audio", datasets.Audio(sampling_rate=8_000, decode=decode))
    if change == "shuffled":
        order = np.random.default_rng(0).permutation(len(rows))
        source, rows = source.select(order), [rows[i] for i in order]
    elif change == "formatted":
        source = source.with_format("torch", columns=["valence"])
    elif change == "transformed":
        source.set_transform(lambda batch: {"nothing": [0] * len(next(iter(batch.values())))})
    result = read_table(source)
    assert [part.features for part in result.values()] == [FEATURES] * 3
    assert sorted(row["audio"]["bytes"] for row in flat(result)) == sorted(row["audio"]["bytes"] for row in rows)
    by_name = {row["audio"]["path"]: row for row in rows}
    assert all(by_name[row["audio"]["path"]]["audio"] == row["audio"] for row in flat(result))
    assert all(by_name[row["audio"]["path"]]["speaker"] == row["speaker"] for row in flat(result))
    opened = open_table(source)
    assert opened.embedded.num_rows == len(rows) and opened.table["valence"].to_pylist() == [0.25] * len(rows)


def test_parts_in_memory(rows):
    whole = datasets.Dataset.from_list(with_bytes(rows)).cast_column("audio", datasets.Audio())
    rows_of = {"train": range(4), "val": (4, 5), "test": (6, 7)}
    parts = datasets.DatasetDict({name: whole.select(rows) for name, rows in rows_of.items()}).remove_columns("split")
    assert read_table(parts).num_rows == {"train": 4, "validation": 2, "test": 2}
    parts["test"] = parts["train"]
    fails("the dataset: 4 recordings are in more than one split", parts, allow_speaker_overlap=True)


def test_paths_in_memory(rows, tmp_path, monkeypatch):
    expected = flat(read_table(write_jsonl(tmp_path / "a.jsonl", rows)))
    source = datasets.Dataset.from_list(rows)
    fails(
        "the dataset, row 1: the audio path .* leads out|the dataset, row 1: 8 of 8 audio files are not there", source
    )
    assert flat(read_table(source, audio_folder=tmp_path)) == expected
    monkeypatch.chdir(tmp_path)
    assert flat(read_table(source)) == expected
    absolute = datasets.Dataset.from_list([row | {"audio": str(tmp_path / row["audio"])} for row in rows])
    assert flat(read_table(absolute.cast_column("audio", datasets.Audio()))) == expected
    # A dataset of somebody else may not name any file of this machine.
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path / "other")
    assert flat(read_table(absolute)) == expected  # made here
    absolute.to_parquet(tmp_path / "other" / "a.parquet")
    loaded = datasets.Dataset.from_parquet(str(tmp_path / "other" / "a.parquet"), cache_dir=str(tmp_path / "cache"))
    fails("leads out of the data folder .* by --audio_folder", loaded)


def test_a_part_that_was_loaded_as_test_is_not_drawn_anew(rows, tmp_path):
    rows = [{name: value for name, value in row.items() if name != "split"} for row in with_bytes(rows)]
    source = datasets.Dataset.from_list(rows, split="test")
    assert read_table(source).num_rows == {"test": 8}
    source.save_to_disk(tmp_path / "saved")
    assert read_table(tmp_path / "saved").num_rows == {"test": 8}
    assert list(read_table(datasets.Dataset.from_list(rows, split="train[:50%]"))) == ["train", "validation", "test"]


def test_what_is_no_dataset_is_a_sentence(rows):
    source = datasets.Dataset.from_list(with_bytes(rows))
    for stream in (source.to_iterable_dataset(), datasets.IterableDatasetDict(train=source.to_iterable_dataset())):
        fails("the source is an IterableDataset.*: train on it with MsfSerCollator and Trainer, or load", stream)
        source_fails("the source is an IterableDataset", stream)
    fails("the source is a DataFrame; give a path", pd.DataFrame(rows))
    fails("the source is a list; give a path", rows)
    fails("the dataset: the table has no rows", source.select([]))
    decoded = [row | {"audio": {"array": [0.0, 0.1], "sampling_rate": 16_000, "path": None}} for row in rows]
    fails(
        r"'audio' holds decoded sound; encode it with cast_column\('audio', datasets.Audio\(\)\)\.$",
        datasets.Dataset.from_list(decoded),
    )
