"""The intervals around the numbers: what they promise, that they move nothing, and that they survive saving."""

import numpy as np
import pytest
import torch
from spoken import Recognizer, voice
from tiny import noise, tiny_model, tiny_processor
from transformers import AutoModel
from transformers.utils import logging as library_logging

from msfser import LABELS, MsfSerModel, MsfSerPipeline
from msfser.intervals_msfser import LEVELS, MsfSerIntervals, check_level, percentile_of, percentiles_of, set_intervals
from msfser.loss_msfser import UNRATED
from msfser.prediction.tables import rows_of_result
from msfser.training.calibration import calibrated, scale_of

RATE = 16_000


def some_intervals() -> MsfSerIntervals:
    draw = np.random.default_rng(0)
    numbers = draw.uniform(size=(400, 3))
    labels = np.clip(numbers + draw.normal(size=(400, 3)) * (0.05 + 0.2 * numbers), 0, 1)
    return calibrated(numbers, labels, [f"s{i % 20}" for i in range(400)])


@pytest.fixture(scope="module")
def model() -> MsfSerModel:
    made = tiny_model("whisper")
    set_intervals(made, some_intervals())
    labels = np.random.default_rng(1).uniform(size=(60, 3))
    made.config.scale = scale_of(labels, labels**2, "a corpus")
    return made


def inputs() -> dict[str, torch.Tensor]:
    return tiny_processor("whisper")([noise(1.0), noise(0.7, 1)], sampling_rate=RATE, transcript=["the food", "a b"])


def test_an_interval_contains_its_number_and_grows_with_its_level(model):
    numbers = torch.rand(200, 3, generator=torch.Generator().manual_seed(0))
    widths = []
    for level in (0.01, 0.5, 0.505, 0.9, 0.99):
        low, high = model.intervals(numbers, level)
        assert (low >= 0).all() and (high <= 1).all() and (low <= numbers).all() and (numbers <= high).all()
        widths.append((high - low).mean().item())
    assert widths == sorted(set(widths))


def test_an_interval_is_wide_where_errors_are_large(model):
    low, high = model.intervals(torch.tensor([[0.3] * 3, [0.6] * 3]))
    assert ((high - low)[1] > (high - low)[0]).any()


def test_what_is_not_calibrated_says_nothing():
    for level in (0.5, 0.9, 0.905):
        low, high = MsfSerIntervals()(torch.tensor([[0.2, 0.5, 0.9]]), level)
        assert low.tolist() == [[0, 0, 0]] and high.tolist() == [[1, 1, 1]]


@pytest.mark.parametrize("level", [0, 1, 0.001, float("nan"), "0.9", True, None])
def test_a_level_outside_the_table_is_refused(model, level):
    with pytest.raises(ValueError, match=r"give a number from 0\.01 to 0\.99"):
        check_level(level)
    for one in (model, tiny_model("whisper")):  # also without intervals
        with pytest.raises(ValueError, match="is no level"), torch.no_grad():
            one(**inputs(), interval_level=level)


def test_the_numbers_are_those_of_the_model_without(model):
    bare = tiny_model("whisper")
    with torch.no_grad():
        with_intervals, without = model(**inputs()), bare(**inputs())
    assert torch.equal(with_intervals.logits, without.logits)
    assert without.low is None and "low" not in without and "high" not in without
    assert with_intervals.low.shape == with_intervals.high.shape == (2, 3)
    assert not any(parameter.requires_grad for parameter in model.intervals.parameters())


def test_training_has_none(model):
    assert model.train()(**inputs(), labels=torch.full((2, 3), 0.5)).low is None
    model.eval()


@pytest.mark.parametrize("has_intervals", [True, False])
def test_a_saved_model_loads_without_a_warning(model, has_intervals, tmp_path, caplog):
    saved = model if has_intervals else tiny_model("whisper")
    saved.save_pretrained(tmp_path)
    library_logging.enable_propagation()
    loaded, report = MsfSerModel.from_pretrained(tmp_path, output_loading_info=True)
    remote = AutoModel.from_pretrained(tmp_path, trust_remote_code=True)
    library_logging.disable_propagation()
    assert not report["missing_keys"] and not report["unexpected_keys"]
    assert "MISSING" not in caplog.text and "UNEXPECTED" not in caplog.text
    with torch.no_grad():
        for again in (loaded, remote):
            assert not [name for name, p in again.named_parameters() if p.requires_grad and "intervals" in name]
            expected, found = (one(**inputs(), interval_level=0.8) for one in (saved, again))
            assert torch.equal(found.logits, expected.logits)
            assert torch.equal(found.high, expected.high) if has_intervals else found.high is None


