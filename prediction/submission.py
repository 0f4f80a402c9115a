"""The file that the leaderboard of MSP-Podcast reads: a row for each recording of an unlabeled part."""

import logging
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from ..configuration_msfser import LABELS
from ..corpora.messages import counted
from ..corpora.msp_podcast import ATTRIBUTES, LABEL_RANGE
from ..processing_msfser import from_scale, to_scale
from ..sharding.output_folder import write_whole
from .paths import suffix_of

logger = logging.getLogger(__name__)

COLUMNS = ("FileName", "EmoAct", "EmoVal", "EmoDom")


def write_submission(
    predictions: Path, label_range: tuple[float, float], recordings: Sequence[str | None], output: Path
) -> None:
    """Writes a table of predictions as a submission, on 1..7.

    Args:
        predictions: What `msfser predict` wrote.
        label_range: The scale of its numbers.
        recordings: The recordings of the part, each of which must have a result.
        output: The submission, which is replaced.

    Raises:
        ValueError: A recording has no result, or the table has other recordings.
        OSError: The file cannot be written.
    """
    table = _read(predictions)
    wanted = [os.path.basename(name or "") for name in recordings]
    names = [os.path.basename(name) for name in table["file"]]
    if sorted(names) != sorted(wanted) or len({*wanted}) < len(wanted):
        others = sorted({*names} ^ {*wanted}) or sorted(name for name in wanted if wanted.count(name) > 1)
        raise ValueError(
            f"{predictions} does not have the recordings of the part once each, such as {others[0]!r}: predict again "
            "with --overwrite."
        )
    values = table[[*LABELS]].to_numpy(np.float64)
    if (lacking := ~np.isfinite(values).all(1)).any():
        first = int(lacking.argmax())
        raise ValueError(
            f"{int(lacking.sum())} of {len(table)} recordings have no result, such as {names[first]!r} "
            f"({table['error'][first]}): correct them, and predict again with --overwrite; finished groups of others "
            "are kept."
        )
    scaled = to_scale(from_scale(values, *label_range), *LABEL_RANGE).clip(*LABEL_RANGE)
    columns = {ATTRIBUTES[label]: scaled[:, d] for d, label in enumerate(LABELS)}
    made = pd.DataFrame({"FileName": names, **columns})[[*COLUMNS]]
    write_whole(output, lambda file: made.round(6).to_csv(file, index=False))
    logger.info(f"{counted(len(made), 'row')} in {output}, on {LABEL_RANGE[0]:g} to {LABEL_RANGE[1]:g}.")


def _read(predictions: Path) -> pd.DataFrame:
    suffix = suffix_of(predictions)
    if suffix == ".parquet":
        return pd.read_parquet(predictions)
    if suffix == ".jsonl":
        return pd.read_json(predictions, lines=True, dtype={"file": str})
    return pd.read_csv(predictions, dtype={"file": str})
