"""Encoders made faster in place: [`speed_up`] with the same outputs, [`quantize_linear_layers`] with 8-bit layers.

[`speed_up`] changes the classes of a stock encoder's submodules to subclasses, which compute the same in less time.
Weights and their names, a saved folder, a copy and a pickle are those of the stock encoder. [`slow_down`] reverts it.

[`quantize_linear_layers`] is for inference on a CPU. Weights are quantized once, per output channel; activations in
each call, per row.
"""

import math
from typing import Any, TypeVar

import torch
from torch import nn
from torch.autograd.function import once_differentiable
from torch.utils.checkpoint import checkpoint
from transformers.activations import GELUActivation
from transformers.models.wavlm.modeling_wavlm import WavLMAttention, WavLMFeedForward
from transformers.models.whisper.modeling_whisper import WhisperAttention, WhisperEncoder

from .fast_convolutions_msfser import MsfSerConv1d
from .fast_front_ends_msfser import CONVOLUTIONS
from .fast_products_msfser import MsfSerLinear, has_amx, is_fast, is_reduced, product

Encoder = TypeVar("Encoder", bound=nn.Module)

# Beyond it the 16 bits of a fast draw are too coarse for what is kept, and with 1 nothing is.
_LARGEST_DROPOUT = 0.99
# Odd numbers of frames slow the bfloat16 kernels of attention down.
_FRAMES_MULTIPLE = 16
# Linear layers that are not quantized: 8 outputs that gate the position bias, where nothing is to be saved.
_NOT_QUANTIZED = ("gru_rel_pos_linear",)
# Processors without VNNI add pairs of products in 16 bits, the activations shifted to 0..255: 2 * 255 * 63 < 2^15.
_LARGEST_WEIGHT = 63
_LARGEST_ACTIVATION = 127


def speed_up(encoder: Encoder) -> Encoder:
    """Makes any encoder faster, in place, and returns it; modules that have no faster form do not change."""
    for module in encoder.modules():
        module.__class__ = _FAST.get(type(module), type(module))
        if isinstance(module, WhisperEncoder):
            for conv in (module.conv1, module.conv2):
                conv.__class__ = MsfSerConv1d if type(conv) is nn.Conv1d else type(conv)
    return encoder


def slow_down(encoder: Encoder) -> Encoder:
    """Reverts [`speed_up`], in place, and returns the encoder; for tools that look for an exact class."""
    stock = {fast: slow for slow, fast in _FAST.items()} | {MsfSerConv1d: nn.Conv1d}
    for module in encoder.modules():
        module.__class__ = stock.get(type(module), type(module))
    return encoder


class MsfSerWavLMAttention(WavLMAttention):
    """WavLM's attention without a tensor for each batch item, head and pair of frames, as far as the kernels allow.

    Its gated relative position bias (arXiv 2110.13900, section 3.1) is the mask of `scaled_dot_product_attention`:
    `softmax(q k^T / sqrt(d) + g_i b_(j-i)) v`: the bias `b` is one table for each head, shared by all layers, the gate
    `g` a number for each item, head and frame. Training keeps neither scores nor gated bias, but computes them again.
    """

    def forward(
        self,
        hidden_states: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        position_bias: torch.Tensor | None = None,
        index: int = 0,
        **kwargs: Any,
    ) -> tuple[torch.Tensor, torch.Tensor | None, Any]:
        """As the stock layer, but `None` in place of the attention weights unless `output_attentions=True`.

        The states are `(batch, frames, size)`, the mask `(batch, frames)`, `True` at real frames, and the position
        bias, which the first layer makes for all, `(heads, frames, frames)`.
        """
        frames = hidden_states.shape[1]
        rest = 0
        if is_reduced(hidden_states, self.gru_rel_pos_const):
            hidden_states = hidden_states.to(torch.bfloat16)  # once for all projections
            if not torch.is_grad_enabled() and not kwargs.get("output_attentions"):
                rest = -frames % _FRAMES_MULTIPLE
                hidden_states = nn.functional.pad(hidden_states, (0, 0, 0, rest))
        by_head = hidden_states.unflatten(-1, (self.num_heads, self.head_dim))
        projections = (self.q_proj, self.k_proj, self.v_proj)
        query, key, value = (
            project(hidden_states).unflatten(-1, (self.num_heads, self.head_dim)).transpose(1, 2)
            for project in projections
        )
        if position_bias is None:
            position_bias = self._position_bias(frames + rest).to(query.dtype)
        elif position_bias.shape[-1] > frames + rest:  # made without gradients, under checkpointing
            position_bias = position_bias[:, :frames, :frames]
        gates = self.gru_rel_pos_linear(by_head).unflatten(-1, (2, 4)).sum(-1).sigmoid()  # (batch, frames, heads, 2)
        gate = gates[..., 0] * (gates[..., 1] * self.gru_rel_pos_const.flatten() - 1.0) + 2.0
        gate = gate.transpose(1, 2)[..., None].to(query.dtype)  # (batch, heads, frames, 1)
        masked = query.new_zeros(len(query), 1, 1, query.shape[2])
        if attention_mask is not None:
            attention_mask = nn.functional.pad(attention_mask.bool(), (0, rest))
            masked = masked.masked_fill(~attention_mask[:, None, None], -math.inf)
        elif rest:
            masked[..., frames:] = -math.inf

        inputs = (query, key, value, gate, masked)
        weights = None
        if kwargs.get("output_attentions"):
            scores = query @ key.transpose(2, 3) / math.sqrt(self.head_dim) + torch.addcmul(
                masked, gate, position_bias
            )
            shares = nn.functional.dropout(scores.softmax(-1), self.dropout, self.training)
            attended = shares @ value
            weights = shares.mean(1, keepdim=True).expand_as(shares)  # as the stock layer: the mean, for each head
        elif query.device.type == "cpu" and not torch.compiler.is_compiling():
            items = zip(*(tensor.split(1) for tensor in inputs), strict=True)
            attended = torch.cat([self._attend(*item, position_bias) for item in items])
        else:
            attended = self._attend(*inputs, position_bias)
        return self.out_proj(attended[:, :, :frames].transpose(1, 2).flatten(2)), weights, position_bias

    def _position_bias(self, frames: int) -> torch.Tensor:
        """The bias `(heads, frames, frames)`, looked up once for each distance and not for each pair."""
        distances = torch.arange(1 - frames, frames, device=self.rel_attn_embed.weight.device)
        values = self.rel_attn_embed(self._relative_positions_bucket(distances)).T  # (heads, 2 * frames - 1)
        # Row i starts at distance -i. With the frames last in memory, or each layer would copy what it makes of it.
        return values.unfold(-1, frames, 1).flip(1).contiguous()

    def _attend(self, *inputs: torch.Tensor) -> torch.Tensor:
        """Attention of some items: `(items, heads, frames, head size)`."""
        dropout = self.dropout if self.training else 0.0
        if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in inputs):
            return checkpoint(_attention, dropout, *inputs, use_reentrant=False, preserve_rng_state=dropout > 0)
        return _attention(dropout, *inputs)