def test_a_model_to_be_trained_loses_what_is_of_its_numbers(model, tmp_path):
    model.save_pretrained(tmp_path / "calibrated")
    bare = MsfSerModel.from_pretrained(tmp_path / "calibrated").uncalibrate()
    with torch.no_grad():
        assert torch.equal(bare(**inputs()).logits, model(**inputs()).logits)
    bare.save_pretrained(tmp_path / "bare")
    loaded, report = MsfSerModel.from_pretrained(tmp_path / "bare", output_loading_info=True)
    assert loaded.intervals is None and not loaded.config.intervals and loaded.config.scale is None
    assert not report["missing_keys"] and not report["unexpected_keys"]


def test_a_model_that_is_to_get_intervals_starts_with_open_ones(tmp_path):
    tiny_model("whisper").save_pretrained(tmp_path)
    loaded = MsfSerModel.from_pretrained(tmp_path, intervals=True)
    with torch.no_grad():
        output = loaded(**inputs())
    assert (output.low == 0).all() and (output.high == 1).all()


def test_half_precision_has_almost_the_same_intervals(model):
    halved = MsfSerIntervals()
    halved.load_state_dict(model.intervals.state_dict())
    numbers = torch.rand(20, 3)
    for end, other in zip(model.intervals(numbers), halved.bfloat16()(numbers), strict=True):
        assert other.dtype == torch.float32 and (end - other).abs().max() < 0.02


# Percentiles


def test_a_percentile_lies_between_the_quantiles():
    quantiles = [0.0, 0.1, 0.5, 0.5, 1.0]
    found = [percentile_of(value, quantiles) for value in (-1.0, 0.0, 0.05, 0.1, 0.3, 0.5, 0.75, 1.0, 2.0)]
    assert found == [0, 0, 12, 25, 38, 62, 88, 100, 100]


def test_percentiles_are_those_of_the_corpus():
    labels = np.random.default_rng(0).uniform(size=(1000, 3))
    labels[:, 2] = UNRATED
    scale = scale_of(labels, np.random.default_rng(0).uniform(size=(1000, 3)) ** 2, "a corpus")
    assert scale["of"] == "a corpus" and scale["labels"]["dominance"] == []
    found = percentiles_of({"valence": 0.25, "arousal": 0.5, "dominance": 0.5}, scale)
    assert abs(found["valence"]["labels"] - 25) <= 3 and abs(found["valence"]["predictions"] - 50) <= 3
    assert found["dominance"]["labels"] is None
    assert percentiles_of({"valence": 0.25}, None) is None


# The pipeline


@pytest.fixture(scope="module")
def pipe(model):
    return MsfSerPipeline(model, processor=tiny_processor("whisper"), recognizer=Recognizer(), describer=None)


def test_a_result_has_intervals_and_percentiles(pipe):
    sound = {"array": voice(2.0, 0), "sampling_rate": RATE}
    result, narrow = pipe(sound), pipe(sound, interval_level=0.5)
    assert (result["interval_level"], narrow["interval_level"]) == (0.9, 0.5)
    for label in LABELS:
        (low, high), (lower, upper) = result["intervals"][label], narrow["intervals"][label]
        assert 0 <= low <= lower <= result[label] <= upper <= high <= 1 and upper - lower < high - low
        assert all(0 <= result["percentiles"][label][kind] <= 100 for kind in ("labels", "predictions"))
    assert result["percentiles_of"] == "a corpus"


def test_the_interval_of_a_long_recording_is_the_mean_of_its_windows(pipe):
    result = pipe({"array": np.tile(voice(3.0, 1), 6), "sampling_rate": RATE})
    assert len(result["course"]) > 1
    for label in LABELS:
        ends = np.array([window["intervals"][label] for window in result["course"]])
        low, high = result["intervals"][label]
        assert ends[:, 0].min() - 1e-6 <= low <= result[label] <= high <= ends[:, 1].max() + 1e-6


