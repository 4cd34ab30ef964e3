"""What asynchrony buys: each displaced method with W = 1, and with all its steps synchronous (W = S), as predicted."""

from __future__ import annotations

from typing import Any

import matplotlib as mpl
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from analysis.paper.panels import CASE, beside, predicted, published, short_commit
from analysis.presentation import tables
from analysis.presentation.columns import Shown, column, flags, shares, signed_percent, three, words
from analysis.presentation.sheet import Sheet, blank
from analysis.presentation.style import COLOUR, GREY, MARKER, RC, label, pale
from analysis.records.committed import OVERLAP

KEYS = ["model", "steps", "cluster", "resolution", "method", "devices"]
WRONG = "#B2182B"
PERFECT: dict[str, Any] = {"color": GREY, "linewidth": 0.9, "linestyle": (0, (4, 3))}


def compared(record: dict[str, Any]) -> pd.DataFrame:
    """One row a case: seconds as planned (`latency_s`), with every step synchronous, and what the difference is.

    `saved` is of the synchronous seconds; `bound_s` is serial / N. A method without a warm-up waits in every step.
    `published_s` is the published latency of that W, of a source in doubt only where there is no other; it
    `contradicts` the overlap where it is nearer, as a ratio, to the synchronous seconds.
    """
    table = predicted(record)
    every = table[(table.warmup == table.steps) | table.warmup.isna()]
    few = table[(table.warmup != table.steps) | table.warmup.isna()]
    kept = [*KEYS, "serial_s", "status", "warmup", "patches", "predicted_latency_s"]
    both = few[kept].merge(
        every[[*KEYS, "patches", "predicted_latency_s"]], on=KEYS, how="left", suffixes=("", "_synchronous")
    )
    names = {"predicted_latency_s": "latency_s", "predicted_latency_s_synchronous": "synchronous_s"}
    both = both.rename(columns=names)
    both["saved"] = (1 - both.latency_s / both.synchronous_s).where(both.warmup.notna())
    both["bound_s"] = both.serial_s / both.devices
    both = both.merge(printed(record), on=[*CASE, "warmup"], how="left")
    middle = (both.latency_s * both.synchronous_s) ** 0.5
    both["contradicts"] = ((both.published_s > middle) & both.warmup.notna()).where(both.published_s.notna())
    return both.assign(of_bound=both.bound_s / both.latency_s)


def printed(record: dict[str, Any]) -> pd.DataFrame:
    """One published latency a displaced case, those of sound sources first."""
    found = published(record)
    found = found[found.published_s.notna() & found.warmup.notna()]
    found = found.sort_values("role", key=lambda roles: roles == "doubt", kind="stable")
    return found.drop_duplicates([*CASE, "warmup"])[[*CASE, "warmup", "published_s", "row_id"]]


SHOWN: Shown = [
    *("cluster", "resolution", "method", "devices", "patches"),
    column("synchronous_s", format=three),
    "warmup",
    column("latency_s", heading="with that W", format=three),
    *shares(saved="saved"),
    column("bound_s", heading="serial / N", format=three),
    *shares(of_bound="of that bound"),
    column("published_s", format=three),
    "row_id",
    *flags(contradicts="contradicts"),
]


def tabulate(record: dict[str, Any]) -> tables.Table:
    """Seconds of each case with every step synchronous, and with its own W."""
    table = compared(record)
    models = ", ".join(
        f"{model}, {steps} steps"
        for model, steps in dict.fromkeys(zip(table.model, table.steps, strict=True))
    )
    text = f"**Predicted**, not measured: {models}. Seconds of one picture; M is the fastest at that W."
    return tables.table(table.drop(columns="serial_s"), words(table, SHOWN), text)


