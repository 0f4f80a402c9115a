"""MSF-SER (arXiv 2510.05749): valence, arousal and dominance from speech and three granularities of its text.

`sound -> speech encoder -> (layer mix) -> (FiLM) -> pooling -> projection -> (FiLM)`, `texts -> text encoder -> mean`,
`LES, GS -> intra-modal fusion`, all -> cross-modal fusion -> three heads. The layers are in `fusion_msfser.py`, the
encoders in `encoders_msfser.py`.

Shapes: `batch` utterances, `samples` at 16 kHz, `frames` of an encoder, `states` hidden states of the speech encoder,
`width` = `config.fusion_size`, three dimensions in the order valence, arousal, dominance.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from transformers.utils.generic import can_return_tuple

from .configuration_msfser import LABELS, MsfSerConfig
from .contributions_msfser import contributions_of
from .encoders_msfser import (
    at_least_one,
    build_audio_encoder,
    build_text_encoder,
    cast,
    check_lengths,
    joined_text_states,
    load_audio_encoder,
    load_text_encoder,
    shortest_waveform,
    text_positions,
    waveform_states,
    whisper_states,
)
from .fusion_msfser import (
    MsfSerAttentiveStatisticsPooling,
    MsfSerCrossModalFusion,
    MsfSerFilm,
    MsfSerIntraModalFusion,
    MsfSerLayerMix,
    MsfSerMissingInputEmbedding,
    MsfSerParallel,
    build_head,
    drop_inputs,
)
from .gradients_msfser import is_trained, refuse_ignored_adapters
from .intervals_msfser import INTERVAL_LEVEL, MsfSerIntervals, check_level
from .loss_msfser import ccc_loss, check_labels
from .output_msfser import MsfSerOutput
from .pretrained_msfser import MsfSerPreTrainedModel, Record

# A text of a batch: its token ids, its mask, its embedding.
Text = tuple[torch.Tensor | None, torch.Tensor | None, torch.Tensor | None]


class MsfSerModel(MsfSerPreTrainedModel):
    """Predicts valence, arousal, and dominance of utterances, always in this order, each in 0..1.

    0 means negative, calm, or submissive; 1 means positive, excited, or dominant; 0.5 is the middle of the scale. The
    inputs are the audio and three texts: emphasized words (`les`), transcript (`gs`), and description (`es`), as far
    as the config has them; each may be missing.

    `from_pretrained` loads a trained model; `AutoModel` and `AutoModelForAudioClassification` do so, too, with
    `trust_remote_code=True`. [`MsfSerModel.from_encoders`] makes a model that is yet to be trained: pretrained
    encoders, and random weights on top of them. `MsfSerModel(config)` has random weights only.

    Args:
        config: The inputs, the encoders, and the layers.
    """

    # The modules that the config asks for, besides the encoders.
    layer_mix: MsfSerLayerMix | None
    pooling: MsfSerAttentiveStatisticsPooling
    audio_projection: nn.Linear
    missing_audio: MsfSerMissingInputEmbedding
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
            sizes["audio"] = 2 * audio_size if config.cross_fusion == "none" else config.fusion_size
            if config.cross_fusion != "none":
                self.audio_projection = nn.Linear(2 * audio_size, config.fusion_size)
            self.missing_audio = MsfSerMissingInputEmbedding(sizes["audio"])
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
        self.heads = MsfSerParallel({name: build_head(config) for name in LABELS})
        self.intervals = MsfSerIntervals() if config.intervals else None
        self._freeze()
        self.post_init()

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
            ValueError: An input is switched on and its encoder is `None`.
        """
        # Without a name, the config's default would be built at random.
        if audio_encoder is None and kwargs.get("audio", True):
            raise ValueError(
                "Sound is an input and audio_encoder is None: name a speech encoder, or give audio=False."
            )
        if text_encoder is None and kwargs.get("semantics") != []:
            raise ValueError("Texts are inputs and text_encoder is None: name a text encoder, or give semantics=[].")
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
                # Not the encoder itself: its own config may differ, for example in LayerDrop.
                getattr(model, name).load_state_dict(encoder.state_dict(), assign=True)
        return model.eval()

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
        output_contributions: bool = False,
        output_hidden_states: bool | None = None,
        output_attentions: bool | None = None,
        interval_level: float = INTERVAL_LEVEL,
    ) -> MsfSerOutput:
        """Predicts valence, arousal and dominance.

        Any input may be missing, for the batch (`None`) or for an item (a row of zeros in its mask), as long as each
        item has at least one that the model uses. Inputs of a branch that is switched off are ignored.

        Args:
            input_values: `(batch, samples)` at 16 kHz, for waveform encoders.
            input_features: `(batch, mel frames, mels)`, 100 frames per second, for Whisper.
            attention_mask: `(batch, samples)`, `(batch, mel frames)` or, with `audio_states`, `(batch, frames)`: 1 at
                real sound, 0 at the padding behind it.
            les_input_ids: `(batch, tokens)`, the emphasized words.
            les_attention_mask: `(batch, tokens)`, 1 at real tokens, 0 at the padding behind them; a row of zeros is an
                absent text.
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
            output_contributions: Whether to return what each input contributes to the numbers; in evaluation mode.
            output_hidden_states: Whether to return the encoders' hidden states; by default as `config` says.
            output_attentions: Whether to return the encoders' attention weights; by default as `config` says. Only
                `attn_implementation="eager"` has them.
            interval_level: Level of the intervals, 0.01..0.99: about this share of them contains the label.

        Sound, states and embeddings may have any floating-point precision; they are cast to that of the parameters.

        Raises:
            ValueError: There is no input at all, for the batch or (outside training) for one item; two inputs have
                different batch sizes; a sound is too short for its encoder; a text has more tokens than its encoder
                has positions; the labels have another shape or, on a CPU, a value outside 0..1; an adapter has no
                effect on the layer that it is in; or the level is outside its range.
        """
        check_level(interval_level)
        records = self._records(output_hidden_states, output_attentions)
        texts = {
            "les": (les_input_ids, les_attention_mask, les_embedding),
            "gs": (gs_input_ids, gs_attention_mask, gs_embedding),
            "es": (es_input_ids, es_attention_mask, es_embedding),
        }
        sounds = {"audio_states": audio_states, "input_values": input_values, "input_features": input_features}
        batch = self._batch_size(sounds, texts)
        if labels is not None:
            check_labels(labels, batch)
        vectors, present = {}, {}  # by input: `(batch, size)`, and which items have it, `(batch,)` bool
        for name in self.config.semantics or ():
            vectors[name], present[name] = self._text_vector(texts[name], batch, records.get(name))
        frames = frame_mask = pooled = None
        if self.config.audio:
            if audio_states is None and (input_values is not None or input_features is not None):
                audio_states, attention_mask = self.encode_audio(
                    input_values, input_features, attention_mask, records.get("audio")
                )
            states, frame_mask = self._sound(audio_states, attention_mask, batch)
            frames = states[:, -1] if self.layer_mix is None else self.layer_mix(states)
            present["audio"] = frame_mask.any(-1)
        self._check_present(present)
        used = present
        if self.training:
            shares = dict.fromkeys(vectors, self.config.text_dropout) | {"audio": self.config.audio_dropout}
            used = drop_inputs(present, shares)
        refuse_ignored_adapters(self.cross_fusion)
        sources, gate = self.fuse_texts(vectors, used)
        if frames is not None and frame_mask is not None:
            pooled = self.pool_sound(frames, frame_mask, sources)
        logits, fused, routing = self.numbers(sources, pooled, used)
        output = MsfSerOutput(loss=None if labels is None else ccc_loss(logits, labels), logits=logits)
        if self.intervals is not None and not self.training:
            output.low, output.high = self.intervals(logits, interval_level)
        if output_explanations:
            output.gate = gate
            output.routing = routing
            output.layer_weights = None if self.layer_mix is None else self.layer_mix.weights()
            output.embedding = fused.mean(1)
        if output_contributions:
            output.contributions = contributions_of(self, vectors, present, frames, frame_mask)
            # In half precision the pass with all inputs rounds otherwise in another batch; the sum is to hold.
            output.baseline = logits.detach() - output.contributions.sum(-1)
        for name, record in records.items():
            for kind, tensors in record.items():
                if tensors:
                    output[f"{name}_{kind}"] = tuple(tensors)
        return output

    # The steps of `forward`

    def encode_audio(
        self,
        input_values: torch.Tensor | None = None,
        input_features: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        record: Record | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Runs the speech encoder on the inputs of `forward`; a row of zeros in the mask is an item without sound.

        All hidden states and attention weights are appended to `record`, as far as it has lists for them.

        Returns:
            `(batch, states, frames, size)` with one state (the last) or all of them, as `config.audio_states` says,
            and the mask `(batch, frames)`, bool.

        Raises:
            ValueError: The input is of the other kind of encoder, or too short or too long for this one.
        """
        sound = input_features if self.config.is_mel else input_values
        if sound is None:
            name = "input_features (log-mel frames)" if self.config.is_mel else "input_values (the waveform)"
            raise ValueError(f"This model's speech encoder needs {name}: use the processor that was saved with it.")
        if attention_mask is None:
            attention_mask = sound.new_ones(sound.shape[:2], dtype=torch.long)
        check_lengths(self.audio_encoder.config, attention_mask.bool(), each=not self.training)
        weights = None if record is None else record.get("attentions")
        refuse_ignored_adapters(self.audio_encoder)
        sound = cast(sound, self.audio_encoder)
        trained = sound.requires_grad or is_trained(self.audio_encoder)
        with torch.set_grad_enabled(torch.is_grad_enabled() and trained), self._in_precision():
            if self.config.is_mel:
                states, frame_mask = whisper_states(self.audio_encoder, sound, attention_mask.bool(), weights)
            else:
                states, frame_mask = waveform_states(
                    self.audio_encoder, sound, attention_mask.bool(), self.config.fast_encoders, weights
                )
            states = self._returned(states)
            if record is not None:
                record.update({kind: self._returned(tensors) for kind, tensors in record.items()})
                record.get("hidden_states", []).extend(states)
            kept = states if self.config.audio_states == "weighted" else states[-1:]
            return torch.stack(kept, dim=1), frame_mask

    def encode_text(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor, record: Record | None = None
    ) -> torch.Tensor:
        """Mean of the text encoder's last states over the real tokens: `(batch, tokens)` -> `(batch, text width)`.

        All hidden states and attention weights are appended to `record`, as far as it has lists for them.

        Raises:
            ValueError: There are more tokens than the encoder has positions.
        """
        longest = text_positions(self.text_encoder)
        if longest is not None and input_ids.shape[1] > longest:
            raise ValueError(
                f"A text has {input_ids.shape[1]} tokens and this text encoder's positions end at {longest}: shorten "
                f"it, or use a processor with max_tokens={longest}."
            )
        is_recorded = torch.is_grad_enabled() and is_trained(self.text_encoder)
        with torch.set_grad_enabled(is_recorded), self._in_precision():
            # An absent text has no token: its first position is unmasked so that attention stays finite, and the
            # result is replaced afterwards.
            mask = at_least_one(attention_mask.bool())
            record = {} if record is None else record
            asked = {f"output_{kind}": True for kind in record}
            output = self.text_encoder(input_ids=input_ids, attention_mask=mask.long(), return_dict=True, **asked)
            for kind, tensors in record.items():
                tensors += self._returned(output[kind])
            return self._mean_of_text(output.last_hidden_state, mask)

    @torch.no_grad()
    def encode_texts(self, texts: Mapping[str, tuple[torch.Tensor, torch.Tensor]]) -> dict[str, torch.Tensor]:
        """Token ids and mask of several texts, by name, as [`encode_text`] encodes each; without gradients.

        The short texts of a single item go through the text encoder at once, if it is able to.
        """
        if len(texts) > 1 and all(ids.shape[0] == 1 and mask.any() for ids, mask in texts.values()):
            with self._in_precision():
                joined = joined_text_states(self.text_encoder, [ids[mask.bool()] for ids, mask in texts.values()])
                if joined is not None:
                    of_each = zip(texts, joined, strict=True)
                    return {
                        name: self._mean_of_text(states[None], states.new_ones(1, len(states), dtype=torch.bool))
                        for name, states in of_each
                    }
        return {name: self.encode_text(ids, mask) for name, (ids, mask) in texts.items()}

    def _mean_of_text(self, states: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """`(batch, tokens, text width)` and the mask of the real tokens -> `(batch, text width)`."""
        (states,) = self._returned([states])
        # Half precision has neither the range nor the digits for the sum of a long text.
        precise = states.to(torch.promote_types(states.dtype, torch.float32))
        visible = mask[..., None].to(precise.dtype)
        return ((precise * visible).sum(1) / visible.sum(1)).to(states.dtype)

    def fuse_texts(
        self, vectors: dict[str, torch.Tensor], used: Mapping[str, torch.Tensor]
    ) -> tuple[dict[str, torch.Tensor], torch.Tensor | None]:
        """The texts as sources of the cross-modal fusion, and the gate between LES and GS.

        A text `(batch, text width)` is replaced by its missing-input embedding where it is not used, `(batch,)` bool.
        """
        sources, gate = {}, None
        if vectors:
            vectors = self.missing_text({name: (vector, used[name]) for name, vector in vectors.items()})
        if "les" in vectors and "gs" in vectors:
            sources["semantics"], gate = self.intra_fusion(vectors["les"], vectors["gs"])
        elif "les" in vectors or "gs" in vectors:
            sources["semantics"] = vectors["les" if "les" in vectors else "gs"]
        if "es" in vectors:
            sources["description"] = vectors["es"]
        return sources, gate

    def pool_sound(
        self, frames: torch.Tensor, frame_mask: torch.Tensor, sources: Mapping[str, torch.Tensor]
    ) -> torch.Tensor:
        """Frames `(batch, frames, size)`, which the texts may modulate, and their mask to `(batch, width)`."""
        if self.film is not None and self.config.film_position == "frames":
            frames = self.film(frames, self._film_condition(sources))
        pooled = self.pooling(frames, at_least_one(frame_mask))
        pooled = pooled.to(self.missing_audio.embedding.dtype)
        return pooled if self.config.cross_fusion == "none" else self.audio_projection(pooled)

    def numbers(
        self, sources: dict[str, torch.Tensor], pooled: torch.Tensor | None, used: Mapping[str, torch.Tensor]
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
        """From the texts and the sound, `(batch, width)`, to `logits`, the fused vectors and the routing.

        The sound is replaced by its missing-input embedding where it is not used, `(batch,)` bool.
        """
        if pooled is not None:
            vector = self.missing_audio(pooled, used["audio"])
            if self.film is not None and self.config.film_position == "pooled":
                vector = self.film(vector, self._film_condition(sources))
            sources = {**sources, "audio": vector}
        fused, routing = self.cross_fusion(sources)
        numbers = self.heads({name: (fused[:, d],) for d, name in enumerate(LABELS)})
        return torch.stack([*numbers.values()], dim=-1), fused, routing

    def _film_condition(self, sources: Mapping[str, torch.Tensor]) -> torch.Tensor:
        return torch.cat([sources[name] for name in self.film_sources], dim=-1)

    def _batch_size(self, sounds: Mapping[str, torch.Tensor | None], texts: Mapping[str, Text]) -> int:
        """The number of items, which is that of each input that the model uses."""
        inputs = dict(sounds) if self.config.audio else {}
        for name in self.config.semantics or ():
            ids, _, embedding = texts[name]
            inputs |= {f"{name}_input_ids": ids, f"{name}_embedding": embedding}
        sizes = {name: tensor.shape[0] for name, tensor in inputs.items() if tensor is not None}
        if not sizes:
            active = (["audio"] if self.config.audio else []) + list(self.config.semantics or ())
            raise ValueError(f"There is no input: pass at least one of {', '.join(active)}.")
        first, batch = next(iter(sizes.items()))
        for name, size in sizes.items():
            if size != batch:
                raise ValueError(
                    f"{first} has {batch} items and {name} has {size}: pass the inputs of the same items, an absent "
                    "one as a row of zeros in its mask."
                )
        return batch

    def _text_vector(self, text: Text, batch: int, record: Record | None) -> tuple[torch.Tensor, torch.Tensor]:
        """One text of the batch as `(batch, text width)`, and which items have it, `(batch,)` bool."""
        input_ids, attention_mask, embedding = text
        if embedding is None:
            if input_ids is None:
                parameter = next(self.heads.parameters())
                input_ids = attention_mask = parameter.new_zeros((batch, 1), dtype=torch.long)
                if not self._takes_part(self.text_encoder):
                    absent = parameter.new_zeros(batch, self.config.text_config.hidden_size)
                    return absent, attention_mask.bool().any(-1)
                record = None
            elif attention_mask is None:
                attention_mask = torch.ones_like(input_ids)
            embedding = self.encode_text(input_ids, attention_mask, record)
        embedding = cast(embedding, self.heads, unless_autocast=True)
        if attention_mask is None:
            return embedding, torch.ones(batch, dtype=torch.bool, device=embedding.device)
        return embedding, attention_mask.bool().any(-1)

    def _takes_part(self, encoder: Any) -> bool:
        """Whether an encoder runs for an input that no item has.

        Several processes wait for the gradient of each parameter, also where the batch of one lacks the input. There
        the encoder runs on the shortest input, absent for each item, so that its gradient is zero.
        """
        return self.training and torch.is_grad_enabled() and is_trained(encoder)

    def _sound(
        self, states: torch.Tensor | None, frame_mask: torch.Tensor | None, batch: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The states `(batch, states, frames, size)` and their mask `(batch, frames)`, bool, also of absent sound."""
        if states is None:
            parameter = next(self.heads.parameters())
            if self._takes_part(self.audio_encoder):
                config = self.config.audio_config
                frames = max(config.mask_time_length, 1)  # SpecAugment masks so many
                shape = (2, config.num_mel_bins) if self.config.is_mel else (shortest_waveform(config, frames),)
                sound = parameter.new_zeros(batch, *shape)
                absent = parameter.new_zeros(sound.shape[:2], dtype=torch.long)
                states, frame_mask = self.encode_audio(sound, sound, absent)
            else:
                count = 1 if self.layer_mix is None else len(self.layer_mix.scores)
                states = parameter.new_zeros(batch, count, 1, self.audio_encoder.config.hidden_size)
                frame_mask = parameter.new_zeros(batch, 1)
        if frame_mask is None:
            frame_mask = states.new_ones(states.shape[0], states.shape[2])
        return cast(states, self.heads, unless_autocast=True), frame_mask.bool()

    def _check_present(self, present: Mapping[str, torch.Tensor]) -> None:
        # In training the processor has checked each item, and looking here would stall the device.
        if self.training or torch.compiler.is_compiling():
            return
        missing = ~torch.stack(list(present.values())).any(0)
        if missing.any():
            raise ValueError(f"Item {int(missing.nonzero()[0])} of the batch has none of the model's inputs.")


MsfSerModel.register_for_auto_class("AutoModel")
