"""Intervals of the one bootstrap, and scores of held-out clips over speakers."""

import numpy as np
import pytest
import torch

from msfser import LABELS
from msfser.evaluation.acted import Material, Scores
from msfser.evaluation.intervals import ccc_interval, clusters, interval, resampled_units
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
    assert ranking["value"] == ranking["low"] == 1


def test_the_interval_is_the_percentiles_of_resampled_items():
    values = np.random.default_rng(1).standard_normal(50)
    draw = np.random.default_rng(0)
    samples = [values[draw.integers(50, size=50)].mean() for _ in range(1000)]
    found = interval(lambda items: values[items].mean(), 50)
    assert found.value == pytest.approx(values.mean())
    assert (found.low, found.high) == pytest.approx(np.quantile(samples, [0.025, 0.975]))


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


def test_one_item_has_no_spread_and_undefined_samples_are_left_out():
    assert tuple(interval(lambda items: np.array([4.0])[items].mean(), 1)) == (4, 4, 4)
    values = np.array([1.0, 2.0, 4.0])
    found = interval(lambda items: values[items].std() or np.nan, 3)
    assert np.isfinite([found.low, found.high]).all()


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
