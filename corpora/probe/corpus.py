"""The probe corpus: synthetic speech whose labels follow from a published rule.

Each utterance is an opening sentence and two opposed clauses, such as "It was a merry lucky morning. The food was
clever but the service was stupid.", synthesized by espeak-ng. One of the two opposed adjectives is stressed: slower,
higher and louder. The rule of the labels is in docs/probe-corpus.md. s, g, the order of the polarities, the level of
dominance, arousal and the voice are drawn independently of each other; the first three are crossed exactly.
"""

import glob
import hashlib
import json
import logging
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

import datasets
import numpy as np
import pandas as pd
import soundfile
import soxr
from tqdm.auto import tqdm

from ..table import read_table
from .synthesizer import Speech, Synthesizer, engine_version
from .texts import TEXTS, Texts

logger = logging.getLogger(__name__)

# Raised by whoever changes this file or the synthesizer so that the corpus changes.
VERSION = 1
SIZES = {"train": 640, "validation": 160, "test": 240}
SAMPLE_RATE = 16_000
AROUSAL_RANGE = (0.1, 0.9)
RATE_RANGE = (150.0, 225.0)
PITCH_RANGE = (25.0, 60.0)
LEVEL_RANGE = (-42.0, -24.0)
STRESS = {"rate": "65%", "pitch": "+40", "volume": "+100%"}
VOLUME = 50
_LEFTOVER_SECONDS = 3600

T = TypeVar("T")


@dataclass(frozen=True)
class Draw:
    """One utterance before it is synthesized."""

    stressed_polarity: int  # s, +1 or -1
    opening_polarity: int  # g, +1 or -1
    positive_first: bool  # whether the first clause has the positive adjective
    arousal: float  # 0.1 to 0.9
    dominance: float  # 0.2, 0.5 or 0.8
    voice: str  # espeak-ng voice name
    opening: str
    clauses: str
    stressed_word: int  # index in the transcript
    description: str  # determines the dominance

    @property
    def transcript(self) -> str:
        """The spoken text."""
        return f"{self.opening} {self.clauses}"

    @property
    def valence(self) -> float:
        """0.05 to 0.95."""
        return round(0.5 + 0.25 * self.stressed_polarity + 0.2 * self.opening_polarity, 2)


