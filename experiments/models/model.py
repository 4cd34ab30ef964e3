"""From a `ModelConfig` to its sizes, its view and its tensors: shipped, from a folder, or random."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from experiments.config import ModelConfig, RunConfig
from experiments.errors import ConfigError
from experiments.models.decode import has_vae, latent_factor
from experiments.models.schedulers import config_fault
from experiments.models.sizes import choose_frames, choose_size
from experiments.models.weights import read_json, resolve_weights
from pipefusion.core.dit import DiT
from pipefusion.core.shape import DiTShape, Experts
from pipefusion.core.weights import held, reader
from pipefusion.deferred import diffusers
from pipefusion.families import (
    TEXT_TOKENS,
    VIEWS,
    diffusers_class,
    frame_factor,
    latent_patch,
    makes_videos,
    model_shape,
    whole_config,
)
from pipefusion.views.experts import NAMES, TwoExperts, apart

FACTS = {
    "pixel_space", "text_tokens", "text_tokens_2", "latent_factor", "guidance", "guidance_scale", "resolution",
    "frames", "frame_factor", "first_frame", "references", "boundary", "guidance_scale_2",
}  # fmt: skip
"""What the project wants to know of a model besides its class and the arguments of that."""
EDITING = ("FluxKontextPipeline", "QwenImageEditPipeline", "QwenImageEditPlusPipeline")
"""Pipelines of which a folder's model edits a picture, by default."""
# Predicting v keeps float noise small: noise prediction divides it by sqrt(alpha), a factor of 16 in DDIM's first step.
RANDOM_SCHEDULER = {
    "_class_name": "DPMSolverMultistepScheduler",
    "algorithm_type": "dpmsolver++",
    "prediction_type": "v_prediction",
}
DEFAULT_GUIDANCE = 4.5
"""What diffusers' PixArt pipelines use, for models that ship with no value of their own."""
RANDOM_FLOW_SCHEDULER = {"_class_name": "FlowMatchEulerDiscreteScheduler"}


