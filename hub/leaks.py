"""What may not be published: paths of a machine, internal addresses, user names and tokens."""

import contextlib
import functools
import getpass
import ipaddress
import re
import socket
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from safetensors import safe_open

from ..starter.assemble import CARD, STARTERS
from .card import read_json

ROOT = Path(__file__).parents[1]

# Sites that a card, a config or a Space may name, with all below them.
PUBLIC_HOSTS = (
    *("huggingface.co", "hf.co", "hf.space", "gradio.app", "github.com", "github.io", "githubusercontent.com"),
    *("arxiv.org", "doi.org", "zenodo.org", "openslr.org", "kaggle.com", "wikipedia.org", "aclanthology.org"),
    *("creativecommons.org", "gnu.org", "apache.org", "opensource.org", "spdx.org", "europa.eu", "w3.org"),
    *("python.org", "pypi.org", "pytorch.org", "schema.org", "example.com", "example.org"),
)
# Of these, words are anything: a token of the vocabulary may look like a path.
_VOCABULARIES = ("vocab.json", "vocab.txt", "merges.txt", "added_tokens.json")
_TEXTS = (".json", ".py", ".md", ".yaml", ".yml", ".txt", ".toml", ".cfg", ".csv", ".html", ".css", ".js", ".svg")
# Of a machine, not of a person.
_COMMON_USERS = {
    *("root", "user", "users", "home", "admin", "guest", "nobody", "default", "ubuntu", "debian", "runner", "jovyan"),
    *("vscode", "codespace", "docker", "azureuser", "ec2-user", "test", "model", "data", "audio", "text", "space"),
}

_URL = re.compile(r"\b([a-z][a-z0-9+.-]*)://([^\s/\"'<>()\[\]`|\\]*)", re.IGNORECASE)
_TOKEN = re.compile(r"\b(?:hf_\w{16,}|sk-[\w-]{16,}|gh[pousr]_\w{20,}|github_pat_\w{20,}|AKIA[0-9A-Z]{16})\b")
_ADDRESS = re.compile(
    r"(?<![\w.-])(?:\d{1,3}(?:\.\d{1,3}){3}"
    r"|[\w-]+(?:\.[\w-]+)*\.(?:local|localdomain|internal|intranet|intra|lan|corp|svc)(?![\w.(-]))(?::\d+)?(?![\w.]*\d)",
    re.IGNORECASE,
)
_HOST_AND_PORT = re.compile(r"(?<![\w.:/-])(?=[\w.-]*[a-z])[\w-]+(?:\.[\w-]+)*:\d{3,5}(?![\w:])", re.IGNORECASE)
_MACHINE_PATH = re.compile(
    r"(?<![\w/.:<>*~)\]}-])(?:~[\w-]*/[\w.@+-]+|/[\w.@+-]+/)[\w.@+/-]*"
    r"|(?<!\w)[A-Za-z]:[\\/](?!/)[^\s\"'<>|]+|(?<![\\\w])\\\\[\w.-]+\\[^\s\"'<>|]+"
)
_RELATIVE_PATH = re.compile(r"[\w.+@-]+(?:[\\/]+[\w.+@-]+)+[\\/]?")
_ADDRESS_KEYS = frozenset(("url", "base_url", "server", "endpoint", "host", "hostname", "user", "username"))


def check_no_leaks(files: Mapping[str, Path], kind: str, repo: str, allowed: Iterable[str] = ()) -> None:
    """Checks that the files of an upload tell nothing about the machine that they come from.

    Files that the package itself ships are not looked into.

    Args:
        files: By their path in the repository.
        kind: What the files are of, for the sentence: `model` or `space`.
        repo: `OWNER/NAME`, which may be named.
        allowed: Findings that may be published.

    Raises:
        ValueError: A file holds a path of a machine, an address that is not public, a user name or a token; the
            sentence names both.
    """
    shipped = _shipped_text()
    for name, path in files.items():
        if _is_shipped(name, path):
            continue
        for found, what in _findings(name, path, files):
            if found in (*allowed, repo, *repo.split("/")):
                continue
            if not re.search(rf"(?<!\w){re.escape(found)}(?!\w)", shipped):
                raise ValueError(
                    f"{name} of the {kind} holds {found!r}, {what}: remove it, or give --allow {found!r} if "
                    "everybody may read it."
                )


