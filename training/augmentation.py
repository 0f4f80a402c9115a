"""Distortions of speech: other rooms, microphones and telephone lines.

Each distortion maps mono float32 samples at 16 kHz, `(samples,)`, and a random generator to samples of the same kind.
Levels are relative to the undistorted speech. Raise `FEATURES_VERSION` in `features.py` when a distortion changes.
"""

import io
from collections.abc import Callable, Sequence

import numpy as np
import soundfile
import soxr

from ..audio_msfser import SAMPLING_RATE
from ..levels_msfser import loud_level

Distortion = Callable[[np.ndarray, np.random.Generator], np.ndarray]

TELEPHONE_RATE = 8_000


def nothing(samples: np.ndarray, draw: np.random.Generator) -> np.ndarray:
    """Unchanged."""
    return samples


def gain(samples: np.ndarray, draw: np.random.Generator) -> np.ndarray:
    """Up to 12 dB softer or louder."""
    return samples * np.float32(10 ** (draw.uniform(-12, 12) / 20))


def speed(samples: np.ndarray, draw: np.random.Generator) -> np.ndarray:
    """Up to 10 % slower or faster; pitch and formants move along."""
    factor = draw.uniform(0.9, 1.1)
    return soxr.resample(samples, round(factor * SAMPLING_RATE), SAMPLING_RATE)


def pitch(samples: np.ndarray, draw: np.random.Generator) -> np.ndarray:
    """Up to two semitones lower or higher at the same speed: resampled, then brought back to its length."""
    factor = 2 ** (draw.uniform(-2, 2) / 12)
    moved = soxr.resample(samples, round(factor * SAMPLING_RATE), SAMPLING_RATE)
    return _stretched(moved, len(samples))


def noise(samples: np.ndarray, draw: np.random.Generator, snr: float | None = None) -> np.ndarray:
    """Noise with a spectrum that falls by 0 to 6 dB an octave.

    Args:
        samples: Speech.
        draw: Generator.
        snr: Decibels of the speech above it; 5 to 30 drawn without it.
    """
    snr = draw.uniform(5, 30) if snr is None else snr
    spectrum = np.fft.rfft(draw.standard_normal(len(samples)))
    spectrum /= np.maximum(np.arange(len(spectrum)), 1) ** draw.uniform(0, 1)
    added = np.fft.irfft(spectrum, len(samples))
    added *= loud_level(samples) / max(loud_level(added), 1e-9) * 10 ** (-snr / 20)
    return (samples + added).astype(np.float32)


def codec(samples: np.ndarray, draw: np.random.Generator) -> np.ndarray:
    """Through MP3 or Vorbis at a low rate."""
    kind, subtype = (("MP3", "MPEG_LAYER_III"), ("OGG", "VORBIS"))[draw.integers(2)]
    file = io.BytesIO()
    peak = max(1.0, float(np.abs(samples).max()))
    # libsndfile refuses some levels just below 1.
    level = min(draw.uniform(0.7, 1.0), 0.99)
    with soundfile.SoundFile(
        file, "w", SAMPLING_RATE, 1, format=kind, subtype=subtype, compression_level=level
    ) as sound:
        sound.write(samples / peak)
    file.seek(0)
    return soundfile.read(file, dtype="float32")[0][: len(samples)] * np.float32(peak)


def telephone(samples: np.ndarray, draw: np.random.Generator) -> np.ndarray:
    """The band of a telephone, 300 to 3400 Hz at 8 kHz."""
    narrow = soxr.resample(soxr.resample(samples, SAMPLING_RATE, TELEPHONE_RATE), TELEPHONE_RATE, SAMPLING_RATE)
    spectrum = np.fft.rfft(narrow)
    hertz = np.fft.rfftfreq(len(narrow), 1 / SAMPLING_RATE)
    spectrum *= 1 / np.sqrt(1 + (300 / np.maximum(hertz, 1)) ** 8) / np.sqrt(1 + (hertz / 3400) ** 16)
    return np.fft.irfft(spectrum, len(narrow)).astype(np.float32)


def room(samples: np.ndarray, draw: np.random.Generator) -> np.ndarray:
    """Reverberation: the direct sound, then noise that decays by 60 dB within 0.1 to 0.6 s."""
    seconds = draw.uniform(0.1, 0.6)
    tail = draw.standard_normal(int(seconds * SAMPLING_RATE))
    tail *= 10 ** (-3 * np.arange(len(tail)) / len(tail))
    tail *= 10 ** (draw.uniform(-15, 0) / 20) / np.linalg.norm(tail)
    tail[0] += 1
    size = len(samples) + len(tail)
    return np.fft.irfft(np.fft.rfft(samples, size) * np.fft.rfft(tail, size), size)[: len(samples)].astype(np.float32)


def crop(samples: np.ndarray, draw: np.random.Generator, seconds: float = 2.0) -> np.ndarray:
    """A random part around the middle, or all of a shorter sound."""
    wanted = int(seconds * SAMPLING_RATE)
    spare = len(samples) - wanted
    start = int(draw.uniform(0.25, 0.75) * spare) if spare > 0 else 0
    return samples[start : start + wanted]


ALL: Sequence[tuple[Distortion, float]] = (
    (gain, 1.0),
    (speed, 0.5),
    (pitch, 0.3),
    (room, 0.4),
    (noise, 0.6),
    (telephone, 0.25),
    (codec, 0.3),
)


def augment(samples: np.ndarray, draw: np.random.Generator) -> np.ndarray:
    """A random choice of all distortions, in the order of a recording: voice, room, noise, line."""
    for distortion, share in ALL:
        if draw.random() < share:
            samples = distortion(samples, draw)
    return samples


def _stretched(samples: np.ndarray, length: int) -> np.ndarray:
    """Brings sound to another length at the same pitch by overlapping windows, each shifted to fit the last.

    This is the synchronized overlap-add of W. Verhelst and M. Roelands (ICASSP 1993).
    """
    window, hop, reach = 800, 400, 160
    shape = np.hanning(window + 1)[:window].astype(np.float32)
    ratio = len(samples) / length
    padded = np.pad(samples, (reach, window + 2 * reach))
    output = np.zeros(length + window, np.float32)
    expected = padded[reach : reach + window]
    for position in range(0, length, hop):
        around = reach + int(position * ratio)
        candidates = np.lib.stride_tricks.sliding_window_view(padded[around - reach : around + reach + window], window)
        start = around - reach + int(np.argmax(candidates[::4] @ expected)) * 4
        output[position : position + window] += shape * padded[start : start + window]
        following = padded[start + hop : start + hop + window]
        expected = np.pad(following, (0, window - len(following)))
    return output[:length]
