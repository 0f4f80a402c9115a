"""Ten users at once on the demo page, one of them live, and whether the project's four ways to a prediction agree.

    python -m msfser.benchmarks.space [MODEL]

starts `space/app.py` on a model (by default `outputs/starter`, which `msfser starter outputs/starter` makes) and lets
ten users send requests at once, each user the same clip of the probe corpus ten times. Meanwhile, where there is a
Chromium, it speaks into the tab Live. Every answer is compared with the pipeline's for that clip. Then the same clips,
with the corpus's texts, go through the page, the pipeline, `train.py --do_predict` and plain `AutoModel`. Writes to
`benchmarks/results/serving.json`

- `space/wrong_answers`, of 100;
- `space/memory_growth` of the server, as a share, from the first ten of these requests to the last ten, and
  `space/memory_of_users`, by the first ten and the tab Live;
- `space/cold_start_seconds` until the page answers, with the model's files on the disk;
- `space/peak_memory_mb`;
- `space/seconds_alone`, the median of a request while there is no other;
- `space/live_results`, how many results came from the tab Live, and `space/live_lost_seconds` of its sound;
- `axe/serious`, how many rules of the accessibility checker axe-core the page breaks seriously, on both tabs, in light
  and dark; the checker is fetched by npm;
- `agreement/max_difference` between any two of the four.
"""

import base64
import contextlib
import json
import os
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psutil
import soundfile
import torch
from gradio_client import Client, handle_file
from playwright.sync_api import sync_playwright
from transformers import AutoModel, AutoProcessor, Pipeline, pipeline

from ..audio_msfser import SAMPLING_RATE, load_audio
from ..configuration_msfser import LABELS
from ..corpora.probe.corpus import make_probe
from ..evaluation.results import row
from .command import parser_of, record

ROOT = Path(__file__).parents[1]
APP = ROOT / "space" / "app.py"
AXE = "axe-core@4.14.1"
USERS = 10
ROUNDS = 10
_PATIENCE = 300.0


