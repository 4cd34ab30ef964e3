"""Cases run: on real ranks, on simulated ones, alone, planned; and what a rank is asked afterwards."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from experiments.methods import METHODS, with_warmup
from pipefusion.core.dit import DiT, parameter_parts
from pipefusion.core.ledger import Span, Where
from pipefusion.core.local import LocalFabric
from pipefusion.core.memory import sampling_peak
from pipefusion.core.silent import SilentFabric
from pipefusion.sim.clock import FixedClock
from pipefusion.sim.fabric import SimFabric
from pipefusion.sim.hardware import DeviceConfig
from pipefusion.sim.network import TopologyConfig
from pipefusion.sim.plan import PlannedRank, plan_ranks
from pipefusion.sim.world import World
from tests.cases import (
    CPU,
    Case,
    case_model,
    case_scheduler,
    case_view,
    case_weights,
    degrees_in,
    guided_branches,
    inputs,
    loaded_view,
    requests,
)


@dataclass
class Result:
    """What one rank returned; `seconds` are those computing, waiting, and in all."""

    latents: Tensor | None
    rows: list[dict[str, Any]]
    spans: list[Span]
    seconds: tuple[float, float, float]
    measured: dict[str, Any]
    predicted: dict[str, Any]
    layers: range
    parts: dict[str, int]
    decisions: dict[Where, bool]
    warmup: int | None


def sample(case: Case, repeats: int = 0) -> Result:
    """Run a case on this rank of the running process group, and again for others of `requests`.

    Raises AssertionError if the first image depends on those beside or before it.
    """
    model, module, parallel = case_model(case), METHODS[case.name], degrees_in(case, dist.get_world_size())
    cfg = module.Config(**case.method)
    problem = module.check(model.shape, parallel, case.steps, cfg)
    assert problem is None, problem
    mesh, tensors = parallel.mesh(), case_weights(case)
    fabric = LocalFabric(mesh, CPU)
    dit = case_view(case)
    scheduler = case_scheduler(case)
    sampler = module.build(dit, fabric, cfg)
    dit.load(tensors, CPU)
    made = []
    for request in requests(case, repeats):
        fabric.clear()
        made.append(sampler(*request, scheduler))
    seconds = fabric.close()
    if made[0] is not None:
        same_first_image(made)
    return collect_result(case, dit, fabric, made[0], seconds)


def same_first_image(made: list[Tensor]) -> None:
    assert all(torch.equal(latents[0], made[0][0]) for latents in made), (
        "something of an image survived, or went into the one beside it"
    )


def collect_result(
    case: Case,
    dit: DiT,
    fabric: LocalFabric | SimFabric,
    latents: Tensor | None,
    seconds: tuple[float, float, float],
) -> Result:
    """What a rank is asked after it has sampled."""
    model, module, ledger, mesh = case_model(case), METHODS[case.name], fabric.ledger, fabric.mesh
    parallel, parts = degrees_in(case, mesh.size), dict(parameter_parts(dit))
    settings = with_warmup(module.Config(**case.method), ledger.warmup)
    predicted = module.predict(
        model.shape, parallel, fabric.rank, case.steps, case.images, guided_branches(case), settings
    )
    sent: Counter[str] = Counter()
    for entry in ledger.entries:
        sent[entry.axis] += entry.sent_bytes
    return Result(
        latents=latents if fabric.rank == 0 else None,
        rows=[entry.row(fabric.rank) for entry in ledger.entries],
        spans=ledger.spans,
        seconds=seconds,
        measured={
            "param_bytes": sum(parts.values()),
            "kv_bytes": ledger.buffer_bytes["kv"],
            "buffer_bytes": ledger.buffer_bytes["buffer"],
            "comm_bytes": ledger.buffer_bytes["comm"],
            "sent_bytes": ledger.sent_bytes,
            "recv_bytes": ledger.recv_bytes,
            "axis_bytes": {axis: count for axis, count in sent.items() if count},
        },
        predicted=asdict(predicted),
        layers=dit.layers,
        parts=parts,
        decisions=dict(ledger.decisions),
        warmup=ledger.warmup,
    )


def simulate(case: Case, repeats: int = 0) -> list[Result]:
    """Run a case of the product `case.parallel` on as many simulated ranks, and again as `sample` does.

    Every stretch of work takes a millisecond, so that a run is the same every time.
    """
    torch.set_num_threads(1)
    module = METHODS[case.name]
    mesh = degrees_in(case, case.parallel.world).mesh()
    clocks = [FixedClock(lambda: 1e-3) for _ in range(mesh.size)]
    world = World(mesh, CPU, TopologyConfig(), clocks=clocks)
    cfg, scheduler, tensors = module.Config(**case.method), case_scheduler(case), case_weights(case)
    shared = case.parallel.tensor == 1 and "patch_axis" not in case.method
    dits, samplers = [(loaded_view if shared else case_view)(case) for _ in world.fabrics], []
    for dit, fabric in zip(dits, world.fabrics, strict=True):
        samplers.append(module.build(dit, fabric, cfg))
        if not shared:
            dit.load(tensors, CPU)

    def image(*request: Any) -> list[Any]:
        return world.run(lambda fabric: (samplers[fabric.rank](*request, scheduler), fabric.close()))

    with torch.inference_mode():
        made = [image(*request) for request in requests(case, repeats)]
        same_first_image([ranks[0][0] for ranks in made])
        return [
            collect_result(case, dit, fabric, latents, seconds)
            for dit, fabric, (latents, _), (_, seconds) in zip(
                dits, world.fabrics, made[0], made[-1], strict=True
            )
        ]


def measure_peak(case: Case, devices: int, rank: int, device: torch.device) -> int:
    """Peak bytes of a rank's program run alone."""
    model, module, dit = case_model(case), METHODS[case.name], case_view(case)
    fabric = SilentFabric(degrees_in(case, devices).mesh(), rank, device)
    sampler = module.build(dit, fabric, module.Config(**case.method))
    if device == CPU:
        dit.load(case_weights(case), device)
    noise, cond = inputs(case, model)
    with torch.inference_mode():
        return sampling_peak(sampler, dit.model, case_scheduler(case), noise.to(device), cond.to(device))


def planned(
    case: Case, devices: int, device: DeviceConfig | None = None, **options: Any
) -> list[PlannedRank]:
    """Every rank of the case, planned; `options` are those of `plan_ranks`."""
    model, module = case_model(case), METHODS[case.name]
    cfg, scheduler = module.Config(**case.method), case_scheduler(case)
    return plan_ranks(
        lambda dit, fabric: module.build(dit, fabric, cfg),
        case_view(case),
        degrees_in(case, devices).mesh(),
        scheduler,
        *inputs(case, model),
        device,
        **options,
    )
