"""Given word times: checked against the sound, kept as they are, and alike in short and long recordings."""

import re

import numpy as np
import pytest
from spoken import RATE, Recognizer, syllables, voice
from tiny import noise, tiny_model, tiny_processor

from msfser import LABELS, MsfSerPipeline
from msfser.annotator_msfser import MsfSerAnnotator
from msfser.word_times_msfser import check_words


def words_at(*times):
    return [{"word": f"w{i}", "start": start, "end": end} for i, (start, end) in enumerate(times)]


def made(model, **options):
    return MsfSerPipeline(model, processor=tiny_processor("whisper"), recognizer=Recognizer(), **options)


@pytest.fixture(scope="module")
def pipe():
    return made(tiny_model("whisper"))


@pytest.fixture(scope="module")
def sound_only():
    return made(tiny_model("whisper", semantics=[]))


def recording(seconds, **texts):
    return {"audio": syllables(voice(seconds)), "sampling_rate": RATE, **texts}


# Checks

WRONG = [
    (
        words_at((0.1, 0.4), (90.0, 90.5)),
        "the word 'w1' lasts from 90 to 90.5 s, but the sound has only {} s: give sec",
    ),
    (words_at((100.0, 400.0), (500.0, 900.0)), "the word 'w0' lasts from 100 to 400 s, .* milliseconds; give seconds"),
    (words_at((0.6, 0.8), (0.1, 0.4)), "the word 'w1' starts at 0.1 s, before 'w0' at 0.6 s: give the words in"),
    (words_at((0.1, 99.0)), "the word 'w0' lasts from 0.1 to 99 s"),
]


@pytest.mark.parametrize("seconds", [2.0, 14.0])
@pytest.mark.parametrize(("words", "sentence"), WRONG)
def test_times_that_do_not_fit_the_sound_are_a_sentence(pipe, sound_only, seconds, words, sentence):
    for model in (pipe, sound_only):
        with pytest.raises(ValueError, match=sentence.format(f"{seconds:.2f}")):
            model(recording(seconds, words=words))
        (result,) = model([recording(seconds, words=words)], errors="return")
        assert re.match(sentence.format(f"{seconds:.2f}"), result["error"])


@pytest.mark.parametrize(("words", "sentence"), WRONG)
def test_the_annotator_checks_them_too(words, sentence):
    with pytest.raises(ValueError, match=sentence.format("1.00")):
        MsfSerAnnotator(None)([noise(1.0)], [{"words": words}])


def test_words_may_overlap_and_end_a_little_after_the_sound():
    check_words(words_at((0.0, 0.5), (0.4, 0.9), (0.4, 0.8), (0.95, 1.2)), 1.0)
    check_words([], 1.0)
    with pytest.raises(ValueError, match="'w0' lasts from 1 to 1 s"):
        check_words(words_at((1.0, 1.0)), 1.0)


@pytest.mark.parametrize("seconds", [2.0, 14.0])
def test_a_word_may_have_no_duration(pipe, seconds):
    words = words_at((0.3, 0.3), (0.6, 0.9), (1.2, 1.2), (1.4, 1.7))
    result = pipe(recording(seconds, words=words))
    assert [(word["start"], word["end"]) for word in result["words"]] == [(w["start"], w["end"]) for w in words]


# Short and long alike

TIMES = [(0.123456, 0.7), (1.0, 1.9), (6.2, 6.9), (11.7, 12.5), (12.6, 13.2), (13.95, 14.2)]


def test_given_times_are_not_altered_in_a_long_recording(pipe):
    words = words_at(*TIMES)
    result = pipe(recording(14.0, words=words))
    assert [{name: word[name] for name in ("word", "start", "end")} for word in result["words"]] == words
    # None is lost, wherever the segments end; the middle of the last one lies after the sound.
    read = {word for window in result["course"] for word in (window["transcript"] or "").split()}
    assert read == {word["word"] for word in words}
    short = pipe(recording(2.0, words=words[:2]))
    assert [(word["start"], word["end"]) for word in short["words"]] == TIMES[:2]


def test_a_word_across_segments_weighs_as_it_is_given(pipe):
    words = words_at((5.5, 6.5), (8.0, 9.0), (11.7, 12.5), (15.0, 15.5))
    result = pipe({"audio": syllables(noise(18.0)), "sampling_rate": RATE, "words": words})
    course = result["course"]
    assert result["weighting"] == "seconds of speech" and len(course) >= 2
    inside = [[word["word"] in (window["transcript"] or "").split() for window in course] for word in words]
    seconds = [word["end"] - word["start"] for word in words]
    weights = [sum(s * row[k] / sum(row) for s, row in zip(seconds, inside, strict=True)) for k in range(len(course))]
    assert min(map(sum, inside)) >= 1
    for label in LABELS:
        expected = np.average([window[label] for window in course], weights=weights)
        assert result[label] == pytest.approx(expected, abs=1e-9)
    assert result["speech_seconds"] == pytest.approx(sum(seconds))


@pytest.mark.parametrize("seconds", [5.0, 14.0])
def test_a_model_that_reads_no_words_returns_the_given_texts(sound_only, seconds):
    texts = {"transcript": "the food was wonderful", "emphasis": "food", "description": "a b"}
    result = sound_only(recording(seconds, **texts))
    assert {name: result[name] for name in texts} == texts
    assert result["texts"] == {
        "transcript": "given",
        "words": "absent: the model does not read it",
        "emphasis": "given",
        "description": "given",
    }
    assert result["words"] == [] and result["gate"] is None
    with_words = sound_only(recording(seconds, words=words_at((0.5, 1.0), (3.0, 3.5))))
    assert [(word["start"], word["end"]) for word in with_words["words"]] == [(0.5, 1.0), (3.0, 3.5)]
    assert with_words["transcript"] == "w0 w1" and with_words["speech_seconds"] == 1.0
    assert with_words["texts"]["words"] == with_words["texts"]["transcript"] == "given"


@pytest.mark.parametrize("seconds", [5.0, 14.0])
def test_a_given_transcript_with_words_stays_as_it_is_written(pipe, seconds):
    words = words_at((0.5, 1.0), (3.0, 3.5))
    for transcript in ("W0 -  w1!", "w0 -  w1!"):
        result = pipe(recording(seconds, words=words, transcript=transcript))
        assert result["transcript"] == transcript and result["texts"]["transcript"] == "given"
    window = (result.get("course") or [result])[0]
    assert window["transcript"] == "w0 -  w1!"


def test_fields_are_the_same_for_short_and_long(pipe):
    short, long = pipe(recording(5.0)), pipe(recording(14.0))
    assert set(long) - set(short) == {"course", "weighting"} and set(short) <= set(long)
    assert [type(long[name]) for name in short] == [type(short[name]) for name in short]


def test_a_given_emphasis_that_is_not_spoken_is_told(pipe):
    words = words_at((0.5, 1.0), (3.0, 3.5), (9.0, 9.5))
    spoken = pipe(recording(14.0, words=words, emphasis="w1"))
    assert not any("emphasis" in warning for warning in spoken["warnings"])
    lost = pipe(recording(14.0, words=words, emphasis="elsewhere"))
    assert "The given emphasis is not among the words with times: it is not used." in lost["warnings"]
    assert lost["texts"]["emphasis"] == "found"
