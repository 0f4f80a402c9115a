"""What [`MsfSerModel`] returns."""

from dataclasses import dataclass

import torch
from transformers.utils.generic import ModelOutput


@dataclass
class MsfSerOutput(ModelOutput):
    """Output of [`MsfSerModel`].

    Args:
        loss: Scalar, `sum_d (1 - CCC_d)` over the global batch, where `labels` were given.
        logits: `(batch, 3)`, valence, arousal, dominance, each in 0..1.
        low: `(batch, 3)`, the low ends of the intervals, in 0..1; `None` in training, or if the model has none.
        high: `(batch, 3)`, the high ends.
        gate: `(batch, text width)`, the weight of LES relative to GS per feature, in 0..1; `None` without a gate.
        routing: `(batch, 3, experts)`, the experts' weights for each dimension, summing to 1; the experts are the
            sound, LES and GS together, and ES, in this order, as far as they are inputs. `None` without `fm_moe`.
        layer_weights: `(states,)`, the weights of the speech encoder's hidden states, summing to 1; `None` where only
            the last one is used.
        embedding: `(batch, width)`, the fused vector, averaged over the three dimensions.
        contributions: `(batch, 3, inputs)`, with `output_contributions`: what the sound, LES, GS and ES, as far as
            they are inputs, contribute to each number; an absent one 0. See `contributions_msfser.py`.
        baseline: `(batch, 3)`, the number without any input, to which the contributions add up to `logits`.
        audio_hidden_states: With `output_hidden_states`, for each state of the speech encoder `(batch, frames, size)`:
            the first layer's input and each layer's output. `None` without sound, or if `audio_states` were given.
        les_hidden_states: The same of the text encoder, `(batch, tokens, text width)`. `None` without ids.
        gs_hidden_states: As above.
        es_hidden_states: As above.
        audio_attentions: With `output_attentions`, for each layer of the speech encoder the attention weights
            `(batch, heads, frames, frames)`; `None` as above.
        les_attentions: The same of the text encoder, `(batch, heads, tokens, tokens)`.
        gs_attentions: As above.
        es_attentions: As above.
    """

    loss: torch.Tensor | None = None
    logits: torch.Tensor | None = None
    low: torch.Tensor | None = None
    high: torch.Tensor | None = None
    gate: torch.Tensor | None = None
    routing: torch.Tensor | None = None
    layer_weights: torch.Tensor | None = None
    embedding: torch.Tensor | None = None
    contributions: torch.Tensor | None = None
    baseline: torch.Tensor | None = None
    audio_hidden_states: tuple[torch.Tensor, ...] | None = None
    les_hidden_states: tuple[torch.Tensor, ...] | None = None
    gs_hidden_states: tuple[torch.Tensor, ...] | None = None
    es_hidden_states: tuple[torch.Tensor, ...] | None = None
    audio_attentions: tuple[torch.Tensor, ...] | None = None
    les_attentions: tuple[torch.Tensor, ...] | None = None
    gs_attentions: tuple[torch.Tensor, ...] | None = None
    es_attentions: tuple[torch.Tensor, ...] | None = None
