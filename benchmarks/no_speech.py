"""Whether the pipeline knows what is no speech: false alarms on speech, and misses on other sounds.

    python -m msfser.benchmarks.no_speech --data FOLDER --sounds FOLDER

`--data` is the folder with RAVDESS, EmoDB, nEMO and emotiontts_kr; on half of their speakers, and on the synthesized
sounds of `benchmarks/other_sounds.py`, the numbers of `speech_presence_msfser.py` were chosen; the rows are about the
others. `--sounds` holds folders of recordings without speech, which had no part in it. Rows go to
`benchmarks/results/intervals.json`. From sound alone, without a recognizer:

- `no_speech/false_alarms`: share of the speech that counts as none, clean and with noise at 10 dB; also by
  `CONDITION`, of which only these two are in the mean, and by `CONDITION/CORPUS`.
- `no_speech/misses`: share of the recordings without speech that count as speech, and by `FOLDER`. A file of more than
  40 s gives three excerpts of 8 s, another one its first 8 s.
- `no_speech/synthesized/KIND`: misses of new sounds of the kinds of the choice; the crowds have other voices.

`no_speech/words/...` are the same of the default pipeline, which also recognizes words, without being told the
language: false alarms clean and with noise, and misses by folder.

`--tune` prints what the numbers were chosen by, in place of this.
"""

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from ..audio_msfser import SAMPLING_RATE, load_audio
from ..cli.errors import cli_errors
from ..evaluation.intervals import clusters, share_interval
from ..evaluation.leave_out import read_corpora, read_protocol
from ..evaluation.results import Row, row
from ..hub.loading import load_named
from ..levels_msfser import at_level
from ..pipeline_msfser import MsfSerPipeline
from ..sound_quality_msfser import LEAST_SPEECH, SHORTEST_SPEECH, measured
from ..speech_presence_msfser import STEP, level_range, pause_probability, speech_probabilities
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
    "noise_5_db": lambda samples, draw: augmentation.noise(samples, draw, snr=5.0),
}
_STATED = ("clean", "noise")
_WORDS = "no_speech/words"
_CLIPS = 150  # of each corpus
_SOUNDS = 60  # of each kind
_EXCERPT, _LONG = 8 * SAMPLING_RATE, 40 * SAMPLING_RATE
# Whose voices are in the crowds: of the choice, and of the test.
_VOICES = (("ravdess", "emodb"), ("nemo", "emotiontts_kr"))
# What was chosen from: levels of the loud parts, and probabilities from which a step is speech.
_LEVELS, _PROBABILITIES = (0.05, 0.1, 0.2, 0.4), (0.3, 0.4, 0.5)
# Of crowds, at this level: ranges of the level in dB, and probabilities in pauses.
_LEVEL, _RANGES, _PAUSES = 0.1, (10.0, 11.0, 12.0, 13.0), (0.02, 0.05, 0.1)


