"""`msfser predict`: what it reads, what it writes, and what a killed run leaves."""

import contextlib
import errno
import io
import json
import logging
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile
import torch
from tiny import noise, tiny_config, tiny_model, tiny_processor

from msfser import LABELS, MsfSerModel, MsfSerPipeline
from msfser.cli.main import main as msfser
from msfser.hub.loading import load_named
from msfser.intervals_msfser import LEVELS, MsfSerIntervals, set_intervals
from msfser.prediction import predicting, tables
from msfser.prediction.recordings import find_recordings
from msfser.prediction.sharded_prediction import ShardedPrediction
from msfser.prediction.tables import rows_of_result
from msfser.prediction.timed_pipeline import Stopwatch, TimedPipeline, ahead
from msfser.sharding import sharded_table
from msfser.sharding.output_folder import only_run
from msfser.sharding.processes import run_shards
from msfser.train import main as train

EXAMPLE = Path(__file__).parents[2] / "space" / "examples" / "wonderful.mp3"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """An audio-only model with a card."""
    folder = tmp_path_factory.mktemp("model")
    tiny_model(semantics=[]).save_pretrained(folder)
    tiny_processor().save_pretrained(folder)
    (folder / "README.md").write_text("---\nlicense: cc-by-4.0\n---\n")
    return folder


@pytest.fixture
def calls(tmp_path, monkeypatch):
    """A folder of recordings: short, long, stereo, broken, and one file that is none."""
    folder = tmp_path / "calls"
    (folder / "inner").mkdir(parents=True)
    soundfile.write(folder / "a.wav", noise(1.5, 1), 16_000)
    soundfile.write(folder / "long.flac", noise(15.0, 2), 16_000)
    soundfile.write(folder / "inner" / "stereo.wav", np.stack([noise(2.0, 3), noise(2.0, 4)], 1), 16_000)
    (folder / "broken.wav").write_bytes(b"RIFF and nothing else")
    (folder / "notes.txt").write_text("not a sound")
    monkeypatch.chdir(tmp_path)
    return folder


def predict(*arguments: object) -> pd.DataFrame:
    msfser(["predict", *map(str, arguments)])
    return read(Path(str(arguments[arguments.index("-o") + 1])))


def read(output: Path) -> pd.DataFrame:
    readers = {".csv": pd.read_csv, ".parquet": pd.read_parquet, ".jsonl": lambda path: pd.read_json(path, lines=True)}
    return readers[output.suffix](output)


# Input


def test_files_folders_and_patterns_in_their_order(calls):
    rows = find_recordings(["calls/long.flac", "calls", "calls/*.wav"])
    assert rows.table["audio"].to_pylist() == [
        "calls/long.flac",
        "calls/a.wav",
        "calls/broken.wav",
        "calls/inner/stereo.wav",
    ]
    assert rows.files is not None and all(os.path.isabs(file) for file in rows.files)
    assert [*rows.left_out] == ["calls/notes.txt"]


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["nothing.wav"], "there is no file or folder 'nothing.wav'"),
        (["calls/*.mp3"], "no file matches the pattern 'calls/[*].mp3'"),
        (["calls", "t.csv"], "t.csv is a table: name it alone"),
        (["empty"], "there is no recording in empty"),
    ],
)
def test_what_cannot_be_found_is_said(calls, names, words):
    (calls.parent / "t.csv").write_text("audio\ncalls/a.wav\n")
    (calls.parent / "empty").mkdir()
    with pytest.raises(ValueError, match=words):
        find_recordings(names)
    with pytest.raises(ValueError, match="--columns and --audio_folder belong to a table"):
        find_recordings(["calls"], columns={"audio": "path"})


def test_many_long_names_are_no_path(calls, model):
    """A shell replaces `calls/*.wav` by the names; joined, they are longer than a path may be."""
    folder = Path(*["n" * 200] * 8)
    folder.mkdir(parents=True)
    files = [shutil.copy(calls / "a.wav", folder / f"{number}.wav") for number in range(4)]
    assert sum(len(os.path.abspath(file)) for file in files) > 4096
    assert predict(*files, "-o", "r.csv", "--model", model)["file"].tolist() == [str(file) for file in files]


def test_what_was_named_is_told_apart_in_few_words(calls):
    files = [str(shutil.copy(calls / "a.wav", calls / f"{number}.wav")) for number in range(40)]
    origins = [find_recordings(names).origin for names in (files, files[:-1], files[1:], files[:1])]
    assert len({*origins}) == 4 and max(map(len, origins)) < len(files[0]) + 40
    assert origins[0].startswith(f"{files[0]} and 39 more (") and origins[3] == files[0]
    assert find_recordings([*files, *files]).origin == origins[0]


# Output


def test_a_folder_becomes_a_table(calls, model, caplog):
    table = predict("calls", "-o", "results.csv", "--model", model)
    assert [*table.columns] == [
        *("file", "duration", "speech_seconds", "valence", "arousal", "dominance"),
        *(f"{label}_{end}" for label in LABELS for end in ("low", "high")),
        *(f"{label}_percentile" for label in LABELS),
        *("percentiles_of", "transcript", "emphasis", "description", "warnings", "error"),
    ]
    assert table["file"].tolist() == ["calls/a.wav", "calls/broken.wav", "calls/inner/stereo.wav", "calls/long.flac"]
    broken = table["file"] == "calls/broken.wav"
    assert table["error"].notna().tolist() == broken.tolist() and "broken.wav" in table["error"][broken].item()
    assert table[~broken][list(LABELS)].stack().between(0, 1).all() and table[broken][list(LABELS)].isna().all(None)
    assert table["duration"].round(3).tolist()[2:] == [2.0, 15.0]
    assert not Path("results.csv.parts").exists()
    assert "the license of the weights: CC BY 4.0." in caplog.text
    assert "left out 1 file: whose names do not end as sound files do (1): " in caplog.text


def test_all_formats_hold_the_same_numbers(calls, model):
    csv = predict("calls", "-o", "r.csv", "--model", model)
    parquet = predict("calls", "-o", "r.parquet", "--model", model)
    lines = predict("calls", "-o", "r.jsonl", "--model", model)
    for other in (parquet, lines):
        assert [*other.columns] == [*csv.columns]
        np.testing.assert_allclose(csv[list(LABELS)], other[list(LABELS)].astype(float), atol=1e-6)


