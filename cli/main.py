"""`msfser`, the one entry to everything that the project can do: `msfser COMMAND ...`."""

import argparse
import importlib
import importlib.metadata
import sys
from collections.abc import Sequence
from typing import NamedTuple

from .errors import cli_errors


class Command(NamedTuple):
    """A row of `COMMANDS`.

    Args:
        module: Its `main(argv)` runs the command; it is imported only then.
        purpose: What `msfser --help` says about the command.
        extras: The optional dependencies that it needs, as in `pip install "msfser[train]"`.
    """

    module: str
    purpose: str
    extras: str = ""


_VERSION = f"msfser {importlib.metadata.version('msfser')}"

# A new command is one line here.
COMMANDS: dict[str, Command] = {
    "train": Command("train", "fine-tune a model on a corpus, evaluate it and save it", "train"),
    "annotate": Command(
        "annotation.annotate", "add transcripts, emphasized words and descriptions to a corpus", "annotate"
    ),
    "predict": Command("prediction.predict", "predict many recordings and write a table", "train"),
    "live": Command("prediction.live", "predict sound as it arrives, such as that of a microphone"),
    "evaluate": Command("evaluation.evaluate", "score a model on a corpus", "train"),
    "norms": Command("annotation.norms", "measure a corpus as the norms of measured descriptions", "annotate"),
    "ablate": Command("evaluation.ablation", "train and compare variants of a model over several seeds", "train"),
    "report": Command("evaluation.report", "write a page about a finished run", "train"),
    "export": Command("hub.export", "export a model to ONNX", "onnx"),
    "convert": Command("hub.convert", "convert the baseline of the MSP-Podcast challenges", "train"),
    "publish": Command("hub.publish", "publish a model on the Hugging Face Hub", "train"),
    "encoders": Command("hub.encoders", "fetch the published encoders where the Hugging Face Hub is out of reach"),
    "starter": Command("starter.assemble", "assemble the starter model from its weights and encoders"),
    "space": Command("space.app", "run the demo page", "space"),
}


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command that the arguments name.

    Args:
        argv: The command and its arguments; by default those of the process.

    Raises:
        SystemExit: There is no such command, or it ended with an error; the sentence says which.
    """
    argv = sys.argv[1:] if argv is None else list(argv)
    parser = argparse.ArgumentParser(
        prog="msfser",
        usage="msfser COMMAND [OPTIONS]",
        description="Valence, arousal, and dominance of speech from its sound and three granularities of its text.",
        epilog="\n".join(["commands:", *(f"  {name:10}{command.purpose}" for name, command in COMMANDS.items())]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=_VERSION, help="show the version and exit")
    parser.add_argument(
        "command", choices=COMMANDS, metavar="COMMAND", help="one of the commands below, each with its --help"
    )
    if not argv:
        parser.print_help()
        return
    name = parser.parse_args(argv[:1]).command
    command = COMMANDS[name]
    with cli_errors(name):
        try:
            module = importlib.import_module(f"msfser.{command.module}")
        except ModuleNotFoundError as error:
            if not command.extras or (error.name or "").startswith("msfser"):
                raise
            raise ImportError(
                f'the package {error.name!r} is missing: install it with pip install "msfser[{command.extras}]".'
            ) from error
        module.main(argv[1:])
