"""Descriptions by any OpenAI-compatible chat server that accepts audio: [`ChatEndpointDescriber`]."""

import base64
import contextlib
import io
import ipaddress
import os
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import soundfile
from transformers.utils import logging
from urllib3 import PoolManager, Retry, Timeout
from urllib3.exceptions import HTTPError, LocationParseError, ProtocolError, ReadTimeoutError
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
# These concern the request, not the server: audio that is too long, an unknown field.
_REJECTED = (400, 413, 415, 422)
# After so many failures in a row the server may be broken.
_FAILURES = 5


class ServerFailure(OSError):
    """The server failed at a recording that it got; others tell whether it is broken. The address is not in it."""


class ChatEndpointDescriber:
    """Sends each recording as 16-bit WAV to `/v1/chat/completions` and reads the response to [`PROMPT`].

    The key is read from the environment variable `MSFSER_API_KEY`; without it no key is sent. Proxies of the
    environment are not used and redirects are not followed: a voice goes to the named server or nowhere. Requests to
    a busy or broken server and lost connections are repeated up to four times, after growing pauses.

    Args:
        url: The server, such as "http://127.0.0.1:8000", also with a path from "/v1" on. Plain http is accepted for
            this machine only.
        model: The model's name on the server.
        timeout: Seconds to wait for a response.
        concurrency: Number of simultaneous requests.

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
        self._supports_format = True
        self._failures = 0  # in a row
        self._last: tuple[str, str] | None = None  # what it last responded to
        self._lock = threading.Lock()

    def __call__(
        self, sounds: Sequence[np.ndarray], transcripts: Sequence[str | None]
    ) -> list[str | ServerFailure | None]:
        """Describes recordings as in [`Describer`]; a response that cannot be parsed is requested again, twice.

        A single recording that the server rejects has no description. One at which it stays busy or broken, to which
        it does not respond in time, or not like a chat server, has a failure in place of it. After five failures in a
        row the server is asked once more for the recording that it last responded to, which tells what is at fault.

        Raises:
            ServerFailure: It fails at that one, too, or has not responded to any; or it rejects recordings of this
                call, and has never responded to any.
            OSError: The server is not available, has no such address, or rejects the key.
        """
        rejections: list[_Rejection] = []

        def ask_one(sound: str, prompt: str) -> str | ServerFailure | None:
            try:
                response = self._request(sound, prompt)
            except ServerFailure as failure:
                self._count(failure)
                return failure
            except _Rejection as rejection:
                rejections.append(rejection)
                self._failures = 0
                return None
            self._failures, self._last = 0, (sound, prompt)
            return response

        def ask(sounds: list[str], prompts: list[str]) -> list[str | ServerFailure | None]:
            with ThreadPoolExecutor(self.concurrency) as executor:
                return list(executor.map(ask_one, sounds, prompts))

        descriptions = ask_for_descriptions(ask, list(map(wav_base64, sounds)), transcripts)
        if rejections:
            if self._last is None:
                raise ServerFailure(str(rejections[-1]))
            logger.warning(
                f"{len(rejections)} of {len(sounds)} recordings stay without a description: {rejections[-1]}"
            )
        return descriptions

    def _count(self, failure: ServerFailure) -> None:
        """Counts a failure; where the server is broken, which other requests tell, it is raised."""
        with self._lock:
            self._failures += 1
            if self._failures < _FAILURES:
                return
            if self._last is None:
                raise failure
            last, self._last = self._last, None
            with contextlib.suppress(_Rejection):
                self._request(*last)
            self._failures, self._last = 0, last

    def _request(self, sound: str, prompt: str) -> str:
        """The model's text for one recording; an `OSError` where the server is at fault and not the recording."""
        audio = {"type": "input_audio", "input_audio": {"data": sound, "format": "wav"}}
        body: dict[str, Any] = {
            "model": self.model,
            "messages": [{"role": "user", "content": [audio, {"type": "text", "text": prompt}]}],
            "temperature": 0,
            "max_tokens": _MOST_TOKENS,
        }
        with_format = self._supports_format
        status, response = self._post(body | ({"response_format": {"type": "json_object"}} if with_format else {}))
        if status in _REJECTED and with_format:
            status, response = self._post(body)
            if status == 200:
                self._supports_format = False
        if status in _REJECTED:
            raise _Rejection(f"the server rejects the recording with status {status}{self._reason(response)}.")
        if status in _BUSY_OR_BROKEN:
            raise ServerFailure(
                f"the server still fails with status {status} after {RETRIES} retries{self._reason(response)}: run "
                "again once it works."
            )
        if status in (401, 403):
            raise OSError(
                f"{self._url} rejects the key (status {status}): set the environment variable {KEY_VARIABLE} to a "
                "valid one."
            )
        if status != 200:
            raise OSError(
                f"{self._url} responds with status {status}{self._reason(response)}: check the address and the name "
                "of the model."
            )
        try:
            content = response["choices"][0]["message"]["content"]
            # Some servers respond in parts; an empty response is a response.
            parts = (
                content
                if isinstance(content, list)
                else [{"type": "text", "text": "" if content is None else content}]
            )
            return "".join(part["text"] for part in parts if part.get("type") == "text")
        except (TypeError, KeyError, IndexError, AttributeError) as error:
            raise ServerFailure(
                f"the server does not respond like a chat server{self._reason(response)}: check its address and the "
                "server, and run again."
            ) from error

    def _post(self, body: dict[str, Any]) -> tuple[int, Any]:
        """The status, and the decoded body or None."""
        try:
            response = self._pool.request("POST", self._url, json=body, headers=self._headers, redirect=False)
        except HTTPError as error:
            cause = getattr(error, "reason", None) or error
            why = f"does not respond ({type(cause).__name__})"
            if isinstance(cause, ReadTimeoutError | ProtocolError):
                raise ServerFailure(f"the server {why}: run again once it works.") from None
            raise OSError(f"{self._url} {why}: start the server, or check the address, and run again.") from None
        try:
            return response.status, response.json()
        except ValueError:
            return response.status, None

    def _reason(self, response: Any) -> str:
        """The server's error message in parentheses, without the key."""
        message = response.get("error", response) if isinstance(response, dict) else None
        message = message.get("message") if isinstance(message, dict) else message
        if not isinstance(message, str) or not message:
            return ""
        key = self._headers.get("Authorization", "").removeprefix("Bearer ")
        message = " ".join(message.split())
        return f" ({(message.replace(key, '***') if key else message)[:200].rstrip(' .')})"


