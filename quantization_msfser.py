"""8-bit linear layers for inference on a CPU: weights once, per output channel; activations anew, per row."""

import torch
from torch import nn

from .wavlm_msfser import MsfSerLinear, speed_up

# Of 8 outputs, which gate the position bias: nothing to be saved.
_KEPT = ("gru_rel_pos_linear",)
# Processors without VNNI add pairs of products in 16 bits, the activations shifted to 0..255: 2 * 255 * 63 < 2^15.
_LARGEST_WEIGHT = 63
_LARGEST_ACTIVATION = 127


class MsfSer8BitLinear(nn.Module):
    """A linear layer with integers in place of its weights and, within a call, of its input.

    Each row of the input has a scale of its own, so that an item's result does not depend on its batch or padding.
    """

    def __init__(self, layer: nn.Linear):
        super().__init__()
        weight = layer.weight.detach()
        scale = weight.abs().amax(1).clamp_min(torch.finfo(weight.dtype).tiny) / _LARGEST_WEIGHT
        self.register_buffer("integers", (weight / scale[:, None]).round().to(torch.int8))
        self.register_buffer("scale", scale)
        self.register_buffer("bias", None if layer.bias is None else layer.bias.detach())

    @torch.no_grad()
    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """`(..., in_features)` -> `(..., out_features)`."""
        rows = input.flatten(0, -2)
        scale = rows.abs().amax(1, keepdim=True).clamp_min(torch.finfo(rows.dtype).tiny) / _LARGEST_ACTIVATION
        products = torch._int_mm((rows / scale).round_().to(torch.int8), self.integers.T)
        output = products.float().mul_(self.scale).mul_(scale)
        if self.bias is not None:
            output += self.bias
        return output.unflatten(0, input.shape[:-1])


def quantize_linear_layers(encoder: nn.Module) -> None:
    """Replaces the linear layers of an encoder by 8-bit ones, in place.

    Everything else stays float32. Half of the time and a quarter of the memory of the linear layers are a rough
    guide; the less so, the older the processor.

    Args:
        encoder: In float32, on a CPU.
    """
    speed_up(encoder)  # the stock attention reads weights that are no longer there
    for module in list(encoder.modules()):
        for name, layer in list(module.named_children()):
            if type(layer) in (nn.Linear, MsfSerLinear) and name not in _KEPT:
                setattr(module, name, MsfSer8BitLinear(layer))
