"""How accurate and how fast the pitch tracker is, on synthetic glides whose pitch is known.

    python -m msfser.benchmarks.pitch

Each glide lasts 2 s, runs between two pitches of 70-500 Hz with a vibrato of 2 %, and sounds like a bare harmonic tone
or like pulses through the resonances of a vowel. White noise is added. A gross error is a voiced frame that is off by
more than 20 %; missed frames are those found unvoiced. `--compare` measures librosa's pYIN and YIN and Praat's
autocorrelation as well, where they are installed (`pip install librosa praat-parselmouth`); they need not be.
"""

import argparse
import itertools
import time
from collections.abc import Callable

import numpy as np

from ..audio_msfser import SAMPLING_RATE
from ..emphasis_msfser import HIGHEST_PITCH, LOWEST_PITCH, measure_prosody
from ..evaluation.results import RESULTS, merge

COMMAND = "python -m msfser.benchmarks.pitch"
SECONDS = 2.0
GLIDES = ((70, 140), (90, 250), (150, 400), (500, 200), (300, 70), (250, 500))
NOISE_RATIOS = (20, 10, 5, 0)
GROSS = 0.2
_FORMANTS = ((500, 80), (1500, 120), (2500, 160))
_EDGE = 0.05

Tracker = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]


def main() -> None:
    """Measures, prints and writes `benchmarks/results/pitch.json`."""
    parser = argparse.ArgumentParser(description="How accurate is the pitch tracker?")
    parser.add_argument("--compare", action="store_true", help="measure librosa's and Praat's trackers as well")
    trackers: dict[str, Tracker] = {"swift_f0": _swift_f0}
    if parser.parse_args().compare:
        trackers |= {"pyin": _pyin, "yin": _yin, "praat": _praat}
    rows = []
    for name, track in trackers.items():
        rows += measure(name, track)
    merge(RESULTS / "pitch.json", rows)
    for row in rows:
        print(f"{row['name']:32s} {row['value']:.4f}")


def measure(name: str, track: Tracker) -> list[dict[str, object]]:
    """Rows of gross errors and missed frames per noise ratio, and of the time that a second of sound takes."""
    rows = []
    track(glide(100, 200, 20, "tone")[0])
    spent, heard = 0.0, 0.0
    for ratio in NOISE_RATIOS:
        gross = missed = frames = 0
        for (low, high), kind in itertools.product(GLIDES, ("tone", "vowel")):
            sound, truth = glide(low, high, ratio, kind)
            start = time.perf_counter()
            times, pitch = track(sound)
            spent, heard = spent + time.perf_counter() - start, heard + SECONDS
            inside = (times > _EDGE) & (times < SECONDS - _EDGE)
            expected = truth[np.round(times[inside] * SAMPLING_RATE).astype(int)]
            off = np.abs(pitch[inside] / expected - 1)
            gross, missed, frames = gross + (off > GROSS).sum(), missed + np.isnan(off).sum(), frames + off.size
        for measured, value in (("gross", gross / frames), ("missed", missed / frames)):
            rows.append({"name": f"{name}/{ratio}dB/{measured}", "value": float(value)})
    rows.append({"name": f"{name}/seconds_per_second", "value": spent / heard})
    command = COMMAND if name == "swift_f0" else f"{COMMAND} --compare"
    return [{"low": None, "high": None, "command": command} | row for row in rows]


def glide(low: float, high: float, ratio: float, kind: str) -> tuple[np.ndarray, np.ndarray]:
    """A glide with noise and its true pitch, both `(samples,)`.

    Args:
        low: Pitch at the start, Hz.
        high: Pitch at the end, Hz.
        ratio: Signal-to-noise ratio in dB.
        kind: "tone", harmonics that fall off as 1/k, or "vowel", pulses through three resonances.
    """
    samples = int(SECONDS * SAMPLING_RATE)
    times = np.arange(samples) / SAMPLING_RATE
    pitch = low * (high / low) ** (times / SECONDS) * (1 + 0.02 * np.sin(2 * np.pi * 5 * times))
    phase = np.cumsum(pitch) / SAMPLING_RATE
    if kind == "tone":
        harmonics = np.arange(1, 60)[:, None]
        audible = harmonics * pitch < 0.45 * SAMPLING_RATE
        sound = (audible * np.sin(2 * np.pi * harmonics * phase) / harmonics).sum(0)
    else:
        sound = np.diff(np.floor(phase), prepend=0.0)
        frequencies = np.fft.rfftfreq(samples, 1 / SAMPLING_RATE)
        response = np.ones(len(frequencies), complex)
        for center, width in _FORMANTS:
            response *= center**2 / (center**2 - frequencies**2 + 1j * width * frequencies)
        sound = np.fft.irfft(np.fft.rfft(sound) * response, samples)
    sound /= sound.std()
    noise = np.random.default_rng(0).standard_normal(samples) * 10 ** (-ratio / 20)
    return (0.05 * (sound + noise)).astype(np.float32), pitch


def _swift_f0(sound: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    prosody = measure_prosody(sound)
    return prosody.pitch_times, prosody.pitch


def _pyin(sound: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    import librosa

    pitch, _, _ = librosa.pyin(
        sound, fmin=LOWEST_PITCH, fmax=HIGHEST_PITCH, sr=SAMPLING_RATE, frame_length=1024, hop_length=160
    )
    return np.arange(len(pitch)) * 0.01, pitch


def _yin(sound: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    import librosa

    pitch = librosa.yin(
        sound, fmin=LOWEST_PITCH, fmax=HIGHEST_PITCH, sr=SAMPLING_RATE, frame_length=1024, hop_length=160
    )
    return np.arange(len(pitch)) * 0.01, pitch


def _praat(sound: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    import parselmouth

    found = parselmouth.Sound(sound.astype(np.float64), SAMPLING_RATE).to_pitch_ac(
        time_step=0.01, pitch_floor=LOWEST_PITCH, pitch_ceiling=HIGHEST_PITCH
    )
    pitch = found.selected_array["frequency"]
    return found.xs(), np.where(pitch > 0, pitch, np.nan)


if __name__ == "__main__":
    main()
