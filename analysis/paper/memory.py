"""Memory by method and resolution: what the fullest device holds and what that is made of, as predicted."""

from __future__ import annotations

from typing import Any

import matplotlib as mpl
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from analysis.paper.panels import beside, predicted, short_commit
from analysis.presentation import tables
from analysis.presentation.columns import GIB, NOTHING, Column, Shown, gib, three, words
from analysis.presentation.sheet import Sheet, blank
from analysis.presentation.style import COLOUR, GREY, RC, label, ordered, pale
from analysis.records.committed import LATENCY

STACK = {
    "param_bytes": "parameters",
    "kv_bytes": "K, V kept between steps",
    "rest_bytes": "activations, buffers, inputs",
}
"""What a device's peak is made of -> what the figure calls it."""

HEADINGS = {"peak": "peak", "param": "params", "kv": "K, V", "rest": "rest"}


def peaks(record: dict[str, Any]) -> pd.DataFrame:
    """One row a model, resolution, method and N: the most of any cluster, whose fastest M differ; `full` names the
    devices that are too small for it."""
    table = predicted(record)
    table = table[table.status != "skipped"].sort_values("peak_bytes", kind="stable")
    keys = ["model", "resolution", "method", "devices"]
    most = table.drop_duplicates(keys, keep="last").sort_index(ignore_index=True)
    whole = dict.fromkeys(["peak_bytes", "param_bytes", "kv_bytes"], "int64")
    most = most[[*keys, "patches", "warmup", *whole]].astype(whole)
    rooms = {facts["device"]: facts["room_bytes"] for facts in record["clusters"].values()}
    full = [", ".join(name for name, room in rooms.items() if peak > room) for peak in most.peak_bytes]
    # Each is the most of any device: where another device has the most parameters they may exceed the peak's.
    rest = (most.peak_bytes - most.param_bytes - most.kv_bytes).clip(lower=0)
    return most.assign(rest_bytes=rest, full=full)


def tabulate(record: dict[str, Any]) -> tables.Table:
    """The peaks in GiB."""
    table = peaks(record)
    text = "**Predicted**, not measured: GiB on the fullest device, the transformer alone, the most of any cluster."
    columns: Shown = ["model", "resolution", "method", "devices", "patches"]
    columns += [Column(f"{kind}_bytes", heading, format=gib) for kind, heading in HEADINGS.items()]
    columns.append(Column("full", "does not fit on", format=lambda names: names.upper() or NOTHING))
    return tables.table(table, words(table, columns), text)


def figure(record: dict[str, Any]) -> Figure:
    """A row a model, a column a resolution: what the fullest device of each method holds."""
    table = peaks(record)
    models, sizes = list(dict.fromkeys(table.model)), sorted(set(table.resolution))
    methods = ordered(table.method)
    rooms = {facts["device"]: facts["room_bytes"] for facts in record["clusters"].values()}
    sheet = Sheet(len(models), len(sizes), 1.95, 0.2 * len(methods) + 0.1, across=0.6, down=0.7, right=0.5)
    with mpl.rc_context({**RC, "axes.grid.axis": "x", "axes.titlesize": 9, "xtick.labelsize": 8}):
        drawn, grid = sheet.open()
        for axes_row, model in zip(grid, models, strict=True):
            for axes, size in zip(axes_row, sizes, strict=True):
                part = table[(table.model == model) & (table.resolution == size)]
                axes.set_title(f"{model}, {size} px")
                if part.empty:
                    blank(axes, "not planned")
                    continue
                stacked(axes, part, methods, rooms)
                named(axes, methods, axes is axes_row[0])
            axes_row[0].set_xlabel("GiB")
        handles: list[Artist] = [Patch(label=text, **look(GREY, kind)) for kind, text in STACK.items()]
        handles += [Line2D([], [], label=f"room of {name}", **line) for name, _, line in rules(rooms)]
        title = f"Predicted peak of the fullest device, N = {table.devices.max()} (transformer only)"
        note = "All predicted by the plan of each method's own code at full size, one picture, half precision; serial "
        note += "is one device. PipeFusion with its fastest M, the most of any cluster. Right of each panel: GiB. "
        sheet.close(drawn, title, handles, f"{note}Source: results/{LATENCY}, {short_commit(record)}.")
    return drawn


def rules(rooms: dict[str, int]) -> list[tuple[str, int, dict[str, Any]]]:
    """The room of each kind of device, those that have the same together: names, bytes and how it is drawn."""
    names: dict[int, list[str]] = {}
    for name, room in rooms.items():
        names.setdefault(room, []).append(name.upper())
    dashes: list[Any] = [(0, (4, 2)), (0, (6, 2, 1, 2)), (0, (1, 1.2))]
    line: dict[str, Any] = {"color": GREY, "linewidth": 1.0}
    return [
        (f"{', '.join(alike)}: {room / GIB:.0f} GiB", room, line | {"linestyle": dashes[at % len(dashes)]})
        for at, (room, alike) in enumerate(names.items())
    ]


def named(axes: Axes, methods: list[str], first: bool) -> None:
    """A line a method from above; the first panel of a row has the names."""
    axes.set_yticks(range(len(methods)), [label(method) if first else "" for method in methods])
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(len(methods) - 0.4, -0.6)


def stacked(axes: Axes, rows: pd.DataFrame, methods: list[str], rooms: dict[str, int]) -> None:
    """A stack a method, and the room of each kind of device where the panel reaches it."""
    most = rows.peak_bytes.max() / GIB
    axes.set_xlim(0, 1.12 * most)
    for _, room, line in rules(rooms):
        if room / GIB < 1.12 * most:
            axes.axvline(room / GIB, **line, zorder=3)
    for at, method in enumerate(methods):
        for row in rows[rows.method == method].to_dict("records"):
            left = 0.0
            for kind in STACK:
                axes.barh(at, row[kind] / GIB, left=left, height=0.74, **look(COLOUR[method], kind))
                left += row[kind] / GIB
            axes.text(1.03, at, three(row["peak_bytes"] / GIB), **beside(axes))
            if row["full"]:
                box = {"facecolor": "white", "edgecolor": "none", "pad": 0.6}
                text = f"does not fit: {row['full'].upper()}"
                axes.text(0.97 * left, at, text, ha="right", va="center", fontsize=6.5, bbox=box, zorder=4)
        if not (rows.method == method).any():
            axes.text(0, at, " cannot be", va="center", fontsize=7, color=GREY)


def look(colour: str, kind: str) -> dict[str, Any]:
    """Parameters full, K and V pale and hatched as in every figure, the rest paler."""
    paleness = dict(zip(STACK, (0.0, 0.72, 0.45), strict=True))[kind]
    shade = {"facecolor": pale(colour, paleness), "hatch": "////" if kind == "kv_bytes" else None}
    return {"edgecolor": colour, "linewidth": 0.5} | shade
