"""The course of a recording: its segments, the windows that the model scores, and their summary.

Two consecutive segments form one window of the model, so windows overlap by one segment: each second but those of the
first and the last segment is scored twice, with what precedes it and with what follows it, and a change shows in the
course within half a window.
"""

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeVar

import numpy as np

from .annotator_msfser import NO_SPEECH, NO_WORDS, Annotation, why_no_words
from .audio_msfser import SAMPLING_RATE
from .configuration_msfser import LABELS, TENSOR_NAMES
from .contributions_msfser import mean_reasons
from .emphasis_msfser import Pitch, bare_word, joined_pitch, measure_pitch
from .recordings_msfser import Recording
from .sound_quality_msfser import LEAST_SPEECH, SoundMeter, speech_warnings
from .word_times_msfser import has_no_spaces, join_words, texts_of_words

Word = dict[str, Any]
_T = TypeVar("_T")


@dataclass
class Segment:
    """A part of a recording; times are seconds from the start of the recording, the words' too."""

    recording: Recording
    start: float
    sound: np.ndarray  # (samples,)
    meter: SoundMeter = field(default_factory=SoundMeter)  # of its sound
    text: str | None = None
    words: list[Word] = field(default_factory=list)
    absent: dict[str, str] = field(default_factory=dict)  # as in Annotation
    is_last: bool = False  # of its recording

    @property
    def seconds(self) -> float:
        """Its duration."""
        return len(self.sound) / SAMPLING_RATE

    @cached_property
    def pitch(self) -> Pitch:
        """Its pitch, which is measured once for both of its windows."""
        return measure_pitch(self.sound)

    def speech_seconds(self) -> float:
        """How much of it is speech; its words are known by now."""
        given = self.recording.given
        of_given = given["words"] or (given["transcript"] and self.words) or ()
        # Words that last no time say nothing of it.
        return self.meter.speech_seconds(self.words, any(word["end"] > word["start"] for word in of_given))


@dataclass
class ScoredWindow:
    """The texts of a window and the model's output for it, without the sound; times as in [`Segment`]."""

    recording: Recording
    start: float
    seconds: list[float]  # of each of its segments
    speech_seconds: list[float]  # likewise
    words: list[Word]
    texts: list[str | None]  # the transcript of each of its segments
    annotation: Annotation
    origins: dict[str, str]
    values: dict[str, float]
    intervals: dict[str, list[float]] | None  # low and high ends
    contributions: dict[str, dict[str, float]] | None  # by dimension and input
    baseline: dict[str, float] | None
    word_contributions: list[dict[str, Any]] | None
    gate: float | None
    routing: dict[str, dict[str, float]] | None
    cut: list[str]  # the texts that are too long for the model

    @property
    def end(self) -> float:
        """End, in seconds."""
        return self.start + sum(self.seconds)

    @property
    def has_speech(self) -> bool:
        """Whether it has enough speech for its numbers to mean something."""
        return self.all_speech_seconds >= LEAST_SPEECH

    @property
    def all_speech_seconds(self) -> float:
        """How much of it is speech."""
        return round(sum(self.speech_seconds), 3)

    def reasons(self) -> dict[str, Any]:
        """What contributes to the values, as far as it was asked for."""
        found: dict[str, Any] = {"contributions": self.contributions, "baseline": self.baseline}
        if self.recording.word_contributions:
            found["word_contributions"] = self.word_contributions
        return found

    def scored_words(self) -> list[Word]:
        """The words with LEMF's `score`, and whether each is `emphasized`."""
        scores: Sequence[float | None] = self.annotation.scores or [None] * len(self.words)
        emphasized = _emphasized(self.words, self.annotation.emphasis, self.annotation.scores)
        return [
            {**word, "score": score, "emphasized": is_emphasized}
            for word, score, is_emphasized in zip(self.words, scores, emphasized, strict=True)
        ]


def windows_of(segments: Iterable[Segment]) -> Iterator[tuple[Segment, ...]]:
    """Each two consecutive segments of a long recording; a short recording has one segment.

    Of a recording that failed there is only the last segment.
    """
    previous = None
    for segment in segments:
        recording = segment.recording
        if recording.error is not None:
            if segment.is_last:
                yield (segment,)
        elif not recording.is_long:
            yield (segment,)
        elif previous is not None and previous.recording is recording:
            yield (previous, segment)
        previous = segment


