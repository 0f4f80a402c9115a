"""Our encoders beside other ways to run them on a CPU: compiled, and by ONNX Runtime; eGeMAPS beside the starter.

    pip install -e ".[onnx,peers]"
    OMP_NUM_THREADS=2 python -m msfser.benchmarks.encoder_peers

WavLM-Large has its full size and random weights; the clips are noise of the lengths in `clips.json`, one after
another, so that there is no padding. All systems take turns in one run, after one pass each, and the values are
medians of the repeats with the lowest and the highest. The rows go to `results/speed.json`, each with its machine,
versions and threads. openSMILE's license is for research.

| system | what runs |
|---|---|
| `ours`, `ours_bfloat16` | the fast encoder |
| `stock`, `stock_bfloat16` | the encoder of transformers |
| `compiled`, `compiled_bfloat16` | the same by `torch.compile` for any length |
| `onnx_stock` | ONNX Runtime on an export of the stock encoder by `torch.onnx` |
| `onnx_ours` | ONNX Runtime on what `msfser export` makes of a model with this encoder, from sound alone |
| `starter` | the pipeline with the starter, from sound alone |
| `egemaps` | the eGeMAPS functionals of openSMILE, which are inputs of a model, not its numbers |

`encoder_peers/SYSTEM/hours_per_hour` is hours of sound in an hour. `encoder_peers/SYSTEM/ratio` is its time divided by
that of ours in the same precision, and of `egemaps` by that of the starter.
"""

import contextlib
import copy
import importlib.util
import logging
import tempfile
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoConfig, AutoModel

from ..audio_msfser import SAMPLING_RATE
from ..configuration_msfser import WAVLM_LARGE, MsfSerConfig
from ..evaluation.results import Row
from ..fast_encoders_msfser import speed_up
from ..fast_products_msfser import has_bfloat16
from ..hub.export import export
from ..hub.loading import load_named
from ..modeling_msfser import MsfSerModel
from ..pipeline_msfser import MsfSerPipeline
from .command import check_repeats, parser_of, record
from .speed import interleaved, machine, ratio
from .training_speed import clip_seconds

System = Callable[[np.ndarray], object]
_NEEDED = {"onnx": "onnx", "onnxscript": "onnx", "onnxruntime": "onnx", "opensmile": "peers"}


def main(argv: Sequence[str] | None = None) -> None:
    """Measures, prints the rows and adds them to `benchmarks/results/speed.json`."""
    parser = parser_of("encoder_peers", __doc__)
    parser.add_argument("--repeats", type=int, default=5, help="interleaved repeats (5)")
    parser.add_argument("--clips", type=int, help="only so many clips of the list, from its start")
    arguments = parser.parse_args(argv)
    check_repeats(parser, arguments.repeats)
    for package, extra in _NEEDED.items():
        if importlib.util.find_spec(package) is None:
            parser.error(f'{package} is missing: pip install "msfser[{extra}]".')
    for name in ("onnxscript", "onnx_ir", "torch.onnx"):  # notes on folding
        logging.getLogger(name).setLevel(logging.ERROR)
    starter = load_named("starter")
    with tempfile.TemporaryDirectory() as folder:
        systems = encoders(WAVLM_LARGE, Path(folder))
        systems |= descriptions(MsfSerPipeline(starter.model, processor=starter.processor, **_SOUND_ALONE))
        rows = measure(systems, clip_seconds()[: arguments.clips], arguments.repeats)
    record("speed", [{**machine(), **one} for one in rows], "encoder_peers", argv)


_SOUND_ALONE: dict[str, Any] = {"recognizer": None, "describer": None}


def measure(systems: Mapping[str, System], seconds: Sequence[float], repeats: int) -> list[Row]:
    """The rows of some systems over clips of noise, `ours` and the starter among them.

    Args:
        systems: By name.
        seconds: Of the clips.
        repeats: Interleaved.
    """
    draw = np.random.default_rng(0)
    clips = [draw.standard_normal(round(length * SAMPLING_RATE)).astype(np.float32) for length in seconds]

    def task(system: System) -> Callable[[], None]:
        def run() -> None:
            for clip in clips:
                system(clip)

        return run

    tasks = {name: task(system) for name, system in systems.items()}
    for run in tasks.values():
        run()  # compiles, and arranges weights
    spent = interleaved(tasks, repeats)
    rows = []
    for name, times in spent.items():
        reference = {"starter": "starter", "egemaps": "starter"}.get(name, "ours")
        reference += "_bfloat16" if name.endswith("_bfloat16") else ""
        rows.append(ratio(f"encoder_peers/{name}/hours_per_hour", [sum(seconds)] * repeats, times))
        rows.append(ratio(f"encoder_peers/{name}/ratio", times, spent[reference]))
    return rows


