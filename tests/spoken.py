"""A recognizer without weights, and sounds of voices, for the tests of the pipeline."""

import numpy as np

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


# First and second formant of some vowels, in Hz, and how many of them are spoken a second.
_FORMANTS, _RATE = np.array([(800, 1200), (300, 2300), (500, 1800), (350, 800), (600, 1000)]), 5.0


def voice(seconds: float, seed: int = 0, rate: int = RATE) -> np.ndarray:
    """Vowels with a pitch, which count as speech, and in which emphasis and description can be measured."""
    time = np.arange(int(rate * seconds)) / rate
    pitch = 120 + 40 * np.sin(2 * np.pi * 0.7 * time + seed)
    syllables = np.arange(int(seconds * _RATE) + 2)
    first, second = (np.interp(time * _RATE, syllables + 0.5, f) for f in _FORMANTS[(syllables + seed) % 5].T)
    phase, sound = 2 * np.pi * np.cumsum(pitch) / rate, np.zeros(len(time))
    for k in range(1, 31):
        size = 1 / (1 + ((k * pitch - first) / 120) ** 2) + 0.4 / (1 + ((k * pitch - second) / 200) ** 2)
        sound += size * np.sin(k * phase)
    sound *= np.clip(1.5 * np.sin(np.pi * _RATE * time) ** 2, 0.02, 1)
    return (0.1 * sound + 0.005 * np.random.default_rng(seed).standard_normal(len(time))).astype(np.float32)


def tone(seconds: float, hertz: float = 220.0) -> np.ndarray:
    """A steady tone, as of an organ."""
    time = np.arange(int(RATE * seconds)) / RATE
    return (0.1 * sum(np.sin(2 * np.pi * hertz * k * time) / k for k in range(1, 6))).astype(np.float32)


def syllables(sound: np.ndarray) -> np.ndarray:
    """A sound whose level rises and falls four times a second."""
    time = np.arange(len(sound)) / RATE
    return (sound * (0.6 + 0.4 * np.sin(2 * np.pi * 4 * time))).astype(np.float32)
