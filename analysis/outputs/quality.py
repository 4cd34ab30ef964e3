"""What staleness costs in the picture: every method against serial's pictures and real ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from analysis.output import Output
from analysis.presentation.style import Drawing, drawings
from analysis.presentation.tables import Table, table
from analysis.quality import figures as sweeps
from analysis.quality import paired
from analysis.quality import pictures as grid
from analysis.quality import record as measured
from analysis.quality import tables as qualities
from analysis.records.committed import PAIRED, QUALITY


def quality_main(results: Path) -> list[Table]:
    """Every method's pictures against serial's and against real ones, with the floor of each metric where one is known
    that is comparable; measured on the shipped model, records/quality."""
    record = measured.load(results / QUALITY)
    rows = qualities.main(record)
    return [table(rows, qualities.readable_main(record, rows), after=qualities.notes(record, rows))]


def quality_sweeps(results: Path) -> list[Table]:
    """The same over W, M, N, S, guidance and scheduler, a setting a row; measured on the shipped model,
    records/quality."""
    record = measured.load(results / QUALITY)
    rows = qualities.sweeps(record)
    return [table(rows, qualities.readable_sweeps(record, rows), after=qualities.notes(record, rows))]


def quality_pictures(results: Path) -> list[Drawing]:
    """The same prompts and noise by every method and W; measured on the shipped model, records/quality."""
    folder = results / QUALITY
    record = measured.load(folder)
    record = paired.on_common(record, paired.values(record), grid.shown(record).key)
    return drawings(grid.figure(record, folder))


def load_sweeps(results: Path, *studies: str) -> dict[str, Any]:
    """The record, with the settings of some sweeps compared on the pictures that all of them have."""
    return paired.of_studies(measured.load(results / QUALITY), *studies)


def quality_warmup(results: Path) -> list[Drawing]:
    """Error of the latent and distances between pictures against the synchronous steps W; measured on the shipped
    model, records/quality."""
    return drawings(sweeps.warmup(load_sweeps(results, "warmup")))


def quality_patches(results: Path) -> list[Drawing]:
    """Error of the latent and distances between pictures against the patches M; measured on the shipped model,
    records/quality."""
    return drawings(sweeps.patches(load_sweeps(results, "patches", "devices")))


def quality_steps(results: Path) -> list[Drawing]:
    """Error of the latent and distances between pictures against S, guidance and scheduler; measured on the shipped
    model, records/quality."""
    return drawings(sweeps.steps(load_sweeps(results, "steps", "guidance", "scheduler")))


OUTPUTS = [
    Output(quality_main, PAIRED, "Table 2"),
    Output(quality_sweeps, PAIRED, "Tables 2 and 3"),
    Output(quality_pictures, (QUALITY,), "Section 4, pictures side by side"),
    Output(quality_warmup, PAIRED, "Table 3"),
    Output(quality_patches, PAIRED),
    Output(quality_steps, PAIRED),
]
