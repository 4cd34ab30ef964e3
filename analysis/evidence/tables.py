"""The tables of evidence: claims with verdicts, contradictions, every published number beside ours."""

from __future__ import annotations

from math import inf

import pandas as pd

from analysis.evidence.beside import Line
from analysis.evidence.claim import CONFIRMED, KINDS, NOT_CONFIRMED, NOT_TESTABLE, VERDICTS, Claim, amount
from analysis.evidence.contradictions import KINDS as FOUND
from analysis.evidence.published import Published, Rows, cited, named
from analysis.presentation.columns import NOTHING, Column, column, percent, texts, words
from analysis.presentation.tables import Table, markdown

ALL = "all"
CONTRADICTS, UNLIKE = "contradiction", "unlike predicted"
PRINTED = {
    CONTRADICTS: "these rows do not go together as they are printed",
    UNLIKE: "nothing in the sources speaks against it, our prediction does",
    "follows": "what is printed is what its numbers give",
    "cannot be checked": "the numbers that it comes from are not printed",
}
"""What the published rows say of each other, in words."""
VERDICT_IN_PRINT = {NOT_CONFIRMED: CONTRADICTS, CONFIRMED: "follows", NOT_TESTABLE: "cannot be checked"}
OURS = {
    "measured": "counted or run here",
    "predicted": "by a model of hardware that is not here",
    "calibration": "predicted, and fitted on this very number: proves nothing",
    "computed": "by a closed form, or bytes counted at full size without running",
    NOT_TESTABLE: "nothing here can say it",
}
"""What kind of number stands on our side."""
COPIED = ("source", "model", "hardware", "resolution", "n_devices", "method", "setting", "metric", "unit")
"""What a line repeats of a published row."""


def claims(found: list[Claim]) -> pd.DataFrame:
    """One row a claim, numbers in `unit`."""
    tested = ("relation", "value", "low", "high", "n", "published", "bound", "tolerance", "unit")
    numbers = dict.fromkeys(["value", "low", "high", "published", "bound", "tolerance"], float)
    return pd.DataFrame(
        {
            "id": claim.id,
            "claim": claim.statement,
            "sources": " ".join(claim.sources),
            "evidence": claim.kind,
            "records": " ".join(claim.records),
            **{name: getattr(claim.test, "against" if name == "bound" else name) for name in tested},
            "verdict": claim.verdict,
            "reason": claim.reason,
        }
        for claim in found
    ).astype(numbers | {"n": "Int64"})


def claims_text(rows: pd.DataFrame, published: Rows) -> pd.DataFrame:
    """The same to read; in brackets the interval of ours, and the rows of a section, table or figure."""
    frame = rows.copy()
    for name in ("value", "published", "tolerance"):
        pairs = zip(rows[name], rows.unit, strict=True)
        frame[name] = [None if pd.isna(number) else amount(number, unit) for number, unit in pairs]
    frame["value"] = [
        value if pd.isna(low) else f"{value} [{amount(low, '')}, {amount(high, '')}]"
        for value, low, high in zip(frame.value, rows.low, rows.high, strict=True)
    ]
    # A tolerance of nothing is that of floats, and a claim without a number has none.
    frame["tolerance"] = [
        None if pd.isna(value) else "exact" if tolerance == 0 else f"± {text}"
        for value, tolerance, text in zip(rows.value, rows.tolerance, frame.tolerance, strict=True)
    ]
    frame["sources"] = [where(text.split(), published) if ".csv:" in text else text for text in rows.sources]
    frame["evidence"] = [
        f"{kind}: {', '.join(name.removeprefix('records/') for name in records.split())}" if records else kind
        for kind, records in zip(rows.evidence, rows.records, strict=True)
    ]
    headings = {"sources": "source", "value": "ours", "reason": "why"}
    columns = ("claim", "sources", "evidence", "value", "published", "tolerance", "n", "verdict", "reason")
    return words(frame, texts(**{name: headings.get(name, name) for name in columns}))


def where(row_ids: list[str], published: Rows) -> str:
    """`Table 4 (latency.csv:13-14); Section 4.1 (claims.csv:2)`."""
    places: dict[str, list[str]] = {}
    for row_id in row_ids:
        places.setdefault(published[row_id].place, []).append(row_id)
    return "; ".join(f"{place} ({cited(ids)})" for place, ids in places.items())


def summary(found: list[Claim]) -> pd.DataFrame:
    """Claims by evidence and verdict."""
    rows = []
    for kind in [*KINDS, ALL]:
        verdicts = [claim.verdict for claim in found if kind in (claim.kind, ALL)]
        counts = {verdict: verdicts.count(verdict) for verdict in VERDICTS}
        rows.append({"evidence": kind, **counts, "claims": len(verdicts)})
    return pd.DataFrame(rows)


def summary_text(rows: pd.DataFrame) -> pd.DataFrame:
    """The same to read, with what each kind of evidence is."""
    names = [f"{kind}: {KINDS[kind]}" if kind in KINDS else kind for kind in rows.evidence]
    columns = [Column(name, name) for name in ("evidence", *VERDICTS, "claims")]
    return words(rows.assign(evidence=names), columns)


