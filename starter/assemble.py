"""Assembles the starter model from its fitted weights, in `starter/`, and the published speech encoder.

    msfser starter outputs/starter

The folder loads with `AutoModel`, and `msfser publish` accepts it like the output of `msfser train`. The data, the
results and the license of the starter are in `starter/README.md`, which becomes the card of the folder.
"""

import argparse
import logging
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.constants import HF_HOME
from safetensors.torch import load_file, save_file
from transformers.utils.logging import disable_progress_bar

from ..cli.errors import cli_errors
from ..cli.outputs import UNFINISHED, whole_file
from ..hub.encoders import ensure_encoders
from ..hub.model_names import content_hash
from ..modeling_msfser import MsfSerModel
from ..processing_msfser import MsfSerProcessor
from ..training.settings import RUN_FILE

logger = logging.getLogger("msfser.starter")

FOLDER = Path(__file__).parent
# What commands call the starter that comes with the package.
STARTER = "starter"
WEIGHTS, CARD = "model.safetensors", "README.md"
LICENSE = "The weights are licensed under CC BY-NC-SA 4.0 (of the corpus RAVDESS): not for commercial use."
AUDIO_ENCODER, TEXT_ENCODER = "openai/whisper-tiny.en", "sentence-transformers/all-MiniLM-L6-v2"
# Audio only: its corpora have a dozen fixed sentences, which teach nothing about words. There is no audio dropout,
# since no other input would be left.
SWITCHES: dict[str, Any] = {
    "semantics": [],
    "audio_states": "weighted",
    "freeze_audio": "all",
    "fusion_size": 128,
    "head_dropout": 0.2,
    "audio_dropout": 0.0,
}


def new_starter() -> MsfSerModel:
    """The starter before it is fitted: the pretrained encoder, and random weights on top of it."""
    return MsfSerModel.from_encoders(AUDIO_ENCODER, None, **SWITCHES)


def starter_processor() -> MsfSerProcessor:
    """Its processor, which normalizes the level of every sound."""
    return MsfSerProcessor.from_encoders(AUDIO_ENCODER, TEXT_ENCODER, normalize_level=True)


def write_fitted_weights(starter: MsfSerModel) -> None:
    """Writes the fitted weights, without those of the encoder, to `starter/`."""
    FOLDER.mkdir(exist_ok=True)
    save_file(_fitted_weights(starter), FOLDER / WEIGHTS, metadata={"format": "pt"})
    (FOLDER / WEIGHTS).chmod(0o644)


def assemble(folder: Path) -> None:
    """Writes the complete starter to a folder that `AutoModel`, `AutoProcessor` and `pipeline` load.

    A folder that holds the starter already is written anew, file by file.

    Raises:
        OSError: The fitted weights or the encoder cannot be found, or the folder cannot be written.
        ValueError: The fitted weights do not fit this version of the model, or the folder holds something else.
    """
    if folder.is_dir() and any(folder.iterdir()) and not _is_starter(folder):
        raise ValueError(f"{folder} holds something else than a starter: name a new folder.")
    if not (FOLDER / WEIGHTS).is_file():
        raise OSError(f"{FOLDER / WEIGHTS} is missing: install the package again, or run msfser.starter.fit.")
    starter, fitted = new_starter(), load_file(FOLDER / WEIGHTS)
    needed = _fitted_weights(starter)
    if {name: weight.shape for name, weight in fitted.items()} != {n: w.shape for n, w in needed.items()}:
        raise ValueError(f"{FOLDER / WEIGHTS} does not fit this version of the model: install the package again.")
    starter.load_state_dict(fitted, strict=False)
    folder.mkdir(parents=True, exist_ok=True)
    # The card first: it tells a starter, also one that was killed.
    with whole_file(folder / CARD) as unfinished:
        shutil.copyfile(FOLDER / CARD, unfinished)
    starter.eval().save_pretrained(folder)
    starter_processor().save_pretrained(folder)


def _is_starter(folder: Path) -> bool:
    """Whether a folder has the card of the starter, of any version, and no settings of a run."""
    title = (FOLDER / CARD).read_text(encoding="utf-8").partition("\n# ")[2].partition("\n")[0]
    card = folder / CARD
    has_card = card.is_file() and f"\n# {title}\n" in card.read_text(encoding="utf-8", errors="replace")
    return not (folder / RUN_FILE).exists() and (
        has_card or all(p.name.endswith(UNFINISHED) for p in folder.iterdir())
    )


def starter_folder() -> Path:
    """The folder of the assembled starter in the cache; named by the content of what it is assembled from.

    Raises:
        OSError: The encoders cannot be found, or the folder cannot be written.
    """
    folder = Path(HF_HOME) / "msfser" / "starter" / content_hash(FOLDER)[:16]
    if not folder.is_dir():
        ensure_encoders([AUDIO_ENCODER, TEXT_ENCODER])
        unfinished = folder.with_name(f"{folder.name}.{os.getpid()}")
        assemble(unfinished)
        try:
            unfinished.rename(folder)
        except OSError:
            if not folder.is_dir():  # else another process was faster
                raise
            shutil.rmtree(unfinished)
    return folder


def _fitted_weights(model: MsfSerModel) -> dict[str, torch.Tensor]:
    return {name: weight for name, weight in model.state_dict().items() if not name.startswith("audio_encoder.")}


def main(argv: Sequence[str]) -> None:
    """Runs the command."""
    parser = argparse.ArgumentParser(prog="msfser starter", description="Assembles the starter model.")
    parser.add_argument(
        "folder", type=Path, nargs="?", default=Path("outputs/starter"), help="output folder (outputs/starter)"
    )
    arguments = parser.parse_args(argv)
    logging.basicConfig(format="%(message)s")
    logger.setLevel(logging.INFO)
    disable_progress_bar()
    with cli_errors("starter"):
        ensure_encoders([AUDIO_ENCODER, TEXT_ENCODER])
        assemble(arguments.folder)
    logger.info("saved: %s", arguments.folder)
    logger.info(LICENSE)


if __name__ == "__main__":
    main(sys.argv[1:])
