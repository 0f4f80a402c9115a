"""Leaving one corpus out: the protocol, its sentences, and the command on generated corpora."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch
import yaml
from tiny import noise, tiny_model, tiny_processor

from msfser import LABELS
from msfser.cli.main import main
from msfser.description_msfser import WORDS
from msfser.evaluation import baselines, held_out, leave_out, starter_system
from msfser.evaluation.acted import strong_counterparts
from msfser.evaluation.baselines import svr_system
from msfser.evaluation.evaluate import parse
from msfser.evaluation.held_out import HeldOut, mean_ccc
from msfser.evaluation.leave_out import read_corpora, read_protocol, save
from msfser.evaluation.regressor import fit_regressor
from msfser.evaluation.results import read
from msfser.starter import material
from msfser.starter.material import RECIPE
from msfser.training.sentences import Sentences

EMOTIONS = {"anger": (-0.5, 0.6, 0.2), "neutral": (0.0, 0.0, 0.0), "boredom": (-0.6, -0.6, -0.3)}


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """The four corpora of the protocol, eight speakers' noises each."""
    root = tmp_path_factory.mktemp("corpora")
    protocol = read_protocol()
    for place, name in enumerate((*protocol.trained, *protocol.tested)):
        (root / name / "audio").mkdir(parents=True)
        rows = []
        for number in range(24):
            emotion = [*EMOTIONS][number % 3]
            file = f"audio/{number}.wav"
            soundfile.write(root / name / file, noise(0.5, 100 * place + number), 16_000)
            speaker = ("ema", "nea", "emb", "neb", "05", "06", "07", "08")[number // 3]
            labels = np.array(EMOTIONS[emotion]) + 0.01 * number
            rows.append([file, speaker, emotion, *labels])
        columns = ["file_name", "speaker_id", "emotion", *LABELS]
        pd.DataFrame(rows, columns=columns).to_csv(root / name / "metadata_weak.csv", index=False)
    (root / protocol.sentences).mkdir()
    said = [[f"the food was {'abcdefghij'[n % 10]} {n}", ("neutral", "joy")[n % 2], "train"] for n in range(40)]
    said += [["dreadful", "anger", "dev"], ["wonderful", "joy|love", "test"]]
    columns = ["text", "labels", "split"]
    pd.DataFrame(said, columns=columns).to_csv(root / protocol.sentences / "goemotions.csv", index=False)
    return root


@pytest.fixture
def tiny(monkeypatch, tmp_path):
    """Tiny encoders and short fits."""
    new = lambda: tiny_model("whisper", audio_states="weighted", freeze_audio="all")  # noqa: E731
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(leave_out, "ensure_encoders", lambda names: None)
    monkeypatch.setattr(leave_out, "regressor_encoder", lambda: (new(), tiny_processor("whisper")))
    for module in (starter_system, material):
        monkeypatch.setattr(module, "new_starter", new)
        monkeypatch.setattr(module, "starter_processor", lambda: tiny_processor("whisper"))
        monkeypatch.setattr(module, "NOISES", 8)
        monkeypatch.setattr(module, "RECIPE", replace(RECIPE, epochs=1))
    draw = np.random.default_rng(0)
    monkeypatch.setattr(starter_system, "voice_measures", lambda paths: draw.uniform(size=(len(paths), len(WORDS))))
    monkeypatch.setattr(baselines, "fit_regressor", lambda *of, **how: fit_regressor(*of, **how | {"steps": 3}))
    monkeypatch.setattr(baselines, "NEURAL_GRID", [{"learning_rate": rate, "epochs": 1} for rate in (1e-3, 1e-2)])
    monkeypatch.chdir(tmp_path)


def test_the_protocol_is_fixed():
    protocol = read_protocol()
    assert (protocol.trained, protocol.tested) == (["ravdess", "emodb", "nemo"], ["emotiontts_kr"])
    assert protocol.emotions == {"emodb": ["anger", "happiness", "neutral", "sadness"]}
    assert protocol.same_speaker == {"emotiontts_kr": [["ema", "nea"], ["emb", "neb"]]}
    assert protocol.sentences == "goemotions"
    assert protocol.label_range == [-1, 1] and protocol.table == "metadata_weak.csv"


def test_corpora_are_read_by_the_protocol(data):
    clips = read_corpora(data, read_protocol())
    assert clips["corpus"].value_counts().to_dict() == {"ravdess": 24, "nemo": 24, "emotiontts_kr": 24, "emodb": 16}
    assert set(clips[clips["corpus"] == "emodb"]["emotion"]) == {"anger", "neutral"}
    speakers = clips.groupby("corpus")["speaker"].unique()
    assert len(speakers["ravdess"]) == 8 and "ravdess-05" in speakers["ravdess"]
    assert sorted(speakers["emotiontts_kr"])[-2:] == ["emotiontts_kr-ema", "emotiontts_kr-emb"]
    assert len(speakers["emotiontts_kr"]) == 6
    assert clips["valence"].iloc[0] == pytest.approx(0.25) and clips["path"].map(Path).map(Path.is_file).all()


def test_corpora_are_read_as_they_are_distributed(tmp_path, monkeypatch):
    protocol = replace(read_protocol(), trained=["ravdess", "emodb"], tested=["emotiontts_kr"])
    names = {
        "ravdess": ["Actor_01/03-01-05-01-01-02-01", "Actor_01/03-01-05-02-01-02-01", "Actor_02/03-01-07-01-02-01-02"],
        "emodb": ["wav/03a01Wa", "wav/03a01Nc", "wav/03a01La"],  # the last one is boredom
        "emotiontts_kr": ["nea00001", "ema00301"],
    }
    for corpus, files in names.items():
        for number, file in enumerate(files):
            path = tmp_path / corpus / f"{file}.wav"
            path.parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(path, noise(0.1, number), 16_000)
    clips = read_corpora(tmp_path, protocol)
    assert clips["file"].tolist()[:1] == ["Actor_01/03-01-05-01-01-02-01.wav"]
    assert clips["path"].map(Path).map(Path.is_file).all()
    assert clips["emotion"].tolist() == ["anger", "anger", "disgust", "neutral", "anger", "anger", "neutral"]
    assert clips["speaker"].tolist()[:4] == ["ravdess-01", "ravdess-01", "ravdess-02", "emodb-03"]
    assert set(clips["speaker"][5:]) == {"emotiontts_kr-ema"}
    assert strong_counterparts(clips).tolist() == [1, *[-1] * 6]
    assert clips["valence"].tolist()[0] == pytest.approx(0.5 + 0.6 * (clips["valence"].tolist()[1] - 0.5))
    monkeypatch.chdir(tmp_path / "emodb")
    for relative in (Path("../emodb/.."), Path("..")):
        pd.testing.assert_frame_equal(read_corpora(relative, protocol), clips)


def test_takes_of_the_two_intensities_are_matched_in_their_order(tmp_path):
    folder = tmp_path / "x"
    folder.mkdir()
    rows = [[f"{n}.wav", "1", "anger", "strong" if n % 2 else "normal", "Hi.", 0, 0, 0] for n in range(4)]
    columns = ["file_name", "speaker_id", "emotion", "intensity", "transcription", *LABELS]
    pd.DataFrame(rows, columns=columns).to_csv(folder / "t.csv", index=False)
    for n in range(4):
        (folder / f"{n}.wav").touch()
    clips = leave_out._read_corpus(folder, leave_out.Protocol("t.csv", ["x", "y", "z"], label_range=(-1, 1)))
    assert strong_counterparts(clips).tolist() == [1, -1, 3, -1]


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (
            lambda root: shutil.rmtree(root / "nemo"),
            "/nemo is missing: --data is a folder that has the corpus",
        ),
        (lambda root: (root / "nemo/metadata_weak.csv").unlink(), r"/nemo: there is no clip of nEMO \(such as"),
        (lambda root: (root / "nemo/audio/3.wav").unlink(), r"line 5 names .*3\.wav, which is missing \(1 such\)"),
        (
            lambda root: change(root / "nemo/metadata_weak.csv", lambda table: table.drop(columns="speaker_id")),
            "has no column speaker_id: it needs file_name, speaker_id",
        ),
        (
            lambda root: change(root / "nemo/metadata_weak.csv", lambda table: table.assign(arousal=7.0)),
            r"line 2: arousal is '7\.0', outside the label_range -1 to 1",
        ),
        (
            lambda root: change(root / "nemo/metadata_weak.csv", lambda table: table.assign(arousal=float("nan"))),
            "line 2: arousal is blank",
        ),
        (
            lambda root: change(root / "nemo/metadata_weak.csv", lambda table: table.assign(valence="x")),
            "line 2: valence is 'x', not a number",
        ),
        (
            lambda root: change(root / "nemo/metadata_weak.csv", lambda table: table.assign(file_name="")),
            "line 2: 'file_name' is blank",
        ),
        (
            lambda root: change(root / "nemo/metadata_weak.csv", lambda table: table.assign(speaker_id="NA")),
            "line 2: speaker_id is unknown; name who speaks",
        ),
        (
            lambda root: change(root / "nemo/metadata_weak.csv", lambda table: table.assign(file_name="audio/3.wav")),
            r"line 3 names audio/3\.wav, which another row names, too",
        ),
        (
            lambda root: change(
                root / "nemo/metadata_weak.csv", lambda table: table.set_axis([*table.columns[:-1], "valence"], axis=1)
            ),
            "has no column dominance",
        ),
        (
            lambda root: change(
                root / "nemo/metadata_weak.csv", lambda table: pd.concat([table, table[["valence"]]], axis=1)
            ),
            "valence.* more than once|twice|several",
        ),
        (
            lambda root: change(root / "emodb/metadata_weak.csv", lambda table: table.assign(emotion="boredom")),
            r"/emodb has no clip with an emotion of the protocol: \['anger',",
        ),
    ],
)
def test_a_corpus_that_cannot_be_used_is_a_sentence(spoil, sentence, data, tmp_path, capsys):
    root = tmp_path / "copy"
    shutil.copytree(data, root)
    spoil(root)
    with pytest.raises(SystemExit) as stop:
        main(["evaluate", "--leave_out", "corpus", "--data", str(root)])
    assert re.match("msfser evaluate: error: ", str(stop.value)) and re.search(sentence, str(stop.value))


