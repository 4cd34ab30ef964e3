"""A method as the library is given it: the name of a module with its settings, or an attention of one's own."""

from __future__ import annotations

import inspect
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from functools import partial
from importlib import import_module
from types import ModuleType
from typing import Any

import baselines
from pipefusion.core.checks import AUTO, Settings, degrees_fit, needs_kv, splits, within
from pipefusion.core.cut import cutting
from pipefusion.core.denoise import assemble
from pipefusion.core.dit import DiT, Sampler
from pipefusion.core.fabric import Fabric
from pipefusion.core.parallel import Parallel
from pipefusion.core.predict import Prediction
from pipefusion.core.problem import Problem
from pipefusion.core.run import AttendFor, Run
from pipefusion.core.shape import DiTShape

Attention = Callable[[Run], AttendFor]


@dataclass(frozen=True)
class Chosen:
    """A method with its settings. `predict` is None where there is no closed form; `warmup` W, where it is known."""

    check: Callable[[DiTShape, Parallel, int], Problem | None]
    build: Callable[[DiT, Fabric], Sampler]
    predict: Callable[..., Prediction] | None
    warmup: int


def choose(method: str | Attention, settings: Mapping[str, Any]) -> Chosen:
    """A method by its name, or made of an attention. Raises ValueError for unknown names and settings."""
    if isinstance(method, str):
        return named(method, settings)
    return of_attention(method, settings)


def named(name: str, settings: Mapping[str, Any]) -> Chosen:
    """The method of a module: its `Config`, `check`, `build` and `predict`."""
    module = find(name)
    allowed = [field.name for field in fields(module.Config) if field.name != "name"]
    for key in settings:
        if key not in allowed:
            raise ValueError(f"{name} has no {key}; allowed: {', '.join(allowed)}")
    cfg, functions = module.Config(**settings), cutting(module)
    warmup = getattr(cfg, "warmup", 0)
    return Chosen(
        lambda shape, parallel, steps: functions.check(shape, parallel, steps, cfg),
        lambda dit, fabric: functions.build(dit, fabric, cfg),
        None if warmup == AUTO else lambda *args: functions.predict(*args, cfg),
        0 if warmup == AUTO else warmup,
    )


def find(name: str) -> ModuleType:
    """`pipefusion.method`, or the module of that name in `baselines`. Raises ValueError."""
    if name == "pipefusion":
        return import_module("pipefusion.method")
    modules = {
        each.name: import_module(f"baselines.{each.name}")
        for each in pkgutil.iter_modules(baselines.__path__)
    }
    known = {each: module for each, module in modules.items() if hasattr(module, "Config")}
    if name not in known:
        raise ValueError(f"method {name!r} is unknown; allowed: {', '.join(['pipefusion', *known])}")
    return known[name]


def of_attention(attention: Attention, settings: Mapping[str, Any]) -> Chosen:
    """A method of one's own, on whatever degrees there are. Raises ValueError for what is not called as one."""
    try:
        inspect.signature(attention).bind("run")
    except TypeError as error:
        raise ValueError(
            f"method {attention!r}: {error}; allowed: a name, or a function attention(run)"
        ) from None
    own: dict[str, Any] = {"patches": 1, "warmup": None, "split": "even", "heads": "even"}
    for key in settings:
        if key not in own:
            raise ValueError(f"an attention of one's own has no {key}; allowed: {', '.join(own)}")
    patches, warmup, split, heads = (own | {**settings}).values()

    def begin(run: Run) -> AttendFor:
        made = attention(run)
        if not callable(made):
            raise TypeError(f"attention(run) returned {made!r}; allowed: a function attend_for(job)")
        return made

    def check(shape: DiTShape, parallel: Parallel, steps: int) -> Problem | None:
        lines = shape.lines // (parallel.patch * parallel.lanes)
        return (
            needs_kv(shape, "method", "an attention of one's own")
            or degrees_fit(shape, parallel, "pipe" if parallel.pipe > 1 else "patch", Settings("", heads))
            or within("patches", patches, 1, lines, f"the {shape.line_name}")
            or within("warmup", warmup or 0, 0, steps, "the steps")
            or splits(split, shape.layers, parallel.pipe)
        )

    build = partial(assemble, attention=begin, patches=patches, split=split, warmup=warmup)
    return Chosen(check, build, None, warmup or 0)
