"""The forms of a sound: files, samples with their rate, and what libraries return; and the samples' checks."""

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

MOST_CHANNELS = 64
_RATES = (1_000, 768_000)
# Of a file-like object, which is read into memory.
_MOST_BYTES = 2**31
# Rows of less are no clips and no channels of a few milliseconds, but samples with some channels each. Seconds.
_SHORTEST_ROW = 0.025


class SoundForm(NamedTuple):
    """A sound as a file or as samples."""

    content: Any
    is_file: bool
    rate: Any  # in Hz, not checked; `None` where the file states it
    channels_first: bool | None  # of samples with two axes
    is_order_known: bool  # not a mere convention


def form_of(source: Any, sampling_rate: Any, channels_first: bool | None) -> SoundForm:
    """The one list of the forms of a sound; errors are those of `load_audio`."""
    own_rate, order, is_known = None, channels_first, channels_first is not None
    if isinstance(source, Mapping):
        own_rate, order = source.get("sampling_rate"), True if order is None else order
        source = _content_in(source)
    elif is_rate_and_samples(source):
        own_rate, source = source
        order = False if order is None else order
    elif isinstance(source, tuple) and is_rate_and_samples(source[::-1]):
        raise ValueError("the sound is a tuple (samples, rate): give (rate, samples), or samples and sampling_rate.")
    if is_decoder(source):
        try:
            source = source.get_all_samples()
        except (RuntimeError, ValueError) as error:
            raise ValueError("the decoder cannot read its sound: check the file, or convert it first.") from error
    if is_samples(source):
        own_rate, source, order, is_known = source.sample_rate, source.data, True, True
    if source is None:
        raise ValueError("there is no sound: give a path, bytes or samples.")
    source = rereadable(source)
    is_of_file = is_file(source)
    rate = sampling_rate if own_rate is None and is_of_file else common_rate(own_rate, sampling_rate)
    return SoundForm(source, is_of_file, rate, order, is_known)


def _content_in(source: Mapping[str, Any]) -> Any:
    """The samples or the file in a dictionary; `None` without any."""
    return next((source[name] for name in ("array", "raw", "bytes", "path") if source.get(name) is not None), None)


def states_rate(source: Any) -> bool:
    """Whether a sound comes with its rate, as files, decoders and `(rate, samples)` do."""
    if isinstance(source, Mapping):
        return source.get("sampling_rate") is not None or states_rate(_content_in(source))
    is_stated = is_file(source) or is_rate_and_samples(source) or is_decoder(source) or is_samples(source)
    return is_stated or hasattr(source, "read")


def rereadable(source: Any) -> Any:
    """The same sound, a file-like object as its bytes; other forms are returned as they are."""
    return _content_of(source) if hasattr(source, "read") else source


def array_blocks(samples: Any, length: int, most: float) -> Iterator[np.ndarray]:
    """`(samples,)` or `(samples, channels)` in floats, block by block: a long array is never converted as a whole."""
    end = int(min(most, len(samples)))
    for start in range(0, end, length):
        yield as_floats(_as_numpy(samples, slice(start, min(start + length, end))))


def checked_samples(form: SoundForm, most: float = math.inf) -> Any:
    """An array or tensor of a supported type, `(samples,)` or `(samples, channels)`, not empty.

    At least the first `most` samples; no copy.
    """
    samples = form.content
    if not isinstance(samples, (np.ndarray, torch.Tensor)):
        samples = _as_numpy(samples[: int(most)] if isinstance(samples, Sequence) and most < math.inf else samples)
    first = _as_numpy(samples, slice(1))
    # A plain list of integers becomes int64; its full scale is not known.
    if first.dtype == np.int64:
        raise ValueError("integer samples need their type, such as a NumPy array of int16.")
    if first.dtype != np.uint8 and first.dtype.kind not in "if":
        raise ValueError(f"samples of type {first.dtype} are no sound: give floats or signed integers.")
    shape = tuple(samples.shape)
    if samples.ndim not in (1, 2):
        raise ValueError(f"samples of shape {shape} are neither (samples,) nor (channels, samples).")
    if 0 in shape:
        raise ValueError("the sound is empty.")
    if samples.ndim == 1:
        return samples
    if form.channels_first is None:
        raise ValueError(
            f"samples of shape {shape} are no single sound: give channels_first=True for (channels, samples), False "
            "for (samples, channels), or one clip at a time."
        )
    samples = samples.T if form.channels_first else samples
    length, channels = samples.shape
    order = "(channels, samples)" if form.channels_first else "(samples, channels)"
    if not form.is_order_known and channels > 1 and length < _SHORTEST_ROW * form.rate:
        raise ValueError(
            f"samples of shape {shape} are {channels} channels of less than {1000 * _SHORTEST_ROW:.0f} ms as {order}: "
            f"give channels_first={not form.channels_first} if it is the other way round."
        )
    if channels > MOST_CHANNELS:
        raise ValueError(
            f"samples of shape {shape} have more than {MOST_CHANNELS} channels ({channels}) as {order}: check "
            "channels_first."
        )
    return samples


