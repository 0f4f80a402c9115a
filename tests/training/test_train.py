"""The training script, end to end on tiny encoders: what it saves, refuses, resumes and shares among processes."""

import csv
import dataclasses
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import evaluate
import pandas as pd
import pytest
import soundfile
import torch
from accelerate.commands.config.config_args import load_config_from_file
from safetensors.torch import load_file
from tiny import noise
from tiny_run import WORDS, command, environment, make_tiny, score_rows, weights

from msfser import LABELS, MsfSerCollator, MsfSerConfig, MsfSerModel, MsfSerProcessor
from msfser.corpora.registry import CORPORA
from msfser.train import main
from msfser.training import run_folder
from msfser.training.data_identity import read_identity
from msfser.training.features import add_lengths
from msfser.training.settings import ModelSettings, RunSettings, parse_settings, read_data, read_run
from msfser.training.trainer import MsfSerTrainer

ROOT = Path(__file__).parents[2]
RAVDESS = ROOT.parent / "shared" / "data" / "ravdess" / "metadata_weak.csv"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> Path:
    return make_tiny(tmp_path_factory.mktemp("tiny"))


def test_a_run_saves_a_folder_with_weights_code_and_results(tiny, tmp_path):
    main(command(tiny, tmp_path / "run"))
    folder = tmp_path / "run"
    model, info = MsfSerModel.from_pretrained(folder, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    assert (folder / "modeling_msfser.py").is_file() and not list(folder.glob("checkpoint-*"))
    # Nothing but weights, code, settings and results, without a path of this machine.
    assert {path.suffix for path in folder.iterdir()} == {".safetensors", ".json", ".py", ".yaml"}
    about = [path for path in folder.glob("*.json") if path.name != "results.json"]
    assert not [path.name for path in about if str(tiny) in path.read_text()]
    rows = score_rows(folder)
    assert {row["name"].split("/")[1] for row in rows} == {"audio", "audio+transcript", "all"}
    assert len(rows) == 12
    for row in rows:
        assert set(row) == {"name", "value", "low", "high", "resampled"} and row["resampled"] == "3 speakers"
        assert row["low"] <= row["high"] and -1 <= row["value"] <= 1

    # The saved folder, on the recordings themselves, scores what the run reported from cached features.
    processor = MsfSerProcessor.from_pretrained(folder)
    with open(tiny / "corpus" / "metadata.csv") as file:
        test = [row for row in csv.DictReader(file) if row["split"] == "test"]
    inputs = processor(
        [tiny / "corpus" / row["file_name"] for row in test],
        transcript=[row["transcript"] for row in test],
        description=[row["description"] for row in test],
    )
    with torch.no_grad():
        predictions = model(**inputs).logits
    labels = [[float(row[name]) for name in ("valence", "arousal", "dominance")] for row in test]
    scores = evaluate.load(str(ROOT / "metrics" / "ccc"), keep_in_memory=True).compute(
        predictions=predictions, references=labels
    )
    reported = {row["name"]: row["value"] for row in rows}
    assert abs(scores["ccc_mean"] - reported["test/all/mean"]) < 1e-4


def test_encoders_that_are_trained_move_at_their_own_rate(tiny, tmp_path):
    more = ["--freeze_audio", "front_end", "--freeze_text", "false", "--num_train_epochs", "1"]
    main(command(tiny, tmp_path / "run", *more, "--encoder_learning_rate", "1e-4"))
    start = load_file(tiny / "audio" / "model.safetensors")
    end = load_file(tmp_path / "run" / "model.safetensors")
    moved = (end["audio_encoder.layers.0.fc1.weight"] - start["encoder.layers.0.fc1.weight"]).abs().max()
    assert 1e-6 < moved < 1e-3  # some steps of 1e-4, where the fusion takes steps of 1e-3
    assert torch.equal(end["audio_encoder.conv1.weight"], start["encoder.conv1.weight"])


def test_a_killed_run_ends_with_the_weights_of_an_undisturbed_one(tiny, tmp_path):
    script = [sys.executable, str(ROOT / "train.py")]
    more = ["--num_train_epochs", "6", "--early_stopping_patience", "2"]
    run = subprocess.Popen(
        [*script, *command(tiny, tmp_path / "killed", *more)],
        env=environment(tmp_path),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    deadline = time.monotonic() + 120
    while not list((tmp_path / "killed").glob("checkpoint-*/trainer_state.json")) and time.monotonic() < deadline:
        time.sleep(0.02)
    os.killpg(run.pid, signal.SIGKILL)
    assert run.wait() == -signal.SIGKILL, "the run ended before it was killed"
    assert list((tmp_path / "killed").glob("checkpoint-*")) and not (tmp_path / "killed" / "results.json").exists()

    for name in ("killed", "whole"):  # in processes of the same kind: the order of sums depends on the threads
        ended = subprocess.run(
            [*script, *command(tiny, tmp_path / name, *more)],
            env=environment(tmp_path),
            capture_output=True,
            text=True,
        )
        assert ended.returncode == 0, ended.stderr
        assert ("going on from" in ended.stderr) == (name == "killed")
    killed, whole = (load_file(tmp_path / name / "model.safetensors") for name in ("killed", "whole"))
    assert killed.keys() == whole.keys()
    assert all(torch.equal(killed[name], whole[name]) for name in whole)


def test_batches_by_seconds_go_on_within_an_epoch(tiny, tmp_path, monkeypatch, caplog):
    # 24 items of 0.5 to 1.4 s make nine batches; a checkpoint after every fourth.
    more = ["--batch_seconds", "4", "--dataloader_drop_last", "false", "--num_train_epochs", "2"]
    more += ["--load_best_model_at_end", "false", "--save_strategy", "steps", "--save_steps", "4"]
    seen: list[list[float]] = []
    step = MsfSerTrainer.training_step

    def watched(self, model, inputs, *args):
        if len(seen) == stop:
            raise KeyboardInterrupt
        seen.append(inputs["labels"].sum(1).tolist())
        return step(self, model, inputs, *args)

    monkeypatch.setattr(MsfSerTrainer, "training_step", watched)
    stop = None
    with caplog.at_level("INFO"):
        main(command(tiny, tmp_path / "whole", *more))
    assert sum(record.getMessage().startswith("padding: ") for record in caplog.records) == 1
    whole, epoch = list(seen), len(seen) // 2
    assert epoch > 4 and len({len(batch) for batch in whole}) > 1 and min(map(len, whole)) >= 2
    for items in (whole[:epoch], whole[epoch:]):
        assert len({item for batch in items for item in batch}) == sum(map(len, items)) >= 23
    assert whole[:epoch] != whole[epoch:]

    seen.clear()
    stop = epoch + 2  # within the second epoch
    with pytest.raises(SystemExit) as stop_of_run:
        main(command(tiny, tmp_path / "killed", *more))
    assert stop_of_run.value.code == 130
    saved = max(int(path.name.split("-")[1]) for path in (tmp_path / "killed").glob("checkpoint-*"))
    assert saved % epoch, "not within an epoch"
    seen.clear()
    stop = None
    main(command(tiny, tmp_path / "killed", *more))
    assert seen == whole[saved:]
    killed, undisturbed = weights(tmp_path / "killed"), weights(tmp_path / "whole")
    assert all(torch.equal(killed[name], undisturbed[name]) for name in undisturbed)


def test_evaluation_holds_the_seconds_and_keeps_the_order(tiny, tmp_path, monkeypatch):
    main(command(tiny, tmp_path / "run", "--num_train_epochs", "1"))
    seen, collate = [], MsfSerCollator.__call__
    monkeypatch.setattr(MsfSerCollator, "__call__", lambda self, rows: seen.append(len(rows)) or collate(self, rows))
    model, processor = (kind.from_pretrained(tmp_path / "run") for kind in (MsfSerModel, MsfSerProcessor))
    run, _, training, _ = parse_settings(command(tiny, tmp_path / "run"))
    test = add_lengths(read_data(run)["test"].remove_columns(list(LABELS)))
    training.eval_strategy, training.load_best_model_at_end = "no", False
    predicted = []
    for seconds in (0.0, 2.5):
        trainer = MsfSerTrainer(
            model=model,
            args=training,
            data_collator=MsfSerCollator(processor),
            processing_class=processor,
            encoder_learning_rate=run.encoder_learning_rate,
            batch_seconds=seconds,
        )
        predicted.append(trainer.predict(test).predictions)
    # 12 clips of 0.56 to 1.44 s, long ones first.
    assert seen == [8, 4, 1, 1, 1, 2, 2, 2, 3]
    assert predicted[0] == pytest.approx(predicted[1], abs=2e-6) and predicted[0].shape == (12, 3)


def test_without_a_cache_the_encoders_run_in_the_loop(tiny, tmp_path):
    whole = ["--num_train_epochs", "1", "--crop_seconds", "0", "--frame_stride", "1"]
    for gigabytes in ("50", "0"):
        main(command(tiny, tmp_path / gigabytes, *whole, "--cache_gigabytes", gigabytes))
    cached, live = weights(tmp_path / "50"), weights(tmp_path / "0")
    # The cache has half precision, and Adam's first steps make much of rounding.
    assert all(torch.allclose(cached[name], live[name], atol=2e-3) for name in live)
    assert sum(torch.equal(cached[name], live[name]) for name in live) > len(live) / 2


def test_predictions_are_in_the_order_of_the_table(tiny, tmp_path):
    main(command(tiny, tmp_path / "run", "--num_train_epochs", "1"))
    main(command(tiny, tmp_path / "run", "--do_predict", "true", "--per_device_eval_batch_size", "5"))
    with open(tmp_path / "run" / "predictions.csv") as file:
        rows = list(csv.DictReader(file))
    with open(tiny / "corpus" / "metadata.csv") as file:
        test = [row for row in csv.DictReader(file) if row["split"] == "test"]
    assert [row["file"] for row in rows] == [row["file_name"] for row in test]
    model, processor = (kind.from_pretrained(tmp_path / "run") for kind in (MsfSerModel, MsfSerProcessor))
    for row, item in zip(rows, test, strict=True):
        texts = {name: item[name] for name in ("transcript", "description")}
        with torch.no_grad():
            alone = model(**processor(tiny / "corpus" / item["file_name"], **texts)).logits[0]
        assert [float(row[name]) for name in ("valence", "arousal", "dominance")] == pytest.approx(
            alone.tolist(), abs=1e-5
        )


def test_a_run_keeps_its_settings_and_goes_on_with_them_however_they_are_given(tiny, tmp_path):
    given = ["--learning_rate", "1e-3", "--semantics", "gs", "es", "--label_range", "0", "1"]
    asked = command(tiny, tmp_path / "run", *given)
    main(asked)
    run, model, training = read_run(tmp_path / "run")
    assert (run.audio_encoder, run.label_range, model.semantics) == (str(tiny / "audio"), [0.0, 1.0], ["gs", "es"])
    assert training["learning_rate"] == 1e-3 and "seed" not in training
    # The file itself is a settings file.
    saved = str(tmp_path / "run" / "run.yaml")
    assert parse_settings([saved]).resolved == parse_settings(asked).resolved

    data = read_identity(tmp_path / "run")
    (tmp_path / "b.yaml").write_text(
        (tiny / "tiny.yaml").read_text().replace("1.0e-3", "0.001") + "semantics: [es, gs]"
    )
    for same in (
        [asked[0], *given[2:], *given[:2], "--output_dir", f"{tmp_path}/../{tmp_path.name}/run"],
        [str(tmp_path / "b.yaml"), "--output_dir", str(tmp_path / "run")],
    ):
        settings = parse_settings(same)
        assert run_folder.start_run(tmp_path / "run", settings.resolved, data, settings.training).results


def test_an_unfinished_run_with_other_settings_is_not_overwritten(tiny, tmp_path):
    more = ["--num_train_epochs", "1", "--fusion_size", "8"]
    main(command(tiny, tmp_path / "run", *more))
    (tmp_path / "run" / "results.json").unlink()
    differences = "num_train_epochs: 1.0 -> the default, learning_rate: 0.001 -> 0.5"
    with pytest.raises(SystemExit, match=r"with other settings \(fusion_size: 8 -> 16, .*" + differences):
        main(command(tiny, tmp_path / "run", "--learning_rate", "0.5"))
    (tmp_path / "run" / "run.yaml").write_text("a: [")
    with pytest.raises(SystemExit, match="an unknown run"):
        main(command(tiny, tmp_path / "run"))


@pytest.mark.parametrize("text", [None, "", "- a", "data: probe", "a: ["])
def test_a_folder_without_its_settings_is_said(tmp_path, text):
    if text is not None:
        (tmp_path / "run.yaml").write_text(text)
    with pytest.raises((OSError, ValueError), match=r"run\.yaml"):
        read_run(tmp_path)


def test_the_output_is_a_line_per_epoch(tiny, tmp_path):
    ended = subprocess.run(
        [sys.executable, str(ROOT / "train.py"), *command(tiny, tmp_path / "run")],
        env=environment(tmp_path),
        capture_output=True,
        text=True,
    )
    said = ended.stdout + ended.stderr
    number = r"-?\d\.\d{3}"
    scores = " ".join(f"{name} {number}" for name in ("valence", "arousal", "dominance", "mean"))
    assert len(re.findall(rf"epoch [123]/3  loss {number}  CCC {scores}  best {number}", said)) == 3, said
    assert re.search(r"kept: epoch [123] \(best\)\n", said), said
    assert not re.search("Warning|warning|pin_memory|shards|deprecat|{", said), said


def test_no_best_epoch_is_shown_where_the_last_is_kept(tiny, tmp_path, capsys):
    more = ["--load_best_model_at_end", "false", "--num_train_epochs", "2"]
    main(command(tiny, tmp_path / "run", *more))
    said = capsys.readouterr().out
    assert "epoch 2/2" in said and "best" not in said and "kept: epoch 2 (last)\n" in said


def test_an_interrupted_run_says_how_to_go_on(tiny, tmp_path):
    run = subprocess.Popen(
        [sys.executable, str(ROOT / "train.py"), *command(tiny, tmp_path / "run", "--num_train_epochs", "500")],
        env=environment(tmp_path),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # Tests in the background of a shell ignore this signal, and so would what they start.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    deadline = time.monotonic() + 300  # a busy disk delays the start
    while not list((tmp_path / "run").glob("checkpoint-*/trainer_state.json")) and time.monotonic() < deadline:
        time.sleep(0.02)
    run.send_signal(signal.SIGINT)
    _, errors = run.communicate(timeout=120)
    assert run.returncode == 130 and "Traceback" not in errors, errors
    said = "msfser train: interrupted: run the same command again to resume from its last checkpoint."
    assert errors.splitlines().count(said) == 1, errors


def test_a_wrong_table_is_refused_before_the_model_is_imported(tiny, tmp_path):
    (tmp_path / "wrong.csv").write_text("file_name,valence\n1.wav,0.5\n")
    code = "import sys; from msfser import train\n"
    code += "try: train.main(sys.argv[1:])\nexcept SystemExit as end: print(end)\n"
    code += "print([name for name in ('transformers.trainer', 'evaluate') if name in sys.modules])"
    ended = subprocess.run(
        [sys.executable, "-c", code, *command(tiny, tmp_path / "run", "--data", str(tmp_path / "wrong.csv"))],
        env=environment(tmp_path),
        capture_output=True,
        text=True,
    )
    *_, sentence, imported = ended.stdout.splitlines()
    assert "wrong.csv" in sentence and imported == "[]", ended
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("more", [[], ["--batch_seconds", "3", "--dataloader_drop_last", "false"]], ids=str)
def test_two_processes_train_and_save_one_folder(tiny, tmp_path, more):
    # Several processes without a GPU: with `--cpu` it would start one.
    setting = ["--config_file", str(ROOT / "configs" / "accelerate" / "multi_gpu.yaml"), "--num_processes", "2"]
    launch = [sys.executable, "-m", "accelerate.commands.launch", *setting]
    run = subprocess.run(
        [
            *(*launch, str(ROOT / "train.py")),
            *command(tiny, tmp_path / "run", "--per_device_train_batch_size", "4", *more),
        ],
        env=environment(tmp_path),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert run.returncode == 0, run.stderr[-3000:]
    assert "2 processes" in run.stderr
    assert len(score_rows(tmp_path / "run")) == 12
    MsfSerModel.from_pretrained(tmp_path / "run")


@pytest.mark.parametrize("path", sorted((ROOT / "configs" / "accelerate").glob("*.yaml")), ids=lambda path: path.stem)
def test_accelerate_reads_its_settings(path):
    setting = load_config_from_file(str(path))
    assert setting.num_processes >= 2 and setting.mixed_precision == "no"
    if setting.fsdp_config:
        # The layers are those that the model names.
        assert "fsdp_transformer_layer_cls_to_wrap" not in setting.fsdp_config
        with torch.device("meta"):
            model = MsfSerModel(MsfSerConfig())
        layers = {"WavLMEncoderLayerStableLayerNorm", "RobertaLayer"}
        assert layers <= model._no_split_modules <= {type(module).__name__ for module in model.modules()}


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--fusoin_size", "8"], "fusoin_size"),
        (["--cross_fusion", "sum"], "cross_fusion"),
        (["--semantics", "gs", "xs"], "xs"),
        (["--label_range", "1"], "label_range"),
        (["--learning_rate", "fast"], "learning_rate"),
        (["--semantic", "gs"], "semantic"),
        (["--resume_from_checkpoint", "true"], "decides this itself"),
        (["--per_device_train_batch_size", "1"], "two items"),
        (["--columns", "speaker"], "speaker=actor"),
        (["--batch_seconds", "-1"], "batch_seconds cannot be -1.0"),
        (["--cache_gigabytes", "nan"], "cache_gigabytes cannot be nan"),
        (["--corpus", "ravdess"], "'ravdess'; give one of table, msp_podcast, whiser, iemocap, emobank, probe"),
        (["--corpus", "msp_podcast", "--label_range", "1", "7"], "label_range: the corpus msp_podcast decides this"),
        (
            ["--corpus", "iemocap", "--fold", "1", "--columns", "speaker=a", "--audio_folder", "a"],
            "--audio_folder, --columns",
        ),
        (["--corpus", "msp_podcast", "--allow_speaker_overlap", "true"], "allow_speaker_overlap"),
        (["--corpus", "iemocap"], "--fold 1 (to 5)"),
        (["--corpus", "msp_podcast", "--fold", "1"], "not to msp_podcast"),
        (["--fold", "1"], "not to table"),
        (["--test", "Test1", "en/podcast"], "a test part cannot be called 'en/podcast'"),
    ],
)
def test_a_wrong_setting_is_one_sentence(tiny, tmp_path, more, words):
    with pytest.raises(SystemExit) as stop:
        main(command(tiny, tmp_path / "run", *more))
    sentence = str(stop.value)
    assert words in sentence and sentence.startswith("msfser train: error: ") and "\n" not in sentence


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("fusion_size: 8\nbatchsize: 4\n", "unknown settings (batchsize)"),
        ("fusionsize: 8\n", "did you mean fusion_size"),
        ("fusion_size: wide\n", "fusion_size"),
        ("fusion_size: 8.5\n", "fusion_size"),
        ("audio: maybe\n", "audio"),
        ("semantics: [1]\n", "semantics"),
        ("fold: [1]\n", "fold"),
        ("cross_fusion: sum\n", "cross_fusion"),
        ("do_train: true\n", "do_train: the command decides this itself"),
        ("- a\n", "is no settings file"),
        ("a: [\n", "wrong.yaml is no YAML file (line 2: expected the node content"),
        ("# a\n* `b`: c\n", "write lines such as 'fusion_size: 256'."),
    ],
)
def test_a_wrong_settings_file_is_one_sentence(tmp_path, text, words):
    (tmp_path / "wrong.yaml").write_text(text)
    with pytest.raises(SystemExit) as stop:
        parse_settings([str(tmp_path / "wrong.yaml")])
    assert words in str(stop.value) and str(stop.value).startswith("msfser train: error: ")


