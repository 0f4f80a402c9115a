"""From a recording to valence, arousal and dominance, with reasons: `pipeline(model=..., trust_remote_code=True)`."""

import ctypes
import http.client
import itertools
import math
import os
import platform
import re
import time
import urllib.parse
import urllib.request
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from transformers import Pipeline

from .annotator_msfser import NO_SPEECH, Annotation, LazyProsody, MsfSerAnnotator
from .audio_msfser import SAMPLING_RATE, cut_at_pauses, load_audio, read_blocks
from .configuration_msfser import LABELS, TENSOR_NAMES
from .description_msfser import Describer, MeasuredDescriber
from .emphasis_msfser import bare_word
from .transcription_msfser import MsfSerRecognizer

# The setting of recognizer and describer that stands for those of the training corpus.
AS_TRAINED = "as trained"

_KNOWN = (*TENSOR_NAMES, "words", "language")
_KEYS = {"audio", "raw", "array", "bytes", "path", "sampling_rate", *_KNOWN}
_EXPERTS = {"audio": "sound", "semantics": "words", "description": "description"}
_NOT_READ = "the model does not read it"
# How many batches of windows lie ready, so that those of similar length share one.
_BATCHES_AHEAD = 4
# Longer recordings are not held in memory, which finding the times of a whole transcript needs.
_LONGEST_TO_ALIGN = 600.0
# Of a download.
_MOST_BYTES = 200_000_000
_MOST_SECONDS = 120.0
_PATIENCE = 15.0
_C_LIBRARY = ctypes.CDLL(None) if platform.libc_ver()[0] == "glibc" else None


@dataclass
class _Recording:
    """One input and what is known of it."""

    index: int
    given: dict[str, Any]
    is_long: bool
    words_from: str = "given"


@dataclass
class _Segment:
    """A part of a recording; words have times from the recording's start."""

    recording: _Recording
    start: float
    sound: np.ndarray
    text: str | None = None
    words: list[dict] = field(default_factory=list)
    absent: dict[str, str] = field(default_factory=dict)

    @property
    def seconds(self) -> float:
        return len(self.sound) / SAMPLING_RATE


@dataclass
class _Scored:
    """What the model says of a window, without its sound."""

    recording: _Recording
    start: float
    seconds: list[float]  # of each of its segments
    words: list[dict]
    is_speech_known: bool
    annotation: Annotation
    origins: dict[str, str]
    values: dict[str, float]
    gate: float | None
    routing: dict[str, dict[str, float]] | None

    @property
    def end(self) -> float:
        return self.start + sum(self.seconds)


