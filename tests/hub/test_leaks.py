"""Nothing that is published tells of the machine that it comes from: paths, addresses, names of users, tokens."""

import getpass
import json
import re
import shutil
import socket
from pathlib import Path

import pytest
import torch
import yaml
from publishing import REPO, train
from safetensors.torch import load_file, save_file
from tiny import tiny_processor

from msfser import MsfSerProcessor
from msfser.description_msfser import NORMS
from msfser.hub import leaks
from msfser.hub.leaks import check_no_leaks
from msfser.hub.publish import main
from msfser.starter.assemble import CARD, STARTERS, with_source

ROOT = Path(__file__).parents[2]
TENANT = "http://10.4.0.17:8000/tenants/acme/v1"
ANNOTATION = {
    "transcript": {"recognizer": "openai/whisper-tiny.en", "language": None, "aligner": "recognizer"},
    "emphasis": {"method": "peak"},
    "description": {"describer": "Qwen/Qwen2-Audio-7B-Instruct", "prompt": "0" * 64},
}


@pytest.fixture(scope="module")
def once(tmp_path_factory) -> Path:
    return train(tmp_path_factory.mktemp("once") / "trained")


@pytest.fixture
def trained(once, tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return Path(shutil.copytree(once, tmp_path / "trained"))


@pytest.fixture(autouse=True)
def this_machine(monkeypatch):
    """A user and a machine with telling names."""
    monkeypatch.setattr(getpass, "getuser", lambda: "wilhelmine")
    monkeypatch.setattr(socket, "gethostname", lambda: "gpu-cellar")
    monkeypatch.setattr(Path, "home", lambda: Path("/home/wilhelmine"))
    leaks._names_of_this_machine.cache_clear()
    yield
    leaks._names_of_this_machine.cache_clear()


def refused(*argv: object) -> str:
    with pytest.raises(SystemExit) as stop:
        main([*map(str, argv), "--dry_run"])
    assert str(stop.value).startswith("msfser publish: error: ") and "\n" not in str(stop.value)
    return str(stop.value)


def annotate(folder: Path, **description) -> None:
    """Puts settings of an annotation into a saved processor, as an older version did."""
    path = folder / "processor_config.json"
    annotation = ANNOTATION | {"description": ANNOTATION["description"] | description}
    path.write_text(json.dumps(json.loads(path.read_text()) | {"annotation": annotation}))


# A model folder


def test_a_processor_drops_addresses_and_paths(tmp_path):
    made = tiny_processor("whisper")
    annotation = {
        "transcript": {"recognizer": "/srv/acme/whisper", "language": "en", "aligner": r"models\ctc"},
        "emphasis": {"method": "peak"},
        "description": {"describer": "../models/qwen/", "url": TENANT, "prompt": "0" * 64, "norms": NORMS},
    }
    MsfSerProcessor(made.feature_extractor, made.tokenizer, annotation=annotation).save_pretrained(tmp_path)
    saved = (tmp_path / "processor_config.json").read_text()
    assert not any(leak in saved for leak in ("10.4", "acme", "srv", "models", "url"))
    kept = MsfSerProcessor.from_pretrained(tmp_path).annotation
    assert kept["transcript"] == {
        **{"recognizer": "whisper", "recognizer_sha256": None, "language": "en"},
        **{"aligner": "ctc", "aligner_sha256": None},
    }
    assert kept["description"]["describer"] == "qwen" and kept["description"]["norms"] == NORMS
    assert annotation["description"]["url"] == TENANT  # what was given is not changed


def test_names_on_the_hub_and_words_are_kept(tmp_path):
    made = tiny_processor("whisper")
    for annotation in (ANNOTATION, ANNOTATION | {"description": {"describer": "measured", "norms": NORMS}}):
        assert MsfSerProcessor(made.feature_extractor, made.tokenizer, annotation=annotation).annotation == annotation


# What is published


def test_the_server_of_a_describer_does_not_reach_the_hub(trained):
    annotate(trained, url=TENANT)
    sentence = refused(trained, REPO)
    assert f"processor_config.json of the model holds '{TENANT}'" in sentence or "10.4.0.17" in sentence
    assert "address" in sentence and "remove it" in sentence


@pytest.mark.parametrize("recognizer", ["models/whisper", "./whisper", "../models/whisper", "data/acme/whisper"])
def test_a_relative_path_is_refused_and_nothing_is_shown(trained, capsys, recognizer):
    Path("models/whisper").mkdir(parents=True)
    annotate(trained)
    path = trained / "processor_config.json"
    path.write_text(path.read_text().replace("openai/whisper-tiny.en", recognizer))
    assert f"processor_config.json of the model holds {recognizer!r}, a path of a machine" in refused(trained, REPO)
    assert capsys.readouterr().out == ""


LEAKS = {
    "/srv/voices/a.wav": "a path of a machine",
    "~/voices": "a path of a machine",
    r"C:\Users\someone\voices": "a path of a machine",
    r"\\server\share\voices": "a path of a machine",
    "file:///srv/x": "an address that is not public",
    "see https://llm.acme-corp.com/tenant": "an address that is not public",
    "https://someone:secret@huggingface.co/x": "an address that is not public",
    "http://huggingface.co:8080/x": "an address that is not public",
    "s3://bucket/voices": "an address that is not public",
    "192.168.1.20": "an address that is not public",
    "describer.internal": "an address that is not public",
    "gpu07:8000": "an address that is not public",
    "made by Wilhelmine": "a user name",
    "on gpu-cellar": "the name of this machine",
    "hf_abcdefghijklmnopqrstuvwx": "a token",
}


@pytest.mark.parametrize(
    ("text", "where"),
    [(text, "config.json") for text in LEAKS]
    + [("/srv/voices", name) for name in ("tokenizer_config.json", "tokenizer.json", "weights")],
)
def test_a_leak_in_any_file_of_the_model_is_named(trained, text, where):
    if where == "weights":
        where = "model.safetensors"
        save_file(load_file(trained / where), trained / where, {"format": "pt", "from": text})
    else:
        path = trained / where
        path.write_text(json.dumps(json.loads(path.read_text()) | {"note": [{"more": text}]}))
    sentence = refused(trained, REPO)
    found = re.search(
        rf"{re.escape(where)} of the model holds (.*), {LEAKS.get(text, LEAKS['~/voices'])}: remove it", sentence
    )
    assert found, sentence
    assert found[1].strip("'\"").replace(r"\\", "\\") in text


def test_changed_code_is_read(trained):
    with (trained / "loss_msfser.py").open("a") as file:
        file.write("\n# see /home/wilhelmine/notes\n")
    assert "loss_msfser.py of the model holds '/home/wilhelmine/notes'" in refused(trained, REPO)


def test_the_readme_of_the_trainer_is_read(trained):
    """A folder without a run has its own card, such as the one that the Trainer writes."""
    for name in ("run.yaml", "results.json"):
        (trained / name).unlink()
    (trained / "README.md").write_text("---\nlicense: mit\n---\n# Mine\n\nFine-tuned on `data/voices/train.csv`.\n")
    main([str(trained), REPO, "--dry_run"])
    Path("data/voices").mkdir(parents=True)
    Path("data/voices/train.csv").touch()
    assert "README.md of the model holds 'data/voices/train.csv', a path of this machine" in refused(trained, REPO)


@pytest.mark.parametrize("option", ["corpus_name", "corpus_license"])
def test_the_card_is_read(trained, capsys, option):
    settings = yaml.safe_load((trained / "run.yaml").read_text()) | {"data": "voices.csv"}
    (trained / "run.yaml").write_text(yaml.safe_dump(settings))
    names = {"corpus_name": "Voices", "corpus_license": "mit"} | {option: "see /srv/voices/README"}
    sentence = refused(trained, REPO, *(word for name, value in names.items() for word in (f"--{name}", value)))
    assert "README.md of the model holds '/srv/voices/README', a path of a machine" in sentence
    assert capsys.readouterr().out == ""


def test_a_space_is_read(trained, tmp_path):
    space = Path(shutil.copytree(ROOT / "space", tmp_path / "space", ignore=shutil.ignore_patterns("__pycache__")))
    main([str(trained), REPO, "--dry_run", "--space", str(space)])
    (space / "app.py").write_text((space / "app.py").read_text() + '\nHOST = "http://localhost:9000"\n')
    assert "app.py of the space holds 'http://localhost:9000'" in refused(trained, REPO, "--space", space)


# What may be said


def test_what_is_read_may_be_allowed(trained, capsys):
    path = trained / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"note": ["/srv/voices", "gpu07:8000"]}))
    assert "--allow '/srv/voices'" in refused(trained, REPO)
    assert "--allow 'gpu07:8000'" in refused(trained, REPO, "--allow", "/srv/voices")
    main([str(trained), REPO, "--dry_run", "--allow", "/srv/voices", "--allow", "gpu07:8000"])
    assert "config.json" in capsys.readouterr().out


