"""MSF-SER (arXiv 2510.05749): valence, arousal and dominance from speech and three granularities of its text.

Shapes: `batch` utterances, `samples` at 16 kHz, `frames` of an encoder, `states` hidden states of the speech encoder,
`width` = `config.fusion_size`, three `dimensions` in the order valence, arousal, dominance.
"""

import os
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers import initialization as init
from transformers.utils import ModelOutput, can_return_tuple

from .configuration_msfser import LABELS, MsfSerConfig
from .encoders_msfser import (
    at_least_one,
    build_audio_encoder,
    build_text_encoder,
    front_end,
    load_audio_encoder,
    load_text_encoder,
    load_weights,
    waveform_states,
    whisper_states,
)
from .fast_encoders_msfser import quantize_linear_layers, speed_up
from .loss_msfser import ccc_loss


@dataclass
class MsfSerOutput(ModelOutput):
    """What the model answers.

    Args:
        loss: Scalar, `sum_d (1 - CCC_d)` over the global batch, where `labels` were given.
        logits: `(batch, 3)`, valence, arousal, dominance, each in 0..1.
        gate: `(batch, text width)`, the share of LES against GS per feature, in 0..1; `None` without that gate.
        routing: `(batch, 3, experts)`, the experts' shares for each dimension, summing to 1; the experts are the
            sound, LES and GS together, and ES, in this order, as far as they are on. `None` without `fm_moe`.
        layer_weights: `(states,)`, the shares of the speech encoder's hidden states, summing to 1; `None` where only
            the last one is used.
        embedding: `(batch, width)`, the fused vector, averaged over the three dimensions.
    """

    loss: torch.Tensor | None = None
    logits: torch.Tensor | None = None
    gate: torch.Tensor | None = None
    routing: torch.Tensor | None = None
    layer_weights: torch.Tensor | None = None
    embedding: torch.Tensor | None = None


class MsfSerZeroLinear(nn.Linear):
    """A linear layer that starts at zero, for what must be neutral at first."""


class MsfSerLayerMix(nn.Module):
    """Softmax-weighted sum of layer-normalized hidden states (`audio_states="weighted"`)."""

    def __init__(self, n_states: int):
        super().__init__()
        self.scores = nn.Parameter(torch.zeros(n_states))

    def weights(self) -> torch.Tensor:
        """The shares, `(states,)`, summing to 1."""
        return self.scores.softmax(0)

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        """`(batch, states, frames, size)` -> `(batch, frames, size)`."""
        normalized = nn.functional.layer_norm(states, states.shape[-1:])
        return torch.einsum("l,blts->bts", self.weights().to(normalized.dtype), normalized)


class MsfSerAttentiveStatisticsPooling(nn.Module):
    """Attentive statistics pooling over the frames.

    `h_t = tanh(W x_t)`, `w = softmax_t(v . h_t)`, `mean = sum_t w_t x_t`,
    `std = sqrt(clamp(sum_t w_t x_t^2 - mean^2, 1e-5))`; the output is `[mean; std]`.
    """

    def __init__(self, size: int):
        super().__init__()
        self.hidden = nn.Linear(size, size)
        self.score = nn.Linear(size, 1, bias=False)

    def forward(self, frames: torch.Tensor, frame_mask: torch.Tensor) -> torch.Tensor:
        """`(batch, frames, size)`, mask `(batch, frames)` -> `(batch, 2 * size)`; masked frames count nothing."""
        scores = self.score(torch.tanh(self.hidden(frames))).float()
        scores = scores.masked_fill(~frame_mask[..., None], torch.finfo(scores.dtype).min)
        weights = scores.softmax(1)
        # The variance is a difference of near-equal numbers: float32 whatever the autocast.
        frames = frames.float()
        mean = (weights * frames).sum(1)
        variance = (weights * frames.square()).sum(1) - mean.square()
        return torch.cat([mean, variance.clamp(min=1e-5).sqrt()], dim=-1)


class MsfSerMissingInputEmbedding(nn.Module):
    """A learned vector in place of an input that an item does not have."""

    def __init__(self, size: int):
        super().__init__()
        self.embedding = nn.Parameter(torch.zeros(size))

    def forward(self, vectors: torch.Tensor, present: torch.Tensor) -> torch.Tensor:
        """`(batch, size)`, `present` `(batch,)` bool -> `(batch, size)`."""
        return torch.where(present[:, None], vectors, self.embedding.to(vectors.dtype))


