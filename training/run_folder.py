"""The folder of a run: what may be written there, and how a new run replaces an old one.

A run is trained in its folder. With `overwrite` it is trained in a hidden folder beside it, and the two change places
when the new one is whole: until then, the old one stays as it is. If the process is killed between the two renames,
the next command with this folder completes them.
"""

import itertools
import json
import logging
import os
import shutil
from collections.abc import Mapping, Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from transformers import TrainingArguments

from ..cli.outputs import UNFINISHED, write_text
from ..hub.model_names import files_hash
from .checkpoints import find_checkpoint
from .data_identity import DATA_FILE, WEIGHTS, Identity, differences, read_identity, write_identity
from .run_file import RUN_FILE
from .settings import write_run

logger = logging.getLogger("msfser.train")

RESULTS_FILE = "results.json"
# With the predictions of each fold of a cross-validation.
FOLDS_FOLDER = "folds"

_WEIGHTS = ("model.safetensors", "model-*-of-*.safetensors")

# What training, predicting, reporting and publishing write into the folder of a run.
_MADE = (
    *(RUN_FILE, DATA_FILE, RESULTS_FILE, "report.html", f"*{UNFINISHED}"),
    *("predictions.csv", "*_predictions.csv", "predictions.csv.parts", "*_predictions.csv.parts"),
    *(*_WEIGHTS, "model.safetensors.index.json", "*_msfser.py", "__pycache__"),
    *("config.json", "processor_config.json", "preprocessor_config.json", "tokenizer.json", "tokenizer_config.json"),
    *("special_tokens_map.json", "added_tokens.json", "vocab.json", "vocab.txt", "merges.txt", "*.bpe.model"),
    f"{FOLDS_FOLDER}/*.csv",
    *("spiece.model", "training_args.bin", "trainer_state.json", "checkpoint-*", "tmp-checkpoint-*", "runs"),
)

# The setting that only adds to what a run has made.
_ADDED = "final_model"


class Start(NamedTuple):
    """How a run begins.

    Args:
        folder: Where it is trained.
        destination: Where it is in the end.
        checkpoint: The one that it goes on from.
        results: Those of a finished run, which is not trained again.
    """

    folder: Path
    destination: Path
    checkpoint: str | None = None
    results: list[dict[str, Any]] | None = None


def is_unfinished(folder: Path) -> bool:
    """Whether a run was started in a folder and has not written its results."""
    return (folder / RUN_FILE).is_file() and not (folder / RESULTS_FILE).is_file()


def start_run(
    folder: Path, settings: Mapping[str, Any], data: Identity, training: TrainingArguments, overwrite: bool = False
) -> Start:
    """Prepares the folder of a run and decides what the run goes on from; of several processes, the main one does.

    Args:
        folder: The one that the run is to have in the end.
        settings: The resolved settings, which tell runs apart.
        data: The identity of the data, which does so too.
        training: Its arguments.
        overwrite: Whether the run in the folder is to be replaced.

    Raises:
        ValueError: The folder holds another run, something that no run made, or weights that were put there later.
        OSError: The folder cannot be written.
    """
    is_replaced = not _complete(folder) and overwrite
    _check_files(folder, is_replaced)
    working = _beside(folder, "new") if is_replaced else folder
    is_finished = (working / RESULTS_FILE).is_file()
    begun = ("checkpoint-*", "*.safetensors", f"{FOLDS_FOLDER}/*.csv")
    if is_finished or any(path for made in begun for path in working.glob(made)):
        _check_same(working, settings, data, is_finished)
    if is_finished and settings.get(_ADDED) and not _saved_settings(working).get(_ADDED):
        (working / RESULTS_FILE).unlink()
        is_finished = False
    if is_finished:
        check_weights(working)
        finish_run(working, folder)
        return Start(folder, folder, results=json.loads((folder / RESULTS_FILE).read_text(encoding="utf-8")))
    write_run(working, settings)
    write_identity(working, data)
    if is_replaced:
        logger.info("training in %s; %s stays as it is until the new run is whole", working, folder)
    return Start(working, folder, find_checkpoint(working, training))


