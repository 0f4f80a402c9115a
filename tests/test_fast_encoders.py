import copy
import os
import pickle
import subprocess
import sys

import pytest
import torch
from tiny import AUDIO_CONFIGS, NO_DROPOUT, noise, tiny_config, tiny_model, tiny_processor
from transformers import AutoConfig, AutoModel

from msfser import MsfSerModel, fast_encoders_msfser, fast_products_msfser
from msfser.encoders_msfser import waveform_states
from msfser.fast_encoders_msfser import (
    MsfSer8BitLinear,
    MsfSerDropout,
    MsfSerWavLMAttention,
    MsfSerWavLMFeedForward,
    slow_down,
    speed_up,
)
from msfser.fast_products_msfser import MsfSerLinear, _OneDnnLinear
from msfser.loss_msfser import ccc_loss
from msfser.pipeline_msfser import MsfSerPipeline

SECONDS = (2.9, 0.6, 1.3)
ENCODERS = ["wavlm", "hubert", "data2vec-audio", "wav2vec2"]
# Far frames share buckets from here on, and the bias counts as much as the scores.
CONFIGS = AUDIO_CONFIGS | {
    "wavlm": AUDIO_CONFIGS["wavlm"] | {"num_buckets": 16, "max_bucket_distance": 20},
    "wav2vec2": AUDIO_CONFIGS["hubert"] | {"model_type": "wav2vec2"},
}


def pair(name: str = "wavlm", **changes):
    """A stock encoder and the same one sped up, with biases and gates that matter."""
    torch.manual_seed(0)
    stock = AutoModel.from_config(AutoConfig.for_model(**CONFIGS[name] | changes)).eval()
    with torch.no_grad():
        for parameter_name, parameter in stock.named_parameters():
            if "rel_" in parameter_name or "norm" in parameter_name:
                parameter.add_(torch.randn_like(parameter))
    return stock, speed_up(copy.deepcopy(stock))


def sounds() -> tuple[torch.Tensor, torch.Tensor]:
    rows = [torch.from_numpy(noise(seconds, i)) for i, seconds in enumerate(SECONDS)]
    values = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
    return values, (torch.arange(values.shape[1]) < torch.tensor([[len(row)] for row in rows])).long()


def gradients(encoder, values, mask) -> dict[str, torch.Tensor]:
    torch.manual_seed(1)
    encoder(values, attention_mask=mask).last_hidden_state.square().mean().backward()
    return {name: parameter.grad for name, parameter in encoder.named_parameters() if parameter.grad is not None}


