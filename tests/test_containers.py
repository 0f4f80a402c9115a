"""MP4, Matroska, AAC and AMR files through PyAV: what is read, and that nothing else is."""

import io
import resource
import sys

import av
import numpy as np
import pytest
import soundfile
from media import (
    FILE_TYPE,
    MEDIA,
    box,
    compressed_index,
    concatenation,
    elsewhere,
    media,
    playlist,
    quicktime,
    reference_movie,
)

from msfser import audio_msfser, containers_msfser
from msfser.audio_msfser import count_channels, load_audio, open_sound, read_blocks
from msfser.corpora.audio_folder import AUDIO_SUFFIXES

RATE = 16_000
every_ending = pytest.mark.parametrize("ending", MEDIA)


def loudest(samples: np.ndarray) -> float:
    """The frequency, in Hz."""
    return np.abs(np.fft.rfft(samples[: len(samples) // 2 * 2])).argmax() * RATE / len(samples)


@every_ending
def test_a_recording_of_a_telephone_keeps_length_and_frequencies(ending, tmp_path):
    data = media(ending, 1.5)
    path = tmp_path / "named_as.wav"
    path.write_bytes(data)
    whole = load_audio(data)
    assert whole.dtype == np.float32 and abs(len(whole) - 1.5 * RATE) < 0.11 * RATE
    channels = MEDIA[ending][3]
    assert count_channels(data) == channels
    for source in (path, io.BytesIO(data), memoryview(data), {"bytes": data, "path": None}):
        np.testing.assert_array_equal(load_audio(source), whole)
    np.testing.assert_array_equal(np.concatenate(list(read_blocks(data))), whole)
    for channel in range(channels):
        assert loudest(load_audio(data, channel=channel)) == pytest.approx((440, 700)[channel], abs=5)
    assert len(load_audio(data, max_seconds=0.5)) == RATE // 2
    with open_sound(data) as sound:
        assert (sound.samplerate, sound.channels) == MEDIA[ending][2:]
        assert sound.frames / sound.samplerate == pytest.approx(len(whole) / RATE, abs=0.1)
        assert sound.tell() == 0 and len(sound.read(100)) == 100 and sound.tell() == 100
    assert AUDIO_SUFFIXES[f".{ending}"] == "av"


def test_the_frames_of_a_file_that_does_not_state_them_are_counted():
    data = media("webm", 1.5, live="1")
    with open_sound(data) as sound:
        assert sound.frames == len(sound.read(10**9)) > 1.4 * 48_000


@pytest.mark.parametrize("ending", ["mp4", "mov", "mka"])
def test_the_sound_of_a_video_is_read(ending):
    data = media(ending, video=True)
    assert loudest(load_audio(data, channel=0)) == pytest.approx(440, abs=5)


def test_aac_behind_a_tag_of_id3_is_aac():
    data = media("aac")
    tagged = b"ID3\4\0\0\0\0\1\0" + bytes(128) + data
    assert containers_msfser.container_of(io.BytesIO(tagged)) == "aac"
    assert len(load_audio(tagged)) == len(load_audio(data))


@pytest.mark.parametrize(
    ("container", "subtype"),
    [("WAV", "PCM_16"), ("FLAC", "PCM_16"), ("OGG", "VORBIS"), ("MP3", "MPEG_LAYER_III"), ("AIFF", "PCM_16")],
)
def test_what_soundfile_reads_is_no_container(container, subtype):
    file = io.BytesIO()
    soundfile.write(file, np.zeros(9_000, np.float32), RATE, format=container, subtype=subtype)
    file.seek(0)
    assert containers_msfser.container_of(file) is None and file.tell() == 0


def test_without_pyav_a_sentence_names_it(monkeypatch, tmp_path):
    (tmp_path / "memo.m4a").write_bytes(media("m4a"))
    monkeypatch.setattr(containers_msfser, "av", None)
    with pytest.raises(
        ValueError, match=r"memo\.m4a': this is an MP4 or QuickTime file, which needs PyAV: pip install av"
    ):
        load_audio(tmp_path / "memo.m4a")
    for ending, name in {"webm": "a Matroska or WebM file", "aac": "an AAC file", "amr": "an AMR file"}.items():
        with pytest.raises(ValueError, match=f"these bytes: this is {name}, which needs PyAV"):
            load_audio(media(ending))


@pytest.mark.parametrize("ending", ["m4a", "mka", "webm"])
def test_a_file_that_ends_early_is_refused(ending):
    data = media(ending, 3.0)
    with pytest.raises(ValueError, match="cannot be decoded"):
        load_audio(data[: len(data) // 2])


def test_a_file_that_holds_less_or_more_than_it_states_is_refused():
    samples = np.full(RATE, 1000, "<i2").tobytes()
    np.testing.assert_allclose(load_audio(quicktime(samples)), 1000 / 2**15)
    with pytest.raises(ValueError, match=r"it ends after 0\.4 of 1\.0 s"):
        load_audio(quicktime(samples)[: -int(0.6 * len(samples))])
    data = bytearray(quicktime(samples))
    header = data.index(b"mdhd") + 20
    data[header : header + 4] = (100).to_bytes(4, "big")
    with pytest.raises(ValueError, match=r"it states 0\.0 s and holds more"):
        load_audio(bytes(data))


def test_a_video_without_sound_is_a_sentence():
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as output:
        stream = output.add_stream("mpeg4", rate=5)
        stream.width = stream.height = 32
        output.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), "rgb24")))
        output.mux(stream.encode(None))
    with pytest.raises(ValueError, match=r"cannot be decoded \(it holds no sound\)"):
        load_audio(file.getvalue())


def test_only_decoders_of_sound_that_are_listed_run(monkeypatch):
    data = media("webm")
    monkeypatch.setattr(containers_msfser, "_CODECS", ("aac",))
    with pytest.raises(ValueError, match="its sound is coded as opus, which is not supported"):
        load_audio(data)


def test_sound_without_a_decoder_is_a_sentence():
    """As reported: FFmpeg knows no such codec, and an AttributeError ended the run."""
    data = media("mka")
    assert data.count(b"A_FLAC") == 1
    with pytest.raises(ValueError, match="its sound is coded in a way that is not supported"):
        load_audio(data.replace(b"A_FLAC", b"A_NONE"))


# Hostile files


@pytest.fixture
def secret(tmp_path):
    """A sound that only its owner may read."""
    path = tmp_path / "secret.wav"
    soundfile.write(path, np.full(RATE, 0.25, np.float32), RATE, subtype="PCM_16")
    return path


def test_no_file_that_a_file_names_is_opened(secret, monkeypatch):
    """The alias is one that FFmpeg follows if it may, so the test can fail."""
    data = quicktime(b"", elsewhere(str(secret)), offset=44, count=RATE)
    path = secret.parent / "alias.mov"
    path.write_bytes(data)
    followed = av.open(str(path), options={"enable_drefs": "1", "use_absolute_path": "1"})
    assert sum(frame.samples for frame in followed.decode(audio=0)) == RATE
    monkeypatch.setattr(containers_msfser, "_refuse", lambda *_: pytest.fail("FFmpeg asked for another file"))
    for source in (data, path):
        with pytest.raises(ValueError, match=r"the sound is empty|cannot be decoded"):
            load_audio(source)
    monkeypatch.undo()
    asked = dict(containers_msfser._OPTIONS, enable_drefs="1", use_absolute_path="1")
    monkeypatch.setattr(containers_msfser, "_OPTIONS", asked)
    with pytest.raises(ValueError):  # the second wall holds without the first
        load_audio(path)


@pytest.mark.parametrize("scheme", ["", "file://", "concat:", "http://127.0.0.1:9"])
@pytest.mark.parametrize("make", [playlist, concatenation, reference_movie, elsewhere])
def test_playlists_scripts_and_reference_movies_are_refused(make, scheme, secret):
    data = make(f"{scheme}{secret}")
    if make is elsewhere:
        data = quicktime(b"", data, offset=44, count=RATE)
    for name in ("list.m3u8", "list.mp4", "list.ffconcat", "list.mov"):
        path = secret.parent / name
        path.write_bytes(data)
        for source in (path, data):
            with pytest.raises(ValueError, match=r"cannot be decoded|the sound is empty"):
                load_audio(source)


def test_a_compressed_index_is_refused_before_it_grows():
    data = compressed_index(400)
    assert len(data) < 1_000_000
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ValueError, match="its index is compressed"):
        load_audio(data)
    if sys.platform == "linux":
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000
    shifted = FILE_TYPE + box(b"free", bytes(2**20 - len(FILE_TYPE) - 8 - 30)) + data[len(FILE_TYPE) :]
    with pytest.raises(ValueError, match="its index is compressed"):  # also across two blocks that are read
        load_audio(shifted)


@pytest.mark.parametrize("count", [50_000_000, 2**31 - 1])
def test_an_index_that_claims_more_than_the_file_holds_needs_no_memory(count):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ValueError, match="it ends after"):
        load_audio(quicktime(bytes(2 * RATE), count=count))
    if sys.platform == "linux":
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000


def test_a_container_is_bounded_as_other_sounds_are(monkeypatch):
    data = media("m4a")
    monkeypatch.setattr(audio_msfser, "_MOST_SAMPLES", RATE // 2)
    with pytest.raises(ValueError, match=r"longer than 0\.0 hours"):
        load_audio(data)
