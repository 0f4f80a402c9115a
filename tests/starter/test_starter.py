"""The starter: its weights are small, and the assembled folder loads like any other."""

import dataclasses
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch
from published import MINILM, WHISPER, missing
from safetensors.torch import load_file, save_file
from starter_sentences import write_sentences
from tiny import noise, tiny_model, tiny_processor
from transformers import AutoModel, AutoProcessor, pipeline

from msfser.description_msfser import WORDS
from msfser.evaluation.results import RESULTS, read
from msfser.hub import publish
from msfser.modeling_msfser import MsfSerModel
from msfser.starter import assemble as starter
from msfser.starter import fit as fitting
from msfser.starter import material
from msfser.training.fitting import Clips
from msfser.training.sentences import Sentences

RATE = 16_000


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    if reason := missing(WHISPER, MINILM):
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("starter")
    starter.main([str(folder)])
    return folder


@pytest.fixture(scope="module")
def answer(folder):
    model = AutoModel.from_pretrained(folder, trust_remote_code=True)
    processor = AutoProcessor.from_pretrained(folder, trust_remote_code=True)

    def answer(samples: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return model(**processor(samples, sampling_rate=RATE)).logits[0].numpy()

    return answer


def speech(seconds: float = 2.0) -> np.ndarray:
    """A buzz that gets louder and softer three times a second: similar enough to speech for a test of gain."""
    time = np.arange(int(seconds * RATE)) / RATE
    return (0.2 * np.sin(3 * np.pi * time) ** 2 * np.sign(np.sin(2 * np.pi * 140 * time))).astype(np.float32)


@pytest.mark.parametrize("one", starter.STARTERS.values(), ids=str)
def test_the_fitted_weights_are_small(one):
    assert (one.folder / starter.WEIGHTS).stat().st_size <= 5_000_000


def test_the_starters_have_the_licenses_of_their_corpora():
    cards = {name: (one.folder / starter.CARD).read_text(encoding="utf-8") for name, one in starter.STARTERS.items()}
    assert cards["starter"].startswith("---\nlicense: cc-by-nc-sa-4.0\n") and "RAVDESS" in cards["starter"]
    assert cards["starter-open"].startswith("---\nlicense: cc-by-4.0\n")
    assert "| CC BY-NC-SA 4.0 |" not in cards["starter-open"]
    for name, one in starter.STARTERS.items():
        assert f"\n{starter.TITLE}" in cards[name] and one.license.id in cards[name]
        norms = json.loads((one.folder / starter.NORMS).read_text(encoding="utf-8"))
        assert "loudness" not in norms["quantiles"]


@pytest.mark.parametrize("one", starter.STARTERS.values(), ids=str)
def test_the_starters_have_intervals_and_percentiles(one):
    weights = load_file(one.folder / starter.WEIGHTS)
    quantiles = weights["intervals.quantiles"]
    assert torch.isfinite(quantiles).all() and (quantiles.diff(dim=1) >= 0).all() and (quantiles > 0).all()
    scale = json.loads((one.folder / starter.SCALE).read_text(encoding="utf-8"))
    assert scale["of"] == ("RAVDESS speech, EmoDB, nEMO" if one.name == "starter" else "EmoDB")
    for kind in ("labels", "predictions"):
        for quantiles in scale[kind].values():
            assert len(quantiles) == 21 and quantiles[0] >= 0 and quantiles == sorted(quantiles) and quantiles[-1] <= 1


def test_the_figures_keep_what_the_intervals_promise():
    rows = read(RESULTS / "intervals.json")
    for name in ("valence", "arousal", "dominance"):
        assert 0.87 <= rows[f"coverage/{name}"]["value"] <= 0.93
    assert all(rows[f"coverage/{name}"]["value"] >= 0.82 for name in ("ravdess", "emodb", "nemo"))
    assert rows["coverage/probe"]["low"] <= 0.9 <= rows["coverage/probe"]["high"]
    assert rows["width_ratio"]["value"] <= 1 and rows["reject_quarter"]["low"] > 0
    assert rows["width_error_spearman"]["value"] >= 0.15 and rows["width_error_spearman"]["low"] > 0


def test_gain_changes_nothing(answer):
    for sound in (speech(), speech() + 0.1 * noise(2.0)):
        for decibels in (-12, 12):
            moved = answer(sound * np.float32(10 ** (decibels / 20)))
            assert np.abs(moved - answer(sound)).max() < 0.01


def test_silence_is_near_neutral(answer):
    assert np.abs(answer(np.zeros(2 * RATE, np.float32)) - 0.5).max() < 0.1


def test_the_pipeline_loads_it(folder):
    ser = pipeline("audio-classification", model=str(folder), trust_remote_code=True)
    result = ser({"array": speech(), "sampling_rate": RATE})
    assert all(0 < result[name] < 1 for name in ("valence", "arousal", "dominance"))
    assert result["texts"]["transcript"] == "absent: no speech"
    long = ser({"array": np.tile(speech(), 10), "sampling_rate": RATE})
    assert len(long["course"]) >= 2


def test_the_card_comes_along(folder):
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert card.startswith("---\nlicense: cc-by-nc-sa-4.0\n") and "weak" in card


def test_the_snippet_of_the_card_runs(folder, tmp_path, monkeypatch, capsys):
    card = (folder / "README.md").read_text(encoding="utf-8")
    snippet = re.search(r"<!-- snippet: starter -->\n```python\n(.*?)```", card, re.DOTALL)[1]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "outputs").mkdir()
    (tmp_path / "outputs" / "starter").symlink_to(folder)
    soundfile.write("speech.wav", speech(), RATE)
    exec(compile(snippet, "starter/README.md", "exec"), {"__name__": "snippet"})
    printed = capsys.readouterr().out
    assert all(name in printed for name in ("valence", "arousal", "dominance"))