def change(path: Path, how) -> None:
    how(pd.read_csv(path, dtype={"speaker_id": str})).to_csv(path, index=False)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("[1, 2]", "it has no fields"),
        ("", "it has no fields"),
        ("{trained: [a, b, c]}", "'table'"),
        ("{table: t, trained: [a, b, c], extra: 1}", "'extra'"),
        ("{", "expected"),
        ("{table: t, trained: a}", "trained is no list of names"),
        ("{table: t, trained: [a, b, 3]}", "trained is no list of names"),
        ("{table: t, trained: [a, b, c], label_range: 5}", "label_range is two numbers"),
        ("{table: t, trained: [a, b, c], label_range: [1]}", "two finite numbers"),
        ("{table: t, trained: [a, b, c], emotions: {a: anger}}", "emotions.a is no list of names"),
        ("{table: t, trained: [a, b, c], same_speaker: {a: [x, y]}}", r"same_speaker.a\[0\] is no list of names"),
    ],
)
def test_another_file_is_no_protocol(text, why, tmp_path):
    (tmp_path / "p.yaml").write_text(text)
    with pytest.raises(ValueError, match=rf"is no protocol of corpora \(.*{why}.*\): write it like leave_corpora_out"):
        read_protocol(tmp_path / "p.yaml")


