"""A small Hub on loopback, in memory, with what `huggingface_hub` asks of the real one to publish and to load.

As there, writing needs the token and the namespace of its owner, and so does reading a private repository.
"""

import base64
import hashlib
import json
import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple
from urllib.parse import parse_qs, unquote, urlsplit

import yaml

OWNER = "someone"


class Blob(NamedTuple):
    """One file of a commit."""

    content: bytes
    lfs: bool

    @property
    def git_id(self) -> str:
        content = self.content
        if self.lfs:
            content = (
                "version https://git-lfs.github.com/spec/v1\n"
                f"oid sha256:{self.sha256}\nsize {len(self.content)}\n".encode()
            )
        return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.content).hexdigest()

    @property
    def etag(self) -> str:
        return self.sha256 if self.lfs else self.git_id

    def about(self) -> dict:
        large = {"lfs": {"sha256": self.sha256, "oid": self.sha256, "size": len(self.content), "pointerSize": 130}}
        return {"size": len(self.content), "blobId": self.git_id, "oid": self.git_id} | (large if self.lfs else {})


class Commit(NamedTuple):
    oid: str
    title: str
    files: dict[str, Blob]


@dataclass
class Repository:
    kind: str
    name: str
    private: bool
    sdk: str | None = None
    commits: list[Commit] = field(default_factory=lambda: [Commit(hashlib.sha1(b"").hexdigest(), "initial", {})])
    tags: dict[str, str] = field(default_factory=dict)

    def at(self, revision: str) -> Commit | None:
        oid = self.commits[-1].oid if revision == "main" else self.tags.get(revision, revision)
        return next((commit for commit in self.commits if commit.oid == oid), None)

    def add(self, title: str, files: dict[str, Blob]) -> Commit:
        oid = hashlib.sha1(f"{self.commits[-1].oid} {len(self.commits)}".encode()).hexdigest()
        self.commits.append(Commit(oid, title, files))
        return self.commits[-1]


class Hub:
    """The server, from `with Hub() as hub` on.

    Args:
        token: What a writer must show.
        large: Size in bytes from which files go the LFS way.

    Attributes:
        url: What `HF_ENDPOINT` must be.
        store: Where large files are: under another host name, as the real ones are.
        requests: `METHOD path` of all requests so far, without the query.
        failures: `METHOD part-of-path` -> status; the next such request fails with it, once.
    """

    def __init__(self, token: str = "hf_loopbackTokenOfTheTests", large: int = 1 << 40):
        self.token = token
        self.large = large
        self.requests: list[str] = []
        self.failures: dict[str, int] = {}
        self.repositories: dict[tuple[str, str], Repository] = {}
        self.stored: dict[str, bytes] = {}
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": self}))
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self.store = f"http://localhost:{self._server.server_port}/store"

    def __enter__(self) -> "Hub":
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_) -> None:
        self._server.shutdown()
        self._server.server_close()

    def repository(self, name: str, kind: str = "model") -> Repository:
        return self.repositories[kind, name]

    def files(self, name: str, revision: str = "main", kind: str = "model") -> dict[str, bytes]:
        return {path: blob.content for path, blob in self.repository(name, kind).at(revision).files.items()}


class _Refusal(Exception):
    def __init__(self, status: int, message: str, code: str = ""):
        super().__init__(message)
        self.status = status
        self.code = code


