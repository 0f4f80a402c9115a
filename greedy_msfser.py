"""The most probable texts of sounds, token by token, and what the decoder expected of them."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch

from .decoder_msfser import KeysAndValues, MsfSerDecoder

# Guessed tokens are tried so many at a time.
_TRIED = 8
# A text may be a loop if its end repeats so often, over so many tokens. It is looked at whenever its length is a
# multiple of the last number, also if tokens were guessed.
_REPEATED_TIMES, _REPEATED_TOKENS, _LOOK_AFTER = 3, 24, 8


@dataclass(frozen=True)
class SoundToRead:
    """A sound whose text is read."""

    sound: KeysAndValues  # of [`sound_keys_and_values`], of one sound
    prompt: list[int]
    most: int  # tokens of the text


@dataclass(frozen=True)
class DecodedText:
    """A text, and what the decoder expected of it: at each of its tokens, and at its end."""

    tokens: list[int]  # without prompt and end
    no_speech: float  # probability that there is none
    log_probabilities: list[float]  # natural, of each token and of the end; of a text that was stopped, without it
    entropies: list[float]  # of what was expected there, in nats
    attention: torch.Tensor  # mean of the alignment heads there, `(tokens + 1, frames)`


def most_probable_texts(
    decoder: MsfSerDecoder,
    sounds: Iterable[SoundToRead],
    is_loop: Callable[[int, DecodedText], bool] = lambda item, text: False,
    guess: Sequence[int] = (),
) -> list[DecodedText]:
    """Reads the most probable next token until each text ends, as the library's greedy search.

    A sound whose text has ended is replaced by the next one, so that as many are read at once as the decoder has rows:
    most of the time goes into its weights. Special tokens, such as times, are never chosen.

    Args:
        decoder: It has read nothing, and has no more rows than there are sounds.
        sounds: None is asked for before a row is free.
        is_loop: Whether the text so far of the sound with this number is a loop, which will not end; it is asked only
            about texts whose end repeats, and those are stopped.
        guess: Tokens that the text of a single sound may have in this order, as that of a sound that overlaps it.
            Those that turn out to be the most probable ones are read at once, which takes less time.
    """
    queue, end = enumerate(sounds), int(decoder.ids.eos_token_id)
    texts: list[_Text] = []
    for row, (item, sound) in zip(range(decoder.rows), queue, strict=False):
        decoder.put(row, sound.sound)
        texts.append(_Text(item, sound, end, guess if decoder.rows == 1 else ()))
    suppressed = _suppressed(decoder)
    finished: dict[int, DecodedText] = {}
    while texts:
        count = min(len(text.unread) for text in texts)
        steps = _read(decoder, texts, count, suppressed)
        # Backwards, as the last row takes the place of one that is removed.
        for row in reversed(range(len(texts))):
            text = texts[row]
            decoder.forget(row, count - text.go_on(steps[row]))
            if not text.is_ended and not text.repeats:
                continue
            decoded = text.decoded(decoder, row)
            if not text.is_ended and not is_loop(text.item, decoded):
                continue
            finished[text.item] = decoded
            if (following := next(queue, None)) is not None:
                decoder.put(row, following[1].sound)
                texts[row] = _Text(*following, end)
            else:
                decoder.remove(row)
                texts[row] = texts[-1]
                texts.pop()
    return [finished[item] for item in sorted(finished)]


def given_text(decoder: MsfSerDecoder, sound: SoundToRead, tokens: Sequence[int]) -> DecodedText:
    """Reads the tokens of a text.

    Args:
        decoder: It has one row.
        sound: The sound.
        tokens: Of the text, without prompt and end; there may be none.
    """
    decoder.put(0, sound.sound)
    first, end = len(sound.prompt) - 1, int(decoder.ids.eos_token_id)
    logits = decoder.read(torch.tensor([[*sound.prompt, *tokens]], device=decoder.device))[0]
    normalizers, entropies = _certainty(logits)
    of_tokens = logits[range(first, len(logits)), [*tokens, end]] - normalizers[first:]
    return DecodedText(
        tokens=list(tokens),
        no_speech=float((logits[0, _no_speech_token(decoder)] - normalizers[0]).exp()),
        log_probabilities=of_tokens.tolist(),
        entropies=entropies[first:].tolist(),
        attention=decoder.attention(0, first, len(tokens) + 1),
    )


@dataclass(frozen=True)
class _Step:
    """What follows a token, with natural log probabilities."""

    token: int  # the most probable one that is allowed
    log_probability: float
    log_probability_of_end: float
    entropy: float
    no_speech: float  # probability of the token for it


class _Text:
    """A text as it grows.

    Args:
        item: Its number.
        sound: Its sound.
        end: The token that ends it.
        guess: As in [`most_probable_texts`].
    """

    def __init__(self, item: int, sound: SoundToRead, end: int, guess: Sequence[int] = ()):
        self.item, self.is_ended, self._end, self._most = item, False, end, sound.most
        self._prompt = len(sound.prompt)
        self._following = _Following(guess)
        self._tokens: list[int] = []
        self._steps: list[_Step] = []
        self.unread = [*sound.prompt, *self._following.tried(sound.most)]

    @property
    def first(self) -> int:
        """The index in `unread` of the token that the text follows; negative if it was read."""
        return self._prompt - 1 - len(self._steps)

    @property
    def repeats(self) -> bool:
        """Whether the end of the text repeats, and it is time to look."""
        return self._is_time_to_look and period_of(self._tokens, _REPEATED_TIMES, _REPEATED_TOKENS) is not None

    @property
    def _is_time_to_look(self) -> bool:
        return len(self._tokens) >= _REPEATED_TOKENS and len(self._tokens) % _LOOK_AFTER == 0

    def go_on(self, steps: Sequence[_Step]) -> int:
        """Goes on by what follows each of the next unread tokens.

        Returns:
            How many of them were right.
        """
        read, self.unread = self.unread[: len(steps)], self.unread[len(steps) :]
        guessed = 0
        for index, step in enumerate(steps):
            self._steps.append(step)
            if len(self._steps) < self._prompt:
                continue
            self.is_ended = step.token == self._end or len(self._tokens) == self._most
            if self.is_ended:
                return index + 1
            self._tokens.append(step.token)
            if read[index + 1 : index + 2] != [step.token] or self._is_time_to_look:
                self._following.add(guessed, step.token)
                self.unread = [step.token, *self._following.tried(self._most - len(self._tokens))]
                return index + 1
            guessed += 1
        return len(steps)

    def decoded(self, decoder: MsfSerDecoder, row: int) -> DecodedText:
        """The text as far as it was read; it is in a row of the decoder."""
        first = self._prompt - 1
        steps = self._steps[first:]
        log_probabilities = [step.log_probability for step in steps[:-1]]
        if self.is_ended:
            log_probabilities.append(steps[-1].log_probability_of_end)
        return DecodedText(
            tokens=self._tokens[: len(steps) - 1],
            no_speech=self._steps[0].no_speech,
            log_probabilities=log_probabilities,
            entropies=[step.entropy for step in steps[: len(log_probabilities)]],
            # The position before a token is the one that attends to its sound.
            attention=decoder.attention(row, first, len(steps)),
        )


def period_of(tokens: Sequence[int], times: int, least: int) -> int | None:
    """After how many tokens the end of a text repeats, at least so many times and over so many tokens."""
    for period in range(1, len(tokens) // times + 1):
        length = max(times * period, least)
        if length <= len(tokens) and tokens[-length:-period] == tokens[period - length :]:
            return period
    return None


class _Following:
    """Where a text is in the guess of its tokens.

    Args:
        guess: The tokens.
    """

    def __init__(self, guess: Sequence[int]):
        self._guess, self._next, self._is_lost = list(guess), 0, False

    def tried(self, most: int) -> list[int]:
        """The next tokens by the guess, at most so many; none where the text has left it."""
        return [] if self._is_lost else self._guess[self._next : self._next + min(_TRIED, most)]

    def add(self, right: int, token: int) -> None:
        """Goes on by so many right guesses and another token: where the guess has it nearby, or in place of one."""
        self._next += right
        places = [place for place, guessed in enumerate(self._guess) if guessed == token]
        self._is_lost = not places and not right and self._next > 0
        if not self._is_lost:
            self._next = 1 + min(places, key=lambda place: abs(place - self._next), default=self._next)


def _suppressed(decoder: MsfSerDecoder) -> torch.Tensor:
    """Which tokens are never chosen, `(vocabulary,)`, bool."""
    ids = decoder.ids
    suppressed = torch.zeros(decoder.vocabulary, dtype=torch.bool, device=decoder.device)
    suppressed[ids.suppress_tokens or []] = True
    # In Whisper's vocabulary the special tokens follow the end.
    suppressed[ids.eos_token_id + 1 :] = True
    return suppressed


def _read(decoder: MsfSerDecoder, texts: Sequence[_Text], count: int, suppressed: torch.Tensor) -> list[list[_Step]]:
    """Reads so many tokens of each text."""
    ids = decoder.ids
    logits = decoder.read(torch.tensor([text.unread[:count] for text in texts], device=decoder.device))
    normalizers, entropies = _certainty(logits)
    of_end, of_no_speech = (
        logits[..., token] - normalizers for token in (ids.eos_token_id, _no_speech_token(decoder))
    )
    allowed = logits.masked_fill_(suppressed, -torch.inf)
    for row, text in enumerate(texts):
        if 0 <= text.first < count:
            allowed[row, text.first, ids.begin_suppress_tokens or []] = -torch.inf
    greatest, tokens = allowed.max(-1)
    steps = (tokens, greatest - normalizers, of_end, entropies, of_no_speech.exp())
    return [
        [_Step(*step) for step in zip(*row, strict=True)]
        for row in zip(*(part.tolist() for part in steps), strict=True)
    ]


def _no_speech_token(decoder: MsfSerDecoder) -> int:
    # As in Whisper's own code: the token for no speech precedes the one for no timestamps.
    return int(decoder.ids.no_timestamps_token_id) - 1


def _certainty(logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """From logits `(..., vocabulary)` what is subtracted from them for natural log probabilities, and the entropies.

    The entropies are in nats, and both are `(...)`.
    """
    if logits.device.type == "cpu" and logits.dim() > 1:
        # Row by row, as a row fits into the cache: in a batch these passes take as long as the decoder's layers.
        normalizers, entropies = zip(*map(_certainty, logits), strict=True)
        return torch.stack(normalizers), torch.stack(entropies)
    probabilities = logits.softmax(-1)
    normalizer = logits.amax(-1) - probabilities.amax(-1).log()
    with torch.autocast(logits.device.type, enabled=False):  # under which the products would be in bfloat16
        return normalizer, normalizer - torch.linalg.vecdot(probabilities, logits)