def test_fields_that_are_blank_have_their_defaults(tmp_path):
    (tmp_path / "p.yaml").write_text("{table: t, trained: [a, b, c], tested: , emotions: , same_speaker: }")
    assert read_protocol(tmp_path / "p.yaml") == leave_out.Protocol("t", ["a", "b", "c"])


def test_a_table_may_have_semicolons_and_adjectives(data, tmp_path):
    root = tmp_path / "copy"
    shutil.copytree(data, root)
    path = root / "emodb/metadata_weak.csv"
    table = pd.read_csv(path, dtype={"speaker_id": str}).replace({"emotion": {"anger": "angry"}})
    table.to_csv(path, index=False, sep=";")
    pd.testing.assert_frame_equal(
        read_corpora(root, read_protocol())["emotion"].to_frame(),
        read_corpora(data, read_protocol())["emotion"].to_frame(),
    )


def test_two_corpora_leave_nothing_to_choose_by(tmp_path):
    (tmp_path / "p.yaml").write_text(yaml.safe_dump({"table": "t", "trained": ["a", "b"]}))
    with pytest.raises(ValueError, match="fewer than three corpora"):
        read_protocol(tmp_path / "p.yaml")


@pytest.mark.parametrize(
    ("argv", "sentence"),
    [
        ([], "name the MODEL to score, or give --leave_out corpus"),
        (["starter", "--leave_out", "corpus"], "are two evaluations: give one of them"),
        (["--leave_out", "corpus", "--by", "emotion"], "--by belongs to the evaluation of a MODEL"),
        (["--leave_out", "corpus", "--label_range", "1", "7"], "--label_range belongs to the evaluation of a MODEL"),
        (["--leave_out", "corpus", "--split_by", "file"], "--split_by belongs to the evaluation of a MODEL"),
        (["--leave_out", "corpus", "--test", "Test1"], "--test belongs to the evaluation of a MODEL"),
        (["--leave_out", "corpus", "--data", "y"], "--leave_out reads one folder with all corpora: give --data once"),
        (["starter", "--seeds", "2"], "--seeds belongs to the evaluation by --leave_out"),
        (["--leave_out", "corpus", "--seeds", "0"], "'0' is not a number of 1 or more"),
        (["--leave_out", "speaker"], "invalid choice: 'speaker'"),
    ],
)
def test_arguments_that_do_not_fit(argv, sentence, capsys):
    with pytest.raises(SystemExit) as stop:
        parse([*argv, "--data", "x"])
    assert stop.value.code == 2 and sentence in capsys.readouterr().err


