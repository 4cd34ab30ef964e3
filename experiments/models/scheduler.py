"""The scheduler of a run: which ones fit a model, and the timesteps that its pipeline would set."""

from __future__ import annotations

from typing import Any

from experiments.models.model import RANDOM_SCHEDULER, Model
from experiments.models.schedulers import converted, is_flow, whole
from experiments.models.stepping import stepping_problem
from pipefusion.core.problem import Problem
from pipefusion.pipelines.timesteps import shift, timestep_arguments
from pipefusion.schedulers import SCHEDULERS, make_scheduler

FEW = 4  # steps that every scheduler can take


def choose_scheduler(model: Model, name: str) -> tuple[str, dict[str, Any]] | Problem:
    """Class name and whole configuration, as of `from_config`, of the scheduler `name` for this model.

    A random-weight model goes with any scheduler; a trained one only with those that fit what it predicts.
    """
    flow, shipped = is_flow(model.scheduler), model.scheduler["_class_name"]
    fits = ["dpmsolver++", "flow_euler" if flow else "ddim"]
    if name == "shipped":
        if shipped not in SCHEDULERS.values():
            text = f"shipped is {shipped}, which is not supported (of stochastic ones none is)"
            return Problem("scheduler", f"{text}; allowed: {', '.join(fits)}")
        try:
            return shipped, whole(shipped, model.scheduler)
        except ValueError as error:
            return Problem("scheduler", f"shipped does not work: {error}; allowed: {', '.join(fits)}")
    class_name = SCHEDULERS[name]
    if name in fits:
        try:
            return class_name, whole(class_name, converted(model.scheduler, name))
        except ValueError as error:
            others = ", ".join(["shipped", *(other for other in fits if other != name)])
            return Problem("scheduler", f"{name} is not the same for this model: {error}; allowed: {others}")
    if model.folder is not None:
        text = f"{name} does not fit what this model predicts"
        return Problem("scheduler", f"{text}; allowed: {', '.join(['shipped', *fits])}")
    config = {} if name == "flow_euler" else RANDOM_SCHEDULER
    return class_name, whole(class_name, converted(config, name) if config else {})


def choose_timesteps(model: Model, chosen: tuple[str, dict[str, Any]], steps: int) -> dict[str, Any]:
    """What the model's own pipeline tells its scheduler to set the timesteps by: arguments of `set_timesteps`.

    Another scheduler has its own timesteps, but for the shift by the picture's size. Raises ValueError where no
    pipeline knows that.
    """
    if model.folder is None:
        return {"num_inference_steps": steps}
    class_name, config = chosen
    if class_name == model.scheduler["_class_name"]:
        return timestep_arguments(model.class_name, model.scheduler, model.shape.denoised_tokens, steps)
    if not config.get("use_dynamic_shifting"):
        return {"num_inference_steps": steps}
    shipped = whole(model.scheduler["_class_name"], model.scheduler)
    found = shift(model.class_name, shipped, model.shape.denoised_tokens, steps)
    if not found:
        raise ValueError(f"use_dynamic_shifting=True, and no pipeline of {model.class_name} says by how much")
    return {"num_inference_steps": steps, **found}


def check_scheduler(model: Model, name: str, steps: int) -> Problem | None:
    """Whether there is such a scheduler for this model, and its steps can be taken patch by patch."""
    chosen = choose_scheduler(model, name)
    if isinstance(chosen, Problem):
        return chosen
    try:
        fault = stepping_problem(*chosen, choose_timesteps(model, chosen, steps))
    except (ValueError, TypeError) as error:
        fault = str(error)
    if fault is None:
        return None
    if steps > FEW and check_scheduler(model, name, FEW) is None:
        return Problem("steps", f"{steps} is too much: {fault}; allowed: fewer")
    return Problem("scheduler", f"{name} is {fault}; allowed: a scheduler_config.json without that")


def build_scheduler(model: Model, name: str, steps: int) -> Any:
    """The diffusers scheduler of a run with its timesteps set. Raises ValueError if it does not fit the model."""
    chosen = choose_scheduler(model, name)
    if isinstance(chosen, Problem):
        raise ValueError(f"{chosen.key}: {chosen.message}")
    return make_scheduler(*chosen, choose_timesteps(model, chosen, steps))
