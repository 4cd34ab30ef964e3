"""Two folders of runs, or two records of one kind, side by side: ``python -m analysis compare A B [--out DIR]``."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from rich.console import Console
from rich.table import Table

from analysis.presentation import tables
from analysis.presentation.columns import Column, Shown, column, words
from analysis.presentation.terminal import make_console
from analysis.records.files import write_text
from analysis.runs.pairs import RUNS, Comparison, joined


def compare(a: Path, b: Path, out: Path | None = None, console: Console | None = None) -> list[Path]:
    """Print both side by side; with `out` write compare.csv and .md there. Raises ValueError for a bad folder."""
    console = console or make_console()
    found = joined(a, b)
    rows, kind = found.rows, found.kind
    same = [key for key in kind.keys if key != "method" and rows[key].nunique(dropna=False) == 1]
    text = readable(found, [key for key in kind.keys if key not in same])
    heads = [f"A: {a}", f"B: {b}"]
    if same:
        shared = words(rows.head(1), same)
        heads.append(f"in every row: {', '.join(f'{name} {shared[name][0]}' for name in shared)}")
    lines = [*heads, *equal_rows(found), *(f"warning: {warning}" for warning in found.warnings)]
    for line in lines:
        console.print(line, highlight=False, markup=False)
    table = Table(box=None, padding=(0, 1), collapse_padding=True, pad_edge=False)
    narrow = {one.title: f"{one.heading}\n{one.unit}" for one in kind.values if one.unit}
    for at, heading in enumerate(text.columns):
        left = at == 0 or heading == "status"
        table.add_column(narrow.get(heading, heading), justify="left" if left else "right", no_wrap=not left)
    for row in text.to_numpy().tolist():
        table.add_row(*row)
    console.print(table)
    return [] if out is None else save(found, text, lines, out)


def _differs(found: Comparison) -> pd.Series:
    apart = pd.Series(False, index=found.rows.index)
    for name in found.kind.shown:
        one, other = found.rows[f"{name}_a"], found.rows[f"{name}_b"]
        apart |= ~((one == other).fillna(False) | (one.isna() & other.isna())).astype(bool)
    return apart


def equal_rows(found: Comparison) -> list[str]:
    """Of records with hundreds of rows only those that differ are shown; this says how many are not."""
    count = int((~_differs(found)).sum())
    return [] if found.kind is RUNS or not count else [f"{count} of {len(found.rows)} rows are equal"]


def readable(found: Comparison, keys: list[str]) -> pd.DataFrame:
    """To read: two lines a row, A above B; a run that only one of them has is a line of dashes in the other."""
    rows = found.rows if found.kind is RUNS else found.rows[_differs(found)]
    sides = []
    for side in "ab":
        values = {name: rows[f"{name}_{side}"] for name in found.kind.shown}
        ratio = rows.ratio if side == "b" and found.kind.seconds else float("nan")
        sides.append(rows[keys].assign(**values, side=side.upper(), ratio=ratio))
    columns: Shown = [*keys, Column("side", "in"), *found.kind.values]
    if found.kind.seconds and found.rows.ratio.notna().any():
        columns.insert(len(keys) + 2, column("ratio", heading="B / A"))
    return words(pd.concat(sides).sort_index(kind="stable"), columns)


def save(found: Comparison, text: pd.DataFrame, lines: list[str], folder: Path) -> list[Path]:
    """compare.csv, a row a pair in raw units, and compare.md, as printed."""
    folder.mkdir(parents=True, exist_ok=True)
    csv, md = folder / "compare.csv", folder / "compare.md"
    found.rows.drop(columns=["again", "place_a", "place_b"]).to_csv(csv, index=False, lineterminator="\n")
    plain = text.rename(columns=lambda heading: heading.replace("\n", " "))
    write_text(md, "".join(f"{line}  \n" for line in lines) + "\n" + tables.markdown(plain))
    return [csv, md]