_NAME = r"(?P<name>[\w.-]+/[\w.-]+)"
_API = rf"/api/(?P<kind>model|space)s/{_NAME}"
_PAGE = rf"/(?P<prefix>spaces/)?{_NAME}"


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"
    routes = (
        ("GET", r"/api/whoami-v2", "who"),
        ("POST", r"/api/repos/create", "create"),
        ("POST", r"/api/validate-yaml", "validate"),
        ("GET", rf"{_API}(/revision/(?P<revision>[^/]+))?", "info"),
        ("GET", rf"{_API}/refs", "refs"),
        ("GET", rf"{_API}/tree/(?P<revision>[^/]+)(/(?P<folder>.+))?", "tree"),
        ("POST", rf"{_API}/preupload/(?P<revision>[^/]+)", "preupload"),
        ("POST", rf"{_API}/commit/(?P<revision>[^/]+)", "commit"),
        ("POST", rf"{_API}/tag/(?P<revision>[^/]+)", "tag"),
        ("POST", rf"{_PAGE}\.git/info/lfs/objects/batch", "batch"),
        ("PUT", r"/store/(?P<oid>[0-9a-f]{64})", "put"),
        ("GET", r"/store/(?P<oid>[0-9a-f]{64})", "fetch"),
        ("GET", rf"{_PAGE}/resolve/(?P<revision>[^/]+)/(?P<path>.+)", "resolve"),
    )

    def log_message(self, *_) -> None:
        pass

    def do_GET(self) -> None:
        self._handle()

    do_HEAD = do_POST = do_PUT = do_GET

    def _handle(self) -> None:
        path = urlsplit(self.path).path
        self.hub.requests.append(f"{self.command} {unquote(path)}")
        self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.headers.get("Transfer-Encoding") == "chunked":
            self.body = self._chunks()
        try:
            for failure, status in list(self.hub.failures.items()):
                method, part = failure.split()
                if self.command == method and part in path:
                    del self.hub.failures[failure]
                    raise _Refusal(status, "something broke")
            method = "GET" if self.command == "HEAD" else self.command
            for verb, pattern, name in self.routes:
                match = re.fullmatch(pattern, path)
                if verb == method and match:
                    found = {key: unquote(value) for key, value in match.groupdict().items() if value}
                    return getattr(self, name)(**found)
            raise _Refusal(404, f"there is no {self.command} {path}")
        except _Refusal as refusal:
            headers = {"X-Error-Message": str(refusal)} | ({"X-Error-Code": refusal.code} if refusal.code else {})
            self.answer({"error": str(refusal)}, refusal.status, headers)

    def _chunks(self) -> bytes:
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def answer(self, content: bytes | dict | list, status: int = 200, headers: dict[str, str] | None = None) -> None:
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        kind = "application/octet-stream" if isinstance(content, bytes) else "application/json"
        for name, value in ({"Content-Type": kind, "Content-Length": str(len(data))} | (headers or {})).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    # Who may do what.

    def known(self) -> bool:
        """Whether the token came along; a wrong one is refused."""
        given = self.headers.get("Authorization")
        if given is None:
            return False
        if given != f"Bearer {self.hub.token}":
            raise _Refusal(401, "Invalid credentials in Authorization header")
        return True

    def find(self, kind: str, name: str, write: bool = False) -> Repository:
        known = self.known()
        repository = self.hub.repositories.get((kind, name))
        if repository is None or (repository.private and not known) or (write and not known):
            raise _Refusal(404 if known else 401, "Repository not found", "RepoNotFound")
        if write and name.split("/")[0] != OWNER:
            raise _Refusal(403, f"you may not write to {name}")
        return repository

    def commit_at(self, repository: Repository, revision: str) -> Commit:
        commit = repository.at(revision)
        if commit is None:
            raise _Refusal(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return commit

    # The API.

    def who(self) -> None:
        if not self.known():
            raise _Refusal(401, "Invalid username or password.")
        self.answer({"type": "user", "name": OWNER, "orgs": [], "auth": {"type": "access_token"}})

    def create(self) -> None:
        wish = json.loads(self.body)
        if not self.known():
            raise _Refusal(401, "Invalid username or password.")
        owner = wish.get("organization") or OWNER
        if owner != OWNER:
            raise _Refusal(403, f'You don\'t have the rights to create a model under the namespace "{owner}"')
        kind, name = wish.get("type", "model"), f"{owner}/{wish['name']}"
        if (kind, name) in self.hub.repositories:
            raise _Refusal(409, "You already created this repository")
        private = wish.get("visibility") == "private" or bool(wish.get("private"))
        self.hub.repositories[kind, name] = Repository(kind, name, private, wish.get("sdk"))
        self.answer({"url": f"{self.hub.url}/{'spaces/' if kind == 'space' else ''}{name}", "name": name})

    def validate(self) -> None:
        wish = json.loads(self.body)
        front = re.match(r"---\n(.*?)\n---\n", wish["content"], re.DOTALL)
        try:
            data = yaml.safe_load(front[1]) if front else None
            problem = None if isinstance(data, dict) else "there is no metadata"
        except yaml.YAMLError as error:
            problem = str(error)
        if problem:
            self.answer({"errors": [{"message": problem}], "warnings": []}, 400)
        else:
            self.answer({"errors": [], "warnings": []})

    def info(self, kind: str, name: str, revision: str = "main") -> None:
        repository = self.find(kind, name)
        commit = self.commit_at(repository, revision)
        details = "blobs" in parse_qs(urlsplit(self.path).query)
        readme = commit.files.get("README.md", Blob(b"", False)).content.decode()
        front = re.match(r"---\n(.*?)\n---\n", readme, re.DOTALL)
        card = yaml.safe_load(front[1]) if front else {}
        self.answer(
            {
                "_id": "0",
                "id": name,
                "modelId": name,
                "sha": commit.oid,
                "private": repository.private,
                "tags": card.get("tags", []),
                "library_name": card.get("library_name"),
                "pipeline_tag": card.get("pipeline_tag"),
                "sdk": repository.sdk,
                "siblings": [
                    {"rfilename": path} | (blob.about() if details else {}) for path, blob in commit.files.items()
                ],
            }
        )

    def refs(self, kind: str, name: str) -> None:
        repository = self.find(kind, name)
        heads = [{"name": "main", "ref": "refs/heads/main", "targetCommit": repository.commits[-1].oid}]
        tags = [{"name": tag, "ref": f"refs/tags/{tag}", "targetCommit": oid} for tag, oid in repository.tags.items()]
        self.answer({"branches": heads, "converts": [], "tags": tags})

    def tree(self, kind: str, name: str, revision: str, folder: str = "") -> None:
        commit = self.commit_at(self.find(kind, name), revision)
        inside = {path: blob for path, blob in commit.files.items() if path.startswith(f"{folder}/" if folder else "")}
        if folder and not inside:
            raise _Refusal(404, f"{folder} does not exist", "EntryNotFound")
        self.answer([{"type": "file", "path": path} | blob.about() for path, blob in inside.items()])

    def preupload(self, kind: str, name: str, revision: str) -> None:
        commit = self.commit_at(self.find(kind, name, write=True), revision)
        modes = []
        for file in json.loads(self.body)["files"]:
            mode = "lfs" if file["size"] >= self.hub.large else "regular"
            there = commit.files.get(file["path"])
            known = {"oid": there.etag} if there and there.lfs == (mode == "lfs") else {}
            modes.append({"path": file["path"], "uploadMode": mode, "shouldIgnore": False} | known)
        self.answer({"files": modes})

    def commit(self, kind: str, name: str, revision: str) -> None:
        repository = self.find(kind, name, write=True)
        files = dict(self.commit_at(repository, revision).files)
        title = ""
        for line in self.body.splitlines():
            operation = json.loads(line)
            value = operation["value"]
            match operation["key"]:
                case "header":
                    title = value["summary"]
                case "file":
                    files[value["path"]] = Blob(base64.b64decode(value["content"]), lfs=False)
                case "lfsFile":
                    if value["oid"] not in self.hub.stored:
                        raise _Refusal(400, f"{value['path']} was never stored")
                    files[value["path"]] = Blob(self.hub.stored[value["oid"]], lfs=True)
                case "deletedFile":
                    del files[value["path"]]
        commit = repository.add(title, files)
        self.answer({"commitUrl": f"{self.hub.url}/{name}/commit/{commit.oid}", "commitOid": commit.oid})

    def tag(self, kind: str, name: str, revision: str) -> None:
        repository = self.find(kind, name, write=True)
        tag = json.loads(self.body)["tag"]
        if tag in repository.tags:
            raise _Refusal(409, f"Tag {tag} exists already")
        repository.tags[tag] = self.commit_at(repository, revision).oid
        self.answer({})

    # Large files.

    def batch(self, name: str, prefix: str = "") -> None:
        self.find("space" if prefix else "model", name, write=True)
        objects = []
        for wish in json.loads(self.body)["objects"]:
            upload = {"upload": {"href": f"{self.hub.store}/{wish['oid']}"}}
            missing = wish["oid"] not in self.hub.stored
            objects.append({"oid": wish["oid"], "size": wish["size"]} | ({"actions": upload} if missing else {}))
        self.answer({"transfer": "basic", "objects": objects})

    def put(self, oid: str) -> None:
        if hashlib.sha256(self.body).hexdigest() != oid:
            raise _Refusal(400, "the content is not what was announced")
        self.hub.stored[oid] = self.body
        self.answer({})

    def fetch(self, oid: str) -> None:
        self.answer(self.hub.stored[oid], headers={"ETag": f'"{oid}"'})

    def resolve(self, name: str, revision: str, path: str, prefix: str = "") -> None:
        commit = self.commit_at(self.find("space" if prefix else "model", name), revision)
        headers = {"X-Repo-Commit": commit.oid}
        if path not in commit.files:
            self.answer({}, 404, headers | {"X-Error-Code": "EntryNotFound", "X-Error-Message": "Entry not found"})
            return
        blob = commit.files[path]
        if blob.lfs:
            linked = {"X-Linked-Etag": f'"{blob.etag}"', "X-Linked-Size": str(len(blob.content))}
            self.answer(b"", 302, headers | linked | {"Location": f"{self.hub.store}/{blob.sha256}"})
        else:
            self.answer(blob.content, headers=headers | {"ETag": f'"{blob.etag}"'})
