"""What an annotation notes about the models that made it: names and hashes of content, no path and no address."""

import json
import shutil

import pytest
from tones import (
    Recognizer,
    fails,
    journal_fixture,  # noqa: F401 - used by every test
    make_corpus,
    run,
)

from msfser.annotation import annotate
from msfser.annotator_msfser import MsfSerAnnotator
from msfser.corpora.shards import annotation_settings
from msfser.description_msfser import NORMS
from msfser.hub.model_names import content_hash, model_settings
from msfser.transcription_msfser import MsfSerRecognizer


def recognizer_folder(folder, weights=b"weights"):
    folder.mkdir(parents=True)
    (folder / "config.json").write_text('{"model_type": "whisper"}')
    (folder / "model.safetensors").write_bytes(weights)
    (folder / "README.md").write_text("of no account")
    return folder


@pytest.fixture
def local(monkeypatch):
    """A folder is a recognizer too."""
    monkeypatch.setattr(MsfSerRecognizer, "from_pretrained", lambda name, *_: Recognizer("local", False))


def test_a_local_recognizer_is_known_by_its_content(tmp_path, journal, local):
    table, out = make_corpus(tmp_path), tmp_path / "out"
    mine = recognizer_folder(tmp_path / "models" / "mine")
    run(table, out, "--recognizer", str(mine))
    settings = annotation_settings(out)["transcript"]
    assert settings["recognizer"] == "mine" and settings["recognizer_sha256"] == content_hash(mine)
    assert str(tmp_path) not in json.dumps(annotation_settings(out))
    # Elsewhere it is the same, and a text beside the weights changes nothing.
    del journal[:]
    moved = shutil.move(mine, tmp_path / "elsewhere" / "mine")
    (tmp_path / "elsewhere" / "mine" / "README.md").write_text("changed")
    run(table, out, "--recognizer", str(moved))
    assert not journal
    # Trained on, it is another one at the same path.
    (tmp_path / "elsewhere" / "mine" / "model.safetensors").write_bytes(b"trained")
    run(table, out, "--recognizer", str(moved))
    assert journal.steps == {"transcribe", "emphasize", "describe"}
    assert annotation_settings(out)["transcript"]["recognizer_sha256"] != settings["recognizer_sha256"]


def test_a_name_of_the_hub_stays_a_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert model_settings("recognizer", "openai/whisper-tiny.en") == {"recognizer": "openai/whisper-tiny.en"}
    assert model_settings("aligner", "sphinx") == {"aligner": "sphinx"}
    # A folder of that name is one.
    recognizer_folder(tmp_path / "openai" / "whisper-tiny.en")
    assert model_settings("recognizer", "openai/whisper-tiny.en").keys() == {"recognizer", "recognizer_sha256"}


@pytest.mark.parametrize("role", ["recognizer", "aligner", "describer"])
@pytest.mark.parametrize("name", ["/srv/models/mine", "./mine", "../models/mine", "models/deep/mine", "~/mine"])
def test_a_folder_that_is_not_there_is_a_sentence_and_is_not_noted(tmp_path, role, name):
    """Where all texts are given, nothing is loaded, and the path would go into published models."""
    table = make_corpus(tmp_path, transcription="said", description="given")
    message = fails(table, "--output", tmp_path / "out", "--language", "en", f"--{role}", name)
    assert f"--{role} is {name!r}: there is no such folder" in message and not (tmp_path / "out").exists()


def test_a_folder_without_a_model_is_a_sentence(tmp_path):
    (tmp_path / "empty").mkdir()
    message = fails(make_corpus(tmp_path), "--output", tmp_path / "out", "--recognizer", tmp_path / "empty")
    assert "is a folder without a model" in message


@pytest.mark.parametrize(
    ("name", "noted"), [("qwen/audio", "qwen/audio"), ("/srv/tenants/acme/kimi", "kimi"), ("C:\\models\\kimi", "kimi")]
)
def test_an_address_is_not_in_the_settings(tmp_path, journal, name, noted):
    table, out = make_corpus(tmp_path, description="given"), tmp_path / "out"
    options = ["--language", "en", "--describer", name, "--url"]
    run(table, out, *options, "https://speech.internal.example/tenants/acme/v1")
    settings = annotation_settings(out)["description"]
    assert settings["describer"] == noted and settings.keys() == {"describer", "prompt"}
    assert "acme" not in (out / "annotation.json").read_text().replace(str(tmp_path), "")
    assert all(b"internal" not in shard.read_bytes() for shard in out.glob("data/*"))
    # Another server may have another model by this name.
    del journal[:]
    run(table, out, *options, "https://elsewhere.example/v1")
    assert journal.steps == {"describe"}


