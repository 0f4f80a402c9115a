"""How often the intervals of a model contain the label, and how wide they are."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch

from ..configuration_msfser import LABELS
from ..intervals_msfser import INTERVAL_LEVEL, MsfSerIntervals
from ..training.calibration import GROUPS, calibrated, too_few
from ..training.labels import rated_labels
from .intervals import share_interval
from .results import INTERVALS, Row, row

# For a level the low and the high ends around some numbers, each `(items, 3)` in 0..1.
EndsAt = Callable[[float], tuple[np.ndarray, np.ndarray]]


def ends_of(
    intervals: MsfSerIntervals, numbers: np.ndarray, level: float = INTERVAL_LEVEL
) -> tuple[np.ndarray, np.ndarray]:
    """The low and the high ends around some numbers, each `(items, 3)` in 0..1."""
    with torch.no_grad():
        given = torch.tensor(np.asarray(numbers), dtype=torch.float32, device=intervals.quantiles.device)
        low, high = intervals(given, level)
    return low.cpu().numpy(), high.cpu().numpy()


def ends_of_folds(
    numbers: np.ndarray, labels: np.ndarray, speakers: Sequence[str | None], folds: Sequence[Any]
) -> EndsAt | None:
    """The ends around the numbers of each fold, by intervals that are calibrated on the other folds.

    Args:
        numbers: `(items, 3)`, each by a model that left its fold out.
        labels: `(items, 3)`; what is not rated does not count.
        speakers: Of each item; blank or missing if not known.
        folds: Of each item.

    Returns:
        The ends; `None` where a speaker is not known or in two folds, or where a fold leaves too few speakers, or too
        few labels of a dimension that is rated, for calibration.
    """
    names = np.array(["" if pd.isna(name) else str(name) for name in speakers])
    places = np.unique(np.asarray(folds), return_inverse=True)[1]
    if (names == "").any() or len({*zip(names, places, strict=True)}) > len(set(names)):
        return None
    unrated = np.array(LABELS)[np.isnan(rated_labels(labels)).all(0)].tolist()
    of_folds = []
    for fold in np.unique(places):
        rest = places != fold
        if too_few(labels[rest], names[rest].tolist(), unrated):
            return None
        # The scale is fitted to all folds but one, too, unless these are too few or too many.
        others = places[rest] if 2 <= len(set(places[rest])) <= GROUPS else None
        of_folds.append((~rest, calibrated(numbers[rest], labels[rest], names[rest].tolist(), others)))

    def ends_at(level: float) -> tuple[np.ndarray, np.ndarray]:
        low, high = np.empty(numbers.shape), np.empty(numbers.shape)
        for here, intervals in of_folds:
            low[here], high[here] = ends_of(intervals, numbers[here], level)
        return low, high

    return ends_at


def contained(low: np.ndarray, high: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Whether each label is between the ends, `(items, 3)`: 1 or 0, and NaN where it is not rated.

    Labels and ends may differ by rounding.
    """
    given = rated_labels(labels)
    return np.where(np.isnan(given), np.nan, (low - 1e-6 <= given) & (given <= high + 1e-6))


def coverage_rows(name: str, ends_at: EndsAt, labels: np.ndarray, units: int | Sequence[np.ndarray]) -> list[Row]:
    """Rows `intervals/NAME/DIMENSION/coverage`, a share, and `.../width`, the mean, at the default level.

    Args:
        name: Of the items.
        ends_at: The ends around their numbers.
        labels: `(items, 3)`; a dimension of which none is rated has no row.
        units: What the intervals of the share resample, as in [`resampled_units`].
    """
    low, high = ends_at(INTERVAL_LEVEL)
    hits = contained(low, high, labels)
    rows: list[Row] = []
    for d, label in enumerate(LABELS):
        rated = np.flatnonzero(~np.isnan(hits[:, d]))
        if not len(rated):
            continue
        place = np.full(len(labels), -1)
        place[rated] = np.arange(len(rated))
        kept = None if isinstance(units, int) else [place[unit][place[unit] >= 0] for unit in units]
        share = share_interval(hits[rated, d], None if kept is None else [unit for unit in kept if len(unit)])
        rows.append(row(f"{INTERVALS}{name}/{label}/coverage", *share))
        rows.append(row(f"{INTERVALS}{name}/{label}/width", float((high - low)[rated, d].mean())))
    return rows
