"""Reads IEMOCAP in the layout that its owners distribute.

    Session1/dialog/EmoEvaluation/Ses01F_impro01.txt
        [6.2901 - 8.2357]  Ses01F_impro01_F000  neu  [2.5000, 2.5000, 2.5000]     valence, activation, dominance
    Session1/dialog/transcriptions/Ses01F_impro01.txt
        Ses01F_impro01_F000 [006.2901-008.2357]: Excuse me.
    Session1/sentences/wav/Ses01F_impro01/Ses01F_impro01_F000.wav
    Session1/sentences/ForcedAlignment/Ses01F_impro01/Ses01F_impro01_F000.wdseg   optional; first and last frame, word

and so on to Session5. The attributes are means of ratings from 1 to 5.
"""

import logging
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import datasets
import numpy as np
import pyarrow as pa

from ..configuration_msfser import LABELS
from . import tree
from .columns import WORDS
from .duplicates import check_duplicate_contents
from .messages import counted
from .schema import SPLITS
from .shards import SHARDS_NOTE
from .table import POOLED, read_annotated, read_rows

logger = logging.getLogger(__name__)

LABEL_RANGE: tuple[float, float] = (1.0, 5.0)

_SESSIONS = range(1, 6)
_LABELS_FOLDER, _TEXTS_FOLDER, _AUDIO_FOLDER = "dialog/EmoEvaluation", "dialog/transcriptions", "sentences/wav"
_ALIGNMENT_FOLDER = "sentences/ForcedAlignment"
_FRAMES_PER_SECOND = 100
# A blank rating has moved the means of a few utterances by half a step out of the scale, to 0.5 and 5.5.
_SLACK = 0.5

_GENDERS = {"F": "Female", "M": "Male"}
_NAME = re.compile(r"Ses\d\d[FM]_\w+_([FM])\w+\.wav")

_NUMBER = r"(-?\d+(?:\.\d+)?)"
_LABEL_LINE = re.compile(
    rf"\[[^\]]*\]\s+(Ses\d\d[FM]_\w+)_([FM]\w+)\s+\w+\s+\[{_NUMBER},\s*{_NUMBER},\s*{_NUMBER}\]\s*"
)
_TEXT_LINE = re.compile(r"(Ses\w+)\s+\[[^\]]*\]:(.*)")
_WORD_LINE = re.compile(r"\s*(\d+)\s+(\d+)\s+-?\d+\s+(\S+)\s*")
# Not words: sentence ends and silence, and noises such as ++LAUGHTER++.
_NO_WORD = re.compile(r"<.*>|\+\+.*\+\+")
_PRONUNCIATION = re.compile(r"\(\d+\)$")


class _Utterance(NamedTuple):
    session: int
    dialog: str
    turn: str
    labels: tuple[float, ...]

    @property
    def name(self) -> str:
        return f"{self.dialog}_{self.turn}"

    @property
    def speaker(self) -> str:
        # The name of the dialog says who wore the markers, the letter of the turn who speaks.
        return f"{self.dialog[:5]}{self.turn[0]}"

    def file(self, root: Path, kind: str, suffix: str) -> Path:
        return root / f"Session{self.session}" / kind / self.dialog / f"{self.name}{suffix}"


def read_iemocap(folder: str | os.PathLike[str], *, fold: int) -> datasets.DatasetDict:
    """Read IEMOCAP with one session held out.

    In fold k, session k is the test part, the session after it (the first after the fifth) the validation part, and
    the other three are the training part, so that no speaker is in two parts. This rotation is our decision: the paper
    only says that there are five folds.

    Transcripts lose marks in brackets such as `[LAUGHTER]`. Words have times where `ForcedAlignment` has the
    utterance, in the spelling of the transcript if it has as many words. Labels up to half a step outside the scale
    are moved to its end, with a warning.

    Args:
        folder: The corpus, with `Session1` to `Session5`; or what `annotate` made of it.
        fold: The session to test on, 1 to 5.

    Returns:
        train, validation and test with the features `schema.FEATURES`; a speaker is a session and a sex, "Ses01F".

    Raises:
        ValueError: The fold is none of the five; the folder is not whole, and the sentence lists what is missing; or a
            line or row is wrong.
    """
    if fold not in _SESSIONS:
        raise ValueError(f"fold is {fold!r}; IEMOCAP has 1 to {_SESSIONS[-1]}, each with one session to test on.")
    root = tree.existing_folder(folder, "Session1 to Session5")
    if (root / SHARDS_NOTE).is_file():
        return _read_annotated(root, fold)
    missing: list[str] = []
    utterances: list[_Utterance] = []
    transcripts: dict[str, str] = {}
    for session in _SESSIONS:
        home = root / f"Session{session}"
        read = [u for path in sorted((home / _LABELS_FOLDER).glob("Ses*.txt")) for u in _read_labels(path, session)]
        utterances += read
        missing += _missing_of_session(home, {u.dialog for u in read})
        for path in sorted((home / _TEXTS_FOLDER).glob("Ses*.txt")):
            transcripts |= {
                match[1]: match[2] for match in map(_TEXT_LINE.fullmatch, tree.read_text(path).splitlines()) if match
            }
    names = [u.name for u in utterances]
    missing += tree.lacking(
        [name for name in names if name not in transcripts], len(names), "transcripts of utterances"
    )
    audio = [u.file(root, _AUDIO_FOLDER, ".wav") for u in utterances]
    present = {dialog: tree.file_names(dialog) for dialog in {file.parent for file in audio} if dialog.is_dir()}
    gaps = [file.name for file in audio if file.name not in present.get(file.parent, ())]
    missing += tree.lacking(gaps, len(names), "recordings of utterances")
    tree.require_whole("IEMOCAP", root, missing)
    if unlabeled := sorted(set().union(*present.values()) - {file.name for file in audio}):
        logger.warning(
            "%s: %d recordings have no labels and are left out, such as %r", root, len(unlabeled), unlabeled[0]
        )

    spoken = [tree.spoken_text(transcripts[name]) for name in names]
    alignments = [u.file(root, _ALIGNMENT_FOLDER, ".wdseg") for u in utterances]
    words = [_read_words(path, text) for path, text in zip(alignments, spoken, strict=True)]
    if any(found is not None for found in words):
        tree.warn_of_missing_times(root, words)
    labels = _onto_scale(root, np.array([u.labels for u in utterances]))
    table = pa.table(
        {
            "audio": [os.path.abspath(path) for path in audio],
            "transcript": pa.array(spoken, pa.string()),
            "words": pa.array(words, WORDS),
            **{label: labels[:, column] for column, label in enumerate(LABELS)},
            "speaker": [u.speaker for u in utterances],
            "split": [_split(u.session, fold) for u in utterances],
        }
    )
    return read_rows(
        table,
        str(root),
        row_names=names,
        audio_folders=[root / f"Session{session}" / _AUDIO_FOLDER for session in _SESSIONS],
        label_range=LABEL_RANGE,
        allow_speaker_overlap=False,
    )


