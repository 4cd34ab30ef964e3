"""Latency against the bandwidth of the links: where a method's curve stops being flat, and where it meets PipeFusion's.

A record has `rows` (`method`, `bandwidth` in GB/s, `patches`, `predicted_latency_s`) and `links` (name -> GB/s).
Between two bandwidths a curve is a straight line in logarithms.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from math import exp, log
from typing import Any

import matplotlib as mpl
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analysis.paper.panels import logarithmic
from analysis.presentation import tables
from analysis.presentation.columns import Shown, seconds, texts, words
from analysis.presentation.looks import method_order
from analysis.presentation.sheet import Sheet
from analysis.presentation.style import COLOUR, GREY, RC, label
from analysis.presentation.tables import Table
from analysis.records.committed import BANDWIDTH
from analysis.records.study import Record, pixels, plain_rows

FLAT = 0.1
"""A curve has left its best when it is this share above."""
OURS = "pipefusion"
LINKS = {"ethernet100": "100 Gbit Ethernet", "pcie4": "PCIe 4", "nvlink3": "NVLink 3", "nvlink4": "NVLink 4"}
PARTS = [
    "method",
    "slowest_s",
    "fastest_s",
    "flat_from",
    "leaves",
    "meets",
    "from_speed",
    "to_speed",
    "ahead",
]
CROSSINGS: Shown = [
    "method",
    *seconds(fastest_s="with the fastest links", slowest_s="with the slowest"),
    *texts(flat=f"{100 * FLAT:.0f} % above its best below GB/s", left=f"leaves {label(OURS)} below GB/s"),
    *texts(met=f"meets {label(OURS)} at GB/s"),
]
Curve = Sequence[tuple[float, float]]
"""(GB/s, seconds), the slowest link first."""


def fastest(rows: pd.DataFrame) -> pd.DataFrame:
    """Of each method and bandwidth the fastest setting that fits."""
    ran = rows[rows.status == "ok"].sort_values("predicted_latency_s", kind="stable")
    first = ran.drop_duplicates(["method", "bandwidth"])
    return first.sort_values(["method", "bandwidth"], key=method_order, ignore_index=True)


def curves(rows: pd.DataFrame) -> dict[str, list[tuple[float, float]]]:
    """The curve of each method."""
    first = fastest(rows)
    return {
        str(name): list(zip(part.bandwidth, part.predicted_latency_s, strict=True))
        for name, part in first.groupby("method", sort=False)
    }


def meeting(one: Curve, other: Curve) -> float | None:
    """The largest bandwidth at which two curves meet; None where one is the faster at all of them."""
    theirs = dict(other)
    apart = [(speed, log(ours / theirs[speed])) for speed, ours in one if speed in theirs]
    for (low, before), (high, after) in reversed(list(pairwise(apart))):
        if before * after <= 0 and before != after:
            return exp(log(low) + before / (before - after) * log(high / low))
    return None


def flat_from(curve: Curve) -> float | None:
    """The bandwidth from which on a curve is within `FLAT` of its last point; None where it is everywhere."""
    level = curve[-1][1] * (1 + FLAT)
    return meeting(curve, [(speed, level) for speed, _ in curve])


def leaves(curve: Curve, ours: Curve) -> float | None:
    """The bandwidth below which a curve leaves another: its ratio to it is `FLAT` above that of the fastest links."""
    theirs = dict(ours)
    return flat_from([(speed, seconds / theirs[speed]) for speed, seconds in curve if speed in theirs])


def crossings(rows: pd.DataFrame) -> pd.DataFrame:
    """A row for each method: seconds at both ends, where it leaves its best, and where it meets PipeFusion."""
    known, found = curves(rows), []
    for method, curve in known.items():
        beside = OURS in known and method != OURS
        met = meeting(curve, known[OURS]) if beside else None
        found.append(
            {
                "method": method,
                "slowest_s": curve[0][1],
                "fastest_s": curve[-1][1],
                "flat_from": flat_from(curve),
                "leaves": leaves(curve, known[OURS]) if beside else None,
                "meets": met,
                "from_speed": curve[0][0],
                "to_speed": curve[-1][0],
                "ahead": None if OURS not in known else curve[-1][1] < known[OURS][-1][1],
            }
        )
    return pd.DataFrame(found, columns=PARTS)


def sentences(table: pd.DataFrame) -> Iterator[str]:
    """What the crossings say, a line for each method."""
    if table.empty:
        yield "Nothing fits, whatever the links."
    for row in plain_rows(table):
        if row["from_speed"] == row["to_speed"]:
            yield f"{label(row['method'])}: {row['fastest_s']:.2f} s at {row['to_speed']:g} GB/s."
            continue
        ends = f"{row['fastest_s']:.2f} s at {row['to_speed']:g} GB/s, {row['slowest_s']:.2f} at {row['from_speed']:g}"
        flat = (
            "flat"
            if row["flat_from"] is None
            else f"within {100 * FLAT:.0f} % of its best from {row['flat_from']:.3g} GB/s on"
        )
        yield f"{label(row['method'])}: {flat} ({ends}){against_ours(row)}."


def against_ours(row: dict[str, Any]) -> str:
    """Where a method is the faster, beside PipeFusion."""
    if row["method"] == OURS or row["ahead"] is None:
        return ""
    if row["meets"] is None:
        return f"; {'faster' if row['ahead'] else 'slower'} than {label(OURS)} at every bandwidth"
    return f"; {'faster' if row['ahead'] else 'slower'} than {label(OURS)} only above {row['meets']:.3g} GB/s"


def tabulate(record: Record) -> Table:
    """The latencies; to read, where each curve leaves its best and PipeFusion's."""
    text = words(readable(record), CROSSINGS)
    return tables.table(fastest(record.rows), text, before=f"**Predicted**: {subject(record)}.")


