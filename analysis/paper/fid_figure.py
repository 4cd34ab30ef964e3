"""Published FID and our Fréchet distances as a picture: the two sides apart, each with its own axes."""

from __future__ import annotations

from typing import Any

import matplotlib as mpl
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analysis.evidence.published import named
from analysis.paper.fid import APART, SET, about
from analysis.paper.panels import short_commit
from analysis.predicted.points import marker
from analysis.presentation.sheet import Sheet, blank
from analysis.presentation.style import GREY, RC, label
from analysis.quality.record import INTERVAL, choices

REFERENCE = {"real": "real pictures (G.T.)", "serial": "serial's pictures (Orig.)"}
FLOOR: dict[str, Any] = {"marker": "D", "markersize": 5, "linestyle": "none", "markeredgecolor": GREY}
FLOOR |= {"markerfacecolor": "white", "zorder": 4}
PALE = "#F3F3F3"


def figure(table: pd.DataFrame, record: dict[str, Any]) -> Figure:
    """Published FID to real and to serial's pictures, a row a set; at the right, on grey, our distances."""
    theirs, mine = table[table.side == "published"], table[table.side == "ours"]
    sets, shown = list(theirs.groupby(SET, sort=False)), list(mine.groupby("metric", sort=False))
    sheet = Sheet(
        max(len(sets), len(shown) + 1), 3, 1.85, 1.2, left=1.6, right=0.42, across=1.75, down=0.72, head=0.8
    )
    sizes: dict[Any, Any] = {"axes.titlesize": 8.5, "xtick.labelsize": 8, "ytick.labelsize": 8}
    with mpl.rc_context({**RC, **sizes, "axes.grid": False}):
        drawn, grid = sheet.open()
        for axes_row, (one, part) in zip(grid, sets, strict=False):
            for axes, (against, words) in zip(axes_row, REFERENCE.items(), strict=False):
                here = part[part.against == against]
                if here.empty:
                    blank(axes, "not published")
                    continue
                axes.set_title(f"published FID to {words}\n{setting_label(one)}")
                points(axes, here)
        for axes_row, (metric, here) in zip(grid, shown, strict=False):
            n = " and ".join(str(one) for one in sorted(set(here[here.method != "floor"].n)))
            axes_row[-1].set_title(f"OURS, {here.model.iloc[0]}, n = {n}:\n{heading(str(metric))}")
            axes_row[-1].set_facecolor(PALE)
            points(axes_row[-1], here)
        for axes in [
            *(row[-1] for row in grid[len(shown) :]),
            *(axes for row in grid[len(sets) :] for axes in row[:-1]),
        ]:
            blank(axes)
        explain_missing(grid[len(shown)][-1])
        title = "FID as published, and its counterpart on the shipped model"
        sheet.close(drawn, title, handles(mine), note(table, record))
    return drawn


def heading(metric: str) -> str:
    """Without the word that all of them have."""
    return metric.replace(" distance", "")


def setting_label(one: tuple[Any, ...]) -> str:
    model, resolution, n = one
    return f"{model}, {resolution} px, n = {n:,}"


def points(axes: Axes, rows: pd.DataFrame) -> None:
    """A line from 0 to each value, its interval, and the number; floors are values like the others, below them."""
    rows = rows.sort_values("method", key=lambda names: names == "floor", kind="stable")
    ends = [0, *rows.value, *rows.low.dropna(), *rows.high.dropna()]
    for at, row in enumerate(rows.to_dict("records")):
        look = FLOOR if row["method"] == "floor" else marker(row["method"], "prediction")
        colour = look["markeredgecolor"]
        axes.plot([0, row["value"]], [at, at], color=colour, linewidth=1.0, alpha=0.5)
        if not pd.isna(row["low"]):
            axes.plot([row["low"], row["high"]], [at, at], color=colour, linewidth=2.6, zorder=3)
        axes.plot(row["value"], at, **look)
        right = max(row["value"], 0 if pd.isna(row["high"]) else row["high"])
        axes.annotate(
            f"{row['value']:.4g}", (right, at), (6, 0), textcoords="offset points", va="center", fontsize=8
        )
    names = [f"{label(row['method'])} {choice(row)}".strip() for row in rows.to_dict("records")]
    axes.set_yticks(range(len(rows)), names)
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlim(min(ends) * 1.1, 1.25 * max(ends))


def choice(row: dict[Any, Any]) -> str:
    """N and M of a row, a question mark where the source is unsure of N; of serial and floors nothing."""
    if row["method"] in ("serial", "floor"):
        return ""
    text = choices(row | {"warmup": None})
    return text.replace(f"N={row['devices']}", f"N={row['devices']}?") if "N:" in row["remark"] else text


def explain_missing(axes: Axes) -> None:
    """In the place below our panels: that the two sides are not the same thing."""
    first, _, rest = APART.partition(": ")
    look: dict[str, Any] = {"transform": axes.transAxes, "va": "top"}
    axes.text(0, 0.92, first.replace(", ", ",\n") + ":", fontsize=10, weight="bold", **look)
    axes.text(0, 0.5, rest.replace(", not", ",\nnot"), fontsize=9, **look)


def handles(mine: pd.DataFrame) -> list[Artist]:
    below = mine[mine.method == "floor"].drop_duplicates("remark")
    counts = [f"floor of ours: {row['remark']}, n = {row['n']}" for row in below.to_dict("records")]
    return [Line2D([], [], label=text, **FLOOR) for text in counts]


def note(table: pd.DataFrame, record: dict[str, Any]) -> str:
    """What stands on either side and where it is from."""
    theirs = table[table.side == "published"]
    unsure = theirs[theirs.remark.str.startswith("N:")]
    text = f"Published: {named(theirs.source)}, Inception features, COCO captions"
    text += f"; N? is unsure in the source ({named(unsure.source)}). " if len(unsure) else ". "
    text += f"{about(record)} Bars: {record.get('interval', INTERVAL)}. "
    return f"{text}Source: records/quality, {short_commit(record)}."
