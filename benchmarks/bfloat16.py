"""How fast the encoders are in bfloat16 on a CPU, against stock ones in float32 and in bfloat16.

    OMP_NUM_THREADS=2 python -m msfser.benchmarks.bfloat16
    OMP_NUM_THREADS=2 python -m msfser.benchmarks.bfloat16 inference --repeats 5

Every row is a ratio of stock time to ours (of memory: ours to stock), measured interleaved, the median of the repeats
with the lowest and the highest. WavLM-Large has its full size and random weights; the clips are noise of the lengths
in `clips.json`. Each row says with which machine, versions and threads; the rows are added to `results/speed.json`.

| group | rows |
|---|---|
| `inference` | WavLM-Large over all clips, one clip of 6 s, 8-bit layers, and the floor: matrix products alone |
| `agreement` | how well predictions in bfloat16 agree with those in float32 |
| `training` | a step of 8 clips of 6 s with all weights trained (`encoder_step.py`): time and peak memory |

A CPU with neither AVX512-BF16 nor AMX has no such kernels: the command says so and measures nothing.
"""

import copy
import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import Any

import torch
from transformers import AutoConfig, AutoModel

from ..audio_msfser import SAMPLING_RATE
from ..configuration_msfser import WAVLM_LARGE
from ..encoders_msfser import waveform_states
from ..evaluation.results import Row
from ..fast_encoders_msfser import quantize_linear_layers, speed_up
from ..fast_products_msfser import has_bfloat16
from .command import check_repeats, parser_of, record
from .encoder_step import CLIP_COUNT, CLIP_SECONDS, VARIANTS
from .speed import agreement, interleaved, machine, padded, paper_model, products, ratio, small_model
from .training_speed import clip_seconds

SINGLE_SECONDS = 6.0


def main(argv: Sequence[str] | None = None) -> None:
    """Measures the groups that are asked for, prints their rows and adds them to `benchmarks/results/speed.json`."""
    parser = parser_of("bfloat16", __doc__)
    parser.add_argument("rows", nargs="*", default=list(ROWS), help=f"groups of rows: {', '.join(ROWS)}; all of them")
    parser.add_argument("--repeats", type=int, default=5, help="interleaved repeats (5)")
    arguments = parser.parse_args(argv)
    if unknown := sorted(set(arguments.rows) - set(ROWS)):
        parser.error(f"{', '.join(unknown)}: there is no such group of rows, only {', '.join(ROWS)}.")
    check_repeats(parser, arguments.repeats)
    if not has_bfloat16():
        raise SystemExit("This CPU has neither AVX512-BF16 nor AMX: there is nothing to measure in bfloat16.")
    seconds = clip_seconds()
    for group in arguments.rows:
        rows = [{**machine(), **each} for each in ROWS[group](seconds, arguments.repeats)]
        record("speed", rows, "bfloat16", [group, "--repeats", str(arguments.repeats)])


def inference(
    seconds: Sequence[float], repeats: int, config: dict[str, Any] = WAVLM_LARGE, single: float = SINGLE_SECONDS
) -> list[Row]:
    """WavLM over all clips: stock in padded batches of 4, ours in bfloat16, one clip after another.

    Rows: `wavlm_bf16/ratio` and `wavlm_bf16_vs_stock_bf16/ratio`, stock in float32 and in bfloat16 against ours;
    `wavlm_bf16_vs_stock_bf16_alone/ratio`, stock in bfloat16 one clip after another, without padding, against ours;
    `wavlm_bf16_single/ratio`, one clip, stock in bfloat16 against ours; `wavlm_bf16/gain`, ours in float32 against
    ours in bfloat16; `wavlm_bf16/seconds` and `.../hours_per_hour`, ours; `.../products`, the share of the linear
    layers alone; `.../gflops`, at which they run; `wavlm_bf16_vs_int8/ratio`, ours with 8-bit layers against ours.

    Args:
        seconds: Of the clips.
        repeats: Interleaved.
        config: Of the encoder.
        single: Seconds of the one clip.
    """
    torch.manual_seed(0)
    stock: Any = AutoModel.from_config(AutoConfig.for_model(**config)).eval()
    half, ours, integers = copy.deepcopy(stock).bfloat16(), speed_up(copy.deepcopy(stock)), copy.deepcopy(stock)
    quantize_linear_layers(integers)
    batches = padded([torch.randn(round(length * SAMPLING_RATE)) for length in seconds])
    one = torch.randn(1, round(single * SAMPLING_RATE))
    single_clip = [(one, torch.ones_like(one, dtype=torch.bool))]

    def run(model: Any, alone: bool = False, autocast: bool = False, given: Any = batches) -> Callable[[], None]:
        def task() -> None:
            with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=autocast):
                for values, mask in given:
                    waveform_states(model, values.to(model.dtype), mask, alone)

        return task

    def floor() -> None:
        with torch.autocast("cpu", torch.bfloat16):
            products(ours, seconds)

    tasks = {
        "stock": run(stock),
        "half": run(half),
        "half_alone": run(half, alone=True),
        "float32": run(ours, alone=True),
        "ours": run(ours, alone=True, autocast=True),
        "integers": run(integers, alone=True),
        "floor": floor,
        "single_half": run(half, given=single_clip),
        "single": run(ours, alone=True, autocast=True, given=single_clip),
    }
    for name in ("half", "ours", "integers"):
        tasks[name]()  # warm
    spent = interleaved(tasks, repeats)
    operations = 2 * _multiplications(ours, seconds) / 1e9
    return [
        ratio("wavlm_bf16/ratio", spent["stock"], spent["ours"]),
        ratio("wavlm_bf16_vs_stock_bf16/ratio", spent["half"], spent["ours"]),
        ratio("wavlm_bf16_vs_stock_bf16_alone/ratio", spent["half_alone"], spent["ours"]),
        ratio("wavlm_bf16_single/ratio", spent["single_half"], spent["single"]),
        ratio("wavlm_bf16/gain", spent["float32"], spent["ours"]),
        ratio("wavlm_bf16/seconds", spent["ours"], [1.0] * repeats),
        ratio("wavlm_bf16/hours_per_hour", [sum(seconds)] * repeats, spent["ours"]),
        ratio("wavlm_bf16/products", spent["floor"], spent["ours"]),
        ratio("wavlm_bf16/gflops", [operations] * repeats, spent["floor"]),
        ratio("wavlm_bf16_vs_int8/ratio", spent["integers"], spent["ours"]),
    ]


