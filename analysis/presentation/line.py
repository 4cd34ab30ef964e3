"""A message as one line that a terminal shows and does not obey."""

from __future__ import annotations

import re

LONGEST = 2000
WORD = re.compile(r"\S{400,}")


def one_line(text: object) -> str:
    """Any text in one line: control characters escaped, long words and long texts without their middle."""
    words = WORD.sub(lambda word: shortened(word[0], 160), " ".join(str(text).split()))
    line = "".join(each if each.isprintable() else ascii(each)[1:-1] for each in words)
    return shortened(line, LONGEST)


def shortened(text: str, most: int) -> str:
    """A text of at most `most` characters, its beginning and its end kept."""
    return text if len(text) <= most else f"{text[: most // 2]}...{text[3 - most // 2 :]}"
