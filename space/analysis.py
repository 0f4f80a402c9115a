"""Runs the pipeline for the page: one recording at a time, with progress, and within limits."""

import contextvars
import html
import threading
from collections.abc import Generator, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any, TypeAlias

import gradio as gr
import numpy as np
import torch
from transformers import Pipeline, pipeline

from . import texts

MOST_MINUTES = 5
MOST_MEGABYTES = 60  # five minutes of 16-bit stereo at 48 kHz
# Five minutes of fast speech; a description or some emphasized words need less.
MOST_LETTERS = 8_000
MOST_LETTERS_OF_A_LANGUAGE = 40
MINUTES_KEPT = 10
THREADS = 2  # the free tier of Spaces has two cores
_SECONDS_A_LOOK = 0.4

Text: TypeAlias = str | None
_job: contextvars.ContextVar = contextvars.ContextVar("_job", default=None)
# One thread for all: the model runs on one recording at a time, and each thread that computes keeps its own memory.
_worker = ThreadPoolExecutor(1, thread_name_prefix="model")


class _Stopped(Exception):
    """The visitor has canceled the job or gone away."""


class _Job:
    """What has been done of one recording; `ends` are those of its segments, in seconds."""

    def __init__(self) -> None:
        self.ends: list[float] = []
        self.windows = 0
        self.stopped = threading.Event()

    @property
    def done(self) -> float:
        """Up to where the windows are scored: the first one has two segments, each other one more."""
        return self.ends[min(self.windows, len(self.ends) - 1)] if self.windows else 0.0

    def check(self) -> None:
        if self.stopped.is_set():
            raise _Stopped


def load(model: str, revision: str | None = None, **options: Any) -> Pipeline:
    """Loads the model, a folder or Hub name, and what it needs, so that the first visitor does not have to wait.

    Raises:
        OSError: The model or the recognizer cannot be found.
        ValueError: It is not a model of this project.
    """
    torch.set_num_threads(THREADS)
    ser = pipeline("audio-classification", model=model, revision=revision, trust_remote_code=True, **options)
    _watch(ser)
    silence = {"array": np.zeros(16_000, np.float32), "sampling_rate": 16_000}
    # A model that reads no sound has nothing to score in it.
    _worker.submit(ser, silence, errors="return").result()
    return ser


def _watch(ser: Any) -> None:
    """Lets a pipeline tell its job of each segment that it reads and of each window that it scores."""
    preprocess, forward = ser.preprocess, ser.forward

    def watched_preprocess(*args: Any, **kwargs: Any) -> Iterator[Any]:
        job = _job.get()
        for segment in preprocess(*args, **kwargs):
            if job is not None:
                job.check()
                job.ends.append(segment.start + segment.seconds)
            yield segment

    def watched_forward(*args: Any, **kwargs: Any) -> Any:
        output = forward(*args, **kwargs)
        if (job := _job.get()) is not None:
            job.windows += 1
            job.check()
        return output

    ser.preprocess, ser.forward = watched_preprocess, watched_forward


def predict(ser: Pipeline, audio: Text, **given: Text) -> dict[str, Any]:
    """Runs the pipeline on the recording at a path, and returns its output.

    Given are `transcript`, `emphasis`, `description`, and `language`; those that are empty count as not given.

    Raises:
        gradio.Error: The recording or a text cannot be used.
    """
    steps = follow(ser, audio, **given)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            result: dict[str, Any] = end.value
            return result


def follow(ser: Pipeline, audio: Text, **given: Text) -> Generator[tuple[float | None, str], None, dict[str, Any]]:
    """As [`predict`], and tells on the way how much is done.

    Closing the generator stops the job after the window that is being computed.

    Yields:
        The fraction that is done, 0..1, or `None` while that is not known; and the same in words.
    """
    chosen = checked_texts(given)
    seconds = checked_seconds(ser, audio)
    job, context = _Job(), contextvars.copy_context()
    context.run(_job.set, job)
    future: Future[dict[str, Any]] = _worker.submit(context.run, ser, {"audio": audio, **chosen})
    try:
        while not future.done():
            if done := min(job.done, seconds):
                yield done / seconds, f"Analyzed {done:.0f} of {seconds:.0f} s"
            else:
                yield None, f"Processing {seconds:.0f} s of audio"
            wait([future], _SECONDS_A_LOOK)
        return future.result()
    except (ValueError, OSError, ImportError) as error:
        raise user_error(str(error).replace(repr(audio), "the recording")) from error
    finally:
        job.stopped.set()
        future.cancel()


def checked_seconds(ser: Any, audio: Text) -> float:
    """The length of a recording of a known format that is within the limits."""
    if audio is None:
        raise user_error("There is no recording yet: record or upload one first.")
    if not Path(audio).is_file():
        raise user_error(f"The recording has been deleted after {MINUTES_KEPT} minutes: record or upload it again.")
    if Path(audio).stat().st_size > MOST_MEGABYTES * 1_000_000:
        raise user_error(f"The file is larger than {MOST_MEGABYTES} MB: shorten it, or save it as FLAC or MP3.")
    try:
        seconds = float(ser.seconds(audio, MOST_MINUTES * 60))
    except (ValueError, OSError) as error:
        raise user_error(
            "This file cannot be read as audio: save it as WAV, FLAC, OGG, MP3 or M4A, and upload it again."
        ) from error
    if not seconds:
        raise user_error("The recording is empty: record or upload another one.")
    if seconds > MOST_MINUTES * 60:
        raise user_error(f"The recording is longer than {MOST_MINUTES} minutes: cut it into parts.")
    return seconds


def checked_texts(given: Mapping[str, Text]) -> dict[str, Text]:
    """Texts that are within the limit; those that are empty are `None`."""
    for name, text in given.items():
        if text is not None and not isinstance(text, str):
            raise user_error(f"The {name} is not text: type it, or leave it empty.")
        most = MOST_LETTERS_OF_A_LANGUAGE if name == "language" else MOST_LETTERS
        if text and len(text) > most:
            raise user_error(f"The {name} is longer than {most:,} characters: shorten it.")
    return {name: text or None for name, text in given.items()}


def user_error(message: str) -> gr.Error:
    """An error that a visitor sees; the page shows messages as HTML."""
    return gr.Error(html.escape(message[:1].upper() + message[1:]), title=texts.FAILED, print_exception=False)
