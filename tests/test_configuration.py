import copy
import json

import pytest
import torch
from tiny import AUDIO_CONFIGS, TEXT_CONFIG, noise, tiny_config, tiny_model, tiny_processor
from transformers import AutoConfig

from msfser import LABELS, MsfSerConfig, MsfSerModel


def test_the_default_is_the_full_model_of_the_paper():
    config = MsfSerConfig()
    assert config.audio_config.model_type == "wavlm" and config.audio_config.num_hidden_layers == 24
    assert config.text_config.model_type == "roberta" and config.text_config.hidden_size == 1024
    assert (config.semantics, config.intra_fusion, config.cross_fusion) == (["les", "gs", "es"], "gate", "fm_moe")
    assert (config.audio_states, config.freeze_audio, config.head_dropout) == ("last", "front_end", 0.5)


def test_the_labels_are_fixed(tmp_path):
    config = tiny_config(num_labels=3, id2label={"0": "valence", "1": "arousal", "2": "dominance"})
    config.save_pretrained(tmp_path)
    for one in (config, tiny_config(), MsfSerConfig.from_pretrained(tmp_path, num_labels=3)):
        assert one.id2label == dict(enumerate(LABELS)) and one.num_labels == 3
        assert one.label2id == {"valence": 0, "arousal": 1, "dominance": 2}
        assert one.problem_type == "regression"


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        ({"num_labels": 2}, "num_labels=2: the model has one output for each of valence, arousal, dominance"),
        ({"num_labels": 0}, "num_labels=0"),
        ({"id2label": {0: "dominance", 1: "valence"}}, "id2label=.*: the outputs are valence, arousal, dominance"),
        ({"id2label": {0: "arousal", 1: "valence", 2: "dominance"}}, "in this order"),
        ({"label2id": {"arousal": 0, "valence": 1, "dominance": 2}}, "label2id=.*in this order"),
    ],
)
def test_other_labels_are_refused(labels, words, tmp_path):
    with pytest.raises(ValueError, match=words):
        tiny_config(**labels)
    config = tiny_config()
    config.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=words):
        MsfSerConfig.from_pretrained(tmp_path, **labels)
    with pytest.raises(ValueError, match=words):
        for name, value in labels.items():
            setattr(config, name, value)
        config.save_pretrained(tmp_path)


SCALE = {"of": "a corpus"} | {kind: {name: [0.1, 0.5, 0.5] for name in LABELS} for kind in ("labels", "predictions")}
WRONG_SCALES = [
    {},
    {"x": 1},
    {**SCALE, "of": None},
    {**SCALE, "labels": [0.1, 0.5]},
    {**SCALE, "predictions": {"valence": [0.1]}},
    {**SCALE, "labels": {**SCALE["labels"], "arousal": 0.5}},
    {**SCALE, "labels": {**SCALE["labels"], "arousal": [0.5, 0.1]}},
    {**SCALE, "labels": {**SCALE["labels"], "arousal": ["0.1"]}},
]


@pytest.mark.parametrize(
    ("switches", "words"),
    [
        ({"semantics": ["gs", "xs"]}, "xs"),
        ({"semantics": ["gs", "gs"]}, "at most once"),
        ({"audio": False, "semantics": []}, "no input"),
        ({"cross_fusion": "film", "semantics": []}, "needs both"),
        ({"cross_fusion": "film", "audio": False}, "needs both"),
        ({"cross_fusion": "sum"}, "cross_fusion"),
        ({"intra_fusion": "mean"}, "intra_fusion"),
        ({"film_position": "after"}, "film_position"),
        ({"routing": "top2"}, "routing"),
        ({"audio_states": "first"}, "audio_states"),
        ({"freeze_audio": "yes"}, "freeze_audio"),
        ({"text_dropout": 1.0}, "text_dropout"),
        ({"fusion_size": 0}, "fusion_size"),
        ({"initializer_range": -1.0}, "initializer_range=-1.0 is no standard deviation: give 0 or more"),
        ({"initializer_range": float("nan")}, "initializer_range"),
        ({"unrated": ["valance"]}, r"unrated=\['valance'\]: name each of \['valence', 'arousal', 'dominance'\]"),
        ({"unrated": ["arousal", "arousal"]}, "at most once"),
        ({"intervals": "no"}, "intervals"),
        *(({"scale": scale}, "scale has another form: give 'of'") for scale in WRONG_SCALES),
        ({"audio": "yes"}, "audio"),
        ({"audio_config": {"hidden_size": 8}}, "model_type"),
    ],
)
def test_a_wrong_value_is_a_clear_error(switches, words):
    with pytest.raises(Exception, match=words):
        tiny_config(**switches)


