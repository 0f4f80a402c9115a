"""Calibration: coverage for new speakers, by simulation, what it refuses, and whose predictions training uses."""

import datasets
import numpy as np
import pandas as pd
import pytest
import torch

from msfser import LABELS
from msfser.loss_msfser import UNRATED
from msfser.training import steps
from msfser.training.calibration import calibrated, constant_width, quantiles_of_errors


def simulated(draw: np.random.Generator, speakers: int, clips: int = 30):
    """Numbers, labels and speakers; errors grow with the number, and speakers differ in a shift."""
    numbers = draw.uniform(0.1, 0.9, (speakers * clips, 3))
    shift = np.repeat(draw.normal(0, 0.03, (speakers, 3)), clips, axis=0)
    labels = numbers + shift + draw.normal(size=numbers.shape) * (0.01 + 0.15 * numbers)
    return numbers, np.clip(labels, 0, 1), [f"s{i // clips}" for i in range(len(numbers))]


def coverage(level: float, worlds: int = 2) -> tuple[float, float]:
    """The share that intervals contain of new speakers, and their mean width relative to constant ones."""
    draw = np.random.default_rng(0)
    shares, ratios = [], []
    for _ in range(worlds):
        given, (numbers, labels, _) = simulated(draw, 24), simulated(draw, 60)
        low, high = (end.numpy() for end in calibrated(*given)(torch.tensor(numbers, dtype=torch.float32), level))
        shares.append(((low - 1e-6 <= labels) & (labels <= high + 1e-6)).mean())
        ratios.append((high - low).mean() / (2 * constant_width(*given[:2]).mean()))
    return float(np.mean(shares)), float(np.mean(ratios))


@pytest.mark.parametrize("level", [0.5, 0.9])
def test_new_speakers_are_covered_as_promised(level):
    share, ratio = coverage(level)
    assert abs(share - level) < 0.03
    if level == 0.9:
        assert ratio < 0.98  # the width follows the errors


def test_a_scale_that_has_seen_the_errors_would_be_noticed(monkeypatch):
    """Without the infinite error and with half the errors, intervals are too narrow: the simulation can fail."""
    monkeypatch.setattr(
        "msfser.training.calibration.quantiles_of_errors", lambda errors: quantiles_of_errors(errors * 0.7)
    )
    assert coverage(0.9, worlds=1)[0] < 0.87


def test_quantiles_count_the_one_to_come():
    quantiles = quantiles_of_errors(np.arange(1.0, 10.0)[:, None] * np.ones((1, 3)))
    # Of nine errors the one in place ceil(10 * level); none is there above level 0.9.
    assert quantiles[0, [9, 49, 89]].tolist() == [1, 5, 9] and np.isinf(quantiles[0, 90:]).all()
    assert np.isinf(quantiles_of_errors(np.full((4, 3), np.nan))).all()


def test_what_is_not_rated_does_not_count():
    numbers, labels, speakers = simulated(np.random.default_rng(0), 6)
    part = labels.copy()
    part[:, 2] = UNRATED
    part[::2, 0] = UNRATED
    found = calibrated(numbers, part, speakers)
    assert torch.isinf(found.quantiles[2]).all() and torch.isfinite(found.quantiles[:2, 89]).all()
    low, high = found(torch.tensor([[0.5] * 3]))
    assert low[0, 2] == 0 and high[0, 2] == 1 and high[0, 0] < 1


def test_it_is_always_the_same_and_leaves_the_generator_alone():
    given = simulated(np.random.default_rng(0), 5)
    state = torch.get_rng_state()
    first, second = calibrated(*given).state_dict(), calibrated(*given).state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert torch.equal(torch.get_rng_state(), state)


def test_few_speakers_are_refused():
    with pytest.raises(ValueError, match="3 or more speakers to be calibrated on, and there are 2"):
        calibrated(*simulated(np.random.default_rng(0), 2))


# After training


def of_part(numbers, labels, speakers, **more) -> pd.DataFrame:
    """The predictions for a validation part."""
    columns = dict(zip(LABELS, numbers.T, strict=True)) | dict(zip(steps.GIVEN, labels.T, strict=True))
    return pd.DataFrame({"speaker": speakers, **columns, **more})


