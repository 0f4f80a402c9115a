"""What can be measured in a voice, frame by frame: pitch and level.

Pitch comes from SwiftF0 (L. Nieradzik, 2025; package `swift-f0`, MIT), a small convolutional network. It was chosen by
measurement (`python -m msfser.benchmarks.pitch`): on synthetic glides of 70-500 Hz it makes no gross error down to a
signal-to-noise ratio of 0 dB, at 5 ms per second of sound.
"""

import functools
from dataclasses import dataclass

import numpy as np

from .audio_msfser import SAMPLING_RATE

try:
    import swift_f0
except ImportError:  # the model runs without it; measuring pitch does not
    swift_f0 = None

LOWEST_PITCH, HIGHEST_PITCH = 65.0, 520.0
LEVEL_HOP, PITCH_HOP = 0.010, 0.016
_LEVEL_WINDOW = 400
_LOWEST_LEVEL = -100.0
_VOICED = 0.5


@dataclass(frozen=True)
class Prosody:
    """Pitch and level of one sound over time.

    Args:
        pitch_times: `(pitch frames,)`, the frames' centres in seconds, `PITCH_HOP` apart.
        pitch: `(pitch frames,)`, fundamental frequency in Hz (65..520), NaN where the sound is not voiced.
        level: `(level frames,)`, root mean square over 25 ms in dB of full scale, -100 or more; frame `i` has its
            centre at `i * LEVEL_HOP` seconds.
    """

    pitch_times: np.ndarray
    pitch: np.ndarray
    level: np.ndarray

    @property
    def level_times(self) -> np.ndarray:
        """`(level frames,)`, the centres of the level frames in seconds."""
        return np.arange(len(self.level)) * LEVEL_HOP


def measure_prosody(sound: np.ndarray) -> Prosody:
    """Measures pitch and level.

    Args:
        sound: `(samples,)`, mono float32 at 16 kHz.

    Raises:
        ImportError: swift-f0 is not installed.
    """
    found = _pitch_detector().detect(sound, SAMPLING_RATE, LOWEST_PITCH, HIGHEST_PITCH)
    pitch = np.where(found.confidence >= _VOICED, found.pitch_hz, np.nan)
    return Prosody(found.timestamps, pitch, _level(sound))


def _level(sound: np.ndarray) -> np.ndarray:
    hop = round(LEVEL_HOP * SAMPLING_RATE)
    frames = len(sound) // hop + 1
    padded = np.pad(sound.astype(np.float64), (_LEVEL_WINDOW // 2, _LEVEL_WINDOW // 2 + hop))
    power = np.concatenate([[0.0], np.cumsum(padded**2)])
    starts = np.arange(frames) * hop
    mean = (power[starts + _LEVEL_WINDOW] - power[starts]) / _LEVEL_WINDOW
    return 10 * np.log10(np.maximum(mean, 10 ** (_LOWEST_LEVEL / 10)))


@functools.cache
def _pitch_detector() -> "swift_f0.SwiftF0":
    if swift_f0 is None:
        raise ImportError("pitch cannot be measured without swift-f0: pip install swift-f0.")
    # One thread that does not wait in a loop: many processes may do this at once.
    return swift_f0.SwiftF0(threads=1, spin=False)
