"""95 % intervals: the jackknife over clusters of items (such as speakers) and over seeds, and exact ones of shares.

A measure `m` of `G` clusters is computed once with all of them and once without each, `m_1 .. m_G`. Their variance and
that over `S` seeds, whose runs are left out in turn likewise, are added:

    v_G = (G - 1) / G * sum_g (m_g - mean(m_g))^2        v = v_G + v_S
    df = v^2 / (v_G^2 / (G - 1) + v_S^2 / (S - 1))        m -+ t(df, 0.975) * sqrt(v)

(the jackknife: B. Efron, The Jackknife, the Bootstrap and Other Resampling Plans, 1982; the degrees of freedom: F. E.
Satterthwaite, Biometrics Bulletin 2, 1946). Few speakers or seeds thus give wide intervals. Percentiles of a bootstrap
over four speakers hold the true value much less often than they say; `benchmarks/coverage.py` simulates both.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from scipy import stats

from ..loss_msfser import concordance
from ..training.labels import rated_labels

CONFIDENCE = 0.95

# Items without clusters are dealt into at most so many groups.
_GROUPS = 50
# From -1 and 1, whose Fisher transforms are infinite.
_MARGIN = 1e-9


class Interval(NamedTuple):
    """A measure with the ends of its interval; arrays where the measure gives an array."""

    value: Any
    low: Any
    high: Any


def clusters(names: Iterable[object], sort: bool = False) -> list[np.ndarray]:
    """The indices of the items of each name; the names in the order of their first appearance, or sorted."""
    codes, _ = pd.factorize(np.asarray(names, object), sort=sort)
    return [np.flatnonzero(codes == code) for code in range(codes.max(initial=-1) + 1)]


def resampled_units(speakers: Sequence[str | None] | pd.Series) -> tuple[int | list[np.ndarray], str]:
    """The units of an interval over utterances, and what the reader is told: speakers where they are known.

    Utterances of one speaker are not independent, so that intervals over utterances are too narrow.

    Returns:
        The indices of each speaker's utterances, an unknown speaker counting as another one each time, and
        "24 speakers" or "speakers where known"; or the number of utterances and "utterances" if no speaker is known
        or all utterances have the same one.
    """
    # What pandas makes of a speaker that is not known is no speaker, either.
    names = [None if pd.isna(speaker) else str(speaker) for speaker in speakers]
    known = [name for name in names if name is not None]
    units = clusters([f"\0{i}" if name is None else name for i, name in enumerate(names)])
    if not known or len(units) == 1:
        return len(names), "utterances"
    return units, f"{len(units)} speakers" if len(known) == len(names) else "speakers where known"


def ccc_interval(predicted: np.ndarray, given: np.ndarray, units: int | Sequence[np.ndarray]) -> Interval:
    """CCC of valence, arousal, dominance and their mean, arrays `(4,)`, from values `(utterances, 3)`.

    Utterances that are not rated in a dimension do not count in it. A dimension whose CCC is not defined, see
    [`concordance_of_rated`], is NaN, and not in the mean.
    """
    numbers, labels = np.asarray(predicted), rated_labels(given)
    present = ~np.isnan(concordance_of_rated(numbers, labels)[:-1])
    numbers, labels = numbers[:, present], labels[:, present]
    found = interval(lambda items: concordance_of_rated(numbers[items], labels[items]), units, correlation=True)
    if present.all():
        return found
    kept = np.append(present, True)
    ends = np.full((3, len(kept)), np.nan)
    ends[:, kept] = found
    return Interval(*ends)


def concordance_of_rated(predicted: np.ndarray, given: np.ndarray) -> np.ndarray:
    """CCC of each dimension and their mean: `(items, ..., dimensions)` -> `(..., dimensions + 1)`.

    Items whose label is NaN, see [`rated_labels`], do not count in a dimension. Unlike in [`concordance`], a CCC that
    is not defined is NaN, and so is the mean with it: that of fewer than two items, or of labels and predictions that
    are both constant.
    """
    numbers, labels = (torch.tensor(values, dtype=torch.float64) for values in (predicted, given))
    rated = ~labels.isnan()
    varies = [
        torch.where(rated, values, -np.inf).amax(0) > torch.where(rated, values, np.inf).amin(0)
        for values in (numbers, labels)
    ]
    ccc = concordance(numbers, labels, None if rated.all() else rated).where(varies[0] | varies[1], np.nan)
    return torch.cat([ccc, ccc.mean(-1, keepdim=True)], dim=-1).numpy()


def interval(
    measure: Callable[..., Any],
    units: int | Sequence[np.ndarray],
    *,
    seeds: int | None = None,
    correlation: bool = False,
) -> Interval:
    """A measure over all items with its 95 % interval; a difference computed inside one measure is paired.

    Args:
        measure: Maps the indices of items to a number or an array. With `seeds` it gets the indices of the seeds as
            its second argument. It has to be smooth in its items: a mean, a ratio, a correlation, not a median.
        units: The indices of the items of each cluster, or the number of items that are independent; many of these
            are dealt into 50 groups at random.
        seeds: The number of seeds of the training. The interval is about other speakers and other seeds; without
            seeds, or with one, it is about other speakers and the same trained model.
        correlation: The measure is a correlation or CCC in -1..1: the interval is that of its Fisher transform
            `atanh(m)`, so that its ends are in this range, too (L. I. Lin, Biometrics 45, 1989).

    Returns:
        The measure over all items and seeds, and the ends of its interval. They are NaN where the spread is not
        known: of a single unit and seed, and where the measure is NaN without one of the units or seeds.
    """
    transform: Callable[[np.ndarray], np.ndarray] = _fisher if correlation else np.asarray
    value, error, freedom = _jackknife(measure, units, seeds, transform)
    center, half = transform(value), stats.t.ppf((1 + CONFIDENCE) / 2, freedom) * error
    low, high = (np.tanh(end) if correlation else end for end in (center - half, center + half))
    return Interval(value[()], low, high)


def share_interval(hits: Any, units: Sequence[np.ndarray] | None = None) -> Interval:
    """A share with its exact 95 % interval, which has a width for shares of 0 and 1, too.

    The ends are those of C. J. Clopper and E. S. Pearson (Biometrika 26, 1934). Of `n` items in clusters fewer are
    counted (E. L. Korn and B. I. Graubard, Survey Methodology 24, 1998): with the share `p` and the variance `v` and
    degrees of freedom `df` of the jackknife `min(n, p * (1 - p) / v * (t(n - 1, 0.975) / t(df, 0.975))^2)`, and `n`
    instead of `p * (1 - p) / v` where nothing varies.

    Args:
        hits: Truth values or numbers in 0..1, `(items,)`, or `(seeds, items)` for several seeds.
        units: The indices of the items of each cluster; by default items are independent.
    """
    values = np.atleast_2d(np.asarray(hits, float))
    count = values.shape[1] if units is None else sum(map(len, units))
    independent = count if units is None else len(units)

    def measure(items: np.ndarray, seeds: np.ndarray) -> float:
        return float(values[np.ix_(seeds, items)].mean())

    share, error, freedom = _jackknife(measure, count if units is None else units, len(values), np.asarray)
    size = float(count)
    if independent < count or len(values) > 1:
        varies = error > 0
        freedoms = max(count - 1, 1), freedom if varies else max(independent - 1, 1)
        of_items, of_units = stats.t.ppf((1 + CONFIDENCE) / 2, freedoms)
        size = min(size, (share * (1 - share) / error**2 if varies else size) * (of_items / of_units) ** 2)
    tail, found = (1 - CONFIDENCE) / 2, share * size
    low = stats.beta.ppf(tail, found, size - found + 1) if share > 0 else 0
    high = stats.beta.ppf(1 - tail, found + 1, size - found) if share < 1 else 1
    return Interval(float(share), float(low), float(high))


def median_interval(values: Sequence[float]) -> Interval:
    """The median of independent units, such as clips, with its exact interval; NaN ends for fewer than six.

    The ends are two of the values (W. J. Conover, Practical Nonparametric Statistics, 1999, section 3.2).
    """
    low, high = stats.quantile_test(values, q=0, p=0.5).confidence_interval(CONFIDENCE)
    return Interval(float(np.median(values)), float(low), float(high))


def _jackknife(
    measure: Callable[..., Any],
    units: int | Sequence[np.ndarray],
    seeds: int | None,
    transform: Callable[[np.ndarray], np.ndarray],
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The measure, the standard error of its transform, NaN if unknown, and the degrees of freedom of this error."""
    if isinstance(units, int):
        order = np.random.default_rng(0).permutation(units)
        units = [order[first::_GROUPS] for first in range(min(units, _GROUPS))]

    def of(used: Sequence[np.ndarray], used_seeds: np.ndarray) -> np.ndarray:
        items = np.concatenate(used)
        return np.asarray(measure(items) if seeds is None else measure(items, used_seeds), float)

    every_seed = np.arange(seeds or 1)
    value = of(units, every_seed)
    of_units = [of([*units[:i], *units[i + 1 :]], every_seed) for i in range(len(units)) if len(units) > 1]
    of_seeds = [of(units, np.delete(every_seed, seed)) for seed in every_seed if len(every_seed) > 1]
    variance, squares = np.full(value.shape, 0.0 if of_units or of_seeds else np.nan), np.zeros(value.shape)
    for without in (transform(np.array(found)) for found in (of_units, of_seeds) if found):
        count = len(without)
        part = np.sum((without - np.sum(without, axis=0) / count) ** 2, axis=0) * (count - 1) / count
        variance, squares = variance + part, squares + part**2 / (count - 1)
    freedom = np.divide(variance**2, squares, out=np.ones(value.shape), where=squares > 0)
    return value, np.sqrt(variance), freedom


def _fisher(values: np.ndarray) -> np.ndarray:
    return np.arctanh(np.clip(values, _MARGIN - 1, 1 - _MARGIN))