def test_norms_bring_nothing_else_along(tmp_path):
    (tmp_path / "norms.json").write_text(json.dumps({**NORMS, "corpus": "Mine", "made_from": "/srv/voices"}))
    table, out = make_corpus(tmp_path), tmp_path / "out"
    run(table, out, "--language", "en", "--norms", str(tmp_path / "norms.json"))
    norms = annotation_settings(out)["description"]["norms"]
    assert norms["corpus"] == "Mine" and norms.keys() <= {"corpus", "utterances", "quantiles"}


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (None, "there is no such file"),
        ("folder", "this is a folder"),
        ("", "not readable JSON"),
        ("[]", "no norms"),
        ('{"corpus": "Mine", "quantiles": [1, 2]}', "no norms"),
        ('{"corpus": "Mine", "quantiles": {"pitch": null}}', "no norms"),
        ('{"corpus": "Mine", "quantiles": {"pitch": "abcd"}}', "no norms"),
        ('{"corpus": "Mine", "quantiles": {"pitch": [1, "b", 3, 4]}}', "no norms"),
        ('{"corpus": "Mine", "quantiles": {"pitch": [1, 2, 3, 1e999]}}', "no norms"),
        (f'{{"corpus": "Mine", "quantiles": {{"pitch": [1, 2, 3, 1{"0" * 400}]}}}}', "no norms"),
        ('{"corpus": "Mine", "quantiles": {"pitch": [true, 2, 3, 4]}}', "no norms"),
        ('{"corpus": 7, "quantiles": {}}', "no norms"),
        ('{"corpus": "Mine", "quantiles": {}}', "have no"),
    ],
)
def test_wrong_norms_are_a_sentence(tmp_path, content, match):
    path = tmp_path / "norms.json"
    if content == "folder":
        path.mkdir()
    elif content is not None:
        path.write_text(content)
    assert match in fails(make_corpus(tmp_path), "--output", tmp_path / "out", "--norms", path)
    assert not (tmp_path / "out").exists()


def test_a_model_trained_with_a_local_recognizer_says_that_it_needs_it(tmp_path, local, monkeypatch):
    mine = recognizer_folder(tmp_path / "mine")
    run(make_corpus(tmp_path), tmp_path / "out", "--recognizer", str(mine))
    messages = []
    monkeypatch.setattr("msfser.annotator_msfser.logger.warning_once", messages.append)
    annotator = MsfSerAnnotator.from_settings(annotation_settings(tmp_path / "out"))
    assert annotator.recognizer is None
    assert len(messages) == 1 and "the local recognizer 'mine', which does not come with the model" in messages[0]


def test_the_parsed_norms_are_used(tmp_path):
    norms = {"corpus": "other", "quantiles": {name: [0, 1, 2, 3] for name in NORMS["quantiles"]}}
    (tmp_path / "norms.json").write_text(json.dumps(norms))
    arguments = annotate.parse(["data", "--output", "out", "--norms", str(tmp_path / "norms.json")])
    settings = annotate.settings_of(arguments)
    assert annotate.make_annotator(arguments, settings, "cpu").describer.name == "measured/other"


def test_another_precision_is_noted_and_recognizes_anew(tmp_path, journal, monkeypatch):
    """Some words change with it; what was made without it stays valid."""
    loaded = []

    def load(name, device, precision):
        loaded.append(precision)
        return Recognizer(name, True)

    monkeypatch.setattr(MsfSerRecognizer, "from_pretrained", load)
    table, out = make_corpus(tmp_path), tmp_path / "out"
    english = ("--language", "en")
    run(table, out, *english)
    assert "precision" not in annotation_settings(out)["transcript"]
    del journal[:]
    run(table, out, *english, "--precision", "float32")
    assert not journal
    run(table, out, *english, "--precision", "bfloat16")
    assert journal.steps == {"transcribe", "emphasize", "describe"} and loaded == ["float32", "bfloat16"]
    settings = annotation_settings(out)
    assert settings["transcript"]["precision"] == "bfloat16"
    assert MsfSerAnnotator.from_settings(settings).recognizer.name == "openai/whisper-tiny.en"


def test_a_precision_without_a_recognizer_is_refused(capsys):
    with pytest.raises(SystemExit):
        annotate.parse(["data", "--output", "out", "--recognizer", "none", "--precision", "bfloat16"])
    assert "--precision needs a recognizer" in capsys.readouterr().err
