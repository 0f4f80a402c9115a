"""The input of the speech encoders: values, padding and masks."""

import json
import logging

import numpy as np
import pytest
import soundfile
import torch
from tiny import noise
from transformers import AutoFeatureExtractor, Wav2Vec2FeatureExtractor, WhisperFeatureExtractor

from msfser import MsfSerFeatureExtractor, feature_extraction_msfser
from msfser.audio_msfser import load_audio

RATE = 16_000
HOP = 160
KINDS = {
    "waveform": {},
    "waveform as it is": {"do_normalize": False},
    "log_mel": {"kind": "log_mel", "feature_size": 80},
}
every_kind = pytest.mark.parametrize("kind", KINDS)


def extractor(kind: str, **options) -> MsfSerFeatureExtractor:
    return MsfSerFeatureExtractor(**(KINDS[kind] | options))


def values_of(features) -> np.ndarray:
    return features["input_features"] if "input_features" in features else features["input_values"]


def units(kind: str, seconds: float) -> int:
    """Samples or mel frames."""
    return int(seconds * RATE) // (HOP if kind == "log_mel" else 1)


# Values


def whisper_log_mel(sound: np.ndarray, n_mels: int) -> np.ndarray:
    reference = WhisperFeatureExtractor(feature_size=n_mels)
    return reference(sound, sampling_rate=RATE, return_tensors="np")["input_features"][0]


@pytest.mark.parametrize("n_mels", [80, 128])
def test_log_mel_equals_whispers_on_the_frames_that_the_clip_covers(n_mels):
    # Whisper's floor is 8 below the maximum, so the loudest moment must lie inside the clip; its 30 s pad with silence
    # where our clip ends, so the last frames, whose windows reach over the end, are not compared.
    sound = noise(2.0) * np.hanning(2 * RATE).astype(np.float32)
    ours = MsfSerFeatureExtractor("log_mel", n_mels)(sound, RATE)["input_features"][0].T
    covered = (len(sound) - 200) // HOP + 1
    assert ours.shape == (n_mels, 200)
    assert covered >= 198
    np.testing.assert_allclose(ours[:, :covered], whisper_log_mel(sound, n_mels)[:, :covered], atol=1e-5)


def test_log_mel_of_thirty_seconds_equals_whispers_to_the_last_frame():
    sound = noise(30.0)
    ours = MsfSerFeatureExtractor("log_mel", 80, max_seconds=30.0)(sound, RATE)["input_features"][0].T
    assert ours.shape == (80, 3000)
    np.testing.assert_allclose(ours, whisper_log_mel(sound, 80), atol=1e-5)


@pytest.mark.parametrize("do_normalize", [True, False])
def test_waveforms_equal_those_of_wav2vec2(do_normalize):
    sounds = [noise(0.7, 1) + 0.2, noise(1.1, 2)]
    reference = Wav2Vec2FeatureExtractor(do_normalize=do_normalize, return_attention_mask=True)
    expected = reference(sounds, sampling_rate=RATE, padding=True, return_tensors="np")
    ours = MsfSerFeatureExtractor(do_normalize=do_normalize)(sounds, RATE, return_tensors="np")
    np.testing.assert_allclose(ours["input_values"], expected["input_values"], atol=1e-5)
    np.testing.assert_array_equal(ours["attention_mask"], expected["attention_mask"])


def test_normalization_ignores_padding():
    long, short = noise(2.0, 1), noise(0.1, 2) * 3 + 0.5
    row = MsfSerFeatureExtractor()([long, short], RATE)["input_values"][1]
    sound, padding = row[: len(short)], row[len(short) :]
    assert abs(sound.mean()) < 1e-5
    assert abs(sound.std() - 1) < 1e-4
    assert not padding.any()


@every_kind
@pytest.mark.parametrize("level", [0.0, 1e-7, 0.3])
def test_silence_and_a_constant_give_finite_features(kind, level):
    values = values_of(extractor(kind)(np.full(RATE, level, np.float32), RATE))
    assert np.isfinite(values).all()
    if level == 0:
        assert values.std() == 0


# Padding, mask, length


@every_kind
def test_a_batch_equals_its_items_alone(kind, tmp_path):
    soundfile.write(tmp_path / "sound.flac", noise(0.6, 3), RATE)
    at_22k = {"array": noise(0.9, 4), "sampling_rate": 22_050}
    sounds = [noise(1.3), tmp_path / "sound.flac", at_22k, noise(0.05, 5), np.zeros(9000, np.float32)]
    extract = extractor(kind)
    for item in (0, 3, 4):
        sounds[item] = {"array": sounds[item], "sampling_rate": RATE}
    together = extract(sounds)
    assert together["attention_mask"].shape == values_of(together).shape[:2]
    for values, mask, sound in zip(values_of(together), together["attention_mask"], sounds, strict=True):
        alone = extract(sound)
        length = mask.sum()
        assert mask[:length].all()  # the padding is at the end
        assert alone["attention_mask"].tolist() == [[1] * length]
        np.testing.assert_array_equal(values[:length], values_of(alone)[0])
        assert not values[length:].any()


