"""Exports a saved model to ONNX, for onnxruntime, and checks that both give the same numbers.

    msfser export outputs/mine mine.onnx

The inputs and outputs of the graph are described in docs/deploying.md. Weights of more than 1.5 GiB go to a second
file, `mine.onnx.data`, which must stay in the folder of the first.
"""

import importlib.util
import logging
import os
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedConfig

from ..audio_msfser import SAMPLING_RATE
from ..cli.arguments import CommandParser
from ..cli.errors import cli_errors
from ..cli.outputs import UNFINISHED, refuse_existing
from ..configuration_msfser import MsfSerConfig
from ..encoders_msfser import is_padding_safe
from ..fast_encoders_msfser import slow_down, speed_up
from ..modeling_msfser import MsfSerModel

logger = logging.getLogger("msfser.export")

# Greatest difference between onnxruntime and PyTorch that counts as rounding.
TOLERANCE = 1e-4

_MEL_RATE = 100  # frames per second


class _Traced(nn.Module):
    """The model with positional inputs, as `torch.export` requires."""

    def __init__(self, model: MsfSerModel, inputs: Sequence[str], outputs: Sequence[str]):
        super().__init__()
        self.model, self.inputs, self.outputs = model, inputs, outputs

    def forward(self, *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        output = self.model(**dict(zip(self.inputs, tensors, strict=True)), output_explanations=True, return_dict=True)
        return tuple(output[name] for name in self.outputs)


def export(folder: str | Path, path: str | Path, overwrite: bool = False) -> float:
    """Exports a saved model and compares the file with it.

    Args:
        folder: Output of `save_pretrained` or `msfser train`.
        path: The file to write.
        overwrite: Whether an existing file is replaced, at the end.

    Returns:
        The greatest difference between the outputs of onnxruntime and of PyTorch, on random inputs of other sizes than
        in the export.

    Raises:
        ImportError: A package is missing.
        OSError: The folder cannot be read, or the file exists or cannot be written.
        ValueError: The file does not end with `.onnx`, its folder is missing, or the model is no MSF-SER model, or one
            that cannot be exported.
    """
    if missing := [name for name in ("onnx", "onnxscript", "onnxruntime") if importlib.util.find_spec(name) is None]:
        raise ImportError(f'Exporting needs {", ".join(missing)}: pip install "msfser[onnx]".')
    path = Path(path)
    if path.suffix != ".onnx":
        raise ValueError(f"{str(path)!r} does not end with .onnx: name the output so, such as mine.onnx.")
    if not path.parent.is_dir():
        raise ValueError(f"there is no folder {str(path.parent)!r} for the output: make it first.")
    data = path.with_name(f"{path.name}.data")
    for file in (path, data):
        refuse_existing(file, overwrite)
    model = _load(folder)
    encoders = [getattr(model, name) for name in ("audio_encoder", "text_encoder") if hasattr(model, name)]
    for encoder in encoders:
        slow_down(encoder)  # a trace through the fast attention holds for one length
    # The graph names its second file: both are written elsewhere under their names, and then moved.
    with tempfile.TemporaryDirectory(prefix=f".{path.name}.", suffix=UNFINISHED, dir=path.parent) as scratch:
        _write(model, Path(scratch, path.name))
        if model.config.fast_encoders:
            for encoder in encoders:
                speed_up(encoder)
        difference = compare(model, Path(scratch, path.name))
        for file in (path, data):
            file.unlink(missing_ok=True)
        for name in sorted(os.listdir(scratch), key=len, reverse=True):
            os.replace(Path(scratch, name), path.with_name(name))
    return difference


def compare(model: MsfSerModel, path: str | Path) -> float:
    """The greatest difference of any output between an exported file and its model (in float32, on a CPU).

    Compared are one item, three padded items of which one lacks a text and one the sound, and, for each input, an item
    that lacks it: a row of zeros in the graph, nothing in PyTorch.
    """
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    config: Any = model.config
    one = _random_inputs(config, [1.13], [5], seed=1)
    three = _random_inputs(config, [0.7, 2.57, 1.9], [9, 1, 6], seed=2)
    cases = [(one, one), (three, three)]
    tensors = list(one)
    pairs = list(zip(tensors[::2], tensors[1::2], strict=True))  # values and mask
    if len(pairs) > 1:
        three[pairs[0][1]][0] = 0
        three[pairs[-1][1]][1] = 0
        for values, mask in pairs:
            absent = {**one, mask: torch.zeros_like(one[mask])}
            cases.append((absent, {name: one[name] for name in tensors if name not in (values, mask)}))
    worst = 0.0
    for fed, given in cases:
        found = session.run(names, {name: tensor.numpy() for name, tensor in fed.items()})
        with torch.no_grad():
            expected = model(**given, output_explanations=True, return_dict=True)
        for name, array in zip(names, found, strict=True):
            # NaN must not pass as the smaller number.
            worst = float(np.maximum(worst, np.abs(array - expected[name].numpy()).max()))
    return worst


def _random_inputs(
    config: MsfSerConfig, seconds: Sequence[float], tokens: Sequence[int], seed: int
) -> dict[str, torch.Tensor]:
    """Padded noise and random tokens, each further text with one more, in the order of the graph's inputs."""
    generator = torch.Generator().manual_seed(seed)
    inputs = {}
    audio_config: Any = config.audio_config
    text_config: Any = config.text_config
    if config.audio:
        rate = _MEL_RATE if config.is_mel else SAMPLING_RATE
        mask = _padded_mask([round(length * rate) for length in seconds])
        bands = (audio_config.num_mel_bins,) if config.is_mel else ()
        sound = torch.randn(*mask.shape, *bands, generator=generator)
        sound *= mask.view(*mask.shape, *(1 for _ in bands))
        inputs["input_features" if config.is_mel else "input_values"] = sound
        inputs["attention_mask"] = mask
    for more, name in enumerate(config.semantics or ()):
        mask = _padded_mask([length + more for length in tokens])
        ids = torch.randint(text_config.vocab_size, mask.shape, generator=generator)
        padding = text_config.pad_token_id or 0
        inputs[f"{name}_input_ids"] = torch.where(mask.bool(), ids, padding)
        inputs[f"{name}_attention_mask"] = mask
    return inputs


def _load(folder: str | Path) -> MsfSerModel:
    if not Path(folder, "config.json").is_file():
        raise OSError(f"{str(folder)!r} has no config.json: give the output of msfser train or of save_pretrained.")
    kind = PreTrainedConfig.get_config_dict(folder)[0].get("model_type")
    if kind != MsfSerConfig.model_type:
        raise ValueError(f"{str(folder)!r} holds a model of the type {kind!r}, not {MsfSerConfig.model_type!r}.")
    config = MsfSerConfig.from_pretrained(folder)
    audio_config: Any = config.audio_config
    if config.audio and not is_padding_safe(audio_config):
        raise ValueError(
            f"The speech encoder ({audio_config.model_type}) runs item by item, because padding changes the "
            "output of its layers, and such a loop has no ONNX graph: use WavLM-Large, a wav2vec 2.0 or HuBERT model "
            "with layer norm, or Whisper."
        )
    return MsfSerModel.from_pretrained(folder, dtype=torch.float32).eval().requires_grad_(False)


def _write(model: MsfSerModel, path: Path) -> None:
    config: Any = model.config
    # torch.export treats sizes of 0 and 1 as constants.
    inputs = _random_inputs(config, [1.3, 0.9, 1.1, 0.6, 1.2], [7, 4, 6, 3, 5], seed=0)
    lengths = {"input_values": "samples", "input_features": "mel_frames"}
    lengths["attention_mask"] = lengths["input_features" if config.is_mel else "input_values"]
    axes = tuple({0: "batch", 1: lengths.get(name, f"{name.split('_')[0]}_tokens")} for name in inputs)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Support for mismatched", category=UserWarning)  # of WavLM's masks
        warnings.filterwarnings("ignore", message=".*axis name", category=UserWarning)  # batch names several axes
        warnings.filterwarnings("ignore", message=".*LeafSpec", category=FutureWarning)
        expected = model(**inputs, output_explanations=True, return_dict=True)
        outputs = [
            name for name in ("logits", "low", "high", "gate", "routing") if getattr(expected, name) is not None
        ]
        traced = torch.export.export(
            _Traced(model, list(inputs), outputs).eval(),
            tuple(inputs.values()),
            dynamic_shapes={"tensors": tuple(dict.fromkeys((0, 1), torch.export.Dim.DYNAMIC) for _ in inputs)},
            strict=False,
            # Some conditions, such as that of Whisper's halved frames, always hold, but the tracer cannot prove it.
            prefer_deferred_runtime_asserts_over_guards=True,
        )
        program = torch.onnx.export(
            traced,
            dynamo=True,
            verbose=False,
            input_names=list(inputs),
            output_names=outputs,
            dynamic_shapes={"tensors": axes},
        )
    assert program is not None
    program.save(path)


def _padded_mask(lengths: Sequence[int]) -> torch.Tensor:
    """`(items, greatest length)`, 1 up to each length."""
    return (torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]).long()


def main(argv: Sequence[str]) -> None:
    """Runs the command."""
    parser = CommandParser(
        prog="msfser export", description="Exports a saved model to ONNX and checks it with onnxruntime."
    )
    parser.add_argument("folder", type=Path, help="output of msfser train or of save_pretrained")
    parser.add_argument("output", type=Path, help="output file, such as mine.onnx")
    parser.add_argument("--overwrite", action="store_true", help="replace the file if it exists")
    arguments = parser.parse_args(argv)
    logging.basicConfig(format="%(message)s")
    logger.setLevel(logging.INFO)
    for name in ("onnxscript", "onnx_ir", "torch.onnx"):  # notes on folding, and that torchvision is missing
        logging.getLogger(name).setLevel(logging.ERROR)
    with cli_errors("export"):
        difference = export(arguments.folder, arguments.output, arguments.overwrite)
        if not difference <= TOLERANCE:
            raise ValueError(
                f"{arguments.output} was written, but it differs from the model by {difference:.1e}, more than "
                f"{TOLERANCE:g}: do not use it."
            )
    logger.info("%s differs from the model by at most %.1e.", arguments.output, difference)
