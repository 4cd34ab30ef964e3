"""PipeFusion (section 3 of the paper): N stages of layers, M patches, K and V of the other patches one step old.

A stage keeps the parameters of its L/N layers only, and the full-length K, V of those layers only. In job (t, m) every
self-attention writes K, V of patch m into its buffer and attends Q of patch m to the whole buffer: patches 0..m are of
step t, patches m+1..M-1 of step t-1. The first W steps are synchronous and fill the buffers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from pipefusion.core import closed_forms as forms
from pipefusion.core.attention import Attend, full
from pipefusion.core.checks import one_of, within
from pipefusion.core.dit import Conditioning, DiT, DiTShape, Problem, Sampler
from pipefusion.core.fabric import Fabric
from pipefusion.core.kv import StaleKV
from pipefusion.core.pipeline import Job, make_jobs, run_pipeline
from pipefusion.core.split import SPLITS, split_rows


@dataclass
class Config:
    """`patches` M (null: one a device, at most the token rows), `warmup` W synchronous steps, `split` of layers."""

    name: str = "pipefusion"
    axis: str = "pipe"
    patches: int | None = None
    warmup: int = 1
    split: str = "even"


def patches_of(shape: DiTShape, devices: int, cfg: Config) -> int:
    """M."""
    return min(devices, shape.token_rows) if cfg.patches is None else cfg.patches


def check(shape: DiTShape, devices: int, steps: int, cfg: Config) -> Problem | None:
    """What keeps this configuration from running, or None."""
    return (
        within("devices", devices, 1, shape.layers, "the model's layers")
        or within("method.patches", patches_of(shape, devices, cfg), 1, shape.token_rows, "the token rows")
        or within("method.warmup", cfg.warmup, 0, steps, "the steps")
        or one_of("method.split", cfg.split, SPLITS)
    )


def build(dit: DiT, fabric: Fabric, cfg: Config, scheduler: Any) -> Sampler:
    """Keep this rank's stage and return its sampler."""
    place = fabric.axis(cfg.axis)
    shape = dit.shape
    bands = split_rows(shape.token_rows, patches_of(shape, place.size, cfg))
    stage = forms.stages(shape, place.size, cfg.split)[place.index]
    dit.keep(stage, embed=place.index == 0, unembed=place.index == place.size - 1)

    def sampler(noise: Tensor, cond: Conditioning) -> Tensor | None:
        batch = noise.shape[0] * cond.branches
        kv = StaleKV(fabric, stage, batch, shape.tokens, shape.heads, shape.head_dim, dit.dtype)

        def attend_for(job: Job) -> Attend:
            fresh = shape.band_tokens(job.rows)

            def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
                kv.write(layer, fresh, k, v)
                return full(q, *kv.read(layer))

            return attend

        jobs = make_jobs(len(scheduler.timesteps), cfg.warmup, bands)
        return run_pipeline(dit, fabric, cfg.axis, scheduler, noise, cond, jobs, bands, attend_for)

    return sampler


def predict(
    shape: DiTShape, devices: int, rank: int, steps: int, batch: int, images: int, cfg: Config
) -> forms.Prediction:
    """Closed forms of one rank's memory and bytes for one image batch."""
    bands = split_rows(shape.token_rows, patches_of(shape, devices, cfg))
    largest = shape.token_rows if cfg.warmup else len(bands[0])
    layers = forms.stages(shape, devices, cfg.split)[rank]
    return forms.stage_prediction(shape, layers, devices, rank, steps, batch, images, largest, kv=True)
