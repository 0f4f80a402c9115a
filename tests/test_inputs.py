"""Many inputs: when each result comes, what becomes of bad ones, and which options are kept from call to call."""

import gc
import io
import itertools
import time
import weakref
from concurrent.futures import ThreadPoolExecutor

import datasets
import numpy as np
import pytest
import soundfile
import soxr
import torch
from spoken import RATE, Recognizer, voice
from tiny import tiny_model, tiny_processor
from transformers import BertConfig

from msfser import LABELS, MsfSerPipeline
from msfser.annotator_msfser import NoRecognizer
from msfser.transcription_msfser import MsfSerRecognizer

BROKEN = b"no sound"


@pytest.fixture(scope="module")
def pipe():
    return MsfSerPipeline(tiny_model("whisper"), processor=tiny_processor("whisper"), recognizer=Recognizer())


@pytest.fixture(scope="module")
def sounds():
    """Recordings of different lengths as samples with their rate, the third one a long one."""
    return [{"array": voice(seconds, i), "sampling_rate": RATE} for i, seconds in enumerate((0.9, 1.6, 13.0, 2.1))]


def durations(results):
    return [round(result["duration"], 1) for result in results]


# When a result comes


def test_each_result_of_a_live_source_comes_before_the_next_recording_is_asked_for(pipe, sounds):
    asked = []

    def source():
        for i, sound in enumerate(sounds):
            asked.append(i)
            yield sound

    for live in (source(), (sound for sound in source())):
        asked.clear()
        results = pipe(live)
        assert asked == []
        for i, _ in enumerate(sounds, 1):
            next(results)
            assert len(asked) == i
        assert next(results, None) is None


@pytest.mark.parametrize("batch_size", [1, 3, 8])
def test_results_before_a_bad_recording_come_before_its_error(pipe, sounds, batch_size):
    asked = []

    def source():
        for item in (*sounds[:3], BROKEN, sounds[3]):
            asked.append(item)
            yield item

    results = pipe(source(), batch_size=batch_size)
    assert durations(itertools.islice(results, 3)) == [0.9, 1.6, 13.0]
    with pytest.raises(ValueError, match=r"^Item 3: these bytes cannot be decoded"):
        next(results)
    assert len(asked) == 4