def test_a_scale_may_lack_the_labels_of_a_dimension(tmp_path):
    tiny_config(scale={**SCALE, "labels": {**SCALE["labels"], "dominance": []}}).save_pretrained(tmp_path)
    assert MsfSerConfig.from_pretrained(tmp_path).scale["labels"]["dominance"] == []


def test_a_config_survives_its_folder(tmp_path):
    config = tiny_config("whisper", semantics=["es", "les"], cross_fusion="concat", routing="input")
    config.save_pretrained(tmp_path)
    loaded = MsfSerConfig.from_pretrained(tmp_path)
    assert loaded.semantics == ["les", "es"] and loaded.cross_fusion == "concat"
    assert loaded.is_mel and loaded.audio_config.d_model == 32
    assert type(loaded.text_config) is type(config.text_config)


def test_what_is_off_has_no_encoder():
    assert tiny_config(audio=False).audio_config is None
    assert tiny_config(semantics=[]).text_config is None


@pytest.mark.parametrize("audio", ["wavlm", "whisper", "wav2vec2_group_norm"])
def test_a_config_leaves_the_encoders_config_of_the_caller_as_it_was(audio):
    audio_config = AutoConfig.for_model(**AUDIO_CONFIGS[audio] | {"layerdrop": 0.3, "encoder_layerdrop": 0.3})
    text_config = AutoConfig.for_model(**TEXT_CONFIG, attn_implementation="eager")
    before = audio_config.to_dict(), text_config.to_dict()
    config = MsfSerConfig(audio_config=audio_config, text_config=text_config, attn_implementation="sdpa")
    config.audio_config.hidden_size = 5
    assert (audio_config.to_dict(), text_config.to_dict()) == before
    assert text_config._attn_implementation == "eager" and audio_config._attn_implementation is None


def test_a_config_leaves_the_callers_dictionaries_as_they_were():
    audio, text = copy.deepcopy(AUDIO_CONFIGS["wavlm"]), copy.deepcopy(TEXT_CONFIG)
    MsfSerConfig(audio_config=audio, text_config=text).audio_config.conv_dim = (1,)
    assert (audio, text) == (AUDIO_CONFIGS["wavlm"], TEXT_CONFIG)


def test_configs_of_one_live_models_sub_configs_share_nothing():
    """Two models of shared sub-configs changed each other: the logits moved by .13."""
    model, inputs = tiny_model(), tiny_processor()(noise(0.8), sampling_rate=16_000, transcript="the food was")
    with torch.no_grad():
        before = model(**inputs).logits
    parts = {"audio_config": model.config.audio_config, "text_config": model.config.text_config}
    first, second = MsfSerConfig(fusion_size=16, **parts), MsfSerConfig(fusion_size=16, **parts)
    for name, part in parts.items():
        assert getattr(first, name) is not part and getattr(first, name) is not getattr(second, name)
        assert getattr(first, name).to_dict() == part.to_dict()
        assert getattr(first, name)._attn_implementation == part._attn_implementation
    first.audio_config.hidden_act = first.text_config.hidden_act = "relu"
    first.audio_config.num_buckets = 4
    MsfSerModel(first)
    assert second.audio_config.hidden_act == "gelu" and model.config.text_config.hidden_act == "gelu"
    with torch.no_grad():
        assert torch.equal(model(**inputs).logits, before)


@pytest.mark.parametrize("switches", [{}, {"audio": False}, {"semantics": []}, {"encoder": "whisper"}])
def test_a_config_survives_its_dictionary(switches):
    config = tiny_config(**switches, head_dropout=0.25)
    again = MsfSerConfig.from_dict(config.to_dict())
    assert again.to_dict() == config.to_dict() and again.head_dropout == 0.25
    assert MsfSerConfig(**config.to_dict()).to_dict() == config.to_dict()
    assert json.loads(again.to_json_string()) == json.loads(config.to_json_string())
    for name in ("audio_config", "text_config"):
        assert type(getattr(again, name)) is type(getattr(config, name))
    copied = copy.deepcopy(config)
    assert copied.to_dict() == config.to_dict()


@pytest.mark.parametrize("switches", [{}, {"audio": False, "semantics": ["gs"]}])
def test_the_baseline_reads_sound_alone(switches):
    with pytest.raises(ValueError, match=r"set audio=True and semantics=\[\]"):
        tiny_config(cross_fusion="none", **switches)
