"""The paper's latency figures: every method on N devices, by model, cluster and resolution, as predicted, with the
published points of the same setting on the bars.

Seconds are dots on a logarithmic axis, which has no zero; the dashed line is serial / N, perfect scaling.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analysis.evidence import predictions
from analysis.paper.panels import CASE, beside, logarithmic, predicted, published, short_commit
from analysis.predicted import scaling
from analysis.predicted.points import fills, marker
from analysis.presentation import tables
from analysis.presentation.columns import Column, Shown, column, three, words
from analysis.presentation.sheet import Sheet, blank
from analysis.presentation.style import COLOUR, GREY, RC, label, pale
from analysis.records.committed import LATENCY, PREDICTIONS

PERFECT: dict[str, Any] = {"color": GREY, "linewidth": 0.9, "linestyle": (0, (4, 3))}


def load(results: Path) -> dict[str, Any]:
    """The record, and with it the printed latencies of another W, predicted with that: some sources ran W + 1 steps."""
    record: dict[str, Any] = scaling.load(results / LATENCY)
    planned: dict[tuple[Any, ...], set[int | None]] = {}
    for row in record["rows"]:
        planned.setdefault(_kind(row), set()).add(row["warmup"])
    rows = [
        row | {"predicted_latency_s": row["predicted_s"], "oom": row["published_oom"]}
        for row in predictions.load(results / PREDICTIONS)
        if row["row_id"].startswith("latency.csv")
        and row["warmup"] not in planned.get(_kind(row), {row["warmup"]})
    ]
    return record | {
        "rows": record["rows"] + [{key: row.get(key) for key in record["rows"][0]} for row in rows],
        "published": record["published"] + rows,
    }


def _kind(row: dict[str, Any]) -> tuple[Any, ...]:
    return (row["model"], row["cluster"], row["method"], row["devices"])


def joined(record: dict[str, Any]) -> pd.DataFrame:
    """Every prediction with the published numbers of its setting, a row more where there are several."""
    ours = predicted(record)
    ours = ours.assign(speedup=ours.serial_s / ours.predicted_latency_s)
    table = ours.merge(published(record), on=[*CASE, "warmup"], how="left")
    return table.assign(error=table.predicted_latency_s / table.published_s - 1)


def readable(table: pd.DataFrame) -> pd.DataFrame:
    """The table of one model to read."""
    ours = table.status.where(table.status != "ok", table.predicted_latency_s.map(three))
    theirs = table.published_s.map(three, na_action="ignore").mask(
        table.oom.fillna(False).astype(bool), "OOM"
    )
    columns: Shown = ["cluster", "resolution", "method", "devices", "patches", "warmup"]
    columns += [Column("ours", "predicted s"), "speedup", column("peak_bytes", unit="GiB")]
    columns += [Column("theirs", "published s"), "row_id", "error", "role"]
    return words(table.assign(ours=ours, theirs=theirs), columns)


def tabulate(record: dict[str, Any]) -> tables.Table:
    """All models; to read, a table a model, and why a setting was not run."""
    table = joined(record)
    columns = [*CASE, "steps", "patches", "warmup", "split", "status", "reason", "predicted_latency_s"]
    columns += ["speedup", "compute_s", "wait_s", "peak_bytes", "kv_bytes", "sent_bytes", "missing_bytes"]
    columns += ["published_s", "oom", "row_id", "error", "role", "digitized", "flags"]
    whole = {key: "Int64" for key in columns if key.endswith("_bytes")}
    text = "**Predicted**, not measured: seconds of one picture, the fastest M of those planned, and the peak of the "
    text += "fullest device (transformer only). Published numbers of the same setting stand beside it; a row that "
    text += "the profile is fitted on (calibration) is no test of it.\n"
    for model, part in table.groupby("model", sort=False):
        text += f"\n**{model}, {part.steps.iloc[0]} steps**\n\n{tables.markdown(readable(part))}"
    skipped = table[table.status == "skipped"].drop_duplicates(["model", "method", "reason"])
    for row in skipped.to_dict("records"):
        text += f"\n{row['model']}, {label(row['method'])}, N = {row['devices']}: {row['reason']}.\n"
    return tables.Table(table[columns].astype(whole), text)


def figure(record: dict[str, Any], model: str) -> Figure:
    """A row a resolution, a column a cluster, in each panel a line a method."""
    ours, theirs = (table[table.model == model] for table in (predicted(record), published(record)))
    clusters, sizes = list(record["clusters"]), sorted(set(ours.resolution))
    bars = list(ours[["method", "warmup"]].drop_duplicates().itertuples(index=False, name=None))
    several = ours.groupby("method").warmup.nunique().max() > 1
    devices, steps = int(ours.devices.max()), int(ours.steps.iloc[0])
    theirs = theirs.merge(ours[[*CASE, "warmup"]], on=[*CASE, "warmup"])
    low, high = span(ours, theirs)
    left = 1.5 if several else 1.15
    sheet = Sheet(len(sizes), len(clusters), 1.85, 0.2 * len(bars) + 0.1, left=left, across=0.82, right=0.72)
    with mpl.rc_context({**RC, "axes.grid.axis": "both", "axes.titlesize": 9, "xtick.labelsize": 8}):
        drawn, grid = sheet.open()
        for axes_row, size in zip(grid, sizes, strict=True):
            for axes, cluster in zip(axes_row, clusters, strict=True):
                here, points = (
                    table[(table.cluster == cluster) & (table.resolution == size)] for table in (ours, theirs)
                )
                axes.set_title(f"{cluster}, {size} px")
                if here.empty:
                    blank(axes, "not planned")
                    continue
                panel(axes, here, points, bars, (low, high))
                names = [bar_label(method, warmup, bars) for method, warmup in bars]
                axes.set_yticks(range(len(bars)), names if axes is axes_row[0] else [""] * len(bars))
        for axes in grid[-1]:
            axes.set_xlabel("seconds (log: no zero)")
        title = f"Predicted latency of {model} on {devices} devices, {steps} steps"
        title += ", with published points" if len(theirs) else ""
        sheet.close(drawn, title, handles(theirs), note(record, model, devices, len(theirs), several))
    return drawn


def span(ours: pd.DataFrame, theirs: pd.DataFrame) -> tuple[float, float]:
    """The least and most of any time over its serial / N, so that panels compare."""
    perfect = (
        (ours.serial_s / ours.devices.max()).groupby([ours.cluster, ours.resolution]).max().rename("perfect")
    )
    both = [
        table.join(perfect, on=["cluster", "resolution"])[[column, "perfect"]].to_numpy(float)
        for table, column in ((ours, "predicted_latency_s"), (theirs, "published_s"))
    ]
    ratios = pd.Series([value / least for table in both for value, least in table]).dropna()
    return min(ratios.min(), 1.0) / 1.3, ratios.max() * 1.3


def panel(
    axes: Axes,
    ours: pd.DataFrame,
    theirs: pd.DataFrame,
    bars: Sequence[tuple[str, Any]],
    ends: tuple[float, float],
) -> None:
    """Predicted dots, published points over them, and the predicted seconds in a column at the right."""
    known = ours.predicted_latency_s.dropna()
    serial = ours.serial_s.iloc[0] / ours.devices.max()
    start = known.min() if pd.isna(serial) else serial
    axes.set_xscale("log")
    axes.set_xlim(start * ends[0], start * ends[1])
    axes.set_ylim(len(bars) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    logarithmic(axes.xaxis, (1, 3) if ends[1] / ends[0] > 30 else (1, 2, 5))
    axes.axvline(start, **PERFECT, zorder=2)
    for at, (method, warmup) in enumerate(bars):
        same = ours[(ours.method == method) & alike(ours.warmup, warmup)]
        points = theirs[(theirs.method == method) & alike(theirs.warmup, warmup)].to_dict("records")
        for row in same.to_dict("records"):
            if row["status"] == "ok":
                axes.plot(row["predicted_latency_s"], at, **dot(COLOUR[method]))
                axes.text(1.03, at, three(row["predicted_latency_s"]) + patches(row), **beside(axes))
            else:
                text = "predicted: OOM" if row["status"] == "oom" else "cannot be"
                axes.text(start * 1.08, at, text, va="center", fontsize=7, color=COLOUR[method])
        if same.empty:
            axes.text(1.03, at, "–", color=GREY, **beside(axes))
        for point in points:
            look = marker(method, point["role"])
            if point["oom"]:
                axes.plot(0.93, at, **look, transform=axes.get_yaxis_transform())
                axes.text(0.88, at, "OOM", ha="right", **beside(axes) | {"fontsize": 7})
            else:
                axes.plot(point["published_s"], at, **look)


def alike(column: pd.Series, value: Any) -> pd.Series:
    """Equal, or missing where the value is."""
    return column.isna() if pd.isna(value) else (column == value).fillna(False)


def dot(colour: str) -> dict[str, Any]:
    """A predicted latency."""
    look = {"marker": "o", "markersize": 8, "linestyle": "none", "zorder": 3}
    return look | {"markerfacecolor": pale(colour, 0.55), "markeredgecolor": colour, "markeredgewidth": 0.8}


def bar_label(method: str, warmup: Any, bars: Sequence[tuple[str, Any]]) -> str:
    """The method's name; W where there are bars of several."""
    several = sum(one == method for one, _ in bars) > 1
    return f"{label(method)}, W={warmup}" if several else label(method)


