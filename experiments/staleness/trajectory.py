"""The latent after every step, of any method, without changing it: a scheduler that remembers what it returned.

`PatchSchedulers` copies the scheduler once per patch, so copies are numbered as they are made, and each rank has a log.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from experiments.difference import norm_of_difference
from experiments.staleness.settings import Setting, simulate
from experiments.staleness.watch import WatchedView, Watcher
from pipefusion.core.dit import Conditioning, DiT

Log = list[list[Tensor]]
"""By patch, in the order the scheduler's copies were made, and by step: the band [B, C, h, W] that was returned."""


class LoggedScheduler:
    """A diffusers scheduler; its copies log what they return. For one image batch: `log` starts empty."""

    def __init__(self, inner: Any, log: Log):
        self.inner, self.log = inner, log
        self._mine: list[Tensor] = []

    def __getattr__(self, name: str) -> Any:
        if name == "inner":  # not there yet, while a copy is being made
            raise AttributeError(name)
        return getattr(self.inner, name)

    def __deepcopy__(self, memo: dict[int, Any]) -> LoggedScheduler:
        twin = LoggedScheduler(copy.deepcopy(self.inner, memo), self.log)
        self.log.append(twin._mine)
        return twin

    def step(self, *args: Any, **kwargs: Any) -> Any:
        """As the scheduler's, with `return_dict=False` as everywhere here."""
        result = self.inner.step(*args, **kwargs)
        self._mine.append(result[0].clone())  # a pipeline receives the next one into the same place
        return result


@dataclass(frozen=True)
class Trajectory:
    """`steps` [S, B, C, H, W]: the latent after every step; the last one is what the sampler returned."""

    noise: Tensor
    steps: Tensor

    @property
    def latents(self) -> Tensor:
        """After the last step, [B, C, H, W]."""
        return self.steps[-1]

    @property
    def inputs(self) -> Tensor:
        """What the model was given in every step, [S, B, C, H, W]."""
        return torch.cat([self.noise[None], self.steps[:-1]])


def trajectory(
    setting: Setting,
    template: DiT,
    tensors: Callable[..., Tensor],
    scheduler: Any,
    noise: Tensor,
    cond: Conditioning,
    watcher: Watcher | None = None,
) -> Trajectory:
    """Run a method on simulated devices and keep the latent after every step.

    `template` is a view on `meta`, of which each rank gets a clone; `tensors` what it loads; `scheduler` has its
    timesteps set; noise [B, C, H, W]. `watcher` sees all ranks' blocks and attentions. Raises what `simulate` does, and
    RuntimeError if the logged bands do not make up what the sampler returned.
    """
    logs: list[Log] = [[] for _ in range(setting.devices)]

    def view_of(rank: int) -> Any:
        view = template.clone()
        return view if watcher is None else WatchedView(view, scheduler.timesteps, rank, watcher)

    with torch.inference_mode():
        latents = simulate(
            setting, view_of, lambda rank: LoggedScheduler(scheduler, logs[rank]), noise, cond, tensors
        )
    steps = assembled(logs, noise.shape[2])
    if not torch.equal(steps[-1], latents):
        raise RuntimeError(f"{setting}: the latents of the last step are not those that were returned")
    return Trajectory(noise, steps)


def assembled(logs: list[Log], height: int) -> Tensor:
    """Bands of patches and ranks -> [S, B, C, H, W]: of the first rank that steps all rows, or of all in rank order.

    Raises RuntimeError if that is no whole picture.
    """

    def rows(patches: Log) -> int:
        return sum(bands[0].shape[2] for bands in patches)

    whole = next((log for log in logs if rows(log) == height), [patch for log in logs for patch in log])
    if rows(whole) != height or len({len(bands) for bands in whole}) != 1:
        raise RuntimeError(f"the schedulers stepped {rows(whole)} rows of {height}")
    return torch.stack([torch.cat(bands, dim=2) for bands in zip(*whole, strict=True)])


def relative_errors(got: Tensor, want: Tensor) -> Tensor:
    """||got - want|| / ||want|| of every step and picture: [S, B, C, H, W] twice -> [S, B]. Raises NotFinite."""
    return norm_of_difference(got, want, 2)