def _deck(items: Sequence[T], size: int, generator: np.random.Generator) -> Iterator[T]:
    """Return `size` items, each as often as any other to within one, in random order within each round."""
    rounds = -(-size // len(items))
    order = [index for _ in range(rounds) for index in generator.permutation(len(items))]
    return iter([items[index] for index in order[:size]])


def draw(texts: Texts, size: int, generator: np.random.Generator) -> list[Draw]:
    """Draw the utterances of a split, in random order."""
    signs = (1, -1)
    crossed = [(s, g, first) for s in signs for g in signs for first in (True, False)]
    cells = [crossed[index % len(crossed)] for index in range(size)]
    cells = [cells[index] for index in generator.permutation(size)]
    strata = (generator.permutation(size) + generator.uniform(size=size)) / max(size, 1)
    low, high = AROUSAL_RANGE
    arousals = low + (high - low) * strata
    dominances = _deck(sorted(texts.manners), size, generator)
    voices = _deck(texts.voices, size, generator)
    clauses = _deck(texts.clauses, size, generator)
    openings = _deck(texts.openings, size, generator)
    frames = _deck(texts.frames, size, generator)
    manners = {level: _deck(pool, size, generator) for level, pool in sorted(texts.manners.items())}
    opening_pools = {1: texts.positive_openings, -1: texts.negative_openings}
    opening_words = {sign: _deck(pool, size, generator) for sign, pool in opening_pools.items()}
    # One deck for the stressed and one for the other adjective: each adjective is stressed as often as not.
    stressed_words = {1: _deck(texts.positive, size, generator), -1: _deck(texts.negative, size, generator)}
    other_words = {1: _deck(texts.positive, size, generator), -1: _deck(texts.negative, size, generator)}

    draws = []
    for (s, g, positive_first), arousal in zip(cells, arousals, strict=True):
        stressed, other = next(stressed_words[s]), next(other_words[-s])
        stressed_first = positive_first == (s > 0)
        first, second = (stressed, other) if stressed_first else (other, stressed)
        one = next(opening_words[g])
        two = generator.choice([word for word in opening_pools[g] if word != one])
        opening = next(openings)
        if one[0] in "aeiou":
            opening = opening.replace(" a {", " an {")
        opening = opening.format(first=one, second=two)
        template = next(clauses)
        slot = "{first}" if stressed_first else "{second}"
        before = template[: template.index(slot)].split()
        dominance = next(dominances)
        description = next(frames).format(manner=next(manners[dominance]))
        draws.append(
            Draw(
                stressed_polarity=s,
                opening_polarity=g,
                positive_first=positive_first,
                arousal=round(float(arousal), 4),
                dominance=dominance,
                voice=next(voices),
                opening=opening,
                clauses=template.format(first=first, second=second),
                stressed_word=len(opening.split()) + len(before),
                description=description[0].upper() + description[1:],
            )
        )
    return draws


def _between(limits: tuple[float, float], arousal: float) -> float:
    low, high = AROUSAL_RANGE
    return limits[0] + (limits[1] - limits[0]) * (arousal - low) / (high - low)


def _speak(synthesizer: Synthesizer, utterance: Draw) -> Speech:
    """Synthesize a drawn utterance, before the level is set."""
    words = utterance.transcript.split()
    marks = " ".join(f'{name}="{value}"' for name, value in STRESS.items())
    marked = list(words)
    marked[utterance.stressed_word] = f"<prosody {marks}>{words[utterance.stressed_word]}</prosody>"
    synthesizer.set_voice(utterance.voice)
    speech = synthesizer.speak(
        f"<speak>{' '.join(marked)}</speak>",
        rate=round(_between(RATE_RANGE, utterance.arousal)),
        pitch=round(_between(PITCH_RANGE, utterance.arousal)),
        volume=VOLUME,
    )
    if [word.text for word in speech.words] != words:
        raise RuntimeError(f"espeak-ng's words are not those of {utterance.transcript!r}")
    return speech


def emphasized_words(words: Sequence[str], stressed: int) -> str:
    """Return the word with an index and one neighbor on each side, in lower case and without punctuation."""
    window = words[max(0, stressed - 1) : stressed + 2]
    return " ".join(re.sub(r"[^\w'-]", "", word).lower() for word in window)


def _samples(speech: Speech, level: float) -> np.ndarray:
    """Return int16 samples at `SAMPLE_RATE` with the level in dB relative to full scale."""
    samples = soxr.resample(speech.samples.astype(np.float64) / 32768, speech.rate, SAMPLE_RATE)
    samples = samples * 10 ** (level / 20) / np.sqrt(np.mean(samples**2))
    return np.clip(np.round(samples * 32768), -32768, 32767).astype(np.int16)


def _is_current(folder: Path, fingerprint: str) -> bool:
    mark = folder / "fingerprint"
    return mark.is_file() and mark.read_text() == fingerprint


def make_probe(folder: str | Path, *, seed: int = 0, sizes: Mapping[str, int] | None = None) -> Path:
    """Make the probe corpus, unless the folder has it, and return the folder.

    The folder contains `metadata.parquet`, `audio/*.flac` (16 kHz, mono, 16 bit) and `fingerprint`, a hash of the
    recipe. A folder with this recipe's fingerprint is kept; any other is replaced once the new corpus is complete.
    The table has all columns of the schema, `split`, and `stressed_word` (index into `words`).

    Args:
        folder: Of the corpus.
        seed: Seed of all draws.
        sizes: Number of utterances per split, by default `SIZES`.

    Raises:
        ImportError: `espeakng-loader` is not installed.
        RuntimeError: The engine's words are not those of a transcript.
        ValueError: The engine does not know a voice, or the folder holds something else than a probe corpus.
    """
    folder, sizes = Path(folder), SIZES if sizes is None else sizes
    texts = {split: asdict(material) for split, material in TEXTS.items()}
    recipe = [VERSION, seed, dict(sizes), engine_version(), texts]
    fingerprint = hashlib.sha256(json.dumps(recipe).encode()).hexdigest()
    if _is_current(folder, fingerprint):
        logger.info("The probe corpus in %s is up to date", folder)
        return folder
    if folder.exists() and any(folder.iterdir()) and not (folder / "fingerprint").is_file():
        raise ValueError(f"{folder} is not empty and does not hold a probe corpus; name another folder.")

    logger.info("Making the probe corpus in %s", folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    _remove_leftovers(folder)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", suffix=".partial", dir=folder.parent) as scratch:
        new = Path(scratch, "new")
        (new / "audio").mkdir(parents=True)
        rows = []
        with tqdm(total=sum(sizes.values()), desc="probe corpus", unit="utterance") as progress:
            for number, (split, size) in enumerate(sizes.items()):
                synthesizer = Synthesizer()
                for index, utterance in enumerate(draw(TEXTS[split], size, np.random.default_rng([seed, number]))):
                    rows.append(_write(new, f"audio/{split}_{index:04d}.flac", synthesizer, utterance, split))
                    progress.update()
        pd.DataFrame(rows).to_parquet(new / "metadata.parquet", index=False)
        (new / "fingerprint").write_text(fingerprint)
        _replace(folder, new, fingerprint)
    return folder


def _write(folder: Path, path: str, synthesizer: Synthesizer, utterance: Draw, split: str) -> dict[str, Any]:
    """Write the recording of an utterance and return its row of the table."""
    speech = _speak(synthesizer, utterance)
    samples = _samples(speech, _between(LEVEL_RANGE, utterance.arousal))
    soundfile.write(folder / path, samples, SAMPLE_RATE, subtype="PCM_16")
    seconds = len(samples) / SAMPLE_RATE
    return {
        "audio": path,
        "transcript": utterance.transcript,
        "words": [{"word": w.text, "start": w.start, "end": min(w.end, seconds)} for w in speech.words],
        "emphasis": emphasized_words(utterance.transcript.split(), utterance.stressed_word),
        "description": utterance.description,
        "valence": utterance.valence,
        "arousal": utterance.arousal,
        "dominance": utterance.dominance,
        "speaker": utterance.voice,
        "split": split,
        "stressed_word": utterance.stressed_word,
    }


def read_probe(folder: str | Path) -> datasets.DatasetDict:
    """Make the probe corpus in the folder unless it is there, and read it."""
    return read_table(make_probe(folder))


def _replace(folder: Path, new: Path, fingerprint: str) -> None:
    """Rename the finished corpus; at all times the folder holds a whole corpus or does not exist."""
    try:
        os.rename(new, folder)
    except OSError:
        # Another process may have finished the same corpus in the meantime.
        if _is_current(folder, fingerprint):
            return
        os.rename(folder, new.with_name("old"))
        os.rename(new, folder)


def _remove_leftovers(folder: Path) -> None:
    """Remove what killed runs left beside the folder; younger ones may belong to a run that is still going."""
    for leftover in folder.parent.glob(f".{glob.escape(folder.name)}.*.partial"):
        if time.time() - leftover.stat().st_mtime > _LEFTOVER_SECONDS:
            shutil.rmtree(leftover, ignore_errors=True)
