"""The settings of a training run: what is read from YAML and the command line, checked, and kept in `run.yaml`."""

import dataclasses
import importlib.util
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import torch
import yaml
from huggingface_hub.dataclasses import strict
from huggingface_hub.errors import StrictDataclassError
from transformers import TrainingArguments

from ..cli.outputs import write_text
from ..cli.settings import SettingsParser, plain
from ..configuration_msfser import SEMANTICS, MsfSerConfig
from .crops import FRAMES_PER_SECOND, Crop
from .run_file import RUN_FILE

if TYPE_CHECKING:
    import datasets

    from ..corpora.label_ranges import LabelRange
    from ..corpora.registry import Corpus

logger = logging.getLogger(__name__)

# Arguments that the command sets itself; values from the user are rejected.
RESERVED_ARGUMENTS = (
    *("do_train", "do_eval", "resume_from_checkpoint", "metric_for_best_model", "greater_is_better"),
    *("remove_unused_columns", "length_column_name", "restore_callback_states_from_checkpoint"),
)

_PUBLISHED = "msfser publish uploads a finished run, with its card"
_HALF = "a run evaluates the model that it saves; for prediction load the model with the dtype that you want"

# Arguments of the library that cannot work here, with the reason; they must keep their defaults.
UNSUPPORTED_ARGUMENTS = {
    "label_smoothing_factor": "the labels are numbers, not classes",
    "neftune_noise_alpha": "the texts may be cached outputs of the text encoder; set text_dropout or head_dropout",
    "use_liger_kernel": "it has no kernels for this model; fast_encoders is the setting for faster kernels",
    "bf16_full_eval": _HALF,
    "fp16_full_eval": _HALF,
    "prediction_loss_only": "the best epoch and the results need the predictions",
    "eval_do_concat_batches": "CCC is a statistic of the whole part, not of its batches",
    "batch_eval_metrics": "CCC is a statistic of the whole part, not of its batches",
    "include_for_metrics": "the metric uses predictions and labels only",
    "include_num_input_tokens_seen": "the inputs are sound and texts, not one sequence of tokens",
    "debug": "the library's hooks cannot read masks; a loss that is not finite ends the run and names the rows anyway",
    "label_names": "the labels are always called labels",
    **dict.fromkeys(("push_to_hub", "hub_model_id", "hub_private_repo", "hub_revision", "hub_token"), _PUBLISHED),
    **dict.fromkeys(("hub_always_push", "hub_strategy"), _PUBLISHED),
}


def _setting(default: Any, words: str, **metadata: Any) -> Any:
    return field(default=default, metadata={"help": words, **metadata})


def _number_or_text(word: Any) -> float | str:
    try:
        return float(word)
    except (TypeError, ValueError):
        return str(word)


