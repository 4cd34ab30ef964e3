"""The command: compose, check, run, and say in one line how each run ended."""

from __future__ import annotations

import os
import re
import signal
import sys
from hashlib import sha1
from pathlib import Path
from types import FrameType
from typing import Any

import hydra
from hydra._internal.utils import get_args_parser
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue

from experiments import records
from experiments.agent import prepare
from experiments.check import (
    check_clock,
    check_method,
    check_model,
    check_output,
    check_torchrun,
    check_values,
)
from experiments.compose import Plan, check_groups, plan
from experiments.config import CONF, RunConfig, as_dict, from_hydra, register
from experiments.errors import ConfigError, first_line

LONGEST_NAME = 120


def main(argv: list[str]) -> int:
    """Run a command line. Returns the exit code: 0 done, 1 a run failed, 2 the configuration is wrong."""
    args = get_args_parser().parse_args(argv)
    try:
        check_groups(args.overrides)
    except ConfigError as error:
        return refuse(error)
    only_shown = args.help or args.hydra_help or args.cfg or args.info or args.shell_completion
    simulated = any(text.startswith("cluster=") and text != "cluster=local" for text in args.overrides)
    if not only_shown and not simulated and "RANK" not in os.environ:
        prepare()  # first of all: what ranks import takes seconds, which go by while this process imports it too
    set_up()
    try:
        planned = plan(args.overrides, args.multirun)
        if not only_shown:
            check(planned, args.overrides)
    except ConfigError as error:
        return refuse(error)
    statuses: list[str] = []

    def job(cfg: DictConfig) -> None:
        statuses.append(run_one(from_hydra(cfg), Path(HydraConfig.get().runtime.output_dir), planned.sweep))

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")(job)()
    except KeyboardInterrupt:
        return 1
    finally:
        signal.signal(signal.SIGTERM, before)
    return int(any(status not in ("ok", "skipped") for status in statuses))


def refuse(error: ConfigError) -> int:
    """Say what is wrong with the configuration, under torchrun once a node; the exit code."""
    if os.environ.get("LOCAL_RANK", "0") == "0":
        print(f"error: {error}", file=sys.stderr)
    return 2


def set_up() -> None:
    """Schemas and the resolver that `conf/` refers to."""
    OmegaConf.register_new_resolver("slug", slug, replace=True)
    register()


def slug(text: Any) -> str:
    """A folder name from a run's overrides: no separators, and short enough for any file system."""
    name = re.sub(r"[^\w.,=+-]+", "_", str(text)) if text else "sweep"
    return (
        name if len(name) <= LONGEST_NAME else f"{name[:LONGEST_NAME]}-{sha1(name.encode()).hexdigest()[:8]}"
    )


def interrupt(number: int, frame: FrameType | None) -> None:
    """SIGTERM ends a run as Ctrl-C does."""
    raise KeyboardInterrupt


def check(planned: Plan, overrides: list[str]) -> None:
    """Check every run before the first one starts. Raises ConfigError.

    In a sweep, a combination that a method cannot do is not an error: it becomes a record that says `skipped`.
    """
    from experiments.measures import MEASURES

    for job in planned.jobs:
        try:
            cfg = from_hydra(job)
        except MissingMandatoryValue as error:
            key = re.sub(r"\[(\d+)\]", r".\1", str(error.full_key))
            raise ConfigError(key, "??? has to be given; allowed: a value") from None
        key = "hydra.sweep.dir" if planned.sweep else "hydra.run.dir"
        check_output(Path(OmegaConf.select(job, key)), key)
        check_torchrun(cfg, planned.sweep, any(text.startswith("hydra.run.dir=") for text in overrides))
        measure = MEASURES[cfg.measure.name]
        if measure.check:
            measure.check(cfg)
        if measure.run:
            continue
        check_values(cfg)
        check_clock(cfg)
        problem = check_method(cfg, check_model(cfg))
        if problem and not planned.sweep:
            raise problem


def run_one(cfg: RunConfig, out: Path, sweep: bool) -> str:
    """Run one configuration in directory `out`; returns its status."""
    from experiments import launch, sinks
    from experiments.difference import NotFinite
    from experiments.measures import MEASURES
    from pipefusion.sim.engine import RankFailed, SimulationError

    measure = MEASURES[cfg.measure.name]
    if measure.run:
        try:
            status = measure.run(cfg, out)
        except (NotFinite, RankFailed, SimulationError) as error:
            print(f"failed: {first_line(error)}", file=sys.stderr)
            return "failed"
        if measure.told:
            sinks.log(cfg, out, lambda: sinks.study_told(cfg, out))
        return status

    model = check_model(cfg)
    cfg = launch.resolved(cfg, model)
    record = records.finished(out, launch.config_text(as_dict(cfg))) if sweep and cfg.resume else None
    again = record is not None
    if record is None:
        problem = check_method(cfg, model)
        record = launch.skip(cfg, out, str(problem)) if problem else launch.execute(cfg, out)
    if os.environ.get("RANK", "0") == "0":
        if not again:
            sinks.log(cfg, out, lambda: sinks.run_told(cfg, out, record))
        report(record, out, again)
    if record["status"] == "interrupted":
        raise KeyboardInterrupt
    return str(record["status"])


def report(record: dict[str, Any], out: Path, again: bool) -> None:
    """One line a run: on stdout what it took, on stderr why it did not end well."""
    status = record["status"]
    name = f"{record['method']} N={record['devices']}"
    if status == "ok":
        latency = record["latency_s"]
        how = {"local": f"spread {latency['spread']:.3f} s", "sim": "virtual time", "plan": "predicted"}
        took = f"{latency['median']:.3f} s ({how[record['world']]})"
        print(f"{'had' if again else 'ok'}: {name}: {took}  {display(out)}", flush=True)
    elif status == "skipped":
        print(f"skipped: {name}: {record['reason']}  {display(out)}", flush=True)
    else:
        print(f"{status}: {record['reason']}", file=sys.stderr, flush=True)


def display(path: Path) -> str:
    """A path as one would type it here."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)
