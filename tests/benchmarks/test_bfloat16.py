"""The rows of the bfloat16 benchmark at a tiny size; no time is asserted."""

import json
import subprocess

import pytest
from tiny import AUDIO_CONFIGS, tiny_model

from msfser.benchmarks import bfloat16, encoder_step
from msfser.encoders_msfser import waveform_states
from msfser.evaluation.results import read
from msfser.fast_products_msfser import has_bfloat16

TINY = AUDIO_CONFIGS["wavlm"]


@pytest.mark.skipif(not has_bfloat16(), reason="this CPU has no bfloat16 instructions")
def test_inference_compares_float32_and_bfloat16_of_both_sides(monkeypatch):
    seen = []

    def noting(encoder, values, mask, fast):
        states, frames = waveform_states(encoder, values, mask, fast)
        kind, dtype = type(encoder.feature_extractor).__name__, str(encoder.dtype)
        seen.append((kind, dtype, len(values), fast, str(states[0].dtype)))
        return states, frames

    monkeypatch.setattr(bfloat16, "waveform_states", noting)
    rows = {row["name"]: row["value"] for row in bfloat16.inference([1.0, 0.6, 1.3], 1, TINY, single=0.5)}
    assert {"wavlm_bf16/ratio", "wavlm_bf16_vs_stock_bf16/ratio", "wavlm_bf16_single/ratio"} <= set(rows)
    assert "wavlm_bf16_vs_stock_bf16_alone/ratio" in rows
    assert min(rows.values()) > 0
    assert ("WavLMFeatureEncoder", "torch.float32", 3, False, "torch.float32") in seen
    for count, alone in ((3, False), (3, True), (1, False)):
        assert ("WavLMFeatureEncoder", "torch.bfloat16", count, alone, "torch.bfloat16") in seen
    assert ("MsfSerWavLMFrontEnd", "torch.float32", 1, True, "torch.float32") in seen


def test_multiplications_are_those_of_the_linear_layers():
    encoder = tiny_model().audio_encoder
    frames = int(encoder._get_feat_extract_output_lengths(16_000))
    per_frame = 2 * (4 * 32 * 32 + 2 * 32 * 48)
    assert bfloat16._multiplications(encoder, [1.0, 1.0]) == 2 * frames * per_frame


@pytest.mark.parametrize("variant", encoder_step.VARIANTS)
def test_a_step_has_a_time_and_a_peak(variant):
    assert min(encoder_step.step(variant, 2, 0.5, TINY).values()) > 0


def test_training_divides_stock_by_ours(monkeypatch):
    seconds = {"stock": 9.0, "stock_bf16": 6.0, "ours_bf16": 3.0}
    peaks = {"stock": 10e9, "stock_bf16": 8e9, "ours_bf16": 5e9}

    def run(command, **options):
        output = "a note\n" + json.dumps({"seconds": seconds[command[-1]], "peak_bytes": peaks[command[-1]]})
        return subprocess.CompletedProcess(command, 0, output, "")

    monkeypatch.setattr(subprocess, "run", run)
    rows = {row["name"]: row["value"] for row in bfloat16.training([], 2)}
    assert rows == {
        "train_bf16/ratio": 3.0,
        "train_bf16_vs_stock_bf16/ratio": 2.0,
        "train_bf16_memory/ratio": 0.5,
        "train_bf16_memory/gigabytes": 5.0,
        "train_bf16/hours_per_hour": 16.0,
        "train_bf16/seconds": 3.0,
    }
    monkeypatch.setattr(subprocess, "run", lambda command, **_: subprocess.CompletedProcess(command, 1, "", "killed"))
    with pytest.raises(SystemExit, match="ended with 1: killed"):
        bfloat16.training([], 1)


def test_rows_say_where_they_were_measured_and_other_cpus_are_refused(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("msfser.benchmarks.command.RESULTS", tmp_path)
    monkeypatch.setitem(bfloat16.ROWS, "inference", lambda seconds, repeats: [bfloat16.ratio("a", [4.0], [2.0])])
    monkeypatch.setattr(bfloat16, "has_bfloat16", lambda: True)
    bfloat16.main(["inference"])
    row = read(tmp_path / "speed.json")["a"]
    assert row["command"] == "python -m msfser.benchmarks.bfloat16 inference --repeats 5" and "processor" in row
    monkeypatch.setattr(bfloat16, "has_bfloat16", lambda: False)
    with pytest.raises(SystemExit, match="neither AVX512-BF16 nor AMX"):
        bfloat16.main(["inference"])
    with pytest.raises(SystemExit):
        bfloat16.main(["fast"])
    assert "no such group of rows" in capsys.readouterr().err
