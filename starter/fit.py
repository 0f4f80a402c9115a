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

import logging
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import datasets
import numpy as np
import pandas as pd
from huggingface_hub import ModelCard, ModelCardData

from ..cli.arguments import module_parser
from ..cli.errors import cli_errors
from ..corpora.acted_layouts import LAYOUTS, Layout
from ..corpora.licenses import LICENSES, RESEARCH_ONLY, License
from ..evaluation.held_out import Fold, HeldOut, Setting, Split, System, speaker_groups
from ..evaluation.starter_system import RECIPE_CODE
from ..hub.encoders import ensure_encoders
from ..intervals_msfser import set_intervals
from ..modeling_msfser import MsfSerModel
from ..training.calibration import GROUPS, calibrated, scale_of, too_few
from ..training.feature_store import fingerprint
from ..training.features import FEATURES_VERSION
from ..training.fitting import Clips, fit, predict
from ..training.sentences import Sentences
from .assemble import (
    AUDIO_ENCODER,
    GOEMOTIONS_LICENSE,
    STARTERS,
    SWITCHES,
    TEXT_ENCODER,
    TITLE,
    check_output,
    fitted_starter,
    license_of_fit,
    new_starter,
    write_fitted_weights,
    write_starter,
)
from .material import RECIPE, material, read_sentences, read_voices, training_items, voices_of
from .voices import gain_free_norms, voice_measures

logger = logging.getLogger("msfser.starter")

# Where cross-fits are kept.
FITS = Path("outputs/starter_fits/cross_fits")

# The card of a starter that a user fits.
CARD_TEMPLATE = Path(__file__).parent / "fitted_card.md"


class Fitted(NamedTuple):
    """What a starter is fitted to, as encoder outputs.

    Args:
        clips: As [`material`] makes them.
        norms: Of the describer.
        corpora: The names of the corpora.
        speakers: Of the voices, with which the clips begin.
    """

    clips: Clips
    norms: dict[str, Any]
    corpora: str
    speakers: np.ndarray


def fitted_to(voices: pd.DataFrame, sentences: Sentences) -> Fitted:
    """What a starter is fitted to.

    Args:
        voices: As [`read_voices`] gives them.
        sentences: As [`read_sentences`] gives them.
    """
    measures = voice_measures(voices["path"])
    norms = gain_free_norms(measures, titles_of(voices))
    clips = material(voices, measures, norms, sentences)
    return Fitted(clips, norms, titles_of(voices), voices["speaker"].to_numpy())


def fit_numbers(fitted: Fitted) -> MsfSerModel:
    """Fits a starter to all voices and sentences, in evaluation mode, without intervals."""
    model = fit(new_starter, fitted.clips, _items(fitted, np.arange(len(fitted.speakers))), 0, RECIPE)
    assert isinstance(model, MsfSerModel)
    return model


def fit_starter(fitted: Fitted, kept: Path) -> MsfSerModel:
    """Fits a starter to all voices and sentences, in evaluation mode, with intervals and scale.

    Args:
        fitted: What it is fitted to.
        kept: A folder for the cross-fits, which are not repeated.
    """
    model = fit_numbers(fitted)
    add_intervals(model, fitted, kept)
    return model


def add_intervals(model: MsfSerModel, fitted: Fitted, kept: Path) -> None:
    """Gives a starter its intervals and `config.scale`; all other weights stay as they are.

    Sentences alone and sounds without speech have no part in it: they are no recordings of speakers. Of too few
    there are neither intervals nor a scale, which is logged.

    Args:
        model: Fitted to all voices.
        fitted: What it is fitted to.
        kept: A folder for the cross-fits, which are not repeated.
    """
    labels, speakers = fitted.clips.labels[: len(fitted.speakers)], fitted.speakers.tolist()
    if words := too_few(labels, speakers):
        logger.info(words)
        return
    numbers, groups = cross_fits(fitted, kept)
    set_intervals(model, calibrated(numbers, labels, speakers, groups))
    model.config.scale = scale_of(labels, numbers, fitted.corpora)


def cross_fits(fitted: Fitted, kept: Path) -> tuple[np.ndarray, np.ndarray]:
    """Predicts each voice by a starter that is fitted to the other groups of speakers.

    Every second voice of each speaker is predicted with its description, the others from sound alone, as in training.

    Args:
        fitted: What a starter is fitted to.
        kept: A folder for the fits, which are not repeated.

    Returns:
        The predictions, `(voices, 3)`, and the group of each voice.
    """
    labels, speakers = fitted.clips.labels[: len(fitted.speakers)], fitted.speakers
    groups = speaker_groups(speakers, GROUPS)
    folds = {
        str(group): Fold(Split(np.flatnonzero(groups != group), np.flatnonzero(groups == group)), [])
        for group in np.unique(groups)
    }
    described, sentences = fitted.clips.texts["es"], fitted.clips.sentences
    assert sentences is not None
    # What the encoder made of the recordings tells them apart.
    data = labels, speakers.tolist(), described, sentences.identity
    identity = fingerprint(*data, *fitted.clips.states["clean"])
    engine = HeldOut(labels, folds, identity, kept)

    def fit_predict(train: np.ndarray, rest: np.ndarray, setting: Setting, seed: int) -> dict[str, np.ndarray]:
        model = fit(new_starter, fitted.clips, _items(fitted, train), seed, RECIPE)
        kinds = {"sound": (), "all": ("es",)}
        return {kind: predict(model, fitted.clips, rest, "clean", texts) for kind, texts in kinds.items()}

    system = System("starter", fit_predict, RECIPE_CODE, depends=[FEATURES_VERSION, SWITCHES])
    engine.run([system], [0])
    found = engine.gathered([system], [0])[system.name]
    is_described = pd.Series(speakers).groupby(speakers).cumcount().to_numpy() % 2 == 0
    return np.where(is_described[:, None], found["all"][0], found["sound"][0]), groups


