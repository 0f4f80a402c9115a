"""Files as telephones and messengers record them, and QuickTime files that are put together box by box."""

import io
import struct
import zlib
from fractions import Fraction

import av
import numpy as np

# Name of the ending, FFmpeg's format and encoder, rate in Hz, channels.
MEDIA = {
    "m4a": ("ipod", "aac", 44_100, 2),
    "mp4": ("mp4", "aac", 16_000, 1),
    "mov": ("mov", "pcm_s16le", 48_000, 2),
    "3gp": ("3gp", "libopencore_amrnb", 8_000, 1),
    "webm": ("webm", "libopus", 48_000, 1),
    "mka": ("matroska", "flac", 22_050, 2),
    "aac": ("adts", "aac", 16_000, 1),
    "amr": ("amr", "libopencore_amrnb", 8_000, 1),
}


def sines(frequencies: tuple[float, ...], seconds: float, rate: int) -> np.ndarray:
    """`(channels, samples)`, one frequency each."""
    time = np.arange(int(seconds * rate)) / rate
    return np.stack([0.3 * np.sin(2 * np.pi * f * time) for f in frequencies]).astype(np.float32)


def media(
    ending: str, seconds: float = 1.0, frequencies: tuple[float, ...] = (440.0, 700.0), video: bool = False, **options
) -> bytes:
    """A file of sines, one in each channel."""
    container, codec, rate, channels = MEDIA[ending]
    sound = sines(frequencies[:channels], seconds, rate)
    layout = "stereo" if channels == 2 else "mono"
    file = io.BytesIO()
    with av.open(file, "w", format=container, options=options) as output:
        pictures = output.add_stream("mpeg4", rate=5) if video else None
        stream = output.add_stream(codec, rate=rate)
        stream.layout = layout
        if pictures:
            pictures.width = pictures.height = 32
            for _ in range(int(5 * seconds)):
                output.mux(pictures.encode(av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), "rgb24")))
            output.mux(pictures.encode(None))
        frame = av.AudioFrame.from_ndarray(sound, format="fltp", layout=layout)
        frame.sample_rate, frame.pts, frame.time_base = rate, 0, Fraction(1, rate)
        size = stream.codec_context.frame_size or 1024
        resampler = av.AudioResampler(stream.format.name, layout, rate, frame_size=size)
        for piece in [*resampler.resample(frame), *resampler.resample(None)]:
            output.mux(stream.encode(piece))
        output.mux(stream.encode(None))
    return file.getvalue()


# QuickTime, box by box


def box(kind: bytes, *content: bytes) -> bytes:
    data = b"".join(content)
    return struct.pack(">I", 8 + len(data)) + kind + data


def table(kind: bytes, *numbers: int) -> bytes:
    return box(kind, struct.pack(f">{1 + len(numbers)}I", 0, *numbers))


FILE_TYPE = box(b"ftyp", b"qt  \0\0\0\0qt  ")
WITHIN = box(b"dref", struct.pack(">II", 0, 1), box(b"url ", struct.pack(">I", 1)))


def elsewhere(path: str) -> bytes:
    """A data reference to another file, as an alias of the Macintosh."""
    name = path.encode()
    padded = name + b"\0" * (len(name) % 2)
    record = b"\0" * 10 + b"\4disk".ljust(28, b"\0") + b"\0" * 12 + b"\4" + b"name".ljust(63, b"\0")
    record += b"\0" * 16 + struct.pack(">hh", 1, 1) + b"\0" * 16
    for kind in (2, 18):
        record += struct.pack(">hH", kind, len(name)) + padded
    return box(b"dref", struct.pack(">II", 0, 1), box(b"alis", b"\0" * 4, record, struct.pack(">hh", -1, 0)))


def quicktime(samples: bytes, reference: bytes = WITHIN, offset: int | None = None, count: int | None = None) -> bytes:
    """A file of 16-bit samples at 16 kHz; `count` is how many it claims, and `offset` where they are."""
    claimed = len(samples) // 2 if count is None else count
    matrix = struct.pack(">9i", 65536, 0, 0, 0, 65536, 0, 0, 0, 1 << 30)
    duration = min(claimed, 2**31 - 1)

    def index(start: int) -> bytes:
        coding = struct.pack(">HHHHI", 1, 16, 0, 0, 16_000 << 16)
        sample_table = box(
            b"stbl",
            box(b"stsd", struct.pack(">II", 0, 1), box(b"sowt", b"\0" * 6, b"\0\1", b"\0" * 8, coding)),
            *(table(b"stts", 1, claimed, 1), table(b"stsc", 1, 1, claimed, 1)),
            *(table(b"stsz", 2, claimed), table(b"stco", 1, start)),
        )
        parts = box(b"minf", box(b"smhd", b"\0" * 8), box(b"dinf", reference), sample_table)
        media_header = box(b"mdhd", struct.pack(">IIIIIHH", 0, 0, 0, 16_000, duration, 0, 0))
        handler = box(b"hdlr", b"\0" * 4, b"mhlrsoun", b"\0" * 13)
        track = box(b"tkhd", struct.pack(">IIIIII", 7, 0, 0, 1, 0, duration), b"\0" * 16, matrix, b"\0" * 8)
        movie = struct.pack(">IIIIIIH", 0, 0, 0, 16_000, duration, 65536, 256)
        header = box(b"mvhd", movie, b"\0" * 10, matrix, b"\0" * 24, struct.pack(">I", 2))
        return box(b"moov", header, box(b"trak", track, box(b"mdia", media_header, handler, parts)))

    start = len(FILE_TYPE) + len(index(0)) + 8 if offset is None else offset
    return FILE_TYPE + index(start) + box(b"mdat", samples)


def reference_movie(address: str) -> bytes:
    """A file that consists of an address."""
    data = address.encode() + b"\0"
    reference = box(b"rdrf", b"\0" * 4, b"url ", struct.pack(">I", len(data)), data)
    return FILE_TYPE + box(b"moov", box(b"rmra", box(b"rmda", reference)))


def compressed_index(megabytes: int) -> bytes:
    """A file whose index is compressed and grows to this size."""
    content = zlib.compress(bytes(megabytes * 1_000_000), 9)
    size = struct.pack(">I", megabytes * 1_000_000)
    return FILE_TYPE + box(b"moov", box(b"cmov", box(b"dcom", b"zlib"), box(b"cmvd", size, content)))


def playlist(address: str) -> bytes:
    """An HLS playlist of one entry."""
    return f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{address}\n#EXT-X-ENDLIST\n".encode()


def concatenation(address: str) -> bytes:
    """A script of FFmpeg's that names a file."""
    return f"ffconcat version 1.0\nfile '{address}'\n".encode()
