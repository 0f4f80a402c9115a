"""Reads MSP-Podcast, and WHiSER, which its owners distribute in the same layout.

    Labels/labels_consensus.csv              FileName, EmoAct, EmoVal, EmoDom, SpkrID, Split_Set and more
    Audios/MSP-PODCAST_0001_0008.wav
    Transcripts/MSP-PODCAST_0001_0008.txt            optional
    ForceAligned/MSP-PODCAST_0001_0008.TextGrid      optional; the first tier holds the words
    Partitions.txt                                   optional; "Test3; MSP-PODCAST_0001_0008.wav"

[`msp_layout`] says what else these are called. The attributes are means of ratings from 1 to 7. Of a release, what is
there is read: only the parts that a run needs must be there, with their labels if it trains on them or scores them.
"""

import logging
import os
import re
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.compute as pc

from . import tree
from .columns import WORDS
from .msp_layout import Layout, find_labels, find_layout, find_rows
from .schema import SPLIT_ALIASES, SPLITS, UNKNOWN
from .shards import SHARDS_NOTE
from .sources import open_source, read_csv
from .table import open_table, read_annotated, read_rows

logger = logging.getLogger(__name__)

LABEL_RANGE: tuple[float, float] = (1.0, 7.0)
ATTRIBUTES = {"valence": "EmoVal", "arousal": "EmoAct", "dominance": "EmoDom"}

# Columns of the table of labels that are not of the schema.
_CATEGORIES = {"gender": "Gender", "emotion": "EmoClass"}

# What can be tested on: a development set too, as in the paper, whose figures are of it.
TESTS = ("Test1", "Test2", "Test3", "Development")

# What the column `split` of an annotated corpus calls the parts that it does not call as their owners do.
_ANNOTATED = {"Train": "train", "Development": "validation"}

# Marks in transcripts that are not spoken: [laughter], (laughs), <unk>, <eps>.
_MARKS = re.compile(r"\[[^\]]*\]|\([^)]*\)|<[^>]*>")

# The tokens of a TextGrid: texts in double quotes, numbers between spaces, and flags; all else is decoration.
# https://www.fon.hum.uva.nl/praat/manual/TextGrid_file_formats.html
_TEXTGRID_TOKEN = re.compile(r'(?<!\S)(?:"((?:[^"]|"")*)"|(-?\d+(?:\.\d*)?(?:[eE][-+]?\d+)?)|<exists>)(?!\S)')


def read_msp_podcast(
    folder: str | os.PathLike[str],
    *,
    test: str | Sequence[str] = ("Test1",),
    require_labels: bool = True,
    needed: Sequence[str] = SPLITS,
) -> datasets.DatasetDict:
    """Read MSP-Podcast.

    The parts are the official ones: train is Train, validation is Development, and test is one of the test sets, or
    Development too. Transcripts lose marks in brackets, such as `[laughter]`, `(laughs)` and `<unk>`. Words have times
    where `ForceAligned` has the utterance, in the spelling of the transcript if it has as many words.

    Args:
        folder: The corpus; or what `annotate` made of it.
        test: Test sets, of `TESTS`, one or several. The first is the part `test`, the others keep their names.
        require_labels: Demand labels in every row.
        needed: Which of `schema.SPLITS` are read and must be there.

    Returns:
        train, validation and test with the features `schema.FEATURES`; the speaker "Unknown" is null.

    Raises:
        ValueError: Something that is needed is not there, and the sentence lists it; a test set has no labels; or a
            row is wrong.
    """
    test = ((test,) if isinstance(test, str) else tuple(test)) or ("Test1",)
    if unknown := [name for name in test if name not in TESTS]:
        raise ValueError(f"test is {unknown[0]!r}; MSP-Podcast has {', '.join(TESTS)}.")
    root = tree.existing_folder(folder, "Labels/labels_consensus.csv")
    names = {"train": ["Train"], "validation": ["Development"], "test": list(test)}
    wanted = list(dict.fromkeys(name for split in SPLITS if split in needed for name in names[split]))
    tests = test if "test" in needed else ()
    if "validation" in needed and "Development" in tests:
        logger.warning(
            "%s: the test part is the development part, by which the best epoch is chosen, as in the paper: do not "
            "compare its scores with those of a test set",
            root,
        )
    if (root / SHARDS_NOTE).is_file():
        return _read_annotated(root, wanted, tests, require_labels)
    layout = find_layout(root, "Audios")
    missing = list(layout.missing)
    rows, parts = find_rows(layout, tuple(ATTRIBUTES.values()), missing)
    if rows is not None:
        shown = layout.shown(layout.labels) if layout.labels else layout.root.name
        missing += [f"the rows of {part} in {shown}" for part in wanted if part not in parts]
        rows = rows.filter(pc.is_in(rows["Split_Set"], pa.array(wanted, pa.string())))
        missing += tree.lacking(
            _absent(layout, rows), len(rows), f"files in {layout.audio_name} for the rows of {shown}"
        )
        if require_labels:
            _require_labels(layout, rows, [part for part in wanted if part.startswith("Test")], parts)
    if missing:
        there = f" (it has {_listed(parts)})" if parts else ""
        raise ValueError(
            f"{root}{there}: this copy of MSP-Podcast is not whole; missing are {'; '.join(missing)}; copy it again "
            f"as its owners distribute it{_other_tests(wanted, parts)}."
        )
    assert rows is not None  # or else something is missing
    return _read(layout, rows, allow_speaker_overlap=True, require_labels=require_labels, test=tests)


