"""The paper's figures beside those of an ablation, and intervals of dimensions that are not rated."""

import numpy as np
import pytest

from msfser.evaluation.ablation import ROWS
from msfser.evaluation.intervals import ccc_interval
from msfser.evaluation.paper import BAND, PAPER, SEEDS, beside_paper
from msfser.evaluation.results import as_table, ccc_rows, row
from msfser.loss_msfser import UNRATED


def test_the_rows_of_the_paper_are_rows_of_the_ablation():
    assert {*PAPER} <= {*ROWS} and BAND == 0.01 and SEEDS == (0, 1, 2)


def test_figures_are_shown_beside_the_papers():
    rows = [row("full/mean", 0.70), row("audio/mean", 0.6705), row("no_gs/mean", 0.5), row("full/valence", 0.1)]
    rows += [row(f"full/seed{seed}/mean", 0.7) for seed in SEEDS]
    lines = beside_paper(rows).splitlines()
    assert len(lines) == 3 and "stated beforehand for the mean over seeds 0, 1, 2." in lines[0]
    assert lines[1].split() == ["audio", "0.670", "paper", "0.659", "outside", "the", "band"]
    assert lines[2].split() == ["full", "0.700", "paper", "0.692", "within", "the", "band"]
    assert beside_paper([row("no_gs/mean", 0.5)]) == ""


@pytest.mark.parametrize("seeds", [(0,), (0, 1, 7), (0, 1, 2, 3)])
def test_other_seeds_than_those_that_were_stated_get_no_verdict(seeds):
    rows = [row("full/mean", 0.70), *(row(f"full/seed{seed}/mean", 0.7) for seed in seeds)]
    first, line = beside_paper(rows).splitlines()
    assert "without a verdict" in first and first.endswith(f"and this is over {', '.join(map(str, seeds))}.")
    assert line.split() == ["full", "0.700", "paper", "0.692"]


def test_intervals_of_two_dimensions_are_those_of_the_three_without_one():
    draw = np.random.default_rng(0)
    given = draw.uniform(size=(60, 3))
    predicted = given + 0.2 * draw.standard_normal((60, 3))
    whole, two = ccc_interval(predicted, given, 60), given.copy()
    two[:, 1] = UNRATED
    found = ccc_interval(predicted, two, 60)
    for of_whole, of_two in zip(whole, found, strict=True):
        assert of_two[[0, 2]] == pytest.approx(of_whole[[0, 2]]) and np.isnan(of_two[1])
    assert found.value[3] == pytest.approx(whole.value[[0, 2]].mean())
    rows = ccc_rows("test/all", predicted, two, 60, "utterances")
    assert [row["name"] for row in rows] == ["test/all/valence", "test/all/dominance", "test/all/mean"]
    assert as_table(rows).splitlines()[1].split().count("-") == 1


def test_utterances_that_are_not_rated_do_not_count_in_their_dimension():
    draw = np.random.default_rng(1)
    given = draw.uniform(size=(60, 3))
    predicted = given + 0.2 * draw.standard_normal((60, 3))
    some = given.copy()
    some[40:, 2] = UNRATED
    found = ccc_interval(predicted, some, 60)
    assert found.value[2] == pytest.approx(ccc_interval(predicted[:40], given[:40], 40).value[2])
    assert found.value[0] == pytest.approx(ccc_interval(predicted, given, 60).value[0])