def broken_off() -> bytes:
    """A FLAC that ends in the middle of 20 s."""
    file = io.BytesIO()
    soundfile.write(file, voice(20.0), RATE, format="FLAC")
    return file.getvalue()[: len(file.getvalue()) // 2]


@pytest.mark.parametrize("batch_size", [1, 8])
def test_errors_are_returned_in_place_of_their_results(pipe, sounds, batch_size):
    bad = [BROKEN, "nowhere.wav", broken_off(), {"audio": sounds[0], "transcript": 3}, "http://example.org/a.wav"]
    mixed = [item for pair in itertools.zip_longest(sounds, bad, fillvalue=sounds[0]) for item in pair]
    expected = pipe(sounds, batch_size=batch_size)
    for many in (mixed, iter(mixed)):
        results = list(pipe(many, batch_size=batch_size, errors="return"))
        assert len(results) == len(mixed)
        for found, alone in zip(results[:8:2], expected, strict=True):
            assert [found[name] for name in ("words", "texts", "warnings")] == [
                alone[name] for name in ("words", "texts", "warnings")
            ]
            assert [found[label] for label in LABELS] == pytest.approx([alone[label] for label in LABELS], abs=1e-6)
        errors = [result["error"] for result in results if list(result) == ["error"]]
        parts = ("cannot be decoded", "no file 'nowhere.wav'", "decoded after", "transcript is int", "https only")
        assert len(errors) == len(bad) and all(part in error for part, error in zip(parts, errors, strict=True))
    assert pipe(BROKEN, errors="return") == {"error": errors[0]}
    with pytest.raises(ValueError, match="Item 1: these bytes cannot"):
        pipe(mixed, batch_size=batch_size)


def test_what_only_the_model_refuses_is_the_error_of_its_recording(sounds):
    pipe = MsfSerPipeline(
        tiny_model("whisper", audio=False), processor=tiny_processor("whisper"), recognizer=Recognizer()
    )
    items = [sounds[0], {"array": np.zeros(RATE, np.float32), "sampling_rate": RATE}, sounds[1]]
    for batch_size in (1, 4):
        first, second, third = pipe(items, errors="return", batch_size=batch_size)
        assert second == {"error": "no words are known, and this model reads no sound: give texts."}
        assert durations([first, third]) == [0.9, 1.6]
        results = pipe(iter(items), batch_size=batch_size)
        assert next(results) == first
        with pytest.raises(ValueError, match=r"^Item 1: no words"):
            next(results)


class Particular(Recognizer):
    def __call__(self, sounds, language=None):
        if language == "klingon":
            raise ValueError("This recognizer does not know language='klingon'.")
        return super().__call__(sounds, language)


def test_a_language_that_the_recognizer_does_not_know_is_the_error_of_its_recording(pipe, sounds):
    items = [sounds[0], {"audio": sounds[1], "language": "klingon"}, sounds[3]]
    results = pipe(items, recognizer=Particular(), errors="return", batch_size=4)
    assert "klingon" in results[1]["error"] and durations([results[0], results[2]]) == [0.9, 2.1]


def test_what_all_recordings_need_is_raised_in_any_case(pipe, sounds, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    long_with_transcript = {"audio": sounds[2], "transcript": "a b"}
    for item in (sounds[0], long_with_transcript):
        with pytest.raises(OSError, match=r"whisper-nowhere.*recognizer=None"):
            pipe([item], recognizer="openai/whisper-nowhere", errors="return")


@pytest.mark.parametrize("errors", ["raise", "return"])
def test_a_source_that_fails_ends_with_its_own_error_after_the_results_before_it(pipe, sounds, errors):
    def source():
        yield from sounds[:2]
        raise KeyError("the microphone is gone")

    results = pipe(source(), batch_size=8, errors=errors)
    assert durations(itertools.islice(results, 2)) == [0.9, 1.6]
    with pytest.raises(KeyError, match="the microphone is gone"):
        next(results)


def test_each_channel_or_an_error(pipe, sounds):
    stereo = {"array": np.stack([voice(1.2), voice(1.2, 3)]), "sampling_rate": RATE}
    both, bad = pipe([stereo, BROKEN], channel="each", errors="return")
    assert [result["channel"] for result in both] == [0, 1] and "cannot be decoded" in bad["error"]
    assert both[0]["valence"] != both[1]["valence"]
    with pytest.raises(ValueError, match="Item 1: these bytes"):
        pipe([stereo, BROKEN], channel="each")
    with pytest.raises(ValueError, match=r"^these bytes") as raised:
        pipe(BROKEN, channel="each")
    assert raised.value.__cause__ is not raised.value


def test_words_that_are_given_to_every_channel_are_a_warning(pipe):
    stereo = {"array": np.stack([voice(1.2), voice(1.2, 3)]), "sampling_rate": RATE}
    warning = "The given words were used for every channel."
    assert all(warning in result["warnings"] for result in pipe({**stereo, "transcript": "the food"}, channel="each"))
    mono = {"array": voice(1.2)[None], "sampling_rate": RATE}
    for item in (stereo, {**mono, "emphasis": "food"}):
        found = pipe(item, channel="each", channels_first=True)
        assert not any(warning in result["warnings"] for result in found)


def test_a_bad_channel_leaves_the_good_one(pipe):
    left = voice(1.2)
    half = {"array": np.stack([left, np.full_like(left, np.nan)]), "sampling_rate": RATE}
    good, bad = pipe(half, channel="each", errors="return")
    assert good == {"channel": 0, **pipe({"array": left, "sampling_rate": RATE})}
    assert bad == {"channel": 1, "error": "the sound holds values that are not finite (NaN or infinity)."}
    assert pipe([half], channel="each", errors="return", batch_size=4)[0][1] == bad
    with pytest.raises(ValueError, match="Item 0: the sound holds values"):
        pipe([half], channel="each")


@pytest.mark.parametrize("errors", ["raise", "return"])
def test_a_source_that_fails_ends_with_its_own_error_for_each_channel_too(pipe, sounds, errors):
    def source():
        yield sounds[0]
        raise KeyError("the microphone is gone")

    results = pipe(source(), channel="each", errors=errors)
    assert [result["channel"] for result in next(results)] == [0]
    with pytest.raises(KeyError, match="the microphone is gone"):
        next(results)


@pytest.mark.parametrize("options", [{}, {"channel": "each"}])
@pytest.mark.parametrize("errors", ["raise", "return"])
def test_a_recognizer_of_another_kind_is_raised_once(pipe, sounds, tmp_path, monkeypatch, errors, options):
    BertConfig(hidden_size=8, num_attention_heads=1, num_hidden_layers=1).save_pretrained(tmp_path)
    loaded, load = [], MsfSerRecognizer.from_pretrained
    monkeypatch.setattr(MsfSerRecognizer, "from_pretrained", lambda *of: loaded.append(of) or load(*of))
    for inputs in (sounds[0], sounds[:2]):
        loaded.clear()
        with pytest.raises(NoRecognizer, match=r"bert.*or give recognizer=None"):
            pipe(inputs, recognizer=str(tmp_path), errors=errors, batch_size=2, **options)
        assert len(loaded) == 1


def test_the_rate_of_a_call_is_that_of_sounds_that_state_none(pipe):
    sound = voice(1.5)
    file = io.BytesIO()
    soundfile.write(file, soxr.resample(sound, RATE, 44_100), 44_100, format="WAV")
    content, stated = file.getvalue(), {"array": sound[::2], "sampling_rate": RATE // 2}
    bare = {"audio": {"array": sound, "sampling_rate": None}, "sampling_rate": RATE}
    forms = [content, {"audio": content}, io.BytesIO(content), stated, (RATE // 2, sound[::2]), bare]
    expected = [pipe(form) for form in forms] + [pipe(sound, sampling_rate=RATE)]
    assert pipe([*forms, sound], sampling_rate=RATE) == expected
    assert pipe(content, sampling_rate=RATE) == expected[0] and pipe(bare) == expected[-1]
    built = MsfSerPipeline(pipe.model, processor=pipe.processor, recognizer=Recognizer(), sampling_rate=RATE)
    assert built([content, sound]) == [expected[0], expected[-1]]
    with pytest.raises(ValueError, match="at 44100 Hz, not at the given sampling_rate=16000"):
        pipe({"audio": content, "sampling_rate": RATE})


# Sources


class Rows(torch.utils.data.Dataset):
    """A dataset whose second row cannot be decoded."""

    def __init__(self, items):
        self.items = items

    def __len__(self):
        return len(self.items)

    def __getitem__(self, index):
        if index == 1:
            raise RuntimeError("the decoder failed")
        return self.items[index]


class Live(torch.utils.data.IterableDataset):
    def __init__(self, items):
        self.items = items

    def __iter__(self):
        return iter(self.items)


def test_datasets_with_and_without_a_length(pipe, sounds):
    expected = pipe(sounds)
    columns = datasets.Dataset.from_dict({"audio": [wav(sound["array"]) for sound in sounds]})
    table = columns.cast_column("audio", datasets.Audio(decode=False))
    for many in (Live(sounds), table.to_iterable_dataset(), table, table["audio"]):
        for batch_size in (1, 3):
            results = list(pipe(many, batch_size=batch_size))
            assert durations(results) == durations(expected)
            for a, b in zip(results, expected, strict=True):
                assert all(a[label] == pytest.approx(b[label], abs=1e-5) for label in LABELS)
    results = list(pipe(Rows(sounds), errors="return"))
    assert results[1] == {"error": "the decoder failed"} and results[2:] == expected[2:]
    with pytest.raises(ValueError, match="Item 1: the decoder failed"):
        list(pipe(Rows(sounds)))


def wav(samples) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, RATE, format="WAV", subtype="FLOAT")
    return file.getvalue()


def test_a_file_like_object_and_a_rate_with_samples_are_one_recording(pipe, sounds):
    samples = sounds[1]["array"]
    expected = pipe(samples, sampling_rate=RATE)
    assert pipe(io.BytesIO(wav(samples))) == expected == pipe((RATE, samples))
    assert pipe([io.BytesIO(wav(samples)), (RATE, samples), wav(samples)]) == [expected] * 3
    assert pipe({"audio": io.BytesIO(wav(samples)), "description": "a b"})["description"] == "a b"


@pytest.mark.parametrize("nothing", [None, 3, 2.5, object()])
def test_what_is_no_recording_is_a_sentence(pipe, nothing):
    with pytest.raises(ValueError, match=r"no sound|no rectangular|neither|integer samples"):
        pipe(nothing, sampling_rate=RATE)
    assert "error" in pipe([voice(0.5), nothing], sampling_rate=RATE, errors="return")[1]


# Options


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"errors": "ignore"}, r"errors='ignore' is not known: choose 'raise' or 'return'\.$"),
        ({"errors": None}, "errors=None is not known"),
        ({"batch_size": 0}, "batch_size=0 must be a whole number from 1 on"),
        ({"batch_size": 2.5}, "batch_size=2.5 must be"),
        ({"batch_size": True}, "batch_size=True must be"),
        ({"language": 3}, "language=3 is no language"),
        ({"language": "klingon"}, "language='klingon' is not a language that Whisper knows"),
        ({"channel": -1}, "channel=-1 is no channel"),
        ({"channel": "left"}, "channel='left' is no channel"),
    ],
)
def test_options_are_checked_before_any_recording_is_read(pipe, options, sentence):
    with pytest.raises(ValueError, match=sentence):
        pipe(["nowhere.wav"], **options)


