"""Does LEMF find the stressed words?

    python -m msfser.benchmarks.emphasis --stress FOLDER

FOLDER holds recordings with the stress of each word as heard or marked by people: `words.csv` (`file_name`,
`word_index`, `word`, `start_s`, `end_s`, `stress_max`) and `metadata.csv` (`file_name`, `speaker_id`,
`transcription`). The figures in the README are those of the Berlin Database of Emotional Speech (EmoDB; F. Burkhardt
et al., Interspeech 2005) with its authors' syllable labels, 371 utterances of ten speakers.

- *Top-1*: the share of utterances whose top word is one of those with the highest stress.
- *Remainder*: Spearman's correlation over words after each word of each sentence has lost its mean, in score and in
  stress. It shows what the sound says beyond the fixed text.
- *Within*: Spearman's correlation within the utterance, averaged. It is for information: word length alone does well.

The settings of "lemf" are chosen on one half of the speakers by top-1 + remainder and scored on the other half, then
the halves are exchanged; no setting sees the words. With `--probe` the command measures the probe corpus, of which the
stressed words are known: with the settings that `annotate` takes by default (`probe_true_times/top1`), and with the
paper's (`probe_true_times/paper/top1`). Intervals are 95 % bootstrap intervals over utterances.
"""

import argparse
import itertools
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from ..audio_msfser import load_audio
from ..corpora.probe.corpus import make_probe
from ..emphasis_msfser import EMPHASIS, Emphasis, EmphasisConfig, Prosody, bare_word, find_emphasis, measure_prosody
from ..evaluation.results import RESULTS, bootstrap, merge, spearman
from ..transcription_msfser import MsfSerRecognizer

COMMAND = "python -m msfser.benchmarks.emphasis"
LAGS = (0.0, 0.05, 0.1, 0.15, 0.2)
READINGS = ("mean", "peak")
_DRAWS = 1000
# Constant over speakers, or made of the labels: nothing remains beyond the text.
_OF_THE_TEXT = ("letters", "identity")
_RECOGNIZED_AT_ONCE = 8


