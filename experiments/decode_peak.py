"""What decoding takes on a device that holds the VAE, counted on `meta` tensors."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import nn

from experiments.parts import read_parts
from pipefusion.core.memory import PeakTracker
from pipefusion.deferred import diffusers
from pipefusion.pipelines.pictures import decode_one


@lru_cache(maxsize=16)
def decode_bytes(model: str, size: tuple[int, ...], dtype: torch.dtype) -> int:
    """Peak bytes of one latent of this size (channels, frames of a video, height, width) and all that is made of it.

    Decoded at once: conf/part does not say how large a checkpoint's tiles are. The VAE's parameters are not among them.
    Raises KeyError for a model whose VAE is not in conf/part.
    """
    parts = {name: part for part in read_parts().values() if part["kind"] == "vae" for name in part["models"]}
    part = parts[model]
    with torch.device("meta"):
        vae = getattr(diffusers, part["class"].rpartition(".")[2])(**part["config"]).eval()
    nn.Module.to(vae, dtype)  # diffusers' own `to` warns
    vae.disable_tiling()
    latent = torch.empty(1, *size, dtype=torch.float32, device="meta")
    with torch.no_grad(), PeakTracker([latent], [*vae.parameters(), *vae.buffers()]) as tracker:
        decode_one(vae, latent)
    return tracker.peak_bytes
