"""The neural systems of `benchmarks/peers.py`: models on frozen encoders, fitted alike."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from ..evaluation.baselines import FITTING_CODE, NEURAL_GRID, SPREAD
from ..evaluation.held_out import Setting, System
from ..modeling_msfser import MsfSerModel
from ..starter.assemble import AUDIO_ENCODER, TEXT_ENCODER
from ..training.features import FEATURES_VERSION
from ..training.fitting import Clips, MeanHead, Recipe, fit, predict

_SOUND_ALONE: dict[str, Any] = {
    "semantics": [],
    "audio_states": "weighted",
    "freeze_audio": "all",
    "fusion_size": 128,
    "head_dropout": 0.2,
    "audio_dropout": 0.0,
}
# The systems as switches of the model.
SWITCHES: dict[str, dict[str, Any]] = {
    "asp": _SOUND_ALONE | {"audio_states": "last"},
    "text": _SOUND_ALONE | {"audio": False, "semantics": ["les", "gs"]},
    "ours_audio": _SOUND_ALONE,
    "ours_full": _SOUND_ALONE | {"semantics": ["les", "gs", "es"]},
}
LAST_LAYER = "last_layer"
NEURAL = (LAST_LAYER, *SWITCHES)
# A greater weight of the ranking loss ranks more pairs correctly and lowers the CCC. Learning rate and epochs are
# chosen from the grid.
RECIPE = Recipe(ranking_loss_weight=2.5, mixing_lr_scale=20.0)


def build(switches: Mapping[str, Any]) -> MsfSerModel:
    """The project's model on the frozen encoders."""
    audio = AUDIO_ENCODER if switches.get("audio", True) else None
    text = TEXT_ENCODER if switches["semantics"] else None
    return MsfSerModel.from_encoders(audio, text, freeze_text=True, **switches)


def neural_system(name: str, clips: Clips) -> System:
    """One of `NEURAL` on the encoder outputs of a corpus."""
    switches = SWITCHES.get(name)
    inputs = switches["semantics"] if switches else []
    states = {} if name == "text" else clips.states
    if name in (LAST_LAYER, "asp"):
        states = {kind: [of_clip[-1:] for of_clip in of_kind] for kind, of_kind in states.items()}
    texts = {prefix: vectors for prefix, vectors in clips.texts.items() if prefix in inputs}
    used = replace(clips, states=states, texts=texts, text_dropout=clips.text_dropout if states else {})
    has_input = np.ones(len(clips), bool)
    if not states:
        has_input = ~np.all([vectors[:, 0].isnan().numpy() for vectors in texts.values()], axis=0)

    def fit_predict(train: np.ndarray, rest: np.ndarray, setting: Setting, seed: int) -> dict[str, np.ndarray]:
        recipe = replace(RECIPE, **setting)
        learned = train[has_input[train]]
        # Without any input, the mean of the training clips is the best prediction.
        kinds = states or ("as_recorded",)
        predictions = {kind: np.tile(clips.labels[train].mean(0), (len(rest), 1)) for kind in kinds}
        if len(learned) >= recipe.batch_size:
            model = fit(lambda: build(switches) if switches else MeanHead(size), used, learned, seed, recipe)
            for kind, values in predictions.items():
                values[has_input[rest]] = predict(model, used, rest[has_input[rest]], kind)
        return predictions

    size = next(iter(clips.states.values()))[0].shape[-1]
    depends = [
        FEATURES_VERSION,
        switches,
        RECIPE,
        sorted(used.sampling_weights.items()),
        sorted(used.text_dropout.items()),
    ]
    code = ["benchmarks.peer_systems", *FITTING_CODE]
    return System(name, fit_predict, code, NEURAL_GRID, SPREAD, depends=[*depends, *texts.values()])
