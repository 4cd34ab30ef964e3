"""`measure=bench`: ratios between methods, taken in turn on the same ranks; and what starting and refusing cost.

Every round times every case of a group once, so that a drift of the machine's speed touches all of them; a ratio is
the median over rounds of one time in that round over another. Every repeat is kept.
"""

from __future__ import annotations

import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch.distributed as dist

from analysis.records.study import Record
from experiments.config import CONF, ModelConfig, RunConfig
from experiments.errors import ConfigError, check_known, config_names
from experiments.grid import model_config
from experiments.journal import Row
from experiments.methods import METHODS
from experiments.models.model import Model
from experiments.runs.agent import start_ranks
from experiments.runs.check import check_model
from experiments.session import Session
from experiments.studies.bench_peers import DIFFUSERS, NATIVE_ULYSSES, PEERS, shareable
from experiments.studies.bench_rank import OWN, BenchCase, bench_rank
from experiments.study import Cell, Study
from pipefusion.core.domain import Count, Grid
from pipefusion.core.mesh import Mesh
from pipefusion.core.parallel import Parallel

RANKS = 2  # whose start is timed, and the cores that a bound supposes
REFUSED = {"before a model is opened": "steps=0", "of what needs the model": "method.patches=4096"}
"""Overrides of a command that is refused, and when."""


@dataclass
class BenchConfig:
    """Every path is run once before the rounds; `headline` is the case of the last line printed."""

    name: str = "bench"
    rounds: Count = 3
    cases: Grid[BenchCase] = field(default_factory=list)
    headline: str = "pipefusion M=4 W=1 S=50"


def runs(cfg: RunConfig, session: Session) -> Iterator[RunConfig]:
    """Each group of cases on its own ranks; last what is no case."""
    for group in groups(cfg):
        first = group[0]
        options = replace(cfg.measure, cases=group, rounds=first.rounds or cfg.measure.rounds, headline="")
        yield replace(cfg, model=case_model(first, cfg), devices=first.ranks, measure=options)
    yield replace(cfg, measure=replace(cfg.measure, cases=[], headline=""))


def groups(cfg: RunConfig) -> list[list[BenchCase]]:
    """The cases that are timed in turn: those of one model, as many ranks, as many rounds."""
    found: dict[Any, list[BenchCase]] = {}
    for case in cfg.measure.cases:
        found.setdefault((case.model, case.ranks, case.rounds), []).append(case)
    return list(found.values())


def serial_case(case: BenchCase) -> BenchCase:
    """Serial on the same task."""
    nothing: dict[str, Any] = dict.fromkeys(OWN)
    return replace(case, method="serial", parallel=Parallel(), **nothing)


def diffusers_case(case: BenchCase) -> BenchCase | None:
    """diffusers on the same task, on one rank beside serial and on all beside exact sequence parallelism."""
    name = {"serial": DIFFUSERS, "ulysses": NATIVE_ULYSSES, "ring": NATIVE_ULYSSES}.get(case.method)
    return replace(case, method=name) if name and case.parallel.world == 1 else None


def case_model(case: BenchCase, cfg: RunConfig) -> ModelConfig:
    """The model that a case runs."""
    return cfg.model if case.model is None else model_config(case.model)


def check_bench(cfg: RunConfig, session: Session) -> None:
    """Cases that cannot run or have no serial to be compared with, a model that is none. Raises ConfigError."""
    options: BenchConfig = cfg.measure
    if not isinstance(cfg.seed, int):
        raise ConfigError("seed", f"{cfg.seed} is a list; allowed: one number")
    names = [case.name for case in options.cases]
    for index, case in enumerate(options.cases):
        key = f"measure.cases.{index}"
        check_known(cfg, {f"{key}.method": [*METHODS, *PEERS]})
        if case.model is not None:
            check_known(cfg, {f"{key}.model": config_names("model")})
        model = replace(cfg, model=case_model(case, cfg))
        check_case(key, case, session.once(("checked", case.model), partial(check_model, model)))
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
    method = METHODS[case.method]
    for name in case.own:
        if not method.has(name):
            keys = ", ".join(each for each in OWN if method.has(each)) or "none"
            raise ConfigError(
                f"{key}.{name}", f"{getattr(case, name)} is nothing that {case.method} has; allowed: {keys}"
            )
    problem = method.problem(model.shape, case.devices, case.steps, case.settings, case.parallel)
    if problem:
        raise ConfigError(f"{key}: {problem.key}", problem.message)


