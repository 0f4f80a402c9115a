"""A sharded command in one process or in several that `accelerate launch` started."""

import contextlib
import datetime
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from accelerate import PartialState

from ..hub.loading import default_device
from .sharded_table import ShardedTable

# The processes that are done wait for the last shard, which may take long.
_PATIENCE = datetime.timedelta(days=30)

Work = TypeVar("Work", bound=ShardedTable)


@contextlib.contextmanager
def joined_processes() -> Iterator[PartialState]:
    """Joins the processes of this command, on an accelerator if there is one."""
    # Without being told, each of several processes without a GPU would believe that it is the only one.
    state = PartialState(cpu=default_device().type == "cpu", timeout=_PATIENCE)
    try:
        yield state
    finally:
        state.destroy_process_group()


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Logs errors only: what each process would say of the whole, the main process says once."""
    before = logging.root.manager.disable
    logging.disable(max(before, logging.WARNING))
    try:
        yield
    finally:
        logging.disable(before)


def run_shards(
    state: PartialState,
    open_work: Callable[[], Work],
    data: Path,
    finish: Callable[[Work], object],
    overwrite: bool = False,
) -> None:
    """Makes all shards of a table, whatever an earlier run left.

    Args:
        state: Of the processes, which share the shards.
        open_work: Opens the table; the main process does so first, so that it alone fetches what is missing.
        data: Where the rows were read from.
        finish: What the main process does when all shards are there; other runs are kept out until then.
        overwrite: Whether the shards of another source or of other settings may be replaced.

    Raises:
        ValueError: See [`ShardedTable.prepared`] and [`ShardedTable.check_made`].
        OSError: A file cannot be read or written.
    """
    with contextlib.ExitStack() as stack:
        with state.main_process_first(), contextlib.nullcontext() if state.is_main_process else _silence():
            work = open_work()
        with state.main_process_first():
            if state.is_main_process:
                stack.enter_context(work.prepared(data, overwrite))
        work.run(quiet=not state.is_local_main_process)
        state.wait_for_everyone()
        if state.is_main_process:
            work.check_made()
            finish(work)
