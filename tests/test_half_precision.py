"""Weights in half precision: inputs in float32 as the processor makes them, on a CPU."""

import copy

import numpy as np
import pytest
import torch
from datasets import Dataset
from tiny import AUDIO_CONFIGS, TEXT_CONFIG, noise, tiny_model, tiny_processor
from transformers import Trainer, TrainingArguments

from msfser import LABELS, MsfSerCollator, MsfSerModel
from msfser.pipeline_msfser import MsfSerPipeline

HALF = pytest.mark.parametrize("precision", [torch.bfloat16, torch.float16], ids=["bfloat16", "float16"])
SECONDS = (0.9, 0.6, 1.3)
TEXTS = {
    "transcript": ["the food was", "a", None],
    "emphasis": ["food", None, "b c"],
    "description": ["d e", "f", "g"],
}


def spread(encoder: str = "wavlm", **switches) -> MsfSerModel:
    """Fusion and heads that tell their inputs apart; at first they are all but constant."""
    model = tiny_model(encoder, **switches)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if not name.startswith(("audio_encoder", "text_encoder")):
                parameter += 0.2 * torch.randn(parameter.shape, generator=generator)
    return model


def inputs_for(encoder: str):
    sounds = [noise(s, i) for i, s in enumerate(SECONDS)]
    return tiny_processor(encoder)(sounds, sampling_rate=16_000, **TEXTS)


@HALF
@pytest.mark.parametrize("encoder", AUDIO_CONFIGS)
@pytest.mark.parametrize(
    "switches",
    [
        {},
        {"audio_states": "weighted", "film_position": "frames", "routing": "input", "fast_encoders": False},
        {"cross_fusion": "attention", "intra_fusion": "attention"},
    ],
    ids=["default", "frames", "attention"],
)
def test_the_model_reads_what_the_processor_makes(encoder, precision, switches):
    model, inputs = spread(encoder, freeze_audio="none", freeze_text=False, **switches), inputs_for(encoder)
    half = copy.deepcopy(model).to(precision)
    with torch.no_grad():
        expected, found = model(**inputs).logits, half(**inputs).logits
    assert found.dtype == torch.float32 and expected.std(0).min() > 1e-3
    torch.testing.assert_close(found, expected, atol=0.03 if precision == torch.bfloat16 else 0.004, rtol=0)
    loss = half.train()(**inputs, labels=torch.rand(3, 3)).loss
    loss.backward()
    assert loss.dtype == torch.float32
    assert all(p.grad.isfinite().all() for p in half.parameters() if p.grad is not None)


@HALF
def test_encoded_parts_of_another_precision(precision):
    model, inputs = spread(), inputs_for("wavlm")
    with torch.no_grad():
        states, mask = model.encode_audio(input_values=inputs["input_values"], attention_mask=inputs["attention_mask"])
        text = model.encode_text(inputs["gs_input_ids"], inputs["gs_attention_mask"])
        expected = model(audio_states=states, attention_mask=mask, gs_embedding=text).logits
        given = {"audio_states": states.to(precision), "attention_mask": mask, "gs_embedding": text.to(precision)}
        assert (model(**given).logits - expected).abs().max() < 0.01
        given = {"audio_states": states.double(), "attention_mask": mask, "gs_embedding": text.double()}
        assert torch.equal(model(**given).logits, expected)
        # Frozen encoders in half precision, the rest as it is trained.
        model.audio_encoder.to(precision)
        model.text_encoder.to(precision)
        assert (model(**inputs).logits - spread()(**inputs).logits).abs().max() < 0.03


@HALF
def test_the_mean_of_a_long_text_neither_overflows_nor_loses_digits(precision, monkeypatch):
    model = tiny_model(text_config=TEXT_CONFIG | {"max_position_embeddings": 700}).to(precision)
    states = torch.linspace(150.0, 250.0, 32).to(precision).expand(1, 601, 32)
    output = type("Output", (), {"last_hidden_state": states})()
    monkeypatch.setattr(model.text_encoder, "forward", lambda **_: output)
    mean = model.encode_text(torch.ones(1, 601, dtype=torch.long), torch.ones(1, 601))
    assert torch.equal(mean, states[:, 0])


@HALF
def test_the_pipeline(precision):
    model = spread(audio_states="weighted")
    given = {"audio": noise(1.3), "sampling_rate": 16_000, "transcript": "the food was", "description": "d e"}
    results = [
        MsfSerPipeline(of, processor=tiny_processor(), recognizer=None, describer=None)(given)
        for of in (model, copy.deepcopy(model).to(precision))
    ]
    expected, found = ([result[label] for label in LABELS] for result in results)
    assert found == pytest.approx(expected, abs=0.03)
    assert results[1]["gate"] == pytest.approx(results[0]["gate"], abs=0.03)


@HALF
def test_trainer_evaluates_and_predicts(precision, tmp_path):
    model = spread("whisper")
    rows = Dataset.from_list(
        [
            {"audio": {"array": noise(s, i), "sampling_rate": 16_000}, "transcript": "a b", **dict.fromkeys(LABELS, v)}
            for i, (s, v) in enumerate(((0.9, 0.1), (0.6, 0.5), (1.3, 0.9)))
        ]
    )
    found = []
    for of in (model, copy.deepcopy(model).to(precision)):
        arguments = TrainingArguments(
            str(tmp_path), per_device_eval_batch_size=2, remove_unused_columns=False, report_to="none", use_cpu=True
        )
        trainer = Trainer(of, arguments, MsfSerCollator(tiny_processor("whisper")), rows, rows)
        assert np.isfinite(trainer.evaluate()["eval_loss"])
        found.append(trainer.predict(rows).predictions)
    assert found[1].shape == (3, 3) and found[1].dtype == np.float32
    np.testing.assert_allclose(found[1], found[0], atol=0.03)