def test_numbers_are_those_of_the_pipeline_and_follow_the_range(calls, model):
    from transformers import pipeline

    table = predict("calls", "-o", "r.csv", "--model", model, "--label_range", 1, 7).set_index("file")
    ser = pipeline(model=str(model), trust_remote_code=True)
    for name in ("calls/a.wav", "calls/long.flac"):
        expected = ser(name)
        for label in LABELS:
            assert table.loc[name, label] == pytest.approx(1 + 6 * expected[label], abs=2e-5), (name, label)


def test_the_course_has_a_row_for_each_window(calls, model):
    table = predict("calls", "-o", "r.csv", "--model", model, "--course")
    windows = table[table["file"] == "calls/long.flac"]
    assert len(windows) > 1 and windows["start"].iloc[0] == 0 and windows["end"].iloc[-1] == pytest.approx(15.0)
    short = table[table["file"] == "calls/a.wav"]
    assert short[["start", "end"]].to_numpy().tolist() == [[0.0, 1.5]]


def test_each_channel_is_a_row(calls, model, caplog):
    table = predict("calls", "-o", "r.csv", "--model", model, "--channel", "each")
    assert caplog.text.count("all must know and agree (docs/responsible-use.md).") == 1
    stereo = table[table["file"] == "calls/inner/stereo.wav"]
    assert stereo["channel"].tolist() == [0, 1] and stereo["valence"].nunique() == 2
    one = predict("calls", "-o", "one.csv", "--model", model, "--channel", "1").set_index("file")
    assert one.loc["calls/inner/stereo.wav", "valence"] == pytest.approx(stereo["valence"].iloc[1], abs=2e-6)
    assert "channel" in one.loc["calls/a.wav", "error"]
    assert caplog.text.count("must know and agree") == 1


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_a_bad_channel_is_a_row_with_its_error(calls, model, suffix):
    half = np.stack([noise(1.5, 1), np.full(24_000, np.nan, np.float32)], 1)
    soundfile.write(calls / "half.wav", half, 16_000, subtype="FLOAT")
    table = predict("calls", "-o", f"r{suffix}", "--model", model, "--channel", "each", "--course")
    good, bad = table[table["file"] == "calls/half.wav"].to_dict("records")
    assert (good["channel"], bad["channel"]) == (0, 1)
    assert pd.isna(good["error"]) and good["end"] == 1.5
    assert "not finite" in bad["error"] and pd.isna(bad["valence"])
    broken = table.set_index("file").loc["calls/broken.wav"]
    assert "cannot be decoded" in broken["error"] and pd.isna(broken["channel"])


def test_bad_channels_are_named(calls, model):
    soundfile.write("nan.wav", np.full((24_000, 2), np.nan, np.float32), 16_000, subtype="FLOAT")
    files = ("nan.wav", "calls/broken.wav", "calls/a.wav")
    table = predict(*files, "-o", "r.csv", "--model", model, "--channel", "each")
    assert table["channel"].tolist()[:2] == [0, 1] and table["error"].notna().tolist() == [True, True, True, False]


@pytest.mark.parametrize("more", [[], ["--course"], ["--channel", "each"]])
@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_a_table_without_a_result_says_why(calls, model, suffix, more):
    """As reported: if every file was bad, the command ended without a table."""
    (calls / "empty.wav").touch()
    bad, output = ["calls/broken.wav", "calls/empty.wav"], f"r{suffix}"
    words = f"^msfser predict: error: no recording has a result: the column error of {output} names the reasons.$"
    with pytest.raises(SystemExit, match=words):
        predict(*bad, "-o", output, "--model", model, *more)
    table = read(Path(output))
    assert table["file"].tolist() == bad and {*tables.COLUMNS} <= {*table.columns}
    assert [name in error for name, error in zip(bad, table["error"], strict=True)] == [True, True]
    assert table[[*LABELS]].isna().all(axis=None) and not Path(f"{output}.parts").exists()


def test_a_part_without_a_result_says_why(calls, model, tmp_path):
    folder = shutil.copytree(model, tmp_path / "run")
    (calls / "metadata.csv").write_text("file_name,split\nbroken.wav,test\n")
    Path("settings.yaml").touch()
    with pytest.raises(SystemExit, match=r"no recording has a result: .*predictions\.csv names the reasons\.$"):
        train(["settings.yaml", "--data", "calls", "--do_predict", "--output_dir", str(folder), "--use_cpu"])
    assert "broken.wav" in pd.read_csv(folder / "predictions.csv")["error"].item()


def test_a_table_without_a_result_replaces_another_only_if_asked(calls, model):
    Path("r.csv").write_text("mine")
    wrong = ["calls/a.wav", "-o", "r.csv", "--model", model, "--channel", 3]
    with pytest.raises(SystemExit, match=r"r\.csv exists"):
        predict(*wrong)
    assert Path("r.csv").read_text() == "mine"
    with pytest.raises(SystemExit, match="no recording has a result"):
        predict(*wrong, "--overwrite")
    assert "there is no channel=3" in pd.read_csv("r.csv")["error"].item()
    assert predict(*wrong[:-1], 0, "--overwrite")["error"].isna().all()


def test_a_table_gives_its_texts(tmp_path, calls):
    folder = tmp_path / "words"
    tiny_model().save_pretrained(folder)
    tiny_processor().save_pretrained(folder)
    Path("t.csv").write_text("path,transcript,emphasis,description\ncalls/a.wav,the food,food,a b c\n")
    table = predict("t.csv", "-o", "r.csv", "--model", folder, "--recognizer", "none", "--columns", "audio=path")
    assert table[["transcript", "emphasis", "description"]].to_numpy().tolist() == [["the food", "food", "a b c"]]


RESULT: dict[str, Any] = {"valence": 0.123456789, "arousal": 0.5, "dominance": 1.0, "duration": 2.0}
RESULT |= {"speech_seconds": 0.0, "transcript": 'so, "then"', "warnings": []}
# Quantiles of a corpus, for percentiles.
SCALE = {
    "of": "a corpus",
    "labels": {label: [0.5, 0.5] for label in LABELS},
    "predictions": {label: [0.0, 0.5, 0.6] for label in LABELS},
}


