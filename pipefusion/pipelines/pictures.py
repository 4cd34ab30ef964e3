"""Latents -> pixels, as a family's pipeline decodes them with its VAE; and back, as FLUX.1 Kontext's encodes them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from pipefusion.core.local import LocalFabric
from pipefusion.deferred import diffusers
from pipefusion.pipelines.tiles import decode_tiles

PATCHED = "AutoencoderKLFlux2"
"""FLUX.2's, whose latents here are those that its transformer sees: 2 x 2 patches, normalised."""

DEEP = "AutoencoderDC"
"""SANA's deep compression autoencoder, 32 pixels a latent row."""

OUTPUT_TYPES = ("pil", "np", "pt", "latent")

FLAT = "AutoencoderKLQwenImage"
"""Qwen-Image's, where a picture is a video of one frame."""

NORMALISED = (FLAT, "AutoencoderKLWan")
"""Each channel of the latents has a mean and a deviation."""

VIDEOS = (
    "AutoencoderKLWan",
    "AutoencoderKLHunyuanVideo",
    "AutoencoderKLHunyuanVideo15",
    "AutoencoderKLCogVideoX",
)
"""Causal 3-D VAEs: the first frame of the latents is a picture alone."""


def latent_factor(config: Mapping[str, Any]) -> int:
    """Pixels of a picture's side per row of its latents, of a VAE's `config.json`."""
    if "scale_factor_spatial" in config:  # Wan's
        return int(config["scale_factor_spatial"])
    if config.get("spatial_compression_ratio"):  # LTX-2's, HunyuanVideo's
        return int(config["spatial_compression_ratio"])
    if "spatio_temporal_scaling" in config:  # LTX-Video's
        return int(config["patch_size"] * 2 ** sum(config["spatio_temporal_scaling"]))
    if config["_class_name"] == FLAT:
        return 2 ** len(config["temperal_downsample"])
    if config["_class_name"] == DEEP:
        return int(2 ** (len(config["encoder_block_out_channels"]) - 1))
    patch = config.get("patch_size", (2, 2))[0] if config["_class_name"] == PATCHED else 1
    return patch * 2 ** (len(config["block_out_channels"]) - 1)


@torch.no_grad()
def encode(vae: Any, picture: Any, height: int, width: int) -> Tensor:
    """Latents [1, C, H, W] float32 of a picture (PIL, array or tensor), resized to so many pixels."""
    pixels = diffusers.image_processor.VaeImageProcessor().preprocess(picture, height, width)
    latent = vae.encode(pixels.to(vae.device, vae.dtype)).latent_dist.mode()
    return ((latent - vae.config.shift_factor) * vae.config.scaling_factor).float()


@torch.no_grad()
def decode(vae: Any, latents: Tensor, output_type: str = "pil", fabric: LocalFabric | None = None) -> Any:
    """Latents [B, C, H, W] as B pictures, of `OUTPUT_TYPES` but the last, by one rank or all of a fabric.

    Raises FloatingPointError for what no picture could show.
    """
    from diffusers.image_processor import VaeImageProcessor

    return VaeImageProcessor().postprocess(decode_all(vae, latents, fabric), output_type=output_type)


@torch.no_grad()
def decode_all(vae: Any, latents: Tensor, fabric: LocalFabric | None = None) -> Tensor:
    """Pixels [B, 3, h, w] in -1..1 of latents [B, C, H, W], of videos [B, 3, F', h, w] of [B, C, F, H, W].

    One after the other, to save memory. Raises FloatingPointError for what no picture could show.
    """
    pixels = torch.cat([decode_one(vae, latent, fabric) for latent in latents.to(vae.device).split(1)])
    if not bool(pixels.isfinite().all()):
        raise FloatingPointError("a picture has NaN or infinite values")
    return pixels


def decode_one(vae: Any, latent: Tensor, fabric: LocalFabric | None = None) -> Tensor:
    """Pixels [1, 3, h, w] in -1..1 of a latent [1, C, H, W], scaled back as the VAE's pipelines do.

    A video's are [1, 3, F', h, w], of [1, C, F, H, W]. With a fabric all its ranks decode their part of the tiles.
    """
    latent, name = latent.float(), type(vae).__name__
    if name in NORMALISED:
        mean, deviation = (
            latent.new_tensor(vae.config[key]).view(1, -1, *[1] * (latent.ndim - 2))
            for key in ("latents_mean", "latents_std")
        )
        latent = latent * deviation + mean
    elif name == PATCHED:
        from diffusers import Flux2Pipeline

        mean, variance = vae.bn.running_mean.float(), vae.bn.running_var.float()
        deviation = torch.sqrt(variance + vae.config.batch_norm_eps)
        latent = Flux2Pipeline._unpatchify_latents(
            latent * deviation.view(1, -1, 1, 1) + mean.view(1, -1, 1, 1)
        )
    else:
        latent = latent / vae.config.scaling_factor + (vae.config.get("shift_factor") or 0.0)
    latent = latent.to(vae.dtype)
    if fabric is not None:
        return decode_tiles(vae, latent, fabric)
    pixels: Tensor = vae.decode(latent.unsqueeze(2) if name == FLAT else latent, return_dict=False)[0]
    return pixels[:, :, 0] if name == FLAT else pixels
