"""Languages: what is taken for English, by the constants of the published measurement; words that are not read."""

import dataclasses
import json

import numpy as np
import pytest
from spoken import RATE, Recognizer, voice
from tiny import tiny_model, tiny_processor

from msfser import LABELS, MsfSerPipeline, MsfSerProcessor
from msfser.evaluation.results import RESULTS, read
from msfser.languages_msfser import ENTROPY_WEIGHT, LEAST_CERTAINTY, is_surely_english, language_code, why_not_read


def test_the_constants_are_those_that_were_measured():
    rows = read(RESULTS / "english.json")
    assert rows["entropy_weight"]["value"] == pytest.approx(ENTROPY_WEIGHT, abs=0.0005)
    assert rows["least_certainty"]["value"] == pytest.approx(LEAST_CERTAINTY, abs=0.0005)


def test_doubt_of_either_kind_is_no_english():
    assert is_surely_english(-0.2, 0.3)
    assert not is_surely_english(-0.2, (-0.2 - LEAST_CERTAINTY) / ENTROPY_WEIGHT + 0.01)
    assert not is_surely_english(LEAST_CERTAINTY + ENTROPY_WEIGHT * 0.3 - 0.01, 0.3)


def test_codes_and_names():
    assert [language_code(name) for name in ("de", "German", "en-US", "pt_BR", None)] == ["de", "de", "en", "pt", None]
    with pytest.raises(ValueError, match="language='klingon' is not a language that Whisper knows"):
        language_code("klingon")


def test_words_are_left_out_only_where_another_language_is_stated():
    assert (
        why_not_read("ko", ["en"]) == why_not_read("Korean", ["en"]) == "in Korean, and the model reads only English"
    )
    assert why_not_read("en-US", ["de", "en"]) is None and why_not_read(None, ["en"]) is None
    assert why_not_read("klingon", None) is None
    with pytest.raises(ValueError, match="language='klingon' is not a language that Whisper knows"):
        why_not_read("klingon", ["en"])


@pytest.fixture(scope="module")
def english():
    """A pipeline whose model reads English."""
    made = tiny_processor("whisper")
    processor = MsfSerProcessor(made.feature_extractor, made.tokenizer, text_languages=["English"])
    return MsfSerPipeline(tiny_model("whisper"), processor=processor)


WORDS = [{"word": "the", "start": 0.2, "end": 0.6}, {"word": "food", "start": 0.8, "end": 1.2}]
GIVEN = {"transcript": "the food", "words": WORDS, "emphasis": "food", "description": "a b c"}


@pytest.mark.parametrize("seconds", [2.0, 14.0])
def test_given_words_in_another_language_are_not_read(english, seconds):
    recognizer = Recognizer()
    sound = {"audio": voice(seconds), "sampling_rate": RATE}
    for stated, options in (({"language": "ko"}, {}), ({}, {"language": "Korean"})):
        result = english(sound | GIVEN | stated, recognizer=recognizer, **options)
        alone = english({**sound, "description": "a b c"}, recognizer=None)
        assert [result[name] for name in LABELS] == [alone[name] for name in LABELS]
        assert not result["words"] and result["transcript"] is result["emphasis"] is None
        reason = "absent: in Korean, and the model reads only English"
        texts = result["texts"]
        assert texts["transcript"] == texts["words"] == texts["emphasis"] == reason
        assert texts["description"] == "given" and result["description"] == "a b c"
    assert not recognizer.calls


class German(Recognizer):
    """Detects German."""

    def transcription(self, words):
        found = super().transcription(words)
        return dataclasses.replace(found, language=None if found.text is None else "de")


@pytest.mark.parametrize("seconds", [2.0, 14.0])
def test_recognized_words_in_a_language_that_is_not_read_are_left_out(english, seconds):
    sound = {"audio": voice(seconds), "sampling_rate": RATE}
    result = english(sound, recognizer=German())
    assert not result["words"] and result["transcript"] is result["emphasis"] is None
    reason = "absent: in German, and the model reads only English"
    assert result["texts"]["transcript"] == result["texts"]["emphasis"] == reason
    assert english(sound, recognizer=Recognizer())["transcript"]
    assert any_language()(sound, recognizer=German())["transcript"]


def any_language() -> MsfSerPipeline:
    return MsfSerPipeline(tiny_model("whisper"), processor=tiny_processor("whisper"))


def test_given_words_are_read_in_english_and_where_no_language_is_stated(english):
    sound = {"audio": voice(2.0), "sampling_rate": RATE} | GIVEN
    results = [english(sound | more, recognizer=None) for more in ({}, {"language": "en-US"}, {"language": "english"})]
    assert results[0] == results[1] == results[2] and results[0]["texts"]["transcript"] == "given"
    with pytest.raises(ValueError, match="language='klingon' is not a language that Whisper knows"):
        english(sound | {"language": "klingon"}, recognizer=None)


def test_a_model_that_reads_no_words_says_so_in_every_language(english):
    ser = MsfSerPipeline(tiny_model("whisper", semantics=["es"]), processor=english.processor)
    texts = ser({"audio": voice(2.0), "sampling_rate": RATE, "language": "ko"}, recognizer=None)["texts"]
    assert texts["transcript"] == "absent: the model does not read it"


def test_a_processor_keeps_its_languages_and_older_ones_have_none(english, tmp_path):
    english.processor.save_pretrained(tmp_path)
    assert MsfSerProcessor.from_pretrained(tmp_path).text_languages == ["en"]
    tiny_processor("whisper").save_pretrained(tmp_path / "any")
    file = tmp_path / "any" / "processor_config.json"
    settings = json.loads(file.read_text())
    assert settings.pop("text_languages", None) is None
    file.write_text(json.dumps(settings))
    loaded = MsfSerProcessor.from_pretrained(tmp_path / "any")
    assert loaded.text_languages is None
    ser = MsfSerPipeline(english.model, processor=loaded)
    result = ser({"audio": voice(2.0), "sampling_rate": RATE, "language": "ko"} | GIVEN, recognizer=None)
    assert result["texts"]["transcript"] == "given" and np.isfinite([result[name] for name in LABELS]).all()
