"""How commands show what they do."""

import logging

from transformers.utils import logging as transformers_logging


def show_messages() -> None:
    """Shows the messages of this project as plain lines, without the notices and bars of transformers."""
    logging.basicConfig(format="%(message)s")
    logging.getLogger("msfser").setLevel(logging.INFO)
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
