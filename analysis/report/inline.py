"""A line of text with markdown's `code`, **bold**, *stress* and [links] as HTML; everything else is escaped."""

from __future__ import annotations

import re
from html import escape

MARKS = re.compile(
    r"`([^`]+)`|\*\*([^*]+)\*\*"
    r"|(?<![\w*])\*(?=\S)([^*]+)(?<=\S)\*(?![\w*])"  # not the product 2*p*hs
    r"|\[([^\]]+)\]\(([^)\s]+)\)"
)


def inline(text: str) -> str:
    """Text to HTML. A link to another file is its words only: the page stands alone."""
    parts, at = [], 0
    for found in MARKS.finditer(text):
        code, bold, stress, words, address = found.groups()
        parts.append(escape(text[at : found.start()]))
        if code:
            parts.append(f"<code>{escape(code)}</code>")
        elif bold:
            parts.append(f"<strong>{escape(bold)}</strong>")
        elif stress:
            parts.append(f"<em>{escape(stress)}</em>")
        elif address.startswith(("https://", "http://", "#")):
            parts.append(f'<a href="{escape(address)}">{escape(words)}</a>')
        else:
            parts.append(escape(words))
        at = found.end()
    return "".join([*parts, escape(text[at:])])
