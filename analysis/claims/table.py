"""The claims as a table, and how many of each kind of evidence have each verdict."""

from __future__ import annotations

from itertools import groupby

import pandas as pd

from analysis import tables
from analysis.claims.claim import KINDS, VERDICTS, Claim, amount
from analysis.tables import as_text

ALL = "all"


def table(claims: list[Claim]) -> pd.DataFrame:
    """One row a claim, numbers in `unit`."""
    return pd.DataFrame(
        {
            "id": claim.id,
            "claim": claim.statement,
            "sources": " ".join(claim.sources),
            "evidence": claim.kind,
            "records": " ".join(claim.records),
            "relation": claim.test.relation,
            "value": claim.test.value,
            "low": claim.test.low,
            "high": claim.test.high,
            "n": claim.test.n,
            "published": claim.test.published,
            "bound": claim.test.against,
            "tolerance": claim.test.tolerance,
            "unit": claim.test.unit,
            "verdict": claim.verdict,
            "reason": claim.reason,
        }
        for claim in claims
    ).astype(
        dict.fromkeys(["value", "low", "high", "published", "bound", "tolerance"], float) | {"n": "Int64"}
    )


def table_text(rows: pd.DataFrame) -> pd.DataFrame:
    """The same to read; in brackets the interval of ours."""
    said = rows.copy()
    for column in ("value", "published", "tolerance"):
        pairs = zip(rows[column], rows.unit, strict=True)
        said[column] = [None if pd.isna(number) else amount(number, unit) for number, unit in pairs]
    said["value"] = [
        value if pd.isna(low) else f"{value} [{amount(low, '')}, {amount(high, '')}]"
        for value, low, high in zip(said.value, rows.low, rows.high, strict=True)
    ]
    # A tolerance of nothing is that of floats, and a claim without a number has none.
    said["tolerance"] = [
        None if pd.isna(value) else "exact" if tolerance == 0 else f"± {text}"
        for value, tolerance, text in zip(rows.value, rows.tolerance, said.tolerance, strict=True)
    ]
    said["sources"] = [cited(text.split(" ")) if ".csv:" in text else text for text in rows.sources]
    said["evidence"] = [
        f"{kind}: {', '.join(name.removeprefix('records/') for name in records.split())}" if records else kind
        for kind, records in zip(rows.evidence, rows.records, strict=True)
    ]
    columns: tables.Columns = {
        "claim": ("claim", str),
        "sources": ("source", str),
        "evidence": ("evidence", str),
        "value": ("ours", str),
        "published": ("published", str),
        "tolerance": ("tolerance", str),
        "n": ("n", str),
        "verdict": ("verdict", str),
        "reason": ("why", str),
    }
    return as_text(said, columns)


def summary(claims: list[Claim]) -> pd.DataFrame:
    """Claims by evidence and verdict."""
    rows = []
    for kind in [*KINDS, ALL]:
        found = [claim.verdict for claim in claims if kind in (claim.kind, ALL)]
        counts = {verdict: found.count(verdict) for verdict in VERDICTS}
        rows.append({"evidence": kind, **counts, "claims": len(found)})
    return pd.DataFrame(rows)


def summary_text(rows: pd.DataFrame) -> pd.DataFrame:
    """The same to read, with what each kind of evidence is."""
    names = [f"{kind}: {KINDS[kind]}" if kind in KINDS else kind for kind in rows.evidence]
    columns: tables.Columns = {"evidence": ("evidence", str)}
    columns |= {name: (name, str) for name in (*VERDICTS, "claims")}
    return as_text(rows.assign(evidence=names), columns)


def cited(row_ids: list[str]) -> str:
    """`latency.csv:13`, `latency.csv:14`, `latency.csv:16` as `latency.csv:13-14, 16`."""
    files: dict[str, list[int]] = {}
    for row_id in row_ids:
        name, _, line = row_id.partition(":")
        files.setdefault(name, []).append(int(line))
    return "; ".join(f"{name}:{', '.join(runs(sorted(set(lines))))}" for name, lines in files.items())


def runs(lines: list[int]) -> list[str]:
    """Neighbouring lines as one range."""
    groups = groupby(enumerate(lines), key=lambda pair: pair[1] - pair[0])
    found = [[line for _, line in group] for _, group in groups]
    return [str(one[0]) if len(one) == 1 else f"{one[0]}-{one[-1]}" for one in found]
