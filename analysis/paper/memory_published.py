"""Published peaks of memory beside the predicted ones.

Published peaks hold the text encoders too, which are not modelled here. They are the same for every method of a source,
so what is compared is the difference to one device: published peak less `Original`'s, predicted peak less serial's.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib as mpl
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from analysis.evidence.published import OURS, read
from analysis.paper.memory import named, peaks
from analysis.paper.panels import beside, short_commit
from analysis.predicted.points import marker
from analysis.presentation import tables
from analysis.presentation.columns import Column, Shown, words
from analysis.presentation.sheet import Sheet, blank
from analysis.presentation.style import COLOUR, GREY, RC, ordered, pale
from analysis.records.committed import LATENCY

GB = 10**9
PUBLISHED = "published/memory.csv"


def published(path: Path) -> pd.DataFrame:
    """The published peaks of one method each, in GB as printed (missing where it is `OOM`), and less `Original`'s."""
    rows = [
        {
            "row_id": row_id,
            "source": row["source"],
            "model": row.model,
            "resolution": row.px,
            "method": OURS[row["method"]],
            "printed_method": row["method"],
            "published_gb": None if row["value"] == "OOM" else float(row["value"]),
        }
        for row_id, row in read(path).items()
        if row["metric"].endswith("memory") and row["method"] in OURS
    ]
    table = pd.DataFrame(rows).astype({"published_gb": float})
    cell = ["source", "model", "resolution"]
    alone = table[table.method == "serial"].set_index(cell).published_gb.rename("original_gb")
    table = table.join(alone, on=cell)
    return table.assign(published_more_gb=table.published_gb - table.original_gb)


def joined(record: dict[str, Any], path: Path) -> pd.DataFrame:
    """Every published peak with the predicted one of its method, each less that of one device."""
    ours = peaks(record)
    alone = ours[ours.method == "serial"].set_index(["model", "resolution"]).peak_bytes.rename("serial_bytes")
    ours = ours.join(alone, on=["model", "resolution"])
    ours["predicted_more_gb"] = (ours.peak_bytes - ours.serial_bytes) / GB
    theirs = published(path)
    table = theirs.merge(ours, on=["model", "resolution", "method"], how="left")
    return table[table.method != "serial"].reset_index(drop=True)


def tabulate(record: dict[str, Any], path: Path) -> tables.Table:
    """Published and predicted peaks, each less that of one device."""
    table = joined(record, path)
    columns = ["row_id", "model", "resolution", "printed_method", "method", "devices", "patches"]
    columns += ["published_gb", "original_gb", "published_more_gb"]
    columns += ["peak_bytes", "serial_bytes", "predicted_more_gb", "source"]
    whole = dict.fromkeys(["devices", "peak_bytes", "serial_bytes"], "Int64")
    shown: Shown = ["row_id", "model", "resolution", "printed_method", Column("gb", "published GB")]
    shown += [Column("published_more_gb", "less Original's", format=more)]
    shown += [Column("predicted_more_gb", "predicted, less serial's GB", format=more)]
    text = words(table.assign(gb=table.published_gb.astype(object).fillna("OOM")), shown)
    return tables.table(table[columns].astype(whole), text)._replace(suffix="_published")


def more(value: float) -> str:
    """A difference with its sign."""
    return f"{value:+.2f}".replace("-", "−")


def figure(record: dict[str, Any], path: Path) -> Figure:
    """A row a source and model, a column a resolution: more or less than one device holds."""
    table = joined(record, path)
    rows = list(table[["source", "model"]].drop_duplicates().itertuples(index=False, name=None))
    sizes = sorted(set(table.resolution))
    methods = ordered(table.method)
    sheet = Sheet(
        len(rows), len(sizes), 1.9, 0.22 * len(methods) + 0.1, left=1.15, across=1.05, down=0.7, right=0.98
    )
    with mpl.rc_context({**RC, "axes.grid.axis": "x", "axes.titlesize": 9, "xtick.labelsize": 8}):
        drawn, grid = sheet.open()
        for axes_row, (source, model) in zip(grid, rows, strict=True):
            for axes, size in zip(axes_row, sizes, strict=True):
                same = (table.source == source) & (table.model == model) & (table.resolution == size)
                letter = "abcdefgh"[list(dict.fromkeys(table.source)).index(source)]
                axes.set_title(f"{model}, {size} px [{letter}]")
                if not same.any():
                    blank(axes, "not published")
                    continue
                signed(axes, table[same], methods)
                named(axes, methods, axes is axes_row[0])
            axes_row[0].set_xlabel("GB against one device")
        bar = Patch(label="bar: predicted peak less serial's", facecolor=pale(GREY, 0.55), edgecolor=GREY)
        point = Line2D([], [], **(marker("serial", "prediction") | {"color": GREY, "markerfacecolor": GREY}))
        point.set_label("published peak less Original's")
        title = "Memory against one device: predicted and published"
        sheet.close(drawn, title, [bar, point], note(record, table))
    return drawn


def note(record: dict[str, Any], table: pd.DataFrame) -> str:
    """What is compared, and from which records."""
    names = [
        f"[{letter}] {source}"
        for letter, source in zip("abcdefgh", dict.fromkeys(table.source), strict=False)
    ]
    return (
        "Published peaks hold the text encoders too (some perhaps the VAE), predicted ones the transformer alone, so "
        "each is shown less that of one device of its own source. Right of each panel: predicted, published. Predicted "
        f"is in 10^9 bytes, N = {table.devices.max():.0f}; the sources say GB, and not all of them N. Published SP, "
        "which may mix Ulysses and Ring, stands beside Ulysses. "
        f"Published: {'; '.join(names)}; rows of results/{PUBLISHED} named in the table of the same name. "
        f"Predicted: results/{LATENCY}, {short_commit(record)}."
    )


def signed(axes: Axes, rows: pd.DataFrame, methods: list[str]) -> None:
    """Bars to either side of 0, published points on them, both numbers at the right."""
    values = [*rows.predicted_more_gb.dropna(), *rows.published_more_gb.dropna(), 0.0]
    room = 0.08 * (max(values) - min(values))
    axes.set_xlim(min(values) - room, max(values) + room)
    axes.axvline(0, color="black", linewidth=0.8, zorder=2)
    for at, method in enumerate(methods):
        for row in rows[rows.method == method].to_dict("records"):
            colour = COLOUR[method]
            axes.barh(
                at, row["predicted_more_gb"], height=0.74, facecolor=pale(colour, 0.55), edgecolor=colour
            )
            theirs = "OOM" if pd.isna(row["published_gb"]) else more(row["published_more_gb"])
            axes.text(1.03, at, f"{more(row['predicted_more_gb'])}, {theirs}", **beside(axes))
            if not pd.isna(row["published_gb"]):
                axes.plot(row["published_more_gb"], at, **marker(method, "prediction"))
        if not (rows.method == method).any():
            axes.text(1.03, at, "–", color=GREY, **beside(axes))
