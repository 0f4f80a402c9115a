"""Whether a sound says enough for a prediction: seconds of speech, clipping, and a missing upper band.

All is measured on mono sound at 16 kHz, part by part, so that a recording of any length can be measured. The
thresholds were chosen on studio speech in four languages and on distorted copies of it; `docs/predicting.md` has the
rates of false alarms. Speech is found by [`voices_in`] in the sound, and by the recognizer's words.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .audio_msfser import SAMPLING_RATE
from .levels_msfser import decibels, frame_levels
from .speech_presence_msfser import voices_in

# Seconds of speech below which a prediction means little, and nothing.
SHORTEST_SPEECH, LEAST_SPEECH = 1.0, 0.5
# Fewer recognized words than this for each second that is not silent may be hallucinated, as in music: people say two
# to five words a second.
_FEWEST_WORDS = 0.5

_WINDOW, _HOP = 1024, 512
# Frames below this level (dB of full scale), or that far below the loud ones, are silent.
_LOWEST_LEVEL, _SILENT_BELOW_LOUD = -65.0, 40.0
# The upper of two bands is missing if even the frames richest in it have 30 dB less there. Clean speech: -19 dB and
# more; over a telephone: -30 dB and less.
_BANDS = (200.0, 3400.0), (4400.0, 7600.0)
_LEAST_UPPER_BAND, _RICHEST, _LOUD_ENOUGH = -30.0, 0.95, 30.0
# A sound is clipped if this many times as many samples lie around some amplitude (7 %) as between 72 and 86 % of it.
# Clean speech: at most 1.1 in 99 of 100 clips; with its peaks cut to a quarter: at least 1.3, resampled or not.
_LEAST_CLIPPED, _LEAST_SAMPLES, _FEWEST_SAMPLES = 1.25, 5e-4, 20
_LEAST_CLIPPED_SHARE = 0.1
# The level of speech changes more than this from frame to frame, in dB; a tone's does not.
_STEADY, _FEWEST_FRAMES = 3.0, 10
# That of steady noise changes less than this, in dB, from one of the longer frames of the meter to another.
_STEADY_NOISE = 1.5

_TAPER = np.hanning(_WINDOW).astype(np.float32)
_FREQUENCIES = np.fft.rfftfreq(_WINDOW, 1 / SAMPLING_RATE)


class SoundMeter:
    """Measures a sound that is added part by part, of which it keeps two numbers for each 32 ms."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._frames: list[np.ndarray] = []  # (2, frames) each: level, and upper against lower band
        self._speech_seconds = 0.0
        self.has_voices = False  # also those of a crowd
        self._clipped_seconds = 0.0

    def add(self, samples: np.ndarray) -> None:
        """Adds a part, `(samples,)`, not empty and of at most a minute."""
        seconds = len(samples) / SAMPLING_RATE
        self.seconds += seconds
        self._clipped_seconds += seconds * _is_clipped(samples)
        count = max(1, 1 - (_WINDOW - len(samples)) // _HOP)
        padded = np.pad(samples, (0, max(0, (count - 1) * _HOP + _WINDOW - len(samples))))
        frames = np.lib.stride_tricks.sliding_window_view(padded, _WINDOW)[::_HOP][:count]
        power = np.abs(np.fft.rfft(frames * _TAPER)) ** 2
        lower, upper = (power[:, slice(*np.searchsorted(_FREQUENCIES, band))].sum(1) for band in _BANDS)
        level = frame_levels(frames)
        ratio = decibels(upper) - decibels(lower)
        self._frames.append(np.stack((level, ratio)).astype(np.float32))
        voices = voices_in(samples)
        self._speech_seconds += 0.0 if voices.are_crowd else voices.seconds
        self.has_voices = self.has_voices or voices.seconds > 0

    def join(self, other: "SoundMeter") -> None:
        """Adds what another meter has measured of the sound that follows."""
        self.seconds += other.seconds
        self._clipped_seconds += other._clipped_seconds
        self._frames += other._frames
        self._speech_seconds += other._speech_seconds
        self.has_voices = self.has_voices or other.has_voices

    def speech_seconds(self, words: Sequence[Mapping[str, Any]] = (), are_given: bool = False) -> float:
        """Seconds of speech, by the sound and by the words.

        Given words are all that is said. Recognized words count besides the sound if there are enough of them: a
        recognizer finds few words or none in other languages, and some in music. None count in silence and in steady
        noise: a table may have a wrong file, or a file without its sound.

        Args:
            words: With their `start` and `end` in seconds.
            are_given: Whether they were given, not recognized.
        """
        of_sound = 0.0 if are_given else round(self._speech_seconds, 3)
        if not words or self._is_silent_or_steady():
            return of_sound
        of_words = round(float(min(self.seconds, sum(word["end"] - word["start"] for word in words))), 3)
        sounding = _loud(self._measures()[0], _SILENT_BELOW_LOUD).sum() * _HOP / SAMPLING_RATE
        are_enough = are_given or len(words) >= _FEWEST_WORDS * sounding
        return max(of_words, of_sound) if are_enough else of_sound

    def _is_silent_or_steady(self) -> bool:
        """Whether the sound has no loud frame, or is a noise or a tone whose level hardly changes."""
        level = self._measures()[0]
        is_steady = len(level) >= _FEWEST_FRAMES and level.max() - np.quantile(level, 0.1) < _STEADY_NOISE
        return bool(is_steady or not _loud(level, _SILENT_BELOW_LOUD).any())

    def warnings(self, spoken: float) -> list[str]:
        """Why a prediction for this sound may mean little: a sentence each.

        Args:
            spoken: Its seconds of speech.
        """
        found = speech_warnings(spoken)
        if self._clipped_seconds >= _LEAST_CLIPPED_SHARE * self.seconds > 0:
            found.append("The sound is clipped: it was recorded too loud.")
        if spoken > 0 and self._lacks_upper_band():
            found.append("The sound has no upper band (above 4 kHz), as over a telephone.")
        return found

    def _measures(self) -> np.ndarray:
        return np.concatenate(self._frames, axis=1) if self._frames else np.full((2, 1), -np.inf, np.float32)

    def _lacks_upper_band(self) -> bool:
        level, ratio = self._measures()
        loud = _loud(level, _LOUD_ENOUGH)
        return bool(loud.any() and np.quantile(ratio[loud], _RICHEST) < _LEAST_UPPER_BAND)


def speech_warnings(spoken: float) -> list[str]:
    """Why a prediction for so many seconds of speech may mean little, or means nothing: one sentence or none."""
    if spoken <= 0:
        return ["No speech was found."]
    if spoken < LEAST_SPEECH:
        return [f"There is less than {LEAST_SPEECH:g} s of speech ({spoken:.2f} s): the numbers mean nothing."]
    if spoken < SHORTEST_SPEECH:
        return [f"There is less than {SHORTEST_SPEECH:g} s of speech ({spoken:.2f} s)."]
    return []


def measured(samples: np.ndarray) -> SoundMeter:
    """The meter of a whole sound, `(samples,)` at 16 kHz."""
    meter = SoundMeter()
    for start in range(0, len(samples), 30 * SAMPLING_RATE):
        meter.add(samples[start : start + 30 * SAMPLING_RATE])
    return meter


def _loud(level: np.ndarray, below: float) -> np.ndarray:
    """Which frames are at most so many dB below the loud ones, and above the lowest level."""
    return np.asarray(level > max(_LOWEST_LEVEL, float(np.quantile(level, 0.95)) - below))


def _is_steady(samples: np.ndarray) -> bool:
    """Whether the level hardly changes from one 20 ms frame to another, or there are too few frames to tell."""
    whole = len(samples) // (SAMPLING_RATE // 50)
    if whole < _FEWEST_FRAMES:
        return True
    frames = samples[: whole * (SAMPLING_RATE // 50)].reshape(whole, -1)
    low, high = np.quantile(frame_levels(frames), [0.1, 0.9])
    return bool(high - low < _STEADY)


def _is_clipped(samples: np.ndarray) -> bool:
    """Whether unusually many samples lie at one amplitude, near the peak.

    So they do in a steady tone, which is told from speech by its level.
    """
    sizes = np.sort(np.abs(samples))
    if sizes[-1] < 10 ** (_LOWEST_LEVEL / 20) or _is_steady(samples):
        return False
    amplitudes = sizes[-1] * np.geomspace(0.4, 1, 40)
    low, lower, around, above = (np.searchsorted(sizes, amplitudes * part) for part in (0.72, 0.86, 0.93, 1.07))
    at, below = above - around, lower - low
    enough = at >= max(_FEWEST_SAMPLES, _LEAST_SAMPLES * len(sizes))
    return bool((at[enough] > _LEAST_CLIPPED * np.maximum(below[enough], 1)).any())
