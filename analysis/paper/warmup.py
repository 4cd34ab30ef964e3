"""What synchronous steps cost in seconds, published and predicted, and what they buy in quality on the small model."""

from __future__ import annotations

from typing import Any

import matplotlib as mpl
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analysis.evidence.published import HYBRID, named
from analysis.paper.predictions import serial_s
from analysis.paper.small_model import quality
from analysis.predicted.points import marker
from analysis.presentation.sheet import Sheet, blank
from analysis.presentation.style import COLOUR, GREY, RC, label
from analysis.quality import figures as sweeps
from analysis.quality.record import of_study, settings
from analysis.records.committed import PREDICTIONS

METHOD, FILE = "pipefusion", "warmup.csv"
COMPARED = ["distrifusion", "pipefusion"]
LINE: dict[str, Any] = {"color": COLOUR[METHOD], "linewidth": 1.3, "marker": "o", "markersize": 3}
SPLIT: dict[str, Any] = {
    "color": GREY,
    "linewidth": 1.3,
    "linestyle": (0, (4, 2)),
    "marker": "o",
    "markersize": 3,
}
POINT: dict[str, Any] = {"marker": "p", "markersize": 6.5, "linestyle": "none", "color": GREY, "zorder": 5}
HYBRIDS = {"published": POINT, "predicted": SPLIT}


def rows(table: pd.DataFrame) -> pd.DataFrame:
    """The published rows of the warm-up with their predictions, by the synchronous steps that were run."""
    found = table[table.row_id.str.startswith(FILE)]
    found = found.assign(hybrid=found.method == HYBRID)
    return found.sort_values(["cluster", "resolution", "hybrid", "warmup"], kind="stable", ignore_index=True)


def step_s(here: pd.DataFrame, column: str) -> float:
    """What one synchronous step more costs: from the least to the most of them."""
    known = here.dropna(subset=[column]).sort_values("warmup")
    first, last = known.iloc[0], known.iloc[-1]
    return float((last[column] - first[column]) / (last.warmup - first.warmup))


def figure(table: pd.DataFrame, record: dict[str, Any]) -> Figure:
    """At the left latency against synchronous steps by cluster and resolution, at the right quality."""
    sweep = rows(table)
    cells = list(dict.fromkeys(sweep[["cluster", "resolution", "model"]].itertuples(index=False, name=None)))
    across = (len(cells) + 1) // 2
    sheet = Sheet(2, across + 1, 2.6, 1.9, left=0.62, across=0.62, down=0.72)
    with mpl.rc_context({**RC, "axes.titlesize": 9, "xtick.labelsize": 8, "ytick.labelsize": 8}):
        drawn, grid = sheet.open()
        places = [axes for axes_row in grid for axes in axes_row[:-1]]
        for at, axes in enumerate(places):
            if at >= len(cells):
                blank(axes)
                continue
            cluster, size, model = cells[at]
            here = sweep[(sweep.cluster == cluster) & (sweep.resolution == size)]
            latency(axes, here, serial_s(table, *cells[at]) / here.steps.max())
            axes.set_title(f"{cluster}, {model} {size} px")
            axes.set_ylabel("seconds" if at % across == 0 else "")
            axes.set_xlabel("synchronous steps")
        found = of_study(settings(record), "warmup")
        found = found[found.method.isin(COMPARED)]
        column = [axes_row[-1] for axes_row in grid]
        beside = quality(column, record, found, "warmup", "synchronous steps W")
        devices = " and ".join(str(count) for count in sorted(set(sweep.devices)))
        title = f"What warm-up costs ({label(METHOD)}, N = {devices}) and what it buys"
        sheet.close(drawn, title, [*handles(sweep), *beside], note(sweep))
    return drawn


def latency(axes: Axes, here: pd.DataFrame, serial_step_s: float) -> None:
    """Published points and the predicted line; what a synchronous step more costs in both."""
    ours, hybrid = here[~here.hybrid], here[here.hybrid]
    axes.plot(ours.warmup, ours.predicted_s, **LINE)
    axes.plot(ours.warmup, ours.published_s, **marker(METHOD, "prediction"))
    axes.plot(hybrid.warmup, hybrid.predicted_s, **SPLIT)
    axes.plot(hybrid.warmup, hybrid.published_s, **POINT)
    ticks = sorted(set(here.warmup.astype(int)))
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.set_xlim(ticks[0] - 0.5, ticks[-1] + 0.5)
    axes.set_ylim(0, 1.5 * max(here.published_s.max(), here.predicted_s.max()))
    costs = [f"{name} {step_s(ours, f'{name}_s'):.2g} s" for name in ("published", "predicted")]
    words = f"one synchronous step more:\n{', '.join(costs)}\n(a step of one device: {serial_step_s:.2g} s)"
    look: dict[str, Any] = {"ha": "right", "va": "top", "fontsize": 7.5, "color": GREY}
    axes.text(0.98, 0.98, words, transform=axes.transAxes, linespacing=1.25, **look)


def handles(sweep: pd.DataFrame) -> list[Artist]:
    shown: list[Artist] = [
        Line2D([], [], label="published", **marker(METHOD, "prediction")),
        Line2D([], [], label="predicted", **LINE),
    ]
    if sweep.hybrid.any():
        words = "guidance on two groups as well"
        shown += [Line2D([], [], label=f"{name}, {words}", **look) for name, look in HYBRIDS.items()]
    return shown


def note(sweep: pd.DataFrame) -> str:
    """Which convention of W each source has, and where each series is from."""
    ours = sweep[~sweep.hybrid]
    more = ours[ours.warmup != ours.printed_warmup]
    text = f"Published: {named(sweep.row_id)}"
    text += (
        f"; of these {named(more.row_id)} print W and ran W + 1 synchronous steps, where they stand here"
        if len(more)
        else ""
    )
    return text + (
        f". Predicted: results/{PREDICTIONS}, same settings, the fastest M. In brackets: published "
        "for one device, over S. Quality, another model and machine, against serial from the "
        f"same noise: {sweeps.SOURCE}; bars are 95 % intervals, W = S is serial's own picture."
    )
