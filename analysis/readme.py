"""Tables in README and docs are those in results/tables, word for word: copied between markers, never typed."""

from __future__ import annotations

import re
from pathlib import Path

MARKED = re.compile(r"(<!-- table: (?P<name>\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def refresh(page: Path, tables: Path) -> bool:
    """Put each marked table in; a table that does not exist leaves its place empty. True when the file changed."""

    def fill(match: re.Match[str]) -> str:
        table = tables / f"{match['name']}.md"
        return f"{match[1]}{table.read_text() if table.exists() else ''}{match[3]}"

    old = page.read_text()
    new = MARKED.sub(fill, old)
    if new != old:
        page.write_text(new)
    return new != old
