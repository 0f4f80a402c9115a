"""Convolutions on a CPU as matrix products of windows, with the channels last.

torch's convolutions arrange their weights in each call and their input and output twice, and in bfloat16, on CPUs with
AMX, some of oneDNN's give wrong sums for an image of one row.
"""

from typing import Any

import torch
from torch import nn
from torch.autograd.function import once_differentiable

from .fast_products_msfser import as_matrix, is_reduced, linear, packed, product, wants_gradient


class MsfSerConv1d(nn.Conv1d):
    """A layer that is computed by [`convolution`] where [`is_reduced`], and as by torch elsewhere."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """`(batch, channels, length)` -> `(batch, channels, windows)`, fastest if the channels are last in memory."""
        if not is_reduced(input, self.weight):
            return super().forward(input)
        padding = int(self.padding[0])
        padded = nn.functional.pad(input.mT.to(torch.bfloat16), (0, 0, padding, padding))
        return convolution(padded, self).mT


def convolution(x: torch.Tensor, conv: nn.Conv1d) -> torch.Tensor:
    """A convolution with one group and no dilation, of a sound that is already padded.

    Args:
        x: `(batch, length, channels)`, on a CPU; in bfloat16 ([`is_reduced`]), or in float32 without gradients.
        conv: Its weights; its padding is ignored.

    Returns:
        `(batch, windows, channels)`, in the precision of `x`.
    """
    width, stride = conv.kernel_size[0], conv.stride[0]
    if wants_gradient(x, conv.weight, conv.bias):
        return _Convolution.apply(x, _kernel_matrix(conv.weight), conv.bias, width, stride)
    windows = _windows(x, width, stride)
    if x.dtype == torch.float32:
        return linear(windows, packed(_kernel_matrix, conv.weight), conv.bias)
    weight = packed(lambda weight: as_matrix(_kernel_matrix(weight)), conv.weight)
    return product(windows.flatten(0, 1), weight, conv.bias).unflatten(0, windows.shape[:2])


def _kernel_matrix(weight: torch.Tensor) -> torch.Tensor:
    """`(channels out, channels in, width)` -> `(channels out, width * channels in)`."""
    return weight.transpose(1, 2).flatten(1)


def _windows(x: torch.Tensor, width: int, stride: int) -> torch.Tensor:
    """`(batch, length, channels)` -> a copy `(batch, windows, width * channels)`."""
    x = x.contiguous()
    batch, length, channels = x.shape
    shape = (batch, (length - width) // stride + 1, width * channels)
    return x.as_strided(shape, (length * channels, stride * channels, 1)).contiguous()


class _Convolution(torch.autograd.Function):
    """[`convolution`] with gradients, for which only its input is stored."""

    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, width: int, stride: int
    ) -> torch.Tensor:
        ctx.save_for_backward(x, weight)
        ctx.width, ctx.stride = width, stride
        windows = _windows(x, width, stride)
        return product(windows.flatten(0, 1), weight, bias).unflatten(0, windows.shape[:2])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        of_x, of_weight, of_bias, *_ = ctx.needs_input_grad
        batch, count, _ = gradient.shape
        gradient = gradient.flatten(0, 1)
        gradient_x = gradient_weight = None
        if of_weight:
            windows = _windows(x, ctx.width, ctx.stride).flatten(0, 1)
            gradient_weight = product(gradient.T, windows.T)
        if of_x:
            parts = product(gradient, weight.T).view(batch, count, ctx.width, -1)
            gradient_x = torch.zeros_like(x)
            for offset in range(ctx.width):
                gradient_x[:, offset : offset + ctx.stride * count : ctx.stride] += parts[:, :, offset]
        gradient_bias = gradient.sum(0, dtype=torch.float32) if of_bias else None
        return gradient_x, gradient_weight, gradient_bias, None, None
