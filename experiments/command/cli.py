"""The command: compose, check, run; the exit code. What takes seconds to import is imported when it is asked for."""

from __future__ import annotations

import os
import signal
import sys
from argparse import ArgumentParser, Namespace
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from experiments.command import compose, measures
from experiments.command.check import check_output, check_request, check_torchrun
from experiments.command.compose import Plan
from experiments.command.explain import unchecked
from experiments.command.measures import MEASURES, load
from experiments.command.schemas import plain, set_up
from experiments.config import LatencyConfig, from_hydra
from experiments.errors import CONF, ConfigError, first_line, refuse, short_reason
from experiments.runs import server

ROOT = CONF.parent
EACH_ITS_OWN = "'${cell:${hydra.job.override_dirname}}'"


def main(argv: list[str]) -> int:
    """Run a command line. Returns the exit code: 0 done, 1 a run failed, 2 the configuration is wrong."""
    set_up()
    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        asked = arguments(argv)
        planned = checked(asked)
        if asked.shown:
            hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")(print)()
            return 0
        return run(planned, asked.overrides)
    except ConfigError as error:
        return refuse(error)
    except KeyboardInterrupt:
        return 1
    finally:
        signal.signal(signal.SIGTERM, before)


def checked(asked: Namespace) -> Plan:
    """The runs of a command, checked before the first one starts. Raises ConfigError, whatever is wrong."""
    try:
        first = None if asked.shown else check_early(asked)
        planned = compose.plan(asked.overrides, asked.multirun, first)
        if not asked.shown:
            check_sizes(planned)
            preload(planned)
            check(planned, asked.overrides)
    except ConfigError:
        raise
    except Exception as error:
        if "HYDRA_FULL_ERROR" in os.environ:
            raise
        raise unchecked(error, asked.overrides) from None
    return planned


def run(planned: Plan, overrides: list[str]) -> int:
    """Run what has been checked; the exit code. Raises KeyboardInterrupt."""
    try:
        statuses = {*launch(planned, overrides)}
    except OSError as error:  # of the directories that Hydra makes
        print(f"failed: {short_reason(error)}", file=sys.stderr, flush=True)
        return 1
    except RuntimeError as error:
        if runs_here(planned.jobs[0]) or not planned.sweep:
            raise
        print(f"failed: a job: {first_line(error)}", file=sys.stderr, flush=True)
        return 1
    if {"held", "refused"} & statuses:
        return 2
    return int(bool(statuses - {"ok", "skipped"}))


def leave(code: int) -> NoReturn:
    """End the command, and with it the server that ranks were forked from.

    A rank of torchrun that has failed and been recorded tears nothing down: that waits for receives that were posted.
    """
    server.stop()
    if code and "RANK" in os.environ:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def arguments(argv: list[str]) -> Namespace:
    """`overrides`, `multirun`, and whether something is `shown` and nothing run. Raises ConfigError."""
    parser = ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("overrides", nargs="*")
    parser.add_argument("-m", "--multirun", action="store_true")
    flags = ("-h", "--help"), ("--hydra-help",), ("--version",), ("-sc", "--shell-completion")
    shown = [parser.add_argument(*names, action="store_true") for names in flags]
    shown += [parser.add_argument("-c", "--cfg"), parser.add_argument("-i", "--info", nargs="?", const="all")]
    parser.add_argument("-p", "--package")
    parser.add_argument("--resolve", action="store_true")
    asked, rest = parser.parse_known_intermixed_args(argv)
    if rest:
        options = ", ".join(one.option_strings[-1] for one in shown)
        raise ConfigError("", f"{rest[0]} is not understood; allowed: key=value, --multirun, {options}")
    asked.overrides = [compose.as_text(one) for one in asked.overrides]
    asked.shown = any(getattr(asked, one.dest) for one in shown)
    return asked


def interrupt(number: int, frame: FrameType | None) -> None:
    """SIGTERM ends a run as Ctrl-C does."""
    raise KeyboardInterrupt


def check_early(asked: Namespace) -> DictConfig | None:
    """The first look at a command, which refuses what is wrong whatever the method. Raises ConfigError."""
    if any(f"${{{group}." in text for text in asked.overrides for group in ("method", "measure")):
        return None  # values that are not there yet
    first = compose.first_look(asked.overrides, asked.multirun)
    cfg = from_hydra(first)
    if not isinstance(cfg.measure, LatencyConfig):
        return first
    if not compose.is_sweep(first, asked.multirun):
        given = gives_directory(asked.overrides)
        check_torchrun(cfg, False, given)
        check_request(cfg)
        if given and os.environ.get("RANK", "0") == "0":
            check_output(run_directory(first, False), "hydra.run.dir", "latency", MEASURES["latency"].writes)
    if cfg.cluster.world == "local" and "RANK" not in os.environ and runs_here(first):
        server.check()
    return first


def check_sizes(planned: Plan) -> None:
    """Check what needs no class of diffusers of a command that is one run. Raises ConfigError."""
    cfg = from_hydra(planned.jobs[0])
    if isinstance(cfg.measure, LatencyConfig) and not planned.sweep:
        problem = load("experiments.runs.check.check_sizes")(cfg)
        if problem:
            raise problem


