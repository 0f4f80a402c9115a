"""`msfser live`: pipes of every kind, and what the terminal shows."""

import io
import json
import os
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
from media import media
from spoken import voice
from tiny import tiny_model, tiny_processor

from msfser import LABELS, MsfSerModel, MsfSerPipeline
from msfser.prediction.live import _lines, main, parse
from msfser.prediction.piped_sound import open_pipe

RATE = 16_000


def wav(samples, rate=RATE, subtype="PCM_16", form="WAV") -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, rate, subtype=subtype, format=form)
    return file.getvalue()


def read_pipe(content: bytes, most: int = 1 << 16, rate: int = RATE):
    """What a pipe holds that gives at most so many bytes at once."""
    file = io.BytesIO(content)
    sound = open_pipe(lambda count: file.read(min(count, most)), rate)
    parts = list(sound.chunks)
    return sound.sampling_rate, np.concatenate(parts) if parts else np.zeros((0, 1))


@pytest.mark.parametrize("most", [1, 7, 1 << 16])
def test_raw_samples_are_mono_integers(most):
    samples = np.random.default_rng(0).integers(-32_768, 32_767, 500).astype("<i2")
    rate, found = read_pipe(samples.tobytes() + b"\x01", most, 8_000)
    assert rate == 8_000 and found.dtype == np.int16
    np.testing.assert_array_equal(found[:, 0], samples)


@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE"])
@pytest.mark.parametrize("form", ["WAV", "WAVEX"])
def test_wav_says_what_it_holds(subtype, form):
    samples = np.stack([voice(0.1), voice(0.1, 1)], axis=1)
    for most in (5, 1 << 16):
        rate, found = read_pipe(wav(samples, 44_100, subtype, form), most)
        floats = found if found.dtype.kind == "f" else (found / 128.0 - 1 if found.dtype == np.uint8 else found)
        scale = {"i2": 2**15, "i4": 2**31}.get(found.dtype.str[1:], 1)
        assert rate == 44_100
        np.testing.assert_allclose(floats / scale, samples, atol=2 / 128 if subtype == "PCM_U8" else 1e-4)


def test_the_order_of_the_axes_is_plain_whatever_the_pipe_gives_at_once():
    """A stream refuses an array with more channels than samples."""
    samples = np.round(np.random.default_rng(0).uniform(-9_999, 9_999, (50, 6))).astype(np.int16)
    for most in (5, 12, 24, 1 << 16):
        file = io.BytesIO(wav(samples))
        arrays = list(open_pipe(lambda count, file=file, most=most: file.read(min(count, most)), RATE).chunks)
        assert min(map(len, arrays[:-1]), default=6) >= 6
        np.testing.assert_array_equal(np.concatenate(arrays), samples)


@pytest.mark.parametrize("size", [0, 0xFFFFFFFF, 0xFFFFFFFF - 77])
def test_a_wav_whose_length_nobody_knew_is_read_to_its_end(size):
    content = wav(voice(0.5))
    start = content.index(b"data")
    piped = content[: start + 4] + struct.pack("<I", size) + content[start + 8 :]
    assert len(read_pipe(piped)[1]) == 8_000
    # One that states its length may be followed by other things.
    assert len(read_pipe(content + b"LIST" + bytes(99))[1]) == 8_000


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"fLaC" + bytes(99), "holds FLAC"),
        (b"OggS" + bytes(99), "holds Ogg"),
        (wav(voice(0.1), subtype="ULAW"), "samples that are not read .8 bits, format 7, 1 channels"),
        (wav(voice(0.1))[:30], "ends before its samples"),
        (b"RIFF\0\0\0\0WAVEjunk\xff\xff\xff\x7f", "damaged"),
    ],
)
def test_other_pipes_are_sentences(content, message):
    with pytest.raises(ValueError, match=message):
        read_pipe(content)


MEDIA = ("m4a", "mka", "aac", "amr")
EXAMPLE = Path(__file__).parents[2] / "space" / "examples" / "not_bad.mp3"


