"""The methods of 2024-2026 beside each other, and what their abstracts claim."""

from __future__ import annotations

from pathlib import Path

from analysis.evidence import methods, tables
from analysis.methods import comparison, comparison_figure, comparison_tables, comparison_warmup
from analysis.output import Output
from analysis.presentation.style import Drawing
from analysis.presentation.tables import Table, table
from analysis.records.committed import METHODS_2026, PIPEFUSION_SETTINGS, PREDICTIONS
from analysis.records.study import load_study

DRAWN = ((1024, 4, 20), (2048, 4, 20), (2048, 8, 20))
"""Size, N and S of the figures."""


def methods_2026(results: Path) -> list[Table | Drawing]:
    """Every method and knob from the same noise: distance to serial, measured on the shipped picture model, beside
    latency and bytes predicted for PixArt; what is nearer and faster than PipeFusion; which forecast suits stages in
    rotation; how many steps step caches compute; all from records/methods_2026, intervals from the errors of
    records/published."""
    record = load_study(results / METHODS_2026)
    rows = comparison.with_intervals(comparison.joined(record.rows), results)
    note = comparison_tables.about(record, rows)
    figures = [
        Drawing(comparison_figure.figure(rows, *task, note), "_{}px_N{}".format(*task)) for task in DRAWN
    ]
    return [
        comparison_tables.every(rows, note),
        comparison_tables.usual(rows, note),
        comparison_tables.better(rows, note),
        comparison_tables.forecasts(rows, note),
        comparison_tables.caches(record.rows, note),
        *figures,
    ]


def pipefusion_settings(results: Path) -> list[Table | Drawing]:
    """PipeFusion's own settings from the same noise: how many synchronous steps a threshold and a fixed W need for the
    same distance to serial, and what micro-batches save; distances measured on the shipped picture model, latencies
    predicted for PixArt, all from records/pipefusion_settings."""
    record = load_study(results / PIPEFUSION_SETTINGS)
    rows = comparison.with_intervals(comparison.joined(record.rows), results)
    note, warmups = comparison_tables.about(record, rows), comparison_warmup.warmups(record.rows)
    return [
        comparison_tables.every(rows, note),
        comparison_warmup.table(warmups, note),
        Drawing(comparison_warmup.figure(warmups, note), "_warmup"),
    ]


def methods_claims(results: Path) -> list[Table]:
    """What the abstracts of other methods claim (published/methods), ours beside it where it is tested here
    (records/methods_2026), and a verdict that one function makes of the two."""
    found = methods.load(results)
    rows = tables.claims(list(methods.claims(found)))
    return [table(rows, tables.claims_text(rows, found.abstracts))]


OUTPUTS = [
    Output(methods_2026, (METHODS_2026, PREDICTIONS, "published/*.csv")),
    Output(pipefusion_settings, (PIPEFUSION_SETTINGS, PREDICTIONS, "published/*.csv")),
    Output(methods_claims, (METHODS_2026, PREDICTIONS, "published/*.csv", methods.ABSTRACTS)),
]
