"""GPipe-like pipeline with one patch: the whole image goes through the stages, one stage busy at a time.

Exact, with no stale K, V and so no KV buffer: what PipeFusion is without its patches.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from torch import Tensor

from pipefusion.core import closed_forms as forms
from pipefusion.core.attention import local
from pipefusion.core.checks import splits, within
from pipefusion.core.dit import Conditioning, DiT, Problem, Sampler
from pipefusion.core.domain import Natural
from pipefusion.core.fabric import Fabric
from pipefusion.core.jobs import make_jobs
from pipefusion.core.pipeline import run_pipeline
from pipefusion.core.shape import DiTShape


@dataclass
class Config:
    """`split` of the layers over the stages: ceil, even, cost, bytes, or how many each has."""

    name: str = "sync_pipeline"
    axis: str = "pipe"
    split: Annotated[Any, Natural] = "even"


def check(shape: DiTShape, devices: int, steps: int, cfg: Config) -> Problem | None:
    """At least one layer a stage."""
    return within("devices", devices, 1, shape.layers, "the model's layers") or splits(
        cfg.split, shape.layers, devices
    )


def build(dit: DiT, fabric: Fabric, cfg: Config, scheduler: Any) -> Sampler:
    """Keep this rank's stage; every job is a whole step."""
    place = fabric.axis(cfg.axis)
    stages = forms.stages(dit.shape, place.size, cfg.split)
    dit.keep(stages[place.index], embed=place.index == 0, unembed=place.index == place.size - 1)
    bands = [range(dit.shape.token_rows)]

    def sampler(noise: Tensor, cond: Conditioning) -> Tensor | None:
        jobs = make_jobs(len(scheduler.timesteps), len(scheduler.timesteps), bands)
        return run_pipeline(
            dit, fabric, cfg.axis, stages, scheduler, noise, cond, jobs, bands, lambda job: local
        )

    return sampler


def predict(
    shape: DiTShape, devices: int, rank: int, steps: int, batch: int, images: int, cfg: Config
) -> forms.Prediction:
    """A stage without KV buffer; its messages are whole images."""
    layers = forms.stages(shape, devices, cfg.split)
    rows = shape.token_rows
    return forms.stage_prediction(
        shape, layers, rank, steps, batch, images, texts=steps, largest_rows=rows, kv=False
    )
