"""A model by its name on the command line: a folder, a name on the Hub, or one of the starters."""

import os
from pathlib import Path
from typing import NamedTuple

import torch
from huggingface_hub import try_to_load_from_cache

from .. import MsfSerConfig, MsfSerModel, MsfSerProcessor
from ..encoders_msfser import hub_options, is_path
from ..starter.assemble import STARTERS, starter_folder
from .model_names import model_settings


class NamedModel(NamedTuple):
    """A model with its processor, on the CPU.

    Args:
        source: The folder, or the name on the Hub.
        settings: What identifies it, as in [`model_settings`]: `model` and `model_sha256`, or for a model on the Hub
            `model` and `model_commit`.
        model: In evaluation mode.
        processor: The model's.
    """

    source: str
    settings: dict[str, str]
    model: MsfSerModel
    processor: MsfSerProcessor


class FoundModel(NamedTuple):
    """A model that is there, without its weights.

    Args:
        source: The folder, or the name on the Hub.
        config: The model's.
        processor: The model's.
    """

    source: str
    config: MsfSerConfig
    processor: MsfSerProcessor


def default_device() -> torch.device:
    """Where commands run a model: on the accelerator if there is one, or else on the CPU."""
    found = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    return found or torch.device("cpu")


def find_named(name: str) -> FoundModel:
    """Finds a model and loads its config and processor.

    Raises:
        ValueError: The folder is that of another model.
        OSError: There is no such model; the sentence names the remedy.
    """
    source = _source(name)
    try:
        processor = MsfSerProcessor.from_pretrained(source, **hub_options(source))
    except OSError as error:
        if os.path.isdir(source):
            raise OSError(f"{source} contains a model without its processor: save both there.") from error
        raise OSError(
            f"{name!r} is no folder, and neither the Hub nor its cache has it: give a folder, a model on the Hub, "
            f"{' or '.join(STARTERS)}."
        ) from error
    return FoundModel(source, MsfSerConfig.from_pretrained(source, **hub_options(source)), processor)


def load_named(name: str) -> NamedModel:
    """Loads a model and its processor.

    Raises:
        ValueError: The folder is that of another model, or what is in it is damaged.
        OSError: There is no such model; the sentence names the remedy.
    """
    return load_found(find_named(name))


def load_found(found: FoundModel) -> NamedModel:
    """Loads the weights of a model, with the errors of [`load_named`]."""
    source, _, processor = found
    model = MsfSerModel.from_pretrained(source, **hub_options(source)).eval()
    settings = model_settings("model", source)
    # Of the snapshot in the cache of the Hub, which was just loaded.
    if not os.path.isdir(source) and isinstance(cached := try_to_load_from_cache(source, "config.json"), str):
        settings["model_commit"] = Path(cached).parent.name
    return NamedModel(source, settings, model, processor)


def _source(name: str) -> str:
    """The folder of a model, or its name on the Hub."""
    source = str(starter_folder(name)) if name in STARTERS else name
    if not os.path.isdir(source) and is_path(source):
        raise OSError(
            f"there is no model folder {name!r}: check the path, or give a model on the Hub, {' or '.join(STARTERS)}."
        )
    if os.path.isdir(source) and not (Path(source) / "config.json").is_file():
        raise OSError(f"{source} contains no model: give the folder of one, such as msfser train writes.")
    return source
