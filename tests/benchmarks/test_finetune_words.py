"""The mixtures of voices and sentences: what a label depends on, and the rows of the results."""

from pathlib import Path

import datasets
import numpy as np
import pandas as pd
import pytest
import soundfile

from msfser.benchmarks import finetune_words
from msfser.benchmarks.finetune import Corpus
from msfser.corpora.schema import file_audio, make_dataset

CLIPS = 2000


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """A made-up EmoBank."""
    folder = tmp_path_factory.mktemp("data")
    (folder / "emobank" / "corpus").mkdir(parents=True)
    ratings = np.random.default_rng(0).uniform(1, 5, (CLIPS + 20, 3)).round(2)
    table = pd.DataFrame(ratings, columns=["V", "A", "D"])
    table["text"] = [f"This is the sentence {number} of {len(table)}." for number in range(len(table))]
    table["id"], table["split"] = table["text"], "train"
    table.loc[0, "text"] = "Too short."
    table.loc[1:2, "split"] = ["dev", "test"]
    table.to_csv(folder / "emobank" / "corpus" / "emobank.csv", index=False)
    return folder


@pytest.fixture(scope="module")
def rows(tmp_path_factory) -> datasets.Dataset:
    path = tmp_path_factory.mktemp("voice") / "voice.wav"
    soundfile.write(path, 0.3 * np.sin(2 * np.pi * 200 * np.arange(8_000) / 16_000), 16_000)
    labels = np.random.default_rng(1).random((CLIPS, 3)).astype(np.float32)
    names = ("valence", "arousal", "dominance")
    return make_dataset(
        [
            {
                "audio": file_audio(str(path)),
                "transcript": "Same words.",
                **dict(zip(names, row.tolist(), strict=True)),
            }
            for row in labels
        ]
    )


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_a_label_depends_on_the_voice_and_by_its_share_on_the_sentence(rows, data, share):
    mixed = finetune_words.mixture(rows, data, share)
    sentences = mixed["transcript"][:]
    assert len(set(sentences)) == CLIPS and "Too short." not in sentences
    assert all(part in whole for part, whole in zip(mixed["emphasis"], sentences, strict=True))
    bank = pd.read_csv(data / "emobank" / "corpus" / "emobank.csv").set_index("text").loc[sentences]
    for name, rated, of_words in (
        ("valence", "V", share),
        ("arousal", "A", 0.2 * share),
        ("dominance", "D", 0.4 * share),
    ):
        of_voice, of_sentence = (
            np.corrcoef(mixed[name], values)[0, 1] for values in (rows[name], bank[rated].to_numpy())
        )
        assert of_sentence == pytest.approx(np.sqrt(of_words), abs=0.06)
        assert of_voice == pytest.approx(np.sqrt(0.8 - of_words), abs=0.06)
        assert min(mixed[name]) >= 0 and max(mixed[name]) <= 1


def test_rows_compare_the_shipped_setting_with_none_dropped(monkeypatch):
    draw = np.random.default_rng(0)
    labels = draw.random((40, 3))
    speakers = np.array([f"s{i % 4}" for i in range(40)])
    corpus = Corpus(None, None, speakers, np.arange(60), np.arange(40))
    monkeypatch.setattr(finetune_words, "labels_of", lambda corpus: labels)
    monkeypatch.setattr(finetune_words, "views", lambda corpus: {"all": None, "sound": None})

    def predicted(tested, corpus, count, draws, setting):
        noise = 0.3 if setting else 0.1
        return {name: labels + noise * draw.standard_normal((draws, 40, 3)) for name in tested}

    monkeypatch.setattr(finetune_words, "predictions_of", predicted)
    found = {row["name"]: row["value"] for row in finetune_words.rows_of("nemo", 0.25, corpus)}
    places = {f"nemo/words_25/{inputs}/50" for inputs in ("all", "sound")}  # there are fewer than 200 clips
    assert set(found) == {kind for place in places for kind in (place, f"{place}/none", f"minus_none/{place}")}
    for place in places:
        assert found[f"minus_none/{place}"] == pytest.approx(found[place] - found[f"{place}/none"], abs=0.02)
        assert found[f"minus_none/{place}"] > 0.05
