"""Shapley values of the inputs against their definition, and the contributions of words."""

import itertools
import math

import numpy as np
import pytest
import torch
from spoken import RATE, Recognizer, voice
from test_half_precision import TEXTS, inputs_for, spread
from tiny import tiny_processor

from msfser import LABELS, MsfSerPipeline
from msfser.contributions_msfser import shapley_values
from msfser.word_times_msfser import join_words

SWITCHES = pytest.mark.parametrize(
    "switches",
    [
        {},
        {"film_position": "frames", "audio_states": "weighted", "routing": "input"},
        {"cross_fusion": "film", "film_position": "frames"},
        {"cross_fusion": "film", "film_position": "frames", "semantics": ["es"]},
        {"film_position": "frames", "semantics": ["gs", "es"]},
        {"cross_fusion": "attention", "intra_fusion": "attention"},
        {"cross_fusion": "concat", "intra_fusion": "concat", "semantics": ["les", "gs"]},
        {"audio": False},
    ],
    ids=["default", "frames", "film", "film_of_es", "frames_without_les", "attention", "concat", "texts"],
)
ABSENT = {2: ("gs",), 1: ("les",)}  # of the items of TEXTS


def explained(model, inputs):
    with torch.inference_mode():
        return model(**inputs, output_contributions=True)


def only(inputs, names):
    """The inputs of which all but some are absent, for each item."""
    masks = {"audio": "attention_mask", **{name: f"{name}_attention_mask" for name in ("les", "gs", "es")}}
    return {
        key: torch.zeros_like(value) if key in masks.values() and key not in [masks[n] for n in names] else value
        for key, value in inputs.items()
    }


def inputs_of(model):
    return [*(["audio"] if model.config.audio else []), *model.config.semantics]


def by_definition(value, players):
    """`(players, ...)`: the mean gain over all orders in which the players can come."""
    found = []
    for player in players:
        gains = []
        for order in itertools.permutations(players):
            before = order[: order.index(player)]
            gains.append(value(frozenset({*before, player})) - value(frozenset(before)))
        found.append(sum(gains) / math.factorial(len(players)))
    return found


@pytest.mark.parametrize("players", [1, 2, 3, 4])
def test_values_of_a_random_game_are_those_of_the_definition(players):
    generator = np.random.default_rng(players)
    worth = generator.normal(size=(2**players, 5))

    def value(some):
        return worth[sum(1 << player for player in some)]

    found = shapley_values(torch.tensor(worth))
    assert found.shape == (5, players)
    np.testing.assert_allclose(found.T, by_definition(value, range(players)), atol=1e-12)


def test_players_who_do_the_same_get_the_same_and_dummies_nothing():
    # Bits 0 and 1 are exchangeable, and bit 2 changes nothing.
    worth = torch.tensor([0.0, 1.0, 1.0, 5.0, 0.0, 1.0, 1.0, 5.0])
    assert shapley_values(worth).tolist() == pytest.approx([2.5, 2.5, 0.0])


@SWITCHES
@pytest.mark.parametrize("encoder", ["wavlm", "whisper"])
def test_contributions_are_those_of_the_definition_on_the_model_itself(encoder, switches):
    model, inputs = spread(encoder, **switches), inputs_for(encoder)
    found = explained(model, inputs)
    names = inputs_of(model)

    @torch.inference_mode()
    def value(some):
        if not some:
            return found.baseline.double()
        model._check_present = lambda present: None  # an item may lack all that is left
        return model(**only(inputs, some)).logits.double()

    expected = torch.stack(by_definition(value, names), dim=-1)
    assert found.contributions.shape == (3, 3, len(names))
    torch.testing.assert_close(found.contributions.double(), expected, atol=2e-6, rtol=0)
    assert found.contributions.abs().amax((0, 1)).min() > 1e-3


@SWITCHES
def test_they_add_up_and_the_baseline_is_one_for_all_items(switches):
    model, inputs = spread("whisper", **switches), inputs_for("whisper")
    found = explained(model, inputs)
    torch.testing.assert_close(found.baseline + found.contributions.sum(-1), found.logits, atol=2e-5, rtol=0)
    torch.testing.assert_close(found.baseline, found.baseline[:1].expand(3, 3), atol=2e-5, rtol=0)
    assert torch.equal(found.logits, model(**inputs).logits)


@SWITCHES
def test_an_absent_input_has_none_and_a_batch_changes_nothing(switches):
    model, processor = spread("whisper", **switches), tiny_processor("whisper")
    names = inputs_of(model)
    batched = explained(model, inputs_for("whisper")).contributions
    for item, absent in ABSENT.items():
        for name in set(absent) & set(names):
            assert (batched[item, :, names.index(name)] == 0).all()
        sound = voice(1.0, item)
        texts = {name: column[item] for name, column in TEXTS.items()}
        alone = explained(model, processor(sound, sampling_rate=RATE, **texts))
        pair = explained(model, processor([sound, voice(1.4)], sampling_rate=RATE, **_both(texts)))
        torch.testing.assert_close(alone.contributions[0], pair.contributions[0], atol=2e-5, rtol=0)


def _both(texts):
    return {name: [text, "j j j"] for name, text in texts.items()}


def test_an_input_whose_weights_are_zero_contributes_nothing():
    model = spread("whisper", cross_fusion="concat")
    width = model.config.fusion_size
    with torch.no_grad():
        model.cross_fusion.project.weight[:, list(model.cross_fusion.experts).index("description") * width :][
            :, :width
        ] = 0
    found = explained(model, inputs_for("whisper")).contributions
    place = inputs_of(model).index("es")
    assert found[..., place].abs().max() < 1e-7 < found[..., 0].abs().max()


