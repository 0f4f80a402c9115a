"""Reads corpora of acted emotions whose file names say everything, with weak labels.

    Actor_01/03-01-05-02-01-01-01.wav          RAVDESS: speech, emotion, intensity, sentence, repetition, actor
    wav/03a01Wa.wav                            EmoDB: speaker, sentence, emotion, version
    AudioWAV/1001_IEO_ANG_HI.wav               CREMA-D: actor, sentence, emotion, level
    samples/EB0_anger_1.wav                    nEMO: speaker, emotion, sentence
    plain-to-emotional/ema/wav/ema00301.wav    emotiontts_kr: script and speaker, a number for emotion and sentence

Recordings are found by their names, at any depth, as WAV or converted to another type. Transcripts are not read:
`annotate` makes the texts. `acted_layouts.py` says how each corpus names its clips.
"""

import logging
import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import datasets

from ..configuration_msfser import LABELS
from ..processing_msfser import from_scale
from .acted_layouts import LAYOUTS, Layout
from .audio_folder import scan_folder
from .audio_paths import real_path_finder
from .schema import file_audio, make_dataset
from .weak_labels import LABEL_RANGE, weak_labels

logger = logging.getLogger(__name__)

# Beside the schema: which corpus, the emotion, "normal" or "strong" (null where the name does not tell), and the
# sentence, in RAVDESS with the repetition.
COLUMNS = ("corpus", "emotion", "intensity", "sentence")


def read_acted(
    folder: str | os.PathLike[str] | Sequence[Path], corpora: Sequence[str] = tuple(LAYOUTS)
) -> datasets.Dataset:
    """Read the clips of acted corpora in a folder, or in several.

    Args:
        folder: It holds one or more of the corpora, at any depth. Several may share files, which count once.
        corpora: Those that are read, keys of `LAYOUTS`; clips of others are left out.

    Returns:
        A row for each clip, corpora in the order of `LAYOUTS`, clips in the order of the names, with the features
        `schema.FEATURES` and strings for `COLUMNS`. Labels are those of [`weak_labels`], in 0..1; a speaker is a
        corpus and a name, "emodb-03". A clip that is there in several file types counts once, its WAV first; names
        may have lost their letter case.

    Raises:
        ValueError: `corpora` is empty or has an unknown name; or there is no such folder, no clip of the corpora in
            one of the folders, or one clip twice.
    """
    if not corpora or not set(corpora) <= LAYOUTS.keys():
        raise ValueError(f"corpora is {corpora!r}; give some of {', '.join(LAYOUTS)}.")
    layouts = {name: layout for name, layout in LAYOUTS.items() if name in corpora}
    titles = _either([layout.title for layout in layouts.values()])
    rows: dict[tuple[int, str], dict[str, Any]] = {}
    real_path, read = real_path_finder(), set[str]()
    for place in [folder] if isinstance(folder, str | os.PathLike) else folder:
        others, has_clips = list[str](), False
        for file in scan_folder(place, titles).recordings:
            path = Path(file)
            row = _row(path.stem, layouts)
            if row is None:
                others.append(path.name)
                continue
            has_clips = True
            if (real := real_path(file)) in read:
                continue
            read.add(real)
            key = [*layouts].index(row["corpus"]), layouts[row["corpus"]].spelling(path.stem)
            if key in rows:
                twin = Path(rows[key]["audio"]["path"])
                if twin.suffix.lower() == path.suffix.lower():
                    raise ValueError(f"{place}: {path.name} is there twice ({twin} and {path}); leave one out.")
                if path.suffix.lower() != ".wav":
                    continue
            rows[key] = row | {"audio": file_audio(file)}
        if not has_clips:
            examples = _either([f"{layout.title} (such as {layout.example})" for layout in layouts.values()])
            raise ValueError(f"{place}: there is no clip of {examples} in it.")
        if others:
            logger.warning(
                "%s: left out %d recordings that are no clips of %s, such as %r",
                *(os.fspath(place), len(others), titles, others[0]),
            )
    return make_dataset([rows[key] for key in sorted(rows)], dict.fromkeys(COLUMNS, datasets.Value("string")))


def require_corpora(folder: str | os.PathLike[str], corpora: Sequence[str], found: Collection[str]) -> None:
    """Check that a folder has clips of all corpora that are wanted.

    Args:
        folder: For the message.
        corpora: Keys of `LAYOUTS`.
        found: The corpora of the clips that are there.

    Raises:
        ValueError: It lacks some; the sentence names all of them.
    """
    if absent := [LAYOUTS[name].title for name in corpora if name not in set(found)]:
        raise ValueError(f"{folder}: there is no usable clip of {', '.join(absent)} in it; add the corpora.")


def _either(words: Sequence[str]) -> str:
    return " or ".join(part for part in (", ".join(words[:-1]), words[-1]) if part)


def _row(name: str, layouts: Mapping[str, Layout]) -> dict[str, Any] | None:
    """Return what the name of a clip says; `None` for other names."""
    for corpus, layout in layouts.items():
        if clip := layout.clip(name):
            labels = (from_scale(value, *LABEL_RANGE) for value in weak_labels(clip.emotion, clip.intensity))
            return {
                **dict(zip(LABELS, labels, strict=True)),
                "speaker": f"{corpus}-{clip.speaker}",
                **dict(zip(COLUMNS, (corpus, clip.emotion, clip.intensity, clip.sentence), strict=True)),
            }
    return None
