"""Where exhibits are from: what records say of themselves, and the machines and commits behind the whole page."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pandas as pd

DIGITS = 12
"""Of a commit: enough to tell, short enough to read."""
HEADINGS = {
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


def grouped(records: Iterable[dict[str, Any]]) -> list[Group]:
    """Records that say the same of themselves, by heading, together, in the order of the first."""
    groups: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for record in records:
        groups.setdefault(tuple(words(record.get(key)) for key in HEADINGS), []).append(record)
    return [
        ({heading: value for heading, value in zip(HEADINGS.values(), values, strict=True) if value}, members)
        for values, members in groups.items()
    ]


def machines(records: Iterable[dict[str, Any]]) -> pd.DataFrame | None:
    """One row per machine and set of versions: how many records, and their commits; None where no record says."""
    rows = [
        {
            "run on": words(record.get("hardware")) or "not recorded",
            "versions": words(record.get("versions")) or f"torch {record.get('torch', 'not rows')}",
            "record": record["record"],
            "commit": short(record["git_commit"]),
        }
        for record in records
        if record.get("git_commit")
    ]
    if not rows:
        return None
    groups = pd.DataFrame(rows).drop_duplicates("record").groupby(["run on", "versions"], sort=False)
    commits = groups.commit.agg(lambda each: ", ".join(dict.fromkeys(each)))
    return pd.DataFrame({"records": groups.size(), "commits": commits}).reset_index()


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


def short(commit: str) -> str:
    """A commit in as many digits as elsewhere; that its tree was not clean stays there."""
    digits, dash, rest = commit.partition("-")
    return f"{digits[:DIGITS]}{dash}{rest}"
