"""What one run of the quickstart says: every method, the same noise and prompts, real ranks."""

from __future__ import annotations

from pathlib import Path

from analysis.output import Output
from analysis.presentation.columns import words
from analysis.presentation.style import Drawing, drawings
from analysis.presentation.tables import Table, table
from analysis.records.committed import QUICKSTART
from analysis.runs import figures, sweep


def quickstart_methods(results: Path) -> list[Table]:
    """Every method on the shipped model: seconds, the fullest rank's bytes, distance to serial; measured by the runs of
    records/quickstart. Seconds on a CPU rank nothing."""
    rows = sweep.methods(results / QUICKSTART)
    return [table(rows, words(rows, sweep.METHODS_SHOWN))]


def quickstart_devices(results: Path) -> list[Table]:
    """Layers, bytes held, sent and waited for, on every rank of every method; measured by the runs of
    records/quickstart."""
    rows = sweep.devices(results / QUICKSTART)
    return [table(rows, words(rows, sweep.DEVICES_SHOWN))]


def quickstart_pipefusion(results: Path) -> list[Table]:
    """The ranks of PipeFusion: each holds the parameters and the K, V of its own layers only; measured by the runs of
    records/quickstart."""
    rows = sweep.devices(results / QUICKSTART, method="pipefusion")
    return [table(rows, words(rows, sweep.DEVICES_SHOWN))]


def quickstart_fullest(results: Path) -> list[Table]:
    """The most that any rank of each method holds, sends and waits for, each column on its own; measured by the runs of
    records/quickstart."""
    rows = sweep.fullest(sweep.devices(results / QUICKSTART))
    return [table(rows, words(rows, sweep.FULLEST_SHOWN))]


def quickstart_pictures(results: Path) -> list[Drawing]:
    """The same noise and prompts by every method, and beside each picture its difference to serial's; measured by the
    runs of records/quickstart."""
    return drawings(figures.picture_grid(results / QUICKSTART))


def quickstart_memory(results: Path) -> list[Drawing]:
    """Parameters and K, V in MiB on every rank of every method; measured by the runs of records/quickstart."""
    return drawings(figures.memory_per_device(results / QUICKSTART))


RUNS, PICTURES = f"{QUICKSTART}/**/run.json", f"{QUICKSTART}/**/images/*.png"
FILES = ("config.yaml", "ranks.csv", "latents.safetensors")
SWEEP = (RUNS, *(f"{QUICKSTART}/**/{name}" for name in FILES), PICTURES)
OUTPUTS = [
    Output(quickstart_methods, SWEEP),
    Output(quickstart_devices, SWEEP),
    Output(quickstart_pipefusion, SWEEP, "Section 3"),
    Output(quickstart_fullest, SWEEP),
    Output(quickstart_pictures, (RUNS, PICTURES)),
    Output(quickstart_memory, SWEEP),
]
