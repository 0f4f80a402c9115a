"""Command-line arguments, and types of them, that several commands have."""

import argparse
import difflib
from collections.abc import Sequence
from typing import Any


class CommandParser(argparse.ArgumentParser):
    """Parser of a command that names the option next to one that it does not know."""

    def parse_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: Any = None
    ) -> Any:
        """As in [`argparse.ArgumentParser`]."""
        found, rest = self.parse_known_args(args, namespace)
        if rest:
            option = next((word for word in rest if word.startswith("-")), "").partition("=")[0]
            near = difflib.get_close_matches(option, self._option_string_actions, n=1)
            self.error(f"unrecognized arguments: {' '.join(rest)}{f'; did you mean {near[0]}?' if near else ''}")
        return found


def module_parser(module: str, doc: str | None) -> argparse.ArgumentParser:
    """A parser of a module that is run by `python -m`, whose help is the module's docstring.

    Args:
        module: Its name in `msfser`.
        doc: The docstring.
    """
    return argparse.ArgumentParser(
        prog=f"python -m msfser.{module}", description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )


def add_precision(parser: argparse.ArgumentParser, of: str = "encoders and recognizer") -> None:
    """Adds the option `--precision`."""
    parser.add_argument(
        "--precision",
        choices=("float32", "bfloat16"),
        default="float32",
        help=f"of {of}; bfloat16 is faster on a GPU and on CPUs that have it (default: %(default)s)",
    )


def column_pair(pair: str) -> tuple[str, str]:
    """`NAME=COLUMN`, such as `speaker=actor`, as the two names.

    Raises:
        argparse.ArgumentTypeError: There is no equals sign.
    """
    name, separator, column = pair.partition("=")
    if not separator:
        raise argparse.ArgumentTypeError(f"columns are given as NAME=COLUMN, not {pair!r}")
    return name, column
