"""`msfser`, the one entry to everything that the project can do: `msfser COMMAND ...`."""

import importlib
import sys
from collections.abc import Sequence

# The module of each command, whose `main(argv)` runs it. A module is imported only when its command is given.
COMMANDS = {
    "train": ("train", "fine-tune a model on a corpus, evaluate it and save it"),
    "annotate": ("annotation.annotate", "make transcripts, emphasized words and descriptions for a corpus"),
    "ablate": ("evaluation.ablation", "train and compare variants of a model over several seeds"),
    "report": ("evaluation.report", "write a page about a finished run"),
    "encoders": ("hub.encoders", "fetch the two small published encoders"),
    "export": ("hub.export", "export a model to ONNX"),
    "publish": ("hub.publish", "publish a model on the Hugging Face Hub"),
    "starter": ("starter.assemble", "assemble the starter model from its weights and the published encoder"),
    "space": ("space.app", "run the demo page"),
}


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command that the arguments name.

    Args:
        argv: The command and its arguments; by default those of the process.

    Raises:
        SystemExit: There is no such command, or it ended with an error; the sentence says which.
    """
    argv = sys.argv[1:] if argv is None else list(argv)
    if not argv or argv[0] in ("-h", "--help"):
        print(_usage())
        return
    name, *rest = argv
    if name not in COMMANDS:
        raise SystemExit(f"msfser: error: there is no command {name!r}; there are {', '.join(COMMANDS)}.")
    module = importlib.import_module(f"msfser.{COMMANDS[name][0]}")
    module.main(rest)


def _usage() -> str:
    lines = [f"  {name:10}{purpose}" for name, (_, purpose) in COMMANDS.items()]
    return "\n".join(
        ["usage: msfser COMMAND [ARGUMENTS]", "", *lines, "", "msfser COMMAND --help shows the options of a command."]
    )
