"""The pipeline: its inputs and outputs, and that batches, windows and other entry points give equal results."""

import csv
import dataclasses
import http.server
import itertools
import json
import ssl
import subprocess
import threading
from pathlib import Path
from types import SimpleNamespace

import datasets
import numpy as np
import pytest
import soundfile
import torch
from spoken import SPOKEN, Recognizer, syllables, tone, voice
from tiny import tiny_model, tiny_processor
from transformers import AutoModel, AutoProcessor, pipeline
from transformers.pipelines.pt_utils import KeyDataset

from msfser import LABELS, MsfSerPipeline, memory_msfser, recordings_msfser, segment_texts_msfser
from msfser.audio_msfser import load_audio
from msfser.description_msfser import NORMS
from msfser.emphasis_msfser import EMPHASIS, measure_pitch
from msfser.train import main

RATE = 16_000


@pytest.fixture(scope="module")
def recognizer():
    return Recognizer()


@pytest.fixture(scope="module")
def pipe(recognizer):
    return MsfSerPipeline(
        tiny_model("whisper"), processor=tiny_processor("whisper"), recognizer=recognizer, describer="measured"
    )


@pytest.fixture(scope="module")
def speech(tmp_path_factory):
    """Sounds of different lengths as files."""
    folder = tmp_path_factory.mktemp("speech")
    paths = [folder / f"{i}.wav" for i in range(5)]
    for i, path in enumerate(paths):
        soundfile.write(path, voice(1.3 + 0.7 * i, i), RATE)
    return [str(path) for path in paths]


def numbers(result) -> np.ndarray:
    return np.array([result[label] for label in LABELS])


def close(a, b) -> bool:
    return np.abs(numbers(a) - numbers(b)).max() < 1e-5


# Loading


def test_a_saved_folder_is_a_pipeline_with_and_without_a_task(tmp_path, speech):
    tiny_model("whisper").save_pretrained(tmp_path)
    tiny_processor("whisper").save_pretrained(tmp_path)
    for task in ((), ("audio-classification",)):
        pipe = pipeline(*task, model=str(tmp_path), trust_remote_code=True, recognizer=None)
        assert type(pipe).__name__ == "MsfSerPipeline"
        assert set(LABELS) < set(pipe(speech[0]))
    pipe.save_pretrained(tmp_path / "again")
    again = pipeline(model=str(tmp_path / "again"), trust_remote_code=True, recognizer=None)
    assert again(speech[0]) == pipe(speech[0])


def test_the_processor_is_needed():
    with pytest.raises(ValueError, match="processor"):
        MsfSerPipeline(tiny_model("whisper"))


# The output


def test_the_output_is_plain_and_names_the_origins_of_its_texts(pipe, speech):
    result = pipe(speech[4])
    assert json.loads(json.dumps(result)) == result
    assert list(result) == [
        *LABELS, "intervals", "interval_level", "transcript", "words", "emphasis", "description", "texts",
        "contributions", "baseline", "gate", "routing", "duration", "has_speech", "speech_seconds", "warnings",
        "percentiles", "percentiles_of",
    ]  # fmt: skip
    assert all(0 < result[label] < 1 for label in LABELS)
    assert result["transcript"] == "the food, was wonderful but"
    assert [word["word"] for word in result["words"]] == result["transcript"].split()
    assert sum(word["score"] for word in result["words"]) == pytest.approx(0, abs=1e-9)
    marked = [word["word"].strip(",.") for word in result["words"] if word["emphasized"]]
    assert 2 <= len(marked) <= 3 and " ".join(marked) == result["emphasis"]
    top = max(result["words"], key=lambda word: word["score"])
    assert top["emphasized"]
    assert result["description"].startswith("The voice is")
    assert result["texts"] == {
        "transcript": "recognized",
        "words": "recognized",
        "emphasis": "found",
        "description": "measured/EmoDB",
    }
    assert 0 < result["gate"] < 1
    for shares in result["routing"].values():
        assert list(shares) == ["sound", "words", "description"] and sum(shares.values()) == pytest.approx(1)
    assert result["duration"] == pytest.approx(4.1)


