"""Several corpora as one."""

import logging
import shutil

import datasets
import numpy as np
import pytest
from corpus_trees import write_csv, write_msp_podcast, write_sound, write_whiser

from msfser.corpora import duplicates
from msfser.corpora.mixture import Member, member_of, members_of, read_mixture
from msfser.corpora.registry import read_corpus
from msfser.corpora.schema import FEATURES
from msfser.evaluation.results import CROSS_VALIDATED, FOLD, INTERVALS


def write_corpus(folder, seed, per_part=(6, 2, 2), labels=("valence", "arousal", "dominance"), low=0.0, high=1.0):
    rows, number = [], 0
    for split, count in zip(("train", "validation", "test"), per_part, strict=True):
        for _ in range(count):
            write_sound(folder / f"{number}.wav", 0.01 + seed / 8 + number / 256)
            row = {"audio": f"{number}.wav", "transcript": f"line {number}", "description": "calm", "split": split}
            row |= dict.fromkeys(labels, low + (high - low) * number / 10)
            rows.append(row | {"speaker": split})
            number += 1
    write_csv(folder / "metadata.csv", rows)
    return str(folder)


@pytest.fixture
def three(tmp_path):
    write_corpus(tmp_path / "a", 0)
    write_corpus(tmp_path / "b", 1, (4, 1, 3), ("valence", "arousal"), -1, 1)
    first = Member("a", str(tmp_path / "a"))
    two = {"label_range": {"valence": (-1, 1), "arousal": (-1, 1)}}
    return [first, Member("b", str(tmp_path / "b"), options=two, weight=2.5, texts=("transcript",))]


def test_parts_of_all_and_the_test_part_of_each(three):
    found = read_mixture(three)
    assert found.num_rows == {"train": 6 + 10, "validation": 3, "test": 5, "a": 2, "b": 3}
    assert all(part.features == FEATURES for part in found.values())
    assert found["test"].to_list() == found["a"].to_list() + found["b"].to_list()
    train = found["train"]
    assert set(train["speaker"]) == {"a/train", "b/train"}
    assert None not in train["dominance"][:6] and set(train["dominance"][6:]) == {None}
    assert train["valence"][6:10] == pytest.approx([0, 0.1, 0.2, 0.3])
    assert set(train["description"][:6]) == {"calm"} and set(train["description"][6:]) == {None}
    assert set(train["transcript"][6:]) == {f"line {k}" for k in range(4)}
    counts = np.unique([audio["path"] for audio in train["audio"][6:]], return_counts=True)[1]
    assert sorted(counts) == [2, 2, 3, 3]
    again = read_mixture(three)
    assert again["train"].to_list() == train.to_list()


def test_what_is_in_two_corpora(three, tmp_path):
    (tmp_path / "b" / "0.wav").write_bytes((tmp_path / "a" / "9.wav").read_bytes())
    with pytest.raises(ValueError, match=r"a and b: 1 recording is in more than one split, such as .*9.wav"):
        read_mixture(three)
    with pytest.raises(ValueError, match="two corpora are called 'a'; give each a name"):
        read_mixture([three[0], three[0]])


def test_each_recording_is_read_once(three, tmp_path, monkeypatch):
    """As reported: the parts that a corpus does not train on were read for each other corpus."""
    sampled = []
    sample = duplicates._sample_of_file
    write_corpus(tmp_path / "c", 2)
    write_corpus(tmp_path / "d", 3)
    members = [*three, *(Member(name, str(tmp_path / name)) for name in ("c", "d"))]
    whole = [read_corpus("table", member.data, **member.options) for member in members]
    monkeypatch.setattr("msfser.corpora.mixture.read_corpus", lambda *_, **__: whole.pop(0))
    monkeypatch.setattr(duplicates, "_sample_of_file", lambda path: sampled.append(path) or sample(path))
    assert read_mixture(members).num_rows["train"] == 6 + 10 + 6 + 6
    assert sampled and len({*sampled}) == len(sampled)


def embedded(folder):
    """The corpus of a folder with its recordings in a Parquet file."""
    whole = datasets.load_dataset("csv", data_files=str(folder / "metadata.csv"), split="train")
    sounds = [{"bytes": (folder / name).read_bytes(), "path": f"other_{name}"} for name in whole["audio"]]
    whole = whole.remove_columns("audio").add_column("audio", sounds).cast_column("audio", datasets.Audio())
    whole.to_parquet(folder / "all.parquet")
    return str(folder / "all.parquet")


@pytest.mark.parametrize("both", [False, True])
def test_an_embedded_recording_that_is_in_two_corpora(three, tmp_path, both):
    (tmp_path / "b" / "0.wav").write_bytes((tmp_path / "a" / "9.wav").read_bytes())
    first = Member("a", embedded(tmp_path / "a")) if both else three[0]
    second = Member("b", embedded(tmp_path / "b"), options=three[1].options)
    with pytest.raises(ValueError, match=r"a and b: 1 recording is in more than one split, such as .*other_0"):
        read_mixture([first, second])
    write_sound(tmp_path / "b" / "0.wav", 0.9)
    second = Member("b", embedded(tmp_path / "b"), options=three[1].options)
    assert read_mixture([first, second]).num_rows["train"] == 10


