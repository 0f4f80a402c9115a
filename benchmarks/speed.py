"""How fast encoders and training are against the stock transformers path, in one run on one machine.

    OMP_NUM_THREADS=2 python -m msfser.benchmarks.speed
    OMP_NUM_THREADS=2 python -m msfser.benchmarks.speed wavlm_inference --repeats 5

Every row is a ratio of stock time to ours (of memory: ours to stock), measured interleaved, the median of several
repeats with the lowest and the highest. WavLM-Large and RoBERTa-Large have their full size and random weights, which
changes no time. Clips are noise of the lengths in `clips.json`, in this random order. Each row says with which
machine, versions and threads.

| group | rows |
|---|---|
| `whisper` | Whisper tiny.en, mel frames and encoder, on clips of 3 s and of 10 s, against 30 s for each |
| `wavlm_inference` | WavLM-Large over all clips, what each part gives, 8-bit layers, and the floor: matrix products |
| `int8_agreement` | how well the predictions of 8-bit layers agree with those in float32 |
| `train_step` | an epoch of training at the paper's size (`training_speed.py`): time, memory, share of the rest |
| `cached_epoch` | the first epoch on frozen encoders against one of a second run, without and with its start |
| `pipeline` | batches of similar length in the pipeline, without and with the recognizer, against the given order |

`int8_agreement`, `cached_epoch` and `pipeline` read the probe corpus, which is made where it is not there. On a
machine with a CUDA GPU `train_step` runs there, and its rows are called `gpu_...`.
"""

import contextlib
import copy
import functools
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import datasets
import numpy as np
import torch
import transformers
from torch import nn
from transformers import AutoConfig, AutoModel, PreTrainedModel, WhisperFeatureExtractor
from transformers.models.wavlm.modeling_wavlm import WavLMAttention, WavLMFeatureEncoder

from .. import pipeline_msfser
from ..audio_msfser import SAMPLING_RATE, load_audio
from ..configuration_msfser import WAVLM_LARGE, MsfSerConfig
from ..corpora.probe.corpus import make_probe
from ..corpora.table import read_table
from ..encoders_msfser import load_audio_encoder, load_tokenizer, waveform_states, whisper_states
from ..evaluation.intervals import interval
from ..evaluation.results import Row, row
from ..fast_encoders_msfser import quantize_linear_layers, slow_down, speed_up
from ..feature_extraction_msfser import MsfSerFeatureExtractor
from ..hub.encoders import ensure_encoders
from ..loss_msfser import concordance
from ..modeling_msfser import MsfSerModel
from ..pipeline_msfser import MsfSerPipeline
from ..processing_msfser import MsfSerCollator, MsfSerProcessor
from ..training.collator import FeatureCollator
from ..training.features import add_lengths, cache_features
from .command import WHISPER, check_repeats, load_recognizer, parser_of, record
from .training_speed import TOKENIZER, VARIANTS, clip_seconds, training_step

# Of inference, and of training on cached features, as in the paper.
BATCH_SIZE, PAPER_BATCH_SIZE = 4, 32


def main(argv: Sequence[str] | None = None) -> None:
    """Measures the rows that are asked for, prints them and writes `benchmarks/results/speed.json`."""
    parser = parser_of("speed", __doc__)
    parser.add_argument("rows", nargs="*", default=list(ROWS), help=f"groups of rows: {', '.join(ROWS)}; all of them")
    parser.add_argument("--repeats", type=int, default=3, help="interleaved repeats (3)")
    parser.add_argument("--clips", type=int, help="only so many clips of the list, from its start; the rows say so")
    arguments = parser.parse_args(argv)
    unknown = sorted(set(arguments.rows) - set(ROWS))
    if unknown:
        parser.error(f"{', '.join(unknown)}: there is no such group of rows, only {', '.join(ROWS)}.")
    check_repeats(parser, arguments.repeats)
    seconds = clip_seconds()[: arguments.clips]
    some = ["--clips", str(arguments.clips)] if arguments.clips else []
    for group in arguments.rows:
        rows = [{**machine(), **row} for row in ROWS[group](seconds, arguments.repeats)]
        record("speed", rows, "speed", [group, "--repeats", str(arguments.repeats), *some])


