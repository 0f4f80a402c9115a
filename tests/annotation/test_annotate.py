"""The command `annotate`: a corpus gets its texts, nothing is made twice, and nothing is lost."""

import csv
import errno
import json
import logging
import multiprocessing
import os
import random
import re
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile
from corpus_trees import write_iemocap
from killable import annotate_with_log
from published import WHISPER, needs
from tones import (
    RATE,
    Recognizer,
    contents_of,
    fails,
    journal_fixture,  # noqa: F401 - used by every test
    make_corpus,
    rows_of,
    run,
    state_of,
    tone,
    tone_bytes,
    write_csv,
    write_tone,
)

from msfser import LABELS, containers_msfser
from msfser.annotation import annotate
from msfser.annotation.sharded_annotation import ShardedAnnotation
from msfser.annotator_msfser import MsfSerAnnotator
from msfser.corpora.probe.synthesizer import Synthesizer
from msfser.corpora.registry import read_corpus
from msfser.corpora.table import read_table
from msfser.description_msfser import NORMS
from msfser.sharding import sharded_table

# Sources


def test_a_table_keeps_its_columns_and_texts(tmp_path):
    table = make_corpus(tmp_path)
    rows = run(table, tmp_path / "out", "--language", "en")
    assert [path.name for path in sorted((tmp_path / "out" / "data").iterdir())] == [
        *("part-00000.parquet", "part-00001.parquet", "part-00002.parquet")
    ]
    assert [row["audio"] for row in rows] == [f"audio/{i}.wav" for i in range(8)]
    assert [row["room"] for row in rows] == [f"room {i}" for i in range(8)]
    assert {(row["valence"], row["arousal"], row["dominance"]) for row in rows} == {("1.5", "4", "7")}
    assert rows[0]["transcript"] == "the sound number 0 by openai/whisper-tiny.en in en"
    assert rows[7]["transcript"] == rows[4]["transcript"] == "what was really said"
    assert [w["word"] for w in rows[7]["words"]] == ["what", "was", "really", "said"]
    assert rows[2]["description"] == "given" and rows[2]["describer"] is None
    assert rows[3]["description"].startswith("The voice is") and rows[3]["describer"] == "measured/EmoDB"
    assert all(row["emphasis"] and len(row["emphasis_scores"]) == len(row["words"]) for row in rows)
    assert all(row["absent"] is None and row["error"] is None for row in rows)

    before, after = (read_table(source, label_range=(1, 7)) for source in (table, tmp_path / "out"))
    for part in before:
        for name in ("audio", "speaker", *LABELS):
            assert after[part][name] == before[part][name]
        assert all(after[part][name][0] for name in ("transcript", "emphasis", "description", "words"))
    read = read_corpus("table", str(tmp_path / "out"), label_range=(1, 7))
    assert read["train"][:] == after["train"][:]


def test_columns_with_other_names(tmp_path):
    table = make_corpus(tmp_path, actor="a", said=lambda i: f"line {i}", emphasis=lambda i: "line" if i < 2 else "")
    rows = run(table, tmp_path / "out", "--columns", "transcript=said", "speaker=actor", "--language", "en")
    assert [row["transcript"] for row in rows] == [f"line {i}" for i in range(8)]
    assert rows[0]["speaker"] == "a" and rows[0]["speaker_id"] == "00" and "actor" not in rows[0]
    # A given emphasis stays; the scores are measured all the same.
    assert rows[1]["emphasis"] == "line" and len(rows[1]["emphasis_scores"]) == 2
    assert rows[2]["emphasis"] == "line 2"
    assert "columns names ['lang']" in fails(table, "--output", tmp_path / "o", "--columns", "lang=said")


def test_a_table_of_nothing_but_audio(tmp_path):
    write_tone(tmp_path / "a.wav", 3)
    (tmp_path / "metadata.csv").write_text("audio\na.wav\n")
    assert run(tmp_path, tmp_path / "out", "--language", "en")[0]["transcript"].startswith("the sound number 3")


def test_given_words_need_no_recognizer(tmp_path):
    words = [{"word": "so", "start": 0.0, "end": 0.2}, {"word": "then", "start": 0.2, "end": 0.4}]
    table = make_corpus(tmp_path, 2, transcription="", words=json.dumps(words))
    rows = run(table, tmp_path / "out", "--recognizer", "none")
    assert [(row["transcript"], row["words"], row["emphasis"]) for row in rows] == [("so then", words, "so then")] * 2


def test_retranscribe_recognizes_all_and_keeps_the_given_texts(tmp_path):
    words = json.dumps([{"word": "so", "start": 0.0, "end": 0.2}])
    table = make_corpus(tmp_path, 3, transcription=lambda i: "so" if i else "", words=lambda i: words if i else "")
    rows = run(table, tmp_path / "out", "--language", "en", "--retranscribe")
    assert [row["transcript"] for row in rows] == [
        f"the sound number {i} by openai/whisper-tiny.en in en" for i in range(3)
    ]
    assert [row["human_transcript"] for row in rows] == [None, "so", "so"]
    assert rows[1]["human_words"] == json.loads(words) and len(rows[1]["words"]) > 1
    # Without it, the same folder is made anew with the given texts.
    again = run(table, tmp_path / "again", "--language", "en")
    assert [row["transcript"] for row in again][1:] == ["so", "so"] and "human_transcript" not in again[0]
    assert "--retranscribe needs a recognizer; name one" in fails(
        table, "--output", tmp_path / "x", "--retranscribe", "--recognizer", "none"
    )
    bare = make_corpus(tmp_path / "bare", 2, transcription="")
    assert "the source has no transcripts; leave it out" in fails(bare, "--output", tmp_path / "x", "--retranscribe")
    twice = make_corpus(tmp_path / "twice", 2, transcription="a", human_transcript="b")
    assert "has a column human_transcript already" in fails(twice, "--output", tmp_path / "x", "--retranscribe")