@contextlib.contextmanager
def _server(model: str) -> Iterator[tuple[str, psutil.Process, float]]:
    """The page's address, its process, and the seconds until it answered."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as uploads:
        settings = {"MSFSER_MODEL": model, "GRADIO_SERVER_PORT": str(port), "GRADIO_TEMP_DIR": uploads}
        process = subprocess.Popen([sys.executable, str(APP)], env=os.environ | settings, stdout=subprocess.DEVNULL)
        try:
            while True:
                if process.poll() is not None or time.monotonic() - start > _PATIENCE:
                    raise SystemExit("The page did not start.")
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                    break
                time.sleep(0.2)
            yield f"http://127.0.0.1:{port}/", psutil.Process(process.pid), time.monotonic() - start
        finally:
            process.terminate()
            process.wait(30)


def axe(folder: Path) -> str | None:
    """The script of axe-core, fetched into a folder; `None` if npm or its registry is missing."""
    if shutil.which("npm") is None:
        return None
    fetched = subprocess.run(["npm", "pack", "--silent", AXE], cwd=folder, capture_output=True, timeout=120)
    archives = list(folder.glob("axe-core-*.tgz"))
    if fetched.returncode or not archives:
        return None
    with tarfile.open(archives[0]) as archive:
        script = archive.extractfile("package/axe.min.js")
        return None if script is None else script.read().decode()


def violations(tab: Any, script: str) -> list[str]:
    """What the checker finds serious or critical on an open page: rule and first element.

    The button for the speed of gradio's player is left out: it says "1x" and is called otherwise, in gradio.
    """
    tab.evaluate(script)
    found = tab.evaluate(
        "axe.run({exclude: [['.playback']]}, {resultTypes: ['violations']}).then(found => found.violations)"
    )
    return [
        f"{one['id']}: {one['nodes'][0]['html'][:200]}" for one in found if one["impact"] in ("serious", "critical")
    ]


@contextlib.contextmanager
def browser(voice: Path) -> Iterator[Any]:
    """A Chromium whose microphone plays a recording again and again; `None` if there is none."""
    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if path is None:
        yield None
        return
    options = ["--no-sandbox", "--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream"]
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as player:
        sound = Path(folder) / "voice.wav"  # Chromium reads nothing else
        soundfile.write(sound, load_audio(str(voice)), SAMPLING_RATE)
        chromium = player.chromium.launch(
            executable_path=path, args=[*options, f"--use-file-for-fake-audio-capture={sound}"]
        )
        yield chromium
        chromium.close()


def _checked(chromium: Any, address: str, script: str) -> list[str]:
    """The serious violations of both tabs, in light and dark."""
    found: list[str] = []
    for theme in ("light", "dark"):
        tab = chromium.new_page()
        tab.goto(f"{address}?__theme={theme}")
        tab.get_by_text("What moves the numbers").or_(tab.get_by_text("Valence and arousal")).first.wait_for()
        found += violations(tab, script)
        tab.get_by_role("tab", name="Live").click()
        tab.get_by_text("Before you start").wait_for()
        found += violations(tab, script)
        tab.close()
    return found


def _started(chromium: Any, address: str) -> Any:
    """A page that is live."""
    tab = chromium.new_page()
    tab.set_default_timeout(_PATIENCE * 1000)
    tab.goto(address)
    tab.get_by_role("tab", name="Live").click()
    tab.get_by_role("button", name="Record", exact=True).last.click()
    tab.get_by_text("Over time").last.wait_for()
    return tab


def _stopped(tab: Any) -> tuple[int, float]:
    """How many results a live page has got, and how many seconds of sound did not arrive."""
    tab.get_by_role("button", name="Stop", exact=True).last.click()
    link = tab.get_by_role("link", name="JSON").last
    link.wait_for()
    tab.get_by_text(re.compile(r"^\d+:\d\d analyzed$")).wait_for()
    saved = json.loads(base64.b64decode(link.get_attribute("href").partition("base64,")[2]))
    lost = re.search(r"(\d+) s of sound did not arrive", tab.content())
    return len(saved["course"]), float(lost[1]) if lost else 0.0


def _difference(
    model: str, ser: Pipeline, clips: Sequence[Path], table: pd.DataFrame, by_page: Sequence[Mapping[str, float]]
) -> float:
    """The largest difference between two ways to the same number."""
    texts = table[["transcript", "emphasis", "description"]].to_dict("records")
    by_pipeline = [ser({"audio": str(clip), **of_clip}) for clip, of_clip in zip(clips, texts, strict=True)]
    plain = AutoModel.from_pretrained(model, trust_remote_code=True)
    processor = AutoProcessor.from_pretrained(model, trust_remote_code=True)
    with torch.no_grad():
        by_model = [
            plain(**processor(str(clip), **of_clip)).logits[0].tolist()
            for clip, of_clip in zip(clips, texts, strict=True)
        ]
    with tempfile.TemporaryDirectory() as folder:
        trained, corpus = Path(folder) / "model", Path(folder) / "corpus"
        shutil.copytree(model, trained, ignore=shutil.ignore_patterns("checkpoint-*"))
        corpus.mkdir()
        for clip in clips:
            shutil.copy(clip, corpus)
        rows = table[["transcript", "emphasis", "description", "split"]].assign(audio=[clip.name for clip in clips])
        rows.to_csv(corpus / "metadata.csv", index=False)
        command = [sys.executable, "train.py", "configs/probe.yaml", "--do_predict", "--overwrite"]
        command += ["--data", str(corpus / "metadata.csv"), "--output_dir", str(trained)]
        subprocess.run(command, cwd=ROOT, check=True)
        by_script = pd.read_csv(trained / "predictions.csv")[list(LABELS)].to_numpy()
    results = [[[one[name] for name in LABELS] for one in way] for way in (by_page, by_pipeline)]
    return float(np.ptp(np.array([*results, by_model, by_script]), axis=0).max())


def main(argv: Sequence[str] | None = None) -> None:
    """Sends requests, compares, prints and writes."""
    parser = parser_of("space", __doc__)
    parser.add_argument("model", nargs="?", default="outputs/starter")
    model = parser.parse_args(argv).model
    torch.set_num_threads(2)
    folder = make_probe("data/probe")
    table = pd.read_parquet(folder / "metadata.parquet")
    table = table[table["split"] == "test"][:USERS]
    clips = [folder / name for name in table["audio"]]

    with _server(model) as (address, process, cold_start):
        clients = [Client(address, verbose=False) for _ in clips]

        def ask(user: int) -> dict:
            job = clients[user].submit(handle_file(clips[user]), "en", api_name="/analyze")
            result: dict = job.result(timeout=_PATIENCE)
            return result

        alone = []
        for user in range(USERS):
            start = time.monotonic()
            ask(user)
            alone.append(time.monotonic() - start)
        used = [process.memory_info().rss]
        answers = []
        visits: list[dict] = []
        with browser(clips[0]) as chromium, ThreadPoolExecutor(USERS) as users:
            if chromium is not None:
                with tempfile.TemporaryDirectory() as fetched:
                    script = axe(Path(fetched))
                if script is not None:
                    found = _checked(chromium, address, script)
                    print(*found, sep="\n")
                    visits.append(row("axe/serious", len(found)))
                live = _started(chromium, address)
            for _ in range(ROUNDS):
                answers.append(list(users.map(ask, range(USERS))))
                used.append(process.memory_info().rss)
            if chromium is not None:
                results, lost = _stopped(live)
                visits += [row("space/live_results", results), row("space/live_lost_seconds", lost)]
        by_page = []
        for client, clip, item in zip(clients, clips, table.itertuples(), strict=True):
            texts = item.transcript, item.emphasis, item.description
            by_page.append(client.predict(handle_file(clip), "en", *texts, api_name="/analyze"))

    ser: Any = pipeline("audio-classification", model=model, trust_remote_code=True)
    expected = [ser({"audio": str(clip), "language": "en"}) for clip in clips]
    if len({one["transcript"] for one in expected}) < USERS:
        raise SystemExit("Two clips have the same words, so exchanged answers would not be noticed.")
    wrong = sum(
        answer["transcript"] != one["transcript"] or any(abs(answer[name] - one[name]) > 1e-4 for name in LABELS)
        for of_round in answers
        for answer, one in zip(of_round, expected, strict=True)
    )
    print("megabytes after each round:", *(round(one / 1e6) for one in used))
    rows = [
        row("space/wrong_answers", wrong),
        row("space/memory_growth", used[-1] / used[1] - 1),
        row("space/memory_of_users", used[1] / used[0] - 1),
        row("space/cold_start_seconds", cold_start),
        row("space/peak_memory_mb", max(used) / 1e6),
        row("space/seconds_alone", statistics.median(alone)),
        *visits,
        row("agreement/max_difference", _difference(model, ser, clips, table, by_page)),
    ]
    record("serving", rows, "space", argv)


if __name__ == "__main__":
    main()
