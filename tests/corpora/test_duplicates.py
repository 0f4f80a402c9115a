"""One recording in several parts, under other names, and sentences that recur."""

import builtins
import hashlib
import logging
import os
import shutil

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from corpus_trees import write_iemocap
from test_table import fails, flat, make_rows, wav_bytes, with_splits, write_csv

from msfser.corpora import duplicates
from msfser.corpora.iemocap import read_iemocap
from msfser.corpora.splits import warn_of_shared_texts
from msfser.corpora.table import read_table


def copied(folder, rows):
    """One WAV in all three parts, under three names."""
    names = [rows[0]["audio"], "copy.wav", "audio/other name.wav"]
    for name in names[1:]:
        shutil.copy(folder / names[0], folder / name)
    for row, name in zip((rows[4], rows[6]), names[1:], strict=True):
        row["audio"] = name
    return rows


def test_one_recording_under_three_names_in_three_parts_is_refused(tmp_path):
    rows = copied(tmp_path, with_splits(make_rows(tmp_path)))
    message = fails("1 recording is in more than one split, such as ", write_csv(tmp_path / "a.csv", rows))
    for name, split in (("audio/00_0.wav", "train"), ("copy.wav", "validation"), ("audio/other name.wav", "test")):
        assert f"'{tmp_path / name}' ({split})" in message
    # In one part it may be twice.
    rows[4]["split"] = rows[6]["split"] = "train"
    rows[4]["speaker"] = rows[6]["speaker"] = rows[0]["speaker"]
    assert len(flat(read_table(write_csv(tmp_path / "a.csv", rows)))) == len(rows)


@pytest.mark.parametrize("source", ["parquet", "saved", "shards", "memory"])
def test_embedded_recordings_under_other_names_are_refused(tmp_path, source):
    rows = with_splits(make_rows(tmp_path))
    rows = [row | {"audio": {"bytes": wav_bytes(k / 32), "path": f"{k}.wav"}} for k, row in enumerate(rows)]
    rows[4]["audio"]["bytes"] = rows[6]["audio"]["bytes"] = rows[0]["audio"]["bytes"]
    parts = datasets.Dataset.from_list(rows).cast_column("audio", datasets.Audio())
    if source == "parquet":
        path = tmp_path / "a.parquet"
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif source == "shards":
        path = tmp_path / "shards"
        (path / "data").mkdir(parents=True)
        for shard, start in enumerate((0, 3, 6)):
            pq.write_table(pa.Table.from_pylist(rows[start : start + 3]), path / "data" / f"part-{shard:05d}.parquet")
    elif source == "saved":
        path = tmp_path / "saved"
        parts.save_to_disk(path)
    else:
        path = parts
    message = fails("1 recording is in more than one split", path)
    for name in ("recording 1, 0.wav' (train)", "recording 5, 4.wav' (validation)", "recording 7, 6.wav' (test)"):
        assert name in message


def test_parts_that_are_made_here_share_no_recording(tmp_path):
    rows = make_rows(tmp_path)
    shutil.copy(tmp_path / rows[0]["audio"], tmp_path / rows[-1]["audio"])
    shutil.copy(tmp_path / rows[0]["audio"], tmp_path / rows[-3]["audio"])
    fails("1 recording is in more than one split", write_csv(tmp_path / "a.csv", rows))


