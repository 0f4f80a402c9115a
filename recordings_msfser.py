"""What the pipeline accepts as a recording: a path, bytes, an https address or samples, alone or with its texts."""

import http.client
import math
import re
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .audio_msfser import load_audio, read_blocks
from .configuration_msfser import TENSOR_NAMES
from .inputs_msfser import RETURN, FailedInput, SourceError
from .intervals_msfser import INTERVAL_LEVEL
from .languages_msfser import why_not_read
from .processing_msfser import is_missing, text_or_none
from .sound_forms_msfser import rereadable, states_rate
from .sound_quality_msfser import SoundMeter

_KNOWN = (*TENSOR_NAMES, "words", "language")
_KEYS = {"audio", "raw", "array", "bytes", "path", "sampling_rate", *_KNOWN}
# Limits of a download.
_MOST_BYTES = 200_000_000
_MOST_SECONDS = 120.0
_PATIENCE = 15.0


@dataclass
class Recording:
    """One input of the pipeline, not decoded yet."""

    source: Any  # as [`load_audio`] expects it, with its rate
    sampling_rate: int | None  # in Hz; `None` if the source states it
    given: dict[str, Any]  # `transcript`, `words`, `emphasis`, `description`, `language`; `None` where not given
    index: int | None = None  # among the inputs; `None` if it is the only one
    is_long: bool = False  # whether it needs several windows
    words_from: str = "given"  # or "aligned"
    text_languages: Sequence[str] | None = None  # codes of those that the model reads; `None` for any
    unread: str | None = None  # why its words are not read
    texts_of_words: list[str] = field(default_factory=list)  # of a long one: the transcript cut before each given word
    channels_first: bool | None = None  # of samples with two axes
    channel: int | None = None  # from 0 on; by default the mean of all
    word_contributions: bool = False  # whether words are left out one after the other
    interval_level: float = INTERVAL_LEVEL
    meter: SoundMeter = field(default_factory=SoundMeter)  # of its sound, as far as it is read
    is_measured: bool = False  # the meter has measured all of it
    error: Exception | None = None  # why there is no result

    def load(self, max_seconds: float) -> np.ndarray:
        """The beginning of the sound, as [`load_audio`] returns it."""
        return load_audio(self.source, self.sampling_rate, max_seconds, self.channels_first, self.channel)

    def state_language(self, language: str | None, text_languages: Sequence[str] | None, reads_words: bool) -> None:
        """States the language where none is given, and leaves out the words if the model cannot read theirs.

        Args:
            language: Where none is given; `None` if it is unknown.
            text_languages: Those of the processor.
            reads_words: Whether the model reads words at all.

        Raises:
            ValueError: There is no such language.
        """
        self.given["language"] = stated = self.given["language"] or language
        self.text_languages = text_languages
        self.unread = why_not_read(stated, text_languages) if reads_words else None
        if self.unread is not None:
            self.given |= dict.fromkeys(("transcript", "words", "emphasis"))

    def blocks(self) -> Iterator[np.ndarray]:
        """The sound by blocks, as [`read_blocks`] yields them."""
        return read_blocks(self.source, self.sampling_rate, self.channels_first, self.channel)


def open_recording(item: Any, sampling_rate: int | None = None, index: int | None = None) -> Recording:
    """Sorts an input of [`MsfSerPipeline`] into its sound and the texts that are given; an address is fetched.

    `sampling_rate` is that of an array whose rate is not stated, in Hz. A recording that is open stays as it is.

    Raises:
        ValueError: There is no sound, or a field is unknown or of a wrong type.
        OSError: An address cannot be reached.
    """
    if isinstance(item, FailedInput):
        raise item.error
    if isinstance(item, Recording):
        return item
    given: dict[str, Any] = dict.fromkeys(_KNOWN)
    source, rate = item, None
    if isinstance(item, Mapping):
        if unknown := sorted(set(item) - _KEYS):
            raise ValueError(
                f"the recording has a field {unknown[0]!r}, which is none of {', '.join(sorted(_KEYS))}: leave it out."
            )
        given |= {name: text_or_none(item.get(name), f"the {name}") for name in _KNOWN if name != "words"}
        given["words"] = _words(item.get("words"))
        source = item["audio"] if "audio" in item else {name: item[name] for name in item if name not in _KNOWN}
        rate = None if is_missing(item.get("sampling_rate")) else item["sampling_rate"]
    if isinstance(source, Mapping):
        if not {"array", "raw", "bytes", "path"} & set(source):
            raise ValueError("the recording has no sound: give 'audio', or 'array' with 'sampling_rate'.")
    elif isinstance(source, str) and re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", source):
        source = fetch(source)
    if rate is None and not states_rate(source):
        rate = sampling_rate
    return Recording(rereadable(source), rate, given, index)


