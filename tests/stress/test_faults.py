"""Faults in training and annotation: what was done stays, a sentence says what happened, and the end is the same."""

import json
import logging
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from tiny_run import command, make_tiny, weights
from transformers.trainer_pt_utils import LengthGroupedSampler

from msfser.train import main
from msfser.training import steps
from msfser.training.checkpoints import find_checkpoint
from msfser.training.collator import FeatureCollator
from msfser.training.samplers import SeededLengthGroups
from msfser.training.trainer import MsfSerTrainer
from stress import faults

no_kill = pytest.mark.skipif(sys.platform == "win32", reason="there is no kill -9")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return make_tiny(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def stopped(tiny, tmp_path_factory):
    """A run that was stopped with three checkpoints."""
    output = tmp_path_factory.mktemp("stopped") / "run"
    steps = []
    with pytest.MonkeyPatch.context() as patch:
        step = MsfSerTrainer.training_step

        def counted(self, *args):
            steps.append(1)
            if len(steps) > 9:
                raise KeyboardInterrupt
            return step(self, *args)

        patch.setattr(MsfSerTrainer, "training_step", counted)
        with pytest.raises(SystemExit, match="130"):
            main(command(tiny, output, "--num_train_epochs", "4"))
    assert [path.name for path in faults.checkpoints(output)] == ["checkpoint-3", "checkpoint-6", "checkpoint-9"]
    return output


def found(output: Path, **options) -> str | None:
    training = SimpleNamespace(**{"world_size": 1, "load_best_model_at_end": True, "should_log": True} | options)
    checkpoint = find_checkpoint(output, training)
    return checkpoint and Path(checkpoint).name


@pytest.fixture
def copied(stopped, tiny, tmp_path):
    """Such a run to be damaged."""
    output = tmp_path / "run"
    shutil.copytree(stopped, output)
    return output


@pytest.mark.parametrize("way", faults.DAMAGES)
def test_a_damaged_checkpoint_is_skipped_with_a_word(way, copied, tiny, caplog):
    assert found(copied) == "checkpoint-9"
    faults.DAMAGES[way](copied / "checkpoint-9")
    with caplog.at_level(logging.WARNING):
        assert found(copied) == "checkpoint-6"
    assert "checkpoint-9 is skipped: " in caplog.text
    for name in ("checkpoint-6", "checkpoint-3"):
        faults.DAMAGES[way](copied / name)
    assert found(copied) is None
    assert "holds no whole checkpoint: training starts again" in caplog.text


def test_a_damaged_best_checkpoint_is_skipped_too(copied, tiny, caplog):
    for name in ("checkpoint-6", "checkpoint-9"):
        file = copied / name / "trainer_state.json"
        best = {"best_model_checkpoint": str(copied / "checkpoint-6")}
        file.write_text(json.dumps(json.loads(file.read_text()) | best))
    faults.DAMAGES["half the weights"](copied / "checkpoint-6")
    with caplog.at_level(logging.WARNING):
        assert found(copied) == "checkpoint-3"
    assert "of the best so far, checkpoint-6, model.safetensors is damaged" in caplog.text
    assert found(copied, load_best_model_at_end=False) == "checkpoint-9"


def test_a_process_without_its_random_numbers_is_not_gone_on_with(copied, tiny):
    newest = copied / "checkpoint-9"
    (newest / "rng_state.pth").rename(newest / "rng_state_0.pth")
    assert found(copied, world_size=2) == "checkpoint-6"
    shutil.copy(newest / "rng_state_0.pth", newest / "rng_state_1.pth")
    assert found(copied, world_size=2) == "checkpoint-9"


def test_a_checkpoint_of_nothing_but_weights_can_be_gone_on_from(copied, tiny):
    for name in ("optimizer.pt", "scheduler.pt", "rng_state.pth"):
        (copied / "checkpoint-9" / name).unlink()
    assert found(copied) == "checkpoint-9"


class Poisoned(FeatureCollator):
    """Makes the sound of one row not a number."""

    def __call__(self, rows):
        batch = super().__call__(rows)
        for i, row in enumerate(rows):
            if row.get("row", "").startswith("row 6 "):
                batch["audio_states"][i] = torch.nan
        return batch


def test_a_loss_that_is_not_finite_names_its_row_and_loses_nothing(tiny, tmp_path, monkeypatch):
    main(command(tiny, tmp_path / "whole"))
    with monkeypatch.context() as patch:
        patch.setattr(steps, "FeatureCollator", Poisoned)
        sentence = (
            r"at step \d the loss is not finite: the output is not finite for row 6 of train \(.*/9\.wav\); correct"
        )
        with pytest.raises(SystemExit, match=sentence):
            main(command(tiny, tmp_path / "run"))
    main(command(tiny, tmp_path / "run"))
    whole, run = weights(tmp_path / "whole"), weights(tmp_path / "run")
    assert all(torch.equal(whole[name], run[name]) for name in whole)


def test_weights_that_are_not_finite_are_told_from_rows(tiny, tmp_path):
    with pytest.raises(SystemExit, match="the weights are no longer finite; lower the learning rate"):
        main(command(tiny, tmp_path / "run", "--learning_rate", "1e38", "--max_grad_norm", "0"))


def test_the_order_of_an_epoch_does_not_depend_on_random_numbers_drawn_before():
    groups = SeededLengthGroups(LengthGroupedSampler(4, lengths=list(range(64))), seed=1)
    orders = []
    for epoch in (0, 1, 1):
        torch.rand(epoch)
        groups.set_epoch(epoch)
        orders.append(list(groups))
    assert orders[1] == orders[2] != orders[0] and sorted(orders[0]) == list(range(64))


def assert_kept(counts: faults.Counts):
    assert counts.lost == counts.overwritten == 0
    # At the end, other data are refused and a repetition has nothing to do.
    assert counts.answered == counts.guarded >= 2


def test_a_command_that_changes_a_folder_is_counted(tmp_path):
    """The guard of the faults can fail: annotating other data into an empty folder is no refusal."""
    job = faults.annotation(tmp_path, clips=1)
    (tmp_path / "run").mkdir()
    counts = faults.guard(job.of_other_data(), tmp_path / "run" / "out", "error: ")
    assert counts == faults.Counts(guarded=1, overwritten=1, answered=0)


@no_kill
def test_kills_and_full_disks_change_no_result_of_training(tiny, tmp_path):
    job = faults.training(tiny)
    assert_kept(faults.kill(job, tmp_path, 2, seed=1))
    full = faults.fill_disk(job, tmp_path, (1_000, 40_000))
    assert full == faults.Counts(injected=2, lost=0, said=2)


@no_kill
def test_kills_and_full_disks_change_no_result_of_annotation(tmp_path):
    job = faults.annotation(tmp_path, clips=8)
    assert_kept(faults.kill(job, tmp_path, 2, seed=1))
    full = faults.fill_disk(job, tmp_path, (100, 2_000))
    assert full == faults.Counts(injected=2, lost=0, said=2)


@pytest.mark.parametrize("name", ["8.wav", "8.raw", "8.vox"])
def test_a_recording_that_is_no_sound_is_a_sentence_before_training(name, tiny, tmp_path):
    shutil.copytree(tiny / "corpus", tmp_path / "corpus")
    table = tmp_path / "corpus" / "metadata.csv"
    table.write_text(table.read_text().replace("\n8.wav", f"\n{name}"))
    (tmp_path / "corpus" / name).write_text("Dear reader, " * 100)
    with pytest.raises(SystemExit, match=rf"the recording '.*{name}' cannot be used: .* cannot be decoded"):
        main(command(tiny, tmp_path / "run", "--data", str(tmp_path / "corpus")))
