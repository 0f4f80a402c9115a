"""Ctrl-C that is not lost.

Python ignores an exception in a finalizer, a weak reference's callback or a generator that is thrown away, and an
interrupt is an exception like any other: if Ctrl-C comes at such a moment, a long command goes on as if nothing had
been pressed. Here the signal is remembered, and long loops ask for it.
"""

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType

_pressed = threading.Event()


@contextlib.contextmanager
def remembered_interrupts() -> Iterator[None]:
    """Remembers Ctrl-C for [`raise_if_interrupted`] while a command runs; elsewhere nothing changes."""
    is_default = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if not is_default or threading.current_thread() is not threading.main_thread():
        yield  # who calls the command handles the signal
        return
    signal.signal(signal.SIGINT, _remember)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        _pressed.clear()


def raise_if_interrupted() -> None:
    """Raises the interrupt that came before, if one did.

    Raises:
        KeyboardInterrupt: Ctrl-C was pressed.
    """
    if _pressed.is_set():
        raise KeyboardInterrupt


def _remember(number: int, frame: FrameType | None) -> None:
    _pressed.set()
    raise KeyboardInterrupt