def test_options_of_the_construction_can_be_undone(sounds):
    processor = tiny_processor("whisper")
    processor.annotation = {
        "transcript": {"recognizer": "none", "language": "de", "aligner": "recognizer"},
        "emphasis": {},
        "description": {"describer": "none"},
    }
    recognizer = Recognizer()
    options = {"recognizer": recognizer, "describer": "measured", "language": "fr"}
    pipe = MsfSerPipeline(tiny_model("whisper"), processor=processor, **options)
    first = pipe(sounds[0])
    assert first["texts"]["transcript"] == "recognized" and first["description"]
    trained = pipe(sounds[0], recognizer="as trained", describer="as trained")
    assert trained["texts"]["transcript"] == "absent: no recognizer"
    assert trained["texts"]["description"] == "absent: no describer"
    pipe(sounds[0], language=None)
    assert [language for _, language in recognizer.calls] == ["fr", "de"]
    assert pipe(sounds[0]) == first


def test_recognizers_are_not_kept_after_their_call(pipe, sounds):
    recognizer = Recognizer()
    pipe([sounds[0]], recognizer=recognizer)
    reference = weakref.ref(recognizer)
    del recognizer
    gc.collect()
    assert reference() is None


def test_the_last_two_named_recognizers_are_kept_and_loaded_once(pipe, sounds, monkeypatch):
    loaded = []

    def load(name, *_):
        loaded.append((name, Recognizer()))
        return loaded[-1][1]

    monkeypatch.setattr(MsfSerRecognizer, "from_pretrained", load)
    for name in ("first", "second") * 2:  # by turns
        pipe(sounds[0], recognizer=name)
    assert [name for name, _ in loaded] == ["first", "second"]
    pipe(sounds[0], recognizer="third")
    first = weakref.ref(loaded.pop(0)[1])
    gc.collect()
    assert first() is None
    pipe(sounds[0], recognizer="second")
    assert [name for name, _ in loaded] == ["second", "third"]


