"""Every committed table and figure again, from the committed records alone.

    python -m analysis                       all of them
    python -m analysis quickstart            those whose name begins so
    python -m analysis keep FOLDER NAME      make the runs in FOLDER the records NAME

The same records give the same bytes.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from analysis import figures, style, tables
from analysis.keep import keep
from analysis.readme import refresh

RESULTS = Path("results")


def quickstart_methods(results: Path) -> list[Path]:
    """The eight methods side by side: latency, the fullest rank, distance to serial."""
    table = tables.methods(results / "records/quickstart")
    return tables.save(table, tables.methods_text(table), results / "tables", "quickstart_methods")


def quickstart_devices(results: Path) -> list[Path]:
    """What every rank of every method held, sent and waited for."""
    table = tables.devices(results / "records/quickstart")
    return tables.save(table, tables.devices_text(table), results / "tables", "quickstart_devices")


def quickstart_pipefusion(results: Path) -> list[Path]:
    """The same, PipeFusion only."""
    table = tables.devices(results / "records/quickstart", method="pipefusion")
    return tables.save(table, tables.devices_text(table), results / "tables", "quickstart_pipefusion")


def quickstart_fullest(results: Path) -> list[Path]:
    """The most that any rank of each method holds, sends and waits."""
    table = tables.fullest(tables.devices(results / "records/quickstart"))
    return tables.save(table, tables.fullest_text(table), results / "tables", "quickstart_fullest")


def quickstart_pictures(results: Path) -> list[Path]:
    """The pictures of each method and their difference to serial's."""
    figure = figures.picture_grid(results / "records/quickstart")
    return style.save(figure, results / "figures", "quickstart_pictures") if figure else []


def quickstart_memory(results: Path) -> list[Path]:
    """Parameters and KV on every rank of every method."""
    figure = figures.memory_per_device(results / "records/quickstart")
    return style.save(figure, results / "figures", "quickstart_memory") if figure else []


def bench_cpu(results: Path) -> list[Path]:
    """Ratios to serial on two CPU cores, with PipeFusion's bound."""
    table = tables.bench(results / "records/bench/bench.json")
    return tables.save(table, tables.bench_text(table), results / "tables", "bench_cpu")


OUTPUTS: list[Callable[[Path], list[Path]]] = [
    quickstart_methods,
    quickstart_devices,
    quickstart_pipefusion,
    quickstart_fullest,
    quickstart_pictures,
    quickstart_memory,
    bench_cpu,
]


def main(arguments: list[str], results: Path = RESULTS) -> int:
    """Exit code 0, or 2 when a name is unknown or there is nothing to keep."""
    if arguments[:1] == ["keep"] and len(arguments) == 3:
        try:
            copies = keep(arguments[1], results / "records" / arguments[2])
        except FileNotFoundError as missing:
            print(f"error: {missing}", file=sys.stderr)
            return 2
        print(f"kept {len(copies)} runs in {results / 'records' / arguments[2]}")
        return 0
    wanted = [make for make in OUTPUTS if not arguments or make.__name__.startswith(tuple(arguments))]
    if not wanted:
        names = ", ".join(make.__name__ for make in OUTPUTS)
        print(f"error: {' '.join(arguments)}: no such table or figure; allowed: {names}", file=sys.stderr)
        return 2
    for make in wanted:
        records = results / "records" / make.__name__.split("_")[0]
        if not records.exists():
            print(f"{make.__name__}: no records in {records}")
            continue
        for path in make(results):
            print(path)
    readme = results.parent / "README.md"
    if readme.exists() and refresh(readme, results / "tables"):
        print(readme)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
