"""Checks of one rank's program, run alone on a fabric that moves nothing: where it waits, and what it holds."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from experiments.config import CONF, RunConfig
from experiments.errors import first_line
from experiments.gpu_check.alone import Note
from experiments.gpu_check.cases import (
    BUFFERS,
    STEPS,
    Failed,
    Found,
    NotPossible,
    device_inputs,
    family_runs,
    found_in,
    method_run,
    other_bytes,
)  # fmt: skip
from experiments.methods import METHODS, parallel_degrees
from experiments.models.model import open_model
from experiments.runs.device import synchronise
from experiments.runs.peaks import predicted_peaks
from experiments.session import Session
from pipefusion.core.dit import DiT, Sampler
from pipefusion.core.ledger import Where
from pipefusion.core.memory import sampling_peak
from pipefusion.core.silent import SilentFabric

MEMORY_MODEL, MEMORY_DEVICES = "pixart_bench", 2
"""Large enough for the peak to be activations, and not the few bytes that kernels keep besides their results."""
PEAK_TOLERANCE = {"cpu": 0.0, "cuda": 0.05}
"""Of a peak to its prediction: CUDA's attention returns what the CPU's does not, and pads."""


def built(run: RunConfig, rank: int, device: torch.device) -> tuple[SilentFabric, DiT, Sampler, Any]:
    """One rank of a run with nobody else there: fabric, view with its weights, sampler, scheduler."""
    session, fabric = Session(), SilentFabric(parallel_degrees(run).mesh(), rank, device)
    return fabric, *session.build(run, fabric, session.tensors(run.model)), session.scheduler(run)


def no_synchronisation(
    method: str, cfg: RunConfig, device: torch.device, note: Note, mode: Callable[[str], None] | None = None
) -> Found:
    """No rank's host waits for its device between the beginning of the first step and that of the last.

    Before and after, once an image, it may: to copy the timesteps, and to see whether the latents are finite.
    """
    cuda = torch.cuda.set_sync_debug_mode if device.type == "cuda" else lambda name: None
    set_mode = mode or cuda
    failures, ranks = [], 0
    runs, skipped = family_runs(cfg, method, cfg.devices)
    for run in runs:
        for rank in range(run.devices):
            note(f"{run.model.name} rank {rank}")
            fabric, _, sampler, scheduler = built(run, rank, device)
            inputs = device_inputs(run, device)

            def watch(at: Where) -> None:
                set_mode("error" if at.step < STEPS - 1 else "default")

            with torch.inference_mode():
                sampler(*inputs, scheduler)  # the first use of a kernel may load it, which waits
                fabric.watch = watch
                try:
                    sampler(*inputs, scheduler)
                except RuntimeError as error:
                    failures.append(f"{run.model.name} rank {rank}: {first_line(error)} ({place(error)})")
                finally:
                    set_mode("default")
                    synchronise(device)
            ranks += 1
    if failures:
        raise Failed("; ".join(failures))
    if mode is None and device.type != "cuda":
        text = f"{ranks} ranks' programs ran to their end, but only CUDA sees when the host waits for it"
        raise NotPossible(text)
    return found_in(f"{ranks} ranks' programs", ranks, skipped)


def place(error: BaseException) -> str:
    """Where in the project an exception came from: file and line."""
    root, ours = CONF.parent, []
    for frame in traceback.extract_tb(error.__traceback__):
        path = Path(frame.filename)
        if path.is_relative_to(root) and ".venv" not in path.parts:
            ours.append(f"{path.relative_to(root)}:{frame.lineno}")
    return ours[-1] if ours else "outside the project"


def memory(method: str, cfg: RunConfig, device: torch.device, note: Note) -> Found:
    """Every rank's buffers against their closed forms to the byte, and the peak of its tensors against the plan's."""
    run = method_run(cfg, method, MEMORY_MODEL, MEMORY_DEVICES, steps=STEPS + 1)
    model = open_model(run.model)
    noise, cond = device_inputs(run, device)
    predicted, images = predicted_peaks(model, run, noise, cond), len(noise)
    rows: list[dict[str, Any]] = []
    for rank in range(run.devices):
        note(f"rank {rank}")
        fabric, dit, sampler, scheduler = built(run, rank, device)
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        with torch.inference_mode():
            peak = sampling_peak(sampler, dit.model, scheduler, noise, cond)
        forecast = METHODS[method].predict(
            model.shape, parallel_degrees(run), rank, run.steps, images, cond.branches, run.method
        )
        for text in other_bytes(fabric.ledger, forecast, BUFFERS):
            raise Failed(f"rank {rank}: {text}")
        if abs(peak - predicted[rank]) > PEAK_TOLERANCE[device.type] * predicted[rank]:
            raise Failed(f"rank {rank}: a peak of {peak} bytes of tensors, predicted {predicted[rank]}")
        allocated = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None
        row = {"rank": rank, "peak_bytes": peak, "predicted_peak_bytes": predicted[rank]}
        rows.append({**row, "cuda_allocated_peak_bytes": allocated})
        del fabric, dit, sampler  # before the next rank takes its place
    worst = max(abs(row["peak_bytes"] / row["predicted_peak_bytes"] - 1) for row in rows)
    text = f"{MEMORY_MODEL}, {len(rows)} ranks: peaks at most {worst:.2%} from the plan's"
    return Found(text, {"ranks": rows})
