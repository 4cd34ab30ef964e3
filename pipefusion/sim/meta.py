"""Every torch call on `meta` tensors charged to the rank that makes it, most of them without running anything."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from pipefusion.sim.cost import Op, Segment, as_segment, count_op
from pipefusion.sim.meter import Meter

VIEWS = {
    "__get__",
    "transpose",
    "permute",
    "movedim",
    "unbind",
    "unflatten",
    "unsqueeze",
    "squeeze",
    "expand",
    "chunk",
    "split",
    "view",
    "as_strided",
    "size",
    "stride",
    "dim",
    "numel",
    "is_contiguous",
    "is_floating_point",
    "untyped_storage",
    "data_ptr",
}
"""Calls that move no data, whatever their arguments."""

MAKERS = {torch.empty, torch.empty_strided, torch.empty_like, Tensor.new_empty}
"""Calls that only reserve memory."""


class Recipe(NamedTuple):
    """What a call does, learned from running it once: free, or a charge and the tensors it makes."""

    segment: Segment | None
    made: tuple[tuple[Any, ...] | None, ...] = ()
    several: bool = False
    returns: int | None = None
    """Position of the argument that an in-place call returns."""
    op: Op | None = None


class Unkeyable(Exception):
    """A call whose arguments cannot be compared: it is run each time."""


class MetaMode(TorchFunctionMode):
    """Within the context, calls on `meta` tensors cost the running rank time and memory; all others are the host's.

    A call is run once for each combination of function, shapes, strides and other arguments; later ones get empty
    tensors of the same kind. `running()` is the meter to charge, `recipes` may be shared between runs, `watch`
    is called with each operation.
    """

    def __init__(
        self,
        running: Callable[[], Meter],
        recipes: dict[Any, Recipe] | None = None,
        watch: Callable[[Op], None] | None = None,
    ):
        super().__init__()
        self._watch = watch
        self._running = running
        self._free: dict[Any, bool] = {}
        self._recipes: dict[Any, Recipe] = {} if recipes is None else recipes

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        free = self._free.get(func)
        if free is None:
            name = getattr(func, "__name__", "")
            free = self._free[func] = name in VIEWS and func is not Tensor.__getitem__
        if free or (func is Tensor.__getitem__ and not gathers(args[1])):
            return func(*args, **kwargs)
        meter = self._running()
        if func in MAKERS:
            out = func(*args, **kwargs)
            if out.is_meta:
                meter.allocate(out)
            return out
        try:
            key = (meter.key, func, memo_key(args), memo_key(tuple(sorted(kwargs.items()))) if kwargs else ())
            recipe = self._recipes.get(key)
        except Unkeyable:
            return self._run(meter, func, args, kwargs)[0]
        if recipe is None:
            out, self._recipes[key] = self._run(meter, func, args, kwargs)
            return out
        if recipe.segment is None:
            return func(*args, **kwargs)
        meter.charge(recipe.segment)
        if self._watch and recipe.op:
            self._watch(recipe.op)
        if recipe.returns is not None:
            return args[recipe.returns]
        made: list[Tensor | None] = []
        for spec in recipe.made:
            if spec is None:
                made.append(None)
                continue
            shape, stride, dtype = spec
            tensor = torch.empty_strided(shape, stride, dtype=dtype, device="meta")
            meter.allocate(tensor)
            made.append(tensor)
        return tuple(made) if recipe.several else made[0] if made else None

    def _run(self, meter: Meter, func: Any, args: Any, kwargs: Any) -> tuple[Any, Recipe]:
        """Run a call for its result and its recipe, charged."""
        given = meta_tensors((args, kwargs))
        storages = {tensor.untyped_storage()._cdata for tensor in given}
        out = func(*args, **kwargs)
        outputs = [leaf for leaf in tree_leaves(out) if isinstance(leaf, Tensor)]
        made = [leaf for leaf in outputs if leaf.is_meta and leaf.untyped_storage()._cdata not in storages]
        same = [index for index, arg in enumerate(args) if arg is out and isinstance(arg, Tensor)]
        name = getattr(func, "__name__", "")
        in_place = bool(same and name.endswith("_") and not name.endswith("__")) or name == "__setitem__"
        in_place = in_place or kwargs.get("inplace") is True
        if kwargs.get("out") is not None and kwargs["out"].is_meta:
            raise TypeError(f"{func} with out=: its cost is not known")
        if not made and not in_place:
            return out, Recipe(None)  # a view, or nothing that the device sees
        op = count_op(func, args, given, made)
        segment = as_segment(op, meter.device)
        meter.charge(segment)
        if self._watch:
            self._watch(op)
        for tensor in made:
            meter.allocate(tensor)
        if in_place:
            return out, Recipe(segment, returns=same[0] if same else None, op=op)
        if len(made) != len(outputs) or not isinstance(out, (Tensor, tuple)):
            raise TypeError(f"{func} makes new tensors and passes others on: its cost is not known")
        leaves = out if isinstance(out, tuple) else (out,)
        specs = tuple(
            (tuple(leaf.shape), leaf.stride(), leaf.dtype) if isinstance(leaf, Tensor) else None
            for leaf in leaves
        )
        return out, Recipe(segment, specs, isinstance(out, tuple), op=op)


def gathers(index: Any) -> bool:
    """Whether indexing with it copies; slices, numbers and None give views."""
    parts = index if isinstance(index, tuple) else (index,)
    return any(isinstance(part, (Tensor, list)) for part in parts)


def meta_tensors(value: Any) -> list[Tensor]:
    """The different `meta` tensors in nested arguments."""
    found = {id(leaf): leaf for leaf in tree_leaves(value) if isinstance(leaf, Tensor) and leaf.is_meta}
    return list(found.values())


def memo_key(value: Any) -> Any:
    """What an argument means for cost and result shapes: of tensors their kind, of everything else the value."""
    if isinstance(value, Tensor):
        return (value.shape, value.stride(), value.dtype, value.is_meta)
    if isinstance(value, (tuple, list)):
        return tuple(map(memo_key, value))
    if isinstance(value, slice):
        return ("slice", value.start, value.stop, value.step)
    if isinstance(value, (int, float)):
        return (type(value), value)  # 1 and 1.0 are equal, and promote differently
    if isinstance(value, str):
        return value
    if isinstance(value, Iterable):
        raise Unkeyable
    return value
