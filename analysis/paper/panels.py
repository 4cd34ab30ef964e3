"""What the figures of predictions share: the fastest setting of each case, published points, a grid of panels."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from analysis import scaling
from analysis.style import COLOUR, MARKER, ORDER, label, pale

GREY = "#555555"
CASE = ["model", "cluster", "resolution", "method", "devices"]
"""What is compared; of the settings of a case (M) the fastest counts, for every W on its own."""


def predicted(record: dict[str, Any]) -> pd.DataFrame:
    """One row a case and W: the fastest M that fits, or the leanest where none does; `serial_s` beside it."""
    rows = pd.DataFrame(record["rows"])
    rows = rows.astype({"predicted_latency_s": float, "warmup": "Int64", "patches": "Int64"})
    ranked = rows.sort_values(["predicted_latency_s", "peak_bytes", "patches"], na_position="last")
    best = ranked.drop_duplicates([*CASE, "warmup"]).drop(columns="fastest", errors="ignore")
    serial = best[best.method == "serial"].set_index(CASE[:3]).predicted_latency_s.rename("serial_s")
    orders = {
        "model": list(record["models"]),
        "cluster": list(record["clusters"]),
        "method": ORDER,
    }

    def placed(keys: pd.Series) -> pd.Series:
        order = orders.get(str(keys.name))
        return keys if order is None else keys.map(order.index)

    return best.join(serial, on=CASE[:3]).sort_values([*CASE, "warmup"], key=placed, ignore_index=True)


def published(record: dict[str, Any]) -> pd.DataFrame:
    """The published points, each number once, with what it is to the predictions (`role`) and its W."""
    parts = []
    for model in dict.fromkeys(row["model"] for row in record["published"]):
        rows = [row for row in record["published"] if row["model"] == model]
        warmups = {row["row_id"]: row["warmup"] for row in rows}
        part = scaling.published(record | {"published": rows}).assign(model=model)
        parts.append(part.assign(warmup=part.row_id.map(warmups).astype("Int64")))
    none = [*CASE, "warmup", "row_id", "published_s", "oom", "digitized", "flags", "role"]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=none)


def marker(method: str, role: str) -> dict[str, Any]:
    """A published point: the method's marker, filled as `scaling.FILLS` says."""
    colour = COLOUR[method]
    fill = {"prediction": colour, "doubt": pale(colour, 0.65), "calibration": "white"}[role]
    size = 9.0 if MARKER[method] == "*" else 5.5
    edge = {"markerfacecolor": fill, "markeredgecolor": colour, "markeredgewidth": 1.0}
    return {"marker": MARKER[method], "markersize": size, "linestyle": "none", "zorder": 4} | edge


def method_line(method: str) -> dict[str, Any]:
    """A predicted line with the method's marker."""
    size = 7.5 if MARKER[method] == "*" else 4.5
    look = {"color": COLOUR[method], "marker": MARKER[method], "markersize": size, "linewidth": 1.3}
    return look | {"label": label(method)}


def fills(roles: Sequence[str]) -> list[Artist]:
    """The legend of published points: what the fill of a marker means."""
    inside: dict[str, Any] = {"prediction": GREY, "doubt": pale(GREY, 0.65), "calibration": "white"}
    look: dict[str, Any] = {"marker": "s", "markersize": 5.5, "linestyle": "none", "markeredgecolor": GREY}
    return [
        Line2D([], [], label=text, markerfacecolor=inside[role], **look)
        for role, text in scaling.FILLS.items()
        if role in roles
    ]


def digits(value: float) -> str:
    """Three digits, or two below 1."""
    return f"{value:.{2 if abs(value) < 10 else 1 if abs(value) < 100 else 0}f}"


def logarithmic(axis: Axis, leading: Sequence[float] = (1, 2, 5)) -> None:
    """Ticks at these times every power of ten."""
    axis.set_major_locator(LogLocator(subs=leading))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_locator(NullLocator())


@dataclass(frozen=True)
class Sheet:
    """A grid of panels, all in inches: constrained layout does not give a grid the same places twice."""

    rows: int
    columns: int
    width: float
    height: float
    left: float = 1.15
    right: float = 0.2
    across: float = 0.7
    down: float = 0.62
    head: float = 0.66
    foot: float = 0.46

    def open(self) -> tuple[Figure, list[list[Axes]]]:
        figure = Figure(figsize=(self.full, 1.0))
        return figure, figure.subplots(self.rows, self.columns, squeeze=False).tolist()

    @property
    def full(self) -> float:
        return self.left + self.columns * self.width + (self.columns - 1) * self.across + self.right

    def close(self, figure: Figure, title: str, handles: Sequence[Artist], words: str) -> None:
        """Title above; below the legend and the grey note, for which the figure grows."""
        text = textwrap.fill(words, int(self.full * 17), break_long_words=False)
        longest = max((len(str(handle.get_label())) for handle in handles), default=0)
        columns = max(1, min(len(handles), math.floor(self.full / (0.066 * longest + 0.55))))
        note = 0.145 * (text.count("\n") + 1) + 0.12
        below = note + 0.19 * math.ceil(len(handles) / columns) + 0.1
        panels = self.rows * self.height + (self.rows - 1) * self.down
        full = self.head + panels + self.foot + below
        figure.set_size_inches(self.full, full)
        figure.suptitle(title, fontsize=12, y=1 - 0.08 / full, va="top")
        if handles:
            figure.legend(
                handles=handles, loc="lower center", ncols=columns, columnspacing=1.4,
                bbox_to_anchor=(0.5, note / full), borderaxespad=0,
            )  # fmt: skip
        figure.text(0.12 / self.full, 0.07 / full, text, fontsize=8, va="bottom", linespacing=1.3, color=GREY)
        figure.subplots_adjust(
            left=self.left / self.full, right=1 - self.right / self.full, wspace=self.across / self.width,
            bottom=(below + self.foot) / full, top=1 - self.head / full, hspace=self.down / self.height,
        )  # fmt: skip


def blank(axes: Axes, words: str = "") -> None:
    """A panel without data, and why."""
    axes.set_axis_off()
    axes.text(0.5, 0.5, words, transform=axes.transAxes, ha="center", va="center", color=GREY, fontsize=8)


def commit_of(record: dict[str, Any]) -> str:
    """The commit a record names, short."""
    commit, _, changed = str(record.get("git_commit") or "").partition("-")
    return f"commit {commit[:8]}{f'-{changed}' if changed else ''}" if commit else "no commit"
