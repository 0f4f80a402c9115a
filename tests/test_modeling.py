import copy

import numpy as np
import pytest
import torch
from tiny import AUDIO_CONFIGS, NO_DROPOUT, TEXT_CONFIG, noise, tiny_config, tiny_model, tiny_processor
from transformers import AutoConfig, AutoModel, WhisperModel

from msfser import MsfSerConfig, MsfSerModel
from msfser.encoders_msfser import shortest_waveform

TEXTS = {"transcript": "the food was wonderful", "emphasis": "was wonderful but", "description": "a b c d e"}

# Every row of the paper's ablation table, and the switches beside it.
ROWS = {
    "acoustic only": {"semantics": [], "cross_fusion": "concat"},
    "+ GS, FiLM": {"semantics": ["gs"], "cross_fusion": "film"},
    "+ LES, FiLM": {"semantics": ["les"], "cross_fusion": "film"},
    "+ ES, FiLM": {"semantics": ["es"], "cross_fusion": "film"},
    "GS+LES, attention, FiLM": {"semantics": ["gs", "les"], "intra_fusion": "attention", "cross_fusion": "film"},
    "GS+LES, gate, FiLM": {"semantics": ["gs", "les"], "cross_fusion": "film"},
    "gate, concatenation": {"semantics": ["gs", "les"], "cross_fusion": "concat"},
    "full, FM-MOE": {},
    "full, FiLM": {"cross_fusion": "film"},
    "full, attention": {"cross_fusion": "attention"},
    "full, concat, concat": {"intra_fusion": "concat", "cross_fusion": "concat"},
    "FiLM on the frames": {"film_position": "frames"},
    "input-conditioned routing": {"routing": "input"},
    "weighted states": {"audio_states": "weighted"},
    "texts alone": {"audio": False},
    "ES alone": {"audio": False, "semantics": ["es"]},
    "sound and ES, FM-MOE": {"semantics": ["es"]},
}


def batch(processor, labels: bool = True, seconds=(0.9, 0.6, 1.3)) -> dict[str, torch.Tensor]:
    n = len(seconds)
    inputs = processor(
        [noise(s, i) for i, s in enumerate(seconds)],
        sampling_rate=16_000,
        **{name: [" ".join(text.split()[: i + 2]) for i in range(n)] for name, text in TEXTS.items()},
    )
    if labels:
        inputs["labels"] = torch.linspace(0.1, 0.9, 3 * n).view(n, 3)
    return inputs


@pytest.mark.parametrize("row", ROWS)
def test_each_row_of_the_paper_trains_every_active_part(row):
    model = tiny_model(
        freeze_audio="none", freeze_text=False, text_dropout=0.0, audio_dropout=0.0, **ROWS[row]
    ).train()
    inputs = batch(tiny_processor())
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    for _ in range(3):  # FiLM and the gate start neutral: what lies behind them is reached from the third step on
        optimizer.zero_grad()
        output = model(**inputs)
        output.loss.backward()
        optimizer.step()
    assert output.logits.shape == (3, 3) and ((output.logits > 0) & (output.logits < 1)).all()
    silent = {name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()}
    for part in ("audio_encoder", "text_encoder", "film", "intra_fusion", "cross_fusion", "heads", "pooling"):
        names = [name for name, _ in model.named_parameters() if name.startswith(part)]
        assert len(silent.intersection(names)) <= len(names) // 5, f"{part}: {silent.intersection(names)}"


@pytest.mark.parametrize("audio", AUDIO_CONFIGS)
@pytest.mark.parametrize("states", ["last", "weighted"])
def test_padding_does_not_change_an_item(audio, states):
    model, processor = tiny_model(audio, audio_states=states), tiny_processor(audio)
    with torch.no_grad():
        together = model(**batch(processor)).logits
        for i, (seconds, n_words) in enumerate(zip((0.9, 0.6, 1.3), (2, 3, 4), strict=True)):
            texts = {name: " ".join(text.split()[:n_words]) for name, text in TEXTS.items()}
            alone = model(**processor(noise(seconds, i), sampling_rate=16_000, **texts)).logits[0]
            assert (together[i] - alone).abs().max() < 1e-5
    assert together.std(0).max() > 1e-5  # the items do differ


