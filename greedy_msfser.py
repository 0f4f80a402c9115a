"""Whisper's decoder token by token, in less time than by the library's loop, which prepares for much more."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

# Of each layer, `(batch, heads, positions, size)`.
KeysAndValues = list[tuple[torch.Tensor, torch.Tensor]]
# Guessed tokens are tried so many at a time.
_TRIED = 8


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
        model: A `WhisperForConditionalGeneration` in evaluation mode, whose generation config names the end, the
            tokens that are suppressed, and the alignment heads.
        sound: Of [`sound_keys_and_values`].
    """

    def __init__(self, model: Any, sound: KeysAndValues):
        self._model, self._layers, self._ids = model, model.model.decoder.layers, model.generation_config
        self._heads: int = model.config.decoder_attention_heads
        self._sound = sound
        self._text: list[tuple[torch.Tensor, torch.Tensor]] = []
        self._alignment: dict[int, list[int]] = {}
        for layer, head in self._ids.alignment_heads:
            self._alignment.setdefault(layer, []).append(head)
        self._states: list[torch.Tensor] = []
        self._attention: list[torch.Tensor] = []

    @property
    def states(self) -> torch.Tensor:
        """The normalized states after each token, `(batch, tokens, size)`."""
        return torch.cat(self._states, dim=1)

    @property
    def attention(self) -> torch.Tensor:
        """The mean attention of the alignment heads at each token, `(batch, tokens, frames)`."""
        return torch.cat(self._attention, dim=1)

    def read(self, tokens: torch.Tensor) -> torch.Tensor:
        """Reads the next tokens, `(batch, tokens)`, and returns the states after them, `(batch, tokens, size)`."""
        decoder, position = self._model.model.decoder, sum(states.shape[1] for states in self._states)
        end = position + tokens.shape[1]
        x = decoder.embed_tokens(tokens) + decoder.embed_positions.weight[position:end]
        visible = torch.ones(tokens.shape[1], end, dtype=torch.bool, device=x.device).tril(position)
        text, of_alignment = [], []
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
            key, value = of_sound
            if index in self._alignment:
                chosen = self._alignment[index]
                scores = query[:, chosen] @ key[:, chosen].transpose(-1, -2) * query.shape[-1] ** -0.5
                of_alignment.append(scores.softmax(-1))
            x = x + _joined(layer.encoder_attn, nn.functional.scaled_dot_product_attention(query, key, value))
            x = x + layer.fc2(layer.activation_fn(layer.fc1(layer.final_layer_norm(x))))
        self._text = text
        self._states.append(decoder.layer_norm(x))
        self._attention.append(torch.cat(of_alignment, dim=1).mean(1))
        return self._states[-1]

    def forget(self, count: int) -> None:
        """Forgets the last tokens, fewer than were read last."""
        if count:
            self._text = [(key[:, :, :-count], value[:, :, :-count]) for key, value in self._text]
            self._states[-1], self._attention[-1] = self._states[-1][:, :-count], self._attention[-1][:, :-count]

    def most_probable_tokens(self, prompts: torch.Tensor, most: int, guess: Sequence[int] = ()) -> list[list[int]]:
        """Reads the prompts, and the most probable next token until each text ends, as the library's greedy search.

        Args:
            prompts: `(batch, tokens)`, of equal length.
            most: How many tokens a text has at most.
            guess: Tokens that the text of a single sound may have in this order, as that of a sound that overlaps it.
                Those that turn out to be the most probable ones are read at once, which takes less time.

        Returns:
            The tokens of each text without prompt and end. All of them were read.
        """
        end = self._ids.eos_token_id
        suppressed = self._suppressed(self._ids.begin_suppress_tokens), self._suppressed()
        found: list[list[int]] = [[] for _ in prompts]
        is_ended = torch.zeros(len(prompts), dtype=torch.bool, device=prompts.device)
        following = _Following(guess if len(prompts) == 1 else ())
        tried = following.tried(most - 1)
        states = self.read(torch.cat([prompts, prompts.new_tensor([tried])], dim=1) if tried else prompts)
        while len(found[0]) < most:
            logits = self._model.proj_out(states[:, -1 - len(tried) :])
            logits[:, 0] += suppressed[bool(found[0])]
            logits[:, 1:] += suppressed[1]
            next_tokens = logits.argmax(-1)
            right = 0
            while right < len(tried) and next_tokens[0, right] == tried[right]:
                right += 1
            self.forget(len(tried) - right)
            tokens = next_tokens[:, right : right + 1].masked_fill(is_ended[:, None], end)
            is_ended = is_ended | (tokens[:, 0] == end)
            for row, token in zip(found, tokens[:, 0].tolist(), strict=True):
                row += [*tried[:right], token]
            if is_ended.all():
                break
            following.add(right, found[0][-1])
            tried = following.tried(most - len(found[0]) - 1)
            states = self.read(torch.cat([tokens, tokens.new_tensor([tried])], dim=1) if tried else tokens)
        return [row[: row.index(end)] if end in row else row for row in found]

    def _suppressed(self, others: Sequence[int] | None = None) -> torch.Tensor:
        """What is added to the logits, `(vocabulary,)`."""
        weight = self._model.proj_out.weight
        suppressed = torch.zeros(len(weight), device=weight.device, dtype=weight.dtype)
        suppressed[[*(self._ids.suppress_tokens or []), *(others or [])]] = -torch.inf
        return suppressed


class _Following:
    """Where a text is in the guess of its tokens.

    Args:
        guess: The tokens.
    """

    def __init__(self, guess: Sequence[int]):
        self._guess, self._next, self._is_lost = list(guess), 0, False

    def tried(self, most: int) -> list[int]:
        """The next tokens by the guess, at most so many; none where the text has left it."""
        return [] if self._is_lost else self._guess[self._next : self._next + max(0, min(_TRIED, most))]

    def add(self, right: int, token: int) -> None:
        """Goes on by so many right guesses and another token: where the guess has it nearby, or in place of one."""
        self._next += right
        places = [place for place, guessed in enumerate(self._guess) if guessed == token]
        self._is_lost = not places and not right and self._next > 0
        if not self._is_lost:
            self._next = 1 + min(places, key=lambda place: abs(place - self._next), default=self._next)


def _by_head(project: nn.Module, x: torch.Tensor, heads: int) -> torch.Tensor:
    return project(x).unflatten(-1, (heads, -1)).transpose(1, 2)


def _joined(attention: Any, of_heads: torch.Tensor) -> torch.Tensor:
    return attention.out_proj(of_heads.transpose(1, 2).flatten(2))
