"""What can be known to be wrong with a training or scoring run before it starts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from experiments.check import CHOICES, check_cuda
from experiments.config import RunConfig
from experiments.errors import ConfigError, check_known, first_line
from experiments.text import PACKAGES
from experiments.training.data import as_stored, check_packages, choose, tables_of
from experiments.training.export import FACTS_FILE, WEIGHTS_FILE
from experiments.training.recipe import NetworkConfig, build_network

DTYPES = ("float32", "bfloat16")


def check_train(cfg: RunConfig) -> None:
    """Sizes that do not fit, stages that learn nothing, weights of another network, too few concepts.

    Fetches the picture packages if they are not there. Raises ConfigError.
    """
    options = cfg.measure
    names = {"dtype": DTYPES, "device": CHOICES["cluster.device"], "wandb_mode": CHOICES["log.wandb.mode"]}
    names |= {"text_encoder": tuple(PACKAGES)}
    check_known(cfg, {f"measure.{key}": allowed for key, allowed in names.items()})
    check_cuda(cfg, "measure.device")
    check_stages(cfg)
    learnt = learnt_captions(options.start_from, options.network) if options.start_from else []
    check_packages(options.data.packages, options.data.data_dir, "measure.data.data_dir")
    choose(tables_of(options.data), options.data, learnt)


def check_stages(cfg: RunConfig) -> None:
    """Stages whose pictures are not whole patches, or that have none. Raises ConfigError."""
    patch = cfg.measure.network.patch
    for index, stage in enumerate(cfg.measure.recipe.stages):
        key = f"measure.recipe.stages.{index}"
        if stage.resolution % patch:
            text = f"{stage.resolution} is not a multiple of {patch}; allowed: its multiples"
            raise ConfigError(f"{key}.resolution", text)


def learnt_captions(start_from: str, network: NetworkConfig) -> list[str]:
    """The captions that the weights of a model folder were trained on; its network must be this one.

    Raises ConfigError.
    """
    key, folder = "measure.start_from", Path(start_from)
    path, prompts = folder / "transformer" / WEIGHTS_FILE, folder / "prompts.json"
    if not (path.is_file() and prompts.is_file()):
        text = f"{start_from} has no transformer/{WEIGHTS_FILE} and prompts.json"
        raise ConfigError(key, f"{text}; allowed: a folder that training exported, as results/models/emoji64")
    try:
        with safe_open(path, framework="pt") as file:
            found = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        text = f"{path} cannot be read ({first_line(error)}); allowed: whole safetensors files"
        raise ConfigError(key, text) from None
    with torch.device("meta"):
        wanted = {name: tuple(value.shape) for name, value in build_network(network, 0).state_dict().items()}
    if found != wanted:
        text = f"{start_from} is another network than measure.network; allowed: weights of the same shapes"
        raise ConfigError(key, text)
    learnt: list[str] = json.loads(prompts.read_text())["train"]
    return learnt


def check_score(cfg: RunConfig) -> None:
    """A folder without a trained model, numbers that sample nothing. Raises ConfigError."""
    options = cfg.measure
    for part in (
        FACTS_FILE,
        "prompts.json",
        f"transformer/{WEIGHTS_FILE}",
        "scheduler/scheduler_config.json",
    ):
        if not (Path(options.weights) / part).is_file():
            text = f"{options.weights} has no {part}"
            raise ConfigError("measure.weights", f"{text}; allowed: a folder that training exported")
    check_known(cfg, {"measure.dtype": CHOICES["model.dtype"], "measure.device": CHOICES["cluster.device"]})
    check_cuda(cfg, "measure.device")
    if options.scheduler:
        check_scheduler(options.scheduler)
    stored = json.loads((Path(options.weights) / FACTS_FILE).read_text())["data"]
    check_packages(as_stored(stored, options.data_dir).packages, options.data_dir, "measure.data_dir")


def check_scheduler(name: str) -> None:
    """A flow-matching scheduler class of diffusers. Raises ConfigError."""
    import diffusers

    kind: Any = getattr(diffusers, name, None)
    if not (isinstance(kind, type) and issubclass(kind, diffusers.SchedulerMixin)):
        text = f"{name!r} is no scheduler of diffusers; allowed: one for flow matching"
        raise ConfigError("measure.scheduler", f"{text}, as FlowMatchEulerDiscreteScheduler")
