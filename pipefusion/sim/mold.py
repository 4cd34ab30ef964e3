"""New tensors of the same kind as those of a nested value: what a memo keeps in their place."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass
from typing import Any

import torch
from torch import Tensor


def uncounted(value: Any) -> Any:
    """The same structure with tensors that are in no rank's memory, for the memo."""
    mold = Mold(value)
    with torch._C.DisableTorchFunction():  # does not nest
        return mold.make()


class Mold:
    """Makes new tensors of the same kind as those of a nested value; views of one storage stay views of one."""

    def __init__(self, value: Any):
        with torch._C.DisableTorchFunction():
            self._bases: list[tuple[int, torch.dtype]] = []
            self._places: dict[int, int] = {}
            self._spec = self._look(value)

    @property
    def nbytes(self) -> int:
        """Bytes of a new value."""
        return sum(size * dtype.itemsize for size, dtype in self._bases)

    def make(self) -> Any:
        """A new value."""
        bases = [torch.empty(size, dtype=dtype, device="meta") for size, dtype in self._bases]
        return self._spec(bases)

    def _look(self, value: Any) -> Callable[[list[Tensor]], Any]:
        if isinstance(value, Tensor):
            return self._look_at_tensor(value)
        kind = type(value)  # what is returned must not hold on to the value
        if isinstance(value, (tuple, list)):
            parts = [self._look(part) for part in value]
            if hasattr(value, "_fields"):
                return lambda bases: kind(*[part(bases) for part in parts])
            return lambda bases: kind(part(bases) for part in parts)
        if is_dataclass(value):
            named = {field.name: self._look(getattr(value, field.name)) for field in fields(value)}
            return lambda bases: kind(**{name: part(bases) for name, part in named.items()})
        return lambda bases: value

    def _look_at_tensor(self, tensor: Tensor) -> Callable[[list[Tensor]], Tensor]:
        storage = tensor.untyped_storage()
        place = self._places.setdefault(storage._cdata, len(self._bases))
        if place == len(self._bases):
            self._bases.append((storage.nbytes() // tensor.element_size(), tensor.dtype))
        shape, stride, offset = tuple(tensor.shape), tensor.stride(), tensor.storage_offset()
        return lambda bases: bases[place].as_strided(shape, stride, offset)


def tensors_in(value: Any) -> Iterator[Tensor]:
    """The tensors of a nested value."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (tuple, list)):
        for part in value:
            yield from tensors_in(part)
    elif is_dataclass(value) and not isinstance(value, type):
        for field in fields(value):
            yield from tensors_in(getattr(value, field.name))
