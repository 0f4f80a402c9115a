"""Inputs of the pipeline one after the other, from lists, iterables and datasets; and the settings of its options."""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch

from .intervals_msfser import INTERVAL_LEVEL, check_level
from .languages_msfser import language_code

# The setting of recognizer and describer that selects those of the training corpus.
AS_TRAINED = "as trained"
# The setting of channel that predicts each of them.
EACH = "each"
# The settings of errors.
RAISE, RETURN = "raise", "return"


def check_options(
    *,
    sampling_rate: Any = None,
    channels_first: Any = None,
    recognizer: Any = None,
    describer: Any = None,
    language: Any = None,
    channel: Any = None,
    word_contributions: Any = False,
    errors: Any = RAISE,
    interval_level: Any = INTERVAL_LEVEL,
    **unknown: Any,
) -> None:
    """Checks options of [`MsfSerPipeline`] before any recording is read; rates and axes are checked with each sound.

    Raises:
        TypeError: There is no such option.
        ValueError: An option has no such setting, or Whisper knows no such language.
    """
    if unknown:
        known = sorted([*(check_options.__kwdefaults__ or ()), "batch_size"])
        raise TypeError(f"there is no option {min(unknown)!r}: give some of {', '.join(known)}.")
    if not (recognizer is None or isinstance(recognizer, str) or callable(recognizer)):
        raise ValueError(f"recognizer={recognizer!r} is no recognizer: give a Whisper by name, or None.")
    if not (describer is None or describer in (AS_TRAINED, "measured") or callable(describer)):
        raise ValueError(f"describer={describer!r} is no describer: give 'measured', a loaded one, or None.")
    if errors not in (RAISE, RETURN):
        raise ValueError(f"errors={errors!r} is not known: choose {RAISE!r} or {RETURN!r}.")
    is_number = isinstance(channel, int) and not isinstance(channel, bool) and channel >= 0
    if not (channel is None or channel == EACH or is_number):
        raise ValueError(f"channel={channel!r} is no channel: give its number from 0 on, {EACH!r}, or None.")
    if not isinstance(word_contributions, bool):
        raise ValueError(f"word_contributions={word_contributions!r} is neither True nor False.")
    if not isinstance(language, (str, type(None))):
        raise ValueError(f"language={language!r} is no language: give a code such as 'en' or an English name.")
    language_code(language)
    check_level(interval_level)


def check_batch_size(batch_size: Any) -> None:
    """Checks how many windows form a batch.

    Raises:
        ValueError: It is not a whole number from 1 on.
    """
    if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
        raise ValueError(f"batch_size={batch_size!r} must be a whole number from 1 on.")


class SourceError(Exception):
    """The iterable of recordings raised an error, which is the cause."""


class FailedInput:
    """Replaces an input that could not be read from its dataset."""

    def __init__(self, error: Exception):
        self.error = error


class InputStream(torch.utils.data.IterableDataset[Any]):
    """Inputs of any kind, one after the other: a list, an iterable, a dataset with or without a length.

    Args:
        inputs: The inputs.
        is_one: Whether they are a single recording, whose errors need no index.
    """

    def __init__(self, inputs: Any, is_one: bool = False):
        self.inputs = inputs
        self.is_one = is_one

    def numbered(self) -> Iterator[tuple[int | None, Any]]:
        """The inputs with their indices; a single recording has none."""
        return ((None if self.is_one else index, item) for index, item in enumerate(self))

    def __iter__(self) -> Iterator[Any]:
        if _is_indexed(self.inputs):
            yield from map(self._row, range(len(self.inputs)))
            return
        items = iter(self.inputs)
        while True:
            try:
                item = next(items)
            except StopIteration:
                return
            except Exception as error:
                failure = SourceError(str(error))
                failure.__cause__ = error
                yield FailedInput(failure)
                return
            yield item

    def _row(self, index: int) -> Any:
        try:
            return self.inputs[index]
        except OSError as error:
            return FailedInput(error)
        except (ValueError, RuntimeError) as error:  # decoders raise both
            failure = ValueError(str(error))
            failure.__cause__ = error
            return FailedInput(failure)


def _is_indexed(inputs: Any) -> bool:
    """Whether each input can be asked for by its index, so that one that fails does not end the others."""
    if isinstance(inputs, torch.utils.data.IterableDataset) or not hasattr(inputs, "__len__"):
        return False
    # Datasets of the library datasets have names of columns.
    return isinstance(inputs, (Sequence, torch.utils.data.Dataset)) or hasattr(inputs, "column_names")


def batches(items: Iterable[Any], size: int) -> Iterator[list[Any]]:
    """Lists of at most so many items; no item is asked for before it is needed."""
    iterator = iter(items)
    while batch := list(itertools.islice(iterator, size)):
        yield batch
