"""PipeFusion (section 3 of the paper): N stages of layers, M patches, K and V of the other patches one step old.

A stage keeps the parameters of its L/N layers only, and the full-length K, V of those layers only. In job (t, m) every
self-attention writes K, V of patch m into its buffer and attends Q of patch m to the whole buffer: patches 0..m are of
step t, patches m+1..M-1 of step t-1. The first W steps are synchronous and fill the buffers. Ring and Ulysses ranks
share the tokens of every patch, and the buffer sits inside their exchange.

With `order: rotational` stage d takes patch (i - d) mod M as the i-th of a step, so that all stages are in one step
and none waits for another one. The input of its first patch has not come yet; it is forecast from those of the steps
before (`forecast`).

With `compress` stages send each other residuals of hidden states (CompactFusion, arXiv 2507.17511): what the next one
has of a patch is brought up to date with what a compressed message says that it changed by.

In an MM-DiT the K, V of the prompt are computed with each job and never stale; the prompt's tokens travel with every
job (`text: exact`) or with the first patch of a step only, as the published implementations have it (`first_patch`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from pipefusion.core.cache import cache_rule
from pipefusion.core.checks import (
    AUTO,
    Warm,
    degrees_fit,
    micro_batches_fit,
    needs_kv,
    splits,
    unknown_choice,
    warmup_fits,
    within,
)
from pipefusion.core.denoise import assemble
from pipefusion.core.dit import DiT, Sampler
from pipefusion.core.domain import Natural, Patches
from pipefusion.core.fabric import Fabric
from pipefusion.core.kv import rotating, stale
from pipefusion.core.parallel import Parallel
from pipefusion.core.predict import Prediction
from pipefusion.core.predict import predict as predict_bytes
from pipefusion.core.problem import Problem
from pipefusion.core.residuals import COMPRESS
from pipefusion.core.sequence import ulysses
from pipefusion.core.shape import DiTShape
from pipefusion.core.states import kept

AXIS = "pipe"
TEXTS = ("exact", "first_patch")
RINGS = ("gather", "rotate")
ORDERS = ("plain", "rotational")
FORECASTS = ("last", "taylor1", "taylor2", "taylor3")
"""By how many differences of the inputs before they go on from the last one."""


@dataclass
class Config(Warm):
    """`patches` M (null: one per stage, at most the token rows), `warmup` W synchronous steps, or auto, see `Warm`.

    `split` of the layers over stages: ceil, even, cost, bytes, or how many each has. `text` of MM-DiTs. `ring`: ring
    ranks gather the fresh K, V of a patch and keep all tokens, or keep their own and pass the buffer round (rotate).
    `order` of the patches: the same on all stages, or rotational, with at least one warm-up step; then `forecast`.
    `micro_batches`: synchronous steps go through the stages as a pipeline of images and guidance branches.
    `compress` hidden states between stages behind the warm-up, see `pipefusion/core/stage_residuals.py`.
    """

    name: str = "pipefusion"
    patches: Patches | None = None
    split: Annotated[Any, Natural] = "even"
    text: str = "exact"
    ring: str = "gather"
    order: str = "plain"
    forecast: str = "last"
    micro_batches: bool = False
    compress: str = "none"

    @property
    def differences(self) -> int | None:
        """What forecasts are made of; None where nothing is forecast."""
        return None if self.order == "plain" else FORECASTS.index(self.forecast)


def patches_in(shape: DiTShape, stages: int, lanes: int, cfg: Config) -> int:
    """M."""
    return min(stages, shape.lines // lanes) if cfg.patches is None else cfg.patches


def check(shape: DiTShape, parallel: Parallel, steps: int, cfg: Config) -> Problem | None:
    """What keeps this configuration from running, or None."""
    lanes = parallel.lanes
    return (
        degrees_fit(shape, parallel, AXIS, cfg)
        or within(
            "method.patches",
            patches_in(shape, parallel.pipe, lanes, cfg),
            1,
            shape.lines // lanes,
            f"the {shape.line_name}, {lanes} at a time" if lanes > 1 else f"the {shape.line_name}",
        )
        or warmup_fits(cfg.warmup, steps, int(cfg.order == "rotational" or cfg.compress != "none"))
        or splits(cfg.split, shape.layers, parallel.pipe)
        or unknown_choice("method.text", cfg.text, TEXTS)
        or unknown_choice("method.ring", cfg.ring, RINGS)
        or needs_kv(shape, "method.ring", cfg.ring, "gather")
        or unknown_choice("method.order", cfg.order, ORDERS)
        or unknown_choice("method.forecast", cfg.forecast, FORECASTS)
        or unknown_choice("method.compress", cfg.compress, COMPRESS)
        or (rotates(shape, parallel, cfg) if cfg.order == "rotational" else forecasts_nothing(cfg))
        or check_prompt(shape, parallel, cfg)
        or check_auto(shape, parallel, cfg)
        or micro_batches_fit(parallel, cfg, cfg.micro_batches)
    )


def rotates(shape: DiTShape, parallel: Parallel, cfg: Config) -> Problem | None:
    """What is only known of stages that take patches in the same order."""
    if cfg.compress != "none":
        text = f"{cfg.compress} needs method.order=plain, in which no input is a forecast; allowed: none"
        return Problem("method.compress", text)
    if shape.joint and cfg.text != "exact":
        return Problem("method.text", f"{cfg.text} needs method.order=plain, patch 0 first; allowed: exact")
    if shape.skips and parallel.pipe > 1:
        text = "rotational forecasts the input of a stage, and not the model's long skips; allowed: plain"
        return Problem("method.order", text)
    return None


def forecasts_nothing(cfg: Config) -> Problem | None:
    """In plain order there is nothing to forecast."""
    if cfg.forecast == FORECASTS[0]:
        return None
    return Problem(
        "method.forecast", f"{cfg.forecast} needs method.order=rotational; allowed: {FORECASTS[0]}"
    )


def check_prompt(shape: DiTShape, parallel: Parallel, cfg: Config) -> Problem | None:
    """A prompt that comes with the first patch alone must not be left out with it."""
    if cfg.cache == "none" or cfg.text != "first_patch" or not shape.joint or parallel.pipe == 1:
        return None
    text = "first_patch sends the prompt with the first patch, whose blocks a step cache may skip"
    return Problem("method.text", f"{text}; allowed: exact, or method.cache=none")


def check_auto(shape: DiTShape, parallel: Parallel, cfg: Config) -> Problem | None:
    """Stages that receive a step ahead, long skips or in rotation, have to know W."""
    if cfg.warmup != AUTO or parallel.pipe == 1:
        return None
    if cfg.order != "plain":
        return Problem("method.warmup", f"{AUTO} needs method.order=plain; allowed: a number")
    if not shape.skips:
        return None
    text = "auto is found out step by step, and stages receive the model's long skips a step ahead"
    return Problem("method.warmup", f"{text}; allowed: a number")


def build(dit: DiT, fabric: Fabric, cfg: Config) -> Sampler:
    """Keep this rank's stage and return its sampler."""
    lanes = fabric.axis("ring").size * fabric.axis("ulysses").size
    buffer = rotating if cfg.ring == "rotate" else stale
    return assemble(
        dit,
        fabric,
        lambda run: ulysses(run, buffer(run), cfg.qkv),
        states=kept,
        patches=patches_in(dit.shape, fabric.axis(AXIS).size, lanes, cfg),
        split=cfg.split,
        warmup=cfg.warmup,
        forecast=cfg.differences,
        warmup_threshold=cfg.warmup_threshold,
        first_patch=cfg.text == "first_patch",
        compress=cfg.compress,
        cache=cache_rule(cfg),
        micro_batches=cfg.micro_batches,
    )


def predict(
    shape: DiTShape, parallel: Parallel, rank: int, steps: int, images: int, branches: int, cfg: Config
) -> Prediction:
    """A non-last stage sends p * hs * b elements per step and holds 2 * p * hs * L/N * b of K, V.

    With `compress` less is sent, and each end of the way between two stages holds p * hs * b more.
    """
    return predict_bytes(
        shape,
        parallel,
        rank,
        steps,
        images,
        branches,
        buffer="rotating" if cfg.ring == "rotate" else "stale",
        patches=patches_in(shape, parallel.pipe, parallel.lanes, cfg),
        split=cfg.split,
        warmup=cfg.warmup,
        forecast=cfg.differences,
        qkv=cfg.qkv,
        first_patch=cfg.text == "first_patch",
        compress=cfg.compress,
        cache=cache_rule(cfg),
    )