def msp_podcast_parts(folder: str | os.PathLike[str], only: Sequence[str] = ()) -> dict[str, datasets.Dataset]:
    """Read all parts of MSP-Podcast that are there, with or without labels, to be annotated or predicted.

    Args:
        folder: The corpus.
        only: Parts that must be there and whole, such as "Test3"; by default all, without the recordings that are not
            there, or that `annotate` could not read.

    Returns:
        The parts by what `SplitNames` knows them as: "train", "validation", "Test1" and so on.

    Raises:
        ValueError: As in [`read_msp_podcast`].
    """
    root = tree.existing_folder(folder, "Labels/labels_consensus.csv")
    if (root / SHARDS_NOTE).is_file():
        return _annotated_parts(root, only)
    layout = find_layout(root, "Audios")
    missing = list(layout.missing)
    rows, parts = find_rows(layout, tuple(ATTRIBUTES.values()), missing)
    tree.require_whole("MSP-Podcast", root, missing)
    assert rows is not None  # or else something is missing
    wanted = _chosen(root, parts, only)
    rows = rows.filter(pc.is_in(rows["Split_Set"], pa.array(wanted, pa.string())))
    absent = _absent(layout, rows)
    if absent and only:
        raise ValueError(
            f"{root}: {tree.lacking(absent, len(rows), 'recordings of ' + ', '.join(wanted))[0]} are missing; copy "
            "them again."
        )
    if absent:
        logger.warning(
            "%s: left out %d of %d rows whose recordings are not there, such as %r",
            *(root, len(absent), len(rows), absent[0]),
        )
        rows = rows.filter(pc.invert(pc.is_in(rows["FileName"], pa.array(absent))))
    logger.info("%s: MSP-Podcast with %s", root, _listed(parts))
    tests = [part for part in dict.fromkeys(rows["Split_Set"].to_pylist()) if part.startswith("Test")]
    read = _read(
        layout,
        rows,
        allow_speaker_overlap=True,
        require_labels=False,
        test=tests,
    )
    first = {"test": tests[0]} if tests else {}
    return {first.get(name, name): part for name, part in read.items()}


def _annotated_parts(root: Path, only: Sequence[str]) -> dict[str, datasets.Dataset]:
    """Read the parts of what `annotate` made; those that are named with the rows that have an `error`."""
    wanted = _chosen(root, _annotated_counts(root), only)
    tests = [part for part in wanted if part.startswith("Test")]
    read = read_annotated(
        root,
        allow_speaker_overlap=True,
        require_labels=False,
        test=tests,
        only=[_ANNOTATED.get(part, part) for part in wanted],
        with_errors=bool(only),
    )
    return {tests[0] if name == "test" and tests else name: part for name, part in read.items()}


def _read_annotated(
    root: Path, wanted: Sequence[str], tests: Sequence[str], require_labels: bool
) -> datasets.DatasetDict:
    """Read the wanted parts of what `annotate` made, which must be there."""
    parts = _annotated_counts(root)
    if absent := [part for part in wanted if part not in parts]:
        there = f" (it has {_listed(parts)})" if parts else ""
        raise ValueError(
            f"{root}{there}: what was annotated has no {', '.join(absent)}; annotate the whole corpus"
            f"{_other_tests(wanted, parts)}."
        )
    return read_annotated(
        root,
        allow_speaker_overlap=True,
        require_labels=require_labels,
        test=tests,
        only=[_ANNOTATED.get(part, part) for part in wanted],
    )