@strict
@dataclass
class RunSettings:
    """Data and training."""

    data: str = _setting("probe", "probe, a table, its folder, or a Hub dataset; one or several", further="more_data")
    more_data: list[str] = field(
        default_factory=list, metadata={"help": "more corpora: paths, or {data: B, corpus: whiser, weight: 0.5}"}
    )
    corpus: str = _setting("table", "reader: table, or a named corpus such as iemocap")
    fold: int | None = _setting(None, "session of iemocap to test on, 1 to 5")
    test: list[str] = field(
        default_factory=list, metadata={"help": "test part of the corpus, or several, such as Test1 Test2"}
    )
    label_range: list[float | str] = field(
        default_factory=lambda: [0.0, 1.0],
        metadata={
            "help": "ends of the label scale: 1 7, or valence=-1:1 arousal=0:1",
            "item": _number_or_text,
        },
    )
    audio_folder: str | None = _setting(None, "folder of the recordings (the table's folder)")
    columns: list[str] = field(
        default_factory=list, metadata={"help": "custom column names, such as speaker=actor, or none"}
    )
    allow_speaker_overlap: bool = _setting(False, "accept speakers in more than one part")
    speaker_from: str | None = _setting(None, "regular expression that finds the speaker in a file name")
    split_by: Literal["speaker", "file"] = _setting("speaker", "what parts are made by: speaker, or file")
    random_emphasis: int | None = _setting(None, "seed of random words in place of the emphasized ones")
    init_from: str | None = _setting(None, "start from: starter, starter-open, a folder, or a Hub name")
    audio_encoder: str = _setting("openai/whisper-tiny.en", "Hub name or folder")
    text_encoder: str = _setting("sentence-transformers/all-MiniLM-L6-v2", "Hub name or folder")
    max_seconds: float = _setting(12.0, "longer recordings are cut to this length")
    text_languages: list[str] = field(default_factory=list, metadata={"help": "read words in no others, such as en"})
    encoder_learning_rate: float = _setting(1e-5, "peak learning rate of trained encoders")
    mixing_lr_scale: float = _setting(20.0, "learning rate of layer and expert weights / learning_rate")
    lora_rank: int = _setting(0, "rank of LoRA adapters that are trained in the encoders; 0: none")
    crop_seconds: float = _setting(2.4, "random crops of cached sound in training; 0: whole clips")
    frame_stride: int = _setting(4, "training uses every n-th frame of cached sound")
    early_stopping_patience: int = _setting(0, "epochs without a better mean CCC; 0 never stops")
    batch_seconds: float = _setting(0.0, "seconds of audio per batch; 0: a fixed number of items")
    cache_gigabytes: float = _setting(50.0, "disk space for outputs of frozen encoders; 0 caches none")
    cross_validate: str | None = _setting(None, "leave each speaker, session, or value of a column out in turn")
    folds: int = _setting(0, "folds of cross_validate; 0: one for each unit")
    group_file: str | None = _setting(None, "CSV with unit,group: units that are left out together")
    final_model: bool = _setting(False, "after cross_validate, train a model on everything")
    intervals: bool = _setting(True, "fit intervals to speakers that the training has not seen")
    overwrite: bool = _setting(False, "train anew and then replace the run in output_dir")

    def __post_init__(self) -> None:
        if self.text_languages:
            from ..languages_msfser import language_code  # slow, and few runs need it

            self.text_languages = [str(language_code(name)) for name in self.text_languages]

    @property
    def column_names(self) -> dict[str, str]:
        """Source column of each renamed column of the schema."""
        return dict(pair.split("=", 1) for pair in self.columns)

    @property
    def crop(self) -> Crop:
        """What a training step uses of a recording whose states are cached."""
        return Crop(round(self.crop_seconds * FRAMES_PER_SECOND), self.frame_stride)

    @property
    def ranges(self) -> "LabelRange":
        """The label range of a table, or that of each of its dimensions."""
        from ..corpora.label_ranges import parse_label_range

        return parse_label_range(self.label_range)


@strict
@dataclass
class ModelSettings:
    """Model."""

    audio: bool = _setting(MsfSerConfig.audio, "whether the sound is an input")
    semantics: list[str] = field(
        default_factory=lambda: list(SEMANTICS), metadata={"help": "texts that are inputs, or none"}
    )
    intra_fusion: Literal["gate", "attention", "concat"] = _setting(
        MsfSerConfig.intra_fusion, "emphasis with transcript: gate, attention, concat"
    )
    cross_fusion: Literal["fm_moe", "film", "attention", "concat", "none"] = _setting(
        MsfSerConfig.cross_fusion, "audio with texts: fm_moe, film, attention, concat, none"
    )
    film_position: Literal["pooled", "frames"] = _setting(
        MsfSerConfig.film_position, "what FiLM modulates: pooled or frames"
    )
    routing: Literal["static", "input"] = _setting(MsfSerConfig.routing, "weights of the experts: static or input")
    audio_states: Literal["last", "weighted"] = _setting(
        MsfSerConfig.audio_states, "speech encoder layers: last or weighted"
    )
    freeze_audio: Literal["none", "front_end", "all"] = _setting(
        MsfSerConfig.freeze_audio, "frozen part of the speech encoder: none, front_end, all"
    )
    freeze_text: bool = _setting(MsfSerConfig.freeze_text, "freeze the text encoder")
    fast_encoders: bool = _setting(MsfSerConfig.fast_encoders, "faster kernels in the encoders")
    fusion_size: int = _setting(MsfSerConfig.fusion_size, "width of experts and heads")
    head_dropout: float = _setting(MsfSerConfig.head_dropout, "dropout in the heads")
    expert_dropout: float = _setting(MsfSerConfig.expert_dropout, "dropout in the experts")
    text_dropout: float = _setting(MsfSerConfig.text_dropout, "probability of dropping each text in training")
    audio_dropout: float = _setting(MsfSerConfig.audio_dropout, "probability of dropping the audio in training")
    initializer_range: float = _setting(MsfSerConfig.initializer_range, "standard deviation of initial weights")

    def __post_init__(self) -> None:
        self.semantics = MsfSerConfig(**dataclasses.asdict(self)).semantics or []


