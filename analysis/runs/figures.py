"""Figures over one folder of runs, one function each. No function holds a number that is a result."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from analysis.presentation.columns import MIB
from analysis.presentation.style import COLOUR, CPU_NOTE, GREY, RC, in_order, label, pale
from analysis.runs import fidelity, frame, sweep


def picture_grid(*folders: str | Path, amplify: int = 8) -> Figure | None:
    """One row a method: each picture and, ``amplify`` times larger, its absolute difference to serial's."""
    runs = frame.runs(*folders)
    if runs.empty:
        return None
    runs = in_order(fidelity.to_serial(runs))
    shown = "clip, row by row" if runs.frames.notna().any() else "picture"
    prompts = max(runs.prompts, key=len)
    scale = Normalize(0, 1 / amplify)
    with mpl.rc_context({**RC, "axes.grid": False}):
        sheet = Pictures(rows=len(runs), columns=max(len(prompts), 1))
        for row, (_, run) in enumerate(runs.iterrows()):
            _row_label(sheet, row, run)
            ours = fidelity.pictures(run.path)
            theirs = fidelity.pictures(run.serial_path) if isinstance(run.serial_path, str) else []
            for column, picture in enumerate(ours):
                sheet.square(picture, row, column)
                if len(theirs) == len(ours) and run.method != "serial":
                    gap = np.abs(picture.astype(float) - theirs[column]).max(axis=-1)
                    sheet.square(gap, row, column, right=True, norm=scale)
        for column, prompt in enumerate(prompts):
            sheet.text(sheet.x(column, 1.0), 0.26, f"“{prompt}”", ha="center", fontsize=8.5)
            sheet.text(sheet.x(column, 0.5), 0.47, shown, ha="center", fontsize=6.5, color=GREY)
            words = f"|Δ| to serial × {amplify}"
            sheet.text(sheet.x(column, 1.5), 0.47, words, ha="center", fontsize=6.5, color=GREY)
        bar = sheet.axes(sheet.x(0, 0), sheet.height - 0.42, 2 * sheet.side, 0.09)
        sheet.figure.colorbar(ScalarMappable(scale, "magma"), cax=bar, orientation="horizontal", extend="max")
        bar.tick_params(labelsize=6.5, length=2, pad=1)
        bar.set_xlabel("|Δ| of the channel that differs most, pixels in 0..1", fontsize=6.5, labelpad=1)
    return sheet.figure


def memory_per_device(*folders: str | Path) -> Figure | None:
    """Stacked bars, one a rank, grouped by method: parameters below, KV above, in MiB."""
    runs, held = in_order(frame.runs(*folders)), sweep.devices(*folders)
    if held.empty:
        return None
    with mpl.rc_context(RC):
        figure = Figure(figsize=(8.2, 3.5), layout="constrained")
        axes = figure.subplots()
        centres, names, start = [], [], 0.0
        for _, run in runs.iterrows():
            ranks, colour = held[held.path == run.path], COLOUR.get(run.method, GREY)
            at = start + np.arange(max(len(ranks), 1))
            if ranks.empty:  # a run without bytes is named, not left out
                axes.text(start, 0, f" {run.status}", rotation=90, ha="center", va="bottom", color=GREY)
            else:
                look: dict[str, Any] = {"width": 0.86, "linewidth": 0.6, "edgecolor": colour}
                params, kv = ranks.param_bytes / MIB, ranks.kv_bytes / MIB
                axes.bar(at, params, color=colour, **look)
                axes.bar(at, kv, bottom=params, color=pale(colour, 0.72), hatch="////", **look)
            centres.append(float(at.mean()))
            names.append(label(run.method).replace(" ", "\n"))
            start += len(at) + 1.2
        axes.set_xticks(centres, names)
        axes.tick_params(axis="x", length=0)
        axes.set_ylabel("held by each rank, MiB")
        axes.set_title("Parameters and KV, one bar a rank")
        axes.margins(x=0.01)
        axes.set_ylim(0, float((held.param_bytes + held.kv_bytes).max()) / MIB * 1.16)
        solid = Patch(facecolor=GREY, edgecolor=GREY, label="parameters")
        hatched = Patch(facecolor=pale(GREY, 0.72), edgecolor=GREY, hatch="////", label="KV buffers")
        axes.legend(handles=[solid, hatched], loc="upper right", ncols=2, borderaxespad=0)
    return figure


@dataclass
class Pictures:
    """A page of squares in rows with labels to their left; every length in inches, y from the top."""

    rows: int
    columns: int
    side: float = 0.94
    label: float = 1.8
    head: float = 0.58
    foot: float = 0.74

    def __post_init__(self) -> None:
        self.width = self.label + 2.14 * self.side * self.columns
        self.height = self.head + 1.05 * self.side * self.rows + self.foot
        self.figure = Figure(figsize=(self.width, self.height))

    def x(self, column: int, squares: float) -> float:
        """From the left edge of a column's pair of squares, so many squares to the right."""
        return self.label + 2.14 * self.side * column + 1.02 * self.side * squares

    def y(self, row: int) -> float:
        return self.head + 1.05 * self.side * row

    def axes(self, left: float, top: float, width: float, height: float) -> mpl.axes.Axes:
        bottom = 1 - (top + height) / self.height
        return self.figure.add_axes((left / self.width, bottom, width / self.width, height / self.height))

    def square(
        self, image: np.ndarray, row: int, column: int, right: bool = False, norm: Normalize | None = None
    ) -> None:
        axes = self.axes(self.x(column, float(right)), self.y(row), self.side, self.side)
        axes.imshow(image, cmap="magma", norm=norm, interpolation="nearest")
        axes.set_axis_off()

    def text(self, x: float, y: float, words: str, ha: str, **look: Any) -> None:
        self.figure.text(x / self.width, 1 - y / self.height, words, ha=ha, va="center", **look)


def _row_label(sheet: Pictures, row: int, run: pd.Series) -> None:
    """Name, latency over serial's, and what that number is worth; or why there is no picture."""
    x, middle = sheet.label - 0.1, sheet.y(row) + sheet.side / 2
    colour = COLOUR.get(run.method, "black")
    sheet.text(x, middle - 0.25, label(run.method), ha="right", weight="bold", color=colour)
    if run.status != "ok":
        sheet.text(x, middle - 0.06, str(run.status), ha="right", fontsize=7.5)
        sheet.text(sheet.x(0, 0.1), middle - 0.06, str(run.reason), ha="left", fontsize=7.5)
        return
    ratio = "no serial run" if np.isnan(run.latency_ratio) else f"{run.latency_ratio:.2f} × serial's latency"
    sheet.text(x, middle - 0.06, ratio, ha="right", fontsize=7.5)
    note = f"({run.gpu})" if run.gpu else f"({CPU_NOTE})"
    sheet.text(x, middle + 0.08, note, ha="right", fontsize=6.5, color=GREY)
    if run.method != "serial" and np.isfinite(run.psnr_db):
        sheet.text(x, middle + 0.24, f"mean PSNR {run.psnr_db:.1f} dB", ha="right", fontsize=7.5)
    elif run.method != "serial" and run.psnr_db == np.inf:
        sheet.text(x, middle + 0.24, "the same pixels", ha="right", fontsize=7.5)
