"""Streams: how fast they are, how soon a result comes, and whether memory stays flat and windows equal a recording's.

    OMP_NUM_THREADS=2 python -m msfser.benchmarks.live
    OMP_NUM_THREADS=2 python -m msfser.benchmarks.live rtf delay --seconds 60 --repeats 1

with the starter, windows of 4 s and hops of 1 s. The sound is that of the page's examples, one after another with a
pause of a second, or of the recordings in `--data`, again and again. Writes to `benchmarks/results/live.json`

| group | rows |
|---|---|
| `rtf` | `rtf/words`, the time for a second of sound, with its lowest and highest; `rtf/sound`, without any text |
| `delay` | `delay/median`, seconds from the end of a hop to its result, from a source in real time; `delay/skipped` |
| `memory` | `memory/growth` in a stream of `--minutes`, as fast as it goes |
| `equality` | `equality/max_difference` from the recording cut the same way; `equality/texts`, windows with others |

The ends of the delay are its 5 and 95% quantiles. The growth is that of the largest resident memory: of the last three
quarters of the stream against the first quarter.

Each row says with which machine, versions, threads and load (processes that wanted to run in the last minute).
"""

import os
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from ..audio_msfser import SAMPLING_RATE, load_audio
from ..configuration_msfser import LABELS, TENSOR_NAMES
from ..corpora.audio_folder import AUDIO_SUFFIXES
from ..evaluation.results import Row, row
from ..hub.loading import load_named
from ..pipeline_msfser import MsfSerPipeline
from .command import parser_of, record
from .speed import machine

EXAMPLES = Path(__file__).parents[1] / "space" / "examples"
_CHUNK = SAMPLING_RATE // 10
_SOUND_ALONE = {"recognizer": None, "describer": None}


def main(argv: Sequence[str] | None = None) -> None:
    """Measures the groups that are asked for, prints the rows and writes them."""
    parser = parser_of("live", __doc__)
    parser.add_argument("groups", nargs="*", default=list(GROUPS), help=f"some of {', '.join(GROUPS)}; all of them")
    parser.add_argument("--data", type=Path, default=EXAMPLES, help="a folder of English recordings (the examples)")
    parser.add_argument("--model", default="starter", help="a folder or a name (starter)")
    parser.add_argument("--seconds", type=int, default=120, help="of sound, for all but memory (120)")
    parser.add_argument("--minutes", type=int, default=60, help="of sound, for memory (60)")
    parser.add_argument("--repeats", type=int, default=3, help="of the real-time factors (3)")
    arguments = parser.parse_args(argv)
    if unknown := sorted(set(arguments.groups) - set(GROUPS)):
        parser.error(f"{', '.join(unknown)}: there is no such group of rows, only {', '.join(GROUPS)}.")
    sound = speech(arguments.data)
    named = load_named(arguments.model)
    ser = MsfSerPipeline(model=named.model, processor=named.processor, language="en")
    list(ser.stream([sound[: 5 * SAMPLING_RATE]], SAMPLING_RATE))  # loads the recognizer
    for group in arguments.groups:
        rows = GROUPS[group](ser, sound, arguments)
        beside = {**machine(), "load": round(os.getloadavg()[0], 1)}
        record("live", [{**beside, **one} for one in rows], "live", argv)


def speech(folder: Path) -> np.ndarray:
    """The recordings in a folder, `(samples,)` at 16 kHz, with a second of silence after each.

    Raises:
        ValueError: There are none.
    """
    pause = np.zeros(SAMPLING_RATE, np.float32)
    return np.concatenate([part for path in recordings_in(folder) for part in (load_audio(path), pause)])


def recordings_in(folder: Path) -> list[Path]:
    """The recordings in a folder.

    Raises:
        ValueError: There are none.
    """
    files = sorted(path for path in folder.iterdir() if path.suffix.lower() in AUDIO_SUFFIXES)
    if not files:
        raise ValueError(f"there are no recordings in {folder}: give another --data.")
    return files


def chunks(sound: np.ndarray, seconds: float) -> Iterator[np.ndarray]:
    """So many seconds of the sound, again and again, 0.1 s at a time."""
    for start in range(0, round(seconds * SAMPLING_RATE), _CHUNK):
        yield np.take(sound, np.arange(start, start + _CHUNK), mode="wrap")


def paced(items: Iterator[np.ndarray], clock: Callable[[], float] = time.monotonic) -> Iterator[np.ndarray]:
    """The chunks at the times at which a microphone has them."""
    start = clock()
    for i, chunk in enumerate(items, 1):
        time.sleep(max(0.0, start + i * _CHUNK / SAMPLING_RATE - clock()))
        yield chunk


def rtf(ser: MsfSerPipeline, sound: np.ndarray, arguments: Any) -> list[Row]:
    """The real-time factors."""
    rows = []
    kinds: dict[str, dict[str, Any]] = {"words": {}, "sound": _SOUND_ALONE}
    for name, options in kinds.items():
        spent = []
        for _ in range(arguments.repeats):
            start = time.perf_counter()
            for _ in ser.stream(chunks(sound, arguments.seconds), SAMPLING_RATE, **options):
                pass
            spent.append((time.perf_counter() - start) / arguments.seconds)
        rows.append(row(f"rtf/{name}", np.median(spent), min(spent), max(spent)))
    return rows


def delay(ser: MsfSerPipeline, sound: np.ndarray, arguments: Any) -> list[Row]:
    """How long after the end of a hop its result is there."""
    delays, skipped, start = [], 0, time.monotonic()
    # The source starts with the stream, before its first chunk.
    for result in ser.stream(paced(chunks(sound, arguments.seconds)), SAMPLING_RATE, skip=True):
        delays.append(time.monotonic() - start - result["end"])
        skipped += result["skipped"]
    ends = np.quantile(delays, [0.05, 0.95])
    return [row("delay/median", np.median(delays), *ends), row("delay/skipped", skipped)]


def memory(ser: MsfSerPipeline, sound: np.ndarray, arguments: Any) -> list[Row]:
    """How much memory a long stream needs at its end against its start."""
    process, used = psutil.Process(), []
    for _ in ser.stream(chunks(sound, 60 * arguments.minutes), SAMPLING_RATE):
        used.append(process.memory_info().rss)
    quarter = len(used) // 4
    return [row("memory/growth", max(used[quarter:]) / max(used[:quarter]) - 1)]


def equality(ser: MsfSerPipeline, sound: np.ndarray, arguments: Any) -> list[Row]:
    """Whether windows equal those of the recording."""
    whole = np.concatenate(list(chunks(sound, arguments.seconds)))
    largest, others = 0.0, 0
    for result in ser.stream(np.split(whole, range(777, len(whole), 777)), SAMPLING_RATE):
        if result["valence"] is None:
            continue
        start, end = (round(result[edge] * SAMPLING_RATE) for edge in ("start", "end"))
        cut = ser(whole[start:end], sampling_rate=SAMPLING_RATE)
        largest = max(largest, *(abs(result[name] - cut[name]) for name in LABELS))
        others += any(result[name] != cut[name] for name in TENSOR_NAMES)
    return [row("equality/max_difference", largest), row("equality/texts", others)]


GROUPS: dict[str, Callable[[MsfSerPipeline, np.ndarray, Any], list[Row]]] = {
    "rtf": rtf,
    "delay": delay,
    "memory": memory,
    "equality": equality,
}


if __name__ == "__main__":
    main()
