"""Sound in any form to what the models hear: mono float32 at 16 kHz, in -1..1.

Recordings of any length in bounded memory: read by blocks, cut into segments at pauses.

Two consecutive segments make a window of the model. Windows overlap by one segment: each moment but those of the first
and the last segment is heard twice, once with what is before it and once with what is after it, and a change shows in
the course within half a window. More overlap would cost more and say little more.
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
# Mono at the file's own rate: 3 hours at 48 kHz, 9 hours at 16 kHz, 2.1 GB. A small file can claim or hold more.
_MOST_SAMPLES = 2**29
# Samples of all channels that are decoded at once.
_BLOCK = 2**20
# libsndfile opens some others too: by the name of a file, whatever is in it, or with decoders that nobody maintains.
_FORMATS = ("WAV", "WAVEX", "RF64", "W64", "FLAC", "OGG", "MP3", "AIFF", "CAF", "AU", "NIST")
# Floats reach a little beyond 1 after resampling or lossy coding; far beyond, they are integers in disguise.
_LARGEST_FLOAT = 16.0


def load_audio(source: Any, sampling_rate: int | None = None, max_seconds: float | None = None) -> np.ndarray:
    """Reads one sound as mono float32 at 16 kHz.

    Args:
        source: A path; the bytes of an audio file; samples as a NumPy array, tensor or list, `(samples,)`,
            `(samples, channels)` or `(channels, samples)` (the shorter axis is the channels), float in -1..1, or
            uint8 or a signed integer type at full scale; or a row of `datasets.Audio`: a dictionary with `array` and
            `sampling_rate`, or with `bytes` or `path`.
        sampling_rate: Rate of the samples in Hz; needed for arrays, and taken from the file or the row otherwise.
        max_seconds: What follows is not read.

    Returns:
        `(samples,)`, at least one sample, finite.

    Raises:
        ValueError: The sound is empty, not finite, undecodable, of an impossible rate or shape, or (without
            `max_seconds`) too long for the memory; the sentence says which.
        ImportError: soundfile and soxr are not installed, and the source is not already mono at 16 kHz.
    """
    known_rate = None
    if isinstance(source, dict):
        if source.get("array") is not None:
            source, known_rate = source["array"], source.get("sampling_rate")
        else:
            source = source["bytes"] if source.get("bytes") is not None else source.get("path")
    if source is None:
        raise ValueError("there is no sound: give a path, bytes or samples.")
    if isinstance(source, (str, os.PathLike, bytes, bytearray)):
        samples, known_rate = _decode(source, max_seconds)
    else:
        samples = _mono(_as_samples(source))
    if known_rate is None and sampling_rate is None:
        raise ValueError("samples need their sampling_rate (in Hz).")
    if known_rate is not None and sampling_rate is not None and sampling_rate != known_rate:
        raise ValueError(
            f"the sound is at {known_rate} Hz, not at the given sampling_rate={sampling_rate}: leave it out."
        )
    sampling_rate = _checked_rate(sampling_rate if known_rate is None else known_rate)
    if max_seconds is not None:
        samples = samples[: max(1, int(max_seconds * sampling_rate))]
    if samples.size == 0:
        raise ValueError("the sound is empty.")
    # Of a long sound no second copy is made: NaN is its own minimum.
    lowest, highest = float(samples.min()), float(samples.max())
    if not (math.isfinite(lowest) and math.isfinite(highest)):
        raise ValueError("the sound holds values that are not finite (NaN or infinity).")
    largest = max(-lowest, highest)
    if largest > _LARGEST_FLOAT:
        raise ValueError(
            f"float samples must lie in -1..1 and reach {largest:.0f}: pass integers as integers, or divide by their "
            "full scale."
        )
    if sampling_rate != SAMPLING_RATE:
        _require_audio_libraries()
        # A clip of a few samples must not resample to none.
        samples = soxr.resample(samples, sampling_rate, SAMPLING_RATE)
        samples = samples if samples.size else np.zeros(1, np.float32)
    return np.ascontiguousarray(samples, dtype=np.float32)


def _decode(source: str | os.PathLike | bytes | bytearray, max_seconds: float | None) -> tuple[np.ndarray, int]:
    """A file's samples, mono, and its rate."""
    with open_sound(source) as sound:
        most = _MOST_SAMPLES if max_seconds is None else max(1, int(max_seconds * sound.samplerate))
        blocks, count = [], 0
        while count < most and len(block := read_mono(sound, most - count)):
            blocks.append(block)
            count += len(block)
        if max_seconds is None and count == most and len(read_mono(sound, 1)):
            raise ValueError(
                f"{_shown(source)} is longer than {most / sound.samplerate / 3600:.1f} hours: cut it, or read the "
                "start of it with max_seconds."
            )
        samples = blocks[0] if len(blocks) == 1 else np.concatenate(blocks or [np.zeros(0, np.float32)])
        return samples, sound.samplerate


