"""An epoch of training at the paper's size, in its own process: its time and its peak memory.

    OMP_NUM_THREADS=2 python -m msfser.benchmarks.training_speed stock
    OMP_NUM_THREADS=2 python -m msfser.benchmarks.training_speed ours

WavLM-Large is trained without its front end, RoBERTa-Large is frozen, as in the paper; both have random weights, which
changes no time. The clips and texts are those of `clips.json`; the tokenizer is MiniLM's. Prints one line of JSON;
`benchmarks/speed.py train_step` makes ratios of them. On a CPU float32, on a GPU bfloat16.

- `stock`: the encoders of transformers, batches in the given order, texts encoded in each step;
- `ours_live`: the fast encoders, batches of similar lengths, texts encoded in each step;
- `ours`: the same with the frozen encoder's texts from the cache, as `train.py` does.
"""

import json
import resource
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import soundfile
import torch
from transformers import BatchFeature

from ..audio_msfser import SAMPLING_RATE
from ..configuration_msfser import LABELS, MsfSerConfig
from ..encoders_msfser import load_tokenizer
from ..feature_extraction_msfser import MsfSerFeatureExtractor
from ..hub.encoders import ensure_encoders
from ..modeling_msfser import MsfSerModel
from ..processing_msfser import MsfSerCollator, MsfSerProcessor
from ..training.collator import FeatureCollator
from ..training.features import cache_features
from .command import parser_of

CLIPS = Path(__file__).parent / "clips.json"
TOKENIZER = "sentence-transformers/all-MiniLM-L6-v2"
VARIANTS = ("stock", "ours_live", "ours")
BATCH_SIZE = 3

_Step = Callable[[Sequence[Mapping[str, Any]]], None]


def main(argv: Sequence[str] | None = None) -> None:
    """Trains one epoch after a short warm-up step."""
    parser = parser_of("training_speed", __doc__)
    parser.add_argument("variant", choices=VARIANTS)
    parser.add_argument("--batch", type=int, default=BATCH_SIZE, help=f"clips in a batch ({BATCH_SIZE})")
    parser.add_argument("--clips", type=int, help="only the first clips of the list")
    arguments = parser.parse_args(argv)
    ensure_encoders([TOKENIZER])
    with tempfile.TemporaryDirectory() as folder:
        datasets.config.HF_DATASETS_CACHE = Path(folder) / "cache"
        print(json.dumps(epoch(arguments.variant, arguments.batch, Path(folder), arguments.clips)))


def epoch(variant: str, batch: int, folder: Path, count: int | None = None) -> dict[str, float]:
    """One epoch over the clips.

    Args:
        variant: One of `VARIANTS`.
        batch: Clips in a batch.
        folder: For the recordings.
        count: How many clips of the list; all by default.

    Returns:
        `seconds` and `peak_bytes` of the epoch (resident memory, on a GPU that of its allocator), and
        `rest_seconds`: what the same epoch takes without its encoders.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(0)
    model = MsfSerModel(MsfSerConfig(fast_encoders=variant != "stock"))
    model.to(device)  # type: ignore[arg-type]
    processor = MsfSerProcessor(MsfSerFeatureExtractor(), load_tokenizer(TOKENIZER))
    clips = recordings(folder)[:count]
    if variant == "ours":
        corpus = cache_features(datasets.Dataset.from_list(clips), model, processor)
        step, rows = training_step(model, FeatureCollator(processor)), list(corpus)
    else:
        step, rows = training_step(model, MsfSerCollator(processor)), clips
    order = np.arange(len(clips))
    if variant != "stock":
        order = np.argsort([soundfile.info(clip["audio"]["path"]).duration for clip in clips])
    batches = [order[start : start + batch] for start in range(0, len(order), batch)]

    step(rows[:2])
    seconds = _timed(step, [[rows[i] for i in indices] for indices in batches], device)
    if device.type == "cuda":
        peak = torch.cuda.max_memory_allocated()
    else:
        peak = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    step = _step_without_encoders(model, processor)
    step(clips[:2])
    rest = _timed(step, [[clips[i] for i in indices] for indices in batches], device)
    return {"seconds": seconds, "peak_bytes": peak, "rest_seconds": rest}


def clip_seconds() -> list[float]:
    """The lengths of the clips in `clips.json`."""
    return [clip["seconds"] for clip in json.loads(CLIPS.read_text(encoding="utf-8"))]


def recordings(folder: Path) -> list[dict[str, Any]]:
    """The clips as rows of the schema: noise of their lengths, their texts, random labels."""
    draw = np.random.default_rng(0)
    rows = []
    for i, clip in enumerate(json.loads(CLIPS.read_text(encoding="utf-8"))):
        path = folder / f"{i}.wav"
        soundfile.write(path, 0.1 * draw.standard_normal(round(clip["seconds"] * SAMPLING_RATE)), SAMPLING_RATE)
        texts = {name: clip[name] for name in ("transcript", "emphasis", "description")}
        labels = dict(zip(LABELS, draw.uniform(size=3).tolist(), strict=True))
        rows.append({"audio": {"path": str(path), "bytes": None}, **texts, **labels})
    return rows


def training_step(
    model: MsfSerModel,
    collate: Callable[[Sequence[Mapping[str, Any]]], BatchFeature],
    learning_rate: float = 1e-5,
) -> _Step:
    """From rows to changed weights, as `Trainer` does it: fused AdamW, on a GPU bfloat16."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=learning_rate, fused=True)
    model.train()

    def step(rows: Sequence[Mapping[str, Any]]) -> None:
        inputs = collate(rows).to(model.device)
        with torch.autocast(model.device.type, torch.bfloat16, enabled=model.device.type == "cuda"):
            loss = model(**inputs).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def _step_without_encoders(model: MsfSerModel, processor: MsfSerProcessor) -> _Step:
    """The same step with the encoders' outputs given: processor, fusion, heads, loss, backwards to those outputs."""
    encoder: Any = model.audio_encoder.requires_grad_(False)
    collate = MsfSerCollator(processor)

    def with_outputs(rows: Sequence[Mapping[str, Any]]) -> BatchFeature:
        inputs = collate(rows)
        lengths = encoder._get_feat_extract_output_lengths(inputs["attention_mask"].sum(-1))
        outputs = {"attention_mask": torch.arange(int(lengths.max())) < lengths[:, None]}
        size = (len(rows), 1, int(lengths.max()), model.config.audio_config.hidden_size)
        outputs["audio_states"] = torch.randn(size, requires_grad=True)
        for prefix in model.config.semantics:
            outputs[f"{prefix}_embedding"] = torch.randn(len(rows), model.config.text_config.hidden_size)
            outputs[f"{prefix}_attention_mask"] = inputs[f"{prefix}_attention_mask"]
        return BatchFeature({**outputs, "labels": inputs["labels"]})

    return training_step(model, with_outputs)


def _timed(step: _Step, batches: Sequence[Sequence[Mapping[str, Any]]], device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    for rows in batches:
        step(rows)
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
