"""`measure=quality`: how far the pictures of every method and setting are from serial's and from real ones.

Settings are sampled (or stand in for each other where that has been measured), looked at by named networks, and
recorded with n, intervals and floors. Everything is kept under the run directory: the same command goes on where it
was killed.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated

from analysis.files import replacing
from experiments.check import check_square
from experiments.config import RunConfig, as_dict
from experiments.environment import provenance
from experiments.errors import ConfigError
from experiments.grid import cluster_config
from experiments.launch import resolved
from experiments.models import Model, open_model
from experiments.quality.equal import measure_equality
from experiments.quality.latency import latency_rows
from experiments.quality.networks import open_network
from experiments.quality.pools import samplers, sampling_gpu, workers_of
from experiments.quality.record import finite, model_facts, setting_row, write_images
from experiments.quality.results import control_rows, results
from experiments.quality.sample import Job, job_of, sample_all
from experiments.quality.settings import Planned, Setting, StudyConfig, check_settings, settings_of, why_not
from experiments.quality.subjects import Prompts, prompts_for, real_of
from experiments.quality.text_score import open_scorer
from experiments.records import write_json
from pipefusion.core.domain import Count, Domain, Grid, Natural, Pixels, Threads

OTHER_SEEDS = 10**6
"""Between the first seed of the pictures and that of the ones from other noise."""


@dataclass
class QualityConfig:
    """`studies` of settings, `pictures` of each (picture k: prompt k, seed `seed` + k), and what looks at them."""

    name: str = "quality"
    studies: Grid[StudyConfig] = field(default_factory=list)
    pictures: Annotated[int, Domain(2, 1 << 20)] = 2000
    batch: Count = 50
    workers: Threads | None = None  # processes at a time; null: one a core, to sample on GPUs one a GPU
    network: str = "efficientnet_lite0"  # or inception, inception:FILE
    clip: str | None = None  # folder or hub id of a CLIP; null: the shipped emoji scorer
    real: str | None = None  # folder of real pictures; null: what the model was trained on
    data_dir: str = "~/.cache/pipefusion-lab"
    # Fewer pictures than this have no distances of distributions: they would be all bias.
    fewest: Annotated[int, Domain(4, 1 << 20)] = 200
    resamples: Annotated[int, Domain(2, 1 << 20)] = 50  # of the intervals of Frechet distances
    # On which settings are compared, in simulation, that may stand in for each other; 0: every setting is sampled.
    equal_pictures: Natural = 2
    float32_pictures: Natural = 48  # serial again in float32, to see what the dtype alone does; 0: not
    other_seeds: bool = False  # serial again from other noise: what a change of seed does to a distance
    shown: Natural = 8  # pictures of a setting that are kept as PNG
    clusters: list[str] = field(default_factory=list)  # named hardware: its latencies are predicted beside
    latency_model: str = "pixart_alpha"
    latency_resolution: Pixels = 1024


def check_quality(cfg: RunConfig) -> None:
    """Raises ConfigError for whatever can be known to be wrong before anything is sampled."""
    options: QualityConfig = cfg.measure
    if cfg.cluster.world == "plan":
        raise ConfigError("cluster", f"{cfg.cluster.name} samples no pictures; allowed: sim, local")
    if isinstance(cfg.seed, list):
        raise ConfigError("seed", f"{cfg.seed} is a list; allowed: one number, that of the first picture")
    check_square(cfg)
    cfg = resolved(cfg, open_model(cfg.model))
    check_settings(cfg)
    model = open_model(cfg.model)
    prompts_for(cfg, model)
    real_of(cfg, model)
    open_network(options.network)
    open_scorer(options.clip)
    for name in options.clusters:
        if cluster_config(name).world != "plan":
            raise ConfigError("measure.clusters", f"{name} has no costs; allowed: clusters of named hardware")


def quality(cfg: RunConfig, out: Path) -> str:
    """Sample, look, compare; writes quality.json, paired.parquet and images/ into `out`; returns the run's status."""
    model = open_model(cfg.model)
    cfg, options = resolved(cfg, model), cfg.measure
    prompts, real = prompts_for(cfg, model), real_of(cfg, model)
    planned = settings_of(cfg)
    for one in planned:
        why = why_not(one.setting, cfg)
        one.ended = None if why is None else ("skipped", why)
    able = [one for one in planned if one.ended is None]
    with samplers(cfg) as pool:
        measure_equality(able, cfg, model, prompts, out, pool)
    jobs = jobs_of(able, cfg, model, prompts, out)
    controls = control_jobs(jobs, cfg, model, prompts, out)
    failures = sample_all([*jobs.values(), *controls.values()], cfg)
    for one in able:
        one.ended = failures.get(jobs[one.source])
    done = {setting: job for setting, job in jobs.items() if job not in failures}
    good = [one for one in able if one.ended is None]
    with workers_of(cfg) as pool:
        metrics, floors, paired = results(good, done, cfg, prompts, real, pool, out)
    for kind, job in controls.items():
        if job not in failures and job.setting in done:
            floors += control_rows(kind, done[job.setting], job, cfg, prompts)
    record = {
        **provenance(sampling_gpu(cfg)),
        "config": as_dict(cfg),
        "model": model_facts(model, cfg),
        "interval": "95 % intervals",
        "prompts": {role or "given": prompts.roles.count(role) for role in sorted(set(prompts.roles))},
        "real": {"what": real.what, "pictures": len(real)},
        "settings": [setting_row(one, done, cfg.model.dtype) for one in planned],
        "metrics": metrics,
        "floors": floors,
        "latency": latency_rows(planned, cfg) if options.clusters else [],
    }
    with replacing(out / "paired.parquet") as temporary:
        paired.to_parquet(temporary, index=False)
    write_images(out, [*done.values()], options.shown)
    write_json(out / "quality.json", finite(record))
    show(out)
    return told(planned)