def _annotated_counts(root: Path) -> dict[str, tuple[int, int]]:
    """Return the number of rows of each part of what `annotate` made, and of those with labels."""
    table = open_source(root, with_errors=True).parts[0].table
    if "split" not in table.column_names:
        return {}
    owners = {written: part for part, written in _ANNOTATED.items()}
    counts: dict[str, tuple[int, int]] = {}
    for written, valence in zip(table["split"].to_pylist(), table["valence"].to_pylist(), strict=True):
        part = owners.get(written, written)
        count, labeled = counts.get(part, (0, 0))
        counts[part] = count + 1, labeled + (valence is not None)
    return counts


def _chosen(root: Path, parts: Mapping[str, tuple[int, int]], only: Sequence[str]) -> list[str]:
    """Return the parts that are named, each of which must be there; all of them where none is named."""
    there = {_key(part): part for part in parts}
    if absent := [name for name in only if _key(name) not in there]:
        raise ValueError(f"{root} has no part {absent[0]}; it has {_listed(parts) or 'no parts'}.")
    named = [there[_key(name)] for name in only]
    return [part for part in parts if not only or part in named]


def _key(name: str) -> str:
    """Return what tells a part apart by any of its names, such as Development and validation."""
    split = SPLIT_ALIASES.get(name.lower(), "test")
    return name.lower() if split == "test" else split


def read_whiser(
    folder: str | os.PathLike[str],
    *,
    require_labels: bool = True,
) -> datasets.DatasetDict:
    """Read WHiSER, natural speech of the 1970s with the columns of MSP-Podcast.

    Its labels are public (GitHub, msplabresearch/WHiSER); the recordings come from their owners' page. It has neither
    parts nor known speakers: the parts are drawn by file, with a warning.

    Args:
        folder: It holds the table of labels and a folder of recordings; or it is what `annotate` made of it.
        require_labels: Demand labels in every row.

    Returns:
        train, validation and test with the features `schema.FEATURES`.

    Raises:
        ValueError: Something is not there, and the sentence lists it; or a row is wrong.
    """
    root = tree.existing_folder(folder, "labels_consensus.csv")
    if (root / SHARDS_NOTE).is_file():
        return read_annotated(root, require_labels=require_labels, split_by="file")
    layout = find_layout(root, "Audios", anywhere=True)
    missing = list(layout.missing)
    rows, _ = find_rows(layout, tuple(ATTRIBUTES.values()), missing, split="")
    if rows is not None:
        missing += tree.lacking(
            _absent(layout, rows), len(rows), "recordings, which their owners distribute apart from the labels"
        )
    tree.require_whole("WHiSER", root, missing)
    assert rows is not None  # or else something is missing
    return _read(
        layout,
        rows.drop_columns(["Split_Set"]),
        allow_speaker_overlap=False,
        require_labels=require_labels,
        split_by="file",
    )


def msp_categories(folder: str | os.PathLike[str], files: Sequence[str]) -> dict[str, list[str | None]]:
    """Return what the table of labels, or what `annotate` made of it, says of recordings beside the schema.

    Args:
        folder: Of MSP-Podcast or WHiSER, or what `annotate` made of it.
        files: Names of recordings, without their folders.

    Returns:
        `gender` and `emotion` of each, as they are written there, `None` where they are not known; those of the two
        that the table has.
    """
    root = Path(folder)
    if (root / SHARDS_NOTE).is_file():
        rows = open_table(root)
        table, names = rows.table, [os.path.basename(name or "") for name in rows.recording_names()]
        columns = {name: name for name in _CATEGORIES}
    else:
        labels = find_labels(root)
        assert labels is not None  # the corpus has been read
        table, columns = read_csv(labels), _CATEGORIES
        names = table["FileName"].to_pylist()
    found = {}
    for name, column in columns.items():
        if column in table.column_names:
            values = [(value or "").strip() for value in table[column].cast(pa.string()).to_pylist()]
            known = [value if value and value.lower() not in UNKNOWN else None for value in values]
            of_file = dict(zip(names, known, strict=True))
            found[name] = [of_file.get(file) for file in files]
    return found


