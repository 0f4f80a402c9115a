"""bfloat16 on a CPU: close to float32, only where the CPU has it, weights and files unchanged."""

import copy
import gc
import pickle
import weakref
from functools import partial

import numpy as np
import pytest
import torch
from datasets import Dataset
from test_half_precision import inputs_for, spread
from tiny import AUDIO_CONFIGS, noise, tiny_model, tiny_processor, tiny_recognizer, tiny_tokenizer
from transformers import AutoConfig, AutoModel, Trainer, TrainingArguments

from msfser import LABELS, MsfSerCollator, MsfSerModel, fast_encoders_msfser, fast_products_msfser
from msfser.decoder_msfser import MsfSerDecoder, sound_keys_and_values
from msfser.encoders_msfser import waveform_states, whisper_states
from msfser.fast_convolutions_msfser import MsfSerConv1d
from msfser.fast_encoders_msfser import speed_up
from msfser.fast_products_msfser import MsfSerLinear, has_bfloat16, in_precision, logits_of, packed
from msfser.greedy_msfser import _certainty
from msfser.loss_msfser import concordance
from msfser.pipeline_msfser import MsfSerPipeline
from msfser.transcription_msfser import MsfSerRecognizer

needs_bfloat16 = pytest.mark.skipif(not has_bfloat16(), reason="this CPU has no bfloat16 instructions")
WAVEFORMS = [name for name in AUDIO_CONFIGS if name != "whisper"]


@pytest.fixture
def without_bfloat16(monkeypatch):
    monkeypatch.setattr(fast_products_msfser, "has_bfloat16", lambda: False)


def logits(model: MsfSerModel, inputs) -> torch.Tensor:
    with torch.no_grad():
        return model(**inputs).logits


def encoder_of(name: str):
    torch.manual_seed(0)
    encoder = AutoModel.from_config(AutoConfig.for_model(**AUDIO_CONFIGS[name]))
    with torch.no_grad():
        for part, parameter in encoder.named_parameters():
            if "rel_" in part or "norm" in part:
                parameter.add_(torch.randn_like(parameter))
    return speed_up(encoder)


# The switch


@needs_bfloat16
@pytest.mark.parametrize("encoder", AUDIO_CONFIGS)
@pytest.mark.parametrize("fast", [True, False])
def test_outputs_are_close_to_those_in_float32_and_of_its_type(encoder, fast):
    model, inputs = spread(encoder, fast_encoders=fast, audio_states="weighted"), inputs_for(encoder)
    expected = logits(model, inputs)
    assert model.set_precision("bfloat16") is model
    with torch.no_grad():
        found = model(**inputs, output_hidden_states=True, output_explanations=True)
    assert 0 < (found.logits - expected).abs().max() < 0.02
    assert concordance(found.logits, expected).min() > 0.99
    returned = [found.logits, found.embedding, found.gate, *found.audio_hidden_states, *found.gs_hidden_states]
    assert {tensor.dtype for tensor in returned} == {torch.float32}
    assert torch.equal(logits(model.set_precision("float32"), inputs), expected)


@needs_bfloat16
def test_attention_weights_are_returned_in_float32():
    model, inputs = spread(attn_implementation="eager").set_precision("bfloat16"), inputs_for("wavlm")
    with torch.no_grad():
        found = model(**inputs, output_attentions=True)
    assert {weights.dtype for weights in (*found.audio_attentions, *found.gs_attentions)} == {torch.float32}


@needs_bfloat16
def test_files_copies_and_pickles_are_those_of_float32(tmp_path):
    model, inputs = spread(), inputs_for("wavlm")
    model.save_pretrained(tmp_path / "before")
    found = logits(model.set_precision("bfloat16"), inputs)
    model.save_pretrained(tmp_path / "after")
    for name in ("model.safetensors", "config.json"):
        assert (tmp_path / "before" / name).read_bytes() == (tmp_path / "after" / name).read_bytes()
    assert torch.equal(logits(copy.deepcopy(model), inputs), found)
    whisper, inputs = (
        spread("whisper").set_precision("bfloat16"),
        inputs_for("whisper"),
    )  # torch pickles no weight norm
    assert torch.equal(logits(pickle.loads(pickle.dumps(whisper)), inputs), logits(whisper, inputs))
    assert MsfSerModel.from_pretrained(tmp_path / "after").precision == "float32"


