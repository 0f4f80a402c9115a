"""`msfser predict` on a folder of mixed recordings: the same table after kills and with two processes, and its speed.

    python -m msfser.benchmarks.predict
    python -m msfser.benchmarks.predict --data my/recordings

The folder has 300 recordings: WAV, FLAC, MP3, OGG and m4a, mono and stereo, at 8, 16, 44.1 and 48 kHz, of 0.3 s to 5
minutes; five of them are broken. They are pieces of synthetic speech, or of the recordings in FOLDER; the two channels
of a stereo recording differ in level. The command runs on one core with one thread, in float32 and, where the CPU has
it, in bfloat16, in turns; then it is killed (kill -9) at three moments and given again; then two processes share two
cores. Times are those of whole commands, start-up included: the median of the repeats, with the slowest and the
fastest. The machine has to be idle otherwise.

| row | value |
|---|---|
| `same_table/killed`, `same_table/two_processes` | 1 if the table is the same, byte by byte |
| `table/rows`, `table/errors` | rows of the table, and those without a result |
| `speed/hours_per_hour_and_core` | hours of sound that one core predicts in an hour |
| `predict/hours_per_core_hour` | the same, in the default precision; `predict_bfloat16/...` in bfloat16 |
| `speed/start_seconds` | of these, for imports |
| `speed/share_PART` | share of this time; `decode` is a thread's that runs at the same time |
| `speed/two_processes` | time of one process divided by that of two |
| `speed_bfloat16/...` | the same with `--precision bfloat16`, where the CPU has it |
"""

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pandas as pd
import soundfile
import soxr

from ..audio_msfser import SAMPLING_RATE, load_audio
from ..corpora.audio_folder import scan_folder
from ..corpora.probe.synthesizer import Synthesizer
from ..corpora.probe.texts import TEXTS
from ..evaluation.results import Row, row
from ..fast_products_msfser import has_bfloat16
from ..prediction.sharded_prediction import ShardedPrediction
from .command import check_repeats, parser_of, record
from .speed import machine

KINDS = ("wav", "flac", "mp3", "ogg", "m4a")
RATES = (8_000, 16_000, 44_100, 48_000)
SHORTEST, LONGEST = 0.3, 300.0
# Of the recordings that are cut from; more than the longest of them.
_SECONDS_OF_SPEECH = 900.0
KILLS = 3
_TOOK = re.compile(r"took ([\d.]+) s: (.*); meanwhile a thread decoded for (\d+)%")


def main(argv: Sequence[str] | None = None) -> None:
    """Makes the recordings, runs the commands, prints the rows and writes `benchmarks/results/predict.json`."""
    parser = parser_of("predict", __doc__)
    parser.add_argument("--data", metavar="FOLDER", help="recordings of speech; synthetic speech by default")
    parser.add_argument("--model", default="starter", help="a folder, a name on the Hub, or starter")
    parser.add_argument("--recordings", type=int, default=300, help="number of recordings (300)")
    parser.add_argument("--longest", type=float, default=LONGEST, help="seconds of the longest one (300)")
    parser.add_argument("--repeats", type=int, default=3, help="of the command in each precision (3)")
    parser.add_argument("--seed", type=int, default=0, help="of the recordings and the moments of the kills (0)")
    arguments = parser.parse_args(argv)
    check_repeats(parser, arguments.repeats)
    draw = np.random.default_rng(arguments.seed)
    with tempfile.TemporaryDirectory() as folder:
        recordings = Path(folder) / "recordings"
        speech = synthetic_speech(draw) if arguments.data is None else speech_of(arguments.data, draw)
        write_recordings(recordings, speech, arguments.recordings, arguments.longest, draw)
        rows = measure(recordings, Path(folder), arguments.model, arguments.repeats, draw)
    rows = [{**machine(), "threads": 1, **row} for row in rows]
    record("predict", rows, "predict", argv)
    # Beside the other speeds.
    record("speed", [row for row in rows if row["name"].endswith("/hours_per_core_hour")], "predict", argv)


