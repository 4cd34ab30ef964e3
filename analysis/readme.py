"""Tables in the README are those in results/tables, word for word: copied between markers, never typed."""

from __future__ import annotations

import re
from pathlib import Path

MARKED = re.compile(r"(<!-- table: (?P<name>\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def refresh(readme: Path, tables: Path) -> bool:
    """Put each marked table in; a table that does not exist leaves its place empty. True when the file changed."""

    def fill(match: re.Match[str]) -> str:
        table = tables / f"{match['name']}.md"
        return f"{match[1]}{table.read_text() if table.exists() else ''}{match[3]}"

    old = readme.read_text()
    new = MARKED.sub(fill, old)
    if new != old:
        readme.write_text(new)
    return new != old
