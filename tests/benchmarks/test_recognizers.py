"""The recognizers that are compared: each is what its row says, and clips get their own words and times."""

import inspect
from types import SimpleNamespace

import numpy as np
import pytest
from tiny import noise, tiny_recognizer
from transformers.models.whisper.modeling_whisper import WhisperAttention

from msfser.benchmarks import recognizers

faster_whisper = pytest.importorskip("faster_whisper")


def test_the_library_runs_its_own_layers(monkeypatch):
    made = []

    def recognize(model, **parts):
        made.append(model)
        return lambda sound, **options: {"text": " a b", "chunks": [{"text": " a", "timestamp": (0.0, None)}]}

    monkeypatch.setattr(recognizers, "AutomaticSpeechRecognitionPipeline", recognize)
    recognizer = tiny_recognizer()
    found = recognizers.library(recognizer)([noise(1.0)])
    assert found == [("a b", [{"word": "a", "start": 0.0, "end": 0.0}])]
    assert not [module for module in made[0].modules() if type(module).__name__.startswith("MsfSer")]
    attention = recognizer.model.model.encoder.layers[0].self_attn
    assert type(attention) is not WhisperAttention and isinstance(attention, WhisperAttention)


@pytest.mark.parametrize("batch", [1, 2])
def test_ours_gives_each_clip_its_text(batch):
    recognizer, sounds = tiny_recognizer(), [noise(1.0, seed) for seed in range(3)]
    expected = recognizer(sounds, "en")
    found = recognizers.ours(recognizer, batch)(sounds)
    assert [one.words for one in found] == [one.words for one in expected]


class Model:
    """A word in the middle of each clip, which is named by its loudness."""

    def __init__(self, folder, device, compute_type, cpu_threads):
        self.kind = compute_type

    def transcribe(self, sound, **options):
        inspect.signature(faster_whisper.WhisperModel.transcribe).bind(self, sound, **options)
        return iter([segment(sound, 0.0)]), None


class Batches:
    def __init__(self, model):
        assert model.kind == "int8"

    def transcribe(self, sound, clip_timestamps, batch_size, **options):
        of = inspect.signature(REAL.transcribe)
        of.bind(self, sound, clip_timestamps=clip_timestamps, batch_size=batch_size, **options)
        assert batch_size == 2
        for part in clip_timestamps:
            first, last = (int(part[end] * 16_000) for end in ("start", "end"))
            yield_of.append(segment(sound[first:last], part["start"]))
        return iter(yield_of), None


REAL = faster_whisper.BatchedInferencePipeline
yield_of: list[SimpleNamespace] = []


def segment(sound, start):
    middle = int(start * 100) / 100 + len(sound) / 32_000
    word = SimpleNamespace(word=f" {sound[-2]:.1f}", start=middle, end=middle + 0.1)
    return SimpleNamespace(text=word.word, words=[word], seek=int(start * 100))


def test_faster_whisper_in_batches_gives_each_clip_its_words_and_times(monkeypatch, tmp_path):
    monkeypatch.setattr(faster_whisper, "WhisperModel", Model)
    monkeypatch.setattr(faster_whisper, "BatchedInferencePipeline", Batches)
    yield_of.clear()
    seconds = (2.00313, 3.7, 2.999, 4.123456)
    sounds = [np.full(round(s * 16_000), i / 10, np.float32) for i, s in enumerate(seconds)]
    one_by_one = recognizers.faster_whisper(tmp_path, "int8")(sounds)
    in_batches = recognizers.faster_whisper(tmp_path, "int8", 2)(sounds)
    assert [found.text for found in in_batches] == [found.text for found in one_by_one] == ["0.0", "0.1", "0.2", "0.3"]
    for found, alone in zip(in_batches, one_by_one, strict=True):
        assert found.words[0]["start"] == pytest.approx(alone.words[0]["start"], abs=1e-6)
