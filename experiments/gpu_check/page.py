"""What was checked as a page to read: gpu_check.md beside the record."""

from __future__ import annotations

from collections import Counter
from itertools import groupby
from typing import Any

import pandas as pd

from analysis.presentation.tables import markdown
from experiments.gpu_check.judge import FAILED, NOT_POSSIBLE, PASSED

NO_PROOF = "**Made on a CPU in place of a GPU (`cluster.device=cpu`): it proves nothing about a GPU.**"

EACH = {"of": "of", "status": "result", "seconds": "seconds", "detail": "found"}
"""What a table says of the checks of one kind, and its headings."""


def headline(rows: list[dict[str, Any]]) -> str:
    """How many checks ended in each way."""
    counts = Counter(row["status"] for row in rows)
    return ", ".join(f"{counts[status]} {status}" for status in (PASSED, FAILED, NOT_POSSIBLE))


def page(record: dict[str, Any]) -> str:
    """The page of a record."""
    rows = record["checks"]
    parts = ["# GPU check", f"{headline(rows)}."]
    if record["device"] == "cpu":
        parts.append(NO_PROOF)
    if not record["complete"]:
        parts.append(f"**Ended before its end: {len(rows)} of {record['planned']} checks.**")
    parts.append("\n".join(f"- {line}" for line in machine(record)))
    failed = [row for row in rows if row["status"] == FAILED]
    if failed:
        parts += ["## Failed", table(failed, {"what": "check", "of": "of", "detail": "found"})]
    for what, group in groupby(rows, key=lambda row: row["what"]):
        parts += [f"## {what[0].upper()}{what[1:]}", table([*group], EACH)]
    for row in rows:
        if "edges" in row["numbers"]:
            parts += ["## The edges", edge_table(row["numbers"])]
    tolerances = ", ".join(f"{dtype} {value:g}" for dtype, value in record["tolerances"].items())
    parts += [
        "## How it was judged",
        "Distances are the norm of the difference to float32 latents of the same run on the CPU, over the norm of "
        f"those; at most {tolerances}. Bytes of buffers and messages are compared to the byte, peaks of tensors to "
        f"{record['peak_tolerance']:.0%}. Models are random and tiny: seconds say nothing about speed. Keep "
        "and send this page and `gpu_check.json`, which also has what the ranks of failed checks printed.",
    ]
    return "\n\n".join(parts) + "\n"


def machine(record: dict[str, Any]) -> list[str]:
    """What the record was made on and with."""
    hardware, versions = record["hardware"], record["versions"]
    device = next(
        (row["detail"] for row in record["checks"] if row["what"] == "the device answers"), "unknown"
    )
    return [
        f"device: {device}",
        f"host: {hardware['cpu']}, {hardware['cores']} cores, {hardware['os']}",
        ", ".join(f"{name} {versions[name]}" for name in ("python", "torch", "diffusers")),
        f"made {record['created']} in {record['seconds']:.0f} s, commit {record['git_commit']}",
        f"command: `{record['command']}`",
    ]


def table(rows: list[dict[str, Any]], headings: dict[str, str]) -> str:
    """Checks as rows of Markdown, the columns under their headings."""
    words = [row | {"seconds": f"{row['seconds']:.1f}" if row["seconds"] else ""} for row in rows]
    return markdown(pd.DataFrame(words)[[*headings]].rename(columns=headings)).rstrip()


def edge_table(numbers: dict[str, Any]) -> str:
    """Latency and bandwidth of every edge."""
    rows = [
        (row["edge"], f"{row['latency_s'] * 1e6:.1f}", f"{row['bandwidth'] / 1e9:.2f}")
        for row in numbers["edges"]
    ]
    what = f"Messages of 8 and of {numbers['message_bytes']} bytes, one direction at a time."
    return f"{what}\n\n{markdown(pd.DataFrame(rows, columns=['edge', 'latency us', 'GB/s'])).rstrip()}"