def worst(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> float:
    """The largest difference of a gradient, as a share of its largest element."""
    assert ours.keys() == theirs.keys()
    # A softmax does not see the bias of the keys: its gradient is rounding alone.
    names = [name for name in ours if "k_proj.bias" not in name]
    return max(float((ours[name] - theirs[name]).abs().max() / theirs[name].abs().max()) for name in names)


@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("stable", [True, False])
def test_wavlm_gives_the_stock_states(masked, stable):
    stock, fast = pair(do_stable_layer_norm=stable)
    values, mask = sounds()
    with torch.no_grad():
        ours, theirs = (
            encoder(values, attention_mask=mask if masked else None, output_hidden_states=True)
            for encoder in (fast, stock)
        )
    assert len(ours.hidden_states) == len(theirs.hidden_states) == 3
    for one, other in zip((*ours.hidden_states, ours[0]), (*theirs.hidden_states, theirs[0]), strict=True):
        assert (one - other).abs().max() < 1e-4
    assert theirs[0].std() > 0.1


def test_the_gated_bias_counts():
    """Guards the comparison above: without the bias or its gate the states would differ by more than the bound."""
    values, _ = sounds()
    for name in ("rel_attn_embed.weight", "gru_rel_pos_linear.weight"):
        _, fast = pair()
        with torch.no_grad():
            before = fast(values).last_hidden_state
            fast.encoder.layers[0].attention.get_parameter(name).zero_()
            assert (fast(values).last_hidden_state - before).abs().max() > 1e-3, name


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("dropout", [0.0, 0.4])
def test_training_gives_the_stock_gradients(checkpointing, dropout, monkeypatch):
    # Of one item, stock and fast drop the same from the same seed, once both draw as torch does.
    monkeypatch.setattr(
        fast_encoders_msfser, "_dropout_mask", lambda shape, share: torch.empty(shape).bernoulli_(1 - share).bool()
    )
    stock, fast = pair(attention_dropout=dropout, hidden_dropout=dropout)
    values, mask = sounds()
    if dropout:
        values, mask = values[:1], mask[:1]
    for encoder in (stock, fast):
        encoder.train()
        encoder.freeze_feature_encoder()
    theirs = gradients(stock, values, mask)
    if checkpointing:
        fast.gradient_checkpointing_enable()
    ours = gradients(fast, values, mask)
    assert any("rel_attn_embed" in name for name in ours)
    assert worst(ours, theirs) < 5e-4


def test_dropout_of_a_batch_is_drawn_and_averages_out():
    _, fast = pair(attention_dropout=0.3)
    attention = fast.encoder.layers[0].attention
    x = torch.randn(2, 12, 32)
    with torch.no_grad():
        sure = attention.eval()(x)[0]
        drawn = torch.stack([attention.train()(x)[0] for _ in range(600)])
    assert drawn.std(0).min() > 0
    assert (drawn.mean(0) - sure).abs().max() < 0.25 * (drawn[0] - sure).abs().max()


@pytest.mark.parametrize("dropout", [0.1, 0.5, 0.0001])
def test_dropout_keeps_its_share_at_random(dropout):
    layer = speed_up(torch.nn.Dropout(dropout)).train()
    assert type(layer) is MsfSerDropout
    x = torch.full((1001, 997), 3.0, requires_grad=True)  # no multiple of four
    torch.manual_seed(0)
    answer = layer(x)
    answer.sum().backward()
    kept = answer.detach() != 0
    assert torch.allclose(answer[kept], x[kept] / (1 - dropout))
    assert torch.equal(x.grad, answer.detach() / 3)
    deviation = (dropout * (1 - dropout) / x.numel()) ** 0.5
    assert abs((~kept).double().mean().item() - dropout) < 5 * deviation + 2**-16
    if dropout >= 0.1:
        # Neighbors share a draw, and still know nothing of each other.
        flat = (~kept).double().flatten()
        for distance in (1, 2, 3, 4, 997):
            together = (flat[:-distance] * flat[distance:]).mean().item()
            assert together == pytest.approx(dropout**2, rel=0.05), distance
    torch.manual_seed(0)
    assert torch.equal(layer(x), answer)
    assert not torch.equal(layer(x), answer)
    assert layer.eval()(x) is x


def test_training_keeps_no_scores():
    _, fast = pair()
    kept = []

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept.append(tensor.shape)
        return tensor

    attention = fast.encoder.layers[0].attention.train()
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        attention(torch.randn(2, 77, 32, requires_grad=True))[0].sum()
    assert not [shape for shape in kept if shape[-2:] == (77, 77) and len(shape) == 4]


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_the_feed_forward_layer_keeps_nothing_behind_its_activation(dropout):
    _, fast = pair(activation_dropout=dropout, hidden_dropout=0.0)
    layer = fast.encoder.layers[0].feed_forward.train()
    assert type(layer) is MsfSerWavLMFeedForward
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor) or tensor, lambda t: t):
        layer(torch.randn(2, 77, 32, requires_grad=True)).sum()
    wide = [tensor for tensor in kept if tensor.shape == (2 * 77, layer.intermediate_dense.out_features)]
    assert [tensor.dtype for tensor in wide] == [torch.float32, *([torch.bool] if dropout else [])]


