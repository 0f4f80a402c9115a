"""Reads RAVDESS and EmoDB, two corpora of acted emotions whose file names tell everything, with weak labels.

    Actor_01/03-01-05-02-01-01-01.wav      RAVDESS: speech, emotion, intensity, sentence, repetition, actor
    wav/03a01Wa.wav                        EmoDB: speaker, sentence, emotion, version

Recordings are found by their names, in the folder and in the folders in it, as WAV or converted to another type.
Neither corpus has its transcripts in files: `annotate` makes the texts.
"""

import os
import re
from pathlib import Path

import datasets
import pyarrow as pa

from ..configuration_msfser import LABELS
from ..processing_msfser import from_scale
from .audio_folder import SUFFIXES
from .schema import FEATURES
from .weak_labels import LABEL_RANGE, weak_labels

# Beside the schema: which corpus, the emotion, "normal" or "strong" (null in EmoDB), and what is said in which take.
COLUMNS = ("corpus", "emotion", "intensity", "sentence")

_RAVDESS = re.compile(r"03-01-(0[1-8])-(0[12])-(0[12])-(0[12])-(\d\d)")
_RAVDESS_EMOTIONS = {
    "01": "neutral",
    "02": "calm",
    "03": "happiness",
    "04": "sadness",
    "05": "anger",
    "06": "fear",
    "07": "disgust",
    "08": "surprise",
}
_EMODB = re.compile(r"(\d\d)([ab]\d\d)([WLEAFTN])([a-z])")
_EMODB_EMOTIONS = {
    "W": "anger",
    "L": "boredom",
    "E": "disgust",
    "A": "fear",
    "F": "happiness",
    "T": "sadness",
    "N": "neutral",
}


def read_acted(folder: str | os.PathLike[str]) -> datasets.Dataset:
    """Reads the clips of RAVDESS (speech, audio only) and EmoDB under a folder.

    Args:
        folder: It holds one of the corpora or both, at any depth.

    Returns:
        A row for each clip, RAVDESS first, in the order of the names, with the features `schema.FEATURES` and strings
        for `COLUMNS`. Labels are the weak ones of [`weak_labels`]; a speaker is a corpus and a number, "emodb-03".

    Raises:
        ValueError: There is no such folder, no clip of the two in it, or one clip twice.
    """
    root = Path(folder)
    if not root.is_dir():
        raise ValueError(f"{root}: there is no such folder; name the one that holds RAVDESS or EmoDB.")
    rows: dict[tuple[str, str], dict] = {}
    for path in sorted(root.rglob("*")):
        if path.suffix.lower() not in SUFFIXES:
            continue
        row = _ravdess(path.stem) or _emodb(path.stem)
        if row is None:
            continue
        place = row["corpus"], path.stem
        if place in rows:
            raise ValueError(f"{root}: {path.name} is there twice ({rows[place]['audio']['path']} and {path}).")
        rows[place] = row | {"audio": {"bytes": None, "path": os.path.abspath(path)}}
    if not rows:
        raise ValueError(
            f"{root}: there is no clip of RAVDESS (such as 03-01-05-02-01-01-01.wav) or EmoDB (03a01Wa.wav) in it."
        )
    features = datasets.Features({**FEATURES, **{name: datasets.Value("string") for name in COLUMNS}})
    table = pa.Table.from_pylist(
        [rows[place] for place in sorted(rows, key=lambda place: (place[0] != "ravdess", place[1]))],
        schema=features.arrow_schema.remove_metadata(),
    )
    return datasets.Dataset(table, info=datasets.DatasetInfo(features=features))


def _ravdess(name: str) -> dict | None:
    match = _RAVDESS.fullmatch(name)
    if match is None:
        return None
    emotion, intensity, sentence, repetition, actor = match.groups()
    return _row(
        "ravdess",
        actor,
        _RAVDESS_EMOTIONS[emotion],
        "strong" if intensity == "02" else "normal",
        f"{sentence}-{repetition}",
    )


def _emodb(name: str) -> dict | None:
    match = _EMODB.fullmatch(name)
    if match is None:
        return None
    speaker, sentence, emotion, _ = match.groups()
    return _row("emodb", speaker, _EMODB_EMOTIONS[emotion], None, sentence)


def _row(corpus: str, speaker: str, emotion: str, intensity: str | None, sentence: str) -> dict:
    labels = (from_scale(value, *LABEL_RANGE) for value in weak_labels(emotion, intensity))
    return {
        **dict(zip(LABELS, labels, strict=True)),
        "speaker": f"{corpus}-{speaker}",
        "corpus": corpus,
        "emotion": emotion,
        "intensity": intensity,
        "sentence": sentence,
    }
