"""Ranks on a grid with named axes.

A method names the axis it communicates on and never sees a global rank, so that a product of degrees (guidance groups x
pipeline stages x Ulysses x ring) is another mesh and not another method.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod


@dataclass(frozen=True)
class Axis:
    """This rank's place on one axis: `index` of `size`, and the global `ranks` along the axis in order."""

    name: str
    index: int
    ranks: tuple[int, ...]

    @property
    def size(self) -> int:
        return len(self.ranks)


@dataclass(frozen=True)
class Mesh:
    """Sizes of the named axes, outermost first; ranks are laid out in row-major order."""

    axes: dict[str, int]

    def __post_init__(self) -> None:
        for name, size in self.axes.items():
            if size < 1:
                raise ValueError(f"mesh axis {name} has size {size}; it needs at least 1")

    @property
    def size(self) -> int:
        return prod(self.axes.values())

    def name(self, rank: int) -> str:
        """`rank 5 (cfg 1, pipe 2)`: the rank and, of several axes, its place on each."""
        places = [f"{axis} {self.axis(axis, rank).index}" for axis in self.axes]
        return f"rank {rank} ({', '.join(places)})" if len(places) > 1 else f"rank {rank}"

    def axis(self, name: str, rank: int) -> Axis:
        """The axis `name` as seen from global `rank`; an axis that the mesh does not have is this rank alone."""
        if name not in self.axes:
            return Axis(name, 0, (rank,))
        names = list(self.axes)
        stride = prod(self.axes[after] for after in names[names.index(name) + 1 :])
        index = rank // stride % self.axes[name]
        first = rank - index * stride
        return Axis(name, index, tuple(first + i * stride for i in range(self.axes[name])))