def _findings(name: str, path: Path, files: Mapping[str, Path]) -> Iterator[tuple[str, str]]:
    for part in Path(name).parts:
        yield from _in_text(part)
    if path.suffix == ".safetensors":
        with safe_open(path, framework="numpy") as weights:
            yield from _in_settings([weights.metadata() or {}, *weights.keys()], files)
        return
    content = path.read_bytes()
    if path.suffix not in _TEXTS or name in _VOCABULARIES:
        home = str(Path.home())
        if len(Path(home).parts) > 2 and home.encode() in content:
            yield home, "a path of a machine"
        return
    text = content.decode(errors="replace")
    if path.suffix != ".json":
        yield from _in_text(text)
        words = [] if path.suffix == ".py" else _RELATIVE_PATH.findall(text)
        yield from ((word, "a path of this machine") for word in words if _is_here(word, files))
        return
    settings = read_json(path.resolve())
    if name == "tokenizer.json":
        model = {key: value for key, value in settings.get("model", {}).items() if key not in ("vocab", "merges")}
        settings = settings | {"model": model, "added_tokens": []}
    yield from _in_settings(settings, files)


def _in_settings(settings: Any, files: Mapping[str, Path]) -> Iterator[tuple[str, str]]:
    """Findings in the keys and values of JSON: a value may also be a path as a whole."""
    for key, value in _strings(settings):
        yield from _in_text(value)
        if key in _ADDRESS_KEYS:
            yield value, "an address or a user name"
        yield from ((found, "an address that is not public") for found in _HOST_AND_PORT.findall(value))
        parts = re.split(r"[\\/]+", value) if _RELATIVE_PATH.fullmatch(value) else []
        is_relative = len(parts) > 2 or "\\" in value or bool(parts and parts[0] in (".", ".."))
        if (parts and is_relative) or _is_here(value, files):
            yield value, "a path of a machine"


def _in_text(text: str) -> Iterator[tuple[str, str]]:
    for found in _TOKEN.finditer(text):
        yield found[0], "a token"
    for found in _URL.finditer(text):
        if not _is_public(found[1], found[2]):
            yield found[0], "an address that is not public"
    for found in _ADDRESS.finditer(text):
        if not found[0][0].isdigit() or _is_ip_address(found[0].partition(":")[0]):
            yield found[0], "an address that is not public"
    for found in _MACHINE_PATH.finditer(text):
        yield found[0], "a path of a machine"
    for word, what in _names_of_this_machine():
        # A name on the Hub may start with it.
        named = re.findall(rf"(?<![\w./-]){re.escape(word)}(?![\w/-])", text, re.IGNORECASE)
        yield from ((found, what) for found in named)


def _is_public(scheme: str, host: str) -> bool:
    if "{" in host or (not host and scheme.lower() in ("http", "https")):  # code that builds an address
        return True
    is_site = any(host.lower() == site or host.lower().endswith(f".{site}") for site in PUBLIC_HOSTS)
    return is_site and scheme.lower().rpartition("+")[2] in ("http", "https")


def _is_ip_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _is_here(text: str, files: Mapping[str, Path]) -> bool:
    """Whether a text is a path of a file or folder here, other than of an uploaded file."""
    is_path = bool(_RELATIVE_PATH.fullmatch(text)) or re.fullmatch(r"/[\w.@+-]+", text) is not None
    return is_path and text not in files and Path(text).exists()


@functools.cache
def _names_of_this_machine() -> list[tuple[str, str]]:
    """The names of the user and of the machine that are no common words, and what each is."""
    users = {Path.home().name}
    with contextlib.suppress(OSError, KeyError, ImportError):  # some containers have no such user
        users.add(getpass.getuser())
    users = {user for user in users if len(user) > 3 and user.lower() not in _COMMON_USERS}
    hosts = {host for host in (socket.gethostname(),) if len(host) > 3 and host.lower() not in ("localhost",)}
    return [
        *((user, "a user name") for user in sorted(users)),
        *((host, "the name of this machine") for host in hosts),
    ]


@functools.cache
def _shipped_text() -> str:
    """The pages that the package ships and that cards are made of: what they name is public."""
    pages = [ROOT / name for name in ("model_card.md", "starter/fitted_card.md", "space/README.md")]
    pages += [starter.folder / CARD for starter in STARTERS.values()]
    return "\n".join(page.read_text(encoding="utf-8") for page in pages)


def _is_shipped(name: str, path: Path) -> bool:
    content = path.read_bytes() if path.stat().st_size < 2**24 else None
    same = (ROOT / name, ROOT / "space" / name)
    return content is not None and any(file.is_file() and file.read_bytes() == content for file in same)


def _strings(value: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """All strings of JSON: its keys, and its values with their key."""
    if isinstance(value, str):
        yield key, value
    elif isinstance(value, Mapping):
        for name, inner in value.items():
            yield "", name
            yield from _strings(inner, name)
    elif isinstance(value, list):
        for inner in value:
            yield from _strings(inner, key)
