"""Sound from a pipe: raw 16-bit samples, or WAV whose length nobody knows."""

import struct
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

_READ_BYTES = 1 << 16
# Bytes. A header that is longer is none.
_LONGEST_HEADER = 1 << 20
_PCM, _FLOAT, _EXTENSIBLE = 1, 3, 0xFFFE
_TYPES = {(_PCM, 8): "u1", (_PCM, 16): "<i2", (_PCM, 32): "<i4", (_FLOAT, 32): "<f4", (_FLOAT, 64): "<f8"}
_REMEDY = "ffmpeg -i INPUT -f s16le -ac 1 -ar 16000 - makes raw samples"
# The first bytes of what is no raw sound, although any bytes could be.
_OTHER_FORMATS = {
    b"fLaC": "FLAC",
    b"OggS": "Ogg",
    b"ID3": "MP3",
    b"\xff\xfb": "MP3",
    b"RF64": "RF64",
    b"FORM": "AIFF",
    b"\x1aE\xdf\xa3": "Matroska",
}


class PipedSound(NamedTuple):
    """The sound in a pipe.

    Args:
        sampling_rate: In Hz.
        chunks: Arrays, `(samples, channels)`, each as soon as it is there.
    """

    sampling_rate: int
    chunks: Iterator[np.ndarray]


def open_pipe(read: Callable[[int], bytes], raw_rate: int) -> PipedSound:
    """Tells WAV from raw samples (mono, signed 16 bits, little-endian) by the first bytes.

    Args:
        read: Gives the next bytes as soon as there are any, at most so many; none at the end.
        raw_rate: The rate of raw samples, in Hz.

    Raises:
        ValueError: It is another format, or a WAV with other samples than 8, 16 or 32 bits.
    """
    pipe = _Pipe(read)
    start = pipe.peek(12)
    for sign, name in _OTHER_FORMATS.items():
        if start.startswith(sign):
            raise ValueError(f"the pipe holds {name}, neither raw samples nor WAV: {_REMEDY}.")
    if start[:4] != b"RIFF" or start[8:12] != b"WAVE":
        return PipedSound(raw_rate, _arrays(pipe, np.dtype("<i2"), 1, None))
    pipe.take(12)
    rate, channels, dtype = 0, 0, None
    while True:
        head = pipe.take(8)
        if len(head) < 8:
            raise ValueError(f"the WAV in the pipe ends before its samples: {_REMEDY}.")
        name, size = struct.unpack("<4sI", head)
        if name == b"data":
            break
        if size > _LONGEST_HEADER:
            raise ValueError(f"the WAV in the pipe is damaged: {_REMEDY}.")
        content = pipe.take(size + size % 2)
        if name == b"fmt " and len(content) >= 16:
            kind, channels, rate, _, _, bits = struct.unpack_from("<HHIIHH", content)
            if kind == _EXTENSIBLE and len(content) >= 26:
                (kind,) = struct.unpack_from("<H", content, 24)
            dtype = _TYPES.get((kind, bits))
    if dtype is None or not channels:
        raise ValueError(f"the WAV in the pipe has samples that are not read: {_REMEDY}.")
    # A pipe cannot be wound back to write the size: ffmpeg leaves the largest number there, others 0.
    is_known = 0 < size < 0xFFFFFFFF - _LONGEST_HEADER
    return PipedSound(rate, _arrays(pipe, np.dtype(dtype), channels, size if is_known else None))


class _Pipe:
    """Bytes of a pipe, of which some may be looked at before they are taken."""

    def __init__(self, read: Callable[[int], bytes]):
        self._read, self._ahead = read, b""

    def peek(self, count: int) -> bytes:
        while len(self._ahead) < count and (more := self._read(_READ_BYTES)):
            self._ahead += more
        return self._ahead[:count]

    def take(self, count: int) -> bytes:
        taken = self.peek(count)
        self._ahead = self._ahead[len(taken) :]
        return taken

    def take_some(self) -> bytes:
        taken, self._ahead = self._ahead or self._read(_READ_BYTES), b""
        return taken


def _arrays(pipe: _Pipe, dtype: np.dtype, channels: int, size: int | None) -> Iterator[np.ndarray]:
    """The samples, `(samples, channels)`; bytes after `size` are none, and neither is half a sample at the end."""
    width, rest = dtype.itemsize * channels, b""
    while size is None or size > 0:
        content = pipe.take_some()
        if not content:
            return
        if size is not None:
            content, size = content[:size], size - len(content)
        content = rest + content
        whole = len(content) // width * width
        rest = content[whole:]
        if whole:
            yield np.frombuffer(content[:whole], dtype).reshape(-1, channels)
