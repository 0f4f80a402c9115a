"""The predictions and scores of a cross-validation."""

from collections.abc import Mapping, Sequence
from typing import Any

import datasets
import numpy as np
import pandas as pd
from transformers import Trainer

from ..configuration_msfser import LABELS
from ..training.labels import GIVEN, numbers_and_labels, rated_labels
from ..training.settings import RunSettings
from .coverage import EndsAt, coverage_rows, ends_of_folds
from .intervals import ccc_interval, clusters
from .results import CROSS_VALIDATED, FOLD, Row, ccc_rows, row

# What several units of a grouping are called, where it is not a column of the table.
_PLURALS = {"speaker": "speakers", "session": "sessions", "corpus": "corpora"}


def predict_left_out(
    trainer: Trainer, sets: Mapping[str, datasets.Dataset], left_out: np.ndarray, about: pd.DataFrame
) -> pd.DataFrame:
    """Predicts the rows of a fold with fewer and with all of their inputs.

    Args:
        trainer: In all processes.
        sets: The items of all folds by set of inputs, with the index of the row of each as `index`.
        left_out: Indices of the rows of the fold.
        about: What the table says of each row of all folds.

    Returns:
        A row for each item and set of inputs: what is known about it, `inputs`, and predictions and labels in 0..1;
        labels of dimensions that are not rated are NaN.
    """
    tables = []
    for inputs, items in sets.items():
        part = items.select(np.flatnonzero(np.isin(items["index"], left_out)))
        if len(part):
            found: Any = trainer.predict(part)
            table, given = about.iloc[part["index"]].assign(inputs=inputs), rated_labels(found.label_ids)
            tables.append(table.assign(**_columns(LABELS, found.predictions), **_columns(GIVEN, given)))
    return pd.concat(tables, ignore_index=True)


def _columns(names: Sequence[str], values: np.ndarray) -> dict[str, np.ndarray]:
    return dict(zip(names, values.T, strict=True))


def rows_of_folds(table: pd.DataFrame, run: RunSettings) -> list[Row]:
    """The results of a cross-validation.

    Args:
        table: The predictions of all folds, the set with most inputs last.
        run: What the units are.

    Returns:
        Rows `cross_validation/INPUTS/DIMENSION`: CCC over the predictions of all folds with its 95 % interval over the
        units; and with all inputs `fold/NAME/mean`: the mean CCC within each fold, null where it is not defined, as
        of one item. If the run has intervals around the numbers, also `intervals/cross_validation/DIMENSION/coverage`
        and `.../width`, where those of each fold are calibrated on the other folds.
    """
    grouping = str(run.cross_validate)
    groups = f"groups of {_PLURALS[grouping]}" if grouping in _PLURALS else f"groups by {grouping}"
    words = groups if run.group_file else _PLURALS.get(grouping, groups)
    rows: list[Row] = []
    for inputs, of_set in table.groupby("inputs", sort=False):
        units = clusters(of_set["unit"])
        found = ccc_rows(
            f"{CROSS_VALIDATED}{inputs}", *numbers_and_labels(of_set), units, f"{len(units)} left-out {words}"
        )
        rows += [of_dimension | {"items": len(of_set)} for of_dimension in found]
    whole = table[table["inputs"] == table["inputs"].iloc[-1]]
    for name, of_fold in whole.groupby("fold", sort=True):
        mean = ccc_interval(*numbers_and_labels(of_fold), [np.arange(len(of_fold))]).value[-1]
        rows.append(row(f"{FOLD}{name}/mean", mean) | {"items": len(of_fold)})
    if (ends_at := ends_of_run(whole, run)) is not None:
        labels = whole[GIVEN].to_numpy(np.float64)
        rows += coverage_rows(CROSS_VALIDATED.rstrip("/"), ends_at, labels, clusters(whole["unit"]))
    return rows


def ends_of_run(table: pd.DataFrame, run: RunSettings) -> EndsAt | None:
    """The ends around the predictions of all folds with all inputs, as in [`ends_of_folds`]; `None` without any."""
    if not run.intervals:
        return None
    return ends_of_folds(*numbers_and_labels(table), table["speaker"].tolist(), table["fold"].tolist())
