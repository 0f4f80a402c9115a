"""Benchmark commands that get a wrong folder answer with a sentence, and are recorded without this machine's paths."""

import json

import pytest

from msfser import LABELS
from msfser.benchmarks import emphasis, probe_annotated, recognition
from msfser.benchmarks.command import shown_command
from msfser.evaluation.results import read


@pytest.mark.parametrize(
    ("benchmark", "arguments", "sentence"),
    [
        (emphasis, ["--stress", "nowhere"], "'nowhere' has no words.csv: give the folder of a corpus"),
        (emphasis, [], "give --stress FOLDER, --probe, or both."),
        (recognition, ["--plain", "nowhere"], "there is no such file; name folders that have it."),
    ],
)
def test_a_wrong_folder_is_a_sentence(benchmark, arguments, sentence, monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stop:
        benchmark.main(arguments)
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
    (tmp_path / "original_7").mkdir()
    (tmp_path / "original_7" / "results.json").write_text(
        json.dumps([{"name": f"test/all/{name}", "value": 0.5} for name in (*LABELS, "mean")])
    )
    monkeypatch.setattr(probe_annotated, "VERSIONS", {"original": []})
    monkeypatch.setattr(probe_annotated, "make_probe", lambda folder: folder)
    monkeypatch.setattr("msfser.benchmarks.command.RESULTS", tmp_path)
    probe_annotated.main(["--seeds", "7", "--output_dir", str(tmp_path)])
    commands = {row["command"] for row in read(tmp_path / "probe_annotated.json").values()}
    assert commands == {"python -m msfser.benchmarks.probe_annotated --seeds 7 --output_dir FOLDER"}
