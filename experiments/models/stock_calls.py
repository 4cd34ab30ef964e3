"""How each family's diffusers pipeline calls its transformer and guides, with nothing of the rest of this project.

For replays and tests: what a view must be equal to. A call takes the stock model, the latents [b, C, H, W] of all
guidance branches, the timestep as the scheduler has it, the prompt's tensors by name, the guidance scale and the
picture's height and width in pixels; it returns the prediction [b, C, H, W].
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

Prompt = Mapping[str, Tensor]
Size = tuple[int, int]
Call = Callable[[Any, Tensor, Tensor, Prompt, float, Size], Tensor]


def pixart(model: Any, latent: Tensor, times: Tensor, prompt: Prompt, scale: float, size: Size) -> Tensor:
    """PixArt-alpha and -sigma; alpha at 1024 px gets the picture's size."""
    conditions: dict[str, Tensor | None] = {"resolution": None, "aspect_ratio": None}
    if model.use_additional_conditions:
        height, width = size
        conditions = {
            "resolution": torch.tensor([size]).repeat(len(latent), 1).to(latent.dtype),
            "aspect_ratio": torch.tensor([[height / width]]).repeat(len(latent), 1).to(latent.dtype),
        }
    return model(
        latent,
        encoder_hidden_states=prompt["prompt_embeds"],
        encoder_attention_mask=prompt["prompt_mask"],
        timestep=times,
        added_cond_kwargs=conditions,
    ).sample


def sana(model: Any, latent: Tensor, times: Tensor, prompt: Prompt, scale: float, size: Size) -> Tensor:
    """SANA."""
    return model(
        latent,
        encoder_hidden_states=prompt["prompt_embeds"],
        encoder_attention_mask=prompt["prompt_mask"],
        timestep=times * model.config.timestep_scale,
        return_dict=False,
    )[0]


def sd3(model: Any, latent: Tensor, times: Tensor, prompt: Prompt, scale: float, size: Size) -> Tensor:
    """Stable Diffusion 3 and 3.5."""
    return model(latent, prompt["prompt_embeds"], prompt["pooled_prompt_embeds"], times).sample


def packed(latent: Tensor) -> Tensor:
    """Latents [b, C, H, W] two by two, as tokens [b, H W / 4, 4 C]."""
    cells = latent.unflatten(3, (-1, 2)).unflatten(2, (-1, 2))
    return cells.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)


