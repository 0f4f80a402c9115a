"""Fine-tunes MSF-SER, evaluates it on the test part and saves a folder that `AutoModel` loads.

    python train.py configs/probe.yaml
    python train.py configs/probe.yaml --data my/metadata.csv --label_range 1 7 --output_dir outputs/mine
    accelerate launch --num_processes 2 train.py configs/msp_podcast.yaml --data msp/metadata.parquet

Settings come from the YAML file and are overridden on the command line: those of a run (`RunArguments` below), the
switches of the model (`MsfSerConfig`) and everything of transformers' `TrainingArguments`. An unknown one is an error.
A killed run goes on from its last checkpoint when the same command is given again.
"""

import contextlib
import dataclasses
import json
import logging
import shlex
import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import datasets
import evaluate
import torch
import transformers
import yaml
from torch.utils.data import DataLoader
from transformers import (
    EarlyStoppingCallback,
    EvalPrediction,
    HfArgumentParser,
    Trainer,
    TrainingArguments,
    set_seed,
)

from msfser import LABELS, MsfSerConfig, MsfSerModel, MsfSerProcessor
from msfser.corpora.features import FeatureCollator, add_lengths, cache_features, keep_inputs, known_inputs
from msfser.corpora.probe import make_probe
from msfser.corpora.table import read_table

logger = logging.getLogger("msfser.train")

METRIC = str(Path(__file__).parent / "metrics" / "ccc")

# What a test-set table withholds, from little to all: its rows, and the inputs that each may use.
INPUTS = {
    "audio": ("audio",),
    "audio+transcript": ("audio", "transcript"),
    "all": ("audio", "transcript", "emphasis", "description"),
}


@dataclass
class RunArguments:
    """What is trained on what."""

    data: str = field(
        default="probe",
        metadata={"help": "'probe' (made on this machine), a table, a folder with metadata.csv, or a Hub dataset."},
    )
    label_range: list[float] = field(
        default_factory=lambda: [0.0, 1.0], metadata={"help": "Ends of the corpus's label scale, such as 1 7."}
    )
    audio_folder: str | None = field(
        default=None, metadata={"help": "The folder with the recordings; the table's own by default."}
    )
    allow_speaker_overlap: bool = field(
        default=False, metadata={"help": "Accept speakers that are in more than one part of the corpus."}
    )
    audio_encoder: str = field(
        default="openai/whisper-tiny.en", metadata={"help": "Pretrained speech encoder: Hub name or folder."}
    )
    text_encoder: str = field(
        default="sentence-transformers/all-MiniLM-L6-v2",
        metadata={"help": "Pretrained text encoder: Hub name or folder."},
    )
    max_seconds: float = field(default=12.0, metadata={"help": "Longer recordings are cut here."})
    encoder_learning_rate: float = field(
        default=1e-5, metadata={"help": "Peak learning rate of the encoders; learning_rate is that of the rest."}
    )
    early_stopping_patience: int = field(
        default=0, metadata={"help": "Stop after so many epochs without a better development CCC; 0 never stops."}
    )


# The model's own switches are settings too; the encoders' configs come with the encoders.
SwitchArguments = dataclasses.make_dataclass(
    "SwitchArguments",
    [
        (f.name, f.type, field(default=f.default))
        for f in dataclasses.fields(MsfSerConfig)
        if f.name in MsfSerConfig.__annotations__ and f.name not in ("audio_config", "text_config")
    ],
)


class MsfSerTrainer(Trainer):
    """`Trainer` with a learning rate of its own for the encoders, which scores every item of a part."""

    def __init__(self, *args, encoder_learning_rate: float, **kwargs):
        super().__init__(*args, **kwargs)
        self.encoder_learning_rate = encoder_learning_rate

    def get_eval_dataloader(self, eval_dataset: datasets.Dataset | None = None) -> DataLoader:
        """The development part, to its last item: `dataloader_drop_last` is meant for training."""
        with _last_batch_kept(self.args):
            return super().get_eval_dataloader(eval_dataset)

    def get_test_dataloader(self, test_dataset: datasets.Dataset) -> DataLoader:
        """The test part, to its last item."""
        with _last_batch_kept(self.args):
            return super().get_test_dataloader(test_dataset)

    def create_optimizer(self, model: torch.nn.Module | None = None) -> torch.optim.Optimizer:
        """AdamW over four groups: encoder or fusion, with or without weight decay."""
        if self.optimizer is None:
            trained = self.model if model is None else model
            decayed = set(self.get_decay_parameter_names(trained))
            groups: dict[tuple[bool, bool], list] = {}
            for name, parameter in trained.named_parameters():
                if parameter.requires_grad:
                    is_encoder = "audio_encoder." in name or "text_encoder." in name
                    groups.setdefault((is_encoder, name in decayed), []).append(parameter)
            optimizer_class, options = self.get_optimizer_cls_and_kwargs(self.args, trained)
            self.optimizer = optimizer_class(
                [
                    {
                        "params": parameters,
                        "lr": self.encoder_learning_rate if is_encoder else self.args.learning_rate,
                        "weight_decay": self.args.weight_decay if is_decayed else 0.0,
                    }
                    for (is_encoder, is_decayed), parameters in groups.items()
                ],
                **options,
            )
        return self.optimizer


