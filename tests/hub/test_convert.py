"""The challenge baseline, converted: the same numbers as a forward that is written from its description."""

import json
import pickle

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from tiny import AUDIO_CONFIGS, noise, tiny_tokenizer
from torch import nn
from transformers import AutoModel, WavLMConfig, WavLMModel

from msfser.configuration_msfser import LABELS
from msfser.hub import convert

CONFIG = AUDIO_CONFIGS["wavlm"]
SIZE, WIDTH = CONFIG["hidden_size"], 24
MEAN, STD = -0.01, 0.2
LFS_POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:0123\nsize 1262000000\n"


@pytest.fixture(scope="module")
def parts():
    """Random weights with the names that they have in the baseline; the first output is around .2, the last .8."""
    torch.manual_seed(3)
    speech = WavLMModel(WavLMConfig(**{k: v for k, v in CONFIG.items() if k != "model_type"}))
    draw = torch.randn
    pool = {"sap_linear.weight": draw(SIZE, SIZE), "sap_linear.bias": draw(SIZE), "attention": draw(SIZE, 1)}
    ser = {"fc.0.0.weight": 0.1 * draw(WIDTH, 2 * SIZE), "fc.0.0.bias": draw(WIDTH)}
    ser |= {"fc.0.1.weight": draw(WIDTH), "fc.0.1.bias": draw(WIDTH)}
    ser |= {"out.0.weight": 0.02 * draw(3, WIDTH), "out.0.bias": torch.tensor([0.2, 0.5, 0.8])}
    return {"ssl": speech.state_dict(), "pool": pool, "ser": ser}


def baseline(parts, sound: np.ndarray) -> list[float]:
    """Arousal, dominance, valence of one sound."""
    speech = WavLMModel(WavLMConfig(**{k: v for k, v in CONFIG.items() if k != "model_type"})).eval()
    speech.load_state_dict(parts["ssl"])
    x = torch.tensor((sound - MEAN) / (STD + 0.000001))[None].float()
    with torch.no_grad():
        frames = speech(x, attention_mask=torch.ones_like(x)).last_hidden_state[0]
        pool, ser = parts["pool"], parts["ser"]
        hidden = torch.tanh(frames @ pool["sap_linear.weight"].T + pool["sap_linear.bias"])
        weights = torch.softmax(hidden @ pool["attention"], 0)
        mean = (weights * frames).sum(0)
        deviation = ((weights * frames**2).sum(0) - mean**2).clamp(min=1e-5).sqrt()
        vector = torch.cat([mean, deviation]) @ ser["fc.0.0.weight"].T + ser["fc.0.0.bias"]
        vector = nn.functional.layer_norm(vector, (WIDTH,), ser["fc.0.1.weight"], ser["fc.0.1.bias"]).relu()
        return (ser["out.0.weight"] @ vector + ser["out.0.bias"]).tolist()


def converted(parts, order=convert.ORDER):
    return convert.convert(parts, order, MEAN, STD, tiny_tokenizer(), CONFIG)


def predicted(model, processor, sound: np.ndarray) -> dict[str, float]:
    with torch.no_grad():
        return dict(zip(LABELS, model(**processor(sound, 16_000)).logits[0].tolist(), strict=True))


@pytest.mark.parametrize("seconds", [1.0, 2.7])
def test_the_numbers_are_those_of_the_baseline_by_their_names(parts, seconds):
    sound = noise(seconds)
    expected = dict(zip(("arousal", "dominance", "valence"), baseline(parts, sound), strict=True))
    assert predicted(*converted(parts), sound) == pytest.approx(expected, abs=1e-5)
    assert len({round(number, 2) for number in expected.values()}) == 3


def test_a_permuted_order_gives_other_numbers(parts):
    sound = noise(1.0)
    wrong = predicted(*converted(parts, ("valence", "arousal", "dominance")), sound)
    assert wrong["valence"] == pytest.approx(baseline(parts, sound)[0], abs=1e-5)


