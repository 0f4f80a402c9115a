"""The metric that is reported: CCC, Pearson, RMSE and bootstrap intervals, in the formula of the training loss."""

from pathlib import Path

import evaluate
import numpy as np
import pytest
import torch

from msfser import LABELS, ccc_loss

METRIC = str(Path(__file__).resolve().parents[2] / "metrics" / "ccc")


@pytest.fixture(scope="module")
def metric(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("evaluate")
        patch.setattr(evaluate.config, "HF_MODULES_CACHE", folder / "modules")
        yield evaluate.load(METRIC, cache_dir=str(folder))


def ratings(items: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Predictions and references, `(items, 3)` in 0..1, that agree differently in each dimension."""
    rng = np.random.default_rng(seed)
    references = rng.uniform(0, 1, (items, 3))
    predictions = 0.2 + 0.5 * references + rng.normal(0, 1, (items, 3)) * [0.05, 0.2, 0.8]
    return predictions, references


def naive_ccc(x: np.ndarray, y: np.ndarray) -> float:
    """Lin (1989), one number at a time."""
    n = len(x)
    mean_x, mean_y = sum(x) / n, sum(y) / n
    covariance = sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True)) / n
    variances = sum((a - mean_x) ** 2 for a in x) / n + sum((b - mean_y) ** 2 for b in y) / n
    return 2 * covariance / (variances + (mean_x - mean_y) ** 2)


@pytest.mark.parametrize("items", [2, 3, 50, 1001])
def test_every_number_equals_its_definition(metric, items):
    predictions, references = ratings(items)
    scores = metric.compute(predictions=predictions, references=references, n_resamples=0)
    columns = list(zip(LABELS, predictions.T, references.T, strict=True))
    ccc = {name: naive_ccc(x, y) for name, x, y in columns}
    expected = {f"ccc_{name}": value for name, value in ccc.items()}
    expected["ccc_mean"] = sum(ccc.values()) / 3
    expected |= {f"pearson_{name}": np.corrcoef(x, y)[0, 1] for name, x, y in columns}
    expected |= {f"rmse_{name}": np.sqrt(np.mean((x - y) ** 2)) for name, x, y in columns}
    assert scores == pytest.approx(expected, abs=1e-9)


def test_the_order_of_the_dimensions_is_kept(metric):
    predictions, references = ratings(100)
    alone = references.copy()
    alone[:, 1] = predictions[:, 1]
    scores = metric.compute(predictions=alone, references=references, n_resamples=0)
    assert scores["ccc_valence"] == scores["ccc_dominance"] == pytest.approx(1)
    assert scores["ccc_arousal"] < 0.95


@pytest.mark.parametrize("dimension", range(3))
def test_two_flat_lists_are_one_dimension(metric, dimension):
    predictions, references = ratings(60)
    whole = metric.compute(predictions=predictions, references=references, n_resamples=200)
    alone = metric.compute(
        predictions=predictions[:, dimension].tolist(), references=references[:, dimension].tolist(), n_resamples=200
    )
    name = LABELS[dimension]
    expected = {score: whole[f"{score}_{name}"] for score in ("ccc", "pearson", "rmse")}
    expected |= {f"ccc_{end}": whole[f"ccc_{name}_{end}"] for end in ("low", "high")}
    assert alone == pytest.approx(expected, abs=1e-12)


def test_one_dimension_item_by_item(metric):
    for prediction, reference in zip([0.2, 0.8, 0.5], [0.1, 0.9, 0.7], strict=True):
        metric.add(prediction=prediction, reference=reference)
    scores = metric.compute(n_resamples=0)
    expected = naive_ccc(np.array([0.2, 0.8, 0.5]), np.array([0.1, 0.9, 0.7]))
    assert scores.keys() == {"ccc", "pearson", "rmse"} and scores["ccc"] == pytest.approx(expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_metric_and_loss_share_one_formula(metric, dtype):
    predictions, references = (torch.tensor(values, dtype=dtype) for values in ratings(64))
    scores = metric.compute(predictions=predictions, references=references, n_resamples=0)
    expected = sum(1 - scores[f"ccc_{name}"] for name in LABELS)
    assert ccc_loss(predictions, references).item() == pytest.approx(expected, abs=1e-6)


# Intervals


def test_the_interval_holds_the_value_and_narrows_with_more_items(metric):
    widths = {}
    for items in (30, 300, 3000):
        predictions, references = ratings(items)
        scores = metric.compute(predictions=predictions, references=references, n_resamples=300)
        for name in (*LABELS, "mean"):
            low, value, high = (scores[f"ccc_{name}{end}"] for end in ("_low", "", "_high"))
            assert low < value < high
            widths.setdefault(name, []).append(high - low)
    assert all(wide > 2 * middle > 4 * narrow for wide, middle, narrow in widths.values())


def test_the_interval_is_the_percentiles_of_resampled_items(metric):
    # Checked against a bootstrap with other draws: the two agree to their own scatter.
    predictions, references = ratings(80)
    scores = metric.compute(predictions=predictions, references=references, n_resamples=4000, confidence=0.9)
    rng = np.random.default_rng(1)
    draws = [rng.integers(80, size=80) for _ in range(1000)]
    for i, name in enumerate(LABELS):
        samples = [naive_ccc(predictions[rows, i], references[rows, i]) for rows in draws]
        low, high = np.percentile(samples, [5, 95])
        tolerance = 0.15 * (high - low)
        assert scores[f"ccc_{name}_low"] == pytest.approx(low, abs=tolerance)
        assert scores[f"ccc_{name}_high"] == pytest.approx(high, abs=tolerance)


def test_a_seed_gives_the_same_interval_and_another_seed_another(metric):
    predictions, references = ratings(40)
    first, again, other = (
        metric.compute(predictions=predictions, references=references, n_resamples=100, seed=seed)
        for seed in (0, 0, 1)
    )
    assert first == again
    assert first["ccc_mean"] == other["ccc_mean"]
    assert first["ccc_mean_low"] != other["ccc_mean_low"]


def test_the_interval_leaves_the_global_random_state_alone(metric):
    predictions, references = ratings(10)
    before = torch.get_rng_state()
    metric.compute(predictions=predictions, references=references, n_resamples=10)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_higher_confidence_gives_a_wider_interval(metric):
    predictions, references = ratings(40)
    narrow, wide = (
        metric.compute(predictions=predictions, references=references, n_resamples=200, confidence=confidence)
        for confidence in (0.5, 0.99)
    )
    assert wide["ccc_mean_low"] < narrow["ccc_mean_low"] < narrow["ccc_mean_high"] < wide["ccc_mean_high"]


# Where a coefficient is not defined, and what is no input


@pytest.mark.parametrize(
    ("predictions", "references"),
    [
        ([[0.1, 0.5, 0.9]], [[0.3, 0.5, 0.7]]),
        (ratings(20)[0], np.full((20, 3), 0.3)),
        (np.full((20, 3), 0.1), ratings(20)[1]),
        (np.full((20, 3), 0.1), np.full((20, 3), 0.1)),
    ],
    ids=["one item", "constant references", "constant predictions", "both constant"],
)
def test_an_undefined_coefficient_is_zero(metric, predictions, references):
    scores = metric.compute(predictions=predictions, references=references, n_resamples=50)
    rmse = np.sqrt(np.mean((np.asarray(predictions) - np.asarray(references)) ** 2, 0))
    for i, name in enumerate(LABELS):
        assert scores[f"ccc_{name}"] == pytest.approx(0, abs=1e-9)
        assert scores[f"pearson_{name}"] == pytest.approx(0, abs=1e-9)
        assert scores[f"rmse_{name}"] == pytest.approx(rmse[i])
    assert scores["ccc_mean_low"] == pytest.approx(0, abs=1e-9)
    assert scores["ccc_mean_high"] == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize(
    ("predictions", "references", "sentence"),
    [
        ([[0.1, 0.2]] * 4, [[0.1, 0.2]] * 4, r"\(4, 2\).*valence, arousal, dominance"),
        ([[0.1, 0.2, 0.3]] * 4, [[0.1, 0.2]] * 4, r"\(4, 3\) and references \(4, 2\)"),
        ([[0.1, 0.2, 0.3]] * 4, [[0.1, 0.2, 0.3]] * 3, "Mismatch in the number"),
        ([0.1, 0.2, 0.3], [[0.1, 0.2, 0.3]] * 3, "Predictions and/or references don't match"),
        ([0.1, 0.2, 0.3], [0.1, 0.2], "Mismatch in the number"),
        ([[0.1], [0.2]], [[0.1], [0.2]], r"\(2, 1\).*one dimension"),
        ([0.1, np.nan], [0.1, 0.2], "not finite"),
        ([], [], "must both be"),
        ([[0.1, np.nan, 0.3]] * 2, [[0.1, 0.2, 0.3]] * 2, "not finite"),
        ([[0.1, 0.2, 0.3]] * 2, [[0.1, np.inf, 0.3]] * 2, "not finite"),
    ],
)
def test_wrong_inputs_are_a_clear_error(metric, predictions, references, sentence):
    with pytest.raises(ValueError, match=sentence):
        metric.compute(predictions=predictions, references=references)


@pytest.mark.parametrize("options", [{"n_resamples": -1}, {"confidence": 0.0}, {"confidence": 95}])
def test_an_impossible_interval_is_a_clear_error(metric, options):
    predictions, references = ratings(5)
    with pytest.raises(ValueError, match="give no interval"):
        metric.compute(predictions=predictions, references=references, **options)


def test_an_error_does_not_spoil_the_next_call(metric):
    predictions, references = ratings(5)
    expected = metric.compute(predictions=predictions, references=references, n_resamples=0)
    with pytest.raises(ValueError, match="not finite"):
        metric.compute(predictions=predictions * np.nan, references=references)
    assert metric.compute(predictions=predictions, references=references, n_resamples=0) == expected


def test_a_dimension_that_is_not_rated_is_left_out(metric):
    predictions, references = ratings(40)
    whole = metric.compute(predictions=predictions, references=references, n_resamples=0)
    references[:, 1] = -100
    two = metric.compute(predictions=predictions, references=references, n_resamples=20)
    assert not [name for name in two if "arousal" in name] and "ccc_dominance_low" in two
    for name in ("ccc_valence", "pearson_dominance", "rmse_dominance"):
        assert two[name] == pytest.approx(whole[name], abs=1e-12)
    assert two["ccc_mean"] == pytest.approx((whole["ccc_valence"] + whole["ccc_dominance"]) / 2, abs=1e-12)
    with pytest.raises(ValueError, match="no item is rated"):
        metric.compute(predictions=predictions, references=np.full((40, 3), -100.0))


def test_items_that_are_not_rated_do_not_count_in_their_dimension(metric):
    predictions, references = ratings(60)
    references[20:, 2] = -100
    found = metric.compute(predictions=predictions, references=references, n_resamples=50)
    assert found["ccc_dominance"] == pytest.approx(naive_ccc(predictions[:20, 2], references[:20, 2]), abs=1e-9)
    assert found["ccc_valence"] == pytest.approx(naive_ccc(predictions[:, 0], references[:, 0]), abs=1e-9)
    assert found["ccc_dominance_low"] < found["ccc_dominance"] < found["ccc_dominance_high"]
    alone = metric.compute(predictions=predictions[:20, 2], references=references[:20, 2], n_resamples=0)
    for score in ("pearson", "rmse"):
        assert found[f"{score}_dominance"] == pytest.approx(alone[score], abs=1e-12)