def each_alone(
    function: Callable[..., list[_T]], windows: Sequence[Sequence[Segment]], *columns: Sequence[Any]
) -> list[_T | None]:
    """The function's results for some windows, from columns with a value for each.

    One that cannot be used is noted as the error of its recording, and the others of the batch are not lost.
    """
    try:
        return [*function(*columns)]
    except ValueError as error:
        if len(windows) == 1:
            windows[0][0].recording.error = error
            return [None]
    middle = len(windows) // 2
    halves = (slice(None, middle), slice(middle, None))
    return [
        result
        for half in halves
        for result in each_alone(function, windows[half], *(column[half] for column in columns))
    ]


def spread_words(passage: Sequence[Segment], annotation: Annotation) -> None:
    """Gives the segments of a passage their words, from texts that were made for it as a whole."""
    for segment in passage:
        segment.absent = annotation.absent or {"transcript": NO_SPEECH}
        if segment.absent.get("transcript") == NO_SPEECH:
            segment.absent = {**segment.absent, "transcript": why_no_words(segment.meter)}
    if not passage[0].recording.is_long:
        passage[0].words, passage[0].text = list(annotation.words or []), annotation.transcript
        return
    words = shifted(annotation.words or [], passage[0].start)
    border = passage[-1].start if len(passage) > 1 else math.inf
    texts = texts_of_words(annotation.transcript or "", words)
    for segment, is_after in zip(passage, (False, True), strict=False):
        _give(segment, [(w, t) for w, t in zip(words, texts, strict=True) if (middle(w) >= border) == is_after])


def spread_given_words(segment: Segment) -> None:
    """Gives a segment of a long recording those of the given words whose middle lies in it."""
    given = segment.recording.given
    end = math.inf if segment.is_last else segment.start + segment.seconds
    segment.absent = {"transcript": NO_SPEECH}
    texts = segment.recording.texts_of_words
    _give(segment, [(w, t) for w, t in zip(given["words"], texts, strict=True) if segment.start <= middle(w) < end])


def _give(segment: Segment, words: Sequence[tuple[Word, str]]) -> None:
    segment.words = [word for word, _ in words]
    segment.text = "".join(text for _, text in words).strip() or None


def annotation_of(window: Sequence[Segment]) -> Annotation:
    """The transcript of a window, and its words with times from its start."""
    words = shifted([word for segment in window for word in segment.words], -window[0].start)
    text = _joined(segment.text for segment in window)
    absent = {name: why for segment in window for name, why in segment.absent.items()}
    if any(segment.absent.get("transcript") == NO_WORDS for segment in window):
        absent["transcript"] = NO_WORDS  # one with speech is enough
    if text is not None:
        absent.pop("transcript", None)
    return Annotation(transcript=text, words=words or None, absent=absent)


def pitch_of(window: Sequence[Segment]) -> Pitch:
    """The pitch of a window."""
    return joined_pitch([(segment.pitch, segment.seconds) for segment in window])


def given_texts_of(window: Sequence[Segment]) -> dict[str, Any]:
    """The given emphasis and description; in a long recording the emphasis only of windows that contain it."""
    recording = window[0].recording
    emphasis = recording.given["emphasis"]
    words = [word for segment in window for word in segment.words]
    if emphasis and recording.is_long and not any(_emphasized(words, emphasis, None)):
        emphasis = None
    return {"emphasis": emphasis, "description": recording.given["description"]}


def origins_of(recording: Recording, annotation: Annotation) -> dict[str, str]:
    """Where each text comes from, or why it is absent."""
    given = recording.given
    has_words = given["transcript"] or given["words"]
    sources = {
        "transcript": "given" if has_words else "recognized",
        "words": recording.words_from if given["words"] else "aligned" if has_words else "recognized",
        "emphasis": "given" if annotation.emphasis == given["emphasis"] else "found",
        "description": annotation.describer or "given",
    }
    why = annotation.absent
    reasons = {name: why.get(name, why.get("transcript", NO_SPEECH)) for name in sources}
    return {
        name: source if getattr(annotation, name) else f"absent: {reasons[name]}" for name, source in sources.items()
    }


