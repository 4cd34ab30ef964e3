"""What a run of a command does in the process that Hydra's launcher gives it: measure, record, say how it ended."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from analysis.presentation.columns import words
from analysis.presentation.terminal import make_console, rich_table
from analysis.runs import sweep as tables
from experiments import records, sinks
from experiments.command import measures
from experiments.command.measures import MEASURES
from experiments.config import LatencyConfig, RunConfig
from experiments.difference import NotFinite
from experiments.errors import ConfigError, RunFailed, first_line, refuse
from experiments.methods import METHODS, beside, with_warmup
from experiments.models.contents import run_key
from experiments.records import display
from experiments.runs import directory
from experiments.runs.check import check_method, check_model
from experiments.runs.launch import complete, execute
from pipefusion.sim.engine import RankFailed, SimulationError

RANKS_SHOWN = ["rank", "layers", "param_bytes", "kv_bytes", "sent_bytes", "wait_s"]
HELD, REFUSED = "held", "refused"
"""Of a run that was not begun: another process has its directory, or what is in there is not the project's."""


def attempt(
    cfg: RunConfig, out: Path, sweep: bool, wait: bool = False, checked: bool = True,
    launcher: dict[str, Any] | None = None,
) -> str:  # fmt: skip
    """Run one configuration in a directory that no other process has; its status, and one line where it has none.

    What the command has not `checked`, because it runs on another machine, is checked here. `launcher`: the settings of
    Hydra's where it is for the cells of a study.
    """
    try:
        with directory.taken(out, wait):
            if not checked:
                measures.check(cfg)
            if isinstance(cfg.measure, LatencyConfig):
                return run(replace(cfg, resume=cfg.resume and sweep), out, out.parent.name if sweep else None)
            return study(cfg, out, launcher)
    except directory.Held as other:
        if not sweep:
            refuse(ConfigError("hydra.run.dir", f"{other}; allowed: another directory, or this one later"))
            return REFUSED
        print(f"later: {other}", flush=True)
        return HELD
    except ConfigError as error:
        refuse(error)
        return REFUSED
    except RunFailed as failure:
        print(f"{failure.status}: {failure.reason}", file=sys.stderr, flush=True)
        return failure.status
    except (NotFinite, RankFailed, SimulationError) as error:
        print(f"failed: {first_line(error)}", file=sys.stderr, flush=True)
    except (OSError, SafetensorError) as error:
        print(f"failed: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
    return "failed"


def study(cfg: RunConfig, out: Path, launcher: dict[str, Any] | None = None) -> str:
    """Measure what is not one run of one method; the status."""
    measure = MEASURES[cfg.measure.name]
    directory.check(out, cfg.measure.name, measure.writes)
    directory.claim(out, cfg.measure.name, measure.writes)
    try:
        status = measures.run(cfg, out, launcher)
    finally:
        with suppress(OSError):  # the manifest that stands there says that all of it is this run's
            directory.settle(out, cfg.measure.name, measure.writes)
    if measure.logged:
        sinks.log(cfg, out, lambda: sinks.study_summary(cfg, out))
    return status


def run(cfg: RunConfig, out: Path, group: str | None = None) -> str:
    """One run of one method, of the sweep `group` if it is of one; the status.

    With `resume` one that is done already is left alone. One that is of no sweep shows its ranks.
    """
    model = check_model(cfg)
    cfg = complete(cfg, model)
    record = records.finished(out, run_key(cfg, model)) if cfg.resume else None
    again = record is not None
    if record is None:
        known = (records.read_json(out / "run.json") or {}).get("status")
        if known == "running" and "RANK" not in os.environ:  # and nobody else is here
            print(f"died: {cfg.method.name} N={cfg.devices}: run again  {display(out)}", flush=True)
        problem = check_method(cfg, model)
        record = execute(cfg, out, problem=str(problem) if problem else None)
    if os.environ.get("RANK", "0") == "0":
        if not again:
            sinks.log(cfg, out, lambda: sinks.run_summary(cfg, out, record, group))
        report(record, cfg, out, again)
        if group is None and record["status"] == "ok":
            found = record["method_config"].get("warmup")
            show_ranks(replace(cfg, method=with_warmup(cfg.method, found)), out)
    if record["status"] == "interrupted":
        raise KeyboardInterrupt
    return str(record["status"])


def report(record: dict[str, Any], cfg: RunConfig, out: Path, again: bool) -> None:
    """One line a run: on stdout what it took, on stderr why it did not end well."""
    status = record["status"]
    name = f"{cfg.method.name} N={cfg.devices}{f' ({cfg.parallel})' if beside(cfg) else ''}"
    if status == "ok":
        latency = record["latency_s"]
        how = {"local": f"spread {latency['spread']:.3f} s", "sim": "virtual time", "plan": "predicted"}
        took = f"{latency['median']:.3f} s ({how[record['world']]})"
        if record.get("computed_steps") is not None:
            took += f", {record['computed_steps']:.4g} of {record['steps']} steps computed"
        print(f"{'had' if again else 'ok'}: {name}: {took}  {display(out)}", flush=True)
    elif status == "skipped":
        print(f"skipped: {name}: {record['reason']}  {display(out)}", flush=True)
    else:
        print(f"{status}: {record['reason']}", file=sys.stderr, flush=True)


def show_ranks(cfg: RunConfig, out: Path) -> None:
    """What each device of a run holds, sends and waits for, under the M and W that it had."""
    method, console = METHODS[cfg.method.name], make_console()
    parts = [f"M = {cfg.method.patches} patches"] if method.has("patches") else []
    parts += [f"W = {cfg.method.warmup} warm-up steps"] if method.has("warmup") else []
    title = f"what each device holds, sends and waits for{': ' if parts else ''}{', '.join(parts)}"
    console.print(
        title, highlight=False, soft_wrap=True
    )  # not the table's own, which would be folded to its width
    rows = tables.devices(out)
    console.print(rich_table(words(rows[rows.path == str(out)], RANKS_SHOWN)))  # runs may lie below it
