"""Groups of speakers: a bias that is put into the predictions is found, and only in its group."""

import numpy as np
import pandas as pd
import pytest
import torch
from tiny import tiny_model, tiny_processor

from msfser.benchmarks import groups
from msfser.configuration_msfser import LABELS
from msfser.evaluation.acted import Material
from msfser.evaluation.leave_out import Protocol
from msfser.training.fitting import Clips


def made(bias: float) -> tuple[Material, np.ndarray, list[str | None]]:
    """Two corpora of eight speakers; in the first, every second one is a woman, with biased arousal."""
    draw = np.random.default_rng(0)
    speakers = np.repeat([f"{corpus}-{i}" for corpus in "ab" for i in range(8)], 20)
    table = pd.DataFrame({"corpus": [name[0] for name in speakers], "speaker": speakers})
    genders = [("FM"[int(name[2]) % 2] if name[0] == "a" else None) for name in speakers]
    labels = draw.uniform(0.2, 0.8, (len(speakers), 3)).astype(np.float32)
    predictions = np.stack([labels + draw.normal(0, 0.05, labels.shape) for _ in range(2)])
    predictions[:, [gender == "F" for gender in genders], 1] += bias
    clips = Clips(labels, speakers, {}, {}, {}, np.full(len(speakers), -1))
    return Material(clips, table, [], {}), predictions, genders


def test_a_bias_is_found_in_its_group_and_no_other():
    material, predictions, genders = made(0.1)
    rows = {row["name"]: row for row in groups.rows_of_groups(material, predictions, genders)}
    assert rows["a/F/arousal_bias"]["value"] == pytest.approx(0.1, abs=0.01)
    assert rows["a/F/arousal_bias"]["low"] > 0.05
    for name in ("a/M/arousal_bias", "a/F/valence_bias", "b/arousal_bias"):
        assert abs(rows[name]["value"]) < 0.01 and rows[name]["low"] < 0 < rows[name]["high"]
    difference = rows["a/women_minus_men/arousal_bias"]
    assert difference["value"] == pytest.approx(rows["a/F/arousal_bias"]["value"] - rows["a/M/arousal_bias"]["value"])
    assert difference["low"] > 0.05 and rows["a/women_minus_men/mean"]["high"] < 0
    assert rows["a/speakers"]["value"] == 8 and rows["a/F/speakers"]["value"] == 4


def test_a_corpus_that_states_no_gender_is_one_group():
    material, predictions, genders = made(0.0)
    names = {row["name"] for row in groups.rows_of_groups(material, predictions, genders)}
    assert {f"b/{measure}" for measure in (*(f"{label}_bias" for label in LABELS), "mean", "speakers")} == {
        name for name in names if name.startswith("b/")
    }


def test_genders_are_those_of_the_tables(tmp_path):
    for name, columns in (("a", {"gender": ["F"]}), ("b", {})):
        (tmp_path / name).mkdir()
        pd.DataFrame({"file_name": ["x.wav"], **columns}).to_csv(tmp_path / name / "table.csv", index=False)
    protocol = Protocol("table.csv", ["a"], ["b"])
    assert groups.column_of("gender", tmp_path, protocol) == {str(tmp_path / "a" / "x.wav"): "F"}


def test_parts_of_corpora_are_scored_alone():
    material, predictions, _ = made(0.0)
    material.table["corpus"] = np.where(material.table["corpus"] == "a", "ravdess", "emotiontts_kr")
    material.table["path"] = [str(i) for i in range(320)]
    material.table["emotion"] = np.tile(["calm", "anger", "surprise", "happiness"], 80)
    scripts = {str(i): "emotional" if i % 2 else "plain" for i in range(160, 320)}
    parts = groups.parts_of(material.table, scripts)
    assert {name: int(members.sum()) for name, members in parts.items()} == {
        "emotiontts_kr/emotional": 80,
        "emotiontts_kr/plain": 80,
        "ravdess/all": 160,
        "ravdess/sure": 80,
    }
    predictions[:, parts["ravdess/all"] & ~parts["ravdess/sure"]] = 0.5
    found = {row["name"]: row["value"] for row in groups.rows_of_parts(material, predictions, parts)}
    assert found["ravdess/sure/valence"] > 0.9 > found["ravdess/all/valence"]
    assert found["emotiontts_kr/plain/mean"] > 0.9


