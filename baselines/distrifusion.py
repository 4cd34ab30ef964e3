"""Displaced patch parallelism (DistriFusion, arXiv 2402.19481) on a DiT: N = M, one patch and all layers per device.

Self-attention sees its own fresh K, V and everybody else's of the step before; the exchange hides behind a step.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import ceil, prod

from baselines.displaced import AXIS as AXIS
from baselines.displaced import Bands, build_bands, check_bands, check_layers, predict_bands
from pipefusion.core.checks import needs_kv, unknown_choice
from pipefusion.core.dit import DiT, Sampler
from pipefusion.core.fabric import Fabric
from pipefusion.core.parallel import Parallel
from pipefusion.core.predict import Prediction
from pipefusion.core.problem import Problem
from pipefusion.core.residuals import COMPRESS, message_bytes
from pipefusion.core.shape import DiTShape


@dataclass
class Config(Bands):
    """`warmup` W synchronous steps at the start, `sync_layers` that are synchronous in all.

    `compress`: residuals go on the wire after the warm-up, see `pipefusion/core/residuals.py`.
    """

    name: str = "distrifusion"
    compress: str = "none"


def check(shape: DiTShape, parallel: Parallel, steps: int, cfg: Config) -> Problem | None:
    """Equal bands; W between 0 and S; layers of the model."""
    return (
        check_bands(shape, parallel, steps, cfg)
        or check_layers(shape, cfg.sync_layers)
        or unknown_choice("method.compress", cfg.compress, COMPRESS)
        or needs_kv(shape, "method.compress", cfg.compress, "none")
    )


def build(dit: DiT, fabric: Fabric, cfg: Config) -> Sampler:
    """All layers on a band of rows, with every layer's full-length K, V on every device."""
    return build_bands(dit, fabric, cfg, exchange=True, compress=cfg.compress)


def predict(
    shape: DiTShape, parallel: Parallel, rank: int, steps: int, images: int, branches: int, cfg: Config
) -> Prediction:
    """Table 1: 2 O(p hs) L per step, K, V of all L layers. The last step sends nothing unless it is synchronous."""
    gathers = steps if cfg.warmup == steps else steps - 1
    found = predict_bands(shape, parallel, rank, steps, images, branches, cfg, gathers)
    if cfg.compress == "none" or parallel.patch == 1:
        return found
    heads = ceil(shape.heads / (parallel.ulysses * parallel.tensor))
    batch = images * branches // (parallel.data * parallel.cfg)
    size = (2, batch, heads, shape.tokens // parallel.patch, shape.head_dim)
    whole, message = prod(size) * shape.itemsize, message_bytes(cfg.compress, size, shape.itemsize)
    layers, peers = shape.layers - len(cfg.sync_layers), parallel.patch - 1
    less = layers * peers * max(gathers - cfg.warmup, 0) * (whole - message)
    return replace(
        found,
        kv_bytes=found.kv_bytes + layers * whole,
        comm_bytes=found.comm_bytes + layers * parallel.patch * message,
        sent_bytes=found.sent_bytes - less,
        recv_bytes=found.recv_bytes - less,
        axis_bytes=found.axis_bytes | {AXIS: found.axis_bytes[AXIS] - less},
    )
