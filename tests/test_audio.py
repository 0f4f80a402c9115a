"""Reading sound: every container, rate, layout and sample type ends as the same mono float32 at 16 kHz."""

import errno
import io
import os
import struct
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from msfser import audio_msfser
from msfser.audio_msfser import load_audio, read_blocks

RATE = 16_000


def sine(frequency: float = 440.0, seconds: float = 1.0, rate: int = RATE) -> np.ndarray:
    return (0.5 * np.sin(2 * np.pi * frequency * np.arange(int(seconds * rate)) / rate)).astype(np.float32)


def encoded(samples: np.ndarray, rate: int = RATE, container: str = "WAV", subtype: str = "PCM_16") -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format=container, subtype=subtype)
    return file.getvalue()


@pytest.fixture
def sixteen_bit() -> np.ndarray:
    """A sound that 16 bits hold exactly."""
    return np.round(sine(300.0, 0.5) * 2**15).astype(np.int16)


@pytest.fixture
def floats(sixteen_bit) -> np.ndarray:
    return sixteen_bit.astype(np.float32) / 2**15


# One sound, many forms


@pytest.mark.parametrize(
    ("container", "subtype"),
    [
        ("WAV", "PCM_16"),
        ("WAV", "PCM_24"),
        ("WAV", "PCM_32"),
        ("WAV", "FLOAT"),
        ("WAV", "DOUBLE"),
        ("WAVEX", "PCM_16"),
        ("FLAC", "PCM_16"),
        ("FLAC", "PCM_24"),
        ("AIFF", "PCM_16"),
    ],
)
def test_a_sound_is_equal_in_every_lossless_container(container, subtype, floats, tmp_path):
    data = encoded(floats, container=container, subtype=subtype)
    path = tmp_path / "sound"
    path.write_bytes(data)
    for source in (data, bytearray(data), path, str(path), {"bytes": data, "path": None}, {"path": str(path)}):
        np.testing.assert_array_equal(load_audio(source), floats)


@pytest.mark.parametrize(("container", "subtype"), [("OGG", "VORBIS"), ("MP3", "MPEG_LAYER_III")])
def test_a_lossy_container_keeps_length_and_frequency(container, subtype):
    loaded = load_audio(encoded(sine(440.0), container=container, subtype=subtype))
    assert len(loaded) == RATE
    assert np.abs(np.fft.rfft(loaded)).argmax() == 440


def test_every_form_of_samples_is_the_same_sound(sixteen_bit, floats):
    forms = [
        floats,
        floats.astype(np.float64),
        floats.tolist(),
        torch.tensor(floats, requires_grad=True),
        torch.tensor(floats).double(),
        sixteen_bit,
        torch.tensor(sixteen_bit),
        sixteen_bit.astype(np.int32) * 2**16,
        {"array": floats, "sampling_rate": RATE, "path": "not read"},
        {"array": floats.tolist(), "sampling_rate": None},
    ]
    for form in forms:
        loaded = load_audio(form, RATE)
        assert loaded.dtype == np.float32
        np.testing.assert_array_equal(loaded, floats)