def test_given_texts_are_read_and_named(pipe, speech):
    given = {"transcript": "a b c d", "emphasis": "B, c", "description": "a b c"}
    result = pipe({"audio": speech[0], **given})
    assert {name: result[name] for name in given} == given
    assert result["texts"] == {
        "transcript": "given", "words": "aligned", "emphasis": "given", "description": "given"
    }  # fmt: skip
    assert [word["emphasized"] for word in result["words"]] == [False, True, True, False]
    words = [{"word": "x", "start": 0.1, "end": 0.4, "score": 1.0}, {"word": "y", "start": 0.5, "end": 0.9}]
    with_words = pipe({"audio": speech[0], "words": words, "transcript": "", "language": "en"})
    assert with_words["transcript"] == "x y" and with_words["texts"]["words"] == "given"
    assert not close(result, with_words) and not close(result, pipe(speech[0]))


def test_the_output_equals_that_of_the_plain_model(pipe, speech):
    result = pipe(speech[1])
    inputs = pipe.processor(speech[1], **{name: result[name] for name in ("transcript", "emphasis", "description")})
    with torch.no_grad():
        expected = pipe.model(**inputs).logits[0].numpy()
    assert np.abs(numbers(result) - expected).max() < 1e-6


def test_speech_in_which_no_words_are_found_has_a_description(pipe, recognizer, monkeypatch):
    monkeypatch.setattr(recognizer, "LOUD", 1.0)
    path = Path(__file__).parents[1] / "space" / "examples" / "long.mp3"
    short = pipe(load_audio(path, max_seconds=6.0), sampling_rate=RATE)
    assert short["has_speech"] and short["description"] and short["texts"]["description"].startswith("measured/")
    assert {short["texts"][name] for name in ("transcript", "words", "emphasis")} == {
        "absent: the recognizer found no words"
    }
    # Each window of a long recording is decided by its own sound.
    long = pipe(np.concatenate([load_audio(path), np.zeros(24 * RATE, np.float32)]), sampling_rate=RATE)
    spoken = [window["description"] is not None for window in long["course"]]
    assert spoken[0] and not spoken[-1] and spoken == sorted(spoken, reverse=True)
    assert spoken == [window["has_speech"] for window in long["course"]]
    assert long["texts"]["transcript"] == "absent: the recognizer found no words, absent: no speech"


def test_absent_texts_have_a_reason(pipe, speech):
    silent = pipe(np.zeros(RATE, np.float32), sampling_rate=RATE)
    assert set(silent["texts"].values()) == {"absent: no speech"} and silent["gate"] is None
    alone = pipe(speech[0], recognizer=None, describer=None)
    assert alone["texts"] == {
        "transcript": "absent: no recognizer",
        "words": "absent: no recognizer",
        "emphasis": "absent: no recognizer",
        "description": "absent: no describer",
    }
    assert alone["words"] == [] and alone["transcript"] is None
    odd = pipe({"audio": speech[0], "transcript": "a b?"})
    assert odd["texts"]["transcript"] == "given" and odd["texts"]["words"].startswith("absent: the words cannot")
    assert odd["texts"]["emphasis"] == "absent: no word times" and odd["gate"] is None


@pytest.mark.parametrize("switches", [{"semantics": []}, {"semantics": ["es"]}, {"cross_fusion": "concat"}])
def test_texts_that_the_model_does_not_read_are_not_made(switches, speech):
    model = tiny_model("whisper", **switches)
    recognizer = Recognizer()
    pipe = MsfSerPipeline(model, processor=tiny_processor("whisper"), recognizer=recognizer)
    result = pipe([speech[0]])[0]
    if "semantics" in switches:
        assert not recognizer.calls
        assert result["texts"]["transcript"] == result["texts"]["emphasis"] == "absent: the model does not read it"
        assert result["gate"] is None
    if switches.get("semantics") == []:
        assert result["texts"]["description"] == "absent: the model does not read it"
        assert list(result["routing"]["valence"]) == ["sound"]
    if "cross_fusion" in switches:
        assert result["routing"] is None


def test_a_model_without_audio_reads_texts(speech):
    pipe = MsfSerPipeline(
        tiny_model("whisper", audio=False), processor=tiny_processor("whisper"), recognizer=Recognizer()
    )
    assert pipe(speech[3])["texts"]["transcript"] == "recognized"
    with pytest.raises(ValueError, match="Item 1: no words are known"):
        pipe([speech[3], np.zeros(RATE, np.float32)], sampling_rate=RATE)


# Texts as in the training corpus


