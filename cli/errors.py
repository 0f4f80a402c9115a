"""How every command ends when its input is wrong or somebody stops it: with one sentence, not with a traceback."""

import contextlib
from collections.abc import Iterator

import pyarrow as pa


@contextlib.contextmanager
def cli_errors(command: str) -> Iterator[None]:
    """Turns the errors of wrong input into the last sentence of a command.

    Args:
        command: The subcommand that runs, such as `train`.

    Raises:
        SystemExit: The input is wrong, a file cannot be read or written, or a package is missing.
    """
    try:
        yield
    except (ValueError, OSError, ImportError, pa.ArrowNotImplementedError) as error:
        raise SystemExit(f"msfser {command}: error: {error}") from error
