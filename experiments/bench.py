"""`measure=bench`: ratios between methods, taken in turn on the same ranks in one run.

Every round times every case once, so that a drift of the machine's speed touches all of them; a ratio is the median
over rounds of serial's time in that round over the case's. Every repeat is kept in bench.json.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from diffusers import PixArtTransformer2DModel
from rich.console import Console
from rich.table import Table
from torch import Tensor

from experiments.agent import prepare, start_ranks
from experiments.check import check_model, check_values
from experiments.config import RunConfig, as_dict
from experiments.environment import provenance
from experiments.errors import ConfigError, RunFailed, check_known
from experiments.methods import METHODS
from experiments.models import Model, choose_scheduler, open_model
from experiments.progress import live
from experiments.records import write_json
from pipefusion.core.dit import Conditioning
from pipefusion.core.domain import Count, Grid, Patches, Steps, Warmup
from pipefusion.core.local import LocalFabric
from pipefusion.core.mesh import Mesh
from pipefusion.core.silent import SilentFabric
from pipefusion.schedulers import make_scheduler

CPU = torch.device("cpu")
DEVICES = 2
DIFFUSERS = "diffusers"  # the stock model in a plain loop, on rank 0


@dataclass
class BenchCase:
    """One row: `method` is a name of the table or "diffusers", the rest its own keys."""

    method: str
    steps: Steps = 20
    patches: Patches | None = None
    warmup: Warmup | None = None

    @property
    def name(self) -> str:
        keys = (("M", self.patches), ("W", self.warmup), ("S", self.steps))
        return " ".join([self.method, *(f"{key}={value}" for key, value in keys if value is not None)])


@dataclass
class BenchConfig:
    """Every path is run once before the rounds; `headline` is the row of the last line printed."""

    name: str = "bench"
    rounds: Count = 3
    cases: Grid[BenchCase] = field(default_factory=list)
    headline: str = "pipefusion M=4 W=1 S=50"


def check_bench(cfg: RunConfig) -> None:
    """Cases that cannot run or have no serial to be compared with, a model that is none. Raises ConfigError."""
    options: BenchConfig = cfg.measure
    check_values(cfg)
    model = check_model(cfg)
    if not isinstance(cfg.seed, int):
        raise ConfigError("seed", f"{cfg.seed} is a list; allowed: one number")
    if {*dict(model.shape.prompt)} != {"prompt_embeds", "prompt_mask"}:
        raise ConfigError(
            "model", f"{cfg.model.name} takes more or less than masked text; allowed: as pixart_alpha"
        )
    names = [case.name for case in options.cases]
    for index, case in enumerate(options.cases):
        key = f"measure.cases.{index}"
        check_known(cfg, {f"{key}.method": [*METHODS, DIFFUSERS]})
        if case.method == DIFFUSERS:
            if model.class_name != "PixArtTransformer2DModel":
                raise ConfigError(
                    f"{key}.method", f"{DIFFUSERS} runs PixArt alone; allowed: {', '.join(METHODS)}"
                )
        else:
            devices = 1 if case.method == "serial" else DEVICES
            problem = METHODS[case.method].problem(model.shape, devices, case.steps, settings(case))
            if problem:
                raise ConfigError(f"{key}: {problem.key}", problem.message)
        if f"serial S={case.steps}" not in names:
            text = f"{case.steps} has no serial case to be compared with; allowed: the steps of one"
            raise ConfigError(f"{key}.steps", text)
    if options.headline not in names:
        raise ConfigError("measure.headline", f"{options.headline!r} is no case; allowed: {', '.join(names)}")


def settings(case: BenchCase) -> Any:
    """The configuration of a case's method."""
    keys = {"patches": case.patches, "warmup": case.warmup}
    return METHODS[case.method].Config(**{key: value for key, value in keys.items() if value is not None})


