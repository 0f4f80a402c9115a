"""The material of the probe corpus, disjoint between its splits, from `texts.yaml`."""

from dataclasses import dataclass
from pathlib import Path

import yaml


@dataclass(frozen=True)
class Texts:
    """The material of one split.

    Attributes:
        voices: espeak-ng voice names. Variants with breath noise and those of the Klatt synthesizer are left out:
            their noise comes from the C library's shared random numbers, so the samples would not repeat.
        clauses: Sentences of two opposed clauses with the slots `first` and `second`.
        openings: Sentences of two adjectives of one polarity with the slots `first` and `second`; "a" before the
            first becomes "an" where needed.
        positive: Positive adjectives of the clauses.
        negative: Negative adjectives of the clauses.
        positive_openings: Positive adjectives of the opening sentences; none of them is used in the clauses.
        negative_openings: Negative adjectives of the opening sentences; none of them is used in the clauses.
        frames: Sentences of description with the slot `manner`.
        manners: Manners of speaking for each level of dominance in 0..1.
    """

    voices: list[str]
    clauses: list[str]
    openings: list[str]
    positive: list[str]
    negative: list[str]
    positive_openings: list[str]
    negative_openings: list[str]
    frames: list[str]
    manners: dict[float, list[str]]


TEXTS: dict[str, Texts] = {
    split: Texts(**material)
    for split, material in yaml.safe_load(Path(__file__).with_name("texts.yaml").read_text(encoding="utf-8")).items()
}
