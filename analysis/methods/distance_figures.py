"""Figures of how far methods are from serial: against S with the stated distances, and of clips."""

from __future__ import annotations

from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from analysis.methods.distance import STATED, lines, means, pieces
from analysis.presentation.style import COLOUR, GREY, MARKER, RC, label
from analysis.staleness.figures import percents

DASHES = {"frames": "-", "rows": "--"}
WORDS = {
    "pixel_error": "error of pixels, RMS",
    "flicker": "flicker: error of the change\nfrom picture to picture, RMS",
    "relative_error": "error of the latents",
}


def error_against_steps(rows: pd.DataFrame) -> Figure:
    """A panel a model: error of the final latents against S, a line a method and W; stated distances across."""
    table = means(rows[(rows.status == "ok") & (rows.steps > rows.warmup)])
    models = list(dict.fromkeys(table.model))
    with mpl.rc_context(RC):
        figure = Figure(figsize=(1.2 + 4.8 * len(models), 3.8), layout="constrained")
        panels = figure.subplots(1, len(models), squeeze=False, sharey=True)[0]
        for axes, model in zip(panels, models, strict=True):
            own = table[table.model == model]
            for method, warmup, line in lines(own, "warmup"):
                line = line.sort_values("steps")
                look: dict[str, Any] = {"color": COLOUR[method], "marker": MARKER[method], "markersize": 5}
                look |= {"linestyle": "-" if warmup else ":"}
                axes.plot(line.steps, line.relative_error, label=f"{label(method)}, W = {warmup}", **look)
            for distance in STATED:
                axes.axhline(distance, color=GREY, linewidth=0.8, linestyle=(0, (4, 3)))
                axes.annotate(percents(distance), (1, distance), xycoords=("axes fraction", "data"), fontsize=7,
                              ha="right", va="bottom", color=GREY)  # fmt: skip
            ticks(axes, sorted({*own.steps}), "steps S")
            axes.set_title(model)
        panels[0].set_ylabel("error of the latents, to serial")
        panels[0].yaxis.set_major_formatter(FuncFormatter(percents))
        panels[-1].legend(fontsize=8, loc="upper right")
        figure.suptitle("What staleness costs when there are few steps", x=0.01, ha="left", fontsize=10.5)
    return figure


def errors_of_clips(rows: pd.DataFrame, steps: int, cut: int = 4, warmup: int = 1) -> Figure:
    """Errors of clips cut over frames or rows: against the number of patches, against S, and picture by picture.

    Above at S = `steps`, with errors of pixels, of their change from picture to picture, and of latents; below with
    `cut` patches.
    """
    ok = rows[(rows.status == "ok") & (rows.warmup == warmup)]
    table = means(ok).assign(pieces=lambda found: pieces(found))
    whole, few = table[table.steps == steps], table[table.pieces == cut]
    with mpl.rc_context(RC):
        figure = Figure(figsize=(11.5, 6.6), layout="constrained")
        above, below = figure.subplots(2, 3)
        for axes, (value, words) in zip(above, WORDS.items(), strict=True):
            errors_against(axes, whole, "pieces", value)
            axes.set_ylabel(words)
            ticks(axes, sorted({*whole.pieces}), "patches: M of PipeFusion, N of the others")
        for axes, (value, words) in zip(below, [*WORDS.items()][:2], strict=False):
            errors_against(axes, few, "steps", value)
            axes.set_ylabel(words)
            ticks(axes, sorted({*few.steps}), "steps S")
        by_picture(below[2], ok[(ok.steps == steps) & (pieces(ok) == cut)])
        above[0].set_title(f"S = {steps}", loc="left", fontsize=9)
        below[0].set_title(f"{cut} patches", loc="left", fontsize=9)
        below[2].set_title(f"{cut} patches, S = {steps}", loc="left", fontsize=9)
        figure.legend(*above[0].get_legend_handles_labels(), loc="outside lower center", ncols=6, fontsize=8)
        title = f"Clips cut over frames or over rows: distance to serial, W = {warmup}"
        figure.suptitle(title, x=0.01, ha="left", fontsize=10.5)
    return figure


def errors_against(axes: Axes, table: pd.DataFrame, x: str, value: str) -> None:
    """A line a method and axis of patches, on a logarithmic scale of errors."""
    for method, axis, line in lines(table, "patch_axis"):
        line = line.sort_values(x)
        look: dict[str, Any] = {"color": COLOUR[method], "marker": MARKER[method], "linestyle": DASHES[axis]}
        look["markerfacecolor"] = COLOUR[method] if axis == "frames" else "white"
        axes.plot(line[x], line[value], label=f"{label(method)}, {axis}", **look)
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 3, 5)))
    axes.yaxis.set_major_formatter(FuncFormatter(percents))
    axes.yaxis.set_minor_formatter(NullFormatter())


def by_picture(axes: Axes, rows: pd.DataFrame) -> None:
    """Error of each picture of a clip, root mean square over clips; without patches that exchange nothing."""
    for method, axis, part in lines(rows, "patch_axis"):
        if method == "naive_patch":
            continue
        errors = np.sqrt(np.square(np.stack([*part.frame_errors])).mean(0))
        look: dict[str, Any] = {"color": COLOUR[method], "linestyle": DASHES[axis]}
        axes.plot(np.arange(1, len(errors) + 1), errors, label=f"{label(method)}, {axis}", **look)
    axes.set_xlabel("picture of the clip")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_ylabel("error of pixels, RMS")
    axes.set_ylim(bottom=0)
    axes.yaxis.set_major_formatter(FuncFormatter(percents))


def ticks(axes: Axes, values: list[int], words: str) -> None:
    """A logarithmic x axis with ticks at what was measured."""
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_locator(FixedLocator(values))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.xaxis.set_minor_locator(FixedLocator([]))
    axes.set_xlabel(words)
