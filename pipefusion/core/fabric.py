"""The only door to other ranks. A method imports this protocol, never `torch.distributed`, and reads no clock.

Names and blocking behaviour follow `torch.distributed`: `send`/`recv` block, `isend`/`irecv` return a `Work`, and a
collective blocks unless `async_op=True`. Peers are indices on the named axis, not global ranks. Both ends of a message,
and all ranks of a collective, name the same place `at`.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from pipefusion.core.ledger import Kind, Ledger, Where
from pipefusion.core.mesh import Axis


class Work(Protocol):
    """A communication under way. Its tensors may not be touched before `wait` has returned."""

    def wait(self) -> None: ...


class Fabric(Protocol):
    """Communication on named mesh axes, device buffers, and the ledger that counts both."""

    ledger: Ledger
    device: torch.device
    rank: int
    place: Where
    """What is being computed, as `begin` was given it: for modules that are not passed the job."""

    def axis(self, name: str) -> Axis:
        """This rank's place on a mesh axis."""
        ...

    def begin(self, at: Where) -> None:
        """What this rank computes from here on belongs to this step and patch (for the timeline)."""
        ...

    def zeros(self, kind: Kind, *shape: int, dtype: torch.dtype) -> Tensor:
        """A zeroed buffer on the rank's device, its bytes counted under `kind` (KV, patch or communication)."""
        ...

    def empty(self, kind: Kind, *shape: int, dtype: torch.dtype) -> Tensor:
        """As `zeros`, uninitialised."""
        ...

    def isend(self, tensor: Tensor, to: int, *, axis: str, at: Where, tag: int = 0) -> Work:
        """Messages between two ranks match in the order they are posted, for each tag."""
        ...

    def irecv(self, out: Tensor, source: int, *, axis: str, at: Where, tag: int = 0) -> Work: ...

    def send(self, tensor: Tensor, to: int, *, axis: str, at: Where) -> None: ...

    def recv(self, out: Tensor, source: int, *, axis: str, at: Where) -> None: ...

    def broadcast(
        self, tensor: Tensor, source: int, *, axis: str, at: Where, async_op: bool = False
    ) -> Work | None: ...

    def all_gather(
        self, out: Tensor, tensor: Tensor, *, axis: str, at: Where, async_op: bool = False
    ) -> Work | None:
        """`out` [n, *tensor.shape] receives every rank's `tensor` in axis order."""
        ...

    def all_to_all(
        self, out: Tensor, tensor: Tensor, *, axis: str, at: Where, async_op: bool = False
    ) -> Work | None:
        """Slice i of `tensor` [n, ...] goes to index i; slice j of `out` [n, ...] comes from index j."""
        ...

    def all_reduce(self, tensor: Tensor, *, axis: str, at: Where, async_op: bool = False) -> Work | None:
        """In-place sum over the axis."""
        ...
