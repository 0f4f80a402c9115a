"""What is said about intervals around the numbers: shares and widths, plots, and the table after training."""

from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from msfser import LABELS
from msfser.evaluation import report_intervals
from msfser.evaluation.coverage import coverage_rows, ends_of, ends_of_folds
from msfser.evaluation.intervals import clusters, interval, share_interval
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
    rows = {
        row["name"]: row
        for row in coverage_rows("test", partial(ends_of, intervals, numbers), labels, clusters(SPEAKERS))
    }
    low, high = ends_of(intervals, numbers)
    hits = (low <= labels) & (labels <= high)
    assert rows["intervals/test/valence/coverage"]["value"] == pytest.approx(hits[50:, 0].mean())
    assert rows["intervals/test/valence/width"]["value"] == pytest.approx((high - low)[50:, 0].mean())
    assert "intervals/test/arousal/coverage" not in rows
    assert 0.85 < rows["intervals/test/dominance/coverage"]["value"] < 0.95
    assert rows["intervals/test/dominance/coverage"]["low"] < 0.9
    as_tables_have_it = coverage_rows(
        "test", partial(ends_of, intervals, numbers), np.where(labels == UNRATED, np.nan, labels), clusters(SPEAKERS)
    )
    assert {row["name"]: row for row in as_tables_have_it} == rows


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


@pytest.mark.parametrize(("count", "is_by_fold"), [(4, True), (2, False), (12, False)])
def test_each_fold_is_calibrated_on_the_others(count, is_by_fold):
    numbers, labels, _ = some()
    folds = np.array([int(speaker[1:]) % count for speaker in SPEAKERS])
    ends_at = ends_of_folds(numbers, labels, SPEAKERS, folds)
    for fold in (0, count - 1):
        rest = folds != fold
        given = numbers[rest], labels[rest], np.array(SPEAKERS)[rest].tolist()
        intervals = calibrated(*given, folds[rest] if is_by_fold else None)
        for level in (0.5, 0.9):
            for found, expected in zip(ends_at(level), ends_of(intervals, numbers[~rest], level), strict=True):
                np.testing.assert_allclose(found[~rest], expected, atol=1e-6)
    # What a fold's own labels are has no effect on its intervals.
    other = labels.copy()
    other[folds == 0] = 0.99
    for found, expected in zip(ends_of_folds(numbers, other, SPEAKERS, folds)(0.9), ends_at(0.9), strict=True):
        np.testing.assert_array_equal(found[folds == 0], expected[folds == 0])


def test_folds_that_cannot_be_calibrated_have_no_intervals():
    numbers, labels, _ = some()
    thirds = [int(speaker[1:]) % 3 for speaker in SPEAKERS]
    unrated, few = labels.copy(), labels.copy()
    unrated[:, 1], few[8:, 2] = UNRATED, np.nan
    assert ends_of_folds(numbers, unrated, SPEAKERS, thirds) is not None
    assert ends_of_folds(numbers, few, SPEAKERS, thirds) is None
    for unknown in ("", None, np.nan):
        assert ends_of_folds(numbers, labels, [unknown, *SPEAKERS[1:]], thirds) is None
    assert ends_of_folds(numbers, labels, SPEAKERS, [i % 5 for i in range(240)]) is None
    three = [f"s{place}" for place in thirds]
    assert ends_of_folds(numbers, labels, three, thirds) is None


def test_they_are_shown_beside_the_scores():
    numbers, labels, intervals = some()
    rows = ccc_rows("test/all", numbers, labels, clusters(SPEAKERS), "12 speakers")
    both = rows + coverage_rows("test", partial(ends_of, intervals, numbers), labels, clusters(SPEAKERS))
    assert scored(both) == rows
    shown = as_table(both)
    assert shown.startswith(as_table(rows)) and "90 % intervals contain the label (test): valence 0.9" in shown


def as_predictions(numbers: np.ndarray, labels: np.ndarray) -> pd.DataFrame:
    columns: dict[str, Any] = dict(zip(LABELS, numbers.T, strict=True))
    columns["speaker"] = SPEAKERS[-len(numbers) :]
    return pd.DataFrame(columns | {f"{label}_label": labels[:, d] for d, label in enumerate(LABELS)})