def test_the_command(data, tiny, tmp_path, monkeypatch):
    command = ["evaluate", "--leave_out", "corpus", "--data", str(data), "--seeds", "2", "--results", "results"]
    command += ["--systems", "mean", "last_layer", "regressor", "starter"]
    main(command)
    found = read(tmp_path / "results" / "loco.json")
    assert found == read(tmp_path / "outputs" / "leave_out" / "loco.json")
    corpora = ("ravdess", "emodb", "nemo", "emotiontts_kr")
    for system in ("mean", "last_layer", "regressor", "starter"):
        of_corpora = [found[f"{system}/{corpus}/mean"] for corpus in corpora]
        assert found[f"{system}/mean"]["value"] == pytest.approx(np.mean([row["value"] for row in of_corpora]))
        if system != "mean":
            assert all(row["low"] <= row["value"] <= row["high"] for row in of_corpora)
        for row in of_corpora:
            name = row["name"].removesuffix("mean")
            assert row["value"] == pytest.approx(np.mean([found[name + label]["value"] for label in LABELS]))
    assert found["mean/mean"]["value"] == pytest.approx(0, abs=1e-6)
    assert found["last_layer/mean"]["settings"] == 4 and found["last_layer/mean"]["fits_to_choose"] == 2 * 6
    difference = found["starter_minus_regressor/nemo"]
    assert difference["value"] == pytest.approx(
        found["starter/nemo/mean"]["value"] - found["regressor/nemo/mean"]["value"]
    )
    over_all = [found[f"starter_minus_regressor/{corpus}"]["value"] for corpus in corpora]
    assert found["starter_minus_regressor"]["value"] == pytest.approx(np.mean(over_all))
    assert {row["command"] for row in found.values()} == {
        "msfser evaluate --leave_out corpus --data FOLDER --seeds 2 --results FOLDER --systems mean last_layer "
        "regressor starter"
    }
    # Anyone can score anew from the predictions.
    table = pd.read_csv(tmp_path / "outputs" / "leave_out" / "predictions_last_layer.csv")
    one = [
        mean_ccc(part[[*LABELS]], part[[f"{label}_label" for label in LABELS]])
        for _, part in table[table["corpus"] == "nemo"].groupby("seed")
    ]
    assert np.mean(one) == pytest.approx(found["last_layer/nemo/mean"]["value"], abs=1e-6)
    # A second time nothing is fitted, nothing changes, and nobody has looked again.
    monkeypatch.setattr(starter_system, "fit", None)
    draw = np.random.default_rng(0)
    monkeypatch.setattr(starter_system, "voice_measures", lambda paths: draw.uniform(size=(len(paths), len(WORDS))))
    monkeypatch.setattr(baselines, "fit_regressor", None)
    before = (tmp_path / "results" / "loco_history.jsonl").read_text()
    main(command)
    assert read(tmp_path / "results" / "loco.json") == found
    assert (tmp_path / "results" / "loco_history.jsonl").read_text() == before
    looks = [json.loads(line) for line in before.splitlines()]
    assert [look["system"] for look in looks] == ["mean", "last_layer", "regressor", "starter", "starter_open"]
    assert {*looks[4]["outer"]} == {"ravdess", "nemo", "emotiontts_kr"} and {*looks[4]["chosen"]} == {"open"}
    assert looks[4]["outer"]["nemo"] == round(found["starter_open/nemo/mean"]["value"], 4)
    look = looks[1]
    assert set(look["outer"]) == set(look["chosen"]) == set(corpora)
    inner = look["inner"]["emotiontts_kr"]
    assert len(inner) == 4 and inner[look["chosen"]["emotiontts_kr"]] == max(inner.values())
    assert {*table["recipe"]} == {look["recipe"]}


