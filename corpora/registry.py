"""The corpora that training, annotation, publishing and evaluation can read, by name.

To add a corpus, write a module with its reader (`emobank.py` is the shortest) and add one entry to `CORPORA`. The test
of the registry then checks what every reader must satisfy.
"""

import os
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa

from .audio_folder import recordings_of, scan_folder
from .audio_paths import real_path_finder
from .emobank import LABEL_RANGE as EMOBANK_RANGE
from .emobank import read_emobank
from .iemocap import LABEL_RANGE as IEMOCAP_RANGE
from .iemocap import iemocap_categories, read_iemocap, session_of
from .label_ranges import LabelRange
from .msp_podcast import LABEL_RANGE as MSP_RANGE
from .msp_podcast import msp_categories, msp_podcast_parts, read_msp_podcast, read_whiser
from .probe.corpus import make_probe, read_probe
from .schema import SPLITS
from .sources import FOLDER_TABLES, holds_table
from .splits import SPLIT_BY, SplitNames
from .table import POOLED, SourceRows, open_table, read_table

# `data` with this value is the probe corpus, made in the folder on first use.
PROBE, PROBE_FOLDER = "probe", "data/probe"

# The options of `read_corpus` that a user gives; a corpus accepts some of them.
OPTIONS: tuple[str, ...] = (
    *("label_range", "audio_folder", "columns", "allow_speaker_overlap", "speaker_from", "split_by", "test", "fold"),
)


@dataclass(frozen=True)
class Corpus:
    """A corpus and its reader.

    Attributes:
        name: The key in `CORPORA`.
        title: The name in text.
        read: From the data and the accepted options to parts with the features `schema.FEATURES`.
        accepts: Options that the reader accepts: names of `OPTIONS`, `require_labels`, `needed`, `pooled` and
            `text_languages`.
        folds: Number of folds; 0 where the parts are fixed.
        license: Its terms, in words or as an identifier of the Hub.
        label_range: Ends of the label scale of the source; `None` where the user gives it.
        language: Of the speech, ISO 639-1; `None` where it is not known.
        synthetic: Whether the speech is synthesized, so that a model trained on it is of no use for real voices.
        session_of: From a speaker to the session that recorded it; `None` where there are no sessions.
        read_parts: From the data, and the names of parts if not all are wanted, to the parts that are there, labeled
            or not, by their names; `None` where `read` gives them all.
        categories: From the data and the names of recordings to further columns of text, such as `gender`; `None`
            where the corpus has none.
    """

    name: str
    title: str
    read: Callable[..., datasets.DatasetDict]
    accepts: tuple[str, ...] = ()
    folds: int = 0
    license: str = "not stated"
    label_range: tuple[float, float] | None = None
    language: str | None = None
    synthetic: bool = False
    session_of: Callable[[str], str] | None = None
    read_parts: Callable[[str, Sequence[str]], Mapping[str, datasets.Dataset]] | None = None
    categories: Callable[[str, Sequence[str]], Mapping[str, Sequence[str | None]]] | None = None

    def check_options(self, given: Collection[str]) -> None:
        """Check the names of the options that a user gave.

        Args:
            given: Names of settings; those that are not in `OPTIONS` are ignored.

        Raises:
            ValueError: The corpus does not accept one of them, or it needs a fold and none is given.
        """
        refused = sorted({*OPTIONS}.intersection(given).difference(self.accepts))
        if "fold" in refused:
            owners = " or ".join(corpus.name for corpus in CORPORA.values() if corpus.folds)
            raise ValueError(f"--fold belongs to the corpus {owners}, not to {self.name}; leave it out.")
        if refused:
            flags = ", ".join(f"--{name}" for name in refused)
            raise ValueError(f"{flags}: the corpus {self.name} decides this; leave it out, or give --corpus table.")
        if self.folds and "fold" not in given:
            raise ValueError(f"the corpus {self.name} needs a fold to test on: --fold 1 (to {self.folds}).")


_TABLE = (*(option for option in OPTIONS if option != "fold"), "require_labels", "pooled", "text_languages")
_AGREEMENT = "the license agreement of its owners"

