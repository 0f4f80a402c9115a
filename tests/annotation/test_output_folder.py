"""Nothing that a run of `annotate` did not make is overwritten, whatever the output folder holds."""

import multiprocessing
import os
import shutil
import time

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile
from corpus_trees import write_iemocap
from tones import (
    contents_of,
    fails,
    journal_fixture,  # noqa: F401 - used by every test
    make_corpus,
    rows_of,
    run,
    state_of,
    tone_bytes,
    write_csv,
    write_tone,
)

from msfser import LABELS
from msfser.annotation import annotate
from msfser.sharding import sharded_table
from msfser.sharding.output_folder import only_run

OPTIONS = ("--recognizer", "none", "--describer", "none")


def refused(out, *arguments, match):
    """The command is refused with a sentence, and the folder stays as it is."""
    before = state_of(out)
    message = fails(*arguments, "--output", out, *OPTIONS)
    assert match in message and "name another folder" in message, message
    assert state_of(out) == before
    return message


def test_a_folder_of_recordings_does_not_replace_the_annotation_of_their_table(tmp_path):
    """As reported: the labels of 120 recordings became NaN without a word."""
    table = make_corpus(tmp_path / "my", 120)
    out = tmp_path / "my" / "annotated"
    rows = run(table, out, *OPTIONS)
    assert [row["valence"] for row in rows] == ["1.5"] * 120
    message = refused(out, tmp_path / "my" / "audio", match="contains the results of another source")
    assert str(table) in message
    assert rows_of(out) == rows


@pytest.mark.parametrize("finished", [True, False])
def test_another_source_is_refused(tmp_path, monkeypatch, finished):
    table, out = make_corpus(tmp_path / "my"), tmp_path / "out"
    run(table, out, *OPTIONS)
    if not finished:  # as after a kill
        (out / "data" / "part-00001.parquet").unlink()
        note = out / "annotation.json"
        note.write_text(note.read_text().replace('"complete": true', '"complete": false'))
    corpus = write_iemocap(tmp_path / "iemocap")
    other = shutil.copy(table, tmp_path / "my" / "other.csv")
    shutil.copytree(tmp_path / "my" / "audio", tmp_path / "louder" / "audio")
    datasets.Dataset.from_list([{"audio": "audio/0.wav"}]).save_to_disk(tmp_path / "my" / "saved")
    for arguments in (
        (other,),
        (tmp_path / "my" / "audio",),
        (table, "--audio_folder", tmp_path / "louder"),
        (corpus, "--corpus", "iemocap"),
        (tmp_path / "my" / "saved", "--audio_folder", tmp_path / "my"),
    ):
        refused(out, *arguments, match="contains the results of another source")
    # The same table, however it is named.
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link").symlink_to(tmp_path / "my")
    for same in ("my/metadata.csv", "my", "link"):
        assert len(run(same, out, *OPTIONS)) == 8


def test_a_corpus_is_not_the_recordings_of_its_folder(tmp_path):
    corpus, out = write_iemocap(tmp_path / "iemocap"), tmp_path / "out"
    run(corpus, out, *OPTIONS, "--corpus", "iemocap")
    refused(out, corpus, match="contains the results of another source")


def test_a_table_that_was_replaced_is_another_source(tmp_path):
    table, out = make_corpus(tmp_path), tmp_path / "out"
    run(table, out, *OPTIONS)
    for i in range(3):
        write_tone(tmp_path / "new" / f"{i}.wav", i)
    write_csv(table, [{"audio": f"new/{i}.wav", **dict.fromkeys(LABELS, 4)} for i in range(3)])
    refused(out, table, match="contains the results of other recordings, such as 'audio/0.wav'")
    write_csv(table, [{"audio": f"audio/{i}.wav", "arousal": 4, "dominance": 4} for i in range(8)])
    refused(out, table, match="contains labels of valence")
    write_csv(table, [{"audio": f"audio/{i}.wav", **dict.fromkeys(LABELS, 4)} for i in (7, 3)])
    assert [row["audio"] for row in run(table, out, *OPTIONS)] == ["audio/7.wav", "audio/3.wav"]


def test_embedded_recordings_that_were_replaced_are_another_source(tmp_path):
    table, out = tmp_path / "a.parquet", tmp_path / "out"

    def write(names):
        rows = [{"audio": {"bytes": tone_bytes(i), "path": name}} for i, name in enumerate(names)]
        pq.write_table(pa.Table.from_pylist(rows), table)

    write(["a.wav", "b.wav"])
    run(table, out, *OPTIONS)
    write(["c.wav", "d.wav"])
    refused(out, table, match="other recordings, such as 'a.wav'")
    write(["b.wav", "e.wav", "f.wav", "g.wav"])
    assert len(run(table, out, *OPTIONS)) == 4


def test_a_folder_of_an_earlier_version_is_left_alone(tmp_path):
    table, out = make_corpus(tmp_path), tmp_path / "out"
    run(table, out, *OPTIONS)
    note = out / "annotation.json"
    note.write_text("\n".join(line for line in note.read_text().splitlines() if '"source"' not in line))
    refused(out, table, match="contains the results of another source")