def test_other_sentences_are_another_recipe(tiny, tmp_path):
    labels = np.random.default_rng(0).uniform(size=(6, 3)).astype(np.float32)
    clips = pd.DataFrame(labels, columns=[*LABELS]).assign(corpus="a", path="a.wav", speaker="a")
    engine, vectors = HeldOut(labels, {}, "", tmp_path), torch.tensor(labels)

    def recipe(labels, vectors):
        return engine.recipe(starter_system.starter_system(clips, ["a"], Sentences(labels, {"gs": vectors})))

    assert recipe(labels, vectors) == recipe(labels.copy(), vectors.clone())
    assert len({recipe(labels, vectors), recipe(1 - labels, vectors), recipe(labels, -vectors)}) == 3


def test_a_recipe_is_named_by_the_encoders_and_all_code_behind_its_material(tiny, tmp_path, monkeypatch):
    labels = np.zeros((6, 3), np.float32)
    clips = pd.DataFrame(labels, columns=[*LABELS]).assign(corpus="a", path="a.wav", speaker="a")
    engine, sentences = HeldOut(labels, {}, "", tmp_path), Sentences(labels, {})

    def recipe():
        return engine.recipe(starter_system.starter_system(clips, ["a"], sentences))

    found = [recipe(), recipe()]
    with monkeypatch.context() as patch:
        patch.setattr("transformers.__version__", "0")
        found.append(recipe())
    for module in ("starter.assemble", "evaluation.acted"):
        with monkeypatch.context() as patch:
            patch.setattr(held_out, "code_of", lambda name, changed=module: name != changed)
            found.append(recipe())
    other = tiny_model("whisper", audio_states="weighted", freeze_audio="all")
    torch.nn.init.zeros_(other.audio_encoder.conv1.weight)
    monkeypatch.setattr(starter_system, "new_starter", lambda: other)
    found.append(recipe())
    assert found[0] == found[1] and len({*found}) == 5


def test_egemaps_are_kept_by_the_version_of_opensmile_and_the_decoding_code(tmp_path, monkeypatch):
    monkeypatch.setattr(baselines.importlib.util, "find_spec", lambda name: True)
    monkeypatch.setattr(baselines, "_open_smile", lambda: None)
    monkeypatch.setattr(baselines, "_functionals", lambda recording: np.zeros(88, np.float32))
    soundfile.write(tmp_path / "a.wav", noise(0.1, 1), 16_000)
    for version, code in (("1", "old"), ("1", "old"), ("2", "old"), ("2", "new")):
        monkeypatch.setattr(baselines, "version", lambda name, found=version: found)
        monkeypatch.setattr(baselines, "code_of", lambda name, found=code: found)
        assert baselines.egemaps([str(tmp_path / "a.wav")], tmp_path).shape == (1, 88)
    assert len([*tmp_path.glob("egemaps_*.npy")]) == 3


def test_the_history_keeps_every_look_but_an_unfinished_one(tmp_path):
    look = {"system": "x", "recipe": "1", "seeds": 3, "outer": {"a": 0.5}}
    save(tmp_path, [], [look], "c")
    with open(tmp_path / "loco_history.jsonl", "a") as file:
        file.write('{"system": "y", "rec')
    save(tmp_path, [], [look, look | {"recipe": "2"}, look | {"seeds": 1}], "c")
    looks = [json.loads(line) for line in (tmp_path / "loco_history.jsonl").read_text().splitlines()]
    assert [(found["recipe"], found["seeds"]) for found in looks] == [("1", 3), ("2", 3), ("1", 1)]


def test_a_linear_machine_extrapolates_where_features_of_corpora_are_shifted(tmp_path):
    """Standardized by corpus, a shift between corpora does not matter; over the training clips it does."""
    pytest.importorskip("sklearn")
    draw = np.random.default_rng(0)
    labels = draw.uniform(size=(180, 3)).astype(np.float32)
    corpora = np.repeat(["a", "b", "c"], 60)
    features = labels @ draw.standard_normal((3, 8)) + 100.0 * np.repeat([0, 1, 3], 60)[:, None]
    system = svr_system(features, labels, corpora)
    train, rest = np.flatnonzero(corpora != "c"), np.flatnonzero(corpora == "c")
    ccc = {
        (setting["kernel"], setting["standardize"]): mean_ccc(
            system.fit_predict(train, rest, setting, 0)["as_recorded"], labels[rest]
        )
        for setting in system.grid
        if setting["C"] == 1.0
    }
    assert ccc["linear", "corpus"] > 0.8 and ccc["rbf", "corpus"] > 0.8
    assert abs(ccc["rbf", "all"]) < 0.2  # a constant, far from its training clips


def test_egemaps_without_its_packages_is_a_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr(baselines.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r'pip install "msfser\[peers\]", or leave out egemaps_svr'):
        baselines.egemaps([], tmp_path)
