"""Reads sound in any form as mono float32 samples at 16 kHz, whole or by blocks, and cuts long recordings at pauses.

A sound is checked here and nowhere else: functions that expect `(samples,)` at 16 kHz trust what these return.
"""

import contextlib
import io
import math
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

try:
    import soundfile
    import soxr
except ImportError:  # the model runs without them; reading and resampling sound does not
    soundfile = soxr = None

SAMPLING_RATE = 16_000
_RATES = (1_000, 768_000)
_MOST_CHANNELS = 64
# Of a whole sound in memory: 9 hours, 2.1 GB. A small file can claim or hold more.
_MOST_SAMPLES = 2**29
# Samples of all channels that are decoded at once.
_BLOCK = 2**20
# libsndfile can open other formats as well: by the file name alone, or with decoders that nobody maintains.
_FORMATS = ("WAV", "WAVEX", "RF64", "W64", "FLAC", "OGG", "MP3", "AIFF", "CAF", "AU", "NIST")
# Floats exceed 1 a little after resampling or lossy coding; far above, they are unscaled integers.
_LARGEST_FLOAT = 16.0

_FRAME = SAMPLING_RATE // 50
# A pause is 0.2 s that are 10 dB below the mean of the segment, in its last third.
_PAUSE_FRAMES = 10
_PAUSE_BELOW_MEAN = 10.0
# Cuts lie on this grid, so that lengths repeat: PyTorch caches a kernel for each length.
_GRID = SAMPLING_RATE // 10
_EARLIEST_SHARE = 2 / 3


def load_audio(source: Any, sampling_rate: int | None = None, max_seconds: float | None = None) -> np.ndarray:
    """Reads one sound as mono float32 at 16 kHz.

    Args:
        source: A path; the bytes of an audio file; samples as a NumPy array, tensor or list, `(samples,)`,
            `(samples, channels)` or `(channels, samples)` (the shorter axis is the channels), float in -1..1, or
            uint8 or a signed integer type at full scale; or a row of `datasets.Audio`: a dictionary with `array` and
            `sampling_rate`, or with `bytes` or `path`.
        sampling_rate: Rate of the samples in Hz. Required for arrays; files and rows contain it.
        max_seconds: The rest of the sound is not read.

    Returns:
        `(samples,)`, at least one sample, all finite. Channels are averaged.

    Raises:
        ValueError: The sound is empty, not finite, undecodable, too long for memory, or has an impossible rate or
            shape; the message says which.
        ImportError: soundfile and soxr are not installed, and the source is not an array at 16 kHz.
    """
    blocks, length = [], 0
    for block in _blocks(source, sampling_rate, max_seconds):
        blocks.append(block)
        length += len(block)
        if length > _MOST_SAMPLES:
            raise ValueError(
                f"{_shown(source)} is longer than {_MOST_SAMPLES / SAMPLING_RATE / 3600:.1f} hours: cut it, or read "
                "only its beginning with max_seconds."
            )
    return np.concatenate(blocks)


def read_blocks(source: Any, sampling_rate: int | None = None) -> Iterator[np.ndarray]:
    """Reads one sound as [`load_audio`] does, with the same errors, but a block of about one second at a time.

    Yields:
        `(samples,)`, mono float32 at 16 kHz. Concatenated, the blocks are the result of `load_audio`; an MP3 may
        differ slightly, as its decoder depends on where it pauses. A damaged file may raise after the first blocks.
    """
    return _blocks(source, sampling_rate, block_seconds=1.0)


@contextlib.contextmanager
def open_sound(source: str | os.PathLike[str] | bytes | bytearray) -> "Iterator[soundfile.SoundFile]":
    """Opens an audio file, or the bytes of one; only its header is read.

    Raises:
        ValueError: There is no such file, it cannot be decoded, or its rate or number of channels is impossible; the
            message says which.
        ImportError: soundfile and soxr are not installed.
    """
    _require_audio_libraries()
    name = _shown(source)
    file: Path | io.BytesIO
    if isinstance(source, (bytes, bytearray)):
        file = io.BytesIO(source)
    else:
        file = Path(source)
        try:
            exists = file.is_file()
        except OSError:  # not a valid file name, such as a long text
            exists = False
        if not exists:
            raise ValueError(f"there is no file {name}.")
    try:
        with soundfile.SoundFile(file) as sound:
            if sound.format not in _FORMATS:
                raise soundfile.SoundFileRuntimeError(f"the format {sound.format} is not supported")
            _checked_rate(sound.samplerate)
            if sound.channels > _MOST_CHANNELS:
                raise ValueError(f"{name}: the sound has more than {_MOST_CHANNELS} channels ({sound.channels}).")
            yield sound
    except (RuntimeError, TypeError) as error:
        reason = str(getattr(error, "error_string", error)).strip(" .")
        raise ValueError(
            f"{name} cannot be decoded ({reason}): give WAV, FLAC, OGG or MP3, or convert it first."
        ) from error


