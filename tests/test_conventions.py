"""What the library expects of every model, beyond its numbers: see also tests/common."""

import logging
import os
import shutil
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from accelerate.utils import FullyShardedDataParallelPlugin
from tiny import AUDIO_CONFIGS, TEXT_CONFIG, noise, tiny_config, tiny_model, tiny_processor, tiny_tokenizer
from torch import nn
from transformers import AutoConfig, AutoModel, AutoModelForAudioClassification, Trainer, TrainingArguments
from transformers.utils import logging as library_logging

from msfser import MsfSerConfig, MsfSerModel, MsfSerProcessor

BERT_CONFIG = TEXT_CONFIG | {"model_type": "bert"}
SECONDS = (0.9, 0.6, 1.3)


def inputs_of(model: MsfSerModel) -> dict[str, torch.Tensor]:
    processor = tiny_processor("whisper" if model.config.is_mel else "wavlm")
    sounds = [noise(seconds, i) for i, seconds in enumerate(SECONDS)] if model.config.audio else None
    texts = ["the food was", "a", "b c d e"]
    given = {"transcript": texts, "emphasis": [*texts[1:], None], "description": texts[::-1]}
    return processor(sounds, sampling_rate=16_000, **given)


def randomized(encoder: str = "wavlm", **switches) -> MsfSerModel:
    model = tiny_model(encoder, **switches)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model


def logits_of(model: MsfSerModel) -> torch.Tensor:
    with torch.no_grad():
        return model(**inputs_of(model)).logits


def check_same_logits(model: MsfSerModel, other: MsfSerModel) -> None:
    """But for rounding: weights of a file may be aligned otherwise in memory, which changes sums on some CPUs."""
    torch.testing.assert_close(logits_of(model), logits_of(other), rtol=0, atol=1e-6)


@pytest.fixture
def messages(caplog):
    """What the library's loggers and ours say."""
    library_logging.enable_propagation()
    yield caplog
    library_logging.disable_propagation()


# Attention


@pytest.mark.parametrize("encoder", ["whisper", "wav2vec2_group_norm", "hubert", "data2vec-audio"])
@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_one_attention_implementation_is_passed_to_both_encoders(encoder, implementation, tmp_path):
    default = randomized(encoder)
    default.save_pretrained(tmp_path)
    loaded = MsfSerModel.from_pretrained(tmp_path, attn_implementation=implementation)
    built = MsfSerModel(tiny_config(encoder, attn_implementation=implementation)).eval()
    built.load_state_dict(default.state_dict())
    default.set_attn_implementation(implementation)
    for model in (loaded, built, default):
        used = {module.config._attn_implementation for module in model.modules() if hasattr(module, "config")}
        assert used == {implementation}
        assert model.audio_encoder.config is model.config.audio_config
        assert torch.allclose(logits_of(model), logits_of(loaded), atol=1e-5)
    assert "attn_implementation" not in (tmp_path / "config.json").read_text()


@pytest.mark.parametrize("fast", [True, False])
def test_wavlm_says_that_it_has_no_such_attention_and_runs_its_own(fast, messages, tmp_path):
    model = randomized(fast_encoders=fast)
    model.save_pretrained(tmp_path)
    expected = logits_of(model)
    runs = "the fast kernels, which call scaled_dot_product_attention" if fast else "its default attention"
    sentence = f"WavLMModel has no 'flex_attention' attention in transformers: it runs {runs}."
    for way in ("from_pretrained", "config", "set"):
        library_logging.warning_once.cache_clear()
        messages.clear()
        if way == "from_pretrained":
            other = MsfSerModel.from_pretrained(tmp_path, attn_implementation="flex_attention")
        elif way == "config":
            other = MsfSerModel(tiny_config(fast_encoders=fast, attn_implementation="flex_attention"))
        else:
            other = MsfSerModel.from_pretrained(tmp_path)
            other.set_attn_implementation("flex_attention")
        assert sentence in messages.text, way
        assert other.config._attn_implementation == other.config.text_config._attn_implementation == "flex_attention"
        assert other.config.audio_config._attn_implementation == "eager"
    other = MsfSerModel.from_pretrained(tmp_path, attn_implementation="sdpa")
    assert other.text_encoder.config._attn_implementation == "sdpa"
    assert torch.allclose(logits_of(other), expected, atol=1e-6)


