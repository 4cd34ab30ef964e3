"""The record of a study: what record.json says, and one table of the rows of all its cells."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.presentation.columns import typed
from analysis.records.record import RECORD, ROWS, load_record
from analysis.records.rows import read_rows


@dataclass(frozen=True)
class Record:
    """`facts` is the content of record.json, `rows` the table of rows.parquet, its columns of the registry's kinds."""

    facts: dict[str, Any]
    rows: pd.DataFrame


def load_study(folder: Path) -> Record:
    """The record in a study's directory. Raises OSError, and ValueError when it is broken or newer."""
    facts = load_record(folder / RECORD)
    try:
        return Record(facts, typed(read_rows(folder / ROWS)))
    except KeyError as error:
        raise ValueError(f"{folder / ROWS} is not whole ({error})") from None


def plain_rows(rows: pd.DataFrame) -> list[dict[str, Any]]:
    """A table's rows as plain Python: None where there is no value."""
    columns = {}
    for name, column in rows.items():
        cells = zip(column.astype(object), column.notna(), strict=True)
        columns[str(name)] = [value if known else None for value, known in cells]
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def pixels(row: Mapping[str, Any]) -> str:
    """The size of a row's pictures: one number where they are square."""
    return f"{row['height']}" if row["height"] == row["width"] else f"{row['height']} x {row['width']}"
