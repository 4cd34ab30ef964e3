"""Latents -> pictures, with the VAE that comes in a pipeline's folder."""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from experiments.difference import require_finite

if TYPE_CHECKING:
    from PIL.Image import Image

PATCHED = "AutoencoderKLFlux2"
"""FLUX.2's, whose latents here are those that its transformer sees: 2 x 2 patches, normalised."""

VIDEO = "AutoencoderKLQwenImage"
"""Qwen-Image's, where a picture is a video of one frame; each channel has a mean and a deviation."""


def has_vae(folder: Path) -> bool:
    """Whether the folder has a VAE."""
    return (folder / "vae" / "config.json").exists()


def latent_factor(folder: Path) -> int:
    """Pixels of a picture's side per row of its latents. Reads vae/config.json only."""
    config = json.loads((folder / "vae" / "config.json").read_text())
    if config["_class_name"] == VIDEO:
        return 2 ** len(config["temperal_downsample"])
    patch = config.get("patch_size", (2, 2))[0] if config["_class_name"] == PATCHED else 1
    return patch * 2 ** (len(config["block_out_channels"]) - 1)


@torch.no_grad()
def decode(
    folder: Path, latents: Tensor, tiled: bool, device: torch.device, dtype: torch.dtype
) -> list[Image]:
    """Latents [B, C, H, W] as B pictures, of `latent_factor` times their size.

    One picture after the other, so that memory does not grow with B; `tiled`, one tile after the other, so that it
    does not grow with the picture either. Raises OSError if the folder has no VAE in safetensors, and NotFinite
    for what no picture could show.
    """
    from diffusers.image_processor import VaeImageProcessor

    vae = load_vae(folder, dtype).to(device)
    (vae.enable_tiling if tiled else vae.disable_tiling)()
    postprocess = VaeImageProcessor().postprocess
    return [
        postprocess(require_finite(decode_one(vae, latent.to(device)), "a picture"), output_type="pil")[0]
        for latent in latents.split(1)
    ]


@lru_cache(maxsize=1)
def load_vae(folder: Path, dtype: torch.dtype) -> Any:
    """The VAE of a folder, of the class that its config.json names; once, for batch after batch of pictures."""
    import diffusers

    name = json.loads((folder / "vae" / "config.json").read_text())["_class_name"]
    kind = getattr(diffusers, name if name in (PATCHED, VIDEO) else "AutoencoderKL")
    return kind.from_pretrained(
        folder / "vae", dtype=dtype, use_safetensors=True, local_files_only=True, low_cpu_mem_usage=False
    )


def decode_one(vae: Any, latent: Tensor) -> Tensor:
    """Pixels [1, 3, h, w] in -1..1 of a latent [1, C, H, W], scaled back as the VAE's pipelines do."""
    latent = latent.float()
    if type(vae).__name__ == VIDEO:
        mean, deviation = (latent.new_tensor(vae.config[key]) for key in ("latents_mean", "latents_std"))
        latent = latent * deviation.view(1, -1, 1, 1) + mean.view(1, -1, 1, 1)
        return vae.decode(latent.to(vae.dtype).unsqueeze(2), return_dict=False)[0][:, :, 0]
    if type(vae).__name__ == PATCHED:
        from diffusers import Flux2Pipeline

        mean, variance = vae.bn.running_mean.float(), vae.bn.running_var.float()
        deviation = torch.sqrt(variance + vae.config.batch_norm_eps)
        latent = Flux2Pipeline._unpatchify_latents(
            latent * deviation.view(1, -1, 1, 1) + mean.view(1, -1, 1, 1)
        )
    else:
        latent = latent / vae.config.scaling_factor + (vae.config.shift_factor or 0.0)
    return vae.decode(latent.to(vae.dtype), return_dict=False)[0]