def shifted(words: Iterable[Mapping[str, Any]], seconds: float) -> list[Word]:
    """Words at later or earlier times, none before 0."""
    return [
        {"word": word["word"], **{edge: round(max(0.0, word[edge] + seconds), 3) for edge in ("start", "end")}}
        for word in words
    ]


def middle(word: Mapping[str, Any]) -> float:
    """The time in the middle of a word, seconds."""
    return float(word["start"] + word["end"]) / 2


def result_of(windows: Sequence[ScoredWindow]) -> dict[str, Any]:
    """The pipeline's output for one recording, from all of its windows."""
    result = _summary(windows) if windows[0].recording.is_long else _of_window(windows[0])
    if not result["has_speech"]:
        # The numbers mean nothing, so nothing is said about their errors.
        result["intervals"] = result["interval_level"] = None
    return result


def _of_window(window: ScoredWindow) -> dict[str, Any]:
    return {
        **window.values,
        **_intervals([window], window.intervals),
        "transcript": window.annotation.transcript,
        "words": window.scored_words(),
        "emphasis": window.annotation.emphasis,
        "description": window.annotation.description,
        "texts": window.origins,
        **window.reasons(),
        "gate": window.gate,
        "routing": window.routing,
        "duration": window.end,
        **_quality([window]),
    }


def _intervals(windows: Sequence[ScoredWindow], intervals: dict[str, list[float]] | None) -> dict[str, Any]:
    """The intervals of a recording, with their level."""
    return {
        "intervals": intervals,
        "interval_level": None if intervals is None else windows[0].recording.interval_level,
    }


def _quality(windows: Sequence[ScoredWindow]) -> dict[str, Any]:
    """Whether there is speech and how much, and the warnings."""
    recording = windows[0].recording
    spoken = round(sum(windows[0].speech_seconds) + sum(window.speech_seconds[-1] for window in windows[1:]), 3)
    warnings = recording.meter.warnings(spoken)
    cut = [name for name in TENSOR_NAMES if any(name in window.cut for window in windows)]
    warnings += [f"The {name} is longer than the model reads: its end is left out." for name in cut]
    emphasis = recording.given["emphasis"]
    if emphasis and recording.is_long and not any(window.annotation.emphasis == emphasis for window in windows):
        warnings.append("The given emphasis is not among the words with times: it is not used.")
    return {"has_speech": bool(spoken >= LEAST_SPEECH), "speech_seconds": spoken, "warnings": warnings}


def _summary(windows: Sequence[ScoredWindow]) -> dict[str, Any]:
    words = _merged_words(windows)
    weights, weighting = _weights(windows)
    given = windows[0].recording.given
    runs = itertools.groupby(words, key=lambda word: word["emphasized"])
    emphasis = "; ".join(join_words(bare_word(w["word"]) for w in run) for is_emphasized, run in runs if is_emphasized)
    routings = [window.routing for window in windows if window.routing is not None]
    routing = None
    if routings:
        routing = {
            label: {name: _mean([shares[label][name] for shares in routings], weights) for name in routings[0][label]}
            for label in LABELS
        }
    intervals = None
    if all(window.intervals is not None for window in windows):
        # Ends of the mean if all windows err alike, as they mostly do: they share the speaker.
        both = {
            label: np.array([window.intervals[label] for window in windows if window.intervals]) for label in LABELS
        }
        intervals = {label: np.average(ends, axis=0, weights=weights).tolist() for label, ends in both.items()}
    origins = {name: dict.fromkeys(window.origins[name] for window in windows) for name in windows[0].origins}
    texts = {name: ", ".join(sorted(once, key=lambda one: one.startswith("absent"))) for name, once in origins.items()}
    transcript = _joined([windows[0].texts[0], *(window.texts[-1] for window in windows)])
    if given["transcript"] or given["words"]:
        transcript, texts["transcript"] = given["transcript"] or transcript, "given"
    if given["words"]:
        texts["words"] = windows[0].recording.words_from
    return {
        **{label: _mean([window.values[label] for window in windows], weights) for label in LABELS},
        **_intervals(windows, intervals),
        "transcript": transcript,
        "words": words,
        "emphasis": emphasis or next((w.annotation.emphasis for w in windows if w.annotation.emphasis), None),
        "description": given["description"],
        "texts": texts,
        **mean_reasons(windows, weights),
        "gate": _mean([window.gate for window in windows], weights),
        "routing": routing,
        "duration": windows[-1].end,
        **_quality(windows),
        "course": [
            {
                "start": round(window.start, 3),
                "end": round(window.end, 3),
                **window.values,
                "intervals": window.intervals if window.has_speech else None,
                "has_speech": window.has_speech,
                "speech_seconds": window.all_speech_seconds,
                "warnings": speech_warnings(window.all_speech_seconds),
                **window.reasons(),
                **{name: getattr(window.annotation, name) for name in TENSOR_NAMES},
            }
            for window in windows
        ],
        "weighting": weighting,
    }


