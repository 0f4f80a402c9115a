"""The code against the equations: every parameter random, reference values from `reference.py` (NumPy, float64).

Shapes, gradients and neutral starts are held elsewhere; here each term of each equation has to be where it belongs.
"""

import functools
import itertools
import math

import numpy as np
import pytest
import reference
import soundfile
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from spoken import syllables
from tiny import NO_DROPOUT, noise, tiny_config, tiny_model, tiny_processor
from torch import nn
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from msfser import LABELS, MsfSerModel, MsfSerPipeline, ccc_loss, concordance, from_scale, to_scale
from msfser.annotation.norms import make_norms
from msfser.audio_msfser import cut_at_pauses
from msfser.description_msfser import WORDS, MeasuredDescriber, measure_voice
from msfser.emphasis_msfser import EMPHASIS, Prosody, find_emphasis, measure_prosody
from msfser.fusion_msfser import (
    MsfSerAttentiveStatisticsPooling,
    MsfSerCrossModalFusion,
    MsfSerExpert,
    MsfSerFilm,
    MsfSerHead,
    MsfSerIntraModalFusion,
    MsfSerLayerMix,
    MsfSerMissingInputEmbedding,
    MsfSerRouting,
    drop_inputs,
)

RATE = 16_000
EXACT = {"rtol": 1e-9, "atol": 1e-11}
# Pooling and heads compute in float32 whatever the model's precision.
IN_FLOAT32 = {"rtol": 2e-5, "atol": 2e-6}
SIZE, WIDTH = 32, 16  # of the tiny encoders and of the fusion
STATES = 3


@torch.no_grad()
def randomize(module: nn.Module, seed: int = 0) -> nn.Module:
    """Fills every parameter, so that no term of an equation is 0 or 1 by chance of its start."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in module.named_parameters():
        values = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        if parameter.dim() > 1:
            values /= math.sqrt(parameter[0].numel())
        elif name.endswith("weight"):  # of a normalization
            values = 1 + 0.5 * values
        else:
            values *= 0.5
        if name.endswith("original0"):  # the lengths of a weight normalization
            values = values.abs() + 0.5
        parameter.copy_(values)
    return module.eval()


def exact(module: nn.Module, seed: int = 0) -> nn.Module:
    """A randomized module in float64."""
    return randomize(module.double(), seed)


def arrays(module: nn.Module) -> dict[str, np.ndarray]:
    """The parameters by name, float64."""
    return {name: parameter.detach().double().numpy() for name, parameter in module.named_parameters()}


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape))


def mask_of(lengths: list[int], longest: int | None = None) -> torch.Tensor:
    return torch.arange(longest or max(lengths)) < torch.tensor(lengths)[:, None]


def check(found: torch.Tensor, expected, rtol: float = EXACT["rtol"], atol: float = EXACT["atol"]) -> None:
    """Compares in float64."""
    np.testing.assert_allclose(found.detach().double().numpy(), np.asarray(expected), rtol=rtol, atol=atol)


def test_randomize_leaves_no_parameter_at_its_start():
    for encoder in ("wavlm", "whisper"):
        model = tiny_model(encoder, audio_states="weighted", routing="input")
        before = {name: parameter.clone() for name, parameter in model.named_parameters()}
        randomize(model)
        for name, parameter in model.named_parameters():
            assert (parameter != before[name]).all(), name
            assert not ((parameter == 0) | (parameter == 1)).any(), name


# Sound


def test_layer_mix():
    mix = exact(MsfSerLayerMix(STATES))
    # States of different sizes and offsets, which the layer norm takes away.
    states = draw(3, STATES, 7, SIZE) * torch.tensor([1.0, 5.0, 0.2]).view(1, -1, 1, 1) + 2.0
    expected = [reference.layer_mix(item, arrays(mix)["scores"]) for item in states.numpy()]
    check(mix(states), expected)
    check(mix.weights(), reference.softmax(arrays(mix)["scores"]))


def test_attentive_statistics_pooling_of_padded_frames():
    pooling = exact(MsfSerAttentiveStatisticsPooling(SIZE))
    lengths = [9, 1, 4, 6]
    frames = draw(4, 9, SIZE) * 0.5 + draw(SIZE, seed=1)
    frames[~mask_of(lengths)] = 50.0
    of = arrays(pooling)
    expected = [
        reference.attentive_statistics(item[:n], of["hidden.weight"], of["hidden.bias"], of["score.weight"][0])
        for item, n in zip(frames.numpy(), lengths, strict=True)
    ]
    check(pooling(frames, mask_of(lengths)), expected, rtol=1e-4, atol=1e-4)
    assert set(of) == {"hidden.weight", "hidden.bias", "score.weight"}
    # A single frame has no spread: the floor of the variance is seen.
    check(pooling(frames, mask_of(lengths))[1, SIZE:], np.full(SIZE, math.sqrt(1e-5)), **IN_FLOAT32)


def test_the_floor_of_the_variance():
    pooling = exact(MsfSerAttentiveStatisticsPooling(SIZE))
    found = pooling(torch.zeros(1, 5, SIZE).double(), mask_of([5]))
    check(found, [np.repeat([0.0, math.sqrt(1e-5)], SIZE)], **IN_FLOAT32)


def test_the_pooling_attends():
    """The attention's part in the reference is not lost in the tolerance: equal weights give something else."""
    pooling = exact(MsfSerAttentiveStatisticsPooling(SIZE))
    frames = draw(1, 9, SIZE)
    plain = np.concatenate([frames[0].mean(0), frames[0].std(0, correction=0)])
    assert np.abs(pooling(frames, mask_of([9]))[0].detach().numpy() - plain).max() > 0.1


