"""Labels as tables and metrics have them: NaN where a dimension is not rated."""

from typing import Any

import numpy as np

from ..loss_msfser import UNRATED


def rated_labels(labels: Any) -> np.ndarray:
    """Labels with NaN in place of `UNRATED`, which the loss needs; NaN stays.

    Every table of predictions is written with it, and every metric reads its labels through it.
    """
    values = np.asarray(labels)
    return np.where(values == UNRATED, np.nan, values)