@contextlib.contextmanager
def open_sound(source: str | os.PathLike | bytes | bytearray) -> "Iterator[soundfile.SoundFile]":
    """Opens a file of sound, or the bytes of one, for [`read_mono`].

    Raises:
        ValueError: There is no such file, it cannot be decoded (here or while it is read), or its rate or number of
            channels is impossible; the sentence says which.
        ImportError: soundfile and soxr are not installed.
    """
    _require_audio_libraries()
    name = _shown(source)
    if isinstance(source, (bytes, bytearray)):
        file = io.BytesIO(source)
    else:
        file = Path(source)
        try:
            exists = file.is_file()
        except OSError:  # no name of a file, such as a whole text
            exists = False
        if not exists:
            raise ValueError(f"there is no file {name}.")
    try:
        with soundfile.SoundFile(file) as sound:
            if sound.format not in _FORMATS:
                raise soundfile.SoundFileRuntimeError("its format is not one of those that are read")
            _checked_rate(sound.samplerate)
            if sound.channels > _MOST_CHANNELS:
                raise ValueError(f"{name}: the sound has more than {_MOST_CHANNELS} channels ({sound.channels}).")
            yield sound
    except (RuntimeError, TypeError) as error:
        reason = str(getattr(error, "error_string", error)).strip(" .")
        raise ValueError(
            f"{name} cannot be decoded ({reason}): give WAV, FLAC, OGG or MP3, or convert it first."
        ) from error


