"""`msfser`, the one entry to everything that the project can do: `msfser COMMAND ...`."""

import argparse
import importlib
import importlib.metadata
import sys
from collections.abc import Sequence

from .commands import COMMANDS
from .errors import cli_errors

_VERSION = f"msfser {importlib.metadata.version('msfser')}"


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
    with cli_errors(name):
        importlib.import_module(f"msfser.{COMMANDS[name].module}").main(argv[1:])
