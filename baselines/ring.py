"""Ring attention: K, V blocks travel point to point round the ring while each device attends to the one it has.

Every device holds all layers and p/n tokens; partial results are merged by online softmax (`core/sequence.py`). The
prompt of an MM-DiT is computed by every device. Exact. Per step and device 2 * (n-1)/n * p * hs * L elements (Table 1:
2 O(p hs) L). With `compress` residuals of K, V travel in their place (CompactFusion, arXiv 2507.17511): K, V of the
present step with an error that the next message makes up for, and every device holds those of all tokens.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import ceil, prod

from pipefusion.core.cache import cache_rule
from pipefusion.core.checks import Settings, degrees_fit, needs_kv, unknown_choice
from pipefusion.core.compressed import compressed_ring
from pipefusion.core.denoise import assemble
from pipefusion.core.dit import DiT, Sampler
from pipefusion.core.domain import Natural
from pipefusion.core.fabric import Fabric
from pipefusion.core.parallel import Parallel
from pipefusion.core.predict import Prediction
from pipefusion.core.predict import predict as predict_bytes
from pipefusion.core.problem import Problem
from pipefusion.core.residuals import COMPRESS, message_bytes
from pipefusion.core.sequence import ulysses
from pipefusion.core.shape import DiTShape

AXIS = "ring"


@dataclass
class Config(Settings):
    """`compress` K, V on the wire, but for the first `whole_steps`; see `pipefusion/core/residuals.py`."""

    name: str = "ring"
    compress: str = "none"
    whole_steps: Natural = 1


def check(shape: DiTShape, parallel: Parallel, steps: int, cfg: Config) -> Problem | None:
    """Heads, MLP columns and token rows are shared out evenly, by the axes that share them."""
    return (
        degrees_fit(shape, parallel, AXIS, cfg)
        or unknown_choice("method.compress", cfg.compress, COMPRESS)
        or needs_kv(shape, "method.compress", cfg.compress, "none")
    )


def build(dit: DiT, fabric: Fabric, cfg: Config) -> Sampler:
    """All layers on a share of the tokens."""
    return assemble(
        dit,
        fabric,
        lambda run: ulysses(run, compressed_ring(run, cfg.compress, cfg.whole_steps), cfg.qkv),
        cache=cache_rule(cfg),
    )


def predict(
    shape: DiTShape, parallel: Parallel, rank: int, steps: int, images: int, branches: int, cfg: Config
) -> Prediction:
    """What the axes send; compressed, smaller messages round the ring, and K, V of all tokens."""
    found = predict_bytes(shape, parallel, rank, steps, images, branches, cache=cache_rule(cfg), qkv=cfg.qkv)
    if cfg.compress == "none" or parallel.ring == 1:
        return found
    heads = ceil(shape.heads / (parallel.ulysses * parallel.tensor))
    batch = images * branches // (parallel.data * parallel.cfg)
    size = (2, batch, heads, shape.tokens // parallel.ring, shape.head_dim)
    whole, message = prod(size) * shape.itemsize, message_bytes(cfg.compress, size, shape.itemsize)
    less = shape.layers * (parallel.ring - 1) * max(steps - cfg.whole_steps, 0) * (whole - message)
    return replace(
        found,
        kv_bytes=shape.layers * parallel.ring * whole,
        comm_bytes=found.comm_bytes + 2 * (max(whole, message) - whole),
        sent_bytes=found.sent_bytes - less,
        recv_bytes=found.recv_bytes - less,
        axis_bytes=found.axis_bytes | {AXIS: found.axis_bytes[AXIS] - less},
    )
