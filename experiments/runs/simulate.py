"""`cluster=sim`: all ranks of a run in this process, in virtual time, with real tensors."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from experiments.config import RunConfig
from experiments.methods import METHODS, parallel_degrees, with_warmup
from experiments.models.inputs import read_inputs
from experiments.models.model import Model
from experiments.models.scheduler import build_scheduler
from experiments.runs.peaks import peak_bytes, predicted_peaks
from experiments.runs.progress import report_progress
from experiments.runs.report import RankReport, held_parameters, write_report
from experiments.session import CPU, build_all
from experiments.tensors import write_tensors
from pipefusion.sim.clock import MeasuredClock
from pipefusion.sim.fabric import SimFabric
from pipefusion.sim.world import World


@torch.inference_mode()
def simulate(cfg: RunConfig, model: Model, run_dir: Path) -> None:
    """Run `cfg.devices` logical ranks and write what each of them would have written as a process.

    A rank's compute takes the CPU seconds it took here, a transfer what the cluster's topology says. Raises
    `RankFailed` and `SimulationError`.
    """
    torch.set_num_threads(cfg.threads)
    options, method, parallel = cfg.measure, METHODS[cfg.method.name], parallel_degrees(cfg)
    mesh, scheduler = parallel.mesh(), build_scheduler(model, cfg.scheduler, cfg.steps)
    # CPU seconds of one thread are not stretched by other processes; with more threads only the wall clock sees all.
    now = time.thread_time if cfg.threads == 1 else time.perf_counter
    clocks = [MeasuredClock(now) for _ in range(mesh.size)]
    world = World(mesh, CPU, cfg.cluster.topology, clocks=clocks)
    dits, samplers = build_all(cfg, model.view(), world, model.tensors())
    assert cfg.guidance_scale is not None
    noise, cond = read_inputs(run_dir / "inputs.safetensors", cfg.guidance_scale, CPU)
    ready = time.time()
    show_phase = report_progress(run_dir, world.fabrics[0], cfg.steps)

    def program(fabric: SimFabric) -> tuple[Tensor | None, tuple[float, float, float]]:
        latents = samplers[fabric.rank](noise, cond, scheduler)
        return latents, fabric.close()

    for index in range(options.warmup_runs):
        show_phase(f"warm-up {index + 1} of {options.warmup_runs}")
        world.run(program)
    repeats: list[list[dict[str, float]]] = [[] for _ in world.fabrics]
    for index in range(options.repeats):
        show_phase(f"repeat {index + 1} of {options.repeats}")
        results = world.run(program)
        latency = max(total for _, (_, _, total) in results)
        for mine, (_, (compute, wait, total)) in zip(repeats, results, strict=True):
            mine.append(
                {"compute_s": compute, "wait_s": wait, "idle_s": latency - total, "latency_s": latency}
            )

    latents = results[0][0]
    assert latents is not None
    write_tensors(run_dir / "latents.safetensors", {"latents": latents})
    held = [set(held_parameters(dit)) for dit in dits]
    predicted = predicted_peaks(model, cfg, noise, cond) if options.memory else []
    for rank, (dit, fabric) in enumerate(zip(dits, world.fabrics, strict=True)):
        peaks: tuple[int | None, int | None] = (None, None)
        if options.memory:
            show_phase(f"memory of rank {rank}")
            peaks = peak_bytes(model, cfg, rank, noise, cond, CPU, dit), predicted[rank]
        settings = with_warmup(cfg.method, fabric.ledger.warmup)
        forecast = method.predict(
            dit.shape, parallel, rank, cfg.steps, noise.shape[0], cond.branches, settings
        )
        report = RankReport(rank, dit, fabric.ledger, repeats[rank], forecast, ready, *peaks)
        others: set[Any] = set().union(*(keys for other, keys in enumerate(held) if other != rank))
        write_report(run_dir, report, others, options.ledger)
