"""A method with N, M and W, and how it is run on simulated devices. Nothing here knows a method by name."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from experiments.methods import METHODS
from pipefusion.core.dit import Conditioning, DiT
from pipefusion.core.problem import Problem
from pipefusion.core.shape import DiTShape
from pipefusion.sim.network import TopologyConfig
from pipefusion.sim.world import World

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Setting:
    """`devices` N; `patches` M and `warmup` W are None where the method has no such key."""

    method: str
    devices: int = 1
    patches: int | None = None
    warmup: int | None = None

    def config(self) -> Any:
        """The method's own configuration, everything else as it comes."""
        given = {"patches": self.patches, "warmup": self.warmup}
        return METHODS[self.method].Config(
            **{key: value for key, value in given.items() if value is not None}
        )

    def problem(self, shape: DiTShape, steps: int) -> Problem | None:
        """What keeps it from running."""
        return METHODS[self.method].problem(shape, self.devices, steps, self.config())

    def attended(self, shape: DiTShape, step: int, rows: range) -> Sequence[int]:
        """The token rows that a job attends to, as the method declares them: all in a synchronous step."""
        if self.warmup is None or step < self.warmup:
            return range(shape.token_rows)
        return METHODS[self.method].attends(
            shape, METHODS[self.method].parallel(self.devices), self.config(), rows
        )

    def columns(self) -> dict[str, Any]:
        """The first columns of every row that is about it."""
        return {
            "method": self.method,
            "devices": self.devices,
            "patches": self.patches,
            "warmup": self.warmup,
        }


def settings_of(
    method: str, devices: Iterable[int], patches: Iterable[int], warmups: Iterable[int]
) -> list[Setting]:
    """Every N, M, W of a method, of those that it has."""
    has = METHODS[method].has
    return [
        Setting(method, n, m, w)
        for n in devices
        for m in (patches if has("patches") else [None])
        for w in (warmups if has("warmup") else [None])
    ]


def simulate(
    setting: Setting,
    view_of: Callable[[int], Any],
    scheduler_of: Callable[[int], Any],
    noise: Tensor,
    cond: Conditioning,
    tensors: Callable[..., Tensor] | None = None,
) -> Tensor:
    """Latents [B, C, H, W] of the method's own program on N simulated devices.

    `view_of(rank)` and `scheduler_of(rank)` are what each rank is built on, wrapped or not; without `tensors` no
    weights are loaded. To be called in inference mode. Raises `RankFailed` and `SimulationError`.
    """
    method = METHODS[setting.method]
    world = World(method.parallel(setting.devices).mesh(), CPU, TopologyConfig())
    samplers, schedulers = [], []
    for fabric in world.fabrics:
        dit: DiT = view_of(fabric.rank)
        samplers.append(method.build(dit, fabric, setting.config()))
        schedulers.append(scheduler_of(fabric.rank))
        if tensors is not None:
            dit.load(tensors, CPU)
    latents = world.run(lambda fabric: samplers[fabric.rank](noise, cond, schedulers[fabric.rank]))[0]
    assert isinstance(latents, Tensor)
    return latents
