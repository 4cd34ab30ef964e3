"""What decoding takes on a device that holds the VAE, in bytes and in seconds, counted on `meta` tensors.

One latent, decoded at once: conf/part does not say how large a checkpoint's tiles are. A size is that of a latent
without the batch: channels, frames of a video, height, width.
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from experiments.config import ClusterConfig
from experiments.parts import read_parts
from experiments.session import machine
from pipefusion.core.memory import PeakTracker
from pipefusion.deferred import diffusers
from pipefusion.pipelines.pictures import decode_one
from pipefusion.sim.meta import MetaMode
from pipefusion.sim.meter import DeviceClock, Meter


def known_vaes() -> dict[str, dict[str, Any]]:
    """The VAE of conf/part that each model comes with, by the model's name."""
    return {name: part for part in read_parts().values() if part["kind"] == "vae" for name in part["models"]}


def empty_vae(model: str, size: tuple[int, ...], dtype: torch.dtype) -> tuple[Any, Tensor]:
    """A model's VAE and a latent [1, *size], both on `meta`. Raises KeyError for a model that is in no `known_vaes`."""
    part = known_vaes()[model]
    with torch.device("meta"):
        vae = getattr(diffusers, part["class"].rpartition(".")[2])(**part["config"]).eval()
    nn.Module.to(vae, dtype)  # diffusers' own `to` warns
    vae.disable_tiling()
    return vae, torch.empty(1, *size, dtype=torch.float32, device="meta")


@lru_cache(maxsize=16)
def decode_bytes(model: str, size: tuple[int, ...], dtype: torch.dtype) -> int:
    """Peak bytes of a latent and all that is made of it; the VAE's parameters are not among them. Raises KeyError."""
    vae, latent = empty_vae(model, size, dtype)
    with torch.no_grad(), PeakTracker([latent], [*vae.parameters(), *vae.buffers()]) as tracker:
        decode_one(vae, latent)
    return tracker.peak_bytes


def decode_seconds(model: str, size: tuple[int, ...], dtype: torch.dtype, cluster: ClusterConfig) -> float:
    """Seconds of the same on a device of named hardware, a convolution being a matrix product. Raises KeyError.

    Compilers are given the transformer alone: the VAE has an eager host.
    """
    vae, latent = empty_vae(model, size, dtype)
    device, _ = machine(replace(cluster, host="eager"))
    meter, clock = Meter(device), DeviceClock(device)
    with torch.inference_mode(), MetaMode(lambda: meter):
        decode_one(vae, latent)
    clock.charge(*meter.take())
    return clock.read()
