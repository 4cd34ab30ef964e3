"""The configurations that a command line stands for, composed before Hydra runs any, its errors said in one line."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from hydra import initialize_config_dir
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.config_loader import ConfigLoader
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, Override
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from experiments.config import CONF
from experiments.errors import ConfigError, nearest

GROUPS = ("model", "method", "cluster", "measure", "log", "experiment")


@dataclass(frozen=True)
class Plan:
    """The runs of a command, Hydra's own node included in each configuration."""

    sweep: bool
    jobs: list[DictConfig]


def plan(overrides: list[str], multirun: bool = False) -> Plan:
    """Compose every run of `overrides`. Raises ConfigError for whatever Hydra refuses."""
    with initialize_config_dir(str(CONF), version_base="1.3", job_name="run"):
        loader = GlobalHydra.instance().config_loader()
        given = parse(overrides)
        try:
            master = loader.load_configuration(
                "config", overrides, RunMode.MULTIRUN, validate_sweep_overrides=False
            )
            if multirun or master.hydra.mode == RunMode.MULTIRUN:
                jobs = [loader.load_sweep_config(master, job) for job in combinations(master, given)]
                for number, job in enumerate(jobs):  # as the launcher will
                    with read_write(job), open_dict(job):
                        job.hydra.job.id = job.hydra.job.num = number
                return Plan(True, jobs)
            return Plan(False, [loader.load_configuration("config", overrides, RunMode.RUN)])
        except HydraException as error:
            raise explain(error, loader, given) from None


def compose_one(overrides: list[str]) -> DictConfig:
    """One run's configuration from within a command, whose Hydra is up; elsewhere Hydra is started for it."""
    if not GlobalHydra.instance().is_initialized():
        return plan(overrides).jobs[0]
    return GlobalHydra.instance().config_loader().load_configuration("config", overrides, RunMode.RUN)


def parse(overrides: list[str]) -> list[Override]:
    """Hydra's reading of the command line. Raises ConfigError for bad syntax, and for keys added or removed."""
    parser = OverridesParser.create()
    parsed = []
    for text in overrides:
        try:
            override = parser.parse_override(text)
        except HydraException as error:
            reason = str(error).splitlines()[0]
            raise ConfigError("", f"{text!r} is not understood ({reason}); allowed: key=value") from None
        if not override.is_hydra_override() and (override.is_delete() or override.is_add()):
            verb = "removed" if override.is_delete() else "added"
            key = override.get_key_element().lstrip("+~")
            raise ConfigError("", f"{key} cannot be {verb}; allowed: key=value for the keys of --cfg job")
        parsed.append(override)
    return parsed


def check_groups(overrides: list[str]) -> None:
    """Choices of a group that has no such file, found before anything heavy is imported. Raises ConfigError."""
    for override in parse(overrides):
        group = override.get_key_element()
        if group not in GROUPS:
            continue
        folder = CONF / group
        files = [path.relative_to(folder).with_suffix("") for path in folder.rglob("*.yaml")]
        options = sorted(path.as_posix() for path in files)
        value = override.value()
        for name in value.list if isinstance(value, ChoiceSweep) else [value]:
            if isinstance(name, str) and name not in options:
                raise unknown_choice(group, name, options)


def unknown_choice(group: str, name: str, options: list[str]) -> ConfigError:
    return ConfigError(group, f"{name} is unknown{nearest(name, options)}; allowed: {', '.join(options)}")


def combinations(master: DictConfig, given: list[Override]) -> list[list[str]]:
    """The overrides of each run of a sweep, as Hydra's basic sweeper orders them."""
    fixed = [f"{key}={value}" for key, value in (master.hydra.sweeper.get("params") or {}).items()]
    task = [override for override in given if not override.is_hydra_override()]
    chunks = BasicSweeper.split_arguments([*OverridesParser.create().parse_overrides(fixed), *task], None)
    return [job for chunk in chunks for job in chunk]


def explain(error: HydraException, loader: ConfigLoader, given: list[Override]) -> ConfigError:
    """The one line for an error of Hydra's composition."""
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        group, _, name = error.missing_cfg_file.rpartition("/")
        return unknown_choice(group, name, sorted(error.options or loader.get_group_options(group)))
    text = chain(error)
    unknown = re.search(r"Could not override '([^']+)'", text)
    if unknown:
        key = unknown.group(1).split("@")[0]
        keys = valid_keys(loader, given)
        siblings = [name for name in keys if name.rpartition(".")[0] == key.rpartition(".")[0]]
        allowed = ", ".join(siblings) or "the keys of --cfg all"
        return ConfigError(
            key, f"{value_of(key, given)} is for an unknown key{nearest(key, keys)}; allowed: {allowed}"
        )
    several = re.search(r"Ambiguous value for argument '([^=]+)=([^']*)'", text)
    if several:
        return ConfigError(
            several.group(1), f"{several.group(2)} is several values; allowed: one, or a sweep with -m"
        )
    full_key = re.search(r"full_key: (\S+)", text)
    if full_key:
        key = full_key.group(1)
        kind = re.search(r"could not be converted to (\w+)", text)
        allowed = kind.group(1) if kind else "a value of its type"
        return ConfigError(key, f"{value_of(key, given)} is of the wrong type; allowed: {allowed}")
    if isinstance(error, OverrideParseException):
        return ConfigError("", f"{error.override!r} is not understood; allowed: key=value")
    return ConfigError("", "; ".join(line.strip() for line in text.splitlines() if line.strip()))


def chain(error: BaseException) -> str:
    """The texts of an exception and of its causes."""
    return str(error) if error.__cause__ is None else f"{error}\n{chain(error.__cause__)}"


def value_of(key: str, given: list[Override]) -> str:
    """What the command line gave `key`, as it was typed."""
    return next((typed(o).partition("=")[2] for o in given if o.get_key_element() == key), "")


def typed(override: Override) -> str:
    """An override as the command line has it."""
    return override.input_line or ""


def valid_keys(loader: ConfigLoader, given: list[Override]) -> list[str]:
    """All keys there are, for the groups chosen as far as these choices are valid."""
    chosen = [typed(override) for override in given if override.get_key_element() in GROUPS]
    try:
        cfg = loader.load_configuration("config", chosen, RunMode.MULTIRUN, validate_sweep_overrides=False)
    except HydraException:
        cfg = loader.load_configuration("config", [], RunMode.RUN)
    return [*GROUPS, *(name for name in flatten(cfg) if not name.startswith("hydra."))]


def flatten(cfg: Any, prefix: str = "") -> Iterator[str]:
    """Dotted names of every value of a configuration."""
    for key in cfg:
        if OmegaConf.is_missing(cfg, key) or not isinstance(cfg[key], DictConfig):
            yield f"{prefix}{key}"
        else:
            yield from flatten(cfg[key], f"{prefix}{key}.")
