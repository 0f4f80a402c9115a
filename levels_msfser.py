"""Levels of sound, and sound at one level."""

import numpy as np

from .audio_msfser import SAMPLING_RATE

# Levels are compared in frames of 25 ms. The loud ones are a twentieth of them, but no more than seven: a knock has
# fewer, and a word has more.
_FRAME, _LOUD_SHARE, _LOUD_FRAMES = SAMPLING_RATE // 40, 0.05, 7
# The level to which the loud frames are brought, of full scale 1; sound below -70 dB stays as it is.
_REFERENCE_LEVEL, _SILENCE = 0.05, 10 ** (-70 / 20)


def decibels(power: np.ndarray) -> np.ndarray:
    """Power in dB; of samples, in dB of full scale. Silence has -120 dB."""
    in_decibels: np.ndarray = 10 * np.log10(power + 1e-12)
    return in_decibels


def frame_levels(frames: np.ndarray) -> np.ndarray:
    """The level of each frame in dB of full scale: `(frames, samples)` -> `(frames,)`, float64, -120 or more."""
    return decibels(_power(frames))


def loud_level(samples: np.ndarray) -> float:
    """The level of the loud parts of `(samples,)`, however much silence or background is around them.

    Of the root mean squares of 25 ms frames, the 95th percentile, and in sounds of more than 3.5 s the 8th highest.
    """
    whole = max(1, len(samples) // _FRAME)
    frames = samples[: whole * _FRAME].reshape(whole, -1)
    if not frames.size:
        return 0.0
    louder = min(_LOUD_SHARE * (whole - 1), _LOUD_FRAMES)
    return float(np.interp(whole - 1 - louder, np.arange(whole), np.sort(np.sqrt(_power(frames)))))


def at_reference_level(samples: np.ndarray) -> np.ndarray:
    """The sound `(samples,)` with its loud parts at one level, so that gain has no effect.

    Speech encoder, recognizer and pitch tracker each bring to it what they get: a sound that is cut to
    `max_seconds`, a piece of at most 30 s, and the whole sound.
    """
    return at_level(samples, _REFERENCE_LEVEL)


def at_level(samples: np.ndarray, level: float) -> np.ndarray:
    """The sound `(samples,)` with its loud parts at a level, of full scale 1; silence stays as it is."""
    found = loud_level(samples)
    return samples if found < _SILENCE else samples * np.float32(level / found)


def _power(frames: np.ndarray) -> np.ndarray:
    power: np.ndarray = np.square(frames, dtype=np.float64).mean(1)
    return power
