"""Whisper's decoder, which reads the texts of several sounds at once, each at its own position."""

from typing import Any

import torch
from torch import nn

from .fast_products_msfser import has_amx, is_reduced, logits_of

# Of each layer, `(batch, heads, positions, size of a head)`.
KeysAndValues = list[tuple[torch.Tensor, torch.Tensor]]


def sound_keys_and_values(model: Any, states: torch.Tensor) -> KeysAndValues:
    """What a Whisper's decoder attends to in sounds.

    Args:
        model: A `WhisperForConditionalGeneration`.
        states: Of its encoder, `(batch, frames, width)`.

    Returns:
        For each layer keys and values, `(batch, heads, frames, size of a head)`.
    """
    heads = model.config.decoder_attention_heads
    return [
        (_by_head(layer.encoder_attn.k_proj, states, heads), _by_head(layer.encoder_attn.v_proj, states, heads))
        for layer in model.model.decoder.layers
    ]


class MsfSerDecoder:
    """Whisper's decoder for some sounds: it keeps what it read, so that nothing is computed twice.

    The library's decoder computes the same, but needs texts of equal length, and spends more time around each step.

    Args:
        model: A `WhisperForConditionalGeneration` in evaluation mode, whose generation config names the special tokens
            and the alignment heads.
        rows: How many sounds it reads at once.
        frames: Of the longest sound.
        tokens: Of the longest text, with its prompt.
    """

    def __init__(self, model: Any, rows: int, frames: int, tokens: int):
        # The special tokens.
        self.ids: Any = model.generation_config
        self._model, self._layers = model, model.model.decoder.layers
        config = model.config
        self._heads: int = config.decoder_attention_heads
        self._alignment_heads: dict[int, list[int]] = {}
        for layer, head in self.ids.alignment_heads:
            self._alignment_heads.setdefault(layer, []).append(head)

        size = config.d_model // self._heads

        def room(heads: int, positions: int) -> torch.Tensor:
            return torch.zeros(rows, heads, positions, size, dtype=model.dtype, device=model.device)

        def room_for_sounds() -> torch.Tensor:
            # The largest part of the memory, which `put` fills.
            return torch.empty(rows, self._heads, frames, size, dtype=_dtype_for_sounds(model), device=model.device)

        self._sound = [(room_for_sounds(), room_for_sounds()) for _ in self._layers]
        self._text = [(room(self._heads, tokens), room(self._heads, tokens)) for _ in self._layers]
        self._queries = {layer: room(len(heads), tokens) for layer, heads in self._alignment_heads.items()}
        self._frames, self._positions = [0] * rows, [0] * rows

    @property
    def rows(self) -> int:
        """How many sounds it reads at once."""
        return len(self._positions)

    @property
    def device(self) -> torch.device:
        """Device."""
        device: torch.device = self._model.device
        return device

    @property
    def vocabulary(self) -> int:
        """How many tokens there are."""
        return len(self._model.proj_out.weight)

    def put(self, row: int, sound: KeysAndValues) -> None:
        """Puts another sound in a row, which has no text then.

        The sound is of [`sound_keys_and_values`], a batch of one, with at most as many frames as the decoder has.
        """
        self._frames[row], self._positions[row] = sound[0][0].shape[2], 0
        for buffers, given in zip(self._sound, sound, strict=True):
            for of_all, of_one in zip(buffers, given, strict=True):
                of_all[row, :, : of_one.shape[2]] = of_one[0]
                of_all[row, :, of_one.shape[2] :] = 0  # as what is hidden must be finite

    def read(self, tokens: torch.Tensor) -> torch.Tensor:
        """Reads the next tokens of each row, `(rows, tokens)`.

        Returns:
            The logits of the token after each, `(rows, tokens, vocabulary)`.
        """
        decoder, count = self._model.model.decoder, tokens.shape[1]
        first, last = min(self._positions), max(self._positions)
        places = torch.tensor(self._positions, device=tokens.device)[:, None]
        places = places + torch.arange(count, device=tokens.device)
        of_text = _visible(places, last + count) if first < last or count > 1 else None
        frames, of_sound = max(self._frames), None
        if min(self._frames) < frames:
            of_sound = _visible(torch.tensor(self._frames, device=tokens.device)[:, None] - 1, frames)

        def write(buffer: torch.Tensor, by_head: torch.Tensor) -> None:
            if first == last:
                buffer[:, :, first : first + count] = by_head
            else:
                rows = torch.arange(len(tokens), device=tokens.device)[:, None]
                buffer[rows, :, places] = by_head.transpose(1, 2).to(buffer.dtype)

        x = decoder.embed_tokens(tokens) + decoder.embed_positions.weight[places]
        for index, layer in enumerate(self._layers):
            normed = layer.self_attn_layer_norm(x)
            projections = (layer.self_attn.k_proj, layer.self_attn.v_proj)
            for project, buffer in zip(projections, self._text[index], strict=True):
                write(buffer, _by_head(project, normed, self._heads))
            query = _by_head(layer.self_attn.q_proj, normed, self._heads)
            x = x + _attended(layer.self_attn, query, self._text[index], last + count, of_text)

            query = _by_head(layer.encoder_attn.q_proj, layer.encoder_attn_layer_norm(x), self._heads)
            if index in self._alignment_heads:
                write(self._queries[index], query[:, self._alignment_heads[index]])
            x = x + _attended(layer.encoder_attn, query, self._sound[index], frames, of_sound)
            x = x + layer.fc2(layer.activation_fn(layer.fc1(layer.final_layer_norm(x))))
        self._positions = [position + count for position in self._positions]
        return logits_of(decoder.layer_norm(x), self._model.proj_out.weight)

    def attention(self, row: int, first: int, count: int) -> torch.Tensor:
        """The mean attention of the alignment heads at some tokens of a row, `(count, frames)`."""
        of_layers = []
        with torch.autocast(self.device.type, enabled=False):  # as in `_attended`
            for layer, heads in self._alignment_heads.items():
                query = self._queries[layer][row, :, first : first + count].float()
                key = self._sound[layer][0][row, heads, : self._frames[row]].float()
                of_layers.append((query @ key.transpose(-1, -2) * query.shape[-1] ** -0.5).softmax(-1))
        return torch.cat(of_layers).mean(0)

    def forget(self, row: int, count: int) -> None:
        """Forgets the last tokens of a row."""
        self._positions[row] -= count

    def remove(self, row: int) -> None:
        """Removes a row; the last one is in its place then."""
        last = self.rows - 1

        def without(buffer: torch.Tensor) -> torch.Tensor:
            if row != last:
                buffer[row] = buffer[last]
            return buffer[:last]

        self._sound = [(without(keys), without(values)) for keys, values in self._sound]
        self._text = [(without(keys), without(values)) for keys, values in self._text]
        self._queries = {layer: without(queries) for layer, queries in self._queries.items()}
        for of_rows in (self._frames, self._positions):
            of_rows[row] = of_rows[last]
            of_rows.pop()