def test_sdpa_is_no_warning_for_fast_wavlm_which_calls_it(messages):
    MsfSerModel(tiny_config(attn_implementation="sdpa"))
    warned = [record.getMessage() for record in messages.records if record.levelno >= logging.WARNING]
    assert not any("WavLMModel" in message for message in warned)


def test_attention_by_encoder(tmp_path):
    model = randomized("hubert")
    model.save_pretrained(tmp_path)
    chosen = {"audio_config": "eager", "text_config": "sdpa"}
    loaded = MsfSerModel.from_pretrained(tmp_path, attn_implementation=chosen)
    model.set_attn_implementation(chosen)
    for one in (loaded, model):
        assert one.audio_encoder.config._attn_implementation == "eager"
        assert one.text_encoder.config._attn_implementation == "sdpa"
    with pytest.raises(ValueError, match="WavLMModel does not support"):
        MsfSerModel(tiny_config(attn_implementation={"audio_config": "sdpa"}))


def test_unknown_attention_is_refused():
    with pytest.raises(ValueError, match='attn_implementation="quick"` is not supported'):
        MsfSerModel(tiny_config(attn_implementation="quick"))
    with pytest.raises(ValueError, match='attn_implementation="quick"` is not supported'):
        tiny_model().set_attn_implementation("quick")


def test_the_attention_of_given_configs_is_kept():
    donor = tiny_model("hubert")
    donor.set_attn_implementation({"audio_config": "eager"})
    config = MsfSerConfig(audio_config=donor.config.audio_config, text_config=donor.config.text_config)
    model = MsfSerModel(config)
    assert model.audio_encoder.config._attn_implementation == "eager"
    assert model.text_encoder.config._attn_implementation == "sdpa"


def test_encoders_that_are_loaded_share_the_models_config(tmp_path):
    for name, config in (("audio", AUDIO_CONFIGS["hubert"]), ("text", TEXT_CONFIG)):
        AutoModel.from_config(
            tiny_config(audio_config=config).audio_config if name == "audio" else tiny_config().text_config
        ).save_pretrained(tmp_path / name)
    model = MsfSerModel.from_encoders(
        str(tmp_path / "audio"), str(tmp_path / "text"), fusion_size=16, attn_implementation="eager"
    )
    for name in ("audio", "text"):
        encoder = getattr(model, f"{name}_encoder")
        assert encoder.config is getattr(model.config, f"{name}_config")
        assert encoder.config._attn_implementation == "eager"
        saved = AutoModel.from_pretrained(tmp_path / name).state_dict()
        assert all(torch.equal(value, saved[key]) for key, value in encoder.state_dict().items())
    model.set_attn_implementation({"audio_config": "sdpa"})
    assert model.audio_encoder.config._attn_implementation == "sdpa"


# Names that other libraries look up


@pytest.mark.parametrize(
    ("switches", "name"),
    [
        ({}, "input_values"),
        ({"encoder": "whisper"}, "input_features"),
        ({"audio": False}, "gs_input_ids"),
        ({"audio": False, "semantics": ["es", "les"]}, "les_input_ids"),
        ({"audio": False, "semantics": ["es"]}, "es_input_ids"),
        ({"semantics": []}, "input_values"),
    ],
)
def test_the_main_input_is_that_of_the_encoder(switches, name):
    model = tiny_model(**switches)
    assert model.main_input_name == name and name in inputs_of(model)


