"""The files of a trained model and of a Space that are published, checked."""

from collections.abc import Iterable, Mapping
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import SpaceCard
from safetensors import SafetensorError, safe_open
from transformers.dynamic_module_utils import get_relative_imports

from ..configuration_msfser import MsfSerConfig
from ..corpora.messages import reason
from ..training.run_folder import is_unfinished
from .card import read_json

# The files of a folder that are part of the model. No other file is uploaded.
MODEL_FILES = (
    *("model.safetensors", "model-*-of-*.safetensors", "model.safetensors.index.json"),
    *("config.json", "processor_config.json", "preprocessor_config.json"),
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
    *("vocab.json", "vocab.txt", "merges.txt", "*.bpe.model", "spiece.model", "*_msfser.py"),
)
SPACE_FILES = ("*.py", "*.css", "README.md", "requirements.txt", "packages.txt", "examples/*", "assets/*")

_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl", "*.pickle")


def model_files(folder: Path) -> tuple[dict[str, Path], list[str]]:
    """Checks a trained folder and chooses the files that make the model.

    Args:
        folder: Output of `msfser train`, or of `save_pretrained` of model and processor.

    Returns:
        Paths by name, and the names of the files that are not uploaded.

    Raises:
        OSError: The model is incomplete; the sentence says what is missing.
        ValueError: The folder holds something that may not be published.
    """
    if not (folder / "config.json").is_file():
        raise OSError(f"{folder} is not a trained model: it has no config.json.")
    if is_unfinished(folder):
        raise ValueError(f"{folder} holds an unfinished run: give its command again to finish it.")
    files = _matching(folder, MODEL_FILES)
    settings = {name: read_json(path) for name, path in files.items() if name.endswith("config.json")}
    if settings["config.json"].get("model_type") != MsfSerConfig.model_type:
        raise ValueError(f"{folder} holds another kind of model ({settings['config.json'].get('model_type')}).")
    try:
        MsfSerConfig.from_pretrained(folder)
    except Exception as error:  # strict dataclasses raise errors of many types
        raise ValueError(f"{folder}/config.json cannot be loaded: {reason(error)}.") from error
    if "processor_config.json" not in files:
        raise OSError(f"{folder} has no processor: save it too (processor.save_pretrained).")
    weights = _checked_weights(folder, files)
    files = {name: path for name, path in files.items() if ".safetensors" not in name or name in weights}
    _check_code(folder, files, settings)
    excluded = sorted(path.name for path in folder.iterdir() if path.name not in files and path.name != "README.md")
    return files, excluded


def space_files(folder: Path) -> dict[str, Path]:
    """Checks a folder with a Gradio Space and chooses its files.

    Raises:
        OSError: A file is missing, or the README does not say that it is a Gradio Space.
    """
    files = _matching(folder, SPACE_FILES)
    for name in ("README.md", "app.py", "requirements.txt"):
        if name not in files:
            raise OSError(f"{folder} is not a Space: it has no {name}.")
    try:
        sdk = SpaceCard.load(files["README.md"]).data.get("sdk")
    except (ValueError, yaml.YAMLError):
        sdk = None
    if sdk != "gradio":
        raise OSError(f"{folder}/README.md does not start with the settings of a Gradio Space (sdk: gradio).")
    return files


def _checked_weights(folder: Path, files: Mapping[str, Path]) -> set[str]:
    """The files with the weights: one file, as in transformers, or else the shards and their index."""
    index = "model.safetensors.index.json"
    shards = set(read_json(files[index])["weight_map"].values()) if index in files else set()
    needed = shards if shards and "model.safetensors" not in files else {"model.safetensors"}
    if missing := sorted(needed - files.keys()):
        pickles = sorted(path.name for path in folder.iterdir() if any(fnmatch(path.name, p) for p in _PICKLES))
        instead = f"; {pickles[0]} is a pickle, which may run any code when it is loaded" if pickles else ""
        raise OSError(f"{folder} has no {missing[0]}{instead}: save the model with save_pretrained.")
    for name in needed:
        try:
            with safe_open(files[name], framework="numpy") as weights:
                empty = not weights.keys()
        except (SafetensorError, OSError) as error:
            raise OSError(f"{folder / name} is damaged ({reason(error)}): save the model again.") from error
        if empty:
            raise OSError(f"{folder / name} holds no weights: save the model again.")
    return needed | ({index} if needed == shards else set())


def _check_code(folder: Path, files: Mapping[str, Path], settings: Mapping[str, Mapping[str, Any]]) -> None:
    """Checks that all modules are there which the configs name, and which these import."""
    named: list[str] = []
    for content in settings.values():
        named += (content.get("auto_map") or {}).values()
        named += [task["impl"] for task in (content.get("custom_pipelines") or {}).values()]
    modules = sorted({name.split(".")[0] for name in named})
    if not modules:
        raise OSError(f"{folder}/config.json names no code: save the model with this version of the package.")
    for module in modules:  # the list grows by what each imports
        if f"{module}.py" not in files:
            raise OSError(f"{folder} has no {module}.py: save the model with this version of the package.")
        modules += {*get_relative_imports(files[f"{module}.py"])}.difference(modules)


def _matching(folder: Path, patterns: Iterable[str]) -> dict[str, Path]:
    """The files whose path in a folder matches a pattern; `*` matches within one name only."""
    paths = {path for pattern in patterns for path in folder.glob(pattern) if path.is_file()}
    return {path.relative_to(folder).as_posix(): path for path in sorted(paths)}