@contextlib.contextmanager
def _last_batch_kept(training: TrainingArguments) -> Iterator[None]:
    drop_last, training.dataloader_drop_last = training.dataloader_drop_last, False
    try:
        yield
    finally:
        training.dataloader_drop_last = drop_last


def parse_settings(argv: Sequence[str]) -> tuple[RunArguments, MsfSerConfig, TrainingArguments]:
    """The settings of a run from its YAML file and what follows it on the command line.

    Args:
        argv: `[YAML file, --name value, ...]`.

    Returns:
        The run, the model's switches (with the paper's encoders in place of the named ones) and the training.

    Raises:
        SystemExit: A setting is unknown or wrong; the sentence says which.
    """
    parser = HfArgumentParser([RunArguments, SwitchArguments, TrainingArguments], description=__doc__)
    parser.add_argument("config", help="YAML file with settings, such as configs/probe.yaml.")
    known = {action.dest for action in parser._actions} - {"config", "help"}
    path = next((word for word in argv if not word.startswith("-")), None)
    # A device with bfloat16 uses it unless the settings say no.
    parser.set_defaults(bf16=torch.cuda.is_available() and torch.cuda.is_bf16_supported())
    if path is not None:
        if not Path(path).is_file():
            parser.error(f"there is no settings file {path!r}; the first argument is one, such as configs/probe.yaml")
        settings = yaml.safe_load(Path(path).read_text(encoding="utf-8")) or {}
        unknown = sorted(set(settings) - known)
        if unknown:
            parser.error(f"{path} has unknown settings: {', '.join(unknown)}")
        parser.set_defaults(**settings)
    try:
        run, switches, training, _ = parser.parse_args_into_dataclasses(args=list(argv))
        config = MsfSerConfig(**dataclasses.asdict(switches))
    except ValueError as error:
        parser.error(str(error))
    if len(run.label_range) != 2:
        parser.error(f"label_range takes two numbers, not {run.label_range}")
    return run, config, training


def build(run: RunArguments, config: MsfSerConfig) -> tuple[MsfSerModel, MsfSerProcessor]:
    """Model on the run's pretrained encoders, and its processor."""
    names = [f.name for f in dataclasses.fields(SwitchArguments)]
    model = MsfSerModel.from_encoders(
        run.audio_encoder if config.audio else None,
        run.text_encoder if config.semantics else None,
        **{name: getattr(config, name) for name in names},
    )
    processor = MsfSerProcessor.from_encoders(run.audio_encoder, run.text_encoder, max_seconds=run.max_seconds)
    return model, processor


def score(prediction: EvalPrediction) -> dict[str, float]:
    """The metric over a whole part of the corpus."""
    return evaluate.load(METRIC, keep_in_memory=True).compute(
        predictions=prediction.predictions, references=prediction.label_ids, n_resamples=0
    )


