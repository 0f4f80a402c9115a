"""LEMF: which words of an utterance are emphasized, from their pitch, energy and duration.

The paper's rule, for word `i` of the utterance:

    s_i = 1.0 * z(log F0_i) + 1.2 * z(energy_i) + 0.8 * z(duration_i)

`z` is the z-score over the words of the utterance. The emphasized segment is the word with the highest score and one
neighbor on each side.

Pitch and level are measured frame by frame. Pitch comes from SwiftF0 (L. Nieradzik, 2025; package `swift-f0`, MIT), a
small convolutional network; `docs/decisions.md` compares it with other trackers.
"""

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .audio_msfser import SAMPLING_RATE
from .levels_msfser import at_reference_level
from .word_times_msfser import join_words, letter_span

try:
    import swift_f0
except ImportError:  # the model runs without it; measuring pitch does not
    swift_f0 = None  # type: ignore[assignment]

LOWEST_PITCH, HIGHEST_PITCH = 65.0, 520.0
LEVEL_HOP, PITCH_HOP = 0.010, 0.016
_LEVEL_WINDOW = 400
_LOWEST_LEVEL = -100.0
_VOICED = 0.5
# Samples of a sound whose pitch is measured at once.
_PITCH_PIECE = 4 * SAMPLING_RATE


@dataclass(frozen=True)
class Pitch:
    """The pitch of one sound over time."""

    times: np.ndarray  # (pitch frames,), the frames' centers in seconds, `PITCH_HOP` apart within a piece
    hertz: np.ndarray  # (pitch frames,), fundamental frequency (65..520), NaN where the sound is not voiced


@dataclass(frozen=True)
class Prosody:
    """Pitch and level of one sound over time."""

    pitch_times: np.ndarray  # as in `Pitch`
    pitch: np.ndarray  # likewise, in Hz
    level: np.ndarray  # (level frames,), root mean square over 25 ms in dB of full scale, -100 or more

    @property
    def level_times(self) -> np.ndarray:
        """`(level frames,)`, the centers of the level frames in seconds."""
        return np.arange(len(self.level)) * LEVEL_HOP


def measure_pitch(sound: np.ndarray) -> Pitch:
    """Measures the pitch of one sound, `(samples,)`, mono float32 at 16 kHz.

    Raises:
        ImportError: swift-f0 is not installed.
    """
    # Whether a frame is voiced must not depend on the gain.
    leveled = at_reference_level(sound)
    if len(leveled) <= _PITCH_PIECE:
        found = _pitch_detector().detect(leveled, SAMPLING_RATE, LOWEST_PITCH, HIGHEST_PITCH)
    else:
        # The same result as at once, but what the network computes fits into the processor's cache.
        stream = _pitch_detector().stream(LOWEST_PITCH, HIGHEST_PITCH)
        pieces = [leveled[start : start + _PITCH_PIECE] for start in range(0, len(leveled), _PITCH_PIECE)]
        found = swift_f0.concat([*(stream.push(piece, SAMPLING_RATE) for piece in pieces), stream.flush()])
    return Pitch(found.timestamps, np.where(found.confidence >= _VOICED, found.pitch_hz, np.nan))


def joined_pitch(pieces: Sequence[tuple[Pitch, float]]) -> Pitch:
    """The pitch of a sound from that of its consecutive pieces, each with its duration in seconds."""
    starts = np.cumsum([0.0, *(seconds for _, seconds in pieces[:-1])])
    times = [pitch.times + start for (pitch, _), start in zip(pieces, starts, strict=True)]
    return Pitch(np.concatenate(times), np.concatenate([pitch.hertz for pitch, _ in pieces]))


def measure_prosody(sound: np.ndarray, pitch: Pitch | None = None) -> Prosody:
    """Measures level and pitch of one sound, as in [`measure_pitch`], unless its pitch is known."""
    pitch = measure_pitch(sound) if pitch is None else pitch
    return Prosody(pitch.times, pitch.hertz, _level(sound))


