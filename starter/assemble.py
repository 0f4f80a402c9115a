"""Puts the starter model together: the part that was trained, from `starter/`, and the published speech encoder.

    msfser starter outputs/starter

The folder then loads with `AutoModel` and goes to the Hub like one of `train.py`. What the starter has learned from,
what it is worth, and its license stand in `starter/README.md`, which becomes the folder's card.
"""

import argparse
import logging
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from safetensors.torch import load_file, save_file

from ..modeling_msfser import MsfSerModel
from ..processing_msfser import MsfSerProcessor

logger = logging.getLogger("msfser.starter")

FOLDER = Path(__file__).parent
WEIGHTS, CARD = "model.safetensors", "README.md"
AUDIO_ENCODER, TEXT_ENCODER = "openai/whisper-tiny.en", "sentence-transformers/all-MiniLM-L6-v2"
# Sound alone: its corpora have a dozen fixed sentences, which teach nothing about words. No sound is withheld in
# training, since nothing else would be left.
SWITCHES = {
    "semantics": [],
    "audio_states": "weighted",
    "freeze_audio": "all",
    "fusion_size": 128,
    "head_dropout": 0.2,
    "audio_dropout": 0.0,
}


def new_starter() -> MsfSerModel:
    """The starter before it is fitted: the pretrained encoder, everything else at its random start.

    Raises:
        OSError: The encoder is nowhere to be had; the sentence says what to install.
    """
    return MsfSerModel.from_encoders(AUDIO_ENCODER, None, **SWITCHES)


def starter_processor() -> MsfSerProcessor:
    """Its processor: every sound is brought to one level.

    Raises:
        OSError: An encoder is nowhere to be had; the sentence says what to install.
    """
    return MsfSerProcessor.from_encoders(AUDIO_ENCODER, TEXT_ENCODER, normalize_level=True)


def write_trained_part(starter: MsfSerModel) -> None:
    """Writes what was fitted, without the encoder, to `starter/`."""
    FOLDER.mkdir(exist_ok=True)
    save_file(_trained_part(starter), FOLDER / WEIGHTS, metadata={"format": "pt"})
    (FOLDER / WEIGHTS).chmod(0o644)


def assemble(folder: Path) -> None:
    """Writes the whole starter, a folder that `AutoModel`, `AutoProcessor` and `pipeline` load.

    Raises:
        OSError: The trained part or the encoder is not there, or the folder cannot be written.
        ValueError: The trained part does not fit this version of the model.
    """
    if not (FOLDER / WEIGHTS).is_file():
        raise OSError(f"{FOLDER / WEIGHTS} is not there: get the project whole, or fit it (benchmarks/starter.py).")
    starter, trained = new_starter(), load_file(FOLDER / WEIGHTS)
    wanted = _trained_part(starter)
    if {name: weight.shape for name, weight in trained.items()} != {n: w.shape for n, w in wanted.items()}:
        raise ValueError(f"{FOLDER / WEIGHTS} does not fit this version of the model: get both from one version.")
    starter.load_state_dict(trained, strict=False)
    starter.eval().save_pretrained(folder)
    starter_processor().save_pretrained(folder)
    shutil.copyfile(FOLDER / CARD, Path(folder) / CARD)


def _trained_part(model: MsfSerModel) -> dict:
    return {name: weight for name, weight in model.state_dict().items() if not name.startswith("audio_encoder.")}


def main(argv: Sequence[str]) -> None:
    """Runs the command."""
    parser = argparse.ArgumentParser(prog="msfser starter", description="Puts the starter model together.")
    parser.add_argument("folder", type=Path, help="where to write it, such as outputs/starter")
    arguments = parser.parse_args(argv)
    logging.basicConfig(format="%(message)s")
    logger.setLevel(logging.INFO)
    try:
        assemble(arguments.folder)
    except (OSError, ValueError) as error:
        raise SystemExit(f"starter: {error}") from None
    logger.info("saved: %s", arguments.folder)


if __name__ == "__main__":
    main(sys.argv[1:])
