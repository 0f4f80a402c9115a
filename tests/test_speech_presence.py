"""The detector of speech: its network is that of the package, and crowds are none."""

from importlib import util
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from spoken import RATE, syllables, voice
from tiny import noise

from msfser import speech_presence_msfser
from msfser.speech_presence_msfser import speech_probabilities, voices_in


@pytest.fixture
def _weights_of_the_package(monkeypatch):
    """The network of `speech_presence_msfser` with the weights of the package's own, which is returned."""
    folder = Path(util.find_spec("silero_vad").origin).parent
    own = torch.jit.load(str(folder / "data" / "silero_vad.jit")).eval()
    found = {name.removeprefix("_model."): value for name, value in own.state_dict().items()}
    names = {"stft_conv.weight": "stft.forward_basis_buffer"}
    for i in range(4):
        names |= {f"conv{i + 1}.{kind}": f"encoder.{i}.reparam_conv.{kind}" for kind in ("weight", "bias")}
    kinds = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    names |= {f"lstm_cell.{kind}_l0": f"decoder.rnn.{kind}" for kind in kinds}
    names |= {f"final_conv.{kind}": f"decoder.decoder.2.{kind}" for kind in ("weight", "bias")}
    network = speech_presence_msfser._SileroNetwork()
    network.load_state_dict({name: found[of_package] for name, of_package in names.items()})
    monkeypatch.setattr(speech_presence_msfser, "_network", lambda: network)
    return own


@pytest.mark.filterwarnings("ignore:.*torch.jit.*")
@pytest.mark.parametrize("samples", [512, 513, 48_000])
def test_the_network_is_that_of_the_package(_weights_of_the_package, samples):
    sound = voice(3.0)[:samples]
    with torch.inference_mode():
        expected = _weights_of_the_package.audio_forward(torch.from_numpy(sound)[None], sr=RATE)[0].numpy()
    np.testing.assert_allclose(speech_probabilities(sound), expected, atol=2e-5)


def seconds_of(sound):
    voices = voices_in(sound)
    return 0.0 if voices.are_crowd else voices.seconds


def test_voices_are_speech_at_any_level_and_other_sounds_are_not():
    spoken = seconds_of(voice(3.0))
    assert 2.5 < spoken <= 3
    for gain in (0.01, 0.1, 3.0):
        assert seconds_of(np.float32(gain) * voice(3.0)) == pytest.approx(spoken, abs=0.07)
    for sound in (np.zeros(1, np.float32), np.zeros(3 * RATE, np.float32), noise(3.0), syllables(noise(3.0))):
        assert seconds_of(sound) == 0
    pause = np.zeros(2 * RATE, np.float32)
    assert seconds_of(np.concatenate([pause, voice(1.0), pause])) == pytest.approx(1.0, abs=0.2)


def test_many_voices_are_a_crowd_unless_the_sound_is_short():
    many = np.sum([np.roll(voice(4.0, 5 * i), 1600 * i) for i in range(3)], axis=0, dtype=np.float32)
    voices, short = voices_in(many), voices_in(many[:RATE])
    assert voices.are_crowd and voices.seconds > 2
    assert not short.are_crowd and short.seconds > 0.5


def test_nothing_is_kept_of_a_sound_and_no_random_number_is_drawn():
    speech_presence_msfser._network.cache_clear()
    state = torch.get_rng_state()
    first = speech_probabilities(voice(1.0))
    assert (torch.get_rng_state() == state).all()
    speech_probabilities(noise(2.0))
    np.testing.assert_array_equal(speech_probabilities(voice(1.0)), first)


def test_the_precision_of_others_has_no_effect():
    expected = speech_probabilities(voice(1.0))
    with torch.autocast("cpu", torch.bfloat16):
        np.testing.assert_array_equal(speech_probabilities(voice(1.0)), expected)


@pytest.mark.parametrize("found", [None, SimpleNamespace(submodule_search_locations=["nowhere"])])
def test_a_missing_package_is_named(monkeypatch, found):
    speech_presence_msfser._network.cache_clear()
    monkeypatch.setattr(speech_presence_msfser.util, "find_spec", lambda name: found)
    with pytest.raises(ImportError, match=r"silero-vad 6\.2\.3 or newer: pip install -U silero-vad"):
        voices_in(voice(1.0))
