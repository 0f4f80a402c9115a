"""Which parameters get gradients: all that want one, whatever a batch lacks, and no others."""

import itertools

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from tiny import AUDIO_CONFIGS, NO_DROPOUT, TEXT_CONFIG, noise, tiny_config, tiny_model, tiny_processor
from torch.nn.parallel import DistributedDataParallel
from transformers import AutoConfig, AutoModel

from msfser import MsfSerModel
from msfser.configuration_msfser import SEMANTICS
from msfser.fusion_msfser import drop_inputs

LIVE = {"freeze_audio": "none", "freeze_text": False}


def sounds(model: MsfSerModel, seconds=(0.9, 0.6)) -> dict[str, torch.Tensor]:
    processor = tiny_processor("whisper" if model.config.is_mel else "wavlm")
    return dict(processor([noise(s, i) for i, s in enumerate(seconds)], sampling_rate=16_000))


def text(name: str) -> dict[str, torch.Tensor]:
    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]])
    return {f"{name}_input_ids": torch.tensor([[4, 5, 6, 7], [8, 9, 1, 1]]), f"{name}_attention_mask": mask}


def without_gradient(model: MsfSerModel, inputs: dict[str, torch.Tensor]) -> list[str]:
    model.zero_grad(set_to_none=True)
    model(**inputs, labels=torch.tensor([[0.1, 0.5, 0.9], [0.6, 0.2, 0.3]])).loss.backward()
    wanted = [(name, p.grad) for name, p in model.named_parameters() if p.requires_grad]
    assert all(gradient is None or gradient.isfinite().all() for _, gradient in wanted)
    return [name for name, gradient in wanted if gradient is None]


# WavLM's config lacks the last field, which its forward reads.
AUGMENTED = {"mask_time_prob": 0.5, "mask_time_length": 10, "mask_feature_prob": 0.1, "mask_feature_min_masks": 0}
GRID = {
    **{encoder: {"audio_config": config} for encoder, config in AUDIO_CONFIGS.items()},
    "SpecAugment": {"audio_config": AUDIO_CONFIGS["wavlm"] | AUGMENTED},
    "SpecAugment off": {"audio_config": AUDIO_CONFIGS["wavlm"] | AUGMENTED | {"apply_spec_augment": False}},
    "features alone": {"audio_config": AUDIO_CONFIGS["wavlm"] | AUGMENTED | {"mask_time_prob": 0.0}},
    "HuBERT, SpecAugment off": {"audio_config": AUDIO_CONFIGS["hubert"] | AUGMENTED | {"apply_spec_augment": False}},
    "weighted": {"audio_states": "weighted", "film_position": "frames"},
    "weighted Whisper": {"audio_config": AUDIO_CONFIGS["whisper"], "audio_states": "weighted", "routing": "input"},
    "frozen": {"freeze_audio": "all", "freeze_text": True},
    "front end frozen": {"freeze_audio": "front_end"},
    "stock": {"fast_encoders": False},
    "FiLM": {"cross_fusion": "film", "film_position": "frames"},
    "attention": {"cross_fusion": "attention", "intra_fusion": "attention"},
    "concatenation": {"cross_fusion": "concat", "intra_fusion": "concat"},
    "no sound": {"audio": False},
    "no texts": {"semantics": [], "cross_fusion": "concat"},
    "challenge baseline": {"semantics": [], "cross_fusion": "none"},
    "ES alone": {"semantics": ["es"]},
    "LES alone": {"semantics": ["les"]},
}


@pytest.mark.parametrize("row", GRID)
def test_each_parameter_that_wants_a_gradient_gets_one_whatever_the_batch_lacks(row):
    torch.manual_seed(0)
    model = MsfSerModel(tiny_config(**LIVE | GRID[row])).train()
    of_input = {name: text(name) for name in model.config.semantics}
    if model.config.audio:
        of_input["audio"] = sounds(model)
    sizes = range(1, len(of_input) + 1) if row in ("wavlm", "whisper", "SpecAugment") else (1, len(of_input))
    for size in sizes:
        for names in itertools.combinations(of_input, size):
            inputs = {key: value for name in names for key, value in of_input[name].items()}
            assert without_gradient(model, inputs) == [], names


@pytest.mark.parametrize("kind", ["bert", "roberta", "xlm-roberta", "electra", "mpnet", "distilbert", "albert"])
def test_each_parameter_of_a_text_encoder_gets_a_gradient(kind, tmp_path):
    names = {"dim": 32, "n_layers": 2, "n_heads": 2, "hidden_dim": 48, "embedding_size": 32}
    of_kind = AutoConfig.for_model(kind, **{k: v for k, v in TEXT_CONFIG.items() if k != "model_type"} | names)
    model = MsfSerModel(tiny_config(text_config=of_kind, audio=False, **LIVE)).train()
    assert without_gradient(model, text("gs")) == []
    AutoModel.from_config(of_kind).save_pretrained(tmp_path)
    loaded = MsfSerModel.from_encoders(None, str(tmp_path), audio=False, freeze_text=False, fusion_size=16)
    assert without_gradient(loaded.train(), text("gs")) == []


def test_an_absent_branch_changes_no_number():
    model = tiny_model(**LIVE, **NO_DROPOUT)
    alone = text("gs")
    with torch.no_grad():
        expected = model(**alone).logits
    assert torch.equal(model.train()(**alone).logits, expected)


# Freezing


