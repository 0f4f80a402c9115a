"""The groupings of a corpus: columns of a table, categories of a named corpus, and those of several corpora."""

import datasets
import pytest
from corpus_trees import (
    msp_podcast_labels,
    write_csv,
    write_iemocap,
    write_msp_podcast,
    write_msp_podcast_labels,
    write_sound,
    write_whiser,
)

from msfser import LABELS
from msfser.annotation.annotate import main as annotate
from msfser.corpora.registry import read_source
from msfser.evaluation.groups import groups_of
from msfser.training.settings import RunSettings, read_data


def groupings(run, part="train"):
    """The groupings of the rows of a part, without that of speakers."""
    rows = read_data(run)[part]
    groups = groups_of(run, [audio["path"] for audio in rows["audio"]], rows["speaker"][:])
    return {name: [None if value != value else value for value in of_rows] for name, of_rows in groups.items()} | {
        "speaker": None
    }


def write_msp(folder):
    """MSP-Podcast whose even rows are of women and neutral, but for one unknown."""
    write_msp_podcast(folder)
    rows = [
        row | {"Gender": ("Female", "Male")[k % 2], "EmoClass": "NH"[k % 2]}
        for k, row in enumerate(msp_podcast_labels())
    ]
    rows[2]["Gender"] = "Unknown"
    for row in rows:
        row["EmoAct"], row["EmoVal"], row["EmoDom"] = "1", "4", "7"
    write_msp_podcast_labels(folder, rows)
    for number, path in enumerate(sorted((folder / "Audios").iterdir())):
        write_sound(path, 0.001 + number / 64, samples=8_000)
    return folder


@pytest.mark.parametrize("place", ["as it is", "annotated", "annotated, as a table"])
def test_msp_podcast_keeps_gender_and_emotion(tmp_path, place):
    folder = write_msp(tmp_path / "msp")
    if place != "as it is":
        annotate([str(folder), "--corpus", "msp_podcast", "--recognizer", "none", "--output", str(tmp_path / "out")])
        folder = tmp_path / "out"
    is_table = place.endswith("table")
    options = {"corpus": "table", "test": ["Test1"], "allow_speaker_overlap": True} if is_table else {}
    run = RunSettings(**{"data": str(folder), "corpus": "msp_podcast", **options})
    found = groupings(run)
    assert found["gender"] == ["Female", "Male", None, "Male"] and found["emotion"] == ["N", "H", "N", "H"]
    table = read_source(run.corpus, run.data).table
    assert table["gender"].to_pylist()[:4] == ["Female", "Male", None, "Male"]


def test_recordings_that_only_a_list_names_have_no_gender(tmp_path):
    folder = write_msp(tmp_path / "msp")
    rows = msp_podcast_labels()
    write_msp_podcast_labels(folder, rows[:10])
    (folder / "test3.txt").write_text("".join(f"{row['FileName']}\n" for row in rows[10:]))
    table = read_source("msp_podcast", str(folder), parts=["Test3"]).table
    assert table["gender"].to_pylist() == [None, None]


def test_whiser_and_iemocap(tmp_path):
    write_whiser(tmp_path / "whiser")
    path = tmp_path / "whiser" / "Labels" / "labels_consensus.csv"
    path.write_text(path.read_text().replace("Unknown,Unknown", "Unknown,Male").replace("Male", "Female", 3))
    found = groupings(RunSettings(data=str(tmp_path / "whiser"), corpus="whiser"))
    assert {*found} == {"speaker", "gender"} and {*found["gender"]} == {"Female", "Male"}
    run = RunSettings(data=str(write_iemocap(tmp_path / "iemocap")), corpus="iemocap", fold=1)
    rows = read_data(run)["test"]
    names = [speaker[-1] for speaker in rows["speaker"]]
    assert groupings(run, "test")["gender"] == [{"F": "Female", "M": "Male"}[name] for name in names]


def embedded(names, genders):
    rows = [
        {
            "audio": {"bytes": name.encode(), "path": name},
            "gender": gender,
            "speaker": str(k),
            **dict.fromkeys(LABELS, 0.5),
        }
        for k, (name, gender) in enumerate(zip(names, genders, strict=True))
    ]
    return datasets.Dataset.from_list(rows).cast_column("audio", datasets.Audio())


def test_embedded_recordings_go_by_their_names(tmp_path):
    genders = ["F", "M", "F", "M", "F", "M"]
    embedded([f"{k}.wav" for k in range(6)], genders).to_parquet(tmp_path / "train-00000-of-00001.parquet")
    run = RunSettings(data=str(tmp_path))
    names = [audio["path"] for audio in read_data(run)["train"]["audio"]]
    assert len(names) == 4 and groupings(run)["gender"] == [genders[int(name[0])] for name in names]


def test_embedded_recordings_of_one_name_or_none_are_in_no_group(tmp_path):
    table = embedded(["a.wav", "a.wav", "b.wav", "c.wav", "d.wav", "e.wav"], ["F", "M", "F", "M", "F", "M"])
    table.to_parquet(tmp_path / "a.parquet")
    groups = groups_of(RunSettings(data=str(tmp_path / "a.parquet")), ["a.wav", "b.wav", "c.wav", None], list("wxyz"))
    assert groups["gender"].isna().tolist() == [True, False, False, True]


def test_several_corpora(tmp_path):
    msp, folder = write_msp(tmp_path / "msp"), tmp_path / "mine"
    rows = []
    for k, part in enumerate(("train", "train", "dev", "test")):
        write_sound(folder / f"{k}.wav", 0.5 + k / 64)
        row = {"file_name": f"{k}.wav", "speaker": part, "split": part, "gender": "Other", "room": "ab"[k % 2]}
        rows.append(row | dict.fromkeys(LABELS, 0.5))
    write_csv(folder / "metadata.csv", rows)
    run = RunSettings(data=str(folder), more_data=[f"{{data: {msp}, corpus: msp_podcast}}"])
    found = groupings(run)
    assert found["gender"] == ["Other", "Other", "Female", "Male", None, "Male"]
    assert found["room"] == ["a", "b", None, None, None, None]
