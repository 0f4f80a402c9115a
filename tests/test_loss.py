import math

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from tiny import NO_DROPOUT, tiny_model, tiny_processor
from torch.nn.parallel import DistributedDataParallel
from transformers import Trainer, TrainingArguments
from transformers.utils import logging

from msfser import MsfSerCollator
from msfser.loss_msfser import UNRATED, ccc_loss, check_labels, concordance, logger
from msfser.training.collator import FeatureCollator


def naive_ccc(p, y):
    p, y = np.asarray(p, np.float64), np.asarray(y, np.float64)
    covariance = np.mean((p - p.mean()) * (y - y.mean()))
    return 2 * covariance / (p.var() + y.var() + (p.mean() - y.mean()) ** 2)


@pytest.mark.parametrize("items", [2, 7, 1000])
def test_ccc_equals_the_formula_in_float64(items):
    p, y = torch.rand(items, 3), torch.rand(items, 3)
    y[:, 1] = 0.5 * p[:, 1] + 0.1
    expected = [naive_ccc(p[:, d], y[:, d]) for d in range(3)]
    assert np.allclose(concordance(p, y), expected, atol=1e-6)
    assert abs(ccc_loss(p, y).item() - (3 - sum(expected))) < 1e-6 * 3


def test_ccc_is_one_for_equal_and_minus_one_for_opposite():
    y = torch.linspace(0, 1, 11)[:, None]
    assert torch.allclose(concordance(y, y), torch.ones(1))
    assert torch.allclose(concordance(1 - y, y), -torch.ones(1))


@pytest.mark.parametrize(
    ("p", "y"),
    [
        (torch.rand(1, 3), torch.rand(1, 3)),
        (torch.rand(4, 3), torch.full((4, 3), 0.5)),
        (torch.full((4, 3), 0.5), torch.rand(4, 3)),
        (torch.full((4, 3), 0.5), torch.full((4, 3), 0.5)),
    ],
    ids=["one item", "constant labels", "constant predictions", "both constant"],
)
def test_the_loss_is_finite_where_ccc_is_not_defined(p, y):
    p = p.clone().requires_grad_()
    loss = ccc_loss(p, y)
    loss.backward()
    assert loss.isfinite() and p.grad.isfinite().all()
    assert torch.allclose(loss, torch.tensor(3.0))


def test_half_precision_is_scored_in_float32():
    p, y = torch.rand(64, 3).half(), torch.rand(64, 3).half()
    assert ccc_loss(p, y).dtype == torch.float32
    assert torch.equal(ccc_loss(p, y), ccc_loss(p.float(), y.float()))


