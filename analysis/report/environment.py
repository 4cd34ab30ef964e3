"""The machines, versions and commits behind the whole page, each named once."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from analysis.report import table
from analysis.report.origin import DIGITS, words

HEADER = ("run on", "versions", "records", "commits")


def environment(records: Iterable[dict[str, Any]]) -> str:
    """A section with a row for each machine and set of versions; nothing where no record says."""
    named: dict[tuple[str, ...], dict[str, str]] = {}
    for record in records:
        if record.get("git_commit"):
            where = (words(record.get("hardware")) or "not said", versions(record))
            named.setdefault(where, {})[record["record"]] = short(record["git_commit"])
    if not named:
        return ""
    rows = tuple(
        (*where, str(len(commits)), ", ".join(dict.fromkeys(commits.values())))
        for where, commits in named.items()
    )
    listed = table.render(table.Table(HEADER, rows), "Machines and versions")
    return (
        '<section id="environment">\n<h2>Where the records were made</h2>\n'
        "<p>As the records themselves say. Tables and figures are made from them alone. A "
        f"prediction was computed on the machine named here, for hardware that was not there.</p>\n{listed}</section>\n"
    )


def versions(record: dict[str, Any]) -> str:
    """All versions, or that of torch."""
    return words(record.get("versions")) or f"torch {record.get('torch', 'not said')}"


def short(commit: str) -> str:
    """A commit in as many digits as elsewhere; that its tree was not clean stays said."""
    digits, dash, rest = commit.partition("-")
    return f"{digits[:DIGITS]}{dash}{rest}"
