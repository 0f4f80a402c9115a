"""`msfser evaluate`: CCC by set of inputs and by group, and predictions that anyone can score anew."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch
from corpus_trees import msp_podcast_labels, write_msp_podcast, write_msp_podcast_labels
from tiny import noise, tiny_model, tiny_processor

from msfser import LABELS, concordance
from msfser.cli.main import main as msfser
from msfser.corpora.licenses import License
from msfser.evaluation import evaluate as evaluate_module
from msfser.evaluation import predictions
from msfser.intervals_msfser import MsfSerIntervals, set_intervals
from msfser.sharding.output_folder import only_run
from msfser.starter.assemble import STARTERS
from msfser.training.settings import RunSettings, parse_settings, write_run

KINDS = ("labels", "predictions")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model") / "mine"
    tiny_model().save_pretrained(folder)
    tiny_processor().save_pretrained(folder)
    return folder


@pytest.fixture
def corpus(tmp_path, monkeypatch):
    """24 clips of six speakers, one text missing, with an emotion."""
    monkeypatch.chdir(tmp_path)
    draw = np.random.default_rng(0)
    with open("corpus.csv", "w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["audio", "transcript", "emphasis", "description", "speaker", "emotion", *LABELS, "split"])
        for i in range(24):
            soundfile.write(f"{i}.wav", noise(0.5 + i / 30, i), 16_000)
            texts = ["the food was" if i else "", "food", "a b c"]
            labels = draw.uniform(1, 7, 3).round(2)
            table.writerow([f"{i}.wav", *texts, f"s{i // 4}", "anger" if i % 2 else "joy", *labels, "test"])
    return Path("corpus.csv")


def evaluate(model: Path, *more: object) -> tuple[dict[str, dict], pd.DataFrame]:
    options = ["evaluate", model, "--data", "corpus.csv", "--label_range", 1, 7, "--output", "out", *more]
    msfser([str(word) for word in options])
    rows = json.loads(Path("out/results.json").read_text())
    return {row["name"]: row for row in rows}, pd.read_csv("out/predictions.csv")


def test_groups_that_are_too_small_are_spoken_of(corpus, model, caplog):
    """As reported: nothing was said of them."""
    rows, _ = evaluate(model, "--by", "speaker", "emotion")
    assert "--by speaker: no group of the test part has 10 items, the fewest that are scored; give" in caplog.text
    assert "--by emotion" not in caplog.text
    assert not any("speaker=" in name for name in rows) and any("emotion=joy" in name for name in rows)


def test_the_rows_can_be_computed_from_the_predictions(corpus, model):
    rows, table = evaluate(model, "--by", "emotion", "speaker")
    assert table["inputs"].drop_duplicates().tolist() == ["audio", "audio+transcript", "all"]
    assert len(table) == 3 * 24
    for inputs, of_set in table.groupby("inputs"):
        given = torch.tensor(of_set[[f"{label}_label" for label in LABELS]].to_numpy())
        ccc = concordance(torch.tensor(of_set[[*LABELS]].to_numpy()), given)
        for label, value in zip(LABELS, ccc.tolist(), strict=True):
            row = rows[f"test/{inputs}/{label}"]
            assert row["value"] == pytest.approx(value, abs=1e-5) and row["low"] <= row["value"] <= row["high"]
            assert row["items"] == 24 and row["resampled"] == "6 speakers"
    assert rows["test/emotion=anger/mean"]["items"] == 12
    whole = table[table["inputs"] == "all"]
    errors = whole["arousal"] - whole["arousal_label"]
    is_angry = whole["file"].str.extract(r"(\d+)\.wav$")[0].astype(int) % 2 == 1
    assert rows["bias/test/emotion=anger/arousal"]["value"] == pytest.approx(errors[is_angry].mean(), abs=1e-6)
    difference = rows["bias_minus_others/test/emotion=anger/arousal"]
    assert difference["value"] == pytest.approx(errors[is_angry].mean() - errors[~is_angry].mean(), abs=1e-6)
    assert difference["low"] < difference["value"] < difference["high"] and difference["items"] == 12
    names = {row["model_sha256"] for row in rows.values()}
    assert len(names) == 1 and set(table["model_sha256"]) == names and set(table["model"]) == {"mine"}


def test_what_the_intervals_resample_is_said_of_each_row(corpus, model, caplog):
    evaluate(model)
    assert "CCC with 95 % intervals over 6 speakers:\n" in caplog.text
    caplog.clear()
    rewrite(lambda table: table.assign(emotion=["anger"] * 12 + ["joy"] * 12, speaker=["a", "b"] * 6 + ["c"] * 12))
    evaluate(model, "--by", "emotion", "--overwrite")
    lines = caplog.text.splitlines()
    assert not any("intervals over" in line for line in lines)
    for name, units in (
        ("test/all", "3 speakers"),
        ("test/emotion=anger", "2 speakers"),
        ("test/emotion=joy", "utter"),
    ):
        (line,) = [line for line in lines if line.startswith(f"{name}/mean ")]
        assert f"  over {units}" in line


@pytest.mark.parametrize(
    ("column", "why"),
    [
        ("moood", "it is not among its further columns"),
        ("none", "it has no value for these items"),
        ("lists", "it has values that are neither text nor numbers"),
        ("arousal", "it is an input, a label, or the part of a row"),
    ],
)
def test_why_a_column_is_no_grouping_is_said_before_anything_is_predicted(corpus, model, monkeypatch, column, why):
    table = pd.read_csv("corpus.csv").assign(lists=[["x"]] * 24, none=None)
    table.to_json("corpus.jsonl", orient="records", lines=True)
    monkeypatch.setattr("msfser.evaluation.evaluate.encode_parts", None)
    with pytest.raises(SystemExit, match=f"--by {column}: {why}; corpus.jsonl has speaker, emotion"):
        options = ["--data", "corpus.jsonl", "--label_range", "1", "7", "--output", "out", "--by", "emotion", column]
        msfser(["evaluate", str(model), *options])


def test_the_limits_of_groups_are_not_those_of_named_columns(corpus, model):
    """As reported: `--by age` was refused, and so was a column with one value or with more than 20."""
    rewrite(lambda table: table.assign(age=["20"] * 12 + ["30"] * 11 + [""], one="x", many=range(24)))
    rows, _ = evaluate(model, "--by", "age", "one", "many")
    assert rows["test/age=20/mean"]["items"] == 12 and rows["test/age=30/mean"]["items"] == 11
    assert rows["test/one=x/mean"]["items"] == 24 and not any("many" in name for name in rows)


def test_the_predictions_are_those_of_the_pipeline_s_model(corpus, model):
    from transformers import AutoModel, AutoProcessor

    _, table = evaluate(model)
    model, processor = (kind.from_pretrained(model, trust_remote_code=True) for kind in (AutoModel, AutoProcessor))
    inputs = processor("7.wav", transcript="the food was", emphasis="food", description="a b c")
    with torch.no_grad():
        expected = model.eval()(**inputs).logits[0].tolist()
    row = table[(table["inputs"] == "all") & table["file"].str.endswith("/7.wav")]
    np.testing.assert_allclose(row[[*LABELS]].to_numpy()[0], expected, atol=1e-5)


def test_the_model_is_on_the_device_that_predict_uses(corpus, model, monkeypatch):
    """As reported: it stayed on the CPU."""

    def encode(parts, model, *others):
        raise ValueError(f"on {model.device}")

    for module in ("evaluate", "predictions"):
        monkeypatch.setattr(f"msfser.evaluation.{module}.default_device", lambda: torch.device("meta"))
        monkeypatch.setattr(f"msfser.evaluation.{module}.encode_parts", encode)
    with pytest.raises(SystemExit, match="on meta"):
        evaluate(model)
    run = RunSettings(data="corpus.csv", label_range=["1", "7"])
    monkeypatch.setattr(predictions, "results_of", lambda folder: [])
    monkeypatch.setattr(predictions, "read_run", lambda folder: (run, None, None))
    monkeypatch.setattr(predictions, "check_identity", lambda *_: None)
    with pytest.raises(ValueError, match="on meta"):
        predictions.predict_part(model)


def test_what_the_model_was_fitted_to_is_said(corpus, model, tmp_path, caplog):
    evaluate(model)
    assert "too high" not in caplog.text
    fitted = tiny_model()
    for name, license, scale, voices in (
        ("mine", STARTERS["starter"].license, "a corpus", "RAVDESS speech, EmoDB, and nEMO"),
        ("mine-open", STARTERS["starter-open"].license, "a corpus", "EmoDB"),
        ("own", License("cc-by-nc-sa-4.0", ("nEMO",)), "CREMA-D, nEMO", "CREMA-D and nEMO"),
    ):
        license.add_to(fitted.config)
        fitted.config.scale = {"of": scale} | {kind: {dimension: [0.5] for dimension in LABELS} for kind in KINDS}
        fitted.save_pretrained(name)
        tiny_processor().save_pretrained(name)
        evaluate(Path(name), "--overwrite")
        assert f"{name} was fitted to {voices}: scores on their speakers are too high." in caplog.text
        caplog.clear()


def test_scores_on_rows_of_the_training_are_called_too_high(corpus, model, tmp_path, caplog):
    shutil.copytree(model, "run")
    (tmp_path / "settings.yaml").write_text("data: corpus.csv\noutput_dir: run\n")
    write_run(Path("run"), parse_settings(["settings.yaml"]).resolved)
    words = "run was trained on rows of corpus.csv: their scores are too high."
    evaluate(Path("run"))
    assert words not in caplog.text
    evaluate(Path("run"), "--part", "all", "--overwrite")
    assert words in caplog.text
    Path("run/run.yaml").write_text("of: another version")
    evaluate(Path("run"), "--part", "all", "--overwrite")


def test_intervals_are_scored_too(corpus, tmp_path):
    model = tiny_model()
    intervals = MsfSerIntervals().requires_grad_(False)
    intervals.quantiles.fill_(0.2)
    set_intervals(model, intervals)
    model.save_pretrained("model")
    tiny_processor().save_pretrained("model")
    rows, table = evaluate(Path("model"), "--by", "emotion")
    whole = table[table["inputs"] == "all"]
    for label in LABELS:
        hits = whole[f"{label}_label"].between(whole[f"{label}_low"], whole[f"{label}_high"])
        row = rows[f"intervals/test/all/{label}/coverage"]
        assert row["value"] == pytest.approx(hits.mean()) and row["low"] <= row["value"] <= row["high"]
        width = (whole[f"{label}_high"] - whole[f"{label}_low"]).mean()
        assert rows[f"intervals/test/all/{label}/width"]["value"] == pytest.approx(width, abs=1e-6)
    assert rows["intervals/test/emotion=joy/valence/coverage"]["items"] == 12


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--part", "train"], "corpus.csv has no train part, only test: name the parts in a column 'split', or"),
        (["--part", "all", "--test", "test"], "--test chooses a part, and all rows are read as one part"),
        (["--part", "all", "--data", "corpus.csv"], "all rows are those of one corpus, and --data names several"),
        (["--data", "none.csv"], "none.csv: there is no such file"),
        (["--data", "{data: other.csv, name: corpus}"], "two corpora are called 'corpus'"),
        (["--corpus", "whiser", "--speaker_from", "x"], "--speaker_from: the corpus whiser decides this"),
        (["--by", "mood"], "--by mood: it is not among its further columns; corpus.csv has speaker, emotion"),
        (["--label_range", "7", "1"], "--label_range"),
    ],
)
def test_a_wrong_command_is_a_sentence(corpus, model, more, words):
    with pytest.raises(SystemExit, match=words):
        evaluate(model, *more)
    assert not Path("out/results.json").exists()


def test_results_are_not_replaced_unasked(corpus, model):
    evaluate(model)
    before = Path("out/results.json").read_bytes()
    with pytest.raises(SystemExit, match="exists"):
        evaluate(model)
    assert Path("out/results.json").read_bytes() == before
    rows, _ = evaluate(model, "--part", "all", "--overwrite")
    assert "all/all/mean" in rows


def test_results_that_appear_meanwhile_are_not_replaced(corpus, model, monkeypatch):
    make_folder = evaluate_module.make_folder

    def with_results(folder):
        make_folder(folder)
        (folder / "results.json").write_text("theirs")

    monkeypatch.setattr(evaluate_module, "make_folder", with_results)
    with pytest.raises(SystemExit, match="exists"):
        evaluate(model)
    assert Path("out/results.json").read_text() == "theirs"


def test_two_evaluations_do_not_write_to_one_folder(corpus, model):
    Path("out").mkdir()
    with only_run(Path("out")), pytest.raises(SystemExit, match="another run is writing to 'out'"):
        evaluate(model)


def rewrite(change, name="corpus.csv"):
    table = pd.read_csv("corpus.csv", dtype=str)
    change(table).to_csv(name, index=False)


def test_a_table_without_parts_and_speakers(corpus, model):
    rewrite(lambda table: table.drop(columns=["split", "speaker"]))
    with pytest.raises(SystemExit, match=r"give --speaker_from REGEX .* or --split_by file where nobody knows"):
        evaluate(model)
    # What the sentence says can be given; the whole needs neither.
    rows, table = evaluate(model, "--part", "all")
    assert len(table) == 3 * 24 and set(table["part"]) == {"all"} and table["speaker"].isna().all()
    assert rows["all/all/mean"]["resampled"] == "utterances"
    _, table = evaluate(model, "--overwrite", "--split_by", "file")
    assert set(table["part"]) == {"test"} and len(table) < 3 * 12
    _, table = evaluate(model, "--overwrite", "--speaker_from", "^.")
    assert set(table["part"]) == {"test"} and table["speaker"].nunique() >= 1
    assert (table["speaker"].astype(str) == table["file"].str.rpartition("/")[2].str[0]).all()


def test_speakers_in_several_parts(corpus, model):
    rewrite(lambda table: table.assign(split=["train" if i % 2 else "test" for i in range(24)]))
    with pytest.raises(SystemExit, match="accept it by --allow_speaker_overlap true"):
        evaluate(model, "--split_by", "file")
    _, table = evaluate(model, "--split_by", "file", "--allow_speaker_overlap", "true")
    assert len(table) == 3 * 12
    _, table = evaluate(model, "--part", "all", "--overwrite")
    assert len(table) == 3 * 24


def test_several_corpora_together_and_apart(corpus, model):
    for i in range(24):
        soundfile.write(f"other_{i}.wav", noise(0.5 + i / 40, 50 + i), 16_000)
    rewrite(lambda table: table.assign(audio="other_" + table["audio"], transcript=None).iloc[:20], "other.csv")
    rows, table = evaluate(model, "--data", "other.csv", "--by", "emotion")
    counts = table[table["inputs"] == "all"]["part"].value_counts().to_dict()
    assert counts == {"test": 44, "corpus": 24, "other": 20}
    for part, group in table[table["inputs"] == "all"].groupby("part"):
        given = torch.tensor(group[[f"{label}_label" for label in LABELS]].to_numpy())
        ccc = concordance(torch.tensor(group[[*LABELS]].to_numpy()), given)
        assert rows[f"{part}/all/mean"]["value"] == pytest.approx(ccc.mean().item(), abs=1e-5)
        assert rows[f"{part}/emotion=joy/mean"]["items"] == len(group) // 2
    assert set(table[table["part"] == "other"]["speaker"]) == {f"other/s{k}" for k in range(5)}


def test_parts_of_a_named_corpus(model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = write_msp_podcast(tmp_path / "msp")
    rows = [row | {"SpkrID": f"{k}"} for k, row in enumerate(msp_podcast_labels())]
    write_msp_podcast_labels(folder, rows)
    for number, path in enumerate(sorted((folder / "Audios").iterdir())):
        soundfile.write(path, noise(0.6, number), 16_000)
    command = ["evaluate", str(model), "--data", "msp", "--corpus", "msp_podcast", "--output", "out", "--overwrite"]

    def counts(*more):
        msfser([*command, *more])
        table = pd.read_csv("out/predictions.csv")
        return table[table["inputs"] == "audio"]["part"].value_counts().to_dict()

    # The development part is not counted twice.
    assert counts("--part", "all", "--test", "Development") == {"all": 6}
    assert counts("--part", "all", "--test", "Test1", "Test2") == {"all": 10}
    # Only what is scored must be there.
    for row in rows[:4]:
        (folder / "Audios" / row["FileName"]).unlink()
    assert counts("--test", "Test1", "Test2") == {"test": 2, "Test2": 2}
    names = {row["name"] for row in json.loads(Path("out/results.json").read_text())}
    assert {"test/audio/mean", "Test2/audio/mean"} <= names
    assert counts("--part", "validation") == {"validation": 2}


def test_texts_that_are_not_there_are_a_sentence(corpus, tmp_path):
    tiny_model(audio=False).save_pretrained("texts")
    tiny_processor().save_pretrained("texts")
    rewrite(lambda table: table.drop(columns=["transcript", "emphasis", "description"]))
    with pytest.raises(SystemExit, match="the test part has no input that the model reads: annotate the corpus first"):
        evaluate(Path("texts"))
