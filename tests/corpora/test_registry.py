"""What each corpus of the registry must satisfy."""

import importlib.util
import os

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from corpus_trees import TREES, write_sound, write_table

from msfser import LABELS
from msfser.configuration_msfser import TENSOR_NAMES
from msfser.corpora import registry
from msfser.corpora.probe import corpus as probe
from msfser.corpora.registry import CORPORA, OPTIONS, read_corpus, read_source
from msfser.corpora.schema import FEATURES, SPLITS

VALUES = {
    "label_range": (-1, 1),
    "audio_folder": "sounds",
    "columns": {"speaker": "actor"},
    "allow_speaker_overlap": True,
    "speaker_from": r"\d+",
    "split_by": "file",
    "test": ["Test1"],
    "fold": 1,
}
# The official parts of MSP-Podcast share speakers.
SHARED_SPEAKERS = ("msp_podcast",)


@pytest.fixture(params=CORPORA)
def corpus(request, monkeypatch):
    if request.param == "probe" and importlib.util.find_spec("espeakng_loader") is None:
        pytest.skip("espeakng-loader is not installed")
    monkeypatch.setattr(probe, "SIZES", {"train": 16, "validation": 8, "test": 8})
    return CORPORA[request.param]


@pytest.fixture
def folder(corpus, tmp_path):
    assert corpus.name in TREES, "write a small copy of this corpus in corpus_trees.py"
    return TREES[corpus.name](tmp_path / "corpus")


def folds(corpus):
    return [{"fold": fold} for fold in range(1, corpus.folds + 1)] or [{}]


def fails(match, read, *args, **options):
    with pytest.raises(ValueError, match=match) as caught:
        read(*args, **options)
    assert "\n" not in str(caught.value) and str(caught.value).endswith(".")


def test_parts_rows_and_labels_follow_the_schema(corpus, folder):
    for options in folds(corpus):
        result = read_corpus(corpus.name, str(folder), **options)
        assert list(result) == list(SPLITS) and all(map(len, result.values()))
        for part in result.values():
            assert part.features == FEATURES and part.column_names == list(FEATURES)
        rows = [row for part in result.values() for row in part]
        labels = np.array([[row[label] for label in LABELS] for row in rows], float)
        assert np.isfinite(labels).all() and labels.min() >= 0 and labels.max() <= 1
        if not corpus.synthetic:
            assert labels.min() == 0 and labels.max() == 1, "the ends of the scale of the source become 0 and 1"
        for row in rows:
            assert all(row[text] is None or row[text].strip() for text in TENSOR_NAMES)
            assert all(0 <= word["start"] <= word["end"] and word["word"] for word in row["words"] or [])
            assert row["audio"] is not None or row["transcript"] is not None
            if row["audio"] is not None and row["audio"]["bytes"] is None:
                assert os.path.isabs(row["audio"]["path"]) and os.path.isfile(row["audio"]["path"])
        files = [row["audio"]["path"] for row in rows if row["audio"] is not None]
        assert len(set(files)) == len(files)
        again = read_corpus(corpus.name, str(folder), **options)
        assert all(again[split].to_list() == part.to_list() for split, part in result.items())


def test_no_speaker_is_in_two_parts(corpus, folder):
    for options in folds(corpus):
        parts = read_corpus(corpus.name, str(folder), **options)
        speakers = [set(part["speaker"]) - {None} for part in parts.values()]
        if corpus.name not in SHARED_SPEAKERS:
            assert sum(map(len, speakers)) == len(set().union(*speakers))


def test_each_fold_tests_on_other_rows(corpus, folder):
    if corpus.folds:
        tests = [
            audio["path"]
            for options in folds(corpus)
            for audio in read_corpus(corpus.name, str(folder), **options)["test"]["audio"]
        ]
        rows = read_corpus(corpus.name, str(folder), fold=1).num_rows
        assert len(set(tests)) == len(tests) == sum(rows.values())


def test_all_rows_as_one_part(corpus, folder):
    options = folds(corpus)[0]
    parts = read_corpus(corpus.name, str(folder), **options)
    whole = read_corpus(corpus.name, str(folder), pooled=True, **options)
    assert list(whole) == ["all"] and whole["all"].features == FEATURES
    rows = [str(row) for part in parts.values() for row in part]
    assert sorted(map(str, whole["all"])) == sorted(rows)


def test_options_of_other_corpora_are_refused(corpus, tmp_path):
    assert {*corpus.accepts} <= {*OPTIONS, "require_labels", "needed", "pooled", "text_languages"}
    assert ("fold" in corpus.accepts) == bool(corpus.folds)
    for option in OPTIONS:
        if option not in corpus.accepts:
            given = {"fold": 1} if corpus.folds else {}
            fails(
                f"{option}.* {corpus.name}",
                read_corpus,
                corpus.name,
                str(tmp_path),
                **given,
                **{option: VALUES[option]},
            )
    if corpus.folds:
        fails(rf"{corpus.name} needs a fold .*--fold 1 \(to {corpus.folds}\)", read_corpus, corpus.name, str(tmp_path))


