"""Reads EmoBank, sentences with ratings of valence, arousal and dominance, as its authors distribute it.

    corpus/emobank.csv      id, split, V, A, D, text

It is the GitHub repository JULIELab/EmoBank, CC BY-SA 4.0 (Buechel and Hahn, EACL 2017). There is no sound. The
ratings are means from 1 to 5 over readers and writers.
"""

import os
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.compute as pc

from .sources import read_csv
from .table import read_rows
from .tree import require_whole

LABEL_RANGE: tuple[float, float] = (1.0, 5.0)

_FOLDER, _FILE = "corpus", "emobank.csv"
_RATINGS = {"valence": "V", "arousal": "A", "dominance": "D"}
_COLUMNS = ("id", "split", *_RATINGS.values(), "text")
_PARTS = ("train", "dev", "test")


def emobank_folder(folder: str | os.PathLike[str]) -> Path:
    """The folder with the tables: the one given, or `corpus` in it.

    Raises:
        ValueError: There is no such folder.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ValueError(f"{folder}: there is no such folder; name the one that holds {_FOLDER}/{_FILE}.")
    return folder / _FOLDER if (folder / _FOLDER).is_dir() else folder


def read_emobank(folder: str | os.PathLike[str]) -> datasets.DatasetDict:
    """Read EmoBank.

    The parts are the authors'. They are disjoint neither by document nor by sentence: some short sentences stand in
    two of them. Sentences are taken as transcripts; there is neither audio nor speaker.

    Args:
        folder: The repository, or its folder `corpus`.

    Returns:
        train, validation and test with the features `schema.FEATURES`.

    Raises:
        ValueError: The folder is not whole, and the sentence lists what is missing; or a row is wrong.
    """
    tables = emobank_folder(folder)
    file = tables / _FILE
    missing = []
    if file.is_file():
        rows = read_csv(file)
        if absent := [name for name in _COLUMNS if name not in rows.column_names]:
            missing.append(f"the columns {', '.join(absent)} of {_FILE}")
        else:
            present = set(pc.unique(rows["split"]).to_pylist())
            missing += [f"the rows of {part} in {_FILE}" for part in _PARTS if part not in present]
    else:
        missing.append(f"the file {_FILE}")
    require_whole("EmoBank", tables, missing)
    table = pa.table(
        {
            "transcript": rows["text"],
            **{label: rows[rating] for label, rating in _RATINGS.items()},
            "split": rows["split"],
        }
    )
    return read_rows(
        table,
        str(file),
        row_names=rows["id"].to_pylist(),
        audio_folders=[],
        label_range=LABEL_RANGE,
        allow_speaker_overlap=True,
    )
