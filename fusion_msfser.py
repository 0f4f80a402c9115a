"""The layers between the encoders and the numbers: pooling, FiLM, gate, experts, routing, heads.

Shapes: `batch` utterances, `frames` of the speech encoder, `states` hidden states of the speech encoder, `size` of an
encoder, `width` = `config.fusion_size`, three dimensions in the order valence, arousal, dominance.
"""

import contextlib
from collections.abc import Iterator, Mapping

import torch
from torch import nn

from .configuration_msfser import LABELS, MsfSerConfig


class MsfSerParallel(nn.Module):
    """Modules by name, each applied to its own inputs.

    Parameters have the names that they have in an `nn.ModuleDict`. That one has no forward, which tools need that wrap
    a module, such as peft's `modules_to_save`.
    """

    def __init__(self, modules: Mapping[str, nn.Module]):
        super().__init__()
        self.names = tuple(modules)
        for name, module in modules.items():
            self.add_module(name, module)

    def forward(self, inputs: Mapping[str, tuple[torch.Tensor, ...]]) -> dict[str, torch.Tensor]:
        """The arguments of each module by its name -> its output by its name, in the order of the modules."""
        return {name: self[name](*inputs[name]) for name in self.names}

    def __getitem__(self, name: str) -> nn.Module:
        return self.get_submodule(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)


class MsfSerZeroLinear(nn.Linear):
    """A linear layer whose weights start at zero: FiLM, gate and routing are neutral at first."""


class MsfSerLayerMix(nn.Module):
    """Softmax-weighted sum of layer-normalized hidden states (`audio_states="weighted"`)."""

    def __init__(self, n_states: int):
        super().__init__()
        self.scores = nn.Parameter(torch.zeros(n_states))

    def weights(self) -> torch.Tensor:
        """The weights of the states, `(states,)`, summing to 1."""
        return self.scores.softmax(0)

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        """`(batch, states, frames, size)` -> `(batch, frames, size)`."""
        normalized = nn.functional.layer_norm(states, states.shape[-1:]).to(self.scores.dtype)
        batch, count, frames, size = states.shape
        weights = self.weights().expand(batch, 1, count)
        # In the precision of the weights whatever the autocast, whose copy would cost more than the sum.
        with _without_autocast(states.device.type):
            mixed = torch.bmm(weights, normalized.reshape(batch, count, frames * size))
        return mixed.view(batch, frames, size)


def _without_autocast(device: str) -> contextlib.AbstractContextManager[None]:
    # Where there is none, an exported graph should not contain that there is none.
    is_on = torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)
    return torch.autocast(device, enabled=False) if is_on else contextlib.nullcontext()


class MsfSerAttentiveStatisticsPooling(nn.Module):
    """Attentive statistics pooling over the frames.

    `h_t = tanh(W x_t)`, `w = softmax_t(v . h_t)`, `mean = sum_t w_t x_t`,
    `std = sqrt(clamp(sum_t w_t (x_t - mean)^2, 1e-5))`; the output is `[mean; std]`.
    """

    def __init__(self, size: int):
        super().__init__()
        self.hidden = nn.Linear(size, size)
        self.score = nn.Linear(size, 1, bias=False)

    def forward(self, frames: torch.Tensor, frame_mask: torch.Tensor) -> torch.Tensor:
        """`(batch, frames, size)`, mask `(batch, frames)` -> `(batch, 2 * size)`; masked frames have no weight."""
        scores = self.score(torch.tanh(self.hidden(frames))).float()
        scores = scores.masked_fill(~frame_mask[..., None], torch.finfo(scores.dtype).min)
        weights = scores.softmax(1)
        # Float32 whatever the autocast, and around the mean: E[x^2] - mean^2 loses its digits in TF32 products.
        with _without_autocast(frames.device.type):
            frames, weights = frames.float(), weights.transpose(1, 2)  # (batch, 1, frames)
            mean = weights @ frames
            # The derivative of the variance by the mean is 0, as deviations from it sum to 0.
            variance = weights @ (frames - mean.detach()).square()
        return torch.cat([mean, variance.clamp(min=1e-5).sqrt()], dim=-1).squeeze(1)


class MsfSerMissingInputEmbedding(nn.Module):
    """A learned vector that replaces an input that an item does not have."""

    def __init__(self, size: int):
        super().__init__()
        self.embedding = nn.Parameter(torch.zeros(size))

    def forward(self, vectors: torch.Tensor, present: torch.Tensor) -> torch.Tensor:
        """`(batch, size)` and `present`, `(batch,)` bool -> `(batch, size)`."""
        return torch.where(present[:, None], vectors, self.embedding.to(vectors.dtype))


