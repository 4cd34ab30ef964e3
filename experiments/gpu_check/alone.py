"""Checks of one device: each function runs in a process of its own, `say` notes which case it is at."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
import torch.distributed as dist

from experiments.config import RunConfig
from experiments.gpu_check.cases import (
    Failed,
    Found,
    Tally,
    distance,
    family_runs,
    method_run,
    reference,
    simulated,
    usable_dtypes,
)

Note = Callable[[str], None]


def answers(cfg: RunConfig, device: torch.device, note: Note) -> Found:
    """The device runs a kernel of each dtype, and its numbers are right."""
    for dtype in usable_dtypes(device):
        note(dtype)
        ones = torch.ones(64, 64, device=device, dtype=getattr(torch, dtype))
        if not torch.equal(ones @ ones, 64 * ones):
            raise Failed(f"{dtype}: 64 x 64 ones times themselves are not 64")
    if device.type == "cpu":
        return Found("a CPU, and no GPU")
    about = torch.cuda.get_device_properties(device)
    nccl = ".".join(map(str, torch.cuda.nccl.version())) if dist.is_nccl_available() else "none"
    numbers = {
        "gpu": about.name,
        "memory_bytes": about.total_memory,
        "compute_capability": f"{about.major}.{about.minor}",
        "cuda": torch.version.cuda,
        "nccl": nccl,
        "gpus": torch.cuda.device_count(),
    }
    text = f"{numbers['gpus']} x {about.name}, {about.total_memory / 2**30:.0f} GiB, compute capability "
    return Found(f"{text}{about.major}.{about.minor}, CUDA {torch.version.cuda}, NCCL {nccl}", numbers)


def serial(family: str, cfg: RunConfig, device: torch.device, note: Note) -> Found:
    """Two steps of the model alone, in float32, against the CPU."""
    tally = Tally()
    run = method_run(cfg, "serial", family, 1, steps=2)
    tally.add(family, "float32", distance(simulated(run, device.type), reference(run)))
    return tally.found()


def on_one(method: str, cfg: RunConfig, device: torch.device, note: Note) -> Found:
    """All ranks of a method on this one device, every family and dtype."""
    runs, skipped = family_runs(cfg, method, cfg.devices)
    tally = Tally(skipped)
    for run in runs:
        wanted = reference(run)
        for dtype in usable_dtypes(device):
            note(f"{run.model.name} {dtype}")
            found = simulated(replace(run, model=replace(run.model, dtype=dtype)), device.type)
            tally.add(run.model.name, dtype, distance(found, wanted))
    return tally.found()
