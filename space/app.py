"""Runs the demo page: valence, arousal and dominance of a recording, with reasons, and its words to correct.

The page uses the model in MSFSER_MODEL, a folder or a name on the Hub, at the revision in MSFSER_REVISION. By default
a Space uses the model of its own name, and any other machine the folder outputs/starter. MSFSER_PRECISION is float32,
the default, or bfloat16. A Space runs the files of this folder alone, without the package: the model brings its code
along.
"""

import argparse
import contextlib
import os
import stat
import sys
import tempfile
import threading
import time
import types
from collections.abc import Sequence
from pathlib import Path

if not __package__:
    # As a script, as in a Space, this file makes its folder a package, so that it finds the others as in the package.
    __package__ = "msfser_space"
    sys.modules[__package__] = types.ModuleType(__package__)
    sys.modules[__package__].__path__ = [str(Path(__file__).parent)]

from .analysis import MINUTES_KEPT, load
from .page import build, options

STARTER = "outputs/starter"
MODEL = os.environ.get("MSFSER_MODEL") or os.environ.get("SPACE_ID") or STARTER
REVISION = os.environ.get("MSFSER_REVISION") or None
PRECISION = os.environ.get("MSFSER_PRECISION") or None
# Windows says of every file that it belongs to 0; the temporary files there are the user's own.
_USER = os.getuid() if hasattr(os, "getuid") else 0


def own_uploads() -> Path:
    """Makes the page's own folder of uploads, in GRADIO_TEMP_DIR or among the temporary files, which gradio then uses.

    What an earlier page of the same user has left in it may therefore be deleted.

    Raises:
        SystemExit: The folder cannot be made, or is not this user's own.
    """
    parent = Path(os.environ.get("GRADIO_TEMP_DIR") or tempfile.gettempdir())
    folder = parent / f"msfser-space-{_USER}"
    if not _make_own(folder):
        raise SystemExit(
            f"msfser space: error: {folder} cannot be made, or is no folder of yours that you can write to: set "
            "GRADIO_TEMP_DIR to another folder."
        )
    os.environ["GRADIO_TEMP_DIR"] = str(folder)
    return folder


def _make_own(folder: Path) -> bool:
    """Makes a folder if it is not there; whether it belongs to this user, who can write to it."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Not of what a link leads to: others may put one among the temporary files.
        found = folder.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == _USER and os.access(folder, os.W_OK | os.X_OK)


def delete_old(folder: Path, seconds: float) -> None:
    """Deletes files and empty folders that are older, at any depth."""
    # Files before their folders; a folder that contains a file is kept.
    for path in sorted(folder.rglob("*"), reverse=True):
        # It may have been deleted meanwhile.
        with contextlib.suppress(OSError):
            if time.time() - path.stat().st_mtime > seconds:
                path.rmdir() if path.is_dir() else path.unlink()


def _delete_old_every_minute(folder: Path) -> None:
    while True:
        delete_old(folder, MINUTES_KEPT * 60)
        time.sleep(60)


def _check_folder() -> None:
    """Ends with a sentence if the model is a folder that is not there.

    Otherwise the name would be looked up on the Hub, and whoever owns it there could run code here.
    """
    if Path(MODEL).is_dir():
        return
    if MODEL == STARTER:
        raise SystemExit(
            f"msfser space: error: there is no model in {STARTER}: assemble it with `make starter`, or set "
            "MSFSER_MODEL to a folder or the name of a model on the Hub."
        )
    first = Path(MODEL).parts[0]
    if not os.environ.get("SPACE_ID") and (first == Path(STARTER).parts[0] or Path(first).is_dir()):
        raise SystemExit(
            f"msfser space: error: there is no folder {MODEL}: train or assemble it first, or start the page "
            "elsewhere if it is a model on the Hub."
        )


def main(argv: Sequence[str] = ()) -> None:
    """Runs the demo page; ends with a sentence if there is no model, or it cannot be loaded."""
    formatter = argparse.RawDescriptionHelpFormatter
    argparse.ArgumentParser(prog="msfser space", description=__doc__, formatter_class=formatter).parse_args(argv)
    _check_folder()
    threading.Thread(target=_delete_old_every_minute, args=[own_uploads()], daemon=True).start()
    try:
        ser = load(MODEL, REVISION, **({"precision": PRECISION} if PRECISION else {}))
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise SystemExit(f"msfser space: error: the model {MODEL} cannot be loaded: {reason}") from error
    build(ser, MODEL, REVISION).launch(**options())


if __name__ == "__main__":
    main(sys.argv[1:])
