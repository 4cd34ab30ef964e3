"""From prompts to pictures with a diffusers pipeline whose transformer is a `Denoiser`."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from pipefusion.core.conditioning import Conditioning
from pipefusion.core.ledger import Where
from pipefusion.core.local import LocalFabric
from pipefusion.denoiser import Denoiser
from pipefusion.pipelines import prompts
from pipefusion.pipelines.pictures import OUTPUT_TYPES, decode, encode
from pipefusion.pipelines.timesteps import timestep_arguments

EDITS = "FluxKontextPipeline"
"""It makes a picture of another one."""
TRUE_CFG = "QwenImagePipeline"
"""Its scale is called `true_cfg_scale`, it guides only with a negative prompt, and rescales what is guided."""


def generate(
    pipe: Any,
    denoiser: Denoiser,
    *,
    prompt: str | Sequence[str],
    image: Any = None,
    negative_prompt: str | Sequence[str] | None = None,
    generator: torch.Generator | Sequence[torch.Generator] | None = None,
    latents: Tensor | None = None,
    num_inference_steps: int | None = None,
    guidance_scale: float | None = None,
    true_cfg_scale: float | None = None,
    num_images_per_prompt: int = 1,
    height: int | None = None,
    width: int | None = None,
    output_type: str = "pil",
    share_decoding: bool = False,
) -> Any:
    """Pictures of prompts, as the pipeline's own call has them. Every rank calls it, with the same arguments.

    The pipeline gives its text encoders, its scheduler with its timesteps, and its VAE; it needs no transformer.
    Sizes are taken as they are given (`use_resolution_binning=False`, or `_auto_resize=False` and `max_area=height *
    width`, where a pipeline has that).

    Args:
        pipe: a diffusers pipeline of PixArt, SANA, SD3, Flux, FLUX.1 Kontext, FLUX.2, Qwen-Image, HunyuanDiT or DiT.
        denoiser: what `parallelize` made of its transformer.
        prompt: one, or P; for DiT names of classes, or numbers.
        image: the picture that all prompts edit, resized to the size of those that are made. FLUX.1 Kontext's alone.
        negative_prompt: of classifier-free guidance, one or P; None is the empty one, for Qwen-Image no guidance.
        generator: draws the noise of B = P * `num_images_per_prompt` images, or B generators that draw one each;
            seeded alike on all ranks, since each draws for itself.
        latents: the noise itself [B, C, H, W], equal on all ranks, in place of a generator.
        num_inference_steps: None is the pipeline's default.
        guidance_scale: of the two branches, or the input of a distilled model; None is the pipeline's default.
        true_cfg_scale: Qwen-Image's name of the former.
        num_images_per_prompt: images of a prompt follow one another.
        height, width: in pixels; None is what the denoiser was built for, or the size of `latents`.
        output_type: `pil`, `np`, `pt`, or `latent`.
        share_decoding: every rank decodes its part of the tiles, into which `pipe.vae.enable_tiling()` cuts pictures;
            all of them hold the VAE, and get the latents.

    Returns:
        On rank 0 a list of B PIL images, an array [B, height, width, 3] in 0..1, a tensor [B, 3, height, width] in
        0..1, or the latents [B, C, H, W] float32 as the denoiser has them. None on the others.

    Raises:
        ValueError: a pipeline of another family than the denoiser's, a scheduler that draws noise, guidance that the
            pipeline or the model does not have, sizes or numbers of images that do not fit, a VAE that is not shared.
        FloatingPointError: latents or pixels that are not finite.
        RuntimeError: another rank did not take part, or the process group has ended.

    Example:
        >>> images = generate(pipe, denoiser, prompt="a lighthouse", generator=torch.Generator().manual_seed(0))
    """
    prompts.require_family(pipe, denoiser.class_name)
    if output_type not in OUTPUT_TYPES:
        raise ValueError(f"output_type={output_type!r} is unknown; allowed: {', '.join(OUTPUT_TYPES)}")
    if output_type != "latent" and pipe.vae is None:
        raise ValueError("the pipeline has no VAE; allowed: one, or output_type='latent'")
    if image is not None and (type(pipe).__name__ != EDITS or pipe.vae is None):
        raise ValueError(
            f"{type(pipe).__name__} edits no image here; allowed: None, or a {EDITS} with its VAE"
        )
    texts = repeated(prompt, None, num_images_per_prompt)
    scale = guidance(pipe, guidance_scale, true_cfg_scale, negative_prompt is not None)
    against = negatives(pipe, denoiser, negative_prompt, scale)
    if against is not None:
        against = repeated(against, len(texts) // num_images_per_prompt, num_images_per_prompt)
    size = latent_size(denoiser, height, width, latents)
    noise = (
        draw(generator, (len(texts), denoiser.dit.shape.in_channels, *size)) if latents is None else latents
    )
    if noise.shape[0] != len(texts):
        raise ValueError(f"latents of {noise.shape[0]} images; allowed: {len(texts)}, as prompts ask for")
    scheduler = timed(pipe, denoiser, size, num_inference_steps)
    found = prompts.encode(pipe, texts, against, pipe.device)
    if image is not None:
        reference = encode(pipe.vae, image, *(side * denoiser.pixels_per_latent for side in size)).cpu()
        found["references"] = reference[:, None].expand(len(texts), -1, -1, -1, -1)
    done = denoiser(noise, conditioning(found, scale, type(pipe).__name__ == TRUE_CFG), scheduler)
    if output_type == "latent":
        return done
    if not share_decoding:
        return None if done is None else decode(pipe.vae, done, output_type)
    fabric = denoiser.fabric
    whole = torch.empty(noise.shape, device=fabric.device) if done is None else done
    pictures = decode(pipe.vae, everywhere(whole, fabric), output_type, fabric)
    return pictures if fabric.rank == 0 else None


def everywhere(tensor: Tensor, fabric: LocalFabric) -> Tensor:
    """What rank 0 has, on every rank."""
    for axis in fabric.mesh.axes:  # the last varies fastest
        if fabric.axis(axis).size > 1:
            fabric.broadcast(tensor, 0, axis=axis, at=Where())
    return tensor


def default(pipe: Any, name: str) -> Any:
    """What the pipeline's own call takes for an argument that is not given."""
    return inspect.signature(type(pipe).__call__).parameters[name].default


