"""Sound that arrives bit by bit: its windows are those of the recording, and its words come once."""

import threading
import time

import numpy as np
import pytest
import torch
from spoken import RATE, Recognizer, voice
from tiny import tiny_model, tiny_processor, tiny_recognizer

from msfser import LABELS, MsfSerPipeline, stream_msfser, transcription_msfser
from msfser.audio_msfser import load_audio
from msfser.inputs_msfser import check_options
from msfser.sound_quality_msfser import measured
from msfser.stream_msfser import FirmWords, Hops, NewestSound

TEXTS = ("transcript", "emphasis", "description")


@pytest.fixture(scope="module")
def pipe():
    model = tiny_model("whisper")
    with torch.no_grad():  # larger weights, so that every window has other numbers
        for weights in model.parameters():
            weights.mul_(5 if weights.ndim > 1 else 1)
    return MsfSerPipeline(model, processor=tiny_processor("whisper"), recognizer=Recognizer(), describer="measured")


@pytest.fixture(scope="module")
def recording() -> np.ndarray:
    return np.concatenate([voice(0.9, seed) * (0.2 + seed % 3) for seed in range(11)])


def chunks(sound, length: int):
    return [sound[start : start + length] for start in range(0, len(sound), length)]


def numbers(results) -> np.ndarray:
    return np.array([[result[name] for name in LABELS] for result in results])


def check_windows(pipe, results, sound, **options):
    """The results are those of the recording cut the same way."""
    starts_and_ends = [(round(r["start"] * RATE), round(r["end"] * RATE)) for r in results]
    cut = [pipe(sound[start:end], sampling_rate=RATE, **options) for start, end in starts_and_ends]
    assert np.abs(numbers(results) - numbers(cut)).max() < 1e-5
    for name in (*TEXTS, "texts", "gate", "warnings", "speech_seconds"):
        assert [r[name] for r in results] == [c[name] for c in cut], name
    assert len(cut) == 1 or numbers(cut).std(0).min() > 1e-4


def test_windows_are_those_of_the_recording(pipe, recording):
    results = list(pipe.stream(chunks(recording, 1_600), RATE))
    times = [(0, 1), (0, 2), (0, 3), (0, 4), (1, 5), (2, 6), (3, 7), (4, 8), (5, 9), (5.9, 9.9)]
    assert [(r["start"], r["end"]) for r in results] == times
    assert not any(r["skipped"] for r in results)
    check_windows(pipe, results, recording)


def test_a_recognizer_that_follows_the_stream_changes_no_window(pipe, recording, monkeypatch):
    """With a gap in which nobody speaks; the recognizer is the real one with random weights."""
    recognizer, guesses = tiny_recognizer(), []
    read = transcription_msfser.most_probable_texts

    def noted(decoder, sounds, is_loop, guess=()):
        guesses.append(len(guess))
        return read(decoder, sounds, is_loop, guess)

    monkeypatch.setattr(transcription_msfser, "most_probable_texts", noted)
    sound = np.concatenate([recording[: 3 * RATE], np.zeros(4 * RATE, np.float32), recording[3 * RATE : 6 * RATE]])
    results = list(pipe.stream(chunks(sound, 1_600), RATE, window=3.0, hop=0.5, recognizer=recognizer))
    assert any(guesses) and recognizer._guess == []
    spoken = [result for result in results if result["valence"] is not None]
    assert len(spoken) < len(results)
    check_windows(pipe, spoken, sound, recognizer=recognizer)


@pytest.mark.parametrize(("window", "hop"), [(2.0, 0.7), (3.0, 3.0), (12.0, 5.0), (1.0, 0.1)])
def test_windows_and_hops_of_any_length(pipe, recording, window, hop):
    sound = recording[: int(2.35 * RATE)] if hop == 0.1 else recording
    results = list(pipe.stream(chunks(sound, 1_600), RATE, window, hop))
    check_windows(pipe, results, sound)
    ends = [r["end"] for r in results]
    assert ends[0] == pytest.approx(max(hop, hop * np.ceil(1 / hop)), abs=1e-3)
    assert all(r["start"] == pytest.approx(max(0, r["end"] - window), abs=2e-3) for r in results)
    assert max(np.diff(ends)) <= hop + 1e-3
    assert ends[-1] == pytest.approx(len(sound) / RATE, abs=1e-3)


@pytest.mark.parametrize("length", [1, 333, 160_000])
def test_the_length_of_chunks_has_no_effect(pipe, recording, length):
    sound = recording[: (2 if length == 1 else 5) * RATE + 5_000]
    expected = list(pipe.stream([sound], RATE))
    found = list(pipe.stream(iter(chunks(sound, length)), RATE))
    np.testing.assert_array_equal(numbers(found), numbers(expected))
    assert found == expected


