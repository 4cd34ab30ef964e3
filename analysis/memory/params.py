"""What each device holds of a model: tables and a figure over one record of `experiment=params_per_device`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib as mpl
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import NullLocator

from analysis.memory import accounting
from analysis.presentation.columns import MIB, column, mib, three, wide, words
from analysis.presentation.sheet import Sheet
from analysis.presentation.style import COLOUR, MARKER, RC, in_order, label, ordered
from analysis.presentation.tables import Table, markdown
from analysis.records.committed import PARAMS
from analysis.records.study import load_study

PIPED = "pipefusion"
WITH_KV = ["distrifusion", "pipefusion"]
"""The methods that keep K and V between steps; the others have none to show."""
TICKS = [1, 2, 4, 8, 16]
DEEP = 8
"""Layers that a model in the figures has at least."""
SLOPED = ["tensor", PIPED]
"""The methods whose share falls with N; the others all hold the whole model."""
LITERAL = ["rank", "layers", "param_bytes", "model_share", "block_share", "replicated_param_bytes"]
LITERAL += ["kv_bytes"]
"""What is shown of the case that is shown device by device."""
REFERENCE: dict[str, Any] = {"color": "#555555", "linewidth": 0.8, "linestyle": (0, (4, 3))}


def load(folder: str | Path) -> tuple[dict[str, Any], pd.DataFrame]:
    """The record (sizes of the models, totals of each case) and one row per device."""
    record = load_study(Path(folder))
    return record.facts | {"cases": accounting.cases(record.rows)}, record.rows.drop(
        columns=["key", *accounting.TOTALS]
    )


def literal(record: dict[str, Any], table: pd.DataFrame) -> pd.DataFrame:
    """The rows of the one case that is shown device by device, PipeFusion on the model the record names."""
    case = record["literal"]
    chosen = (table.model == case["model"]) & (table.devices == case["devices"]) & (table.method == PIPED)
    return table[chosen & (table.status == "ok")]


def fullest(record: dict[str, Any], table: pd.DataFrame, devices: list[int]) -> pd.DataFrame:
    """One row a model, N and method: the largest share of the parameters that a device holds, and the largest KV.

    There is no row where a method cannot run, and no KV where a method keeps none between steps.
    """
    ran = table[(table.status == "ok") & table.devices.isin(devices)].astype({"kv_bytes": "Int64"})
    rows = ran.groupby(["model", "devices", "method"], as_index=False)[["model_share", "kv_bytes"]].max()
    rows["kv_bytes"] = rows.kv_bytes.where(rows.method.isin(WITH_KV))
    place = {model: at for at, model in enumerate(record["models"])}
    return in_order(rows).sort_values(["model", "devices"], key=lambda cells: cells.replace(place))


def readable(rows: pd.DataFrame) -> pd.DataFrame:
    """The fullest devices to read: a column for each method's share in percent, then for each KV in MiB."""
    text = words(rows, ["model", "devices", "method", column("model_share", heading=""), "kv_bytes"])
    return wide(text, ["model", "N"], "method")


def sums(record: dict[str, Any]) -> str:
    """The literal case added up: devices less copies is the model."""
    chosen = {**record["literal"], "method": PIPED}
    case = next(case for case in record["cases"] if all(case[key] == chosen[key] for key in chosen))
    parts = " and ".join(f"{part} {mib(size)}" for part, size in case["copies_by_part"].items())
    facts = record["models"][chosen["model"]]
    return (
        f"{mib(case['devices_bytes'])} MiB on {chosen['devices']} devices "
        f"- {mib(case['copies_bytes'])} MiB of copies ({parts or 'none'}) "
        f"= {mib(case['model_bytes'])} MiB: diffusers' own {facts['parameters']:,} parameters, {facts['dtype']}."
    )


def reconciled(record: dict[str, Any]) -> str:
    """In how many cases the devices, each tensor counted once, hold the model exactly."""
    done = [case for case in record["cases"] if case["status"] == "ok"]
    exact = sum(case["reconciles"] for case in done)
    skipped = len(record["cases"]) - len(done)
    return (
        f"In {exact} of {len(done)} cases what the devices hold, less the copies, is diffusers' own count of the model "
        f"to the byte ({skipped} more are skipped: the method cannot cut the model that way)."
    )


