"""Reads sound in any form as mono float32 samples at 16 kHz, whole or by blocks, and cuts long recordings at pauses.

A sound is checked here and nowhere else: functions that expect `(samples,)` at 16 kHz trust what these return.
"""

import contextlib
import io
import math
import os
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, BinaryIO, Protocol

import numpy as np
import torch

from .containers_msfser import ContainerReader, MissingPyAVError, container_of
from .sound_forms_msfser import (
    MOST_CHANNELS,
    SoundForm,
    array_blocks,
    check_batch,
    checked_rate,
    checked_samples,
    common_rate,
    form_of,
    is_bytes,
    is_decoder,
    is_file,
    is_number,
    is_rate_and_samples,
    is_samples,
    rereadable,
)

try:
    import soundfile
    import soxr
except ImportError:  # the model runs without them; reading and resampling sound does not
    soundfile = soxr = None

SAMPLING_RATE = 16_000
# Of a whole sound in memory: 9 hours, 2.1 GB. A small file can claim or hold more.
_MOST_SAMPLES = 2**29
# Samples of all channels that are decoded at once.
_BLOCK = 2**20
# libsndfile can open other formats as well: by the file name alone, or with decoders that nobody maintains.
_FORMATS = ("WAV", "WAVEX", "RF64", "W64", "FLAC", "OGG", "MP3", "AIFF", "CAF", "AU", "NIST")
# Floats exceed 1 a little after resampling or lossy coding; far above, they are unscaled integers.
_LARGEST_FLOAT = 16.0

_PAUSE_FRAME = SAMPLING_RATE // 50
# A pause is 0.2 s that are 10 dB below the mean of the segment, in its last third.
_PAUSE_FRAMES = 10
_PAUSE_BELOW_MEAN = 10.0
# Cuts lie on this grid, so that lengths repeat: PyTorch caches a kernel for each length.
_GRID = SAMPLING_RATE // 10
_EARLIEST_SHARE = 2 / 3


class SoundReader(Protocol):
    """An opened sound file: `soundfile.SoundFile`, or [`ContainerReader`] with the same attributes."""

    @property
    def samplerate(self) -> int:
        """Sampling rate of the file, in Hz."""

    @property
    def channels(self) -> int:
        """The number of channels."""

    @property
    def frames(self) -> int:
        """The number of samples of each channel."""

    def read(self, frames: int, dtype: str = "float32", always_2d: bool = True) -> np.ndarray:
        """The next samples, `(samples, channels)`, at most `frames`; none at the end."""

    def tell(self) -> int:
        """How many samples of each channel have been read."""


def load_audio(
    source: Any,
    sampling_rate: int | None = None,
    max_seconds: float | None = None,
    channels_first: bool | None = None,
    channel: int | None = None,
) -> np.ndarray:
    """Reads one sound as mono float32 at 16 kHz.

    Args:
        source: One of

            - a path; the bytes of a file (`bytes`, `bytearray` or `memoryview`); or a file-like object, opened in
              binary mode, which is read from its position on and returned there;
            - samples as a NumPy array, tensor or list, `(samples,)`, or of two axes with `channels_first`; float in
              -1..1, or uint8 or a signed integer type at full scale;
            - a tuple `(rate, samples)` as in Gradio, `(samples,)` or `(samples, channels)`;
            - a dictionary with `array` or `raw`, `(samples,)` or `(channels, samples)`, and `sampling_rate`; or with
              `bytes` or `path`;
            - a decoder of torchcodec, as in a `datasets.Audio` column, or its `AudioSamples`.

            WAV, FLAC, OGG, MP3, AIFF, CAF, AU and NIST are read by soundfile; MP4 (m4a, mov, 3gp), Matroska (mka, mkv,
            webm), AAC and AMR by PyAV, if it is installed. The content decides, not the name.
        sampling_rate: Rate of the samples in Hz. Required for arrays; all other forms contain it.
        max_seconds: The rest of the sound is not read.
        channels_first: Whether an array of two axes is `(channels, samples)` rather than `(samples, channels)`. It
            overrides the order of a tuple or dictionary, but not that of a decoder.
        channel: The one channel that is used, from 0 on; by default the mean of all.

    Returns:
        `(samples,)`, at least one sample, all finite.

    Raises:
        ValueError: The sound is empty, not finite, undecodable, too long for memory, or has an impossible rate, shape
            or channel; the message says which. Also if reading it needs PyAV.
        ImportError: soundfile and soxr are not installed, and the source is not an array at 16 kHz.
    """
    blocks, length = [], 0
    for block in _blocks(source, sampling_rate, channels_first, channel, max_seconds):
        blocks.append(block)
        length += len(block)
        if length > _MOST_SAMPLES:
            raise ValueError(
                f"{_shown(source)} is longer than {_MOST_SAMPLES / SAMPLING_RATE / 3600:.1f} hours: cut it, or read "
                "only its beginning with max_seconds."
            )
    return np.concatenate(blocks)


