"""Where words lie: in time, by the attention to each token, and in texts, with spaces between them or without."""

import itertools
import math
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from difflib import Match
from typing import Any

import numpy as np

from .audio_msfser import SAMPLING_RATE
from .levels_msfser import frame_levels

# The encoder's states are 20 ms apart.
FRAME_SECONDS = 0.02
FRAME = int(FRAME_SECONDS * SAMPLING_RATE)
# Seconds: Whisper's window, and where a longer clip may be cut.
LONGEST = 30.0
_EARLIEST_CUT = 20.0
_EDGE_BELOW_LOUD = 35.0
# Seconds by which a given word may end after its sound: codecs pad, and aligners round.
_MOST_AFTER_END = 0.25
# Scripts that are written without spaces: Thai, Lao, Tibetan, Burmese, Khmer, Japanese and Chinese.
_NO_SPACES = (
    "\u0e00-\u0fff\u1000-\u109f\u1780-\u17ff\u3005-\u3007\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff"
    "\uaa60-\uaa7f\uf900-\ufaff\uff66-\uff9f\U00020000-\U0003ffff"
)
_NO_SPACE_SIGN = re.compile(f"[{_NO_SPACES}]")
# A letter with its marks and the punctuation after it, or a run of other signs, such as a Latin word or a number.
_UNIT = re.compile(rf"[{_NO_SPACES}][^\w\s]*|[^\s{_NO_SPACES}]+")


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
    level = _padded_levels(samples)
    sounding = level > np.quantile(level, 0.95) - _EDGE_BELOW_LOUD
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


def _padded_levels(samples: np.ndarray) -> np.ndarray:
    """Level of each frame in dB of full scale, `(frames,)`; the last frame may be shorter."""
    return frame_levels(np.pad(samples, (0, -len(samples) % FRAME)).reshape(-1, FRAME))


def cut_into_pieces(samples: np.ndarray) -> Iterator[tuple[float, np.ndarray]]:
    """Pieces of at most 30 s of a clip with their offsets in seconds, cut at the quietest 0.2 s after 20 s."""
    offset = 0
    while len(samples) - offset > LONGEST * SAMPLING_RATE:
        earliest = offset + int(_EARLIEST_CUT * SAMPLING_RATE)
        cut = quietest_cut(samples, earliest, offset + int(LONGEST * SAMPLING_RATE))
        yield offset / SAMPLING_RATE, samples[offset:cut]
        offset = cut
    yield offset / SAMPLING_RATE, samples[offset:]


def quietest_cut(samples: np.ndarray, earliest: int, latest: int) -> int:
    """The middle of the quietest 0.2 s between two samples."""
    power = 10 ** (_padded_levels(samples[earliest:latest]) / 10)
    return earliest + (int(np.convolve(power, np.ones(10), mode="valid").argmin()) + 5) * FRAME


def word_spans(text: str, ends: Iterable[int] = ()) -> list[tuple[int, int]]:
    """The `(start, end)` of the words in a text: between spaces and, in scripts without spaces, a token each.

    The ends are those of the tokens' texts.
    """
    cuts = sorted({end for end in ends if _NO_SPACE_SIGN.search(text[max(0, end - 1) : end + 1])})
    spans: list[tuple[int, int]] = []
    for match in re.finditer(r"\S+", text):
        first, last = match.span()
        part: list[tuple[int, int]] = []
        for start, end in itertools.pairwise([first, *(cut for cut in cuts if first < cut < last), last]):
            if part and not any(map(str.isalnum, text[start:end])):
                part[-1] = (part[-1][0], end)  # punctuation, or marks of the letter before
            else:
                part.append((start, end))
        spans += part
    return spans


def words_of(text: str) -> list[str]:
    """The words of a text: its parts between spaces and, in scripts without spaces, its letters.

    Marks and punctuation belong to the letter before them, and at the start to the one after.
    """
    words: list[str] = []
    for part in text.split():
        if not _NO_SPACE_SIGN.search(part):
            words.append(part)
            continue
        opening = ""
        for unit in _UNIT.findall(part):
            if any(map(str.isalnum, unit)):
                words.append(opening + unit)
                opening = ""
            else:
                opening += unit
        if opening:
            words.append(opening)
    return words


