"""A folder of shards, as `annotate` writes it: `data/part-00000.parquet` and so on, and a note beside `data`."""

import json
import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet

from .messages import counted_are, reason

logger = logging.getLogger(__name__)

SHARDS, SHARDS_NOTE = "data/part-*.parquet", "annotation.json"


def annotation_settings(source: str | os.PathLike[str]) -> dict[str, Any] | None:
    """Return how the texts of a folder of shards were made; `None` for any other source.

    Raises:
        ValueError: The note beside the shards cannot be read.
    """
    return read_note(Path(source)).get("settings")


def noted_audio_folder(folder: Path) -> Path:
    """Return where the relative audio paths of shards start: as noted, or else their folder.

    Raises:
        ValueError: The annotation is not finished, or the note is wrong.
    """
    note = read_note(folder)
    if note.get("complete") is False:
        raise ValueError(f"{folder}: annotating it is not finished; give the same annotate command again.")
    noted = note.get("audio_folder")
    if noted is not None and not (isinstance(noted, str) and os.path.isabs(noted)):
        raise ValueError(
            f"{folder / SHARDS_NOTE}: audio_folder is {noted!r}, which is no absolute path; write the shards again."
        )
    return Path(noted or folder)


def valid_rows(folder: Path, shards: Sequence[Path]) -> tuple[list[str], bool]:
    """Find the rows without an `error`, with one warning about the others.

    Returns:
        What messages call each of them, and whether there are others.

    Raises:
        ValueError: A shard is missing or cannot be read.
    """
    numbers = {shard.stem.removeprefix("part-") for shard in shards}
    if gaps := [f"part-{n:05d}.parquet" for n in range(len(shards)) if f"{n:05d}" not in numbers]:
        raise ValueError(
            f"{folder}: {counted_are(len(gaps), 'shard')} missing, such as {gaps[0]!r}; finish writing or copying."
        )
    names, left_out = [], []
    for shard in shards:
        for row, (audio, error) in enumerate(_errors(shard), start=1):
            name = f"{shard.name}, row {row}"
            if error is None:
                names.append(name)
            else:
                left_out.append(f"{name}, {audio!r} ({error})")
    if left_out:
        logger.warning(
            "%s: left out %d of %d rows with an error; the first is %s",
            *(folder, len(left_out), len(left_out) + len(names), left_out[0]),
        )
    return names, bool(left_out)


def _errors(shard: Path) -> list[tuple[str | None, str | None]]:
    """Return of each row the audio path, and the error where the recording could not be read."""
    try:
        file = pyarrow.parquet.ParquetFile(shard)
        types = {field.name: field.type for field in file.schema_arrow}
        if "error" not in types:
            return [(None, None)] * file.metadata.num_rows
        # The name identifies an embedded recording.
        is_struct = pa.types.is_struct(types.get("audio", pa.null()))
        rows = file.read(columns=["error", "audio.path" if is_struct else "audio"]).to_pylist()
    except (OSError, ValueError) as error:
        raise ValueError(f"{shard}: this is not a readable Parquet file ({reason(error)}).") from error
    return [((row.get("audio") or {}).get("path") if is_struct else row.get("audio"), row["error"]) for row in rows]


def read_note(folder: Path) -> dict[str, Any]:
    """Return the note of a folder, empty where there is none."""
    path = folder / SHARDS_NOTE
    if not path.is_file():
        return {}
    try:
        note = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: this is not a JSON object ({reason(error)}); write the shards again.") from error
    if not isinstance(note, dict):
        raise ValueError(f"{path}: this is not a JSON object; write the shards again.")
    return note
