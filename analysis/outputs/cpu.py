"""What two CPU cores can show: ratios within one run, the three worlds, memory while loading."""

from __future__ import annotations

from pathlib import Path

from analysis import loading as loads
from analysis import tables
from analysis.output import Output


def bench_cpu(results: Path) -> list[Path]:
    """Ratios to serial on two CPU cores, with PipeFusion's bound."""
    table = tables.bench(results / "records/bench/bench.json")
    return tables.save(table, tables.bench_text(table), results / "tables", "bench_cpu")


def worlds(results: Path) -> list[Path]:
    """Wall clock, virtual and planned time of the same runs on two CPU cores."""
    table = tables.worlds(results / "records/worlds/worlds.json")
    return tables.save(table, tables.worlds_text(table), results / "tables", "worlds")


def loading(results: Path) -> list[Path]:
    """What a rank needs in memory to load its part of a checkpoint."""
    table = loads.fullest(results / "records/loading")
    return tables.save(table, loads.fullest_text(table), results / "tables", "loading")


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