def machine() -> dict[str, object]:
    """What the figures depend on: processor, threads, versions."""
    processor = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").exists():
        names = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
        processor = names[0].split(":", 1)[1].strip() if names else processor
    return {
        "processor": processor,
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }


def interleaved(tasks: Mapping[str, Callable[[], object]], repeats: int) -> dict[str, list[float]]:
    """Seconds of each task in each repeat; the tasks alternate, so that other processes slow all of them."""
    spent: dict[str, list[float]] = {name: [] for name in tasks}
    for _ in range(repeats):
        for name, task in tasks.items():
            start = time.perf_counter()
            task()
            spent[name].append(time.perf_counter() - start)
    return spent


def ratio(name: str, slow: Sequence[float], fast: Sequence[float]) -> Row:
    """A row: the median over the repeats of slow by fast, with the lowest and highest."""
    ratios = [a / b for a, b in zip(slow, fast, strict=True)]
    return row(name, np.median(ratios), min(ratios), max(ratios))


def wavlm_inference(seconds: Sequence[float], repeats: int) -> list[Row]:
    """WavLM-Large over all clips: stock in padded batches of 4, ours, and ours without one part at a time.

    Rows: `wavlm_inference/ratio`; `.../gain_PART`, how much longer ours takes without the part (front end, attention,
    linear layers, items one by one); `.../floor`, stock against its matrix products alone; `.../products`, the share
    of these in ours; `.../seconds`, ours; `wavlm_int8/ratio`, stock against ours with 8-bit layers, and
    `wavlm_int8/gain`, ours against it.
    """
    torch.manual_seed(0)
    encoder = AutoModel.from_config(AutoConfig.for_model(**WAVLM_LARGE)).eval()
    integers = copy.deepcopy(encoder)
    quantize_linear_layers(integers)
    batches = padded([torch.randn(round(length * SAMPLING_RATE)) for length in seconds])
    parts = {"front_end": WavLMFeatureEncoder, "attention": WavLMAttention, "linear": nn.Linear}

    def run(alone: bool, without: Sequence[type] = (), model: PreTrainedModel = encoder) -> Callable[[], None]:
        def task() -> None:
            _only(model, without)
            with torch.inference_mode():
                for values, mask in batches:
                    waveform_states(model, values, mask, alone)

        return task

    tasks = {"stock": run(False, list(parts.values())), "ours": run(True), "padded": run(False)}
    tasks |= {name: run(True, [stock]) for name, stock in parts.items()}
    tasks |= {"int8": run(True, model=integers), "floor": lambda: products(encoder, seconds)}
    for name in ("ours", "int8"):
        tasks[name]()  # warm
    spent = interleaved(tasks, repeats)
    rows = [ratio("wavlm_inference/ratio", spent["stock"], spent["ours"])]
    for name in (*parts, "padded"):
        what = "one_by_one" if name == "padded" else name
        rows.append(ratio(f"wavlm_inference/gain_{what}", spent[name], spent["ours"]))
    rows.append(ratio("wavlm_inference/floor", spent["stock"], spent["floor"]))
    rows.append(ratio("wavlm_inference/products", spent["floor"], spent["ours"]))
    rows.append(ratio("wavlm_inference/seconds", spent["ours"], [1.0] * repeats))
    rows.append(ratio("wavlm_int8/ratio", spent["stock"], spent["int8"]))
    return [*rows, ratio("wavlm_int8/gain", spent["ours"], spent["int8"])]