@pytest.mark.parametrize("fast", [True, False])
@pytest.mark.parametrize(
    ("audio", "text", "layers"),
    [
        ("wavlm", TEXT_CONFIG, {"WavLMEncoderLayerStableLayerNorm", "RobertaLayer"}),
        ("wav2vec2_group_norm", BERT_CONFIG, {"Wav2Vec2EncoderLayer", "BertLayer"}),
        ("hubert", BERT_CONFIG, {"HubertEncoderLayerStableLayerNorm", "BertLayer"}),
        ("data2vec-audio", TEXT_CONFIG, {"Data2VecAudioEncoderLayer", "RobertaLayer"}),
        ("whisper", BERT_CONFIG, {"WhisperEncoderLayer", "BertLayer"}),
        ("wavlm", None, {"WavLMEncoderLayerStableLayerNorm"}),
        (None, TEXT_CONFIG, {"RobertaLayer"}),
    ],
)
def test_the_default_wrapping_of_fsdp_finds_the_layers(audio, text, layers, fast):
    switches = {"fast_encoders": fast, "audio": audio is not None, "cross_fusion": "concat"}
    switches |= {"semantics": []} if text is None else {"text_config": text}
    model = tiny_model(audio or "wavlm", **switches)
    assert layers <= model._no_split_modules
    plugin = FullyShardedDataParallelPlugin(auto_wrap_policy="transformer_based_wrap")
    plugin.set_auto_wrap_policy(model)  # a name that is not in the model is an error
    wrapped = plugin.auto_wrap_policy.keywords["transformer_layer_cls"]
    count = [sum(isinstance(module, tuple(wrapped)) for module in model.modules() if type(module).__name__ in layers)]
    assert layers <= {cls.__name__ for cls in wrapped} and count == [2 * len(layers)]
    assert not any("Conv" in name and "Parametrized" not in name for name in model._no_split_modules)


@pytest.mark.parametrize("text", [TEXT_CONFIG, BERT_CONFIG])
def test_input_embeddings_are_the_text_encoders(text):
    model = tiny_model(text_config=text)
    assert model.get_input_embeddings() is model.text_encoder.embeddings.word_embeddings
    inputs = inputs_of(model)
    with torch.no_grad():
        before = model(**inputs).logits
        model.set_input_embeddings(nn.Embedding(70, 32))
        assert (model(**inputs).logits - before).abs().max() > 1e-6
    assert model.text_encoder.embeddings.word_embeddings.num_embeddings == 70


def test_resized_embeddings_survive_a_folder(tmp_path):
    model = randomized()
    model.resize_token_embeddings(70)
    assert model.config.text_config.vocab_size == 70
    model.save_pretrained(tmp_path)
    loaded = MsfSerModel.from_pretrained(tmp_path)
    assert loaded.get_input_embeddings().num_embeddings == 70
    check_same_logits(loaded, model)


@pytest.mark.parametrize("encoder", ["wavlm", "whisper"])
def test_without_texts_there_are_the_embeddings_of_a_library_model(encoder):
    model = tiny_model(encoder, semantics=[])
    with pytest.raises(NotImplementedError):
        model.get_input_embeddings()


# Outputs


@pytest.mark.parametrize("encoder", ["wavlm", "whisper", "wav2vec2_group_norm", "hubert"])
@pytest.mark.parametrize("by", ["call", "config"])
@pytest.mark.parametrize("fast", [True, False])
def test_hidden_states_and_attentions_come_on_request(encoder, by, fast):
    model = randomized(encoder, fast_encoders=fast)
    inputs = inputs_of(model)
    with torch.no_grad():
        plain = model(**inputs)
        model.set_attn_implementation("eager")
        asked = {"output_hidden_states": True, "output_attentions": True}
        if by == "config":
            model.config.output_hidden_states = model.config.output_attentions = True
            asked = {}
        output = model(**inputs, **asked)
        states, frame_mask = model.encode_audio(
            inputs.get("input_values"), inputs.get("input_features"), inputs["attention_mask"]
        )
        gs_mask = inputs["gs_attention_mask"]
        gs = model.encode_text(inputs["gs_input_ids"], gs_mask)
    assert set(plain.keys()) == {"logits"}
    assert torch.allclose(output.logits, plain.logits, atol=1e-5)
    frames = frame_mask.shape[1]
    assert [state.shape for state in output.audio_hidden_states] == [(3, frames, 32)] * 3
    assert torch.allclose(
        output.audio_hidden_states[-1] * frame_mask[..., None], states[:, -1] * frame_mask[..., None], atol=1e-5
    )
    assert [weights.shape for weights in output.audio_attentions] == [(3, 2, frames, frames)] * 2
    for weights in output.audio_attentions:
        rows = weights.sum(-1)[frame_mask[:, None].expand(-1, 2, -1)]
        assert torch.allclose(rows, torch.ones_like(rows), atol=1e-5)
        behind = weights * ~frame_mask[:, None, None]
        assert behind[frame_mask[:, None, :, None].expand_as(behind)].abs().max() < 1e-6
    tokens = gs_mask.shape[1]
    assert [state.shape for state in output.gs_hidden_states] == [(3, tokens, 32)] * 3
    mean = (output.gs_hidden_states[-1] * gs_mask[..., None]).sum(1) / gs_mask.sum(1, keepdim=True)
    assert torch.allclose(mean, gs, atol=1e-5)
    assert [weights.shape for weights in output.gs_attentions] == [(3, 2, tokens, tokens)] * 2
    for name in ("les", "es"):
        assert len(output[f"{name}_hidden_states"]) == 3 and len(output[f"{name}_attentions"]) == 2


