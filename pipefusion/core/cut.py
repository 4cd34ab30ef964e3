"""What every method is asked alike: what a video is cut over (`method.patch_axis`), and its step cache.

A method's module takes a shape and a view whose lines are frames or token rows, and need not know which.
"""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any, NamedTuple

from pipefusion.core.cache import check_cache
from pipefusion.core.checks import unknown_choice
from pipefusion.core.dit import DiT, Sampler
from pipefusion.core.fabric import Fabric
from pipefusion.core.parallel import Parallel
from pipefusion.core.predict import Prediction
from pipefusion.core.problem import Problem
from pipefusion.core.shape import DiTShape

AXES = ("frames", "rows")


class Functions(NamedTuple):
    """A method's `check`, `build` and `predict`, which cut as its settings say."""

    check: Callable[[DiTShape, Parallel, int, Any], Problem | None]
    build: Callable[[DiT, Fabric, Any], Sampler]
    predict: Callable[..., Prediction]


def axis_fits(shape: DiTShape, axis: str | None) -> Problem | None:
    """Whether there is such an axis: pictures have no frames."""
    if axis is None:
        return None
    return unknown_choice("method.patch_axis", axis, AXES if shape.frames else ("rows",))


def cutting(module: ModuleType) -> Functions:
    """The functions of a method's module, given shapes and views that are cut as `cfg.patch_axis` says."""

    def check(shape: DiTShape, parallel: Parallel, steps: int, cfg: Any) -> Problem | None:
        found: Problem | None = axis_fits(shape, cfg.patch_axis)
        if not found:
            found = module.check(shape.cut(cfg.patch_axis), parallel, steps, cfg)
        return found or check_cache(shape, parallel, cfg)

    def build(dit: DiT, fabric: Fabric, cfg: Any) -> Sampler:
        if cfg.patch_axis is not None:
            dit.cut(cfg.patch_axis)
        sampler: Sampler = module.build(dit, fabric, cfg)
        return sampler

    def predict(shape: DiTShape, *args: Any) -> Prediction:
        found: Prediction = module.predict(shape.cut(args[-1].patch_axis), *args)
        return found

    return Functions(check, build, predict)
