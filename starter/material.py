"""What a starter is fitted to: voices with weak labels, sounds without speech, and sentences with weak labels."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import datasets
import numpy as np
import pandas as pd
import torch

from ..audio_msfser import SAMPLING_RATE
from ..configuration_msfser import LABELS
from ..corpora.acted import COLUMNS, read_acted, require_corpora
from ..corpora.acted_layouts import LAYOUTS
from ..corpora.audio_folder import scan_folder
from ..corpora.goemotions import find_goemotions, read_goemotions
from ..evaluation.acted import EMODB_EMOTIONS, strong_counterparts
from ..training import augmentation
from ..training.features import encode_sounds, encode_texts
from ..training.fitting import Clips, Recipe
from ..training.sentences import Sentences
from .assemble import Starter, new_starter, starter_processor
from .voices import descriptions_of

# Augmented copies of each clip, and the share of the clean one in training.
CLEAN_SHARE = 0.3
CLEAN: Mapping[str, augmentation.Distortion] = {"clean": augmentation.nothing}
# The name seeds the draws.
COPIES: Mapping[str, augmentation.Distortion] = {f"take_{copy}": augmentation.augment for copy in range(3)}
SAMPLING_WEIGHTS = {"clean": CLEAN_SHARE} | dict.fromkeys(COPIES, (1 - CLEAN_SHARE) / len(COPIES))
RECIPE = Recipe(ranking_loss_weight=0.5, mixing_lr_scale=20.0, epochs=10)
# Clips are described half of the time; their own words, a few fixed sentences, are never used.
TEXT_DROPOUT = {"les": 1.0, "gs": 1.0, "es": 0.5}
# Sounds without speech, and how often each of them is in an epoch.
NOISES, NOISE_WEIGHT = 64, 4
SENTENCES = 16_000
# As many words as LEMF's segment has.
_SEGMENT = 3


def read_voices(folders: Sequence[Path], corpora: Collection[str]) -> pd.DataFrame:
    """The clips of acted corpora: `path`, `speaker`, labels in 0..1, and `COLUMNS` of `corpora/acted.py`.

    Raises:
        ValueError: A folder has none of the corpora, nor GoEmotions; none of the folders has one; or a clip is there
            twice.
    """
    spoken = [folder for folder in folders if find_goemotions(folder) is None or _has_voices(folder, corpora)]
    rows = read_acted(spoken or folders, corpora=tuple(corpora))
    table = rows.select_columns([*COLUMNS, "speaker", *LABELS]).to_pandas()
    return table.assign(path=[audio["path"] for audio in rows["audio"]])


def voices_of(starter: Starter, data: Path) -> pd.DataFrame:
    """The voices that a starter of the package is fitted to, as [`read_voices`] gives them.

    Of EmoDB only the emotions whose clips are the same in all copies are used.

    Raises:
        ValueError: The folder lacks one of its corpora.
    """
    voices = read_voices([data], starter.voices)
    voices = voices[(voices["corpus"] != "emodb") | voices["emotion"].isin(EMODB_EMOTIONS)].reset_index(drop=True)
    require_corpora(data, starter.voices, voices["corpus"])
    return voices


def _has_voices(folder: Path, corpora: Collection[str]) -> bool:
    names = [Path(file).stem for file in scan_folder(folder).recordings]
    return any(LAYOUTS[corpus].clip(name) for corpus in corpora for name in names)


def read_sentences(folders: Sequence[Path], most: int = SENTENCES) -> Sentences:
    """Some training sentences of GoEmotions, with a random window of three words as emphasized ones.

    Args:
        folders: One is GoEmotions, or has it.
        most: How many are drawn.

    Raises:
        ValueError: GoEmotions is not there.
    """
    sentences = find_sentences(folders)["train"]
    table = sentences.select(drawn_sentences(len(sentences), most)).to_pandas()
    draw = np.random.default_rng(0)
    model, processor = new_starter(), starter_processor()
    texts = {"gs": table["transcript"].tolist(), "les": [window(text, draw) for text in table["transcript"]]}
    vectors = {name: encode_texts(column, model, processor) for name, column in texts.items()}
    return Sentences(table[[*LABELS]].to_numpy(np.float32), vectors)


def find_sentences(folders: Sequence[Path]) -> datasets.DatasetDict:
    """GoEmotions as [`read_goemotions`] reads it, from the first of some folders that is GoEmotions or has it.

    Raises:
        ValueError: GoEmotions is not there.
    """
    place = next(filter(None, map(find_goemotions, folders)), None)
    if place is None:
        raise ValueError(f"{folders[0]}: there is no GoEmotions in it, which teaches a starter words; add its folder.")
    return read_goemotions(place)


def drawn_sentences(count: int, most: int = SENTENCES) -> np.ndarray:
    """Which of the training sentences of GoEmotions a starter is fitted to, `(sentences,)` indices in random order.

    The text encoder is adapted to the others: of sentences that it has learned by heart, its vectors would seem to say
    more than those of other sentences do.
    """
    return np.random.default_rng(0).permutation(count)[:most]


def window(text: str, draw: np.random.Generator) -> str:
    """Three consecutive words of a text at a random place, or all of a shorter one."""
    words = text.split()
    start = int(draw.integers(max(1, len(words) - _SEGMENT + 1)))
    return " ".join(words[start : start + _SEGMENT])


def material(
    voices: pd.DataFrame,
    measures: np.ndarray,
    norms: Mapping[str, Any],
    sentences: Sentences,
    trained: Collection[str] | None = None,
    tests: Mapping[str, augmentation.Distortion] = MappingProxyType({}),
) -> Clips:
    """Voices and sounds without speech, clean and augmented, for [`fit`]; the voices come first.

    Args:
        voices: `path`, `corpus`, `speaker`, labels, and what [`strong_counterparts`] needs.
        measures: Of each voice, as [`voice_measures`] gives them.
        norms: That the descriptions compare them with.
        sentences: That are trained on, too.
        trained: The corpora that are trained on; clips of others need no augmented copies. All by default.
        tests: Further distortions to predict.
    """
    of_corpora = []
    for name, rows in voices.groupby("corpus", sort=False):
        copies = COPIES if trained is None or name in trained else {}
        found = states_of(rows["path"].tolist(), {**CLEAN, **copies, **tests})
        of_corpora.append(dict.fromkeys(COPIES, found["clean"]) | found)
    of_corpora.append(states_of(noises(), {**CLEAN, **COPIES}))
    of_corpora[-1] |= dict.fromkeys(tests, of_corpora[-1]["clean"])
    labels = np.concatenate([voices[[*LABELS]].to_numpy(np.float32), np.full((NOISES, len(LABELS)), 0.5, np.float32)])
    described = encode_texts([*descriptions_of(measures, norms), *[None] * NOISES], new_starter(), starter_processor())
    return Clips(
        labels=labels,
        speakers=np.array([*voices["speaker"], *(f"none-{number}" for number in range(NOISES))]),
        states={kind: [one for part in of_corpora for one in part[kind]] for kind in (*SAMPLING_WEIGHTS, *tests)},
        sampling_weights=SAMPLING_WEIGHTS,
        texts={"es": described},
        stronger=np.concatenate([strong_counterparts(voices), np.full(NOISES, -1)]),
        text_dropout=TEXT_DROPOUT,
        sentences=sentences,
        neutral=np.append((labels[:-NOISES] == 0.5).all(1), np.zeros(NOISES, bool)),
    )


def with_words(clips: Clips, texts: Mapping[str, Sequence[str | None]]) -> Clips:
    """The clips with the words that were recognized, for predictions; a text by `les` and `gs` for each voice."""
    model, processor = new_starter(), starter_processor()
    rest = [None] * (len(clips) - len(next(iter(texts.values()))))
    vectors = {name: encode_texts([*column, *rest], model, processor) for name, column in texts.items()}
    return replace(clips, texts={**clips.texts, **vectors})


def training_items(items: np.ndarray, voices: int) -> np.ndarray:
    """The items to train on; those from index `voices` on, without speech, several times."""
    return np.concatenate([items[items < voices], np.repeat(items[items >= voices], NOISE_WEIGHT)])


def states_of(
    sounds: Sequence[str | np.ndarray], distortions: Mapping[str, augmentation.Distortion]
) -> dict[str, list[torch.Tensor]]:
    """States of the starter's encoder by distortion, as [`encode_sounds`] gives them."""
    model, processor = new_starter(), starter_processor()
    return {name: encode_sounds(name, sounds, model, processor, how) for name, how in distortions.items()}


def noises() -> list[np.ndarray]:
    """The sounds without speech that are trained on."""
    return [no_speech(number) for number in range(NOISES)]


def no_speech(number: int) -> np.ndarray:
    """A sound without speech, 1 to 4 s: silence, a hum, clicks, or noise of any color."""
    draw = np.random.default_rng([1, number])
    length = int(draw.uniform(1, 4) * SAMPLING_RATE)
    level = 10 ** (draw.uniform(-70, -10) / 20)
    kind = number % 8
    if kind == 0:
        sound = np.zeros(length)
    elif kind == 1:
        phase = 2 * np.pi * draw.uniform(40, 60) * np.arange(length) / SAMPLING_RATE
        sound = np.add.reduce([np.sin(order * phase) / order for order in range(1, 6)])
    elif kind == 2:
        sound = (draw.random(length) < 3 / SAMPLING_RATE).astype(float)
    else:
        spectrum = np.fft.rfft(draw.standard_normal(length))
        spectrum /= np.maximum(np.arange(len(spectrum)), 1) ** draw.uniform(-0.3, 1.2)
        sound = np.fft.irfft(spectrum, length)
        sound /= sound.std()
    return (level * sound).astype(np.float32)
