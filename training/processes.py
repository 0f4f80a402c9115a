"""What several processes of one run share."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import torch.distributed
from accelerate.utils import broadcast_object_list
from transformers import TrainingArguments

_Decision = TypeVar("_Decision")


@contextlib.contextmanager
def closed_process_group() -> Iterator[None]:
    """Closes the process group of a run at its end: a process that ends with its threads may abort."""
    try:
        yield
    finally:
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()


def decided_by_one(decide: Callable[[], _Decision], training: TrainingArguments) -> _Decision:
    """What the main process decides, in all processes; they share its errors too."""
    found: list[Any] = [None]
    if training.process_index == 0:
        try:
            found = [decide()]
        except (ValueError, OSError) as error:
            found = [error]
    (decision,) = broadcast_object_list(found)
    if isinstance(decision, Exception):
        raise decision
    return decision
