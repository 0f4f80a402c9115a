"""Percentile bootstrap intervals over items or clusters of items (such as speakers), and over seeds."""

import warnings
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from scipy import stats

from ..loss_msfser import concordance

CONFIDENCE = 0.95
DRAWS = 1000

# Indices in memory at once.
_BATCH = 1_000_000


class Interval(NamedTuple):
    """A measure with the ends of its interval; arrays where the measure gives an array."""

    value: Any
    low: Any
    high: Any


def clusters(names: Iterable[object], sort: bool = False) -> list[np.ndarray]:
    """The indices of the items of each name; the names in the order of their first appearance, or sorted."""
    codes, _ = pd.factorize(np.asarray(names, object), sort=sort)
    return [np.flatnonzero(codes == code) for code in range(codes.max(initial=-1) + 1)]


def resampled_units(speakers: Sequence[str | None]) -> tuple[int | list[np.ndarray], str]:
    """What a bootstrap over utterances draws, and what the reader is told: speakers where they are known.

    Utterances of one speaker are not independent, so that intervals over utterances are too narrow.

    Returns:
        The indices of each speaker's utterances, an unknown speaker counting as another one each time, and
        "24 speakers" or "speakers where known"; or the number of utterances and "utterances" if no speaker is known
        or all utterances have the same one.
    """
    known = [speaker for speaker in speakers if speaker is not None]
    units = clusters([f"\0{i}" if speaker is None else speaker for i, speaker in enumerate(speakers)])
    if not known or len(units) == 1:
        return len(speakers), "utterances"
    return units, f"{len(units)} speakers" if len(known) == len(speakers) else "speakers where known"


def ccc_interval(predicted: np.ndarray, given: np.ndarray, units: int | Sequence[np.ndarray]) -> Interval:
    """CCC of valence, arousal, dominance and their mean, arrays `(4,)`, from values `(utterances, 3)`."""
    pair = torch.tensor(predicted).double(), torch.tensor(given).double()

    def measure(items: np.ndarray) -> np.ndarray:
        ccc = concordance(*(values[items] for values in pair))
        return torch.cat([ccc, ccc.mean(-1, keepdim=True)]).numpy()

    return interval(measure, units)


def interval(measure: Callable[..., Any], units: int | Sequence[np.ndarray], *, seeds: int | None = None) -> Interval:
    """A measure over all items with its 95 % interval, percentiles of a bootstrap with seed 0.

    Measures of the same units meet the same draws, so their intervals are comparable; a difference computed inside one
    measure is paired.

    Args:
        measure: Maps the indices of items (with repetitions) to a number or an array. With `seeds` it gets the indices
            of the seeds as its second argument, which are resampled together with the items.
        units: The number of items, or the indices of the items of each cluster, which are drawn as a whole.
        seeds: The number of seeds of the training.

    Returns:
        The measure over all items and seeds, and the 2.5th and 97.5th percentiles of its samples. NaN samples are left
        out.
    """
    count = units if isinstance(units, int) else len(units)
    sizes = [count] if seeds is None else [count, seeds]

    def statistic(*drawn: np.ndarray) -> Any:
        resampled = iter(drawn)
        # scipy refuses samples of one; there is only one way to draw from them.
        first, *rest = (next(resampled).astype(int) if size > 1 else np.zeros(1, int) for size in sizes)
        items = first if isinstance(units, int) else np.concatenate([units[cluster] for cluster in first])
        return measure(items, *rest)

    samples = [np.arange(size) for size in sizes if size > 1]
    value = statistic(*samples)
    if not samples:
        return Interval(value, value, value)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", stats.DegenerateDataWarning)
        found = stats.bootstrap(
            samples,
            statistic,
            n_resamples=DRAWS,
            # Items and seeds are drawn in turn; items alone in batches of bounded memory, which gives the same draws.
            batch=max(1, _BATCH // count) if len(samples) == 1 else 1,
            vectorized=False,
            method="percentile",
            rng=np.random.default_rng(0),
        )
    tail = (1 - CONFIDENCE) / 2
    low, high = np.nanquantile(found.bootstrap_distribution, [tail, 1 - tail], axis=-1)
    return Interval(value, low, high)
