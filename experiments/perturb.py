"""`measure=perturb`: every method under thousands of orders of events, each from a seed, all with the same result.

Messages are late by anything between microseconds and milliseconds, ranks are slow or stall, sends complete before or
only when somebody receives. The latents may not change by one bit and no rank may hang. Then ranks are killed and
messages lost, which has to end as a failure that names the rank. A case whose undisturbed run fails already is a
finding of its own, and is not disturbed any further.
"""

from __future__ import annotations

import random
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from rich.progress import track
from torch import Tensor

from experiments.check import check_model
from experiments.config import RunConfig, as_dict
from experiments.environment import provenance
from experiments.errors import ConfigError, first_line
from experiments.inputs import random_prompts
from experiments.methods import METHODS
from experiments.models import Model, open_model, scheduler_of
from experiments.records import write_json
from pipefusion.core.dit import Conditioning
from pipefusion.core.domain import Count, Devices, Grid, Natural, Patches, Seed, Steps, Warmup
from pipefusion.core.fabric import Fabric
from pipefusion.core.mesh import Axis
from pipefusion.core.parallel import Parallel
from pipefusion.method import RINGS
from pipefusion.sim.engine import RankFailed, SimulationError
from pipefusion.sim.fabric import SimFabric
from pipefusion.sim.faults import Drop, Faults, Kill
from pipefusion.sim.network import TopologyConfig
from pipefusion.sim.world import World

CPU = torch.device("cpu")


@dataclass(frozen=True)
class PerturbCase:
    """One point of the grid; `patches`, `warmup` and `ring` only for methods that have them.

    `parallel`: the degrees beside the method's own.
    """

    method: str
    devices: int
    patches: int | None = None
    warmup: int | None = None
    ring: str | None = None
    parallel: Parallel = field(default_factory=Parallel, hash=False)

    @property
    def degrees(self) -> Parallel:
        """All of them."""
        return METHODS[self.method].parallel(self.devices, self.parallel)

    @property
    def name(self) -> str:
        keys = (("N", self.devices), ("M", self.patches), ("W", self.warmup), ("ring", self.ring))
        product = [str(self.degrees)] if self.parallel.axes else []
        own = (f"{key}={value}" for key, value in keys if value is not None)
        return " ".join([self.method, *product, *own])


PRODUCTS = (
    Parallel(cfg=2),
    Parallel(data=2),
    Parallel(ulysses=2),
    Parallel(ring=2),
    Parallel(tensor=2),
    Parallel(cfg=2, ulysses=2),
    Parallel(ring=2, ulysses=2),
)


@dataclass
class PerturbConfig:
    """`only`: the seed of a schedule to replay alone. `kills`: how often a rank is killed and a message lost.

    `products`: degrees beside a method's own. Its own axis has one rank and, where there is one, two of them.
    """

    name: str = "perturb"
    schedules: Count = 2000
    kills: Natural = 100
    steps: Steps = 4
    devices: Grid[Devices] = field(default_factory=lambda: [2, 3, 4])
    products: list[Parallel] = field(default_factory=lambda: list(PRODUCTS))
    patches: Grid[Patches] = field(default_factory=lambda: [1, 3, 4, 8])
    warmups: Grid[Warmup] = field(default_factory=lambda: [0, 1, 2])
    only: Seed | None = None


def check_perturb(cfg: RunConfig) -> None:
    """Raises ConfigError for numbers that leave nothing to run."""
    options: PerturbConfig = cfg.measure
    if not grid(options, check_model(cfg)):
        raise ConfigError(
            "measure.devices", f"{options.devices} leaves no case; allowed: what a method can run on"
        )


