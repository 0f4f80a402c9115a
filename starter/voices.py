"""What is measured in the voices that a starter is fitted to, and the descriptions that this makes."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..annotation.norms import norms_of
from ..audio_msfser import load_audio
from ..description_msfser import WORDS, MeasuredDescriber, measure_voice
from ..emphasis_msfser import measure_prosody
from ..training.feature_jobs import Job, features_of, open_store
from ..training.feature_store import fingerprint, load

# Raise this when code changes that measures pitch, level or voice: all voices are then measured again.
_VERSION = 3


def voice_measures(paths: Sequence[str | Path]) -> np.ndarray:
    """Measures each voice by [`measure_voice`]; what was measured before is read from the cache of features.

    Returns:
        `(recordings, 7)`, measures in the order of `WORDS`; a row of NaN where nothing is voiced.

    Raises:
        ImportError: swift-f0 is not installed.
        OSError: The cache cannot be written.
    """
    store = open_store(50.0)
    of_files = store.hashes_of_files(map(str, paths))
    files = {of_files[str(path)]: path for path in paths}

    def measured(digests: Sequence[str]) -> list[np.ndarray]:
        return [_measures(load_audio(files[digest])) for digest in digests]

    job = Job(
        fingerprint("voice measures", _VERSION)[:32],
        "audio",
        dict.fromkeys(files, 1.0),
        1,
        measured,
        os.cpu_count() or 1,
    )
    addresses = features_of(job, store)
    if addresses is None:
        raise OSError("The cache of features is full: remove the folder msfser_features in the cache of datasets.")
    return np.stack([load(addresses[of_files[str(path)]]).numpy() for path in paths])


def gain_free_norms(measures: np.ndarray, corpus: str) -> dict[str, Any]:
    """Norms without loudness, which depends on the gain of the recording; see [`MeasuredDescriber`].

    Args:
        measures: As [`voice_measures`] gives them.
        corpus: The names of the corpora.

    Raises:
        ValueError: No voice was measured.
    """
    voiced = measures[~np.isnan(measures).any(1)]
    if not len(voiced):
        raise ValueError(f"no recording of {corpus} is voiced: give recordings of speech.")
    norms = norms_of(voiced, corpus)
    del norms["quantiles"]["loudness"]
    return norms


def descriptions_of(measures: np.ndarray, norms: Mapping[str, Any]) -> list[str | None]:
    """The description of each voice by its measures, `None` where there are none."""
    describer = MeasuredDescriber(norms)
    return [
        None if np.isnan(row).any() else describer.describe_measures(dict(zip(WORDS, row.tolist(), strict=True)))
        for row in measures
    ]


def _measures(sound: np.ndarray) -> np.ndarray:
    found = measure_voice(sound, measure_prosody(sound))
    return np.array([np.nan] * len(WORDS) if found is None else [*found.values()], np.float64)
