import copy

import pytest
import torch
from conftest import noise, tiny_model, tiny_processor

from msfser import MsfSerModel
from msfser.pipeline_msfser import MsfSerPipeline

KINDS = ["wavlm", "hubert", "data2vec-audio", "wav2vec2_group_norm", "whisper"]


def inputs(kind: str):
    sounds = [noise(seconds, i) for i, seconds in enumerate((2.1, 0.7, 1.4))]
    texts = {"transcript": ["the food was wonderful", "a b", None], "description": ["a b c d", None, "the food"]}
    return tiny_processor(kind)(sounds, sampling_rate=16_000, emphasis=["wonderful", "b", "c"], **texts)


def strong(model: MsfSerModel) -> MsfSerModel:
    """Heads that tell their inputs apart."""
    with torch.no_grad():
        for head in model.heads.values():
            head.out.weight.normal_(std=1.0)
    return model


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("gradients", [False, True])
def test_predictions_stay_close_and_the_encoders_are_8_bit(kind, gradients):
    model = strong(tiny_model(kind))
    before = copy.deepcopy(model)
    assert model.quantize() is model and model.quantize().is_8_bit
    for encoder in (model.audio_encoder, model.text_encoder):
        left = [name for name, module in encoder.named_modules() if isinstance(module, torch.nn.Linear)]
        assert all(name.endswith("gru_rel_pos_linear") for name in left), left
    assert all(type(head.out) is torch.nn.Linear for head in model.heads.values())
    with torch.set_grad_enabled(gradients):
        expected, found = before(**inputs(kind)).logits, model(**inputs(kind)).logits
    assert 0 < (expected - found).abs().max() < 0.05
    assert expected.std(0).min() > 0.005


def test_the_stock_attention_is_replaced_too():
    model, stock = strong(tiny_model(fast_encoders=False)), strong(tiny_model(fast_encoders=False))
    with torch.no_grad():
        assert (model.quantize()(**inputs("wavlm")).logits - stock(**inputs("wavlm")).logits).abs().max() < 0.05


def test_text_alone_and_sound_alone():
    for switches in ({"audio": False}, {"semantics": []}):
        model = tiny_model(**switches).quantize()
        with torch.no_grad():
            assert model(**inputs("wavlm")).logits.isfinite().all()


def test_the_pipeline_runs_with_it():
    model, processor = tiny_model(), tiny_processor()
    pipe = MsfSerPipeline(model=model, processor=processor, recogniser=None, sampling_rate=16_000)
    before = pipe(noise(2.0))
    pipe.model.quantize()
    assert pipe(noise(2.0))["arousal"] == pytest.approx(before["arousal"], abs=0.05)


def test_it_can_neither_be_trained_nor_saved_nor_made_of_half_precision(tmp_path):
    model = tiny_model().quantize()
    with pytest.raises(ValueError, match="cannot be saved: save it before"):
        model.save_pretrained(tmp_path / "model")
    assert not (tmp_path / "model").exists()
    with pytest.raises(ValueError, match="cannot be trained: load it anew"):
        model.train()
    with pytest.raises(ValueError, match=r"bfloat16 on cpu.*model\.float\(\)"):
        tiny_model().bfloat16().quantize()
