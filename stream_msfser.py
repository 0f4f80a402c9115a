"""Sound that arrives bit by bit: overlapping windows of a stream, and the words that they agree on.

The window that ends with a hop is the newest sound, as long as `window`; at the start it grows. It goes through the
pipeline as if it were a whole recording, so that its numbers are those of the recording cut the same way.
"""

import dataclasses
import math
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from .annotator_msfser import NO_SPEECH
from .audio_msfser import SAMPLING_RATE, stream_blocks
from .configuration_msfser import LABELS, TENSOR_NAMES
from .course_msfser import Word, middle, shifted
from .inputs_msfser import EACH, RETURN, check_options
from .recordings_msfser import open_recording
from .sound_forms_msfser import checked_rate, is_file, is_number
from .sound_quality_msfser import SoundMeter, measured
from .transcription_msfser import MsfSerRecognizer
from .word_times_msfser import letters_of

# Seconds. A stream has its first result after as much sound, unless the hop is longer.
_SHORTEST_WINDOW = 1.0
_SHORTEST_HOP = 0.1
# Seconds. A word is final once so much sound follows it: recognizers mistake the last words before a cut.
_FOLLOWING = 1.0
# What a result without speech has no value of, besides the numbers and texts.
_OF_SPEECH = (
    "intervals",
    "interval_level",
    "contributions",
    "baseline",
    "gate",
    "routing",
    "percentiles",
    "percentiles_of",
)
# Seconds. The same word in two windows is found within this of the same place.
_SAME_PLACE = 0.4
_REMEMBERED_WORDS = 8
# Seconds. A shorter rest at the end of a stream has no result.
_SHORTEST_REST = 0.05
_OPTIONS = {"recognizer", "describer", "language", "channel", "interval_level"}
# The options of the pipeline for each window, whatever it was built with.
_FIXED = {
    "sampling_rate": SAMPLING_RATE,
    "channel": None,
    "channels_first": None,
    "word_contributions": False,
    "errors": RETURN,
}


class StreamingMixin:
    """Gives [`MsfSerPipeline`] its method for sound that arrives bit by bit."""

    processor: Any
    _preprocess_params: dict[str, Any]
    __call__: Callable[..., Any]

    def stream(
        self,
        chunks: Iterable[Any],
        sampling_rate: int,
        window: float = 4.0,
        hop: float = 1.0,
        skip: bool = False,
        **options: Any,
    ) -> Iterator[dict[str, Any]]:
        """Predicts valence, arousal and dominance of sound that arrives bit by bit.

        Args:
            chunks: The samples one after the other: an iterable of arrays or tensors of any length, `(samples,)` or
                `(samples, channels)`, the first with no fewer samples than channels; float in -1..1, or uint8 or a
                signed integer type at full scale.
            sampling_rate: Their rate, in Hz.
            window: How much sound each result is about, seconds: from 1 s to the model's
                `processor.feature_extractor.max_seconds`.
            hop: The time from one result to the next, seconds: from 0.1 s to `window`.
            skip: For a source in real time, such as a microphone. A thread reads it, and a consumer that is too slow
                gets the newest result, after which no older one follows. Without it every hop has its result,
                and no sound is read before it is needed.
            **options: `recognizer`, `describer`, `language`, `channel` (a number) and `interval_level`, as in the
                class.

        Yields:
            A dictionary as soon as the sound of a hop is complete, the first after 1 s or one hop: until the sound is
            as long as `window`, it is about all of it. The last one is about the rest.

            - `start`, `end`: of the window, seconds from the start of the stream.
            - `valence`, `arousal`, `dominance`, `intervals`, `interval_level`, `percentiles`, `percentiles_of`,
              `transcript`, `emphasis`, `description`, `texts`, `contributions`, `baseline`, `gate`, `routing`,
              `has_speech`, `speech_seconds`, `warnings`: as the pipeline returns them for the window alone. In a
              window without voices, for which neither recognizer nor model runs, the numbers and texts are `None`.
            - `words`: those that became final, each once in the stream, as the pipeline returns them, with times from
              the start of the stream. A word becomes final when 1 s of sound follows it, or less where `hop` is near
              `window`. If the sound ends with a hop and some are left, its result is repeated with them.
            - `tentative`: the words after them, which the next result may change.
            - `skipped`: how many hops were left out just before this one.

        Raises:
            ValueError: An argument is impossible, a chunk cannot be used, or the stream ends without a sample.
            OSError: The recognizer cannot be found.
            ImportError: A package that resamples sound, finds speech, or measures pitch is missing.
        """
        _check_chunks(chunks)
        check_windows(sampling_rate, window, hop, self.processor.feature_extractor.max_seconds)
        if unknown := sorted(set(options) - _OPTIONS):
            raise ValueError(f"a stream has no option {unknown[0]!r}: give some of {', '.join(sorted(_OPTIONS))}.")
        check_options(**options)
        options = {name: value for name, value in self._preprocess_params.items() if name in _OPTIONS} | options
        channel = options.pop("channel", None)
        if channel == EACH:
            raise ValueError("a stream has one channel: give its number, or leave it out for the mean of all.")
        options |= _FIXED
        blocks = stream_blocks(chunks, sampling_rate, channel)
        words = FirmWords(min(_FOLLOWING, (window - hop) / 2))
        return _results(_Predictor(self, options, hop), blocks, Hops(window, hop), words, skip)


