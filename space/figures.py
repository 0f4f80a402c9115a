"""The result as HTML: scales, plane, course, words, and contributions, each with a text alternative."""

import base64
import csv
import html
import io
import itertools
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from . import texts

# Where people place some words of emotion on the plane, from -1 to 1: valence and arousal by J. A. Russell and
# A. Mehrabian, "Evidence for a three-factor theory of emotions", 1977; of "calm" by J. A. Russell, "A circumplex model
# of affect", 1980.
_LANDMARKS = {
    "anger": (-0.51, 0.59),
    "boredom": (-0.65, -0.62),
    "calm": (0.56, -0.31),
    "happiness": (0.76, 0.48),
    "sadness": (-0.63, -0.27),
    "surprise": (0.40, 0.67),
}
_QUADRANTS = {
    (0, 1): "tense, upset",
    (1, 1): "lively, glad",
    (0, 0): "low, tired",
    (1, 0): "at ease",
}
_PLANE = 300  # the side of the plane, in units of its drawing
_TICKS = (5, 10, 15, 30, 60)  # seconds between the marks of a time axis
_SECONDS_A_TIME = 5.0
_DASHES = {"valence": "", "arousal": "7 4", "dominance": "2 4"}


def escaped(text: str) -> str:
    """Text as HTML, also for the template engine of the component that shows it."""
    safe = html.escape(text)
    return safe.replace("{", "&#123;").replace("}", "&#125;").replace("$", "&#36;").replace("`", "&#96;")


def panel(result: Mapping[str, Any], title: str, before: Mapping[str, float] | None = None) -> str:
    """All of a result: what it is, how sure, what changes it, its course and its words.

    Args:
        result: Output of the pipeline.
        title: What the result is of.
        before: The three numbers that the same recording had with other texts.
    """
    meaning, verdict, place = hint(result), "", ""
    if result.get("intervals"):
        meaning = f"<details><summary>What the bars and percentages mean</summary>{meaning}</details>"
    # Numbers that mean nothing are neither put into words nor placed among words of emotion.
    if texts.has_speech(result):
        verdict, place = f'<p class="ser-summary">{escaped(texts.summary(result))}</p>', plane(result)
    parts = [
        f'<h2 class="ser-title">{escaped(title)}</h2>',
        f"{verdict}{notes(result)}",
        scales(result, before),
        meaning,
        course(result.get("course"), result["duration"]),
        words(result),
        f'<div class="ser-pair">{contributions(result)}{place}</div>',
        downloads(result),
    ]
    return f'<div class="ser">{"".join(parts)}</div>'


def message(title: str, sentence: str = "", is_error: bool = False) -> str:
    """A panel without a result; the sentence is HTML."""
    role = ' role="alert"' if is_error else ""
    return f'<div class="ser ser-message"{role}><h2 class="ser-title">{title}</h2><p>{sentence}</p></div>'


def failure(sentence: str) -> str:
    """Why there is no result; the sentence is HTML."""
    return message(texts.FAILED, sentence, is_error=True)


def progress(done: float | None, text: str) -> str:
    """How much is done, 0..1, or `None` where that is not known."""
    value = "" if done is None else f' value="{done:.3f}"'
    return (
        f'<div class="ser ser-progress" role="status"><span>{escaped(text)}</span>'
        f'<progress aria-label="{escaped(text)}"{value} max="1"></progress></div>'
    )


def notes(result: Mapping[str, Any]) -> str:
    """Why the result may mean little."""
    return "".join(f'<p class="ser-note">{escaped(one)}</p>' for one in texts.warnings(result))


def scales(result: Mapping[str, Any], before: Mapping[str, float] | None = None) -> str:
    """The three numbers, each on a scale with its middle, its interval, and its rank in words."""
    rows = "".join(_scale(result, name, None if before is None else before[name]) for name in texts.SCALES)
    return f'<div class="ser-scales">{rows}</div>'


def hint(result: Mapping[str, Any]) -> str:
    """What the intervals and ranks on the scales mean."""
    return f'<p class="ser-hint">{escaped(f"{texts.certainty(result)} {texts.compared(result)}".strip())}</p>'


