"""8-bit linear layers for inference on a CPU: weights once, per output channel; activations anew in each call."""

import warnings

import torch
from torch import nn

from .wavlm_msfser import MsfSerLinear, slow_down, speed_up

# Of 8 outputs, which gate the position bias: nothing to be saved.
_KEPT = ("gru_rel_pos_linear",)


def quantize_linear_layers(encoder: nn.Module) -> None:
    """Replaces the linear layers of an encoder by 8-bit ones, in place.

    Weights become 8-bit integers with a scale per output channel; activations are brought to 8 bits with a scale of
    their own in each call. Everything else stays float32. Half of the time and a quarter of the memory of the linear
    layers are a rough guide; the less so, the older the processor.

    Args:
        encoder: In float32, on a CPU.

    Raises:
        ImportError: This PyTorch has no 8-bit linear layers any more.
        RuntimeError: It has none for this processor.
    """
    try:
        from torch.ao.nn.quantized.dynamic import Linear
        from torch.ao.quantization import per_channel_dynamic_qconfig
    except ImportError as error:
        raise ImportError(
            f"PyTorch {torch.__version__} has no torch.ao.quantization: go without quantize(), or take PyTorch 2.13."
        ) from error
    speed_up(encoder)  # the stock attention reads weights that are no longer there
    for module in list(encoder.modules()):
        for name, layer in list(module.named_children()):
            if type(layer) in (nn.Linear, MsfSerLinear) and name not in _KEPT:
                slow_down(layer).qconfig = per_channel_dynamic_qconfig
                with warnings.catch_warnings():
                    warnings.filterwarnings("ignore", category=DeprecationWarning)
                    warnings.filterwarnings("ignore", message=".*(deprecated|reduce_range)", category=UserWarning)
                    setattr(module, name, Linear.from_float(layer))
