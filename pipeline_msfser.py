"""From a recording to valence, arousal and dominance, with reasons: `pipeline(model=..., trust_remote_code=True)`."""

import dataclasses
import itertools
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from transformers import Pipeline

from .annotator_msfser import LazyProsody, MsfSerAnnotator, NoRecognizer
from .audio_msfser import SAMPLING_RATE, count_channels, cut_at_pauses, is_sound, seconds_of
from .configuration_msfser import LABELS, TENSOR_NAMES
from .contributions_msfser import explained, reasons_of
from .course_msfser import (
    ScoredWindow,
    Segment,
    annotation_of,
    each_alone,
    given_texts_of,
    origins_of,
    pitch_of,
    result_of,
    windows_of,
)
from .inputs_msfser import AS_TRAINED, EACH, RAISE, InputStream, SourceError, batches, check_batch_size, check_options
from .intervals_msfser import INTERVAL_LEVEL, intervals_of, percentiles_of
from .memory_msfser import free_memory
from .processing_msfser import MsfSerProcessor
from .recordings_msfser import Recording, failed_result, open_recording
from .segment_texts_msfser import NOT_READ, Annotators, align_long
from .sound_forms_msfser import check_batch
from .sound_quality_msfser import SoundMeter, measured
from .stream_msfser import StreamingMixin
from .transcription_msfser import MsfSerRecognizer
from .word_times_msfser import check_words, texts_of_words

# How many batches of passages, and of windows, are collected, so that those of similar length share one.
_BATCHES_AHEAD = 8


