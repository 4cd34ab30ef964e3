"""Where an exhibit is from: commands, commit, versions, hardware and every file read, folded away until asked for."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from typing import Any

from analysis.report.exhibits import Exhibit

DIGITS = 12
"""Of a checksum or commit: enough to tell, short enough to read."""
TOLD = {
    "predicted": "kind",
    "cluster": "cluster",
    "git_commit": "commit",
    "hardware": "run on",
    "versions": "versions",
    "torch": "torch",
}
"""What a record says of itself -> its heading; records that say the same stand together."""
KINDS = {True: "predicted", False: "measured or counted"}

Group = tuple[dict[str, str], list[dict[str, Any]]]


def made(exhibit: Exhibit) -> str:
    """``How it was made``; an exhibit of which nothing is known says so."""
    if not exhibit.commands:
        return '<p class="note">Nothing is noted about how this was made.</p>\n'
    groups = "".join(_group(said, records) for said, records in grouped(exhibit.records))
    return (
        '<details class="made"><summary>How it was made</summary>\n'
        f"<pre><code>{escape(chr(10).join(exhibit.commands))}</code></pre>\n{groups}</details>\n"
    )


def grouped(records: Iterable[dict[str, Any]]) -> list[Group]:
    """Records that say the same of themselves, together, in the order of the first."""
    groups: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for record in records:
        groups.setdefault(tuple(words(record.get(key)) for key in TOLD), []).append(record)
    return [
        ({key: value for key, value in zip(TOLD, values, strict=True) if value}, members)
        for values, members in groups.items()
    ]


def words(value: Any) -> str:
    """A value of a sidecar as text; of a dictionary what it holds, less what is empty."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return KINDS[value]
    if isinstance(value, dict):
        held = [(key, words(one)) for key, one in value.items()]
        return ", ".join(_pair(key, one) for key, one in held if one)
    return ", ".join(map(words, value)) if isinstance(value, list) else str(value)


def _pair(key: str, value: str) -> str:
    if key.endswith("_bytes") and value.isdigit():
        return f"{key.removesuffix('_bytes')} {int(value) / 2**30:.1f} GiB"
    return f"{key.replace('_', ' ')} {value}"


def _group(said: dict[str, str], records: list[dict[str, Any]]) -> str:
    told = "".join(f"<dt>{TOLD[key]}</dt><dd>{escape(value)}</dd>" for key, value in said.items())
    paths = "".join(
        _path(path, digest, record) for record in records for path, digest in record["files"].items()
    )
    return f'<dl>{told}<dt>read</dt><dd><ul class="paths" tabindex="0">{paths}</ul></dd></dl>\n'


def _path(path: str, digest: str | None, record: dict[str, Any]) -> str:
    told = [f"sha256 {digest[:DIGITS]}"] if digest else []
    if path == record.get("record"):
        told += [words(record.get("created"))]
    mark = f" <small>{escape(', '.join(filter(None, told)))}</small>" if told else ""
    return f"<li><code>{escape(path)}</code>{mark}</li>"