def grid(cfg: PerturbConfig, model: Model) -> list[PerturbCase]:
    """Every method at every point it can run."""

    def points(name: str) -> Iterator[PerturbCase]:
        method = METHODS[name]
        alone = [(devices, Parallel()) for devices in (cfg.devices if method.axis else [1])]
        free = [given for given in cfg.products if method.axis is None or getattr(given, method.axis) == 1]
        several = [(given.world * own, given) for given in free for own in ((1, 2) if method.axis else (1,))]
        for devices, given in (*alone, *several):
            for patches in cfg.patches if method.has("patches") else [None]:
                for warmup in cfg.warmups if method.has("warmup") else [None]:
                    for ring in RINGS if method.has("ring") and given.ring > 1 else [None]:
                        yield PerturbCase(name, devices, patches, warmup, ring, given)

    def runs(case: PerturbCase) -> bool:
        settings = method_config(case)
        row = METHODS[case.method]
        return row.problem(model.shape, case.devices, cfg.steps, settings, case.parallel) is None

    return [case for name in METHODS for case in points(name) if runs(case)]


def method_config(case: PerturbCase) -> Any:
    keys = {"patches": case.patches, "warmup": case.warmup, "ring": case.ring}
    return METHODS[case.method].Config(**{key: value for key, value in keys.items() if value is not None})


class Subject:
    """A small model with its inputs, on which cases are run. Latents are [B, C, H, W], an image a rank of `data`."""

    def __init__(self, model: Model, steps: int, seed: int = 0):
        self.model, self.steps = model, steps
        shape = model.shape
        self.template, self.tensors = model.view(), model.tensors()
        draw = torch.Generator().manual_seed(seed)
        self.noise = torch.randn(1, *shape.latent_size, generator=draw)
        self.guided = shape.guidance == "cfg"

    def cond(self, images: int) -> Conditioning:
        """As many different prompts."""
        shape, names = self.model.shape, [f"a tree {number}" for number in range(images)]
        negative = random_prompts([""] * images, shape) if self.guided else None
        return Conditioning(random_prompts(names, shape), 3.0, negative)

    def latents(
        self, case: PerturbCase, faults: Faults, wrap: Callable[[SimFabric], Fabric] = lambda fabric: fabric
    ) -> Tensor:
        """Sample once. `wrap` may put something between the method and its fabric, to plant a bug."""
        method, cfg = METHODS[case.method], method_config(case)
        scheduler = scheduler_of(self.model, "dpmsolver++", self.steps)
        world = World(case.degrees.mesh(), CPU, TopologyConfig(), faults)
        noise, cond = self.noise.repeat(case.parallel.data, 1, 1, 1), self.cond(case.parallel.data)
        samplers = []
        for fabric in world.fabrics:
            dit = self.template.clone()
            samplers.append(method.build(dit, wrap(fabric), cfg))
            dit.load(self.tensors, CPU)

        def program(fabric: SimFabric) -> Tensor | None:
            latents = samplers[fabric.rank](noise, cond, scheduler)
            fabric.close()
            return latents

        with torch.inference_mode():
            return world.run(program)[0]


def verdict(subject: Subject, case: PerturbCase, faults: Faults, want: Tensor, **options: Any) -> str | None:
    """What is wrong with the case under these faults, or None."""
    if not bool(torch.isfinite(want).all()):
        return "the latents of the undisturbed run are not finite"
    try:
        got = subject.latents(case, faults, **options)
    except (SimulationError, RankFailed) as error:
        return str(error)
    if torch.equal(got, want):
        return None
    return f"latents differ from the undisturbed run by up to {float((got - want).abs().max()):.1e}"


def undisturbed(subject: Subject, case: PerturbCase) -> Tensor | str:
    """The latents that every other run is held to, or what is wrong without any fault."""
    try:
        return subject.latents(case, Faults(seed=None))
    except Exception as error:  # whatever it is, it is what was looked for
        return f"undisturbed: {type(error).__name__}: {first_line(error)}"