@pytest.mark.parametrize("course", [False, True])
@pytest.mark.parametrize("channels", [None, 2])
@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_a_table_that_is_written_in_pieces_is_the_same(monkeypatch, suffix, channels, course):
    windows = [{"start": i / 2, "end": i + 1.0, **dict.fromkeys(LABELS, i / 3), "transcript": None} for i in range(2)]
    intervals = {name: [0.1, 1 / 3] for name in LABELS}
    results = [
        None,
        None,
        RESULT | {"course": windows},
        None,
        RESULT | {"intervals": intervals, "warnings": ["a", "b"], "has_speech": True},
    ]
    rows: list[dict[str, Any]] = []
    for number, result in enumerate(results * 2):
        both = (
            None if result is None else [result | {"channel": channel} for channel in range(channels or 0)] or result
        )
        error = "broken." if result is None else None
        rows += tables.rows_of_result(f"{number}.wav", both, error, course=course, scale=SCALE)
    written = []
    for at_once in (100, 3, 1):
        monkeypatch.setattr(tables, "_ROWS_AT_ONCE", at_once)
        tables.write_table(iter(rows), suffix, file := io.BytesIO())
        written.append(file.getvalue())
    if suffix == ".parquet":
        whole, *pieces = (pd.read_parquet(io.BytesIO(content)) for content in written)
        for piece in pieces:
            pd.testing.assert_frame_equal(piece, whole)
        return
    assert written[0] == written[1] == written[2]
    if suffix == ".csv":
        extra = (["channel"] if channels else []) + (["start", "end"] if course else [])
        table = pd.DataFrame(rows, columns=["file", *extra, *tables.COLUMNS[1:]])
        for name in [name for name in table if name == "channel" or name.endswith("_percentile")]:
            table[name] = table[name].astype("Int64")
        table["warnings"] = ["; ".join(warnings or ()) for warnings in table["warnings"]]
        assert written[0].decode() == table.round(6).to_csv(index=False)


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_few_rows_are_in_memory(monkeypatch, suffix):
    monkeypatch.setattr(tables, "_ROWS_AT_ONCE", 2)
    file, held = io.BytesIO(), []

    def rows():
        for number in range(10):
            held.append(number - file.getvalue().count(b".wav"))
            yield from tables.rows_of_result(f"{number}.wav", RESULT, None)

    tables.write_table(rows(), suffix, file)
    assert max(held) <= 3 and file.getvalue().count(b".wav") == 10


@pytest.mark.parametrize(
    ("order", "files"),
    [
        (("e.parquet", "calls/metadata.csv"), ["e.wav", "a.wav", "broken.wav"]),
        (("calls/metadata.csv", "e.parquet"), ["a.wav", "broken.wav", "e.wav"]),
        (("inner/metadata.csv", "calls/metadata.csv"), ["b.wav", "a.wav", "broken.wav"]),
    ],
)
def test_a_part_may_have_embedded_recordings_and_files(calls, model, tmp_path, order, files):
    folder = shutil.copytree(model, tmp_path / "run")
    soundfile.write(buffer := io.BytesIO(), noise(1.0, 9), 16_000, format="WAV")
    row = {"audio": {"bytes": buffer.getvalue(), "path": "e.wav"}, "split": "test", "speaker": "one"}
    pq.write_table(pa.Table.from_pylist([row]), "e.parquet")
    (calls / "metadata.csv").write_text("file_name,split,speaker\na.wav,test,two\nbroken.wav,test,three\n")
    Path("inner").mkdir()
    soundfile.write("inner/b.wav", noise(1.0, 8), 16_000)
    Path("inner/metadata.csv").write_text("file_name,split,speaker\nb.wav,test,four\n")
    Path("settings.yaml").touch()
    data = [word for name in order for word in ("--data", name)]
    train(["settings.yaml", *data, "--do_predict", "--output_dir", str(folder), "--use_cpu"])
    table = pd.read_csv(folder / "predictions.csv")
    assert table["file"].tolist() == files
    assert table["valence"].isna().tolist() == ["broken" in name for name in files]
    reason = table["error"].dropna().item()
    assert table["file"][table["error"].notna()].item() in reason and reason.count("broken.wav") == 1


def test_a_row_of_a_result():
    (row,) = rows_of_result("a.wav", None, "it is broken.")
    assert row["file"] == "a.wav" and row["error"] == "it is broken." and row["valence"] is None
    result = {"valence": 0.0, "arousal": 0.5, "dominance": 1.0, "duration": 2.0}
    (row,) = rows_of_result("a.wav", result, None, (-1.0, 1.0))
    assert [row[label] for label in LABELS] == [-1.0, 0.0, 1.0]


def test_a_row_has_the_ends_of_the_intervals():
    result = {"valence": 0.5, "arousal": 0.5, "dominance": 0.5, "duration": 2.0, "warnings": ["quiet."]}
    result["intervals"] = {"valence": [0.25, 0.75], "arousal": [0.4, 0.6], "dominance": [0.5, 0.5]}
    (row,) = rows_of_result("a.wav", result, None, (1.0, 7.0))
    assert (row["valence_low"], row["valence_high"], row["arousal_low"]) == pytest.approx((2.5, 5.5, 3.4))
    (row,) = rows_of_result("a.wav", result, None, {"valence": (1.0, 7.0), "arousal": (-1.0, 1.0)})
    assert (row["valence_low"], row["arousal_low"]) == pytest.approx((2.5, -0.2))
    assert (row["valence"], row["arousal"], row["dominance"], row["dominance_high"]) == (4.0, 0.0, 0.5, 0.5)
    course = [{"start": 0.0, "end": 1.0, **result}, {"start": 1.0, "end": 2.0, **result, "intervals": None}]
    first, second = rows_of_result("a.wav", result | {"course": course}, None, course=True)
    assert first["valence_low"] == 0.25 and second["valence_low"] is None and "intervals" not in first


