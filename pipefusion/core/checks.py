"""Checks that several methods share. Each returns a `Problem` that names the key and what is allowed, or None."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import Any

from pipefusion.core.domain import AutoWarmup, Part, Threshold
from pipefusion.core.parallel import Parallel
from pipefusion.core.problem import Problem
from pipefusion.core.shape import DiTShape
from pipefusion.core.split import SPLITS

HEADS = ("even", "pad")
QKV = ("packed", "separate")
AUTO = "auto"
"""In place of W: see `pipefusion/core/warmup.py`."""


@dataclass
class Settings:
    """What the configuration of every method has.

    `heads` of Ulysses ranks: each has as many (even), or zeros are computed, held and sent in place of those that lack
    (pad). `qkv`: theirs cross in one all-to-all (packed), or in one each, as in what was published (separate).
    `patch_axis` of a video: patches, bands and shares are cut over its frames (also null) or its rows. `cache`: blocks
    are skipped where the relative change is under `cache_threshold`, see `pipefusion/core/cache.py`; on predicted
    hardware, which has no values, so many of the decisions compute: the share `cache_computed`.
    """

    name: str
    heads: str = "even"
    qkv: str = "packed"
    patch_axis: str | None = None
    cache: str = "none"
    cache_threshold: Threshold = 0.1
    cache_computed: Part | None = None


@dataclass
class Warm(Settings):
    """`warmup` W of a displaced method: so many synchronous steps at the start.

    Or `auto`: until the prediction changes by less than `warmup_threshold` in a step, see `pipefusion/core/warmup.py`.
    """

    warmup: AutoWarmup = 1
    warmup_threshold: Threshold = 0.1


def warmup_fits(warmup: Any, steps: int, least: int = 0) -> Problem | None:
    """`method.warmup`: a number of the steps, or `auto`."""
    if warmup == AUTO:
        return None
    if type(warmup) is not int:
        return Problem(
            "method.warmup", f"{warmup!r} is no number of steps; allowed: {least}..{steps}, {AUTO}"
        )
    return within("method.warmup", warmup, least, steps, "the steps")


def micro_batches_fit(parallel: Parallel, cfg: Settings, micro_batches: bool) -> Problem | None:
    """`method.micro_batches`: what is decided for a whole batch, or kept of one, knows nothing of its parts."""
    if not micro_batches or parallel.pipe == 1:
        return None
    if cfg.cache != "none":
        text = f"{cfg.cache} decides for all images and branches together"
        return Problem("method.cache", f"{text}; allowed: none, or method.micro_batches=false")
    for key, usual in (("order", "plain"), ("text", "exact")):
        if getattr(cfg, key, usual) != usual:
            return Problem("method.micro_batches", f"true needs method.{key}={usual}; allowed: false")
    return None


def within(key: str, value: int, low: int, high: int, what: str) -> Problem | None:
    """`value` must lie in low..high, where `what` says what the upper bound is."""
    if low <= value <= high:
        return None
    return Problem(key, f"{value} is outside {low}..{high} ({high}: {what}); allowed: {low}..{high}")


def unknown_choice(key: str, value: str, allowed: Sequence[str]) -> Problem | None:
    """`value` must be one of `allowed`."""
    if value in allowed:
        return None
    near = get_close_matches(value, allowed, n=1)
    return Problem(
        key, f"{value!r} is unknown{f', nearest: {near[0]}' if near else ''}; allowed: {', '.join(allowed)}"
    )


def splits(split: Any, layers: int, devices: int) -> Problem | None:
    """`method.split`: a name, or the layers of each stage, as many as devices and none left over."""
    if isinstance(split, str):
        return unknown_choice("method.split", split, (*SPLITS, "a list of layers a stage"))
    if not isinstance(split, Sequence):
        text = f"{split} is no way to cut layers; allowed: {', '.join(SPLITS)}, a list of layers a stage"
        return Problem("method.split", text)
    if (
        len(split) == devices
        and all(isinstance(size, int) and size >= 0 for size in split)
        and sum(split) == layers
    ):
        return None
    given = ",".join(map(str, split))
    text = f"[{given}] does not cut {layers} layers into {devices} stages"
    return Problem(
        "method.split", f"{text}; allowed: {', '.join(SPLITS)}, or {devices} numbers of sum {layers}"
    )


def divides(key: str, count: int, total: int, what: str) -> Problem | None:
    """`count` must divide `total`."""
    if count >= 1 and total % count == 0:
        return None
    allowed = [str(n) for n in range(1, total + 1) if total % n == 0]
    return Problem(key, f"{count} does not divide the {total} {what}; allowed: {', '.join(allowed)}")


def needs_kv(shape: DiTShape, key: str, value: str, without: str | None = None) -> Problem | None:
    """What is done to K and V of tokens cannot be where attention is linear, which keeps sums over them.

    Of a setting `without` is the value that does nothing of the kind; None: there is none.
    """
    if not shape.linear or value == without:
        return None
    text = f"{value} exchanges K, V of tokens, and the model's linear attention has sums over them"
    return Problem(key, f"{text}; allowed: {without or 'a method that exchanges whole bands'}")


def heads_fit(key: str, ranks: int, total: int, heads: str) -> Problem | None:
    """Ulysses ranks must divide the heads, unless these are padded."""
    problem = unknown_choice("method.heads", heads, HEADS)
    if problem or heads == "pad":
        return problem
    problem = divides(key, ranks, total, "attention heads")
    return problem and replace(problem, message=f"{problem.message}, or any with method.heads=pad")


def degrees_fit(shape: DiTShape, parallel: Parallel, own: str | None, cfg: Settings) -> Problem | None:
    """Degrees that a model allows, of a method whose own axis is `own`: only it may cut that axis.

    Heads (but for Ulysses ranks that pad them) and MLP columns, then token rows are shared out evenly; a stage has at
    least one layer where it can.
    """

    def key(axis: str) -> str:
        return "devices" if set(parallel.axes) <= {axis} else f"parallel.{axis}"

    for axis in ("step", "pipe", "patch"):
        if axis != own and getattr(parallel, axis) > 1:
            text = f"{getattr(parallel, axis)} is for methods that cut this axis; allowed: 1"
            return Problem(f"parallel.{axis}", text)
    if parallel.cfg > 1 and shape.guidance != "cfg":
        text = "the model has no guidance branches to share; allowed: 1"
        return Problem("parallel.cfg", f"{parallel.cfg} is too many: {text}")
    rows, whole_cross = parallel.patch * parallel.lanes, getattr(cfg, "cross", "split") == "whole"
    cross_heads = shape.heads if whole_cross or shape.cross_heads is None else shape.cross_heads
    widest = max(("patch", "ring", "ulysses"), key=lambda axis: getattr(parallel, axis))
    return (
        within("parallel.cfg", parallel.cfg, 1, 2, "the branches of classifier-free guidance")
        or within(key("pipe"), parallel.pipe, 1, shape.layers, "the model's layers")
        or divides(key("tensor"), parallel.tensor, shape.heads, "attention heads")
        or divides(key("tensor"), parallel.tensor, cross_heads, "heads of the cross-attention")
        or divides(key("tensor"), parallel.tensor, shape.mlp_hidden, "MLP columns")
        or heads_fit(key("ulysses"), parallel.ulysses, shape.heads // parallel.tensor, cfg.heads)
        or unknown_choice("method.qkv", cfg.qkv, QKV)
        or divides(key(widest), rows, shape.lines, shape.line_name)
    )
