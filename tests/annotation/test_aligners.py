"""Forced alignment: the best path against brute force, a tiny CTC model, and PocketSphinx where it is installed."""

import itertools
import json

import numpy as np
import pytest
import torch
from tiny import AUDIO_CONFIGS, noise
from transformers import AutoConfig, AutoModel, AutoModelForCTC, Wav2Vec2CTCTokenizer

from msfser.annotation import aligners
from msfser.annotation.aligners import CtcAligner, SphinxAligner, _filled, ctc_path
from msfser.audio_msfser import load_audio
from msfser.corpora.probe.synthesizer import Synthesizer

LETTERS = ["<pad>", "<s>", "</s>", "<unk>", "|", *"ABCDEFGHIJKLMNOPQRSTUVWXYZ'"]


def collapsed(path: tuple[int, ...]) -> list[int]:
    return [label for label, _ in itertools.groupby(path) if label != 0]


@pytest.mark.parametrize("labels", [[1], [1, 2], [1, 1], [2, 1, 2], [1, 1, 2]])
@pytest.mark.parametrize("seed", range(5))
def test_the_path_is_the_best_of_all(labels, seed):
    scores = np.random.default_rng(seed).standard_normal((6, 3))
    scores = torch.tensor(scores).log_softmax(-1).numpy()

    def total(path):
        return sum(scores[frame, label] for frame, label in enumerate(path))

    best = max((path for path in itertools.product(range(3), repeat=6) if collapsed(path) == labels), key=total)
    runs, frame = [], 0
    for label, group in itertools.groupby(best):
        length = len(list(group))
        if label != 0:
            runs.append((frame, frame + length - 1))
        frame += length
    assert ctc_path(scores, labels, blank=0) == runs


def test_too_few_frames_have_no_path():
    scores = np.zeros((2, 3))
    assert ctc_path(scores, [1, 2], 0) == [(0, 0), (1, 1)]
    assert ctc_path(scores, [1, 1], 0) is None
    assert ctc_path(scores, [1, 2, 1], 0) is None


def test_words_without_times_share_the_gap():
    assert _filled([None, (1.0, 2.0), None, None, (3.0, 4.0), None], 5.0) == [
        (0.0, 1.0),
        (1.0, 2.0),
        (2.0, 2.5),
        (2.5, 3.0),
        (3.0, 4.0),
        (4.0, 5.0),
    ]


# CTC


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A tiny random CTC model as published ones are saved."""
    folder = tmp_path_factory.mktemp("ctc")
    (folder / "vocab.json").write_text(json.dumps({letter: i for i, letter in enumerate(LETTERS)}))
    Wav2Vec2CTCTokenizer(str(folder / "vocab.json")).save_pretrained(folder)
    torch.manual_seed(0)
    config = AutoConfig.for_model(
        **AUDIO_CONFIGS["wav2vec2_group_norm"] | {"vocab_size": len(LETTERS), "pad_token_id": 0}
    )
    AutoModelForCTC.from_config(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def ctc(folder) -> CtcAligner:
    return CtcAligner(str(folder))


def probabilities_of(letters: str, frames: list[int], length: int) -> np.ndarray:
    """Log probabilities of a model that is nearly sure of a letter at each given frame and of the blank elsewhere."""
    probabilities = np.full((length, len(LETTERS)), 0.001)
    probabilities[:, 0] = 0.9
    for letter, frame in zip(letters, frames, strict=True):
        probabilities[frame] = 0.001
        probabilities[frame, LETTERS.index(letter)] = 0.9
    return np.log(probabilities / probabilities.sum(1, keepdims=True))


def test_the_model_gives_each_frame_probabilities_of_letters(ctc):
    probabilities = np.exp(ctc._log_probabilities(noise(1.0)))
    assert probabilities.shape == (len(probabilities), len(LETTERS))
    np.testing.assert_allclose(probabilities.sum(1), 1, atol=1e-5)


def test_letters_give_the_times_of_words(ctc, monkeypatch):
    monkeypatch.setattr(ctc, "_log_probabilities", lambda sound: probabilities_of("AB|C", [3, 5, 7, 10], 20))
    [words] = ctc([noise(1.0)], ["Ab, - 42 c!"])
    # 5 * 8 * 8 samples a frame
    assert words == [
        {"word": "Ab,", "start": 0.06, "end": 0.12},
        {"word": "42", "start": 0.12, "end": 0.2},
        {"word": "c!", "start": 0.2, "end": 0.22},
    ]


def test_a_random_model_gives_ordered_times_that_do_not_depend_on_the_batch(ctc):
    sounds, texts = [noise(2.0, seed=1), noise(1.0, seed=2)], ["the food was wonderful", "Don't!"]
    together = ctc(sounds, texts)
    assert [[entry["word"] for entry in words] for words in together] == [text.split() for text in texts]
    for words, sound in zip(together, sounds, strict=True):
        edges = [entry[edge] for entry in words for edge in ("start", "end")]
        assert edges == sorted(edges)
        assert edges[0] < edges[-1] <= len(sound) / 16_000
    assert [ctc([sound], [text])[0] for sound, text in zip(sounds, texts, strict=True)] == together


def test_what_cannot_be_aligned_is_none(ctc):
    assert ctc([noise(0.6), noise(0.6), noise(0.6)], ["word " * 50, "", "\u4f60\u597d"]) == [None, [], None]


def test_models_without_a_trained_head_are_refused(tmp_path):
    AutoModel.from_config(AutoConfig.for_model(**AUDIO_CONFIGS["wavlm"])).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="has no trained CTC head"):
        CtcAligner(str(tmp_path))
    AutoModel.from_config(AutoConfig.for_model(**AUDIO_CONFIGS["whisper"])).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="is a Whisper model, not a CTC model"):
        CtcAligner(str(tmp_path))
    with pytest.raises(OSError, match="neither the Hub nor its cache has it"):
        CtcAligner("facebook/nothing")


def test_each_sound_needs_a_transcript(ctc):
    with pytest.raises(ValueError, match="shorter"):
        ctc([noise(1.0), noise(1.0)], ["a"])


# PocketSphinx


def test_pocketsphinx_has_to_be_installed(monkeypatch):
    monkeypatch.setattr(aligners, "pocketsphinx", None)
    with pytest.raises(ImportError, match="pip install pocketsphinx"):
        SphinxAligner()


@pytest.fixture(scope="module")
def sphinx() -> SphinxAligner:
    pytest.importorskip("pocketsphinx")
    return SphinxAligner()


def test_pocketsphinx_finds_words_where_they_are(sphinx):
    synthesizer = Synthesizer()
    synthesizer.set_voice("en-us")
    speech = synthesizer.speak("<speak>My sister bought seven well-known flowers.</speak>", rate=150, volume=80)
    sound = load_audio(speech.samples, speech.rate)
    text = "My sister bought \u2014 seven well-known flowers."
    found, _, again = sphinx([sound, noise(1.0), sound], [text, "noise", text])
    assert again == found
    assert [entry["word"] for entry in found] == [word.text for word in speech.words]
    errors = [abs(entry["start"] - word.start) for entry, word in zip(found, speech.words, strict=True)]
    errors += [abs(entry["end"] - word.end) for entry, word in zip(found, speech.words, strict=True)]
    assert np.median(errors) < 0.05


def test_what_pocketsphinx_cannot_align_has_no_times(sphinx):
    sounds, texts = [noise(1.0), noise(1.0), noise(2.0)], ["zxqvy 1970", "", "the food was wonderful " * 20]
    assert sphinx(sounds, texts) == [None, [], None]
