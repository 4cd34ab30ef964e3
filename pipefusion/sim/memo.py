"""A view on a model whose blocks are run once on `meta` and replayed from then on, the method's own code excepted.

A block is a sequence of charges between the places where others see it: its calls of `attend` and `convolve`, which
are the method's code and run every time, and collectives of modules that a method has put into it, which are
communicated every time.
In steady steps, which all do the same, a block is repeated with its attention.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from pipefusion.core.attention import Attend
from pipefusion.core.conditioning import Conditioning
from pipefusion.core.convolution import Convolve
from pipefusion.core.dit import KV, DiT, Given, Shard, TensorPlan, Tokens
from pipefusion.core.shape import DiTShape
from pipefusion.sim.meta import memo_key
from pipefusion.sim.meter import Meter
from pipefusion.sim.mold import Mold, tensors_in, uncounted
from pipefusion.sim.part import AtStep, Part, call_again, function_kind
from pipefusion.sim.repeat import Repeat
from pipefusion.sim.script import Recorder


class MemoView:
    """`DiT` over a real view on `meta`. `memo` may be shared by all ranks and runs."""

    def __init__(
        self,
        view: DiT,
        fabric: Recorder,
        meter: Meter,
        memo: dict[Any, Any],
        steady: range = range(0),
    ):
        self.view, self.fabric, self.meter, self.memo, self.steady = view, fabric, meter, memo, steady
        self._repeats: dict[tuple[int, int, int], Repeat | None] = {}
        self._signatures: dict[int, Any] = {}
        self._attend: Attend | None = None
        self._kind: Any = None
        self._sizes = repr((view.shape, view.dtype))  # a text keeps its hash, which a shape would not
        self._ends: tuple[Any, ...] = (True, True)
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
    def device(self) -> torch.device:
        return self.view.device

    @property
    def layers(self) -> range:
        return self.view.layers

    @property
    def teacache(self) -> tuple[float, ...]:
        return self.view.teacache

    @property
    def shards(self) -> dict[str, Shard]:
        return self.view.shards

    def block_name(self, layer: int) -> str:
        return self.view.block_name(layer)

    def tensor_plan(self, layer: int) -> TensorPlan:
        return self.view.tensor_plan(layer)

    def parameter_part(self, name: str) -> str:
        return self.view.parameter_part(name)

    def parameter_label(self, name: str) -> str:
        return self.view.parameter_label(name)

    def transformers(self) -> tuple[DiT, ...]:
        return self.view.transformers()

    def clone(self) -> DiT:
        raise NotImplementedError("clone the view before it is memoised")

    def cut(self, axis: str) -> None:
        self.view.cut(axis)
        self._sizes = repr((self.view.shape, self.view.dtype))

    def keep(self, layers: range, *, embed: bool, unembed: bool) -> None:
        self.view.keep(layers, embed=embed, unembed=unembed)
        self._ends = (embed, unembed, layers)

    def load(self, tensors: Callable[[str, Shard | None], Tensor], device: torch.device) -> None:
        raise NotImplementedError("a memoised view never has data")

    def adopt(self, other: DiT) -> None:
        raise NotImplementedError("a memoised view never has data")

    def text(self, cond: Conditioning) -> Any:
        key = ("text", self._ends, cond.branches, memo_key(tuple(cond.tensors)))
        return self._once(key, lambda: self.view.text(cond))

    def cross(self, text: Any) -> Mapping[int, KV]:
        return self.view.cross(text)  # once an image

    def modulation(self, timestep: Tensor, text: Any, batch: int) -> AtStep:
        key = ("modulation", self._ends, batch)
        inner = self._once(key, lambda: self.view.modulation(timestep, text, batch))
        return AtStep(self.fabric.place.step, inner)

    def positions(self, rows: range, prompt: range) -> Any:
        return self._once(("positions", len(rows), len(prompt)), lambda: self.view.positions(rows, prompt))

    def embed(self, latent: Tensor, rows: range, text: Any, modulation: AtStep) -> Tokens:
        key = ("embed", memo_key(latent))
        return self._once(key, lambda: self.view.embed(latent, rows, text, modulation.inner))

    def unembed(self, image: Tensor, modulation: AtStep, rows: range) -> Tensor:
        key = ("unembed", len(rows), memo_key(image))
        return self._once(key, lambda: self.view.unembed(image, modulation.inner, rows))

    def modulated(self, tokens: Tokens, given: Given) -> Tensor:
        key, given = ("modulated", memo_key(tokens)), given._replace(modulation=given.modulation.inner)
        return self._once(key, lambda: self.view.modulated(tokens, given))

    def block(
        self, layer: int, tokens: Tokens, given: Given, attend: Attend, skip: Tensor | None = None
    ) -> Tokens:
        at = self.fabric.place
        key = layer, at.patch, at.micro
        if at.step not in self.steady or self._repeats.get(key, self) is None:
            return self._block(layer, tokens, given, attend, skip)
        known = self._repeats.get(key)
        if known is not None:
            return known.again(tokens, at.step)
        known = Repeat(self.fabric, self.meter)
        out = self._block(layer, tokens, given, attend, skip)
        self._repeats[key] = known if known.end(tokens, out) else None
        return out

    def _block(self, layer: int, tokens: Tokens, given: Given, attend: Attend, skip: Tensor | None) -> Tokens:
        # What follows `attend` depends on the layout of what it returns, and on whose memory that is.
        if attend is not self._attend:  # one for all layers of a job
            self._attend, self._kind = attend, (function_kind(attend), function_kind(given.convolve))
        sizes = memo_key(tokens), memo_key(skip), self.shape.own_prefix(layer, given.prompt)
        key = (self.meter.key, self._sizes, self._signature(layer), sizes, self._kind)
        known = self.memo.get(key)
        at = given.modulation
        if known is None:
            given = given._replace(modulation=at.inner)
            out, parts = self._record_block(layer, tokens, given, attend, skip)
            if parts is not None:
                passed_by = out.text is tokens.text  # no new memory
                self.memo[key] = parts, Mold(out._replace(text=None) if passed_by else out), passed_by
            return out
        parts, mold, passed_by = known
        out = self._replay_block(parts, mold, layer, attend, given.convolve)
        return out._replace(text=tokens.text) if passed_by else out

    def _record_block(
        self, layer: int, tokens: Tokens, given: Given, attend: Attend, skip: Tensor | None
    ) -> tuple[Tokens, list[Part] | None]:
        self._parts = []

        def returned(out: Tensor) -> Tensor:
            """What the method gave back."""
            if self._parts is not None:
                self._parts[-1] = replace(self._parts[-1], returned=memo_key(out))
            self._start_part()
            return out

        def heard(layer: int, q: Tensor, k: Tensor, v: Tensor, prefix: int = 0) -> Tensor:
            self._end_part("attend", "", q, k, v, besides=prefix)
            return returned(attend(layer, q, k, v, prefix))

        def convolve(layer: int, conv: Callable[[Tensor], Tensor], rows: Tensor) -> Tensor:
            self._end_part("convolve", "", rows, besides=conv)
            return returned(given.convolve(layer, conv, rows))

        self._start_part()
        out = self.view.block(layer, tokens, given._replace(convolve=convolve), heard, skip)
        self._end_part("", "")
        parts, self._parts = self._parts, None
        return out, parts

    def _start_part(self) -> None:
        self.meter.record()
        self._start_bytes = self.meter.live_bytes

    def _end_part(self, call: str, axis: str, *tensors: Tensor, besides: Any = None) -> None:
        meter, segment = self.meter, self.meter.stop()
        rise, kept = meter.mark_bytes - self._start_bytes, meter.live_bytes - self._start_bytes
        if self._parts is not None:
            self._parts.append(Part(segment, rise, kept, call, axis, uncounted(tensors), besides))

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

    def _replay_block(
        self, parts: list[Part], mold: Mold, layer: int, attend: Attend, convolve: Convolve
    ) -> Tokens:
        meter, held, made = self.meter, 0, []  # parts count what they free of it
        for part in parts:
            meter.charge(part.segment)
            meter.touch_bytes(meter.live_bytes + part.rise_bytes)
            if not part.call:
                break
            held += part.kept_bytes
            meter.add_bytes(part.kept_bytes)
            if part.call in ("attend", "convolve"):
                if part.call == "attend":
                    q, k, v = part.tensors
                    made.append(attend(layer, q, k, v, part.besides))
                else:
                    made.append(convolve(layer, part.besides, *part.tensors))
                if memo_key(made[-1]) != part.returned:
                    raise TypeError(
                        f"layer {layer}: {part.call} returns {memo_key(made[-1])}, before {part.returned}"
                    )
            else:
                at = self.fabric.place._replace(layer=layer)
                getattr(self.fabric, part.call)(*part.tensors, axis=part.axis, at=at)
        meter.add_bytes(-held)
        del made
        return mold.make()

    def _once(self, key: tuple[Any, ...], call: Callable[[], Any]) -> Any:
        """The result of `call`, which is the same for the same key: run once, later charged.

        Not if it passes on tensors that were there before, which are no new memory: such a call is run every time.
        """
        key = (self.meter.key, self._sizes, *key)
        known = self.memo.get(key)
        if known is None:
            before = self.meter.storages()
            self._start_part()
            out = call()
            rise = self.meter.mark_bytes - self._start_bytes
            segment = self.meter.stop()
            new = all(tensor.untyped_storage()._cdata not in before for tensor in tensors_in(out))
            self.memo[key] = (segment, rise, Mold(out)) if new else call_again
            return out
        if known is call_again:
            self.meter.record()
            out = call()
            self.meter.stop()
            return out
        segment, rise, mold = known
        self.meter.charge(segment)
        self.meter.touch_bytes(self.meter.live_bytes + rise)
        return mold.make()

    def _signature(self, layer: int) -> Any:
        """What makes two blocks cost the same: classes and parameter shapes of all their modules."""
        block = self.view.model.get_submodule(self.view.block_name(layer))
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
