"""Which settings are worth it: PREDICTED latency on named hardware beside the error MEASURED on the small model."""

from __future__ import annotations

from typing import Any

import matplotlib as mpl
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import NullLocator

from analysis import tables
from analysis.columns import Column, Shown, words
from analysis.quality.axes import SIDES, logarithmic, round_values
from analysis.quality.figures import SOURCE, distance
from analysis.quality.record import (
    Measure,
    choices,
    measures,
    model_words,
    predicted,
    settings,
    task_words,
    usual_task,
)
from analysis.quality.tables import cell, chosen, count
from analysis.sheet import Sheet
from analysis.style import COLOUR, GREY, MARKER, ORDER, RC, in_order, label, pale

JOIN = ["method", "devices", "product", "patches", "warmup", "steps"]
WORLD = ["cluster", "model", "full_resolution"]
FRONT: dict[str, Any] = {"color": "black", "linewidth": 0.9, "linestyle": (0, (5, 2))}


def table(record: dict[str, Any]) -> pd.DataFrame:
    """One row a cluster and setting by `predicted_latency_s`, with its `error` and whether it is on the `front`.

    What has only a latency, or only an error, stays with a remark.
    """
    rows, measure = compared(record), error_measure(record)
    found = rows.assign(error=distance(rows, measure) if measure else float("nan"))
    found.loc[(found.method == "serial") & found.exact, "error"] = 0.0
    found = found.rename(columns={"status": "quality_status", "reason": "quality_reason"})
    ours = predicted(record).rename(columns={"resolution": "full_resolution"})
    ours = ours[[*WORLD, *JOIN, "predicted_latency_s", "status", "reason"]]
    found = found.drop(columns=[*WORLD, "predicted_latency_s"], errors="ignore")
    ours = ours[ours.steps.isin(rows.steps)]
    parts = []
    for world in ours[WORLD].drop_duplicates().to_dict("records"):
        part = ours.merge(pd.DataFrame([world]), on=WORLD).drop(columns=WORLD)
        part = part.merge(found, on=JOIN, how="outer").assign(**{str(key): world[key] for key in WORLD})
        part["front"] = front(part.predicted_latency_s, part.error)
        parts.append(part.sort_values(["predicted_latency_s", "error"], kind="stable"))
    joined = pd.concat(parts, ignore_index=True)
    joined["exact"] = joined.exact.fillna(False).astype(bool)
    joined["remark"] = [_remark(row) for row in joined.to_dict("records")]
    extra = [f"{measure.key}_{part}" for measure in _shown(record) for part in ("low", "high", "n")]
    values = [measure.key for measure in _shown(record)]
    return joined[
        [*WORLD, *JOIN, "predicted_latency_s", "error", "front", "exact", *values, *extra, "remark"]
    ]


def compared(record: dict[str, Any]) -> pd.DataFrame:
    """The settings of one task, that of most: an error is to serial at the same S, so fewer steps would look good.

    What was measured at the same S to be serial's belongs to them, at whichever resolution that was.
    """
    every = settings(record)
    rows = usual_task(every)
    exact = every[every.exact & every.steps.isin(rows.steps)]
    return pd.concat([rows, exact]).drop_duplicates(JOIN)


def error_measure(record: dict[str, Any]) -> Measure | None:
    """The measure on the y axis: the latent error to serial."""
    return next(
        (one for one in measures(record) if (one.metric, one.against) == ("latent_error", "serial")), None
    )


def _shown(record: dict[str, Any]) -> list[Measure]:
    wanted = [("latent_error", "serial"), ("frechet", "serial")]
    return [one for one in measures(record) if (one.metric, one.against) in wanted]


def front(seconds: pd.Series, error: pd.Series) -> list[bool]:
    """Whether no other setting is at least as good in both and better in one; what lacks a number is not on it."""
    points = list(zip(seconds, error, strict=True))

    def beaten(one: tuple[float, float]) -> bool:
        return any(s <= one[0] and e <= one[1] and (s, e) != one for s, e in points)

    return [not (pd.isna(one[0]) or pd.isna(one[1]) or beaten(one)) for one in points]


def _remark(row: dict[Any, Any]) -> str | None:
    """Why a latency or an error is not there."""
    said = []
    if isinstance(row["status"], str) and row["status"] != "ok":
        said.append(f"{row['status']}: {row['reason']}")
    elif not isinstance(row["status"], str):
        said.append("no latency predicted")
    if isinstance(row["quality_status"], str) and row["quality_status"] != "ok":
        said.append(f"quality {row['quality_status']}: {row['quality_reason']}")
    elif pd.isna(row["error"]):
        said.append("no quality measured")
    return "; ".join(said) or None


def readable(record: dict[str, Any], rows: pd.DataFrame) -> pd.DataFrame:
    """`table` to read."""
    cells = rows.assign(front=rows.front.map({True: "yes", False: None}))
    columns: Shown = ["cluster", "method", *chosen(rows), "predicted_latency_s"]
    columns.append(Column("front", "on the front"))
    for one in _shown(record):
        cells[one.key] = [cell(one, row) for row in cells.to_dict("records")]
        columns.append(Column(one.key, f"{one.name}, measured {one.looks.better}"))
    return words(cells, [*columns, "remark"])


def tabulate(record: dict[str, Any]) -> tables.Table:
    """The settings, with what is predicted and what is measured."""
    rows = table(record)
    return tables.table(rows, readable(record, rows), before=about(record, rows))


