"""MSF-SER (arXiv 2510.05749): valence, arousal and dominance from speech and three granularities of its text.

`sound -> speech encoder -> (layer mix) -> (FiLM) -> pooling -> projection -> (FiLM)`, `texts -> text encoder -> mean`,
`LES, GS -> intra-modal fusion`, all -> cross-modal fusion -> three heads. The layers are in `fusion_msfser.py`, the
encoders in `encoders_msfser.py`.

Shapes: `batch` utterances, `samples` at 16 kHz, `frames` of an encoder, `states` hidden states of the speech encoder,
`width` = `config.fusion_size`, three dimensions in the order valence, arousal, dominance.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers import initialization as init
from transformers.utils.generic import ModelOutput, can_return_tuple

from .configuration_msfser import LABELS, MsfSerConfig
from .encoders_msfser import (
    at_least_one,
    build_audio_encoder,
    build_text_encoder,
    load_audio_encoder,
    load_text_encoder,
    load_weights,
    shortest_waveform,
    waveform_states,
    whisper_states,
)
from .fast_encoders_msfser import quantize_linear_layers
from .fusion_msfser import (
    MsfSerAttentiveStatisticsPooling,
    MsfSerCrossModalFusion,
    MsfSerFilm,
    MsfSerHead,
    MsfSerIntraModalFusion,
    MsfSerLayerMix,
    MsfSerMissingInputEmbedding,
    MsfSerParallel,
    MsfSerRouting,
    MsfSerZeroLinear,
    drop_inputs,
)
from .gradients_msfser import freeze, has_adapters, is_trained, prepare_training, refuse_ignored_adapters
from .loss_msfser import ccc_loss, check_labels

# A text of a batch: its token ids, its mask, its embedding.
Text = tuple[torch.Tensor | None, torch.Tensor | None, torch.Tensor | None]


@dataclass
class MsfSerOutput(ModelOutput):
    """Output of [`MsfSerModel`].

    Args:
        loss: Scalar, `sum_d (1 - CCC_d)` over the global batch, where `labels` were given.
        logits: `(batch, 3)`, valence, arousal, dominance, each in 0..1.
        gate: `(batch, text width)`, the weight of LES relative to GS per feature, in 0..1; `None` without a gate.
        routing: `(batch, 3, experts)`, the experts' weights for each dimension, summing to 1; the experts are the
            sound, LES and GS together, and ES, in this order, as far as they are inputs. `None` without `fm_moe`.
        layer_weights: `(states,)`, the weights of the speech encoder's hidden states, summing to 1; `None` where only
            the last one is used.
        embedding: `(batch, width)`, the fused vector, averaged over the three dimensions.
    """

    loss: torch.Tensor | None = None
    logits: torch.Tensor | None = None
    gate: torch.Tensor | None = None
    routing: torch.Tensor | None = None
    layer_weights: torch.Tensor | None = None
    embedding: torch.Tensor | None = None


class MsfSerModel(PreTrainedModel):
    """MSF-SER for `AutoModel` and `AutoModelForAudioClassification`."""

    config_class = MsfSerConfig
    base_model_prefix = "msfser"
    main_input_name = "input_values"
    input_modalities = ["audio", "text"]  # noqa: RUF012 - the library's own form
    supports_gradient_checkpointing = True
    accepts_loss_kwargs = False
    is_8_bit = False  # whether `quantize` was called

    # The modules that the config asks for.
    audio_encoder: Any  # a `PreTrainedModel`, as the text encoder
    layer_mix: MsfSerLayerMix | None
    pooling: MsfSerAttentiveStatisticsPooling
    audio_projection: nn.Linear
    missing_audio: MsfSerMissingInputEmbedding
    text_encoder: Any
    missing_text: MsfSerParallel
    intra_fusion: MsfSerIntraModalFusion
    film: MsfSerFilm | None
    heads: MsfSerParallel

    def __init__(self, config: MsfSerConfig):
        super().__init__(config)
        sizes = {}  # of the sources of the cross-modal fusion, in the order of its experts
        self.layer_mix = self.film = None
        if config.audio:
            self.audio_encoder = build_audio_encoder(config)
            audio_size = self.audio_encoder.config.hidden_size
            if config.audio_states == "weighted":
                self.layer_mix = MsfSerLayerMix(self.audio_encoder.config.num_hidden_layers + 1)
            self.pooling = MsfSerAttentiveStatisticsPooling(audio_size)
            self.audio_projection = nn.Linear(2 * audio_size, config.fusion_size)
            self.missing_audio = MsfSerMissingInputEmbedding(config.fusion_size)
            sizes["audio"] = config.fusion_size
        if config.semantics:
            self.text_encoder = build_text_encoder(config)
            text_size = self.text_encoder.config.hidden_size
            self.missing_text = MsfSerParallel(
                {name: MsfSerMissingInputEmbedding(text_size) for name in config.semantics}
            )
            if {"les", "gs"} <= set(config.semantics):
                self.intra_fusion = MsfSerIntraModalFusion(text_size, config.intra_fusion)
            if {"les", "gs"} & set(config.semantics):
                sizes["semantics"] = text_size
            if "es" in config.semantics:
                sizes["description"] = text_size
        if config.audio and config.cross_fusion in ("fm_moe", "film"):
            # The paper's mixture lets LES/GS alone modulate the sound; plain FiLM has no other way in for ES.
            names = ("semantics",) if config.cross_fusion == "fm_moe" else ("semantics", "description")
            self.film_sources = [name for name in names if name in sizes]
            if self.film_sources:
                condition_size = sum(sizes[name] for name in self.film_sources)
                film_size = audio_size if config.film_position == "frames" else config.fusion_size
                self.film = MsfSerFilm(condition_size, film_size, config.fusion_size)
        self.cross_fusion = MsfSerCrossModalFusion(config, sizes)
        self.heads = MsfSerParallel({name: MsfSerHead(config.fusion_size, config.head_dropout) for name in LABELS})
        self._freeze()
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        # All initial values that differ from the library's are set here: `post_init` overwrites what `__init__` has
        # set, and skips modules of remote code that hold no parameter themselves.
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

    @classmethod
    def from_encoders(cls, audio_encoder: str | None, text_encoder: str | None, **kwargs: Any) -> "MsfSerModel":
        """Builds a model on two pretrained encoders; all other weights are random or neutral.

        Args:
            audio_encoder: Hub name or folder, such as `"microsoft/wavlm-large"` or `"openai/whisper-tiny.en"`;
                `None` with `audio=False`.
            text_encoder: Hub name or folder, such as `"FacebookAI/roberta-large"`; `None` with `semantics=[]`.
            **kwargs: Fields of [`MsfSerConfig`].

        Raises:
            OSError: An encoder is neither a folder, nor prepared (`msfser encoders`), nor on the Hub or in its cache.
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
                # Not the encoder itself, whose own config and LayerDrop may differ.
                getattr(model, name).load_state_dict(encoder.state_dict(), assign=True)
        return model.eval()

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | os.PathLike[str] | None,
        *args: Any,
        output_loading_info: bool = False,
        **kwargs: Any,
    ) -> Any:
        """As in [`PreTrainedModel`]; loading makes every weight trainable, so the frozen ones are frozen again.

        Only safetensors are read, whatever `use_safetensors` says: a pickle could bring code with it.

        Raises:
            ValueError: The weights are a pickle, are damaged, or have other shapes than the config asks for; the
                sentence names them.
            OSError: There are no weights.
        """
        if pretrained_model_name_or_path is not None and (found := _pickled_weights(pretrained_model_name_or_path)):
            raise ValueError(
                f"{str(pretrained_model_name_or_path)!r}: the weights are a pickle ({found}), which could bring code "
                "with it and is not read: save the model again, as safetensors."
            )
        kwargs["use_safetensors"] = True
        model, report = load_weights(super().from_pretrained, pretrained_model_name_or_path, *args, **kwargs)
        if not getattr(model, "_hf_peft_config_loaded", False):  # peft freezes all but its adapters
            model._freeze()
        return (model, report) if output_loading_info else model

    def save_pretrained(self, save_directory: str | os.PathLike[str], **kwargs: Any) -> Any:  # type: ignore[override]
        """As in [`PreTrainedModel`], with the code of model and pipeline.

        Raises:
            ValueError: The model has 8-bit layers.
        """
        if self.is_8_bit:
            raise ValueError("A model with 8-bit layers cannot be saved: save it before quantize(), or reload it.")
        # The pipeline imports this module. The library saves the code of all that is imported here, so the pipeline's.
        from .pipeline_msfser import MsfSerPipeline

        self.config.custom_pipelines = {
            "audio-classification": {
                "impl": f"pipeline_msfser.{MsfSerPipeline.__name__}",
                "pt": ["AutoModelForAudioClassification"],
            }
        }
        # One class serves both auto classes, but the library registers a class for one only.
        auto_map = getattr(self.config, "auto_map", None) or {}
        name = f"modeling_msfser.{type(self).__name__}"
        self.config.auto_map = {**auto_map, "AutoModelForAudioClassification": name}
        return super().save_pretrained(save_directory, **kwargs)

    def quantize(self) -> "MsfSerModel":
        """Replaces the encoders' linear layers by 8-bit ones, in place, for faster inference on a CPU.

        Fusion and heads stay in float32. The same model is returned; it can neither be trained nor saved any more.

        Raises:
            ValueError: The model is not on a CPU, not in float32, or has adapters.
        """
        if self.device.type != "cpu" or self.dtype != torch.float32:
            raise ValueError(
                f"The model is {self.dtype} on {self.device}, and 8-bit layers are made from float32 on a CPU: use "
                "model.float().cpu().quantize()."
            )
        if has_adapters(self):
            raise ValueError("The model has adapters, which 8-bit layers ignore: merge_and_unload() them first.")
        for name in ("audio_encoder", "text_encoder"):
            if hasattr(self, name) and not self.is_8_bit:
                quantize_linear_layers(getattr(self, name))
        self.is_8_bit = True
        return self.eval()

    def _freeze(self) -> None:
        freeze(self.config, *self._encoders())

    def _encoders(self) -> tuple[Any, Any]:
        """The speech and the text encoder, `None` for one that is switched off."""
        return getattr(self, "audio_encoder", None), getattr(self, "text_encoder", None)

    def train(self, mode: bool = True) -> "MsfSerModel":
        """As `nn.Module.train`, but a frozen encoder stays in evaluation mode: no dropout, no SpecAugment.

        An encoder is frozen if none of its parameters wants a gradient, whatever the config says.

        Raises:
            ValueError: The model has 8-bit layers.
        """
        if mode and self.is_8_bit:
            raise ValueError("A model with 8-bit layers cannot be trained: reload it.")
        super().train(mode)
        for encoder in self._encoders():
            if encoder is not None:
                prepare_training(encoder)
        return self

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
        item has at least one that the model uses. Inputs of a branch that is switched off are ignored.

        Args:
            input_values: `(batch, samples)` at 16 kHz, for waveform encoders.
            input_features: `(batch, mel frames, mels)`, 100 frames per second, for Whisper.
            attention_mask: `(batch, samples)`, `(batch, mel frames)` or, with `audio_states`, `(batch, frames)`.
            les_input_ids: `(batch, tokens)`, the emphasized words.
            les_attention_mask: `(batch, tokens)`, 1 at real tokens; a row of zeros is an absent text.
            gs_input_ids: `(batch, tokens)`, the transcript.
            gs_attention_mask: As above.
            es_input_ids: `(batch, tokens)`, the description.
            es_attention_mask: As above.
            audio_states: `(batch, states, frames, size)` as `encode_audio` returns, in place of the sound.
            les_embedding: `(batch, text width)` as `encode_text` returns, in place of the ids; its mask may then
                have any number of columns.
            gs_embedding: As above.
            es_embedding: As above.
            labels: `(batch, 3)` in 0..1, valence, arousal, dominance.
            output_explanations: Whether to return gate, routing, layer weights and embedding.

        Sound, states and embeddings may have any floating-point precision; they are cast to that of the parameters.

        Raises:
            ValueError: There is no input at all, for the batch or (outside training) for one item; the labels have
                another shape, or a value outside 0..1; an adapter has no effect on the layer that it is in.
        """
        texts = {
            "les": (les_input_ids, les_attention_mask, les_embedding),
            "gs": (gs_input_ids, gs_attention_mask, gs_embedding),
            "es": (es_input_ids, es_attention_mask, es_embedding),
        }
        batch = self._batch_size((audio_states, input_values, input_features), texts)
        if labels is not None:
            check_labels(labels, batch)
        vectors, present = {}, {}  # by input: `(batch, size)`, and which items have it, `(batch,)` bool
        for name in self.config.semantics or ():
            vectors[name], present[name] = self._text_vector(texts[name], batch)
        if self.config.audio:
            if audio_states is None and (input_values is not None or input_features is not None):
                audio_states, attention_mask = self.encode_audio(input_values, input_features, attention_mask)
            states, frame_mask = self._sound(audio_states, attention_mask, batch)
            present["audio"] = frame_mask.any(-1)
        self._check_present(present)
        used = present
        if self.training:
            shares = dict.fromkeys(vectors, self.config.text_dropout) | {"audio": self.config.audio_dropout}
            used = drop_inputs(present, shares)
        if vectors:
            vectors = self.missing_text({name: (vector, used[name]) for name, vector in vectors.items()})
        sources, gate = self._fuse_texts(vectors)
        if self.config.audio:
            sources["audio"] = self._audio_vector(states, frame_mask, sources, used["audio"])
        refuse_ignored_adapters(self.cross_fusion)
        fused, routing = self.cross_fusion(sources)
        logits = torch.stack([*self.heads({name: (fused[:, d],) for d, name in enumerate(LABELS)}).values()], dim=-1)
        output = MsfSerOutput(loss=None if labels is None else ccc_loss(logits, labels), logits=logits)
        if output_explanations:
            output.gate = gate
            output.routing = routing
            output.layer_weights = None if self.layer_mix is None else self.layer_mix.weights()
            output.embedding = fused.mean(1)
        return output

    # The steps of `forward`

    def encode_audio(
        self,
        input_values: torch.Tensor | None = None,
        input_features: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Runs the speech encoder on the inputs of `forward`; a row of zeros in the mask is an item without sound.

        Returns:
            `(batch, states, frames, size)` with one state (the last) or all of them, as `config.audio_states` says,
            and the mask `(batch, frames)`, bool.

        Raises:
            ValueError: The input is of the other kind of encoder, or too long for this one.
        """
        sound = input_features if self.config.is_mel else input_values
        if sound is None:
            name = "input_features (log-mel frames)" if self.config.is_mel else "input_values (the waveform)"
            raise ValueError(f"This model's speech encoder needs {name}: use the processor that was saved with it.")
        if attention_mask is None:
            attention_mask = sound.new_ones(sound.shape[:2], dtype=torch.long)
        refuse_ignored_adapters(self.audio_encoder)
        sound = _cast(sound, self.audio_encoder)
        trained = sound.requires_grad or is_trained(self.audio_encoder)
        with torch.set_grad_enabled(torch.is_grad_enabled() and trained):
            if self.config.is_mel:
                states, frame_mask = whisper_states(self.audio_encoder, sound, attention_mask.bool())
            else:
                states, frame_mask = waveform_states(
                    self.audio_encoder, sound, attention_mask.bool(), self.config.fast_encoders
                )
            kept = states if self.config.audio_states == "weighted" else states[-1:]
            return torch.stack(kept, dim=1), frame_mask

    def encode_text(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Mean of the text encoder's last states over the real tokens: `(batch, tokens)` -> `(batch, text width)`."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and is_trained(self.text_encoder)):
            # An absent text has no token: its first position is unmasked so that attention stays finite, and the
            # result is replaced afterwards.
            mask = at_least_one(attention_mask.bool())
            states = self.text_encoder(input_ids=input_ids, attention_mask=mask.long()).last_hidden_state
            # Half precision has neither the range nor the digits for the sum of a long text.
            precise = states.to(torch.promote_types(states.dtype, torch.float32))
            visible = mask[..., None].to(precise.dtype)
            return ((precise * visible).sum(1) / visible.sum(1)).to(states.dtype)

    def _batch_size(self, sounds: tuple[torch.Tensor | None, ...], texts: Mapping[str, Text]) -> int:
        """The number of items, from the first input that the model uses."""
        inputs = sounds if self.config.audio else ()
        inputs += tuple(tensor for name in self.config.semantics or () for tensor in texts[name][::2])
        for tensor in inputs:
            if tensor is not None:
                return tensor.shape[0]
        active = (["audio"] if self.config.audio else []) + list(self.config.semantics or ())
        raise ValueError(f"There is no input: pass at least one of {', '.join(active)}.")

    def _text_vector(self, text: Text, batch: int) -> tuple[torch.Tensor, torch.Tensor]:
        """One text of the batch as `(batch, text width)`, and which items have it, `(batch,)` bool."""
        input_ids, attention_mask, embedding = text
        parameter = next(self.heads.parameters())
        if embedding is None and input_ids is None:
            attention_mask = parameter.new_zeros((batch, 1), dtype=torch.long)
            if self._takes_part(self.text_encoder):
                input_ids = attention_mask
            else:
                embedding = parameter.new_zeros(batch, self.config.text_config.hidden_size)
        if embedding is None:
            attention_mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
            embedding = self.encode_text(input_ids, attention_mask)
        embedding = _cast(embedding, self.heads, unless_autocast=True)
        if attention_mask is None:
            return embedding, torch.ones(batch, dtype=torch.bool, device=embedding.device)
        return embedding, attention_mask.bool().any(-1)

    def _takes_part(self, encoder: Any) -> bool:
        """Whether an encoder runs for an input that no item has.

        Several processes wait for the gradient of each parameter, also where the batch of one lacks the input. There
        the encoder runs on the shortest input, absent for each item, so that its gradient is zero.
        """
        return self.training and torch.is_grad_enabled() and is_trained(encoder)

    def _fuse_texts(self, vectors: dict[str, torch.Tensor]) -> tuple[dict[str, torch.Tensor], torch.Tensor | None]:
        """The texts as sources of the cross-modal fusion, and the gate between LES and GS."""
        sources, gate = {}, None
        if "les" in vectors and "gs" in vectors:
            sources["semantics"], gate = self.intra_fusion(vectors["les"], vectors["gs"])
        elif "les" in vectors or "gs" in vectors:
            sources["semantics"] = vectors["les" if "les" in vectors else "gs"]
        if "es" in vectors:
            sources["description"] = vectors["es"]
        return sources, gate

    def _sound(
        self, states: torch.Tensor | None, frame_mask: torch.Tensor | None, batch: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The states `(batch, states, frames, size)` and their mask `(batch, frames)`, bool, also of absent sound."""
        if states is None:
            parameter = next(self.heads.parameters())
            if self._takes_part(self.audio_encoder):
                config = self.config.audio_config
                shape = (2, config.num_mel_bins) if self.config.is_mel else (shortest_waveform(config),)
                sound = parameter.new_zeros(batch, *shape)
                absent = parameter.new_zeros(sound.shape[:2], dtype=torch.long)
                states, frame_mask = self.encode_audio(sound, sound, absent)
            else:
                count = 1 if self.layer_mix is None else len(self.layer_mix.scores)
                states = parameter.new_zeros(batch, count, 1, self.pooling.hidden.in_features)
                frame_mask = parameter.new_zeros(batch, 1)
        if frame_mask is None:
            frame_mask = states.new_ones(states.shape[0], states.shape[2])
        return _cast(states, self.heads, unless_autocast=True), frame_mask.bool()

    def _audio_vector(
        self, states: torch.Tensor, frame_mask: torch.Tensor, sources: dict[str, torch.Tensor], used: torch.Tensor
    ) -> torch.Tensor:
        """The sound as `(batch, width)`, modulated by the texts, or its missing-input embedding."""
        condition = None if self.film is None else torch.cat([sources[name] for name in self.film_sources], dim=-1)
        frames = states[:, -1] if self.layer_mix is None else self.layer_mix(states)
        if self.film is not None and self.config.film_position == "frames":
            frames = self.film(frames, condition)
        pooled = self.pooling(frames, at_least_one(frame_mask))
        vector = self.audio_projection(pooled.to(self.audio_projection.weight.dtype))
        vector = self.missing_audio(vector, used)
        if self.film is not None and self.config.film_position == "pooled":
            vector = self.film(vector, condition)
        return vector

    def _check_present(self, present: Mapping[str, torch.Tensor]) -> None:
        # In training the processor has checked each item, and looking here would stall the device.
        if self.training or torch.compiler.is_compiling():
            return
        missing = ~torch.stack(list(present.values())).any(0)
        if missing.any():
            raise ValueError(f"Item {int(missing.nonzero()[0])} of the batch has none of the model's inputs.")


def _cast(tensor: torch.Tensor, module: nn.Module, unless_autocast: bool = False) -> torch.Tensor:
    """A floating-point tensor in the precision of a module's parameters."""
    precision = next(parameter.dtype for parameter in module.parameters() if parameter.is_floating_point())
    if not tensor.is_floating_point() or tensor.dtype == precision:
        return tensor
    return tensor if unless_autocast and torch.is_autocast_enabled(tensor.device.type) else tensor.to(precision)


def _pickled_weights(folder: str | os.PathLike[str]) -> str | None:
    """The name of a file of weights that is a pickle, in a folder without safetensors."""
    if any(Path(folder).glob("*.safetensors")):
        return None
    pickles = (file.name for kind in ("bin", "pt", "pth", "ckpt", "pkl") for file in Path(folder).glob(f"*.{kind}"))
    return min(pickles, default=None)


MsfSerModel.register_for_auto_class("AutoModel")
