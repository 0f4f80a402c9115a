"""The material of the probe corpus, disjoint between its splits, from `texts.yaml`."""

from dataclasses import dataclass
from pathlib import Path

import yaml


@dataclass(frozen=True)
class Texts:
    """The material of one split, as `texts.yaml` describes it."""

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