def _items(fitted: Fitted, voices: np.ndarray) -> np.ndarray:
    """The clips of some voices, and the sounds without speech."""
    count = len(fitted.speakers)
    return training_items(np.concatenate([voices, np.arange(count, len(fitted.clips))]), count)


def fit_to_folders(folders: Sequence[Path], output: Path) -> License:
    """Fits a starter to the corpora in some folders, and writes it whole, with a card.

    Returns:
        The license of its weights.

    Raises:
        ValueError: There is none of the corpora, or the output folder holds something else.
    """
    check_output(output)
    voices = read_voices(folders, tuple(LAYOUTS))
    sentences = read_sentences(folders)
    fitted = fitted_to(voices, sentences)
    with tempfile.TemporaryDirectory() as kept:
        model = fit_starter(fitted, Path(kept))
    license = license_of_fit(_layouts_of(voices))
    license.add_to(model.config)
    write_starter(output, model, fitted.norms, fitted_card(voices, len(sentences.labels), license, model))
    return license


def fitted_card(voices: pd.DataFrame, sentences: int, license: License, model: MsfSerModel) -> str:
    """The card of a starter that a user fits.

    Args:
        voices: As [`read_voices`] gives them.
        sentences: The number of sentences.
        license: Of the weights.
        model: The fitted one.
    """
    rows = []
    for name, layout in _layouts_of(voices).items():
        own = voices[voices["corpus"] == name]
        speakers = own["speaker"].nunique()
        used = f"{len(own)} clips, {speakers} speaker{'s' if speakers > 1 else ''}"
        rows.append((layout.title, LICENSES[layout.license], used))
    used = f"{sentences} comments; the text encoder was adapted to 27,000 others. They contain offensive language"
    rows.append(("GoEmotions", LICENSES[GOEMOTIONS_LICENSE], used))
    is_of_hub = license.id != RESEARCH_ONLY
    data = ModelCardData(
        license=license.id if is_of_hub else "other",
        license_name=None if is_of_hub else license.id,
        library_name="transformers",
        pipeline_tag="audio-classification",
        tags=["speech-emotion-recognition", "valence-arousal-dominance", "msf-ser"],
        base_model=[AUDIO_ENCODER, TEXT_ENCODER],
    )
    card = ModelCard.from_template(
        data,
        template_path=str(CARD_TEMPLATE),
        title=TITLE,
        corpora=titles_of(voices),
        clips=len(voices),
        speakers=voices["speaker"].nunique(),
        terms=license.terms,
        sources=rows,
        intervals=model.config.intervals,
    )
    return str(card)


def titles_of(voices: pd.DataFrame) -> str:
    """The corpora of some voices, such as "RAVDESS, EmoDB"."""
    return ", ".join(layout.title for layout in _layouts_of(voices).values())


def _layouts_of(voices: pd.DataFrame) -> dict[str, Layout]:
    """The corpora of some voices, by name."""
    names = set(voices["corpus"])
    return {name: layout for name, layout in LAYOUTS.items() if name in names}


def main(argv: Sequence[str] | None = None) -> None:
    """Fits the starters of the package and writes their weights."""
    parser = module_parser("starter.fit", __doc__)
    parser.add_argument("--data", type=Path, required=True, help="the folder with the corpora")
    parser.add_argument("--starters", nargs="+", default=list(STARTERS), choices=list(STARTERS), help="all by default")
    parser.add_argument("--intervals_only", action="store_true", help="keep all other weights as they are")
    parser.add_argument("--output_dir", type=Path, default=FITS, help="where cross-fits are kept (%(default)s)")
    arguments = parser.parse_args(argv)
    datasets.disable_progress_bars()
    with cli_errors("starter"):
        ensure_encoders([AUDIO_ENCODER, TEXT_ENCODER])
        chosen = [STARTERS[name] for name in arguments.starters]
        voices: Mapping[str, pd.DataFrame] = {starter.name: voices_of(starter, arguments.data) for starter in chosen}
        sentences = read_sentences([arguments.data])
    for starter in chosen:
        fitted = fitted_to(voices[starter.name], sentences)
        if arguments.intervals_only:
            model = fitted_starter(starter)
            add_intervals(model, fitted, arguments.output_dir)
        else:
            model = fit_starter(fitted, arguments.output_dir)
        write_fitted_weights(model, fitted.norms, starter.folder)
        print(f"written: {starter.folder}")


if __name__ == "__main__":
    main()
