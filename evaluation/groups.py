"""The groups of a corpus's items, speakers and the categories of its table beyond the schema, and their bias."""

from collections.abc import Collection, Sequence

import numpy as np
import pandas as pd

from ..configuration_msfser import LABELS
from ..corpora.mixture import Member, members_of
from ..corpora.registry import PROBE, categories_of
from ..corpora.schema import FEATURES
from ..corpora.table import open_table
from ..training.labels import rated_labels
from ..training.settings import RunSettings, corpus_options
from .intervals import interval, resampled_units
from .results import Row, rows_of

# A column with so many values, fewest and most, divides items into groups.
_FEWEST_VALUES, _MOST_VALUES = 2, 20
_TEXTS = (str, bool)
_SINGLE = (*_TEXTS, int, float)


def groups_of(run: RunSettings, files: Sequence[str | None], speakers: Sequence[str | None]) -> dict[str, pd.Series]:
    """The group of each item by the name of the grouping; null where it is not known.

    The arguments are those of [`find_groups`].
    """
    return find_groups(run, files, speakers)[0]


def find_groups(
    run: RunSettings, files: Sequence[str | None], speakers: Sequence[str | None], wanted: Collection[str] = ()
) -> tuple[dict[str, pd.Series], dict[str, str]]:
    """The group of each item by the name of the grouping, and why other columns cannot be one.

    Args:
        run: The corpus, or several. A table may have further columns, such as `emotion`, and a named corpus has its
            `Corpus.categories`, such as `gender`. Those of text with 2 to 20 values are groupings.
        files: The recording of each item: its path, or the name with which it is embedded.
        speakers: The speaker of each item.
        wanted: Columns that are groupings with any number of values, which may be numbers, too.
    """
    found = {"speaker": pd.Series(speakers, dtype=object)}
    unused: dict[str, str] = {}
    of_item = pd.Series(files, dtype=object)
    if of_item.notna().any():
        for member in members_of(run.data, run.more_data, run.corpus, corpus_options(run)):
            for name, groups in _categories(member, of_item, wanted, unused).items():
                found[name] = found[name].combine_first(groups) if name in found else groups
    usable = {}
    for name, groups in found.items():
        count = groups.nunique()
        if not count:
            unused[name] = "has no value for these items"
            continue
        unused.pop(name, None)  # of several corpora, another one cannot be grouped by it
        if name in ("speaker", *wanted) or _FEWEST_VALUES <= count <= _MOST_VALUES:
            usable[name] = groups
    return usable, unused


def _categories(
    member: Member, files: pd.Series, wanted: Collection[str], unused: dict[str, str]
) -> dict[str, pd.Series]:
    """The columns of one corpus that may be groupings, for the recordings of all items; null in those not of it.

    Why another column is none is added to `unused`.
    """
    if member.corpus != "table":
        found = categories_of(member.corpus, member.data, [None if pd.isna(file) else file for file in files])
        return {name: pd.Series(values, dtype=object) for name, values in found.items()}
    if member.data == PROBE:  # it has none
        return {}
    columns, audio_folder = (member.options.get(name) for name in ("columns", "audio_folder"))
    source = open_table(member.data, columns=columns, audio_folder=audio_folder)
    own = {*FEATURES, "split"}.intersection(source.table.column_names)
    unused |= dict.fromkeys(own - {"speaker"}, "is an input, a label, or the part of a row")
    table = source.table.drop_columns([*own]).to_pandas(integer_object_nulls=True)
    table.index = pd.Index(source.recording_names() if source.files is None else source.files, dtype=object)
    usable = [name for name in table if _is_of(table[name], _SINGLE if name in wanted else _TEXTS)]
    unused |= {str(name): "has values that are neither text nor numbers" for name in table if name not in usable}
    return {str(name): files.map(_agreed(table[name])) for name in usable}


def bias_rows(name: str, table: pd.DataFrame, members: np.ndarray) -> list[Row]:
    """How far the numbers of a group lie above its labels, on average, and how much farther than those of all others.

    Args:
        name: Of the group.
        table: A row for each item: `speaker`, the three numbers, and labels as `valence_label` and so on, null where
            there is none.
        members: Which items are in the group, `(items,)` bool.

    Returns:
        Rows `bias/NAME/DIMENSION` and, if others are left, `bias_minus_others/NAME/DIMENSION`, with 95 % intervals
        over speakers where they are known; none of a dimension without labels.
    """
    errors = table[[*LABELS]].to_numpy(float) - rated_labels(table[[f"{label}_label" for label in LABELS]])
    units, resampled = resampled_units(table["speaker"])
    inside = np.flatnonzero(members)

    def difference(items: np.ndarray) -> np.ndarray:
        return mean_of_known(errors[items[members[items]]]) - mean_of_known(errors[items[~members[items]]])

    if isinstance(units, int):
        found = interval(lambda items: mean_of_known(errors[inside[items]]), len(inside))
    else:
        own = [unit[members[unit]] for unit in units if members[unit].any()]
        found = interval(lambda items: mean_of_known(errors[items]), own)
    rows = rows_of([f"bias/{name}/{label}" for label in LABELS], found)
    if not members.all():
        rows += rows_of([f"bias_minus_others/{name}/{label}" for label in LABELS], interval(difference, units))
    return [row | {"resampled": resampled} for row in rows]


def mean_of_known(errors: np.ndarray) -> np.ndarray:
    """The mean of each column, `(items, columns)` -> `(columns,)`, over the items that have it; NaN without any."""
    known = (~np.isnan(errors)).sum(0)
    return np.divide(np.nansum(errors, axis=0), known, out=np.full(known.shape, np.nan), where=known > 0)


def _agreed(values: pd.Series) -> pd.Series:
    """One value for each recording; those whose rows differ are left out."""
    pairs = pd.DataFrame({"file": values.index, "value": values.array}).dropna(subset="file").drop_duplicates()
    return pairs.drop_duplicates("file", keep=False).set_index("file")["value"]


def _is_of(values: pd.Series, kinds: tuple[type, ...]) -> bool:
    return all(isinstance(value, kinds) for value in values.dropna().tolist())
