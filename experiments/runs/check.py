"""What can be known to be wrong with a run once torch is there: its method, its model, its GPUs."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from experiments.command.check import CHOICES as CHOICES
from experiments.command.check import check_request
from experiments.config import ModelConfig, RunConfig, read_prompts
from experiments.errors import ConfigError, first_line, lookup, nearest, short_reason
from experiments.methods import METHODS, find_problem
from experiments.models.architecture import architecture_fault
from experiments.models.components import class_label, has_encoders, read_index
from experiments.models.decode import vae_class
from experiments.models.inputs import text_source
from experiments.models.model import Model, open_model, pipeline_parts, resolved
from experiments.models.scheduler import check_scheduler
from experiments.models.text import PACKAGES, encoder_folder
from experiments.models.weights import check_headers, check_tensors
from experiments.runs.device import device_type
from experiments.sensitive import with_layers
from pipefusion.core.shape import DiTShape, NotSquare, TooLarge
from pipefusion.pipelines.tiles import TILED


def check_run(cfg: RunConfig) -> ConfigError | None:
    """All that is wrong with a run; what its method cannot do is returned: a sweep records it. Raises ConfigError."""
    check_values(cfg)
    return check_method(cfg, check_model(cfg))


def check_sizes(cfg: RunConfig) -> ConfigError | None:
    """As `check_run`, but for what needs the classes of diffusers, which take seconds to import."""
    check_values(cfg)
    return check_method(cfg, read_model(cfg))


def check_values(cfg: RunConfig) -> None:
    """Values that are wrong for every model. Raises ConfigError."""
    check_request(cfg)
    kind = METHODS.get(cfg.method.name)
    if kind is None or not isinstance(cfg.method, kind.Config):
        raise ConfigError(
            "method.name", f"{cfg.method.name} is set by its group; allowed: method=NAME instead"
        )
    if cfg.cluster.world != "plan":
        check_cuda(cfg, "cluster.device")
    check_environment(cfg)


def check_environment(cfg: RunConfig) -> None:
    """No variable under which ranks on CUDA would wait for each other for ever. Raises ConfigError.

    A receive that was posted early runs until its message comes: whatever is launched must not wait for it.
    """
    for name in ("CUDA_DEVICE_MAX_CONNECTIONS", "CUDA_LAUNCH_BLOCKING"):
        asked = os.environ.get(name) == "1" and cfg.cluster.world == "local"
        if asked and device_type(cfg.cluster.device) == "cuda":
            raise ConfigError(name, "1 would make ranks wait for each other for ever; allowed: unset")


def check_cuda(cfg: RunConfig, key: str) -> None:
    """Whether a GPU is there where the key asks for one. Raises ConfigError."""
    if lookup(cfg, key) == "cuda" and not torch.cuda.is_available():
        text = "cuda needs a GPU and a CUDA build of torch, and torch sees none; allowed: auto, cpu"
        raise ConfigError(key, text)


def check_model(cfg: RunConfig) -> Model:
    """The model's files, sizes and text encoder, class and scheduler. Raises ConfigError; reads headers only."""
    model = read_model(cfg)
    with refusal(cfg.model):
        if model.folder is not None:
            check_tensors(model.folder, model.variant)
        model.view()  # diffusers builds it
    check_steps(cfg, model)
    return model


def read_model(cfg: RunConfig) -> Model:
    """The model, its files, sizes and text encoder checked, all but what needs its class. Raises ConfigError."""
    with refusal(cfg.model):
        model = read_files(cfg.model)
    encoders = ("auto", "own", "random", *PACKAGES)
    if cfg.model.text not in encoders:
        near = nearest(cfg.model.text, encoders)
        raise ConfigError(
            "model.text", f"{cfg.model.text!r} is unknown{near}; allowed: {', '.join(encoders)}"
        )
    text = text_source(cfg, model)
    if text == "own":
        check_own_text(model, read_prompts(cfg))
    elif text != "random":
        check_text(text, dict(model.shape.prompt))
    if cfg.model.share_decoding:
        check_shared_decoding(cfg, model)
    return model


