"""The folder of a run: a finished one is kept, a new run replaces it whole, and only what runs made is touched."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from tiny_run import command, environment, make_tiny, score_rows, weights

from msfser import MsfSerModel
from msfser.cli.outputs import UNFINISHED
from msfser.evaluation.predictions import predict_part
from msfser.evaluation.report import main as report
from msfser.hub.publish import main as publish
from msfser.train import main
from msfser.training import run_folder
from msfser.training.data_identity import identity_of, inputs_of
from msfser.training.run_folder import check_weights
from msfser.training.settings import parse_settings, read_data
from msfser.training.trainer import MsfSerTrainer

ROOT = Path(__file__).parents[2]
# One step.
SHORT = ["--num_train_epochs", "1", "--max_steps", "1", "--eval_strategy", "steps", "--eval_steps", "1"]
SHORT += ["--save_strategy", "steps", "--save_steps", "1"]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> Path:
    return make_tiny(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def ran(tiny, tmp_path_factory) -> Path:
    """A finished run, to be copied."""
    folder = tmp_path_factory.mktemp("ran") / "run"
    main(command(tiny, folder, *SHORT))
    return folder


@pytest.fixture
def finished(ran, tmp_path) -> Path:
    return Path(shutil.copytree(ran, tmp_path / "outputs" / "run"))


@pytest.fixture
def corpus(tiny, tmp_path) -> Path:
    """A copy of the corpus, to be changed."""
    return Path(shutil.copytree(tiny / "corpus", tmp_path / "corpus"))


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def change(corpus: Path, **cells: str) -> None:
    """Changes cells of the first training row of a corpus."""
    with open(corpus / "metadata.csv", newline="") as file:
        first, *rows = csv.DictReader(file)
    with open(corpus / "metadata.csv", "w", newline="") as file:
        table = csv.DictWriter(file, first)
        table.writeheader()
        table.writerows([first | cells, *rows])


@pytest.fixture
def no_training(monkeypatch):
    monkeypatch.setattr(MsfSerTrainer, "train", lambda *args, **kwargs: pytest.fail("it was trained again"))


def test_a_finished_run_is_not_trained_again_and_shows_its_table(tiny, finished, no_training, caplog):
    before = content(finished)
    (finished / "checkpoint-1").mkdir()  # of a run that was killed when its results were written
    with caplog.at_level("INFO"):
        main(command(tiny, finished, *SHORT))
    assert content(finished) == before and not (finished / "checkpoint-1").exists()
    value = json.loads(before["results.json"])[0]["value"]
    assert "finished; --overwrite trains it anew" in caplog.text
    assert f"{value:.3f} (" in caplog.records[-1].getMessage()


def test_weights_of_another_model_do_not_get_the_scores_of_the_run(tiny, finished, no_training, capsys):
    check_weights(finished)
    other = MsfSerModel.from_pretrained(finished)
    with torch.no_grad():
        next(other.parameters()).add_(0.1)
    other.save_pretrained(finished)
    words = r"the weights in .*run are not those that results\.json scores: train anew with --overwrite"
    for command_of, argv in (
        (main, command(tiny, finished, *SHORT)),
        (report, [str(finished)]),
        (publish, [str(finished), "someone/model", "--dry_run"]),
    ):
        with pytest.raises(SystemExit, match=words):
            command_of(argv)
    assert "model.safetensors" not in capsys.readouterr().out
    identity = json.loads((finished / "data.json").read_text())
    del identity["weights"]  # as in a run of an older version
    (finished / "data.json").write_text(json.dumps(identity))
    publish([str(finished), "someone/model", "--dry_run"])
    assert "model.safetensors" in capsys.readouterr().out


def test_another_run_into_the_same_folder_is_refused(tiny, finished, corpus, no_training):
    before = content(finished)
    for more, words in (
        (["--data", str(corpus)], r"other settings \(data: .*corpus -> "),
        (["--fusion_size", "8"], r"other settings \(fusion_size: 16 -> 8\): choose another --output_dir, or train"),
    ):
        with pytest.raises(SystemExit, match=rf"holds a finished run with {words}"):
            main(command(tiny, finished, *SHORT, *more))
    assert content(finished) == before


def test_a_folder_with_other_files_is_refused(tiny, finished, tmp_path, no_training):
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "config.json").write_text("{}")
    for more in ([], ["--overwrite"]):
        with pytest.raises(SystemExit, match=r"mine holds files that no run made, such as config\.json"):
            main(command(tiny, mine, *SHORT, *more))
    assert content(mine) == {"config.json": b"{}"}
    with pytest.raises(SystemExit, match="is a file"):
        main(command(tiny, mine / "config.json", *SHORT))
    (finished / "notes.txt").write_text("mine")
    with pytest.raises(SystemExit, match=r"also holds notes\.txt, which no run made: move that away"):
        main(command(tiny, finished, *SHORT, "--overwrite"))


def test_a_run_that_is_to_be_replaced_stays_until_the_new_one_is_whole(tiny, finished, monkeypatch):
    before, new = content(finished), finished.with_name(".run.new")
    (finished / "report.html").write_text("old")
    save = MsfSerTrainer.save_model

    def stopped(self, *args, **kwargs):
        save(self, *args, **kwargs)
        if not kwargs.get("_internal_call"):
            raise KeyboardInterrupt

    more = [*SHORT, "--fusion_size", "8", "--overwrite"]
    with monkeypatch.context() as patch, pytest.raises(SystemExit, match="130"):
        patch.setattr(MsfSerTrainer, "save_model", stopped)
        main(command(tiny, finished, *more))
    assert content(finished) == before | {"report.html": b"old"}
    assert (new / "checkpoint-1").is_dir()
    # Another one does not go on from there.
    with pytest.raises(SystemExit, match=r"\.run\.new holds an unfinished run with other settings \(fusion_size"):
        main(command(tiny, finished, *SHORT, "--overwrite"))
    with monkeypatch.context() as patch:
        patch.setattr(MsfSerTrainer, "training_step", lambda *_: pytest.fail("it did not resume"))
        main(command(tiny, finished, *more))
    assert {path.name for path in finished.parent.iterdir()} == {"run"}
    assert not (finished / "report.html").exists() and not list(finished.glob("checkpoint-*"))
    settings = parse_settings([str(finished / "run.yaml")])
    assert settings.model.fusion_size == 8 and not settings.run.overwrite
    assert "overwrite" not in settings.resolved


def test_a_kill_between_the_two_renames_loses_nothing(tiny, finished, no_training):
    new, old = finished.with_name(".run.new"), finished.with_name(".run.old")
    for overwrite in ([], ["--overwrite"]):
        before = content(finished)
        shutil.copytree(finished, old)
        finished.rename(new)
        main(command(tiny, finished, *SHORT, *overwrite))
        assert content(finished) == before and not new.exists() and not old.exists()
    # The old run is not removed with what was put there in the meantime.
    shutil.copytree(finished, old)
    (old / "notes.txt").write_text("mine")
    main(command(tiny, finished, *SHORT))
    assert (finished.parent / "run.old1" / "notes.txt").is_file() and not old.exists()


@pytest.mark.skipif(sys.platform == "win32", reason="there is no kill -9")
def test_a_killed_replacement_keeps_the_old_run_and_goes_on(tiny, finished, tmp_path):
    before, script = content(finished), [sys.executable, str(ROOT / "train.py")]
    argv = command(tiny, finished, "--num_train_epochs", "12", "--overwrite")
    run = subprocess.Popen(
        [*script, *argv], env=environment(tmp_path), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 120
    new = finished.with_name(".run.new")
    while not list(new.glob("checkpoint-*/trainer_state.json")) and time.monotonic() < deadline:
        time.sleep(0.02)
    run.send_signal(signal.SIGKILL)
    assert run.wait() == -signal.SIGKILL
    assert content(finished) == before
    main(argv)
    assert not new.exists() and len(score_rows(finished)) == 12
    assert any(not torch.equal(weight, weights(finished)[name]) for name, weight in weights_of(before, tmp_path))


def weights_of(files: dict[str, bytes], tmp_path: Path):
    (tmp_path / "before").mkdir()
    (tmp_path / "before" / "model.safetensors").write_bytes(files["model.safetensors"])
    return weights(tmp_path / "before").items()


@pytest.mark.parametrize(
    ("cells", "words"),
    [
        ({"valence": "0.9"}, r"train: valence\)"),
        ({"transcript": "a b"}, r"train: transcript\)"),
        ({"split": "validation", "speaker_id": "new"}, r"train: 24 -> 23 rows; validation: 12 -> 13 rows\)"),
    ],
)
def test_changed_data_are_named(tiny, corpus, tmp_path, monkeypatch, cells, words):
    argv = command(tiny, tmp_path / "run", *SHORT, "--data", str(corpus))
    with monkeypatch.context() as patch, pytest.raises(SystemExit, match="130"):
        patch.setattr(MsfSerTrainer, "save_model", interrupted_after(MsfSerTrainer.save_model))
        main(argv)
    before = content(tmp_path / "run")
    change(corpus, **cells)
    with pytest.raises(SystemExit, match=rf"an unfinished run, and its data have changed since \({words}: restore"):
        main(argv)
    assert content(tmp_path / "run") == before


def interrupted_after(save):
    def stopped(self, *args, **kwargs):
        save(self, *args, **kwargs)
        raise KeyboardInterrupt

    return stopped


def test_changed_recordings_are_named_also_of_a_finished_run(tiny, corpus, tmp_path, monkeypatch):
    argv = command(tiny, tmp_path / "run", *SHORT, "--data", str(corpus))
    main(argv)
    # A copy with other times is the same.
    os.utime(corpus / "0.wav", (1, 1))
    with monkeypatch.context() as patch:
        patch.setattr(MsfSerTrainer, "train", lambda *_, **__: pytest.fail("it was trained again"))
        main(argv)
        # Of equal size.
        samples, rate = soundfile.read(corpus / "3.wav", dtype="int16")
        soundfile.write(corpus / "3.wav", np.negative(samples), rate)
        with pytest.raises(SystemExit, match=r"a finished run, and its data have changed since \(test: audio\)"):
            main(argv)
    with pytest.raises(ValueError, match=r"the data have changed since the run in .*run \(test: audio\)"):
        predict_part(tmp_path / "run")
    predict_part(tmp_path / "run", "validation")


def test_what_a_run_makes_is_known_and_nothing_else(tmp_path):
    for name in (
        *("run.yaml", "data.json", "results.json", "report.html", "predictions.csv", "test_predictions.csv"),
        *("model.safetensors", "model-00001-of-00002.safetensors", "model.safetensors.index.json", "loss_msfser.py"),
        *("__pycache__", "config.json", "processor_config.json", "preprocessor_config.json", "tokenizer.json"),
        *("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.json", "vocab.txt"),
        *("merges.txt", "sentencepiece.bpe.model", "spiece.model", "training_args.bin", "trainer_state.json"),
        *("checkpoint-12", "tmp-checkpoint-12", "runs", f"data.json{UNFINISHED}"),
    ):
        (tmp_path / name).touch()
    assert run_folder._foreign(tmp_path) == []
    mine = ["config.yaml", "loss.py", "model.bin", "notes.txt"]
    for name in mine:
        (tmp_path / name).touch()
    assert run_folder._foreign(tmp_path) == mine


def test_a_folder_in_which_a_first_write_was_killed_is_free(tmp_path):
    (tmp_path / f"run.yaml{UNFINISHED}").touch()
    run_folder._check_files(tmp_path, overwrite=False)
    (tmp_path / "notes.txt").touch()
    with pytest.raises(ValueError, match=r"holds files that no run made, such as notes\.txt"):
        run_folder._check_files(tmp_path, overwrite=False)


def test_a_run_that_was_set_aside_stays_until_another_is_in_its_place(tmp_path):
    folder, old = tmp_path / "run", tmp_path / ".run.old"
    old.mkdir()
    assert not run_folder._complete(folder) and old.is_dir()
    folder.mkdir()
    assert not run_folder._complete(folder) and not old.exists()


def test_an_input_that_the_run_does_not_use_may_change(tiny, corpus, tmp_path):
    more = ["--data", str(corpus), "--semantics", "none", "--cross_fusion", "concat"]
    settings = parse_settings(command(tiny, tmp_path / "run", *SHORT, *more))
    identities = []
    for _ in range(2):
        identities.append(identity_of(read_data(settings.run), inputs_of(settings.model)))
        change(corpus, transcript="a b")
    assert identities[0] == identities[1]


def test_predictions_are_replaced_only_if_asked(tiny, finished, corpus):
    main(command(tiny, finished, "--do_predict"))
    before = (finished / "predictions.csv").read_bytes()
    shutil.copy(corpus / "47.wav", corpus / "3.wav")  # of the test part
    for data in ([], ["--data", str(corpus)]):
        with pytest.raises(SystemExit, match=r"predictions\.csv exists: .* replace it with --overwrite"):
            main(command(tiny, finished, "--do_predict", *data))
    assert (finished / "predictions.csv").read_bytes() == before
    main(command(tiny, finished, "--do_predict", "--overwrite"))
    assert (finished / "predictions.csv").read_bytes() == before
    main(command(tiny, finished, "--do_predict", "--data", str(corpus), "--overwrite"))
    assert (finished / "predictions.csv").read_bytes() != before and not list(finished.glob("*.parts"))
    (finished / "predictions.csv").write_text("mine")
    with pytest.raises(SystemExit, match="exists"):
        main(command(tiny, finished, "--do_predict"))
    assert (finished / "predictions.csv").read_text() == "mine"


def test_predictions_that_replace_others_go_on_after_an_interruption(tiny, finished, monkeypatch):
    argv = command(tiny, finished, "--do_predict", "--overwrite")
    main(argv)
    expected = (finished / "predictions.csv").read_bytes()
    (finished / "predictions.csv").write_text("old")
    with monkeypatch.context() as patch, pytest.raises(SystemExit) as stop:
        patch.setattr("msfser.prediction.predicting._write", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
        main(argv)
    assert stop.value.code == 130 and (finished / "predictions.csv.parts").is_dir()
    with monkeypatch.context() as patch:
        patch.setattr("msfser.prediction.sharded_prediction.ShardedPrediction.make_rows", None)
        main(argv)
    assert (finished / "predictions.csv").read_bytes() == expected and not list(finished.glob("*.parts"))


def test_a_run_killed_after_its_last_checkpoint_trains_no_more(tiny, tmp_path, monkeypatch):
    """Nor does one that was stopped early: with this learning rate no epoch is better than the first."""
    argv = command(tiny, tmp_path / "run", "--num_train_epochs", "6", "--early_stopping_patience", "1")
    argv += ["--learning_rate", "1e-30"]
    save = MsfSerTrainer.save_model

    def stopped(self, *args, **kwargs):
        save(self, *args, **kwargs)
        if not kwargs.get("_internal_call"):
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(SystemExit, match="130"):
        patch.setattr(MsfSerTrainer, "save_model", stopped)
        main(argv)
    assert sorted(path.name for path in (tmp_path / "run").glob("checkpoint-*")) == ["checkpoint-3", "checkpoint-6"]
    monkeypatch.setattr(MsfSerTrainer, "training_step", lambda *_: pytest.fail("it went on training"))
    main(argv)
    assert (tmp_path / "run" / "results.json").is_file()