def test_files_among_the_shards_that_no_run_made_stay(tmp_path):
    table, out = make_corpus(tmp_path), tmp_path / "out"
    run(table, out, *OPTIONS)
    mine = {
        "data/part-time work.txt": b"mine",
        "data/notes.parquet": b"mine",
        "annotation.json.bak": b"mine",
        "part-00009.parquet": b"mine",
    }
    mine |= {"data/part-00000.parquet.unfinished": b"mine", "data/part-00009.csv": b"mine"}
    for name, content in mine.items():
        (out / name).write_bytes(content)
    assert len(run_of_shards(table, out)) == 8
    write_csv(table, [{"audio": f"audio/{i}.wav", **dict.fromkeys(LABELS, 4)} for i in range(2)])
    assert len(run_of_shards(table, out)) == 2
    assert mine.items() <= contents_of(out).items()
    for name in ("part-00000.parquet", "part-00007.parquet", "part-mine.parquet"):
        path = out / "data" / name
        before = path.read_bytes() if path.exists() else None
        pq.write_table(pa.table({"precious": [1, 2]}), path)
        refused(out, table, match=f"{name}' was not written by this command and would be replaced")
        path.write_text("precious")
        refused(out, table, match="was not written by this command and would be replaced")
        path.unlink()
        if before is not None:
            path.write_bytes(before)
    run_of_shards(table, out)


def run_of_shards(table, out):
    """Runs where other files are in `data` too."""
    annotate.main([str(table), "--output", str(out), *OPTIONS])
    return [row for shard in sorted(out.glob("data/part-?????.parquet")) for row in pq.read_table(shard).to_pylist()]


def test_two_runs_at_once(tmp_path):
    table, out = make_corpus(tmp_path), tmp_path / "out"
    out.mkdir()
    with only_run(out):
        assert "another run is writing to" in fails(table, "--output", out, *OPTIONS)
        assert [path.name for path in out.iterdir()] == ["annotation.json.lock"]
    assert len(run(table, out, *OPTIONS)) == 8
    assert sorted(path.name for path in out.iterdir()) == ["annotation.json", "data"]


def test_a_refused_command_leaves_a_shorter_table_its_shards(tmp_path):
    table, out = make_corpus(tmp_path), tmp_path / "out"
    run(table, out, "--language", "en")
    before = state_of(out)
    rows = [{"audio": f"audio/{i}.wav", "language": "xx", **dict.fromkeys(LABELS, 4)} for i in range(2)]
    assert "not a language that Whisper knows" in fails(write_csv(table, rows), "--output", out, "--language", "en")
    assert state_of(out) == before


def test_a_shard_that_changes_during_the_run_is_noticed(tmp_path, monkeypatch):
    table, out = make_corpus(tmp_path), tmp_path / "out"
    make_shard = sharded_table.ShardedTable.make_shard

    def disturbed(self, number):
        make_shard(self, number)
        if number == 2:
            shutil.copy(self.shard(1), self.shard(0))

    with monkeypatch.context() as patch:
        patch.setattr(sharded_table.ShardedTable, "make_shard", disturbed)
        message = fails(table, "--output", out, *OPTIONS)
    assert "part-00000.parquet was changed during the run: run the same command again" in message
    assert [row["audio"] for row in run(table, out, *OPTIONS)] == [f"audio/{i}.wav" for i in range(8)]


def hold(out, held):
    with only_run(out):
        held.set()
        time.sleep(60)


def test_the_lock_of_a_killed_run_holds_nobody_up(tmp_path):
    table, out = make_corpus(tmp_path), tmp_path / "out"
    out.mkdir()
    context = multiprocessing.get_context("fork")
    held = context.Event()
    process = context.Process(target=hold, args=(out, held))
    process.start()
    assert held.wait(60)
    assert "another run is writing to" in fails(table, "--output", out, *OPTIONS)
    process.kill()
    process.join()
    assert (out / "annotation.json.lock").exists() and len(run(table, out, *OPTIONS)) == 8


def test_an_output_among_recordings_and_other_files_is_refused(tmp_path):
    table = make_corpus(tmp_path)
    before = state_of(tmp_path)
    for output in (tmp_path / "audio", table, tmp_path):
        assert fails(table, "--output", output, *OPTIONS)
        assert fails(tmp_path / "audio", "--output", output, *OPTIONS)
    assert state_of(tmp_path) == before
    (tmp_path / "sounds").mkdir()
    soundfile.write(tmp_path / "sounds" / "a.wav", np.zeros(800), 16_000)
    write_csv(tmp_path / "b.csv", [{"audio": "a.wav"}])
    arguments = (tmp_path / "b.csv", "--audio_folder", tmp_path / "sounds")
    assert "contains other files" in fails(*arguments, "--output", tmp_path / "sounds", *OPTIONS)
    assert os.listdir(tmp_path / "sounds") == ["a.wav"]
