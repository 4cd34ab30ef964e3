"""What the figures of predictions share: the fastest setting of each case, published points, a grid of panels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from analysis.predicted import points
from analysis.presentation.style import COLOUR, MARKER, ORDER, label

CASE = ["model", "cluster", "resolution", "method", "devices"]
"""What is compared; of the settings of a case (M) the fastest counts, for every W on its own."""


def predicted(record: dict[str, Any]) -> pd.DataFrame:
    """One row a case and W: the fastest M that fits, or the leanest where none does; `serial_s` beside it."""
    rows = pd.DataFrame(record["rows"])
    rows = rows.astype({"predicted_latency_s": float, "warmup": "Int64", "patches": "Int64"})
    ranked = rows.sort_values(["predicted_latency_s", "peak_bytes", "patches"], na_position="last")
    best = ranked.drop_duplicates([*CASE, "warmup"]).drop(columns="fastest", errors="ignore")
    serial = best[best.method == "serial"].set_index(CASE[:3]).predicted_latency_s.rename("serial_s")
    orders = {"model": list(record["models"]), "cluster": list(record["clusters"]), "method": ORDER}

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
        part = points.published(record | {"published": rows}).assign(model=model)
        parts.append(part.assign(warmup=part.row_id.map(warmups).astype("Int64")))
    none = [*CASE, "warmup", "row_id", "published_s", "oom", "digitized", "flags", "role"]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=none)


def method_line(method: str) -> dict[str, Any]:
    """A predicted line with the method's marker."""
    size = 7.5 if MARKER[method] == "*" else 4.5
    look = {"color": COLOUR[method], "marker": MARKER[method], "markersize": size, "linewidth": 1.3}
    return look | {"label": label(method)}


def logarithmic(axis: Axis, leading: Sequence[float] = (1, 2, 5)) -> None:
    """Ticks at these times every power of ten."""
    axis.set_major_locator(LogLocator(subs=leading))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_locator(NullLocator())


def beside(axes: Axes) -> dict[str, Any]:
    """The look of words right of a panel, at the height of its line."""
    return {"va": "center", "fontsize": 7.5, "transform": axes.get_yaxis_transform()}


def short_commit(record: dict[str, Any]) -> str:
    """The commit a record names, short."""
    commit, _, changed = str(record.get("git_commit") or "").partition("-")
    return f"commit {commit[:8]}{f'-{changed}' if changed else ''}" if commit else "no commit"
