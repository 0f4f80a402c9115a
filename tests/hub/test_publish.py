"""Publishing, against a small Hub on loopback: what is uploaded, what is not, and the sentences about failures."""

import json
import logging
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from hub_server import Hub
from huggingface_hub import constants
from publishing import REPO, as_a_stranger, connect, train, write_results
from tiny import noise

from msfser import MsfSerModel, MsfSerProcessor
from msfser.hub.publish import main


@pytest.fixture(scope="module")
def once(tmp_path_factory) -> Path:
    return train(tmp_path_factory.mktemp("once") / "trained")


@pytest.fixture
def trained(once, tmp_path) -> Path:
    return Path(shutil.copytree(once, tmp_path / "trained"))


@pytest.fixture
def hub(monkeypatch):
    with Hub() as server:
        connect(monkeypatch, server, server.token)
        yield server


def writes(hub: Hub) -> list[str]:
    return [request for request in hub.requests if not request.startswith(("GET", "HEAD"))]


def refused(*argv: object) -> str:
    """The sentence with which it ends."""
    with pytest.raises(SystemExit) as stop:
        main([str(word) for word in argv])
    sentence = str(stop.value)
    assert sentence.startswith("msfser publish: error: ") and sentence.endswith(".") and "\n" not in sentence, sentence
    return sentence


def test_a_dry_run_shows_all_and_contacts_nobody(hub, trained, capsys, monkeypatch):
    monkeypatch.delenv("HF_TOKEN")
    (trained / "training_args.bin").write_bytes(b"a pickle")
    main([str(trained), REPO, "--dry_run"])
    shown = capsys.readouterr().out
    assert hub.requests == []
    listed = shown.split("not uploaded:")[0]
    for name in ("model.safetensors", "modeling_msfser.py", "pipeline_msfser.py", "tokenizer.json", "README.md"):
        assert name in listed
    size = (trained / "model.safetensors").stat().st_size
    assert f"{size:,}  model.safetensors" in listed and "training_args.bin" not in listed
    assert "not uploaded: results.json, run.yaml, training_args.bin" in shown
    assert "pipeline_tag: audio-classification" in shown and 'revision = "someone/model", "v1"' in shown


def test_it_goes_up_in_one_commit_with_a_tag(hub, trained):
    for name in (
        "training_args.bin",
        "optimizer.pt",
        "speech.wav",
        "predictions.csv",
        "notes.md",
        ".env",
        "custom.py",
    ):
        (trained / name).write_text("private")
    (trained / "checkpoint-3").mkdir()
    (trained / "checkpoint-3" / "model.safetensors").write_text("private")
    (trained / "README.md").write_text("what the Trainer wrote")
    main([str(trained), REPO, "--tag", "v0.1"])
    repository = hub.repository(REPO)
    assert [commit.title for commit in repository.commits] == ["initial", "Publish v0.1"]
    assert repository.tags == {"v0.1": repository.commits[-1].oid} and not repository.private
    files = hub.files(REPO, "v0.1")
    assert files["README.md"].startswith(b"---\n")
    assert {Path(name).suffix for name in files} == {".safetensors", ".json", ".py", ".md"}
    assert files.keys() - {path.name for path in trained.iterdir()} == set()
    assert all(content == (trained / name).read_bytes() for name, content in files.items() if name != "README.md")
    assert "custom.py" not in files and not [name for name, content in files.items() if content == b"private"]

    # The same again changes nothing.
    before = len(writes(hub))
    main([str(trained), REPO, "--tag", "v0.1"])
    assert writes(hub)[before:] == [] and len(repository.commits) == 2


@pytest.mark.parametrize("where", ["/repos/create", "/validate-yaml", "/commit/", "/tag/"])
def test_after_a_failure_the_same_command_finishes(hub, trained, where):
    hub.failures[f"POST {where}"] = 500
    assert "run the same command again" in refused(trained, REPO)
    main([str(trained), REPO])
    repository = hub.repository(REPO)
    assert [commit.title for commit in repository.commits] == ["initial", "Publish v1"]
    assert repository.tags == {"v1": repository.commits[-1].oid}


