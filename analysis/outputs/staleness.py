"""How old the K, V are that each method attends to, and what that does to attention and to the picture."""

from __future__ import annotations

from pathlib import Path

from analysis.output import Output
from analysis.presentation.columns import words
from analysis.presentation.style import Drawing
from analysis.presentation.tables import Table, table
from analysis.records.committed import MOVING, STALENESS, STILL
from analysis.staleness import figures, frames, lanes
from analysis.staleness import tables as stale


def staleness_freshness(results: Path) -> list[Table]:
    """Which share of the K, V attended to is fresh, and how many steps old the rest is; measured on the shipped model,
    records/staleness."""
    record = stale.load(results / STALENESS)
    rows, note = stale.freshness(record), stale.FRESHNESS_NOTE.format(**record.probed)
    return [table(rows, words(rows, stale.headed(stale.FRESHNESS, rows)), after=note)]


def staleness_redundancy(results: Path) -> list[Table]:
    """How much hidden states, K and V change from one step to the next; measured on the shipped model,
    records/staleness."""
    record = stale.load(results / STALENESS)
    note = stale.REDUNDANCY_NOTE.format(**record.source, ahead=stale.first_changes(record))
    rows = stale.redundancy(record)
    return [table(rows, words(rows, stale.REDUNDANCY), after=note)]


def staleness_error(results: Path) -> list[Table]:
    """What stale K, V do to the output of attention and to the final latent; measured on the shipped model,
    records/staleness."""
    record = stale.load(results / STALENESS)
    rows, note = stale.errors(record), stale.ERROR_NOTE.format(**record.source)
    return [table(rows, words(rows, stale.headed(stale.ERRORS, rows)), after=note)]


def staleness_frames(results: Path) -> list[Table]:
    """Change from step to step and error of attention by latent frame, of still clips and of moving ones; measured on
    the shipped video model, records/staleness_still and staleness_moving."""
    records = {"still": stale.load(results / STILL), "moving": stale.load(results / MOVING)}
    rows = frames.by_frame(records)
    return [table(rows, frames.readable(rows), after=frames.NOTE.format(**records["still"].source))]


def staleness_heatmap(results: Path) -> list[Drawing]:
    """Change from step to step and error of attention, by layer and step; measured on the shipped model,
    records/staleness."""
    return [Drawing(figures.heatmap(stale.load(results / STALENESS)))]


def staleness_fresh_share(results: Path) -> list[Drawing]:
    """How old the K, V are that each job attends to, a lane a method; measured on the shipped model,
    records/staleness."""
    return [Drawing(lanes.fresh_share(stale.load(results / STALENESS)))]


def staleness_error_map(results: Path) -> list[Drawing]:
    """Where in the picture the final latent differs from serial's; measured on the shipped model, records/staleness."""
    return [Drawing(figures.error_map(stale.load(results / STALENESS)))]


def staleness_steps(results: Path) -> list[Drawing]:
    """How far the latent is from serial's after every step; measured on the shipped model, records/staleness."""
    return [Drawing(figures.steps(stale.load(results / STALENESS)))]


OUTPUTS = [
    Output(staleness_freshness, (STALENESS,), "Section 3, fresh and stale K, V"),
    Output(staleness_redundancy, (STALENESS,), "Section 3, input temporal redundancy"),
    Output(staleness_error, (STALENESS,)),
    Output(staleness_frames, (STILL, MOVING)),
    Output(staleness_heatmap, (STALENESS,), "Section 3, input temporal redundancy"),
    Output(staleness_fresh_share, (STALENESS,), "Section 3, fresh and stale K, V"),
    Output(staleness_error_map, (STALENESS,)),
    Output(staleness_steps, (STALENESS,)),
]