def test_given_words_that_do_not_fit_their_recording_are_noted(tmp_path):
    def words(row):
        unit = 1000 if row == 1 else 1
        return json.dumps([{"word": "so", "start": 0.1 * unit, "end": 0.2 * unit}])

    rows = run(make_corpus(tmp_path, 3, transcription="", words=words), tmp_path / "out")
    assert rows[1]["error"] == (
        "the word 'so' lasts from 100 to 200 s, but the sound has only 0.50 s: these seem to be in another "
        "unit, such as milliseconds; give seconds."
    )
    assert [row["emphasis"] for row in rows] == ["so", None, "so"]
    assert rows[0]["error"] is rows[2]["error"] is None


def test_a_folder_of_recordings(tmp_path):
    for i, name in enumerate(["b.wav", "a/x.wav"]):
        write_tone(tmp_path / "in" / name, i)
    rows = run(tmp_path / "in", tmp_path / "out", "--language", "en")
    assert [row["audio"] for row in rows] == ["a/x.wav", "b.wav"]
    assert [row["transcript"][:18] for row in rows] == ["the sound number 1", "the sound number 0"]
    assert "no table in this folder" in fails(tmp_path / "in", "--output", tmp_path / "o", "--columns", "speaker=x")
    # The output may lie among the recordings.
    inside = tmp_path / "in" / "out"
    assert run(tmp_path / "in", inside, "--language", "en") == run(tmp_path / "in", inside, "--language", "en") == rows


@pytest.mark.parametrize(
    ("times", "sentence"),
    [
        (
            [(0.0, 0.2), (0.2, 9.0)],
            "the word 'then' lasts from 0.2 to 9 s, but the sound has only 0.50 s: give seconds",
        ),
        ([(0, 200), (200, 500)], "these seem to be in another unit, such as milliseconds"),
        ([(0.3, 0.4), (0.1, 0.2)], "the word 'then' starts at 0.1 s, before 'so' at 0.3 s"),
    ],
)
def test_words_that_do_not_fit_their_sound_are_said(tmp_path, caplog, times, sentence):
    """They were dropped or scored, and the reason was "no speech"."""
    words = [
        {"word": word, "start": start, "end": end} for word, (start, end) in zip(("so", "then"), times, strict=True)
    ]
    right = [{"word": "so", "start": 0.0, "end": 0.5}]
    table = make_corpus(tmp_path, 4, transcription="", words=lambda i: json.dumps(words if i == 2 else right))
    rows = run(table, tmp_path / "out", "--recognizer", "none")
    assert [row["error"] is None for row in rows] == [True, True, False, True]
    assert sentence in rows[2]["error"] and "1 row cannot be used; the first is line 4: the word " in caplog.text
    assert [row["emphasis"] is None for row in rows] == [False, False, True, False]
    # With other settings of a later step the reason stays.
    again = run(table, tmp_path / "out", "--recognizer", "none", "--emphasis", "paper")
    assert [row["error"] for row in again] == [row["error"] for row in rows]
    before = state_of(tmp_path / "out")
    run(table, tmp_path / "out", "--recognizer", "none", "--emphasis", "paper")
    assert state_of(tmp_path / "out") == before


@pytest.mark.parametrize("with_table", [False, True])
def test_every_file_of_a_folder_is_a_row_or_is_named(tmp_path, caplog, with_table):
    """As reported: m4a, mp4, webm, aac, amr and mka were left out without a word."""
    folder, out = tmp_path / "my", tmp_path / "my" / "out"
    write_tone(folder / "a.wav", 1)
    write_tone(folder / "deep" / "b.wav", 2)
    rows = ["a.wav", "deep/b.wav"]
    av = pytest.importorskip("av")
    for name, codec in (
        ("c.m4a", "aac"),
        ("d.mp4", "aac"),
        ("e.webm", "libopus"),
        ("f.aac", "aac"),
        ("g.mka", "libopus"),
    ):
        write_container(av, folder / name, codec)
        rows.append(name)
    (folder / "h.amr").write_bytes(b"no sound")
    rows.append("h.amr")
    (folder / "notes.txt").write_text("x")
    (folder / ".DS_Store").write_text("x")
    left_out = {".DS_Store": "hidden", "notes.txt": "whose names do not end as sound files do"}
    if with_table:
        table = write_csv(folder / "metadata.csv", [{"audio": name} for name in rows if name != "g.mka"])
        left_out = {".DS_Store": "hidden", "g.mka": f"in no row of {table.name}"} | left_out
        rows.remove("g.mka")
    with caplog.at_level(logging.INFO):
        made = run(folder, out, "--language", "en")
    assert sorted(row["audio"] for row in made) == sorted(rows)
    assert [row["audio"] for row in made if row["error"]] == ["h.amr"]
    assert json.loads((out / "annotation.json").read_text())["left_out"] == left_out
    summary = [record.getMessage() for record in caplog.records]
    assert f"left out {len(left_out)} files: " in summary[1]
    assert all(repr(name) in summary[1] for name in left_out)
    # The output among the recordings is none of them.
    before = state_of(out)
    run(folder, out, "--language", "en")
    assert state_of(out) == before


