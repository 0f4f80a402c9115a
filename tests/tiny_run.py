"""A run of `msfser train` that takes a second: tiny encoders, a tiny corpus and the command that trains on them."""

import csv
import json
import os
from pathlib import Path

import numpy as np
import soundfile
import torch
from safetensors.torch import load_file
from tiny import noise, tiny_model, tiny_tokenizer
from transformers import WhisperModel

from msfser import LABELS
from msfser.evaluation.results import INTERVALS, Row

# The names of the rows about the intervals on the test part.
INTERVAL_ROWS = {f"{INTERVALS}test/{label}/{kind}" for label in LABELS for kind in ("coverage", "width")}

WORDS = ["a", "b", "c", "d", "e", "f"]


def make_tiny(folder: Path) -> Path:
    """A folder with two tiny encoders, a corpus of 48 clips, and settings that train them for three epochs."""
    model = tiny_model("whisper")
    WhisperModel(model.config.audio_config).save_pretrained(folder / "audio")
    model.text_encoder.save_pretrained(folder / "text")
    tiny_tokenizer().save_pretrained(folder / "text")
    draw = np.random.default_rng(0)
    (folder / "corpus").mkdir()
    with open(folder / "corpus" / "metadata.csv", "w", newline="") as file:
        table = csv.writer(file)
        table.writerow(
            ["file_name", "transcript", "description", "speaker_id", "split", "valence", "arousal", "dominance"]
        )
        for i in range(48):
            loudness, valence, level = draw.random(3)
            soundfile.write(folder / "corpus" / f"{i}.wav", noise(0.5 + 0.02 * i, i) * loudness, 16_000)
            split = ("train", "train", "validation", "test")[i % 4]
            words = " ".join(draw.choice(WORDS[:3] if valence < 0.5 else WORDS[3:], 4))
            table.writerow(
                [f"{i}.wav", words, WORDS[int(level * 6)], f"{split}{i % 3}", split, valence, loudness, level]
            )
    (folder / "tiny.yaml").write_text(
        f"""
data: {folder}/corpus
audio_encoder: {folder}/audio
text_encoder: {folder}/text
audio_states: weighted
freeze_audio: all
freeze_text: true
fusion_size: 16
num_train_epochs: 3
per_device_train_batch_size: 8
learning_rate: 1.0e-3
train_sampling_strategy: group_by_length
dataloader_drop_last: true
eval_strategy: epoch
save_strategy: epoch
load_best_model_at_end: true
use_cpu: true
"""
    )
    return folder


def command(tiny: Path, output: Path, *more: str) -> list[str]:
    return [str(tiny / "tiny.yaml"), "--output_dir", str(output), *more]


def environment(tmp_path: Path) -> dict[str, str]:
    return os.environ | {"HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def score_rows(folder: Path, intervals: set[str] = INTERVAL_ROWS) -> list[Row]:
    """The rows with the scores of a run, whose other rows must be those about intervals."""
    rows: list[Row] = json.loads((folder / "results.json").read_text())
    assert {row["name"] for row in rows if row["name"].startswith(INTERVALS)} == intervals
    return [row for row in rows if row["name"] not in intervals]
