"""Sound and three texts to the model's inputs, and rows of a corpus to a batch."""

import numpy as np
import pytest
import torch
from tiny import noise, tiny_processor
from tokenizers.processors import TemplateProcessing
from transformers import AutoProcessor

from msfser import MsfSerCollator, MsfSerProcessor, feature_extraction_msfser, from_scale, to_scale
from msfser.configuration_msfser import TENSOR_NAMES
from msfser.processing_msfser import labels_of

RATE = 16_000
every_encoder = pytest.mark.parametrize("encoder", ["wavlm", "whisper"])


def words(processor, inputs, prefix: str) -> list[str]:
    """What the model reads of a text, item by item."""
    rows = zip(inputs[f"{prefix}_input_ids"], inputs[f"{prefix}_attention_mask"], strict=True)
    return [processor.tokenizer.decode(ids[mask.bool()]) for ids, mask in rows]


# Which inputs come out


def test_each_text_arrives_under_its_own_name():
    processor = tiny_processor()
    inputs = processor(noise(0.6), RATE, transcript="a b c d", emphasis="c", description="e")
    assert sorted(inputs) == sorted(processor.model_input_names)
    assert {prefix: words(processor, inputs, prefix) for prefix in TENSOR_NAMES.values()} == {
        "gs": ["a b c d"],
        "les": ["c"],
        "es": ["e"],
    }
    assert all(isinstance(value, torch.Tensor) for value in inputs.values())


@every_encoder
@pytest.mark.parametrize("given", ["audio", *TENSOR_NAMES])
def test_one_input_alone_is_enough(encoder, given):
    inputs = tiny_processor(encoder)(**{given: noise(0.6) if given == "audio" else "e"}, sampling_rate=RATE)
    if given == "audio":
        assert set(inputs) == {"input_features" if encoder == "whisper" else "input_values", "attention_mask"}
    else:
        assert set(inputs) == {f"{TENSOR_NAMES[given]}_input_ids", f"{TENSOR_NAMES[given]}_attention_mask"}


def test_a_text_may_be_missing_for_an_item():
    processor = tiny_processor()
    inputs = processor(transcript=["a b", None, "", "  ", float("nan"), " c d "], description=["e"] * 6)
    assert words(processor, inputs, "gs") == ["a b", "", "", "", "", "c d"]
    assert words(processor, inputs, "es") == ["e"] * 6


def test_a_missing_text_has_no_token_not_even_the_tokenizers_own():
    processor = tiny_processor()
    processor.tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    inputs = processor(transcript=["a", None, "b c"], description=["d", "e", "f"])
    assert inputs["gs_attention_mask"].tolist() == [[1, 1, 1, 0], [0, 0, 0, 0], [1, 1, 1, 1]]


@pytest.mark.parametrize("absent", [None, "", "  ", float("nan"), [None], [""]])
def test_a_text_that_no_item_has_is_left_out(absent):
    assert set(tiny_processor()(noise(0.6), RATE, transcript=absent)) == {"input_values", "attention_mask"}


@every_encoder
def test_a_batch_equals_its_items_alone(encoder):
    processor = tiny_processor(encoder)
    sounds = [noise(0.7, 1), None, noise(1.2, 2)]
    texts = {
        "transcript": ["a b c d", "a", None],
        "emphasis": [None, "b c", None],
        "description": ["e", None, "e f g"],
    }
    together = processor(sounds, RATE, **texts)
    for i, sound in enumerate(sounds):
        alone = processor(sound, RATE, **{name: column[i] for name, column in texts.items()})
        for name, value in together.items():
            mask_name = name.replace("input_ids", "attention_mask")
            mask = together[mask_name if mask_name.endswith("attention_mask") else "attention_mask"][i].bool()
            if mask.any():
                assert torch.equal(value[i][mask], alone[name][0])
            else:
                assert name not in alone


def test_a_long_text_is_cut():
    processor = tiny_processor()
    processor.max_tokens = 3
    assert words(processor, processor(transcript="a b c d e"), "gs") == ["a b c"]


