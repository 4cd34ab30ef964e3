"""Published rows that are made up: one to be changed, read as the files are; and evidence with other parts."""

from __future__ import annotations

from copy import copy
from typing import Any

from analysis.evidence.published import Published, Row, Rows, read_row
from analysis.evidence.records import Evidence

ROW: Row = {"source": "xdit_assets some figure", "version": "v1", "model": "PixArt", "resolution": "2048"}
ROW |= {"hardware": "8xL40-48GB", "interconnect": "PCIe Gen4x16", "steps": "20", "n_devices": "8"}
ROW |= {"method": "PipeFusion", "setting": "", "metric": "latency", "value": "3.5", "unit": "s"}


def prediction(
    row_id: str, method: str, published: float | None, predicted: float | None, **more: Any
) -> dict[str, Any]:
    """A prediction of a published row; None is out of memory."""
    return {
        "row_id": row_id, "model": "pixart_alpha", "cluster": "l20_pcie", "devices": 1 if method == "serial" else 8,
        "method": method, "resolution": 1024, "steps": 20, "published_s": published,
        "published_oom": published is None, "predicted_s": predicted, "missing_bytes": None,
        "status": "oom" if predicted is None else "ok",
        "warmup": None, "patches": None, "calibrated_on": ["latency.csv:2"], "flags": [], "duplicate_of": None,
        "contradicted_by": [], "digitized": False,
    } | more  # fmt: skip


def published(row_id: str = "latency.csv:2", **changes: str) -> Published:
    """The row, with other columns."""
    return read_row(row_id, ROW | changes)


def row(method: str, devices: int, value: float | str, **more: str) -> Row:
    """A published latency of a method."""
    return {"method": method, "n_devices": str(devices), "value": str(value)} | more


def rows(*each: Row, file: str = "latency") -> Rows:
    """The lines of a file, as changes of the row."""
    return {
        one.row_id: one for at, more in enumerate(each, 2) for one in [published(f"{file}.csv:{at}", **more)]
    }


def changed(evidence: Evidence, **parts: Any) -> Evidence:
    """Evidence of which some parts are others; what was read already stays."""
    found = copy(evidence)
    vars(found).update(parts)
    return found
