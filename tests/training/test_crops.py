"""Crops of cached states: which frames a training step uses, and what is padding."""

import numpy as np
import pytest
import torch
from tiny import tiny_model
from transformers import TrainingArguments

from msfser.training import collator
from msfser.training.collator import FeatureCollator
from msfser.training.crops import Crop, padded
from msfser.training.trainer import MsfSerTrainer


def clip(frames: int, states: int = 3, size: int = 4) -> torch.Tensor:
    """Each frame has its number."""
    return torch.arange(frames).half()[None, :, None].expand(states, frames, size).contiguous()


@pytest.mark.parametrize(
    ("frames", "crop", "counts"),
    [
        (50, Crop(20), {20}),
        (50, Crop(20, 4), {5}),
        (50, Crop(0, 4), {12, 13}),
        (50, Crop(0), {50}),
        (20, Crop(20), {20}),
        (7, Crop(20, 4), {1, 2}),
        (2, Crop(20, 4), {1}),
        (1, Crop(20, 4), {1}),
        (7, Crop(3, 4), {1}),
        (2, Crop(3, 4), {1}),
    ],
)
def test_a_crop_has_every_so_many_th_frame_of_a_random_part(frames, crop, counts):
    draw, firsts, found = np.random.default_rng(0), set(), set()
    for _ in range(200):
        part = crop.of(clip(frames), draw)
        at = part[0, :, 0].long()
        assert part.shape[::2] == (3, 4) and (at.diff() == crop.stride).all()
        assert at[-1] - at[0] < (crop.frames or frames) and at[-1] < frames
        found.add(len(at))
        firsts.add(int(at[0]))
    assert found == counts
    # The whole clip is used: each frame can be the first of a crop that fits.
    spare = max(frames - (crop.frames or frames), 0)
    assert firsts == set(range(min(spare + min(crop.stride, crop.frames or frames), frames)))


def test_padding_is_masked_and_zero():
    batch = padded([clip(3), None, clip(5)])
    assert batch["audio_states"].shape == (3, 3, 5, 4) and batch["audio_states"].dtype == torch.half
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 0, 0], [0] * 5, [1] * 5]
    assert batch["audio_states"][:, 0, :, 0].tolist() == [[0, 1, 2, 0, 0], [0] * 5, [0, 1, 2, 3, 4]]
    assert padded([None, None]) == {}


def test_crops_depend_on_the_batch_and_the_seed_alone(monkeypatch):
    clips = {f"folder/piece#{name}": clip(90) for name in "abc"}
    moved = {f"elsewhere/other#{name}": clip(90) for name in "abc"}
    monkeypatch.setattr(collator, "load", (clips | moved).get)

    def frames(names, seed=0):
        rows = [{"audio_states": name} for name in names]
        return FeatureCollator(Tokens(), Crop(20, 4), seed)(rows)["audio_states"][:, 0, :, 0].tolist()

    made = frames(clips)
    assert made == frames(clips) == frames(moved)
    assert made != frames(clips, seed=1) and made != frames(reversed(clips))[::-1]
    assert made[0] != made[1]


class Tokens:
    """A processor without texts."""

    def tokens(self, name, texts):
        return {}


def test_mixing_weights_learn_faster_and_do_not_decay(tmp_path):
    model = tiny_model("whisper", audio_states="weighted", freeze_audio="none")
    training = TrainingArguments(str(tmp_path), learning_rate=1e-3, weight_decay=0.1, use_cpu=True, report_to="none")
    trainer = MsfSerTrainer(model, training, encoder_learning_rate=1e-5, mixing_lr_scale=20.0)
    rates = {
        id(weight): (group["lr"], group["weight_decay"])
        for group in trainer.create_optimizer().param_groups
        for weight in group["params"]
    }
    for weight in (model.layer_mix.scores, model.cross_fusion.routing.table):
        assert rates.pop(id(weight)) == (0.02, 0.0)
    assert rates[id(model.audio_projection.weight)] == (1e-3, 0.1)
    assert rates[id(model.audio_projection.bias)] == (1e-3, 0.0)
    assert rates[id(model.audio_encoder.layers[0].fc1.weight)] == (1e-5, 0.1)
    assert {rate for rate, _ in rates.values()} == {1e-3, 1e-5}