@pytest.mark.parametrize("rate", [8_000, 44_100, 48_000])
def test_other_rates_are_resampled_without_seams(pipe, rate):
    sound = voice(3.5, rate=rate)
    results = list(pipe.stream(chunks(sound, 441), rate, 2.0))
    check_windows(pipe, results, load_audio(sound, rate))
    again = list(pipe.stream(chunks(sound, rate), rate, 2.0))
    np.testing.assert_allclose(numbers(again), numbers(results), atol=1e-6)


def test_samples_of_any_type_and_channels(pipe):
    sound = voice(2.0)
    expected = list(pipe.stream([sound], RATE))
    whole = np.round(sound * 32_768).astype(np.int16)
    forms = {
        "tensor": ([torch.from_numpy(sound)], {}),
        "mean": ([np.stack([sound * 2, np.zeros_like(sound)], axis=1)], {}),
        "channel": ([np.stack([np.zeros_like(sound), sound], axis=1)], {"channel": 1}),
        "empty": ([sound[:0], sound, sound[:0]], {}),
    }
    for name, (given, options) in forms.items():
        np.testing.assert_allclose(
            numbers(pipe.stream(given, RATE, **options)), numbers(expected), atol=1e-6, err_msg=name
        )
    np.testing.assert_allclose(numbers(pipe.stream([whole], RATE)), numbers(expected), atol=1e-3)


def test_a_short_chunk_has_the_channels_of_those_before_it(pipe):
    both = np.stack([voice(1.2), np.zeros(19_200, np.float32), voice(1.2, 1)], axis=1)
    expected = numbers(pipe.stream([both], RATE))
    np.testing.assert_allclose(numbers(pipe.stream([both[:19_198], both[19_198:]], RATE)), expected, atol=1e-6)


def test_a_chunk_may_be_overwritten_by_its_source(pipe):
    sound, buffer = voice(3.0), np.zeros(1_600, np.float32)

    def device():
        for chunk in chunks(sound, 1_600):
            buffer[:] = chunk
            yield buffer

    np.testing.assert_array_equal(numbers(pipe.stream(device(), RATE)), numbers(pipe.stream([sound], RATE)))


def test_silence_runs_neither_recognizer_nor_model(pipe, monkeypatch):
    recognizer, runs = Recognizer(), []
    forward = pipe.forward
    monkeypatch.setattr(pipe, "forward", lambda *args, **options: runs.append(1) or forward(*args, **options))
    sound = np.concatenate([voice(2.0), np.zeros(6 * RATE, np.float32), 1e-4 * voice(1.0)[:100]])
    results = list(pipe.stream(chunks(sound, 1_600), RATE, 2.0, recognizer=recognizer))
    silent = [r for r in results if r["valence"] is None]
    assert len(silent) == 5 and len(runs) == len(recognizer.calls) == len(results) - len(silent) == 3
    assert all(r["warnings"] == ["No speech was found."] and r["speech_seconds"] == 0 for r in silent)
    assert all(r["texts"]["transcript"] == "absent: no speech" and r["emphasis"] is None for r in silent)
    assert results[2].keys() == silent[0].keys()
    # Words that nothing follows are final.
    assert [w["word"] for r in results for w in r["words"]] and not any(r["tentative"] for r in silent)


def test_what_seems_to_be_a_crowd_is_recognized(pipe):
    """It may be speech in noise."""
    many = np.sum([np.roll(voice(2.0, 5 * i), 1600 * i) for i in range(3)], axis=0, dtype=np.float32)
    *_, result = pipe.stream([many], RATE, recognizer=Recognizer())
    assert measured(many).speech_seconds() == 0
    assert result["has_speech"] and result["transcript"] and result["valence"] is not None


