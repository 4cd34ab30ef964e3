"""What DistriFusion and naive patch parallelism share: N = M, one band of token rows and all layers per device.

The two differ in whether fresh K, V are still exchanged after the warm-up. Either may leave some layers synchronous
(selective synchrony, after DICE, arXiv 2411.16786): the most sensitive ones gather fresh K, V and wait in every step.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Annotated, Any

from pipefusion.core.cache import cache_rule
from pipefusion.core.checks import Warm, degrees_fit, warmup_fits, within
from pipefusion.core.denoise import assemble
from pipefusion.core.displaced import banded, displaced
from pipefusion.core.dit import DiT, Sampler
from pipefusion.core.domain import Natural
from pipefusion.core.fabric import Fabric
from pipefusion.core.parallel import Parallel
from pipefusion.core.predict import Prediction
from pipefusion.core.predict import predict as predict_bytes
from pipefusion.core.problem import Problem
from pipefusion.core.run import AttendFor, Run
from pipefusion.core.sequence import ulysses
from pipefusion.core.shape import DiTShape

AXIS = "patch"


@dataclass
class Bands(Warm):
    """`sync_layers` are synchronous in all steps: a list, or in a run how many of the most sensitive ones."""

    sync_layers: Annotated[Any, Natural] = field(default_factory=list)


def check_bands(shape: DiTShape, parallel: Parallel, steps: int, cfg: Warm) -> Problem | None:
    """Equal bands; W between 0 and S."""
    return degrees_fit(shape, parallel, AXIS, cfg) or warmup_fits(cfg.warmup, steps)


def check_layers(shape: DiTShape, layers: Any) -> Problem | None:
    """`method.sync_layers`: layers of the model, each once."""
    if not isinstance(layers, Sequence) or not all(type(layer) is int for layer in layers):
        text = f"{layers} is no list of layers; allowed: layers of 0..{shape.layers - 1}"
        return Problem("method.sync_layers", text)
    wrong = next((layer for at, layer in enumerate(layers) if layer in layers[:at]), None)
    if wrong is not None:
        return Problem("method.sync_layers", f"{[*layers]} has {wrong} twice; allowed: each layer once")
    found = (within("method.sync_layers", layer, 0, shape.layers - 1, "the last layer") for layer in layers)
    return next((problem for problem in found if problem), None)


def build_bands(dit: DiT, fabric: Fabric, cfg: Bands, *, exchange: bool, compress: str = "none") -> Sampler:
    """All layers on a band of rows, with every layer's full-length K, V."""

    def attention(run: Run) -> AttendFor:
        inner = displaced(run, exchange=exchange, synced=cfg.sync_layers, compress=compress)
        return ulysses(run, inner, cfg.qkv)

    return assemble(
        dit,
        fabric,
        attention,
        states=partial(banded, exchange=exchange, synced=cfg.sync_layers),
        warmup=cfg.warmup,
        warmup_threshold=cfg.warmup_threshold,
        cache=cache_rule(cfg),
    )


def predict_bands(
    shape: DiTShape,
    parallel: Parallel,
    rank: int,
    steps: int,
    images: int,
    branches: int,
    cfg: Bands,
    gathers: int,
) -> Prediction:
    """K, V of all layers, gathered in so many steps, and in every step in the layers that stay synchronous."""
    synced = len(cfg.sync_layers)
    return predict_bytes(
        shape,
        parallel,
        rank,
        steps,
        images,
        branches,
        buffer="displaced",
        warmup=cfg.warmup,
        gathers=gathers,
        synced=synced,
        cache=cache_rule(cfg),
        qkv=cfg.qkv,
    )
