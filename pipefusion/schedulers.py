"""The schedulers of diffusers that can be stepped patch by patch, made by name."""

from __future__ import annotations

from typing import Any

from pipefusion.deferred import diffusers

SCHEDULERS = {
    "dpmsolver++": "DPMSolverMultistepScheduler",
    "ddim": "DDIMScheduler",
    "flow_euler": "FlowMatchEulerDiscreteScheduler",
}


def make_scheduler(class_name: str, config: dict[str, Any], timesteps: dict[str, Any] | int) -> Any:
    """A diffusers scheduler of the given class name with its timesteps set. Raises KeyError if unknown.

    `timesteps` are the arguments of its `set_timesteps`, or simply how many there are.
    """
    if class_name not in SCHEDULERS.values():
        raise KeyError(class_name)
    scheduler = getattr(diffusers, class_name).from_config(config)
    scheduler.set_timesteps(
        **({"num_inference_steps": timesteps} if isinstance(timesteps, int) else timesteps)
    )
    return scheduler
