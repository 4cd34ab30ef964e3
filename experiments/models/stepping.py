"""Which keys of a scheduler's configuration keep it from being stepped patch by patch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from experiments.errors import first_line
from pipefusion.core.stepping import stepping_fault
from pipefusion.deferred import diffusers
from pipefusion.schedulers import make_scheduler


def stepping_problem(
    class_name: str, config: Mapping[str, Any], timesteps: Mapping[str, Any] | int
) -> str | None:
    """Why patches cannot be stepped with this scheduler, and the keys of its configuration that make it so, or None."""
    why = fault(class_name, config, timesteps)
    if why is None:
        return None
    guilty = responsible(class_name, config, timesteps)
    keys = ", ".join(f"{key}={config[key]}" for key in guilty)
    return f"{class_name} {f'with {keys} ' if keys else ''}{why}"


def responsible(class_name: str, config: Mapping[str, Any], timesteps: Mapping[str, Any] | int) -> list[str]:
    """The keys without any one of which there would be no fault; if there are none such, those that suffice for it."""
    defaults = scheduler_defaults(class_name)
    changed = [key for key, value in config.items() if key in defaults and value != defaults[key]]

    def without(keys: list[str]) -> str | None:
        return fault(class_name, {k: v for k, v in config.items() if k not in keys}, timesteps)

    needed = [key for key in changed if without([key]) is None]
    if without(changed) is not None:
        return []  # the class itself
    return needed or [key for key in changed if without([each for each in changed if each != key])]


def scheduler_defaults(class_name: str) -> dict[str, Any]:
    """The configuration of a scheduler class that is given nothing."""
    return dict(getattr(diffusers, class_name)().config)


def fault(class_name: str, config: Mapping[str, Any], timesteps: Mapping[str, Any] | int) -> str | None:
    """What is wrong with the steps, or None."""
    given = timesteps if isinstance(timesteps, int) else dict(timesteps)
    try:
        return stepping_fault(make_scheduler(class_name, dict(config), given))
    except Exception as error:  # whatever a class has to say to its configuration
        return f"cannot be stepped ({first_line(error)})"
