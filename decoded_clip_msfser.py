"""What the decoder made of a clip, and whether that is speech, or a loop."""

import itertools
import math
from dataclasses import dataclass

import numpy as np

from .greedy_msfser import DecodedText, period_of
from .word_times_msfser import FRAME, monotonic_starts

# Chosen on a third of the clips of `benchmarks/recognition.py`, see `MsfSerRecognizer`.
_MOST_NO_SPEECH = 0.5
_LEAST_LOG_PROBABILITY = -1.3
# A text loops if its end is there so often, over so many tokens, and less of the attention lies on their own frames.
_LOOP_TIMES, _LOOP_TOKENS = 2, 8
_LEAST_FOCUS = 0.35
# In frames of 20 ms: median over the training part of the probe corpus.
_LAG_FRAMES = 4


@dataclass(frozen=True)
class DecodedClip:
    """The decoder's output for a clip of at most 30 s."""

    tokens: list[int]
    language: str
    no_speech: float  # probability that there is none
    log_probability: float  # mean over the tokens and the end
    entropy: float  # of what the decoder expected there, in nats: median over the tokens and the end
    focus: float  # share of the attention that lies on each token's own frames
    starts: list[int]  # the frame at which each token starts, and that at which the last one ends

    @classmethod
    def from_text(cls, text: DecodedText, samples: int, language: str | None) -> "DecodedClip":
        """The text of a clip of so many samples, with the frames of its tokens; without a language it is English."""
        frames = max(1, math.ceil(samples / FRAME))
        weights = text.attention[:, :frames].cpu().double().numpy()
        weights = weights / weights.sum(1, keepdims=True)
        starts = monotonic_starts(weights)
        edges = itertools.pairwise([*starts, frames])
        inside = [weights[k, slice(*edge)].sum() for k, edge in zip(range(len(text.tokens)), edges, strict=False)]
        return cls(
            tokens=text.tokens,
            language=language or "en",
            no_speech=text.no_speech,
            log_probability=float(np.mean(text.log_probabilities)),
            entropy=float(np.median(text.entropies)),
            starts=[max(0, start - _LAG_FRAMES) for start in starts],
            focus=float(np.mean(inside or [0.0])),
        )

    @property
    def is_speech(self) -> bool:
        """Whether the decoder believes that somebody speaks."""
        return self.no_speech < _MOST_NO_SPEECH and self.log_probability > _LEAST_LOG_PROBABILITY

    @property
    def period(self) -> int | None:
        """After how many tokens the end of the text repeats while the attention is scattered; `None` if it does not.

        Such a text is a loop of the decoder, or speech that says the same several times.
        """
        return None if self.focus >= _LEAST_FOCUS else period_of(self.tokens, _LOOP_TIMES, _LOOP_TOKENS)

    @property
    def loops(self) -> bool:
        """Whether the text has a [`period`]."""
        return self.period is not None
