"""Training and inference at the paper's size on one GPU, ours against stock transformers, in bfloat16.

    python -m msfser.benchmarks.gpu

WavLM-Large and RoBERTa-Large have their full size and random weights, which changes no time; clips are noise of the
lengths in `clips.json`, several times over, with random tokens as texts. Both sides run under bfloat16 autocast: the
stock encoders in batches of a fixed number of clips in the given order; ours in batches by seconds, of similar length,
and, for the rows with `equal_batches`, in those of stock. Memory is measured with one model on the device.
The command needs a few minutes and 40 GB of GPU memory. Its rows go to
`results/speed.json`, with the name of the device; without a GPU it says so.

| row | value |
|---|---|
| `gpu_train_step/ratio` | an epoch of training (WavLM-Large without its front end), stock time by ours |
| `gpu_train_step/seconds`, `gpu_train_memory/gigabytes` | ours: per step, and peak of the allocator |
| `gpu_train_memory/ratio` | peak memory, ours by stock |
| `gpu_equal_batches/train_step`, `.../train_memory`, `.../inference` | the three ratios with the batches of stock |
| `gpu_inference/ratio`, `gpu_inference/hours_per_hour` | all clips: stock time by ours, and hours of sound per hour |
| `gpu_ddp/loss_difference`, `gpu_fsdp/loss_difference` | of a step in one process, wrapped and not |
"""

import copy
import functools
import gc
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.fsdp import fully_shard

from ..audio_msfser import SAMPLING_RATE
from ..configuration_msfser import MsfSerConfig
from ..evaluation.results import Row, row
from ..modeling_msfser import MsfSerModel
from ..training.batches import batches_by_size
from .command import check_repeats, parser_of, record
from .speed import interleaved, machine, ratio
from .training_speed import clip_seconds

COPIES = 4
CLIPS_IN_BATCH = 16
BATCH_SECONDS = 120.0
TOKENS = 32
_EQUAL = "ours in the batches of stock"

Batch = dict[str, torch.Tensor]


def main(argv: Sequence[str] | None = None) -> None:
    """Measures all rows, prints them and adds them to `benchmarks/results/speed.json`."""
    parser = parser_of("gpu", __doc__)
    parser.add_argument("--repeats", type=int, default=5, help="interleaved repeats (5)")
    arguments = parser.parse_args(argv)
    check_repeats(parser, arguments.repeats)
    if not torch.cuda.is_available():
        raise SystemExit("There is no CUDA GPU here, and nothing is measured: run this command on a machine with one.")
    seconds = clip_seconds() * COPIES
    rows = measure(MsfSerConfig(), seconds, arguments.repeats, torch.device("cuda"))
    about = {**machine(), "device": torch.cuda.get_device_name()}
    record("speed", [{**about, **each} for each in rows], "gpu", ["--repeats", str(arguments.repeats)])


def measure(config: MsfSerConfig, seconds: Sequence[float], repeats: int, device: torch.device) -> list[Row]:
    """All rows.

    Args:
        config: Of the model; the stock one differs in `fast_encoders` only.
        seconds: Of the clips.
        repeats: Interleaved.
        device: A GPU; on a CPU there is no peak memory, and its rows are 0.
    """
    by_count = [range(start, start + CLIPS_IN_BATCH) for start in range(0, len(seconds), CLIPS_IN_BATCH)]
    by_seconds = batches_by_size(seconds, BATCH_SECONDS, len(seconds))
    indices: dict[str, Any] = {"stock": by_count, "ours": by_seconds, _EQUAL: by_count}
    batches = {
        name: [_inputs(config, [seconds[i] for i in batch if i < len(seconds)], device) for batch in of]
        for name, of in indices.items()
    }
    peaks = {name: _peak(config, name != "stock", of, device) for name, of in batches.items()}
    models = {is_fast: _model(config, is_fast, device) for is_fast in (False, True)}
    steps = {is_fast: _step_of(model) for is_fast, model in models.items()}
    spent = _spent({name: steps[name != "stock"] for name in batches}, batches, repeats, device)
    rows = [
        ratio("gpu_train_step/ratio", spent["stock"], spent["ours"]),
        ratio("gpu_train_step/seconds", spent["ours"], [float(len(batches["ours"]))] * repeats),
        row("gpu_train_memory/gigabytes", peaks["ours"] / 1e9),
        row("gpu_train_memory/ratio", peaks["ours"] / max(peaks["stock"], 1)),
        ratio("gpu_equal_batches/train_step", spent["stock"], spent[_EQUAL]),
        row("gpu_equal_batches/train_memory", peaks[_EQUAL] / max(peaks["stock"], 1)),
    ]
    predictions = {is_fast: _prediction_of(model.eval()) for is_fast, model in models.items()}
    spent = _spent({name: predictions[name != "stock"] for name in batches}, batches, repeats, device)
    rows.append(ratio("gpu_inference/ratio", spent["stock"], spent["ours"]))
    rows.append(ratio("gpu_inference/hours_per_hour", [sum(seconds)] * repeats, spent["ours"]))
    rows.append(ratio("gpu_equal_batches/inference", spent["stock"], spent[_EQUAL]))
    return rows + _wrapped(models[True], batches["ours"][-1], device)