def has_no_spaces(text: str) -> bool:
    """Whether most letters of a text belong to scripts without spaces; digits do not count."""
    letters = "".join(filter(str.isalpha, text))
    return 2 * len(_NO_SPACE_SIGN.findall(letters)) > len(letters)


def join_words(words: Iterable[str]) -> str:
    """Words as a text: with spaces between them, but not between letters of scripts that have none."""
    words = list(words)
    return "".join(itertools.chain(*zip(words, _separators(words), strict=True)))


def _separators(words: Sequence[str]) -> list[str]:
    """What follows each word; nothing after the last one."""
    separators = ["" if has_no_spaces("".join(words)) else " "] * len(words)
    for i, (before, after) in enumerate(itertools.pairwise(words)):
        if _NO_SPACE_SIGN.search(before[-1:]) and _NO_SPACE_SIGN.search(after[:1]):
            separators[i] = ""
    return [*separators[:-1], ""] if words else []


def text_of(words: Sequence[Mapping[str, Any]] | None) -> str | None:
    """The transcript that words with times make; `None` without any."""
    return join_words(word["word"] for word in words or ()) or None


def texts_of_words(text: str, words: Sequence[Mapping[str, Any]]) -> list[str]:
    """Cuts a text before each of its words, so that what lies between words stays as it is written.

    Returns:
        A text for each word; together they are the text. If the words are not those of the text, they are the words
        themselves, with spaces between them unless their script has none.
    """
    starts, position = [], 0
    for word in words:
        position = text.find(word["word"], position)
        if position < 0:
            spellings = [each["word"] for each in words]
            return [
                spelling + separator for spelling, separator in zip(spellings, _separators(spellings), strict=True)
            ]
        starts.append(position)
        position += len(word["word"])
    return [text[start:end] for start, end in itertools.pairwise([0, *starts[1:], len(text)])] if words else []


def check_words(words: Sequence[Mapping[str, Any]], seconds: float) -> None:
    """Checks the given words of a sound, `{"word", "start", "end"}` in seconds, against its duration.

    Raises:
        ValueError: A word starts before the one before it, or lies beyond the end of the sound; the message names the
            word and its times.
    """
    for before, word in itertools.pairwise(words):
        if word["start"] < before["start"]:
            raise ValueError(
                f"the word {word['word']!r} starts at {word['start']:g} s, before {before['word']!r} at "
                f"{before['start']:g} s: give the words in the order in which they are spoken."
            )
    for word in words:
        if word["start"] >= seconds or word["end"] > seconds + _MOST_AFTER_END:
            ends = [each["end"] for each in words]
            seems_finer = min(ends) >= 10 and max(ends) / 1000 <= seconds + _MOST_AFTER_END
            remedy = "give seconds from its start"
            if seems_finer:
                remedy = "these seem to be in another unit, such as milliseconds; give seconds"
            raise ValueError(
                f"the word {word['word']!r} lasts from {word['start']:g} to {word['end']:g} s, but the sound has only "
                f"{seconds:.2f} s: {remedy}."
            )


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


def letter_span(text: str) -> tuple[int, int]:
    """Where the letters and digits of a text start and end, with the marks of the last one; `(0, 0)` without any."""
    letters = [i for i, sign in enumerate(text) if sign.isalnum()]
    if not letters:
        return 0, 0
    end = letters[-1] + 1
    while end < len(text) and unicodedata.category(text[end]).startswith("M"):
        end += 1
    return letters[0], end


def tokens_of(
    text: str, start: int, end: int, ends: Sequence[int], is_incomplete: Sequence[bool]
) -> tuple[int, int] | None:
    """The tokens `(first, end)` of the letters in a part of a text; `None` without letters.

    Punctuation belongs to the spelling of a word, not to its time. A character may span several tokens.
    """
    first, last = letter_span(text[start:end])
    if first == last:
        return None
    # The first token with a part of the first letter, and the one that completes the last.
    begin = next(i for i, at in enumerate(ends) if at > start + first or (at == start + first and is_incomplete[i]))
    return begin, next(i for i, at in enumerate(ends) if at >= start + last) + 1