def test_it_is_published_with_its_own_card(folder, capsys):
    publish.main([str(folder), "someone/starter", "--dry_run"])
    shown = capsys.readouterr().out
    assert "model.safetensors" in shown and "modeling_msfser.py" in shown
    assert 'from_pretrained("someone/starter", revision="v1", trust_remote_code=True)' in shown
    assert "license: cc-by-nc-sa-4.0" in shown and str(folder) not in shown.partition("license:")[2]


@pytest.mark.parametrize("one", starter.STARTERS.values(), ids=str)
def test_the_snippets_of_each_card_load_what_the_card_is_of(one):
    card = (one.folder / starter.CARD).read_text(encoding="utf-8")
    assembled = starter.with_source(card, "my/folder")
    published = starter.with_source(assembled, "me/mine", "v2")
    for text, source in ((assembled, '"my/folder"'), (published, '"me/mine", revision="v2"')):
        assert re.findall(r"from_pretrained\((.*), trust", text) == [source] * 2
        assert "outputs/" not in text and "this folder" not in text and "not in" not in text.partition("## Data")[2]
    assert starter.with_source(published, "my/folder") == assembled


@pytest.mark.parametrize("one", starter.STARTERS.values(), ids=str)
@pytest.mark.parametrize(
    "changed",
    [
        *("model.safetensors", "README.md", "pipeline_msfser.py", "starter/assemble.py", "hub/encoders.yaml"),
        *("starter/text_encoder.safetensors", "starter/text_encoder.py"),
    ],
)
def test_the_cache_has_a_folder_for_each_version_of_the_package(one, changed, tmp_path, monkeypatch):
    package = Path(starter.__file__).parents[1]
    kept = {path: path.relative_to(package) for path in starter._made_of(one)}
    for path, relative in kept.items():
        (tmp_path / relative).parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".safetensors":
            (tmp_path / relative).write_bytes(b"weights")
        else:
            shutil.copy(path, tmp_path / relative)
    copied = dataclasses.replace(one, folder=tmp_path / one.folder.relative_to(package))
    monkeypatch.setattr(starter, "__file__", str(tmp_path / "starter" / "assemble.py"))
    before = starter.files_hash(starter._made_of(copied))
    assert starter.files_hash(starter._made_of(copied)) == before
    part = copied.folder / changed
    with (part if part.is_file() else tmp_path / changed).open("ab") as file:
        file.write(b"\n")
    assert starter.files_hash(starter._made_of(copied)) != before


def test_a_license_for_research_only_is_none_of_the_hub(tiny_fits):
    voices = pd.DataFrame(
        {"corpus": ["ravdess", "emotiontts_kr", "emotiontts_kr"], "speaker": ["ravdess-1", "emotiontts_kr-a", "b"]}
    )
    license = starter.license_of_fit(["ravdess", "emotiontts_kr"])
    card = fitting.fitted_card(voices, 7, license, tiny_model("whisper"))
    assert "\nlicense: other\nlicense_name: cc-by-nc-sa-4.0-research-only\n" in card
    terms = "CC BY-NC-SA 4.0, for research only (of emotiontts_kr): not for commercial use"
    assert f"| **License of the weights** | {terms}." in card and license.sentence.endswith(f"{terms}.")
    assert "| emotiontts_kr | CC BY-NC-SA 4.0, for research only | 2 clips, 2 speakers |" in card
    assert "calibrated" not in card and "{" not in card