@pytest.mark.parametrize("audio", ["wavlm", "whisper", "wav2vec2_group_norm"])
def test_any_input_may_be_missing_for_an_item(audio):
    model, processor = tiny_model(audio), tiny_processor(audio)
    sound = noise(0.8)
    with torch.no_grad():
        mixed = processor(
            [sound, None, sound], sampling_rate=16_000, transcript=["a b", "c", None], description=[None, "d e", None]
        )
        logits = model(**mixed).logits
        alone = [
            processor(sound, sampling_rate=16_000, transcript="a b"),
            processor(transcript="c", description="d e"),
            processor(sound, sampling_rate=16_000),
        ]
        for i, inputs in enumerate(alone):
            assert (logits[i] - model(**inputs).logits[0]).abs().max() < 1e-5


def test_missing_inputs_give_finite_gradients():
    model = tiny_model(freeze_audio="none", freeze_text=False).train()
    inputs = tiny_processor()([noise(0.8), None], sampling_rate=16_000, transcript=[None, "a b"])
    model(**inputs, labels=torch.rand(2, 3)).loss.backward()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)
    assert model.missing_text["es"].embedding.grad.abs().sum() > 0
    assert model.missing_audio.embedding.grad.abs().sum() > 0


def test_no_input_at_all_is_an_error():
    model, processor = tiny_model(), tiny_processor()
    with pytest.raises(ValueError, match="no input"):
        model()
    with pytest.raises(ValueError, match="no input"):
        tiny_model(audio=False)(**processor(noise(0.8), sampling_rate=16_000))
    inputs = processor(noise(0.8), sampling_rate=16_000, transcript="a")
    both = {name: torch.cat([value, torch.zeros_like(value)]) for name, value in inputs.items()}
    with pytest.raises(ValueError, match="Item 1"):
        model(**both)


def test_the_wrong_kind_of_sound_is_an_error():
    with pytest.raises(ValueError, match="input_features"):
        tiny_model("whisper")(**tiny_processor("wavlm")(noise(0.8), sampling_rate=16_000))


@pytest.mark.parametrize("other", ["les_input_ids", "gs_input_ids", "es_embedding"])
def test_inputs_of_different_batch_sizes_are_named(other):
    model, inputs = tiny_model(), dict(batch(tiny_processor(), labels=False))
    if other == "es_embedding":
        inputs[other] = model.encode_text(inputs.pop("es_input_ids"), inputs["es_attention_mask"])
    inputs[other] = inputs[other][:2]
    with pytest.raises(ValueError, match=rf"^input_values has 3 items and {other} has 2: pass the inputs of the same"):
        model(**inputs)


@pytest.mark.parametrize("audio", [audio for audio in AUDIO_CONFIGS if audio != "whisper"])
@pytest.mark.parametrize("fast", [True, False])
def test_a_sound_too_short_for_a_frame_is_an_error(audio, fast):
    model = tiny_model(audio, semantics=[], fast_encoders=fast)
    samples = shortest_waveform(model.config.audio_config)
    wrong = rf"A sound has {samples - 1} samples and this speech encoder needs {samples} or more"
    with torch.no_grad():
        assert model(torch.randn(1, samples)).logits.isfinite().all()
        with pytest.raises(ValueError, match=wrong):
            model(torch.randn(1, samples - 1))
        with pytest.raises(ValueError, match="A sound has 0 samples"):
            model(torch.randn(1, 0))
        mask = torch.ones(3, 8000)
        mask[1, samples - 1 :] = mask[2] = 0
        with pytest.raises(ValueError, match=wrong):  # in a batch it would count as long as the longest
            model.encode_audio(torch.randn(3, 8000), None, mask)
        mask[1, samples - 1] = 1
        assert model.encode_audio(torch.randn(3, 8000), None, mask)[1].sum(-1).tolist()[1:] == [1, 0]
    with pytest.raises(ValueError, match=wrong):
        model.train()(torch.randn(1, samples - 1))


def test_no_mel_frame_is_an_error():
    model = tiny_model("whisper", semantics=[])
    with pytest.raises(ValueError, match="A sound has 0 mel frames and this speech encoder needs 1 or more"):
        model(input_features=torch.zeros(1, 0, 20))


