"""The benchmark of cross-validation: both systems on the same folds, scored against each other."""

import csv
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_run import make_tiny

from msfser import LABELS
from msfser.benchmarks import cross_validation
from msfser.evaluation.results import read
from msfser.training.folds import read_predictions

EMOTIONS = ("anger", "happiness", "neutral", "sadness", "boredom")


@pytest.fixture
def data(tmp_path) -> Path:
    """The tiny corpus as EmoDB: three speakers, labels from -1 to 1, a fifth emotion that is not used."""
    tiny = make_tiny(tmp_path)
    folder = tmp_path / "data" / "emodb"
    shutil.copytree(tiny / "corpus", folder)
    with open(folder / "metadata.csv", newline="") as file:
        rows = list(csv.DictReader(file))[:20]
    for i, row in enumerate(rows):
        row |= {label: str(2 * float(row[label]) - 1) for label in LABELS}
        row |= {"speaker_id": f"0{i % 3}", "emotion": EMOTIONS[i % 5], "transcription": row.pop("transcript")}
    with open(folder / "metadata_weak.csv", "w", newline="") as file:
        table = csv.DictWriter(file, rows[0])
        table.writeheader()
        table.writerows(rows)
    return tmp_path / "data"


def test_both_systems_predict_each_clip_without_its_speaker(data, tmp_path, monkeypatch):
    settings = (tmp_path / "tiny.yaml").read_text().replace("num_train_epochs: 3", "num_train_epochs: 1")
    (tmp_path / "short.yaml").write_text(settings)
    monkeypatch.setattr(cross_validation, "SETTINGS", tmp_path / "short.yaml")
    monkeypatch.setattr(cross_validation, "ensure_encoders", lambda names: None)
    monkeypatch.setattr(cross_validation, "regressor_encoder", lambda: (None, None))
    monkeypatch.setattr(cross_validation, "pooled_clips", lambda paths, *_: torch.randn(len(paths), 2, 8))
    monkeypatch.setattr("msfser.evaluation.regressor._STEPS", 3)
    monkeypatch.setattr("msfser.benchmarks.command.RESULTS", tmp_path / "results")
    argv = ["--data", str(data), "--corpora", "emodb", "--seeds", "0", "--output_dir", str(tmp_path / "out")]
    argv.append("--whole_clips")
    cross_validation.main(argv)
    rows = read(tmp_path / "results" / "crossval.json")
    names = [
        f"emodb/{system}/{name}" for system in ("train", "regressor", "whole_clips") for name in (*LABELS, "mean")
    ]
    assert list(rows) == [*names, "emodb/train_minus_regressor", "emodb/train_minus_whole_clips"]
    difference = rows["emodb/train/mean"]["value"] - rows["emodb/regressor/mean"]["value"]
    assert rows["emodb/train_minus_regressor"]["value"] == pytest.approx(difference)
    assert rows["emodb/train/mean"]["command"].endswith(
        "--data FOLDER --corpora emodb --seeds 0 --output_dir FOLDER --whole_clips"
    )
    settings = (tmp_path / "out" / "whole_clips" / "emodb_0" / "run.yaml").read_text()
    assert "crop_seconds: 0" in settings and "frame_stride: 1" in settings

    table = read_predictions(tmp_path / "out" / "emodb_0" / "predictions.csv")
    assert set(table["fold"]) == {"00", "01", "02"} and len(table) == 3 * 16
    # Labels were scaled from -1..1.
    with open(data / "emodb" / "metadata_weak.csv", newline="") as file:
        first = next(csv.DictReader(file))
    assert table["valence_label"][0] == pytest.approx((float(first["valence"]) + 1) / 2, abs=1e-6)


def test_the_difference_is_paired_and_over_the_seeds():
    draw = np.random.default_rng(0)
    labels, speakers = draw.random((60, 3)), [f"s{i % 6}" for i in range(60)]
    noise = draw.standard_normal((2, 60, 3)) * np.linspace(0.1, 1, 60)[:, None]
    predictions = {"train": labels + 0.10 * noise, "regressor": labels + 0.11 * noise}
    rows = {row["name"]: row for row in cross_validation.rows_of_systems("x", predictions, labels, speakers)}
    of_system, difference = rows["x/train/mean"], rows["x/train_minus_regressor"]
    assert difference["low"] > 0
    assert difference["high"] - difference["low"] < 0.3 * (of_system["high"] - of_system["low"])
    swapped = {name: values[::-1] for name, values in predictions.items()}
    again = cross_validation.rows_of_systems("x", swapped, labels, speakers)
    assert again[-1]["value"] == pytest.approx(difference["value"])


def test_a_folder_without_the_corpora_is_a_sentence(tmp_path):
    with pytest.raises(SystemExit, match="emodb is missing: --data is a folder"):
        cross_validation.main(["--data", str(tmp_path), "--corpora", "emodb"])
