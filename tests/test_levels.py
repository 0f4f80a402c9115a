import numpy as np
import pytest

from msfser.levels_msfser import at_reference_level, loud_level


@pytest.mark.parametrize("below", [20, 30, 39, 41, 60, 200])
def test_what_is_around_speech_does_not_change_its_level(below):
    """A second of speech in half a minute of background so many dB below it."""
    draw = np.random.default_rng(0)
    speech = np.float32(0.1) * draw.standard_normal(16_000).astype(np.float32)
    background = np.float32(0.1 * 10 ** (-below / 20)) * draw.standard_normal(29 * 16_000).astype(np.float32)
    level = loud_level(np.concatenate([background[:8_000], speech, background[8_000:]]))
    assert level == pytest.approx(loud_level(speech), rel=0.05) == pytest.approx(0.1, rel=0.1)


def test_a_knock_does_not_change_the_level_of_quiet_speech():
    sound = np.float32(0.004) * np.random.default_rng(0).standard_normal(160_000).astype(np.float32)
    expected = loud_level(sound)
    sound[50_000:50_800] += 0.5
    assert loud_level(sound) == pytest.approx(expected, rel=0.05)


def test_only_sound_is_brought_to_one_level():
    draw = np.random.default_rng(0)
    for silence in (
        np.zeros(100, np.float32),
        np.zeros(0, np.float32),
        np.float32(2e-4) * draw.standard_normal(16_000),
    ):
        assert at_reference_level(silence) is silence
    sound = np.float32(0.2) * np.random.default_rng(0).standard_normal(16_000).astype(np.float32)
    np.testing.assert_allclose(at_reference_level(sound), at_reference_level(np.float32(0.01) * sound), rtol=1e-5)
    assert loud_level(at_reference_level(sound)) == pytest.approx(0.05)
    assert len(at_reference_level(sound[:1])) == 1