def test_a_large_file_goes_up_once_even_when_the_commit_fails(trained, monkeypatch):
    with Hub(large=100_000) as hub:
        connect(monkeypatch, hub, hub.token)
        hub.failures |= {"PUT /store/": 403, "POST /commit/": 500}
        assert "The token may not write" in refused(trained, REPO)
        assert "The Hub answered with 500" in refused(trained, REPO)
        main([str(trained), REPO])
        assert sum(request.startswith("PUT /store/") for request in hub.requests) == 2  # one of them refused
        large = [path for path, blob in hub.repository(REPO).commits[-1].files.items() if blob.lfs]
        assert large == ["model.safetensors"]
        main([str(trained), REPO])
        assert len(hub.repository(REPO).commits) == 2


def test_a_tag_stands_for_one_content(hub, trained):
    main([str(trained), REPO])
    write_results(trained, value=0.6)
    assert "has a tag v1 with other content: publish under another tag" in refused(trained, REPO)
    assert len(hub.repository(REPO).commits) == 2
    main([str(trained), REPO, "--tag", "v2"])
    assert len(hub.repository(REPO).commits) == 3 and hub.repository(REPO).tags.keys() == {"v1", "v2"}
    assert hub.files(REPO, "v1")["README.md"] != hub.files(REPO, "v2")["README.md"]


def test_shards_go_up_with_their_index_and_leftovers_do_not(hub, trained):
    model = MsfSerModel.from_pretrained(trained)
    shutil.copy(trained / "model.safetensors", trained / "model-00001-of-00001.safetensors")
    main([str(trained), REPO])
    assert [name for name in hub.files(REPO) if "safetensors" in name] == ["model.safetensors"]
    (trained / "model.safetensors").unlink()
    model.save_pretrained(trained, max_shard_size="100KB")
    main([str(trained), REPO, "--tag", "v2"])
    names = {name for name in hub.files(REPO) if "safetensors" in name}
    index = json.loads((trained / "model.safetensors.index.json").read_text())
    assert names == {"model.safetensors.index.json", *index["weight_map"].values()} and len(names) > 2


def test_what_an_earlier_version_had_does_not_stay(hub, trained):
    shutil.copy(trained / "tokenizer.json", trained / "vocab.json")
    main([str(trained), REPO])
    (trained / "vocab.json").unlink()
    hub.repository(REPO).commits[-1].files["picture.png"] = hub.repository(REPO).commits[-1].files["config.json"]
    main([str(trained), REPO, "--tag", "v2"])
    assert "vocab.json" in hub.files(REPO, "v1") and "vocab.json" not in hub.files(REPO, "v2")
    assert "picture.png" in hub.files(REPO, "v2")


def test_a_private_model_is_private_from_its_first_moment(hub, trained, monkeypatch):
    main([str(trained), REPO, "--private"])
    assert hub.repository(REPO).private
    main([str(trained), "someone/open"])
    assert "is public" in refused(trained, "someone/open", "--private", "--tag", "v2")
    assert len(hub.repository("someone/open").commits) == 2


def test_a_private_space_needs_a_token_for_its_model(hub, trained, caplog):
    caplog.set_level(logging.INFO)
    space = ["--space", str(Path(__file__).parents[2] / "space")]
    main([str(trained), "someone/open", *space])
    main([str(trained), "someone/alone", "--private"])
    assert "HF_TOKEN" not in caplog.text
    main([str(trained), REPO, "--private", *space])
    assert hub.repository(REPO).private and hub.repository(REPO, "space").private
    assert "add a read token as the secret HF_TOKEN in the settings of the Space" in caplog.text


def test_who_may_not_is_told_so(hub, trained, monkeypatch):
    assert "may not write to other/model" in refused(trained, "other/model")
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    assert "does not know the token" in refused(trained, REPO)
    monkeypatch.delenv("HF_TOKEN")
    asked = len(hub.requests)
    assert "There is no token" in refused(trained, REPO)
    assert len(hub.requests) == asked and hub.repositories == {}


def test_no_network_is_a_sentence(hub, trained, monkeypatch):
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    assert "cannot be reached" in refused(trained, REPO)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "HF_HUB_OFFLINE" in refused(trained, REPO)


