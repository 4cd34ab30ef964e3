"""A bundle: the folder in which another program says what it was asked and what it computed, read and checked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from baselines import asyncdiff
from experiments.config import ModelConfig
from experiments.conformance.fields import (
    FIELDS,
    METHODS,
    MODEL_FIELDS,
    OWN,
    RECIPE,
    SCHEDULER_FIELDS,
    BundleError,
    filled,
    read_fields,
)
from experiments.conformance.request import Request
from experiments.conformance.tensors import (
    INPUTS,
    Hidden,
    check_hidden,
    conditioning,
    read_latents,
    read_tensors,
)
from experiments.errors import ConfigError, first_line, nearest, short_reason
from experiments.models.architecture import architecture_fault
from experiments.models.model import FACTS, Model, louder, open_model
from experiments.models.scheduler import choose_scheduler
from experiments.models.schedulers import config_fault
from experiments.models.stepping import stepping_problem
from experiments.models.weights import check_weights
from experiments.runs.check import CHOICES
from pipefusion import method
from pipefusion.core import closed_forms as forms
from pipefusion.core.dit import DiT
from pipefusion.core.domain import Steps, outside
from pipefusion.core.parallel import Parallel
from pipefusion.core.problem import Problem
from pipefusion.core.split import split_rows
from pipefusion.families import VIEWS
from pipefusion.schedulers import SCHEDULERS, make_scheduler

TOLERANCE = {"float32": 1e-4, "bfloat16": 2e-2, "float16": 2e-2}
"""The largest difference over the largest value, by what the model computes in."""


@dataclass(frozen=True)
class Bundle:
    """What was asked (`view` on `meta`, `request`) and what came out."""

    settings: dict[str, Any]
    model: Model
    view: DiT
    request: Request
    latents: Tensor  # [S, B, C, H, W] after each step, or [1, B, C, H, W] after the last
    hidden: Hidden | None
    tolerance: float

    @property
    def every_step(self) -> bool:
        """Whether there are latents of all steps."""
        return len(self.latents) == self.request.steps

    def tensors(self) -> Callable[..., Tensor]:
        """What `DiT.load` reads."""
        return louder(self.model.tensors(), self.settings["model"]["gain"])


def read_bundle(folder: Path, tolerance: float | None = None) -> Bundle:
    """Everything but the weights, checked. Raises BundleError."""
    file, settings = read_fields(folder)
    settings["model"] = filled(file, MODEL_FIELDS, settings["model"], "model.")
    if settings["dtype"] not in CHOICES["model.dtype"]:
        allowed = ", ".join(CHOICES["model.dtype"])
        raise BundleError(file, f"dtype={settings['dtype']!r} is unknown; allowed: {allowed}")
    limit = next(
        each for each in (tolerance, settings["tolerance"], TOLERANCE[settings["dtype"]]) if each is not None
    )
    inputs = read_tensors(folder, INPUTS)
    if "noise" not in inputs or inputs["noise"].ndim != 4:
        raise BundleError(INPUTS, "noise is missing or has not 4 dimensions; allowed: [B, C, H, W]")
    model = bundle_model(file, folder, settings, inputs)
    view = meta_view(file, model)
    noise, cond = conditioning(inputs, view.shape, settings["guidance_scale"])
    scheduler = bundle_scheduler(file, settings, model)
    cfg = bundle_method(file, settings, view)
    asynchronous = settings["method"] == "asyncdiff"
    request = Request(
        noise,
        cond,
        scheduler,
        split_rows(view.shape.token_rows, settings["patches"]),
        forms.stages(view.shape, settings["devices"], cfg.split),
        settings["warmup"],
        settings["text"],
        sent=settings["compress"],
        differences=None if asynchronous else cfg.differences,
        stride=settings["stride"] if asynchronous else None,
        time_shift=settings["time_shift"],
    )
    latents = read_latents(folder, tuple(noise.shape), settings["steps"], limit)
    return Bundle(settings, model, view, request, latents, check_hidden(folder, request, view.shape), limit)


def bundle_method(file: str, settings: dict[str, Any], view: DiT) -> Any:
    """The configuration of the method that a bundle is held to. Raises BundleError."""
    if settings["method"] not in METHODS:
        raise BundleError(file, f"method={settings['method']} is unknown; allowed: {', '.join(METHODS)}")
    module = asyncdiff if settings["method"] == "asyncdiff" else method
    split = tuple(settings["split"]) if isinstance(settings["split"], list) else settings["split"]
    given = {key: settings[key] for key in ("patches", "warmup", "text", *OWN)} | {"split": split}
    known = {key: value for key, value in given.items() if hasattr(module.Config, key)}
    usual = {key: field.default for key, field in FIELDS.items()} | {"patches": 1}
    for key in given.keys() - known.keys():
        if given[key] != usual[key]:
            text = (
                f"{key}={given[key]} is nothing that method={settings['method']} has; allowed: {usual[key]}"
            )
            raise BundleError(file, text)
    cfg = module.Config(**known)
    problem = module.check(view.shape, Parallel(pipe=settings["devices"]), settings["steps"], cfg)
    if problem:
        raise BundleError(file, f"{problem.key.removeprefix('method.')}={problem.message}")
    return cfg


def bundle_model(file: str, folder: Path, settings: dict[str, Any], inputs: dict[str, Tensor]) -> Model:
    """The model of a bundle for the size of its noise, without its tensors. Raises BundleError."""
    recipe = settings["model"]
    if (recipe["folder"] is None) == (recipe["class"] is None):
        raise BundleError(file, f"model has both a folder and a class, or neither; allowed: {RECIPE}")
    facts = {key: recipe[key] for key in FACTS & recipe.keys() if recipe[key] is not None}
    if recipe["class"] != "DiTTransformer2DModel" and "prompt_embeds" in inputs:
        facts.setdefault("text_tokens", inputs["prompt_embeds"].shape[1])
    name, weights = "model.class", None
    architecture = {"pixel_space": False, **facts, **(recipe["config"] or {}), "class": recipe["class"]}
    try:
        if recipe["folder"] is not None:
            name, inside = "model.folder", folder / recipe["folder"]
            weights = str(inside if inside.is_dir() else recipe["folder"])
            check_weights(weights, recipe["variant"])
        elif recipe["class"] not in VIEWS:
            raise ValueError(f"is unknown{nearest(recipe['class'], VIEWS)}; allowed: {', '.join(VIEWS)}")
        model = open_model(
            ModelConfig(
                name="bundle",
                weights=weights,
                variant=recipe["variant"],
                dtype=settings["dtype"],
                text="random",
                seed=recipe["seed"],
                architecture=architecture,
            )
        )
    except ConfigError as error:
        raise BundleError(file, f"{name}={error.message}") from None
    except Exception as error:  # whatever a foreign class has to say to foreign files and numbers
        text = first_line(error)
        end = "" if "allowed:" in text else f"; allowed: {MODEL_FIELDS[name.partition('.')[2]].allowed}"
        raise BundleError(file, f"{name}={weights or recipe['class']}: {text}{end}") from None
    model = replace(model, facts=model.facts | facts)
    fault = architecture_fault(model)
    if fault:
        raise BundleError(file, f"model.config.{fault}")
    height, width = inputs["noise"].shape[2:]
    patch, pixels = model.multiple // model.pixels_per_latent, model.pixels_per_latent
    if height % patch or width % patch or not height or not width:
        text = f"noise is {height} x {width}; allowed: multiples of {patch}, the rows of a token"
        raise BundleError(INPUTS, text)
    return replace(model, height=height * pixels, width=width * pixels)


def meta_view(file: str, model: Model) -> DiT:
    """The model on `meta`. Raises BundleError."""
    try:
        return model.view()
    except Exception as error:  # whatever its class has to say
        text = f"model cannot be built for {model.height} x {model.width} pixels ({short_reason(error)})"
        raise BundleError(file, f"{text}; allowed: what its class takes") from None


def bundle_scheduler(file: str, settings: dict[str, Any], model: Model) -> Any:
    """The scheduler with its timesteps set: as given, or as the model's own pipeline has it. Raises BundleError."""
    if settings["scheduler"] is None:
        return own_scheduler(file, settings["steps"], model)
    given = filled(file, SCHEDULER_FIELDS, settings["scheduler"], "scheduler.")
    check_length(file, given, settings["steps"])
    try:
        scheduler = make_scheduler(
            given["class"], given["config"], given["set_timesteps"] or settings["steps"]
        )
    except KeyError as error:
        names = [*SCHEDULERS.values()]
        if given["class"] in names:
            raise BundleError(file, f"scheduler: {error} is missing; allowed: what its class takes") from None
        text = f"{given['class']} is unknown{nearest(given['class'], names)}"
        raise BundleError(file, f"scheduler.class={text}; allowed: {', '.join(names)}") from None
    except Exception as error:
        text = f"scheduler cannot be made ({first_line(error)})"
        raise BundleError(file, f"{text}; allowed: what its class takes") from None
    if len(scheduler.timesteps) != settings["steps"]:
        text = f"steps={settings['steps']}, and set_timesteps makes {len(scheduler.timesteps)}"
        raise BundleError(file, f"{text}; allowed: as many")
    fault = stepping_problem(given["class"], given["config"], given["set_timesteps"] or settings["steps"])
    if fault:
        raise BundleError(file, f"scheduler is {fault}; allowed: steps that patches can take")
    return scheduler