# Text


@pytest.mark.parametrize("kind", ["gate", "attention", "concat"])
def test_intra_modal_fusion(kind):
    fusion = exact(MsfSerIntraModalFusion(SIZE, kind))
    h_les, h_gs = draw(4, SIZE), draw(4, SIZE, seed=1)
    found, gate = fusion(h_les, h_gs)
    of = {"gate": reference.intra_modal_gate, "attention": reference.intra_modal_attention}
    equation = of.get(kind, reference.intra_modal_concat)
    expected = [equation(les, gs, arrays(fusion)) for les, gs in zip(h_les.numpy(), h_gs.numpy(), strict=True)]
    if kind == "gate":
        check(found, [h for h, _ in expected])
        check(gate, [g for _, g in expected])
    else:
        check(found, expected)
        assert gate is None and "score.bias" not in arrays(fusion)


def test_text_pooling_is_the_mean_over_the_real_tokens():
    model = exact(tiny_model(fast_encoders=False))
    lengths = [6, 1, 4]
    ids = torch.from_numpy(np.random.default_rng(0).integers(4, 20, (3, 6)))
    ids[~mask_of(lengths)] = 1  # the padding token
    found = model.encode_text(ids, mask_of(lengths).long())
    with torch.no_grad():
        alone = [model.text_encoder(input_ids=row[None, :n]) for row, n in zip(ids, lengths, strict=True)]
    check(found, [reference.mean_over_tokens(states.last_hidden_state[0].numpy()) for states in alone])


# Fusion


@pytest.mark.parametrize("shape", [(4, SIZE), (4, 6, SIZE)], ids=["pooled", "frames"])
def test_film(shape):
    film = exact(MsfSerFilm(24, SIZE, WIDTH))
    x, condition = draw(*shape), draw(4, 24, seed=1)
    expected = [reference.film(a, b, arrays(film)) for a, b in zip(x.numpy(), condition.numpy(), strict=True)]
    check(film(x, condition), expected)


def test_expert():
    expert = exact(MsfSerExpert(SIZE, WIDTH, 0.5))
    x = 3 * draw(4, SIZE)
    check(expert(x), [reference.expert(row, arrays(expert)) for row in x.numpy()])


@pytest.mark.parametrize("n_experts", [1, 2, 3])
@pytest.mark.parametrize("by_input", [False, True], ids=["static", "input"])
def test_routing(n_experts, by_input):
    routing = exact(MsfSerRouting(n_experts, n_experts * WIDTH if by_input else None))
    experts = draw(4, n_experts, WIDTH)
    found = routing(experts)
    check(found, [reference.routing(item, arrays(routing)) for item in experts.numpy()])
    check(found.sum(-1), np.ones((4, 3)))


def test_head():
    head = exact(MsfSerHead(WIDTH, 0.5))
    x = 3 * draw(5, WIDTH)
    check(head(x), [reference.head(row, arrays(head)) for row in x.numpy()], **IN_FLOAT32)


def attention_heads(width: int) -> int:
    return max(n for n in (1, 2, 4, 8) if width % n == 0)


@pytest.mark.parametrize(
    "switches",
    [
        {"cross_fusion": "fm_moe"},
        {"cross_fusion": "fm_moe", "routing": "input"},
        {"cross_fusion": "film"},
        {"cross_fusion": "attention"},
        {"cross_fusion": "attention", "fusion_size": 12},
        {"cross_fusion": "concat"},
    ],
    ids=lambda switches: "-".join(map(str, switches.values())),
)
def test_cross_modal_fusion(switches):
    config = tiny_config(**switches)
    sizes = {"audio": config.fusion_size, "semantics": SIZE, "description": SIZE}
    fusion = exact(MsfSerCrossModalFusion(config, sizes))
    sources = {name: draw(4, size, seed=i) for i, (name, size) in enumerate(sizes.items())}
    fused, routing = fusion(sources)
    for i in range(4):
        of_item = [(name, source[i].numpy()) for name, source in sources.items()]
        heads = attention_heads(config.fusion_size)
        expected, shares = reference.cross_modal_fusion(of_item, config.cross_fusion, heads, arrays(fusion))
        check(fused[i], expected)
        assert (routing is None) == (shares is None)
        if shares is not None:
            check(routing[i], shares)


# The whole fusion, from the encoders' outputs to the three numbers

LENGTHS = [9, 5, 1, 7, 9]
# What each item of the batch lacks; the model's own switches come on top.
MISSING: list[set[str]] = [set(), {"les"}, {"gs", "es"}, {"audio"}, {"es"}]


def item_inputs(model: MsfSerModel) -> tuple[dict[str, torch.Tensor], list[dict[str, np.ndarray | None]]]:
    """A batch with padding and missing inputs, and the same item by item for the reference."""
    config = model.config
    # Where the model has one input alone, each item has it.
    inputs_on = (["audio"] if config.audio else []) + config.semantics
    missing = [lacks if set(inputs_on) - lacks else set() for lacks in MISSING]
    batch = len(LENGTHS)
    # All states for each model: one that reads the last has to find it.
    states = 0.7 * draw(batch, STATES, max(LENGTHS), SIZE, seed=7) + 0.3
    lengths = [0 if "audio" in lacks else n for n, lacks in zip(LENGTHS, missing, strict=True)]
    inputs = {"audio_states": states, "attention_mask": mask_of(lengths, max(LENGTHS))} if config.audio else {}
    items = [{"audio": states[i, :, :n].numpy() if n else None} for i, n in enumerate(lengths)]
    for seed, name in enumerate(("les", "gs", "es")):
        vectors = draw(batch, SIZE, seed=20 + seed)
        is_there = torch.tensor([name not in lacks for lacks in missing])
        if name in config.semantics:
            inputs |= {f"{name}_embedding": vectors, f"{name}_attention_mask": is_there[:, None].long()}
        for i, item in enumerate(items):
            item[name] = vectors[i].numpy() if is_there[i] else None
    return inputs, items


