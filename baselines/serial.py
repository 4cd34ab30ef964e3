"""One device, the whole model, no communication: what every other method is compared with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from pipefusion.core import closed_forms as forms
from pipefusion.core.attention import local
from pipefusion.core.checks import within
from pipefusion.core.dit import Conditioning, DiT, Problem, Sampler
from pipefusion.core.fabric import Fabric
from pipefusion.core.sampler import denoise_band
from pipefusion.core.shape import DiTShape


@dataclass
class Config:
    """Nothing to choose."""

    name: str = "serial"
    axis: str = "serial"


def check(shape: DiTShape, devices: int, steps: int, cfg: Config) -> Problem | None:
    """Serial runs on exactly one device."""
    return within("devices", devices, 1, 1, "serial uses one device")


def build(dit: DiT, fabric: Fabric, cfg: Config, scheduler: Any) -> Sampler:
    """Denoise the whole image with ordinary self-attention."""

    def sampler(noise: Tensor, cond: Conditioning) -> Tensor:
        return denoise_band(
            dit, fabric, scheduler, noise, cond, range(dit.shape.token_rows), lambda step: local
        )

    return sampler


def predict(
    shape: DiTShape, devices: int, rank: int, steps: int, batch: int, images: int, cfg: Config
) -> forms.Prediction:
    """Everything on one device, nothing sent."""
    return forms.band_prediction(shape, 1, batch, images, sent_bytes=0)