def test_texts_are_padded_behind_their_end():
    """A BERT counts positions from the first token, so that padding before it would change the number."""
    processor, texts = tiny_processor(), ["a b c d", "e"]
    expected = processor(transcript=texts)
    processor.tokenizer.padding_side = "left"
    found = processor(transcript=texts, text_kwargs={"padding_side": "right"})
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    with pytest.raises(ValueError, match="padding_side='left' gives wrong numbers"):
        processor(transcript=texts, text_kwargs={"padding_side": "left"})


def test_absent_texts_are_masked_whatever_the_tokenizer_returns():
    processor = tiny_processor()
    processor.tokenizer.model_input_names = ["input_ids"]
    assert processor(transcript=["a b", None], emphasis=["a", "b"])["gs_attention_mask"].tolist() == [[1, 1], [0, 0]]


def test_no_length_is_that_of_the_processor():
    processor = tiny_processor()
    processor.max_tokens = 4
    for options in ({}, {"pad_to_multiple_of": 2}):
        found = processor(transcript="a b c d e", text_kwargs={"max_length": None, **options})
        assert words(processor, found, "gs") == ["a b c d"]
    for given in ({"max_length": 0}, {"text_kwargs": {"max_length": -1}}):
        with pytest.raises(ValueError, match=r"max_length=(0|-1) leaves the texts no token: give 1 or more"):
            processor(transcript="a b", **given)


@pytest.mark.parametrize("as_column", [tuple, np.array, iter], ids=["tuple", "array", "iterator"])
def test_columns_may_be_any_sequence(as_column):
    processor = tiny_processor()
    inputs = processor((noise(0.6), noise(0.7)), RATE, transcript=as_column(["a", "b c"]))
    assert words(processor, inputs, "gs") == ["a", "b c"]


# Errors


@pytest.mark.parametrize(
    ("inputs", "sentence"),
    [
        ({}, "There is no input"),
        ({"audio": []}, "There is no input"),
        ({"audio": [noise(0.6)] * 2, "transcript": "a"}, "differ in length: {'audio': 2, 'transcript': 1}"),
        ({"emphasis": ["a"], "description": ["a", "b"]}, "differ in length"),
        ({"audio": [noise(0.6), None], "transcript": ["a", None]}, "Item 1 has neither sound nor text"),
        ({"transcript": ["a", "b", " "], "description": ["a", None, float("nan")]}, "Item 2 has neither"),
        ({"audio": [noise(0.6), np.array([np.nan])]}, "Audio item 1: .*not finite"),
        ({"audio": "missing.wav", "transcript": "a"}, "Audio item 0: there is no file 'missing.wav'"),
        ({"transcript": ["a", 5]}, "transcript of item 1 is int"),
        ({"emphasis": ["a", ["b"]]}, "emphasis of item 1 is list"),
        ({"description": 5}, "description of item 0 is int"),
    ],
)
def test_wrong_inputs_are_a_clear_error(inputs, sentence):
    with pytest.raises(ValueError, match=sentence):
        tiny_processor()(**inputs, sampling_rate=RATE if "missing.wav" not in inputs.values() else None)


# Saving and loading


@every_encoder
@pytest.mark.parametrize("auto", [AutoProcessor, MsfSerProcessor])
def test_saving_and_loading_keeps_the_processor(encoder, auto, tmp_path):
    before = tiny_processor(encoder)
    before.max_tokens = 4
    before.save_pretrained(tmp_path)
    after = auto.from_pretrained(tmp_path)
    assert type(after) is MsfSerProcessor
    assert after.max_tokens == 4
    assert after.feature_extractor.to_dict() == before.feature_extractor.to_dict()
    assert after.tokenizer.get_vocab() == before.tokenizer.get_vocab()
    given = {"audio": [noise(0.6), noise(1.1)], "sampling_rate": RATE, "transcript": ["a b c d e f", None]}
    expected, found = before(**given), after(**given)
    assert set(found) == set(expected)
    assert all(torch.equal(found[name], value) for name, value in expected.items())


# Rows of a corpus


