"""The probe corpus follows its published rule and can be made again."""

import dataclasses
import hashlib
import importlib.util
import json
import re

import numpy as np
import pandas
import pytest
import soundfile

from msfser.corpora.probe import corpus as probe
from msfser.corpora.probe.synthesizer import Speech, Synthesizer, Word
from msfser.corpora.probe.texts import TEXTS

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("espeakng_loader") is None, reason="espeakng-loader is not installed"
)
SIZES = {"train": 24, "validation": 16, "test": 16}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return probe.make_probe(tmp_path_factory.mktemp("probe") / "corpus", seed=3, sizes=SIZES)


@pytest.fixture(scope="module")
def table(folder):
    return pandas.read_parquet(folder / "metadata.parquet")


def bare(text):
    return re.sub(r"[^\w' ]", "", text).lower()


def polarity(word, texts):
    if word in (*texts.positive, *texts.positive_openings):
        return 1
    return -1 if word in (*texts.negative, *texts.negative_openings) else 0


def test_every_row_follows_the_rule(table):
    assert table["split"].value_counts().to_dict() == SIZES
    for row in table.itertuples():
        texts = TEXTS[row.split]
        opening = [polarity(word, texts) for word in bare(row.transcript.split(".")[0]).split()]
        signs = [sign for sign in opening if sign]
        assert len(signs) == 2 and signs[0] == signs[1]
        words = bare(row.transcript).split()
        clause_signs = [polarity(word, texts) for word in words[len(opening) :]]
        assert sorted(sign for sign in clause_signs if sign) == [-1, 1]
        s = polarity(words[row.stressed_word], texts)
        assert s != 0 and row.stressed_word >= len(opening)
        assert row.valence == pytest.approx(0.5 + 0.25 * s + 0.2 * signs[0])
        assert 0.1 <= row.arousal <= 0.9
        manner = [level for level, pool in texts.manners.items() if any(m in row.description.lower() for m in pool)]
        assert manner == [row.dominance]
        assert row.speaker in texts.voices


def test_splits_are_disjoint():
    fields = ("voices", "clauses", "openings", "frames", "positive", "negative")
    adjectives = []
    for texts in TEXTS.values():
        adjectives += [*texts.positive, *texts.negative, *texts.positive_openings, *texts.negative_openings]
    assert len(adjectives) == len(set(adjectives))
    for field in fields:
        values = [value for texts in TEXTS.values() for value in getattr(texts, field)]
        assert len(values) == len(set(values)), field
    manners = [m for texts in TEXTS.values() for pool in texts.manners.values() for m in pool]
    assert len(manners) == len(set(manners))


def test_enough_material():
    assert min(len(TEXTS["train"].positive), len(TEXTS["train"].negative)) >= 40
    for split, voices in {"train": 6, "validation": 3, "test": 4}.items():
        assert len(TEXTS[split].voices) >= voices
    assert all(len(texts.manners) >= 3 for texts in TEXTS.values())


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_draws_are_balanced_and_independent(split):
    draws = probe.draw(TEXTS[split], probe.SIZES[split], np.random.default_rng(0))
    binary = np.array([(d.stressed_polarity, d.opening_polarity, 1 if d.positive_first else -1) for d in draws])
    stressed_first = binary[:, 0] * binary[:, 2]
    assert np.array_equal(binary.T @ binary, len(draws) * np.eye(3))
    assert stressed_first.sum() == 0 and stressed_first @ binary[:, 1] == 0
    others = np.array([(d.arousal, d.dominance, TEXTS[split].voices.index(d.voice)) for d in draws])
    correlation = np.corrcoef(np.column_stack([binary, others]).T) - np.eye(6)
    assert np.abs(correlation).max() < 4 / np.sqrt(len(draws))
    assert others[:, 0].min() < 0.15 and others[:, 0].max() > 0.85
    assert len({d.transcript for d in draws}) == len(draws)


class Dictated:
    """In place of the synthesizer: notes what it is given, and speaks every word for a tenth of a second."""

    def __init__(self):
        self.spoken = []

    def set_voice(self, name):
        self.spoken.append(name)

    def speak(self, ssml, **settings):
        self.spoken.append((ssml, settings))
        words = re.sub("<[^>]*>", "", ssml).split()
        return Speech(np.zeros(1), 1, [Word(word, i / 10, (i + 1) / 10) for i, word in enumerate(words)])


def test_version_1_is_this_corpus():
    """Whoever changes what is drawn or how it is spoken raises VERSION, so that folders are made anew."""
    dictated, draws = Dictated(), []
    for number, (split, size) in enumerate(probe.SIZES.items()):
        draws += probe.draw(TEXTS[split], size, np.random.default_rng([0, number]))
    for utterance in draws:
        probe._speak(dictated, utterance)
    levels = [probe._between(probe.LEVEL_RANGE, utterance.arousal) for utterance in draws]
    rules = [[dataclasses.astuple(utterance), utterance.valence] for utterance in draws]
    whole = json.dumps([rules, dictated.spoken, np.round(levels, 6).tolist()])
    assert (probe.VERSION, hashlib.sha256(whole.encode()).hexdigest()[:16]) == (1, "7b28d85301157eac")


def test_the_default_voice_has_the_stated_rate_pitch_and_volume():
    spoken = []
    for settings in ({}, {"rate": 175, "pitch": 50, "volume": 100}, {"pitch": 51}):
        synthesizer = Synthesizer()
        synthesizer.set_voice("en-us")
        spoken.append(synthesizer.speak("<speak>A letter was there.</speak>", **settings).samples)
    np.testing.assert_array_equal(spoken[0], spoken[1])
    assert not np.array_equal(spoken[0], spoken[2])


