"""Every argument of the library works or is refused at the start, with the reason."""

import dataclasses
import shutil
import subprocess
import sys
from pathlib import Path

import datasets
import pytest
import torch
from tiny import tiny_model, tiny_processor
from tiny_run import command, environment, make_tiny, score_rows
from transformers import TrainingArguments

from msfser import MsfSerCollator
from msfser.train import main
from msfser.training.settings import RESERVED_ARGUMENTS, UNSUPPORTED_ARGUMENTS, parse_settings
from msfser.training.trainer import MsfSerTrainer

ROOT = Path(__file__).parents[2]
SHORT = ["--num_train_epochs", "1"]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> Path:
    return make_tiny(tmp_path_factory.mktemp("tiny"))


# A value other than the default.
REFUSED = {
    "label_smoothing_factor": ["0.1"],
    "neftune_noise_alpha": ["5"],
    "include_for_metrics": ["inputs"],
    "debug": ["underflow_overflow"],
    "label_names": ["labels"],
    "include_num_input_tokens_seen": ["true"],
    "hub_model_id": ["owner/name"],
    "hub_revision": ["v1"],
    "hub_strategy": ["end"],
}


@pytest.mark.parametrize("name", UNSUPPORTED_ARGUMENTS)
def test_what_cannot_work_is_refused_with_the_reason(tiny, tmp_path, name):
    value = REFUSED.get(name, ["false" if name == "eval_do_concat_batches" else "true"])
    with pytest.raises(SystemExit) as stop:
        main(command(tiny, tmp_path / "run", f"--{name}", *value))
    assert str(stop.value) == f"msfser train: error: {name} does not apply: {UNSUPPORTED_ARGUMENTS[name]}."
    assert not (tmp_path / "run").exists()


def test_bf16_on_a_cpu_needs_no_further_setting(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
    file = tmp_path / "some.yaml"
    file.write_text((tiny / "tiny.yaml").read_text().replace("use_cpu: true\n", ""))
    argv = [str(file), "--output_dir", str(tmp_path / "run")]
    settings = parse_settings([*argv, "--bf16", "true"])
    assert settings.training.bf16 and settings.training.use_cpu and "use_cpu" not in settings.resolved
    assert not parse_settings(argv).training.use_cpu
    with pytest.raises(SystemExit, match="use_cpu"):
        parse_settings([*argv, "--bf16", "true", "--use_cpu", "false"])


def test_the_default_of_what_cannot_work_may_be_given(tiny, tmp_path):
    with pytest.raises(SystemExit, match="fusion_size"):
        main(
            command(tiny, tmp_path, "--label_smoothing_factor", "0", "--bf16_full_eval", "false", "--fusion_size", "x")
        )


def test_the_tables_name_arguments_of_the_library():
    names = {field.name for field in dataclasses.fields(TrainingArguments)}
    assert not set(RESERVED_ARGUMENTS) & set(UNSUPPORTED_ARGUMENTS)
    # An older version may lack some of them.
    assert set(RESERVED_ARGUMENTS) | set(UNSUPPORTED_ARGUMENTS) <= names | {"restore_callback_states_from_checkpoint"}


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--optim", "adamw_bnb_8bit"], "bitsandbytes"),
        (["--optim", "grokadamw"], "pip install grokadamw"),
        (["--optim", "sgd", "--optim_args", "nesterov=True"], "Nesterov momentum requires"),
        (["--adam_beta1", "2"], "Invalid beta"),
        (["--report_to", "wandb"], "pip install wandb"),
        (["--report_to", "nowhere"], "nowhere is not supported"),
        (["--dataloader_persistent_workers", "true"], "needs dataloader_num_workers of at least 1"),
        (["--dataloader_prefetch_factor", "2"], "dataloader_num_workers > 0"),
        (["--deepspeed", "zero.json"], "--deepspeed needs the package deepspeed: pip install deepspeed"),
        (["--fsdp", "full_shard", "--fsdp_config", "missing.json"], "missing.json"),
        (["--learning_rate", "nan"], "learning_rate cannot be nan"),
        (["--weight_decay", "inf"], "weight_decay cannot be inf"),
        (["--num_train_epochs", "-1"], "num_train_epochs cannot be -1"),
        (["--num_train_epochs", "0"], "num_train_epochs cannot be 0"),
        (["--early_stopping_patience", "-1"], "early_stopping_patience cannot be -1"),
        (["--encoder_learning_rate", "-1"], "encoder_learning_rate cannot be -1"),
        (["--max_seconds", "nan"], "max_seconds cannot be nan"),
        (["--mixing_lr_scale", "0"], "mixing_lr_scale cannot be 0"),
        (["--crop_seconds", "-1"], "crop_seconds cannot be -1"),
        (["--crop_seconds", "0.005"], "crop_seconds cannot be 0.005; give at least a frame of 0.02 s, or 0"),
        (["--crop_seconds", "inf"], "crop_seconds cannot be inf"),
        (["--frame_stride", "0"], "frame_stride cannot be 0"),
        (["--gradient_accumulation_steps", "0"], "gradient_accumulation_steps cannot be 0"),
        (["--per_device_eval_batch_size", "0"], "per_device_eval_batch_size cannot be 0"),
        (["--seed", "-1"], "seed cannot be -1"),
        (["--seed", "4294967296"], "seed cannot be 4294967296; give a number of 0 to 4294967295"),
        (["--save_strategy", "no"], "save and eval strategy to match"),
        (["--early_stopping_patience", "1", "--eval_strategy", "no", "--load_best_model_at_end", "false"], "eval_str"),
    ],
    ids=lambda words: " ".join(words) if isinstance(words, list) else "",
)
def test_what_needs_something_is_refused_before_the_encoders_run(tiny, tmp_path, monkeypatch, more, words):
    monkeypatch.setattr("msfser.training.steps.encode_parts", lambda *_: pytest.fail("the encoders were run"))
    with pytest.raises(SystemExit) as stop:
        main(command(tiny, tmp_path / "run", *more))
    assert words in str(stop.value) and str(stop.value).startswith("msfser train: error: ")
    assert "\n" not in str(stop.value)


