"""Types of command-line arguments that several commands have."""

import argparse


def column_pair(pair: str) -> tuple[str, str]:
    """`NAME=COLUMN`, such as `speaker=actor`, as the two names.

    Raises:
        argparse.ArgumentTypeError: There is no equals sign.
    """
    name, separator, column = pair.partition("=")
    if not separator:
        raise argparse.ArgumentTypeError(f"columns are given as NAME=COLUMN, not {pair!r}")
    return name, column
