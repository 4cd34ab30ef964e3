"""Table 1 of the paper in one full-size case: each formula, what it comes to, and what was counted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from analysis import tables
from analysis.accounting import DEVICES
from analysis.evidence.published import METHODS, TABLE1, Published, read
from analysis.style import label
from analysis.table1 import CLAIMS, FORMULAS, READING, VERSION, units_of
from analysis.tables import as_text, mib

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
    chosen = cases[(cases.status == "ok") & (cases.model == MODEL) & (cases.resolution == PIXELS)]
    chosen = chosen[chosen.devices == DEVICES]
    printed = {
        row["method"]: row for row in read(published / f"{TABLE1}.csv").values() if row["version"] == VERSION
    }
    rows = []
    for what in CLAIMS:
        for name, method in METHODS.items():
            mine = chosen[chosen.method == method].sort_values("warmup", ascending=False)
            # Another warm-up changes nothing but the activations.
            mine = mine if what == "activations" else mine.head(1)
            first = {"quantity": what, "method": method}
            rows += [first | cost(record, case, printed[name], what) for case in mine.to_dict("records")]
    return pd.DataFrame(rows).astype({"warmup": "Int64", "counted_bytes": "Int64"})


def cost(record: dict[str, Any], case: dict[Any, Any], printed: Published, what: str) -> dict[str, Any]:
    """One cell of Table 1 in this case; `(2/N)A=KV/N` says the same twice, of which the second is evaluated."""
    column, ours = CLAIMS[what]
    formula = printed[column].rpartition("=")[2]
    evaluated = FORMULAS[formula](units_of(record["models"][MODEL], case))
    return {
        "warmup": case["warmup"],
        "formula": formula,
        "overlap": printed["overlap"].rstrip("*") if what == "sent a step" else None,
        "formula_bytes": evaluated,
        "counted_bytes": case[ours],
        "ratio": case[ours] / evaluated,
    }


def save(found: pd.DataFrame, record: dict[str, Any], folder: Path, name: str) -> list[Path]:
    """NAME.csv, all quantities; NAME.md, a table for each of them."""
    csv, md = tables.save(found, pd.DataFrame(), folder, name)
    facts = record["models"][MODEL]
    text = f"**{MODEL}, {PIXELS} px, N = {DEVICES}** (p = {facts['tokens'][str(PIXELS)]} tokens, "
    text += f"hs = {facts['hidden']}, L = {facts['layers']}, {facts['parameters']:,} parameters, {facts['dtype']}, "
    text += "both branches). Counted on the fullest device.\n"
    for what, rows in found.groupby("quantity", sort=False):
        text += f"\n**{HEADINGS[str(what)]}**\n\n{tables.markdown(words(rows))}"
    md.write_text(f"{text}\n{WHY} {READING.split('. ', 1)[1]}\n")
    return [csv, md]


def words(rows: pd.DataFrame) -> pd.DataFrame:
    """One quantity, a row a method; W where there are several."""
    several = rows.method.duplicated(keep=False)
    names = [
        label(row["method"]) + (f", W={row['warmup']}" if more else "")
        for row, more in zip(rows.to_dict("records"), several, strict=True)
    ]
    columns: tables.Columns = {
        "name": ("method", str),
        "formula": ("Table 1", str),
        "formula_bytes": ("Table 1, MiB", mib),
        "counted_bytes": ("counted, MiB", lambda value: mib(value) if value else "none kept"),
        "ratio": ("counted / Table 1", lambda value: f"{value:.2f}" if value else "–"),
    }
    if rows.overlap.notna().any():
        columns["overlap"] = ("overlaps with computing, as printed", str)
    return as_text(rows.assign(name=names), columns)
