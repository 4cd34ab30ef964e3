"""What can be known to be wrong with a command before any model is opened: nothing heavy is imported here."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

from experiments.config import LatencyConfig, RunConfig, read_prompts
from experiments.errors import ConfigError, check_known, first_line
from experiments.runs import directory

CHOICES: dict[str, tuple[str, ...]] = {
    "scheduler": ("shipped", "dpmsolver++", "ddim", "flow_euler"),
    "model.dtype": ("float32", "bfloat16", "float16"),
    "model.experts": ("both", "one"),
    "cluster.world": ("local", "sim", "plan"),
    "cluster.device": ("auto", "cpu", "cuda"),
    "cluster.backend": ("auto", "gloo", "nccl"),
    "log.wandb.mode": ("disabled", "offline", "online"),
}
TORCHRUN = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
"""The variables by which a process knows that it is one of several ranks."""


def check_request(cfg: RunConfig) -> None:
    """Names, prompts, seeds and the cluster's size. Raises ConfigError."""
    check_known(cfg, CHOICES)
    if cfg.prompt_file is not None:
        check_prompt_file(cfg)
    check_experts(cfg)
    check_prompt(cfg)
    check_seed(cfg)
    check_cluster(cfg)


def check_experts(cfg: RunConfig) -> None:
    """Whether the transformers that a device holds are those that it needs. Raises ConfigError."""
    if cfg.model.experts == "one" and cfg.cluster.world != "plan":
        text = f"one is planned only: nothing loads the other on cluster={cfg.cluster.name}"
        raise ConfigError("model.experts", f"{text}; allowed: both, or a cluster of named hardware")


def check_prompt(cfg: RunConfig) -> None:
    """Whether the prompts are texts, or the numbers of classes, and none is empty. Raises ConfigError."""
    prompts = cfg.prompt if isinstance(cfg.prompt, list) else [cfg.prompt]
    for prompt in prompts or [None]:
        if not isinstance(prompt, str) and type(prompt) is not int and prompt is not None:
            cure = """a text, or a list of texts, in quotes where Hydra reads it otherwise: 'prompt="..."'"""
            raise ConfigError("prompt", f"{prompt!r} is no text; allowed: {cure}")
        if prompt is None or not str(prompt).strip():
            raise ConfigError("prompt", f"{cfg.prompt!r} is empty; allowed: a text, or a list of texts")


def check_seed(cfg: RunConfig) -> None:
    """One seed, or as many as there are pictures. Raises ConfigError."""
    seeds = cfg.seed if isinstance(cfg.seed, list) else [cfg.seed]
    if any(not isinstance(seed, int) for seed in seeds):
        raise ConfigError("seed", f"{cfg.seed} is no whole number; allowed: 0 or more, or a list of them")
    pictures = len(read_prompts(cfg))
    if isinstance(cfg.seed, list) and len(seeds) != pictures:
        text = f"{cfg.seed} has {len(seeds)} seeds for {pictures} pictures"
        raise ConfigError("seed", f"{text}; allowed: one seed, or a list of {pictures}")


def check_prompt_file(cfg: RunConfig) -> None:
    """Whether the file is there, is text, and has a prompt. Raises ConfigError."""
    try:
        empty = not read_prompts(cfg)
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or first_line(error)
        text = f"{cfg.prompt_file} cannot be read ({why}); allowed: a text file, a prompt a line"
        raise ConfigError("prompt_file", text) from None
    if empty:
        raise ConfigError("prompt_file", f"{cfg.prompt_file} is empty; allowed: a text file, a prompt a line")


def check_cluster(cfg: RunConfig) -> None:
    """Whether a simulated cluster is complete and large enough, and has no GPU where CPU seconds count."""
    cluster = cfg.cluster
    if cluster.world == "sim" and cluster.device == "cuda" and isinstance(cfg.measure, LatencyConfig):
        text = "cuda is not what cluster=sim measures, which is CPU seconds; allowed: auto, cpu"
        raise ConfigError("cluster.device", text)
    if cluster.world == "plan" and cluster.hardware is None:
        raise ConfigError("cluster.hardware", "null has no costs; allowed: a cluster that names its device")
    if cluster.host not in ("own", *cluster.hosts):
        text = f"{cluster.host!r} is no host of {cluster.name}; allowed: {', '.join(['own', *cluster.hosts])}"
        raise ConfigError("cluster.host", text)
    problem = check_node(cfg)
    if problem is not None:
        raise problem


def check_node(cfg: RunConfig) -> ConfigError | None:
    """What keeps so many devices from a cluster that is one node, or None."""
    cluster, node = cfg.cluster, cfg.cluster.topology.devices_per_node
    if cluster.world == "local" or cluster.topology.card is not None or cfg.devices <= node:
        return None
    text = f"{cfg.devices} is more than the one node of {cluster.name} has; allowed: 1..{node}"
    return ConfigError("devices", text)


def check_output(run_dir: Path, key: str, measure: str, writes: Sequence[str]) -> None:
    """Whether the run directory can be made and written to, and nothing would be lost there.

    Raises ConfigError; leaves nothing behind.
    """
    there = run_dir.absolute()
    try:
        while not there.exists():
            there = there.parent
        # A file without a name: permissions alone say little for root, or on a read-only file system.
        with tempfile.TemporaryFile(dir=there):
            pass
    except (OSError, ValueError) as error:  # ValueError: a path with a null character
        why = f"{error.strerror}: {there}" if isinstance(error, OSError) else str(error)
        raise ConfigError(key, f"{run_dir} cannot be written ({why}); allowed: a writable path") from None
    directory.check(run_dir, measure, writes, key)


def check_torchrun(cfg: RunConfig, sweep: bool, dir_given: bool) -> None:
    """Under torchrun one run on real ranks, a rank a device, one run directory for all. Raises ConfigError."""
    world = launched_ranks()
    if world is None:
        return
    if cfg.cluster.world != "local":
        text = f"{cfg.cluster.name} simulates its ranks in one process; allowed: cluster=local under torchrun"
        raise ConfigError("cluster", text)
    if not isinstance(cfg.measure, LatencyConfig):
        text = f"{cfg.measure.name} starts what ranks it needs; allowed: measure=latency under torchrun"
        raise ConfigError("measure", text)
    if sweep:
        # The agent's store still holds the addresses of the run before, and ranks would wait for these.
        raise ConfigError("hydra.mode", "MULTIRUN is not possible under torchrun; allowed: one run a launch")
    if world != cfg.devices:
        text = f"{cfg.devices} is not the {world} ranks that torchrun started; allowed: {world}"
        raise ConfigError("devices", text)
    if not dir_given:
        text = "(default) holds the time, which differs between ranks; allowed: a fixed path"
        raise ConfigError("hydra.run.dir", text)


def launched_ranks() -> int | None:
    """How many ranks torchrun started, this process being one of them; None without it. Raises ConfigError."""
    rank, world = os.environ.get("RANK"), os.environ.get("WORLD_SIZE")
    if rank is None and world is None:
        return None
    missing = [name for name in TORCHRUN if name not in os.environ]
    if missing:
        raise ConfigError("", f"{missing[0]} is not set; allowed: all of {', '.join(TORCHRUN)}, or none")
    if not (str(rank).isdecimal() and str(world).isdecimal() and int(str(rank)) < int(str(world))):
        text = f"{rank} is no rank of WORLD_SIZE={world}; allowed: 0 or more, below WORLD_SIZE"
        raise ConfigError("RANK", text)
    return int(str(world))
