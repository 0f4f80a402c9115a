"""The groups of a corpus's items: speakers, and the categories of its table beyond the schema."""

from collections.abc import Sequence

import pandas as pd
import pyarrow as pa

from ..corpora.schema import FEATURES
from ..corpora.table import open_table
from ..training.settings import RunSettings


def groups_of(run: RunSettings, files: Sequence[str | None], speakers: Sequence[str | None]) -> dict[str, pd.Series]:
    """The group of each item by the name of the grouping; null where it is not known.

    Args:
        run: The corpus. Its table may have further columns of text, such as `emotion`, that have 2 to 20 values.
        files: The recording of each item.
        speakers: The speaker of each item.
    """
    found = {"speaker": pd.Series(speakers, dtype=object)}
    if run.corpus == "table" and run.data != "probe":
        source = open_table(run.data, columns=run.column_names, audio_folder=run.audio_folder)
        if source.files is not None:
            of_file = source.table.append_column("file", pa.array(source.files)).to_pandas().set_index("file")
            texts = of_file.select_dtypes(["object", "string", "bool"])
            texts = texts.drop(columns=[*FEATURES, "split"], errors="ignore")
            of_item = pd.Series(files, dtype=object)
            found |= {name: of_item.map(_agreed(texts[name])) for name in texts if _is_text(texts[name])}
    categories = {name: groups for name, groups in found.items() if name == "speaker" or 2 <= groups.nunique() <= 20}
    return {name: groups for name, groups in categories.items() if groups.notna().any()}


def _agreed(values: pd.Series) -> pd.Series:
    """One value for each recording; those whose rows differ are left out."""
    pairs = pd.DataFrame({"file": values.index, "value": values.array}).drop_duplicates()
    return pairs.drop_duplicates("file", keep=False).set_index("file")["value"]


def _is_text(values: pd.Series) -> bool:
    return all(isinstance(value, (str, bool)) for value in values.dropna())
