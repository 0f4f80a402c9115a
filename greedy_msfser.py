"""The most probable texts of sounds, token by token, and what the decoder expected of them."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from .decoder_msfser import MsfSerDecoder

# Guessed tokens are tried so many at a time.
_TRIED = 8


@dataclass(frozen=True)
class DecodedText:
    """A text, and what the decoder expected of it: at each of its tokens, and at its end."""

    tokens: list[int]  # without prompt and end
    no_speech: float  # probability that there is none
    log_probabilities: torch.Tensor  # natural, of each token and of the end, `(tokens + 1,)`
    entropies: torch.Tensor  # of what was expected there, in nats, `(tokens + 1,)`
    attention: torch.Tensor  # mean of the alignment heads there, `(tokens + 1, frames)`


def most_probable_texts(
    decoder: MsfSerDecoder, prompts: torch.Tensor, most: Sequence[int], guess: Sequence[int] = ()
) -> list[DecodedText]:
    """Reads the prompts, and the most probable next token until each text ends, as the library's greedy search.

    Args:
        decoder: It has read nothing.
        prompts: `(batch, tokens)`, of equal length.
        most: How many tokens each text has at most.
        guess: Tokens that the text of a single sound may have in this order, as that of a sound that overlaps it.
            Those that turn out to be the most probable ones are read at once, which takes less time.
    """
    first = prompts.shape[1] - 1
    following = _Following(guess if len(prompts) == 1 else ())
    tried = following.tried(most[0] - 1)
    states = decoder.read(_followed_by(prompts, tried))
    logits = decoder.logits(torch.cat([states[:, :1], states[:, first:]], dim=1))
    texts, logits = _Texts(decoder, first, logits[:, 0], most), logits[:, 1:]
    suppressed = _suppressed(decoder, logits, *(decoder.ids.begin_suppress_tokens or []))
    while True:
        next_tokens = (logits + suppressed).argmax(-1)
        right = 0
        while right < len(tried) and next_tokens[0, right] == tried[right]:
            right += 1
        decoder.forget(len(tried) - right)
        last = texts.add(next_tokens[:, : right + 1], logits[:, : right + 1])
        if not len(last):
            return texts.finished()
        following.add(right, int(last[0, 0]))
        tried = following.tried(most[0] - texts.length - 1)
        logits = decoder.logits(decoder.read(_followed_by(last, tried)))
        suppressed = _suppressed(decoder, logits)


def given_texts(decoder: MsfSerDecoder, prompts: torch.Tensor, texts: Sequence[list[int]]) -> list[DecodedText]:
    """Reads the prompts, `(batch, tokens)` of equal length, and the tokens of texts; nothing was read before."""
    end, first = decoder.ids.eos_token_id, prompts.shape[1] - 1
    longest = max(map(len, texts))
    padded = prompts.new_tensor([[*text, *[end] * (longest - len(text))] for text in texts])
    states = decoder.read(torch.cat([prompts, padded], dim=1))
    no_speech = _no_speech(decoder, decoder.logits(states[:, 0]))
    decoded = []
    for row, text in enumerate(texts):
        # One by one: the logits of a batch of long texts would fill the memory.
        logits = decoder.logits(states[row, first : first + len(text) + 1])
        expected = _expectation(logits, prompts.new_tensor([*text, end]))
        attention = decoder.attention(row, first, len(text) + 1)
        decoded.append(DecodedText(list(text), float(no_speech[row]), *expected, attention))
    return decoded


class _Texts:
    """The texts of a batch as they grow.

    Those that have ended are left out as soon as half of the batch has, so that none waits long for a longer one.

    Args:
        decoder: It has read the prompts.
        first: The last position of the prompts.
        start: The logits at the start, `(batch, vocabulary)`.
        most: How many tokens each text has at most.
    """

    def __init__(self, decoder: MsfSerDecoder, first: int, start: torch.Tensor, most: Sequence[int]):
        self._decoder, self._first, self._end = decoder, first, int(decoder.ids.eos_token_id)
        self._no_speech = _no_speech(decoder, start)
        self._limits = torch.tensor(most, device=start.device)
        self._is_ended = torch.zeros_like(self._limits, dtype=torch.bool)
        self._items = torch.arange(len(most), device=start.device)
        # Tokens, log probabilities and entropies, `(rows, tokens)` each.
        self._read: list[tuple[torch.Tensor, ...]] = []
        self._finished: dict[int, DecodedText] = {}
        self.length = 0

    def add(self, tokens: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
        """Adds the next tokens, `(rows, tokens)`, which were chosen by the logits, `(rows, tokens, vocabulary)`.

        Returns:
            The last token of each text that goes on, `(rows, 1)`.
        """
        self.length += tokens.shape[1]
        last = tokens[:, -1].masked_fill(self._is_ended | (self._limits < self.length), self._end)
        tokens = torch.cat([tokens[:, :-1], last[:, None]], dim=1)
        self._read.append((tokens, *_expectation(logits, tokens)))
        self._is_ended = self._is_ended | (last == self._end)
        if 2 * int(self._is_ended.sum()) < len(last):
            return last[:, None]
        self._finish()
        left = (~self._is_ended).nonzero()[:, 0]
        self._decoder.keep(left)
        self._read = [tuple(tensor[left] for tensor in part) for part in self._read]
        self._no_speech, self._limits, self._items, self._is_ended = (
            tensor[left] for tensor in (self._no_speech, self._limits, self._items, self._is_ended)
        )
        return last[left, None]

    def finished(self) -> list[DecodedText]:
        """The texts in order, after all have ended."""
        return [self._finished[item] for item in sorted(self._finished)]

    def _finish(self) -> None:
        tokens, log_probabilities, entropies = (torch.cat(parts, dim=1) for parts in zip(*self._read, strict=True))
        for row, (item, is_ended, text) in enumerate(
            zip(self._items.tolist(), self._is_ended.tolist(), tokens.tolist(), strict=True)
        ):
            if is_ended:
                length = text.index(self._end)
                self._finished[item] = DecodedText(
                    tokens=text[:length],
                    no_speech=float(self._no_speech[row]),
                    log_probabilities=log_probabilities[row, : length + 1],
                    entropies=entropies[row, : length + 1],
                    # The position before a token is the one that attends to its sound.
                    attention=self._decoder.attention(row, self._first, length + 1),
                )


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


def _followed_by(tokens: torch.Tensor, others: list[int]) -> torch.Tensor:
    return torch.cat([tokens, tokens.new_tensor([others])], dim=1) if others else tokens


def _suppressed(decoder: MsfSerDecoder, logits: torch.Tensor, *at_first: int) -> torch.Tensor:
    """What is added to logits, `(tokens, vocabulary)`; some tokens are suppressed at the first position only."""
    suppressed = logits.new_zeros(logits.shape[1:])
    suppressed[:, decoder.ids.suppress_tokens or []] = -torch.inf
    suppressed[0, list(at_first)] = -torch.inf
    return suppressed


def _no_speech(decoder: MsfSerDecoder, logits: torch.Tensor) -> torch.Tensor:
    """The probability that there is no speech, `(batch,)`, from the logits at the start, `(batch, vocabulary)`."""
    # As in Whisper's own code, the token for no speech precedes the one for no timestamps.
    return logits.softmax(-1)[:, decoder.ids.no_timestamps_token_id - 1]


def _expectation(logits: torch.Tensor, tokens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The log probabilities of tokens `(...)` and the entropies in nats, from logits `(..., vocabulary)`."""
    log_probabilities = logits.log_softmax(-1)
    entropies = -(log_probabilities.exp() * log_probabilities).sum(-1)
    return log_probabilities.gather(-1, tokens[..., None]).squeeze(-1), entropies
