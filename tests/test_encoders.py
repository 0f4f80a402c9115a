"""Pretrained encoders by name: exact weights, clear sentences where there is nothing, and no network."""

import itertools
import json
from pathlib import Path

import huggingface_hub
import pytest
import torch
from published import MINILM, WHISPER, needs
from safetensors.torch import load_file
from tiny import AUDIO_CONFIGS, TEXT_CONFIG, noise, tiny_model, tiny_tokenizer
from transformers import AutoConfig, AutoModel, Wav2Vec2FeatureExtractor
from transformers.convert_slow_tokenizer import bytes_to_unicode

from msfser import MsfSerFeatureExtractor, MsfSerModel, encoders_msfser
from msfser.encoders_msfser import (
    feature_settings,
    load_audio_encoder,
    load_recognizer,
    load_text_encoder,
    load_tokenizer,
    prepared_folder,
    whisper_states,
)

pytestmark = pytest.mark.usefixtures("no_hub")


def pretrained(folder: Path, config: dict) -> Path:
    """A tiny encoder saved like a published one."""
    torch.manual_seed(0)
    AutoModel.from_config(AutoConfig.for_model(**config)).save_pretrained(folder)
    return folder


# Prepared encoders


@needs(WHISPER)
def test_whisper_has_every_prepared_weight():
    prepared = load_file(prepared_folder(WHISPER) / "model.safetensors")
    recognizer, _ = load_recognizer(WHISPER)
    state = recognizer.state_dict()
    assert set(state) == {*prepared, "proj_out.weight"}
    assert all(torch.equal(value.float(), state[key]) for key, value in prepared.items())
    encoder = load_audio_encoder(WHISPER)
    assert all(torch.equal(v, state[f"model.encoder.{k}"]) for k, v in encoder.state_dict().items())
    assert {p.dtype for model in (encoder, recognizer) for p in model.parameters()} == {torch.float32}
    assert not encoder.training and not recognizer.training


@needs(WHISPER)
def test_whispers_encoder_equals_the_stock_one_at_thirty_seconds():
    extract = MsfSerFeatureExtractor(**feature_settings(WHISPER), max_seconds=30.0)
    # In float64, as the last layer norm makes rounding errors of float32 a thousand times as large.
    mel = extract(noise(30.0), 16_000, return_tensors="pt")["input_features"].double()  # (1, mel frames, mels)
    encoder = load_audio_encoder(WHISPER).double()
    with torch.no_grad():
        stock = encoder(mel.mT).last_hidden_state
        states, mask = whisper_states(encoder, mel, torch.ones(1, 3000, dtype=torch.bool))
    assert stock.std() > 0.1
    assert (states[-1] - stock).abs().max() < 1e-9
    assert mask.shape == (1, 1500)
    assert mask.all()


def merged(word: bytes, ranks: dict[bytes, int]) -> list[int]:
    """Byte-pair encoding as its authors define it: of all neighbors, the pair with the lowest rank merges first."""
    parts = [bytes([byte]) for byte in word]
    while pairs := [(ranks[a + b], i) for i, (a, b) in enumerate(itertools.pairwise(parts)) if a + b in ranks]:
        _, i = min(pairs)
        parts[i : i + 2] = [parts[i] + parts[i + 1]]
    return [ranks[part] for part in parts]


@needs(WHISPER)
def test_the_recognizers_vocabulary_and_special_ids_are_whispers():
    recognizer, tokenizer = load_recognizer(WHISPER)
    letters = {letter: byte for byte, letter in bytes_to_unicode().items()}
    vocabulary = {token: rank for token, rank in tokenizer.get_vocab().items() if rank < 50256}
    ranks = {bytes(letters[letter] for letter in token): rank for token, rank in vocabulary.items()}
    assert len(ranks) == 50256
    for word in ("The", " wonderful", "Größe", " naïve", "日本語", " Ünïcödé", "😀", " antidisestablishmentarianism"):
        ids = tokenizer(word, add_special_tokens=False)["input_ids"]
        assert ids == merged(word.encode(), ranks)
        assert tokenizer.decode(ids) == word
    ids = recognizer.generation_config
    assert (ids.decoder_start_token_id, ids.no_timestamps_token_id, ids.eos_token_id) == (50257, 50362, 50256)
    assert len(ids.alignment_heads) == 8 and ids.suppress_tokens[-4:] == [50257, 50359, 50360, 50361]


