"""The committed NAME.md as HTML: paragraphs, headings, lists and tables, which is all that is in them."""

from __future__ import annotations

import re

from analysis.report.inline import inline
from analysis.report.table import Table, render

RULE = re.compile(r"\|(?:\s*:?-+:?\s*\|)+")


def blocks(text: str) -> list[str]:
    """Pieces between empty lines; a heading or the start of a table is a piece of its own."""
    found: list[list[str]] = [[]]
    for line in text.splitlines():
        same = found[-1] and found[-1][-1].startswith("| ") == line.startswith("| ")
        if not line.strip() or line.startswith("#") or not same or found[-1][-1].startswith("#"):
            found.append([])
        if line.strip() and not line.startswith("<!--"):
            found[-1].append(line.strip())
    return ["\n".join(piece) for piece in found if piece]


def tables(text: str) -> list[Table]:
    """The pipe tables among the pieces."""
    return [table for piece in blocks(text) if (table := as_table(piece))]


def as_table(piece: str) -> Table | None:
    """A pipe table, or None."""
    lines = piece.splitlines()
    if len(lines) < 2 or not RULE.fullmatch(lines[1]):
        return None
    header, _, *rows = [tuple(cell.strip() for cell in line.strip("|").split("|")) for line in lines]
    return Table(header, tuple(rows))


def html(text: str, name: str) -> str:
    """The whole text. Headings are two levels lower than in the file: it is one part of a page."""
    return "\n".join(_block(piece, name) for piece in blocks(text))


def _block(piece: str, name: str) -> str:
    table = as_table(piece)
    if table:
        return render(table, name)
    if piece.startswith("#"):
        return f"<h4>{inline(piece.lstrip('# '))}</h4>"
    if piece.startswith(("- ", "* ")):
        items = re.split(r"\n?^[-*] ", piece, flags=re.MULTILINE)[1:]
        return f"<ul>{''.join(f'<li>{inline(item)}</li>' for item in items)}</ul>"
    return f"<p>{inline(piece)}</p>"
