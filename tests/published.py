"""The published encoders, for tests that need real weights."""

from pathlib import Path

import pytest

from msfser.encoders_msfser import prepared_folder

WHISPER = "openai/whisper-tiny.en"
MINILM = "sentence-transformers/all-MiniLM-L6-v2"


def missing(*names: str) -> str:
    """Why a test that needs these encoders is skipped; empty where they are prepared."""
    names = tuple(name for name in names if not prepared_folder(name).is_dir())
    return f"not prepared: msfser encoders {' '.join(names)}" if names else ""


def needs(*names: str) -> pytest.MarkDecorator:
    """Skips a test where one of the encoders is not prepared."""
    return pytest.mark.skipif(bool(missing(*names)), reason=missing(*names))


def link_prepared(home: Path) -> None:
    """Makes the prepared encoders those of a process with this HF_HOME, too."""
    (home / "msfser").mkdir(parents=True)
    (home / "msfser" / "encoders").symlink_to(prepared_folder(WHISPER).parent)
