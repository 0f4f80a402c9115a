import numpy as np
import pytest
from glides import GLIDES, GROSS, glide
from tiny import noise

from msfser import emphasis_msfser
from msfser.audio_msfser import SAMPLING_RATE
from msfser.emphasis_msfser import HIGHEST_PITCH, LEVEL_HOP, LOWEST_PITCH, measure_pitch, measure_prosody
from msfser.levels_msfser import at_reference_level


@pytest.mark.parametrize("kind", ["tone", "vowel"])
@pytest.mark.parametrize(("low", "high"), GLIDES)
@pytest.mark.parametrize("ratio", [20, 5])
def test_fewer_than_5_percent_of_the_frames_of_a_glide_are_grossly_wrong(low, high, ratio, kind):
    sound, truth = glide(low, high, ratio, kind)
    prosody = measure_prosody(sound)
    inside = (prosody.pitch_times > 0.05) & (prosody.pitch_times < 1.95)
    expected = truth[np.round(prosody.pitch_times[inside] * 16_000).astype(int)]
    pitch = prosody.pitch[inside]
    assert np.isfinite(pitch).mean() > 0.95
    assert (np.abs(pitch / expected - 1) > GROSS).mean() < 0.05


@pytest.mark.parametrize("gain", [0.02, 10])
def test_gain_changes_no_pitch(gain):
    sound, _ = glide(90, 250, 3, "vowel")
    expected, found = (measure_prosody(np.float32(factor) * sound).pitch for factor in (1, gain))
    assert 0.5 < np.isfinite(expected).mean() < 1
    np.testing.assert_allclose(found, expected, rtol=1e-3)


def test_silence_has_no_pitch_and_the_lowest_level():
    prosody = measure_prosody(np.zeros(16_000, np.float32))
    assert not np.isfinite(prosody.pitch).any()
    assert (prosody.level == -100).all()


def test_noise_is_hardly_voiced():
    assert np.isfinite(measure_prosody(noise(2.0)).pitch).mean() < 0.1


def test_level_is_in_db_of_full_scale_at_its_time():
    sound = np.zeros(16_000, np.float32)
    sound[8_000:] = 0.1  # -20 dB from 0.5 s on
    prosody = measure_prosody(sound)
    assert prosody.level[60] == pytest.approx(-20, abs=0.01)
    assert prosody.level[45] == -100
    assert prosody.level_times[60] == pytest.approx(60 * LEVEL_HOP)


@pytest.mark.parametrize("samples", [100, 64_000, 64_001, 150_000])
def test_the_pitch_of_a_long_sound_is_that_of_the_whole(samples):
    sound = np.tile(glide(90, 250, 20, "vowel")[0], 5)[:samples]
    found = measure_pitch(sound)
    detector = emphasis_msfser._pitch_detector()
    expected = detector.detect(at_reference_level(sound), SAMPLING_RATE, LOWEST_PITCH, HIGHEST_PITCH)
    np.testing.assert_array_equal(found.times, expected.timestamps)
    voiced = expected.confidence >= 0.5
    np.testing.assert_array_equal(np.isfinite(found.hertz), voiced)
    np.testing.assert_allclose(found.hertz[voiced], expected.pitch_hz[voiced], rtol=1e-9)


def test_an_empty_sound_has_no_pitch_to_measure():
    with pytest.raises(ValueError, match="empty"):
        measure_pitch(np.zeros(0, np.float32))


@pytest.mark.parametrize("samples", [1, 10, 400, 8_000])
def test_short_sounds_have_frames(samples):
    prosody = measure_prosody(noise(1.0)[:samples])
    assert len(prosody.pitch) == len(prosody.pitch_times) >= 1
    assert len(prosody.level) >= 1


def test_without_the_package_the_sentence_says_what_to_install(monkeypatch):
    monkeypatch.setattr(emphasis_msfser, "swift_f0", None)
    emphasis_msfser._pitch_detector.cache_clear()
    with pytest.raises(ImportError, match="pip install swift-f0"):
        measure_prosody(noise(0.5))
    emphasis_msfser._pitch_detector.cache_clear()
