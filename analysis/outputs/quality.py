"""What staleness costs in the picture: every method against serial's pictures and real ones."""

from __future__ import annotations

from pathlib import Path

from analysis import style
from analysis.output import Output
from analysis.quality import figures as sweeps
from analysis.quality import pareto
from analysis.quality import pictures as grid
from analysis.quality import record as measured
from analysis.quality import tables as qualities

RECORD = "records/quality/quality.json"
COMMANDS = ("python run.py experiment=quality",)
SOURCE = "measured on the shipped model, records/quality"


def quality_main(results: Path) -> list[Path]:
    """Every method's pictures beside serial's and real ones, with the floor of each metric."""
    record = measured.load(results / "records/quality")
    table = qualities.main(record)
    text = qualities.main_text(record, table)
    return qualities.save(record, table, text, results / "tables", "quality_main")


def quality_sweeps(results: Path) -> list[Path]:
    """The same over W, M, N, S, guidance and scheduler."""
    record = measured.load(results / "records/quality")
    table = qualities.sweeps(record, results / "records/quality")
    text = qualities.sweeps_text(record, table)
    return qualities.save(record, table, text, results / "tables", "quality_sweeps")


def quality_pictures(results: Path) -> list[Path]:
    """The same prompts and noise by every method and W."""
    figure = grid.figure(measured.load(results / "records/quality"), results / "records/quality")
    return style.save(figure, results / "figures", "quality_pictures") if figure else []


def quality_warmup(results: Path) -> list[Path]:
    """Error and distances against the number of synchronous steps."""
    figure = sweeps.warmup(measured.load(results / "records/quality"))
    return style.save(figure, results / "figures", "quality_warmup") if figure else []


def quality_patches(results: Path) -> list[Path]:
    """Error and distances against the number of patches."""
    figure = sweeps.patches(measured.load(results / "records/quality"))
    return style.save(figure, results / "figures", "quality_patches") if figure else []


def quality_steps(results: Path) -> list[Path]:
    """Error and distances against S, guidance and scheduler."""
    figure = sweeps.steps(measured.load(results / "records/quality"))
    return style.save(figure, results / "figures", "quality_steps") if figure else []


def quality_pareto(results: Path) -> list[Path]:
    """Measured error of the small model beside predicted latency of a large one, and what nothing beats."""
    record = measured.load(results / "records/quality")
    if not record["latency"]:
        return []
    written = pareto.save(record, pareto.table(record), results / "tables", "quality_pareto")
    figure = pareto.figure(record)
    return written + (style.save(figure, results / "figures", "quality_pareto") if figure else [])


OUTPUTS = [
    Output(
        quality_main,
        (RECORD,),
        COMMANDS,
        "Every method's pictures against serial's and against real ones, with the floor of each metric at the same "
        f"number of pictures; {SOURCE}.",
        "Table 2",
    ),
    Output(
        quality_sweeps,
        (RECORD, "records/quality/*.parquet"),
        COMMANDS,
        f"The same over W, M, N, S, guidance and scheduler, a setting a row; {SOURCE}.",
        "Tables 2 and 3",
    ),
    Output(
        quality_pictures,
        (RECORD, "records/quality/grid*.json", "records/quality/images/**/*.png"),
        COMMANDS,
        f"The same prompts and noise by every method and W; {SOURCE}.",
        "The figure of pictures",
    ),
    Output(
        quality_warmup,
        (RECORD,),
        COMMANDS,
        f"Error of the latent and distances between pictures against the synchronous steps W; {SOURCE}.",
        "Table 3",
    ),
    Output(
        quality_patches,
        (RECORD,),
        COMMANDS,
        f"Error of the latent and distances between pictures against the patches M; {SOURCE}.",
    ),
    Output(
        quality_steps,
        (RECORD,),
        COMMANDS,
        f"Error of the latent and distances between pictures against S, guidance and scheduler; {SOURCE}.",
    ),
    Output(
        quality_pareto,
        (RECORD,),
        COMMANDS,
        "Error of the small model (measured) against latency of a large one (predicted), and which settings nothing "
        "beats; both from records/quality.",
    ),
]
