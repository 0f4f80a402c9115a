"""What says that a sound says little: each warning on the sound it is for, and on no other."""

import functools
import itertools
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soxr
from spoken import RATE, Recognizer, syllables, tone
from tiny import noise, tiny_model, tiny_processor

from msfser import LABELS, MsfSerPipeline, MsfSerProcessor
from msfser.audio_msfser import load_audio
from msfser.corpora.probe.synthesizer import Synthesizer
from msfser.sound_quality_msfser import LEAST_SPEECH, SoundMeter, measured, speech_warnings

# Real speech, which is no part of the project.
SPEECH = Path(__file__).parents[2] / "shared" / "data"
NONE = "No speech was found."
CLIPPED = "The sound is clipped: it was recorded too loud."
BAND = "The sound has no upper band (above 4 kHz), as over a telephone."


@functools.cache
def _spoken():
    """A minute of synthesized speech."""
    engine = Synthesizer()
    engine.set_voice("en-us")
    text = "The food was wonderful, but what they said to us at the door was a dreadful mistake. " * 12
    found = engine.speak(f"<speak>{text}</speak>")
    return soxr.resample(found.samples.astype(np.float32) / 2**16, found.rate, RATE)


def speech(seconds, seed=0):
    """Speech with a little noise."""
    count = int(RATE * seconds)
    return (_spoken()[seed * RATE + 2000 :][:count] + 0.001 * noise(seconds, seed)).astype(np.float32)


def warnings_of(samples):
    meter = measured(samples)
    return meter.warnings(meter.speech_seconds())


def telephone(samples):
    return soxr.resample(soxr.resample(samples, RATE, 8_000), 8_000, RATE)


def too_loud(samples, rate=RATE):
    return soxr.resample(np.clip(soxr.resample(samples, RATE, rate) * 4 / np.abs(samples).max(), -1, 1), rate, RATE)


@pytest.fixture(scope="module")
def sound_only():
    return MsfSerPipeline(tiny_model("whisper", semantics=[]), processor=tiny_processor("whisper"))


@pytest.mark.parametrize("seconds", [4.0, 31.0])
def test_each_warning_is_for_its_sound_alone(sound_only, seconds):
    for samples, expected in (
        (speech(seconds), []),
        (0.01 * speech(seconds), []),
        (np.zeros(int(seconds * RATE), np.float32), [NONE]),
        (noise(seconds), [NONE]),
        (telephone(noise(seconds)), [NONE]),
        (too_loud(speech(seconds)), [CLIPPED]),
        (0.2 * too_loud(speech(seconds), 44_100), [CLIPPED]),
        (telephone(speech(seconds)), [BAND]),
        (telephone(too_loud(speech(seconds))), [CLIPPED, BAND]),
    ):
        result = sound_only(samples, sampling_rate=RATE)
        assert result["warnings"] == expected
        assert (result["speech_seconds"] == 0) == (expected == [NONE])
        assert result["has_speech"] == (expected != [NONE])
        assert result["speech_seconds"] <= result["duration"]


@pytest.mark.parametrize(
    ("hertz", "decibels"),
    [(140, 0), (260, -20), (3340, -20), (3460, 0), (4340, 0), (4460, 20), (7540, 20), (7660, 0)],
)
def test_the_two_bands_lie_from_200_to_3400_and_from_4400_to_7600_hertz(hertz, decibels):
    """A tone of each band, and one that is 20 dB louder."""
    time, meter = np.arange(RATE) / RATE, SoundMeter()
    meter.add(sum(size * np.sin(2 * np.pi * f * time) for f, size in ((1000, 0.05), (6000, 0.05), (hertz, 0.5))))
    assert np.median(meter._measures()[1]) == pytest.approx(decibels, abs=1)


def test_no_second_of_a_long_sound_is_left_out():
    samples = np.zeros(62 * RATE, np.float32)
    for start in (29.1, 59.1):
        part = speech(0.8)
        samples[int(start * RATE) :][: len(part)] = part
    assert measured(samples).speech_seconds() == pytest.approx(1.6, abs=0.2)


def test_little_speech_is_told_with_its_seconds(sound_only):
    for seconds in (0.3, 0.8):
        result = sound_only(speech(seconds), sampling_rate=RATE)
        told = f"({result['speech_seconds']:.2f} s)"
        little = [f"There is less than 0.5 s of speech {told}: the numbers mean nothing."]
        assert result["has_speech"] == (seconds > LEAST_SPEECH)
        assert result["warnings"] == ([f"There is less than 1 s of speech {told}."] if seconds > 0.5 else little)
        assert result["speech_seconds"] == pytest.approx(seconds, abs=0.15)
    # Within a long pause too.
    pause = np.zeros(10 * RATE, np.float32)
    result = sound_only(np.concatenate([pause, speech(0.6), pause]), sampling_rate=RATE)
    assert len(result["warnings"]) == 1 and 0.4 < result["speech_seconds"] < 1.0
    assert sound_only(np.zeros(1, np.float32), sampling_rate=RATE)["warnings"] == [NONE]


