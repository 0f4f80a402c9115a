"""Training and annotation under faults: kills at random moments, full disks, dead processes, the wrong folder.

    cd tests && python -m stress.faults 4 --only kills --seed 7

Each fault is given to a run in a separate process; the same command then goes on, and what it ends with is compared
with an undisturbed run. The processes are forked from a server that has the libraries.
"""

import argparse
import contextlib
import hashlib
import json
import multiprocessing
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import datasets
import numpy as np
import psutil
import pyarrow.parquet as pq
import soundfile
import torch
from safetensors.torch import load_file
from tiny import noise

from msfser import train
from msfser.annotation import annotate
from msfser.sharding import sharded_table

ROOT = Path(__file__).parents[2]
_PATIENCE = 1200.0

context = multiprocessing.get_context("forkserver")
context.set_forkserver_preload(["msfser.train", "msfser.annotation.annotate"])


class Counts(NamedTuple):
    """What was done and what became of it.

    Args:
        injected: Faults.
        lost: Runs that ended with other results than the undisturbed one.
        said: Faults of which the run said a sentence, where it could.
        guarded: Commands that may not change the folder of a run: with other data, or again after its end.
        overwritten: Those that changed a file.
        answered: Those that ended with a sentence.
    """

    injected: int = 0
    lost: int = 0
    said: int = 0
    guarded: int = 0
    overwritten: int = 0
    answered: int = 0

    def __add__(self, other: "Counts") -> "Counts":
        return Counts(*(a + b for a, b in zip(self, other, strict=True)))


class Job(NamedTuple):
    """A command that can be killed and given again.

    Args:
        main: The command's `main`, by name: "train" or "annotate".
        argv: Its arguments, without those that name the output.
        results: What is in an output folder, to be compared.
        other: Arguments of the same command with other data.
        begun: A pattern of files that tell that a folder has something to lose.
        again: What the command says where there is nothing to do.
    """

    main: str
    argv: Sequence[str]
    results: Callable[[Path], dict[str, str]]
    other: Sequence[str]
    begun: str
    again: str

    def to(self, output: Path) -> list[str]:
        """The arguments for one output folder."""
        return [*self.argv, "--output_dir" if self.main == "train" else "--output", str(output)]

    def of_other_data(self) -> "Job":
        """The same with other data."""
        return self._replace(argv=self.other)


def training(tiny: Path) -> Job:
    """A run of six epochs on the tiny corpus, with checkpoints within the epochs."""
    steps = ["--num_train_epochs", "6", "--save_strategy", "steps", "--save_steps", "2", "--save_total_limit", "3"]
    steps += ["--eval_strategy", "steps", "--eval_steps", "2"]
    argv = [str(tiny / "tiny.yaml"), *steps]
    # The same clips with other labels.
    table = tiny / "other" / "metadata.csv"
    if not table.exists():
        shutil.copytree(tiny / "corpus", table.parent)
        table.write_text(re.sub(r"[\d.]+$", "0.5", table.read_text(), flags=re.MULTILINE))
    other = [*argv, "--data", str(table.parent)]
    return Job("train", argv, trained, other, "checkpoint-*/trainer_state.json", "which is finished")


def trained(output: Path) -> dict[str, str]:
    """The weights and the test-set table."""
    weights = {
        name: _hash(tensor.numpy().tobytes()) for name, tensor in load_file(output / "model.safetensors").items()
    }
    rows = json.loads((output / "results.json").read_text())
    return weights | {row["name"]: f"{row['value']} {row['low']} {row['high']}" for row in rows}


def annotation(folder: Path, clips: int = 24) -> Job:
    """A folder of tones to describe, one in a shard."""
    corpora = folder / "recordings", folder / "others"
    for corpus in corpora:
        corpus.mkdir()
        for clip in range(clips):
            times = np.arange(16_000) / 16_000
            tone = sum(np.sin(2 * np.pi * k * (110 + 7 * clip) * times) / k for k in range(1, 8))
            soundfile.write(corpus / f"{clip:02d}.wav", 0.1 * tone + 0.01 * noise(1.0, clip), 16_000)
    argv, other = ([str(corpus), "--recognizer", "none"] for corpus in corpora)
    return Job("annotate", argv, annotated, other, "annotation.json", f"{clips} clips in ")