def test_equal_texts_with_equal_weights_contribute_equally():
    model = spread("whisper", intra_fusion="attention")  # symmetric in its texts
    with torch.no_grad():
        model.missing_text["les"].embedding.copy_(model.missing_text["gs"].embedding)
    inputs = tiny_processor("whisper")(voice(1.0), sampling_rate=RATE, transcript="a b", emphasis="a b")
    les, gs = (inputs_of(model).index(name) for name in ("les", "gs"))
    found = explained(model, inputs).contributions[0]
    torch.testing.assert_close(found[:, les], found[:, gs], atol=1e-6, rtol=0)
    assert found[:, les].abs().max() > 1e-3


@pytest.mark.parametrize("precision", [torch.bfloat16, torch.float16])
def test_half_precision_adds_up_and_is_near(precision):
    inputs = inputs_for("whisper")
    expected = explained(spread("whisper"), inputs)
    found = explained(spread("whisper").to(precision), inputs)
    torch.testing.assert_close(found.baseline + found.contributions.sum(-1), found.logits, atol=1e-6, rtol=0)
    torch.testing.assert_close(found.contributions, expected.contributions, atol=0.03, rtol=0)
    assert (found.contributions[2, :, inputs_of(spread()).index("gs")] == 0).all()


def test_they_need_evaluation_mode_and_are_made_on_request_only():
    model, inputs = spread("whisper"), inputs_for("whisper")
    assert model(**inputs).contributions is None and model(**inputs).baseline is None
    with pytest.raises(ValueError, match=r"model\.eval\(\)"):
        model.train()(**inputs, output_contributions=True)


# The pipeline


def pipe_of(**switches):
    return MsfSerPipeline(
        spread("whisper", **switches),
        processor=tiny_processor("whisper"),
        recognizer=Recognizer(),
        describer="measured",
        sampling_rate=RATE,
    )


@pytest.fixture(scope="module")
def pipe():
    return pipe_of()


def adds_up(result):
    for label in LABELS:
        total = result["baseline"][label] + sum(result["contributions"][label].values())
        assert total == pytest.approx(result[label], abs=1e-6)


def test_a_result_names_the_inputs_that_the_recording_has(pipe):
    short, silent = pipe([voice(3.0), {"audio": voice(2.0), "emphasis": None}], batch_size=2)
    for result in (short, silent):
        adds_up(result)
        assert list(result["contributions"]) == [*LABELS]
        assert list(result["contributions"]["arousal"]) == ["sound", "transcript", "emphasis", "description"]
    deaf = pipe(voice(2.0), recognizer=None, describer=None)
    adds_up(deaf)
    assert list(deaf["contributions"]["valence"]) == ["sound"]
    assert deaf["baseline"] == pytest.approx(short["baseline"], abs=1e-6)
    one_input = pipe_of(semantics=[])(voice(2.0), word_contributions=True)
    assert one_input["contributions"] is one_input["baseline"] is one_input["word_contributions"] is None


def test_a_long_recording_has_means_and_each_window_its_own(pipe):
    sound = np.concatenate([voice(9.0), np.zeros(14 * RATE, np.float32), voice(9.0, 1)])
    result = pipe(sound)
    course = result["course"]
    assert len({tuple(window["contributions"]["valence"]) for window in course}) > 1  # not all have words
    for part in (result, *course):
        adds_up(part)
    assert list(result["contributions"]["dominance"]) == ["sound", "transcript", "emphasis", "description"]
    assert "word_contributions" not in result and "word_contributions" not in course[0]


def test_the_contribution_of_a_word_is_the_number_minus_that_without_it(pipe):
    words = ["the", "food", "was", "wonderful"]
    given = {"audio": voice(2.0), "transcript": " ".join(words), "emphasis": "food", "description": "a b"}
    result, other = pipe([given, voice(1.0)], batch_size=2, word_contributions=True)
    assert [word["text"] for word in result["word_contributions"]] == words
    for i, word in enumerate(result["word_contributions"]):
        without = pipe({**given, "transcript": " ".join(words[:i] + words[i + 1 :])}, describer=None)
        for label in LABELS:
            assert word[label] == pytest.approx(result[label] - without[label], abs=1e-5)
    adds_up(result)
    assert [word["text"] for word in other["word_contributions"]] == ["the"]
    assert max(abs(word["valence"]) for word in result["word_contributions"]) > 1e-4


def test_many_words_are_left_out_by_phrases_and_without_words_there_is_nothing(pipe):
    text = " ".join("abcdefghij"[i % 10] for i in range(75))
    result = pipe({"audio": voice(3.0), "transcript": text}, word_contributions=True)
    phrases = [word["text"] for word in result["word_contributions"]]
    assert join_words(phrases) == text and len(phrases) == 38
    assert pipe(voice(1.0), recognizer=None, word_contributions=True)["word_contributions"] is None
    texts_only = pipe_of(audio=False)
    alone = texts_only({"audio": voice(1.0), "transcript": "wonderful"}, describer=None, word_contributions=True)
    assert alone["word_contributions"] is None


def test_windows_have_the_contributions_of_their_words(pipe):
    result = pipe(voice(30.0), word_contributions=True)
    assert "word_contributions" not in result
    for window in result["course"]:
        assert join_words(word["text"] for word in window["word_contributions"]) == window["transcript"]


def test_a_model_that_returns_tuples_has_them_too():
    pipe = pipe_of()
    item = {"audio": voice(1.0), "transcript": "the food was"}
    plain = pipe(item, word_contributions=True)
    pipe.model.config.return_dict = False
    assert pipe(item, word_contributions=True) == plain


def test_the_option_is_checked(pipe):
    with pytest.raises(ValueError, match="word_contributions='all' is neither"):
        pipe(voice(1.0), word_contributions="all")
