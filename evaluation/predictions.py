"""What a trained run answers for each item of a part of its corpus."""

import json
import shlex
from pathlib import Path
from typing import NamedTuple

import datasets
import numpy as np
import pandas as pd
import torch

from ..configuration_msfser import LABELS
from ..modeling_msfser import MsfSerModel
from ..processing_msfser import MsfSerProcessor
from ..train import RunSettings, encode, parse_settings, read_data
from ..training.features import FeatureCollator, has_input


class Predictions(NamedTuple):
    """What a run answers for a part.

    Args:
        table: A row for each item that has an input, in order; its index is the row of the part, from 0. The columns
            are `file`, `speaker`, `valence`, `arousal`, `dominance` (predicted) and `valence_label`, ... (given), each
            in 0..1. With a gate also `gate`, the mean over its features of the share of the stressed words; with the
            mixture `routing_DIMENSION_EXPERT`, the share of the expert.
        items: The same items in the schema.
        layer_weights: The share of each state of the speech encoder; `None` where only the last is used.
    """

    table: pd.DataFrame
    items: datasets.Dataset
    layer_weights: list[float] | None


def results_of(folder: Path) -> list[dict[str, object]]:
    """The rows that `train.py` wrote into the folder of a finished run.

    Raises:
        SystemExit: The folder is not that of a finished run.
    """
    path = folder / "results.json"
    if not path.is_file():
        raise SystemExit(
            f"{folder} is not the folder of a finished run: it has no results.json, which train.py writes."
        )
    return json.loads(path.read_text(encoding="utf-8"))


def settings_of(folder: Path) -> RunSettings:
    """The data that a finished run was trained on, and how they are read; relative to the folder it started in."""
    return parse_settings(shlex.split(str(results_of(folder)[0]["command"]))[2:])[0]


def read_parts(run: RunSettings) -> datasets.DatasetDict:
    """The parts of a corpus in the schema.

    Raises:
        SystemExit: The corpus is not as its reader wants it.
    """
    try:
        return read_data(run)
    except (ValueError, OSError) as error:
        raise SystemExit(f"error: {error}") from error


def predict_part(folder: Path, part: str = "test") -> Predictions:
    """Runs the model of a finished run over a part of its corpus, with all inputs that the model has.

    Frozen encoders are run once, as in training.

    Args:
        folder: The run's.
        part: `train`, `validation` or `test`.

    Raises:
        SystemExit: The folder is not that of a finished run, or the corpus has no such part.
    """
    run = settings_of(folder)
    model, processor = MsfSerModel.from_pretrained(folder), MsfSerProcessor.from_pretrained(folder)
    parts = read_parts(run)
    if part not in parts:
        raise SystemExit(f"{run.data} has no {part} part.")
    items = parts[part]
    encoded = encode(datasets.DatasetDict({part: items}), model, processor, run.cache_gigabytes)[part]
    heard = np.flatnonzero(has_input(encoded))
    items, encoded = items.select(heard), encoded.select(heard)
    collate, outputs = FeatureCollator(processor), []
    for start in range(0, len(encoded), 32):
        batch = collate([encoded[i] for i in range(start, min(start + 32, len(encoded)))])
        batch.pop("labels")
        with torch.inference_mode():
            outputs.append(model(**batch, output_explanations=True))
    columns = {
        "file": [(audio or {}).get("path") for audio in items["audio"]],
        "speaker": items["speaker"],
        **_by_label(torch.cat([output.logits for output in outputs])),
        **{f"{label}_label": items[label] for label in LABELS},
    }
    if outputs[0].gate is not None:
        columns["gate"] = torch.cat([output.gate for output in outputs]).mean(1).tolist()
    if outputs[0].routing is not None:
        routing = torch.cat([output.routing for output in outputs])
        for index, expert in enumerate(model.cross_fusion.experts):
            columns |= {f"routing_{label}_{expert}": v for label, v in _by_label(routing[:, :, index]).items()}
    mix = outputs[0].layer_weights
    return Predictions(pd.DataFrame(columns, index=heard), items, None if mix is None else mix.tolist())


def _by_label(values: torch.Tensor) -> dict[str, list[float]]:
    """`(items, 3)` -> the column of each dimension."""
    return dict(zip(LABELS, values.T.tolist(), strict=True))