@pytest.mark.parametrize("seconds", [2.0, 33.0])
def test_without_speech_there_is_no_interval(model, seconds):
    silent = MsfSerPipeline(model, processor=tiny_processor("whisper"), recognizer=None, describer=None)
    sound = {"array": np.zeros(int(seconds * RATE), np.float32), "sampling_rate": RATE}
    result = silent(sound)
    assert not result["has_speech"] and result["intervals"] is None and result["interval_level"] is None
    assert all(window["intervals"] is None for window in result.get("course", ()))
    assert model.config.scale and result["percentiles"] is None and result["percentiles_of"] is None
    assert ("course" in result) == (seconds > 30)
    (row,) = rows_of_result("silence.wav", result, None, max_width=0.4)
    assert row["valence"] is None and "they have no interval" in row["warnings"][-1]


def test_a_few_words_in_music_bring_no_interval(pipe):
    time = np.arange(6 * RATE) / RATE
    tone = 0.005 * np.sin(2 * np.pi * 220 * time).astype(np.float32)
    tone[:RATE] *= 20  # where the recognizer finds a word
    result = pipe({"array": tone, "sampling_rate": RATE})
    assert len(result["words"]) == 1 and result["intervals"] is None and result["interval_level"] is None


def test_windows_without_speech_have_no_interval_and_no_part_in_that_of_the_recording(pipe):
    sound = np.concatenate([voice(9.0), np.zeros(14 * RATE, np.float32), voice(9.0, 1)])
    result = pipe({"array": sound, "sampling_rate": RATE})
    course = result["course"]
    assert result["has_speech"] and {window["has_speech"] for window in course} == {True, False}
    assert all((window["intervals"] is not None) == window["has_speech"] for window in course)
    spoken = [window for window in course if window["has_speech"]]
    for label in LABELS:
        ends = np.array([window["intervals"][label] for window in spoken])
        for end, of_windows in zip(result["intervals"][label], ends.T, strict=True):
            assert of_windows.min() - 1e-6 <= end <= of_windows.max() + 1e-6
        numbers = [window[label] for window in spoken]
        assert min(numbers) - 1e-6 <= result[label] <= max(numbers) + 1e-6
    rows = list(rows_of_result("call.wav", result, None, course=True, max_width=2.0))
    assert [row["valence"] is not None for row in rows] == [window["has_speech"] for window in course]
    # Numbers that are not left out come with the reason to.
    rows = list(rows_of_result("call.wav", result, None, course=True))
    assert ["No speech was found." in row["warnings"] for row in rows] == [row["speech_seconds"] == 0 for row in rows]
    assert [row["warnings"] == result["warnings"] for row in rows] == [window["has_speech"] for window in course]
    assert [row["speech_seconds"] for row in rows] == [window["speech_seconds"] for window in course]
    assert max(row["speech_seconds"] for row in rows) < result["speech_seconds"]


def test_a_stream_has_intervals_of_the_level_that_is_asked_for(pipe):
    for options, level in (({}, 0.9), ({"interval_level": 0.5}, 0.5)):
        results = list(pipe.stream([voice(2.0)], RATE, **options))
        assert [result["interval_level"] for result in results] == [level] * len(results)
        assert results[0]["intervals"] == pipe(voice(1.0), sampling_rate=RATE, **options)["intervals"]
    with pytest.raises(ValueError, match="interval_level=2 is no level"):
        pipe.stream([voice(2.0)], RATE, interval_level=2)


def test_a_model_without_intervals_says_so():
    bare = MsfSerPipeline(tiny_model("whisper"), processor=tiny_processor("whisper"), recognizer=None, describer=None)
    result = bare({"array": voice(2.0, 0), "sampling_rate": RATE})
    names = ("intervals", "interval_level", "percentiles", "percentiles_of")
    assert [result[name] for name in names] == [None] * 4
    with pytest.raises(ValueError, match="interval_level=2 is no level"):
        bare({"array": voice(2.0, 0), "sampling_rate": RATE}, interval_level=2)


def test_levels_are_percent():
    assert LEVELS[0] == 0.01 and LEVELS[-1] == 0.99 and len(LEVELS) == 99
