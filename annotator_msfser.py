"""From sound to the three texts: transcript, emphasized words, description. The same in training and in inference."""

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

import numpy as np
from transformers.utils import logging

from .audio_msfser import SAMPLING_RATE
from .description_msfser import Describer, MeasuredDescriber
from .emphasis_msfser import EMPHASIS, EmphasisConfig, Pitch, Prosody, find_emphasis, measure_prosody
from .languages_msfser import language_code
from .processing_msfser import wrong_annotation
from .sound_quality_msfser import SoundMeter, measured
from .transcription_msfser import MsfSerRecognizer
from .word_times_msfser import check_words, letters_of, text_of, words_of

logger = logging.get_logger(__name__)

_T = TypeVar("_T")

# Why a text is absent.
NO_SPEECH = "no speech"
NO_WORDS = "the recognizer found no words"
NO_RECOGNIZER = "no recognizer"
_NO_LETTERS = "no letters"
_NOT_ALIGNED = "the words cannot be aligned with the sound"

# One for all annotators, as a lock in each could not be copied with its pipeline.
_loading = threading.Lock()


class Aligner(Protocol):
    """Finds the times of given words."""

    def __call__(self, sounds: Sequence[np.ndarray], transcripts: Sequence[str]) -> list[list[dict[str, Any]] | None]:
        """Aligns clips, `(samples,)` each, float in -1..1 at 16 kHz, with their transcripts.

        Returns:
            For each clip `{"word", "start", "end"}` in order, seconds from its start, one for each part of the
            transcript between spaces that has a letter or digit, in its spelling; `None` where the clip cannot be
            aligned. [`MsfSerAnnotator`] puts spaces between the letters of scripts that have none.

        Raises:
            ValueError: The numbers of sounds and transcripts differ.
        """
        ...


@dataclass
class Annotation:
    """The texts of one sound. Those that are absent are `None`, with the reason in `absent`."""

    transcript: str | None = None
    words: list[dict[str, Any]] | None = None  # `{"word", "start", "end"}`, seconds from the start of the sound
    emphasis: str | None = None
    scores: list[float] | None = None  # LEMF's, in the order of `words`
    description: str | None = None
    describer: str | None = None  # name of what wrote the description; `None` if it was given
    absent: dict[str, str] = field(default_factory=dict)  # such as `{"transcript": "no speech"}`
    language: str | None = None  # code of that of recognized words