def test_numbers_stay_in_range_and_train_beyond_it(parts):
    far = {**parts, "ser": {**parts["ser"], "out.0.bias": torch.tensor([-2.0, 0.5, 3.0])}}
    model, processor = converted(far)
    assert predicted(model, processor, noise(1.0))["arousal"] == 0.0
    inputs = processor([noise(1.0), noise(1.3, 1)], 16_000)
    model.train()(**inputs, labels=torch.tensor([[0.1, 0.2, 0.3], [0.6, 0.7, 0.8]])).loss.backward()
    assert model.heads["arousal"].out.weight.grad.abs().sum() > 0


def test_the_model_is_saved_and_loaded_with_its_statistics(parts, tmp_path):
    model, processor = converted(parts)
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    again = AutoModel.from_pretrained(tmp_path, trust_remote_code=True)
    extractor = type(processor).from_pretrained(tmp_path).feature_extractor
    assert (extractor.mean, extractor.std) == (MEAN, STD + 1e-6)
    # Where a weight lies in memory decides about the last bits.
    assert predicted(again, processor, noise(1.0)) == pytest.approx(predicted(model, processor, noise(1.0)), abs=1e-6)


def test_folders_of_both_kinds_are_read(parts, tmp_path):
    script, hub = tmp_path / "script", tmp_path / "hub"
    script.mkdir(), hub.mkdir()
    for part in convert.PARTS:
        torch.save(parts[part], script / f"final_{part}.pt")
    save_file(
        {f"{part}_model.{n}": w.contiguous() for part in parts for n, w in parts[part].items()},
        hub / "model.safetensors",
    )
    names = {str(i): name for i, name in enumerate(convert.ORDER)}
    (hub / "config.json").write_text(json.dumps({"mean": MEAN, "std": STD, "id2label": names}))
    sound = noise(1.0)
    for found in (convert.read_baseline(script, MEAN, STD), convert.read_baseline(hub)):
        weights, order, mean, std = found
        numbers = predicted(*convert.convert(weights, order, mean, std, tiny_tokenizer(), CONFIG), sound)
        assert numbers["dominance"] == pytest.approx(baseline(parts, sound)[1], abs=1e-5)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda ser: ser.pop("fc.0.0.weight"), "not one hidden layer"),
        (lambda ser: ser.update({"out.0.weight": ser["out.0.weight"][:1]}), "1 outputs and not three"),
        (lambda ser: ser.pop("out.0.weight"), "0 outputs and not three"),
        (lambda ser: ser.update({"fc.0.0.bias": torch.zeros(3)}), "not the weights of the baseline"),
        (lambda ser: ser.pop("fc.0.1.bias"), "not the weights of the baseline: 'fc.0.1.bias' is missing"),
    ],
)
def test_other_weights_are_refused(parts, change, sentence):
    regressor = dict(parts["ser"])
    change(regressor)
    with pytest.raises(ValueError, match=sentence):
        converted({**parts, "ser": regressor})


@pytest.mark.parametrize("damage", [LFS_POINTER, b"", b"PK\3\4", pickle.dumps(print, 2), pickle.dumps(7, 2)])
@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "final_pool.pt"])
def test_a_damaged_file_is_named(parts, tmp_path, name, damage):
    for part in convert.PARTS:
        torch.save(parts[part], tmp_path / f"final_{part}.pt")
    if name == "model.safetensors":
        (tmp_path / "config.json").write_text("{}")
    (tmp_path / name).write_bytes(damage)
    with pytest.raises(ValueError, match=rf"{name} is missing, damaged, or only a pointer of git-lfs: download it"):
        convert.read_baseline(tmp_path, MEAN, STD)


def test_what_is_missing_is_said(parts, tmp_path):
    with pytest.raises(ValueError, match=r"final_ssl\.pt.*give the folder of the baseline"):
        convert.read_baseline(tmp_path)
    for part in convert.PARTS:
        torch.save(parts[part], tmp_path / f"final_{part}.pt")
    with pytest.raises(ValueError, match="give --mean and --std"):
        convert.read_baseline(tmp_path)
    with pytest.raises(ValueError, match="in any order"):
        converted(parts, ("arousal", "dominance", "happiness"))
    with pytest.raises(SystemExit, match="give the folder of the baseline"):
        convert.main([str(tmp_path / "nowhere"), str(tmp_path / "out")])
