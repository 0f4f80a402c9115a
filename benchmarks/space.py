"""Ten users at once on the demo page, and whether the project's four ways to a prediction agree.

    python -m msfser.benchmarks.space [MODEL]

starts `space/app.py` on a model (by default `outputs/probe`) and lets ten users send requests at once, each user the
same clip of the probe corpus ten times. Every answer is compared with the pipeline's for that clip. Then the same
clips, with the corpus's texts, go through the page, the pipeline, `train.py --do_predict` and plain `AutoModel`.
Writes to `benchmarks/results/serving.json`

- `space/wrong_answers`, of 100;
- `space/memory_growth` of the server over these 100 requests, as a share;
- `space/cold_start_seconds` until the page answers, with the model's files on the disk;
- `space/peak_memory_mb`;
- `space/seconds_alone`, the median of a request while there is no other;
- `agreement/max_difference` between any two of the four.
"""

import contextlib
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psutil
import torch
from gradio_client import Client, handle_file
from transformers import AutoModel, AutoProcessor, Pipeline, pipeline

from ..configuration_msfser import LABELS
from ..corpora.probe.corpus import make_probe
from ..evaluation.results import row
from .command import parser_of, record

ROOT = Path(__file__).parents[1]
APP = ROOT / "space" / "app.py"
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
    parser.add_argument("model", nargs="?", default="outputs/probe")
    model = parser.parse_args(argv).model
    torch.set_num_threads(2)
    folder = make_probe("data/probe")
    table = pd.read_parquet(folder / "metadata.parquet")
    table = table[table["split"] == "test"][:USERS]
    clips = [folder / name for name in table["audio"]]

    with _server(model) as (address, process, cold_start):
        clients = [Client(address, verbose=False) for _ in clips]

        def ask(user: int) -> dict:
            job = clients[user].submit(handle_file(clips[user]), "en", api_name="/predict")
            return job.result(timeout=_PATIENCE)[-1]

        alone = []
        for user in range(USERS):
            start = time.monotonic()
            ask(user)
            alone.append(time.monotonic() - start)
        used = [process.memory_info().rss]
        answers = []
        with ThreadPoolExecutor(USERS) as users:
            for _ in range(ROUNDS):
                answers.append(list(users.map(ask, range(USERS))))
                used.append(process.memory_info().rss)
        by_page = []
        for client, clip, item in zip(clients, clips, table.itertuples(), strict=True):
            texts = item.transcript, item.emphasis, item.description
            by_page.append(client.predict(handle_file(clip), "en", *texts, api_name="/predict_with_texts")[-1])

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
        row("space/memory_growth", used[-1] / used[0] - 1),
        row("space/cold_start_seconds", cold_start),
        row("space/peak_memory_mb", max(used) / 1e6),
        row("space/seconds_alone", statistics.median(alone)),
        row("agreement/max_difference", _difference(model, ser, clips, table, by_page)),
    ]
    record("serving", rows, "space", argv)


if __name__ == "__main__":
    main()
