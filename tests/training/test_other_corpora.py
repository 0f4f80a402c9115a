"""Training on two dimensions, on MSP-Podcast as it is handed out, and on several corpora, with tiny encoders."""

import csv

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch
from corpus_trees import msp_podcast_labels, write_csv
from tiny import noise
from tiny_run import INTERVAL_ROWS, command, make_tiny, score_rows, weights

from msfser import MsfSerModel, MsfSerPipeline, MsfSerProcessor
from msfser.annotation.annotate import main as annotate
from msfser.train import main as train
from msfser.training.settings import RunSettings, corpus_title, parse_settings, read_run


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return make_tiny(tmp_path_factory.mktemp("tiny"))


def results(folder, intervals=INTERVAL_ROWS):
    return {row["name"]: row["value"] for row in score_rows(folder, intervals)}


def intervals_of(*parts):
    return {name.replace("/test/", f"/{part}/") for name in INTERVAL_ROWS for part in parts}


def test_two_dimensions_are_trained_and_the_third_says_that_it_is_not(tiny, tmp_path, caplog):
    with open(tiny / "corpus" / "metadata.csv", newline="") as file:
        rows = [{k: v for k, v in row.items() if k != "dominance"} for row in csv.DictReader(file)]
    for row in rows:
        row["valence"] = 2 * float(row["valence"]) - 1
    write_csv(tmp_path / "two.csv", rows)
    options = ["--data", str(tmp_path / "two.csv"), "--audio_folder", str(tiny / "corpus")]
    options += ["--label_range", "valence=-1:1", "arousal=0:1", "--weight_decay", "0"]
    train(command(tiny, tmp_path / "run", *options))
    of_two = {name for name in INTERVAL_ROWS if "dominance" not in name}
    found = results(tmp_path / "run", of_two)
    assert {name.rsplit("/", 1)[1] for name in found} == {"valence", "arousal", "mean"}
    assert found["test/all/mean"] == pytest.approx((found["test/all/valence"] + found["test/all/arousal"]) / 2)
    assert "dominance is not rated: the model learns nothing of it" in caplog.text
    assert read_run(tmp_path / "run").run.label_range == ["valence=-1:1", "arousal=0:1"]
    model = MsfSerModel.from_pretrained(tmp_path / "run")
    assert model.config.unrated == ["dominance"]
    train(command(tiny, tmp_path / "short", *options, "--num_train_epochs", "1"))
    long, short = weights(tmp_path / "run"), weights(tmp_path / "short")
    changed = {
        name.split(".")[1] for name in long if name.startswith("heads.") and not torch.equal(long[name], short[name])
    }
    assert changed == {"valence", "arousal"}
    pipeline = MsfSerPipeline(model=model, processor=MsfSerProcessor.from_pretrained(tmp_path / "run"))
    said = pipeline({"raw": noise(0.8), "sampling_rate": 16_000, "transcript": "a b"}, recognizer=None)["warnings"]
    assert "The model was trained without labels of dominance: its number means nothing." in said


def test_three_dimensions_are_trained_as_before(tiny, tmp_path):
    """The range in another spelling changes nothing."""
    train(command(tiny, tmp_path / "a", "--num_train_epochs", "1"))
    ranges = ["valence=0:1", "arousal=0:1", "dominance=0:1"]
    train(command(tiny, tmp_path / "b", "--num_train_epochs", "1", "--label_range", *ranges))
    one, other = weights(tmp_path / "a"), weights(tmp_path / "b")
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert results(tmp_path / "a") == results(tmp_path / "b")
    assert MsfSerModel.from_pretrained(tmp_path / "a").config.unrated in (None, [])


def write_challenge(folder):
    """Train and Development with labels and transcripts, Test3 as recordings that a list names."""
    rows, number = [], 0
    draw = np.random.default_rng(0)
    for split, count in (("Train", 16), ("Development", 8), ("Test3", 4)):
        for _ in range(count):
            row = msp_podcast_labels()[0] | {"FileName": f"MSP-PODCAST_{number:04d}.wav", "Split_Set": split}
            row |= {name: f"{draw.uniform(1, 7):.2f}" for name in ("EmoAct", "EmoVal", "EmoDom")}
            row["SpkrID"] = f"{number}.0"
            (folder / "Audios" / "Audios").mkdir(parents=True, exist_ok=True)
            soundfile.write(folder / "Audios" / "Audios" / row["FileName"], noise(0.5 + number / 50, number), 16_000)
            if split == "Test3":
                with open(folder / "Partitions.txt", "a") as file:
                    file.write(f"Test3; {row['FileName']}\n")
            else:
                (folder / "Transcripts").mkdir(exist_ok=True)
                (folder / "Transcripts" / f"MSP-PODCAST_{number:04d}.txt").write_text("(laughs) a b c")
                rows.append(row)
            number += 1
    write_csv(folder / "Labels" / "labels_consensus.csv", rows)
    return folder