def _absent(layout: Layout, rows: pa.Table) -> list[str]:
    """Return the names of the recordings that rows have and the corpus has not."""
    return [file for file in rows["FileName"].to_pylist() if file not in layout.recordings]


def _read(layout: Layout, rows: pa.Table, **options: Any) -> datasets.DatasetDict:
    """Read rows of labels in the schema; the options are further ones of `read_rows`."""
    return read_rows(
        msp_table(layout, rows),
        str(layout.labels or layout.root),
        row_names=rows["FileName"].to_pylist(),
        audio_folders=layout.audio_folders,
        label_range=LABEL_RANGE,
        **options,
    )


def msp_table(layout: Layout, rows: pa.Table) -> pa.Table:
    """Return rows of labels with the names of the schema, and with the transcripts and word times that are there."""
    files = rows["FileName"].to_pylist()
    stems = [os.path.splitext(file)[0] for file in files]
    texts = [layout.transcripts.get(f"{stem}.txt") for stem in stems]
    grids = [layout.alignments.get(f"{stem}.TextGrid") for stem in stems]
    with ThreadPoolExecutor() as pool:  # reading many small files is waiting, on a network disk most of all
        transcripts = list(pool.map(_read_transcript, texts))
        words = list(pool.map(_read_words, grids, transcripts))
    unwritten = texts.count(None)
    if unwritten:
        logger.warning(
            "%s: %d of %d utterances have no transcript; annotate the corpus for a model that reads them",
            *(layout.root, unwritten, len(files)),
        )
    if layout.alignments:
        tree.warn_of_missing_times(layout.root, words)
    return pa.table(
        {
            "audio": pa.array([layout.recordings.get(file, file) for file in files], pa.string()),
            "transcript": pa.array(transcripts, pa.string()),
            "words": pa.array(words, WORDS),
            **{label: rows[attribute] for label, attribute in ATTRIBUTES.items()},
            "speaker": rows["SpkrID"],
            **({"split": rows["Split_Set"]} if "Split_Set" in rows.column_names else {}),
        }
    )


def _require_labels(layout: Layout, rows: pa.Table, tests: Sequence[str], parts: dict[str, tuple[int, int]]) -> None:
    """Refuse test sets without labels, which are not public."""
    for part in tests:
        of_part = rows.filter(pc.equal(rows["Split_Set"], part))
        blank = [pc.any(pc.equal(pc.utf8_trim_whitespace(of_part[name]), "")).as_py() for name in ATTRIBUTES.values()]
        if any(blank) or (part == "Test3" and part not in parts):
            labeled = [name for name in TESTS if parts.get(name, (0, 0))[1]]
            shown = layout.shown(layout.labels) if layout.labels else "the table"
            raise ValueError(
                f"{layout.root}: {shown} has no labels of {part}, which are not public; take "
                f"{' or '.join(name for name in labeled if name != 'Development') or 'Development'} for --test, and "
                f"predict {part} with the trained model: msfser predict --corpus msp_podcast --test {part} "
                "--submission FILE."
            )


def _listed(parts: Mapping[str, tuple[int, int]]) -> str:
    shown = []
    for part, (count, labeled) in parts.items():
        labels = "" if labeled == count else f", {labeled:,} of them with labels" if labeled else " without labels"
        shown.append(f"{part} {count:,}{labels}")
    return "; ".join(shown)


def _other_tests(wanted: Sequence[str], parts: dict[str, tuple[int, int]]) -> str:
    labeled = [part for part in TESTS if parts.get(part, (0, 0))[1]]
    absent = [part for part in wanted if part.startswith("Test") and part not in parts]
    return f", or test on what is there: --test {labeled[0]}" if absent and labeled else ""


def _read_transcript(path: str | None) -> str | None:
    return None if path is None else tree.spoken_text(tree.read_text(Path(path)), _MARKS)


def _read_words(path: str | None, transcript: str | None) -> list[dict[str, Any]] | None:
    """Return the words of an utterance with their times, or `None` where there is no readable alignment."""
    if path is None:
        return None
    found = _TEXTGRID_TOKEN.finditer(tree.read_text(Path(path)))
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
    return [word for word in tree.as_written(spoken, transcript or "") if word["word"] != "<unk>"]
