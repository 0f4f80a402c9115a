"""The benchmark of the decision whether there is speech, with few sounds and a decision of the test's."""

import numpy as np
import pandas as pd
import pytest
import soundfile
from tiny import noise

from msfser.benchmarks import no_speech

RATE = 16_000


def is_loud(samples: np.ndarray) -> bool:
    return bool(np.abs(samples).mean() > 0.01)


def test_clips_that_count_as_none_are_counted_by_condition_and_corpus(tmp_path):
    clips = pd.DataFrame({"corpus": ["ravdess", "ravdess", "emodb", "emodb"], "speaker": [*"abcd"]})
    clips["path"] = [str(tmp_path / f"{i}.wav") for i in clips.index]
    for i, path in enumerate(clips["path"]):
        soundfile.write(path, (0.01 if i == 3 else 1.0) * noise(1.0, i), RATE)
    rows = {row["name"]: row["value"] for row in no_speech.speech_rows(clips, is_loud, "words", ("clean", "noise"))}
    assert rows["words/false_alarms"] == rows["words/false_alarms/clean"] == 0.25
    assert rows["words/false_alarms/noise/emodb"] == 0.5 and rows["words/false_alarms/clean/ravdess"] == 0.0
    assert not any("room" in name for name in rows)


def test_sounds_that_count_as_speech_are_counted_by_folder(tmp_path):
    for folder, seconds, size in (("one", 41.0, 1.0), ("two-three", 1.0, 0.01), ("two-three", 0.3, 1.0)):
        (tmp_path / folder).mkdir(exist_ok=True)
        soundfile.write(tmp_path / folder / f"{seconds}.wav", size * noise(seconds), RATE)
    rows = {row["name"]: row["value"] for row in no_speech.sound_rows(tmp_path, is_loud, "words")}
    # Three excerpts of a long sound, and none of one that is too short.
    assert rows == {"words/misses": pytest.approx(3 / 4), "words/misses/one": 1.0, "words/misses/two_three": 0.0}