def write_results(folder: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Writes the scores of a run, which make it a finished one, and notes which weights have them.

    Args:
        folder: The run's, with the saved model if the run saves one.
        rows: What `results.json` is to hold.
    """
    write_identity(folder, {**read_identity(folder), WEIGHTS: {"sha256": _weights_hash(folder)}})
    write_text(folder / RESULTS_FILE, json.dumps(rows, indent=1) + "\n")


def check_weights(folder: Path) -> None:
    """Checks that the weights in the folder of a finished run are those that its scores are of.

    A run of an older version, which did not note its weights, passes.

    Raises:
        ValueError: They are others, or the note cannot be read.
    """
    noted = read_identity(folder).get(WEIGHTS)
    if noted is not None and noted.get("sha256") != _weights_hash(folder):
        raise ValueError(
            f"the weights in {folder} are not those that {RESULTS_FILE} scores: train anew with --overwrite, and save "
            "other models to other folders."
        )


def _weights_hash(folder: Path) -> str:
    """A hash of the weights in a folder, in one file or several; also where there are none."""
    return files_hash(path for pattern in _WEIGHTS for path in folder.glob(pattern))


def finish_run(working: Path, folder: Path) -> None:
    """Removes what only an unfinished run needs, and puts the run into its folder."""
    _tidy(working)
    if working != folder:
        if folder.exists():
            folder.resolve().rename(_beside(folder, "old"))
        working.rename(folder.resolve())
        _discard(folder)


def _complete(folder: Path) -> bool:
    """Completes the replacement that a killed process began; whether there was one."""
    new = _beside(folder, "new")
    is_begun = not folder.exists() and (new / RESULTS_FILE).is_file()
    if is_begun:
        new.rename(folder.resolve())
    if folder.exists():
        _discard(folder)
    return is_begun


def _discard(folder: Path) -> None:
    """Removes the run that was replaced; it stays beside the folder if files that no run made were put there."""
    old = _beside(folder, "old")
    if not old.is_dir():
        return
    if foreign := _foreign(old):
        kept = next(path for n in itertools.count(1) if not (path := old.with_name(f"{folder.name}.old{n}")).exists())
        old.rename(kept)
        logger.warning("the replaced run stays in %s, because it also holds %s", kept, foreign[0])
    else:
        shutil.rmtree(old)


def _tidy(folder: Path) -> None:
    for checkpoint in folder.glob("checkpoint-*"):
        shutil.rmtree(checkpoint)
    # A pickle, of no use to those who load the folder.
    (folder / "training_args.bin").unlink(missing_ok=True)


def _beside(folder: Path, kind: str) -> Path:
    """A hidden folder beside the folder itself, even if that is given by a link."""
    folder = folder.resolve()
    return folder.with_name(f".{folder.name}.{kind}")


def _foreign(folder: Path) -> list[str]:
    """What is in a folder and was made by no run."""
    paths = [path for path in (*folder.iterdir(), *folder.glob(f"{FOLDS_FOLDER}/*")) if path.name != FOLDS_FOLDER]
    names = sorted(path.relative_to(folder).as_posix() for path in paths)
    return [name for name in names if not any(fnmatch(name, made) for made in _MADE)]


def _check_files(folder: Path, overwrite: bool) -> None:
    if not folder.exists():
        return
    if not folder.is_dir():
        raise ValueError(f"{folder} is a file: choose another --output_dir.")
    names = sorted(path.name for path in folder.iterdir() if not path.name.endswith(UNFINISHED))
    if names and not (folder / RUN_FILE).is_file():
        raise ValueError(f"{folder} holds files that no run made, such as {names[0]}: choose another --output_dir.")
    if overwrite and (foreign := _foreign(folder)):
        raise ValueError(f"{folder} also holds {', '.join(foreign)}, which no run made: move that away first.")
    if overwrite and os.path.ismount(folder):
        raise ValueError(f"{folder} cannot be replaced, because it is a mount point: choose another --output_dir.")


def _check_same(folder: Path, settings: Mapping[str, Any], data: Identity, is_finished: bool) -> None:
    kind = "a finished run" if is_finished else "an unfinished run"
    if changed := _differences(_saved_settings(folder), settings):
        given = "" if is_finished else "give those to go on, "
        raise ValueError(
            f"{folder} holds {kind} with other settings ({changed}): {given}choose another --output_dir, or train "
            "anew with --overwrite."
        )
    if changed := differences(read_identity(folder), data):
        raise ValueError(
            f"{folder} holds {kind}, and its data have changed since ({changed}): restore them, choose another "
            "--output_dir, or train anew with --overwrite."
        )


def _saved_settings(folder: Path) -> dict[str, Any]:
    try:
        return dict(yaml.safe_load((folder / RUN_FILE).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError, yaml.YAMLError) as error:
        raise ValueError(
            f"{folder} holds an unknown run ({RUN_FILE} cannot be read): choose another --output_dir, or remove the "
            "folder."
        ) from error


def _differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    """The settings that differ, `name: old -> new`; the folder itself may be written in several ways."""
    same = {"output_dir"} | ({_ADDED} if new.get(_ADDED) and not old.get(_ADDED) else set())
    names = [name for name in {**old, **new} if name not in same and old.get(name) != new.get(name)]
    return ", ".join(f"{name}: {_shown(old, name)} -> {_shown(new, name)}" for name in names)


def _shown(settings: Mapping[str, Any], name: str) -> str:
    return str(settings[name]) if name in settings else "the default"
