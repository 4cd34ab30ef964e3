"""How old the K, V are that each method attends to, and what that does to attention and to the picture."""

from __future__ import annotations

from pathlib import Path

from analysis import style, tables
from analysis.columns import words
from analysis.output import Output
from analysis.staleness import figures as stale_figures
from analysis.staleness import lanes as lanes
from analysis.staleness import tables as stale

RECORDS = ("records/staleness",)
COMMANDS = ("python run.py experiment=staleness",)
SOURCE = "measured on the shipped model, records/staleness"


def staleness_freshness(results: Path) -> list[Path]:
    """Which share of the K, V attended to is fresh, and how many steps old the rest is; measured on the shipped model,
    records/staleness."""
    record = stale.load(results / "records/staleness")
    table, note = stale.freshness(record), stale.FRESHNESS_NOTE.format(**record.probed)
    text = words(table, stale.headed(stale.FRESHNESS, table))
    return tables.save(table, text, results / "tables", "staleness_freshness", after=note)


def staleness_redundancy(results: Path) -> list[Path]:
    """How much hidden states, K and V change from one step to the next; measured on the shipped model,
    records/staleness."""
    record = stale.load(results / "records/staleness")
    table, note = (
        stale.redundancy(record),
        stale.REDUNDANCY_NOTE.format(**record.source, ahead=stale.ahead_of(record)),
    )
    return tables.save(
        table, words(table, stale.REDUNDANCY), results / "tables", "staleness_redundancy", after=note
    )


def staleness_error(results: Path) -> list[Path]:
    """What stale K, V do to the output of attention and to the final latent; measured on the shipped model,
    records/staleness."""
    record = stale.load(results / "records/staleness")
    table, note = stale.errors(record), stale.ERROR_NOTE.format(**record.source)
    text = words(table, stale.headed(stale.ERRORS, table))
    return tables.save(table, text, results / "tables", "staleness_error", after=note)


def staleness_heatmap(results: Path) -> list[Path]:
    """Change from step to step and error of attention, by layer and step; measured on the shipped model,
    records/staleness."""
    figure = stale_figures.heatmap(stale.load(results / "records/staleness"))
    return style.save(figure, results / "figures", "staleness_heatmap")


def staleness_fresh_share(results: Path) -> list[Path]:
    """How old the K, V are that each job attends to, a lane a method; measured on the shipped model,
    records/staleness."""
    figure = lanes.fresh_share(stale.load(results / "records/staleness"))
    return style.save(figure, results / "figures", "staleness_fresh_share")


def staleness_error_map(results: Path) -> list[Path]:
    """Where in the picture the final latent differs from serial's; measured on the shipped model, records/staleness."""
    figure = stale_figures.error_map(stale.load(results / "records/staleness"))
    return style.save(figure, results / "figures", "staleness_error_map")


def staleness_steps(results: Path) -> list[Path]:
    """How far the latent is from serial's after every step; measured on the shipped model, records/staleness."""
    figure = stale_figures.steps(stale.load(results / "records/staleness"))
    return style.save(figure, results / "figures", "staleness_steps")


OUTPUTS = [
    Output(staleness_freshness, RECORDS, COMMANDS, "Section 3, fresh and stale K, V"),
    Output(staleness_redundancy, RECORDS, COMMANDS, "Section 3, input temporal redundancy"),
    Output(staleness_error, RECORDS, COMMANDS),
    Output(staleness_heatmap, RECORDS, COMMANDS, "Section 3, input temporal redundancy"),
    Output(staleness_fresh_share, RECORDS, COMMANDS, "Section 3, fresh and stale K, V"),
    Output(staleness_error_map, RECORDS, COMMANDS),
    Output(staleness_steps, RECORDS, COMMANDS),
]