def test_a_row_of_a_window_has_its_own_warnings_after_those_of_the_recording():
    numbers = dict.fromkeys(LABELS, 0.5)
    result = numbers | {"duration": 9.0, "speech_seconds": 4.0, "warnings": ["clipped."]}
    silent = {"has_speech": False, "speech_seconds": 0.0, "warnings": ["No speech was found."]}
    course = [numbers | {"start": 0.0, "end": 5.0, "speech_seconds": 4.0, "warnings": []}]
    course.append(numbers | {"start": 5.0, "end": 9.0} | silent)
    rows = list(rows_of_result("a.wav", result | {"course": course}, None, course=True))
    assert [row["warnings"] for row in rows] == [["clipped."], ["clipped.", "No speech was found."]]
    assert [row["speech_seconds"] for row in rows] == [4.0, 0.0]
    whole = result | {"warnings": ["No speech was found."], "course": course}
    assert [row["warnings"] for row in rows_of_result("a.wav", whole, None, course=True)] == [silent["warnings"]] * 2


def test_numbers_with_wide_intervals_are_left_out():
    result = {"valence": 0.5, "arousal": 0.5, "dominance": 0.5, "duration": 2.0, "warnings": ["quiet."]}
    result["intervals"] = {"valence": [0.25, 0.75], "arousal": [0.4, 0.6], "dominance": [0.5, 0.5]}
    (kept,) = rows_of_result("a.wav", result, None, max_width=0.5)
    assert kept["valence"] == 0.5 and kept["warnings"] == ["quiet."]
    (row,) = rows_of_result("a.wav", result, None, max_width=0.4)
    assert [row[label] for label in LABELS] == [None] * 3 and row["valence_low"] == 0.25 and row["error"] is None
    assert row["warnings"] == ["quiet.", "The numbers are left out: the interval of valence is 0.5 wide."]
    (scaled,) = rows_of_result("a.wav", result, None, (1.0, 7.0), max_width=0.5)
    assert scaled["valence"] is None and "3 wide" in scaled["warnings"][-1]
    (silent,) = rows_of_result("a.wav", result | {"intervals": None, "warnings": None}, None, max_width=0.4)
    assert silent["valence"] is None and "they have no interval" in silent["warnings"][0]


def test_a_dimension_without_labels_leaves_no_number_out():
    result = {"valence": 0.5, "arousal": 0.5, "dominance": 0.5, "duration": 2.0, "warnings": []}
    result["intervals"] = {"valence": [0.3, 0.7], "arousal": [0.4, 0.6], "dominance": [0.0, 1.0]}
    (row,) = rows_of_result("a.wav", result, None, max_width=0.5)
    assert row["valence"] is None
    (row,) = rows_of_result("a.wav", result, None, max_width=0.5, unrated=["dominance"])
    assert row["valence"] == 0.5 and row["dominance_high"] == 1.0 and row["warnings"] == []
    (row,) = rows_of_result("a.wav", result, None, max_width=0.3, unrated=["dominance"])
    assert row["valence"] is None and "the interval of valence is 0.4 wide" in row["warnings"][0]


def test_a_row_has_percentiles_among_the_predictions():
    """They are found before the numbers are scaled, and a window has those of the window."""
    names = [f"{label}_percentile" for label in LABELS]
    result = {"valence": 0.25, "arousal": 0.5, "dominance": 1.0, "has_speech": True, "percentiles_of": "a corpus"}
    result |= {"duration": 2.0, "intervals": {name: [0.0, 1.0] for name in LABELS}}
    (row,) = rows_of_result("a.wav", result, None, (1.0, 7.0), scale=SCALE)
    assert [row[name] for name in (*names, "percentiles_of")] == [25, 50, 100, "a corpus"]
    silent = {"start": 1.0, "end": 2.0, "has_speech": False, **dict.fromkeys(LABELS, 0.5)}
    course = [{"start": 0.0, "end": 1.0, "has_speech": True, **dict.fromkeys(LABELS, 0.5)}, silent]
    rows = [*rows_of_result("a.wav", result | {"course": course}, None, course=True, scale=SCALE)]
    assert [row["arousal_percentile"] for row in rows] == [50, None]
    assert [row["percentiles_of"] for row in rows] == ["a corpus", None]
    for without in (
        rows_of_result("a.wav", result | {"has_speech": False}, None, scale=SCALE),
        rows_of_result("a.wav", result, None, max_width=0.5, scale=SCALE),
        rows_of_result("a.wav", result | {"percentiles_of": None}, None),
        rows_of_result("a.wav", None, "it is broken.", scale=SCALE),
    ):
        assert [[row[name] for name in (*names, "percentiles_of")] for row in without] == [[None] * 4]


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_percentiles_are_those_of_the_pipeline(tmp_path, monkeypatch, suffix):
    monkeypatch.chdir(tmp_path)
    model = tiny_model(semantics=[])
    model.config.scale = SCALE
    model.save_pretrained("model")
    tiny_processor().save_pretrained("model")
    soundfile.write("silence.wav", np.zeros(16_000, np.float32), 16_000)
    first, silent = predict(EXAMPLE, "silence.wav", "-o", f"r{suffix}", "--model", "model").to_dict("records")
    expected = MsfSerPipeline(model=model, processor=tiny_processor())(str(EXAMPLE))
    assert first["percentiles_of"] == expected["percentiles_of"] == "a corpus" and pd.isna(silent["percentiles_of"])
    for label in LABELS:
        assert first[f"{label}_percentile"] == expected["percentiles"][label]["predictions"]
        assert pd.isna(silent[f"{label}_percentile"])
    if suffix == ".csv":
        assert f",{expected['percentiles']['dominance']['predictions']},a corpus," in Path("r.csv").read_text()


