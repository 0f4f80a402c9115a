"""What must hold for all numbers, not for examples: CCC, the processor, windows and emphasis."""

import numpy as np
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from tiny import noise

from msfser import MsfSerFeatureExtractor
from msfser.audio_msfser import cut_at_pauses, load_audio, read_blocks
from msfser.emphasis_msfser import EMPHASIS, LEVEL_HOP, PITCH_HOP, Prosody, find_emphasis
from msfser.loss_msfser import ccc_loss, concordance

RATE = 16_000

# The same examples each time, and none is kept on the disk.
settings.register_profile(
    "sure",
    derandomize=True,
    database=None,
    deadline=None,
    max_examples=60,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("sure")

in_0_to_1 = st.floats(0, 1, width=32)


def seeds() -> st.SearchStrategy[int]:
    return st.integers(0, 2**32 - 1)


@st.composite
def scored(draw) -> tuple[torch.Tensor, torch.Tensor]:
    """Predictions and labels of one dimension, `(items,)` float64, neither of them nearly constant."""
    items = draw(st.integers(2, 40))
    both = draw(arrays.arrays(np.float64, (2, items), elements=in_0_to_1))
    assume(both.std(axis=1).min() > 1e-3)
    return torch.from_numpy(both[0]), torch.from_numpy(both[1])


# CCC


@given(scored())
def test_ccc_is_bounded_and_no_larger_than_the_correlation(pair):
    p, y = pair
    ccc = concordance(p, y).item()
    correlation = torch.corrcoef(torch.stack([p, y]))[0, 1].item()
    assert abs(ccc) <= abs(correlation) + 1e-9 <= 1 + 2e-9
    assert ccc * correlation >= -1e-12


@given(scored())
def test_ccc_is_symmetric(pair):
    p, y = pair
    assert abs(concordance(p, y) - concordance(y, p)) < 1e-12
    assert abs(concordance(p, p) - 1) < 1e-12


@given(scored(), st.floats(0.1, 10), st.booleans(), st.floats(-10, 10))
def test_ccc_does_not_change_under_a_common_affine_map(pair, factor, is_mirrored, shift):
    p, y = pair
    factor = -factor if is_mirrored else factor
    assert abs(concordance(factor * p + shift, factor * y + shift) - concordance(p, y)) < 1e-6


@given(scored(), seeds())
def test_ccc_does_not_depend_on_the_order_of_the_items(pair, seed):
    p, y = pair
    order = torch.randperm(len(p), generator=torch.Generator().manual_seed(seed % 2**31))
    assert abs(concordance(p[order], y[order]) - concordance(p, y)) < 1e-12


@given(arrays.arrays(np.float32, (2, 8, 3), elements=in_0_to_1))
def test_the_loss_is_finite_and_within_its_bounds(both):
    loss = ccc_loss(*torch.from_numpy(both)).item()
    assert -1e-5 <= loss <= 6 + 1e-5


# Processor


def features(kind: str, sound: np.ndarray, rate: int = RATE, **more: bool) -> np.ndarray:
    options = {"kind": "waveform"} if kind == "waveform" else {"kind": "log_mel", "feature_size": 80}
    extractor = MsfSerFeatureExtractor(**options)
    return extractor(sound, rate, **more)[extractor.model_input_names[0]][0]


@given(st.floats(0.1, 5.0), st.floats(0.5, 2.0), seeds())
def test_the_gain_of_a_recording_does_not_reach_a_normalized_waveform(gain, seconds, seed):
    sound = noise(seconds, seed)
    # All that is left of the gain is the 1e-7 that is added to the variance.
    variance = sound.astype(np.float64).var()
    left = np.sqrt((variance + 1e-7) / (variance + 1e-7 / gain**2))
    np.testing.assert_allclose(features("waveform", gain * sound), left * features("waveform", sound), atol=1e-5)


@given(st.floats(0.1, 5.0), st.floats(0.5, 2.0), seeds())
def test_the_gain_of_a_recording_moves_all_mel_bands_alike(gain, seconds, seed):
    sound = noise(seconds, seed)
    moved = features("log_mel", gain * sound) - features("log_mel", sound)
    np.testing.assert_allclose(moved, 2 * np.log10(gain) / 4, atol=1e-3)


@given(st.integers(2, 8), st.sampled_from([8_000, RATE, 44_100]), st.sampled_from(["waveform", "log_mel"]), seeds())
def test_the_order_of_the_channels_changes_nothing(channels, rate, kind, seed):
    draw = np.random.default_rng(seed)
    sound = (draw.standard_normal((rate // 2, channels)) * 0.1).astype(np.float32)
    expected = features(kind, sound, rate, channels_first=False)
    other = sound[:, draw.permutation(channels)]
    np.testing.assert_allclose(features(kind, other, rate, channels_first=False), expected, atol=1e-3)
    np.testing.assert_array_equal(features(kind, sound.T, rate, channels_first=True), expected)


@given(st.integers(0, 100), seeds())
def test_leading_silence_moves_the_frames_and_changes_no_other(frames, seed):
    sound = noise(1.0, seed)
    later = np.concatenate([np.zeros(160 * frames, np.float32), sound])
    expected, moved = features("log_mel", sound), features("log_mel", later)
    assert len(moved) == len(expected) + frames
    # The first windows see the edge.
    np.testing.assert_allclose(moved[frames + 2 :], expected[2:], atol=1e-4)
    if frames > 2:
        np.testing.assert_allclose(moved[: frames - 2], moved.min(), atol=1e-5)


# Windows


@given(st.data(), st.integers(1, 20 * RATE), st.floats(0.3, 6.0), seeds())
def test_any_length_is_covered_exactly(data, length, max_seconds, seed):
    sound = noise(length / RATE + 0.01, seed)[:length]
    for _ in range(data.draw(st.integers(0, 5))):
        start = data.draw(st.integers(0, length - 1))
        sound[start : start + data.draw(st.integers(1, RATE))] = 0
    cuts = sorted(data.draw(st.lists(st.integers(0, length), max_size=8)))
    segments = list(cut_at_pauses(np.split(sound, cuts), max_seconds))
    np.testing.assert_array_equal(np.concatenate(segments), sound)
    longest = int(max_seconds * RATE)
    assert all(0 < len(segment) <= longest for segment in segments)
    assert len(segments) <= 1 + length // (2 * longest // 3 - 1)


@given(st.integers(1, 3 * RATE), st.sampled_from([8_000, RATE, 22_050, 48_000]), seeds())
def test_blocks_of_any_length_are_the_sound(length, rate, seed):
    sound = noise(length / RATE + 0.01, seed)[:length]
    np.testing.assert_array_equal(np.concatenate(list(read_blocks(sound, rate))), load_audio(sound, rate))


# Emphasis


@given(
    st.lists(st.tuples(st.floats(0, 4.5), st.floats(0.01, 0.5)), min_size=1, max_size=12),
    st.sampled_from(list(EMPHASIS)),
    st.floats(0, 1),
    seeds(),
)
def test_a_permutation_of_the_words_permutes_their_scores(times, setting, voiced, seed):
    draw = np.random.default_rng(seed)
    words = [{"word": f"w{i}", "start": start, "end": start + long} for i, (start, long) in enumerate(times)]
    pitch_times = np.arange(0, 5, PITCH_HOP)
    pitch = np.where(draw.random(len(pitch_times)) < voiced, draw.uniform(80, 400, len(pitch_times)), np.nan)
    prosody = Prosody(pitch_times, pitch, draw.uniform(-60, 0, int(5 / LEVEL_HOP)))
    order = draw.permutation(len(words))
    scores = find_emphasis(words, prosody, EMPHASIS[setting]).scores
    permuted = find_emphasis([words[i] for i in order], prosody, EMPHASIS[setting]).scores
    np.testing.assert_allclose(permuted, scores[order], atol=1e-9)
    assert abs(scores.mean()) < 1e-9