def drop_inputs(present: Mapping[str, torch.Tensor], shares: Mapping[str, float]) -> dict[str, torch.Tensor]:
    """Drops inputs of a batch at random, but never all inputs of an item.

    All inputs are drawn independently. Where that leaves an item none, one of its inputs is kept, each with the same
    probability.

    Args:
        present: By input, which items have it, `(batch,)` bool.
        shares: By input, the probability with which it is dropped, in 0..1 without 1.

    Returns:
        By input, which items keep it, `(batch,)` bool.
    """
    # How far each input is from being dropped: below 1 it is.
    margins = {
        name: torch.rand(of_input.shape, device=of_input.device) / shares[name]
        for name, of_input in present.items()
        if shares[name] > 0
    }
    kept = {
        name: of_input & (margins[name] >= 1) if name in margins else of_input for name, of_input in present.items()
    }
    if not margins:
        return kept
    left = torch.stack([*kept.values()]).any(0)
    # All inputs that such an item has were drawn.
    last = torch.stack([margin.masked_fill(~present[name], -1) for name, margin in margins.items()]).argmax(0)
    for index, name in enumerate(margins):
        kept[name] = kept[name] | (present[name] & ~left & (last == index))
    return kept


class MsfSerIntraModalFusion(nn.Module):
    """Fuses LES and GS into one semantic vector.

    `gate` (equation of the paper): `g = sigmoid(MLP([h_les; h_gs]))`, `h = g*h_les + (1-g)*h_gs`, a gate per feature.
    `attention`: the same with two scalar weights, `softmax(v . tanh(W h))`. `concat`: `Linear([h_les; h_gs])`.
    """

    def __init__(self, size: int, kind: str):
        super().__init__()
        self.kind = kind
        if kind == "gate":
            self.hidden = nn.Linear(2 * size, size)
            self.gate = MsfSerZeroLinear(size, size)
        elif kind == "attention":
            self.hidden = nn.Linear(size, size)
            self.score = nn.Linear(size, 1, bias=False)
        else:
            self.project = nn.Linear(2 * size, size)

    def forward(self, h_les: torch.Tensor, h_gs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Two `(batch, size)` -> `(batch, size)` and, for `gate`, the gate `(batch, size)`."""
        if self.kind == "concat":
            return self.project(torch.cat([h_les, h_gs], dim=-1)), None
        if self.kind == "attention":
            pair = torch.stack([h_les, h_gs], dim=1)  # (batch, 2, size)
            return (self.score(torch.tanh(self.hidden(pair))).softmax(1) * pair).sum(1), None
        gate = self.gate(nn.functional.gelu(self.hidden(torch.cat([h_les, h_gs], dim=-1)))).sigmoid()
        return gate * h_les + (1 - gate) * h_gs, gate


class MsfSerFilm(nn.Module):
    """FiLM (equation of the paper): `gamma * x + beta` with `(gamma - 1, beta) = MLP(condition)`, at first 1 and 0."""

    def __init__(self, condition_size: int, size: int, width: int):
        super().__init__()
        self.hidden = nn.Linear(condition_size, width)
        self.modulation = MsfSerZeroLinear(width, 2 * size)

    def forward(self, x: torch.Tensor, condition: torch.Tensor) -> torch.Tensor:
        """`(batch, ..., size)` and `(batch, condition size)` -> `(batch, ..., size)`."""
        delta, beta = self.modulation(nn.functional.gelu(self.hidden(condition))).chunk(2, dim=-1)
        while delta.dim() < x.dim():
            delta, beta = delta.unsqueeze(1), beta.unsqueeze(1)
        return (1 + delta) * x + beta


class MsfSerExpert(nn.Module):
    """Linear, LayerNorm, GELU, dropout: projects one source to the common width."""

    def __init__(self, size: int, width: int, dropout: float):
        super().__init__()
        self.project = nn.Linear(size, width)
        self.norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """`(batch, size)` -> `(batch, width)`."""
        return self.dropout(nn.functional.gelu(self.norm(self.project(x))))


class MsfSerBaselineExpert(MsfSerExpert):
    """Dropout, linear, LayerNorm, ReLU, dropout: hidden layer of the challenge baseline (`cross_fusion="none"`)."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """`(batch, size)` -> `(batch, width)`."""
        return self.dropout(nn.functional.relu(self.norm(self.project(self.dropout(x)))))


class MsfSerRouting(nn.Module):
    """The experts' weights per dimension: `softmax` of a learned table, plus (`routing="input"`) of the experts."""

    def __init__(self, n_experts: int, input_size: int | None):
        super().__init__()
        self.table = nn.Parameter(torch.zeros(len(LABELS), n_experts))
        self.by_input = None if input_size is None else MsfSerZeroLinear(input_size, len(LABELS) * n_experts)

    def forward(self, experts: torch.Tensor) -> torch.Tensor:
        """`(batch, experts, width)` -> `(batch, 3, experts)`, summing to 1 over the experts."""
        scores = self.table.expand(experts.shape[0], -1, -1)
        if self.by_input is not None:
            scores = scores + self.by_input(experts.flatten(1)).view_as(scores)
        return scores.softmax(-1)


class MsfSerCrossModalFusion(nn.Module):
    """Fuses sound, LES/GS and ES into one vector for each dimension.

    Every source passes through its expert. `fm_moe`: `z_d = sum_k pi_k^(d) E_k`, the sound being modulated by LES/GS
    (equations of the paper). `film`: only the sound, modulated by all texts. `attention`: the first source attends to
    all. `concat`: a projection of all sources, concatenated. `none`: only the sound, with the expert of the baseline.
    """

    def __init__(self, config: MsfSerConfig, sizes: dict[str, int]):
        super().__init__()
        width = config.fusion_size
        self.kind = config.cross_fusion
        kept = {"audio": sizes["audio"]} if self.kind == "film" else sizes
        expert, dropout = (
            (MsfSerBaselineExpert, config.head_dropout)
            if self.kind == "none"
            else (MsfSerExpert, config.expert_dropout)
        )
        self.experts = MsfSerParallel({name: expert(size, width, dropout) for name, size in kept.items()})
        if self.kind == "fm_moe":
            self.routing = MsfSerRouting(len(kept), len(kept) * width if config.routing == "input" else None)
        elif self.kind == "attention":
            heads = next(n for n in (8, 4, 2, 1) if width % n == 0)
            self.attention = nn.MultiheadAttention(width, heads, batch_first=True)
            self.norm = nn.LayerNorm(width)
        elif self.kind == "concat":
            self.project = nn.Linear(len(kept) * width, width)

    def forward(self, sources: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Sources `(batch, size)` by name -> `(batch, 3, width)` and, for `fm_moe`, weights `(batch, 3, experts)`."""
        experts = torch.stack([*self.experts({name: (x,) for name, x in sources.items()}).values()], dim=1)
        if self.kind == "fm_moe":
            routing = self.routing(experts)
            return routing.to(experts.dtype) @ experts, routing
        if self.kind in ("film", "none"):
            fused = experts[:, 0]
        elif self.kind == "attention":
            attended, _ = self.attention(experts[:, :1], experts, experts, need_weights=False)
            fused = self.norm(experts[:, 0] + attended[:, 0])
        else:
            fused = self.project(experts.flatten(1))
        return fused[:, None].expand(-1, len(LABELS), -1), None


class MsfSerHead(nn.Module):
    """Two-layer regression head of one dimension; the sigmoid keeps the prediction in 0..1."""

    def __init__(self, width: int, dropout: float):
        super().__init__()
        self.hidden = nn.Linear(width, width)
        self.norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)
        self.out = nn.Linear(width, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """`(batch, width)` -> `(batch,)` in 0..1, float32."""
        x = self.dropout(nn.functional.gelu(self.norm(self.hidden(x))))
        return self.out(x).float().sigmoid().squeeze(-1)


class MsfSerBaselineHead(nn.Module):
    """Linear layer of one dimension (`cross_fusion="none"`), trained without bounds, used within 0..1."""

    def __init__(self, width: int):
        super().__init__()
        self.out = nn.Linear(width, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """`(batch, width)` -> `(batch,)`, float32; outside training cut to 0..1."""
        number = self.out(x).float().squeeze(-1)
        return number if self.training else number.clamp(0, 1)


def build_head(config: MsfSerConfig) -> nn.Module:
    """The head of one dimension that a config asks for."""
    if config.cross_fusion == "none":
        return MsfSerBaselineHead(config.fusion_size)
    return MsfSerHead(config.fusion_size, config.head_dropout)
