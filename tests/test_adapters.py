"""LoRA by peft on a published model: it trains, saves, reloads and merges with equal numbers."""

import copy

import pytest
import torch
from tiny import NO_DROPOUT, noise, tiny_model, tiny_processor
from torch import nn
from transformers import Trainer, TrainingArguments
from transformers.models.wavlm.modeling_wavlm import WavLMAttention

from msfser import MsfSerCollator, MsfSerModel
from msfser.fast_encoders_msfser import slow_down
from msfser.training.trainer import MsfSerTrainer

peft = pytest.importorskip("peft", reason='peft is not installed: pip install ".[lora]"')

SPEECH, TEXT = ["q_proj", "v_proj"], ["query", "value"]
HEADS = ["heads", "missing_text", "missing_audio", "cross_fusion", "intra_fusion", "film", "pooling", "layer_mix"]
both = pytest.mark.parametrize("encoder", ["wavlm", "whisper"])


@pytest.fixture
def published(tmp_path):
    """A folder with a model whose encoders are frozen by its config."""

    def publish(encoder: str = "wavlm", **switches) -> str:
        folder = tmp_path / "published"
        model = tiny_model(encoder, **{"freeze_audio": "all", "audio_states": "weighted"} | switches, **NO_DROPOUT)
        generator = torch.Generator().manual_seed(1)
        with torch.no_grad():  # FiLM and the gate start neutral, and then nothing behind them gets a gradient
            for parameter in model.parameters():
                parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
        model.save_pretrained(folder)
        return str(folder)

    return publish


def inputs_for(encoder: str) -> dict[str, torch.Tensor]:
    sounds = [noise(s, i) for i, s in enumerate((0.9, 0.6, 1.3))]
    texts = {
        "transcript": ["the food was", "a", "b c"],
        "emphasis": ["food", None, "c"],
        "description": ["d e", "f", None],
    }
    return dict(tiny_processor(encoder)(sounds, sampling_rate=16_000, **texts))


def lora(folder: str, targets: list[str], **options) -> nn.Module:
    torch.manual_seed(0)
    config = peft.LoraConfig(r=2, lora_alpha=16, target_modules=targets, **options)
    return peft.get_peft_model(MsfSerModel.from_pretrained(folder), config)


def train(model: nn.Module, inputs: dict[str, torch.Tensor], steps: int = 4) -> None:
    labels = torch.tensor([[0.1, 0.5, 0.9], [0.6, 0.2, 0.3], [0.4, 0.8, 0.5]])
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=0.02)
    model.train()
    for _ in range(steps):
        optimizer.zero_grad()
        model(**inputs, labels=labels).loss.backward()
        optimizer.step()
    model.eval()


def predict(model: nn.Module, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(**inputs).logits


def check_equal(found: torch.Tensor, expected: torch.Tensor) -> None:
    """But for rounding: weights may be aligned otherwise in memory, which changes sums on some CPUs."""
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)


@both
@pytest.mark.parametrize("targets", [SPEECH, TEXT, "all-linear"], ids=["speech", "text", "all"])
def test_all_adapters_of_both_encoders_train(published, encoder, targets):
    model, inputs = lora(published(encoder), targets), inputs_for(encoder)
    adapters = {name: p for name, p in model.named_parameters() if "lora_" in name}
    assert len(adapters) == 8 if targets != "all-linear" else len(adapters) > 30
    assert {name for name, p in model.named_parameters() if p.requires_grad} == set(adapters)
    train(model, inputs)
    still = [name for name, p in adapters.items() if p.grad is None or not p.grad.any()]
    assert still == []
    is_trained = {
        name: any(f"{name}." in adapter for adapter in adapters) for name in ("audio_encoder", "text_encoder")
    }
    model.train()
    assert {name: getattr(model, name).training for name in is_trained} == is_trained


