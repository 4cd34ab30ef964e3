"""The figure of freshness over one record of `experiment=staleness`: a lane a method, a bar a job."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from analysis.presentation.style import COLOUR, RC, in_order, label, pale
from analysis.staleness.figures import CAPTION, GREY
from analysis.staleness.tables import Record, more, of_setting, weighted_mean


def fresh_share(record: Record) -> Figure:
    """A lane a method, a column a W: what of a job's K, V is fresh, one step old, older, never written."""
    table = record.probes[record.probes.status == "ok"]
    most = table.devices.max()
    probed = table[(table.devices == most) | (table.method == "serial")]
    probed = in_order(probed.sort_values("patches", na_position="first", kind="stable"))
    probes = probed.to_dict("records")
    lanes = list(dict.fromkeys(lane_name(record, probe) for probe in probes))
    columns = sorted(table.warmup.dropna().unique(), reverse=True) or [None]
    with mpl.rc_context({**RC, "axes.grid": False}):
        sheet = Figure(figsize=(1.8 + 4.0 * len(columns), 1.5 + 0.58 * len(lanes)), layout="constrained")
        grid = sheet.subplots(len(lanes), len(columns), sharex=True, sharey=True, squeeze=False)
        for probe in probes:
            row = lanes.index(lane_name(record, probe))
            for column, warmup in enumerate(columns):
                if pd.isna(probe["warmup"]) or probe["warmup"] == warmup:
                    lane(grid[row][column], of_setting(record.freshness, probe), probe["method"])
        for row, words in enumerate(lanes):
            grid[row][0].set_ylabel(words, rotation=0, ha="right", va="center", labelpad=26)
        for column, warmup in enumerate(columns):
            grid[0][column].set_title(f"W = {warmup}" + (", from empty buffers" if warmup == 0 else ""))
            grid[-1][column].set_xlabel("step")
        sheet.suptitle("How fresh the K, V are that each job attends to", fontsize=11, x=0.01, ha="left")
        sheet.legend(handles=legend_of_ages(), loc="outside upper right", ncols=4, fontsize=8)
        sheet.supylabel("share of the image tokens attended to", fontsize=8.5, color=GREY)
        words = f"N = {most} (serial 1), S = {record.probed['steps']}, "
        words += f"the sizes of {record.probed['model']}. "
        words += "A bar is a job: a step, or one patch of a step, in the order of time.\n"
        words += "Measured with each method's own attention; mean over ranks and layers. "
        words += "Exact methods have no W: the same in both columns."
        sheet.supxlabel(words, **CAPTION)
    return sheet


def lane_name(record: Record, probe: Mapping[Any, Any]) -> str:
    """The method, M where it has its own, and what else tells it from other lanes."""
    own = [] if pd.isna(probe["patches"]) else [f"M = {probe['patches']}"]
    return "\n".join([label(probe["method"]), *own, *(str(probe[name]) for name in more(record.probes))])


def lane(axes: Axes, seen: pd.DataFrame, method: str) -> None:
    """Stacked shares, a bar a job; the jobs of one step share its width."""
    ages = [column for column in seen if str(column).startswith("age_")]
    seen = seen.assign(fresh=seen.age_0, recent=seen[ages[1]], older=seen[ages[2:]].sum(axis=1))
    for step, jobs in seen.groupby("step"):
        parts = jobs.groupby("row_start" if jobs.groupby("rank").job.nunique().max() > 1 else "step")
        width = 1 / len(parts)
        for at, (_, job) in enumerate(parts):
            bottom = 0.0
            for kind, look in looks(COLOUR.get(method, GREY)).items():
                share = weighted_mean(job[kind] / job.tokens, job.rows)
                left = int(str(step)) + at * width
                axes.bar(left, share, width, bottom=bottom, align="edge", **look)
                bottom += share
    steps = int(seen.step.max()) + 1
    axes.set_xlim(0, steps)
    axes.set_ylim(0, 1)
    axes.set_xticks(np.arange(steps) + 0.5, [str(step) for step in range(steps)])
    axes.set_yticks([0, 1], ["0", "100 %"], fontsize=7)
    axes.tick_params(axis="x", length=0)


def looks(colour: str) -> dict[str, dict[str, Any]]:
    """How the shares are drawn, from the bottom up: distinguished by lightness and hatching."""
    edge = {"linewidth": 0.4, "edgecolor": "white"}
    return {
        "fresh": {"facecolor": colour, **edge},
        "recent": {"facecolor": pale(colour, 0.62), **edge},
        "older": {"facecolor": pale(colour, 0.82), "hatch": "////", "edgecolor": colour, "linewidth": 0},
        "never": {"facecolor": "white", "hatch": "xxxx", "edgecolor": "#999999", "linewidth": 0},
    }


def legend_of_ages() -> list[Patch]:
    """The four shares in grey."""
    words = ["fresh: of this step", "one step old", "older", "never written (zeros)"]
    return [Patch(label=text, **look) for text, look in zip(words, looks(GREY).values(), strict=True)]
