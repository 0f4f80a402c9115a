"""The engine: settings are chosen inside, fits are shared, kept under what made them, and taken over."""

import subprocess
import sys
import textwrap
from dataclasses import replace

import numpy as np
import pytest
from filelock import FileLock

from msfser.evaluation import held_out
from msfser.evaluation.held_out import HeldOut, System, leave_groups_out, mean_ccc, speaker_groups

CORPORA = np.repeat(list("abcd"), 30)


@pytest.fixture
def labels():
    return np.random.default_rng(0).uniform(size=(120, 3)).astype(np.float32)


class Counting:
    """Predicts labels with noise by setting; counts its fits."""

    def __init__(self, labels: np.ndarray, squeeze: float = 1.0):
        self.labels, self.squeeze, self.fits = labels, squeeze, []

    def __call__(self, train, rest, setting, seed):
        self.fits.append((tuple(train), dict(setting), seed))
        assert not set(train) & set(rest)
        draw = np.random.default_rng([seed, len(train)])
        noise = draw.standard_normal((len(rest), 3)) * setting.get("noise", 0.1)
        return {"sound": 0.3 + self.squeeze * (self.labels[rest] + noise), "other": np.zeros((len(rest), 3))}


def engine(labels, folder, **options) -> HeldOut:
    return HeldOut(labels, leave_groups_out(CORPORA.tolist(), **options), "data", folder)


GRID = ({"noise": 1.0}, {"noise": 0.05}, {"noise": 0.5})


def test_each_group_is_left_out_and_the_others_inside():
    folds = leave_groups_out(CORPORA.tolist(), trained=["a", "b", "c"])
    assert {name: set(CORPORA[fold.split.train]) for name, fold in folds.items()} == {
        "a": {"b", "c"}, "b": {"a", "c"}, "c": {"a", "b"}, "d": {"a", "b", "c"}
    }  # fmt: skip
    for name, fold in folds.items():
        assert set(CORPORA[fold.split.held]) == {name}
        left_out = [set(CORPORA[split.held]) for split in fold.inner]
        assert sorted(map(min, left_out)) == sorted({"a", "b", "c"} - {name})
        for split in fold.inner:
            assert not {name, "d"} & set(CORPORA[split.train]) and not set(split.train) & set(split.held)


def test_fewer_groups_inside_share_their_fits():
    """Of six groups three are left out inside each fold; the nine different pairs need nine fits."""
    folds = leave_groups_out([str(place % 6) for place in range(60)], step=2)
    assert {len(fold.inner) for fold in folds.values()} == {3}
    assert len({tuple(split.train) for fold in folds.values() for split in fold.inner}) == 9


