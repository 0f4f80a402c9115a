"""Train, validation and test: made from the speakers where a source has none, and checked where it has them."""

import logging
from collections.abc import Mapping, Sequence

import datasets
import numpy as np
import pandas as pd
import pyarrow as pa

from .columns import text_column
from .messages import counted, counted_are
from .schema import SPLIT_ALIASES, SPLITS, UNKNOWN
from .sources import Part

logger = logging.getLogger(__name__)

# From this share of the test part on, transcripts that occur in train are said.
_SHARED_TEXTS = 0.1

SHARES: dict[str, float] = {"train": 0.70, "validation": 0.15, "test": 0.15}


# How rows are divided where a source does not say it: by speakers, or by files where speakers are not known.
SPLIT_BY: tuple[str, str] = ("speaker", "file")

_FILES_FLATTER = "a speaker can be in several parts, which makes scores higher than they are for new speakers"


class SplitNames:
    """Which split the name that a source writes is.

    Args:
        tests: Names of the test parts; the first becomes `test`, the others keep their names, and other test parts
            are left out. By default the names of `SPLIT_ALIASES`.

    Raises:
        ValueError: One is named twice, or is the training part.
    """

    def __init__(self, tests: Sequence[str] = ()):
        # "" are rows that are left out.
        self.known = {split: split for split in SPLITS} | SPLIT_ALIASES
        self.tests = {test.strip().lower(): test.strip() for test in tests}
        if len(self.tests) < len(tests) or any(self.known.get(test) == "train" for test in self.tests):
            raise ValueError(f"--test cannot be {' '.join(tests)}; name each test part once, and no training part.")
        if tests:
            self.known = {name: "" if split == "test" else split for name, split in self.known.items()}
        for test, key in self.keys.items():
            if self.known.get(test) != "validation":
                self.known[test] = key

    @property
    def keys(self) -> dict[str, str]:
        """The split that each named test part becomes."""
        return {test: name if number else "test" for number, (test, name) in enumerate(self.tests.items())}

    @property
    def copies(self) -> list[str]:
        """The test parts that are the validation part, too."""
        return [key for test, key in self.keys.items() if self.known[test] == "validation"]

    def of(self, part: Part, column: str | None) -> tuple[np.ndarray, dict[str, str]]:
        """Return the split of each row: from a column, or else from the name of the part; `None` without both.

        Returns:
            The splits, "" where the row is left out, and the split of each name that is written.

        Raises:
            ValueError: A name is none of a split.
        """
        count = len(part.table)
        nothing = np.full(count, None, dtype=object), dict[str, str]()
        if column is None and not part.name:
            return nothing
        names = pa.chunked_array([pa.repeat(part.name, count)]) if column is None else text_column(part, column)
        # Of 100,000 rows, few names.
        coded = names.combine_chunks().dictionary_encode()
        given = coded.dictionary.to_pylist()
        written = [name.strip().lower() for name in given]
        codes = coded.indices.fill_null(-1).to_numpy(zero_copy_only=False)
        if all(name in UNKNOWN for name in written) and (codes >= 0).all():
            return nothing
        splits = np.array([self.known.get(name) for name in written] + [None], dtype=object)[codes]
        wrong = np.array([split is None for split in splits])
        if wrong.any():
            index = int(wrong.argmax())
            value = "blank" if codes[index] < 0 else repr(given[codes[index]])
            raise ValueError(
                f"{part.row(index)}: the split is {value}, which is none of {', '.join(self.known)}; write one of "
                "these."
            )
        return splits, {name: self.known[name] for name in written}

    def check(self, name: str, written: Mapping[str, str]) -> None:
        """Refuse two names of one split, and test parts that are not there: in some corpora, `eval` is the test part.

        Args:
            name: Of the source.
            written: The split of each name that is written.
        """
        for split in SPLITS:
            names = sorted(other for other, canonical in written.items() if canonical == split)
            if len(names) > 1:
                choice = f", or choose with --test {names[0]}" if split == "test" else ""
                raise ValueError(
                    f"{name}: the splits {' and '.join(map(repr, names))} would both be {split}; name them "
                    f"{', '.join(SPLITS)}{choice}."
                )
        for test, shown in self.tests.items():
            is_validation = self.known[test] == "validation" and "validation" in written.values()
            if test not in written and not is_validation:
                there = ", ".join(map(repr, written)) or "none"
                raise ValueError(f"{name}: --test names {shown!r}, which it does not have; its parts are {there}.")

    def with_tests(self, parts: datasets.DatasetDict) -> datasets.DatasetDict:
        """Return the parts with the validation part as a test part too, where it is named as one."""
        found = {**parts}
        for key in self.copies:
            found[key] = parts["validation"]
        return datasets.DatasetDict({key: found[key] for key in dict.fromkeys([*SPLITS, *found]) if key in found})