def _weights(windows: Sequence[ScoredWindow]) -> tuple[np.ndarray, str]:
    """What each window of a long recording counts in its means, `(windows,)`, and the name of these weights.

    A window without speech counts nothing, unless there is no other.
    """
    spoken = _halved([window.speech_seconds for window in windows])
    for weights in (np.where([window.has_speech for window in windows], spoken, 0.0), spoken):
        if weights.any():
            return weights, "seconds of speech"
    return _halved([window.seconds for window in windows]), "seconds"


def _halved(seconds: Sequence[Sequence[float]]) -> np.ndarray:
    """Seconds of the two segments of each window; a segment that two windows share counts half in each."""
    halves = np.array([sum(of_window) / 2 for of_window in seconds])
    halves[0] += seconds[0][0] / 2
    halves[-1] += seconds[-1][-1] / 2
    return halves


def _merged_words(windows: Sequence[ScoredWindow]) -> list[Word]:
    """Each word once."""
    # A word that is in two windows is one object.
    words: dict[int, Word] = {}
    nearest: dict[int, float] = {}
    for window in windows:
        for word, scored in zip(window.words, window.scored_words(), strict=True):
            key = id(word)
            merged = words.setdefault(key, {**scored, "score": None, "emphasized": False})
            merged["emphasized"] |= scored["emphasized"]
            distance = abs(middle(word) - (window.start + window.end) / 2)
            if distance < nearest.get(key, math.inf):
                nearest[key], merged["score"] = distance, scored["score"]
    return list(words.values())


def _mean(values: Sequence[float | None], weights: np.ndarray) -> float | None:
    """Weighted mean of the values that are known."""
    known = [i for i, value in enumerate(values) if value is not None]
    if not known or weights[known].sum() <= 0:
        return None
    return float(np.average([values[i] for i in known], weights=weights[known]))


def _joined(texts: Iterable[str | None]) -> str | None:
    """Consecutive parts of a transcript as one."""
    return join_words(filter(None, texts)) or None


def _emphasized(
    words: Sequence[Mapping[str, Any]], emphasis: str | None, scores: Sequence[float] | None
) -> list[bool]:
    """Which words form the emphasis; if it occurs several times, those with the highest score."""
    indices = [i for i, word in enumerate(words) if bare_word(word["word"])]
    spellings = [bare_word(words[i]["word"]).lower() for i in indices]
    wanted = [part for part in (bare_word(part).lower() for part in (emphasis or "").split()) if part]
    if has_no_spaces("".join(wanted)):
        # It may begin and end within words, which may be divided otherwise.
        owners = [i for i, spelling in zip(indices, spellings, strict=True) for _ in spelling]
        spoken, sought = "".join(spellings), "".join(wanted)
        starts = [i for i in range(len(spoken)) if spoken.startswith(sought, i)]
        runs = [sorted(set(owners[start : start + len(sought)])) for start in starts]
    else:
        starts = [i for i in range(len(spellings)) if spellings[i : i + len(wanted)] == wanted]
        runs = [indices[start : start + len(wanted)] for start in starts]
    if not wanted or not runs:
        return [False] * len(words)
    best = max(runs, key=lambda run: max(scores[i] for i in run)) if scores else runs[0]
    return [i in best for i in range(len(words))]