class _Rejection(Exception):
    """The server does not accept one recording, and would not at another time."""


def wav_base64(sound: np.ndarray) -> str:
    """A 16-bit WAV file in base64, of mono sound `(samples,)` at 16 kHz, clipped to -1..1."""
    file = io.BytesIO()
    soundfile.write(file, sound, SAMPLING_RATE, format="WAV", subtype="PCM_16")
    return base64.b64encode(file.getvalue()).decode("ascii")


def _completions_url(url: str) -> str:
    try:
        parts = parse_url(url)
    except LocationParseError:
        # The library quotes the address, which may contain a key.
        raise ValueError("the address cannot be parsed: give one such as http://127.0.0.1:8000.") from None
    if parts.scheme not in ("http", "https") or not parts.host:
        raise ValueError("the address must start with http:// or https:// and name a server.")
    if parts.auth or parts.query or parts.fragment:
        raise ValueError(
            "the address must have no user, query or fragment: a key belongs in the environment variable "
            f"{KEY_VARIABLE}."
        )
    try:
        is_this_machine = parts.host == "localhost" or ipaddress.ip_address(parts.host.strip("[]")).is_loopback
    except ValueError:
        is_this_machine = False
    if parts.scheme == "http" and not is_this_machine:
        raise ValueError(
            f"http://{parts.host} would send voices over the network unencrypted: give https://, or forward a port of "
            "this machine to it."
        )
    path = (parts.path or "").rstrip("/")
    if not path.endswith("/chat/completions"):
        path += "/chat/completions" if path.endswith("/v1") else "/v1/chat/completions"
    return f"{parts.scheme}://{parts.netloc}{path}"


def _headers() -> dict[str, str]:
    key = os.environ.get(KEY_VARIABLE, "").strip()
    if not key:
        return {}
    # An HTTP library would quote the key in its error message.
    if not (key.isascii() and key.isprintable()) or " " in key:
        raise ValueError(f"{KEY_VARIABLE} contains characters that no key has, such as a space or a line break.")
    return {"Authorization": f"Bearer {key}"}
