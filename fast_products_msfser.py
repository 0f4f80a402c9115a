"""Matrix products of the fast encoders on a CPU, through oneDNN: in float32, and in bfloat16 where the CPU has it.

The bfloat16 kernels run under `torch.autocast("cpu", torch.bfloat16)`, for a model whose weights are in bfloat16, and
for the vocabulary of a recognizer ([`logits_of`]). Under autocast the weights stay in float32. Those that no gradient
reaches are rounded and arranged once, and these packed weights are kept beside the model, not in it: copies and files
do not change. [`packed`] says when they are made again, and [`forget_packed`] frees them. In float32, weights of some
sizes are arranged once for inputs of a few rows, such as the tokens of a short text.
"""

import contextlib
import functools
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import nn
from torch.autograd.function import once_differentiable
from torch.utils.weak import WeakTensorKeyDictionary
from transformers.utils import logging

logger = logging.get_logger(__name__)

PRECISIONS = ("float32", "bfloat16")
# With fewer rows oneDNN spends more time on rearranging float32 weights than it saves, unless they are packed. Packing
# pays from two rows on, for matrices of at least so many weights; those of larger ones would need too much memory.
_FEWEST_ROWS, _FEWEST_PACKED_ROWS = 32, 2
_PACKED_SIZES = range(2**19, 2**20)
_FLOATS = (torch.float32, torch.bfloat16)
# How many of the greatest logits are computed in float32.
_EXACT = 32
# About how many of its values a weight is compared by: some tools write to `.data`, which changes no version.
_PROBES = 256
# The next probe is so much of a row further on, so that probes lie in all columns.
_GOLDEN = 0.618
# Integers of the size of a floating-point number in bytes.
_BITS = {2: torch.int16, 4: torch.int32, 8: torch.int64}
# Subclasses may have no values that can be compared.
_PLAIN = {torch.Tensor, nn.Parameter}
_PACKED: Any = WeakTensorKeyDictionary()


def _cpu_has(name: str) -> bool:
    return bool(getattr(torch.cpu, name, lambda: False)())


# Once, and not in traced code, which cannot ask.
_HAS_AMX = _cpu_has("_is_amx_tile_supported")
_HAS_BFLOAT16 = (
    (_HAS_AMX or _cpu_has("_is_avx512_bf16_supported"))
    and torch.backends.mkldnn.is_available()
    and hasattr(torch.ops.mkldnn, "_linear_pointwise")
)


class MsfSerLinear(nn.Linear):
    """A linear layer through oneDNN where that is possible: on a CPU, in float32 or bfloat16, not compiled.

    In float32 it is up to twice as fast as MKL on processors that MKL does not favor; in bfloat16 its weights need not
    be arranged in each call.
    """

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """`(..., in_features)` -> `(..., out_features)`."""
        return linear(input, self.weight, self.bias)


