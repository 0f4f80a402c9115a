"""`msfser predict --submission`: the leaderboard file of an unlabeled part of MSP-Podcast."""

import pandas as pd
import pytest
import soundfile
from corpus_trees import msp_podcast_labels, write_msp_podcast
from tiny import noise, tiny_model, tiny_processor

from msfser.cli.main import main as msfser
from msfser.prediction.sharded_prediction import ShardedPrediction
from msfser.prediction.submission import write_submission


@pytest.fixture
def corpus(tmp_path, monkeypatch):
    """The corpus with audible recordings, and an audio-only model."""
    folder = write_msp_podcast(tmp_path / "msp")
    for number, path in enumerate(sorted((folder / "Audios").iterdir())):
        soundfile.write(path, noise(0.6, number), 16_000)
    tiny_model(semantics=[]).save_pretrained(tmp_path / "model")
    tiny_processor().save_pretrained(tmp_path / "model")
    monkeypatch.chdir(tmp_path)
    return folder


def predict(*more, data="msp"):
    words = ["predict", data, "--corpus", "msp_podcast", "--model", "model", "-o", "out.csv"]
    msfser([*words, "--submission", "submission.csv", *more])


def test_a_part_without_labels(corpus, tmp_path):
    predict("--test", "Test3")
    made, table = pd.read_csv("submission.csv"), pd.read_csv("out.csv")
    assert list(made) == ["FileName", "EmoAct", "EmoVal", "EmoDom"]
    assert made["FileName"].tolist() == [row["FileName"] for row in msp_podcast_labels()[10:]]
    for attribute, label in (("EmoAct", "arousal"), ("EmoVal", "valence"), ("EmoDom", "dominance")):
        assert made[attribute].to_numpy() == pytest.approx(1 + 6 * table[label].to_numpy(), abs=1e-5)
    assert not (tmp_path / "out.csv.parts").exists()
    with pytest.raises(SystemExit, match=r"out\.csv"):
        predict("--test", "Test3")
    predict("--test", "Test1", "Test2", "--overwrite")
    assert len(pd.read_csv("submission.csv")) == 4


def test_a_recording_without_a_result_is_refused(corpus, tmp_path):
    names = [row["FileName"] for row in msp_podcast_labels()[10:]]
    (corpus / "Audios" / names[1]).write_bytes(b"RIFF and nothing else")
    with pytest.raises(SystemExit, match=rf"1 of 2 recordings have no result, such as '{names[1]}' \(.*--overwrite"):
        predict("--test", "Test3")
    assert not (tmp_path / "submission.csv").exists() and (tmp_path / "out.csv").exists()
    (corpus / "Audios" / names[1]).unlink()
    with pytest.raises(SystemExit, match=r"1 of 2 recordings of Test3, such as .* are missing; copy them again"):
        predict("--test", "Test3", "--overwrite")


def test_a_refused_submission_keeps_what_is_predicted(corpus, tmp_path, monkeypatch):
    """As reported: all recordings had to be predicted again."""
    monkeypatch.setattr(ShardedPrediction, "rows_per_shard", 1)
    path = corpus / "Audios" / msp_podcast_labels()[-1]["FileName"]
    path.rename(tmp_path / "aside")
    path.write_bytes(b"RIFF and nothing else")
    with pytest.raises(SystemExit, match="1 of 2 recordings have no result"):
        predict("--test", "Test3")
    made, make_rows = [], ShardedPrediction.make_rows
    (tmp_path / "aside").rename(path)
    monkeypatch.setattr(
        ShardedPrediction, "make_rows", lambda self, rows, *more: made.extend(rows) or make_rows(self, rows, *more)
    )
    predict("--test", "Test3", "--overwrite")
    assert made == [1] and len(pd.read_csv("submission.csv")) == 2 and not (tmp_path / "out.csv.parts").exists()


def test_a_recording_that_could_not_be_annotated_is_refused_too(corpus, tmp_path):
    name = msp_podcast_labels()[-1]["FileName"]
    (corpus / "Audios" / name).write_bytes(b"RIFF and nothing else")
    msfser(["annotate", "msp", "--corpus", "msp_podcast", "--output", "annotated", "--recognizer", "none"])
    with pytest.raises(SystemExit, match=rf"1 of 2 recordings have no result, such as '{name}'"):
        predict("--test", "Test3", data="annotated")
    assert not (tmp_path / "submission.csv").exists()


def test_a_model_that_has_not_learned_a_dimension_is_refused(corpus, tmp_path):
    model = tiny_model(semantics=[], unrated=["dominance"])
    model.save_pretrained(tmp_path / "model")
    with pytest.raises(SystemExit, match="model was trained without labels of dominance, which --submission needs"):
        predict("--test", "Test3")
    assert not {*tmp_path.glob("out.csv*")}


def test_the_table_must_have_the_recordings_of_the_part(tmp_path):
    rows = pd.DataFrame({"file": ["x/a.wav", "x/b.wav"], "valence": [1.0, 4.0], "arousal": 7.0, "dominance": 4.0})
    rows.assign(error=None).to_parquet(tmp_path / "a.parquet")
    options = {"predictions": tmp_path / "a.parquet", "label_range": (1, 7), "output": tmp_path / "s.csv"}
    write_submission(recordings=["b.wav", "a.wav"], **options)
    assert pd.read_csv(tmp_path / "s.csv").to_numpy().tolist() == [["a.wav", 7, 1, 4], ["b.wav", 7, 4, 4]]
    for recordings in (["a.wav"], ["a.wav", "b.wav", "c.wav"], ["a.wav", "a.wav"]):
        with pytest.raises(ValueError, match="does not have the recordings of the part once each, such as"):
            write_submission(recordings=recordings, **options)


@pytest.mark.parametrize(
    ("words", "match"),
    [
        (["--corpus", "table"], "needs a part of MSP-Podcast: give --corpus msp_podcast --test Test3"),
        (["--corpus", "iemocap"], "needs a part of MSP-Podcast: give --corpus msp_podcast --test Test3"),
        (["--course"], "leave out --course and --channel each"),
        (["--channel", "each"], "leave out --course and --channel each"),
        (["--submission", "gone/s.csv"], "no folder 'gone' for the submission"),
        (["--submission", "out.csv"], "--submission and -o are both out.csv"),
        (["--submission", "msp/../out.csv"], "--submission and -o are both out.csv"),
        (["--submission", "msp/Labels/labels_consensus.csv", "--overwrite"], "belongs to msp, which is read"),
        (["--test", "Test4"], "has no part Test4; it has Train 4"),
        (["--test", "Test3", "Test4"], "has no part Test4; it has Train 4"),
    ],
)
def test_wrong_options(corpus, words, match):
    with pytest.raises(SystemExit, match=match):
        predict("--test", "Test3", *words)


def test_a_submission_is_of_a_named_part(corpus):
    with pytest.raises(SystemExit, match="needs a part of MSP-Podcast: give --corpus msp_podcast --test Test3"):
        predict()
    with pytest.raises(SystemExit, match="--corpus cannot be 'nowhere'"):
        msfser(["predict", "msp", "--corpus", "nowhere", "-o", "out.csv"])
