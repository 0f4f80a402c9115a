"""The concordance correlation coefficient (CCC): one formula for the training loss and for the metric."""

import torch
import torch.distributed as dist
from transformers.utils import logging

from .configuration_msfser import LABELS

logger = logging.get_logger(__name__)

# Far below any real spread of labels in 0..1, so it only acts where the coefficient is 0/0.
_SMALLEST_DENOMINATOR = 1e-8

# The label of a dimension that nobody rated, in items of corpora that do not have it: the library's index to ignore.
UNRATED = -100.0


def concordance(predictions: torch.Tensor, labels: torch.Tensor, rated: torch.Tensor | None = None) -> torch.Tensor:
    """Concordance correlation coefficient of each column.

    `CCC = 2 cov(p, y) / (var(p) + var(y) + (mean(p) - mean(y))^2)` with 1/N moments (Lin, 1989). It is 0 where it
    is not defined: one item, or constant and equal columns.

    Predictions and labels are `(items, ...)`, floating point; the result is `(...)`, in -1..1, in their precision.
    With `rated`, a mask of their shape, each column counts only its rated items; it is 0 without any.
    """
    if rated is None:
        mean_p, mean_y = predictions.mean(0), labels.mean(0)
        centered_p, centered_y = predictions - mean_p, labels - mean_y
        covariance = (centered_p * centered_y).mean(0)
        spread = centered_p.square().mean(0) + centered_y.square().mean(0)
    else:
        count = rated.sum(0).clamp(min=1)
        mean_p, mean_y = (torch.where(rated, values, 0).sum(0) / count for values in (predictions, labels))
        centered_p, centered_y = torch.where(rated, predictions - mean_p, 0), torch.where(rated, labels - mean_y, 0)
        covariance = (centered_p * centered_y).sum(0) / count
        spread = (centered_p.square().sum(0) + centered_y.square().sum(0)) / count
    denominator = spread + (mean_p - mean_y).square()
    return 2 * covariance / denominator.clamp(min=_SMALLEST_DENOMINATOR)


def check_labels(labels: torch.Tensor, batch: int) -> None:
    """Checks the labels of a batch.

    Their values are looked at on a CPU alone, as another device would have to be waited for, and not while the model
    is compiled or exported. The collators have looked at them before.

    Raises:
        ValueError: They are not `(batch, 3)`, or a value is neither in 0..1 nor `UNRATED`.
    """
    if not isinstance(labels, torch.Tensor):
        raise ValueError(f"The labels are {type(labels).__name__}: give a tensor of shape {(batch, len(LABELS))}.")
    if tuple(labels.shape) != (batch, len(LABELS)):
        raise ValueError(
            f"The labels have the shape {tuple(labels.shape)} and should be {(batch, len(LABELS))}: for each item "
            f"{', '.join(LABELS)}."
        )
    if labels.device.type != "cpu" or torch.compiler.is_compiling():
        return
    wrong = ~((labels >= 0) & (labels <= 1) | (labels == UNRATED))  # also NaN
    if wrong.any():
        row, label = wrong.nonzero()[0].tolist()
        raise ValueError(
            f"The {LABELS[label]} of item {row} of the batch is {labels[row, label].item():g} and should be in 0..1: "
            f"scale the labels first (from_scale), or write {UNRATED:g} where the dimension is not rated."
        )


def ccc_loss(predictions: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Sum over the dimensions of `1 - CCC`, in float32, over the batch of all processes.

    CCC is a statistic of the batch, so under several processes it is computed over the global batch: each process
    returns the same loss, and after the usual averaging the gradients equal those of one process with the whole
    batch. Every process must hold the same number of items (`dataloader_drop_last=True`).

    Predictions and labels are `(batch, dimensions)`, in 0..1; the result is a scalar in 0..`2 * dimensions`. Items
    with the label `UNRATED` do not count in its dimension, and a dimension without a rated item adds neither loss nor
    gradient.
    """
    predictions, labels = predictions.float(), labels.float()
    if torch.is_grad_enabled() and dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
        predictions, labels = _gather(predictions), _gather(labels)
    if len(predictions) == 1 and predictions.requires_grad and not torch.compiler.is_compiling():
        logger.warning_once(
            "A batch of one item has no CCC: its loss is constant and nothing is learned from it. Use a larger "
            "per_device_train_batch_size, at least 2 and preferably 32 or more; gradient accumulation does not help."
        )
    rated = labels != UNRATED
    plain = 1 - concordance(predictions, labels)
    masked = torch.where(rated.any(0), 1 - concordance(predictions, labels, rated), 0)
    # Both are computed, as a device would have to wait for the answer to which one is needed.
    return torch.where(rated.all(), plain, masked).sum()


def _gather(local: torch.Tensor) -> torch.Tensor:
    """The rows of all processes, in rank order; gradients flow into the local rows.

    Processes average their gradients afterwards, which would shrink the local share by their number: the local rows
    keep their value and carry the gradient that many times.
    """
    parts = [torch.empty_like(local) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, local.detach().contiguous())
    size = dist.get_world_size()
    parts[dist.get_rank()] = local.detach() + size * (local - local.detach())
    return torch.cat(parts)
