"""How often the intervals of a model contain the label, and how wide they are."""

from collections.abc import Sequence

import numpy as np
import torch

from ..configuration_msfser import LABELS
from ..intervals_msfser import INTERVAL_LEVEL, MsfSerIntervals
from ..training.labels import rated_labels
from .intervals import share_interval
from .results import INTERVALS, Row, row


def ends_of(
    intervals: MsfSerIntervals, numbers: np.ndarray, level: float = INTERVAL_LEVEL
) -> tuple[np.ndarray, np.ndarray]:
    """The low and the high ends around some numbers, each `(items, 3)` in 0..1."""
    with torch.no_grad():
        given = torch.tensor(np.asarray(numbers), dtype=torch.float32, device=intervals.quantiles.device)
        low, high = intervals(given, level)
    return low.cpu().numpy(), high.cpu().numpy()


def contained(low: np.ndarray, high: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Whether each label is between the ends, `(items, 3)`: 1 or 0, and NaN where it is not rated.

    Labels and ends may differ by rounding.
    """
    given = rated_labels(labels)
    return np.where(np.isnan(given), np.nan, (low - 1e-6 <= given) & (given <= high + 1e-6))


def coverage_rows(
    name: str, intervals: MsfSerIntervals, numbers: np.ndarray, labels: np.ndarray, units: int | Sequence[np.ndarray]
) -> list[Row]:
    """Rows `intervals/NAME/DIMENSION/coverage`, a share, and `.../width`, the mean, at the default level.

    Args:
        name: Of the items.
        intervals: Of the model.
        numbers: `(items, 3)`.
        labels: `(items, 3)`; a dimension of which none is rated has no row.
        units: What the intervals of the share resample, as in [`resampled_units`].
    """
    low, high = ends_of(intervals, numbers)
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