def test_a_name_that_holds_something_else_is_left_alone(hub, trained):
    main([str(trained), REPO])
    files = hub.repository(REPO).commits[-1].files
    del files["modeling_msfser.py"]
    assert "is taken by something else" in refused(trained, REPO, "--tag", "v2")
    assert len(hub.repository(REPO).commits) == 2


@pytest.mark.parametrize("repo", ["model", "a/b/c", "someone/he ard", "some one/x", "../model"])
def test_a_wrong_name_is_refused(hub, trained, repo):
    assert "is not a name on the Hub" in refused(trained, repo)
    assert hub.requests == []


@pytest.mark.parametrize("tag", ["main", "v 1", "-v", "../v1"])
def test_a_wrong_tag_is_refused(hub, trained, tag):
    assert "is not a tag" in refused(trained, REPO, f"--tag={tag}")
    assert hub.requests == []


def _edit(path: Path, **fields) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


BROKEN = {
    "no config.json": lambda folder: (folder / "config.json").unlink(),
    "damaged: save": lambda folder: (folder / "config.json").write_text("{"),
    "another kind of model (bert)": lambda folder: _edit(folder / "config.json", model_type="bert"),
    "cannot be loaded": lambda folder: _edit(folder / "config.json", fusion_size="wide"),
    "names no code": lambda folder: [_edit(path, auto_map=None, custom_pipelines=None) for path in configs(folder)],
    "an unfinished run": lambda folder: (folder / "results.json").unlink(),
    "no processor": lambda folder: (folder / "processor_config.json").unlink(),
    "has no loss_msfser.py": lambda folder: (folder / "loss_msfser.py").unlink(),
    "has no audio_msfser.py": lambda folder: (folder / "audio_msfser.py").unlink(),
    "is a pickle": lambda folder: (folder / "model.safetensors").rename(folder / "pytorch_model.bin"),
    "has no model.safetensors: save": lambda folder: (folder / "model.safetensors").unlink(),
    "is damaged (": lambda folder: os.truncate(folder / "model.safetensors", 5_000),
    "has no model-1-of-1.safetensors": lambda folder: (
        (folder / "model.safetensors").unlink(),
        (folder / "model.safetensors.index.json").write_text('{"weight_map": {"x": "model-1-of-1.safetensors"}}'),
    ),
    "a path of a machine": lambda folder: _edit(folder / "processor_config.json", annotation={"x": ["/srv/voices"]}),
    "has no run.yaml": lambda folder: (folder / "run.yaml").unlink(),
    "run.yaml is not what": lambda folder: (folder / "run.yaml").write_text("data: 7"),
    "has no results.json": lambda folder: [(folder / name).unlink() for name in ("run.yaml", "results.json")],
    "results.json is not what": lambda folder: (folder / "results.json").write_text("[]"),
}


def configs(folder: Path) -> list[Path]:
    return [folder / name for name in ("config.json", "processor_config.json", "tokenizer_config.json")]


@pytest.mark.parametrize("says", BROKEN)
def test_a_folder_that_is_no_whole_model_stays_here(hub, trained, says):
    BROKEN[says](trained)
    assert says in refused(trained, REPO, "--dry_run")
    assert says in refused(trained, REPO)
    assert hub.requests == []


def test_a_folder_that_is_not_there_is_named(hub, tmp_path):
    assert str(tmp_path / "nothing") in refused(tmp_path / "nothing", REPO)


