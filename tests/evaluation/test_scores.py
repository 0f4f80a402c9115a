"""Intervals over speakers and seeds, their coverage, and scores of held-out clips over speakers."""

import numpy as np
import pytest
import torch
from scipy import stats

from msfser import LABELS
from msfser.benchmarks import coverage
from msfser.evaluation.acted import Material, Scores
from msfser.evaluation.intervals import (
    ccc_interval,
    clusters,
    interval,
    median_interval,
    resampled_units,
    share_interval,
)
from msfser.evaluation.results import RESULTS, as_table, as_text, ccc_rows, read, row
from msfser.loss_msfser import concordance
from msfser.training.fitting import Clips


def test_scores_are_paired_over_speakers():
    draw = np.random.default_rng(1)
    labels = draw.uniform(size=(160, 3)).astype(np.float32)
    pairs = np.full(160, -1)
    pairs[0:160:2] = np.arange(1, 160, 2)
    corpus = Clips(labels, np.repeat(list("abcd"), 40), {}, {}, {}, pairs)
    good = (labels + 0.1 * draw.standard_normal(labels.shape))[None].astype(np.float32)
    bad = draw.uniform(size=good.shape).astype(np.float32)
    scores = Scores(Material(corpus, None, [], {}), {"good": {"clean": good}, "bad": {"clean": bad}})
    assert scores.ccc("good", np.arange(160)) == pytest.approx(
        concordance(torch.tensor(good[0]), torch.tensor(labels)).numpy(), abs=1e-5
    )
    rows = {row["name"]: row["value"] for row in scores.ccc_rows("good")}
    assert rows["good/mean"] == pytest.approx(np.mean([rows[f"good/{name}"] for name in LABELS]))
    difference = scores.difference_row("difference", "good", "bad")
    assert 0.5 < difference["low"] <= difference["value"] <= difference["high"]
    matched = np.stack([np.arange(0, 160, 2), np.arange(1, 160, 2)], 1)
    ranking = scores.ranking_row("ranking", np.arange(160)[None].astype(float), matched)
    assert ranking["value"] == ranking["high"] == 1 and 0.5 < ranking["low"] < 1


def test_seeds_count_in_the_scores_of_held_out_clips():
    """The same predictions in every seed are scored as one; seeds that differ widen the interval."""
    draw = np.random.default_rng(1)
    labels = draw.uniform(size=(160, 3)).astype(np.float32)
    corpus = Clips(labels, np.repeat(list("abcd"), 40), {}, {}, {}, np.full(160, -1))
    of_seeds = np.stack([labels * slope for slope in (0.5, 0.7, 0.9)]).astype(np.float32)
    equal = np.stack([of_seeds[1]] * 3)
    material = Material(corpus, None, [], {})
    one, same, other = (
        {row["name"]: row for row in Scores(material, {"a": {"clean": made}}).ccc_rows("a")}["a/mean"]
        for made in (equal[:1], equal, of_seeds)
    )
    assert (same["low"], same["high"]) == pytest.approx((one["low"], one["high"]))
    assert other["high"] - other["low"] > 1.5 * (one["high"] - one["low"])


@pytest.mark.parametrize("count", [2, 7, 50])
def test_the_interval_of_a_mean_is_that_of_student(count):
    values = np.random.default_rng(1).standard_normal(count)
    found = interval(lambda items: values[items].mean(), count)
    expected = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert found.value == pytest.approx(values.mean())
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))
    clustered = interval(lambda items: np.repeat(values, 3)[items].mean(), clusters(np.repeat(np.arange(count), 3)))
    assert clustered == pytest.approx(found)
    over_seeds = interval(lambda items, seeds: values[seeds].mean(), 1, seeds=count)
    assert over_seeds == pytest.approx(found)


def test_many_items_are_dealt_into_groups():
    values = np.random.default_rng(1).standard_normal(1000)
    found = interval(lambda items: values[items].mean(), 1000)
    expected = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert found.high - found.low == pytest.approx(expected.high - expected.low, rel=0.2)
    calls = []
    interval(lambda items: calls.append(len(items)) or 0.0, 1000)
    assert calls == [1000] + 50 * [980]


def test_variances_of_speakers_and_seeds_are_added():
    """Satterthwaite's degrees of freedom of a sum of two variances, as in Welch's test."""
    draw = np.random.default_rng(2)
    speakers, seeds = draw.standard_normal(5), 2 * draw.standard_normal(3)
    found = interval(lambda items, used: speakers[items].mean() - seeds[used].mean(), 5, seeds=3)
    expected = stats.ttest_ind(speakers, seeds, equal_var=False).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))