def annotated(output: Path) -> dict[str, str]:
    """The content of each shard, with its keys, and the note."""
    shards = {shard.name: pq.read_table(shard) for shard in sorted((output / "data").glob("*.parquet"))}
    found = {name: _hash(repr((t.to_pylist(), t.schema.metadata)).encode()) for name, t in shards.items()}
    return found | {"note": (output / "annotation.json").read_text()}


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


# One process


class Run:
    """A command in a separate process.

    Args:
        job: What it does.
        output: Where; other files of the run are beside it.
        file_size: A limit on the size of its files, which stands for a full disk.
    """

    def __init__(self, job: Job, output: Path, file_size: int | None = None):
        # What it says goes through a pipe: the limit is for files.
        self._pipe, self._texts = output.with_name("said"), []
        self._pipe.unlink(missing_ok=True)
        os.mkfifo(self._pipe)
        self._reader = threading.Thread(target=lambda: self._texts.append(self._pipe.read_text(errors="replace")))
        self._reader.start()
        arguments = job.main, job.to(output), str(output.parent), str(self._pipe), file_size
        self.process = context.Process(target=_run, args=arguments)
        self.process.start()

    def wait(self, seconds: float = _PATIENCE) -> int | None:
        """Waits for its end: its status, `None` if it goes on."""
        self.process.join(seconds)
        return self.process.exitcode

    def kill(self) -> None:
        """Ends it by signal 9."""
        self.process.kill()
        self.process.join()

    def said(self) -> str:
        """All that it wrote, after its end."""
        # It may have been killed before it opened the pipe.
        with contextlib.suppress(OSError):
            os.close(os.open(self._pipe, os.O_WRONLY | os.O_NONBLOCK))
        self._reader.join()
        return self._texts[0]


def _run(main: str, argv: Sequence[str], home: str, pipe: str, file_size: int | None) -> None:
    output = os.open(pipe, os.O_WRONLY)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.chdir(ROOT)
    torch.set_num_threads(1)
    # A lock between processes that is held by one that is killed stays.
    sharded_table.tqdm.set_lock(threading.RLock())
    # What frozen encoders made is lost with a home, so that kills meet its making too.
    datasets.config.HF_DATASETS_CACHE = Path(home) / "cache"
    sharded_table.ShardedTable.rows_per_shard = 1
    if file_size is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_size, file_size))
    try:
        {"train": train.main, "annotate": annotate.main}[main](argv)
    except SystemExit as error:
        print(error, file=sys.stderr, flush=True)
        os._exit(1)
    except BaseException:
        traceback.print_exc()
        os._exit(2)
    os._exit(0)


def finish(job: Job, output: Path) -> tuple[dict[str, str], str]:
    """Runs the command to its end: what is in the output, and what it said.

    Raises:
        RuntimeError: It fails.
    """
    output.parent.mkdir(exist_ok=True)
    run = Run(job, output)
    if run.wait() != 0:
        run.kill()
        raise RuntimeError(f"{job.main} ended with {run.process.exitcode}: {run.said()[-3000:]}")
    return job.results(output), run.said()


# Faults


def kill(job: Job, folder: Path, kills: int, seed: int) -> Counts:
    """Kills one run again and again, at moments anywhere in what a whole run takes, then lets it end.

    After each kill and after the end, the same command with other data is given for the folder, and after the end the
    command itself: neither may change anything. A file that no run made lies in the folder all the time.
    """
    expected, seconds = undisturbed(job, folder)
    draw, out = random.Random(seed), folder / f"killed{seed}" / "out"
    out.parent.mkdir()
    counts, kept, mine = Counts(), {}, None
    for _ in range(kills):
        run = Run(job, out)
        ended = run.wait(draw.uniform(0.05, 1.0) * seconds)
        run.kill()
        run.said()
        if ended is not None:
            break  # It was quicker.
        counts += Counts(injected=1)
        shards = {file.name: file.read_bytes() for file in out.glob("data/*.parquet")}
        if not kept.items() <= shards.items():
            return counts + Counts(lost=1)
        kept = shards
        if any(out.glob(job.begun)):
            mine = mine or put_file(out)
            counts += guard(job.of_other_data(), out, "error: ")
    counts += Counts(lost=int(finish(job, out)[0] != expected))
    if mine is not None:
        counts += Counts(lost=int(not mine.exists() or mine.read_text() != "mine"))
    return counts + guard(job.of_other_data(), out, "error: ") + guard(job, out, job.again)


