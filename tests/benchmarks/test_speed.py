"""The speed benchmark's arithmetic, its rows and what they are made of; no time is asserted."""

import json

import datasets
import numpy as np
import pytest
import soundfile
import torch
from tiny import noise, tiny_model, tiny_processor

from msfser.benchmarks import speed, training_speed
from msfser.evaluation.results import read
from msfser.training import features


def test_a_row_is_the_median_of_the_repeats_with_its_ends():
    assert speed.ratio("a", [2, 9, 4], [1, 3, 1]) == {"name": "a", "value": 3.0, "low": 2.0, "high": 4.0}
    with pytest.raises(ValueError, match="argument 2 is shorter"):
        speed.ratio("a", [1, 2], [1])


def test_tasks_take_turns():
    done = []
    spent = speed.interleaved({"a": lambda: done.append("a"), "b": lambda: done.append("b")}, 2)
    assert done == ["a", "b", "a", "b"] and {name: len(seconds) for name, seconds in spent.items()} == {"a": 2, "b": 2}


def test_stock_batches_keep_the_order_and_hide_the_padding():
    clips = [torch.full((length,), float(length)) for length in (3, 5, 2, 4, 7)]
    (values, mask), (last, _) = speed.padded(clips)
    assert values.shape == (4, 5) and last.shape == (1, 7)
    assert mask.sum(1).tolist() == [3, 5, 2, 4] and values[0].tolist() == [3, 3, 3, 0, 0]


def test_rows_say_how_and_where_they_were_measured(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("msfser.benchmarks.command.RESULTS", tmp_path)
    monkeypatch.setitem(
        speed.ROWS, "whisper", lambda seconds, repeats: [speed.ratio("a", seconds, [1] * len(seconds))]
    )
    speed.main(["whisper", "--repeats", "2", "--clips", "3"])
    assert capsys.readouterr().out.split()[:2] == ["a", "9.400"]
    assert read(tmp_path / "speed.json")["a"]["command"].endswith("speed whisper --repeats 2 --clips 3")
    speed.main(["whisper", "--repeats", "2"])
    row = read(tmp_path / "speed.json")["a"]
    assert row["command"] == "python -m msfser.benchmarks.speed whisper --repeats 2"
    assert row["threads"] == torch.get_num_threads() and {"processor", "torch", "transformers"} <= set(row)


@pytest.mark.parametrize(("given", "words"), [(["fast"], "no such group of rows"), (["--repeats", "0"], "at least 1")])
def test_wrong_options_are_a_sentence(given, words, capsys):
    with pytest.raises(SystemExit):
        speed.main(given)
    assert words in capsys.readouterr().err


@pytest.fixture
def clips(tmp_path, monkeypatch) -> datasets.Dataset:
    """In place of the probe corpus: eight recordings with labels that their level tells."""
    draw = np.random.default_rng(0)
    rows = []
    for i in range(8):
        soundfile.write(tmp_path / f"{i}.wav", (1 + i) / 4 * noise(0.5 + 0.05 * i, i), 16_000)
        labels = {"valence": draw.uniform(), "arousal": i / 8, "dominance": draw.uniform()}
        texts = {"transcript": "a b c", "emphasis": "b", "description": "the food" if i % 2 else "dreadful"}
        rows.append({"audio": {"path": str(tmp_path / f"{i}.wav"), "bytes": None}, **texts, **labels})
    made = datasets.Dataset.from_list(rows)
    monkeypatch.setattr(speed, "probe_clips", lambda part, count: made)
    return made


def test_the_first_epoch_runs_the_encoders_and_the_second_does_not(clips, monkeypatch):
    runs, encode = [], features._encode_audio
    monkeypatch.setattr(features, "_encode_audio", lambda *given: runs.append(len(given[0])) or encode(*given))
    kept = datasets.config.HF_DATASETS_CACHE
    times = speed._first_and_second(tiny_model(freeze_audio="all"), tiny_processor(), clips)
    assert sum(runs) == len(clips) and len(times) == 3 and min(times) > 0
    assert kept == datasets.config.HF_DATASETS_CACHE


def test_agreement_compares_predictions_that_differ(clips):
    model = tiny_model(freeze_audio="all", head_dropout=0.0, expert_dropout=0.0, text_dropout=0.0)
    ccc, spread = speed.agreement("a", model, tiny_processor(), train=None, test=None, epochs=5)
    assert (ccc["name"], spread["name"]) == ("a/ccc", "a/spread")
    assert spread["low"] > 0 and 0.5 < ccc["value"] <= 1 and ccc["low"] <= ccc["value"]
    assert model.is_8_bit


def test_the_training_epoch_has_as_many_clips_as_it_was_asked_for(tmp_path, monkeypatch):
    seen = []

    def counting(step, batches, device):
        seen.append(sum(map(len, batches)))
        return 1.0

    monkeypatch.setattr(training_speed, "MsfSerConfig", lambda **switches: tiny_model(**switches).config)
    monkeypatch.setattr(training_speed, "load_tokenizer", lambda name: tiny_processor().tokenizer)
    monkeypatch.setattr(training_speed, "_timed", counting)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    for variant in training_speed.VARIANTS:
        result = training_speed.epoch(variant, batch=2, folder=tmp_path, count=4)
        assert set(result) == {"seconds", "peak_bytes", "rest_seconds"} and result["peak_bytes"] > 0
    assert seen == [4] * 2 * len(training_speed.VARIANTS)


def test_the_clips_are_of_3_to_11_seconds_in_random_order_with_all_texts():
    listed = json.loads(training_speed.CLIPS.read_text(encoding="utf-8"))
    seconds = [clip["seconds"] for clip in listed]
    assert min(seconds) == 3 and max(seconds) == 11 and seconds != sorted(seconds)
    assert all(clip[name] for clip in listed for name in ("transcript", "emphasis", "description"))
