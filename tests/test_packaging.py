"""The wheel: everything that the commands need is in it, and its dependencies are declared."""

import csv
import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest
import soundfile
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from published import MINILM, WHISPER, missing
from tiny import noise

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
CLIPS = 8


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """The wheel, built from a copy of the checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    others = shutil.ignore_patterns(".*", "__pycache__", "*.egg-info", "build", "data", "dist", "outputs", "tests")
    shutil.copytree(ROOT, folder / "source", ignore=others)
    options = ["--no-deps", "--no-build-isolation", "--disable-pip-version-check", "--wheel-dir", str(folder)]
    subprocess.run([sys.executable, "-m", "pip", "wheel", *options, str(folder / "source")], check=True)
    (built,) = folder.glob("*.whl")
    return built


def link_dependencies(wheel: Path, extras: tuple[str, ...], folder: Path) -> None:
    """Fills a folder with links to the installed packages that the wheel requires, and to no others."""
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        requirements = Parser().parsestr(archive.read(name).decode()).get_all("Requires-Dist")
    waiting = [(f"msfser[{','.join(extras)}]", "")]
    seen = set()
    folder.mkdir(parents=True)
    while waiting:
        text, extra = waiting.pop()
        requirement = Requirement(text)
        if requirement.marker and not requirement.marker.evaluate({"extra": extra}):
            continue
        name = canonicalize_name(requirement.name)
        for inner in ("", *requirement.extras):
            if (name, inner) in seen:
                continue
            seen.add((name, inner))
            if name == "msfser":
                waiting += [(required, inner) for required in requirements]
                continue
            package = importlib.metadata.distribution(name)
            waiting += [(required, inner) for required in package.requires or ()]
            for entry in {file.parts[0] for file in package.files if file.parts[0] != ".."}:
                if not (folder / entry).exists():
                    (folder / entry).symlink_to(package.locate_file(entry))


def install(wheel: Path, extras: tuple[str, ...], folder: Path) -> Path:
    """An environment with the wheel and the dependencies of these extras; returns its folder of programs."""
    dependencies = folder / "dependencies" / "site-packages"  # dill tells installed packages by this name
    link_dependencies(wheel, extras, dependencies)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder / "venv")], check=True)
    programs = folder / "venv" / ("Scripts" if os.name == "nt" else "bin")
    options = ["--no-deps", "--no-index", "--disable-pip-version-check"]
    pip = [sys.executable, "-m", "pip", "--python", str(programs / "python"), "install", *options, str(wheel)]
    subprocess.run(pip, check=True)
    (site,) = (folder / "venv").rglob("site-packages")
    (site / "dependencies.pth").write_text(f"{dependencies}\n")
    return programs


def run(programs: Path, folder: Path, *arguments: str) -> str:
    """The output of a command that runs away from the checkout."""
    variables = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    command = [str(programs / arguments[0]), *arguments[1:]]
    done = subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True)
    assert done.returncode == 0, f"{' '.join(arguments)}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    return done.stdout + done.stderr


def test_every_package_and_data_file_is_in_the_wheel(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert all(name.startswith("msfser/") for name in names)
    not_shipped = ("tests", "docs", "assets", "build", "dist", "data", "outputs")
    data = (".json", ".mp3", ".py", ".safetensors", ".yaml")
    files = (path.relative_to(ROOT) for path in ROOT.rglob("*") if path.suffix in data)
    expected = {
        f"msfser/{path.as_posix()}"
        for path in files
        if path.parts[0] not in not_shipped and not path.parts[0].startswith(".")
    }
    for name in (
        "py.typed",
        "model_card.md",
        "metrics/ccc/README.md",
        "starter/README.md",
        "space/README.md",
        "space/requirements.txt",
    ):
        expected.add(f"msfser/{name}")
    assert expected <= names
    assert not [name for name in names if name.split("/")[1] in not_shipped]


def test_each_license_of_the_project_is_in_the_wheel(wheel):
    files = PROJECT["project"]["license-files"]
    with zipfile.ZipFile(wheel) as archive:
        assert all(any(name.endswith(f".dist-info/licenses/{file}") for name in archive.namelist()) for file in files)
        assert {f"msfser/{file}" for file in files if "/" in file} <= {*archive.namelist()}
    texts = [(ROOT / file).read_text(encoding="utf-8") for file in files]
    code, *weights = PROJECT["project"]["license"].split(" AND ")
    assert code == "Apache-2.0" and "Apache License" in texts[0]
    assert [re.findall(r"SPDX-License-Identifier: (\S+)", text) for text in texts[1:]] == [[name] for name in weights]


def test_the_type_checker_is_strict_with_all_hub_code():
    (strict,) = (entry for entry in PROJECT["tool"]["mypy"]["overrides"] if "disallow_any_generics" in entry)
    assert strict["module"] == sorted(f"msfser.{path.stem}" for path in ROOT.glob("*_msfser.py"))


def test_the_tested_versions_satisfy_the_declared_ones():
    pinned = dict(re.findall(r"^([^#=\s]+)==(\S+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE))
    pinned = {canonicalize_name(name): version for name, version in pinned.items()}
    extras = PROJECT["project"]["optional-dependencies"].values()
    declared = map(Requirement, sum(extras, PROJECT["project"]["dependencies"]))
    for requirement in declared:
        if requirement.name != "msfser":
            assert requirement.specifier.contains(pinned[canonicalize_name(requirement.name)]), requirement


def test_the_declared_versions_are_those_that_run():
    """Of Python in the workflow, of transformers in constraints.txt (newest) and the Makefile (lowest)."""
    found = [re.fullmatch(r"Programming Language :: Python :: (3\.\d+)", c) for c in PROJECT["project"]["classifiers"]]
    declared = [match[1] for match in found if match]
    jobs = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())["jobs"]
    assert jobs["test"]["strategy"]["matrix"]["python"] == declared == ["3.11", "3.12", "3.13"]
    assert PROJECT["project"]["requires-python"] == f">={declared[0]}"
    (required,) = (r for r in map(Requirement, PROJECT["project"]["dependencies"]) if r.name == "transformers")
    (lowest,) = re.findall(r"transformers==(\S+)", (ROOT / "Makefile").read_text())
    assert required.specifier.contains(lowest) and str(required.specifier) == f">={lowest.removesuffix('.0')}"
    assert "transformers==5.24.0" in (ROOT / "constraints.txt").read_text().splitlines()
    on_oldest = jobs["test-oldest"]["steps"][-1]["run"]
    assert on_oldest in (ROOT / ".ci" / "run").read_text().splitlines()
    assert all(f"tests/{name}" in on_oldest for name in ("test_remote_code.py", "test_pipeline.py", "training"))


@pytest.fixture(scope="module")
def starter(wheel, tmp_path_factory) -> tuple[Path, Path]:
    """The programs of an environment with the base dependencies alone, and the folder with the starter from it."""
    if reason := missing(WHISPER, MINILM):
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("base")
    programs = install(wheel, (), folder)
    assert "not for commercial use" in run(programs, folder, "msfser", "starter")
    return programs, folder


@pytest.fixture(scope="module")
def trained(wheel, tmp_path_factory) -> tuple[Path, Path]:
    """The programs of an environment with all extras that the commands need, and the folder with a run from it."""
    if reason := missing(WHISPER, MINILM):
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("extras")
    try:
        programs = install(wheel, ("annotate", "onnx"), folder)
    except importlib.metadata.PackageNotFoundError as error:
        pytest.skip(f"a package of the extras is not installed: {error}")
    write_table(folder / "table")
    run(programs, folder, "msfser", "annotate", "table", "--output", "annotated")
    settings = {"data": "annotated", "output_dir": "trained", "use_cpu": True, "num_train_epochs": 1}
    settings |= {"freeze_audio": "all", "fusion_size": 8, "per_device_train_batch_size": 4}
    (folder / "settings.yaml").write_text(yaml.safe_dump(settings))
    run(programs, folder, "msfser", "train", "settings.yaml")
    return programs, folder


@pytest.mark.slow
def test_the_base_dependencies_are_enough_for_the_starter(starter):
    programs, folder = starter
    soundfile.write(folder / "speech.wav", noise(1.0), 16_000)
    (folder / "use.py").write_text(
        "import msfser\n"
        "from transformers import pipeline\n"
        "print(msfser.__file__)\n"
        'ser = pipeline("audio-classification", model="outputs/starter", trust_remote_code=True)\n'
        'print(sorted(ser("speech.wav")))\n'
    )
    output = run(programs, folder, "python", "use.py")
    assert str(programs.parent) in output and str(ROOT) not in output and "'arousal'" in output


@pytest.mark.slow
def test_annotate_train_and_report_run_from_the_wheel(trained):
    programs, folder = trained
    assert {"model.safetensors", "results.json", "run.yaml"} <= {path.name for path in (folder / "trained").iterdir()}
    run(programs, folder, "msfser", "report", "trained")
    assert (folder / "trained" / "report.html").is_file()


@pytest.mark.slow
def test_publish_runs_from_the_wheel(trained):
    programs, folder = trained
    assert "model.safetensors" in run(programs, folder, "msfser", "publish", "trained", "me/mine", "--dry_run")


@pytest.mark.slow
def test_export_runs_from_the_wheel(trained, starter):
    programs, folder = trained
    run(programs, folder, "msfser", "export", str(starter[1] / "outputs" / "starter"), "starter.onnx")
    assert (folder / "starter.onnx").is_file()


def write_table(folder: Path) -> None:
    folder.mkdir()
    with open(folder / "metadata.csv", "w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["file_name", "transcript", "speaker_id", "split", "valence", "arousal", "dominance"])
        for i in range(CLIPS):
            split = ("train", "train", "validation", "test")[i // 2]
            soundfile.write(folder / f"{i}.wav", noise(1.0, i) * (i + 1) / CLIPS, 16_000)
            table.writerow([f"{i}.wav", "a b c", f"{split}{i % 2}", split, i / CLIPS, (i + 1) / CLIPS, 0.5 - i / 20])