def _attention(
    dropout: float,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    gate: torch.Tensor,
    masked: torch.Tensor,
    position_bias: torch.Tensor,
) -> torch.Tensor:
    bias = torch.addcmul(masked, gate, position_bias)
    draws_fast = _draws_fast(query, dropout)
    if not draws_fast and not (query.dtype == torch.bfloat16 and _is_for_products(query, key)):
        return nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=bias, dropout_p=dropout)
    # As torch does it, which has no fused kernel with dropout on a CPU; but with fast draws, and scaled at the end.
    items_and_heads = query.shape[:2]
    query, key, value, bias = (tensor.flatten(0, 1) for tensor in (query, key, value, bias))
    shares = torch.baddbmm(bias, query, key.transpose(1, 2), alpha=1 / math.sqrt(query.shape[-1])).softmax(-1)
    if draws_fast:
        shares = torch.where(_dropout_mask(shares.shape, dropout), shares, 0.0)
    return (shares @ value / (1 - dropout)).unflatten(0, items_and_heads)


def _is_for_products(x: torch.Tensor, weight: torch.Tensor) -> bool:
    """Whether attention whose products are reduced, as this one, is faster by matrix products than by torch's kernel.

    Without AMX, that fused kernel computes bfloat16 no faster than float32.
    """
    return is_reduced(x, weight) and not has_amx() and not torch.is_grad_enabled()