def test_inputs_of_a_branch_that_is_off_change_nothing():
    model, inputs = tiny_model(semantics=["gs"]), batch(tiny_processor())
    with torch.no_grad():
        logits = model(**inputs).logits
        del inputs["les_input_ids"], inputs["les_attention_mask"], inputs["es_input_ids"]
        assert torch.equal(model(**inputs).logits, logits)


def test_text_dropout_acts_in_training_only():
    model, inputs = tiny_model(text_dropout=0.9, head_dropout=0.0, expert_dropout=0.0), batch(tiny_processor())
    with torch.no_grad():
        assert torch.equal(model(**inputs).logits, model(**inputs).logits)
        model.train()
        model.audio_encoder.eval()
        seen = torch.stack([model(**inputs).logits for _ in range(8)])
    assert seen.std(0).max() > 1e-6


def test_explanations_come_on_request_only():
    inputs = batch(tiny_processor())
    model = tiny_model(audio_states="weighted")
    with torch.no_grad():
        plain, explained = model(**inputs), model(**inputs, output_explanations=True)
    assert set(plain.keys()) == {"loss", "logits"}
    assert explained.gate.shape == (3, 32) and ((explained.gate > 0) & (explained.gate < 1)).all()
    assert explained.routing.shape == (3, 3, 3)
    assert torch.allclose(explained.routing.sum(-1), torch.ones(3, 3))
    assert explained.layer_weights.shape == (3,) and torch.allclose(explained.layer_weights.sum(), torch.tensor(1.0))
    assert explained.embedding.shape == (3, 16)
    assert torch.equal(plain.logits, explained.logits)


def test_the_start_is_neutral():
    """Gate one half, FiLM the identity, shares equal, through the initial weights and through a saved folder."""
    model = tiny_model(routing="input", audio_states="weighted")
    with torch.no_grad():
        output = model(**batch(tiny_processor()), output_explanations=True)
        x = torch.randn(2, 16)
        assert torch.equal(model.film(x, torch.randn(2, 32)), x)
    assert torch.allclose(output.gate, torch.tensor(0.5))
    assert torch.allclose(output.routing, torch.tensor(1 / 3))
    assert torch.allclose(output.layer_weights, torch.tensor(1 / 3))
    assert model.missing_text["gs"].embedding.abs().sum() > 0


@pytest.mark.parametrize("audio", ["wavlm", "whisper"])
@pytest.mark.parametrize(("freeze", "trained"), [("none", True), ("front_end", True), ("all", False)])
def test_freezing(audio, freeze, trained, tmp_path):
    tiny_model(audio, freeze_audio=freeze, freeze_text=not trained).save_pretrained(tmp_path)
    model = MsfSerModel.from_pretrained(tmp_path).train()
    front = "conv1" if audio == "whisper" else "feature_extractor"
    for name, parameter in model.named_parameters():
        if name.startswith(f"audio_encoder.{front}"):
            assert parameter.requires_grad == (freeze == "none"), name
        elif name.startswith("audio_encoder.") and "embed_positions" not in name:
            assert parameter.requires_grad == trained or freeze == "front_end", name
        elif name.startswith("text_encoder."):
            assert parameter.requires_grad == trained, name
    assert model.audio_encoder.training == trained and model.text_encoder.training == trained
    inputs = batch(tiny_processor(audio))
    with torch.random.fork_rng():
        model(**inputs).loss.backward()


def test_gradient_checkpointing_gives_the_same_gradients():
    def gradients(checkpointing: bool) -> dict[str, torch.Tensor]:
        model = tiny_model("whisper", freeze_audio="none", freeze_text=False, **NO_DROPOUT)
        if checkpointing:
            model.gradient_checkpointing_enable()
            assert model.is_gradient_checkpointing
        model.train()
        model(**batch(tiny_processor("whisper"))).loss.backward()
        return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}

    plain, checkpointed = gradients(False), gradients(True)
    assert plain.keys() == checkpointed.keys()
    assert max((plain[name] - checkpointed[name]).abs().max() for name in plain) < 1e-6


def test_reentrant_checkpointing_is_refused_where_it_does_not_end():
    with pytest.raises(ValueError, match=r"use_reentrant=True: .*WavLM.*use use_reentrant=False"):
        tiny_model().gradient_checkpointing_enable({"use_reentrant": True})
    tiny_model().gradient_checkpointing_enable({"use_reentrant": False})
    model = tiny_model("whisper")
    model.gradient_checkpointing_enable({"use_reentrant": True})
    model.gradient_checkpointing_disable()
    assert not model.is_gradient_checkpointing


