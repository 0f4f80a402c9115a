"""The recordings of the benchmark of `msfser predict`, and what is read from the command's output."""

import numpy as np
import pytest

from msfser.audio_msfser import count_channels, load_audio
from msfser.benchmarks import predict

pytest.importorskip("av")


def test_the_recordings_are_mixed_and_five_are_broken(tmp_path):
    draw = np.random.default_rng(0)
    speech = draw.uniform(-0.5, 0.5, 16_000 * 20).astype(np.float32)
    predict.write_recordings(tmp_path / "in", speech, 45, 2.0, draw)
    files = sorted((tmp_path / "in").iterdir())
    assert len(files) == 45 and all(file.is_file() for file in files)
    seconds, channels = [], set()
    for file in files:
        if file.stem.isdecimal():
            seconds.append(len(load_audio(str(file))) / 16_000)
            channels.add(count_channels(str(file)))
        else:
            with pytest.raises((ValueError, OSError)):
                load_audio(str(file))
    assert len(seconds) == 40 and channels == {1, 2}
    assert min(seconds) == pytest.approx(0.3, abs=0.1) and max(seconds) == pytest.approx(2.0, abs=0.1)
    assert {file.suffix for file in files} == {f".{kind}" for kind in predict.KINDS}


def test_the_speed_and_the_shares_are_those_that_the_command_prints():
    log = "3 rows\ntook 2.5 s: wait 8%, encode 84%, rest 8%; meanwhile a thread decoded for 7% of the time."
    rows = predict.speed("speed", 0.5, [(100.0, "slow"), (90.0, log), (80.0, "fast")])
    assert (rows[0]["low"], rows[0]["high"]) == (18.0, 22.5)
    found = {row["name"]: row["value"] for row in rows}
    assert found == {
        "speed/hours_per_hour_and_core": 20.0,
        "predict/hours_per_core_hour": 20.0,
        "speed/start_seconds": 87.5,
        "speed/share_wait": 0.08,
        "speed/share_encode": 0.84,
        "speed/share_rest": 0.08,
        "speed/share_decode": 0.07,
    }
    with pytest.raises(SystemExit, match="does not say"):
        predict.speed("speed", 0.5, [(90.0, "3 rows")])