def check_length(file: str, given: dict[str, Any], steps: int) -> None:
    """Whether the numbers of a scheduler can be meant, before its tables take memory. Raises BundleError."""
    asked = (given["set_timesteps"] or {}).get("num_inference_steps", steps)
    for key, message in outside(asked, Steps, "scheduler.set_timesteps.num_inference_steps"):
        raise BundleError(file, f"{key}={message}")
    fault = config_fault(given["class"], given["config"])
    if fault:
        raise BundleError(file, f"scheduler.config.{fault}")


def own_scheduler(file: str, steps: int, model: Model) -> Any:
    """The scheduler that came with a folder of weights. Raises BundleError."""
    from pipefusion.pipelines.timesteps import timestep_arguments

    if model.folder is None:
        raise BundleError(file, "scheduler is missing; allowed: left out only with model.folder")
    chosen = choose_scheduler(model, "shipped")
    if isinstance(chosen, Problem):
        raise BundleError(file, f"scheduler={chosen.message}")
    arguments = timestep_arguments(model.class_name, model.scheduler, model.shape.denoised_tokens, steps)
    return make_scheduler(*chosen, arguments)


def on_device(bundle: Bundle, device: torch.device) -> DiT:
    """The model with its weights."""
    bundle.view.load(bundle.tensors(), device)
    return bundle.view
