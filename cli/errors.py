"""How every command ends when its input is wrong or Ctrl-C stops it: with one sentence instead of a traceback."""

import contextlib
import os
import sys
from collections.abc import Iterator

from .commands import COMMANDS
from .interrupts import remembered_interrupts
from .outputs import named_by_user


@contextlib.contextmanager
def cli_errors(command: str, resume: str = "") -> Iterator[None]:
    """Turns errors of wrong input, and Ctrl-C, into the last sentence of a command.

    Args:
        command: The subcommand that runs, such as `train`.
        resume: How to resume after Ctrl-C, such as "run the same command again to continue".

    Raises:
        SystemExit: With status 1 if the input is wrong, a loss is not finite, a file cannot be read or written, or a
            package is missing; with status 130 after Ctrl-C.
    """
    try:
        with remembered_interrupts():
            yield
    except (ValueError, OSError, ImportError, FloatingPointError) as error:
        raise SystemExit(f"msfser {command}: error: {_sentence(command, error)}") from error
    except KeyboardInterrupt:
        print(f"\nmsfser {command}: interrupted{resume and f': {resume}'}.", file=sys.stderr)
        raise SystemExit(130) from None


def _sentence(command: str, error: Exception) -> str:
    """An error as one sentence, with a remedy for a missing package and for a file, which is named as by the user."""
    extras = COMMANDS[command].extras if command in COMMANDS else ""
    if isinstance(error, ModuleNotFoundError) and error.name and extras and not error.name.startswith("msfser"):
        return f'the package {error.name!r} is missing: install it with pip install "msfser[{extras}]".'
    if not isinstance(error, OSError) or error.errno is None or error.filename is None:
        return str(error)
    path = named_by_user(os.fsdecode(error.filename if error.filename2 is None else error.filename2))
    return f"{str(path)!r} cannot be read or written ({error.strerror}): check the name and the permissions."