def test_the_owner_of_the_model_may_be_the_user(trained, capsys):
    annotate(trained)
    path = trained / "processor_config.json"
    path.write_text(path.read_text().replace("openai/whisper-tiny.en", "wilhelmine/whisper"))
    main([str(trained), "wilhelmine/model", "--dry_run"])
    card = capsys.readouterr().out
    assert "https://huggingface.co/wilhelmine" not in card and "`wilhelmine/whisper`" in card


def test_words_and_public_addresses_are_no_leaks(tmp_path):
    harmless = {
        "README.md": "and/or valence/arousal/dominance, 0..1, 10:30, https://arxiv.org/abs/2510.05749, 1.2.3\n"
        "[x](https://huggingface.co/a/b) http://creativecommons.org/licenses/by/4.0/ </a></b> `a/b.py` local()\n",
        "app.py": "import threading\nstate = threading.local()\nurl = f'https://{host}/x'\n",
        "config.json": json.dumps({"auto_map": "a/b--c.D", "version": "5.24.0", "unk": "</s>", "path": "a/b", "n": 1}),
        "tokenizer.json": json.dumps({"model": {"vocab": {"/usr/lib/x": 1}, "merges": ["/usr /lib"]}}),
        "vocab.txt": "http://\n10.0.0.1\n/usr/lib\nwilhelmine\n",
    }
    for name, text in harmless.items():
        (tmp_path / name).write_text(text)
    check_no_leaks({name: tmp_path / name for name in harmless}, "model", REPO)


