"""Benchmark commands that get a wrong folder answer with a sentence."""

import pytest

from msfser.benchmarks import annotate, emphasis, recognition


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
