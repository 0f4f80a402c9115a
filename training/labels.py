"""Labels as tables and metrics have them: NaN where a dimension is not rated; and which dimensions are not."""

import logging
from typing import TYPE_CHECKING, Any

import datasets
import numpy as np

from ..configuration_msfser import LABELS
from ..loss_msfser import UNRATED

if TYPE_CHECKING:
    import pandas as pd

logger = logging.getLogger(__name__)

# The columns of the labels in tables of predictions, whose numbers have the names of the dimensions.
GIVEN = [f"{label}_label" for label in LABELS]


def rated_labels(labels: Any) -> np.ndarray:
    """Labels with NaN in place of `UNRATED`, which the loss needs; NaN stays.

    Every table of predictions is written with it, and every metric reads its labels through it.
    """
    values = np.asarray(labels)
    return np.where(values == UNRATED, np.nan, values)


def numbers_and_labels(table: "pd.DataFrame") -> tuple[np.ndarray, np.ndarray]:
    """The numbers and the labels of a table of predictions, `(items, 3)` each."""
    return table[[*LABELS]].to_numpy(np.float64), table[GIVEN].to_numpy(np.float64)


def unrated_dimensions(part: datasets.Dataset) -> list[str]:
    """The dimensions of which a part has no label."""
    return [label for label in LABELS if all(value == UNRATED for value in part[label])]


def warn_of_unrated(part: datasets.Dataset) -> None:
    """Warns where nothing is learned of a dimension."""
    for label in unrated_dimensions(part):
        logger.warning("%s is not rated: the model learns nothing of it, and its numbers mean nothing", label)
