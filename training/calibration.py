"""Fits the intervals of a model (`intervals_msfser.py`) to predictions for speakers that it was not fitted to.

Two ways lead to such predictions. A model that is fitted to everyone needs cross-fits: groups of speakers are left out
in turn, and each is predicted by a model of the others (CV+). A model that left speakers out anyway, as for a validation
part, predicts those. The scale is fitted to the absolute errors; the errors that the quantiles are made of are divided
by a scale that was fitted without these speakers, too.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from ..configuration_msfser import LABELS
from ..intervals_msfser import LEVELS, MsfSerIntervals
from ..loss_msfser import UNRATED
from ..modeling_msfser import MsfSerModel

# Groups of speakers that are left out in turn, and the fewest speakers whose spread says something.
GROUPS, FEWEST_SPEAKERS = 4, 3
_STEPS, _LEARNING_RATE, _WEIGHT_DECAY = 500, 0.01, 0.01
# Of the labels and predictions that tell what a number means.
_QUANTILES = 21


def speaker_folds(speakers: Sequence[str], count: int = GROUPS) -> np.ndarray:
    """The group of each item's speaker, `(items,)` from 0 on; speakers are distributed at random, always alike."""
    names = np.random.default_rng(0).permutation(sorted(set(speakers)))
    number = {name: place % count for place, name in enumerate(names)}
    return np.array([number[speaker] for speaker in speakers])


def calibrated(
    numbers: np.ndarray, labels: np.ndarray, speakers: Sequence[str], folds: np.ndarray | None = None
) -> MsfSerIntervals:
    """The intervals that fit predictions for speakers that no model was fitted to.

    Args:
        numbers: `(items, 3)` in 0..1, each by a model that was not fitted to its speaker.
        labels: `(items, 3)`; `UNRATED` ones do not count.
        speakers: Of each item.
        folds: Of each item the group that its model left out; by default groups of speakers are made.

    Raises:
        ValueError: There are too few speakers.
    """
    if (found := len(set(speakers))) < FEWEST_SPEAKERS:
        raise ValueError(f"intervals need {FEWEST_SPEAKERS} or more speakers, and there are {found}.")
    folds = speaker_folds(speakers) if folds is None else folds
    relative = np.full(labels.shape, np.nan)
    for fold in np.unique(folds):
        others = fit_scale(numbers[folds != fold], labels[folds != fold])
        relative[folds == fold] = _relative_errors(others, numbers[folds == fold], labels[folds == fold])
    intervals = fit_scale(numbers, labels)
    intervals.quantiles.copy_(torch.tensor(quantiles_of_errors(relative, speakers)))
    return intervals


def fit_scale(numbers: np.ndarray, labels: np.ndarray) -> MsfSerIntervals:
    """Fits the scale to absolute errors by the likelihood of a Laplace distribution, `log s + |error| / s`.

    The quantiles stay open.
    """
    rated = torch.tensor(labels != UNRATED)
    given = torch.tensor(numbers, dtype=torch.float32)
    errors = (torch.tensor(labels, dtype=torch.float32) - given).abs() * rated
    means = errors.sum(0) / rated.sum(0).clamp(min=1)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        intervals = MsfSerIntervals()
    with torch.no_grad():
        intervals.out.weight.mul_(0.1)
        intervals.out.bias.copy_(means.clamp(min=1e-3).expm1().log())
    optimizer = torch.optim.AdamW(intervals.parameters(), lr=_LEARNING_RATE, weight_decay=_WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, _STEPS)
    with torch.enable_grad():
        for _ in range(_STEPS):
            optimizer.zero_grad()
            scale = intervals.scale(given)
            (((errors / scale + scale.log()) * rated).sum() / rated.sum()).backward()
            optimizer.step()
            schedule.step()
    return intervals.requires_grad_(False)


@torch.no_grad()
def _relative_errors(intervals: MsfSerIntervals, numbers: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Absolute errors over their scale, `(items, 3)`; NaN where there is no label."""
    scale = intervals.scale(torch.tensor(numbers, dtype=torch.float32)).numpy()
    return np.where(labels == UNRATED, np.nan, np.abs(labels - numbers) / scale)


def quantiles_of_errors(relative: np.ndarray, speakers: Sequence[str]) -> np.ndarray:
    """The quantiles of relative errors at `LEVELS`, `(3, levels)`, in which every speaker has the same weight.

    One more error, of the weight of an average item, is infinite: it stands for the one to come.
    """
    _, owners, counts = np.unique(np.asarray(speakers, str), return_inverse=True, return_counts=True)
    quantiles = np.full((relative.shape[1], len(LEVELS)), np.inf)
    for dimension, errors in enumerate(relative.T):
        known = np.flatnonzero(~np.isnan(errors))
        known = known[np.argsort(errors[known], kind="stable")]
        weights = 1 / counts[owners[known]]
        shares = np.cumsum(weights) / (weights.sum() + weights.mean()) if len(known) else weights
        places = np.searchsorted(shares, np.array(LEVELS) - 1e-9)
        there = places < len(known)
        quantiles[dimension, there] = errors[known][places[there]]
    return quantiles


def scale_of(labels: np.ndarray, predictions: np.ndarray, name: str) -> dict[str, Any]:
    """What tells where a number lies: `config.scale`, from labels and predictions `(items, 3)` of a corpus."""
    shares = np.linspace(0, 1, _QUANTILES)
    scale: dict[str, Any] = {"of": name}
    for kind, values in (("labels", labels), ("predictions", predictions)):
        rated = np.where(labels == UNRATED, np.nan, values)
        scale[kind] = {
            label: [] if np.isnan(column).all() else np.nanquantile(column, shares).round(4).tolist()
            for label, column in zip(LABELS, rated.T, strict=True)
        }
    return scale


def set_intervals(model: MsfSerModel, intervals: MsfSerIntervals | None) -> None:
    """Gives a model other intervals, or none."""
    model.config.intervals = intervals is not None
    model.intervals = None if intervals is None else intervals.to(model.device)
