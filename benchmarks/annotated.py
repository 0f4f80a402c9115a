"""The texts that `msfser annotate` makes for the clips of a benchmark."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from filelock import FileLock

from ..annotation.annotate import main as annotate
from ..cli.outputs import whole_file
from ..configuration_msfser import TENSOR_NAMES
from ..corpora.shards import SHARDS


def annotated_texts(
    paths: Sequence[str | Path],
    folder: Path,
    output: Path,
    languages: Sequence[str],
) -> dict[str, list[str | None]]:
    """Annotates recordings; what is made is kept, and a second process waits for it.

    Args:
        paths: The recordings, under the folder.
        folder: Where their paths in the table start.
        output: Gets the table and the shards.
        languages: The language of each.

    Returns:
        By `transcript`, `emphasis` and `description` the text of each recording, `None` where there is none.

    Raises:
        ValueError: The output folder holds the texts of other recordings.
    """
    names = [Path(path).resolve().relative_to(folder.resolve()).as_posix() for path in paths]
    table = pd.DataFrame({"audio": names, "language": languages})
    shards = output / "annotated"
    with FileLock(output / "annotated.lock"):
        with whole_file(output / "clips.csv") as unfinished:
            table.to_csv(unfinished, index=False)
        annotate([str(output / "clips.csv"), "--audio_folder", str(folder), "--output", str(shards)])
    made = pd.concat([pd.read_parquet(shard) for shard in sorted(shards.glob(SHARDS))], ignore_index=True)
    if made["audio"].tolist() != names:
        raise ValueError(f"{shards} holds the texts of other clips: remove it.")
    return {name: [text if isinstance(text, str) else None for text in made[name]] for name in TENSOR_NAMES}