def _level(sound: np.ndarray) -> np.ndarray:
    hop = round(LEVEL_HOP * SAMPLING_RATE)
    frames = len(sound) // hop + 1
    padded = np.pad(sound.astype(np.float64), _LEVEL_WINDOW // 2)
    power = np.concatenate([[0.0], np.cumsum(padded**2)])
    starts = np.arange(frames) * hop
    mean = (power[starts + _LEVEL_WINDOW] - power[starts]) / _LEVEL_WINDOW
    level: np.ndarray = 10 * np.log10(np.maximum(mean, 10 ** (_LOWEST_LEVEL / 10)))
    return level


@functools.cache
def _pitch_detector() -> "swift_f0.SwiftF0":
    if swift_f0 is None:
        raise ImportError("pitch cannot be measured without swift-f0: pip install swift-f0.")
    # One thread without busy waiting: many processes may do this at once.
    return swift_f0.SwiftF0(threads=1, spin=False)


_SHORTEST_WORD = 0.03
# Smaller deviations in log Hz, dB, seconds (or their logarithm) count as none: z would amplify rounding errors.
_PITCH_RESOLUTION, _LEVEL_RESOLUTION, _DURATION_RESOLUTION = 0.002, 0.1, 0.002


@dataclass(frozen=True, kw_only=True)
class EmphasisConfig:
    """How LEMF measures and weights its three cues. The defaults are the paper's formula.

    The other settings of `pitch`, `energy`, `log_duration` and `pitch_lag` are not in the paper. Accents peak late: on
    labeled speech the maximum of the pitch lies 0.1 to 0.2 s after the stressed word's own interval, often in the next
    word. `EMPHASIS["peak"]` makes use of that.

    Args:
        pitch_weight: Weight of `z(log F0)`.
        energy_weight: Weight of `z(energy)`.
        duration_weight: Weight of `z(duration)`.
        pitch: "mean" of the voiced frames of the word, or "peak": the highest point of the contour, which is
            interpolated linearly over unvoiced frames.
        energy: "mean" or "peak" of the level in dB over the word's frames.
        log_duration: Whether the logarithm of the duration is used.
        pitch_lag: Seconds, 0..1, by which the interval in which pitch is measured lies after the word.
        neighbors: Number of words on each side of the top word that belong to the segment.

    Raises:
        ValueError: A setting is not one of these.
    """

    pitch_weight: float = 1.0
    energy_weight: float = 1.2
    duration_weight: float = 0.8
    pitch: str = "mean"
    energy: str = "mean"
    log_duration: bool = False
    pitch_lag: float = 0.0
    neighbors: int = 1

    def __post_init__(self) -> None:
        for cue in ("pitch", "energy"):
            if getattr(self, cue) not in ("mean", "peak"):
                raise ValueError(f"{cue}={getattr(self, cue)!r} is not known: choose 'mean' or 'peak'.")
        if not 0 <= self.pitch_lag <= 1:
            raise ValueError(f"pitch_lag={self.pitch_lag} must lie in 0..1 seconds.")
        if self.neighbors < 0:
            raise ValueError(f"neighbors={self.neighbors} must be 0 or more.")


EMPHASIS: dict[str, EmphasisConfig] = {
    "paper": EmphasisConfig(),
    "peak": EmphasisConfig(pitch="peak", energy="peak", log_duration=True, pitch_lag=0.15),
}


@dataclass(frozen=True)
class Emphasis:
    """The emphasis of one utterance."""

    scores: np.ndarray  # (words,), LEMF's score of each word; no unit, mean 0
    top: int | None  # index of the word with the highest score (the first of equals); `None` without words
    segment: tuple[int, int]  # the emphasized words as `(first, end)`, `end` excluded
    text: str | None  # the words of the segment, without the punctuation around each; `None` if nothing is left


def find_emphasis(
    words: Sequence[Mapping[str, Any]], prosody: Prosody, config: EmphasisConfig = EMPHASIS["paper"]
) -> Emphasis:
    """Finds the emphasized words of an utterance by the rule above.

    - A cue in which no word differs (a silent clip, a single word) does not count: its z-scores are 0.
    - A word without a voiced frame gets the utterance's mean pitch: its z-score of pitch is 0, and it is excluded from
      the mean and deviation of the others.
    - In an utterance of three words or fewer, all are emphasized: LES is the transcript.
    - Words that begin after the end of the sound are measured at its last frame.

    The words are `{"word", "start", "end"}` in order, seconds; the prosody is that of the whole sound.

    Raises:
        ValueError: A time is not finite, negative, or a word ends before it starts.
    """
    if not words:
        return Emphasis(np.zeros(0), None, (0, 0), None)
    scores = (
        config.pitch_weight * _z(_pitches(words, prosody, config), _PITCH_RESOLUTION)
        + config.energy_weight * _z(_word_levels(words, prosody, config), _LEVEL_RESOLUTION)
        + config.duration_weight * _z(_durations(words, config), _DURATION_RESOLUTION)
    )
    top = int(scores.argmax())
    segment = (max(0, top - config.neighbors), min(len(words), top + config.neighbors + 1))
    if len(words) <= 3:
        segment = (0, len(words))
    bare = [bare_word(word["word"]) for word in words[slice(*segment)]]
    return Emphasis(scores, top, segment, join_words(filter(None, bare)) or None)


def bare_word(word: str) -> str:
    """A word without the punctuation before and after it."""
    return word[slice(*letter_span(word))]


def _z(values: np.ndarray, resolution: float) -> np.ndarray:
    """z-scores over the finite values; 0 for the others, and for all if they deviate by less than `resolution`."""
    known = np.isfinite(values)
    scores = np.zeros(len(values))
    if known.any() and (deviation := values[known].std()) > resolution:
        scores[known] = (values[known] - values[known].mean()) / deviation
    return scores


def _pitches(words: Sequence[Mapping[str, Any]], prosody: Prosody, config: EmphasisConfig) -> np.ndarray:
    """`(words,)`, log Hz, NaN for words without pitch."""
    voiced = np.isfinite(prosody.pitch)
    if not voiced.any():
        return np.full(len(words), np.nan)
    contour = np.log(prosody.pitch)
    frames = [_frames(word, prosody.pitch_times, config.pitch_lag) for word in words]
    if config.pitch == "peak":
        filled = np.interp(prosody.pitch_times, prosody.pitch_times[voiced], contour[voiced])
        return np.array([filled[of_word].max() for of_word in frames])
    voiced_parts = [contour[of_word][voiced[of_word]] for of_word in frames]
    return np.array([part.mean() if part.size else np.nan for part in voiced_parts])


def _word_levels(words: Sequence[Mapping[str, Any]], prosody: Prosody, config: EmphasisConfig) -> np.ndarray:
    """`(words,)`, dB of full scale."""
    of_words = [prosody.level[_frames(word, prosody.level_times, 0.0)] for word in words]
    return np.array([level.max() if config.energy == "peak" else level.mean() for level in of_words])


def _durations(words: Sequence[Mapping[str, Any]], config: EmphasisConfig) -> np.ndarray:
    """`(words,)`, seconds or their logarithm."""
    seconds = np.array([word["end"] - word["start"] for word in words], dtype=float)
    return np.log(np.maximum(seconds, _SHORTEST_WORD)) if config.log_duration else seconds


def _frames(word: Mapping[str, Any], times: np.ndarray, lag: float) -> slice:
    """The frames whose centers lie in a word, or else the one nearest to its middle."""
    start, end = word["start"], word["end"]
    if not (math.isfinite(start) and math.isfinite(end) and 0 <= start <= end):
        raise ValueError(
            f"the word {word['word']!r} lasts from {start} to {end} s: give times from 0 on, no end before its start."
        )
    first, last = np.searchsorted(times, [start + lag, end + lag]).tolist()
    if first < last:
        return slice(first, last)
    middle = int(np.abs(times - (start + end) / 2 - lag).argmin())
    return slice(middle, middle + 1)