def batch(items: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(4, 20, (items, 5), generator=generator)
    return {
        "input_values": torch.randn(items, 4000, generator=generator),
        **{f"{name}_input_ids": ids for name in ("les", "gs", "es")},
        "labels": torch.rand(items, 3, generator=generator),
    }


def no_dropout_model():
    return tiny_model(freeze_audio="none", freeze_text=False, **NO_DROPOUT).train()


def one_rank(rank: int, address: str, queue) -> None:
    dist.init_process_group("gloo", init_method=address, rank=rank, world_size=2)
    wrapped = DistributedDataParallel(no_dropout_model())
    half = {name: tensor[rank * 4 : rank * 4 + 4] for name, tensor in batch(8).items()}
    loss = wrapped(**half).loss
    loss.backward()
    if rank == 0:
        gradients = {name: p.grad.numpy() for name, p in wrapped.module.named_parameters() if p.grad is not None}
        queue.put((loss.item(), gradients))
    dist.barrier()
    dist.destroy_process_group()


def test_two_processes_give_the_loss_and_gradients_of_one(tmp_path):
    model = no_dropout_model()
    loss = model(**batch(8)).loss
    loss.backward()

    context = mp.get_context("spawn")
    queue = context.SimpleQueue()
    workers = mp.spawn(one_rank, (f"file://{tmp_path / 'rendezvous'}", queue), nprocs=2, join=False)
    shared_loss, shared = queue.get()
    workers.join()

    assert abs(shared_loss - loss.item()) < 1e-5
    alone = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    assert alone.keys() == shared.keys() and len(alone) > 50
    assert max(np.abs(alone[name].numpy() - shared[name]).max() for name in alone) < 1e-5
    assert max(np.abs(gradient).max() for gradient in shared.values()) > 1e-3


@pytest.fixture
def second_of_two(monkeypatch):
    """This process as the second of two, of which the first has the first half of the rows of `scored`."""
    gathered = []

    def all_gather(parts: list[torch.Tensor], local: torch.Tensor) -> None:
        gathered.append(local)
        parts[0].copy_(first_halves[len(gathered) - 1])
        parts[1].copy_(local)

    first_halves = [half.float() for half in halves(0)]
    for name, value in {"is_initialized": True, "get_world_size": 2, "get_rank": 1}.items():
        monkeypatch.setattr(dist, name, lambda value=value: value)
    monkeypatch.setattr(dist, "all_gather", all_gather)
    return gathered


def halves(rank: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(2)
    p, y = torch.rand(8, 3, generator=generator), torch.rand(8, 3, generator=generator)
    return p[4 * rank : 4 * rank + 4], y[4 * rank : 4 * rank + 4]


def test_the_second_of_two_processes_has_the_loss_of_both_and_twice_the_gradient_of_its_rows(second_of_two):
    both = [torch.cat([halves(0)[i], halves(1)[i]]) for i in range(2)]
    whole = both[0].clone().requires_grad_()
    expected = (1 - concordance(whole, both[1])).sum()
    expected.backward()
    p, y = halves(1)
    p = p.clone().requires_grad_()
    loss = ccc_loss(p, y)
    loss.backward()
    assert len(second_of_two) == 2
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(p.grad, 2 * whole.grad[4:])


def test_evaluation_in_two_processes_scores_the_rows_of_each(second_of_two):
    with torch.no_grad():
        loss = ccc_loss(*halves(1))
    assert not second_of_two
    torch.testing.assert_close(loss, (1 - concordance(*halves(1))).sum())


def test_columns_that_differ_by_less_than_rounding_count_as_constant():
    y = torch.tensor([[0.0], [1e-4]], dtype=torch.float64)  # variances of 2.5e-9, a denominator of 5e-9
    assert concordance(y, y).item() == pytest.approx(0.5)


# Labels


@pytest.mark.parametrize("shape", [(3,), (3, 1), (1, 3), (2, 3), (3, 4), (3, 3, 1)])
def test_labels_of_another_shape_are_an_error(shape):
    inputs = {name: tensor for name, tensor in batch(3).items() if name != "labels"}
    with pytest.raises(ValueError, match=r"should be \(3, 3\)"):
        tiny_model()(**inputs, labels=torch.full(shape, 0.5))


@pytest.mark.parametrize("value", [-0.01, 1.01, 7.0, math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("training", [True, False])
def test_labels_outside_0_to_1_are_an_error_that_names_them(value, training):
    labels = torch.rand(3, 3)
    labels[2, 1] = value
    with pytest.raises(ValueError, match=r"arousal of item 2 .* is .* and should be in 0\.\.1"):
        tiny_model().train(training)(**batch(3) | {"labels": labels})


def test_the_ends_of_the_scale_are_labels():
    labels = torch.tensor([[0, 1, 0], [1, 0, 1], [1, 1, 0]])
    for given in (labels, labels.half(), labels.double(), labels.bool()):
        assert tiny_model()(**batch(3) | {"labels": given}).loss.isfinite()


def test_labels_are_checked_in_shape_alone_while_the_model_is_compiled():
    model, inputs = tiny_model(semantics=["gs"], audio=False), {"gs_embedding": torch.randn(3, 32)}
    labels = torch.rand(3, 3)
    expected = model(**inputs, labels=labels).loss
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(**inputs, labels=labels).loss, expected)


def test_a_batch_of_one_warns_once_that_nothing_is_learned(caplog, tmp_path):
    logging.warning_once.cache_clear()
    rows = [{name: tensor[0] for name, tensor in batch(1).items()}] * 3
    arguments = TrainingArguments(
        str(tmp_path), per_device_train_batch_size=1, num_train_epochs=1, report_to="none", use_cpu=True
    )
    caplog.set_level("WARNING", logger=logger.name)
    Trainer(tiny_model(), arguments, train_dataset=rows).train()
    said = [record for record in caplog.records if "batch of one item has no CCC" in record.message]
    assert len(said) == 1
    caplog.clear()
    with torch.no_grad():
        tiny_model()(**batch(1))
    tiny_model()(**batch(2))
    assert not caplog.records


def test_labels_at_the_ends_of_the_scale_are_accepted_and_the_first_wrong_one_is_named():
    check_labels(torch.tensor([[0.0, 1.0, 0.5], [1.0, 0.0, 0.5]]), 2)
    with pytest.raises(ValueError, match=r"The arousal of item 0 of the batch is 1\.5 and should be in 0\.\.1"):
        check_labels(torch.tensor([[0.0, 1.5, 0.5], [-1.0, 0.0, 0.5]]), 2)
    with pytest.raises(ValueError, match="The labels are list: give a tensor of shape"):
        check_labels([[0.1, 0.2, 0.3]], 1)


def test_no_other_device_is_waited_for_since_the_collators_look_at_the_labels():
    on_device = torch.empty(1, 3, device="meta")  # asking for its values is an error
    check_labels(on_device, 1)
    with pytest.raises(ValueError, match=r"should be \(2, 3\)"):
        check_labels(on_device, 2)
    rows = [{"valence": 0.5, "arousal": UNRATED, "dominance": value, "transcript": "a"} for value in (1.0, 1.5)]
    processor = tiny_processor()
    for collate in (MsfSerCollator(processor), FeatureCollator(processor)):
        assert collate(rows[:1])["labels"].tolist() == [[0.5, UNRATED, 1.0]]
        with pytest.raises(ValueError, match=r"The dominance of item 1 of the batch is 1\.5 and should be in 0\.\.1"):
            collate(rows)


def test_only_one_row_with_a_gradient_warns(caplog):
    caplog.set_level("WARNING", logger=logger.name)
    rows = torch.rand(2, 3, requires_grad=True)
    for given, warnings in ((rows, 0), (rows[:0], 0), (rows[:1].detach(), 0), (rows[:1], 1), (rows[:1], 1)):
        logging.warning_once.cache_clear() if not warnings else None
        ccc_loss(given, given.detach())
        assert len(caplog.records) == warnings


# Dimensions that are not rated


def masked(labels, *dimensions):
    labels = labels.clone()
    labels[:, list(dimensions)] = UNRATED
    return labels


def test_an_unrated_dimension_adds_no_loss_and_its_head_has_no_gradient():
    model, inputs = no_dropout_model(), batch(8)
    whole = model(**inputs)
    two = model(**inputs | {"labels": masked(inputs["labels"], 2)})
    expected = sum(1 - naive_ccc(whole.logits.detach()[:, d], inputs["labels"][:, d]) for d in range(2))
    assert abs(two.loss.item() - expected) < 1e-5
    two.loss.backward()
    heads = [parameter.grad for name, parameter in model.named_parameters() if name.startswith("heads.")]
    third = [parameter.grad for name, parameter in model.named_parameters() if name.startswith("heads.dominance.")]
    assert third and all(gradient is None or not gradient.any() for gradient in third)
    assert any(gradient is not None and gradient.any() for gradient in heads)
    assert ccc_loss(whole.logits, masked(inputs["labels"], 0, 1, 2)).item() == 0


def test_the_loss_counts_the_rated_items_of_each_dimension():
    p, y = torch.rand(40, 3, requires_grad=True), torch.rand(40, 3)
    given = y.clone()
    given[:10, 0], given[30:, 2] = UNRATED, UNRATED
    rows = (slice(10, None), slice(None), slice(None, 30))
    loss = ccc_loss(p, given)
    assert abs(loss.item() - sum(1 - naive_ccc(p.detach()[r, d], y[r, d]) for d, r in enumerate(rows))) < 1e-5
    loss.backward()
    assert not p.grad[:10, 0].any() and not p.grad[30:, 2].any() and p.grad[10:, 0].all() and p.grad.isfinite().all()


@pytest.mark.parametrize("count", [0, 1])
def test_few_rated_items_give_a_finite_loss_and_gradient(count):
    p, y = torch.rand(4, 3, requires_grad=True), torch.rand(4, 3)
    y[count:, 1] = UNRATED
    loss = ccc_loss(p, y)
    loss.backward()
    assert loss.isfinite() and p.grad.isfinite().all() and not p.grad[:, 1].any()


def test_all_items_rated_is_as_before_to_the_last_bit():
    p, y = torch.rand(64, 3), torch.rand(64, 3)
    assert torch.equal(ccc_loss(p, y), (1 - concordance(p, y)).sum())
    torch.testing.assert_close(
        concordance(p, y, torch.ones(64, 3, dtype=torch.bool)), concordance(p, y), atol=1e-7, rtol=0
    )


def test_unrated_labels_are_accepted_and_masked_while_the_model_is_compiled():
    check_labels(torch.tensor([[0.0, UNRATED, 0.5]]), 1)
    model, inputs = tiny_model(semantics=["gs"], audio=False), {"gs_embedding": torch.randn(3, 32)}
    labels = masked(torch.rand(3, 3), 1)
    expected = model(**inputs, labels=labels).loss
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(**inputs, labels=labels).loss, expected)
