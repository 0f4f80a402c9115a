"""Whether the pipeline knows what is no speech: false alarms on speech, and misses on other sounds.

    python -m msfser.benchmarks.no_speech --data FOLDER --sounds FOLDER

`--data` is the folder with RAVDESS, EmoDB, nEMO and emotiontts_kr, half of whose speakers the decision was set on; the
rows are about the others. `--sounds` holds folders of recordings without speech, none of which it was set on. It was
set on the synthesized sounds of `benchmarks/other_sounds.py`. Rows go to `benchmarks/results/intervals.json`. From
sound alone, without a recognizer:

- `no_speech/false_alarms`: share of the speech that counts as none, clean and with noise at 10 dB; also by
  `CONDITION`, of which `telephone` and `room` are not in the mean, and by `CONDITION/CORPUS`.
- `no_speech/misses`: share of the recordings without speech that count as speech, and by `FOLDER`. A file of more than
  40 s gives three excerpts of 8 s, another one its first 8 s.
- `no_speech/synthesized/KIND`: misses of new sounds of the kinds that it was set on; the crowds have other voices.

`no_speech/words/...` are the same of the default pipeline, which also recognizes words, without being told the
language: false alarms clean and with noise, and misses by folder.

`--fit` prints the constants of `speech_presence_msfser.py` in place of this.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pandas as pd

from .. import sound_quality_msfser
from ..audio_msfser import SAMPLING_RATE, load_audio
from ..cli.errors import cli_errors
from ..evaluation.intervals import clusters, share_interval
from ..evaluation.leave_out import read_corpora, read_protocol
from ..evaluation.results import Row, row
from ..hub.loading import load_named
from ..pipeline_msfser import MsfSerPipeline
from ..sound_quality_msfser import LEAST_SPEECH, measured
from ..speech_presence_msfser import speech_measures
from ..training import augmentation
from .command import parser_of, record
from .other_sounds import SYNTHESIZED, crowd, sounds_of

# Whether a sound, `(samples,)` at 16 kHz, has speech.
Decision = Callable[[np.ndarray], bool]

CONDITIONS: Mapping[str, augmentation.Distortion] = {
    "clean": augmentation.nothing,
    "noise": lambda samples, draw: augmentation.noise(samples, draw, snr=10.0),
    "telephone": augmentation.telephone,
    "room": augmentation.room,
}
_STATED = ("clean", "noise")
_WORDS = "no_speech/words"
_CLIPS = 150  # of each corpus
_SOUNDS = 60  # of each kind
_EXCERPT, _LONG = 8 * SAMPLING_RATE, 40 * SAMPLING_RATE
# Whose voices are in the crowds: of the fit, and of the test.
_VOICES = (("ravdess", "emodb"), ("nemo", "emotiontts_kr"))
_FALSE_ALARMS = 0.01  # of the fit
_PENALTY = 0.03


def clips_of(data: Path, is_fit: bool) -> pd.DataFrame:
    """Clips of each corpus, of one half of its speakers: `corpus`, `speaker`, `path`."""
    clips, chosen = read_corpora(data, read_protocol()), []
    for _, of_corpus in clips.groupby("corpus", sort=False):
        speakers = np.random.default_rng(0).permutation(sorted(of_corpus["speaker"].unique()))
        half = speakers[: len(speakers) // 2] if is_fit else speakers[len(speakers) // 2 :]
        among = of_corpus[of_corpus["speaker"].isin(half)]
        chosen.append(among.sample(min(_CLIPS, len(among)), random_state=1))
    return pd.concat(chosen, ignore_index=True)


def has_speech(samples: np.ndarray) -> bool:
    """The decision of the pipeline from sound alone."""
    return measured(samples).speech_seconds() >= LEAST_SPEECH


def default_decision(model: str) -> Decision:
    """The decision of the pipeline as it is by default, with a model by its name."""
    named = load_named(model)
    ser = MsfSerPipeline(model=named.model, processor=named.processor)
    return lambda samples: bool(ser(samples, sampling_rate=SAMPLING_RATE)["has_speech"])


def speech_rows(
    clips: pd.DataFrame,
    decide: Decision = has_speech,
    prefix: str = "no_speech",
    conditions: Iterable[str] = CONDITIONS,
) -> list[Row]:
    """False alarms on speech."""
    missed = {name: np.zeros(len(clips), bool) for name in conditions}
    for i, path in enumerate(clips["path"]):
        samples = load_audio(path)
        for name, of_condition in missed.items():
            distorted = CONDITIONS[name](samples, np.random.default_rng([5, i])).astype(np.float32)
            of_condition[i] = not decide(distorted)
    speakers = clips["speaker"].to_numpy()
    stated = np.concatenate([missed[name] for name in _STATED])
    rows = [row(f"{prefix}/false_alarms", *share_interval(stated, clusters(np.tile(speakers, len(_STATED)))))]
    for name, of_condition in missed.items():
        rows.append(row(f"{prefix}/false_alarms/{name}", *share_interval(of_condition, clusters(speakers))))
        for corpus in clips["corpus"].unique():
            of_corpus = (clips["corpus"] == corpus).to_numpy()
            found = share_interval(of_condition[of_corpus], clusters(speakers[of_corpus]))
            rows.append(row(f"{prefix}/false_alarms/{name}/{corpus}", *found))
    return rows


def excerpts(folder: Path) -> Iterator[tuple[str, np.ndarray]]:
    """The excerpts of at least half a second of the recordings in a folder, with the name of each file."""
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        samples = load_audio(str(path), max_seconds=120.0)
        starts = [0] if len(samples) <= _LONG else [int(len(samples) * (k + 0.5) / 3) for k in range(3)]
        for start in starts:
            if len(samples) - start >= SAMPLING_RATE / 2:
                yield str(path), samples[start : start + _EXCERPT]


def sound_rows(sounds: Path, decide: Decision = has_speech, prefix: str = "no_speech") -> list[Row]:
    """Misses on recordings without speech."""
    files: list[str] = []
    hits: list[bool] = []
    rows = []
    for folder in sorted(path for path in sounds.iterdir() if path.is_dir()):
        found = [(file, decide(samples)) for file, samples in excerpts(folder)]
        of_folder, hits_of_folder = (list(column) for column in zip(*found, strict=True))
        rows.append(
            row(
                f"{prefix}/misses/{folder.name.replace('-', '_')}",
                *share_interval(hits_of_folder, clusters(of_folder)),
            )
        )
        files, hits = files + of_folder, hits + hits_of_folder
    return [row(f"{prefix}/misses", *share_interval(hits, clusters(files))), *rows]


def synthesized_rows(voices: Sequence[np.ndarray]) -> list[Row]:
    """Misses on new sounds of the kinds that the decision was set on, from sound alone."""
    rows = []
    for name, kind in {**SYNTHESIZED, "crowd": crowd(voices)}.items():
        hits_of_kind = [has_speech(samples) for samples in sounds_of(kind, _SOUNDS, 1)]
        rows.append(row(f"no_speech/synthesized/{name.replace(' ', '_')}", *share_interval(hits_of_kind)))
    return rows


def voices_of(clips: pd.DataFrame, corpora: Sequence[str]) -> list[np.ndarray]:
    """The sounds of the clips of some corpora."""
    return [load_audio(path) for path in clips["path"][clips["corpus"].isin(corpora)]]


def fit(data: Path) -> None:
    """Fits the score, and prints its constants."""
    from sklearn.linear_model import LogisticRegression

    found: list[np.ndarray | None] = []

    def measures_of(samples: np.ndarray) -> np.ndarray | None:
        found.clear()
        with mock.patch.object(sound_quality_msfser, "speech_score", _noted(found)):
            measured(samples)
        return found[0]

    clips = clips_of(data, is_fit=True)
    kinds = {**SYNTHESIZED, "crowd": crowd(voices_of(clips, _VOICES[0]))}
    groups: list[Any] = [[] for _ in range(1 + len(kinds))]
    for i, path in enumerate(clips["path"]):
        samples = load_audio(path)
        for name in ("clean", "noise", "telephone"):
            groups[0].append(measures_of(CONDITIONS[name](samples, np.random.default_rng([5, i])).astype(np.float32)))
    for group, kind in zip(groups[1:], kinds.values(), strict=True):
        group += [measures_of(samples) for samples in sounds_of(kind, _SOUNDS, 0)]
    groups = [np.array([measures for measures in group if measures is not None]) for group in groups]
    groups = [group for group in groups if len(group)]
    mean, deviation = groups[0].mean(0), groups[0].std(0)
    z = np.clip((np.concatenate(groups) - mean) / deviation, -4, 4)
    is_speech = np.arange(len(z)) < len(groups[0])
    # Speech as a whole weighs as much as all kinds together, and each kind the same.
    shares = np.concatenate([np.full(len(group), 1 / len(group) / (len(groups) - 1)) for group in groups])
    shares[is_speech] *= len(groups) - 1
    regression = LogisticRegression(C=_PENALTY, max_iter=5000)
    regression.fit(np.hstack([z, z**2]), is_speech, sample_weight=shares * len(z) / 2)
    scores = regression.decision_function(np.hstack([z, z**2]))
    constant = regression.intercept_[0] - np.quantile(scores[is_speech], _FALSE_ALARMS)
    linear, square = np.split(regression.coef_[0], 2)
    for name, values in (("mean", mean), ("deviation", deviation), ("linear", linear), ("square", square)):
        print(name, ", ".join(f"{value:.3f}" for value in values))
    print("constant", f"{constant:.3f}")


def _noted(found: list[np.ndarray | None]) -> Callable[..., float]:
    """A score that notes the measures."""

    def noted(*of_frames: np.ndarray) -> float:
        found.append(speech_measures(*of_frames))
        return -np.inf

    return noted


def main(argv: Sequence[str] | None = None) -> None:
    """Measures, prints and records the rows, or fits."""
    parser = parser_of("no_speech", __doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder with the acted corpora")
    parser.add_argument("--sounds", type=Path, help="folder with folders of recordings without speech")
    parser.add_argument("--model", default="starter", help="of the default pipeline, a folder or a name (starter)")
    parser.add_argument("--fit", action="store_true", help="print the constants of the decision")
    args = parser.parse_args(argv)
    if not args.fit and args.sounds is None:
        parser.error("--sounds is missing: give a folder with folders of recordings without speech.")
    with cli_errors("no_speech"):
        if args.fit:
            fit(args.data)
            return
        clips = clips_of(args.data, is_fit=False)
        rows = [*speech_rows(clips), *sound_rows(args.sounds), *synthesized_rows(voices_of(clips, _VOICES[1]))]
        decide = default_decision(args.model)
        rows += [*speech_rows(clips, decide, _WORDS, _STATED), *sound_rows(args.sounds, decide, _WORDS)]
        record("intervals", rows, "no_speech", argv)


if __name__ == "__main__":
    main()