def patches(row: dict[Any, Any]) -> str:
    return "" if pd.isna(row["patches"]) else f" ({row['patches']})"


def handles(theirs: pd.DataFrame) -> list[Artist]:
    shown: list[Artist] = [Line2D([], [], label="predicted", **dot(GREY))]
    shown.append(Line2D([], [], label="serial / N, perfect scaling", **PERFECT))
    return shown + fills(list(theirs.role))


def note(record: dict[str, Any], model: str, devices: int, points: int, several: bool) -> str:
    """What is predicted, what is published, and from which record."""
    text = (
        "Large dots: predicted by the plan of each method's own code at full size, one picture, PipeFusion's "
    )
    text += f"fastest M; serial is 1 device, all others N = {devices}. Right of each panel: predicted seconds and M. "
    text += "Every panel's axis is logarithmic, without a zero, and equally wide: a dot's distance to the dashed line "
    text += "is what is lost to perfect scaling. "
    text += f"{points} published numbers of the same hardware, model, resolution, N and W" if points else ""
    text += " (each once). " if points else f"No published number of {model} has one of these settings. "
    if several:
        text += "The W + 1 synchronous steps of the older sources are planned for those rows alone. "
    return (
        f"{text}Source: results/{LATENCY}, {short_commit(record)}"
        f"{f', and results/{PREDICTIONS}' if several else ''}; rows are named in paper_latency.csv."
    )