def failed_result(error: Exception, index: int | None, errors: str) -> dict[str, str]:
    """The result of a recording that cannot be used, as the option `errors` has it.

    Raises:
        ValueError: Or an `OSError`, as the error is, with the index of the recording among the inputs if it has one.
        Exception: What the iterable of recordings raised, whatever the option is.
    """
    if isinstance(error, SourceError):
        raise error.__cause__ or error
    if errors == RETURN:
        return {"error": str(error)}
    if index is None:
        raise error
    raise (OSError if isinstance(error, OSError) else ValueError)(f"Item {index}: {error}") from error


def _words(words: Any) -> list[dict[str, Any]] | None:
    """The words with a spelling, as [`MsfSerPipeline`] returns them; `None` without any."""
    if is_missing(words):
        return None
    if not isinstance(words, (Sequence, np.ndarray)) or isinstance(words, (str, bytes)):
        raise ValueError(f"the words are {type(words).__name__}, not a list of 'word', 'start' and 'end'.")
    checked = []
    for word in words:
        try:
            start, end, spelling = float(word["start"]), float(word["end"]), word["word"]
        except (TypeError, KeyError, ValueError, IndexError) as error:
            raise ValueError(f"{word!r} is no word with its times: give 'word', 'start' and 'end'.") from error
        if not (isinstance(spelling, str) and math.isfinite(end) and 0 <= start <= end):
            raise ValueError(
                f"the word {spelling!r} lasts from {start} to {end} s: give times from 0 on, no end before its start."
            )
        if spelling.strip():  # an empty text counts as not given
            checked.append({"word": spelling, "start": start, "end": end})
    return checked or None


class _SecureRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, req: Any, fp: Any, code: Any, msg: Any, headers: Any, newurl: str) -> Any:
        _check_scheme(newurl)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _check_scheme(address: str) -> None:
    scheme = address.partition(":")[0].lower()
    if scheme != "https":
        raise ValueError(f"a recording is fetched by https only, not by {scheme}: give an https address or a file.")


def fetch(address: str) -> bytes:
    """Downloads a recording: by https only, at most 200 MB within 2 minutes.

    Errors do not repeat the address, as it may contain a key.

    Raises:
        ValueError: It is not an https address, or what it leads to is too large.
        OSError: It cannot be reached.
    """
    _check_scheme(address)
    try:
        host = urllib.parse.urlsplit(address).hostname
        address.encode("ascii")
    except ValueError:
        host = None
    if host is None:
        raise ValueError("the recording's address is not valid: give https://HOST/PATH, other letters escaped.")
    deadline = time.monotonic() + _MOST_SECONDS
    content = bytearray()
    try:
        with urllib.request.build_opener(_SecureRedirects).open(address, timeout=_PATIENCE) as response:
            while block := response.read1(1 << 16):
                content += block
                if len(content) > _MOST_BYTES:
                    raise ValueError(
                        f"the recording at {host} is larger than {_MOST_BYTES // 10**6} MB: give it as a file."
                    )
                if time.monotonic() > deadline:
                    raise TimeoutError(f"it took longer than {_MOST_SECONDS:.0f} s")
    except (OSError, http.client.HTTPException) as error:
        reason = str(getattr(error, "reason", error)).rstrip(".")
        raise OSError(f"the recording at {host} cannot be fetched ({reason}): check the address.") from error
    return bytes(content)