@both
@pytest.mark.parametrize("kept", [None, ["heads"], HEADS], ids=["adapters", "heads", "all parts"])
def test_train_save_reload_and_merge_with_equal_numbers(published, encoder, kept, tmp_path):
    folder, inputs = published(encoder), inputs_for(encoder)
    base = predict(MsfSerModel.from_pretrained(folder), inputs)
    model = lora(folder, [*SPEECH, *TEXT], modules_to_save=kept)
    check_equal(predict(model, inputs), base)
    train(model, inputs)
    trained = predict(model, inputs)
    assert (trained - base).abs().max() > 0.01
    if kept:
        moved = [n for n, p in model.named_parameters() if "modules_to_save" in n and not (p.grad is not None)]
        assert moved == []
    model.save_pretrained(tmp_path / "adapter")
    reloaded = peft.PeftModel.from_pretrained(MsfSerModel.from_pretrained(folder), str(tmp_path / "adapter"))
    check_equal(predict(reloaded, inputs), trained)
    with model.disable_adapter():
        check_equal(predict(model, inputs), base)
    merged = reloaded.merge_and_unload()
    assert type(merged) is MsfSerModel
    torch.testing.assert_close(predict(merged, inputs), trained, atol=1e-5, rtol=0)
    merged.save_pretrained(tmp_path / "merged")
    again, report = MsfSerModel.from_pretrained(tmp_path / "merged", output_loading_info=True)
    assert not any(report[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    check_equal(predict(again, inputs), predict(merged, inputs))


def test_an_adapter_folder_loads_by_itself(published, tmp_path):
    folder, inputs = published(), inputs_for("wavlm")
    model = lora(folder, SPEECH)
    train(model, inputs)
    model.save_pretrained(tmp_path / "adapter")
    loaded = MsfSerModel.from_pretrained(tmp_path / "adapter")
    torch.testing.assert_close(predict(loaded, inputs), predict(model, inputs), atol=1e-6, rtol=0)
    trainable = MsfSerModel.from_pretrained(folder)
    trainable.load_adapter(str(tmp_path / "adapter"), is_trainable=True)
    train(trainable, inputs, steps=1)
    assert sum("lora_" in name and p.grad is not None for name, p in trainable.named_parameters()) == 8


def test_adapters_of_the_library_train(published, monkeypatch):
    """`add_adapter` of transformers, without a model of peft around this one; it wants a newer peft than it needs."""
    monkeypatch.setattr("transformers.integrations.peft.check_peft_version", lambda **_: None)
    model, inputs = MsfSerModel.from_pretrained(published()), inputs_for("wavlm")
    model.add_adapter(peft.LoraConfig(r=2, target_modules=SPEECH))
    train(model, inputs)
    assert all(p.grad.any() for name, p in model.named_parameters() if "lora_" in name)


# WavLM's attention


@pytest.mark.parametrize(
    "options", [{}, {"use_dora": True}, {"init_lora_weights": "pissa"}], ids=["LoRA", "DoRA", "PiSSA"]
)
def test_merged_adapters_give_the_same_numbers_on_fast_and_stock_encoders(published, options, tmp_path):
    folder, inputs = published(), inputs_for("wavlm")
    model = lora(folder, [*SPEECH, "k_proj", "out_proj", "intermediate_dense", "output_dense"], **options)
    train(model, inputs)
    unmerged = predict(model, inputs)
    stock = slow_down(copy.deepcopy(model))
    with pytest.raises(ValueError, match=r"adapter on k_proj of .*attention.* has no effect.*merge"):
        predict(stock, inputs)
    with pytest.raises(ValueError, match="has no effect"):
        train(stock, inputs)
    for merged in (model, stock):
        merged.merge_adapter()
        torch.testing.assert_close(predict(merged, inputs), unmerged, atol=1e-5, rtol=0)
    with stock.disable_adapter(), pytest.raises(ValueError, match="unmerge"):
        predict(stock, inputs)
    stock.unmerge_adapter()
    model.unmerge_adapter()
    with stock.disable_adapter(), model.disable_adapter():
        torch.testing.assert_close(predict(stock, inputs), predict(model, inputs), atol=1e-5, rtol=0)


def test_adapters_on_stock_attention_are_refused(published):
    model = MsfSerModel.from_pretrained(published(), fast_encoders=False)
    assert type(model.audio_encoder.encoder.layers[0].attention) is WavLMAttention
    model = peft.get_peft_model(model, peft.LoraConfig(target_modules=SPEECH))
    with pytest.raises(ValueError, match=r"fast_encoders=True"):
        model.train()(**inputs_for("wavlm"))
    # Elsewhere they work.
    model = MsfSerModel.from_pretrained(published(), fast_encoders=False)
    model = peft.get_peft_model(model, peft.LoraConfig(target_modules=["intermediate_dense", *TEXT]))
    train(model, inputs_for("wavlm"))


def test_attention_weights_with_adapters(published):
    """They are those of the adapted projections, as after the merge."""
    folder, inputs = published(), inputs_for("wavlm")
    model = lora(folder, ["q_proj", "k_proj"])
    train(model, inputs)
    values = inputs["input_values"][:1]
    with torch.no_grad():
        found = model.audio_encoder(values, output_attentions=True)
        merged = slow_down(model.merge_and_unload()).audio_encoder(values, output_attentions=True)
    for ours, theirs in zip(found.attentions, merged.attentions, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)
    torch.testing.assert_close(found.last_hidden_state, merged.last_hidden_state, atol=1e-5, rtol=0)


def test_adapters_on_the_front_end_act_in_inference_too(published):
    folder, inputs = published(), inputs_for("wavlm")
    base = predict(MsfSerModel.from_pretrained(folder), inputs)
    model = lora(folder, r"audio_encoder\.feature_extractor\.conv_layers\.\d\.conv")
    train(model, inputs)
    unmerged = predict(model, inputs)
    assert (unmerged - base).abs().max() > 1e-3
    torch.testing.assert_close(predict(model.merge_and_unload(), inputs), unmerged, atol=1e-5, rtol=0)


def test_adapters_on_cross_modal_attention(published):
    """peft adapts the whole attention; an adapter on its output projection alone would change nothing."""
    folder, inputs = published(cross_fusion="attention"), inputs_for("wavlm")
    model = lora(folder, r"cross_fusion\.attention")
    train(model, inputs)
    unmerged = predict(model, inputs)
    torch.testing.assert_close(predict(model.merge_and_unload(), inputs), unmerged, atol=1e-5, rtol=0)
    with pytest.raises(ValueError, match="adapter on out_proj of attention has no effect"):
        predict(lora(folder, ["out_proj"]), inputs)


def test_whispers_positions_with_an_adapter(published):
    folder, inputs = published("whisper"), inputs_for("whisper")
    model = lora(folder, ["embed_positions"])
    train(model, inputs)
    unmerged = predict(model, inputs)
    assert (unmerged - predict(MsfSerModel.from_pretrained(folder), inputs)).abs().max() > 1e-3
    torch.testing.assert_close(predict(model.merge_and_unload(), inputs), unmerged, atol=1e-5, rtol=0)


def test_a_folder_never_has_the_layers_of_an_adapter(published, tmp_path):
    """They would be missing and unexpected weights when it is loaded."""
    model = lora(published(), SPEECH)
    with pytest.raises(ValueError, match="save the model that peft made"):
        model.get_base_model().save_pretrained(tmp_path / "folder")
    assert not (tmp_path / "folder").exists()


def test_8_bit_layers_wait_for_the_merge(published):
    model, inputs = lora(published(), SPEECH), inputs_for("wavlm")
    train(model, inputs)
    with pytest.raises(ValueError, match="merge_and_unload"):
        model.get_base_model().quantize()
    expected = predict(model, inputs)
    merged = model.merge_and_unload()
    assert (predict(merged.quantize(), inputs) - expected).abs().max() < 0.03


# Trainer


def rows(encoder: str) -> list[dict]:
    labels = ("valence", "arousal", "dominance")
    return [
        {"audio": {"array": noise(0.5 + 0.1 * i, i), "sampling_rate": 16_000}, "transcript": "a b", "length": 1.0}
        | {label: (i + 2 * d) % 5 / 4 for d, label in enumerate(labels)}
        for i in range(8)
    ]


@both
@pytest.mark.parametrize("ours", [True, False], ids=["MsfSerTrainer", "Trainer"])
@pytest.mark.parametrize("checkpointing", [True, False])
def test_trainer_trains_adapters(published, encoder, ours, checkpointing, tmp_path):
    from datasets import Dataset

    folder, processor = published(encoder), tiny_processor(encoder)
    model = lora(folder, [*SPEECH, *TEXT], modules_to_save=["heads"])
    arguments = TrainingArguments(
        str(tmp_path / "run"),
        num_train_epochs=2,
        per_device_train_batch_size=4,
        learning_rate=0.02,
        gradient_checkpointing=checkpointing,
        remove_unused_columns=False,
        eval_strategy="epoch",
        save_strategy="epoch",
        report_to="none",
        use_cpu=True,
        disable_tqdm=True,
    )
    options = {"encoder_learning_rate": 0.02} if ours else {}
    data = Dataset.from_list(rows(encoder))
    trainer = (MsfSerTrainer if ours else Trainer)(
        model, arguments, MsfSerCollator(processor), data, data, processing_class=processor, **options
    )
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    trainer.train()
    moved = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    assert moved == {name for name, p in model.named_parameters() if p.requires_grad}
    predictions = trainer.predict(data).predictions
    trainer.save_model(str(tmp_path / "saved"))
    reloaded = peft.PeftModel.from_pretrained(MsfSerModel.from_pretrained(folder), str(tmp_path / "saved"))
    logits = predict(reloaded, dict(processor([row["audio"] for row in rows(encoder)], transcript=["a b"] * 8)))
    torch.testing.assert_close(torch.tensor(predictions), logits, atol=1e-5, rtol=0)


# Old checkpoints


def test_parameters_have_the_names_that_they_had(published):
    names = set(tiny_model(cross_fusion="fm_moe").state_dict())
    assert {
        "heads.valence.hidden.weight",
        "heads.dominance.out.bias",
        "missing_text.gs.embedding",
        "cross_fusion.experts.audio.project.weight",
    } <= names
    assert not any("names" in name or "Parallel" in name for name in names)


def test_whispers_convolutions_may_be_adapted_and_trained_in_bfloat16(published):
    model, inputs = lora(published("whisper"), ["conv1", "conv2"]), inputs_for("whisper")
    with torch.autocast("cpu", torch.bfloat16):
        train(model, inputs)
    assert all(weight.abs().max() > 0 for name, weight in model.named_parameters() if "lora_B" in name)


def test_whispers_convolutions_have_their_stock_class_again():
    encoder = tiny_model("whisper").audio_encoder
    assert type(slow_down(encoder).conv1) is type(encoder.conv2) is nn.Conv1d
