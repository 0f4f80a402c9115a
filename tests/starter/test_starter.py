"""The starter: its weights are small, and the assembled folder loads like any other."""

import re

import numpy as np
import pytest
import soundfile
import torch
from published import MINILM, WHISPER, missing
from tiny import noise
from transformers import AutoModel, AutoProcessor, pipeline

from msfser.evaluation.results import RESULTS, read
from msfser.hub import publish
from msfser.starter import assemble as starter

RATE = 16_000


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    if reason := missing(WHISPER, MINILM):
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("starter")
    starter.main([str(folder)])
    return folder


@pytest.fixture(scope="module")
def answer(folder):
    model = AutoModel.from_pretrained(folder, trust_remote_code=True)
    processor = AutoProcessor.from_pretrained(folder, trust_remote_code=True)

    def answer(samples: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return model(**processor(samples, sampling_rate=RATE)).logits[0].numpy()

    return answer


def speech(seconds: float = 2.0) -> np.ndarray:
    """A buzz that gets louder and softer three times a second: similar enough to speech for a test of gain."""
    time = np.arange(int(seconds * RATE)) / RATE
    return (0.2 * np.sin(3 * np.pi * time) ** 2 * np.sign(np.sin(2 * np.pi * 140 * time))).astype(np.float32)


def test_the_fitted_weights_are_small():
    assert (starter.FOLDER / starter.WEIGHTS).stat().st_size <= 5_000_000


def test_gain_changes_nothing(answer):
    for sound in (speech(), speech() + 0.1 * noise(2.0)):
        for decibels in (-12, 12):
            moved = answer(sound * np.float32(10 ** (decibels / 20)))
            assert np.abs(moved - answer(sound)).max() < 0.01


def test_silence_is_near_neutral(answer):
    assert np.abs(answer(np.zeros(2 * RATE, np.float32)) - 0.5).max() < 0.1


def test_the_pipeline_loads_it(folder):
    ser = pipeline("audio-classification", model=str(folder), trust_remote_code=True)
    result = ser({"array": speech(), "sampling_rate": RATE})
    assert all(0 < result[name] < 1 for name in ("valence", "arousal", "dominance"))
    assert result["transcript"] is None
    long = ser({"array": np.tile(speech(), 10), "sampling_rate": RATE})
    assert len(long["course"]) >= 2


def test_the_card_comes_along(folder):
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert card.startswith("---\nlicense: cc-by-nc-sa-4.0\n") and "weak" in card


def test_the_snippet_of_the_card_runs(folder, tmp_path, monkeypatch, capsys):
    card = (folder / "README.md").read_text(encoding="utf-8")
    snippet = re.search(r"<!-- snippet: starter -->\n```python\n(.*?)```", card, re.DOTALL)[1]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "outputs").mkdir()
    (tmp_path / "outputs" / "starter").symlink_to(folder)
    soundfile.write("speech.wav", speech(), RATE)
    exec(compile(snippet, "starter/README.md", "exec"), {"__name__": "snippet"})
    printed = capsys.readouterr().out
    assert all(name in printed for name in ("valence", "arousal", "dominance"))


def test_it_is_published_with_its_own_card(folder, capsys):
    publish.main([str(folder), "someone/starter", "--dry_run"])
    shown = capsys.readouterr().out
    assert "model.safetensors" in shown and "modeling_msfser.py" in shown
    assert 'from_pretrained("someone/starter", revision="v1", trust_remote_code=True)' in shown
    assert "license: cc-by-nc-sa-4.0" in shown and 'outputs/starter"' not in shown


def test_weights_that_do_not_fit_are_refused(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(starter, "SWITCHES", {**starter.SWITCHES, "fusion_size": 64})
    with pytest.raises(SystemExit, match="does not fit this version"):
        starter.main([str(tmp_path / "out")])
    monkeypatch.setattr(starter, "FOLDER", tmp_path)
    with pytest.raises(SystemExit, match=r"^msfser starter: error: .*model\.safetensors is missing: "):
        starter.main([str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()


def test_the_figures_keep_what_the_starter_promises():
    value = {name: row["value"] for name, row in read(RESULTS / "starter.json").items()}
    assert value["gain/max_shift"] <= 0.05
    assert value["silence/distance_from_neutral"] <= 0.1
    assert min(value[f"{kind}/arousal_r"] for kind in ("noise", "band", "crop")) >= 0.9
