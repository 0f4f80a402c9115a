"""How long reading many rows takes, and whether memory grows with them.

    python -m msfser.benchmarks.reader
    python -m msfser.benchmarks.reader --rows 10000 --steps read

Makes a table with one short recording for each row, in a temporary folder, and tiny encoders of random weights. Then
it reads the table, and gives it to `annotate`, `train` and `predict`, each in a process whose memory is sampled:

- `rows_N/seconds`, `rows_N/peak_mb`: reading the table, and the most memory of the process that reads it;
- `rows_N/per_row_growth`: seconds per row against those of a tenth of the rows, 1 where the time is linear;
- `rows_N/STEP_seconds`, `rows_N/STEP_growth`: the time of the command, and its memory at the end against that after a
  fifth of its time;
- `rows_N/memory_growth`: the largest of the last, 1 where memory is flat.
"""

import csv
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import soundfile
import torch
from transformers import BertConfig, BertModel, BertTokenizer, WhisperConfig, WhisperModel

from ..audio_msfser import SAMPLING_RATE
from ..configuration_msfser import LABELS
from ..evaluation.results import Row, row
from .command import parser_of, record

ROWS = 100_000
STEPS = ("read", "annotate", "train", "predict")
ROWS_PER_SPEAKER = 100

_WORDS = [
    "the",
    "a",
    "and",
    "of",
    "to",
    "in",
    "it",
    "is",
    "was",
    "that",
    "we",
    "they",
    "good",
    "bad",
    "day",
    "night",
    "rain",
    "sun",
]
_SAMPLE_SECONDS = 0.2
_MEGABYTE = 1024.0  # in the kilobytes of /proc

_READ = """
import json, resource, sys, time
from msfser.corpora.registry import read_corpus
start = time.perf_counter()
parts = read_corpus("table", sys.argv[1], label_range=(1, 7))
seconds = time.perf_counter() - start
assert sum(parts.num_rows.values()) == int(sys.argv[2]), parts.num_rows
print(json.dumps([seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss]))
"""


def main(argv: Sequence[str] | None = None) -> None:
    """Makes the rows and writes `benchmarks/results/reader.json`."""
    parser = parser_of("reader", __doc__)
    parser.add_argument("--rows", type=int, default=ROWS, help=f"rows of the table ({ROWS})")
    parser.add_argument("--steps", nargs="+", choices=STEPS, default=STEPS, help="what is measured (all)")
    arguments = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        record("reader", measure(Path(folder), arguments.rows, arguments.steps), "reader", argv)


