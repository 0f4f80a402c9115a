"""Plots as SVG text: values with their intervals, and points against the diagonal."""

import io
import math
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

# Value, low end and high end.
Ends = tuple[float, float, float]
# Of a dimension without labels: it is not shown.
NOT_RATED: Ends = (math.nan, math.nan, math.nan)
# Every data point is a `<use>` in a group with this id.
POINTS = "points"

_INK, _FAINT, _MARK = "#1f2933", "#d3d9de", "#0b6e99"
# Of several lines in a panel.
_MARKS = (_MARK, "#c2571a")
# The same plot is the same text: fixed ids, no date. Text is left to the reader's fonts.
_STYLE: Any = {
    "svg.hashsalt": "msfser",
    "svg.fonttype": "none",
    "font.size": 9,
    "text.color": _INK,
    "axes.edgecolor": _FAINT,
    "axes.labelcolor": _INK,
    "axes.titlesize": 9,
    "axes.titleweight": "bold",
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": _FAINT,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
}
_ROW, _PANEL = 0.23, 2.0  # inches


def intervals(
    rows: Mapping[str, Sequence[Ends]],
    titles: Sequence[str],
    *,
    ends: tuple[float, float] | None = None,
    reference: float | None = None,
) -> str:
    """Panels side by side, each with its title, and in each a point and a line for every row.

    `ends` are those of the horizontal axes, by default the range of each panel; a vertical line is at `reference`. A
    value that is NaN is not shown.
    """
    values = np.array(list(rows.values()), float)  # (rows, panels, 3)
    size = (0.3 + 0.075 * max(map(len, rows)) + _PANEL * len(titles), 0.6 + _ROW * len(rows))
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=size, layout="constrained")
        panels = np.atleast_1d(figure.subplots(1, len(titles), sharey=True))
        heights = np.arange(len(rows))
        for panel, (axes, title) in enumerate(zip(panels, titles, strict=True)):
            there = ~np.isnan(values[:, panel, 0])
            value, low, high = values[there, panel].T
            if reference is not None:
                axes.axvline(reference, color=_INK, linewidth=0.8)
            axes.hlines(heights[there], low, high, color=_MARK, linewidth=2.2)
            _points(axes, value, heights[there], size=6)
            axes.set(title=title, xlim=ends, ylim=(len(rows) - 0.5, -0.5), yticks=heights, yticklabels=list(rows))
            axes.grid(axis="y", visible=False)
            axes.locator_params(axis="x", nbins=4)
            axes.tick_params(labelleft=panel == 0)
        return _svg(figure)


def scatter(
    title: str, notes: Sequence[str], across: Sequence[float], up: Sequence[float], axes: tuple[str, str]
) -> str:
    """Points in 0..1 and the diagonal on which both values are equal; the notes are lines below the plot."""
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(2.9, 3.0 + 0.16 * len(notes)), layout="constrained")
        plot = figure.subplots()
        plot.plot([0, 1], [0, 1], color=_INK, linewidth=0.8)
        _points(plot, across, up, size=4, alpha=0.3)
        ticks = (0, 0.25, 0.5, 0.75, 1)
        plot.set(title=title, xlim=(0, 1), ylim=(0, 1), xticks=ticks, yticks=ticks, aspect="equal")
        plot.set(xlabel="\n".join([axes[0], *notes]), ylabel=axes[1])
        return _svg(figure)


def curves(panels: Mapping[str, Mapping[str, Mapping[int, Ends]]], across: str, up: str) -> str:
    """Panels side by side: by title, and by the words of each line, its values over counts, on a logarithmic axis."""
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(0.6 + 2.6 * len(panels), 2.6), layout="constrained")
        plots = np.atleast_1d(figure.subplots(1, len(panels), sharey=True))
        for axes, (title, lines) in zip(plots, panels.items(), strict=True):
            counts = sorted({count for line in lines.values() for count in line})
            for number, (words, line) in enumerate(lines.items()):
                value, low, high = np.array([line[count] for count in line], float).T
                # Next to each other, so that the intervals can be told apart.
                places = np.array(list(line)) * 1.06 ** (2 * number - len(lines) + 1)
                color = _MARKS[number]
                axes.vlines(places, low, high, color=color, linewidth=1.4)
                axes.plot(places, value, "o-", color=color, markersize=5, linewidth=1.4, label=words, gid=POINTS)
            axes.set(title=title, xscale="log", xlabel=across, xticks=counts, xticklabels=counts)
            axes.minorticks_off()
        plots[0].set_ylabel(up)
        plots[-1].legend(frameon=False, loc="lower right")
        return _svg(figure)


def _points(axes: Axes, x: Any, y: Any, size: float, alpha: float = 1.0) -> None:
    axes.plot(x, y, "o", color=_MARK, alpha=alpha, markersize=size, markeredgewidth=0, clip_on=False, gid=POINTS)


def _svg(figure: Figure) -> str:
    """The `<svg>` element alone, for a page."""
    file = io.StringIO()
    figure.savefig(file, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    return file.getvalue().partition("?>")[2].partition('.dtd">\n')[2]
