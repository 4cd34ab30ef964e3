"""How a table is written: csv in raw units, md to read."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import pandas as pd

HERE = ["path", "host", "pid", "ranks"]
"""Columns of no csv: paths, hosts and process numbers say where a run was; `ranks` is N and the product in words."""


class Table(NamedTuple):
    """A table as committed: `rows` (bytes, seconds) are NAME.csv, where there are any, and `text` is NAME.md."""

    rows: pd.DataFrame | None
    text: str
    suffix: str = ""

    def write(self, folder: Path, name: str) -> list[Path]:
        """The files written; NAME ends in `suffix`."""
        folder.mkdir(parents=True, exist_ok=True)
        csv, md = (folder / f"{name}{self.suffix}.{kind}" for kind in ("csv", "md"))
        if self.rows is not None:
            self.rows.drop(columns=HERE, errors="ignore").to_csv(csv, index=False, lineterminator="\n")
        md.write_text(self.text)
        return [md] if self.rows is None else [csv, md]


def table(rows: pd.DataFrame, words: pd.DataFrame, before: str = "", after: str = "") -> Table:
    """Raw rows, and as text a table of words with what stands before and after it."""
    parts = (before, markdown(words), after)
    return Table(rows, "\n".join(f"{part.strip()}\n" for part in parts if part))


def markdown(text: pd.DataFrame) -> str:
    """A table of strings as GitHub markdown; the first column to the left, the others to the right."""
    rows = [list(text.columns), ["---"] + ["---:"] * (len(text.columns) - 1), *text.to_numpy().tolist()]
    return "".join(f"| {' | '.join(cell.replace('|', '/') for cell in row)} |\n" for row in rows)