def tabulate(record: dict[str, Any], table: pd.DataFrame) -> Table:
    """One row a device of the N shown; to read, the literal case and the fullest device of every model."""
    rows, case = literal(record, table), record["literal"]
    layers = record["models"][case["model"]]["layers"]
    text = f"{case['model']}: {layers} layers on {case['devices']} devices, {label(PIPED)}.\n\n"
    text += f"{markdown(words(rows, LITERAL))}\n{sums(record)}\n\n"
    text += "The fullest device of N: its share of the model's parameters by method, and the K and V it keeps.\n\n"
    text += f"{markdown(readable(fullest(record, table, TICKS)))}\n"
    return Table(table[table.devices.isin(TICKS)], f"{text}{reconciled(record)} {record['note']}\n")


def figure(record: dict[str, Any], table: pd.DataFrame, column: str) -> Figure:
    """The fullest device's share of the parameters (`model_share`), or its K and V (`kv_bytes`), against N.

    A panel a model that is deep enough to be cut into `DEEP` stages. Methods whose devices all hold everything are
    one line.
    """
    most = fullest(record, table, TICKS)
    models = [name for name, facts in record["models"].items() if facts["layers"] >= DEEP]
    kept = column == "kv_bytes"
    methods = [method for method in ordered(table.method) if method in WITH_KV or not kept]
    level = [method for method in methods if method not in SLOPED]
    sloped = [method for method in methods if method in SLOPED]
    sheet = Sheet(1, len(models), 2.9, 2.7, left=0.85, across=0.75, head=0.86)
    with mpl.rc_context({**RC, "axes.grid.axis": "both", "axes.titlesize": 9}):
        drawn, (row,) = sheet.open()
        for axes, model in zip(row, models, strict=True):
            facts, rows = record["models"][model], most[most.model == model]
            axes.set_title(f"{model}\n{facts['layers']} layers, {short(facts['parameters'])} parameters")
            whole = float(rows.kv_bytes.max()) / MIB if kept else 1.0  # of all layers: N = 1
            halving(axes, whole, three if kept else lambda share: f"{100 * share:.3g} %")
            axes.set_xlabel("devices N")
            for group in [level, *([method] for method in sloped)]:
                line = rows[rows.method.isin(group)].groupby("devices")[column].max() / (MIB if kept else 1)
                axes.plot(line.index, line, **look(group[0]))
        row[0].set_ylabel("K and V, MiB" if kept else "share of the parameters")
        names = [label(method) for method in level]
        lines = [Line2D([], [], label=f"{', '.join(names)}: all of it", **look(level[0]))] if level else []
        lines += [Line2D([], [], label=label(method), **look(method)) for method in sloped]
        lines.append(Line2D([], [], label="1/N", **REFERENCE))
        what = "K and V kept between steps" if kept else "parameters"
        note = f"Counted at N = {', '.join(map(str, TICKS))}, where a method can be cut so. Both axes are logarithmic. "
        note += f"Source: results/{PARAMS}."
        sheet.close(drawn, f"How much of the {what} the fullest of N devices holds", lines, note)
    return drawn


def look(method: str) -> dict[str, Any]:
    """A method's line; that of the methods that hold everything is grey."""
    colour = COLOUR[method] if method in SLOPED else "#555555"
    line = {"color": colour, "marker": MARKER[method] if method in SLOPED else "o", "linewidth": 1.4}
    return line | {
        "markersize": 9 if method == PIPED else 5,
        "markeredgewidth": 0.5,
        "markeredgecolor": "white",
    }


def halving(axes: Axes, full: float, write: Callable[[float], str]) -> None:
    """Both axes logarithmic: N as machines have it, `full` and its halves; the dashed line is full/N."""
    axes.set_xscale("log", base=2)
    axes.set_yscale("log", base=2)
    axes.set_xticks(TICKS, [str(n) for n in TICKS])
    axes.set_yticks([full / n for n in TICKS], [write(full / n) for n in TICKS])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_minor_locator(NullLocator())
    axes.set_ylim(full / 20, full * 1.35)
    axes.plot(TICKS, [full / n for n in TICKS], **REFERENCE)


def short(count: int) -> str:
    """88 k, 7.6 M, 611 M, 1.04 B."""
    for unit, name in ((1e9, "B"), (1e6, "M")):
        if count >= unit:
            return f"{count / unit:.3g} {name}"
    return f"{count / 1e3:.3g} k"
