"""Fits systems to some clips to predict the others: every system, seed, and fold, with settings chosen inside.

A [`System`] has a small grid of settings. For each fold the engine ([`HeldOut`]) leaves out groups of the *training*
clips in turn (speakers or corpora), and uses the setting with the best mean CCC there; the held-out clips of the fold
have no part in the choice. Whether predictions are rescaled to the mean and standard deviation of the labels
(`spread`) is a setting too, which needs no fit of its own: the scale is that of the predictions for clips that were
left out inside.

A fit predicts all clips that it was not fitted to, and is kept in a file that is named by everything that made it:
data, setting, seed, training clips, and the source code of the modules involved. So a killed run continues, a changed
module is fitted anew, folds with the same training clips share a fit, and several processes share the work.
"""

import ast
import importlib
import inspect
import json
import logging
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from itertools import product
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import torch
import transformers
from filelock import FileLock, Timeout
from tqdm import tqdm

from ..cli.outputs import whole_file
from ..configuration_msfser import LABELS
from ..loss_msfser import concordance
from ..training.feature_store import fingerprint

logger = logging.getLogger(__name__)

_PACKAGE = __name__.removesuffix("evaluation.held_out")
# The rooms of this package that only read and write files.
_OF_FILES = ("cli.", "corpora.", "sharding.")

Setting = Mapping[str, Any]
# Fits to the training clips and predicts the others, by kind of sound: (training clips, other clips, setting, seed)
# -> kind -> `(other clips, 3)`. The clips are indices.
FitPredict = Callable[[np.ndarray, np.ndarray, Setting, int], Mapping[str, np.ndarray]]


@dataclass(frozen=True)
class System:
    """What is compared.

    Args:
        name: In rows and files.
        fit_predict: Fits and predicts; the first kind of sound is the one that is scored.
        code: Names of the modules of this package whose code makes the predictions.
        grid: The settings to choose from; one is used as it is.
        spread: Whether the spread of the labels is restored; with both, it is chosen.
        seeded: Whether fits depend on the seed.
        depends: What its fits depend on besides data, setting, and code, such as versions of libraries.
    """

    name: str
    fit_predict: FitPredict
    code: Sequence[str]
    grid: Sequence[Setting] = ({},)
    spread: Sequence[bool] = (False,)
    seeded: bool = True
    depends: Sequence[object] = ()

    @property
    def choices(self) -> list["Choice"]:
        """All settings that are tried."""
        return [Choice(setting, spread) for setting, spread in product(self.grid, self.spread)]


class Choice(NamedTuple):
    """A setting of a system."""

    setting: Setting
    spread: bool

    def __str__(self) -> str:
        return json.dumps({**self.setting, "spread": self.spread})


class Split(NamedTuple):
    """Indices of the training clips, and of the held-out clips."""

    train: np.ndarray
    held: np.ndarray


class Fold(NamedTuple):
    """One of the outer folds: the split that is reported, and those inside its training clips that choose."""

    split: Split
    inner: Sequence[Split]


class Chosen(NamedTuple):
    """The setting that was chosen for a fold, and the mean CCC of each setting that was tried, by its text."""

    choice: Choice
    tried: Mapping[str, float]


def leave_groups_out(groups: Sequence[str], trained: Sequence[str] | None = None, step: int = 1) -> dict[str, Fold]:
    """A fold for each group; inside, the other groups are left out in turn.

    Args:
        groups: The group of each clip.
        trained: The groups to train on; the others are only predicted. All by default.
        step: Inside, every so many-th of the other groups is left out, from the one after the fold's.
    """
    of_clip = np.asarray(groups, object)
    names = sorted(set(groups))
    trained = names if trained is None else list(trained)

    def without(*left_out: str) -> np.ndarray:
        return np.flatnonzero(np.isin(of_clip, [name for name in trained if name not in left_out]))

    folds = {}
    for place, name in enumerate(names):
        following = [other for other in names[place + 1 :] + names[:place] if other in trained]
        inner = [Split(without(name, other), np.flatnonzero(of_clip == other)) for other in following[::step]]
        folds[name] = Fold(Split(without(name), np.flatnonzero(of_clip == name)), inner)
    return folds


def speaker_groups(speakers: np.ndarray, count: int) -> np.ndarray:
    """The number of a group of speakers for each clip, `(clips,)`; speakers are distributed at random, with seed 0."""
    names = np.random.default_rng(0).permutation(sorted(set(speakers)))
    number = {name: place % count for place, name in enumerate(names)}
    return np.array([number[speaker] for speaker in speakers])