def test_the_settings_file_is_there_and_comes_first(tiny, tmp_path, capsys):
    with pytest.raises(SystemExit, match=r"missing\.yaml"):
        parse_settings([str(tmp_path / "missing.yaml")])
    with pytest.raises(SystemExit, match="the first argument is '--fusion_size'; give the settings file first"):
        parse_settings(["--fusion_size", "4", str(tiny / "tiny.yaml")])
    for asked in (["--help"], ["--fusion_size", "4", "-h"]):
        with pytest.raises(SystemExit) as stop:
            parse_settings(asked)
        assert stop.value.code == 0
    assert "--semantics" in capsys.readouterr().out


def test_the_help_fits_a_screen_and_says_what_each_setting_does(capsys):
    with pytest.raises(SystemExit):
        parse_settings(["--help"])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) <= 52 and max(map(len, lines)) <= 100
    for setting in (*dataclasses.fields(RunSettings), *dataclasses.fields(ModelSettings)):
        (line,) = [line for line in lines if line.split()[:1] == [f"--{setting.name}"]]
        assert len(line.split()) > 3
    for asked in ("--help_all", "--help-all"):
        with pytest.raises(SystemExit):
            parse_settings([asked])
        everything = capsys.readouterr().out
        assert "--semantics" in everything and "--lr_scheduler_type" in everything