def settings(**description) -> dict:
    return {
        "transcript": {"recognizer": "none", "language": "de", "aligner": "recognizer"},
        "emphasis": dataclasses.asdict(EMPHASIS["paper"]),
        "description": description,
    }


def test_texts_are_made_as_in_training(speech):
    processor = tiny_processor("whisper")
    processor.annotation = settings(describer="measured", norms={**NORMS, "corpus": "Mine"})
    pipe = MsfSerPipeline(tiny_model("whisper"), processor=processor)
    result = pipe(speech[2])
    assert result["texts"]["transcript"] == "absent: no recognizer"
    assert result["texts"]["description"] == "measured/Mine"
    # The language of the settings reaches a recognizer, unless another one is stated.
    recognizer = Recognizer()
    pipe([speech[2], {"audio": speech[2], "language": "fr"}], recognizer=recognizer)
    pipe(speech[2], recognizer=recognizer, language="it")
    assert [language for _, language in recognizer.calls] == ["de", "fr", "it"]


def test_another_describer_has_to_be_given(speech):
    processor = tiny_processor("whisper")
    processor.annotation = settings(describer="some/model", url=None, prompt="x")
    pipe = MsfSerPipeline(tiny_model("whisper"), processor=processor)
    assert pipe(speech[0])["texts"]["description"] == "absent: no describer"

    def describer(sounds, transcripts):
        return [f"a {len(sound)}" for sound in sounds]

    describer.name = "mine"
    result = pipe(speech[0], describer=describer)
    assert result["texts"]["description"] == "mine" and result["description"] == f"a {int(1.3 * RATE)}"