def bound(case: BenchCase, devices: int) -> float | None:
    """The largest speed-up that fill, drain and warm-up leave to PipeFusion (paper, section 3.1); None for others.

    In units of a whole step on one device: W synchronous steps take 1 each, and the other (S-W)*M jobs plus N-1 for
    filling take 1/(M*N) each.
    """
    if case.method != "pipefusion" or case.patches is None or case.warmup is None:
        return None
    jobs = (case.steps - case.warmup) * case.patches + devices - 1
    return case.steps / (case.warmup + jobs / (case.patches * devices))


def bench(cfg: RunConfig, out: Path) -> str:
    """Run the benchmark into directory `out` and print it; returns the run's status."""
    out.mkdir(parents=True, exist_ok=True)
    prepare()
    try:
        startups = [startup_seconds(cfg, out) for _ in range(3)]
        with live(out, "bench") if cfg.log.progress else nullcontext():
            start_ranks(bench_rank, out, cfg, Mesh({"ranks": DEVICES}))
    except RunFailed as failure:
        print(f"{failure.status}: {failure.reason}", file=sys.stderr)
        return failure.status
    finally:
        (out / ".progress.json").unlink(missing_ok=True)
    seconds = json.loads((out / "seconds.json").read_text())
    (out / "seconds.json").unlink()
    rows = [row_of(case, seconds) for case in cfg.measure.cases]
    record = {"rows": rows, "startup_s": startups, "devices": DEVICES, "threads": cfg.threads}
    write_json(out / "bench.json", record | provenance() | {"config": as_dict(cfg)})
    show(rows, startups, Console() if sys.stdout.isatty() else Console(width=100))
    print(out / "bench.json")
    headline = next(row for row in rows if row["case"] == cfg.measure.headline)
    print(f"pipefusion N={DEVICES}: {headline['ratio']:.2f}x serial")
    return "ok"


def row_of(case: BenchCase, seconds: dict[str, list[float]]) -> dict[str, Any]:
    """A case with every repeat, its ratio to serial with as many steps, and its bound if it has one."""
    times, serial = seconds[case.name], seconds[f"serial S={case.steps}"]
    return {
        "case": case.name,
        **asdict(case),
        "seconds": times,
        "ratio": statistics.median(base / time for base, time in zip(serial, times, strict=True)),
        "bound": bound(case, DEVICES),
    }


def show(rows: list[dict[str, Any]], startups: list[float], console: Console) -> None:
    """The table: median and spread of each case, ratio to serial, share of its bound."""
    title = f"{DEVICES} ranks, a process and a thread each, rounds in turn. CPU timings rank no GPU."
    table = Table(title=title, title_justify="left")
    for column in ("case", "median s", "min - max s", "x serial", "bound", "of bound"):
        table.add_column(column, justify="left" if column == "case" else "right", no_wrap=True)
    for row in rows:
        times, limit = row["seconds"], row["bound"]
        table.add_row(
            row["case"],
            f"{statistics.median(times):.2f}",
            f"{min(times):.2f} - {max(times):.2f}",
            f"{row['ratio']:.3f}",
            f"{limit:.3f}" if limit else "",
            f"{row['ratio'] / limit:.1%}" if limit else "",
        )
    console.print(table)
    for row in rows:
        if row["method"] == DIFFUSERS:
            console.print(f"serial through the view takes {row['ratio']:.3f}x the time of plain diffusers")
    console.print(f"start of {DEVICES} ranks: " + ", ".join(f"{value:.2f} s" for value in startups))


def startup_seconds(cfg: RunConfig, out: Path) -> float:
    """Seconds from asking for ranks to all of them being ready."""
    start = time.time()
    start_ranks(ready_rank, out, cfg, Mesh({"ranks": DEVICES}))
    path = out / "ready.json"
    ready = float(json.loads(path.read_text()))
    path.unlink()
    return ready - start


