"""The rows about the recipe of the starter, from predictions that are made up."""

import numpy as np
import pandas as pd
import pytest

from msfser.benchmarks.starter import TESTS, folds_of, held_out_rows
from msfser.configuration_msfser import LABELS
from msfser.evaluation.acted import Material, strong_counterparts
from msfser.training.fitting import Clips

CORPORA = ("ravdess", "emodb", "nemo", "emotiontts_kr")
EMOTIONS = {"neutral": 0.5, "anger": 0.8, "sadness": 0.2, "happiness": 0.9}


@pytest.fixture(scope="module")
def made():
    """Predictions that follow the labels, better with all inputs than from sound alone, and far worse in noise."""
    draw = np.random.default_rng(0)
    rows = [
        {
            "corpus": corpus,
            "speaker": f"{corpus}-{i}",
            "emotion": emotion,
            "intensity": intensity,
            "sentence": sentence,
        }
        for corpus in CORPORA
        for i in range(4)
        for emotion in EMOTIONS
        for intensity in (("normal", "strong") if corpus == "ravdess" else (None,))
        for sentence in "ab"
    ]
    table = pd.DataFrame(rows)
    arousal = table["emotion"].map(EMOTIONS).to_numpy() * np.where(table["intensity"] == "normal", 0.6, 1.0)
    labels = np.stack([draw.uniform(0.2, 0.8, len(table)), arousal, arousal], 1).astype(np.float32)
    clips = Clips(labels, table["speaker"].to_numpy(), {}, {}, {}, strong_counterparts(table))
    spread = {"all": 0.01, "sound": 0.02, "noise": 0.5, "band": 0.02, "crop": 0.02}
    predictions = {
        kind: np.stack([labels + draw.normal(0, of_kind, labels.shape) for _ in range(2)])
        for kind, of_kind in spread.items()
    }
    return Material(clips, table, [], {}), predictions


def test_every_row_has_a_value(made):
    material, predictions = made
    rows = {row["name"]: row["value"] for row in held_out_rows(material, predictions)}
    assert np.isfinite(list(rows.values())).all()
    expected = {f"{name}/{dimension}" for name in ("held_out", "sound") for dimension in (*LABELS, "mean")}
    expected |= {f"{kind}/{label}_r" for kind in TESTS for label in LABELS}
    expected |= {f"{name}/{corpus}" for name in ("full_minus_audio",) for corpus in CORPORA}
    expected |= {f"held_out/{corpus}/mean" for corpus in CORPORA} | {"ranking/arousal_raw", "ranking/valence"}
    assert expected <= rows.keys()
    assert rows["ranking/arousal_raw"] > 0.9 and rows["held_out/mean"] > rows["sound/mean"] > 0.9
    assert rows["noise/valence_r"] < 0.6 < rows["band/valence_r"]


def test_the_corpus_that_is_never_trained_on_counts_apart(made):
    material, predictions = made
    korean = (material.table["corpus"] == "emotiontts_kr").to_numpy()
    other = {kind: np.where(korean[None, :, None], 0.5 + 0 * values, values) for kind, values in predictions.items()}
    before, after = ({row["name"]: row["value"] for row in held_out_rows(material, of)} for of in (predictions, other))
    changed = {name for name in before if before[name] != pytest.approx(after[name], abs=1e-6)}
    assert changed == {"held_out/emotiontts_kr/mean", "full_minus_audio/emotiontts_kr"}


def test_speakers_are_in_one_fold_and_the_other_corpus_is_a_fold():
    clips = pd.DataFrame({"corpus": np.repeat(CORPORA, 12), "speaker": np.repeat([f"s{i}" for i in range(16)], 3)})
    folds = folds_of(clips, CORPORA[:3])
    assert set(folds) == {"speakers_0", "speakers_1", "speakers_2", "emotiontts_kr"}
    for fold in folds.values():
        train, rest = fold.split
        assert not set(clips["speaker"][train]) & set(clips["speaker"][rest])
        assert not (clips["corpus"][train] == "emotiontts_kr").any()