def test_model_settings_are_the_switches_of_the_config():
    config = MsfSerConfig()
    switches = {f.name: f.type for f in dataclasses.fields(MsfSerConfig) if f.name in MsfSerConfig.__annotations__}
    own = {f.name: f.type for f in dataclasses.fields(ModelSettings)}
    # What a run finds out, and no switch.
    of_run = ("audio_config", "text_config", "unrated", "intervals", "scale", "weights_license", "weights_sources")
    assert own == {n: t for n, t in switches.items() if n not in of_run} | {"semantics": list[str]}
    assert all(getattr(ModelSettings(), name) == getattr(config, name) for name in own)


@pytest.mark.parametrize("written", ["", "semantics: none\ncolumns: none", "semantics: []\ncolumns: []"])
def test_empty_lists_can_be_asked_for(tmp_path, written):
    (tmp_path / "a.yaml").write_text(written)
    more = [] if written else ["--semantics", "none", "--columns", "none"]
    run, model, _, _ = parse_settings([str(tmp_path / "a.yaml"), "--cross_fusion", "concat", *more])
    assert model.semantics == [] and run.columns == []


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--data", "nowhere.csv"], r"nowhere\.csv: there is no such file"),
        (["--label_range", "0.5", "1"], "outside the label_range"),
        (["--audio_encoder", "nobody/nothing"], "'nobody/nothing' is no folder"),
        (["--corpus", "msp_podcast", "--data", "nowhere"], "nowhere: there is no such folder"),
        (["--corpus", "iemocap", "--fold", "6"], "fold is 6"),
    ],
)
def test_wrong_input_is_a_sentence_without_a_traceback(tiny, tmp_path, more, words):
    with pytest.raises(SystemExit, match=words):
        main(command(tiny, tmp_path / "run", *more))


