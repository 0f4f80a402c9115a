"""The one entry `msfser`: its commands, their help, and how they end."""

import importlib
import importlib.util
import re
import signal
import subprocess
import sys
import tomllib
import types
from pathlib import Path

import pytest

from msfser.cli import main as cli
from msfser.cli.errors import cli_errors
from msfser.cli.interrupts import raise_if_interrupted

ROOT = Path(__file__).parents[2]
# Lines of help that fit a screen.
SCREEN = 60


def output_of(capsys, *argv):
    """What a command prints that ends well."""
    try:
        cli.main(list(argv))
    except SystemExit as end:
        assert end.code in (None, 0), end.code
    return capsys.readouterr().out


def undocumented(text):
    """The options in a help page that have no help text, on their line or the next one."""
    lines = text.splitlines()
    # Options and positional arguments are indented by two spaces.
    starts = [i for i, line in enumerate(lines) if re.match(r"  (-|[A-Za-z{])\S*", line)]
    without = []
    for i in starts:
        on_line = re.search(r"\S {2,}\S", lines[i])
        on_next = i + 1 < len(lines) and lines[i + 1].startswith(" " * 12)
        if not on_line and not on_next:
            without.append(lines[i].strip())
    return without


@pytest.mark.parametrize("argv", [[], ["--help"], ["-h"]])
def test_help_names_every_command(capsys, argv):
    text = output_of(capsys, *argv)
    assert len(text.splitlines()) <= SCREEN
    for name, command in cli.COMMANDS.items():
        assert re.search(rf"^  {name} +{re.escape(command.purpose)}$", text, re.MULTILINE)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["predict", "a.wav", "-o", "o.csv", "--chanel", "0"], "arguments: --chanel 0; did you mean --channel?"),
        (["starter", "--ovewrite=1"], "arguments: --ovewrite=1"),
        (["export", "folder", "a.onnx", "b", "--overwrit3"], "b --overwrit3; did you mean --overwrite?"),
        (["export", "folder", "a.onnx", "b"], "arguments: b"),
    ],
)
def test_an_unknown_option_is_refused_with_the_nearest(capsys, argv, message):
    with pytest.raises(SystemExit):
        cli.main(argv)
    assert capsys.readouterr().err.rstrip().endswith(message)


def test_version(capsys):
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert output_of(capsys, "--version").strip() in (f"msfser {version}", "msfser (not installed)")


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_help_of_each_command_fits_a_screen_and_explains_each_option(capsys, monkeypatch, name):
    monkeypatch.setenv("COLUMNS", "80")
    text = output_of(capsys, name, "--help")
    assert text.startswith(f"usage: msfser {name}")
    assert len(text.splitlines()) <= SCREEN
    assert undocumented(text) == []


def test_the_check_of_help_pages_finds_options_without_help():
    page = "options:\n  -h, --help  show it\n  --bare\n  --long_option VALUE\n              its help\n  --last {a,b}\n"
    assert undocumented(page) == ["--bare", "--last {a,b}"]


@pytest.mark.parametrize("name", list(cli.COMMANDS))
def test_optional_dependencies_exist(name):
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert set(filter(None, cli.COMMANDS[name].extras.split(","))) <= extras.keys()
    assert importlib.util.find_spec(f"msfser.{cli.COMMANDS[name].module}") is not None


def test_an_unknown_command_is_refused(capsys):
    with pytest.raises(SystemExit) as caught:
        cli.main(["trian"])
    assert caught.value.code == 2 and "'trian'" in capsys.readouterr().err


@pytest.mark.parametrize("when", ["it is imported", "it runs"])
def test_a_missing_package_is_named_with_its_extra(monkeypatch, when):
    def missing(_):
        raise ModuleNotFoundError("No module named 'onnx'", name="onnx")

    module = types.SimpleNamespace(main=missing)
    monkeypatch.setattr(cli.importlib, "import_module", missing if when == "it is imported" else lambda name: module)
    with pytest.raises(SystemExit, match=r'^msfser export: error: .*\'onnx\'.*pip install "msfser\[onnx\]"\.$'):
        cli.main(["export", "model", "model.onnx"])


def test_an_import_without_a_name_keeps_its_message():
    with pytest.raises(SystemExit, match=r"^msfser export: error: it is wrong\.$"), cli_errors("export"):
        raise ModuleNotFoundError("it is wrong.")


@pytest.mark.parametrize("module", ["hub.loading", *(c.module for c in cli.COMMANDS.values() if not c.extras)])
def test_commands_without_extras_need_none(module):
    hidden = ["accelerate", "datasets", "evaluate", "pandas", "peft", "pyarrow", "scipy"]
    script = (
        f"import importlib.util, sys\nsys.modules.update(dict.fromkeys({hidden}))\n"
        f"importlib.import_module('msfser.{module}')\nassert 'msfser.training.settings' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


@pytest.mark.parametrize("error", [ValueError("it is wrong."), OSError("it is wrong."), ImportError("it is wrong.")])
def test_wrong_input_ends_with_a_sentence(error):
    with pytest.raises(SystemExit) as caught, cli_errors("train"):
        raise error
    assert caught.value.code == "msfser train: error: it is wrong."


def test_a_defect_is_not_hidden():
    with pytest.raises(ZeroDivisionError), cli_errors("train"):
        raise ZeroDivisionError


@pytest.mark.parametrize(
    ("resume", "sentence"),
    [
        ("", "msfser train: interrupted."),
        ("run it again", "msfser train: interrupted: run it again."),
    ],
)
def test_ctrl_c_ends_with_one_sentence(capsys, resume, sentence):
    with pytest.raises(SystemExit) as caught, cli_errors("train", resume=resume):
        raise KeyboardInterrupt
    assert caught.value.code == 130
    assert capsys.readouterr().err.split("\n") == ["", sentence, ""]


class Finalized:
    """An object that Ctrl-C meets while it is finalized, where Python ignores the interrupt."""

    def __del__(self):
        signal.raise_signal(signal.SIGINT)


@pytest.fixture
def ctrl_c():
    """Ctrl-C as in a terminal; tests in the background of a shell ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_ctrl_c_in_a_finalizer_is_not_lost(ctrl_c):
    went_on = False
    with pytest.raises(SystemExit) as caught, cli_errors("train"):
        Finalized()
        went_on = True
        raise_if_interrupted()
    assert caught.value.code == 130 and went_on
    raise_if_interrupted()  # a later training in the same process is none of its business
    with cli_errors("train"):
        raise_if_interrupted()  # one press ends one command
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_who_ignores_ctrl_c_goes_on_ignoring_it(ctrl_c):
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with cli_errors("train"):
        signal.raise_signal(signal.SIGINT)
        raise_if_interrupted()
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN


def test_the_module_is_the_same_as_the_command():
    run = subprocess.run([sys.executable, "-m", "msfser", "--help"], capture_output=True, text=True, timeout=300)
    assert run.returncode == 0 and run.stdout.startswith("usage: msfser COMMAND")