def read_blocks(
    source: Any, sampling_rate: int | None = None, channels_first: bool | None = None, channel: int | None = None
) -> Iterator[np.ndarray]:
    """Reads one sound as [`load_audio`] does, with the same errors, but a block of about one second at a time.

    Yields:
        `(samples,)`, mono float32 at 16 kHz. Concatenated, the blocks are the result of `load_audio`. A damaged file
        may raise after the first blocks.
    """
    return _blocks(source, sampling_rate, channels_first, channel, block_seconds=1.0)


def stream_blocks(chunks: Iterable[Any], sampling_rate: int, channel: int | None = None) -> Iterator[np.ndarray]:
    """Reads a stream as [`load_audio`] does a whole sound; where its chunks end has no effect.

    Args:
        chunks: The samples one after the other, each array as in [`load_audio`], `(samples,)` or `(samples,
            channels)`; one without samples is left out. The first has at least as many samples as channels.
        sampling_rate: Their rate, in Hz.
        channel: The one channel that is used, from 0 on; by default the mean of all.

    Yields:
        `(samples,)`, mono float32 at 16 kHz, no more than about a second at a time.

    Raises:
        ValueError: A chunk cannot be used, or the stream has no sample.
        ImportError: soundfile and soxr are not installed, and the rate is not 16 kHz.
    """
    rate = checked_rate(sampling_rate)
    blocks = _at_16_khz(_mono_chunks(chunks, rate, channel), rate)
    yield from (block for block in blocks if len(block))


def _mono_chunks(chunks: Iterable[Any], rate: int, channel: int | None) -> Iterator[np.ndarray]:
    known = 0  # channels of the stream, as far as a chunk leaves no doubt
    is_empty = True
    for chunk in chunks:
        if not isinstance(chunk, (np.ndarray, torch.Tensor)):
            raise ValueError(f"a chunk of the stream is {type(chunk).__name__}, not an array of samples.")
        if chunk.ndim and not len(chunk):
            continue
        if chunk.ndim == 2 and len(chunk) < chunk.shape[1] != known:
            raise ValueError(
                f"a chunk of shape {tuple(chunk.shape)} has more channels than samples, but chunks are (samples, "
                "channels): give chunk.T, or a longer first chunk."
            )
        samples = checked_samples(SoundForm(chunk, False, rate, channels_first=False, is_order_known=True))
        known = 1 if samples.ndim == 1 else samples.shape[1]
        _check_channel(channel, known)
        is_empty = False
        for block in array_blocks(samples, rate, math.inf):
            yield _mono(block, channel)
    if is_empty:
        raise ValueError("the stream ended without a sample: check what it reads from.")


def count_channels(source: Any, sampling_rate: int | None = None, channels_first: bool | None = None) -> int:
    """The number of channels of a sound that [`load_audio`] reads, with the same errors."""
    form = form_of(source, sampling_rate, channels_first)
    if form.is_file:
        with open_sound(form.content) as sound:
            return sound.channels
    samples = checked_samples(form)
    return 1 if samples.ndim == 1 else samples.shape[1]


def seconds_of(source: str | os.PathLike[str] | bytes | bytearray | memoryview, most: float = math.inf) -> float:
    """The length of an audio file, as it states it; nothing is decoded unless it states none.

    A longer one than `most` seconds may give any number above that. Errors are those of [`open_sound`].
    """
    with open_sound(source) as sound:
        if isinstance(sound, ContainerReader):
            return sound.count_frames(most * sound.samplerate) / sound.samplerate
        return sound.frames / sound.samplerate