def test_a_space_goes_along(hub, trained, tmp_path):
    space = tmp_path / "space"
    (space / "examples").mkdir(parents=True)
    (space / "app.py").write_text("print()")
    (space / "requirements.txt").write_text("gradio")
    (space / "examples" / "a.wav").write_bytes(b"RIFF")
    (space / "secrets.env").write_text("x")
    (space / "README.md").write_text("# no settings")
    assert "sdk: gradio" in refused(trained, REPO, "--space", space)
    assert hub.requests == []
    (space / "README.md").write_text("---\ntitle: Model\nsdk: gradio\napp_file: app.py\n---\n# Model\n")
    main([str(trained), REPO, "--space", str(space)])
    assert hub.repository(REPO, "space").sdk == "gradio"
    names = ["README.md", "app.py", "examples/a.wav", "requirements.txt"]
    assert sorted(hub.files(REPO, kind="space")) == names
    assert "modeling_msfser.py" in hub.files(REPO, "v1")
    # The model's tag does not keep the Space from going on.
    (space / "app.py").write_text("print(1)")
    (space / "examples" / "a.wav").unlink()
    main([str(trained), REPO, "--space", str(space)])
    assert hub.files(REPO, kind="space")["app.py"] == b"print(1)" and len(hub.repository(REPO).commits) == 2
    assert "examples/a.wav" not in hub.files(REPO, kind="space")
    (space / "requirements.txt").unlink()
    assert "has no requirements.txt" in refused(trained, REPO, "--space", space)


LOAD = """
import json
import numpy as np
import torch
from transformers import AutoModel, AutoProcessor, pipeline

repo, revision = sys.argv[1:]
model, info = AutoModel.from_pretrained(repo, revision=revision, trust_remote_code=True, output_loading_info=True)
assert not any(info[problem] for problem in ("missing_keys", "unexpected_keys", "mismatched_keys")), info
assert type(model).__module__.startswith("transformers_modules.")
processor = AutoProcessor.from_pretrained(repo, revision=revision, trust_remote_code=True)
texts = {"transcript": "the food was wonderful", "emphasis": "was wonderful", "description": "a b c"}
with torch.no_grad():
    answers = {"model": model(**processor("speech.wav", **texts)).logits[0].tolist()}
ser = pipeline("audio-classification", model=repo, revision=revision, trust_remote_code=True)
found = ser({"audio": "speech.wav", **texts}, recognizer=None)
answers["pipeline"] = [found[name] for name in ("valence", "arousal", "dominance")]
print(json.dumps(answers))
"""


def test_a_stranger_gets_the_numbers_of_the_folder_by_tag(trained, tmp_path, monkeypatch):
    soundfile.write(tmp_path / "speech.wav", noise(1.2), 16_000)
    with Hub(large=100_000) as hub:
        connect(monkeypatch, hub, hub.token)
        main([str(trained), REPO])
        # What is in main by now is not what the tag stands for.
        hub.repository(REPO).add("spoilt", {})
        answers = json.loads(as_a_stranger(hub, LOAD, tmp_path, REPO, "v1").splitlines()[-1])
        assert any(request.startswith("GET /store/") for request in hub.requests)
    model, processor = MsfSerModel.from_pretrained(trained), MsfSerProcessor.from_pretrained(trained)
    texts = {"transcript": "the food was wonderful", "emphasis": "was wonderful", "description": "a b c"}
    with torch.no_grad():
        expected = model(**processor(tmp_path / "speech.wav", **texts)).logits[0].numpy()
    for name, numbers in answers.items():
        assert np.abs(np.array(numbers) - expected).max() <= 1.2e-7, name


def test_the_token_is_never_seen(trained, tmp_path):
    with Hub() as hub:
        settings = {
            "HF_ENDPOINT": hub.url,
            "HF_HOME": str(tmp_path / "home"),
            "HF_HUB_OFFLINE": "0",
            "HF_TOKEN": hub.token,
            "HF_HUB_VERBOSITY": "debug",
        }
        hub.failures["POST /tag/"] = 500
        run = subprocess.run(
            [sys.executable, "-m", "msfser", "publish", str(trained), REPO],
            cwd=tmp_path,
            env=os.environ | settings,
            capture_output=True,
            text=True,
        )
        assert run.returncode == 1
        assert run.stderr.splitlines()[-1].startswith("msfser publish: error: The Hub answered with 500")
        assert hub.token not in run.stdout + run.stderr
        assert all(hub.token.encode() not in content for content in hub.files(REPO).values())
        kept = [path for path in tmp_path.rglob("*") if path.is_file()]
        assert kept and all(hub.token.encode() not in path.read_bytes() for path in kept)


def test_no_log_has_the_token(hub, trained, caplog):
    with caplog.at_level(logging.DEBUG):
        main([str(trained), REPO])
    assert "published: " in caplog.text and hub.token not in caplog.text
