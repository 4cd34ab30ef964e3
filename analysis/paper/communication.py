"""The share of communication: by the paper's formula (T_N - T_1 / N) / T_N, and by what the busiest device does not
compute; and the bytes that are sent. All predicted, with the two published shares beside them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib as mpl
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analysis.evidence.published import read
from analysis.paper.panels import logarithmic, method_line, predicted, short_commit
from analysis.predicted.points import marker
from analysis.presentation import tables
from analysis.presentation.columns import GIB, Column, Shown, column, percent, shares, three, words
from analysis.presentation.sheet import Sheet
from analysis.presentation.style import GREY, RC, label, ordered
from analysis.records.committed import LATENCY

CLUSTERS = ("l40_pcie", "a100_nvlink")
"""What the figure shows: where the paper gives shares, and a machine with fast links."""
CLAIMS = "published/claims.csv"
METRIC = "communication share"
NAMES = {"PixArt": "pixart_alpha", "PipeFusion": "pipefusion"}
"""A model or method as the claims call it -> its name here. `SP` is the best of several mixtures: none of these."""
PANELS = {
    "share": "by the paper's formula, $(T_N - T_1/N)\\,/\\,T_N$",
    "idle": "what the busiest device does not compute",
    "sent_bytes": "sent by the busiest device, a picture",
}


def losses(record: dict[str, Any]) -> pd.DataFrame:
    """One row a parallel case that fits: what is lost to serial / N, in seconds and as the formula's share of the
    latency; `idle`, what the device that computes longest does not compute of it."""
    table = predicted(record)
    table = table[(table.method != "serial") & (table.status == "ok")]
    table["lost_s"] = table.predicted_latency_s - table.serial_s / table.devices
    table["share"] = table.lost_s / table.predicted_latency_s
    table["idle"] = 1 - table.compute_s / table.predicted_latency_s
    return table


def claims(published: Path, clusters: list[str]) -> pd.DataFrame:
    """The published shares, each with the cluster of its hardware; `method` is missing where it is none of ours."""
    found = []
    for row_id, row in read(published).items():
        machine = f"{row['hardware']} {row['interconnect']}".lower()
        names = [name for name in clusters if all(part in machine for part in name.split("_"))]
        if row["metric"] == METRIC and names:
            found.append(
                {
                    "row_id": row_id,
                    "model": NAMES.get(row["model"]),
                    "cluster": names[0],
                    "resolution": int(row["resolution"]),
                    "devices": int(row["n_devices"]),
                    "method": NAMES.get(row["method"]),
                    "printed_method": row["method"],
                    "published_share": float(row["value"]) / 100,
                }
            )
    return pd.DataFrame(found)


def joined(record: dict[str, Any], published: Path) -> pd.DataFrame:
    """The shares, and beside PipeFusion's what was published of it."""
    theirs = claims(published, list(record["clusters"]))
    keys = ["model", "cluster", "resolution", "method", "devices"]
    kept = [*keys, "patches", "warmup", "predicted_latency_s", "serial_s", "lost_s", "share", "compute_s"]
    ours = losses(record)[[*kept, "idle", "wait_s", "sent_bytes"]].astype({"sent_bytes": "Int64"})
    return ours.merge(theirs[[*keys, "published_share", "row_id"]].dropna(), on=keys, how="left")


def tabulate(record: dict[str, Any], published: Path) -> tables.Table:
    """The shares; below the table the published ones of what is none of these methods."""
    table = joined(record, published)
    columns: Shown = ["model", "cluster", "resolution", "method", "devices", "patches"]
    columns += [
        column("predicted_latency_s", heading="T_N", format=three),
        Column("lost_s", "T_N − T_1/N s", format=three),
    ]
    columns += shares(share="formula's share", idle="not computing")
    columns += [column("sent_bytes", unit="GiB"), *shares(published_share="published share"), "row_id"]
    theirs = claims(published, list(record["clusters"]))
    others = "\n\n".join(
        f"{row['row_id']} gives {percent(row['published_share'])} for {row['printed_method']}, {row['model']} at "
        f"{row['resolution']} px on {row['cluster']}: the best mixture of Ulysses and Ring."
        for row in theirs[theirs.method.isna()].to_dict("records")
    )
    before = f"**Predicted**, not measured; of the fastest M. {MEANING}"
    return tables.table(table, words(table, columns), before, others)


