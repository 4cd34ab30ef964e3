"""When each rank of a run computed, waited and idled: reading ``timeline.parquet``, and the numbers in it.

A span is compute or exposed wait, in seconds from the start of the image; what no span covers is idle. The bubble
is everything that is not compute, as a share of rank-seconds (ranks times latency).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd

from analysis.presentation.columns import percent
from analysis.presentation.style import label
from analysis.records.record import load_run
from analysis.records.rows import read_rows
from analysis.runs import frame

CLOCK = {
    "local": "measured wall clock",
    "sim": "virtual time (simulated ranks, not wall clock)",
    "plan": "PREDICTED by a cost model, not measured",
}
SPAN = ("rank", "step", "patch", "kind", "start_s", "end_s")
"""The columns of timeline.parquet that are read."""


@dataclass(frozen=True)
class Run:
    """What a timeline is of.

    ``patches`` is None for a method that cuts none. ``latency_s`` is the median of all repeats, ``image_s`` how long
    the one image took whose timeline was written down. ``cluster`` is the hardware that a prediction is for, or "".
    """

    name: str
    method: str
    model: str
    px: str | None
    clock: str
    cluster: str
    devices: int
    patches: int | None
    warmup: int
    steps: int
    latency_s: float
    image_s: float
    layers: tuple[str, ...]
    order: str = "plain"


def read(run_dir: str | Path) -> tuple[Run, pd.DataFrame]:
    """A run and its spans, by rank and then by time.

    Raises FileNotFoundError when it has no timeline, and ValueError where it is broken.
    """
    folder = Path(run_dir)
    if not (folder / "run.json").exists() or not (folder / "timeline.parquet").exists():
        raise FileNotFoundError(f"no run.json and timeline.parquet in {folder}")
    record = load_run(folder)
    row = frame.runs(folder).iloc[0]
    if row.status != "ok":
        raise FileNotFoundError(f"{folder} is a run that is {row.status}: {row.reason}")
    for key in ("method", "devices", "steps", "latency_s"):
        if pd.isna(row[key]):
            raise ValueError(f"{folder / 'run.json'} has no {key}; allowed: the record of a finished run")
    spans = read_rows(folder / "timeline.parquet", SPAN)
    spans = spans.sort_values(["rank", "start_s"], kind="stable").reset_index(drop=True)
    clock = CLOCK.get(row.world, f"world {row.world}")
    run = Run(
        name=row.run,
        method=row.method,
        model=str(row.model),
        px=row.px,
        clock=CLOCK["plan"] if record.get("predicted") else clock,
        cluster=str(record.get("cluster") or row.world) if row.world == "plan" else "",
        devices=int(row.devices),
        patches=_patches(spans),
        warmup=0 if pd.isna(row.warmup) else int(row.warmup),
        steps=int(row.steps),
        latency_s=float(row.latency_s),
        image_s=float(spans.end_s.max()),
        layers=_layers(folder),
        order=str(record["method_config"].get("order", "plain")),
    )
    return run, spans


def shares(timeline: pd.DataFrame, latency_s: float) -> pd.DataFrame:
    """One row a rank: seconds and shares of compute, exposed wait and idle, which add up to the whole image.

    Where the host's starting of transfers was timed apart from computing, there is ``issue`` as well.
    ``latency_s`` is that of this image; an end before the last span is moved there.
    """
    end = _end(timeline, latency_s)
    seconds = (timeline.end_s - timeline.start_s).groupby([timeline["rank"], timeline.kind]).sum()
    kinds = ["compute", *(["issue"] if (timeline.kind == "issue").any() else []), "wait"]
    table = seconds.unstack(fill_value=0).reindex(columns=kinds, fill_value=0.0)
    table["idle"] = (end - table.sum(axis=1)).clip(lower=0.0)  # rounding, never a real overlap
    named = table.add_suffix("_s").join((table / end).add_suffix("_share"))
    return named.rename_axis(None, axis=1).reset_index()


def jobs(timeline: pd.DataFrame) -> pd.DataFrame:
    """One row a (rank, step, patch): from where to where it was really computed, ``start_s`` to ``end_s``.

    Where there are patches, a rank embeds the timestep before it waits for a patch, and copies after the last one:
    a span that is more than half of the job's compute is the job, and the rest belongs to the waits around it.
    """
    compute = timeline[timeline.kind == "compute"]
    compute = compute.assign(span_s=compute.end_s - compute.start_s)
    parts = compute.groupby(["rank", "step", "patch"])
    rows = parts.agg(start_s=("start_s", "min"), end_s=("end_s", "max"), all_s=("span_s", "sum"))
    if _patches(timeline) is None:
        return rows.drop(columns="all_s").reset_index()
    longest = compute.loc[parts.span_s.idxmax()].set_index(["rank", "step", "patch"])
    main = longest.span_s > 0.5 * rows.all_s
    rows = rows.assign(
        start_s=rows.start_s.where(~main, longest.start_s), end_s=rows.end_s.where(~main, longest.end_s)
    )
    return rows.drop(columns="all_s").reset_index()


@dataclass(frozen=True)
class Bubble:
    """Rank-seconds that are not compute, as shares of all of them; ``share`` is the sum of the next four.

    ``warmup``: until the last rank has computed the last synchronous step. ``fill``: from there to a rank's first
    job. ``drain``: after its last. ``waits``: in between. ``after_warmup``: fill, waits and drain as a share of
    the rank-seconds after the warm-up, which is what ``ideal_bubble`` is about; NaN when there is nothing after it.
    """

    share: float
    warmup: float
    fill: float
    waits: float
    drain: float
    after_warmup: float


def bubble(timeline: pd.DataFrame, latency_s: float, warmup: int = 0) -> Bubble:
    """Measured bubble of a run of which the first ``warmup`` steps are synchronous."""
    end = _end(timeline, latency_s)
    compute = timeline[timeline.kind == "compute"]
    early, late = compute[compute.step < warmup], compute[compute.step >= warmup]
    synchronous = float(early.end_s.max()) if len(early) else 0.0
    if late.empty:
        synchronous = end
    late_jobs = jobs(late)
    seconds = np.zeros(4)  # warm-up, fill, in between, drain
    numbers = sorted(timeline["rank"].unique())
    for rank in numbers:
        own, mine = compute[compute["rank"] == rank], late_jobs[late_jobs["rank"] == rank]
        first = max(float(mine.start_s.min()), synchronous) if len(mine) else end
        last = max(float(mine.end_s.max()), first) if len(mine) else end
        edges = [0.0, synchronous, first, last, end]
        for piece, (start, stop) in enumerate(pairwise(edges)):
            busy = (own.end_s.clip(upper=stop) - own.start_s.clip(lower=start)).clip(lower=0.0).sum()
            seconds[piece] += max(stop - start - busy, 0.0)
    part = seconds / (len(numbers) * end)
    after = 1 - synchronous / end
    return Bubble(
        share=float(part.sum()),
        warmup=float(part[0]),
        fill=float(part[1]),
        waits=float(part[2]),
        drain=float(part[3]),
        after_warmup=float(part[1:].sum() / after) if after > 0 else float("nan"),
    )


def ideal_bubble(devices: int, patches: int, steps: int, warmup: int) -> float:
    """Bubble after the warm-up with equal stages, equal patches and free links.

    (N-1)/(M(S-W)+N-1), as in section 3 of the paper (effective M*S/(M*S+N-1)), while M >= N. With M < N a step takes
    N jobs' time instead of M, because a patch comes back from the last stage only then.
    """
    after = steps - warmup
    if after < 1:
        return float("nan")
    jobs = patches * after
    return 1 - jobs / ((after - 1) * max(patches, devices) + patches + devices - 1)


def headline(run: Run, timeline: pd.DataFrame) -> list[str]:
    """Method and sizes; which clock and how long; the bubble, measured and ideal."""
    sizes = [f"N = {run.devices}"] + ([f"M = {run.patches}"] if run.patches else [])
    sizes += ([f"W = {run.warmup}"] if run.warmup else []) + [f"S = {run.steps}"]
    gaps = bubble(timeline, run.image_s, run.warmup)
    model = run.model + (f" {run.px} px" if run.px else "")
    model += f" on {run.cluster}" if run.cluster else ""
    took = _seconds(run.latency_s)
    if abs(run.image_s - run.latency_s) > 0.005 * run.latency_s:
        took += f" (median), the image shown {_seconds(run.image_s)}"
    lines = [
        f"{label(run.method)}    {'   '.join(sizes)}",
        f"{run.clock[0].upper()}{run.clock[1:]}: latency {took}    {model}",
        f"Bubble {percent(gaps.share)} (rank-seconds that are not compute) = warm-up {percent(gaps.warmup)} + "
        f"fill {percent(gaps.fill)} + waits between {percent(gaps.waits)} + drain {percent(gaps.drain)}",
    ]
    if run.method == "pipefusion" and run.patches and run.steps > run.warmup:
        ideal = ideal_bubble(run.devices, run.patches, run.steps, run.warmup)
        formula = "(N−1) / (M(S−W)+N−1)"
        if run.order == "rotational":
            ideal, formula = 0.0, "in rotational order"
        elif run.patches < run.devices:
            formula = "1 − M(S−W) / (N(S−W)+M−1), as M < N,"
        lines.append(
            f"Bubble after the warm-up {percent(gaps.after_warmup)};  "
            f"ideal {formula} = {percent(ideal)}, with equal stages and free links"
        )
    return lines


def _seconds(seconds: float) -> str:
    return f"{seconds * 1e3:.1f} ms" if seconds < 1 else f"{seconds:.3f} s"


def _patches(timeline: pd.DataFrame) -> int | None:
    """M, from what was computed: a rank may wait for single patches in a synchronous step too."""
    patches = timeline.patch[(timeline.kind == "compute") & (timeline.patch >= 0)]
    return int(patches.max()) + 1 if len(patches) else None


def _end(timeline: pd.DataFrame, latency_s: float) -> float:
    return max(latency_s, float(timeline.end_s.max()))


def _layers(folder: Path) -> tuple[str, ...]:
    """The layers of each rank where they differ, for the labels; empty when all ranks hold the same."""
    path = folder / "ranks.csv"
    if not path.exists():
        return ()
    ranks = read_rows(path, ["rank"]).sort_values("rank")
    layers = tuple(ranks.layers.fillna("none")) if "layers" in ranks else ()
    return layers if len(set(layers)) > 1 else ()
