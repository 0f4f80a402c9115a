"""The decision about English: nobody is judged by a fit to their own clips, and few foreign clips get a text."""

import json

import numpy as np
import pandas as pd
import pytest
import soundfile
from tiny import noise

from msfser.benchmarks import english
from msfser.evaluation.results import read

# Mean log probability and entropy of the texts of each corpus.
CENTERS = {
    **{"ravdess": (-0.15, 0.2), "probe": (-0.4, 0.8), "plain": (-0.2, 0.3)},
    **{"emodb": (-1.1, 2.4), "nemo": (-1.0, 2.2), "emotiontts_kr": (-1.2, 2.6)},
}


def made(seed: int = 0, speakers: int = 10, each: int = 10) -> pd.DataFrame:
    """Clips of each corpus, clean and distorted; every seventh has no text."""
    draw = np.random.default_rng(seed)
    rows = []
    for distortion in ("", "augment"):
        for corpus, center in CENTERS.items():
            for i in range(speakers * each):
                signals = [(np.array(center) + draw.normal(0, (0.15, 0.3))).tolist()] if i % 7 else []
                speaker = f"{corpus}-{i % speakers}"
                rows.append({"corpus": corpus, "speaker": speaker, "distortion": distortion, "signals": signals})
    return pd.DataFrame(rows)


def test_every_corpus_has_its_rows():
    rows = {row["name"]: row for row in english.rows_of(made())}
    assert rows["english_left_out/ravdess"]["value"] == pytest.approx(1 / 7, abs=0.01)
    for language in ("german", "polish", "korean"):
        found = rows[f"english_for/{language}"]
        assert found["low"] <= found["value"] <= 0.05 < found["high"] + 0.05 and found["clips"] == 100
    assert {
        "corpus_left_out/english_for/german",
        "corpus_left_out/english_left_out/probe",
        "english_for/korean/augment",
    } <= rows.keys()
    assert "corpus_left_out/english_for/korean" not in rows and rows["entropy_weight"]["value"] > 0
    assert rows["english_for/german"]["resampled"] == "10 speakers"
    # Over -0.8, 1.33 deviations above Polish.
    assert rows["log_probability/english_for/polish"]["value"] == pytest.approx(0.09 * 6 / 7, abs=0.05)


def test_nobody_is_judged_by_a_fit_to_their_own_clips(monkeypatch):
    clips = made()
    fits = []

    def decided(fitted):
        fits.append(fitted)
        return english.Decision(np.array([1.0, 0.0]), len(fits))

    judged = []

    def scores(decision, some):
        judged.append((int(decision.bias), set(some["speaker"])))
        return np.zeros(len(some))

    monkeypatch.setattr(english, "decided", decided)
    monkeypatch.setattr(english.Decision, "scores", scores)
    english.rows_of(clips)
    assert len(fits) == 1 + english.FOLDS + len(english.FITTED)
    assert all(set(fitted["corpus"]) <= set(english.FITTED) for fitted in fits)
    for number, speakers in judged[1:-1]:
        assert not speakers & set(fits[number - 1]["speaker"])
    folds = [speakers for _, speakers in judged[1 : 1 + english.FOLDS]]
    assert set.union(*folds) == set(clips["speaker"][clips["corpus"].isin(english.FITTED)])


def test_the_bias_is_the_least_strict_that_holds_the_share():
    clips = made()
    clips = clips[clips["corpus"].isin(english.FITTED)].assign(fold=lambda table: english._folds(table))
    strict, loose = english.decided(clips), None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(english, "MOST_FOREIGN", 0.2)
        loose = english.decided(clips)
    assert np.array_equal(strict.weights, loose.weights) and strict.bias < loose.bias
    shares = [(loose.scores(clips[clips["corpus"] == corpus]) > 0).mean() for corpus in ("emodb", "nemo")]
    assert max(shares) == pytest.approx(0.2, abs=0.03)


def test_the_fit_weighs_corpora_alike_and_ignores_what_has_no_text():
    clips = made()
    more = pd.concat([clips, *[clips[clips["corpus"] == "nemo"]] * 3, clips[~clips["signals"].astype(bool)]])
    once, again = (english.fitted(table.reset_index(drop=True)) for table in (clips, more))
    np.testing.assert_allclose(once.weights, again.weights, rtol=1e-3)


def test_a_clip_with_any_certain_piece_has_a_text():
    clips = pd.DataFrame({"signals": [[[-1.0, 3.0], [-0.1, 0.1]], [[-1.0, 3.0]], []]})
    assert english.Decision(np.array([1.0, -0.1]), 0.5).scores(clips) == pytest.approx([0.39, -0.8, -np.inf])