def bound(case: BenchCase) -> float | None:
    """The largest speed-up that fill, drain and warm-up leave to a pipeline (paper, section 3.1); None for others.

    In units of a whole step on one device: W synchronous steps take 1 each, as micro-batches of the n guidance branches
    (n + N-1)/(n*N); the other (S-W)*M jobs take 1/(M*N) each, and in plain order there are N-1 more for filling. There
    is none where ranks share cores.
    """
    n, branches = case.ranks, 2 if case.guidance_scale > 1 and case.micro_batches else 1
    if case.parallel.world > 1 or n > RANKS:
        return None
    synchronous = (branches + n - 1) / (branches * n)
    if case.method == "sync_pipeline":
        return 1 / synchronous
    if case.method != "pipefusion" or case.patches is None or case.warmup is None:
        return None
    fill = 0 if case.order == "rotational" else n - 1
    jobs = (case.steps - case.warmup) * case.patches + fill
    return case.steps / (case.warmup * synchronous + jobs / (case.patches * n))


def measure(cell: Cell, session: Session) -> list[Row]:
    """A row per case of a group; of none, the start of ranks and refusals. Raises RunFailed."""
    group, folder = cell.cfg.measure.cases, session.folder
    if not group:
        return [{"case": case, **spread(seconds)} for case, seconds in overheads(cell.cfg, folder).items()]
    start_ranks(bench_rank, folder, cell.cfg, Mesh({"ranks": cell.cfg.devices}))
    seconds = taken(folder / "seconds.json")
    return [case_row(case, seconds) for case in group]


def taken(path: Path) -> Any:
    """The content of a file that ranks have left, which goes."""
    content = json.loads(path.read_text())
    path.unlink()
    return content


def overheads(cfg: RunConfig, folder: Path) -> dict[str, list[float]]:
    """Seconds until ranks are ready, and seconds of CPU of commands that are refused."""
    found = {f"start of {RANKS} ranks": [startup_seconds(cfg, folder) for _ in range(3)]}
    for when, override in REFUSED.items():
        found[f"refusal {when}, CPU"] = [refusal_seconds(override) for _ in range(3)]
    return found


def spread(seconds: Sequence[float]) -> Row:
    """All repeats, their median and their ends."""
    ends = {"median_s": statistics.median(seconds), "min_s": min(seconds), "max_s": max(seconds)}
    return {"repeats_s": [*seconds], **ends}


def case_row(case: BenchCase, seconds: dict[str, list[float]]) -> Row:
    """A case with every repeat, its ratio to serial, its time over diffusers' and its bound where there are such."""
    times, peer, most = seconds[case.name], diffusers_case(case), bound(case)
    ratio = median_ratio(seconds[serial_case(case).name], times)
    theirs = seconds.get(peer.name) if peer else None
    return {
        "case": case.name,
        **{key: value for key, value in asdict(case).items() if key in ("method", "steps", *OWN)},
        "devices": case.devices,
        "parallel": str(case.parallel),
        "guidance_scale": case.guidance_scale,
        **spread(times),
        "ratio": ratio,
        "over_diffusers": median_ratio(times, theirs) if theirs else None,
        "bound": most,
        "share_of_bound": ratio / most if most else None,
    }


def median_ratio(times: Sequence[float], others: Sequence[float]) -> float:
    """Of one time over another in the same round."""
    return statistics.median(a / b for a, b in zip(times, others, strict=True))


def startup_seconds(cfg: RunConfig, folder: Path) -> float:
    """Seconds from asking for ranks to all of them being ready."""
    start = time.time()
    start_ranks(ready_rank, folder, cfg, Mesh({"ranks": RANKS}))
    return float(taken(folder / "ready.json")) - start


def ready_rank(run_dir: str, cfg: RunConfig) -> None:
    """A rank that joins the group and says when all had."""
    dist.init_process_group("gloo")
    dist.barrier()
    if dist.get_rank() == 0:
        (Path(run_dir) / "ready.json").write_text(json.dumps(time.time()))
    dist.destroy_process_group()


def refusal_seconds(override: str) -> float:
    """Seconds of CPU of a command that is refused, with all processes that it starts."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "run.py", override]
    done = subprocess.run(command, cwd=CONF.parent, capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def first_columns(cfg: RunConfig) -> Row:
    """What all rows of a group have in common."""
    methods = [case.method for case in cfg.measure.cases] or ["start"]
    return {"model": cfg.model.name, "method": methods[0], "devices": cfg.devices}


def all_run(cfg: RunConfig, model: Model) -> None:
    """What cannot run is refused before the first group is timed, and never skipped."""


def summary(record: Record) -> str:
    """The ratio of the headline."""
    name = record.facts["config"]["measure"]["headline"]
    rows = record.rows[record.rows.case == name]
    return "".join(f"{name}: {ratio:.2f}x serial" for ratio in rows.ratio.dropna())


BENCH = Study(
    "bench",
    measure,
    ("case", "median_s", "min_s", "max_s", "ratio", "over_diffusers", "bound", "share_of_bound", "status"),
    "Seconds, rounds of all cases of a group in turn",
    "A process and a thread per rank. CPU timings rank no GPU.",
    grid=runs,
    problem=all_run,
    place=first_columns,
    summary=summary,
    check=check_bench,
    alone=True,
)