def test_rows_without_any_input_are_named_before_training(tiny, tmp_path):
    with pytest.raises(SystemExit, match="train: row 1 has none of the model's inputs"):
        main(command(tiny, tmp_path / "run", "--audio", "false", "--semantics", "les"))


def test_rows_without_any_input_are_predicted_with_a_reason(tiny, tmp_path):
    more = ["--audio", "false", "--semantics", "gs", "--cross_fusion", "concat", "--num_train_epochs", "1"]
    main(command(tiny, tmp_path / "run", *more))
    with open(tiny / "corpus" / "metadata.csv") as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == "test"]
    with open(tmp_path / "test.csv", "w", newline="") as file:
        table = csv.DictWriter(file, rows[0])
        table.writeheader()
        table.writerows(row | {"transcript": "" if i == 2 else row["transcript"]} for i, row in enumerate(rows))
    given = ["--data", str(tmp_path / "test.csv"), "--audio_folder", str(tiny / "corpus"), "--do_predict", "true"]
    main(command(tiny, tmp_path / "run", *given))
    with open(tmp_path / "run" / "predictions.csv") as file:
        predicted = list(csv.DictReader(file))
    assert [bool(row["error"]) for row in predicted] == [i == 2 for i in range(12)]
    assert "this model reads no sound" in predicted[2]["error"] and not predicted[2]["valence"]