MEANING = (
    "The formula calls all that keeps T_N above T_1/N communication: waiting, but also stages of unequal length, "
    "filling the pipeline, synchronous steps, and small pieces that run less efficiently. What the busiest device does "
    "not compute is the part of T_N in which even the device with most work waits or sends."
)


def figure(record: dict[str, Any], published: Path) -> Figure:
    """A row a cluster: the formula's share, what the busiest device does not compute, and bytes sent by resolution; of
    the model that the paper gives shares of."""
    ours, theirs = losses(record), claims(published, list(record["clusters"]))
    model = theirs.model.iloc[0]
    ours = ours[ours.model == model]
    clusters = [name for name in CLUSTERS if name in set(ours.cluster)]
    sizes, methods = sorted(set(ours.resolution)), ordered(ours.method)
    sheet = Sheet(len(clusters), len(PANELS), 2.9, 1.75, left=0.75, right=0.25, across=0.75, down=0.75)
    with mpl.rc_context(RC):
        drawn, grid = sheet.open()
        for axes_row, cluster in zip(grid, clusters, strict=True):
            part = ours[ours.cluster == cluster]
            for axes, (column, words) in zip(axes_row, PANELS.items(), strict=True):
                axes.set_title(f"{cluster}: {words}" if column == "share" else words, fontsize=8.5)
                lines(axes, part, column, sizes, methods)
            axes_row[0].set_ylabel("% of $T_N$")
            axes_row[1].set_ylabel("% of $T_N$")
            axes_row[2].set_ylabel("GiB, log")
            here = theirs[(theirs.cluster == cluster) & theirs.resolution.isin(sizes)]
            for row in here.to_dict("records"):
                point(axes_row[0], row, sizes.index(row["resolution"]))
        for axes in grid[-1]:
            axes.set_xlabel("resolution, px")
        devices = max(ours.devices)
        title = f"Communication, predicted: {model}, {ours.steps.iloc[0]} steps, N = {devices}"
        sheet.close(drawn, title, handles(methods, theirs), note(record, theirs))
    return drawn


def lines(axes: Axes, rows: pd.DataFrame, column: str, sizes: list[int], methods: list[str]) -> None:
    """A line a method over resolution."""
    scale = GIB if column == "sent_bytes" else 0.01
    for at, method in enumerate(methods):
        line = rows[rows.method == method].sort_values("resolution")
        aside = 0.05 * (at - (len(methods) - 1) / 2)  # side by side where they would hide each other
        axes.plot(
            [sizes.index(size) + aside for size in line.resolution],
            line[column] / scale,
            **method_line(method),
        )
    axes.set_xticks(range(len(sizes)), [str(size) for size in sizes])
    axes.set_xlim(-0.4, len(sizes) - 0.6)
    if column == "sent_bytes":
        axes.set_yscale("log")
        logarithmic(axes.yaxis, (1,))
    else:
        axes.set_ylim(min(0.0, 100 * rows[column].min()) - 4, 104)


def point(axes: Axes, row: dict[Any, Any], at: int) -> None:
    """A published share with its number; grey where it is of a mixture."""
    value = 100 * row["published_share"]
    look = marker(row["method"], "doubt") if isinstance(row["method"], str) else MIXTURE
    axes.plot(at + 0.24, value, **look)
    axes.annotate(
        f"{value:g}", (at + 0.24, value), (6, 0), textcoords="offset points", va="center", fontsize=7.5
    )


MIXTURE: dict[str, Any] = {
    "marker": "h", "markersize": 6.5, "linestyle": "none", "markerfacecolor": "white", "markeredgecolor": GREY,
    "zorder": 4,
}  # fmt: skip


def handles(methods: list[str], theirs: pd.DataFrame) -> list[Artist]:
    shown: list[Artist] = [Line2D([], [], **method_line(method)) for method in methods]
    for row in theirs.to_dict("records"):
        ours = isinstance(row["method"], str)
        look = marker(row["method"], "doubt") if ours else MIXTURE
        text = label(row["method"]) if ours else f"best {row['printed_method']} (a mixture)"
        shown.append(Line2D([], [], label=f"published: {text}", **look))
    return shown


def note(record: dict[str, Any], theirs: pd.DataFrame) -> str:
    """What is what, and from which records."""
    rows = ", ".join(theirs.row_id) or "none"
    return (
        f"Lines: predicted, PipeFusion's fastest M. {MEANING} Published: {rows}. "
        f"Source: results/{LATENCY}, {short_commit(record)}, and results/{CLAIMS}."
    )
