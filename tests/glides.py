"""Synthetic glides whose pitch is known."""

import numpy as np

SAMPLING_RATE = 16_000
SECONDS = 2.0
GLIDES = ((70, 140), (90, 250), (150, 400), (500, 200), (300, 70), (250, 500))
# A voiced frame that is off by more than this share is a gross error.
GROSS = 0.2
_FORMANTS = ((500, 80), (1500, 120), (2500, 160))


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
