"""PipeFusion's latency against the number of patches M, published and predicted, and what M costs in quality."""

from __future__ import annotations

from typing import Any

import matplotlib as mpl
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analysis.evidence.published import named
from analysis.paper.predictions import schedule_s, serial_s
from analysis.paper.small_model import quality
from analysis.predicted.points import marker
from analysis.presentation.sheet import Sheet, blank
from analysis.presentation.style import COLOUR, GREY, RC, label
from analysis.quality import figures as sweeps
from analysis.quality.record import of_study, settings
from analysis.records.committed import PREDICTIONS

METHOD, FILE = "pipefusion", "patch_sweep.csv"
BOUND: dict[str, Any] = {"color": GREY, "linewidth": 1.0, "linestyle": (0, (4, 3))}
LINE: dict[str, Any] = {"color": COLOUR[METHOD], "linewidth": 1.3, "marker": "o", "markersize": 3}


def rows(table: pd.DataFrame) -> pd.DataFrame:
    """The sweep over M with the bound of each setting, `bound_s`: from what one device of the cluster was published
    with."""
    sweep = table[table.row_id.str.startswith(FILE)].copy()
    sweep["bound_s"] = [
        schedule_s(
            serial_s(table, row["cluster"], row["resolution"], row["model"]),
            row["devices"], int(row["patches"]), row["steps"], int(row["warmup"]),
        )
        for row in sweep.to_dict("records")
    ]  # fmt: skip
    return sweep.sort_values(["devices", "resolution", "patches"], kind="stable", ignore_index=True)


def figure(table: pd.DataFrame, record: dict[str, Any]) -> Figure:
    """A row an N, a column a resolution; the last column is the small model's quality against M."""
    sweep = rows(table)
    counts, sizes = sorted(set(sweep.devices)), sorted(set(sweep.resolution))
    sheet = Sheet(len(counts), len(sizes) + 1, 2.15, 1.9, left=0.62, right=0.4, across=0.55, down=0.72)
    with mpl.rc_context({**RC, "axes.titlesize": 9, "xtick.labelsize": 8, "ytick.labelsize": 8}):
        drawn, grid = sheet.open()
        for axes_row, count in zip(grid, counts, strict=True):
            for axes, size in zip(axes_row, sizes, strict=False):
                here = sweep[(sweep.devices == count) & (sweep.resolution == size)]
                axes.set_title(f"N = {count}, {size} px")
                if here.empty:
                    blank(axes, "not published")
                    continue
                latency(axes, here)
                axes.set_xlabel("patches M")
                axes.set_ylabel("seconds" if axes is axes_row[0] else "")
        found = of_study(settings(record), "patches")
        beside = quality([axes_row[-1] for axes_row in grid], record, found, "patches", "patches M")
        title = f"Latency of {label(METHOD)} against M ({sweep.cluster.iloc[0]}, {sweep.model.iloc[0]}), and quality"
        sheet.close(drawn, title, [*handles(), *beside], note(sweep, record))
    return drawn


def latency(axes: Axes, here: pd.DataFrame) -> None:
    """Published points, the predicted line, the bound; and at which M each is fastest."""
    places = range(len(here))
    axes.plot(places, here.bound_s, **BOUND)
    axes.plot(places, here.predicted_s, **LINE)
    axes.plot(places, here.published_s, **marker(METHOD, "prediction"))
    axes.set_xticks(places, [f"{patches:.0f}" for patches in here.patches])
    axes.set_xlim(-0.4, len(here) - 0.6)
    axes.set_ylim(0, 1.32 * max(here.published_s.max(), here.predicted_s.max()))
    fastest = [
        here.sort_values(f"{name}_s", kind="stable").patches.iloc[0] for name in ("published", "predicted")
    ]
    words = "fastest M: published {:.0f}, predicted {:.0f}".format(*fastest)
    axes.text(0.98, 0.97, words, transform=axes.transAxes, ha="right", va="top", fontsize=7.5, color=GREY)


def handles() -> list[Artist]:
    return [
        Line2D([], [], label="published", **marker(METHOD, "prediction")),
        Line2D([], [], label="predicted", **LINE),
        Line2D([], [], label="bound of the schedule", **BOUND),
    ]


def note(sweep: pd.DataFrame, record: dict[str, Any]) -> str:
    """Which W, what the bound is, and where each series is from."""
    printed = " and ".join(str(one) for one in sorted(set(sweep.printed_warmup.dropna())))
    ran = " and ".join(f"{one:.0f}" for one in sorted(set(sweep.warmup)))
    text = f"Published: {named(sweep.row_id)}, printed as W = {printed}, of a repository that runs one synchronous "
    text += f"step more than its W: {ran} here. " if printed != ran else f"({ran} synchronous steps). "
    text += f"Predicted: results/{PREDICTIONS}, same settings. Bound: the published time of one device, W of S steps "
    text += "at its speed, the others as jobs of 1/(MN) with fill and drain, equal stages, free messages, no loss in "
    text += "small patches. "
    pictures = sorted(set(of_study(settings(record), "patches").latent_error_serial_n.dropna()))
    counts = "–".join(str(one) for one in {pictures[0]: 0, pictures[-1]: 0}) if pictures else "no"
    return text + (
        f"Quality, another model and machine, against serial from the same noise: {sweeps.SOURCE}, {counts} pictures a "
        "point; bars are 95 % intervals."
    )
