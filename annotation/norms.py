"""The norms that measured descriptions are held against.

    python -m msfser.annotation.norms my/metadata.csv --corpus NAME --output norms.json

measures every utterance of a table or a folder of recordings and writes the 10, 30, 70 and 90 % quantiles of each
measure. `annotate --norms norms.json` describes with them. With `--split` only that part of a table is measured.
"""

import argparse
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from ..audio_msfser import load_audio
from ..corpora.audio_folder import read_audio_folder
from ..corpora.schema import audio_source
from ..corpora.sources import holds_table
from ..corpora.table import open_table
from ..description_msfser import QUANTILES, WORDS, measure_voice
from ..emphasis_msfser import measure_prosody


def main() -> None:
    """Measures and writes."""
    parser = argparse.ArgumentParser(description="Makes the norms that measured descriptions are held against.")
    parser.add_argument("data", help="a table, or a folder of recordings")
    parser.add_argument("--corpus", required=True, help="the corpus's name, recorded with each description")
    parser.add_argument("--split", help="measure this part of the table alone")
    parser.add_argument("--output", type=Path, required=True, help="the JSON file to write")
    arguments = parser.parse_args()
    try:
        norms = make_norms(arguments.data, arguments.corpus, arguments.split)
        arguments.output.write_text(json.dumps(norms, indent=1) + "\n", encoding="utf-8")
    except (ValueError, OSError, ImportError) as error:
        raise SystemExit(f"norms: {error}") from error
    print(json.dumps(norms))


def make_norms(data: str, corpus: str, split: str | None = None) -> dict[str, Any]:
    """Measures the recordings of a table or a folder.

    Args:
        data: The table or the folder.
        corpus: Its name, recorded with each description.
        split: The part of the table; all of it by default.

    Returns:
        What [`MeasuredDescriber`] takes.

    Raises:
        ValueError: There is nothing to measure, a recording cannot be read, or the table has no such part.
    """
    found = []
    for recording in tqdm(_recordings(data, split), desc="norms"):
        sound = load_audio(recording)
        measures = measure_voice(sound, measure_prosody(sound))
        if measures is not None:
            found.append([measures[name] for name in WORDS])
    if not found:
        raise ValueError(f"no recording of {data!r} is voiced: norms need speech.")
    quantiles = {}
    for name, values in zip(WORDS, np.array(found).T, strict=True):
        # Many utterances have no pause at all: the norms of pauses are those of the others.
        counted = values[values > 0] if name == "pauses" and values.any() else values
        quantiles[name] = np.quantile(counted, QUANTILES).round(3).tolist()
    return {"corpus": corpus, "utterances": len(found), "quantiles": quantiles}


def _recordings(data: str, split: str | None) -> list[str | bytes]:
    if os.path.isdir(data) and not holds_table(data):
        return [audio_source(audio) for audio in read_audio_folder(data)["audio"]]
    source = open_table(data)
    named = "split" in source.table.column_names
    parts = source.table["split"].to_pylist() if named else [None] * len(source.table)
    rows = [row for row, part in enumerate(parts) if split in (None, part)]
    if not rows:
        there = ", ".join(sorted(set(filter(None, parts)))) or "none"
        raise ValueError(f"{data}: there is no part {split!r}; its parts: {there}.")
    if source.files is None:
        return [audio_source(source.embedded[row]["audio"]) for row in rows]
    if absent := [source.table["audio"][row].as_py() for row in rows if not source.files[row]]:
        raise ValueError(f"{data}: {len(absent)} recordings are not there, such as {absent[0]!r}.")
    return [source.files[row] for row in rows]


if __name__ == "__main__":
    main()
