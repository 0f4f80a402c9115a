"""The GPU benchmark at a tiny size on a CPU, and what only a GPU can show."""

import pytest
import torch
from tiny import tiny_config, tiny_model

from msfser.benchmarks import gpu

ROWS = [
    *("gpu_train_step/ratio", "gpu_train_step/seconds", "gpu_train_memory/gigabytes", "gpu_train_memory/ratio"),
    *("gpu_equal_batches/train_step", "gpu_equal_batches/train_memory"),
    *("gpu_inference/ratio", "gpu_inference/hours_per_hour", "gpu_equal_batches/inference"),
    *("gpu_ddp/loss_difference", "gpu_fsdp/loss_difference"),
]
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA GPU here")


def test_all_rows_are_measured_and_wrapping_changes_no_loss():
    rows = gpu.measure(tiny_config(), [1.0, 0.6, 1.3, 0.9], 2, torch.device("cpu"))
    assert [row["name"] for row in rows] == ROWS
    values = {row["name"]: row["value"] for row in rows}
    assert values["gpu_train_step/ratio"] > 0 and values["gpu_inference/hours_per_hour"] > 0
    assert values["gpu_ddp/loss_difference"] < 1e-3 and values["gpu_fsdp/loss_difference"] < 1e-3


def test_without_a_gpu_a_sentence_says_so(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit, match="no CUDA GPU here, and nothing is measured"):
        gpu.main([])
    with pytest.raises(SystemExit):
        gpu.main(["--repeats", "0"])


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_gpu_gives_the_numbers_of_a_cpu(precision):
    model, batch = tiny_model(), gpu._inputs(tiny_config(), [1.0, 0.6], torch.device("cpu"))
    with torch.no_grad():
        expected = model(**batch).logits
        model.cuda().set_precision(precision)
        found = model(**{name: tensor.cuda() for name, tensor in batch.items()}).logits
    assert found.dtype == torch.float32
    assert (found.cpu() - expected).abs().max() < (0.02 if precision == "bfloat16" else 1e-3)


@pytest.mark.gpu
@needs_gpu
def test_a_gpu_trains_in_bfloat16():
    model, batch = tiny_model(freeze_audio="none"), gpu._inputs(tiny_config(), [1.0, 0.6], torch.device("cuda"))
    gpu._loss(model.cuda().train(), batch).backward()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)