def check_batch(clips: Any, sampling_rate: int, channels_first: bool | None) -> None:
    """Refuses what is no batch of clips, but one sound as `(samples, channels)` or with channels of a few samples."""
    if isinstance(clips, Sequence) and clips and isinstance(clips[0], (list, tuple)):
        flat = [isinstance(row, (list, tuple)) and len(row) > 1 and all(map(is_number, row[:2])) for row in clips]
        rows = [len(row) for row in clips] if all(flat) else [-1]
        shape: tuple[int, ...] = (len(rows), rows[0]) if len(set(rows)) == 1 and rows[0] > 0 else ()
    else:
        shape = tuple(getattr(clips, "shape", ()))
    axes = 2 if channels_first is None else 3
    if len(shape) > axes:
        raise ValueError(
            f"Samples of shape {shape} are no batch of clips: give (clips, samples), or (clips, channels, samples) "
            "with channels_first=True."
        )
    if len(shape) == 2 and shape[0] > 1 and shape[1] < _SHORTEST_ROW * checked_rate(sampling_rate):
        raise ValueError(
            f"Samples of shape {shape} are {shape[0]} clips of less than {1000 * _SHORTEST_ROW:.0f} ms: if they are "
            "one sound with several channels, give channels_first=False for (samples, channels), or True for "
            "(channels, samples)."
        )


def _as_numpy(samples: Any, part: slice = slice(None)) -> np.ndarray:
    """An array or tensor, or a part of it, as NumPy."""
    try:
        if not isinstance(samples, torch.Tensor):
            samples = np.asarray(samples)
        samples = samples[part] if samples.ndim else samples
        if isinstance(samples, torch.Tensor):
            samples = samples.detach().cpu()
            # NumPy has no bfloat16.
            samples = (samples.float() if samples.is_floating_point() else samples).numpy()
        return samples
    except (ValueError, TypeError, RuntimeError) as error:
        raise ValueError("the samples are no rectangular array of numbers.") from error


def as_floats(samples: np.ndarray) -> np.ndarray:
    """Samples of a supported type as float32 in -1..1."""
    if samples.dtype == np.uint8:
        return (samples.astype(np.float32) - 128) / 128
    if samples.dtype.kind == "i":
        return (samples / -float(np.iinfo(samples.dtype).min)).astype(np.float32)
    return samples.astype(np.float32)


def common_rate(own_rate: Any, given_rate: Any) -> int:
    """The rate of the sound, which what is given may not contradict."""
    if own_rate is None and given_rate is None:
        raise ValueError("samples need their sampling_rate (in Hz).")
    if own_rate is not None and given_rate is not None and given_rate != own_rate:
        raise ValueError(f"the sound is at {own_rate} Hz, not at the given sampling_rate={given_rate}: leave it out.")
    return checked_rate(given_rate if own_rate is None else own_rate)


def checked_rate(rate: Any) -> int:
    """A rate in Hz, as an integer within the bounds."""
    try:
        whole = int(rate)
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"sampling_rate={rate!r} is not a number in Hz.") from error
    if whole != rate:
        raise ValueError(f"sampling_rate={rate!r} is not a whole number in Hz.")
    if not _RATES[0] <= whole <= _RATES[1]:
        raise ValueError(f"sampling_rate={rate} is outside {_RATES[0]}..{_RATES[1]} Hz.")
    return whole


def is_decoder(value: Any) -> bool:
    """Whether it is an `AudioDecoder` of torchcodec, or has the same method."""
    return callable(getattr(value, "get_all_samples", None))


def is_samples(value: Any) -> bool:
    """Whether it is an `AudioSamples` of torchcodec, or has the same attributes."""
    return hasattr(value, "sample_rate") and hasattr(value, "data")


def is_number(value: Any) -> bool:
    """Whether it is one number, as in a list of samples."""
    return isinstance(value, (int, float, np.number))


def is_rate_and_samples(value: Any) -> bool:
    """Whether it is a tuple `(rate, samples)`, as Gradio gives it."""
    if not (isinstance(value, tuple) and len(value) == 2 and isinstance(value[0], (int, np.integer))):
        return False
    return getattr(value[1], "ndim", 0) > 0 or isinstance(value[1], (list, tuple))


def is_bytes(value: Any) -> bool:
    """Whether it is the bytes of a file."""
    # A memoryview of anything else than bytes is samples.
    return isinstance(value, (bytes, bytearray)) or (isinstance(value, memoryview) and value.format in ("B", "b", "c"))


def is_file(value: Any) -> bool:
    """Whether it is a path or the bytes of a file."""
    return isinstance(value, (str, os.PathLike)) or is_bytes(value)


def _content_of(file: Any) -> bytes:
    """The rest of a file-like object, whose position is kept."""
    try:
        start = file.tell() if file.seekable() else None
    except (AttributeError, OSError):
        start = None
    try:
        content = file.read(_MOST_BYTES + 1)
        if start is not None:
            file.seek(start)
    except (TypeError, ValueError, OSError) as error:
        raise ValueError(f"the file-like object cannot be read ({str(error).strip('. ')}): give its bytes.") from error
    if not isinstance(content, (bytes, bytearray)):
        raise ValueError(f"the file-like object gives {type(content).__name__}, not bytes: open it with mode 'rb'.")
    if len(content) > _MOST_BYTES:
        raise ValueError(f"the file-like object holds more than {_MOST_BYTES >> 30} GiB: give a path.")
    if not content:
        raise ValueError("the file-like object is empty or at its end: call its seek(0) first.")
    return bytes(content)