def _dtype_for_sounds(model: Any) -> torch.dtype:
    """The type in which a decoder keeps its keys and values of sounds; reading them takes most of each step.

    Where matrix products are in bfloat16, they already are, but only with AMX is attention to them faster, too.
    """
    weight = model.proj_out.weight
    return torch.bfloat16 if is_reduced(weight, weight) and has_amx() else model.dtype


def _visible(lasts: torch.Tensor, count: int) -> torch.Tensor:
    """Which of the first positions each token attends to, those up to its last one.

    `(rows, 1 or tokens)` -> `(rows, 1, 1 or tokens, count)`, bool.
    """
    return (torch.arange(count, device=lasts.device) <= lasts[..., None])[:, None]


def _attended(
    attention: Any,
    query: torch.Tensor,
    buffers: tuple[torch.Tensor, torch.Tensor],
    count: int,
    mask: torch.Tensor | None,
) -> Any:
    keys, values = (buffer[:, :, :count] for buffer in buffers)
    # In the type of the keys and values, also under autocast, which would convert those of the text.
    with torch.autocast(query.device.type, enabled=False):
        of_heads = nn.functional.scaled_dot_product_attention(query.to(keys.dtype), keys, values, mask)
    return attention.out_proj(of_heads.transpose(1, 2).flatten(2))


def _by_head(project: nn.Module, x: torch.Tensor, heads: int) -> torch.Tensor:
    return project(x).unflatten(-1, (heads, -1)).transpose(1, 2)
