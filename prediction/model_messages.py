"""What commands that predict say about their model."""

import contextlib
import os
from collections.abc import Iterator

from transformers import PreTrainedConfig

from ..annotator_msfser import NoRecognizer
from ..hub.licenses import licenses_of


def license_message(source: str, config: PreTrainedConfig) -> str:
    """The license of the weights of a model, which is a folder or a name on the Hub."""
    stated = "; ".join(license.terms for license in licenses_of(source, config))
    unknown = "not stated" if os.path.isdir(source) else "see its page on the Hub"
    return f"the license of the weights: {stated or unknown}."


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
