"""Cross-validation: what a fold leaves out, what it knows, what is kept, and the model of everything."""

import csv
import json
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import datasets
import numpy as np
import pandas as pd
import pytest
import torch
from tiny_run import command, environment, make_tiny, weights
from transformers import AutoModel

from msfser import LABELS, MsfSerModel, MsfSerProcessor
from msfser.evaluation import report
from msfser.evaluation.coverage import ends_of_folds
from msfser.evaluation.cross_validated import rows_of_folds
from msfser.evaluation.intervals import ccc_interval, clusters
from msfser.evaluation.predictions import predict_part
from msfser.evaluation.results import as_table
from msfser.hub.card import render_card
from msfser.hub.contents import model_files
from msfser.train import main
from msfser.training import steps
from msfser.training.data_identity import identity_of, inputs_of, write_identity
from msfser.training.folds import FoldFiles, make_folds, read_predictions
from msfser.training.initialization import build_model
from msfser.training.settings import RunSettings, parse_settings, read_unit_rows, write_run
from msfser.training.trainer import MsfSerTrainer

ROOT = Path(__file__).parents[2]
GIVEN = [f"{label}_label" for label in LABELS]
# Three folds of three speakers each.
SPEAKERS = ["--cross_validate", "speaker", "--folds", "3", "--num_train_epochs", "1"]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> Path:
    return make_tiny(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def ran(tiny, tmp_path_factory) -> Path:
    """A finished cross-validation with its final model, to be copied."""
    folder = tmp_path_factory.mktemp("ran") / "run"
    main(command(tiny, folder, *SPEAKERS, "--final_model", "true"))
    return folder


@pytest.fixture
def finished(ran, tmp_path) -> Path:
    return Path(shutil.copytree(ran, tmp_path / "run"))


@pytest.fixture
def corpus(tiny, tmp_path) -> Path:
    """A copy of the corpus, to be changed."""
    return Path(shutil.copytree(tiny / "corpus", tmp_path / "corpus"))


def rows_of(corpus: Path) -> list[dict[str, str]]:
    with open(corpus / "metadata.csv", newline="") as file:
        return list(csv.DictReader(file))


def write_rows(corpus: Path, rows: list[dict[str, str]]) -> None:
    with open(corpus / "metadata.csv", "w", newline="") as file:
        table = csv.DictWriter(file, rows[0])
        table.writeheader()
        table.writerows(rows)


@pytest.fixture
def no_training(monkeypatch):
    monkeypatch.setattr(MsfSerTrainer, "train", lambda *args, **kwargs: pytest.fail("it was trained"))


def refused(argv: list[str]) -> str:
    with pytest.raises(SystemExit) as stop:
        main(argv)
    return str(stop.value)


# Folds


def test_without_a_number_each_unit_is_a_fold():
    folds = make_folds(["b", "a", "b", "10"])
    assert [fold.name for fold in folds] == ["10", "a", "b"]
    assert [fold.rows.tolist() for fold in folds] == [[3], [1], [0, 2]]
    assert [fold.rest.tolist() for fold in folds] == [[0, 1, 2], [0, 2, 3], [1, 3]]


def test_units_are_grouped_into_folds_of_about_equal_size_whatever_their_order():
    sizes = {"a": 9, "b": 5, "c": 4, "d": 3, "e": 3}
    units = [unit for unit, size in sizes.items() for _ in range(size)]
    folds = make_folds(units, 2)
    assert [fold.name for fold in folds] == ["1", "2"] and [len(fold.rows) for fold in folds] == [12, 12]
    together = [{units[row] for row in fold.rows} for fold in folds]
    assert not together[0] & together[1]
    shuffled = np.random.default_rng(0).permutation(units).tolist()
    assert [{shuffled[row] for row in fold.rows} for fold in make_folds(shuffled, 2)] == together
    assert [fold.name for fold in make_folds([*"abcdefghijkl"], 10)][:2] == ["01", "02"]


def test_units_with_long_names_have_files(tmp_path):
    units = [f"{'где же ты был вчера вечером, ' * 5}{number}" for number in range(2)]
    rows = datasets.Dataset.from_dict({"audio": [None] * 2, "speaker": [None] * 2, "unit": units})
    files = FoldFiles(tmp_path, make_folds(units), rows)
    (tmp_path / "folds").mkdir()
    for fold in files.folds:
        numbers = dict.fromkeys((name for label in LABELS for name in (label, f"{label}_label")), 0.5)
        files.write(fold, files.about.iloc[fold.rows].assign(inputs="all", **numbers))
    assert not files.unfinished() and len([*(tmp_path / "folds").iterdir()]) == 2


def test_too_few_units_are_said():
    with pytest.raises(ValueError, match=r"in 2 folds needs as many units to leave out, and there is only 'a'"):
        make_folds(["a", "a"])
    with pytest.raises(ValueError, match=r"in 4 folds needs as many units to leave out, and there are 3"):
        make_folds(["a", "b", "c"], 4)


# A run


def test_each_row_is_predicted_once_in_the_order_of_the_table(tiny, ran):
    table = pd.read_csv(ran / "predictions.csv", dtype={"fold": str})
    given = rows_of(tiny / "corpus")
    assert list(dict.fromkeys(table["inputs"])) == ["audio", "audio+transcript", "all"]
    for _, of_set in table.groupby("inputs"):
        assert of_set["row"].tolist() == [*range(1, 49)]
        assert [Path(file).name for file in of_set["file"]] == [row["file_name"] for row in given]
        for name in ("speaker", "unit"):
            assert of_set[name].tolist() == [row["speaker_id"] for row in given]
        labels = [[float(row[label]) for label in LABELS] for row in given]
        assert of_set[GIVEN].to_numpy() == pytest.approx(np.array(labels), abs=1e-6)
    folds = table.groupby("fold")["unit"].unique()
    assert sorted(folds.index) == ["1", "2", "3"] and [len(units) for units in folds] == [3, 3, 3]
    assert {path.name for path in (ran / "folds").iterdir()} == {"1.csv", "2.csv", "3.csv"}


def test_a_fold_of_one_clip_has_no_ccc():
    numbers = np.random.default_rng(0).uniform(size=(2, 6, 3))
    columns = dict(zip(LABELS, numbers[0].T, strict=True)) | dict(zip(GIVEN, numbers[1].T, strict=True))
    speakers = ["01", "01", "01", "02", "03", "03"]
    table = pd.DataFrame({"inputs": "all", "unit": speakers, "speaker": speakers, "fold": speakers, **columns})
    rows = rows_of_folds(table, RunSettings(cross_validate="speaker"))
    assert not [row for row in rows if row["name"].startswith("intervals/")]  # there are too few utterances
    found = {row["name"]: row["value"] for row in rows if row["name"].startswith("fold/")}
    assert found["fold/02/mean"] is None and found["fold/01/mean"] is not None
    assert f"mean CCC within each fold: 01 {found['fold/01/mean']:.3f}, 02 -, 03 " in as_table(rows)


def test_the_scores_are_those_of_the_predictions(ran):
    rows = {row["name"]: row for row in json.loads((ran / "results.json").read_text())}
    table = read_predictions(ran / "predictions.csv")
    for inputs, of_set in table.groupby("inputs"):
        found = ccc_interval(of_set[[*LABELS]].to_numpy(), of_set[GIVEN].to_numpy(), clusters(of_set["speaker"]))
        for place, dimension in enumerate((*LABELS, "mean")):
            row = rows.pop(f"cross_validation/{inputs}/{dimension}")
            assert [row[end] for end in ("value", "low", "high")] == pytest.approx([ends[place] for ends in found])
            assert row["items"] == 48 and row["resampled"] == "9 left-out speakers"
    whole = table[table["inputs"] == "all"]
    low, high = ends_of_folds(
        whole[[*LABELS]].to_numpy(), whole[GIVEN].to_numpy(), whole["speaker"].tolist(), whole["fold"].tolist()
    )(0.9)
    hits = ((low <= whole[GIVEN]) & (whole[GIVEN] <= high)).mean()
    for place, label in enumerate(LABELS):
        start = f"intervals/cross_validation/{label}"
        assert rows.pop(f"{start}/coverage")["value"] == pytest.approx(hits.iloc[place])
        assert rows.pop(f"{start}/width")["value"] == pytest.approx((high - low)[:, place].mean())
    assert sorted(rows) == [f"fold/{number}/mean" for number in (1, 2, 3)]
    of_fold = table[(table["inputs"] == "all") & (table["fold"] == "2")]
    predicted, given = of_fold[[*LABELS]].to_numpy(), of_fold[GIVEN].to_numpy()
    covariance = ((predicted - predicted.mean(0)) * (given - given.mean(0))).mean(0)
    distance = predicted.var(0) + given.var(0) + (predicted.mean(0) - given.mean(0)) ** 2
    assert rows["fold/2/mean"]["value"] == pytest.approx((2 * covariance / distance).mean(), abs=1e-5)


def test_a_fold_is_predicted_by_a_model_that_never_saw_it(tiny, tmp_path, monkeypatch):
    seen: list[set[str]] = []
    make = steps.fold_trainer

    def watched(settings, train, is_final=False):
        trainer = make(settings, train, is_final)
        if "row" in train.column_names:
            seen.append(set(train["speaker"]))
            assert trainer.eval_dataset is None and trainer.args.eval_strategy == "no"
            assert not trainer.args.load_best_model_at_end and trainer.args.save_strategy == "no"
        return trainer

    monkeypatch.setattr(steps, "fold_trainer", watched)
    main(command(tiny, tmp_path / "run", *SPEAKERS))
    table = read_predictions(tmp_path / "run" / "predictions.csv")
    left_out = [set(units) for _, units in table.groupby("fold")["unit"]]
    everybody = set(table["unit"])
    assert seen == [everybody - units for units in left_out]
    assert not list((tmp_path / "run").glob("*.safetensors")) and not list((tmp_path / "run").glob("checkpoint-*"))
    settings = parse_settings([str(tmp_path / "run" / "run.yaml")])
    assert (settings.run.cross_validate, settings.run.folds, settings.run.final_model) == ("speaker", 3, False)


def test_all_folds_start_with_the_same_weights(tiny, tmp_path):
    settings = parse_settings(command(tiny, tmp_path / "run", *SPEAKERS))
    rows = read_unit_rows(settings.run)
    first, second = (steps.fold_trainer(settings, rows.select(range(n))).model.state_dict() for n in (20, 30))
    torch.manual_seed(1)
    other, _ = build_model(settings.run, settings.model)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert any(not torch.equal(first[name], weight) for name, weight in other.state_dict().items())


def test_a_finished_run_shows_its_table(tiny, finished, no_training, caplog):
    with caplog.at_level("INFO"):
        main(command(tiny, finished, *SPEAKERS, "--final_model", "true"))
    said = caplog.records[-1].getMessage()
    value = json.loads((finished / "results.json").read_text())[0]["value"]
    assert said.startswith("cross-validation, CCC") and f"{value:.3f} (" in said
    assert "intervals over 9 left-out speakers" in said and "mean CCC within each fold: 1 " in said
    assert "90 % intervals contain the label (cross_validation): valence " in said


# Interrupted runs


def test_a_stopped_run_goes_on_with_the_folds_that_are_left(tiny, ran, tmp_path, monkeypatch):
    train, count = MsfSerTrainer.train, []

    def stopped(self, *args, **kwargs):
        count.append(1)
        if len(count) == 2:
            raise KeyboardInterrupt
        return train(self, *args, **kwargs)

    argv = command(tiny, tmp_path / "run", *SPEAKERS, "--final_model", "true")
    monkeypatch.setattr(MsfSerTrainer, "train", stopped)
    assert refused(argv) == "130"  # as after Ctrl-C
    assert {path.name for path in (tmp_path / "run" / "folds").iterdir()} == {"1.csv"}
    (tmp_path / "run" / "folds" / ".2.csv.1.unfinished").write_text("row,fi")  # of a killed process
    main(argv)
    assert len(count) == 2 + 2 + 1
    for name in ("predictions.csv", "results.json"):
        assert (tmp_path / "run" / name).read_text() == (ran / name).read_text()
    resumed, whole = weights(tmp_path / "run"), weights(ran)
    assert all(torch.equal(resumed[name], whole[name]) for name in whole)


@pytest.mark.skipif(sys.platform == "win32", reason="there is no kill -9")
def test_a_killed_run_ends_with_the_predictions_of_an_undisturbed_one(tiny, ran, tmp_path):
    argv = command(tiny, tmp_path / "run", *SPEAKERS, "--final_model", "true")
    run = subprocess.Popen(
        [sys.executable, str(ROOT / "train.py"), *argv],
        env=environment(tmp_path),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 120
    while not list((tmp_path / "run").glob("folds/[0-9].csv")) and time.monotonic() < deadline:
        time.sleep(0.02)
    run.send_signal(signal.SIGKILL)
    assert run.wait() == -signal.SIGKILL, "the run ended before it was killed"
    assert not (tmp_path / "run" / "results.json").exists()
    main(argv)
    killed, whole = (read_predictions(folder / "predictions.csv") for folder in (tmp_path / "run", ran))
    assert killed["row"].tolist() == whole["row"].tolist()
    assert killed[[*LABELS]].to_numpy() == pytest.approx(whole[[*LABELS]].to_numpy(), abs=1e-4)


def test_other_data_or_settings_are_refused(tiny, finished, corpus, no_training):
    (finished / "results.json").unlink()
    (finished / "model.safetensors").unlink()  # the folds alone are a run
    more = [*SPEAKERS, "--final_model", "true"]
    assert "an unfinished run with other settings (fusion_size: 16 -> 8)" in refused(
        command(tiny, finished, *more, "--fusion_size", "8")
    )
    assert "(folds: 3 -> 2)" in refused(command(tiny, finished, *SPEAKERS, "--final_model", "true", "--folds", "2"))
    assert "cross_validate: speaker -> None" in refused(command(tiny, finished, "--num_train_epochs", "1"))
    run = finished.parent / "other"
    main_rows = rows_of(corpus)
    argv = command(tiny, run, *more, "--data", str(corpus))
    shutil.copytree(finished, run)
    settings = parse_settings(argv)
    write_run(run, settings.resolved)
    write_identity(run, identity_of({"all": read_unit_rows(settings.run)}, [*inputs_of(settings.model), "unit"]))
    write_rows(corpus, [main_rows[0] | {"speaker_id": "train1"}, *main_rows[1:]])
    assert "its data have changed since (all: unit)" in refused(argv)


def test_the_final_model_can_be_asked_for_afterwards(tiny, ran, tmp_path, monkeypatch):
    main(command(tiny, tmp_path / "run", *SPEAKERS))
    before = (tmp_path / "run" / "predictions.csv").read_bytes()
    train, count = MsfSerTrainer.train, []
    monkeypatch.setattr(
        MsfSerTrainer, "train", lambda self, **given: count.append(len(self.train_dataset)) or train(self, **given)
    )
    main(command(tiny, tmp_path / "run", *SPEAKERS, "--final_model", "true"))
    assert count == [48] and (tmp_path / "run" / "predictions.csv").read_bytes() == before
    late, whole = weights(tmp_path / "run"), weights(ran)
    assert all(torch.equal(late[name], whole[name]) for name in whole)
    with pytest.raises(SystemExit, match=r"other settings \(final_model: True -> False\)"):
        main(command(tiny, tmp_path / "run", *SPEAKERS))


def test_other_files_in_the_folder_of_folds_stay(tiny, finished, no_training):
    (finished / "folds" / "notes.txt").write_text("mine")
    assert "also holds folds/notes.txt, which no run made" in refused(
        command(tiny, finished, *SPEAKERS, "--overwrite", "--fusion_size", "8")
    )


def test_a_file_with_other_rows_is_said(tiny, finished, no_training):
    (finished / "results.json").unlink()
    shutil.copy(finished / "folds" / "1.csv", finished / "folds" / "2.csv")
    argv = command(tiny, finished, *SPEAKERS, "--final_model", "false")
    settings = parse_settings(argv)
    write_run(finished, settings.resolved)
    assert "2.csv has the predictions of other rows: remove it" in refused(argv)


# Units


def test_units_of_the_group_file_are_left_out_together(tiny, tmp_path):
    groups = tmp_path / "groups.csv"
    groups.write_text("unit,group\ntrain0,same\ntest0,same\nvalidation0,train1\n")
    main(command(tiny, tmp_path / "run", *SPEAKERS, "--folds", "2", "--max_steps", "1", "--group_file", str(groups)))
    table = read_predictions(tmp_path / "run" / "predictions.csv")
    unit_of = dict(zip(table["speaker"], table["unit"], strict=True))
    assert unit_of["train0"] == unit_of["test0"] == "same" and unit_of["validation0"] == unit_of["train1"] == "train1"
    counts = Counter(unit_of.values())
    assert counts.pop("same") == counts.pop("train1") == 2 and set(counts.values()) == {1} and len(counts) == 5
    rows = json.loads((tmp_path / "run" / "results.json").read_text())
    assert rows[0]["resampled"] == "7 left-out groups of speakers"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "is '{path}', which is no file"),
        ("speaker,group\na,b\n", "has the columns unit and group; there are speaker, group"),
        ("unit,group\ntrain0,\n", "row 1 has no unit or no group"),
        ("unit,group\ntrain0,a\ntrain0,b\n", "the unit 'train0' is in two groups"),
        ("unit,group\ntrain9,a\n", "the data have no unit 'train9'; write units as they are, such as 'test0'"),
    ],
)
def test_a_wrong_group_file_is_said(tiny, tmp_path, no_training, text, words):
    path = tmp_path / "groups.csv"
    if text is not None:
        path.write_text(text)
    said = refused(command(tiny, tmp_path / "run", *SPEAKERS, "--group_file", str(path)))
    assert words.format(path=path) in said


