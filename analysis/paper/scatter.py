"""Every published latency against what is predicted for it: how good the predictions are, and where they are not."""

from __future__ import annotations

import math
import textwrap
from typing import Any

import matplotlib as mpl
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from analysis.evidence import predictions as published
from analysis.evidence.published import PRODUCT, named
from analysis.paper.panels import logarithmic
from analysis.predicted.points import fills, marker
from analysis.presentation.columns import percent
from analysis.presentation.style import GREY, MARKER, RC, label, ordered
from analysis.records.committed import PREDICTIONS

BAND = 0.1
"""Predictions within a tenth of the published number lie in the band."""
LEFT, RIGHT, HEAD, BETWEEN, DOWN = 0.72, 0.12, 0.72, 0.62, 0.66  # inches, as all lengths here
LARGE, SMALL, LOW = 4.3, 1.82, 2.5  # the sides of the panels
IDENTITY: dict[str, Any] = {"color": GREY, "linewidth": 0.9, "zorder": 1}
WITHIN: dict[str, Any] = {"color": "#EEEEEE", "zorder": 0, "linewidth": 0}


def role(table: pd.DataFrame) -> pd.Series:
    """What a point is: `calibration` (repeated or not), `doubt` of its source, or a `prediction`."""
    fitted = table.role != "prediction"
    return pd.Series("prediction", table.index).mask(table.doubt != "", "doubt").mask(fitted, "calibration")


def figure(table: pd.DataFrame) -> Figure:
    """A panel a model, the one with the most rows large; below all relative errors by model and resolution.

    A product of degrees is drawn as the method whose own axis it has.
    """
    points = table[table.error.notna()].assign(kind=role(table), method=table.method.replace(PRODUCT))
    points = points.assign(size=(points.resolution.astype("string") + " px").fillna("video"))
    models = [str(model) for model in points.model.value_counts().index]
    across = math.ceil((len(models) - 1) / 2)
    wide = LEFT + LARGE + across * (BETWEEN + SMALL) + RIGHT
    wide = max(wide, 7.5)
    text = textwrap.fill(note(table, points), int(wide * 17), break_long_words=False)
    below = 0.145 * (text.count("\n") + 1) + 0.85
    high = HEAD + LARGE + DOWN + 0.3 + LOW + 0.62 + below
    with mpl.rc_context({**RC, "axes.grid": False, "axes.titlesize": 9}):
        sheet = Figure(figsize=(wide, high))

        def panel(left: float, top: float, width: float, height: float) -> Axes:
            return sheet.add_axes((left / wide, 1 - (top + height) / high, width / wide, height / high))

        for at, model in enumerate(models):
            column, row = (at - 1) // 2, (at - 1) % 2
            left = LEFT + LARGE + BETWEEN + column * (SMALL + BETWEEN)
            place = (left, HEAD + row * (LARGE - SMALL), SMALL, SMALL) if at else (LEFT, HEAD, LARGE, LARGE)
            axes = panel(*place)
            scatter(axes, points[points.model == model])
            axes.set_title(model)
            words = describe_median(table[table.model == model], large=at == 0).replace(", ", "\n")
            look_of: dict[str, Any] = {"ha": "right", "va": "bottom", "fontsize": 8, "color": GREY}
            axes.text(0.98, 0.03, f"median error\n{words}", transform=axes.transAxes, **look_of)
            axes.set_xlabel("published, s" if at == 0 or row else "")
            axes.set_ylabel("predicted, s" if at == 0 else "")
        errors(panel(LEFT, HEAD + LARGE + DOWN + 0.3, wide - LEFT - RIGHT, LOW), points, models)
        title = "Predicted against published latency"
        sheet.suptitle(title, fontsize=12, x=0.1 / wide, y=1 - 0.08 / high, ha="left", va="top")
        words = f"Median absolute error of all {describe_median(table, large=True)}"
        sheet.text(0.1 / wide, 1 - 0.4 / high, words, fontsize=9, va="center")
        sheet.legend(
            handles=handles(points), loc="lower left", ncols=5 if across > 1 else 4, columnspacing=1.4,
            bbox_to_anchor=(0.1 / wide, (below - 0.6) / high), borderaxespad=0,
        )  # fmt: skip
        sheet.text(0.1 / wide, 0.08 / high, text, fontsize=8, color=GREY, linespacing=1.3)
    return sheet


def describe_median(table: pd.DataFrame, large: bool) -> str:
    """The median absolute error with the number of rows; without rows in doubt or repeated too, if there is room.

    Other people's code has a median of its own, which stands where there is nothing else.
    """
    lines = published.statistics(table)
    lines = lines[lines.rows_all > 0] if len(lines) else lines
    if lines.empty:
        return "nothing but calibration"
    first = lines.iloc[0]
    words = f"{percent(first.error_all)} ({first.rows_all})"
    if first.statistic != "overall":
        return f"{words}, {first.statistic}"
    if large and (first.rows_once, first.error_once) != (first.rows_all, first.error_all):
        words += f", {percent(first.error_once)} ({first.rows_once}) of sound sources and each number once"
    return words


