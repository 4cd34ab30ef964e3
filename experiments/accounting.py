"""`measure=accounting`: what every device of every model, method, N and size holds and sends, to the byte.

The methods' own code runs on stock diffusers models of full size whose tensors are on `meta`: parameters are counted by
name and slice, messages in the ledger, and live bytes with every operation. Nothing is summed before it is stored.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import sys
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path
from typing import Any

import diffusers
import torch
from rich.progress import track

from baselines import tensor
from experiments.check import CHOICES
from experiments.config import RunConfig, as_dict
from experiments.environment import provenance
from experiments.errors import ConfigError, check_known, config_names
from experiments.facts import model_facts
from experiments.grid import model_config
from experiments.launch import resolved
from experiments.methods import METHODS, problem_of
from experiments.models import Model, open_model
from experiments.params import Subject
from experiments.plan import plan
from experiments.records import write_csv, write_json
from experiments.report import RankReport, held_parameters, layers_text
from experiments.session import Session, empty_inputs
from pipefusion.core.domain import Devices, Grid, Pixels, Threads, Warmup
from pipefusion.core.predict import Prediction

HELD_TO = ("reconciles", "agrees")
"""What a case must be: its devices hold the model exactly, and every byte is the one of the closed forms."""
SETTLED = 3
"""Steps after the warm-up: from then on each allocates and, but for the last, sends what the one before it did."""
NOTE = (
    "Counted on meta tensors by the methods' own code, one image at a time (with classifier-free guidance two "
    "branches). Activations are the peak of all live tensors less parameters, K and V kept between steps, other "
    "buffers, communication buffers, and what is given (tables of positions, noise, prompt). PipeFusion has one patch "
    "a device. Sent a step: the bytes of a step after the warm-up, each device its own messages."
)


@dataclass
class AccountingConfig:
    """The grid: files of conf/model, methods, N, pixels of a side, W of the methods that have it.

    `cross` is tensor parallelism's. The tables are of the first W. `workers` null: a process for each core.
    """

    name: str = "accounting"
    models: Grid[str] = field(default_factory=lambda: ["pixart_alpha"])
    methods: Grid[str] = field(default_factory=lambda: list(METHODS))
    devices: Grid[Devices] = field(default_factory=lambda: [1, 2, 4, 8, 16])
    resolutions: Grid[Pixels] = field(default_factory=lambda: [1024, 2048, 4096])
    warmups: Grid[Warmup] = field(default_factory=lambda: [1])
    cross: str = "split"
    dtype: str = "bfloat16"
    workers: Threads | None = None


@dataclass
class Account:
    """Everything found of one model at one size: a row a device, a case a method and N, and the model's sizes."""

    model: str
    resolution: int
    rows: list[dict[str, Any]] = field(default_factory=list)
    cases: list[dict[str, Any]] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)


def check_accounting(cfg: RunConfig) -> None:
    """Names that do not exist, numbers that count nothing, a cluster without a meter. Raises ConfigError."""
    names = {"models": config_names("model"), "methods": METHODS, "dtype": CHOICES["model.dtype"]}
    names |= {"cross": tensor.CROSS}
    check_known(cfg, {f"measure.{key}": allowed for key, allowed in names.items()})
    if cfg.cluster.world != "plan":
        text = f"{cfg.cluster.name} runs on real tensors; allowed: a cluster of named hardware"
        raise ConfigError("cluster", text)


