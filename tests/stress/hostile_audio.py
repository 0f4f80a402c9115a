"""Hostile audio inputs: each must give a result or a `ValueError` with a sentence.

A case is made from its number alone, so that one that fails can be made again:

    cd tests && python -m stress.hostile_audio 17 18
"""

import io
import itertools
import os
import socket
import struct
import sys
import time
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import soundfile
import torch
from media import MEDIA, compressed_index, concatenation, elsewhere, media, playlist, quicktime, reference_movie
from tiny import noise, tiny_model, tiny_processor

from msfser import MsfSerFeatureExtractor
from msfser.audio_msfser import load_audio, read_blocks
from msfser.pipeline_msfser import MsfSerPipeline

from . import isolated

RATE = 16_000
# What an input may add to the address space of the process while it is read.
MOST_BYTES = 500_000_000

# Container and coding; those that people send come more often.
CODINGS = (
    *(("WAV", coding) for coding in ("PCM_16", "PCM_24", "PCM_32", "PCM_U8", "FLOAT", "DOUBLE", "ULAW", "ALAW")),
    *(("WAV", coding) for coding in ("IMA_ADPCM", "MS_ADPCM", "GSM610", "G721_32")),
    *(("FLAC", coding) for coding in ("PCM_S8", "PCM_16", "PCM_24")),
    *(("OGG", "VORBIS"), ("OGG", "OPUS"), ("MP3", "MPEG_LAYER_III")) * 3,
)
RARE_CODINGS = (
    *(("RF64", "PCM_16"), ("W64", "PCM_16"), ("WAVEX", "PCM_24"), ("AIFF", "PCM_16"), ("AIFF", "IMA_ADPCM")),
    *(("CAF", "PCM_16"), ("CAF", "ALAC_16"), ("AU", "PCM_16"), ("AU", "G721_32"), ("VOC", "PCM_16")),
    *(("NIST", "PCM_16"), ("PAF", "PCM_16"), ("SVX", "PCM_16"), ("IRCAM", "PCM_16"), ("PVF", "PCM_16")),
    *(("MAT4", "PCM_16"), ("MAT5", "DOUBLE"), ("SDS", "PCM_16"), ("XI", "DPCM_16"), ("HTK", "PCM_16")),
    *(("AVR", "PCM_16"), ("MPC2K", "PCM_16"), ("WVE", "ALAW")),
)
REFERENCES = ("an HLS playlist", "a concat script", "a reference movie", "a movie with its sound elsewhere")
# The paths that lead to a sound.
SOUNDS = ("path: a symlink", "path: a path up")
RATES = (0, 1, 7, 999, 8_000, 44_100, 768_000, 768_001, 10_000_000, 2**31 - 1, 2**32 - 1)
WORDS = (0, 1, 2, 0x7F, 0x80, 0xFF, 0x100, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)


class Case(NamedTuple):
    """One input.

    Args:
        name: What it is.
        source: What is given to `load_audio`.
        rate: Its `sampling_rate`.
    """

    name: str
    source: Any
    rate: int | None = None


@cache
def encoded(container: str, coding: str, channels: int, seconds: float = 0.3) -> bytes:
    """A short sound as a whole file."""
    samples = np.stack([noise(seconds, seed) for seed in range(channels)], axis=1)
    if container == "WVE":
        return _written(samples[:, :1], 8_000, container, coding)
    one = container in ("XI", "HTK", "SVX", "SDS") or coding in ("GSM610", "G721_32")
    return _written(samples[:, :1] if one else samples, RATE, container, coding)


def _written(samples: np.ndarray, rate: int, container: str, coding: str) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format=container, subtype=coding)
    return file.getvalue()


def _some(draw: np.random.Generator) -> tuple[str, bytearray]:
    codings = CODINGS if draw.random() < 0.8 else RARE_CODINGS
    if draw.random() < 0.3:
        ending = str(draw.choice(list(MEDIA)))
        return ending, bytearray(_recorded(ending))
    container, coding = codings[draw.integers(len(codings))]
    channels = int(draw.choice([1, 1, 2]))
    return f"{container} {coding}", bytearray(encoded(container, coding, channels))


@cache
def _recorded(ending: str) -> bytes:
    return media(ending, 0.3)


