"""The baseline on pooled states: what it is given, that it learns and repeats, and what its mix is for."""

import numpy as np
import pytest
import torch
from tiny import noise, tiny_model, tiny_processor
from torch import nn

from msfser.evaluation.regressor import (
    LayerMixRegressor,
    at_one_level,
    fit_regressor,
    pooled,
    pooled_clips,
    predict_pooled,
)
from msfser.loss_msfser import concordance


def informative(layer: int, clips: int = 400) -> tuple[torch.Tensor, torch.Tensor]:
    """Three states, of which one tells the labels."""
    draw = torch.Generator().manual_seed(0)
    labels = torch.rand(clips, 3, generator=draw)
    x = torch.randn(clips, 3, 16, generator=draw)
    x[:, layer, :3] += 6 * (labels - 0.5)
    return x, labels


def test_states_are_pooled_to_mean_and_population_deviation():
    states = torch.randn(4, 7, 5).half()
    mean, deviation = pooled(states).split(5, dim=1)
    np.testing.assert_allclose(mean, states.float().numpy().mean(1), atol=1e-6)
    np.testing.assert_allclose(deviation, states.float().numpy().std(1), atol=1e-6)


def test_one_frame_has_no_deviation():
    assert not pooled(torch.randn(2, 1, 5))[:, 5:].any()


@pytest.mark.parametrize("gain", [0.01, 1.0])
def test_sounds_are_brought_to_one_level_and_cut(gain):
    sound = gain * np.concatenate([np.full(12 * 16_000, 0.3), np.full(16_000, 0.9)]).astype(np.float32)
    made = at_one_level(sound, np.random.default_rng(0))
    assert made.shape == (12 * 16_000,) and made.dtype == np.float32
    assert np.sqrt(np.mean(made**2)) == pytest.approx(0.05, rel=1e-3)


def test_digital_silence_stays_silent():
    assert not at_one_level(np.zeros(1600, np.float32), np.random.default_rng(0)).any()


def test_clips_are_pooled_over_their_own_frames(tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path)
    model, processor = tiny_model("whisper", audio_states="weighted", freeze_audio="all"), tiny_processor("whisper")
    sounds = [noise(0.7), noise(2.0)]
    found = pooled_clips(sounds, model, processor)
    for sound, of_clip in zip(sounds, found, strict=True):
        inputs = processor.feature_extractor(at_one_level(sound, None), 16_000, return_tensors="pt")
        with torch.inference_mode():
            states, mask = model.encode_audio(**inputs)
        np.testing.assert_allclose(of_clip, pooled(states[0][:, : mask.sum()]), atol=2e-3)


@pytest.mark.parametrize("layer", [0, 2])
def test_the_mix_finds_the_informative_state(layer):
    x, labels = informative(layer)
    model = fit_regressor(x[:300], labels[:300], seed=0, steps=200)
    agreement = concordance(torch.tensor(predict_pooled(model, x[300:])), labels[300:])
    assert agreement.min() > 0.6
    assert model.mix.softmax(0).argmax() == layer and model.mix.softmax(0).max() > 0.5


def test_a_fit_repeats_and_leaves_the_random_numbers_alone():
    x, labels = informative(1, clips=64)
    torch.manual_seed(1)
    first = predict_pooled(fit_regressor(x, labels, seed=3, steps=20), x)
    after = torch.rand(1)
    torch.manual_seed(1)
    assert torch.rand(1) == after
    np.testing.assert_array_equal(predict_pooled(fit_regressor(x, labels, seed=3, steps=20), x), first)
    assert np.abs(predict_pooled(fit_regressor(x, labels, seed=4, steps=20), x) - first).max() > 1e-3


def test_another_regressor_is_fitted_alike():
    """A linear head without a mix, at its own rate."""
    x, labels = informative(1)
    model = fit_regressor(
        x,
        labels,
        seed=0,
        steps=300,
        learning_rate=0.05,
        new=lambda states, size: nn.Sequential(nn.Flatten(), nn.Linear(states * size, 3), nn.Sigmoid()),
    )
    assert concordance(torch.tensor(predict_pooled(model, x)), labels).min() > 0.6


def test_predictions_are_in_the_range_of_the_labels():
    made = LayerMixRegressor(3, 16)(100 * torch.randn(50, 3, 16))
    assert made.shape == (50, 3) and made.min() >= 0 and made.max() <= 1
