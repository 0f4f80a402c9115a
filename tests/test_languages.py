"""Languages: what is taken for English, by constants that are those of the published measurement."""

import pytest

from msfser.evaluation.results import RESULTS, read
from msfser.languages_msfser import ENTROPY_WEIGHT, LEAST_CERTAINTY, is_surely_english, language_code


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