def _spent(
    steps: dict[str, Callable[[Batch], None]], batches: dict[str, list[Batch]], repeats: int, device: torch.device
) -> dict[str, list[float]]:
    """Seconds of an epoch of each, interleaved, after one of each."""
    tasks = {name: functools.partial(_epoch, step, batches[name], device) for name, step in steps.items()}
    for task in tasks.values():
        task()  # warm
    return interleaved(tasks, repeats)


def _peak(config: MsfSerConfig, is_fast: bool, batches: Sequence[Batch], device: torch.device) -> int:
    """Bytes of the allocator in the second epoch of training, with this model alone on the device; 0 on a CPU."""
    if device.type != "cuda":
        return 0
    step = _step_of(_model(config, is_fast, device))
    _epoch(step, batches, device)
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    _epoch(step, batches, device)
    peak = torch.cuda.max_memory_allocated()
    del step
    gc.collect()
    torch.cuda.empty_cache()
    return peak


def _model(config: MsfSerConfig, fast: bool, device: torch.device) -> Any:
    torch.manual_seed(0)
    config = copy.deepcopy(config)
    config.fast_encoders = fast
    model: Any = MsfSerModel(config)
    return model.to(device)


def _inputs(config: MsfSerConfig, seconds: Sequence[float], device: torch.device) -> Batch:
    """Noise of these lengths, padded, and random tokens and labels."""
    draw = torch.Generator().manual_seed(len(seconds))
    lengths = torch.tensor([round(length * SAMPLING_RATE) for length in seconds])
    batch = {
        "input_values": torch.randn(len(seconds), int(lengths.max()), generator=draw),
        "attention_mask": (torch.arange(int(lengths.max())) < lengths[:, None]).long(),
        "labels": torch.rand(len(seconds), 3, generator=draw),
    }
    for name in config.semantics or ():
        shape, vocabulary = (len(seconds), TOKENS), cast(Any, config.text_config).vocab_size
        batch[f"{name}_input_ids"] = torch.randint(4, vocabulary, shape, generator=draw)
        batch[f"{name}_attention_mask"] = torch.ones(shape, dtype=torch.long)
    return {name: tensor.to(device) for name, tensor in batch.items()}


def _step_of(model: Any) -> Callable[[Batch], None]:
    """A training step, as `Trainer` does it."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-5, fused=True)
    model.train()

    def step(batch: Batch) -> None:
        _loss(model, batch).backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def _prediction_of(model: Any) -> Callable[[Batch], None]:
    def predict(batch: Batch) -> None:
        with torch.inference_mode():
            _loss(model, batch)

    return predict


def _loss(model: Any, batch: Batch) -> torch.Tensor:
    with torch.autocast(batch["input_values"].device.type, torch.bfloat16):
        loss: torch.Tensor = model(**batch).loss
    return loss


def _epoch(step: Callable[[Batch], None], batches: Sequence[Batch], device: torch.device) -> None:
    for batch in batches:
        step(batch)
    if device.type == "cuda":
        torch.cuda.synchronize()


def _wrapped(model: Any, batch: Batch, device: torch.device) -> list[Row]:
    """The loss of one step in a group of one process, against that of the model itself; no dropout."""
    expected = _loss(model, batch).item()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        backend = "nccl" if device.type == "cuda" else "gloo"
        dist.init_process_group(backend, init_method=Path(folder, "group").as_uri(), rank=0, world_size=1)
        try:
            for name, wrap in (("ddp", _in_ddp), ("fsdp", _in_fsdp)):
                loss = _loss(wrap(model), batch)
                loss.backward()
                rows.append(row(f"gpu_{name}/loss_difference", abs(loss.item() - expected)))
        finally:
            dist.destroy_process_group()
    return rows


def _in_ddp(model: Any) -> nn.Module:
    return nn.parallel.DistributedDataParallel(model)


def _in_fsdp(model: Any) -> nn.Module:
    """In units of one transformer layer, in place."""
    layers = set(model._no_split_modules)
    for module in list(model.modules()):
        if type(module).__name__ in layers:
            fully_shard(module)
    fully_shard(model)
    wrapped: nn.Module = model
    return wrapped


if __name__ == "__main__":
    main()
