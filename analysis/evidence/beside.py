"""Every published number beside what this project has for it: claims without a verdict, and why where there is nothing.

A published peak counts the text encoders, ours only the transformer: what is compared is what a method adds to one
device, or takes from it, put on the published peak of one device.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from math import inf, isnan

import pandas as pd

from analysis.evidence import memory, text
from analysis.evidence.bounds import one_device_row
from analysis.evidence.claim import Claim, Comparison
from analysis.evidence.published import HYBRID, OURS, SP, TABLE1, Published
from analysis.evidence.records import MODEL, Evidence
from analysis.memory import table1
from analysis.memory.accounting import DEVICES
from analysis.records.committed import ACCOUNTING, PREDICTIONS, STALENESS

ASKED = (2, 4, 8)
"""The N that a source may have meant that names none."""
PICTURES = (
    "needs the model's trained weights, COCO's pictures and captions, and Inception's weights: none is here"
)
Line = tuple[Published, str, Claim]
"""A published row, the column of Table 1 where it is of that, and what stands beside it."""


def lines(evidence: Evidence) -> Iterator[Line]:
    """One line a published number; of Table 1, whose rows have many cells, one a cell."""
    of_rows = [*text.claims(evidence), *memory.sizes(evidence)]
    known = {claim.sources[0]: claim for claim in of_rows}
    fresh = freshness(evidence)
    versions = {row["version"] for row in evidence.rows.values() if row.row_id.startswith(TABLE1)}
    counted = {
        version: table1.claims(evidence.accounts, evidence.printed, evidence.rows, DEVICES, version)
        for version in versions
    }
    for row_id, row in evidence.rows.items():
        if row_id.startswith(TABLE1):
            for column in table1.COLUMNS:
                yield row, column, cell(evidence, row, column, counted[row["version"]], fresh)
        elif row_id in known:
            yield row, "", known[row_id]
        elif row_id.startswith("memory"):
            yield row, "", peak(evidence, row)
        elif row["metric"] == "latency":
            yield row, "", latency(evidence, row)
        else:
            yield row, "", nothing(row, f"{row['metric']} {PICTURES}")


def beside(row: Published, kind: str, ours: float | None, note: str, record: str, words: str = "") -> Claim:
    """What stands beside a number: a number of ours, or words."""
    return Claim(
        row.row_id, "", (row.row_id,), kind, (record,), Comparison(ours, row.value), note, expected=words
    )


def nothing(row: Published, why: str) -> Claim:
    """Nothing, and why."""
    return Claim(row.row_id, "", (row.row_id,), "published", (), Comparison(None, row.value), "", why)


def latency(evidence: Evidence, row: Published) -> Claim:
    """A published latency beside ours. Raises KeyError for a row with neither a prediction nor a reason."""
    if row.row_id not in evidence.made:
        return nothing(row, evidence.record["not_predicted"][row.row_id])
    made, one = evidence.made[row.row_id], evidence.prediction(row.row_id)
    if one["status"] not in ("ok", "oom"):
        return nothing(row, f"the prediction failed: {made.get('reason') or one['status']}")
    fitted = {"prediction": "", "calibration": "the cluster is fitted on this row"}
    remarks = [
        f"on {one['cluster']}",
        *made["notes"],
        fitted.get(one["role"], "the same number as one that the cluster is fitted on"),
        f"repeats {one['duplicate_of']}" if isinstance(one["duplicate_of"], str) else "",
        memory_said(one["published_oom"], one["predicted_oom"]),
        f"source in doubt: {one['doubt']}" if one["doubt"] else "",
        f"another number in {one['contradicted_by']}" if one["contradicted_by"] else "",
    ]
    ours = inf if one["predicted_oom"] else float(one["predicted_s"])
    kind = "predicted" if one["role"] == "prediction" else "calibration"
    return beside(row, kind, ours, "; ".join(filter(None, remarks)), PREDICTIONS)


def memory_said(published: bool, predicted: bool) -> str:
    """Whether both sides say that it does not fit."""
    if published and predicted:
        return "both out of memory"
    return (
        f"out of memory as {'published' if published else 'predicted'} only" if published or predicted else ""
    )


def peak(evidence: Evidence, row: Published) -> Claim:
    """A peak of N devices; where N is not stated, only whether it is above or below that of one."""
    method, base, px = OURS.get(row["method"]), one_device_row(row, evidence.rows), row.px or 0
    if row["metric"].startswith("text encoders"):
        return nothing(row, "no text encoder of that size is here, only the transformers")
    if row.model not in evidence.accounts["models"]:
        return nothing(row, f"{row.model} is not among the models counted")
    if row.devices == 1:
        return nothing(row, "counts the text encoders; it is what the other rows are compared with")
    if method is None or row.method == HYBRID:
        return nothing(row, f"{row['method']} is a hybrid of several methods, none of the methods here")
    if base is None:
        return nothing(row, "the source has no one device")

    one = evidence.peak_bytes(row.model, px, 1, "serial")

    def more(n: int, name: str = method, warmup: int = 1) -> float:
        """GB that the fullest of N devices has at its peak beyond one device that does everything."""
        return (evidence.peak_bytes(row.model, px, n, name, warmup) - one) / memory.GB

    if isnan(one):
        return nothing(row, f"{px} px was not counted")
    if row.devices is None:
        return any_devices(row, base, {n: gb for n in ASKED if not isnan(gb := more(n))})
    n, theirs = row.devices, row.value - base.value
    if isnan(more(n)):
        return nothing(row, f"N={n} was not counted")
    how = f"one device as published ({base.value:g} GB) and our difference {more(n):+.2f} GB; "
    how += f"published {theirs:+.2f} GB"
    how += f"; SP read as Ulysses, Ring {more(n, 'ring'):+.2f} GB" if row["method"] == SP else ""
    how += f"; without a synchronous step {more(n, warmup=0):+.2f} GB" if method == "pipefusion" else ""
    return beside(row, "predicted", base.value + more(n), how, ACCOUNTING)


def any_devices(row: Published, base: Published, more: dict[int, float]) -> Claim:
    """The source does not say N: above or below one device, if all N that may be meant agree on it."""
    listed = ", ".join(f"N={n} {gb:+.2f} GB" for n, gb in more.items())
    if row.oom or len({gb > 0 for gb in more.values()}) != 1:
        return nothing(row, f"N is not stated, and it decides: ours beside one device {listed}")
    theirs, above = row.value - base.value, next(iter(more.values())) > 0
    verdict = f"{'as' if above == (theirs > 0) else 'unlike'} published ({theirs:+.2f} GB)"
    how = f"N is not stated; {'more' if above else 'less'} than one device at any N, {verdict}: {listed}"
    return beside(row, "predicted", None, how, ACCOUNTING)


def cell(evidence: Evidence, row: Published, column: str, counted: pd.DataFrame, fresh: pd.Series) -> Claim:
    """Our bytes over a cell's formula: the median of the main model's sizes, and in words the least and the most."""
    printed = row[column]
    if column == "overlap":
        return nothing(row, "says when messages travel; what is counted is how many bytes do")
    formula = table1.parse_formula(printed)
    if printed in table1.NOTHING:
        return nothing(row, f"the version says nothing here ({printed})")
    if column == "attn_KV":
        ours = "fresh" if fresh[row.method] == 1 else "stale"
        agrees = "as printed" if printed.startswith(ours) else "unlike printed"
        words = f"{100 * fresh[row.method]:.0f} % of K, V are of the same step, {agrees}"
        return beside(row, "measured", None, words, STALENESS, ours)
    if formula is None:
        return nothing(row, f"no formula: {printed}")
    table, ours = evidence.printed, table1.COUNTED[column]
    if formula == "0":
        mine = table[(table.status == "ok") & (table.devices == DEVICES) & (table.model == MODEL)]
        most = int(mine[mine.method == row.method][ours].max())
        agrees = "as printed" if most == 0 else f"unlike printed: up to {most:,} bytes ({MODEL})"
        return beside(row, "computed", None, agrees, ACCOUNTING, f"{most}")
    what = next(name for name, (printed, _) in table1.CLAIMS.items() if printed == column)
    found = counted[(counted.method == row.method) & (counted.what == what)]
    if not found.ratio.max():
        words = "none is kept between steps: K, V at work are among the activations"
        return beside(row, "computed", None, words, ACCOUNTING, "0")
    main = found[found.model == MODEL].ratio
    between = [
        f"{table1.between(part)} ({name})" for part, name in ((main, MODEL), (found.ratio, "all models"))
    ]
    words = f"counted over printed, N={DEVICES}: {', '.join(between)}"
    test = Comparison(float(main.median()), 1.0)
    return replace(beside(row, "computed", None, words, ACCOUNTING), test=test)


def freshness(evidence: Evidence) -> pd.Series:
    """By method: over all steps but the synchronous ones the share of K, V that is of the step itself."""
    table = evidence.stale.freshness
    table = table[(table.devices > 1) & (table.step >= table.warmup.fillna(0))]
    sums = table.groupby("method")[["age_0", "tokens"]].sum()
    return sums.age_0 / sums.tokens
