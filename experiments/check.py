"""Everything that can be known to be wrong before a rank is started, said in one line."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from experiments import directory
from experiments.config import LatencyConfig, RunConfig, prompts_of
from experiments.errors import ConfigError, check_known, first_line, lookup, nearest

if TYPE_CHECKING:
    from experiments.models import Model
    from pipefusion.core.shape import DiTShape

CHOICES: dict[str, tuple[str, ...]] = {
    "scheduler": ("shipped", "dpmsolver++", "ddim", "flow_euler"),
    "model.dtype": ("float32", "bfloat16", "float16"),
    "cluster.world": ("local", "sim", "plan"),
    "cluster.device": ("auto", "cpu", "cuda"),
    "cluster.backend": ("auto", "gloo", "nccl"),
    "log.wandb.mode": ("disabled", "offline", "online"),
}
TORCHRUN = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
"""The variables by which a process knows that it is one of several ranks."""


def check_values(cfg: RunConfig) -> None:
    """Values that are wrong for every model and method. Raises ConfigError."""
    from experiments.methods import METHODS

    check_known(cfg, CHOICES)
    if cfg.prompt_file is not None:
        check_prompt_file(cfg)
    prompts = cfg.prompt if isinstance(cfg.prompt, list) else [cfg.prompt]
    if not prompts or any(isinstance(prompt, bool) or not str(prompt or "").strip() for prompt in prompts):
        raise ConfigError(
            "prompt", f"{cfg.prompt!r} is empty or no text; allowed: a text, or a list of texts"
        )
    check_seed(cfg)
    kind = METHODS.get(cfg.method.name)
    if kind is None or not isinstance(cfg.method, kind.Config):
        raise ConfigError(
            "method.name", f"{cfg.method.name} is set by its group; allowed: method=NAME instead"
        )
    check_cluster(cfg)
    check_environment(cfg)


def check_seed(cfg: RunConfig) -> None:
    """One seed, or as many as there are pictures. Raises ConfigError."""
    seeds = cfg.seed if isinstance(cfg.seed, list) else [cfg.seed]
    if any(not isinstance(seed, int) for seed in seeds):
        raise ConfigError("seed", f"{cfg.seed} is no whole number; allowed: 0 or more, or a list of them")
    pictures = len(prompts_of(cfg))
    if isinstance(cfg.seed, list) and len(seeds) != pictures:
        text = f"{cfg.seed} has {len(seeds)} seeds for {pictures} pictures"
        raise ConfigError("seed", f"{text}; allowed: one seed, or a list of {pictures}")


def check_prompt_file(cfg: RunConfig) -> None:
    """Whether the file is there, is text, and has a prompt. Raises ConfigError."""
    try:
        empty = not prompts_of(cfg)
    except (OSError, UnicodeDecodeError) as error:
        text = (
            f"{cfg.prompt_file} cannot be read ({first_line(error)}); allowed: a text file, a prompt a line"
        )
        raise ConfigError("prompt_file", text) from None
    if empty:
        raise ConfigError("prompt_file", f"{cfg.prompt_file} is empty; allowed: a text file, a prompt a line")


def check_cluster(cfg: RunConfig) -> None:
    """Whether the device is there, and a simulated cluster complete and large enough. Raises ConfigError."""
    cluster = cfg.cluster
    if cluster.world != "plan":
        check_cuda(cfg, "cluster.device")
    if cluster.world == "plan" and cluster.hardware is None:
        raise ConfigError("cluster.hardware", "null has no costs; allowed: a cluster that names its device")
    node = cluster.topology.devices_per_node
    if cluster.world != "local" and cluster.topology.card is None and cfg.devices > node:
        text = f"{cfg.devices} is more than the one node of {cluster.name} has; allowed: 1..{node}"
        raise ConfigError("devices", text)


def check_environment(cfg: RunConfig) -> None:
    """No variable under which ranks on CUDA would wait for each other for ever. Raises ConfigError.

    A receive that was posted early runs until its message comes: whatever is launched must not wait for it.
    """
    from experiments.rank import device_type

    for name in ("CUDA_DEVICE_MAX_CONNECTIONS", "CUDA_LAUNCH_BLOCKING"):
        asked = os.environ.get(name) == "1" and cfg.cluster.world == "local"
        if asked and device_type(cfg.cluster.device) == "cuda":
            raise ConfigError(name, "1 would make ranks wait for each other for ever; allowed: unset")


def check_cuda(cfg: RunConfig, key: str) -> None:
    """Whether a GPU is there where the key asks for one. Raises ConfigError."""
    import torch

    if lookup(cfg, key) == "cuda" and not torch.cuda.is_available():
        text = "cuda needs a GPU and a CUDA build of torch, and torch sees none; allowed: auto, cpu"
        raise ConfigError(key, text)


def check_model(cfg: RunConfig) -> Model:
    """The model's files, sizes and text encoder. Raises ConfigError; reads headers only."""
    from experiments.inputs import text_of
    from experiments.models import check_scheduler, open_model
    from experiments.text import PACKAGES
    from experiments.weights import check_weights

    model_cfg = cfg.model
    if model_cfg.weights is not None:
        check_weights(model_cfg.weights)
    elif model_cfg.architecture is None:
        raise ConfigError(
            "model.weights", "null needs model.architecture, which is null too; allowed: a folder, a hub id"
        )
    try:
        model = open_model(model_cfg)
    except ConfigError:
        raise
    except (TypeError, ValueError, OSError) as error:
        if model_cfg.weights is None:
            raise ConfigError(
                "model.architecture", f"{first_line(error)}; allowed: what its class takes"
            ) from None
        text = f"{model_cfg.weights} cannot be opened ({first_line(error)}); allowed: a folder, or a hub id"
        raise ConfigError("model.weights", text) from None
    shape = checked_shape(model)
    encoders = ("auto", "own", "random", *PACKAGES)
    if model_cfg.text not in encoders:
        near = nearest(model_cfg.text, encoders)
        raise ConfigError(
            "model.text", f"{model_cfg.text!r} is unknown{near}; allowed: {', '.join(encoders)}"
        )
    text = text_of(cfg, model)
    if text == "own":
        check_own_text(model, prompts_of(cfg))
    elif text != "random":
        check_text(text, dict(shape.prompt))
    problem = check_scheduler(model, cfg.scheduler, cfg.steps)
    if problem:
        raise ConfigError(problem.key, problem.message)
    return model