def main() -> None:
    """Measures, prints and writes `benchmarks/results/emphasis.json`."""
    parser = argparse.ArgumentParser(description="Does LEMF find the stressed words?")
    parser.add_argument("--stress", type=Path, metavar="FOLDER", help="recordings with the stress of each word")
    parser.add_argument("--probe", action="store_true", help="measure the probe corpus")
    arguments = parser.parse_args()
    if arguments.stress is None and not arguments.probe:
        parser.error("give --stress FOLDER, --probe, or both.")
    rows = []
    if arguments.stress is not None:
        try:
            corpus = Stressed(arguments.stress)
        except ValueError as error:
            parser.error(str(error))
        rows += _of_stress(corpus)
    if arguments.probe:
        rows += _of_probe()
    merge(RESULTS / "emphasis.json", rows)
    for row in rows:
        interval = "" if row["low"] is None else f" ({row['low']:.3f}..{row['high']:.3f})"
        print(f"{row['name']:32s} {row['value']:.3f}{interval}")


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
        spoken = table.rename(columns={"start_s": "start", "end_s": "end"})[["word", "start", "end"]].to_dict(
            "records"
        )
        self.words = [[spoken[i] for i in rows] for rows in self.utterances]
        self.prosody: list[Prosody] = [
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
            own = self.speakers == speaker
            known = pd.Series(self.stress[~own]).groupby(self.slots[~own]).mean()
            scores[own] = pd.Series(self.slots[own]).map(known).fillna(known.mean())
        return scores

    def hits(self, scores: np.ndarray) -> np.ndarray:
        """Whether the top word has the utterance's highest stress, `(utterances,)`."""
        return np.array(
            [self.stress[rows[scores[rows].argmax()]] >= self.stress[rows].max() for rows in self.utterances], float
        )

    def within(self, scores: np.ndarray) -> np.ndarray:
        """Spearman's correlation within each utterance, `(utterances,)`, NaN where all values are equal."""
        return np.array([spearman(scores[rows], self.stress[rows]) for rows in self.utterances])

    def remainder(self, scores: np.ndarray, utterances: np.ndarray) -> float:
        """Remainder correlation over some utterances."""
        rows = np.concatenate([self.utterances[i] for i in utterances])
        counts = np.maximum(np.bincount(self.slots[rows], minlength=self.slots.max() + 1), 1)
        left = []
        for values in (scores[rows], self.stress[rows]):
            means = np.bincount(self.slots[rows], values, minlength=len(counts)) / counts
            left.append(values - means[self.slots[rows]])
        return spearman(*left)


def _of_stress(corpus: Stressed) -> list[dict[str, object]]:
    command = f"{COMMAND} --stress FOLDER"
    speakers = np.array([corpus.speakers[rows[0]] for rows in corpus.utterances])
    everyone = np.unique(speakers)
    halves = [np.flatnonzero(np.isin(speakers, everyone[first::2])) for first in (0, 1)]
    grid = [
        replace(EMPHASIS["paper"], pitch=pitch, energy=energy, log_duration=log_duration, pitch_lag=lag)
        for pitch, energy, log_duration, lag in itertools.product(READINGS, READINGS, (False, True), LAGS)
    ]
    of_grid = [corpus.scores(config) for config in tqdm(grid, desc="settings")]
    chosen = np.zeros(len(corpus.stress))
    for half, other in (halves, halves[::-1]):
        quality = [corpus.hits(scores)[half].mean() + corpus.remainder(scores, half) for scores in of_grid]
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
    rows = []

    def add(name: str, measure: Callable[[np.ndarray], float]) -> None:
        rows.append({"name": name, **bootstrap(measure, len(corpus.utterances), _DRAWS), "command": command})

    hits = {name: corpus.hits(values) for name, values in scores.items()}
    for name, values in scores.items():
        within = corpus.within(values)
        add(f"{name}/top1", lambda drawn, name=name: hits[name][drawn].mean().item())
        if name not in _OF_THE_TEXT:
            add(f"{name}/remainder", lambda drawn, values=values: corpus.remainder(values, drawn))
        add(f"{name}/within", lambda drawn, within=within: np.nanmean(within[drawn]).item())
    add("lemf_minus_paper/top1", lambda drawn: (hits["lemf"] - hits["paper"])[drawn].mean().item())
    add("lemf_minus_identity/top1", lambda drawn: (hits["lemf"] - hits["identity"])[drawn].mean().item())
    return rows


def _of_probe() -> list[dict[str, object]]:
    """Hits on the probe's test part, with true word times and with those of the recognizer."""
    folder = make_probe("data/probe")
    table = pd.read_parquet(folder / "metadata.parquet")
    table = table[table["split"] == "test"]
    recognizer = MsfSerRecognizer.from_pretrained()
    hits: dict[str, list[bool]] = {}
    for start in tqdm(range(0, len(table), _RECOGNIZED_AT_ONCE), desc="probe"):
        rows = list(table.iloc[start : start + _RECOGNIZED_AT_ONCE].itertuples())
        sounds = [load_audio(folder / row.audio) for row in rows]
        for row, sound, heard in zip(rows, sounds, recognizer(sounds, language="en"), strict=True):
            prosody = measure_prosody(sound)
            stressed = row.words[row.stressed_word]
            for name, config in {"": EMPHASIS["peak"], "paper/": EMPHASIS["paper"]}.items():
                true = find_emphasis(list(row.words), prosody, config)
                hits.setdefault(f"probe_true_times/{name}top1", []).append(true.top == row.stressed_word)
                found = find_emphasis(heard.words, prosody, config)
                hits.setdefault(f"probe_asr_times/{name}top1", []).append(_inside(heard.words, found, stressed))
                hits.setdefault(f"probe_asr_times/{name}same_word", []).append(_same(heard.words, found, stressed))
    rows = []
    for name, found in hits.items():
        values = np.array(found, float)
        over = bootstrap(lambda drawn, values=values: values[drawn].mean().item(), len(values), _DRAWS)
        rows.append({"name": name, **over, "command": f"{COMMAND} --probe"})
    return rows


def _inside(words: Sequence[dict], found: Emphasis, stressed: dict) -> bool:
    """Whether the middle of the top word lies inside the true stressed word."""
    if found.top is None:
        return False
    top = words[found.top]
    return stressed["start"] <= (top["start"] + top["end"]) / 2 <= stressed["end"]


def _same(words: Sequence[dict], found: Emphasis, stressed: dict) -> bool:
    if found.top is None:
        return False
    return bare_word(words[found.top]["word"]).lower() == bare_word(stressed["word"]).lower()


if __name__ == "__main__":
    main()