@needs(MINILM)
def test_minilm_has_every_published_weight_but_the_pooler():
    published = load_file(prepared_folder(MINILM) / "model.safetensors")
    loaded = load_text_encoder(MINILM).state_dict()
    unused = {key for key in published if key.startswith("pooler.") or key.endswith("position_ids")}
    assert set(loaded) == set(published) - unused
    assert all(torch.equal(loaded[key], published[key].float()) for key in loaded)
    tokens = load_tokenizer(MINILM)("The food was wonderful")
    assert tokens["input_ids"] == [101, 1996, 2833, 2001, 6919, 102]


@needs(WHISPER, MINILM)
def test_a_saved_model_names_its_encoders_and_holds_no_path(tmp_path):
    MsfSerModel.from_encoders(WHISPER, MINILM, fusion_size=16).save_pretrained(tmp_path)
    text = (tmp_path / "config.json").read_text()
    config = json.loads(text)
    assert config["audio_config"]["_name_or_path"] == WHISPER
    assert config["text_config"]["_name_or_path"] == MINILM
    assert str(prepared_folder(MINILM).parent) not in text


@needs(MINILM)
def test_a_saved_tokenizer_holds_no_path(tmp_path):
    tokenizer = load_tokenizer(MINILM)
    assert tokenizer.name_or_path == MINILM
    tokenizer.save_pretrained(tmp_path)
    assert str(prepared_folder(MINILM).parent) not in (tmp_path / "tokenizer_config.json").read_text()


# Not available


@pytest.mark.parametrize("load", [load_audio_encoder, load_text_encoder, load_tokenizer, feature_settings])
def test_an_unknown_name_is_one_sentence_that_names_an_encoder_that_is_available(load):
    with pytest.raises(OSError, match="'nobody/nothing' is no folder, and neither the Hub nor its cache") as error:
        load("nobody/nothing")
    assert "\n" not in str(error.value)
    assert (WHISPER in str(error.value)) == (load in (load_audio_encoder, feature_settings))


def test_a_path_to_no_folder_is_a_sentence():
    with pytest.raises(OSError, match=r"^there is no model folder './no/such': check the path, or run `msfser enc"):
        load_audio_encoder("./no/such")


@pytest.mark.usefixtures("nothing_prepared")
@pytest.mark.parametrize(
    ("name", "load"),
    [
        (WHISPER, load_audio_encoder),
        (WHISPER, feature_settings),
        (WHISPER, load_recognizer),
        (MINILM, load_text_encoder),
        (MINILM, load_tokenizer),
    ],
)
def test_an_encoder_that_is_not_prepared_is_one_sentence_that_says_how(name, load):
    with pytest.raises(OSError, match=f"run `msfser encoders {name}`") as error:
        load(name)
    assert str(error.value).startswith(f"{name!r} is no folder, and neither the Hub nor its cache has it")
    assert "\n" not in str(error.value)


def test_offline_the_hub_is_not_tried(monkeypatch):
    monkeypatch.setattr(encoders_msfser, "get_session", lambda: pytest.fail("the Hub was tried"))
    assert not encoders_msfser._hub_is_reachable()


def test_a_hub_that_does_not_answer_is_tried_once(monkeypatch):
    tried = []

    class Wall:
        def head(self, url, timeout):
            tried.append(url)
            raise ConnectionError("no route")

    monkeypatch.setattr(encoders_msfser, "is_offline_mode", lambda: False)
    monkeypatch.setattr(encoders_msfser, "get_session", Wall)
    for _ in range(3):
        with pytest.raises(OSError, match="nobody/nothing"):
            load_audio_encoder("nobody/nothing")
    assert tried == [huggingface_hub.constants.ENDPOINT]


@pytest.mark.usefixtures("nothing_prepared")
def test_a_prepared_encoder_is_loaded_like_a_folder_under_its_hub_name():
    pretrained(prepared_folder(MINILM), TEXT_CONFIG)
    encoder = load_text_encoder(MINILM)
    assert encoder.config.model_type == TEXT_CONFIG["model_type"]
    assert encoder.config._name_or_path == MINILM


# The Hub's cache, and folders


@pytest.mark.usefixtures("nothing_prepared")
def test_the_hubs_cache_is_used_where_nothing_is_prepared(tmp_path):
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


