"""Makes the examples of the demo page: synthetic speech by espeak-ng.

python space/examples.py
"""

from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import soxr

from msfser.corpora.probe.synthesizer import Synthesizer

RATE = 16_000
FOLDER = Path(__file__).parent / "examples"
STRESS = '<prosody rate="65%" pitch="+40" volume="+100%">{}</prosody>'
# With the one above, the recognizer adds a word to the end of the sentence.
LAST_STRESS = '<prosody rate="65%" pitch="+50">{}.</prosody>'
OPENING = "It was a merry lucky morning."
CLAUSES = "The food was {} but the service was {}"
SENTENCES = {
    "thanks": "Thank you so much, what a wonderful evening!",
    "sorry": "I am so sorry, what a terrible evening!",
    # Single words of these two say the opposite of the whole.
    "not_bad": "That was not bad at all, I cannot complain.",
    "irony": "Oh great, another wonderful delay.",
}
REST = "We sat by the window, and the train came in at noon."


def speak(
    engine: Synthesizer, text: str, *, rate: int, pitch: int, level: float, voice: str = "en-us+m3"
) -> np.ndarray:
    """Synthesizes a text, `(samples,)` at 16 kHz; `level` is the root mean square in dB of full scale."""
    engine.set_voice(voice)
    speech = engine.speak(f"<speak>{text}</speak>", rate=rate, pitch=pitch, volume=50)
    samples = soxr.resample(speech.samples.astype(np.float64) / 32768, speech.rate, RATE)
    return samples * 10 ** (level / 20) / np.sqrt(np.mean(samples**2))


def main() -> None:
    """Writes the files, less than 200 KB together."""
    FOLDER.mkdir(exist_ok=True)
    lively: dict[str, Any] = {"rate": 200, "pitch": 52, "level": -22.0}
    low: dict[str, Any] = {"rate": 150, "pitch": 25, "level": -40.0}
    calm: dict[str, Any] = {"rate": 108, "pitch": 38, "level": -40.0, "voice": "en-us+david"}
    # In the voice of the others, "bad" is misrecognized.
    clear: dict[str, Any] = {"rate": 176, "pitch": 42, "level": -22.0, "voice": "en-029+m3"}
    wonderful = f"{OPENING} {CLAUSES.format(STRESS.format('wonderful'), 'dreadful')}."
    dreadful = f"{OPENING} {CLAUSES.format('wonderful', STRESS.format('dreadful'))}."
    engine = Synthesizer()
    # An engine keeps a state. What is overwritten below is spoken so that the clips after it stay as they are.
    clips = {
        "wonderful": [speak(engine, wonderful, **lively)],
        "dreadful": [speak(engine, dreadful, **lively)],
        "calm": [speak(engine, wonderful, **low)],
        **{name: [speak(engine, text, **lively)] for name, text in SENTENCES.items()},
        "long": [speak(engine, f"{dreadful} {REST}", **low), speak(engine, f"{wonderful} {REST}", **lively)],
    }
    dreadful = f"{OPENING} {CLAUSES.format('wonderful', LAST_STRESS.format('dreadful'))}"
    clips["dreadful"] = [speak(Synthesizer(), dreadful, **lively)]
    clips["calm"] = [speak(Synthesizer(), wonderful, **calm)]
    clips["not_bad"] = [speak(Synthesizer(), SENTENCES["not_bad"], **clear)]
    for name, parts in clips.items():
        pause = np.zeros(RATE // 2)
        samples = np.concatenate([piece for part in parts for piece in (part, pause)])
        soundfile.write(FOLDER / f"{name}.mp3", samples, RATE, compression_level=0.8, bitrate_mode="VARIABLE")


if __name__ == "__main__":
    main()
