"""The prediction interval of each dimension: a scale that follows the predictions, times a calibrated quantile.

For the number `m_d` of a dimension `d` the interval at a level such as 0.9 is `m_d -+ q_d(level) * s_d(m)`, cut at 0
and 1. The scale `s_d` says where on the scales errors are large: a constant plus a share of a small network of the
three numbers, fitted after these, which it cannot move. `q_d` are quantiles of `|label - m_d| / s_d` for speakers that
a model was not fitted to: those of a validation part (split conformal prediction), or all of them, by the residuals of
cross-fits. CV+ itself (R. F. Barber et al., Annals of Statistics 49, 2021) would need the models of all groups of
speakers; here one model is kept.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from .configuration_msfser import LABELS

# Of an interval, unless another level is asked for.
INTERVAL_LEVEL = 0.9
# The levels of the table of quantiles; between two of them it is interpolated.
LEVELS = tuple(percent / 100 for percent in range(1, 100))
_HIDDEN = 16
_SMALLEST = 0.01


class MsfSerIntervals(nn.Module):
    """The scale of each number, and its quantiles; without calibration, an interval is all of 0..1."""

    base: torch.Tensor
    share: torch.Tensor
    quantiles: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.hidden = nn.Linear(len(LABELS), _HIDDEN)
        self.out = nn.Linear(_HIDDEN, len(LABELS))
        self.register_buffer("base", torch.zeros(len(LABELS)))
        self.register_buffer("share", torch.ones(len(LABELS)))
        self.register_buffer("quantiles", torch.full((len(LABELS), len(LEVELS)), torch.inf))

    def scale(self, numbers: torch.Tensor) -> torch.Tensor:
        """How large errors are around some numbers: `(batch, 3)` in 0..1 -> `(batch, 3)`, above 0."""
        centered = (4 * numbers - 2).to(self.hidden.weight.dtype)
        found = nn.functional.softplus(self.out(torch.tanh(self.hidden(centered))).float()) + _SMALLEST
        return self.base.float() + self.share.float() * found

    def forward(self, numbers: torch.Tensor, level: float = INTERVAL_LEVEL) -> tuple[torch.Tensor, torch.Tensor]:
        """`(batch, 3)` in 0..1 -> the low and the high ends, `(batch, 3)` in 0..1, float32.

        Raises:
            ValueError: The table has no such level.
        """
        check_level(level)
        place = (level - LEVELS[0]) / (LEVELS[1] - LEVELS[0])
        below = min(int(place), len(LEVELS) - 2)
        lower, upper = self.quantiles[:, below].float(), self.quantiles[:, below + 1].float()
        share = round(place - below, 6)
        # Infinite quantiles times a share of zero have no value.
        quantile = upper if share == 1 else lower if share == 0 else (1 - share) * lower + share * upper
        half = quantile * self.scale(numbers)
        return (numbers - half).clamp(0, 1), (numbers + half).clamp(0, 1)


def set_intervals(model: Any, intervals: MsfSerIntervals | None) -> None:
    """Gives [`MsfSerModel`] other intervals, which its training leaves as they are, or none."""
    model.config.intervals = intervals is not None
    model.intervals = None if intervals is None else intervals.to(model.device).requires_grad_(False)


def intervals_of(output: Mapping[str, torch.Tensor], row: int) -> dict[str, list[float]] | None:
    """The low and the high end of each dimension of one item of [`MsfSerOutput`]; `None` without intervals."""
    if output.get("low") is None:
        return None
    return dict(zip(LABELS, torch.stack([output["low"][row], output["high"][row]], -1).tolist(), strict=True))


def check_level(level: Any) -> None:
    """Checks the level of an interval.

    Raises:
        ValueError: It is no number from 0.01 to 0.99.
    """
    is_number = isinstance(level, (int, float)) and not isinstance(level, bool)
    if not is_number or not LEVELS[0] <= level <= LEVELS[-1]:
        raise ValueError(f"interval_level={level!r} is no level: give a number from {LEVELS[0]} to {LEVELS[-1]}.")


def percentiles_of(
    values: Mapping[str, float], scale: Mapping[str, Any] | None
) -> dict[str, dict[str, int | None]] | None:
    """Where numbers lie among the labels and among the predictions of a model's corpus.

    Args:
        values: The number of each dimension.
        scale: `config.scale`: `labels` and `predictions`, each with evenly spaced quantiles of the dimensions.

    Returns:
        By dimension the percentile, 0..100, among `labels` and among `predictions`; `None` without a scale.
    """
    if scale is None:
        return None
    return {
        name: {kind: percentile_of(value, scale[kind][name]) for kind in ("labels", "predictions")}
        for name, value in values.items()
    }


def percentile_of(value: float, quantiles: Sequence[float]) -> int | None:
    """The percentile of a value, 0..100, by evenly spaced quantiles from the least to the greatest value.

    Of a value that many share it is the middle; without quantiles there is none.
    """
    if not quantiles:
        return None
    shares = np.linspace(0, 100, len(quantiles))
    first, last = (int(np.searchsorted(quantiles, value, side)) for side in ("left", "right"))
    if last > first:
        return round(float(shares[first] + shares[last - 1]) / 2)
    if first in (0, len(quantiles)):
        return 0 if first == 0 else 100
    return round(float(np.interp(value, quantiles[first - 1 : first + 1], shares[first - 1 : first + 1])))
