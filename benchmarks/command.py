"""What the benchmarks share: how a command is recorded beside its figures, and how rows are written and shown."""

import argparse
import logging
import shlex
import sys
from collections.abc import Sequence

import datasets
from transformers.utils import logging as transformers_logging

from ..cli.arguments import module_parser
from ..evaluation.results import RESULTS, Row, as_text, merge, without_paths
from ..hub.encoders import ensure_encoders
from ..transcription_msfser import MsfSerRecognizer

WHISPER = "openai/whisper-tiny.en"


def parser_of(module: str, doc: str | None) -> argparse.ArgumentParser:
    """A parser whose help is the docstring of the module.

    Args:
        module: Its name in `msfser.benchmarks`.
        doc: The docstring.
    """
    return module_parser(f"benchmarks.{module}", doc)


def check_repeats(parser: argparse.ArgumentParser, repeats: int) -> None:
    """Ends a command that is to repeat its measurements less than once.

    Args:
        parser: The command's.
        repeats: As it was given.
    """
    if repeats < 1:
        parser.error(f"--repeats {repeats}: give at least 1.")


def show_errors_alone() -> None:
    """Keeps the project and its libraries from logging while models are trained by the dozen."""
    logging.getLogger("msfser").setLevel(logging.ERROR)
    transformers_logging.set_verbosity_error()
    datasets.disable_progress_bars()


def shown_command(module: str, argv: Sequence[str]) -> str:
    """The command without the paths of one machine.

    Args:
        module: Its name in `msfser.benchmarks`.
        argv: Its arguments, shown by [`without_paths`].
    """
    return shlex.join(["python", "-m", f"msfser.benchmarks.{module}", *without_paths(argv)])


def load_recognizer(precision: str = "float32") -> MsfSerRecognizer:
    """The default recognizer."""
    ensure_encoders([WHISPER])
    return MsfSerRecognizer.from_pretrained(WHISPER, precision=precision)


def record(results: str, rows: Sequence[Row], module: str, argv: Sequence[str] | None = None) -> None:
    """Writes rows with their command into a results file, whose other rows are kept, and prints them.

    Args:
        results: Name of the file in `benchmarks/results`, without suffix.
        rows: Without their command.
        module: Name of the benchmark in `msfser.benchmarks`.
        argv: Its arguments; by default those of the process.
    """
    command = shown_command(module, sys.argv[1:] if argv is None else argv)
    merge(RESULTS / f"{results}.json", [{**row, "command": command} for row in rows])
    print(as_text(rows))
