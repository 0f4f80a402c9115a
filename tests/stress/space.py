"""The demo page under load: fifty clients, some of which are slow, disconnect, or send what they should not.

cd tests && python -m stress.space MINUTES
"""

import contextlib
import hashlib
import json
import os
import random
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import gradio_client
import httpx
import psutil
import soundfile
from tiny import noise, tiny_model, tiny_processor

from msfser.configuration_msfser import LABELS

CLIENTS = 50
CLIPS = 10
_PATIENCE = 300.0
TESTS = Path(__file__).parents[1]


class Load(NamedTuple):
    """What became of the requests.

    Args:
        clients: That asked at once.
        answers: Results that came.
        wrong: Of these, those that are not the result for the clip that was sent.
        turned_away: Requests that got the sentence of a full queue.
        broken_off: Slow and broken uploads, and requests whose client went away.
        oversize: Files that are too large, all refused.
        failed: Requests that ended in any other way.
        growth: Of the server's memory from the first fifth of the time to its end, as a share.
        files_left: Uploads that were still there when they should have been deleted.
        leaks: Paths that should not have been readable and were.
    """

    clients: int
    answers: int
    wrong: int
    turned_away: int
    broken_off: int
    oversize: int
    failed: list[str]
    growth: float
    files_left: int
    leaks: list[str]


def serve(model: str, port: int) -> None:
    """In the server's process: the page with a model whose words are always the same, which keeps uploads a minute."""
    from demo_page import FakeRecognizer

    from msfser.space import analysis, page

    page.MINUTES_KEPT = 1
    built = page.build(analysis.load(model, recognizer=FakeRecognizer()), "a tiny model")
    built.launch(**page.options(), server_port=port, quiet=True)


@contextlib.contextmanager
def server(folder: Path) -> Iterator[tuple[str, psutil.Process, Path]]:
    """The page's address, its process, and its folder of uploads."""
    model, uploads = folder / "model", folder / "uploads"
    uploads.mkdir()
    # The sound must matter more than it does in a random model.
    tiny_model(initializer_range=0.3).save_pretrained(model)
    tiny_processor().save_pretrained(model)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    code = f"from stress.space import serve; serve({str(model)!r}, {port})"
    environment = os.environ | {"GRADIO_TEMP_DIR": str(uploads), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, "-c", code], cwd=TESTS, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    address, start = f"http://127.0.0.1:{port}/", time.monotonic()
    try:
        while True:
            if process.poll() is not None or time.monotonic() - start > _PATIENCE:
                raise RuntimeError("the page did not start")
            with contextlib.suppress(httpx.HTTPError):
                if httpx.get(f"{address}config", timeout=5).is_success:
                    break
            time.sleep(0.3)
        yield address, psutil.Process(process.pid), uploads
    finally:
        process.terminate()
        process.wait(30)


class _Visitors:
    """Clients that ask until a moment."""

    def __init__(self, address: str, clips: list[Path], expected: list[dict[str, Any]], deadline: float):
        self.address, self.clips, self.expected, self.deadline = address, clips, expected, deadline
        self.host, self.port = httpx.URL(address).host, httpx.URL(address).port
        self.counts = dict.fromkeys(("answers", "wrong", "turned_away", "broken_off", "oversize"), 0)
        self.failed: list[str] = []
        self._lock = threading.Lock()

    def visit(self, number: int) -> None:
        """One client."""
        draw = random.Random(number)
        try:
            client = gradio_client.Client(self.address, verbose=False)
        except Exception as error:
            self.failed.append(f"{number} cannot come in: {error!r}")
            return
        while time.monotonic() < self.deadline:
            what = draw.random()
            try:
                if what < 0.7:
                    self.ask(client, draw.randrange(len(self.clips)))
                elif what < 0.8:
                    self.upload_slowly(draw)
                elif what < 0.9:
                    self.break_off(draw)
                elif what < 0.98:
                    self.go_away(client, draw)
                else:
                    self.send_too_much()
            except Exception as error:
                self.failed.append(f"{type(error).__name__}: {str(error)[:200]}")

    def count(self, name: str) -> None:
        with self._lock:
            self.counts[name] += 1

    def ask(self, client: gradio_client.Client, clip: int) -> None:
        try:
            job = client.submit(gradio_client.handle_file(self.clips[clip]), "", api_name="/predict")
            result = job.result(timeout=_PATIENCE)
        except Exception as error:
            if "queue is full" in str(error).lower():
                self.count("turned_away")
                time.sleep(0.5)
                return
            raise
        self.count("answers")
        if any(abs(result[name] - self.expected[clip][name]) > 1e-5 for name in LABELS):
            self.count("wrong")

    def _begun(self, size: int) -> socket.socket:
        """A connection with the header of an upload and the beginning of its body."""
        connection = socket.create_connection((self.host, self.port), timeout=30)
        head = b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.wav"\r\n\r\n'
        request = f"POST /gradio_api/upload HTTP/1.1\r\nHost: {self.host}:{self.port}\r\n"
        request += f"Content-Type: multipart/form-data; boundary=x\r\nContent-Length: {size + len(head)}\r\n\r\n"
        connection.sendall(request.encode() + head)
        return connection

    def upload_slowly(self, draw: random.Random) -> None:
        tail = b"\r\n--x--\r\n"
        data = self.clips[0].read_bytes()[:2_000]
        with self._begun(len(data) + len(tail)) as connection:
            for start in range(0, len(data), 200):
                connection.sendall(data[start : start + 200])
                time.sleep(draw.uniform(0.05, 0.4))
            connection.sendall(tail)
            if b" 200 " not in connection.recv(100):
                self.failed.append("a slow upload was not taken")
        self.count("broken_off")

    def break_off(self, draw: random.Random) -> None:
        with self._begun(500_000) as connection:
            connection.sendall(b"\0" * draw.randrange(400_000))
        self.count("broken_off")

    def go_away(self, client: gradio_client.Client, draw: random.Random) -> None:
        """Joins the queue and does not wait for the result."""
        uploaded = self._uploaded(self.clips[draw.randrange(len(self.clips))])
        body = {"data": [{"path": uploaded, "meta": {"_type": "gradio.FileData"}}, ""]}
        httpx.post(f"{self.address}gradio_api/call/predict", json=body, timeout=60)
        self.count("broken_off")

    def _uploaded(self, clip: Path) -> str:
        with open(clip, "rb") as file:
            response = httpx.post(f"{self.address}gradio_api/upload", files={"files": file}, timeout=60)
        return response.json()[0]

    def send_too_much(self) -> None:
        block = b"\0" * 1_000_000
        with self._begun(70_000_000) as connection:
            with contextlib.suppress(OSError):  # The server hangs up.
                for _ in range(70):
                    connection.sendall(block)
            with contextlib.suppress(OSError):
                if b" 200 " in connection.recv(100):
                    self.failed.append("a file that is too large was taken")
        self.count("oversize")