def unpacked(tokens: Tensor, height: int, width: int) -> Tensor:
    """Tokens [b, H W / 4, 4 C] as latents [b, C, H, W]."""
    cells = tokens.unflatten(2, (-1, 2, 2)).unflatten(1, (height // 2, width // 2))
    return cells.permute(0, 3, 1, 4, 2, 5).flatten(4).flatten(2, 3)


def references(prompt: Prompt) -> tuple[Tensor, ...]:
    """Latents [b, C, H, W] of the pictures that are edited, none if there are none."""
    return prompt["references"].unbind(1) if "references" in prompt else ()


def flux(model: Any, latent: Tensor, times: Tensor, prompt: Prompt, scale: float, size: Size) -> Tensor:
    """FLUX.1: latents packed two by two, the guidance scale an input; Kontext: a picture behind, at 1."""
    height, width = latent.shape[2:]
    pictures = [latent, *references(prompt)]
    rows, cols = torch.arange(height // 2), torch.arange(width // 2)
    out = model(
        torch.cat([packed(picture) for picture in pictures], dim=1),
        encoder_hidden_states=prompt["prompt_embeds"],
        pooled_projections=prompt["pooled_prompt_embeds"],
        timestep=times.to(latent.dtype) / 1000,
        img_ids=torch.cartesian_prod(torch.arange(len(pictures)), rows, cols),
        txt_ids=torch.zeros(prompt["prompt_embeds"].shape[1], 3),
        guidance=torch.full((len(latent),), scale) if model.config.guidance_embeds else None,
        return_dict=False,  # which shared models need
    )[0]
    return unpacked(out[:, : len(rows) * len(cols)], height, width)


def flux2(model: Any, latent: Tensor, times: Tensor, prompt: Prompt, scale: float, size: Size) -> Tensor:
    """FLUX.2: latents come packed; positions are (0, row, column, 0), the prompt's (0, 0, 0, token).

    Pictures behind the image's are at 10, 20, ...
    """
    b, _, height, width = latent.shape
    tokens = prompt["prompt_embeds"].shape[1]
    zero, one = torch.zeros(1, dtype=torch.long), torch.arange(1)
    pictures = [latent, *references(prompt)]
    out = model(
        torch.cat([picture.flatten(2).transpose(1, 2) for picture in pictures], dim=1),
        encoder_hidden_states=prompt["prompt_embeds"],
        timestep=times.to(latent.dtype) / 1000,
        img_ids=torch.cartesian_prod(
            10 * torch.arange(len(pictures)), torch.arange(height), torch.arange(width), zero
        ),
        txt_ids=torch.cartesian_prod(one, zero, zero, torch.arange(tokens)),
        guidance=torch.full((b,), scale) if model.config.guidance_embeds else None,
        return_dict=False,  # which shared models need
    )[0]
    return out[:, : height * width].transpose(1, 2).unflatten(2, (height, width))


def qwen(model: Any, latent: Tensor, times: Tensor, prompt: Prompt, scale: float, size: Size) -> Tensor:
    """Qwen-Image: latents packed two by two; no mask, as for prompts without padding. -Edit: pictures behind."""
    height, width = latent.shape[2:]
    pictures = [latent, *references(prompt)]
    out = model(
        torch.cat([packed(picture) for picture in pictures], dim=1),
        encoder_hidden_states=prompt["prompt_embeds"],
        timestep=times.to(latent.dtype) / 1000,
        img_shapes=[[(1, height // 2, width // 2)] * len(pictures)] * len(latent),
        return_dict=False,
    )[0]
    return unpacked(out[:, : height * width // 4], height, width)


def z_image(model: Any, latent: Tensor, times: Tensor, prompt: Prompt, scale: float, size: Size) -> Tensor:
    """Z-Image: pictures as videos of one frame, in a list; time runs the other way, and so does the prediction."""
    out = model(
        list(latent.unsqueeze(2)), (1000 - times) / 1000, list(prompt["prompt_embeds"]), return_dict=False
    )
    return -torch.stack(out[0])[:, :, 0]


def wan(model: Any, latent: Tensor, times: Tensor, prompt: Prompt, scale: float, size: Size) -> Tensor:
    """Wan: latents [b, C, F, H, W]; no mask, the tokens behind a prompt's end are zeros.

    2.2 TI2V-5B from a picture: the first frame is that, and each token has a timestep, which is 0 there.
    """
    first = prompt.get("first_frame")
    if first is not None:
        _, down, across = model.config.patch_size
        latent, noisy = with_first_frame(latent, first), torch.ones(latent.shape[2:])
        noisy[0] = 0
        times = times[:, None] * noisy[:, ::down, ::across].flatten()
    return model(latent, times, prompt["prompt_embeds"], return_dict=False)[0]


def with_first_frame(latents: Tensor, first: Tensor) -> Tensor:
    """Latents [b, C, F, H, W] whose first frame is this one [b, C, 1, H, W]."""
    return torch.cat([first.to(latents), latents[:, :, 1:]], dim=2)


def cogvideox(model: Any, latent: Tensor, times: Tensor, prompt: Prompt, scale: float, size: Size) -> Tensor:
    """CogVideoX: latents [b, F, C, H, W]; rotary positions are an argument."""
    from diffusers.models.embeddings import get_3d_rotary_pos_embed
    from diffusers.pipelines.cogvideo.pipeline_cogvideox import get_resize_crop_region_for_grid

    config, rotary = model.config, None
    if config.use_rotary_positional_embeddings:
        patch, frames = config.patch_size, latent.shape[2]
        tokens = (latent.shape[3] // patch, latent.shape[4] // patch)
        base = config.sample_width // patch, config.sample_height // patch
        middle = get_resize_crop_region_for_grid(tokens, *base)
        rotary = get_3d_rotary_pos_embed(config.attention_head_dim, middle, tokens, frames)
    out = model(
        latent.transpose(1, 2), prompt["prompt_embeds"], times, image_rotary_emb=rotary, return_dict=False
    )
    return out[0].transpose(1, 2)


def hunyuan_video(
    model: Any, latent: Tensor, times: Tensor, prompt: Prompt, scale: float, size: Size
) -> Tensor:
    """HunyuanVideo: the guidance scale an input; of a prompt's tokens those are masked that `padding` says are none."""
    embeds, padding = prompt["prompt_embeds"], prompt.get("padding")
    return model(
        latent,
        times.to(torch.float32),
        encoder_hidden_states=embeds,
        encoder_attention_mask=embeds.new_ones(embeds.shape[:2])
        if padding is None
        else (~padding).to(embeds),
        pooled_projections=prompt["pooled_prompt_embeds"],
        guidance=latent.new_full((len(latent),), scale) * 1000 if model.config.guidance_embeds else None,
        return_dict=False,
    )[0]


def hunyuan_video15(
    model: Any, latent: Tensor, times: Tensor, prompt: Prompt, scale: float, size: Size
) -> Tensor:
    """HunyuanVideo 1.5 from text: no picture in the channels beside the latent, nor in its 729 tokens."""
    embeds, glyphs = prompt["prompt_embeds"], prompt["prompt_embeds_2"]
    tokens, more = embeds.shape[1], glyphs.shape[1]
    real = ~prompt["padding"] if "padding" in prompt else latent.new_ones(len(latent), tokens + more)
    return model(
        torch.cat([latent, torch.zeros_like(latent), torch.zeros_like(latent[:, :1])], dim=1),
        times.to(latent.dtype),
        encoder_hidden_states=embeds,
        encoder_attention_mask=real[:, :tokens],
        encoder_hidden_states_2=glyphs,
        encoder_attention_mask_2=real[:, tokens:],
        image_embeds=latent.new_zeros(len(latent), 729, model.config.image_embed_dim),
        return_dict=False,
    )[0]


def ltx(model: Any, latent: Tensor, times: Tensor, prompt: Prompt, scale: float, size: Size) -> Tensor:
    """LTX-Video: a latent pixel a token; positions are in pixels and seconds, with 25 pictures a second."""
    *_, frames, height, width = latent.shape
    pixels = size[0] / height
    out = model(
        latent.flatten(2).transpose(1, 2),
        prompt["prompt_embeds"],
        times,
        prompt["prompt_mask"],
        frames,
        height,
        width,
        rope_interpolation_scale=(8 / 25, pixels, pixels),
        return_dict=False,
    )[0]
    return out.transpose(1, 2).unflatten(2, (frames, height, width))


def ltx2(model: Any, latent: Tensor, times: Tensor, prompt: Prompt, scale: float, size: Size) -> Tensor:
    """LTX-2 without attention between its streams, so that any audio will do: here one token, of zeros."""
    *_, frames, height, width = latent.shape
    out = model(
        latent.flatten(2).transpose(1, 2),
        latent.new_zeros(len(latent), 1, model.config.audio_in_channels),
        prompt["prompt_embeds"],
        prompt["prompt_embeds"],
        times,
        encoder_attention_mask=prompt["prompt_mask"],
        num_frames=frames,
        height=height,
        width=width,
        audio_num_frames=1,
        isolate_modalities=True,
        return_dict=False,
    )[0]
    return out.transpose(1, 2).unflatten(2, (frames, height, width))


def hunyuan(model: Any, latent: Tensor, times: Tensor, prompt: Prompt, scale: float, size: Size) -> Tensor:
    """HunyuanDiT; versions before 1.2 get the picture's size."""
    from diffusers.models.embeddings import get_2d_rotary_pos_embed
    from diffusers.pipelines.hunyuandit.pipeline_hunyuandit import get_resize_crop_region_for_grid

    patch, head_dim = model.config.patch_size, model.inner_dim // model.num_heads
    tokens = (latent.shape[2] // patch, latent.shape[3] // patch)
    grid = get_resize_crop_region_for_grid(tokens, 512 // 8 // patch), tokens
    return model(
        latent,
        times.to(latent.dtype),
        encoder_hidden_states=prompt["prompt_embeds"],
        text_embedding_mask=prompt["prompt_mask"],
        encoder_hidden_states_t5=prompt["prompt_embeds_2"],
        text_embedding_mask_t5=prompt["prompt_mask_2"],
        image_meta_size=torch.tensor([[1024, 1024, *size, 0, 0]] * len(latent), dtype=latent.dtype),
        style=torch.zeros(len(latent), dtype=torch.long),
        image_rotary_emb=get_2d_rotary_pos_embed(head_dim, *grid, device="cpu", output_type="pt"),
    ).sample


def dit(model: Any, latent: Tensor, times: Tensor, prompt: Prompt, scale: float, size: Size) -> Tensor:
    """DiT, which draws classes."""
    return model(latent, times, prompt["class_labels"]).sample


CALLS: dict[str, Call] = {
    "PixArtTransformer2DModel": pixart,
    "SanaTransformer2DModel": sana,
    "SD3Transformer2DModel": sd3,
    "FluxTransformer2DModel": flux,
    "Flux2Transformer2DModel": flux2,
    "QwenImageTransformer2DModel": qwen,
    "ZImageTransformer2DModel": z_image,
    "WanTransformer3DModel": wan,
    "CogVideoXTransformer3DModel": cogvideox,
    "HunyuanVideoTransformer3DModel": hunyuan_video,
    "HunyuanVideo15Transformer3DModel": hunyuan_video15,
    "LTXVideoTransformer3DModel": ltx,
    "LTX2VideoTransformer3DModel": ltx2,
    "HunyuanDiT2DModel": hunyuan,
    "DiTTransformer2DModel": dit,
}
