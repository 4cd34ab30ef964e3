"""Latents -> pictures, with the VAE that comes in a pipeline's folder."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from analysis.records.files import read_json
from experiments.difference import NotFinite
from pipefusion.core.local import LocalFabric
from pipefusion.deferred import diffusers
from pipefusion.pipelines import pictures
from pipefusion.pipelines.pictures import DEEP, FLAT, PATCHED, VIDEOS

if TYPE_CHECKING:
    from PIL.Image import Image


def has_vae(folder: Path) -> bool:
    """Whether the folder has a VAE."""
    return (folder / "vae" / "config.json").exists()


def vae_class(folder: Path) -> str | None:
    """The class of the folder's VAE, None where it has none. Reads vae/config.json only."""
    return read_json(folder / "vae" / "config.json")["_class_name"] if has_vae(folder) else None


def latent_factor(folder: Path) -> int:
    """Pixels of a picture's side per row of its latents. Reads vae/config.json only."""
    return pictures.latent_factor(read_json(folder / "vae" / "config.json"))


def has_video_vae(folder: Path) -> bool:
    """Whether the folder has a VAE whose videos are decoded here, with its weights."""
    return vae_class(folder) in VIDEOS and any((folder / "vae").glob("*.safetensors"))


def decode(
    folder: Path,
    latents: Tensor,
    tiled: bool,
    device: torch.device,
    dtype: torch.dtype,
    variant: str | None = None,
    fabric: LocalFabric | None = None,
) -> list[Image]:
    """Latents [B, C, H, W] as B pictures, of `latent_factor` times their size.

    One picture after the other, so that memory does not grow with B; `tiled`, one tile after the other, so that it
    does not grow with the picture either. With a `fabric` all its ranks decode their part of the tiles.
    Raises OSError if the folder has no VAE in safetensors, and NotFinite for what no picture could show.
    """
    with open_vae(folder, tiled, device, dtype, variant) as vae:
        return pictures.decode(vae, latents, fabric=fabric)


@contextmanager
def open_vae(
    folder: Path, tiled: bool, device: torch.device, dtype: torch.dtype, variant: str | None = None
) -> Iterator[Any]:
    """The VAE of a folder, that decodes tile by tile or at once. Raises NotFinite for what no picture could show."""
    vae = load_vae(folder, dtype, variant).to(device)
    (vae.enable_tiling if tiled else vae.disable_tiling)()
    try:
        yield vae
    except FloatingPointError as error:
        raise NotFinite(str(error)) from None


@lru_cache(maxsize=1)
def load_vae(folder: Path, dtype: torch.dtype, variant: str | None = None) -> Any:
    """The VAE of a folder, of the class that its config.json names; once, for batch after batch of pictures."""
    name = vae_class(folder)
    kind = getattr(diffusers, name if name in (DEEP, FLAT, PATCHED, *VIDEOS) else "AutoencoderKL")
    options = {
        "variant": variant,
        "use_safetensors": True,
        "local_files_only": True,
        "low_cpu_mem_usage": False,
    }
    return kind.from_pretrained(folder / "vae", dtype=dtype, **options)
