"""Schedulers, stepped patch by patch."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor

from pipefusion.core.shape import Experts


class NonFinite(FloatingPointError):
    """The latents stopped being finite: names rank and step."""


def scheduler_tensors(scheduler: Any) -> list[Tensor]:
    """The tables of a scheduler (timesteps, sigmas, alphas): constant while it is stepped."""
    return [value for value in vars(scheduler).values() if isinstance(value, Tensor)]


def timesteps_on(device: torch.device, scheduler: Any) -> Tensor:
    """The timesteps for the model, copied once an image: a copy in each step would make the host wait for the device.

    The scheduler's own tables stay with the host, where it reads them.
    """
    return scheduler.timesteps.to(device, copy=True)


def experts_by_step(experts: Experts | None, scheduler: Any) -> list[int]:
    """Which of two experts predicts in each step: the first where the timestep is the boundary's or more.

    Worked out before an image, since the timesteps of the steps are the device's.
    """
    times = scheduler.timesteps.tolist()
    if experts is None:
        return [0] * len(times)
    boundary = experts.boundary * scheduler.config.num_train_timesteps
    return [int(time < boundary) for time in times]


class PatchSchedulers:
    """One scheduler per patch, because multistep solvers keep the history of what they have stepped.

    All start from the same timesteps; each is stepped once per step with its own patch, which for an elementwise update
    equals stepping the whole image.
    """

    def __init__(self, scheduler: Any, patches: int):
        self.timesteps: Tensor = scheduler.timesteps
        shared = {id(table): table for table in scheduler_tensors(scheduler)}  # histories apart, tables once
        self._schedulers = [copy.deepcopy(scheduler, dict(shared)) for _ in range(patches)]

    def step(self, patch: int, step: int, prediction: Tensor, latent: Tensor) -> Tensor:
        """The latent of a patch [B, C, h, W] after step number `step`, in float32."""
        scheduler = self._schedulers[patch]
        return scheduler.step(prediction.float(), self.timesteps[step], latent, return_dict=False)[0]


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
