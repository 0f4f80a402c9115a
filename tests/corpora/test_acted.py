"""Reading RAVDESS and EmoDB by the names of their files, with weak labels."""

import pytest
from soundfile import write
from tiny import noise

from msfser.corpora.acted import COLUMNS, read_acted
from msfser.corpora.weak_labels import NORMS, weak_labels
from msfser.evaluation.acted import EMODB_EMOTIONS, acted_clips, pairs_of_emotions, strong_counterparts

RAVDESS = ["03-01-05-01-02-01-07", "03-01-05-02-02-01-07", "03-01-03-01-02-01-07", "03-01-02-01-02-01-07"]
EMODB = ["03a01Wa", "03a01Fa", "16b10Lb"]


@pytest.fixture
def corpora(tmp_path):
    for name, folder in [(n, "ravdess/Actor_07") for n in RAVDESS] + [(n, "emodb/wav") for n in EMODB]:
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        write(tmp_path / folder / f"{name}.wav", noise(0.1), 16_000)
    (tmp_path / "ravdess" / "metadata.csv").write_text("file_name\n")
    write(tmp_path / "ravdess" / "02-01-05-01-02-01-07.wav", noise(0.1), 16_000)  # RAVDESS with pictures
    return tmp_path


def test_names_tell_speaker_emotion_and_take(corpora, caplog):
    rows = read_acted(corpora)
    assert "left out 1 recordings that are no clips" in caplog.text and "'02-01-05-01-02-01-07.wav'" in caplog.text
    assert [row["corpus"] for row in rows] == ["ravdess"] * 4 + ["emodb"] * 3
    row = rows[3]
    assert {name: row[name] for name in ("speaker", *COLUMNS)} == {
        "speaker": "ravdess-07",
        "corpus": "ravdess",
        "emotion": "anger",
        "intensity": "strong",
        "sentence": "02-01",
    }
    assert row["audio"]["path"].endswith("Actor_07/03-01-05-02-02-01-07.wav")
    last = rows[6]
    assert (last["speaker"], last["emotion"], last["intensity"]) == ("emodb-16", "boredom", None)
    assert row["transcript"] is None


def test_labels_are_the_norms_on_the_scale_from_0_to_1(corpora):
    rows = read_acted(corpora)
    strong, normal = rows[3], rows[2]
    assert [strong[name] for name in ("valence", "arousal", "dominance")] == pytest.approx(
        [(1 - 0.51) / 2, (1 + 0.59) / 2, (1 + 0.25) / 2]
    )
    assert normal["arousal"] - 0.5 == pytest.approx(0.6 * (strong["arousal"] - 0.5))
    assert all(abs(value) <= 1 for norms in NORMS.values() for value in norms)
    assert weak_labels("neutral", "normal") == (0, 0, 0)


def test_the_norms_are_the_published_ratings():
    assert NORMS == {
        "anger": (-0.51, 0.59, 0.25),
        "boredom": (-0.65, -0.62, -0.33),
        "calm": (0.56, -0.31, 0),
        "disgust": (-0.60, 0.35, 0.11),
        "fear": (-0.64, 0.60, -0.43),
        "happiness": (0.76, 0.48, 0.35),
        "neutral": (0, 0, 0),
        "sadness": (-0.63, -0.27, -0.33),
        "surprise": (0.40, 0.67, -0.13),
    }


def test_what_is_not_there_or_there_twice_is_said(tmp_path, corpora):
    with pytest.raises(ValueError, match="no such folder"):
        read_acted(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="no clip of RAVDESS"):
        read_acted(tmp_path / "empty")
    write(corpora / "03a01Wa.flac", noise(0.1), 16_000)
    with pytest.raises(ValueError, match="is there twice"):
        read_acted(corpora)


def test_matched_pairs(corpora):
    rows = acted_clips(corpora)
    assert set(rows["emotion"]) <= {"anger", "calm", "happiness", *EMODB_EMOTIONS}
    table = rows.select_columns([*COLUMNS, "speaker"]).to_pandas()
    # Rows: calm, happiness, anger, strong anger of RAVDESS; happiness and anger of EmoDB.
    assert strong_counterparts(table).tolist() == [-1, -1, 3, -1, -1, -1]
    assert sorted(pairs_of_emotions(table, ("anger",), ("happiness",)).tolist()) == [[2, 1], [5, 4]]
