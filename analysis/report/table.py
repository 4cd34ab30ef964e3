"""Cells of text as an HTML table that sorts and filters: numbers are told from words here, once."""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from html import escape
from pathlib import Path

from analysis.report.inline import inline

EMPTY = ("", "–", "-", "nan")
NUMBER = re.compile(r"(?:[-+−]|± ?)?\d[\d,]*(?:\.\d+)?(?:[eE][-+]?\d+)?(?=$|[\s%×(\[]|x\b)|[-−]?∞")
FILTERED_FROM = 12
"""Rows from which a table gets a text filter."""
LONG = 40
"""Characters from which a cell is broken into lines."""
CHOICES = ("verdict", "kind")
"""Columns with few words that a reader chooses by."""
MARKS = {
    "confirmed": ("yes", "✓"),
    "not confirmed": ("no", "✗"),
    "undecided": ("open", "?"),
    "not testable": ("open", "○"),
}


@dataclass(frozen=True)
class Table:
    """A header and rows of as many cells."""

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def read_csv(path: Path) -> Table:
    """A committed CSV, cell by cell."""
    with path.open(newline="") as file:
        header, *rows = list(csv.reader(file))
    return Table(tuple(header), tuple(tuple(row) for row in rows))


def verdict_first(table: Table) -> Table:
    """The same with its verdicts where they are seen on the narrowest screen."""
    at = next((at for at, title in enumerate(table.header) if _is(title, "verdict")), 0)
    header, *rows = [(row[at], *row[:at], *row[at + 1 :]) for row in (table.header, *table.rows)]
    return Table(header, tuple(rows))


def number(text: str) -> float | None:
    """The number that a cell begins with, or None: "12.8 % (150)" is 12.8; "0-11", "8xL40" and a sentence are words."""
    found = NUMBER.match(text)
    if found is None or len(text) > LONG:
        return None
    plain = found[0].replace(",", "").replace("−", "-").replace("∞", "inf").lstrip("± ")
    return float(plain)


def is_numeric(cells: Iterable[str]) -> bool:
    """Whether a column sorts as numbers: more than half of what it says are. Words sort after them then."""
    filled = {cell for cell in cells if cell not in EMPTY}
    return sum(number(cell) is not None for cell in filled) * 2 > len(filled)


def shown(cell: str) -> str:
    """A cell as read: a float with all its digits in four of them."""
    plain = re.fullmatch(r"-?\d+\.\d*(?:e-?\d+)?", cell)
    return f"{float(cell):.4g}" if plain and len(cell) > len(f"{float(cell):.4g}") else cell


def render(table: Table, name: str, raw: bool = False) -> str:
    """The table in a box of its own that scrolls. ``raw`` cells are shortened, and keep their digits for sorting."""
    table = verdict_first(table)
    numeric = [is_numeric(row[at] for row in table.rows) for at in range(len(table.header))]
    head = "".join(map(_heading, table.header, numeric))
    body = "".join(
        f"<tr>{''.join(map(_cell, table.header, row, numeric, [raw] * len(row)))}</tr>\n"
        for row in table.rows
    )
    return (
        f'<div class="sortable">{_controls(table)}'
        f'<div class="box" role="region" tabindex="0" aria-label="{escape(name)}">\n'
        f"<table><thead><tr>{head}</tr></thead>\n<tbody>\n{body}</tbody></table></div></div>\n"
    )


def _heading(title: str, numeric: bool) -> str:
    kind = ' class="number"' if numeric else ""
    return f'<th scope="col"{kind}><button type="button">{inline(title)}</button></th>'


def _cell(title: str, cell: str, numeric: bool, raw: bool) -> str:
    if is_choice(title):
        return f'<td data-value="{escape(choice(cell))}">{verdict(cell)}</td>'
    text = shown(cell) if raw else cell
    value = number(cell) if numeric and cell not in EMPTY else None
    kept = f' data-value="{value!r}"' if value is not None and plain(text) != value else ""
    kind = ' class="number"' if numeric else ' class="long"' if len(text) > LONG else ""
    return f"<td{kind}{kept}>{inline(text)}</td>"


def plain(text: str) -> float | None:
    """The number that a text is for the page's script too, without units or separators."""
    return float(text) if re.fullmatch(r"-?\d+(?:\.\d+)?(?:e[-+]?\d+)?", text) else None


def is_choice(title: str) -> bool:
    """Whether a column is one that a reader chooses by."""
    return any(_is(title, name) for name in CHOICES)


def _is(title: str, name: str) -> bool:
    return title.strip().lower() == name


def choice(words: str) -> str:
    """The verdict that a cell begins with, or all of the cell."""
    known = [start for start in MARKS if words.lower().startswith(start)]
    return known[0] if known else words


def verdict(words: str) -> str:
    """A verdict by word, mark and colour. One that is not known is a word."""
    if choice(words) not in MARKS:
        return inline(words)
    colour, mark = MARKS[choice(words)]
    return f'<span class="verdict {colour}"><span aria-hidden="true">{mark}</span> {inline(words)}</span>'


def _controls(table: Table) -> str:
    """A text filter for a long table, and a choice by verdict or kind where there is such a column."""
    parts = [_choices(table, at) for at, title in enumerate(table.header) if is_choice(title)]
    if len(table.rows) >= FILTERED_FROM:
        parts.append('<label>filter <input type="search" autocomplete="off"></label>')
    if not parts:
        return ""
    return f'<p class="controls" hidden>{" ".join(parts)} <output>{len(table.rows)} rows</output></p>'


def _choices(table: Table, at: int) -> str:
    counts = sorted(Counter(choice(row[at]) for row in table.rows).items())
    options = "".join(
        f'<option value="{escape(word)}">{escape(word)} ({count})</option>' for word, count in counts if word
    )
    whole = f'<option value="">all</option>{options}'
    return f'<label>{escape(table.header[at])} <select data-column="{at}">{whole}</select></label>'
