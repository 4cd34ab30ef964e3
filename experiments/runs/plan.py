"""`cluster=l40_pcie` and the like: the same run on `meta` tensors, with the predicted time of named hardware."""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from experiments import records
from experiments.config import RunConfig, read_prompts
from experiments.errors import RunFailed
from experiments.methods import METHODS, parallel_degrees
from experiments.runs.report import RankReport, held_parameters, write_report
from experiments.session import Session, guidance_branches
from pipefusion.core.shape import DiTShape
from pipefusion.sim.plan import PlannedRank

GIB = 2**30


@dataclass
class Planned:
    """What a run would take. `latency_s` is None when a device does not hold it; bytes are known in either case."""

    cfg: RunConfig
    shape: DiTShape
    ranks: list[PlannedRank]
    latency_s: float | None
    missing_bytes: int = 0

    @property
    def peak_bytes(self) -> int:
        """Of the fullest device."""
        return max(rank.meter.peak_bytes for rank in self.ranks)

    @property
    def room_bytes(self) -> int:
        """What a device has for tensors."""
        return room_bytes(self.cfg)

    @property
    def reason(self) -> str | None:
        """Why it does not fit; None where it does."""
        if self.latency_s is not None:
            return None
        peaks = [rank.meter.peak_bytes for rank in self.ranks]
        return f"rank {peaks.index(max(peaks))} {too_much(max(peaks), self.cfg)}"

    @cached_property
    def reports(self) -> list[RankReport]:
        """What each rank would have written, its ledger included: made when asked for."""
        cfg, shape, ready = self.cfg, self.shape, time.time()
        method, parallel, branches = (
            METHODS[cfg.method.name],
            parallel_degrees(cfg),
            guidance_branches(cfg, shape),
        )
        images, found = len(read_prompts(cfg)), []
        for index, rank in enumerate(self.ranks):
            seconds: dict[str, float | None] = dict.fromkeys(("compute_s", "wait_s", "idle_s", "latency_s"))
            if self.latency_s is not None:
                idle_s = self.latency_s - rank.total_s
                seconds = dict(
                    zip(seconds, (rank.compute_s, rank.wait_s, idle_s, self.latency_s), strict=True)
                )
            meter = rank.meter
            extra = {"matmul_flops": meter.matmul_flops, "attention_flops": meter.attention_flops}
            extra |= {
                "room_bytes": self.room_bytes,
                "missing_bytes": max(0, meter.peak_bytes - self.room_bytes),
            }
            if cfg.model.experts == "one":  # the other's part, in place of its own
                extra["switch_bytes"] = sum(held_parameters(rank.dit).values())
            forecast = method.predict(shape, parallel, index, cfg.steps, images, branches, cfg.method)
            report = RankReport(index, rank.dit, rank.ledger, [seconds], forecast, ready, meter.peak_bytes)
            report.extra = extra
            found.append(report)
        return found


def too_much(held: int, cfg: RunConfig) -> str:
    """`needs 61.27 GiB, 17.28 more than the 43.99 that l40 has for tensors`."""
    room, hardware = room_bytes(cfg), cfg.cluster.hardware
    assert hardware is not None
    held_gib, missing_gib, room_gib = (size / GIB for size in (held, held - room, room))
    text = f"needs {held_gib:.2f} GiB, {missing_gib:.2f} more than the {room_gib:.2f} that {hardware.name}"
    return f"{text} has for tensors"


def room_bytes(cfg: RunConfig) -> int:
    """What a device of the run's cluster has for tensors."""
    hardware = cfg.cluster.hardware
    assert hardware is not None
    return hardware.memory_bytes - hardware.reserved_bytes


def plan(cfg: RunConfig, session: Session) -> Planned:
    """Predict one run; `cfg` as `models.resolved` gives it. Raises `RankFailed` and `SimulationError`."""
    ranks, shape = session.plan(cfg), session.model(cfg.model).shape
    missing = max(rank.meter.peak_bytes for rank in ranks) - room_bytes(cfg)
    if missing > 0:
        return Planned(cfg, shape, ranks, None, missing)
    return Planned(cfg, shape, ranks, max(rank.total_s for rank in ranks))


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
