"""Reads MSP-Podcast in the layout that its owners distribute.

    Labels/labels_consensus.csv              FileName, EmoAct, EmoVal, EmoDom, SpkrID, Split_Set and more
    Audios/MSP-PODCAST_0001_0008.wav
    Transcripts/MSP-PODCAST_0001_0008.txt
    ForceAligned/MSP-PODCAST_0001_0008.TextGrid      optional; the first tier holds the words

The attributes are means of ratings from 1 to 7.
"""

import os
import re
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.compute as pc

from . import tree
from .columns import WORDS
from .shards import SHARDS_NOTE
from .table import read_annotated, read_rows

LABEL_RANGE: tuple[float, float] = (1.0, 7.0)

_TESTS = ("Test1", "Test2", "Test3")
_LABELS_FILE = "Labels/labels_consensus.csv"
_ATTRIBUTES = {"valence": "EmoVal", "arousal": "EmoAct", "dominance": "EmoDom"}

# The tokens of a TextGrid: texts in double quotes, numbers between spaces, and flags; all else is decoration.
# https://www.fon.hum.uva.nl/praat/manual/TextGrid_file_formats.html
_TEXTGRID_TOKEN = re.compile(r'(?<!\S)(?:"((?:[^"]|"")*)"|(-?\d+(?:\.\d*)?(?:[eE][-+]?\d+)?)|<exists>)(?!\S)')


def read_msp_podcast(folder: str | os.PathLike[str], *, test: str = "Test1") -> datasets.DatasetDict:
    """Read MSP-Podcast.

    The parts are the official ones: train is Train, validation is Development, and test is one of the test sets.
    Transcripts lose marks in brackets. Words have times where `ForceAligned` has the utterance, in the spelling of the
    transcript if it has as many words.

    Args:
        folder: The corpus, with `Labels`, `Audios` and `Transcripts`; or what `annotate` made of it, with the test set
            that it was made with.
        test: Which test set: `Test1`, `Test2` or `Test3`; the labels of the last are not public.

    Returns:
        train, validation and test with the features `schema.FEATURES`; the speaker "Unknown" is null.

    Raises:
        ValueError: The folder is not whole, and the sentence lists what is missing; the test set has no labels; or a
            row is wrong.
    """
    if test not in _TESTS:
        raise ValueError(f"test is {test!r}; MSP-Podcast has {', '.join(_TESTS)}.")
    root = tree.existing_folder(folder, _LABELS_FILE)
    if (root / SHARDS_NOTE).is_file():
        return read_annotated(root, allow_speaker_overlap=True)
    splits = {"Train": "train", "Development": "validation", test: "test"}
    columns = ("FileName", *_ATTRIBUTES.values(), "SpkrID", "Split_Set")
    rows, missing = tree.read_labels(root, _LABELS_FILE, columns, "Split_Set", splits)
    files: list[str] = []
    if rows is not None:
        rows = rows.filter(pc.is_in(rows["Split_Set"], pa.array([*splits])))
        files = rows["FileName"].to_pylist()
        if test == "Test3":
            _require_labels_of_test3(root, rows)
    texts = [f"{os.path.splitext(file)[0]}.txt" for file in files]
    for name, wanted in (("Audios", files), ("Transcripts", texts)):
        if (root / name).is_dir():
            present = tree.file_names(root / name)
            gaps = [file for file in wanted if file not in present]
            missing += tree.lacking(gaps, len(wanted), f"files in {name} for the rows of {_LABELS_FILE}")
        else:
            missing.append(f"the folder {name}")
    tree.require_whole("MSP-Podcast", root, missing)
    assert rows is not None  # or else something is missing

    with ThreadPoolExecutor() as pool:  # reading many small files is waiting, on a network disk most of all
        transcripts = list(pool.map(lambda text: tree.spoken_text(tree.read_text(root / "Transcripts" / text)), texts))
        words = list(pool.map(lambda file, text: _read_words(root, file, text), files, transcripts))
    if (root / "ForceAligned").is_dir():
        tree.warn_of_missing_times(root, words)
    speakers = rows["SpkrID"]
    table = pa.table(
        {
            "audio": files,
            "transcript": pa.array(transcripts, pa.string()),
            "words": pa.array(words, WORDS),
            **{label: rows[attribute] for label, attribute in _ATTRIBUTES.items()},
            "speaker": pc.if_else(pc.equal(speakers, "Unknown"), pa.scalar(None, pa.string()), speakers),
            "split": [splits[name] for name in rows["Split_Set"].to_pylist()],
        }
    )
    return read_rows(
        table,
        str(root / _LABELS_FILE),
        row_names=files,
        audio_folders=[root / "Audios"],
        label_range=LABEL_RANGE,
        allow_speaker_overlap=True,
    )


def _require_labels_of_test3(folder: Path, rows: pa.Table) -> None:
    rows = rows.filter(pc.equal(rows["Split_Set"], "Test3"))
    blank = [pc.any(pc.equal(pc.utf8_trim_whitespace(rows[name]), "")).as_py() for name in _ATTRIBUTES.values()]
    if rows.num_rows == 0 or any(blank):
        raise ValueError(
            f"{folder}: {_LABELS_FILE} has no labels of Test3, which are not public; take Test1 or Test2."
        )


def _read_words(folder: Path, file: str, transcript: str) -> list[dict[str, Any]] | None:
    """Return the words of an utterance with their times, or `None` where there is no readable alignment."""
    path = folder / "ForceAligned" / f"{os.path.splitext(file)[0]}.TextGrid"
    if not path.is_file():
        return None
    found = _TEXTGRID_TOKEN.finditer(tree.read_text(path))
    tokens = (float(match[2]) if match[2] else (match[1] or "").replace('""', '"') for match in found)
    # ooTextFile, TextGrid, start, end, <exists>, tiers; then of each tier its class, name, start, end and size.
    match list(islice(tokens, 11)):
        case [_, "TextGrid", _, _, _, _, "IntervalTier", _, _, _, float(size)]:
            pass
        case _:
            return None
    words = []
    for _ in range(int(size)):
        match list(islice(tokens, 3)):
            case [float(start), float(end), str(mark)]:
                words.append({"word": mark.strip(), "start": start, "end": end})
            case _:
                return None
    spoken = [word for word in words if word["word"] not in ("", "<eps>")]
    # A word that the aligner did not know is `<unk>`, which only the transcript can spell.
    return [word for word in tree.as_written(spoken, transcript) if word["word"] != "<unk>"]