def _multiplications(encoder: Any, seconds: Sequence[float]) -> int:
    """Of the linear layers of all transformer layers over all frames."""
    config = encoder.config
    frames = sum(int(encoder._get_feat_extract_output_lengths(round(s * SAMPLING_RATE))) for s in seconds)
    of_frame = 4 * config.hidden_size**2 + 2 * config.hidden_size * config.intermediate_size
    return frames * int(config.num_hidden_layers) * int(of_frame)


def agreement_rows(seconds: Sequence[float], repeats: int) -> list[Row]:
    """`wavlm_bf16/ccc` of the paper's model with random encoders, `small_bf16/ccc` of Whisper tiny.en and MiniLM."""
    rows = agreement("wavlm_bf16", *paper_model(), train=32, test=40, epochs=20, reduce=_in_bfloat16)
    return rows + agreement("small_bf16", *small_model(), train=None, test=80, epochs=5, reduce=_in_bfloat16)


def _in_bfloat16(model: Any) -> Any:
    return model.set_precision("bfloat16")


def training(seconds: Sequence[float], repeats: int) -> list[Row]:
    """A step of WavLM-Large, each variant in its own process, after a short one.

    Rows: `train_bf16/ratio` and `train_bf16_vs_stock_bf16/ratio`, stock in float32 and under bfloat16 autocast against
    ours under autocast; `train_bf16_memory/ratio`, ours by stock in float32, peak of the process; `.../gigabytes`,
    `train_bf16/seconds` and `train_bf16/hours_per_hour`, ours.
    """
    spent: dict[str, list[dict[str, float]]] = {variant: [] for variant in VARIANTS}
    for _ in range(repeats):
        for variant in VARIANTS:
            command = [sys.executable, "-m", "msfser.benchmarks.encoder_step", variant]
            run = subprocess.run(command, capture_output=True, text=True, check=False)
            if run.returncode:
                raise SystemExit(f"{' '.join(command[1:])} ended with {run.returncode}: {run.stderr[-1000:]}")
            spent[variant].append(json.loads(run.stdout.splitlines()[-1]))
    times = {variant: [run["seconds"] for run in runs] for variant, runs in spent.items()}
    peaks = {variant: [run["peak_bytes"] for run in runs] for variant, runs in spent.items()}
    return [
        ratio("train_bf16/ratio", times["stock"], times["ours_bf16"]),
        ratio("train_bf16_vs_stock_bf16/ratio", times["stock_bf16"], times["ours_bf16"]),
        ratio("train_bf16_memory/ratio", peaks["ours_bf16"], peaks["stock"]),
        ratio("train_bf16_memory/gigabytes", peaks["ours_bf16"], [1e9] * repeats),
        ratio("train_bf16/hours_per_hour", [CLIP_COUNT * CLIP_SECONDS] * repeats, times["ours_bf16"]),
        ratio("train_bf16/seconds", times["ours_bf16"], [1.0] * repeats),
    ]


ROWS: dict[str, Callable[[Sequence[float], int], list[Row]]] = {
    "inference": inference,
    "agreement": agreement_rows,
    "training": training,
}


if __name__ == "__main__":
    main()