@pytest.mark.parametrize("encoder", ["whisper", "wavlm", "hubert"])
def test_threads_get_their_own_attentions(encoder):
    model = randomized(encoder, attn_implementation="eager")
    inputs = [
        tiny_processor("whisper" if encoder == "whisper" else "wavlm")(noise(seconds, i), 16_000, "the food")
        for i, seconds in enumerate(SECONDS)
    ]

    def attentions(one):
        with torch.no_grad():
            output = model(**one, output_attentions=True)
        return [*output.audio_attentions, *output.gs_attentions]

    expected = [attentions(one) for one in inputs]
    with ThreadPoolExecutor(3) as threads:
        found = list(threads.map(attentions, inputs * 8))
    for i, weights in enumerate(found):
        for ours, alone in zip(weights, expected[i % 3], strict=True):
            torch.testing.assert_close(ours, alone, rtol=0, atol=1e-6)


def test_an_absent_input_has_no_states():
    model = tiny_model()
    with torch.no_grad():
        output = model(**tiny_processor()(transcript=["a b", "c"]), output_hidden_states=True)
    assert {key for key in output if key != "logits"} == {"gs_hidden_states"}


@pytest.mark.parametrize("encoder", ["whisper", "hubert", "wav2vec2_group_norm"])
def test_an_attention_without_weights_says_so(encoder, messages):
    model = tiny_model(encoder)
    library_logging.warning_once.cache_clear()
    with torch.no_grad():
        output = model(**inputs_of(model), output_attentions=True)
    assert set(output.keys()) == {"logits"}
    for name in ("audio", "text"):
        sentence = f"output_attentions: the {name} encoder's 'sdpa' attention does not compute attention weights"
        assert sentence in messages.text


def test_attentions_by_the_config_choose_the_attention_that_has_them():
    model = MsfSerModel(tiny_config("whisper", output_attentions=True))
    assert model.text_encoder.config._attn_implementation == "eager"
    assert len(model(**inputs_of(model)).audio_attentions) == 2


@pytest.mark.parametrize("by", ["call", "config", "sub-config"])
def test_return_dict(by):
    parts = {"audio_config": AUDIO_CONFIGS["hubert"], "text_config": TEXT_CONFIG}
    expected = logits_of(tiny_model(**parts))
    if by == "sub-config":
        parts = {name: part | {"return_dict": False} for name, part in parts.items()}
    model = tiny_model(**parts, return_dict=by != "config")
    with torch.no_grad():
        output = model(**inputs_of(model), **({"return_dict": False} if by == "call" else {}))
    assert isinstance(output, tuple) == (by != "sub-config") and torch.equal(output[0], expected)


def test_extra_outputs_are_not_in_the_predictions_of_trainer(tmp_path):
    model = tiny_model(attn_implementation="eager")
    model.config.output_hidden_states = model.config.output_attentions = True
    rows = [{name: value[i] for name, value in inputs_of(model).items()} | {"labels": torch.rand(3)} for i in range(3)]
    arguments = TrainingArguments(str(tmp_path), report_to=[], use_cpu=True, remove_unused_columns=False)
    found = Trainer(model, arguments).predict(rows)
    assert found.predictions.shape == (3, 3)


# Saving and loading


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such permissions")
def test_saved_weights_are_as_readable_as_the_other_files(tmp_path):
    for size in ("5GB", "1KB"):
        tiny_model().save_pretrained(tmp_path / size, max_shard_size=size)
        assert len({path.stat().st_mode for path in (tmp_path / size).iterdir() if path.is_file()}) == 1
    assert len([*(tmp_path / "1KB").glob("*.safetensors")]) > 1