def test_the_intervals_of_a_model_with_an_unrated_dimension(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model, intervals = tiny_model(semantics=[]), MsfSerIntervals()
    levels = torch.tensor(LEVELS)
    intervals.quantiles[:2] = 0.2 * levels
    set_intervals(model, intervals)
    model.config.unrated = ["dominance"]
    model.save_pretrained("model")
    tiny_processor().save_pretrained("model")
    wide, narrow = (
        predict(EXAMPLE, "-o", f"{level}.csv", "--model", "model", "--max_width", 0.9, "--interval_level", level)
        for level in (0.9, 0.5)
    )
    for table in (wide, narrow):
        assert table[[*LABELS]].notna().all(None) and (table["dominance_high"] - table["dominance_low"]).item() == 1
    widths = [(table["valence_high"] - table["valence_low"]).item() for table in (wide, narrow)]
    assert widths[0] > widths[1] > 0
    with pytest.raises(SystemExit, match=r"interval_level=2\.0 is no level: give a number from 0"):
        predict(EXAMPLE, "-o", "r.csv", "--model", "model", "--interval_level", 2)


# Nothing is lost


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["-o", "r.txt"], "'r.txt' is none of .csv, .jsonl, .parquet"),
        (["-o", "there.csv"], "there.csv exists: give another name, or replace it with --overwrite"),
        (["-o", "no/folder/r.csv"], "there is no folder 'no/folder'"),
        (["-o", "r.csv", "--label_range", "7", "1"], "--label_range is 7 1; give two finite numbers"),
        (["-o", "r.csv", "--label_range", "1", "inf"], "--label_range is 1 inf; give two finite numbers"),
        (["-o", "r.csv", "--label_range", "nan", "1"], "--label_range is nan 1; give two finite numbers"),
        (["-o", "r.csv", "--batch_size", "0"], "batch_size"),
        (["-o", "r.csv", "--max_width", "0"], "give a width above 0"),
        (["-o", "r.csv", "--max_width", "0.4"], "has no intervals, which --max_width needs"),
        (["-o", "r.csv", "--interval_level", "0.5"], "has no intervals, which --interval_level needs"),
    ],
)
def test_a_wrong_command_is_refused(calls, model, arguments, words):
    Path("there.csv").write_text("mine")
    with pytest.raises(SystemExit, match=words):
        msfser(["predict", "calls", "--model", str(model), *arguments])
    assert Path("there.csv").read_text() == "mine"
    assert not Path("r.csv").exists() and not list(Path().glob("*.parts"))


def test_no_input_is_replaced(calls, model):
    soundfile.write("one.wav", noise(1.0, 1), 16_000)
    for table in (Path("t.csv"), calls / "metadata.csv"):
        table.write_text("file_name,valence\none.wav,1\n")
    Path("link.csv").symlink_to("t.csv")
    msfser(["annotate", "t.csv", "--output", "shards", "--recognizer", "none", "--describer", "none"])
    inputs = [Path("t.csv"), calls / "metadata.csv", *Path("shards/data").iterdir()]
    before = [path.read_bytes() for path in inputs]
    for named, output in (
        ("t.csv", "t.csv"),
        ("t.csv", "calls/../t.csv"),
        ("t.csv", "link.csv"),
        ("link.csv", "t.csv"),
        ("calls/metadata.csv", "calls/metadata.csv"),
        ("calls", "calls/metadata.csv"),
        ("shards", "shards/data/part-00000.parquet"),
    ):
        for more, words in (([], "give another name"), (["--overwrite"], "would be replaced: give another name")):
            with pytest.raises(SystemExit, match=words):
                predict(named, "-o", output, "--model", model, "--audio_folder", ".", *more)
    assert [path.read_bytes() for path in inputs] == before and not [*Path().rglob("*.parts")]
    # Another file beside the table is none of them.
    (calls / "r.csv").write_text("old")
    (calls / "metadata.csv").write_text("file_name\na.wav\n")
    assert predict("calls", "-o", "calls/r.csv", "--model", model, "--overwrite")["file"].tolist() == ["a.wav"]


@pytest.mark.parametrize("when", ["the model is loaded", "the shards are made"])
def test_a_table_that_appears_meanwhile_is_not_replaced(calls, model, monkeypatch, when):
    name = "load_named" if when == "the model is loaded" else "run_shards"
    real = getattr(predicting, name)

    def with_table(*arguments):
        if name == "run_shards":
            *first, finish, overwrite = arguments
            return real(*first, lambda work: (Path("r.csv").write_text("theirs"), finish(work)), overwrite)
        Path("r.csv").write_text("theirs")
        return real(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(predicting, name, with_table)
        with pytest.raises(SystemExit, match=r"r\.csv exists"):
            predict("calls", "-o", "r.csv", "--model", model)
    assert Path("r.csv").read_text() == "theirs"
    assert Path("r.csv.parts").exists() == (when == "the shards are made")
    assert len(predict("calls", "-o", "r.csv", "--model", model, "--overwrite")) == 4


def test_overwrite_replaces_the_table(calls, model):
    Path("r.csv").write_text("old")
    assert len(predict("calls", "-o", "r.csv", "--model", model, "--overwrite")) == 4


def test_a_stopped_run_goes_on(calls, model, monkeypatch, tmp_path):
    expected = predict("calls", "-o", "whole.csv", "--model", model)
    monkeypatch.setattr(ShardedPrediction, "rows_per_shard", 1)
    make_shard = sharded_table.ShardedTable.make_shard
    made = []

    def until(count: int):
        def make(self, number):
            if len(made) == count:
                raise KeyboardInterrupt
            made.append(number)
            make_shard(self, number)

        return make

    monkeypatch.setattr(sharded_table.ShardedTable, "make_shard", until(2))
    with pytest.raises(SystemExit) as stop:
        predict("calls", "-o", "r.csv", "--model", model)
    assert stop.value.code == 130 and not Path("r.csv").exists()
    monkeypatch.setattr(sharded_table.ShardedTable, "make_shard", until(100))
    resumed = predict("calls", "-o", "r.csv", "--model", model)
    assert made == [0, 1, 2, 3]
    pd.testing.assert_frame_equal(resumed, expected, check_exact=False, atol=2e-6)


def test_what_another_model_predicted_is_not_thrown_away(calls, model, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(model, other)
    torch.manual_seed(1)
    MsfSerModel(tiny_config(semantics=[])).save_pretrained(other)
    parts = stopped("calls", "-o", "r.csv", "--model", model)
    kept = contents(parts)
    assert "data/part-00000.parquet" in kept
    for more in (["--model", other], ["--model", model, "--channel", "0"]):
        with pytest.raises(SystemExit, match="run the same command as before, or start over with --overwrite"):
            predict("calls", "-o", "r.csv", *more)
    assert contents(parts) == kept
    second = predict("calls", "-o", "r.csv", "--model", other, "--overwrite")
    first = predict("calls", "-o", "first.csv", "--model", model)
    assert not np.allclose(first["valence"].dropna(), second["valence"].dropna())


def test_what_an_older_version_predicted_is_not_mixed_in(calls, model, monkeypatch):
    arguments = ("calls", "-o", "r.csv", "--model", model)
    with monkeypatch.context() as patch:
        patch.setattr(ShardedPrediction, "version", 5)  # without percentiles in the table
        stopped(*arguments)
    with pytest.raises(SystemExit, match="run the same command as before, or start over with --overwrite"):
        predict(*arguments)
    assert len(predict(*arguments, "--overwrite")) == 4


def test_what_is_left_of_other_recordings_is_replaced_on_request(calls, model):
    """As reported: the advice was another folder, and the user had named a file."""
    options = ("-o", "r.csv", "--model", model)
    stopped("calls/a.wav", *options)
    words = r"the results of another source, .*: run the same command as before, or start over with --overwrite\.$"
    with pytest.raises(SystemExit, match=words):
        predict("calls/long.flac", *options)
    assert predict("calls/long.flac", *options, "--overwrite")["file"].tolist() == ["calls/long.flac"]


def test_a_full_disk_is_named_with_the_table(calls, model, monkeypatch):
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    arguments = ("calls", "-o", "r.csv", "--model", model)
    with monkeypatch.context() as patch, pytest.raises(SystemExit) as stop:
        patch.setattr("msfser.prediction.predicting.write_table", full)
        predict(*arguments)
    assert "error: r.csv cannot be written (No space left on device): once it can, run" in str(stop.value)
    Path("r.csv").write_text("old")
    with pytest.raises(SystemExit, match=r"r\.csv exists, and so does r\.csv\.parts of an interrupted run"):
        predict(*arguments)
    assert len(predict(*arguments, "--overwrite")) == 4


def stopped(*arguments: object) -> Path:
    """Predicts until the table would be written, and gives the folder that is left."""
    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit, match="the disk is full"):

        def full(*_: Any, **shown: Any) -> None:
            raise OSError("the disk is full.")

        patch.setattr("msfser.prediction.predicting._write", full)
        predict(*arguments)
    output = arguments[arguments.index("-o") + 1]
    return Path(f"{output}.parts")


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("overwrite", [[], ["--overwrite"]])
def test_a_stopped_run_goes_on_with_smaller_batches(calls, model, overwrite):
    """Also one that replaces a table, which is there until the new one is whole."""
    arguments = ("calls", "-o", "r.csv", "--model", model, *overwrite)
    if overwrite:
        Path("r.csv").write_text("old")
    stopped(*arguments)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ShardedPrediction, "make_rows", None)  # nothing is predicted again
        assert len(predict(*arguments, "--batch_size", 1)) == 4