CORPORA: dict[str, Corpus] = {
    corpus.name: corpus
    for corpus in (
        Corpus("table", "a custom table", read_table, accepts=_TABLE),
        Corpus(
            *("msp_podcast", "MSP-Podcast", read_msp_podcast, ("test", "require_labels", "needed"), 0, _AGREEMENT),
            label_range=MSP_RANGE,
            language="en",
            read_parts=msp_podcast_parts,
            categories=msp_categories,
        ),
        Corpus(
            *(
                "whiser",
                "WHiSER",
                read_whiser,
                ("require_labels",),
                0,
                "non-commercial; the recordings are their owners'",
            ),
            label_range=MSP_RANGE,
            language="en",
            categories=msp_categories,
        ),
        Corpus(
            *("iemocap", "IEMOCAP", read_iemocap, ("fold",), 5, _AGREEMENT, IEMOCAP_RANGE),
            language="en",
            session_of=session_of,
            categories=iemocap_categories,
        ),
        Corpus("emobank", "EmoBank", read_emobank, license="cc-by-sa-4.0", label_range=EMOBANK_RANGE, language="en"),
        Corpus("probe", "probe corpus", read_probe, (), 0, "apache-2.0", (0.0, 1.0), language="en", synthetic=True),
    )
}


def read_corpus(
    corpus: str,
    data: str,
    *,
    fold: int | None = None,
    label_range: LabelRange = (0.0, 1.0),
    columns: Mapping[str, str] | None = None,
    audio_folder: str | os.PathLike[str] | None = None,
    allow_speaker_overlap: bool = False,
    require_labels: bool = True,
    speaker_from: str | None = None,
    split_by: str = SPLIT_BY[0],
    test: Sequence[str] = (),
    needed: Sequence[str] = SPLITS,
    pooled: bool = False,
    text_languages: Sequence[str] = (),
) -> datasets.DatasetDict:
    """Read a corpus for training or evaluation.

    Args:
        corpus: A key of `CORPORA`.
        data: Its folder; for `table` a source as in `read_table`. `"probe"` is the probe corpus, for `table` too.
        fold: As in `read_iemocap`.
        label_range: As in `read_table`, like all that follow.
        columns: Source column per name of the schema.
        audio_folder: Where relative audio paths start.
        allow_speaker_overlap: Accept speakers that are in more than one part.
        require_labels: Require the labels in every row.
        speaker_from: A regular expression that finds the speaker in the path of a recording.
        split_by: What parts that are made are made by.
        test: Names of the test parts.
        needed: Parts that must be there, where the corpus knows which are not: of `schema.SPLITS`.
        pooled: Read all of these rows, each once, as one part.
        text_languages: As in `read_table`; named corpora are in one language.

    Returns:
        Parts with the features `schema.FEATURES`, their labels in 0..1: train, validation, test, and further test
        parts of `test` by their names; or `all`, if they are pooled.

    Raises:
        ValueError: An option is not one of this corpus, or the data are not as described; one sentence.
    """
    values: dict[str, tuple[Any, Any]] = {  # with their defaults
        "fold": (fold, None),
        "label_range": (label_range if isinstance(label_range, Mapping) else tuple(label_range), (0.0, 1.0)),
        "columns": (columns or None, None),
        "audio_folder": (audio_folder, None),
        "allow_speaker_overlap": (allow_speaker_overlap, False),
        "require_labels": (require_labels, True),
        "speaker_from": (speaker_from or None, None),
        "split_by": (split_by, SPLIT_BY[0]),
        "test": (tuple(test), ()),
        "needed": (tuple(needed), SPLITS),
        "pooled": (pooled, False),
        "text_languages": (tuple(text_languages), ()),
    }
    entry = CORPORA[corpus]
    entry.check_options([name for name, (value, default) in values.items() if value != default])
    parts = entry.read(ready_data(corpus, data), **{name: values[name][0] for name in entry.accepts})
    if pooled and POOLED not in parts:
        copies = SplitNames(test).copies
        distinct = [part for name, part in parts.items() if name not in copies]
        return datasets.DatasetDict({POOLED: datasets.concatenate_datasets(distinct)})
    return parts


