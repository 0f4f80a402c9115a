"""The recordings of a part of a corpus, such as its test part, with their paths as they are written there."""

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from ..configuration_msfser import LABELS
from ..corpora.registry import read_source
from ..corpora.table import SourceRows
from ..training.settings import RunSettings, read_data


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
    whole = read_source(run.corpus, run.data, columns=run.column_names, audio_folder=run.audio_folder)
    origin, index = f"{whole.origin}, {name}", table.column_names.index("audio")
    files = pc.struct_field(audio, "path").to_pylist()
    written = {} if whole.files is None else dict(zip(whole.files, whole.recording_names(), strict=True))
    names = pa.array([written.get(file) for file in files], pa.string())
    if pc.struct_field(audio, "bytes").null_count < len(table):
        table = table.set_column(index, "audio", names)
        return SourceRows(table, None, part.select_columns(["audio"]), Path.cwd(), origin)
    table = table.set_column(index, "audio", pc.coalesce(names, pa.array(files, pa.string())))
    return SourceRows(table, files, None, whole.audio_folder, origin)