def scatter(axes: Axes, points: pd.DataFrame) -> None:
    """Both axes logarithmic and alike; the line is where they agree, the band a tenth around it."""
    low = min(points.published_s.min(), points.predicted_s.min())
    high = max(points.published_s.max(), points.predicted_s.max())
    ends = [0.8 * low, high / 0.8]
    axes.fill_between(ends, [end * (1 - BAND) for end in ends], [end * (1 + BAND) for end in ends], **WITHIN)
    axes.plot(ends, ends, **IDENTITY)
    for point in drawn_last(points):
        axes.plot(point["published_s"], point["predicted_s"], **look(point))
    axes.set(xscale="log", yscale="log", xlim=ends, ylim=ends)
    for axis in (axes.xaxis, axes.yaxis):
        logarithmic(axis, (1, 2, 5) if high / low < 200 else (1,))
    axes.tick_params(labelsize=8)


def errors(axes: Axes, points: pd.DataFrame, models: list[str]) -> None:
    """A column a model and resolution, in it the methods side by side; the tick is the median of the column."""
    sizes = points.sort_values("resolution").groupby("model")["size"].unique()
    cells = [(model, size) for model in models for size in sizes[model]]
    methods = ordered(points.method)
    axes.axhspan(-100 * BAND, 100 * BAND, **WITHIN)
    axes.axhline(0, **IDENTITY)
    for at, (model, size) in enumerate(cells):
        here = points[(points.model == model) & (points["size"] == size)]
        for point in drawn_last(here):
            aside = 0.9 / len(methods) * (methods.index(point["method"]) - len(methods) / 2 + 0.5)
            axes.plot(at + aside, 100 * point["error"], **look(point))
        scored = published.scored(here).error
        if len(scored):
            axes.hlines(100 * scored.median(), at - 0.45, at + 0.45, color="black", linewidth=1.0, zorder=5)
    axes.set_xlim(-0.6, len(cells) - 0.4)
    axes.set_xticks(range(len(cells)), [size for _, size in cells], fontsize=8)
    axes.tick_params(axis="x", length=0)
    for index, model in enumerate(models):
        mine = [at for at, cell in enumerate(cells) if cell[0] == model]
        axes.axvline(mine[-1] + 0.5, color="#CCCCCC", linewidth=0.6)
        axes.annotate(
            model, (sum(mine) / len(mine), 0), (0, -22 - 11 * (index % 2)), xycoords=("data", "axes fraction"),
            textcoords="offset points", ha="center", va="top", fontsize=9,
        )  # fmt: skip
    axes.grid(axis="y")
    axes.set_ylabel("predicted / published − 1, %")
    axes.set_title("Relative error by resolution, methods side by side; the short line is the median error")


def drawn_last(points: pd.DataFrame) -> list[dict[Any, Any]]:
    """The points, hollow and pale ones first: predictions are drawn over them."""
    order = {"calibration": 0, "doubt": 1, "prediction": 2}
    return points.sort_values("kind", key=lambda kinds: kinds.map(order), kind="stable").to_dict("records")


def look(point: dict[Any, Any]) -> dict[str, Any]:
    """A method's marker, hollow or pale as in the other figures, a little smaller for there are many."""
    size = 7.5 if MARKER[point["method"]] == "*" else 4.8
    return marker(point["method"], point["kind"]) | {"markersize": size, "markeredgewidth": 0.7}


def handles(points: pd.DataFrame) -> list[Artist]:
    shown: list[Artist] = [
        Line2D([], [], label=label(method), **marker(method, "prediction"))
        for method in ordered(points.method)
    ]
    shown += fills([*points.kind])
    shown.append(Line2D([], [], label="equal", **IDENTITY))
    return [*shown, Patch(facecolor="#E4E4E4", label=f"± {percent(BAND)}")]


def note(table: pd.DataFrame, points: pd.DataFrame) -> str:
    """Which rows were fitted on, what is not drawn, and where all are from."""
    fitted = points[points.kind == "calibration"]
    gone = len(table) - len(points)
    text = f"{len(points)} published latencies (results/published) beside their predictions (results/{PREDICTIONS}). "
    products = table[table.method.isin([*PRODUCT]) & table.error.notna()]
    text += (
        f"Products of degrees are drawn as PipeFusion and Ring: {named(products.row_id)}. "
        if len(products)
        else ""
    )
    text += f"Calibration, hollow, in no median: {named(fitted.row_id)}. "
    doubted = points[points.kind == "doubt"]
    text += f"In doubt, pale, see published_predictions: {named(doubted.row_id)}. " if len(doubted) else ""
    return text + (f"{gone} rows without a number on both sides are not drawn." if gone else "")
