"""What the figures of quality share: a logarithmic axis that has a place for 0, and room for legend and caption."""

from __future__ import annotations

import math
import textwrap
from typing import Any

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

GREY = "#555555"
LEFT, RIGHT, HEAD, FOOT, BETWEEN = 0.75, 0.25, 0.62, 0.5, (0.75, 0.8)
"""Inches beside, above, below and between (across, down) the panels: room for ticks, labels and titles."""
BREAK: dict[str, Any] = {"markersize": 7, "linestyle": "none", "color": "black", "clip_on": False}
"""Two short strokes across an axis, where it leaves something out."""


def round_values(low: float, high: float) -> list[float]:
    """1, 2 and 5 of every power of ten between two positive numbers; 1 alone when those would be many."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    leading = (1, 2, 5) if high / low < 500 else (1,)
    return [
        first * 10.0**power for power in powers for first in leading if low <= first * 10.0**power <= high
    ]


def logarithmic(axes: Axes, values: list[float]) -> float:
    """A logarithmic y axis, and below a break where 0 stands when something is 0; returns the place of 0."""
    above = [value for value in values if value > 0] or [0.1, 1.0]
    least, most = min(above), max(above)
    bottom = least / max(3.0, (most / least) ** 0.25)
    marks = round_values(least / 1.5, most * 1.6)
    axes.set_yscale("log")
    axes.set_ylim(least / 1.5, most * 1.6)
    axes.set_yticks(marks, [f"{mark:g}" for mark in marks])
    axes.yaxis.set_minor_locator(NullLocator())
    if 0 in values:
        place: dict[str, Any] = {"xycoords": axes.get_yaxis_transform(), "textcoords": "offset points"}
        axes.set_ylim(bottom / 1.35, most * 1.6)
        axes.axhline(bottom, color=GREY, linewidth=0.8, zorder=1)
        axes.annotate("0", (0, bottom), (-6, 0), ha="right", va="center", **place)
        words = "exact: serial's own pictures"
        axes.annotate(words, (0.02, bottom), (0, 3), va="bottom", color=GREY, fontsize=8, **place)
        between = [bottom * (least / bottom) ** 0.42, bottom * (least / bottom) ** 0.52]
        axes.plot(
            [0, 0], between, transform=axes.get_yaxis_transform(), marker=[(-1, -0.6), (1, 0.6)], **BREAK
        )
    return bottom


def broken(axes: Axes, at: float) -> None:
    """Mark the x axis as broken at a place."""
    where = [at - 0.05, at + 0.05]
    axes.plot(where, [0, 0], transform=axes.get_xaxis_transform(), marker=[(-0.6, -1), (0.6, 1)], **BREAK)


def panels(rows: int, columns: int, width: float, height: float) -> tuple[Figure, list[list[Axes]]]:
    """A figure of panels of so many inches each. Their places are set by `close`, not by constrained layout: that
    solver does not give a grid of several rows the same places twice."""
    size = (LEFT + columns * width + (columns - 1) * BETWEEN[0] + RIGHT, rows * (height + BETWEEN[1]) + HEAD)
    figure = Figure(figsize=size)
    return figure, figure.subplots(rows, columns, squeeze=False).tolist()


def close(figure: Figure, title: str, handles: list[Artist], words: str) -> None:
    """Title above the panels; below them the legend and the caption, wrapped, for which the figure grows."""
    width, height = (float(inches) for inches in figure.get_size_inches())
    text = textwrap.fill(words, int(width * 16), break_long_words=False)
    names = max(len(str(handle.get_label())) for handle in handles)
    columns = max(1, min(len(handles), math.floor(width / (0.068 * names + 0.6))))
    caption = 0.15 * (text.count("\n") + 1) + 0.12
    below = caption + 0.19 * math.ceil(len(handles) / columns) + 0.12
    full = height + below
    figure.set_size_inches(width, full)
    figure.suptitle(title, fontsize=12, y=1 - 0.08 / full, va="top")
    figure.legend(
        handles=handles, loc="lower center", ncols=columns, columnspacing=1.4,
        bbox_to_anchor=(0.5, caption / full), borderaxespad=0,
    )  # fmt: skip
    figure.text(0.12 / width, 0.07 / full, text, fontsize=8, va="bottom", linespacing=1.3)
    grid = figure.axes[0].get_gridspec()
    assert grid is not None
    panel = (width - LEFT - RIGHT - (grid.ncols - 1) * BETWEEN[0]) / grid.ncols
    figure.subplots_adjust(
        left=LEFT / width, right=1 - RIGHT / width, wspace=BETWEEN[0] / panel,
        bottom=(below + FOOT) / full, top=1 - HEAD / full,
        hspace=BETWEEN[1] / ((height - HEAD - FOOT - (grid.nrows - 1) * BETWEEN[1]) / grid.nrows),
    )  # fmt: skip