def _raw_status(address: str, path: str) -> str:
    """The status of a request as it is written; a client would take the dots out of the path."""
    url = httpx.URL(address)
    with socket.create_connection((url.host, url.port), timeout=30) as connection:
        request = f"GET /{path} HTTP/1.1\r\nHost: {url.host}\r\nConnection: close\r\n\r\n"
        connection.sendall(request.encode())
        return connection.recv(100).decode(errors="replace").split()[1]


def leaks(address: str, uploads: Path, clip: Path) -> list[str]:
    """What a visitor can read but should not be able to."""
    found = []
    with open(clip, "rb") as file:
        own = Path(httpx.post(f"{address}gradio_api/upload", files={"files": file}, timeout=60).json()[0])
    paths = [
        *("/etc/passwd", "/proc/self/environ", str(TESTS / "tiny.py"), str(TESTS.parent / "space" / "app.py")),
        *(
            str(uploads),
            str(own.parent),
            str(own.parent.parent),
            "space/app.py",
            "../space/app.py",
            "file:///etc/passwd",
        ),
        *(f"{own.parent}/../../../../../../etc/passwd", f"{own.parent}/..%2f..%2f..%2fetc/passwd", f"{own}/../../.."),
        *(
            "http://127.0.0.1:1/",
            "//etc/passwd",
            "/dev/zero",
            str(TESTS.parent / "space" / "examples" / ".." / "app.py"),
        ),
    ]
    for path in paths:
        if _raw_status(address, f"gradio_api/file={path}").startswith("2"):
            found.append(path)
    # The name of an upload must not follow from its content.
    content = hashlib.sha256(clip.read_bytes()).hexdigest()
    if own.parent.name == content or len(own.parent.name) < 64:
        found.append(f"{own.parent.name} can be guessed")
    for route in ("config", "gradio_api/info", "gradio_api/queue/status", "gradio_api/startup-events"):
        if own.parent.name in httpx.get(f"{address}{route}", timeout=30).text:
            found.append(f"{route} names uploads")
    body = {"data": [{"path": "/etc/passwd", "meta": {"_type": "gradio.FileData"}}, ""]}
    event = httpx.post(f"{address}gradio_api/call/predict", json=body, timeout=60).json().get("event_id")
    if event and "complete" in httpx.get(f"{address}gradio_api/call/predict/{event}", timeout=60).text:
        found.append("a request may name a file of the server")
    page = httpx.post(
        f"{address}gradio_api/upload", files={"files": ("a.html", b"<script>alert(1)</script>")}, timeout=60
    )
    shown = httpx.get(f"{address}gradio_api/file={page.json()[0]}", timeout=30)
    if "attachment" not in shown.headers.get("content-disposition", ""):
        found.append("an upload is shown as a page")
    return found


def load(minutes: float, clients: int = CLIENTS) -> Load:
    """The page under load for some minutes, and until its uploads are deleted."""
    with tempfile.TemporaryDirectory() as folder, server(Path(folder)) as (address, process, uploads):
        clips = [Path(folder) / f"{i}.wav" for i in range(CLIPS)]
        for i, clip in enumerate(clips):
            soundfile.write(clip, noise(0.6 + 0.1 * i, i), 16_000)
        first = gradio_client.Client(address, verbose=False)
        expected = [first.predict(gradio_client.handle_file(clip), "", api_name="/predict") for clip in clips]
        if len({round(one["valence"], 5) for one in expected}) < CLIPS:
            raise RuntimeError("two clips have the same result, so exchanged results would not be noticed")
        readable = leaks(address, uploads, clips[0])
        visitors = _Visitors(address, clips, expected, time.monotonic() + 60 * minutes)
        threads = [threading.Thread(target=visitors.visit, args=(n,), daemon=True) for n in range(clients)]
        for thread in threads:
            thread.start()
        time.sleep(12 * minutes)
        before = process.memory_info().rss
        for thread in threads:
            thread.join(60 * minutes + _PATIENCE)
        growth = process.memory_info().rss / before - 1
        deadline = time.monotonic() + 200
        while (left := [file for file in uploads.rglob("*") if file.is_file()]) and time.monotonic() < deadline:
            time.sleep(1)
    counts = visitors.counts
    return Load(clients=clients, **counts, failed=visitors.failed, growth=growth, files_left=len(left), leaks=readable)


if __name__ == "__main__":
    print(json.dumps(load(float(sys.argv[1]))._asdict(), indent=1))
    os._exit(0)  # Clients' threads that read a stream without a limit would be waited for.