def ready_rank(run_dir: str, cfg: RunConfig) -> None:
    """A rank that joins the group and says when all had."""
    dist.init_process_group("gloo")
    dist.barrier()
    if dist.get_rank() == 0:
        (Path(run_dir) / "ready.json").write_text(json.dumps(time.time()))
    dist.destroy_process_group()


def bench_rank(run_dir: str, cfg: RunConfig) -> None:
    """All cases on this rank, in turn; rank 0 writes the seconds of every round."""
    torch.set_num_threads(cfg.threads)
    dist.init_process_group("gloo")
    model = open_model(cfg.model)
    generator = torch.Generator().manual_seed(cfg.seed)
    shape = model.shape
    noise = torch.randn(1, *shape.latent_size, generator=generator)
    embeds = torch.randn(1, *dict(shape.prompt)["prompt_embeds"], generator=generator)
    cond = Conditioning({"prompt_embeds": embeds, "prompt_mask": torch.ones(1, shape.text_tokens)})
    cases = cfg.measure.cases
    seconds: dict[str, list[float]] = {case.name: [] for case in cases}
    with torch.inference_mode():
        for case in cases:  # first use of every path, not timed
            prepare_case(replace(case, steps=2), model, noise, cond)()
        runs = [prepare_case(case, model, noise, cond) for case in cases]
        rounds = cfg.measure.rounds
        for index in range(rounds):
            for case, run in zip(cases, runs, strict=True):
                if dist.get_rank() == 0:
                    tell(Path(run_dir), f"round {index + 1} of {rounds}, {case.name}")
                dist.barrier()
                start = time.perf_counter()
                run()
                dist.barrier()
                seconds[case.name].append(time.perf_counter() - start)
    if dist.get_rank() == 0:
        (Path(run_dir) / "seconds.json").write_text(json.dumps(seconds))
    dist.destroy_process_group()


def tell(run_dir: Path, phase: str) -> None:
    """What the live line shows."""
    temporary = run_dir / ".progress.json.tmp"
    temporary.write_text(json.dumps({"phase": phase, "step": 0, "of": 1}))
    temporary.replace(run_dir / ".progress.json")


def prepare_case(case: BenchCase, model: Model, noise: Tensor, cond: Conditioning) -> Callable[[], Any]:
    """A function that samples one image on this rank; nothing to do on rank 1 for what uses one device."""
    chosen = choose_scheduler(model, "shipped")
    assert isinstance(chosen, tuple)
    alone = case.method in ("serial", DIFFUSERS)
    if alone and dist.get_rank() > 0:
        return lambda: None
    if case.method == DIFFUSERS:
        return plain_diffusers(case, model, noise, cond, chosen)
    method = METHODS[case.method]
    mesh = method.parallel(1 if alone else DEVICES).mesh()
    fabric = SilentFabric(mesh, 0, CPU) if alone else LocalFabric(mesh, CPU)
    dit = model.view()
    sampler, scheduler = method.build(dit, fabric, settings(case)), make_scheduler(*chosen, case.steps)
    dit.load(model.tensors(), CPU)

    def run() -> None:
        fabric.clear()
        sampler(noise, cond, scheduler)

    return run


def plain_diffusers(
    case: BenchCase, model: Model, noise: Tensor, cond: Conditioning, chosen: tuple[str, dict[str, Any]]
) -> Callable[[], Any]:
    """The stock model in the loop that its own pipeline runs."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(model.seed)
        network = PixArtTransformer2DModel.from_config(model.config).eval()

    def run() -> Tensor:
        scheduler, latent = make_scheduler(*chosen, case.steps), noise
        for timestep in scheduler.timesteps:
            prediction = network(
                latent,
                encoder_hidden_states=cond.prompt["prompt_embeds"],
                encoder_attention_mask=cond.prompt["prompt_mask"],
                timestep=timestep.expand(len(latent)),
                return_dict=False,
            )[0]
            latent = scheduler.step(prediction, timestep, latent, return_dict=False)[0]
        return latent

    return run