def test_a_column_of_the_table_groups_too(tiny, corpus, tmp_path):
    rows = [row | {"room": f"{i % 2:02d}", "split": ""} for i, row in enumerate(rows_of(corpus))]
    write_rows(corpus, rows)
    main(command(tiny, tmp_path / "run", "--data", str(corpus), "--cross_validate", "room", "--num_train_epochs", "1"))
    table = read_predictions(tmp_path / "run" / "predictions.csv")
    assert set(table["fold"]) == {"00", "01"} and (table["fold"] == table["unit"]).all()
    assert table[table["inputs"] == "all"]["unit"].tolist() == [row["room"] for row in rows]
    found = json.loads((tmp_path / "run" / "results.json").read_text())
    assert found[0]["resampled"] == "2 left-out groups by room" and found[-1]["name"] == "fold/01/mean"


def test_a_row_without_a_unit_or_a_missing_column_is_said(tiny, corpus, tmp_path, no_training):
    rows = rows_of(corpus)
    write_rows(corpus, [row | {"speaker_id": "" if i in (2, 5) else "s"} for i, row in enumerate(rows)])
    argv = command(tiny, tmp_path / "run", "--data", str(corpus))
    assert "corpus: line 4 has no speaker (2 such); fill in the column 'speaker'" in refused([*argv, *SPEAKERS])
    said = refused([*argv, "--cross_validate", "room"])
    assert "there is no column 'room' to cross-validate over; there are" in said and "speaker" in said
    assert "valence" not in said
    assert not (tmp_path / "run").exists()


