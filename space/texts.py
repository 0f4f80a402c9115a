"""What the page says about a result, in plain words."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

# The ends of the three scales, from 0 to 1, and five steps between them.
SCALES = {
    "valence": ("negative", "positive"),
    "arousal": ("calm", "excited"),
    "dominance": ("submissive", "dominant"),
}
# The comparatives of the ends.
_MORE = {"calm": "calmer"}
_UNDETERMINED = 0.9  # the part of the scale that an interval covers
# What a model may read, and what the page calls it.
INPUTS = {"sound": "sound", "transcript": "words", "emphasis": "emphasized words", "description": "description"}
ORIGINS = {
    "given": "yours",
    "recognized": "recognized automatically",
    "aligned": "yours",
    "found": "found automatically",
    "measured": "measured in the voice",
}
NO_SPEECH = "absent: no speech"
NOT_READ = "absent: the model does not read it"

TITLE = "Speech emotion: how does it come across?"
LEAD = (
    "Record or upload speech and see how it comes across: negative or positive, calm or excited, submissive or "
    "dominant. Estimated from {inputs}."
)
NO_RESULT = "Record or upload speech and press <b>Analyze</b>, or choose an example."
FAILED = "Analysis failed"
UNEXPECTED = "The recording could not be analyzed: try it again, or try another one."

NOT_FOR = """The numbers are a machine's estimate of how speech comes across on average. They do not tell what anybody
feels. **Do not use them for decisions about people:** no clinical, hiring, school, or workplace use. The
[EU AI Act](https://eur-lex.europa.eu/eli/reg/2024/1689/oj) prohibits emotion recognition at work and in education,
with narrow exceptions, and regulates other uses. Analyze only recordings of people who know and agree. More is under
**Responsible use**."""

KEPT = """It is kept for about {minutes} minutes, in a temporary file, so that you can correct its words; then it is
deleted. It is used for nothing else, and neither the recording nor its words are logged.
The sound of the microphone on the tab **Live** is deleted as soon as it is read; the last seconds are in memory. Parts
that the page is too slow to read are deleted like other recordings."""

LIVE_NOTICE = """**Before you start.** Everybody in the room must know that emotion recognition is running, and
agree to it. Do not use it at work or at school, where the
[EU AI Act](https://eur-lex.europa.eu/eli/reg/2024/1689/oj) prohibits it, with narrow exceptions, nor for
decisions about people (more: **Responsible use**, below). Sound is deleted as soon as it is read; what the page is too
slow to read is deleted after about 10 minutes."""


def responsible_use() -> str:
    """The section of the Space's README, which the Hub shows beside the page."""
    readme = Path(__file__).with_name("README.md").read_text(encoding="utf-8")
    return readme.partition("\n## Responsible use\n")[2].partition("\n## ")[0].strip()


def in_words(dimension: str, value: float) -> str:
    """A number in 0..1 as plain words, in five steps."""
    low, high = SCALES[dimension]
    steps = (f"very {low}", f"somewhat {low}", f"neither {low} nor {high}", f"somewhat {high}", f"very {high}")
    return steps[min(4, max(0, int(value * 5)))]


def summary(result: Mapping[str, Any]) -> str:
    """The result as a sentence."""
    open_ones = [name for name in SCALES if is_undetermined(result, name)]
    known = ", ".join(in_words(name, result[name]) for name in SCALES if name not in open_ones)
    left = f"{listed(open_ones)} {'is' if len(open_ones) == 1 else 'are'} not determined" if open_ones else ""
    over = f", on average over {minutes(result['duration'])}" if "course" in result else ""
    sentence = f"{'; '.join(filter(None, [known, left]))}{over}."
    return f"{sentence[0].upper()}{sentence[1:]}"


def warnings(result: Mapping[str, Any]) -> list[str]:
    """Why the result may mean little."""
    if has_speech(result):
        return list(result["warnings"])
    seconds = result["speech_seconds"]
    found = f"Only {seconds:.2f} s of speech were detected" if seconds else "No speech was detected"
    of_speech = ("No speech was found", "There is less than")
    others = [sentence for sentence in result["warnings"] if not sentence.startswith(of_speech)]
    return [f"{found}, so the numbers mean nothing.", *others]


def has_speech(result: Mapping[str, Any]) -> bool:
    """Whether anybody speaks, as far as that is known."""
    known = result.get("has_speech")
    return result["texts"]["transcript"] != NO_SPEECH if known is None else bool(known)


def rank(result: Mapping[str, Any], dimension: str) -> str | None:
    """Where the number is among those of a corpus, or `None` if that is not known."""
    if not result.get("percentiles"):
        return None
    of_dimension = result["percentiles"][dimension]
    percentile = of_dimension.get("predictions", of_dimension.get("labels"))
    low, high = SCALES[dimension]
    end, share = (high, percentile) if percentile >= 50 else (low, 100 - percentile)
    return f"{_MORE.get(end, f'more {end}')} than {share:.0f}% of recordings"


def interval(result: Mapping[str, Any], dimension: str) -> str | None:
    """The interval of a number, or that it says nothing, or `None` if there is none."""
    if not result.get("intervals"):
        return None
    if is_undetermined(result, dimension):
        return f"not determined: the {level(result)} interval covers nearly the whole scale"
    low, high = result["intervals"][dimension]
    return f"{level(result)} interval {low:.2f} to {high:.2f}"


def is_undetermined(result: Mapping[str, Any], dimension: str) -> bool:
    """Whether the interval of a number covers nearly the whole scale."""
    if not result.get("intervals"):
        return False
    low, high = result["intervals"][dimension]
    return bool(min(high, 1.0) - max(low, 0.0) >= _UNDETERMINED)


def level(result: Mapping[str, Any]) -> str:
    """The level of the intervals, in percent."""
    return f"{result['interval_level'] * 100:g}%"


def certainty(result: Mapping[str, Any]) -> str:
    """What the drawn interval means, or why there is none."""
    if not result.get("intervals"):
        return "This model has no prediction intervals." if has_speech(result) else ""
    return (
        "The bar around a number shows how uncertain it is: of new speakers like those of the calibration, about "
        f"{level(result)} of labels lie within it."
    )


def compared(result: Mapping[str, Any]) -> str:
    """What the ranks refer to."""
    return (
        f"Percentages compare with the recordings of {result['percentiles_of']}." if result.get("percentiles") else ""
    )


def terms(license_id: str) -> str:
    """What a license allows and its name, by its identifier on the Hub or in the config of a model."""
    found = re.match(r"cc(0|-[a-z-]+)-(\d\.\d)(-research-only)?$", license_id)
    name = license_id
    if found:
        kind = found[1].upper().replace("-", " ", 1)
        name = f"CC{kind} {found[2]}{', for research only' if found[3] else ''}"
    is_free = not any(part in license_id for part in ("-nc", "research"))
    return f"License: {name}" if is_free else f"No commercial use ({name})"


def origins(result: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Each text that the model reads, and where it comes from."""
    found = [(name, result["texts"][name]) for name in INPUTS if name in result["texts"]]
    return [(INPUTS[name], _origin(origin)) for name, origin in found if origin != NOT_READ]


def _origin(origin: str) -> str:
    if origin.startswith("measured"):  # the norms that it was measured by may follow
        return ORIGINS["measured"]
    found, _, reason = origin.partition("absent: ")
    parts = [ORIGINS.get(part, f"by {part}") for part in found.split(", ") if part]
    return ", ".join([*parts, f"none ({reason})" if reason else ""]).strip(", ")


def minutes(seconds: float) -> str:
    """Seconds as m:ss."""
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


def listed(parts: list[str]) -> str:
    """Parts of a sentence with commas and "and"."""
    return " and ".join(parts) if len(parts) < 3 else f"{', '.join(parts[:-1])}, and {parts[-1]}"