def _references(draw: np.random.Generator) -> tuple[str, bytes]:
    """A file that names another one, which nothing may open."""
    target = str(
        draw.choice(["secret.wav", "/dev/zero", "/etc/hostname", "http://127.0.0.1:9/a.wav", "../secret.wav"])
    )
    address = str(draw.choice(["", "file://", "concat:", "subfile:"])) + target
    kinds = {
        "an HLS playlist": lambda: playlist(address),
        "a concat script": lambda: concatenation(address),
        "a reference movie": lambda: reference_movie(address),
        "a movie with its sound elsewhere": lambda: quicktime(b"", elsewhere(address), offset=44, count=RATE),
        "a movie with a compressed index": lambda: compressed_index(int(draw.integers(1, 300))),
        "a movie with an endless index": lambda: quicktime(bytes(64), count=2 ** int(draw.integers(20, 32)) - 1),
    }
    name = str(draw.choice(list(kinds)))
    return f"{name} of {address}", kinds[name]()


# Files: a name of the damage, and the bytes


def _flipped(draw: np.random.Generator) -> tuple[str, bytes]:
    name, data = _some(draw)
    reach = min(len(data), int(draw.choice([16, 64, 256, len(data)])))
    for index in draw.integers(reach, size=int(draw.integers(1, 9))):
        data[index] ^= 1 << int(draw.integers(8))
    return f"{name} with flipped bits", bytes(data)


def _overwritten(draw: np.random.Generator) -> tuple[str, bytes]:
    name, data = _some(draw)
    for _ in range(int(draw.integers(1, 4))):
        width, order = draw.choice(["H", "I", "Q"]), draw.choice(["<", ">"])
        field = f"{order}{width}"
        value = int(WORDS[draw.integers(len(WORDS))]) % 2 ** (8 * struct.calcsize(field))
        index = int(draw.integers(0, min(len(data) - 8, 120)))
        struct.pack_into(field, data, index, value)
    return f"{name} with a field overwritten", bytes(data)


def _truncated(draw: np.random.Generator) -> tuple[str, bytes]:
    name, data = _some(draw)
    kept = int(draw.integers(min(len(data), 200))) if draw.random() < 0.5 else int(draw.integers(len(data)))
    return f"{name} cut after {kept} bytes", bytes(data[:kept])


def _spliced(draw: np.random.Generator) -> tuple[str, bytes]:
    (first, head), (second, tail) = _some(draw), _some(draw)
    cut = int(draw.integers(min(len(head), 400)))
    return f"{first} that goes on as {second}", bytes(head[:cut] + tail[int(draw.integers(len(tail))) :])


def _repeated(draw: np.random.Generator) -> tuple[str, bytes]:
    name, data = _some(draw)
    start = int(draw.integers(len(data)))
    piece = data[start : start + int(draw.integers(1, 64))]
    return f"{name} with a piece repeated", bytes(data[:start] + piece * int(draw.integers(1, 2000)) + data[start:])


def _scrambled(draw: np.random.Generator) -> tuple[str, bytes]:
    name, data = _some(draw)
    kept = int(draw.choice([4, 12, 44, 100]))
    return f"{name}, noise after {kept} bytes", bytes(data[:kept]) + draw.bytes(int(draw.integers(1, 4000)))


def _wav_header(draw: np.random.Generator) -> tuple[str, bytes]:
    rate = int(RATES[draw.integers(len(RATES))])
    channels = int(draw.choice([0, 1, 2, 64, 65, 1024, 65535]))
    bits = int(draw.choice([0, 1, 8, 16, 24, 32, 64, 255]))
    tag = int(draw.choice([0, 1, 3, 6, 7, 0x11, 0x31, 0x50, 0x55, 0xFFFE, 0xFFFF]))
    frame = channels * bits // 8 % 65536
    format_ = struct.pack("<HHIIHH", tag, channels, rate, rate * frame % 2**32, frame, bits)
    claimed = int(draw.choice([0, 1, 1000, 3 * 3600 * 16_000 * 2, 0x7FFFFFFF, 0xFFFFFFFF]))
    data = b"WAVEfmt " + struct.pack("<I", len(format_)) + format_ + b"data" + struct.pack("<I", claimed)
    sound = draw.bytes(int(draw.integers(1000)))
    name = f"WAV of {channels} channels at {rate} Hz, {bits} bit, tag {tag}, {claimed} bytes claimed"
    return name, b"RIFF" + struct.pack("<I", int(draw.choice([0, 36, 0xFFFFFFFF]))) + data + sound


def _flac_header(draw: np.random.Generator) -> tuple[str, bytes]:
    data = bytearray(encoded("FLAC", "PCM_16", 1))
    frames = int(draw.choice([0, 1, 3 * 3600 * RATE, 2**31, 2**36 - 1]))
    rate, channels = int(draw.choice([0, 1, 8_000, 655_350, 1_048_575])), int(draw.integers(1, 9))
    data[18:26] = (rate << 44 | (channels - 1) << 41 | 15 << 36 | frames).to_bytes(8, "big")
    return f"FLAC that claims {frames} frames of {channels} channels at {rate} Hz", bytes(data)


