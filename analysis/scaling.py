"""Predicted latency and memory against N over one record of `experiment=scaling`, beside published numbers.

A record has `rows` (`cluster`, `method`, `devices`, `resolution`, `patches`, `status`, `predicted_latency_s`,
`peak_bytes`, `fastest`: of all M the one that counts), `clusters` (name -> `device`, `room_bytes`, `calibrated_on`)
and `published` (rows of the same hardware, as in the record of published numbers), and `models`. What is made here is
of one model and one W.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import matplotlib as mpl
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from analysis import tables
from analysis.evidence.predictions import role_of
from analysis.study import load_study, plain_rows
from analysis.style import COLOUR, MARKER, ORDER, RC, label, pale
from analysis.tables import as_text

GIB = 2**30
ASIDE = 1.05  # published points of one N stand this factor apart
KEYS = ["cluster", "resolution", "method", "devices"]
IDEAL: dict[str, Any] = {"color": "#777777", "linewidth": 0.8, "linestyle": (0, (4, 3))}
ROOM: dict[str, Any] = {"color": "#777777", "linewidth": 0.8, "linestyle": (0, (1, 1.5))}
FILLS = {
    "prediction": "published (filled)",
    "doubt": "published, source in doubt (pale)",
    "calibration": "published, the profile is fitted on it (hollow)",
}
"""What a published point is to the line beside it -> what the legend says of its marker."""


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
    return table.sort_values(KEYS, key=_place, ignore_index=True)


def published(record: dict[str, Any]) -> pd.DataFrame:
    """The published points, each number once; `role` is one of `FILLS`, `published_s` missing where it is `OOM`."""
    rows = record["published"]
    origins = {one["row_id"]: one["duplicate_of"] or one["row_id"] for one in rows}
    fitted = {name: set(facts["calibrated_on"]) for name, facts in record["clusters"].items()}
    roles = []
    for one in rows:
        role = role_of(one["row_id"], fitted[one["cluster"]], origins)
        roles.append("doubt" if one["flags"] and role == "prediction" else role)
    columns = [*KEYS, "row_id", "published_s", "oom", "digitized", "flags", "role"]
    table = pd.DataFrame(rows, columns=columns[:-1]).assign(role=roles)
    table = table.assign(flags=table["flags"].map("; ".join)).astype({"published_s": float})
    # By role, so that of one number the row that was fitted on stays, and not its repetition.
    table = table.sort_values("role", kind="stable").drop_duplicates([*KEYS, "published_s"])
    table = table.assign(role=table.role.str.removeprefix("repeats "))
    return table.sort_values(KEYS, key=_place, kind="stable", ignore_index=True)


def joined(record: dict[str, Any]) -> pd.DataFrame:
    """Every prediction with the published numbers of its setting: a row more where there are several."""
    ours = predicted(record).drop(columns=["fastest", "reason"])
    whole = [key for key in ours if key in ("patches", "warmup") or str(key).endswith("_bytes")]
    ours = ours.astype(dict.fromkeys(whole, "Int64"))
    return ours.merge(published(record), on=KEYS, how="left")


def _place(values: pd.Series) -> pd.Series:
    return values.map(ORDER.index) if values.name == "method" else values


def latency_text(table: pd.DataFrame) -> pd.DataFrame:
    """Predicted seconds by cluster, resolution and N, a column a method; M of PipeFusion in brackets."""
    return _wide(table, ["cluster", "resolution"], _seconds)


def memory_text(table: pd.DataFrame) -> pd.DataFrame:
    """Predicted peak GiB of the fullest device by resolution and N: the most of any cluster."""
    most = table.sort_values("peak_bytes").drop_duplicates(KEYS[1:], keep="last")
    return _wide(most, ["resolution"], lambda row: f"{row['peak_bytes'] / GIB:.2f}")


def _wide(table: pd.DataFrame, first: list[str], write: Any) -> pd.DataFrame:
    cells = table.assign(cell=[write(row) for row in table.to_dict("records")])
    wide = cells.pivot(index=[*first, "devices"], columns="method", values="cell").reset_index()
    columns: tables.Columns = {"cluster": ("cluster", str)} if "cluster" in first else {}
    columns |= {"resolution": ("px", str), "devices": ("N", str)}
    return as_text(wide, columns | {method: (label(method), str) for method in _methods(table)})


def _seconds(row: dict[Any, Any]) -> str:
    if row["status"] != "ok":
        return str(row["status"])
    text = f"{row['predicted_latency_s']:.{2 if row['predicted_latency_s'] < 100 else 1}f}"
    return text if pd.isna(row["patches"]) else f"{text} ({row['patches']:.0f})"


def _methods(table: pd.DataFrame) -> list[str]:
    return [method for method in ORDER if method in set(table.method)]


def save(record: dict[str, Any], folder: Path, name: str) -> list[Path]:
    """NAME.csv, predictions with published numbers beside them; NAME.md, the predictions."""
    folder.mkdir(parents=True, exist_ok=True)
    csv, md = folder / f"{name}.csv", folder / f"{name}.md"
    table = predicted(record)
    joined(record).to_csv(csv, index=False, lineterminator="\n")
    text = f"**Predicted**, not measured: {subject(record)}. "
    text += "Latency in seconds; in brackets the M that is fastest.\n\n"
    text += f"{tables.markdown(latency_text(table))}\n"
    text += "Peak memory of the fullest device in GiB, transformer only:\n\n"
    md.write_text(f"{text}{tables.markdown(memory_text(table))}")
    return [csv, md]


def figure(record: dict[str, Any]) -> Figure:
    """A column a resolution; a row of latency against N a cluster, and a last one of peak memory."""
    ours, theirs = predicted(record), published(record)
    clusters, sizes, methods = list(record["clusters"]), sorted(set(ours.resolution)), _methods(ours)
    ticks = sorted(set(ours.devices))
    with mpl.rc_context({**RC, "axes.grid.axis": "both"}):
        sheet = Figure(
            figsize=(3.3 * len(sizes) + 0.6, 2.75 * (len(clusters) + 1) + 1.2), layout="constrained"
        )
        sheet.suptitle(
            f"PREDICTED latency and peak memory per device against N: {subject(record)}",
            fontsize=12,
        )
        grid = sheet.subplots(len(clusters) + 1, len(sizes), squeeze=False)
        for column, size in enumerate(sizes):
            for row, cluster in enumerate(clusters):
                axes = _logarithmic(grid[row][column], ticks)
                axes.set_title(f"{cluster}, {size} px")
                _latency(axes, _of(ours, cluster, size), _of(theirs, cluster, size), methods)
            axes = _logarithmic(grid[-1][column], ticks)
            axes.set_title(f"memory, {size} px")
            axes.set_xlabel("devices N")
            _memory(axes, ours[ours.resolution == size], methods)
            _rooms(axes, record["clusters"])
        for axes in grid[-1][1:]:
            axes.sharey(grid[-1][0])
        for row in range(len(clusters)):
            grid[row][0].set_ylabel("latency, s")
        grid[-1][0].set_ylabel("peak of the fullest device, GiB\n(all predicted; the most of any cluster)")
        sheet.legend(
            handles=_handles(methods, theirs), loc="outside lower center", ncols=4, columnspacing=1.6
        )
    return sheet


def _of(table: pd.DataFrame, cluster: str, size: int) -> pd.DataFrame:
    return table[(table.cluster == cluster) & (table.resolution == size)]


def _logarithmic(axes: Axes, ticks: list[int]) -> Axes:
    """Both axes logarithmic, with N as machines have it."""
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_xticks(ticks, [str(n) for n in ticks])
    axes.set_xlim(ticks[0] / 1.2, ticks[-1] * 1.2)
    axes.xaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_locator(NullLocator())
    return axes


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
            **_marker(point["method"], point["role"]),
        )
    for point in theirs[theirs.oom.astype(bool)].to_dict("records"):
        style = _marker(point["method"], point["role"])
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
        axes.plot(line.index, line / GIB, **{**_marker(method, "prediction"), "markersize": 4, "alpha": 0.9})


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


def _marker(method: str, role: str) -> dict[str, Any]:
    """A published point: the method's marker, filled as `FILLS` says."""
    colour = COLOUR[method]
    fill = {"prediction": colour, "doubt": pale(colour, 0.65), "calibration": "white"}[role]
    size = 8.5 if MARKER[method] == "*" else 5.5
    return {
        "marker": MARKER[method], "markersize": size, "markerfacecolor": fill, "markeredgecolor": colour,
        "markeredgewidth": 0.9, "linestyle": "none", "zorder": 3,
    }  # fmt: skip


def _handles(methods: Iterable[str], theirs: pd.DataFrame) -> list[Line2D]:
    """The legend: methods, then what lines and the fill of a marker mean."""
    shown = []
    for method in methods:
        look = {**_marker(method, "prediction"), "color": COLOUR[method]}
        look |= {"linestyle": "none"} if method == "serial" else {"linestyle": "-", "linewidth": 1.3}
        shown.append(Line2D([], [], label=label(method), **look))
    grey: dict[str, Any] = {
        "marker": "s",
        "markersize": 5.5,
        "linestyle": "none",
        "markeredgecolor": "#444444",
    }
    fills: dict[str, Any] = {"prediction": "#444444", "doubt": pale("#444444", 0.65), "calibration": "white"}
    shown.append(Line2D([], [], color="#444444", linewidth=1.3, label="line: predicted, PipeFusion's best M"))
    shown.append(Line2D([], [], label="serial / N", **IDEAL))
    shown += [
        Line2D([], [], markerfacecolor=fills[role], label=text, **grey)
        for role, text in FILLS.items()
        if role in set(theirs.role)
    ]
    return shown
