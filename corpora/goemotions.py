"""Reads GoEmotions, comments with emotion categories, as text with weak labels.

    goemotions.csv                                   text, labels (joined by "|"), split
    train.tsv, dev.tsv, test.tsv and emotions.txt    as its authors distribute it: text, numbers of labels, id

D. Demszky et al., "GoEmotions: A Dataset of Fine-Grained Emotions", ACL 2020; CC BY 4.0 as stated by its authors'
repository. There is no audio. Each of the 28 categories belongs to one of six basic emotions, as grouped by the
authors, or is neutral; its weak label is the norm of that emotion (`weak_labels.py`). A comment with several
categories gets their mean.
"""

import os
import re
from collections.abc import Mapping
from pathlib import Path

import datasets
import numpy as np
import pandas as pd

from ..configuration_msfser import LABELS
from ..processing_msfser import from_scale
from . import tree
from .audio_folder import why_not_entered
from .schema import make_dataset
from .weak_labels import LABEL_RANGE, weak_labels

# The authors' groups; their joy is the norms' happiness.
GROUPS: dict[str, tuple[str, ...]] = {
    "anger": ("anger", "annoyance", "disapproval"),
    "disgust": ("disgust",),
    "fear": ("fear", "nervousness"),
    "happiness": (
        *("admiration", "amusement", "approval", "caring", "desire", "excitement", "gratitude", "joy", "love"),
        *("optimism", "pride", "relief"),
    ),
    "sadness": ("disappointment", "embarrassment", "grief", "remorse", "sadness"),
    "surprise": ("confusion", "curiosity", "realization", "surprise"),
    "neutral": ("neutral",),
}
EMOTIONS: dict[str, str] = {category: emotion for emotion, group in GROUPS.items() for category in group}

_PARTS = {"train": "train", "dev": "validation", "test": "test"}
_TABLE, _NAMES = "goemotions.csv", "emotions.txt"
_NUMBERS = re.compile(r"\d+(,\d+)*")
# Names and religions are masked so, and links to users and forums are no words that anyone says.
_MASKS = re.compile(r"\[(?:NAME|RELIGION)\](?:'s)?|/?\b[ru]/\w+|https?://\S+|/s\b")


def read_goemotions(folder: str | os.PathLike[str]) -> datasets.DatasetDict:
    """Read GoEmotions.

    Comments are read as transcripts, without the masks of names; those of which nothing is left, and repetitions, are
    left out.

    Args:
        folder: It holds `goemotions.csv`, or the authors' three parts and `emotions.txt`.

    Returns:
        train, validation and test with the features `schema.FEATURES`; labels in 0..1.

    Raises:
        ValueError: The folder is not whole, and the sentence lists what is missing; or a category is unknown.
    """
    root = tree.existing_folder(folder, f"{_TABLE}, or train.tsv and {_NAMES}")
    table = _joined(root) if (root / _TABLE).is_file() else _distributed(root)
    norms = {
        category: np.array([from_scale(value, *LABEL_RANGE) for value in weak_labels(emotion)])
        for category, emotion in EMOTIONS.items()
    }
    categories = table["labels"].str.split("|")
    if unknown := {*categories.explode()} - EMOTIONS.keys():
        raise ValueError(f"{root}: {sorted(unknown)[0]!r} is no category of GoEmotions; copy it again.")
    labels = np.stack([np.mean([norms[category] for category in of_row], 0) for of_row in categories])
    table = table.assign(transcript=table["text"].map(lambda text: tree.spoken_text(text, _MASKS)))
    table = table.assign(**dict(zip(LABELS, labels.T, strict=True)))
    table = table[table["transcript"] != ""].drop_duplicates("transcript")
    columns = ["transcript", *LABELS]
    return datasets.DatasetDict(
        {
            part: make_dataset(table.loc[table["split"] == name, columns].to_dict("records"))
            for name, part in _PARTS.items()
        }
    )


def _joined(root: Path) -> pd.DataFrame:
    """The rows `text`, `labels` and `split` of the one table."""
    table = pd.read_csv(root / _TABLE, keep_default_na=False, dtype=str)
    if absent := [name for name in ("text", "labels", "split") if name not in table]:
        tree.require_whole("GoEmotions", root, [f"the columns {', '.join(absent)} of {_TABLE}"])
    tree.require_whole(
        "GoEmotions", root, [f"the rows of {part} in {_TABLE}" for part in _PARTS if part not in {*table["split"]}]
    )
    return table


def _distributed(root: Path) -> pd.DataFrame:
    """The same rows of the authors' files."""
    files = [*(f"{part}.tsv" for part in _PARTS), _NAMES]
    tree.require_whole("GoEmotions", root, [f"the file {name}" for name in files if not (root / name).is_file()])
    names = dict(enumerate((root / _NAMES).read_text(encoding="utf-8").split()))
    rows = {part: _rows(root / f"{part}.tsv", names) for part in _PARTS}
    tree.require_whole("GoEmotions", root, [f"the rows of {part}.tsv" for part in _PARTS if not rows[part]])
    return pd.concat([pd.DataFrame(rows[part]).assign(split=part) for part in _PARTS], ignore_index=True)


def _rows(path: Path, names: Mapping[int, str]) -> list[dict[str, str]]:
    """The rows `text` and `labels` of one of the authors' parts."""
    rows = []
    # `splitlines` would cut comments at other characters, too.
    for number, line in enumerate(path.read_bytes().decode("utf-8").split("\n"), start=1):
        if not line.strip():
            continue
        text, *others = line.removesuffix("\r").rsplit("\t", 2)
        if len(others) < 2 or not _NUMBERS.fullmatch(others[0]):
            raise ValueError(
                f"{path}, line {number}: this is no comment with numbers of labels and an id, separated by tabs; copy "
                "the file again."
            )
        labels = [names.get(int(label), label) for label in others[0].split(",")]
        rows.append({"text": text, "labels": "|".join(labels)})
    return rows


def find_goemotions(folder: Path) -> Path | None:
    """The folder with the files that [`read_goemotions`] reads: the one given, or one in it at any depth.

    Folders are searched as [`scan_folder`] does it. Of several, it is the one that is least deep.

    Returns:
        The folder; `None` without them.
    """
    found = []
    for parent, folders, names in os.walk(folder):
        if _TABLE in names or {"train.tsv", _NAMES} <= {*names}:
            found.append(Path(parent))
        folders[:] = [name for name in folders if not why_not_entered(os.path.join(parent, name))]
    return min(found, key=lambda place: (len(place.parts), place), default=None)