def expected_of(model: MsfSerModel, items: list[dict[str, np.ndarray | None]]) -> list[dict]:
    names = ("audio", "semantics", "intra_fusion", "cross_fusion", "film_position", "audio_states")
    switches = {name: getattr(model.config, name) for name in names}
    switches["heads"] = attention_heads(model.config.fusion_size)
    of_model = arrays(model)
    return [reference.predict(item, switches, of_model) for item in items]


MODELS = [
    {},
    {"audio_states": "weighted"},
    {"routing": "input", "audio_states": "weighted"},
    {"film_position": "frames"},
    {"film_position": "frames", "audio_states": "weighted", "routing": "input"},
    {"cross_fusion": "film"},
    {"cross_fusion": "film", "film_position": "frames", "audio_states": "weighted"},
    {"cross_fusion": "film", "semantics": ["es"]},
    {"cross_fusion": "film", "semantics": ["gs", "es"]},
    {"cross_fusion": "film", "semantics": ["les"]},
    {"cross_fusion": "attention", "audio_states": "weighted"},
    {"cross_fusion": "concat", "intra_fusion": "attention"},
    {"intra_fusion": "attention"},
    {"intra_fusion": "concat"},
    {"semantics": []},
    {"semantics": [], "cross_fusion": "concat", "audio_states": "weighted"},
    {"semantics": ["gs"]},
    {"semantics": ["les", "es"]},
    {"semantics": ["es"]},
    {"audio": False},
    {"audio": False, "routing": "input", "intra_fusion": "attention"},
    {"audio": False, "semantics": ["gs"]},
    {"audio": False, "semantics": ["les", "gs"], "cross_fusion": "attention"},
]


def name_of(switches: dict) -> str:
    return ",".join(f"{name}={value}" for name, value in switches.items()).replace(" ", "") or "paper"


@pytest.mark.parametrize("switches", MODELS, ids=name_of)
def test_the_whole_fusion(switches):
    model = exact(tiny_model(**switches))
    inputs, items = item_inputs(model)
    found = model(**inputs, output_explanations=True)
    expected = expected_of(model, items)
    check(found.logits, [one["logits"] for one in expected], **IN_FLOAT32)
    check(found.embedding, [one["embedding"] for one in expected], rtol=1e-4, atol=1e-4)
    for name in ("gate", "routing"):
        of_items = [one[name] for one in expected]
        if of_items[0] is None:
            assert getattr(found, name) is None
        else:
            check(getattr(found, name), of_items, rtol=1e-4, atol=1e-4)
    if model.config.audio and model.config.audio_states == "weighted":
        check(found.layer_weights, reference.softmax(arrays(model)["layer_mix.scores"]))
    else:
        assert found.layer_weights is None
    # The items and the dimensions differ by far more than the tolerance.
    assert found.logits.std(0).min() > 1e-3 and found.logits.std(1).min() > 1e-3


@pytest.mark.parametrize("lacks", ["audio", "les", "gs", "es"])
def test_an_input_that_the_whole_batch_lacks(lacks):
    model = exact(tiny_model(audio_states="weighted"))
    inputs, items = item_inputs(model)
    left_out = ("audio_states", "attention_mask") if lacks == "audio" else (f"{lacks}_embedding",)
    expected = expected_of(model, [item | {lacks: None} for item in items[:2]])
    kept = {name: tensor[:2] for name, tensor in inputs.items() if name not in left_out}
    check(model(**kept).logits, [one["logits"] for one in expected], **IN_FLOAT32)


def test_the_missing_input_embedding_replaces_that_input_of_that_item():
    missing = exact(MsfSerMissingInputEmbedding(SIZE))
    vectors, is_there = draw(4, SIZE), torch.tensor([True, False, True, False])
    found = missing(vectors, is_there)
    for i in range(4):
        check(found[i], vectors[i] if is_there[i] else arrays(missing)["embedding"], rtol=0, atol=0)


@pytest.mark.parametrize("dropped", ["audio", "text"])
def test_training_drops_what_its_rates_say(dropped):
    """At a rate of nearly 1 every such input is missing, and no other is; but an item keeps one input."""
    rates = NO_DROPOUT | {f"{dropped}_dropout": 1 - 1e-9}
    model = exact(tiny_model(**rates))
    inputs, items = item_inputs(model)
    lacks = dict.fromkeys(["audio"] if dropped == "audio" else ["les", "gs", "es"])
    found = model.train()(**inputs).logits
    for i, item in enumerate(items):
        left = [item | lacks]
        if all(value is None for value in left[0].values()):
            left = [dict.fromkeys(item) | {name: value} for name, value in item.items() if value is not None]
        expected = [one["logits"] for one in expected_of(model, left)]
        nearest = min(expected, key=lambda logits: np.abs(logits - found[i].detach().numpy()).max())
        check(found[i], nearest, **IN_FLOAT32)
    # Evaluation drops nothing.
    check(model.eval()(**inputs).logits, [one["logits"] for one in expected_of(model, items)], **IN_FLOAT32)