def told(planned: list[Planned]) -> str:
    """Say how settings ended that did not end well; the status of the run."""
    status = "ok"
    for one in planned:
        if one.ended is not None:
            how, reason = one.ended
            status = status if how == "skipped" else "failed"
            stream = sys.stdout if how == "skipped" else sys.stderr
            print(f"{how}: {one.setting.key}: {reason}", file=stream, flush=True)
    return status


def jobs_of(
    able: list[Planned], cfg: RunConfig, model: Model, prompts: Prompts, out: Path
) -> dict[Setting, Job]:
    """What has to be sampled: each source with the most pictures that anything made from it wants."""
    wanted: dict[Setting, int] = {}
    for one in able:
        wanted[one.source] = max(wanted.get(one.source, 0), one.pictures)
    return {setting: job_of(setting, count, cfg, model, prompts, out) for setting, count in wanted.items()}


def control_jobs(
    jobs: dict[Setting, Job], cfg: RunConfig, model: Model, prompts: Prompts, out: Path
) -> dict[str, Job]:
    """Serial once more where the floors need it: in float32, and from other seeds."""
    found, options = {}, cfg.measure
    assert cfg.guidance_scale is not None and cfg.model.resolution is not None
    own = Setting("serial", 1, None, None, cfg.steps, cfg.guidance_scale, cfg.scheduler, cfg.model.resolution)
    if options.float32_pictures and cfg.model.dtype != "float32" and own in jobs:
        exact = replace(cfg, model=replace(cfg.model, dtype="float32"))
        found["float32"] = job_of(own, options.float32_pictures, exact, model, prompts, out)
    serial = [job for job in jobs.values() if job.setting.method == "serial"]
    largest = max(serial, key=lambda job: job.pictures, default=None)
    if options.other_seeds and largest is not None and largest.pictures >= options.fewest:
        other = replace(cfg, seed=cfg.seed + OTHER_SEEDS)
        found["seeds"] = job_of(largest.setting, largest.pictures, other, model, prompts, out)
    return found


def show(out: Path) -> None:
    """Print the main columns of the record's table; all of it and the floors are in `quality_main` of analysis."""
    # Here and not above: matplotlib and pandas' tables are for those who print them.
    from analysis.quality import tables as report
    from analysis.terminal import make_console, rich_table

    console, record = make_console(), report.load(out)
    text = report.main_text(record, report.main(record))
    told, short = ("Fréchet", "FID", "latent", "PSNR"), ("method", "N", "M", "W", "n")
    text = text[[name for name in text.columns if name.startswith(told) or name in short]]
    text = text[~text.method.str.startswith("*")]  # floors: too long a name for a terminal
    text = text.rename(columns=lambda name: name.partition(" (")[0].rstrip(" ↓↑").replace(" distance", ""))
    console.print(rich_table(text, f"Quality, features of {record['config']['measure']['network']}"))
    console.print(str(out / "quality.json"), highlight=False)
