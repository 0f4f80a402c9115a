"""The saved folder alone, in a process without the package."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import noise, tiny_model, tiny_processor
from transformers import Trainer, TrainingArguments

from msfser import MsfSerCollator, MsfSerModel


def load_as_a_stranger(folder: Path, tmp_path: Path) -> dict[str, np.ndarray]:
    environment = os.environ | {"HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "1"}
    script = Path(__file__).parent / "remote.py"
    run = subprocess.run(
        [sys.executable, "-I", str(script), str(folder), str(tmp_path / "predictions.npz")],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    return dict(np.load(tmp_path / "predictions.npz"))


@pytest.mark.parametrize("encoder", ["whisper", "wavlm"])
def test_the_folder_loads_without_the_package_and_predicts_the_same(encoder, tmp_path):
    folder = tmp_path / "model"
    model, processor = tiny_model(encoder, audio_states="weighted"), tiny_processor(encoder)
    rows = [
        {
            "audio": {"array": noise(0.6, i), "sampling_rate": 16_000},
            "valence": i / 4,
            "arousal": 0.5,
            "dominance": 0.1,
        }
        for i in range(4)
    ]
    arguments = TrainingArguments(tmp_path / "run", max_steps=2, remove_unused_columns=False, use_cpu=True)
    trainer = Trainer(model, arguments, MsfSerCollator(processor), train_dataset=rows, processing_class=processor)
    trainer.train()
    trainer.save_model(folder)
    model = trainer.model.eval()
    predictions = load_as_a_stranger(folder, tmp_path)

    sound = (np.random.default_rng(0).standard_normal(24_000) * 0.1).astype(np.float32)
    texts = {"transcript": "the food was wonderful", "emphasis": "was wonderful", "description": "a b c"}
    with torch.no_grad():
        full = model(**processor(sound, sampling_rate=16_000, **texts)).logits[0].numpy()
        alone = model(**processor(sound, sampling_rate=16_000)).logits[0].numpy()
    # Loaded weights lie in a mapped file, where their addresses are not aligned; that moves the last bit of a sum on
    # some CPUs (copied to aligned memory, the same weights give the same bits).
    last_bit = 1.2e-7
    same = {"model": full, "classifier": full, "pipeline_texts": full, "audio_only": alone, "pipeline": alone}
    for name, expected in same.items():
        assert np.abs(predictions[name] - expected).max() <= last_bit, name
    assert np.abs(predictions["pipeline_batch"] - alone).max() < 1e-5
    assert not np.array_equal(full, alone)


def test_the_folder_holds_code_and_safetensors_and_no_machine_path(tmp_path):
    tiny_model().save_pretrained(tmp_path)
    tiny_processor().save_pretrained(tmp_path)
    names = {path.name for path in tmp_path.iterdir()}
    assert {"model.safetensors", "config.json", "processor_config.json"} <= names
    root = Path(__file__).parents[1]
    assert {path.name for path in root.glob("*_msfser.py")} <= names
    assert not [name for name in names if name.endswith((".bin", ".pt", ".pkl"))]
    config = json.loads((tmp_path / "config.json").read_text())
    assert set(config["auto_map"]) == {"AutoConfig", "AutoModel", "AutoModelForAudioClassification"}
    assert config["custom_pipelines"]["audio-classification"]["impl"] == "pipeline_msfser.MsfSerPipeline"
    assert not [path.name for path in tmp_path.glob("*.json") if str(root) in path.read_text()]


def test_a_folder_saved_again_keeps_both_auto_classes(tmp_path):
    tiny_model().save_pretrained(tmp_path / "a")
    MsfSerModel.from_pretrained(tmp_path / "a").save_pretrained(tmp_path / "b")
    first, second = (json.loads((tmp_path / name / "config.json").read_text())["auto_map"] for name in ("a", "b"))
    assert first == second and len(first) == 3


def test_a_sound_of_noise_is_no_constant(tmp_path):
    """Guards the comparison above: the tiny model predicts different numbers for different sounds."""
    model, processor = tiny_model(), tiny_processor()
    with torch.no_grad():
        predictions = [model(**processor(noise(1.0, seed), sampling_rate=16_000)).logits for seed in (0, 1)]
    assert not torch.equal(*predictions)
