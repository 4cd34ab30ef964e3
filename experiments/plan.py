"""`cluster=l40_pcie` and the like: the same run on `meta` tensors, with the predicted time of named hardware."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from experiments import records
from experiments.config import RunConfig, prompts_of
from experiments.errors import RunFailed
from experiments.methods import METHODS, parallel_of
from experiments.models import Model, scheduler_of
from experiments.report import RankReport, held_parameters, write_report
from pipefusion.core.dit import Conditioning, DiT
from pipefusion.core.shape import DiTShape
from pipefusion.sim.plan import META, Costs, PlannedRank, plan_ranks

GIB = 2**30


@dataclass
class Planned:
    """What a run would take. `latency_s` is None when a device does not hold it; bytes are known in either case."""

    reports: list[RankReport]
    latency_s: float | None
    reason: str | None = None
    missing_bytes: int = 0

    @property
    def peak_bytes(self) -> int:
        """Of the fullest device."""
        return max(report.peak_bytes or 0 for report in self.reports)


@dataclass
class Planner:
    """Plans runs, and keeps what they have in common: one view a model and size, and the costs of its blocks."""

    templates: dict[tuple[Any, ...], DiT] = field(default_factory=dict)
    costs: Costs = field(default_factory=Costs)

    def ranks(self, cfg: RunConfig, model: Model) -> list[PlannedRank]:
        """Every rank of a run; `cfg` as `launch.resolved` gives it. Raises `RankFailed` and `SimulationError`."""
        hardware, method, shape = cfg.cluster.hardware, METHODS[cfg.method.name], model.shape
        assert hardware is not None and cfg.guidance_scale is not None
        key = (cfg.model.name, cfg.model.weights, model.height, model.width, model.dtype)
        if key not in self.templates:
            self.templates[key] = model.view()
        noise, cond = empty_inputs(shape, len(prompts_of(cfg)), cfg.guidance_scale)
        return plan_ranks(
            lambda dit, fabric: method.build(dit, fabric, cfg.method),
            self.templates[key],
            parallel_of(cfg).mesh(),
            scheduler_of(model, cfg.scheduler, cfg.steps),
            noise,
            cond,
            hardware,
            cfg.cluster.topology,
            self.costs,
        )

    def plan(self, cfg: RunConfig, model: Model) -> Planned:
        """Predict one run, as `ranks` does."""
        hardware, method, shape = cfg.cluster.hardware, METHODS[cfg.method.name], model.shape
        assert hardware is not None
        ranks, parallel, branches = self.ranks(cfg, model), parallel_of(cfg), branches_of(cfg, shape)
        latency = max(rank.total_s for rank in ranks)
        room = hardware.memory_bytes - hardware.reserved_bytes
        missing = [rank.meter.peak_bytes - room for rank in ranks]
        fits = max(missing) <= 0
        ready, images = time.time(), len(prompts_of(cfg))
        reports = []
        for index, rank in enumerate(ranks):
            seconds = {"compute_s": rank.compute_s, "wait_s": rank.wait_s}
            seconds |= {"idle_s": latency - rank.total_s, "latency_s": latency}
            repeats: list[dict[str, float | None]] = [dict(seconds) if fits else dict.fromkeys(seconds)]
            forecast = method.predict(shape, parallel, index, cfg.steps, images, branches, cfg.method)
            meter = rank.meter
            extra = {"matmul_flops": meter.matmul_flops, "attention_flops": meter.attention_flops}
            extra |= {"room_bytes": room, "missing_bytes": max(0, missing[index])}
            reports.append(
                RankReport(
                    index,
                    rank.dit,
                    rank.fabric.ledger,
                    repeats,
                    forecast,
                    ready,
                    peak_bytes=meter.peak_bytes,
                    extra=extra,
                )
            )
        if fits:
            return Planned(reports, latency)
        worst = missing.index(max(missing))
        peak = ranks[worst].meter.peak_bytes
        text = f"rank {worst} needs {peak} bytes ({peak / GIB:.1f} GiB), "
        text += f"{missing[worst]} more than the {room} that {hardware.name} has for tensors"
        return Planned(reports, None, text, missing[worst])


def empty_inputs(shape: DiTShape, images: int, guidance_scale: float) -> tuple[Tensor, Conditioning]:
    """Noise and conditioning without data."""

    def prompt() -> dict[str, Tensor]:
        types = {"class_labels": torch.int64}
        return {
            name: torch.empty(images, *size, dtype=types.get(name), device=META)
            for name, size in shape.prompt
        }

    guided = shape.guidance == "cfg" and guidance_scale > 1
    noise = torch.empty(images, *shape.latent_size, device=META)
    return noise, Conditioning(prompt(), guidance_scale, prompt() if guided else None)


def branches_of(cfg: RunConfig, shape: DiTShape) -> int:
    """Guidance branches of a run: 2, or 1 without guidance."""
    assert cfg.guidance_scale is not None
    return empty_inputs(shape, 1, cfg.guidance_scale)[1].branches


def write_plan(cfg: RunConfig, model: Model, run_dir: Path) -> None:
    """Plan a run and write what its ranks would have written. Raises RunFailed (`oom`) when it does not fit."""
    planned = Planner().plan(cfg, model)
    held = [set(held_parameters(report.dit)) for report in planned.reports]
    for report in planned.reports:
        others = set().union(*(keys for rank, keys in enumerate(held) if rank != report.rank))
        write_report(run_dir, report, others, cfg.measure.ledger and planned.latency_s is not None)
    if planned.reason is not None:
        records.merge_ranks(run_dir, cfg.devices)
        raise RunFailed("oom", planned.reason)