@pytest.mark.parametrize(
    ("content", "name"),
    [
        (EXAMPLE.read_bytes(), "MP3"),
        *((wav(voice(1.0), rate, "MPEG_LAYER_III", "MP3"), "MP3") for rate in (8_000, 22_050, 44_100, 48_000)),
        *((wav(voice(0.1), RATE, "PCM_16", form), form) for form in ("AIFF", "CAF", "AU", "W64", "RF64")),
        (wav(voice(0.1), RATE, "PCM_16", "NIST"), "NIST"),
        *((media(end), name) for end, name in zip(MEDIA, ("MP4", "Matroska", "AAC", "AMR"), strict=True)),
    ],
    ids=lambda value: value if isinstance(value, str) else "pipe",
)
def test_compressed_sound_is_not_taken_for_samples(content, name):
    for most in (3, 1 << 16):
        with pytest.raises(ValueError, match=name):
            read_pipe(content, most)


@pytest.mark.parametrize("first", [[-1025, 100], [-3073, -15224], [-1, 16], [-3585, 80], [17481, 50]])
def test_samples_that_begin_like_another_format_are_samples(first):
    samples = np.array([*first, *np.random.default_rng(0).integers(-300, 300, 20_000)], "<i2")
    np.testing.assert_array_equal(read_pipe(samples.tobytes())[1][:, 0], samples)
    # Even if the sound ends there.
    np.testing.assert_array_equal(read_pipe(samples[:8].tobytes())[1][:, 0], samples[:8])


def test_quiet_sound_is_samples():
    for seed in range(200):
        samples = np.random.default_rng(seed).integers(-2, 3, 6_000).astype("<i2")
        assert len(read_pipe(samples.tobytes())[1]) == len(samples)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    tiny_model("whisper").save_pretrained(folder)
    tiny_processor("whisper").save_pretrained(folder)
    return folder


def command(folder, *options) -> list[str]:
    options = ("--model", str(folder), "--recognizer", "none", *options)
    return [sys.executable, "-m", "msfser", "live", "-", *options]


def test_raw_and_wav_give_the_numbers_of_the_recording(folder, capfd, monkeypatch):
    sound = np.round(voice(2.5) * 32_767).astype(np.int16)
    run = subprocess.run(command(folder), input=sound.tobytes(), capture_output=True, timeout=300)
    assert run.returncode == 0, run.stderr
    rows = [json.loads(line) for line in run.stdout.decode().splitlines()]
    assert [(row["start"], row["end"]) for row in rows] == [(0, 1), (0, 2), (0, 2.5)]
    expected = MsfSerPipeline(tiny_model("whisper"), processor=tiny_processor("whisper"), recognizer=None)
    for row in rows:
        result = expected(sound[: int(row["end"] * RATE)], sampling_rate=RATE)
        assert [row[name] for name in LABELS] == pytest.approx([result[name] for name in LABELS], abs=1e-5)
    messages = run.stderr.decode()
    assert messages.count("the license of the weights:") == 1 and "must know and agree" in messages
    # A WAV in a pipe, in this process.
    reading, writing = os.pipe()
    os.write(writing, wav(sound[:30_000]))
    os.close(writing)
    with os.fdopen(reading) as stdin:
        monkeypatch.setattr("sys.stdin", stdin)
        main(["-", "--model", str(folder), "--recognizer", "none"])
    again = [json.loads(line) for line in capfd.readouterr().out.splitlines()]
    assert [again[0][name] for name in LABELS] == pytest.approx([rows[0][name] for name in LABELS], abs=1e-5)