@every_kind
@pytest.mark.parametrize(("seconds", "used"), [(0.001, 0.5), (0.5, 0.5), (0.73, 0.73), (1.5, 1.5), (4.0, 1.5)])
def test_length_lies_between_minimum_and_maximum(kind, seconds, used):
    features = extractor(kind, min_seconds=0.5, max_seconds=1.5)(noise(seconds), RATE)
    assert values_of(features).shape[1] == features["attention_mask"].sum() == units(kind, used)


@every_kind
def test_what_follows_the_maximum_has_no_effect(kind):
    sound = noise(3.0)
    cut = extractor(kind, max_seconds=1.0)(sound, RATE)
    np.testing.assert_array_equal(values_of(cut), values_of(extractor(kind)(sound[:RATE], RATE)))


@every_kind
def test_an_item_without_sound_is_zeros_under_an_empty_mask(kind):
    extract = extractor(kind)
    sound = noise(0.8)
    features = extract([None, sound], RATE)
    assert not values_of(features)[0].any()
    assert features["attention_mask"].sum(1).tolist() == [0, units(kind, 0.8)]
    np.testing.assert_array_equal(values_of(features)[1:], values_of(extract(sound, RATE)))
    silent = extract([None, None])
    assert silent["attention_mask"].shape == (2, units(kind, 0.5))
    assert not silent["attention_mask"].any()


# Forms of input and output


@every_kind
def test_one_sound_in_any_form_is_a_batch_of_one(kind):
    sound = noise(0.6)
    expected = values_of(extractor(kind)([sound], RATE))
    stereo = (RATE, np.stack([sound, sound], axis=1))
    forms = [sound, sound.tolist(), torch.tensor(sound), stereo, {"array": sound}, (sound,)]
    objects = np.empty(1, dtype=object)
    objects[0] = sound
    for form in [*forms, objects]:
        np.testing.assert_array_equal(values_of(extractor(kind)(form, RATE)), expected)


def test_a_list_of_numbers_may_start_with_a_whole_one():
    sound = [0, *noise(0.6).tolist()]
    features = MsfSerFeatureExtractor(do_normalize=False)(sound, RATE)
    np.testing.assert_allclose(features["input_values"][0], sound, atol=1e-7)


@pytest.mark.parametrize(("return_tensors", "kind"), [("pt", torch.Tensor), ("np", np.ndarray), (None, np.ndarray)])
def test_tensors_come_as_asked(return_tensors, kind):
    features = MsfSerFeatureExtractor()(noise(0.6), RATE, return_tensors=return_tensors)
    assert all(isinstance(value, kind) for value in features.values())
    assert str(features["input_values"].dtype).endswith("float32")
    assert str(features["attention_mask"].dtype).endswith("int64")


@pytest.mark.parametrize(
    "bad", [np.zeros(0, np.float32), np.array([np.nan]), "missing.wav", b"text", np.ones(9) * 1000, np.zeros(9, int)]
)
def test_an_error_names_the_item(bad):
    with pytest.raises(ValueError, match=r"^Audio item 2: "):
        MsfSerFeatureExtractor()([noise(0.6), None, bad], RATE)


def test_a_batch_of_nothing_is_a_clear_error():
    with pytest.raises(ValueError, match="There is no sound"):
        MsfSerFeatureExtractor()([], RATE)


# Settings


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"kind": "mfcc"}, "kind='mfcc'"),
        ({"sampling_rate": 8_000}, "sampling_rate=8000"),
        ({"min_seconds": 0.0}, "leave no length"),
        ({"min_seconds": 3.0, "max_seconds": 2.0}, "leave no length"),
        ({"max_seconds": float("inf")}, r"max_seconds=inf leave no length: give finite numbers, 0 < min_seconds"),
        ({"max_seconds": float("nan")}, "leave no length"),
        ({"padding_side": "left"}, "padding_side='left' gives wrong numbers: leave it out, or give 'right'"),
        ({"kind": "log_mel", "feature_size": 80, "min_seconds": 0.01}, "less than one log-mel window"),
    ],
)
def test_impossible_settings_are_a_clear_error(options, sentence):
    with pytest.raises(ValueError, match=sentence):
        MsfSerFeatureExtractor(**options)


def test_the_shortest_possible_minimum_works():
    features = MsfSerFeatureExtractor("log_mel", 80, min_seconds=0.025)(np.ones(1, np.float32), RATE)
    assert features["input_features"].shape == (1, 2, 80)
    assert np.isfinite(features["input_features"]).all()


