"""Does LEMF find the emphasized words?

    python -m msfser.benchmarks.emphasis --stress FOLDER

FOLDER holds recordings whose words people have labeled with their stress: `words.csv` (`file_name`, `word_index`,
`word`, `start_s`, `end_s`, `stress_max`) and `metadata.csv` (`file_name`, `speaker_id`, `transcription`). The
documented figures are those of the Berlin Database of Emotional Speech (EmoDB; F. Burkhardt et al., Interspeech 2005)
with its authors' syllable labels, 371 utterances of ten speakers.

- `top1`: the share of utterances whose top word is one of those with the highest stress.
- `residual`: Spearman's correlation over words after the mean of each word of each sentence is subtracted from score
  and stress: what the sound says beyond the fixed text.
- `within`: Spearman's correlation within the utterance, averaged. It is for information: word length alone does well.

The settings of "lemf" are chosen on one half of the speakers by top1 + residual and scored on the other half, then the
halves are exchanged; no setting depends on the words. With `--probe` the command measures the probe corpus, whose
emphasized words are known: with the default settings of `msfser annotate` (`probe_true_times/top1`) and with the
paper's (`probe_true_times/paper/top1`). Intervals are over speakers.
"""

import itertools
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats
from tqdm import tqdm

from ..audio_msfser import load_audio
from ..cli.errors import cli_errors
from ..corpora.probe.corpus import make_probe
from ..emphasis_msfser import EMPHASIS, Emphasis, EmphasisConfig, bare_word, find_emphasis, measure_prosody
from ..evaluation.intervals import clusters, interval, share_interval
from ..evaluation.results import Row, row
from .command import load_recognizer, parser_of, record

LAGS = (0.0, 0.05, 0.1, 0.15, 0.2)
READINGS = ("mean", "peak")
# Constant over speakers, or made from the labels: no residual is left.
_OF_THE_TEXT = ("letters", "identity")
_RECOGNIZED_AT_ONCE = 8


def main(argv: Sequence[str] | None = None) -> None:
    """Measures, prints and writes `benchmarks/results/emphasis.json`."""
    parser = parser_of("emphasis", __doc__)
    parser.add_argument("--stress", type=Path, metavar="FOLDER", help="recordings with the stress of each word")
    parser.add_argument("--probe", action="store_true", help="measure the probe corpus")
    arguments = parser.parse_args(argv)
    if arguments.stress is None and not arguments.probe:
        parser.error("give --stress FOLDER, --probe, or both.")
    if arguments.stress is not None:
        with cli_errors("emphasis"):
            corpus = Stressed(arguments.stress)
        record("emphasis", _stress_rows(corpus), "emphasis", ["--stress", "FOLDER"])
    if arguments.probe:
        record("emphasis", _probe_rows(), "emphasis", ["--probe"])


class Stressed:
    """Utterances whose words have a stress label.

    Args:
        folder: As in the module's docstring.

    Raises:
        ValueError: A table is missing.
    """

    def __init__(self, folder: Path):
        for name in ("words.csv", "metadata.csv"):
            if not (folder / name).is_file():
                raise ValueError(f"{str(folder)!r} has no {name}: give the folder of a corpus with stress labels.")
        table = pd.read_csv(folder / "words.csv", keep_default_na=False)
        meta = pd.read_csv(folder / "metadata.csv", dtype=str, keep_default_na=False).set_index("file_name")
        self.utterances = list(table.groupby("file_name", sort=True).indices.values())
        self.stress = table["stress_max"].to_numpy(float)
        slots = table["file_name"].map(meta["transcription"]) + "/" + table["word_index"].astype(str)
        self.slots = slots.factorize()[0]
        self.letters = table["word"].str.len().to_numpy(float)
        self.speakers = table["file_name"].map(meta["speaker_id"]).to_numpy()
        timed = table.rename(columns={"start_s": "start", "end_s": "end"})[["word", "start", "end"]].to_dict("records")
        self.words = [[timed[i] for i in rows] for rows in self.utterances]
        self.prosody = [
            measure_prosody(load_audio(folder / table["file_name"].iloc[rows[0]]))
            for rows in tqdm(self.utterances, desc="pitch and level")
        ]

    def scores(self, config: EmphasisConfig) -> np.ndarray:
        """LEMF's scores, `(words,)`."""
        scores = np.zeros(len(self.stress))
        for rows, words, prosody in zip(self.utterances, self.words, self.prosody, strict=True):
            scores[rows] = find_emphasis(words, prosody, config).scores
        return scores

    def identity(self) -> np.ndarray:
        """The mean stress of the same word of the same sentence among the other speakers, `(words,)`."""
        scores = np.zeros(len(self.stress))
        for speaker in np.unique(self.speakers):
            mine = self.speakers == speaker
            known = pd.Series(self.stress[~mine]).groupby(self.slots[~mine]).mean()
            scores[mine] = pd.Series(self.slots[mine]).map(known).fillna(known.mean())
        return scores

    def hits(self, scores: np.ndarray) -> np.ndarray:
        """Whether the top word has the utterance's highest stress, `(utterances,)`."""
        return np.array(
            [self.stress[rows[scores[rows].argmax()]] >= self.stress[rows].max() for rows in self.utterances], float
        )

    def within(self, scores: np.ndarray) -> np.ndarray:
        """Spearman's correlation within each utterance, `(utterances,)`, NaN where all values are equal."""
        return np.array([spearman(scores[rows], self.stress[rows]) for rows in self.utterances])

    def residual(self, scores: np.ndarray, utterances: np.ndarray) -> float:
        """Residual correlation over some utterances."""
        rows = np.concatenate([self.utterances[i] for i in utterances])
        counts = np.maximum(np.bincount(self.slots[rows], minlength=self.slots.max() + 1), 1)
        left = []
        for values in (scores[rows], self.stress[rows]):
            means = np.bincount(self.slots[rows], values, minlength=len(counts)) / counts
            left.append(values - means[self.slots[rows]])
        return spearman(*left)


