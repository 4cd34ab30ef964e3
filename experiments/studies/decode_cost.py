"""What decoding takes on a device that holds the VAE, in bytes and in seconds, counted on `meta` tensors.

One latent, decoded at once; its bytes by tiles too. A size is that of a latent without the batch: channels, frames of a
video, height, width.
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from experiments.config import ClusterConfig, RunConfig
from experiments.models.parts import read_parts
from experiments.session import Session, machine
from experiments.studies.repeated import shorten
from pipefusion.core.memory import PeakTracker
from pipefusion.deferred import diffusers
from pipefusion.pipelines.pictures import decode_one
from pipefusion.sim.meta import MetaMode
from pipefusion.sim.meter import DeviceClock, Meter


def known_vaes() -> dict[str, dict[str, Any]]:
    """The VAE of conf/part that each model comes with, by its name, with the `sample_size` of its checkpoint."""
    found = {name: part for part in read_parts().values() if part["kind"] == "vae" for name in part["models"]}
    sizes = {name: size for part in found.values() for name, size in part.get("sample_sizes", {}).items()}
    return found | {
        name: found[name] | {"config": found[name]["config"] | {"sample_size": size}}
        for name, size in sizes.items()
    }


def knows_tiles(model: str) -> bool:
    """Whether it is known how large the tiles of a model's VAE are: as its class has them, but `AutoencoderKL`, whose
    are as large as each checkpoint's `sample_size`. Raises KeyError."""
    part = known_vaes()[model]
    return not part["class"].endswith(".AutoencoderKL") or "sample_size" in part["config"]


def empty_vae(model: str, size: tuple[int, ...], dtype: torch.dtype) -> tuple[Any, Tensor]:
    """A model's VAE and a latent [1, *size], both on `meta`. Raises KeyError for a model that is in no `known_vaes`."""
    part = known_vaes()[model]
    with torch.device("meta"):
        vae = getattr(diffusers, part["class"].rpartition(".")[2])(**part["config"]).eval()
    nn.Module.to(vae, dtype)  # diffusers' own `to` warns
    vae.disable_tiling()
    return vae, torch.empty(1, *size, dtype=torch.float32, device="meta")


@lru_cache(maxsize=16)
def decode_bytes(model: str, size: tuple[int, ...], dtype: torch.dtype, tiled: bool = False) -> int:
    """Peak bytes of a latent and all that is made of it, at once or `tiled` as the VAE does it by itself.

    The VAE's parameters are not among them. Raises KeyError.
    """
    vae, latent = empty_vae(model, size, dtype)
    if tiled:
        vae.enable_tiling()
    with torch.inference_mode(), PeakTracker([latent], [*vae.parameters(), *vae.buffers()]) as tracker:
        shorten(vae, tracker)
        decode_one(vae, latent)
    return tracker.peak_bytes


def decoding_seconds(cfg: RunConfig, session: Session) -> float:
    """Seconds of decoding one picture or video of a run on a device of its cluster. Raises KeyError."""
    model = session.model(cfg.model)
    given = (cfg.model.name, model.shape.latent_size, model.dtype)
    return session.once(("decoding", *given, cfg.cluster.name), lambda: decode_seconds(*given, cfg.cluster))


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
