"""Descriptions of how an utterance sounds: what writes them, and the describer that needs no model.

The measured describer states in words what can be measured in a voice. Each measure is compared with its distribution
in a corpus, which the norms name. Nothing is said about the speaker: neither gender nor age nor emotion is guessed
from pitch or anything else.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from .audio_msfser import SAMPLING_RATE
from .emphasis_msfser import LEVEL_HOP, PITCH_HOP, Prosody, measure_prosody

QUANTILES = (0.1, 0.3, 0.7, 0.9)

# Five steps, divided at QUANTILES of the corpus. The order is also the order of the sentences.
WORDS: dict[str, tuple[str, str, str, str, str]] = {
    "loudness": ("very quiet", "rather quiet", "of medium loudness", "rather loud", "very loud"),
    "pitch": ("very low", "rather low", "of medium pitch", "rather high", "very high"),
    "movement": ("hardly moves", "moves little", "moves moderately", "moves widely", "moves very widely"),
    "rate": ("very slow", "rather slow", "of medium speed", "rather fast", "very fast"),
    "pauses": ("no pauses", "hardly any pauses", "some pauses", "many pauses", "very many pauses"),
    "brightness": (
        "very soft and dark",
        "rather soft",
        "neither soft nor sharp",
        "rather sharp",
        "very sharp and tense",
    ),
    "clarity": ("very breathy or rough", "rather breathy or rough", "moderately clear", "rather clear", "very clear"),
}
_SPEECH_BELOW_PEAK = 30.0
_SHORTEST_PAUSE = 0.15
_NUCLEUS_DIP = 2.0
_LEAST_VOICED = 0.1
_VOICE_FRAME = 512
# Edges in Hz of the two bands whose energy ratio is the brightness.
_BANDS = (50, 1000, 5000)

# The training speakers of the Berlin Database of Emotional Speech (F. Burkhardt et al., Interspeech 2005; six actors,
# German), by `msfser norms emodb/metadata.csv --split train --name EmoDB --output norms.json`.
NORMS: dict[str, Any] = {
    "corpus": "EmoDB",
    "utterances": 224,
    "quantiles": {
        "loudness": [-24.971, -23.479, -20.627, -18.479],
        "pitch": [1.072, 7.899, 14.945, 19.031],
        "movement": [4.937, 8.271, 13.835, 16.614],
        "rate": [3.448, 4.713, 5.675, 6.429],
        "pauses": [0.044, 0.054, 0.099, 0.256],
        "brightness": [-17.259, -12.77, -2.493, 1.64],
        "clarity": [4.251, 6.179, 9.287, 11.625],
    },
}


class Describer(Protocol):
    """Writes one description per sound.

    Attributes:
        name: Stored with each description, such as "measured/emodb",
            "qwen2_audio:Qwen/Qwen2-Audio-7B-Instruct@REVISION" or "chat:MODEL".
    """

    name: str

    def __call__(
        self, sounds: Sequence[np.ndarray], transcripts: Sequence[str | None]
    ) -> Sequence[str | OSError | None]:
        """Describes sounds, `(samples,)` each, mono float32 at 16 kHz in -1..1, and their words where they are known.

        Returns:
            One text per sound in the same order; `None` where there is none, and an error where a server failed.
        """
        ...


class MeasuredDescriber:
    """States loudness, pitch level and movement, speed, pauses and voice quality in words, relative to norms.

    Loudness is that of the recording as it is, so a microphone's gain changes it. Norms without `loudness` leave it
    out of the descriptions.

    Args:
        norms: `{"corpus": name, "quantiles": {measure: four numbers}}`, as written by `msfser norms`: the 10,
            30, 70 and 90 % quantiles of each measure in the corpus (of `pauses`, among the utterances that have any).

    Raises:
        ValueError: The norms do not have this form.
    """

    def __init__(self, norms: Mapping[str, Any] = NORMS):
        quantiles = norms.get("quantiles", {})
        for measure in WORDS:
            if measure == "loudness" and measure not in quantiles:
                continue
            found = quantiles.get(measure, ())
            if len(found) != len(QUANTILES) or list(found) != sorted(found):
                raise ValueError(
                    f"the norms have no {len(QUANTILES)} rising numbers for {measure!r}: make them with msfser norms."
                )
        if not norms.get("corpus"):
            raise ValueError("the norms do not say which corpus they are from: add its name as 'corpus'.")
        self.norms = dict(norms)
        self.name = f"measured/{norms['corpus']}"

    def __call__(
        self,
        sounds: Sequence[np.ndarray],
        transcripts: Sequence[str | None],
        prosody: Sequence[Prosody] | None = None,
    ) -> list[str | None]:
        """As in [`Describer`], without regard to the words; `prosody` is that of each sound, if measured already.

        Returns:
            One text per sound; `None` where less than 0.1 s is voiced.

        Raises:
            ImportError: swift-f0 is not installed.
        """
        if prosody is None:
            prosody = [measure_prosody(sound) for sound in sounds]
        return [self._describe(*pair) for pair in zip(sounds, prosody, strict=True)]

    def _describe(self, sound: np.ndarray, prosody: Prosody) -> str | None:
        measures = measure_voice(sound, prosody)
        return None if measures is None else self.describe_measures(measures)

    def describe_measures(self, measures: Mapping[str, float]) -> str:
        """The description of a voice with the measures of [`measure_voice`]."""
        quantiles = self.norms["quantiles"]
        words = {
            name: WORDS[name][_step(value, quantiles[name], is_pauses=name == "pauses")]
            for name, value in measures.items()
            if name in quantiles
        }
        voice = " and ".join(words[name] for name in ("loudness", "pitch") if name in words)
        return (
            f"The voice is {voice}. Its pitch {words['movement']}. The speech is {words['rate']}, with "
            f"{words['pauses']}. The sound of the voice is {words['brightness']}, and {words['clarity']}."
        )


def _step(value: float, quantiles: Sequence[float], is_pauses: bool) -> int:
    step = int(np.searchsorted(quantiles, value, side="right"))
    # Many utterances have no pause at all; the norms of pauses are those of the others.
    return (0 if value == 0 else max(1, step)) if is_pauses else step


def measure_voice(sound: np.ndarray, prosody: Prosody) -> dict[str, float] | None:
    """Seven measures of a voice, in the order of [`WORDS`], or `None` where less than 0.1 s is voiced.

    The sound is `(samples,)` at 16 kHz, and the prosody that of this sound.

    - `loudness`: mean level while there is speech (no more than 30 dB below the loudest frame), dB of full scale.
    - `pitch`: median, semitones above 100 Hz. `movement`: 5 to 95 % range, semitones.
    - `rate`: syllables per second of speech. A syllable is a voiced peak of the level, after a dip of 2 dB or more
      (N. H. de Jong and T. Wempe, Behavior Research Methods 41, 2009).
    - `pauses`: share of the time between the first and the last speech that lies in gaps of 0.15 s or more.
    - `brightness`: energy in 1-5 kHz relative to 50-1000 Hz over voiced frames, dB; it rises with vocal effort.
    - `clarity`: harmonics-to-noise ratio over voiced frames, dB (P. Boersma, 1993), median.
    """
    voiced = np.isfinite(prosody.pitch)
    if voiced.sum() * PITCH_HOP < _LEAST_VOICED:
        return None
    semitones = 12 * np.log2(prosody.pitch[voiced] / 100)
    low, high = np.quantile(semitones, [0.05, 0.95])
    speech = prosody.level > prosody.level.max() - _SPEECH_BELOW_PEAK
    first, last = np.flatnonzero(speech)[[0, -1]]
    pauses = _pauses(speech[first : last + 1])
    spoken = (last + 1 - first) * LEVEL_HOP
    return {
        "loudness": float(prosody.level[speech].mean()),
        "pitch": float(np.median(semitones)),
        "movement": float(high - low),
        "rate": _nuclei(prosody) / (spoken - pauses),
        "pauses": pauses / spoken,
        "brightness": _brightness(sound, prosody),
        "clarity": _clarity(sound, prosody),
    }


def _pauses(speech: np.ndarray) -> float:
    """Seconds of pauses, given frames that begin and end with speech."""
    edges = np.flatnonzero(np.diff(speech.astype(int)))
    gaps = (edges[1::2] - edges[::2]) * LEVEL_HOP
    return float(gaps[gaps >= _SHORTEST_PAUSE].sum())


def _nuclei(prosody: Prosody) -> int:
    """The number of syllables: voiced peaks of the level, each after a dip."""
    level = np.convolve(np.pad(prosody.level, 2, mode="edge"), np.ones(5) / 5, mode="valid")
    peaks = np.flatnonzero((level[1:-1] > level[:-2]) & (level[1:-1] >= level[2:])) + 1
    voiced = np.interp(prosody.level_times, prosody.pitch_times, np.isfinite(prosody.pitch).astype(float)) >= 0.5
    peaks = peaks[voiced[peaks] & (level[peaks] > level.max() - _SPEECH_BELOW_PEAK)]
    kept: list[int] = []
    for peak in peaks.tolist():
        if kept and level[peak] - level[kept[-1] : peak].min() < _NUCLEUS_DIP:
            # The same syllable continues: its highest peak represents it.
            if level[peak] > level[kept[-1]]:
                kept[-1] = peak
        else:
            kept.append(peak)
    return len(kept)


def _voiced_frames(sound: np.ndarray, prosody: Prosody, samples: int) -> tuple[np.ndarray, np.ndarray]:
    """The samples around each voiced frame's center, `(voiced, samples)`, and its pitch, `(voiced,)`."""
    voiced = np.isfinite(prosody.pitch)
    centers = np.round(prosody.pitch_times[voiced] * SAMPLING_RATE).astype(int)
    padded = np.pad(sound, samples)
    starts = np.minimum(centers, len(sound)) + samples - samples // 2
    frames = np.lib.stride_tricks.sliding_window_view(padded, samples)[starts]
    return frames.astype(np.float64), prosody.pitch[voiced]