class MsfSerPipeline(Pipeline):
    """Valence, arousal and dominance of recordings, with the texts that the model read and what each contributed.

    The texts that are not given are made: a recognizer writes the transcript, LEMF finds the emphasized words, and a
    describer, if there is one, writes how it is said. Whether they are made follows the model: one without texts hears
    sound alone.

    A recording that is longer than the model hears at once (`processor.feature_extractor.max_seconds`, 12 s) is cut at
    pauses into segments of at most half that length; two consecutive segments are one window of the model. It is read
    by blocks, so an hour needs no more memory than a minute.

    Args:
        model: [`MsfSerModel`].
        processor: Its [`MsfSerProcessor`].
        sampling_rate: Rate of arrays in Hz; files know theirs.
        recognizer: A Whisper by Hub name or folder; a loaded [`MsfSerRecognizer`]; or `None` for none. By default that
            of the training corpus, or Whisper tiny.en where its texts were not made.
        describer: `"measured"`, which says what can be measured in the voice; a loaded [`Describer`]; or `None` for
            none. By default the measured one if it described the training corpus, else none.
        language: What is spoken, as a code or an English name; by default that of the training corpus's settings, or
            unknown.
        batch_size: How many windows the model gets at once, of one or of several recordings. With more than one,
            windows of similar length share a batch, so results come after four batches.
        **kwargs: Of `transformers.Pipeline`, such as `device`.

    All but `model`, `processor` and `**kwargs` may also be given with a call.

    Raises:
        ValueError: The processor is missing, or an option has no such setting.
    """

    _load_processor = True
    _load_tokenizer = False
    _load_feature_extractor = False
    _load_image_processor = False
    _load_video_processor = False

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        if self.processor is None:
            raise ValueError("The pipeline needs the model's own processor: give processor=, or the model by name.")
        self.model.eval()
        self._trained = MsfSerAnnotator.from_settings(self.processor.annotation, device=str(self.device))
        self._transcribers: dict[Any, MsfSerAnnotator] = {AS_TRAINED: self._trained}

    def __call__(self, inputs: Any, **options: Any) -> Any:
        """Hears one recording or many.

        Args:
            inputs: One recording or a list, a generator, a column of `datasets` or another iterable of them. A
                recording is a path; the bytes of an audio file; an `https` address (200 MB and 2 minutes at most);
                samples with `sampling_rate`; `{"raw" or "array": samples, "sampling_rate": Hz}`; a row of
                `datasets.Audio`; or one of these as `"audio"` of a dictionary that also knows some of `transcript`,
                `words` (`{"word", "start", "end"}`, seconds), `emphasis`, `description` and `language`. An empty text
                counts as not given.
            **options: `sampling_rate`, `recognizer`, `describer`, `language` and `batch_size`, as in the class.

        Returns:
            A dictionary of plain Python values; a list of them for a list, an iterator for other iterables; always in
            the order of the inputs.

            - `valence`, `arousal`, `dominance`: in 0..1.
            - `transcript`: what is said, or `None`.
            - `words`: `{"word", "start", "end", "score", "emphasized"}` in order; times in seconds, LEMF's score
              (mean 0 over an utterance, higher is more stressed; `None` where the model does not read emphasis), and
              whether the word is among the emphasized ones. Empty without word times.
            - `emphasis`: the emphasized words, or `None`.
            - `description`: how it is said, or `None`.
            - `texts`: for `transcript`, `words`, `emphasis` and `description` where each came from: `"given"`,
              `"recognized"`, `"aligned"` (times of given words), `"found"` (by LEMF), the describer's name, or
              `"absent: "` and the reason.
            - `gate`: the emphasized words' mean share against the transcript, 0..1; `None` without either of them or
              without such a gate.
            - `routing`: for each dimension the shares of `sound`, `words` and `description`, as far as the model has
              them, which sum to 1; `None` without experts.
            - `duration`: of the recording, seconds.

            A recording that needs several windows has two fields more, and its other fields are put together from the
            windows:

            - `course`: for each window `start`, `end`, the three numbers, `transcript`, `emphasis`, `description`.
            - `weighting`: `"seconds of speech"` or `"seconds"`. The three numbers, gate and routing are means of the
              windows' with these weights. A second in two windows counts half in each. Speech is what lies in words.
              If that is not known for all of the recording, or nobody speaks, all seconds count.
            - `words`: each word once, with the score of the window in whose middle it lies most; it is emphasized if
              it is in any window. `emphasis`: all emphasized words, `"; "` between stretches. `description`: what was
              given, else `None`: windows differ. `texts`: what occurs in the windows.

            In a long recording a given emphasis goes to the windows that say it, and a given transcript gets its
            times first, which holds up to 10 minutes in memory; with `words` any length will do.

        Raises:
            ValueError: A recording cannot be used, which the sentence names by its place in the list.
            OSError: An address or the recognizer cannot be reached.
            ImportError: A package is missing that reads sound or measures pitch.
        """
        if isinstance(inputs, (list, tuple)):
            if not len(inputs):
                return []
            if isinstance(inputs[0], (int, float, np.number)):
                inputs = np.asarray(inputs, dtype=np.float32 if isinstance(inputs[0], float) else None)
            else:
                inputs = list(inputs)
        elif isinstance(inputs, torch.utils.data.Dataset):
            dataset = inputs
            inputs = (dataset[i] for i in range(len(dataset)))
        elif isinstance(inputs, np.ndarray) and inputs.dtype == object:
            inputs = list(inputs)
        elif isinstance(inputs, Iterable) and not _is_recording(inputs):
            inputs = (item for item in inputs)
        return super().__call__(inputs, **options)

    def _sanitize_parameters(self, sampling_rate=None, recognizer=AS_TRAINED, describer=AS_TRAINED, language=None):
        options = {"sampling_rate": sampling_rate, "language": language}
        chosen = {name: value for name, value in options.items() if value is not None}
        if recognizer != AS_TRAINED:
            if not (recognizer is None or isinstance(recognizer, str) or callable(recognizer)):
                raise ValueError(f"recognizer={recognizer!r} is no recognizer: give a Whisper by name, or None.")
            chosen["recognizer"] = recognizer
        if describer != AS_TRAINED:
            if not (describer is None or describer == "measured" or callable(describer)):
                raise ValueError(f"describer={describer!r} is no describer: give 'measured', a loaded one, or None.")
            chosen["describer"] = describer
        return chosen, {}, {}

    def run_single(self, inputs, preprocess_params, forward_params, postprocess_params):
        """One recording; its errors need not say which it is."""
        return next(self._results([self.preprocess(inputs, **preprocess_params)], 1, preprocess_params))

    def get_iterator(
        self, inputs, num_workers: int, batch_size: int, preprocess_params, forward_params, postprocess_params
    ):
        """The results of many recordings, one after another.

        The library's own batches are of one window for each recording, which long ones do not have.
        """
        segments = (self._named(i, item, preprocess_params) for i, item in enumerate(inputs))
        return self._results(segments, batch_size, preprocess_params)

    def _named(self, index: int, item: Any, options: Mapping[str, Any]) -> Iterator[_Segment]:
        try:
            yield from self.preprocess(item, index=index, **options)
        except (ValueError, OSError) as error:
            kind = OSError if isinstance(error, OSError) else ValueError
            raise kind(f"Item {index}: {error}") from error

    def _results(
        self, recordings: Iterable[Iterator[_Segment]], batch_size: int, options: Mapping[str, Any]
    ) -> Iterator[dict[str, Any]]:
        """What is in memory at once is a few batches, however many and long the recordings are."""
        recognizer, describer = options.get("recognizer", AS_TRAINED), options.get("describer", AS_TRAINED)
        passages = (passage for segments in recordings for passage in _batches(segments, 2))
        heard = (
            self._transcribe_segments(batch, self._transcriber_for(recognizer))
            for batch in _batches(passages, batch_size)
        )
        windows = _windows(itertools.chain.from_iterable(heard))
        scored = self._scored(windows, batch_size, self._describer_for(describer))
        of_recording = itertools.groupby(scored, key=lambda one: one.recording.index)
        return (self.postprocess(list(group)) for _, group in of_recording)

    # What goes in

    def preprocess(
        self,
        item: Any,
        index: int = 0,
        sampling_rate: int | None = None,
        recognizer: str | MsfSerRecognizer | None = AS_TRAINED,
        language: str | None = None,
        **others: Any,
    ) -> Iterator[_Segment]:
        """One input to its segments, with the texts that are given.

        Raises:
            ValueError: The sound or a text cannot be used, or the transcript of a long recording has no times.
            OSError: An address cannot be reached.
        """
        source, own_rate, given = _opened(item)
        sampling_rate = sampling_rate if own_rate is None else own_rate
        settings = self.processor.annotation or {"transcript": {}}
        given["language"] = given["language"] or language or settings["transcript"].get("language")
        longest = self.processor.feature_extractor.max_seconds
        sound = load_audio(source, sampling_rate, longest + 0.1)
        recording = _Recording(index, given, is_long=len(sound) > int(longest * SAMPLING_RATE))
        if not recording.is_long:
            yield _Segment(recording, 0.0, sound)
            return
        if given["transcript"] and not given["words"] and self._reads("emphasis", "transcript"):
            given["words"] = self._aligned(source, sampling_rate, given, self._transcriber_for(recognizer))
            recording.words_from = "aligned"
        start = 0
        for samples in cut_at_pauses(read_blocks(source, sampling_rate), longest / 2):
            yield _Segment(recording, start / SAMPLING_RATE, samples)
            start += len(samples)

    def _aligned(
        self, source: Any, sampling_rate: int | None, given: Mapping[str, Any], annotator: MsfSerAnnotator
    ) -> list[dict]:
        """Times of a long recording's given transcript."""
        sound = load_audio(source, sampling_rate, _LONGEST_TO_ALIGN + 0.1)
        if len(sound) > _LONGEST_TO_ALIGN * SAMPLING_RATE:
            raise ValueError(
                f"the recording is longer than {_LONGEST_TO_ALIGN / 60:.0f} minutes and its transcript has no times: "
                "give words with their times, or leave the transcript out."
            )
        found = Annotation()
        _transcribe(annotator, [found], [sound], [given])
        if not found.words:
            raise ValueError(
                "the transcript cannot be aligned with this long recording: give words with their times, or leave the "
                "transcript out."
            )
        return found.words

    def _reads(self, *names: str) -> bool:
        """Whether the model reads one of these texts."""
        return any(TENSOR_NAMES[name] in self.model.config.semantics for name in names)

    def _transcriber_for(self, recognizer: str | MsfSerRecognizer | None) -> MsfSerAnnotator:
        """Who writes transcripts; kept, so that a recognizer is loaded once."""
        key = recognizer if isinstance(recognizer, str) else id(recognizer)
        if key not in self._transcribers:
            self._transcribers[key] = MsfSerAnnotator(recognizer, device=str(self.device))
        return self._transcribers[key]

    def _describer_for(self, describer: str | Describer | None) -> MsfSerAnnotator:
        """Who finds emphasized words and describes."""
        if describer == AS_TRAINED:
            return self._trained
        return MsfSerAnnotator(
            None, self._trained.emphasis, MeasuredDescriber() if describer == "measured" else describer
        )

    # What is heard and read

    def _transcribe_segments(
        self, passages: Sequence[Sequence[_Segment]], annotator: MsfSerAnnotator
    ) -> list[_Segment]:
        """The segments of some passages with their words.

        A passage, two consecutive segments, is recognized as a whole. So every second is recognized once, although the
        model hears it twice.
        """
        annotations = [Annotation() for _ in passages]
        to_make = []
        for i, (passage, annotation) in enumerate(zip(passages, annotations, strict=True)):
            recording = passage[0].recording
            if not self._reads("emphasis", "transcript"):
                if not recording.is_long:
                    annotation.transcript, annotation.words = recording.given["transcript"], recording.given["words"]
                annotation.absent["transcript"] = _NOT_READ
            elif recording.is_long and recording.given["words"]:
                start, end = passage[0].start, passage[-1].start + passage[-1].seconds
                annotation.words = _shifted(
                    [word for word in recording.given["words"] if start <= _middle(word) < end], -start
                )
                annotation.absent["transcript"] = NO_SPEECH
            else:
                to_make.append(i)
        if to_make:
            sounds = [np.concatenate([segment.sound for segment in passages[i]]) for i in to_make]
            known = [passages[i][0].recording.given for i in to_make]
            _transcribe(annotator, [annotations[i] for i in to_make], sounds, known)
        for passage, annotation in zip(passages, annotations, strict=True):
            words = _shifted(annotation.words or [], passage[0].start)
            for segment in passage:
                segment.absent = annotation.absent or {"transcript": NO_SPEECH}
            if not passage[0].recording.is_long:
                passage[0].words, passage[0].text = words, annotation.transcript
                continue
            border = passage[-1].start if len(passage) > 1 else math.inf
            passage[0].words = [word for word in words if _middle(word) < border]
            passage[-1].words = [word for word in words if _middle(word) >= border] or passage[-1].words
            for segment in passage:
                segment.text = " ".join(word["word"] for word in segment.words) or None
        return [segment for passage in passages for segment in passage]

    def _scored(
        self, windows: Iterable[tuple[_Segment, ...]], batch_size: int, annotator: MsfSerAnnotator
    ) -> Iterator[_Scored]:
        """The windows in their order; those that share a batch have similar lengths, so that little is padding."""
        for some in _batches(windows, batch_size * _BATCHES_AHEAD if batch_size > 1 else 1):
            by_length = sorted(range(len(some)), key=lambda i: sum(len(segment.sound) for segment in some[i]))
            scored: dict[int, _Scored] = {}
            for batch in _batches(by_length, batch_size):
                scored |= zip(batch, self._score([some[i] for i in batch], annotator), strict=True)
            yield from (scored[i] for i in range(len(some)))

    def _score(self, windows: Sequence[Sequence[_Segment]], annotator: MsfSerAnnotator) -> list[_Scored]:
        """What the model says of some windows."""
        recordings = [window[0].recording for window in windows]
        sounds = [np.concatenate([segment.sound for segment in window]) for window in windows]
        words = [[word for segment in window for word in segment.words] for window in windows]
        annotations = [_annotation(window) for window in windows]
        known = [
            _texts_of_window(recording, of_window) for recording, of_window in zip(recordings, words, strict=True)
        ]
        prosody = LazyProsody(sounds)
        for name in ("emphasis", "description"):
            if not self._reads(name):
                for annotation, given in zip(annotations, known, strict=True):
                    setattr(annotation, name, given[name])
                    annotation.absent[name] = _NOT_READ
        if self._reads("emphasis"):
            annotator.emphasize(annotations, prosody, known)
        if self._reads("description"):
            annotator.describe(annotations, sounds, prosody, known)
        texts = {name: [getattr(annotation, name) for annotation in annotations] for name in TENSOR_NAMES}
        if self.model.config.audio:
            inputs = self.processor(sounds, SAMPLING_RATE, **texts)
        elif silent := [i for i in range(len(windows)) if not any(texts[name][i] for name in TENSOR_NAMES)]:
            raise ValueError(
                f"Item {recordings[silent[0]].index}: no words are known, and this model hears no sound: give texts."
            )
        else:
            inputs = self.processor(**texts)
        output = self.forward(inputs.to(self.model.dtype))
        _give_memory_back()
        return [
            _Scored(
                recording=recordings[i],
                start=window[0].start,
                seconds=[segment.seconds for segment in window],
                words=words[i],
                is_speech_known=all(s.words or s.absent.get("transcript") == NO_SPEECH for s in window),
                annotation=annotations[i],
                origins=_origins(recordings[i], annotations[i]),
                values=dict(zip(LABELS, output["logits"][i].tolist(), strict=True)),
                gate=self._gate(output, annotations[i], i),
                routing=self._routing(output, i),
            )
            for i, window in enumerate(windows)
        ]

    def _forward(self, model_inputs, **parameters):
        return self.model(**model_inputs, output_explanations=True)

    def _gate(self, output: Mapping[str, torch.Tensor], annotation: Annotation, row: int) -> float | None:
        if output.get("gate") is None or annotation.emphasis is None or annotation.transcript is None:
            return None
        return output["gate"][row].float().mean().item()

    def _routing(self, output: Mapping[str, torch.Tensor], row: int) -> dict[str, dict[str, float]] | None:
        if output.get("routing") is None:
            return None
        experts = [_EXPERTS[name] for name in self.model.cross_fusion.experts]
        shares = output["routing"][row].tolist()
        return {label: dict(zip(experts, share, strict=True)) for label, share in zip(LABELS, shares, strict=True)}

    # What comes out

    def postprocess(self, windows: Sequence[_Scored], **parameters) -> dict[str, Any]:
        """The result for one recording from all of its windows."""
        if windows[0].recording.is_long:
            return _summary(windows)
        window = windows[0]
        annotation = window.annotation
        scores = annotation.scores or [None] * len(window.words)
        stressed = _stressed(window.words, annotation.emphasis, annotation.scores)
        return {
            **window.values,
            "transcript": annotation.transcript,
            "words": [
                {**word, "score": score, "emphasized": is_stressed}
                for word, score, is_stressed in zip(window.words, scores, stressed, strict=True)
            ],
            "emphasis": annotation.emphasis,
            "description": annotation.description,
            "texts": window.origins,
            "gate": window.gate,
            "routing": window.routing,
            "duration": window.end,
        }

    def save_pretrained(self, save_directory: str | os.PathLike, **kwargs: Any) -> None:
        """Saves what the pipeline is loaded from: the model with all code, and the processor."""
        self.model.save_pretrained(save_directory, **kwargs)
        self.processor.save_pretrained(save_directory, **kwargs)