def test_each_adjective_is_stressed_as_often_as_not():
    draws = probe.draw(TEXTS["train"], 640, np.random.default_rng(0))
    for word in TEXTS["train"].positive:
        said = [d for d in draws if word in bare(d.transcript).split()]
        stressed = sum(bare(d.transcript).split()[d.stressed_word] == word for d in said)
        assert abs(2 * stressed - len(said)) <= 1


def test_words_have_one_time_each_in_order(folder, table):
    for row in table.itertuples():
        assert [word["word"] for word in row.words] == row.transcript.split()
        starts = np.array([word["start"] for word in row.words])
        ends = np.array([word["end"] for word in row.words])
        duration = soundfile.info(folder / row.audio).duration
        assert (np.diff(starts) >= 0).all() and starts[0] >= 0
        assert (starts < ends).all() and (ends[:-1] <= starts[1:] + 1e-9).all() and ends[-1] <= duration


def test_the_stressed_word_is_the_loudest(folder, table):
    def energy(row, index):
        samples, rate = soundfile.read(folder / row.audio)
        word = row.words[index]
        return np.mean(samples[int(word["start"] * rate) : int(word["end"] * rate)] ** 2)

    for row in table.itertuples():
        energies = [energy(row, index) for index in range(len(row.words))]
        assert int(np.argmax(energies)) == row.stressed_word


def test_emphasis_is_the_stressed_word_and_its_neighbors(table):
    for row in table.itertuples():
        words = bare(row.transcript).split()
        assert row.emphasis == " ".join(words[row.stressed_word - 1 : row.stressed_word + 2])
    assert probe.emphasized_words(["One", "two.", "three"], 0) == "one two"
    assert probe.emphasized_words(["Alone."], 0) == "alone"


def test_audio_is_16_khz_mono_of_the_drawn_level(folder, table):
    for row in table.itertuples():
        info = soundfile.info(folder / row.audio)
        assert (info.samplerate, info.channels, info.subtype, info.format) == (16_000, 1, "PCM_16", "FLAC")
        assert 3 <= info.duration <= 8
        samples, _ = soundfile.read(folder / row.audio)
        level = 10 * np.log10(np.mean(samples**2))
        assert level == pytest.approx(-42 + 18 * (row.arousal - 0.1) / 0.8, abs=0.1)
        assert np.abs(samples).max() < 1 - 1e-4


@pytest.mark.parametrize("voice", ["en-gb", "xx", "en-us+zzz", "en-us+M1"])
def test_a_voice_that_does_not_exist_is_an_error(voice):
    from msfser.corpora.probe.synthesizer import Synthesizer

    synthesizer = Synthesizer()
    synthesizer.set_voice("en-us+m1")
    with pytest.raises(ValueError, match=re.escape(repr(voice))):
        synthesizer.set_voice(voice)


def test_merged_words_share_one_event():
    from msfser.corpora.probe.synthesizer import Synthesizer

    synthesizer = Synthesizer()
    synthesizer.set_voice("en-us")
    text = '<speak>In the café it was <prosody rate="60%">ice-cold.</prosody> One of the best!</speak>'
    words = synthesizer.speak(text).words
    assert [word.text for word in words] == [
        "In",
        "the",
        "café",
        "it",
        "was",
        "ice-cold.",
        "One",
        "of",
        "the",
        "best!",
    ]
    assert words[0].end == words[1].start
    assert words[1].end - words[1].start == pytest.approx(1.5 * (words[0].end - words[0].start))
    assert words[5].end < words[6].start - 0.1


def test_the_same_seed_gives_the_same_bytes(folder, tmp_path):
    again = probe.make_probe(tmp_path / "again", seed=3, sizes=SIZES)
    files = sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    assert files == sorted(path.relative_to(again) for path in again.rglob("*") if path.is_file())
    assert all((folder / path).read_bytes() == (again / path).read_bytes() for path in files)


def test_reuse_and_rebuild(tmp_path, monkeypatch):
    corpus = tmp_path / "corpus"
    small = {"train": 8}
    probe.make_probe(corpus, sizes=small)
    before = (corpus / "metadata.parquet").stat().st_mtime_ns
    probe.make_probe(corpus, sizes=small)
    assert (corpus / "metadata.parquet").stat().st_mtime_ns == before
    probe.make_probe(corpus, seed=1, sizes=small)
    assert (corpus / "metadata.parquet").stat().st_mtime_ns != before

    kept = (corpus / "metadata.parquet").read_bytes()
    texts = TEXTS["train"]
    broken = {"train": type(texts)(**{**vars(texts), "voices": (*texts.voices, "en-us+zzz")})}
    monkeypatch.setattr(probe, "TEXTS", broken)
    with pytest.raises(ValueError, match="en-us\\+zzz"):
        probe.make_probe(corpus, seed=2, sizes={"train": 24})
    assert (corpus / "metadata.parquet").read_bytes() == kept
    assert [path.name for path in tmp_path.iterdir()] == ["corpus"]


def test_a_folder_with_other_things_is_left_alone(tmp_path):
    (tmp_path / "mine").write_text("precious")
    with pytest.raises(ValueError, match="not empty"):
        probe.make_probe(tmp_path, sizes={"train": 8})
    assert (tmp_path / "mine").read_text() == "precious"


def test_a_missing_engine_is_one_clear_sentence(tmp_path, monkeypatch):
    from importlib.metadata import PackageNotFoundError

    from msfser.corpora.probe import synthesizer

    def absent(name):
        raise PackageNotFoundError(name)

    monkeypatch.setattr(synthesizer, "version", absent)
    with pytest.raises(ImportError, match=re.escape('pip install "msfser[train]"')):
        probe.make_probe(tmp_path / "corpus")
    assert not (tmp_path / "corpus").exists()