def test_a_recognizer_that_cannot_be_found_is_a_sentence(pipe, speech, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(OSError, match=r"whisper-nowhere.*recognizer=None"):
        pipe(speech[0], recognizer="openai/whisper-nowhere")


def test_wrong_options_are_sentences(pipe, speech):
    with pytest.raises(ValueError, match="recognizer=3"):
        pipe(speech[0], recognizer=3)
    with pytest.raises(ValueError, match="describer='best'"):
        pipe(speech[0], describer="best")
    with pytest.raises(TypeError, match="top_k"):
        pipe(speech[0], top_k=1)


# Inputs


def test_every_form_of_a_recording_gives_the_same(pipe, speech):
    samples, _ = soundfile.read(speech[0], dtype="float32")
    content = Path(speech[0]).read_bytes()
    expected = pipe(speech[0])

    class Decoder:
        def get_all_samples(self):
            decoded = type("Samples", (), {})()
            decoded.data, decoded.sample_rate = torch.from_numpy(samples)[None], RATE
            return decoded

    for form in (
        Path(speech[0]),
        content,
        {"raw": samples, "sampling_rate": RATE},
        {"array": samples, "sampling_rate": RATE},
        {"audio": samples, "sampling_rate": RATE},
        {"audio": {"array": samples, "sampling_rate": RATE}},
        {"audio": {"bytes": content, "path": None}},
        {"bytes": None, "path": speech[0]},
        Decoder(),
    ):
        assert close(pipe(form), expected), form
    for form in (samples, torch.from_numpy(samples), samples.tolist(), (RATE, np.stack([samples, samples], axis=1))):
        assert close(pipe(form, sampling_rate=RATE), expected)


def test_lists_generators_and_columns_keep_their_order(pipe, speech):
    alone = [pipe(path) for path in speech]
    assert len({result["duration"] for result in alone}) == len(speech)
    column = datasets.Dataset.from_dict({"audio": speech}).cast_column("audio", datasets.Audio(decode=False))
    for many in (
        speech,
        tuple(speech),
        np.array(speech, dtype=object),
        (path for path in speech),
        map(str, speech),
        column["audio"],
        KeyDataset(column, "audio"),
    ):
        results = list(pipe(many, batch_size=2))
        assert [result["duration"] for result in results] == [result["duration"] for result in alone]
        assert all(close(a, b) for a, b in zip(results, alone, strict=True))
    assert pipe([]) == []
    assert pipe([speech[0]])[0] == alone[0] and isinstance(pipe((speech[0],)), list)


def test_a_batch_gives_what_single_calls_give(pipe, speech, recognizer):
    long = np.concatenate([voice(9.0), np.zeros(RATE, np.float32), voice(17.0, 1)])
    inputs = [
        speech[0],
        {"array": long, "sampling_rate": RATE},
        {"audio": speech[1], "transcript": "a b c", "description": "a"},
        {"array": np.zeros(RATE), "sampling_rate": RATE},
        speech[2],
    ]
    alone = [pipe(item) for item in inputs]
    recognizer.calls.clear()
    for batch_size in (1, 3, 32):
        together = pipe(inputs, batch_size=batch_size)
        for a, b in zip(together, alone, strict=True):
            assert close(a, b)
            assert all(a[name] == b[name] for name in ("transcript", "words", "emphasis", "description", "texts"))
            assert [(w["start"], w["end"]) for w in a.get("course", [])] == [
                (w["start"], w["end"]) for w in b.get("course", [])
            ]
    assert max(size for size, _ in recognizer.calls) > 3


def test_a_generator_is_consumed_only_as_far_as_needed(pipe, speech):
    consumed = []

    def recordings():
        for path in speech * 6:
            consumed.append(path)
            yield path

    results = pipe(recordings(), batch_size=2)
    next(results)
    assert len(consumed) <= 16  # eight batches


@pytest.mark.parametrize(
    ("item", "sentence"),
    [
        ("nowhere.wav", "there is no file 'nowhere.wav'"),
        (b"no sound", "cannot be decoded"),
        (np.zeros(0, np.float32), "is empty"),
        ({"audio": "x.wav", "transcripts": "a"}, "'transcripts'"),
        ({"transcript": "a"}, "no sound"),
        ({"audio": None}, "no sound"),
        ({"array": np.zeros(9), "sampling_rate": RATE, "transcript": 3}, "transcript is int"),
        ({"array": np.zeros(9), "sampling_rate": RATE, "words": [{"word": "a"}]}, "no word with its times"),
        ({"array": np.zeros(9), "sampling_rate": RATE, "words": 3}, "the words are int, not a list"),
        ({"array": np.zeros(9), "sampling_rate": RATE, "words": "a b"}, "the words are str, not a list"),
        ({"array": np.zeros(9), "sampling_rate": RATE, "words": [{"word": "a", "start": 2, "end": 1}]}, "'a' lasts"),
        ("http://example.org/a.wav", "https only, not by http"),
        ("file:///etc/passwd", "https only, not by file"),
    ],
)
def test_an_unusable_item_is_named(pipe, speech, item, sentence):
    with pytest.raises(ValueError, match=f"Item 1: .*{sentence}"):
        pipe([speech[0], item], sampling_rate=RATE)
    with pytest.raises(ValueError, match=f"^(?!Item).*{sentence}"):
        pipe(item, sampling_rate=RATE)


def test_an_error_keeps_its_kind_with_the_index():
    for kind, named in ((ValueError, ValueError), (OSError, OSError), (FileNotFoundError, OSError)):
        error = kind("it is gone")
        with pytest.raises(named, match=r"^Item 3: it is gone$") as raised:
            recordings_msfser.failed_result(error, 3, "raise")
        assert type(raised.value) is named and raised.value.__cause__ is error
        with pytest.raises(kind, match=r"^it is gone$") as raised:
            recordings_msfser.failed_result(error, None, "raise")
        assert raised.value is error and error.__cause__ is None
        assert recordings_msfser.failed_result(error, 3, "return") == {"error": "it is gone"}


def test_a_text_that_a_row_of_pandas_lacks_is_absent(pipe):
    """As for the processor and the collator: NaN is missing."""
    plain = pipe({"audio": voice(1.5), "sampling_rate": RATE})
    row = dict.fromkeys(("transcript", "emphasis", "description", "language", "words"), float("nan"))
    assert pipe({"audio": voice(1.5), "sampling_rate": RATE, **row}) == plain
    assert pipe({"audio": {"array": voice(1.5), "sampling_rate": RATE}, "sampling_rate": np.nan, **row}) == plain


@pytest.mark.parametrize("seconds", [1.5, 14.0])
def test_words_without_a_spelling_count_as_not_given(pipe, seconds):
    item = {"audio": voice(seconds), "sampling_rate": RATE}
    blank = [{"word": "", "start": 0.1, "end": 0.4}, {"word": " ", "start": 0.5, "end": 0.6}]
    result = pipe({**item, "words": blank})
    assert result == pipe(item) and result["texts"]["words"] == "recognized"
    kept = pipe({**item, "words": [*blank, {"word": "so", "start": 0.7, "end": 0.9}]})
    assert [word["word"] for word in kept["words"]] == ["so"] and kept["texts"]["words"] == "given"


def test_a_transcript_without_letters_has_no_words_and_says_so(pipe):
    result = pipe({"audio": voice(1.5), "sampling_rate": RATE, "transcript": "!!!"})
    assert result["transcript"] == "!!!" and result["words"] == []
    assert result["texts"]["transcript"] == "given" and result["texts"]["words"] == "absent: no letters"
    assert result["texts"]["emphasis"] == "absent: no word times"
    words = [{"word": "!!!", "start": 0.1, "end": 0.4}]
    result = pipe({"audio": voice(1.5), "sampling_rate": RATE, "words": words})
    assert result["texts"]["words"] == "given" and result["texts"]["emphasis"] == "absent: no letters"


def test_freed_memory_is_returned_where_the_c_library_would_keep_it(monkeypatch):
    called = []
    for library in (SimpleNamespace(malloc_trim=called.append), None):
        monkeypatch.setattr(memory_msfser, "_C_LIBRARY", library)
        memory_msfser.free_memory()
    assert called == [0]


# Addresses


class Server(http.server.BaseHTTPRequestHandler):
    content = b""

    def do_GET(self):
        if self.path == "/away":
            self.send_response(302)
            self.send_header("Location", f"http://localhost:{self.server.server_port}/sound.wav")
        elif self.path == "/here":
            self.send_response(302)
            self.send_header("Location", "/sound.wav")
        elif self.path == "/sound.wav":
            self.send_response(200)
        else:
            self.send_response(404)
        self.end_headers()
        if self.path == "/sound.wav":
            self.wfile.write(self.content)

    def log_message(self, *arguments):
        pass


@pytest.fixture(scope="module")
def address(tmp_path_factory, speech):
    """An https server on this machine whose certificate is trusted."""
    folder = tmp_path_factory.mktemp("tls")
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=localhost"]
    command += ["-addext", "subjectAltName=DNS:localhost", "-keyout", str(folder / "key"), "-out", str(folder / "crt")]
    try:
        subprocess.run(command, check=True, capture_output=True)
    except FileNotFoundError:
        pytest.skip("there is no openssl to make a certificate with")
    Server.content = Path(speech[0]).read_bytes()
    server = http.server.ThreadingHTTPServer(("localhost", 0), Server)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "crt", folder / "key")
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SSL_CERT_FILE", str(folder / "crt"))
        patch.setenv("no_proxy", "localhost")
        yield f"https://localhost:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_an_https_address_is_fetched_and_nothing_else(pipe, speech, address, monkeypatch):
    expected = pipe(speech[0])
    assert close(pipe(f"{address}/sound.wav"), expected)
    assert close(pipe({"audio": f"{address}/here"}), expected)
    with pytest.raises(ValueError, match="https only, not by http"):
        pipe(f"{address}/away")
    with pytest.raises(OSError, match="localhost cannot be fetched"):
        pipe(f"{address}/missing?token=secret")
    try:
        pipe(f"{address}/missing?token=secret")
    except OSError as error:
        assert "secret" not in str(error)
    monkeypatch.setattr(recordings_msfser, "_MOST_BYTES", 1000)
    with pytest.raises(ValueError, match="larger than"):
        pipe(f"{address}/sound.wav")
    monkeypatch.undo()
    monkeypatch.setattr(recordings_msfser, "_MOST_SECONDS", -1.0)
    with pytest.raises(OSError, match="longer than"):
        pipe(f"{address}/sound.wav")