def _check_chunks(chunks: Any) -> None:
    if isinstance(chunks, (np.ndarray, torch.Tensor, Mapping)) or is_file(chunks) or not isinstance(chunks, Iterable):
        raise ValueError(
            f"a stream is an iterable of arrays, not {type(chunks).__name__}: give [samples] if all of the sound is "
            "there, or call the pipeline with it."
        )


def check_windows(sampling_rate: Any, window: Any, hop: Any, longest: float) -> None:
    """Checks the numbers of [`StreamingMixin.stream`] before any sound is read, with its errors.

    Args:
        sampling_rate: In Hz.
        window: Seconds.
        hop: Seconds.
        longest: Of the model's windows, in seconds.
    """
    checked_rate(sampling_rate)
    for name, seconds in (("window", window), ("hop", hop)):
        if isinstance(seconds, bool) or not is_number(seconds):
            raise ValueError(f"{name}={seconds!r} is not a number of seconds.")
    if not _SHORTEST_WINDOW <= window <= longest:
        raise ValueError(f"window={window} is outside {_SHORTEST_WINDOW:g}..{longest:g} s, which this model can use.")
    if not _SHORTEST_HOP <= hop <= window:
        raise ValueError(f"hop={hop} is outside {_SHORTEST_HOP:g}..{window:g} s: it is at most as long as the window.")


class _Predictor:
    """Predicts the windows of a stream, with a recognizer that follows it after the first one.

    Args:
        ser: A [`MsfSerPipeline`].
        options: Of its calls.
        hop: From one window to the next, in seconds.
    """

    def __init__(self, ser: Any, options: Mapping[str, Any], hop: float):
        self._ser, self._options, self._hop, self._is_first = ser, dict(options), hop, True

    def __call__(self, sound: np.ndarray, meter: SoundMeter) -> dict[str, Any]:
        """The result of the next window, `(samples,)`, which the meter has measured."""
        recording = dataclasses.replace(open_recording(sound, SAMPLING_RATE, None), meter=meter, is_measured=True)
        result: dict[str, Any] = self._ser(recording, **self._options)
        if self._is_first:
            self._is_first = False
            recognizer = self._ser.recognizer_for(self._options)
            if isinstance(recognizer, MsfSerRecognizer):
                self._options["recognizer"] = recognizer.following(self._hop)
        return result


def _results(
    predict: Callable[[np.ndarray, SoundMeter], dict[str, Any]],
    blocks: Iterable[np.ndarray],
    hops: "Hops",
    words: "FirmWords",
    skip: bool,
) -> Iterator[dict[str, Any]]:
    result = None
    for window in (_newest_windows if skip else _all_windows)(blocks, hops):
        result = _result(predict, window.sound, window.start, words) | {"skipped": window.skipped}
        if window.is_rest:
            result |= {"words": result["words"] + words.finish(), "tentative": []}
        yield result
    if result is not None and (last := words.finish()):
        yield {**result, "words": last, "tentative": [], "skipped": 0}


