"""The recipe of the starter (`starter/material.py`) as a system of [`HeldOut`]."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from functools import cache
from types import MappingProxyType

import numpy as np
import pandas as pd
import torch

from ..configuration_msfser import LABELS
from ..starter import material as of_starter
from ..starter.assemble import new_starter, starter_processor
from ..starter.material import NOISES, RECIPE, material, training_items, with_words
from ..starter.voices import descriptions_of, gain_free_norms, voice_measures
from ..training.augmentation import Distortion
from ..training.features import encode_texts, encoder_key
from ..training.fitting import Clips, fit, predict
from ..training.sentences import Sentences
from .baselines import FITTING_CODE
from .held_out import Setting, System, modules_behind

# The modules that make the material of a starter and fit it.
RECIPE_CODE = (*modules_behind(of_starter), *FITTING_CODE)


def starter_system(
    clips: pd.DataFrame,
    trained: Collection[str],
    sentences: Sentences,
    words: Mapping[str, Sequence[str | None]] = MappingProxyType({}),
    tests: Mapping[str, Distortion] = MappingProxyType({}),
) -> System:
    """Clips at one level, augmented copies, sounds without speech, and sentences; one setting.

    The kinds of its predictions are `sound`, from sound alone; those of the distortions, likewise; and where there are
    words, `all`, with the words and a description.

    Args:
        clips: `corpus`, `path`, `speaker`, labels, and what [`strong_counterparts`] needs.
        trained: The corpora that are trained on.
        sentences: That are trained on, too.
        words: By `les` and `gs` what was recognized in each clip.
        tests: Distortions by name.
    """
    count = len(clips)

    @cache
    def measures() -> np.ndarray:
        return voice_measures(clips["path"])

    @cache
    def whole() -> Clips:
        is_trained = clips["corpus"].isin(trained).to_numpy()
        made = material(clips, measures(), gain_free_norms(measures()[is_trained], "all"), sentences, trained, tests)
        return with_words(made, words) if words else made

    def described(train: np.ndarray) -> torch.Tensor:
        """The vectors of the descriptions, which compare a voice with those that are trained on."""
        texts = descriptions_of(measures(), gain_free_norms(measures()[train], "trained"))
        return encode_texts([*texts, *[None] * NOISES], new_starter(), starter_processor())

    def fit_predict(train: np.ndarray, rest: np.ndarray, setting: Setting, seed: int) -> dict[str, np.ndarray]:
        items = training_items(np.concatenate([train, np.arange(count, count + NOISES)]), count)
        here = replace(whole(), texts={**whole().texts, "es": described(train)})
        model = fit(new_starter, here, items, seed, RECIPE)
        found = {"sound": predict(model, here, rest, "clean", texts=())}
        if words:
            found["all"] = predict(model, here, rest, "clean")
        return found | {kind: predict(model, here, rest, kind, texts=()) for kind in tests}

    made = new_starter(), starter_processor()
    encoders: list[object] = [encoder_key(kind, *made) for kind in ("audio", "text")]
    depends = [*encoders, sorted(tests), {name: list(texts) for name, texts in words.items()}]
    depends += [clips[[*LABELS]].to_numpy(), sentences.identity]
    return System("starter", fit_predict, ["evaluation.starter_system", *RECIPE_CODE], depends=depends)