# Long recordings


@pytest.fixture(scope="module")
def long():
    """40 s: an organ with a pitch, in which words alone are speech, 14 s of silence, and the organ louder."""
    return np.concatenate(
        [syllables(tone(13.0, 300)), np.zeros(14 * RATE, np.float32), 3 * syllables(tone(13.0, 390))]
    )


def test_a_long_recording_has_a_course_and_a_summary(pipe, long, recognizer):
    recognizer.calls.clear()
    result = pipe({"audio": long, "sampling_rate": RATE})
    assert json.loads(json.dumps(result)) == result
    course = result["course"]
    assert course[0]["start"] == 0 and course[-1]["end"] == result["duration"] == 40.0
    for before, after in itertools.pairwise(course):
        assert before["start"] < after["start"] < before["end"] < after["end"]
        assert after["end"] - after["start"] < 12.001
    # Each second is recognized once, and each word is listed once.
    assert sum(size for size, _ in recognizer.calls) == pytest.approx(len(course) / 2, abs=1)
    starts = [word["start"] for word in result["words"]]
    assert starts == sorted(set(starts)) and all(word["score"] is not None for word in result["words"])
    assert result["transcript"].split() == [word["word"] for word in result["words"]]
    assert not any(14 < start < 26 for start in starts)
    assert {window["transcript"] is None for window in course if window["start"] > 14 and window["end"] < 26} <= {True}
    assert result["texts"]["transcript"] == "recognized, absent: no speech"
    assert any(word["emphasized"] for word in result["words"])
    assert set(result["emphasis"].replace(";", "").split()) <= {word.strip(",.") for word in SPOKEN}
    assert result["description"] is None and {window["description"] is None for window in course} == {True, False}

    # The summary is the mean, weighted by the speech in each window, a word in two windows counting half in each.
    assert result["weighting"] == "seconds of speech"
    spoken = [
        [word for word in result["words"] if w["start"] <= (word["start"] + word["end"]) / 2 < w["end"]]
        for w in course
    ]
    held = {word["start"]: sum(word in words for words in spoken) for word in result["words"]}
    weights = [sum((word["end"] - word["start"]) / held[word["start"]] for word in words) for words in spoken]
    for label in LABELS:
        expected = np.average([window[label] for window in course], weights=weights)
        assert result[label] == pytest.approx(expected, abs=1e-6)