def test_the_ends_of_a_correlation_are_in_its_range():
    draw = np.random.default_rng(3)
    labels = draw.uniform(size=(40, 3))
    noise = np.repeat([0.0, 0.0, 0.0, 0.9], 10)[:, None] * draw.standard_normal((40, 3))
    units = clusters(np.repeat(np.arange(4), 10))
    found = ccc_interval(labels + noise, labels, units)
    assert (found.low >= -1).all() and (found.low < found.value).all() and (found.value < found.high).all()
    assert (found.high <= 1).all()
    perfect = ccc_interval(labels, labels, units)
    assert perfect.value == pytest.approx(np.ones(4)) and perfect.low == pytest.approx(np.ones(4))


@pytest.mark.parametrize(("hits", "count"), [(0, 20), (7, 27), (20, 20), (1, 1)])
def test_shares_have_exact_ends(hits, count):
    found = share_interval(np.arange(count) < hits)
    expected = stats.binomtest(hits, count).proportion_ci(0.95, "exact")
    assert found == pytest.approx((hits / count, expected.low, expected.high))
    assert share_interval(np.arange(count) < hits, list(np.arange(count)[:, None])) == pytest.approx(found)


def test_clusters_and_seeds_widen_the_interval_of_a_share():
    """Speakers that hit always or never count as four items; equal ones as somewhat fewer than their items."""
    units = clusters(np.repeat(np.arange(4), 25))
    unequal, equal = np.repeat([1, 1, 0, 1], 25), np.tile([1, 1, 0, 1, 1], 20)
    wide, narrow, free = share_interval(unequal, units), share_interval(equal, units), share_interval(equal)
    assert wide.low < 0.2 and wide.high > 0.99
    assert wide.low < narrow.low < free.low < 0.8 < free.high < narrow.high
    every, never = share_interval(np.ones(100), units), share_interval(np.zeros(100), units)
    assert 0.8 < every.low < share_interval(np.ones(100)).low and every.high == 1
    assert (never.low, never.high) == pytest.approx((0, 1 - every.low))
    seeds = np.stack([equal, equal, np.ones(100)])
    assert share_interval(seeds, units).low < share_interval(np.stack([equal] * 3), units).low


def test_a_median_has_exact_ends():
    """Of six values the lowest and highest hold the median in 97 % of the cases; five values are too few."""
    assert median_interval([5, 1, 4, 2, 9, 3]) == (3.5, 1, 9)
    of_five = row("few", *median_interval([1, 2, 3, 4, 5]))
    assert (of_five["value"], of_five["low"], of_five["high"]) == (3, None, None)


@pytest.mark.parametrize("size", ["four_speakers", "thirty_four_speakers"])
def test_the_interval_holds_the_true_value_as_often_as_it_says(size):
    """At least .90 over all simulated worlds; percentiles of a bootstrap over four speakers do not."""
    rows = {row["name"]: row["value"] for row in coverage.rows_of_size(size, 100)}

    def covered(measure: str, end: str = "") -> float:
        return np.mean([rows[f"{size}/{measure}/{world}{end}"] for world in coverage.WORLDS])

    assert covered("ccc") >= 0.9 and covered("difference") >= 0.9 and rows[f"{size}/share"] >= 0.9
    # Of 100 tests, three standard errors less than .90 in the worst world.
    assert all(rows[f"{size}/{of}/{world}"] >= 0.81 for of in ("ccc", "difference") for world in coverage.WORLDS)
    if size == "four_speakers":
        assert covered("ccc", "/percentile") < 0.87


def test_the_recorded_coverage_is_at_least_90_percent():
    rows = read(RESULTS / "coverage.json")
    for size in coverage.SIZES:
        assert all(rows[f"{size}/{measure}"]["value"] >= 0.9 for measure in coverage.MEASURES)


def test_clusters_and_seeds_are_resampled_together():
    """Equal values within a cluster: drawing clusters widens the interval, and drawing seeds too."""
    names = np.repeat(list("abcdef"), 30)
    members = clusters(names)
    values = np.repeat(np.arange(6.0), 30)
    of_seeds = np.stack([values - 3, values + 3], 1)
    alone = interval(lambda items: values[items].mean(), 180)
    clustered = interval(lambda items: values[items].mean(), members)
    over_seeds = interval(lambda items, seeds: of_seeds[items][:, seeds].mean(), members, seeds=2)
    widths = [found.high - found.low for found in (alone, clustered, over_seeds)]
    assert 3 * widths[0] < widths[1] < widths[2]
    assert clustered.value == over_seeds.value == pytest.approx(2.5)


