"""Features that are made once, by one process while the others wait, as far as there is room for them."""

import itertools
import logging
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import datasets
import numpy as np
from datasets.utils import tqdm

from .batches import batches_by_size
from .feature_store import FeatureStore, size_of

logger = logging.getLogger(__name__)

# What is given to an encoder at a time: seconds of sound with padding, or characters.
_BUDGET = {"audio": 96.0, "text": 16_384.0}


class Job(NamedTuple):
    """What one frozen encoder has to encode.

    Args:
        key: Of the encoder.
        kind: `audio` or `text`.
        sizes: Items to seconds or characters.
        most: Items in a batch at most.
        encode: Encodes a batch of items.
        threads: Batches that are encoded at once.
    """

    key: str
    kind: str
    sizes: Mapping[str, float]
    most: int
    encode: Callable[[Sequence[str]], list[np.ndarray]]
    threads: int = 1


def open_store(gigabytes: float) -> FeatureStore:
    """The store in the cache of `datasets`, with a limit in units of 1e9 bytes."""
    return FeatureStore(Path(datasets.config.HF_DATASETS_CACHE) / "msfser_features", gigabytes * 1e9)


def features_of(job: Job, store: FeatureStore) -> dict[str, str] | None:
    """Item to address of its features, made where they are not there; `None` where there is no room for them."""
    found = store.find(job.key, job.sizes)
    if len(found) < len(job.sizes):
        with store.making(job.key):
            found = store.find(job.key, job.sizes)
            missing = sorted(item for item in job.sizes if item not in found)
            if missing:
                return _encode_missing(job, missing, found, store)
    kept = size_of(found.values())
    if not store.reserve(0) and kept > store.limit:
        _warn_of_no_room(job.kind, kept, store)
        return None
    return found


def _encode_missing(
    job: Job, missing: Sequence[str], found: dict[str, str], store: FeatureStore
) -> dict[str, str] | None:
    sizes = [job.sizes[item] for item in missing]
    batches = [[missing[i] for i in batch] for batch in batches_by_size(sizes, _BUDGET[job.kind], job.most)]

    def encoded(batch: Sequence[str]) -> dict[str, np.ndarray]:
        return dict(zip(batch, job.encode(batch), strict=True))

    # The first batch tells how large the rest will be: by its seconds, and texts are all alike.
    first = encoded(batches[0])
    measure = job.sizes if job.kind == "audio" else dict.fromkeys(job.sizes, 1.0)
    share = sum(measure[item] for item in batches[0]) / sum(measure[item] for item in missing)
    need = int(sum(tensor.nbytes for tensor in first.values()) / share)
    if not store.reserve(need):
        _warn_of_no_room(job.kind, need + size_of(found.values()), store)
        return None
    logger.info("frozen %s encoder: %d of %d items are new", job.kind, len(missing), len(job.sizes))

    def all_encoded() -> Iterator[dict[str, np.ndarray]]:
        with tqdm(total=len(missing), desc=f"Frozen encoder: {job.kind}") as bar:
            for values in itertools.chain([first], _at_once(encoded, batches[1:], job.threads)):
                yield values
                bar.update(len(values))

    return found | store.add(job.key, all_encoded(), need)


def _at_once(function: Callable[[Any], Any], items: Sequence[Any], threads: int) -> Iterator[Any]:
    """`map` in some threads, in order; a few results at most are made before they are asked for."""
    rest = iter(items)
    with ThreadPoolExecutor(threads) as pool:
        waiting = deque(pool.submit(function, item) for item in itertools.islice(rest, 2 * threads))
        try:
            while waiting:
                yield waiting.popleft().result()
                waiting.extend(pool.submit(function, item) for item in itertools.islice(rest, 1))
        finally:
            for future in waiting:
                future.cancel()


def _warn_of_no_room(kind: str, need: float, store: FeatureStore) -> None:
    logger.warning(
        "The frozen %s encoder runs in the training loop: its outputs need about %.1f GB on disk, and "
        "cache_gigabytes=%g leaves less. Raise cache_gigabytes to run it only once.",
        kind,
        need / 1e9,
        store.limit / 1e9,
    )