def measure(recordings: Path, folder: Path, model: str, repeats: int, draw: np.random.Generator) -> list[Row]:
    """Runs the command in each way and compares its tables, which are written to `folder`."""
    cores = sorted(os.sched_getaffinity(0))[:2]
    names = [str(recordings), "--model", model]
    first = str(recordings / f"000.{KINDS[0]}")
    finish(start([first, "--model", model], folder / "first.csv", cores))  # assembles the starter

    runs: dict[str, list[tuple[float, str]]] = {"float32": [], "bfloat16": []}
    for repeat in range(repeats):
        for precision in runs if has_bfloat16() else ["float32"]:
            arguments = [*names, "--precision", precision]
            runs[precision].append(finish(start(arguments, folder / f"{precision}_{repeat}.csv", cores[:1])))
            print("{}: {:.0f} s\n{}".format(precision, *runs[precision][-1]), flush=True)
    expected = (folder / "float32_0.csv").read_bytes()
    table = pd.read_csv(folder / "float32_0.csv")
    hours = table["duration"].sum() / 3600
    rows = [
        row("table/rows", len(table)),
        row("table/errors", int(table["error"].notna().sum())),
        *speed("speed", hours, runs["float32"]),
    ]
    if runs["bfloat16"]:
        rows += speed("speed_bfloat16", hours, runs["bfloat16"])

    kill_at_random(names, folder / "killed.csv", cores, draw)
    finish(start(names, folder / "killed.csv", cores))
    rows.append(row("same_table/killed", (folder / "killed.csv").read_bytes() == expected))

    of_two, log = finish(start(names, folder / "two.csv", cores, processes=2))
    print(f"two processes: {of_two:.0f} s\n{log}")
    rows.append(row("same_table/two_processes", (folder / "two.csv").read_bytes() == expected))
    rows.append(row("speed/two_processes", median(runs["float32"])[0] / of_two))
    return rows


def start(
    arguments: Sequence[str], output: Path, cores: Sequence[int], processes: int = 1
) -> tuple["subprocess.Popen[str]", float]:
    """Starts the command on some cores, with one thread in each process; returns it with the time of its start."""
    command = ["-m", "msfser", "predict", *arguments, "-o", str(output)]
    if processes > 1:
        port = str(20_000 + os.getpid() % 20_000)
        launch = ["--multi_gpu", "--num_processes", str(processes), "--main_process_port", port]
        command = ["-m", "accelerate.commands.launch", *launch, *command]  # accelerate-launch
    started = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        start_new_session=True,
        preexec_fn=lambda: os.sched_setaffinity(0, cores),
    )
    return process, started


def finish(running: tuple["subprocess.Popen[str]", float]) -> tuple[float, str]:
    """Waits for a command; returns its seconds and the last lines that it printed.

    Raises:
        SystemExit: It failed.
    """
    process, started = running
    printed, _ = process.communicate()
    if process.returncode:
        raise SystemExit(f"the command ended with {process.returncode}: {printed[-2000:]}")
    return time.perf_counter() - started, "\n".join(printed.splitlines()[-8:])


def kill_at_random(arguments: Sequence[str], output: Path, cores: Sequence[int], draw: np.random.Generator) -> None:
    """Kills the command three times, each time further on, and gives it again each time but the last.

    Raises:
        SystemExit: It ended before it was killed.
    """
    # The command makes more shards than that, because the last ones are small.
    most = sum(path.is_file() for path in Path(arguments[0]).iterdir()) // ShardedPrediction.rows_per_shard
    for count in sorted(draw.choice(max(most, KILLS), KILLS, replace=False)):
        process, _ = start(arguments, output, cores)
        while (
            process.poll() is None and len([*output.with_name(f"{output.name}.parts").glob("data/*.parquet")]) < count
        ):
            time.sleep(0.01)
        time.sleep(float(draw.uniform(0, 2)))
        ended = process.poll() is not None
        os.killpg(process.pid, signal.SIGKILL)
        printed, _ = process.communicate()
        if ended or output.exists():
            raise SystemExit(f"the command ended before it was killed: {printed[-2000:]}")
        print(f"killed after {count} shards")