def put_file(output: Path) -> Path:
    """Puts a file of the user among those of a run, with a name much like theirs."""
    folder = output / "data" if (output / "data").is_dir() else output
    file = folder / "part-00000 of my notes.txt"
    file.write_text("mine")
    return file


def guard(job: Job, output: Path, sentence: str) -> Counts:
    """Gives a command that has nothing to do in a folder, or may do nothing there."""
    before = files_of(output)
    run = Run(job, output)
    run.wait()
    said = run.said()
    changed = files_of(output) != before
    is_answered = sentence in said and "Traceback" not in said
    if changed or not is_answered:
        print(f"{job.argv} into {output}: {'it changed; ' * changed}{said[-1500:]}")
    return Counts(guarded=1, overwritten=int(changed), answered=int(is_answered))


def files_of(output: Path) -> dict[str, tuple[int, str]]:
    """The files of a folder: when each was written, and a hash of its content."""
    files = sorted(path for path in output.rglob("*") if path.is_file())
    return {str(path): (path.stat().st_mtime_ns, _hash(path.read_bytes())) for path in files}


def undisturbed(job: Job, folder: Path) -> tuple[dict[str, str], float]:
    """What a run without faults ends with, and the seconds that it takes."""
    note = folder / "undisturbed.json"
    if not note.exists():
        results = finish(job, folder / "whole" / "out")[0]
        # The first one waited for the libraries.
        begun = time.monotonic()
        finish(job, folder / "again" / "out")
        note.write_text(json.dumps([results, time.monotonic() - begun]))
    return tuple(json.loads(note.read_text()))


def fill_disk(job: Job, folder: Path, file_sizes: Sequence[int]) -> Counts:
    """Runs with ever larger limits on the size of a file, then without one."""
    expected, _ = undisturbed(job, folder)
    out, counts = folder / "full" / "out", Counts()
    out.parent.mkdir()
    for size in file_sizes:
        run = Run(job, out, size)
        if run.wait() == 0:
            break
        said = run.said()
        last = said.strip().splitlines()[-1]
        is_sentence = "cannot be written" in last and last.endswith(".") and "Traceback" not in said
        counts += Counts(1, said=int(is_sentence))
        if not is_sentence:
            print(f"no sentence at {size} bytes: {said[-1500:]}")
    return counts + Counts(lost=int(finish(job, out)[0] != expected))


DAMAGES: dict[str, Callable[[Path], None]] = {
    "half the weights": lambda folder: _cut(folder / "model.safetensors"),
    "half the optimizer": lambda folder: _cut(folder / "optimizer.pt"),
    "a changed byte of the optimizer": lambda folder: _flip(folder / "optimizer.pt"),
    "no scheduler": lambda folder: (folder / "scheduler.pt").unlink(),
    "no weights": lambda folder: (folder / "model.safetensors").unlink(),
    "an empty state of random numbers": lambda folder: (folder / "rng_state.pth").write_bytes(b""),
    "half the trainer's state": lambda folder: _cut(folder / "trainer_state.json"),
}


