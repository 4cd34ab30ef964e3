"""Two transformers of one class and configuration as one view: one expert above a noise level, one below (Wan 2.2)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from pipefusion.core.attention import Attend
from pipefusion.core.conditioning import Conditioning
from pipefusion.core.dit import KV, DiT, Given, PerExpert, Shard, TensorPlan, Tokens
from pipefusion.core.grid import Band
from pipefusion.core.shape import DiTShape

NAMES = ("transformer", "transformer_2")
"""What a pipeline calls the experts, that of high noise first; names of parameters begin with them."""


class AtExpert(NamedTuple):
    """A timestep's modulation, and whose it is."""

    expert: int
    inner: Any


class TwoExperts:
    """A `DiT` that holds the same part of both. Ends and blocks are those of the expert whose modulation they get."""

    def __init__(self, first: DiT, second: DiT):
        self.both = (first, second)
        self.model = nn.ModuleDict(dict(zip(NAMES, (first.model, second.model), strict=True)))

    @property
    def shape(self) -> DiTShape:
        return self.both[0].shape

    @property
    def dtype(self) -> torch.dtype:
        return self.both[0].dtype

    @property
    def device(self) -> torch.device:
        return self.both[0].device

    @property
    def layers(self) -> range:
        return self.both[0].layers

    @property
    def shards(self) -> dict[str, Shard]:
        return {f"{name}.{key}": shard for name, one in self._named() for key, shard in one.shards.items()}

    def transformers(self) -> tuple[DiT, ...]:
        return self.both

    def _named(self) -> Iterator[tuple[str, DiT]]:
        return zip(NAMES, self.both, strict=True)

    def clone(self) -> TwoExperts:
        return TwoExperts(*(one.clone() for one in self.both))

    def cut(self, axis: str) -> None:
        for one in self.both:
            one.cut(axis)

    def keep(self, layers: range, *, embed: bool, unembed: bool) -> None:
        for one in self.both:
            one.keep(layers, embed=embed, unembed=unembed)

    def load(self, tensors: Callable[..., Tensor], device: torch.device) -> None:
        for name, one in self._named():
            one.load(within(tensors, name), device)

    def adopt(self, other: DiT) -> None:
        for one, theirs in zip(self.both, other.transformers(), strict=True):
            one.adopt(theirs)

    def block_name(self, layer: int) -> str:
        return f"{NAMES[0]}.{self.both[0].block_name(layer)}"

    def tensor_plan(self, layer: int) -> TensorPlan:
        return self.both[0].tensor_plan(layer)

    def parameter_part(self, name: str) -> str:
        return self.both[0].parameter_part(name.partition(".")[2])

    def parameter_label(self, name: str) -> str:
        return self.both[0].parameter_label(name.partition(".")[2])

    def text(self, cond: Conditioning) -> PerExpert:
        return PerExpert((self.both[0].text(cond), self.both[1].text(cond)))

    def cross(self, text: PerExpert) -> Mapping[int, KV]:
        """Of the second expert's layers behind those of all layers."""
        return {
            index * self.shape.layers + layer: kv
            for index, one in enumerate(self.both)
            for layer, kv in one.cross(text.texts[index]).items()
        }

    def modulation(self, timestep: Tensor, text: PerExpert, batch: int) -> AtExpert:
        one = self.both[text.expert]
        return AtExpert(text.expert, one.modulation(timestep, text.texts[text.expert], batch))

    def positions(self, rows: Band, prompt: range) -> Any:
        return self.both[0].positions(rows, prompt)

    def embed(self, latent: Tensor, rows: Band, text: PerExpert, modulation: AtExpert) -> Tokens:
        index, inner = modulation
        return self.both[index].embed(latent, rows, text.texts[index], inner)

    @property
    def teacache(self) -> tuple[float, ...]:
        return self.both[0].teacache

    def modulated(self, tokens: Tokens, given: Given) -> Tensor:
        index, inner = given.modulation
        return self.both[index].modulated(tokens, given._replace(modulation=inner))

    def block(
        self, layer: int, tokens: Tokens, given: Given, attend: Attend, skip: Tensor | None = None
    ) -> Tokens:
        index, inner = given.modulation
        kv = given.cross.get(index * self.shape.layers + layer)
        cross = {} if kv is None else {layer: kv}
        own = given._replace(text=given.text.texts[index], modulation=inner, cross=cross)
        return self.both[index].block(layer, tokens, own, attend, skip)

    def unembed(self, image: Tensor, modulation: AtExpert, rows: Band) -> Tensor:
        index, inner = modulation
        return self.both[index].unembed(image, inner, rows)


def within(tensors: Callable[..., Tensor], part: str) -> Callable[..., Tensor]:
    """Tensors by their names in a part of what `tensors` has."""
    return lambda name, *args, **kwargs: tensors(f"{part}.{name}", *args, **kwargs)


def apart(first: Callable[..., Tensor], second: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """What `TwoExperts.load` reads, of the tensors of each expert."""
    parts = dict(zip(NAMES, (first, second), strict=True))

    def tensors(name: str, *args: Any, **kwargs: Any) -> Tensor:
        part, _, rest = name.partition(".")
        return parts[part](rest, *args, **kwargs)

    return tensors
