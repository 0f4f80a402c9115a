"""Batches by seconds: complete, within the budget, with little padding, equal for equal seeds, even over processes."""

import itertools
from types import SimpleNamespace

import numpy as np
import pytest
from accelerate.data_loader import BatchSamplerShard
from transformers import TrainerState

from msfser.training.batches import batches_by_size, batches_in_order
from msfser.training.samplers import SecondsBatchSampler, SetEpochCallback

# As in corpora of conversation: most are short, some are long.
LENGTHS = np.random.default_rng(0).gamma(4, 1.2, 1000).clip(0.5, 12)


def test_a_callback_tells_the_sampler_the_epoch_that_begins():
    told = []
    callback = SetEpochCallback(SimpleNamespace(set_epoch=told.append))
    for epoch in (None, 0.0, 1.0, 2.5):
        callback.on_epoch_begin(None, TrainerState(epoch=epoch), None)
    assert told == [0, 0, 1, 2]


def sampler(**options) -> SecondsBatchSampler:
    return SecondsBatchSampler(LENGTHS, **{"seconds": 60, "most": 32} | options)


def padding(batches: list[list[int]]) -> float:
    padded = sum(len(batch) * LENGTHS[batch].max() for batch in batches)
    return 1 - sum(LENGTHS[batch].sum() for batch in batches) / padded


def test_every_item_once_in_an_epoch():
    batches = sampler()
    for epoch in range(5):
        batches.set_epoch(epoch)
        drawn = [item for batch in batches for item in batch]
        assert sorted(drawn) == list(range(len(LENGTHS)))
        assert len(list(batches)) == len(batches)


def test_the_budget_holds():
    sizes = set()
    for batch in sampler():
        assert 2 <= len(batch) <= 32
        assert len(batch) * LENGTHS[batch].max() <= 60
        sizes.add(len(batch))
    assert max(sizes) > 4 * min(sizes)


def test_two_items_are_a_batch_even_beyond_the_budget():
    batches = list(sampler(seconds=5))
    assert min(map(len, batches)) == 2
    assert all(len(batch) == 2 or len(batch) * LENGTHS[batch].max() <= 5 for batch in batches)


def test_there_is_less_padding_than_in_random_batches():
    batches = sampler()
    order = np.random.default_rng(1).permutation(len(LENGTHS))
    random = padding([order[i : i + 12].tolist() for i in range(0, len(order), 12)])
    assert batches.padding() == pytest.approx(padding(list(batches)))
    assert batches.padding() < 0.12 < 0.4 < random


def test_the_order_follows_seed_and_epoch():
    first, second = sampler(), sampler()
    assert list(first) == list(second)
    second.set_epoch(1)
    assert list(first) != list(second)
    # Not the batches alone, their items are new.
    common = {frozenset(batch) for batch in first} & {frozenset(batch) for batch in second}
    assert len(common) < len(first) / 10
    second.set_epoch(0)
    assert list(first) == list(second) != list(sampler(seed=1))


@pytest.mark.parametrize("drop_last", [False, True])
def test_processes_get_other_items_and_as_many(drop_last):
    whole = sampler(processes=2, drop_last=drop_last)
    for epoch in range(3):
        whole.set_epoch(epoch)
        parts = [list(BatchSamplerShard(whole, 2, rank, even_batches=False)) for rank in range(2)]
        assert [len(batch) for batch in parts[0]] == [len(batch) for batch in parts[1]]
        assert len(parts[0]) == len(BatchSamplerShard(whole, 2, 0, even_batches=False)) == len(whole) // 2
        drawn = [item for part in parts for batch in part for item in batch]
        assert len(drawn) == len(set(drawn)) and len(LENGTHS) - len(drawn) < (10 if drop_last else 2)


def test_few_items_and_items_without_sound():
    assert sorted(item for batch in SecondsBatchSampler([0.0, 0.0, 3.0], 10, 8) for item in batch) == [0, 1, 2]
    # No batch of 8 is full, so the rest is kept.
    assert [sorted(batch) for batch in SecondsBatchSampler([1.0, 2.0, 3.0], 100, 8, drop_last=True)] == [[0, 1, 2]]
    with pytest.raises(ValueError, match="1 items do not fill a batch of 8"):
        SecondsBatchSampler([1.0], 100, 8)


def test_what_is_left_of_a_list_is_cut_as_before():
    sizes = sorted(LENGTHS, reverse=True)
    batches = batches_by_size(sizes, 60, 16)
    assert [i for batch in batches for i in batch] == list(range(len(sizes)))
    assert all(len(batch) * sizes[batch[0]] <= 60 for batch in batches)
    done = sum(map(len, batches[:7]))
    rest = batches_by_size(sizes[done:], 60, 16)
    assert [list(batch + done) for batch in rest] == [list(batch) for batch in batches[7:]]
    assert [list(batch) for batch in batches_by_size([9.0, 1.0], 5, 4)] == [[0], [1]]


def test_batches_in_order_hold_the_budget_and_every_item():
    batches = [batch.tolist() for batch in batches_in_order(LENGTHS, 60, 16)]
    assert [item for batch in batches for item in batch] == list(range(len(LENGTHS)))
    assert all(len(batch) * LENGTHS[batch].max() <= 60 and len(batch) <= 16 for batch in batches)
    # None could take the first item of the next one.
    for batch, (item, *_) in itertools.pairwise(batches):
        assert len(batch) == 16 or (len(batch) + 1) * LENGTHS[[*batch, item]].max() > 60
    assert [batch.tolist() for batch in batches_in_order([9, 1, 0, 0], 5, 2)] == [[0], [1, 2], [3]]
    assert batches_in_order([], 5, 2) == []