def test_dropout_behind_the_activation_has_its_gradient():
    _, fast = pair(activation_dropout=0.3, hidden_dropout=0.0)
    layer = fast.encoder.layers[0].feed_forward.train()
    x = torch.randn(1, 40, 32)

    def loss(inputs: torch.Tensor) -> torch.Tensor:
        torch.manual_seed(0)
        return layer(inputs).square().sum()

    inputs = x.clone().requires_grad_()
    loss(inputs).backward()
    for direction in (torch.randn_like(x), inputs.grad):
        direction = 1e-2 * direction / direction.norm()
        slope = (loss((x + direction).requires_grad_()) - loss((x - direction).requires_grad_())) / 2
        assert slope.item() == pytest.approx((inputs.grad * direction).sum().item(), rel=1e-2, abs=1e-4)
    weight = layer.output_dense.weight
    slope = (weight.grad * weight).sum().item()
    with torch.no_grad():
        before = weight.clone()
        scaled = []
        for factor in (1.001, 0.999):
            weight.copy_(factor * before)
            with torch.enable_grad():
                scaled.append(loss(x.clone().requires_grad_()).item())
    assert (scaled[0] - scaled[1]) / 0.002 == pytest.approx(slope, rel=1e-2)
    with torch.no_grad():
        weight.copy_(before)
        sure = layer.eval()(x)
    drawn = torch.stack([layer.train()(x.clone().requires_grad_()).detach() for _ in range(800)])
    assert drawn.std(0).min() > 0 and (drawn.mean(0) - sure).abs().max() < 0.2 * (drawn[0] - sure).abs().max()


@pytest.mark.parametrize("name", ENCODERS)
def test_the_front_end_gives_the_stock_frames(name):
    stock, fast = pair(name)
    assert type(fast.feature_extractor) is not type(stock.feature_extractor)
    convolutions = []
    for layer in fast.feature_extractor.conv_layers:
        layer.register_forward_pre_hook(lambda *_: convolutions.append(1))
    with torch.no_grad():
        for samples in (16_000, 5_119, 5_120, 5_121, 400, 40_003):
            values = torch.randn(2, samples)
            ours, theirs = fast.feature_extractor(values), stock.feature_extractor(values)
            assert ours.shape == theirs.shape, samples
            assert (ours - theirs).abs().max() < 1e-5, samples
        with pytest.raises(RuntimeError, match="size"):
            fast.feature_extractor(torch.randn(1, 4))
    assert len(convolutions) == 1, "the stock layers have run for more than the sound that is too short"


def test_the_front_end_is_the_stock_one_where_it_is_trained_or_has_a_group_norm():
    stock, fast = pair()
    values, mask = sounds()
    assert worst(gradients(fast.train(), values, mask), gradients(stock.train(), values, mask)) < 5e-4
    stock, fast = pair("wav2vec2_group_norm")
    with torch.no_grad():
        assert torch.equal(fast.feature_extractor(values), stock.feature_extractor(values))


@pytest.mark.parametrize("name", ENCODERS)
def test_items_of_a_batch_are_run_alone_without_gradients(name):
    stock, fast = pair(name)
    values, mask = sounds()
    mask[1] = 0
    with torch.no_grad():
        ours, frames = waveform_states(fast, values, mask.bool(), True)
        theirs, expected = waveform_states(stock, values, mask.bool(), False)
    assert torch.equal(frames, expected) and not frames[1].any()
    for one, other in zip(ours, theirs, strict=True):
        assert one.shape == other.shape
        assert (one - other)[frames].abs().max() < 1e-4


@pytest.mark.parametrize("bias", [True, False])
def test_linear_layers_and_their_gradients(bias):
    torch.manual_seed(0)
    stock = torch.nn.Linear(24, 40, bias=bias)
    fast = speed_up(copy.deepcopy(stock))
    assert type(fast) is MsfSerLinear
    x = torch.randn(3, 50, 24)
    results = []
    for layer in (stock, fast):
        inputs = x.clone().requires_grad_()
        output = layer(inputs)
        output.square().sum().backward()
        results.append([output, inputs.grad, *(parameter.grad for parameter in layer.parameters())])
    assert all(torch.allclose(*both, atol=1e-3, rtol=1e-4) for both in zip(*results, strict=True))
    weight = fast.weight.detach().double().requires_grad_()
    assert torch.autograd.gradcheck(lambda w: torch.nn.functional.linear(x.double(), w), weight)
    fast.weight.requires_grad_(False)
    inputs = x.clone().requires_grad_()
    fast(inputs).square().sum().backward()
    assert torch.allclose(inputs.grad, results[0][1], atol=1e-3, rtol=1e-4)