@every_kind
@pytest.mark.parametrize("auto", [AutoFeatureExtractor, MsfSerFeatureExtractor])
def test_saving_and_loading_keeps_every_setting(kind, auto, tmp_path):
    before = extractor(kind, min_seconds=0.3, max_seconds=0.9)
    before.save_pretrained(tmp_path)
    after = auto.from_pretrained(tmp_path)
    assert type(after) is MsfSerFeatureExtractor
    assert after.to_dict() == before.to_dict()
    np.testing.assert_array_equal(values_of(after(noise(1.2), RATE)), values_of(before(noise(1.2), RATE)))
    saved = json.loads((tmp_path / "preprocessor_config.json").read_text())
    assert saved["auto_map"] == {"AutoFeatureExtractor": "feature_extraction_msfser.MsfSerFeatureExtractor"}


@every_kind
def test_a_normalized_level_hides_gain_and_leaves_silence(kind):
    sound = np.concatenate([noise(0.6), 0.1 * noise(0.6, 1)])
    leveled = values_of(extractor(kind, normalize_level=True)([0.2 * sound, 3 * sound], sampling_rate=RATE))
    np.testing.assert_allclose(leveled[0], leveled[1], atol=1e-4)
    as_it_is = values_of(extractor(kind)([0.2 * sound, 3 * sound], sampling_rate=RATE))
    if kind != "waveform":
        assert np.abs(as_it_is[0] - as_it_is[1]).max() > 0.1
    silence = np.zeros(RATE, np.float32)
    np.testing.assert_array_equal(
        values_of(extractor(kind, normalize_level=True)(silence, RATE)), values_of(extractor(kind)(silence, RATE))
    )


# Cutting


@pytest.fixture
def warnings(caplog):
    """The library's log, which does not reach the root logger by itself."""
    logger = logging.getLogger("transformers")
    logger.addHandler(caplog.handler)
    yield lambda: [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    logger.removeHandler(caplog.handler)


@every_kind
def test_cut_sounds_give_one_warning_that_names_length_and_remedy(kind, warnings, tmp_path):
    soundfile.write(tmp_path / "long.wav", noise(1.6), 22_050)
    rows = [{"array": noise(seconds), "sampling_rate": RATE} for seconds in (0.6, 1.02, 1.0, 3.0)]
    before = extractor(kind, max_seconds=1.0)([*rows, tmp_path / "long.wav", None], warn_if_cut=False)
    assert warnings() == []
    after = extractor(kind, max_seconds=1.0)([*rows, tmp_path / "long.wav", None])
    (warning,) = warnings()
    assert "3 of 6 sounds (first item 1) are longer than 1 s and were cut there" in warning
    assert "use the pipeline" in warning and "max_seconds" in warning
    np.testing.assert_array_equal(values_of(before), values_of(after))


@every_kind
def test_a_cut_sound_is_read_once(kind, monkeypatch):
    read = []

    def reading(sound, rate, max_seconds, *others):
        read.append(max_seconds)
        return load_audio(sound, rate, max_seconds, *others)

    monkeypatch.setattr(feature_extraction_msfser, "load_audio", reading)
    rows = [{"array": noise(seconds), "sampling_rate": 22_050} for seconds in (0.6, 3.0)]
    found = extractor(kind, max_seconds=1.0)(rows)
    assert read == [1.1, 1.1]
    assert values_of(found).shape[1] == RATE // (160 if kind == "log_mel" else 1)


@every_kind
@pytest.mark.parametrize("rate", [RATE, 11_025, 44_100])
def test_a_sound_of_the_greatest_length_gives_no_warning(kind, rate, warnings):
    sound = np.zeros(int(1.5 * rate), np.float32) + 0.1
    features = extractor(kind, max_seconds=1.5)(sound, rate)
    assert features["attention_mask"].sum() == pytest.approx(units(kind, 1.5), abs=1)
    assert warnings() == []


def test_waveforms_may_be_normalized_by_the_statistics_of_a_corpus():
    sound = noise(1.0)
    plain = MsfSerFeatureExtractor(do_normalize=False)(sound, 16_000)["input_values"][0]
    found = MsfSerFeatureExtractor(do_normalize=False, mean=0.01, std=0.5)(sound, 16_000)["input_values"][0]
    assert np.allclose(found, (np.asarray(plain) - 0.01) / 0.5, atol=1e-6)
    for wrong in ({"mean": 0.1}, {"std": 0.5, "kind": "log_mel"}, {"do_normalize": False, "std": 0.0}):
        with pytest.raises(ValueError, match="with do_normalize=False"):
            MsfSerFeatureExtractor(**wrong)
