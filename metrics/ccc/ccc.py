"""Concordance correlation coefficient for `evaluate.load("metrics/ccc")`."""

from collections.abc import Sequence

import datasets
import evaluate
import torch

from msfser.configuration_msfser import LABELS
from msfser.loss_msfser import UNRATED, concordance

_DESCRIPTION = """
Agreement of predicted with given valence, arousal and dominance, or of one dimension alone: concordance correlation
coefficient (CCC), Pearson's correlation and root mean square error, the mean CCC of the three dimensions, and
bootstrap intervals of the CCC.
"""

_INPUTS = """
Args:
    predictions: `(items, 3)`, valence, arousal, dominance; or `(items,)`, one dimension. On one scale with the
        references, such as 0..1.
    references: The same shape; -100 where a dimension is not rated: such items do not count in it.
    n_resamples: Bootstrap samples of the items; 0 leaves the intervals out.
    confidence: Coverage of the intervals, percentile bootstrap.
    seed: Of the bootstrap.
Returns:
    Of three dimensions `ccc_valence`, `ccc_arousal`, `ccc_dominance`, `ccc_mean`, each also with `_low` and `_high`;
    `pearson_...` and `rmse_...` of each dimension; a dimension without a rated item is left out, also of the mean. Of
    one dimension `ccc`, `ccc_low`, `ccc_high`, `pearson`, `rmse`.
    A coefficient that is not defined (one item, constant values) is 0.
Examples:
    >>> ccc = evaluate.load("metrics/ccc")
    >>> ccc.compute(predictions=[[0.2, 0.3, 0.4], [0.8, 0.6, 0.5]], references=[[0.1, 0.3, 0.5], [0.9, 0.7, 0.6]])
    >>> ccc.compute(predictions=[0.2, 0.8, 0.5], references=[0.1, 0.9, 0.6])
"""

_CITATION = """
@article{lin1989concordance,
  title={A Concordance Correlation Coefficient to Evaluate Reproducibility},
  author={Lin, Lawrence I-Kuei}, journal={Biometrics}, volume={45}, number={1}, pages={255--268}, year={1989}
}
"""

# Resamples that are scored at once: bounds the memory at items x 250 x 3 numbers.
_CHUNK = 250


class CCC(evaluate.Metric):
    """See the module's texts; loss and metric share `msfser.loss_msfser.concordance`."""

    def _info(self) -> evaluate.MetricInfo:
        value = datasets.Value("float64")
        shapes = (datasets.Sequence(value), value)  # of an item: three dimensions, or one
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_INPUTS,
            features=[datasets.Features({"predictions": shape, "references": shape}) for shape in shapes],
        )

    def _infer_feature_from_batch(self, batch: dict[str, Sequence]) -> datasets.Features:
        """Of an empty batch, too, which has no first item."""
        return super()._infer_feature_from_batch(batch) if all(map(len, batch.values())) else self.features[0]

    def _compute(
        self, predictions: list, references: list, n_resamples: int = 1000, confidence: float = 0.95, seed: int = 0
    ) -> dict[str, float]:
        predicted = torch.tensor(predictions, dtype=torch.float64)
        given = torch.tensor(references, dtype=torch.float64)
        is_whole = predicted.ndim == 2 and predicted.shape[1] == len(LABELS)
        if predicted.shape != given.shape or not len(given) or not (is_whole or predicted.ndim == 1):
            raise ValueError(
                f"predictions {tuple(predicted.shape)} and references {tuple(given.shape)} must both be "
                f"(items, {len(LABELS)}): {', '.join(LABELS)}; or both (items,): one dimension."
            )
        if not (predicted.isfinite().all() and given.isfinite().all()):
            raise ValueError("predictions or references hold values that are not finite.")
        if n_resamples < 0 or not 0 < confidence < 1:
            raise ValueError(f"n_resamples={n_resamples} and confidence={confidence} give no interval.")
        names = [f"_{name}" for name in LABELS] if is_whole else [""]
        predicted, given = predicted.reshape(len(given), -1), given.reshape(len(given), -1)
        present = (given != UNRATED).any(0)
        if not present.any():
            raise ValueError("no item is rated in any dimension.")
        names = [name for name, is_present in zip(names, present.tolist(), strict=True) if is_present]
        predicted, given = predicted[:, present], given[:, present]
        rated = given != UNRATED
        if rated.all():
            found = _scores(predicted, given)
        else:
            columns = zip(predicted.T, given.T, rated.T, strict=True)
            each = [_scores(p[rows, None], y[rows, None]) for p, y, rows in columns]
            found = {score: torch.cat([of[score] for of in each]) for score in each[0]}
        scores = {
            f"{score}{name}": value
            for score, values in found.items()
            for name, value in zip(names, values.tolist(), strict=True)
        }
        samples = _bootstrap(predicted, given, rated, n_resamples, seed) if n_resamples else None
        if is_whole:
            names.append("_mean")
            scores["ccc_mean"] = found["ccc"].mean().item()
            samples = None if samples is None else torch.cat([samples, samples.mean(1, keepdim=True)], dim=1)
        if samples is not None:
            tail = (1 - confidence) / 2
            for end, share in (("low", tail), ("high", 1 - tail)):
                bounds = samples.quantile(share, dim=0).tolist()
                scores |= {f"ccc{name}_{end}": bound for name, bound in zip(names, bounds, strict=True)}
        return scores


def _scores(predicted: torch.Tensor, given: torch.Tensor) -> dict[str, torch.Tensor]:
    """The scores of each column."""
    return {
        "ccc": concordance(predicted, given),
        # Pearson's r is the CCC of standardized columns.
        "pearson": concordance(_standardized(predicted), _standardized(given)),
        "rmse": (predicted - given).square().mean(0).sqrt(),
    }


def _bootstrap(
    predicted: torch.Tensor, given: torch.Tensor, rated: torch.Tensor, n_resamples: int, seed: int
) -> torch.Tensor:
    """CCC of resampled items, `(resamples, dimensions)`."""
    mask = None if rated.all() else rated
    generator = torch.Generator().manual_seed(seed)
    chunks = []
    for start in range(0, n_resamples, _CHUNK):
        draws = (len(given), min(_CHUNK, n_resamples - start))
        rows = torch.randint(len(given), draws, generator=generator)
        chunks.append(concordance(predicted[rows], given[rows], None if mask is None else mask[rows]))
    return torch.cat(chunks)


def _standardized(values: torch.Tensor) -> torch.Tensor:
    centered = values - values.mean(0)
    deviation = centered.square().mean(0).sqrt()
    return centered / torch.where(deviation > 0, deviation, 1.0)