def _result(
    predict: Callable[[np.ndarray, SoundMeter], dict[str, Any]], sound: np.ndarray, start: float, firm: "FirmWords"
) -> dict[str, Any]:
    """The result of one window; of one without voices, which costs nothing, and of one that cannot be predicted."""
    end = start + len(sound) / SAMPLING_RATE
    times = {"start": round(start, 3), "end": round(end, 3)}
    meter = measured(sound)
    # What seems to be a crowd may be speech in noise, of which words can be recognized.
    spoken = meter.speech_seconds()
    warnings = meter.warnings(spoken)
    found: dict[str, Any] = predict(sound, meter) if meter.has_voices else {"error": NO_SPEECH}
    if "error" in found:
        if meter.has_voices:
            warnings.append(found["error"])
        return {
            **times,
            **dict.fromkeys((*LABELS, *TENSOR_NAMES)),
            "words": firm.finish(),
            "tentative": [],
            "texts": dict.fromkeys((*TENSOR_NAMES, "words"), f"absent: {found['error']}"),
            **dict.fromkeys(_OF_SPEECH),
            "has_speech": False,
            "speech_seconds": spoken,
            "warnings": warnings,
        }
    del found["duration"]
    timed = [{**word, **moved} for word, moved in zip(found["words"], shifted(found["words"], start), strict=True)]
    final, tentative = firm.add(timed, start, end)
    return {**times, **found, "words": final, "tentative": tentative}


class Hops:
    """Where the windows of a stream lie, in samples from its start at 16 kHz.

    Args:
        window: Seconds.
        hop: Seconds.
    """

    def __init__(self, window: float, hop: float):
        self.window, self._hop = round(window * SAMPLING_RATE), hop * SAMPLING_RATE
        self._first = math.ceil(_SHORTEST_WINDOW / hop - 1e-9)

    def end(self, number: int) -> int:
        """Where the window of a hop ends; the first hop has number 0."""
        return round((self._first + number) * self._hop)

    def has_rest(self, length: int) -> bool:
        """Whether a stream of so many samples ends with some that are in no complete hop."""
        count = self.count(length)
        return length >= self.end(count - 1) + _SHORTEST_REST * SAMPLING_RATE if count else length > 0

    def count(self, length: int) -> int:
        """How many hops are complete when so many samples are there."""
        number = max(0, int(length / self._hop) - self._first)
        while self.end(number) <= length:
            number += 1
        return number

    @property
    def kept(self) -> int:
        """How many of the newest samples contain the newest complete window."""
        return self.window + int(self._hop) + 1


class NewestSound:
    """The newest part of a stream, of which the rest is forgotten.

    Args:
        kept: How many samples are kept at least.
    """

    def __init__(self, kept: int):
        self.length = 0  # of the whole stream, in samples
        self._kept = kept
        self._blocks: deque[np.ndarray] = deque()
        self._in_memory = 0

    def add(self, block: np.ndarray) -> None:
        """Adds the next samples, `(samples,)`."""
        self._blocks.append(block)
        self.length += len(block)
        self._in_memory += len(block)
        while self._in_memory - len(self._blocks[0]) >= self._kept:
            self._in_memory -= len(self._blocks.popleft())

    def cut(self, start: int, end: int) -> np.ndarray:
        """Samples of the newest part, from and to a position in the stream."""
        newest = np.concatenate(self._blocks)
        before = self.length - len(newest)
        return newest[start - before : end - before].copy()


class _Window(NamedTuple):
    start: float  # seconds
    sound: np.ndarray  # (samples,) at 16 kHz
    skipped: int  # hops that were left out before it
    is_rest: bool  # whether the stream ends with it


def _window(sound: NewestSound, hops: Hops, end: int, skipped: int = 0, is_rest: bool = False) -> _Window:
    start = max(0, end - hops.window)
    return _Window(start / SAMPLING_RATE, sound.cut(start, end), skipped, is_rest)


