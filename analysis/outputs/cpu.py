"""What two CPU cores can show: ratios within one run, the three worlds, memory while loading."""

from __future__ import annotations

from pathlib import Path
from statistics import median

import pandas as pd

from analysis import tables
from analysis.columns import column, words
from analysis.looks import in_order
from analysis.output import Output
from analysis.record import load_record


def bench_cpu(results: Path) -> list[Path]:
    """Ratios to serial on two CPU cores, with PipeFusion's bound; seconds are medians and extremes of the repeats."""
    rows = pd.DataFrame(load_record(results / "records/bench/bench.json")["rows"])
    times = rows.pop("seconds")
    rows["median_s"], rows["min_s"], rows["max_s"] = times.map(median), times.map(min), times.map(max)
    rows["share_of_bound"] = rows.ratio / rows.bound
    shown = ["case", "median_s", "min_s", "max_s", "ratio", "bound", "share_of_bound"]
    return tables.save(rows, words(rows, shown), results / "tables", "bench_cpu")


def worlds(results: Path) -> list[Path]:
    """Wall clock, virtual and planned time of the same runs on two CPU cores."""
    rows = pd.DataFrame(load_record(results / "records/worlds/worlds.json")["rows"])
    times = rows.pop("seconds")
    for world in ("local", "sim", "plan"):
        rows[f"{world}_s"] = [median(one[world]) for one in times]
    rows, shown = in_order(rows), ["method", "local_s", "sim_s", "plan_s", "sim_ratio", "plan_ratio"]
    return tables.save(rows, words(rows, shown), results / "tables", "worlds")


def loading(results: Path) -> list[Path]:
    """What a rank needs in memory to load its part of a checkpoint."""
    rows = pd.read_csv(results / "records/loading/loading.csv")
    groups = rows[rows.status == "ok"].groupby(["method", "devices"], as_index=False)
    # The largest shard, peak and ratio of the ranks, each on its own, and their median seconds.
    most = groups.agg({"param_bytes": "max", "peak_bytes": "max", "ratio": "max", "seconds": "median"})
    shown = ["method", column("devices", heading="ranks"), column("param_bytes", heading="shard")]
    shown += [column("peak_bytes"), column("ratio", heading="peak / shard")]
    shown += [column("seconds", heading="median")]
    return tables.save(in_order(most), words(in_order(most), shown), results / "tables", "loading")


OUTPUTS = [
    Output(
        bench_cpu,
        ("records/bench/bench.json",),
        ("python run.py experiment=bench_cpu",),
        "How much of two CPU cores the parallel code uses: seconds, and ratios to serial of the same round, beside "
        "what fill, drain and warm-up leave to PipeFusion; measured, records/bench.",
    ),
    Output(
        worlds,
        ("records/worlds/worlds.json",),
        ("python run.py experiment=worlds steps=3 measure.rounds=3",),
        "The same runs on two ranks by the wall clock (measured), in virtual time (computed seconds, modelled links) "
        "and planned (predicted); records/worlds.",
    ),
    Output(
        loading,
        ("records/loading/loading.csv",),
        ("python run.py experiment=loading",),
        "What the fullest rank of each method needs in memory to load its part of a checkpoint; measured, a process "
        "a rank, records/loading.",
    ),
]