@cache
def long_silence() -> bytes:
    """Some hundred kilobytes that decode, at once and in float32, to more than `MOST_BYTES`."""
    return _written(np.zeros((210 * 96_000, 8), np.int16), 96_000, "FLAC", "PCM_16")


def _unusual(draw: np.random.Generator) -> tuple[str, bytes]:
    samples = noise(0.2)[:, None]
    special = float(draw.choice([np.nan, np.inf, -np.inf, 1e30, 1e300, 17.0, -0.0]))
    with_special = samples.astype(np.float64)
    with_special[int(draw.integers(len(samples)))] = special
    many = int(draw.choice([3, 63, 64, 65, 1024]))
    kinds = {
        f"a float64 WAV with {special}": (with_special, RATE, "WAV", "DOUBLE"),
        f"a float32 WAV with {special}": (with_special.astype(np.float32), RATE, "WAV", "FLOAT"),
        f"a WAV of {many} channels": (np.repeat(samples[:200], many, 1), RATE, "WAV", "PCM_24"),
        "a WAV of one sample": (samples[:1], int(draw.choice([1_000, 44_100])), "WAV", "PCM_16"),
        "a WAV without samples": (samples[:0], RATE, "WAV", "PCM_16"),
        "a FLAC of one sample": (samples[:1], RATE, "FLAC", "PCM_16"),
        "an OGG of one sample": (samples[:1], RATE, "OGG", "VORBIS"),
        "an MP3 of one sample": (samples[:1], RATE, "MP3", "MPEG_LAYER_III"),
        "a WAV at 1 Hz": (samples, 1, "WAV", "PCM_16"),
        "a WAV at 10 MHz": (samples, 10_000_000, "WAV", "PCM_16"),
        "a WAV of 24 bit": (samples, 48_000, "WAV", "PCM_24"),
        "silence": (samples * 0, RATE, "WAV", "PCM_16"),
    }
    name = str(draw.choice(list(kinds)))
    with np.errstate(over="ignore"):
        return name, _written(*kinds[name])


def _no_sound(draw: np.random.Generator) -> tuple[str, bytes]:
    kinds = {
        "nothing": b"",
        "one byte": draw.bytes(1),
        "noise": draw.bytes(int(draw.integers(2, 5000))),
        "text": b"Dear reader, this is no sound. " * int(draw.integers(1, 50)),
        "zeros": bytes(int(draw.integers(1, 5000))),
        "a ZIP": b"PK\x03\x04" + draw.bytes(500),
        "an MP4": b"\0\0\0\x20ftypM4A \0\0\0\0" + draw.bytes(500),
        "a PNG": b"\x89PNG\r\n\x1a\n" + draw.bytes(500),
        "a playlist": b"#EXTM3U\nfile:///etc/hostname\n",
        "ID3 that claims 256 MB": b"ID3\x04\0\0\x7f\x7f\x7f\x7f" + draw.bytes(100),
        "MP3 frames of noise": b"".join(b"\xff\xfb\x90\x64" + draw.bytes(413) for _ in range(9)),
        "RIFF in RIFF": b"RIFF\xff\xff\xff\xffWAVE" * int(draw.integers(1, 200)),
        "chunks without end": b"RIFF\xff\xff\xff\xffWAVE" + b"LIST\0\0\0\0" * int(draw.integers(1, 500)),
        "an OGG page without end": b"OggS" * int(draw.integers(1, 500)),
    }
    name = str(draw.choice(list(kinds)))
    return name, kinds[name]


FILES: tuple[Callable[[np.random.Generator], tuple[str, bytes]], ...] = (
    *(_flipped, _overwritten, _truncated, _flipped, _overwritten, _spliced, _repeated, _scrambled),
    *(_wav_header, _flac_header, _unusual, _no_sound, _references),
)
SUFFIXES = (
    ".wav",
    ".m4a",
    ".mov",
    ".webm",
    ".m3u8",
    ".mp3",
    ".flac",
    ".ogg",
    ".vox",
    ".gsm",
    ".au",
    ".snd",
    ".raw",
    ".sd2",
    ".txt",
    "",
)


# What is no file


