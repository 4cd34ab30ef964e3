"""Predictions of published rows as tables: every row, medians of errors, and what they get right in words."""

from __future__ import annotations

import pandas as pd

from analysis.evidence.predictions import APART, CUTS, confusion, cuts, memory_rows, pairs, statistics
from analysis.presentation import tables
from analysis.presentation.columns import Column, Shown, column, percent, texts, words
from analysis.presentation.tables import Table


def table_text(table: pd.DataFrame) -> pd.DataFrame:
    """The one table, `low_s` and `high_s` of intervals included, as words; what is no prediction, or doubtful, says so
    in its last column."""
    remarks = []
    for _, row in table.iterrows():
        known = [] if row.role == "prediction" else [row.role]
        known += [f"source in doubt: {row.doubt}"] if row.doubt else []
        known += [f"repeats {row.duplicate_of}"] if isinstance(row.duplicate_of, str) else []
        known += [f"contradicted by {row.contradicted_by}"] if row.contradicted_by else []
        known += ["read off a curve"] if row.digitized else []
        known += [f"{row.decode_s:.2g} s for decoding"] if row.decode_s else []
        known += [f"borrows {row.borrowed}"] if row.borrowed else []
        remarks.append("; ".join(known))
    frame = table.assign(
        remarks=remarks,
        published=_seconds(table.published_s, table.published_oom),
        predicted=_seconds(table.predicted_s, table.predicted_oom),
    )
    frame["interval"] = [
        None if pd.isna(low) else f"{low:.4g} to {high:.4g}"
        for low, high in zip(table.low_s, table.high_s, strict=True)
    ]
    columns: Shown = ["row_id", "model", "cluster", *texts(size="px"), "devices", "method", "patches"]
    columns += [
        column("warmup", heading="sync. steps"),
        *texts(published="published s", predicted="predicted s"),
    ]
    return words(frame, [*columns, "error", *texts(interval="interval s", remarks="remarks")])


def _seconds(values: pd.Series, oom: pd.Series) -> list[str]:
    return ["OOM" if out else "–" if pd.isna(s) else f"{s:.4g}" for s, out in zip(values, oom, strict=True)]


def statistics_text(lines: pd.DataFrame) -> pd.DataFrame:
    """The statistics as words."""
    columns, frame = texts(statistic="median absolute error"), lines.copy()
    for cut, name in CUTS.items():
        medians = zip(lines[f"error_{cut}"], lines[f"rows_{cut}"], strict=True)
        frame[cut] = [f"{percent(median)} ({rows})" if rows else None for median, rows in medians]
        columns.append(Column(cut, f"{name} (rows)"))
    earlier = zip(lines.before_error_once, lines.before_rows_once, strict=True)
    frame["before"] = [
        None if pd.isna(rows) or not rows else f"{percent(e)} ({int(rows)})" for e, rows in earlier
    ]
    columns.append(Column("before", "each number once, before (rows)"))
    return words(frame, columns)


def verdicts(table: pd.DataFrame) -> str:
    """The order of methods, and out of memory, in sentences."""
    orders = []
    for cut, name in CUTS.items():
        right = pairs(cuts(table)[cut]).right
        orders.append(f"{int(right.sum())} of {len(right)} ({name})")
    oom, rows = confusion(table), memory_rows(table)
    ours = int((rows.published_oom & rows.own_oom).sum())
    return (
        f"Order of two methods on the same hardware, resolution and N, where they were published more than "
        f"{APART:.0%} apart: right in {', '.join(orders)}. Of {oom[True, True] + oom[True, False]} settings published "
        f"as out of memory {oom[True, True]} are predicted so (with what the published program holds; with what ours "
        f"does, {ours}); of {oom[False, True] + oom[False, False]} that ran, "
        f"{oom[False, False]} are predicted to run."
    )


def tabulate_statistics(table: pd.DataFrame, before: pd.DataFrame, coverage: str) -> Table:
    """The statistics, those of earlier predictions beside them, the verdicts and what intervals hold below them."""
    lines, earlier = statistics(table), statistics(before).set_index("statistic")
    for column_name in ("rows_once", "error_once"):
        lines[f"before_{column_name}"] = lines.statistic.map(earlier[column_name])
    return tables.table(lines, statistics_text(lines), after=f"{verdicts(table)} {coverage}")
