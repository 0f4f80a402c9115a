"""The annotator: which texts it makes, given the others."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from tiny import noise, tiny_model, tiny_processor

from msfser import MsfSerPipeline, MsfSerProcessor
from msfser.annotator_msfser import NO_SPEECH, Annotation, LazyProsody, MsfSerAnnotator
from msfser.audio_msfser import load_audio
from msfser.description_msfser import NORMS, MeasuredDescriber
from msfser.emphasis_msfser import EMPHASIS, find_emphasis, measure_prosody
from msfser.transcription_msfser import Transcription

SOUND = noise(0.5)
NOTHING = Transcription(None, [], NO_SPEECH, None)
WORDS = [{"word": w, "start": i / 10, "end": (i + 1) / 10} for i, w in enumerate(["you", "did", "say", "so."])]


def timed(text):
    return [{"word": w, "start": i / 10, "end": (i + 1) / 10} for i, w in enumerate(text.split())]


class Recognizer:
    english_only = True

    def __init__(self):
        self.calls = []

    def __call__(self, sounds, language=None):
        self.calls.append(("transcribe", len(sounds), language))
        if language == "de":
            return [Transcription(None, [], "the recognizer knows only English", None) for _ in sounds]
        found = Transcription("you did say so.", WORDS, None, -0.1)
        return [found if np.abs(sound).max() > 0 else NOTHING for sound in sounds]

    def align(self, sounds, transcripts, languages=None):
        self.calls.append(("align", len(sounds), None))
        if any("impossible" in text for text in transcripts):
            raise ValueError("The transcript of item 1 is too long for its sound: cut both into shorter clips.")
        return [timed(text) for text in transcripts]


class Describer:
    name = "some/describer"

    def __init__(self, text="quiet"):
        self.text, self.calls = text, []

    def __call__(self, sounds, transcripts):
        self.calls += transcripts
        return [self.text] * len(sounds)


@pytest.fixture
def recognizer():
    return Recognizer()


def test_from_sound_alone(recognizer):
    describer = Describer()
    (made,) = MsfSerAnnotator(recognizer, describer=describer)([SOUND])
    expected = find_emphasis(WORDS, measure_prosody(SOUND), EMPHASIS["peak"])
    assert (made.transcript, made.words, made.emphasis) == ("you did say so.", WORDS, expected.text)
    assert made.scores == expected.scores.tolist()
    assert (made.description, made.describer, made.absent) == ("quiet", "some/describer", {})
    assert recognizer.calls == [("transcribe", 1, None)] and describer.calls == ["you did say so."]


def test_a_sound_at_which_a_server_fails(recognizer):
    """The others are described all the same, which a caller who asks for the failures gets."""
    failure = OSError("the server fails.")
    annotator = MsfSerAnnotator(recognizer, describer=lambda sounds, transcripts: ["quiet", failure, None])
    annotator.describer.name = "some/describer"
    given = [{"description": "given"}, {}, {}, {}]
    with pytest.raises(OSError, match="the server fails"):
        annotator([SOUND] * 4, given)
    made, failures = [Annotation() for _ in given], {}
    annotator.describe(made, [SOUND] * 4, LazyProsody([SOUND] * 4), given, failures)
    assert [text.description for text in made] == ["given", "quiet", None, None] and failures == {2: failure}
    assert [text.absent for text in made] == [{}, {}, {}, {"description": "the describer wrote none"}]


def test_a_given_transcript_is_aligned(recognizer):
    (made,) = MsfSerAnnotator(recognizer)([SOUND], [{"transcript": "so you say", "words": []}])
    assert recognizer.calls == [("align", 1, None)]
    assert (made.transcript, made.words, made.emphasis) == ("so you say", timed("so you say"), "so you say")
    assert made.description is None and made.absent == {"description": "no describer"}


def test_given_words_are_the_transcript(recognizer):
    (made,) = MsfSerAnnotator(recognizer)([SOUND], [{"words": WORDS}])
    assert not recognizer.calls
    assert (made.transcript, made.words) == ("you did say so.", WORDS) and made.emphasis
    # Both are kept as they are, also where they differ.
    (made,) = MsfSerAnnotator(recognizer)([SOUND], [{"words": WORDS, "transcript": "You did!"}])
    assert (made.transcript, made.words) == ("You did!", WORDS) and not recognizer.calls


def test_given_emphasis_and_description_stay(recognizer):
    describer = Describer()
    given = [{"emphasis": "did", "description": "loud"}]
    (made,) = MsfSerAnnotator(recognizer, describer=describer)([SOUND], given)
    assert (made.emphasis, made.description, made.describer) == ("did", "loud", None)
    assert len(made.scores) == 4 and not describer.calls and made.absent == {}
    # On silence too.
    (made,) = MsfSerAnnotator(recognizer, describer=describer)([np.zeros(8_000, np.float32)], given)
    assert (made.emphasis, made.description, made.absent) == ("did", "loud", {"transcript": NO_SPEECH})


def test_silence_has_no_texts(recognizer):
    describer = Describer()
    sounds = [np.zeros(8_000, np.float32), SOUND]
    silent, spoken = MsfSerAnnotator(recognizer, describer=describer)(sounds)
    assert silent.absent == dict.fromkeys(("transcript", "emphasis", "description"), NO_SPEECH)
    assert silent.transcript is silent.words is silent.emphasis is silent.scores is silent.description is None
    assert spoken.transcript and describer.calls == ["you did say so."]


def test_foreign_speech_is_described_all_the_same(recognizer):
    describer = Describer()
    german, english = MsfSerAnnotator(recognizer, describer=describer)([SOUND] * 2, [{"language": "de"}, {}])
    assert german.absent == dict.fromkeys(("transcript", "emphasis"), "the recognizer knows only English")
    assert german.description == "quiet" and english.transcript and describer.calls == [None, "you did say so."]


def test_speech_without_recognized_words_is_described(recognizer, monkeypatch):
    """Most clips in other languages lost their description, since Whisper had found "no speech"."""
    speech = load_audio(Path(__file__).parents[1] / "space" / "examples" / "sorry.mp3")
    monkeypatch.setattr(Recognizer, "__call__", lambda self, sounds, language=None: [NOTHING for _ in sounds])
    describer = Describer()
    spoken, silent = MsfSerAnnotator(recognizer, describer=describer)([speech, np.zeros(8_000, np.float32)])
    assert spoken.absent == dict.fromkeys(("transcript", "emphasis"), "the recognizer found no words")
    assert spoken.transcript is spoken.words is None and spoken.description == "quiet" and describer.calls == [None]
    assert silent.absent == dict.fromkeys(("transcript", "emphasis", "description"), NO_SPEECH)


def test_without_a_recognizer():
    recognized, aligned = MsfSerAnnotator(None)([SOUND] * 2, [{}, {"transcript": "so"}])
    assert recognized.absent == {
        "transcript": "no recognizer",
        "emphasis": "no recognizer",
        "description": "no describer",
    }
    assert aligned.transcript == "so" and aligned.absent["emphasis"] == "no word times"
    assert aligned.absent["words"] == "no recognizer"


def test_an_aligner_goes_before_the_recognizer(recognizer):
    asked = []

    def aligner(sounds, transcripts):
        asked.append(transcripts)
        return [None if "never" in text else timed(text) for text in transcripts]

    annotator = MsfSerAnnotator(recognizer, aligner=aligner)
    helped, found = annotator([SOUND] * 2, [{"transcript": "never so"}, {"transcript": "so then"}])
    assert asked == [["never so", "so then"]] and recognizer.calls == [("align", 1, None)]
    assert helped.words == timed("never so") and found.words == timed("so then")

    (lost,) = MsfSerAnnotator(None, aligner=aligner)([SOUND], [{"transcript": "never so"}])
    assert lost.transcript == "never so" and lost.words is lost.emphasis is lost.scores is None
    assert lost.absent["words"] == "the words cannot be aligned with the sound"
    assert lost.absent["emphasis"] == "no word times"


def test_a_transcript_that_cannot_fit_leaves_the_others(recognizer):
    texts = [{"transcript": text} for text in ("so then", "impossible", "you say")]
    made = MsfSerAnnotator(recognizer)([SOUND] * 3, texts)
    assert [annotation.words for annotation in made] == [timed("so then"), None, timed("you say")]
    assert made[1].transcript == "impossible" and "words" in made[1].absent


def test_an_unknown_language_is_not_taken_for_a_transcript_that_cannot_fit(recognizer):
    given = [{"transcript": "so then", "language": language} for language in ("en", "eng")]
    with pytest.raises(ValueError, match="language='eng' is not a language that Whisper knows"):
        MsfSerAnnotator(recognizer)([SOUND] * 2, given)


def test_a_describer_that_writes_nothing(recognizer):
    (made,) = MsfSerAnnotator(recognizer, describer=Describer(None))([SOUND])
    assert made.describer is None and made.absent == {"description": "the describer wrote none"}


def test_pitch_is_measured_once(recognizer, monkeypatch):
    measured = []

    def counted(sound, pitch=None):
        measured.append(len(sound))
        return measure_prosody(sound, pitch)

    monkeypatch.setattr("msfser.annotator_msfser.measure_prosody", counted)
    monkeypatch.setattr("msfser.description_msfser.measure_prosody", counted)
    times = np.arange(8_000) / 16_000
    tone = sum(np.sin(2 * np.pi * k * 200 * times) / k for k in range(1, 6)).astype(np.float32) * 0.1
    (made,) = MsfSerAnnotator(recognizer, describer=MeasuredDescriber())([tone])
    assert made.emphasis and made.description.startswith("The voice is") and made.describer == "measured/EmoDB"
    assert measured == [8_000]
    prosody = LazyProsody([tone])
    assert prosody[0] is prosody[0]


def test_a_recognizer_is_loaded_when_it_is_needed(monkeypatch):
    loaded = []

    def load(*arguments):
        loaded.append(arguments)
        return Recognizer()

    monkeypatch.setattr("msfser.annotator_msfser.MsfSerRecognizer.from_pretrained", load)
    annotator = MsfSerAnnotator("some/whisper", device="cpu", precision="bfloat16")
    annotator([SOUND], [{"words": WORDS}])
    assert loaded == []
    annotator([SOUND])
    annotator([SOUND])
    assert loaded == [("some/whisper", "cpu", "bfloat16")]


SETTINGS = {
    "transcript": {"recognizer": "none", "language": "en"},
    "emphasis": dataclasses.asdict(EMPHASIS["peak"]),
    "description": {"describer": "measured", "norms": NORMS},
}


@pytest.mark.parametrize(
    ("step", "settings", "name"),
    [
        ("transcript", None, "transcript"),
        ("transcript", {}, "transcript.recognizer"),
        ("transcript", {"recognizer": 3}, "transcript.recognizer"),
        ("transcript", "openai/whisper-tiny.en", "transcript"),
        ("emphasis", None, "emphasis"),
        ("emphasis", {"cues": 3}, "emphasis"),
        ("emphasis", {"pitch": "lowest"}, "emphasis"),
        ("emphasis", {"pitch_lag": "0.15"}, "emphasis"),
        ("description", None, "description"),
        ("description", {}, "description.describer"),
        ("description", {"describer": "measured"}, "description.norms"),
        ("description", {"describer": "measured", "norms": {}}, "description.norms"),
        ("description", {"describer": "measured", "norms": {"quantiles": {"rate": 3}}}, "description.norms"),
    ],
)
def test_a_setting_of_an_older_or_edited_processor_is_named(step, settings, name):
    changed = {**SETTINGS, step: settings}
    if settings is None:
        del changed[step]
    plain = tiny_processor()
    with pytest.raises(ValueError, match=rf"^The setting {name} of the .* set annotation to null in processor_config"):
        processor = MsfSerProcessor(plain.feature_extractor, plain.tokenizer, annotation=changed)
        MsfSerPipeline(tiny_model(), processor=processor)
    MsfSerAnnotator.from_settings(SETTINGS)


def test_a_set_of_texts_for_each_sound(recognizer):
    with pytest.raises(ValueError, match=r"2 sounds came with 1 sets of texts: give one for each\.$"):
        MsfSerAnnotator(recognizer)([SOUND] * 2, [{}])
    assert MsfSerAnnotator(recognizer)([]) == []
