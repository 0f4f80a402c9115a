"""The peers of the encoders at a tiny size: all compute the same states, and rows divide by ours."""

import numpy as np
import pytest
import torch
from tiny import AUDIO_CONFIGS, noise, tiny_model, tiny_processor

from msfser.benchmarks import encoder_peers
from msfser.fast_products_msfser import has_bfloat16
from msfser.pipeline_msfser import MsfSerPipeline

for package in ("onnx", "onnxscript", "onnxruntime"):
    pytest.importorskip(package)
REDUCED = {"ours_bfloat16", "stock_bfloat16", "compiled_bfloat16"} if has_bfloat16() else set()


def test_all_systems_encode_the_same_clip_of_any_length(tmp_path):
    torch._dynamo.reset()
    systems = encoder_peers.encoders(AUDIO_CONFIGS["wavlm"], tmp_path, backend="eager")
    assert systems.keys() == {"ours", "stock", "compiled", "onnx_stock", "onnx_ours"} | REDUCED
    for seconds in (0.7, 1.3):
        clip = noise(seconds)
        expected = systems["stock"](clip)
        for name in ("ours", "compiled", *REDUCED):
            assert (systems[name](clip).float() - expected).abs().max() < (0.1 if name in REDUCED else 1e-4), name
        (found,) = systems["onnx_stock"](clip)
        np.testing.assert_allclose(found, expected, atol=1e-3)
        assert systems["onnx_ours"](clip)[0].shape == (1, 3)


def test_egemaps_and_the_starter_read_a_clip():
    pytest.importorskip("opensmile")
    pipe = MsfSerPipeline(tiny_model(), processor=tiny_processor(), recognizer=None, describer=None)
    systems = encoder_peers.descriptions(pipe)
    assert systems["egemaps"](noise(1.0)).shape == (1, 88) and "arousal" in systems["starter"](noise(1.0))


def test_rows_divide_by_ours_in_the_same_precision(monkeypatch):
    seconds = {"ours": 2, "stock": 6, "ours_bfloat16": 1, "stock_bfloat16": 4, "starter": 0.5, "egemaps": 2}
    done = []
    monkeypatch.setattr(
        encoder_peers, "interleaved", lambda tasks, repeats: {name: [seconds[name]] * repeats for name in tasks}
    )
    rows = encoder_peers.measure({name: lambda clip: done.append(len(clip)) for name in seconds}, [3.0, 1.0], 2)
    values = {row["name"].removeprefix("encoder_peers/"): row["value"] for row in rows}
    assert done == [48_000, 16_000] * len(seconds)
    assert values["stock/ratio"] == 3 and values["stock_bfloat16/ratio"] == 4 and values["egemaps/ratio"] == 4
    assert values["ours/ratio"] == 1 and values["starter/ratio"] == 1 and values["ours/hours_per_hour"] == 2


def test_a_missing_package_is_a_sentence(monkeypatch, capsys):
    monkeypatch.setattr(encoder_peers.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SystemExit):
        encoder_peers.main([])
    assert 'onnx is missing: pip install "msfser[onnx]".' in capsys.readouterr().err
