"""What a process runs that a test may kill, in a module that the processes of a fork server can import."""

import os
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

from msfser.annotation import annotate
from msfser.sharding import sharded_table


def annotate_with_log(environment: Mapping[str, str], argv: Sequence[str], log: Path) -> None:
    """Annotates with one clip in a shard, and appends the number of each shard that is begun to a file."""
    os.environ.update(environment)
    # The bar's lock is shared between processes, and one that is killed would leave it locked.
    sharded_table.tqdm.set_lock(threading.RLock())
    sharded_table.ShardedTable.rows_per_shard = 1
    make_shard = sharded_table.ShardedTable.make_shard

    def logged(self, number: int) -> None:
        with log.open("a") as file:
            file.write(f"{number}\n")
        make_shard(self, number)

    sharded_table.ShardedTable.make_shard = logged
    annotate.main(argv)
