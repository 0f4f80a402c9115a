"""Reads the sound of MP4, Matroska, AAC and AMR files, as telephones and messengers record them, through PyAV.

FFmpeg, which PyAV carries, can open far more than sound: playlists, references to other files, addresses. Here it gets
the bytes of one file, the name of one format of four, and some decoders of sound, and it can open nothing else.
"""

import contextlib
import math
from collections.abc import Iterator
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np

from .sound_forms_msfser import as_floats

av: Any
try:
    import av
except ImportError:  # only these formats need it
    av = None

# FFmpeg's names of the formats, and what messages call them.
CONTAINERS = {
    "mov": "an MP4 or QuickTime file",
    "matroska": "a Matroska or WebM file",
    "aac": "an AAC file",
    "amr": "an AMR file",
}
# The types of box with which MP4 and QuickTime files begin.
_FIRST_BOXES = (b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"pnot")
_CODECS = (
    *("aac", "aac_latm", "ac3", "alac", "amr_nb", "amr_wb", "eac3", "flac", "mp2", "mp3", "opus", "vorbis"),
    *("pcm_alaw", "pcm_mulaw", "pcm_u8", "pcm_s8", "pcm_s16le", "pcm_s16be", "pcm_s24le", "pcm_s24be"),
    *("pcm_s32le", "pcm_s32be", "pcm_f32le", "pcm_f32be", "pcm_f64le", "pcm_f64be"),
)
_DECODERS = (*_CODECS, "amrnb", "amrwb", "libopencore_amrnb", "libopencore_amrwb", "libopus", "mp2float", "mp3float")
_OPTIONS = {
    "codec_whitelist": ",".join(_DECODERS),
    "format_whitelist": "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,aac,amr",
    "protocol_whitelist": "none",
    "enable_drefs": "0",  # of QuickTime: sound in other files
    "use_absolute_path": "0",
    "max_streams": "64",
}
# For finding out what the file contains, and for each packet of it. Seconds.
_PATIENCE = 30.0
# How much the sound may differ in length from what its file states.
_TOLERANCE, _TOLERATED_SHARE = 0.25, 0.01
# How a compressed index of a QuickTime file begins, which can grow a thousandfold.
_COMPRESSED_INDEX = b"dcomzlib"


class MissingPyAVError(RuntimeError):
    """PyAV is not installed; the message says what the file is, such as "an AAC file"."""


def container_of(file: BinaryIO) -> str | None:
    """The name in `CONTAINERS` of the format that the content of a file has; `None` for any other.

    The file is read from its start and returned there.
    """
    head = file.read(16)
    if head[:3] == b"ID3" and len(head) >= 10:  # before AAC as before MP3
        file.seek(10 + sum((byte & 0x7F) << 7 * (3 - i) for i, byte in enumerate(head[6:10])))
        start = file.read(2)
    else:
        start = head[:2]
    file.seek(0)
    if head[4:8] in _FIRST_BOXES:
        return "mov"
    if head[:4] == b"\x1a\x45\xdf\xa3":
        return "matroska"
    if head[:5] == b"#!AMR":
        return "amr"
    # The two bits after the version are those of the layer, never 0 in MP3.
    if len(start) == 2 and start[0] == 0xFF and start[1] & 0xF6 == 0xF0:
        return "aac"
    return None


