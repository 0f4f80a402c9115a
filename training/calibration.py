"""Fits the intervals of a model (`intervals_msfser.py`) to predictions for speakers that it was not fitted to.

Two ways lead to such predictions. A model that is fitted to everyone needs cross-fits: groups of speakers are left out
in turn, and each is predicted by a model of the others. A model that left speakers out anyway, as for a validation
part, predicts those. The scale is fitted to the absolute errors; the errors that the quantiles are made of are divided
by a scale that was fitted without these speakers, too.
"""

import copy
import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from ..configuration_msfser import LABELS
from ..intervals_msfser import INTERVAL_LEVEL, LEVELS, MsfSerIntervals
from .folds import make_folds
from .labels import rated_labels

# Groups of speakers that are left out in turn, and the fewest speakers whose spread says something.
GROUPS, FEWEST_SPEAKERS = 4, 3
# The fewest rated items of which the quantile at the default level is finite, see `quantiles_of_errors`.
FEWEST_RATED = next(n for n in itertools.count(1) if math.ceil((n + 1) * INTERVAL_LEVEL - 1e-9) <= n)
_STEPS, _LEARNING_RATE, _WEIGHT_DECAY = 200, 0.02, 0.01
# How much of a scale follows the numbers: the narrowest intervals decide.
_SHARES = (0.2, 0.4, 0.6, 0.8, 1.0)
# Of the labels and predictions that tell what a number means.
_QUANTILES = 21


def too_few(labels: np.ndarray, speakers: Sequence[str], unrated: Sequence[str] = (), where: str = "") -> str | None:
    """Why intervals cannot be calibrated on some predictions: there are too few of them.

    Args:
        labels: `(items, 3)`; what is not rated does not count.
        speakers: Of each item.
        unrated: The dimensions that need no labels.
        where: Which part of a corpus the predictions are for; by default it is all of it.

    Returns:
        A sentence without its full stop; `None` where there are enough.
    """
    if (found := len(set(speakers))) < FEWEST_SPEAKERS:
        needed, remedy = f"{FEWEST_SPEAKERS} or more speakers", "add recordings of other speakers"
    else:
        rated = np.count_nonzero(~np.isnan(rated_labels(labels)), axis=0)[~np.isin(LABELS, unrated)]
        if (found := rated.min(initial=FEWEST_RATED)) >= FEWEST_RATED:
            return None
        needed, remedy = f"{FEWEST_RATED} or more rated recordings", "add recordings with labels"
    there = f"there {'is' if found == 1 else 'are'} {found} {where}".rstrip()
    return f"no intervals: they need {needed} to be calibrated on, and {there}; {remedy}"


def calibrated(
    numbers: np.ndarray, labels: np.ndarray, speakers: Sequence[str], folds: np.ndarray | None = None
) -> MsfSerIntervals:
    """The intervals that fit predictions for speakers that no model was fitted to.

    Args:
        numbers: `(items, 3)` in 0..1, each by a model that was not fitted to its speaker.
        labels: `(items, 3)`; what is not rated does not count.
        speakers: Of each item.
        folds: Of each item the group that its model left out; by default groups of speakers are made.

    Raises:
        ValueError: There are too few: see [`too_few`].
    """
    is_rated = ~np.isnan(rated_labels(labels)).all(0)
    if words := too_few(labels, speakers, np.array(LABELS)[~is_rated].tolist()):
        raise ValueError(f"{words}.")
    if folds is None:
        folds = np.zeros(len(numbers), int)
        for place, fold in enumerate(make_folds(speakers, min(GROUPS, len(set(speakers))))):
            folds[fold.rows] = place
    given = torch.tensor(numbers, dtype=torch.float32)
    errors = np.abs(rated_labels(labels) - numbers)
    fits = {fold: fit_scale(numbers[folds != fold], labels[folds != fold]) for fold in np.unique(folds)}
    intervals = fit_scale(numbers, labels)
    tables, widths = [], []
    for share in _SHARES:
        scales = np.empty(errors.shape)
        for fold, other in fits.items():
            scales[folds == fold] = _blended(other, given[folds != fold], share).scale(given[folds == fold])
        tables.append(torch.tensor(quantiles_of_errors(errors / scales)))
        low, high = _blended(intervals, given, share, tables[-1])(given)
        widths.append((high - low).mean(0))
    best = torch.stack(widths).argmin(0)
    table = torch.stack([tables[place][dimension] for dimension, place in enumerate(best.tolist())])
    return _blended(intervals, given, torch.tensor(_SHARES)[best], table)


def fit_scale(numbers: np.ndarray, labels: np.ndarray) -> MsfSerIntervals:
    """Fits the scale to absolute errors by the likelihood of a Laplace distribution, `log s + |error| / s`.

    The quantiles stay open.
    """
    given = torch.tensor(numbers, dtype=torch.float32)
    errors = (torch.tensor(rated_labels(labels), dtype=torch.float32) - given).abs()
    rated = ~errors.isnan()
    errors = errors.where(rated, 0)
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


def _blended(
    intervals: MsfSerIntervals, given: torch.Tensor, share: Any, quantiles: torch.Tensor | None = None
) -> MsfSerIntervals:
    """Intervals whose scale is, as far as the share leaves it, its mean over some numbers."""
    blended = copy.deepcopy(intervals)
    blended.share.mul_(share)
    blended.base.copy_(((1 - share) * intervals.scale(given)).mean(0))
    if quantiles is not None:
        blended.quantiles.copy_(quantiles)
    return blended


def constant_width(numbers: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Half the width at the default level, by dimension, of intervals that are everywhere equally wide."""
    errors = np.abs(rated_labels(labels) - numbers)
    return quantiles_of_errors(errors)[:, LEVELS.index(INTERVAL_LEVEL)]


def quantiles_of_errors(errors: np.ndarray) -> np.ndarray:
    """The quantiles of errors `(items, 3)` at `LEVELS`, `(3, levels)`; NaN does not count.

    Of `n` errors the quantile at a level is the one in place `ceil((n + 1) * level)`, and infinite if there is none.
    Coverage is a share of recordings, so that each of them counts the same, also of a speaker with many.
    """
    quantiles = np.full((errors.shape[1], len(LEVELS)), np.inf)
    for dimension, of_dimension in enumerate(errors.T):
        known = np.sort(of_dimension[~np.isnan(of_dimension)])
        places = np.ceil((len(known) + 1) * np.array(LEVELS) - 1e-9).astype(int)
        there = places <= len(known)
        quantiles[dimension, there] = known[places[there] - 1]
    return quantiles


def scale_of(labels: np.ndarray, predictions: np.ndarray, name: str) -> dict[str, Any]:
    """What tells where a number lies: `config.scale`, from labels and predictions `(items, 3)` of a corpus.

    A dimension without a label has no quantiles of labels.
    """
    shares = np.linspace(0, 1, _QUANTILES)
    scale: dict[str, Any] = {"of": name}
    for kind, values in (("labels", rated_labels(labels)), ("predictions", predictions)):
        scale[kind] = {
            label: [] if np.isnan(column).all() else np.nanquantile(column, shares).round(4).tolist()
            for label, column in zip(LABELS, values.astype(float).T, strict=True)
        }
    return scale