def _samples(draw: np.random.Generator) -> Case:
    sound = noise(0.1)
    loop: list = []
    loop.append(loop)
    odd = {
        "NaN": (np.array([0.1, np.nan]), RATE),
        "infinity": (np.array([0.1, np.inf], np.float16), RATE),
        "at 1 Hz": (sound, 1),
        "at 10 MHz": (sound, 10_000_000),
        "64 channels": (np.zeros((64, 100), np.float32), RATE),
        "65 channels": (np.zeros((65, 100), np.float32), RATE),
        "float64": (sound.astype(np.float64), 44_100),
        "int8": ((sound * 100).astype(np.int8), 8_000),
        "int32": ((sound * 2**30).astype(np.int32), 48_000),
        "uint16": (sound.astype(np.uint16), RATE),
        "no sample": (sound[:0], RATE),
        "one sample": (sound[:1], 768_000),
        "no channel": (np.zeros((0, 10), np.float32), RATE),
        "three axes": (np.zeros((2, 3, 4)), RATE),
        "no axis": (np.float32(1), RATE),
        "a list of lists": ([[0.1, 0.2], [0.1]], RATE),
        "a list in itself": (loop, RATE),
        "a deep list": (_deep(100), RATE),
        "texts": (np.array(["a", "b"]), RATE),
        "dates": (np.array([1, 2], "datetime64[s]"), RATE),
        "spans of time": (np.array([1, 2], "timedelta64[s]"), RATE),
        "records": (np.zeros(3, [("left", "f4"), ("right", "f4")]), RATE),
        "masked": (np.ma.masked_all(8, np.float32), RATE),
        "complex": (sound.astype(complex), RATE),
        "huge numbers": (np.array([1e300, -1e300]), RATE),
        "a sparse tensor": (torch.eye(3).to_sparse(), RATE),
        "a tensor without memory": (torch.zeros(3, device="meta"), RATE),
        "a tensor of bfloat16": (torch.from_numpy(sound).bfloat16(), RATE),
        "a rate of NaN": (sound, float("nan")),
        "a rate of text": (sound, "16000"),
        "a rate of many": (sound, np.array([RATE, RATE])),
        "a row with a contradicting rate": ({"array": sound, "sampling_rate": 8_000}, RATE),
        "a row with rates": ({"array": sound, "sampling_rate": [1, 2]}, RATE),
        "a row without anything": ({"array": None, "bytes": None, "path": None}, RATE),
        "a row with a number as path": ({"path": 3}, None),
        "a row with text as bytes": ({"bytes": "RIFF"}, None),
        "a number": (3, RATE),
        "an object": (object(), RATE),
        "a function": (len, RATE),
        "none": (None, RATE),
        "a set": ({0.1, 0.2}, RATE),
        "true": (True, RATE),
    }
    name = str(draw.choice(list(odd)))
    return Case(f"samples: {name}", *odd[name])


def _deep(levels: int) -> list:
    made: list = [0.1]
    for _ in range(levels):
        made = [made]
    return made


def _path(draw: np.random.Generator, folder: Path) -> Case:
    """A path or an address. `secret.wav` beside the folder is a sound that nothing may read unasked."""
    sound, secret = folder / "sound.wav", folder.parent / "secret.wav"
    for file in (sound, secret):
        if not file.is_file():
            file.write_bytes(encoded("WAV", "PCM_16", 1))
    paths = {
        "a symlink": _made(folder / "link.wav", lambda path: path.symlink_to(sound)),
        "a symlink to itself": _made(folder / "loop.wav", lambda path: path.symlink_to(path)),
        "a symlink to nothing": _made(folder / "dangling.wav", lambda path: path.symlink_to(folder / "nothing")),
        "a symlink to a device": _made(folder / "zero.wav", lambda path: path.symlink_to("/dev/zero")),
        "a pipe": _made(folder / "pipe.wav", os.mkfifo),
        "a socket": _made(folder / "socket.wav", _bound),
        "a folder": folder,
        "a path up": f"{folder}/../{folder.name}/sound.wav",
        "a path far up": "../" * 40 + "etc/hostname",
        "a device": str(draw.choice(["/dev/zero", "/dev/random", "/dev/full", "/dev/null", "/dev/stdin", "/dev/tty"])),
        "a file of the kernel": str(draw.choice(["/proc/self/mem", "/proc/self/environ", "/proc/self/maps"])),
        "a nul": "sound.wav\0.txt",
        "half a character": "\ud800.wav",
        "a long name": "a" * 5000,
        "a long text": "It was a fine morning and nobody knew why. " * 3000,
        "no name": "",
        "a scheme": str(draw.choice(["file", "FILE", "http", "ftp", "data", "jar", "gopher", "s3", "hf", "c"]))
        + "://"
        + str(draw.choice(["", "localhost", "localhost:1"]))
        + str(secret),
        "data": "data:audio/wav;base64,UklGRg==",
        "an address without a host": str(
            draw.choice(["https://", "https:///a.wav", "https://[::1/a", "https://a b/"])
        ),
        "an address with a key": "https://user:pass@[nonsense]/a.wav",
        "an address with a wrong port": "https://127.0.0.1:99999/a.wav",
        "an address in other letters": "https://127.0.0.1:1/\u00e4\n.wav",
        "a share": "\\\\server\\share\\a.wav",
        "a variable": "$HOME/secret.wav",
        "home": "~/secret.wav",
        "a command": "sound.wav | cat /etc/hostname",
    }
    name = str(draw.choice(list(paths)))
    return Case(f"path: {name}", paths[name])