def test_threads_load_a_recognizer_once(pipe, sounds, monkeypatch):
    loaded = []

    def load(name, *_):
        time.sleep(0.2)
        loaded.append(name)
        return Recognizer()

    monkeypatch.setattr(MsfSerRecognizer, "from_pretrained", load)
    with ThreadPoolExecutor(4) as threads:
        results = list(threads.map(lambda _: pipe(sounds[0], recognizer="for threads"), range(4)))
    assert loaded == ["for threads"] and all(result == results[0] for result in results)


# One recording or many: the same options


@pytest.mark.parametrize("batch_size", [0, -1, 1.5, True, "8"])
def test_a_batch_size_is_checked_for_one_recording_too(pipe, sounds, batch_size):
    for inputs in (sounds[0], sounds, iter(sounds)):
        with pytest.raises(ValueError, match=r"batch_size=.* must be a whole number from 1 on"):
            pipe(inputs, batch_size=batch_size)


def test_the_windows_of_one_recording_form_batches(pipe, monkeypatch):
    sizes = []
    score = MsfSerPipeline._score
    monkeypatch.setattr(
        MsfSerPipeline,
        "_score",
        lambda self, windows, *rest: sizes.append(len(windows)) or score(self, windows, *rest),
    )
    long = {"array": voice(40.0), "sampling_rate": RATE}
    plain = pipe(long)
    assert set(sizes) == {1} and len(sizes) == len(plain["course"]) > 3
    sizes.clear()
    batched = pipe(long, batch_size=8)
    assert sizes == [len(plain["course"])]
    assert [batched[name] for name in LABELS] == pytest.approx([plain[name] for name in LABELS], abs=1e-5)


def test_a_mistyped_option_is_named_with_those_there_are(pipe, sounds):
    sentence = r"there is no option 'recognizr': give some of batch_size, channel, .*, recognizer, .*contributions\.$"
    with pytest.raises(TypeError, match=sentence):
        pipe(sounds[0], recognizr=None)
    with pytest.raises(TypeError, match=sentence):
        MsfSerPipeline(pipe.model, processor=pipe.processor, recognizr=None)