@needs_bfloat16
@pytest.mark.parametrize("amx", [True, False])
def test_attention_of_whisper_is_that_in_float32_for_each_item_of_a_padded_batch(amx, monkeypatch):
    monkeypatch.setattr(fast_encoders_msfser, "has_amx", lambda: amx)
    encoder = encoder_of("whisper").encoder.eval()
    features, mask = torch.randn(3, 60, 20), torch.ones(3, 60, dtype=torch.bool)
    mask[1, 37:] = False
    mask[2] = False  # an item without sound
    with torch.no_grad():
        expected, frame_mask = whisper_states(encoder, features, mask)
        with in_precision("bfloat16", torch.device("cpu")):
            found, _ = whisper_states(encoder, features, mask)
            alone, _ = whisper_states(encoder, features[1:2, :37], mask[1:2, :37])
    difference = (found[-1].float() - expected[-1])[frame_mask].abs().max()
    assert 0 < difference < 0.05
    assert torch.allclose(alone[-1][0].float(), found[-1][1, : alone[-1].shape[1]].float(), atol=0.05)


@needs_bfloat16
@pytest.mark.parametrize("amx", [True, False])
def test_attention_of_wavlm_is_that_in_float32(amx, monkeypatch):
    monkeypatch.setattr(fast_encoders_msfser, "has_amx", lambda: amx)
    encoder, sounds = encoder_of("wavlm").eval(), torch.randn(2, 16_000)
    mask = torch.ones(2, 16_000, dtype=torch.long)
    mask[1, 9_000:] = 0
    with torch.no_grad():
        expected = encoder(sounds, attention_mask=mask).last_hidden_state
        with in_precision("bfloat16", torch.device("cpu")):
            found = encoder(sounds, attention_mask=mask).last_hidden_state
        again = encoder(sounds, attention_mask=mask).last_hidden_state
    assert 0 < (found.float() - expected)[0].abs().max() < 0.1 and (found.float() - expected)[1, :20].abs().max() < 0.1
    assert torch.equal(again, expected)  # weights that are kept in bfloat16 are not those of float32


@pytest.mark.parametrize("change", ["bfloat16", "half", "quantize"])
def test_float32_changes_nothing_and_is_always_possible(change):
    model, inputs = getattr(tiny_model(), change)(), inputs_for("wavlm")
    expected = logits(model, inputs)
    assert torch.equal(logits(model.set_precision("float32"), inputs), expected)


def test_a_cpu_without_bfloat16_stays_in_float32_and_says_so(without_bfloat16, monkeypatch):
    notes = []
    monkeypatch.setattr(fast_products_msfser.logger, "warning_once", notes.append)
    model, inputs = tiny_model(), inputs_for("wavlm")
    expected = logits(model, inputs)
    assert torch.equal(logits(model.set_precision("bfloat16"), inputs), expected)
    assert "neither AVX512-BF16 nor AMX" in notes[0]


@needs_bfloat16
def test_a_recognizer_computes_in_it(monkeypatch):
    sounds = [noise(seconds, seed) for seed, seconds in enumerate((2.0, 0.5, 5.0))]
    plain, reduced = tiny_recognizer(), MsfSerRecognizer(tiny_recognizer().model, tiny_tokenizer(), "bfloat16")
    assert reduced._decode([], []) == []
    seen = []
    put = MsfSerDecoder.put
    monkeypatch.setattr(
        MsfSerDecoder, "put", lambda self, row, sound: seen.append(sound[0][0].dtype) or put(self, row, sound)
    )
    expected, found = (recognizer._decode(sounds, ["en"] * 3) for recognizer in (plain, reduced))
    assert seen == [torch.float32] * 3 + [torch.bfloat16] * 3
    for one, other in zip(expected, found, strict=True):
        assert one != other and other.log_probability == pytest.approx(one.log_probability, abs=0.3)
    for one, other in zip(plain.model.parameters(), reduced.model.parameters(), strict=True):
        assert torch.equal(one, other)