def test_the_report_has_plots_of_them(monkeypatch):
    numbers, labels, intervals = some()
    table, ends_at = as_predictions(numbers, labels), partial(ends_of, intervals, numbers)
    drawn = []
    monkeypatch.setattr(report_intervals, "scatter", lambda *words: drawn.append(words) or "<svg>")
    monkeypatch.setattr(report_intervals, "intervals", lambda *words, **more: drawn.append(words) or "<svg>")
    assert report_intervals.calibration_plots(table, ends_at) == ["<svg>"] * 3
    for _, _, levels, shares, _ in drawn:
        assert np.abs(np.subtract(levels, shares)).max() < 0.1
    report_intervals.coverage_by_group({"speaker": pd.Series(SPEAKERS)}, table, ends_at)
    groups, titles = drawn[-1]
    assert list(groups)[:2] == ["s0 (20)", "s1 (20)"] and len(titles) == 3
    low, high = ends_of(intervals, numbers)
    hits = ((low <= labels) & (labels <= high))[::12].mean(0)
    assert [ends[0] for ends in groups["s0 (20)"]] == pytest.approx(hits.tolist())
    report_intervals.risk_plot(table, ends_at)
    risks = drawn[-1][0]
    assert risks["all"][0][0] == pytest.approx(np.abs(numbers - labels)[:, 0].mean())
    assert risks["narrowest 25%"][0][0] < risks["all"][0][0]


def test_intervals_of_the_report_are_over_speakers_where_they_are_known(monkeypatch):
    """As reported: they were over utterances, which one speaker's errors make too narrow."""
    numbers, labels, intervals = some()
    labels[:, 0] = numbers[:, 0] + 0.1 * (1 + np.arange(240) % 12 % 3)
    table, ends_at = as_predictions(numbers, labels), partial(ends_of, intervals, numbers)
    errors, units = np.abs(numbers - labels)[:, 0], clusters(SPEAKERS)
    by_half = {"half": pd.Series([int(speaker[1:]) < 6 for speaker in SPEAKERS])}
    low, high = ends_of(intervals, numbers)
    hits = ((low <= labels) & (labels <= high)).astype(float)[:, 0]
    inside = np.flatnonzero(by_half["half"])
    drawn = []
    monkeypatch.setattr(report_intervals, "intervals", lambda *words, **more: drawn.append(words) or "<svg>")
    for speakers, of_units, of_half in (
        (SPEAKERS, units, [unit for unit in units if by_half["half"][unit[0]]]),
        (None, 240, [np.array([item]) for item in inside]),
        ("one", 240, [np.array([item]) for item in inside]),
    ):
        of_table = table.assign(speaker=speakers)
        report_intervals.risk_plot(of_table, ends_at)
        assert drawn[-1][0]["all"][0] == pytest.approx(interval(lambda items: errors[items].mean(), of_units))
        report_intervals.coverage_by_group(by_half, of_table, ends_at)
        assert drawn[-1][0]["True (120)"][0] == pytest.approx(share_interval(hits, of_half))
    (_, low_of_speakers, high_of_speakers), (_, low, high) = (drawn[i][0]["all"][0] for i in (0, 2))
    assert high_of_speakers - low_of_speakers > 2 * (high - low)


def test_labels_that_are_not_there_do_not_count_in_the_plots(monkeypatch):
    """A dimension that nobody rated has no panel; of one that is rated in part, the rated utterances count."""
    numbers, labels, intervals = some()
    part = labels.copy()
    part[:120, 0], part[:, 1] = np.nan, np.nan
    whole, table, drawn = as_predictions(numbers[120:], labels[120:]), as_predictions(numbers, part), []
    monkeypatch.setattr(report_intervals, "scatter", lambda *words: drawn.append(words) or "<svg>")
    monkeypatch.setattr(report_intervals, "intervals", lambda *words, **more: drawn.append(words) or "<svg>")
    halves = {"half": pd.Series(["first"] * 120 + ["last"] * 120)}
    for of_table, groups in ((table, halves), (whole, {"half": halves["half"][120:].reset_index(drop=True)})):
        ends_at = partial(ends_of, intervals, of_table[[*LABELS]].to_numpy())
        report_intervals.calibration_plots(of_table, ends_at)
        report_intervals.coverage_by_group(groups, of_table, ends_at)
        report_intervals.risk_plot(of_table, ends_at)
    assert [words[0] for words in drawn[:2]] == ["valence", "dominance"]
    assert drawn[0] == drawn[4]
    groups, titles = drawn[2]
    assert titles == ["valence, share", "dominance, share"]
    assert np.isnan(groups["first (120)"][0]).all() and groups["last (120)"][0] == drawn[7][0]["last (120)"][0]
    risks, titles = drawn[3]
    assert titles == ["valence, mean error", "dominance, mean error"]
    assert [of_dimensions[0] for of_dimensions in risks.values()] == [
        of_dimensions[0] for of_dimensions in drawn[8][0].values()
    ]