def test_encoded_parts_give_what_the_whole_gives():
    model, inputs = tiny_model("whisper", audio_states="weighted"), batch(tiny_processor("whisper"), labels=False)
    with torch.no_grad():
        whole = model(**inputs).logits
        states, mask = model.encode_audio(None, inputs["input_features"], inputs["attention_mask"])
        parts = {"audio_states": states, "attention_mask": mask}
        for name in ("les", "gs", "es"):
            parts[f"{name}_embedding"] = model.encode_text(
                inputs[f"{name}_input_ids"], inputs[f"{name}_attention_mask"]
            )
        assert torch.allclose(model(**parts).logits, whole, atol=1e-6)
    assert states.shape[1] == 3


def test_sound_beyond_the_position_table_is_an_error():
    model = tiny_model("whisper")
    with pytest.raises(ValueError, match="14 s"):
        model(input_features=torch.zeros(1, 1402, 20))


@pytest.mark.parametrize("audio", ["wavlm", "whisper"])
def test_a_mix_of_layers_trains_on_an_encoder_with_layerdrop(audio):
    dropping = AUDIO_CONFIGS[audio] | {"layerdrop": 0.9, "encoder_layerdrop": 0.5}
    model = MsfSerModel(tiny_config(audio_config=dropping, audio_states="weighted", freeze_audio="none")).train()
    inputs = batch(tiny_processor(audio))
    for _ in range(4):
        model(**inputs).loss.backward()


@pytest.mark.parametrize("audio", ["wavlm", "wav2vec2_group_norm", "whisper"])
def test_a_frozen_front_end_records_no_gradients(audio):
    model = tiny_model(audio, freeze_audio="front_end").train()
    front = model.audio_encoder.conv1 if audio == "whisper" else model.audio_encoder.feature_extractor
    seen = []
    front.register_forward_hook(lambda _, __, output: seen.append(output.requires_grad))
    model(**batch(tiny_processor(audio))).loss.backward()
    assert seen and not any(seen)


@pytest.mark.parametrize("seconds", [0.001, 0.02, 0.5])
def test_very_short_sound_trains_with_spec_augment(seconds):
    augmented = AUDIO_CONFIGS["wavlm"] | {"mask_time_prob": 0.5}
    model = MsfSerModel(tiny_config(audio_config=augmented, freeze_audio="none"))
    inputs = tiny_processor()([noise(seconds)] * 2, sampling_rate=16_000)
    model.train()(**inputs, labels=torch.rand(2, 3)).loss.backward()


def test_silence_has_a_defined_result():
    for audio in ("wavlm", "whisper"):
        with torch.no_grad():
            logits = tiny_model(audio)(
                **tiny_processor(audio)(np.zeros(16_000, np.float32), sampling_rate=16_000)
            ).logits
        assert logits.isfinite().all()


def test_a_saved_model_is_bit_equal(tmp_path):
    model, inputs = tiny_model("whisper", audio_states="weighted"), batch(tiny_processor("whisper"))
    state = copy.deepcopy(model.state_dict())
    model.save_pretrained(tmp_path)
    loaded, info = MsfSerModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"] and not info["mismatched_keys"]
    assert all(torch.equal(state[name], tensor) for name, tensor in loaded.state_dict().items())
    with torch.no_grad():
        assert torch.equal(model(**inputs).logits, loaded(**inputs).logits)


def test_the_paper_setting_has_the_sizes_of_the_paper():
    with torch.device("meta"):
        model = MsfSerModel(MsfSerConfig())
    assert model.audio_projection.in_features == 2048 and model.audio_projection.out_features == 1024
    assert model.intra_fusion.gate.out_features == 1024
    assert 300e6 < sum(p.numel() for p in model.audio_encoder.parameters()) < 330e6
    assert 350e6 < sum(p.numel() for p in model.text_encoder.parameters()) < 360e6