def test_save_pretrained_accepts_the_librarys_positional_arguments(tmp_path):
    model = randomized()
    state = {name: value + 1 for name, value in model.state_dict().items()}
    model.save_pretrained(tmp_path / "a", True, dict(state))
    loaded = MsfSerModel.from_pretrained(tmp_path / "a")
    assert all(torch.equal(value, state[name]) for name, value in loaded.state_dict().items())
    model.save_pretrained(tmp_path / "b", False)
    assert not (tmp_path / "b" / "model.safetensors").exists()
    tiny_processor().save_pretrained(tmp_path / "c", False)
    assert (tmp_path / "c" / "processor_config.json").is_file()


def test_a_config_may_be_given_by_position(tmp_path):
    randomized().save_pretrained(tmp_path)
    config = tiny_config(text_dropout=0.3)
    assert MsfSerModel.from_pretrained(tmp_path, config=config).config.text_dropout == 0.3


@pytest.mark.parametrize("auto_class", [MsfSerModel, AutoModelForAudioClassification])
def test_another_fusion_width_is_refused_or_starts_anew(auto_class, tmp_path):
    model = randomized()
    model.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"do not have the shapes of its config.*ignore_mismatched_sizes=True"):
        MsfSerModel.from_pretrained(tmp_path, fusion_size=24)
    options = {"fusion_size": 24, "ignore_mismatched_sizes": True}
    if auto_class is not MsfSerModel:
        auto_class.register(MsfSerConfig, MsfSerModel, exist_ok=True)
    loaded = auto_class.from_pretrained(tmp_path, **options)
    assert loaded.config.fusion_size == loaded.audio_projection.out_features == 24
    assert torch.equal(
        loaded.audio_encoder.feature_projection.projection.weight,
        model.audio_encoder.feature_projection.projection.weight,
    )
    assert not loaded.film.modulation.weight.any()  # neutral, as in a new model
    assert logits_of(loaded).isfinite().all()
    _, report = MsfSerModel.from_pretrained(tmp_path, **options, output_loading_info=True)
    assert report["mismatched_keys"]


def test_a_pickle_beside_or_above_good_weights_does_not_matter(tmp_path):
    model = randomized()
    model.save_pretrained(tmp_path / "inner")
    (tmp_path / "inner" / "training_args.bin").write_bytes(b"a pickle")
    (tmp_path / "pytorch_model.bin").write_bytes(b"a pickle")
    loaded = MsfSerModel.from_pretrained(tmp_path, subfolder="inner")
    check_same_logits(loaded, model)
    shutil.move(tmp_path / "inner" / "model.safetensors", tmp_path / "model.safetensors")
    (tmp_path / "inner" / "pytorch_model.bin").write_bytes(b"a pickle")
    with pytest.raises(ValueError, match=r"inner': the weights are a pickle \(pytorch_model.bin\)"):
        MsfSerModel.from_pretrained(tmp_path, subfolder="inner")


def test_a_variant_is_loaded(tmp_path):
    model = randomized()
    model.save_pretrained(tmp_path, variant="half")
    (tmp_path / "pytorch_model.bin").write_bytes(b"a pickle")
    check_same_logits(MsfSerModel.from_pretrained(tmp_path, variant="half"), model)
    with pytest.raises(ValueError, match="pickle"):
        MsfSerModel.from_pretrained(tmp_path)


def test_given_weights_need_none_in_the_folder(tmp_path):
    model = randomized()
    model.save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    (tmp_path / "pytorch_model.bin").write_bytes(b"a pickle")
    config = MsfSerConfig.from_pretrained(tmp_path)
    loaded = MsfSerModel.from_pretrained(None, config=config, state_dict=model.state_dict())
    check_same_logits(loaded, model)


def test_a_revision_and_a_subfolder_of_the_hubs_cache(tmp_path, monkeypatch):
    model = randomized()
    repository = tmp_path / "models--someone--model"
    for revision, name in (("0" * 40, "main"), ("1" * 40, "other")):
        (repository / "refs").mkdir(parents=True, exist_ok=True)
        (repository / "refs" / name).write_text(revision)
        model.save_pretrained(repository / "snapshots" / revision / "inner")
    (repository / "snapshots" / ("0" * 40) / "pytorch_model.bin").write_bytes(b"a pickle")
    (repository / "snapshots" / ("1" * 40) / "inner" / "model.safetensors").unlink()
    options = {"cache_dir": tmp_path, "subfolder": "inner", "local_files_only": True}
    loaded = MsfSerModel.from_pretrained("someone/model", **options)
    check_same_logits(loaded, model)
    with pytest.raises(OSError):
        MsfSerModel.from_pretrained("someone/model", revision="other", **options)