def test_the_ends_are_nan_where_the_spread_is_not_known():
    """Of one item, and where the measure is not defined without one of the units."""
    alone = interval(lambda items: np.array([4.0])[items].mean(), 1)
    assert alone.value == 4 and np.isnan([alone.low, alone.high]).all()
    values = np.array([1.0, 1.0, 4.0])
    found = interval(lambda items: values[items].std() or np.nan, 3)
    assert found.value == pytest.approx(2**0.5) and np.isnan([found.low, found.high]).all()
    assert np.isfinite(interval(lambda items: values[items].std(), 3)[1:]).all()


def test_a_ccc_of_few_items_has_no_interval_of_zero_width():
    """One clip of each of two speakers: without one of them, the CCC of the other is not defined."""
    given = np.array([[0.2, 0.4, 0.5], [0.7, 0.1, 0.5]])
    predicted = np.array([[0.3, 0.5, 0.5], [0.6, 0.5, 0.5]])
    found = ccc_interval(predicted, given, [np.array([0]), np.array([1])])
    expected = concordance(torch.tensor(predicted), torch.tensor(given)).numpy()
    # Arousal, predicted as a constant, has a CCC of 0; constant dominance has none, and is not in the mean.
    assert found.value == pytest.approx([*expected[:2], np.nan, expected[:2].mean()], nan_ok=True)
    assert found.value[1] == 0 and np.isnan([found.low, found.high]).all()
    rows = ccc_rows("test/all", predicted, given, [np.array([0]), np.array([1])], "2 speakers")
    assert [one["value"] is None for one in rows] == [False, False, True, False]
    assert all(one["low"] is None and one["high"] is None for one in rows)
    _, cells, last = as_table(rows).splitlines()
    assert cells.split() == ["all", f"{expected[0]:.3f}", "0.000", "-", f"{found.value[3]:.3f}"]
    assert last == "no intervals: too few utterances or speakers"
    one_clip = ccc_rows("test/all", predicted[:1], given[:1], 1, "utterances")
    assert [one["value"] for one in one_clip] == 4 * [None] and as_text(one_clip).split()[1::2] == 4 * ["-"]
    assert as_table(one_clip).splitlines()[1].split() == ["all", "-", "-", "-", "-"]
    unrated = ccc_rows("test/all", predicted, given * [1, 1, np.nan], 2, "utterances")
    assert [one["name"] for one in unrated] == ["test/all/valence", "test/all/arousal", "test/all/mean"]


def test_columns_of_negative_numbers_are_apart():
    rows = [row(f"test/all/{name}", -0.021, -0.121, -0.011) for name in (*LABELS, "mean")]
    assert as_table(rows).splitlines()[1].split() == ["all", *4 * ["-0.021", "(-0.121..-0.011)"]]


def test_clusters_keep_the_order_of_appearance_or_sort():
    assert [members.tolist() for members in clusters(["b", "a", "b"])] == [[0, 2], [1]]
    assert [members.tolist() for members in clusters(["b", "a", "b"], sort=True)] == [[1], [0, 2]]


def test_speakers_are_resampled_where_they_are_known():
    """Utterances of unknown speakers are drawn alone; without any speaker, or with one, all are."""
    units, name = resampled_units(["a", "b", "a", "c"])
    assert [unit.tolist() for unit in units] == [[0, 2], [1], [3]] and name == "3 speakers"
    units, name = resampled_units(["a", None, "a", None])
    assert [unit.tolist() for unit in units] == [[0, 2], [1], [3]] and name == "speakers where known"
    assert resampled_units([None, None]) == (2, "utterances")
    assert resampled_units(["a", "a", "a"]) == (3, "utterances")


def test_an_interval_over_speakers_is_wider_where_they_differ():
    rng = np.random.default_rng(0)
    speakers = np.repeat(list("abcdefgh"), 25)
    given = rng.uniform(size=(200, 3))
    predicted = given + np.repeat(rng.normal(0, 0.4, (8, 3)), 25, axis=0) + rng.normal(0, 0.05, (200, 3))
    over_items, over_speakers = (
        ccc_interval(predicted, given, units) for units in (200, resampled_units(speakers.tolist())[0])
    )
    expected = concordance(torch.tensor(predicted), torch.tensor(given))
    assert over_items.value == pytest.approx([*expected.tolist(), expected.mean().item()])
    assert over_speakers.value == pytest.approx(over_items.value)
    assert ((over_speakers.high - over_speakers.low) > 1.5 * (over_items.high - over_items.low)).all()
    assert (over_speakers.low < over_speakers.value).all() and (over_speakers.value < over_speakers.high).all()
