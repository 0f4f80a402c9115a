"""The learning curve: who is tested, what each system starts from, and rows, plot and table of its results."""

import csv
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from glides import glide
from tiny import tiny_model, tiny_processor
from tiny_run import make_tiny

from msfser import LABELS
from msfser.benchmarks import finetune
from msfser.benchmarks.finetune import SCRATCH, STARTER, rows_of_curve, untrained
from msfser.corpora.schema import file_audio, make_dataset
from msfser.description_msfser import NORMS
from msfser.evaluation.results import row, write
from msfser.training.collator import FeatureCollator
from msfser.training.trainer import MsfSerTrainer


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> Path:
    """The tiny corpus as a corpus of the protocol with four speakers, and a starter for it."""
    folder = make_tiny(tmp_path_factory.mktemp("tiny"))
    shutil.copytree(folder / "corpus", folder / "data" / "nemo")
    with open(folder / "corpus" / "metadata.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    for i, one in enumerate(rows):
        one |= {label: str(2 * float(one[label]) - 1) for label in LABELS} | {"speaker_id": f"s{i % 4}"}
    with open(folder / "data" / "nemo" / "metadata_weak.csv", "w", newline="") as file:
        table = csv.DictWriter(file, rows[0])
        table.writeheader()
        table.writerows(rows)
    model = tiny_model("whisper", audio_states="weighted", freeze_audio="all")
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "_encoder" not in name:
                parameter.add_(0.1 * torch.randn_like(parameter))
    model.save_pretrained(folder / "starter")
    processor = tiny_processor("whisper")
    processor.annotation = {"description": {"describer": "measured", "norms": NORMS}}
    processor.save_pretrained(folder / "starter")
    return folder


@pytest.fixture
def corpus(tiny, tmp_path, monkeypatch) -> finetune.Corpus:
    monkeypatch.setattr(finetune, "recognized_words", lambda paths, output: dict.fromkeys(("les", "gs"), paths))
    starter = Path(shutil.copytree(tiny / "starter", tmp_path / "starter"))
    return finetune.read_corpus("nemo", tiny / "data", starter, 2, tmp_path)


def test_texts_of_the_corpus_give_way_to_those_of_the_default_pipeline(tmp_path):
    sounds = [tmp_path / "voice.wav", tmp_path / "silence.wav"]
    soundfile.write(sounds[0], glide(150, 250, 20, "vowel")[0], 16_000)
    soundfile.write(sounds[1], np.zeros(16_000), 16_000)
    given = {"transcript": "Lubię czytać.", "emphasis": "czytać", "words": []}
    rows = make_dataset([given | {"audio": file_audio(str(file))} for file in sounds])
    found = finetune.with_default_texts(rows, {"gs": ["I like it.", None], "les": ["like", None]}, NORMS)
    assert found["transcript"][:] == ["I like it.", None] and found["emphasis"][:] == ["like", None]
    assert found["description"][0] and found["description"][1] is None
    assert found["words"][:] == [None, None] and found["audio"][:] == rows["audio"][:]


def test_speakers_are_tested_or_trained_on(corpus):
    tested, trained = set(corpus.speakers[corpus.tested]), set(corpus.speakers[corpus.drawn_from])
    assert len(tested) == 2 and not tested & trained and tested | trained == {"s0", "s1", "s2", "s3"}
    # Settings are chosen without the tested ones.
    tuning = finetune.divided(corpus, sorted(trained)[:1])
    assert set(tuning.speakers[tuning.tested]) | set(tuning.speakers[tuning.drawn_from]) == trained
    assert len(set(tuning.speakers[tuning.tested])) == 1
    assert finetune.labels_of(corpus).min() >= 0


def test_the_systems_differ_by_their_first_weights(corpus, monkeypatch):
    begun, train = [], MsfSerTrainer.train

    def watched(self, *args, **kwargs):
        begun.append(({name: weight.clone() for name, weight in self.model.state_dict().items()}, self))
        return train(self, *args, **kwargs)

    monkeypatch.setattr(MsfSerTrainer, "train", watched)
    setting = {"learning_rate": 1e-3, "num_train_epochs": 2}
    old, new = (finetune.predictions(corpus, 12, 2, setting, is_new) for is_new in (False, True))
    assert old.shape == new.shape == (2, len(corpus.tested), 3)
    first, second, *others = (weights for weights, _ in begun)
    start, _ = finetune.build_model(corpus.settings.run, corpus.settings.model)
    assert all(
        torch.equal(weight, one[name]) for one in (first, second) for name, weight in start.state_dict().items()
    )
    for one in others:
        assert not torch.equal(one["heads.valence.hidden.weight"], first["heads.valence.hidden.weight"])
        assert all(torch.equal(one[name], first[name]) for name in one if "_encoder" in name)
    assert not torch.equal(*(one["heads.valence.hidden.weight"] for one in others))
    assert [trainer.args.num_train_epochs for _, trainer in begun] == [2] * 4
    # Both systems train on the same clips, each draw on others.
    draws = [sorted(np.ravel(trainer.train_dataset["valence"]).tolist()) for _, trainer in begun]
    assert draws[0] == draws[2] != draws[1] == draws[3] and len(draws[0]) == 12


def test_no_clips_are_the_starter_as_it_is(corpus):
    found = finetune.predictions(corpus, 0, 1, {}, is_new=False)
    model, _ = finetune.build_model(corpus.settings.run, corpus.settings.model)
    batch = FeatureCollator(tiny_processor("whisper"))(corpus.items.select(corpus.tested[:1]).to_list())
    batch.pop("labels")
    with torch.no_grad():
        expected = model(**batch).logits
    np.testing.assert_allclose(found[0, :1], expected, atol=1e-4)


def test_a_new_model_keeps_the_encoders_alone():
    model = tiny_model("whisper", audio_states="weighted")
    fresh = untrained(model)
    same = {name for name, weight in fresh.state_dict().items() if torch.equal(weight, model.state_dict()[name])}
    assert {name for name in model.state_dict() if "_encoder" in name} <= same
    assert "pooling.attention.weight" not in same


def test_gains_are_paired():
    draw = np.random.default_rng(0)
    labels, speakers = draw.random((60, 3)), [f"s{i % 6}" for i in range(60)]
    noise = draw.standard_normal((3, 60, 3)) * np.linspace(0.1, 1, 60)[:, None]
    found = {(STARTER, 0): labels[None], (STARTER, 12): labels + 0.10 * noise, (SCRATCH, 12): labels + 0.11 * noise}
    rows = {one["name"]: one for one in rows_of_curve("x", found, labels, speakers)}
    assert set(rows) == {"x/starter/0", "x/starter/12", "x/scratch/12", "gain/x/12"}
    gain = rows["gain/x/12"]
    assert gain["value"] == pytest.approx(rows["x/starter/12"]["value"] - rows["x/scratch/12"]["value"])
    assert 0 < gain["low"] < gain["high"]
    assert gain["high"] - gain["low"] < rows["x/starter/12"]["high"] - rows["x/starter/12"]["low"]


def test_the_plot_has_a_line_for_each_system(tmp_path, monkeypatch):
    rows = [
        row(f"{corpus}/{system}/{count}", 0.5, 0.4, 0.6)
        for corpus in finetune.CORPORA
        for system in (STARTER, SCRATCH)
        for count in finetune.DRAWS
    ]
    write(tmp_path / "finetune.json", [one | {"command": "python"} for one in rows])
    monkeypatch.setattr(finetune, "RESULTS", tmp_path)
    monkeypatch.setattr(finetune, "PLOT", tmp_path / "finetune.svg")
    finetune.draw_plot()
    text = (tmp_path / "finetune.svg").read_text()
    assert text.count("from scratch") == 1 and "RAVDESS" in text and "nEMO" in text
    assert text.count('id="points"') == 4 and "800" in text


def test_the_seconds_of_a_run_are_measured_with_and_without_the_encoders(tiny, tmp_path, monkeypatch):
    settings = finetune.SETTINGS.read_text().replace("init_from: starter", f"init_from: {tiny / 'starter'}")
    (tmp_path / "tiny.yaml").write_text(settings.replace("num_train_epochs: ", "use_cpu: true\nnum_train_epochs: "))
    monkeypatch.setattr(finetune, "SETTINGS", tmp_path / "tiny.yaml")
    rows = {one["name"]: one["value"] for one in finetune.seconds_of_training(20)}
    assert set(rows) == {"seconds/20", "seconds/20_with_encoders"} and min(rows.values()) > 0
