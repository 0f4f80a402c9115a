import logging
import shutil

import pytest
from corpus_trees import msp_podcast_labels, write_msp_podcast, write_msp_podcast_labels

from msfser import LABELS
from msfser.annotation.annotate import main as annotate
from msfser.corpora.msp_podcast import read_msp_podcast
from msfser.corpora.schema import FEATURES, SPLITS

TEXTGRID = """File type = "ooTextFile"
Object class = "TextGrid"

xmin = 0.0
xmax = 1.5
tiers? <exists>
size = 2
item []:
    item [1]:
        class = "IntervalTier"
        name = "words"
        xmin = 0.0
        xmax = 1.5
        intervals: size = 4
        intervals [1]:
            xmin = 0.0
            xmax = 0.25
            text = ""
        intervals [2]:
            xmin = 0.25
            xmax = 0.5
            text = "well"
        intervals [3]:
            xmin = 0.5
            xmax = 1
            text = "<unk>"
        intervals [4]:
            xmin = 1
            xmax = 1.5
            text = "said ""so"" then"
    item [2]:
        class = "IntervalTier"
        name = "phones"
        xmin = 0.0
        xmax = 1.5
        intervals: size = 1
        intervals [1]:
            xmin = 0.0
            xmax = 1.5
            text = "spn"
"""


@pytest.fixture
def tree(tmp_path):
    return write_msp_podcast(tmp_path / "msp")


def fails(match, folder, **options):
    with pytest.raises(ValueError, match=match) as caught:
        read_msp_podcast(folder, **options)
    message = str(caught.value)
    assert "\n" not in message and message.endswith(".")
    return message


def test_the_official_parts_in_the_schema(tree):
    result = read_msp_podcast(tree)
    assert {name: len(part) for name, part in result.items()} == {"train": 4, "validation": 2, "test": 2}
    assert list(result) == list(SPLITS)
    assert all(part.features == FEATURES and part.column_names == list(FEATURES) for part in result.values())
    row = result["test"][0]
    assert row["audio"] == {"bytes": None, "path": str(tree / "Audios" / "MSP-PODCAST_0006_0008.wav")}
    assert row["transcript"] == "line 6" and row["speaker"] == "6" and row["words"] is None
    # EmoAct 1, EmoVal 4, EmoDom 7 of 1..7.
    assert [row[label] for label in LABELS] == [0.5, 0.0, 1.0]
    assert [row["speaker"] for part in result.values() for row in part][1::2] == [None] * 4


def test_another_test_set(tree):
    assert read_msp_podcast(str(tree), test="Test2")["test"]["transcript"][:] == ["line 8", "line 9"]
    fails("Test3, which are not public; take Test1 or Test2", tree, test="Test3")
    write_msp_podcast_labels(tree, [row for row in msp_podcast_labels() if row["Split_Set"] != "Test3"])
    fails("has no labels of Test3", tree, test="Test3")
    fails("test is 'test'; MSP-Podcast has Test1, Test2, Test3, Development", tree, test="test")


def test_test3_with_labels_is_read(tree):
    write_msp_podcast_labels(
        tree, [row | {"EmoAct": "2", "EmoVal": "3", "EmoDom": "4"} for row in msp_podcast_labels()]
    )
    assert read_msp_podcast(tree, test="Test3")["test"]["transcript"][:] == ["line 10", "line 11"]


def test_transcripts(tree):
    texts = sorted((tree / "Transcripts").iterdir())
    texts[0].write_text("\ufeff  Two\nlines [laughter] here ", encoding="utf-8")
    texts[1].write_text("\n")
    texts[2].write_bytes("caf\xe9".encode("cp1252"))
    assert read_msp_podcast(tree)["train"]["transcript"][:] == ["Two lines here", None, "caf\xe9", "line 3"]


def test_word_times(tree, caplog):
    grids = tree / "ForceAligned"
    grids.mkdir()
    names = [f"MSP-PODCAST_{k:04d}_0008" for k in range(8)]
    (grids / f"{names[0]}.TextGrid").write_text(TEXTGRID)
    (tree / "Transcripts" / f"{names[0]}.txt").write_text("Well, Kowalczyk -- said.")
    (grids / f"{names[1]}.TextGrid").write_text(TEXTGRID)
    # The same, without the words that only decorate; and what is no alignment.
    short = [line.split("=")[-1].strip() for line in TEXTGRID.replace("tiers? ", "= ").splitlines() if "=" in line]
    (grids / f"{names[2]}.TextGrid").write_text("\n".join(short))
    (grids / f"{names[3]}.TextGrid").write_text("")
    (grids / f"{names[4]}.TextGrid").write_text(TEXTGRID[:500])
    (grids / f"{names[5]}.TextGrid").write_text(TEXTGRID.replace('"well"', '""').replace('"said ""so"" then"', '""'))
    with caplog.at_level(logging.WARNING):
        result = read_msp_podcast(tree)
    times = [("Well,", 0.25, 0.5), ("Kowalczyk", 0.5, 1.0), ("said.", 1.0, 1.5)]
    assert [tuple(word.values()) for word in result["train"]["words"][0]] == times
    aligned = [("well", 0.25, 0.5), ('said "so" then', 1.0, 1.5)]
    assert [tuple(word.values()) for word in result["train"]["words"][1]] == aligned
    assert result["train"]["words"][2] == result["train"]["words"][1]
    assert result["train"]["words"][3] is None and result["validation"]["words"][:] == [None, []]
    assert "4 of 8 utterances have no word times" in caplog.text


