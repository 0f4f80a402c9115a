import logging
import os
import sys

import numpy as np
import pytest
import soundfile

from msfser.audio_msfser import load_audio
from msfser.corpora import audio_folder
from msfser.corpora.audio_folder import AUDIO_SUFFIXES, left_out_message, read_audio_folder, scan_folder
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
    assert [record.getMessage() for record in caplog.records] == [
        ".: left out 5 files: hidden (3): '.git/', '.hidden.wav', 'a/._9.wav'; whose names do not end as sound files "
        "do (2): 'notes.txt', 'wav'; name a file itself, or in a table, to read it."
    ]
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
        assert len(caplog.records) == 1 and "left out 5 files" in caplog.text
        assert scan_folder(start).left_out == {
            "beside.wav": "links out of the folder",
            "device.wav": "not regular files",
            "loop/": "links to folders",
            "nowhere.wav": "links that lead nowhere",
            "outside.wav": "links out of the folder",
        }


def test_files_that_link_to_themselves_and_pipes(tmp_path):
    write(tmp_path / "a.wav")
    (tmp_path / "self.wav").symlink_to(tmp_path / "self.wav")
    expected = {"self.wav": "links that lead nowhere"}
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe.wav")
        expected |= {"pipe.wav": "not regular files"}
    assert scan_folder(tmp_path).left_out == expected


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
def test_a_folder_that_cannot_be_read_is_named(tmp_path):
    write(tmp_path / "a.wav")
    write(tmp_path / "closed" / "b.wav")
    (tmp_path / "closed").chmod(0)
    try:
        assert scan_folder(tmp_path).left_out == {"closed/": "cannot be read (Permission denied)"}
    finally:
        (tmp_path / "closed").chmod(0o700)


def test_every_file_is_a_recording_or_has_a_reason(tmp_path, monkeypatch):
    """As reported: recordings of telephones and messengers were left out without a word."""
    rows = ["a.m4a", "b.mp4", "c.webm", "d.aac", "e.amr", "f.mka", "g.MOV", "h.wav", "deep/er/i.opus"]
    rows += ["j.3gpp", "k.weba", "l.qt", "m.m4r", "n.adts", "o.sph"]
    others = {
        ".DS_Store": "hidden",
        "cover.jpg": "whose names do not end as sound files do",
        "labels.csv": "tables, whose rows are read if the table is named in place of the folder",
        "README": "whose names do not end as sound files do",
        "old/annotation.json": "",
        "old/data/part-00000.parquet": "",
    }
    for name in (*rows, *others):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    expected = {name: why for name, why in others.items() if why} | {"old/": "written by annotate"}
    contents = scan_folder(tmp_path)
    assert [os.path.relpath(path, tmp_path) for path in contents.recordings] == sorted(rows)
    assert contents.left_out == expected
    monkeypatch.setattr(audio_folder, "_HAS_PYAV", False)
    without = scan_folder(tmp_path)
    assert [os.path.relpath(path, tmp_path) for path in without.recordings] == ["deep/er/i.opus", "h.wav", "o.sph"]
    needing = [name for name in rows if name not in ("h.wav", "deep/er/i.opus", "o.sph")]
    assert without.left_out == expected | dict.fromkeys(needing, 'need PyAV: pip install "msfser[media]"')
    assert "need PyAV: pip install \"msfser[media]\" (12): 'a.m4a', " in left_out_message(without.left_out)


def test_at_most_ten_names_are_shown_of_each_reason():
    message = left_out_message({f".{i:02d}.txt": "hidden" for i in range(25)})
    assert message.startswith("left out 25 files: hidden (25): '.00.txt', ") and "'.09.txt' and 15" in message
    assert message.endswith(" and 15 more.")


@pytest.mark.skipif(sys.platform != "linux", reason="file names are bytes on Linux only")
def test_a_name_that_is_no_text_is_left_out(tmp_path, caplog):
    write(tmp_path / "a.wav")
    with open(os.fsencode(tmp_path) + b"/\xff.wav", "wb"):
        pass
    with caplog.at_level(logging.WARNING):
        assert len(read_audio_folder(tmp_path)) == 1
    assert "left out 1 file: with names that are not valid text (1): '\\\\xff.wav'." in caplog.text


def test_nothing_to_read(tmp_path):
    for folder, match in ((tmp_path, "no recording in this folder; put files"), (tmp_path / "a", "no such folder")):
        with pytest.raises(ValueError, match=match) as caught:
            read_audio_folder(folder)
        assert "\n" not in str(caught.value) and str(caught.value).endswith(".")


KINDS = {"aif": "AIFF", "aifc": "AIFF", "oga": "OGG", "snd": "AU", "sph": "NIST", "wave": "WAV", "bwf": "WAV"}
KINDS |= dict.fromkeys(["mp2", "mpga"], "MP3")


@pytest.mark.parametrize("suffix", [suffix for suffix, reader in AUDIO_SUFFIXES.items() if reader == "soundfile"])
def test_each_suffix_is_decoded(tmp_path, suffix):
    kind = KINDS.get(suffix[1:], suffix[1:].upper())
    subtype = None
    if suffix == ".opus":
        kind, subtype = "OGG", "OPUS"
    path = tmp_path / f"a{suffix}"
    soundfile.write(path, np.zeros(1600, np.float32), 16_000, format=kind, subtype=subtype)
    assert load_audio(read_audio_folder(tmp_path)[0]["audio"]).size >= 1600
