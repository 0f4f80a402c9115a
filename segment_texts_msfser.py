"""The transcripts of the pipeline's segments, and the annotators that its options choose."""

import threading
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .annotator_msfser import NO_RECOGNIZER, Annotation, MsfSerAnnotator, transcribed
from .audio_msfser import SAMPLING_RATE
from .configuration_msfser import TENSOR_NAMES
from .course_msfser import Segment, each_alone, spread_given_words, spread_words
from .description_msfser import Describer, MeasuredDescriber
from .inputs_msfser import AS_TRAINED
from .languages_msfser import why_not_read
from .recordings_msfser import Recording
from .transcription_msfser import MsfSerRecognizer
from .word_times_msfser import text_of

NOT_READ = "the model does not read it"
# The times of a whole transcript are found in memory, for which longer recordings are too long. Seconds.
_LONGEST_TO_ALIGN = 600.0
# So many recognizers by name stay in memory, for calls that take turns.
_MOST_NAMED = 2

# One for all pipelines, as a lock in each could not be copied with it.
_choosing = threading.Lock()


class Annotators:
    """What makes the texts of a model's recordings.

    Args:
        model: [`MsfSerModel`].
        settings: `MsfSerProcessor.annotation`, or `None`.
        device: That of recognizers by name.

    Raises:
        ValueError: A setting cannot be used.
    """

    def __init__(self, model: Any, settings: Mapping[str, Any] | None, device: str):
        self._model, self._device = model, device
        self.trained = MsfSerAnnotator.from_settings(settings, device, model.precision)
        self.language: str | None = None if settings is None else settings["transcript"].get("language")
        # Those of recognizers by name, the newest last.
        self._named: dict[str, MsfSerAnnotator] = {}

    def reads(self, *names: str) -> bool:
        """Whether the model reads one of these texts."""
        return any(TENSOR_NAMES[name] in self._model.config.semantics for name in names)

    def transcriber(self, recognizer: str | MsfSerRecognizer | None) -> MsfSerAnnotator:
        """The annotator that transcribes."""
        if recognizer == AS_TRAINED:
            return self.trained
        if not isinstance(recognizer, str):
            return MsfSerAnnotator(recognizer)
        with _choosing:
            annotator = self._named.pop(recognizer, None)
            if annotator is None:
                annotator = MsfSerAnnotator(recognizer, device=self._device, precision=self._model.precision)
            self._named[recognizer] = annotator
            for oldest in [*self._named][:-_MOST_NAMED]:
                del self._named[oldest]
        return annotator

    def describer(self, describer: str | Describer | None) -> MsfSerAnnotator:
        """The annotator that finds emphasized words and describes."""
        if describer == AS_TRAINED:
            return self.trained
        chosen = MeasuredDescriber() if isinstance(describer, str) else describer
        return MsfSerAnnotator(None, self.trained.emphasis, chosen)

    def transcribe(self, passages: Sequence[Sequence[Segment]], transcriber: MsfSerAnnotator) -> list[Segment]:
        """The segments of some passages with their words; a passage is transcribed as a whole."""
        to_transcribe = []
        for passage in passages:
            recording = passage[0].recording
            if recording.error is not None:
                continue
            if recording.is_long and recording.given["words"]:
                for segment in passage:
                    spread_given_words(segment)
            elif recording.unread is None and self.reads("emphasis", "transcript"):
                to_transcribe.append(passage)
            else:
                annotation = Annotation(absent=dict.fromkeys(("transcript", "words"), recording.unread or NOT_READ))
                if not recording.is_long:
                    annotation.words = recording.given["words"]
                    annotation.transcript = recording.given["transcript"] or text_of(annotation.words)
                spread_words(passage, annotation)
        if to_transcribe:
            sounds = [np.concatenate([segment.sound for segment in passage]) for passage in to_transcribe]
            given = [passage[0].recording.given for passage in to_transcribe]
            found = each_alone(lambda *batch: transcribed(transcriber, *batch), to_transcribe, sounds, given)
            for passage, annotation_or_none in zip(to_transcribe, found, strict=True):
                if annotation_or_none is not None:
                    _leave_out_unread(annotation_or_none, passage[0].recording.text_languages)
                    spread_words(passage, annotation_or_none)
        return [segment for passage in passages for segment in passage]


def _leave_out_unread(annotation: Annotation, text_languages: Sequence[str] | None) -> None:
    """Leaves out recognized words in a language that the model does not read."""
    reason = why_not_read(annotation.language, text_languages)
    if reason is not None:
        annotation.transcript = annotation.words = None
        annotation.absent["transcript"] = reason


def align_long(recording: Recording, transcriber: MsfSerAnnotator) -> list[dict[str, Any]]:
    """The words of a long recording's given transcript, `{"word", "start", "end"}` in seconds.

    Raises:
        ValueError: They cannot be found; the message names the remedy.
        NoRecognizer: The recognizer cannot be loaded.
    """
    sound = recording.load(_LONGEST_TO_ALIGN + 0.1)
    if len(sound) > _LONGEST_TO_ALIGN * SAMPLING_RATE:
        raise ValueError(
            f"the recording is longer than {_LONGEST_TO_ALIGN / 60:.0f} minutes and its transcript has no times: "
            "give words with their times, or leave the transcript out."
        )
    (annotation,) = transcribed(transcriber, [sound], [recording.given])
    if not annotation.words and annotation.absent["words"] == NO_RECOGNIZER:
        raise ValueError(
            "aligning the transcript with this long recording needs a recognizer: give one, give words with their "
            "times, or leave the transcript out."
        )
    if not annotation.words:
        raise ValueError(
            "the transcript cannot be aligned with this long recording: give words with their times, or leave the "
            "transcript out."
        )
    return annotation.words
