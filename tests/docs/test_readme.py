"""The README's snippets run, and its tables are those of the results files."""

import csv
import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
from published import MINILM, WHISPER, missing
from tiny import noise, tiny_model, tiny_processor

from msfser import train
from msfser.annotation import annotate
from msfser.evaluation.results import PAGES, README, RESULTS, read, rendered
from msfser.hub import publish

TEXT = README.read_text(encoding="utf-8")
BLOCKS = re.findall(r"```sh\n(.*?)```", TEXT, re.DOTALL)
MAKEFILE = (README.parent / "Makefile").read_text(encoding="utf-8")
SNIPPETS = dict(re.findall(r"<!-- snippet: (\w+) -->\n```python\n(.*?)```", TEXT, re.DOTALL))


def run(name: str) -> None:
    exec(compile(SNIPPETS[name], f"README.md: {name}", "exec"), {"__name__": "snippet"})


@pytest.fixture
def newcomer(tmp_path, monkeypatch) -> Path:
    """A folder with models in outputs/starter and outputs/probe, a recording and a small corpus of one's own."""
    monkeypatch.chdir(tmp_path)
    tiny_model("whisper", semantics=[], audio_states="weighted").save_pretrained("outputs/starter")
    tiny_model("whisper").save_pretrained("outputs/probe")
    for folder in ("outputs/starter", "outputs/probe"):
        tiny_processor("whisper").save_pretrained(folder)
    soundfile.write("speech.wav", noise(1.2), 16_000)
    Path("my").mkdir()
    with open("my/metadata.csv", "w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["audio", "transcript", "speaker", "valence", "arousal", "dominance"])
        for i in range(8):
            soundfile.write(f"my/{i}.wav", noise(0.5, i), 16_000)
            table.writerow([f"{i}.wav", "so it was", f"s{i}", 1 + i % 7, 7 - i % 7, 4])
    return tmp_path


def test_every_python_block_is_named():
    assert TEXT.count("```python") == len(SNIPPETS)


@pytest.mark.parametrize("name", sorted(set(SNIPPETS) - {"trainer"}))
def test_the_snippet_runs(name, newcomer, capsys):
    run(name)
    printed = capsys.readouterr().out
    assert printed.strip()
    if name in ("predict", "pipeline"):
        assert all(label in printed for label in ("valence", "arousal", "dominance"))
    if name == "scale":
        assert printed.split() == ["4.0", "0.5"]


@pytest.fixture
def pretrained():
    if reason := missing(WHISPER, MINILM):
        pytest.skip(reason)


def test_the_commands_run_one_after_another(newcomer, pretrained, capsys):
    """All but those of make, which CI runs: a table of one's own, texts made for it, and what would be published."""
    commands = [shlex.split(line, comments=True) for line in "".join(BLOCKS).splitlines()]
    assert {words[1] for words in commands if words[0] == "make"} <= set(
        re.findall(r"^(\w+):", MAKEFILE, re.MULTILINE)
    )
    shutil.copytree(README.parent / "configs", "configs")
    done = []
    for python, *words in (words for words in commands if words[0] != "make"):
        assert python == ".venv/bin/python"
        if words[0] == "train.py":
            # Eight clips make no batch of 32.
            train.main([*words[1:], "--num_train_epochs", "1", "--per_device_train_batch_size", "2"])
            assert Path("outputs/mine/results.json").is_file()
        elif words[:2] == ["-m", "msfser.annotation.annotate"]:
            annotate.main(words[2:])
            assert Path("my/annotated/annotation.json").is_file()
        else:
            assert words[:2] == ["-m", "msfser.publish"]
            publish.main(words[2:])
            assert "model.safetensors" in capsys.readouterr().out
        done.append(words[0])
    assert done == ["train.py", "-m", "train.py", "-m"]


def test_the_trainer_snippet_runs_and_is_short(newcomer, pretrained):
    assert sum(bool(line.strip()) for line in SNIPPETS["trainer"].splitlines()) <= 15
    run("trainer")
    assert Path("outputs/mine/model.safetensors").is_file() and Path("outputs/mine/modeling_msfser.py").is_file()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.parent.name)
def test_the_tables_are_those_of_the_results(page):
    text = page.read_text(encoding="utf-8")
    assert rendered(text) == text, f"{page} is older than benchmarks/results: python -m msfser.evaluation.results"


def test_results_are_rows_with_a_command():
    files = sorted(RESULTS.glob("*.json"))
    assert files
    for path in files:
        for name, row in read(path).items():
            assert {"name", "value", "low", "high", "command"} <= set(row), (path.name, name)
            assert np.isfinite(row["value"]) and row["command"].startswith("python ")


def test_the_probe_shows_that_each_input_is_needed():
    """The figures that the corpus was designed for; they hold in the results that are shown."""
    rows = read(RESULTS / "ablation_probe.json")
    value = {name: row["value"] for name, row in rows.items()}
    assert value["full/mean"] >= 0.90
    assert value["full/valence"] - value["no_les/valence"] >= 0.30
    assert value["full/valence"] - value["no_gs/valence"] >= 0.10
    assert value["full/dominance"] - value["no_es/dominance"] >= 0.50
    assert value["full/arousal"] - value["no_audio/arousal"] >= 0.50
    for row, dimension in (
        ("no_les", "valence"),
        ("random_window", "valence"),
        ("no_gs", "valence"),
        ("no_es", "dominance"),
        ("no_audio", "arousal"),
    ):
        assert rows[f"{row}/{dimension}"]["high"] < rows[f"full/{dimension}"]["low"], row
        assert rows[f"{row}_minus_full/{dimension}"]["high"] < 0, row