def read_mono(sound: "soundfile.SoundFile", most: int) -> np.ndarray:
    """The next samples of an open file, the mean of its channels.

    Args:
        sound: From [`open_sound`].
        most: No more than these; there may be fewer though the file goes on.

    Returns:
        `(samples,)` float32; none at the end of the file.
    """
    samples = sound.read(min(most, max(1, _BLOCK // sound.channels)), dtype="float32", always_2d=True)
    return _mean_of_channels(samples, channel_axis=1)


def _shown(source: str | os.PathLike | bytes | bytearray) -> str:
    """What messages call a file; a text in place of a path may be long."""
    if isinstance(source, (bytes, bytearray)):
        return "these bytes"
    name = str(source)
    return repr(name if len(name) <= 200 else f"{name[:100]}...{name[-50:]}")


def _as_samples(source: Any) -> np.ndarray:
    try:
        if hasattr(source, "detach"):
            source = source.detach().cpu()
            # NumPy has no bfloat16.
            source = (source.float() if source.is_floating_point() else source).numpy()
        samples = np.asarray(source)
    except (ValueError, TypeError, RuntimeError) as error:
        raise ValueError("the samples are no rectangular array of numbers.") from error
    if samples.dtype == np.uint8:
        return (samples.astype(np.float32) - 128) / 128
    if np.issubdtype(samples.dtype, np.signedinteger):
        # A plain list of integers comes as int64; its full scale is not known.
        if samples.dtype == np.int64:
            raise ValueError("integer samples need their type, such as a NumPy array of int16.")
        return (samples / -float(np.iinfo(samples.dtype).min)).astype(np.float32)
    if not np.issubdtype(samples.dtype, np.floating):
        raise ValueError(f"samples of type {samples.dtype} are no sound: give floats or signed integers.")
    return samples.astype(np.float32)


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


def _mono(samples: np.ndarray) -> np.ndarray:
    if samples.ndim == 1:
        return samples
    if samples.ndim != 2:
        raise ValueError(f"samples of shape {samples.shape} are neither (samples,) nor (samples, channels).")
    if 0 in samples.shape:
        raise ValueError("the sound is empty.")
    return _mean_of_channels(samples, channel_axis=int(np.argmin(samples.shape)))


def _mean_of_channels(samples: np.ndarray, channel_axis: int) -> np.ndarray:
    if samples.shape[channel_axis] > _MOST_CHANNELS:
        raise ValueError(f"samples of shape {samples.shape} have more than {_MOST_CHANNELS} channels.")
    return samples.mean(axis=channel_axis, dtype=np.float32)


def _require_audio_libraries() -> None:
    if soundfile is None:
        raise ImportError("Reading and resampling sound needs two libraries: pip install soundfile soxr.")


try:
    import soundfile
    import soxr
except ImportError:  # load_audio says so
    soundfile = soxr = None

_BLOCK_SECONDS = 1.0
_FRAME = SAMPLING_RATE // 50
# A pause is 0.2 s that are 10 dB below the mean of the segment, in its last third.
_PAUSE_FRAMES = 10
_PAUSE_BELOW_MEAN = 10.0
# Cuts lie on this grid, so that lengths repeat: PyTorch keeps a prepared kernel for each length that it has met.
_GRID = SAMPLING_RATE // 10
_EARLIEST_SHARE = 2 / 3


def read_blocks(source: Any, sampling_rate: int | None = None) -> Iterator[np.ndarray]:
    """Reads what [`load_audio`] reads, a block of about a second at a time.

    Args:
        source: As in [`load_audio`].
        sampling_rate: As in [`load_audio`].

    Yields:
        `(samples,)`, mono float32 at 16 kHz; together they are what `load_audio` gives.

    Raises:
        ValueError: As in [`load_audio`]; a file may also break off later.
        ImportError: As in [`load_audio`].
    """
    load_audio(source, sampling_rate, _BLOCK_SECONDS)
    if isinstance(source, Mapping):
        if source.get("array") is not None:
            source, sampling_rate = source["array"], source.get("sampling_rate") or sampling_rate
        else:
            source = source["bytes"] if source.get("bytes") is not None else source.get("path")
    if isinstance(source, (str, os.PathLike, bytes, bytearray)):
        yield from _file_blocks(source)
    else:
        yield from _resampled(_array_blocks(source, int(sampling_rate * _BLOCK_SECONDS)), int(sampling_rate))


def cut_at_pauses(blocks: Iterable[np.ndarray], max_seconds: float) -> Iterator[np.ndarray]:
    """Cuts a recording into segments.

    A segment ends in the quietest 0.2 s of its last third if these are 10 dB or more below the segment's mean, and at
    its greatest length otherwise.

    Args:
        blocks: The recording, `(samples,)` each, of any length.
        max_seconds: No segment is longer.

    Yields:
        `(samples,)`, one or more; put together they are the recording, sample by sample.
    """
    longest = int(max_seconds * SAMPLING_RATE)
    rest = np.zeros(0, np.float32)
    for block in blocks:
        rest = np.concatenate([rest, block])
        while len(rest) > longest:
            end = _end(rest[:longest])
            yield rest[:end].copy()
            rest = rest[end:]
    if len(rest):
        yield rest.copy()


def _end(samples: np.ndarray) -> int:
    """Where a segment that may have all these samples ends."""
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


def _file_blocks(source: str | os.PathLike | bytes | bytearray) -> Iterator[np.ndarray]:
    with open_sound(source) as sound:
        yield from _resampled(_decoded(sound), sound.samplerate)


def _decoded(sound: "soundfile.SoundFile") -> Iterator[np.ndarray]:
    while True:
        try:
            block = read_mono(sound, int(sound.samplerate * _BLOCK_SECONDS))
        except RuntimeError as error:
            raise ValueError(
                f"the recording cannot be decoded behind {sound.tell() / sound.samplerate:.0f} s: convert it first."
            ) from error
        if not len(block):
            return
        yield block


def _array_blocks(source: Any, length: int) -> Iterator[np.ndarray]:
    """An array or tensor, mono and in floats; only a block of it is ever converted."""
    samples = source if hasattr(source, "shape") else np.asarray(source)
    if samples.ndim == 2 and samples.shape[0] < samples.shape[1]:
        samples = samples.T
    for start in range(0, len(samples), length):
        block = samples[start : start + length]
        # The rate is not the true one here: nothing is to be resampled yet.
        if samples.ndim == 1:
            yield load_audio(block, SAMPLING_RATE)
        else:
            channels = [load_audio(block[:, i], SAMPLING_RATE) for i in range(samples.shape[1])]
            yield np.mean(channels, axis=0, dtype=np.float32)


def _resampled(blocks: Iterable[np.ndarray], rate: int) -> Iterator[np.ndarray]:
    if rate == SAMPLING_RATE:
        yield from (load_audio(block, SAMPLING_RATE) for block in blocks)
        return
    stream, is_empty = soxr.ResampleStream(rate, SAMPLING_RATE, 1), True
    for block in blocks:
        resampled = stream.resample_chunk(load_audio(block, SAMPLING_RATE))
        is_empty = is_empty and not len(resampled)
        yield resampled
    end = stream.resample_chunk(np.zeros(0, np.float32), last=True)
    # As in load_audio: a clip of a few samples must not resample to none.
    yield np.zeros(1, np.float32) if is_empty and not len(end) else end