def test_speakers_stay_together():
    speakers = np.repeat([f"s{n}" for n in range(11)], 4)
    groups = speaker_groups(speakers, 4)
    assert sorted(np.bincount(groups) // 4) == [2, 3, 3, 3]
    assert all(len(set(groups[speakers == name])) == 1 for name in speakers)


def test_the_setting_is_chosen_inside_and_the_held_out_clips_have_no_part_in_it(labels, tmp_path):
    """The system fails on the group that is left out, with the setting that is best inside."""

    def fit_predict(train, rest, setting, seed):
        wrong = (CORPORA[rest] == "d") == (setting["good"] == "inside")
        return {"sound": np.where(wrong[:, None], 1 - labels[rest], labels[rest])}

    system = System("x", fit_predict, [], ({"good": "outside"}, {"good": "inside"}))
    made = engine(labels, tmp_path, trained=["a", "b", "c"])
    made.run([system], [0])
    assert made.chosen(system, "d").choice.setting == {"good": "inside"}
    tried = made.chosen(system, "d").tried
    assert [*tried.values()] == pytest.approx([-1, 1], abs=0.1)
    predicted = made.gathered([system], [0])["x"]["sound"]
    np.testing.assert_array_equal(predicted[0, CORPORA == "d"], 1 - labels[CORPORA == "d"])


def test_the_best_setting_is_used_for_every_seed(labels, tmp_path):
    fit_predict = Counting(labels)
    system, made = System("x", fit_predict, [], GRID), engine(labels, tmp_path)
    made.run([system], [0, 1])
    predicted = made.gathered([system], [0, 1])["x"]["sound"]
    assert predicted.shape == (2, 120, 3) and not np.isnan(predicted).any()
    assert {made.chosen(system, name).choice.setting["noise"] for name in "abcd"} == {0.05}
    np.testing.assert_allclose(predicted - 0.3, np.broadcast_to(labels, predicted.shape), atol=0.3)
    assert np.abs(predicted[0] - predicted[1]).max() > 0.01
    # Inside, every pair of groups is left out once with each setting: 6 * 3; outside 4 folds with 2 seeds.
    assert len(fit_predict.fits) == 6 * 3 + 4 * 2
    assert made.budget(system, [0, 1]) == {"settings": 3, "fits_to_choose": 18, "fits_to_report": 8}


def test_one_setting_needs_no_fit_to_choose_and_no_seed_one_fit(labels, tmp_path):
    fit_predict = Counting(labels)
    system, made = System("x", fit_predict, [], seeded=False), engine(labels, tmp_path)
    made.run([system], [0, 1, 2])
    assert len(fit_predict.fits) == 4
    assert made.budget(system, [0, 1, 2]) == {"settings": 1, "fits_to_choose": 0, "fits_to_report": 4}
    predicted = made.gathered([system], [0, 1, 2])["x"]["sound"]
    np.testing.assert_array_equal(predicted[0], predicted[2])


def test_the_spread_of_the_labels_is_restored_without_another_fit(labels, tmp_path):
    """Predictions that are squeezed and shifted have the scale of the labels again, if that is better."""
    fit_predict = Counting(labels, squeeze=0.1)
    system = System("x", fit_predict, [], ({"noise": 0.05},), (False, True))
    made = engine(labels, tmp_path)
    made.run([system], [0])
    assert all(made.chosen(system, name).choice.spread for name in "abcd")
    assert len(fit_predict.fits) == 6 + 4
    predicted = made.gathered([system], [0])["x"]["sound"][0]
    assert mean_ccc(predicted, labels) > 0.9 > 0.2 > mean_ccc(0.1 * labels + 0.3, labels)


def test_the_scale_is_that_of_clips_that_are_left_out_inside(labels, tmp_path):
    """It depends neither on the held-out labels nor on the held-out predictions."""
    fit_predict = Counting(labels, squeeze=0.5)
    system = System("x", fit_predict, [], ({"noise": 0.0},), (True,))
    made = engine(labels, tmp_path, trained=["a", "b", "c"])
    made.run([system], [0])
    held, inside = CORPORA == "d", CORPORA != "d"
    predicted = made.gathered([system], [0])["x"]["sound"][0][held]
    raw = 0.3 + 0.5 * labels
    scale = labels[inside].std(0) / raw[inside].std(0)
    expected = (raw[held] - raw[inside].mean(0)) * scale + labels[inside].mean(0)
    np.testing.assert_allclose(predicted, expected, atol=1e-5)


def test_a_second_run_fits_nothing(labels, tmp_path):
    fit_predict = Counting(labels)
    engine(labels, tmp_path).run([System("x", fit_predict, [], GRID)], [0])
    fits = len(fit_predict.fits)
    again = engine(labels, tmp_path)
    again.run([System("x", fit_predict, [], GRID)], [0])
    assert len(fit_predict.fits) == fits


@pytest.mark.parametrize("changed", ["data", "depends", "code", "grid"])
def test_fits_are_named_by_what_made_them(changed, labels, tmp_path, monkeypatch):
    fit_predict = Counting(labels)
    system, made = System("x", fit_predict, ["loss_msfser"]), engine(labels, tmp_path)
    made.run([system], [0])
    recipe = made.recipe(system)
    if changed == "data":
        made = HeldOut(labels, made.folds, "other data", tmp_path)
    elif changed == "depends":
        system = replace(system, depends=["another version"])
    elif changed == "code":
        monkeypatch.setattr(held_out, "code_of", lambda name: f"changed {name}")
    else:
        system = replace(system, grid=({"noise": 0.2},))
    made.run([system], [0])
    assert len(fit_predict.fits) == 8
    assert made.recipe(system) != recipe


def test_comments_and_docstrings_are_no_code(tmp_path, monkeypatch):
    module = tmp_path / "changing.py"
    monkeypatch.setattr("msfser.__path__", [str(tmp_path)], raising=False)
    read = held_out.code_of.__wrapped__
    codes = []
    for text in (
        '"""A module."""\n\ndef f(x):\n    """Adds."""\n    return x + 1\n',
        '"""The same."""\n\n# Said elsewhere.\ndef f(x):\n    """Adds one."""\n    return x + 1  # one\n',
        '"""A module."""\n\ndef f(x):\n    """Adds."""\n    return x + 2\n',
    ):
        module.write_text(text)
        sys.modules.pop("msfser.changing", None)
        import linecache

        linecache.checkcache()
        codes.append(read("changing"))
    assert codes[0] == codes[1] != codes[2]


def test_a_kill_leaves_no_half_fit_and_the_next_run_continues(labels, tmp_path):
    fit_predict = Counting(labels)

    def killed(train, rest, setting, seed):
        if len(fit_predict.fits) == 3:
            raise KeyboardInterrupt
        return fit_predict(train, rest, setting, seed)

    with pytest.raises(KeyboardInterrupt):
        engine(labels, tmp_path).run([System("x", killed, [], GRID)], [0])
    assert len([*tmp_path.glob("*.npz")]) == 3
    engine(labels, tmp_path).run([System("x", fit_predict, [], GRID)], [0])
    assert len(fit_predict.fits) == 6 * 3 + 4


def test_what_another_process_fits_is_waited_for(labels, tmp_path):
    """Another process holds the lock of a fit and finishes it; here it is not fitted again."""
    fit_predict = Counting(labels)
    system, made = System("x", fit_predict, [], seeded=False), engine(labels, tmp_path)
    made.run([system], [0])
    path = next(iter(tmp_path.glob("*.npz")))
    kept = path.rename(tmp_path / "kept")
    code = f"""
        import pathlib, time
        from filelock import FileLock
        with FileLock({str(path)!r} + ".lock"):
            print("held", flush=True)
            time.sleep(1)
            pathlib.Path({str(kept)!r}).rename({str(path)!r})
    """
    with subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)], stdout=subprocess.PIPE) as other:
        other.stdout.readline()
        made.run([system], [0])
    assert len(fit_predict.fits) == 4 and path.is_file()


def test_what_a_killed_process_left_is_taken_over(labels, tmp_path):
    fit_predict = Counting(labels)
    system, made = System("x", fit_predict, [], seeded=False), engine(labels, tmp_path)
    made.run([system], [0])
    path = next(iter(tmp_path.glob("*.npz")))
    path.unlink()
    with FileLock(f"{path}.lock"):
        pass
    made.run([system], [0])
    assert len(fit_predict.fits) == 5 and path.is_file()
