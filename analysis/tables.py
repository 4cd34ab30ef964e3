"""How a table is written: csv in raw units, md to read."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from analysis.columns import MIB, mib, percent, small

__all__ = ["MIB", "markdown", "mib", "percent", "save", "small"]

HERE = ["path", "host", "pid", "ranks"]
"""Columns of no csv: paths, hosts and process numbers say where a run was; `ranks` is N and the product in words."""


def markdown(text: pd.DataFrame) -> str:
    """A table of strings as GitHub markdown; the first column to the left, the others to the right."""
    rows = [list(text.columns), ["---"] + ["---:"] * (len(text.columns) - 1), *text.to_numpy().tolist()]
    return "".join(f"| {' | '.join(cell.replace('|', '/') for cell in row)} |\n" for row in rows)


def save(
    table: pd.DataFrame, text: pd.DataFrame, folder: str | Path, name: str, before: str = "", after: str = ""
) -> list[Path]:
    """Write NAME.csv (raw numbers in bytes and seconds) and NAME.md: words, and what stands before and after them."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    csv, md = folder / f"{name}.csv", folder / f"{name}.md"
    table.drop(columns=HERE, errors="ignore").to_csv(csv, index=False, lineterminator="\n")
    parts = (before, markdown(text), after)
    md.write_text("\n".join(f"{part.strip()}\n" for part in parts if part))
    return [csv, md]
