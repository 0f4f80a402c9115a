"""Converts the baseline of the MSP-Podcast challenges (Odyssey 2024, Interspeech 2025) into a model of this project.

    msfser convert FOLDER outputs/baseline
    msfser convert FOLDER outputs/baseline --mean -8.3e-05 --std 0.0849

FOLDER is either what its training script writes, `final_ssl.pt`, `final_pool.pt`, and `final_ser.pt`, or a copy of
its Hub model, `config.json` and `model.safetensors`. The baseline is a fine-tuned WavLM-Large, attentive statistics
pooling of its last layer, and one hidden layer; that is `cross_fusion="none"` without texts. Its outputs are arousal,
dominance, and valence, in this order; they become valence, arousal, and dominance.

The published weights could not be fetched while this was written: the conversion is tested on random weights, against
a forward written from the baseline's description.
"""

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from transformers import PreTrainedTokenizerBase

from ..cli.arguments import CommandParser
from ..cli.errors import cli_errors
from ..cli.messages import show_messages
from ..cli.outputs import refuse_existing, write_text
from ..configuration_msfser import LABELS, MsfSerConfig
from ..encoders_msfser import load_tokenizer
from ..feature_extraction_msfser import MsfSerFeatureExtractor
from ..modeling_msfser import MsfSerModel
from ..processing_msfser import MsfSerProcessor
from .encoders import ensure_encoders

logger = logging.getLogger("msfser.convert")

# The labels of `train_ft_dim_ser.py` (github.com/msplabresearch/MSP-Podcast_Challenge): EmoAct, EmoDom, EmoVal.
ORDER = ("arousal", "dominance", "valence")
PARTS = ("ssl", "pool", "ser")
# No text is read, but a processor has a tokenizer.
_TOKENIZER = "sentence-transformers/all-MiniLM-L6-v2"
_SPEECH = "microsoft/wavlm-large"
# The baseline divides by the standard deviation plus this.
_EPSILON = 1e-6
# Names of the speech encoder's weights in older versions of transformers and torch.
_RENAMED = {
    "conv.weight_g": "conv.parametrizations.weight.original0",
    "conv.weight_v": "conv.parametrizations.weight.original1",
}
_PICKLED_STATISTICS = "train_norm_stat.pkl"

Weights = Mapping[str, torch.Tensor]

_CARD = """---
library_name: transformers
pipeline_tag: audio-classification
base_model: microsoft/wavlm-large
tags:
- speech-emotion-recognition
- valence-arousal-dominance
---

# Baseline of the MSP-Podcast challenges, converted

Fine-tuned WavLM-Large, attentive statistics pooling of its last layer, and one hidden layer, converted by
`msfser convert` from weights of the baseline (L. Goncalves et al., "Odyssey 2024 - Speech Emotion Recognition
Challenge", 2024; its code is MIT-licensed). The outputs are valence, arousal, and dominance in 0..1; those of the
baseline are arousal, dominance, and valence. It reads sound alone, its first 12 seconds.

The conversion was tested on random weights only. Check the numbers on some recordings against the original before you
rely on them. MSP-Podcast is licensed by its owners; ask them what its license means for the weights.
"""


def convert(
    parts: Mapping[str, Weights],
    order: Sequence[str],
    mean: float,
    std: float,
    tokenizer: PreTrainedTokenizerBase,
    audio_config: Mapping[str, Any] | None = None,
) -> tuple[MsfSerModel, MsfSerProcessor]:
    """Builds the model and its processor from the weights of the baseline.

    Args:
        parts: The weights of the speech encoder (`ssl`), the pooling (`pool`), and the regressor (`ser`), by the
            names that they have in the baseline.
        order: The dimension of each output of the baseline.
        mean: Of all samples of its training set.
        std: Their standard deviation.
        tokenizer: Any; it reads nothing.
        audio_config: Of the speech encoder; by default WavLM-Large.

    Raises:
        ValueError: The order does not name each dimension once, or the weights are not those of the baseline.
    """
    if sorted(order) != sorted(LABELS):
        raise ValueError(f"the outputs are {', '.join(order)}: they have to be {', '.join(ORDER)}, in any order.")
    regressor = dict(parts["ser"])
    if "fc.1.0.weight" in regressor or "fc.0.0.weight" not in regressor:
        raise ValueError("the regressor has not one hidden layer: this is not the baseline for the three dimensions.")
    width, output = len(regressor["fc.0.0.weight"]), regressor.get("out.0.weight", ())
    if len(output) != len(LABELS):
        raise ValueError(f"the regressor has {len(output)} outputs and not three: convert the multi-task baseline.")
    config = MsfSerConfig(
        audio_config=None if audio_config is None else dict(audio_config),
        semantics=[],
        cross_fusion="none",
        fusion_size=width,
    )
    model = MsfSerModel(config)
    model.audio_encoder.config._name_or_path = model.config.audio_config._name_or_path = _SPEECH
    # A recording always has sound.
    state = {"missing_audio.embedding": torch.zeros_like(model.missing_audio.embedding)}
    try:
        state |= {f"audio_encoder.{_renamed(name)}": weight for name, weight in parts["ssl"].items()}
        state |= {f"pooling.hidden.{name}": parts["pool"][f"sap_linear.{name}"] for name in ("weight", "bias")}
        state["pooling.score.weight"] = parts["pool"]["attention"].T
        for name in ("weight", "bias"):
            state[f"cross_fusion.experts.audio.project.{name}"] = regressor[f"fc.0.0.{name}"]
            state[f"cross_fusion.experts.audio.norm.{name}"] = regressor[f"fc.0.1.{name}"]
            for row, dimension in enumerate(order):
                state[f"heads.{dimension}.out.{name}"] = regressor[f"out.0.{name}"][row : row + 1]
        model.load_state_dict(state)
    except KeyError as error:
        raise ValueError(f"these are not the weights of the baseline: {error} is missing.") from error
    except RuntimeError as error:
        raise ValueError(f"these are not the weights of the baseline: {' '.join(str(error).split())}") from error
    extractor = MsfSerFeatureExtractor(do_normalize=False, mean=float(mean), std=float(std) + _EPSILON)
    return model.eval(), MsfSerProcessor(extractor, tokenizer)


