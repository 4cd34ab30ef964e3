"""What the figures of quality share: a logarithmic axis that has a place for 0, and breaks."""

from __future__ import annotations

import math
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import NullLocator

from analysis.presentation.style import GREY

SIDES = {"left": 0.75, "right": 0.25, "across": 0.75, "down": 0.8, "head": 0.62, "foot": 0.5, "letters": 16}
"""Inches beside, between, above and below the panels of a sheet: room for ticks, labels and titles."""
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
