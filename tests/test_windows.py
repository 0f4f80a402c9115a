"""Recordings of any length: read by blocks and cut into segments, with no sample lost or repeated."""

import io
import itertools
import tracemalloc

import numpy as np
import pytest
import soundfile
import torch
from tiny import noise

from msfser.audio_msfser import cut_at_pauses, load_audio, read_blocks

RATE = 16_000


def in_blocks(sound: np.ndarray, draw: np.random.Generator) -> list[np.ndarray]:
    cuts = np.sort(draw.integers(0, len(sound) + 1, 5))
    return np.split(sound, cuts)


@pytest.mark.parametrize("rate", [8_000, 16_000, 22_050, 44_100, 48_000])
@pytest.mark.parametrize("channels", [1, 2])
def test_blocks_are_what_is_loaded_at_once(rate, channels):
    draw = np.random.default_rng(rate + channels)
    samples = (draw.standard_normal((int(rate * draw.uniform(0.3, 4.0)), channels)) * 0.1).astype(np.float32)
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format="FLAC")
    sources = [
        (file.getvalue(), None, None),
        ({"bytes": file.getvalue(), "path": None}, None, None),
        (samples, rate, False),
        (samples.T, rate, True),
        ((samples * 32_767).astype(np.int16), rate, False),
        (torch.from_numpy(samples), rate, False),
        ({"array": samples.T, "sampling_rate": rate}, None, None),
        ((rate, samples), None, None),
    ]
    for source, given_rate, channels_first in sources:
        blocks = list(read_blocks(source, given_rate, channels_first))
        whole = load_audio(source, given_rate, channels_first=channels_first)
        np.testing.assert_array_equal(np.concatenate(blocks), whole)
        assert max(len(block) for block in blocks) <= 1.1 * RATE


def test_blocks_of_one_sample_are_a_sound():
    file = io.BytesIO()
    soundfile.write(file, noise(0.1)[:1], 44_100, format="WAV")
    for source, rate in ((file.getvalue(), None), (noise(0.1)[:1], 44_100)):
        np.testing.assert_array_equal(np.concatenate(list(read_blocks(source, rate))), load_audio(source, rate))


def test_segments_put_together_are_the_recording():
    draw = np.random.default_rng(0)
    for _ in range(60):
        max_seconds = float(draw.uniform(0.5, 8.0))
        sound = noise(draw.uniform(0.001, 40.0), int(draw.integers(1000)))
        for _ in range(int(draw.integers(6))):
            start = int(draw.integers(len(sound)))
            sound[start : start + int(draw.integers(8_000))] *= draw.choice([0.0, 0.01])
        longest = int(max_seconds * RATE)
        segments = list(cut_at_pauses(in_blocks(sound, draw), max_seconds))
        np.testing.assert_array_equal(np.concatenate(segments), sound)
        assert all(2 * longest // 3 - 1 <= len(segment) <= longest for segment in segments[:-1])
        assert 0 < len(segments[-1]) <= longest
        # Two of them together are not longer than the model's input.
        assert all(len(a) + len(b) <= int(2 * max_seconds * RATE) for a, b in itertools.pairwise(segments))


def test_blocks_do_not_move_the_cuts():
    sound = noise(31.0)
    sound[5 * RATE : int(5.4 * RATE)] *= 0.01
    whole = [len(segment) for segment in cut_at_pauses([sound], 6.0)]
    for seed in range(5):
        parts = in_blocks(sound, np.random.default_rng(seed))
        assert [len(segment) for segment in cut_at_pauses(parts, 6.0)] == whole


def test_a_pause_near_the_end_of_a_segment_is_cut_and_nothing_else():
    sound = noise(20.0)
    sound[int(4.8 * RATE) : int(5.3 * RATE)] *= 0.01
    first = len(next(cut_at_pauses([sound], 6.0))) / RATE
    assert 4.9 <= first <= 5.2
    # 9 dB quieter is no pause, and neither is silence that comes too early.
    sound = noise(20.0)
    sound[int(4.8 * RATE) : int(5.3 * RATE)] *= 10 ** (-9 / 20)
    sound[int(2.0 * RATE) : int(3.0 * RATE)] = 0
    assert len(next(cut_at_pauses([sound], 6.0))) == 6 * RATE
    assert len(next(cut_at_pauses([np.zeros(20 * RATE, np.float32)], 6.0))) == 6 * RATE


def test_a_long_file_is_never_in_memory(tmp_path):
    with soundfile.SoundFile(tmp_path / "long.wav", "w", 44_100, 1, subtype="PCM_16") as file:
        for seed in range(10):
            file.write(np.repeat(noise(6.0, seed), 5)[: 44_100 * 10])
    tracemalloc.start()
    seconds = sum(len(s) for s in cut_at_pauses(read_blocks(tmp_path / "long.wav"), 6.0)) / RATE
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert seconds == pytest.approx(100, abs=0.01)
    assert peak < 4e6  # the whole of it is 6.4 MB as it is returned, 17.6 MB as it is read


def test_what_cannot_be_read_is_a_sentence(tmp_path):
    with pytest.raises(ValueError, match="there is no file"):
        next(read_blocks(tmp_path / "no.wav"))
    with pytest.raises(ValueError, match="need their sampling_rate"):
        next(read_blocks(noise(1.0)))
    # After the first blocks.
    sound = noise(5.0)
    sound[70_000] = np.nan
    with pytest.raises(ValueError, match="not finite"):
        list(read_blocks(sound, RATE))


def test_a_file_that_breaks_off_is_a_sentence():
    file = io.BytesIO()
    soundfile.write(file, noise(20.0), RATE, format="FLAC")
    half = file.getvalue()[: len(file.getvalue()) // 2]
    with pytest.raises(ValueError, match="cannot be decoded after 10 s"):
        list(read_blocks(half))
