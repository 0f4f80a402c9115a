"""Reads a folder of recordings without a table."""

import logging
import os
from pathlib import Path

import datasets
import pyarrow as pa

from .audio_paths import real_path_finder
from .schema import FEATURES

logger = logging.getLogger(__name__)

# What soundfile decodes, by the usual names of such files.
SUFFIXES: tuple[str, ...] = (
    *(".aif", ".aifc", ".aiff", ".au", ".caf", ".flac", ".mp3", ".oga", ".ogg", ".opus", ".snd", ".w64", ".wav"),
)


def read_audio_folder(folder: str | os.PathLike[str]) -> datasets.Dataset:
    """Find the recordings of a folder and of the folders in it.

    Files are looked up by their names and neither opened nor decoded. Hidden files and folders are passed over. Links
    to folders are not followed; links to files that lead out of the folder, entries that are no regular files, and
    names that are not valid text are left out, with one warning.

    Args:
        folder: Where they are.

    Returns:
        A row for each recording with the features `schema.FEATURES`, in the order of the paths from the folder; all
        but the audio path is null.

    Raises:
        ValueError: There is no such folder, or no recording in it.
    """
    root = os.path.abspath(folder)
    if not os.path.isdir(root):
        raise ValueError(f"{os.fspath(folder)}: there is no such folder; name the one with the recordings.")
    real_path, real_root = real_path_finder(), os.path.join(os.path.realpath(root), "")
    files, left_out = [], []
    for parent, folders, names in os.walk(root):
        for name in [*names, *folders]:
            path = os.path.join(parent, name)
            relative = Path(path).relative_to(root).as_posix()
            if name.startswith("."):
                continue
            if name in folders:
                if os.path.islink(path):
                    left_out.append(relative)
            elif name.lower().endswith(SUFFIXES):
                good = real_path(path).startswith(real_root) and _is_text(relative)
                (files if good else left_out).append(relative)
        folders[:] = [name for name in folders if not name.startswith(".")]
    if left_out:
        logger.warning(
            "%s: left out %d entries that are links out of the folder or to folders, no regular files, or no valid "
            "text, such as %r",
            *(os.fspath(folder), len(left_out), min(left_out)),
        )
    if not files:
        raise ValueError(
            f"{os.fspath(folder)}: there is no recording in this folder; put files of the types {', '.join(SUFFIXES)} "
            "into it."
        )
    schema = FEATURES.arrow_schema.remove_metadata()
    rows = [{"audio": {"bytes": None, "path": os.path.join(root, file)}} for file in sorted(files)]
    return datasets.Dataset(
        pa.Table.from_pylist(rows, schema=schema), info=datasets.DatasetInfo(features=FEATURES.copy())
    )


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