def readable(record: Record) -> pd.DataFrame:
    """The crossings, their bandwidths in words."""
    found = crossings(record.rows)
    flat = [value_text(value, "none") for value in found.flat_from]
    left = [value_text(value, "–") for value in found.leaves]
    others = zip(found.meets, found.method, strict=True)
    met = [value_text(value, "–" if method == OURS else "never") for value, method in others]
    return found.assign(flat=flat, left=left, met=met)


def value_text(value: float | None, otherwise: str) -> str:
    """A bandwidth."""
    return otherwise if value is None or pd.isna(value) else f"{value:.3g}"


def subject(record: Record) -> str:
    """What was swept."""
    row = plain_rows(record.rows.sort_values("devices", ascending=False, kind="stable"))[0]
    task = f"{row['model']}, {pixels(row)} px, S = {row['steps']}, N = {row['devices']}"
    return f"{task}, {row['cluster']} with other links"


def figure(record: Record) -> Figure:
    """Latency against bandwidth, both logarithmic; a ring where a curve meets PipeFusion's."""
    known, found = curves(record.rows), crossings(record.rows).set_index("method")
    sheet = Sheet(1, 1, 6.2, 3.6, left=0.75)
    with mpl.rc_context({**RC, "axes.grid.axis": "both"}):
        drawn, ((axes,),) = sheet.open()
        for method, curve in known.items():
            look: dict[str, Any] = {"color": COLOUR[method], "linewidth": 2.4 if method == OURS else 1.4}
            axes.plot(*zip(*curve, strict=True), **look, linestyle="--" if method == "serial" else "-")
        axes.set_xscale("log")
        axes.set_yscale("log")
        for name, left in found.leaves.dropna().items():
            place, colour = (float(left), interpolated(known[str(name)], float(left))), COLOUR[str(name)]
            axes.plot(*place, "o", markersize=8, markerfacecolor="white", markeredgecolor=colour)
            axes.annotate(f"{left:.3g}", place, (6, 5), textcoords="offset points", fontsize=7, color=colour)
        mark_links(axes, record.facts["links"], known[OURS])
        axes.set_xlabel("bandwidth of each device's link, GB/s in one direction")
        axes.set_ylabel("latency, s")
        logarithmic(axes.yaxis)
        logarithmic(axes.xaxis)
        handles = [Line2D([], [], color=COLOUR[method], label=label(method)) for method in known]
        title = f"PREDICTED: {subject(record)}"
        note = "Links alone change, compute is fixed; the fastest M of PipeFusion. Rings, with their GB/s: below, a "
        note += f"method loses {100 * FLAT:.0f} % to PipeFusion against the fastest links. Both axes are logarithmic: "
        note += f"no zero. Source: results/{BANDWIDTH}."
        sheet.close(drawn, title, handles, note)
    return drawn


def interpolated(curve: Curve, speed: float) -> float:
    """Seconds at a bandwidth between two of a curve."""
    for (low, before), (high, after) in pairwise(curve):
        if low <= speed <= high:
            share = log(speed / low) / log(high / low)
            return exp(log(before) * (1 - share) + log(after) * share)
    raise ValueError(f"{speed} GB/s is outside of the curve")


def mark_links(axes: Axes, links: dict[str, float], curve: Curve) -> None:
    """Named links at the top of the panel."""
    for name, text in LINKS.items():
        if name in links and curve[0][0] <= links[name] <= curve[-1][0]:
            axes.axvline(links[name], color=GREY, linewidth=0.7, linestyle=(0, (1, 2)))
            place = axes.get_xaxis_transform()
            axes.annotate(
                text, (links[name], 1.0), (-3, -2), xycoords=place, textcoords="offset points", rotation=90,
                ha="right", va="top", fontsize=7, color=GREY,
            )  # fmt: skip
