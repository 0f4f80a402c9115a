"""Cached features of frozen encoders: the batches of the recordings, made once, renewed when they must be."""

import os

import datasets
import pyarrow as pa
import pytest
import soundfile
import torch
from conftest import noise, tiny_model, tiny_processor

from msfser import MsfSerCollator
from msfser.corpora.features import FeatureCollator, add_lengths, cache_features, keep_inputs, known_inputs
from msfser.corpora.schema import FEATURES

ROWS = 5


def table(folder, prefix: str = "", valence: float = 0.0) -> datasets.Dataset:
    """Five rows: one without sound, one with embedded sound, some without texts."""
    rows = []
    for i in range(ROWS):
        path = folder / f"{i}.wav"
        if not path.exists():
            soundfile.write(path, noise(0.5 + 0.1 * i, i), 16_000)
        audio = {"path": str(path), "bytes": None} if i != 3 else {"path": "3.wav", "bytes": path.read_bytes()}
        rows.append(
            {
                "audio": None if i == 1 else audio,
                "transcript": prefix + "a b c"[: 2 * i + 1],
                "emphasis": None if i == 2 else "b",
                "valence": valence + 0.1 * i,
                "arousal": 0.5,
                "dominance": 1 - 0.1 * i,
                "speaker": "x",
            }
        )
    return datasets.Dataset(pa.Table.from_pylist(rows, schema=FEATURES.arrow_schema))


@pytest.fixture
def corpus(tmp_path) -> datasets.Dataset:
    return table(tmp_path)


@pytest.mark.parametrize(
    "switches",
    [
        {"freeze_audio": "all"},
        {"freeze_audio": "all", "audio_states": "weighted"},
        {"freeze_audio": "all", "freeze_text": False},
        {"freeze_audio": "none"},
        {"freeze_audio": "all", "semantics": ["gs"]},
        {"audio": False},
    ],
    ids=str,
)
@pytest.mark.parametrize("encoder", ["whisper", "wavlm"])
def test_the_batch_is_that_of_the_recordings(corpus, encoder, switches):
    model, processor = tiny_model(encoder, **switches), tiny_processor(encoder)
    cached = cache_features(corpus, model, processor)
    batch = FeatureCollator(processor)([cached[i] for i in range(ROWS)])
    plain = MsfSerCollator(processor)([corpus[i] for i in range(ROWS)])
    assert torch.equal(batch["labels"], plain["labels"])
    with torch.no_grad():
        assert torch.allclose(model(**batch).logits, model(**plain).logits, atol=1e-6)


def test_what_the_model_does_not_have_is_not_prepared(corpus):
    cached = cache_features(corpus, tiny_model(audio=False, semantics=["gs"]), tiny_processor())
    assert known_inputs(cached) == ["transcript"]
    assert not {"audio", "audio_states", "emphasis", "les_embedding"} & set(cached.column_names)


def test_features_are_made_once(corpus, tmp_path, monkeypatch):
    model, processor = tiny_model(freeze_audio="all"), tiny_processor()
    first = cache_features(corpus, model, processor)
    monkeypatch.setattr(type(model), "encode_audio", lambda *_, **__: pytest.fail("encoded again"))
    monkeypatch.setattr(type(model), "encode_text", lambda *_, **__: pytest.fail("encoded again"))
    # Other fusion settings and labels change nothing of it.
    other = tiny_model(freeze_audio="all", cross_fusion="concat", fusion_size=8)
    other.audio_encoder, other.text_encoder = model.audio_encoder, model.text_encoder
    second = cache_features(table(tmp_path, valence=0.5), other, processor)
    assert first["valence"][:] != second["valence"][:]
    assert first["gs_embedding"][:] == second["gs_embedding"][:]
    assert first["audio_states"][:] == second["audio_states"][:]


@pytest.mark.parametrize("change", ["weights", "recording", "text", "preparation", "states"])
def test_a_change_makes_new_features(corpus, change, tmp_path, monkeypatch):
    model, processor = tiny_model(freeze_audio="all"), tiny_processor()
    cache_features(corpus, model, processor)
    calls = []
    for name in ("encode_audio", "encode_text"):
        encode = getattr(type(model), name)
        monkeypatch.setattr(type(model), name, lambda self, *a, _f=encode, **k: calls.append(1) or _f(self, *a, **k))
    if change == "weights":
        with torch.no_grad():
            model.audio_encoder.encoder.layers[0].feed_forward.output_dense.bias += 1
    elif change == "recording":
        path = corpus[0]["audio"]["path"]
        soundfile.write(path, noise(0.7, 9), 16_000)
        os.utime(path, (1, 1))
    elif change == "text":
        corpus = table(tmp_path, prefix="d ")
    elif change == "preparation":
        processor.feature_extractor.max_seconds = 0.5
    else:
        model = tiny_model(freeze_audio="all", audio_states="weighted")
    cache_features(corpus, model, processor)
    assert calls


def test_inputs_can_be_withheld_in_either_form(corpus):
    cached = cache_features(corpus, tiny_model(freeze_audio="all"), tiny_processor())
    assert known_inputs(corpus) == known_inputs(cached) == ["audio", "transcript", "emphasis"]
    for rows in (corpus, cached):
        assert known_inputs(keep_inputs(rows, ["transcript"])) == ["transcript"]


def test_lengths_are_seconds_of_sound(corpus):
    assert add_lengths(corpus)["length"][:] == pytest.approx([0.5, 0.0, 0.7, 0.8, 0.9])