def check_shared_decoding(cfg: RunConfig, model: Model) -> None:
    """Whether there are tiles, and ranks to share them. Raises ConfigError."""
    key, vae = "model.share_decoding", None if model.folder is None else vae_class(model.folder)
    if cfg.cluster.world != "local":
        text = f"true is for ranks that are processes, and cluster={cfg.cluster.name} has none"
        raise ConfigError(key, f"{text}; allowed: cluster=local, or false")
    if not cfg.model.tiled:
        raise ConfigError(
            key, "true deals tiles, and model.tiled=false makes none; allowed: model.tiled=true"
        )
    if vae not in TILED:
        text = f"true needs a VAE whose tiles can be dealt, and {cfg.model.name} has {vae or 'none'}"
        raise ConfigError(key, f"{text}; allowed: false, or weights with {', '.join(TILED)}")


def check_steps(cfg: RunConfig, model: Model) -> None:
    """Whether patches can be stepped by the scheduler. Raises ConfigError."""
    problem = check_scheduler(model, cfg.scheduler, cfg.steps)
    if problem:
        raise ConfigError(problem.key, problem.message)


@contextmanager
def refusal(cfg: ModelConfig) -> Iterator[None]:
    """Whatever a class has to say to foreign files and numbers, as a ConfigError."""
    try:
        yield
    except ConfigError:
        raise
    except Exception as error:
        if cfg.weights is None:
            raise ConfigError(
                "model.architecture", f"{short_reason(error)}; allowed: what its class takes"
            ) from None
        text = f"{cfg.weights} cannot be opened ({short_reason(error)}); allowed: a folder, or a hub id"
        raise ConfigError("model.weights", text) from None


def read_files(cfg: ModelConfig) -> Model:
    """A model whose files are there, and that can be built in this size. Raises whatever is wrong with its files."""
    if cfg.weights is not None:
        check_headers(cfg.weights, cfg.variant, pipeline_parts(cfg))
    elif cfg.variant is not None:
        text = f"{cfg.variant} is of the files of weights, and model.weights is null; allowed: null"
        raise ConfigError("model.variant", text)
    elif cfg.architecture is None:
        raise ConfigError(
            "model.weights", "null needs model.architecture, which is null too; allowed: a folder, a hub id"
        )
    model = open_model(cfg)
    if fault := architecture_fault(model):
        raise unfit(model, fault)
    checked_shape(model)
    return model


def unfit(model: Model, fault: str) -> ConfigError:
    """The refusal of a transformer's configuration, by its key where the fault begins with one."""
    if model.folder is not None:
        return ConfigError("model.weights", f"{model.folder}: its configuration has {fault}")
    key, equals, text = fault.partition("=")
    named = equals and key.isidentifier()
    return (
        ConfigError(f"model.architecture.{key}", text) if named else ConfigError("model.architecture", fault)
    )


def checked_shape(model: Model) -> DiTShape:
    """The transformer's sizes, if the picture is of whole tokens and the model can draw it. Raises ConfigError."""
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
    except TooLarge as error:
        key = max(sides, key=lambda key: sides[key])
        raise ConfigError(key, f"{sides[key]} is too much: {first_line(error)}; allowed: less") from None
    except ValueError as error:
        raise unfit(model, first_line(error)) from None


def check_own_text(model: Model, prompts: list[str]) -> None:
    """Whether the weights came with their encoders, or know the class that is asked for. Raises ConfigError."""
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
    try:
        problem = find_problem(model.shape, with_layers(cfg))
    except ConfigError as error:
        return error
    return (
        ConfigError(problem.key, problem.message) if problem else check_shares(cfg, model) or check_gpus(cfg)
    )


def check_shares(cfg: RunConfig, model: Model) -> ConfigError | None:
    """Whether there are images and guidance branches for the ranks that share them."""
    images, scale = len(read_prompts(cfg)), resolved(cfg, model).guidance_scale
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
    if cfg.cluster.world != "local" or device_type(cfg.cluster.device) == "cpu":
        return None
    ranks, gpus = int(os.environ.get("LOCAL_WORLD_SIZE", cfg.devices)), torch.cuda.device_count()
    if ranks <= gpus:
        return None
    text = f"{cfg.devices} puts {ranks} ranks on a node with {gpus} GPUs"
    return ConfigError("devices", f"{text}; allowed: a GPU for each rank, or cluster.device=cpu")
