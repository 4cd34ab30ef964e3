"""From prompts to pictures with a diffusers pipeline whose transformer is a `Denoiser`."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from pipefusion.core.dit import Conditioning
from pipefusion.denoiser import Denoiser
from pipefusion.pipelines import prompts
from pipefusion.pipelines.pictures import decode
from pipefusion.pipelines.timesteps import timestep_arguments


def generate(
    pipe: Any,
    denoiser: Denoiser,
    *,
    prompt: str | Sequence[str],
    generator: torch.Generator,
    negative_prompt: str | None = None,
    num_inference_steps: int | None = None,
    guidance_scale: float | None = None,
    height: int | None = None,
    width: int | None = None,
) -> list[Any] | None:
    """Pictures of prompts, as the pipeline's own call has them. Every rank calls it, with the same arguments.

    The pipeline gives its text encoders, its scheduler with its timesteps, and its VAE; it needs no transformer.
    Sizes are taken as they are given (`use_resolution_binning=False`, where a pipeline has that).

    Args:
        pipe: a diffusers pipeline of PixArt, SD3, Flux, FLUX.2, HunyuanDiT or DiT.
        denoiser: what `parallelize` made of its transformer.
        prompt: one, or B; for DiT names of classes, or numbers.
        generator: draws the noise; seeded alike on all ranks, since each draws for itself.
        negative_prompt: of classifier-free guidance; None is the empty one.
        num_inference_steps, guidance_scale: None is the pipeline's default.
        height, width: in pixels; None is what the denoiser was built for.

    Returns:
        B PIL images on rank 0, None on the others.

    Raises:
        ValueError: a pipeline of another family, a scheduler that draws noise, a negative prompt without guidance.
        FloatingPointError: latents or pixels that are not finite.

    Example:
        >>> images = generate(pipe, denoiser, prompt="a lighthouse", generator=torch.Generator().manual_seed(0))
    """
    name = prompts.known(pipe)
    defaults = inspect.signature(type(pipe).__call__).parameters
    steps = defaults["num_inference_steps"].default if num_inference_steps is None else num_inference_steps
    scale = defaults["guidance_scale"].default if guidance_scale is None else guidance_scale
    texts = [prompt] if isinstance(prompt, str) else [*prompt]
    branches = denoiser.dit.shape.guidance == "cfg" or pipe.config.get("is_distilled") is False
    if negative_prompt is not None and not (branches and "negative_prompt" in defaults):
        raise ValueError(f"{name} has no negative prompt here; allowed: None")
    against = (negative_prompt or "") if branches and scale > 1 else None
    found = prompts.encode(pipe, texts, against, pipe.device)
    size = latent_size(denoiser, height, width)
    noise = draw(denoiser, len(texts), size, generator)
    latents = denoiser(noise, conditioning(found, scale), timed(pipe, denoiser, size, steps))
    return None if latents is None else decode(pipe.vae, latents)


def conditioning(found: dict[str, Tensor], scale: float) -> Conditioning:
    """Prompts and, where there are any, negative ones."""
    lead = "negative_"
    negative = {name.removeprefix(lead): each for name, each in found.items() if name.startswith(lead)}
    prompt = {name: each for name, each in found.items() if not name.startswith(lead)}
    return Conditioning(prompt, scale, negative or None)


def latent_size(denoiser: Denoiser, height: int | None, width: int | None) -> tuple[int, int]:
    """Height and width of the latents. Raises ValueError for pixels that make no latent row."""
    factor = denoiser.pixels_per_latent
    for pixels in (height or 0, width or 0):
        if pixels % factor:
            raise ValueError(f"{pixels} pixels; allowed: multiples of {factor}")
    own = denoiser.size
    return height // factor if height else own[0], width // factor if width else own[1]


def draw(denoiser: Denoiser, images: int, size: tuple[int, int], generator: torch.Generator) -> Tensor:
    """Noise [B, C, H, W] float32, as a pipeline in float32 draws it."""
    channels = denoiser.dit.shape.in_channels
    return torch.randn(images, channels, *size, generator=generator, device=generator.device)


def timed(pipe: Any, denoiser: Denoiser, size: tuple[int, int], steps: int) -> Any:
    """A scheduler like the pipeline's, its timesteps set as the pipeline sets them."""
    kind, patch = type(pipe.scheduler), denoiser.dit.shape.patch_size
    config = {**pipe.scheduler.config, "_class_name": kind.__name__}
    tokens = size[0] // patch * (size[1] // patch)
    scheduler = kind.from_config(pipe.scheduler.config)
    scheduler.set_timesteps(**timestep_arguments(denoiser.class_name, config, tokens, steps))
    return scheduler