class HeldOut:
    """Fits systems and gathers their predictions for held-out clips.

    Args:
        labels: `(clips, 3)` in 0..1.
        folds: By name.
        data: Hash of the data that the systems are fitted to.
        folder: Where fits are kept.
    """

    def __init__(self, labels: np.ndarray, folds: Mapping[str, Fold], data: str, folder: Path):
        self.labels, self.folds, self.data, self.folder = labels, folds, data, folder
        self._chosen: dict[tuple[str, str], Chosen] = {}
        folder.mkdir(parents=True, exist_ok=True)

    def run(self, systems: Sequence[System], seeds: Sequence[int]) -> None:
        """Makes all fits that are missing, and prints the budget; other processes may work on the same folder."""
        inner = [self._fit(system, split, c, 0) for system in systems for c, split in self._inner(system)]
        self._complete(inner, "fits that choose settings")
        outer = [
            self._fit(system, fold.split, self.chosen(system, name).choice.setting, seed)
            for seed, system, (name, fold) in product(seeds, systems, self.folds.items())
        ]
        self._complete(outer, "fits")
        for system in systems:
            budget = self.budget(system, seeds)
            logger.info("%s: %d settings tried, %d fits to choose, %d to report", system.name, *budget.values())

    def budget(self, system: System, seeds: Sequence[int]) -> dict[str, int]:
        """How many settings were tried, with how many different fits, and how many fits make the reported figures."""
        inner = {self._fit(system, split, setting, 0).path for setting, split in self._inner(system)}
        outer = {
            self._fit(system, fold.split, self.chosen(system, name).choice.setting, seed).path
            for seed, (name, fold) in product(seeds, self.folds.items())
        }
        return {"settings": len(system.choices), "fits_to_choose": len(inner), "fits_to_report": len(outer)}

    def recipe(self, system: System) -> str:
        """A hash of the system's grid, code, and data: of everything but the folds."""
        return self._hash(system, system.name, [str(choice) for choice in system.choices])

    def chosen(self, system: System, fold: str) -> Chosen:
        """The best setting for a fold by its inner splits, which [`run`] has fitted; the first of equal ones."""
        key = self.recipe(system), fold
        if key not in self._chosen:
            self._chosen[key] = self._choose(system, self.folds[fold].inner)
        return self._chosen[key]

    def _choose(self, system: System, inner: Sequence[Split]) -> Chosen:
        choices = system.choices
        if len(choices) == 1:
            return Chosen(choices[0], {})
        scores = {}
        for choice in choices:
            left_out = self._left_out(system, inner, choice.setting)
            of_splits = []
            for place, (predicted, labels) in enumerate(left_out):
                # The scale is that of the other inner splits, as the held-out clips have none of their own.
                others = [pair for other, pair in enumerate(left_out) if other != place]
                of_splits.append(mean_ccc(_restored(predicted, others) if choice.spread else predicted, labels))
            scores[str(choice)] = float(np.mean(of_splits))
        best = int(np.argmax([*scores.values()]))
        return Chosen(choices[best], scores)

    def gathered(
        self, systems: Iterable[System], seeds: Sequence[int], folds: Iterable[str] | None = None
    ) -> dict[str, dict[str, np.ndarray]]:
        """The predictions with the chosen settings: system -> kind -> `(seeds, clips, 3)`.

        Clips that no fold holds out are NaN.
        """
        shape = (len(seeds), len(self.labels), len(LABELS))
        found: dict[str, dict[str, np.ndarray]] = {}
        names = list(self.folds if folds is None else folds)
        for system, name, (place, seed) in product(systems, names, enumerate(seeds)):
            split, inner = self.folds[name]
            setting, spread = self.chosen(system, name).choice
            inside = self._left_out(system, inner, setting) if spread else []
            for kind, values in self._predicted(system, split, setting, seed).items():
                of_kind = found.setdefault(system.name, {}).setdefault(kind, np.full(shape, np.nan, np.float32))
                held = values[split.held]
                of_kind[place, split.held] = _restored(held, inside) if spread else held
        return found

    def _left_out(
        self, system: System, inner: Sequence[Split], setting: Setting
    ) -> list[tuple[np.ndarray, np.ndarray]]:
        """Of each inner split the predictions for the clips that it leaves out, and their labels."""
        return [
            (_first(self._predicted(system, split, setting, 0))[split.held], self.labels[split.held])
            for split in inner
        ]

    def _inner(self, system: System) -> list[tuple[Setting, Split]]:
        """What is fitted inside: to choose a setting, or to restore the spread."""
        if len(system.choices) == 1 and not any(system.spread):
            return []
        inner = [split for fold in self.folds.values() for split in fold.inner]
        return list(product(system.grid, inner))

    def _fit(self, system: System, split: Split, setting: Setting, seed: int) -> "_Fit":
        seed = seed if system.seeded else 0
        made_by = self._hash(system, json.dumps(setting, sort_keys=True), seed, split.train)
        return _Fit(system, split.train, setting, seed, self.folder / f"{system.name}_{seed}_{made_by[:16]}.npz")

    def _hash(self, system: System, *parts: object) -> str:
        code = (code_of(name) for name in (__name__, *system.code))
        libraries = torch.__version__, transformers.__version__
        return fingerprint(self.data, *libraries, *system.depends, *code, *parts)

    def _complete(self, fits: Sequence["_Fit"], title: str) -> None:
        """First what no other process works on; then waits for these, and takes over what they left."""
        unique = list({fit.path: fit for fit in fits if not fit.path.is_file()}.values())
        for fit in tqdm(unique, desc=title, disable=not unique):
            self._finish(fit, wait=False)
        for fit in unique:
            self._finish(fit, wait=True)

    def _finish(self, fit: "_Fit", wait: bool) -> None:
        with suppress(Timeout), FileLock(f"{fit.path}.lock", timeout=-1 if wait else 0):
            if fit.path.is_file():
                return
            made = fit.system.fit_predict(fit.train, self._rest(fit), fit.setting, fit.seed)
            with whole_file(fit.path) as unfinished, open(unfinished, "wb") as file:
                np.savez(file, **{kind: np.asarray(values, np.float32) for kind, values in made.items()})  # type: ignore[arg-type]

    def _rest(self, fit: "_Fit") -> np.ndarray:
        """The clips that a fit predicts."""
        return np.setdiff1d(np.arange(len(self.labels)), fit.train)

    def _predicted(self, system: System, split: Split, setting: Setting, seed: int) -> dict[str, np.ndarray]:
        """By kind `(clips, 3)`, NaN for the training clips."""
        fit = self._fit(system, split, setting, seed)
        found = {}
        with np.load(fit.path) as file:
            for kind, values in file.items():
                found[kind] = np.full(self.labels.shape, np.nan, np.float32)
                found[kind][self._rest(fit)] = values
        return found