def test_one_error_lists_all_that_is_missing(tree):
    for k in range(5):
        (tree / "Audios" / f"MSP-PODCAST_{k:04d}_0008.wav").unlink()
    write_msp_podcast_labels(tree, [row for row in msp_podcast_labels() if row["Split_Set"] != "Test1"])
    message = fails("is not whole", tree)
    assert "the rows of Test1 in Labels/labels_consensus.csv" in message
    assert "it has Train 4; Development 2; Test2 2; Test3 2 without labels" in message
    assert "or test on what is there: --test Test2." in message
    assert "5 of 6 files in Audios" in message and message.count("MSP-PODCAST_") == 3


def test_missing_transcripts_are_counted_and_not_demanded(tree, caplog):
    (tree / "Transcripts" / "MSP-PODCAST_0003_0008.txt").unlink()
    assert read_msp_podcast(tree)["train"]["transcript"][:] == ["line 0", "line 1", "line 2", None]
    assert "1 of 8 utterances have no transcript" in caplog.text
    shutil.rmtree(tree / "Transcripts")
    caplog.clear()
    result = read_msp_podcast(tree)
    assert result.num_rows == {"train": 4, "validation": 2, "test": 2}
    assert {text for part in result.values() for text in part["transcript"]} == {None}
    assert "8 of 8 utterances have no transcript" in caplog.text


def test_an_empty_folder_and_none(tmp_path):
    message = fails("not whole", tmp_path)
    for name in ("the file Labels/labels_consensus.csv", "the folder Audios"):
        assert name in message
    fails("there is no such folder", tmp_path / "gone")


def test_missing_columns(tree):
    write_msp_podcast_labels(
        tree, [{k: v for k, v in row.items() if k not in ("EmoVal", "SpkrID")} for row in msp_podcast_labels()]
    )
    fails("the columns EmoVal, SpkrID of Labels/labels_consensus.csv", tree)


@pytest.mark.parametrize(("value", "match"), [("", "blank"), ("0.5", "outside the label_range 1 to 7")])
def test_wrong_labels_name_the_file(tree, value, match):
    rows = msp_podcast_labels()
    rows[1]["EmoAct"] = value
    write_msp_podcast_labels(tree, rows)
    fails(f"labels_consensus.csv, MSP-PODCAST_0001_0008.wav: arousal is .*{match}", tree)


def test_the_official_parts_may_share_a_speaker(tree):
    rows = msp_podcast_labels()
    rows[6]["SpkrID"] = rows[0]["SpkrID"]
    write_msp_podcast_labels(tree, rows)
    result = read_msp_podcast(tree)
    assert result["train"]["speaker"][0] == result["test"]["speaker"][0] == "0"


def test_the_recordings_may_be_on_another_disk(tree, tmp_path):
    (tree / "Audios").rename(tmp_path / "disk")
    (tree / "Audios").symlink_to(tmp_path / "disk")
    assert len(read_msp_podcast(tree)["train"]) == 4
    (tmp_path / "secret.wav").write_bytes((tmp_path / "disk" / "MSP-PODCAST_0000_0008.wav").read_bytes())
    (tmp_path / "disk" / "MSP-PODCAST_0000_0008.wav").unlink()
    (tmp_path / "disk" / "MSP-PODCAST_0000_0008.wav").symlink_to(tmp_path / "secret.wav")
    fails("leads out of the data folder", tree)


def test_what_annotate_made_keeps_the_parts(tree, tmp_path):
    annotated = tmp_path / "annotated"
    annotate([str(tree), "--corpus", "msp_podcast", "--output", str(annotated), "--recognizer", "none"])
    given, made = read_msp_podcast(tree), read_msp_podcast(annotated)
    assert list(made) == list(given)
    for split, part in given.items():
        assert made[split]["transcript"] == part["transcript"]
        assert made[split]["valence"] == pytest.approx(part["valence"])
    # The other test sets were annotated too.
    assert read_msp_podcast(annotated, test="Test2")["test"]["transcript"][:] == ["line 8", "line 9"]
    several = read_msp_podcast(annotated, test=["Test2", "Development"])
    assert several.num_rows == {"train": 4, "validation": 2, "test": 2, "Development": 2}
    fails("part-00000.parquet, row 11: valence is blank", annotated, test="Test3")
    assert read_msp_podcast(annotated, test="Test3", require_labels=False)["test"]["valence"][:] == [None, None]