@needs_bfloat16
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("length", [1, 2, 37, 60])
@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_whispers_convolutions_are_those_of_torch_with_their_gradients(length, stride, precision):
    torch.manual_seed(0)
    conv = MsfSerConv1d(6, 8, 3, stride=stride, padding=1)
    x = torch.randn(2, length, 6).mT.requires_grad_()
    parts = [x, *conv.parameters()]
    expected = torch.nn.functional.conv1d(x, conv.weight, conv.bias, stride=stride, padding=1)
    gradients = torch.autograd.grad(expected.square().sum(), parts)
    conv.to(precision)
    with in_precision("bfloat16", torch.device("cpu")):
        found = conv(x)
        assert found.dtype == torch.bfloat16 and found.shape == expected.shape
        of_found = torch.autograd.grad(found.float().square().sum(), [x, *conv.parameters()])
        with torch.no_grad():
            assert torch.equal(conv(x), found)
    torch.testing.assert_close(found.float(), expected, atol=0.03, rtol=0.03)
    for one, other in zip(of_found, gradients, strict=True):
        torch.testing.assert_close(one.float(), other, atol=0.03 * float(other.abs().max()), rtol=0.03)


@needs_bfloat16
def test_the_certainty_of_a_recognizer_is_in_float32_under_autocast():
    logits = 5 * torch.randn(2, 3, 1_000, generator=torch.Generator().manual_seed(0))
    expected = _certainty(logits)
    with in_precision("bfloat16", torch.device("cpu")):
        assert all(map(torch.equal, _certainty(logits), expected))


@needs_bfloat16
@pytest.mark.parametrize("amx", [True, False])
def test_what_a_decoder_attends_to_in_sounds_is_kept_in_the_faster_type(amx, monkeypatch):
    monkeypatch.setattr("msfser.decoder_msfser.has_amx", lambda: amx)
    model = tiny_recognizer().model
    states, tokens = torch.randn(2, 30, 32, generator=torch.Generator().manual_seed(0)), torch.tensor([[41, 42]] * 2)

    def read():
        decoder = MsfSerDecoder(model, rows=2, frames=30, tokens=4)
        for row, frames in enumerate((30, 20)):
            decoder.put(row, sound_keys_and_values(model, states[row : row + 1, :frames]))
        return decoder, decoder.read(tokens)

    with torch.no_grad():
        decoder, expected = read()
        assert decoder._sound[0][0].dtype == torch.float32
        with in_precision("bfloat16", torch.device("cpu")):
            decoder, logits = read()
    assert decoder._sound[0][0].dtype == (torch.bfloat16 if amx else torch.float32)
    torch.testing.assert_close(logits, expected, atol=0.05, rtol=0.05)


@pytest.mark.parametrize("precision", [torch.bfloat16, torch.float16], ids=["bfloat16", "float16"])
def test_a_recognizer_with_weights_in_half_precision(precision):
    sounds = [noise(seconds, seed) for seed, seconds in enumerate((2.0, 0.5, 5.0))]
    plain, half = tiny_recognizer(), MsfSerRecognizer(tiny_recognizer().model.to(precision), tiny_tokenizer())
    for one, other in zip(*(recognizer._decode(sounds, [None] * 3) for recognizer in (plain, half)), strict=True):
        assert other.log_probability == pytest.approx(one.log_probability, abs=0.3)
    given = [recognizer.align(sounds[:1], ["the food was"])[0] for recognizer in (plain, half)]
    assert [word["word"] for word in given[1]] == [word["word"] for word in given[0]] == ["the", "food", "was"]


@pytest.mark.parametrize("precision", [torch.bfloat16, torch.float16], ids=["bfloat16", "float16"])
def test_logits_of_half_precision_are_in_float32(precision):
    draw = torch.Generator().manual_seed(0)
    weight, x = torch.randn(300, 48, generator=draw).to(precision), torch.randn(1, 3, 48, generator=draw).to(precision)
    found = logits_of(x, weight)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, x.float() @ weight.float().T, atol=0.1, rtol=0.01)


@needs_bfloat16
def test_attention_for_word_times_is_in_float32_under_autocast():
    model = tiny_recognizer().model
    decoder = MsfSerDecoder(model, rows=1, frames=30, tokens=4)
    with torch.no_grad():
        decoder.put(0, sound_keys_and_values(model, torch.randn(1, 30, 32)))
        decoder.read(torch.tensor([[41, 42, 44, 50]]))
        expected = decoder.attention(0, 1, 2)
        with in_precision("bfloat16", torch.device("cpu")):
            assert torch.equal(decoder.attention(0, 1, 2), expected)


