"""Distance measured on the small model against latency predicted for the large one: a panel for each cluster."""

from __future__ import annotations

from typing import Any

import matplotlib as mpl
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, NullLocator

from analysis.methods.comparison import front, places, setting_name
from analysis.presentation.sheet import Sheet
from analysis.presentation.style import COLOUR, GREY, MARKER, RC, label, ordered, pale
from analysis.quality.axes import SIDES, logarithmic, round_values
from analysis.records.study import plain_rows
from analysis.staleness.figures import percents

COLUMNS = 2


def figure(table: pd.DataFrame, px: int, devices: int, steps: int, note: str) -> Figure:
    """The settings of `joined` at one size, N and S."""
    panels = {
        place[0]: part.dropna(subset=["predicted_latency_s", "relative_error"])
        for place, part in places(table).items()
        if place[1:] == (px, devices, steps)
    }
    errors = [error for part in panels.values() for error in part.relative_error]
    with mpl.rc_context({**RC, "axes.grid.axis": "both"}):
        page = Sheet(-(-len(panels) // COLUMNS), COLUMNS, 5.2, 3.7, **SIDES)
        sheet, grid = page.open()
        every = [axes for row in grid for axes in row]
        for axes, (cluster, part) in zip(every, panels.items(), strict=False):
            axes.set_title(cluster)
            draw(axes, part, logarithmic(axes, errors))
            axes.yaxis.set_major_formatter(FuncFormatter(percents))
        for axes in every[len(panels) :]:
            axes.set_axis_off()
        for row in grid:
            row[0].set_ylabel("distance of the latents to serial's")
        for axes in grid[-1]:
            axes.set_xlabel("predicted latency, s")
        title = f"MEASURED distance to serial against PREDICTED latency: {px} px, N = {devices}, S = {steps}"
        page.close(sheet, title, handles(pd.concat(panels.values())), note)
    return sheet


def draw(axes: Axes, rows: pd.DataFrame, bottom: float) -> None:
    """A line through each method's own front; what is on the front of all is full and named."""
    rows = rows.assign(height=rows.relative_error.where(rows.relative_error > 0, bottom))
    named = front(rows.predicted_latency_s, rows.relative_error)
    for method, part in rows.groupby("method", sort=False):
        own = part[front(part.predicted_latency_s, part.relative_error)].sort_values("predicted_latency_s")
        axes.plot(own.predicted_latency_s, own.height, color=COLOUR[str(method)], linewidth=1.1, zorder=2)
    for row, full in zip(plain_rows(rows), named, strict=True):
        axes.plot(
            row["predicted_latency_s"], row["height"], **look(row["method"], full), zorder=4 if full else 3
        )
    low, high = rows.predicted_latency_s.min() / 3.0, rows.predicted_latency_s.max() * 1.1
    marks = round_values(low, high)
    axes.set_xscale("log")
    axes.set_xlim(low, high)
    axes.set_xticks(marks, [f"{mark:g}" for mark in marks])
    axes.xaxis.set_minor_locator(NullLocator())
    name(axes, rows[named].sort_values("predicted_latency_s"))


def name(axes: Axes, best: pd.DataFrame) -> None:
    """The settings of the front, each a little lower than the one before, so that names do not cover each other."""
    below = 1.05
    for row in plain_rows(best):
        point = (row["predicted_latency_s"], row["height"])
        height = axes.transAxes.inverted().transform(axes.transData.transform(point))[1]
        below = min(height if row["relative_error"] > 0 else height - 0.035, below - 0.05)
        axes.annotate(
            setting_name(row), point, (0.012, below), textcoords=axes.transAxes, ha="left", va="center",
            fontsize=7, arrowprops={"arrowstyle": "-", "linewidth": 0.4, "color": GREY, "shrinkA": 0},
            bbox={"boxstyle": "square,pad=0.1", "facecolor": "white", "edgecolor": "none", "alpha": 0.8},
        )  # fmt: skip


def look(method: str, full: bool) -> dict[str, Any]:
    """The marker of a setting: on the front large and full, else small and pale."""
    colour, marker = COLOUR[method], MARKER[method]
    size = (7.0 if full else 4.5) * (1.5 if marker == "*" else 1.0)
    look: dict[str, Any] = {"marker": marker, "linestyle": "none", "markersize": size}
    return look | {"markeredgecolor": colour, "markerfacecolor": colour if full else pale(colour, 0.7)}


def handles(rows: pd.DataFrame) -> list[Artist]:
    """The legend: the methods that are drawn, then what full and pale mean."""
    found: list[Artist] = [
        Line2D(
            [], [], label=label(method), **(look(method, True) | {"color": COLOUR[method], "linestyle": "-"})
        )
        for method in ordered(rows.method)
    ]
    words = "full and named: no other setting is nearer and faster"
    return [*found, Line2D([], [], label=words, **look("serial", True))]