def test_predictions_are_on_the_scale_of_the_corpus(tiny, tmp_path):
    main(command(tiny, tmp_path / "run", "--num_train_epochs", "1"))
    tables = []
    for scale in (["0", "1"], ["-1", "3"]):
        main(command(tiny, tmp_path / "run", "--do_predict", "true", "--overwrite", "--label_range", *scale))
        with open(tmp_path / "run" / "predictions.csv") as file:
            tables.append([float(row["valence"]) for row in csv.DictReader(file)])
    assert tables[1] == pytest.approx([-1 + 4 * value for value in tables[0]], abs=1e-5)


def test_predictions_are_on_the_scale_of_each_dimension(tiny, tmp_path, caplog):
    caplog.set_level("INFO")
    main(command(tiny, tmp_path / "run", "--num_train_epochs", "1"))
    labels = list(LABELS)

    def predicted(*more):
        main(command(tiny, tmp_path / "run", "--do_predict", "true", "--overwrite", *more))
        return pd.read_csv(tmp_path / "run" / "predictions.csv")

    plain = predicted()
    scaled = predicted("--label_range", "valence=0:7", "arousal=-1:1", "dominance=-5:5")
    expected = plain[labels].to_numpy() * [7, 2, 10] + [0, -1, -5]
    assert scaled[labels].to_numpy() == pytest.approx(expected, abs=1e-5) and "on the scale 0 to 1" not in caplog.text
    two = predicted("--label_range", "valence=0:7", "arousal=-1:1")
    assert two[labels].to_numpy() == pytest.approx(plain[labels].to_numpy() * [7, 2, 1] + [0, -1, 0], abs=1e-5)
    assert "dominance has no label range: its predictions are on the scale 0 to 1." in caplog.text
    # Several corpora: one scale, or none.
    shutil.copytree(tiny / "corpus", tmp_path / "other")
    for i in range(48):
        soundfile.write(tmp_path / "other" / f"{i}.wav", noise(0.6, 100 + i), 16_000)
    other = "{data: %s, name: other, label_range: [%s]}"
    corpora = ["--data", str(tiny / "corpus"), "--label_range", "-1", "7", "--data"]
    alike = predicted(*corpora, other % (tmp_path / "other", "-1, 7"))
    assert alike[labels][:12].to_numpy() == pytest.approx(-1 + 8 * plain[labels].to_numpy(), abs=1e-5)
    assert "the label ranges of these corpora differ" not in caplog.text
    differ = predicted(*corpora, other % (tmp_path / "other", "0, 1"))
    assert differ[labels][:12].to_numpy() == pytest.approx(plain[labels].to_numpy(), abs=1e-5)
    assert "the label ranges of these corpora differ: the predictions of all are on the scale 0 to 1." in caplog.text