def test_the_license_of_a_fit_is_the_strictest():
    assert starter.license_of_fit(["emodb"]) == ("cc-by-4.0", ("GoEmotions",))
    assert starter.license_of_fit(["emodb", "crema_d"]) == ("odbl", ("CREMA-D",))
    assert starter.license_of_fit(["crema_d", "nemo"]) == ("cc-by-nc-sa-4.0", ("nEMO",))
    assert starter.STARTERS["starter"].license.sources == ("RAVDESS speech", "nEMO")


def test_the_text_encoder_is_the_adapted_one(folder):
    found = load_file(folder / "model.safetensors")
    published = MsfSerModel.from_encoders(starter.AUDIO_ENCODER, starter.TEXT_ENCODER).text_encoder.state_dict()
    update = load_file(starter.TEXT_WEIGHTS)
    layer = next(name.removesuffix(".up") for name in update if name.endswith(".up"))
    change = found[f"text_encoder.{layer}.weight"] - published[f"{layer}.weight"]
    torch.testing.assert_close(change, update[f"{layer}.up"] @ update[f"{layer}.down"], atol=1e-6, rtol=1e-4)
    assert change.abs().max() > 1e-3


def test_weights_of_another_text_encoder_are_refused(folder, tmp_path, monkeypatch):
    """As found in a review: the update could be fitted anew without the starters."""
    update = {name: 2 * part for name, part in load_file(starter.TEXT_WEIGHTS).items()}
    save_file(update, tmp_path / "text_encoder.safetensors")
    monkeypatch.setattr(starter, "TEXT_WEIGHTS", tmp_path / "text_encoder.safetensors")
    with pytest.raises(SystemExit, match=r"was fitted with another text_encoder\.safetensors: "):
        starter.main([str(tmp_path / "out")])