def test_overwrite_makes_what_is_finished_or_of_other_recordings_anew(calls, model, monkeypatch):
    arguments = ("calls", "-o", "r.csv", "--model", model, "--overwrite")
    made = []
    make_rows = ShardedPrediction.make_rows

    def counted(self, rows, *more):
        made.extend(rows)
        return make_rows(self, rows, *more)

    monkeypatch.setattr(ShardedPrediction, "make_rows", counted)
    first = predict(*arguments)
    pd.testing.assert_frame_equal(predict(*arguments), first)
    assert made == [0, 1, 2, 3] * 2
    stopped(*arguments)
    soundfile.write(calls / "a.wav", noise(1.0, 9), 16_000)
    assert predict(*arguments)["duration"][0] == 1.0
    parts = stopped(*arguments)
    (parts / "annotation.json").write_text("{")
    made.clear()
    assert len(predict(*arguments)) == 4 and made == [0, 1, 2, 3]


def test_the_output_of_a_stopped_run_is_no_input_of_a_pattern(calls, model, monkeypatch):
    monkeypatch.chdir(calls)
    Path("notes.txt").unlink()
    options = ("-o", "r.csv", "--model", model)
    stopped(*sorted(os.listdir()), *options)
    assert {"r.csv.parts"} < {*os.listdir()}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ShardedPrediction, "make_rows", None)
        table = predict(*sorted(os.listdir()), *options)
    assert table["file"].tolist() == ["a.wav", "broken.wav", "inner/stereo.wav", "long.flac"]
    for again in ([*sorted(os.listdir())], ["*"]):
        with pytest.raises(SystemExit, match=r"r\.csv is one of the inputs and would be replaced"):
            predict(*again, *options, "--overwrite")


@pytest.mark.skipif(sys.platform != "linux", reason="file names are bytes on Linux only")
@pytest.mark.parametrize("names", [["a.wav", os.fsdecode(b"\xff.wav")], ["*.wav"]])
def test_a_name_that_is_no_text_does_not_end_the_command(calls, model, monkeypatch, caplog, names):
    monkeypatch.chdir(calls)
    shutil.copy("a.wav", os.fsdecode(b"\xff.wav"))
    Path("broken.wav").unlink()
    table = predict(*names, "-o", "r.csv", "--model", model)
    assert table["file"].tolist() == ["a.wav"]
    assert "left out 1 file: with names that are not valid text (1): '\\\\xff.wav'." in caplog.text
    with pytest.raises(SystemExit, match=r"there is no recording in .*with names that are not valid text"):
        predict(os.fsdecode(b"\xff.wav"), "-o", "s.csv", "--model", model)


def test_only_names_and_results_are_kept(calls, model):
    """As reported: so were copies of embedded recordings, and a column that Parquet refuses ended the run."""
    rows = [{"audio": {"bytes": EXAMPLE.read_bytes(), "path": "e.mp3"}, "note": "mine"}]
    pq.write_table(pa.Table.from_pylist(rows), "e.parquet")
    parts = stopped("e.parquet", "-o", "r.csv", "--model", model)
    assert pq.read_table(parts / "data").select(["audio", "error"]).to_pylist() == [{"audio": "e.mp3", "error": None}]
    assert pq.read_schema(parts / "data" / "part-00000.parquet").names == ["audio", "result", "error"]
    for note in ("mine", "changed"):
        Path("t.jsonl").write_text(json.dumps({"audio": "calls/a.wav", "meta": {}, "note": note}))
        stopped("t.jsonl", "-o", "s.csv", "--model", model)
    assert predict("t.jsonl", "-o", "s.csv", "--model", model)["file"].tolist() == ["calls/a.wav"]


