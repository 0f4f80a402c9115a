"""Where the tests keep their caches, and how a run of them ends."""

import os
import shutil
import socket
import sys
import tempfile
import threading
from pathlib import Path

# Read when the Hugging Face libraries are imported: nothing that a test caches stays, and no test connects to the Hub.
# Processes that a test starts, and parallel workers, share the folder, and the process that made it removes it. What
# `msfser encoders` has prepared is linked into it.
if "msfser-tests-" not in os.environ.get("HF_HOME", ""):
    os.environ["MSFSER_TESTS_OWNER"] = str(os.getpid())
    cache = os.environ.get("HF_HOME") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "huggingface")
    prepared = Path(cache).expanduser() / "msfser" / "encoders"
    os.environ["HF_HOME"] = tempfile.mkdtemp(prefix="msfser-tests-")
    if prepared.is_dir():
        (Path(os.environ["HF_HOME"]) / "msfser").mkdir()
        (Path(os.environ["HF_HOME"]) / "msfser" / "encoders").symlink_to(prepared.resolve())
os.environ["HF_HUB_OFFLINE"] = "1"

import pytest


@pytest.fixture
def no_hub(monkeypatch, tmp_path):
    """What this machine has in its Hub cache decides nothing, and every connection is an error."""
    import huggingface_hub

    from msfser import encoders_msfser

    def refuse(*args, **kwargs):
        pytest.fail("a connection was tried")

    for name in ("connect", "connect_ex"):
        monkeypatch.setattr(socket.socket, name, refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    encoders_msfser._hub_is_reachable.cache_clear()
    yield
    encoders_msfser._hub_is_reachable.cache_clear()


@pytest.fixture
def nothing_prepared(monkeypatch, tmp_path):
    """No encoder is prepared; those that a test prepares lie in its own folder."""
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub.constants, "HF_HOME", str(tmp_path / "home"))


_ended = pytest.StashKey[int]()


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session, exitstatus):
    session.config.stash[_ended] = int(exitstatus)
    if os.environ.get("MSFSER_TESTS_OWNER") == str(os.getpid()):
        shutil.rmtree(os.environ["HF_HOME"], ignore_errors=True)


def pytest_terminal_summary(terminalreporter):
    """Names the deprecated things that the project's own files use, apart from those of its libraries."""
    root = Path(__file__).parents[1]
    ours = set()
    for report in terminalreporter.stats.get("warnings", []):
        file = Path(report.fslocation[0]) if report.fslocation else None
        is_ours = file is not None and file.is_relative_to(root) and "site-packages" not in file.parts
        if is_ours and ("Deprecation" in report.message or "FutureWarning" in report.message):
            ours.add(f"{file.relative_to(root)}:{report.fslocation[1]}: {report.message.splitlines()[0][-300:]}")
    if ours:
        terminalreporter.section("deprecated, in files of this project")
        for line in sorted(ours):
            terminalreporter.line(f"warning: {line}")


@pytest.hookimpl(trylast=True)
def pytest_unconfigure(config):
    """Ends the process when the summary is written.

    Threads of the libraries under test can outlive the tests, and Python waits for them for ever: gradio's client
    reads a stream without a time limit in a thread that is no daemon, and the server that is to end it is one.
    """
    if _ended not in config.stash or hasattr(config, "workerinput"):
        return
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    left = [thread.name for thread in threading.enumerate() if not thread.daemon][1:]
    if left:
        reporter.write_line(f"threads left: {', '.join(left)}")
    reporter.flush()
    sys.stderr.flush()
    os._exit(config.stash[_ended])
