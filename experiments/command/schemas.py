"""What the files of `conf/` refer to: resolvers, and the schemas of their groups."""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Callable
from functools import cache
from hashlib import sha256
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig, OmegaConf

from experiments.command.compose import store_later
from experiments.command.measures import MEASURES, load
from experiments.config import ClusterConfig, LatencyConfig, LogConfig, ModelConfig, RunConfig
from experiments.errors import config_names
from pipefusion.sim.hardware import DeviceConfig, HostConfig
from pipefusion.sim.network import LinkConfig

LONGEST_NAME = 120


def set_up() -> None:
    """Register the resolvers of a command, and the schemas, which stay imported for the next one of the process."""
    token = secrets.token_hex(4)  # of this command: others start in the same second
    resolvers: dict[str, Callable[..., str]] = {"slug": slug, "cell": cell, "token": lambda: token}
    resolvers["methods"] = lambda: ",".join(load("experiments.methods.METHODS"))
    for name, resolver in resolvers.items():
        OmegaConf.register_new_resolver(name, resolver, replace=True)
    store_schemas()


@cache
def store_schemas() -> None:
    """Put the schemas where the files of `conf/` find them, those that take seconds to import by name.

    Hydra copies its sources for every composition, and this one would take longer than all else.
    """
    store: Any = ConfigStore.instance()
    store.__deepcopy__ = lambda memo: store
    store.store(group="schema", name="run", node=RunConfig)
    for kind in (ModelConfig, ClusterConfig, DeviceConfig, HostConfig, LinkConfig, LogConfig):
        name = kind.__name__.removesuffix("Config").lower()
        store.store(group=f"schema/{name}", name=name, node=kind)
    for name, measure in MEASURES.items():
        store_later("measure", name, measure.config)
    # At hand, and what most commands are.
    store.store(group="schema/measure", name="latency", node=LatencyConfig)
    for name in config_names("method"):
        store_later("method", name, f"experiments.methods.{name}.Config")


def slug(text: Any) -> str:
    """A folder name from any text: no separators, and short enough for any file system. Several texts may share it."""
    return re.sub(r"[^\w.,=+-]+", "_", str(text), flags=re.ASCII)[:LONGEST_NAME] if text else "sweep"


def cell(text: Any, *, _root_: DictConfig) -> str:
    """The folder name of one run of a sweep: its overrides, to be read, and a hash of its whole configuration."""
    content = plain(_root_)
    digest = sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()
    return f"{slug(text or 'run')}-{digest[:10]}"


def plain(job: DictConfig) -> dict[str, Any]:
    """A composed configuration without what decides no result: Hydra's own node, what is logged, and resuming."""
    content = OmegaConf.to_container(job)
    assert isinstance(content, dict)
    return {str(key): value for key, value in content.items() if key not in ("hydra", "log", "resume")}
