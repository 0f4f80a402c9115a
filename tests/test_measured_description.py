"""Descriptions of sounds whose properties are known."""

import json

import numpy as np
import pytest
from tiny import noise

from msfser import description_msfser
from msfser.annotation import norms
from msfser.description_msfser import NORMS, WORDS, MeasuredDescriber, measure_voice
from msfser.emphasis_msfser import PITCH_HOP, Prosody, measure_prosody


def voice(pitch=150.0, level=0.1, syllables=8, seconds=0.2, gap=0.02, roughness=0.0, tilt=1.0, movement=0.0):
    """Syllables of a harmonic tone: all in one breath, with a dip of the level between them."""
    parts = []
    for i in range(syllables):
        times = np.arange(int(seconds * 16_000)) / 16_000
        of_syllable = pitch * 2 ** (movement / 12 * (i / max(syllables - 1, 1) - 0.5))
        tone = sum(np.sin(2 * np.pi * k * of_syllable * times) / k**tilt for k in range(1, int(5_000 / of_syllable)))
        parts += [tone * np.hanning(len(times)) ** 0.5, np.zeros(int(gap * 16_000))]
    sound = np.concatenate(parts)
    sound = sound / np.abs(sound).max()
    sound = sound + roughness * np.random.default_rng(0).standard_normal(len(sound))
    return (level * sound).astype(np.float32)


def measures(**settings):
    sound = voice(**settings)
    return measure_voice(sound, measure_prosody(sound))


def test_the_measures_of_a_known_voice():
    found = measures(pitch=200.0, syllables=10, seconds=0.2, gap=0.0)
    assert found["pitch"] == pytest.approx(12.0, abs=0.3)  # an octave above 100 Hz
    assert found["movement"] < 1
    assert found["rate"] == pytest.approx(5.0, rel=0.15)
    assert found["pauses"] == 0
    assert list(found) == list(WORDS)


@pytest.mark.parametrize(
    ("measure", "less", "more"),
    [
        ("loudness", {"level": 0.01}, {"level": 0.1}),
        ("pitch", {"pitch": 100}, {"pitch": 250}),
        ("movement", {"movement": 1}, {"movement": 10}),
        ("rate", {"seconds": 0.35}, {"seconds": 0.15}),
        ("pauses", {"gap": 0.05}, {"gap": 0.4}),
        ("brightness", {"tilt": 2.0}, {"tilt": 0.7}),
        ("clarity", {"roughness": 0.3}, {"roughness": 0.02}),
    ],
)
def test_each_measure_follows_what_it_measures(measure, less, more):
    assert measures(**less)[measure] < measures(**more)[measure]


def test_gain_moves_loudness_by_its_decibels_and_nothing_else():
    quiet, loud = measures(level=0.02), measures(level=0.2)
    assert loud.pop("loudness") - quiet.pop("loudness") == pytest.approx(20, abs=0.5)
    assert loud == pytest.approx(quiet, abs=0.2)


def test_a_description_states_the_measures_and_names_its_describer():
    describer = MeasuredDescriber()
    assert describer.name == "measured/EmoDB"
    quiet, loud = describer([voice(level=0.01, pitch=90), voice(level=0.9, pitch=330)], [None, "Words do not matter."])
    assert "very quiet" in quiet
    assert "very low" in quiet
    assert "loud" in loud
    assert "very high" in loud


def test_nothing_is_stated_about_the_speaker():
    words = " ".join(step for steps in WORDS.values() for step in steps)
    assert not {"man", "woman", "male", "female", "he", "she", "child", "old", "young"} & set(words.split())


def test_prosody_that_was_measured_already_is_used():
    sound = voice()
    describer = MeasuredDescriber()
    assert describer([sound], [None], [measure_prosody(sound)]) == describer([sound], [None])


@pytest.mark.parametrize("sound", [np.zeros(16_000, np.float32), noise(1.0), voice()[:800]])
def test_without_a_voice_there_is_no_description(sound):
    assert MeasuredDescriber()([sound], [None]) == [None]


@pytest.mark.parametrize(
    ("broken", "sentence"),
    [
        ({"quantiles": NORMS["quantiles"]}, "which corpus"),
        ({"corpus": "mine", "quantiles": {}}, "no 4 rising numbers for 'pitch'"),
        ({"corpus": "mine", "quantiles": NORMS["quantiles"] | {"rate": [4, 3, 2, 1]}}, "'rate'"),
    ],
)
def test_norms_must_be_whole(broken, sentence):
    with pytest.raises(ValueError, match=sentence):
        MeasuredDescriber(broken)


