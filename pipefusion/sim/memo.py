"""A view on a model whose blocks are run once on `meta` and replayed from then on, the method's own code excepted.

A block is a sequence of charges between the places where others see it: its calls of `attend`, which is the method's
code and runs every time, and collectives of modules that a method has put into it, which are communicated every time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from pipefusion.core.attention import Attend
from pipefusion.core.dit import Conditioning, DiT, DiTShape, Shard
from pipefusion.core.ledger import Where
from pipefusion.sim.cost import Segment
from pipefusion.sim.fabric import SimFabric
from pipefusion.sim.meta import key_of
from pipefusion.sim.meter import Meter


@dataclass(frozen=True)
class AtStep:
    """A timestep's modulation, and which step that is."""

    step: int
    inner: Any


@dataclass(frozen=True)
class Part:
    """A stretch of a block up to the next call: what it costs, and the bytes it adds at most and at its end.

    `call` is the name of the collective that follows, "attend", or "" at the end; `tensors` what it is called with;
    `returned` the kind of tensor that came back from `attend`.
    """

    segment: Segment
    rise_bytes: int
    kept_bytes: int
    call: str
    axis: str = ""
    tensors: tuple[Tensor, ...] = ()
    returned: Any = None


class MemoView:
    """`DiT` over a real view on `meta`. `memo` may be shared by all ranks and runs."""

    def __init__(self, view: DiT, fabric: SimFabric, meter: Meter, timesteps: Tensor, memo: dict[Any, Any]):
        self.view, self.fabric, self.meter, self.memo = view, fabric, meter, memo
        self._steps = {float(time): step for step, time in enumerate(timesteps)}
        self._signatures: dict[int, Any] = {}
        self._parts: list[Part] | None = None
        self._start_bytes = 0
        fabric.listener = self._heard

    @property
    def shape(self) -> DiTShape:
        return self.view.shape

    @property
    def model(self) -> nn.Module:
        return self.view.model

    @property
    def dtype(self) -> torch.dtype:
        return self.view.dtype

    @property
    def layers(self) -> range:
        return self.view.layers

    @property
    def shards(self) -> dict[str, Shard]:
        return self.view.shards

    def clone(self) -> DiT:
        raise NotImplementedError("clone the view before it is memoised")

    def keep(self, layers: range, *, embed: bool, unembed: bool) -> None:
        self.view.keep(layers, embed=embed, unembed=unembed)

    def load(self, tensors: Callable[[str, Shard | None], Tensor], device: torch.device) -> None:
        raise NotImplementedError("a memoised view never has data")

    def text(self, cond: Conditioning) -> Any:
        return self._once(("text", cond.branches, key_of((cond.embeds,))), lambda: self.view.text(cond))

    def modulation(self, timestep: Tensor, batch: int) -> AtStep:
        inner = self._once(("modulation", batch), lambda: self.view.modulation(timestep, batch))
        return AtStep(self._steps[float(timestep)], inner)

    def embed(self, latent: Tensor, rows: range) -> Tensor:
        return self._once(("embed", key_of(latent)), lambda: self.view.embed(latent, rows))

    def unembed(self, hidden: Tensor, modulation: AtStep, rows: range) -> Tensor:
        key = ("unembed", len(rows), key_of(hidden))
        return self._once(key, lambda: self.view.unembed(hidden, modulation.inner, rows))

    def block(self, layer: int, hidden: Tensor, modulation: AtStep, text: Any, attend: Attend) -> Tensor:
        # What follows `attend` depends on the layout of what it returns, and on whose memory that is.
        kind = getattr(attend, "__code__", attend)
        key = (self.meter.key, self.shape, self._signature(layer), key_of(hidden), kind)
        known = self.memo.get(key)
        if known is None:
            out, parts = self._record_block(layer, hidden, modulation, text, attend)
            if parts is not None:
                self.memo[key] = parts, (tuple(out.shape), out.stride(), out.dtype)
            return out
        return self._replay_block(known[0], known[1], layer, modulation.step, attend)

    def _record_block(
        self, layer: int, hidden: Tensor, modulation: AtStep, text: Any, attend: Attend
    ) -> tuple[Tensor, list[Part] | None]:
        self._parts = []

        def heard(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            self._end_part("attend", "", q, k, v)
            out = attend(layer, q, k, v)
            if self._parts is not None:
                self._parts[-1] = replace(self._parts[-1], returned=key_of(out))
            self._start_part()
            return out

        self._start_part()
        out = self.view.block(layer, hidden, modulation.inner, text, heard)
        self._end_part("", "")
        parts, self._parts = self._parts, None
        return out, parts

    def _start_part(self) -> None:
        self.meter.record()
        self._start_bytes = self.meter.live_bytes

    def _end_part(self, call: str, axis: str, *tensors: Tensor) -> None:
        meter, segment = self.meter, self.meter.stop()
        rise, kept = meter.mark_bytes - self._start_bytes, meter.live_bytes - self._start_bytes
        if self._parts is not None:
            self._parts.append(Part(segment, rise, kept, call, axis, uncounted(tensors)))

    def _heard(
        self, op: str, axis: str, tensors: tuple[Tensor, ...], is_async: bool
    ) -> Callable[[], None] | None:
        """The fabric is about to communicate; what to call when it has. Only inside a block that is being recorded."""
        if self.meter.recorded is None:
            return None  # the method's own, in `attend` or outside of blocks
        self._end_part(op, axis, *tensors)
        if is_async:
            self._parts = None  # its wait may be anywhere: such a block runs every time
        return self._start_part

    def _replay_block(self, parts: list[Part], made: Any, layer: int, step: int, attend: Attend) -> Tensor:
        meter, held, out = self.meter, 0, None
        for part in parts:
            meter.charge(part.segment)
            meter.touch_bytes(meter.live_bytes + part.rise_bytes)
            if not part.call:
                break
            held += part.kept_bytes
            meter.add_bytes(part.kept_bytes)
            if part.call == "attend":
                out = attend(layer, *part.tensors)
                if key_of(out) != part.returned:
                    raise TypeError(f"layer {layer}: attention returns {key_of(out)}, before {part.returned}")
            else:
                getattr(self.fabric, part.call)(*part.tensors, axis=part.axis, at=Where(step, layer))
        meter.add_bytes(-held)
        del out
        shape, stride, dtype = made
        return torch.empty_strided(shape, stride, dtype=dtype, device="meta")

    def _once(self, key: tuple[Any, ...], call: Callable[[], Any]) -> Any:
        """The result of `call`, which is the same for the same key: run once, later charged."""
        key = (self.meter.key, self.shape, self.view.dtype, *key)
        known = self.memo.get(key)
        if known is None:
            self._start_part()
            out = call()
            rise = self.meter.mark_bytes - self._start_bytes
            self.memo[key] = self.meter.stop(), rise, uncounted(out)
            return out
        segment, rise, out = known
        self.meter.charge(segment)
        self.meter.touch_bytes(self.meter.live_bytes + rise)
        return fresh(out)

    def _signature(self, layer: int) -> Any:
        """What makes two blocks cost the same: classes and parameter shapes of all their modules."""
        block = self.view.model.get_submodule(f"transformer_blocks.{layer}")
        if id(block) not in self._signatures:
            modules = tuple(
                (
                    name,
                    type(module),
                    tuple(None if p is None else (p.shape, p.dtype) for p in module._parameters.values()),
                )
                for name, module in block.named_modules()
            )
            self._signatures[id(block)] = hash(modules)
        return self._signatures[id(block)]


def uncounted(value: Any) -> Any:
    """As `fresh`, for the memo: tensors that are in no rank's memory."""
    with torch._C.DisableTorchFunction():
        return fresh(value)


def fresh(value: Any) -> Any:
    """The same structure with new tensors of the same kind."""
    if isinstance(value, Tensor):
        return torch.empty_strided(value.shape, value.stride(), dtype=value.dtype, device="meta")
    if isinstance(value, (tuple, list)):
        return type(value)(map(fresh, value))
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{field.name: fresh(getattr(value, field.name)) for field in fields(value)})
    return value
