"""The license of the weights of a model: what its config has and what its card states."""

import os
from pathlib import Path

import yaml
from huggingface_hub import ModelCard, hf_hub_download
from transformers import PreTrainedConfig

from ..corpora.licenses import License
from ..encoders_msfser import hub_options


def licenses_of(source: str, config: PreTrainedConfig) -> list[License]:
    """The licenses that a model states.

    Args:
        source: Its folder, or its name on the Hub.
        config: The model's. It has the license of the weights that the training of the model started from, too.

    Returns:
        The strictest first; none where nothing is stated. A card that only refers to a table of its own states none.
    """
    in_config, stated = License.of_config(config), _stated(source)
    found = [] if in_config is None else [in_config]
    if stated is not None and stated not in [license.id for license in found]:
        found.append(License(stated))
    return sorted(found, key=lambda license: license.strictness, reverse=True)


def _stated(source: str) -> str | None:
    path = Path(source) / "README.md"
    if os.path.isdir(source) and not path.is_file():
        return None
    try:
        if not os.path.isdir(source):
            path = Path(hf_hub_download(source, path.name, **hub_options(source)))
        data = ModelCard.load(path).data
    except (OSError, ValueError, yaml.YAMLError):
        return None
    stated = data.get("license")
    return str(stated) if stated and stated != "other" else None
