"""`measure=bench`: ratios between methods, taken in turn on the same ranks in one run.

Every round times every case of a group once, so that a drift of the machine's speed touches all of them; a ratio is
the median over rounds of one time in that round over another. Every repeat is kept in bench.json.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch.distributed as dist
from rich.console import Console
from rich.table import Table

from experiments.agent import prepare, start_ranks
from experiments.bench_peers import DIFFUSERS, NATIVE_ULYSSES, PEERS, shareable
from experiments.bench_rank import BenchCase, bench_rank
from experiments.check import check_model, check_values
from experiments.config import ModelConfig, RunConfig, as_dict
from experiments.environment import provenance
from experiments.errors import ConfigError, RunFailed, check_known, config_names
from experiments.grid import model_config
from experiments.methods import METHODS
from experiments.models import Model
from experiments.progress import live
from experiments.records import write_json
from pipefusion.core.domain import Count, Grid
from pipefusion.core.mesh import Mesh
from pipefusion.core.parallel import Parallel

RANKS = 2  # whose start is timed, and the cores that a bound supposes


@dataclass
class BenchConfig:
    """Every path is run once before the rounds; `headline` is the row of the last line printed."""

    name: str = "bench"
    rounds: Count = 3
    cases: Grid[BenchCase] = field(default_factory=list)
    headline: str = "pipefusion M=4 W=1 S=50"


def groups(cfg: RunConfig) -> list[list[BenchCase]]:
    """The cases that are timed in turn: those of one model, as many ranks, as many rounds."""
    found: dict[Any, list[BenchCase]] = {}
    for case in cfg.measure.cases:
        found.setdefault((case.model, case.ranks, case.rounds), []).append(case)
    return list(found.values())


def serial_case(case: BenchCase) -> BenchCase:
    """Serial on the same task."""
    return replace(case, method="serial", patches=None, warmup=None, parallel=Parallel())


def diffusers_case(case: BenchCase) -> BenchCase | None:
    """diffusers on the same task, on one rank beside serial and on all beside exact sequence parallelism."""
    name = {"serial": DIFFUSERS, "ulysses": NATIVE_ULYSSES, "ring": NATIVE_ULYSSES}.get(case.method)
    return replace(case, method=name) if name and case.parallel.world == 1 else None


def case_model(case: BenchCase, cfg: RunConfig) -> ModelConfig:
    """The model that a case runs."""
    return cfg.model if case.model is None else model_config(case.model)


def check_bench(cfg: RunConfig) -> None:
    """Cases that cannot run or have no serial to be compared with, a model that is none. Raises ConfigError."""
    options: BenchConfig = cfg.measure
    check_values(cfg)
    if not isinstance(cfg.seed, int):
        raise ConfigError("seed", f"{cfg.seed} is a list; allowed: one number")
    names = [case.name for case in options.cases]
    for index, case in enumerate(options.cases):
        key = f"measure.cases.{index}"
        check_known(cfg, {f"{key}.method": [*METHODS, *PEERS]})
        if case.model is not None:
            check_known(cfg, {f"{key}.model": config_names("model")})
        check_case(key, case, check_model(replace(cfg, model=case_model(case, cfg))))
        if names.count(case.name) > 1:
            raise ConfigError(key, f"{case.name!r} is there twice; allowed: once")
    for group in groups(cfg):
        there = {case.name for case in group}
        for case in group:
            if serial_case(case).name not in there:
                key = f"measure.cases.{names.index(case.name)}.steps"
                text = f"{case.steps} has no serial case to be compared with; allowed: the steps of one"
                raise ConfigError(key, f"{text} with the same model, guidance, ranks and rounds")
    if options.headline not in names:
        raise ConfigError("measure.headline", f"{options.headline!r} is no case; allowed: {', '.join(names)}")


def check_case(key: str, case: BenchCase, model: Model) -> None:
    """One case on its model. Raises ConfigError."""
    if "prompt_embeds" not in dict(model.shape.prompt):
        raise ConfigError("model", f"{model.class_name} has no text; allowed: a model that is prompted")
    if case.method in PEERS:
        if case.guidance_scale > 1 or case.parallel.world > 1:
            raise ConfigError(
                f"{key}.method", f"{case.method} takes no guidance and no degrees; allowed: neither"
            )
        if case.method == NATIVE_ULYSSES and not shareable(model):
            text = f"{case.method} is not there for {model.class_name}; allowed: {DIFFUSERS}, {', '.join(METHODS)}"
            raise ConfigError(f"{key}.method", text)
        return
    problem = METHODS[case.method].problem(
        model.shape, case.devices, case.steps, case.settings, case.parallel
    )
    if problem:
        raise ConfigError(f"{key}: {problem.key}", problem.message)


def bound(case: BenchCase) -> float | None:
    """The largest speed-up that fill, drain and warm-up leave to PipeFusion (paper, section 3.1); None for others.

    In units of a whole step on one device: W synchronous steps take 1 each, and the other (S-W)*M jobs plus N-1 for
    filling take 1/(M*N) each. There is none where ranks share cores.
    """
    devices = case.ranks
    if case.method != "pipefusion" or case.patches is None or case.warmup is None:
        return None
    if case.parallel.world > 1 or devices > RANKS:
        return None
    jobs = (case.steps - case.warmup) * case.patches + devices - 1
    return case.steps / (case.warmup + jobs / (case.patches * devices))


def bench(cfg: RunConfig, out: Path) -> str:
    """Run the benchmark into directory `out` and print it; returns the run's status."""
    out.mkdir(parents=True, exist_ok=True)
    prepare()
    seconds: dict[str, list[float]] = {}
    try:
        startups = [startup_seconds(cfg, out) for _ in range(3)]
        with live(out, "bench") if cfg.log.progress else nullcontext():
            for group in groups(cfg):
                seconds |= timed(cfg, group, out)
    except RunFailed as failure:
        print(f"{failure.status}: {failure.reason}", file=sys.stderr)
        return failure.status
    finally:
        (out / ".progress.json").unlink(missing_ok=True)
    rows = [case_row(case, seconds) for case in cfg.measure.cases]
    record = {"rows": rows, "startup_s": startups, "threads": cfg.threads}
    write_json(out / "bench.json", record | provenance() | {"config": as_dict(cfg)})
    show(rows, startups, Console() if sys.stdout.isatty() else Console(width=120))
    print(out / "bench.json")
    headline = next(row for row in rows if row["case"] == cfg.measure.headline)
    print(f"pipefusion N={headline['ranks']}: {headline['ratio']:.2f}x serial")
    return "ok"


