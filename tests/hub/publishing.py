"""A trained folder, and a stranger who loads what was published: shared by the tests of the hub folder."""

import json
import os
import subprocess
import sys
from pathlib import Path

import yaml
from hub_server import Hub
from huggingface_hub import constants
from tiny import tiny_model, tiny_processor

from msfser import LABELS
from msfser.training.settings import parse_settings, write_run

REPO = "someone/model"

# Start of each script of a separate process: an editable install is found through a finder, which is removed.
NO_PACKAGE = """
import sys
sys.meta_path = [finder for finder in sys.meta_path if "editable" not in repr(finder).lower()]
try:
    import msfser
except ImportError:
    pass
else:
    raise SystemExit("the package can be imported: this would not test the published code")
"""


def write_results(folder: Path, value: float = 0.5) -> None:
    rows = [
        {"name": f"test/{inputs}/{name}", "value": value, "low": value - 0.1, "high": value + 0.1}
        for inputs in ("audio", "audio+transcript", "all")
        for name in (*LABELS, "mean")
    ]
    (folder / "results.json").write_text(json.dumps(rows))


def write_settings(folder: Path, *options: str, **settings) -> None:
    """Writes `run.yaml` as a run with these settings and options does."""
    file = folder.parent / "settings.yaml"
    file.write_text(yaml.safe_dump({"output_dir": str(folder)} | settings))
    write_run(folder, parse_settings([str(file), *options]).resolved)


def train(folder: Path, **switches) -> Path:
    """A folder as a run leaves it."""
    model = tiny_model("whisper", **switches)
    if model.config.audio:
        model.config.audio_config._name_or_path = "openai/whisper-tiny.en"
    if model.config.semantics:
        model.config.text_config._name_or_path = "sentence-transformers/all-MiniLM-L6-v2"
    model.save_pretrained(folder)
    tiny_processor("whisper").save_pretrained(folder)
    write_settings(folder)
    write_results(folder)
    return folder


def as_a_stranger(hub: Hub, script: str, tmp_path: Path, *arguments: str) -> str:
    """The output of a script without the package, a token or a cache, connected to this Hub only."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING"))}
    settings = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "home"), "HF_HUB_DISABLE_XET": "1"}
    (tmp_path / "script.py").write_text(NO_PACKAGE + script)
    run = subprocess.run(
        [sys.executable, "-I", str(tmp_path / "script.py"), *arguments],
        cwd=tmp_path,
        env=kept | settings,
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    return run.stdout


def connect(monkeypatch, hub: Hub, token: str | None) -> None:
    """Connects this process, which is offline in tests, to one Hub only."""
    monkeypatch.setattr(constants, "ENDPOINT", hub.url)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    for name in ("HUGGING_FACE_HUB_TOKEN", "HF_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    if token is not None:
        monkeypatch.setenv("HF_TOKEN", token)