def test_long_recordings_are_in_small_groups(calls, model, monkeypatch):
    monkeypatch.setattr(ShardedPrediction, "bytes_per_shard", 100_000)  # a.wav has 48 kB, stereo.wav 128 kB
    parts = stopped(
        "calls/a.wav", "calls/broken.wav", "calls/inner", "calls/long.flac", "-o", "r.csv", "--model", model
    )
    rows = [pq.read_metadata(shard).num_rows for shard in sorted(parts.glob("data/*"))]
    assert rows == [2, 1, 1] and os.path.getsize("calls/long.flac") > 100_000
    table = predict(
        "calls/a.wav", "calls/broken.wav", "calls/inner", "calls/long.flac", "-o", "r.csv", "--model", model
    )
    assert table["error"].notna().tolist() == [False, True, False, False]


@pytest.mark.parametrize("count", [0, 1, 9, 305, 5_000])
def test_the_last_recordings_are_in_small_groups(count):
    """As measured: with equal groups, one of two processes waited for a tenth of its time at the end."""
    made = ShardedPrediction.__new__(ShardedPrediction)
    made.table, made._size = range(count), lambda row: 1
    sizes = np.diff([*made.starts(), count])
    assert sizes.sum() == count and sizes.max(initial=0) <= ShardedPrediction.rows_per_shard
    assert (sizes[-3:] <= ShardedPrediction.fewest_rows_per_shard).all()
    assert (np.diff(sizes) <= 0).all()


def test_only_the_main_process_speaks_of_the_whole(caplog):
    """Each said the license of the weights, and warned of languages that are not read."""

    class Work:
        def run(self, quiet):
            assert quiet
            logging.getLogger("msfser").warning("of its rows")

    def open_work():
        logging.getLogger("msfser").warning("of the whole")
        logging.getLogger("msfser").error("an error")
        return Work()

    state = SimpleNamespace(
        is_main_process=False,
        is_local_main_process=False,
        main_process_first=contextlib.nullcontext,
        wait_for_everyone=lambda: None,
    )
    before = logging.root.manager.disable
    run_shards(state, open_work, Path(), lambda work: None)
    assert caplog.messages == ["an error", "of its rows"] and logging.root.manager.disable == before


@pytest.mark.parametrize("with_table", [False, True])
def test_a_resumed_run_does_not_list_its_own_folder(calls, model, caplog, with_table):
    if with_table:
        (calls / "metadata.csv").write_text("file_name\na.wav\nlong.flac\nbroken.wav\ninner/stereo.wav\n")
    arguments = ("calls", "-o", "calls/r.csv", "--model", model)
    stopped(*arguments)
    caplog.clear()
    assert len(predict(*arguments)) == 4 and not Path("calls/r.csv.parts").exists()
    assert "left out 1 file: whose names do not end as sound files do (1): 'calls/notes.txt'; name" in caplog.text


@pytest.mark.parametrize("overwrite", [[], ["--overwrite"]])
@pytest.mark.parametrize("has_shards", [False, True])
def test_a_second_run_leaves_the_first_one_alone(calls, model, has_shards, overwrite):
    arguments = ("calls", "-o", "r.csv", "--model", model)
    parts = stopped(*arguments)
    if not has_shards:
        for shard in parts.glob("data/*"):
            shard.unlink()
    (parts / ".part-00000.parquet.begun").touch()
    with only_run(parts):
        before = contents(parts)
        with pytest.raises(SystemExit, match=r"another run is writing to 'r\.csv\.parts'"):
            predict(*arguments, *overwrite)
        assert contents(parts) == before
    assert len(predict(*arguments)) == 4 and not parts.exists()


@pytest.mark.parametrize("gone", ["a.wav", "long.flac"])
def test_a_refused_run_leaves_everything(calls, model, monkeypatch, gone):
    monkeypatch.setattr(ShardedPrediction, "rows_per_shard", 1)
    arguments = ("calls", "-o", "r.csv", "--model", model)
    parts = stopped(*arguments)
    before = contents(parts)
    assert len(before) == 5
    (calls / gone).rename("aside")
    with pytest.raises(SystemExit, match="run the same command as before, or start over with --overwrite"):
        predict(*arguments)
    assert contents(parts) == before
    Path("aside").rename(calls / gone)
    with monkeypatch.context() as patch:
        patch.setattr(ShardedPrediction, "make_rows", None)  # nothing is predicted again
        assert len(predict(*arguments)) == 4


def test_a_file_that_no_run_wrote_stays(calls, model):
    parts = stopped("calls", "-o", "r.csv", "--model", model)
    (parts / "mine.txt").write_text("mine")
    predict("calls", "-o", "r.csv", "--model", model, "--overwrite")
    assert contents(parts) == {"mine.txt": b"mine"}


@pytest.mark.parametrize("wrong", [["--language", "klingon"], ["--model", "calls"], ["--channel", "-1"]])
def test_a_wrong_option_leaves_nothing(calls, model, wrong):
    with pytest.raises(SystemExit):
        predict("calls", "-o", "r.csv", "--model", model, *wrong)
    assert not Path("r.csv.parts").exists()
    assert len(predict("calls", "-o", "r.csv", "--model", model)) == 4


