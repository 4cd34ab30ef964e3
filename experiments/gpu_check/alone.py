"""Checks of one device: each function runs in a process of its own, `say` notes which case it is at."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from experiments.config import CONF, RunConfig, as_dict
from experiments.errors import first_line
from experiments.gpu_check.cases import (
    STEPS,
    Failed,
    Found,
    NotPossible,
    Tally,
    distance,
    dtypes_of,
    families,
    inputs_of,
    reference,
    run_of,
    simulated,
)
from experiments.methods import METHODS
from experiments.models import open_model, scheduler_of
from experiments.rank import predicted_peaks, synchronise
from pipefusion.core.dit import DiT, Sampler
from pipefusion.core.ledger import Where
from pipefusion.core.memory import sampling_peak
from pipefusion.core.mesh import Mesh
from pipefusion.core.silent import SilentFabric

Say = Callable[[str], None]
MEMORY_MODEL, MEMORY_DEVICES = "pixart_bench", 2
"""Large enough for the peak to be activations, and not the few bytes that kernels keep besides their results."""
PEAK_TOLERANCE = {"cpu": 0.0, "cuda": 0.05}
"""Of a peak to its prediction: CUDA's attention returns what the CPU's does not, and pads."""
BYTES = ("kv_bytes", "buffer_bytes", "comm_bytes")


def answers(cfg: RunConfig, device: torch.device, say: Say) -> Found:
    """The device runs a kernel of each dtype, and its numbers are right."""
    for dtype in dtypes_of(device):
        say(dtype)
        ones = torch.ones(64, 64, device=device, dtype=getattr(torch, dtype))
        if not torch.equal(ones @ ones, 64 * ones):
            raise Failed(f"{dtype}: 64 x 64 ones times themselves are not 64")
    if device.type == "cpu":
        return Found("a CPU, and no GPU")
    about = torch.cuda.get_device_properties(device)
    nccl = ".".join(map(str, torch.cuda.nccl.version())) if torch.distributed.is_nccl_available() else "none"
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


def serial(family: str, cfg: RunConfig, device: torch.device, say: Say) -> Found:
    """Two steps of the model alone, in float32, against the CPU."""
    tally = Tally()
    run = run_of(cfg, "serial", family, 1, steps=2)
    tally.add(family, "float32", distance(simulated(run, device.type), reference(run)))
    return tally.found()


def on_one(method: str, cfg: RunConfig, device: torch.device, say: Say) -> Found:
    """All ranks of a method on this one device, every family and dtype."""
    tally = Tally()
    for family in families():
        try:
            run = run_of(cfg, method, family, cfg.devices)
        except NotPossible as reason:
            tally.skipped.append(str(reason))
            continue
        wanted = reference(run)
        for dtype in dtypes_of(device):
            say(f"{family} {dtype}")
            found = simulated(replace(run, model=replace(run.model, dtype=dtype)), device.type)
            tally.add(family, dtype, distance(found, wanted))
    return tally.found()


def built(run: RunConfig, rank: int, device: torch.device) -> tuple[SilentFabric, DiT, Sampler, Any]:
    """One rank of a run with nobody else there: fabric, view with its weights, sampler, scheduler."""
    model, module = open_model(run.model), METHODS[run.method.name]
    fabric, dit = SilentFabric(Mesh({run.method.axis: run.devices}), rank, device), model.view()
    scheduler = scheduler_of(model, run.scheduler, run.steps)
    sampler = module.build(dit, fabric, run.method, scheduler)
    dit.load(model.tensors(), device)
    return fabric, dit, sampler, scheduler


def cuda_mode(device: torch.device) -> Callable[[str], None] | None:
    """What makes CUDA refuse to let the host wait, or None where there is no CUDA."""
    return torch.cuda.set_sync_debug_mode if device.type == "cuda" else None


def no_synchronisation(
    method: str, cfg: RunConfig, device: torch.device, say: Say, mode: Callable[[str], None] | None = None
) -> Found:
    """No rank's host waits for its device between the beginning of the first step and that of the last.

    Before and after, once an image, it may: to copy the timesteps, and to see whether the latents are finite.
    """
    set_mode = mode or cuda_mode(device) or (lambda name: None)
    failures, ranks, skipped = [], 0, []
    for family in families():
        try:
            run = run_of(cfg, method, family, cfg.devices)
        except NotPossible as reason:
            skipped.append(str(reason))
            continue
        for rank in range(run.devices):
            say(f"{family} rank {rank}")
            fabric, _, sampler, _ = built(run, rank, device)
            inputs = inputs_of(run, device)

            def watch(at: Where) -> None:
                set_mode("error" if at.step < STEPS - 1 else "default")

            with torch.inference_mode():
                sampler(*inputs)  # the first use of a kernel may load it, which waits
                fabric.watch = watch
                try:
                    sampler(*inputs)
                except RuntimeError as error:
                    failures.append(f"{family} rank {rank}: {first_line(error)} ({place(error)})")
                finally:
                    set_mode("default")
                    synchronise(device)
            ranks += 1
    if failures:
        raise Failed("; ".join(failures))
    if mode is None and device.type != "cuda":
        raise NotPossible(
            f"{ranks} ranks' programs ran to their end, but only CUDA sees when the host waits for it"
        )
    if not ranks:
        raise NotPossible("; ".join(skipped))
    return Found(f"{ranks} ranks' programs" + (f"; not possible: {'; '.join(skipped)}" if skipped else ""))


def place(error: BaseException) -> str:
    """Where in the project an exception came from: file and line."""
    root = CONF.parent
    frames = [Path(frame.filename) for frame in traceback.extract_tb(error.__traceback__)]
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__)]
    ours = [
        f"{path.relative_to(root)}:{line}"
        for path, line in zip(frames, lines, strict=True)
        if path.is_relative_to(root) and ".venv" not in path.parts
    ]
    return ours[-1] if ours else "outside the project"


def memory(method: str, cfg: RunConfig, device: torch.device, say: Say) -> Found:
    """Every rank's buffers against their closed forms to the byte, and the peak of its tensors against the plan's."""
    run = run_of(cfg, method, MEMORY_MODEL, MEMORY_DEVICES, steps=STEPS + 1)
    model = open_model(run.model)
    noise, cond = inputs_of(run, device)
    predicted, images, rows = predicted_peaks(model, as_dict(run), noise, cond), len(noise), []
    for rank in range(run.devices):
        say(f"rank {rank}")
        fabric, dit, sampler, scheduler = built(run, rank, device)
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        with torch.inference_mode():
            peak = sampling_peak(sampler, dit.model, scheduler, noise, cond)
        forecast = METHODS[method].predict(
            model.shape, run.devices, rank, run.steps, images * cond.branches, images, run.method
        )
        for key in BYTES:
            counted, wanted = fabric.ledger.buffer_bytes[key.removesuffix("_bytes")], getattr(forecast, key)
            if counted != wanted:
                raise Failed(f"rank {rank}: {key} is {counted}, predicted {wanted}")
        if abs(peak - predicted[rank]) > PEAK_TOLERANCE[device.type] * predicted[rank]:
            raise Failed(f"rank {rank}: a peak of {peak} bytes of tensors, predicted {predicted[rank]}")
        allocated = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None
        rows.append({"rank": rank, "peak_bytes": peak, "predicted_peak_bytes": predicted[rank]})
        rows[-1] |= {"cuda_allocated_peak_bytes": allocated}
        del fabric, dit, sampler
    worst = max(abs(row["peak_bytes"] / row["predicted_peak_bytes"] - 1) for row in rows)
    return Found(
        f"{MEMORY_MODEL}, {len(rows)} ranks: peaks at most {worst:.2%} from the plan's", {"ranks": rows}
    )