def linear(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """`x w^T + b`: `(..., size)` and `(outputs, size)` -> `(..., outputs)`, in bfloat16 if [`is_reduced`]."""
    if is_reduced(x, weight):
        x = x.to(torch.bfloat16)
        if not wants_gradient(x, weight, bias):
            return _packed_product(as_matrix, x, weight, bias)
    elif _is_for_packed(x, weight) and not wants_gradient(x, weight, bias):
        return _packed_product(_arranged, x, weight, bias)
    elif not _is_for_one_dnn(x, weight):
        return nn.functional.linear(x, weight, bias)
    multiply = _OneDnnLinear.apply if wants_gradient(x, weight, bias) else product
    return multiply(x.flatten(0, -2), weight, bias).unflatten(0, x.shape[:-1])


def is_fast(x: torch.Tensor, weight: torch.Tensor) -> bool:
    """Whether [`linear`] computes this product itself, also where gradients are wanted."""
    return is_reduced(x, weight) or _is_for_one_dnn(x, weight)


def has_bfloat16() -> bool:
    """Whether this CPU multiplies bfloat16 (AVX512-BF16 or AMX); others imitate it, slower than float32."""
    return _HAS_BFLOAT16


def has_amx() -> bool:
    """Whether this CPU has AMX, matrix registers for bfloat16 among others."""
    return _HAS_AMX


def check_precision(precision: str) -> None:
    """Raises a `ValueError` if there is no such precision."""
    if precision not in PRECISIONS:
        raise ValueError(f"precision={precision!r} is not known: choose {' or '.join(map(repr, PRECISIONS))}.")


def in_precision(precision: str, device: torch.device) -> contextlib.AbstractContextManager[Any]:
    """What encoders, or a recognizer, of one of the `PRECISIONS` run in on a device."""
    if precision == "float32":
        return contextlib.nullcontext()
    if device.type == "cpu" and not has_bfloat16():
        if not torch.compiler.is_compiling():
            logger.warning_once("This CPU has neither AVX512-BF16 nor AMX: bfloat16 is replaced by float32.")
        return contextlib.nullcontext()
    return torch.autocast(device.type, torch.bfloat16)


def is_reduced(x: torch.Tensor, weight: torch.Tensor) -> bool:
    """Whether a product with this input runs in the bfloat16 kernels."""
    # In this order: a traced tensor must not reach the other conditions.
    if torch.compiler.is_compiling() or x.device.type != "cpu" or not {x.dtype, weight.dtype} <= set(_FLOATS):
        return False
    if torch.is_autocast_enabled("cpu"):
        is_asked = torch.get_autocast_dtype("cpu") == torch.bfloat16
    else:
        is_asked = x.dtype == weight.dtype == torch.bfloat16
    return is_asked and x.dim() > 1 and x.numel() > 0 and has_bfloat16()


def wants_gradient(*tensors: torch.Tensor | None) -> bool:
    """Whether a function of these tensors is recorded for gradients."""
    return torch.is_grad_enabled() and any(tensor is not None and tensor.requires_grad for tensor in tensors)


def _is_for_one_dnn(x: torch.Tensor, weight: torch.Tensor, fewest_rows: int = _FEWEST_ROWS) -> bool:
    # In this order: a traced tensor, or one that is handled otherwise, must not reach the conditions of the kernel.
    return (
        not torch.compiler.is_compiling()
        and x.device.type == "cpu"
        and x.dtype == weight.dtype == torch.float32
        and not torch.is_autocast_enabled("cpu")
        and x.numel() >= fewest_rows * x.shape[-1]
        and torch.backends.mkl.is_available()
        and torch.backends.mkldnn.is_available()
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    )


def _is_for_packed(x: torch.Tensor, weight: torch.Tensor) -> bool:
    """Whether the rows of a float32 input are so few that a weight of this size should be packed."""
    # In this order: the number of rows must not be asked for in traced code.
    return (
        weight.numel() in _PACKED_SIZES
        and _is_for_one_dnn(x, weight, _FEWEST_PACKED_ROWS)
        and x.numel() < _FEWEST_ROWS * x.shape[-1]
        and {type(x), type(weight)} <= _PLAIN
        and not weight.is_inference()
    )


class _OneDnnLinear(torch.autograd.Function):
    """`x w^T + b` of a matrix, with gradients, which the kernel itself does not have; in the precision of `x`."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        ctx.save_for_backward(x if weight.requires_grad else None, weight if x.requires_grad else None)
        return product(x, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        of_x, of_weight, of_bias = ctx.needs_input_grad
        return (
            product(gradient, weight.T) if of_x else None,
            product(gradient.T, x.contiguous().T) if of_weight else None,
            gradient.sum(0, dtype=torch.float32) if of_bias else None,
        )


def product(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    """`x w^T + b` of matrices without gradients, in the precision of `x`: `(rows, size)` -> `(rows, outputs)`."""
    bias = None if bias is None else bias.to(x.dtype)
    # Rows with gaps between them send the kernel to its slow reference code; a transposed weight does not.
    return torch.ops.mkldnn._linear_pointwise(x.contiguous(), weight.to(x.dtype), bias, "none", [], "")


def _packed_product(
    pack: Callable[..., torch.Tensor], x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None
) -> torch.Tensor:
    return product(x.flatten(0, -2), packed(pack, weight), bias).unflatten(0, x.shape[:-1])


def logits_of(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """`x w^T` for many outputs, without gradients: `(..., size)` and `(outputs, size)` -> `(..., outputs)`, float32.

    Reading the weights is most of the work. So a CPU that has bfloat16 computes all logits in it, and the greatest
    ones, of which one is chosen, again in float32, as bfloat16 has too few digits to choose between them. Those that
    stay in bfloat16 have next to no share of the probability.
    """
    is_kept = has_bfloat16() and not weight.is_inference()
    if is_reduced(x, weight) or (is_kept and _is_for_one_dnn(x, weight, fewest_rows=1)):
        rows = x.flatten(0, -2)
        logits = product(rows.to(torch.bfloat16), packed(as_matrix, weight)).float()
        greatest = logits.topk(min(_EXACT, logits.shape[-1])).indices
        logits.scatter_(-1, greatest, (rows[:, None].float() * weight[greatest]).sum(-1))
        return logits.unflatten(0, x.shape[:-1])
    with torch.autocast(x.device.type, enabled=False):
        if not _is_for_one_dnn(x, weight, _FEWEST_PACKED_ROWS):
            return nn.functional.linear(x, weight).float()
        return _packed_product(_arranged, x, weight)


def as_matrix(weight: torch.Tensor) -> torch.Tensor:
    """A matrix `(outputs, size)` in bfloat16 as [`product`] reads it fastest."""
    return _arranged(weight.to(torch.bfloat16))


def _arranged(weight: torch.Tensor) -> torch.Tensor:
    arranged: torch.Tensor = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous())
    return arranged


@torch.no_grad()
def packed(
    make: Callable[..., torch.Tensor], *parameters: torch.Tensor, precision: torch.dtype | None = None
) -> torch.Tensor:
    """What `make` makes of parameters, made again only after one of them, or the precision that it makes, has changed.

    A change is noticed by the parameter's version, place and type in memory, and about 256 of its values, spread over
    all rows and columns. A fused optimizer, or what is written to `.data`, changes no version: a change of few values
    can be missed there. Parameters made in inference mode have no version, and nothing is kept of them.
    """
    if any(parameter.is_inference() for parameter in parameters):
        return make(*parameters)
    # The code of a function, which outlives no model and is the same in each call.
    states = [getattr(make, "__code__", make), precision, *map(_state, parameters)]
    found = _PACKED.get(parameters[0])
    if found is None or found[0] != states:
        found = _PACKED[parameters[0]] = (states, make(*(parameter.detach() for parameter in parameters)))
    made: torch.Tensor = found[1]
    return made


def forget_packed(parameters: Iterable[torch.Tensor]) -> None:
    """Frees what [`packed`] has kept of parameters."""
    for parameter in parameters:
        _PACKED.pop(parameter, None)


def _state(parameter: torch.Tensor) -> Sequence[Any]:
    probes = parameter.detach().flatten()[:: _stride(parameter.shape)].clone()
    # NumPy has no bfloat16. It gets a copy, as FSDP cannot resize what it has a view of.
    bits = probes.view(_BITS[parameter.element_size()]).numpy().tobytes()
    return parameter._version, parameter.data_ptr(), parameter.dtype, bits


@functools.cache
def _stride(shape: torch.Size) -> int:
    """Between two probes; it shares no divisor with the length of a row, or all would lie in few columns."""
    row = shape[1:].numel()
    stride = max(1, shape.numel() // _PROBES)
    if 1 < row <= stride:
        stride += round(_GOLDEN * row) - stride % row
    while math.gcd(stride, row) > 1:
        stride += 1
    return stride
