"""What one run of the quickstart says: every method, the same noise and prompts, real ranks."""

from __future__ import annotations

from pathlib import Path

from analysis import figures, style, sweep, tables
from analysis.columns import words
from analysis.output import Output

COMMANDS = ("python run.py experiment=quickstart",)
RUNS = "records/quickstart/**/run.json"
RANKS = "records/quickstart/**/ranks.csv"
LATENTS = "records/quickstart/**/latents.safetensors"
PICTURES = "records/quickstart/**/images/*.png"
CONFIGS = "records/quickstart/**/config.yaml"
SWEEP = (RUNS, CONFIGS, RANKS, LATENTS, PICTURES)
SOURCE = "measured by the runs of records/quickstart"


def quickstart_methods(results: Path) -> list[Path]:
    """All methods side by side: latency, the fullest rank, distance to serial."""
    table = sweep.methods(results / "records/quickstart")
    return tables.save(table, words(table, sweep.METHODS_SHOWN), results / "tables", "quickstart_methods")


def quickstart_devices(results: Path) -> list[Path]:
    """What every rank of every method held, sent and waited for."""
    table = sweep.devices(results / "records/quickstart")
    return tables.save(table, words(table, sweep.DEVICES_SHOWN), results / "tables", "quickstart_devices")


def quickstart_pipefusion(results: Path) -> list[Path]:
    """The same, PipeFusion only."""
    table = sweep.devices(results / "records/quickstart", method="pipefusion")
    return tables.save(table, words(table, sweep.DEVICES_SHOWN), results / "tables", "quickstart_pipefusion")


def quickstart_fullest(results: Path) -> list[Path]:
    """The most that any rank of each method holds, sends and waits."""
    table = sweep.fullest(sweep.devices(results / "records/quickstart"))
    return tables.save(table, words(table, sweep.FULLEST_SHOWN), results / "tables", "quickstart_fullest")


def quickstart_pictures(results: Path) -> list[Path]:
    """The pictures of each method and their difference to serial's."""
    figure = figures.picture_grid(results / "records/quickstart")
    return style.save(figure, results / "figures", "quickstart_pictures") if figure else []


def quickstart_memory(results: Path) -> list[Path]:
    """Parameters and KV on every rank of every method."""
    figure = figures.memory_per_device(results / "records/quickstart")
    return style.save(figure, results / "figures", "quickstart_memory") if figure else []


OUTPUTS = [
    Output(
        quickstart_methods,
        SWEEP,
        COMMANDS,
        f"Every method on the shipped model: seconds, the fullest rank's bytes, distance to serial; {SOURCE}. "
        "Seconds on a CPU rank nothing.",
    ),
    Output(
        quickstart_devices,
        SWEEP,
        COMMANDS,
        f"Layers, bytes held, sent and waited for, on every rank of every method; {SOURCE}.",
    ),
    Output(
        quickstart_pipefusion,
        SWEEP,
        COMMANDS,
        f"The ranks of PipeFusion: each holds the parameters and the K, V of its own layers only; {SOURCE}.",
        "Section 3",
    ),
    Output(
        quickstart_fullest,
        SWEEP,
        COMMANDS,
        f"The most that any rank of each method holds, sends and waits for, each column on its own; {SOURCE}.",
    ),
    Output(
        quickstart_pictures,
        (RUNS, PICTURES),
        COMMANDS,
        f"The same noise and prompts by every method, and beside each picture its difference to serial's; {SOURCE}.",
    ),
    Output(
        quickstart_memory,
        SWEEP,
        COMMANDS,
        f"Parameters and K, V in MiB on every rank of every method; {SOURCE}.",
    ),
]