@pytest.mark.parametrize("shares", [(0.0, 0.5, 0.25, 0.75), (0.5, 0.0, 0.0, 0.25), (0.75,) * 4, (0.0,) * 4])
def test_dropping_inputs_keeps_one(monkeypatch, shares):
    """Draws in steps of an eighth, so that some are 0, some equal a share, and some equal one another."""
    generator = torch.Generator().manual_seed(0)
    names, items = ("audio", "les", "gs", "es"), 400
    present = {name: torch.rand(items, generator=generator) < 0.6 for name in names}
    draws = {name: torch.randint(8, (items,), generator=generator) / 8 for name in names}
    of_shares = iter([draws[name] for name, share in zip(names, shares, strict=True) if share])
    monkeypatch.setattr(torch, "rand", lambda shape, device: next(of_shares))
    found = drop_inputs(present, dict(zip(names, shares, strict=True)))
    for i in range(items):
        has = [name for name in names if present[name][i]]
        drawn = {name: draws[name][i].item() for name in has}
        expected = reference.kept_inputs(drawn, dict(zip(names, shares, strict=True)))
        assert [name for name in names if found[name][i]] == expected


def test_the_share_of_dropped_texts():
    model = exact(tiny_model(semantics=["gs"], **NO_DROPOUT | {"text_dropout": 0.3})).train()
    states, vectors = draw(1, STATES, 3, SIZE, seed=7), draw(1, SIZE).expand(2000, -1)
    torch.manual_seed(0)
    logits = model(audio_states=states.expand(2000, -1, -1, -1), gs_embedding=vectors).logits
    without = dict.fromkeys(("les", "gs", "es")) | {"audio": states[0].numpy()}
    missing = expected_of(model, [without])[0]["logits"]
    share = (logits - torch.tensor(missing)).abs().max(-1).values.lt(1e-5).double().mean().item()
    assert share == pytest.approx(0.3, abs=0.03)


def test_the_loss_of_the_model_is_that_of_its_numbers():
    model = exact(tiny_model())
    inputs, items = item_inputs(model)
    labels = torch.rand(len(LENGTHS), 3, generator=torch.Generator().manual_seed(3))
    predicted = np.array([one["logits"] for one in expected_of(model, items)])
    found = model(**inputs, labels=labels).loss
    check(found, reference.ccc_loss(predicted, labels.double().numpy()), rtol=1e-4, atol=1e-4)


# Encoders


def mel_batch() -> tuple[torch.Tensor, torch.Tensor, list[int]]:
    """Log-mel frames of even and odd lengths; what stands behind an item's end is not zero."""
    lengths = [40, 17, 1, 30]
    return draw(4, 40, 20, seed=5), mask_of(lengths), lengths


def test_whisper_front_end():
    model = exact(tiny_model("whisper", audio_states="weighted", semantics=[]))
    mel, mask, lengths = mel_batch()
    states, frame_mask = model.encode_audio(input_features=mel, attention_mask=mask)
    for i, n in enumerate(lengths):
        expected = reference.whisper_front_end(mel[i, :n].numpy(), arrays(model.audio_encoder))
        assert frame_mask[i].tolist() == [frame < len(expected) for frame in range(20)]
        check(states[i, 0, : len(expected)], expected)


@pytest.mark.parametrize("fast", [True, False], ids=["fast", "stock"])
def test_whisper_alone_and_padded_in_a_batch(fast):
    model = exact(tiny_model("whisper", audio_states="weighted", semantics=[], fast_encoders=fast))
    mel, mask, lengths = mel_batch()
    states, frame_mask = model.encode_audio(input_features=mel, attention_mask=mask)
    assert states.shape[1] == STATES
    for i, n in enumerate(lengths):
        alone, mask_alone = model.encode_audio(input_features=mel[i : i + 1, :n])
        assert mask_alone.all() and int(frame_mask[i].sum()) == alone.shape[2] == math.ceil(n / 2)
        check(states[i, :, : alone.shape[2]], alone[0].detach())


def test_whisper_of_full_length_is_the_stock_encoder():
    model = exact(tiny_model("whisper", audio_states="weighted", semantics=[]))
    stock = WhisperEncoder(model.config.audio_config).double().eval()
    stock.load_state_dict(model.audio_encoder.state_dict())
    mel = draw(2, 2 * model.config.audio_config.max_source_positions, 20, seed=6)
    states, _ = model.encode_audio(input_features=mel)
    expected = stock(mel.transpose(1, 2), output_hidden_states=True)
    for i, state in enumerate([*expected.hidden_states[:-1], expected.last_hidden_state]):
        check(states[:, i], state.detach())


@pytest.mark.parametrize("encoder", ["whisper", "wavlm"])
def test_the_last_state_is_what_the_encoder_returns(encoder):
    switches = {"semantics": [], "fast_encoders": False}
    last = exact(tiny_model(encoder, audio_states="last", **switches))
    every = exact(tiny_model(encoder, audio_states="weighted", **switches))
    every.audio_encoder.load_state_dict(last.audio_encoder.state_dict())
    mel, mel_mask, _ = mel_batch()
    values, mask, _ = waveforms(torch.float64)
    sound = {"input_features": mel, "attention_mask": mel_mask}
    if encoder == "wavlm":
        sound = {"input_values": values, "attention_mask": mask}
    found, expected = last.encode_audio(**sound)[0], every.encode_audio(**sound)[0]
    assert (found.shape[1], expected.shape[1]) == (1, STATES)
    check(found[:, 0], expected[:, -1].detach(), rtol=0, atol=0)


def waveforms(precision: torch.dtype) -> tuple[torch.Tensor, torch.Tensor, list[int]]:
    """Sounds of different lengths; what stands behind an item's end is not zero."""
    lengths = [12_000, 2_345, 6_001]  # the longest has as many frames as the fast linear layers want
    return draw(3, 12_000, seed=8).to(precision), mask_of(lengths), lengths


