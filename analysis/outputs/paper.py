"""The paper's figures that are predictions at full size: latency, memory, communication, overlap."""

from __future__ import annotations

from pathlib import Path

from analysis import scaling, style
from analysis.output import Output
from analysis.paper import communication, latency, memory, memory_published, overlap

DPI = 120
"""Sheets of many panels are wide enough at fewer points an inch."""


def paper_latency(results: Path) -> list[Path]:
    """Every method on eight devices, by model, cluster and resolution: a table, and a figure a model."""
    record = latency.load(results)
    written = latency.save(record, results / "tables", "paper_latency")
    for model in dict.fromkeys(row["model"] for row in record["rows"]):
        sheet = latency.figure(record, model)
        written += style.save(sheet, results / "figures", f"paper_latency_{model}", DPI)
    return written


def paper_memory(results: Path) -> list[Path]:
    """What the fullest device of each method holds, and that against the published peaks."""
    record, published = scaling.load(results / memory.SOURCE), results / memory_published.PUBLISHED
    written = memory.save(record, results / "tables", "paper_memory")
    written += memory_published.save(record, published, results / "tables", "paper_memory_published")
    written += style.save(memory.figure(record), results / "figures", "paper_memory", DPI)
    beside = memory_published.figure(record, published)
    return written + style.save(beside, results / "figures", "paper_memory_published", DPI)


def paper_communication(results: Path) -> list[Path]:
    """The share of communication by the paper's formula, what no device computes meanwhile, and bytes sent."""
    record, claims = scaling.load(results / communication.SOURCE), results / communication.CLAIMS
    written = communication.save(record, claims, results / "tables", "paper_communication")
    sheet = communication.figure(record, claims)
    return written + style.save(sheet, results / "figures", "paper_communication", DPI)


def paper_overlap(results: Path) -> list[Path]:
    """The same methods with every step synchronous, and with W = 1."""
    record = scaling.load(results / overlap.SOURCE)
    written = overlap.save(record, results / "tables", "paper_overlap")
    return written + style.save(overlap.figure(record), results / "figures", "paper_overlap", DPI)


PLANNED = "python run.py experiment=paper/latency"

OUTPUTS = [
    Output(
        paper_latency,
        (latency.SOURCE, latency.OWN),
        (PLANNED, "python run.py experiment=predict_published"),
        "Predicted latency of every method on eight devices (bars from serial / N, records/paper/latency), with the "
        "published points of the same setting (markers; hollow where the profile is fitted on them, pale where the "
        "source is in doubt).",
        "The figures of latency: PixArt, SD3, Flux, HunyuanDiT on L20, L40, A100 PCIe and A100 NVLink",
    ),
    Output(
        paper_memory,
        (memory.SOURCE, memory_published.PUBLISHED),
        (PLANNED,),
        "Predicted peak of the fullest device by method and resolution, transformer only (records/paper/latency); in a "
        "second figure its difference to one device beside that of the published peaks (published/memory.csv), which "
        "hold the text encoders too.",
        "The figures of memory",
    ),
    Output(
        paper_communication,
        (communication.SOURCE, communication.CLAIMS),
        (PLANNED,),
        "Predicted share of communication by the paper's formula, share of the latency in which the busiest device "
        "does not compute, and bytes sent (lines, records/paper/latency), with the two published shares "
        "(published/claims.csv).",
        "Section 4.1, the share of communication",
    ),
    Output(
        paper_overlap,
        (overlap.SOURCE,),
        ("python run.py experiment=paper/overlap",),
        "Predicted latency with every step synchronous (hatched) and with W = 1 (full), and serial / N "
        "(records/paper/overlap).",
        "The ablation of asynchrony",
    ),
]
