import pytest
from tiny import tiny_config

from msfser import LABELS, MsfSerConfig


def test_the_default_is_the_full_model_of_the_paper():
    config = MsfSerConfig()
    assert config.audio_config.model_type == "wavlm" and config.audio_config.num_hidden_layers == 24
    assert config.text_config.model_type == "roberta" and config.text_config.hidden_size == 1024
    assert (config.semantics, config.intra_fusion, config.cross_fusion) == (["les", "gs", "es"], "gate", "fm_moe")
    assert (config.audio_states, config.freeze_audio, config.head_dropout) == ("last", "front_end", 0.5)


def test_the_labels_are_fixed_whatever_is_passed():
    config = tiny_config(id2label={0: "dominance", 1: "valence"}, num_labels=2)
    assert tuple(config.id2label.values()) == LABELS and config.num_labels == 3
    assert config.problem_type == "regression"


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
        ({"audio": "yes"}, "audio"),
        ({"audio_config": {"hidden_size": 8}}, "model_type"),
    ],
)
def test_a_wrong_value_is_a_clear_error(switches, words):
    with pytest.raises(Exception, match=words):
        tiny_config(**switches)


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