def accounting(cfg: RunConfig, out: Path) -> str:
    """Count every combination into `out`/accounting.csv and accounting.json, print the sums; the run's status."""
    import pandas as pd

    options: AccountingConfig = cfg.measure
    started = time.time()
    accounts = counted(cfg)
    facts: dict[str, dict[str, Any]] = {}
    for account in accounts:
        tokens = account.facts.pop("tokens", None)
        one = facts.setdefault(account.model, account.facts | {"tokens": {}})
        one["tokens"] |= {} if tokens is None else {str(account.resolution): tokens}
    cases = merged([case for account in accounts for case in account.cases])
    record = {"note": NOTE, "images": 1, "dtype": options.dtype, "models": facts}
    record |= {"cases": cases, "seconds": time.time() - started, "config": as_dict(cfg)} | provenance()
    out.mkdir(parents=True, exist_ok=True)
    table = pd.DataFrame([row for account in accounts for row in account.rows]).convert_dtypes()
    write_csv(out / "accounting.csv", table)
    write_json(out / "accounting.json", record)
    show(out)
    wrong = [case for case in cases if case["status"] == "ok" and not all(case[key] for key in HELD_TO)]
    for case in wrong:
        where = f"{case['model']} {case['method']} N={case['devices']} {case['resolutions']} px"
        failed = ", ".join(key for key in HELD_TO if not case[key])
        print(f"failed: {where}: not {failed}", file=sys.stderr)
    return "failed" if wrong else "ok"


def counted(cfg: RunConfig) -> list[Account]:
    """Every model at every size, each in one of several processes; in the order of the configuration."""
    options: AccountingConfig = cfg.measure
    pairs = [(name, size) for name in options.models for size in options.resolutions]
    workers = options.workers or len(os.sched_getaffinity(0))
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["experiments.accounting"])
    found: dict[tuple[str, int], Account] = {}
    with ProcessPoolExecutor(workers, context) as pool:
        done = as_completed([pool.submit(account_of, cfg, *pair) for pair in pairs])
        for future in track(done, "models", len(pairs), transient=True, disable=not sys.stderr.isatty()):
            account = future.result()
            found[account.model, account.resolution] = account
            if not sys.stderr.isatty():
                print(f"{len(found)} of {len(pairs)}: {account.model} at {account.resolution} px", flush=True)
    return [found[pair] for pair in pairs]


def account_of(cfg: RunConfig, name: str, resolution: int) -> Account:
    """One model at one size under every method and N."""
    options: AccountingConfig = cfg.measure
    account = Account(name, resolution)
    model = open_model(replace(model_config(name), resolution=resolution, dtype=options.dtype))
    try:
        counter: Counting | str = Counting(cfg, model)
        account.facts = sizes_of(model)
    except ValueError as error:  # a size that the model does not have
        counter = str(error)
    for method in options.methods:
        warmups = options.warmups if METHODS[method].has("warmup") else [None]
        for warmup, devices in product(warmups, [1] if method == "serial" else options.devices):
            place = {"model": name, "resolution": resolution, "method": method, "devices": devices}
            place["warmup"] = warmup
            if isinstance(counter, str):
                rows, case = skipped(counter)
            else:
                rows, case = counter.case(method, devices, warmup)
            account.rows += [place | row for row in rows]
            account.cases.append(place | case)
    return account


def sizes_of(model: Model) -> dict[str, Any]:
    """What the tables need of a model, and its parameters in the stock class, which no view has touched."""
    with torch.device("meta"):
        stock = getattr(diffusers, model.class_name).from_config(model.config)
    facts = {key: value for key, value in model_facts(model).items() if key != "resolution"}
    guidance, text = model.shape.guidance, model.shape.text_tokens
    more = {"class": model.class_name, "guidance": guidance, "text_tokens": text, "joint": model.shape.joint}
    return facts | more | {"diffusers_parameters": stock.num_parameters()}