def _all_windows(blocks: Iterable[np.ndarray], hops: Hops) -> Iterator[_Window]:
    """The window of every hop; no sound is asked for before it is needed."""
    sound, number = NewestSound(hops.kept), 0
    for block in blocks:
        # A block may complete several hops.
        for part in np.split(block, range(SAMPLING_RATE // 10, len(block), SAMPLING_RATE // 10)):
            sound.add(part)
            while hops.end(number) <= sound.length:
                yield _window(sound, hops, hops.end(number))
                number += 1
    if hops.has_rest(sound.length):
        yield _window(sound, hops, sound.length, is_rest=True)


class _Reader:
    """A thread that keeps the newest sound of a source while the consumer is busy."""

    def __init__(self, blocks: Iterable[np.ndarray], hops: Hops):
        self._blocks, self._hops = blocks, hops
        self._sound, self._changed = NewestSound(hops.kept), threading.Condition()
        self._is_ended, self._is_left = False, False
        self._error: BaseException | None = None
        threading.Thread(target=self._read, daemon=True, name="msfser stream").start()

    def _read(self) -> None:
        error: BaseException | None = None
        try:
            for block in self._blocks:
                with self._changed:
                    if self._is_left:
                        break
                    self._sound.add(block)
                    self._changed.notify()
        except BaseException as raised:
            error = raised
        with self._changed:
            self._error, self._is_ended = error, True
            self._changed.notify()

    def leave(self) -> None:
        """Ends the thread with the next chunk of the source."""
        with self._changed:
            self._is_left = True

    def next_window(self, done: int, end_of_done: int) -> tuple[_Window, int, int] | None:
        """Waits for a window newer than what is done; with the number of hops and the samples done after it.

        Raises:
            BaseException: What the source raised.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._is_ended or self._hops.count(self._sound.length) > done)
            length = self._sound.length
            complete = self._hops.count(length)
            end = self._hops.end(complete - 1) if complete else 0
            skipped = max(0, complete - done - 1)
            is_rest = self._is_ended and self._error is None and self._hops.has_rest(length)
            if is_rest:
                end, skipped = length, complete - done
            if end > end_of_done:
                return _window(self._sound, self._hops, end, skipped, is_rest), complete, end
            if self._error is not None:
                raise self._error
            return None


def _newest_windows(blocks: Iterable[np.ndarray], hops: Hops) -> Iterator[_Window]:
    """The window of the newest hop whenever one is asked for."""
    reader, done, end = _Reader(blocks, hops), 0, 0
    try:
        while (found := reader.next_window(done, end)) is not None:
            window, done, end = found
            yield window
    finally:
        reader.leave()


class FirmWords:
    """Words of overlapping windows, each of which becomes final once.

    A word is final as soon as enough sound follows it in a window. What a window finds anew of final words is left
    out: it is told by its letters and its place.

    Args:
        following: Seconds of sound that follow a final word.
    """

    def __init__(self, following: float):
        self._following = following
        self._final: deque[Word] = deque(maxlen=_REMEMBERED_WORDS)
        self._tentative: list[Word] = []

    def add(self, words: Sequence[Word], start: float, end: float) -> tuple[list[Word], list[Word]]:
        """Adds the words of the next window, and returns those that became final and those that are tentative.

        Args:
            words: With times in seconds from the start of the stream.
            start: Of the window, seconds.
            end: Of the window, seconds.
        """
        # What the window no longer contains stays as it was, and so does all of it if nothing is recognized now.
        gone = [word for word in self._tentative if middle(word) < start]
        kept = self._tentative[len(gone) :]
        self._final += gone
        found = self._unknown(words) if words else kept
        count = next((i for i, word in enumerate(found) if word["end"] > end - self._following), len(found))
        self._final += found[:count]
        self._tentative = found[count:]
        return gone + found[:count], list(self._tentative)

    def finish(self) -> list[Word]:
        """Makes the tentative words final, as no sound follows them, and returns them."""
        words, self._tentative = self._tentative, []
        self._final += words
        return words

    def _unknown(self, words: Sequence[Word]) -> list[Word]:
        """The words that follow the final ones."""
        if not self._final:
            return list(words)
        newest, first = self._final[-1], 0
        for known in reversed(self._final):
            same = [i for i, word in enumerate(words) if _is_same(word, known)]
            if same:
                first = 1 + min(same, key=lambda i: abs(middle(words[i]) - middle(known)))
                break
        if first and known is newest:
            return list(words[first:])
        return [word for word in words[first:] if middle(word) > newest["end"]]


def _is_same(word: Word, known: Word) -> bool:
    return letters_of(word["word"]) == letters_of(known["word"]) and abs(middle(word) - middle(known)) < _SAME_PLACE
