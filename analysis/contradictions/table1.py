"""Cells of Table 1 for which its versions print different formulas."""

from __future__ import annotations

from collections.abc import Iterator

from analysis.contradictions.finding import Finding
from analysis.rows import Rows
from analysis.table1 import Units
from analysis.versus.table1 import COLUMNS, COSTS, DEVICES, NOTHING

VERSIONS = "versions of Table 1"


def versions(rows: Rows, layers: int) -> Iterator[Finding]:
    """One finding a cell; in numbers for a model of so many layers."""
    units = Units(a=1.0, p=1.0, layers=layers, n=DEVICES, m=DEVICES)
    cells: dict[tuple[str, str], dict[str, list[tuple[str, str]]]] = {}
    for row_id, row in rows.items():
        for column in COLUMNS if row_id.startswith("table1") else ():
            # `(2/N)A=KV/N` says one thing twice; `yes*` and `stale-` are words with a footnote.
            text = row[column].rpartition("=")[2].strip("*- ")
            if text not in NOTHING:
                cells.setdefault((row["method"], column), {}).setdefault(text, []).append(
                    (row["version"], row_id)
                )
    for (method, column), texts in cells.items():
        if len(texts) < 2:
            continue
        costs = [COSTS[text](units) for text in texts if text in COSTS]
        known = len(costs) > 1 and min(costs) > 0
        yield Finding(
            kind=VERSIONS,
            what=f"{method}, {column.replace('_', ' ')}",
            rows=tuple(row_id for each in texts.values() for _, row_id in each),
            printed="; ".join(
                f"{text} ({', '.join(version for version, _ in each)})" for text, each in texts.items()
            ),
            expected="one formula",
            size=max(costs) / min(costs) - 1 if known else None,
            how=f"largest over smallest with A = p*hs, N=M={DEVICES}, L={layers}"
            if known
            else "no ratio: one is 0, or no formula",
        )