def test_norms_are_the_quantiles_of_a_folder(tmp_path):
    soundfile = pytest.importorskip("soundfile")
    for i, pitch in enumerate((100, 150, 200, 250, 300)):
        soundfile.write(tmp_path / f"{i}.wav", voice(pitch=pitch), 16_000)
    output = tmp_path / "norms.json"
    norms.main([str(tmp_path), "--name", "tones", "--output", str(output)])
    made = json.loads(output.read_text())
    assert (made["corpus"], made["utterances"]) == ("tones", 5)
    expected = np.quantile(12 * np.log2(np.array([100, 150, 200, 250, 300]) / 100), [0.1, 0.3, 0.7, 0.9])
    assert made["quantiles"]["pitch"] == pytest.approx(expected, abs=0.3)
    assert MeasuredDescriber(made).name == "measured/tones"
    # A part of a table, which needs neither labels nor speakers.
    (tmp_path / "metadata.csv").write_text("audio,split\n0.wav,low\n1.wav,low\n4.wav,high\n")
    low = norms.make_norms(str(tmp_path), "tones", "low")
    assert low["utterances"] == 2
    assert low["quantiles"]["pitch"][-1] == pytest.approx(0.9 * 12 * np.log2(1.5), abs=0.3)


@pytest.mark.parametrize("name", ["/srv/voices", "~/voices", "../voices", "C:\\voices", "https://voices.example"])
def test_the_name_of_norms_is_no_path(tmp_path, name):
    """It goes into published models."""
    with pytest.raises(SystemExit, match="give the name of the corpus, not its path"):
        norms.main([str(tmp_path), "--name", name, "--output", str(tmp_path / "norms.json")])


def test_norms_of_nothing_are_a_sentence(tmp_path):
    (tmp_path / "broken.wav").write_text("no sound")
    table = tmp_path / "table.csv"
    table.write_text("audio,split\nbroken.wav,train\nbroken.wav,test\ngone.wav,gone\n")
    for sentence, *arguments in (
        ("there is no such file or folder", str(tmp_path / "nowhere")),
        ("cannot be decoded", str(tmp_path)),
        ("there is no part 'tset'; its parts: gone, test, train", str(table), "--split", "tset"),
        ("1 recordings are missing, such as 'gone.wav'", str(table), "--split", "gone"),
    ):
        output = str(tmp_path / "norms.json")
        with pytest.raises(SystemExit, match=sentence) as stop:
            norms.main([*arguments, "--name", "tones", "--output", output])
        assert str(stop.value).startswith("msfser norms: error: ") and not (tmp_path / "norms.json").exists()


STEPS = [
    "The voice is very quiet and very low. Its pitch hardly moves. The speech is very slow, with no pauses. The sound "
    "of the voice is very soft and dark, and very breathy or rough.",
    "The voice is rather quiet and rather low. Its pitch moves little. The speech is rather slow, with hardly any "
    "pauses. The sound of the voice is rather soft, and rather breathy or rough.",
    "The voice is of medium loudness and of medium pitch. Its pitch moves moderately. The speech is of medium speed, "
    "with some pauses. The sound of the voice is neither soft nor sharp, and moderately clear.",
    "The voice is rather loud and rather high. Its pitch moves widely. The speech is rather fast, with many pauses. "
    "The sound of the voice is rather sharp, and rather clear.",
    "The voice is very loud and very high. Its pitch moves very widely. The speech is very fast, with very many "
    "pauses. The sound of the voice is very sharp and tense, and very clear.",
]


@pytest.mark.parametrize(("step", "text"), list(enumerate(STEPS)))
def test_each_of_the_five_steps_has_its_phrases(monkeypatch, step, text):
    """Norms of 1, 2, 3 and 4: .5 is in the lowest step, 4.5 in the highest."""
    measures = dict.fromkeys(WORDS, step + 0.5) | ({"pauses": 0.0} if step == 0 else {})
    monkeypatch.setattr(description_msfser, "measure_voice", lambda sound, prosody: measures)
    describer = MeasuredDescriber({"corpus": "steps", "quantiles": dict.fromkeys(WORDS, (1, 2, 3, 4))})
    assert describer([noise(0.1)], [None]) == [text]


def test_a_syllable_is_counted_once_and_at_its_highest_peak():
    """After a loud syllable, peaks of 62, 63 and 63.4 dB, each less than 2 dB above the dip before it, are one."""
    times, levels = np.arange(0, 321, 40), [30, 70, 50, 62, 61.2, 63, 61.5, 63.4, 30]
    level = np.interp(np.arange(321), times, levels) - 90
    prosody = Prosody(np.arange(200) * PITCH_HOP, np.full(200, 120.0), level)
    assert description_msfser._nuclei(prosody) == 2
