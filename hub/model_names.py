"""What the settings of an annotation call the models that made it: names and hashes, never a path or an address.

The settings go by way of the processor into models that are published.
"""

import hashlib
import re
from collections.abc import Iterable
from pathlib import Path

from ..encoders_msfser import is_path, last_part

# Of a model folder, files that loading does not read.
_NOT_READ = re.compile(r"\..*|.*\.(md|msgpack|h5|onnx|lock|tmp)|training_args\.bin", re.IGNORECASE)


def model_settings(role: str, name: str, on_server: bool = False) -> dict[str, str]:
    """What identifies a model: its Hub name, or for a folder the folder's name and the hash of its content.

    Args:
        role: The key of the name, such as `recognizer`; the key of the hash is `recognizer_sha256`.
        name: A Hub name, a folder, or a word such as `none`.
        on_server: The name is that of a server's model, which may be a path there; its last part is kept.

    Raises:
        ValueError: It is neither a folder that is there nor a name that the Hub could have.
    """
    if on_server:
        return {role: last_part(name) if is_path(name) else name}
    folder = Path(name)
    if folder.is_dir():
        return {role: folder.resolve().name, f"{role}_sha256": content_hash(folder)}
    if is_path(name):
        raise ValueError(f"--{role} is {name!r}: there is no such folder; give one that exists, or a name on the Hub.")
    return {role: name}


def content_hash(folder: Path) -> str:
    """A hash of the files of a model folder that loading reads, wherever the folder is.

    Raises:
        ValueError: There is no such file.
    """
    files = [path for path in folder.iterdir() if path.is_file() and not _NOT_READ.fullmatch(path.name)]
    if not files:
        raise ValueError(f"{str(folder)!r} is a folder without a model: give one that save_pretrained wrote.")
    return files_hash(files)


def files_hash(files: Iterable[Path]) -> str:
    """A hash of the names and the contents of some files, wherever they are."""
    whole = hashlib.sha256()
    for path in sorted(files, key=lambda path: path.name):
        with path.open("rb") as file:
            whole.update(f"{path.name} {hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
    return whole.hexdigest()