def figure(record: dict[str, Any]) -> Figure:
    """A row a cluster, a column a resolution; of each method the synchronous bar above the other."""
    table = compared(record)
    table = table[table.method != "serial"]
    clusters, sizes = list(record["clusters"]), sorted(set(table.resolution))
    methods = list(dict.fromkeys(table.method))
    warmups = sorted(set(table.warmup.dropna()))
    sheet = Sheet(len(clusters), len(sizes), 2.35, 0.42 * len(methods) + 0.1, across=1.45, right=1.4)
    with mpl.rc_context({**RC, "axes.grid.axis": "x"}):
        drawn, grid = sheet.open()
        for axes_row, cluster in zip(grid, clusters, strict=True):
            for axes, size in zip(axes_row, sizes, strict=True):
                part = table[(table.cluster == cluster) & (table.resolution == size)]
                axes.set_title(f"{cluster}, {size} px")
                if part.empty:
                    blank(axes, "not planned")
                    continue
                panel(axes, part, methods)
                names = [label(method) for method in methods]
                axes.set_yticks(range(len(methods)), names if axes is axes_row[0] else [""] * len(methods))
        for axes in grid[-1]:
            axes.set_xlabel("seconds")
        first, devices = table.iloc[0], max(table.devices)
        title = f"What asynchrony buys, predicted: {first.model}, {first.steps} steps, N = {devices}"
        sheet.close(drawn, title, handles(warmups), note(record, warmups))
    return drawn


def panel(axes: Axes, rows: pd.DataFrame, methods: list[str]) -> None:
    """Two bars a method and serial / N; right of the panel seconds, and what is saved."""
    for at, method in enumerate(methods):
        for row in rows[rows.method == method].to_dict("records"):
            alone = pd.isna(row["warmup"])
            both = {"synchronous_s": -0.19, "latency_s": 0.19}
            for key, aside in ({"latency_s": 0.0} if alone else both).items():
                value = row[key]
                if pd.isna(value):
                    axes.text(0, at + aside, " predicted: out of memory", va="center", fontsize=7)
                    continue
                axes.barh(
                    at + aside, value, height=0.36, **look(COLOUR[method], alone or key == "synchronous_s")
                )
                saved = "" if alone or key == "synchronous_s" else f"  {signed_percent(-row['saved'])}"
                saved = saved.replace("-", "−")
                axes.text(1.02, at + aside, three(value) + saved, **beside(axes))
            if pd.notna(row["published_s"]):
                axes.plot(row["published_s"], at + 0.19, **POINT | {"marker": MARKER[method]})
            if row["contradicts"] is True:
                axes.text(
                    1.37,
                    at + 0.19,
                    f"✗ {three(row['published_s'])}",
                    **beside(axes),
                    color=WRONG,
                    weight="bold",
                )
    axes.axvline(rows.bound_s.iloc[0], **PERFECT)
    axes.set_ylim(len(methods) - 0.45, -0.55)
    axes.tick_params(axis="y", length=0)


POINT: dict[str, Any] = {"marker": "s", "markersize": 6.5, "linestyle": "none", "markeredgecolor": "black"}
POINT |= {"markerfacecolor": "white", "zorder": 4}


def look(colour: str, synchronous: bool) -> dict[str, Any]:
    """Synchronous pale and hatched, else full."""
    shade = {"facecolor": pale(colour, 0.65), "hatch": "////"} if synchronous else {"facecolor": colour}
    return {"edgecolor": colour, "linewidth": 0.7} | shade


def handles(warmups: list[int]) -> list[Artist]:
    words = ", ".join(map(str, warmups))
    return [
        Patch(label="every step synchronous (W = S)", **look(GREY, True)),
        Patch(label=f"W = {words}: the other steps overlap", **look(GREY, False)),
        Line2D([], [], label="serial / N, the bound", **PERFECT),
        Line2D([], [], label="published", **POINT),
        Line2D(
            [], [], label="contradicted by the published seconds", marker="$✗$", color=WRONG, linestyle="none"
        ),
    ]


def note(record: dict[str, Any], warmups: list[int]) -> str:
    """What is compared, and from which record."""
    return (
        "All predicted by the plan of each method's own code at full size, one picture; PipeFusion with the fastest M "
        f"of each W. Right of each panel: seconds, and what W = {', '.join(map(str, warmups))} takes off those of "
        "W = S. ✗: the published latency of this setting is nearer to every step synchronous than to the overlap that "
        "is predicted. In a synchronous step the stages of PipeFusion run one after another, as in every step of the "
        "synchronous pipeline. "
        f"Source: results/{OVERLAP}, {short_commit(record)}."
    )
