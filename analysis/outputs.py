"""Every committed table and figure: a function each, from the results folder to the files it has written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pandas as pd

from analysis import accounting as accounts
from analysis import accounting_figure, figures, params, published, scaling, style, tables
from analysis import loading as loads
from analysis import quality as qualities
from analysis import quality_figures as sweeps
from analysis import quality_pareto as pareto
from analysis import quality_pictures as grid
from analysis import quality_record as measured
from analysis import staleness as stale
from analysis import staleness_figures as stale_figures
from analysis import staleness_lanes as lanes
from analysis import text_variants as texts
from analysis.gantt import gantt
from analysis.timeline import read

PREDICTIONS = "records/published/predictions.json"


def quickstart_methods(results: Path) -> list[Path]:
    """The eight methods side by side: latency, the fullest rank, distance to serial."""
    table = tables.methods(results / "records/quickstart")
    return tables.save(table, tables.methods_text(table), results / "tables", "quickstart_methods")


def quickstart_devices(results: Path) -> list[Path]:
    """What every rank of every method held, sent and waited for."""
    table = tables.devices(results / "records/quickstart")
    return tables.save(table, tables.devices_text(table), results / "tables", "quickstart_devices")


def quickstart_pipefusion(results: Path) -> list[Path]:
    """The same, PipeFusion only."""
    table = tables.devices(results / "records/quickstart", method="pipefusion")
    return tables.save(table, tables.devices_text(table), results / "tables", "quickstart_pipefusion")


def quickstart_fullest(results: Path) -> list[Path]:
    """The most that any rank of each method holds, sends and waits."""
    table = tables.fullest(tables.devices(results / "records/quickstart"))
    return tables.save(table, tables.fullest_text(table), results / "tables", "quickstart_fullest")


def quickstart_pictures(results: Path) -> list[Path]:
    """The pictures of each method and their difference to serial's."""
    figure = figures.picture_grid(results / "records/quickstart")
    return style.save(figure, results / "figures", "quickstart_pictures") if figure else []


def quickstart_memory(results: Path) -> list[Path]:
    """Parameters and KV on every rank of every method."""
    figure = figures.memory_per_device(results / "records/quickstart")
    return style.save(figure, results / "figures", "quickstart_memory") if figure else []


def bench_cpu(results: Path) -> list[Path]:
    """Ratios to serial on two CPU cores, with PipeFusion's bound."""
    table = tables.bench(results / "records/bench/bench.json")
    return tables.save(table, tables.bench_text(table), results / "tables", "bench_cpu")


def params_per_device(results: Path) -> list[Path]:
    """How PipeFusion stores 1/N of the parameters: every device of every model and method."""
    record, table = params.load(results / "records/params")
    written = params.save(record, table, results / "tables", "params_per_device")
    return written + style.save(params.figure(record, table), results / "figures", "params_per_device")


def published_predictions(results: Path) -> list[Path]:
    """Every prediction beside its published number."""
    table = predictions_of(results)
    return tables.save(table, published.table_text(table), results / "tables", "published_predictions")


def published_errors(results: Path) -> list[Path]:
    """How far off the predictions are, calibration left out."""
    return published.save_statistics(predictions_of(results), results / "tables", "published_errors")


def scaling_predicted(results: Path) -> list[Path]:
    """Predicted latency and peak memory against N, with the published points of the same hardware."""
    record = scaling.load(results / "records/scaling/scaling.json")
    written = scaling.save(record, results / "tables", "scaling")
    return written + style.save(scaling.figure(record), results / "figures", "scaling")


def predictions_of(results: Path) -> pd.DataFrame:
    """The committed predictions joined with the published rows."""
    return published.joined(published.load(results / PREDICTIONS), results / "published")


def timeline(results: Path) -> list[Path]:
    """Where every millisecond of one predicted run goes."""
    run, spans = read(results / "records/timeline")
    return style.save(gantt(run, spans), results / "figures", "timeline")


def loading(results: Path) -> list[Path]:
    """What a rank needs in memory to load its part of a checkpoint."""
    table = loads.fullest(results / "records/loading")
    return tables.save(table, loads.fullest_text(table), results / "tables", "loading")


def text_variants(results: Path) -> list[Path]:
    """An MM-DiT's prompt between stages: what either treatment gives and sends."""
    record = texts.load(results / "records/text/text_variants.json")
    return texts.save(record, results / "tables")


def staleness_freshness(results: Path) -> list[Path]:
    """How old the K, V are that every method attends to."""
    return stale.save_freshness(stale.load(results / "records/staleness"), results / "tables")


def staleness_redundancy(results: Path) -> list[Path]:
    """How much hidden states, K and V change from step to step."""
    return stale.save_redundancy(stale.load(results / "records/staleness"), results / "tables")


def staleness_error(results: Path) -> list[Path]:
    """What stale K, V do to attention and to the latent."""
    return stale.save_errors(stale.load(results / "records/staleness"), results / "tables")


def staleness_heatmap(results: Path) -> list[Path]:
    """Change and error by layer and step."""
    figure = stale_figures.heatmap(stale.load(results / "records/staleness"))
    return style.save(figure, results / "figures", "staleness_heatmap")


def staleness_fresh_share(results: Path) -> list[Path]:
    """The age of K, V job by job, a lane a method."""
    figure = lanes.fresh_share(stale.load(results / "records/staleness"))
    return style.save(figure, results / "figures", "staleness_fresh_share")


def staleness_error_map(results: Path) -> list[Path]:
    """Where in the picture the final latent differs from serial's."""
    figure = stale_figures.error_map(stale.load(results / "records/staleness"))
    return style.save(figure, results / "figures", "staleness_error_map")


def staleness_steps(results: Path) -> list[Path]:
    """How far the latent is from serial's after every step."""
    figure = stale_figures.steps(stale.load(results / "records/staleness"))
    return style.save(figure, results / "figures", "staleness_steps")


def worlds(results: Path) -> list[Path]:
    """Wall clock, virtual and planned time of the same runs on two CPU cores."""
    table = tables.worlds(results / "records/worlds/worlds.json")
    return tables.save(table, tables.worlds_text(table), results / "tables", "worlds")


def accounting(results: Path) -> list[Path]:
    """What every device of every full-size model holds and sends, with Table 1 of the paper beside it."""
    record, table = accounts.load(results / "records/accounting")
    written = accounts.save(record, table, results / "published", results / "tables", "accounting")
    return written + style.save(accounting_figure.figure(record, table), results / "figures", "accounting")


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


OUTPUTS: list[Callable[[Path], list[Path]]] = [
    quickstart_methods,
    quickstart_devices,
    quickstart_pipefusion,
    quickstart_fullest,
    quickstart_pictures,
    quickstart_memory,
    bench_cpu,
    params_per_device,
    published_predictions,
    published_errors,
    timeline,
    worlds,
    scaling_predicted,
    accounting,
    staleness_freshness,
    staleness_redundancy,
    staleness_error,
    staleness_heatmap,
    staleness_fresh_share,
    staleness_error_map,
    staleness_steps,
    text_variants,
    loading,
    quality_main,
    quality_sweeps,
    quality_pictures,
    quality_warmup,
    quality_patches,
    quality_steps,
    quality_pareto,
]
