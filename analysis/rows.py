"""The published rows in `results/published`, each called FILE:LINE, as in `latency.csv:15` (the header is line 1)."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from pathlib import Path

Row = dict[str, str]
Rows = dict[str, Row]
"""Published rows by FILE:LINE."""


def read_rows(files: Iterable[Path]) -> Rows:
    """The rows of these files, in order."""
    rows: Rows = {}
    for path in files:
        with path.open(newline="", encoding="utf-8") as stream:
            reader = csv.DictReader(stream)
            rows |= {f"{path.name}:{reader.line_num}": row for row in reader}
    return rows
