"""The denoising loop: guidance, the scheduler on a band, and the plain loop that most methods share."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler, FlowMatchEulerDiscreteScheduler
from torch import Tensor

from pipefusion.core.attention import Attend
from pipefusion.core.dit import Conditioning, DiT, Given, KeptSkips, run_blocks
from pipefusion.core.fabric import Fabric
from pipefusion.core.ledger import Where

SCHEDULERS = {
    "dpmsolver++": DPMSolverMultistepScheduler,
    "ddim": DDIMScheduler,
    "flow_euler": FlowMatchEulerDiscreteScheduler,
}


class NonFinite(FloatingPointError):
    """The latents stopped being finite: names rank and step."""


def make_scheduler(class_name: str, config: dict[str, Any], timesteps: dict[str, Any] | int) -> Any:
    """A diffusers scheduler of the given class name with its timesteps set. Raises KeyError if unknown.

    `timesteps` are the arguments of its `set_timesteps`, or simply how many there are.
    """
    classes = {cls.__name__: cls for cls in SCHEDULERS.values()}
    scheduler = classes[class_name].from_config(config)
    scheduler.set_timesteps(
        **({"num_inference_steps": timesteps} if isinstance(timesteps, int) else timesteps)
    )
    return scheduler


def scheduler_tensors(scheduler: Any) -> list[Tensor]:
    """The tables of a scheduler (timesteps, sigmas, alphas): constant while it is stepped."""
    return [value for value in vars(scheduler).values() if isinstance(value, Tensor)]


def timesteps_on(device: torch.device, scheduler: Any) -> Tensor:
    """The timesteps for the model, copied once an image: a copy in each step would make the host wait for the device.

    The scheduler's own tables stay with the host, where it reads them.
    """
    return scheduler.timesteps.to(device, copy=True)


class BandSchedulers:
    """One scheduler per patch, because multistep solvers keep the history of what they have stepped.

    All start from the same timesteps; each is stepped once a step with its own band, which for an elementwise update
    equals stepping the whole image.
    """

    def __init__(self, scheduler: Any, bands: int):
        self.timesteps: Tensor = scheduler.timesteps
        shared = {id(table): table for table in scheduler_tensors(scheduler)}  # histories apart, tables once
        self._schedulers = [copy.deepcopy(scheduler, dict(shared)) for _ in range(bands)]

    def step(self, band: int, step: int, prediction: Tensor, latent: Tensor) -> Tensor:
        """The latent of a band [B, C, h, W] after step number `step`, in float32."""
        scheduler = self._schedulers[band]
        return scheduler.step(prediction.float(), self.timesteps[step], latent, return_dict=False)[0]


def branches(latent: Tensor, cond: Conditioning) -> Tensor:
    """The latent once per guidance branch: [B, ...] -> [branches*B, ...]."""
    return torch.cat([latent] * cond.branches) if cond.guided else latent


def guide(prediction: Tensor, cond: Conditioning) -> Tensor:
    """Classifier-free guidance: [branches*B, ...] -> [B, ...], unconditional branch first."""
    if not cond.guided:
        return prediction
    negative, positive = prediction.chunk(2)
    return negative + cond.guidance_scale * (positive - negative)


class Finite:
    """Whether latents stay finite: noted step by step on their device, and read once at the end of an image.

    To read is to make the host wait for the device, which in a pipeline would drain the stage. A note costs one
    reduction over a latent, the smallest tensor of a step.
    """

    def __init__(self, steps: int, device: torch.device):
        self._data = device.type != "meta"
        self._bad = torch.empty(steps, dtype=torch.bool, device=device)
        if self._data:
            self._bad.zero_()

    def note(self, step: int, latent: Tensor) -> None:
        """Note whether the latent is finite after this step."""
        if self._data:
            self._bad[step].logical_or_(latent.isfinite().all().logical_not_())

    def require(self, rank: int) -> None:
        """Raises `NonFinite` naming rank and the first step."""
        bad = self._bad.tolist() if self._data else []
        if any(bad):
            raise NonFinite(f"latents not finite: rank {rank}, step {bad.index(True)}")


def denoise_band(
    dit: DiT,
    fabric: Fabric,
    scheduler: Any,
    noise: Tensor,
    cond: Conditioning,
    rows: range,
    attend_at: Callable[[int], Attend],
    rank: int = 0,
) -> Tensor:
    """Denoise a band of token rows with all layers on this rank; returns the band's final latent [B, C, h, W].

    `attend_at(step)` gives what the self-attention sites do in that step: all communication is in there. Everything
    else in a DiT works token by token, so a band needs nothing more.
    """
    part = noise[:, :, dit.shape.band_latent(rows)]
    latent = fabric.empty("buffer", *part.shape, dtype=torch.float32).copy_(part)
    stepper = BandSchedulers(scheduler, 1)
    text, positions = dit.text(cond), dit.positions(rows)
    batch = latent.shape[0] * cond.branches
    timesteps, finite = timesteps_on(fabric.device, scheduler), Finite(len(stepper.timesteps), fabric.device)
    for step, timestep in enumerate(timesteps):
        fabric.begin(Where(step))
        attend = attend_at(step)
        modulation = dit.modulation(timestep, text, batch)
        tokens = dit.embed(branches(latent, cond), rows, text)
        tokens = run_blocks(dit, tokens, Given(text, modulation, positions), attend, KeptSkips(dit.shape))
        prediction = guide(dit.unembed(tokens.image, modulation, rows), cond)
        latent = stepper.step(0, step, prediction, latent)
        finite.note(step, latent)
    finite.require(rank)
    return latent


def gather_bands(fabric: Fabric, band: Tensor, axis: str, steps: int) -> Tensor:
    """The final latents of equal bands, put together in axis order: [B, C, h, W] -> [B, C, n*h, W]."""
    n = fabric.axis(axis).size
    if n == 1:
        return band
    out = fabric.empty("comm", n, *band.shape, dtype=band.dtype)
    fabric.all_gather(out, band.contiguous(), axis=axis, at=Where(step=steps))
    return out.permute(1, 2, 0, 3, 4).flatten(2, 3)
