"""The label scale of a source: one for all dimensions, or one for each of the two or three that it has."""

import math
from collections.abc import Mapping, Sequence

Range = tuple[float, float]
LabelRange = Range | Mapping[str, Range]

# A corpus needs at least so many of the three dimensions.
FEWEST = 2

_EXAMPLES = "--label_range 1 7, or --label_range valence=-1:1 arousal=0:1"


def parse_label_range(words: Sequence[float | str]) -> LabelRange:
    """Return the range that words of the command line give: `1 7`, or `valence=-1:1 arousal=0:1`.

    Raises:
        ValueError: They are neither.
    """
    pairs = [str(word) for word in words]
    try:
        if len(pairs) != 2 or any("=" in pair for pair in pairs):
            named = [pair.partition("=") for pair in pairs]
            if not named or len({name for name, _, _ in named}) < len(named):
                raise ValueError
            return {name: _bounds(*ends.split(":")) for name, _, ends in named}
        return _bounds(*pairs)
    except (ValueError, TypeError):
        raise ValueError(f"--label_range cannot be {' '.join(pairs)}; give {_EXAMPLES}.") from None


def _bounds(low: str, high: str) -> Range:
    return float(low), float(high)


def ranges_of(label_range: LabelRange) -> dict[str, Range]:
    """Return the range of each dimension that a source has, in the order of `LABELS`.

    Args:
        label_range: Lowest and highest value of all labels; or those of each dimension that the source has.

    Raises:
        ValueError: A range is not two finite numbers, the lower one first; or fewer than two dimensions, or something
            else, are named.
    """
    from ..configuration_msfser import LABELS  # slow

    given = label_range if isinstance(label_range, Mapping) else dict.fromkeys(LABELS, label_range)
    if unknown := given.keys() - {*LABELS}:
        raise ValueError(f"--label_range names {sorted(unknown)}; the dimensions are {', '.join(LABELS)}.")
    if len(given) < FEWEST:
        raise ValueError(
            f"--label_range names {', '.join(given) or 'no dimension'}; at least two of three are needed."
        )
    return {name: range_of(given[name]) for name in LABELS if name in given}


def range_of(ends: Sequence[float]) -> Range:
    """Return one range.

    Raises:
        ValueError: It is not two finite numbers, the lower one first.
    """
    bounds = tuple(map(float, ends))
    if len(bounds) != 2 or not all(map(math.isfinite, bounds)) or bounds[0] >= bounds[1]:
        shown = " ".join(f"{bound:g}" for bound in bounds)
        raise ValueError(
            f"--label_range is {shown}; give two finite numbers, the lower one first, such as --label_range 1 7."
        )
    return bounds[0], bounds[1]


def half_step(low: float, high: float) -> float:
    """Return half a step of a scale of whole numbers; 0 for other scales.

    Means of ratings can miss such a scale by half a step where one rating is blank, as in IEMOCAP (0.5 and 5.5).
    """
    return 0.5 if low.is_integer() and high.is_integer() and high - low >= 3 else 0.0
