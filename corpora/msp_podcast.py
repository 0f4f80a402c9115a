"""Reads MSP-Podcast in the layout that its owners distribute.

    Labels/labels_consensus.csv              FileName, EmoAct, EmoVal, EmoDom, SpkrID, Split_Set and more
    Audios/MSP-PODCAST_0001_0008.wav
    Transcripts/MSP-PODCAST_0001_0008.txt
    ForceAligned/MSP-PODCAST_0001_0008.TextGrid      optional; the first tier holds the words

The attributes are means of ratings from 1 to 7.
"""

import logging
import os
import re
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.compute as pc

from .schema import FEATURES
from .shards import SHARDS_NOTE
from .sources import read_csv
from .table import read_rows, read_table
from .tree import as_written, file_names, lacking, read_text, require_whole, spoken_text

logger = logging.getLogger(__name__)

LABEL_RANGE: tuple[float, float] = (1.0, 7.0)

_TESTS = ("Test1", "Test2", "Test3")
_LABELS_FILE = "Labels/labels_consensus.csv"
_ATTRIBUTES = {"valence": "EmoVal", "arousal": "EmoAct", "dominance": "EmoDom"}
_COLUMNS = ("FileName", *_ATTRIBUTES.values(), "SpkrID", "Split_Set")

# What counts in a TextGrid: texts in double quotes, numbers that stand alone, and flags; all else is decoration.
# https://www.fon.hum.uva.nl/praat/manual/TextGrid_file_formats.html
_TEXTGRID_TOKEN = re.compile(r'(?<!\S)(?:"((?:[^"]|"")*)"|(-?\d+(?:\.\d*)?(?:[eE][-+]?\d+)?)|<exists>)(?!\S)')


def read_msp_podcast(folder: str | os.PathLike[str], *, test: str = "Test1") -> datasets.DatasetDict:
    """Read MSP-Podcast.

    The parts are the official ones, taken as they are: train from Train, validation from Development, test from one of
    the test sets. Transcripts lose marks in brackets. Words have times where `ForceAligned` has the utterance, in the
    spelling of the transcript if it has as many words.

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
    folder = Path(folder)
    if not folder.is_dir():
        raise ValueError(f"{folder}: there is no such folder; name the one that holds {_LABELS_FILE}.")
    if (folder / SHARDS_NOTE).is_file():
        return read_table(folder, allow_speaker_overlap=True)
    splits = {"Train": "train", "Development": "validation", test: "test"}

    missing = [] if (folder / _LABELS_FILE).is_file() else [f"the file {_LABELS_FILE}"]
    held = {}
    for name in ("Audios", "Transcripts"):
        if (folder / name).is_dir():
            held[name] = file_names(folder / name)
        else:
            missing.append(f"the folder {name}")
    if (folder / _LABELS_FILE).is_file():
        rows = read_csv(folder / _LABELS_FILE)
        if absent := [name for name in _COLUMNS if name not in rows.column_names]:
            missing.append(f"the columns {', '.join(absent)} of {_LABELS_FILE}")
        else:
            rows = rows.filter(pc.is_in(rows["Split_Set"], pa.array(splits)))
            if test == "Test3":
                _require_labels_of_test3(folder, rows)
            files = rows["FileName"].to_pylist()
            texts = [f"{os.path.splitext(file)[0]}.txt" for file in files]
            present = set(rows["Split_Set"].to_pylist())
            missing += [f"the rows of {name} in {_LABELS_FILE}" for name in splits if name not in present]
            for name, wanted in (("Audios", files), ("Transcripts", texts)):
                if name in held:
                    gaps = [file for file in wanted if file not in held[name]]
                    missing += lacking(gaps, len(wanted), f"files in {name} for the rows of {_LABELS_FILE}")
    require_whole("MSP-Podcast", folder, missing)

    with ThreadPoolExecutor() as pool:  # reading many small files is waiting, on a network disk most of all
        transcripts = list(pool.map(lambda text: spoken_text(read_text(folder / "Transcripts" / text)), texts))
        words = list(pool.map(lambda file, text: _read_words(folder, file, text), files, transcripts))
    if (folder / "ForceAligned").is_dir() and (without := words.count(None)):
        logger.warning("%s: %d of %d utterances have no word times in ForceAligned", folder, without, len(words))
    speakers = rows["SpkrID"]
    table = pa.table(
        {
            "audio": files,
            "transcript": pa.array(transcripts, pa.string()),
            "words": pa.array(words, FEATURES.arrow_schema.field("words").type),
            **{label: rows[attribute] for label, attribute in _ATTRIBUTES.items()},
            "speaker": pc.if_else(pc.equal(speakers, "Unknown"), pa.scalar(None, pa.string()), speakers),
            "split": [splits[name] for name in rows["Split_Set"].to_pylist()],
        }
    )
    return read_rows(
        table,
        str(folder / _LABELS_FILE),
        row_names=files,
        audio_folders=[folder / "Audios"],
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


def _read_words(folder: Path, file: str, transcript: str) -> list[dict] | None:
    """The words of an utterance with their times, or `None` where there is no readable alignment."""
    path = folder / "ForceAligned" / f"{os.path.splitext(file)[0]}.TextGrid"
    if not path.is_file():
        return None
    found = _TEXTGRID_TOKEN.finditer(read_text(path))
    tokens = (float(match[2]) if match[2] else (match[1] or "").replace('""', '"') for match in found)
    # ooTextFile, TextGrid, start, end, <exists>, tiers; then of each tier its class, name, start, end and size.
    head = list(islice(tokens, 11))
    if len(head) < 11 or head[1] != "TextGrid" or head[6] != "IntervalTier" or not isinstance(head[10], float):
        return None
    values = list(islice(tokens, 3 * int(head[10])))
    starts, ends, marks = (values[field::3] for field in range(3))
    kinds = {(type(start), type(end), type(mark)) for start, end, mark in zip(starts, ends, marks, strict=False)}
    if len(values) < 3 * int(head[10]) or kinds - {(float, float, str)}:
        return None
    spoken = [
        {"word": mark.strip(), "start": start, "end": end}
        for start, end, mark in zip(starts, ends, marks, strict=True)
        if mark.strip() not in ("", "<eps>")
    ]
    # A word that the aligner did not know is `<unk>`, which only the transcript can spell.
    return [word for word in as_written(spoken, transcript) if word["word"] != "<unk>"]
