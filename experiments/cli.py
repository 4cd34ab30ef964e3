"""The command: compose, check, run, and say in one line how each run ended."""

from __future__ import annotations

import json
import os
import re
import secrets
import signal
import sys
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from types import FrameType
from typing import Any

import hydra
from hydra._internal.utils import get_args_parser
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException
from safetensors import SafetensorError

from experiments import directory, records
from experiments.agent import RunFailed, prepare
from experiments.check import (
    check_clock,
    check_method,
    check_model,
    check_output,
    check_torchrun,
    check_values,
)
from experiments.compose import Plan, check_groups, plan
from experiments.config import CONF, RunConfig, from_hydra, register
from experiments.errors import ConfigError, first_line

LONGEST_NAME = 120
HELD, REFUSED = "held", "refused"
"""Of a run that was not begun: another process has its directory, or what is in there is not the project's."""
EACH_ITS_OWN = "'${cell:${hydra.job.override_dirname}}'"


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
    held: list[tuple[RunConfig, Path]] = []

    def job(cfg: DictConfig) -> None:
        run, out = from_hydra(cfg), Path(HydraConfig.get().runtime.output_dir)
        status = attempt(run, out, planned.sweep)
        if status == HELD and planned.sweep:
            held.append((run, out))
        else:
            statuses.append(status)

    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # errors come here, and Hydra does not end the process
    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")(job)()
        # What other processes were at when it was its turn: done by now, or waited for.
        statuses += [attempt(run, out, planned.sweep, wait=True) for run, out in held]
    except KeyboardInterrupt:
        return 1
    except OSError as error:  # of the directories that Hydra makes
        print(f"failed: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
        return 1
    finally:
        signal.signal(signal.SIGTERM, before)
    if {HELD, REFUSED} & {*statuses}:
        return 2
    return int(any(status not in ("ok", "skipped") for status in statuses))


def attempt(cfg: RunConfig, out: Path, sweep: bool, wait: bool = False) -> str:
    """Run one configuration in a directory that no other process has; its status, and one line where it has none."""
    try:
        with directory.taken(out, wait):
            return run_one(cfg, out, sweep)
    except directory.Held as other:
        if sweep:
            print(f"later: {other}", flush=True)
        else:
            refuse(ConfigError("hydra.run.dir", f"{other}; allowed: another directory, or this one later"))
        return HELD
    except ConfigError as error:
        refuse(error)
        return REFUSED
    except RunFailed as failure:
        print(f"{failure.status}: {failure.reason}", file=sys.stderr, flush=True)
        return failure.status
    except (OSError, SafetensorError) as error:
        print(f"failed: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
        return "failed"


def refuse(error: ConfigError) -> int:
    """Say what is wrong with the configuration, under torchrun once a node; the exit code."""
    if os.environ.get("LOCAL_RANK", "0") == "0":
        print(f"error: {error}", file=sys.stderr)
    return 2


def set_up() -> None:
    """Schemas and the resolver that `conf/` refers to."""
    OmegaConf.register_new_resolver("slug", slug, replace=True)
    OmegaConf.register_new_resolver("cell", cell, replace=True)
    token = secrets.token_hex(4)  # of this command: others start in the same second
    OmegaConf.register_new_resolver("token", lambda: token, replace=True)
    register()


def slug(text: Any) -> str:
    """A folder name from any text: no separators, and short enough for any file system. Several texts may share it."""
    return re.sub(r"[^\w.,=+-]+", "_", str(text), flags=re.ASCII)[:LONGEST_NAME] if text else "sweep"


def cell(text: Any, *, _root_: DictConfig) -> str:
    """The folder name of one run of a sweep: its overrides, to be read, and a hash of its whole configuration."""
    content = plain(_root_)
    digest = sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()
    return f"{slug(text or 'run')}-{digest[:10]}"


def plain(job: DictConfig) -> dict[str, Any]:
    """A composed configuration without what decides no result: Hydra's own node, what is told, and resuming."""
    content = OmegaConf.to_container(job)
    assert isinstance(content, dict)
    return {str(key): value for key, value in content.items() if key not in ("hydra", "log", "resume")}


def interrupt(number: int, frame: FrameType | None) -> None:
    """SIGTERM ends a run as Ctrl-C does."""
    raise KeyboardInterrupt


def check(planned: Plan, overrides: list[str]) -> None:
    """Check every run before the first one starts. Raises ConfigError.

    In a sweep, a combination that a method cannot do is not an error: it becomes a record that says `skipped`.
    """
    from experiments.measures import MEASURES

    cells: dict[Path, Any] = {}
    for job in planned.jobs:
        try:
            cfg = from_hydra(job)
        except MissingMandatoryValue as error:
            key = re.sub(r"\[(\d+)\]", r".\1", str(error.full_key))
            raise ConfigError(key, "??? has to be given; allowed: a value") from None
        check_torchrun(cfg, planned.sweep, any(text.startswith("hydra.run.dir=") for text in overrides))
        measure = MEASURES[cfg.measure.name]
        key = "hydra.sweep.dir" if planned.sweep else "hydra.run.dir"
        out = directory_of(job, planned.sweep)
        if cells.setdefault(out, plain(job)) != plain(job):
            text = f"{out.name} is of several runs; allowed: a name for each, as {EACH_ITS_OWN}"
            raise ConfigError("hydra.sweep.subdir", text)
        if os.environ.get("RANK", "0") == "0":  # under torchrun it may have begun when others come here
            check_output(out, key, cfg.measure.name, measure.writes)
        if measure.check:
            measure.check(cfg)
        if measure.run:
            continue
        check_values(cfg)
        check_clock(cfg)
        problem = check_method(cfg, check_model(cfg))
        if problem and not planned.sweep:
            raise problem


def directory_of(job: DictConfig, sweep: bool) -> Path:
    """The directory that Hydra will make for a run. Raises ConfigError."""
    keys = ("hydra.sweep.dir", "hydra.sweep.subdir") if sweep else ("hydra.run.dir",)
    parts = []
    for key in keys:
        try:
            parts.append(str(OmegaConf.select(job, key, throw_on_missing=True)))
        except (OmegaConfBaseException, ValueError) as error:
            text = f"cannot be known before the run ({first_line(error)}); allowed: a path, as {EACH_ITS_OWN}"
            raise ConfigError(key, text) from None
    return Path(*parts)


def run_one(cfg: RunConfig, out: Path, sweep: bool) -> str:
    """Run one configuration in directory `out`; returns its status."""
    from experiments import launch, sinks
    from experiments.contents import key_of
    from experiments.difference import NotFinite
    from experiments.measures import MEASURES
    from pipefusion.sim.engine import RankFailed, SimulationError

    measure = MEASURES[cfg.measure.name]
    if measure.run:
        directory.check(out, cfg.measure.name, measure.writes)
        directory.claim(out, cfg.measure.name, measure.writes)
        try:
            status = measure.run(cfg, out)
        except (NotFinite, RankFailed, SimulationError) as error:
            print(f"failed: {first_line(error)}", file=sys.stderr)
            return "failed"
        finally:
            with suppress(OSError):  # the manifest that stands there says that all of it is this run's
                directory.settle(out, cfg.measure.name, measure.writes)
        if measure.told:
            sinks.log(cfg, out, lambda: sinks.study_told(cfg, out))
        return status

    model = check_model(cfg)
    cfg = launch.complete(cfg, model)
    record = records.finished(out, key_of(cfg, model)) if sweep and cfg.resume else None
    again = record is not None
    if record is None:
        if (records.read_json(out / "run.json") or {}).get("status") == "running":  # and nobody else is here
            print(f"died: {cfg.method.name} N={cfg.devices}: run again  {display(out)}", flush=True)
        problem = check_method(cfg, model)
        record = launch.skip(cfg, out, str(problem)) if problem else launch.execute(cfg, out)
    if os.environ.get("RANK", "0") == "0":
        if not again:
            sinks.log(cfg, out, lambda: sinks.run_told(cfg, out, record))
        report(record, cfg, out, again)
    if record["status"] == "interrupted":
        raise KeyboardInterrupt
    return str(record["status"])


def report(record: dict[str, Any], cfg: RunConfig, out: Path, again: bool) -> None:
    """One line a run: on stdout what it took, on stderr why it did not end well."""
    from experiments.methods import METHODS

    status = record["status"]
    beside = set(cfg.parallel.axes) - {METHODS[cfg.method.name].axis}
    name = f"{cfg.method.name} N={cfg.devices}{f' ({cfg.parallel})' if beside else ''}"
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
