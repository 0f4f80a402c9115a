"""Words that the benchmarks of the starter share: each recording is recognized once."""

import numpy as np
import pytest
import soundfile

from msfser.annotator_msfser import Annotation
from msfser.benchmarks import starter


def test_a_recording_is_recognized_once_and_a_kill_loses_little(tmp_path, monkeypatch):
    paths = [str(tmp_path / f"{number}.wav") for number in range(5)]
    for number, path in enumerate(paths):
        soundfile.write(path, np.full(1600, number / 10), 16_000)
    recognized = []

    class Annotator:
        def __init__(self, name):
            pass

        def __call__(self, sounds):
            recognized.append(len(sounds))
            if len(recognized) == 2:
                raise KeyboardInterrupt
            return [Annotation(f"{sound[0]:.1f}", emphasis=None if sound[0] else "zero") for sound in sounds]

    monkeypatch.setattr(starter, "MsfSerAnnotator", Annotator)
    monkeypatch.setattr(starter, "_BATCH", 2)
    with pytest.raises(KeyboardInterrupt):
        starter.recognized_words(paths, tmp_path)
    expected = {"gs": ["0.4", "0.0", "0.2"], "les": [None, "zero", None]}
    assert starter.recognized_words([paths[4], paths[0], paths[2]], tmp_path) == expected
    assert starter.recognized_words(paths, tmp_path)["gs"] == ["0.0", "0.1", "0.2", "0.3", "0.4"]
    assert recognized == [2, 2, 2, 1]  # with the batch that was lost
