"""The configurations that a command line stands for, composed by Hydra."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from functools import partial
from itertools import product

from hydra import initialize_config_dir
from hydra.core.config_loader import ConfigLoader
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from hydra.types import RunMode
from hydra.utils import get_class
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from experiments.command.explain import explain
from experiments.config import RunConfig
from experiments.errors import CONF, ConfigError, first_line, nearest

LATER = "_schema_"
"""The key of a schema that is only named: the path of its dataclass, whose module takes seconds to import."""

CHOSEN = ("model", "method", "cluster", "measure", "log", "experiment")
"""Groups that a command chooses a file of; those of others are chosen by these files."""
TEXTS = ("prompt", "negative_prompt")
"""Keys whose values are text, whatever they look like."""


@dataclass(frozen=True)
class Plan:
    """The runs of a command, Hydra's own node included in each configuration."""

    sweep: bool
    jobs: list[DictConfig]


@contextmanager
def started() -> Iterator[ConfigLoader]:
    """Hydra's loader of `conf/`, Hydra being started if it is not up."""
    if GlobalHydra.instance().is_initialized():
        yield GlobalHydra.instance().config_loader()
    else:
        with initialize_config_dir(str(CONF), version_base="1.3", job_name="run"):
            yield GlobalHydra.instance().config_loader()


@contextmanager
def composing(overrides: list[str]) -> Iterator[ConfigLoader]:
    """As `started`, what Hydra refuses being raised as ConfigError."""
    try:
        with started() as loader:
            yield loader
    except ConfigError:
        raise
    except Exception as error:  # Hydra asserts, and trips over, what it did not expect of an override
        raise explain(error, overrides) from None


def plan(overrides: list[str], multirun: bool = False, first: DictConfig | None = None) -> Plan:
    """Compose every run of `overrides`; `first` is their `first_look`. Raises ConfigError for what Hydra refuses."""
    with composing(overrides) as loader:
        first = first or first_look(overrides, multirun)
        if not is_sweep(first, multirun):
            return Plan(
                False, [whole(partial(loader.load_configuration, "config", overrides, RunMode.RUN), first)]
            )
        master = whole(partial(first_look, overrides, multirun), first)
        runs = combinations(loader, master, overrides)
        jobs = [whole(partial(loader.load_sweep_config, master, run)) for run in runs]
        for number, job in enumerate(jobs):  # as the launcher will
            OmegaConf.update(job, "hydra.job", {"id": number, "num": number}, force_add=True)
        return Plan(True, jobs)


def is_sweep(master: DictConfig, multirun: bool) -> bool:
    """Whether a command is a sweep: by its arguments, or by the experiment that it names. Raises ConfigError."""
    try:
        return multirun or bool(master.hydra.mode == RunMode.MULTIRUN)
    except OmegaConfBaseException as error:
        raise ConfigError("hydra.mode", f"{first_line(error)}; allowed: RUN, MULTIRUN") from None


def compose_one(overrides: list[str]) -> DictConfig:
    """The configuration of one run. Raises ConfigError."""
    with composing(overrides) as loader:
        return whole(lambda: loader.load_configuration("config", overrides, RunMode.RUN))


def first_look(overrides: list[str], multirun: bool = False) -> DictConfig:
    """What all runs have in common, with no schema imported that is only named. Raises ConfigError."""
    with composing(overrides) as loader:
        given = OverridesParser.create(loader).parse_overrides(overrides)
        for one in given:
            check_override(one, loader)
        master = loader.load_configuration(
            "config", overrides, RunMode.MULTIRUN, validate_sweep_overrides=False
        )
    for one in given:
        if one.is_sweep_override() and not is_sweep(master, multirun):
            text = f"{one.get_value_string()} is several values; allowed: one, or a sweep with -m"
            raise ConfigError(one.get_key_element(), text)
        if type(one.value()) is int and isinstance(OmegaConf.select(master, one.key_or_group), bool):
            raise ConfigError(one.get_key_element(), f"{one.value()} is no truth value; allowed: true, false")
    return master