def test_what_is_in_several_official_parts_of_one_corpus(three, tmp_path, caplog):
    """Its reader only warns, and so does the mixture; in another corpus it is refused."""
    audio = write_msp_podcast(tmp_path / "msp") / "Audios"
    names = sorted(path.name for path in audio.iterdir())
    shutil.copy(audio / names[0], audio / names[6])  # Train and Test1
    msp = Member("MSP", str(tmp_path / "msp"), "msp_podcast")
    with caplog.at_level(logging.WARNING):
        assert read_mixture([three[0], msp]).num_rows["MSP"] == 2
    assert "1 recording is in more than one split" in caplog.text and "stay as they are" in caplog.text
    shutil.copy(audio / names[0], tmp_path / "a" / "9.wav")
    with pytest.raises(ValueError, match=r"a and MSP: 1 recording is in more than one split"):
        read_mixture([three[0], msp])


def test_every_test_part_is_kept(three, tmp_path):
    write_msp_podcast(tmp_path / "msp")
    tests = {"test": ["Test2", "Test1", "Development"]}
    msp = Member("MSP", str(tmp_path / "msp"), "msp_podcast", tests)
    found = read_mixture([three[0], msp])
    assert found.num_rows == {
        **{"train": 10, "validation": 4, "test": 4},
        **{"a": 2, "MSP": 2, "MSP_Test1": 2, "MSP_Development": 2},
    }
    assert found["MSP"]["transcript"][:] == ["line 8", "line 9"] and found["test"]["transcript"][2:] == [
        "line 8",
        "line 9",
    ]
    assert found["MSP_Test1"]["transcript"][:] == ["line 6", "line 7"]
    assert found["MSP_Test1"]["speaker"][:] == ["MSP/6", None]
    with pytest.raises(ValueError, match="two corpora are called 'MSP_Test1'; give each a name"):
        read_mixture([Member("MSP_Test1", three[0].data), msp])
    # A further test part, too, may not be what another corpus trains on.
    shutil.copy(tmp_path / "a" / "0.wav", tmp_path / "msp" / "Audios" / "MSP-PODCAST_0006_0008.wav")
    with pytest.raises(ValueError, match=r"1 recording is in more than one split, such as .*0006"):
        read_mixture([three[0], msp])


def test_each_needs_its_parts(three, tmp_path):
    write_corpus(tmp_path / "c", 2, (3, 2, 0))
    with pytest.raises(ValueError, match="c has no test part; each of several corpora needs one"):
        read_mixture([*three, Member("c", str(tmp_path / "c"))])


def test_members_of_the_command_line(tmp_path):
    first = Member("a", "my/a", "table", {"label_range": (1, 7)}, 1.0, None)
    assert member_of("my/b/metadata.csv", first) == Member("b", "my/b/metadata.csv", "table", {"label_range": (1, 7)})
    assert member_of("my/c.parquet", first).name == "c"
    written = "{data: my/omg, label_range: [valence=-1:1, arousal=0:1], weight: 0.5, texts: [transcript], name: OMG}"
    ranges = {"valence": (-1.0, 1.0), "arousal": (0.0, 1.0)}
    assert member_of(written, first) == Member("OMG", "my/omg", "table", {"label_range": ranges}, 0.5, ("transcript",))
    assert member_of("{data: w, corpus: whiser}", first) == Member("w", "w", "whiser")
    one = "{data: m, corpus: msp_podcast, test: Development, texts: transcript}"
    assert member_of(one, first) == member_of(one.replace("Development", "[Development]"), first)
    assert member_of(one, first) == Member("m", "m", "msp_podcast", {"test": ["Development"]}, 1.0, ("transcript",))
    for wrong, match in (
        ("{corpus: whiser}", "it names no data"),
        ("{data: a, factor: 2}", "it has factor, and may have data"),
        ("{data: a, weight: -1}", "the weight is -1 and not above 0"),
        ("{data: a, corpus: nowhere}", "the corpus 'nowhere' is none of table"),
        ("{data: a, texts: [song]}", "its texts are none of"),
        ("{data: a, texts: song}", "its texts are none of"),
        ("{data: a, label_range: [1]}", "--label_range cannot be 1"),
        ("{data: a", "expected"),
    ):
        with pytest.raises(ValueError, match=match) as caught:
            member_of(wrong, first)
        assert "\n" not in str(caught.value) and str(caught.value).endswith('weight: 0.5}".')


@pytest.mark.parametrize("name", ["en/podcast", *(start.rstrip("/") for start in (CROSS_VALIDATED, FOLD, INTERVALS))])
def test_a_name_that_the_results_cannot_have_is_refused(name):
    first = Member("a", "my/a")
    with pytest.raises(ValueError, match=f"cannot be called '{name}', which the results cannot tell") as caught:
        member_of(f"{{data: my/b, name: {name}}}", first)
    assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match=f"cannot be called '{name}'"):
        Member(name, "my/a")
    assert member_of("my/b/folds", first).name == "folds"


@pytest.mark.parametrize(
    ("data", "name"),
    [
        ("my/MSP-Podcast-1.12", "MSP-Podcast-1.12"),
        ("my/MSP-Podcast-1.12/", "MSP-Podcast-1.12"),
        ("my/release.1.11/metadata.csv", "release.1.11"),
        ("my/metadata", "my"),
        ("owner/corpus-v1.5", "corpus-v1.5"),
        ("my/table.v2.PARQUET", "table.v2"),
        ("metadata.jsonl", "metadata"),
        (".", "."),
    ],
)
def test_only_the_suffix_of_a_table_is_cut_from_a_name(data, name):
    first, second = members_of(data, [f"{{data: {data}, name: b}}"], "whiser", {"label_range": (1, 7)})
    assert (first.name, first.options, second.name) == (name, {}, "b")


def test_a_named_corpus_beside_a_table(three, tmp_path):
    folder = write_whiser(tmp_path / "w")
    found = read_mixture([three[0], Member("WHiSER", str(folder), "whiser")])
    assert len(found["WHiSER"]) and found["WHiSER"]["speaker"][0] is None