def test_a_folder_that_is_not_the_corpus(corpus, tmp_path):
    options = folds(corpus)[0]
    if not corpus.synthetic:
        fails("gone: there is no such", read_corpus, corpus.name, str(tmp_path / "gone"), **options)
    (tmp_path / "notes.txt").write_text("x")
    fails(str(tmp_path), read_corpus, corpus.name, str(tmp_path), **options)


def test_rows_to_annotate(corpus, folder):
    parts = read_corpus(corpus.name, str(folder), **folds(corpus)[0])
    if all(audio is None for part in parts.values() for audio in part["audio"]):
        fails("this corpus has no recordings", read_source, corpus.name, str(folder))
        return
    rows = read_source(corpus.name, str(folder))
    files = sorted(audio["path"] for part in parts.values() for audio in part["audio"])
    if corpus.read_parts is None:
        assert sorted(rows.files) == files
    else:
        assert {*rows.files} > {*files} and len({*rows.files}) == len(rows.files)
    names = rows.table["audio"].to_pylist()
    assert [os.path.join(rows.audio_folder, name) for name in names] == rows.files
    if corpus.name == "table":
        assert rows.table["room"].to_pylist() == [str(k) for k in range(9)]
    elif corpus.folds:
        assert set(rows.table["split"].to_pylist()) == {None}
    else:
        splits = rows.table["split"].to_pylist()
        if corpus.read_parts is not None:
            splits = ["test" if split == "Test1" else split for split in splits]
        assert {split: splits.count(split) for split in parts} == parts.num_rows


def test_title_and_license_are_given(corpus):
    assert corpus.title and corpus.license and CORPORA[corpus.name] is corpus
    assert corpus.name == "table" or (corpus.label_range and corpus.language and corpus.license != "not stated")


def test_what_cards_say_of_the_corpora():
    stated = {c.name: (c.title, c.license, c.label_range, c.language) for c in CORPORA.values()}
    agreement = "the license agreement of its owners"
    assert stated == {
        "table": ("a custom table", "not stated", None, None),
        "msp_podcast": ("MSP-Podcast", agreement, (1, 7), "en"),
        "whiser": ("WHiSER", "non-commercial; the recordings are their owners'", (1, 7), "en"),
        "iemocap": ("IEMOCAP", agreement, (1, 5), "en"),
        "emobank": ("EmoBank", "cc-by-sa-4.0", (1, 5), "en"),
        "probe": ("probe corpus", "apache-2.0", (0, 1), "en"),
    }


def test_options_of_a_table(tmp_path):
    write_table(tmp_path / "sounds")
    rows = [{"clip": f"{k}.wav", "who": str(k % 3), "valence": -1.0 + k / 4} for k in range(9)]
    rows = [row | {"arousal": 1, "dominance": 0, "split": SPLITS[k // 3]} for k, row in enumerate(rows)]
    pa.parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    options = {"columns": {"audio": "clip", "speaker": "who"}, "audio_folder": tmp_path / "sounds"}
    options["label_range"] = [-1, 1]
    fails("3 speakers are in more than one split", read_corpus, "table", tmp_path / "a.parquet", **options)
    result = read_corpus("table", tmp_path / "a.parquet", allow_speaker_overlap=True, **options)
    assert result["train"]["valence"][:] == [0.0, 0.125, 0.25] and result["test"]["dominance"][:] == [0.5] * 3
    unlabeled = [{name: row[name] for name in ("clip", "who", "split")} for row in rows]
    pa.parquet.write_table(pa.Table.from_pylist(unlabeled), tmp_path / "b.parquet")
    options |= {"allow_speaker_overlap": True, "require_labels": False}
    assert read_corpus("table", tmp_path / "b.parquet", **options)["test"]["valence"][:] == [None] * 3


@pytest.mark.parametrize("name", ["table", "probe"])
def test_the_data_probe_are_made(name, tmp_path, monkeypatch):
    made = []
    monkeypatch.setattr(registry, "make_probe", lambda folder: made.append(folder) or write_table(tmp_path / "data"))
    monkeypatch.setattr(probe, "make_probe", lambda folder: folder)
    result = read_corpus(name, "probe")
    assert made == ["data/probe"] and sum(result.num_rows.values()) == 9
    assert len(read_source(name, "probe").files) == 9 and made == ["data/probe"] * 2


def test_a_folder_without_a_table_is_annotated_whole(tmp_path):
    for name in ("b.wav", "a/c.wav"):
        write_sound(tmp_path / name)
    rows = read_source("table", str(tmp_path))
    assert rows.table["audio"].to_pylist() == ["a/c.wav", "b.wav"]
    assert set(rows.table["split"].to_pylist()) == {None}
    fails("no table in this folder", read_source, "table", str(tmp_path), columns={"speaker": "x"})
