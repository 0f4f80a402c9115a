import math

import numpy as np
import pytest
import torch
from tiny import AUDIO_CONFIGS, TEXT_CONFIG, noise, tiny_model, tiny_processor

from msfser import MsfSerModel
from msfser.hub import export as command
from msfser.intervals_msfser import MsfSerIntervals, set_intervals

for package in ("onnx", "onnxscript"):
    pytest.importorskip(package, reason='exporting needs its packages: pip install "msfser[onnx]"')
onnxruntime = pytest.importorskip("onnxruntime", reason='exporting needs its packages: pip install "msfser[onnx]"')

TEXTS = ("transcript", "emphasis", "description")
# One layer of each encoder: a trace takes seconds for each.
MODELS = {
    "wavlm": ("wavlm", {}),
    "whisper": ("whisper", {"text_config": {**TEXT_CONFIG, "model_type": "bert", "num_hidden_layers": 1}}),
    "neither gate nor routing": ("wavlm", {"semantics": ["es"], "cross_fusion": "concat", "fast_encoders": False}),
}


def strong(model: MsfSerModel) -> MsfSerModel:
    """Fusion and heads that tell their inputs apart; at first they are all but constant."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if not name.startswith(("audio_encoder", "text_encoder")):
                weight += 0.3 * torch.randn(weight.shape, generator=generator)
    return model


@pytest.fixture(scope="module", params=MODELS)
def exported(request, tmp_path_factory):
    """A model, its processor and a session of its exported file."""
    kind, switches = MODELS[request.param]
    layers = "encoder_layers" if kind == "whisper" else "num_hidden_layers"
    given = {"text_config": {**TEXT_CONFIG, "num_hidden_layers": 1}, **switches}
    folder = tmp_path_factory.mktemp("export")
    model = strong(tiny_model(kind, audio_config={**AUDIO_CONFIGS[kind], layers: 1}, **given))
    if kind == "whisper":
        intervals = MsfSerIntervals().requires_grad_(False)
        intervals.quantiles.copy_(torch.linspace(0.01, 0.4, intervals.quantiles.numel()).view_as(intervals.quantiles))
        set_intervals(model, intervals)
    model.save_pretrained(folder / "model")
    path = folder / "model.onnx"
    command.main([str(folder / "model"), str(path)])
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return MsfSerModel.from_pretrained(folder / "model").eval(), tiny_processor(kind), session, path


def fed(session, inputs: dict[str, torch.Tensor]) -> dict[str, np.ndarray]:
    """What the processor made, and rows of zeros for what it did not."""
    batch = len(next(iter(inputs.values())))
    sizes = {"batch": batch, "samples": 8_000, "mel_frames": 50}
    zeros = {
        wanted.name: np.zeros(
            [size if isinstance(size, int) else sizes.get(size, 1) for size in wanted.shape],
            np.float32 if "float" in wanted.type else np.int64,
        )
        for wanted in session.get_inputs()
    }
    return {name: inputs[name].numpy() if name in inputs else array for name, array in zeros.items()}


def differences(model, session, inputs) -> dict[str, float]:
    names = [output.name for output in session.get_outputs()]
    with torch.no_grad():
        expected = model(**inputs, output_explanations=True)
    found = session.run(names, fed(session, inputs))
    return {name: np.abs(array - expected[name].numpy()).max() for name, array in zip(names, found, strict=True)}


@pytest.mark.parametrize("seconds", [(0.5,), (2.215,), (1.3, 3.141), (0.61, 0.93, 2.2, 0.5)])
def test_other_batches_and_lengths_give_the_model_s_numbers(exported, seconds):
    model, processor, session, _ = exported
    words = ["the food was wonderful", "a b", "but dreadful a b c d e f g", "h"]
    texts = {name: [*words[i:], *words[:i]][: len(seconds)] for i, name in enumerate(TEXTS)}
    inputs = processor([noise(length, i) for i, length in enumerate(seconds)], sampling_rate=16_000, **texts)
    assert max(differences(model, session, inputs).values()) < 1e-5
    if len(seconds) > 1:
        assert model(**inputs).logits.std(0).max() > 0.01  # else nothing was compared


def test_an_absent_input_is_a_row_of_zeros(exported):
    model, processor, session, _ = exported
    sounds = [noise(1.1), noise(0.7, 1), None]
    some = {
        "transcript": [None, "a b", "the food"],
        "emphasis": ["a", None, "food"],
        "description": [None, "a", "b c"],
    }
    for inputs in (
        processor(sounds, sampling_rate=16_000, **some),
        processor(noise(0.83), sampling_rate=16_000),  # no text at all
        processor(transcript="the food was", description="a b c"),  # no sound at all
    ):
        assert max(differences(model, session, inputs).values()) < 1e-5


def test_names_of_inputs_outputs_and_axes(exported):
    model, _, session, _ = exported
    sound = "input_features" if model.config.is_mel else "input_values"
    length = "mel_frames" if model.config.is_mel else "samples"
    texts = [f"{name}_{part}" for name in model.config.semantics for part in ("input_ids", "attention_mask")]
    assert [wanted.name for wanted in session.get_inputs()] == [sound, "attention_mask", *texts]
    assert session.get_inputs()[1].shape == ["batch", length]
    assert session.get_inputs()[-1].shape == ["batch", "es_tokens"]
    full = model.config.cross_fusion == "fm_moe"
    ends = ["low", "high"] if model.config.intervals else []
    expected = ["logits", *ends, *(["gate", "routing"] if full else [])]
    assert [output.name for output in session.get_outputs()] == expected


def test_the_check_notices_another_model(exported):
    model, _, _, path = exported
    assert command.compare(model, path) < 1e-5
    weight = model.heads["arousal"].out.bias
    with torch.no_grad():
        weight += 0.01
        try:
            assert command.compare(model, path) > command.TOLERANCE
        finally:
            weight -= 0.01


@pytest.mark.parametrize("difference", [1e-3, math.nan])
def test_a_difference_is_an_error_and_the_file_stays(tmp_path, monkeypatch, difference):
    monkeypatch.setattr(command, "_load", lambda folder: tiny_model())
    monkeypatch.setattr(command, "_write", lambda model, path: path.write_text("graph"))
    monkeypatch.setattr(command, "compare", lambda model, path: difference)
    with pytest.raises(SystemExit, match="was written, but it differs from the model by"):
        command.main(["folder", str(tmp_path / "model.onnx")])
    assert (tmp_path / "model.onnx").read_text() == "graph"


@pytest.mark.parametrize("kind", ["wav2vec2_group_norm", "data2vec-audio"])
def test_encoders_that_run_item_by_item_are_refused(tmp_path, kind):
    tiny_model(kind).save_pretrained(tmp_path / "model")
    with pytest.raises(SystemExit, match="runs item by item"):
        command.main([str(tmp_path / "model"), str(tmp_path / "model.onnx")])
    assert not (tmp_path / "model.onnx").exists()


def test_what_cannot_be_read_or_written_is_said(tmp_path, monkeypatch):
    with pytest.raises(SystemExit, match=r"nowhere.* has no config\.json: give the output of msfser train"):
        command.main([str(tmp_path / "nowhere"), str(tmp_path / "model.onnx")])
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(SystemExit, match="type 'bert', not 'msfser'"):
        command.main([str(tmp_path), str(tmp_path / "model.onnx")])
    with pytest.raises(SystemExit, match=r"does not end with \.onnx: name the output so"):
        command.main([str(tmp_path), str(tmp_path)])
    monkeypatch.setattr(command.importlib.util, "find_spec", lambda name: None if name == "onnxscript" else name)
    with pytest.raises(SystemExit, match=r'needs onnxscript: pip install "msfser\[onnx\]"'):
        command.main([str(tmp_path), str(tmp_path / "model.onnx")])