def _cut(file: Path) -> None:
    os.truncate(file, file.stat().st_size // 2)


def _flip(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 0xFF
    file.write_bytes(data)


def checkpoints(output: Path) -> list[Path]:
    """The checkpoints that say that they are whole, the newest last."""
    found = [state.parent for state in output.glob("checkpoint-*/trainer_state.json")]
    return sorted(found, key=lambda path: int(path.name.split("-")[1]))


def damage(job: Job, folder: Path, way: str) -> Counts:
    """Stops a run, damages its newest checkpoint, and lets it end."""
    expected, _ = undisturbed(job, folder)
    out = folder / f"damaged by {way}" / "out"
    out.parent.mkdir()
    run = Run(job, out)
    while run.process.is_alive() and len(checkpoints(out)) < 3:
        time.sleep(0.002)
    run.kill()
    run.said()
    *_, before, newest = checkpoints(out)
    DAMAGES[way](newest)
    results, said = finish(job, out)
    told = f"{newest} is skipped" in said and f"going on from {before}" in said
    if not told:
        print(f"{way}: {said[:1500]}")
    return Counts(1, lost=int(results != expected), said=int(told))


def kill_a_rank(tiny: Path, folder: Path) -> Counts:
    """Kills one of two processes of `accelerate launch`, then gives the command again."""
    # Several processes without a GPU: with `--cpu` it would start one.
    setting = ["--config_file", str(ROOT / "configs" / "accelerate" / "multi_gpu.yaml"), "--num_processes", "2"]
    launch = [sys.executable, "-m", "accelerate.commands.launch", *setting, str(ROOT / "train.py")]
    more = [str(tiny / "tiny.yaml"), "--per_device_train_batch_size", "4", "--output_dir"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HOME": str(folder / "home")}
    options = {"env": environment, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    subprocess.run([*launch, *more, str(folder / "whole_pair")], check=True, timeout=_PATIENCE, **options)
    out = folder / "pair"
    launcher = subprocess.Popen([*launch, *more, str(out)], **options)
    while launcher.poll() is None and not checkpoints(out):
        time.sleep(0.01)
    ranks = [child for child in psutil.Process(launcher.pid).children(recursive=True) if "train.py" in _command(child)]
    os.kill(ranks[-1].pid, signal.SIGKILL)
    launcher.wait(_PATIENCE)
    _, left = psutil.wait_procs(ranks, 30)
    ended = launcher.returncode != 0 and not left and len(ranks) == 2
    subprocess.run([*launch, *more, str(out)], check=True, timeout=_PATIENCE, **options)
    same = trained(out) == trained(folder / "whole_pair")
    return Counts(1, lost=int(not same), said=int(ended))


def _command(process: psutil.Process) -> str:
    with contextlib.suppress(psutil.Error):
        return " ".join(process.cmdline())
    return ""


def main(kills: int, seed: int = 0, only: Sequence[str] = ("kills", "others")) -> dict[str, Counts]:
    """All faults.

    Args:
        kills: At least so many, half of them of each command.
        seed: Draws their moments.
        only: `kills`, `others` (full disks, damaged checkpoints, dead ranks), or both.
    """
    # Imported here: the tests import this module.
    from tiny_run import make_tiny

    counts = {}
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for name in ("tiny", "training", "annotation", "pair"):
            (root / name).mkdir()
        tiny = make_tiny(root / "tiny")
        jobs = {"training": training(tiny), "annotation": annotation(root / "annotation")}
        for name, job in jobs.items():
            if "kills" in only:
                counts[f"kills of {name}"], chain = Counts(), 1000 * seed
                while counts[f"kills of {name}"].injected < kills / 2:
                    counts[f"kills of {name}"] += kill(job, root / name, 3, chain)
                    chain += 1
            if "others" in only:
                sizes = (1_000, 10_000, 40_000, 100_000) if name == "training" else (100, 2_000, 4_000)
                counts[f"full disks in {name}"] = fill_disk(job, root / name, sizes)
        if "others" in only:
            counts["damaged checkpoints"] = Counts()
            for way in DAMAGES:
                counts["damaged checkpoints"] += damage(jobs["training"], root / "training", way)
            counts["dead ranks"] = kill_a_rank(tiny, root / "pair")
    return counts


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("kills", type=int)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="+", choices=("kills", "others"), default=("kills", "others"))
    given = parser.parse_args()
    for name, count in main(given.kills, given.seed, given.only).items():
        print(name, count)
