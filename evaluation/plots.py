"""Small plots as SVG text: values with their intervals, points against the diagonal."""

import math
from collections.abc import Mapping, Sequence
from xml.sax.saxutils import escape

# Value, low and high end of its interval.
Interval = tuple[float, float, float]

_INK, _FAINT, _MARK = "#1f2933", "#d3d9de", "#0b6e99"
_ROW, _PANEL, _GAP, _HEAD, _FOOT, _SCATTER = 22, 150, 36, 34, 24, 225


def intervals(
    rows: Mapping[str, Sequence[Interval | None]],
    titles: Sequence[str],
    *,
    ends: tuple[float, float] | None = None,
    reference: float | None = None,
) -> str:
    """Panels side by side with a point and a line for each row.

    Args:
        rows: For each row, by its words, what stands in each panel; `None` is left out.
        titles: Of the panels.
        ends: Of the scale of all panels; by default each has that of its values.
        reference: Where a vertical line stands.
    """
    left = 14 + 6.6 * max(map(len, rows))
    width, height = left + len(titles) * (_PANEL + _GAP), _HEAD + _ROW * len(rows) + _FOOT
    parts = []
    for panel, title in enumerate(titles):
        shown = [of_panels[panel] for of_panels in rows.values()]
        reach = [end for found in shown if found for end in found] + ([] if reference is None else [reference])
        low, high = ends or (min(reach), max(reach))
        margin = 0.0 if ends else 0.06 * (high - low) or 0.5
        low, high = low - margin, high + margin
        start = left + panel * (_PANEL + _GAP)

        def at(value: float, low: float = low, high: float = high, start: float = start) -> float:
            return start + _PANEL * (min(max(value, low), high) - low) / (high - low)

        parts.append(_text(start + _PANEL / 2, 16, title, "middle", bold=True))
        for tick in _ticks(low, high):
            parts.append(_line(at(tick), _HEAD - 8, at(tick), height - _FOOT, _FAINT))
            parts.append(_text(at(tick), height - 8, f"{tick:g}", "middle"))
        if reference is not None:
            parts.append(_line(at(reference), _HEAD - 8, at(reference), height - _FOOT, _INK))
        for index, found in enumerate(shown):
            middle = _HEAD + _ROW * (index + 0.4)
            if found:
                parts.append(_line(at(found[1]), middle, at(found[2]), middle, _MARK, 3))
                parts.append(f'<circle cx="{at(found[0]):.1f}" cy="{middle:.1f}" r="4.5" fill="{_MARK}"/>')
    for index, words in enumerate(rows):
        parts.append(_text(left - 10, _HEAD + _ROW * (index + 0.4) + 4, words, "end"))
    return _svg(width, height, parts)


def scatter(
    title: str, notes: Sequence[str], across: Sequence[float], up: Sequence[float], axes: tuple[str, str]
) -> str:
    """Points in 0..1 with the diagonal on which both are equal.

    Args:
        title: Above the plot.
        notes: Lines below it.
        across: Values of the horizontal axis.
        up: Those of the vertical axis.
        axes: What the two are.
    """
    left, top = 46, 30

    def place(x: float, y: float) -> tuple[float, float]:
        return left + _SCATTER * x, top + _SCATTER * (1 - y)

    parts = [_text(left + _SCATTER / 2, 18, title, "middle", bold=True)]
    for tick in (0, 0.25, 0.5, 0.75, 1):
        parts.append(_line(*place(tick, 0), *place(tick, 1), _FAINT))
        parts.append(_line(*place(0, tick), *place(1, tick), _FAINT))
        parts.append(_text(place(tick, 0)[0], top + _SCATTER + 16, f"{tick:g}", "middle"))
        parts.append(_text(left - 6, place(0, tick)[1] + 4, f"{tick:g}", "end"))
    parts.append(_line(*place(0, 0), *place(1, 1), _INK))
    for x, y in zip(across, up, strict=True):
        parts.append('<circle cx="{:.1f}" cy="{:.1f}" r="3" fill="{}" fill-opacity=".3"/>'.format(*place(x, y), _MARK))
    parts.append(_text(left + _SCATTER / 2, top + _SCATTER + 34, f"{axes[0]} (up: {axes[1]})", "middle"))
    for number, note in enumerate(notes):
        parts.append(_text(left + _SCATTER / 2, top + _SCATTER + 54 + 17 * number, note, "middle"))
    return _svg(left + _SCATTER + 14, top + _SCATTER + 44 + 17 * len(notes), parts)


def _svg(width: float, height: float, parts: Sequence[str]) -> str:
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height:.0f}" font-size="12"'
    box = f'viewBox="0 0 {width:.0f} {height:.0f}" font-family="system-ui, sans-serif"'
    return "\n".join([f"{head} {box}>", '<rect width="100%" height="100%" fill="#fff"/>', *parts, "</svg>\n"])


def _text(x: float, y: float, words: str, anchor: str, bold: bool = False) -> str:
    weight = ' font-weight="600"' if bold else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{_INK}"{weight}>{escape(words)}</text>'


def _line(x1: float, y1: float, x2: float, y2: float, color: str, width: float = 1) -> str:
    ends = f'x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"'
    return f'<line {ends} stroke="{color}" stroke-width="{width}"/>'


def _ticks(low: float, high: float) -> list[float]:
    """Two to five round numbers within the ends."""
    power = 10.0 ** math.floor(math.log10(high - low))
    for step in (power * factor for factor in (10, 5, 2, 1, 0.5)):
        counts = range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)
        if len(counts) >= 3:
            break
    return [round(step * count, 10) for count in counts]