def test_weights_that_do_not_fit_are_refused(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(starter, "SWITCHES", {**starter.SWITCHES, "fusion_size": 64})
    with pytest.raises(SystemExit, match="does not fit this version"):
        starter.main([str(tmp_path / "out")])
    nowhere = dataclasses.replace(starter.STARTERS["starter"], folder=tmp_path)
    monkeypatch.setattr(starter, "STARTERS", {"starter": nowhere})
    with pytest.raises(SystemExit, match=r"^msfser starter: error: .*model\.safetensors is missing: "):
        starter.main([str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()


def test_the_figures_keep_what_the_starter_promises():
    value = {name: row["value"] for name, row in read(RESULTS / "starter.json").items()}
    assert value["gain/max_shift"] <= 0.05  # measured: 0.021
    assert value["silence/distance_from_neutral"] <= 0.1
    for kind in ("noise", "band", "crop"):
        assert value[f"{kind}/arousal_r"] >= 0.9 and value[f"{kind}/valence_r"] >= 0.8


def test_words_move_the_numbers(folder):
    model, processor = (kind.from_pretrained(folder, trust_remote_code=True) for kind in (AutoModel, AutoProcessor))
    good, bad = "I love this, thank you so much!", "This is horrible, I hate it."
    with torch.no_grad():
        read = model(**processor(transcript=[good, bad])).logits
        spoken = model(**processor(speech(), sampling_rate=RATE, transcript=good)).logits
        other = model(**processor(speech(), sampling_rate=RATE, transcript=bad)).logits
    assert read[0, 0] > 0.6 and read[1, 0] < 0.4
    assert spoken[0, 0] > other[0, 0] + 0.1


@pytest.fixture
def tiny_fits(tmp_path, monkeypatch):
    """Tiny encoders and short fits."""
    new = lambda: tiny_model("whisper", audio_states="weighted", freeze_audio="all")  # noqa: E731
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    for module in (fitting, material, starter):
        monkeypatch.setattr(module, "new_starter", new)
        monkeypatch.setattr(module, "starter_processor", lambda norms=None: tiny_processor("whisper"), raising=False)
        monkeypatch.setattr(module, "RECIPE", dataclasses.replace(material.RECIPE, epochs=1), raising=False)
    monkeypatch.setattr(material, "NOISES", 8)
    measured = np.random.default_rng(0)
    monkeypatch.setattr(fitting, "voice_measures", lambda paths: measured.uniform(size=(len(paths), len(WORDS))))
    monkeypatch.setattr(starter, "ensure_encoders", lambda names: None)


def test_a_starter_is_fitted_to_the_corpora_of_a_folder(tiny_fits, tmp_path):
    """Files made up in the layouts of two corpora, and a handful of sentences."""
    data = tmp_path / "data"
    write_sentences(data / "goemotions")
    for speaker in range(1001, 1004):
        for emotion in ("ANG", "HAP", "NEU", "SAD"):
            soundfile.write(data / f"{speaker}_IEO_{emotion}_XX.wav", noise(0.6, speaker), RATE)
    for number in range(1, 13):
        for emotion in ("anger", "neutral"):
            soundfile.write(data / f"EB0_{emotion}_{number}.wav", noise(0.6, number), RATE)
    starter.main([str(tmp_path / "mine"), "--fit", str(data)])
    card = (tmp_path / "mine" / "README.md").read_text(encoding="utf-8")
    assert "\n# MSF-SER starter: CREMA-D, nEMO\n" in card and "36 clips" in card
    assert card.startswith("---\n") and "\nlicense: cc-by-nc-sa-4.0\n" in card
    assert "without any warranty" in " ".join(card.split()) and "not for diagnosis" in card
    assert "| CREMA-D | ODbL 1.0, its contents DbCL 1.0 | 12 clips, 3 speakers |" in card
    assert "| nEMO | CC BY-NC-SA 4.0 | 24 clips, 1 speaker |" in card and "| GoEmotions | CC BY 4.0 |" in card
    assert f'from_pretrained("{(tmp_path / "mine").as_posix()}", trust_remote_code=True)' in card
    fitted = AutoModel.from_pretrained(tmp_path / "mine", trust_remote_code=True)
    assert fitted.config.semantics == ["les", "gs", "es"] and fitted.config.scale["of"] == "CREMA-D, nEMO"
    assert (fitted.config.weights_license, fitted.config.weights_sources) == ("cc-by-nc-sa-4.0", ["nEMO"])
    assert torch.isfinite(fitted.intervals.quantiles[:, :90]).all()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "x.txt").touch()
    with pytest.raises(SystemExit, match="holds something else than a starter"):
        starter.main([str(tmp_path / "other"), "--fit", str(data)])
    (data / "goemotions" / "goemotions.csv").unlink()
    with pytest.raises(SystemExit, match="there is no GoEmotions in it"):
        starter.main([str(tmp_path / "third"), "--fit", str(data)])


def test_sentences_may_be_in_a_folder_of_their_own_and_few_speakers_have_no_intervals(tiny_fits, tmp_path, caplog):
    voices, sentences, other = (tmp_path / name for name in ("voices", "sentences", "other"))
    write_sentences(sentences)
    voices.mkdir()
    for number in range(1, 17):
        for speaker, emotion in (("EB0", "anger"), ("KA1", "neutral")):
            soundfile.write(voices / f"{speaker}_{emotion}_{number}.wav", noise(0.6, number), RATE)
    with caplog.at_level("INFO", logger="msfser.starter"):
        starter.main([str(tmp_path / "mine"), "--fit", str(sentences), str(voices)])
    assert "no intervals: they need 3 or more speakers to be calibrated on, and there are 2; add " in caplog.text
    fitted = AutoModel.from_pretrained(tmp_path / "mine", trust_remote_code=True)
    assert fitted.intervals is None and fitted.config.scale is None
    # A folder of neither is a mistake, and so are sentences alone.
    other.mkdir()
    with pytest.raises(SystemExit, match=r"other: there is no clip of RAVDESS speech"):
        starter.main([str(tmp_path / "mine"), "--fit", str(voices), str(sentences), str(other)])
    with pytest.raises(SystemExit, match=r"sentences: there is no clip of RAVDESS speech"):
        starter.main([str(tmp_path / "mine"), "--fit", str(sentences)])


@pytest.mark.parametrize("clips", [1, 3, 8])
def test_few_recordings_have_no_intervals(tiny_fits, tmp_path, caplog, clips):
    """Of eight errors the interval at the default level would be the whole scale."""
    data = tmp_path / "data"
    write_sentences(data)
    for number in range(clips):
        emotion = ("ANG", "HAP", "NEU")[number // 3]
        soundfile.write(data / f"{1001 + number % 3}_IEO_{emotion}_XX.wav", noise(0.6, number), RATE)
    with caplog.at_level("INFO", logger="msfser.starter"):
        starter.main([str(tmp_path / "mine"), "--fit", str(data)])
    words = {1: "3 or more speakers to be calibrated on, and there is 1; add recordings of other speakers"}
    enough = f"9 or more rated recordings to be calibrated on, and there are {clips}; add recordings with labels"
    assert f"no intervals: they need {words.get(clips, enough)}" in caplog.text
    fitted = AutoModel.from_pretrained(tmp_path / "mine", trust_remote_code=True)
    assert fitted.intervals is None and fitted.config.scale is None
    assert " intervals " not in (tmp_path / "mine" / "README.md").read_text(encoding="utf-8")


def test_every_emotion_of_a_user_is_fitted_to_and_no_clip_twice(tiny_fits, tmp_path):
    """Fear and boredom alone: the emotions of the starters of the package are no matter of theirs."""
    data = tmp_path / "data"
    write_sentences(data / "texts" / "deep" / "goemotions")
    (data / "emodb").mkdir()
    for speaker in ("03", "08", "09"):
        for sentence in ("a01", "a02", "b01", "b02"):
            for emotion in "AL":
                sound = noise(0.6, int(speaker) + ord(sentence[0]) + int(sentence[1:]))
                soundfile.write(data / "emodb" / f"{speaker}{sentence}{emotion}a.wav", sound, RATE)
    starter.main([str(tmp_path / "mine"), "--fit", str(data), str(data), str(data / "emodb")])
    card = (tmp_path / "mine" / "README.md").read_text(encoding="utf-8")
    assert "# MSF-SER starter: EmoDB" in card.splitlines() and "24 clips" in card
    assert set(material.read_voices([data], ["emodb"])["emotion"]) == {"fear", "boredom"}


def test_the_weights_of_the_package_are_not_fitted_to_fewer_corpora(tiny_fits, tmp_path, monkeypatch):
    monkeypatch.setattr(fitting, "ensure_encoders", lambda names: None)
    monkeypatch.setattr(fitting, "write_fitted_weights", lambda *of: pytest.fail("written"))
    write_sentences(tmp_path / "goemotions")
    for name in ("03a01Wa", "03-01-05-01-02-01-07"):
        soundfile.write(tmp_path / f"{name}.wav", noise(0.6), RATE)
    assert set(material.voices_of(starter.STARTERS["starter-open"], tmp_path)["corpus"]) == {"emodb"}
    with pytest.raises(SystemExit, match="there is no usable clip of nEMO in it"):
        fitting.main(["--data", str(tmp_path)])
    (tmp_path / "03a01Wa.wav").rename(tmp_path / "03a01Aa.wav")  # fear, which they are not fitted to
    with pytest.raises(SystemExit, match="there is no usable clip of EmoDB, nEMO in it"):
        fitting.main(["--data", str(tmp_path), "--starters", "starter"])


@pytest.fixture
def fitted():
    """Three voices of each of four speakers, by turns."""
    draw = np.random.default_rng(0)
    labels = draw.uniform(size=(12, 3)).astype(np.float32)
    states = [torch.tensor(draw.standard_normal((2, 5, 4))).half() for _ in labels]
    vectors = torch.tensor(draw.standard_normal((12, 4)))
    speakers, alone = np.array([*"abcdabcdabcd"]), np.full(12, -1)
    sentences = Sentences(labels, {"gs": vectors})
    clips = Clips(labels, speakers, {"clean": states}, {}, {"es": vectors}, alone, sentences=sentences)
    return fitting.Fitted(clips, {}, "a corpus", speakers)


def test_cross_fits_are_repeated_for_other_sentences_and_other_recordings(fitted, tmp_path, monkeypatch):
    clips = fitted.clips
    labels, vectors, states = clips.labels, clips.texts["es"], clips.states["clean"]
    fits = []
    monkeypatch.setattr(fitting, "fit", lambda *of: fits.append(of))
    monkeypatch.setattr(fitting, "predict", lambda model, clips, items, *of: np.zeros((len(items), 3)))

    def count(**changed):
        del fits[:]
        fitting.cross_fits(fitted._replace(clips=dataclasses.replace(clips, **changed)), tmp_path)
        return len(fits)

    assert count() == 4 and count() == 0
    assert count(sentences=Sentences(1 - labels, {"gs": vectors})) == 4
    assert count(sentences=Sentences(labels, {"gs": -vectors})) == 4
    assert count(sentences=Sentences(labels, {"les": vectors})) == 4
    # Of the same length, but another sound.
    assert count(states={"clean": [*states[:-1], -states[-1]]}) == 4
    assert count() == 0


def test_every_second_voice_of_each_speaker_is_predicted_with_its_description(fitted, tmp_path, monkeypatch):
    """Every second voice of all was, which in RAVDESS are all men and no woman."""
    monkeypatch.setattr(fitting, "fit", lambda *of: None)

    def count_texts(model, clips, items, kind, texts):
        return np.full((len(items), 3), len(texts))

    monkeypatch.setattr(fitting, "predict", count_texts)
    numbers, _ = fitting.cross_fits(fitted, tmp_path)
    assert numbers.tolist() == [[1] * 3] * 4 + [[0] * 3] * 4 + [[1] * 3] * 4
