"""The tab Live: the microphone, and the results while somebody speaks."""

import contextlib
import queue
import threading
import time
import traceback
from collections import deque
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
import soundfile
from gradio.utils import get_upload_folder
from transformers import Pipeline

from . import figures, texts
from .analysis import Text, user_error

MOST_MINUTES = 10
MOST_SESSIONS = 2  # at once; others wait
_SECONDS_A_CHUNK = 1.0
_MOST_CHUNKS = 40  # that wait
_MOST_LOST = 2.0  # seconds, without a note
_SECONDS_SHOWN = 60.0
_WORDS_SHOWN = 40
# Without a new chunk, somebody has closed the page.
_PATIENCE = 20.0
_KEPT = (
    *("start", "end", *texts.SCALES, "intervals", "interval_level", "percentiles", "percentiles_of"),
    *("transcript", "has_speech", "speech_seconds", "warnings"),
)


class Session:
    """One visitor's stream: sound comes in, and results are kept without the sound.

    Args:
        ser: The pipeline.
        sampling_rate: Of the sound, in Hz.
        language: That is spoken; if it is empty, it is not stated.
        take: The number of the recording that the session is about.
    """

    def __init__(self, ser: Any, sampling_rate: int, language: Text = None, take: int = 0):
        self.take = take
        self.results: deque[dict[str, Any]] = deque(maxlen=MOST_MINUTES * 60)
        self.words: deque[dict[str, Any]] = deque(maxlen=MOST_MINUTES * 300)
        self.tentative: list[dict[str, Any]] = []
        self.skipped = 0
        self.failure: str | None = None
        self.lost = 0.0  # seconds of sound that have not arrived
        self._start, self._seconds = 0.0, 0.0
        self._last_seen: Any = None
        self._chunks: queue.Queue[np.ndarray | None] = queue.Queue(_MOST_CHUNKS)
        self._thread = threading.Thread(target=self._run, args=(ser, sampling_rate, language), daemon=True)
        self._thread.start()

    @property
    def is_open(self) -> bool:
        """Whether it still runs."""
        return self._thread.is_alive()

    def has_news(self) -> bool:
        """Whether there is something that was not there at the last call."""
        state = (len(self.results), self.failure, self.results[-1]["end"] if self.results else None)
        is_new, self._last_seen = state != self._last_seen, state
        return is_new

    def add(self, samples: np.ndarray, sampling_rate: int) -> None:
        """Adds sound, `(samples,)`; if too much is waiting already, it is left out."""
        self._seconds += len(samples) / sampling_rate
        self._start = self._start or time.monotonic() - self._seconds
        self.lost = max(0.0, time.monotonic() - self._start - self._seconds)
        with contextlib.suppress(queue.Full):
            self._chunks.put_nowait(samples)

    def stop(self) -> None:
        """Ends the stream and waits for its last result."""
        with contextlib.suppress(queue.Full):
            self._chunks.put_nowait(None)
        self._thread.join(_PATIENCE)

    def _incoming(self) -> Iterator[np.ndarray]:
        try:
            while (samples := self._chunks.get(timeout=_PATIENCE)) is not None:
                yield samples
        except queue.Empty:
            self.failure = f"No sound has arrived for {_PATIENCE:.0f} s: press Stop and start again."

    def _run(self, ser: Any, sampling_rate: int, language: Text) -> None:
        try:
            for result in ser.stream(self._incoming(), sampling_rate, skip=True, language=language or None):
                self._keep(result)
        except Exception:
            traceback.print_exc()
            self.failure = "Live analysis has stopped because of an error: press Stop and start again."

    def _keep(self, result: Mapping[str, Any]) -> None:
        self.skipped += result["skipped"]
        self.words.extend(result["words"])
        self.tentative = result["tentative"]
        # At the end, the last result is repeated with the words that are left.
        if not self.results or result["end"] > self.results[-1]["end"]:
            self.results.append({name: result.get(name) for name in _KEPT})


