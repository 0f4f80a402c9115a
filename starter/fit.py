"""Fits starters: the two that come with the package, or one to the corpora of a user.

    python -m msfser.starter.fit --data FOLDER
    msfser starter outputs/mine --fit FOLDER...

FOLDER holds RAVDESS (speech), EmoDB, nEMO and GoEmotions as they are distributed. Voices and sentences have the weak
labels of `corpora/weak_labels.py`. The recipe is `starter/material.py`: every sound is brought to one level; most
training clips are augmented with other rooms, microphones and lines (`training/augmentation.py`); sounds without
speech are neutral; sentences are read alone, with neutral voices, and neutral ones with every voice
(`training/sentences.py`). The recipe is measured on held-out corpora and speakers (`msfser evaluate --leave_out
corpus`, `python -m msfser.benchmarks.starter`); here it is fitted to everything.
"""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pandas as pd

from ..cli.errors import cli_errors
from ..corpora.acted_layouts import LAYOUTS
from ..hub.encoders import ensure_encoders
from ..modeling_msfser import MsfSerModel
from ..training.fitting import fit
from ..training.sentences import Sentences
from .assemble import (
    AUDIO_ENCODER,
    STARTERS,
    TEXT_ENCODER,
    TITLE,
    check_output,
    new_starter,
    write_fitted_weights,
    write_starter,
)
from .material import RECIPE, material, read_sentences, read_voices, training_items
from .voices import gain_free_norms, voice_measures

_CARD = """{title}: {corpora}

Valence, arousal and dominance of speech, each in 0..1, fitted by `msfser starter --fit` to {clips} clips of {corpora}
and to sentences of GoEmotions. The labels are weak: each emotion category is mapped to a published norm. The license
of the weights is that of the corpora. Nothing was measured: see the card of the starter that comes with MSF-SER for
the recipe, its results, and what the numbers are not for.
"""


def fit_starter(voices: pd.DataFrame, sentences: Sentences) -> tuple[MsfSerModel, dict[str, Any]]:
    """Fits a starter to all of some voices and sentences.

    Args:
        voices: As [`read_voices`] gives them.
        sentences: As [`read_sentences`] gives them.

    Returns:
        The model, in evaluation mode, and the norms of its describer.
    """
    measures = voice_measures(voices["path"])
    norms = gain_free_norms(measures, titles_of(voices))
    clips = material(voices, measures, norms, sentences)
    model = fit(new_starter, clips, training_items(np.arange(len(clips)), len(voices)), 0, RECIPE)
    assert isinstance(model, MsfSerModel)
    return model, norms


def fit_to_folders(folders: Sequence[Path], output: Path) -> None:
    """Fits a starter to the corpora in some folders, and writes it whole, with a card.

    Raises:
        ValueError: There is none of the corpora, or the output folder holds something else.
    """
    check_output(output)
    voices = read_voices(folders, tuple(LAYOUTS))
    model, norms = fit_starter(voices, read_sentences(folders))
    card = _CARD.format(title=TITLE, corpora=titles_of(voices), clips=len(voices))
    write_starter(output, model, norms, card)


def titles_of(voices: pd.DataFrame) -> str:
    """The corpora of some voices, such as "RAVDESS, EmoDB"."""
    return ", ".join(LAYOUTS[name].title for name in LAYOUTS if name in set(voices["corpus"]))


def main(argv: Sequence[str] | None = None) -> None:
    """Fits the starters of the package and writes their weights."""
    parser = argparse.ArgumentParser(
        prog="python -m msfser.starter.fit",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--data", type=Path, required=True, help="the folder with the corpora")
    parser.add_argument("--starters", nargs="+", default=list(STARTERS), choices=list(STARTERS), help="all by default")
    arguments = parser.parse_args(argv)
    datasets.disable_progress_bars()
    with cli_errors("starter"):
        ensure_encoders([AUDIO_ENCODER, TEXT_ENCODER])
        chosen = [STARTERS[name] for name in arguments.starters]
        voices: Mapping[str, pd.DataFrame] = {
            starter.name: read_voices([arguments.data], starter.voices) for starter in chosen
        }
        sentences = read_sentences([arguments.data])
    for starter in chosen:
        write_fitted_weights(*fit_starter(voices[starter.name], sentences), starter.folder)
        print(f"written: {starter.folder}")


if __name__ == "__main__":
    main()
