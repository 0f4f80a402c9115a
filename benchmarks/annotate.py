"""What emphasis and description cost beside recognition.

    python -m msfser.benchmarks.annotate FOLDER

annotates every recording of a folder with the offline parts, 64 at a time, measures the steps in turn and writes
`benchmarks/results/annotate.json`: the time of emphasis and description as a share of the time of recognition (with
a bootstrap interval over the groups of 64), and the seconds of each step per second of sound. The README's figures are
those of the speech of RAVDESS (S. R. Livingstone and F. A. Russo, 2018; 1,440 clips) on two cores without a GPU.
"""

import argparse
import time
from collections.abc import Sequence

import numpy as np
from tqdm import tqdm

from ..annotator_msfser import Annotation, LazyProsody, MsfSerAnnotator
from ..audio_msfser import SAMPLING_RATE, load_audio
from ..corpora.audio_folder import read_audio_folder
from ..description_msfser import MeasuredDescriber
from ..evaluation.results import RESULTS, bootstrap, merge

COMMAND = "python -m msfser.benchmarks.annotate FOLDER"
TOGETHER = 64
STEPS = ("recognition", "emphasis", "description")


def main() -> None:
    """Measures, prints and writes."""
    parser = argparse.ArgumentParser(description="What do emphasis and description cost beside recognition?")
    parser.add_argument("folder", help="recordings in English")
    try:
        files = [audio["path"] for audio in read_audio_folder(parser.parse_args().folder)["audio"]]
    except ValueError as error:
        parser.error(str(error))
    annotator = MsfSerAnnotator(describer=MeasuredDescriber())
    _seconds(annotator, [load_audio(path) for path in files[:2]])
    spent, heard = [], []
    for start in tqdm(range(0, len(files), TOGETHER), desc="annotate"):
        sounds = [load_audio(path) for path in files[start : start + TOGETHER]]
        spent.append(_seconds(annotator, sounds))
        heard.append(sum(len(sound) for sound in sounds) / SAMPLING_RATE)
    times, seconds = np.array(spent), np.array(heard)
    measures = {"overhead_over_recognition": lambda drawn: times[drawn, 1:].sum() / times[drawn, 0].sum()}
    for column, step in enumerate(STEPS):
        measures[f"seconds_per_second/{step}"] = lambda drawn, c=column: times[drawn, c].sum() / seconds[drawn].sum()
    rows = [{"name": name, **bootstrap(of, len(times)), "command": COMMAND} for name, of in measures.items()]
    merge(RESULTS / "annotate.json", rows)
    for row in rows:
        print(f"{row['name']:36} {row['value']:.4f} ({row['low']:.4f}..{row['high']:.4f})")


def _seconds(annotator: MsfSerAnnotator, sounds: Sequence[np.ndarray]) -> list[float]:
    """The time of each step over some sounds; pitch and level count with the emphasis, which needs them first."""
    annotations, given, prosody = (
        [Annotation() for _ in sounds],
        [{"language": "en"}] * len(sounds),
        LazyProsody(sounds),
    )
    marks = [time.perf_counter()]
    annotator.transcribe(annotations, sounds, given)
    marks.append(time.perf_counter())
    annotator.emphasize(annotations, prosody, given)
    marks.append(time.perf_counter())
    annotator.describe(annotations, sounds, prosody, given)
    marks.append(time.perf_counter())
    return np.diff(marks).tolist()


if __name__ == "__main__":
    main()
