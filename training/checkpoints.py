"""The checkpoints of an unfinished run: which one it can go on from."""

import contextlib
import errno
import json
import logging
import zipfile
from collections.abc import Iterator
from pathlib import Path

from safetensors import SafetensorError, safe_open
from transformers import TrainingArguments

logger = logging.getLogger(__name__)

# What libraries say of a full disk where they do not pass its error on.
_FULL_DISK = ("No space left", "File too large", "quota", "PytorchStreamWriter", "inline_container")


def find_checkpoint(folder: Path, training: TrainingArguments) -> str | None:
    """The last whole checkpoint in the folder of an interrupted run.

    Args:
        folder: The run's.
        training: Its arguments.
    """
    found = folder.glob("checkpoint-*")
    checkpoints = sorted(found, key=lambda path: int(path.name.split("-")[1]), reverse=True)
    for checkpoint in checkpoints:
        damage = _damage(checkpoint, training)
        if damage is None:
            logger.info("going on from %s", checkpoint)
            return str(checkpoint)
        if training.should_log:
            logger.warning("%s is skipped: %s", checkpoint, damage)
    if checkpoints and training.should_log:
        logger.warning("%s holds no whole checkpoint: training starts again", folder)
    return None


def _damage(checkpoint: Path, training: TrainingArguments) -> str | None:
    """Why a run cannot go on from a checkpoint; `None` if it can.

    A file of torch is read against its checksums; safetensors have none, of them the length is compared.
    """
    try:
        state = json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))
        best = state["best_model_checkpoint"]
    except (OSError, ValueError, KeyError, TypeError):
        return "it was not written to its end"
    kinds = {kind: sorted(checkpoint.glob(kind)) for kind in ("optimizer*", "scheduler.pt", "rng_state*.pth")}
    # With save_only_model there is none of them.
    if any(kinds.values()) and (absent := [kind for kind, files in kinds.items() if not files]):
        return f"{absent[0]} is not there"
    ranks = [checkpoint / f"rng_state_{rank}.pth" for rank in range(training.world_size)]
    if ranks[0].is_file() and (absent := [file.name for file in ranks if not file.is_file()]):
        return f"{absent[0]} is not there"
    for file in (*checkpoint.glob("*.pt"), *checkpoint.glob("*.pth")):
        try:
            with zipfile.ZipFile(file) as archive:
                if archive.testzip() is not None:
                    return f"{file.name} is damaged"
        except (OSError, zipfile.BadZipFile):
            return f"{file.name} is damaged"
    if (damage := _damage_of_weights(checkpoint)) or not (best and training.load_best_model_at_end):
        return damage
    damage = _damage_of_weights(checkpoint.parent / Path(best).name)
    return damage and f"of the best so far, {Path(best).name}, {damage}"


def _damage_of_weights(checkpoint: Path) -> str | None:
    """What is wrong with the weights; `None` if nothing is."""
    files = sorted(checkpoint.glob("*.safetensors"))
    if not files and not any(checkpoint.glob("pytorch_model*")):
        return "the weights are not there"
    for file in files:
        try:
            with safe_open(file, "pt"):
                pass
        except (OSError, SafetensorError):
            return f"{file.name} is damaged"
    return None


@contextlib.contextmanager
def disk_errors(folder: Path) -> Iterator[None]:
    """Turns the errors of a full disk into one sentence; what was written before stays.

    Raises:
        SystemExit: The folder cannot be written.
    """
    try:
        yield
    except (OSError, SafetensorError, RuntimeError) as error:
        is_full = getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        if not is_full and not any(words in str(error) for words in _FULL_DISK):
            raise
        raise SystemExit(
            f"msfser train: error: {folder} cannot be written ({str(error).splitlines()[0]}): make room, then give "
            "the same command again; it resumes from the last whole checkpoint."
        ) from error