def test_the_pitch_of_each_second_is_measured_once(pipe, long, monkeypatch):
    measured = []

    def counted(sound):
        measured.append(len(sound))
        return measure_pitch(sound)

    monkeypatch.setattr("msfser.course_msfser.measure_pitch", counted)
    monkeypatch.setattr("msfser.emphasis_msfser.measure_pitch", counted)
    spoken = np.concatenate([voice(13.0), voice(13.0, 1)])
    result = pipe(spoken, sampling_rate=RATE)
    assert all(window["emphasis"] for window in result["course"])
    assert sum(measured) == len(spoken)


def test_without_word_times_all_seconds_count(pipe, long):
    result = pipe(long, sampling_rate=RATE, recognizer=None)
    assert result["weighting"] == "seconds" and result["words"] == [] and result["gate"] is None
    weights = np.zeros(len(result["course"]))
    for second in np.arange(0, 40, 0.01):
        over = [w["start"] <= second < w["end"] for w in result["course"]]
        weights += np.array(over) / sum(over)
    for label in LABELS:
        expected = np.average([window[label] for window in result["course"]], weights=weights)
        assert result[label] == pytest.approx(expected, abs=1e-5)


def test_a_window_has_the_prediction_for_its_own_sound_and_texts(pipe, long):
    course = pipe(long, sampling_rate=RATE)["course"]
    for window in (course[0], course[1], course[-1]):
        samples = long[round(window["start"] * RATE) : round(window["end"] * RATE)]
        texts = {name: window[name] for name in ("transcript", "emphasis", "description")}
        with torch.no_grad():
            expected = pipe.model(**pipe.processor(samples, RATE, **texts)).logits[0].numpy()
        assert np.abs(numbers(window) - expected).max() < 1e-5


def test_a_long_file_and_its_samples_give_the_same(pipe, long, tmp_path):
    soundfile.write(tmp_path / "long.wav", long / 2, RATE, subtype="FLOAT")
    assert pipe(tmp_path / "long.wav") == pipe(long / 2, sampling_rate=RATE)


def test_texts_of_a_long_recording_go_to_their_windows(pipe, long, recognizer):
    words = [{"word": f"w{i}", "start": float(i), "end": i + 0.5} for i in range(40)]
    recognizer.calls.clear()
    given = pipe({"audio": long, "sampling_rate": RATE, "words": words, "emphasis": "w3 w4", "description": "a b"})
    assert not recognizer.calls
    assert [word["word"] for word in given["words"]] == [word["word"] for word in words]
    assert given["texts"] == {
        "transcript": "given", "words": "given", "emphasis": "given, found", "description": "given"
    }  # fmt: skip
    assert given["course"][0]["emphasis"] == "w3 w4" != given["course"][-1]["emphasis"]
    assert given["description"] == "a b" == given["course"][2]["description"]
    # A transcript gets its times first.
    aligned = pipe({"audio": long, "sampling_rate": RATE, "transcript": " ".join(w["word"] for w in words)})
    assert aligned["texts"]["words"] == "aligned" and aligned["texts"]["transcript"] == "given"
    assert aligned["course"][-1]["transcript"] == given["course"][-1]["transcript"]


