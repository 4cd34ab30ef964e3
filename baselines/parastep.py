"""ParaStep (arXiv 2505.14741) on a DiT: ranks with all layers that compute the steps of a round at once.

After W synchronous steps come rounds of N steps. Rank r computes the r-th of them on a latent that it has advanced
itself, with the last prediction it made; rank 0 advances with the predictions of all, and broadcasts its latent at the
end of a round. Within a step attention is exact and nothing is stale: what is old is the way to the latent.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from pipefusion.core.cache import no_cache
from pipefusion.core.checks import Settings, degrees_fit, within
from pipefusion.core.denoise import assemble
from pipefusion.core.dit import DiT, Sampler
from pipefusion.core.domain import Domain
from pipefusion.core.fabric import Fabric
from pipefusion.core.parallel import Parallel
from pipefusion.core.predict import Prediction
from pipefusion.core.predict import predict as predict_bytes
from pipefusion.core.problem import Problem
from pipefusion.core.sequence import ring, ulysses
from pipefusion.core.shape import DiTShape

AXIS = "step"


@dataclass
class Config(Settings):
    """`warmup` W, at least one: the first rounds reuse the prediction of the last synchronous step."""

    name: str = "parastep"
    warmup: Annotated[int, Domain(1, 10_000)] = 1


def check(shape: DiTShape, parallel: Parallel, steps: int, cfg: Config) -> Problem | None:
    """W between 1 and S; no step cache. Ranks that a short last round does not need are idle in it."""
    return (
        no_cache(cfg, "ranks of parastep")
        or degrees_fit(shape, parallel, AXIS, cfg)
        or within("method.warmup", cfg.warmup, 1, steps, "the steps")
    )


def build(dit: DiT, fabric: Fabric, cfg: Config) -> Sampler:
    """All layers on every rank; attention is that of the exact methods."""
    return assemble(dit, fabric, lambda run: ulysses(run, ring(run), cfg.qkv), warmup=cfg.warmup)


def predict(
    shape: DiTShape, parallel: Parallel, rank: int, steps: int, images: int, branches: int, cfg: Config
) -> Prediction:
    """One prediction a step to rank 0, but for its own, and one latent a round from it."""
    return predict_bytes(shape, parallel, rank, steps, images, branches, warmup=cfg.warmup, qkv=cfg.qkv)