def test_lines_come_while_the_source_is_open_and_an_interrupt_ends_it(folder):
    process = subprocess.Popen(
        command(folder, "--skip"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        # What a shell starts in the background ignores Ctrl-C.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    process.stdin.write(np.round(voice(1.1) * 32_767).astype(np.int16).tobytes())
    process.stdin.flush()
    assert json.loads(process.stdout.readline())["end"] == 1.0
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130 and out == b""
    assert err.decode().rstrip().endswith("msfser live: interrupted.") and "Traceback" not in err.decode()


def result(**fields):
    words = [{"word": "so"}, {"word": "what?"}]
    numbers = {"valence": 0.0, "arousal": 0.5, "dominance": 1.0}
    return {"end": 61.0, **numbers, "words": words, "has_speech": True, "warnings": [], "skipped": 0} | fields


def test_lines_for_a_terminal(capsys):
    show = _lines("utf-8")
    head = capsys.readouterr().out.rstrip("\n")
    line = show(result())
    assert line == "1:01   ●───┼──── 0.00  ────●──── 0.50  ────┼───● 1.00  so what?"
    for name, sign in (("valence", "●───┼"), ("words", "so what?")):
        assert head.index(name) == line.index(sign)
    assert show(result(skipped=3)).endswith("so what? (3 skipped)")
    why = ["No speech was found."]
    silent = result(valence=None, words=[], has_speech=False, warnings=why)
    assert show(silent).split("  ")[-1].strip() == "No speech was found."
    # A crowd has voices, and so numbers that mean nothing.
    for words, said in (([], why[0]), ([{"word": "thanks"}], f"thanks ({why[0]})")):
        assert show(result(words=words, has_speech=False, warnings=why)) == f"{'1:01   no numbers':<55}{said}"
    assert _lines("ascii")(result()).startswith("1:01   o---+----")


def test_wrong_use_is_a_sentence(folder, monkeypatch, tmp_path):
    run = subprocess.run(command(folder), input=b"", capture_output=True, timeout=300)
    assert run.returncode == 1
    assert run.stderr.decode().splitlines()[-1].endswith("without a sample: check what it reads from.")
    monkeypatch.setattr(MsfSerModel, "from_pretrained", lambda *args, **options: pytest.fail("the model was loaded"))
    (tmp_path / "long.txt").write_text("Dear reader, " * 5_000)
    (tmp_path / "text.wav").write_text("Dear reader.")
    for arguments, message in (
        (["no.wav"], "there is no file 'no.wav'"),
        ([str(tmp_path)], "is a folder: give one of its recordings"),
        ([str(tmp_path / "long.txt")], "long.txt' is no WAV file: run ffmpeg .* or give --rate"),
        ([str(tmp_path / "text.wav")], "text.wav' is no WAV file"),
        ([str(EXAMPLE)], "not_bad.mp3' is no WAV file"),
        (["-", "--model", "no/model"], "'no/model' is no folder, and neither the Hub nor its cache has it"),
        (["-", "--model", "./no/model"], "there is no model folder './no/model'"),
        (["-", "--window", "0.2"], "window=0.2"),
        (["-", "--window", "30"], "window=30.0 is outside"),
        (["-", "--hop", "0"], "hop=0.0 is outside"),
        (["-", "--rate", "1"], "sampling_rate=1 is outside"),
        (["-", "--language", "klingon"], "klingon"),
    ):
        with open(os.devnull) as stdin, pytest.raises(SystemExit, match=message):
            monkeypatch.setattr("sys.stdin", stdin)
            main(arguments if "--model" in arguments else [*arguments, "--model", str(folder)])


def test_a_named_file_is_wav_or_raw_with_its_rate(folder, tmp_path, capfd):
    sound = np.round(voice(1.0) * 32_767).astype(np.int16)
    (tmp_path / "sound.wav").write_bytes(wav(sound))
    (tmp_path / "sound.raw").write_bytes(sound.tobytes())
    for arguments in (["sound.wav"], ["sound.raw", "--rate", "16000"]):
        main([str(tmp_path / arguments[0]), *arguments[1:], "--model", str(folder), "--recognizer", "none"])
    of_wav, of_raw = (json.loads(line) for line in capfd.readouterr().out.splitlines())
    assert of_wav == of_raw and of_wav["end"] == 1.0


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_the_model_runs_in_the_precision_that_is_asked_for(folder, tmp_path, capfd, monkeypatch, precision):
    (tmp_path / "sound.wav").write_bytes(wav(np.round(voice(1.0) * 32_767).astype(np.int16)))
    used = []
    forward = MsfSerModel.forward
    monkeypatch.setattr(
        MsfSerModel, "forward", lambda self, *args, **more: used.append(self.precision) or forward(self, *args, **more)
    )
    main([str(tmp_path / "sound.wav"), "--model", str(folder), "--recognizer", "none", "--precision", precision])
    assert {*used} == {precision} and json.loads(capfd.readouterr().out)["end"] == 1.0


def test_defaults():
    arguments = parse(["-"])
    assert (arguments.rate, arguments.window, arguments.hop, arguments.skip) == (None, 4.0, 1.0, False)
    assert arguments.precision == "float32"
