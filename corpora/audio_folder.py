"""Finds the recordings of a folder without a table."""

import logging
import os
import re

import datasets

from .audio_paths import real_path_finder
from .schema import file_audio, make_dataset
from .tree import existing_folder

logger = logging.getLogger(__name__)

# What soundfile decodes, by the usual names of such files.
SUFFIXES = (".aif", ".aifc", ".aiff", ".au", ".caf", ".flac", ".mp3", ".oga", ".ogg", ".opus", ".snd", ".w64", ".wav")

_NOT_TEXT = re.compile("[\ud800-\udfff]")


def find_recordings(folder: str | os.PathLike[str], content: str = "the recordings") -> list[str]:
    """Find the recordings of a folder and of the folders in it.

    Files are looked up by their names and neither opened nor decoded. Hidden files and folders are skipped. Links to
    folders are not followed; links to files outside the folder, entries that are no regular files, and names that are
    not valid text are left out, with one warning.

    Returns:
        Absolute paths, sorted.

    Raises:
        ValueError: There is no such folder; the sentence asks for the one that holds `content`.
    """
    root = os.path.abspath(existing_folder(folder, content))
    real_path, real_root = real_path_finder(), os.path.join(os.path.realpath(root), "")
    files: list[str] = []
    left_out: list[str] = []
    for parent, folders, names in os.walk(root):
        folders[:] = [name for name in folders if not name.startswith(".")]
        left_out += [path for path in (os.path.join(parent, name) for name in folders) if os.path.islink(path)]
        for name in names:
            if not name.startswith(".") and name.lower().endswith(SUFFIXES):
                path = os.path.join(parent, name)
                is_valid = real_path(path).startswith(real_root) and not _NOT_TEXT.search(path)
                (files if is_valid else left_out).append(path)
    if left_out:
        logger.warning(
            "%s: left out %d entries that are links out of the folder or to folders, no regular files, or no valid "
            "text, such as %r",
            *(os.fspath(folder), len(left_out), os.path.relpath(min(left_out), root)),
        )
    return sorted(files)


def read_audio_folder(folder: str | os.PathLike[str]) -> datasets.Dataset:
    """Read the recordings that [`find_recordings`] finds.

    Returns:
        A row for each with the features `schema.FEATURES`; all but the audio path is null.

    Raises:
        ValueError: There is no such folder, or no recording in it.
    """
    files = find_recordings(folder)
    if not files:
        raise ValueError(
            f"{os.fspath(folder)}: there is no recording in this folder; put files of the types {', '.join(SUFFIXES)} "
            "into it."
        )
    return make_dataset([{"audio": file_audio(file)} for file in files])
