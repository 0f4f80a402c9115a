"""The store of features: files that are known, room that is reserved, and other runs; without an encoder."""

import os

import numpy as np
import pytest
from filelock import FileLock

from msfser.training import feature_store
from msfser.training.feature_store import FeatureStore, load


@pytest.fixture
def store(tmp_path):
    return FeatureStore(tmp_path / "store", 10_000)


def test_a_file_of_the_same_size_and_time_is_not_read_again(tmp_path, store):
    recording, memo = tmp_path / "a.wav", store.folder / "recordings.parquet"
    recording.write_bytes(b"one")
    first = store.hashes_of_files([str(recording)])
    times, written = recording.stat(), memo.stat()
    recording.write_bytes(b"two")
    os.utime(recording, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert FeatureStore(store.folder, 10_000).hashes_of_files([str(recording)]) == first
    assert (memo.stat().st_mtime_ns, memo.stat().st_ino) == (written.st_mtime_ns, written.st_ino)
    for content, time in ((b"two", 1), (b"four", 0)):  # another time, another size
        recording.write_bytes(content)
        os.utime(recording, ns=(times.st_atime_ns, times.st_mtime_ns + time))
        assert store.hashes_of_files([str(recording)]) != first
    # What is known of other files stays.
    other = tmp_path / "b.wav"
    other.write_bytes(b"other")
    now = store.hashes_of_files([str(recording), str(other)])
    other.unlink()
    os.utime(recording, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert store.hashes_of_files([str(recording)]) == {str(recording): now[str(recording)]}


def test_the_reservation_shrinks_with_each_piece_and_is_never_negative(store, monkeypatch):
    monkeypatch.setattr(feature_store, "_PIECE_ITEMS", 1)
    note, seen = store._run.with_suffix(".reserved"), []

    def batches():
        for i in range(3):
            yield {str(i): np.full(100, i, np.float32)}  # 400 bytes
            seen.append(int(note.read_text()))

    with store.making("key"):
        assert store.reserve(700) and note.read_text() == "700"
        addresses = store.add("key", batches(), 700)
    assert seen == [300, 0, 0] and note.read_text() == "0"
    assert [load(addresses[str(i)])[0].item() for i in range(3)] == [0, 1, 2]
    assert store.find("key", ["0", "2", "3"]) == {name: addresses[name] for name in ("0", "2")}


def test_a_piece_ends_by_its_items_or_its_bytes_and_the_rest_is_one(store, monkeypatch):
    for items, size, pieces in ((2, 10**6, 3), (100, 800, 3), (100, 801, 2), (100, 10**6, 1)):
        monkeypatch.setattr(feature_store, "_PIECE_ITEMS", items)
        monkeypatch.setattr(feature_store, "_PIECE_BYTES", size)
        key = f"{items}-{size}"
        with store.making(key):
            addresses = store.add(key, ({str(i): np.full(100, i, np.float32)} for i in range(5)), 0)
        assert list(addresses) == list("01234")
        assert len({address.rpartition("#")[0] for address in addresses.values()}) == pieces


def test_what_a_living_run_has_reserved_is_taken_and_a_dead_one_leaves_nothing(store):
    other = store.folder / "runs" / "1-other.lock"
    note = other.with_suffix(".reserved")
    with FileLock(other):
        assert store.reserve(9_000)  # the other has reserved nothing yet
        note.write_text("4000")
        assert store.reserve(6_000) and not store.reserve(6_001)
    assert store.reserve(10_000) and not other.exists() and not note.exists()
