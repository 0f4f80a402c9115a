"""The audio column of a source: where the files are, and that none is outside the data folder."""

import functools
import os
import stat
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from .columns import text_column
from .messages import counted
from .sources import Part


def audio_paths(part: Part, column: str, errors: dict[int, str] | None = None) -> np.ndarray | None:
    """Return the audio paths as they are written, or `None` where the rows embed their recordings.

    Args:
        part: The table.
        column: Of the recordings.
        errors: As in [`Part.refuse`], for rows without a path among others with one, or without an embedded recording.

    Raises:
        ValueError: The column holds neither; or, without `errors`, a row cannot be used.
    """
    values = part.table[column]
    if pa.types.is_struct(values.type) and values.type.get_field_index("array") >= 0:
        raise ValueError(
            f"{part.label}: {column!r} holds decoded sound; encode it with cast_column({column!r}, datasets.Audio())."
        )
    if pa.types.is_struct(values.type) and {"bytes", "path"} & {field.name for field in values.type}:
        fields = {field.name: pc.struct_field(values, field.name) for field in values.type}
        if "bytes" in fields:
            kind = fields["bytes"].type
            embedded = pc.is_valid(fields["bytes"]).to_numpy()
            if embedded.any() and not (pa.types.is_binary(kind) or pa.types.is_large_binary(kind)):
                raise ValueError(f"{part.label}: the recordings in {column!r} are {kind}; write bytes or paths.")
            if embedded.any():
                for index in np.flatnonzero(~embedded).tolist():
                    why = f"{column!r} embeds no recording while other rows do; embed all or none."
                    part.refuse(index, why, errors)
                return None
        values = fields.get("path", pa.chunked_array([pa.nulls(len(values), pa.string())]))
    paths = text_column(part, column, values)
    for index in np.flatnonzero(paths.is_null().to_numpy()).tolist():
        part.refuse(index, f"{column!r} is blank; name the audio file of each row or remove the row.", errors)
    return paths.to_numpy(zero_copy_only=False)


def locate(
    part: Part,
    paths: np.ndarray,
    folders: tuple[Path, ...],
    missing_ok: bool = False,
    errors: dict[int, str] | None = None,
) -> tuple[list[str], np.ndarray]:
    """Find the audio files, all of which must be in the data folder after symbolic links are followed.

    Args:
        part: The table.
        paths: As [`audio_paths`] returns them.
        folders: Relative paths start at the first; no path may lead out of all of them.
        missing_ok: Whether files may be missing.
        errors: As in [`Part.refuse`], for paths that lead out of the folders.

    Returns:
        The absolute path of each row, and its real path, which rows with the same file share. Both are "" for missing
        files, and for rows in `errors`.

    Raises:
        ValueError: A file is missing that may not be; or, without `errors`, a path leads out of the folders.
    """
    base = os.path.abspath(folders[0])
    roots = tuple(os.path.join(os.path.realpath(folder), "") for folder in folders)
    real_path = real_path_finder()
    files = ["" if path is None else os.path.join(base, path) for path in paths]
    real = [file and real_path(file) for file in files]
    outside = [index for index, file in enumerate(real) if file and not file.startswith(roots)]
    for index in outside:
        why = (
            f"the audio path {paths[index]!r} leads out of the data folder {os.fspath(folders[0])!r} "
            f"({counted(len(outside), 'such row')}); move the files into it, or name their folder by --audio_folder."
        )
        part.refuse(index, why, errors)
        real[index] = ""
    missing = [index for index, file in enumerate(real) if not file]
    if missing and not missing_ok:
        raise ValueError(
            f"{part.row(missing[0])}: {len(missing)} of {len(paths)} audio files are not there, such as "
            f"{', '.join(repr(str(paths[index])) for index in missing[:3])}; add them to "
            f"{os.fspath(folders[0])!r}, or name their folder by --audio_folder."
        )
    files = [file if found else "" for file, found in zip(files, real, strict=True)]
    return files, np.array(real, dtype=object)


def real_path_finder() -> Callable[[str], str]:
    """Make a function from a path to its real path, or "" where no regular file is there.

    Folders are resolved once each: resolving every component of every path takes minutes on a network disk.
    """
    resolved = functools.cache(os.path.realpath)

    def real_path(file: str) -> str:
        folder, name = os.path.split(file)
        try:
            path = os.path.join(resolved(folder), name)
            mode = os.lstat(path).st_mode
            if stat.S_ISLNK(mode):
                path = os.path.realpath(path)
                mode = os.stat(path).st_mode
        except (OSError, ValueError):
            return ""
        return path if stat.S_ISREG(mode) else ""

    return real_path
