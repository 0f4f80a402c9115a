"""What several processes of one run share."""

from collections.abc import Callable
from typing import Any, TypeVar

from accelerate.utils import broadcast_object_list
from transformers import TrainingArguments

_Decision = TypeVar("_Decision")


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