# Settings that older runs do not have.
_ADDED: dict[str, Any] = {"intervals": False, "random_emphasis": None, "text_languages": []}
# What a command is told, rather than what its run is: not in `run.yaml`.
_UNSAVED = ("overwrite",)


class SavedRun(NamedTuple):
    """All settings of a run as `run.yaml` has them; `training` holds what differs from the library's defaults."""

    run: RunSettings
    model: ModelSettings
    training: dict[str, Any]

    def resolved(self) -> dict[str, Any]:
        """What `run.yaml` holds."""
        settings = dataclasses.asdict(self.run) | dataclasses.asdict(self.model) | self.training
        return {name: value for name, value in settings.items() if name not in _UNSAVED}


class Settings(NamedTuple):
    """The settings that a command was given, and what of them `run.yaml` holds."""

    run: RunSettings
    model: ModelSettings
    training: TrainingArguments
    resolved: dict[str, Any]


def parse_settings(argv: Sequence[str], command: str = "train") -> Settings:
    """The settings of a run from a YAML file and the options that override it.

    Args:
        argv: `[SETTINGS.yaml, --name value, ...]`.
        command: The subcommand that errors name.

    Returns:
        The settings. In the resolved ones, which are the same however they were given, are every field of
        [`RunSettings`] and [`ModelSettings`], and the fields of `TrainingArguments` that differ from the library's
        defaults.

    Raises:
        SystemExit: A setting is unknown or wrong; the sentence says which.
    """
    parser = SettingsParser(
        command,
        "Fine-tunes MSF-SER on a corpus, evaluates it and saves it. Options override the settings file.",
        [RunSettings, ModelSettings],
        TrainingArguments,
        RESERVED_ARGUMENTS,
        UNSUPPORTED_ARGUMENTS,
    )
    values, given = parser.parse(argv)
    ours = {field.name for kind in parser.kinds for field in dataclasses.fields(kind)}
    library = {name: plain(v) for name, v in values.items() if name not in ours and v != parser.defaults[name]}
    _fill_in(values, given)
    if values["init_from"]:
        if "data" not in given:  # the default is for a new model
            parser.error(
                f"init_from fine-tunes {values['init_from']} on your data: give a table, --data my_corpus/metadata.csv"
            )
        from .initialization import adopt_settings

        try:
            adopt_settings(values, given, [field.name for field in dataclasses.fields(ModelSettings)])
        except (ValueError, OSError) as error:
            parser.error(str(error))
    if values["deepspeed"] and importlib.util.find_spec("deepspeed") is None:
        parser.error("--deepspeed needs the package deepspeed: pip install deepspeed, or leave it out")
    run, model, training = parser.build(values)
    try:
        _check(run, training)
    except ValueError as error:
        parser.error(str(error))
    training.remove_unused_columns = False
    training.metric_for_best_model, training.greater_is_better = "ccc_mean", True
    training.length_column_name = "length"
    training.restore_callback_states_from_checkpoint = True
    return Settings(run, model, training, SavedRun(run, model, library).resolved())


def _fill_in(values: dict[str, Any], given: frozenset[str]) -> None:
    """Sets what depends on the machine and was not given; `run.yaml` leaves it out."""
    if not given & {"bf16", "fp16", "use_cpu", "do_predict"}:
        values["bf16"] = torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)
    if values["bf16"] and "use_cpu" not in given:  # which the library asks for before it uses bfloat16 on a CPU
        values["use_cpu"] = not torch.accelerator.is_available()
    if "dataloader_pin_memory" not in given:
        values["dataloader_pin_memory"] = torch.accelerator.is_available() and not values["use_cpu"]
    if not given & {"logging_strategy", "logging_steps"}:
        values["logging_strategy"] = "epoch"


# Numbers of the library that it does not check.
_FINITE = ("learning_rate", "weight_decay", "max_grad_norm", "warmup_steps", "num_train_epochs")


def _corpus(name: str) -> "Corpus":
    from ..corpora.registry import CORPORA  # imports much, which the help does not need

    if name not in CORPORA:
        raise ValueError(f"corpus cannot be {name!r}; give one of {', '.join(CORPORA)}")
    return CORPORA[name]