def test_two_processes_make_the_same_table(calls, model, tmp_path):
    for i in range(5):
        soundfile.write(calls / f"more{i}.wav", noise(1.0 + i / 4, i), 16_000)
    expected = predict("calls", "-o", "one.csv", "--model", model)
    driver = tmp_path / "driver.py"
    driver.write_text(
        "import sys\nfrom msfser.prediction.sharded_prediction import ShardedPrediction\n"
        "ShardedPrediction.rows_per_shard = 2\n"
        "from msfser.cli.main import main\nmain(sys.argv[1:])\n"
    )
    launcher = Path(sys.executable).with_name("accelerate")
    if not launcher.is_file():
        pytest.skip("the launcher is not beside the interpreter")
    port = str(20_000 + (os.getpid() + 11) % 20_000)
    launch = [str(launcher), "launch", "--multi_gpu", "--num_processes", "2", "--main_process_port", port, str(driver)]
    options = ["predict", "calls", "-o", "two.csv", "--model", str(model)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run([*launch, *options], capture_output=True, text=True, timeout=300, env=environment)
    assert done.returncode == 0, done.stderr[-2000:]
    pd.testing.assert_frame_equal(pd.read_csv("two.csv"), expected, check_exact=False, atol=2e-6)


# Decoding ahead


def test_ahead_keeps_order_and_errors():
    assert [*ahead(iter(range(100)), 3)] == [*range(100)]

    def broken():
        yield 1
        raise ValueError("no more")

    items = ahead(broken(), 2)
    assert next(items) == 1
    with pytest.raises(ValueError, match="no more"):
        next(items)


def test_ahead_makes_a_bounded_number_and_stops_with_its_user():
    made: list[int] = []

    def items():
        for i in range(1000):
            made.append(i)
            yield i

    stream = ahead(items(), 4)
    assert next(stream) == 0
    time.sleep(0.3)
    assert len(made) <= 7
    stream.close()
    time.sleep(0.4)
    count = len(made)
    time.sleep(0.2)
    assert len(made) == count


def test_the_result_is_json(calls, model):
    predict("calls/a.wav", "-o", "r.jsonl", "--model", model)
    (line,) = Path("r.jsonl").read_text().splitlines()
    assert json.loads(line)["warnings"] is not None


def test_long_recordings_are_decoded_by_the_other_thread(calls, model):
    named = load_named(str(model))
    pipe = TimedPipeline(model=named.model, processor=named.processor)
    expected = MsfSerPipeline(model=named.model, processor=named.processor)("calls/long.flac")
    assert list(pipe(iter(["calls/long.flac"]))) == [expected]
    assert pipe.background.seconds["decode"] > 0 and pipe.stopwatch.seconds["encode"] > 0


def test_a_part_is_measured_without_those_inside_it():
    moments = iter([0.0, 1.0, 4.0, 10.0])
    stopwatch = Stopwatch(lambda: next(moments))
    with stopwatch.measure("outer"), stopwatch.measure("inner"):
        pass
    assert stopwatch.seconds == {"inner": 3.0, "outer": 7.0}


def test_the_time_of_each_part_is_said(calls, model, caplog):
    predict("calls", "-o", "r.csv", "--model", model)
    (line,) = [message for message in caplog.messages if message.startswith("took ")]
    shares = dict(re.findall(r"(\w+) (\d+)%", line.partition(":")[2].partition(";")[0]))
    assert {"wait", "recognize", "prepare", "encode", "write", "rest"} <= set(shares)
    assert sum(map(int, shares.values())) == pytest.approx(100, abs=len(shares))


def test_rows_of_shards_with_an_error_have_their_reason(calls, model):
    msfser(["annotate", "calls", "--output", "annotated", "--recognizer", "none", "--describer", "none"])
    table = predict("annotated", "-o", "r.csv", "--model", model)
    assert table["file"].tolist() == ["a.wav", "broken.wav", "inner/stereo.wav", "long.flac"]
    assert table["error"].notna().tolist() == [False, True, False, False]
    assert "broken.wav" in table["error"][1]


@pytest.mark.parametrize("more", [[], ["--channel", "each"]])
def test_a_missing_recording_is_looked_for_nowhere_else(calls, model, monkeypatch, more):
    """As reported: a file of its name in the working folder was predicted, and an address was fetched."""
    fetched: list[str] = []
    monkeypatch.setattr("msfser.recordings_msfser.fetch", fetched.append)
    shutil.copy(calls / "a.wav", "gone.wav")
    cells = ["gone.wav", "https://nobody.invalid/a.wav", "a.wav"]
    Path("calls/metadata.csv").write_text("\n".join(["file_name", *cells]))
    table = predict("calls", "-o", "r.csv", "--model", model, *more)
    assert table["file"].tolist() == cells and not fetched
    assert table["error"].tolist()[:2] == [f"there is no file '{cell}'." for cell in cells[:2]]
    assert table["error"].isna()[2] and table["valence"].notna().tolist() == [False, False, True]


@pytest.mark.parametrize("more", [[], ["--channel", "each"]])
def test_a_bad_cell_is_a_row_with_its_error(calls, model, more):
    """As reported: one of a million ended the command before it started."""
    shutil.copy(calls / "a.wav", "secret.wav")
    late = '"[{""word"": ""a"", ""start"": 2, ""end"": 1}]"'
    cells = ["a.wav,", ",", "../secret.wav,", "a.wav,[{", f"a.wav,{late}", "a.wav,"]
    Path("calls/metadata.csv").write_text("\n".join(["file_name,words", *cells]))
    table = predict("calls", "-o", "r.csv", "--model", model, *more)
    assert table["file"].tolist() == ["a.wav", "row 2", "../secret.wav", "a.wav", "a.wav", "a.wav"]
    assert table["error"].isna().tolist() == table["valence"].notna().tolist() == [True, *[False] * 4, True]
    reasons = (
        "'file_name' is blank; name the audio file of each row or remove the row.",
        "the audio path '../secret.wav' leads out of the data folder 'calls' (1 such row); move the files into it, or",
        "the text in 'words' is not JSON (",
        "in 'words' needs a word, and times in seconds with 0 <= start <= end.",
    )
    assert [why in error for why, error in zip(reasons, table["error"][1:5], strict=True)] == [True] * 4


def test_a_mended_cell_is_predicted_anew(calls, model):
    """The key of a row is that of what it was, not only of what could not be read."""
    for name in ("a.wav", "b.wav"):
        shutil.copy(calls / "a.wav", name)
    keys = []
    for cell in ("", "../a.wav", "../b.wav", "a.wav"):
        Path("calls/metadata.csv").write_text(f"audio\nlong.flac\n{cell or ' '}\n")
        source = find_recordings(["calls"])
        keys.append(ShardedPrediction(source, {}, None, {}, calls / "parts").step_keys(range(2))["result"])
    assert len({*keys}) == 4


def test_a_missing_recognizer_is_named_as_on_the_command_line(calls, tmp_path):
    folder = tmp_path / "words"
    tiny_model().save_pretrained(folder)
    tiny_processor().save_pretrained(folder)
    with pytest.raises(SystemExit, match=r"or give --recognizer none to go without a transcript\.$"):
        predict("calls/a.wav", "-o", "r.csv", "--model", folder, "--recognizer", "nobody/whisper-nowhere")


def test_wrong_names_are_refused_before_anything_slow_is_imported(tmp_path):
    code = (
        "import sys\nfrom msfser.cli.main import main\n"
        "try:\n    main(['predict', 'nothing.csv', '-o', 'x.csv'])\n"
        "except SystemExit as error:\n    assert 'nothing.csv' in str(error)\n"
        "assert not {'torch', 'transformers', 'datasets'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path)
