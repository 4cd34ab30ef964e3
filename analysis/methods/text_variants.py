"""Tables of what the two treatments of an MM-DiT's prompt in a pipeline give and send."""

from __future__ import annotations

import pandas as pd

from analysis.presentation import tables
from analysis.presentation.columns import Column, Shown, column, mib, words
from analysis.records.study import Record

RESULTS = ["model", "devices", "exact_to_serial", "first_patch_to_serial", "exact_to_first_n"]
RESULTS += ["first_patch_to_exact"]
NOTE = """
Random weights with every matrix multiplied by {gain:g}, {steps} steps, M = {patches}, W = {warmup}; distances are root
mean square over that of what is compared with. They show what depends on what: `exact` on M and W alone, `first_patch`
on N too. How large the difference is on trained weights is not measured: there are none of these models here.
"""


def messages(record: Record) -> pd.DataFrame:
    """To read: MiB that the first stage sends in a step, for full-size models, and how much more than the image's."""
    rows = record.rows[record.rows.image_bytes.notna()].copy()
    for text in ("exact", "first_patch"):
        sent = zip(rows[f"{text}_bytes"], rows.image_bytes, strict=True)
        rows[text] = [f"{mib(both)} (+{both / image - 1:.0%})" for both, image in sent]
    columns: Shown = ["model", "resolution", column("devices", heading="N = M"), "image_bytes"]
    columns += [Column("exact", "exact MiB"), Column("first_patch", "first patch MiB")]
    return words(rows, columns)


def tabulate(record: Record) -> tables.Table:
    """Distances to serial, and below them the bytes."""
    rows = record.rows[record.rows.exact_to_serial.notna()].dropna(axis=1, how="all")
    options = record.facts["config"]
    patches, warmup = (int(rows[key].iloc[0]) for key in ("patches", "warmup"))
    facts = {"steps": options["steps"], "gain": options["measure"]["gain"]}
    note = NOTE.format(**facts, patches=patches, warmup=warmup)
    after = f"{note.strip()}\n\n{tables.markdown(messages(record))}"
    return tables.table(rows, words(rows, RESULTS), after=after)
