"""Tables on the terminal."""

from __future__ import annotations

import sys

import pandas as pd
from rich.console import Console
from rich.table import Table


def make_console() -> Console:
    """The terminal; where there is none, lines long enough that no table is folded."""
    return Console() if sys.stdout.isatty() else Console(width=400)


def rich_table(text: pd.DataFrame, title: str | None = None) -> Table:
    """A table of words for the terminal; the first column to the left, numbers to the right, reasons folded."""
    table = Table(title=title, title_justify="left")
    for at, heading in enumerate(text.columns):
        status = heading == "status"
        table.add_column(
            heading,
            justify="left" if at == 0 or status else "right",
            overflow="fold",  # in a narrow terminal a number goes over two lines rather than lose digits
            max_width=60 if status else None,
        )
    for row in text.to_numpy().tolist():
        table.add_row(*row)
    return table
