"""From the scheduler that a model ships with to another one that means the same, or why there is none.

A scheduler's configuration says how the model was trained and what range its data has, which any other scheduler has to
take over, and how steps are solved, which is what one changes a scheduler for.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from experiments.errors import first_line
from experiments.models.arguments import argument_faults
from pipefusion.constructors import constructor
from pipefusion.deferred import diffusers
from pipefusion.schedulers import SCHEDULERS

SOLVER = {
    "algorithm_type", "solver_order", "solver_type", "lower_order_final", "euler_at_final", "final_sigmas_type",
    "lambda_min_clipped", "variance_type", "set_alpha_to_one", "skip_prk_steps", "stochastic_sampling",
    "timestep_spacing", "steps_offset", "interpolation_type", "use_lu_lambdas",
}  # fmt: skip
"""How steps are solved: what both classes have of it is kept, the rest goes."""
DETAILS = {
    "clip_sample_range", "sample_max_value", "dynamic_thresholding_ratio",
    "base_shift", "max_shift", "base_image_seq_len", "max_image_seq_len",
}  # fmt: skip
"""Of another key that decides; the lower line is used up in `mu` (`timesteps.shift`)."""
OFF = {"clip_sample": False, "thresholding": False}
"""What it means not to have such a key, whatever the default of a class that has it."""
FLOW = {"prediction_type": "flow_prediction", "use_flow_sigmas": True}
"""How a solver of diffusion is made one of flows."""
SPACINGS = {"use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas"}
"""Of a diffusion's sigmas in DPM-Solver, of a flow's in the flow's own class: never one for the other."""


def is_flow(scheduler: Mapping[str, Any]) -> bool:
    """Whether the model predicts the velocity of a flow rather than noise."""
    return "FlowMatch" in scheduler["_class_name"] or scheduler.get("prediction_type") == "flow_prediction"


def config_fault(class_name: str, config: Mapping[str, Any]) -> str | None:
    """The first key of a scheduler's configuration that cannot be meant, and what is allowed; nothing is made."""
    try:
        return next(argument_faults(constructor(class_name), config), None)
    except ValueError:
        return None  # no scheduler, which is refused when one is chosen


def scheduler_class(name: str) -> Any:
    """A scheduler's class; None if diffusers has none of that name."""
    cls = getattr(diffusers, name, None)
    return cls if isinstance(cls, type) and issubclass(cls, diffusers.SchedulerMixin) else None


def whole(class_name: str, config: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration that `from_config` makes of this one, defaults included.

    An infinite default, which JSON cannot hold, is left out: it comes from the class again. Raises ValueError.
    """
    cls = scheduler_class(class_name)
    if cls is None:
        raise ValueError(f"{class_name} is no scheduler of diffusers")
    try:
        made, defaults = cls.from_config(dict(config)).config, cls().config
    except Exception as error:  # whatever a class has to say to its configuration
        raise ValueError(f"{class_name} cannot be made: {first_line(error)}") from None
    endless = [key for key, value in defaults.items() if isinstance(value, float) and math.isinf(value)]
    return {
        key: made[key]
        for key in defaults
        if not key.startswith("_") and not (key in endless and made[key] == defaults[key])
    }


def converted(shipped: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The configuration of scheduler `name` with everything that the shipped one means.

    Raises ValueError, naming the key, for what the class of `name` cannot do.
    """
    source, target = shipped["_class_name"], SCHEDULERS[name]
    solver: dict[str, Any] = {"algorithm_type": "dpmsolver++"} if name == "dpmsolver++" else {}
    if source == target:
        return {**shipped, **solver}
    means, defaults, takes = whole(source, shipped), whole(source, {}), set(whole(target, {}))
    words: dict[str, str] = {}
    if is_flow(shipped):
        words = {"shift": "flow_shift"} if name == "dpmsolver++" else {"flow_shift": "shift"}
        takes -= SPACINGS
        solver |= FLOW if name == "dpmsolver++" else {}
        means = {key: value for key, value in means.items() if key not in FLOW}
    for key, value in means.items():
        known = words.get(key, key) in takes or key in SOLVER | DETAILS
        if not known and value != OFF.get(key, defaults[key]):
            raise ValueError(f"{source} with {key}={value} means something that {target} cannot do")
    given = {
        words.get(key, key): value for key, value in means.items() if key in shipped or key not in SOLVER
    }
    absent = {key: value for key, value in OFF.items() if key not in means}
    return {key: value for key, value in (absent | given | solver).items() if key in takes}