@pytest.mark.parametrize("encoder", ["wavlm", "whisper"])
def test_gradients_follow_the_parameters(encoder):
    model = tiny_model(encoder, freeze_audio="all", freeze_text=True, **NO_DROPOUT)
    inputs = sounds(model) | text("gs")
    labels = torch.tensor([[0.1, 0.5, 0.9], [0.6, 0.2, 0.3]])
    model.train()
    assert not model.audio_encoder.training and not model.text_encoder.training
    model.audio_encoder.requires_grad_(True)
    model.text_encoder.requires_grad_(True)
    model.train()
    assert model.audio_encoder.training and model.text_encoder.training
    for step in range(3):  # FiLM starts neutral
        model.zero_grad()
        model(**inputs, labels=labels).loss.backward()
        if step < 2:
            torch.optim.SGD(model.parameters(), lr=1.0).step()
    for part in (model.audio_encoder, model.text_encoder):
        parameters = list(part.parameters())
        assert len(parameters) > 30 and all(p.grad is not None for p in parameters)
        assert sum(bool(p.grad.any()) for p in parameters) > 0.8 * len(parameters)
    model.audio_encoder.requires_grad_(False)
    assert not model.train().audio_encoder.training
    assert not model.encode_audio(**{k: v for k, v in inputs.items() if not k.startswith("gs")})[0].requires_grad


def test_a_part_of_a_frozen_encoder_can_be_trained():
    model = tiny_model(freeze_audio="all", freeze_text=True)
    layer = model.audio_encoder.encoder.layers[1]
    layer.requires_grad_(True)
    assert without_gradient(model.train(), sounds(model)) == []
    assert layer.attention.q_proj.weight.grad.any()
    assert all(p.grad is None for p in model.audio_encoder.encoder.layers[0].parameters())


def test_a_frozen_stock_front_end_records_no_gradients():
    model = tiny_model(freeze_audio="all", fast_encoders=False)
    model.audio_encoder.encoder.requires_grad_(True)
    seen = []
    model.audio_encoder.feature_extractor.register_forward_hook(lambda _, __, out: seen.append(out.requires_grad))
    assert without_gradient(model.train(), sounds(model)) == []
    assert seen == [False]


def test_the_sound_gets_a_gradient_if_it_wants_one():
    model = tiny_model(freeze_audio="all")
    inputs = sounds(model)
    inputs["input_values"].requires_grad_(True)
    model(**inputs).logits.sum().backward()
    assert inputs["input_values"].grad.any()


# Dropout of inputs


def test_an_item_keeps_one_of_its_inputs():
    torch.manual_seed(0)
    n = 20_000
    present = {name: torch.ones(n, dtype=torch.bool) for name in ("les", "gs", "audio")}
    present["gs"][: n // 2] = False
    present["audio"][:10] = False
    present["les"][:10] = False  # no input at all
    shares = {"les": 0.5, "gs": 0.3, "audio": 0.2}
    kept = drop_inputs(present, shares)
    assert all(not (kept[name] & ~present[name]).any() for name in kept)
    there = torch.stack([*kept.values()]).any(0)
    assert there[10:].all() and not there[:10].any()
    full, rest = slice(n // 2, n), 1 - 0.5 * 0.3 * 0.2
    for name, share in shares.items():
        # All three are drawn with probability 0.03; then each is kept with probability 1/3.
        expected = 1 - share + (1 - rest) / 3
        assert kept[name][full].double().mean().item() == pytest.approx(expected, abs=0.015), name


@pytest.mark.parametrize("only", ["audio", *SEMANTICS])
def test_the_only_input_of_an_item_is_never_dropped(only):
    kept = drop_inputs({only: torch.ones(1000, dtype=torch.bool)}, {only: 0.9})
    assert kept[only].all()


def test_an_acoustic_model_never_trains_on_the_missing_input_embedding_alone():
    model = tiny_model(semantics=[], cross_fusion="concat", **NO_DROPOUT | {"audio_dropout": 0.9}).train()
    model(**sounds(model, [0.5] * 2), labels=torch.rand(2, 3)).loss.backward()
    assert not model.missing_audio.embedding.grad.any()


# Several processes


def batch_of_rank(rank: int) -> dict[str, torch.Tensor]:
    """The second process has no sound, and another text than the first."""
    model = tiny_model()
    inputs = text("gs") | sounds(model) if rank == 0 else text("les")
    return inputs | {"labels": torch.tensor([[0.1, 0.5, 0.9], [0.6, 0.2, 0.3]]) - 0.05 * rank}


def one_rank(rank: int, address: str, queue) -> None:
    dist.init_process_group("gloo", init_method=address, rank=rank, world_size=2)
    torch.manual_seed(0)
    audio = AUDIO_CONFIGS["wavlm"] | AUGMENTED | {"apply_spec_augment": False}
    model = MsfSerModel(tiny_config(audio_config=audio, **LIVE, **NO_DROPOUT))
    model.activation_checkpointing_enable({"use_reentrant": False})
    wrapped = DistributedDataParallel(model.train())
    inputs = batch_of_rank(rank)
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    for _ in range(3):  # a parameter without a gradient is noticed in the next step
        optimizer.zero_grad()
        wrapped(**inputs).loss.backward()
        optimizer.step()
    if rank == 0:
        lacking = [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None]
        queue.put((lacking, model.audio_encoder.encoder.layers[0].attention.q_proj.weight.grad.abs().max().item()))
    dist.barrier()
    dist.destroy_process_group()


def test_two_processes_train_where_one_has_no_sound(tmp_path):
    queue = mp.get_context("spawn").SimpleQueue()
    workers = mp.spawn(one_rank, (f"file://{tmp_path / 'rendezvous'}", queue), nprocs=2, join=False)
    workers.join()
    lacking, largest = queue.get()
    assert lacking == [] and largest > 0
