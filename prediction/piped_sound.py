"""Sound from a pipe: raw 16-bit samples, or WAV whose length nobody knows."""

import io
import struct
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from ..containers_msfser import CONTAINERS, container_of

_READ_BYTES = 1 << 16
# Bytes. A header that is longer is none.
_LONGEST_HEADER = 1 << 20
_PCM, _FLOAT, _EXTENSIBLE = 1, 3, 0xFFFE
# The three bytes of a sample with 24 bits, which no type of numbers has.
_THREE_BYTES = np.dtype("V3")
_TYPES: dict[tuple[int, int], np.dtype[Any]] = {
    (_PCM, 8): np.dtype("u1"),
    (_PCM, 16): np.dtype("<i2"),
    (_PCM, 24): _THREE_BYTES,
    (_PCM, 32): np.dtype("<i4"),
    (_FLOAT, 32): np.dtype("<f4"),
    (_FLOAT, 64): np.dtype("<f8"),
}
_REMEDY = "ffmpeg -i INPUT -f s16le -ac 1 -ar 16000 - makes raw samples"
# The first bytes of what is no raw sound, although any bytes could be.
_OTHER_FORMATS = {
    b"fLaC": "FLAC",
    b"OggS": "Ogg",
    b"ID3": "MP3",
    b"RF64": "RF64",
    b"riff": "W64",
    b"FORM": "AIFF",
    b"caff": "CAF",
    b".snd": "AU",
    b"NIST": "NIST",
}
# Kilobits a second of MPEG-1 by layer, and of MPEG-2, in the order of their numbers in the header. Layer I is left
# out: it is hardly used, and a quiet sound may begin as it does.
_KILOBITS_1 = {
    2: (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    3: (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
}
_KILOBITS_2 = (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)
_MPEG_RATES = (44_100, 48_000, 32_000)


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
        ValueError: It is another format, or a WAV with other samples than 8, 16, 24 or 32 bits.
    """
    pipe = _Pipe(read)
    start = pipe.peek(12)
    if (other := _other_format(pipe)) is not None:
        raise ValueError(f"the pipe holds {other}, neither raw samples nor WAV: {_REMEDY}.")
    if start[:4] != b"RIFF" or start[8:12] != b"WAVE":
        return PipedSound(raw_rate, _arrays(pipe, np.dtype("<i2"), 1, None))
    pipe.take(12)
    rate, channels, kind, bits = 0, 0, 0, 0
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
        raise ValueError(
            f"the WAV in the pipe has samples that are not read ({bits} bits, format {kind}, {channels} channels): "
            f"{_REMEDY}."
        )
    # A pipe cannot be wound back to write the size: ffmpeg leaves the largest number there, others 0.
    is_known = 0 < size < 0xFFFFFFFF - _LONGEST_HEADER
    return PipedSound(rate, _arrays(pipe, dtype, channels, size if is_known else None))


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


def _other_format(pipe: _Pipe) -> str | None:
    """The name of the format in a pipe if it is one of those that are not read from pipes."""
    start = pipe.peek(16)
    for sign, name in _OTHER_FORMATS.items():
        if start.startswith(sign):
            return name
    container = container_of(io.BytesIO(start))
    if container is not None and container != "aac":
        return CONTAINERS[container]
    # Samples may begin as a frame of MP3 or AAC does, but hardly with two such frames in a row.
    for name, frame_bytes in (("MP3", _mpeg_frame_bytes), ("AAC", _aac_frame_bytes)):
        if (size := frame_bytes(start)) is not None:
            following = pipe.peek(size + 8)[size:]
            if following[:2] == start[:2] and frame_bytes(following) is not None:
                return name
    return None


def _mpeg_frame_bytes(head: bytes) -> int | None:
    """The length of the frame of MPEG audio that begins with these bytes; `None` if none does."""
    if len(head) < 4 or head[0] != 0xFF or head[1] < 0xE0:
        return None
    version, layer = head[1] >> 3 & 3, 4 - (head[1] >> 1 & 3)  # versions are 2.5, none, 2, 1
    bits, rate = head[2] >> 4, head[2] >> 2 & 3
    if version == 1 or layer not in (2, 3) or not 1 <= bits <= 14 or rate == 3:
        return None
    is_first = version == 3
    kilobits = (_KILOBITS_1[layer] if is_first else _KILOBITS_2)[bits - 1]
    hertz = _MPEG_RATES[rate] // {3: 1, 2: 2, 0: 4}[version]
    return (144 if layer == 2 or is_first else 72) * kilobits * 1000 // hertz + (head[2] >> 1 & 1)


def _aac_frame_bytes(head: bytes) -> int | None:
    """The length of the AAC frame (ADTS) that begins with these bytes; `None` if none does."""
    if len(head) < 7 or head[0] != 0xFF or head[1] & 0xF6 != 0xF0 or head[2] >> 2 & 15 > 12:
        return None
    size = (head[3] & 3) << 11 | head[4] << 3 | head[5] >> 5
    return size if size >= 7 else None


def _arrays(pipe: _Pipe, dtype: np.dtype, channels: int, size: int | None) -> Iterator[np.ndarray]:
    """The samples, `(samples, channels)`; bytes after `size` are none, and neither is half a sample at the end.

    An array has as many samples as channels or more, so that the order of its axes is plain; the last may have fewer.
    """
    width, rest = dtype.itemsize * channels, b""
    while True:
        content = pipe.take_some()
        is_end = not content
        if size is not None:
            content, size = content[:size], size - len(content)
            is_end = is_end or size <= 0
        content = rest + content
        count = len(content) // width
        if count < (1 if is_end else channels):
            count = 0
        rest = content[count * width :]
        if count:
            yield _numbers(content[: count * width], dtype).reshape(-1, channels)
        if is_end:
            return


def _numbers(content: bytes, dtype: np.dtype) -> np.ndarray:
    """The samples, one after the other; those with 24 bits are the upper ones of 32."""
    if dtype != _THREE_BYTES:
        return np.frombuffer(content, dtype)
    padded = np.zeros((len(content) // 3, 4), np.uint8)
    padded[:, 1:] = np.frombuffer(content, np.uint8).reshape(-1, 3)
    return padded.view("<i4")
