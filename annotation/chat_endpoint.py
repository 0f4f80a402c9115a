"""Descriptions by any OpenAI-compatible chat server that takes sound: [`ChatEndpointDescriber`]."""

import base64
import io
import ipaddress
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import soundfile
from transformers.utils import logging
from urllib3 import PoolManager, Retry, Timeout
from urllib3.exceptions import HTTPError, LocationParseError
from urllib3.util import parse_url

from ..audio_msfser import SAMPLING_RATE
from .prompt import ask_for_descriptions

logger = logging.get_logger(__name__)

KEY_VARIABLE = "MSFSER_API_KEY"
RETRIES = 4
BACKOFF_SECONDS = 0.5
_LONGEST_PAUSE = 30
_MOST_TOKENS = 600
_BUSY_OR_BROKEN = (429, 500, 502, 503, 504)
# What a server says of one request, not of itself: a sound too long, a field that it does not know.
_REFUSED = (400, 413, 415, 422)


class ChatEndpointDescriber:
    """Sends each recording as 16-bit WAV to `/v1/chat/completions` and reads the answer to [`PROMPT`].

    The key is taken from the environment variable `MSFSER_API_KEY`; without it no key is sent. Proxies of the
    environment are not used and redirects not followed: a voice goes to the named server or nowhere. Busy or broken
    servers and lost connections are tried again with growing pauses, four times.

    Args:
        url: The server, such as "http://127.0.0.1:8000"; the path may follow, from "/v1" on. Plain http goes to this
            machine only.
        model: The model's name on the server.
        timeout: Seconds to wait for an answer.
        concurrency: Recordings on their way at once.

    Raises:
        ValueError: The address, the key or a number cannot be used; the sentence says why.
    """

    def __init__(self, url: str, model: str, timeout: float = 60, concurrency: int = 4):
        if not model:
            raise ValueError("model is empty: give the model's name on the server.")
        if timeout <= 0 or concurrency < 1:
            raise ValueError(f"timeout={timeout} must be positive and concurrency={concurrency} at least 1.")
        self.name = f"chat:{model}"
        self.model = model
        self.concurrency = concurrency
        self._url = _completions_url(url)
        self._headers = _headers()
        self._pool = PoolManager(
            maxsize=concurrency,
            block=True,
            timeout=Timeout(connect=min(timeout, 10), read=timeout),
            retries=Retry(
                total=RETRIES,
                status_forcelist=_BUSY_OR_BROKEN,
                allowed_methods=None,
                backoff_factor=BACKOFF_SECONDS,
                backoff_max=_LONGEST_PAUSE,
                retry_after_max=_LONGEST_PAUSE,
                raise_on_status=False,
            ),
        )
        self._takes_format = True
        self._has_answered = False

    def __call__(self, sounds: Sequence[np.ndarray], transcripts: Sequence[str | None]) -> list[str | None]:
        """Describes recordings as [`Describer`] says; an answer that cannot be read is asked for again, twice.

        A recording that the server alone refuses stays without a description.

        Args:
            sounds: Mono float32 at 16 kHz, each `(samples,)`.
            transcripts: The words of each sound, None where they are not known.

        Raises:
            OSError: The server is not there, does not let this caller in, answers no recording of this call, or has
                never answered any.
            ValueError: There are not as many transcripts as sounds.
        """
        if len(sounds) != len(transcripts):
            raise ValueError(f"there are {len(sounds)} sounds and {len(transcripts)} transcripts.")
        encoded = [base64.b64encode(wav_bytes(sound)).decode("ascii") for sound in sounds]
        failures: dict[int, _Failure] = {}

        def ask_one(number: int, prompt: str) -> str | None:
            try:
                return self._answer(encoded[number], prompt)
            except _Failure as failure:
                failures[number] = failure
                return None

        def ask(numbers: list[int], prompts: list[str]) -> list[str | None]:
            with ThreadPoolExecutor(self.concurrency) as executor:
                waiting = [executor.submit(ask_one, *pair) for pair in zip(numbers, prompts, strict=True)]
                try:
                    return [answer.result() for answer in waiting]
                except BaseException:
                    executor.shutdown(wait=False, cancel_futures=True)
                    raise

        descriptions = ask_for_descriptions(ask, transcripts)
        if failures:
            last = list(failures.values())[-1]
            if len(failures) == len(sounds) and (last.is_breakdown or not self._has_answered):
                raise OSError(str(last))
            logger.warning(f"{len(failures)} of {len(sounds)} recordings stay without a description: {last}")
        return descriptions

    def _answer(self, sound: str, prompt: str) -> str:
        """What the model says of one recording.

        Raises:
            OSError: No other recording would fare better.
            _Failure: This one has no answer.
        """
        body: dict[str, Any] = {
            "model": self.model,
            "messages": [
                {
                    "role": "user",
                    "content": [
                        {"type": "input_audio", "input_audio": {"data": sound, "format": "wav"}},
                        {"type": "text", "text": prompt},
                    ],
                }
            ],
            "temperature": 0,
            "max_tokens": _MOST_TOKENS,
        }
        status, answer = self._post(
            body | {"response_format": {"type": "json_object"}} if self._takes_format else body
        )
        if status in _REFUSED and self._takes_format:
            status, answer = self._post(body)
            if status == 200:
                self._takes_format = False
        if status in _REFUSED or status in _BUSY_OR_BROKEN:
            raise _Failure(
                f"{self._url} refuses the recording with status {status}{self._reason(answer)}.",
                is_breakdown=status in _BUSY_OR_BROKEN,
            )
        if status in (401, 403):
            raise OSError(
                f"{self._url} lets nobody in with this key (status {status}): set the environment variable "
                f"{KEY_VARIABLE} to a key that it knows."
            )
        if status != 200:
            raise OSError(
                f"{self._url} answers with status {status}{self._reason(answer)}: check the address and the model's "
                "name."
            )
        try:
            text = _text_of(answer["choices"][0]["message"]["content"])
        except (TypeError, KeyError, IndexError, AttributeError) as error:
            raise _Failure(f"{self._url} does not answer as a chat server does.", is_breakdown=False) from error
        self._has_answered = True
        return text

    def _post(self, body: dict[str, Any]) -> tuple[int, Any]:
        """The status, and the decoded body or None."""
        try:
            response = self._pool.request("POST", self._url, json=body, headers=self._headers, redirect=False)
        except HTTPError as error:
            raise OSError(
                f"{self._url} does not answer ({type(getattr(error, 'reason', None) or error).__name__}): start the "
                "server, or check the address, and run again."
            ) from None
        try:
            return response.status, response.json()
        except ValueError:
            return response.status, None

    def _reason(self, answer: Any) -> str:
        """What the server says about it, without the key."""
        message = answer.get("error", answer) if isinstance(answer, dict) else None
        message = message.get("message") if isinstance(message, dict) else message
        if not isinstance(message, str) or not message:
            return ""
        key = self._headers.get("Authorization", "").removeprefix("Bearer ")
        message = " ".join(message.split())
        return f" ({(message.replace(key, '***') if key else message)[:200].rstrip(' .')})"


