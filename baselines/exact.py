"""Methods with nothing stale: every job is a whole step, with whatever degrees share it. The named ones are presets."""

from __future__ import annotations

from typing import Any

from pipefusion.core.cache import cache_rule
from pipefusion.core.denoise import assemble
from pipefusion.core.dit import DiT, Sampler
from pipefusion.core.fabric import Fabric
from pipefusion.core.parallel import Parallel
from pipefusion.core.predict import Prediction
from pipefusion.core.predict import predict as predict_bytes
from pipefusion.core.sequence import ring, ulysses
from pipefusion.core.shape import DiTShape


def options(cfg: Any) -> dict[str, Any]:
    """What a preset says of stages, of tensor parallelism and of a step cache."""
    whole_cross = getattr(cfg, "cross", "split") == "whole"
    return {"split": getattr(cfg, "split", "even"), "whole_cross": whole_cross, "cache": cache_rule(cfg)}


def build(dit: DiT, fabric: Fabric, cfg: Any) -> Sampler:
    """Ordinary self-attention: over the tokens of all Ulysses ranks, round the ring, on the rank's own heads."""
    return assemble(
        dit,
        fabric,
        lambda run: ulysses(run, ring(run), cfg.qkv),
        micro_batches=getattr(cfg, "micro_batches", False),
        **options(cfg),
    )


def predict(
    shape: DiTShape, parallel: Parallel, rank: int, steps: int, images: int, branches: int, cfg: Any
) -> Prediction:
    """What the axes send, and no K, V from step to step."""
    return predict_bytes(shape, parallel, rank, steps, images, branches, qkv=cfg.qkv, **options(cfg))