class MsfSerAnnotator:
    """Makes the texts that are not given.

    Given texts are kept: a transcript gets word times, words get an emphasis, an emphasis or a description stays as it
    is. Without words there is no emphasis, and without speech no description either. Where the recognizer finds no
    words, as often in other languages, the sound alone decides whether there is speech.

    Args:
        recognizer: A Whisper by Hub name or folder, loaded at its first use; or a loaded one; or `None`: transcripts
            are then given or absent.
        emphasis: How emphasized words are found.
        describer: Writes the descriptions; `None` for none.
        aligner: Finds the times of given words; the recognizer does if the aligner cannot, or if there is none.
        device: The device that the recognizer runs on.
        precision: That of a recognizer by name: see [`MsfSerRecognizer`].
    """

    def __init__(
        self,
        recognizer: str | MsfSerRecognizer | None = "openai/whisper-tiny.en",
        emphasis: EmphasisConfig = EMPHASIS["peak"],
        describer: Describer | None = None,
        aligner: Aligner | None = None,
        device: str | None = None,
        precision: str = "float32",
    ):
        self._recognizer = recognizer
        self.emphasis = emphasis
        self.describer = describer
        self.aligner = aligner
        self.device = device
        self.precision = precision

    @classmethod
    def from_settings(
        cls, settings: Mapping[str, Any] | None, device: str | None = None, precision: str = "float32"
    ) -> "MsfSerAnnotator":
        """Makes texts as those of a training corpus were made, as far as that needs nothing but the model.

        `settings` is `MsfSerProcessor.annotation`, or `None` for the defaults of the class. Any other describer than
        the measured one has to be given, and the times of given words always come from the recognizer.

        Raises:
            ValueError: A setting is missing or is not one that `msfser annotate` writes; the message names it.
        """
        if settings is None:
            return cls(device=device, precision=precision)
        for step in ("transcript", "emphasis", "description"):
            if step not in settings:
                raise wrong_annotation(step, "it is missing")
        recognizer = _setting(settings, "transcript", "recognizer", str)
        if "recognizer_sha256" in settings["transcript"]:
            logger.warning_once(
                f"The transcripts of the training corpus were made by the local recognizer {recognizer!r}, which does "
                "not come with the model: give its folder as recognizer, or there are none."
            )
            recognizer = "none"
        written_by = _setting(settings, "description", "describer", str)
        describer = None
        if written_by == "measured":
            norms = _setting(settings, "description", "norms", Mapping)
            describer = _made(MeasuredDescriber, "description.norms", norms)
        elif written_by != "none":
            logger.warning_once(
                f"The descriptions of the training corpus were written by {written_by}, which does not come with the "
                "model: give a describer, or there are none."
            )
        return cls(
            recognizer=None if recognizer == "none" else recognizer,
            emphasis=_made(EmphasisConfig, "emphasis", **settings["emphasis"]),
            describer=describer,
            device=device,
            precision=precision,
        )

    @property
    def recognizer(self) -> MsfSerRecognizer | None:
        """The recognizer, loaded at the first use.

        Raises:
            NoRecognizer: It cannot be found, or is no Whisper; the message names the remedy.
        """
        if isinstance(self._recognizer, str):
            with _loading:
                if isinstance(self._recognizer, str):  # no other thread has loaded it meanwhile
                    self._recognizer = self._loaded(self._recognizer)
        return self._recognizer

    def _loaded(self, name: str) -> MsfSerRecognizer:
        try:
            return MsfSerRecognizer.from_pretrained(name, self.device, self.precision)
        except (OSError, ValueError) as error:
            raise NoRecognizer(str(error)) from error

    def __call__(
        self, sounds: Sequence[np.ndarray], given: Sequence[Mapping[str, Any]] | None = None
    ) -> list[Annotation]:
        """Makes the texts of sounds, `(samples,)` each at 16 kHz; the texts of one do not depend on the others.

        Given may be what is known of each: `transcript`, `words`, `emphasis`, `description`, and `language`, a code or
        an English name.

        Raises:
            OSError: The recognizer cannot be loaded, or a describer's server does not respond.
            ValueError: A language is unknown, or given words have impossible times.
            ImportError: The package that finds speech or measures pitch is missing.
        """
        given = [{}] * len(sounds) if given is None else given
        if len(given) != len(sounds):
            raise ValueError(f"{len(sounds)} sounds came with {len(given)} sets of texts: give one for each.")
        for sound, known in zip(sounds, given, strict=True):
            check_words(known.get("words") or (), len(sound) / SAMPLING_RATE)
        annotations = [Annotation() for _ in sounds]
        self.transcribe(annotations, sounds, given)
        prosody = LazyProsody(sounds)
        self.emphasize(annotations, prosody, given)
        self.describe(annotations, sounds, prosody, given)
        return annotations

    def transcribe(
        self, annotations: Sequence[Annotation], sounds: Sequence[np.ndarray], given: Sequence[Mapping[str, Any]]
    ) -> None:
        """Fills in `transcript` and `words`."""
        self.find_words(annotations, sounds, given)
        for annotation, sound in zip(annotations, sounds, strict=True):
            if annotation.absent.get("transcript") == NO_SPEECH:
                annotation.absent["transcript"] = why_no_words(measured(sound))

    def find_words(
        self, annotations: Sequence[Annotation], sounds: Sequence[np.ndarray], given: Sequence[Mapping[str, Any]]
    ) -> None:
        """As [`transcribe`], for sounds that are measured already: without words the recognizer's own reason stays."""
        to_transcribe: dict[str | None, list[int]] = {}
        to_align: list[int] = []
        for i, (annotation, known) in enumerate(zip(annotations, given, strict=True)):
            annotation.transcript = known.get("transcript") or None
            annotation.words = known.get("words") or None
            if annotation.transcript is None:
                annotation.transcript = text_of(annotation.words)
            if annotation.transcript is None:
                to_transcribe.setdefault(known.get("language"), []).append(i)
            elif annotation.words is None and letters_of(annotation.transcript):
                to_align.append(i)
            elif annotation.words is None:
                annotation.absent["words"] = _NO_LETTERS
        for language, items in to_transcribe.items():
            self._recognize([annotations[i] for i in items], [sounds[i] for i in items], language)
        if to_align:
            languages = [given[i].get("language") for i in to_align]
            self._align([annotations[i] for i in to_align], [sounds[i] for i in to_align], languages)

    def emphasize(
        self, annotations: Sequence[Annotation], prosody: "LazyProsody", given: Sequence[Mapping[str, Any]]
    ) -> None:
        """Fills in `emphasis` and `scores` from the words."""
        for i, (annotation, known) in enumerate(zip(annotations, given, strict=True)):
            if annotation.words:
                found = find_emphasis(annotation.words, prosody[i], self.emphasis)
                annotation.scores, annotation.emphasis = found.scores.tolist(), found.text
            annotation.emphasis = known.get("emphasis") or annotation.emphasis
            if annotation.emphasis is None:
                why = _NO_LETTERS if annotation.words else "no word times"
                annotation.absent["emphasis"] = annotation.absent.get("transcript", why)

    def describe(
        self,
        annotations: Sequence[Annotation],
        sounds: Sequence[np.ndarray],
        prosody: "LazyProsody",
        given: Sequence[Mapping[str, Any]],
        failures: dict[int, OSError] | None = None,
    ) -> None:
        """Fills in `description` and `describer`; why a server failed at a sound is added to `failures` by its place.

        Raises:
            OSError: A describer's server is broken; or it failed at a sound, and `failures` are not given.
        """
        wanted = []
        for i, (annotation, known) in enumerate(zip(annotations, given, strict=True)):
            annotation.description = known.get("description") or None
            if annotation.description is not None:
                continue
            if annotation.absent.get("transcript") == NO_SPEECH:
                annotation.absent["description"] = NO_SPEECH
            elif self.describer is None:
                annotation.absent["description"] = "no describer"
            else:
                wanted.append(i)
        if not wanted or self.describer is None:
            return
        chosen, transcripts = [sounds[i] for i in wanted], [annotations[i].transcript for i in wanted]
        if isinstance(self.describer, MeasuredDescriber):
            described: Sequence[str | OSError | None]
            described = self.describer(chosen, transcripts, [prosody[i] for i in wanted])
        else:
            described = self.describer(chosen, transcripts)
        for i, description in zip(wanted, described, strict=True):
            if isinstance(description, OSError):
                if failures is None:
                    raise description
                failures[i] = description
                continue
            annotations[i].description = description
            if description is None:
                annotations[i].absent["description"] = "the describer wrote none"
            else:
                annotations[i].describer = self.describer.name

    def _recognize(
        self, annotations: Sequence[Annotation], sounds: Sequence[np.ndarray], language: str | None
    ) -> None:
        if self.recognizer is None:
            for annotation in annotations:
                annotation.absent["transcript"] = NO_RECOGNIZER
            return
        for annotation, found in zip(annotations, self.recognizer(sounds, language=language), strict=True):
            annotation.transcript, annotation.words = found.text, found.words or None
            annotation.language = found.language
            if found.reason is not None:
                annotation.absent["transcript"] = found.reason

    def _align(
        self, annotations: Sequence[Annotation], sounds: Sequence[np.ndarray], languages: Sequence[str | None]
    ) -> None:
        transcripts = [" ".join(words_of(annotation.transcript or "")) for annotation in annotations]
        found: list[list[dict[str, Any]] | None] = [None] * len(sounds)
        if self.aligner is not None:
            found = self.aligner(sounds, transcripts)
        rest = [i for i, words in enumerate(found) if words is None]
        if rest and self.recognizer is not None:
            aligned = _aligned(
                self.recognizer,
                [sounds[i] for i in rest],
                [transcripts[i] for i in rest],
                [language_code(languages[i]) for i in rest],
            )
            for i, words in zip(rest, aligned, strict=True):
                found[i] = words
        for annotation, words in zip(annotations, found, strict=True):
            annotation.words = words or None
            if not words:
                is_possible = self.aligner is not None or self.recognizer is not None
                annotation.absent["words"] = _NOT_ALIGNED if is_possible else NO_RECOGNIZER