class MsfSerPipeline(StreamingMixin, Pipeline):
    """Predicts valence, arousal and dominance of recordings, with what each input contributes and what was read.

    Texts that are not given are made if the model reads them: a recognizer transcribes, the emphasis rule (LEMF) finds
    the emphasized words, and a describer, if there is one, describes how it sounds.

    A recording that is longer than the model's input (`processor.feature_extractor.max_seconds`, 12 s) is cut at
    pauses into segments of at most half that length; two consecutive segments form one window of the model. It is read
    by blocks, so an hour needs little more memory than two minutes.

    Args:
        model: [`MsfSerModel`].
        processor: Its [`MsfSerProcessor`].
        sampling_rate: Rate in Hz of arrays that do not state their own; files contain theirs.
        recognizer: A Whisper by Hub name or folder; a loaded [`MsfSerRecognizer`]; or `None` for none. By default that
            of the training corpus, or Whisper tiny.en if its texts came with the corpus.
        describer: `"measured"`, which states what can be measured in the voice; a loaded [`Describer`]; or `None` for
            none. By default the measured one if it described the training corpus, else none.
        language: The language spoken, as a code or an English name; by default that of the training corpus's settings,
            or unknown.
        channel: The one channel that is used, from 0 on, such as that of one speaker; or `"each"`, which makes the
            result a list with one result for each channel. By default the mean of all.
        channels_first: Whether arrays of two axes are one sound each, as `(channels, samples)` or as `(samples,
            channels)`; without it they are several, `(clips, samples)`.
        word_contributions: Whether to measure what each word of the transcript contributes, too.
        errors: For a recording that cannot be used, `"raise"` an error that names its index, after the results before
            it, or `"return"` the result `{"error": sentence}`. A missing recognizer is always raised.
        interval_level: Level of the intervals, 0.01..0.99; 0.9 by default.
        batch_size: How many windows form a batch. With one, each result comes before the next recording is asked for.
            With more, windows of similar length share a batch, so results arrive after eight batches.
        precision: Precision of the encoders and of a recognizer loaded by name, `"float32"` or `"bfloat16"`: see
            [`MsfSerModel.set_precision`]; by default that of the model.
        **kwargs: Of `transformers.Pipeline`, such as `device`. `num_workers` has no effect: recordings are read in the
            calling process, one after the other.

    Sound that arrives bit by bit is for [`StreamingMixin.stream`].

    All but `model`, `processor`, `precision` and `**kwargs` may also be given with a call; `"as trained"` selects the
    recognizer or the describer of the training corpus, and `None` the default of `sampling_rate`, `language` and the
    channels.

    Raises:
        ValueError: The processor is missing or its annotation cannot be used, or an option has no such setting.
        TypeError: There is no such option.
    """

    model: Any
    processor: MsfSerProcessor
    _load_processor: Any = True
    _load_tokenizer: Any = False
    _load_feature_extractor: Any = False
    _load_image_processor: Any = False
    _load_video_processor: Any = False

    def __init__(self, *args: Any, precision: str | None = None, **kwargs: Any):
        super().__init__(*args, **kwargs)
        if self.processor is None:
            raise ValueError("The pipeline needs the model's own processor: give processor=, or the model by name.")
        self.model.eval()
        if precision is not None:
            self.model.set_precision(precision)
        self._annotators = Annotators(self.model, self.processor.annotation, str(self.device))

    def __call__(self, inputs: Any, **options: Any) -> Any:  # type: ignore[override]
        """Predicts valence, arousal and dominance of one recording or of many.

        Args:
            inputs: One recording or a list, a generator, a column of `datasets` or another iterable of them. A
                recording is any form that [`load_audio`] reads, such as a path, bytes, samples with `sampling_rate` or
                a row of `datasets.Audio`; an `https` address (at most 200 MB and 2 minutes); or one of these as
                `"audio"` of a dictionary that also contains some of `transcript`, `words` (`{"word", "start", "end"}`,
                seconds), `emphasis`, `description` and `language`. An empty text counts as not given.
            **options: `sampling_rate`, `recognizer`, `describer`, `language`, `channel`, `channels_first`,
                `word_contributions`, `errors`, `interval_level` and `batch_size`, as in the class.

        Returns:
            A dictionary of plain Python values; a list of them for a list, an iterator for other iterables; always in
            the order of the inputs. `docs/predicting.md` describes the fields in detail.

            - `valence`, `arousal`, `dominance`: in 0..1.
            - `intervals`: by dimension `[low, high]` in 0..1, which contains the prediction; `None` if the model has
              no intervals, or without speech.
            - `interval_level`: level of the intervals, or `None`.
            - `percentiles`: by dimension the percentile, 0..100, of the prediction among the `labels` and among the
              `predictions` of the corpus that the model was fitted to; `None` without such a model, or without
              speech.
            - `percentiles_of`: the name of this corpus, or `None`.
            - `transcript`, `emphasis` (the emphasized words), `description`: a text, or `None`.
            - `words`: `{"word", "start", "end", "score", "emphasized"}` in order; times in seconds, LEMF's score
              (mean 0 over an utterance, higher is more stressed; `None` if the model does not read emphasis), and
              whether the word is among the emphasized ones. Empty without word times.
            - `texts`: for `transcript`, `words`, `emphasis` and `description` where each came from: `"given"`,
              `"recognized"`, `"aligned"` (times of given words), `"found"` (by LEMF), the describer's name, or
              `"absent: "` and the reason.
            - `contributions`: for each dimension what `sound`, `transcript`, `emphasis` and `description` contribute,
              as far as the recording has them, as Shapley values; `None` for a model with one input.
            - `baseline`: for each dimension the number without any input; with the contributions it adds up to the
              number. `None` as above.
            - `word_contributions`, if asked for: `{"text", "valence", "arousal", "dominance"}` for each word, or for
              each of 40 phrases: the number minus that without it. `None` without a transcript.
            - `gate`: the emphasized words' mean share against the transcript, 0..1, or `None`: inside the model.
            - `routing`: for each dimension the shares of `sound`, `words` and `description`, as far as the model has
              them, which sum to 1; `None` without experts. Inside the model, too.
            - `duration`: of the recording, seconds.
            - `has_speech`: whether it has at least half a second of speech; if not, the predictions are meaningless,
              and a warning tells how much there is.
            - `speech_seconds`: how much of it is speech, by the sound and the words: see
              [`SoundMeter.speech_seconds`].
            - `warnings`: why the result may mean little, a sentence each.

            With `channel="each"`, the result of a recording is a list with such a dictionary for each channel, which
            also has its number as `channel`. With `errors="return"`, a channel that cannot be used is `{"channel",
            "error"}` in this list, and a recording whose channels cannot be counted is `{"error"}` in its place.

            A recording that needs several windows also has `course`, for each window `start`, `end`, the three
            numbers, their `intervals`, `has_speech`, `speech_seconds`, `warnings` of too little speech, what
            contributes to them, and the three texts. Its three numbers, the ends of their intervals, contributions,
            gate and routing are means over the windows with speech, weighted by their `weighting`: `"seconds of
            speech"`, or `"seconds"` of all windows if nobody speaks; only the windows have `word_contributions`. A
            given transcript is aligned first, which works up to 10 minutes; with `words` there is no such limit.

        Raises:
            ValueError: A recording cannot be used; the message contains its index in the list.
            OSError: An address cannot be reached, or the recognizer cannot be loaded.
            ImportError: A package that reads sound, finds speech, or measures pitch is missing.
            TypeError: There is no such option.
        """
        chosen = {**self._preprocess_params, **options}
        rate, channels_first = chosen.get("sampling_rate"), chosen.get("channels_first")
        if is_sound(inputs, channels_first) or not isinstance(inputs, (Iterable, torch.utils.data.Dataset)):
            return next(super().__call__(InputStream([inputs], is_one=True), **options))
        if isinstance(inputs, (list, tuple, np.ndarray, torch.Tensor)):
            if not len(inputs):
                return []
            check_batch(inputs, rate or SAMPLING_RATE, channels_first)
            inputs = list(inputs)
        results = super().__call__(InputStream(inputs), **options)
        return list(results) if isinstance(inputs, list) else results

    def seconds(self, path: str | os.PathLike[str], most: float = math.inf) -> float:
        """The length of a recording file; see [`seconds_of`], with its errors."""
        return seconds_of(path, most)

    # The library's signatures know neither the options' names nor several windows per recording.

    def _sanitize_parameters(self, **options: Any) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        check_options(**options)
        return options, {}, {}

    def get_iterator(
        self, inputs: InputStream, num_workers: int, batch_size: int, preprocess_params: Any, *others: Any
    ) -> Iterator[Any]:
        """The results of many recordings, one after another; the library's batches have one window per recording."""
        check_batch_size(batch_size)
        numbered = inputs.numbered()
        if preprocess_params.get("channel") == EACH:
            return (self._of_each_channel(index, item, batch_size, preprocess_params) for index, item in numbered)
        items = ((index, item, preprocess_params) for index, item in numbered)
        return self._results(items, batch_size, preprocess_params)

    def _of_each_channel(self, index: int | None, item: Any, batch_size: int, options: Mapping[str, Any]) -> Any:
        """The results for the channels of one recording, each with its `channel`; or why it has no channels."""
        try:
            recording = open_recording(item, options.get("sampling_rate"), index)
            channels = range(count_channels(recording.source, recording.sampling_rate, options.get("channels_first")))
        except (ValueError, OSError, SourceError) as caught:
            error = caught
        else:
            copies = [
                dataclasses.replace(recording, given=dict(recording.given), meter=SoundMeter()) for _ in channels
            ]
            inputs = ((index, copies[i], {**options, "channel": i}) for i in channels)
            results = [*self._results(inputs, batch_size, options)]
            reads_words = self._annotators.reads("emphasis", "transcript")
            for copy, result in zip(copies, results, strict=True):
                # Words in a language that is not read are no longer among the given ones.
                has_words = reads_words and any(copy.given[name] for name in ("transcript", "words", "emphasis"))
                if has_words and len(copies) > 1 and "error" not in result:
                    result["warnings"].append("The given words were used for every channel.")
            return [{"channel": i, **result} for i, result in zip(channels, results, strict=True)]
        return failed_result(error, index, options.get("errors", RAISE))

    def _results(
        self, items: Iterable[tuple[int | None, Any, Mapping[str, Any]]], batch_size: int, options: Mapping[str, Any]
    ) -> Iterator[dict[str, Any]]:
        """The results of inputs with their indices and options; only some batches are in memory at once."""
        transcriber = self._annotators.transcriber(options.get("recognizer", AS_TRAINED))
        collected = batch_size * _BATCHES_AHEAD if batch_size > 1 else 1
        passages = batches(self._passages(items), collected)
        transcribed = (self._transcribe_segments(some, transcriber) for some in passages)
        windows = batches(windows_of(itertools.chain.from_iterable(transcribed)), collected)
        scored = self._scored(windows, batch_size, self._annotators.describer(options.get("describer", AS_TRAINED)))
        return self._collected(scored, options.get("errors", RAISE))

    def _passages(self, items: Iterable[tuple[int | None, Any, Mapping[str, Any]]]) -> Iterator[list[Segment]]:
        """Two consecutive segments of a recording at a time, which are transcribed as a whole: every second once.

        After a recording that fails, no other is asked for unless errors are returned.
        """
        for index, item, options in items:
            passage: list[Segment] = []
            for passage in batches(self._segments(index, item, options), 2):
                yield passage
            error = passage[-1].recording.error
            if isinstance(error, SourceError) or (error is not None and options.get("errors", RAISE) == RAISE):
                return

    def _segments(self, index: int | None, item: Any, options: Mapping[str, Any]) -> Iterator[Segment]:
        """The segments of one recording, the last one marked; of one that fails, the last has no sound."""
        last = None
        try:
            for segment in self.preprocess(item, index=index, **options):
                if last is not None:
                    yield last
                last = segment
                if segment.recording.error is not None:
                    break
        except NoRecognizer:
            raise
        except (ValueError, OSError, SourceError) as error:
            recording = Recording(None, None, {}, index) if last is None else last.recording
            recording.error = error
            last = Segment(recording, 0.0, np.zeros(0, np.float32))
        if last is not None:
            last.is_last = True
            yield last

    def _collected(
        self, scored: Iterable[tuple[Sequence[Segment], ScoredWindow | None]], errors: str
    ) -> Iterator[dict[str, Any]]:
        """The result of each recording as soon as its last window is scored, or why there is none."""
        windows: list[ScoredWindow] = []
        for segments, window in scored:
            if window is not None:
                windows.append(window)
            if not segments[-1].is_last:
                continue
            recording = segments[-1].recording
            if recording.error is None:
                yield self.postprocess(windows)
            else:
                yield failed_result(recording.error, recording.index, errors)
            windows = []

    def preprocess(  # type: ignore[override]
        self,
        item: Any,
        index: int | None = None,
        sampling_rate: int | None = None,
        recognizer: str | MsfSerRecognizer | None = AS_TRAINED,
        language: str | None = None,
        channels_first: bool | None = None,
        channel: int | None = None,
        word_contributions: bool = False,
        interval_level: float = INTERVAL_LEVEL,
        **others: Any,
    ) -> Iterator[Segment]:
        """Cuts one input into segments, with the texts that are given; errors are those of `__call__`."""
        recording = open_recording(item, sampling_rate, index)
        recording.channels_first, recording.channel = channels_first, channel
        recording.word_contributions = word_contributions
        recording.interval_level = interval_level
        given = recording.given
        reads_words = self._annotators.reads("emphasis", "transcript")
        recording.state_language(language or self._annotators.language, self.processor.text_languages, reads_words)
        longest = self.processor.feature_extractor.max_seconds
        sound = recording.load(longest + 0.1)
        recording.is_long = len(sound) > int(longest * SAMPLING_RATE)
        if not recording.is_long:
            check_words(given["words"] or (), len(sound) / SAMPLING_RATE)
            if not recording.is_measured:
                recording.meter = measured(sound)
            yield Segment(recording, 0.0, sound, recording.meter)
            return
        check_words(given["words"] or (), math.inf)
        if given["transcript"] and not given["words"] and reads_words:
            given["words"] = align_long(recording, self._annotators.transcriber(recognizer))
            recording.words_from = "aligned"
        if given["words"]:
            recording.texts_of_words = texts_of_words(given["transcript"] or "", given["words"])
        start = 0
        for samples in cut_at_pauses(recording.blocks(), longest / 2):
            recording.meter.join(meter := measured(samples))
            yield Segment(recording, start / SAMPLING_RATE, samples, meter)
            start += len(samples)
        check_words(given["words"] or (), start / SAMPLING_RATE)

    def recognizer_for(self, options: Mapping[str, Any]) -> MsfSerRecognizer | None:
        """The recognizer that calls with these options use; `None` if there is none or the model reads no words."""
        if not self._annotators.reads("emphasis", "transcript"):
            return None
        return self._annotators.transcriber(options.get("recognizer", AS_TRAINED)).recognizer

    def _transcribe_segments(
        self, passages: Sequence[Sequence[Segment]], transcriber: MsfSerAnnotator
    ) -> list[Segment]:
        return self._annotators.transcribe(passages, transcriber)

    def _scored(
        self, collected: Iterable[list[tuple[Segment, ...]]], batch_size: int, describer: MsfSerAnnotator
    ) -> Iterator[tuple[Sequence[Segment], ScoredWindow | None]]:
        """The windows in order; those that share a batch have similar lengths, so that there is little padding."""
        for some in collected:
            usable = [i for i in range(len(some)) if some[i][0].recording.error is None]
            by_length = sorted(usable, key=lambda i: sum(len(segment.sound) for segment in some[i]))
            scored: dict[int, ScoredWindow | None] = {}
            for batch in batches(by_length, batch_size):
                chosen = [some[i] for i in batch]
                results = each_alone(lambda of_batch: self._score(of_batch, describer), chosen, chosen)
                scored |= zip(batch, results, strict=True)
            yield from ((window, scored.get(i)) for i, window in enumerate(some))

    def _score(self, windows: Sequence[Sequence[Segment]], describer: MsfSerAnnotator) -> list[ScoredWindow]:
        """Completes the texts of some windows and runs the model on them."""
        reads = self._annotators.reads
        sounds = [np.concatenate([segment.sound for segment in window]) for window in windows]
        annotations = [annotation_of(window) for window in windows]
        given = [given_texts_of(window) for window in windows]
        prosody = LazyProsody(sounds, lambda i: pitch_of(windows[i]))
        for name in ("emphasis", "description"):
            if not reads(name):
                for annotation, window in zip(annotations, windows, strict=True):
                    setattr(annotation, name, window[0].recording.given[name])
                    annotation.absent[name] = NOT_READ
        if reads("emphasis"):
            describer.emphasize(annotations, prosody, given)
        if reads("description"):
            describer.describe(annotations, sounds, prosody, given)
        columns: dict[str, Any] = {
            name: [getattr(annotation, name) for annotation in annotations] for name in TENSOR_NAMES
        }
        if self.model.config.audio:
            inputs = self.processor(sounds, SAMPLING_RATE, **columns)
        elif not all(map(any, zip(*(columns[name] for name in TENSOR_NAMES if reads(name)), strict=True))):
            raise ValueError("no words are known, and this model reads no sound: give texts.")
        else:
            inputs = self.processor(**columns)
        transcripts = [
            columns["transcript"][i] if window[0].recording.word_contributions else None
            for i, window in enumerate(windows)
        ]
        level = windows[0][0].recording.interval_level  # one for all of a call
        output = self.forward(inputs.to(self.model.dtype), transcripts=transcripts, interval_level=level)
        free_memory()
        return [
            ScoredWindow(
                recording=window[0].recording,
                start=window[0].start,
                seconds=[segment.seconds for segment in window],
                speech_seconds=[segment.speech_seconds() for segment in window],
                words=[word for segment in window for word in segment.words],
                texts=[segment.text for segment in window],
                annotation=annotation,
                origins=origins_of(window[0].recording, annotation),
                values=dict(zip(LABELS, output["logits"][i].tolist(), strict=True)),
                intervals=intervals_of(output, i),
                **reasons_of(self.model, output, i, {name: column[i] for name, column in columns.items()}),
                cut=[n for n in TENSOR_NAMES if reads(n) and self.processor.is_cut(getattr(annotation, n))],
            )
            for i, (window, annotation) in enumerate(zip(windows, annotations, strict=True))
        ]

    def _forward(  # type: ignore[override]
        self, model_inputs: Mapping[str, Any], transcripts: Sequence[str | None], interval_level: float, **others: Any
    ) -> Any:
        return explained(self.model, self.processor, model_inputs, transcripts, interval_level)

    def postprocess(  # type: ignore[override]
        self, windows: Sequence[ScoredWindow], **parameters: Any
    ) -> dict[str, Any]:
        """The result for one recording, from all of its windows."""
        result = result_of(windows)
        # The numbers of sound without speech mean nothing, and neither would their ranks.
        scale = getattr(self.model.config, "scale", None) if result["has_speech"] else None
        result["percentiles"] = percentiles_of({label: result[label] for label in LABELS}, scale)
        result["percentiles_of"] = None if scale is None else scale["of"]
        unrated = getattr(self.model.config, "unrated", None) or ()
        result["warnings"] += [
            f"The model was trained without labels of {name}: its number means nothing." for name in unrated
        ]
        return result

    def save_pretrained(self, save_directory: str | os.PathLike[str], **kwargs: Any) -> None:
        """Saves what the pipeline is loaded from: the model with all code, and the processor."""
        self.model.save_pretrained(save_directory, **kwargs)
        self.processor.save_pretrained(save_directory, **kwargs)
