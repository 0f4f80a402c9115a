"""A model by its name on the command line, where there is none."""

import os
import subprocess
import sys

import pytest
from tiny import tiny_model, tiny_processor

from msfser import MsfSerProcessor, encoders_msfser
from msfser.annotation.audio_language_model import AudioLanguageModelDescriber
from msfser.hub.loading import find_named


@pytest.mark.parametrize("name", ["./nosuch/dir", "nosuch/", "/no/such/folder", "../nosuch"])
def test_a_path_to_no_folder_is_a_sentence(name):
    with pytest.raises(
        OSError, match=r"there is no model folder '.*': check the path, or give a model on the Hub"
    ) as e:
        find_named(name)
    assert repr(name) in str(e.value) and "\n" not in str(e.value)


def test_a_name_is_not_asked_for_where_the_hub_does_not_answer(monkeypatch):
    """Each file was tried again and again, for minutes."""
    asked = []
    monkeypatch.setattr(encoders_msfser, "_hub_is_reachable", lambda: False)

    def load(source, **options):
        asked.append((source, options))
        raise OSError("not there")

    monkeypatch.setattr(MsfSerProcessor, "from_pretrained", load)
    monkeypatch.setattr("msfser.annotation.audio_language_model.cached_file", load_file(load))
    with pytest.raises(OSError, match="'nosuch/model' is no folder, and neither the Hub nor its cache has it"):
        find_named("nosuch/model")
    with pytest.raises(OSError, match="'nosuch/model' is not a folder with a model, and neither the Hub"):
        AudioLanguageModelDescriber("nosuch/model")
    assert [(source, options["local_files_only"]) for source, options in asked] == [("nosuch/model", True)] * 2


def test_a_model_on_the_hub_is_known_by_its_commit(tmp_path):
    commit = "0123456789abcdef0123456789abcdef01234567"
    repository = tmp_path / "hub" / "models--someone--model"
    tiny_model(semantics=[]).save_pretrained(repository / "snapshots" / commit)
    tiny_processor().save_pretrained(repository / "snapshots" / commit)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    script = "from msfser.hub.loading import load_named; print(load_named('someone/model').settings)"
    environment = os.environ | {"HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1"}
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        environment.pop(name, None)
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True)
    assert done.stdout.strip() == str({"model": "someone/model", "model_commit": commit}), done.stderr[-2000:]


def load_file(load):
    return lambda source, name, **options: load(source, **options)