def check_override(one: Override, loader: ConfigLoader) -> None:
    """Whether an override sets a key, a group by the name of one of its files. Raises ConfigError."""
    if not one.is_hydra_override() and (one.is_delete() or one.is_add()):
        text = f"{one.input_line!r} adds or removes a key; allowed: key=value for the keys of --cfg job"
        raise ConfigError("", text)
    group, own = one.key_or_group, (CONF / one.key_or_group).is_dir()
    if own and group not in CHOSEN and not one.package:
        keys = [*(each.name for each in fields(RunConfig)), "experiment"]
        text = f"{one.get_value_string()} is for an unknown key{nearest(group, keys)}; allowed: {', '.join(keys)}"
        raise ConfigError(group, text)
    if not own and not group.startswith("hydra/"):
        return
    names = [*one.sweep_string_iterator()] if one.is_sweep_override() else [one.value()]
    for name in names:
        if not own and not (isinstance(name, str) and re.fullmatch(r"[\w-]+", name)):
            raise ConfigError(
                group, f"{one.get_value_string()} is no name; allowed: a plugin that is installed"
            )
        if own and name not in files(group):
            valid = sorted({*files(group), *loader.get_group_options(group)})  # which takes its time
            if name not in valid:
                raise unknown(group, name if isinstance(name, str) else one.get_value_string(), valid)


def files(group: str) -> list[str]:
    """The names of a group's files and of those of its folders. What is stored under the group are names too."""
    found = (path.relative_to(CONF / group).with_suffix("") for path in (CONF / group).rglob("*.yaml"))
    return [path.as_posix() for path in found]


def unknown(group: str, name: str, valid: list[str]) -> ConfigError:
    """The error of a name that a group does not have."""
    return ConfigError(group, f"{name} is unknown{nearest(name, valid)}; allowed: {', '.join(valid)}")


def as_text(override: str) -> str:
    """An override of a prompt as text, where it would be read as a number or a truth value: `prompt=1e5`."""
    key, _, value = override.partition("=")
    if key.strip() not in TEXTS:
        return override
    try:
        read = OverridesParser.create().parse_override(override).value()
    except HydraException:
        return override
    return f"{key}='{value}'" if isinstance(read, int | float) else override


def whole(compose: Callable[[], DictConfig], first: DictConfig | None = None) -> DictConfig:
    """What `compose` gives once the schemas of the method and the measure that it chooses are imported.

    `first` is what it gives before: composing takes longer than all else that a refusal takes.
    """
    cfg = first or compose()
    named = {group: OmegaConf.select(cfg, f"{group}.{LATER}") for group in ("method", "measure")}
    for group, path in named.items():
        if path is not None:
            name = cfg.hydra.runtime.choices[f"schema/{group}@{group}"]
            ConfigStore.instance().store(group=f"schema/{group}", name=name, node=get_class(path))
    return compose() if any(named.values()) else cfg


def store_later(group: str, name: str, path: str) -> None:
    """Put a schema where the files of `conf/` find it: by the path of its dataclass, to be imported when chosen."""
    node = OmegaConf.create({LATER: path}, flags={"struct": False})
    ConfigStore.instance().store(group=f"schema/{group}", name=name, node=node)


def combinations(loader: ConfigLoader, master: DictConfig, overrides: list[str]) -> list[list[str]]:
    """The overrides of each run of a sweep, in the order of Hydra's basic sweeper: the last key varies fastest."""
    fixed = [f"{key}={value}" for key, value in (master.hydra.sweeper.get("params") or {}).items()]
    choices: dict[str, list[str]] = {}
    for one in OverridesParser.create(loader).parse_overrides([*fixed, *overrides]):
        if not one.is_hydra_override():
            swept = one.is_sweep_override()
            values = one.sweep_string_iterator() if swept else [one.get_value_element_as_str()]
            choices[one.get_key_element()] = [f"{one.get_key_element()}={value}" for value in values]
    return [[*run] for run in product(*choices.values())]
