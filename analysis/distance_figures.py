"""Figures of how far methods are from serial: against S with the stated distances, and against M by axis of a clip."""

from __future__ import annotations

from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullFormatter

from analysis.distance import STATED, lines, means, pieces
from analysis.staleness.figures import percents
from analysis.style import COLOUR, GREY, MARKER, RC, label

DASHES = {"frames": "-", "rows": "--"}


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


def error_against_patches(rows: pd.DataFrame, warmup: int = 1) -> Figure:
    """Error and flicker of a clip against the number of patches, cut over frames or rows; and error by picture.

    At the largest S that was measured.
    """
    steps = rows.steps.max()
    ok = rows[(rows.status == "ok") & (rows.steps == steps) & (rows.warmup == warmup)]
    table = means(ok).assign(pieces=lambda found: pieces(found))
    with mpl.rc_context(RC):
        figure = Figure(figsize=(11.5, 3.7), layout="constrained")
        left, middle, right = figure.subplots(1, 3)
        for axes, value, words in (
            (left, "pixel_error", "error of pixels, RMS"),
            (middle, "flicker", "error of the change\nfrom picture to picture, RMS"),
        ):
            for method, axis, line in lines(table, "patch_axis"):
                line = line.sort_values("pieces")
                look: dict[str, Any] = {"color": COLOUR[method], "marker": MARKER[method]}
                look |= {
                    "linestyle": DASHES[axis],
                    "markerfacecolor": COLOUR[method] if axis == "frames" else "white",
                }
                axes.plot(line.pieces, line[value], label=f"{label(method)}, {axis}", **look)
            ticks(axes, sorted({*table.pieces}), "patches: M of PipeFusion, N of the others")
            axes.set_ylabel(words)
            axes.set_ylim(bottom=0)
            axes.yaxis.set_major_formatter(FuncFormatter(percents))
        figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=6, fontsize=8)
        by_picture(right, ok)
        title = f"Clips cut over frames or over rows: distance to serial, S = {steps}, W = {warmup}"
        figure.suptitle(title, x=0.01, ha="left", fontsize=10.5)
    return figure


def by_picture(axes: Axes, rows: pd.DataFrame, cut: int = 4) -> None:
    """Error of each picture of a clip that is cut into `cut` patches, root mean square over clips."""
    own = rows[pieces(rows) == cut]
    for method, axis, part in lines(own, "patch_axis"):
        if method == "naive_patch":
            continue
        errors = np.sqrt(np.square(np.stack([*part.frame_errors])).mean(0))
        look: dict[str, Any] = {"color": COLOUR[method], "linestyle": DASHES[axis]}
        axes.plot(np.arange(1, len(errors) + 1), errors, label=f"{label(method)}, {axis}", **look)
    axes.set_xlabel("picture of the clip")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_ylabel("error of pixels, RMS")
    axes.set_ylim(bottom=0)
    axes.set_title(f"{cut} patches", fontsize=9)
    axes.yaxis.set_major_formatter(FuncFormatter(percents))


def ticks(axes: Axes, values: list[int], words: str) -> None:
    """A logarithmic x axis with ticks at what was measured."""
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_locator(FixedLocator(values))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.xaxis.set_minor_locator(FixedLocator([]))
    axes.set_xlabel(words)