def _summary(windows: Sequence[_Scored]) -> dict[str, Any]:
    """The result for a recording of several windows."""
    # A word that is in two windows is one object.
    words: dict[int, dict[str, Any]] = {}
    nearest: dict[int, float] = {}
    held: dict[int, int] = {}
    for window in windows:
        scores = window.annotation.scores or [None] * len(window.words)
        stressed = _stressed(window.words, window.annotation.emphasis, window.annotation.scores)
        for word, score, is_stressed in zip(window.words, scores, stressed, strict=True):
            key = id(word)
            held[key] = held.get(key, 0) + 1
            entry = words.setdefault(key, {**word, "score": None, "emphasized": False})
            entry["emphasized"] |= is_stressed
            distance = abs(_middle(word) - (window.start + window.end) / 2)
            if distance < nearest.get(key, math.inf):
                nearest[key], entry["score"] = distance, score
    weights = np.array([sum((w["end"] - w["start"]) / held[id(w)] for w in window.words) for window in windows])
    weighting = "seconds of speech"
    if weights.sum() <= 0 or not all(window.is_speech_known for window in windows):
        # Two windows share each segment but the first and the last one.
        weights = np.array([sum(window.seconds) / 2 for window in windows])
        weights[0] += windows[0].seconds[0] / 2
        weights[-1] += windows[-1].seconds[-1] / 2
        weighting = "seconds"
    listed = list(words.values())
    runs = itertools.groupby(listed, key=lambda word: word["emphasized"])
    emphasis = "; ".join(" ".join(bare_word(w["word"]) for w in run) for is_stressed, run in runs if is_stressed)
    routing = None
    if windows[0].routing is not None:
        routing = {
            label: {
                name: _mean([window.routing[label][name] for window in windows], weights)
                for name in windows[0].routing[label]
            }
            for label in LABELS
        }
    given = windows[0].recording.given
    return {
        **{label: _mean([window.values[label] for window in windows], weights) for label in LABELS},
        "transcript": " ".join(word["word"] for word in listed) or None,
        "words": listed,
        "emphasis": emphasis or None,
        "description": given["description"],
        "texts": {name: _all_origins(window.origins[name] for window in windows) for name in windows[0].origins},
        "gate": _mean([window.gate for window in windows], weights),
        "routing": routing,
        "duration": windows[-1].end,
        "course": [
            {
                "start": round(window.start, 3),
                "end": round(window.end, 3),
                **window.values,
                **{name: getattr(window.annotation, name) for name in TENSOR_NAMES},
            }
            for window in windows
        ],
        "weighting": weighting,
    }