def cut_at_pauses(blocks: Iterable[np.ndarray], max_seconds: float) -> Iterator[np.ndarray]:
    """Cuts a recording into segments.

    A segment ends in the quietest 0.2 s of its last third if these are 10 dB or more below the segment's mean, and at
    its maximum length otherwise. The blocks of the recording, `(samples,)` each, have any length.

    Yields:
        `(samples,)`, at least one sample. Concatenated, the segments are the recording.
    """
    longest = int(max_seconds * SAMPLING_RATE)
    rest = np.zeros(0, np.float32)
    for block in blocks:
        rest = np.concatenate([rest, block])
        while len(rest) > longest:
            end = _segment_end(rest[:longest])
            yield rest[:end].copy()
            rest = rest[end:]
    if len(rest):
        yield rest.copy()


def _segment_end(samples: np.ndarray) -> int:
    """Where a segment that may contain all these samples ends."""
    earliest = int(len(samples) * _EARLIEST_SHARE)
    frames = (len(samples) - earliest) // _FRAME
    if frames < _PAUSE_FRAMES:
        return len(samples)
    tail = samples[earliest : earliest + frames * _FRAME].reshape(frames, _FRAME).astype(np.float64)
    power = np.convolve(np.square(tail).mean(1), np.full(_PAUSE_FRAMES, 1 / _PAUSE_FRAMES), mode="valid")
    quietest = int(power.argmin())
    if power[quietest] >= np.square(samples, dtype=np.float64).mean() * 10 ** (-_PAUSE_BELOW_MEAN / 10):
        return len(samples)
    middle = earliest + (quietest + _PAUSE_FRAMES // 2) * _FRAME
    return max(_GRID, round(middle / _GRID) * _GRID)


def _blocks(
    source: Any, sampling_rate: int | None, max_seconds: float | None = None, block_seconds: float = math.inf
) -> Iterator[np.ndarray]:
    """The one loader: reads, checks, mixes down and resamples a sound of any form."""
    own_rate = None
    if isinstance(source, Mapping):
        if source.get("array") is not None:
            source, own_rate = source["array"], source.get("sampling_rate")
        else:
            source = source["bytes"] if source.get("bytes") is not None else source.get("path")
    if source is None:
        raise ValueError("there is no sound: give a path, bytes or samples.")
    if isinstance(source, (str, os.PathLike, bytes, bytearray)):
        with open_sound(source) as sound:
            rate = _common_rate(sound.samplerate, sampling_rate)
            length = max(1, int(min(rate * block_seconds, _BLOCK // sound.channels)))
            blocks = _file_blocks(sound, _shown(source), length, _most(max_seconds, rate))
            yield from _at_16_khz(blocks, rate)
    else:
        samples = _as_array(source)
        rate = _common_rate(own_rate, sampling_rate)
        yield from _at_16_khz(_array_blocks(samples, rate, _most(max_seconds, rate)), rate)


def _most(max_seconds: float | None, rate: int) -> float:
    """How many samples at their original rate are read at most."""
    return math.inf if max_seconds is None else max(1, int(max_seconds * rate))


def _file_blocks(sound: "soundfile.SoundFile", name: str, length: int, most: float) -> Iterator[np.ndarray]:
    """The channels' mean, block by block, at the file's own rate."""
    count = 0
    while count < most:
        try:
            block = sound.read(int(min(most - count, length)), dtype="float32", always_2d=True)
        except RuntimeError as error:
            raise ValueError(
                f"{name} cannot be decoded after {sound.tell() / sound.samplerate:.0f} s: convert it first."
            ) from error
        if not len(block):
            break
        count += len(block)
        yield block.mean(axis=1, dtype=np.float32)
    if not count:
        raise ValueError("the sound is empty.")


def _array_blocks(samples: np.ndarray, length: int, most: float) -> Iterator[np.ndarray]:
    """The channels' mean in floats, block by block: a long array of integers is never converted as a whole."""
    if samples.ndim == 2 and samples.shape[0] <= samples.shape[1]:
        samples = samples.T
    if not samples.size:
        raise ValueError("the sound is empty.")
    end = int(min(most, len(samples)))
    for start in range(0, end, length):
        block = _as_floats(samples[start : min(start + length, end)])
        yield block.mean(axis=1, dtype=np.float32) if block.ndim == 2 else block


def _at_16_khz(blocks: Iterable[np.ndarray], rate: int) -> Iterator[np.ndarray]:
    """Checks the blocks' values and resamples them."""
    if rate == SAMPLING_RATE:
        yield from map(_checked_values, blocks)
        return
    _require_audio_libraries()
    stream, is_empty = soxr.ResampleStream(rate, SAMPLING_RATE, 1), True
    for block in blocks:
        resampled = stream.resample_chunk(_checked_values(block))
        is_empty = is_empty and not len(resampled)
        yield resampled
    end = stream.resample_chunk(np.zeros(0, np.float32), last=True)
    # A clip of a few samples must not resample to none.
    yield np.zeros(1, np.float32) if is_empty and not len(end) else end


def _checked_values(samples: np.ndarray) -> np.ndarray:
    lowest, highest = float(samples.min()), float(samples.max())
    if not (math.isfinite(lowest) and math.isfinite(highest)):
        raise ValueError("the sound holds values that are not finite (NaN or infinity).")
    largest = max(-lowest, highest)
    if largest > _LARGEST_FLOAT:
        raise ValueError(
            f"float samples must lie in -1..1 and reach {largest:.0f}: pass integers as integers, or divide by their "
            "full scale."
        )
    return samples


def _as_array(source: Any) -> np.ndarray:
    """Samples of a supported type, `(samples,)`, `(samples, channels)` or `(channels, samples)`."""
    try:
        if hasattr(source, "detach"):
            source = source.detach().cpu()
            # NumPy has no bfloat16.
            source = (source.float() if source.is_floating_point() else source).numpy()
        samples = np.asarray(source)
    except (ValueError, TypeError, RuntimeError) as error:
        raise ValueError("the samples are no rectangular array of numbers.") from error
    # A plain list of integers becomes int64; its full scale is not known.
    if samples.dtype == np.int64:
        raise ValueError("integer samples need their type, such as a NumPy array of int16.")
    if samples.dtype != np.uint8 and samples.dtype.kind not in "if":
        raise ValueError(f"samples of type {samples.dtype} are no sound: give floats or signed integers.")
    if samples.ndim not in (1, 2):
        raise ValueError(f"samples of shape {samples.shape} are neither (samples,) nor (samples, channels).")
    if samples.ndim == 2 and min(samples.shape) > _MOST_CHANNELS:
        raise ValueError(f"samples of shape {samples.shape} have more than {_MOST_CHANNELS} channels.")
    return samples


def _as_floats(samples: np.ndarray) -> np.ndarray:
    if samples.dtype == np.uint8:
        return (samples.astype(np.float32) - 128) / 128
    if samples.dtype.kind == "i":
        return (samples / -float(np.iinfo(samples.dtype).min)).astype(np.float32)
    return samples.astype(np.float32)


def _common_rate(own_rate: Any, given_rate: Any) -> int:
    """The rate of the sound, which what is given may not contradict."""
    if own_rate is None and given_rate is None:
        raise ValueError("samples need their sampling_rate (in Hz).")
    if own_rate is not None and given_rate is not None and given_rate != own_rate:
        raise ValueError(f"the sound is at {own_rate} Hz, not at the given sampling_rate={given_rate}: leave it out.")
    return _checked_rate(given_rate if own_rate is None else own_rate)


def _checked_rate(rate: Any) -> int:
    try:
        whole = int(rate)
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"sampling_rate={rate!r} is not a number in Hz.") from error
    if whole != rate:
        raise ValueError(f"sampling_rate={rate!r} is not a whole number in Hz.")
    if not _RATES[0] <= whole <= _RATES[1]:
        raise ValueError(f"sampling_rate={rate} is outside {_RATES[0]}..{_RATES[1]} Hz.")
    return whole


def _shown(source: Any) -> str:
    """What messages call a sound; a text in place of a path may be long."""
    if isinstance(source, (bytes, bytearray)):
        return "these bytes"
    if not isinstance(source, (str, os.PathLike)):
        return "the sound"
    name = str(source)
    return repr(name if len(name) <= 200 else f"{name[:100]}...{name[-50:]}")


def _require_audio_libraries() -> None:
    if soundfile is None:
        raise ImportError("Reading and resampling sound needs two libraries: pip install soundfile soxr.")
