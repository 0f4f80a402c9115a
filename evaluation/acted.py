"""Acted corpora in memory, and how well predictions for held-out clips agree with their weak labels.

Weak labels are no ratings, so a second measure needs none: pairwise ranking accuracy, the share of matched pairs of
clips that are in the expected order.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pandas as pd
import torch

from ..configuration_msfser import LABELS
from ..corpora.acted import read_acted
from ..loss_msfser import concordance
from ..training.fitting import Clips
from .intervals import Interval, clusters, interval, share_interval
from .results import Row, row, rows_of

# In some copies of EmoDB the clips of the other emotions are cut and come from another source.
EMODB_EMOTIONS = ("anger", "happiness", "neutral", "sadness")
# Low and high emotions of each ranking, and the dimension.
_RANKINGS = {
    "arousal_emotions": (("sadness", "calm"), ("anger", "happiness"), "arousal"),
    "valence": (("anger", "sadness"), ("happiness",), "valence"),
}


@dataclass
class Material:
    """A corpus for fits on frozen encoders."""

    clips: Clips  # labels and encoder outputs
    table: pd.DataFrame  # a row for each clip: `speaker`; if acted also `corpus`, `emotion`, `intensity`, `sentence`
    paths: Sequence[str]  # of the recordings
    folds: Mapping[str, np.ndarray]  # by name, the clips that are held out, `(clips,)` bool


def acted_clips(folder: Path) -> datasets.Dataset:
    """RAVDESS and the usual emotions of EmoDB under a folder, as `read_acted` gives them; no other corpora."""
    rows = read_acted(folder, corpora=("ravdess", "emodb"))
    kept = [c == "ravdess" or e in EMODB_EMOTIONS for c, e in zip(rows["corpus"], rows["emotion"], strict=True)]
    return rows.select(np.flatnonzero(kept))


def strong_counterparts(table: pd.DataFrame) -> np.ndarray:
    """For each clip at normal intensity the index of its counterpart at strong intensity, otherwise -1.

    Calm is left out: its strong clips are no louder, and calmer if anything.
    """
    key = ["corpus", "speaker", "emotion", "sentence"]
    keys = list(table[key].itertuples(index=False, name=None))
    strong = {of_clip: i for i, of_clip in enumerate(keys) if table["intensity"].iloc[i] == "strong"}
    matched = ((table["intensity"] == "normal") & (table["emotion"] != "calm")).to_numpy()
    return np.array([strong.get(of_clip, -1) if known else -1 for of_clip, known in zip(keys, matched, strict=True)])


def pairs_of_emotions(table: pd.DataFrame, low: Sequence[str], high: Sequence[str]) -> np.ndarray:
    """All pairs of clips of one speaker, sentence and intensity with an emotion of `low` and one of `high`."""
    table = table.assign(clip=np.arange(len(table)), intensity=table["intensity"].fillna(""))
    key = ["corpus", "speaker", "sentence", "intensity"]
    # EmoDB has several versions of some sentences; all of them are paired.
    both = table[table["emotion"].isin(low)].merge(table[table["emotion"].isin(high)], on=key)
    return both[["clip_x", "clip_y"]].to_numpy()


class Scores:
    """Scores of predictions for held-out clips of a corpus, with intervals over speakers and seeds.

    The predictions are by system and kind of sound, of which the first is scored, `(seeds, clips, 3)`, NaN where a
    clip was not held out.
    """

    def __init__(self, material: Material, predictions: Mapping[str, Mapping[str, np.ndarray]]):
        self.material, self.predictions = material, predictions
        some = next(iter(next(iter(predictions.values())).values()))
        self.held_out = np.flatnonzero(~np.isnan(some[0, :, 0]))
        speakers = material.clips.speakers[self.held_out]
        self._clips_of = [self.held_out[members] for members in clusters(speakers, sort=True)]

    @property
    def seeds(self) -> int:
        """How many seeds each system has."""
        return len(next(iter(next(iter(self.predictions.values())).values())))

    def ccc(self, system: str, clips: np.ndarray, seeds: np.ndarray | slice = slice(None)) -> np.ndarray:
        """CCC of each dimension over some clips, `(3,)`, mean over the seeds, or over some of them."""
        labels = torch.as_tensor(self.material.clips.labels[clips], dtype=torch.float64)
        of_seeds = next(iter(self.predictions[system].values()))[seeds][:, clips].astype(np.float64)
        return np.mean([concordance(torch.as_tensor(of_seed), labels).numpy() for of_seed in of_seeds], axis=0)

    def interval(self, measure: Any, correlation: bool = False) -> Interval:
        """A measure of clips and seeds with its interval over speakers and seeds."""
        return interval(measure, self._clips_of, seeds=self.seeds, correlation=correlation)

    def ccc_rows(self, system: str) -> list[Row]:
        """Rows `SYSTEM/DIMENSION` and `SYSTEM/mean`."""

        def measure(clips: np.ndarray, seeds: np.ndarray) -> np.ndarray:
            ccc = self.ccc(system, clips, seeds)
            return np.append(ccc, ccc.mean())

        found = self.interval(measure, correlation=True)
        return rows_of([f"{system}/{name}" for name in (*LABELS, "mean")], found)

    def difference_row(self, name: str, system: str, other: str) -> Row:
        """The mean CCC of one system minus that of another, paired by clips and seeds."""

        def measure(clips: np.ndarray, seeds: np.ndarray) -> float:
            return float(self.ccc(system, clips, seeds).mean() - self.ccc(other, clips, seeds).mean())

        return row(name, *self.interval(measure))

    def ranking_row(self, name: str, values: np.ndarray, pairs: np.ndarray) -> Row:
        """Pairwise ranking accuracy: the share of pairs whose second clip has the higher value.

        The values are `(seeds, clips)`, the pairs `(pairs, 2)` indices of clips of one speaker.
        """
        ranked = values[:, pairs[:, 1]] > values[:, pairs[:, 0]]
        return row(name, *share_interval(ranked, clusters(self.material.clips.speakers[pairs[:, 0]], sort=True)))

    def ranking_rows(self, system: str, prefix: str = "") -> Iterator[Row]:
        """All rankings of one system, rows `PREFIXranking/...`."""
        table, pairs = self.material.table, matched_pairs(self.material.clips)
        of_kinds = self.predictions[system]
        sound = next(iter(of_kinds.values()))
        yield self.ranking_row(f"{prefix}ranking/arousal_raw", sound[..., 1], pairs)
        if "one_level" in of_kinds:
            yield self.ranking_row(f"{prefix}ranking/arousal_leveled", of_kinds["one_level"][..., 1], pairs)
        ravdess = (table["corpus"] == "ravdess").to_numpy()
        for name, (low, high, dimension) in _RANKINGS.items():
            pairs, values = pairs_of_emotions(table, low, high), sound[..., LABELS.index(dimension)]
            yield self.ranking_row(f"{prefix}ranking/{name}", values, pairs)
            if name == "valence":
                yield self.ranking_row(f"{prefix}ranking/{name}_ravdess", values, pairs[ravdess[pairs[:, 0]]])


def matched_pairs(clips: Clips) -> np.ndarray:
    """Clips at normal intensity with their strong counterparts, indices `(pairs, 2)`."""
    normal = np.flatnonzero(clips.stronger >= 0)
    return np.stack([normal, clips.stronger[normal]], 1)
