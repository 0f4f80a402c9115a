"""Finds the recordings of a folder without a table, and says of every other file why it is none."""

import importlib.util
import logging
import os
import re
from typing import NamedTuple

import datasets

from .audio_paths import real_path_finder
from .messages import counted
from .schema import file_audio, make_dataset
from .shards import SHARDS_NOTE
from .sources import TABLE_SUFFIXES
from .tree import existing_folder

logger = logging.getLogger(__name__)

# The one list of the usual endings of recordings' names, each with the package that reads it.
AUDIO_SUFFIXES = dict.fromkeys(
    (
        *(".aif", ".aifc", ".aiff", ".au", ".bwf", ".caf", ".flac", ".mp2", ".mp3", ".mpga", ".nist", ".oga", ".ogg"),
        *(".opus", ".rf64", ".snd", ".sph", ".w64", ".wav", ".wave"),
    ),
    "soundfile",
) | dict.fromkeys(
    (
        *(".3g2", ".3gp", ".3gpp", ".aac", ".adts", ".amr", ".awb", ".m4a", ".m4b", ".m4r", ".m4v", ".mka", ".mkv"),
        *(".mov", ".mp4", ".qt", ".weba", ".webm"),
    ),
    "av",
)
_HAS_PYAV = importlib.util.find_spec("av") is not None
NO_PYAV = 'need PyAV: pip install "msfser[media]"'
_OTHER_NAME = "whose names do not end as sound files do"
# Of each reason, as many names are shown.
_MOST_NAMES = 10

_NOT_TEXT = re.compile("[\ud800-\udfff]")


class FolderContents(NamedTuple):
    """All files of a folder and of the folders in it.

    Args:
        recordings: Absolute paths, sorted.
        left_out: Why each other file is no recording, by its path from the folder, sorted; the path of a folder that
            is left out as a whole ends with a slash.
    """

    recordings: list[str]
    left_out: dict[str, str]


def scan_folder(folder: str | os.PathLike[str], content: str = "the recordings") -> FolderContents:
    """Look up all files of a folder by their names; none is opened or decoded.

    Links to folders are not followed, and what `annotate` wrote is left out.

    Raises:
        ValueError: There is no such folder; the sentence asks for the one that holds `content`.
    """
    root = os.path.abspath(existing_folder(folder, content))
    real_path, real_root = real_path_finder(), os.path.join(os.path.realpath(root), "")
    recordings: list[str] = []
    left_out: dict[str, str] = {}

    def unreadable(error: OSError) -> None:
        left_out[_shown(error.filename, root) + "/"] = f"cannot be read ({error.strerror})"

    for parent, folders, names in os.walk(root, onerror=unreadable):
        entered = []
        for name in folders:
            path = os.path.join(parent, name)
            if why := why_not_entered(path):
                left_out[_shown(path, root) + "/"] = why
            else:
                entered.append(name)
        folders[:] = entered
        for name in names:
            path = os.path.join(parent, name)
            why = _why_no_recording(name) or _why_not_usable(path, real_path(path), real_root)
            if why:
                left_out[_shown(path, root)] = why
            else:
                recordings.append(path)
    return FolderContents(sorted(recordings), dict(sorted(left_out.items())))


def left_out_message(left_out: dict[str, str]) -> str:
    """Return a sentence that counts the files that are no rows by their reasons, and names them and any remedy."""
    by_reason: dict[str, list[str]] = {}
    for name, why in left_out.items():
        by_reason.setdefault(why, []).append(name)
    parts = []
    for why, names in sorted(by_reason.items(), key=lambda item: -len(item[1])):
        more = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
        parts.append(f"{why} ({len(names)}): {', '.join(map(repr, names[:_MOST_NAMES]))}{more}")
    if _OTHER_NAME in by_reason:
        parts.append("name a file itself, or in a table, to read it")
    return f"left out {counted(len(left_out), 'file')}: {'; '.join(parts)}."


def read_audio_folder(folder: str | os.PathLike[str]) -> datasets.Dataset:
    """Read the recordings that [`scan_folder`] finds, with one warning about all other files.

    Returns:
        A row for each with the features `schema.FEATURES`; all but the audio path is null.

    Raises:
        ValueError: There is no such folder, or no recording in it.
    """
    contents = scan_folder(folder)
    if contents.recordings and contents.left_out:
        logger.warning("%s: %s", os.fspath(folder), left_out_message(contents.left_out))
    return recordings_of(folder, contents)


def recordings_of(folder: str | os.PathLike[str], contents: FolderContents) -> datasets.Dataset:
    """Return the rows of [`read_audio_folder`]."""
    if not contents.recordings:
        others = f" ({left_out_message(contents.left_out).removesuffix('.')})" if contents.left_out else ""
        raise ValueError(
            f"{os.fspath(folder)}: there is no recording in this folder{others}; put files that end with "
            f"{', '.join(AUDIO_SUFFIXES)} into it."
        )
    return make_dataset([{"audio": file_audio(file)} for file in contents.recordings])


def _shown(path: str, root: str) -> str:
    """A path from the folder as text that JSON can hold."""
    return name_as_text(os.path.relpath(path, root))


def name_as_text(path: str) -> str:
    """Return a path as text that JSON can hold, with signs for bytes that are no text."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def why_no_text(path: str) -> str:
    """Return why no table can hold a path; "" if one can."""
    return "with names that are not valid text" if _NOT_TEXT.search(path) else ""


def why_not_entered(path: str) -> str:
    """Return why the search for files passes over a folder in another one; "" if it does not."""
    if os.path.basename(path).startswith("."):
        return "hidden"
    if os.path.islink(path):
        return "links to folders"
    return "written by annotate" if os.path.isfile(os.path.join(path, SHARDS_NOTE)) else ""


def _why_no_recording(name: str) -> str:
    if name.startswith("."):
        return "hidden"
    suffix = os.path.splitext(name)[1].lower()
    if suffix in TABLE_SUFFIXES:
        return "tables, whose rows are read if the table is named in place of the folder"
    if suffix not in AUDIO_SUFFIXES:
        return _OTHER_NAME
    return NO_PYAV if AUDIO_SUFFIXES[suffix] == "av" and not _HAS_PYAV else ""


def _why_not_usable(path: str, real: str, real_root: str) -> str:
    if why := why_no_text(path):
        return why
    if not real:
        is_broken = os.path.islink(path) and not os.path.exists(path)
        return "links that lead nowhere" if is_broken else "not regular files"
    return "" if real.startswith(real_root) else "links out of the folder"