def timed(cfg: RunConfig, group: Sequence[BenchCase], out: Path) -> dict[str, list[float]]:
    """The seconds of a group's cases, round by round, on ranks of their own. Raises RunFailed."""
    first = group[0]
    measure = replace(cfg.measure, cases=[*group], rounds=first.rounds or cfg.measure.rounds)
    task = replace(cfg, model=case_model(first, cfg), measure=measure)
    start_ranks(bench_rank, out, task, Mesh({"ranks": first.ranks}))
    path = out / "seconds.json"
    seconds: dict[str, list[float]] = json.loads(path.read_text())
    path.unlink()
    return seconds


def case_row(case: BenchCase, seconds: dict[str, list[float]]) -> dict[str, Any]:
    """A case with every repeat, its ratio to serial, its time over diffusers' and its bound where there are such."""
    times, peer = seconds[case.name], diffusers_case(case)
    theirs = seconds.get(peer.name) if peer else None
    over = None if theirs is None else statistics.median(a / b for a, b in zip(times, theirs, strict=True))
    return {
        "case": case.name,
        **asdict(case),
        "rounds": len(times),
        "parallel": str(case.parallel),
        "seconds": times,
        "ratio": statistics.median(
            a / b for a, b in zip(seconds[serial_case(case).name], times, strict=True)
        ),
        "over_diffusers": over,
        "bound": bound(case),
    }


def show(rows: list[dict[str, Any]], startups: list[float], console: Console) -> None:
    """The table: median and spread of each case, ratio to serial, share of its bound."""
    title = "A process and a thread a rank, rounds in turn. CPU timings rank no GPU."
    table = Table(title=title, title_justify="left")
    for column in (
        "case",
        "median s",
        "min - max s",
        "x serial",
        "/ diffusers",
        "bound",
        "of bound",
    ):
        table.add_column(column, justify="left" if column == "case" else "right", no_wrap=True)
    for row in rows:
        times, limit, over = row["seconds"], row["bound"], row["over_diffusers"]
        table.add_row(
            row["case"],
            f"{statistics.median(times):.2f}",
            f"{min(times):.2f} - {max(times):.2f}",
            f"{row['ratio']:.3f}",
            f"{over:.3f}" if over else "",
            f"{limit:.3f}" if limit else "",
            f"{row['ratio'] / limit:.1%}" if limit else "",
        )
    console.print(table)
    console.print(f"start of {RANKS} ranks: " + ", ".join(f"{value:.2f} s" for value in startups))


def startup_seconds(cfg: RunConfig, out: Path) -> float:
    """Seconds from asking for ranks to all of them being ready."""
    start = time.time()
    start_ranks(ready_rank, out, cfg, Mesh({"ranks": RANKS}))
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