def spearman(x: np.ndarray, y: np.ndarray) -> float:
    """Spearman's rank correlation, NaN where one of the two is constant."""
    return float(stats.spearmanr(x, y).statistic) if np.ptp(x) and np.ptp(y) else float("nan")


def _stress_rows(corpus: Stressed) -> list[Row]:
    speakers = np.array([corpus.speakers[rows[0]] for rows in corpus.utterances])
    halves = [np.flatnonzero(np.isin(speakers, np.unique(speakers)[first::2])) for first in (0, 1)]
    grid = [
        replace(EMPHASIS["paper"], pitch=pitch, energy=energy, log_duration=log_duration, pitch_lag=lag)
        for pitch, energy, log_duration, lag in itertools.product(READINGS, READINGS, (False, True), LAGS)
    ]
    of_grid = [corpus.scores(config) for config in tqdm(grid, desc="settings")]
    chosen = np.zeros(len(corpus.stress))
    for half, other in (halves, halves[::-1]):
        quality = [corpus.hits(scores)[half].mean() + corpus.residual(scores, half) for scores in of_grid]
        best = int(np.argmax(quality))
        print(f"chosen on the speakers {', '.join(np.unique(speakers[half]))}: {grid[best]}")
        for i in other:
            chosen[corpus.utterances[i]] = of_grid[best][corpus.utterances[i]]
    scores = {
        "lemf": chosen,
        **{name: corpus.scores(config) for name, config in EMPHASIS.items()},
        "pitch": corpus.scores(EmphasisConfig(energy_weight=0, duration_weight=0)),
        "energy": corpus.scores(EmphasisConfig(pitch_weight=0, duration_weight=0)),
        "duration": corpus.scores(EmphasisConfig(pitch_weight=0, energy_weight=0)),
        "pitch_peak": corpus.scores(replace(EMPHASIS["peak"], energy_weight=0, duration_weight=0)),
        "random": np.random.default_rng(0).standard_normal(len(corpus.stress)),
        "letters": corpus.letters,
        "identity": corpus.identity(),
    }
    hits = {name: corpus.hits(values) for name, values in scores.items()}
    within = {name: corpus.within(values) for name, values in scores.items()}
    units = clusters(speakers)
    rows = [row(f"{name}/top1", *share_interval(of, units)) for name, of in hits.items()]
    correlations = {f"{name}/within": lambda items, of=of: np.nanmean(of[items]) for name, of in within.items()}
    correlations |= {
        f"{name}/residual": lambda items, values=values: corpus.residual(values, items)
        for name, values in scores.items()
        if name not in _OF_THE_TEXT
    }
    rows += [row(name, *interval(measure, units, correlation=True)) for name, measure in correlations.items()]
    for name in ("paper", "identity"):
        difference = hits["lemf"] - hits[name]
        rows.append(row(f"lemf_minus_{name}/top1", *interval(lambda items, d=difference: d[items].mean(), units)))
    return rows


def _probe_rows() -> list[Row]:
    """Hits on the probe's test part, with true word times and with those of the recognizer."""
    folder = make_probe("data/probe")
    table = pd.read_parquet(folder / "metadata.parquet")
    table = table[table["split"] == "test"]
    recognizer = load_recognizer()
    hits: dict[str, list[bool]] = {}
    for start in tqdm(range(0, len(table), _RECOGNIZED_AT_ONCE), desc="probe"):
        items = list(table.iloc[start : start + _RECOGNIZED_AT_ONCE].itertuples())
        sounds = [load_audio(folder / item.audio) for item in items]
        for item, sound, transcribed in zip(items, sounds, recognizer(sounds, language="en"), strict=True):
            prosody, words = measure_prosody(sound), transcribed.words
            stressed = item.words[item.stressed_word]
            for name, config in {"": EMPHASIS["peak"], "paper/": EMPHASIS["paper"]}.items():
                true = find_emphasis(list(item.words), prosody, config)
                hits.setdefault(f"probe_true_times/{name}top1", []).append(true.top == item.stressed_word)
                found = find_emphasis(words, prosody, config)
                hits.setdefault(f"probe_asr_times/{name}top1", []).append(_inside(words, found, stressed))
                hits.setdefault(f"probe_asr_times/{name}same_word", []).append(_same(words, found, stressed))
    units = clusters(table["speaker"])
    return [row(name, *share_interval(of, units)) for name, of in hits.items()]


def _inside(words: Sequence[dict[str, Any]], found: Emphasis, stressed: dict[str, Any]) -> bool:
    """Whether the middle of the top word is inside the true stressed word."""
    if found.top is None:
        return False
    top = words[found.top]
    return stressed["start"] <= (top["start"] + top["end"]) / 2 <= stressed["end"]


def _same(words: Sequence[dict[str, Any]], found: Emphasis, stressed: dict[str, Any]) -> bool:
    if found.top is None:
        return False
    return bare_word(words[found.top]["word"]).lower() == bare_word(stressed["word"]).lower()


if __name__ == "__main__":
    main()
