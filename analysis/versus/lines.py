"""Every published row beside what this project has for it: one line each, and why where there is nothing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from analysis import tables
from analysis.paper import ratios
from analysis.paper.facts import METHODS, SP, USP, WARMUP, published
from analysis.paper.predictions import named
from analysis.rows import Row, Rows
from analysis.tables import as_text, percent
from analysis.versus import freshness, latency, memory, table1
from analysis.versus.beside import Beside, untestable
from analysis.versus.latency import Predicted
from analysis.versus.memory import Account

KINDS = {
    "measured": "counted or run here",
    "predicted": "by a model of hardware that is not here",
    "calibration": "predicted, and fitted on this very number: proves nothing",
    "computed": "by a closed form, or bytes counted at full size without running",
    "not testable": "nothing here can say it",
}
PICTURES = (
    "needs the model's trained weights, COCO's pictures and captions, and Inception's weights: none is here"
)
SAID = ("source", "model", "hardware", "resolution", "n_devices", "method", "setting", "metric", "unit")
"""What a line repeats of a published row."""


@dataclass(frozen=True)
class Records:
    """All that stands beside published rows."""

    rows: Rows
    predictions: Predicted
    account: Account
    fresh: pd.DataFrame


def load(results: Path) -> Records:
    """From the results folder."""
    return Records(
        rows=published(results / "published"),
        predictions=latency.load(results),
        account=memory.load(results),
        fresh=freshness.load(results),
    )


def table(records: Records) -> pd.DataFrame:
    """One row a published row; of Table 1, whose rows have many cells, one a cell."""
    return pd.DataFrame(
        [line for row_id, row in records.rows.items() for line in lines(row_id, row, records)]
    )


def lines(row_id: str, row: Row, records: Records) -> Iterator[dict[str, Any]]:
    """The lines of one published row."""
    if "metric" in row:
        yield line(row_id, row, row["value"], besides(row_id, row, records))
        return
    for column in table1.COLUMNS:
        said = {
            "model": "any",
            "method": row["method"],
            "metric": column,
            "unit": "",
            "source": row["source"],
        }
        said |= {"setting": row["version"]}
        yield line(row_id, said, row[column], cell(row, column, records))


def line(row_id: str, row: Row, value: str, found: Beside) -> dict[str, Any]:
    """One line."""
    said = {key: row.get(key, "") for key in SAID}
    ours = f"{found.ours:.6g}" if isinstance(found.ours, float) else found.ours
    rest = {"published": value, "ours": ours, "kind": found.kind, "error": error_of(value, found.ours)}
    return {"row": row_id, **said, **rest, "reason": found.reason, "record": found.record}


def error_of(value: str, ours: float | str | None) -> float | None:
    """That of two numbers, or of our ratio to a formula of Table 1; none where one side ran out of memory."""
    if not isinstance(ours, float) or value == "OOM":
        return None
    try:
        return ours / float(value) - 1
    except ValueError:
        return ours - 1


def besides(row_id: str, row: Row, records: Records) -> Beside:
    """What stands beside a number."""
    if row_id.startswith("claims"):
        return claim(row, records.predictions)
    if row_id.startswith("memory"):
        return memory.beside(row, records.rows, records.account)
    if row["metric"] == "latency":
        return latency.beside(row_id, records.predictions)
    return untestable(f"{row['metric']} {PICTURES}")


def claim(row: Row, known: Predicted) -> Beside:
    """The ratio that the text states, of our predictions."""
    if row["metric"] == "effective computation ratio":
        found = ratios.effective_of(row)
        return Beside(found.value, "computed", found.how)
    if ratios.uses_hybrid(row):
        return untestable(
            "about a hybrid of several methods (USP, or guidance split), none of the methods here"
        )
    found = ratios.ratio_of(row, latency.clock(row, known))
    if found.value is None:
        return untestable(f"{found.how} among the predictions")
    reason = f"{found.how}, the fastest M, W={WARMUP}"
    if row["setting"] == "vs second best" or row["method"] == SP:
        reason += f"; the paper's may be {USP}, which is none of the methods here"
    elif latency.is_fitted(row, known):
        reason += "; one device's seconds are fitted"
    return Beside(found.value, "predicted", reason, latency.SCALING)


def cell(row: Row, column: str, records: Records) -> Beside:
    """What stands beside a cell of Table 1."""
    if column == "attn_KV":
        return freshness.beside(row[column], METHODS[row["method"]], records.fresh)
    if column not in table1.COUNTED:
        return untestable("says when messages travel; what is counted is how many bytes do")
    account = records.account
    return table1.beside(account.record, account.printed, row, column)


def summary(found: pd.DataFrame) -> pd.DataFrame:
    """One row a file and kind: lines, and the median absolute error of those that have one."""
    files = found.row.str.partition(".csv")[0]
    groups = found.assign(file=files, size=found.error.abs()).groupby(["file", "kind"], sort=False)
    return groups.agg(
        lines=("row", "size"), compared=("error", "count"), median=("size", "median")
    ).reset_index()


def summary_text(found: pd.DataFrame) -> pd.DataFrame:
    """A row a file, a column a kind: `12 (3.4 %)` is twelve lines and their median absolute error."""
    parts = summary(found)
    medians = [f" ({percent(value)})" if value == value else "" for value in parts["median"]]
    cells = parts.lines.astype(str) + medians
    wide = parts.assign(cell=cells).pivot(index="file", columns="kind", values="cell").reset_index()
    columns: tables.Columns = {"file": ("file", str)}
    return as_text(wide, columns | {kind: (kind, str) for kind in KINDS if kind in wide})


def compared_text(found: pd.DataFrame) -> pd.DataFrame:
    """The lines with something on our side, without words."""
    columns: tables.Columns = {
        "row": ("row", str),
        "model": ("model", str),
        "resolution": ("px", str),
        "n_devices": ("N", str),
        "method": ("method", str),
        "metric": ("what", str),
        "published": ("published", str),
        "ours": ("ours", str),
        "unit": ("", str),
        "error": ("error", lambda error: f"{100 * error:+.1f} %"),
        "kind": ("kind", str),
    }
    return as_text(found[found.kind != "not testable"], columns)


def reasons_text(found: pd.DataFrame) -> pd.DataFrame:
    """Why the others are not testable: one row a reason."""
    parts = found[found.kind == "not testable"].groupby("reason", sort=False).row
    rows = [(reason, named(part)) for reason, part in parts]
    return pd.DataFrame(rows, columns=["not testable, because", "rows"])


def save(found: pd.DataFrame, folder: Path, name: str) -> list[Path]:
    """NAME.csv, all lines; NAME.md, how many of each kind, then the numbers, then the reasons."""
    folder.mkdir(parents=True, exist_ok=True)
    csv, md = folder / f"{name}.csv", folder / f"{name}.md"
    found.to_csv(csv, index=False, lineterminator="\n")
    kinds = "; ".join(f"*{kind}*: {words}" for kind, words in KINDS.items())
    text = f"Published rows by file, and what stands beside them: {len(found)} lines; in brackets the median absolute "
    text += f"error. Of Table 1 ours is the bytes counted over the formula. {kinds}.\n\n"
    text += f"{tables.markdown(summary_text(found))}\n"
    text += f"{tables.markdown(compared_text(found))}\n{tables.markdown(reasons_text(found))}"
    md.write_text(text)
    return [csv, md]
