"""Whether a scheduler can be stepped patch by patch: found by stepping it, not by the names of its options.

Each patch has a scheduler of its own, so a step has to be deterministic, and has to do to a band of rows what it does
to these rows of the whole latent. A small random latent is stepped through the run's schedule whole, again, and in
two halves; the values differ from row to row, as what looks at all of them would show.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from experiments.difference import NotFinite, largest_difference
from experiments.errors import first_line
from pipefusion.core.sampler import SCHEDULERS, PatchSchedulers, make_scheduler

SIZE = 1, 4, 8, 4
LOUDNESS = torch.logspace(-4, 1, SIZE[2])[:, None]
"""Standard deviation by row: some rows are within any range that a scheduler may hold its samples to, some are not."""
ROUNDING = 1e-5


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
    defaults = defaults_of(class_name)
    changed = [key for key, value in config.items() if key in defaults and value != defaults[key]]

    def without(keys: list[str]) -> str | None:
        return fault(class_name, {k: v for k, v in config.items() if k not in keys}, timesteps)

    needed = [key for key in changed if without([key]) is None]
    if without(changed) is not None:
        return []  # the class itself
    return needed or [key for key in changed if without([each for each in changed if each != key])]


def defaults_of(class_name: str) -> dict[str, Any]:
    """The configuration of a scheduler class that is given nothing."""
    cls = next(cls for cls in SCHEDULERS.values() if cls.__name__ == class_name)
    return dict(cls().config)


def fault(class_name: str, config: Mapping[str, Any], timesteps: Mapping[str, Any] | int) -> str | None:
    """What is wrong with the steps, or None."""
    given = timesteps if isinstance(timesteps, int) else dict(timesteps)
    try:
        whole, again, halves = (
            stepped(make_scheduler(class_name, dict(config), given), bands, seed)
            for bands, seed in ((1, 0), (1, 1), (2, 0))
        )
    except Exception as error:  # whatever a class has to say to its configuration
        return f"cannot be stepped ({first_line(error)})"
    try:
        if largest_difference(again, whole) > ROUNDING:
            return "draws noise in its steps, which patches would draw apart"
        if largest_difference(halves, whole) > ROUNDING:
            return "steps a part of the latent otherwise than the whole, so that patches would differ"
    except NotFinite:
        return "makes latents that are not finite"
    return None


def stepped(scheduler: Any, bands: int, seed: int) -> Tensor:
    """The latent [1, C, h, w] after all steps in so many bands of rows; noise, if any is drawn, is that of the seed."""
    draw = torch.Generator().manual_seed(0)
    latents = [*(torch.randn(SIZE, generator=draw) * LOUDNESS).chunk(bands, dim=2)]
    stepper = PatchSchedulers(scheduler, bands)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for step in range(len(stepper.timesteps)):
            prediction = (torch.randn(SIZE, generator=draw) * LOUDNESS).chunk(bands, dim=2)
            for band, latent in enumerate(latents):
                latents[band] = stepper.step(band, step, prediction[band], latent)
    return torch.cat(latents, dim=2)
