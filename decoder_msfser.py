"""Whisper's decoder, which reads tokens in less time than the library's, as it prepares for less."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

# Of each layer, `(batch, heads, positions, size)`.
KeysAndValues = list[tuple[torch.Tensor, torch.Tensor]]


def sound_keys_and_values(model: Any, states: torch.Tensor) -> KeysAndValues:
    """What a Whisper's decoder attends to in a sound.

    Args:
        model: A `WhisperForConditionalGeneration`.
        states: Of its encoder, `(batch, frames, size)`.
    """
    heads = model.config.decoder_attention_heads
    return [
        (_by_head(layer.encoder_attn.k_proj, states, heads), _by_head(layer.encoder_attn.v_proj, states, heads))
        for layer in model.model.decoder.layers
    ]


class MsfSerDecoder:
    """Whisper's decoder for some sounds: it keeps what it read, so that nothing is computed twice.

    Args:
        model: A `WhisperForConditionalGeneration` in evaluation mode, whose generation config names the special tokens
            and the alignment heads.
        sounds: Of [`sound_keys_and_values`]; each may have several sounds of equal length.
    """

    def __init__(self, model: Any, *sounds: KeysAndValues):
        self.ids: Any = model.generation_config
        self._model, self._layers = model, model.model.decoder.layers
        self._heads: int = model.config.decoder_attention_heads
        self._sound, self._bias = _padded(sounds)
        self._text: list[tuple[torch.Tensor, torch.Tensor]] = []
        self._alignment_heads: dict[int, list[int]] = {}
        for layer, head in self.ids.alignment_heads:
            self._alignment_heads.setdefault(layer, []).append(head)
        self._queries: dict[int, list[torch.Tensor]] = {layer: [] for layer in self._alignment_heads}
        self._position = 0

    def read(self, tokens: torch.Tensor) -> torch.Tensor:
        """Reads the next tokens, `(batch, tokens)`, and returns the states after them, `(batch, tokens, size)`."""
        decoder, position = self._model.model.decoder, self._position
        end = position + tokens.shape[1]
        x = decoder.embed_tokens(tokens) + decoder.embed_positions.weight[position:end]
        visible = torch.ones(tokens.shape[1], end, dtype=torch.bool, device=x.device).tril(position)
        text = []
        for index, (layer, of_sound) in enumerate(zip(self._layers, self._sound, strict=True)):
            normed = layer.self_attn_layer_norm(x)
            projections = (layer.self_attn.k_proj, layer.self_attn.v_proj)
            key, value = (_by_head(project, normed, self._heads) for project in projections)
            if position:
                key, value = (torch.cat(pair, dim=2) for pair in zip(self._text[index], (key, value), strict=True))
            text.append((key, value))
            query = _by_head(layer.self_attn.q_proj, normed, self._heads)
            mask = visible if tokens.shape[1] > 1 else None
            x = x + _joined(layer.self_attn, nn.functional.scaled_dot_product_attention(query, key, value, mask))

            query = _by_head(layer.encoder_attn.q_proj, layer.encoder_attn_layer_norm(x), self._heads)
            if index in self._alignment_heads:
                self._queries[index].append(query[:, self._alignment_heads[index]])
            attended = nn.functional.scaled_dot_product_attention(query, *of_sound, self._bias)
            x = x + _joined(layer.encoder_attn, attended)
            x = x + layer.fc2(layer.activation_fn(layer.fc1(layer.final_layer_norm(x))))
        self._text, self._position = text, end
        return decoder.layer_norm(x)

    def logits(self, states: torch.Tensor) -> torch.Tensor:
        """What follows the states `(..., size)`: `(..., vocabulary)`."""
        logits: torch.Tensor = self._model.proj_out(states)
        return logits

    def attention(self, row: int, first: int, count: int) -> torch.Tensor:
        """The mean attention of the alignment heads at some tokens of one text, `(count, frames)`."""
        of_layers = []
        for layer, heads in self._alignment_heads.items():
            query = torch.cat([part[row] for part in self._queries[layer]], dim=1)[:, first : first + count]
            scores = query @ self._sound[layer][0][row, heads].transpose(-1, -2) * query.shape[-1] ** -0.5
            of_layers.append((scores if self._bias is None else scores + self._bias[row]).softmax(-1))
        return torch.cat(of_layers).mean(0)

    def forget(self, count: int) -> None:
        """Forgets the last tokens, fewer than were read last."""
        if count:
            self._text = [(key[:, :, :-count], value[:, :, :-count]) for key, value in self._text]
            for parts in self._queries.values():
                parts[-1] = parts[-1][:, :, :-count]
            self._position -= count

    def keep(self, rows: torch.Tensor) -> None:
        """Keeps these sounds and their texts, in this order."""
        self._sound = [(key[rows], value[rows]) for key, value in self._sound]
        self._text = [(key[rows], value[rows]) for key, value in self._text]
        self._queries = {layer: [part[rows] for part in parts] for layer, parts in self._queries.items()}
        self._bias = None if self._bias is None else self._bias[rows]


def _padded(sounds: Sequence[KeysAndValues]) -> tuple[KeysAndValues, torch.Tensor | None]:
    """Sounds of different lengths as a batch, and what is added to the attention's scores, `(batch, 1, 1, frames)`."""
    if len(sounds) == 1:
        return sounds[0], None
    frames = [sound[0][0].shape[2] for sound in sounds]

    def joined(parts: Sequence[torch.Tensor]) -> torch.Tensor:
        return torch.cat([nn.functional.pad(part, (0, 0, 0, max(frames) - part.shape[2])) for part in parts])

    together = [
        (joined([keys for keys, _ in layer]), joined([values for _, values in layer]))
        for layer in zip(*sounds, strict=True)
    ]
    lengths = torch.tensor([count for sound, count in zip(sounds, frames, strict=True) for _ in sound[0][0]])
    is_padding = torch.arange(max(frames)) >= lengths[:, None]
    bias = torch.zeros(is_padding.shape).masked_fill(is_padding, -torch.inf)
    return together, bias[:, None, None].to(together[0][0])


def _by_head(project: nn.Module, x: torch.Tensor, heads: int) -> torch.Tensor:
    return project(x).unflatten(-1, (heads, -1)).transpose(1, 2)


def _joined(attention: Any, of_heads: torch.Tensor) -> torch.Tensor:
    return attention.out_proj(of_heads.transpose(1, 2).flatten(2))
