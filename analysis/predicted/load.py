"""Latency against load: rows of `replicas` of a product on `devices` each, at a `rate` of requests a second."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import matplotlib as mpl
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analysis.paper.panels import logarithmic
from analysis.predicted import planning
from analysis.presentation import tables
from analysis.presentation.columns import Column, Shown, percent, words
from analysis.presentation.sheet import Sheet
from analysis.presentation.style import RC
from analysis.presentation.tables import Table
from analysis.records.committed import LOAD
from analysis.records.study import Record, pixels, plain_rows

COLOURS = ["#0072B2", "#009E73", "#E69F00", "#D55E00", "#CC79A7", "#000000"]
"""Of one replica, two, four and so on."""
SHOWN: Shown = [
    "setting",
    "service_s",
    Column("interval", planning.WITHIN),
    "capacity",
    "rate",
    "busy",
    "p50_s",
    "p95_s",
    "p99_s",
    "in_time",
]


def setting(row: dict[str, Any]) -> str:
    """`4 × exact, ulysses 2`."""
    return f"{row['replicas']} × {planning.setting(row)}"


def best(rows: pd.DataFrame) -> pd.DataFrame:
    """Of each rate the way to cut that has the least p95; rates at which all are saturated have none."""
    ran = rows[rows.status == "ok"]
    return ran if ran.empty else ran.sort_values(["rate", "p95_s"], kind="stable").drop_duplicates("rate")


def sentences(rows: pd.DataFrame) -> Iterator[str]:
    """Up to which rate each way to cut has the least p95, and how many requests are then in time."""
    runs: list[list[dict[str, Any]]] = []
    for row in plain_rows(best(rows)):
        if runs and runs[-1][-1]["replicas"] == row["replicas"]:
            runs[-1].append(row)
        else:
            runs.append([row])
    for run in runs:
        first, last = run[0], run[-1]
        ends = span(planning.digits(first["p95_s"]), planning.digits(last["p95_s"]))
        least = min(row["in_time"] for row in run)
        more = " or more" if least < max(row["in_time"] for row in run) else ""
        in_time = f"{percent(least)}{more} within {planning.digits(last['deadline_s'])} s"
        at = "Of requests at one moment"
        if first["rate"] is not None:
            at = f"At {span(*(format(row['rate'], '.3g') for row in (first, last)))} requests/s"
        yield f"{at} the least p95 is that of {setting(first)}: {ends} s, {in_time}."
    if not runs:
        yield "No way to cut the devices serves any of these rates."


def span(first: str, last: str) -> str:
    """`1 to 2`, or what both are."""
    return first if first == last else f"{first} to {last}"


def tabulate(record: Record) -> Table:
    """Every way to cut and rate."""
    rows = record.rows[record.rows.service_s.notna()]
    named = rows.assign(
        setting=[setting(row) for row in plain_rows(rows)],
        interval=[planning.interval(row) for row in plain_rows(rows)],
    )
    text = words(named.drop(columns="reason"), [*SHOWN, "status"])
    return tables.table(named, text, before=f"**Predicted** service times, virtual time: {subject(record)}.")


def subject(record: Record) -> str:
    """What is served, and where."""
    row = plain_rows(record.rows[:1])[0]
    return f"{row['model']}, {pixels(row)} px, S = {row['steps']}, {row['asked']} devices of {row['cluster']}"


def figure(record: Record) -> Figure:
    """p95 (and p50, thin) against requests a second, and the share in time: a line for each way to cut the devices."""
    rows = record.rows[record.rows.status == "ok"]
    cuts = sorted(set(record.rows.replicas))
    sheet, handles = Sheet(1, 2, 4.0, 3.0, left=0.7), []
    with mpl.rc_context({**RC, "axes.grid.axis": "both"}):
        drawn, ((left, right),) = sheet.open()
        for cut, colour in zip(cuts, COLOURS, strict=False):
            part = rows[rows.replicas == cut].sort_values("rate")
            if part.empty:
                continue
            left.plot(part.rate, part.p95_s, color=colour, linewidth=1.8, marker=".")
            left.plot(part.rate, part.p50_s, color=colour, linewidth=0.7)
            right.plot(part.rate, 100 * part.in_time, color=colour, linewidth=1.8, marker=".")
            handles.append(Line2D([], [], color=colour, label=setting(plain_rows(part[:1])[0])))
        left.set_yscale("log")
        logarithmic(left.yaxis)
        left.set_ylabel("seconds from arrival to picture")
        left.set_title("p95 (thin: p50)")
        right.set_title(f"within {rows.deadline_s.iloc[0]:.1f} s, % of requests")
        right.set_ylim(0, 103)
        for axes in (left, right):
            axes.set_xlabel("requests a second")
            axes.set_xlim(left=0)
        note = "Service times are predictions, arrivals Poisson's, all of it virtual time; a line ends where more "
        note += "arrive than are served. The deadline is what one device takes alone. Left axis logarithmic: no zero. "
        note += f"Source: results/{LOAD}."
        sheet.close(drawn, f"PREDICTED latency under load: {subject(record)}", handles, note)
    return drawn
