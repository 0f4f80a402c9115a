"""Returns freed memory to the system, which lengths that vary would otherwise keep."""

import ctypes
import platform

_C_LIBRARY = ctypes.CDLL(None) if platform.libc_ver()[0] == "glibc" else None


def free_memory() -> None:
    """Returns freed memory to the system where the C library (glibc) would keep it.

    The lengths of windows and texts vary, and so do the gaps that they leave: without this, an hour needs half as much
    memory again as two minutes.
    """
    if _C_LIBRARY is not None:
        _C_LIBRARY.malloc_trim(0)