def checked_shape(model: Model) -> DiTShape:
    """The transformer's sizes, if the picture is of whole tokens and the model can draw it. Raises ConfigError."""
    from pipefusion.core.shape import NotSquare

    square, multiple = model.resolution is not None, model.multiple
    sides = {"model.height": model.height, "model.width": model.width}
    sides = {"model.resolution": model.height} if square else sides
    for key, side in sides.items():
        if side % multiple:
            text = f"{side} is not a multiple of {multiple}; allowed: {multiple}, {2 * multiple}, ..."
            raise ConfigError(key, text)
    try:
        return model.shape
    except NotSquare as error:
        text = f"{model.height} is not model.width={model.width}: {error}; allowed: {model.width}"
        raise ConfigError("model.height", text) from None
    except ValueError as error:
        key = max(sides, key=lambda key: sides[key])
        raise ConfigError(key, f"{sides[key]} is too much: {first_line(error)}; allowed: less") from None


def check_own_text(model: Model, prompts: list[str]) -> None:
    """Whether the weights came with their encoders, or know the class that is asked for. Raises ConfigError."""
    from experiments.components import class_label, has_encoders, read_index

    if model.folder is None:
        raise ConfigError("model.text", "own needs model.weights, which is null; allowed: random")
    if not has_encoders(model.folder):
        text = f"own needs the text encoders, and {model.folder} has not all of them"
        raise ConfigError("model.text", f"{text}; allowed: random, or a whole pipeline's folder")
    index = read_index(model.folder)
    if index["_class_name"] == "DiTPipeline":
        for prompt in prompts:
            class_label(index, prompt)


