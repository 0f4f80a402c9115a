"""The folder of the demo page, and a recognizer that needs no download; also for the stress tests."""

from pathlib import Path

import numpy as np

from msfser.audio_msfser import SAMPLING_RATE
from msfser.transcription_msfser import Transcription

SPACE = Path(__file__).parents[1] / "space"
SPOKEN = "the food was wonderful"


class FakeRecognizer:
    """Recognizes the same words in every sound that is loud enough."""

    def __call__(self, sounds, language=None):
        return [self._transcription(sound, SPOKEN) for sound in sounds]

    def align(self, sounds, transcripts, languages=None):
        return [self._transcription(sound, text).words for sound, text in zip(sounds, transcripts, strict=True)]

    def _transcription(self, sound, text):
        if np.abs(sound).max() < 0.001:
            return Transcription(None, [], "no speech", None)
        spellings = text.split()
        length = len(sound) / SAMPLING_RATE / len(spellings)
        words = [{"word": word, "start": i * length, "end": (i + 1) * length} for i, word in enumerate(spellings)]
        return Transcription(text, words, None, -0.1)