@dataclass(frozen=True)
class Model:
    """A model chosen by configuration. `config` is the transformer's, `facts` what the project knows besides."""

    class_name: str
    config: dict[str, Any]
    folder: Path | None
    seed: int
    height: int
    width: int
    dtype: torch.dtype
    facts: dict[str, Any]
    scheduler: dict[str, Any]
    frames: int | None = None
    """Pictures of a video."""
    variant: str | None = None

    @property
    def resolution(self) -> int | None:
        """Pixels of a square picture's side; None where height and width differ."""
        return self.height if self.height == self.width else None

    @property
    def pixels_per_latent(self) -> int:
        return 1 if self.facts["pixel_space"] else self.facts["latent_factor"]

    @property
    def multiple(self) -> int:
        """Height and width must be multiples of this many pixels, those of a token."""
        return self.pixels_per_latent * latent_patch(self.class_name, self.config)

    @property
    def latent_frames(self) -> int | None:
        """Frames of the latents: a causal VAE has the first picture alone, and in pixel space all are packed alike."""
        return None if self.frames is None else -(-self.frames // self.facts["frame_factor"])

    @property
    def shape(self) -> DiTShape:
        """Sizes of the transformer at this height and width. Raises ValueError if it cannot be."""
        rows, cols = self.height // self.multiple, self.width // self.multiple
        facts = self.facts | {"frames": self.latent_frames}
        shape = model_shape(self.class_name, self.config, rows, cols, facts, self.dtype.itemsize)
        experts, boundary = None, self.facts.get("boundary")
        if boundary is not None:
            experts = Experts(boundary, self.facts.get("guidance_scale_2"))
        return replace(shape, guidance=self.facts.get("guidance", shape.guidance), experts=experts)

    @property
    def prompts(self) -> dict[str, list[str]] | None:
        """The captions that it was trained on and those kept from it, by role, where its folder lists them."""
        path = None if self.folder is None else self.folder / "prompts.json"
        return None if path is None or not path.is_file() else read_json(path, "captions by role")

    def view(self) -> DiT:
        """The model on `meta`: sizes without data."""
        make: Callable[..., DiT] = VIEWS[self.class_name].View
        shape = self.shape
        first, *second = (
            make(self.config, shape, self.dtype, self.pixels_per_latent) for _ in range(shape.transformers)
        )
        return TwoExperts(first, *second) if second else first

    def tensors(self) -> Callable[..., Tensor]:
        """What `DiT.load` reads: slices of the safetensors files, or of a model drawn from the seed."""
        parts = [
            reader(self.folder / name, self.variant)
            if self.folder
            else random_tensors(self.class_name, self.config, self.seed + index)
            for index, name in enumerate(NAMES[: self.shape.transformers])
        ]
        return apart(*parts) if len(parts) > 1 else parts[0]


def random_tensors(class_name: str, config: dict[str, Any], seed: int) -> Callable[..., Tensor]:
    """Tensors of the stock class initialised after `torch.manual_seed(seed)`, read as those of a file are."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return held(getattr(diffusers, class_name).from_config(config).state_dict())


def louder(read: Callable[..., Tensor], gain: float) -> Callable[..., Tensor]:
    """Weights with every matrix multiplied: what random ones need for prompt and attention to matter."""

    def tensors(*args: Any, **kwargs: Any) -> Tensor:
        tensor = read(*args, **kwargs)
        return tensor * gain if tensor.ndim == 2 else tensor

    return read if gain == 1 else tensors


def open_model(cfg: ModelConfig) -> Model:
    """The model of a configuration: reads its JSON files, no tensors. Raises ValueError and OSError.

    Of two experts of which devices hold one, it is that one: both have the same sizes.
    ConfigError, which is a ValueError, for sizes that contradict each other.
    """
    given = dict(cfg.architecture or {})
    class_name, known = given.pop("class", "PixArtTransformer2DModel"), given.keys() & FACTS
    facts: dict[str, Any] = {key: given.pop(key) for key in known}
    folder = resolve_weights(cfg.weights, pipeline_parts(cfg), cfg.variant) if cfg.weights else None
    if folder is not None:
        config = read_json(folder / "transformer" / "config.json", "a configuration in diffusers' layout")
        class_name = diffusers_class(config)
        scheduler = read_scheduler(folder / "scheduler" / "scheduler_config.json")
        path = folder / "pipefusion_lab.json"
        own = read_json(path, "the facts of a model") if path.exists() else {}
        facts = {**facts_in(folder), **facts, **own}
        if facts.get("boundary") is not None and not (folder / NAMES[1]).is_dir():
            text = f"{folder} has no {NAMES[1]}, the expert below boundary={facts['boundary']}; allowed: one with both"
            raise ConfigError("model.weights", text)
    else:
        config = given
        flow = class_name in TEXT_TOKENS  # these predict velocities
        scheduler = RANDOM_FLOW_SCHEDULER if flow else RANDOM_SCHEDULER
        facts = {"pixel_space": True, "latent_factor": 8, **facts}
    if cfg.experts == "one" and facts.pop("boundary", None) is None:
        raise ConfigError(
            "model.experts", "one is of two transformers, and this model has one; allowed: both"
        )
    if class_name not in VIEWS:
        raise ValueError(f"class {class_name} has no view; there are {', '.join(VIEWS)}")
    config = whole_config(class_name, config, strict=folder is None)
    if makes_videos(class_name):
        facts = {"frame_factor": frame_factor(class_name), "frames": 81} | facts
    facts.setdefault("text_tokens", TEXT_TOKENS.get(class_name, 120 if folder else 12))
    pixels = 1 if facts["pixel_space"] else facts["latent_factor"]
    height, width = choose_size(cfg, facts.get("resolution") or config.get("sample_size", 128) * pixels)
    dtype, frames = getattr(torch, cfg.dtype), choose_frames(cfg, class_name, facts)
    return Model(
        class_name, config, folder, cfg.seed, height, width, dtype, facts, scheduler, frames, cfg.variant
    )


def pipeline_parts(cfg: ModelConfig) -> list[str]:
    """Patterns of the folders of a pipeline whose weights a run reads."""
    return ["transformer*"] + (["text_encoder*", "vae"] if cfg.text in ("auto", "own") else [])


def read_scheduler(path: Path) -> dict[str, Any]:
    """The configuration of the scheduler that a model ships with. Raises ConfigError."""
    allowed = "a configuration with the _class_name of a scheduler of diffusers"
    config = read_json(path, allowed)
    if not isinstance(config.get("_class_name"), str):
        raise ConfigError("model.weights", f"{path} names no class; allowed: {allowed}")
    fault = config_fault(config["_class_name"], config)
    if fault:
        raise ConfigError("model.weights", f"{path} has {fault}")
    return config


def resolved(cfg: RunConfig, model: Model) -> RunConfig:
    """The configuration with what the model decides filled in: size and guidance scale."""
    shipped = model.facts.get("guidance_scale")
    shipped = DEFAULT_GUIDANCE if shipped is None else shipped
    scale = float(shipped if cfg.guidance_scale is None else cfg.guidance_scale)
    height, width = (None, None) if model.resolution else (model.height, model.width)
    model_cfg = replace(
        cfg.model, resolution=model.resolution, height=height, width=width, frames=model.frames
    )
    return replace(cfg, guidance_scale=scale, model=model_cfg)


def pictures_only(model: Model) -> None:
    """Raises ConfigError for a model of videos, or that edits pictures, where what is measured is one that draws."""
    for what, other in {"makes videos": model.frames, "edits pictures": model.shape.references}.items():
        if other:
            text = (
                f"a {model.class_name} that {what} is not measured here; allowed: a model that draws pictures"
            )
            raise ConfigError("model", text)


def facts_in(folder: Path) -> dict[str, Any]:
    """What a pipeline's folder tells of its model besides the transformer's configuration."""
    facts: dict[str, Any] = {"pixel_space": False, "latent_factor": 8}
    if has_vae(folder):
        facts["latent_factor"] = latent_factor(folder)
    path = folder / "model_index.json"
    index = read_json(path, "the parts of a pipeline") if path.exists() else {}
    if index.get("_class_name") == "PixArtSigmaPipeline":
        facts["text_tokens"] = 300
    if index.get("_class_name") in EDITING:
        facts["references"] = 1
    if index.get("_class_name") == "WanImageToVideoPipeline" and index.get("expand_timesteps"):
        facts["first_frame"] = True
    if index.get("boundary_ratio") is not None and (folder / NAMES[1]).is_dir():
        facts["boundary"] = index["boundary_ratio"]
    if index.get("is_distilled") is False:  # FLUX.2 klein in its base version
        facts["guidance"] = "cfg"
    return facts
