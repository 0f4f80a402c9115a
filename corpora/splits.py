"""Train, validation and test: made from the speakers where a source has none, and checked where it has them."""

import logging
from collections.abc import Mapping

import datasets
import numpy as np
import pandas as pd
import pyarrow as pa

from .schema import SPLITS

logger = logging.getLogger(__name__)

# From this share of the test part on, transcripts that occur in train are said.
_SHARED_TEXTS = 0.1

SHARES: dict[str, float] = {"train": 0.70, "validation": 0.15, "test": 0.15}


def assign_splits(
    name: str, given: pa.ChunkedArray, speakers: pa.ChunkedArray, seed: int, allow_overlap: bool
) -> np.ndarray:
    """Return the split of each row, as given or drawn here by speakers; either may be null in a row.

    Raises:
        ValueError: The speakers cannot be divided, or one is in more than one split and `allow_overlap` is false.
    """
    splits = given.to_pandas().to_numpy(dtype=object, na_value=None)
    people = speakers.to_pandas().to_numpy(dtype=object, na_value=None)
    present = {split for split in splits if split is not None}
    if present <= {"train"}:
        splits = _draw(name, people, SHARES, seed, "there is no split column (or only 'train' in it)")
        counts = {split: int((splits == split).sum()) for split in SHARES}
        logger.info("%s: no split is given; made one by speakers: %s utterances", name, counts)
        return splits
    if "train" in present and "validation" not in present:
        train = splits == "train"
        share = SHARES["validation"]
        shares = {"train": 1.0 - share, "validation": share}
        splits[train] = _draw(name, people[train], shares, seed, "there is no validation part")
        moved = sorted(set(people[splits == "validation"]))
        logger.warning("%s: no validation part is given; took speakers from train for it: %s", name, ", ".join(moved))
    if not allow_overlap:
        if unknown := sum(person is None for person in people):
            logger.warning("%s: %d rows name no speaker: whether parts share speakers was not checked", name, unknown)
        if shared := _in_several_splits(people, splits):
            raise ValueError(
                f"{name}: {len(shared)} speaker(s) are in more than one split, such as "
                f"{', '.join(map(repr, shared[:3]))}; keep each in one split, or accept it by "
                "--allow_speaker_overlap true."
            )
    return splits


def warn_of_shared_texts(name: str, parts: Mapping[str, datasets.Dataset]) -> None:
    """Warn where a model that reads transcripts is tested on sentences that it was trained on.

    In corpora of given sentences, and in the scripted dialogs of IEMOCAP, other speakers say the same words: nothing
    is wrong with the sound, but the texts alone tell a model that has learned them the labels.
    """
    if not {"train", "test"} <= parts.keys():
        return
    known = {_spoken(text) for text in parts["train"]["transcript"] if text}
    tested = [_spoken(text) for text in parts["test"]["transcript"] if text]
    shared = [text for text in tested if text in known]
    if tested and len(shared) >= _SHARED_TEXTS * len(tested):
        logger.warning(
            "%s: %d of %d transcripts of the test part also occur in train, such as %r: a model that reads texts may "
            "know their labels by heart; compare it with one of sound alone",
            *(name, len(shared), len(tested), max(set(shared), key=shared.count)),
        )


def _spoken(text: str) -> str:
    """The words of a transcript without case and punctuation."""
    return " ".join("".join(c if c.isalnum() else " " for c in text.casefold()).split())


def _in_several_splits(keys: np.ndarray, splits: np.ndarray) -> list[str]:
    """Return the keys, but not `None`, that occur in more than one split, sorted."""
    counts = pd.Series(splits).groupby(keys).nunique()
    return sorted(counts.index[counts > 1])


def _draw(name: str, people: np.ndarray, shares: Mapping[str, float], seed: int, reason: str) -> np.ndarray:
    """Assign whole speakers to the splits, so that these have about their shares of the utterances."""
    if unknown := sum(person is None for person in people):
        raise ValueError(
            f"{name}: {reason}, and {unknown} rows have no speaker to split by; add a column 'split' with "
            f"{', '.join(SPLITS)}, or a column 'speaker'."
        )
    counts = pd.Series(people, dtype=object).value_counts().sort_index()
    if len(counts) < len(shares):
        raise ValueError(
            f"{name}: {reason}, and {len(counts)} speaker(s) cannot be divided among {', '.join(shares)}; add "
            f"speakers, or a column 'split' with {', '.join(SPLITS)}."
        )
    shuffled = counts.iloc[np.random.default_rng(seed).permutation(len(counts))]
    # Speakers too large for the smallest split come first, while a split with room for them is left.
    limit = min(shares.values()) * len(people)
    order = sorted(shuffled.items(), key=lambda item: -item[1] if item[1] > limit else 0)
    room = {split: share * len(people) for split, share in shares.items()}
    split_of: dict[str, str] = {}
    for assigned, (person, count) in enumerate(order):
        empty = [split for split in shares if split not in split_of.values()]
        choice = empty if len(empty) == len(order) - assigned else list(shares)
        split = max(choice, key=room.__getitem__)
        split_of[person] = split
        room[split] -= count
    return pd.Series(people, dtype=object).map(split_of).to_numpy(dtype=object)
