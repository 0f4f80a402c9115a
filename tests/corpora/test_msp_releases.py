"""MSP-Podcast as its releases and the challenge hand it out, and WHiSER."""

import csv
import logging
import shutil

import pytest
from corpus_trees import msp_podcast_labels, write_csv, write_msp_podcast, write_sound, write_whiser

from msfser.annotation.annotate import main as annotate
from msfser.corpora.msp_podcast import read_msp_podcast, read_whiser
from msfser.corpora.registry import read_corpus, read_source


@pytest.fixture
def tree(tmp_path):
    return write_msp_podcast(tmp_path / "msp")


def labels(tree):
    with (tree / "Labels" / "labels_consensus.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def challenge(tree):
    """Train and Development with labels, and the recordings of Test3 without a transcript and a label."""
    rows = labels(tree)
    for row in rows[6:]:
        (tree / "Transcripts" / row["FileName"].replace(".wav", ".txt")).unlink()
    for row in rows[6:10]:
        (tree / "Audios" / row["FileName"]).unlink()
    write_csv(tree / "Labels" / "labels_consensus.csv", rows[:6])
    return [row["FileName"] for row in rows[10:]]


def fails(match, read, folder, **options):
    with pytest.raises(ValueError, match=match) as caught:
        read(folder, **options)
    assert "\n" not in str(caught.value) and str(caught.value).endswith(".")


def texts(result):
    return {name: part["transcript"][:] for name, part in result.items()}


def test_the_older_releases(tree):
    expected = texts(read_msp_podcast(tree))
    rows = labels(tree)
    for row in rows:
        row["Split_Set"] = row["Split_Set"].replace("Development", "Validation")
    (tree / "Labels" / "labels_consensus.csv").unlink()
    write_csv(tree / "Labels" / "labels_concensus.csv", rows)
    (tree / "Audios").rename(tree / "Audio")
    assert texts(read_msp_podcast(tree)) == expected
    rows[3]["Split_Set"] = "Holdout"
    write_csv(tree / "Labels" / "labels_concensus.csv", rows)
    fails("MSP-PODCAST_0003_0008.wav: the Split_Set is 'Holdout', which is none of Train", read_msp_podcast, tree)


@pytest.mark.parametrize("above", ["", "MSP-Podcast-1.12"])
def test_nested_folders(tree, tmp_path, above):
    expected = texts(read_msp_podcast(tree))
    for name in ("Labels", "Audios", "Transcripts"):
        (tree / name).rename(tmp_path / "moved")
        (tree / above / name).mkdir(parents=True)
        (tmp_path / "moved").rename(tree / above / name / name)
    inner = tree / above / "Audios" / "Audios"
    (inner / "0001").mkdir()
    (inner / "MSP-PODCAST_0000_0008.wav").rename(inner / "0001" / "MSP-PODCAST_0000_0008.wav")
    (inner / "._MSP-PODCAST_0000_0008.wav").write_bytes(b"\0")
    result = read_msp_podcast(tree)
    assert texts(result) == expected
    assert result["train"]["audio"][0]["path"] == str(inner / "0001" / "MSP-PODCAST_0000_0008.wav")


def test_marks_and_speakers(tree):
    folder = tree / "Transcripts"
    (folder / "MSP-PODCAST_0000_0008.txt").write_text("(laughs) Well [noise] <unk> I (um) see <eps>.")
    (folder / "MSP-PODCAST_0001_0008.txt").write_text("(laughs)")
    (folder / "MSP-PODCAST_0002_0008.txt").write_text("a (b")
    rows = labels(tree)
    for row, speaker in zip(rows, ("30.0", "Unknown", "007", ""), strict=False):
        row["SpkrID"] = speaker
    write_csv(tree / "Labels" / "labels_consensus.csv", rows)
    train = read_msp_podcast(tree)["train"]
    assert train["transcript"][:3] == ["Well I see .", None, "a (b"]
    assert train["speaker"][:] == ["30", None, "007", None]


def test_the_challenge_release(tree, caplog):
    names = challenge(tree)
    fails(
        r"it has Train 4; Development 2.*rows of Test1.* --test Development\.$",
        read_msp_podcast,
        tree,
    )
    with caplog.at_level(logging.WARNING):
        result = read_msp_podcast(tree, test="Development")
    assert result.num_rows == {"train": 4, "validation": 2, "test": 2}
    assert result["test"].to_list() == result["validation"].to_list()
    assert "the test part is the development part, by which the best epoch is chosen" in caplog.text
    # Nothing says yet which recordings are Test3.
    fails("has no labels of Test3, which are not public", read_msp_podcast, tree, test="Test3")
    fails("the rows of Test3", read_msp_podcast, tree, test="Test3", require_labels=False, needed=["test"])
    for path, text in (
        ("Partitions.txt", "Train; MSP-PODCAST_0000_0008.wav\n" + "".join(f"Test3; {name}\n" for name in names)),
        ("Labels/Test3_files.txt", "".join(f"{name}\n" for name in names)),
        ("test3.csv", "FileName\n" + "".join(f"{name}\n" for name in names)),
    ):
        (tree / path).write_text(text)
        fails(
            "no labels of Test3, which are not public; take Development for --test",
            read_msp_podcast,
            tree,
            test="Test3",
        )
        read = read_msp_podcast(tree, test="Test3", require_labels=False, needed=["test"])
        assert list(read) == ["test"] and read["test"]["valence"][:] == [None, None]
        assert [row["path"].rpartition("/")[2] for row in read["test"]["audio"]] == names
        rows = read_source("msp_podcast", str(tree))
        assert rows.table["split"].to_pylist() == ["train"] * 4 + ["validation"] * 2 + ["Test3"] * 2
        only = read_source("msp_podcast", str(tree), parts=["Test3"])
        assert [name.rpartition("/")[2] for name in only.recording_names()] == names
        (tree / path).unlink()
    with pytest.raises(ValueError, match="has no part Test1; it has Train 4; Development 2"):
        read_source("msp_podcast", str(tree), parts=["Test1"])


def test_the_recordings_of_test3_in_a_folder_of_their_name(tree):
    names = challenge(tree)
    (tree / "Audios" / "Test3").mkdir()
    for name in names:
        (tree / "Audios" / name).rename(tree / "Audios" / "Test3" / name)
    read = read_msp_podcast(tree, test="Test3", require_labels=False, needed=["test"])
    assert [row["path"] for row in read["test"]["audio"]] == [str(tree / "Audios" / "Test3" / name) for name in names]


def test_several_test_sets(tree):
    result = read_msp_podcast(tree, test=["Test2", "Test1"])
    assert result.num_rows == {"train": 4, "validation": 2, "test": 2, "Test1": 2}
    assert texts(result)["test"] == ["line 8", "line 9"] and texts(result)["Test1"] == ["line 6", "line 7"]
    fails("--test cannot be Test1 Test1", read_msp_podcast, tree, test=["Test1", "Test1"])
    assert read_corpus("msp_podcast", str(tree), test=["Test1", "Test2"]).num_rows["Test2"] == 2


def test_only_what_is_needed_must_be_there(tree):
    for number in range(6):
        (tree / "Audios" / f"MSP-PODCAST_{number:04d}_0008.wav").unlink()
    fails("6 of 8 files in Audios", read_msp_podcast, tree)
    assert read_msp_podcast(tree, needed=["test"]).num_rows == {"test": 2}


def test_recordings_that_are_not_there_are_not_annotated(tree, caplog):
    (tree / "Audios" / "MSP-PODCAST_0001_0008.wav").unlink()
    assert len(read_source("msp_podcast", str(tree)).files) == len(msp_podcast_labels()) - 1
    assert "left out 1 of 12 rows whose recordings are not there" in caplog.text
    # Of a part that is named, all are needed.
    with pytest.raises(
        ValueError, match=r"1 of 4 recordings of Train, such as 'MSP-PODCAST_0001_0008.wav' are missing"
    ):
        read_source("msp_podcast", str(tree), parts=["Train"])
    assert len(read_source("msp_podcast", str(tree), parts=["Test1", "Test2"]).files) == 4


def annotated(tree):
    folder = tree.with_name("annotated")
    annotate([str(tree), "--corpus", "msp_podcast", "--output", str(folder), "--recognizer", "none"])
    return folder


def keep(tree, *parts):
    write_csv(tree / "Labels" / "labels_consensus.csv", [row for row in labels(tree) if row["Split_Set"] in parts])
    kept = {row["FileName"] for row in labels(tree)}
    for path in (tree / "Audios").iterdir():
        if path.name not in kept:
            path.unlink()


@pytest.mark.parametrize("prepared", [lambda tree: tree, annotated], ids=["as_distributed", "annotated"])
def test_every_part_that_is_named_must_be_there(tree, prepared):
    keep(tree, "Train", "Development", "Test1")
    folder = str(prepared(tree))
    for parts in (["Test1", "Test2"], ["Test2"], ["Development", "Test2", "Test1"]):
        with pytest.raises(ValueError, match="has no part Test2; it has Train 4; Development 2; Test1 2"):
            read_source("msp_podcast", folder, parts=parts)
    rows = read_source("msp_podcast", folder, parts=["test1", "Development"])
    assert rows.table["split"].to_pylist() == ["validation"] * 2 + ["Test1"] * 2
    assert set(read_source("msp_podcast", folder, parts=["train"]).table["split"].to_pylist()) == {"train"}


@pytest.mark.parametrize("speaker", ["Unknown", "7"])
@pytest.mark.parametrize("prepared", [lambda tree: tree, annotated], ids=["as_distributed", "annotated"])
def test_the_training_part_alone_is_not_divided(tree, prepared, speaker):
    keep(tree, "Train")
    rows = [row | {"SpkrID": f"{speaker}{k if speaker == '7' else ''}"} for k, row in enumerate(labels(tree))]
    write_csv(tree / "Labels" / "labels_consensus.csv", rows)
    folder = str(prepared(tree))
    for parts in ((), ["Train"]):
        assert read_source("msp_podcast", folder, parts=parts).table["split"].to_pylist() == ["train"] * 4
    assert read_msp_podcast(folder, needed=["train"]).num_rows == {"train": 4}


@pytest.mark.parametrize("prepared", [lambda tree: tree, annotated], ids=["as_distributed", "annotated"])
def test_a_validation_part_is_not_taken_from_the_training_part(tree, prepared):
    keep(tree, "Train", "Test1")
    folder = str(prepared(tree))
    assert read_source("msp_podcast", folder).table["split"].to_pylist() == ["train"] * 4 + ["Test1"] * 2
    assert read_msp_podcast(folder, needed=["train", "test"]).num_rows == {"train": 4, "test": 2}


def test_an_annotated_challenge_release(tree, caplog):
    names = challenge(tree)
    (tree / "test3.csv").write_text("FileName\n" + "".join(f"{name}\n" for name in names))
    folder = annotated(tree)
    fails(
        r"\(it has Train 4; Development 2; Test3 2 without labels\): what was annotated has no Test1; annotate the "
        r"whole corpus, or test on what is there: --test Development\.$",
        read_msp_podcast,
        folder,
    )
    with caplog.at_level(logging.WARNING):
        result = read_msp_podcast(folder, test="Development")
    assert result.num_rows == {"train": 4, "validation": 2, "test": 2}
    assert "the test part is the development part, by which the best epoch is chosen" in caplog.text
    assert read_corpus("msp_podcast", str(folder), test=["Development"], pooled=True).num_rows == {"all": 6}
    # Of what was annotated, too, only what is needed must be there.
    for row in labels(tree)[:6]:
        (tree / "Audios" / row["FileName"]).unlink()
    read = read_msp_podcast(folder, test="Test3", require_labels=False, needed=["test"])
    assert read.num_rows == {"test": 2}
    fails("audio files", read_msp_podcast, folder, test="Development")


def test_a_named_part_has_the_rows_that_could_not_be_annotated(tree):
    (tree / "Audios" / "MSP-PODCAST_0011_0008.wav").write_bytes(b"RIFF and nothing else")
    folder = str(annotated(tree))
    assert len(read_source("msp_podcast", folder).files) == 11
    names = read_source("msp_podcast", folder, parts=["Test3"]).recording_names()
    assert [name.rpartition("/")[2] for name in names] == ["MSP-PODCAST_0010_0008.wav", "MSP-PODCAST_0011_0008.wav"]


def test_whiser(tmp_path, caplog):
    folder = write_whiser(tmp_path / "whiser")
    result = read_whiser(folder)
    assert {*result} == {"train", "validation", "test"} and sum(result.num_rows.values()) == 6
    assert {speaker for part in result.values() for speaker in part["speaker"]} == {None}
    assert "the parts were drawn by file: a speaker can be in several parts" in caplog.text
    (folder / "wavs" / "whiser_3.wav").unlink()
    fails("1 of 6 recordings, which their owners distribute apart from the labels", read_whiser, folder)
    assert read_whiser(write_whiser(tmp_path / "again")).num_rows == result.num_rows


def test_copies_are_refused_in_parts_that_are_drawn(tmp_path):
    """They were only a warning, as in the parts of a corpus's owners."""
    folder = write_whiser(tmp_path / "whiser")
    for number in range(1, 6):
        shutil.copy(folder / "wavs" / "whiser_0.wav", folder / "wavs" / f"whiser_{number}.wav")
    fails("1 recording is in more than one split", read_whiser, folder)


def test_whiser_as_a_table(tmp_path):
    folder = write_whiser(tmp_path / "whiser")
    write_sound(folder / "wavs" / "other.wav", 0.9)
    options = {"label_range": (1, 7), "audio_folder": folder / "wavs"}
    path = str(folder / "Labels" / "labels_consensus.csv")
    with pytest.raises(ValueError, match=r"6 rows have no speaker .* or --split_by file where nobody knows"):
        read_corpus("table", path, **options)
    assert sum(read_corpus("table", path, split_by="file", **options).num_rows.values()) == 6
