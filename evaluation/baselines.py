"""Baselines for [`HeldOut`]: the mean, eGeMAPS with support-vector regression, and models of pooled encoder states."""

import importlib.util
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock
from torch import nn
from tqdm import tqdm

from .. import audio_msfser
from ..audio_msfser import SAMPLING_RATE, load_audio
from ..cli.outputs import whole_file
from ..configuration_msfser import LABELS
from ..training import features, fitting
from ..training.feature_store import fingerprint
from .held_out import Setting, System, code_of, modules_behind
from .regressor import fit_regressor, predict_pooled

SVR_SYSTEM = "egemaps_svr"
_SVR_GRID = [
    {"kernel": kernel, "C": c, "standardize": over}
    for kernel, c, over in product(("linear", "rbf"), (0.1, 1.0), ("all", "corpus"))
]
# What every neural system may choose from.
RATES, EPOCHS = (2e-3, 6e-3, 2e-2), (10, 20)
NEURAL_GRID = [{"learning_rate": rate, "epochs": epochs} for rate, epochs in product(RATES, EPOCHS)]
SPREAD = (False, True)
# The modules that make encoder outputs and fit the project's model to them.
FITTING_CODE = (*modules_behind(features), *modules_behind(fitting))
_POOLED_BATCH = 64
_MODULE = "evaluation.baselines"


def mean_system(labels: np.ndarray) -> System:
    """The mean of the training labels; its CCC is 0."""

    def fit_predict(train: np.ndarray, rest: np.ndarray, setting: Setting, seed: int) -> dict[str, np.ndarray]:
        return {"as_recorded": np.tile(labels[train].mean(0), (len(rest), 1))}

    return System("mean", fit_predict, [_MODULE], seeded=False)


def egemaps(paths: Sequence[str], folder: Path) -> np.ndarray:
    """EGeMAPSv02 functionals by openSMILE of each recording, `(clips, 88)`; kept in the folder.

    Raises:
        ImportError: openSMILE or scikit-learn is missing.
    """
    if not all(map(importlib.util.find_spec, ("opensmile", "sklearn"))):
        raise ImportError(
            'eGeMAPS needs openSMILE, whose license is for research: pip install "msfser[peers]", or leave out '
            f"{SVR_SYSTEM}."
        )
    made_by = version("opensmile"), *map(code_of, modules_behind(audio_msfser))
    path = folder / f"egemaps_{fingerprint(*made_by, *map(Path, paths))[:12]}.npy"
    with FileLock(f"{path}.lock"):
        if not path.is_file():
            with ThreadPoolExecutor(os.cpu_count(), initializer=_open_smile) as pool:
                rows = [*tqdm(pool.map(_functionals, paths), desc="eGeMAPS", total=len(paths))]
            with whole_file(path) as unfinished, open(unfinished, "wb") as file:
                np.save(file, np.array(rows, np.float32))
    return np.load(path)


# An extractor serves one thread.
_of_thread = threading.local()


def _open_smile() -> None:
    import opensmile

    _of_thread.smile = opensmile.Smile(opensmile.FeatureSet.eGeMAPSv02, opensmile.FeatureLevel.Functionals)


def _functionals(recording: str) -> np.ndarray:
    row: np.ndarray = _of_thread.smile.process_signal(load_audio(recording), SAMPLING_RATE).to_numpy()[0]
    return row


def svr_system(features: np.ndarray, labels: np.ndarray, corpora: np.ndarray) -> System:
    """Support-vector regression; a machine for each dimension, with one setting.

    Args:
        features: `(clips, features)`.
        labels: `(clips, 3)`.
        corpora: The corpus of each clip. Features are standardized over the training clips, or each corpus by itself,
            for which no label is needed.
    """
    by_corpus = np.empty_like(features)
    for corpus in set(corpora):
        by_corpus[corpora == corpus] = _standardized(features[corpora == corpus], features[corpora == corpus])

    def fit_predict(train: np.ndarray, rest: np.ndarray, setting: Setting, seed: int) -> dict[str, np.ndarray]:
        from sklearn.svm import SVR, LinearSVR

        x = by_corpus if setting["standardize"] == "corpus" else _standardized(features, features[train])
        predicted = np.empty((len(rest), len(LABELS)))
        for dimension in range(len(LABELS)):
            options: dict[str, Any] = {"C": setting["C"], "epsilon": 0.05}
            if (
                setting["kernel"] == "linear"
            ):  # of squared errors beyond epsilon, which are solved in a tenth of the time
                machine = LinearSVR(loss="squared_epsilon_insensitive", dual=False, max_iter=10_000, **options)
            else:
                machine = SVR(kernel=setting["kernel"], cache_size=500, **options)
            predicted[:, dimension] = machine.fit(x[train], labels[train, dimension]).predict(x[rest])
        return {"as_recorded": predicted}

    depends = [version("scikit-learn"), fingerprint(features)]
    return System(SVR_SYSTEM, fit_predict, [_MODULE], _SVR_GRID, SPREAD, False, depends)


def regressor_system(x: torch.Tensor, labels: np.ndarray) -> System:
    """The layer-mix regressor with its fixed settings; `x` are pooled states `(clips, states, 2 * size)`."""
    return _pooled_system("regressor", x, labels)


def last_layer_system(means: torch.Tensor, labels: np.ndarray) -> System:
    """A linear head on the mean over the frames of the encoder's last state, `(clips, size)`."""
    return _pooled_system("last_layer", means[:, None], labels, NEURAL_GRID, linear_head)


def linear_head(states: int, features: int) -> nn.Module:
    """The usual head of an audio model: one linear layer, and a sigmoid for labels in 0..1."""
    return nn.Sequential(nn.Flatten(), nn.Linear(states * features, len(LABELS)), nn.Sigmoid())


def _pooled_system(
    name: str,
    x: torch.Tensor,
    labels: np.ndarray,
    grid: Sequence[Setting] = ({},),
    new: Callable[[int, int], nn.Module] | None = None,
) -> System:
    y = torch.as_tensor(labels, dtype=torch.float32)

    def fit_predict(train: np.ndarray, rest: np.ndarray, setting: Setting, seed: int) -> dict[str, np.ndarray]:
        options: dict[str, Any] = {}
        if setting:
            steps = setting["epochs"] * max(1, len(train) // _POOLED_BATCH)
            options = {"steps": steps, "learning_rate": setting["learning_rate"], "new": new}
        return {"one_level": predict_pooled(fit_regressor(x[train], y[train], seed, **options), x[rest])}

    code = [_MODULE, "evaluation.regressor", "loss_msfser"]
    spread = SPREAD if len(grid) > 1 else (False,)
    return System(name, fit_predict, code, grid, spread, depends=[fingerprint(x)])


def _standardized(values: np.ndarray, over: np.ndarray) -> np.ndarray:
    return (values - over.mean(0)) / np.maximum(over.std(0), 1e-9)