def repeated(prompt: str | Sequence[str], count: int | None, times: int) -> list[str]:
    """One prompt an image. One text stands for `count`. Raises ValueError for another number of them, and for none."""
    if times < 1:
        raise ValueError(f"num_images_per_prompt={times}; allowed: 1 or more")
    texts = [prompt] * (count or 1) if isinstance(prompt, str) else [*prompt]
    if not texts or (count is not None and len(texts) != count):
        what = "1 or more prompts" if count is None else f"1 negative prompt, or {count}"
        raise ValueError(f"{len(texts)} texts; allowed: {what}")
    return [text for text in texts for _ in range(times)]


def guidance(pipe: Any, guidance_scale: float | None, true_cfg_scale: float | None, negative: bool) -> float:
    """The scale. Raises ValueError for the one that the pipeline does not have."""
    name = type(pipe).__name__
    if name != TRUE_CFG:
        if true_cfg_scale is not None:
            raise ValueError(f"{name} has no true_cfg_scale here; allowed: guidance_scale")
        return float(default(pipe, "guidance_scale") if guidance_scale is None else guidance_scale)
    if guidance_scale is not None:
        raise ValueError(f"{name} has no guidance_scale here; allowed: true_cfg_scale")
    if true_cfg_scale is not None and true_cfg_scale > 1 and not negative:
        raise ValueError(f"true_cfg_scale={true_cfg_scale} needs a negative prompt; allowed: also ' '")
    return float(default(pipe, "true_cfg_scale") if true_cfg_scale is None else true_cfg_scale)


def negatives(
    pipe: Any, denoiser: Denoiser, negative_prompt: str | Sequence[str] | None, scale: float
) -> str | Sequence[str] | None:
    """The texts of the unconditional branch, None where there is none. Raises ValueError where they change nothing."""
    guided = denoiser.dit.shape.guidance == "cfg" and not pipe.config.get("is_distilled", False)
    takes = "negative_prompt" in inspect.signature(type(pipe).__call__).parameters
    if negative_prompt is not None and not (guided and takes):
        raise ValueError(f"{type(pipe).__name__} has no negative prompt here; allowed: None")
    if not guided or scale <= 1:
        return None
    return "" if negative_prompt is None and type(pipe).__name__ != TRUE_CFG else negative_prompt


def conditioning(found: dict[str, Tensor], scale: float, rescaled: bool) -> Conditioning:
    """Prompts and, where there are any, negative ones."""
    lead = "negative_"
    negative = {name.removeprefix(lead): each for name, each in found.items() if name.startswith(lead)}
    prompt = {name: each for name, each in found.items() if not name.startswith(lead)}
    return Conditioning(prompt, scale, negative or None, rescaled)


def latent_size(
    denoiser: Denoiser, height: int | None, width: int | None, latents: Tensor | None
) -> tuple[int, int]:
    """Height and width of the latents. Raises ValueError for pixels that make no latent row, or not those given."""
    factor = denoiser.pixels_per_latent
    for pixels in (height or 0, width or 0):
        if pixels % factor:
            raise ValueError(f"{pixels} pixels; allowed: multiples of {factor}")
    if latents is not None and latents.ndim != 4:
        raise ValueError(f"latents {[*latents.shape]}; allowed: [B, C, H, W], not packed")
    own = denoiser.size if latents is None else (latents.shape[2], latents.shape[3])
    size = height // factor if height else own[0], width // factor if width else own[1]
    if latents is not None and size != own:
        raise ValueError(
            f"latents of {own[0]} x {own[1]} for a size of {size[0]} x {size[1]}; allowed: the same"
        )
    return size


def draw(generator: torch.Generator | Sequence[torch.Generator] | None, size: Sequence[int]) -> Tensor:
    """Noise [B, C, H, W] float32, as a pipeline in float32 draws it. Raises ValueError."""
    if generator is None:
        raise ValueError("neither generator nor latents; allowed: one of them, the same on all ranks")
    if isinstance(generator, torch.Generator):
        return torch.randn(*size, generator=generator, device=generator.device)
    if len(generator) != size[0]:
        raise ValueError(f"{len(generator)} generators; allowed: 1, or {size[0]}, one an image")
    return torch.cat([torch.randn(1, *size[1:], generator=one, device=one.device) for one in generator])


def timed(pipe: Any, denoiser: Denoiser, size: tuple[int, int], steps: int | None) -> Any:
    """A scheduler like the pipeline's, its timesteps set as the pipeline sets them."""
    steps = default(pipe, "num_inference_steps") if steps is None else steps
    if steps < 1:
        raise ValueError(f"num_inference_steps={steps}; allowed: 1 or more")
    kind, patch = type(pipe.scheduler), denoiser.dit.shape.patch_size
    config = {**pipe.scheduler.config, "_class_name": kind.__name__}
    tokens = size[0] // patch * (size[1] // patch)
    scheduler = kind.from_config(pipe.scheduler.config)
    scheduler.set_timesteps(**timestep_arguments(denoiser.class_name, config, tokens, steps))
    return scheduler
