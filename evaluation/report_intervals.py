"""What the report says about the intervals around the numbers: are they right, for whom, and do they tell errors?"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from ..configuration_msfser import LABELS
from ..intervals_msfser import INTERVAL_LEVEL
from ..training.labels import GIVEN, numbers_and_labels
from .coverage import EndsAt, contained
from .intervals import interval, resampled_units, share_interval
from .plots import NOT_RATED, Ends, intervals, scatter
from .predictions import rated_dimensions

_LEVELS = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
# Shares of the utterances that are kept, those with the narrowest intervals.
_KEPT = (0.25, 0.5, 0.75, 1.0)
_MOST_GROUPS = 30


def calibration_plots(table: pd.DataFrame, ends_at: EndsAt) -> list[str]:
    """For each rated dimension the share of labels that the intervals contain, against their level.

    Args:
        table: Predictions and labels, as in [`Predictions`].
        ends_at: The ends around the predictions.
    """
    labels = table[GIVEN].to_numpy(np.float64)
    hits = {level: contained(*ends_at(level), labels) for level in _LEVELS}
    low, high = ends_at(INTERVAL_LEVEL)
    plots = []
    for label in rated_dimensions(table):
        d = LABELS.index(label)
        rated = ~np.isnan(labels[:, d])
        shares = {level: of_level[rated, d].mean() for level, of_level in hits.items()}
        width = (high - low)[rated, d].mean()
        notes = (f"at level {INTERVAL_LEVEL}: {shares[INTERVAL_LEVEL]:.2f}", f"mean width {width:.2f}")
        plots.append(scatter(label, notes, _LEVELS, [*shares.values()], ("level", "share")))
    return plots


def coverage_by_group(groups: Mapping[str, pd.Series], table: pd.DataFrame, ends_at: EndsAt) -> list[str]:
    """For each grouping the share of labels that the intervals contain, by group.

    Args:
        groups: By name of the grouping, the group of each row.
        table: Predictions, labels and speakers.
        ends_at: The ends around the predictions.
    """
    labels, speakers = table[GIVEN].to_numpy(np.float64), table["speaker"].to_numpy()
    rated = rated_dimensions(table)
    hits = contained(*ends_at(INTERVAL_LEVEL), labels)[:, [LABELS.index(label) for label in rated]]
    plots = []
    for of_items in groups.values():
        counts = of_items.value_counts()
        shown: dict[str, list[Ends]] = {}
        for group in sorted(counts.index[:_MOST_GROUPS]):
            in_group = (of_items == group).to_numpy()
            counted = [in_group & ~np.isnan(column) for column in hits.T]
            shown[f"{group} ({counts[group]})"] = [
                _share(column[items], speakers[items]) for column, items in zip(hits.T, counted, strict=True)
            ]
        if shown:
            titles = [f"{label}, share" for label in rated]
            plots.append(intervals(shown, titles, ends=(0.0, 1.0), reference=INTERVAL_LEVEL))
    return plots


def risk_plot(table: pd.DataFrame, ends_at: EndsAt) -> str:
    """The mean absolute error of the utterances with the narrowest intervals, by the share that is kept."""
    numbers, labels = numbers_and_labels(table)
    speakers = table["speaker"].to_numpy()
    low, high = ends_at(INTERVAL_LEVEL)
    errors, width = np.abs(numbers - labels), high - low
    dimensions = rated_dimensions(table)
    shown: dict[str, list[Ends]] = {}
    for share in _KEPT:
        row = []
        for d in map(LABELS.index, dimensions):
            rated = ~np.isnan(errors[:, d])
            kept = rated & (width[:, d] <= np.quantile(width[rated, d], share))
            row.append(ends_over_speakers(np.mean, errors[kept, d], speakers[kept]))
        shown[f"narrowest {share:.0%}" if share < 1 else "all"] = row
    most = float(np.nanmax([ends for of_share in shown.values() for ends in of_share]))
    return intervals(shown, [f"{label}, mean error" for label in dimensions], ends=(0.0, min(1.0, most)))


def ends_over_speakers(
    measure: Callable[[np.ndarray], Any], values: np.ndarray, speakers: Sequence[str | None]
) -> Ends:
    """A measure of values, such as their mean, with its 95 % interval over speakers as in [`resampled_units`].

    Args:
        measure: Of an array of numbers; smooth, as in [`interval`].
        values: One of each utterance; NaN does not count.
        speakers: Of each utterance.
    """
    is_known = ~np.isnan(values)
    if not is_known.any():
        return NOT_RATED
    known, units = values[is_known], resampled_units(np.asarray(speakers, object)[is_known].tolist())[0]
    value, low, high = interval(lambda drawn: measure(known[drawn]), units)
    return float(value), float(low), float(high)


def _share(hits: np.ndarray, speakers: Sequence[str | None]) -> Ends:
    if not len(hits):
        return NOT_RATED
    units, _ = resampled_units(speakers)
    value, low, high = share_interval(hits, None if isinstance(units, int) else units)
    return value, low, high
