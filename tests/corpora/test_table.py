import csv
import io
import json
import logging
import os
import re
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile

from msfser import LABELS
from msfser.corpora.schema import FEATURES, SPLITS, audio_source
from msfser.corpora.sources import holds_table
from msfser.corpora.splits import SHARES
from msfser.corpora.table import open_table, read_table
from msfser.sharding.sharded_table import recording_of

REAL_TABLE = Path(__file__).resolve().parents[3] / "shared" / "data" / "ravdess" / "metadata_weak.csv"
POLISH_TABLE = REAL_TABLE.parents[1] / "nemo" / "metadata_weak.csv"


@pytest.fixture(autouse=True)
def private_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))


def write_wav(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.full(16, value, dtype=np.float32), 16000)


def wav_bytes(value):
    buffer = io.BytesIO()
    soundfile.write(buffer, np.full(16, value, dtype=np.float32), 16000, format="WAV")
    return buffer.getvalue()


def make_rows(folder, per_speaker=(2, 2, 2, 2), **fixed):
    """Rows with one tiny wav each; speakers are "00", "01", ..."""
    rows = []
    for speaker, count in enumerate(per_speaker):
        for number in range(count):
            name = f"audio/{speaker:02d}_{number}.wav"
            write_wav(folder / name, len(rows) / 1024)
            row = {"audio": name, "transcript": f"line {number}", "valence": 0.25, "arousal": 0.5, "dominance": 1.0}
            rows.append(row | {"speaker": f"{speaker:02d}"} | fixed)
    return rows