def test_every_word_comes_once_and_at_its_time(pipe, recording):
    class Absolute(Recognizer):
        """Knows the words by their place in the recording, but none in the last 0.5 s of a window."""

        def words(self, sound):
            start = next(i for i in range(0, len(recording), RATE // 10) if recording[i] == sound[0])
            spoken = [{"word": f"w{i}", "start": i / 2 + 0.1, "end": i / 2 + 0.4} for i in range(19)]
            first, last = start / RATE, (start + len(sound)) / RATE
            inside = [w for w in spoken if w["start"] >= first and w["end"] <= last]
            return [{**w, "start": w["start"] - first, "end": w["end"] - first} for w in inside]

    results = list(pipe.stream(chunks(recording, 1_600), RATE, recognizer=Absolute()))
    words = [word for r in results for word in r["words"]]
    assert [w["word"] for w in words] == [f"w{i}" for i in range(19)]
    assert all(w["start"] == pytest.approx(i / 2 + 0.1, abs=2e-3) for i, w in enumerate(words))
    assert all({"score", "emphasized"} <= w.keys() for w in words)
    for r in results[:-1]:
        assert all(w["end"] <= r["end"] - 1.0 for w in r["words"])
        assert all(w["end"] > r["end"] - 1.0 for w in r["tentative"])
    assert results[-1]["tentative"] == []


def test_the_words_left_at_the_end_come_with_the_rest_or_again(pipe):
    for seconds, ends in ((2.5, [1.0, 2.0, 2.5]), (2.0, [1.0, 2.0, 2.0])):
        results = list(pipe.stream([voice(seconds)], RATE))
        assert [r["end"] for r in results] == ends
        assert results[1]["tentative"] and results[2]["words"] and not results[2]["tentative"]
        assert said(w for r in results for w in r["words"]) == results[2]["transcript"]


def word(text: str, start: float) -> dict:
    return {"word": text, "start": start, "end": start + 0.3}


def said(words) -> str:
    return " ".join(w["word"] for w in words)


def test_known_words_are_told_by_letters_and_place():
    firm = FirmWords(1.0)
    assert [*map(said, firm.add([word("No,", 0.5), word("no,", 1.0), word("wai", 3.4)], 0, 4))] == ["No, no,", "wai"]
    # Moved by 0.1 s, marked otherwise; a tentative word is recognized anew; one that is said again is another one.
    assert [*map(said, firm.add([word("no.", 1.1), word("no", 2.5), word("way", 3.5)], 1, 5))] == ["no way", ""]
    # The newest known word is misheard: what overlaps it is no new word.
    assert [*map(said, firm.add([word("no", 2.5), word("sway", 3.45), word("out", 4.8)], 2, 6))] == ["", "out"]
    # Nothing is recognized: what was tentative ends by its time.
    assert [*map(said, firm.add([], 3, 7))] == ["out", ""]
    firm.add([word("last", 7.5)], 4, 8)
    # Windows were left out.
    assert [*map(said, firm.add([word("new", 12.0), word("end", 13.9)], 10, 14))] == ["last new", "end"]
    assert said(firm.finish()) == "end" and not firm.finish()


def test_a_slow_consumer_gets_the_newest_and_a_count(pipe):
    sound, go_on, is_read = voice(9.5), threading.Event(), threading.Event()

    def source():
        yield sound[: 2 * RATE]
        go_on.wait(60)
        yield from chunks(sound[2 * RATE :], 1_600)
        is_read.set()

    stream = pipe.stream(source(), RATE, skip=True)
    first = next(stream)
    assert first["end"] in (1.0, 2.0) and first["skipped"] == first["end"] - 1  # the second hop was there or not
    go_on.set()
    assert is_read.wait(60)
    for thread in live_threads():
        thread.join(60)
    newest = next(stream)
    assert (newest["end"], newest["skipped"]) == (9.5, 9 - first["end"])
    check_windows(pipe, [first, newest], sound)
    assert not newest["tentative"] and not list(stream)


def test_a_fast_consumer_of_a_slow_source_misses_nothing(pipe):
    sound, proceed = voice(4.0), threading.Semaphore(0)

    def source():
        for chunk in chunks(sound, RATE):
            yield chunk
            proceed.acquire(timeout=60)

    ends = []
    for result in pipe.stream(source(), RATE, skip=True, recognizer=None):
        ends.append((result["end"], result["skipped"]))
        proceed.release()
    assert ends == [(1.0, 0), (2.0, 0), (3.0, 0), (4.0, 0)]


def live_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "msfser stream"]


def test_closing_ends_the_thread(pipe):
    is_closed = threading.Event()

    def endless():
        try:
            while True:
                time.sleep(0.01)
                yield voice(0.5)
        finally:
            is_closed.set()

    stream = pipe.stream(endless(), RATE, skip=True)
    assert not live_threads()
    next(stream)
    assert len(live_threads()) == 1
    stream.close()
    assert is_closed.wait(10)
    for thread in live_threads():
        thread.join(10)
    assert not live_threads()


@pytest.mark.parametrize("skip", [False, True])
def test_an_error_of_the_source_reaches_the_consumer(pipe, skip):
    def source():
        yield voice(1.0)
        raise OSError("the microphone is gone")

    found = []
    with pytest.raises(OSError, match="the microphone is gone"):
        for result in pipe.stream(source(), RATE, skip=skip):
            found.append(result["end"])
    assert found == [1.0]
    for thread in live_threads():
        thread.join(10)


def test_no_sound_is_read_before_it_is_needed(pipe):
    read = []

    def source():
        for i in range(100):
            read.append(i)
            yield voice(0.5)

    next(pipe.stream(source(), RATE))
    assert read == [0, 1]


def test_what_is_past_is_forgotten():
    sound = NewestSound(1_000)
    for i in range(500):
        sound.add(np.full(77, i, np.float32))
    assert sound.length == 500 * 77 and sum(map(len, sound._blocks)) < 1_100
    assert set(sound.cut(sound.length - 1_000, sound.length - 900)) == {487.0, 488.0}


def test_hops_are_counted_without_drift():
    hops = Hops(4.0, 0.1)
    assert hops.end(0) == RATE and hops.end(35_990) == 3_600 * RATE
    assert hops.count(RATE - 1) == 0 and hops.count(3_600 * RATE) == 35_991 and hops.count(3_600 * RATE - 1) == 35_990


def test_a_stream_sets_each_option_of_the_pipeline():
    """One that it leaves out would be that of the pipeline, such as word_contributions=True."""
    assert stream_msfser._FIXED.keys() | stream_msfser._OPTIONS == check_options.__kwdefaults__.keys()


def test_a_stream_of_a_pipeline_with_word_contributions_has_none(pipe):
    built = MsfSerPipeline(
        pipe.model, processor=pipe.processor, recognizer=Recognizer(), word_contributions=True, batch_size=4
    )
    assert "word_contributions" in built(voice(1.0), sampling_rate=RATE)
    result, *_ = built.stream([voice(1.0)], RATE)
    assert "word_contributions" not in result and {"contributions", "baseline", "percentiles"} <= result.keys()


def test_a_model_of_texts_alone_says_why_it_has_no_numbers():
    pipe = MsfSerPipeline(tiny_model("whisper", audio=False), processor=tiny_processor("whisper"), recognizer=None)
    (result,) = pipe.stream([voice(1.0)], RATE)
    assert result["valence"] is None and result["warnings"][-1].startswith("no words are known")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"chunks": voice(1.0)}, "iterable of arrays, not ndarray"),
        ({"chunks": "talk.wav"}, "iterable of arrays, not str"),
        ({"chunks": 3}, "iterable of arrays, not int"),
        ({"sampling_rate": 100}, "sampling_rate=100 is outside"),
        ({"sampling_rate": None}, "sampling_rate=None is not a number"),
        ({"window": 0.5}, "window=0.5 is outside 1..12 s"),
        ({"window": 30}, "window=30 is outside 1..12 s"),
        ({"window": "4"}, "window='4' is not a number"),
        ({"hop": 0.01}, "hop=0.01 is outside 0.1..4 s"),
        ({"hop": 5.0}, "hop=5.0 is outside 0.1..4 s"),
        ({"hop": float("nan")}, "hop=nan is outside"),
        ({"channel": "each"}, "a stream has one channel"),
        ({"recognizer": 3}, "recognizer=3"),
        ({"errors": "return"}, "no option 'errors'"),
    ],
)
def test_impossible_arguments_are_sentences_before_any_sound_is_read(pipe, given, message):
    with pytest.raises(ValueError, match=message):
        pipe.stream(**{"chunks": iter([voice(1.0)]), "sampling_rate": RATE} | given)