def _check(run: RunSettings, training: TrainingArguments) -> None:
    from ..corpora.mixture import check_part_name

    defaults, corpus = RunSettings(), _corpus(run.corpus)
    given = [f.name for f in dataclasses.fields(run) if getattr(run, f.name) != getattr(defaults, f.name)]
    if run.cross_validate is None:
        corpus.check_options(given)
    else:
        _check_cross_validation(run, training)
        corpus.check_options([*given, *(["fold"] if corpus.folds else [])])  # all folds have the same rows
    if run.cross_validate is None and (useless := {*given} & {"folds", "group_file", "final_model"}):
        raise ValueError(f"{min(useless)} belongs to cross-validation: give --cross_validate speaker, or leave it out")
    for name in run.test:
        check_part_name(name)
    _ = run.ranges
    if wrong := [pair for pair in run.columns if "=" not in pair]:
        raise ValueError(f"--columns needs pairs such as speaker=actor, not {', '.join(wrong)}")
    for name in ("batch_seconds", "cache_gigabytes", "crop_seconds", "early_stopping_patience"):
        if not getattr(run, name) >= 0:
            raise ValueError(f"{name} cannot be {getattr(run, name)}; 0 switches it off")
    if run.crop_seconds == math.inf or (run.crop_seconds > 0 and run.crop.frames == 0):
        raise ValueError(
            f"crop_seconds cannot be {run.crop_seconds}; give at least a frame of {1 / FRAMES_PER_SECOND} s, or 0 for "
            "whole clips"
        )
    for name in _FINITE:
        if not math.isfinite(value := getattr(training, name)) or value < 0:
            raise ValueError(f"{name} cannot be {value}; give a number of at least 0")
    for name in ("encoder_learning_rate", "max_seconds", "mixing_lr_scale"):
        if not (math.isfinite(value := getattr(run, name)) and value > 0):
            raise ValueError(f"{name} cannot be {value}; give a number above 0")
    counts = {name: getattr(training, name) for name in ("gradient_accumulation_steps", "per_device_eval_batch_size")}
    for name, count in (counts | {"frame_stride": run.frame_stride}).items():
        if count < 1:
            raise ValueError(f"{name} cannot be {count}; give at least 1")
    if training.max_steps <= 0 and training.num_train_epochs == 0 and not training.do_predict:
        raise ValueError("num_train_epochs cannot be 0, which trains nothing; give a number above 0")
    if run.random_emphasis is not None and run.random_emphasis < 0:
        raise ValueError(f"random_emphasis cannot be {run.random_emphasis}; give a number of at least 0")
    if not 0 <= training.seed < 2**32:
        raise ValueError(f"seed cannot be {training.seed}; give a number of 0 to {2**32 - 1}")
    if run.lora_rank < 0:
        raise ValueError(f"lora_rank cannot be {run.lora_rank}; 0 trains no adapters")
    if run.lora_rank and importlib.util.find_spec("peft") is None:
        raise ValueError('lora_rank needs the package peft: pip install "peft>=0.17", or leave it out')
    if run.early_stopping_patience and training.eval_strategy == "no":
        raise ValueError("early_stopping_patience needs an eval_strategy, such as epoch")
    if training.dataloader_persistent_workers and not training.dataloader_num_workers:
        raise ValueError("dataloader_persistent_workers needs dataloader_num_workers of at least 1")
    if training.n_gpu > 1:
        raise ValueError("for several GPUs: accelerate launch --multi_gpu --num_processes N train.py ...")
    if training.per_device_train_batch_size * training.world_size < 2:
        raise ValueError("CCC needs at least two items in a batch; gradient accumulation does not enlarge this batch")


def _check_cross_validation(run: RunSettings, training: TrainingArguments) -> None:
    of_parts = ("more_data", "test", "random_emphasis")
    if named := [name for name in of_parts if getattr(run, name) != getattr(RunSettings(), name)]:
        raise ValueError(
            f"{named[0]} does not apply to cross_validate, which reads one corpus as a whole; leave it out"
        )
    if run.fold is not None:
        raise ValueError("fold names one part to test on, and cross_validate tests on all; leave one of them out")
    if run.folds < 0 or run.folds == 1:
        raise ValueError(f"folds cannot be {run.folds}; give at least 2, or 0 for one fold for each unit")
    if run.early_stopping_patience:
        raise ValueError(
            "early_stopping_patience needs a validation part, which folds of cross_validate do not have; leave it out"
        )
    if training.do_predict:
        raise ValueError("do_predict predicts the test part, and cross_validate has none; leave one of them out")