@needs_bfloat16
def test_the_precision_does_not_break_tracing():
    model, inputs = spread("whisper").set_precision("bfloat16"), inputs_for("whisper")
    expected = logits(model, inputs)
    torch._dynamo.reset()
    traced = torch.compile(model, backend="eager", fullgraph=True)
    assert (logits(traced, inputs) - expected).abs().max() < 0.02


@pytest.mark.parametrize("rows", [1, 2, 40])
def test_logits_in_float32_are_the_product(rows, monkeypatch):
    monkeypatch.setattr(fast_products_msfser, "_HAS_BFLOAT16", False)
    draw = torch.Generator().manual_seed(0)
    weight, x = torch.randn(300, 48, generator=draw), torch.randn(1, rows, 48, generator=draw)
    for _ in range(2):
        torch.testing.assert_close(logits_of(x, weight), x @ weight.T)
        weight.mul_(2)  # the arranged copy follows


@needs_bfloat16
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_the_greatest_logits_are_exact(precision):
    draw = torch.Generator().manual_seed(0)
    weight, x = torch.randn(5_000, 48, generator=draw), torch.randn(3, 2, 48, generator=draw)
    expected = x @ weight.T
    with in_precision(precision, torch.device("cpu")):
        found = logits_of(x, weight)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.topk(16).values, expected.topk(16).values)
    assert torch.equal(found.topk(16).indices, expected.topk(16).indices)
    assert 0 < (found - expected).abs().max() < 0.2


def test_features_are_in_float32_under_autocast():
    extract = tiny_processor("whisper").feature_extractor
    with torch.autocast("cpu", torch.bfloat16):
        found = extract(noise(1.0), 16_000)["input_features"]
    np.testing.assert_array_equal(found, extract(noise(1.0), 16_000)["input_features"])


@pytest.mark.parametrize(
    "load", [MsfSerModel.from_pretrained, partial(AutoModel.from_pretrained, trust_remote_code=True)]
)
def test_a_model_is_loaded_with_a_precision(tmp_path, load):
    """As reported: it was a TypeError of the model's constructor."""
    model, inputs = spread(), inputs_for("wavlm")
    model.save_pretrained(tmp_path)
    found = load(tmp_path, precision="bfloat16")
    assert (found.precision, load(tmp_path).precision) == ("bfloat16", "float32")
    assert found.dtype == torch.float32 and not hasattr(found.config, "precision")
    assert torch.equal(logits(found, inputs), logits(model.set_precision("bfloat16"), inputs))
    with pytest.raises(ValueError, match="'half' is not known: choose 'float32' or 'bfloat16'"):
        load(tmp_path, precision="half")
    with pytest.raises(ValueError, match="precision='bfloat16' needs weights in float32"):
        load(tmp_path, precision="bfloat16", dtype=torch.bfloat16)


def test_impossible_precisions_are_refused():
    with pytest.raises(ValueError, match="'bf16' is not known: choose 'float32' or 'bfloat16'"):
        MsfSerRecognizer(tiny_recognizer().model, tiny_tokenizer(), "bf16")
    with pytest.raises(ValueError, match=r"weights in torch\.bfloat16, and precision= needs weights in float32"):
        MsfSerRecognizer(tiny_recognizer().model.bfloat16(), tiny_tokenizer(), "bfloat16")
    for wrong in ("float16", "bf16", None):
        with pytest.raises(ValueError, match="is not known: choose 'float32' or 'bfloat16'"):
            tiny_model().set_precision(wrong)
    with pytest.raises(
        ValueError, match=r"weights in torch\.float16, and precision='bfloat16' needs weights in float32"
    ):
        tiny_model().half().set_precision("bfloat16")
    with pytest.raises(ValueError, match="8-bit layers, and precision='bfloat16' needs"):
        tiny_model().quantize().set_precision("bfloat16")
    with pytest.raises(ValueError, match=r"torch\.bfloat16 on cpu.*model\.float\(\)"):
        tiny_model().bfloat16().quantize()
    model = tiny_model().set_precision("bfloat16")
    with pytest.raises(ValueError, match=r'compute in bfloat16.*use model\.set_precision\("float32"\)\.quantize\(\)'):
        model.quantize()
    assert model.set_precision("float32").quantize().is_8_bit


