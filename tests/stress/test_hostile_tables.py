"""Hostile tables and folders: tables of `make stress`, and models that are not what they say."""

import json
import pickle
import sys

import pytest
import soundfile
import torch
from huggingface_hub.errors import StrictDataclassFieldValidationError
from safetensors.torch import load_file, save_file
from test_encoders import pretrained
from tiny import AUDIO_CONFIGS, noise, tiny_model

from msfser import MsfSerModel
from msfser.corpora.table import open_table, read_table
from msfser.encoders_msfser import load_audio_encoder
from stress import hostile_tables, isolated

TABLES = 128


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits and devices are those of Linux")
def test_each_hostile_table_gives_rows_or_a_sentence():
    outcomes = isolated.run("stress.hostile_tables", 0, TABLES)
    assert [outcome.number for outcome in outcomes] == list(range(TABLES))
    assert not [outcome for outcome in outcomes if outcome.defect]
    given = [outcome.given for outcome in outcomes]
    assert given.count("refused") > TABLES / 4 and sum("result" in each for each in given) > TABLES / 10


@pytest.mark.parametrize("column", ["audio", "split", "valence"])
def test_a_message_shows_no_whole_book(column, tmp_path):
    row = {"audio": "0.wav", "split": "train", "valence": "0.5", "arousal": "0.5", "dominance": "0.5"}
    (tmp_path / "metadata.csv").write_text(
        ",".join(row) + "\n" + ",".join((row | {column: "word " * 10_000}).values()) + "\n"
    )
    (tmp_path / "0.wav").write_bytes(b"")
    with pytest.raises(ValueError, match=", line 2: ") as caught:
        read_table(tmp_path)
    assert len(str(caught.value)) < 1000 and str(caught.value).endswith(".")


@pytest.mark.parametrize("read", [read_table, open_table])
def test_code_in_a_folder_is_not_run(read, tmp_path):
    (tmp_path / "corpus").mkdir()
    (tmp_path / "corpus" / "corpus.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    with pytest.raises(ValueError, match=r"the folder holds none of metadata\.csv"):
        read(tmp_path / "corpus")
    assert not (tmp_path / "ran").exists()


def test_tables_are_the_same_each_time(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name / "inner").mkdir(parents=True)
        what, path = hostile_tables.table(1, tmp_path / name / "inner")
        assert what == "spoilt_json"
    assert path.read_bytes() == (tmp_path / "a" / "inner" / path.name).read_bytes()


# Folders of models


class Code:
    """What a pickle can bring with it."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


@pytest.fixture
def folder(tmp_path):
    tiny_model().save_pretrained(tmp_path / "model")
    return tmp_path / "model"


@pytest.mark.parametrize("content", ["tensors", "code"])
@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt"])
def test_weights_that_are_a_pickle_are_refused(folder, tmp_path, content, name):
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    if content == "tensors":
        torch.save(weights, folder / name)
    else:
        (folder / name).write_bytes(pickle.dumps(Code(tmp_path / "ran")))
    with pytest.raises(ValueError, match=rf"the weights are a pickle \({name}\)"):
        MsfSerModel.from_pretrained(folder, use_safetensors=False)
    assert not (tmp_path / "ran").exists()


def test_a_pickle_beside_the_weights_is_not_read(folder, tmp_path):
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Code(tmp_path / "ran")))
    MsfSerModel.from_pretrained(folder)
    assert not (tmp_path / "ran").exists()


def test_an_encoder_whose_pickle_brings_code_is_refused(tmp_path):
    encoder = pretrained(tmp_path / "encoder", AUDIO_CONFIGS["wavlm"])
    (encoder / "model.safetensors").unlink()
    (encoder / "pytorch_model.bin").write_bytes(pickle.dumps(Code(tmp_path / "ran")))
    with pytest.raises(ValueError, match="a pickle that holds more than tensors"):
        load_audio_encoder(str(encoder))
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("kept", [0, 100, 20_000], ids=["nothing", "half a header", "half"])
def test_damaged_weights_are_a_sentence(folder, kept):
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:kept])
    with pytest.raises(ValueError, match="no whole safetensors file"):
        MsfSerModel.from_pretrained(folder)


def test_weights_of_another_shape_are_named(folder, tmp_path):
    weights = load_file(folder / "model.safetensors")
    weights["heads.valence.hidden.bias"] = torch.zeros(7)
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match=r"heads\.valence\.hidden\.bias, which is \(7,\) and should be \(16,\)"):
        MsfSerModel.from_pretrained(folder)

    encoder = pretrained(tmp_path / "encoder", AUDIO_CONFIGS["wavlm"])
    changed(encoder, intermediate_size=64)
    with pytest.raises(ValueError, match=r"intermediate_dense\..*should be \(64"):
        load_audio_encoder(str(encoder))


def changed(folder, **fields):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | fields))


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"fusion_size": "8"}, "fusion_size"),
        ({"fusion_size": -1}, "fusion_size=-1"),
        ({"fusion_size": 32}, r"such as audio_projection\.bias"),
        ({"semantics": "gs"}, "semantics"),
        ({"semantics": ["gs", "gs"]}, "semantics"),
        ({"cross_fusion": "sum"}, "cross_fusion"),
        ({"head_dropout": 1.5}, "head_dropout=1.5"),
        ({"audio_config": 3}, "audio_config"),
        ({"audio_config": {"hidden_size": 3}}, "model_type"),
        ({"audio_config": {"model_type": "nonsense"}}, "nonsense"),
    ],
)
def test_a_wrong_field_of_the_config_is_named(folder, fields, sentence):
    changed(folder, **fields)
    with pytest.raises((ValueError, StrictDataclassFieldValidationError), match=sentence):
        MsfSerModel.from_pretrained(folder)


def test_an_unknown_field_of_the_config_changes_nothing(folder):
    expected = MsfSerModel.from_pretrained(folder).state_dict()
    changed(folder, nonsense={"a": 1})
    model = MsfSerModel.from_pretrained(folder)
    assert all(torch.equal(expected[name], weight) for name, weight in model.state_dict().items())
    assert list(model.config.id2label.values()) == ["valence", "arousal", "dominance"]
    changed(folder, id2label={"0": "x", "1": "y", "2": "z"})
    with pytest.raises(ValueError, match="the outputs are valence, arousal, dominance, in this order"):
        MsfSerModel.from_pretrained(folder)


def test_pairs_among_word_times_are_named(tmp_path):
    """Arrow accepts `[[]]` as an empty word, unless another row has a word."""
    rows = [
        {"audio": f"{i}.wav", "split": "train", "words": words}
        for i, words in enumerate(([[]], [{"word": "a", "start": 0.0, "end": 0.1}]))
    ]
    path = tmp_path / "metadata.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    for i in range(len(rows)):
        soundfile.write(tmp_path / f"{i}.wav", noise(0.01), 16_000)
    with pytest.raises(ValueError, match=r"line 1.*'words' is not a list"):
        open_table(str(path))