def _setting(settings: Mapping[str, Any], step: str, name: str, kind: Any) -> Any:
    """One of the settings of a step."""
    found = settings[step].get(name)
    if not isinstance(found, kind):
        raise wrong_annotation(f"{step}.{name}", "it is missing" if found is None else f"it is {found!r}")
    return found


def _made(make: Callable[..., _T], name: str, *settings: Any, **named: Any) -> _T:
    """What is made of a setting."""
    try:
        return make(*settings, **named)
    except (ValueError, TypeError, AttributeError) as error:
        raise wrong_annotation(name, str(error).rstrip(".")) from error


def _aligned(
    recognizer: MsfSerRecognizer,
    sounds: Sequence[np.ndarray],
    transcripts: Sequence[str],
    languages: Sequence[str | None],
) -> Sequence[list[dict[str, Any]] | None]:
    """Word times by the recognizer; a transcript that does not fit its sound gets none."""
    try:
        return recognizer.align(sounds, transcripts, languages)
    except ValueError:
        if len(sounds) == 1:
            return [None]
        return [
            _aligned(recognizer, [sound], [transcript], [language])[0]
            for sound, transcript, language in zip(sounds, transcripts, languages, strict=True)
        ]


def why_no_words(meter: SoundMeter) -> str:
    """Why a sound with this meter, in which no words were recognized, has no transcript."""
    return NO_WORDS if meter.speech_seconds() > 0 else NO_SPEECH