def write_container(av, path, codec):
    with av.open(str(path), "w", format="adts" if path.suffix == ".aac" else None) as file:
        stream = file.add_stream(codec, rate=48_000, layout="mono")
        kind = "fltp" if codec == "aac" else "flt"
        frame = av.AudioFrame.from_ndarray(tone(3, 1.0)[None], format="fltp", layout="mono")
        frame.sample_rate = RATE
        resampler = av.AudioResampler(kind, "mono", 48_000)
        for part in (*resampler.resample(frame), *resampler.resample(None)):
            file.mux(stream.encode(part))
        file.mux(stream.encode(None))


@pytest.mark.parametrize("count", [2, 5])
def test_embedded_recordings(tmp_path, journal, count):
    rows = [
        {"audio": {"bytes": tone_bytes(i), "path": f"{i}.wav"}, "speaker": f"{i}", **dict.fromkeys(LABELS, 0.5)}
        for i in range(count)
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    made = run(tmp_path / "a.parquet", tmp_path / "out", "--language", "en")
    assert [row["audio"] for row in made] == [row["audio"] for row in rows]
    assert [row["transcript"][:18] for row in made] == [f"the sound number {i}" for i in range(count)]
    del journal[:]
    rows[-1]["audio"]["bytes"] = tone_bytes(9)
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    made = run(tmp_path / "a.parquet", tmp_path / "out", "--language", "en")
    assert made[-1]["transcript"].startswith("the sound number 9")
    assert journal == [(step, 2) for step in ("transcribe", "emphasize", "describe")]
    if count > 2:
        assert sum(map(len, read_table(tmp_path / "out").values())) == count


def test_a_saved_dataset_keeps_its_parts(tmp_path):
    make_corpus(tmp_path)
    whole = datasets.Dataset.from_list(
        [{"audio": f"audio/{i}.wav", "speaker": str(i), **dict.fromkeys(LABELS, 0.5)} for i in range(6)]
    )
    names = {"train": range(4), "dev": [4], "test": [5]}
    parts = datasets.DatasetDict({name: whole.select(rows) for name, rows in names.items()})
    parts.save_to_disk(tmp_path / "saved")
    rows = run(tmp_path / "saved", tmp_path / "out", "--audio_folder", str(tmp_path), "--language", "en")
    assert [row["split"] for row in rows] == ["train"] * 4 + ["dev", "test"]
    assert {name: len(part) for name, part in read_table(tmp_path / "out").items()} == {
        **{"train": 4, "validation": 1, "test": 1}
    }
    # A lone test part does not become something to train on.
    datasets.DatasetDict(test=parts["test"]).save_to_disk(tmp_path / "test")
    run(tmp_path / "test", tmp_path / "out_test", "--audio_folder", str(tmp_path), "--language", "en")
    assert list(read_table(tmp_path / "out_test")) == ["test"]


def test_a_corpus_as_its_owners_lay_it_out(tmp_path):
    corpus = write_iemocap(tmp_path / "iemocap")
    rows = run(corpus, tmp_path / "out", "--corpus", "iemocap", "--recognizer", "none")
    assert len(rows) == 40 and {row["transcript"] for row in rows} == {"Excuse me."}
    assert all(not os.path.isabs(row["audio"]) and row["error"] is None for row in rows)
    parts = read_corpus("iemocap", str(tmp_path / "out"), fold=3)
    expected = read_corpus("iemocap", str(corpus), fold=3)
    for part, of_part in expected.items():
        assert sorted(audio["path"] for audio in parts[part]["audio"]) == sorted(a["path"] for a in of_part["audio"])


def test_columns_with_names_that_annotate_uses_are_replaced_with_a_warning(tmp_path, caplog):
    table = make_corpus(tmp_path, error="no error at all", describer="")
    rows = run(table, tmp_path / "out", "--language", "en")
    assert {row["error"] for row in rows} == {None}
    assert "columns describer, error are not passed on" in caplog.text


def test_what_annotate_made_can_be_annotated(tmp_path, journal):
    first = run(make_corpus(tmp_path), tmp_path / "one", "--language", "en")
    second = run(tmp_path / "one", tmp_path / "two", "--language", "en")
    assert [row["transcript"] for row in second] == [row["transcript"] for row in first]
    assert "contains the input" in fails(tmp_path / "one", "--output", tmp_path / "one")
    before = state_of(tmp_path / "one")
    shard = tmp_path / "one" / "data" / "part-00001.parquet"
    assert "contains the input" in fails(shard, "--output", tmp_path / "one", "--audio_folder", tmp_path)
    assert state_of(tmp_path / "one") == before


# What is made again


def test_a_second_run_does_nothing(tmp_path, journal):
    table, out = make_corpus(tmp_path), tmp_path / "out"
    run(table, out, "--language", "en")
    before, journal.made = state_of(out), 0
    del journal[:]
    run(table, out, "--language", "en")
    assert (journal.made, journal) == (0, []) and state_of(out) == before


SETTINGS = {
    "emphasis": (["--emphasis", "paper"], {"emphasize"}),
    "describer": (["--describer", "none"], {"describe"}),
    "norms": (["--norms", "{norms}"], {"describe"}),
    "language": (["--language", "de"], {"transcribe", "emphasize", "describe"}),
    "recognizer": (["--recognizer", "other"], {"transcribe", "emphasize", "describe"}),
    "aligner": (["--aligner", "sphinx"], {"transcribe", "emphasize", "describe"}),
    "two": (["--emphasis", "paper", "--describer", "none"], {"emphasize", "describe"}),
}


@pytest.mark.parametrize("changed", SETTINGS)
def test_changed_settings_redo_what_depends_on_them(tmp_path, journal, monkeypatch, changed):
    monkeypatch.setattr(annotate, "SphinxAligner", lambda: lambda sounds, texts: [None] * len(sounds))
    norms = {"corpus": "other", "quantiles": {name: [0, 1, 2, 3] for name in NORMS["quantiles"]}}
    (tmp_path / "norms.json").write_text(json.dumps(norms))
    table, out = make_corpus(tmp_path), tmp_path / "out"
    (tmp_path / "audio" / "5.wav").write_bytes(b"broken")
    run(table, out, "--language", "en")
    before = contents_of(out)
    del journal[:]
    options, steps = SETTINGS[changed]
    options = ["--language", "en", *(option.format(norms=tmp_path / "norms.json") for option in options)]
    run(table, out, *options)
    assert journal.steps == steps
    run(table, tmp_path / "fresh", *options)
    assert contents_of(out) == contents_of(tmp_path / "fresh") != before


def edited(change):
    """A change of the table's rows."""

    def edit(folder):
        with (folder / "metadata.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        write_csv(folder / "metadata.csv", change(rows))

    return edit


def changed_row(index, **values):
    return edited(lambda rows: [row | values if i == index else row for i, row in enumerate(rows)])


ALL = ("transcribe", "emphasize", "describe")
CHANGES = {
    "recording": (lambda folder: write_tone(folder / "audio" / "4.wav", 9), [(step, 3) for step in ALL], {1}),
    "transcript": (changed_row(0, transcription="new"), [(step, 3) for step in ALL], {0}),
    "description": (changed_row(0, description="new"), [("describe", 3)], {0}),
    "label": (changed_row(0, valence="7"), [], {0}),
    "new column": (edited(lambda rows: [row | {"new": "1"} for row in rows]), [], {0, 1, 2}),
    "appended": (
        edited(lambda rows: [*rows, rows[0], rows[1]]),
        [*((step, 3) for step in ALL), *((step, 1) for step in ALL)],
        {2, 3},
    ),
    "removed": (edited(lambda rows: rows[:3]), [], set()),
    "cut": (edited(lambda rows: rows[:5]), [(step, 2) for step in ALL], {1}),
    "gone": (lambda folder: (folder / "audio" / "4.wav").unlink(), [(step, 2) for step in ALL], {1}),
}


@pytest.mark.parametrize("changed", CHANGES)
def test_changed_rows_redo_their_shard(tmp_path, journal, changed):
    table, out = make_corpus(tmp_path), tmp_path / "out"
    run(table, out, "--language", "en")
    before = state_of(out)
    del journal[:]
    change, steps, shards = CHANGES[changed]
    change(tmp_path)
    run(table, out, "--language", "en")
    assert journal == steps
    after = state_of(out)
    names = {f"data/part-{shard:05d}.parquet" for shard in shards}
    assert {name for name in after if name.endswith("parquet") and after[name] != before.get(name)} == names
    run(table, tmp_path / "fresh", "--language", "en")
    assert contents_of(out) == contents_of(tmp_path / "fresh")
    read_table(out, label_range=(1, 7))


def test_a_missing_recording_that_appears_is_transcribed(tmp_path):
    table, out = make_corpus(tmp_path), tmp_path / "out"
    (tmp_path / "audio" / "0.wav").rename(tmp_path / "aside")
    assert run(table, out, "--language", "en")[0]["error"] == "there is no file 'audio/0.wav'."
    (tmp_path / "aside").rename(tmp_path / "audio" / "0.wav")
    assert run(table, out, "--language", "en")[0]["error"] is None


def test_a_recording_that_can_be_read_later_is_annotated(tmp_path, journal, monkeypatch):
    """After PyAV was installed, the same command did nothing and kept the old errors."""
    av = pytest.importorskip("av")
    table, out = make_corpus(tmp_path), tmp_path / "out"
    write_container(av, tmp_path / "clip.m4a", "aac")
    (tmp_path / "clip.m4a").replace(tmp_path / "audio" / "4.wav")
    with monkeypatch.context() as patch:
        patch.setattr(containers_msfser, "av", None)
        assert "needs PyAV" in run(table, out, "--language", "en")[4]["error"]
        before = state_of(out)
        run(table, out, "--language", "en")
        assert state_of(out) == before
    del journal[:]
    assert run(table, out, "--language", "en")[4]["error"] is None
    assert journal == [(step, 1) for step in ALL]
    run(table, tmp_path / "fresh", "--language", "en")
    assert contents_of(out) == contents_of(tmp_path / "fresh")


# Bad recordings


def test_bad_recordings_are_noted(tmp_path, journal, caplog):
    table = make_corpus(tmp_path, transcription=lambda i: "given" if i == 1 else "", emphasis="word")
    audio = tmp_path / "audio"
    (audio / "0.wav").write_bytes(b"")
    (audio / "1.wav").write_text("no sound at all")
    (audio / "2.wav").unlink()
    soundfile.write(audio / "3.wav", np.zeros(0, np.float32), RATE)
    soundfile.write(audio / "4.wav", np.full(99, np.nan, np.float32), RATE, subtype="FLOAT")
    with caplog.at_level(logging.INFO):
        rows = run(table, tmp_path / "out", "--language", "en")
    assert "5 rows cannot be used; the first is line 2: " in caplog.text
    for row, reason in zip(
        rows, ("there is nothing in", "decoded", "there is no file", "is empty", "not finite"), strict=False
    ):
        assert reason in row["error"] and "\n" not in row["error"]
        assert row["emphasis"] == "word" and row["words"] is row["describer"] is row["absent"] is None
    assert rows[1]["transcript"] == "given" and rows[2]["description"] == "given" and rows[0]["transcript"] is None
    assert all(row["error"] is None and row["transcript"] and row["description"] for row in rows[5:])
    assert ("transcribe", 0) not in journal
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        assert sum(map(len, read_table(tmp_path / "out", label_range=(1, 7)).values())) == 3
    assert len(caplog.records) == 1 and "left out 5 of 8 rows" in caplog.text
    # What depends on other settings is made anew, and the notes stay.
    again = run(table, tmp_path / "out", "--language", "en", "--emphasis", "paper")
    assert [row | {"emphasis_scores": None} for row in again] == [row | {"emphasis_scores": None} for row in rows]


def test_a_transcript_that_cannot_fit_spoils_no_other(tmp_path):
    table = make_corpus(tmp_path, 3, transcription=lambda i: "impossible" if i == 1 else "said so")
    rows = run(table, tmp_path / "out")
    assert [row["words"] is None for row in rows] == [False, True, False]
    assert json.loads(rows[1]["absent"]) == {
        "words": "the words cannot be aligned with the sound",
        "emphasis": "no word times",
    }
    assert rows[1]["transcript"] == "impossible" and rows[1]["description"]
    # What is not made anew is absent for the same reason.
    run(table, tmp_path / "out", "--describer", "none")
    run(table, tmp_path / "fresh", "--describer", "none")
    assert contents_of(tmp_path / "out") == contents_of(tmp_path / "fresh")


def test_silence_has_no_texts(tmp_path):
    make_corpus(tmp_path, 1, transcription="")
    soundfile.write(tmp_path / "audio" / "0.wav", np.zeros(RATE, np.float32), RATE)
    row = run(tmp_path, tmp_path / "out", "--language", "en")[0]
    assert [row[name] for name in ShardedAnnotation.made if name != "absent"] == [None] * 8
    assert json.loads(row["absent"]) == dict.fromkeys(("transcript", "emphasis", "description"), "no speech")


# Languages


def test_an_english_recognizer_must_be_told_that_it_is_english(tmp_path, journal):
    table, out = make_corpus(tmp_path), tmp_path / "out"
    message = fails(table, "--output", out)
    assert "openai/whisper-tiny.en knows only English" in message and "--language en" in message
    assert not journal and not out.exists()
    # A multilingual one detects the language, and nothing is transcribed where all transcripts are given.
    assert run(table, out, "--recognizer", "multilingual")[0]["transcript"].endswith("in None")
    assert run(make_corpus(tmp_path, transcription="said"), tmp_path / "given")[0]["transcript"] == "said"


def test_a_detected_language_is_kept_and_words_in_it_are_left_out_in_training(tmp_path, caplog):
    """As reported: training read them, and the pipeline does not."""
    table, out = make_corpus(tmp_path, language=lambda i: "german" if i == 3 else " "), tmp_path / "out"
    rows = run(table, out, "--recognizer", "multilingual")
    # Those with a transcript are not transcribed.
    expected = ["en", None, "en", "german", None, "ko", "en", None]
    assert [row["language"] for row in rows] == expected
    parts = read_table(out, label_range=(1, 7), pooled=True, text_languages=["en"])["all"]
    is_read = [language in ("en", None) for language in expected]
    for name in ("transcript", "emphasis", "words"):
        assert [text is not None for text in parts[name]] == is_read
    assert None not in parts["description"]
    assert "left out the words of 2 rows in de, ko, because the model reads only en" in caplog.text
    # Only another step is made anew.
    (tmp_path / "audio" / "0.wav").write_bytes(b"broken")
    again = run(table, out, "--recognizer", "multilingual", "--describer", "none")
    assert [row["language"] for row in again] == [None, *expected[1:]]
    assert [row["language"] for row in run(out, tmp_path / "two", "--recognizer", "multilingual")] == expected[1:]


def test_a_language_that_was_stated_for_all_is_not_that_of_a_row(tmp_path):
    rows = run(make_corpus(tmp_path), tmp_path / "out", "--recognizer", "multilingual", "--language", "de")
    assert rows[0]["transcript"].endswith("in de") and {row["language"] for row in rows} == {None}


def test_foreign_speech_stays_without_a_transcript(tmp_path):
    table = make_corpus(tmp_path, language=lambda i: ("de", "", "en", "  ")[i % 4])
    rows = run(table, tmp_path / "out", "--language", "en")
    assert rows[0]["transcript"] is None and rows[0]["emphasis"] is None and rows[0]["description"]
    assert json.loads(rows[0]["absent"]) == dict.fromkeys(
        ("transcript", "emphasis"), "the recognizer knows only English"
    )
    assert [row["transcript"][-2:] for row in (rows[3], rows[5], rows[6])] == ["en", "en", "en"]
    assert rows[4]["transcript"] == "what was really said" and rows[0]["language"] == "de"


@pytest.mark.parametrize("value", ["deutsch", 5])
@pytest.mark.parametrize("transcript", ["", "given"])
def test_an_unknown_language_is_refused_before_any_work(tmp_path, journal, value, transcript):
    make_corpus(tmp_path)
    rows = [{"audio": f"audio/{i}.wav", "transcript": transcript, "language": None} for i in range(8)]
    rows[6]["language"] = value
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    message = fails(tmp_path / "a.parquet", "--output", tmp_path / "out", "--language", "en")
    assert f"row 7: language='{value}' is not a language" in message and not journal


def test_a_language_that_the_recognizer_does_not_know_is_refused_before_any_work(tmp_path, journal, monkeypatch):
    def lacks(self, sounds, language=None):
        raise ValueError(f"This recognizer does not know language={language!r}.")

    monkeypatch.setattr(Recognizer, "__call__", lacks)
    options = "--output", tmp_path / "out", "--language", "yue", "--recognizer", "some/whisper"
    message = fails(make_corpus(tmp_path), *options)
    assert "line 2: This recognizer does not know language='yue'" in message and not journal


# Interruptions


class Killed(BaseException):
    pass


@pytest.mark.parametrize("moment", ["before", "after"])
def test_killed_at_each_write(tmp_path, journal, monkeypatch, moment):
    table = make_corpus(tmp_path)
    run(table, tmp_path / "whole", "--language", "en")
    expected, replace = contents_of(tmp_path / "whole"), os.replace
    unlink = Path.unlink
    for killed_at in range(1, 7):
        out, writes = tmp_path / f"out{killed_at}", []

        def stopped(source, target, writes=writes, killed_at=killed_at):
            writes.append(target)
            if len(writes) == killed_at and moment == "before":
                raise Killed
            replace(source, target)
            if len(writes) == killed_at:
                raise Killed

        monkeypatch.setattr(os, "replace", stopped)
        monkeypatch.setattr(Path, "unlink", lambda self, missing_ok=False: None)
        if killed_at == 6:  # there are a first note, three shards and a last note
            run(table, out, "--language", "en")
        else:
            with pytest.raises(Killed):
                run(table, out, "--language", "en")
            if len(list(out.glob("data/*.parquet"))) in (1, 2):
                with pytest.raises(ValueError, match=r"not finished; give the same annotate command again\.$"):
                    read_table(out, label_range=(1, 7))
        monkeypatch.setattr(os, "replace", replace)
        monkeypatch.setattr(Path, "unlink", unlink)
        there = {name: seen for name, seen in state_of(out).items() if re.fullmatch(r"data/part-\d+.parquet", name)}
        del journal[:]
        run(table, out, "--language", "en")
        assert contents_of(out) == expected
        assert there.items() <= state_of(out).items()
        assert len(journal) == 3 * (3 - len(there))


def test_unfinished_and_broken_shards_are_replaced(tmp_path, journal):
    table, out = make_corpus(tmp_path, 12), tmp_path / "out"
    run(table, out, "--language", "en")
    expected, shards = contents_of(out), sorted((out / "data").iterdir())
    (out / "data" / ".part-00000.parquet.77.unfinished").write_bytes(b"PAR1 half")
    (out / ".annotation.json.77.unfinished").write_bytes(b"{")
    shards[0].write_bytes(shards[0].read_bytes()[:-20])
    shards[2].write_bytes(b"")
    (out / "data" / "mine.txt").write_text("not of annotate")
    del journal[:]
    run_again = [str(table), "--output", str(out), "--language", "en"]
    annotate.main(run_again)
    assert journal == 2 * [(step, 3) for step in ALL]
    assert contents_of(out) == expected | {"data/mine.txt": b"not of annotate"}


def test_the_bar_goes_on_where_it_was(tmp_path, monkeypatch):
    bars = []

    class Bar:
        def __init__(self, **options):
            self.options, self.updates = options, []
            bars.append(self)

        def __enter__(self):
            return self

        def __exit__(self, *error):
            pass

        def update(self, count):
            self.updates.append(count)

    monkeypatch.setattr(sharded_table, "tqdm", Bar)
    table, out = make_corpus(tmp_path), tmp_path / "out"
    run(table, out, "--language", "en")
    (out / "data" / "part-00001.parquet").unlink()
    run(table, out, "--language", "en")
    run(table, out, "--language", "en")
    assert [(bar.options["initial"], bar.updates, bar.options["total"]) for bar in bars] == [
        *((0, [3, 3, 2], 8), (5, [3], 8), (8, [], 8))
    ]


def test_the_bar_moves_with_each_batch(tmp_path, monkeypatch):
    updates = []

    class Bar(sharded_table.tqdm):
        def update(self, n=1):
            updates.append(n)

    monkeypatch.setattr(sharded_table, "tqdm", Bar)
    monkeypatch.setattr(sharded_table, "SECONDS_PER_BATCH", 1.0)
    table = make_corpus(tmp_path, 3)
    (tmp_path / "audio" / "0.wav").write_bytes(b"broken")
    make_corpus(tmp_path / "more", 3)
    write_csv(table, [{"file_name": f"{folder}audio/{i}.wav"} for folder in ("", "more/") for i in range(3)])
    run(table, tmp_path / "out", "--language", "en")
    # An unreadable recording, and two batches: one second has room for two of the clips.
    assert updates == [1, 2, 2, 1]
    write_csv(table, [{"file_name": f"{folder}audio/{i}.wav", "new": i} for folder in ("", "more/") for i in range(3)])
    run(table, tmp_path / "out", "--language", "en")
    # The unreadable recording is tried again; the others are only passed on.
    assert updates == [1, 2, 2, 1, 2, 1, 3]


def test_ctrl_c_ends_with_a_sentence_that_says_how_to_go_on(tmp_path, journal, monkeypatch, capsys):
    table, out = make_corpus(tmp_path), tmp_path / "out"
    run(table, tmp_path / "whole", "--language", "en")
    describe = MsfSerAnnotator.describe

    def interrupted(*arguments):
        if len(list((out / "data").iterdir())) == 1:
            raise KeyboardInterrupt
        describe(*arguments)

    monkeypatch.setattr(MsfSerAnnotator, "describe", interrupted)
    capsys.readouterr()
    with pytest.raises(SystemExit) as caught:
        run(table, out, "--language", "en")
    assert caught.value.code == 130
    assert capsys.readouterr().err.splitlines()[-1] == (
        "msfser annotate: interrupted: run the same command again to continue; finished shards are kept."
    )
    monkeypatch.setattr(MsfSerAnnotator, "describe", describe)
    del journal[:]
    run(table, out, "--language", "en")
    assert len(journal) == 3 * 2 and contents_of(out) == contents_of(tmp_path / "whole")


@pytest.mark.parametrize("failing", [1, 2, 3])
def test_a_full_disk(tmp_path, journal, monkeypatch, failing):
    table, out = make_corpus(tmp_path), tmp_path / "out"
    run(table, tmp_path / "whole", "--language", "en")
    write, calls = pq.write_table, []

    def full(content, file):
        calls.append(1)
        write(content, file)
        if len(calls) == failing:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(sharded_table.pyarrow.parquet, "write_table", full)
    message = fails(table, "--output", out, "--language", "en")
    assert f"part-{failing - 1:05d}.parquet cannot be written (No space left on device)" in message
    assert len(list((out / "data").iterdir())) == failing - 1
    del journal[:]
    run(table, out, "--language", "en")
    assert len(journal) == 3 * (4 - failing)
    assert contents_of(out) == contents_of(tmp_path / "whole")
    # While shards are made anew with other settings, a mixture cannot be read.
    calls.clear()
    fails(table, "--output", out, "--language", "en", "--emphasis", "paper")
    with pytest.raises(ValueError, match="annotating it is not finished"):
        read_table(out, label_range=(1, 7))


def test_long_recordings_are_not_all_in_memory(tmp_path, journal, monkeypatch):
    table = make_corpus(tmp_path)
    run(table, tmp_path / "whole", "--language", "en")
    del journal[:]
    monkeypatch.setattr(sharded_table, "SECONDS_PER_BATCH", 1.0)
    write_tone(tmp_path / "audio" / "7.wav", 7)
    run(table, tmp_path / "out", "--language", "en")
    assert [count for step, count in journal if step == "transcribe"] == [2, 1, 2, 1, 2]
    whole, out = rows_of(tmp_path / "whole"), rows_of(tmp_path / "out")
    assert whole == out


# Several processes


def test_processes_share_the_shards(tmp_path, journal):
    table = make_corpus(tmp_path, 10)
    run(table, tmp_path / "one", "--language", "en")
    arguments = annotate.parse([str(table), "--output", str(tmp_path / "two"), "--language", "en"])
    work = [annotate.sharded_annotation(arguments, "cpu") for _ in range(3)]
    del journal[:]
    with work[0].prepared(table):
        with pytest.raises(ValueError, match=r"not finished|holds none"):
            read_table(tmp_path / "two", label_range=(1, 7))
        with ThreadPoolExecutor() as threads:
            list(threads.map(lambda of_process: of_process.run(quiet=True), work))
        with pytest.raises(ValueError, match="not finished"):
            read_table(tmp_path / "two", label_range=(1, 7))
        work[0].finish()
    assert contents_of(tmp_path / "one") == contents_of(tmp_path / "two")
    assert len(journal) == 3 * 4


TEXTS = (
    "The food was good.",
    "I never said that.",
    "Dogs sit by the door.",
    "We went home.",
    "Nobody told me.",
    "No.",
)


@pytest.fixture(scope="module")
def spoken(tmp_path_factory):
    folder = tmp_path_factory.mktemp("spoken")
    synthesizer = Synthesizer()
    synthesizer.set_voice("en-us")
    for number, text in enumerate(TEXTS):
        speech = synthesizer.speak(text, rate=200)
        soundfile.write(folder / f"{number:02d}.wav", speech.samples, speech.rate)
    return folder


@needs(WHISPER)
@pytest.mark.skipif(sys.platform == "win32", reason="there is no kill -9")
def test_kill_and_two_processes_change_nothing(tmp_path, spoken):
    # Libraries are imported once, in the server that the processes are forked from.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["msfser.annotation.annotate"])
    log, chance = tmp_path / "log", random.Random(0)
    argv = [str(spoken), "--language", "en", "--output"]

    def start(output, **environment):
        process = context.Process(target=annotate_with_log, args=(environment, [*argv, str(output)], log))
        process.start()
        return process

    def finished(*processes):
        for process in processes:
            process.join(120)
        return all(process.exitcode == 0 for process in processes)

    assert finished(start(tmp_path / "whole"))
    expected = contents_of(tmp_path / "whole")
    assert len(expected) == len(TEXTS) + 1
    log.unlink()
    out, kept = tmp_path / "killed", {}
    for kill in range(3):
        process = start(out)
        while process.is_alive() and len(list(out.glob("data/*.parquet"))) < 2 * kill:
            time.sleep(0.001)
        time.sleep(chance.random() * 0.4)
        process.kill()
        process.join()
        assert process.exitcode != 0
        whole = {name: seen for name, seen in state_of(out).items() if name.endswith(".parquet")}
        assert kept.items() <= whole.items()
        kept = whole
    assert finished(start(out))
    assert contents_of(out) == expected
    assert kept.items() <= state_of(out).items()
    begun = [int(number) for number in log.read_text().split()]
    assert set(begun) == set(range(len(TEXTS))) and len(begun) <= len(TEXTS) + 3

    port = str(20_000 + os.getpid() % 20_000)
    alike = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    log.unlink()
    assert finished(*(start(tmp_path / "two", **alike, RANK=str(rank), LOCAL_RANK=str(rank)) for rank in range(2)))
    assert contents_of(tmp_path / "two") == expected
    assert sorted(int(number) for number in log.read_text().split()) == list(range(len(TEXTS)))


@needs(WHISPER)
def test_a_first_run_shows_its_progress_and_nothing_else(tmp_path, spoken):
    command = [sys.executable, "-m", "msfser", "annotate", str(spoken), "--language", "en"]
    done = subprocess.run([*command, "--output", str(tmp_path / "out")], capture_output=True, text=True, timeout=300)
    lines = re.split(r"[\r\n]+", done.stderr.strip())
    count = len(TEXTS)
    assert (done.returncode, done.stdout) == (0, "")
    assert [line for line in lines if not line.startswith("annotate: ")] == [
        f"{count} clips in {tmp_path / 'out'}: {count} with transcript, {count} with emphasis, "
        f"{count} with description.",
    ]


def test_accelerate_launches_two_processes(tmp_path):
    table = make_corpus(tmp_path, 4, transcription="said so")
    options = ["--output", str(tmp_path / "two"), "--recognizer", "none", "--describer", "none"]
    driver = tmp_path / "driver.py"
    driver.write_text(
        "import sys\nfrom msfser.annotation import annotate\nfrom msfser.sharding import sharded_table\n"
        "sharded_table.ShardedTable.rows_per_shard = 3\nannotate.main(sys.argv[1:])\n"
    )
    launcher = Path(sys.executable).with_name("accelerate")
    launch = [str(launcher), "launch", "--multi_gpu", "--num_processes", "2"]
    launch += ["--main_process_port", str(20_000 + (os.getpid() + 7) % 20_000), str(driver), str(table), *options]
    if shutil.which(launcher) is None:
        pytest.skip("the launcher is not beside the interpreter")
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(launch, capture_output=True, text=True, timeout=300, env=environment)
    assert done.returncode == 0, done.stderr
    run(table, tmp_path / "one", *options[2:])
    assert contents_of(tmp_path / "one") == contents_of(tmp_path / "two")
    # Only the main process has a bar, which counts the clips of both.
    assert "4/4" in done.stderr and done.stderr.count("annotate: 100%") >= 1 and "3/3" not in done.stderr


# Wrong use


def test_an_output_with_other_things_is_left_alone(tmp_path):
    table = make_corpus(tmp_path)
    (tmp_path / "out" / "data").mkdir(parents=True)
    (tmp_path / "out" / "data" / "part-00000.parquet").write_text("precious")
    before = state_of(tmp_path)
    assert "contains other files" in fails(table, "--output", tmp_path / "out", "--language", "en")
    assert "contains the input" in fails(table, "--output", tmp_path, "--language", "en")
    assert fails(table, "--output", table, "--language", "en")
    assert state_of(tmp_path) == before
    # An empty folder will do, and so will one in which the first note was killed.
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / ".annotation.json.5.unfinished").write_text("{")
    assert len(run(table, tmp_path / "empty", "--language", "en")) == 8


def test_wrong_input_is_a_sentence(tmp_path):
    table, out = make_corpus(tmp_path), tmp_path / "out"
    (tmp_path / "norms.json").write_text("{")
    (tmp_path / "empty").mkdir()
    write_csv(tmp_path / "gone.csv", [{"audio": "gone.wav"}])
    (tmp_path / "twice.csv").write_text("audio,x,x\naudio/0.wav,1,2\n")
    (tmp_path / "strange.jsonl").write_text('{"audio": "audio/0.wav", "meta": {}}\n')
    whole = datasets.Dataset.from_list([{"audio": "audio/0.wav", "x": 1}])
    other = datasets.Dataset.from_list([{"audio": "audio/1.wav", "x": "a"}])
    datasets.DatasetDict(train=whole, test=other).save_to_disk(tmp_path / "unlike")
    for match, *arguments in (
        ("there is no such file or folder", tmp_path / "nowhere"),
        ("no recording in this folder", tmp_path / "empty"),
        ("none of the 1 audio files is there", tmp_path / "gone.csv"),
        ("the column 'x' occurs more than once", tmp_path / "twice.csv"),
        ("meta", tmp_path / "strange.jsonl"),
        ("the columns of its parts differ", tmp_path / "unlike", "--audio_folder", tmp_path),
        ("missing columns 'nothing'", table, "--columns", "transcript=nothing"),
        ("norms are not readable", table, "--norms", tmp_path / "norms.json"),
        ("which is not there; name a folder", table, "--audio_folder", tmp_path / "nowhere"),
        ("iemocap decides this", tmp_path, "--corpus", "iemocap", "--audio_folder", "x"),
    ):
        assert match in fails(*arguments, "--output", out, "--language", "en")
        shutil.rmtree(out, ignore_errors=True)
    (tmp_path / "file").write_text("x")
    assert "file' cannot be made (File exists)" in fails(table, "--output", tmp_path / "file", "--language", "en")


@pytest.mark.parametrize(
    ("match", "options"),
    [
        ("NAME=COLUMN", ["--columns", "speaker"]),
        ("belongs to --describer measured", ["--describer", "none", "--norms", "x"]),
        ("needs the name of the server's model", ["--url", "http://127.0.0.1:1"]),
        ("'klingon' is not a language that Whisper knows", ["--language", "klingon"]),
    ],
)
def test_options_that_do_not_go_together(capsys, match, options):
    with pytest.raises(SystemExit) as caught:
        annotate.parse(["data", "--output", "out", *options])
    assert caught.value.code == 2 and match in capsys.readouterr().err


def test_help_names_every_default(capsys):
    with pytest.raises(SystemExit):
        annotate.parse(["--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert "openai/whisper-tiny.en" in text and text.count("default: ") >= 7