def test_an_encoder_without_a_name_is_not_built_at_random(tmp_path):
    AutoModel.from_config(AutoConfig.for_model(**TEXT_CONFIG)).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="audio_encoder is None: name a speech encoder, or give audio=False"):
        MsfSerModel.from_encoders(None, str(tmp_path))
    for texts in ({}, {"semantics": None}, {"semantics": ["gs"]}):
        with pytest.raises(ValueError, match=r"text_encoder is None: name a text encoder, or give semantics=\[\]"):
            MsfSerModel.from_encoders("microsoft/wavlm-large", None, **texts)


@pytest.mark.parametrize("audio", ["wavlm", "hubert", "whisper"])
def test_no_layer_is_dropped(audio, tmp_path):
    """Whether the encoder is built from a config or loaded with a config of its own."""
    dropping = AUDIO_CONFIGS[audio] | {"layerdrop": 1.0, "encoder_layerdrop": 1.0}
    if audio == "whisper":
        whole = WhisperModel(AutoConfig.for_model(**dropping | {"dropout": 0.0}))
    else:
        whole = AutoModel.from_config(AutoConfig.for_model(**dropping))
    whole.save_pretrained(tmp_path)
    switches = {"semantics": [], "freeze_audio": "none", "audio_states": "weighted"}
    built = MsfSerModel(tiny_config(audio_config=dropping | {"dropout": 0.0}, **switches))
    loaded = MsfSerModel.from_encoders(str(tmp_path), None, **switches)
    assert getattr(loaded.config.audio_config, "layerdrop", 0.0) == 0.0
    inputs = dict(tiny_processor(audio)([noise(0.9), noise(0.6, 1)], sampling_rate=16_000))
    for model in (built, loaded):
        with torch.no_grad():
            expected, _ = model.eval().encode_audio(**inputs)
            found, _ = model.train().encode_audio(**inputs)
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
        assert (expected[:, 1] - expected[:, 2]).abs().max() > 1e-3
    assert not getattr(loaded.config.audio_config, "encoder_layerdrop", 0.0)


def test_pretrained_encoders_have_the_settings_of_the_model(tmp_path):
    """A built encoder gets the weights: what the config says then holds for every part of it."""
    encoder = AutoModel.from_config(AutoConfig.for_model(**AUDIO_CONFIGS["wavlm"] | {"hidden_dropout": 0.3}))
    encoder.save_pretrained(tmp_path)
    model = MsfSerModel.from_encoders(str(tmp_path), None, semantics=[])
    assert model.audio_encoder.config is model.audio_encoder.encoder.config
    saved = encoder.state_dict()
    assert all(torch.equal(value, saved[name]) for name, value in model.audio_encoder.state_dict().items())
    assert not any(p.requires_grad for p in model.audio_encoder.feature_extractor.parameters())


DROPOUTS = {
    "wavlm": ("hidden_dropout", "attention_dropout", "activation_dropout", "feat_proj_dropout"),
    "whisper": ("dropout", "attention_dropout", "activation_dropout"),
}


@pytest.mark.parametrize("rate", [1.0, 0.99999])
@pytest.mark.parametrize(("audio", "name"), [(audio, name) for audio, names in DROPOUTS.items() for name in names])
def test_a_dropout_of_one_gives_zeros_and_not_infinities(audio, name, rate):
    settings = AUDIO_CONFIGS[audio] | {name: rate}
    model = MsfSerModel(tiny_config(audio_config=settings, freeze_audio="none", semantics=[])).train()
    output = model(**tiny_processor(audio)([noise(0.9), noise(0.6, 1)], 16_000), labels=torch.rand(2, 3))
    output.loss.backward()
    assert output.logits.isfinite().all()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


@pytest.mark.parametrize("audio", ["wavlm", "wav2vec2_group_norm", "whisper"])
@pytest.mark.parametrize("training", [True, False])
def test_the_default_device_changes_nothing(audio, training):
    """What the model makes itself lies where its inputs are."""
    settings = AUDIO_CONFIGS[audio] | dict.fromkeys(DROPOUTS["whisper" if audio == "whisper" else "wavlm"], 0.3)
    model = MsfSerModel(tiny_config(audio_config=settings, freeze_audio="none", freeze_text=False)).train(training)
    inputs = batch(tiny_processor(audio))
    with torch.device("meta"):
        output = model(**inputs, output_explanations=True)
        output.loss.backward()
    assert output.logits.device.type == "cpu" and output.logits.isfinite().all()
