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

from analysis import accounting, tables
from analysis.columns import MIB, column, mib, wide, words
from analysis.study import load_study
from analysis.style import COLOUR, MARKER, ORDER, RC, in_order, label

PIPED = "pipefusion"
WITH_KV = ["distrifusion", "pipefusion"]
"""The methods that keep K and V between steps; the others have none to show."""
TICKS = [1, 2, 4, 8, 16]
SLOPED = ["tensor", PIPED]
"""The methods whose share falls with N; the others all hold the whole model."""
LITERAL = [
    "rank",
    "layers",
    "param_bytes",
    "model_share",
    "block_share",
    "replicated_param_bytes",
    "kv_bytes",
]
"""What is shown of the case that is told device by device."""
REFERENCE: dict[str, Any] = {"color": "#555555", "linewidth": 0.8, "linestyle": (0, (4, 3))}


def load(folder: str | Path) -> tuple[dict[str, Any], pd.DataFrame]:
    """The record (sizes of the models, totals of each case) and one row per device."""
    record = load_study(Path(folder))
    return record.facts | {"cases": accounting.cases(record.rows)}, record.rows.drop(
        columns=["key", *accounting.TOTALS]
    )


def literal(record: dict[str, Any], table: pd.DataFrame) -> pd.DataFrame:
    """The rows of the one case that is told device by device, PipeFusion on the model the record names."""
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


def methods_of(table: pd.DataFrame) -> list[str]:
    """The methods of the record in the order that they always have."""
    found = list(table.method.unique())
    return [method for method in ORDER if method in found]


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


def save(record: dict[str, Any], table: pd.DataFrame, folder: Path, name: str) -> list[Path]:
    """NAME.csv, one row a device of the N shown; NAME.md, the literal case and the fullest device of every model."""
    folder.mkdir(parents=True, exist_ok=True)
    csv, md = folder / f"{name}.csv", folder / f"{name}.md"
    table[table.devices.isin(TICKS)].to_csv(csv, index=False, lineterminator="\n")
    rows, case = literal(record, table), record["literal"]
    layers = record["models"][case["model"]]["layers"]
    text = f"{case['model']}: {layers} layers on {case['devices']} devices, {label(PIPED)}.\n\n"
    text += f"{tables.markdown(words(rows, LITERAL))}\n{sums(record)}\n\n"
    text += "The fullest device of N: its share of the model's parameters by method, and the K and V it keeps.\n\n"
    text += f"{tables.markdown(readable(fullest(record, table, TICKS)))}\n"
    md.write_text(f"{text}{reconciled(record)} {record['note']}\n")
    return [csv, md]


def figure(record: dict[str, Any], table: pd.DataFrame) -> Figure:
    """A column a model: above, the fullest device's share of the parameters against N; below, its K and V."""
    done = table[table.status == "ok"]
    most = done.groupby(["model", "method", "devices"], as_index=False)[["model_share", "kv_bytes"]].max()
    models, methods = list(record["models"]), methods_of(table)
    with mpl.rc_context({**RC, "axes.grid.axis": "both", "axes.titlesize": 9}):
        sheet = Figure(figsize=(2.45 * len(models) + 0.5, 5.4), layout="constrained")
        grid = sheet.subplots(2, len(models), sharex=True, squeeze=False)
        for at, model in enumerate(models):
            facts, rows = record["models"][model], most[most.model == model]
            above, below = grid[0][at], grid[1][at]
            above.set_title(f"{model}\n{facts['layers']} layers, {short(facts['parameters'])} parameters")
            whole = float(rows.kv_bytes.max()) / MIB  # of all layers: N = 1
            halving(above, 1.0, lambda share: f"{100 * share:.3g} %")
            halving(below, whole, lambda value: f"{value:.4g}")
            below.set_xlabel("devices N")
            for method in methods:
                line = rows[rows.method == method].sort_values("devices")
                above.plot(line.devices, line.model_share, **look(method, methods))
                if method in WITH_KV:
                    below.plot(line.devices, line.kv_bytes / MIB, **look(method, methods))
        grid[0][0].set_ylabel("fullest device's share of\nthe model's parameters")
        grid[1][0].set_ylabel("K and V kept between steps,\nfullest device, MiB")
        lines = [Line2D([], [], label=label(method), **look(method, methods)) for method in methods]
        lines.append(Line2D([], [], label="1/N", **REFERENCE))
        sheet.legend(handles=lines, loc="outside lower center", ncols=len(lines))
    return sheet


def look(method: str, methods: list[str]) -> dict[str, Any]:
    """A method's line. Of those that hold everything the first ones are wider, and are seen under the others."""
    level = [other for other in methods if other not in SLOPED]
    under = len(level) - 1 - level.index(method) if method in level else 0
    size = 6.5 if method == PIPED else 4.5 + 1.7 * under
    line = {"color": COLOUR[method], "marker": MARKER[method], "linewidth": 1.2 + 1.7 * under}
    return line | {"markersize": size, "markeredgewidth": 0.5, "markeredgecolor": "white"}


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
