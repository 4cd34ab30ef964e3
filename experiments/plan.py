"""`cluster=l40_pcie` and the like: the same run on `meta` tensors, with the predicted time of named hardware."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from experiments import records
from experiments.config import RunConfig, prompts_of
from experiments.errors import RunFailed
from experiments.methods import METHODS, parallel_of
from experiments.report import RankReport, held_parameters, write_report
from experiments.session import Session, guidance_branches

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


def plan(cfg: RunConfig, session: Session) -> Planned:
    """Predict one run; `cfg` as `models.resolved` gives it. Raises `RankFailed` and `SimulationError`."""
    hardware, method, shape = cfg.cluster.hardware, METHODS[cfg.method.name], session.model(cfg.model).shape
    assert hardware is not None
    ranks, parallel, branches = session.plan(cfg), parallel_of(cfg), guidance_branches(cfg, shape)
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


def write_plan(cfg: RunConfig, run_dir: Path) -> None:
    """Plan a run and write what its ranks would have written. Raises RunFailed (`oom`) when it does not fit."""
    planned = plan(cfg, Session())
    held = [set(held_parameters(report.dit)) for report in planned.reports]
    for report in planned.reports:
        others = set().union(*(keys for rank, keys in enumerate(held) if rank != report.rank))
        write_report(run_dir, report, others, cfg.measure.ledger and planned.latency_s is not None)
    if planned.reason is not None:
        records.merge_ranks(run_dir, cfg.devices)
        raise RunFailed("oom", planned.reason)