def encoders(config: dict[str, Any], folder: Path, backend: str = "inductor") -> dict[str, System]:
    """The encoder in each way; those in bfloat16 only where the CPU has it.

    Args:
        config: Of the encoder.
        folder: For the exports.
        backend: Of `torch.compile`.
    """
    torch.manual_seed(0)
    stock: Any = AutoModel.from_config(AutoConfig.for_model(**config)).eval().requires_grad_(False)
    fast = speed_up(copy.deepcopy(stock))
    systems = {
        "ours": _encoding(fast, stock),
        "stock": _encoding(stock, stock),
        "compiled": _encoding(torch.compile(copy.deepcopy(stock), dynamic=True, backend=backend), stock),
    }
    if has_bfloat16():
        half = copy.deepcopy(stock).bfloat16()
        compiled = torch.compile(copy.deepcopy(half), dynamic=True, backend=backend)
        systems["ours_bfloat16"] = _encoding(fast, stock, torch.bfloat16)
        systems["stock_bfloat16"] = _encoding(half, half)
        systems["compiled_bfloat16"] = _encoding(compiled, half)
    systems["onnx_stock"] = _session(_exported(stock, folder / "stock.onnx"))
    model = MsfSerModel(MsfSerConfig(audio_config=dict(config), semantics=[]))
    model.audio_encoder.load_state_dict(stock.state_dict())
    model.save_pretrained(folder / "model")
    export(folder / "model", folder / "ours.onnx")
    systems["onnx_ours"] = _session(folder / "ours.onnx")
    return systems


def descriptions(starter: MsfSerPipeline) -> dict[str, System]:
    """The starter, and eGeMAPS.

    Args:
        starter: Its pipeline, from sound alone.
    """
    import opensmile

    smile = opensmile.Smile(opensmile.FeatureSet.eGeMAPSv02, opensmile.FeatureLevel.Functionals)
    return {
        "starter": lambda clip: starter(clip, sampling_rate=SAMPLING_RATE),
        "egemaps": lambda clip: smile.process_signal(clip, SAMPLING_RATE),
    }


def _encoding(encoder: Any, weights: torch.nn.Module, autocast: torch.dtype | None = None) -> System:
    """An encoder on a clip in the precision of weights, or under autocast."""
    precision = next(weights.parameters()).dtype

    def run(clip: np.ndarray) -> torch.Tensor:
        context = contextlib.nullcontext() if autocast is None else torch.autocast("cpu", autocast)
        with torch.no_grad(), context:
            states: torch.Tensor = encoder(torch.from_numpy(clip)[None].to(precision)).last_hidden_state
        return states

    return run


class _Traced(torch.nn.Module):
    """An encoder with a tensor as its output."""

    def __init__(self, encoder: Any):
        super().__init__()
        self.encoder = encoder

    def forward(self, input_values: torch.Tensor) -> torch.Tensor:
        states: torch.Tensor = self.encoder(input_values).last_hidden_state
        return states


def _exported(encoder: Any, path: Path) -> Path:
    """An export by `torch.onnx` for one clip of any length."""
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            _Traced(encoder).eval(),
            (torch.randn(1, 2 * SAMPLING_RATE),),
            dynamo=True,
            verbose=False,
            input_names=["input_values"],
            dynamic_shapes=({1: torch.export.Dim.DYNAMIC},),
        )
    assert program is not None
    program.save(path)
    return path


def _session(path: Path) -> System:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names = {each.name for each in session.get_inputs()}

    def run(clip: np.ndarray) -> Any:
        given = {"input_values": clip[None], "attention_mask": np.ones((1, len(clip)), np.int64)}
        return session.run(None, {name: value for name, value in given.items() if name in names})

    return run


if __name__ == "__main__":
    main()
