"""Cuts items into batches by seconds: as many as fit when each is padded to the longest of its batch."""

from collections.abc import Sequence

import numpy as np


def batches_by_size(sizes: Sequence[float], budget: float, most: int) -> list[np.ndarray]:
    """Cuts items into batches, the largest first, with little padding and without randomness.

    A batch depends only on its first item and those after it, so that the rest of a list that is done in part is cut
    as before.

    Args:
        sizes: One per item, in the unit of the budget.
        budget: Items times the largest size of a batch; a larger item is a batch alone.
        most: Largest number of items in a batch.

    Returns:
        The items of each batch.
    """
    values = np.asarray(sizes, dtype=float)
    order = np.argsort(-values, kind="stable")
    return [order[batch] for batch in batches_in_order(values[order].tolist(), budget, most)]


def batches_in_order(sizes: Sequence[float], budget: float, most: int) -> list[np.ndarray]:
    """Cuts items into batches in their order, with little padding where neighbors are of similar size.

    Args:
        sizes: One per item, in the unit of the budget.
        budget: Items times the largest size of a batch; a larger item is a batch alone.
        most: Largest number of items in a batch.

    Returns:
        The items of each batch.
    """
    batches: list[np.ndarray] = []
    start, largest = 0, 0.0
    for item, size in enumerate(sizes):
        largest = max(largest, size)
        count = item - start
        if count and (count == most or (count + 1) * largest > budget):
            batches.append(np.arange(start, item))
            start, largest = item, size
    return [*batches, np.arange(start, len(sizes))] if len(sizes) else []