@needs_bfloat16
def test_the_pipeline_takes_it():
    options = {"processor": tiny_processor(), "recognizer": None, "sampling_rate": 16_000}
    plain = MsfSerPipeline(model=spread(), **options)
    reduced = MsfSerPipeline(model=spread(), precision="bfloat16", **options)
    assert plain.model.precision == "float32" and reduced.model.precision == "bfloat16"
    given = {"audio": noise(2.0), "transcript": "the food was", "words": []}
    assert reduced(given)["arousal"] == pytest.approx(plain(given)["arousal"], abs=0.02)
    with pytest.raises(ValueError, match="precision='half' is not known"):
        MsfSerPipeline(model=spread(), precision="half", **options)


# Kernels


@needs_bfloat16
@pytest.mark.parametrize("encoder", WAVEFORMS)
@pytest.mark.parametrize("whole", [True, False], ids=["weights", "autocast"])
def test_the_kernels_compute_what_float32_does(encoder, whole):
    fast = encoder_of(encoder).eval()
    values = torch.stack([torch.from_numpy(noise(1.3, i)) for i in range(3)])
    mask = torch.arange(values.shape[1]) < torch.tensor([[20_800], [9_600], [14_000]])
    with torch.no_grad():
        expected, _ = waveform_states(fast, values, mask, fast=False)
        for alone in (True, False):
            if whole:
                found, frames = waveform_states(copy.deepcopy(fast).bfloat16(), values.bfloat16(), mask, alone)
            else:
                with torch.autocast("cpu", torch.bfloat16):
                    found, frames = waveform_states(fast, values, mask, alone)
            for ours, theirs in zip(found, expected, strict=True):
                difference = (ours.float() - theirs)[frames].square().mean().sqrt()
                assert 0 < difference < 0.03 * theirs[frames].square().mean().sqrt()


@needs_bfloat16
def test_the_sum_of_layers_stays_in_float32():
    fast = encoder_of("wavlm").eval()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        states = fast(torch.from_numpy(noise(1.0))[None], output_hidden_states=True).hidden_states
    for state in states:
        assert state.dtype == torch.float32 and not torch.equal(state, state.bfloat16().float())


@needs_bfloat16
def test_changed_weights_are_rounded_again():
    layer, x = MsfSerLinear(24, 40), torch.randn(5, 24)

    def output() -> torch.Tensor:
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            return layer(x).float()

    changes = (
        lambda: torch.nn.init.normal_(layer.weight),
        lambda: layer.weight.data.mul_(-1),
        lambda: setattr(layer, "weight", torch.nn.Parameter(torch.randn(40, 24))),
        lambda: layer.load_state_dict({"weight": torch.ones(40, 24), "bias": torch.ones(40)}),
        lambda: torch.optim.AdamW([layer.weight], lr=0.5, fused=True).step(),
    )
    layer.weight.grad = torch.ones(40, 24)
    for change in changes:
        before = output()
        if layer.weight.grad is None:
            layer.weight.grad = torch.ones(40, 24)
        change()
        expected = torch.nn.functional.linear(x, layer.weight, layer.bias)
        assert (output() - expected).abs().max() < 0.1 and not torch.equal(output(), before)