def session_of(speaker: str) -> str:
    """Return the session of a speaker: "Ses01" of "Ses01F"."""
    return speaker[:5]


def iemocap_categories(folder: str | os.PathLike[str], files: Sequence[str]) -> dict[str, list[str | None]]:
    """Return the gender of the speaker of each recording, which its name says; `None` of other names."""
    turns = [_NAME.fullmatch(file) for file in files]
    return {"gender": [_GENDERS[turn[1]] if turn else None for turn in turns]}


def _split(session: int, fold: int) -> str:
    """Return the split of a session in a fold."""
    return {fold: "test", fold % _SESSIONS[-1] + 1: "validation"}.get(session, "train")


def _read_annotated(folder: Path, fold: int) -> datasets.DatasetDict:
    """Read shards of the whole corpus and divide them by the session in the speaker's name."""
    rows = read_annotated(folder, pooled=True)[POOLED]
    splits = []
    for number, speaker in enumerate(rows["speaker"], start=1):
        match = re.fullmatch(r"Ses0([1-5])[FM]", speaker or "")
        if match is None:
            raise ValueError(f"{folder}: row {number} has no speaker such as 'Ses01F': annotate IEMOCAP itself.")
        splits.append(_split(int(match[1]), fold))
    parts = np.array(splits, dtype=object)
    check_duplicate_contents(str(folder), rows.select_columns(["audio"]), parts, official=True)
    return datasets.DatasetDict({split: rows.select(np.flatnonzero(parts == split)) for split in SPLITS})


def _missing_of_session(root: Path, labeled: set[str]) -> list[str]:
    """Report the folders that a session lacks, and its dialogs outside those that have labels."""
    if not root.is_dir():
        return [f"the folder {root.name}"]
    kinds = (_LABELS_FOLDER, _TEXTS_FOLDER, _AUDIO_FOLDER)
    missing = [f"the folder {root.name}/{kind}" for kind in kinds if not (root / kind).is_dir()]
    dialogs = {path.stem for kind in kinds for path in (root / kind).glob("Ses*")}
    if not dialogs:
        return missing or [f"the dialogs of {root.name}"]
    return missing + tree.lacking(sorted(dialogs - labeled), len(dialogs), f"dialogs with labels in {root.name}")


def _read_labels(path: Path, session: int) -> list[_Utterance]:
    utterances = []
    for number, line in enumerate(tree.read_text(path).splitlines(), start=1):
        if line.startswith("["):
            match = _LABEL_LINE.fullmatch(line)
            if match is None:
                raise ValueError(
                    f"{path}, line {number}: {line!r} is not [start - end], utterance, emotion, [valence, activation, "
                    "dominance]; copy the file again."
                )
            dialog, turn, *labels = match.groups()
            utterances.append(_Utterance(session, dialog, turn, tuple(map(float, labels))))
    return utterances


def _read_words(path: Path, transcript: str) -> list[dict[str, Any]] | None:
    """Return the words of an utterance with their times from its start, or `None` where there is no alignment."""
    lines = tree.read_text(path).splitlines() if path.is_file() else []
    aligned = [match.groups() for match in map(_WORD_LINE.fullmatch, lines) if match]
    if not aligned:
        return None
    # The last frame is part of the word.
    spoken = [
        {
            "word": _PRONUNCIATION.sub("", word),
            "start": int(first) / _FRAMES_PER_SECOND,
            "end": (int(last) + 1) / _FRAMES_PER_SECOND,
        }
        for first, last, word in aligned
        if not _NO_WORD.fullmatch(word)
    ]
    return tree.as_written(spoken, transcript)


def _onto_scale(folder: Path, labels: np.ndarray) -> np.ndarray:
    """Move labels `(utterances, 3)` that are just outside the scale to its end."""
    low, high = LABEL_RANGE
    near = (labels >= low - _SLACK) & (labels <= high + _SLACK)
    moved = near & ((labels < low) | (labels > high))
    if moved.any():
        count = int(moved.any(axis=1).sum())
        logger.warning(
            "%s: moved labels of %s onto the scale %g to %g", folder, counted(count, "utterance"), low, high
        )
    return np.where(moved, labels.clip(low, high), labels)
