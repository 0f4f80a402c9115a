"""The norms with which measured descriptions compare a voice.

    msfser norms my_corpus/metadata.csv --name NAME --output norms.json

They are the 10, 30, 70 and 90 % quantiles of each measure; `msfser annotate --norms norms.json` describes with them.
"""

import json
import logging
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from ..audio_msfser import load_audio
from ..cli.arguments import CommandParser
from ..cli.errors import cli_errors
from ..cli.outputs import refuse_existing, write_text
from ..corpora.audio_folder import left_out_message
from ..corpora.messages import reason
from ..corpora.registry import read_source
from ..description_msfser import QUANTILES, WORDS, measure_voice
from ..emphasis_msfser import measure_prosody
from ..sharding.sharded_table import recording_of

logger = logging.getLogger(__name__)

# Of a quantile; no measure comes near it.
_GREATEST = 1e9


def main(argv: Sequence[str]) -> None:
    """Runs `msfser norms`."""
    parser = CommandParser(
        prog="msfser norms", description="Measures the norms with which measured descriptions compare a voice."
    )
    parser.add_argument("data", metavar="DATA", help="a table, or a folder of recordings")
    parser.add_argument("--name", required=True, metavar="NAME", help="of the corpus; recorded with each description")
    parser.add_argument("--split", metavar="NAME", help="measure only this part of the table")
    parser.add_argument("--output", type=Path, required=True, metavar="FILE", help="the JSON file to write")
    parser.add_argument("--overwrite", action="store_true", help="replace the file if it exists")
    arguments = parser.parse_args(argv)
    with cli_errors("norms"):
        if re.search(r"^[/~.]|\\|://", arguments.name):  # it goes into published models
            raise ValueError(f"--name is {arguments.name!r}: give the name of the corpus, not its path.")
        refuse_existing(arguments.output, arguments.overwrite)
        norms = make_norms(arguments.data, arguments.name, arguments.split)
        write_text(arguments.output, json.dumps(norms, indent=1) + "\n")
    print(json.dumps(norms))


def read_norms(path: Path) -> dict[str, Any]:
    """Reads the norms that `msfser norms` wrote, and nothing else that may be in the file.

    Raises:
        ValueError: There is no such file, or it has no norms; the sentence says which.
    """
    if not path.is_file():
        found = "this is a folder, not a file" if path.is_dir() else "there is no such file"
        raise ValueError(f"{path}: {found}; give the one that msfser norms wrote.")
    try:
        norms = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: the norms are not readable JSON ({reason(error)}); measure them again.") from error
    if (
        not isinstance(norms, dict)
        or not isinstance(norms.get("corpus"), str)
        or not _is_numbers(norms.get("quantiles"))
    ):
        raise ValueError(f"{path}: these are no norms; give the file that msfser norms wrote.")
    return {name: norms[name] for name in ("corpus", "utterances", "quantiles") if name in norms}


def _is_numbers(quantiles: object) -> bool:
    """Whether quantiles are numbers by the name of their measure."""
    if not isinstance(quantiles, dict) or not all(isinstance(values, list) for values in quantiles.values()):
        return False
    numbers = [number for values in quantiles.values() for number in values]
    return all(type(number) in (int, float) and abs(number) < _GREATEST for number in numbers)


def make_norms(data: str, corpus: str, split: str | None = None) -> dict[str, Any]:
    """Measures the norms for [`MeasuredDescriber`] on the recordings of a table or a folder.

    Args:
        data: The table or the folder.
        corpus: Its name, recorded with each description.
        split: The part of the table; by default all of it.

    Raises:
        ValueError: There is no voice to measure, a recording cannot be read, or the table has no such part.
    """
    found = []
    for recording in tqdm(_recordings(data, split), desc="norms"):
        sound = load_audio(recording)
        if (measures := measure_voice(sound, measure_prosody(sound))) is not None:
            found.append([measures[name] for name in WORDS])
    if not found:
        raise ValueError(f"no recording of {data!r} is voiced: give recordings of speech.")
    return norms_of(np.array(found), corpus)


def norms_of(measures: np.ndarray, corpus: str) -> dict[str, Any]:
    """The norms of a corpus whose voices have these measures, `(utterances, 7)` in the order of `WORDS`."""
    quantiles = {}
    for name, values in zip(WORDS, measures.T, strict=True):
        # Many utterances have no pause: the norms of pauses are those of the others.
        counted = values[values > 0] if name == "pauses" and values.any() else values
        quantiles[name] = np.quantile(counted, QUANTILES).round(3).tolist()
    return {"corpus": corpus, "utterances": len(measures), "quantiles": quantiles}


def _recordings(data: str, split: str | None) -> list[str | bytes]:
    source = read_source("table", data)
    if source.left_out:
        logger.warning("%s: %s", data, left_out_message(source.left_out))
    has_parts = "split" in source.table.column_names
    parts = source.table["split"].to_pylist() if has_parts else [None] * len(source.table)
    rows = [row for row, part in enumerate(parts) if split in (None, part)]
    if not rows:
        names = ", ".join(sorted(set(filter(None, parts)))) or "none"
        raise ValueError(f"{data}: there is no part {split!r}; its parts: {names}.")
    recordings = [recording_of(source, row) for row in rows]
    if missing := [row for row, recording in zip(rows, recordings, strict=True) if not recording]:
        name = source.table["audio"][missing[0]].as_py()
        raise ValueError(f"{data}: {len(missing)} recordings are missing, such as {name!r}.")
    return recordings