def text_tokens(*lengths: int) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """By name the ids and the mask of one text of each length."""
    draw = torch.Generator().manual_seed(0)
    ids = [torch.randint(4, 60, (1, length), generator=draw) for length in lengths]
    return {f"text {i}": (of_text, torch.ones_like(of_text)) for i, of_text in enumerate(ids)}


@pytest.mark.parametrize("kind", ["bert", "roberta", "xlm-roberta", "camembert", "electra", "mpnet"])
@pytest.mark.parametrize("lengths", [(5, 14, 39), (1, 1), (7,)])
def test_texts_of_one_item_are_encoded_together_as_each_alone(kind, lengths):
    of_kind = {**TEXT_CONFIG, "model_type": kind, "embedding_size": 32}
    model, texts = tiny_model(text_config=of_kind), text_tokens(*lengths)
    passes = []
    model.text_encoder.register_forward_hook(lambda *of_pass: passes.append(of_pass))
    found = model.encode_texts(texts)
    can_join = kind not in ("electra", "mpnet")
    assert len(passes) == (1 if can_join else len(texts))
    for name, (ids, mask) in texts.items():
        torch.testing.assert_close(found[name], model.encode_text(ids, mask).detach(), rtol=0, atol=2e-6)


@pytest.mark.parametrize("case", ["a batch", "longer than the positions", "an absent text", "another attention"])
def test_texts_that_cannot_be_joined_are_encoded_one_by_one(case):
    model, texts = tiny_model(), text_tokens(*((30, 30, 30) if case.startswith("longer") else (5, 14, 39)))
    if case == "a batch":
        texts = {name: (ids.repeat(2, 1), mask.repeat(2, 1)) for name, (ids, mask) in texts.items()}
    if case == "an absent text":
        texts["text 1"] = (torch.ones(1, 4, dtype=torch.long), torch.zeros(1, 4, dtype=torch.long))
    if case == "another attention":
        model.text_encoder.set_attn_implementation("eager")
    found = model.encode_texts(texts)
    for name, (ids, mask) in texts.items():
        assert torch.equal(found[name], model.encode_text(ids, mask))


def test_a_model_from_folders_saves_no_path(tmp_path):
    audio = pretrained(tmp_path / "home" / "speech", AUDIO_CONFIGS["wavlm"])
    text = pretrained(tmp_path / "home" / "text", TEXT_CONFIG)
    MsfSerModel.from_encoders(str(audio), str(text), fusion_size=16).save_pretrained(tmp_path / "model")
    assert str(tmp_path) not in (tmp_path / "model" / "config.json").read_text()


def test_a_checkpoint_without_the_encoders_weights_is_refused(tmp_path):
    whole = AutoModel.from_pretrained(pretrained(tmp_path / "whole", AUDIO_CONFIGS["whisper"]))
    whole.encoder.save_pretrained(tmp_path / "part")
    with pytest.raises(OSError, match=r"lacks \d+ of its weights, such as .*: give the whole checkpoint"):
        load_audio_encoder(str(tmp_path / "part"))


@pytest.mark.parametrize("load", [load_audio_encoder, feature_settings])
def test_a_text_encoder_in_place_of_a_speech_encoder_is_a_clear_error(load, tmp_path):
    with pytest.raises(ValueError, match=r"is a text encoder.* not a speech encoder"):
        load(str(pretrained(tmp_path, TEXT_CONFIG)))


def test_a_speech_encoder_in_place_of_a_text_encoder_is_a_clear_error(tmp_path):
    for load in (load_text_encoder, load_tokenizer):
        with pytest.raises(ValueError, match=r"is a speech encoder.* not a text encoder"):
            load(str(pretrained(tmp_path, AUDIO_CONFIGS["wavlm"])))


def test_the_shortest_waveform_gives_the_frames_that_spec_augment_needs():
    from msfser.encoders_msfser import shortest_waveform

    for name in ("wavlm", "hubert", "data2vec-audio"):
        encoder = tiny_model(name, semantics=[]).audio_encoder
        samples = shortest_waveform(encoder.config, encoder.config.mask_time_length)
        lengths = encoder._get_feat_extract_output_lengths(torch.tensor([samples - 1, samples])).tolist()
        assert lengths == [encoder.config.mask_time_length - 1, encoder.config.mask_time_length], name