@pytest.mark.parametrize(
    ("chunk", "message"),
    [
        (np.zeros((2, 3, 4), np.float32), "are neither"),
        (np.zeros((1, 1_600), np.float32), r"shape \(1, 1600\) has more channels than samples, .* give chunk.T"),
        (torch.zeros(2, 64), r"shape \(2, 64\) has more channels than samples, .* give chunk.T"),
        (np.zeros((100, 65), np.float32), "more than 64 channels"),
        (np.array(0.5), "neither"),
        (np.arange(100), "integer samples need their type"),
        (np.array(["a"]), "are no sound"),
        (np.full(100, np.nan, np.float32), "not finite"),
        (np.full(100, 3e4, np.float32), "must lie in -1..1, but they reach 30000:"),
        ([0.1, 0.2], "a chunk of the stream is list"),
        (b"1234", "a chunk of the stream is bytes"),
    ],
)
def test_impossible_chunks_are_sentences(pipe, chunk, message):
    with pytest.raises(ValueError, match=message):
        list(pipe.stream([voice(0.1), chunk], RATE))


@pytest.mark.parametrize("skip", [False, True])
def test_a_stream_without_a_sample_is_a_sentence(pipe, skip):
    for none in ([], [np.zeros(0, np.float32)]):
        with pytest.raises(ValueError, match="without a sample"):
            list(pipe.stream(none, RATE, skip=skip))


def test_a_short_stream_has_one_result(pipe):
    sound = voice(0.4)
    (result,) = pipe.stream([sound], RATE, recognizer=None)
    assert (result["start"], result["end"]) == (0.0, 0.4)
    check = pipe(sound, sampling_rate=RATE, recognizer=None)
    assert numbers([result]) == pytest.approx(numbers([check]), abs=1e-6)
