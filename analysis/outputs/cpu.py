"""What two CPU cores can show: ratios within one run, the three worlds, memory while loading."""

from __future__ import annotations

from pathlib import Path

from analysis.output import Output
from analysis.presentation.columns import Shown, column, words
from analysis.presentation.looks import in_order
from analysis.presentation.tables import Table, table
from analysis.records.committed import BENCH, LOADING, WORLDS
from analysis.records.study import load_study


def bench_cpu(results: Path) -> list[Table]:
    """How much of two CPU cores the parallel code uses: seconds, and ratios to serial of the same round, beside what
    fill, drain and warm-up leave to pipelines; measured, records/bench."""
    rows = load_study(results / BENCH).rows.drop(columns="repeats_s")
    shown = ["case", "median_s", "min_s", "max_s", "ratio", "over_diffusers", "bound", "share_of_bound"]
    return [table(rows, words(rows, shown))]


def worlds(results: Path) -> list[Table]:
    """The same runs on two ranks by the wall clock (measured), in virtual time (computed seconds, modelled links) and
    planned (predicted); records/worlds."""
    ran = load_study(results / WORLDS).rows
    wide = ran.pivot_table("latency_s", "method", "world", "median").add_suffix("_s")
    rows = wide.assign(sim_ratio=wide.sim_s / wide.local_s, plan_ratio=wide.plan_s / wide.local_s)
    rows, shown = (
        in_order(rows.reset_index()),
        ["method", "local_s", "sim_s", "plan_s", "sim_ratio", "plan_ratio"],
    )
    return [table(rows, words(rows, shown))]


def loading(results: Path) -> list[Table]:
    """What the fullest rank of each method needs in memory to load its part of a checkpoint; measured, a process a
    rank, records/loading."""
    rows = load_study(results / LOADING).rows
    groups = rows[rows.status == "ok"].groupby(["method", "devices"], as_index=False)
    # The largest shard, peak and ratio of the ranks, each on its own, and their median seconds.
    most = in_order(
        groups.agg({"param_bytes": "max", "peak_bytes": "max", "ratio": "max", "seconds": "median"})
    )
    shown: Shown = ["method", column("devices", heading="ranks"), column("param_bytes", heading="shard")]
    shown += [
        column("peak_bytes"),
        column("ratio", heading="peak / shard"),
        column("seconds", heading="median"),
    ]
    return [table(most, words(most, shown))]


OUTPUTS = [Output(bench_cpu, (BENCH,)), Output(worlds, (WORLDS,)), Output(loading, (LOADING,))]
