"""Tables of other corpora: two dimensions, ranges by dimension, speakers in file names or unknown, names of parts."""

import logging

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from test_table import fails, flat, make_rows, names_of, speakers_of, wav_bytes, with_splits, write_csv, write_jsonl

from msfser import LABELS
from msfser.corpora.label_ranges import parse_label_range
from msfser.corpora.registry import read_corpus
from msfser.corpora.sources import holds_table
from msfser.corpora.table import read_table

TWO = {"valence": (-1, 1), "arousal": (0, 1)}


def without(rows, *names):
    return [{key: value for key, value in row.items() if key not in names} for row in rows]


# Dimensions and their ranges


def test_each_dimension_has_its_range(tmp_path):
    rows = with_splits(make_rows(tmp_path, valence=-0.5, arousal=0.25, dominance=4))
    path = write_csv(tmp_path / "a.csv", rows)
    row = read_table(path, label_range=TWO | {"dominance": (1, 7)})["test"][0]
    assert [row[label] for label in LABELS] == [0.25, 0.25, 0.5]
    fails("valence is '-0.5', outside the label_range 0 to 1", path)


def test_two_dimensions_are_enough_if_they_are_named(tmp_path):
    rows = with_splits(make_rows(tmp_path, valence=-0.5))
    expected = read_table(write_csv(tmp_path / "a.csv", rows), label_range=TWO)
    # The third is not read where it is there, and null where it is not.
    assert set(expected["train"]["dominance"]) == {None} and expected["train"]["valence"][0] == 0.25
    two = write_csv(tmp_path / "b.csv", without(rows, "dominance"))
    assert flat(read_table(two, label_range=TWO)) == flat(expected)
    fails(
        "missing columns 'dominance'; .* if you give only their ranges, such as --label_range valence=0:1 arousal=0:1",
        two,
    )
    blank = [row | {"valence": ""} for row in rows]
    fails(
        "line 2: valence is blank; give a number or remove the row",
        write_csv(tmp_path / "c.csv", blank),
        label_range=TWO,
    )
    fails("missing columns 'arousal'", write_csv(tmp_path / "d.csv", without(rows, "arousal")), label_range=TWO)


@pytest.mark.parametrize(
    ("label_range", "match"),
    [
        ({"valence": (0, 1)}, "names valence; at least two of three are needed"),
        ({"valence": (0, 1), "pitch": (0, 1)}, r"names \['pitch'\]; the dimensions are valence, arousal, dominance"),
        ({"valence": (0, 1), "arousal": (1, 0)}, "--label_range is 1 0; give two finite numbers"),
        ({}, "names no dimension"),
    ],
)
def test_wrong_ranges(tmp_path, label_range, match):
    fails(match, tmp_path, label_range=label_range)


def test_ranges_of_the_command_line():
    assert parse_label_range(["1", 7]) == (1.0, 7.0) and parse_label_range([-1.0, 1.0]) == (-1.0, 1.0)
    assert parse_label_range(["valence=-1:1", "arousal=0:1"]) == {"valence": (-1.0, 1.0), "arousal": (0.0, 1.0)}
    for words in (["1"], ["1", "2", "3"], ["a", "b"], ["valence=1", "arousal=0:1"], ["valence=0:1"] * 2, []):
        with pytest.raises(ValueError, match=r"--label_range cannot be .*; give --label_range 1 7, or"):
            parse_label_range(words)


def test_half_steps_outside_the_range_are_moved_and_counted(tmp_path, caplog):
    rows = with_splits(make_rows(tmp_path, valence=3))
    rows[0]["valence"], rows[1]["valence"] = 0.5, 5.5
    rows = [row | {"arousal": 1, "dominance": 5} for row in rows]
    path = write_csv(tmp_path / "a.csv", rows)
    with caplog.at_level(logging.WARNING):
        assert read_table(path, label_range=(1, 5))["train"]["valence"][:2] == [0.0, 1.0]
    assert "2 of 8 values of valence are up to half a step outside 1 to 5 and were moved" in caplog.text
    assert len(caplog.records) == 1
    rows[0]["valence"] = 0.4
    fails("line 2: valence is '0.4', outside", write_csv(path, rows), label_range=(1, 5))
    # Scales without steps of one have no half steps.
    rows[0]["valence"] = 0.99
    fails("outside the label_range 1 to 5.5", write_csv(path, rows), label_range=(1, 5.5))


def test_names_of_distributed_copies(tmp_path):
    names = {"audio": "FileName", "valence": "EmoVal", "arousal": "EmoAct", "dominance": "EmoDom", "speaker": "SpkrID"}
    rows = with_splits(make_rows(tmp_path))
    expected = flat(read_table(write_csv(tmp_path / "a.csv", rows)))
    sets = {"train": "Train", "dev": "Validation", "test": "Test1"}
    other = [
        {names.get(key, key): value for key, value in row.items() if key != "split"}
        | {"Split_Set": sets[row["split"]]}
        for row in rows
    ]
    assert flat(read_table(write_csv(tmp_path / "b.csv", other))) == expected
    third = [{"activation" if key == "arousal" else key: value for key, value in row.items()} for row in rows]
    assert flat(read_table(write_csv(tmp_path / "c.csv", third))) == expected


