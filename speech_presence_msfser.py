"""Which parts of a sound are speech, by Silero VAD (the package `silero-vad`, MIT).

Silero VAD (https://github.com/snakers4/silero-vad) is a small recurrent network that was trained on many languages.
Its package has the weights; the forward pass is here, because the package's own keeps the state of the last sound in
the model, sets the number of threads of the whole process, and needs many times as long. It also finds speech in a
crowd, where nobody can be understood, so a crowd is recognized by its level.

`benchmarks/no_speech.py` measures the decision, and `docs/predicting.md` has the rates.
"""

import functools
from importlib import util
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional as F

from .audio_msfser import SAMPLING_RATE
from .fast_convolutions_msfser import convolution
from .levels_msfser import at_level, decibels

# Samples of a step, and of the sound before it with which it is read.
STEP, _CONTEXT = 512, 64
# The spectrum of a step: samples, samples from one to the next, and frequencies.
_WINDOW, _HOP, _FREQUENCIES = 256, 128, 129
_WEIGHTS = "data/silero_vad_16k.safetensors"

# The level of the loud parts at which sound is read, of full scale 1, and the probability from which a step is speech,
# chosen on half of the speakers of four acted corpora: no_speech.py --tune prints how.
_LEVEL, _LEAST_PROBABILITY = 0.1, 0.4
# Of fewer seconds than this in a part, none is speech.
_SHORTEST_SPEECH = 0.2
# A crowd makes no pauses, where the probability would be below this, and its level changes by less than this, in dB,
# chosen likewise. A part that is shorter than this, in seconds, may be one vowel.
_CROWD_PROBABILITY, _CROWD_RANGE, _SHORTEST_CROWD = 0.05, 10.0, 1.5
# The band of its voices, in Hz, and the length and distance of the frames in which they are compared, in samples.
_CROWD_BAND, _FRAME, _FRAME_HOP = (100.0, 1000.0), 1024, 512
_BAND = slice(*(round(hertz / SAMPLING_RATE * _FRAME) for hertz in _CROWD_BAND))
_TAPER = np.hanning(_FRAME).astype(np.float32)


class Voices(NamedTuple):
    """What voices there are in a sound.

    Args:
        seconds: How much of it is speech.
        are_crowd: Whether it is that of many, where nobody can be understood.
    """

    seconds: float
    are_crowd: bool


def voices_in(samples: np.ndarray) -> Voices:
    """Finds the speech in a sound.

    Args:
        samples: `(samples,)` at 16 kHz, float32, not empty.

    Raises:
        ImportError: silero-vad is not installed.
    """
    leveled = at_level(samples, _LEVEL)
    probabilities = speech_probabilities(leveled)
    seconds = float((probabilities >= _LEAST_PROBABILITY).sum()) * STEP / SAMPLING_RATE
    if seconds < _SHORTEST_SPEECH:
        return Voices(0.0, are_crowd=False)
    return Voices(min(seconds, len(samples) / SAMPLING_RATE), _is_crowd(leveled, probabilities))


def _is_crowd(samples: np.ndarray, probabilities: np.ndarray) -> bool:
    """Whether what may be speech is that of many voices."""
    if len(samples) < _SHORTEST_CROWD * SAMPLING_RATE or pause_probability(probabilities) < _CROWD_PROBABILITY:
        return False
    return level_range(samples) < _CROWD_RANGE


def pause_probability(probabilities: np.ndarray) -> float:
    """The probability of speech in the pauses of a sound, if it has any: its 0.05 quantile."""
    return float(np.quantile(probabilities, 0.05))


def level_range(samples: np.ndarray) -> float:
    """How many dB the level of voices falls from the loud frames, 0.95 quantile, to the quiet ones, 0.1 quantile."""
    frames = np.lib.stride_tricks.sliding_window_view(samples, _FRAME)[::_FRAME_HOP]
    power = np.abs(np.fft.rfft(frames * _TAPER)[:, _BAND]) ** 2
    loud, quiet = np.quantile(decibels(power.sum(1)), [0.95, 0.1])
    return float(loud - quiet)


@torch.inference_mode()
def speech_probabilities(samples: np.ndarray) -> np.ndarray:
    """The probability that each 32 ms of a sound are speech.

    Args:
        samples: `(samples,)` at 16 kHz, float32, not empty.

    Returns:
        `(steps,)`, from 0 to 1; the last step may end after the sound.

    Raises:
        ImportError: silero-vad is not installed.
    """
    sound = torch.from_numpy(np.ascontiguousarray(samples, dtype=np.float32))
    steps = F.pad(sound, (_CONTEXT, -len(sound) % STEP)).unfold(0, _CONTEXT + STEP, STEP)
    with torch.autocast("cpu", enabled=False):
        found: np.ndarray = _network()(steps).numpy()
    return found


class _SileroNetwork(nn.Module):
    """The network for 16 kHz; its parameters have the names that they have in the package."""

    def __init__(self) -> None:
        super().__init__()
        self.stft_conv = nn.Conv1d(1, 2 * _FREQUENCIES, _WINDOW, stride=_HOP, bias=False)
        self.conv1 = nn.Conv1d(_FREQUENCIES, 128, 3, padding=1)
        self.conv2 = nn.Conv1d(128, 64, 3, stride=2, padding=1)
        self.conv3 = nn.Conv1d(64, 64, 3, stride=2, padding=1)
        self.conv4 = nn.Conv1d(64, 128, 3, padding=1)
        self.lstm_cell = nn.LSTM(128, 128)
        self.final_conv = nn.Conv1d(128, 1, 1)

    def forward(self, samples: torch.Tensor) -> torch.Tensor:
        """The steps of a sound with their context, `(steps, samples)`, to probabilities, `(steps,)`."""
        padded = F.pad(samples, (0, _CONTEXT), mode="reflect")
        real, imaginary = convolution(padded[..., None], self.stft_conv).split(_FREQUENCIES, dim=2)
        hidden = torch.hypot(real, imaginary)  # (steps, positions, channels)
        for conv in (self.conv1, self.conv2, self.conv3, self.conv4):
            hidden = convolution(F.pad(hidden, (0, 0, 1, 1)), conv).relu()
        states, _ = self.lstm_cell(hidden.squeeze(1))
        logits: torch.Tensor = self.final_conv(states.relu()[..., None])
        return logits.sigmoid().flatten()


@functools.cache
def _network() -> _SileroNetwork:
    """The network with its weights, on the CPU."""
    package = util.find_spec("silero_vad")  # not imported, which would set the number of threads
    folders = (package.submodule_search_locations if package else None) or []
    path = next((path for folder in folders if (path := Path(folder) / _WEIGHTS).is_file()), None)
    if path is None:
        raise ImportError("speech cannot be found without silero-vad 6.2.3 or newer: pip install -U silero-vad.")
    # The names that PyTorch gives the parameters of the only layer of an LSTM.
    with torch.inference_mode(False):  # of tensors that are made in inference mode, no arranged copy is kept
        weights = {f"{name}_l0" if "lstm" in name else name: value for name, value in load_file(path).items()}
    with torch.device("meta"):  # without weights that are drawn
        network = _SileroNetwork()
    network.load_state_dict(weights, assign=True)
    return network.eval().requires_grad_(False)