class MsfSerWhisperAttention(WhisperAttention):
    """The attention of Whisper's encoder, in bfloat16 by matrix products where torch's fused kernel is slow."""

    def forward(self, hidden_states: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        """`(batch, frames, size)` -> the same and `None`; in training, float32 or a decoder, the stock computation."""
        is_for_products = (
            not args
            and not self.is_decoder
            and self.config is not None
            and self.config._attn_implementation == "sdpa"
            and isinstance(self.q_proj, nn.Linear)  # 8-bit layers have no weights to compare with
            and _is_for_products(hidden_states, self.q_proj.weight)
        )
        if not is_for_products:
            return super().forward(hidden_states, *args, **kwargs)
        hidden_states = hidden_states.to(torch.bfloat16)  # once for all projections
        query, key, value = (
            project(hidden_states).unflatten(-1, (self.num_heads, self.head_dim)).transpose(1, 2)
            for project in (self.q_proj, self.k_proj, self.v_proj)
        )
        mask = kwargs.get("attention_mask")
        masks = [None] * len(query) if mask is None else mask.expand(len(query), -1, -1, -1)
        # Item by item, as the scores of one fit in the cache.
        items = zip(query * self.scaling, key, value, masks, strict=True)
        attended = torch.stack([_attended(*item) for item in items])  # (batch, heads, frames, head size)
        return self.out_proj(attended.transpose(1, 2).flatten(2)), None


def _attended(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, visible: torch.Tensor | None
) -> torch.Tensor:
    """Attention of one item, `(heads, frames, head size)`, to the frames that are visible, `(1, frames, frames)`."""
    scores = query @ key.transpose(1, 2)
    if visible is not None:
        scores = scores.masked_fill(~visible, -math.inf)
    return scores.softmax(-1) @ value


class MsfSerWavLMFeedForward(WavLMFeedForward):
    """WavLM's feed-forward layer, which keeps for its gradients only the input of the activation, not its output."""

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """`(batch, frames, size)` -> `(batch, frames, size)`; in training on a CPU, else the stock computation."""
        layer = self.output_dense
        dropout = self.intermediate_dropout.p if self.training else 0.0
        # A layer of another class, such as one with an adapter, computes more than its weights say.
        possible = (
            torch.is_grad_enabled()
            and type(layer) in (nn.Linear, MsfSerLinear)
            and is_fast(hidden_states, layer.weight)
            and (dropout == 0.0 or _draws_fast(hidden_states, dropout))
        )
        trained = possible and (hidden_states.requires_grad or layer.weight.requires_grad)
        if not (trained and type(self.intermediate_act_fn) is GELUActivation):
            return super().forward(hidden_states)
        hidden = self.intermediate_dense(hidden_states)
        hidden = _ActivatedLinear.apply(hidden.flatten(0, -2), layer.weight, layer.bias, dropout)
        return self.output_dropout(hidden.unflatten(0, hidden_states.shape[:-1]))


class _ActivatedLinear(torch.autograd.Function):
    """`dropout(gelu(x)) w^T + b` of a matrix; for its gradients only `x` is kept."""

    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, dropout: float
    ) -> torch.Tensor:
        mask = _dropout_mask(x.shape, dropout) if dropout else None
        ctx.save_for_backward(x, weight, mask)
        ctx.dropout = dropout
        return product(_dropped(nn.functional.gelu(x), mask, dropout), weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, weight, mask = ctx.saved_tensors
        of_x, of_weight, of_bias, _ = ctx.needs_input_grad
        gradient_x = gradient_weight = None
        if of_weight:
            gradient_weight = product(gradient.T, _dropped(nn.functional.gelu(x), mask, ctx.dropout).T)
        if of_x:
            gradient_x = _dropped(product(gradient, weight.T), mask, ctx.dropout)
            gradient_x = torch.ops.aten.gelu_backward(gradient_x, x)
        return gradient_x, gradient_weight, gradient.sum(0, dtype=torch.float32) if of_bias else None, None


class MsfSerDropout(nn.Dropout):
    """Dropout with the fast draws of [`_dropout_mask`], in training on a CPU."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Any shape."""
        if not (self.training and not self.inplace and _draws_fast(input, self.p)):
            return super().forward(input)
        return _dropped(input, _dropout_mask(input.shape, self.p), self.p)


def _dropped(x: torch.Tensor, mask: torch.Tensor | None, dropout: float) -> torch.Tensor:
    """Dropout, given a [`_dropout_mask`]."""
    return x if mask is None else torch.where(mask, x, 0.0) / (1 - dropout)


def _draws_fast(x: torch.Tensor, dropout: float) -> bool:
    return x.device.type == "cpu" and not torch.compiler.is_compiling() and 0.0 < dropout <= _LARGEST_DROPOUT


def _dropout_mask(shape: torch.Size, dropout: float) -> torch.Tensor:
    """Which elements dropout keeps, bool, on the CPU; `dropout`, at most `_LARGEST_DROPOUT`, is rounded to 1/65536.

    `bernoulli_` draws at least 64 random bits for each element, one after the other; here 16 bits decide.
    """
    count = shape.numel()
    draws = torch.empty(-(-count // 4), dtype=torch.int64, device="cpu").random_(-(2**63), None)
    return draws.view(torch.int16)[:count].view(shape) >= round(dropout * 2**16) - 2**15


_FAST = {
    nn.Linear: MsfSerLinear,
    nn.Dropout: MsfSerDropout,
    WavLMAttention: MsfSerWavLMAttention,
    WavLMFeedForward: MsfSerWavLMFeedForward,
    WhisperAttention: MsfSerWhisperAttention,
    **CONVOLUTIONS,
}


class MsfSer8BitLinear(nn.Module):
    """A linear layer that multiplies 8-bit integers: its weights and, within a call, its input.

    Each row of the input is scaled separately, so that an item's result does not depend on its batch or padding.
    """

    integers: torch.Tensor
    scale: torch.Tensor
    bias: torch.Tensor | None

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

    The encoder is in float32 on a CPU, and everything else stays so. The linear layers then need about half of the
    time and a quarter of the memory; old processors gain less.
    """
    speed_up(encoder)  # the stock attention reads weights that are no longer there
    for module in list(encoder.modules()):
        for name, layer in list(module.named_children()):
            if (
                isinstance(layer, nn.Linear)
                and type(layer) in (nn.Linear, MsfSerLinear)
                and name not in _NOT_QUANTIZED
            ):
                setattr(module, name, MsfSer8BitLinear(layer))
