"""A pipeline's timeline and ledger worked out from what may start when, so that the views are tested without a run.

Stage d takes job j after job j-1, after stage d-1 has had job j, and stage 0 also after the last stage has had the
same patch of the step before. With equal jobs, free links and M >= N that is: stage d runs job j at micro-step j+d.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd

from tests.analysis.synthetic import write_run


def pipeline(
    devices: int,
    patches: int,
    warmup: int,
    steps: int,
    job_s: float = 0.01,
    link_s: float = 0.0,
    stretch: Callable[[int, int], float] = lambda rank, job: 1.0,
) -> tuple[pd.DataFrame, pd.DataFrame, float]:
    """(timeline, ledger, latency in seconds); a synchronous step is one job of M patches' time.

    ``stretch(rank, number of the job)`` multiplies what a job takes.
    """
    jobs = [(step, -1) for step in range(warmup)]
    jobs += [(step, patch) for step in range(warmup, steps) for patch in range(patches)]
    spans: list[dict[str, Any]] = []
    entries: list[dict[str, Any]] = []
    free = [0.0] * devices
    latent: dict[int, tuple[float, int]] = {}  # by patch: when the last stage sends it, of which step

    def wait(rank: int, until: float, step: int, patch: int) -> None:
        if until > free[rank]:
            spans.append(span(rank, "wait", step, patch, free[rank], until))
            free[rank] = until

    for number, (step, patch) in enumerate(jobs):
        mine = range(patches) if patch < 0 else [patch]
        ready, posted = 0.0, 0.0
        for rank in range(devices):
            if rank == 0:
                for part in mine:
                    if part in latent:
                        wait(0, latent[part][0] + link_s, latent[part][1], part)
            else:
                wait(rank, ready + link_s, step, patch)
                entries.append(entry(rank, "recv", step, patch, rank - 1, posted))
            start = free[rank]
            free[rank] += job_s * (patches if patch < 0 else 1) * stretch(rank, number)
            spans.append(span(rank, "compute", step, patch, start, free[rank]))
            ready, posted = free[rank], start
            if rank < devices - 1:
                entries.append(entry(rank, "send", step, patch, rank + 1, ready))
            if rank == 0 and devices > 1:
                entries += [entry(0, "recv", step, part, devices - 1, start) for part in mine]
        if devices > 1:
            entries += [entry(devices - 1, "send", step, part, 0, ready) for part in mine]
            latent |= dict.fromkeys(mine, (ready, step))
    for part, (sent, step) in latent.items():
        wait(0, sent + link_s, step, part)
    order = ["rank", "start_s"]
    ledger = pd.DataFrame(entries) if entries else pd.DataFrame(columns=list(entry(0, "", 0, 0, 0, 0.0)))
    timeline = pd.DataFrame(spans).sort_values(order, kind="stable").reset_index(drop=True)
    return timeline, ledger.sort_values(order, kind="stable").reset_index(drop=True), max(free)


def span(rank: int, kind: str, step: int, patch: int, start: float, end: float) -> dict[str, Any]:
    """A row of timeline.parquet."""
    op = "recv" if kind == "wait" else ""
    times = {"start_s": start, "end_s": end}
    return {"rank": rank, "kind": kind, "op": op, "step": step, "layer": -1, "patch": patch, **times}


def entry(rank: int, op: str, step: int, patch: int, peer: int, start: float) -> dict[str, Any]:
    """A row of ledger.parquet."""
    sizes = {"bytes": 4096, "sent_bytes": 4096 * (op == "send"), "recv_bytes": 4096 * (op == "recv")}
    place = {"rank": rank, "step": step, "layer": -1, "patch": patch, "op": op, "peer": peer, "axis": "pipe"}
    return place | sizes | {"start_s": start, "wait_s": 0.0, "async": True}


def write_pipeline(
    folder: Path, devices: int, patches: int, warmup: int, steps: int, world: str = "sim", **how: Any
) -> Path:
    """A run directory of PipeFusion with that timeline and ledger."""
    timeline, ledger, latency = pipeline(devices, patches, warmup, steps, **how)
    run = write_run(folder, "pipefusion", devices=devices)
    record = json.loads((run / "run.json").read_text())
    record |= {"world": world, "predicted": world == "plan", "steps": steps}
    record["method_config"] |= {"patches": patches, "warmup": warmup}
    record["latency_s"] = {"repeats": [latency], "median": latency, "spread": 0.0}
    (run / "run.json").write_text(json.dumps(record))
    timeline.to_parquet(run / "timeline.parquet", index=False)
    ledger.to_parquet(run / "ledger.parquet", index=False)
    return run