def measure(folder: Path, count: int, steps: Sequence[str] = STEPS) -> list[Row]:
    """Makes a table and measures some steps.

    Args:
        folder: For everything that is made.
        count: Rows, at least 1000.
        steps: Of `STEPS`.

    Returns:
        The rows of the results.
    """
    table = write_rows(folder / "corpus", count)
    values: dict[str, float] = {}
    if "read" in steps:
        seconds, peak = read_seconds(table, count)
        tenth, _ = read_seconds(write_rows(folder / "tenth", count // 10), count // 10)
        values |= {"seconds": seconds, "peak_mb": peak, "per_row_growth": seconds / (10 * tenth)}
    growth = {}
    settings = write_settings(folder, table)
    commands = {
        "annotate": ["annotate", str(table), "--output", f"{folder}/annotated", "--recognizer", "none"],
        "train": ["train", str(settings), "--output_dir", f"{folder}/run"],
        "predict": ["predict", str(table), "-o", f"{folder}/out.csv", "--model", f"{folder}/run"],
    }
    for step in (step for step in ("annotate", "train", "predict") if step in steps):
        more = ["--recognizer", "none"] if step == "predict" else []
        seconds, growth[step] = memory_growth([*commands[step], *more], folder)
        values |= {f"{step}_seconds": seconds, f"{step}_growth": growth[step]}
    if growth:
        values["memory_growth"] = max(growth.values())
    return [row(f"rows_{count}/{name}", value) for name, value in values.items()]


def write_rows(folder: Path, count: int) -> Path:
    """A table of MSP-Podcast's size and scale, with one short recording for each row, and its path."""
    draw = np.random.default_rng(0)
    (folder / "audio").mkdir(parents=True)
    noise = (0.1 * draw.standard_normal(2 * SAMPLING_RATE)).astype(np.float32)
    with open(folder / "metadata.csv", "w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["audio", "transcript", *LABELS, "speaker"])
        for number in range(count):
            name = f"audio/{number:06d}.wav"
            start, length = draw.integers(0, SAMPLING_RATE), int(draw.integers(1600, 8000))
            # The level makes each recording another one: equal ones in several parts are refused.
            sound = draw.uniform(0.5, 1) * noise[start : start + length]
            soundfile.write(folder / name, sound, SAMPLING_RATE)
            labels = draw.integers(2, 15, 3) / 2
            text = " ".join(draw.choice(_WORDS, 8))
            table.writerow([name, text, *labels.tolist(), f"speaker {number // ROWS_PER_SPEAKER}"])
    return folder / "metadata.csv"


def write_settings(folder: Path, table: Path) -> Path:
    """Settings of a run with tiny encoders of random weights, made in the folder."""
    torch.manual_seed(0)
    size = {"d_model": 16, "encoder_layers": 1, "encoder_attention_heads": 2, "encoder_ffn_dim": 16}
    size |= {"decoder_layers": 1, "decoder_attention_heads": 2, "decoder_ffn_dim": 16, "num_mel_bins": 20}
    ids = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1, "vocab_size": 64}
    WhisperModel(WhisperConfig.from_dict({**size, **ids})).save_pretrained(folder / "audio")
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *_WORDS]
    (folder / "vocab.txt").write_text("\n".join(vocabulary), encoding="utf-8")
    BertTokenizer(str(folder / "vocab.txt")).save_pretrained(folder / "text")
    BertModel(
        BertConfig(
            vocab_size=len(vocabulary),
            hidden_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=16,
        )
    ).save_pretrained(folder / "text")
    settings = {
        **{"data": str(table), "label_range": [1, 7], "audio_encoder": f"{folder}/audio"},
        **{"text_encoder": f"{folder}/text", "freeze_audio": "all", "freeze_text": True, "fusion_size": 16},
        **{"num_train_epochs": 1, "per_device_train_batch_size": 64, "per_device_eval_batch_size": 64},
        **{"eval_strategy": "epoch", "save_strategy": "epoch", "load_best_model_at_end": True, "semantics": ["gs"]},
    }
    path = folder / "tiny.yaml"
    path.write_text(json.dumps(settings), encoding="utf-8")  # JSON is YAML
    return path


def read_seconds(table: Path, count: int) -> tuple[float, float]:
    """Seconds of reading a table, and the peak memory of the process in MB."""
    run = subprocess.run([sys.executable, "-c", _READ, table, str(count)], capture_output=True, text=True, check=True)
    seconds, peak = json.loads(run.stdout.splitlines()[-1])
    return seconds, peak / _MEGABYTE


def memory_growth(arguments: Sequence[str], folder: Path) -> tuple[float, float]:
    """Seconds of a command, and its memory in its last tenth against that after a fifth of its time.

    Raises:
        ValueError: The command ends with an error.
    """
    environment = os.environ | {"HF_HOME": str(folder / "home"), "HF_HUB_OFFLINE": "1"}
    samples = []
    start = time.perf_counter()
    with (folder / "log.txt").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "msfser", *arguments], stdout=log, stderr=log, env=environment
        )
        while process.poll() is None:
            samples.append(_resident_megabytes(process.pid))
            time.sleep(_SAMPLE_SECONDS)
    seconds = time.perf_counter() - start
    if process.returncode:
        raise ValueError(f"msfser {' '.join(arguments)} failed:\n{(folder / 'log.txt').read_text()[-2000:]}")
    samples = [sample for sample in samples if sample]
    early = max(samples[: max(1, len(samples) // 5)])
    late = float(np.median(samples[-max(1, len(samples) // 10) :]))
    return seconds, late / early


def _resident_megabytes(process: int) -> float:
    """Memory of a process, 0 once it has ended."""
    try:
        status = Path(f"/proc/{process}/status").read_text(encoding="utf-8")
    except OSError:
        return 0.0
    found = [line.split()[1] for line in status.splitlines() if line.startswith("VmRSS:")]
    return int(found[0]) / _MEGABYTE if found else 0.0


if __name__ == "__main__":
    main()
