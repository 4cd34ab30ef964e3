"""`measure=perturb`: every method under thousands of orders of events, each from a seed, all with the same result.

Messages are late by anything between microseconds and milliseconds, ranks are slow or stall, sends complete before or
only when somebody receives. The latents may not change by one bit and no rank may hang. Then ranks are killed and
messages lost, which has to end as a failure that names the rank. A case whose undisturbed run fails already is a
finding of its own, and is not disturbed any further.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Any

import torch
from torch import Tensor

from analysis.records.study import Record
from experiments.config import RunConfig
from experiments.errors import first_line
from experiments.grid import GridConfig, expand, problem
from experiments.journal import Row
from experiments.methods import METHODS, parallel_degrees
from experiments.models.inputs import stand_ins
from experiments.session import Session
from experiments.study import Cell, Study
from pipefusion.core.conditioning import Conditioning
from pipefusion.core.domain import Count, Devices, Grid, Natural, PatchCounts, Seed, Steps, Threads, Warmups
from pipefusion.core.fabric import Fabric
from pipefusion.core.mesh import Axis
from pipefusion.core.parallel import Parallel
from pipefusion.method import FORECASTS, ORDERS, RINGS
from pipefusion.sim.engine import RankFailed, SimulationError
from pipefusion.sim.fabric import SimFabric
from pipefusion.sim.faults import Drop, Faults, Kill
from pipefusion.sim.network import TopologyConfig
from pipefusion.sim.world import World

CPU = torch.device("cpu")
PRODUCTS = (
    Parallel(cfg=2),
    Parallel(data=2),
    Parallel(ulysses=2),
    Parallel(ring=2),
    Parallel(tensor=2),
    Parallel(cfg=2, ulysses=2),
    Parallel(ring=2, ulysses=2),
)
Wrap = Callable[[SimFabric], Fabric]


@dataclass
class PerturbConfig(GridConfig):
    """The grid; `only`: the seed of a schedule to replay alone. `kills`: how often a rank is killed and a message lost.

    `products`: degrees beside a method's own. Its own axis has one rank and, where there is one, two of them. Seeds are
    dealt to the cases in turn: `first`, and every `stride`-th after it.
    """

    name: str = "perturb"
    schedules: Count = 2000
    kills: Natural = 100
    steps: list[Steps] = field(default_factory=lambda: [4])
    methods: list[str] = field(default_factory=lambda: list(METHODS))
    devices: Grid[Devices] = field(default_factory=lambda: [2, 3, 4])
    products: list[Parallel] = field(default_factory=lambda: list(PRODUCTS))
    patches: list[PatchCounts] = field(default_factory=lambda: [1, 3, 4, 8])
    warmups: list[Warmups] = field(default_factory=lambda: [0, 1, 2])
    rings: list[str] = field(default_factory=lambda: list(RINGS))
    orders: list[str] = field(default_factory=lambda: list(ORDERS))
    forecasts: list[str] = field(default_factory=lambda: [FORECASTS[0], FORECASTS[-1]])
    only: Seed | None = None
    workers: Threads | None = None
    first: Natural = 0
    stride: Count = 1


def cases(cfg: RunConfig, session: Session) -> list[RunConfig]:
    """Every method alone at every N, and in every product with one rank and with two on its own axis, seeds dealt."""
    options: PerturbConfig = cfg.measure
    model = session.model(cfg.model)
    grids = [replace(options, products=[Parallel()], rings=[])]
    for given in options.products:
        rings = options.rings if given.ring > 1 else []
        grids.append(replace(options, products=[given], devices=[given.world, 2 * given.world], rings=rings))
    base = replace(cfg, guidance_scale=3.0, scheduler="dpmsolver++")
    able = (one for one in chain(*(runs(base, grid) for grid in grids)) if problem(one, model) is None)
    found = list({repr(one): one for one in able}.values())
    dealt = [
        replace(one, measure=replace(options, first=i, stride=len(found))) for i, one in enumerate(found)
    ]
    return dealt if options.only is None else dealt[options.only % len(dealt) :][:1]


def runs(cfg: RunConfig, grid: PerturbConfig) -> Iterator[RunConfig]:
    """The runs of a grid, a picture per rank of `data`."""
    for one in expand(cfg, grid):
        yield replace(one, prompt=[f"a tree {number}" for number in range(one.parallel.data)])


def measure(cell: Cell, session: Session) -> list[Row]:
    """Run the schedules of one case; the row counts what failed, and its reason is the first of these."""
    cfg, options = cell.cfg, cell.cfg.measure
    seeds = (
        [options.only]
        if options.only is not None
        else range(options.first, options.schedules, options.stride)
    )
    kills = range(options.first, 0 if options.only is not None else options.kills, options.stride)
    want = undisturbed(cfg, session)
    if isinstance(want, str):
        return [outcome(cell, [(options.first, want)], 0, [], 0)]
    found = [(seed, verdict(cfg, session, Faults(seed=seed), want)) for seed in seeds]
    failures = [(seed, problem) for seed, problem in found if problem is not None]
    unnamed = [text for seed in kills for text in disasters(cfg, session, seed)]
    return [outcome(cell, failures, len(seeds), unnamed, len(kills))]


def outcome(
    cell: Cell, failures: list[tuple[int, str]], schedules: int, unnamed: list[str], kills: int
) -> Row:
    """The row of a case."""
    row: Row = {
        "schedules": schedules,
        "failures": len(failures),
        "disasters": kills,
        "not_named": len(unnamed),
    }
    if failures:
        seed, problem = failures[0]
        replay = f"python run.py experiment=perturb measure.only={seed}"
        return row | {"status": "failed", "reason": f"seed {seed}: {problem}; again: {replay}"}
    return row | ({"status": "failed", "reason": unnamed[0]} if unnamed else {})


def latents(cfg: RunConfig, session: Session, faults: Faults, wrap: Wrap | None = None) -> Tensor:
    """Latents [B, C, H, W] of one simulated run, an image per rank of `data`.

    `wrap` may put something between the method and its fabric, to plant a bug.
    """
    model, images = session.model(cfg.model), cfg.parallel.data
    shape, scheduler = model.shape, session.scheduler(cfg)
    world = World(parallel_degrees(cfg).mesh(), CPU, TopologyConfig(), faults)
    noise = torch.randn(1, *shape.latent_size, generator=torch.Generator().manual_seed(cfg.seed))
    negative = stand_ins([""] * images, shape.prompt) if shape.guidance == "cfg" else None
    cond = Conditioning(stand_ins(cfg.prompt, shape.prompt + shape.pictures), 3.0, negative)
    tensors = session.tensors(cfg.model)
    samplers = [session.build(cfg, wrap(fabric) if wrap else fabric, tensors)[1] for fabric in world.fabrics]

    def program(fabric: SimFabric) -> Tensor | None:
        found = samplers[fabric.rank](noise.repeat(images, 1, 1, 1), cond, scheduler)
        fabric.close()
        return found

    with torch.inference_mode():
        return world.run(program)[0]


def verdict(
    cfg: RunConfig, session: Session, faults: Faults, want: Tensor, wrap: Wrap | None = None
) -> str | None:
    """What is wrong with a case under these faults, or None."""
    if not bool(torch.isfinite(want).all()):
        return "the latents of the undisturbed run are not finite"
    try:
        got = latents(cfg, session, faults, wrap)
    except (SimulationError, RankFailed) as error:
        return str(error)
    if torch.equal(got, want):
        return None
    return f"latents differ from the undisturbed run by up to {float((got - want).abs().max()):.1e}"


def undisturbed(cfg: RunConfig, session: Session) -> Tensor | str:
    """The latents that every other run is held to, or what is wrong without any fault."""
    try:
        return latents(cfg, session, Faults(seed=None))
    except Exception as error:  # whatever it is, it is what was looked for
        return f"undisturbed: {type(error).__name__}: {first_line(error)}"


def line(cfg: RunConfig) -> Axis:
    """The ranks that pass messages from one to the next, rank 0 first; it alone where there are none."""
    return parallel_degrees(cfg).mesh().axis("ring" if cfg.method.name == "ring" else "pipe", 0)


def communications(cfg: RunConfig, session: Session, rank: int) -> int:
    """How many a rank starts in an undisturbed run."""
    fabrics: list[SimFabric] = []

    def kept(fabric: SimFabric) -> SimFabric:
        fabrics.append(fabric)
        return fabric

    latents(cfg, session, Faults(), kept)
    return len(fabrics[rank].ledger.entries)


def disasters(cfg: RunConfig, session: Session, seed: int) -> list[str]:
    """Kill a rank at once; where ranks pass messages in a line kill one later, and lose a message.

    What did not end as a failure that names the rank.
    """
    mesh, draw, ranks = parallel_degrees(cfg).mesh(), random.Random(seed), line(cfg).ranks
    if mesh.size == 1:
        return []
    early, late = draw.randrange(mesh.size), draw.randrange(mesh.size)
    tried = [(Faults(seed=seed, kill=Kill(early, 0)), f"{mesh.name(early)}: Killed")]
    if len(ranks) > 1:
        kill = Kill(late, draw.randrange(communications(cfg, session, late)))
        drop = Drop(0, ranks[1])
        tried.append((Faults(seed=seed, kill=kill), f"{mesh.name(late)}: Killed"))
        tried.append((Faults(seed=seed, drop=drop), f"{mesh.name(ranks[1])} waits to receive from rank 0"))
    bad = []
    for faults, named in tried:
        try:
            latents(cfg, session, faults)
            text = "nothing"
        except (SimulationError, RankFailed) as error:
            text = str(error)
        if named not in text:
            bad.append(f"{faults}: {text}")
    return bad


def summary(record: Record) -> str:
    """How many schedules were tried, and what was found."""
    rows = record.rows
    schedules, failures, disasters, unnamed = (
        int(rows[name].sum()) for name in ("schedules", "failures", "disasters", "not_named")
    )
    return (
        f"{schedules} schedules of {len(rows)} cases: {failures} failures; {disasters} times ranks were killed and "
        f"messages lost: {unnamed} not named"
    )


def failed(record: Record) -> Any:
    """The cases that failed, or the first one as a sample."""
    bad = record.rows[record.rows.status == "failed"]
    return bad if len(bad) else record.rows.groupby("method", sort=False).head(1)


def by_method(cell: Cell) -> str:
    """Cases of a method share a process."""
    return f"{cell.cfg.method.name} {cell.cfg.parallel}"


PERTURB = Study(
    "perturb",
    measure,
    (
        *("method", "parallel", "patches", "warmup", "ring_form", "order", "forecast"),
        *("schedules", "failures", "disasters", "not_named", "status"),
    ),
    "Cases that failed, or one of each method",
    grid=cases,
    group=by_method,
    shown=failed,
    summary=summary,
)
