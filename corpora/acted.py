"""Reads RAVDESS and EmoDB, two corpora of acted emotions whose file names say everything, with weak labels.

    Actor_01/03-01-05-02-01-01-01.wav      RAVDESS: speech, emotion, intensity, sentence, repetition, actor
    wav/03a01Wa.wav                        EmoDB: speaker, sentence, emotion, version

Recordings are found by their names, at any depth, as WAV or converted to another type. Neither corpus has its
transcripts in files: `annotate` makes the texts.
"""

import logging
import os
import re
from pathlib import Path
from typing import Any

import datasets

from ..configuration_msfser import LABELS
from ..processing_msfser import from_scale
from .audio_folder import scan_folder
from .schema import file_audio, make_dataset
from .weak_labels import LABEL_RANGE, weak_labels

logger = logging.getLogger(__name__)

# Beside the schema: which corpus, the emotion, "normal" or "strong" (null in EmoDB), and the sentence, in RAVDESS with
# the repetition.
COLUMNS = ("corpus", "emotion", "intensity", "sentence")

_RAVDESS = re.compile(r"03-01-0([1-8])-0([12])-(0[12]-0[12])-(\d\d)")
_RAVDESS_EMOTIONS = ("neutral", "calm", "happiness", "sadness", "anger", "fear", "disgust", "surprise")
_EMODB = re.compile(r"(\d\d)([ab]\d\d)([WLEAFTN])[a-z]")
_EMODB_EMOTIONS = dict(
    zip("WLEAFTN", ("anger", "boredom", "disgust", "fear", "happiness", "sadness", "neutral"), strict=True)
)


def read_acted(folder: str | os.PathLike[str]) -> datasets.Dataset:
    """Read the clips of RAVDESS (speech, audio only) and EmoDB in a folder.

    Args:
        folder: It holds one of the corpora or both, at any depth.

    Returns:
        A row for each clip, RAVDESS first, in the order of the names, with the features `schema.FEATURES` and strings
        for `COLUMNS`. Labels are those of [`weak_labels`], in 0..1; a speaker is a corpus and a number, "emodb-03".

    Raises:
        ValueError: There is no such folder, no clip of the two in it, or one clip twice.
    """
    rows: dict[tuple[bool, str], dict[str, Any]] = {}
    others: list[str] = []
    for file in scan_folder(folder, "RAVDESS or EmoDB").recordings:
        path = Path(file)
        row = _row(path.stem)
        if row is None:
            others.append(path.name)
            continue
        key = row["corpus"] != "ravdess", path.stem
        if key in rows:
            raise ValueError(f"{folder}: {path.name} is there twice ({rows[key]['audio']['path']} and {path}).")
        rows[key] = row | {"audio": file_audio(file)}
    if not rows:
        raise ValueError(
            f"{folder}: there is no clip of RAVDESS (such as 03-01-05-02-01-01-01.wav) or EmoDB (03a01Wa.wav) in it."
        )
    if others:
        logger.warning(
            "%s: left out %d recordings that are no clips of RAVDESS speech or EmoDB, such as %r",
            *(os.fspath(folder), len(others), others[0]),
        )
    return make_dataset([rows[key] for key in sorted(rows)], dict.fromkeys(COLUMNS, datasets.Value("string")))


def _row(name: str) -> dict[str, Any] | None:
    """Return what the name of a clip says; `None` for other names."""
    intensity = None
    if match := _RAVDESS.fullmatch(name):
        corpus, (number, level, sentence, speaker) = "ravdess", match.groups()
        emotion, intensity = _RAVDESS_EMOTIONS[int(number) - 1], ("normal", "strong")[int(level) - 1]
    elif match := _EMODB.fullmatch(name):
        corpus, (speaker, sentence, letter) = "emodb", match.groups()
        emotion = _EMODB_EMOTIONS[letter]
    else:
        return None
    labels = (from_scale(value, *LABEL_RANGE) for value in weak_labels(emotion, intensity))
    return {
        **dict(zip(LABELS, labels, strict=True)),
        "speaker": f"{corpus}-{speaker}",
        **dict(zip(COLUMNS, (corpus, emotion, intensity, sentence), strict=True)),
    }
