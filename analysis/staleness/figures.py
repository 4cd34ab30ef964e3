"""Figures of what staleness does, over one record of `experiment=staleness`: layers, steps, places of the picture.

No function holds a number that is a result.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from analysis.presentation.style import COLOUR, GREY, RC, in_order, pale
from analysis.staleness.tables import Record, final_errors, means_by_step, of_setting

MAP = "cividis"
"""Light where large, also in grey."""
CAPTION: dict[str, Any] = {"fontsize": 8, "color": GREY}


def caption(sheet: Figure, record: Record, words: str) -> None:
    """The last line of a figure: where its numbers are from."""
    facts = record.source
    source = f"{facts['model']}, S = {facts['steps']}, guidance {facts['guidance']:g}, {facts['pictures']} pictures"
    sheet.supxlabel(f"{words}\n{source}", **CAPTION)


def percents(value: float, _: Any = None) -> str:
    """A tick: 0.5 %, 20 %."""
    return f"{100 * value:.3g} %"


def ran(record: Record) -> list[dict[Any, Any]]:
    """The runs that were made, in the order of methods and of W."""
    runs = record.runs[record.runs.status == "ok"]
    return in_order(runs.sort_values("warmup", na_position="first", kind="stable")).to_dict("records")


def steps_ahead(run: Mapping[Any, Any]) -> int:
    """W, 0 where there is none."""
    return 0 if pd.isna(run["warmup"]) else int(run["warmup"])


def by_layer_and_step(table: pd.DataFrame, value: str, layers: int, steps: int) -> np.ndarray:
    """Means over bands, each counting by its rows: [layers, steps]; NaN where there is nothing."""
    grid = np.full((layers, steps), np.nan)
    table = table[table[value].notna() & table.layer.notna()]
    for layer, part in table.groupby("layer"):
        means = means_by_step(part, value)
        grid[int(str(layer)), means.index] = means
    return grid


def heatmap(record: Record) -> Figure:
    """Layer against step: above how much hidden states, K and V change, below what stale K, V make of attention."""
    layers, steps = record.facts["layers"], record.source["steps"]
    changes = record.redundancy
    above = {
        words: by_layer_and_step(changes[changes.quantity == quantity], "change", layers, steps)
        for quantity, words in {"hidden": "hidden states", "k": "K", "v": "V"}.items()
    }
    below = {}
    for run in (run for run in ran(record) if run["watched"]):
        grid = by_layer_and_step(of_setting(record.error, run), "attention_error", layers, steps)
        grid[:, : steps_ahead(run)] = np.nan  # synchronous: nothing is stale
        below[record.name(run)] = grid
    with mpl.rc_context({**RC, "axes.grid": False}):
        sheet = Figure(figsize=(9.6, 6.2), layout="constrained")
        top, bottom = sheet.subfigures(2, 1, squeeze=False)[:, 0]
        title = "How much the inputs of attention change from one step to the next"
        panels(top, above, title, "change ‖xₜ − xₜ₋₁‖ / ‖xₜ‖")
        title = "Error of attention's output that stale K, V cause"
        panels(bottom, below, title, "error ‖stale − fresh‖ / ‖fresh‖")
        words = "Above: serial. Grey: nothing to compare with (the first step), or nothing stale (synchronous steps)."
        caption(sheet, record, words)
    return sheet


def panels(sheet: Any, grids: dict[str, np.ndarray], title: str, unit: str) -> None:
    """Panels [layers, steps] on one scale with one bar."""
    scale = log_scale([*grids.values()])
    sheet.suptitle(title, fontsize=10.5)
    row = sheet.subplots(1, max(len(grids), 1), squeeze=False, sharey=True)[0]
    for axes, (name, grid) in zip(row, grids.items(), strict=False):
        axes.set_facecolor("#CCCCCC")
        axes.imshow(grid, cmap=MAP, norm=scale, aspect="auto", origin="lower", interpolation="nearest")
        axes.set_title(name, fontsize=9)
        axes.set_xlabel("step (0 starts from noise)")
        whole(axes)
    row[0].set_ylabel("layer")
    bar = sheet.colorbar(ScalarMappable(scale, MAP), ax=[*row], pad=0.01)
    ticks_in_percent(bar.ax)
    bar.set_label(f"relative {unit}", fontsize=8)


def log_scale(grids: Sequence[np.ndarray]) -> Normalize:
    """One logarithmic scale for all, from the 1st percentile to the largest."""
    values = np.concatenate([grid[np.isfinite(grid)] for grid in grids]) if grids else np.zeros(0)
    values = values[values > 0]
    return LogNorm(np.percentile(values, 1), values.max()) if len(values) else LogNorm(0.01, 1)


def ticks_in_percent(axes: Axes) -> None:
    """A logarithmic y axis with 1, 2, 5 of each decade as percent."""
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(FuncFormatter(percents))
    axes.yaxis.set_minor_formatter(NullFormatter())


def whole(axes: Axes) -> None:
    """Whole numbers on both axes."""
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))


def error_map(record: Record) -> Figure:
    """A panel a method: where in the picture the final latent differs from serial's; lines between patches."""
    runs = [run for run in ran(record) if run["watched"]]
    rows, columns = record.facts["token_rows"], record.facts["token_cols"]
    grids = []
    for run in runs:
        part = of_setting(record.map, run).sort_values(["row", "column"])
        grids.append((part.rms_error / part.rms_serial).to_numpy().reshape(rows, columns))
    scale = log_scale(grids)
    with mpl.rc_context({**RC, "axes.grid": False}):
        sheet = Figure(figsize=(1.2 + 2.9 * len(runs), 4.1), layout="constrained")
        row = sheet.subplots(1, max(len(runs), 1), squeeze=False, sharey=True)[0]
        for axes, run, grid in zip(row, runs, grids, strict=False):
            axes.imshow(grid, cmap=MAP, norm=scale, interpolation="nearest")
            off = final_errors(record, run).mean()
            axes.set_title(f"{record.name(run)}\nwhole latent off by {100 * off:.1f} %", fontsize=9)
            bands = patch_rows(record, run)
            for start, _ in bands[1:]:
                axes.axhline(start - 0.5, color="white", linewidth=1.4)
                axes.axhline(start - 0.5, color="black", linewidth=0.7, linestyle=(0, (3, 2)))
            axes.set_xlabel("token column")
            kind = "patch" if not pd.isna(run["patches"]) else "device"
            right = axes.secondary_yaxis("right")
            middles = [(start + stop - 1) / 2 for start, stop in bands]
            names = [f"{kind} {at}" for at in range(len(bands))]
            right.set_yticks(middles, names, fontsize=7, rotation=90, va="center")
            right.tick_params(length=0)
        row[0].set_ylabel("token row")
        bar = sheet.colorbar(ScalarMappable(scale, MAP), ax=[*row], pad=0.01, shrink=0.8)
        ticks_in_percent(bar.ax)
        bar.set_label("RMS error / RMS of serial's latent", fontsize=8)
        sheet.suptitle("Where the final latent differs from serial's", fontsize=11)
        caption(sheet, record, "By token; dashed: borders between patches. From the same noise.")
    return sheet


