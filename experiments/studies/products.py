"""Products of degrees: which there are of N devices, and what they need at least, from closed forms alone.

`bound_s` is a lower bound: a product whose bound is above the seconds of a planned one cannot be the faster of the two.
Symbols: N devices, P stages, M patches, W synchronous of S steps.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace

from experiments.config import RunConfig, read_prompts
from experiments.grid import serial_reference
from experiments.methods import METHODS, find_problem, parallel_degrees, to_all
from experiments.models.model import Model
from experiments.session import Session, guidance_branches, machine
from pipefusion.core.ledger import wire_bytes
from pipefusion.core.parallel import Parallel
from pipefusion.core.predict import Prediction
from pipefusion.core.shape import DiTShape
from pipefusion.sim.network import Network

SHARED = ("data", "cfg", "ring", "ulysses", "tensor")
"""Axes that any method may share beside its own; `data` where there is more than one image."""


@dataclass(frozen=True)
class Alone:
    """One device's seconds a step: of its kernels, of starting these alone, and of its host."""

    device_s: float
    kernels_s: float
    host_s: float


def products(axes: tuple[str, ...], devices: int) -> Iterator[Parallel]:
    """Every way to share N devices among the axes."""
    if not axes:
        if devices == 1:
            yield Parallel()
        return
    for degree in range(1, devices + 1):
        if devices % degree == 0:
            for rest in products(axes[1:], devices // degree):
                yield replace(rest, **{axes[0]: degree})


def expanded(point: RunConfig, model: Model) -> Iterator[RunConfig]:
    """Every other product that the model allows of a point whose devices are all on the method's own axis.

    A method keeps at least two ranks on that axis; without them there are copies for images and guidance branches only,
    and these are `serial`'s, which is exact.
    """
    method, images = METHODS[point.method.name], len(read_prompts(point))
    axes = {"data": images > 1, "cfg": guidance_branches(point, model.shape) == 2}
    found = [axis for axis in (*SHARED, method.axis) if axis and axes.get(axis, True)]
    for given in products(tuple(dict.fromkeys(found)), point.devices):
        own = method.axis in given.axes
        if images % given.data or set(given.axes) <= {method.axis} or not (own or method.exact):
            continue
        if not own and not set(given.axes) <= {"data", "cfg"}:
            continue
        settings = point.method if own else METHODS["serial"].Config()
        one = replace(point, method=settings, parallel=given)
        if find_problem(model.shape, one) is None:
            yield one


def alone(cfg: RunConfig, session: Session) -> Alone:
    """What the bounds are made of: the model on one device of the cluster, planned once, all its tensors in the cache,
    where those of a smaller job may be."""
    hardware, _ = machine(cfg.cluster)
    cluster = replace(cfg.cluster, hardware=replace(hardware, cache_bytes=sys.maxsize))
    meter = session.plan(serial_reference(replace(cfg, cluster=cluster)))[0].meter
    ops = meter.ops / cfg.steps
    kernels_s = ops * hardware.kernel_s * hardware.unfused
    return Alone(meter.busy_s / cfg.steps, kernels_s, ops * hardware.launch_s)


def stages(cfg: RunConfig, shape: DiTShape) -> list[tuple[int, Prediction]]:
    """The first rank of each stage and its closed forms: those of all ranks of the stage."""
    parallel, branches = parallel_degrees(cfg), guidance_branches(cfg, shape)
    inner = parallel.patch * parallel.lanes * parallel.tensor
    predict, images = METHODS[cfg.method.name].predict, len(read_prompts(cfg))
    ranks = [stage * inner for stage in range(parallel.pipe)]
    return [(rank, predict(shape, parallel, rank, cfg.steps, images, branches, cfg.method)) for rank in ranks]


def held_bytes(forms: list[tuple[int, Prediction]]) -> int:
    """Parameters and K, V of the fullest device: it needs these whatever else."""
    return max(form.param_bytes + form.kv_bytes for _, form in forms)


def bound_s(cfg: RunConfig, shape: DiTShape, one: Alone, forms: list[tuple[int, Prediction]]) -> float:
    """The least seconds of a run: its kernels and blocking collectives, its host, or its busiest link.

    Arithmetic is divided by N (ranks that share the steps have fewer jobs instead); kernels are started for every job,
    on every device. A synchronous step passes all stages one after another, and a patch is back from the last one only
    after P jobs, unless stages do not wait for each other.
    """
    if METHODS[cfg.method.name].attends is not to_all:
        return 0.0
    parallel, (_, topology) = parallel_degrees(cfg), machine(cfg.cluster)
    settings, steps, p = cfg.method, cfg.steps, parallel.pipe
    m = getattr(settings, "patches", None) or 1
    w = min(getattr(settings, "warmup", steps), steps)
    layers = len(shape.blocks) / p
    calls = collectives(cfg, shape)
    images = len(read_prompts(cfg)) * guidance_branches(cfg, shape) / (parallel.data * parallel.cfg)
    hidden = shape.tokens * shape.hidden * shape.itemsize * images / parallel.patch / parallel.lanes

    def job_s(patches: int) -> float:
        devices = cfg.devices // parallel.step
        kernels = one.kernels_s / p + (one.device_s - one.kernels_s) / (devices * patches)
        for axis, op, parts, count in calls:
            ranks = parallel.mesh().axis(axis, 0).ranks
            wire = wire_bytes(op, int(parts * hidden / patches), len(ranks))
            kernels += layers * count * Network(topology).collective(op, ranks, wire, 0.0).done
        return kernels

    after = -(-(steps - w) // (getattr(settings, "stride", 1) * parallel.step))
    jobs = (after - 1) * max(m, p) + m + p - 1 if after else 0
    jobs = after * m if METHODS[cfg.method.name].late_inputs(vars(settings)) else jobs
    device_s = w * p * job_s(1) + jobs * job_s(m)
    started = one.host_s / p + layers * sum(count for *_, count in calls) * topology.port.call_s
    return max(device_s, (w + after * m) * started, busiest_link_s(parallel, Network(topology), forms))


def collectives(cfg: RunConfig, shape: DiTShape) -> list[tuple[str, str, float, int]]:
    """What every layer of a job waits for: axis, operation, its size in hidden states of the job, how often."""
    parallel, method = parallel_degrees(cfg), METHODS[cfg.method.name]
    found: list[tuple[str, str, float, int]] = []
    if parallel.ulysses > 1:  # Q, K, V and the result
        calls = 2 if cfg.method.qkv == "packed" else 4
        found.append(("ulysses", "all_to_all", 4.0 / parallel.tensor / calls, calls))
    if parallel.tensor > 1:
        reduces = min(block.image_reduces - (block.cross_params > 0) for block in shape.blocks)
        found.append(("tensor", "all_reduce", 1.0, reduces))
    gathers = method.stale_kv and getattr(cfg.method, "ring", "gather") == "gather" and not shape.linear
    if parallel.ring > 1 and gathers:
        found.append(
            ("ring", "all_gather", 2.0 / parallel.tensor, 1)
        )  # fresh K, V; other rings hide behind attention
    return found


def busiest_link_s(parallel: Parallel, network: Network, forms: list[tuple[int, Prediction]]) -> float:
    """Seconds that the busiest link needs for what the axes send round their rings; all-to-alls left out."""
    mesh, inner = parallel.mesh(), parallel.patch * parallel.lanes * parallel.tensor
    loads: dict[tuple[str, int, str], float] = defaultdict(float)
    for rank in range(mesh.size):
        if mesh.axis("step", rank).index:
            continue  # has at most the jobs of its rank 0
        for axis in ("pipe", "patch", "ring", "tensor"):
            place = mesh.axis(axis, rank)
            size = forms[rank // inner % parallel.pipe][1].axis_bytes.get(axis, 0)
            if place.size > 1 and size:
                for link in network.route(rank, place.ranks[(place.index + 1) % place.size]):
                    loads[link] += size
    return max((load / network.config(link).reached for link, load in loads.items()), default=0.0)
