"""A fabric that moves nothing: one rank's program runs alone, on `meta` for sizes without data or on a real device.

It serves the memory ledger. With nobody else there the lifetimes of tensors are the program's own, the same on every
run: a communication library drops its references at times of its choosing.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod

import torch
from torch import Tensor

from pipefusion.core.fabric import Work
from pipefusion.core.ledger import Kind, Ledger, Where
from pipefusion.core.mesh import Axis, Mesh


class Held:
    """A communication that is done, and keeps its tensors alive until it is waited for, as a real one does."""

    def __init__(self, *tensors: Tensor):
        self._tensors = tensors

    def wait(self) -> None:
        self._tensors = ()


class SilentFabric:
    """Rank `rank` of `mesh` with nobody else there: what would be received is zeros. Buffers are counted."""

    def __init__(self, mesh: Mesh, rank: int, device: torch.device):
        self.mesh, self.rank, self.device = mesh, rank, device
        self.ledger = Ledger()
        self.place = Where()
        self.watch: Callable[[Where], None] | None = None  # called with what is computed next

    def clear(self) -> None:
        """Start a new image: empty ledger."""
        self.ledger.clear()

    def axis(self, name: str) -> Axis:
        return self.mesh.axis(name, self.rank)

    def begin(self, at: Where) -> None:
        self.place = at
        if self.watch:
            self.watch(at)

    def empty(self, kind: Kind, *shape: int, dtype: torch.dtype) -> Tensor:
        self.ledger.buffer_bytes[kind] += prod(shape) * dtype.itemsize
        return torch.empty(shape, dtype=dtype, device=self.device)

    def zeros(self, kind: Kind, *shape: int, dtype: torch.dtype) -> Tensor:
        return self.empty(kind, *shape, dtype=dtype).zero_()

    def isend(self, tensor: Tensor, to: int, *, axis: str, at: Where, tag: int = 0) -> Work:
        return Held(tensor)

    def irecv(self, out: Tensor, source: int, *, axis: str, at: Where, tag: int = 0) -> Work:
        return Held(out.zero_())

    def send(self, tensor: Tensor, to: int, *, axis: str, at: Where) -> None:
        return None

    def recv(self, out: Tensor, source: int, *, axis: str, at: Where) -> None:
        out.zero_()

    def broadcast(
        self, tensor: Tensor, source: int, *, axis: str, at: Where, async_op: bool = False
    ) -> Work | None:
        return Held(tensor) if async_op else None

    def all_gather(
        self, out: Tensor, tensor: Tensor, *, axis: str, at: Where, async_op: bool = False
    ) -> Work | None:
        out.zero_()
        return Held(out, tensor) if async_op else None

    def all_to_all(
        self, out: Tensor, tensor: Tensor, *, axis: str, at: Where, async_op: bool = False
    ) -> Work | None:
        out.zero_()
        return Held(out, tensor) if async_op else None

    def all_reduce(self, tensor: Tensor, *, axis: str, at: Where, async_op: bool = False) -> Work | None:
        return Held(tensor) if async_op else None