def _mean(values: Sequence[float | None], weights: np.ndarray) -> float | None:
    """Weighted mean of what is known."""
    known = [i for i, value in enumerate(values) if value is not None]
    if not known or weights[known].sum() <= 0:
        return None
    return float(np.average([values[i] for i in known], weights=weights[known]))


def _all_origins(origins: Iterable[str]) -> str:
    """Each origin once, what is there before what is absent."""
    return ", ".join(sorted(dict.fromkeys(origins), key=lambda origin: origin.startswith("absent")))


def _origins(recording: _Recording, annotation: Annotation) -> dict[str, str]:
    """Where each text came from, or why it is absent."""
    given = recording.given
    spoken = given["transcript"] or given["words"]
    sources = {
        "transcript": "given" if spoken else "recognized",
        "words": recording.words_from if given["words"] else "aligned" if spoken else "recognized",
        "emphasis": "given" if annotation.emphasis == given["emphasis"] else "found",
        "description": annotation.describer or "given",
    }
    why = annotation.absent
    reasons = {name: why.get(name, why.get("transcript", NO_SPEECH)) for name in sources}
    return {
        name: source if getattr(annotation, name) else f"absent: {reasons[name]}" for name, source in sources.items()
    }


def _annotation(window: Sequence[_Segment]) -> Annotation:
    """What is said in a window, with times from its start."""
    words = _shifted([word for segment in window for word in segment.words], -window[0].start)
    text = " ".join(segment.text for segment in window if segment.text) or None
    absent = {name: why for segment in window for name, why in segment.absent.items()}
    if text is not None:
        absent.pop("transcript", None)
    return Annotation(transcript=text, words=words or None, absent=absent)