def write_run(folder: Path, settings: Mapping[str, Any]) -> None:
    """Writes the resolved settings of a run into its folder."""
    write_text(folder / RUN_FILE, yaml.safe_dump(dict(settings), sort_keys=False))


def read_run(folder: str | Path) -> SavedRun:
    """The settings that a run was started with; paths are relative to the folder that it was started in.

    Args:
        folder: Its `output_dir`.

    Raises:
        OSError: There is no `run.yaml`.
        ValueError: It cannot be read.
    """
    path = Path(folder) / RUN_FILE
    if not path.is_file():
        raise OSError(
            f"{folder} is not the folder of a training run: it has no {RUN_FILE}, which msfser train writes."
        )
    try:
        values = _ADDED | dict(yaml.safe_load(path.read_text(encoding="utf-8")))
        names = [f.name for f in dataclasses.fields(RunSettings) if f.name not in _UNSAVED]
        run = RunSettings(**{name: values.pop(name) for name in names})
        model = ModelSettings(**{f.name: values.pop(f.name) for f in dataclasses.fields(ModelSettings)})
        _corpus(run.corpus)
        if unknown := values.keys() - {f.name for f in dataclasses.fields(TrainingArguments)}:
            raise ValueError(f"unknown settings {sorted(unknown)}")
    except (ValueError, TypeError, LookupError, StrictDataclassError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{path} is not what msfser train writes ({reason}): train again.") from error
    return SavedRun(run, model, values)


def read_data(run: RunSettings, require_labels: bool = True, needed: Sequence[str] = ()) -> "datasets.DatasetDict":
    """The parts of the run's corpus in the schema.

    Args:
        run: Names the corpus and says how it is read, and whether emphasized words are replaced by random ones.
        require_labels: Whether each row must have all three labels.
        needed: Parts that must be there; or `all`, the one part of all rows of a corpus.

    Raises:
        ValueError: The corpus is not as its reader expects it, or lacks a part; the sentence says where.
        OSError: A file cannot be read.
    """
    from ..corpora.mixture import read_parts
    from ..corpora.table import POOLED

    options = corpus_options(run)
    if POOLED in needed:
        if run.more_data:
            raise ValueError("all rows are those of one corpus, and --data names several: give it once.")
        options["pooled"] = True
    parts = read_parts(run.data, run.more_data, run.corpus, options, require_labels, needed, run.text_languages)
    if absent := [name for name in needed if name not in parts]:
        raise ValueError(
            f"{run.data} has no {absent[0]} part, only {', '.join(parts)}: name the parts in a column 'split', or "
            "leave it out to have them made."
        )
    if run.random_emphasis is None:
        return parts
    from .random_emphasis import random_windows

    return random_windows(parts, run.random_emphasis)


def corpus_options(run: RunSettings) -> dict[str, Any]:
    """The options of the reader of the run's corpus."""
    return {
        "fold": run.fold,
        "label_range": run.ranges,
        "columns": run.column_names,
        "audio_folder": run.audio_folder,
        "allow_speaker_overlap": run.allow_speaker_overlap,
        "speaker_from": run.speaker_from,
        "split_by": run.split_by,
        "test": run.test,
    }


def corpus_title(run: RunSettings) -> str:
    """What the corpus of a run is called: its title, or for a table the name of its folder."""
    from ..corpora.sources import TABLE_SUFFIXES

    path = Path(run.data)
    folder = path.parent if path.suffix.lower() in TABLE_SUFFIXES else path
    title = folder.name or path.stem if run.corpus == "table" else _corpus(run.corpus).title
    return f"{title} and others" if run.more_data else title


def read_unit_rows(run: RunSettings) -> "datasets.Dataset":
    """All rows of the run's corpus in the schema, with the unit of each as `unit`, for cross-validation.

    Raises:
        ValueError: The corpus is not as its reader expects it, or a row has no unit; the sentence says where.
        OSError: A file cannot be read.
    """
    from ..corpora.mixture import with_unrated
    from ..corpora.units import read_units

    assert run.cross_validate is not None
    rows = read_units(
        run.corpus,
        run.data,
        run.cross_validate,
        label_range=run.ranges,
        columns=run.column_names,
        audio_folder=run.audio_folder,
        group_file=run.group_file,
        speaker_from=run.speaker_from,
        text_languages=run.text_languages,
    )
    return with_unrated(rows)