def test_the_command_line_overrides_the_file(tmp_path):
    (tmp_path / "a.yaml").write_text("fusion_size: 8\nlearning_rate: 1e-5\nsemantics: []\ncross_fusion: concat\n")
    run, config, training, _ = parse_settings(
        [str(tmp_path / "a.yaml"), "--fusion_size", "4", "--label_range", "1", "7"]
    )
    assert (config.fusion_size, config.semantics, training.learning_rate) == (4, [], 1e-5)
    assert run.label_range == [1.0, 7.0]


def test_every_corpus_of_the_registry_can_be_trained_on(tmp_path, monkeypatch):
    monkeypatch.setitem(CORPORA, "yours", dataclasses.replace(CORPORA["emobank"], name="yours"))
    (tmp_path / "a.yaml").write_text("")
    for name, corpus in CORPORA.items():
        fold = ["--fold", "1"] if corpus.folds else []
        run, *_ = parse_settings([str(tmp_path / "a.yaml"), "--corpus", name, *fold])
        assert run.corpus == name


@pytest.mark.parametrize(("corpus", "more"), [("msp_podcast", []), ("iemocap", ["--fold", "2"])])
def test_the_paper_configs_build_the_paper_setting(corpus, more):
    run, config, training, _ = parse_settings([str(ROOT / "configs" / f"{corpus}.yaml"), "--data", "folder", *more])
    assert (run.corpus, run.data) == (corpus, "folder")
    assert (run.audio_encoder, run.text_encoder) == ("microsoft/wavlm-large", "FacebookAI/roberta-large")
    assert run.max_seconds == 12
    assert (training.learning_rate, run.encoder_learning_rate) == (1e-5, 1e-5)
    assert run.mixing_lr_scale == 1  # the paper has one rate
    assert training.per_device_train_batch_size == 32 and training.gradient_accumulation_steps == 4
    assert training.num_train_epochs == 20 and training.lr_scheduler_type == "constant"
    paper = MsfSerConfig()
    for switch in ("semantics", "intra_fusion", "cross_fusion", "film_position", "routing", "audio_states"):
        assert getattr(config, switch) == getattr(paper, switch), switch
    assert (config.freeze_audio, config.freeze_text, config.fusion_size) == ("front_end", True, 1024)
    with torch.device("meta"):
        MsfSerModel(MsfSerConfig(**dataclasses.asdict(config)))


