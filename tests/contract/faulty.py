"""Fabrics with a bug between them and the method, each of which an order of events gives away."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pipefusion.core.fabric import Work
from pipefusion.core.ledger import Kind
from pipefusion.sim.fabric import SimFabric


class Faulty:
    """A fabric with a bug between it and the method; everything not overridden is the fabric's own."""

    def __init__(self, fabric: SimFabric):
        self._fabric = fabric

    def __getattr__(self, name: str) -> Any:
        return getattr(self._fabric, name)


class NoWait:
    def wait(self) -> None:
        return None


class ForgetsToWaitForReceives(Faulty):
    def irecv(self, out: Tensor, source: int, **where: Any) -> Work:
        self._fabric.irecv(out, source, **where)
        return NoWait()


class ForgetsToWaitForGathers(Faulty):
    def all_gather(self, out: Tensor, tensor: Tensor, **where: Any) -> Work | None:
        work = self._fabric.all_gather(out, tensor, **where)
        return NoWait() if where.get("async_op") else work


class SwapsReceives(Faulty):
    """Every second message goes where the one before it should have gone."""

    held: tuple[Tensor, Any] | None = None

    def irecv(self, out: Tensor, source: int, **where: Any) -> Work:
        before, self.held = self.held, None if self.held else (out, where["at"])
        if before is not None and before[0].shape == out.shape:
            where["at"] = before[1]
        return self._fabric.irecv(out, source, **where)


class AliasesKV(Faulty):
    """All layers share one K, V buffer."""

    shared: Tensor | None = None

    def zeros(self, kind: Kind, *shape: int, dtype: torch.dtype) -> Tensor:
        if kind != "kv":
            return self._fabric.zeros(kind, *shape, dtype=dtype)
        if self.shared is None:
            self.shared = self._fabric.zeros(kind, *shape, dtype=dtype)
        return self.shared


class ReceivesIntoOneBuffer(Faulty):
    """The two alternating receive buffers are one, so the next input lands where the present one is read."""

    shared: Tensor | None = None

    def empty(self, kind: Kind, *shape: int, dtype: torch.dtype) -> Tensor:
        if kind != "comm":
            return self._fabric.empty(kind, *shape, dtype=dtype)
        if self.shared is None or self.shared.shape != shape:
            self.shared = self._fabric.empty(kind, *shape, dtype=dtype)
        return self.shared


class SendsWhatItGoesOnWriting(Faulty):
    """The tensor is changed between the send and the wait for it."""

    def isend(self, tensor: Tensor, to: int, **where: Any) -> Work:
        work = self._fabric.isend(tensor, to, **where)
        tensor.mul_(2)
        return work


class SkipsAGather(Faulty):
    """One rank leaves out one collective."""

    left = 5

    def all_gather(self, out: Tensor, tensor: Tensor, **where: Any) -> Work | None:
        self.left -= 1
        if self.left == 0 and self._fabric.rank == 1:
            return None
        return self._fabric.all_gather(out, tensor, **where)