# Speakers


@pytest.mark.parametrize("pattern", [r"(\d+)_\d", r"audio/(?P<speaker>\d+)_(\d)", r"\d\d(?=_)"])
def test_speakers_from_file_names(tmp_path, pattern):
    rows = make_rows(tmp_path)
    expected = read_table(write_csv(tmp_path / "a.csv", rows))
    path = write_csv(tmp_path / "b.csv", without(rows, "speaker"))
    result = read_table(path, speaker_from=pattern)
    assert flat(result) == flat(expected) and set.union(*speakers_of(result).values()) == {"00", "01", "02", "03"}
    # It goes before a column.
    assert flat(
        read_table(write_csv(tmp_path / "c.csv", [r | {"speaker": "x"} for r in rows]), speaker_from=pattern)
    ) == (flat(expected))


def test_wrong_expressions_for_speakers(tmp_path):
    path = write_csv(tmp_path / "a.csv", make_rows(tmp_path))
    fails(r"--speaker_from '\(' is no regular expression", path, speaker_from="(")
    fails(
        "line 2: --speaker_from 'actor' finds no speaker in 'audio/00_0.wav'; correct it, or",
        path,
        speaker_from="actor",
    )


def test_unknown_speakers_in_file_names(tmp_path):
    rows = with_splits(make_rows(tmp_path))
    for row, name in zip(rows, ("Unknown_0.wav", "na_1.wav", "30.0_2.wav", "7_3.wav"), strict=False):
        row["audio"] = str((tmp_path / row["audio"]).rename(tmp_path / "audio" / name).relative_to(tmp_path))
    result = read_table(write_csv(tmp_path / "a.csv", without(rows, "speaker")), speaker_from=r"audio/(.+)_")
    assert result["train"]["speaker"][:] == [None, None, "30", "7"]