def perturb(cfg: RunConfig, out: Path) -> str:
    """Run all schedules into directory `out`; returns the run's status."""
    options: PerturbConfig = cfg.measure
    torch.set_num_threads(1)
    started = time.time()
    subject = Subject(open_model(cfg.model), options.steps, cfg.seed)
    cases = grid(options, subject.model)
    want: dict[PerturbCase, Tensor | str] = {}
    seeds = range(options.schedules) if options.only is None else [options.only]
    failures: list[dict[str, Any]] = []
    counts: Counter[str] = Counter()

    def found(seed: int | None, case: PerturbCase, problem: str, again: int) -> None:
        failures.append({"seed": seed, "case": case.name, "problem": problem})
        replay = f"python run.py experiment=perturb measure.only={again}"
        said = case.name if seed is None else f"seed {seed}: {case.name}"
        print(f"{said}: {problem}\n  replay: {replay}", file=sys.stderr)

    for seed in track(seeds, "schedules", transient=True, disable=not sys.stderr.isatty()):
        case = cases[seed % len(cases)]
        if case not in want:
            calm = want[case] = undisturbed(subject, case)
            if isinstance(calm, str):
                found(None, case, calm, seed)
        latents = want[case]
        if isinstance(latents, str):
            continue  # nothing to be equal to
        counts[case.method] += 1
        problem = verdict(subject, case, Faults(seed=seed), latents)
        if problem:
            found(seed, case, problem, seed)
    sound = [case for case in cases if not isinstance(want.get(case), str)]
    kills = options.kills if options.only is None and any(case.devices > 1 for case in sound) else 0
    unnamed = disasters(subject, sound, kills)
    for text in unnamed:
        print(text, file=sys.stderr)
    status = "failed" if failures or unnamed else "ok"
    record = {
        "status": status,
        "schedules": counts.total(),
        "cases": [asdict(case) for case in cases],
        "schedules_by_method": dict(counts),
        "failures": failures,
        "killed_or_lost": 3 * kills,
        "not_named": unnamed,
        "seconds": time.time() - started,
        **provenance(),
        "config": as_dict(cfg),
    }
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / "perturb.json", record)
    print(f"{counts.total()} schedules of {len(cases)} cases: {len(failures)} failures; ", end="")
    print(
        f"{record['killed_or_lost']} ranks killed or messages lost: {len(unnamed)} not named  {out / 'perturb.json'}"
    )
    return status


def line_of(case: PerturbCase) -> Axis:
    """The ranks that pass messages from one to the next, rank 0 first; it alone where there are none."""
    axis = "ring" if case.method == "ring" else "pipe"
    return case.degrees.mesh().axis(axis, 0)


def disasters(subject: Subject, cases: list[PerturbCase], number: int) -> list[str]:
    """Kill a rank 2 * `number` times, lose `number` messages; what did not end as a failure that names the rank."""
    draw = random.Random(number)
    several = [case for case in cases if case.devices > 1]
    # In which every rank has a message in and one out at every step.
    piped = [case for case in several if line_of(case).size > 1] or several
    bad = []
    for index in range(number):
        first, second, third = draw.choice(several), draw.choice(piped), draw.choice(piped)
        early, late = draw.randrange(first.devices), draw.randrange(second.devices)
        mesh, to = third.degrees.mesh(), (*line_of(third).ranks, 1)[1]
        for faults, case, named in (
            (Faults(seed=index, kill=Kill(early, 0)), first, f"{first.degrees.mesh().name(early)}: Killed"),
            (
                Faults(seed=index, kill=Kill(late, draw.randrange(1, 2 * subject.steps))),
                second,
                f"{second.degrees.mesh().name(late)}: Killed",
            ),
            (Faults(seed=index, drop=Drop(0, to)), third, f"{mesh.name(to)} waits to receive from rank 0"),
        ):
            try:
                subject.latents(case, faults)
                text = "nothing"
            except (SimulationError, RankFailed) as error:
                text = str(error)
            if named not in text:
                bad.append(f"{case.name}, {faults}: {text}")
    return bad
