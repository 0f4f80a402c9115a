"""A corpus that rates two dimensions, from training to the card, and corpora that rate a dimension only in part."""

import csv
import json
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from corpus_trees import write_csv
from tiny_run import command, make_tiny

from msfser import LABELS, MsfSerModel
from msfser.evaluation import report
from msfser.evaluation.intervals import ccc_interval
from msfser.evaluation.plots import NOT_RATED, POINTS, intervals
from msfser.evaluation.predictions import predict_part, rated_dimensions
from msfser.hub.card import render_card
from msfser.loss_msfser import UNRATED
from msfser.train import main as train
from msfser.training.folds import read_predictions

GIVEN = [f"{label}_label" for label in LABELS]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> Path:
    return make_tiny(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def options(tiny) -> list[str]:
    """Those of a training on the corpus without dominance."""
    with open(tiny / "corpus" / "metadata.csv", newline="") as file:
        rows = [{k: v for k, v in row.items() if k != "dominance"} for row in csv.DictReader(file)]
    write_csv(tiny / "two.csv", rows)
    data = ["--data", str(tiny / "two.csv"), "--audio_folder", str(tiny / "corpus")]
    return [*data, "--label_range", "valence=0:1", "arousal=0:1", "--num_train_epochs", "1"]


@pytest.fixture(scope="module")
def run(tiny, options, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("run") / "run"
    train(command(tiny, folder, *options))
    return folder


def check_page(page: str) -> None:
    """It shows two dimensions, and nothing of a label that is not there."""
    assert "No utterance has a label of dominance, so that nothing is shown of it." in page
    for title in ("CCC", "RMSE", "bias"):
        assert f"valence, {title}" in page and f"dominance, {title}" not in page
    assert "dominance, given" not in page and not re.search(r"\bnan\b", page, re.IGNORECASE)
    rmse = [float(number) for number in re.findall(r"RMSE (\d+\.\d+)", page)]
    assert len(rmse) >= 2 and max(rmse) < 1


def check_card(folder: Path) -> None:
    """It says what is not rated, and has no score of it."""
    text = str(render_card(folder, "someone/model", "v1"))
    assert "| **Not rated** | dominance: the corpus has no labels of it, so the prediction is meaningless |" in text
    cell = r"-?\d\.\d\d \([^|]+\)"
    assert len(re.findall(rf"^\| [a-z ]+ \| {cell} \| {cell} \| - \| {cell} \|$", text, re.MULTILINE)) == 3
    assert "over the dimensions that are rated" in text and "CCC dominance" not in text


def test_a_run_on_two_dimensions_has_a_report_and_a_card(run):
    table = predict_part(run).table
    assert table["dominance_label"].isna().all() and rated_dimensions(table) == ["valence", "arousal"]
    check_page(report.page(run))
    check_card(run)


def test_a_report_is_about_the_test_part(run):
    """Further test parts may have other sets of inputs and other intervals."""
    rows = json.loads((run / "results.json").read_text())
    before = report.page(run)
    more = [{"name": "Test1/audio/valence", "value": 0.5, "low": 0.4, "high": 0.6, "resampled": "9 others"}]
    (run / "results.json").write_text(json.dumps([*rows, *more]))
    after = report.page(run)
    (run / "results.json").write_text(json.dumps(rows))
    assert after == before


def test_a_cross_validation_on_two_dimensions_is_as_a_run(tiny, options, tmp_path, caplog):
    folds = ["--cross_validate", "speaker", "--folds", "3", "--final_model", "true"]
    train(command(tiny, tmp_path / "run", *options, *folds))
    said = "dominance is not rated: the model learns nothing of it, and its numbers mean nothing"
    assert [record.getMessage() for record in caplog.records].count(said) == 1
    assert MsfSerModel.from_pretrained(tmp_path / "run").config.unrated == ["dominance"]
    rows = {row["name"]: row["value"] for row in json.loads((tmp_path / "run" / "results.json").read_text())}
    table = read_predictions(tmp_path / "run" / "predictions.csv")
    assert table["dominance_label"].isna().all() and str(UNRATED) not in (tmp_path / "run/predictions.csv").read_text()
    of_fold = table[(table["inputs"] == "all") & (table["fold"] == "2")]
    found = ccc_interval(of_fold[[*LABELS]].to_numpy(), of_fold[GIVEN].to_numpy(), len(of_fold)).value
    assert rows["fold/2/mean"] == pytest.approx((found[0] + found[1]) / 2)
    check_page(report.page(tmp_path / "run"))
    check_card(tmp_path / "run")
    # Folds that were finished before labels of nobody were NaN.
    path = tmp_path / "run" / "folds" / "2.csv"
    pd.read_csv(path).fillna({"dominance_label": UNRATED}).to_csv(path, index=False)
    assert read_predictions(path)["dominance_label"].isna().all()


def test_an_utterance_without_a_label_does_not_count_in_its_dimension(monkeypatch):
    """As in a mixture of corpora that rate different dimensions: the page is that of the rated utterances."""
    draw = np.random.default_rng(0)
    labels = draw.uniform(size=(40, 3))
    numbers = labels + 0.1 * draw.standard_normal((40, 3))
    part = labels.copy()
    part[20:, 2] = np.nan
    columns = {label: numbers[:, d] for d, label in enumerate(LABELS)}
    columns |= {name: part[:, d] for d, name in enumerate(GIVEN)}
    table = pd.DataFrame(columns | {"file": [f"{i}.wav" for i in range(40)], "speaker": None})
    drawn = []
    monkeypatch.setattr(report, "scatter", lambda *words: drawn.append(words) or "<svg>")
    monkeypatch.setattr(report, "intervals", lambda *words, **more: drawn.append((words, more)) or "<svg>")
    assert "20 utterances have a label of dominance; the others do not count in it." in report._unrated(table)
    report._agreement(table)
    report._agreement(table[:20])
    assert len(drawn[0][2]) == 40 and len(drawn[2][2]) == 20 and drawn[2][:2] == drawn[5][:2]
    drawn.clear()
    report._by_group("corpus", pd.Series(["a"] * 20 + ["b"] * 20), table)
    for (rows, titles), _ in drawn:
        assert len(titles) == 3 and np.isnan(rows["b (20)"][2]).all() and np.isfinite(rows["a (20)"]).all()
    assert drawn[0][0][0]["a (20)"][2][0] == pytest.approx(np.sqrt(np.mean((numbers - labels)[:20, 2] ** 2)))
    assert max(drawn[1][1]["ends"]) < 1
    worst = table.assign(valence=table["valence"].where(table.index != 30, 1.5))
    listed = report._worst(worst)
    assert re.findall(r"<td>(\d+)\.wav", listed)[0] == "30"
    assert "<td>-</td>" in listed and "NaN" not in listed


def test_what_is_not_rated_has_no_point():
    plot = ElementTree.fromstring(intervals({"a": [(0.5, 0.4, 0.6), NOT_RATED], "b": [(0.5, 0.4, 0.6)] * 2}, "xy"))
    panels = plot.findall(f".//{{*}}g[@id='{POINTS}']")
    assert [len(panel.findall("{*}g/{*}use")) for panel in panels] == [2, 1]