def test_a_wrong_folder_is_a_sentence(tmp_path):
    with pytest.raises(SystemExit, match="is missing: --data is a folder"):
        groups.main(["--data", str(tmp_path), "--output_dir", str(tmp_path / "out")])


def worded(shortcut: float) -> tuple[Material, dict[str, np.ndarray], np.ndarray]:
    """As [`made`]; the number from all inputs also follows the words, and a third of the clips has none."""
    material, predictions, _ = made(0.0)
    predictions[1] = predictions[0]  # two seeds that differ would widen every interval
    valence = np.random.default_rng(1).uniform(0.2, 0.8, len(material.table))
    pulled = predictions.copy()
    pulled[..., 0] += shortcut * (valence - 0.5)
    valence[::3] = np.nan
    return material, {"all": pulled, "sound": predictions}, valence


def test_a_pull_of_the_words_is_found():
    material, predictions, valence = worded(1.0)
    valence[material.table["corpus"] == "b"] = 0.4
    rows = {row["name"]: row for row in groups.rows_of_words(material, predictions, valence)}
    known = ~np.isnan(valence) & (material.table["corpus"] == "a").to_numpy()
    assert rows["a/words/clips"]["value"] == known.sum() > 100
    for what, numbers in {**predictions, "labels": material.clips.labels[None]}.items():
        for d, label in enumerate(LABELS):
            expected = np.mean([np.corrcoef(of_seed[known, d], valence[known])[0, 1] for of_seed in numbers])
            row = rows[f"a/words/{what}/{label}_r"]
            assert row["value"] == pytest.approx(expected, abs=1e-6) and row["low"] < row["value"] < row["high"]
    pull = rows["a/words/all_minus_labels/valence_r"]
    both = rows["a/words/all/valence_r"], rows["a/words/labels/valence_r"]
    assert pull["value"] == pytest.approx(both[0]["value"] - both[1]["value"]) and pull["low"] > 0.3
    for name in ("all_minus_labels/arousal_r", "sound_minus_labels/valence_r"):
        assert rows[f"a/words/{name}"]["low"] < 0.1 and abs(rows[f"a/words/{name}"]["value"]) < 0.1
    # Paired: what words and labels share by chance does not widen it.
    paired = rows["a/words/sound_minus_labels/valence_r"]
    assert paired["high"] - paired["low"] < 0.5 * (both[1]["high"] - both[1]["low"])
    # One sentence, or few clips, tell nothing.
    assert {name for name in rows if name.startswith("b/")} <= {"b/words/clips"}


def test_a_number_without_spread_has_no_correlation():
    material, predictions, valence = worded(0.0)
    predictions["sound"][..., 1] = np.float32(0.1)
    names = {row["name"] for row in groups.rows_of_words(material, predictions, valence)}
    assert "a/words/sound/arousal_r" not in names and "a/words/sound/valence_r" in names
    assert "a/words/sound_minus_labels/arousal_r" not in names and "a/words/labels/arousal_r" in names


def test_the_valence_of_words_is_that_of_the_text_branch(monkeypatch):
    model, processor = tiny_model(), tiny_processor()
    monkeypatch.setattr(groups, "fitted_starter", lambda starter: model)
    monkeypatch.setattr(groups, "starter_processor", lambda: processor)
    found = groups.valence_of_words(["the food was wonderful", None, "dreadful", ""])
    assert np.isnan(found).tolist() == [False, True, False, True]
    for place, text in ((0, "the food was wonderful"), (2, "dreadful")):
        with torch.no_grad():
            expected = model(**processor(transcript=text)).logits[0, 0].item()
        assert found[place] == pytest.approx(expected, abs=1e-5)
