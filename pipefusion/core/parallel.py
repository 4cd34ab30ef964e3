"""Degrees of parallelism: how many ranks share each axis, their product, and the mesh they make (outermost first)."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from math import prod

from pipefusion.core.domain import Devices
from pipefusion.core.mesh import Mesh
from pipefusion.core.problem import Problem


@dataclass
class Parallel:
    """A degree per axis; the last axis varies fastest over the ranks.

    Args:
        data: images of a request.
        step: the steps of a round (`parastep`).
        cfg: branches of classifier-free guidance, 1 or 2.
        pipe: stages of layers.
        patch: token rows for all layers, displaced (`distrifusion`, `naive_patch`, `pcpp`).
        ring, ulysses: tokens of a job.
        tensor: heads and MLP columns.

    Example:
        >>> Parallel(cfg=2, pipe=2).world
        4
    """

    data: Devices = 1
    step: Devices = 1
    cfg: Devices = 1
    pipe: Devices = 1
    patch: Devices = 1
    ring: Devices = 1
    ulysses: Devices = 1
    tensor: Devices = 1

    @property
    def world(self) -> int:
        """Ranks in all."""
        return prod(vars(self).values())

    @property
    def lanes(self) -> int:
        """Ranks that share the tokens of one job."""
        return self.ring * self.ulysses

    @property
    def axes(self) -> dict[str, int]:
        """The axes that more than one rank shares."""
        return {axis: degree for axis, degree in vars(self).items() if degree > 1}

    def mesh(self) -> Mesh:
        """The ranks as a grid."""
        return Mesh(self.axes or {"pipe": 1})

    def __str__(self) -> str:
        """`cfg 2 x pipe 4`; `1 device` where nothing is shared."""
        return " x ".join(f"{axis} {degree}" for axis, degree in self.axes.items()) or "1 device"


AXES = tuple(field.name for field in fields(Parallel))


def degrees(own: str | None, given: Parallel, devices: int) -> Parallel | Problem:
    """All degrees of `devices` ranks: the axis `own` of a method has what the other axes leave of them."""
    if own is None:
        if given.world == devices:
            return given
        return Problem("devices", f"{devices} is not the product of {given}; allowed: devices={given.world}")
    others = given.world // getattr(given, own)
    if devices % others:
        product = replace(given, **{own: 1})
        return Problem("devices", f"{devices} cannot hold {product}; allowed: multiples of {others}")
    left = devices // others
    if getattr(given, own) not in (1, left):
        return Problem(
            f"parallel.{own}", f"{getattr(given, own)} is not what devices={devices} leaves; allowed: {left}"
        )
    return replace(given, **{own: left})