class _Fit(NamedTuple):
    system: System
    train: np.ndarray
    setting: Setting
    seed: int
    path: Path


def mean_ccc(predicted: np.ndarray, labels: np.ndarray) -> float:
    """The mean CCC over the dimensions of `(clips, 3)`."""
    pair = (torch.as_tensor(np.asarray(values, np.float64)) for values in (predicted, labels))
    return float(concordance(*pair).mean())


def _first(of_kinds: Mapping[str, np.ndarray]) -> np.ndarray:
    return next(iter(of_kinds.values()))


def _restored(values: np.ndarray, left_out: Sequence[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """Predictions `(clips, 3)` on the scale that takes other predictions to mean and deviation of their labels.

    Args:
        values: The predictions.
        left_out: Predictions for clips that were left out inside, with their labels.
    """
    if not left_out:
        return values
    predicted, labels = (np.concatenate(arrays) for arrays in zip(*left_out, strict=True))
    slope = labels.std(0) / np.maximum(predicted.std(0), 1e-6)
    return (values - predicted.mean(0)) * slope + labels.mean(0)


def modules_behind(module: ModuleType) -> list[str]:
    """The names of a module of this package and of all that its classes and functions come from, and theirs in turn.

    Those that only read and write files are left out: what they read identifies a fit by itself.
    """
    found, queue = set[str](), [module.__name__]
    while queue:
        full = queue.pop()
        name = full.removeprefix(_PACKAGE)
        if name != full and name not in found and not name.startswith(_OF_FILES):
            found.add(name)
            for value in vars(sys.modules[full]).values():
                queue.append(
                    value.__name__ if isinstance(value, ModuleType) else getattr(value, "__module__", None) or ""
                )
    return sorted(found)


@cache
def code_of(name: str) -> str:
    """The code of a module of this package, without comments and docstrings."""
    tree = ast.parse(inspect.getsource(importlib.import_module(_PACKAGE + name.removeprefix(_PACKAGE))))
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) and ast.get_docstring(node) is not None:
            body[0] = ast.Pass()  # type: ignore[index]
    return ast.unparse(tree)
