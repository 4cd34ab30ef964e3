"""The paper's picture of the pipeline, from a real run: which device works on which patch of which step, and which K, V
its attention sees.

A job is a patch of a step on a device, or the whole image of a synchronous step. Its place is counted in micro-steps,
the time of one patch in one stage: it begins when the device is done with the job before and, by the ledger, what it
needs has been sent. So the order and what waits for what are the run's, and only the length of a job is not.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from graphlib import TopologicalSorter
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd

from analysis.runs.timeline import Run, jobs, read

WHOLE = -1
"""The patch of a job that computes all of them."""
Job = tuple[int, int, int]
"""(rank, step, patch)"""


@dataclass(frozen=True)
class Schedule:
    """`jobs`: rank, step, patch, from where to where in micro-steps; `messages`: (sender's job, receiver's job)."""

    run: Run
    jobs: pd.DataFrame
    messages: list[tuple[Job, Job]]


def load(folder: str | Path) -> tuple[Schedule, pd.DataFrame]:
    """The schedule of a run of PipeFusion, and its spans in seconds. Raises FileNotFoundError without them."""
    run, spans = read(folder)
    spans = spans.assign(patch=spans.patch.where(spans.step >= run.warmup, WHOLE))
    return schedule(run, spans, pd.read_parquet(Path(folder) / "ledger.parquet")), spans


def schedule(run: Run, spans: pd.DataFrame, ledger: pd.DataFrame) -> Schedule:
    """Every job begins at the first micro-step at which nothing that it needs is missing."""
    done = jobs(spans)
    done = done[done.step >= 0].sort_values(["rank", "start_s"], kind="stable")
    order: list[Job] = list(done[["rank", "step", "patch"]].astype(int).itertuples(index=False, name=None))
    messages = list(sent(order, ledger))
    needs: dict[Job, set[Job]] = {job: set() for job in order}
    for before, job in pairwise(order):
        if before[0] == job[0]:
            needs[job].add(before)
    for sender, receiver in messages:
        needs[receiver].add(sender)
    length = {job: (run.patches or 1) if job[2] == WHOLE else 1 for job in order}
    start: dict[Job, int] = {}
    for job in TopologicalSorter(needs).static_order():
        start[job] = max((start[other] + length[other] for other in needs[job]), default=0)
    rows = [(*job, start[job], start[job] + length[job]) for job in order]
    return Schedule(run, pd.DataFrame(rows, columns=["rank", "step", "patch", "start", "end"]), messages)


def sent(order: list[Job], ledger: pd.DataFrame) -> Iterator[tuple[Job, Job]]:
    """What was received, as pairs of jobs: from a stage before, for the same step; from a later one, the latent of a
    patch for the next step, if there is one."""
    known = set(order)
    columns = ["rank", "peer", "step", "patch"]
    received = ledger[ledger.op == "recv"][columns].drop_duplicates().astype(int)
    for rank, peer, step, patch in received.itertuples(index=False, name=None):
        pair = []
        for place in ((peer, step), (rank, step + (peer > rank))):
            found = [job for job in ((*place, patch), (*place, WHOLE)) if job in known]
            pair += found[:1]
        if len(pair) == 2:
            yield pair[0], pair[1]


def seen(schedule: Schedule, rank: int) -> pd.DataFrame:
    """The step that K, V of each patch are from when a job of a device attends: a column a patch, NaN if never
    written. A job first writes what it computes; what stands there is what its jobs before have written."""
    own = schedule.jobs[schedule.jobs["rank"] == rank].sort_values("start", kind="stable")
    buffer = np.full(schedule.run.patches or 1, np.nan)
    rows = []
    for job in own.to_dict("records"):
        buffer[slice(None) if job["patch"] == WHOLE else job["patch"]] = job["step"]
        rows.append(buffer.copy())
    return pd.DataFrame(rows, index=own.index)


def filled(schedule: Schedule) -> float:
    """Jobs as a share of all micro-steps after the warm-up."""
    late = schedule.jobs[schedule.jobs.patch != WHOLE]
    early = schedule.jobs[schedule.jobs.patch == WHOLE]
    begin = early.end.max() if len(early) else 0
    return float((late.end - late.start).sum() / (schedule.run.devices * (late.end.max() - begin)))


def fresh_share(schedule: Schedule, rank: int) -> float:
    """Of the patches that the jobs of a device attend to after the warm-up, how many are of the job's own step."""
    own = schedule.jobs[(schedule.jobs["rank"] == rank) & (schedule.jobs.patch != WHOLE)]
    table = seen(schedule, rank).loc[own.index]
    return float(table.eq(own.step, axis=0).to_numpy().mean())
