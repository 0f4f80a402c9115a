"""Predictions of a trained run for each item of a part of its corpus."""

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import datasets
import numpy as np
import pandas as pd
import torch

from .. import LABELS, MsfSerModel, MsfSerProcessor
from ..contributions_msfser import INPUTS, input_names
from ..hub.loading import default_device
from ..training.collator import FeatureCollator
from ..training.data_identity import check_identity, inputs_of
from ..training.features import encode_parts, has_input
from ..training.folds import PREDICTIONS_FILE, gathered_predictions
from ..training.labels import rated_labels
from ..training.run_folder import check_weights
from ..training.settings import read_data, read_run
from .coverage import EndsAt, ends_of
from .cross_validated import ends_of_run
from .results import Row

# Items; and with contributions, which compute with each of them once for each set of inputs.
_BATCH_SIZE, _EXPLAINED_BATCH_SIZE = 32, 8


class Predictions(NamedTuple):
    """Predictions of a run for a part of its corpus.

    The table has a row for each item with an input, in order; its index is the row of the part, from 0. The columns
    are `file`, `speaker`, `valence`, `arousal`, `dominance` (predicted), `valence_label`, ... (given), each in 0..1,
    and NaN where a dimension is not rated.
    With a gate also `gate`, the mean over its features of the weight of the emphasized words; with the mixture of
    experts `routing_DIMENSION_EXPERT`, the weight of the expert. On request `contribution_DIMENSION_INPUT`, what each
    input contributes to the number, 0 where it is missing, with the names of `contributions_msfser.INPUTS`.
    """

    table: pd.DataFrame
    items: datasets.Dataset | None  # the same items in the schema; `None` for those of a cross-validation
    layer_weights: list[float] | None  # of each state of the speech encoder; `None` where only the last is used
    ends_at: EndsAt | None = None  # of the intervals around the numbers, in the order of the table


def rated_dimensions(table: pd.DataFrame) -> list[str]:
    """The dimensions of which an item in a table of [`Predictions`] has a label."""
    return [label for label in LABELS if table[f"{label}_label"].notna().any()]


def results_of(folder: Path) -> list[Row]:
    """The results that training wrote into the folder of a run.

    Raises:
        ValueError: The folder is not that of a finished run, or its weights are not those of the results.
    """
    path = folder / "results.json"
    if not path.is_file():
        raise ValueError(
            f"{folder} is not the folder of a finished run: it has no results.json, which msfser train writes."
        )
    check_weights(folder)
    return json.loads(path.read_text(encoding="utf-8"))


def predict_part(folder: Path, part: str = "test", contributions: bool = False) -> Predictions:
    """Runs the model of a finished run over `train`, `validation` or `test`, with all inputs that the model has.

    Frozen encoders are run once, as in training. Paths in the run's settings are relative to the current folder.

    Args:
        folder: Of the run.
        part: The part.
        contributions: Whether the table says what each input contributes, unless the model has only one.

    Raises:
        ValueError: The folder is not that of a finished run, or the corpus has no such part, has changed since the
            run or cannot be used.
        OSError: A file cannot be read.
    """
    results_of(folder)
    run, _, _ = read_run(folder)
    if run.cross_validate is not None:
        raise ValueError(
            f"the run in {folder} is a cross-validation without a {part} part: see {PREDICTIONS_FILE} there."
        )
    model, processor = MsfSerModel.from_pretrained(folder), MsfSerProcessor.from_pretrained(folder)
    model.to(default_device())
    parts = read_data(run)
    if part not in parts:
        raise ValueError(f"{run.data} has no {part} part: predict one of {', '.join(parts)}.")
    items = parts[part]
    check_identity(folder, {part: items}, inputs_of(model.config))
    encoded = encode_parts(datasets.DatasetDict({part: items}), model, processor, run.cache_gigabytes)[part]
    present = np.flatnonzero(has_input(encoded))
    items, encoded = items.select(present), encoded.select(present)
    inputs = input_names(model.config)
    options: dict[str, Any] = {"output_explanations": True}
    if contributions and len(inputs) > 1:
        options |= {"output_contributions": True, "batch_size": _EXPLAINED_BATCH_SIZE}
    outputs = [*outputs_of(model, processor, encoded, **options)]
    columns = {
        "file": [(audio or {}).get("path") for audio in items["audio"]],
        "speaker": items["speaker"],
        **_by_label(torch.cat([output.logits for output in outputs])),
        **{f"{label}_label": rated_labels(items[label][:]) for label in LABELS},
    }
    if outputs[0].gate is not None:
        columns["gate"] = torch.cat([output.gate for output in outputs]).mean(1).tolist()
    if outputs[0].routing is not None:
        routing = torch.cat([output.routing for output in outputs])
        for index, expert in enumerate(model.cross_fusion.experts):
            columns |= {f"routing_{label}_{expert}": v for label, v in _by_label(routing[:, :, index]).items()}
    if outputs[0].contributions is not None:
        of_inputs = torch.cat([output.contributions for output in outputs])
        for name in [name for name, tensor in INPUTS.items() if tensor in inputs]:
            found = _by_label(of_inputs[:, :, inputs.index(INPUTS[name])])
            columns |= {f"contribution_{label}_{name}": values for label, values in found.items()}
    weights = outputs[0].layer_weights
    kept = None if weights is None else weights.tolist()
    table = pd.DataFrame(columns, index=present)
    numbers = table[[*LABELS]].to_numpy(np.float64)
    ends_at = None if model.intervals is None else partial(ends_of, model.intervals, numbers)
    return Predictions(table, items, kept, ends_at)


def predictions_of_folds(folder: Path) -> Predictions:
    """The predictions of a finished cross-validation with all inputs, each by the model of its fold.

    The intervals of each fold, unless the run has none, are calibrated on the other folds.

    Raises:
        ValueError: The file with the predictions holds something else.
        OSError: It cannot be read.
    """
    table = gathered_predictions(folder)
    table = table[table["inputs"] == table["inputs"].iloc[-1]]
    table = table.replace({"file": {"": None}, "speaker": {"": None}})
    ends_at = ends_of_run(table, read_run(folder).run)
    return Predictions(table.set_index(table["row"] - 1), None, None, ends_at)


@torch.inference_mode()
def outputs_of(
    model: MsfSerModel,
    processor: MsfSerProcessor,
    items: datasets.Dataset,
    batch_size: int = _BATCH_SIZE,
    **options: Any,
) -> Iterator[Any]:
    """Each batch's `MsfSerOutput` for encoded items, in their order; the options are those of the forward."""
    collate = FeatureCollator(processor)
    for start in range(0, len(items), batch_size):
        batch = collate([items[i] for i in range(start, min(start + batch_size, len(items)))])
        batch.pop("labels", None)
        yield model(**batch.to(model.device), **options, return_dict=True)


def _by_label(values: torch.Tensor) -> dict[str, list[float]]:
    """`(items, 3)` -> the column of each dimension."""
    return dict(zip(LABELS, values.T.tolist(), strict=True))
