"""Tables in README and docs are those in results/tables, word for word: copied between markers, never typed."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from analysis.records.files import write_text

MARKED = re.compile(r"(<!-- table: (?P<name>\w+) -->\n)(?P<table>.*?)(<!-- end -->)", re.DOTALL)


def pages(root: Path) -> list[Path]:
    """README and the pages of docs."""
    return [page for page in [root / "README.md", *sorted((root / "docs").glob("*.md"))] if page.exists()]


def refresh(page: Path, tables: Path) -> bool:
    """Put each marked table in; a table that does not exist leaves its place empty. True when the file changed."""
    old = page.read_text()
    new = MARKED.sub(lambda match: f"{match[1]}{_table(match['name'], tables)}{match[4]}", old)
    if new != old:
        write_text(page, new)
    return new != old


def stale(page: Path, tables: Path) -> Iterator[str]:
    """The marked tables of a page that are not what `tables` says, or not there at all."""
    for match in MARKED.finditer(page.read_text()):
        if not match["table"] or match["table"] != _table(match["name"], tables):
            yield match["name"]


def _table(name: str, tables: Path) -> str:
    path = tables / f"{name}.md"
    return path.read_text() if path.exists() else ""