def test_from_the_folder_of_the_challenge_to_the_submission(tiny, tmp_path, monkeypatch):
    from msfser.cli.main import main as msfser

    monkeypatch.chdir(tmp_path)
    folder = write_challenge(tmp_path / "MSP-Podcast")
    annotate([str(folder), "--corpus", "msp_podcast", "--recognizer", "none", "--output", "annotated"])
    options = ["--corpus", "msp_podcast", "--data", "annotated", "--per_device_train_batch_size", "4"]
    with pytest.raises(SystemExit, match=r"has no Test1; annotate the whole .* what is there: --test Development"):
        train(command(tiny, tmp_path / "run", *options))
    train(command(tiny, tmp_path / "run", *options, "--test", "Development"))
    # Eight recordings for validation are too few for intervals.
    assert "test/audio/mean" in results(tmp_path / "run", set())
    words = ["predict", str(folder), "--corpus", "msp_podcast", "--test", "Test3", "--model", "run"]
    msfser([*words, "--recognizer", "none", "-o", "out.csv", "--submission", "submission.csv"])
    made = pd.read_csv("submission.csv")
    assert made["FileName"].tolist() == [f"MSP-PODCAST_{number:04d}.wav" for number in range(24, 28)]
    assert made[["EmoAct", "EmoVal", "EmoDom"]].stack().between(1, 7).all()
    # The unlabeled part, by the run's own settings.
    train(["run/run.yaml", "--test", "Test3", "--do_predict", "--output_dir", "run"])
    assert len(pd.read_csv("run/predictions.csv")) == 4


def test_several_corpora_are_trained_as_one(tiny, tmp_path):
    folder = write_challenge(tmp_path / "msp")
    more = f"{{data: {folder}, corpus: msp_podcast, test: Development, name: MSP, weight: 0.5, texts: [transcript]}}"
    train(command(tiny, tmp_path / "run", "--data", str(tiny / "corpus"), "--data", more, "--num_train_epochs", "1"))
    found = results(tmp_path / "run", intervals_of("test", "corpus", "MSP"))
    assert {name.split("/")[0] for name in found} == {"test", "corpus", "MSP"}
    saved = read_run(tmp_path / "run").run
    assert (saved.data, saved.more_data) == (str(tiny / "corpus"), [more])
    again = parse_settings([str(tmp_path / "run" / "run.yaml"), "--output_dir", "x"]).run
    assert again == saved
    listed = tmp_path / "two.yaml"
    listed.write_text((tiny / "tiny.yaml").read_text() + f"data:\n- {tiny}/corpus\n- {{data: {folder}, name: MSP}}\n")
    assert parse_settings([str(listed), "--output_dir", "x"]).run.more_data == [f"{{data: {folder}, name: MSP}}"]


@pytest.mark.parametrize(
    ("data", "title"), [("my/Corpus-1.12", "Corpus-1.12"), ("my/metadata.csv", "my"), ("a.parquet", "a")]
)
def test_the_title_of_a_table_is_the_name_of_its_folder(data, title):
    assert corpus_title(RunSettings(data=data)) == title
    assert corpus_title(RunSettings(data=data, more_data=["b"])) == f"{title} and others"


def test_several_test_parts_are_scored_apart(tiny, tmp_path):
    with open(tiny / "corpus" / "metadata.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    for number, row in enumerate(row for row in rows if row["split"] == "test"):
        row["split"] = f"Test{1 + number % 2}"
    write_csv(tmp_path / "a.csv", rows)
    options = ["--data", str(tmp_path / "a.csv"), "--audio_folder", str(tiny / "corpus"), "--num_train_epochs", "1"]
    train(command(tiny, tmp_path / "run", *options, "--test", "Test2", "Test1"))
    found = results(tmp_path / "run", intervals_of("test", "Test1"))
    assert {name.split("/")[0] for name in found} == {"test", "Test1"}


def test_no_intervals_where_every_speaker_is_trained_on(tiny, tmp_path):
    with open(tiny / "corpus" / "metadata.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        row["speaker_id"] = row["speaker_id"].replace("validation", "train")
    write_csv(tmp_path / "a.csv", rows)
    options = ["--data", str(tmp_path / "a.csv"), "--audio_folder", str(tiny / "corpus"), "--num_train_epochs", "1"]
    train(command(tiny, tmp_path / "run", *options, "--allow_speaker_overlap", "true"))
    assert "test/all/mean" in results(tmp_path / "run", set())
    config = MsfSerModel.from_pretrained(tmp_path / "run").config
    assert not config.intervals and config.scale


@pytest.mark.parametrize(
    ("written", "more", "found"),
    [
        ("data: [A, B]", [], ["A", "B"]),
        ("data: [A, B]", ["--data", "C"], ["C"]),
        ("data: [A, B]", ["--data=C", "--data", "D"], ["C", "D"]),
        ("data: A\nmore_data: [B]", ["--data", "C"], ["C"]),
        ("data: [A, B]", ["--more_data", "X"], ["A", "X"]),
        ("data: [A, B]", ["--more-data", "none"], ["A"]),
        ("data: [A, B]", ["--data", "C", "--more_data", "X", "Y"], ["C", "X", "Y"]),
        ("", ["--more_data", "X", "--data", "A", "--data=B"], ["A", "X", "B"]),
        ("", ["--data", "A", "--data", "B", "--seed", "1", "--more_data", "X"], ["A", "X", "B"]),
        ("", ["--data", "A", "--data", "B", "--more_data", "none"], ["A", "B"]),
    ],
)
def test_the_command_line_names_all_corpora_or_none(tmp_path, written, more, found):
    (tmp_path / "some.yaml").write_text(f"use_cpu: true\n{written}\n")
    run = parse_settings([str(tmp_path / "some.yaml"), "--output_dir", "x", *more]).run
    assert [run.data, *run.more_data] == found


def test_data_without_a_value_takes_no_option_for_it(tmp_path):
    (tmp_path / "some.yaml").write_text("use_cpu: true\n")
    with pytest.raises(SystemExit, match="argument --data: expected one argument"):
        parse_settings([str(tmp_path / "some.yaml"), "--output_dir", "x", "--data", "A", "--data", "--seed", "1"])