def write_csv(path, rows):
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def write_jsonl(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def with_splits(rows):
    """Give the rows a split column: the last speaker is test, the one before it dev, the others train."""
    speakers = sorted({row["speaker"] for row in rows})
    named = dict.fromkeys(speakers, "train") | {speakers[-2]: "dev", speakers[-1]: "test"}
    return [row | {"split": named[row["speaker"]]} for row in rows]


def flat(result):
    return [row | {"split": split} for split, part in result.items() for row in part]


def speakers_of(result):
    return {split: set(part["speaker"]) for split, part in result.items()}


def names_of(result):
    return {split: {os.path.basename(row["audio"]["path"]) for row in part} for split, part in result.items()}


def fails(match, source, **options):
    with pytest.raises(ValueError, match=match) as caught:
        read_table(source, **options)
    message = str(caught.value)
    assert "\n" not in message and message.endswith(".")
    return message


# Sources


def test_every_source_gives_the_same_rows(tmp_path):
    rows = with_splits(make_rows(tmp_path))
    rows[0] |= {"words": [{"word": "line", "start": 0.1, "end": 0.25}], "emphasis": "line"}
    rows = [{"emphasis": None, "description": None, "words": None} | row for row in rows]
    text = [row | {"words": json.dumps(row["words"]) if row["words"] else ""} for row in rows]
    arrow = pa.Table.from_pylist(rows)
    pq.write_table(arrow, tmp_path / "a.parquet")
    (tmp_path / "a.json").write_text(json.dumps(rows, indent=1))
    saved = datasets.Dataset.from_list(rows)
    saved.save_to_disk(tmp_path / "saved")
    parts = {name: saved.filter(lambda row, name=name: row["split"] == name) for name in ("train", "dev", "test")}
    datasets.DatasetDict(parts).remove_columns("split").save_to_disk(tmp_path / "saved_parts")

    expected = flat(read_table(write_csv(tmp_path / "a.csv", text)))
    assert len(expected) == len(rows)
    assert expected[0]["words"] == [{"word": "line", "start": 0.1, "end": 0.25}]
    assert expected[0]["audio"] == {"bytes": None, "path": str(tmp_path / "audio/00_0.wav")}
    for source in (tmp_path / "a.json", tmp_path / "a.parquet", write_jsonl(tmp_path / "a.jsonl", rows)):
        assert flat(read_table(source)) == expected
    for source in (tmp_path / "saved", tmp_path / "saved_parts"):
        assert flat(read_table(source, audio_folder=tmp_path)) == expected


@pytest.mark.parametrize("name", ["metadata.csv", "metadata.jsonl", "metadata.parquet"])
def test_folder_with_metadata(tmp_path, name):
    rows = with_splits(make_rows(tmp_path))
    if name.endswith("csv"):
        write_csv(tmp_path / name, rows)
    elif name.endswith("jsonl"):
        write_jsonl(tmp_path / name, rows)
    else:
        pq.write_table(pa.Table.from_pylist(rows), tmp_path / name)
    result = read_table(str(tmp_path))
    assert list(result) == list(SPLITS)
    for part in result.values():
        assert part.features == FEATURES
        assert part.column_names == list(FEATURES)


def test_hub_dataset(tmp_path, monkeypatch):
    rows = [
        row | {"audio": {"bytes": wav_bytes(k / 32), "path": "x.wav"}} for k, row in enumerate(make_rows(tmp_path))
    ]
    train = datasets.Dataset.from_list(rows).cast_column("audio", datasets.Audio())
    asked = []

    def load_dataset(name, **options):
        asked.append((name, options))
        return datasets.DatasetDict(train=train)

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    result = read_table("owner/corpus")
    assert asked == [("owner/corpus", {})]
    assert list(result) == list(SPLITS)
    assert {row["audio"]["bytes"] for row in flat(result)} == {row["audio"]["bytes"] for row in rows}


def test_hub_dataset_may_not_name_local_files(tmp_path, monkeypatch):
    rows = [row | {"audio": str(tmp_path / row["audio"])} for row in make_rows(tmp_path)]
    part = datasets.Dataset.from_list(rows).cast_column("audio", datasets.Audio())
    monkeypatch.setattr(datasets, "load_dataset", lambda name: datasets.DatasetDict(train=part))
    fails("leads out of the data folder", "owner/corpus")


def test_hub_dataset_that_cannot_be_loaded(monkeypatch):
    def load_dataset(name):
        raise datasets.exceptions.DatasetNotFoundError("Dataset\n is not there.")

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    fails(r"owner/corpus: .*cannot be loaded \(Dataset is not there\)", "owner/corpus")


@pytest.mark.parametrize("kind", ["parquet", "saved"])
def test_embedded_audio_is_kept_undecoded(tmp_path, kind):
    rows = with_splits(make_rows(tmp_path))
    rows = [row | {"audio": {"bytes": wav_bytes(k / 32), "path": None}} for k, row in enumerate(rows)]
    source = datasets.Dataset.from_list(rows).cast_column("audio", datasets.Audio())
    if kind == "parquet":
        path = tmp_path / "a.parquet"
        source.to_parquet(path)
    else:
        path = tmp_path / "saved"
        source.save_to_disk(path)
    result = read_table(path)
    assert [part.features for part in result.values()] == [FEATURES] * 3
    assert result["test"].column_names == list(FEATURES)
    assert [row["audio"]["bytes"] for row in flat(result)] == [row["audio"]["bytes"] for row in rows]
    item = result["test"][0]["audio"]
    assert soundfile.read(io.BytesIO(audio_source(item)))[1] == 16000
    result.save_to_disk(tmp_path / "again")
    assert flat(read_table(tmp_path / "again")) == flat(result)


def test_audio_source():
    assert audio_source({"bytes": b"x", "path": "name"}) == b"x"
    assert audio_source({"bytes": b"", "path": "name"}) == b""
    assert audio_source({"bytes": None, "path": "name"}) == "name"
    assert audio_source(None) is None


def test_audio_struct_of_paths(tmp_path):
    rows = [row | {"audio": {"path": row["audio"], "bytes": None}} for row in with_splits(make_rows(tmp_path))]
    result = read_table(write_jsonl(tmp_path / "a.jsonl", rows))
    assert audio_source(result["test"][0]["audio"]) == str(tmp_path / "audio/03_0.wav")


def test_saving_the_result_embeds_the_recordings(tmp_path):
    result = flat(read_table(write_csv(tmp_path / "a.csv", with_splits(make_rows(tmp_path)))))
    read_table(tmp_path / "a.csv").save_to_disk(tmp_path / "saved")
    again = flat(read_table(tmp_path / "saved"))
    for before, after in zip(result, again, strict=True):
        assert after["audio"]["bytes"] == Path(before["audio"]["path"]).read_bytes()
        assert before | {"audio": None} == after | {"audio": None}


@pytest.mark.skipif(not REAL_TABLE.is_file(), reason="the shared RAVDESS table is not on this machine")
def test_real_table():
    result = read_table(REAL_TABLE, label_range=(-1, 1))
    assert {split: len(part) for split, part in result.items()} == {"train": 840, "validation": 240, "test": 360}
    assert speakers_of(result)["validation"] == {"17", "18", "21", "22"}
    assert "01" in speakers_of(result)["train"]
    row = result["train"][0]
    assert [row[label] for label in LABELS] == [0.5, 0.5, 0.5]
    assert row["transcript"] == "Kids are talking by the door."
    assert os.path.isabs(row["audio"]["path"]) and os.path.isfile(row["audio"]["path"])
    with pytest.raises(ValueError, match="label_range"):
        read_table(REAL_TABLE)


# Shards


def write_shards(folder, rows, per_shard=3, note=None):
    """The rows as `annotate` leaves them: with an error and a describer, null in most rows or shards."""
    (folder / "data").mkdir(parents=True, exist_ok=True)
    extra = {"words": None, "describer": None, "error": None}
    for shard, start in enumerate(range(0, len(rows), per_shard)):
        part = [extra | row for row in rows[start : start + per_shard]]
        pq.write_table(pa.Table.from_pylist(part), folder / "data" / f"part-{shard:05d}.parquet")
    if note is not None:
        (folder / "annotation.json").write_text(json.dumps(note))
    return folder


def test_shards_are_one_table(tmp_path, caplog):
    rows = with_splits(make_rows(tmp_path / "sounds"))
    rows[5] |= {"words": [{"word": "line", "start": 0.1, "end": 0.25}], "describer": "x"}
    expected = flat(read_table(write_jsonl(tmp_path / "sounds" / "a.jsonl", rows)))
    rows[6]["audio"] = str(tmp_path / "sounds" / rows[6]["audio"])
    folder = write_shards(tmp_path / "out", rows, note={"audio_folder": str(tmp_path / "sounds"), "other": 1})
    assert len(list((folder / "data").iterdir())) == 3
    with caplog.at_level(logging.WARNING):
        result = read_table(str(folder))
    assert not caplog.records
    assert flat(result) == expected and result["train"].features == FEATURES
    # The folder that the note names is only the default.
    write_shards(folder, rows, note={"audio_folder": str(tmp_path / "gone")})
    fails("leads out of the data folder .*name their folder by --audio_folder", folder)
    assert flat(read_table(folder, audio_folder=tmp_path / "sounds")) == expected


@pytest.mark.parametrize("note", [None, {}, {"audio_folder": None}])
def test_shards_that_note_no_audio_folder_are_in_it(tmp_path, note):
    assert list(read_table(write_shards(tmp_path, with_splits(make_rows(tmp_path)), note=note))) == list(SPLITS)


def test_shards_with_embedded_audio(tmp_path, caplog):
    rows = with_splits(make_rows(tmp_path))
    rows = [row | {"audio": {"bytes": wav_bytes(k / 32), "path": f"{k}.wav"}} for k, row in enumerate(rows)]
    rows[4] |= {"error": "no sound"}
    with caplog.at_level(logging.WARNING):
        result = read_table(write_shards(tmp_path / "out", rows))
    assert [row["audio"]["bytes"] for row in flat(result)] == [row["audio"]["bytes"] for row in rows[:4] + rows[5:]]
    assert "RIFF" not in caplog.text and "part-00001.parquet, row 2, '4.wav' (no sound)" in caplog.text
    rows[7]["valence"] = 7.0
    fails("out, part-00002.parquet, row 2: valence is 7.0", write_shards(tmp_path / "out", rows))


def test_rows_with_an_error_are_left_out_with_one_warning(tmp_path, caplog):
    rows = with_splits(make_rows(tmp_path, (3, 3, 3, 3)))
    for index in (4, 7):
        rows[index] |= {"error": "it is no sound", "audio": f"gone{index}.wav", "valence": None}
    with caplog.at_level(logging.WARNING):
        result = read_table(write_shards(tmp_path, rows))
    assert sum(map(len, result.values())) == 10
    assert len(caplog.records) == 1
    assert "left out 2 of 12 rows" in caplog.text
    assert "part-00001.parquet, row 2, 'gone4.wav' (it is no sound)" in caplog.text
    # Messages name rows by their position in the shards, whatever was left out.
    rows[5]["valence"] = 3.0
    fails("part-00001.parquet, row 3: valence is 3.0", write_shards(tmp_path, rows))


def test_shards_in_which_every_row_has_an_error(tmp_path):
    rows = [row | {"error": "no sound"} for row in with_splits(make_rows(tmp_path))]
    fails("has no rows", write_shards(tmp_path, rows))


def test_shards_get_the_checks_of_a_table(tmp_path):
    rows = with_splits(make_rows(tmp_path))
    shared = [row | {"speaker": "00"} if row is rows[-1] else row for row in rows]
    fails("1 speaker is in more than one split", write_shards(tmp_path, shared))
    again = [row | {"audio": rows[0]["audio"]} if row is rows[-1] else row for row in rows]
    fails("1 recording is in more than one split", write_shards(tmp_path, again))
    outside = [row | {"audio": "../secret.wav"} if row is rows[3] else row for row in rows]
    write_wav(tmp_path.parent / "secret.wav", 0.5)
    fails("part-00001.parquet, row 1: the audio path .* leads out", write_shards(tmp_path, outside))


def test_shards_without_parts_are_split_by_speakers(tmp_path):
    rows = [row | {"split": None} for row in make_rows(tmp_path)]
    assert list(read_table(write_shards(tmp_path, rows))) == list(SPLITS)


def test_missing_and_broken_shards(tmp_path):
    folder = write_shards(tmp_path, with_splits(make_rows(tmp_path)))
    (folder / "data" / "part-00001.parquet").rename(tmp_path / "aside")
    fails("1 shard is missing, such as 'part-00001.parquet'; finish", folder)
    (folder / "data" / "part-00001.parquet").write_bytes(b"PAR1")
    fails("part-00001.parquet: this is not a readable Parquet file", folder)
    (tmp_path / "aside").rename(folder / "data" / "part-00001.parquet")
    for text, match in (
        ("{", "not a JSON object"),
        ("[]", "not a JSON object"),
        ('{"audio_folder": "sounds"}', "audio_folder is 'sounds', which is no absolute path"),
        ('{"audio_folder": 3}', "audio_folder is 3, which is no absolute path"),
    ):
        (folder / "annotation.json").write_text(text)
        fails(f"annotation.json: .*{match}", folder)
    (folder / "annotation.json").unlink()
    write_csv(folder / "metadata.csv", with_splits(make_rows(tmp_path)))
    fails("holds metadata.csv and data/part-\\*.parquet; name the one to read", folder)


def test_unfinished_shards(tmp_path):
    rows = with_splits(make_rows(tmp_path))
    for complete in (True, None):
        assert read_table(write_shards(tmp_path, rows, note={"complete": complete}))
    write_shards(tmp_path, rows, note={"complete": False})
    fails("annotating it is not finished; give the same annotate command again", tmp_path)
    # That a shard is not there yet is no news then.
    (tmp_path / "data" / "part-00001.parquet").unlink()
    fails("annotating it is not finished", tmp_path)


# Sources with all their columns


def test_a_source_keeps_all_its_columns(tmp_path):
    rows = make_rows(tmp_path)
    for number, row in enumerate(rows):
        row |= {"speaker_id": row.pop("speaker"), "text": row.pop("transcript"), "room": number}
        row |= {"file_name": row.pop("audio"), "valence": "" if number == 2 else "6.5", "words": ""}
    rows[0]["text"] = " "
    rows[1]["words"] = json.dumps([{"word": "line", "start": 0, "end": 0.5}])
    (tmp_path / rows[3]["file_name"]).unlink()
    source = open_table(write_csv(tmp_path / "a.csv", rows))
    table = source.table.to_pydict()
    assert set(table) == {"audio", "transcript", "words", "valence", "arousal", "dominance", "speaker", "room"}
    assert table["audio"] == [row["file_name"] for row in rows]
    assert table["transcript"][:2] == [None, "line 1"] and table["speaker"][0] == "00"
    assert table["words"][:2] == [None, [{"word": "line", "start": 0.0, "end": 0.5}]]
    assert table["valence"][1:4] == ["6.5", "", "6.5"] and table["room"] == [str(n) for n in range(8)]
    assert source.files[3] == "" and source.files[4] == str(tmp_path / rows[4]["file_name"])
    assert source.embedded is None and source.audio_folder == tmp_path


def test_a_source_needs_no_labels_and_accepts_mapped_columns(tmp_path, monkeypatch):
    write_wav(tmp_path / "a.wav", 0.5)
    rows = [{"clip": "a.wav", "transcript": "machine", "human": "said"}]
    write_csv(tmp_path / "a.csv", rows)
    monkeypatch.chdir(tmp_path)
    source = open_table("a.csv", columns={"audio": "clip", "transcript": "human"}, audio_folder=".")
    assert source.table.to_pylist() == [{"audio": "a.wav", "transcript": "said"}]
    assert source.files == [str(tmp_path / "a.wav")] and source.audio_folder == tmp_path


def test_a_source_with_embedded_recordings(tmp_path):
    rows = [{"audio": {"bytes": wav_bytes(k / 8), "path": f"{k}.wav"}, "room": k} for k in range(3)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    source = open_table(tmp_path / "a.parquet")
    assert source.files is None and source.embedded["audio"] == [row["audio"] for row in rows]
    assert source.table.to_pylist() == [{"audio": None, "room": k} for k in range(3)]


def test_parts_of_a_source(tmp_path):
    rows = make_rows(tmp_path)
    parts = {"train": datasets.Dataset.from_list(rows[:5]), "test": datasets.Dataset.from_list(rows[5:])}
    datasets.DatasetDict(parts).save_to_disk(tmp_path / "two")
    table = open_table(tmp_path / "two", audio_folder=tmp_path).table
    assert table["split"].to_pylist() == ["train"] * 5 + ["test"] * 3
    datasets.DatasetDict(test=parts["test"]).save_to_disk(tmp_path / "one")
    assert open_table(tmp_path / "one", audio_folder=tmp_path).table["split"].to_pylist() == ["test"] * 3
    # As in read_table, the column goes before the name of a lone part.
    named = parts["test"].add_column("split", ["dev"] * 3)
    datasets.DatasetDict(train=named).save_to_disk(tmp_path / "named")
    assert open_table(tmp_path / "named", audio_folder=tmp_path).table["split"].to_pylist() == ["dev"] * 3
    unlike = datasets.Dataset.from_list([row | {"arousal": "much"} for row in rows[5:]])
    datasets.DatasetDict(train=parts["train"], test=unlike).save_to_disk(tmp_path / "unlike")
    source_fails("the columns of its parts differ", tmp_path / "unlike", audio_folder=tmp_path)


def test_rows_that_cannot_be_used_are_kept_on_request(tmp_path):
    write_wav(tmp_path / "in" / "0.wav", 0.5)
    write_wav(tmp_path / "secret.wav", 0.5)
    word = {"word": "a", "start": 0.0, "end": 1.0}
    cells = ["0.wav", "gone.wav", " ", "../secret.wav", "a/" * 1000, "0.wav", "0.wav", "0.wav"]
    words = [[word], None, None, None, [word], "[{", [word | {"start": 2.0}], [word | {"word": None}]]
    rows = [{"audio": cell, "words": json.dumps(of_row)} for cell, of_row in zip(cells, words, strict=True)]
    rows[5]["words"] = "[{"
    path = write_csv(tmp_path / "in" / "a.csv", rows)
    source = open_table(path, with_errors=True)
    assert [*map(bool, source.files)] == [True, *[False] * 4, *[True] * 3] and source.errors.keys() == {2, 3, 5, 6, 7}
    assert [recording_of(source, row) for row in range(8)] == [source.files[0], *[""] * 7]
    for row, why in source.errors.items():
        source_fails(f"line 2: {re.escape(why)}$", write_csv(tmp_path / "in" / "b.csv", [rows[row]]), with_errors=True)
    source_fails("line 4: 'audio' is blank", path)
    two = pa.Table.from_pylist([{"audio": "0.wav"}, {"audio": None}])
    parts = datasets.DatasetDict({name: datasets.Dataset(two) for name in ("train", "test")})
    parts.save_to_disk(tmp_path / "two")
    assert open_table(tmp_path / "two", audio_folder=tmp_path / "in", with_errors=True).errors.keys() == {1, 3}


def test_a_reason_is_short(tmp_path):
    write_wav(tmp_path / "in" / "0.wav", 0.5)
    write_wav(tmp_path / "secret.wav", 0.5)
    path = write_csv(tmp_path / "in" / "a.csv", [{"audio": "0.wav"}, {"audio": "./" * 1000 + "../secret.wav"}])
    assert len(open_table(path, with_errors=True).errors[1]) < 900


def test_a_row_without_its_recording_among_embedded_ones(tmp_path):
    write_wav(tmp_path / "0.wav", 0.5)
    audio = [{"bytes": wav_bytes(0.5), "path": "a.wav"}, {"bytes": None, "path": str(tmp_path / "0.wav")}]
    pq.write_table(pa.table({"audio": audio}), tmp_path / "a.parquet")
    source_fails("row 2: 'audio' embeds no recording while other rows do", tmp_path / "a.parquet")
    source = open_table(tmp_path / "a.parquet", with_errors=True)
    assert source.errors == {1: "'audio' embeds no recording while other rows do; embed all or none."}
    assert [recording_of(source, row) for row in range(2)] == [wav_bytes(0.5), ""]


def source_fails(match, source, **options):
    with pytest.raises(ValueError, match=match) as caught:
        open_table(source, **options)
    assert "\n" not in str(caught.value) and str(caught.value).endswith(".")


def test_bad_sources(tmp_path):
    rows = make_rows(tmp_path)
    table = write_csv(tmp_path / "a.csv", rows)
    source_fails("columns names \\['lang'\\], which the schema does not have", table, columns={"lang": "x"})
    source_fails("missing columns 'human'", table, columns={"transcript": "human"})
    source_fails("--audio_folder is 'gone', which is not there; name a folder", table, audio_folder="gone")
    source_fails("--audio_folder is .*a.csv', which is a file; name a folder", table, audio_folder=table)
    write_wav(tmp_path.parent / "secret.wav", 0.5)
    source_fails("leads out", write_csv(tmp_path / "b.csv", [rows[0], rows[1] | {"audio": "../secret.wav"}]))
    source_fails("line 3: 'audio' is blank", write_csv(tmp_path / "c.csv", [rows[0], rows[1] | {"audio": " "}]))
    gone = write_csv(tmp_path / "d.csv", [row | {"audio": f"x{k}.wav"} for k, row in enumerate(rows)])
    source_fails("none of the 8 audio files is there, such as 'x0.wav'; name their folder by --audio_folder", gone)
    (tmp_path / "e.csv").write_text("audio,room,room\naudio/00_0.wav,1,2\n")
    source_fails("the column 'room' occurs more than once", tmp_path / "e.csv")
    (tmp_path / "f.csv").write_text("audio\n")
    source_fails("has no rows", tmp_path / "f.csv")


def test_which_folders_hold_a_table(tmp_path):
    rows = make_rows(tmp_path / "sounds")
    assert not holds_table(tmp_path / "sounds") and not holds_table(tmp_path / "gone")
    datasets.Dataset.from_list(rows).save_to_disk(tmp_path / "saved")
    datasets.DatasetDict(train=datasets.Dataset.from_list(rows)).save_to_disk(tmp_path / "parts")
    write_shards(tmp_path / "shards", rows)
    assert all(holds_table(tmp_path / name) for name in ("saved", "parts", "shards"))
    write_csv(tmp_path / "sounds" / "metadata.csv", rows)
    assert holds_table(tmp_path / "sounds")


# Columns and values


def test_aliases_and_extra_columns(tmp_path):
    rows = [
        {
            "file_name": row["audio"],
            "transcription": row["transcript"],
            "speaker_id": row["speaker"],
            "mood": "x",
            "split": row["split"].replace("dev", "Development"),
        }
        | {label: row[label] for label in LABELS}
        for row in with_splits(make_rows(tmp_path))
    ]
    result = read_table(write_csv(tmp_path / "a.csv", rows))
    assert list(result) == list(SPLITS)
    assert result["test"][0]["transcript"] == "line 0" and result["test"][0]["speaker"] == "03"
    assert "mood" not in result["test"].column_names


def test_columns_are_mapped(tmp_path):
    rows = [
        {
            "clip": r["audio"],
            "V": 1,
            "A": 4,
            "D": 7,
            "who": r["speaker"],
            "text": "no",
            "asr": "yes",
            "set": r["split"],
        }
        for r in with_splits(make_rows(tmp_path))
    ]
    names = {"audio": "clip", "valence": "V", "arousal": "A", "dominance": "D", "speaker": "who", "transcript": "asr"}
    path = write_csv(tmp_path / "a.csv", rows)
    row = read_table(path, columns=names | {"split": "set"}, label_range=(1, 7))["test"][0]
    assert [row[label] for label in LABELS] == [0.0, 0.5, 1.0]
    assert row["transcript"] == "yes"
    fails("columns names \\['pitch'\\]", path, columns=names | {"pitch": "V"})
    fails("missing columns 'gone'", path, columns=names | {"emphasis": "gone"})


def test_the_schema_name_comes_before_its_aliases(tmp_path):
    rows = [row | {"text": "other"} for row in with_splits(make_rows(tmp_path))]
    assert read_table(write_csv(tmp_path / "a.csv", rows))["test"][0]["transcript"] == "line 0"
    for row in rows:
        row["transcription"] = row.pop("transcript")
    fails(r"\['transcription', 'text'\] could all be 'transcript'; choose", write_csv(tmp_path / "b.csv", rows))


def test_csv_text_stays_text(tmp_path):
    rows = with_splits(make_rows(tmp_path, (4, 1, 1)))
    texts = ["None", "NA", "nan", ""]
    for row, text in zip(rows, texts, strict=False):
        row |= {"transcript": text, "emphasis": text, "speaker": "007"}
    rows[0]["description"] = 'a "quoted",\nbroken line'
    result = read_table(write_csv(tmp_path / "a.csv", [{"description": "  "} | row for row in rows]))
    assert result["train"]["transcript"][:] == ["None", "NA", "nan", None]
    assert result["train"]["emphasis"][:] == ["None", "NA", "nan", None]
    assert result["train"]["description"][:] == ['a "quoted",\nbroken line', None, None, None]
    assert set(result["train"]["speaker"]) == {"007"}


def test_csv_with_byte_order_mark(tmp_path):
    path = write_csv(tmp_path / "a.csv", with_splits(make_rows(tmp_path)))
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert list(read_table(path)) == list(SPLITS)


def test_json_speakers_of_mixed_types(tmp_path):
    rows = with_splits(make_rows(tmp_path))
    for row in rows:
        row["speaker"] = {"00": 7, "01": "07", "02": None, "03": "x"}[row["speaker"]]
    result = read_table(write_jsonl(tmp_path / "a.jsonl", rows))
    assert speakers_of(result) == {"train": {"7", "07"}, "validation": {None}, "test": {"x"}}


def test_spaces_around_a_speaker_are_no_part_of_the_name(tmp_path):
    rows = with_splits(make_rows(tmp_path))
    for row, speaker in zip(rows, ["Anna", "Anna ", "30.0 ", " 30", "Ben", "Ben", " na ", "\t"], strict=True):
        row["speaker"] = speaker
    result = read_table(write_csv(tmp_path / "a.csv", rows))
    assert speakers_of(result) == {"train": {"Anna", "30"}, "validation": {"Ben"}, "test": {None}}
    rows[-1]["speaker"] = "Anna "
    fails("1 speaker is in more than one split, such as 'Anna'", write_csv(tmp_path / "a.csv", rows))


def test_integer_speakers_of_parquet_with_gaps(tmp_path):
    rows = with_splits(make_rows(tmp_path))
    for row in rows:
        row["speaker"] = int(row["speaker"]) or None
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    assert speakers_of(read_table(tmp_path / "a.parquet"))["train"] == {None, "1"}


@pytest.mark.parametrize("label_range", [(0.0, 1.0), (1, 7), (-1, 1), (-3.5, 0.25)])
def test_labels_are_scaled(tmp_path, label_range):
    low, high = label_range
    rows = with_splits(make_rows(tmp_path, (20, 1, 1)))
    drawn = np.random.default_rng(1).uniform(low, high, size=(len(rows), 3))
    drawn[0], drawn[1] = low, high
    for row, labels in zip(rows, drawn.tolist(), strict=True):
        row |= dict(zip(LABELS, labels, strict=True))
    result = read_table(write_csv(tmp_path / "a.csv", rows), label_range=label_range)
    got = np.array([[row[label] for label in LABELS] for row in flat(result)])
    np.testing.assert_allclose(got, (drawn - low) / (high - low), atol=1e-6)
    assert got.min() == 0.0 and got.max() == 1.0


def test_labels_may_be_absent_or_blank_when_not_required(tmp_path):
    rows = with_splits(make_rows(tmp_path))
    for row in rows:
        del row["arousal"], row["dominance"]
    rows[0]["valence"] = ""
    path = write_csv(tmp_path / "a.csv", rows)
    result = read_table(path, require_labels=False)
    assert result["train"].features == FEATURES
    assert result["train"]["valence"][:2] == [None, 0.25]
    assert set(result["train"]["arousal"]) == {None}
    fails("missing columns 'arousal', 'dominance'; there are \\['audio'", path)
    rows[1]["valence"] = "low"
    fails("line 3: valence is 'low', not a number", write_csv(path, rows), require_labels=False)


@pytest.mark.parametrize("value", ["high", "", "nan", "1,5", "0x1"])
def test_labels_that_are_no_numbers(tmp_path, value):
    rows = with_splits(make_rows(tmp_path))
    rows[2]["arousal"] = value
    shown = f"{value!r}, not a number" if value else "blank"
    assert "a.csv" in fails(f"line 4: arousal is {shown}; ", write_csv(tmp_path / "a.csv", rows))
    fails("line 3: arousal is", write_jsonl(tmp_path / "a.jsonl", rows))


def test_labels_of_other_types(tmp_path):
    rows = with_splits(make_rows(tmp_path))
    fails(
        "line 1: valence is nan", write_jsonl(tmp_path / "a.jsonl", [row | {"valence": float("nan")} for row in rows])
    )
    fails("line 1: valence is blank", write_jsonl(tmp_path / "b.jsonl", [row | {"valence": None} for row in rows]))
    for value, kind in ((True, "bool"), ([0.5], "list")):
        path = write_jsonl(tmp_path / "c.jsonl", [row | {"valence": value} for row in rows])
        fails(f"'valence' holds {kind}.*, not numbers", path)


@pytest.mark.parametrize("value", [1.01, -0.2, 4, "inf", 10**400])
def test_labels_outside_the_range(tmp_path, value):
    rows = with_splits(make_rows(tmp_path))
    rows[1]["dominance"] = value
    fails("a.csv, line 3: dominance is .*, outside the label_range 0 to 1", write_csv(tmp_path / "a.csv", rows))


@pytest.mark.parametrize("label_range", [(1, 1), (2, 1), (0, float("nan")), (0, float("inf"))])
def test_bad_label_range(tmp_path, label_range):
    fails("label_range is .* two finite numbers", tmp_path, label_range=label_range)


@pytest.mark.parametrize("name", ["dev", "development", "val", "valid", "eval"])
def test_other_names_of_the_parts(tmp_path, name):
    named = {"train": "training", "dev": name.upper(), "test": "testing"}
    rows = [row | {"split": named[row["split"]]} for row in with_splits(make_rows(tmp_path))]
    result = read_table(write_csv(tmp_path / "a.csv", rows))
    assert result.num_rows == {"train": 4, "validation": 2, "test": 2}


def test_lines_within_the_texts_of_a_large_csv(tmp_path):
    """Larger than what is parsed at once, so that a cut would lie within a text."""
    rows = [row | {"transcript": f"{i}\n" * 120_000} for i, row in enumerate(with_splits(make_rows(tmp_path)))]
    result = flat(read_table(write_csv(tmp_path / "a.csv", rows)))
    assert [row["transcript"].split() for row in result] == [row["transcript"].split() for row in rows]


def test_why_a_split_is_drawn_is_said(tmp_path):
    rows = make_rows(tmp_path, (2, 2))
    fails(
        r"a\.csv: there is no split column \(or only 'train' in it\), and 2 speaker",
        write_csv(tmp_path / "a.csv", rows),
    )


@pytest.mark.parametrize(
    ("words", "match"),
    [
        ("[{", "line 2: the text in 'words' is not JSON"),
        ('{"word": "a"}', "line 2: 'words' is not a list of"),
        ("[1, 2]", "line 2: 'words' is not a list of"),
        ('[{"word": "a", "start": "x", "end": 1}]', "line 2: 'words' is not a list of"),
        ('[{"word": "a", "start": 0.5}]', "line 2: .* needs a word, and times"),
        ('[{"start": 0, "end": 1}]', "line 2: .* needs a word, and times"),
        ('[{"word": "\\ud800", "start": 0, "end": 1}]', "line 2: 'words' is not a list of"),
        ("[null]", "line 2: None .* needs a word, and times"),
        ('[{"word": "a", "start": 0.5, "end": 0.4}]', "line 2: .* 0 <= start <= end"),
        ('[{"word": "a", "start": -1, "end": 0.4}]', "line 2: .* 0 <= start <= end"),
        ('[{"word": "a", "start": 0, "end": NaN}]', "line 2: .* 0 <= start <= end"),
        ('[{"word": "a", "start": 0, "end": Infinity}]', "line 2: .* 0 <= start <= end"),
    ],
)
def test_bad_words(tmp_path, words, match):
    rows = [row | {"words": ""} for row in with_splits(make_rows(tmp_path))]
    rows[0]["words"] = words
    fails(match, write_csv(tmp_path / "a.csv", rows))


def test_the_row_of_bad_words_is_named(tmp_path):
    rows = [row | {"words": None} for row in with_splits(make_rows(tmp_path))]
    rows[1]["words"] = []
    rows[2]["words"] = [{"word": "a", "start": 0, "end": 1, "score": 3}, {"word": "b", "start": 1, "end": 2}]
    result = read_table(write_jsonl(tmp_path / "a.jsonl", rows))
    assert result["train"]["words"][:3] == [
        None,
        [],
        [{"word": "a", "start": 0.0, "end": 1.0}, {"word": "b", "start": 1.0, "end": 2.0}],
    ]
    rows[4]["words"] = [{"word": "a", "start": 0, "end": 1}, {"word": "b", "start": 2, "end": 1}]
    fails("line 5: .*'b'.* needs a word", write_jsonl(tmp_path / "a.jsonl", rows))


def test_text_column_without_text(tmp_path):
    rows = [row | {"emphasis": ["two", "words"]} for row in with_splits(make_rows(tmp_path))]
    fails("'emphasis' holds no text", write_jsonl(tmp_path / "a.jsonl", rows))


# Broken tables


def test_missing_source(tmp_path):
    fails("gone.csv: there is no such file or folder", tmp_path / "gone.csv")
    fails("there is no such file or folder", "folder/gone.csv")
    fails("there is no such file or folder", Path("folder/gone"))
    fails("there is no such file or folder", "https://example.org/a.csv")
    fails("the folder is empty; name a table file", tmp_path)
    (tmp_path / "notes.txt").write_text("x")
    fails("none of metadata.csv, .* name a table file", tmp_path)
    (tmp_path / "a.xlsx").write_text("x")
    fails("'.xlsx' are not read; give one of .csv", tmp_path / "a.xlsx")
    rows = make_rows(tmp_path)
    write_csv(tmp_path / "metadata.csv", rows)
    write_jsonl(tmp_path / "metadata.jsonl", rows)
    fails("holds metadata.csv and metadata.jsonl; name the one", tmp_path)
    fails("--audio_folder is .*gone', which is not there", tmp_path / "metadata.csv", audio_folder=tmp_path / "gone")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_pipe_as_source(tmp_path):
    os.mkfifo(tmp_path / "a.csv")
    fails("neither a file nor a folder", tmp_path / "a.csv")


@pytest.mark.parametrize(
    ("name", "content", "match"),
    [
        ("a.csv", b"", "the file is empty"),
        ("a.csv", b"audio,valence,arousal,dominance\n", "has no rows"),
        ("a.csv", b"audio,valence,arousal,dominance\na.wav,1\n", "not a readable CSV.*Expected 4 columns, got 2"),
        (
            "a.csv",
            b"audio,valence\n\xff\xfe,1\n",
            "not a readable CSV file in UTF-8 .*; save it again, as CSV in UTF-8",
        ),
        ("a.csv", b"audio,valence,valence,arousal,dominance\na.wav,1,1,1,1\n", "'valence' occurs more than once"),
        ("a.csv", b"path,valence\na.wav,1\n", "missing columns 'audio' or 'file_name', 'arousal', 'dominance'; there"),
        ("a.jsonl", b"", "the file is empty"),
        ("a.parquet", b"", "the file is empty"),
        ("a.jsonl", b"\n", "has no rows"),
        ("a.json", b"[]", "has no rows"),
        ("a.json", b"[1]", "row 1: this is not a JSON object"),
        ("a.jsonl", b'{"audio": "a"}\n{"audio"\n', "line 2: "),
        ("a.json", b"[" * 100_000, "neither a JSON list nor .*; write it again"),
        ("a.jsonl", b'{"audio": "\\ud800"}', "half of a character"),
        ("a.parquet", b"PAR1", "not a readable Parquet file .*; write it again"),
    ],
)
def test_broken_files(tmp_path, name, content, match):
    (tmp_path / name).write_bytes(content)
    fails(match, tmp_path / name)


def test_broken_saved_dataset(tmp_path):
    (tmp_path / "dataset_dict.json").write_text('{"splits": ["train"]}')
    fails("the saved dataset cannot be read", tmp_path)


def test_empty_parts_are_left_out(tmp_path, monkeypatch):
    rows = with_splits(make_rows(tmp_path))
    whole = datasets.Dataset.from_list(rows).remove_columns("split")
    parts = datasets.DatasetDict(train=whole.select(range(4)), validation=whole.select([6, 7]), test=whole.select([]))
    monkeypatch.setattr(datasets, "load_dataset", lambda name: parts)
    result = read_table("owner/corpus", audio_folder=tmp_path)
    assert {split: len(part) for split, part in result.items()} == {"train": 4, "validation": 2}


def test_part_is_named_in_messages(tmp_path):
    rows = with_splits(make_rows(tmp_path))
    rows[-1]["valence"] = 7.0
    whole = datasets.Dataset.from_list(rows)
    parts = {name: whole.filter(lambda row, name=name: row["split"] == name) for name in ("train", "test")}
    datasets.DatasetDict(parts).save_to_disk(tmp_path / "saved")
    fails("part 'test', row 2: valence is 7.0", tmp_path / "saved", audio_folder=tmp_path)


# Audio paths


def test_missing_audio(tmp_path):
    rows = with_splits(make_rows(tmp_path))
    for row in rows[:5]:
        row["audio"] = row["audio"].replace("audio", "gone")
    rows[5]["audio"] = "audio"
    message = fails("6 of 8 audio files are not there, such as", write_csv(tmp_path / "a.csv", rows))
    assert message.count("gone/") == 3 and "audio_folder" in message


@pytest.mark.parametrize("name", ["x" * 5000 + ".wav", "a\0b.wav", "https://example.org/a.wav"])
def test_impossible_audio_names(tmp_path, name):
    rows = with_splits(make_rows(tmp_path))
    rows[0]["audio"] = name
    fails("1 of 8 audio files are not there", write_jsonl(tmp_path / "a.jsonl", rows))


def test_blank_audio(tmp_path):
    rows = with_splits(make_rows(tmp_path))
    rows[3]["audio"] = ""
    fails("line 5: 'audio' is blank", write_csv(tmp_path / "a.csv", rows))
    rows[3]["audio"] = None
    fails("line 4: 'audio' is blank", write_jsonl(tmp_path / "a.jsonl", rows))


def test_audio_outside_the_folder(tmp_path):
    folder = tmp_path / "corpus"
    rows = with_splits(make_rows(folder))
    write_wav(tmp_path / "secret.wav", 0.5)
    write_wav(tmp_path / "corpus_2" / "a.wav", 0.5)
    (folder / "link.wav").symlink_to(tmp_path / "secret.wav")
    (folder / "out").symlink_to(tmp_path)
    outside = ["../secret.wav", str(tmp_path / "secret.wav"), "link.wav", "out/secret.wav", "../corpus_2/a.wav"]
    for name in outside:
        changed = [row | {"audio": name} if k == 1 else row for k, row in enumerate(rows)]
        path = write_csv(folder / "a.csv", changed)
        fails("line 3: the audio path .* leads out of the data folder", path)
    inside = [row | {"audio": os.path.join("corpus", row["audio"])} for row in rows]
    inside[0]["audio"] = "secret.wav"
    assert read_table(write_csv(folder / "b.csv", inside), audio_folder=tmp_path)


@pytest.mark.skipif(not os.path.exists("/dev/zero"), reason="no device files here")
def test_device_file_is_no_audio(tmp_path):
    rows = with_splits(make_rows(tmp_path))
    (tmp_path / "zero.wav").symlink_to("/dev/zero")
    rows[0]["audio"] = "zero.wav"
    fails("are not there", write_csv(tmp_path / "a.csv", rows))


def test_audio_inside_the_folder(tmp_path):
    folder = tmp_path / "corpus"
    rows = with_splits(make_rows(folder, (3, 1, 1)))
    (folder / "link.wav").symlink_to(folder / "audio" / "00_0.wav")
    rows[0]["audio"], rows[1]["audio"] = "link.wav", str(folder / "audio" / "00_1.wav")
    rows[2]["audio"] = "audio/../audio/00_2.wav"
    (tmp_path / "alias").symlink_to(folder)
    write_csv(folder / "a.csv", rows)
    for start in (folder, tmp_path / "alias"):
        result = read_table(start / "a.csv")
        for row in flat(result):
            assert os.path.isabs(row["audio"]["path"]) and os.path.isfile(row["audio"]["path"])


def test_relative_source_gives_absolute_paths(tmp_path, monkeypatch):
    write_csv(tmp_path / "a.csv", with_splits(make_rows(tmp_path)))
    monkeypatch.chdir(tmp_path)
    assert read_table("a.csv")["test"][0]["audio"]["path"] == str(tmp_path / "audio/03_0.wav")


def test_audio_column_of_another_type(tmp_path):
    rows = with_splits(make_rows(tmp_path))
    fails("'audio' holds no text", write_jsonl(tmp_path / "a.jsonl", [row | {"audio": [0.0, 0.1]} for row in rows]))
    text = [row | {"audio": {"bytes": "RIFF", "path": None}} for row in rows]
    fails("the recordings in 'audio' are string", write_jsonl(tmp_path / "b.jsonl", text))


def test_partly_embedded_audio(tmp_path):
    rows = with_splits(make_rows(tmp_path))
    rows = [row | {"audio": {"bytes": b"RIFF" if k else None, "path": row["audio"]}} for k, row in enumerate(rows)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    fails("row 1: 'audio' embeds no recording", tmp_path / "a.parquet")
    named = datasets.Dataset.from_list(
        [row | {"audio": {"bytes": None, "path": "audio/00_0.wav"}} for row in rows[:2]]
    )
    held = datasets.Dataset.from_list(rows[2:])
    datasets.DatasetDict(train=held, test=named.cast(held.features)).save_to_disk(tmp_path / "saved")
    fails("some parts embed", tmp_path / "saved", audio_folder=tmp_path)


# Splits


def test_duplicates_across_splits(tmp_path):
    rows = with_splits(make_rows(tmp_path))
    rows[1]["audio"] = rows[0]["audio"]
    assert len(flat(read_table(write_csv(tmp_path / "a.csv", rows)))) == len(rows)
    (tmp_path / "again.wav").symlink_to(tmp_path / "audio" / "00_0.wav")
    for name in (rows[0]["audio"], "again.wav"):
        rows[-1]["audio"] = name
        fails("1 recording is in more than one split, such as .*00_0.wav", write_csv(tmp_path / "a.csv", rows))


def test_embedded_duplicates_across_splits(tmp_path):
    rows = with_splits(make_rows(tmp_path))
    rows = [row | {"audio": {"bytes": wav_bytes(k / 32), "path": "x"}} for k, row in enumerate(rows)]
    rows[1]["audio"] = rows[0]["audio"]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    assert len(flat(read_table(tmp_path / "a.parquet"))) == len(rows)
    rows[-1]["audio"] = rows[0]["audio"]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "b.parquet")
    fails(
        "1 recording is in more than one split, such as 'recording 1, x' .train., 'recording 8, x' .test.; keep",
        tmp_path / "b.parquet",
    )


@pytest.mark.parametrize("value", ["holdout", ""])
def test_unknown_split(tmp_path, value):
    rows = with_splits(make_rows(tmp_path))
    rows[2]["split"] = value
    fails("line 4: the split is .*, which is none of train, validation, test", write_csv(tmp_path / "a.csv", rows))


def test_unknown_part(tmp_path):
    rows = with_splits(make_rows(tmp_path))
    parts = {"train": datasets.Dataset.from_list(rows[:4]), "other": datasets.Dataset.from_list(rows[4:])}
    datasets.DatasetDict(parts).save_to_disk(tmp_path / "saved")
    fails("the split is 'other'", tmp_path / "saved", audio_folder=tmp_path)


def test_shared_speakers(tmp_path):
    rows = with_splits(make_rows(tmp_path))
    rows[-1]["speaker"] = "00"
    path = write_csv(tmp_path / "a.csv", rows)
    fails("1 speaker is in more than one split, such as '00'; .*allow_speaker_overlap", path)
    assert len(flat(read_table(path, allow_speaker_overlap=True))) == len(rows)


def test_given_splits_need_no_speakers(tmp_path):
    rows = with_splits(make_rows(tmp_path))
    for row in rows:
        del row["speaker"]
    result = read_table(write_csv(tmp_path / "a.csv", rows))
    assert set(result["train"]["speaker"]) == {None}


def test_only_a_test_part(tmp_path):
    rows = make_rows(tmp_path, split="test")
    assert list(read_table(write_csv(tmp_path / "a.csv", rows))) == ["test"]


def test_train_and_validation_without_test(tmp_path):
    rows = [row for row in with_splits(make_rows(tmp_path)) if row["split"] != "test"]
    assert list(read_table(write_csv(tmp_path / "a.csv", rows))) == ["train", "validation"]


@pytest.mark.parametrize("per_speaker", [(1, 1, 1), (10, 1, 1), (1, 8, 3, 1), (5,) * 20, tuple(range(1, 25))])
@pytest.mark.parametrize("seed", range(4))
def test_made_splits(tmp_path, per_speaker, seed):
    rows = make_rows(tmp_path, per_speaker)
    result = read_table(write_csv(tmp_path / "a.csv", rows), split_seed=seed)
    assert list(result) == list(SPLITS)
    people = speakers_of(result)
    assert sum(map(len, people.values())) == len(set.union(*people.values())) == len(per_speaker)
    assert sum(map(len, result.values())) == len(rows)
    for split, share in SHARES.items():
        assert len(result[split]) > 0
        assert abs(len(result[split]) - share * len(rows)) <= 2 * max(per_speaker)
    np.random.default_rng(seed).shuffle(rows)
    assert names_of(read_table(write_csv(tmp_path / "b.csv", rows), split_seed=seed)) == names_of(result)


def test_made_splits_are_close_to_their_shares_and_differ_by_seed(tmp_path):
    rows = make_rows(tmp_path, (3,) * 40)
    path = write_csv(tmp_path / "a.csv", rows)
    results = [read_table(path, split_seed=seed) for seed in (0, 0, 1)]
    assert [len(part) for part in results[0].values()] == [84, 18, 18]
    assert speakers_of(results[0]) == speakers_of(results[1]) != speakers_of(results[2])


def test_nothing_but_train_is_no_split(tmp_path, caplog):
    rows = make_rows(tmp_path)
    expected = read_table(write_csv(tmp_path / "a.csv", rows))
    with caplog.at_level(logging.INFO):
        result = read_table(write_csv(tmp_path / "b.csv", [row | {"split": "train"} for row in rows]))
    assert flat(result) == flat(expected)
    assert "no split is given; made one by speakers" in caplog.text


@pytest.mark.parametrize("count", [1, 2])
def test_too_few_speakers(tmp_path, count):
    rows = make_rows(tmp_path, (2,) * count)
    fails(f"{count} speakers? cannot be divided .* column 'split'", write_csv(tmp_path / "a.csv", rows))


def test_neither_split_nor_speakers(tmp_path):
    rows = make_rows(tmp_path)
    rows[0]["speaker"] = ""
    fails("1 rows have no speaker to split by; add a column 'split'", write_csv(tmp_path / "a.csv", rows))
    for row in rows:
        del row["speaker"]
    fails("8 rows have no speaker .* or a column 'speaker'", write_csv(tmp_path / "a.csv", rows))


def test_validation_is_taken_from_train(tmp_path, caplog):
    rows = make_rows(tmp_path, (4,) * 12)
    for row in rows:
        row["split"] = "test" if row["speaker"] >= "10" else "train"
    path = write_csv(tmp_path / "a.csv", rows)
    result = read_table(path)
    people = speakers_of(result)
    assert people["test"] == {"10", "11"}
    assert len(people["validation"]) in (1, 2) and len(people["train"] | people["validation"]) == 10
    assert not people["validation"] & people["train"]
    assert "took speakers from train for it: " + ", ".join(sorted(people["validation"])) in caplog.text
    assert speakers_of(read_table(path)) == people


def test_validation_cannot_be_taken_from_train(tmp_path):
    rows = make_rows(tmp_path, (2, 2))
    for row in rows:
        row["split"] = "test" if row["speaker"] == "01" else "train"
    fails("no validation part, and 1 speaker cannot be divided", write_csv(tmp_path / "a.csv", rows))
    for row in rows:
        del row["speaker"]
    fails("no validation part, and 2 rows have no speaker", write_csv(tmp_path / "a.csv", rows))


LANGUAGES = ["pl", "", "en-US", "Polish", "unknown", "english", "ko", "en"]


def test_words_in_languages_that_are_not_read_are_left_out(tmp_path, caplog):
    rows = [
        row | {"language": language, "emphasis": "line", "description": "a voice"}
        for row, language in zip(make_rows(tmp_path), LANGUAGES, strict=True)
    ]
    path = write_csv(tmp_path / "table.csv", rows)
    read = read_table(path, pooled=True, text_languages=["en"])["all"]
    kept = [language not in ("pl", "Polish", "ko") for language in LANGUAGES]
    assert [text is not None for text in read["transcript"]] == kept
    assert [text is not None for text in read["emphasis"]] == kept and set(read["description"]) == {"a voice"}
    (record,) = [record for record in caplog.records if "left out the words" in record.message]
    assert "the words of 3 rows in ko, pl, because the model reads only en" in record.message
    assert "--text_languages none" in record.message
    assert None not in read_table(path, pooled=True)["all"]["transcript"]
    rows[4]["language"] = "klingon"
    with pytest.raises(ValueError, match=r"line 6: language='klingon' is not a language .*, or rename the column"):
        read_table(write_csv(path, rows), text_languages=["en"])


def test_word_times_in_languages_that_are_not_read_are_left_out(tmp_path):
    words = [{"word": "line", "start": 0.0, "end": 0.5}]
    rows = [row | {"words": words, "language": "ko"} for row in make_rows(tmp_path)]
    path = write_jsonl(tmp_path / "table.jsonl", rows)
    read = read_table(path, pooled=True, text_languages=["en"])["all"]
    assert set(read["words"]) == {None} and read.features == FEATURES


def test_the_language_that_annotate_was_told_is_stated(tmp_path):
    rows = [row | {"language": None} for row in make_rows(tmp_path)]
    rows[3]["language"] = "en"
    (tmp_path / "data").mkdir()
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "data" / "part-00000.parquet")
    note = {"settings": {"transcript": {"language": "german"}}, "audio_folder": str(tmp_path)}
    (tmp_path / "annotation.json").write_text(json.dumps(note))
    read = read_table(tmp_path, pooled=True, text_languages=["en"])["all"]
    assert [text is not None for text in read["transcript"]] == [index == 3 for index in range(len(rows))]


@pytest.mark.skipif(not POLISH_TABLE.is_file(), reason="nEMO is not there")
def test_a_corpus_in_polish_has_no_transcripts_for_a_model_that_reads_english():
    read = read_table(POLISH_TABLE, label_range=(-1, 1), text_languages=["en"])
    assert all(set(part["transcript"]) == {None} for part in read.values())
