"""Recordings of any length in bounded memory: read by blocks, cut into segments at pauses.

Two consecutive segments make a window of the model. Windows overlap by one segment: each moment but those of the first
and the last segment is heard twice, once with what is before it and once with what is after it, and a change shows in
the course within half a window. More overlap would cost more and say little more.
"""

import os
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from .audio_msfser import SAMPLING_RATE, load_audio, open_sound, read_mono

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