def test_few_rows_use_the_stock_linear_layer(monkeypatch):
    fast, x = speed_up(torch.nn.Linear(24, 40)), torch.randn(50, 24)
    monkeypatch.setattr(_OneDnnLinear, "apply", None)
    with pytest.raises(TypeError):
        fast(x)
    assert fast(x[:3]).shape == (3, 40)


@pytest.mark.parametrize("rows", [1, 2, 31])
def test_weights_are_packed_for_few_rows(monkeypatch, rows):
    stock = torch.nn.Linear(24, 40)
    fast, x = speed_up(copy.deepcopy(stock)), torch.randn(rows, 24)
    with torch.no_grad():
        fast(x)
        assert fast.weight not in fast_products_msfser._PACKED  # it is too small
        monkeypatch.setattr(fast_products_msfser, "_PACKED_SIZES", range(24 * 40, 24 * 40 + 1))
        for _ in range(2):
            assert torch.allclose(fast(x), stock(x), atol=1e-5)
            assert torch.allclose(fast(x[0]), stock(x[0]), atol=1e-5)
            assert (fast.weight in fast_products_msfser._PACKED) == (rows > 1)
            assert fast.weight.untyped_storage().resizable()  # as FSDP needs
            for layer in (stock, fast):
                layer.weight.data.mul_(-1)  # which changes no version
        with torch.inference_mode():
            assert torch.allclose(fast(x), stock(x), atol=1e-5)
    inputs = x.clone().requires_grad_()
    fast(inputs).sum().backward()
    assert torch.allclose(inputs.grad, fast.weight.sum(0).expand(rows, -1), atol=1e-5)


def test_packing_does_not_limit_the_rows_of_traced_code(monkeypatch):
    monkeypatch.setattr(fast_products_msfser, "_PACKED_SIZES", range(24 * 40, 24 * 40 + 1))
    fast = speed_up(torch.nn.Linear(24, 40)).eval()
    rows = {"input": {0: torch.export.Dim("rows", min=2, max=512)}}
    with torch.no_grad():
        traced = torch.export.export(fast, (torch.randn(8, 24),), dynamic_shapes=rows).module()
        for count in (2, 100):
            x = torch.randn(count, 24)
            assert torch.allclose(traced(x), fast(x), atol=1e-5)


def test_reduced_precision_gives_the_stock_states():
    stock, fast = pair()
    values, mask = sounds()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        ours, theirs = (encoder(values, attention_mask=mask).last_hidden_state for encoder in (fast, stock))
    assert (ours - theirs).abs().max() < 0.1 * theirs.abs().max()


def test_the_model_switches_it_on_and_off_and_keeps_names_and_files(tmp_path):
    fast = tiny_model()
    stock = tiny_model(fast_encoders=False)
    attention = fast.audio_encoder.encoder.layers[0].attention
    assert type(attention) is MsfSerWavLMAttention
    assert not [
        module for module in stock.modules() if type(module).__name__ in ("MsfSerLinear", type(attention).__name__)
    ]
    assert type(fast.audio_encoder) is type(stock.audio_encoder)
    assert all(
        a == b and torch.equal(x, y)
        for (a, x), (b, y) in zip(fast.state_dict().items(), stock.state_dict().items(), strict=True)
    )
    inputs = tiny_processor()([noise(s, i) for i, s in enumerate(SECONDS)], sampling_rate=16_000)
    fast.save_pretrained(tmp_path)
    loaded, info = MsfSerModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    plain = MsfSerModel.from_pretrained(tmp_path, fast_encoders=False)
    assert type(plain.audio_encoder.encoder.layers[0].attention) is not MsfSerWavLMAttention
    with torch.no_grad():
        expected = stock(**inputs).logits
        for model in (fast, loaded, plain, copy.deepcopy(fast)):
            assert (model(**inputs).logits - expected).abs().max() < 1e-5
            assert (type(model.audio_encoder.encoder.layers[0].attention) is MsfSerWavLMAttention) == (
                model is not plain
            )


