"""What is said about intervals around the numbers: shares and widths, plots, and the table after training."""

import numpy as np
import pandas as pd
import pytest
import torch

from msfser import LABELS
from msfser.evaluation import report_intervals
from msfser.evaluation.coverage import coverage_rows, ends_of
from msfser.evaluation.intervals import clusters
from msfser.evaluation.results import as_table, ccc_rows, scored
from msfser.intervals_msfser import MsfSerIntervals
from msfser.loss_msfser import UNRATED
from msfser.training.calibration import calibrated

SPEAKERS = [f"s{i % 12}" for i in range(240)]


def some() -> tuple[np.ndarray, np.ndarray, MsfSerIntervals]:
    draw = np.random.default_rng(0)
    numbers = draw.uniform(0.2, 0.8, (240, 3))
    labels = np.clip(numbers + draw.normal(size=(240, 3)) * 0.3 * numbers**2, 0, 1)
    return numbers, labels, calibrated(numbers, labels, SPEAKERS)


def test_shares_and_widths_are_counted():
    numbers, labels, intervals = some()
    labels[:50, 0], labels[:, 1] = UNRATED, UNRATED
    rows = {row["name"]: row for row in coverage_rows("test", intervals, numbers, labels, clusters(SPEAKERS))}
    low, high = ends_of(intervals, numbers)
    hits = (low <= labels) & (labels <= high)
    assert rows["intervals/test/valence/coverage"]["value"] == pytest.approx(hits[50:, 0].mean())
    assert rows["intervals/test/valence/width"]["value"] == pytest.approx((high - low)[50:, 0].mean())
    assert "intervals/test/arousal/coverage" not in rows
    assert 0.85 < rows["intervals/test/dominance/coverage"]["value"] < 0.95
    assert rows["intervals/test/dominance/coverage"]["low"] < 0.9


def test_the_intervals_of_a_model_stay_on_its_device(monkeypatch):
    numbers, _, intervals = some()
    expected = ends_of(intervals, numbers)

    def moved(*_: object) -> None:
        raise AssertionError("the intervals were moved")

    monkeypatch.setattr(MsfSerIntervals, "_apply", moved)
    for found, end in zip(ends_of(intervals, numbers), expected, strict=True):
        np.testing.assert_array_equal(found, end)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
def test_the_ends_are_the_same_on_a_gpu():
    numbers, _, intervals = some()
    expected = ends_of(intervals, numbers)
    for _ in range(2):
        for found, end in zip(ends_of(intervals.cuda(), numbers), expected, strict=True):
            np.testing.assert_allclose(found, end, atol=1e-5)
    assert intervals.quantiles.is_cuda


def test_they_are_shown_beside_the_scores():
    numbers, labels, intervals = some()
    rows = ccc_rows("test/all", numbers, labels, clusters(SPEAKERS), "12 speakers")
    both = rows + coverage_rows("test", intervals, numbers, labels, clusters(SPEAKERS))
    assert scored(both) == rows
    shown = as_table(both)
    assert shown.startswith(as_table(rows)) and "90 % intervals contain the label (test): valence 0.9" in shown


def test_the_report_has_plots_of_them(monkeypatch):
    numbers, labels, intervals = some()
    columns = dict(zip(LABELS, numbers.T, strict=True))
    table = pd.DataFrame(columns | {f"{label}_label": labels[:, d] for d, label in enumerate(LABELS)})
    drawn = []
    monkeypatch.setattr(report_intervals, "scatter", lambda *words: drawn.append(words) or "<svg>")
    monkeypatch.setattr(report_intervals, "intervals", lambda *words, **more: drawn.append(words) or "<svg>")
    assert report_intervals.calibration_plots(table, intervals) == ["<svg>"] * 3
    for _, _, levels, shares, _ in drawn:
        assert np.abs(np.subtract(levels, shares)).max() < 0.1
    report_intervals.coverage_by_group({"speaker": pd.Series(SPEAKERS)}, table, intervals)
    groups, titles = drawn[-1]
    assert list(groups)[:2] == ["s0 (20)", "s1 (20)"] and len(titles) == 3
    low, high = ends_of(intervals, numbers)
    hits = ((low <= labels) & (labels <= high))[::12].mean(0)
    assert [ends[0] for ends in groups["s0 (20)"]] == pytest.approx(hits.tolist())
    report_intervals.risk_plot(table, intervals)
    risks = drawn[-1][0]
    assert risks["all"][0][0] == pytest.approx(np.abs(numbers - labels)[:, 0].mean())
    assert risks["narrowest 25%"][0][0] < risks["all"][0][0]
