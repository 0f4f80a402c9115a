"""Benchmark commands that get a wrong folder answer with a sentence, and are recorded without this machine's paths."""

import json
from types import SimpleNamespace

import pytest

from msfser import LABELS
from msfser.benchmarks import annotate, emphasis, long_recording, probe_annotated, recognition
from msfser.evaluation.command import shown_command
from msfser.evaluation.results import read


@pytest.mark.parametrize(
    ("benchmark", "arguments", "sentence"),
    [
        (emphasis, ["--stress", "nowhere"], "'nowhere' has no words.csv: give the folder of a corpus"),
        (emphasis, [], "give --stress FOLDER, --probe, or both."),
        (recognition, ["--plain", "nowhere"], "there is no such file; name folders that have it."),
        (annotate, ["nowhere"], "there is no such folder; name the one with the recordings."),
    ],
)
def test_a_wrong_folder_is_a_sentence(benchmark, arguments, sentence, monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["benchmark", *arguments])
    with pytest.raises(SystemExit) as stop:
        benchmark.main()
    assert stop.value.code == 2 and sentence in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argv", "recorded"),
    [
        ([], ""),
        (["--data", "gone/me"], " --data FOLDER"),
        (["--data=gone", "--output_dir=a b", "--seeds", "0", "1"], " --data=FOLDER --output_dir=FOLDER --seeds 0 1"),
        (["--seeds=3", "--output_dir", "gone"], " --seeds=3 --output_dir FOLDER"),
        (["--model", "nobody/nothing"], " --model nobody/nothing"),
        (["--model", "here/model"], " --model FOLDER"),
        (["--model=here/model"], " --model=FOLDER"),
        (["here/model", "--words", "a b"], " FOLDER --words 'a b'"),
    ],
)
def test_a_recorded_command_has_the_options_and_no_path(argv, recorded, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here" / "model").mkdir(parents=True)
    assert shown_command("x", argv) == f"python -m msfser.benchmarks.x{recorded}"


def test_seeds_of_the_annotated_probe_are_recorded(monkeypatch, tmp_path):
    (tmp_path / "own_7").mkdir()
    (tmp_path / "own_7" / "results.json").write_text(
        json.dumps([{"name": f"test/all/{name}", "value": 0.5} for name in (*LABELS, "mean")])
    )
    monkeypatch.setattr(probe_annotated, "WITHHELD", {"own": []})
    monkeypatch.setattr(probe_annotated, "make_probe", lambda folder: folder)
    monkeypatch.setattr(probe_annotated, "RESULTS", tmp_path)
    monkeypatch.setattr("sys.argv", ["benchmark", "--seeds", "7", "--output_dir", str(tmp_path)])
    probe_annotated.main()
    commands = {row["command"] for row in read(tmp_path / "probe_annotated.json").values()}
    assert commands == {"python -m msfser.benchmarks.probe_annotated --seeds 7 --output_dir FOLDER"}


def test_the_model_that_heard_a_long_recording_is_recorded(monkeypatch, tmp_path):
    answer = SimpleNamespace(returncode=0, stdout=json.dumps({"course": [], "seconds": 1.0, "peak": 1e6}))
    monkeypatch.setattr(long_recording, "make_recording", lambda *_: [])
    monkeypatch.setattr(long_recording, "change_errors", lambda *_: [0.5])
    monkeypatch.setattr(long_recording.subprocess, "run", lambda *_, **__: answer)
    monkeypatch.setattr(long_recording, "RESULTS", tmp_path)
    monkeypatch.setattr("sys.argv", ["benchmark", "--model", "nobody/nothing", "--output_dir", str(tmp_path)])
    long_recording.main()
    commands = {row["command"] for row in read(tmp_path / "serving.json").values()}
    assert commands == {"python -m msfser.benchmarks.long_recording --model nobody/nothing --output_dir FOLDER"}