@pytest.mark.parametrize("shape", [(1024, 1024), (768, 3072), (512, 512, 3), (40, 24), (1024,), (1, 1, 128), (3, 0)])
def test_part_of_a_weight_that_is_written_to_its_data_is_noticed(shape):
    """A twentieth of the columns or of the rows, wherever it lies."""
    weight = torch.nn.Parameter(torch.randn(shape))
    assert packed(torch.clone, weight) is packed(torch.clone, weight)
    weight.data[..., 1:] = 0
    assert torch.equal(packed(torch.clone, weight), weight)
    for axis in (0, -1):
        length = shape[axis]
        part = max(1, -(-length // 20))
        for first in range(0, length, part):
            weight.data.transpose(0, axis)[first : first + part] += 1
            assert torch.equal(packed(torch.clone, weight), weight)


def test_what_is_made_in_inference_mode_is_not_kept():
    with torch.inference_mode():
        weight = torch.ones(4, 3)
        assert torch.equal(packed(torch.clone, weight), weight)
        weight[1, 2] = 5
    assert torch.equal(packed(torch.clone, weight), weight)


@needs_bfloat16
def test_packed_weights_are_freed_when_they_are_not_used_any_more():
    model, inputs = spread(freeze_audio="front_end").set_precision("bfloat16"), inputs_for("wavlm")

    def count(trained: bool | None = None) -> int:
        of = [p for p in model.parameters() if trained is None or p.requires_grad == trained]
        return sum(parameter in fast_products_msfser._PACKED for parameter in of)

    def run() -> None:
        logits(model, inputs)
        assert count(True) and count(False)

    run()
    frozen = count(False)
    model.train()
    assert count(True) == 0 and count(False) == frozen  # a frozen encoder goes on with them
    model.eval()
    run()
    model.eval()
    assert count(True)
    model.to("cpu")
    assert count() == 0
    run()
    model.set_precision("float32")
    assert count() == 0


@needs_bfloat16
def test_each_weight_is_rounded_once_without_gradients(monkeypatch):
    made = []
    pack = fast_products_msfser.as_matrix
    monkeypatch.setattr(fast_products_msfser, "as_matrix", lambda weight: made.append(weight) or pack(weight))
    model, inputs = tiny_model().set_precision("bfloat16"), inputs_for("wavlm")
    first = logits(model, inputs)
    count = len(made)
    assert count and torch.equal(logits(model, inputs), first) and len(made) == count


@needs_bfloat16
def test_front_ends_arrange_their_weights_once_and_keep_no_model(monkeypatch):
    packed = []
    for name in ("_reorder_linear_weight",):
        pack = getattr(torch.ops.mkldnn, name)
        monkeypatch.setattr(torch.ops.mkldnn, name, lambda *args, pack=pack: packed.append(1) or pack(*args))
    model, inputs = tiny_model().set_precision("bfloat16"), inputs_for("wavlm")
    logits(model, inputs)
    count = len(packed)
    packed_before = dict(fast_products_msfser._PACKED)
    logits(model, inputs)
    assert count and len(packed) == count
    assert all(fast_products_msfser._PACKED[key] is made for key, made in packed_before.items())
    gone = weakref.ref(model.audio_encoder)
    del model, packed_before
    gc.collect()
    assert gone() is None


@needs_bfloat16
def test_a_vector_and_no_rows_at_all():
    layer = speed_up(torch.nn.Linear(24, 40))
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert layer(torch.ones(24)).shape == (40,) and layer(torch.ones(0, 24)).shape == (0, 40)


# Training


@needs_bfloat16
@pytest.mark.parametrize("encoder", AUDIO_CONFIGS)
def test_gradients_of_all_weights_are_close_to_those_of_float32(encoder):
    model = spread(encoder, freeze_audio="none", freeze_text=False)
    inputs = {**inputs_for(encoder), "labels": torch.tensor([[0.1, 0.9, 0.5], [0.8, 0.2, 0.4], [0.5, 0.4, 0.9]])}
    found = []
    for enabled in (False, True):
        model.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            loss = model(**inputs).loss
        loss.backward()
        assert loss.dtype == torch.float32
        found.append({name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None})
    expected, reduced = found
    assert expected.keys() == reduced.keys()
    assert {gradient.dtype for gradient in reduced.values()} == {torch.float32}
    for part in ("audio_encoder", "text_encoder", "cross_fusion"):
        ours, theirs = (torch.cat([g.flatten() for n, g in of.items() if part in n]) for of in (reduced, expected))
        assert torch.nn.functional.cosine_similarity(ours, theirs, dim=0) > 0.99


@needs_bfloat16
@pytest.mark.parametrize("encoder", AUDIO_CONFIGS)
@pytest.mark.parametrize("fast", [True, False])
def test_weights_in_bfloat16_under_autocast(encoder, fast):
    model = spread(encoder, freeze_audio="none", freeze_text=False, fast_encoders=fast)
    inputs = {**inputs_for(encoder), "labels": torch.tensor([[0.1, 0.9, 0.5], [0.8, 0.2, 0.4], [0.5, 0.4, 0.9]])}
    expected = logits(model, inputs)
    model.set_precision("bfloat16").bfloat16()
    assert (logits(model, inputs) - expected).abs().max() < 0.03
    model.precision = "float32"
    with torch.autocast("cpu", torch.bfloat16):
        assert (logits(model, inputs) - expected).abs().max() < 0.03
        model.train()(**inputs).loss.backward()
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    assert gradients and all(gradient.isfinite().all() for gradient in gradients)


@needs_bfloat16
@pytest.mark.parametrize("encoder", ["wavlm", "hubert"])
def test_a_trainer_with_bf16_trains_weights_in_bfloat16(encoder, tmp_path):
    sounds = [{"array": noise(0.6, i), "sampling_rate": 16_000} for i in range(2)]
    rows = Dataset.from_list(
        [{"audio": sounds[i], "transcript": "a b", **dict.fromkeys(LABELS, v)} for i, v in enumerate((0.1, 0.9))]
    )
    model = spread(encoder, freeze_audio="none").bfloat16()
    options = {"bf16": True, "use_cpu": True, "max_steps": 1, "per_device_train_batch_size": 2}
    arguments = TrainingArguments(str(tmp_path), remove_unused_columns=False, report_to="none", **options)
    result = Trainer(model, arguments, MsfSerCollator(tiny_processor()), rows).train()
    assert np.isfinite(result.training_loss)


@needs_bfloat16
@pytest.mark.parametrize("encoder", ["wavlm", "hubert"])
@pytest.mark.parametrize("checkpointing", [True, False])
def test_the_kernels_train_as_the_stock_ones_under_autocast(encoder, checkpointing):
    fast = encoder_of(encoder).train()
    values = torch.stack([torch.from_numpy(noise(1.3, i)) for i in range(2)])
    if checkpointing:
        fast.gradient_checkpointing_enable({"use_reentrant": False})
    target = torch.randn_like(fast(values).last_hidden_state)
    found = []
    for enabled in (False, True):
        fast.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            (fast(values).last_hidden_state * target).mean().backward()
        found.append({name: p.grad.clone() for name, p in fast.named_parameters() if p.grad is not None})
    assert found[0].keys() == found[1].keys()
    for name, theirs in found[0].items():
        assert (found[1][name] - theirs).norm() < 0.1 * theirs.norm() + 1e-5, name


@needs_bfloat16
def test_frozen_layers_below_trained_ones():
    model = spread(freeze_audio="none")
    for parameter in model.audio_encoder.encoder.layers[0].parameters():
        parameter.requires_grad_(False)
    inputs = {**inputs_for("wavlm"), "labels": torch.rand(3, 3)}
    with torch.autocast("cpu", torch.bfloat16):
        model.train()(**inputs).loss.backward()
    layers = model.audio_encoder.encoder.layers
    assert layers[0].attention.q_proj.weight.grad is None
    assert layers[1].attention.q_proj.weight.grad.isfinite().all()


@needs_bfloat16
def test_a_trainer_with_bf16_on_a_cpu_uses_the_kernels_and_changes_float32_weights(tmp_path, monkeypatch):
    seen = []
    product = fast_products_msfser.product
    monkeypatch.setattr(fast_products_msfser, "product", lambda x, *given: seen.append(x.dtype) or product(x, *given))
    sounds = [{"array": noise(0.6, i), "sampling_rate": 16_000} for i in range(2)]
    rows = Dataset.from_list(
        [{"audio": sounds[i], "transcript": "a b", **dict.fromkeys(LABELS, v)} for i, v in enumerate((0.1, 0.9))]
    )
    model = spread(freeze_audio="none")
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    options = {"bf16": True, "use_cpu": True, "max_steps": 1, "learning_rate": 1e-3, "per_device_train_batch_size": 2}
    arguments = TrainingArguments(str(tmp_path), remove_unused_columns=False, report_to="none", **options)
    Trainer(model, arguments, MsfSerCollator(tiny_processor()), rows).train()
    assert set(seen) == {torch.bfloat16}
    changed = {name for name, parameter in model.named_parameters() if not torch.equal(parameter, before[name])}
    assert "audio_encoder.encoder.layers.0.attention.q_proj.weight" in changed
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
