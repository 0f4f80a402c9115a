"""What the messages of errors share.

Lines of text files are counted as an editor counts them, from 1 with the header; rows of other tables are counted from
1. Options are written as on the command line; arguments of functions have the same names without dashes.
"""

import contextlib
from collections.abc import Iterator

# A value that a message shows may be as long as a book.
_MAX_LENGTH = 800


@contextlib.contextmanager
def short_messages() -> Iterator[None]:
    """Shorten the message of a `ValueError` that is too long to be read to its beginning and its end."""
    try:
        yield
    except ValueError as error:
        message = str(error)
        if len(message) <= _MAX_LENGTH:
            raise
        raise ValueError(shortened(message)) from error


def shortened(message: str) -> str:
    """Return a message without the middle, if it is too long to be read to its end."""
    half = _MAX_LENGTH // 2
    return message if len(message) <= _MAX_LENGTH else f"{message[:half]} ... {message[-half:]}"


def counted(number: int, noun: str) -> str:
    """Return a number with a noun whose plural ends in s, such as "1 row" or "2 rows"."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def counted_are(number: int, noun: str) -> str:
    """Return [`counted`] as the subject of a sentence, such as "1 row is" or "2 rows are"."""
    return f"{counted(number, noun)} {'is' if number == 1 else 'are'}"


def reason(error: object) -> str:
    """Return the message of a library's error on one line, without its full stop."""
    return " ".join(str(error).split()).rstrip(".")