def test_what_training_relies_on_is_set(tiny, tmp_path):
    training = parse_settings(command(tiny, tmp_path / "run")).training
    assert not training.remove_unused_columns and training.length_column_name == "length"
    assert (training.metric_for_best_model, training.greater_is_better) == ("ccc_mean", True)
    assert training.restore_callback_states_from_checkpoint


@pytest.mark.parametrize(
    "more",
    [
        "--optim adafactor",
        "--optim sgd --lr_scheduler_type cosine --warmup_steps 0.1",
        "--gradient_accumulation_steps 20 --max_grad_norm 0 --average_tokens_across_devices false",
        "--bf16 true --torch_compile_backend eager --torch_empty_cache_steps 1",
        "--gradient_checkpointing true --freeze_audio none --freeze_text false",
        "--auto_find_batch_size true",
        "--save_strategy best --eval_on_start true --save_total_limit 1 --save_only_model true",
        "--eval_strategy no --save_strategy no --load_best_model_at_end false --logging_strategy no",
        "--eval_accumulation_steps 1 --eval_use_gather_object true --per_device_eval_batch_size 5",
        "--train_sampling_strategy batch_rebalance --dataloader_num_workers 1 --dataloader_persistent_workers true",
        "--train_sampling_strategy sequential --full_determinism true --data_seed 3 --ignore_data_skip true",
        "--max_steps 2 --eval_delay 100 --disable_tqdm true --log_level error",
    ],
)
def test_what_works(tiny, tmp_path, more):
    deterministic = torch.are_deterministic_algorithms_enabled()
    try:
        main(command(tiny, tmp_path / "run", *SHORT, *more.split()))
    finally:
        torch.use_deterministic_algorithms(deterministic)
    assert len(score_rows(tmp_path / "run")) == 12


# Few rows


def few(tiny: Path, folder: Path, train: int) -> list[str]:
    """The options that train on a corpus with some of its training rows."""
    shutil.copytree(tiny / "corpus", folder / "few")
    head, *lines = (tiny / "corpus" / "metadata.csv").read_text().splitlines()
    kept = [line for line in lines if ",train," in line][:train] + [line for line in lines if ",train," not in line]
    (folder / "few" / "metadata.csv").write_text("\n".join([head, *kept]))
    return ["--data", str(folder / "few"), *SHORT]


