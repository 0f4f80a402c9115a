"""The text encoder of the starters: a low-rank update of the published one."""

import re

import pytest
import torch
from safetensors.torch import load_file
from starter_sentences import write_sentences
from tiny_run import make_tiny
from torch import nn

from msfser.modeling_msfser import MsfSerModel
from msfser.starter import fit_text_encoder as fitting
from msfser.starter import text_encoder as module
from msfser.starter.assemble import STARTERS, WEIGHTS


def encoder() -> nn.Module:
    torch.manual_seed(0)
    return nn.ModuleDict({"query": nn.Linear(6, 5), "out": nn.Linear(5, 4)})


def changed(rank: int) -> nn.Module:
    made = encoder()
    torch.manual_seed(1)
    with torch.no_grad():
        made["query"].weight += torch.randn(5, rank) @ torch.randn(rank, 6)
    return made


def test_the_update_makes_the_trained_encoder_of_the_published_one(tmp_path):
    module.write_update(encoder(), changed(2), 2, tmp_path / "update.safetensors")
    update = load_file(tmp_path / "update.safetensors")
    assert {name: tuple(part.shape) for name, part in update.items()} == {"query.up": (5, 2), "query.down": (2, 6)}
    found = encoder()
    module.adapt_text_encoder(found, tmp_path / "update.safetensors")
    for name, weight in changed(2).named_parameters():
        torch.testing.assert_close(found.get_parameter(name), weight)


def test_only_low_rank_changes_of_matrices_are_written(tmp_path):
    with pytest.raises(ValueError, match=r"the change of query\.weight has a rank above 1: "):
        module.write_update(encoder(), changed(2), 1, tmp_path / "update.safetensors")
    other = encoder()
    with torch.no_grad():
        other["out"].bias += 1
    with pytest.raises(ValueError, match=r"^out\.bias is no matrix: "):
        module.write_update(encoder(), other, 1, tmp_path / "update.safetensors")
    assert not any(tmp_path.iterdir())


def test_an_update_of_another_encoder_and_a_missing_one_are_sentences(tmp_path):
    file = tmp_path / "update.safetensors"
    with pytest.raises(OSError, match=re.escape(f"{file} is missing: install the package again")):
        module.adapt_text_encoder(encoder(), file)
    module.write_update(encoder(), changed(2), 2, file)
    with pytest.raises(ValueError, match="does not fit the text encoder"):
        module.adapt_text_encoder(nn.ModuleDict({"query": nn.Linear(7, 5)}), file)


def test_with_the_update_a_starter_is_small():
    size = module.TEXT_WEIGHTS.stat().st_size
    assert all((one.folder / WEIGHTS).stat().st_size + size <= 5_000_000 for one in STARTERS.values())


def test_the_update_is_fitted_to_sentences(tmp_path, monkeypatch, capsys):
    pytest.importorskip("peft")
    tiny, file = make_tiny(tmp_path / "tiny"), tmp_path / "update.safetensors"
    write_sentences(tmp_path / "data" / "goemotions")
    monkeypatch.setattr(fitting, "TEXT_ENCODER", str(tiny / "text"))
    monkeypatch.setattr(fitting, "TEXT_WEIGHTS", file)
    monkeypatch.setattr(fitting, "SENTENCES", 4)
    monkeypatch.setattr(fitting, "ensure_encoders", lambda names: None)
    settings = fitting.SETTINGS.read_text().replace(
        "per_device_train_batch_size: 64", "per_device_train_batch_size: 2"
    )
    (tmp_path / "settings.yaml").write_text(settings.replace("bf16: true", "bf16: false"))
    monkeypatch.setattr(fitting, "SETTINGS", tmp_path / "settings.yaml")
    fitting.main(["--data", str(tmp_path / "data")])
    assert re.search(r"CCC on the validation sentences: valence -?\d", capsys.readouterr().out)
    model = MsfSerModel.from_encoders(None, str(tiny / "text"), audio=False, semantics=["gs"])
    before = {name: weight.clone() for name, weight in model.text_encoder.named_parameters()}
    module.adapt_text_encoder(model.text_encoder, file)
    moved = {name for name, weight in model.text_encoder.named_parameters() if not torch.equal(weight, before[name])}
    assert moved == {name for name in before if name.endswith(("query.weight", "value.weight"))}