def padded(clips: Sequence[torch.Tensor]) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Batches of 4 in the given order: sound `(batch, samples)` and mask, padded to the longest of each batch."""
    batches = []
    for start in range(0, len(clips), BATCH_SIZE):
        rows = list(clips[start : start + BATCH_SIZE])
        values = nn.utils.rnn.pad_sequence(rows, batch_first=True)
        lengths = torch.tensor([len(row) for row in rows])
        batches.append((values, torch.arange(values.shape[1]) < lengths[:, None]))
    return batches


def _only(encoder: Any, without: Sequence[type]) -> None:
    """Speeds the encoder up, except for modules of these stock classes."""
    speed_up(encoder)
    chosen: list[Any] = [module for module in encoder.modules() if isinstance(module, tuple(without))]
    for module in chosen:
        # This module alone, not those inside.
        children, module._modules = module._modules, {}
        slow_down(module)
        module._modules = children


def products(encoder: Any, seconds: Sequence[float]) -> None:
    """The linear layers of all transformer layers over all frames of each clip, and nothing else."""
    config = encoder.config
    speed_up(encoder)
    with torch.inference_mode():
        for length in seconds:
            frames = encoder._get_feat_extract_output_lengths(round(length * SAMPLING_RATE))
            x = torch.zeros(int(frames), config.hidden_size)
            wide = torch.zeros(int(frames), config.intermediate_size)
            for layer in encoder.encoder.layers:
                attention, feed_forward = layer.attention, layer.feed_forward
                for module in (attention.q_proj, attention.k_proj, attention.v_proj, attention.out_proj):
                    module(x)
                feed_forward.intermediate_dense(x)
                feed_forward.output_dense(wide)


def whisper(seconds: Sequence[float], repeats: int) -> list[Row]:
    """Mel frames and encoder of Whisper tiny.en, on as many clips as the list has, all of 3 s or all of 10 s.

    Rows: `whisper_3s/ratio`, `whisper_10s/ratio`.
    """
    ensure_encoders([WHISPER])
    encoder: Any = load_audio_encoder(WHISPER)
    stock = WhisperFeatureExtractor(feature_size=80)
    ours = MsfSerFeatureExtractor(kind="log_mel", feature_size=80)
    rows = []
    for length in (3, 10):
        clips = [torch.randn(length * SAMPLING_RATE).numpy() for _ in seconds]
        batches = [clips[start : start + BATCH_SIZE] for start in range(0, len(clips), BATCH_SIZE)]

        def stock_run(batches: list[list[np.ndarray]] = batches) -> None:
            slow_down(encoder)
            with torch.inference_mode():
                for batch in batches:
                    encoder(stock(batch, sampling_rate=SAMPLING_RATE, return_tensors="pt").input_features)

        def run(batches: list[list[np.ndarray]] = batches) -> None:
            speed_up(encoder)
            with torch.inference_mode():
                for batch in batches:
                    inputs = ours(batch, SAMPLING_RATE, return_tensors="pt")
                    whisper_states(encoder, inputs["input_features"], inputs["attention_mask"].bool())

        run()
        spent = interleaved({"stock": stock_run, "ours": run}, repeats)
        rows.append(ratio(f"whisper_{length}s/ratio", spent["stock"], spent["ours"]))
    return rows


def int8_agreement(seconds: Sequence[float], repeats: int) -> list[Row]:
    """The rows of [`agreement`], without repeats.

    `wavlm_int8/...` are of the paper's model with random encoders, which knows little and whose fusion must make much
    of small differences; `whisper_int8/...` of the encoders of `make train`, Whisper tiny.en and MiniLM.
    """
    rows = agreement("wavlm_int8", *paper_model(), train=32, test=40, epochs=20)
    return rows + agreement("whisper_int8", *small_model(), train=None, test=80, epochs=5)


def agreement(
    name: str,
    model: MsfSerModel,
    processor: MsfSerProcessor,
    train: int | None,
    test: int | None,
    epochs: int,
    reduce: Callable[[MsfSerModel], MsfSerModel] = MsfSerModel.quantize,
) -> list[Row]:
    """What encoders of reduced precision do to predictions that tell recordings apart.

    The model's fusion is trained on the probe corpus, its encoders being frozen. Then the same model predicts clips
    with other voices and words, in float32 and in the reduced precision.

    Args:
        name: Of the rows.
        model: With frozen encoders.
        processor: Its processor.
        train: Clips to train on; `None` is all.
        test: Clips to predict; `None` is all.
        epochs: Over the training clips.
        reduce: Makes of the model one of reduced precision; by default, one with 8-bit layers.

    Returns:
        `NAME/ccc`, between the two predictions, mean over the dimensions with its interval over the clips;
        `NAME/spread`, the standard deviation of the float32 predictions, mean over the dimensions with the lowest and
        the highest.
    """
    with _empty_cache():
        corpus = cache_features(probe_clips("train", train), model, processor)
        step = training_step(model, FeatureCollator(processor), learning_rate=5e-4)
        draw = np.random.default_rng(0)
        for _ in range(epochs):
            order = draw.permutation(len(corpus))
            for start in range(0, len(order) - 1, PAPER_BATCH_SIZE):
                step([corpus[int(i)] for i in order[start : start + PAPER_BATCH_SIZE]])
    clips = probe_clips("test", test)
    full = _predictions(model.eval(), processor, clips)
    reduced = _predictions(reduce(model), processor, clips)
    ccc = interval(lambda items: concordance(reduced[items], full[items]).mean().item(), len(full), correlation=True)
    spread = full.std(0)
    return [row(f"{name}/ccc", *ccc), row(f"{name}/spread", *map(float, (spread.mean(), spread.min(), spread.max())))]


def _predictions(model: MsfSerModel, processor: MsfSerProcessor, clips: datasets.Dataset) -> torch.Tensor:
    """`(clips, 3)`."""
    collate = MsfSerCollator(processor)
    with torch.inference_mode():
        parts = [model(**collate([clips[i]])).logits for i in range(len(clips))]
    return torch.cat(parts)


def cached_epoch(seconds: Sequence[float], repeats: int) -> list[Row]:
    """Training on frozen encoders, in batches of 32 clips of similar length of the probe corpus.

    Rows: `cached_epoch/ratio`, at the paper's size on 32 clips, the first epoch (frozen encoders and fusion) against
    an epoch of a second run; `cached_epoch/start_seconds`, what the second run needs to find its features, and
    `cached_epoch/ratio_with_start`, the first epoch against both, as in a run of one epoch; the rows with the suffix
    `_small` are of Whisper tiny.en and MiniLM on all training clips.
    """
    rows = []
    for made, size, suffix in ((paper_model, PAPER_BATCH_SIZE, ""), (small_model, None, "_small")):
        model, processor = made()
        clips = add_lengths(probe_clips("train", size)).sort("length")
        runs = [_first_and_second(model, processor, clips) for _ in range(repeats)]
        first, start, second = zip(*runs, strict=True)
        rows.append(ratio(f"cached_epoch/ratio{suffix}", first, second))
        rows.append(ratio(f"cached_epoch/ratio_with_start{suffix}", first, np.add(start, second).tolist()))
        rows.append(ratio(f"cached_epoch/start_seconds{suffix}", start, [1.0] * repeats))
    return rows


def _first_and_second(
    model: MsfSerModel, processor: MsfSerProcessor, clips: datasets.Dataset
) -> tuple[float, float, float]:
    """Seconds of the first epoch with the encoders, of finding their outputs again, and of another epoch."""
    step = training_step(model, FeatureCollator(processor))

    def epoch(corpus: datasets.Dataset) -> None:
        for start in range(0, len(corpus), PAPER_BATCH_SIZE):
            step([corpus[i] for i in range(start, min(start + PAPER_BATCH_SIZE, len(corpus)))])

    with _empty_cache():
        times = [time.perf_counter()]
        epoch(cache_features(clips, model, processor))
        times.append(time.perf_counter())
        corpus = cache_features(clips, model, processor)
        times.append(time.perf_counter())
        epoch(corpus)
        times.append(time.perf_counter())
    first, start, second = np.diff(times).tolist()
    return first, start, second


def pipeline_batches(seconds: Sequence[float], repeats: int) -> list[Row]:
    """The pipeline in batches of 8, with Whisper tiny.en; batches in the given order against those of similar length.

    Rows: `pipeline/ratio`, all clips, sound alone without the recognizer; `pipeline/ratio_with_recognizer`, speech of
    the probe corpus with a model of sound and transcript, which the recognizer writes.
    """
    noise = [torch.randn(round(length * SAMPLING_RATE)).numpy() for length in seconds]
    speech = [load_audio(clip["audio"]["path"]) for clip in probe_clips("test", len(seconds))]
    ahead, rows = pipeline_msfser._BATCHES_AHEAD, []
    for name, clips, semantics in (("ratio", noise, []), ("ratio_with_recognizer", speech, ["gs"])):
        model, processor = small_model(semantics=semantics)
        recognizer = load_recognizer() if semantics else None
        predict = MsfSerPipeline(model=model, processor=processor, recognizer=recognizer)

        def run(batches_ahead: int, predict: Any = predict, clips: Any = clips) -> None:
            with mock.patch.object(pipeline_msfser, "_BATCHES_AHEAD", batches_ahead):
                predict(clips, sampling_rate=SAMPLING_RATE, batch_size=8)

        run(ahead)  # warm
        tasks = {"given": functools.partial(run, 1), "similar": functools.partial(run, ahead)}
        spent = interleaved(tasks, repeats)
        rows.append(ratio(f"pipeline/{name}", spent["given"], spent["similar"]))
    return rows


def probe_clips(part: str, count: int | None) -> datasets.Dataset:
    """So many rows of a part of the probe corpus, drawn at random; all of them with `None`."""
    rows = read_table(make_probe("data/probe"))[part].shuffle(seed=0)
    return rows.select(range(len(rows) if count is None else count))


def paper_model(**switches: Any) -> tuple[MsfSerModel, MsfSerProcessor]:
    """WavLM-Large and RoBERTa-Large with random weights, frozen; tokens are counted by MiniLM's tokenizer."""
    ensure_encoders([TOKENIZER])
    torch.manual_seed(0)
    model = MsfSerModel(MsfSerConfig(freeze_audio="all", **switches)).eval()
    return model, MsfSerProcessor(MsfSerFeatureExtractor(), load_tokenizer(TOKENIZER))


