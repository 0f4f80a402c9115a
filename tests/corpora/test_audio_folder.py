import logging
import os
import sys

import numpy as np
import pytest
import soundfile

from msfser.audio_msfser import load_audio
from msfser.corpora.audio_folder import SUFFIXES, read_audio_folder
from msfser.corpora.schema import FEATURES, audio_source


def write(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.zeros(16, np.float32), 16_000, format="WAV")
    return path


def test_recordings_in_the_order_of_their_paths(tmp_path, monkeypatch, caplog):
    names = ["b.wav", "a/10.FLAC", "a/9.wav", "a/deep/er/x.mp3", "a b/\xe9.ogg"]
    for name in [*names, ".hidden.wav", ".git/a.wav", "a/._9.wav"]:
        write(tmp_path / name)
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / "wav").write_text("no suffix")
    monkeypatch.chdir(tmp_path)
    with caplog.at_level(logging.WARNING):
        result = read_audio_folder(".")
    assert not caplog.records
    assert result.features == FEATURES and result.column_names == list(FEATURES)
    assert [os.path.relpath(row["audio"]["path"], tmp_path) for row in result] == sorted(names)
    assert all(os.path.isabs(audio_source(row["audio"])) for row in result)
    assert all(value is None for row in result for name, value in row.items() if name != "audio")
    assert read_audio_folder(str(tmp_path))[:] == result[:]


def test_links(tmp_path, caplog):
    folder = tmp_path / "folder"
    write(folder / "in" / "a.wav")
    write(tmp_path / "secret.wav")
    write(tmp_path / "folder_2" / "b.wav")
    (folder / "inside.wav").symlink_to(folder / "in" / "a.wav")
    (folder / "outside.wav").symlink_to(tmp_path / "secret.wav")
    (folder / "beside.wav").symlink_to(tmp_path / "folder_2" / "b.wav")
    (folder / "nowhere.wav").symlink_to(tmp_path / "gone.wav")
    (folder / "device.wav").symlink_to("/dev/zero")
    (folder / "loop").symlink_to(folder)
    (tmp_path / "alias").symlink_to(folder)
    for start in (folder, tmp_path / "alias"):
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            result = read_audio_folder(start)
        assert [row["audio"]["path"] for row in result] == [str(start / "in" / "a.wav"), str(start / "inside.wav")]
        assert len(caplog.records) == 1 and "left out 5 entries" in caplog.text and "'beside.wav'" in caplog.text


@pytest.mark.skipif(sys.platform != "linux", reason="file names are bytes on Linux only")
def test_a_name_that_is_no_text_is_left_out(tmp_path, caplog):
    write(tmp_path / "a.wav")
    with open(os.fsencode(tmp_path) + b"/\xff.wav", "wb"):
        pass
    with caplog.at_level(logging.WARNING):
        assert len(read_audio_folder(tmp_path)) == 1
    assert "left out 1 entries" in caplog.text


def test_nothing_to_read(tmp_path):
    for folder, match in ((tmp_path, "no recording in this folder; put files"), (tmp_path / "a", "no such folder")):
        with pytest.raises(ValueError, match=match) as caught:
            read_audio_folder(folder)
        assert "\n" not in str(caught.value) and str(caught.value).endswith(".")


KINDS = {"aif": "AIFF", "aifc": "AIFF", "oga": "OGG", "snd": "AU"}


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_each_suffix_is_decoded(tmp_path, suffix):
    kind = KINDS.get(suffix[1:], suffix[1:].upper())
    subtype = None
    if suffix == ".opus":
        kind, subtype = "OGG", "OPUS"
    path = tmp_path / f"a{suffix}"
    soundfile.write(path, np.zeros(1600, np.float32), 16_000, format=kind, subtype=subtype)
    assert load_audio(read_audio_folder(tmp_path)[0]["audio"]).size >= 1600
