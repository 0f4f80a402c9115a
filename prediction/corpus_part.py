"""The recordings of a part of a corpus, such as its test part, with their paths as they are written there."""

import logging
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from ..configuration_msfser import LABELS
from ..corpora.label_ranges import LabelRange, ranges_of
from ..corpora.mixture import Member, members_of
from ..corpora.registry import CORPORA, read_source
from ..corpora.table import SourceRows
from ..training.settings import RunSettings, corpus_options, read_data

logger = logging.getLogger(__name__)


def recordings_of_part(run: RunSettings, name: str) -> SourceRows:
    """The recordings of a part of a corpus and their texts, in the order of the part.

    Args:
        run: Names the corpus, which needs no labels.
        name: Of the part.

    Returns:
        The rows; `audio` is the path as it is written in the table, and null where the recording is embedded.

    Raises:
        ValueError: There is no such part, or no recording.
    """
    part = read_data(run, require_labels=False, needed=(name,))[name]
    table = part.with_format("arrow")[:].drop_columns([*LABELS])
    audio = table["audio"]
    if audio.null_count:
        raise ValueError(f"{run.data} has no recordings: msfser evaluate predicts and scores a corpus of texts.")
    wholes = [
        read_source(
            one.corpus, one.data, columns=one.options.get("columns"), audio_folder=one.options.get("audio_folder")
        )
        for one in _members(run)
    ]
    origin, index = ", ".join([*(whole.origin for whole in wholes), name]), table.column_names.index("audio")
    files = pc.struct_field(audio, "path").to_pylist()
    written: dict[str, str | None] = {}
    for whole in wholes:
        if whole.files is not None:
            written |= zip(whole.files, whole.recording_names(), strict=True)
    names = pa.array([written.get(file) for file in files], pa.string())
    if pc.struct_field(audio, "bytes").null_count < len(table):
        table = table.set_column(index, "audio", names)
        return SourceRows(table, None, part.select_columns(["audio"]), Path.cwd(), origin)
    table = table.set_column(index, "audio", pc.coalesce(names, pa.array(files, pa.string())))
    return SourceRows(table, files, None, wholes[0].audio_folder, origin)


def scale_of_labels(run: RunSettings) -> LabelRange:
    """The scale of the labels of a run's corpora: one, or that of each dimension; of several scales none, but 0..1.

    Raises:
        ValueError: A range is wrong.
    """
    ranges = [CORPORA[one.corpus].label_range or one.options.get("label_range", (0.0, 1.0)) for one in _members(run)]
    scales = [ranges_of(label_range) for label_range in ranges]
    if any(scale != scales[0] for scale in scales):
        logger.info("the label ranges of these corpora differ: the predictions of all are on the scale 0 to 1.")
        return 0.0, 1.0
    if others := [label for label in LABELS if label not in scales[0]]:
        logger.info("%s has no label range: its predictions are on the scale 0 to 1.", others[0])
    return scales[0]


def _members(run: RunSettings) -> list[Member]:
    return members_of(run.data, run.more_data, run.corpus, corpus_options(run))