def panel(session: Session | None, is_over: bool = False) -> str:
    """The results so far; all of them once it is over or has failed."""
    if session is None:
        return figures.message("No sound yet", "Press <b>Record</b> and speak. The first numbers come after a second.")
    failure = figures.failure(session.failure) if session.failure else ""
    results = list(session.results)
    if not results:
        ready = panel(None) if is_over else figures.message("Recording", "The first numbers come after a second.")
        return failure or ready
    is_over = is_over or bool(failure)
    newest, end = results[-1], results[-1]["end"]
    start = 0.0 if is_over else max(0.0, end - _SECONDS_SHOWN)
    if is_over:
        now = f'<h2 class="ser-title">{texts.minutes(end)} analyzed</h2>'
    elif newest["valence"] is None:
        now = figures.message("No numbers", figures.escaped(" ".join(newest["warnings"])))
    else:
        title = f'<h2 class="ser-title">The last {end - newest["start"]:.0f} s</h2>'
        now = f"{title}{figures.notes(newest)}{figures.scales(newest)}{figures.hint(newest)}"
    words = [*session.words, *session.tentative]
    said = figures.spoken(words if is_over else words[-_WORDS_SHOWN:], " ")
    parts = [now, figures.course(results, end, start)]
    if said:
        parts.append(f'<section><h3>Words</h3><p class="ser-words" tabindex="0">{said}</p></section>')
    if session.skipped:
        left_out = "1 result was" if session.skipped == 1 else f"{session.skipped} results were"
        parts.append(f'<p class="ser-note">{left_out} left out to keep up.</p>')
    if session.lost > _MOST_LOST:
        parts.append(f'<p class="ser-note">{session.lost:.0f} s of sound did not arrive: the page is too busy.</p>')
    if is_over:
        everything = {"course": results, "words": [*session.words], "duration": end}
        parts.append(figures.downloads(everything, "speech-emotion-live"))
    return f'{failure}<div class="ser">{"".join(parts)}</div>'


def tab(ser: Pipeline, opened: gr.Tab, language: gr.Dropdown | None) -> None:
    """The components of the tab and their events; the language can be chosen if words are recognized."""
    with gr.Row(elem_classes="ser-live"):
        with gr.Column(scale=5, min_width=300):
            gr.Markdown(texts.LIVE_NOTICE)
            audio = gr.Audio(sources=["microphone"], streaming=True, type="filepath", buttons=[], label="Microphone")
            if language is not None:
                language.render()
        with gr.Column(scale=8, min_width=300):
            shown = gr.HTML(panel(None), apply_default_css=False)
    # One for each visitor; it is dropped with the visitor's session.
    session = gr.State(None)
    # It comes with each piece of sound, so that one that has waited for its turn does not get into a later recording.
    take = gr.Number(0, label="Take", precision=0, visible=False)
    chosen = [] if language is None else [language]

    def start(take: int) -> list[Any]:
        """Begins another recording, whose language stays the same."""
        waiting = figures.message(
            "Waiting for sound",
            "Allow the microphone if the browser asks. The first numbers come after a second. While "
            f"{MOST_SESSIONS} others are live, your turn comes when one of them stops, after {MOST_MINUTES} minutes "
            "at the latest.",
        )
        return [take + 1, waiting, *[gr.Dropdown(interactive=False) for _ in chosen]]

    def add(chunk: Text, session: Session | None, take: int, language: Text = None) -> list[Any]:
        """Adds the next piece of sound."""
        if chunk is None:
            return [session, gr.skip()]
        samples, rate = _taken(chunk)
        if session is None or session.take != take:
            session = Session(ser, rate, language, take)
        if session.failure is None:
            session.add(samples, rate)
        return [session, panel(session) if session.has_news() else gr.skip()]

    def stop(session: Session | None, take: int) -> list[Any]:
        """Ends the stream, whose results can then be downloaded."""
        if session is not None:
            session.stop()
        is_current = session is not None and session.take == take
        over = panel(session if is_current else None, is_over=True)
        return [None, over, *[gr.Dropdown(interactive=True) for _ in chosen]]

    event: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
    # On the page, a chunk is a tenth of a second whatever the event says, unless the component's property is updated
    # there. Of chunks that come faster than they are taken, only the newest is.
    chunks = f"() => ({{__type__: 'update', stream_every: {_SECONDS_A_CHUNK}}})"
    opened.select(None, None, audio, js=chunks, api_name="open_live")
    audio.start_recording(start, [take], [take, shown, *chosen], api_name="start", queue=False, **event)
    audio.stream(
        add,
        [audio, session, take, *chosen],
        [session, shown],
        api_name="add_sound",
        time_limit=MOST_MINUTES * 60,
        concurrency_limit=MOST_SESSIONS,
        concurrency_id="live",
        **event,
    )
    audio.stop_recording(stop, [session, take], [session, shown, *chosen], api_name="stop", queue=False, **event)


def _taken(chunk: str) -> tuple[np.ndarray, int]:
    """The sound of a chunk, mono, and its rate; its file is deleted."""
    # The files that the page serves, such as the examples, reach this function, too.
    if not Path(chunk).resolve().is_relative_to(Path(get_upload_folder()).resolve()):
        raise user_error("This file is not a piece of a recording: press Record and speak.")
    try:
        samples, rate = soundfile.read(chunk, dtype="float32", always_2d=True)
    except (OSError, RuntimeError) as error:
        raise user_error("The sound of the microphone cannot be read: reload the page and try again.") from error
    finally:
        Path(chunk).unlink(missing_ok=True)
    return samples.mean(1), rate