def test_a_paper_config_reads_an_annotated_corpus_as_a_table(tmp_path):
    more = ["--data", "folder", "--corpus", "table", "--audio_folder", "sounds"]
    run, *_ = parse_settings([str(ROOT / "configs" / "iemocap.yaml"), *more])
    assert (run.corpus, run.label_range, run.audio_folder, run.fold) == ("table", [0.0, 1.0], "sounds", None)


def test_msp_podcast_trains_as_its_owners_lay_it_out(tiny, tmp_path):
    folder = tmp_path / "msp"
    for name in ("Labels", "Audios", "Transcripts"):
        (folder / name).mkdir(parents=True)
    lines = ["FileName,EmoClass,EmoAct,EmoVal,EmoDom,SpkrID,Gender,Split_Set"]
    for k in range(32):
        split = ("Train", "Train", "Development", "Test1")[k % 4]
        lines.append(f"{k}.wav,N,{1 + k % 7},{1 + k % 5},{7 - k % 3},Unknown,Male,{split}")
        (folder / "Transcripts" / f"{k}.txt").write_text(" ".join(WORDS[k % 6 :]))
        soundfile.write(folder / "Audios" / f"{k}.wav", noise(0.5, k), 16_000)
    (folder / "Labels" / "labels_consensus.csv").write_text("\n".join(lines))
    more = ["--corpus", "msp_podcast", "--data", str(folder), "--num_train_epochs", "1", "--semantics", "gs"]
    main(command(tiny, tmp_path / "run", *more, "--cross_fusion", "film"))
    names = {row["name"] for row in json.loads((tmp_path / "run" / "results.json").read_text())}
    assert "test/audio+transcript/mean" in names


def test_real_speech_trains_with_speakers_held_out(tiny, tmp_path):
    if not RAVDESS.is_file():
        pytest.skip("the RAVDESS table with weak labels is not beside this checkout")
    with open(RAVDESS) as file:
        rows = list(csv.DictReader(file))
    few = [row for split in ("train", "dev", "test") for row in [r for r in rows if r["split"] == split][:16]]
    with open(tmp_path / "few.csv", "w", newline="") as file:
        table = csv.DictWriter(file, rows[0])
        table.writeheader()
        for row in few:
            table.writerow(row | {"file_name": str(RAVDESS.parent / row["file_name"])})
    more = ["--audio_folder", str(RAVDESS.parent), "--num_train_epochs", "1", "--label_range", "-1", "1"]
    main(command(tiny, tmp_path / "run", "--data", str(tmp_path / "few.csv"), *more))
    names = {row["name"] for row in json.loads((tmp_path / "run" / "results.json").read_text())}
    assert "test/audio+transcript/mean" in names and "test/all/mean" not in names