# Sound and words


class Says(Recognizer):
    """Finds the same words in every sound, 0.6 s each from its start."""

    def __init__(self, count):
        super().__init__()
        self.count = count

    def words(self, sound):
        return [{"word": "thanks", "start": 0.6 * i, "end": 0.6 * (i + 1)} for i in range(self.count)]


@pytest.fixture(scope="module")
def pipe():
    return MsfSerPipeline(tiny_model("whisper"), processor=tiny_processor("whisper"), recognizer=None)


@pytest.mark.parametrize("seconds", [6.0, 14.0])
@pytest.mark.parametrize("count", [0, 1, 6])
def test_few_recognized_words_do_not_hide_speech(pipe, seconds, count):
    result = pipe(speech(seconds), sampling_rate=RATE, recognizer=Says(count))
    assert result["has_speech"] and result["warnings"] == []
    assert result["speech_seconds"] > 0.7 * seconds


@pytest.mark.parametrize("seconds", [6.0, 18.0])
@pytest.mark.parametrize("kind", [tone, noise])
def test_a_few_words_in_music_or_noise_are_hallucinated(pipe, seconds, kind):
    sound = syllables(kind(seconds))
    result = pipe(sound, sampling_rate=RATE, recognizer=Says(1))
    assert result["transcript"] is not None
    assert not result["has_speech"] and result["speech_seconds"] == 0 and result["warnings"] == [NONE]
    spoken = pipe(sound, sampling_rate=RATE, recognizer=Says(5))
    passages = -(-seconds // 12)
    assert spoken["has_speech"] and spoken["speech_seconds"] == pytest.approx(5 * 0.6 * passages, abs=0.7)


def test_recognized_words_count_in_what_does_not_sound_like_speech(pipe):
    """As in a whisper."""
    sound = np.concatenate([syllables(noise(2.0)), np.zeros(4 * RATE, np.float32)])
    result = pipe(sound, sampling_rate=RATE, recognizer=Says(2))
    assert result["has_speech"] and result["speech_seconds"] == 1.2


def test_given_words_are_all_that_is_said(pipe):
    words = [{"word": "so", "start": 1.0, "end": 1.7}]
    for sound in (speech(6.0), syllables(tone(6.0)), syllables(noise(6.0))):
        result = pipe({"audio": sound, "sampling_rate": RATE, "words": words})
        assert result["has_speech"] and result["speech_seconds"] == 0.7
    aligned = {"audio": syllables(tone(6.0)), "sampling_rate": RATE, "transcript": "so it was"}
    assert pipe(aligned, recognizer=Recognizer())["speech_seconds"] == 1.5
    # Without times, and with times that last nothing, the sound decides.
    words = [{"word": "so", "start": 1.0, "end": 1.0}]
    assert pipe({"audio": speech(6.0), "sampling_rate": RATE, "words": words})["speech_seconds"] > 4
    assert pipe(aligned)["speech_seconds"] == 0


@pytest.mark.parametrize("level", [0.0, 1e-5, 1.0])
@pytest.mark.parametrize("kind", [noise, tone])
@pytest.mark.parametrize("given", [{"words": [{"word": "so", "start": 0.5, "end": 2.5}]}, {"transcript": "so it was"}])
def test_nothing_is_said_in_silence_or_steady_noise_whatever_words_are_given(pipe, level, kind, given):
    item = {"audio": (level * kind(3.0)).astype(np.float32), "sampling_rate": RATE, **given}
    result = pipe(item, recognizer=Recognizer())
    assert not result["has_speech"] and result["speech_seconds"] == 0 and result["warnings"] == [NONE]
    assert result["intervals"] is None and result["percentiles"] is None
    assert result["texts"]["transcript"] == "given" and result["transcript"]


def test_words_are_no_longer_than_the_sound():
    words = [{"word": "a", "start": 0.0, "end": 0.8}, {"word": "b", "start": 0.2, "end": 1.0}]
    assert measured(syllables(noise(1.0))).speech_seconds(words) == 1


def test_a_window_without_speech_counts_nothing_in_the_means(sound_only):
    sound = np.concatenate([speech(9.0), 0.01 * noise(15.0), speech(11.0, 1)])
    result = sound_only(sound, sampling_rate=RATE)
    course = result["course"]
    assert {window["has_speech"] for window in course} == {True, False}
    ends = [*(window["start"] for window in course), course[-2]["end"], course[-1]["end"]]
    cuts = [round(end * RATE) for end in ends]
    spoken = np.array([measured(sound[a:b]).speech_seconds() for a, b in itertools.pairwise(cuts)])
    shared = np.array([1.0, *[0.5] * (len(course) - 1), 1.0]) * spoken
    weights = np.array([a + b for a, b in itertools.pairwise(shared)])
    is_silent = np.array([not window["has_speech"] for window in course])
    assert ([a + b < LEAST_SPEECH for a, b in itertools.pairwise(spoken)] == is_silent).all()
    for window, (a, b) in zip(course, itertools.pairwise(spoken), strict=True):
        assert window["speech_seconds"] == pytest.approx(a + b, abs=1e-3)
        assert window["warnings"] == speech_warnings(round(a + b, 3))
    weights[is_silent] = 0
    assert result["weighting"] == "seconds of speech"
    assert result["speech_seconds"] == pytest.approx(spoken.sum(), abs=1e-3)
    for label in LABELS:
        expected = np.average([window[label] for window in course], weights=weights)
        assert result[label] == pytest.approx(expected, abs=1e-6)


def test_a_little_speech_in_each_of_several_windows_is_speech_together(pipe):
    words = [{"word": "so", "start": start, "end": start + 0.3} for start in (3.0, 35.0)]
    result = pipe({"audio": syllables(noise(40.0)), "sampling_rate": RATE, "words": words})
    assert not any(window["has_speech"] for window in result["course"])
    assert result["has_speech"] and result["weighting"] == "seconds of speech"
    spoken = [window for window in result["course"] if window["transcript"]]
    assert len(spoken) < len(result["course"])
    for label in LABELS:
        assert min(w[label] for w in spoken) - 1e-6 <= result[label] <= max(w[label] for w in spoken) + 1e-6


def test_a_text_that_is_too_long_for_the_model_is_told():
    processor = tiny_processor("whisper")
    processor.max_tokens = 12
    pipe = MsfSerPipeline(tiny_model("whisper"), processor=processor, recognizer=None)
    for seconds in (3.0, 14.0):
        item = {"array": speech(seconds), "sampling_rate": RATE}
        assert pipe({"audio": item, "description": "the food " * 6})["warnings"] == []
        warnings = pipe({"audio": item, "description": "the food " * 7})["warnings"]
        assert warnings == ["The description is longer than the model reads: its end is left out."]


@pytest.mark.parametrize("letters", range(5, 12))
def test_a_text_of_bytes_is_too_long_with_its_two_special_tokens(letters):
    text = "a" * letters

    def tokenizer(text, **options):
        return {"input_ids": [0, *text.encode(), 2]}

    assert MsfSerProcessor.is_cut(SimpleNamespace(tokenizer=tokenizer, max_tokens=10), text) == (letters > 8)


def test_the_parts_of_a_sound_are_measured_as_the_whole():
    samples = np.concatenate([speech(20.0), too_loud(speech(9.0, 1)), np.zeros(3 * RATE, np.float32)])
    meter = SoundMeter()
    for part in np.split(samples, [5 * RATE, 11 * RATE, 20 * RATE, 26 * RATE]):
        meter.add(part)
    assert meter.warnings(meter.speech_seconds()) == warnings_of(samples) == [CLIPPED]
    assert meter.speech_seconds() == pytest.approx(measured(samples).speech_seconds(), abs=0.6)
    assert meter.seconds == pytest.approx(32.0)
    joined = SoundMeter()
    for part in np.split(samples, [5 * RATE, 11 * RATE, 20 * RATE, 26 * RATE]):
        joined.join(measured(part))
    assert joined.warnings(joined.speech_seconds()) == [CLIPPED]
    assert (joined.seconds, joined.speech_seconds()) == (meter.seconds, meter.speech_seconds())


@pytest.mark.skipif(not SPEECH.is_dir(), reason="there is no real speech beside the project")
def test_clean_speech_has_no_warning_and_its_distorted_copies_have_theirs():
    files = [path for name in ("ravdess", "emodb", "nemo") for path in sorted(SPEECH.glob(f"{name}/audio/*"))[:160:20]]
    sounds = [load_audio(path) for path in files]
    assert sum(bool(warnings_of(sound)) for sound in sounds) <= 1
    assert all(BAND in warnings_of(telephone(sound)) for sound in sounds)
    assert sum(CLIPPED in warnings_of(too_loud(sound, 44_100)) for sound in sounds) >= len(sounds) - 1