class Recognizer:
    """Counts the clips."""

    def __init__(self):
        self.clips = 0

    def decode(self, sounds):
        self.clips += len(sounds)
        return [[[float(len(sound)), 0.0]] for sound in sounds]


def test_what_was_recognized_is_kept(monkeypatch, tmp_path):
    recognizer = Recognizer()
    monkeypatch.setattr(english, "load_recognizer", lambda: recognizer)
    monkeypatch.setattr(english, "signals_of", lambda found, sounds: found.decode(sounds))
    for name in "abc":
        soundfile.write(tmp_path / f"{name}.wav", noise(0.1), 16_000)
    clips = pd.DataFrame(
        {"corpus": "x", "path": [str(tmp_path / f"{n}.wav") for n in "abc"], "distortion": ["", "", "noise"]}
    )
    kept = tmp_path / "out" / "certainties.jsonl"
    first = english.certainties(clips[:2], kept)
    assert recognizer.clips == 2 and len(kept.read_text().splitlines()) == 2
    assert json.loads(kept.read_text().splitlines()[0]) == {"clip": "x a", "signals": [[1600.0, 0.0]]}
    both = english.certainties(clips, kept)
    assert recognizer.clips == 3 and both["signals"][:2].tolist() == first["signals"].tolist()


def test_signals_are_those_of_texts():
    class Picky:
        def decode(self, sounds):
            return [[(0.0, None, clip)] for clip in sounds]

        def why_rejected(self, clip, stated):
            assert stated
            return None if clip.log_probability > -1 else "no speech"

    clips = [type("Clip", (), {"log_probability": p, "entropy": 2.0}) for p in (-0.5, -1.5)]
    assert english.signals_of(Picky(), clips) == [[[-0.5, 2.0]], []]


def test_distortions_are_the_same_each_time_and_speakers_balanced():
    clips = pd.DataFrame(
        {"corpus": "ravdess", "speaker": ["a"] * 40 + ["b"] * 20, "path": [f"{i}.wav" for i in range(60)]}
    )
    drawn = english.with_distortions(clips)
    counts = drawn.groupby(["distortion", "speaker"]).size().to_dict()
    assert counts[("", "a")] == counts[("", "b")] == 12 and counts[("telephone", "b")] == 1
    assert set(drawn[drawn["distortion"] == "noise"]["path"]) <= set(drawn[drawn["distortion"] == ""]["path"])
    assert drawn.equals(english.with_distortions(clips))


def test_a_wrong_folder_is_a_sentence(tmp_path):
    for arguments, sentence in (
        (["--data", str(tmp_path / "nowhere")], "nowhere"),
        (["--data", str(tmp_path), "--english", str(tmp_path)], "there is no metadata.csv in it; name a folder that"),
    ):
        with pytest.raises(SystemExit, match=sentence):
            english.main(arguments)


def test_the_command_writes_every_share(monkeypatch, tmp_path):
    clips = made().drop(columns="signals").drop_duplicates(["corpus", "speaker"])
    monkeypatch.setattr(english, "acted_clips", lambda folder: clips[clips["corpus"] != "plain"])
    monkeypatch.setattr(english, "probe_clips", lambda: clips[:0])
    monkeypatch.setattr(english, "with_distortions", lambda clips: clips)
    monkeypatch.setattr(english, "certainties", lambda clips, kept: made())
    monkeypatch.setattr("msfser.benchmarks.command.RESULTS", tmp_path)
    (tmp_path / "plain").mkdir()
    pd.DataFrame({"file_name": ["a.wav"]}).to_csv(tmp_path / "plain" / "metadata.csv", index=False)
    english.main(["--data", str(tmp_path), "--english", str(tmp_path / "plain")])
    rows = read(tmp_path / "english.json")
    assert {"english_for/korean", "english_left_out/plain", "least_certainty"} <= rows.keys()
    assert (
        rows["english_for/korean"]["command"] == "python -m msfser.benchmarks.english --data FOLDER --english FOLDER"
    )


def test_speakers_of_a_folder_are_known_or_apart(tmp_path):
    table = pd.DataFrame({"file_name": ["a.wav", "b.wav", "c.wav"], "speaker_id": ["x", None, None]})
    table.to_csv(tmp_path / "metadata.csv", index=False)
    found = english.english_clips(tmp_path)
    assert found["speaker"].nunique() == 3 and found["speaker"][0].endswith("-x")
    assert found["path"].tolist() == [str(tmp_path / name) for name in table["file_name"]]
    assert set(found["corpus"]) == {tmp_path.name}
