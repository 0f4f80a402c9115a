"""Adapts the text encoder of the starters to emotion: low-rank updates of its attention, fitted to GoEmotions.

    pip install -e ".[lora]"
    python -m msfser.starter.fit_text_encoder --data FOLDER

FOLDER holds GoEmotions. A model without audio is trained on the training sentences that no starter is fitted to, with
their weak labels (`corpora/weak_labels.py`), by the trainer of `msfser train`, with the settings of
`text_encoder.yaml`. Of three in ten sentences it reads only a random window of three words, because the emphasized
words of a starter are such windows. The command prints the CCC on the validation sentences. Of the model only the
change of the text encoder is kept, in `starter/text_encoder.safetensors`; after that, both starters have to be fitted
anew (`starter/fit.py`).
"""

import copy
import tempfile
from collections.abc import Sequence
from pathlib import Path

import datasets
import numpy as np
import torch
from transformers import set_seed

from ..cli.arguments import module_parser
from ..cli.errors import cli_errors
from ..configuration_msfser import LABELS
from ..hub.encoders import ensure_encoders
from ..loss_msfser import concordance
from ..training.adapters import merged
from ..training.features import add_lengths
from ..training.initialization import build_model
from ..training.settings import parse_settings
from ..training.steps import fold_trainer
from .assemble import TEXT_ENCODER
from .material import SENTENCES, drawn_sentences, find_sentences, window
from .text_encoder import TEXT_WEIGHTS, write_update

SETTINGS = Path(__file__).parent / "text_encoder.yaml"
# The share of the sentences of which only a window is read.
WINDOWS = 0.3


def with_windows(sentences: datasets.Dataset, share: float = WINDOWS) -> datasets.Dataset:
    """Sentences, a share of which is cut to a random window of three words; with their lengths, for batches."""
    draw = np.random.default_rng(0)
    texts = [window(text, draw) if draw.random() < share else text for text in sentences["transcript"]]
    return add_lengths(sentences.remove_columns("transcript").add_column("transcript", texts))


def fit_text_encoder(data: Path) -> None:
    """Trains, prints the CCC on the validation sentences, and writes the update of the text encoder.

    Args:
        data: The folder with GoEmotions.

    Raises:
        ValueError: GoEmotions is not there.
        OSError: The text encoder cannot be found.
    """
    ensure_encoders([TEXT_ENCODER])
    sentences = find_sentences([data])
    count = len(sentences["train"])
    others = np.setdiff1d(np.arange(count), drawn_sentences(count, SENTENCES))
    with tempfile.TemporaryDirectory() as folder:
        settings = parse_settings([str(SETTINGS), "--text_encoder", TEXT_ENCODER, "--output_dir", folder])
        set_seed(settings.training.seed)
        start = build_model(settings.run, settings.model)
        published = copy.deepcopy(start[0].text_encoder)
        trainer = fold_trainer(settings, with_windows(sentences["train"].select(others)), initial=lambda: start)
        trainer.train()
        model = trainer.model = merged(trainer.model)
        found = trainer.predict(add_lengths(sentences["validation"]))
    cccs = concordance(torch.as_tensor(found.predictions), torch.as_tensor(found.label_ids)).tolist()
    reached = ", ".join(f"{name} {value:.3f}" for name, value in zip(LABELS, cccs, strict=True))
    print(f"CCC on the validation sentences: {reached}")
    write_update(published, model.text_encoder, settings.run.lora_rank, TEXT_WEIGHTS)
    print(f"written: {TEXT_WEIGHTS}")


def main(argv: Sequence[str] | None = None) -> None:
    """Fits the update that comes with the package."""
    parser = module_parser("starter.fit_text_encoder", __doc__)
    parser.add_argument("--data", type=Path, required=True, help="the folder with GoEmotions")
    arguments = parser.parse_args(argv)
    with cli_errors("starter"):
        fit_text_encoder(arguments.data)


if __name__ == "__main__":
    main()