class _Failure(Exception):
    """One recording has no answer.

    Args:
        message: A sentence.
        is_breakdown: The server may be at fault, not the recording.
    """

    def __init__(self, message: str, is_breakdown: bool):
        super().__init__(message)
        self.is_breakdown = is_breakdown


def wav_bytes(sound: np.ndarray) -> bytes:
    """A 16-bit WAV file.

    Args:
        sound: Mono at 16 kHz in -1..1, `(samples,)`; what lies beyond is clipped.
    """
    file = io.BytesIO()
    soundfile.write(file, sound, SAMPLING_RATE, format="WAV", subtype="PCM_16")
    return file.getvalue()


def _text_of(content: Any) -> str:
    # Some servers answer in parts.
    if isinstance(content, list):
        return "".join(part["text"] for part in content if part.get("type") == "text")
    # A model that says nothing has answered nonetheless.
    return "" if content is None else content + ""


def _completions_url(url: str) -> str:
    try:
        parts = parse_url(url)
    except LocationParseError:
        # The library quotes it, and it may hold a key.
        raise ValueError("the address cannot be read: give one such as http://127.0.0.1:8000.") from None
    if parts.scheme not in ("http", "https") or not parts.host:
        raise ValueError("the address must start with http:// or https:// and name a server.")
    if parts.auth or parts.query or parts.fragment:
        raise ValueError(
            "the address must hold no user, query or fragment: a key belongs in the environment variable "
            f"{KEY_VARIABLE}."
        )
    if parts.scheme == "http" and not _is_this_machine(parts.host):
        raise ValueError(
            f"http://{parts.host} would carry voices over the network in clear: give https://, or forward a port of "
            "this machine to it."
        )
    path = (parts.path or "").rstrip("/")
    if not path.endswith("/chat/completions"):
        path += "/chat/completions" if path.endswith("/v1") else "/v1/chat/completions"
    return f"{parts.scheme}://{parts.netloc}{path}"


def _is_this_machine(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _headers() -> dict[str, str]:
    key = os.environ.get(KEY_VARIABLE, "").strip()
    if not key:
        return {}
    # An HTTP library would quote the key in its own complaint.
    if not (key.isascii() and key.isprintable()) or " " in key:
        raise ValueError(f"{KEY_VARIABLE} holds characters that no key has, such as a space or a line break.")
    return {"Authorization": f"Bearer {key}"}
