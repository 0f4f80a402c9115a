"""How often the intervals hold the true value: simulated systems on simulated speakers.

    python -m msfser.benchmarks.coverage

prints and writes `benchmarks/results/coverage.json`: the share of simulated tests whose 95 % interval
(`evaluation/intervals.py`) holds the value that all speakers and all seeds would have. A test has a few speakers and
three seeds of two systems. Predictions are labels times a slope, plus an offset, plus noise; slope and offset differ
between speakers, between systems on one speaker, and between seeds, by the deviations of `WORLDS`.

| row | meaning |
|---|---|
| `four_speakers/ccc`, `.../difference` | CCC of a system; the paired difference of two systems |
| `four_speakers/share` | pairwise ranking accuracy, whose probability differs between speakers, by `share_interval` |
| `.../WORLD` | of one world; the rows above have the lowest of them |
| `.../percentile` | the percentiles of a bootstrap over speakers and seeds instead |

The same for `ten_speakers` and `thirty_four_speakers`. The intervals of the rows are exact, over the simulated tests.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats
from tqdm import tqdm

from ..evaluation.intervals import Interval, clusters, interval, share_interval
from ..evaluation.results import Row, row
from .command import parser_of, record

SIZES = {"four_speakers": 4, "ten_speakers": 10, "thirty_four_speakers": 34}
SEEDS, CLIPS = 3, 40
MEASURES = ("ccc", "difference", "share")
_DRAWS, _PAIRS = 500, 12
_PERCENTILE = "/percentile"


class World(NamedTuple):
    """Standard deviations of the effects on predictions in 0..1."""

    slope: float  # between speakers; between the two systems on a speaker half of it
    offset: float  # likewise
    noise: float  # between clips of a speaker
    seed_slope: float  # between seeds
    seed_offset: float
    seed_speaker: float  # between seeds, of the offset of each speaker


WORLDS = {
    "mixed": World(0.15, 0.06, 0.12, 0.03, 0.01, 0.02),
    "speakers_differ": World(0.3, 0.12, 0.12, 0.03, 0.01, 0.02),
    "seeds_differ": World(0.1, 0.04, 0.12, 0.12, 0.05, 0.03),
    "weak": World(0.3, 0.1, 0.35, 0.05, 0.02, 0.03),
}

# Of the evidence for the expected order: shares of .55, .84 and .98.
_LEVELS = {"near_half": 0.15, "most": 1.15, "nearly_all": 2.4}


def simulated(world: World, speakers: int, seeds: int, draw: np.random.Generator) -> np.ndarray:
    """Means over the clips of each speaker: prediction, label, their squares, their product.

    Returns:
        `(5, systems, seeds, speakers)`; CCC is a function of their sums. The second system has the smaller slope.
    """

    def effect(deviation: float, *shape: int) -> np.ndarray:
        return deviation * draw.standard_normal(shape)

    labels = np.clip(0.5 + effect(0.05, 1, 1, speakers, 1) + effect(0.22, 1, 1, speakers, CLIPS), 0, 1)
    slope = 0.7 + effect(world.slope, 1, 1, speakers, 1) + effect(world.slope / 2, 2, 1, speakers, 1)
    slope = slope + effect(world.seed_slope, 2, seeds, 1, 1)
    offset = effect(world.offset, 1, 1, speakers, 1) + effect(world.offset / 2, 2, 1, speakers, 1)
    offset = offset + effect(world.seed_offset, 2, seeds, 1, 1) + effect(world.seed_speaker, 2, seeds, speakers, 1)
    noise = effect(world.noise, 1, 1, speakers, CLIPS) + effect(world.noise / 2, 2, seeds, speakers, CLIPS)
    predicted = 0.5 + np.array([1.0, 0.7])[:, None, None, None] * slope * (labels - 0.5) + offset + noise
    labels = np.broadcast_to(labels, predicted.shape)
    return np.stack([x.mean(-1) for x in (predicted, labels, predicted**2, labels**2, predicted * labels)])


def ccc(means: np.ndarray) -> np.ndarray:
    """CCC from what [`simulated`] gives, averaged over speakers, `(5, ...)`."""
    predicted, label, predicted2, label2, product = means
    spread = predicted2 - predicted**2 + label2 - label**2
    return 2 * (product - predicted * label) / (spread + (predicted - label) ** 2)


def true_values(world: World) -> dict[str, float]:
    """The measures over many speakers and seeds."""
    draw = np.random.default_rng(0)
    each = [ccc(simulated(world, 400, 25, draw).mean(-1)).mean(-1) for _ in range(8)]
    first, second = np.mean(each, axis=0)
    return {"ccc": first, "difference": first - second}


def intervals_of(means: np.ndarray) -> dict[str, Interval]:
    """The intervals of a simulated test."""
    speakers = [np.array([speaker]) for speaker in range(means.shape[-1])]

    def measure(drawn: np.ndarray, seeds: np.ndarray) -> np.ndarray:
        return ccc(means[..., drawn].mean(-1))[:, seeds].mean(-1)

    def difference(drawn: np.ndarray, seeds: np.ndarray) -> float:
        first, second = measure(drawn, seeds)
        return first - second

    of_systems = interval(measure, speakers, seeds=SEEDS, correlation=True)
    return {
        "ccc": Interval(*(end[0] for end in of_systems)),
        "difference": interval(difference, speakers, seeds=SEEDS),
    }


def percentiles_of(means: np.ndarray, draw: np.random.Generator) -> dict[str, Interval]:
    """The percentiles of a bootstrap over speakers and seeds."""
    of_seeds, of_speakers = (
        draw.multinomial(count, np.full(count, 1 / count), _DRAWS) / count for count in means.shape[-2:]
    )
    first, second = (ccc(means @ of_speakers.T) * of_seeds.T).sum(1)
    ends = {
        name: np.quantile(drawn, [0.025, 0.975]) for name, drawn in (("ccc", first), ("difference", first - second))
    }
    return {name: Interval(None, *both) for name, both in ends.items()}


def ranked_pairs(level: float, speakers: int, draw: np.random.Generator) -> tuple[np.ndarray, float]:
    """Whether each of 12 pairs of each speaker is ranked as expected, `(seeds, speakers * 12)`, and the true share."""
    deviations = (0.6, 0.15, 0.8, 0.5)  # between speakers, seeds, pairs, and pairs of each seed
    shapes = ((1, speakers, 1), (SEEDS, 1, 1), (1, speakers, _PAIRS), (SEEDS, speakers, _PAIRS))
    effects = (of * draw.standard_normal(shape) for of, shape in zip(deviations, shapes, strict=True))
    evidence = sum(effects, start=np.array(level))
    return (evidence > 0).reshape(SEEDS, -1), stats.norm.cdf(level / np.linalg.norm(deviations))


def hits(speakers: int, tests: int) -> dict[str, list[bool]]:
    """By measure and world, and `/percentile` for the bootstrap, whether the interval of each test holds the value."""
    found: dict[str, list[bool]] = {}

    def count(name: str, ends: Interval, true: float) -> None:
        found.setdefault(name, []).append(bool(ends.low <= true <= ends.high))

    for number, (world, effects) in enumerate(WORLDS.items()):
        true, draw = true_values(effects), np.random.default_rng([number, speakers])
        for _ in range(tests):
            means = simulated(effects, speakers, SEEDS, draw)
            for name, ends in intervals_of(means).items():
                count(f"{name}/{world}", ends, true[name])
            for name, ends in percentiles_of(means, draw).items():
                count(f"{name}/{world}/percentile", ends, true[name])
    units = clusters(np.repeat(np.arange(speakers), _PAIRS))
    draw = np.random.default_rng(speakers)
    for world, level in _LEVELS.items():
        for _ in range(tests):
            ranked, share = ranked_pairs(level, speakers, draw)
            count(f"share/{world}", share_interval(ranked, units), share)
    return found


def rows_of_size(size: str, tests: int) -> list[Row]:
    """The rows of one number of speakers, without their command."""
    rows = [row(f"{size}/{name}", *share_interval(each)) for name, each in hits(SIZES[size], tests).items()]

    def lowest(measure: str, end: str = "") -> Row:
        names = [f"{size}/{measure}/{world}{end}" for world in (_LEVELS if measure == "share" else WORLDS)]
        of_worlds = [one for one in rows if one["name"] in names]
        return min(of_worlds, key=lambda one: one["value"]) | {"name": f"{size}/{measure}{end}"}

    lows = [*map(lowest, MEASURES), lowest("ccc", _PERCENTILE), lowest("difference", _PERCENTILE)]
    return [*lows, *rows]


def main(argv: Sequence[str] | None = None) -> None:
    """Simulates, prints and writes `benchmarks/results/coverage.json`."""
    parser = parser_of("coverage", __doc__)
    parser.add_argument("--tests", type=int, default=2000, help="simulated tests of each world and size (2000)")
    arguments = parser.parse_args(argv)
    rows = [row for size in tqdm(SIZES) for row in rows_of_size(size, arguments.tests)]
    record("coverage", rows, "coverage", argv)


if __name__ == "__main__":
    main()