def small_model(**switches: Any) -> tuple[MsfSerModel, MsfSerProcessor]:
    """Whisper tiny.en and MiniLM, frozen, with the fusion of `configs/probe.yaml`."""
    ensure_encoders([WHISPER, TOKENIZER])
    torch.manual_seed(0)
    options: dict[str, Any] = {
        "audio_states": "weighted",
        "freeze_audio": "all",
        "fusion_size": 256,
        "head_dropout": 0.2,
    }
    model = MsfSerModel.from_encoders(WHISPER, TOKENIZER, **options, **switches)
    return model, MsfSerProcessor.from_encoders(WHISPER, TOKENIZER)


@contextlib.contextmanager
def _empty_cache() -> Iterator[None]:
    """A separate, empty cache of features."""
    kept = datasets.config.HF_DATASETS_CACHE
    with tempfile.TemporaryDirectory() as folder:
        datasets.config.HF_DATASETS_CACHE = Path(folder)
        try:
            yield
        finally:
            datasets.config.HF_DATASETS_CACHE = kept


def train_step(seconds: Sequence[float], repeats: int) -> list[Row]:
    """Training at the paper's size, each variant in its own process, in batches that the stock path can hold.

    Rows: `train_step/ratio`; `train_step/gain_cached_texts`, how much longer ours takes with the texts encoded in each
    step; `train_memory/ratio`, ours by stock; `overhead/share`, what is no encoder (processor, fusion, heads, loss and
    their gradients) by the whole step; `train_step/seconds` and `train_memory/gigabytes`, ours.
    """
    spent: dict[str, list[dict[str, float]]] = {variant: [] for variant in VARIANTS}
    for _ in range(repeats):
        for variant in VARIANTS:
            module = "msfser.benchmarks.training_speed"
            command = [sys.executable, "-m", module, variant, "--clips", str(len(seconds))]
            run = subprocess.run(command, capture_output=True, text=True, check=False)
            if run.returncode:
                raise SystemExit(f"{' '.join(command[1:])} ended with {run.returncode}: {run.stderr[-1000:]}")
            spent[variant].append(json.loads(run.stdout.splitlines()[-1]))
    of = {variant: {name: [run[name] for run in runs] for name in runs[0]} for variant, runs in spent.items()}
    ours, one = of["ours"], [1.0] * repeats
    rows = [
        ratio("train_step/ratio", of["stock"]["seconds"], ours["seconds"]),
        ratio("train_step/gain_cached_texts", of["ours_live"]["seconds"], ours["seconds"]),
        ratio("train_memory/ratio", ours["peak_bytes"], of["stock"]["peak_bytes"]),
        ratio("overhead/share", ours["rest_seconds"], ours["seconds"]),
        ratio("train_step/seconds", ours["seconds"], one),
        ratio("train_memory/gigabytes", ours["peak_bytes"], [1e9] * repeats),
    ]
    if torch.cuda.is_available():
        rows = [row | {"name": f"gpu_{row['name']}"} for row in rows]
    return rows


ROWS: dict[str, Callable[[Sequence[float], int], list[Row]]] = {
    "whisper": whisper,
    "wavlm_inference": wavlm_inference,
    "int8_agreement": int8_agreement,
    "train_step": train_step,
    "cached_epoch": cached_epoch,
    "pipeline": pipeline_batches,
}


if __name__ == "__main__":
    main()
