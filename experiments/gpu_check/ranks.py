"""Checks of several devices, a process and a device a rank: latents, bytes, links."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import pandas as pd
import torch
import torch.distributed as dist
from safetensors.torch import load_file
from torch import Tensor

from experiments.config import RunConfig
from experiments.gpu_check.alone import Note
from experiments.gpu_check.cases import (
    BYTES,
    Failed,
    Found,
    Tally,
    device_inputs,
    distance,
    family_runs,
    method_run,
    other_bytes,
    reference,
    usable_dtypes,
    within,
)
from experiments.methods import METHODS, parallel_degrees
from experiments.models.model import open_model
from experiments.runs import launch
from experiments.runs.agent import Entry
from experiments.session import Session
from experiments.timing import cache_bytes, copies, message_seconds
from pipefusion.core.local import LocalFabric

MODEL = "pixart_tiny"
SAMPLES = 5


def whole_run(method: str, devices: int, cfg: RunConfig, out: Path) -> Found:
    """Two steps as `python run.py` makes them: status, latents against the CPU, bytes against their closed forms."""
    run = method_run(cfg, method, MODEL, devices, steps=2)
    record = execute(run, out)
    if record["status"] != "ok":
        raise Failed(f"{record['status']}: {record['reason']}")
    found = distance(load_file(out / "latents.safetensors")["latents"], reference(run))
    if not within(found, "float32"):
        raise Failed(f"latents are {found:.1e} from those of the CPU")
    for row in pd.read_csv(out / "ranks.csv").to_dict("records"):
        for key in ("param_bytes", *BYTES):
            if row[key] != row[f"predicted_{key}"]:
                raise Failed(f"rank {row['rank']}: {key} is {row[key]}, predicted {row[f'predicted_{key}']}")
    seconds = record["latency_s"]["median"]
    return Found(f"{found:.1e} from the CPU, {seconds:.3f} s", {"distance": found, "latency_s": seconds})


Images = Callable[..., Tensor | None]
"""images(noise, conditioning) -> latents on rank 0: a sampler with its scheduler."""


def execute(run: RunConfig, out: Path, entry: Entry | None = None) -> dict[str, Any]:
    """The record of a run, whatever its status. Raises KeyboardInterrupt if it was interrupted."""
    record = launch.execute(run, out, entry)
    if record["status"] == "interrupted":
        raise KeyboardInterrupt
    return record


def sampler_on(run: RunConfig, fabric: LocalFabric, read: Callable[..., Tensor] | None = None) -> Images:
    """This rank's sampler of the run's steps, its weights loaded (`read` in place of the model's own)."""
    session = Session()
    _, sampler = session.build(run, fabric, read or session.tensors(run.model))
    scheduler = session.scheduler(run)
    return lambda noise, cond: sampler(noise, cond, scheduler)


def on_ranks(method: str, devices: int, cfg: RunConfig, device: torch.device, note: Note) -> Found:
    """A method on real ranks, every family and dtype; every rank's bytes against their closed forms."""
    runs, skipped = family_runs(cfg, method, devices)
    tally, wrong = Tally(skipped), []
    size = dist.get_world_size()
    fabric = LocalFabric(METHODS[method].parallel(size).mesh(), device)
    for run in runs:
        wanted = reference(run) if fabric.rank == 0 else None
        noise, cond = device_inputs(run, device)
        for dtype in usable_dtypes(device):
            case = f"{run.model.name} {dtype}"
            note(case)
            one = replace(run, model=replace(run.model, dtype=dtype))
            sampler = sampler_on(one, fabric)
            dist.barrier()
            fabric.clear()
            latents = sampler(noise, cond)
            fabric.close()
            if wanted is not None and latents is not None:
                tally.add(run.model.name, dtype, distance(latents, wanted))
            shape, parallel = open_model(one.model).shape, parallel_degrees(one)
            forecast = METHODS[method].predict(
                shape, parallel, fabric.rank, one.steps, len(noise), cond.branches, one.method
            )
            texts = other_bytes(fabric.ledger, forecast, BYTES)
            wrong += [f"{case} rank {fabric.rank}: {text}" for text in texts]
    every: list[Any] = [None] * size
    dist.all_gather_object(every, wrong)
    tally.failures += [text for texts in every for text in texts]
    return tally.found()


def edges(cfg: RunConfig, device: torch.device, note: Note) -> Found:
    """Latency and bandwidth of every edge of the ring of ranks, one direction at a time."""
    size = dist.get_world_size()
    largest = max(1 << 24, copies(1, cache_bytes(device)))
    rows: list[dict[str, Any]] = []
    for sender in range(size if size > 2 else 1):
        receiver = (sender + 1) % size
        note(f"{sender} to {receiver}")
        small, large = (message_seconds(sender, receiver, nbytes, device, SAMPLES) for nbytes in (8, largest))
        rate = largest / (large.seconds - small.seconds)
        rows.append({"edge": f"{sender}-{receiver}", "latency_s": small.seconds, "bandwidth": rate})
    slowest, middle = min(row["bandwidth"] for row in rows), median(row["bandwidth"] for row in rows)
    edges = f"{len(rows)} edge{'s' * (len(rows) > 1)}"
    text = f"{edges}, bandwidth {middle / 1e9:.3g} GB/s (median), {slowest / 1e9:.3g} (slowest)"
    return Found(text, {"edges": rows, "message_bytes": largest})
