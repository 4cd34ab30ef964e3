"""What staleness costs in the picture: every method against serial's pictures and real ones."""

from __future__ import annotations

from pathlib import Path

from analysis import style
from analysis.output import Output
from analysis.quality import figures as sweeps
from analysis.quality import paired, pareto
from analysis.quality import pictures as grid
from analysis.quality import record as measured
from analysis.quality import tables as qualities

FOLDER = "records/quality"
COMMANDS = ("python run.py experiment=quality",)
SOURCE = "measured on the shipped model, records/quality"


def quality_main(results: Path) -> list[Path]:
    """Every method's pictures against serial's and against real ones, with the floor of each metric where one is known
    that is comparable; measured on the shipped model, records/quality."""
    record = measured.load(results / FOLDER)
    table = qualities.main(record)
    text = qualities.readable_main(record, table)
    return qualities.save(record, table, text, results / "tables", "quality_main")


def quality_sweeps(results: Path) -> list[Path]:
    """The same over W, M, N, S, guidance and scheduler, a setting a row; measured on the shipped model,
    records/quality."""
    record = measured.load(results / FOLDER)
    table = qualities.sweeps(record)
    text = qualities.readable_sweeps(record, table)
    return qualities.save(record, table, text, results / "tables", "quality_sweeps")


def quality_pictures(results: Path) -> list[Path]:
    """The same prompts and noise by every method and W; measured on the shipped model, records/quality."""
    folder = results / FOLDER
    record = measured.load(folder)
    record = paired.on_common(record, paired.values(record), grid.shown(record).key)
    figure = grid.figure(record, folder)
    return style.save(figure, results / "figures", "quality_pictures") if figure else []


def quality_warmup(results: Path) -> list[Path]:
    """Error of the latent and distances between pictures against the synchronous steps W; measured on the shipped
    model, records/quality."""
    figure = sweeps.warmup(paired.of_studies(measured.load(results / FOLDER), "warmup"))
    return style.save(figure, results / "figures", "quality_warmup") if figure else []


def quality_patches(results: Path) -> list[Path]:
    """Error of the latent and distances between pictures against the patches M; measured on the shipped model,
    records/quality."""
    figure = sweeps.patches(paired.of_studies(measured.load(results / FOLDER), "patches", "devices"))
    return style.save(figure, results / "figures", "quality_patches") if figure else []


def quality_steps(results: Path) -> list[Path]:
    """Error of the latent and distances between pictures against S, guidance and scheduler; measured on the shipped
    model, records/quality."""
    figure = sweeps.steps(
        paired.of_studies(measured.load(results / FOLDER), "steps", "guidance", "scheduler")
    )
    return style.save(figure, results / "figures", "quality_steps") if figure else []


def quality_pareto(results: Path) -> list[Path]:
    """Error of the small model (measured) against latency of a large one (predicted), and which settings nothing beats;
    both from records/quality."""
    record = measured.load(results / FOLDER)
    if measured.predicted(record).empty:
        return []
    record = paired.on_common(record, paired.values(record), pareto.compared(record).key)
    written = pareto.save(record, pareto.table(record), results / "tables", "quality_pareto")
    figure = pareto.figure(record)
    return written + (style.save(figure, results / "figures", "quality_pareto") if figure else [])


OUTPUTS = [
    Output(quality_main, paired.FILES, COMMANDS, "Table 2"),
    Output(quality_sweeps, paired.FILES, COMMANDS, "Tables 2 and 3"),
    Output(quality_pictures, ("records/quality",), COMMANDS, "The figure of pictures"),
    Output(quality_warmup, paired.FILES, COMMANDS, "Table 3"),
    Output(quality_patches, paired.FILES, COMMANDS),
    Output(quality_steps, paired.FILES, COMMANDS),
    Output(quality_pareto, paired.FILES, COMMANDS),
]
