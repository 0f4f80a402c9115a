"""What commands that predict say about their model."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from huggingface_hub import ModelCard

from ..annotator_msfser import NoRecognizer


def license_message(source: str) -> str | None:
    """The license of the weights in a folder; `None` for a model on the Hub, which states its own."""
    if not os.path.isdir(source):
        return None
    card = Path(source) / "README.md"
    stated = ModelCard.load(card).data.get("license") if card.is_file() else None
    return f"the license of the weights: {stated or 'not stated'}."


@contextlib.contextmanager
def option_names() -> Iterator[None]:
    """Calls the option in an error of the pipeline as it is called on the command line.

    Raises:
        OSError: The recognizer cannot be loaded.
    """
    try:
        yield
    except NoRecognizer as error:
        reason = str(error.__cause__).rstrip(".")
        raise OSError(f"{reason}; or give --recognizer none to go without a transcript.") from error
