"""The figure of the full-size accounting: what the fullest device of each method holds, model by model."""

from __future__ import annotations

from typing import Any

import matplotlib as mpl
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from analysis.memory.accounting import DEVICES, PIXELS, shown, size_text
from analysis.presentation.columns import GIB
from analysis.presentation.style import COLOUR, RC, label, ordered, pale

STACK = {
    "param_bytes": "parameters",
    "kv_bytes": "K, V kept between steps",
    "activation_bytes": "activations at the peak",
    "other_bytes": "buffers, messages, inputs, tables of positions",
}
"""What a device's peak is made of -> what the figure calls it."""
TICK: dict[str, Any] = {"color": "black", "linewidth": 1.6}


def figure(record: dict[str, Any], table: pd.DataFrame) -> Figure:
    """A panel a model, at `PIXELS` or the largest size it has: of each method the device with the highest peak, and
    what that is made of."""
    table = table[table.status == "ok"]
    sizes = table.groupby("model").resolution.agg(lambda one: PIXELS if PIXELS in set(one) else max(one))
    table = table[table.resolution == table.model.map(sizes)]
    rows = shown(table)
    rows = rows.loc[rows.groupby(["model", "method"]).peak_bytes.idxmax()]
    lower = table[(table.warmup == 0) & (table.devices == DEVICES) & (table.method == "pipefusion")]
    without = lower.groupby(["model", "method"], as_index=False).peak_bytes.max()
    models = [model for model in record["models"] if model in set(rows.model)]
    methods = ordered(case["method"] for case in record["cases"])
    across = min(4, len(models))
    down = -(-len(models) // across)
    with mpl.rc_context({**RC, "axes.grid.axis": "x", "axes.titlesize": 9}):
        sheet = Figure(figsize=(1.3 + 2.5 * across, 0.9 + 2.35 * down), layout="constrained")
        grid = sheet.subplots(down, across, squeeze=False, sharey=True)
        for axes in grid.flat[len(models) :]:
            axes.set_axis_off()
        for axes, model in zip(grid.flat, models, strict=False):
            facts = record["models"][model]
            size = f"\n{size_text(facts, sizes[model])}" if facts.get("frames") or sizes.nunique() > 1 else ""
            axes.set_title(f"{model}, {facts['diffusers_parameters'] / 1e9:.3g} B parameters{size}")
            _bars(axes, rows[rows.model == model], methods)
            for row in without[without.model == model].to_dict("records"):
                at = methods.index(row["method"])
                axes.plot([row["peak_bytes"] / GIB] * 2, [at - 0.37, at + 0.37], **TICK)
        for axes in grid[-1]:
            axes.set_xlabel("GiB")
        handles: list[Artist] = [Patch(label=text, **_look("#555555", kind)) for kind, text in STACK.items()]
        if len(without):
            handles.append(Line2D([], [], label="peak of the steps that overlap (W=0)", **TICK))
        sheet.legend(handles=handles, loc="outside lower center", ncols=len(handles), columnspacing=1.4)
        same = f" at {sizes.iloc[0]} px" if sizes.nunique() == 1 else ""
        what = "one picture or video at a time, with its guidance branches"
        sheet.suptitle(f"The fullest of {DEVICES} devices{same}, {record['dtype']}, {what}", fontsize=11)
    return sheet


def _bars(axes: Axes, rows: pd.DataFrame, methods: list[str]) -> None:
    """A bar a method of the record, from above; what has no bar cannot be cut so."""
    by_method = {row["method"]: row for row in rows.to_dict("records")}
    most = max(row["peak_bytes"] for row in by_method.values()) / GIB
    for at, method in enumerate(methods):
        row, left = by_method.get(method), 0.0
        if row is None:
            axes.text(0, at, " cannot be", va="center", fontsize=7, color="#555555")
            continue
        for kind in STACK:
            width = row[kind] / GIB
            axes.barh(at, width, left=left, height=0.74, **_look(COLOUR[method], kind))
            left += width
        fewer = "" if row["devices"] == DEVICES or method == "serial" else f" (N={row['devices']})"
        axes.text(left + 0.02 * most, at, f"{left:.3g}{fewer}", va="center", fontsize=7)
    axes.set_yticks(range(len(methods)), [label(method) for method in methods])
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(len(methods) - 0.4, -0.6)
    axes.set_xlim(0, 1.22 * most)


def _look(colour: str, kind: str) -> dict[str, Any]:
    """Parameters full, K and V pale and hatched as in every figure, activations paler, the rest all but white."""
    look: dict[str, Any] = {"edgecolor": colour, "linewidth": 0.5}
    paleness = dict(zip(STACK, (0.0, 0.72, 0.45, 0.93), strict=True))[kind]
    return look | {"facecolor": pale(colour, paleness), "hatch": "////" if kind == "kv_bytes" else None}
