import copy
import os
import subprocess
import sys

import pytest
import torch
from tiny import noise, tiny_model, tiny_processor

from msfser import MsfSerModel
from msfser.fast_encoders_msfser import MsfSer8BitLinear
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


def test_a_row_s_result_is_its_own():
    torch.manual_seed(0)
    layer = MsfSer8BitLinear(torch.nn.Linear(48, 32))
    rows = torch.randn(40, 48) * torch.logspace(-3, 3, 40)[:, None]
    assert all(layer(rows)[i].equal(layer(rows[i : i + 1])[0]) for i in range(40))


@pytest.mark.parametrize("kind", ["wavlm", "whisper"])
def test_neither_the_batch_nor_its_padding_changes_a_result(kind):
    """With one scale for a whole batch, which is what PyTorch's own layers have, the differences reach 5e-4."""
    model, processor = tiny_model(kind).quantize(), tiny_processor(kind)
    sounds = [noise(0.7), 30 * noise(2.9, 1), noise(1.4, 2)]
    texts = ["a b", "the food was wonderful but dreadful a b c d e", "c"]

    def encode(given, texts):
        inputs = processor(given, sampling_rate=16_000, transcript=texts)
        spoken = {name: inputs[name] for name in processor.feature_extractor.model_input_names}
        states, frame_mask = model.encode_audio(**spoken)
        return states[:, -1] * frame_mask[..., None], model.encode_text(
            inputs["gs_input_ids"], inputs["gs_attention_mask"]
        )

    with torch.no_grad():
        batches = encode(sounds, texts)
        for i in range(3):
            for batch, alone in zip(batches, encode(sounds[i : i + 1], texts[i : i + 1]), strict=True):
                item = batch[i, : alone.shape[1]] if alone.dim() == 3 else batch[i]
                assert (item - alone[0]).abs().mean() < 5e-5 * alone.abs().mean()


@pytest.mark.parametrize("processor", ["AVX2", "DEFAULT"])
def test_integers_are_multiplied_without_overflow_on_older_processors_too(processor):
    check = """
import torch
from msfser.fast_encoders_msfser import MsfSer8BitLinear
layer = torch.nn.Linear(512, 64)
torch.nn.init.ones_(layer.weight)
x = torch.ones(40, 512)
x[::2] *= -1
with torch.no_grad():
    torch.testing.assert_close(MsfSer8BitLinear(layer)(x), layer(x))
"""
    # oneDNN reads its limit when it is loaded.
    environment = {**os.environ, "ONEDNN_MAX_CPU_ISA": processor}
    subprocess.run([sys.executable, "-c", check], env=environment, check=True, timeout=120)


def test_zeros_stay_finite():
    layer = torch.nn.Linear(8, 4)
    torch.nn.init.zeros_(layer.weight)
    assert MsfSer8BitLinear(layer)(torch.zeros(2, 3, 8)).equal(layer.bias.expand(2, 3, 4))


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
    pipe = MsfSerPipeline(model=model, processor=processor, recognizer=None, sampling_rate=16_000)
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
