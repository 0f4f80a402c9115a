"""Reads EmoBank, sentences with ratings of valence, arousal and dominance, as its authors distribute it.

    corpus/emobank.csv      id, split, V, A, D, text

It is the GitHub repository JULIELab/EmoBank, CC BY-SA 4.0 (Buechel and Hahn, EACL 2017). There is no audio. The
ratings are means from 1 to 5 over readers and writers.
"""

import os
from pathlib import Path

import datasets
import pyarrow as pa

from . import tree
from .table import read_rows

LABEL_RANGE: tuple[float, float] = (1.0, 5.0)

_FOLDER, _FILE = "corpus", "emobank.csv"
_RATINGS = {"valence": "V", "arousal": "A", "dominance": "D"}


def emobank_folder(folder: str | os.PathLike[str]) -> Path:
    """Return the folder with the tables: the one given, or `corpus` in it.

    Raises:
        ValueError: There is no such folder.
    """
    root = tree.existing_folder(folder, f"{_FOLDER}/{_FILE}")
    return root / _FOLDER if (root / _FOLDER).is_dir() else root


def read_emobank(folder: str | os.PathLike[str]) -> datasets.DatasetDict:
    """Read EmoBank.

    The parts are the authors'. They are disjoint neither by document nor by sentence: some short sentences occur in
    two of them. Sentences are read as transcripts; there is neither audio nor speaker.

    Args:
        folder: The repository, or its folder `corpus`.

    Returns:
        train, validation and test with the features `schema.FEATURES`.

    Raises:
        ValueError: The folder is not whole, and the sentence lists what is missing; or a row is wrong.
    """
    root = emobank_folder(folder)
    columns = ("id", "split", *_RATINGS.values(), "text")
    rows, missing = tree.read_labels(root, _FILE, columns, "split", ("train", "dev", "test"))
    tree.require_whole("EmoBank", root, missing)
    assert rows is not None  # or else something is missing
    labels = {label: rows[rating] for label, rating in _RATINGS.items()}
    return read_rows(
        pa.table({"transcript": rows["text"], **labels, "split": rows["split"]}),
        str(root / _FILE),
        row_names=rows["id"].to_pylist(),
        audio_folders=[],
        label_range=LABEL_RANGE,
        allow_speaker_overlap=True,
    )