def skipped(reason: str) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The row, and the case, of a combination that cannot be."""
    said = {"status": "skipped", "reason": reason}
    return [{"rank": None, **said}], said


class Counting:
    """One model at one size."""

    def __init__(self, cfg: RunConfig, model: Model):
        self.model, self.shape, self.session = model, model.shape, Session()
        self.cfg = resolved(cfg, model)
        self.subject = Subject(model, "serial", SETTLED)
        assert self.cfg.guidance_scale is not None
        noise, self.cond = empty_inputs(self.shape, 1, self.cfg.guidance_scale)
        self.inputs = [noise, *self.cond.tensors]

    def case(
        self, method: str, devices: int, warmup: int | None = None
    ) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        """One row a device, and whether they add up to the model and agree with the closed forms."""
        module = METHODS[method]
        options = module.Config() if warmup is None else module.Config(warmup=warmup)
        if hasattr(options, "patches"):
            options.patches = min(devices, self.shape.token_rows)
        if hasattr(options, "cross"):
            options.cross = self.cfg.measure.cross
        cfg = replace(
            self.cfg, method=options, devices=devices, steps=SETTLED + getattr(options, "warmup", 0)
        )
        problem = problem_of(self.shape, cfg)
        if problem:
            return skipped(f"{problem.key}={problem.message}")
        reports = plan(cfg, self.session).reports
        held = [held_parameters(report.dit) for report in reports]
        holders = Counter(key for keys in held for key in keys)
        rows, agrees = [], True
        for report, mine in zip(reports, held, strict=True):
            counts = self.bytes_of(report, cfg.steps)
            branches = self.cond.branches
            parallel, steps = module.parallel(devices), cfg.steps - 1
            earlier = module.predict(self.shape, parallel, report.rank, steps, 1, branches, options)
            agrees &= counts.items() >= forms_of(report.forecast, earlier).items()
            rows.append(
                {
                    "rank": report.rank,
                    "status": "ok",
                    "reason": None,
                    "branches": branches,
                    "patches": getattr(options, "patches", None),
                    "layers": layers_text(report.dit.layers),
                    "layer_count": len(report.dit.layers),
                    "replicated_param_bytes": sum(size for key, size in mine.items() if holders[key] > 1),
                    **counts,
                }
            )
        return rows, self.subject.totals(held, holders) | {"agrees": agrees}

    def bytes_of(self, report: RankReport, steps: int) -> dict[str, int]:
        """What a device holds by kind, which add up to its peak, and what it sends and receives in one step."""
        assert report.peak_bytes is not None
        kept = report.ledger.buffer_bytes
        counts = {"param_bytes": sum(held_parameters(report.dit).values())}
        counts |= {"kv_bytes": kept["kv"], "buffer_bytes": kept["buffer"], "comm_bytes": kept["comm"]}
        counts["given_bytes"] = sum(tensor.nbytes for tensor in [*self.inputs, *report.dit.model.buffers()])
        counts["activation_bytes"] = report.peak_bytes - sum(counts.values())
        counts["peak_bytes"] = report.peak_bytes
        # The last step may send less: what comes after it is not waited for.
        step = [entry for entry in report.ledger.entries if entry.at.step == steps - 2]
        counts["step_sent_bytes"] = sum(entry.sent_bytes for entry in step)
        return counts | {"step_recv_bytes": sum(entry.recv_bytes for entry in step)}


def forms_of(forecast: Prediction, earlier: Prediction) -> dict[str, int]:
    """The closed forms of a device's bytes; those of a step are the difference to a run of one step less."""
    forms = {
        f"{kind}_bytes": getattr(forecast, f"{kind}_bytes") for kind in ("param", "kv", "buffer", "comm")
    }
    for key in ("sent_bytes", "recv_bytes"):
        forms[f"step_{key}"] = getattr(forecast, key) - getattr(earlier, key)
    return forms


def merged(cases: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Cases that differ in nothing but the size, as one with all `resolutions`."""
    found: dict[str, dict[str, Any]] = {}
    for case in cases:
        rest = {key: value for key, value in case.items() if key != "resolution"}
        one = found.setdefault(json.dumps(rest), rest | {"resolutions": []})
        one["resolutions"].append(case["resolution"])
    return list(found.values())


def show(out: Path) -> None:
    """Print how the devices of each model add up, and the fullest device of every method."""
    # Here and not above: the configuration is imported by every command, matplotlib by those that need it.
    from analysis import accounting as report
    from analysis.terminal import make_console, rich_table
    from experiments.cli import display

    console = make_console()
    record, _ = report.load(out)
    console.print(rich_table(report.sums_text(record), "Parameters over the devices of every method and N"))
    console.print(f"{report.reconciled(record)}\n[dim]{NOTE}[/dim]", highlight=False)
    for name in ("accounting.csv", "accounting.json"):
        console.print(display(out / name), highlight=False, soft_wrap=True)