@functools.cache
def stock_states(encoder: str) -> list[np.ndarray]:
    """Each sound alone through the library's own encoder, float64: `(states, frames, size)`."""
    model = exact(tiny_model(encoder, semantics=[], fast_encoders=False))
    values, _, lengths = waveforms(torch.float64)
    found = []
    with torch.no_grad():
        for row, n in zip(values, lengths, strict=True):
            output = model.audio_encoder(row[None, :n], output_hidden_states=True)
            found.append(torch.cat([*output.hidden_states[:-1], output.last_hidden_state]).numpy())
    return found


@pytest.mark.parametrize("encoder", ["wavlm", "hubert", "wav2vec2_group_norm", "data2vec-audio"])
@pytest.mark.parametrize("fast", [True, False], ids=["fast", "stock"])
@pytest.mark.parametrize("gradients", [True, False], ids=["training", "inference"])
def test_waveform_encoder_padded_in_a_batch(encoder, fast, gradients):
    switches = {"audio_states": "weighted", "semantics": [], "fast_encoders": fast, "freeze_audio": "none"}
    model = exact(tiny_model(encoder, **switches))
    # The fast kernels are for float32.
    precision, tolerance = (torch.float32, {"rtol": 1e-3, "atol": 2e-4}) if fast else (torch.float64, EXACT)
    model.to(precision)
    values, mask, lengths = waveforms(precision)
    with torch.set_grad_enabled(gradients):
        states, frame_mask = model.encode_audio(input_values=values, attention_mask=mask)
        alone = [model.encode_audio(input_values=row[None, :n])[0] for row, n in zip(values, lengths, strict=True)]
    for i, expected in enumerate(stock_states(encoder)):
        assert frame_mask[i].sum() == expected.shape[1] == alone[i].shape[2]
        check(states[i, :, : expected.shape[1]], expected, **tolerance)
        check(alone[i][0], expected, **tolerance)


@pytest.mark.parametrize("encoder", ["whisper", "wavlm"])
def test_from_sound_and_tokens_to_the_numbers(encoder):
    """The encoders' outputs go where the reference of the fusion expects them."""
    model = exact(tiny_model(encoder, audio_states="weighted", fast_encoders=False))
    if encoder == "whisper":
        values, mask, lengths = mel_batch()
        sound = {"input_features": values[:3], "attention_mask": mask[:3].long()}
    else:
        values, mask, lengths = waveforms(torch.float64)
        sound = {"input_values": values, "attention_mask": mask.long()}
    name = "input_features" if encoder == "whisper" else "input_values"
    draws = np.random.default_rng(2)
    texts, items = {}, []
    for seed, text in enumerate(("les", "gs", "es")):
        of_batch = mask_of([(5, 0, 3), (2, 6, 0), (1, 4, 5)][seed], 6).long()
        texts |= {
            f"{text}_input_ids": torch.from_numpy(draws.integers(4, 20, (3, 6))),
            f"{text}_attention_mask": of_batch,
        }
    for i in range(3):
        alone = model.encode_audio(**{name: values[i : i + 1, : lengths[i]]})[0][0].detach().numpy()
        item = {"audio": alone}
        for text in ("les", "gs", "es"):
            ids = texts[f"{text}_input_ids"][i : i + 1, : int(texts[f"{text}_attention_mask"][i].sum())]
            item[text] = model.encode_text(ids, torch.ones_like(ids))[0].detach().numpy() if ids.numel() else None
        items.append(item)
    found = model(**sound, **texts).logits
    check(found, [one["logits"] for one in expected_of(model, items)], **IN_FLOAT32)


# Loss


def scored(items: int) -> tuple[np.ndarray, np.ndarray]:
    draws = np.random.default_rng(items)
    labels = draws.random((items, 3))
    return 0.3 * labels + draws.random((items, 3)) * [0.2, 0.7, 0.4] + [0.0, 0.1, 0.3], labels


@pytest.mark.parametrize("items", [2, 3, 8])
def test_concordance(items):
    p, y = scored(items)
    expected = [reference.concordance(p[:, d], y[:, d]) for d in range(3)]
    check(concordance(torch.from_numpy(p), torch.from_numpy(y)), expected)
    assert ccc_loss(torch.from_numpy(p), torch.from_numpy(y)).item() == pytest.approx(3 - sum(expected), abs=1e-5)
    assert reference.ccc_loss(p, y) == pytest.approx(3 - sum(expected))


def test_the_gradient_of_the_loss():
    p, y = scored(8)
    expected, step = np.zeros_like(p), 1e-6
    for index in np.ndindex(p.shape):
        nudge = np.zeros_like(p)
        nudge[index] = step
        expected[index] = (reference.ccc_loss(p + nudge, y) - reference.ccc_loss(p - nudge, y)) / (2 * step)
    np.testing.assert_allclose(reference.ccc_gradient(p, y), expected, atol=1e-7)
    predictions = torch.from_numpy(p).requires_grad_()
    ccc_loss(predictions, torch.from_numpy(y)).backward()
    check(predictions.grad, expected, rtol=1e-4, atol=1e-5)


def one_process(rank: int, address: str, queue) -> None:
    """A rank with its half of the batch; the gradient is averaged over the ranks, as data parallelism does."""
    dist.init_process_group("gloo", init_method=address, rank=rank, world_size=2)
    p, y = scored(8)
    half = slice(4 * rank, 4 * rank + 4)
    offset = torch.zeros(4, 3, requires_grad=True)
    shared = torch.zeros(3, requires_grad=True)
    loss = ccc_loss(torch.from_numpy(p[half]) + offset + shared, torch.from_numpy(y[half]))
    loss.backward()
    dist.all_reduce(shared.grad)
    queue.put((rank, loss.item(), (offset.grad / 2).numpy(), (shared.grad / 2).numpy()))
    dist.barrier()
    dist.destroy_process_group()