def test_speakers_from_the_names_of_embedded_recordings(tmp_path):
    rows = [
        row | {"audio": {"bytes": wav_bytes(k / 32), "path": f"{row['speaker']}_{k}.wav"}, "speaker": None}
        for k, row in enumerate(make_rows(tmp_path))
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    result = read_table(tmp_path / "a.parquet", speaker_from=r"^\d+")
    assert set.union(*speakers_of(result).values()) == {"00", "01", "02", "03"}


def test_unknown_speakers(tmp_path):
    rows = with_splits(make_rows(tmp_path))
    for row, speaker in zip(rows, ("Unknown", "NA", "30.0", "unknown "), strict=False):
        row["speaker"] = speaker
    result = read_table(write_csv(tmp_path / "a.csv", rows))
    assert result["train"]["speaker"][:] == [None, None, "30", None]
    rows[-1]["speaker"] = "Unknown"  # in two parts, but nobody
    assert read_table(write_csv(tmp_path / "a.csv", rows))["test"]["speaker"][:] == ["03", None]


def test_parts_by_file(tmp_path, caplog):
    rows = make_rows(tmp_path, (20, 20))
    path = write_csv(tmp_path / "a.csv", without(rows, "speaker"))
    fails("--split_by file where nobody knows", path)
    with caplog.at_level(logging.WARNING):
        result = read_table(path, split_by="file")
    assert result.num_rows == {"train": 28, "validation": 6, "test": 6}
    assert "drawn by file: a speaker can be in several parts, which makes scores higher" in caplog.text
    np.random.default_rng(0).shuffle(rows)
    assert names_of(read_table(write_csv(tmp_path / "b.csv", without(rows, "speaker")), split_by="file")) == names_of(
        result
    )
    fails("--split_by cannot be 'song'; give speaker or file", path, split_by="song")


def test_a_validation_part_by_file(tmp_path, caplog):
    rows = make_rows(tmp_path, (10, 10))
    for row in rows:
        row["split"] = "test" if row["speaker"] == "01" else "train"
    result = read_table(write_csv(tmp_path / "a.csv", rows), split_by="file")
    assert len(result["test"]) == 10 and 0 < len(result["validation"]) < 4
    assert f"took {len(result['validation'])} files from train for it" in caplog.text
    rows[-1]["speaker"] = "00"  # still refused where the given parts share a speaker
    fails("1 speaker is in more than one split, such as '00'", write_csv(tmp_path / "a.csv", rows), split_by="file")


# Parts


def test_na_is_no_part_and_no_label(tmp_path):
    rows = make_rows(tmp_path)
    expected = flat(read_table(write_csv(tmp_path / "a.csv", rows)))
    assert flat(read_table(write_csv(tmp_path / "b.csv", [row | {"split": "NA"} for row in rows]))) == expected
    mixed = with_splits(rows)
    mixed[2]["split"] = "NA"
    fails("line 4: the split is 'NA', which is none of train", write_csv(tmp_path / "c.csv", mixed))
    unlabeled = [row | {"valence": "NA"} for row in rows]
    path = write_csv(tmp_path / "d.csv", unlabeled)
    assert {row["valence"] for row in flat(read_table(path, require_labels=False))} == {None}
    fails("line 2: valence is 'NA', not a number", path)


def test_choosing_the_test_part(tmp_path):
    rows = with_splits(make_rows(tmp_path))
    for number, row in enumerate(rows[6:]):
        row["split"] = f"Test{number + 1}"
    path = write_csv(tmp_path / "a.csv", rows)
    fails("the splits 'test1' and 'test2' would both be test; name them .*, or choose with --test test1", path)
    result = read_table(path, test=["Test2"])
    assert result.num_rows == {"train": 4, "validation": 2, "test": 1} and names_of(result)["test"] == {"03_1.wav"}
    both = read_table(path, test=["Test2", "test1", "dev"])
    assert both.num_rows == {"train": 4, "validation": 2, "test": 1, "test1": 1, "dev": 2}
    assert both["dev"].to_list() == both["validation"].to_list()
    fails("--test names 'Test3', which it does not have; its parts are 'train', 'dev', 'test1'", path, test=["Test3"])
    fails("--test cannot be train", path, test=["train"])
    # Messages count the rows of the file, whatever is left out.
    rows[-1]["valence"] = 7
    fails("line 9: valence is '7'", write_csv(path, rows), test=["Test2"])
    assert read_table(path, test=["Test1"]).num_rows["test"] == 1


def test_of_rows_without_parts_none_is_chosen(tmp_path):
    path = write_csv(tmp_path / "a.csv", without(make_rows(tmp_path), "speaker"))
    assert read_table(path, pooled=True).num_rows == {"all": 8}
    fails(
        "--test chooses a part, and all rows are read as one part; leave --test out", path, pooled=True, test=["dev"]
    )


def test_choosing_the_test_part_of_embedded_recordings(tmp_path):
    rows = with_splits(make_rows(tmp_path))
    rows = [row | {"audio": {"bytes": wav_bytes(k / 32), "path": f"{k}.wav"}} for k, row in enumerate(rows)]
    rows[6]["split"] = "extra"
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    fails("row 7: the split is 'extra'", tmp_path / "a.parquet")
    rows[6]["split"] = "test1"
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    result = read_table(tmp_path / "a.parquet", test=["test"])
    assert [row["audio"]["path"] for row in result["test"]] == ["7.wav"]


# Sources


@pytest.mark.parametrize("hashes", [("", ""), ("-0f3b2a1c9e8d7c6b", "-9e8d7c6b0f3b2a1c")])
def test_a_download_of_the_hub(tmp_path, hashes):
    rows = with_splits(make_rows(tmp_path))
    expected = flat(read_table(write_jsonl(tmp_path / "a.jsonl", rows)))
    folder = tmp_path / "hub"
    (folder / "data").mkdir(parents=True)
    parts = {"train": rows[:4], "validation": rows[4:6], "test": rows[6:]}
    for part, of_part in parts.items():
        table = pa.Table.from_pylist(without(of_part, "split"))
        for number in range(2):
            half = table.slice(number * len(table) // 2, len(table) // 2)
            pq.write_table(half, folder / "data" / f"{part}-{number:05d}-of-00002{hashes[number]}.parquet")
    assert holds_table(folder)
    assert flat(read_corpus("table", str(folder), audio_folder=tmp_path)) == expected
    (folder / "data" / f"test-00001-of-00002{hashes[1]}.parquet").unlink()
    fails("1 of 2 shards of 'test' are there; copy the others too", folder)


@pytest.mark.parametrize("other", ["train-00000-of-00002.parquet", "data/train-00000-of-00001-0f3b.parquet"])
def test_two_downloads_in_one_folder(tmp_path, other):
    for name in ("train-00000-of-00001.parquet", other):
        (tmp_path / "hub" / name).parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.Table.from_pylist(make_rows(tmp_path)), tmp_path / "hub" / name)
    message = fails("are shards of two downloads of 'train'; keep those of one", tmp_path / "hub")
    assert f"'{other}'" in message and "'train-00000-of-00001.parquet'" in message


def test_a_lone_part_of_embedded_recordings(tmp_path):
    rows = [row | {"audio": {"bytes": wav_bytes(k / 32), "path": None}} for k, row in enumerate(make_rows(tmp_path))]
    whole = datasets.Dataset.from_list(rows).cast_column("audio", datasets.Audio())
    (tmp_path / "hub").mkdir()
    whole.to_parquet(tmp_path / "hub" / "train-00000-of-00001.parquet")
    assert {*read_table(tmp_path / "hub")} == {"train", "validation", "test"}
    by_file = read_table(whole.remove_columns("speaker"), split_by="file")
    assert sum(by_file.num_rows.values()) == 8
