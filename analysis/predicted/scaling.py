"""Predicted latency and memory against N over one record of `experiment=scaling`, beside published numbers.

A record has `rows` (`cluster`, `method`, `devices`, `resolution`, `patches`, `status`, `predicted_latency_s`,
`peak_bytes`, `fastest`: of all M the one that counts), `clusters` (name -> `device`, `room_bytes`, `calibrated_on`)
and `published` (rows of the same hardware, as in the record of published numbers), and `models`. What is made here is
of one model and one W.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import matplotlib as mpl
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import NullLocator

from analysis.paper.panels import logarithmic
from analysis.predicted.points import KEYS, fills, marker, published
from analysis.presentation import tables
from analysis.presentation.columns import GIB, Column, gib, wide, words
from analysis.presentation.looks import method_order, ordered
from analysis.presentation.sheet import Sheet
from analysis.presentation.style import COLOUR, RC, label
from analysis.records.committed import SCALING
from analysis.records.study import load_study, plain_rows

SOURCE = f"Source: results/{SCALING}."
ASIDE = 1.05  # published points of one N stand this factor apart
IDEAL: dict[str, Any] = {"color": "#777777", "linewidth": 0.8, "linestyle": (0, (4, 3))}
ROOM: dict[str, Any] = {"color": "#777777", "linewidth": 0.8, "linestyle": (0, (1, 1.5))}


def load(folder: Path) -> dict[str, Any]:
    """The record, its rows as a list."""
    record = load_study(folder)
    return record.facts | {"rows": plain_rows(record.rows)}


def subject(record: dict[str, Any]) -> str:
    """The models of a record and their steps: `pixart_alpha, 20 steps`."""
    return "; ".join(f"{name}, {facts['steps']} steps" for name, facts in record["models"].items())


def predicted(record: dict[str, Any]) -> pd.DataFrame:
    """One row a cluster, resolution, method and N: its fastest setting."""
    rows = pd.DataFrame(record["rows"])
    table = rows[rows.fastest].astype({"predicted_latency_s": float})
    return table.sort_values(KEYS, key=method_order, ignore_index=True)


def joined(record: dict[str, Any]) -> pd.DataFrame:
    """Every prediction with the published numbers of its setting: a row more where there are several."""
    ours = predicted(record).drop(columns=["fastest", "reason"])
    whole = [key for key in ours if key in ("patches", "warmup") or str(key).endswith("_bytes")]
    ours = ours.astype(dict.fromkeys(whole, "Int64"))
    return ours.merge(published(record), on=KEYS, how="left")


def readable(table: pd.DataFrame, first: list[str], cells: Iterable[str]) -> pd.DataFrame:
    """These cells to read: a column a method, a row a setting and N."""
    text = words(
        table.assign(cell=list(cells)), [*first, "resolution", "devices", "method", Column("cell", "")]
    )
    return wide(text, [*first, "px", "N"], "method")


def latency(table: pd.DataFrame) -> pd.DataFrame:
    """To read: predicted seconds by cluster, resolution and N, a column a method; M of PipeFusion in brackets."""
    return readable(table, ["cluster"], map(_seconds, table.to_dict("records")))


def memory(table: pd.DataFrame) -> pd.DataFrame:
    """To read: predicted peak GiB of the fullest device by resolution and N, the most of any cluster."""
    most = table.sort_values("peak_bytes").drop_duplicates(KEYS[1:], keep="last")
    most = most.sort_values(KEYS[1:], key=method_order, ignore_index=True)
    return readable(most, [], map(gib, most.peak_bytes))


def _seconds(row: dict[Any, Any]) -> str:
    if row["status"] != "ok":
        return str(row["status"])
    text = f"{row['predicted_latency_s']:.{2 if row['predicted_latency_s'] < 100 else 1}f}"
    return text if pd.isna(row["patches"]) else f"{text} ({row['patches']:.0f})"


def tabulate(record: dict[str, Any]) -> tables.Table:
    """Predictions with published numbers beside them; to read, the predictions."""
    table = predicted(record)
    text = f"**Predicted**, not measured: {subject(record)}. "
    text += "Latency in seconds; in brackets the M that is fastest.\n\n"
    text += (
        f"{tables.markdown(latency(table))}\nPeak memory of the fullest device in GiB, transformer only:\n"
    )
    return tables.table(joined(record), memory(table), before=text)


def latency_figure(record: dict[str, Any], cluster: str) -> Figure:
    """Latency against N on one cluster, a panel a resolution: predicted lines, published points."""
    ours, theirs = (rows[rows.cluster == cluster] for rows in (predicted(record), published(record)))
    methods = ordered(ours.method)

    def draw(axes: Axes, size: int) -> None:
        _latency(axes, ours[ours.resolution == size], theirs[theirs.resolution == size], methods)

    title = f"PREDICTED latency against N on {cluster}: {subject(record)}"
    note = "Lines: predicted, PipeFusion with its fastest M. Markers: published; those of one N stand side by side. "
    note += f"Both axes are logarithmic: no zero. {SOURCE}"
    return _figure(ours, title, "latency, s", draw, _handles(methods, theirs), note)


def memory_figure(record: dict[str, Any]) -> Figure:
    """Peak memory of the fullest device against N, a panel a resolution, and what each kind of device has."""
    ours = predicted(record)
    methods = ordered(ours.method)
    most = 1.5 * max(facts["room_bytes"] for facts in record["clusters"].values())

    def draw(axes: Axes, size: int) -> None:
        _memory(axes, ours[ours.resolution == size], methods)
        _rooms(axes, record["clusters"])
        axes.set_ylim(ours.peak_bytes.min() / GIB / 1.5, most / GIB)

    title = f"PREDICTED peak memory of the fullest device against N: {subject(record)}"
    note = f"The transformer alone, the most of any cluster. Both axes are logarithmic: no zero. {SOURCE}"
    return _figure(ours, title, "peak, GiB", draw, _handles(methods, None), note)


def _figure(
    ours: pd.DataFrame,
    title: str,
    unit: str,
    draw: Callable[[Axes, int], None],
    handles: list[Artist],
    note: str,
) -> Figure:
    """A panel a resolution, N as machines have it."""
    sizes, ticks = sorted(set(ours.resolution)), sorted(set(ours.devices))
    sheet = Sheet(1, len(sizes), 3.1, 2.9, left=0.7, across=0.55)
    with mpl.rc_context({**RC, "axes.grid.axis": "both"}):
        drawn, (row,) = sheet.open()
        for axes, size in zip(row, sizes, strict=True):
            axes.set_title(f"{size} px")
            axes.set_xlabel("devices N")
            axes.set_xscale("log", base=2)
            axes.set_yscale("log")
            axes.set_xticks(ticks, [str(n) for n in ticks])
            axes.set_xlim(ticks[0] / 1.2, ticks[-1] * 1.2)
            axes.xaxis.set_minor_locator(NullLocator())
            logarithmic(axes.yaxis)
            draw(axes, size)
        row[0].set_ylabel(unit)
        sheet.close(drawn, title, handles, note)
    return drawn


def _latency(axes: Axes, ours: pd.DataFrame, theirs: pd.DataFrame, methods: list[str]) -> None:
    serial = ours[ours.method == "serial"].predicted_latency_s
    if len(serial):
        ends = [ours.devices.min(), ours.devices.max()]
        axes.plot(ends, [serial.iloc[0] * ends[0] / n for n in ends], **IDEAL)
    for method in methods:
        line = ours[ours.method == method]
        axes.plot(line.devices, line.predicted_latency_s, **_line(method))
    for point in theirs[theirs.published_s.notna()].to_dict("records"):
        axes.plot(
            point["devices"] * _aside(point["method"], methods),
            point["published_s"],
            **marker(point["method"], point["role"]),
        )
    for point in theirs[theirs.oom.astype(bool)].to_dict("records"):
        style = marker(point["method"], point["role"])
        place = axes.get_xaxis_transform()
        axes.plot(point["devices"] * _aside(point["method"], methods), 0.95, transform=place, **style)
        axes.annotate(
            "published: out of memory", (point["devices"], 0.95), (-9, 0), xycoords=place,
            textcoords="offset points", ha="right", va="center", fontsize=7, color=COLOUR[point["method"]],
        )  # fmt: skip


def _aside(method: str, methods: list[str]) -> float:
    """Published points of one N stand side by side, where they would hide each other: what N is multiplied by."""
    return 1.0 if method == "serial" else ASIDE ** (methods.index(method) - len(methods) / 2)


def _memory(axes: Axes, ours: pd.DataFrame, methods: list[str]) -> None:
    for method in methods:
        line = ours[ours.method == method].groupby("devices").peak_bytes.max()
        axes.plot(line.index, line / GIB, **_line(method))
        axes.plot(line.index, line / GIB, **{**marker(method, "prediction"), "markersize": 4, "alpha": 0.9})


def _rooms(axes: Axes, clusters: dict[str, Any]) -> None:
    """What each kind of device has for tensors, as a line with its name."""
    for facts in clusters.values():
        room = facts["room_bytes"] / GIB
        axes.axhline(room, **ROOM)
        text = f"{facts['device'].upper()} has {room:.0f} GiB"
        axes.annotate(
            text, (0.98, room), (0, -2), xycoords=axes.get_yaxis_transform(), textcoords="offset points",
            ha="right", va="top", fontsize=7, color="#555555",
        )  # fmt: skip


def _line(method: str) -> dict[str, Any]:
    """A predicted line; serial, which has one N, is a short dash there."""
    if method == "serial":
        return {"color": COLOUR[method], "marker": "_", "markersize": 14, "markeredgewidth": 1.4}
    return {"color": COLOUR[method], "linewidth": 1.3, "marker": ".", "markersize": 3}


def _handles(methods: Iterable[str], theirs: pd.DataFrame | None) -> list[Artist]:
    """The legend: methods, then, where there are published points, the ideal and what the fill of a marker means."""
    shown: list[Artist] = []
    for method in methods:
        look = {**marker(method, "prediction"), "color": COLOUR[method]}
        look |= {"linestyle": "none"} if method == "serial" else {"linestyle": "-", "linewidth": 1.3}
        shown.append(Line2D([], [], label=label(method), **look))
    return (
        shown
        if theirs is None
        else [*shown, Line2D([], [], label="serial / N", **IDEAL), *fills([*theirs.role])]
    )
