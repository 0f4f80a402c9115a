"""Benchmark commands that get a wrong folder answer with a sentence, and are recorded without this machine's paths."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from msfser import LABELS
from msfser.benchmarks import emphasis, probe_annotated, recognition
from msfser.benchmarks.command import shown_command
from msfser.evaluation.results import read, row, write
from msfser.transcription_msfser import Transcription


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
    assert sentence in f"{stop.value}{capsys.readouterr().err}"


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
        (["here", "--group=here", "--data", "here"], " here --group=here --data FOLDER"),
    ],
)
def test_a_recorded_command_has_the_options_and_no_path(argv, recorded, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here" / "model").mkdir(parents=True)
    assert shown_command("x", argv) == f"python -m msfser.benchmarks.x{recorded}"


def test_versions_of_the_annotated_probe_are_compared_in_pairs(monkeypatch, tmp_path):
    """The same error in every seed is a difference without any spread between seeds."""

    def predicted(folder):
        draw = np.random.default_rng(int(folder.name[-1]))
        labels = np.random.default_rng(9).random((40, 3))
        shift = 0.2 if folder.name.startswith("other") else 0.0
        columns = {"speaker": [f"s{i % 4}" for i in range(40)]}
        columns |= {label: labels[:, i] + 0.1 * draw.standard_normal(40) + shift for i, label in enumerate(LABELS)}
        columns |= {f"{label}_label": labels[:, i] for i, label in enumerate(LABELS)}
        return SimpleNamespace(table=pd.DataFrame(columns))

    for name in ("original_7", "original_8", "other_7", "other_8"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "results.json").write_text("[]")
    monkeypatch.setattr(probe_annotated, "VERSIONS", {"original": [], "other": []})
    monkeypatch.setattr(probe_annotated, "make_probe", lambda folder: folder)
    monkeypatch.setattr(probe_annotated, "predict_part", predicted)
    monkeypatch.setattr("msfser.benchmarks.command.RESULTS", tmp_path)
    probe_annotated.main(["--seeds", "7", "8", "--output_dir", str(tmp_path)])
    rows = read(tmp_path / "probe_annotated.json")
    commands = {row["command"] for row in rows.values()}
    assert commands == {"python -m msfser.benchmarks.probe_annotated --seeds 7 8 --output_dir FOLDER"}
    difference = rows["other_minus_original/mean"]
    assert difference["low"] < difference["value"] < difference["high"] < 0
    assert difference["value"] == pytest.approx(rows["other/mean"]["value"] - rows["original/mean"]["value"])


class Recognizer:
    """Gives the words of a clip late by the clip's number, in tenths of a second; takes tones for speech."""

    def __call__(self, sounds, language):
        assert language == "en"
        return [self._transcribed(sound) for sound in sounds]

    def _transcribed(self, sound):
        if sound == "hum":
            return Transcription(None, [], "no speech", None)
        late = int(sound[-1]) / 10 if sound.startswith("clip") else 0
        words = [{"word": word, "start": late, "end": 1 + late} for word in ("x", "y")]
        return Transcription("x y", words, None, -0.1)

    def align(self, sounds, texts, languages=None):
        return [self._transcribed(sound).words for sound in sounds]


def test_times_are_resampled_by_clip_and_each_kind_of_sound_has_its_shares(monkeypatch, tmp_path):
    files = [f"clip{number}" for number in range(1, 8)]
    table = pd.DataFrame({"file_name": [*files, "clip8"], "transcription": "x y", "speaker_id": [*"ssssttt", None]})
    table.to_csv(tmp_path / "metadata.csv", index=False)
    words = [{"file_name": f, "word": w, "start_s": 0.0, "end_s": 1.0} for f in files for w in "xy"]
    pd.DataFrame(words).to_csv(tmp_path / "words.csv", index=False)
    probe = pd.DataFrame({"audio": ["clip9"], "split": "validation", "speaker": "p", "stressed_word": 0})
    probe.assign(words=[[{"word": "x"}]]).to_parquet(tmp_path / "metadata.parquet")
    monkeypatch.setattr(recognition, "load_recognizer", lambda precision="float32": Recognizer())
    monkeypatch.setattr(recognition, "has_bfloat16", lambda: True)
    monkeypatch.setattr(recognition, "SphinxAligner", lambda: Recognizer().align)
    monkeypatch.setattr(recognition, "make_probe", lambda folder: tmp_path)
    monkeypatch.setattr(recognition, "load_audio", lambda path: path.name)
    sounds = [("tone", "tone")] * 3 + [("hum", "hum")] * 5
    monkeypatch.setattr(recognition, "nonspeech", lambda seed: sounds)
    monkeypatch.setattr("msfser.benchmarks.command.RESULTS", tmp_path)
    write(tmp_path / "recognition.json", [row("other", 1)])
    recognition.main(["--plain", str(tmp_path)])
    rows = read(tmp_path / "recognition.json")
    for name in ("median_time_error", "aligned_median_time_error_attention", "aligned_median_time_error_sphinx"):
        found = rows[f"plain/{name}"]
        assert (found["value"], found["low"], found["high"]) == pytest.approx((0.4, 0.1, 0.7)) and found["clips"] == 7
    assert rows["plain/wer"]["value"] == 0 and rows["plain/wer"]["clips"] == 8 and "other" in rows
    assert rows["nonspeech/tone/false_accept"]["value"] == 1 and rows["nonspeech/hum/false_accept"]["value"] == 0
    assert rows["nonspeech/false_accept"]["value"] == rows["bfloat16/nonspeech/false_accept"]["value"] == 3 / 8
    assert rows["bfloat16/plain/wer"]["value"] == rows["bfloat16/changed_words"]["value"] == 0
    assert "bfloat16/nonspeech/tone/false_accept" not in rows
    exact = stats.binomtest(3, 3).proportion_ci(0.95, "exact")
    assert rows["nonspeech/tone/false_accept"]["low"] == pytest.approx(exact.low)
    assert (
        rows["speech/false_reject"]["high"] > 0 and rows["speech/false_reject"]["resampled"] == "speakers where known"
    )


def test_a_rate_of_word_errors_has_no_interval_below_zero():
    found = recognition.word_error_row("wer", ["one two three"] * 3, ["one two three", "one two three", "one"])
    assert found["low"] == 0 < found["value"] < found["high"]