def test_names_and_binary_files_are_read(tmp_path):
    (tmp_path / "a.mp3").write_bytes(b"ID3 \x00 encoded in /home/wilhelmine/x")
    with pytest.raises(ValueError, match=r"examples/a\.mp3 of the space holds '/home/wilhelmine', a path"):
        check_no_leaks({"examples/a.mp3": tmp_path / "a.mp3"}, "space", REPO)
    (tmp_path / "b.mp3").write_bytes(b"")
    with pytest.raises(ValueError, match="holds 'wilhelmine', a user name"):
        check_no_leaks({"examples/wilhelmine.mp3": tmp_path / "b.mp3"}, "space", REPO)


def test_names_of_published_encoders_are_no_leaks(tmp_path):
    """The configs of real encoders, as they are on the Hub."""
    from transformers import BertConfig, RobertaConfig, WavLMConfig, WhisperConfig

    for config in (BertConfig, RobertaConfig, WavLMConfig, WhisperConfig):
        config(_name_or_path="microsoft/wavlm-large").save_pretrained(tmp_path)
        check_no_leaks({"config.json": tmp_path / "config.json"}, "model", REPO)


@pytest.mark.parametrize("starter", STARTERS.values(), ids=STARTERS)
def test_a_starter_can_be_published(tmp_path, monkeypatch, starter):
    """From the checkout, where `outputs/starter` and the pages in `docs` are there."""
    monkeypatch.chdir(tmp_path)
    for name in ("starter", "open"):
        (tmp_path / "outputs" / name).mkdir(parents=True)
    (tmp_path / "docs").symlink_to(ROOT / "docs")
    card = with_source((starter.folder / CARD).read_text(), REPO, "v1")
    (tmp_path / "README.md").write_text(card)
    save_file({"x": torch.zeros(1)}, tmp_path / "model.safetensors", {"format": "pt"})
    files = {name: tmp_path / name for name in ("README.md", "model.safetensors")}
    check_no_leaks(files | {path.name: path for path in ROOT.glob("*_msfser.py")}, "model", REPO)
