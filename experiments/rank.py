"""What one rank of a run does: build its part of the model, sample, time it, and write down what it saw."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from safetensors.torch import load_file
from torch import Tensor

from experiments import accelerator
from experiments.config import ModelConfig
from experiments.methods import METHODS, parallel_in
from experiments.models import Model, open_model, scheduler_of
from experiments.report import (
    ParameterKey,
    RankReport,
    held_parameters,
    write_latents,
    write_report,
    write_whole,
)
from pipefusion.core.dit import Conditioning, DiT, Sampler
from pipefusion.core.ledger import Where
from pipefusion.core.local import LocalFabric
from pipefusion.core.memory import sampling_peak
from pipefusion.core.silent import SilentFabric
from pipefusion.sim.fabric import SimFabric
from pipefusion.sim.plan import plan_ranks

PATIENCE = timedelta(days=7)


def run_rank(run_dir: str, cfg: dict[str, Any]) -> None:
    """Run this process's rank of a run; RANK, WORLD_SIZE, LOCAL_RANK and MASTER_* come from the elastic agent.

    Writes `.rank-R.json` and `.rank-R.ledger.parquet` into the run directory, rank 0 also `latents.safetensors`.
    Raises FloatingPointError when latents stop being finite, and whatever torch raises when it fails.
    """
    in_group(cfg, lambda device: measure(Path(run_dir), cfg, device))


def in_group(cfg: dict[str, Any], program: Callable[[torch.device], None]) -> None:
    """Run `program(device)` as a member of the process group that the agent's variables describe."""
    torch.set_num_threads(cfg["threads"])
    device = choose_device(cfg["cluster"]["device"])
    backend = cfg["cluster"]["backend"]
    if backend == "auto":
        backend = "nccl" if device.type == "cuda" else "gloo"
    timeout = timedelta(seconds=cfg["cluster"]["timeout_s"])
    dist.init_process_group(backend, timeout=timeout, device_id=device if device.type == "cuda" else None)
    with torch.inference_mode():
        program(device)
    dist.destroy_process_group()  # after a failure it would wait for receives that nobody will answer


def open_fabric(cfg: dict[str, Any], dit: DiT, device: torch.device) -> LocalFabric:
    """The fabric of this rank: all ranks on the method's axis, connected and with the cluster's timeout."""
    accelerator.check_dtype(device, dit.dtype)
    mesh = parallel_in(cfg).mesh()
    timeout = timedelta(seconds=cfg["cluster"]["timeout_s"])
    return LocalFabric(mesh, device, timeout, skips=bool(dit.shape.skips))


def patient_barrier() -> Callable[[], None]:
    """A barrier for behind work of the host, such as loading or decoding: it may take longer than a communication.

    A rank that dies meanwhile ends the others through the agent.
    """
    return partial(dist.barrier, dist.new_group(timeout=PATIENCE))


def device_type(name: str) -> str:
    """`cpu` or `cuda`: `auto` is CUDA where there is one. Makes no CUDA context."""
    return "cpu" if name == "cpu" or (name == "auto" and not torch.cuda.is_available()) else "cuda"


def choose_device(name: str) -> torch.device:
    """Each rank of a node takes the device of its local rank, with the settings that all runs share."""
    if device_type(name) == "cpu":
        return torch.device("cpu")
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    torch.cuda.set_device(device)
    accelerator.settle(device)
    return device


def measure(run_dir: Path, cfg: dict[str, Any], device: torch.device) -> None:
    """Build, load, warm up, repeat, and record."""
    dist.barrier()
    ready_unix_s = time.time()
    model = open_model(ModelConfig(**cfg["model"]))
    module = METHODS[cfg["method"]["name"]]
    method_cfg = module.Config(**cfg["method"])
    dit = model.view()
    fabric = open_fabric(cfg, dit, device)
    scheduler = scheduler_of(model, cfg["scheduler"], cfg["steps"])
    sampler = module.build(dit, fabric, method_cfg)
    dit.load(model.tensors(), device)
    patient_barrier()()  # parts of ranks and their disks differ
    noise, cond = read_inputs(run_dir / "inputs.safetensors", cfg["guidance_scale"], device)

    report = progress(run_dir, fabric, cfg) if fabric.rank == 0 else None
    options = cfg["measure"]
    for index in range(options["warmup_runs"]):
        if report:
            report(f"warm-up {index + 1} of {options['warmup_runs']}")
        timed(sampler, noise, cond, scheduler, fabric)
    peak_bytes = None
    if options["memory"]:
        if report:
            report("memory")
        peak_bytes = peak_of(model, cfg, fabric.rank, noise, cond, device, dit)
    cuda_peaks = {}
    if options["memory"]:
        cuda_peaks = accelerator.cuda_peaks(partial(timed, sampler, noise, cond, scheduler, fabric), device)
    repeats = []
    for index in range(options["repeats"]):
        if report:
            report(f"repeat {index + 1} of {options['repeats']}")
        latents, seconds = timed(sampler, noise, cond, scheduler, fabric)
        repeats.append(seconds)

    if fabric.rank == 0 and latents is not None:
        write_latents(run_dir, latents)
    predicted_peak = None
    if options["memory"]:
        predicted_peak = predicted_peaks(model, cfg, noise, cond)[fabric.rank]
    result = RankReport(
        rank=fabric.rank,
        dit=dit,
        ledger=fabric.ledger,
        repeats=repeats,
        forecast=module.predict(
            dit.shape,
            parallel_in(cfg),
            fabric.rank,
            cfg["steps"],
            noise.shape[0],
            cond.branches,
            method_cfg,
        ),
        ready_unix_s=ready_unix_s,
        peak_bytes=peak_bytes,
        predicted_peak_bytes=predicted_peak,
        accelerator=accelerator.facts(device, dit.dtype),
        extra=cuda_peaks,
    )
    write_report(run_dir, result, parameters_elsewhere(dit), options["ledger"])
    dist.barrier()


