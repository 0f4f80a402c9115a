"""An hour of speech through the pipeline: memory, and whether the course shows when the voice changes.

    python -m msfser.benchmarks.long_recording

makes recordings of 2 and of 60 minutes in which one synthetic voice speaks calmly (slow, low, quiet) and excitedly
(fast, high, loud) by turns of 40 to 100 s. The model of `make train` hears each in a process of its own, words
recognized, and `benchmarks/results/serving.json` gets

- `long/peak_memory_ratio`: peak resident memory with 60 minutes against that with 2;
- `long/change_error_hops`: how far the course's changes of arousal lie from the inserted ones, at most, in hops (the
  mean distance between windows). A turn's level is the median of the windows that lie in it. A window in two turns is
  expected to lie between their levels by its share of each; the change in the course is where that fits it best from
  the middle of one turn to the middle of the next. This is done on the logit scale, on which the model adds.
  `long/median_change_error_hops` is the median of the same, `long/changes_within_one_hop` the share of 1 or less.

The voice says two sentences again and again, so that nothing but its manner changes, and an error is one of the
course's times. A third recording of 60 minutes draws from eight sentences. There the model's arousal also moves with
what is said, within turns too (rows `long/varied_...`).

It starts in the project's folder and takes about twenty minutes on two cores.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from transformers import pipeline

from ..corpora.probe.corpus import LEVEL_RANGE, PITCH_RANGE, RATE_RANGE, VOLUME
from ..corpora.probe.synthesizer import Synthesizer
from ..evaluation.command import shown_command
from ..evaluation.results import RESULTS, merge

STEADY = ("We put the boxes in the hall and went home.", "You can see the lake from the second floor.")
VARIED = (
    *STEADY,
    "The train to the coast leaves at nine.",
    "There is some bread on the table.",
    "My sister keeps her bicycle in the garden.",
    "The letter came on a Tuesday.",
    "They painted the kitchen door green and the window white.",
    "He reads the paper every morning before work.",
)
# Minutes and sentences.
RECORDINGS = {"short": (2, STEADY), "long": (60, STEADY), "varied": (60, VARIED)}


def main() -> None:
    """Makes the recordings, runs the pipeline on each, and writes the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="outputs/probe")
    parser.add_argument("--output_dir", type=Path, default=Path("outputs/benchmarks/long_recording"))
    parser.add_argument("--hear", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.hear is not None:
        print(json.dumps(hear(arguments.model, arguments.hear)))
        return
    arguments.output_dir.mkdir(parents=True, exist_ok=True)
    heard, values = {}, {}
    for name, (minutes, sentences) in RECORDINGS.items():
        path = arguments.output_dir / f"{name}.flac"
        changes = make_recording(path, 60 * minutes, sentences)
        hearing = [sys.executable, "-m", "msfser.benchmarks.long_recording", "--model", arguments.model]
        run = subprocess.run([*hearing, "--hear", str(path)], stdout=subprocess.PIPE, text=True)
        if run.returncode:
            raise SystemExit(f"{path} could not be heard by {arguments.model}: the reason stands above.")
        answer = run.stdout.splitlines()[-1]
        path.with_suffix(".json").write_text(answer + "\n", encoding="utf-8")
        heard[name] = json.loads(answer)
        print(f"{name}: {heard[name]['seconds']:.0f} s, peak {heard[name]['peak'] / 1e6:.0f} MB")
        if name == "short":
            continue
        errors = np.array(change_errors(heard[name]["course"], changes))
        prefix = "" if name == "long" else f"{name}_"
        values[f"{prefix}change_error_hops"] = errors.max().item()
        values[f"{prefix}median_change_error_hops"] = np.median(errors).item()
        values[f"{prefix}changes_within_one_hop"] = np.mean(errors <= 1).item()
    values["peak_memory_ratio"] = heard["long"]["peak"] / heard["short"]["peak"]
    command = shown_command("long_recording", sys.argv[1:])
    rows = [
        {"name": f"long/{name}", "value": value, "low": None, "high": None, "command": command}
        for name, value in values.items()
    ]
    merge(RESULTS / "serving.json", rows)
    for row in rows:
        print(f"{row['name']:28} {row['value']:.3f}")


def make_recording(path: Path, seconds: float, sentences: Sequence[str]) -> list[float]:
    """Writes a recording sentence by sentence; the turns are the same whatever its length.

    Returns:
        When the manner of speaking changes, seconds.
    """
    draw = np.random.default_rng(0)
    synthesizer = Synthesizer()
    synthesizer.set_voice("en-us")
    written, turn_ends, is_excited, changes = 0.0, draw.uniform(40, 100), False, []
    with soundfile.SoundFile(path, "w", synthesizer.rate, 1, subtype="PCM_16") as file:
        while written < seconds:
            if written > turn_ends:
                changes.append(written)
                turn_ends, is_excited = written + draw.uniform(40, 100), not is_excited
            sentence = sentences[draw.integers(len(sentences))]
            rate, pitch, level = (limits[is_excited] for limits in (RATE_RANGE, PITCH_RANGE, LEVEL_RANGE))
            spoken = synthesizer.speak(sentence, rate=round(rate), pitch=round(pitch), volume=VOLUME)
            speech = spoken.samples.astype(np.float64)
            speech *= 10 ** (level / 20) / np.sqrt(np.square(speech).mean())
            pause = np.zeros(int(draw.uniform(0.3, 0.8) * synthesizer.rate))
            file.write(np.clip(np.concatenate([speech, pause]), -1, 1))
            written += (len(speech) + len(pause)) / synthesizer.rate
    return changes


def hear(model: str, recording: str) -> dict[str, Any]:
    """Runs the pipeline once; `peak` is the resident memory of this process at most, in bytes."""
    pipe = pipeline(model=model, trust_remote_code=True, language="en")
    start = time.monotonic()
    course = pipe(recording)["course"]
    kibibytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"course": course, "seconds": time.monotonic() - start, "peak": 1024 * kibibytes}


def change_errors(course: Sequence[dict[str, Any]], changes: Sequence[float]) -> list[float]:
    """Distances of the inserted changes to those in the course, in hops; without the last turn, which is cut off."""
    starts, ends, arousal = np.array([[window[k] for k in ("start", "end", "arousal")] for window in course]).T
    logits = np.log(arousal / (1 - arousal))
    centers = (starts + ends) / 2
    edges = [0.0, *changes]
    errors = []
    for before, change, after in zip(edges, edges[1:], edges[2:], strict=False):
        first = np.median(logits[(starts > before) & (ends < change)])
        second = np.median(logits[(starts > change) & (ends < after)])
        low, high = (before + change) / 2, (change + after) / 2
        near = (centers > low) & (centers < high)
        moments = np.arange(low, high, 0.1)[:, None]
        share = np.clip((ends[near] - moments) / (ends - starts)[near], 0, 1)
        misfit = np.square(logits[near] - first - (second - first) * share).sum(1)
        errors.append(abs(moments[misfit.argmin()].item() - change) / np.diff(centers).mean())
    return [float(error) for error in errors]


if __name__ == "__main__":
    main()