def _scale(result: Mapping[str, Any], name: str, before: float | None) -> str:
    low, high = texts.SCALES[name]
    value, between, rank = result[name], texts.interval(result, name), texts.rank(result, name)
    number = f"{value:.2f}"
    notes = [f"was {before:.2f}"] if before is not None and f"{before:.2f}" != number else []
    notes += [between] if between else []
    notes += [rank] if rank and not texts.is_undetermined(result, name) else []
    marks = '<i class="ser-middle"></i>'
    if between:
        start, end = result["intervals"][name]
        marks += f'<i class="ser-interval" style="left:{start:.1%};width:{end - start:.1%}"></i>'
    if before is not None:
        marks += f'<i class="ser-dot ser-before" style="left:{_clip(before):.1%}"></i>'
    marks += f'<i class="ser-dot" style="left:{_clip(value):.1%}"></i>'
    label = f"{name.capitalize()} on a scale from 0, {low}, to 1, {high}: {', '.join([number, *notes])}"
    return (
        f'<div class="ser-scale"><p><b>{name.capitalize()}</b> {number}<span>{escaped(", ".join(notes))}</span></p>'
        f'<span class="ser-low">{low}</span>'
        f'<div class="ser-track" role="img" aria-label="{escaped(label)}">{marks}</div>'
        f'<span class="ser-high">{high}</span></div>'
    )


def _clip(value: float) -> float:
    return min(1.0, max(0.0, value))


def plane(result: Mapping[str, Any]) -> str:
    """Valence and arousal as a point, or as a path over time, among words of emotion."""
    parts = [one for one in result.get("course") or () if _is_drawn(one)] or [result]
    points = [(_x(one["valence"]), _y(one["arousal"])) for one in parts]
    drawn, intervals = [], ""
    if len(parts) == 1 and result.get("intervals"):
        (left, right), (bottom, top) = result["intervals"]["valence"], result["intervals"]["arousal"]
        between = f"valence {left:.2f} to {right:.2f}, arousal {bottom:.2f} to {top:.2f}"
        intervals = f"; {texts.level(result)} intervals: {between}"
        # Below the words: what is drawn over them takes from their contrast.
        drawn.append(
            f'<rect class="ser-both" x="{_x(left):.1f}" y="{_y(top):.1f}" rx="8" '
            f'width="{_x(right) - _x(left):.1f}" height="{_y(bottom) - _y(top):.1f}"/>'
        )
    drawn += [
        f'<path class="ser-axis" d="M{_PLANE / 2} 8V{_PLANE - 8}M8 {_PLANE / 2}H{_PLANE - 8}"/>',
        *(
            f'<text class="ser-quadrant" x="{_PLANE - 10 if right else 10}" y="{20 if up else _PLANE - 12}" '
            f'text-anchor="{"end" if right else "start"}">{word}</text>'
            for (right, up), word in _QUADRANTS.items()
        ),
        *(
            f'<circle class="ser-landmark" cx="{_x((v + 1) / 2):.1f}" cy="{_y((a + 1) / 2):.1f}" r="2"/>'
            f'<text class="ser-landmark" x="{_x((v + 1) / 2):.1f}" y="{_y((a + 1) / 2) + 13:.1f}" '
            f'text-anchor="middle">{word}</text>'
            for word, (v, a) in _LANDMARKS.items()
        ),
    ]
    if len(parts) > 1:
        path = "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
        drawn.append(f'<path class="ser-path" d="M{path}"/>')
    for i, ((x, y), part) in enumerate(zip(points, parts, strict=True)):
        is_end = i == len(points) - 1
        when = f"{texts.minutes(part['start'])} to {texts.minutes(part['end'])}: " if len(parts) > 1 else ""
        drawn.append(
            f'<circle class="ser-point{" ser-end" if is_end else ""}" cx="{x:.1f}" cy="{y:.1f}" '
            f'r="{7 if is_end else 4}"><title>{when}valence {part["valence"]:.2f}, arousal {part["arousal"]:.2f}'
            "</title></circle>"
        )
    if len(parts) > 1:
        drawn += [_beside(points[0], "start"), _beside(points[-1], "end")]
    alternative = (
        f"Valence {result['valence']:.2f} from left to right, arousal {result['arousal']:.2f} from bottom to top"
        f"{intervals}"
    )
    if len(parts) > 1:
        moves = (f"{texts.minutes(p['start'])} {p['valence']:.2f}, {p['arousal']:.2f}" for p in _thinned(parts))
        alternative = f"The path over time, valence and arousal: {'; '.join(moves)}"
    return (
        '<section><h3>Valence and arousal</h3><div class="ser-plane"><span class="ser-up">excited</span>'
        f'<span class="ser-left">negative</span><svg viewBox="0 0 {_PLANE} {_PLANE}" role="img" '
        f'aria-label="{escaped(alternative)}">{"".join(drawn)}</svg>'
        '<span class="ser-right">positive</span><span class="ser-down">calm</span></div>'
        '<p class="ser-hint">Gray: mean ratings of these emotion words (Russell and Mehrabian, 1977; calm: Russell, '
        f"1980){'; dashed: both intervals' if intervals else ''}.</p></section>"
    )


