"""Distortions of speech: what each changes and what it leaves."""

import numpy as np
import pytest
from tiny import noise

from msfser.emphasis_msfser import measure_prosody
from msfser.training import augmentation

RATE = 16_000


def tone(hertz: float, seconds: float = 1.0) -> np.ndarray:
    time = np.arange(int(seconds * RATE)) / RATE
    return sum(0.1 * np.sin(2 * np.pi * hertz * k * time) / k for k in range(1, 8)).astype(np.float32)


def level(samples: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(samples, dtype=np.float64))))


@pytest.mark.parametrize(
    "distortion", [one for one, _ in augmentation.ALL] + [augmentation.crop, augmentation.augment]
)
def test_the_result_is_sound_and_the_same_draw_gives_the_same(distortion):
    sound = noise(1.3) + tone(150, 1.3)
    one, two = (distortion(sound, np.random.default_rng(3)) for _ in range(2))
    assert one.dtype == np.float32 and one.ndim == 1 and np.isfinite(one).all()
    np.testing.assert_array_equal(one, two)
    assert len(one) == pytest.approx(len(sound), rel=0.11)


@pytest.mark.parametrize("snr", [0.0, 10.0, 20.0])
def test_noise_has_the_given_level(snr):
    sound = tone(200)
    added = augmentation.noise(sound, np.random.default_rng(0), snr=snr) - sound
    assert 20 * np.log10(level(sound) / level(added)) == pytest.approx(snr, abs=1.0)


def test_pitch_moves_and_the_length_stays():
    sound = tone(200)
    for seed in range(6):
        factor = 2 ** (np.random.default_rng(seed).uniform(-2, 2) / 12)
        moved = augmentation.pitch(sound, np.random.default_rng(seed))
        assert len(moved) == len(sound)
        pitch = measure_prosody(moved).pitch
        assert np.nanmedian(pitch) == pytest.approx(200 * factor, rel=0.03)


@pytest.mark.parametrize("length", [13_000, 19_000])
@pytest.mark.parametrize("hertz", [150, 200, 333])
def test_a_stretched_tone_stays_pure(hertz, length):
    """Windows that do not fit together would change its level or add other frequencies."""
    sound = (0.5 * np.sin(2 * np.pi * hertz * np.arange(RATE) / RATE)).astype(np.float32)
    inner = augmentation._stretched(sound, length)[1000:-1000]
    power = np.abs(np.fft.rfft(inner * np.hanning(len(inner)))) ** 2
    near = np.abs(np.fft.rfftfreq(len(inner), 1 / RATE) - hertz) < 15
    assert power[near].sum() / power.sum() > 0.999
    assert level(inner) == pytest.approx(level(sound), rel=0.01)


def test_a_telephone_keeps_its_band_only():
    for hertz, kept in ((60, 0.05), (1000, 1.0), (5000, 0.02)):
        time = np.arange(RATE) / RATE
        sound = (0.3 * np.sin(2 * np.pi * hertz * time)).astype(np.float32)
        distorted = augmentation.telephone(sound, np.random.default_rng(0))
        assert level(distorted) / level(sound) == pytest.approx(kept, abs=0.1)


def test_a_room_rings_on():
    click = np.zeros(RATE, np.float32)
    click[100] = 1
    distorted = augmentation.room(click, np.random.default_rng(0))
    assert distorted[100] == pytest.approx(1, abs=0.5)
    assert np.abs(distorted[1000:1500]).max() > 1e-4
    assert np.abs(distorted[:100]).max() < 1e-4


def test_a_crop_lies_in_the_middle_half():
    sound = np.arange(6 * RATE, dtype=np.float32)
    starts = [augmentation.crop(sound, np.random.default_rng(seed))[0] / (4 * RATE) for seed in range(300)]
    assert 0.25 <= min(starts) < 0.27 and 0.73 < max(starts) <= 0.75


def test_each_distortion_has_its_share_and_the_order_is_that_of_a_recording(monkeypatch):
    applied = []

    def noted(name):
        return lambda samples, draw: applied.append(name) or samples

    monkeypatch.setattr(augmentation, "ALL", [(noted(one.__name__), share) for one, share in augmentation.ALL])
    draw, counts, expected = np.random.default_rng(0), {}, {}
    for _ in range(2000):
        applied.clear()
        augmentation.augment(np.zeros(1, np.float32), draw)
        order = ("gain", "speed", "pitch", "room", "noise", "telephone", "codec")
        assert applied == [name for name in order if name in applied]
        counts = {name: counts.get(name, 0) + (name in applied) for name in order}
    expected = {"gain": 1, "speed": 0.5, "pitch": 0.3, "room": 0.4, "noise": 0.6, "telephone": 0.25, "codec": 0.3}
    assert {name: count / 2000 for name, count in counts.items()} == pytest.approx(expected, abs=0.04)


def test_a_crop_of_what_is_shorter_is_all_of_it():
    assert len(augmentation.crop(noise(3.0), np.random.default_rng(0))) == 2 * RATE
    assert len(augmentation.crop(noise(1.0), np.random.default_rng(0))) == RATE