def about(record: dict[str, Any], rows: pd.DataFrame) -> str:
    """What is predicted of which model, and what is measured on which."""
    worlds = rows[WORLD[1:]].drop_duplicates().to_dict("records")
    full = " and ".join(f"{world['model']} at {world['full_resolution']} px" for world in worlds)
    every = compared(record)
    measure = error_measure(record)
    n = "–" if measure is None else count(rows[f"{measure.key}_n"])
    shared = float(every[every.exact].equal_error.max())
    sizes = ", ".join(f"{size} px" for size in sorted(set(every[every.exact].px)))
    how = "" if pd.isna(shared) else f" (measured at {sizes}: relative difference at most {shared:.1e})"
    return (
        f"Latencies are PREDICTED for {full}; errors are MEASURED on the small {model_words(record)}, "
        f"{task_words(usual_task(every))}, n = {n} pictures: the order of settings, not the "
        f"quality that the large model would have. Error 0: serial's own pictures{how}."
    )


def figure(record: dict[str, Any]) -> Figure | None:
    """A panel a cluster: error against predicted latency, the front through those that nothing beats."""
    rows = table(record)
    if rows.dropna(subset=["predicted_latency_s", "error"]).empty:
        return None
    worlds = list(rows.groupby(WORLD, sort=False))
    measure = error_measure(record)
    with mpl.rc_context({**RC, "axes.grid.axis": "both"}):
        page = Sheet(1, len(worlds), 4.4, 3.4, **SIDES)
        sheet, (grid,) = page.open()
        for axes, (world, part) in zip(grid, worlds, strict=True):
            axes.set_title(f"{world[0]}, {world[2]} px")
            axes.set_xlabel("predicted latency, s")
            _points(axes, in_order(part), logarithmic(axes, list(rows.error.dropna())))
        grid[0].set_ylabel(f"{measure.name if measure else 'error'}, no unit")
        gone = rows[rows.predicted_latency_s.isna() | rows.error.isna()]
        said = [about(record, rows)]
        if len(gone):
            said.append(f"Not drawn, with the reason in the table: {len(gone)} of {len(rows)} points.")
        said.append(f"Source: {SOURCE}, commit {record['git_commit'][:8]}.")
        models = ", ".join(dict.fromkeys(str(world[1]) for world, _ in worlds))
        title = f"MEASURED error of {record['model']['name']} against PREDICTED latency of {models}"
        page.close(sheet, title, _handles(rows), " ".join(said))
    return sheet


def _points(axes: Axes, rows: pd.DataFrame, bottom: float) -> None:
    """Settings on the front full and named, the others pale; exact ones on the line of 0."""
    rows = rows.dropna(subset=["predicted_latency_s", "error"])
    rows = rows.assign(place=rows.error.where(rows.error > 0, bottom))
    for row in rows.to_dict("records"):
        look = _look(row["method"], row["front"])
        axes.plot(row["predicted_latency_s"], row["place"], **look, zorder=4 if row["front"] else 3)
    best = rows[rows.front].sort_values("predicted_latency_s")
    axes.step(best.predicted_latency_s, best.place, where="post", **FRONT, zorder=2)
    low, high = rows.predicted_latency_s.min() / 2.1, rows.predicted_latency_s.max() * 1.15
    marks = round_values(low, high)
    axes.set_xscale("log")
    axes.set_xlim(low, high)
    axes.set_xticks(marks, [f"{mark:g}" for mark in marks])
    axes.xaxis.set_minor_locator(NullLocator())
    below = 1.0  # of the axes' height: a name stands lower than the one before, and a line leads to its point
    for row in best.to_dict("records"):
        point = (row["predicted_latency_s"], row["place"])
        height = axes.transAxes.inverted().transform(axes.transData.transform(point))[1]
        below = min(height - (0.012 if row["error"] > 0 else 0.03), below - 0.042)
        axes.annotate(
            choices(row), point, (point[0] * 0.94, below), textcoords=axes.get_xaxis_transform(), ha="right",
            va="center", fontsize=7.5, arrowprops={"arrowstyle": "-", "linewidth": 0.5, "color": GREY, "shrinkA": 0},
        )  # fmt: skip


def _look(method: str, full: bool) -> dict[str, Any]:
    """The marker of a setting: on the front large and full, else small and pale."""
    colour, marker = COLOUR.get(method, GREY), MARKER.get(method, "o")
    look: dict[str, Any] = {"marker": marker, "linestyle": "none", "markeredgecolor": colour}
    look |= {"markersize": 6.5 if full else 4.5, "markeredgewidth": 1.6 if full else 0.8}
    look["markersize"] *= 1.5 if marker == "*" else 1.0
    return look | {"markerfacecolor": colour if full else pale(colour, 0.75)}


def _handles(rows: pd.DataFrame) -> list[Artist]:
    """The legend: methods that are drawn, then the front and what is not on it."""
    drawn = set(rows.dropna(subset=["predicted_latency_s", "error"]).method)
    handles: list[Artist] = [
        Line2D([], [], label=label(method), **_look(method, True)) for method in ORDER if method in drawn
    ]
    words = "on the front: nothing is faster and closer"
    handles.append(Line2D([], [], label=words, marker="o", markersize=6.5, **FRONT))
    handles.append(Line2D([], [], label="not on it (pale)", **_look("serial", False)))
    return handles