def read_source(
    corpus: str,
    data: str,
    *,
    columns: Mapping[str, str] | None = None,
    audio_folder: str | os.PathLike[str] | None = None,
    with_errors: bool = False,
    parts: Sequence[str] = (),
) -> SourceRows:
    """Open recordings to be annotated or measured: no labels are needed, and other columns are kept.

    Those of a table are all of them; those of a named corpus are its `Corpus.categories`.

    Args:
        corpus: A key of `CORPORA`.
        data: Its folder; for `table` a source as in `read_table`, or a folder of recordings without a table.
        columns: As in `read_table`, like `audio_folder`.
        audio_folder: Where relative audio paths start.
        with_errors: Whether rows of shards that have an `error` are kept, and those of a table that cannot be used.
        parts: Only these parts of a named corpus, whole, by its owners' names, such as "Test3"; by default what is
            there of all.

    Returns:
        The rows. Their `split` is null where the parts are made later: folds, and recordings without a table.

    Raises:
        ValueError: As in `read_corpus`, or the corpus has no recordings.
    """
    given = [name for name, value in (("columns", columns), ("audio_folder", audio_folder)) if value]
    entry = CORPORA[corpus]
    fold = {"fold": 1} if entry.folds else {}  # all folds have the same rows
    entry.check_options([*given, *fold])
    data = ready_data(corpus, data)
    if corpus != "table":
        if entry.read_parts is None and parts:
            raise ValueError(f"--test: the corpus {corpus} has no parts to choose from here; leave it out.")
        read: Mapping[str, datasets.Dataset]
        read = entry.read(data, **fold) if entry.read_parts is None else entry.read_parts(data, parts)
        if fold:
            read = {"": datasets.concatenate_datasets(list(read.values()))}
        rows = _rows_of(read, data, f"{corpus} in {os.path.realpath(data)}")
        for name, values in categories_of(corpus, data, rows.files or ()).items():
            rows = rows._replace(table=rows.table.append_column(name, pa.array(values, pa.string())))
        return rows
    if parts:
        raise ValueError("--test belongs to a named corpus; leave it out, or name one with --corpus.")
    if os.path.isdir(data) and not holds_table(data):
        if given:
            raise ValueError(f"{data}: there is no table in this folder; leave out --columns and --audio_folder.")
        contents = scan_folder(data)
        rows = _rows_of({"": recordings_of(data, contents)}, data, os.path.realpath(data))
        return rows._replace(left_out=contents.left_out)
    rows = open_table(data, columns=columns, audio_folder=audio_folder, with_errors=with_errors)
    return rows._replace(left_out=_not_in_table(rows, data)) if os.path.isdir(data) else rows


def categories_of(corpus: str, data: str, files: Sequence[str | None]) -> Mapping[str, Sequence[str | None]]:
    """Return further columns of text, such as `gender`, that a named corpus has for recordings.

    Args:
        corpus: A key of `CORPORA`.
        data: Its folder.
        files: The path of each recording; what is none of the corpus is `None` in each column.
    """
    read = CORPORA[corpus].categories
    return {} if read is None else read(data, [os.path.basename(file or "") for file in files])


def _not_in_table(rows: SourceRows, folder: str) -> dict[str, str]:
    """Return the files of a folder that its table does not name, each with the reason."""
    table = os.path.basename(rows.origin)
    if rows.files is None or table not in FOLDER_TABLES:
        return {}
    contents, real_path = scan_folder(folder), real_path_finder()
    named = {real_path(file) for file in rows.files if file}
    unnamed = [file for file in contents.recordings if real_path(file) not in named]
    left_out = {os.path.relpath(file, os.path.abspath(folder)): f"in no row of {table}" for file in unnamed}
    left_out |= {name: why for name, why in contents.left_out.items() if name != table}
    return dict(sorted(left_out.items()))


def ready_data(corpus: str, data: str) -> str:
    """Return the data of a corpus, which are made first where they are the probe corpus."""
    return str(make_probe(PROBE_FOLDER)) if data == PROBE and corpus in ("table", "probe") else data


def _rows_of(parts: Mapping[str, datasets.Dataset], folder: str, origin: str) -> SourceRows:
    """Return rows of the schema with audio paths relative to the folder of the corpus."""
    tables = []
    for name, part in parts.items():
        rows = part.with_format("arrow")[:]
        tables.append(rows.append_column("split", pa.array([name or None] * len(rows), pa.string())))
    table = pa.concat_tables(tables)
    if table["audio"].null_count:
        raise ValueError(f"{folder}: this corpus has no recordings.")
    root = os.path.abspath(folder)
    files = [audio["path"] for audio in table["audio"].to_pylist()]
    paths = pa.array([os.path.relpath(file, root) for file in files])
    table = table.set_column(table.column_names.index("audio"), "audio", paths)
    return SourceRows(table, files, None, Path(root), origin)
