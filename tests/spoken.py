"""A recognizer without weights, and sounds with a pitch, for the tests of the pipeline."""

import numpy as np
from tiny import noise

from msfser.annotator_msfser import NO_SPEECH
from msfser.transcription_msfser import Transcription

RATE = 16_000
SPOKEN = ["the", "food,", "was", "wonderful", "but", "dreadful."]


class Recognizer:
    """Recognizes a word per second wherever the sound is louder than `LOUD`, and nothing elsewhere."""

    LOUD = 0.01
    english_only = True

    def __init__(self):
        self.calls = []

    def __call__(self, sounds, language=None):
        self.calls.append((len(sounds), language))
        return [self.transcription(self.words(sound)) for sound in sounds]

    def transcription(self, words):
        if not words:
            return Transcription(None, [], NO_SPEECH, None)
        return Transcription(" ".join(word["word"] for word in words), words, None, -0.1)

    def words(self, sound):
        seconds = np.flatnonzero([np.abs(sound[i : i + RATE]).mean() > self.LOUD for i in range(0, len(sound), RATE)])
        return [
            {"word": SPOKEN[second % len(SPOKEN)], "start": float(second), "end": min(second + 0.8, len(sound) / RATE)}
            for second in seconds
        ]

    def align(self, sounds, transcripts, languages=None):
        if any("?" in text for text in transcripts):
            raise ValueError("too long")
        return [
            [{"word": word, "start": i, "end": i + 0.5} for i, word in enumerate(text.split())] for text in transcripts
        ]


def voice(seconds: float, seed: int = 0) -> np.ndarray:
    """A buzz with a pitch, in which emphasis and description can be measured."""
    time = np.arange(int(RATE * seconds)) / RATE
    pitch = 120 + 40 * np.sin(2 * np.pi * 0.7 * time + seed)
    buzz = sum(np.sin(2 * np.pi * k * np.cumsum(pitch) / RATE) / k for k in range(1, 9))
    return (0.1 * buzz + 0.05 * noise(seconds, seed)).astype(np.float32)


def syllables(sound: np.ndarray) -> np.ndarray:
    """A sound whose level rises and falls four times a second."""
    time = np.arange(len(sound)) / RATE
    return (sound * (0.6 + 0.4 * np.sin(2 * np.pi * 4 * time))).astype(np.float32)
