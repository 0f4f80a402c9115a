"""Synthesized sounds without speech, on which the decision whether there is speech is set."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from scipy import signal

from ..audio_msfser import SAMPLING_RATE

Draw = np.random.Generator
# From seconds and a generator to `(seconds * 16 000,)`, of any level.
Kind = Callable[[float, Draw], np.ndarray]

# The scales of melodies, in semitones.
_SCALES = ((0, 2, 4, 5, 7, 9, 11), (0, 2, 3, 5, 7, 8, 10), (0, 2, 4, 7, 9))


def _time(seconds: float) -> np.ndarray:
    return np.arange(int(seconds * SAMPLING_RATE)) / SAMPLING_RATE


def silence(seconds: float, draw: Draw) -> np.ndarray:
    """Digital silence, or noise at -80 to -66 dB of full scale."""
    level = draw.choice([0.0, 10 ** (draw.uniform(-80, -66) / 20)])
    return level * draw.standard_normal(len(_time(seconds)))


def colored(low: float, high: float) -> Kind:
    """Noise whose spectrum falls by so many dB an octave at least and at most."""

    def noise(seconds: float, draw: Draw) -> np.ndarray:
        spectrum = np.fft.rfft(draw.standard_normal(len(_time(seconds))))
        slope = draw.uniform(low, high) / 6.02
        return np.fft.irfft(spectrum / np.maximum(np.arange(len(spectrum)), 1) ** slope, len(_time(seconds)))

    return noise


def hum(seconds: float, draw: Draw) -> np.ndarray:
    """Mains hum, 50 or 60 Hz with harmonics."""
    phase = 2 * np.pi * draw.choice([50, 60]) * _time(seconds)
    return np.add.reduce([draw.uniform(0, 1) / k * np.sin(k * phase + draw.uniform(0, 6)) for k in range(1, 12)])


def engine(seconds: float, draw: Draw) -> np.ndarray:
    """Pulses at 20 to 90 Hz whose rate drifts, through resonances, with noise."""
    rate = draw.uniform(20, 90) * (1 + 0.2 * _slow(seconds, draw, 0.5))
    phase = np.cumsum(rate) / SAMPLING_RATE
    pulses = np.diff(np.floor(phase), prepend=0) * draw.uniform(0.6, 1.4, len(phase))
    return _resonant(pulses, draw, 3) + 0.05 * draw.standard_normal(len(phase))


def rain(seconds: float, draw: Draw) -> np.ndarray:
    """Noise and drops."""
    count = len(_time(seconds))
    drops = (draw.random(count) < draw.uniform(50, 500) / SAMPLING_RATE) * draw.exponential(1.0, count)
    ping = np.exp(-np.arange(160) / 30) * np.sin(np.arange(160) * draw.uniform(1, 2.5))
    return 0.2 * draw.standard_normal(count) + np.convolve(drops, ping, mode="same")


def wind(seconds: float, draw: Draw) -> np.ndarray:
    """Brown noise in gusts through a moving resonance."""
    gusts = np.exp(1.5 * _slow(seconds, draw, draw.uniform(0.3, 3)))
    return colored(5, 8)(seconds, draw) * gusts


def tone(seconds: float, draw: Draw) -> np.ndarray:
    """A steady tone, with harmonics or without."""
    phase = 2 * np.pi * draw.uniform(80, 2000) * _time(seconds)
    return np.add.reduce([np.sin(k * phase) / k for k in range(1, int(draw.integers(2, 8)))])


def siren(seconds: float, draw: Draw) -> np.ndarray:
    """A tone that goes up and down, in steps or smoothly."""
    cycle = np.sin(2 * np.pi * draw.uniform(0.2, 4) * _time(seconds))
    shape = cycle if draw.random() < 0.5 else np.sign(cycle)
    pitch = draw.uniform(400, 900) * 2 ** (draw.uniform(0.2, 0.6) * shape)
    phase = 2 * np.pi * np.cumsum(pitch) / SAMPLING_RATE
    return np.add.reduce([np.sin(k * phase) / k for k in range(1, 5)])


def beeps(seconds: float, draw: Draw) -> np.ndarray:
    """Tones of 0.05 to 0.4 s with pauses, as of alarms and telephones."""
    time = _time(seconds)
    period, share = draw.uniform(0.1, 1), draw.uniform(0.3, 0.7)
    pitches = draw.uniform(300, 2500, int(draw.integers(1, 3)))
    tones = np.add.reduce([np.sin(2 * np.pi * pitch * time) for pitch in pitches])
    return tones * (time % period < share * period)


def chord(seconds: float, draw: Draw) -> np.ndarray:
    """Chords that change every 0.5 to 2 s, of one timbre."""
    timbre, step = _timbre(draw), draw.uniform(0.5, 2)
    sound = np.zeros(len(_time(seconds)))
    for start in np.arange(0, seconds, step):
        root = 110 * 2 ** (draw.integers(0, 24) / 12)
        for interval in (0, draw.choice([3, 4]), 7):
            _add(sound, timbre(step, root * 2 ** (interval / 12), draw), start)
    return sound


def melody(seconds: float, draw: Draw) -> np.ndarray:
    """Single notes of one timbre in rhythm."""
    sound = np.zeros(len(_time(seconds)))
    _play(sound, seconds, draw, _timbre(draw), base=draw.uniform(150, 500), chords=False)
    return sound


def drums(seconds: float, draw: Draw) -> np.ndarray:
    """Drums in rhythm."""
    sound = np.zeros(len(_time(seconds)))
    beat = draw.uniform(0.1, 0.3)
    hits = [_hit(draw, kind) for kind in range(3)]
    pattern = [draw.random(8) < share for share in (0.4, 0.3, 0.7)]
    for i, start in enumerate(np.arange(0, seconds, beat)):
        for hit, of_hit in zip(hits, pattern, strict=True):
            if of_hit[i % 8]:
                _add(sound, hit, start)
    return sound


def band(seconds: float, draw: Draw) -> np.ndarray:
    """Music: drums, a bass, chords and a melody of different timbres."""
    sound = drums(seconds, draw) * draw.uniform(0, 1)
    for base, chords in ((60.0, False), (180.0, True), (400.0, False)):
        part = np.zeros(len(sound))
        _play(part, seconds, draw, _timbre(draw), base * draw.uniform(0.8, 1.25), chords)
        sound += part / max(part.std(), 1e-9) * draw.uniform(0.3, 1)
    return sound


def chirps(seconds: float, draw: Draw) -> np.ndarray:
    """Birds: short glides between 1.5 and 7 kHz, in groups."""
    sound = 0.01 * draw.standard_normal(len(_time(seconds)))
    start = 0.0
    while start < seconds:
        length, low = draw.uniform(0.03, 0.2), draw.uniform(1500, 5000)
        pitch = np.linspace(low, low * draw.uniform(0.7, 1.5), int(length * SAMPLING_RATE))
        note = np.sin(2 * np.pi * np.cumsum(pitch) / SAMPLING_RATE) * np.hanning(len(pitch))
        _add(sound, note, start)
        start += length + draw.exponential(0.15)
    return sound


def knocks(seconds: float, draw: Draw) -> np.ndarray:
    """Knocks, steps or keys: short resonant impulses at irregular times."""
    count = len(_time(seconds))
    times = (draw.random(count) < draw.uniform(2, 8) / SAMPLING_RATE) * draw.uniform(0.3, 1, count)
    return _resonant(times, draw, 4) + 0.003 * draw.standard_normal(count)


def crowd(voices: Sequence[np.ndarray], fewest: int = 12) -> Kind:
    """So many voices or up to twice as many at once, at different levels.

    Args:
        voices: Recordings of one speaker each, `(samples,)`.
        fewest: How many voices are in it at least.
    """

    def babble(seconds: float, draw: Draw) -> np.ndarray:
        sound = np.zeros(len(_time(seconds)))
        for _ in range(int(draw.integers(fewest, 2 * fewest + 1))):
            picked: list[np.ndarray] = []
            while sum(map(len, picked)) < 2 * len(sound):
                picked.append(voices[int(draw.integers(len(voices)))])
            voice = np.concatenate(picked)[draw.integers(len(sound)) :][: len(sound)]
            sound += voice / max(np.abs(voice).max(), 1e-9) * 10 ** (draw.uniform(-6, 0) / 20)
        return sound

    return babble


SYNTHESIZED: Mapping[str, Kind] = {
    "silence": silence,
    "white to pink noise": colored(0, 3),
    "pink to brown noise": colored(3.5, 7),
    "hum": hum,
    "engine": engine,
    "rain": rain,
    "wind": wind,
    "tone": tone,
    "siren": siren,
    "beeps": beeps,
    "birds": chirps,
    "knocks": knocks,
    "drums": drums,
    "chords": chord,
    "melody": melody,
    "band": band,
}


def sounds_of(kind: Kind, count: int, seed: int) -> list[np.ndarray]:
    """So many sounds of a kind, `(samples,)` float32 at 16 kHz, of 2 to 8 s at peaks of -30 to -1 dB of full scale."""
    sounds = []
    for number in range(count):
        draw = np.random.default_rng([seed, number])
        sound = kind(draw.uniform(2, 8), draw)
        peak = np.abs(sound).max()
        if kind is not silence:
            sound = sound / peak * 10 ** (draw.uniform(-30, -1) / 20)
        sounds.append(sound.astype(np.float32))
    return sounds


def _slow(seconds: float, draw: Draw, hertz: float) -> np.ndarray:
    """Noise below some frequency, with a deviation of about 1."""
    points = draw.standard_normal(int(seconds * hertz * 2) + 4)
    return np.interp(_time(seconds) * 2 * hertz, np.arange(len(points)), points)


def _resonant(pulses: np.ndarray, draw: Draw, count: int) -> np.ndarray:
    """Pulses through resonances at 100 to 3000 Hz."""
    sound = np.zeros(len(pulses))
    for _ in range(count):
        frequency = draw.uniform(100, 3000)
        b, a = signal.iirpeak(frequency, draw.uniform(3, 20), fs=SAMPLING_RATE)
        sound += signal.lfilter(b, a, pulses)
    return sound


def _timbre(draw: Draw) -> Callable[[float, float, Draw], np.ndarray]:
    """An instrument: the strengths of its partials, its attack and decay, its vibrato."""
    partials = draw.uniform(0, 1, 10) / np.arange(1, 11) ** draw.uniform(0.5, 2)
    attack, decay, vibrato = draw.uniform(0.003, 0.1), draw.uniform(0.1, 2), draw.choice([0.0, draw.uniform(0, 0.01)])

    def note(seconds: float, pitch: float, draw: Draw) -> np.ndarray:
        time = _time(seconds)
        phase = 2 * np.pi * pitch * (time + vibrato / 30 * np.sin(2 * np.pi * 5.5 * time))
        loud = np.minimum(time / attack, 1) * np.exp(-time / decay) * np.minimum((seconds - time) / 0.02, 1)
        audible = [k for k in range(1, 11) if k * pitch < SAMPLING_RATE / 2]
        return loud * np.add.reduce([partials[k - 1] * np.sin(k * phase) for k in audible or [1]])

    return note


def _play(
    sound: np.ndarray,
    seconds: float,
    draw: Draw,
    timbre: Callable[[float, float, Draw], np.ndarray],
    base: float,
    chords: bool,
) -> None:
    """Adds notes of a scale in rhythm."""
    scale, beat, start = _SCALES[draw.integers(len(_SCALES))], draw.uniform(0.12, 0.4), 0.0
    while start < seconds:
        length = beat * draw.choice([1, 1, 2, 4])
        degree = int(draw.integers(len(scale)))
        for step in (0, 2, 4) if chords else (0,):
            octave, place = divmod(degree + step, len(scale))
            _add(sound, timbre(length, base * 2 ** (octave + scale[place] / 12), draw), start)
        start += length


def _hit(draw: Draw, kind: int) -> np.ndarray:
    """A bass drum, a snare or a cymbal."""
    time = _time(0.25)
    loud = np.exp(-time / (0.08, 0.05, 0.02)[kind])
    if kind == 0:
        return loud * np.sin(2 * np.pi * (50 * time + 4 * (1 - np.exp(-time / 0.03))))
    return loud * draw.standard_normal(len(time)) * (0.5, 0.5, 0.3)[kind]


def _add(sound: np.ndarray, part: np.ndarray, seconds: float) -> None:
    """Adds a part from some time on, as far as the sound is long enough."""
    first = int(seconds * SAMPLING_RATE)
    room = sound[first : first + len(part)]
    room += part[: len(room)]
