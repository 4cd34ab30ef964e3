"""How a table is written: csv in raw units, md to read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pandas as pd

from analysis.columns import MIB, NOTHING, mib, percent, small

__all__ = ["MIB", "Columns", "as_text", "markdown", "mib", "percent", "save", "small"]

Columns = dict[str, tuple[str, Callable[..., str]]]
"""Column of a table -> its heading, and how a cell is written."""
HERE = ["path", "host", "pid", "ranks"]
"""Columns of no csv: paths, hosts and process numbers say where a run was; `ranks` is N and the product in words."""


def markdown(text: pd.DataFrame) -> str:
    """A table of strings as GitHub markdown; the first column to the left, the others to the right."""
    rows = [list(text.columns), ["---"] + ["---:"] * (len(text.columns) - 1), *text.to_numpy().tolist()]
    return "".join(f"| {' | '.join(cell.replace('|', '/') for cell in row)} |\n" for row in rows)


def save(table: pd.DataFrame, text: pd.DataFrame, folder: str | Path, name: str) -> list[Path]:
    """Write NAME.csv (raw numbers in bytes and seconds) and NAME.md (words)."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    csv, md = folder / f"{name}.csv", folder / f"{name}.md"
    table.drop(columns=HERE, errors="ignore").to_csv(csv, index=False, lineterminator="\n")
    md.write_text(markdown(text))
    return [csv, md]


def as_text(table: pd.DataFrame, columns: Columns) -> pd.DataFrame:
    """Columns with a heading and a way to write a cell; a cell without a value is a dash, never a zero."""
    cells = {}
    for key, (heading, write) in columns.items():
        cells[heading] = [NOTHING if pd.isna(cell) else write(cell) for cell in table[key]]
    return pd.DataFrame(cells)