def _brightness(sound: np.ndarray, prosody: Prosody) -> float:
    frames, _ = _voiced_frames(sound, prosody, _VOICE_FRAME)
    power = (np.abs(np.fft.rfft(frames * np.hanning(_VOICE_FRAME))) ** 2).sum(0)
    low, middle, high = np.searchsorted(np.fft.rfftfreq(_VOICE_FRAME, 1 / SAMPLING_RATE), _BANDS)
    return float(10 * np.log10((power[middle:high].sum() + 1e-12) / (power[low:middle].sum() + 1e-12)))


def _clarity(sound: np.ndarray, prosody: Prosody) -> float:
    frames, pitch = _voiced_frames(sound, prosody, 3 * _VOICE_FRAME)
    frames = frames - frames.mean(1, keepdims=True)
    half = 3 * _VOICE_FRAME // 2
    # Correlation with the sound one period later: the best of the lags around the period, as pitch is uncertain.
    products = []
    windows = np.lib.stride_tricks.sliding_window_view(frames, half, axis=1)
    here = windows[:, half // 2]
    power = np.vecdot(here, here)
    rows, periods = np.arange(len(frames)), np.round(SAMPLING_RATE / pitch).astype(int)
    for shift in range(-2, 3):
        later = windows[rows, half // 2 + periods + shift]
        products.append(np.vecdot(here, later) / np.sqrt(power * np.vecdot(later, later) + 1e-12))
    correlation = np.clip(np.median(np.max(products, axis=0)), 1e-3, 1 - 1e-3)
    return float(10 * np.log10(correlation / (1 - correlation)))