def assign_splits(
    name: str,
    given: np.ndarray,
    speakers: pa.ChunkedArray,
    seed: int,
    allow_overlap: bool,
    files: Sequence[str] | None = None,
    official: bool = False,
) -> np.ndarray:
    """Return the split of each row, as given or drawn here by speakers; either may be null in a row.

    Args:
        name: Of the source.
        given: The split of each row, or `None`.
        speakers: The speaker of each row, or null.
        seed: Of the draw.
        allow_overlap: Accept speakers that are in several of the given splits.
        files: What names each recording: splits are drawn by these and not by speakers.
        official: The given splits are those of the corpus's owners: none is drawn.

    Raises:
        ValueError: The speakers cannot be divided, or one is in more than one split and `allow_overlap` is false.
    """
    splits = given.copy()
    people = speakers.to_pandas().to_numpy(dtype=object, na_value=None)
    present = {split for split in splits if split is not None}
    drawn = people if files is None else np.array(files, dtype=object)
    if present <= {"train"} and not official:
        splits = _draw(name, drawn, SHARES, seed, "there is no split column (or only 'train' in it)")
        counts = {split: int((splits == split).sum()) for split in SHARES}
        by = SPLIT_BY[0 if files is None else 1]
        logger.info("%s: no split is given; made one by %ss: %s utterances", name, by, counts)
        if files is not None:
            logger.warning("%s: the parts were drawn by file: %s", name, _FILES_FLATTER)
        return splits
    if "train" in present and "validation" not in present and not official:
        train = splits == "train"
        share = SHARES["validation"]
        shares = {"train": 1.0 - share, "validation": share}
        splits[train] = _draw(name, drawn[train], shares, seed, "there is no validation part")
        if files is None:
            moved = sorted(set(people[splits == "validation"]))
            logger.warning(
                "%s: no validation part is given; took speakers from train for it: %s", name, ", ".join(moved)
            )
        else:
            count = int((splits == "validation").sum())
            logger.warning(
                "%s: no validation part is given; took %d files from train for it: %s", name, count, _FILES_FLATTER
            )
            # Of the parts that are given, test and train are left to be compared.
            people = np.where(splits == "validation", None, people)
    if not allow_overlap:
        if unknown := sum(person is None for person in people):
            logger.warning("%s: %d rows name no speaker: whether parts share speakers was not checked", name, unknown)
        if shared := _in_several_splits(people, np.where(np.isin(splits, SPLITS[:2]), splits, SPLITS[2])):
            raise ValueError(
                f"{name}: {counted_are(len(shared), 'speaker')} in more than one split, such as "
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
            f"{', '.join(SPLITS)}, or a column 'speaker'; give --speaker_from REGEX where the file names say who "
            "speaks, or --split_by file where nobody knows."
        )
    counts = pd.Series(people, dtype=object).value_counts().sort_index()
    if len(counts) < len(shares):
        raise ValueError(
            f"{name}: {reason}, and {counted(len(counts), 'speaker')} cannot be divided among {', '.join(shares)}; "
            f"add speakers, or a column 'split' with {', '.join(SPLITS)}."
        )
    shuffled = counts.iloc[np.random.default_rng(seed).permutation(len(counts))]
    # Speakers too large for the smallest split come first, while a split with room for them is left.
    limit = min(shares.values()) * len(people)
    order = sorted(shuffled.items(), key=lambda item: -item[1] if item[1] > limit else 0)
    room = {split: share * len(people) for split, share in shares.items()}
    split_of: dict[str, str] = {}
    empty = list(shares)
    for assigned, (person, count) in enumerate(order):
        choice = empty if len(empty) == len(order) - assigned else list(shares)
        split = max(choice, key=room.__getitem__)
        split_of[person] = split
        room[split] -= count
        empty = [other for other in empty if other != split]
    return pd.Series(people, dtype=object).map(split_of).to_numpy(dtype=object)
