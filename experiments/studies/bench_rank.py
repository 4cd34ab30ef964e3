"""What a rank of the bench does: every case of a group once, then in turn, round after round."""

from __future__ import annotations

import ctypes
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from experiments.config import RunConfig
from experiments.methods import METHODS
from experiments.models.model import Model, open_model
from experiments.models.scheduler import choose_scheduler
from experiments.session import build
from experiments.studies.bench_peers import DIFFUSERS, PEERS, peer
from pipefusion.core.conditioning import Conditioning
from pipefusion.core.domain import Count, Devices, Guidance, Patches, Steps, Warmup
from pipefusion.core.local import LocalFabric
from pipefusion.core.parallel import Parallel
from pipefusion.core.shape import DiTShape
from pipefusion.core.silent import SilentFabric
from pipefusion.schedulers import make_scheduler

CPU = torch.device("cpu")
OWN = ("patches", "warmup", "order", "micro_batches")
"""Keys of methods that a case may give."""
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # of glibc's mallopt


@dataclass
class BenchCase:
    """One row: `method` is a name of the table or a peer, `model` a file of conf/model (null: the run's own).

    Cases with the same model, `ranks` and `rounds` (null: the measure's) are a group, timed in turn. `OWN` are
    keys of its method (null: the default).
    """

    method: str
    model: str | None = None
    ranks: Devices = 2
    rounds: Count | None = None
    steps: Steps = 20
    patches: Patches | None = None
    warmup: Warmup | None = None
    order: str | None = None
    micro_batches: bool | None = None
    parallel: Parallel = field(default_factory=Parallel)
    guidance_scale: Guidance = 1.0

    @property
    def name(self) -> str:
        product = str(self.parallel) if self.parallel.world > 1 else None
        ranks = self.ranks if self.ranks > 2 and not self.alone else None
        keys = (("N", ranks), ("M", self.patches), ("W", self.warmup), ("S", self.steps))
        words = [self.model, self.method, product, *(f"{key}={n}" for key, n in keys if n is not None)]
        words += [self.order, "micro-batches" if self.micro_batches else None]
        return " ".join(word for word in [*words, "guided" if self.guidance_scale > 1 else None] if word)

    @property
    def alone(self) -> bool:
        """Whether it runs on the first rank while the others wait."""
        return self.method in ("serial", DIFFUSERS) and self.parallel.world == 1

    @property
    def devices(self) -> int:
        return 1 if self.alone else self.ranks

    @property
    def settings(self) -> Any:
        """The configuration of its method."""
        return METHODS[self.method].Config(**self.own)

    @property
    def own(self) -> dict[str, Any]:
        """The keys of its method that it gives."""
        return {key: getattr(self, key) for key in OWN if getattr(self, key) is not None}


def bench_rank(run_dir: str, cfg: RunConfig) -> None:
    """All cases of `measure` on this rank, in turn; rank 0 writes the seconds of every round."""
    torch.set_num_threads(cfg.threads)
    keep_freed_memory()
    dist.init_process_group("gloo")
    model = open_model(cfg.model)
    noise, prompt, negative = drawn(model.shape, cfg.seed)
    cases, rounds = cfg.measure.cases, cfg.measure.rounds
    seconds: dict[str, list[float]] = {case.name: [] for case in cases}

    def prepare(case: BenchCase) -> Callable[[], Any]:
        cond = Conditioning(prompt, case.guidance_scale, negative if case.guidance_scale > 1 else None)
        return prepare_case(case, cfg, model, noise, cond)

    with torch.inference_mode():
        for case in cases:  # first use of every path, not timed
            prepare(replace(case, steps=2))()
        runs = [prepare(case) for case in cases]
        for _ in range(rounds):
            for case, run in zip(cases, runs, strict=True):
                dist.barrier()
                start = time.perf_counter()
                run()
                dist.barrier()
                seconds[case.name].append(time.perf_counter() - start)
    if dist.get_rank() == 0:
        (Path(run_dir) / "seconds.json").write_text(json.dumps(seconds))
    dist.destroy_process_group()


def keep_freed_memory() -> None:
    """Let glibc keep what this process frees.

    What goes back to the system comes again page by page, each zeroed at its first use: up to 5 % of a step, and which
    case pays depends on the sizes that those before it have freed.
    """
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        libc.mallopt(M_MMAP_MAX, 0)
        libc.mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


def drawn(shape: DiTShape, seed: int) -> tuple[Tensor, dict[str, Tensor], dict[str, Tensor]]:
    """Noise and a prompt of random numbers, nothing of it masked; the negative prompt is zeros."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(1, *shape.latent_size, generator=generator)
    prompt, negative = {}, {}
    for name, size in shape.prompt:
        mask = torch.ones(1, *size) if "mask" in name else None
        prompt[name] = torch.randn(1, *size, generator=generator) if mask is None else mask
        negative[name] = torch.zeros(1, *size) if mask is None else mask
    pictures = {name: torch.randn(1, *size, generator=generator) for name, size in shape.pictures}
    return noise, prompt | pictures, negative


def prepare_case(
    case: BenchCase, cfg: RunConfig, model: Model, noise: Tensor, cond: Conditioning
) -> Callable[[], Any]:
    """A function that samples one image on this rank; nothing to do on other ranks for what uses the first alone."""
    chosen = choose_scheduler(model, "shipped")
    assert isinstance(chosen, tuple)
    if case.alone and dist.get_rank() > 0:
        return lambda: None
    if case.method in PEERS:
        return peer(case.method, model, noise, cond, chosen, case.steps)
    mesh = METHODS[case.method].parallel(case.devices, case.parallel).mesh()
    fabric = SilentFabric(mesh, 0, CPU) if case.alone else LocalFabric(mesh, CPU)
    _, sampler = build(replace(cfg, method=case.settings), model.view(), fabric, model.tensors())
    scheduler = make_scheduler(*chosen, case.steps)

    def run() -> Tensor | None:
        fabric.clear()
        return sampler(noise, cond, scheduler)

    return run