def check_text(encoder: str, prompt: dict[str, tuple[int, ...]]) -> None:
    """Whether the text encoder is there and gives what the model takes. Raises ConfigError."""
    from experiments.text import encoder_folder

    if set(prompt) != {"prompt_embeds", "prompt_mask"}:
        text = f"{encoder} gives prompt_embeds only, and the model takes {', '.join(prompt)}"
        raise ConfigError("model.text", f"{text}; allowed: random, own")
    channels = prompt["prompt_embeds"][1]
    try:
        width = json.loads((encoder_folder(encoder) / "config.json").read_text())["hidden_size"]
    except (OSError, ValueError) as error:
        raise ConfigError(
            "model.text", f"{encoder} cannot be opened ({first_line(error)}); allowed: random"
        ) from None
    if width != channels:
        text = f"{encoder} gives {width} channels, and the model takes {channels}; allowed: random"
        raise ConfigError("model.text", text)


def check_method(cfg: RunConfig, model: Model) -> ConfigError | None:
    """What keeps this combination from running; in a sweep a reason to skip it."""
    from experiments.methods import problem_of

    problem = problem_of(model.shape, cfg)
    return (
        ConfigError(problem.key, problem.message) if problem else check_request(cfg, model) or check_gpus(cfg)
    )


def check_request(cfg: RunConfig, model: Model) -> ConfigError | None:
    """Whether there are images and guidance branches for the ranks that share them."""
    from experiments.launch import resolved

    images, scale = len(prompts_of(cfg)), resolved(cfg, model).guidance_scale
    if images % cfg.parallel.data:
        allowed = ", ".join(str(n) for n in range(1, images + 1) if images % n == 0)
        return ConfigError(
            "parallel.data", f"{cfg.parallel.data} does not divide the {images} pictures; allowed: {allowed}"
        )
    if cfg.parallel.cfg > 1 and not (scale and scale > 1):
        text = f"{cfg.parallel.cfg} shares two guidance branches, and guidance_scale={scale} has one"
        return ConfigError("parallel.cfg", f"{text}; allowed: 1, or a scale above 1")
    return None


def check_gpus(cfg: RunConfig) -> ConfigError | None:
    """Whether this node has a GPU for each of its ranks."""
    import torch

    from experiments.rank import device_type

    if cfg.cluster.world != "local" or device_type(cfg.cluster.device) == "cpu":
        return None
    ranks, gpus = int(os.environ.get("LOCAL_WORLD_SIZE", cfg.devices)), torch.cuda.device_count()
    if ranks <= gpus:
        return None
    text = f"{cfg.devices} puts {ranks} ranks on a node with {gpus} GPUs"
    return ConfigError("devices", f"{text}; allowed: a GPU for each rank, or cluster.device=cpu")


def check_output(run_dir: Path, key: str, measure: str, writes: Sequence[str]) -> None:
    """Whether the run directory can be made and written to, and nothing would be lost there.

    Raises ConfigError; leaves nothing behind.
    """
    there = run_dir.absolute()
    while not there.exists():
        there = there.parent
    try:
        # A file without a name: permissions alone say little for root, or on a read-only file system.
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        raise ConfigError(
            key, f"{run_dir} cannot be written ({error.strerror}: {there}); allowed: a writable path"
        ) from None
    directory.check(run_dir, measure, writes, key)


def check_clock(cfg: RunConfig) -> None:
    """No GPU where CPU seconds are measured. Raises ConfigError."""
    if cfg.cluster.world == "sim" and cfg.cluster.device == "cuda":
        text = "cuda is not what cluster=sim measures, which is CPU seconds; allowed: auto, cpu"
        raise ConfigError("cluster.device", text)


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