def is_sound(value: Any, channels_first: bool | None = None) -> bool:
    """Whether a value is one sound, as [`load_audio`] reads it, and not several.

    An array of two axes is several, `(clips, samples)`, unless `channels_first` is given.
    """
    if isinstance(value, (np.ndarray, torch.Tensor)):
        axes = 1 if channels_first is None else 2
        return value.ndim <= axes and not (isinstance(value, np.ndarray) and value.dtype == object)
    if isinstance(value, tuple) and (is_rate_and_samples(value) or is_rate_and_samples(value[::-1])):
        return True
    if isinstance(value, Sequence) and not is_file(value):
        return len(value) > 0 and is_number(value[0])
    return (
        is_file(value)
        or isinstance(value, Mapping)
        or is_decoder(value)
        or is_samples(value)
        or hasattr(value, "read")
    )


def as_sounds(audio: Any, sampling_rate: int | None = None, channels_first: bool | None = None) -> list[Any]:
    """One sound or many, as a list of what [`load_audio`] reads; each of them can be read more than once.

    Raises:
        ValueError: An array of two axes holds clips of less than 25 ms: it is one sound, a few channels for each
            sample.
    """
    if is_sound(audio, channels_first) or not isinstance(audio, Iterable):
        return [rereadable(audio)]
    check_batch(audio, SAMPLING_RATE if sampling_rate is None else sampling_rate, channels_first)
    return [rereadable(sound) for sound in audio]


@contextlib.contextmanager
def open_sound(source: str | os.PathLike[str] | bytes | bytearray | memoryview) -> "Iterator[SoundReader]":
    """Opens an audio file, or the bytes of one; only its header is read.

    What it yields has `samplerate` (Hz), `channels`, `frames` (samples of each channel) and `read` as
    `soundfile.SoundFile` does.

    Raises:
        ValueError: There is no such file, it cannot be decoded, or its rate or number of channels is impossible; the
            message says which.
        ImportError: soundfile and soxr are not installed.
    """
    _require_audio_libraries()
    name = _shown(source)
    try:
        with _opened(source) as file:
            try:
                container = container_of(file)
            except OSError as error:
                raise ValueError(f"{name} cannot be read ({error.strerror or error}): check the file.") from error
            if not container and not file.read(1):
                raise ValueError(f"there is nothing in {name}: give a recording.")
            file.seek(0)
            with ContainerReader(file, container) if container else _forward_reader(file) as sound:
                if not isinstance(sound, ContainerReader) and sound.format not in _FORMATS:
                    raise soundfile.SoundFileRuntimeError(f"the format {sound.format} is not supported")
                checked_rate(sound.samplerate)
                if sound.channels > MOST_CHANNELS:
                    raise ValueError(f"{name}: the sound has more than {MOST_CHANNELS} channels ({sound.channels}).")
                yield sound
    except MissingPyAVError as error:
        raise ValueError(
            f"{name}: this is {error}, which needs PyAV: pip install av, or convert it to WAV or FLAC."
        ) from error
    except (RuntimeError, TypeError) as error:
        raise ValueError(
            f"{name} cannot be decoded ({_reason(error)}): give WAV, FLAC, OGG, MP3 or M4A, or convert it first."
        ) from error


def _forward_reader(file: BinaryIO) -> Any:
    """A `soundfile.SoundFile` that is read from its start to its end."""
    sound = soundfile.SoundFile(file)
    if sound.format == "MP3":
        # After each read soundfile seeks to where it is, and an MP3 decoder loses what the next frames refer back to.
        # Elsewhere this changes nothing, and shows that a file is shorter than its header says.
        sound.seekable = lambda: False
    return sound


def _reason(error: Exception) -> str:
    return str(getattr(error, "error_string", error)).strip(" .")


def _opened(source: Any) -> BinaryIO:
    if is_bytes(source):
        return io.BytesIO(source)
    path, name = os.fspath(source), _shown(source)
    try:
        mode = os.stat(path).st_mode
    except PermissionError as error:
        raise _unreadable(name, error) from error
    except (OSError, ValueError) as error:  # also not a valid file name, such as a long text
        raise ValueError(f"there is no file {name}.") from error
    if stat.S_ISDIR(mode):
        raise ValueError(f"{name} is a folder: give one of its recordings.")
    if not stat.S_ISREG(mode):  # a device or a pipe, which would never end
        raise ValueError(f"{name} is not a regular file: give a recording.")
    try:
        return open(path, "rb")
    except OSError as error:
        raise _unreadable(name, error) from error


