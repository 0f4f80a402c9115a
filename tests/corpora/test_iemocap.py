import logging
import os
import shutil

import numpy as np
import pytest
import soundfile
from corpus_trees import iemocap_utterances, write_iemocap

from msfser import LABELS
from msfser.annotation.annotate import main as annotate
from msfser.corpora.iemocap import read_iemocap
from msfser.corpora.schema import FEATURES, SPLITS

WDSEG = """\t SFrm  EFrm    SegAScr Word
\t    0    28     -90000 <s>
\t   29    56    -800000 EXCUSE
\t   57    63     -40000 <sil>
\t   64    70     -40000 ++LAUGHTER++
\t   71    98    -700000 ME(2)
\t   99   120     -90000 </s>
 Total score:    -1760000
"""


@pytest.fixture
def tree(tmp_path):
    return write_iemocap(tmp_path / "iemocap")


def write_alignment(tree, name, content):
    path = tree / f"Session{name[4]}" / "sentences" / "ForcedAlignment" / name.rpartition("_")[0] / f"{name}.wdseg"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)


def change_text(tree, name, text):
    path = tree / f"Session{name[4]}" / "dialog" / "transcriptions" / f"{name.rpartition('_')[0]}.txt"
    path.write_bytes(path.read_bytes().replace(f"{name} [006.2901-008.2357]: Excuse me.".encode(), text))


def row_of(result, name):
    rows = [row for part in result.values() for row in part if row["audio"]["path"].endswith(f"/{name}.wav")]
    assert len(rows) == 1
    return rows[0]


def fails(match, folder, fold=1):
    with pytest.raises(ValueError, match=match) as caught:
        read_iemocap(folder, fold=fold)
    message = str(caught.value)
    assert "\n" not in message and message.endswith(".")
    return message


@pytest.mark.parametrize("fold", range(1, 6))
def test_a_fold_holds_one_session_out(tree, fold):
    result = read_iemocap(tree, fold=fold)
    assert list(result) == list(SPLITS)
    assert all(part.features == FEATURES and part.column_names == list(FEATURES) for part in result.values())
    assert {name: len(part) for name, part in result.items()} == {"train": 24, "validation": 8, "test": 8}
    speakers = {name: set(part["speaker"]) for name, part in result.items()}
    assert speakers["test"] == {f"Ses0{fold}F", f"Ses0{fold}M"}
    assert speakers["validation"] == {f"Ses0{fold % 5 + 1}F", f"Ses0{fold % 5 + 1}M"}
    assert len(speakers["train"] | speakers["validation"] | speakers["test"]) == 10


def test_rows_are_in_the_schema(tree):
    name = "Ses02M_script01_1b_F001"
    row = row_of(read_iemocap(str(tree), fold=2), name)
    # The name of the dialog says who wore the markers, the letter after it who speaks.
    assert row["speaker"] == "Ses02F"
    path = tree / "Session2" / "sentences" / "wav" / "Ses02M_script01_1b" / f"{name}.wav"
    assert row["audio"] == {"bytes": None, "path": str(path)}
    assert row["transcript"] == "Excuse me." and row["words"] is None
    assert [row[label] for label in LABELS] == [0.25, 0.5, 0.25]


def test_a_relative_folder_gives_absolute_paths(tree, monkeypatch):
    monkeypatch.chdir(tree.parent)
    assert read_iemocap("iemocap", fold=1)["test"][0]["audio"]["path"].startswith(str(tree))


def test_transcripts_lose_their_marks(tree):
    names = [name for _, name, _ in iemocap_utterances(1)]
    for name, text in (
        (names[0], b"[LAUGHTER] Excuse  [BREATHING]me."),
        (names[1], b"[LAUGHTER]"),
        (names[2], "Caf\xe9.".encode("cp1252")),
    ):
        change_text(tree, name, name.encode() + b" [006.2901-008.2357]: " + text + b"\r")
    result = read_iemocap(tree, fold=1)
    assert [row_of(result, name)["transcript"] for name in names[:3]] == ["Excuse me.", None, "Caf\xe9."]


def test_word_times(tree, caplog):
    names = [name for _, name, _ in iemocap_utterances(3)]
    write_alignment(tree, names[0], WDSEG)
    write_alignment(tree, names[1], WDSEG)
    change_text(tree, names[1], f"{names[1]} [006.2901-008.2357]: Excuse me, please.".encode())
    write_alignment(tree, names[2], "".join(line for line in WDSEG.splitlines(True) if "<" in line or "+" in line))
    write_alignment(tree, names[3], "")
    with caplog.at_level(logging.WARNING):
        result = read_iemocap(tree, fold=1)
    words = [row_of(result, name)["words"] for name in names[:4]]
    # Frames of 10 ms; the last is part of the word.
    assert words[0] == [{"word": "Excuse", "start": 0.29, "end": 0.57}, {"word": "me.", "start": 0.71, "end": 0.99}]
    assert [word["word"] for word in words[1]] == ["excuse", "me"]
    assert words[2:] == [[], None]
    assert "37 of 40 utterances have no word times" in caplog.text


def test_no_alignment_is_no_warning(tree, caplog):
    with caplog.at_level(logging.WARNING):
        read_iemocap(tree, fold=1)
    assert not caplog.records


def replace_label(tree, new):
    path = tree / "Session4" / "dialog" / "EmoEvaluation" / "Ses04F_impro01.txt"
    path.write_text(path.read_text().replace("[1.0000, 3.0000, 4.0000]", new, 1))