def read_baseline(
    folder: Path, mean: float | None = None, std: float | None = None
) -> tuple[dict[str, Weights], Sequence[str], float, float]:
    """The weights, the order of the outputs, and mean and standard deviation of the samples.

    Args:
        folder: Of the training script or of the Hub model.
        mean: Where the folder does not contain it.
        std: Likewise.

    Raises:
        ValueError: A file, the order, or the statistics are missing or damaged.
    """
    if (folder / "config.json").is_file():
        settings = _read(folder / "config.json")
        names = settings.get("id2label") or {}
        order: Sequence[str] = [str(names.get(str(i), "")).lower() for i in range(len(names))]
        mean, std = (settings.get(n) if given is None else given for n, given in (("mean", mean), ("std", std)))
        whole = _read(folder / "model.safetensors")
        parts: dict[str, Weights] = {
            part: {
                name.removeprefix(f"{part}_model."): weight
                for name, weight in whole.items()
                if name.startswith(f"{part}_model.")
            }
            for part in PARTS
        }
    else:
        if absent := [f"final_{part}.pt" for part in PARTS if not (folder / f"final_{part}.pt").is_file()]:
            raise ValueError(
                f"{folder} has neither config.json nor {', '.join(absent)}: give the folder of the baseline's weights."
            )
        parts = {part: _read(folder / f"final_{part}.pt") for part in PARTS}
        order = ORDER
    if mean is None or std is None:
        raise ValueError(
            f"give --mean and --std of the baseline's training set: {folder} does not state them as text, and "
            f"{_PICKLED_STATISTICS}, the pickle that contains them, is not opened."
        )
    return parts, order, mean, std


def _read(path: Path) -> dict[str, Any]:
    """The settings or the weights in a file of the baseline."""
    try:
        if path.suffix == ".json":
            return dict(json.loads(path.read_text(encoding="utf-8")))
        if path.suffix == ".safetensors":
            return load_file(path)
        # With weights_only a pickle can bring no code.
        return dict(torch.load(path, map_location="cpu", weights_only=True))
    except Exception as error:  # which one depends on the damage
        raise ValueError(
            f"{path} is missing, damaged, or only a pointer of git-lfs: download it again, or run git lfs pull in "
            f"{path.parent}."
        ) from error


def main(argv: Sequence[str]) -> None:
    """Runs `msfser convert`."""
    parser = CommandParser(
        prog="msfser convert",
        description="Converts the baseline of the MSP-Podcast challenges into a model of this project.",
    )
    parser.add_argument("folder", metavar="FOLDER", type=Path, help="the weights of the baseline")
    parser.add_argument("output", metavar="OUTPUT", type=Path, help="folder of the model")
    parser.add_argument("--mean", type=float, help="of all samples of the baseline's training set")
    parser.add_argument("--std", type=float, help="their standard deviation")
    parser.add_argument("--overwrite", action="store_true", help="replace a model in the folder")
    arguments = parser.parse_args(argv)
    show_messages()
    with cli_errors("convert"):
        for name in ("config.json", "README.md"):
            refuse_existing(arguments.output / name, arguments.overwrite)
        parts, order, mean, std = read_baseline(arguments.folder, arguments.mean, arguments.std)
        ensure_encoders([_TOKENIZER])
        model, processor = convert(parts, order, mean, std, load_tokenizer(_TOKENIZER))
        model.save_pretrained(arguments.output)
        processor.save_pretrained(arguments.output)
        write_text(arguments.output / "README.md", _CARD)
    logger.info(f"saved: {arguments.output}; its outputs are {', '.join(LABELS)}, those of the baseline were {order}")


def _renamed(name: str) -> str:
    for old, new in _RENAMED.items():
        if name.endswith(old):
            return name.removesuffix(old) + new
    return name