def test_a_long_transcript_without_times_is_a_sentence(pipe, long, monkeypatch):
    item = {"audio": long, "sampling_rate": RATE}
    for options, text, sentence in (
        ({"recognizer": None}, "a b", "needs a recognizer: give one"),
        ({}, "a b?", "cannot be aligned"),
        ({}, "!!!", "cannot be aligned"),
    ):
        with pytest.raises(ValueError, match=sentence):
            pipe({**item, "transcript": text}, **options)
    monkeypatch.setattr(segment_texts_msfser, "_LONGEST_TO_ALIGN", 30.0)
    with pytest.raises(ValueError, match="has no times"):
        pipe({"audio": long, "sampling_rate": RATE, "transcript": "a b"})


def test_the_longest_short_and_the_shortest_long_recording(pipe):
    assert "course" not in pipe(voice(12.0), sampling_rate=RATE)
    just_longer = pipe(voice(12.01), sampling_rate=RATE)
    assert len(just_longer["course"]) >= 2 and just_longer["duration"] == pytest.approx(12.01)


# Other entry points


def test_pipeline_prediction_and_plain_model_agree(tmp_path):
    folder = tmp_path / "trained"
    tiny_model("whisper").save_pretrained(folder)
    tiny_processor("whisper").save_pretrained(folder)
    texts = [["a b c", "b", "d e"], ["", "", ""], ["the food was wonderful", "food was", ""], ["c", "c", "c"]]
    with open(tmp_path / "metadata.csv", "w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["file_name", "transcript", "emphasis", "description", "speaker", "split"])
        for i, row in enumerate(texts * 4):
            soundfile.write(tmp_path / f"{i}.wav", voice(0.6 + 0.3 * (i % 5), i), RATE)
            table.writerow([f"{i}.wav", *row, "me", "test"])
    (tmp_path / "settings.yaml").write_text("train_sampling_strategy: group_by_length\neval_strategy: epoch\n")
    command = [str(tmp_path / "settings.yaml"), "--do_predict", "--data", str(tmp_path / "metadata.csv")]
    before = sorted(path.name for path in folder.iterdir())
    main([*command, "--output_dir", str(folder), "--use_cpu", "--per_device_eval_batch_size", "5"])
    assert sorted(path.name for path in folder.iterdir()) == sorted([*before, "predictions.csv"])
    with open(folder / "predictions.csv") as file:
        predicted = list(csv.DictReader(file))
    assert list(predicted[0])[:6] == ["file", "duration", "speech_seconds", *LABELS]
    assert [row["file"] for row in predicted] == [f"{i}.wav" for i in range(16)]

    model = AutoModel.from_pretrained(folder, trust_remote_code=True)
    processor = AutoProcessor.from_pretrained(folder, trust_remote_code=True)
    pipe = pipeline(model=str(folder), trust_remote_code=True, recognizer=None)
    for row in predicted:
        given = dict(
            zip(("transcript", "emphasis", "description"), texts[int(Path(row["file"]).stem) % 4], strict=True)
        )
        with torch.no_grad():
            file = str(tmp_path / row["file"])
            plain = model(**processor(file, **{name: text or None for name, text in given.items()})).logits[0]
        by_pipeline = numbers(pipe({"audio": file, **given}))
        assert np.abs(by_pipeline - plain.numpy()).max() < 1e-4
        assert np.abs([float(row[label]) for label in LABELS] - plain.numpy()).max() < 1e-4


def test_prediction_without_a_model_is_a_sentence(tmp_path):
    (tmp_path / "settings.yaml").write_text("")
    with pytest.raises(SystemExit, match="contains no trained model"):
        main([str(tmp_path / "settings.yaml"), "--do_predict", "--output_dir", str(tmp_path / "none")])


def test_a_config_that_asks_for_tuples_changes_no_result(speech):
    expected, model = MsfSerPipeline(model=tiny_model(), processor=tiny_processor()), tiny_model()
    model.config.return_dict = False
    found = MsfSerPipeline(model=model, processor=tiny_processor())
    assert found(speech, recognizer=None) == expected(speech, recognizer=None)
