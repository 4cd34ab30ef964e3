"""Automatic warm-up beside fixed W: how many synchronous steps each takes, and how far from serial it ends.

With `warmup=auto` every picture finds a W of its own. Its mean share of synchronous steps need not be that of a whole
W: in between stands a mix of the two W around it, which has the same share on every picture.
"""

from __future__ import annotations

from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from analysis.methods.comparison import OURS, plans
from analysis.presentation import tables
from analysis.presentation.columns import NUMBER, Column, Shown, column, shares, texts, words
from analysis.presentation.sheet import Sheet
from analysis.presentation.style import COLOUR, GREY, MARKER, RC
from analysis.presentation.tables import Table
from analysis.quality.axes import SIDES
from analysis.records.study import plain_rows
from analysis.staleness.figures import percents

STEPS = 20
TASK = {"method": OURS, "devices": 4, "patches": 4, "steps": STEPS}
SIZE = 2048
"""Of the predicted latencies."""


def warmups(rows: pd.DataFrame) -> pd.DataFrame:
    """A row for each W, then for each threshold: mean W, share of the steps, distance, and seconds on each cluster.

    `even`: the fixed W of the same mean distance. `gap`: the distance less that of fixed W at the same share, with the
    standard error of the pairs.
    """
    task = rows
    for key, value in TASK.items():
        task = task[task[key] == value]
    pictures = task[task.picture.notna() & (task.status == "ok")]
    fixed = pictures[pictures.knobs == ""].pivot(index="picture", columns="warmup", values="relative_error")
    planned = plans(task[(task.resolution == SIZE) & (task.knobs == "")])
    seconds = planned.pivot(index="warmup", columns="cluster", values="predicted_latency_s")

    def row(threshold: float | None, w: pd.Series, errors: pd.Series) -> dict[str, Any]:
        gap = errors - mix(fixed, w.mean())
        return {
            "warmup_threshold": threshold,
            "mean_warmup": w.mean(),
            "least_warmup": w.min(),
            "most_warmup": w.max(),
            "share": w.mean() / STEPS,
            "relative_error": errors.mean(),
            "rms_error": errors.sem(),
            "even": same_distance(fixed.mean(), errors.mean()),
            "gap": gap.mean(),
            "gap_error": gap.sem(),
            **seconds.reindex(w).mean(skipna=False),
        }

    found = [row(None, pd.Series(float(str(w)), fixed.index), fixed[w]) for w in fixed]
    for threshold, part in pictures[pictures.found_warmup.notna()].groupby("warmup_threshold", sort=True):
        own = part.set_index("picture")
        found.append(row(float(str(threshold)), own.found_warmup.astype(float), own.relative_error))
    return pd.DataFrame(found)


def mix(fixed: pd.DataFrame, w: float) -> pd.Series:
    """The distance of each picture with W, or the mean of the two whole W around it as often as gives W."""
    low, high = int(np.floor(w)), int(np.ceil(w))
    return fixed[low] * (1 - (w - low)) + fixed[high] * (w - low)


def same_distance(curve: pd.Series, error: float) -> float:
    """The least fixed W, between whole ones too, that comes as near as `error`; nan where none of the curve does."""
    nearest = curve.cummin()
    return float(np.interp(-error, -nearest, nearest.index, left=0.0, right=np.nan))


def hundredths(share: float) -> str:
    """A share in hundredths of a percent: between two W there is little more."""
    return f"{100 * share:.2f} %"


def signed_hundredths(share: float) -> str:
    """The same of a difference."""
    return f"{100 * share:+.2f} %"


def table(found: pd.DataFrame, note: str) -> Table:
    """What is asked in one look: the synchronous share of auto, and the W that comes as near as it does."""
    frame = found.assign(
        setting=["fixed" if pd.isna(row["warmup_threshold"]) else f"auto, {row['warmup_threshold']:g}"
                 for row in plain_rows(found)],
        span=[f"{row['least_warmup']:.0f} to {row['most_warmup']:.0f}" for row in plain_rows(found)],
    )  # fmt: skip
    names = [*found]
    clusters = names[names.index("gap_error") + 1 :]
    shown: Shown = [
        *texts(setting="W"),
        Column("mean_warmup", "mean W", "", NUMBER, "{:.2f}".format),
        *texts(span="of pictures"),
        *shares(share="synchronous"),
        column("relative_error", unit="%", format=hundredths),
        Column("rms_error", "± standard error", "%", NUMBER, hundredths),
        Column("even", "fixed W as near", "", NUMBER, "{:.2f}".format),
        Column("gap", "less fixed at the same share", "%", NUMBER, signed_hundredths),
        Column("gap_error", "± of pairs", "%", NUMBER, hundredths),
        *(Column(name, name, "s", NUMBER) for name in clusters),
    ]
    before = (
        "PipeFusion, N = {devices}, M = {patches}, S = {steps}".format(**TASK) + f"; seconds at {SIZE} px."
    )
    return tables.table(found, words(frame, shown), before=before, after=note)._replace(suffix="_warmup")


def figure(found: pd.DataFrame, note: str) -> Figure:
    """Distance against the synchronous share of the steps: a line of fixed W, a point for each threshold of auto."""
    auto = found.warmup_threshold.notna()
    with mpl.rc_context({**RC, "axes.grid.axis": "both"}):
        page = Sheet(1, 1, 6.6, 4.0, **SIDES)
        sheet, [[axes]] = page.open()
        draw(axes, found[~auto], "W", "fixed W", COLOUR[OURS])
        draw(axes, found[auto], "auto", "auto: mean over pictures, from the least to the most W", GREY)
        axes.set_xlabel("synchronous share of the steps")
        axes.set_ylabel("distance of the latents to serial's")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(FuncFormatter(percents))
        title = "MEASURED distance to serial against synchronous steps: automatic and fixed warm-up"
        page.close(sheet, title, axes.get_legend_handles_labels()[0], note)
    return sheet


def draw(axes: Axes, rows: pd.DataFrame, word: str, words: str, colour: str) -> None:
    """Points with standard errors, each with its W or threshold."""
    around = [rows.share - rows.least_warmup / STEPS, rows.most_warmup / STEPS - rows.share]
    line = axes.errorbar(
        rows.share, rows.relative_error, rows.rms_error, around, color=colour, label=words,
        marker=MARKER[OURS], linewidth=0 if word == "auto" else 1.2, elinewidth=0.8, capsize=2,
    )  # fmt: skip
    line.set_label(words)
    for row in plain_rows(rows):
        name = f"{row['warmup_threshold']:g}" if word == "auto" else f"W={row['mean_warmup']:.0f}"
        offset = (5, 6) if word == "auto" else (5, -11)
        axes.annotate(
            name, (row["share"], row["relative_error"]), offset, textcoords="offset points", fontsize=8
        )