def test_few_files_are_read(tmp_path, monkeypatch):
    """A corpus of clips of one length: a sample of each tells them apart; other sizes are not opened at all."""
    rows = with_splits(make_rows(tmp_path))
    draw = np.random.default_rng(0)
    for k, row in enumerate(rows):
        size = 60_000 if k in (0, 4, 6) else 70_000 + k
        (tmp_path / row["audio"]).write_bytes(draw.bytes(size))
    opened, hashed, file_digest = [], [], hashlib.file_digest

    def counted(path, *arguments, **options):
        if str(path).endswith(".wav"):
            opened.append(os.path.basename(path))
        return open_file(path, *arguments, **options)

    open_file = builtins.open
    monkeypatch.setattr(builtins, "open", counted)
    monkeypatch.setattr(hashlib, "file_digest", lambda *args: hashed.append(1) or file_digest(*args))
    path = write_csv(tmp_path / "a.csv", rows)
    read_table(path)
    assert sorted(opened) == ["00_0.wav", "02_0.wav", "03_0.wav"] and not hashed
    # Equal in the middle and at the end only: the whole is compared.
    whole = bytearray((tmp_path / rows[0]["audio"]).read_bytes())
    whole[1000] ^= 1
    (tmp_path / rows[6]["audio"]).write_bytes(whole)
    read_table(path)
    assert len(hashed) == 2
    whole[1000] ^= 1
    (tmp_path / rows[6]["audio"]).write_bytes(whole)
    fails("00_0.wav' .train., .*03_0.wav' .test.; keep", path)


@pytest.mark.parametrize("size", [1, 4096, 4097, 8191, 8192, 8193, 50_000])
@pytest.mark.parametrize("embedded", [False, True])
def test_one_byte_makes_another_recording(tmp_path, size, embedded):
    draw = np.random.default_rng(size)
    contents = [bytearray(draw.bytes(size)) for _ in range(4)]
    contents[3] = bytearray(contents[0])
    splits = np.array(["train", "train", "train", "test"], dtype=object)
    paths = [str(tmp_path / f"{k}.wav") for k in range(4)]

    def check():
        if embedded:
            rows = [{"audio": {"bytes": bytes(content), "path": None}} for content in contents]
            duplicates.check_duplicate_contents("a", datasets.Dataset.from_list(rows), splits, False)
        else:
            for path, content in zip(paths, contents, strict=True):
                with open(path, "wb") as file:
                    file.write(content)
            duplicates.check_duplicate_files("a", paths, paths, splits, False)

    with pytest.raises(ValueError, match="1 recording is"):
        check()
    for position in {0, size // 3, size // 2, size - 1}:
        contents[3] = bytearray(contents[0])
        contents[3][position] ^= 1
        if size > 1:
            check()


def test_parts_of_a_corpus_s_owners_are_kept_with_a_warning(tmp_path, caplog):
    corpus = write_iemocap(tmp_path / "iemocap")
    first, second = (next((corpus / f"Session{k}").glob("sentences/wav/*/Ses*.wav")) for k in (1, 5))
    shutil.copy(first, second)
    with caplog.at_level(logging.WARNING):
        parts = read_iemocap(corpus, fold=1)
    assert sum(parts.num_rows.values()) == 40
    assert "1 recording is in more than one split" in caplog.text and "stay as they are" in caplog.text


def test_sentences_that_recur_are_said(tmp_path, caplog):
    """The scripted dialogs of IEMOCAP recur in all sessions."""
    parts = read_iemocap(write_iemocap(tmp_path / "iemocap"), fold=1)
    caplog.clear()
    warn_of_shared_texts("iemocap", parts)
    assert "iemocap: 8 of 8 transcripts of the test part also occur in train, such as 'excuse me'" in caplog.text


@pytest.mark.parametrize(("shared", "is_said"), [(0, False), (1, False), (2, True)])
def test_a_few_sentences_may_recur(caplog, shared, is_said):
    train = [f"a sentence {k}" for k in range(30)]
    test = [f"A  sentence, {k}!" for k in range(shared)] + [f"other {k}" for k in range(18 - shared)] + [None, None]
    parts = {
        "train": datasets.Dataset.from_dict({"transcript": train}),
        "test": datasets.Dataset.from_dict({"transcript": test}),
    }
    warn_of_shared_texts("mine", parts)
    assert bool(caplog.records) == is_said
    caplog.clear()
    warn_of_shared_texts("mine", {"test": parts["test"]})
    warn_of_shared_texts("mine", {name: part.map(lambda row: {"transcript": None}) for name, part in parts.items()})
    assert not caplog.records