def trained_on(*speakers: str | None) -> datasets.Dataset:
    return datasets.Dataset.from_dict({"speaker": list(speakers)} | {label: [0.5] * len(speakers) for label in LABELS})


def test_speakers_of_the_training_do_not_count(caplog):
    """The model knows three of the eight speakers, whom it predicts without an error."""
    numbers, labels, speakers = simulated(np.random.default_rng(0), 8)
    is_known = np.isin(speakers, ["s0", "s1", "s2"])
    labels[is_known] = numbers[is_known]
    with caplog.at_level("INFO", logger="msfser.train"):
        found = steps._fitted_intervals(of_part(numbers, labels, speakers), trained_on("s1", "s0", "x", "s2", "s1"))
    others = calibrated(numbers[~is_known], labels[~is_known], np.array(speakers)[~is_known].tolist()).state_dict()
    everyone = calibrated(numbers, labels, speakers).state_dict()
    of_found = found.state_dict()
    assert all(torch.allclose(weight, others[name], atol=1e-3) for name, weight in of_found.items())
    assert not torch.allclose(of_found["quantiles"], everyone["quantiles"], atol=1e-1)
    assert "90 of 240 validation utterances are of training speakers and do not count" in caplog.text


def test_few_new_speakers_are_too_few(caplog):
    part = of_part(*simulated(np.random.default_rng(0), 4))
    with caplog.at_level("INFO", logger="msfser.train"):
        assert steps._fitted_intervals(part, trained_on("s0", "s1")) is None
    words = "no intervals: they need 3 or more speakers to be calibrated on, and there are 2"
    part_of = " in the validation part, where training speakers do not count; add recordings of other speakers"
    assert words + part_of in caplog.text
    few = part.assign(fold=0)[part["speaker"].isin(["s0", "s1"])]
    with caplog.at_level("INFO", logger="msfser.train"):
        assert steps._fitted_intervals(few, trained_on("s0", "s1")) is None
    assert f"{words}; add recordings of other speakers" in caplog.text
    # In a cross-validation the predictions are by models that left their speakers out.
    assert steps._fitted_intervals(part.assign(fold=part["speaker"]), trained_on("s0", "s1", "s2", "s3")) is not None


def test_few_rated_recordings_are_too_few(caplog):
    """Of eight errors none is in place ceil(9 * 0.9): the interval would be the whole scale."""
    numbers, labels, speakers = simulated(np.random.default_rng(0), 4)
    picked = [*range(0, 120, 15)]
    eight = of_part(numbers[picked], labels[picked], [speakers[place] for place in picked])
    nine = pd.concat([eight, of_part(numbers[-1:], labels[-1:], speakers[-1:])])
    without = nine.assign(dominance_label=np.nan)
    with caplog.at_level("INFO", logger="msfser.train"):
        assert steps._fitted_intervals(eight, trained_on("x")) is None
        assert steps._fitted_intervals(without, trained_on("x")) is None
    words = "no intervals: they need 9 or more rated recordings to be calibrated on, and there are "
    assert f"{words}8 in the validation part, where " in caplog.text and f"{words}0 in the " in caplog.text
    low, high = steps._fitted_intervals(nine, trained_on("x"))(torch.tensor(numbers, dtype=torch.float32))
    assert ((high - low) < 1).any()
    # A dimension that is not rated in the training either needs none.
    rows = trained_on("x").map(lambda row: {"dominance": UNRATED})
    assert steps._fitted_intervals(without, rows) is not None


def test_unknown_speakers_are_no_speaker(caplog):
    numbers, labels, speakers = simulated(np.random.default_rng(0), 5)
    some = [None if speaker == "s4" else speaker for speaker in speakers]
    with caplog.at_level("INFO", logger="msfser.train"):
        assert steps._fitted_intervals(of_part(numbers, labels, some), trained_on("x")) is None
    assert "no intervals: they need all speakers to be known, and 30 utterances name none" in caplog.text
    # Of the training they may be anyone, which is said.
    found = steps._fitted_intervals(of_part(numbers, labels, speakers), trained_on("x", None, None))
    assert found is not None and "2 training utterances name no speaker" in caplog.text
