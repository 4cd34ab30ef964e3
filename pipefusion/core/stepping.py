"""Whether a scheduler can be stepped patch by patch: found by stepping it, not by the names of its options.

Each patch has a scheduler of its own, so a step has to be deterministic, and has to do to a band of rows what it does
to these rows of the whole latent. A small random latent is stepped through the run's schedule whole, again, and in
two halves; the values differ from row to row, as what looks at all of them would show.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pipefusion.core.sampler import PatchSchedulers

SIZE = 1, 4, 8, 4
LOUDNESS = torch.logspace(-4, 1, SIZE[2])[:, None]
"""Standard deviation by row: some rows are within any range that a scheduler may hold its samples to, some are not."""
ROUNDING = 1e-5


def stepping_fault(scheduler: Any) -> str | None:
    """What is wrong with the steps of a scheduler whose timesteps are set, or None. It is not changed.

    Raises whatever the scheduler raises when it is stepped.
    """
    whole, again, halves = (stepped(scheduler, bands, seed) for bands, seed in ((1, 0), (1, 1), (2, 0)))
    if not all(bool(latent.isfinite().all()) for latent in (whole, again, halves)):
        return "makes latents that are not finite"
    rounding = ROUNDING * whole.abs().max()
    if (again - whole).abs().max() > rounding:
        return "draws noise in its steps, which patches would draw apart"
    if (halves - whole).abs().max() > rounding:
        return "steps a part of the latent otherwise than the whole, so that patches would differ"
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