def test_a_recording_in_two_units_is_said(tiny, corpus, tmp_path, no_training):
    shutil.copy(corpus / "0.wav", corpus / "1.wav")
    said = refused(command(tiny, tmp_path / "run", "--data", str(corpus), *SPEAKERS))
    assert "1 recording is in more than one unit" in said and "keep each recording in one unit" in said


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--folds", "3"], "folds belongs to cross-validation"),
        (["--final_model", "true"], "final_model belongs to cross-validation"),
        ([*SPEAKERS, "--folds", "1"], "folds cannot be 1; give at least 2"),
        ([*SPEAKERS, "--folds", "10"], "in 10 folds needs as many units to leave out, and there are 9"),
        ([*SPEAKERS, "--early_stopping_patience", "2"], "early_stopping_patience needs a validation part"),
        ([*SPEAKERS, "--do_predict", "true"], "do_predict predicts the test part, and cross_validate has none"),
        ([*SPEAKERS, "--corpus", "iemocap", "--fold", "1"], "fold names one part to test on"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(tiny, tmp_path, no_training, more, words):
    assert words in refused(command(tiny, tmp_path / "run", *more))
    assert not (tmp_path / "run").exists()


# The final model


def test_predicting_the_test_part_leaves_the_predictions_of_the_folds(tiny, finished):
    before = (finished / "predictions.csv").read_bytes()
    for more in ([], ["--overwrite"]):
        main(command(tiny, finished, "--do_predict", "true", *more))
    assert (finished / "predictions.csv").read_bytes() == before
    assert len(pd.read_csv(finished / "test_predictions.csv")) == 12 and not list(finished.glob("*.parts"))
    report.main([str(finished)])


def test_a_report_reads_the_folds_where_their_table_was_replaced(ran, finished):
    expected = report.page(finished)
    pd.DataFrame({"file": ["a.wav"], "valence": [0.5]}).to_csv(finished / "predictions.csv", index=False)
    assert report.page(finished) == expected
    (finished / "predictions.csv").unlink()
    assert report.page(finished) == expected
    shutil.rmtree(finished / "folds")
    (finished / "predictions.csv").write_text("mine")
    with pytest.raises(ValueError, match="is not what msfser train --cross_validate writes"):
        report.page(finished)


def test_the_final_model_loads(ran):
    model, info = AutoModel.from_pretrained(ran, output_loading_info=True)
    assert isinstance(model, MsfSerModel) and not info["missing_keys"]
    MsfSerProcessor.from_pretrained(ran)
    assert not list(ran.glob("checkpoint-*")) and not list(ran.glob("*.bin"))


def test_its_card_report_and_files_say_that_it_is_cross_validated(ran, finished, capsys):
    card = str(render_card(finished, "someone/model", "v1"))
    assert "(CCC) of a cross-validation, with the 95%" in card and "interval over 9 left-out speakers" in card
    assert "without its speaker." in card and "on the test set" not in card and "split: cross-validation" in card
    files, excluded = model_files(finished)
    assert "model.safetensors" in files and {"folds", "predictions.csv"} <= set(excluded)
    report.main([str(finished)])
    page = (finished / "report.html").read_text()
    assert "Cross-validation, each utterance by a model without it: 48 utterances, 9 speakers" in page
    assert "Error by speaker" in page and "9 left-out speakers" in page
    assert "Intervals around the numbers" in page
    assert "the intervals of each fold are calibrated on the other folds; those of a final model" in page
    assert re.search(
        r"^\| cross-validation \| valence \| arousal \| dominance \|\n\|(---\|)+\n\| share of", card, re.M
    )
    assert "those of the published model are calibrated\non all folds." in card
    with pytest.raises(ValueError, match=r"is a cross-validation without a test part: see predictions\.csv"):
        predict_part(finished)


def test_two_processes_share_each_fold(tiny, tmp_path):
    argv = command(tiny, tmp_path / "two", *SPEAKERS, "--folds", "2", "--per_device_train_batch_size", "4")
    setting = ["--config_file", str(ROOT / "configs" / "accelerate" / "multi_gpu.yaml"), "--num_processes", "2"]
    launch = [sys.executable, "-m", "accelerate.commands.launch", *setting]
    ended = subprocess.run(
        [*launch, str(ROOT / "train.py"), *argv], env=environment(tmp_path), capture_output=True, text=True
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr.count("fold 1: ") == 1 and "2 processes" in ended.stderr
    table = read_predictions(tmp_path / "two" / "predictions.csv")
    assert len(table) == 3 * 48 and table[[*LABELS]].notna().all(axis=None)
    assert (tmp_path / "two" / "results.json").is_file()