@pytest.mark.parametrize(
    ("more", "sizes", "said"),
    [
        # The default of the settings files for CPUs.
        ("--per_device_train_batch_size 32", [16], "16 training rows are fewer than a batch of 32"),
        ("--per_device_train_batch_size 32 --batch_seconds 100", [16], "16 training rows are fewer"),
        ("--per_device_train_batch_size 15 --dataloader_drop_last false", [15], "would have one row"),
        ("--per_device_train_batch_size 14 --dataloader_drop_last false", [14, 2], ""),
    ],
)
def test_sixteen_rows_train(tiny, tmp_path, monkeypatch, caplog, more, sizes, said):
    seen, step = [], MsfSerTrainer.training_step

    def watched(self, model, inputs, *args):
        seen.append(len(inputs["labels"]))
        return step(self, model, inputs, *args)

    monkeypatch.setattr(MsfSerTrainer, "training_step", watched)
    with caplog.at_level("INFO"):
        main(command(tiny, tmp_path / "run", *few(tiny, tmp_path, 16), *more.split()))
    assert said in caplog.text
    assert sorted(seen) == sorted(sizes)


def test_one_row_is_refused(tiny, tmp_path):
    with pytest.raises(
        SystemExit, match=r"1 training row is too few, because CCC needs two in a batch, .* add training rows"
    ):
        main(command(tiny, tmp_path / "run", *few(tiny, tmp_path, 1)))


def test_two_processes_share_few_rows(tiny, tmp_path):
    setting = ["--config_file", str(ROOT / "configs" / "accelerate" / "multi_gpu.yaml"), "--num_processes", "2"]
    launch = [sys.executable, "-m", "accelerate.commands.launch", *setting, str(ROOT / "train.py")]
    options = [*few(tiny, tmp_path, 16), "--per_device_train_batch_size", "16"]

    # What the main process finds in the folder, both know.
    for more, said in ((["--overwrite"], "16 training rows are fewer than a batch of 32"), ([], "--overwrite trains")):
        argv = [*launch, *command(tiny, tmp_path / "run", *options, *more)]
        run = subprocess.run(argv, env=environment(tmp_path), capture_output=True, text=True, timeout=300)
        assert run.returncode == 0 and run.stderr.count(said) == 1, run.stderr[-3000:]
    assert {path.name for path in tmp_path.glob("*run*")} == {"run"}


def rows(count: int) -> datasets.Dataset:
    audio = [{"bytes": None, "path": None}] * count
    columns = {"audio": audio, "transcript": ["a b"] * count, "length": [1.0] * count}
    return datasets.Dataset.from_dict(columns | {name: [0.5] * count for name in ("valence", "arousal", "dominance")})


@pytest.mark.parametrize(("count", "batch", "words"), [(8, 1, "at least two items in a batch"), (1, 8, "too few")])
def test_the_trainer_refuses_batches_of_one(tmp_path, count, batch, words):
    arguments = TrainingArguments(
        str(tmp_path), per_device_train_batch_size=batch, remove_unused_columns=False, use_cpu=True
    )
    with pytest.raises(ValueError, match=words):
        MsfSerTrainer(
            tiny_model(), arguments, MsfSerCollator(tiny_processor()), rows(count), encoder_learning_rate=1e-5
        )


def test_batches_by_seconds_leave_out_no_row(tmp_path, caplog):
    """Seventeen rows: counted, the last batch of 16 would have one."""
    arguments = TrainingArguments(
        str(tmp_path), per_device_train_batch_size=16, remove_unused_columns=False, use_cpu=True
    )
    options = {"encoder_learning_rate": 1e-5, "processing_class": tiny_processor(), "batch_seconds": 5.0}
    with caplog.at_level("INFO", logger="msfser.train"):
        trainer = MsfSerTrainer(tiny_model(), arguments, MsfSerCollator(tiny_processor()), rows(17), **options)
    assert sorted(row for batch in trainer.get_train_dataloader().batch_sampler for row in batch) == [*range(17)]
    assert "would have one row" not in caplog.text
