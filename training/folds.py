"""The folds of a cross-validation: which rows each leaves out, and the files of their predictions.

A fold has no validation part: it trains a fixed number of epochs and keeps the last one, so that nothing is chosen by
what is reported. The predictions of a finished fold are a file in the folder `folds` of the run; a run that was killed
goes on with the folds that have none.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

import datasets
import numpy as np
import pandas as pd

from ..cli.outputs import whole_file
from ..configuration_msfser import LABELS
from .feature_store import fingerprint
from .labels import GIVEN, rated_labels
from .run_folder import FOLDS_FOLDER

# Of the folds; and of a test part, in the folder of a cross-validation.
PREDICTIONS_FILE, TEST_PREDICTIONS_FILE = "predictions.csv", "test_predictions.csv"

# Of a file of a fold, in bytes; of a longer one, a hash replaces the rest.
_LONGEST_NAME = 150
_NUMBERS = [*LABELS, *GIVEN]
_COLUMNS = ["row", "file", "speaker", "unit", "fold", "inputs", *_NUMBERS]


class Fold(NamedTuple):
    """Units that are left out together.

    Args:
        name: That of its unit, or its number from 1 if the number of folds is given.
        rows: Indices of the rows that are left out.
        rest: Those of the others.
    """

    name: str
    rows: np.ndarray
    rest: np.ndarray


def make_folds(units: Sequence[str], count: int = 0) -> list[Fold]:
    """Divides units into folds.

    Args:
        units: Of each row.
        count: Number of folds, which get about equal numbers of rows; 0 makes a fold of each unit.

    Returns:
        The folds, in the order of their names. They depend on nothing but the names and sizes of the units.

    Raises:
        ValueError: There are too few units.
    """
    sizes = pd.Series(list(units), dtype=object).value_counts().sort_index()
    if len(sizes) < max(2, count):
        found = f"there is only {sizes.index[0]!r}" if len(sizes) == 1 else f"there are {len(sizes)}"
        raise ValueError(f"cross-validation in {max(2, count)} folds needs as many units to leave out, and {found}.")
    fold_of = {unit: unit for unit in sizes.index}
    if count:
        filled = np.zeros(count, int)
        for unit, size in sorted(sizes.items(), key=lambda item: (-item[1], item[0])):
            fold_of[unit] = f"{filled.argmin() + 1:0{len(str(count))}d}"
            filled[filled.argmin()] += size
    names = np.array([fold_of[unit] for unit in units], dtype=object)
    return [Fold(name, np.flatnonzero(names == name), np.flatnonzero(names != name)) for name in sorted(set(names))]


class FoldFiles:
    """The predictions of folds in the folder of a run.

    Args:
        folder: That of the run.
        folds: All of them.
        rows: Rows of the schema, with their `unit`.

    Attributes:
        about: Of each row its number from 1 as `row`, `file`, `speaker`, `unit` and `fold`.
    """

    def __init__(self, folder: Path, folds: Sequence[Fold], rows: datasets.Dataset):
        self.folder, self.folds = folder, folds
        self.about = pd.DataFrame(
            {
                "row": np.arange(1, len(rows) + 1),
                "file": [(audio or {}).get("path") or "" for audio in rows["audio"]],
                "speaker": [speaker or "" for speaker in rows["speaker"]],
                "unit": list(rows["unit"]),
                "fold": "",
            }
        )
        for fold in folds:
            self.about.loc[fold.rows, "fold"] = fold.name

    def unfinished(self) -> list[Fold]:
        """The folds without predictions."""
        return [fold for fold in self.folds if not self._path(fold).is_file()]

    def write(self, fold: Fold, predictions: pd.DataFrame) -> None:
        """Writes the predictions of a fold, its rows of `about` with `inputs`, the predictions and the labels."""
        _write(self._path(fold), predictions)

    def gather(self, inputs: Sequence[str]) -> pd.DataFrame:
        """Writes the predictions of all folds as one table, for each set of inputs in the order of the corpus.

        Raises:
            ValueError: A file holds something else than the predictions of its fold.
        """
        tables = []
        for fold in self.folds:
            tables.append(read_predictions(self._path(fold)))
            if set(tables[-1]["row"]) != set(fold.rows + 1):
                raise ValueError(f"{self._path(fold)} has the predictions of other rows: remove it.")
        table = _in_order(tables, inputs)
        _write(self.folder / PREDICTIONS_FILE, table)
        return table

    def _path(self, fold: Fold) -> Path:
        name = quote(fold.name, safe=" ")
        if len(name) > _LONGEST_NAME:
            name = f"{name[:_LONGEST_NAME]}-{fingerprint(fold.name)[:16]}"
        return self.folder / FOLDS_FOLDER / f"{name}.csv"


def _in_order(tables: Sequence[pd.DataFrame], inputs: Sequence[str]) -> pd.DataFrame:
    """The predictions of folds as one table, sorted by sets of inputs and rows."""
    table = pd.concat(tables, ignore_index=True)
    table["inputs"] = pd.Categorical(table["inputs"], list(inputs), ordered=True)
    return table.sort_values(["inputs", "row"], ignore_index=True).astype({"inputs": str})


def gathered_predictions(folder: Path) -> pd.DataFrame:
    """The predictions of all folds in the folder of a finished run, the set with most inputs last.

    If their table is not there, or is another one, they are read from the files of the folds.

    Raises:
        ValueError: A file holds something else.
        OSError: There is no file.
    """
    try:
        return read_predictions(folder / PREDICTIONS_FILE)
    except (ValueError, OSError):
        tables = [read_predictions(path) for path in sorted((folder / FOLDS_FOLDER).glob("*.csv"))]
        if not tables:
            raise
    return _in_order(tables, max((list(table["inputs"].unique()) for table in tables), key=len))


def _write(path: Path, predictions: pd.DataFrame) -> None:
    with whole_file(path) as unfinished:
        predictions[_COLUMNS].to_csv(unfinished, index=False, na_rep="nan")


def read_predictions(path: Path) -> pd.DataFrame:
    """Reads the predictions of folds; files and speakers that are not known are blank, labels of nobody NaN.

    Raises:
        ValueError: The file holds something else.
    """
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False)[_COLUMNS]
        table = table.astype({"row": int} | dict.fromkeys(_NUMBERS, float))
        table[GIVEN] = rated_labels(table[GIVEN])
        return table
    except (ValueError, LookupError) as error:
        raise ValueError(f"{path} is not what msfser train --cross_validate writes: remove it.") from error