def test_parts_can_be_pickled():
    _, fast = pair()
    layer, x = fast.encoder.layers[0], torch.randn(2, 40, 32)
    with torch.no_grad():
        assert torch.equal(pickle.loads(pickle.dumps(layer))(x)[0], layer(x)[0])


def test_a_pretrained_encoder_is_sped_up_and_saves_as_stock(tmp_path):
    stock, fast = pair()
    stock.save_pretrained(tmp_path / "encoder")
    for switch in (True, False):
        model = MsfSerModel.from_encoders(str(tmp_path / "encoder"), None, semantics=[], fast_encoders=switch)
        assert (type(model.audio_encoder.encoder.layers[0].attention) is MsfSerWavLMAttention) == switch
    fast.save_pretrained(tmp_path / "fast")
    loaded, info = AutoModel.from_pretrained(tmp_path / "fast", output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    assert type(loaded.encoder.layers[0].attention) is type(stock.encoder.layers[0].attention)
    values, _ = sounds()
    with torch.no_grad():
        assert (loaded(values)[0] - stock(values)[0]).abs().max() < 1e-4


def test_it_can_be_reverted_and_returns_attention_weights_on_request():
    stock, fast = pair()
    values, mask = sounds()
    with torch.no_grad():
        ours = fast(values, attention_mask=mask, output_attentions=True).attentions
        theirs = stock(values, attention_mask=mask, output_attentions=True).attentions
        assert len(ours) == len(theirs) == 2
        assert all((a - b).abs().max() < 1e-5 for a, b in zip(ours, theirs, strict=True))
        slow_down(fast)
        assert [type(module) for module in fast.modules()] == [type(module) for module in stock.modules()]
        assert torch.equal(fast(values, attention_mask=mask)[0], stock(values, attention_mask=mask)[0])


def test_a_frozen_front_end_is_fast_in_training():
    model = MsfSerModel(
        tiny_config(freeze_audio="front_end", semantics=[], cross_fusion="concat", **NO_DROPOUT)
    ).train()
    stock_layers = []
    for layer in model.audio_encoder.feature_extractor.conv_layers:
        layer.register_forward_hook(lambda *_: stock_layers.append(1))
    inputs = tiny_processor()([noise(0.9), noise(0.6)], sampling_rate=16_000)
    model(**inputs, labels=torch.rand(2, 3)).loss.backward()
    assert not stock_layers
    assert model.audio_encoder.encoder.layers[0].attention.rel_attn_embed.weight.grad.abs().sum() > 0


def test_a_training_step_reads_no_value():
    """A tensor without values raises when one is read, and reading is what a GPU has to wait for.

    As the paper trains, texts from the cache. Not so with SpecAugment, which transformers draws on the CPU, nor with
    encoders that it gives a mask (Whisper, HuBERT, live texts), of which it asks whether all is visible. The labels
    are read, but before anything is computed.
    """
    inputs = dict(tiny_processor()([noise(seconds, i) for i, seconds in enumerate(SECONDS)], 16_000))
    for name in ("les", "gs", "es"):
        inputs |= {f"{name}_embedding": torch.ones(3, 32), f"{name}_attention_mask": torch.ones(3, 1)}
    model = tiny_model(text_dropout=0.1, audio_dropout=0.1).train().to("meta")
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained)
    logits = model(**{name: torch.as_tensor(value, device="meta") for name, value in inputs.items()}).logits
    ccc_loss(logits, torch.ones(3, 3, device="meta")).backward()
    torch.nn.utils.clip_grad_norm_(trained, 1.0)
    optimizer.step()


@pytest.mark.parametrize("kind", ["wavlm", "whisper"])
def test_a_compiled_model_gives_the_same_numbers(kind):
    config = AUDIO_CONFIGS[kind] | ({"num_hidden_layers": 1} if kind == "wavlm" else {"encoder_layers": 1})
    model, inputs = tiny_model(audio_config=config, semantics=[]), tiny_processor(kind)(noise(1.1), 16_000)
    with torch.no_grad():
        expected = model(**inputs).logits
        # The kernels that the compiler would write take minutes; what it reads is the same.
        model.compile(dynamic=True, backend="eager")
        torch.testing.assert_close(model(**inputs).logits, expected, atol=1e-5, rtol=0)