@pytest.mark.parametrize(
    ("samples", "error"),
    [
        (np.round(sine() * 127 + 128).astype(np.uint8), 1 / 128),
        (np.round(sine() * 128).astype(np.int8), 1 / 128),
        (sine().astype(np.float16), 1e-3),
        (torch.tensor(sine()).bfloat16(), 1e-2),
    ],
    ids=["uint8", "int8", "float16", "bfloat16"],
)
def test_a_coarse_sample_type_is_the_sound_to_its_own_precision(samples, error):
    np.testing.assert_allclose(load_audio(samples, RATE), sine(), atol=error)


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.int16, np.int32])
def test_integers_span_minus_one_to_one_and_are_silent_at_rest(dtype):
    info = np.iinfo(dtype)
    low, rest, high = load_audio(np.array([info.min, (int(info.min) + info.max + 1) // 2, info.max], dtype), RATE)
    assert (low, rest) == (-1.0, 0.0)
    assert 0.99 < high <= 1.0


@pytest.mark.parametrize("channels", [1, 2, 6])
def test_channels_are_averaged_in_either_layout(channels):
    layers = np.stack([sine(200.0 * (i + 1)) for i in range(channels)])
    mean = layers.mean(0)
    for form in (layers, torch.tensor(layers), layers.tolist(), layers.astype(np.float64)):
        np.testing.assert_allclose(load_audio(form, RATE, channels_first=True), mean, atol=1e-6)
    for form in (layers.T, torch.tensor(layers).T, layers.T.tolist()):
        np.testing.assert_allclose(load_audio(form, RATE, channels_first=False), mean, atol=1e-6)
    np.testing.assert_allclose(load_audio({"array": layers, "sampling_rate": RATE}), mean, atol=1e-6)
    np.testing.assert_allclose(load_audio((RATE, layers.T)), mean, atol=1e-6)
    np.testing.assert_allclose(load_audio(encoded(layers.T, subtype="FLOAT")), mean, atol=1e-6)


def test_a_file_of_fewer_frames_than_channels_keeps_its_layout():
    frame = np.array([[0.5, -0.25]], np.float32)
    np.testing.assert_array_equal(load_audio(encoded(frame, subtype="FLOAT")), [0.125])


def test_silence_is_a_sound():
    np.testing.assert_array_equal(load_audio(np.zeros(RATE), RATE), np.zeros(RATE))


# Resampling


@pytest.mark.parametrize("rate", [8_000, 11_025, 22_050, 44_100, 48_000, 96_000])
def test_resampling_keeps_frequency_level_and_length(rate):
    loaded = load_audio(sine(440.0, rate=rate), rate)
    assert abs(len(loaded) - RATE) <= 1
    middle = slice(RATE // 10, -RATE // 10)  # the filter rings at the ends
    np.testing.assert_allclose(loaded[middle], sine(440.0)[: len(loaded)][middle], atol=2e-3)
    np.testing.assert_array_equal(load_audio(encoded(sine(440.0, rate=rate), rate, subtype="FLOAT")), loaded)


def test_frequencies_above_8_khz_are_filtered_and_not_aliased():
    loaded = load_audio(sine(11_000.0, rate=44_100), 44_100)
    assert np.abs(loaded[1000:-1000]).max() < 1e-3


@pytest.mark.parametrize("rate", [RATE, 44_100])
def test_one_sample_stays_a_sound(rate):
    assert load_audio(np.array([0.5], np.float32), rate).shape == (1,)


# Maximum length


@pytest.mark.parametrize("rate", [8_000, RATE, 44_100])
def test_nothing_after_max_seconds_is_read(rate, monkeypatch):
    long = sine(seconds=2.0, rate=rate)
    start = load_audio(long[: rate // 2], rate)
    np.testing.assert_array_equal(load_audio(long, rate, max_seconds=0.5), start)
    np.testing.assert_array_equal(load_audio(long, rate, max_seconds=9.0), load_audio(long, rate))

    read = soundfile.SoundFile.read
    frames_asked = []
    monkeypatch.setattr(
        soundfile.SoundFile, "read", lambda self, frames, **k: frames_asked.append(frames) or read(self, frames, **k)
    )
    np.testing.assert_array_equal(load_audio(encoded(long, rate, subtype="FLOAT"), max_seconds=0.5), start)
    assert frames_asked == [rate // 2]


def test_errors_after_max_seconds_are_not_noticed():
    samples = np.concatenate([sine(), np.full(10, np.nan, np.float32)])
    np.testing.assert_array_equal(load_audio(samples, RATE, max_seconds=1.0), sine())


# Errors: one sentence that names what is wrong


@pytest.mark.parametrize(
    ("source", "sentence"),
    [
        (None, "there is no sound"),
        ({}, "there is no sound"),
        ({"array": None, "bytes": None, "path": None}, "there is no sound"),
        ([], "the sound is empty"),
        (np.zeros((2, 0), np.float32), "the sound is empty"),
        (np.array([0.0, np.nan]), "not finite"),
        (np.array([0.0, -np.inf]), "not finite"),
        (torch.tensor([np.nan]), "not finite"),
        (sine() * 2**15, "integers as integers"),
        ([1, 2, 3], "need their type"),
        (np.zeros(9, np.uint16), "uint16"),
        (np.zeros(9, bool), "bool"),
        (np.zeros(9, complex), "complex"),
        (["a", "b"], "are no sound"),
        ([[0.1], [0.1, 0.2]], "no rectangular array"),
        (np.float32(0.5), r"shape \(\)"),
        (np.zeros((1, 2, 99), np.float32), r"shape \(1, 2, 99\)"),
        ({"array": np.zeros((65, 999), np.float32)}, "more than 64 channels"),
    ],
)
def test_samples_that_are_no_sound_are_a_clear_error(source, sentence):
    with pytest.raises(ValueError, match=sentence):
        load_audio(source, RATE)


@pytest.mark.parametrize("rate", [0, -16_000, 44.1, 16_000.5, 10**6, np.nan, np.inf, True, "16 kHz", "16000", []])
def test_an_impossible_rate_is_a_clear_error(rate):
    with pytest.raises(ValueError, match="sampling_rate="):
        load_audio(sine(), rate)


@pytest.mark.parametrize("source", [sine(), {"array": sine()}])
def test_samples_without_a_rate_are_a_clear_error(source):
    with pytest.raises(ValueError, match="need their sampling_rate"):
        load_audio(source)


@pytest.mark.parametrize("source", [encoded(sine()), {"array": sine(), "sampling_rate": RATE}])
def test_a_rate_that_contradicts_the_sounds_own_is_a_clear_error(source):
    with pytest.raises(ValueError, match="at 16000 Hz, not at the given sampling_rate=44100"):
        load_audio(source, 44_100)
    np.testing.assert_array_equal(load_audio(source, RATE), load_audio(source))


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b"", "there is nothing in"),
        (b"no sound, only text" * 50, "cannot be decoded"),
        (encoded(sine())[:30], "cannot be decoded"),
        (encoded(sine(), container="FLAC")[:3000], "cannot be decoded"),
        (encoded(np.zeros((0, 1), np.float32)), "the sound is empty"),
        (encoded(np.array([0.0, np.nan]), subtype="FLOAT"), "not finite"),
        (encoded(sine() * 1000, subtype="FLOAT"), "integers as integers"),
        (encoded(np.zeros((9, 65), np.float32)), "more than 64 channels"),
    ],
    ids=["nothing", "text", "half a header", "half a FLAC", "no frames", "NaN", "integers as floats", "65 channels"],
)
def test_a_file_that_is_no_sound_is_a_clear_error(data, sentence, tmp_path):
    with pytest.raises(ValueError, match=sentence) as of_bytes:
        load_audio(data)
    assert "0x" not in str(of_bytes.value)  # no address of an object
    path = tmp_path / "named_as_sound.wav"
    path.write_bytes(data)
    with pytest.raises(ValueError, match=sentence):
        load_audio(path)


@pytest.mark.parametrize("frames", [0, 2**36 - 1], ids=["unknown", "endless"])
def test_a_header_with_a_false_length_is_a_clear_error(frames):
    data = bytearray(encoded(sine(), container="FLAC"))
    data[21:26] = struct.pack(">BI", data[21] & 0xF0 | frames >> 32, frames & 0xFFFFFFFF)
    with pytest.raises(ValueError, match="these bytes cannot be decoded"):
        load_audio(bytes(data))


@pytest.mark.parametrize("name", ["letter.vox", "letter.au", "letter.gsm", "letter.snd", "letter.sd2", "letter.raw"])
def test_a_name_does_not_make_text_a_sound(name, tmp_path):
    path = tmp_path / name
    path.write_text("Dear reader, " * 100)
    with pytest.raises(ValueError, match="cannot be decoded"):
        load_audio(path)


@pytest.mark.parametrize(
    ("channels", "rate", "sentence"),
    [(1024, RATE, "more than 64 channels"), (1, 1, "sampling_rate=1 is outside"), (1, 10**7, "is outside")],
)
def test_what_a_header_claims_is_checked_before_anything_is_decoded(channels, rate, sentence, monkeypatch):
    data = encoded(np.zeros((9, channels), np.float32), rate)
    monkeypatch.setattr(soundfile.SoundFile, "read", lambda *args, **kwargs: pytest.fail("it was decoded"))
    with pytest.raises(ValueError, match=sentence):
        load_audio(data)


def test_a_long_file_is_decoded_in_blocks_and_refused_beyond_the_bound(monkeypatch, tmp_path):
    sound = np.stack([sine(440.0, 0.5), sine(300.0, 0.5)], axis=1)
    path = tmp_path / "long.wav"
    path.write_bytes(encoded(sound))
    whole = load_audio(path)
    monkeypatch.setattr(audio_msfser, "_BLOCK", 1_000)
    np.testing.assert_array_equal(load_audio(path), whole)
    monkeypatch.setattr(audio_msfser, "_MOST_SAMPLES", len(whole))
    np.testing.assert_array_equal(load_audio(path), whole)
    monkeypatch.setattr(audio_msfser, "_MOST_SAMPLES", len(whole) - 1)
    with pytest.raises(ValueError, match=r"long\.wav' is longer than 0\.0 hours: cut it"):
        load_audio(path)
    assert len(load_audio(path, max_seconds=0.1)) == RATE // 10


def test_the_blocks_of_an_mp3_are_those_of_one_decoder_that_never_goes_back(monkeypatch, capfd):
    path = Path(__file__).parents[1] / "space" / "examples" / "long.mp3"
    whole, _ = soundfile.read(path, dtype="float32")
    np.testing.assert_allclose(load_audio(path), whole, atol=1e-5)
    np.testing.assert_allclose(np.concatenate([*read_blocks(path)]), whole, atol=1e-5)
    monkeypatch.setattr(audio_msfser, "_BLOCK", 1_600)
    np.testing.assert_allclose(load_audio(path), whole, atol=1e-5)
    assert capfd.readouterr().err == ""  # where libmpg123 reports what it cannot decode


def test_a_text_in_place_of_a_path_is_not_repeated_in_full():
    with pytest.raises(ValueError, match=r"there is no file '.*\.\.\..*'") as caught:
        load_audio("It was a fine morning. " * 500)
    assert len(str(caught.value)) < 300


def test_a_tensor_that_holds_no_samples_is_a_clear_error():
    for source in (torch.eye(3).to_sparse(), torch.zeros(3, device="meta")):
        with pytest.raises(ValueError, match="no rectangular array"):
            load_audio(source, RATE)


def test_an_undecodable_file_is_named(tmp_path):
    path = tmp_path / "letter.wav"
    path.write_text("Dear reader,")
    with pytest.raises(ValueError, match=r"letter\.wav' cannot be decoded"):
        load_audio(path)


@pytest.mark.parametrize("name", ["missing.wav", "a sentence that is no path " * 20, "nul\0"])
def test_a_path_without_a_file_is_a_clear_error(name, tmp_path):
    for source in (str(tmp_path / name), tmp_path / name):
        with pytest.raises(ValueError, match="there is no file"):
            load_audio(source)
    with pytest.raises(ValueError, match="there is no file ''"):
        load_audio("")


@pytest.mark.parametrize("call", ["os.stat", "builtins.open"])
def test_a_file_that_may_not_be_read_is_told_from_a_missing_one(call, tmp_path, monkeypatch):
    """As root, who may read all files, no test can take the permission away."""
    path = tmp_path / "secret.wav"
    soundfile.write(path, np.zeros(RATE), RATE)
    function = {"os.stat": os.stat, "builtins.open": open}[call]

    def refusing(name, *args, **options):
        if str(name) == str(path):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return function(name, *args, **options)

    monkeypatch.setattr(call, refusing)
    with pytest.raises(ValueError, match=r"secret\.wav' cannot be read \(Permission denied\): check its permissions"):
        load_audio(path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.wav")
    with pytest.raises(ValueError, match=r"pipe\.wav' is not a regular file: give a recording"):
        load_audio(tmp_path / "pipe.wav")


def test_a_folder_is_named_as_one(tmp_path):
    with pytest.raises(ValueError, match="is a folder: give one of its recordings"):
        load_audio(tmp_path)


def test_only_reading_and_resampling_need_the_audio_libraries(monkeypatch):
    data = encoded(sine())
    monkeypatch.setattr(audio_msfser, "soundfile", None)
    np.testing.assert_array_equal(load_audio(sine(), RATE), sine())
    for source, rate in ((sine(), 8_000), (data, None)):
        with pytest.raises(ImportError, match="pip install soundfile soxr"):
            load_audio(source, rate)
