"""GPipe-like pipeline with one patch: the whole image goes through the stages, one stage busy at a time.

Exact, with no stale K, V and so no KV buffer: what PipeFusion is without its patches.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from pipefusion.core import closed_forms as forms
from pipefusion.core.attention import local
from pipefusion.core.checks import one_of, within
from pipefusion.core.dit import Conditioning, DiT, DiTShape, Problem, Sampler
from pipefusion.core.fabric import Fabric
from pipefusion.core.pipeline import make_jobs, run_pipeline
from pipefusion.core.split import SPLITS


@dataclass
class Config:
    """`split` of the layers over the stages."""

    name: str = "sync_pipeline"
    axis: str = "pipe"
    split: str = "even"


def check(shape: DiTShape, devices: int, steps: int, cfg: Config) -> Problem | None:
    """At least one layer a stage."""
    return within("devices", devices, 1, shape.layers, "the model's layers") or one_of(
        "method.split", cfg.split, SPLITS
    )


def build(dit: DiT, fabric: Fabric, cfg: Config, scheduler: Any) -> Sampler:
    """Keep this rank's stage; every job is a whole step."""
    place = fabric.axis(cfg.axis)
    stage = forms.stages(dit.shape, place.size, cfg.split)[place.index]
    dit.keep(stage, embed=place.index == 0, unembed=place.index == place.size - 1)
    bands = [range(dit.shape.token_rows)]

    def sampler(noise: Tensor, cond: Conditioning) -> Tensor | None:
        jobs = make_jobs(len(scheduler.timesteps), len(scheduler.timesteps), bands)
        return run_pipeline(dit, fabric, cfg.axis, scheduler, noise, cond, jobs, bands, lambda job: local)

    return sampler


def predict(
    shape: DiTShape, devices: int, rank: int, steps: int, batch: int, images: int, cfg: Config
) -> forms.Prediction:
    """A stage without KV buffer; its messages are whole images."""
    layers = forms.stages(shape, devices, cfg.split)[rank]
    return forms.stage_prediction(
        shape, layers, devices, rank, steps, batch, images, shape.token_rows, kv=False
    )
