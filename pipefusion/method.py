"""PipeFusion (section 3 of the paper): N stages of layers, M patches, K and V of the other patches one step old.

In an MM-DiT the K, V of the prompt are computed with each job and never stale; the prompt's tokens travel with every
job (`text: exact`) or with the first patch of a step only, as the published implementations have it (`first_patch`).

A stage keeps the parameters of its L/N layers only, and the full-length K, V of those layers only. In job (t, m) every
self-attention writes K, V of patch m into its buffer and attends Q of patch m to the whole buffer: patches 0..m are of
step t, patches m+1..M-1 of step t-1. The first W steps are synchronous and fill the buffers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from torch import Tensor

from pipefusion.core import closed_forms as forms
from pipefusion.core.attention import Attend, full
from pipefusion.core.checks import one_of, splits, within
from pipefusion.core.dit import Conditioning, DiT, Problem, Sampler
from pipefusion.core.domain import Natural, Patches, Warmup
from pipefusion.core.fabric import Fabric
from pipefusion.core.jobs import Job, make_jobs
from pipefusion.core.kv import StaleKV
from pipefusion.core.pipeline import run_pipeline
from pipefusion.core.shape import DiTShape
from pipefusion.core.split import split_rows

TEXTS = ("exact", "first_patch")


@dataclass
class Config:
    """`patches` M (null: one a device, at most the token rows), `warmup` W synchronous steps.

    `split` of the layers over stages: ceil, even, cost, bytes, or how many each has. `text` of MM-DiTs.
    """

    name: str = "pipefusion"
    axis: str = "pipe"
    patches: Patches | None = None
    warmup: Warmup = 1
    split: Annotated[Any, Natural] = "even"
    text: str = "exact"


def patches_of(shape: DiTShape, devices: int, cfg: Config) -> int:
    """M."""
    return min(devices, shape.token_rows) if cfg.patches is None else cfg.patches


def check(shape: DiTShape, devices: int, steps: int, cfg: Config) -> Problem | None:
    """What keeps this configuration from running, or None."""
    return (
        within("devices", devices, 1, shape.layers, "the model's layers")
        or within("method.patches", patches_of(shape, devices, cfg), 1, shape.token_rows, "the token rows")
        or within("method.warmup", cfg.warmup, 0, steps, "the steps")
        or splits(cfg.split, shape.layers, devices)
        or one_of("method.text", cfg.text, TEXTS)
    )


def build(dit: DiT, fabric: Fabric, cfg: Config, scheduler: Any) -> Sampler:
    """Keep this rank's stage and return its sampler."""
    place = fabric.axis(cfg.axis)
    shape = dit.shape
    bands = split_rows(shape.token_rows, patches_of(shape, place.size, cfg))
    stages = forms.stages(shape, place.size, cfg.split)
    stage = stages[place.index]
    dit.keep(stage, embed=place.index == 0, unembed=place.index == place.size - 1)

    def sampler(noise: Tensor, cond: Conditioning) -> Tensor | None:
        batch = noise.shape[0] * cond.branches
        kv = StaleKV(fabric, shape, stage, batch, dit.dtype)

        def attend_for(job: Job) -> Attend:
            fresh = shape.band_tokens(job.rows)

            def attend(layer: int, q: Tensor, k: Tensor, v: Tensor, prefix: int = 0) -> Tensor:
                kv.write(layer, fresh, k, v)
                return full(q, *kv.read(layer))

            return attend

        jobs = make_jobs(len(scheduler.timesteps), cfg.warmup, bands)
        return run_pipeline(
            dit,
            fabric,
            cfg.axis,
            stages,
            scheduler,
            noise,
            cond,
            jobs,
            bands,
            attend_for,
            cfg.text == "first_patch",
        )

    return sampler


def predict(
    shape: DiTShape, devices: int, rank: int, steps: int, batch: int, images: int, cfg: Config
) -> forms.Prediction:
    """Closed forms of one rank's memory and bytes for one image batch."""
    bands = split_rows(shape.token_rows, patches_of(shape, devices, cfg))
    jobs, partial = cfg.warmup + (steps - cfg.warmup) * len(bands), cfg.text == "first_patch"
    largest = shape.token_rows if cfg.warmup else len(bands[0])
    return forms.stage_prediction(
        shape,
        forms.stages(shape, devices, cfg.split),
        rank,
        steps,
        batch,
        images,
        texts=steps if partial else jobs,
        largest_rows=largest,
        kv=True,
        kept_text=partial,
    )