# 8-bit layers


def inputs(kind: str):
    sounds = [noise(seconds, i) for i, seconds in enumerate((2.1, 0.7, 1.4))]
    texts = {"transcript": ["the food was wonderful", "a b", None], "description": ["a b c d", None, "the food"]}
    return tiny_processor(kind)(sounds, sampling_rate=16_000, emphasis=["wonderful", "b", "c"], **texts)


def strong(model: MsfSerModel) -> MsfSerModel:
    """Heads that tell their inputs apart."""
    with torch.no_grad():
        for head in model.heads.children():
            head.out.weight.normal_(std=1.0)
    return model


@pytest.mark.parametrize("kind", ["wavlm", "hubert", "data2vec-audio", "wav2vec2_group_norm", "whisper"])
@pytest.mark.parametrize("gradients", [False, True])
def test_predictions_stay_close_and_the_encoders_are_8_bit(kind, gradients):
    model = strong(tiny_model(kind))
    before = copy.deepcopy(model)
    assert model.quantize() is model and model.quantize().is_8_bit
    for encoder in (model.audio_encoder, model.text_encoder):
        left = [name for name, module in encoder.named_modules() if isinstance(module, torch.nn.Linear)]
        assert all(name.endswith("gru_rel_pos_linear") for name in left), left
    assert all(type(head.out) is torch.nn.Linear for head in model.heads.children())
    with torch.set_grad_enabled(gradients):
        expected, found = before(**inputs(kind)).logits, model(**inputs(kind)).logits
    assert 0 < (expected - found).abs().max() < 0.05
    assert expected.std(0).min() > 0.005


def test_a_row_does_not_depend_on_the_others():
    torch.manual_seed(0)
    layer = MsfSer8BitLinear(torch.nn.Linear(48, 32))
    rows = torch.randn(40, 48) * torch.logspace(-3, 3, 40)[:, None]
    assert all(layer(rows)[i].equal(layer(rows[i : i + 1])[0]) for i in range(40))


@pytest.mark.parametrize("kind", ["wavlm", "whisper"])
def test_neither_the_batch_nor_its_padding_changes_an_8_bit_result(kind):
    """With one scale for a whole batch, as in PyTorch's layers, the differences reach 5e-4."""
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


def test_zeros_stay_finite_in_8_bits():
    layer = torch.nn.Linear(8, 4)
    torch.nn.init.zeros_(layer.weight)
    assert MsfSer8BitLinear(layer)(torch.zeros(2, 3, 8)).equal(layer.bias.expand(2, 3, 4))


def test_the_stock_attention_is_quantized_too():
    model, stock = strong(tiny_model(fast_encoders=False)), strong(tiny_model(fast_encoders=False))
    with torch.no_grad():
        assert (model.quantize()(**inputs("wavlm")).logits - stock(**inputs("wavlm")).logits).abs().max() < 0.05


def test_8_bits_of_text_alone_and_sound_alone():
    for switches in ({"audio": False}, {"semantics": []}):
        model = tiny_model(**switches).quantize()
        with torch.no_grad():
            assert model(**inputs("wavlm")).logits.isfinite().all()


def test_the_pipeline_runs_on_8_bits():
    model, processor = tiny_model(), tiny_processor()
    pipe = MsfSerPipeline(model=model, processor=processor, recognizer=None, sampling_rate=16_000)
    before = pipe(noise(2.0))
    pipe.model.quantize()
    assert pipe(noise(2.0))["arousal"] == pytest.approx(before["arousal"], abs=0.05)


def test_an_8_bit_model_can_neither_be_trained_nor_saved_nor_made_of_half_precision(tmp_path):
    model = tiny_model().quantize()
    with pytest.raises(ValueError, match="cannot be saved: save it before"):
        model.save_pretrained(tmp_path / "model")
    assert not (tmp_path / "model").exists()
    with pytest.raises(ValueError, match="cannot be trained: reload it"):
        model.train()
    with pytest.raises(ValueError, match=r"bfloat16 on cpu.*model\.float\(\)"):
        tiny_model().bfloat16().quantize()
