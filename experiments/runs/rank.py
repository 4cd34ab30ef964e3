"""What one rank of a run does: build its part of the model, sample, time it, and write down what it saw."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from experiments.config import RunConfig
from experiments.methods import METHODS, parallel_degrees, with_warmup
from experiments.models.inputs import read_inputs
from experiments.models.model import Model, open_model
from experiments.models.scheduler import build_scheduler
from experiments.pictures import write_images
from experiments.runs import accelerator
from experiments.runs.device import choose_device, synchronise
from experiments.runs.peaks import peak_bytes, predicted_peaks
from experiments.runs.progress import report_progress
from experiments.runs.report import ParameterKey, RankReport, held_parameters, write_report
from experiments.session import build
from experiments.tensors import write_tensors
from pipefusion.core.conditioning import Conditioning
from pipefusion.core.dit import DiT, Sampler
from pipefusion.core.ledger import Ledger
from pipefusion.core.local import LocalFabric

PATIENCE = timedelta(days=7)


def run_rank(run_dir: str, cfg: RunConfig) -> None:
    """Run this process's rank of a run; RANK, WORLD_SIZE, LOCAL_RANK and MASTER_* come from the elastic agent.

    Writes `.rank-R.json` and `.rank-R.ledger.parquet` into the run directory, rank 0 also `latents.safetensors` and,
    where ranks share decoding, `images/`.
    Raises FloatingPointError when latents stop being finite, and whatever torch raises when it fails.
    """
    in_group(cfg, partial(measure, Path(run_dir), cfg))


def in_group(cfg: RunConfig, program: Callable[[torch.device], None]) -> None:
    """Run `program(device)` as a member of the process group that the agent's variables describe."""
    torch.set_num_threads(cfg.threads)
    device = choose_device(cfg.cluster.device)
    backend = cfg.cluster.backend
    if backend == "auto":
        backend = "nccl" if device.type == "cuda" else "gloo"
    timeout = timedelta(seconds=cfg.cluster.timeout_s)
    dist.init_process_group(backend, timeout=timeout, device_id=device if device.type == "cuda" else None)
    with torch.inference_mode():
        program(device)
    dist.destroy_process_group()  # after a failure it would wait for receives that nobody will answer


def open_fabric(cfg: RunConfig, dit: DiT, device: torch.device) -> LocalFabric:
    """The fabric of this rank: all ranks on the method's axis, connected and with the cluster's timeout."""
    accelerator.check_dtype(device, dit.dtype)
    timeout = timedelta(seconds=cfg.cluster.timeout_s)
    return LocalFabric(parallel_degrees(cfg).mesh(), device, timeout, skips=bool(dit.shape.skips))


def patient_barrier() -> Callable[[], None]:
    """A barrier for behind work of the host, such as loading or decoding: it may take longer than a communication.

    A rank that dies meanwhile ends the others through the agent.
    """
    return partial(dist.barrier, dist.new_group(timeout=PATIENCE))


def measure(run_dir: Path, cfg: RunConfig, device: torch.device) -> None:
    """Build, load, warm up, repeat, and record."""
    dist.barrier()
    ready_unix_s = time.time()
    assert cfg.guidance_scale is not None  # as the parent has resolved it
    model, method, options = open_model(cfg.model), METHODS[cfg.method.name], cfg.measure
    view = model.view()
    fabric = open_fabric(cfg, view, device)
    dit, sampler = build(cfg, view, fabric, model.tensors())
    patient_barrier()()  # parts of ranks and their disks differ
    noise, cond = read_inputs(run_dir / "inputs.safetensors", cfg.guidance_scale, device)
    scheduler = build_scheduler(model, cfg.scheduler, cfg.steps)
    image = partial(timed, sampler, noise, cond, scheduler, fabric)

    show_phase = report_progress(run_dir, fabric, cfg.steps)
    for index in range(options.warmup_runs):
        show_phase(f"warm-up {index + 1} of {options.warmup_runs}")
        image()
    peaks: dict[str, int] = {}
    cuda_peaks: dict[str, int | None] = {}
    if options.memory:
        show_phase("memory")
        peaks["peak_bytes"] = peak_bytes(model, cfg, fabric.rank, noise, cond, device, dit)
        peaks["predicted_peak_bytes"] = predicted_peaks(model, cfg, noise, cond)[fabric.rank]
        cuda_peaks = accelerator.cuda_peaks(image, device)
    repeats = []
    for index in range(options.repeats):
        show_phase(f"repeat {index + 1} of {options.repeats}")
        latents, seconds = image()
        repeats.append(seconds)

    if fabric.rank == 0 and latents is not None:
        write_tensors(run_dir / "latents.safetensors", {"latents": latents})
    ledger, extra = fabric.ledger, dict(cuda_peaks)
    if cfg.model.share_decoding and options.images:
        show_phase("decoding")
        extra |= share_decoding(run_dir, cfg, model, fabric)
    images, branches = noise.shape[0], cond.branches
    result = RankReport(
        rank=fabric.rank,
        dit=dit,
        ledger=ledger,
        repeats=repeats,
        forecast=method.predict(
            dit.shape,
            parallel_degrees(cfg),
            fabric.rank,
            cfg.steps,
            images,
            branches,
            with_warmup(cfg.method, ledger.warmup),
        ),
        ready_unix_s=ready_unix_s,
        accelerator=accelerator.facts(device, dit.dtype),
        extra=extra,
        **peaks,
    )
    write_report(run_dir, result, parameters_elsewhere(dit), options.ledger)
    dist.barrier()


def share_decoding(run_dir: Path, cfg: RunConfig, model: Model, fabric: LocalFabric) -> dict[str, int | None]:
    """Write the pictures of latents.safetensors, of which every rank decodes its part; the bytes that this rank sends
    and receives for it, in a ledger of their own: that of the last image is recorded."""
    fabric.ledger = Ledger()
    dist.barrier()  # rank 0 has written the latents
    write_images(run_dir, cfg, model, fabric)
    patient_barrier()()  # and the pictures
    return {"decode_sent_bytes": fabric.ledger.sent_bytes, "decode_recv_bytes": fabric.ledger.recv_bytes}


def timed(
    sampler: Sampler, noise: Tensor, cond: Conditioning, scheduler: Any, fabric: LocalFabric
) -> tuple[Tensor | None, dict[str, float]]:
    """One image batch from a common start to the end of the slowest rank; seconds of this rank by kind.

    The ledger is emptied before and summed up after the seconds that are counted.
    """
    synchronise(fabric.device)
    dist.barrier()
    fabric.clear()
    start = time.perf_counter()
    latents = sampler(noise, cond, scheduler)
    stop = fabric.clock.mark()
    synchronise(fabric.device)
    done = time.perf_counter()
    dist.barrier()
    end = time.perf_counter()
    compute_s, wait_s, _ = fabric.close(stop)
    return latents, {
        "compute_s": compute_s,
        "issue_s": fabric.ledger.issue_s,
        "wait_s": wait_s,
        "idle_s": end - done,
        "latency_s": end - start,
    }


def parameters_elsewhere(dit: DiT) -> set[ParameterKey]:
    """What the other ranks hold."""
    everyone: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(everyone, list(held_parameters(dit)))
    return {key for rank, keys in enumerate(everyone) if rank != dist.get_rank() for key in keys}