def contradictions(found: list[Claim]) -> pd.DataFrame:
    """One row a finding: contradictions first, by kind, the largest first."""
    lines = [
        {
            "verdict": UNLIKE if one.kind == "predicted" else VERDICT_IN_PRINT[one.verdict],
            "kind": one.id,
            "what": one.statement,
            "rows": " ".join(one.sources),
            "printed": one.printed,
            "expected": one.expected,
            "size": one.off,
            "how": one.note,
        }
        for one in found
    ]
    rows = pd.DataFrame(lines).astype({"size": float})
    rows = rows.sort_values(["size", "rows"], ascending=[False, True], kind="stable")
    order, by = [*PRINTED, *FOUND], ["verdict", "kind"]
    return rows.sort_values(by, key=lambda names: names.map(order.index), kind="stable", ignore_index=True)


def tabulate_contradictions(found: pd.DataFrame) -> Table:
    """All findings; to read, how many, and then those of each verdict."""
    wide = pd.crosstab(found.kind, found.verdict).reindex(index=FOUND, fill_value=0).reset_index()
    here = [verdict for verdict in PRINTED if verdict in wide]
    counts = [Column(verdict, verdict, format=lambda count: str(count or NOTHING)) for verdict in here]
    columns = texts(kind="kind", what="what", printed="printed", expected="from the rest")
    columns += [Column("size", "off by", format=percent), *texts(how="how", rows="rows")]
    parts = [markdown(words(wide, [Column("kind", "kind"), *counts]))]
    for verdict, meaning in PRINTED.items():
        part = found[found.verdict == verdict]
        if len(part):
            parts.append(f"**{verdict}** ({len(part)}): {meaning}.\n\n{markdown(words(part, columns))}")
    return Table(found, "\n".join(parts))


def beside(lines: list[Line]) -> pd.DataFrame:
    """One row a published number."""
    return pd.DataFrame(line(*each) for each in lines)


def line(row: Published, column: str, claim: Claim) -> dict[str, object]:
    """One line: what is printed, what is ours, and what there is to know."""
    copied = {key: row[key] for key in COPIED}
    if column:
        copied |= {"model": "any", "metric": column, "setting": row["version"]}
    value, printed = claim.test.value, claim.test.published
    ours = claim.expected or None
    if value is not None:
        ours = "OOM" if value == inf else f"{value:.6g}"
    compared = value is not None and printed is not None and inf not in (value, printed)
    return {
        "row": claim.sources[0],
        **copied,
        "published": row[column or "value"],
        "ours": None if claim.blocked else ours,
        "kind": NOT_TESTABLE if claim.blocked else claim.kind,
        "error": value / printed - 1 if compared and value and printed else None,
        "reason": claim.blocked or claim.note or claim.reason,
        "record": "" if claim.blocked else " ".join(claim.records),
    }


def by_kind(found: pd.DataFrame) -> pd.DataFrame:
    """One row a file and kind: lines, and the median absolute error of those that have one."""
    files = found.row.str.partition(".csv")[0]
    groups = found.assign(file=files, size=found.error.abs()).groupby(["file", "kind"], sort=False)
    return groups.agg(
        lines=("row", "size"), compared=("error", "count"), median=("size", "median")
    ).reset_index()


def tabulate_beside(found: pd.DataFrame) -> Table:
    """All lines; to read, how many of each kind, then the numbers, then the reasons."""
    parts = by_kind(found)
    medians = [f" ({percent(value)})" if value == value else "" for value in parts["median"]]
    wide = parts.assign(cell=parts.lines.astype(str) + medians)
    wide = wide.pivot(index="file", columns="kind", values="cell").reset_index()
    # Not the registry's columns: these cells are text as the sources print it, such as `1024[?]`.
    columns = texts(row="row", model="model", resolution="px", n_devices="N", method="method", metric="what")
    columns += [*texts(published="published", ours="ours", unit=""), column("error"), *texts(kind="kind")]
    kinds = "; ".join(f"*{kind}*: {meaning}" for kind, meaning in OURS.items())
    text = f"Published rows by file, and what stands beside them: {len(found)} lines; in brackets the median absolute "
    text += f"error. Of Table 1 ours is the bytes counted over the formula. {kinds}.\n\n"
    counts = words(wide, [Column(name, name) for name in ("file", *OURS) if name in wide])
    compared = words(found[found.kind != NOT_TESTABLE], columns)
    text += f"{markdown(counts)}\n{markdown(compared)}\n{markdown(reasons(found))}"
    return Table(found, text)


def reasons(found: pd.DataFrame) -> pd.DataFrame:
    """Why the others are not testable: one row a reason."""
    parts = found[found.kind == NOT_TESTABLE].groupby("reason", sort=False).row
    rows = [(reason, named(part)) for reason, part in parts]
    return pd.DataFrame(rows, columns=["not testable, because", "rows"])