def patch_rows(record: Record, run: Mapping[Any, Any]) -> list[tuple[int, int]]:
    """First and last + 1 token row of each patch, as the displaced steps of a run computed them."""
    seen = of_setting(record.error, run)
    last = seen[seen.step == seen.step.max()]
    return sorted(
        {(int(start), int(stop)) for start, stop in zip(last.row_start, last.row_stop, strict=True)}
    )


LINES: dict[int, Any] = {0: (0, (1, 1.2)), 1: "-", 2: (0, (5, 1.6)), 4: (0, (6, 1.5, 1, 1.5))}
"""W -> how its line is drawn; solid for others."""


def steps(record: Record) -> Figure:
    """A panel a method, a line a W: the relative error of the latent after each step, a mean over pictures."""
    panels: dict[str, list[dict[Any, Any]]] = {}
    for run in ran(record):
        panels.setdefault(record.name(run | {"warmup": None}), []).append(run)
    shown: list[float] = []
    with mpl.rc_context({**RC, "axes.grid.axis": "both"}):
        sheet = Figure(figsize=(0.9 + 3.0 * len(panels), 4.0), layout="constrained")
        row = sheet.subplots(1, max(len(panels), 1), squeeze=False, sharex=True, sharey=True)[0]
        for axes, (title, runs) in zip(row, panels.items(), strict=False):
            for run in runs:
                errors = of_setting(record.steps, run)
                table = errors[errors.step >= steps_ahead(run)].groupby("step").relative_error
                mean, low, high = table.mean(), table.quantile(0.1), table.quantile(0.9)
                colour = COLOUR.get(run["method"], GREY)
                line = LINES.get(steps_ahead(run), "-")
                axes.plot(mean.index, mean, color=colour, linestyle=line, linewidth=1.8)
                if run["watched"]:
                    axes.fill_between(mean.index, low, high, color=pale(colour, 0.75), linewidth=0, zorder=0)
                shown += [*mean, *(high if run["watched"] else [])]
            axes.set_title(title, fontsize=9)
            axes.set_yscale("log")
            axes.set_xlabel("step (0 starts from noise)")
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
            ticks_in_percent(axes)
        if shown:
            row[0].set_ylim(min(value for value in shown if value > 0) * 0.7, max(shown) * 1.4)
        row[0].set_ylabel("error of the latent after the step\n‖x − serial‖ / ‖serial‖")
        warmups = sorted(
            {run["warmup"] for runs in panels.values() for run in runs if not pd.isna(run["warmup"])}
        )
        look: dict[str, Any] = {"color": GREY, "lw": 1.8}
        handles = [Line2D([], [], ls=LINES.get(w, "-"), label=f"W = {w}", **look) for w in warmups]
        sheet.legend(
            handles=handles, loc="outside upper right", ncols=len(handles), fontsize=8, handlelength=3.2
        )
        sheet.suptitle("How far the latent is from serial's after every step", fontsize=11, x=0.01, ha="left")
        words = "Mean over pictures, from the first displaced step on; the steps before it are exact. "
        watched = record.facts["config"]["measure"]["watched"]
        caption(sheet, record, f"{words}Shaded: 10th to 90th percentile at W = {watched}.")
    return sheet
