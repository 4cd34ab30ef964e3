"""The paper's figures that are predictions at full size: latency, memory, communication, overlap."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from analysis.output import Output
from analysis.paper import communication, latency, memory, memory_published, overlap
from analysis.predicted import scaling
from analysis.presentation.style import Drawing
from analysis.presentation.tables import Table
from analysis.records.committed import LATENCY, OVERLAP, PREDICTIONS

DPI = 120
"""Sheets of many panels are wide enough at fewer points an inch."""


def paper_latency(results: Path) -> Sequence[Table | Drawing]:
    """Predicted latency of every method on eight devices (large dots, records/paper/latency; log scale), with the
    published points of the same setting (markers; hollow where the profile is fitted on them, pale where the source is
    in doubt)."""
    record = latency.load(results)
    models = dict.fromkeys(row["model"] for row in record["rows"])
    sheets = [Drawing(latency.figure(record, model), f"_{model}", DPI) for model in models]
    return [latency.tabulate(record), *sheets]


def paper_memory(results: Path) -> Sequence[Table | Drawing]:
    """Predicted peak of the fullest device by method and resolution, transformer only (records/paper/latency); in a
    second figure its difference to one device beside that of the published peaks (published/memory.csv), which hold the
    text encoders too."""
    record, published = scaling.load(results / LATENCY), results / memory_published.PUBLISHED
    return [
        memory.tabulate(record),
        memory_published.tabulate(record, published),
        Drawing(memory.figure(record), dpi=DPI),
        Drawing(memory_published.figure(record, published), "_published", DPI),
    ]


def paper_communication(results: Path) -> Sequence[Table | Drawing]:
    """Predicted share of communication by the paper's formula, share of the latency in which the busiest device does
    not compute, and bytes sent (lines, records/paper/latency), with the two published shares (published/claims.csv)."""
    record, claims = scaling.load(results / LATENCY), results / communication.CLAIMS
    return [communication.tabulate(record, claims), Drawing(communication.figure(record, claims), dpi=DPI)]


def paper_overlap(results: Path) -> Sequence[Table | Drawing]:
    """Predicted latency with every step synchronous (hatched) and with W = 1 (full), and serial / N; a cross where the
    published latency contradicts the overlap (records/paper/overlap)."""
    record = scaling.load(results / OVERLAP)
    return [overlap.tabulate(record), Drawing(overlap.figure(record), dpi=DPI)]


OUTPUTS = [
    Output(
        paper_latency,
        (LATENCY, PREDICTIONS),
        "Table 4 and Figure 5, latency: PixArt, SD3, Flux, HunyuanDiT on L20, L40, A100",
    ),
    Output(paper_memory, (LATENCY, memory_published.PUBLISHED), "Section 4, memory by method and size"),
    Output(paper_communication, (LATENCY, communication.CLAIMS), "Section 4.1, the share of communication"),
    Output(paper_overlap, (OVERLAP,), "Section 4, synchronous against asynchronous"),
]