def _made(path: Path, make: Callable[[Path], Any]) -> Path:
    if not os.path.lexists(path):
        make(path)
    return path


def _bound(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as one:
        # The whole path may be too long for a socket.
        here = os.open(path.parent, os.O_DIRECTORY)
        try:
            one.bind(f"/proc/self/fd/{here}/{path.name}")
        finally:
            os.close(here)


def case(number: int, folder: Path) -> Case:
    """The input with a number; files that it needs are made in `folder`, whose parent gets a secret."""
    draw = np.random.default_rng([7, number])
    if number % 20 == 18:
        return _samples(draw)
    if number % 20 == 19:
        return _path(draw, folder)
    if number % 1000 == 3:
        name, data = "FLAC of little size that holds more than the bound", long_silence()
    else:
        name, data = FILES[number % 20 % len(FILES)](draw)
    if number // 20 % 2:  # so that each kind comes both ways
        return Case(name, data)
    path = folder / f"{number}{SUFFIXES[draw.integers(len(SUFFIXES))]}"
    path.write_bytes(data)
    return Case(f"{name} as {path.suffix or 'no'} file", path)


# How each is read


class Reader:
    """Gives inputs to everything that reads sound."""

    def __init__(self):
        # The limit is for reading it, not for making it.
        long_silence()
        model, processor = tiny_model(), tiny_processor()
        ser = MsfSerPipeline(model=model, processor=processor)
        mels = MsfSerFeatureExtractor(kind="log_mel", feature_size=20)
        self.ways: dict[str, Callable[[Case], np.ndarray]] = {
            "load_audio": lambda case: load_audio(case.source, case.rate),
            "extractor": lambda case: mels(case.source, case.rate)["input_features"],
            "blocks": lambda case: np.concatenate(
                list(itertools.islice(read_blocks(case.source, case.rate), 20)) or [np.zeros(0, np.float32)]
            ),
            "pipeline": lambda case: _numbers(
                ser(case.source, sampling_rate=case.rate, recognizer=None, describer=None)
            ),
        }

    def __call__(self, number: int, folder: Path) -> isolated.Outcome:
        """Reads the input with a number in every way."""
        defect, given, seconds = "", set(), 0.0
        one = case(number, folder)
        # An address that cannot be reached is not a defect.
        refusals = (ValueError, OSError) if str(one.source).startswith("https://") else (ValueError,)
        for way, read in self.ways.items():
            start = time.process_time()
            try:
                output = read(one)
                given.add("result")
                if not (output.dtype == np.float32 and output.size and np.isfinite(output).all()):
                    defect = f"{way}: {output.dtype} {output.shape} is no result"
            except refusals as error:
                given.add("refused")
                if not isolated.is_sentence(error):
                    defect = f"{way}: {type(error).__name__} without a sentence: {str(error)[:300]!r}"
            except Exception as error:
                defect = f"{way}: {type(error).__name__}: {str(error)[:300]}"
            seconds = max(seconds, time.process_time() - start)
        must_not = one.name.startswith("path: ") and one.name not in SOUNDS
        if (must_not or one.name.split(" of ")[0] in REFERENCES) and "result" in given:
            defect = "it read what it must not"
        return isolated.Outcome(number, one.name, "/".join(sorted(given)), seconds, defect)


def _numbers(result: dict[str, Any] | Iterable[dict[str, Any]]) -> np.ndarray:
    results = [result] if isinstance(result, dict) else list(result)
    numbers = np.array([[one[label] for label in ("valence", "arousal", "dominance")] for one in results], np.float32)
    return np.where((numbers >= 0) & (numbers <= 1), numbers, np.nan)


if __name__ == "__main__":
    isolated.answer(Reader(), MOST_BYTES, *map(int, sys.argv[1:3]))
