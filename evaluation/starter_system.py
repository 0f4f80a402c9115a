"""The recipe of the starter (`starter/fit.py`) as a system of [`HeldOut`]."""

from collections.abc import Sequence
from functools import cache

import numpy as np
import pandas as pd

from ..configuration_msfser import LABELS
from ..modeling_msfser import MsfSerModel
from ..starter import fit as starter_fit
from ..starter.assemble import SWITCHES, new_starter
from ..training.features import FEATURES_VERSION
from ..training.fitting import Clips, fit, predict
from .acted import strong_counterparts
from .baselines import FITTING_CODE
from .held_out import Setting, System


def starter_system(clips: pd.DataFrame, trained: Sequence[str]) -> System:
    """Clips at one level, augmented copies, and sounds without speech; one setting.

    Args:
        clips: `corpus`, `path`, `speaker`, labels, and what [`strong_counterparts`] needs.
        trained: The corpora that are trained on.
    """

    @cache
    def material() -> Clips:
        return starter_material(clips, trained)

    def fit_predict(train: np.ndarray, rest: np.ndarray, setting: Setting, seed: int) -> dict[str, np.ndarray]:
        return {"clean": predict(_fitted(material(), len(clips), train, seed), material(), rest, "clean")}

    code = ["evaluation.starter_system", "starter.fit", "training.augmentation", *FITTING_CODE]
    return System("starter", fit_predict, code, depends=[FEATURES_VERSION, SWITCHES])


def fit_starter(clips: pd.DataFrame, seed: int = 0) -> MsfSerModel:
    """A starter that is fitted to all of some clips.

    Args:
        clips: As in [`starter_system`].
        seed: Of the fit.
    """
    material = starter_material(clips, clips["corpus"].unique())
    return _fitted(material, len(clips), np.arange(len(clips)), seed)


def starter_material(clips: pd.DataFrame, trained: Sequence[str]) -> Clips:
    """The clips, and after them the sounds without speech.

    Args:
        clips: As in [`starter_system`].
        trained: The corpora that are trained on.
    """
    labels = clips[[*LABELS]].to_numpy(np.float32)
    copies, count = starter_fit.COPIES, starter_fit.NOISES
    states = []
    for name, of_corpus in clips.groupby("corpus", sort=False):
        # What is only tested needs no copies, and is never asked for them.
        needed = {**starter_fit.CLEAN, **(copies if name in trained else {})}
        clean = starter_fit.states_of(of_corpus["path"].tolist(), needed)
        states.append(dict.fromkeys(copies, clean["clean"]) | clean)
    states.append(starter_fit.states_of(starter_fit.noises(), {**starter_fit.CLEAN, **copies}))
    return Clips(
        labels=np.concatenate([labels, np.full((count, len(LABELS)), 0.5, np.float32)]),
        speakers=np.array([*clips["speaker"], *("none" for _ in range(count))]),
        states={kind: [one for part in states for one in part[kind]] for kind in starter_fit.SAMPLING_WEIGHTS},
        sampling_weights=starter_fit.SAMPLING_WEIGHTS,
        texts={},
        stronger=np.concatenate([strong_counterparts(clips), np.full(count, -1)]),
    )


def _fitted(material: Clips, spoken: int, train: np.ndarray, seed: int) -> MsfSerModel:
    """A starter that is fitted to some of the clips, and to all sounds without speech, which follow the clips."""
    items = np.concatenate([train, np.arange(spoken, len(material))])
    model = fit(new_starter, material, starter_fit.repeat_noises(items, spoken), seed, starter_fit.RECIPE)
    assert isinstance(model, MsfSerModel)
    return model
