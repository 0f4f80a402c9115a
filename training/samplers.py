"""The order of training items: batches by seconds, and groups of similar length that every process draws alike."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch.utils.data import Sampler
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_pt_utils import LengthGroupedSampler

# Items of one bucket differ by at most this factor in length, unless more are needed ...
_SPREAD = 1.05
# ... to fill this many batches, among which the items are shuffled.
_MIX = 4


class SecondsBatchSampler(Sampler[list[int]]):
    """Random batches of items of similar length, as many as fit a number of seconds, for `DataLoader(batch_sampler=)`.

    Items are sorted into buckets by length; in each epoch new batches are drawn from each bucket, then shuffled. What
    does not fill a batch joins the next longer bucket, so that each epoch has the same number of batches.

    For several processes the batches come in groups, one for each process, with the same number of items in each:
    the loss gathers them. `accelerate` deals them out.

    Args:
        lengths: Seconds of each item as the encoder gets it.
        seconds: Items times longest of a batch at most, except where that leaves fewer than two items.
        most: Items in a batch at most.
        seed: Of the order, together with the epoch.
        processes: How many there are.
        drop_last: Leave out the long items of an epoch that do not fill a batch, unless no batch is full. Fewer than
            two for all processes are left out in any case.

    Raises:
        ValueError: There are too few items for a batch.
    """

    # What accelerate reads: batches differ in size, and none is left over.
    batch_size = None
    drop_last = True

    def __init__(
        self,
        lengths: Sequence[float],
        seconds: float,
        most: int,
        seed: int = 0,
        processes: int = 1,
        drop_last: bool = False,
    ):
        self.lengths = np.asarray(lengths, dtype=float)
        self.seconds, self.most, self.seed, self.processes = seconds, most, seed, processes
        # CCC is a statistic of the batch of all processes, and needs two items.
        self._least = -(-2 // processes)
        self._keeps_rest = not drop_last
        self._buckets = self._make_buckets()
        self.epoch = 0
        self._length = len(self._draw())
        if not self._length and drop_last:
            self._keeps_rest = True
            self._length = len(self._draw())
        if not self._length:
            raise ValueError(
                f"{len(self.lengths)} items do not fill a batch of {most} on {processes} processes: lower "
                "per_device_train_batch_size or batch_seconds."
            )

    def set_epoch(self, epoch: int) -> None:
        """The epoch that is drawn next."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self._length * self.processes

    def __iter__(self) -> Iterator[list[int]]:
        for group in self._draw():
            for batch in group:
                yield batch.tolist()

    def padding(self) -> float:
        """The share of the batches of this epoch that is padding, 0..1."""
        batches = [self.lengths[batch] for batch in self]
        padded = sum(len(lengths) * lengths.max() for lengths in batches)
        return 1 - sum(lengths.sum() for lengths in batches) / padded if padded else 0.0

    def _make_buckets(self) -> list[tuple[np.ndarray, int]]:
        """Items and batch size of each bucket, short ones first."""
        order = np.argsort(self.lengths, kind="stable")
        lengths = self.lengths[order]
        buckets, stop = [], len(order)
        while stop:
            longest = lengths[stop - 1]
            size = _count(self.seconds, longest, self._least, self.most)
            similar = int(np.searchsorted(lengths, longest / _SPREAD))
            start = max(0, min(similar, stop - _MIX * size * self.processes))
            buckets.append((order[start:stop], size))
            stop = start
        return buckets[::-1]

    def _draw(self) -> list[np.ndarray]:
        """The groups of one epoch, each `(processes, items)`."""
        chance = np.random.default_rng((self.seed, self.epoch))
        groups: list[np.ndarray] = []
        rest = np.array([], dtype=int)
        for items, size in self._buckets:
            drawn = chance.permutation(np.concatenate([rest, items]))
            whole = len(drawn) // (size * self.processes) * size * self.processes
            groups += list(drawn[:whole].reshape(-1, self.processes, size))
            rest = drawn[whole:]
        size = len(rest) // self.processes
        if self._keeps_rest and size >= self._least:
            groups.append(rest[: size * self.processes].reshape(self.processes, size))
        return [groups[i] for i in chance.permutation(len(groups))]


class SeededLengthGroups(LengthGroupedSampler):
    """Groups of similar length, in the same order in each process and in an epoch that is resumed.

    The library draws the order from the state of all random numbers. That differs between processes once they have
    drawn dropout for batches of different lengths, and an epoch that is resumed begins with another.
    """

    def __init__(self, sampler: LengthGroupedSampler, seed: int):
        super().__init__(sampler.batch_size, lengths=sampler.lengths)
        self.seed = seed
        self.set_epoch(0)

    def set_epoch(self, epoch: int) -> None:
        """The epoch that is drawn next."""
        self.generator = torch.Generator().manual_seed(self.seed + epoch)


class SetEpochCallback(TrainerCallback):
    """Tells a sampler the epoch."""

    def __init__(self, sampler: SecondsBatchSampler | SeededLengthGroups):
        self.sampler = sampler

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        """Sets the epoch that begins."""
        self.sampler.set_epoch(int(state.epoch or 0))


def _count(budget: float, size: float, least: int, most: int) -> int:
    """How many items of a size fit."""
    return most if size * most <= budget else min(most, max(least, int(budget / size)))
