"""Training on cached features: steps per second of the two commands that train, alone or beside another checkout.

    OMP_NUM_THREADS=1 python -m msfser.benchmarks.cached_steps --against FOLDER

- `fit`: `training/fitting.py` with the starter's recipe, on states in memory;
- `train`: `msfser train` with the settings of `configs/probe.yaml`, on features that are on disk, without evaluation.

Sounds are noise of 2 to 5 s in batches of 32, the encoders are of the sizes of the default ones. FOLDER is a checkout
of another commit, such as b95c70b, which trains on whole clips; both are measured in turns, each time in a new
process. Writes the rows `cached_steps/...` of `benchmarks/results/speed.json`.
"""

import argparse
import csv
import importlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

KINDS = ("fit", "train")
CLIPS = 320
EPOCHS = {"fit": 12, "train": 4}
TURNS = 5


def main(argv: Sequence[str] | None = None) -> None:
    """Measures, and writes the rows."""
    from msfser.benchmarks.command import parser_of, record
    from msfser.evaluation.results import row

    parser = parser_of("cached_steps", __doc__)
    parser.add_argument("--against", type=Path, help="a checkout of another commit, measured in turns with this one")
    parser.add_argument("--turns", type=int, default=TURNS, help=f"measurements of each ({TURNS})")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS), help="both by default")
    arguments = parser.parse_args(argv)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for kind in arguments.kinds:
            ours, theirs = [], []
            for _ in range(arguments.turns):
                ours.append(measured(kind, Path(__file__).parents[1], Path(folder)))
                if arguments.against is not None:
                    theirs.append(measured(kind, arguments.against, Path(folder)))
            rows.append(row(f"cached_steps/{kind}", np.median(ours)))
            if theirs:
                ratios = np.divide(ours, theirs)
                rows.append(row(f"cached_steps/{kind}/ratio", np.median(ratios), ratios.min(), ratios.max()))
    record("speed", rows, "cached_steps", argv)


def measured(kind: str, checkout: Path, folder: Path) -> float:
    """Steps per second of a checkout in a new process.

    Args:
        kind: One of `KINDS`.
        checkout: It is imported as `msfser`.
        folder: For the corpus and the features, which are kept for the next measurement.
    """
    root = folder / str(abs(hash(checkout.resolve())))
    root.mkdir(exist_ok=True)
    if not (root / "msfser").exists():
        (root / "msfser").symlink_to(checkout.resolve())
    environment = os.environ | {"PYTHONPATH": str(root), "HF_DATASETS_CACHE": str(root / "cache")}
    command = [sys.executable, __file__, "--measure", kind, "--folder", str(folder)]
    done = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True, cwd=root)
    return float(json.loads(done.stdout.splitlines()[-1]))


# What runs in the other process, on this checkout or on an older one, which has other names.


def fit_speed(_: Path) -> float:
    """Steps per second of a fit."""
    import torch
    from transformers import WhisperConfig

    import msfser
    from msfser import MsfSerConfig, MsfSerModel

    # Not by trying to import it: an installed package would stand in for the file that the checkout lacks.
    is_there = (Path(msfser.__file__).parent / "training" / "fitting.py").is_file()
    name = "msfser.training.fitting" if is_there else "msfser.benchmarks.held_out"
    fitting: Any = importlib.import_module(name)
    draw = np.random.default_rng(0)
    states = [torch.from_numpy(draw.standard_normal((5, n, 384), np.float32)).half() for n in _frames(draw)]
    stronger = np.full(CLIPS, -1)
    stronger[: CLIPS // 3] = np.arange(CLIPS // 3) + CLIPS // 3
    # By position, as the names differ: labels, speakers, states, the share of each kind, texts, stronger counterparts.
    shares = {"clean": 0.3, "augmented": 0.7}
    kinds = {"clean": states, "augmented": states[::-1]}
    clips = fitting.Clips(draw.random((CLIPS, 3), np.float32), np.array(["a"] * CLIPS), kinds, shares, {}, stronger)
    encoder = WhisperConfig(
        d_model=384, encoder_layers=4, encoder_attention_heads=6, encoder_ffn_dim=1536, num_mel_bins=80
    )
    config = MsfSerConfig(
        audio_config=encoder,
        semantics=[],
        audio_states="weighted",
        freeze_audio="all",
        fusion_size=128,
        head_dropout=0.2,
        audio_dropout=0.0,
    )

    def seconds(epochs: int) -> float:
        # The ranking loss's weight and scale, and the mixing weights' learning rate.
        recipe = fitting.Recipe(0.5, 0.05, 20.0, epochs=epochs)
        start = time.perf_counter()
        fitting.fit(lambda: MsfSerModel(config), clips, np.arange(CLIPS), 0, recipe)
        return time.perf_counter() - start

    seconds(2)
    return EPOCHS["fit"] * (CLIPS // 32) / seconds(EPOCHS["fit"])


def train_speed(folder: Path) -> float:
    """Steps per second of a run."""
    import transformers

    import msfser

    train: Any = importlib.import_module("msfser.train").main
    corpus = folder / "corpus"
    if not corpus.is_dir():
        make_corpus(corpus)
    found: dict[str, float] = {}
    library = transformers.Trainer.train

    def timed(self: Any, *args: Any, **kwargs: Any) -> Any:
        start = time.perf_counter()
        result = library(self, *args, **kwargs)
        found["speed"] = self.state.global_step / (time.perf_counter() - start)
        return result

    transformers.Trainer.train = timed  # type: ignore[method-assign]
    settings = Path(msfser.__file__).parent / "configs" / "probe.yaml"
    with tempfile.TemporaryDirectory() as output:
        sys.argv = [
            *("train.py", str(settings), "--data", str(corpus), "--output_dir", f"{output}/run"),
            *("--num_train_epochs", str(EPOCHS["train"]), "--eval_strategy", "no", "--save_strategy", "no"),
            *("--load_best_model_at_end", "false", "--use_cpu", "true"),
        ]
        try:
            train(sys.argv[1:])
        except TypeError:  # it reads the command line itself
            train()
    return found["speed"]


def make_corpus(folder: Path) -> None:
    """Recordings of noise with texts and labels; nearly all for training."""
    import soundfile

    draw = np.random.default_rng(0)
    folder.mkdir()
    with open(folder / "metadata.csv", "w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["file_name", "transcript", "speaker_id", "split", "valence", "arousal", "dominance"])
        for i, frames in enumerate(_frames(draw)):
            soundfile.write(folder / f"{i}.wav", 0.1 * draw.standard_normal(320 * frames), 16_000)
            split = {0: "validation", 1: "test"}.get(i // 4, "train")
            table.writerow([f"{i}.wav", f"some words {i}", f"{split}{i % 4}", split, *draw.random(3)])


def _frames(draw: np.random.Generator) -> list[int]:
    return draw.integers(100, 250, CLIPS).tolist()


if __name__ == "__main__":
    if "--measure" in sys.argv:
        parser = argparse.ArgumentParser()
        parser.add_argument("--measure", choices=KINDS)
        parser.add_argument("--folder", type=Path)
        given = parser.parse_args()
        print(json.dumps({"fit": fit_speed, "train": train_speed}[given.measure](given.folder)))
    else:
        main()
