"""Several corpora as one: each with its reader, label range, texts and weight, scored together and one by one."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import yaml

from ..configuration_msfser import LABELS, TENSOR_NAMES
from ..loss_msfser import UNRATED
from .duplicates import content_keys, refuse_shared
from .label_ranges import parse_label_range
from .registry import CORPORA, OPTIONS, read_corpus
from .schema import SPLITS
from .sources import TABLE_SUFFIXES

# What a member may set beside the options of its reader.
_SETTINGS = ("data", "corpus", "name", "weight", "texts")
_EXAMPLE = '--data "{data: other_corpus, corpus: whiser, weight: 0.5}"'
# What other rows of the results begin with.
_OTHER_ROWS = ("cross_validation", "fold", "intervals")


@dataclasses.dataclass(frozen=True)
class Member:
    """One of several corpora.

    Attributes:
        name: What its scores are called.
        data: As in `read_corpus`, like the next two.
        corpus: Its reader.
        options: Of its reader.
        weight: How often each of its training rows is in an epoch; of a fraction, as many rows are drawn once.
        texts: Which of its texts are read; `None` reads all of them.
    """

    name: str
    data: str
    corpus: str = "table"
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    weight: float = 1.0
    texts: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        check_part_name(self.name)


def check_part_name(name: str) -> None:
    """Check that the results, whose rows are called PART/INPUTS/DIMENSION, can name a part so.

    Raises:
        ValueError: They cannot.
    """
    if "/" in name or name in _OTHER_ROWS:
        raise ValueError(
            f"a corpus or a test part cannot be called {name!r}, which the results cannot tell from other rows; give "
            'it another name without a slash, a corpus by --data "{data: ..., name: ...}".'
        )


def member_of(written: str, default: Member) -> Member:
    """Return the member that a word of the command line gives.

    Args:
        written: A path, which is read as the first corpus is; or a YAML mapping of `data`, `corpus`, `name`, `weight`,
            `texts` and options of the reader, which is read as it says.
        default: The first corpus.

    Raises:
        ValueError: It is a mapping of something else, or the name cannot be used.
    """
    if not written.lstrip().startswith("{"):
        return dataclasses.replace(default, name=_name_of(written), data=written, weight=1.0, texts=None)
    try:
        given = yaml.safe_load(written)
        if not isinstance(given, dict) or not isinstance(given.get("data"), str):
            raise ValueError("it names no data")
        if unknown := sorted(map(str, given.keys() - {*_SETTINGS, *OPTIONS})):
            raise ValueError(f"it has {', '.join(unknown)}, and may have {', '.join((*_SETTINGS, *OPTIONS))}")
        corpus, weight, texts = given.get("corpus", "table"), float(given.get("weight", 1.0)), given.get("texts")
        if corpus not in CORPORA:
            raise ValueError(f"the corpus {corpus!r} is none of {', '.join(CORPORA)}")
        if not 0 < weight < float("inf"):
            raise ValueError(f"the weight is {weight:g} and not above 0")
        texts = None if texts is None else _as_list(texts)
        if texts is not None and not {*texts} <= {*TENSOR_NAMES}:
            raise ValueError(f"its texts are none of {', '.join(TENSOR_NAMES)}")
        options = {name: given[name] for name in OPTIONS if name in given}
        if "test" in options:
            options["test"] = _as_list(options["test"])
        if "label_range" in options:
            options["label_range"] = parse_label_range(options["label_range"])
        if "columns" in options and not isinstance(options["columns"], dict):
            raise ValueError("its columns are no mapping, such as {speaker: actor}")
        name = str(given.get("name", _name_of(given["data"])))
    except (yaml.YAMLError, ValueError, TypeError) as error:
        reason = " ".join(str(error).split()).removesuffix(".")
        raise ValueError(f"--data {written} cannot be read ({reason}); write it as in {_EXAMPLE}.") from error
    return Member(name, given["data"], corpus, options, weight, None if texts is None else tuple(texts))


def _as_list(given: Any) -> list[str]:
    """Return what a mapping gives where it may name one or several."""
    return [str(one) for one in (given if isinstance(given, list) else [given])]


def members_of(data: str, more: Sequence[str], corpus: str, options: Mapping[str, Any]) -> list[Member]:
    """Return the corpora of a run: one, or several.

    Args:
        data: Of the first corpus.
        more: Of the others, as [`member_of`] reads them.
        corpus: The reader of the first.
        options: Of its reader; those that it does not accept are left out.

    Raises:
        ValueError: As in [`member_of`].
    """
    accepted = CORPORA[corpus].accepts
    first = Member(_name_of(data), data, corpus, {name: v for name, v in options.items() if name in accepted})
    return [first, *(member_of(written, first) for written in more)]


def read_parts(
    data: str,
    more: Sequence[str],
    corpus: str,
    options: Mapping[str, Any],
    require_labels: bool = True,
    needed: Sequence[str] = (),
    text_languages: Sequence[str] = (),
) -> datasets.DatasetDict:
    """Read one corpus, or several as one, to train on it or to score it.

    Args:
        data: Of the first corpus.
        more: Of the others, as [`member_of`] reads them.
        corpus: The reader of the first.
        options: Of its reader.
        require_labels: As in `read_corpus`.
        needed: As in `read_corpus`; none are all.
        text_languages: As in `read_corpus`.

    Returns:
        As [`read_mixture`], with the label `UNRATED` where a dimension is not rated, if labels are required.

    Raises:
        ValueError: As in `read_corpus` or [`read_mixture`].
    """
    needed = tuple(name for name in needed if name in SPLITS) or SPLITS
    if not more:
        parts = read_corpus(
            corpus, data, **options, require_labels=require_labels, needed=needed, text_languages=text_languages
        )
    else:
        parts = read_mixture(members_of(data, more, corpus, options), require_labels, needed, text_languages)
    if not require_labels:
        return parts
    return datasets.DatasetDict({name: with_unrated(part) for name, part in parts.items()})


def with_unrated(part: datasets.Dataset) -> datasets.Dataset:
    """Write `UNRATED` in the labels that are null."""
    table = part.with_format("arrow")[:]
    if not any(table[label].null_count for label in LABELS):
        return part
    for label in LABELS:
        filled = table[label].fill_null(pa.scalar(UNRATED, table[label].type))
        table = table.set_column(table.column_names.index(label), label, filled)
    return datasets.Dataset(table, info=datasets.DatasetInfo(features=part.features))


def _name_of(data: str) -> str:
    """The name of a folder, or of a table without its suffix, but of `metadata.csv` that of its folder."""
    path = Path(data)
    stem = path.stem if path.suffix.lower() in TABLE_SUFFIXES else path.name
    return (path.parent.name if stem == "metadata" else "") or stem or data


def read_mixture(
    members: Sequence[Member],
    require_labels: bool = True,
    needed: Sequence[str] = SPLITS,
    text_languages: Sequence[str] = (),
) -> datasets.DatasetDict:
    """Read several corpora as one.

    Args:
        members: Two or more, each of another name.
        require_labels: As in `read_corpus`.
        needed: As in `read_corpus`.
        text_languages: As in `read_corpus`.

    Returns:
        train, validation and test of all of them, the test part of each by its name, and its further test parts as
        `NAME_PART`. The speakers of a member have its name before theirs. Labels that a member does not rate are null.

    Raises:
        ValueError: Names are not distinct, a part is missing, a recording that one member trains on is in another part
            of another one, or as in `read_corpus`.
    """
    _refuse_twice([member.name for member in members])
    read: dict[str, datasets.DatasetDict] = {}
    for member in members:
        parts = read_corpus(
            *(member.corpus, member.data),
            **member.options,
            require_labels=require_labels,
            needed=needed,
            text_languages=text_languages,
        )
        read[member.name] = datasets.DatasetDict({name: _as_member(part, member) for name, part in parts.items()})
        if absent := [split for split in needed if split not in parts]:
            raise ValueError(f"{member.data} has no {absent[0]} part; each of several corpora needs one.")
    _refuse_shared(read)
    found = {}
    for split in SPLITS:
        of_split = [(read[member.name][split], member.weight) for member in members if split in read[member.name]]
        if split == "train":
            of_split = [(part.select(_drawn(len(part), weight)), weight) for part, weight in of_split]
        if of_split:
            found[split] = datasets.concatenate_datasets([part for part, _ in of_split])
    tests = [
        (name if split == "test" else f"{name}_{split}", part)
        for name, parts in read.items()
        for split, part in parts.items()
        if split not in ("train", "validation")
    ]
    _refuse_twice([name for name, _ in tests])
    return datasets.DatasetDict({**found, **dict(tests)})


def _refuse_twice(names: Sequence[str]) -> None:
    if twice := sorted({name for name in names if names.count(name) > 1 or name in SPLITS}):
        raise ValueError(f'two corpora are called {twice[0]!r}; give each a name: --data "{{data: ..., name: ...}}".')


def _as_member(part: datasets.Dataset, member: Member) -> datasets.Dataset:
    """Name the speakers after the corpus, and leave out the texts that are not read."""
    table, features = part.with_format("arrow")[:], part.features
    at = table.column_names.index("speaker")
    speakers = pc.binary_join_element_wise(f"{member.name}/", table["speaker"], "")
    table = table.set_column(at, "speaker", speakers.cast(pa.string()))
    for text in () if member.texts is None else {*TENSOR_NAMES}.difference(member.texts):
        table = table.set_column(table.column_names.index(text), text, pa.nulls(len(table), pa.string()))
    return datasets.Dataset(table, info=datasets.DatasetInfo(features=features))


def _drawn(count: int, weight: float) -> np.ndarray:
    """Return the rows of an epoch, some of them several times."""
    whole, fraction = divmod(weight, 1.0)
    some = np.random.default_rng(0).permutation(count)[: round(fraction * count)]
    return np.concatenate([np.tile(np.arange(count), int(whole)), np.sort(some)]).astype(np.int64)


def _refuse_shared(read: Mapping[str, datasets.DatasetDict]) -> None:
    """Refuse recordings that one corpus trains on and another validates or tests on.

    What a corpus has in several of its own parts is its reader's concern, who only warns where they are official.
    """
    sounds: list[datasets.Dataset] = []
    found: list[tuple[str, str]] = []
    for name, parts in read.items():
        for split in parts:
            part = parts[split].select_columns(["audio"])
            has_sound = part.with_format("arrow")[:]["audio"].is_valid().to_numpy()
            sounds.append(part.select(np.flatnonzero(has_sound)))
            # Development may be the validation and the test part of one corpus.
            found += [(name, "train" if split == "train" else "validation or test")] * int(has_sound.sum())
    if not found:
        return
    members, splits = np.array(found, dtype=object).T
    # Each recording is read once, however many corpora there are.
    keys, shown = content_keys(datasets.concatenate_datasets(sounds), splits)
    for name in read:
        rows = np.flatnonzero((splits == "train") == (members == name))
        refuse_shared(" and ".join(read), keys[rows], [shown[row] for row in rows], splits[rows])
