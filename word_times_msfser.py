"""Where words lie: in time, by the attention to each token, and in texts."""

import itertools
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from difflib import Match
from typing import Any

import numpy as np

from .audio_msfser import SAMPLING_RATE

# The encoder's states are 20 ms apart.
FRAME_SECONDS = 0.02
FRAME = int(FRAME_SECONDS * SAMPLING_RATE)
# Seconds: Whisper's window, and where a longer clip may be cut.
LONGEST = 30.0
_EARLIEST_CUT = 20.0
_QUIET_BELOW_LOUD = 35.0


def monotonic_starts(scores: np.ndarray) -> list[int]:
    """Divides frames among tokens in order so that the sum of scores is greatest.

    Each token gets one frame or more. Where there are fewer frames than tokens, tokens share them. The scores are
    `(tokens, frames)`.

    Returns:
        The first frame of each token, `(tokens,)`, not decreasing, the first one 0.
    """
    tokens, frames = scores.shape
    shares = math.ceil(tokens / frames)
    scores = np.repeat(scores, shares, axis=1)
    total = np.cumsum(scores, axis=1)
    best = total[0]
    entries: list[np.ndarray] = []
    for k in range(1, tokens):
        # Entering at frame j adds total[k, end] - total[k, j - 1] to the sum of the tokens before up to j - 1.
        gain = np.full(best.shape, -np.inf)
        gain[k:] = best[k - 1 : -1] - total[k, k - 1 : -1]
        reached = np.maximum.accumulate(gain)
        new = gain >= reached
        entries.append(np.maximum.accumulate(np.where(new, np.arange(len(gain)), 0)))
        best = reached + total[k]
    starts: list[int] = []
    frame = scores.shape[1] - 1
    for entry in reversed(entries):
        start = int(entry[frame])
        starts.append(start // shares)
        frame = start - 1
    return [0, *reversed(starts)]


def trim_quiet_edges(words: Iterable[Mapping[str, Any]], samples: np.ndarray, offset: float) -> list[dict[str, Any]]:
    """Cuts the quiet at the edges of words off: frames more than 35 dB below the loud ones.

    The words are `{"word", "start", "end"}` in order, in frames of the piece `(samples,)` that starts at `offset`
    seconds.

    Returns:
        `{"word", "start", "end"}` in seconds, at least one frame each.
    """
    level = _levels(samples)
    sounding = level > np.quantile(level, 0.95) - _QUIET_BELOW_LOUD
    result: list[dict[str, Any]] = []
    before = 0
    for word in words:
        start = min(max(word["start"], before), len(sounding) - 1)
        end = max(word["end"], start + 1)
        inside = np.flatnonzero(sounding[start:end])
        if len(inside):
            start, end = start + int(inside[0]), start + int(inside[-1]) + 1
        before = end
        result.append(
            {
                "word": word["word"],
                "start": round(offset + start * FRAME_SECONDS, 3),
                "end": round(offset + min(end * FRAME_SECONDS, len(samples) / SAMPLING_RATE), 3),
            }
        )
    return result


def _levels(samples: np.ndarray) -> np.ndarray:
    """Level of each frame in dB of full scale, `(frames,)`; the last frame may be shorter."""
    padded = np.pad(samples, (0, -len(samples) % FRAME)).reshape(-1, FRAME)
    level: np.ndarray = 10 * np.log10(np.square(padded, dtype=np.float64).mean(1) + 1e-12)
    return level


def cut_into_pieces(samples: np.ndarray) -> Iterator[tuple[float, np.ndarray]]:
    """Pieces of at most 30 s of a clip with their offsets in seconds, cut at the quietest 0.2 s after 20 s."""
    offset = 0
    while len(samples) - offset > LONGEST * SAMPLING_RATE:
        earliest = offset + int(_EARLIEST_CUT * SAMPLING_RATE)
        level = _levels(samples[earliest : offset + int(LONGEST * SAMPLING_RATE)])
        smooth = np.convolve(10 ** (level / 10), np.ones(10), mode="valid")
        cut = earliest + (int(smooth.argmin()) + 5) * FRAME
        yield offset / SAMPLING_RATE, samples[offset:cut]
        offset = cut
    yield offset / SAMPLING_RATE, samples[offset:]


def word_spans(text: str, ends: list[int] | None) -> list[tuple[int, int]]:
    """The `(start, end)` of the words in a text: between spaces or, given the ends of the tokens, a token each."""
    if ends is None:
        return [match.span() for match in re.finditer(r"\S+", text)]
    edges = sorted({0, *ends, len(text)})
    spans: list[tuple[int, int]] = []
    for start, end in itertools.pairwise(edges):
        if spans and not any(map(str.isalnum, text[start:end])):
            spans[-1] = (spans[-1][0], end)  # punctuation
        else:
            spans.append((start, end))
    return spans


def matching_index(blocks: Sequence[Match], index: int) -> int:
    """The index in the second sequence that corresponds to an index in the first one, by their matching blocks."""
    for block in blocks:
        if index <= block.a:
            return block.b
        if index <= block.a + block.size:
            return block.b + index - block.a
    return blocks[-1].b


def letters_of(word: str) -> str:
    """The letters and digits of a word in lower case."""
    return "".join(filter(str.isalnum, word.lower()))