class LazyProsody:
    """Pitch and level of some sounds, `(samples,)` each at 16 kHz, each measured at its first use.

    Args:
        sounds: The sounds.
        pitch_of: The pitch of the sound with this number, if it is not to be measured.
    """

    def __init__(self, sounds: Sequence[np.ndarray], pitch_of: Callable[[int], Pitch] | None = None):
        self._sounds, self._pitch_of = sounds, pitch_of
        self._measured: dict[int, Prosody] = {}

    def __getitem__(self, item: int) -> Prosody:
        if item not in self._measured:
            pitch = None if self._pitch_of is None else self._pitch_of(item)
            self._measured[item] = measure_prosody(self._sounds[item], pitch)
        return self._measured[item]


class NoRecognizer(OSError):
    """The recognizer, which all recordings need, cannot be loaded."""


def transcribed(
    annotator: MsfSerAnnotator, sounds: Sequence[np.ndarray], given: Sequence[Mapping[str, Any]]
) -> list[Annotation]:
    """New annotations of sounds with their transcripts, by [`MsfSerAnnotator.find_words`] and with its arguments.

    Raises:
        NoRecognizer: The recognizer cannot be loaded.
        ValueError: A sound or what is given with it cannot be used.
    """
    annotations = [Annotation() for _ in sounds]
    try:
        annotator.find_words(annotations, sounds, given)
    except OSError as error:
        raise NoRecognizer(f"{str(error).rstrip('.')}; or give recognizer=None to go without a transcript.") from error
    return annotations