def test_labels_half_a_step_out_of_the_scale_are_moved(tree, caplog):
    replace_label(tree, "[5.5000, 3.0000, 0.5000]")
    with caplog.at_level(logging.WARNING):
        row = row_of(read_iemocap(tree, fold=1), "Ses04F_impro01_F000")
    assert [row[label] for label in LABELS] == [1.0, 0.5, 0.0]
    assert "moved labels of 1 utterance onto" in caplog.text


def test_labels_far_out_of_the_scale_are_refused(tree):
    replace_label(tree, "[6.0000, 3.0000, 4.0000]")
    fails("Ses04F_impro01_F000: valence is 6.0, outside the label_range 1 to 5", tree)


def test_an_unreadable_label_line_is_named(tree):
    replace_label(tree, "[1.0000, 3.0000]")
    fails("Session4/dialog/EmoEvaluation/Ses04F_impro01.txt, line 3: .*copy the file again", tree)


@pytest.mark.parametrize("fold", [0, 6, None])
def test_there_are_five_folds(tree, fold):
    fails("fold is .*; IEMOCAP has 1 to 5", tree, fold)


def test_one_error_lists_all_that_is_missing(tree):
    shutil.rmtree(tree / "Session5")
    shutil.rmtree(tree / "Session2" / "dialog" / "transcriptions")
    (tree / "Session3" / "dialog" / "EmoEvaluation" / "Ses03F_impro01.txt").unlink()
    (tree / "Session4" / "dialog" / "EmoEvaluation" / "Ses04F_impro01.txt").write_text("")
    shutil.rmtree(tree / "Session1" / "sentences" / "wav" / "Ses01F_impro01")
    (tree / "Session1" / "sentences" / "wav" / "Ses01M_script01_1b" / "Ses01M_script01_1b_F000.wav").unlink()
    message = fails("not whole", tree)
    for part in (
        "the folder Session5;",
        "the folder Session2/dialog/transcriptions",
        "1 of 2 dialogs with labels in Session3, such as 'Ses03F_impro01'",
        "1 of 2 dialogs with labels in Session4",
        "8 of 24 transcripts of utterances, such as 'Ses02F_impro01_F000'",
        "5 of 24 recordings of utterances, such as 'Ses01F_impro01_F000.wav'",
    ):
        assert part in message, part


def test_an_empty_folder_and_none(tmp_path):
    message = fails("not whole", tmp_path)
    assert all(f"the folder Session{session}" in message for session in range(1, 6))
    (tmp_path / "Session1").mkdir()
    assert "the folder Session1/sentences/wav" in fails("not whole", tmp_path)
    fails("there is no such folder; name the one that holds Session1", tmp_path / "gone")


def test_recordings_without_labels_are_told(tree, caplog):
    path = tree / "Session4" / "dialog" / "EmoEvaluation" / "Ses04F_impro01.txt"
    lines = path.read_text().splitlines(True)
    path.write_text("".join(lines[:5]))
    with caplog.at_level(logging.WARNING):
        result = read_iemocap(tree, fold=1)
    assert sum(map(len, result.values())) == 37
    assert "3 recordings have no labels and are left out, such as 'Ses04F_impro01_F001.wav'" in caplog.text


def test_what_annotate_made_keeps_the_folds(tree, tmp_path):
    annotated = tmp_path / "annotated"
    annotate([str(tree), "--corpus", "iemocap", "--output", str(annotated), "--recognizer", "none"])
    for fold in (1, 4):
        given, made = read_iemocap(tree, fold=fold), read_iemocap(annotated, fold=fold)
        assert list(made) == list(given)
        for split, part in given.items():
            assert sorted(made[split]["speaker"]) == sorted(part["speaker"])
            names = [
                sorted(os.path.realpath(audio["path"]) for audio in rows["audio"]) for rows in (made[split], part)
            ]
            assert names[0] == names[1]
            assert sorted(made[split]["valence"]) == pytest.approx(sorted(part["valence"]))


def test_what_annotate_made_is_divided_by_sessions_alone(tree, tmp_path, caplog):
    """Nothing is drawn before, which would refuse a recording of two speakers in some draws and say so in all."""
    recordings = sorted(tree.glob("Session*/sentences/wav/*/Ses*.wav"))
    for copy in recordings[8::8]:
        copy.write_bytes(recordings[0].read_bytes())
    annotated = tmp_path / "annotated"
    annotate([str(tree), "--corpus", "iemocap", "--output", str(annotated), "--recognizer", "none"])
    caplog.clear()
    with caplog.at_level("INFO"):
        read_iemocap(annotated, fold=1)
    assert len(caplog.messages) == 1 and "1 recording is in more than one split, such as" in caplog.text
    assert caplog.messages[0].endswith("the parts are those of the corpus's owners and stay as they are")


def test_shards_of_another_corpus_have_no_folds(tmp_path):
    rows = ["audio,valence,arousal,dominance,speaker,split"]
    for level, split in enumerate(("train", "validation", "test")):
        soundfile.write(tmp_path / f"{split}.wav", np.full(16, level / 8, np.float32), 16_000)
        rows.append(f"{split}.wav,0.5,0.5,0.5,{split},{split}")
    (tmp_path / "metadata.csv").write_text("\n".join(rows))
    annotated = tmp_path / "annotated"
    annotate([str(tmp_path / "metadata.csv"), "--output", str(annotated), "--recognizer", "none"])
    with pytest.raises(ValueError, match="annotate IEMOCAP itself"):
        read_iemocap(annotated, fold=1)
