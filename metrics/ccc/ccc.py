"""Concordance correlation coefficient for `evaluate.load("metrics/ccc")`."""

import datasets
import evaluate
import torch

from msfser.configuration_msfser import LABELS
from msfser.loss_msfser import concordance

_DESCRIPTION = """
Agreement of predicted with given valence, arousal and dominance: concordance correlation coefficient (CCC), Pearson's
correlation and root mean square error of each dimension, the mean CCC, and bootstrap intervals of the CCC.
"""

_INPUTS = """
Args:
    predictions: `(items, 3)`, valence, arousal, dominance, in 0..1.
    references: The same shape.
    n_resamples: Bootstrap samples of the items; 0 leaves the intervals out.
    confidence: Coverage of the intervals, percentile bootstrap.
    seed: Of the bootstrap.
Returns:
    `ccc_valence`, `ccc_arousal`, `ccc_dominance`, `ccc_mean`, each also with `_low` and `_high`; `pearson_...` and
    `rmse_...` of each dimension. A coefficient that is not defined (one item, constant values) is 0.
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
        row = datasets.Sequence(datasets.Value("float64"))
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_INPUTS,
            features=datasets.Features({"predictions": row, "references": row}),
        )

    def _compute(
        self, predictions: list, references: list, n_resamples: int = 1000, confidence: float = 0.95, seed: int = 0
    ) -> dict[str, float]:
        predicted = torch.tensor(predictions, dtype=torch.float64)
        given = torch.tensor(references, dtype=torch.float64)
        if predicted.ndim != 2 or predicted.shape[1] != len(LABELS) or predicted.shape != given.shape:
            raise ValueError(
                f"predictions {tuple(predicted.shape)} and references {tuple(given.shape)} must both be "
                f"(items, {len(LABELS)}): {', '.join(LABELS)}."
            )
        if not (predicted.isfinite().all() and given.isfinite().all()):
            raise ValueError("predictions or references hold values that are not finite.")
        if n_resamples < 0 or not 0 < confidence < 1:
            raise ValueError(f"n_resamples={n_resamples} and confidence={confidence} give no interval.")
        ccc = concordance(predicted, given)
        scores = _by_label("ccc", ccc) | {"ccc_mean": ccc.mean().item()}
        # Pearson's r is the CCC of standardized columns.
        scores |= _by_label("pearson", concordance(_standardized(predicted), _standardized(given)))
        scores |= _by_label("rmse", (predicted - given).square().mean(0).sqrt())
        if n_resamples:
            samples = _bootstrap(predicted, given, n_resamples, seed)
            samples = torch.cat([samples, samples.mean(1, keepdim=True)], dim=1)
            tail = (1 - confidence) / 2
            for end, share in (("low", tail), ("high", 1 - tail)):
                bounds = samples.quantile(share, dim=0).tolist()
                scores |= {f"ccc_{name}_{end}": bound for name, bound in zip((*LABELS, "mean"), bounds, strict=True)}
        return scores


def _bootstrap(predicted: torch.Tensor, given: torch.Tensor, n_resamples: int, seed: int) -> torch.Tensor:
    """CCC of resampled items, `(resamples, 3)`."""
    generator = torch.Generator().manual_seed(seed)
    chunks = []
    for start in range(0, n_resamples, _CHUNK):
        draws = (len(given), min(_CHUNK, n_resamples - start))
        rows = torch.randint(len(given), draws, generator=generator)
        chunks.append(concordance(predicted[rows], given[rows]))
    return torch.cat(chunks)


def _standardized(values: torch.Tensor) -> torch.Tensor:
    centered = values - values.mean(0)
    deviation = centered.square().mean(0).sqrt()
    return centered / torch.where(deviation > 0, deviation, 1.0)


def _by_label(prefix: str, values: torch.Tensor) -> dict[str, float]:
    return {f"{prefix}_{name}": value for name, value in zip(LABELS, values.tolist(), strict=True)}
