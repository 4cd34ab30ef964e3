"""`method.sync_layers=k`: the k layers that stale K, V harm most, as measured on the model."""

from __future__ import annotations

from dataclasses import replace

from hydra.utils import get_object

from experiments.config import CONF, RunConfig
from experiments.errors import ConfigError

RECORD = CONF.parent / "results" / "records" / "staleness"


def with_layers(cfg: RunConfig) -> RunConfig:
    """The configuration with a list of layers in place of a number of them. Raises ConfigError."""
    count = getattr(cfg.method, "sync_layers", None)
    if type(count) is not int:
        return cfg
    try:
        # Imported here alone: both bring pandas, and a refusal should take no second.
        record = get_object("analysis.staleness.tables.load")(RECORD)
    except (OSError, ValueError) as error:
        text = f"{count} needs the record of experiment=staleness ({error}); allowed: a list of layers"
        raise ConfigError("method.sync_layers", text) from None
    layers = get_object("analysis.staleness.layers.most_sensitive")(record, cfg.model.name, cfg.method.name)
    if not layers:
        text = f"{count} needs {cfg.method.name} on {cfg.model.name} in results/records/staleness"
        known = ", ".join(sorted(record.error.model.unique()))
        raise ConfigError("method.sync_layers", f"{text}; allowed: a list of layers, or model={known}")
    if count > len(layers):
        text = f"{count} is more than the {len(layers)} layers; allowed: 0..{len(layers)}"
        raise ConfigError("method.sync_layers", text)
    return replace(cfg, method=replace(cfg.method, sync_layers=sorted(layers[:count])))