class ContainerReader:
    """The first stream of sound of a file, with the attributes of a `soundfile.SoundFile`.

    Args:
        file: The file, opened in binary mode.
        container: Its format, from [`container_of`].

    Raises:
        MissingPyAVError: PyAV is not installed.
        RuntimeError: The file cannot be decoded, or holds no sound. So do the other methods.
    """

    _container: Any = None

    def __init__(self, file: BinaryIO, container: str):
        if av is None:
            raise MissingPyAVError(CONTAINERS[container])
        self._file, self._format = file, container
        self._stated: int | None = None
        self._rest: np.ndarray
        self._position: int
        if container == "mov" and _contains(file, _COMPRESSED_INDEX):
            raise RuntimeError("its index is compressed, which is not supported")
        self._start()
        # What other files state may be of another stream, or an estimate.
        seconds: Any = None
        if container == "mov" and self._stream.duration:
            seconds = self._stream.duration * self._stream.time_base
        elif container == "matroska" and len(self._container.streams) == 1 and self._container.duration:
            seconds = self._container.duration / av.time_base
        self._stated = None if seconds is None else int(seconds * self.samplerate)

    def __enter__(self) -> "ContainerReader":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._container.close()

    @property
    def frames(self) -> int:
        """The number of samples of each channel; if the file does not state it, all are decoded once."""
        return self.count_frames()

    def count_frames(self, most: float = math.inf) -> int:
        """`frames`, or a number greater than `most` as soon as there are more."""
        if self._stated is not None:
            return self._stated
        count = len(self._rest)
        for block in self._blocks:
            count += len(block)
            if count > most:
                break
        else:
            self._stated = count
        self._start()
        return count

    def read(self, frames: int, dtype: str = "float32", always_2d: bool = True) -> np.ndarray:
        """The next samples, `(samples, channels)` in float32, at most `frames`; none at the end."""
        waiting = len(self._rest)
        blocks = [self._rest]
        while waiting < frames and (block := next(self._blocks, None)) is not None:
            blocks.append(block)
            waiting += len(block)
        whole = np.concatenate(blocks)
        self._rest = whole[frames:]
        self._position += min(frames, waiting)
        return whole[:frames]

    def tell(self) -> int:
        """How many samples of each channel have been read."""
        return self._position

    def _start(self) -> None:
        """Opens the file at its start."""
        if self._container is not None:
            self._container.close()
        self._file.seek(0)
        with _as_runtime_errors():
            self._container = av.open(
                self._file,
                mode="r",
                format=self._format,
                container_options=_OPTIONS,
                metadata_errors="replace",
                timeout=_PATIENCE,
                io_open=_refuse,
            )
            stream = self._container.streams.best("audio")
        if stream is None:
            raise RuntimeError("it holds no sound")
        if stream.codec_context is None:  # FFmpeg has no decoder
            raise RuntimeError("its sound is coded in a way that is not supported")
        if (codec := stream.codec_context.codec.canonical_name) not in _CODECS:
            raise RuntimeError(f"its sound is coded as {codec}, which is not supported")
        self._stream = stream
        self.samplerate, self.channels = stream.codec_context.sample_rate, stream.codec_context.channels
        first = next(blocks := self._decoded(), None)
        self._blocks = blocks
        self._rest = np.zeros((0, self.channels), np.float32) if first is None else first
        self._position = 0

    def _decoded(self) -> Iterator[np.ndarray]:
        """The samples, `(samples, channels)`, frame by frame."""
        count = 0
        with _as_runtime_errors():
            for packet in self._container.demux(self._stream):
                for frame in packet.decode():
                    if not count:  # what the header states may be half of it
                        self.samplerate, self.channels = frame.sample_rate, frame.layout.nb_channels
                    elif (frame.sample_rate, frame.layout.nb_channels) != (self.samplerate, self.channels):
                        raise RuntimeError("its rate or its number of channels changes midway")
                    count += frame.samples
                    self._check_length(count, is_end=False)
                    samples = frame.to_ndarray()
                    yield as_floats(samples.T if frame.format.is_planar else samples.reshape(-1, self.channels))
        self._check_length(count, is_end=True)

    def _check_length(self, count: int, is_end: bool) -> None:
        """Compares what was decoded with what the file states."""
        if self._stated is None:
            return
        tolerance = max(_TOLERANCE * self.samplerate, _TOLERATED_SHARE * self._stated)
        if count > self._stated + tolerance:
            raise RuntimeError(f"it states {self._stated / self.samplerate:.1f} s and holds more")
        if is_end and count < self._stated - tolerance:
            raise RuntimeError(
                f"it ends after {count / self.samplerate:.1f} of {self._stated / self.samplerate:.1f} s"
            )


def _contains(file: BinaryIO, pattern: bytes) -> bool:
    end = b""
    file.seek(0)
    while block := file.read(1 << 20):
        if pattern in end + block:
            return True
        end = block[1 - len(pattern) :]
    return False


@contextlib.contextmanager
def _as_runtime_errors() -> Iterator[None]:
    try:
        yield
    except (av.FFmpegError, OSError, ValueError, MemoryError, OverflowError, NotImplementedError) as error:
        reason = str(getattr(error, "strerror", None) or error) or type(error).__name__
        raise RuntimeError(" ".join(reason.split())) from error


def _refuse(*_: Any) -> None:
    raise PermissionError("it refers to other files, which are not opened")