def read_inputs(path: Path, guidance_scale: float, device: torch.device) -> tuple[Tensor, Conditioning]:
    """Noise [B,C,H,W] and conditioning from `inputs.safetensors`."""
    return as_inputs(load_file(path, device=str(device)), guidance_scale)


def as_inputs(tensors: dict[str, Tensor], guidance_scale: float) -> tuple[Tensor, Conditioning]:
    """Noise and conditioning, of tensors by their names in `inputs.safetensors`."""
    tensors = dict(tensors)
    noise, lead = tensors.pop("noise"), "negative_"
    negative = {name.removeprefix(lead): tensors.pop(name) for name in [*tensors] if name.startswith(lead)}
    return noise, Conditioning(tensors, guidance_scale, negative or None)


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


def synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def peak_of(
    model: Model,
    cfg: dict[str, Any],
    rank: int,
    noise: Tensor,
    cond: Conditioning,
    device: torch.device,
    loaded: DiT,
) -> int:
    """High-water mark of the tensor bytes of this rank's program, run alone on `device` with tensors of `loaded`."""
    module, method_cfg, scheduler = memory_run(model, cfg)
    dit = model.view()
    fabric = SilentFabric(parallel_in(cfg).mesh(), rank, device)
    sampler = module.build(dit, fabric, method_cfg)
    dit.adopt(loaded)  # the tensors that are held already: a second copy might not fit
    return sampling_peak(sampler, dit.model, scheduler, noise.to(device), cond.to(device))


def predicted_peaks(model: Model, cfg: dict[str, Any], noise: Tensor, cond: Conditioning) -> list[int]:
    """What `peak_of` will be on every rank, of sizes alone."""
    module, method_cfg, scheduler = memory_run(model, cfg)
    ranks = plan_ranks(
        lambda dit, fabric: module.build(dit, fabric, method_cfg),
        model.view(),
        parallel_in(cfg).mesh(),
        scheduler,
        noise,
        cond,
    )
    return [rank.meter.peak_bytes for rank in ranks]


def memory_run(model: Model, cfg: dict[str, Any]) -> tuple[Any, Any, Any]:
    """The method's module, its settings and the scheduler of a run that reaches the peak.

    Three steps after the warm-up are enough: from then on every step allocates what the one before it did.
    """
    module = METHODS[cfg["method"]["name"]]
    method_cfg = module.Config(**cfg["method"])
    steps = min(cfg["steps"], getattr(method_cfg, "warmup", 0) + 3)
    return module, method_cfg, scheduler_of(model, cfg["scheduler"], steps)


def parameters_elsewhere(dit: DiT) -> set[ParameterKey]:
    """What the other ranks hold."""
    everyone: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(everyone, list(held_parameters(dit)))
    return {key for rank, keys in enumerate(everyone) if rank != dist.get_rank() for key in keys}


def progress(run_dir: Path, fabric: LocalFabric | SimFabric, cfg: dict[str, Any]) -> Callable[[str], None]:
    """A function that names the phase; the steps within it are what the fabric is told of."""
    state = {"phase": "", "step": 0, "of": cfg["steps"]}
    last = 0.0

    def show(force: bool) -> None:
        nonlocal last
        now = time.monotonic()
        if force or now - last > 0.2:
            last = now
            write_whole(run_dir / ".progress.json", lambda path: path.write_text(json.dumps(state)))

    def count(at: Where) -> None:
        if state["step"] != at.step + 1:
            state["step"] = at.step + 1
            show(False)

    def phase(name: str) -> None:
        state.update(phase=name, step=0)
        show(True)

    fabric.watch = count
    return phase
