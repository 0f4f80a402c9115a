"""The peers: folds without their speakers, settings for every system, and rows with budget and choice."""

import numpy as np
import pandas as pd
import pytest
import torch
from tiny import tiny_model
from tiny_run import make_tiny

from msfser.benchmarks import peer_systems, peers
from msfser.evaluation.acted import Material
from msfser.evaluation.baselines import FITTING_CODE, NEURAL_GRID
from msfser.evaluation.held_out import HeldOut
from msfser.training.fitting import Clips, MeanHead

SIZE = 32


@pytest.fixture
def material() -> Material:
    """Two corpora of twelve and nine speakers; the second has no words."""
    draw = np.random.default_rng(0)
    speakers = [f"ravdess-{n:02d}" for n in range(12) for _ in range(8)] + [f"emodb-{n:02d}" for n in range(9)] * 4
    count = len(speakers)
    labels = draw.uniform(size=(count, 3)).astype(np.float32)
    direction = draw.standard_normal((3, SIZE))
    states = [torch.tensor(draw.standard_normal((3, 20, SIZE)) + 4 * (y - 0.5) @ direction).half() for y in labels]
    texts = {
        name: torch.tensor(draw.standard_normal((count, SIZE)), dtype=torch.float32) for name in ("les", "gs", "es")
    }
    texts["les"][96:] = texts["gs"][96:] = float("nan")
    stronger = np.full(count, -1)
    stronger[0:96:2] = np.arange(1, 96, 2)
    table = pd.DataFrame({"speaker": speakers, "corpus": [name.partition("-")[0] for name in speakers]})
    table["sentence"] = "a"
    table["intensity"] = np.where(table["corpus"] == "emodb", None, np.where(np.arange(count) % 2, "strong", "normal"))
    table["emotion"] = np.array(["anger", "anger", "happiness", "happiness", "sadness", "sadness", "calm", "calm"])[
        np.arange(count) % 8
    ]
    kinds = {"as_recorded": states, "one_level": states[::-1]}
    clips = Clips(labels, np.array(speakers), kinds, peers.SAMPLING_WEIGHTS, texts, stronger, peers.TEXT_DROPOUT)
    return Material(clips, table, [], {})


@pytest.mark.parametrize(
    ("name", "audio", "semantics"),
    [
        ("asp", True, []),
        ("text", False, ["les", "gs"]),
        ("ours_audio", True, []),
        ("ours_full", True, ["les", "gs", "es"]),
    ],
)
def test_each_system_reads_what_its_name_says(name, audio, semantics, tmp_path, monkeypatch):
    make_tiny(tmp_path)
    monkeypatch.setattr(peer_systems, "AUDIO_ENCODER", str(tmp_path / "audio"))
    monkeypatch.setattr(peer_systems, "TEXT_ENCODER", str(tmp_path / "text"))
    model = peer_systems.build(peer_systems.SWITCHES[name])
    assert (model.config.audio, model.config.semantics) == (audio, semantics)
    trained = {part for part, weight in model.named_parameters() if weight.requires_grad}
    assert trained and not any("_encoder" in part for part in trained)


def test_held_out_speakers_are_never_trained_on(material):
    folds = peers.folds_of(material)
    assert [*folds] == [*(f"speakers_{n}" for n in range(6)), "corpus_ravdess", "corpus_emodb"]
    speakers, corpora = material.clips.speakers, material.table["corpus"].to_numpy()
    for name, fold in folds.items():
        held = set(speakers[fold.split.held])
        for split in (fold.split, *fold.inner):
            assert not (held | set(speakers[split.held])) & set(speakers[split.train]) - set(speakers[split.held])
            assert not set(speakers[split.train]) & (held | set(speakers[split.held]))
        assert len(fold.inner) == 3
        # What is left out inside is of the training clips.
        assert all(set(split.held) <= set(fold.split.train) for split in fold.inner)
        if name.startswith("corpus_"):
            assert set(corpora[fold.split.held]) == {name.removeprefix("corpus_")}
    everyone = np.concatenate([folds[f"speakers_{n}"].split.held for n in range(6)])
    assert sorted(everyone) == [*range(len(speakers))]


def test_a_given_part_is_held_out(material):
    given = Material(material.clips, material.table, [], {"test": material.table["corpus"].to_numpy() == "emodb"})
    folds = peers.folds_of(given)
    assert [*folds] == ["test"] and len(folds["test"].inner) == 3
    assert set(material.clips.speakers[folds["test"].split.held]) == {f"emodb-{n:02d}" for n in range(9)}


def test_the_rows_name_budget_and_choice(material, tmp_path, monkeypatch):
    monkeypatch.setattr(peers, "egemaps", lambda paths, folder: np.stack([s.float().mean((0, 1)) for s in states]))
    monkeypatch.setattr(peers, "level_rows", lambda scores: [])
    monkeypatch.setattr(peer_systems, "NEURAL_GRID", [{"learning_rate": 1e-2, "epochs": 1}])
    # How a fit learns is tested where it is; here the number of fits counts.
    monkeypatch.setattr(peer_systems, "fit", lambda new, clips, items, seed, recipe: new().eval())
    of_texts = {"semantics": ["les", "gs"], "audio": False}
    monkeypatch.setattr(
        peer_systems, "build", lambda switches: tiny_model(**of_texts) if "audio" in switches else MeanHead(SIZE)
    )
    states = material.clips.states["as_recorded"]
    names = ["egemaps_svr", "last_layer", "text", "ours_audio"]
    pytest.importorskip("sklearn")
    systems = peers.make_systems(names, material, tmp_path)
    engine = HeldOut(material.clips.labels, peers.folds_of(material), "data", tmp_path)
    engine.run(systems, [0])
    rows = {row["name"]: row for row in peers.rows_of_fits(engine, material, systems, [0])}
    # Nine pairs of groups and three thirds of each corpus, with each setting; eight folds.
    assert {key: rows["last_layer/mean"][key] for key in ("settings", "fits_to_choose", "fits_to_report")} == {
        "settings": 2,
        "fits_to_choose": 9 + 2 * 3,
        "fits_to_report": 8,
    }
    assert rows["egemaps_svr/mean"]["settings"] == 16 and rows["egemaps_svr/mean"]["value"] > 0.5
    assert set(rows["text/mean"]["chosen"]) == set(engine.folds)
    assert {"audio_minus_last_layer", "ours_audio/ranking/arousal_leveled", "cross/emodb/text/drop"} <= set(rows)
    text = engine.gathered(systems[2:3], [0], ["corpus_ravdess"])["text"]["as_recorded"][0]
    # Without words in training there is nothing but the mean of its labels.
    np.testing.assert_allclose(text[:96].std(0), 0, atol=1e-6)


def test_every_neural_system_has_the_same_grid(material):
    grids = [peer_systems.neural_system(name, material.clips) for name in peer_systems.NEURAL]
    assert all(list(system.grid) == NEURAL_GRID and list(system.spread) == [False, True] for system in grids)


def test_the_names_of_fits_include_the_code_that_fits(material):
    code = set(peer_systems.neural_system("asp", material.clips).code)
    assert {"training.fitting", "training.trainer", "fusion_msfser", "modeling_msfser", "loss_msfser"} <= code
    # Those behind these, too, but not the commands.
    assert {"levels_msfser", "fast_products_msfser", "encoders_msfser", "attention_msfser"} <= code
    assert not any(name.startswith(("cli.", "corpora.")) for name in code)
    assert not any(name.startswith("msfser") for name in FITTING_CODE)