def test_the_loss_of_two_processes_is_that_of_the_whole_batch(tmp_path):
    context = mp.get_context("spawn")
    queue = context.SimpleQueue()
    workers = mp.spawn(one_process, (f"file://{tmp_path / 'rendezvous'}", queue), nprocs=2, join=False)
    of_ranks = sorted((queue.get() for _ in range(2)), key=lambda answer: answer[0])
    workers.join()
    p, y = scored(8)
    gradient = reference.ccc_gradient(p, y)
    for _, loss, _, of_shared in of_ranks:
        assert loss == pytest.approx(reference.ccc_loss(p, y), abs=1e-5)
        np.testing.assert_allclose(of_shared, gradient.sum(0), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(np.concatenate([own for _, _, own, _ in of_ranks]), gradient, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("scale", [(1, 7), (1, 5), (-1.0, 1.0)])
def test_scales(scale):
    low, high = scale
    values = np.random.default_rng(0).uniform(low, high, (5, 3))
    np.testing.assert_allclose(from_scale(values, low, high), (values - low) / (high - low))
    shares = np.random.default_rng(1).random((5, 3))
    np.testing.assert_allclose(to_scale(shares, low, high), shares * high + (1 - shares) * low)
    np.testing.assert_allclose(to_scale(from_scale(values, low, high), low, high), values)
    assert (from_scale(low, low, high), from_scale(high, low, high)) == (0, 1)


# LEMF


def spoken(n_words: int, seed: int) -> tuple[list[dict], Prosody]:
    """Random words one after another with pauses, the third without a voiced frame, and a random prosody."""
    draws = np.random.default_rng(seed)
    words, at = [], 0.0137
    for i in range(n_words):
        at += draws.choice([0.0, 0.0531])
        end = at + draws.choice([0.0173, 0.11, 0.23, 0.41]) * draws.uniform(0.9, 1.1)
        words.append({"word": f"w{i}", "start": round(at, 4), "end": round(end, 4)})
        at = end
    pitch_times = np.arange(0, at + 0.4, 0.016) + 0.0081
    pitch = np.exp(draws.uniform(np.log(80), np.log(400), len(pitch_times)))
    pitch[draws.random(len(pitch)) < 0.3] = np.nan
    if n_words > 4:
        pitch[(pitch_times >= words[2]["start"]) & (pitch_times <= words[2]["end"])] = np.nan
    level = draws.uniform(-60, -10, int((at + 0.4) / 0.01))
    return words, Prosody(pitch_times, pitch, level)


@pytest.mark.parametrize("setting", ["paper", "peak"])
def test_lemf(setting):
    tops = set()
    for seed, n_words in itertools.product(range(6), (2, 3, 4, 5, 9)):
        words, prosody = spoken(n_words, 10 * seed + n_words)
        found = find_emphasis(words, prosody, EMPHASIS[setting])
        level_times = np.arange(len(prosody.level)) * 0.01
        scores = reference.lemf_scores(words, prosody.pitch_times, prosody.pitch, level_times, prosody.level, setting)
        np.testing.assert_allclose(found.scores, scores, rtol=1e-9, atol=1e-9)
        segment = reference.lemf_segment(scores)
        assert list(range(*found.segment)) == segment
        assert found.text == " ".join(words[i]["word"] for i in segment)
        assert found.top == int(np.argmax(scores))
        if n_words > 3:
            tops |= {"first" if found.top == 0 else "last" if found.top == n_words - 1 else "inside"}
        else:
            assert len(segment) == n_words
    assert tops == {"first", "last", "inside"}


def test_lemf_ignores_differences_below_the_resolution():
    words = [{"word": w, "start": s, "end": e} for w, s, e in [("a", 0, 0.2), ("b", 0.2, 0.4), ("c", 0.4, 0.6)]]
    words.append({"word": "d", "start": 0.6, "end": 0.8})
    times = np.arange(0, 0.8, 0.016) + 0.0081
    for decibels, is_seen in ((0.12, False), (0.5, True)):
        level = np.repeat([-20.0, -20.0, -20.0 + decibels, -20.0], 20)
        scores = find_emphasis(words, Prosody(times, np.full(50, 120.0), level)).scores
        assert scores.any() == is_seen
    for hertz, is_seen in ((120.3, False), (124.0, True)):
        pitch = np.where((times > 0.2) & (times < 0.4), hertz, 120.0)
        assert find_emphasis(words, Prosody(times, pitch, np.full(80, -20.0))).scores.any() == is_seen


def test_lemf_reads_the_papers_formula_by_default():
    words, prosody = spoken(6, 1)
    default, paper = find_emphasis(words, prosody), find_emphasis(words, prosody, EMPHASIS["paper"])
    np.testing.assert_array_equal(default.scores, paper.scores)


def test_the_pipeline_finds_emphasis_by_our_setting():
    pipe = MsfSerPipeline(tiny_model("whisper"), processor=tiny_processor("whisper"), recognizer=None)
    sound = voice(4.0)
    words = [
        {"word": w, "start": s, "end": e}
        for w, s, e in [("the", 0.2, 0.5), ("food", 0.5, 1.3), ("was", 1.4, 2.0), ("but", 2.2, 3.0), ("was", 3.1, 3.9)]
    ]
    found = pipe({"audio": sound, "sampling_rate": RATE, "words": words})
    expected = find_emphasis(words, measure_prosody(sound), EMPHASIS["peak"])
    assert [word["score"] for word in found["words"]] == pytest.approx(expected.scores.tolist())
    assert found["emphasis"] == expected.text


# Measures and norms


def voice(seconds: float, seed: int = 0, pitch: float = 150.0) -> np.ndarray:
    """Buzzing whose pitch and level move."""
    time = np.arange(int(RATE * seconds)) / RATE
    hertz = pitch * 2 ** (0.3 * np.sin(2 * np.pi * 0.7 * time + seed))
    buzz = sum(np.sin(2 * np.pi * k * np.cumsum(hertz) / RATE) / k for k in range(1, 9))
    loudness = 0.1 * (1.2 + np.sin(2 * np.pi * 2.3 * time + seed)) * (np.sin(2 * np.pi * 0.45 * time) > -0.6)
    return (loudness * buzz + 0.001 * noise(seconds, seed)).astype(np.float32)


def test_level():
    sound = voice(1.3)
    sound[5_000:7_000] = 0
    np.testing.assert_allclose(measure_prosody(sound).level, reference.level_in_db(sound), rtol=1e-6, atol=1e-4)


def test_measures_of_a_voice():
    for seed in range(4):
        draws = np.random.default_rng(seed)
        sound = voice(3.0, seed)
        pitch = draws.uniform(80, 400, 187)
        pitch[draws.random(187) < 0.4] = np.nan
        level = draws.uniform(-40, -15, 301)
        for start, length in ((20, 14), (60, 15), (120, 16), (200, 40), (0, 5)):
            level[start : start + length] = -70.0
        found = measure_voice(sound, Prosody(np.arange(187) * 0.016, pitch, level))
        for name, expected in reference.voice_measures(pitch, level).items():
            assert found[name] == pytest.approx(expected, abs=1e-9), name


def test_syllables_per_second():
    """Random peaks, plateaus and dips, also at the edges; the first and last frames are no peaks."""
    counts = set()
    for seed in range(40):
        draws = np.random.default_rng(seed)
        levels = np.where(draws.random(40) < 0.8, draws.uniform(-30, -20, 40), draws.uniform(-70, -40, 40))
        level = np.repeat(levels, draws.integers(1, 12, 40))
        times = np.arange(0, len(level) * 0.01, 0.016) + 0.0081
        pitch = np.where(draws.random(len(times)) < 0.2, np.nan, 120.0)
        found = measure_voice(np.zeros(100, np.float32), Prosody(times, pitch, level))
        measures = reference.voice_measures(pitch, level)
        speech = np.flatnonzero(level > level.max() - 30)
        seconds = (speech[-1] + 1 - speech[0]) * 0.01 * (1 - measures["pauses"])
        expected = reference.syllables(times, pitch, level)
        assert found["rate"] == pytest.approx(expected / seconds), seed
        counts.add(expected)
    assert len(counts) > 5


@pytest.mark.parametrize("gain", [1.0, 1e-5, 1e-8])
def test_brightness_and_clarity(gain):
    """Voices with noise, frames at and behind the ends, periods that are right, half and wrong, and near silence."""
    times = np.arange(70) * 0.016
    found = []
    for seed, period in enumerate(("random", "right", "half")):
        draws = np.random.default_rng(seed)
        if period == "random":
            sound = voice(1.0, seed) + draws.normal(0, 0.05, 16_000).astype(np.float32)
            pitch = 150 * 2 ** (0.3 * np.sin(2 * np.pi * 0.7 * times + seed))
        else:
            sound = np.sin(2 * np.pi * 125 * np.arange(16_000) / RATE).astype(np.float32)
            pitch = np.full(70, 125.0 if period == "right" else 250.0)
        pitch[draws.random(70) < 0.4] = np.nan
        sound = gain * (sound + np.float32(0.1))
        measures = measure_voice(sound, Prosody(times, pitch, np.full(101, -20.0)))
        for name in ("brightness", "clarity"):
            expected = getattr(reference, name)(sound, times, pitch)
            assert measures[name] == pytest.approx(expected, rel=1e-6, abs=1e-6), (name, period)
            found.append(round(expected, 1))
    assert gain < 1 or (0 < found[1] < 20 and found[3] == 30.0 and found[5] == -30.0)


def test_words_of_a_description_are_the_steps_between_the_norms():
    sound = voice(4.0)
    prosody = measure_prosody(sound)
    measures = measure_voice(sound, prosody)
    assert measures["pauses"] > 0
    for below in range(5):  # how many of the quantiles the measure reaches
        for offset in (0.0, 1e-3):
            quantiles = {}
            for name, value in measures.items():
                lower = [value - offset - i for i in reversed(range(below))]
                quantiles[name] = lower + [value + 1.0 + i for i in range(4 - below)]
            [text] = MeasuredDescriber({"corpus": "x", "quantiles": quantiles})([sound], [None])
            for name, value in measures.items():
                step = reference.step_of(value, quantiles[name], name == "pauses")
                assert step == (max(below, 1) if name == "pauses" else below)
                assert WORDS[name][step] in text
    # Without a pause the first step, whatever the norms.
    steady = np.full(len(prosody.level), -20.0)
    [text] = MeasuredDescriber({"corpus": "x", "quantiles": {name: [0.0] * 4 for name in WORDS}})(
        [sound], [None], [Prosody(prosody.pitch_times, prosody.pitch, steady)]
    )
    assert WORDS["pauses"][0] in text


def test_norms_are_quantiles_over_the_corpus(tmp_path):
    found = []
    for i in range(5):
        sound = voice(1.5 + 0.5 * i, i, 110 + 40 * i)
        if i == 3:  # no pause
            sound = voice(1.0, i, 200)
        soundfile.write(tmp_path / f"{i}.wav", sound, RATE, subtype="FLOAT")
        found.append(measure_voice(sound, measure_prosody(sound)))
    norms = make_norms(str(tmp_path), "voices")
    assert 0 < sum(measures["pauses"] > 0 for measures in found) < 5
    for name in WORDS:
        values = sorted(measures[name] for measures in found if name != "pauses" or measures[name] > 0)
        # Quantile q lies q (n - 1) steps behind the smallest.
        places = [q * (len(values) - 1) for q in (0.1, 0.3, 0.7, 0.9)]
        expected = np.interp(places, range(len(values)), values)
        assert norms["quantiles"][name] == pytest.approx(expected.tolist(), abs=2e-3), name


# Long recordings


def test_cuts_of_a_long_recording():
    ended_in_pauses = 0
    for seed in range(6):
        draws = np.random.default_rng(seed)
        sound = noise(30.0, seed)
        for _ in range(12):
            start = int(draws.integers(len(sound)))
            sound[start : start + int(draws.integers(2_000, 8_000))] *= draws.choice([0.01, 0.2, 0.4])
        ends = reference.segment_ends(sound, 4 * RATE)
        found = np.cumsum([len(segment) for segment in cut_at_pauses([sound], 4.0)]).tolist()
        assert found == ends
        ended_in_pauses += sum(end - start < 4 * RATE for start, end in itertools.pairwise([0, *ends[:-1]]))
    assert ended_in_pauses > 5


@pytest.fixture(scope="module")
def pipe() -> MsfSerPipeline:
    model = randomize(tiny_model("whisper", routing="input"), 1)
    return MsfSerPipeline(model, processor=tiny_processor("whisper"), recognizer=None, describer=None)


@pytest.fixture(scope="module")
def long() -> np.ndarray:
    """33 s without speech, with pauses at odd places."""
    tone = np.sin(2 * np.pi * 3000 * np.arange(11 * RATE) / RATE)
    sound = syllables(np.concatenate([noise(9.0), 0.3 * tone, 0.3 * noise(13.0, 2)]))
    for start, length in ((5.03, 0.31), (10.4, 0.3), (14.9, 0.5), (20.2, 0.25), (24.9, 0.4)):
        sound[int(start * RATE) : int((start + length) * RATE)] *= 0.01
    return sound


def test_windows_of_a_long_recording_count_by_their_seconds(pipe, long):
    result = pipe(long, sampling_rate=RATE)
    ends = [end / RATE for end in reference.segment_ends(long, 6 * RATE)]
    course = result["course"]
    starts = [0.0, *ends]
    assert [w["start"] for w in course] == pytest.approx(starts[: len(course)], abs=1e-3)
    assert [w["end"] for w in course] == pytest.approx(ends[1:], abs=1e-3)
    assert result["weighting"] == "seconds"
    weights = reference.seconds_of_windows(ends)
    assert weights.sum() == pytest.approx(result["duration"])
    assert weights.std() > 0.5
    for i, window in enumerate(course):
        samples = long[round(starts[i] * RATE) : round(ends[i + 1] * RATE)]
        inputs = pipe.processor([samples], RATE)
        logits = pipe.model(**inputs).logits[0].tolist()
        assert [window[label] for label in LABELS] == pytest.approx(logits, abs=1e-5)
    for label in LABELS:
        values = [window[label] for window in course]
        assert np.std(values) > 1e-3
        assert result[label] == pytest.approx(np.dot(weights, values) / weights.sum(), abs=1e-6)


def test_windows_of_a_long_recording_count_by_their_seconds_of_speech(pipe, long):
    draws = np.random.default_rng(0)
    words, at = [], 0.1
    while at < 32.0:
        end = round(at + draws.uniform(0.1, 0.6), 3)
        words.append({"word": str(draws.choice(["the", "food", "was", "a", "b"])), "start": at, "end": end})
        at = round(end + (draws.uniform(0, 0.2) if at < 14 else draws.uniform(0.5, 2.0)), 3)
    result = pipe({"audio": long, "sampling_rate": RATE, "words": words})
    ends = [end / RATE for end in reference.segment_ends(long, 6 * RATE)]
    assert result["weighting"] == "seconds of speech"
    weights = reference.speech_of_windows(ends, words)
    by_seconds = reference.seconds_of_windows(ends)
    assert np.abs(weights / weights.sum() - by_seconds / by_seconds.sum()).max() > 0.05
    course = result["course"]
    for label in LABELS:
        values = [window[label] for window in course]
        assert result[label] == pytest.approx(np.dot(weights, values) / weights.sum(), abs=1e-6)
    # Gate and routing with the same weights: of each window, what the model says of its sound and texts.
    borders = [0.0, *ends]
    gates, shares = [], []
    for i, window in enumerate(course):
        samples = long[round(borders[i] * RATE) : round(ends[i + 1] * RATE)]
        texts = {name: [window[name]] for name in ("transcript", "emphasis", "description")}
        output = pipe.model(**pipe.processor([samples], RATE, **texts), output_explanations=True)
        check(output.logits[0], [window[label] for label in LABELS], rtol=0, atol=1e-5)
        gates.append(output.gate[0].mean().item())
        shares.append(output.routing[0].detach().numpy())
    assert result["gate"] == pytest.approx(np.dot(weights, gates) / weights.sum(), abs=1e-5)
    expected = np.tensordot(weights, shares, 1) / weights.sum()
    found = [list(result["routing"][label].values()) for label in LABELS]
    np.testing.assert_allclose(found, expected, atol=1e-5)