def main(argv: Sequence[str]) -> None:
    """One run: data, model, training, test-set table, folder."""
    run, config, training = parse_settings(argv)
    command = shlex.join(["python", "train.py", *argv])
    logging.basicConfig(format="%(asctime)s %(name)s: %(message)s", datefmt="%H:%M:%S", level=logging.INFO)
    if not training.should_log:
        logging.disable(logging.INFO)
        datasets.disable_progress_bars()
    transformers.utils.logging.set_verbosity_warning()
    set_seed(training.seed)
    checkpoint = find_checkpoint(Path(training.output_dir), argv)

    with training.main_process_first(desc="making the corpus", local=False):
        corpus = make_probe("data/probe") if run.data == "probe" else run.data
        parts = read_table(
            corpus,
            label_range=tuple(run.label_range),
            audio_folder=run.audio_folder,
            allow_speaker_overlap=run.allow_speaker_overlap,
        )
    for name in ("train", "validation", "test"):
        if name not in parts:
            raise SystemExit(f"{run.data} has no {name} part: add a column 'split', or leave it out to have one made.")
        logger.info("%s: %d utterances", name, len(parts[name]))

    model, processor = build(run, config)
    with training.main_process_first(desc="running the frozen encoders", local=False):
        model.to(training.device)
        parts = {name: cache_features(add_lengths(part), model, processor) for name, part in parts.items()}

    training.remove_unused_columns = False
    training.metric_for_best_model, training.greater_is_better = "ccc_mean", True
    training.length_column_name = "length"
    callbacks = [EarlyStoppingCallback(run.early_stopping_patience)] if run.early_stopping_patience else []
    trainer = MsfSerTrainer(
        model=model,
        args=training,
        train_dataset=parts["train"],
        eval_dataset=parts["validation"],
        data_collator=FeatureCollator(processor),
        processing_class=processor,
        compute_metrics=score,
        callbacks=callbacks,
        encoder_learning_rate=run.encoder_learning_rate,
    )
    trainer.train(resume_from_checkpoint=checkpoint)

    rows = evaluate_inputs(trainer, parts["test"], command)
    trainer.save_model(training.output_dir)
    if trainer.is_world_process_zero():
        folder = Path(training.output_dir)
        (folder / "results.json").write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
        for unfinished in folder.glob("checkpoint-*"):
            shutil.rmtree(unfinished)
        logger.info("test set, CCC with 95 %% bootstrap interval:\n%s", as_table(rows))
        logger.info("saved: %s", folder)


def find_checkpoint(folder: Path, argv: Sequence[str]) -> str | None:
    """The last whole checkpoint of the same command, if it was killed; notes the command in the folder.

    Raises:
        SystemExit: The folder holds an unfinished run of another command.
    """
    note = folder / "command.json"
    checkpoints = sorted(folder.glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]), reverse=True)
    if checkpoints:
        begun = json.loads(note.read_text(encoding="utf-8")) if note.is_file() else ["unknown"]
        if begun != list(argv):
            raise SystemExit(
                f"{folder} holds an unfinished run of another command ({shlex.join(begun)}): give that command to go "
                "on, or take another --output_dir, or remove the folder."
            )
    folder.mkdir(parents=True, exist_ok=True)
    note.write_text(json.dumps(list(argv)), encoding="utf-8")
    whole = next((path for path in checkpoints if _is_whole(path)), None)
    if whole is not None:
        logger.info("going on from %s", whole)
    return None if whole is None else str(whole)


def _is_whole(checkpoint: Path) -> bool:
    """Whether the trainer got to writing its state, the last file of a checkpoint."""
    try:
        json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return True


def evaluate_inputs(trainer: Trainer, test: datasets.Dataset, command: str) -> list[dict[str, object]]:
    """Scores the test part with fewer and with more of the inputs.

    Returns:
        Rows `{"name": "test/INPUTS/DIMENSION", "value", "low", "high", "command"}`.
    """
    active = known_inputs(test)
    rows, seen = [], []
    for label, inputs in INPUTS.items():
        used = [name for name in active if name in inputs]
        if not used or used in seen:
            continue
        seen.append(used)
        predicted = trainer.predict(keep_inputs(test, used))
        scores = evaluate.load(METRIC, keep_in_memory=True).compute(
            predictions=predicted.predictions, references=predicted.label_ids
        )
        rows += [
            {
                "name": f"test/{label}/{dimension}",
                "value": scores[f"ccc_{dimension}"],
                "low": scores[f"ccc_{dimension}_low"],
                "high": scores[f"ccc_{dimension}_high"],
                "command": command,
            }
            for dimension in (*LABELS, "mean")
        ]
    return rows


def as_table(rows: list[dict[str, object]]) -> str:
    """The rows as text, a line for each set of inputs."""
    lines = [f"{'inputs':20}" + "".join(f"{name:>22}" for name in (*LABELS, "mean"))]
    for start in range(0, len(rows), len(LABELS) + 1):
        group = rows[start : start + len(LABELS) + 1]
        cells = [f"{row['value']:.3f} ({row['low']:.3f}..{row['high']:.3f})" for row in group]
        lines.append(f"{group[0]['name'].split('/')[1]:20}" + "".join(f"{cell:>22}" for cell in cells))
    return "\n".join(lines)


if __name__ == "__main__":
    main(sys.argv[1:])
