"""Latents of a run -> PNG files, those of a video -> contact sheets and mp4."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

from analysis.records.files import replacing
from experiments.clips import as_bytes, clip_bytes, contact_sheet, write_mp4
from experiments.config import RunConfig
from experiments.models.decode import decode, has_vae, has_video_vae, open_vae
from experiments.models.model import Model
from pipefusion.core.local import LocalFabric
from pipefusion.pipelines.pictures import decode_all


def write_images(
    run_dir: Path, cfg: RunConfig, model: Model, fabric: LocalFabric | None = None
) -> list[Path]:
    """images/0.png, 1.png, ... of latents.safetensors [B, C, H, W]; of a video's [B, C, F, H, W] 0.mp4, ... as well.

    Every rank of a `fabric` decodes its part of the tiles, and rank 0 writes.
    Nothing if the world has no latents, or if these are neither RGB nor of a model that came with a VAE.
    """
    path = run_dir / "latents.safetensors"
    if not path.exists():
        return []
    latents = load_file(path)["latents"]
    device = None if fabric is None else fabric.device
    clips = None if model.frames is None else decode_videos(latents, cfg, model, device, fabric)
    pictures = (
        decode_pictures(latents, cfg, model, device, fabric)
        if clips is None
        else [contact_sheet(clip) for clip in clips]
    )
    if fabric is not None and fabric.rank:
        return []
    paths = [run_dir / "images" / f"{index}.png" for index in range(len(pictures))]
    for path, picture in zip(paths, pictures, strict=True):
        path.parent.mkdir(exist_ok=True)
        with replacing(path) as temporary:
            picture.save(temporary, format="PNG")
    if clips is not None:
        films = [path.with_suffix(".mp4") for path in paths]
        for path, clip in zip(films, clips, strict=True):
            write_mp4(path, clip)
        paths += films
    return paths


def decode_videos(
    latents: Tensor,
    cfg: RunConfig,
    model: Model,
    device: torch.device | None = None,
    fabric: LocalFabric | None = None,
) -> list[np.ndarray]:
    """Latents [B, C, F, H, W] as clips [F', h, w, 3] of bytes, in pixel space or through a causal VAE; none else.

    The VAE is where `decode_pictures` has it.
    """
    factor = model.facts["frame_factor"]
    if model.facts["pixel_space"]:
        return [*as_bytes(latents, factor)] if latents.shape[1] == 3 * factor else []
    if model.folder is None or not has_video_vae(model.folder):
        return []
    place = device or torch.device("cpu")
    with open_vae(model.folder, cfg.model.tiled, place, torch.float32, model.variant) as vae:
        return [*clip_bytes(decode_all(vae, latents, fabric))]


def decode_pictures(
    latents: Tensor,
    cfg: RunConfig,
    model: Model,
    device: torch.device | None = None,
    fabric: LocalFabric | None = None,
) -> list[Image.Image]:
    """Latents [B, C, H, W] as pictures: RGB in -1..1 as they are, others through the VAE of the model's folder.

    Videos are contact sheets.
    The VAE is on `device`, or on the CPU: the process that starts ranks must not initialise CUDA, and the GPU may be
    full. All ranks of a `fabric` call it.
    """
    if model.frames is not None:
        return [contact_sheet(clip) for clip in decode_videos(latents, cfg, model, device, fabric)]
    if model.facts["pixel_space"]:
        if latents.shape[1] != 3:
            return []
        pixels = ((latents.clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy()
        return [Image.fromarray(picture) for picture in pixels]
    if model.folder is None or not has_vae(model.folder):
        return []
    place = device or torch.device("cpu")
    return decode(model.folder, latents, cfg.model.tiled, place, torch.float32, model.variant, fabric)


def decode_pixels(
    latents: Tensor, cfg: RunConfig, model: Model, device: torch.device, fabric: LocalFabric | None = None
) -> Tensor:
    """The same pictures as one tensor [B, 3, H, W] uint8. Raises ValueError if there are none."""
    found = decode_pictures(latents, cfg, model, device, fabric)
    pictures = [np.array(picture.convert("RGB")) for picture in found]
    if not pictures:
        raise ValueError("the model has no pictures: its latents are not RGB and its weights have no VAE")
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2)