class MsfSerIntraModalFusion(nn.Module):
    """LES and GS become one semantic vector.

    `gate`: `g = sigmoid(MLP([h_les; h_gs]))`, `h = g*h_les + (1-g)*h_gs`, a gate per feature. `attention`: the same
    with two scalar shares, `softmax(v . tanh(W h))`. `concat`: `Linear([h_les; h_gs])`.
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
    """Feature-wise modulation `gamma * x + beta` with `(gamma - 1, beta) = MLP(condition)`; the identity at first."""

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
    """Linear, LayerNorm, GELU, dropout: one source to the common width."""

    def __init__(self, size: int, width: int, dropout: float):
        super().__init__()
        self.project = nn.Linear(size, width)
        self.norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """`(batch, size)` -> `(batch, width)`."""
        return self.dropout(nn.functional.gelu(self.norm(self.project(x))))


class MsfSerRouting(nn.Module):
    """The experts' shares per dimension: `softmax` of a learned table, plus a function of the input on request."""

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
    """Sound, LES/GS and ES become one vector for each dimension.

    Every source passes its expert. `fm_moe`: `z_d = sum_k pi_k^(d) E_k`, the sound having been modulated by LES/GS
    (equations of the paper). `film`: the sound, modulated by all texts, alone. `attention`: the first source asks
    all. `concat`: a projection of all, side by side.
    """

    def __init__(self, config: MsfSerConfig, sizes: dict[str, int]):
        super().__init__()
        width = config.fusion_size
        self.kind = config.cross_fusion
        kept = {"audio": sizes["audio"]} if self.kind == "film" else sizes
        self.experts = nn.ModuleDict(
            {name: MsfSerExpert(size, width, config.expert_dropout) for name, size in kept.items()}
        )
        if self.kind == "fm_moe":
            self.routing = MsfSerRouting(len(kept), len(kept) * width if config.routing == "input" else None)
        elif self.kind == "attention":
            heads = next(n for n in (8, 4, 2, 1) if width % n == 0)
            self.attention = nn.MultiheadAttention(width, heads, batch_first=True)
            self.norm = nn.LayerNorm(width)
        elif self.kind == "concat":
            self.project = nn.Linear(len(kept) * width, width)

    def forward(self, sources: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Sources `(batch, size)` by name -> `(batch, 3, width)` and, for `fm_moe`, shares `(batch, 3, experts)`."""
        experts = torch.stack([expert(sources[name]) for name, expert in self.experts.items()], dim=1)
        if self.kind == "fm_moe":
            routing = self.routing(experts)
            return routing.to(experts.dtype) @ experts, routing
        if self.kind == "film":
            fused = experts[:, 0]
        elif self.kind == "attention":
            asked, _ = self.attention(experts[:, :1], experts, experts, need_weights=False)
            fused = self.norm(experts[:, 0] + asked[:, 0])
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


class MsfSerPreTrainedModel(PreTrainedModel):
    """Loading, saving and initial weights of everything that is not an encoder."""

    config_class = MsfSerConfig
    base_model_prefix = "msfser"
    main_input_name = "input_values"
    input_modalities = ("audio", "text")
    supports_gradient_checkpointing = True
    accepts_loss_kwargs = False

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        # Every start that is not the library's is set here: `post_init` overwrites what `__init__` has set, and skips
        # modules of remote code that hold no parameter themselves.
        if isinstance(module, MsfSerZeroLinear):
            init.zeros_(module.weight)
            init.zeros_(module.bias)
        elif isinstance(module, MsfSerLayerMix):
            init.zeros_(module.scores)
        elif isinstance(module, MsfSerRouting):
            init.zeros_(module.table)
        elif isinstance(module, MsfSerMissingInputEmbedding):
            init.normal_(module.embedding, std=self.config.initializer_range)
        elif isinstance(module, nn.MultiheadAttention):
            init.normal_(module.in_proj_weight, std=self.config.initializer_range)
            init.zeros_(module.in_proj_bias)


class MsfSerModel(MsfSerPreTrainedModel):
    """MSF-SER for `AutoModel` and `AutoModelForAudioClassification`.

    `sound -> speech encoder -> (layer mix) -> (FiLM) -> pooling -> projection`, `texts -> text encoder -> mean`,
    `LES, GS -> intra-modal fusion`, all -> cross-modal fusion -> three heads.
    """

    # Whether `quantize` was called.
    is_8_bit = False

    def __init__(self, config: MsfSerConfig):
        super().__init__(config)
        sizes = {}  # of the sources of the cross-modal fusion, in the order of its experts
        if config.audio:
            self.audio_encoder = build_audio_encoder(config)
            audio_size = config.audio_config.hidden_size
            n_states = config.audio_config.num_hidden_layers + 1
            self.layer_mix = MsfSerLayerMix(n_states) if config.audio_states == "weighted" else None
            self.pooling = MsfSerAttentiveStatisticsPooling(audio_size)
            self.audio_projection = nn.Linear(2 * audio_size, config.fusion_size)
            self.missing_audio = MsfSerMissingInputEmbedding(config.fusion_size)
            sizes["audio"] = config.fusion_size
        if config.semantics:
            self.text_encoder = build_text_encoder(config)
            text_size = config.text_config.hidden_size
            self.missing_text = nn.ModuleDict(
                {name: MsfSerMissingInputEmbedding(text_size) for name in config.semantics}
            )
            if {"les", "gs"} <= set(config.semantics):
                self.intra_fusion = MsfSerIntraModalFusion(text_size, config.intra_fusion)
            if {"les", "gs"} & set(config.semantics):
                sizes["semantics"] = text_size
            if "es" in config.semantics:
                sizes["description"] = text_size
        self.film = None
        if config.audio and config.cross_fusion in ("fm_moe", "film"):
            # The paper's mixture lets LES/GS alone modulate the sound; plain FiLM has no other way in for ES.
            names = ("semantics",) if config.cross_fusion == "fm_moe" else ("semantics", "description")
            self.film_sources = [name for name in names if name in sizes]
            if self.film_sources:
                condition_size = sum(sizes[name] for name in self.film_sources)
                film_size = audio_size if config.film_position == "frames" else config.fusion_size
                self.film = MsfSerFilm(condition_size, film_size, config.fusion_size)
        self.cross_fusion = MsfSerCrossModalFusion(config, sizes)
        self.heads = nn.ModuleDict({name: MsfSerHead(config.fusion_size, config.head_dropout) for name in LABELS})
        self._freeze()
        self.post_init()

    @classmethod
    def from_encoders(cls, audio_encoder: str | None, text_encoder: str | None, **kwargs) -> "MsfSerModel":
        """Builds a model on two pretrained encoders; the fusion starts anew.

        Args:
            audio_encoder: Hub name or folder, such as `"microsoft/wavlm-large"` or `"openai/whisper-tiny.en"`;
                `None` with `audio=False`.
            text_encoder: Hub name or folder, such as `"FacebookAI/roberta-large"`; `None` with `semantics=[]`.
            **kwargs: Fields of [`MsfSerConfig`].

        Raises:
            OSError: An encoder is neither a folder, nor on the Hub or in its cache, nor in a verified wheel; the
                sentence says what to install.
        """
        encoders = {}
        if audio_encoder is not None:
            encoders["audio_encoder"] = load_audio_encoder(audio_encoder)
            kwargs["audio_config"] = encoders["audio_encoder"].config
        if text_encoder is not None:
            encoders["text_encoder"] = load_text_encoder(text_encoder)
            kwargs["text_config"] = encoders["text_encoder"].config
        model = cls(MsfSerConfig(**kwargs))
        for name, encoder in encoders.items():
            if hasattr(model, name):
                setattr(model, name, speed_up(encoder) if model.config.fast_encoders else encoder)
        model._freeze()
        return model.eval()

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path, *args, output_loading_info=False, **kwargs):
        """As in [`PreTrainedModel`]; loading makes every weight trainable, so the frozen ones are frozen again.

        Only safetensors are read, whatever `use_safetensors` says: a pickle could bring code with it.

        Raises:
            ValueError: The weights are a pickle, are damaged, or have other shapes than the config asks for; the
                sentence names them.
            OSError: There are no weights.
        """
        if pretrained_model_name_or_path is not None and (held := _pickled_weights(pretrained_model_name_or_path)):
            raise ValueError(
                f"{str(pretrained_model_name_or_path)!r}: the weights are a pickle ({held}), which could bring code "
                "with it and is not read: save the model again, as safetensors."
            )
        kwargs["use_safetensors"] = True
        model, report = load_weights(super().from_pretrained, pretrained_model_name_or_path, *args, **kwargs)
        model._freeze()
        return (model, report) if output_loading_info else model

    def save_pretrained(self, save_directory, **kwargs):
        """Saves weights, config and code, the pipeline's too.

        One class serves both auto classes, but only one can be registered.
        """
        if self.is_8_bit:
            raise ValueError("A model with 8-bit layers cannot be saved: save it before quantize(), or load it anew.")
        # It imports this module; naming it here also makes its code go wherever this file goes.
        from .pipeline_msfser import MsfSerPipeline

        self.config.custom_pipelines = {
            "audio-classification": {
                "impl": f"pipeline_msfser.{MsfSerPipeline.__name__}",
                "pt": ["AutoModelForAudioClassification"],
            }
        }
        auto_map = getattr(self.config, "auto_map", None) or {}
        name = f"modeling_msfser.{type(self).__name__}"
        self.config.auto_map = {**auto_map, "AutoModelForAudioClassification": name}
        return super().save_pretrained(save_directory, **kwargs)

    def quantize(self) -> "MsfSerModel":
        """Gives the encoders 8-bit linear layers, in place, for faster inference on a CPU.

        Fusion and heads stay as they are. Such a model can neither be trained nor saved.

        Returns:
            The same model, in evaluation mode.

        Raises:
            ValueError: The model is not on a CPU, or not in float32.
        """
        if self.device.type != "cpu" or self.dtype != torch.float32:
            raise ValueError(
                f"The model is {self.dtype} on {self.device}: 8-bit layers are made from float32 on a CPU; use "
                "model.float().cpu().quantize(), or go without."
            )
        for name in ("audio_encoder", "text_encoder"):
            if hasattr(self, name) and not self.is_8_bit:
                quantize_linear_layers(getattr(self, name))
        self.is_8_bit = True
        return self.eval()

    def _freeze(self) -> None:
        if self.config.audio and self.config.freeze_audio == "all":
            self.audio_encoder.requires_grad_(False)
        elif self.config.audio and self.config.freeze_audio == "front_end":
            for module in front_end(self.audio_encoder):
                module.requires_grad_(False)
                if hasattr(module, "_freeze_parameters"):  # else its forward would still record gradients
                    module._freeze_parameters()
        if self.config.is_mel:
            self.audio_encoder.embed_positions.requires_grad_(False)  # sinusoids
        if self.config.semantics and self.config.freeze_text:
            self.text_encoder.requires_grad_(False)

    def train(self, mode: bool = True) -> "MsfSerModel":
        """As `nn.Module.train`, but a frozen encoder stays in evaluation mode: no dropout, no SpecAugment."""
        if mode and self.is_8_bit:
            raise ValueError("A model with 8-bit layers cannot be trained: load it anew.")
        super().train(mode)
        if self.config.audio and self.config.freeze_audio == "all":
            self.audio_encoder.eval()
        if self.config.semantics and self.config.freeze_text:
            self.text_encoder.eval()
        return self

    def encode_audio(
        self,
        input_values: torch.Tensor | None = None,
        input_features: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Runs the speech encoder.

        Args:
            input_values: `(batch, samples)` at 16 kHz, for waveform encoders.
            input_features: `(batch, mel frames, mels)`, 100 frames per second, for Whisper.
            attention_mask: `(batch, samples)` or `(batch, mel frames)`, 1 where there is sound; a row of zeros is an
                item without sound.

        Returns:
            `(batch, states, frames, size)` with one state (the last) or all of them, as `config.audio_states` says,
            and the mask `(batch, frames)`, bool.
        """
        wanted = input_features if self.config.is_mel else input_values
        if wanted is None:
            name = "input_features (log-mel frames)" if self.config.is_mel else "input_values (the waveform)"
            raise ValueError(f"This model's speech encoder reads {name}; make them with the model's own processor.")
        if attention_mask is None:
            attention_mask = wanted.new_ones(wanted.shape[:2], dtype=torch.long)
        frozen = self.config.freeze_audio == "all"
        with torch.set_grad_enabled(torch.is_grad_enabled() and not frozen):
            if self.config.is_mel:
                states, frame_mask = whisper_states(self.audio_encoder, wanted, attention_mask.bool())
            else:
                states, frame_mask = waveform_states(
                    self.audio_encoder, wanted, attention_mask.bool(), self.config.fast_encoders
                )
            kept = states if self.config.audio_states == "weighted" else states[-1:]
            return torch.stack(kept, dim=1), frame_mask

    def encode_text(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Mean of the text encoder's last states over the real tokens: `(batch, tokens)` -> `(batch, text width)`."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.config.freeze_text):
            # A text that is not there has no token: one is shown, so that attention stays finite; the result is
            # replaced afterwards.
            mask = at_least_one(attention_mask.bool()).long()
            states = self.text_encoder(input_ids=input_ids, attention_mask=mask).last_hidden_state
            mask = mask[..., None].to(states.dtype)
            return (states * mask).sum(1) / mask.sum(1)

    @can_return_tuple
    def forward(
        self,
        input_values: torch.Tensor | None = None,
        input_features: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        les_input_ids: torch.Tensor | None = None,
        les_attention_mask: torch.Tensor | None = None,
        gs_input_ids: torch.Tensor | None = None,
        gs_attention_mask: torch.Tensor | None = None,
        es_input_ids: torch.Tensor | None = None,
        es_attention_mask: torch.Tensor | None = None,
        audio_states: torch.Tensor | None = None,
        les_embedding: torch.Tensor | None = None,
        gs_embedding: torch.Tensor | None = None,
        es_embedding: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        output_explanations: bool = False,
    ) -> MsfSerOutput:
        """Predicts valence, arousal and dominance.

        Any input may be missing, for the batch (`None`) or for an item (a row of zeros in its mask), as long as each
        item has one that the model uses. Inputs of a branch that is switched off are ignored.

        Args:
            input_values: `(batch, samples)` at 16 kHz, for waveform encoders.
            input_features: `(batch, mel frames, mels)`, for Whisper.
            attention_mask: `(batch, samples)`, `(batch, mel frames)` or, with `audio_states`, `(batch, frames)`.
            les_input_ids: `(batch, tokens)`, the emphasized words.
            les_attention_mask: `(batch, tokens)`, 1 at real tokens; a row of zeros is an absent text.
            gs_input_ids: `(batch, tokens)`, the transcript.
            gs_attention_mask: As above.
            es_input_ids: `(batch, tokens)`, the description.
            es_attention_mask: As above.
            audio_states: `(batch, states, frames, size)` as `encode_audio` gives, in place of the sound.
            les_embedding: `(batch, text width)` as `encode_text` gives, in place of the ids; its mask may then have
                any number of columns.
            gs_embedding: As above.
            es_embedding: As above.
            labels: `(batch, 3)` in 0..1, valence, arousal, dominance.
            output_explanations: Whether to return gate, routing, layer weights and embedding.

        Raises:
            ValueError: There is no input at all, for the batch or (outside training) for one item.
        """
        sources: dict[str, torch.Tensor] = {}
        present: list[torch.Tensor] = []  # one (batch,) bool per active input
        given = {
            "les": (les_input_ids, les_attention_mask, les_embedding),
            "gs": (gs_input_ids, gs_attention_mask, gs_embedding),
            "es": (es_input_ids, es_attention_mask, es_embedding),
        }
        inputs = (audio_states, input_values, input_features) if self.config.audio else ()
        inputs += tuple(tensor for name in self.config.semantics for tensor in (given[name][0], given[name][2]))
        first = next((tensor for tensor in inputs if tensor is not None), None)
        if first is None:
            active = (["audio"] if self.config.audio else []) + self.config.semantics
            raise ValueError(f"There is no input: give at least one of {', '.join(active)}.")
        batch = first.shape[0]

        texts = {}
        for name in self.config.semantics:
            texts[name] = self._text_vector(name, *given[name], batch, present)
        gate = None
        if "les" in texts and "gs" in texts:
            sources["semantics"], gate = self.intra_fusion(texts["les"], texts["gs"])
        elif "les" in texts or "gs" in texts:
            sources["semantics"] = texts["les"] if "les" in texts else texts["gs"]
        if "es" in texts:
            sources["description"] = texts["es"]

        if self.config.audio:
            condition = None
            if self.film is not None:
                condition = torch.cat([sources[name] for name in self.film_sources], dim=-1)
            if audio_states is None and (input_values is not None or input_features is not None):
                audio_states, attention_mask = self.encode_audio(input_values, input_features, attention_mask)
            sources["audio"] = self._audio_vector(audio_states, attention_mask, condition, batch, present)

        if not self.training and not torch.compiler.is_compiling():
            # In training the processor has checked each item, and looking here would stall the device.
            missing = ~torch.stack(present).any(0)
            if missing.any():
                rows = missing.nonzero().flatten().tolist()
                raise ValueError(f"Item {rows[0]} of the batch has none of the model's inputs.")

        fused, routing = self.cross_fusion(sources)
        logits = torch.stack([head(fused[:, d]) for d, head in enumerate(self.heads.values())], dim=-1)
        output = MsfSerOutput(loss=None if labels is None else ccc_loss(logits, labels), logits=logits)
        if output_explanations:
            output.gate = gate
            output.routing = routing
            if self.config.audio and self.layer_mix is not None:
                output.layer_weights = self.layer_mix.weights()
            output.embedding = fused.mean(1)
        return output

    def _text_vector(
        self,
        name: str,
        input_ids: torch.Tensor | None,
        attention_mask: torch.Tensor | None,
        embedding: torch.Tensor | None,
        batch: int,
        present: list[torch.Tensor],
    ) -> torch.Tensor:
        """One text of the batch as `(batch, text width)`; notes in `present` which items have it."""
        if input_ids is not None and attention_mask is None:
            attention_mask = torch.ones_like(input_ids)
        if embedding is None and input_ids is not None:
            embedding = self.encode_text(input_ids, attention_mask)
        if embedding is None:
            embedding = self.heads["valence"].out.weight.new_zeros(batch, self.config.text_config.hidden_size)
            here = torch.zeros(batch, dtype=torch.bool, device=embedding.device)
        elif attention_mask is None:
            here = torch.ones(batch, dtype=torch.bool, device=embedding.device)
        else:
            here = attention_mask.bool().any(-1)
        present.append(here)
        return self.missing_text[name](embedding, self._drop(here, self.config.text_dropout))

    def _audio_vector(
        self,
        states: torch.Tensor | None,
        frame_mask: torch.Tensor | None,
        condition: torch.Tensor | None,
        batch: int,
        present: list[torch.Tensor],
    ) -> torch.Tensor:
        """The sound of the batch as `(batch, width)`, modulated; notes in `present` which items have it."""
        if states is None:
            weight = self.audio_projection.weight
            here = torch.zeros(batch, dtype=torch.bool, device=weight.device)
            vector = weight.new_zeros(batch, self.config.fusion_size)
        else:
            if frame_mask is None:
                frame_mask = states.new_ones(states.shape[0], states.shape[2], dtype=torch.bool)
            here = frame_mask.bool().any(-1)
            frames = states[:, -1] if self.layer_mix is None else self.layer_mix(states)
            if self.film is not None and self.config.film_position == "frames":
                frames = self.film(frames, condition)
            pooled = self.pooling(frames, at_least_one(frame_mask.bool()))
            vector = self.audio_projection(pooled.to(self.audio_projection.weight.dtype))
        present.append(here)
        vector = self.missing_audio(vector, self._drop(here, self.config.audio_dropout))
        if self.film is not None and self.config.film_position == "pooled":
            vector = self.film(vector, condition)
        return vector

    def _drop(self, present: torch.Tensor, share: float) -> torch.Tensor:
        """In training, calls a random share of the present inputs absent."""
        if not self.training or share == 0.0:
            return present
        return present & (torch.rand(present.shape, device=present.device) >= share)


def _pickled_weights(folder: str | os.PathLike[str]) -> str | None:
    """The name of a file of weights that is a pickle, in a folder without safetensors."""
    if any(Path(folder).glob("*.safetensors")):
        return None
    pickles = (file.name for kind in ("bin", "pt", "pth", "ckpt", "pkl") for file in Path(folder).glob(f"*.{kind}"))
    return min(pickles, default=None)


MsfSerModel.register_for_auto_class("AutoModel")
