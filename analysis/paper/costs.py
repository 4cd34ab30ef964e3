"""Table 1 of the paper in one full-size case: each formula, what it comes to, and what was counted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from analysis.evidence.published import METHODS, TABLE1, read
from analysis.memory.accounting import DEVICES
from analysis.memory.table1 import CLAIMS, READING, claims
from analysis.presentation.columns import NOTHING, Column, mib, words
from analysis.presentation.style import label
from analysis.presentation.tables import Table, markdown

MODEL, PIXELS = "pixart_alpha", 1024
HEADINGS = {
    "sent a step": "Communication: bytes sent a step",
    "parameters": "Parameters",
    "K, V": "K, V kept between steps",
    "activations": "Activations",
}
WHY = (
    "A ratio of (N−1)/N is what leaves a device of an all-gather or all-to-all over N devices, an all-reduce being two "
    "of them. Parameters above P/N are copies (AdaLN, embeddings, tensor parallelism's cross-attention) and layers "
    "that N does not divide."
)


def table(record: dict[str, Any], cases: pd.DataFrame, published: Path) -> pd.DataFrame:
    """A row a quantity and method (and W, for activations): the formula, its bytes, the counted bytes, their ratio."""
    chosen = cases[(cases.model == MODEL) & (cases.resolution == PIXELS)]
    found = claims(record, chosen, read(published / f"{TABLE1}.csv"), DEVICES)
    places = [*CLAIMS, *METHODS.values()]
    found = found.sort_values(
        ["what", "method", "warmup"],
        ascending=[True, True, False],
        key=lambda cells: cells if cells.name == "warmup" else cells.map(places.index),
    )
    # Another warm-up changes nothing but the activations.
    found = found[(found.what == "activations") | ~found.duplicated(["what", "method"])]
    found["overlap"] = found.overlap.where(found.what == "sent a step")
    columns = ["what", "method", "warmup", "formula", "overlap", "formula_bytes", "counted_bytes", "ratio"]
    found = found[columns].rename(columns={"what": "quantity"})
    return found.astype({"warmup": "Int64", "counted_bytes": "Int64"})


def tabulate(found: pd.DataFrame, record: dict[str, Any]) -> Table:
    """All quantities; to read, a table for each of them."""
    facts = record["models"][MODEL]
    text = f"**{MODEL}, {PIXELS} px, N = {DEVICES}** (p = {facts['tokens'][str(PIXELS)]} tokens, "
    text += f"hs = {facts['hidden']}, L = {facts['layers']}, {facts['parameters']:,} parameters, {facts['dtype']}, "
    text += "both branches). Counted on the fullest device.\n"
    for what, rows in found.groupby("quantity", sort=False):
        text += f"\n**{HEADINGS[str(what)]}**\n\n{markdown(readable(rows))}"
    return Table(found, f"{text}\n{WHY} {READING.split('. ', 1)[1]}\n")


def readable(rows: pd.DataFrame) -> pd.DataFrame:
    """One quantity, a row a method; W where there are several."""
    several = rows.method.duplicated(keep=False)
    names = [
        label(row["method"]) + (f", W={row['warmup']}" if more else "")
        for row, more in zip(rows.to_dict("records"), several, strict=True)
    ]
    columns = [
        Column("name", "method"),
        Column("formula", "Table 1"),
        Column("formula_bytes", "Table 1, MiB", format=mib),
        Column("counted_bytes", "counted, MiB", format=lambda value: mib(value) if value else "none kept"),
        Column("ratio", "counted / Table 1", format=lambda value: f"{value:.2f}" if value else NOTHING),
        Column("overlap", "overlaps with computing, as printed"),
    ]
    return words(rows.assign(name=names), columns if rows.overlap.notna().any() else columns[:-1])
