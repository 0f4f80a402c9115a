"""The groups of a corpus's items, speakers and the categories of its table beyond the schema, and their bias."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import pyarrow as pa

from ..configuration_msfser import LABELS
from ..corpora.mixture import Member, member_of
from ..corpora.registry import PROBE
from ..corpora.schema import FEATURES
from ..corpora.table import open_table
from ..training.settings import RunSettings
from .intervals import interval, resampled_units
from .results import Row, rows_of


def groups_of(run: RunSettings, files: Sequence[str | None], speakers: Sequence[str | None]) -> dict[str, pd.Series]:
    """The group of each item by the name of the grouping; null where it is not known.

    Args:
        run: The corpus, or several. A table may have further columns of text, such as `emotion`, that have 2 to 20
            values.
        files: The recording of each item.
        speakers: The speaker of each item.
    """
    found = {"speaker": pd.Series(speakers, dtype=object)}
    first = Member("", run.data, run.corpus, {"columns": run.column_names, "audio_folder": run.audio_folder})
    for member in (first, *(member_of(written, first) for written in run.more_data)):
        if member.corpus != "table" or member.data == PROBE:
            continue
        of = member.options
        source = open_table(member.data, columns=of.get("columns"), audio_folder=of.get("audio_folder"))
        if source.files is None:
            continue
        of_file = source.table.append_column("file", pa.array(source.files)).to_pandas().set_index("file")
        texts = of_file.select_dtypes(["object", "string", "bool"])
        texts = texts.drop(columns=[*FEATURES, "split"], errors="ignore")
        of_item = pd.Series(files, dtype=object)
        for name in (name for name in texts if _is_text(texts[name])):
            of_member = of_item.map(_agreed(texts[name]))
            found[name] = found[name].combine_first(of_member) if name in found else of_member
    categories = {name: groups for name, groups in found.items() if name == "speaker" or 2 <= groups.nunique() <= 20}
    return {name: groups for name, groups in categories.items() if groups.notna().any()}


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
    errors = table[[*LABELS]].to_numpy(float) - table[[f"{label}_label" for label in LABELS]].to_numpy(float)
    units, resampled = resampled_units([None if pd.isna(speaker) else speaker for speaker in table["speaker"]])
    inside = np.flatnonzero(members)

    def difference(items: np.ndarray) -> np.ndarray:
        return _mean(errors[items[members[items]]]) - _mean(errors[items[~members[items]]])

    if isinstance(units, int):
        found = interval(lambda items: _mean(errors[inside[items]]), len(inside))
    else:
        own = [unit[members[unit]] for unit in units if members[unit].any()]
        found = interval(lambda items: _mean(errors[items]), own)
    rows = rows_of([f"bias/{name}/{label}" for label in LABELS], found)
    if not members.all():
        rows += rows_of([f"bias_minus_others/{name}/{label}" for label in LABELS], interval(difference, units))
    return [row | {"resampled": resampled} for row in rows]


def _mean(errors: np.ndarray) -> np.ndarray:
    """The mean of each column, `(items, 3)` -> `(3,)`, over the items that have it; NaN where there is none."""
    known = (~np.isnan(errors)).sum(0)
    return np.divide(np.nansum(errors, axis=0), known, out=np.full(known.shape, np.nan), where=known > 0)


def _agreed(values: pd.Series) -> pd.Series:
    """One value for each recording; those whose rows differ are left out."""
    pairs = pd.DataFrame({"file": values.index, "value": values.array}).drop_duplicates()
    return pairs.drop_duplicates("file", keep=False).set_index("file")["value"]


def _is_text(values: pd.Series) -> bool:
    return all(isinstance(value, (str, bool)) for value in values.dropna())
