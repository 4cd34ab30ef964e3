"""Two folders of runs, or two records of one kind, side by side: ``python -m analysis compare A B [--out DIR]``."""

from __future__ import annotations

import sys
from pathlib import Path

import pandas as pd
from rich.console import Console
from rich.table import Table

from analysis import tables
from analysis.files import write_text
from analysis.pairs import NOTHING, RUNS, Comparison, joined
from analysis.style import label

RATIO = "B / A"


def compare(a: Path, b: Path, out: Path | None = None, console: Console | None = None) -> list[Path]:
    """Print both side by side; with `out` write compare.csv and .md there. Raises ValueError for a bad folder."""
    console = console or (Console() if sys.stdout.isatty() else Console(width=160))
    found = joined(a, b)
    same = {column: words for column, words in _settings(found).items() if words is not None}
    text = as_text(found, [column for column in found.kind.keys if column not in same])
    heads = [f"A: {a}", f"B: {b}"]
    if same:
        told = [f"{found.kind.keys[column]} {words}" for column, words in same.items()]
        heads.append(f"in every row: {', '.join(told)}")
    lines = [*heads, *equal_rows(found), *(f"warning: {words}" for words in found.warnings)]
    for line in lines:
        console.print(line, highlight=False, markup=False)
    console.print(_rich(text))
    return [] if out is None else save(found, text, lines, out)


def _settings(found: Comparison) -> dict[str, str | None]:
    """The keys that are the same in every row, which need no column: key -> its value; None where they differ."""
    values = {column: list(found.rows[column].unique()) for column in found.kind.keys if column != "method"}
    return {column: each[0] if len(each) == 1 else None for column, each in values.items()}


def _differs(found: Comparison) -> pd.Series:
    apart = pd.Series(False, index=found.rows.index)
    for column in found.kind.values:
        one, other = found.rows[f"{column}_a"], found.rows[f"{column}_b"]
        apart |= ~((one == other).fillna(False) | (one.isna() & other.isna())).astype(bool)
    return apart


def equal_rows(found: Comparison) -> list[str]:
    """Of records with hundreds of rows only those that differ are shown; this says how many are not."""
    count = int((~_differs(found)).sum())
    return [] if found.kind is RUNS or not count else [f"{count} of {len(found.rows)} rows are equal"]


def as_text(found: Comparison, keys: list[str]) -> pd.DataFrame:
    """Two lines a row, A above B; a run that only one of them has is a line of dashes in the other."""
    rows = found.rows if found.kind is RUNS else found.rows[_differs(found)]
    told = found.kind.seconds is not None and bool(found.rows.ratio.notna().any())
    lines = []
    for row in rows.to_dict("records"):
        for side in "ab":
            words = [label(row[key]) if key == "method" else row[key] for key in keys]
            cells = dict(zip((found.kind.keys[key] for key in keys), words, strict=True))
            cells |= {"in": side.upper()}
            for column, (heading, write) in found.kind.values.items():
                value = row[f"{column}_{side}"]
                cells[heading] = NOTHING if pd.isna(value) else write(value)
                if column == found.kind.seconds and told:
                    cells[RATIO] = NOTHING if side == "a" or pd.isna(row["ratio"]) else f"{row['ratio']:.3f}"
            lines.append(cells)
    return pd.DataFrame(lines)


def _rich(text: pd.DataFrame) -> Table:
    table = Table(box=None, padding=(0, 1), collapse_padding=True, pad_edge=False)
    for at, heading in enumerate(text.columns):
        words = at == 0 or heading == "status"
        table.add_column(heading, justify="left" if words else "right", no_wrap=not words)
    for row in text.to_numpy().tolist():
        table.add_row(*row)
    return table


def save(found: Comparison, text: pd.DataFrame, lines: list[str], folder: Path) -> list[Path]:
    """compare.csv, a row a pair in raw units, and compare.md, as printed."""
    folder.mkdir(parents=True, exist_ok=True)
    csv, md = folder / "compare.csv", folder / "compare.md"
    found.rows.drop(columns=["again", "place_a", "place_b"]).to_csv(csv, index=False, lineterminator="\n")
    plain = text.rename(columns=lambda heading: heading.replace("\n", " "))
    write_text(md, "".join(f"{line}  \n" for line in lines) + "\n" + tables.markdown(plain))
    return [csv, md]