def preload(planned: Plan) -> None:
    """Start the server that ranks are forked from, which imports what they need while the rest is checked."""
    first = planned.jobs[0]
    cfg = from_hydra(first)
    local = cfg.cluster.world == "local" and "RANK" not in os.environ and runs_here(first)
    if local and isinstance(cfg.measure, LatencyConfig):
        load("experiments.runs.agent.prepare")()


def gives_directory(overrides: list[str]) -> bool:
    """Whether a command says where its run is written."""
    return any(text.startswith("hydra.run.dir=") for text in overrides)


def check(planned: Plan, overrides: list[str]) -> None:
    """Check every run before the first one starts. Raises ConfigError.

    In a sweep, a combination that a method cannot do is not an error: it becomes a record that says `skipped`.
    """
    cells: dict[Path, Any] = {}
    for job in planned.jobs:
        cfg = from_hydra(job)
        check_torchrun(cfg, planned.sweep, gives_directory(overrides))
        measure = MEASURES[cfg.measure.name]
        key = "hydra.sweep.dir" if planned.sweep else "hydra.run.dir"
        out = run_directory(job, planned.sweep)
        if cells.setdefault(out, plain(job)) != plain(job):
            text = f"{out.name} is of several runs; allowed: a name for each, as {EACH_ITS_OWN}"
            raise ConfigError("hydra.sweep.subdir", text)
        if os.environ.get("RANK", "0") == "0":  # under torchrun it may have begun when others come here
            check_output(out, key, cfg.measure.name, measure.writes)
        if not planned.sweep and cluster_launcher(job) and not measure.study:
            name = job.hydra.runtime.choices["hydra/launcher"]
            text = f"{name} runs a sweep, or a study's cells; allowed: basic, or -m"
            raise ConfigError("hydra/launcher", text)
        if planned.sweep and not runs_here(job):  # what this machine has says nothing of where it will run
            continue
        problem = measures.check(cfg)
        if problem and not planned.sweep:
            raise problem


def runs_here(job: DictConfig) -> bool:
    """Whether Hydra's launcher is its own, which runs everything in this process."""
    return bool(job.hydra.runtime.choices["hydra/launcher"] == "basic")


def cluster_launcher(job: DictConfig) -> dict[str, Any] | None:
    """The settings of a cluster's launcher, its `scheduler` among them; None for Hydra's own."""
    if runs_here(job):
        return None
    found = OmegaConf.to_container(job.hydra.launcher, resolve=True)
    assert isinstance(found, dict)
    scheduler = job.hydra.runtime.choices["hydra/launcher"].removeprefix("submitit_")
    kept = {str(key): value for key, value in found.items() if key not in ("_target_", "submitit_folder")}
    return kept | {"scheduler": scheduler}


def run_directory(job: DictConfig, sweep: bool) -> Path:
    """The directory that Hydra will make for a run. Raises ConfigError."""
    keys = ("hydra.sweep.dir", "hydra.sweep.subdir") if sweep else ("hydra.run.dir",)
    parts = []
    for key in keys:
        try:
            part = OmegaConf.select(job, key, throw_on_missing=True)
        except (OmegaConfBaseException, ValueError) as error:
            text = f"cannot be known before the run ({first_line(error)}); allowed: a path, as {EACH_ITS_OWN}"
            raise ConfigError(key, text) from None
        if not str(part or ""):  # which pathlib takes for the working directory
            raise ConfigError(key, f"{part!r} is no path; allowed: a folder, new or of an earlier run")
        parts.append(str(part))
    return Path(*parts)


def launch(planned: Plan, overrides: list[str]) -> list[str]:
    """Run everything by Hydra's launcher; statuses. Raises OSError and KeyboardInterrupt."""
    here = runs_here(planned.jobs[0]) or not planned.sweep
    if not here:  # where the processes of another launcher find this project
        os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    with compose.started():
        command = GlobalHydra.instance().hydra
        assert command is not None
        if not planned.sweep:
            return [command.run("config", partial(job, sweep=False), overrides).return_value]
        batches = command.multirun("config", partial(job, sweep=True), overrides)
    statuses = [one.return_value for batch in batches for one in batch]
    # What other processes were at when it was its turn: done by now, or waited for.
    held = [one for one, status in zip(planned.jobs, statuses, strict=True) if status == "held" and here]
    return [status for status in statuses if not (status == "held" and here)] + [
        load("experiments.runs.job.attempt")(from_hydra(one), run_directory(one, True), True, wait=True)
        for one in held
    ]


def job(cfg: DictConfig, sweep: bool) -> str:
    """One run, in the process that the launcher chose; its status."""
    of = HydraConfig.get()
    launcher = cluster_launcher(OmegaConf.create({"hydra": of}))
    here = launcher is None or not sweep
    if not here:
        join_tasks()
    out, attempt = Path(of.runtime.output_dir), load("experiments.runs.job.attempt")
    status: str = attempt(from_hydra(cfg), out, sweep, checked=here, launcher=None if sweep else launcher)
    return status


def join_tasks() -> None:
    """Where submitit started several tasks for one job, be one rank of it, as under torchrun."""
    if load("submitit.JobEnvironment")().num_tasks > 1:
        load("submitit.helpers.TorchDistributedEnvironment")().export(set_cuda_visible_devices=False)