def median(runs: Sequence[tuple[float, str]]) -> tuple[float, str]:
    """The run whose time is the median."""
    return sorted(runs)[len(runs) // 2]


def speed(name: str, hours: float, runs: Sequence[tuple[float, str]]) -> list[Row]:
    """The speed of a command for so many hours of sound, and the share of each part, as the command prints them.

    Args:
        name: Of the rows.
        hours: Of sound.
        runs: Of the same command, the seconds of each and what it printed; the shares are those of the median.
    """
    seconds, log = median(runs)
    found = _TOOK.search(log)
    if found is None:
        raise SystemExit(f"the command does not say what the time went into: {log}")
    parts = dict(part.rsplit(" ", 1) for part in found[2].split(", ")) | {"decode": f"{found[3]}%"}
    speeds = [hours / (taken / 3600) for taken in (seconds, max(runs)[0], min(runs)[0])]
    return [
        row(f"{name}/hours_per_hour_and_core", *speeds),
        row(f"{name.replace('speed', 'predict')}/hours_per_core_hour", *speeds),
        row(f"{name}/start_seconds", seconds - float(found[1])),
        *(row(f"{name}/share_{part}", float(share.rstrip("%")) / 100) for part, share in parts.items()),
    ]


def synthetic_speech(draw: np.random.Generator) -> np.ndarray:
    """Minutes of synthetic speech by several voices, `(samples,)` at 16 kHz."""
    texts, synthesizer = TEXTS["train"], Synthesizer()
    pieces: list[np.ndarray] = []
    while sum(map(len, pieces)) < _SECONDS_OF_SPEECH * SAMPLING_RATE:
        synthesizer.set_voice(str(draw.choice(texts.voices)))
        words = " ".join(
            clause.format(first=draw.choice(texts.positive), second=draw.choice(texts.negative))
            for clause in draw.choice(texts.clauses, 4, replace=False)
        )
        speech = synthesizer.speak(words, rate=int(draw.integers(130, 220)), pitch=int(draw.integers(20, 80)))
        samples = speech.samples.astype(np.float32) / 2**15
        pieces.append(soxr.resample(samples, speech.rate, SAMPLING_RATE).astype(np.float32))
    return np.concatenate(pieces)


def speech_of(folder: str, draw: np.random.Generator) -> np.ndarray:
    """Minutes of the recordings in a folder, `(samples,)` at 16 kHz."""
    pieces: list[np.ndarray] = []
    for file in draw.permutation(scan_folder(folder).recordings):
        pieces.append(load_audio(str(file), max_seconds=60.0))
        if sum(map(len, pieces)) > _SECONDS_OF_SPEECH * SAMPLING_RATE:
            break
    return np.concatenate(pieces)


def write_recordings(folder: Path, speech: np.ndarray, count: int, longest: float, draw: np.random.Generator) -> None:
    """Writes recordings whose lengths are spread evenly over the octaves; five of them are broken."""
    folder.mkdir()
    seconds = draw.permutation(np.geomspace(SHORTEST, min(longest, len(speech) / SAMPLING_RATE / 2), count - 5))
    for number, length in enumerate(seconds):
        rate, channels = int(draw.choice(RATES)), int(draw.integers(1, 3))
        samples = round(length * SAMPLING_RATE)
        start = int(draw.integers(0, len(speech) - samples))
        sound = speech[start : start + samples] * draw.uniform(0.1, 0.9, (channels, 1))
        resampled = np.stack([soxr.resample(channel, SAMPLING_RATE, rate) for channel in sound]).astype(np.float32)
        write_sound(folder / f"{number:03d}.{KINDS[number % len(KINDS)]}", resampled, rate)
    (folder / "empty.wav").write_bytes(b"")
    (folder / "text.wav").write_text("This is not a sound.\n")
    whole = next(folder.glob("*.m4a")).read_bytes()
    (folder / "truncated.m4a").write_bytes(whole[: len(whole) // 3])
    soundfile.write(folder / "nan.wav", np.full(SAMPLING_RATE, np.nan, np.float32), SAMPLING_RATE, subtype="FLOAT")
    (folder / "header.wav").write_bytes(b"RIFF and nothing else")


def write_sound(file: Path, sound: np.ndarray, rate: int) -> None:
    """Writes samples `(channels, samples)` in the format of the file's name."""
    if file.suffix != ".m4a":
        with soundfile.SoundFile(file, "w", rate, len(sound)) as opened:
            for start in range(0, sound.shape[1], rate):  # more at once overflows the stack of the OGG encoder
                opened.write(sound[:, start : start + rate].T)
        return
    layout = "stereo" if len(sound) == 2 else "mono"
    with av.open(str(file), "w", format="mp4") as container:
        stream = container.add_stream("aac", rate=rate)
        stream.layout = layout
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(sound), format="fltp", layout=layout)
        frame.sample_rate, frame.pts, frame.time_base = rate, 0, Fraction(1, rate)
        resampler = av.AudioResampler("fltp", layout, rate, frame_size=stream.codec_context.frame_size or 1024)
        for piece in [*resampler.resample(frame), *resampler.resample(None)]:
            container.mux(stream.encode(piece))
        container.mux(stream.encode(None))


if __name__ == "__main__":
    main()
