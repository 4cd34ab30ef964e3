"""Tables of what the two treatments of an MM-DiT's prompt in a pipeline give and send."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from analysis.record import load_record
from analysis.tables import markdown

MIB = 2**20
NOTE = """
Random weights with every matrix multiplied by {gain:g}, {steps} steps, M = {patches}, W = {warmup}; distances are root
mean square over that of what is compared with. They show what depends on what: `exact` on M and W alone, `first_patch`
on N too. How large the difference is on trained weights is not measured: there are none of these models here.
"""


def load(path: Path) -> dict[str, Any]:
    """The record. Raises OSError."""
    record: dict[str, Any] = load_record(path)
    return record


def results(record: dict[str, Any]) -> pd.DataFrame:
    """One row a model and N: relative distances of latents."""
    return pd.DataFrame(record["rows"])


def results_text(record: dict[str, Any]) -> pd.DataFrame:
    """`results` to read."""
    headings = {
        "model": "model",
        "devices": "N",
        "exact_to_serial": "exact, to serial",
        "first_patch_to_serial": "first patch, to serial",
        "exact_to_first_n": "exact, to N = 1",
        "first_patch_to_exact": "first patch, to exact",
    }
    table = results(record)[[*headings]].rename(columns=headings)
    for heading in [*headings.values()][2:]:
        table[heading] = [f"{value:.1e}" for value in table[heading]]
    return table.astype(str)


def messages_text(record: dict[str, Any]) -> pd.DataFrame:
    """Bytes of the first stage in a step, for full-size models."""
    rows = []
    for row in record["messages"]:
        image = row["image_bytes"]
        cells = {"model": row["model"], "px": row["resolution"], "N = M": row["devices"]}
        cells["image MiB"] = f"{image / MIB:.1f}"
        for text in ("exact", "first_patch"):
            sent = row[f"{text}_bytes"]
            cells[f"{text.replace('_', ' ')} MiB"] = f"{sent / MIB:.1f} (+{sent / image - 1:.0%})"
        rows.append(cells)
    return pd.DataFrame(rows).astype(str)


def save(record: dict[str, Any], folder: Path) -> list[Path]:
    """text_variants.csv and .md."""
    folder.mkdir(parents=True, exist_ok=True)
    csv, md = folder / "text_variants.csv", folder / "text_variants.md"
    results(record).to_csv(csv, index=False, lineterminator="\n")
    options = record["config"]["measure"]
    note = NOTE.format(steps=record["config"]["steps"], **options)
    md.write_text(
        "\n\n".join([markdown(results_text(record)), note.strip(), markdown(messages_text(record))]) + "\n"
    )
    return [csv, md]