# Devices


@pytest.mark.parametrize("encoder", ["wavlm", "whisper", "wav2vec2_group_norm"])
def test_a_default_device_does_not_change_what_runs_on_another(encoder):
    dropout = {"hidden_dropout": 0.1, "attention_dropout": 0.1, "dropout": 0.1}
    model = randomized(encoder, audio_config=AUDIO_CONFIGS[encoder] | dropout, freeze_audio="none")
    inputs = inputs_of(model)
    with torch.no_grad():
        expected = model(**inputs).logits
        torch.set_default_device("meta")
        try:
            found = model(**inputs).logits
            trained = model.train()(**inputs, labels=torch.full((3, 3), 0.5, device="cpu"))
            config = tiny_config(encoder)
            shell = MsfSerModel(config)
        finally:
            torch.set_default_device(None)
    assert torch.equal(found, expected) and trained.loss.isfinite()
    assert {parameter.device.type for parameter in shell.parameters()} == {"meta"}
    assert {name: value.shape for name, value in shell.state_dict().items()} == {
        name: value.shape for name, value in model.state_dict().items()
    }


# Long texts


@pytest.mark.parametrize(("text", "longest"), [(TEXT_CONFIG, 78), (BERT_CONFIG, 80)])
def test_a_text_beyond_the_position_table_is_an_error(text, longest):
    model = tiny_model(audio=False, text_config=text)
    ids = torch.full((1, longest + 1), 5)
    with torch.no_grad():
        assert model(gs_input_ids=ids[:, :-1]).logits.isfinite().all()
    with pytest.raises(
        ValueError, match=f"has {longest + 1} tokens .* positions end at {longest}: .*max_tokens={longest}"
    ):
        model(gs_input_ids=ids)


@pytest.mark.parametrize(("text", "longest"), [(TEXT_CONFIG, 78), (BERT_CONFIG, 80)])
def test_the_processor_knows_how_many_tokens_its_encoders_model_reads(text, longest, tmp_path):
    for name, config in (("audio", AUDIO_CONFIGS["wavlm"]), ("text", text)):
        AutoModel.from_config(AutoConfig.for_model(**config)).save_pretrained(tmp_path / name)
    tiny_tokenizer().save_pretrained(tmp_path / "text")
    folders = str(tmp_path / "audio"), str(tmp_path / "text")
    processor = MsfSerProcessor.from_encoders(*folders)
    assert processor.max_tokens == longest
    processor.save_pretrained(tmp_path / "processor")
    model = MsfSerModel.from_encoders(*folders, fusion_size=16)
    for one in (processor, MsfSerProcessor.from_pretrained(tmp_path / "processor")):
        inputs = one(transcript="the food was wonderful " * 100)
        assert inputs["gs_input_ids"].shape == (1, longest)
        with torch.no_grad():
            assert model(**inputs).logits.isfinite().all()


def test_the_tokenizers_limit_is_kept():
    tokenizer = tiny_tokenizer()
    tokenizer.model_max_length = 9
    processor = MsfSerProcessor(tiny_processor().feature_extractor, tokenizer)
    assert processor.max_tokens == 9
    assert processor(transcript="the food was wonderful " * 100)["gs_input_ids"].shape == (1, 9)
    assert tiny_processor().max_tokens == 256


def test_arguments_for_both_parts_of_the_processor():
    processor = tiny_processor()
    given = {"audio": noise(0.8), "sampling_rate": 16_000, "transcript": "the food"}
    plain = processor(**given, return_tensors="np", padding="max_length", text_kwargs={"max_length": 9})
    nested = processor(
        **given, common_kwargs={"return_tensors": "np", "padding": "max_length"}, text_kwargs={"max_length": 9}
    )
    assert plain.keys() == nested.keys() and nested["gs_input_ids"].shape == (1, 9)
    assert all(np.array_equal(plain[name], nested[name]) for name in plain)
    with pytest.raises(ValueError, match="padding is given for both and for one"):
        processor(**given, padding=True, text_kwargs={"padding": "max_length"})
