"""The pipeline for many recordings: they are decoded ahead of the model, and the time of each part is known."""

import queue
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from ..pipeline_msfser import MsfSerPipeline

# Passages of at most two segments, 12 s, that are decoded ahead of the model.
_AHEAD = 64


class Stopwatch:
    """Seconds spent in the parts of a run, by their names; a part does not include those that run inside it.

    Args:
        clock: Gives seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._clock = clock

    @contextmanager
    def measure(self, part: str) -> Iterator[None]:
        """Adds the time of what runs inside."""
        start, before = self._clock(), sum(self.seconds.values())
        try:
            yield
        finally:
            inside = sum(self.seconds.values()) - before
            self.seconds[part] += self._clock() - start - inside

    def measured(self, items: Iterable[Any], part: str) -> Iterator[Any]:
        """The same items, with the time that each takes to be made."""
        iterator, end = iter(items), object()
        while True:
            with self.measure(part):
                item = next(iterator, end)
            if item is end:
                return
            yield item


class TimedPipeline(MsfSerPipeline):
    """The pipeline with a thread that reads, decodes and cuts recordings ahead of the model.

    Attributes:
        stopwatch: The seconds of the parts of the calling thread: `wait` for sound, `recognize` words, `prepare`
            features and texts, `encode` (the model), and what its user adds.
        background: The seconds that the other thread was busy.
    """

    def __init__(self, *args: Any, **kwargs: Any):
        self.stopwatch = Stopwatch()
        self.background = Stopwatch(time.thread_time)
        super().__init__(*args, **kwargs)

    def _passages(self, items: Any) -> Iterator[Any]:
        decoded = self.background.measured(super()._passages(items), "decode")
        return self.stopwatch.measured(ahead(decoded), "wait")

    def _transcribe_segments(self, *args: Any) -> Any:
        with self.stopwatch.measure("recognize"):
            return super()._transcribe_segments(*args)

    def _score(self, *args: Any) -> Any:
        with self.stopwatch.measure("prepare"):
            return super()._score(*args)

    def _forward(self, *args: Any, **parameters: Any) -> Any:
        with self.stopwatch.measure("encode"):
            return super()._forward(*args, **parameters)


def ahead(items: Iterable[Any], count: int = _AHEAD) -> Iterator[Any]:
    """The same items, of which a thread makes some before they are asked for."""
    made: queue.Queue[Any] = queue.Queue(count)
    is_left = threading.Event()

    def put(entry: tuple[str, Any]) -> bool:
        while not is_left.is_set():
            with suppress(queue.Full):
                made.put(entry, timeout=0.1)
                return True
        return False

    def make() -> None:
        try:
            for item in items:
                if not put(("item", item)):
                    return
            put(("end", None))
        except BaseException as error:
            put(("error", error))

    threading.Thread(target=make, daemon=True).start()
    try:
        while True:
            kind, value = made.get()
            if kind == "end":
                return
            if kind == "error":
                raise value
            yield value
    finally:
        is_left.set()