def _unreadable(name: str, error: OSError) -> ValueError:
    return ValueError(f"{name} cannot be read ({error.strerror or error}): check its permissions.")


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
    frames = (len(samples) - earliest) // _PAUSE_FRAME
    if frames < _PAUSE_FRAMES:
        return len(samples)
    tail = samples[earliest : earliest + frames * _PAUSE_FRAME].reshape(frames, _PAUSE_FRAME).astype(np.float64)
    power = np.convolve(np.square(tail).mean(1), np.full(_PAUSE_FRAMES, 1 / _PAUSE_FRAMES), mode="valid")
    quietest = int(power.argmin())
    if power[quietest] >= np.square(samples, dtype=np.float64).mean() * 10 ** (-_PAUSE_BELOW_MEAN / 10):
        return len(samples)
    middle = earliest + (quietest + _PAUSE_FRAMES // 2) * _PAUSE_FRAME
    return max(_GRID, round(middle / _GRID) * _GRID)


def _blocks(
    source: Any,
    sampling_rate: int | None,
    channels_first: bool | None,
    channel: int | None,
    max_seconds: float | None = None,
    block_seconds: float = math.inf,
) -> Iterator[np.ndarray]:
    """The one loader: reads, checks, mixes down and resamples a sound of any form."""
    form = form_of(source, sampling_rate, channels_first)
    if form.is_file:
        with open_sound(form.content) as sound:
            rate = common_rate(sound.samplerate, form.rate)
            _check_channel(channel, sound.channels)
            length = max(1, int(min(rate * block_seconds, _BLOCK // sound.channels)))
            blocks = _file_blocks(sound, _shown(form.content), length, _most(max_seconds, rate))
            yield from _at_16_khz((_mono(block, channel) for block in blocks), rate)
    else:
        samples = checked_samples(form, _most(max_seconds, form.rate))
        _check_channel(channel, 1 if samples.ndim == 1 else samples.shape[1])
        blocks = array_blocks(samples, form.rate, _most(max_seconds, form.rate))
        yield from _at_16_khz((_mono(block, channel) for block in blocks), form.rate)


def _most(max_seconds: float | None, rate: int) -> float:
    """How many samples at their original rate are read at most."""
    return math.inf if max_seconds is None else max(1, int(max_seconds * rate))


def _file_blocks(sound: "SoundReader", name: str, length: int, most: float) -> Iterator[np.ndarray]:
    """`(samples, channels)`, block by block, at the file's own rate."""
    count = 0
    while count < most:
        try:
            block = sound.read(int(min(most - count, length)), dtype="float32", always_2d=True)
        except RuntimeError as error:
            raise ValueError(
                f"{name} cannot be decoded after {sound.tell() / sound.samplerate:.0f} s ({_reason(error)}): convert "
                "it first."
            ) from error
        if not len(block):
            break
        count += len(block)
        yield block
    if not count:
        raise ValueError("the sound is empty.")


def _mono(block: np.ndarray, channel: int | None) -> np.ndarray:
    if block.ndim == 1:
        return block
    if channel is not None:
        return np.ascontiguousarray(block[:, channel])
    # Arranged by channel, as the mean over a last axis of two or three takes several times as long.
    mixed: np.ndarray = np.ascontiguousarray(block.T).mean(axis=0, dtype=np.float32)
    return mixed


def _check_channel(channel: Any, channels: int) -> None:
    if channel is None:
        return
    if isinstance(channel, bool) or not isinstance(channel, (int, np.integer)):
        raise ValueError(f"channel={channel!r} is not the number of a channel: give 0 for the first one.")
    if not 0 <= channel < channels:
        raise ValueError(f"there is no channel={channel}: the sound has {channels}, and the first one is channel 0.")


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
            f"float samples must lie in -1..1, but they reach {largest:.0f}: pass integers as integers, or divide by "
            "their full scale."
        )
    return samples


def _shown(source: Any) -> str:
    """What messages call a sound; a text in place of a path may be long."""
    if is_bytes(source):
        return "these bytes"
    if not isinstance(source, (str, os.PathLike)):
        return "the sound"
    name = str(source)
    return repr(name if len(name) <= 200 else f"{name[:100]}...{name[-50:]}")


def _require_audio_libraries() -> None:
    if soundfile is None:
        raise ImportError("Reading and resampling sound needs two libraries: pip install soundfile soxr.")