def clips_of(data: Path, is_tuning: bool) -> pd.DataFrame:
    """Clips of each corpus, of one half of its speakers: `corpus`, `speaker`, `path`."""
    clips, chosen = read_corpora(data, read_protocol()), []
    for _, of_corpus in clips.groupby("corpus", sort=False):
        speakers = np.random.default_rng(0).permutation(sorted(of_corpus["speaker"].unique()))
        half = speakers[: len(speakers) // 2] if is_tuning else speakers[len(speakers) // 2 :]
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
        for name, samples in _distorted(i, path, missed).items():
            missed[name][i] = not decide(samples)
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
    """Misses on new sounds of the kinds of the choice, from sound alone."""
    rows = []
    for name, kind in {**SYNTHESIZED, "crowd": crowd(voices)}.items():
        hits_of_kind = [has_speech(samples) for samples in sounds_of(kind, _SOUNDS, 1)]
        rows.append(row(f"no_speech/synthesized/{name.replace(' ', '_')}", *share_interval(hits_of_kind)))
    return rows


def _distorted(i: int, path: str, conditions: Iterable[str]) -> dict[str, np.ndarray]:
    """The sound of a clip in each condition."""
    samples = load_audio(path)
    return {name: CONDITIONS[name](samples, np.random.default_rng([5, i])).astype(np.float32) for name in conditions}


def voices_of(clips: pd.DataFrame, corpora: Sequence[str]) -> list[np.ndarray]:
    """The sounds of the clips of some corpora."""
    return [load_audio(path) for path in clips["path"][clips["corpus"].isin(corpora)]]


def sounds_of_choice(data: Path) -> dict[str, list[np.ndarray]]:
    """Speech by condition, `sounds` without speech, and `crowds`, by which the decision was chosen."""
    clips = clips_of(data, is_tuning=True)
    distorted = [_distorted(i, path, CONDITIONS) for i, path in enumerate(clips["path"])]
    sounds = {name: [of_clip[name] for of_clip in distorted] for name in CONDITIONS}
    sounds["sounds"] = [sound for kind in SYNTHESIZED.values() for sound in sounds_of(kind, _SOUNDS, 0)]
    return sounds | {"crowds": list(sounds_of(crowd(voices_of(clips, _VOICES[0])), _SOUNDS, 0))}


def choices_of_speech(sounds: Mapping[str, Sequence[np.ndarray]]) -> pd.DataFrame:
    """Shares of sounds with less speech than is enough, and than is not little, by level and probability."""
    shares = {}
    for (name, of_name), level in itertools.product(sounds.items(), _LEVELS):
        found = [speech_probabilities(at_level(samples, level)) for samples in of_name]
        for probability, least in itertools.product(_PROBABILITIES, (LEAST_SPEECH, SHORTEST_SPEECH)):
            seconds = np.array([(of_sound >= probability).sum() * STEP / SAMPLING_RATE for of_sound in found])
            shares[f"{name} < {least:g} s", level, probability] = (seconds < least).mean()
    return pd.Series(shares).unstack(0)


def choices_of_crowds(sounds: Mapping[str, Sequence[np.ndarray]]) -> pd.DataFrame:
    """Shares of sounds that count as crowds, by the range of the level and the probability in pauses."""
    shares = {}
    for name, of_name in sounds.items():
        pauses = np.array([pause_probability(speech_probabilities(at_level(sound, _LEVEL))) for sound in of_name])
        ranges = np.array([level_range(sound) for sound in of_name])
        for least, most in itertools.product(_PAUSES, _RANGES):
            shares[name, least, most] = ((pauses >= least) & (ranges < most)).mean()
    return pd.Series(shares).unstack(0)


def main(argv: Sequence[str] | None = None) -> None:
    """Measures, prints and records the rows, or prints what was chosen from."""
    parser = parser_of("no_speech", __doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder with the acted corpora")
    parser.add_argument("--sounds", type=Path, help="folder with folders of recordings without speech")
    parser.add_argument("--model", default="starter", help="of the default pipeline, a folder or a name (starter)")
    parser.add_argument("--tune", action="store_true", help="print what the decision was chosen by")
    args = parser.parse_args(argv)
    if not args.tune and args.sounds is None:
        parser.error("--sounds is missing: give a folder with folders of recordings without speech.")
    with cli_errors("no_speech"):
        if args.tune:
            sounds = sounds_of_choice(args.data)
            print(choices_of_speech(sounds).to_string(), choices_of_crowds(sounds).to_string(), sep="\n\n")
            return
        clips = clips_of(args.data, is_tuning=False)
        rows = [*speech_rows(clips), *sound_rows(args.sounds), *synthesized_rows(voices_of(clips, _VOICES[1]))]
        decide = default_decision(args.model)
        rows += [*speech_rows(clips, decide, _WORDS, _STATED), *sound_rows(args.sounds, decide, _WORDS)]
        record("intervals", rows, "no_speech", argv)


if __name__ == "__main__":
    main()
