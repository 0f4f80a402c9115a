"""GoEmotions: both layouts, weak labels of groups, masks, and refusals."""

import shutil

import numpy as np
import pandas as pd
import pytest

from msfser import LABELS
from msfser.corpora.goemotions import EMOTIONS, GROUPS, find_goemotions, read_goemotions
from msfser.corpora.weak_labels import NORMS

ROWS = [
    ("[NAME] is here, see r/music and https://a.b/c /s", "neutral", "train"),
    ("What joy!", "joy|sadness", "train"),
    ("What joy!", "joy", "dev"),
    ("[RELIGION]", "neutral", "dev"),
    ("Whom do you fear?", "fear", "dev"),
    ("Oh.", "realization", "test"),
]


@pytest.fixture
def joined(tmp_path):
    tmp_path = tmp_path / "goemotions"
    tmp_path.mkdir()
    pd.DataFrame(ROWS, columns=["text", "labels", "split"]).to_csv(tmp_path / "goemotions.csv", index=False)
    return tmp_path


@pytest.fixture
def distributed(tmp_path):
    tmp_path = tmp_path / "goemotions"
    tmp_path.mkdir()
    names = [*EMOTIONS]
    (tmp_path / "emotions.txt").write_text("\n".join(names))
    for part in ("train", "dev", "test"):
        lines = [
            f"{text}\t{','.join(str(names.index(name)) for name in labels.split('|'))}\tid{number}"
            for number, (text, labels, split) in enumerate(ROWS)
            if split == part
        ]
        (tmp_path / f"{part}.tsv").write_text("\n".join(lines) + "\n")
    return tmp_path


@pytest.mark.parametrize("layout", ["joined", "distributed"])
def test_comments_become_transcripts_with_weak_labels(layout, request):
    folder = request.getfixturevalue(layout)
    parts = read_goemotions(folder)
    assert {name: part["transcript"][:] for name, part in parts.items()} == {
        "train": ["is here, see and", "What joy!"],
        "validation": ["Whom do you fear?"],
        "test": ["Oh."],
    }
    both = (np.array(NORMS["happiness"]) + NORMS["sadness"]) / 4 + 0.5
    np.testing.assert_allclose([parts["train"][1][name] for name in LABELS], both, atol=1e-6)
    assert [parts["train"][0][name] for name in LABELS] == [0.5, 0.5, 0.5]
    assert find_goemotions(folder) == folder and find_goemotions(folder.parent) == folder
    shutil.copytree(folder, folder / "some" / "copy")
    assert find_goemotions(folder / "some") == folder / "some" / "copy"
    assert find_goemotions(folder.parent) == folder  # the one that is least deep
    (folder / "some").rename(folder / ".some")
    assert find_goemotions(folder / ".some").name == "copy"


def test_a_line_ends_at_its_end(distributed):
    """Comments were cut at other separators of lines."""
    text = "Oh,\x0cwhat\u2028joy\x85 here!"
    (distributed / "train.tsv").write_bytes(f"{text}\t17\tid0\r\n\r\nNo.\t27\tid1\r\n".encode())
    assert read_goemotions(distributed)["train"]["transcript"][:] == ["Oh, what joy here!", "No."]


def test_each_category_has_one_group_with_a_norm():
    assert len(EMOTIONS) == 28 == sum(map(len, GROUPS.values()))
    assert GROUPS.keys() <= NORMS.keys()


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (lambda folder: (folder / "dev.tsv").unlink(), r"GoEmotions is not whole; missing are the file dev\.tsv"),
        (
            lambda folder: (folder / "emotions.txt").write_text("anger\n"),
            r"is no category of GoEmotions; copy it again",
        ),
        (
            lambda folder: (folder / "dev.tsv").write_text("Oh.\t0\tid\n\nOh no\n"),
            r"dev\.tsv, line 3: this is no comment with numbers of labels and an id",
        ),
        (lambda folder: (folder / "dev.tsv").write_text("Oh.\tjoy\tid\n"), r"dev\.tsv, line 1: this is no comment"),
        (lambda folder: (folder / "dev.tsv").write_text("\n"), r"missing are the rows of dev\.tsv"),
    ],
)
def test_what_is_missing_is_named(distributed, spoil, sentence):
    spoil(distributed)
    with pytest.raises(ValueError, match=sentence):
        read_goemotions(distributed)


def test_there_is_none(tmp_path):
    assert find_goemotions(tmp_path) is None
    with pytest.raises(ValueError, match="there is no such folder"):
        read_goemotions(tmp_path / "x")
