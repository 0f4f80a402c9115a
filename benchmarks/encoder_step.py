"""A training step of WavLM-Large in its own process: its time and the peak memory of the process.

    OMP_NUM_THREADS=2 python -m msfser.benchmarks.encoder_step stock
    OMP_NUM_THREADS=2 python -m msfser.benchmarks.encoder_step ours_bf16

8 clips of 6 s of noise, random weights, all of them trained by fused AdamW, without activation checkpointing. A step
of one short clip comes first. Prints one line of JSON; `benchmarks/bfloat16.py training` makes ratios of them.

- `stock`: the encoder of transformers in float32;
- `stock_bf16`: the same under bfloat16 autocast;
- `ours_bf16`: the fast encoder under bfloat16 autocast, as `msfser train --bf16 true` runs it on a CPU.
"""

import json
import resource
import time
from collections.abc import Sequence
from typing import Any

import torch
from transformers import AutoConfig, AutoModel

from ..audio_msfser import SAMPLING_RATE
from ..configuration_msfser import WAVLM_LARGE
from ..fast_encoders_msfser import speed_up
from .command import parser_of

CLIP_COUNT, CLIP_SECONDS = 8, 6.0
VARIANTS = ("stock", "stock_bf16", "ours_bf16")


def main(argv: Sequence[str] | None = None) -> None:
    """Times one step."""
    parser = parser_of("encoder_step", __doc__)
    parser.add_argument("variant", choices=VARIANTS)
    parser.add_argument("--clips", type=int, default=CLIP_COUNT, help="clips of a step (8)")
    parser.add_argument("--seconds", type=float, default=CLIP_SECONDS, help="of a clip (6)")
    arguments = parser.parse_args(argv)
    print(json.dumps(step(arguments.variant, arguments.clips, arguments.seconds)))


def step(variant: str, clips: int, seconds: float, config: dict[str, Any] = WAVLM_LARGE) -> dict[str, float]:
    """One step after a short one.

    Args:
        variant: One of `VARIANTS`.
        clips: Of a step.
        seconds: Of a clip.
        config: Of the encoder.

    Returns:
        `seconds` and `peak_bytes` (resident memory of the process).
    """
    torch.manual_seed(0)
    # Layers are not dropped at random, as in training: `MsfSerModel` switches LayerDrop off.
    model: Any = AutoModel.from_config(AutoConfig.for_model(**config | {"layerdrop": 0.0})).train()
    if variant.startswith("ours"):
        speed_up(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=True)

    def train(sound: torch.Tensor) -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=variant.endswith("bf16")):
            states = model(sound).last_hidden_state
        states.float().square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()

    train(torch.randn(1, SAMPLING_RATE))
    sound = torch.randn(clips, round(seconds * SAMPLING_RATE))
    start = time.perf_counter()
    train(sound)
    spent = time.perf_counter() - start
    return {"seconds": spent, "peak_bytes": 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss}


if __name__ == "__main__":
    main()