def row(i: int, **fields) -> dict:
    sound = {"array": noise(0.6 + 0.1 * i, i), "sampling_rate": RATE}
    labels = {"valence": 0.1 * i, "arousal": 0.5, "dominance": 1.0}
    return {"audio": sound, "transcript": "a b", "speaker": f"s{i}", **labels} | fields


def test_the_collator_makes_the_processors_inputs_and_labels():
    processor = tiny_processor()
    rows = [row(0, description="e"), row(1, transcript=None), row(2, audio=None)]
    batch = MsfSerCollator(processor)(rows)
    expected = processor(
        [rows[0]["audio"], rows[1]["audio"], None],
        transcript=["a b", None, "a b"],
        description=["e", None, None],
    )
    assert set(batch) == {*expected, "labels"}
    assert all(torch.equal(batch[name], value) for name, value in expected.items())
    torch.testing.assert_close(batch["labels"], torch.tensor([[0.0, 0.5, 1.0], [0.1, 0.5, 1.0], [0.2, 0.5, 1.0]]))
    assert batch["labels"].dtype == torch.float32


def test_partly_labeled_rows_are_an_error():
    with pytest.raises(ValueError, match=r"Row 1 .* no arousal"):
        labels_of([row(0), row(1, arousal=None)])


def test_rows_without_labels_give_none():
    rows = [row(i, valence=None, arousal=None, dominance=None) for i in range(2)]
    assert labels_of(rows) is None
    assert "labels" not in MsfSerCollator(tiny_processor())(rows)


def test_the_collator_names_the_item_that_fails():
    with pytest.raises(ValueError, match=r"Audio item 1: .*empty"):
        MsfSerCollator(tiny_processor())([row(0), row(1, audio={"array": np.zeros(0), "sampling_rate": RATE})])


# Scales


@pytest.mark.parametrize(("low", "high"), [(1, 7), (1.0, 5.0), (-1, 1), (0, 100)])
@pytest.mark.parametrize(
    "values", [0.3, np.linspace(0, 1, 5), torch.linspace(0, 1, 5)], ids=["float", "numpy", "torch"]
)
def test_to_scale_and_from_scale_are_inverse(low, high, values):
    assert (to_scale(0.0, low, high), to_scale(1.0, low, high)) == (low, high)
    assert (from_scale(low, low, high), from_scale(high, low, high)) == (0.0, 1.0)
    back = from_scale(to_scale(values, low, high), low, high)
    assert type(back) is type(values) or np.isscalar(back)
    np.testing.assert_allclose(back, values, atol=1e-6)


@pytest.mark.parametrize("convert", [to_scale, from_scale])
@pytest.mark.parametrize(("low", "high"), [(1, 1), (7, 1), (float("nan"), 1)])
def test_a_scale_without_extent_is_a_clear_error(convert, low, high):
    with pytest.raises(ValueError, match="lower to its upper end"):
        convert(0.5, low, high)


def test_the_processor_warns_of_cut_sounds_and_training_does_not(monkeypatch):
    warnings = []
    monkeypatch.setattr(feature_extraction_msfser.logger, "warning", warnings.append)
    processor = tiny_processor()
    processor.feature_extractor.max_seconds = 1.0
    MsfSerCollator(processor)([row(0, audio={"array": noise(1.4), "sampling_rate": RATE})])
    processor(noise(1.4), RATE, warn_if_cut=False)
    processor(noise(0.9), RATE)
    assert not warnings
    processor([noise(1.4)] * 2, RATE, transcript=["a", "b"])
    assert len(warnings) == 1 and warnings[0].startswith("2 of 2 sounds")


def test_texts_are_padded_to_a_multiple_that_does_not_divide_their_longest():
    processor = tiny_processor()
    padded = processor(transcript=["a b c", "a " * 300], pad_to_multiple_of=7)
    assert padded["gs_input_ids"].shape[1] == processor.max_tokens // 7 * 7
    assert processor(transcript="a b c", pad_to_multiple_of=7)["gs_input_ids"].shape == (1, 7)
    with pytest.raises(ValueError, match=r"pad_to_multiple_of=9000 is more than max_length=\d+ of the texts"):
        processor(transcript="a b c", pad_to_multiple_of=9000)