def _beside(point: tuple[float, float], word: str) -> str:
    x, y = point
    anchor, shift = ("end", -10) if x > _PLANE * 0.8 else ("start", 10)
    place = f'x="{x + shift:.1f}" y="{y - 8:.1f}" text-anchor="{anchor}"'
    return f'<text class="ser-when" {place}>{word}</text>'


def _x(value: float) -> float:
    return 8 + _clip(value) * (_PLANE - 16)


def _y(value: float) -> float:
    return _PLANE - _x(value)


def _thinned(parts: Sequence[Any], most: int = 12) -> Sequence[Any]:
    return parts[:: -(-len(parts) // most)]


def _is_drawn(window: Mapping[str, Any]) -> bool:
    """Whether a window has numbers that mean something."""
    return window["valence"] is not None and window.get("has_speech") is not False


def course(windows: Sequence[Mapping[str, Any]] | None, end: float, start: float = 0.0) -> str:
    """The three numbers over time, from start to end in seconds, in the middle of each window with speech."""
    windows = [one for one in windows or () if (one["start"] + one["end"]) / 2 >= start]
    parts = [one for one in windows if _is_drawn(one)]
    if not parts:
        return ""
    span = max(end - start, 0.1)
    runs = [[*run] for is_drawn, run in itertools.groupby(windows, key=_is_drawn) if is_drawn]
    lines, keys = [], []
    for name in texts.SCALES:
        paths = []
        for run in runs:
            points = [((one["start"] + one["end"]) / 2, one[name]) for one in run]
            path = "L".join(f"{(t - start) / span * 1000:.1f} {(1 - _clip(value)) * 100:.1f}" for t, value in points)
            # A path of a single point is not drawn, so it is made a short line.
            paths.append(f"M{path}h.1")
        lines.append(f'<path class="ser-{name}" stroke-dasharray="{_DASHES[name]}" d="{"".join(paths)}"/>')
        low, high = texts.SCALES[name]
        keys.append(
            f'<li class="ser-{name}"><svg viewBox="0 0 28 8" aria-hidden="true">'
            f'<path stroke-dasharray="{_DASHES[name]}" d="M0 4H28"/></svg>'
            f"{name.capitalize()} <span>({low} to {high})</span></li>"
        )
    step = next((one for one in _TICKS if span / one <= 8), _TICKS[-1])
    marks = [t for t in range(0, int(end) + 1, step) if t >= start]
    ticks = "".join(f'<span style="left:{(t - start) / span:.2%}">{texts.minutes(t)}</span>' for t in marks)
    told = (
        f"{texts.minutes(one['start'])} " + ", ".join(f"{one[name]:.2f}" for name in texts.SCALES)
        for one in _thinned(parts)
    )
    return (
        '<section class="ser-course"><h3>Over time</h3><ul class="ser-keys">' + "".join(keys) + "</ul>"
        '<div class="ser-chart"><span class="ser-top">1</span><span class="ser-half">.5</span>'
        '<span class="ser-bottom">0</span>'
        '<svg viewBox="0 0 1000 100" preserveAspectRatio="none" role="img" '
        f'aria-label="Over time, valence, arousal, and dominance: {"; ".join(told)}">'
        f'<path class="ser-axis" d="M0 50H1000"/>{"".join(lines)}</svg></div>'
        f'<div class="ser-ticks" aria-hidden="true">{ticks}</div></section>'
    )


def words(result: Mapping[str, Any]) -> str:
    """What was said, with times if it is long and the emphasized words marked; nothing if the model reads no words."""
    if result["texts"]["transcript"] == texts.NOT_READ:
        return ""
    origin = dict(texts.origins(result))
    notes = "; ".join(f"{name}: {origin[name]}" for name in origin)
    said = spoken(result["words"], result["transcript"], "course" in result) or escaped(result["transcript"] or "")
    has_emphasis = any(word["emphasized"] for word in result["words"])
    hint = " Emphasized words are <mark>marked</mark>." if has_emphasis else ""
    return (
        '<section><h3>What was said</h3><p class="ser-words" tabindex="0" role="group" aria-label="What was said">'
        f"{said or 'Nothing was recognized.'}</p>"
        f'<p class="ser-hint">{hint} {escaped(notes[:1].upper() + notes[1:])}.</p></section>'
    )


def spoken(words: Sequence[Mapping[str, Any]], transcript: str | None, with_times: bool = False) -> str:
    """Words with the emphasized ones marked, and with the time about every five seconds."""
    space = " " if " " in (transcript or " ") else ""
    shown, last = [], -math.inf
    for word in words:
        if with_times and word["start"] - last >= _SECONDS_A_TIME:
            last = word["start"]
            shown.append(f'<time class="ser-time">{texts.minutes(last)}</time> ')
        text = escaped(word["word"])
        shown.append((f"<mark>{text}</mark>" if word.get("emphasized") else text) + space)
    return "".join(shown).strip()


def contributions(result: Mapping[str, Any]) -> str:
    """How far each input moves each number from where it would be without any, as a table with bars."""
    found = result.get("contributions")
    if not found:
        return ""
    names = [name for name in texts.INPUTS if name in next(iter(found.values()))]
    if len(names) < 2:
        return ""
    widest = max(0.05, *(abs(found[one][name]) for one in texts.SCALES for name in names))
    head = "".join(f'<th scope="col">{name.capitalize()}</th>' for name in texts.SCALES)
    rows = [_plain_row("No input (baseline)", result["baseline"])]
    for name in names:
        cells = "".join(f"<td>{_bar(found[one][name], widest)}</td>" for one in texts.SCALES)
        rows.append(f'<tr><th scope="row">{texts.INPUTS[name].capitalize()}</th>{cells}</tr>')
    rows.append(_plain_row("All inputs", result))
    return (
        '<section><h3>What moves the numbers</h3><table class="ser-moves"><thead><tr><td></td>'
        f'{head}</tr></thead><tbody>{"".join(rows)}</tbody></table><p class="ser-hint">How much each input changes '
        "the prediction, averaged over all orders of adding the inputs (Shapley value). Bars to the left lower it; "
        "bars to the right raise it.</p></section>"
    )


def _plain_row(title: str, numbers: Mapping[str, float]) -> str:
    cells = "".join(f"<td>{numbers[name]:.2f}</td>" for name in texts.SCALES)
    return f'<tr class="ser-sum"><th scope="row">{title}</th>{cells}</tr>'


def _bar(change: float, widest: float) -> str:
    side = "left" if change >= 0 else "right"
    width = abs(change) / widest / 2
    bar = f'<i style="{side}:50%;width:{width:.1%}" class="{"ser-up" if change >= 0 else "ser-down"}"></i>'
    sign = "\N{MINUS SIGN}" if change <= -0.005 else "+" if change >= 0.005 else ""
    return f'<span class="ser-move" aria-hidden="true">{bar}</span>{sign}{abs(change):.2f}'


def downloads(result: Mapping[str, Any], name: str = "speech-emotion") -> str:
    """Links that save the result; it is in the links, so that the server keeps no file."""
    files = {"CSV": ("text/csv", as_csv(result)), "JSON": ("application/json", json.dumps(result, indent=1))}
    links = (
        f'<a download="{name}.{kind.lower()}" href="data:{media};base64,'
        f'{base64.b64encode(text.encode()).decode()}">{kind}</a>'
        for kind, (media, text) in files.items()
    )
    return f'<p class="ser-downloads">Download this result: {" ".join(links)}</p>'


def as_csv(result: Mapping[str, Any]) -> str:
    """A row for each window: times, numbers, intervals, whether there is speech, warnings, and texts."""
    parts = result.get("course") or [{"start": 0.0, "end": result["duration"], **result}]
    rows = []
    for part in parts:
        row = {"start": part["start"], "end": part["end"], **{name: part[name] for name in texts.SCALES}}
        for name in texts.SCALES:
            low, high = (part.get("intervals") or {}).get(name) or (None, None)
            row |= {f"{name}_low": low, f"{name}_high": high}
        warnings = dict.fromkeys([*(result.get("warnings") or ()), *(part.get("warnings") or ())])
        row |= {"has_speech": part.get("has_speech"), "warnings": "; ".join(warnings)}
        rows.append(row | {name: part.get(name) for name in ("transcript", "emphasis", "description")})
    table = io.StringIO()
    writer = csv.DictWriter(table, rows[0])
    writer.writeheader()
    writer.writerows(rows)
    return table.getvalue()
