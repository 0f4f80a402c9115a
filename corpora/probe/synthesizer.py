"""A thin binding to the speech synthesizer espeak-ng of the package `espeakng-loader`.

Each `Synthesizer` opens a private copy of the library. The engine keeps state between utterances (the phase of its
voice flutter, for one), so with the shared library the samples would depend on all that the process has synthesized
before; with a private copy they depend only on what this synthesizer has.
"""

import ctypes
import html
import re
import shutil
import tempfile
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

_SYNCHRONOUS = 2
_PHONEME_EVENTS_AND_DO_NOT_EXIT = 0x8001
_UTF8_AND_SSML = 0x11
_PARAMETERS = {"rate": 1, "volume": 2, "pitch": 3}
_EVENT_END, _EVENT_WORD, _EVENT_PHONEME = 0, 1, 7

_TAG_OR_WORD = re.compile(r"<[^>]*>|[^\s<]+")


class _Event(ctypes.Structure):
    _fields_ = (
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("name", ctypes.c_char * 8),
    )


class _Voice(ctypes.Structure):
    _fields_ = tuple((name, ctypes.c_char_p) for name in ("name", "languages", "identifier"))


_CALLBACK = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event))


@dataclass(frozen=True)
class Word:
    """A word as written, punctuation included, with its times in seconds, without a pause after it."""

    text: str
    start: float
    end: float


@dataclass(frozen=True)
class Speech:
    """A synthesized utterance: mono samples in int16, samples per second, and the words in order."""

    samples: np.ndarray
    rate: int
    words: list[Word]


def engine_version() -> str:
    """Return the version of the installed `espeakng-loader`.

    Raises:
        ImportError: It is not installed.
    """
    try:
        return version("espeakng-loader")
    except PackageNotFoundError as error:
        raise ImportError('The synthesizer espeak-ng is not installed: pip install "msfser[train]"') from error


class Synthesizer:
    """An espeak-ng engine with a private state.

    Raises:
        ImportError: `espeakng-loader` is not installed.
        RuntimeError: The engine does not start.
    """

    def __init__(self) -> None:
        engine_version()
        import espeakng_loader

        source = Path(espeakng_loader.get_library_path())
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            self._library = ctypes.CDLL(shutil.copy(source, folder))
        self._library.espeak_GetCurrentVoice.restype = ctypes.POINTER(_Voice)
        self._samples: list[np.ndarray] = []
        self._events: list[tuple[int, int, int, str]] = []
        # Kept on the object: ctypes does not hold a reference, and a collected callback crashes the process.
        self._callback = _CALLBACK(self._receive)
        data = str(espeakng_loader.get_data_path()).encode()
        self.rate = self._library.espeak_Initialize(_SYNCHRONOUS, 0, data, _PHONEME_EVENTS_AND_DO_NOT_EXIT)
        if self.rate <= 0:
            raise RuntimeError(f"espeak-ng did not start (status {self.rate}) with its data in {data.decode()}")
        self._library.espeak_SetSynthCallback(self._callback)

    def set_voice(self, name: str) -> None:
        """Choose the voice.

        Args:
            name: A language with an optional variant, such as `en-us` or `en-us+m1`.

        Raises:
            ValueError: espeak-ng does not know the voice.
        """
        found = self._library.espeak_SetVoiceByName(name.encode()) == 0
        if found:  # an unknown variant is ignored
            identifier = self._library.espeak_GetCurrentVoice().contents.identifier.decode()
            found = identifier.partition("+")[2] == name.partition("+")[2]
        if not found:
            raise ValueError(f"espeak-ng has no voice named {name!r}")

    def speak(self, ssml: str, *, rate: int = 175, pitch: int = 50, volume: int = 100) -> Speech:
        """Synthesize SSML with the current voice, and find the times of its words.

        Args:
            ssml: The text with SSML marks; the words are what is left without the tags, split at white space.
            rate: Words per minute, 80 to 450.
            pitch: Base pitch, 0 to 100.
            volume: Amplitude, 0 to 200; peaks beyond full scale are cut off, as they are from about 100.

        Raises:
            RuntimeError: espeak-ng refuses the text or a parameter.
        """
        for name, value in {"rate": rate, "pitch": pitch, "volume": volume}.items():
            if self._library.espeak_SetParameter(_PARAMETERS[name], value, 0) != 0:
                raise RuntimeError(f"espeak-ng refused {name}={value}")
        self._samples.clear()
        self._events.clear()
        text = ssml.encode()
        if self._library.espeak_Synth(text, len(text) + 1, 0, 1, 0, _UTF8_AND_SSML, None, None) != 0:
            raise RuntimeError(f"espeak-ng could not speak {ssml!r}")
        samples = np.concatenate(self._samples) if self._samples else np.zeros(0, np.int16)
        return Speech(samples, self.rate, _word_times(ssml, self._events, len(samples), self.rate))

    def _receive(self, samples: Any, count: int, events: Any) -> int:
        if samples and count > 0:
            self._samples.append(np.ctypeslib.as_array(samples, (count,)).copy())
        index = 0
        while events[index].type != _EVENT_END:
            event = events[index]
            self._events.append((event.type, event.text_position, event.sample, event.name.decode(errors="replace")))
            index += 1
        return 0


def _word_times(ssml: str, events: list[tuple[int, int, int, str]], samples: int, rate: int) -> list[Word]:
    """Map the engine's word events to the words of the text.

    Several words may share one event ("of the") and one word may have several ("ice-cold"). Positions in the text
    count characters of the SSML from 1. Words that share an event share its time in proportion to their letters. An
    event is its type, text position, sample and phoneme name.
    """
    found = [match for match in _TAG_OR_WORD.finditer(ssml) if not match[0].startswith("<")]
    words = [html.unescape(match[0]) for match in found]
    offsets = np.array([match.start() for match in found])

    starts: dict[int, int] = {}
    for kind, position, sample, _ in events:
        if kind == _EVENT_WORD:
            starts.setdefault(max(0, int(np.searchsorted(offsets, position - 1, side="right")) - 1), sample)
    firsts = sorted(starts)
    if not firsts or firsts[0] != 0:
        raise RuntimeError(f"espeak-ng gave no time for the first word of {ssml!r}")

    result = []
    for group, first in enumerate(firsts):
        last = firsts[group + 1] if group + 1 < len(firsts) else len(words)
        limit = starts[last] if last < len(words) else samples
        begin, end = starts[first], limit
        # The pause phonemes (names that begin with "_") at the end of the interval are not part of the word.
        for kind, _, sample, name in reversed(events):
            if kind == _EVENT_PHONEME and begin < sample < limit:
                if not name.startswith("_"):
                    break
                end = sample
        letters = np.array([sum(map(str.isalnum, word)) or 1 for word in words[first:last]])
        edges = begin + (end - begin) * np.concatenate([[0], np.cumsum(letters)]) / letters.sum()
        result += [
            Word(word, float(edges[i] / rate), float(edges[i + 1] / rate)) for i, word in enumerate(words[first:last])
        ]
    return result
