"""Whisper's decoder token by token, in less time than by the library's loop, which prepares for much more."""

from typing import Any

import torch
from torch import nn


def most_probable_tokens(model: Any, states: torch.Tensor, prompts: torch.Tensor, most: int) -> list[list[int]]:
    """The most probable next token, again and again until the end of each text, as the library's greedy search.

    Args:
        model: A `WhisperForConditionalGeneration` in evaluation mode. Of its generation config the end, and the tokens
            that are suppressed, matter.
        states: Of its encoder, `(batch, frames, size)`.
        prompts: `(batch, tokens)`, of equal length.
        most: How many tokens a text has at most.

    Returns:
        The tokens of each text without prompt and end.
    """
    decoder, ids, heads = model.model.decoder, model.generation_config, model.config.decoder_attention_heads
    end = ids.eos_token_id
    suppressed = torch.zeros(model.config.vocab_size, device=states.device, dtype=states.dtype)
    suppressed[ids.suppress_tokens or []] = -torch.inf
    at_first = suppressed.clone()
    at_first[ids.begin_suppress_tokens or []] = -torch.inf

    def by_head(project: nn.Module, x: torch.Tensor) -> torch.Tensor:
        return project(x).unflatten(-1, (heads, -1)).transpose(1, 2)

    def attend(attention: Any, x: torch.Tensor, key: torch.Tensor, value: torch.Tensor, causal: bool) -> torch.Tensor:
        query = by_head(attention.q_proj, x)
        attended = nn.functional.scaled_dot_product_attention(query, key, value, is_causal=causal)
        return attention.out_proj(attended.transpose(1, 2).flatten(2))

    of_sound = [
        (by_head(layer.encoder_attn.k_proj, states), by_head(layer.encoder_attn.v_proj, states))
        for layer in decoder.layers
    ]
    of_text: list[list[torch.Tensor]] = [[] for _ in decoder.layers]  # keys and values of the tokens so far
    tokens, position = prompts, 0
    found: list[torch.Tensor] = []
    is_ended = torch.zeros(len(states), dtype=torch.bool, device=states.device)
    while len(found) < most and not is_ended.all():
        x = decoder.embed_tokens(tokens) + decoder.embed_positions.weight[position : position + tokens.shape[1]]
        for layer, sound, text in zip(decoder.layers, of_sound, of_text, strict=True):
            normed = layer.self_attn_layer_norm(x)
            new = [by_head(project, normed) for project in (layer.self_attn.k_proj, layer.self_attn.v_proj)]
            text[:] = [torch.cat(pair, dim=2) for pair in zip(text, new, strict=True)] if text else new
            x = x + attend(layer.self_attn, normed, text[0], text[1], causal=position == 0)
            x = x + attend(layer.encoder_attn, layer.encoder_attn_layer_norm(x), sound[0], sound[1], causal=False)
            x = x + layer.fc2(layer.activation_fn(layer.fc1(layer.final_layer_norm(x))))
        position += tokens.shape[1]
        logits = model.proj_out(decoder.layer_norm(x[:, -1])) + (suppressed if found else at_first)
        tokens = logits.argmax(-1, keepdim=True).masked_fill(is_ended[:, None], end)
        is_ended = is_ended | (tokens[:, 0] == end)
        found.append(tokens)
    rows = torch.cat(found, dim=1).tolist()
    return [row[: row.index(end)] if end in row else row for row in rows]