def _texts_of_window(recording: _Recording, words: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What is given for a window: in a long recording an emphasis only where it is said."""
    emphasis = recording.given["emphasis"]
    if emphasis and recording.is_long and not any(_stressed(words, emphasis, None)):
        emphasis = None
    return {"emphasis": emphasis, "description": recording.given["description"]}


def _stressed(words: Sequence[Mapping[str, Any]], emphasis: str | None, scores: Sequence[float] | None) -> list[bool]:
    """Which words the emphasis consists of; of equal places, that with the highest score."""
    places = [i for i, word in enumerate(words) if bare_word(word["word"])]
    said = [bare_word(words[i]["word"]).lower() for i in places]
    wanted = [bare_word(part).lower() for part in (emphasis or "").split()]
    wanted = [part for part in wanted if part]
    runs = [
        places[i : i + len(wanted)] for i in range(len(said) + 1 - len(wanted)) if said[i : i + len(wanted)] == wanted
    ]
    if not wanted or not runs:
        return [False] * len(words)
    best = max(runs, key=lambda run: max(scores[i] for i in run)) if scores else runs[0]
    return [i in best for i in range(len(words))]


def _shifted(words: Iterable[Mapping[str, Any]], seconds: float) -> list[dict]:
    """Words at other times, none before 0."""
    return [
        {
            "word": word["word"],
            "start": round(max(0.0, word["start"] + seconds), 3),
            "end": round(max(0.0, word["end"] + seconds), 3),
        }
        for word in words
    ]


def _middle(word: Mapping[str, Any]) -> float:
    return (word["start"] + word["end"]) / 2


def _windows(segments: Iterable[_Segment]) -> Iterator[tuple[_Segment, ...]]:
    """Two consecutive segments of a long recording each; a short recording has one segment."""
    before = None
    for segment in segments:
        if not segment.recording.is_long:
            yield (segment,)
        elif before is not None and before.recording is segment.recording:
            yield (before, segment)
        before = segment


def _give_memory_back() -> None:
    """Returns freed memory to the system where the C library (glibc) would keep it.

    The lengths of windows and texts vary, and so do the holes that they leave: without this an hour comes to hold half
    as much again as two minutes.
    """
    if _C_LIBRARY is not None:
        _C_LIBRARY.malloc_trim(0)


def _batches(items: Iterable[Any], size: int) -> Iterator[list[Any]]:
    iterator = iter(items)
    while batch := list(itertools.islice(iterator, size)):
        yield batch


def _transcribe(
    annotator: MsfSerAnnotator,
    annotations: Sequence[Annotation],
    sounds: Sequence[np.ndarray],
    known: Sequence[Mapping[str, Any]],
) -> None:
    try:
        annotator.transcribe(annotations, sounds, known)
    except OSError as error:
        raise OSError(f"{str(error).rstrip('.')}; or give recognizer=None to go without a transcript.") from error


# One input


def _is_recording(value: Any) -> bool:
    kinds = (str, bytes, bytearray, os.PathLike, Mapping, np.ndarray, torch.Tensor)
    return isinstance(value, kinds) or hasattr(value, "get_all_samples")


def _opened(item: Any) -> tuple[Any, int | None, dict[str, Any]]:
    """What `load_audio` takes, the rate that comes with it, and the given texts (all of `_KNOWN`, `None` if not)."""
    given: dict[str, Any] = dict.fromkeys(_KNOWN)
    source, rate = item, None
    if isinstance(item, Mapping):
        if unknown := sorted(set(item) - _KEYS):
            raise ValueError(f"the recording has a field {unknown[0]!r}, which is none of {', '.join(sorted(_KEYS))}.")
        rate = item.get("sampling_rate")
        given |= {name: _text(item.get(name), name) for name in _KNOWN if name != "words"}
        given["words"] = _words(item.get("words"))
        source = item["audio"] if "audio" in item else {name: item[name] for name in item if name not in _KNOWN}
    if isinstance(source, Mapping):
        rate = source.get("sampling_rate", rate)
        if source.get("raw") is not None:
            source = {"array": source["raw"], "sampling_rate": rate}
        elif not {"array", "bytes", "path"} & set(source):
            raise ValueError("the recording has no sound: give 'audio', or 'array' with 'sampling_rate'.")
    elif hasattr(source, "get_all_samples"):  # datasets' decoder of a recording
        decoded = source.get_all_samples()
        source, rate = decoded.data, decoded.sample_rate
    elif isinstance(source, str) and re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", source):
        source = _fetched(source)
    return source, rate, given


def _text(value: Any, name: str) -> str | None:
    if value is not None and not isinstance(value, str):
        raise ValueError(f"the {name} is {type(value).__name__}, not text.")
    return (value or "").strip() or None


def _words(words: Any) -> list[dict] | None:
    if words is None:
        return None
    if not isinstance(words, (Sequence, np.ndarray)) or isinstance(words, (str, bytes)):
        raise ValueError(f"the words are {type(words).__name__}, not a list of 'word', 'start' and 'end'.")
    checked = []
    for word in words:
        try:
            start, end, spelling = float(word["start"]), float(word["end"]), word["word"]
        except (TypeError, KeyError, ValueError, IndexError) as error:
            raise ValueError(f"{word!r} is no word with its times: give 'word', 'start' and 'end'.") from error
        if not (isinstance(spelling, str) and math.isfinite(end) and 0 <= start <= end):
            raise ValueError(
                f"the word {spelling!r} lasts from {start} to {end} s: give times from 0 on, no end before its start."
            )
        checked.append({"word": spelling, "start": start, "end": end})
    return checked or None


class _SecureRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, req, fp, code, msg, headers, newurl):
        _check_scheme(newurl)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _check_scheme(address: str) -> None:
    scheme = address.partition(":")[0].lower()
    if scheme != "https":
        raise ValueError(f"a recording is fetched by https only, not by {scheme}: give an https address or a file.")


def _fetched(address: str) -> bytes:
    """The bytes behind an address, which is not repeated in errors: it may hold a key."""
    _check_scheme(address)
    try:
        host = urllib.parse.urlsplit(address).hostname
        address.encode("ascii")
    except ValueError:
        host = None
    if host is None:
        raise ValueError("the recording's address is none: give https://HOST/PATH, other letters escaped.")
    deadline = time.monotonic() + _MOST_SECONDS
    content = bytearray()
    try:
        with urllib.request.build_opener(_SecureRedirects).open(address, timeout=_PATIENCE) as answer:
            while block := answer.read1(1 << 16):
                content += block
                if len(content) > _MOST_BYTES:
                    raise ValueError(
                        f"the recording at {host} is larger than {_MOST_BYTES // 10**6} MB: give it as a file."
                    )
                if time.monotonic() > deadline:
                    raise TimeoutError(f"it takes longer than {_MOST_SECONDS:.0f} s")
    except (OSError, http.client.HTTPException) as error:
        reason = str(getattr(error, "reason", error)).rstrip(".")
        raise OSError(f"the recording at {host} cannot be fetched ({reason}): check the address.") from error
    return bytes(content)
